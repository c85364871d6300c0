/* fds.c - the few system calls that base/loop.c, base/clock.c, base/id.c and the workers' inbox make, in virtual time.
 *
 * The real event loop runs on these: epoll_wait is where a process's main fiber blocks. Descriptors are numbers that
 * the real kernel does not give out to this program; they end with the process that made them. */
#include "sim_private.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define FD_FIRST  512
#define FD_COUNT  2048 /* vfs.c uses one number above its first 1,024 */
#define WATCH_MAX 16

enum kind { FREE = 0, EPOLL, EVENT, TIMER, LOCK };

struct watch {
    int fd;
    struct epoll_event event;
};

struct fd {
    enum kind kind;
    struct sim_process *process;
    uint64_t count;       /* EVENT, TIMER: readable while above 0 */
    uint64_t generation;  /* TIMER: of the last setting */
    int epoll;            /* EVENT, TIMER: who watches it; -1: nobody */
    unsigned watch_count; /* EPOLL */
    struct watch watches[WATCH_MAX];
    struct sim_fiber *waiter;
    bool woken;
    char path[128]; /* LOCK */
};

static struct fd fds[FD_COUNT];
static uint64_t generation;

static struct fd *fd_of(int fd)
{
    return fd >= FD_FIRST && fd < FD_FIRST + FD_COUNT && fds[fd - FD_FIRST].kind != FREE ? &fds[fd - FD_FIRST] : NULL;
}

static int take(enum kind kind)
{
    struct sim_process *p = sim_current();
    lmo_assert(p);
    for (int i = 0; i < FD_COUNT; i++) {
        if (fds[i].kind == FREE) {
            fds[i] = (struct fd){.kind = kind, .process = p, .epoll = -1};
            return FD_FIRST + i;
        }
    }
    errno = EMFILE;
    return -1;
}

void sim_fds_drop(struct sim_process *p)
{
    for (int i = 0; i < FD_COUNT; i++) {
        if (fds[i].kind != FREE && fds[i].process == p) {
            fds[i].kind = FREE;
        }
    }
}

void sim_fds_reset(void)
{
    memset(fds, 0, sizeof fds);
    generation = 0;
}

static void set_readable(struct fd *f)
{
    struct fd *e = f->epoll >= 0 ? fd_of(f->epoll) : NULL;
    if (e && e->waiter && !e->woken) {
        e->woken = true;
        sim_fiber_ready(e->waiter, sim_now());
    }
}

/* ------------------------------------------------------------------ locks (base/fs.h) */

int __wrap_lmo_fs_lock(const char *path, unsigned mode, int *ret_fd, struct lmo_err *err);
int __wrap_lmo_fs_mkdir_p(const char *path, unsigned mode, struct lmo_err *err);
int __wrap_unlink(const char *path);
int __real_unlink(const char *path);
int __wrap_lmo_host_route_check(const void *facts, const char *link, const char *uri, struct lmo_err *err);

int __wrap_lmo_fs_lock(const char *path, unsigned mode, int *ret_fd, struct lmo_err *err)
{
    (void)mode;
    for (int i = 0; i < FD_COUNT; i++) {
        if (fds[i].kind == LOCK && strcmp(fds[i].path, path) == 0) {
            return lmo_fail(err, LMO_E_BUSY, "%s is locked by %s", path, fds[i].process->name);
        }
    }
    int fd = take(LOCK);
    if (fd < 0) {
        return lmo_fail(err, LMO_E_LIMIT, "no file descriptor");
    }
    size_t len = strlen(path);
    lmo_assert(len < sizeof fds[0].path);
    memcpy(fds[fd - FD_FIRST].path, path, len + 1);
    *ret_fd = fd;
    return 0;
}

/* The simulated hosts' routes are what the plan's cuts leave of them: see the drivers' check_reach. */
int __wrap_lmo_host_route_check(const void *facts, const char *link, const char *uri, struct lmo_err *err)
{
    (void)facts;
    (void)link;
    (void)uri;
    (void)err;
    return 0;
}

int __wrap_lmo_fs_mkdir_p(const char *path, unsigned mode, struct lmo_err *err)
{
    (void)path;
    (void)mode;
    (void)err;
    return 0;
}

/* Who holds it keeps a lock on a file that nobody will open again. */
int __wrap_unlink(const char *path)
{
    for (int i = 0; i < FD_COUNT; i++) {
        if (fds[i].kind == LOCK && strcmp(fds[i].path, path) == 0) {
            fds[i].path[0] = '\0';
            return 0;
        }
    }
    return __real_unlink(path);
}

/* ------------------------------------------------------------------ epoll, eventfd, timerfd */

int __wrap_epoll_create1(int flags);
int __wrap_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);
int __wrap_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout);
int __wrap_eventfd(unsigned count, int flags);
int __wrap_eventfd_read(int fd, eventfd_t *ret);
int __wrap_eventfd_write(int fd, eventfd_t value);
int __wrap_timerfd_create(int clock, int flags);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *when, struct itimerspec *before);
ssize_t __wrap_read(int fd, void *buffer, size_t size);
int __wrap_close(int fd);
ssize_t __real_read(int fd, void *buffer, size_t size);
int __real_close(int fd);

int __wrap_epoll_create1(int flags)
{
    (void)flags;
    return take(EPOLL);
}

int __wrap_eventfd(unsigned count, int flags)
{
    (void)flags;
    int fd = take(EVENT);
    if (fd >= 0) {
        fd_of(fd)->count = count;
    }
    return fd;
}

int __wrap_timerfd_create(int clock, int flags)
{
    (void)clock;
    (void)flags;
    return take(TIMER);
}

