/* fault.c - see fault.h. Empty in a build without fault points. */
#include "base/fault.h"

#ifdef LMO_FAULT_POINTS

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ORDERS_MAX   65536   /* bytes of the file */
#define STRUCK_MAX   1048576 /* of what was noted */
#define COUNTED_MAX  1024    /* orders whose hits are counted */
#define WORD_MAX     64
#define HOLD_LOOK_MS 2 /* an order that is being waited out is looked for so often */

static const char *const places[] = {
#define X(name, text) [LMO_FAULT_##name] = text,
    LMO_FAULT_PLACES(X)
#undef X
};

struct order {
    char id[WORD_MAX], place[WORD_MAX], detail[WORD_MAX], action[WORD_MAX];
    unsigned nth;
    unsigned long ms;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    char id[WORD_MAX];
    unsigned hits;
} counted[COUNTED_MAX];
static unsigned counted_count;

/* "<id> <place>[:<detail>] <nth> <action> [<ms>]" */
static bool parse(const char *line, struct order *ret)
{
    struct order o = {0};
    char where[2 * WORD_MAX];
    int n = sscanf(line, "%63s %127s %u %63s %lu", o.id, where, &o.nth, o.action, &o.ms);
    if (n < 4 || o.nth == 0) {
        return false;
    }
    const char *colon = strchr(where, ':');
    size_t place = colon ? (size_t)(colon - where) : strlen(where);
    size_t detail = colon ? strlen(colon + 1) : 0;
    if (place >= sizeof o.place || detail >= sizeof o.detail) {
        return false;
    }
    memcpy(o.place, where, place);
    if (colon) {
        memcpy(o.detail, colon + 1, detail);
    }
    bool known = strcmp(o.action, "crash") == 0 || strcmp(o.action, "stop") == 0 ||
                 ((strcmp(o.action, "delay") == 0 || strcmp(o.action, "hold") == 0) && n == 5);
    *ret = o;
    return known;
}

static unsigned count_hit(const char *id)
{
    unsigned i = 0;
    while (i < counted_count && strcmp(counted[i].id, id) != 0) {
        i++;
    }
    if (i == counted_count) {
        if (i == COUNTED_MAX) {
            return 0;
        }
        (void)snprintf(counted[counted_count++].id, WORD_MAX, "%s", id);
    }
    return ++counted[i].hits;
}

/* Does a line of the file begin with this id? Asked of what was noted: did it strike before, in an earlier life of this
 * process or in another one? Asked of the orders: has it been withdrawn? */
static bool has_line(const char *file, const char *id)
{
    LMO_AUTO_FREE char *text = NULL;
    size_t len = strlen(id);
    if (lmo_fs_read_file(file, STRUCK_MAX, &text, NULL, NULL) < 0) {
        return false;
    }
    for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        if (strncmp(p, id, len) == 0 && p[len] == ' ') {
            return true;
        }
    }
    return false;
}

/* True once this process has noted it: an order that cannot be noted does not strike, or it would strike for ever. */
static bool note_struck(const char *struck_path, const char *line)
{
    char text[512];
    int len = snprintf(text, sizeof text, "%.400s pid=%d\n", line, (int)getpid());
    LMO_AUTO_CLOSE int fd = open(struck_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd >= 0 && write(fd, text, (size_t)len) == len && fsync(fd) == 0;
}

static void nap(unsigned long ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

static void strike(const char *path, const struct order *o, const char *place, const char *detail)
{
    lmo_log(LMO_LOG_WARN, "fault ordered", "id=%s place=%s detail=%s action=%s", o->id, place, detail, o->action);
    if (strcmp(o->action, "crash") == 0) {
        (void)kill(getpid(), SIGKILL);
        pause();
    } else if (strcmp(o->action, "stop") == 0) {
        (void)kill(getpid(), SIGSTOP);
    } else if (strcmp(o->action, "hold") == 0) {
        for (unsigned long waited = 0; waited < o->ms && has_line(path, o->id); waited += HOLD_LOOK_MS) {
            nap(HOLD_LOOK_MS);
        }
    } else {
        nap(o->ms);
    }
}

/* Looks through the orders with `lock` held; true: *ret is to strike now. */
static bool due(const char *path, const char *place, const char *detail, struct order *ret)
{
    LMO_AUTO_FREE char *text = NULL;
    char struck_path[4096], *rest = NULL;
    if (lmo_fs_read_file(path, ORDERS_MAX, &text, NULL, NULL) < 0) {
        return false;
    }
    (void)snprintf(struck_path, sizeof struck_path, "%s.struck", path);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        struct order o;
        if (line[0] == '#' || line[0] == '\0') {
            continue;
        }
        if (!parse(line, &o)) {
            lmo_log(LMO_LOG_WARN, "no fault order", "line=%s", line);
            continue;
        }
        bool here = strcmp(o.place, place) == 0 && (!o.detail[0] || strcmp(o.detail, detail) == 0);
        if (here && count_hit(o.id) == o.nth && !has_line(struck_path, o.id) && note_struck(struck_path, line)) {
            *ret = o;
            return true;
        }
    }
    return false;
}

void lmo_fault_hit(enum lmo_fault_place place, const char *detail)
{
    const char *path = getenv("LMO_FAULT_ORDERS");
    struct order o;
    if (!path) {
        return;
    }
    lmo_assert(pthread_mutex_lock(&lock) == 0);
    bool strikes = due(path, places[place], detail, &o);
    lmo_assert(pthread_mutex_unlock(&lock) == 0);
    if (strikes) {
        strike(path, &o, places[place], detail);
    }
}

#endif
