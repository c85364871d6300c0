/* hypervisor_libvirt_log.c - reading libvirt's log of a domain; see the header. */
#include "workers/drivers/hypervisor_libvirt_log.h"

#include "base/cleanup.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define TAIL_MAX ((size_t)256 << 10)

struct lmo_domlog_mark lmo_domlog_mark(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < 0)
        return (struct lmo_domlog_mark){0};
    return (struct lmo_domlog_mark){.valid = true, .inode = st.st_ino, .offset = (uint64_t)st.st_size};
}

/* libvirt's own lines begin "2026-01-31 12:34:56.789+0000: ". QEMU's have a 'T' between date and time, and whatever
 * else gets into this file (QEMU's standard error) has no such beginning. Returns what follows, NULL for other lines. */
static const char *libvirt_says(const char *line, size_t len, size_t *ret_len)
{
    static const char pattern[] = "dddd-dd-dd dd:dd:dd.ddd+dddd: ";
    size_t n = sizeof pattern - 1;
    if (len < n)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (pattern[i] == 'd' ? !isdigit((unsigned char)line[i]) : line[i] != pattern[i])
            return NULL;
    *ret_len = len - n;
    return line + n;
}

static bool begins(const char *text, size_t len, const char *with)
{
    return len >= strlen(with) && memcmp(text, with, strlen(with)) == 0;
}

bool lmo_domlog_text_migrated(const char *text, size_t len)
{
    static const char migrated[] = "shutting down, reason=migrated";
    bool verdict = false;
    for (const char *end; len > 0 && (end = memchr(text, '\n', len)); len -= (size_t)(end + 1 - text), text = end + 1) {
        size_t n = 0;
        const char *said = libvirt_says(text, (size_t)(end - text), &n);
        if (said && begins(said, n, "shutting down, reason="))
            verdict = n == sizeof migrated - 1 && begins(said, n, migrated);
        else if (said && begins(said, n, "starting up "))
            verdict = false; /* another process since */
    }
    return verdict;
}

bool lmo_domlog_migrated(const char *path, const struct lmo_domlog_mark *mark)
{
    struct stat st;
    LMO_AUTO_CLOSE int fd = mark->valid ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_ino != mark->inode || (uint64_t)st.st_size <= mark->offset ||
        (uint64_t)st.st_size - mark->offset > TAIL_MAX)
        return false;
    size_t want = (size_t)((uint64_t)st.st_size - mark->offset);
    LMO_AUTO_FREE char *text = malloc(want);
    ssize_t got = text ? pread(fd, text, want, (off_t)mark->offset) : -1;
    return got > 0 && lmo_domlog_text_migrated(text, (size_t)got);
}
