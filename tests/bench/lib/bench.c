/* bench.c - see bench.h. */
#include "bench/lib/bench.h"

#include "base/assert.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <malloc.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void samples_add(struct samples *s, uint64_t ns)
{
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 1024;
        s->ns = realloc(s->ns, s->room * sizeof *s->ns);
        lmo_assert(s->ns);
    }
    s->ns[s->count++] = ns;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

uint64_t samples_percentile(struct samples *s, double percent)
{
    if (s->count == 0) {
        return 0;
    }
    qsort(s->ns, s->count, sizeof *s->ns, compare);
    size_t i = (size_t)((double)(s->count - 1) * percent / 100.0 + 0.5);
    return s->ns[i];
}

void samples_done(struct samples *s)
{
    free(s->ns);
    *s = (struct samples){0};
}

static void finish(void);

#define ENDINGS_MAX 4
static void (*endings[ENDINGS_MAX])(void);
static unsigned ending_count;

void at_the_end(void (*fn)(void))
{
    lmo_assert(ending_count < ENDINGS_MAX);
    if (ending_count == 0) {
        (void)atexit(finish);
    }
    endings[ending_count++] = fn;
}

static void finish(void)
{
    while (ending_count > 0) {
        endings[--ending_count]();
    }
}

void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    finish();
    _exit(2); /* other threads may still run: nothing of the libraries' is taken down under them */
}

void check(int r, const struct lmo_err *err, const char *what)
{
    if (r < 0) {
        die("%s: %s", what, err ? err->text : lmo_err_name(r));
    }
}

#define DIRS_MAX 32
static char made[DIRS_MAX][LMO_PATH_MAX];
static unsigned made_count;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void remove_made(void)
{
    while (made_count > 0) {
        (void)nftw(made[--made_count], remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
}

void make_dir(const char *dir, const char *name, char ret[LMO_PATH_MAX])
{
    lmo_assert(made_count < DIRS_MAX);
    snprintf(ret, LMO_PATH_MAX, name[0] ? "%s/%s" : "%s%s", dir, name);
    if (mkdir(ret, 0700) < 0) {
        die("%s: %s", ret, strerror(errno));
    }
    if (made_count == 0) {
        at_the_end(remove_made);
    }
    snprintf(made[made_count++], LMO_PATH_MAX, "%s", ret);
}

int fdatasync_file(const char *dir)
{
    char path[LMO_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/fdatasync", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || unlink(path) < 0 || fsync(fd) < 0) {
        die("%s: %s", path, strerror(errno));
    }
    return fd;
}

void measure_fdatasync(int fd, unsigned rounds, struct samples *to)
{
    static const char data[4096];
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t began = lmo_now_ns();
        if (write(fd, data, sizeof data) != (ssize_t)sizeof data || fdatasync(fd) < 0) {
            die("fdatasync: %s", strerror(errno));
        }
        samples_add(to, lmo_now_ns() - began);
    }
}

size_t heap_in_use(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

double rounded(double x, int digits)
{
    double scale = pow(10, digits);
    return round(x * scale) / scale;
}