int __wrap_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    struct fd *e = fd_of(epfd), *f = fd_of(fd);
    lmo_assert(e && e->kind == EPOLL);
    unsigned i = 0;
    while (i < e->watch_count && e->watches[i].fd != fd) {
        i++;
    }
    if (op == EPOLL_CTL_ADD) {
        lmo_assert(f && i == e->watch_count && e->watch_count < WATCH_MAX);
        e->watches[e->watch_count++] = (struct watch){fd, *event};
        f->epoll = epfd;
        if (f->count > 0) {
            set_readable(f);
        }
        return 0;
    }
    if (i == e->watch_count) {
        errno = ENOENT;
        return -1;
    }
    if (op == EPOLL_CTL_MOD) {
        e->watches[i].event = *event;
    } else {
        e->watches[i] = e->watches[--e->watch_count];
        if (f) {
            f->epoll = -1;
        }
    }
    return 0;
}

static int ready(const struct fd *e, struct epoll_event *events, int max)
{
    int n = 0;
    for (unsigned i = 0; i < e->watch_count && n < max; i++) {
        const struct fd *f = fd_of(e->watches[i].fd);
        if (f && f->count > 0) {
            events[n] = e->watches[i].event;
            events[n++].events = EPOLLIN;
        }
    }
    return n;
}

/* A turn costs a little time; a process that has something to do at once goes on without others having their turn only
 * while it is not far ahead of them. */
int __wrap_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
    struct fd *e = fd_of(epfd);
    struct sim_process *p = sim_current();
    lmo_assert(e && e->kind == EPOLL && p);
    (void)sim_observe(SIM_POINT_TURN);
    sim_busy(2 * SIM_US + sim_below(&p->rng, 8 * SIM_US));
    int n = ready(e, events, max);
    e->waiter = sim_fiber_current();
    e->woken = n > 0 || timeout == 0;
    if (e->woken) {
        sim_fiber_ready(e->waiter, sim_now());
    }
    sim_fiber_block();
    e->waiter = NULL;
    return ready(e, events, max);
}

int __wrap_eventfd_write(int fd, eventfd_t value)
{
    struct fd *f = fd_of(fd);
    if (!f) {
        errno = EBADF;
        return -1;
    }
    f->count += value;
    set_readable(f);
    return 0;
}

int __wrap_eventfd_read(int fd, eventfd_t *ret)
{
    struct fd *f = fd_of(fd);
    if (!f || f->count == 0) {
        errno = f ? EAGAIN : EBADF;
        return -1;
    }
    *ret = f->count;
    f->count = 0;
    return 0;
}

static void timer_due(void *arg)
{
    uint64_t g = (uint64_t)(uintptr_t)arg;
    for (int i = 0; i < FD_COUNT; i++) {
        if (fds[i].kind == TIMER && fds[i].generation == g) {
            fds[i].count = 1;
            set_readable(&fds[i]);
            return;
        }
    }
}

int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *when, struct itimerspec *before)
{
    (void)before;
    struct fd *f = fd_of(fd);
    lmo_assert(f && f->kind == TIMER && flags == TFD_TIMER_ABSTIME);
    f->generation = ++generation;
    f->count = 0;
    uint64_t due = (uint64_t)when->it_value.tv_sec * SIM_S + (uint64_t)when->it_value.tv_nsec;
    sim_at(f->process, due, timer_due, (void *)(uintptr_t)f->generation);
    return 0;
}

ssize_t __wrap_read(int fd, void *buffer, size_t size)
{
    struct fd *f = fd_of(fd);
    if (!f) {
        return __real_read(fd, buffer, size);
    }
    if (f->count == 0) {
        errno = EAGAIN;
        return -1;
    }
    lmo_assert(f->kind == TIMER && size == sizeof f->count);
    memcpy(buffer, &f->count, sizeof f->count);
    f->count = 0;
    return (ssize_t)sizeof f->count;
}

int __wrap_close(int fd)
{
    struct fd *f = fd_of(fd);
    if (!f) {
        return fd >= FD_FIRST && fd < FD_FIRST + FD_COUNT ? 0 : __real_close(fd);
    }
    struct fd *e = f->epoll >= 0 ? fd_of(f->epoll) : NULL;
    for (unsigned i = 0; e && i < e->watch_count; i++) {
        if (e->watches[i].fd == fd) {
            e->watches[i] = e->watches[--e->watch_count];
            break;
        }
    }
    f->kind = FREE;
    return 0;
}

/* ------------------------------------------------------------------ clock and random numbers */

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __real_clock_gettime(clockid_t clock, struct timespec *ret);
ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags);

/* The measurements of the simulator itself are made outside of runs. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
    if (clock == CLOCK_PROCESS_CPUTIME_ID) {
        return __real_clock_gettime(clock, ret);
    }
    uint64_t now = sim_now();
    if (clock == CLOCK_REALTIME) {
        struct sim_process *p = sim_current();
        int64_t skew = p ? p->skew_us : 0;
        now = (uint64_t)((int64_t)(SIM_EPOCH_US + now / 1000) + skew) * 1000;
    }
    ret->tv_sec = (time_t)(now / SIM_S);
    ret->tv_nsec = (long)(now % SIM_S);
    return 0;
}

ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags)
{
    (void)flags;
    struct sim_process *p = sim_current();
    lmo_assert(p);
    char *at = buffer;
    for (size_t done = 0; done < size;) {
        uint64_t r = sim_random(&p->rng);
        size_t n = size - done < sizeof r ? size - done : sizeof r;
        memcpy(at + done, &r, n);
        done += n;
    }
    return (ssize_t)size;
}
