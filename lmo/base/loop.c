/* loop.c - see loop.h.
 *
 * Invariants:
 *  1. A callback runs only for the registration it was meant for: fds carry a generation in epoll's data, timers one in
 *     their handle; a number that was reused in the same turn does not match.
 *  2. No wake-up is lost: a poster writes the eventfd unless a write since the last drain is still unread (`signalled`,
 *     under the lock; cleared before the batch is taken).
 *  3. The timerfd is armed no later than the earliest timer. It may be armed earlier (a cancelled timer): the loop
 *     then wakes once, for nothing, and arms it anew; that is cheaper than a system call per cancelled timer. */
#include "base/loop.h"
#include "base/assert.h"
#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS_PER_TURN 64
#define FDS_MAX         65536
#define TIMERS_MAX      65536
#define POSTS_MAX       ((size_t)1 << 20)

struct fd_entry {
    lmo_loop_fd_fn *fn; /* NULL: not registered */
    void *arg;
    uint32_t generation;
};

struct timer {
    uint64_t due_ns;
    uint64_t sequence; /* order of creation; breaks ties */
    lmo_loop_fn *fn;   /* NULL: free slot */
    void *arg;
    uint32_t generation;
    uint32_t position; /* in the heap; in a free slot: the next free one */
};

struct post {
    lmo_loop_fn *fn;
    void *arg;
};

struct lmo_loop {
    int epoll_fd, timer_fd, event_fd, signal_fd;

    struct fd_entry *fds; /* indexed by fd */
    size_t fd_capacity;

    struct timer *timers;                             /* slots */
    uint32_t *heap;                                   /* slot numbers, earliest first */
    uint32_t timer_capacity, timer_count, timer_used; /* allocated, in the heap, slots ever used */
    uint32_t timer_free;                              /* head of the free list, UINT32_MAX: none */
    uint64_t sequence;
    uint64_t armed_ns; /* what the timerfd is set to; UINT64_MAX: not set */

    pthread_mutex_t lock; /* guards posts, post_head, post_count, signalled */
    struct post *posts;
    size_t post_capacity, post_head, post_count;
    bool signalled;

    atomic_bool stop;
    atomic_bool running;
    pthread_t thread; /* valid while running */

    lmo_loop_signal_fn *signal_fn;
    void *signal_arg;
};

static bool may_change(const struct lmo_loop *loop)
{
    return !atomic_load(&loop->running) || pthread_equal(loop->thread, pthread_self());
}

bool lmo_loop_on_thread(const struct lmo_loop *loop)
{
    return atomic_load(&loop->running) && pthread_equal(loop->thread, pthread_self());
}

/* ---- file descriptors ---- */

static int grow_fds(struct lmo_loop *loop, int fd)
{
    size_t capacity = loop->fd_capacity ? loop->fd_capacity : 64;
    while (capacity <= (size_t)fd)
        capacity *= 2;
    if (capacity > FDS_MAX)
        return LMO_E_LIMIT;
    struct fd_entry *fds = realloc(loop->fds, capacity * sizeof *fds);
    if (!fds)
        return LMO_E_NO_MEMORY;
    memset(fds + loop->fd_capacity, 0, (capacity - loop->fd_capacity) * sizeof *fds);
    loop->fds = fds;
    loop->fd_capacity = capacity;
    return 0;
}

static struct epoll_event event_of(const struct lmo_loop *loop, int fd, uint32_t events)
{
    return (struct epoll_event){.events = events, .data.u64 = (uint64_t)loop->fds[fd].generation << 32 | (uint32_t)fd};
}

int lmo_loop_add_fd(struct lmo_loop *loop, int fd, uint32_t events, lmo_loop_fd_fn *fn, void *arg, struct lmo_err *err)
{
    lmo_assert(fd >= 0 && fn && may_change(loop));
    if ((size_t)fd >= loop->fd_capacity) {
        int r = grow_fds(loop, fd);
        if (r < 0)
            return lmo_fail(err, r, "event loop: no room for file descriptor %d", fd);
    }
    lmo_assert(!loop->fds[fd].fn);
    loop->fds[fd].generation++;
    struct epoll_event event = event_of(loop, fd, events);
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return lmo_fail(err,
                        errno == ENOMEM   ? LMO_E_NO_MEMORY
                        : errno == ENOSPC ? LMO_E_LIMIT
                                          : LMO_E_INVALID,
                        "event loop: cannot watch file descriptor %d: %s", fd, strerror(errno));
    loop->fds[fd].fn = fn;
    loop->fds[fd].arg = arg;
    return 0;
}

int lmo_loop_mod_fd(struct lmo_loop *loop, int fd, uint32_t events)
{
    lmo_assert(may_change(loop) && fd >= 0 && (size_t)fd < loop->fd_capacity && loop->fds[fd].fn);
    struct epoll_event event = event_of(loop, fd, events);
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 ? LMO_E_IO : 0;
}

void lmo_loop_del_fd(struct lmo_loop *loop, int fd)
{
    lmo_assert(may_change(loop) && fd >= 0 && (size_t)fd < loop->fd_capacity && loop->fds[fd].fn);
    loop->fds[fd].fn = NULL;
    loop->fds[fd].arg = NULL;
    /* EBADF: its owner closed it already, which removed it. */
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* ---- timers ---- */

static bool earlier(const struct timer *a, const struct timer *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->sequence < b->sequence;
}

static void heap_set(struct lmo_loop *loop, uint32_t position, uint32_t slot)
{
    loop->heap[position] = slot;
    loop->timers[slot].position = position;
}

static void heap_up(struct lmo_loop *loop, uint32_t position)
{
    uint32_t slot = loop->heap[position];
    while (position > 0) {
        uint32_t parent = (position - 1) / 2;
        if (!earlier(&loop->timers[slot], &loop->timers[loop->heap[parent]]))
            break;
        heap_set(loop, position, loop->heap[parent]);
        position = parent;
    }
    heap_set(loop, position, slot);
}

static void heap_down(struct lmo_loop *loop, uint32_t position)
{
    uint32_t slot = loop->heap[position];
    for (;;) {
        uint32_t child = 2 * position + 1;
        if (child >= loop->timer_count)
            break;
        if (child + 1 < loop->timer_count &&
            earlier(&loop->timers[loop->heap[child + 1]], &loop->timers[loop->heap[child]]))
            child++;
        if (!earlier(&loop->timers[loop->heap[child]], &loop->timers[slot]))
            break;
        heap_set(loop, position, loop->heap[child]);
        position = child;
    }
    heap_set(loop, position, slot);
}

static void timer_remove(struct lmo_loop *loop, uint32_t slot)
{
    struct timer *timer = &loop->timers[slot];
    uint32_t position = timer->position, last = loop->heap[--loop->timer_count];
    if (last != slot) {
        heap_set(loop, position, last);
        heap_up(loop, position);
        heap_down(loop, loop->timers[last].position);
    }
    timer->fn = NULL;
    timer->generation++;
    timer->position = loop->timer_free;
    loop->timer_free = slot;
}

static int grow_timers(struct lmo_loop *loop)
{
    if (loop->timer_capacity == TIMERS_MAX)
        return LMO_E_LIMIT;
    uint32_t capacity = loop->timer_capacity ? loop->timer_capacity * 2 : 32;
    struct timer *timers = realloc(loop->timers, capacity * sizeof *timers);
    if (!timers)
        return LMO_E_NO_MEMORY;
    loop->timers = timers;
    uint32_t *heap = realloc(loop->heap, capacity * sizeof *heap);
    if (!heap)
        return LMO_E_NO_MEMORY;
    loop->heap = heap;
    loop->timer_capacity = capacity;
    return 0;
}

int lmo_loop_timer_at(struct lmo_loop *loop, uint64_t due_ns, lmo_loop_fn *fn, void *arg, uint64_t *ret_timer)
{
    lmo_assert(fn && may_change(loop));
    uint32_t slot = loop->timer_free;
    if (slot == UINT32_MAX) {
        if (loop->timer_used == loop->timer_capacity) {
            int r = grow_timers(loop);
            if (r < 0)
                return r;
        }
        slot = loop->timer_used++;
        loop->timers[slot].generation = 1;
    } else {
        loop->timer_free = loop->timers[slot].position;
    }
    struct timer *timer = &loop->timers[slot];
    timer->due_ns = due_ns;
    timer->sequence = loop->sequence++;
    timer->fn = fn;
    timer->arg = arg;
    heap_set(loop, loop->timer_count++, slot);
    heap_up(loop, timer->position);
    *ret_timer = (uint64_t)timer->generation << 32 | (slot + 1);
    return 0;
}

int lmo_loop_timer(struct lmo_loop *loop, uint64_t delay_ms, lmo_loop_fn *fn, void *arg, uint64_t *ret_timer)
{
    uint64_t now = lmo_now_ns();
    uint64_t due = delay_ms > (UINT64_MAX / 2 - now) / LMO_NS_PER_MS ? UINT64_MAX / 2 : now + delay_ms * LMO_NS_PER_MS;
    return lmo_loop_timer_at(loop, due, fn, arg, ret_timer);
}

void lmo_loop_cancel(struct lmo_loop *loop, uint64_t *timer)
{
    lmo_assert(may_change(loop));
    uint32_t slot = (uint32_t)*timer - 1, generation = (uint32_t)(*timer >> 32);
    if (*timer != 0 && slot < loop->timer_used && loop->timers[slot].fn && loop->timers[slot].generation == generation)
        timer_remove(loop, slot);
    *timer = 0;
}

static void run_timers(struct lmo_loop *loop)
{
    if (loop->timer_count == 0)
        return;
    uint64_t now = lmo_now_ns(), end = loop->sequence;
    while (loop->timer_count > 0) {
        uint32_t slot = loop->heap[0];
        struct timer *timer = &loop->timers[slot];
        if (timer->due_ns > now || timer->sequence >= end)
            break; /* made during this turn: the next one's */
        lmo_loop_fn *fn = timer->fn;
        void *arg = timer->arg;
        timer_remove(loop, slot);
        fn(arg);
    }
}

/* Returns epoll's timeout: 0 if a timer is due, else -1 with the timerfd armed. */
static int prepare_wait(struct lmo_loop *loop)
{
    if (loop->timer_count == 0)
        return -1;
    uint64_t due = loop->timers[loop->heap[0]].due_ns, now = lmo_now_ns();
    if (due <= now)
        return 0;
    if (loop->armed_ns <= due && loop->armed_ns > now)
        return -1; /* invariant 3 */
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(due / LMO_NS_PER_S), .tv_nsec = (long)(due % LMO_NS_PER_S)},
    };
    lmo_assert(timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) == 0);
    loop->armed_ns = due;
    return -1;
}

static void timer_fd_ready(void *arg, int fd, uint32_t events)
{
    (void)events;
    struct lmo_loop *loop = arg;
    uint64_t count;
    if (read(fd, &count, sizeof count) == (ssize_t)sizeof count)
        loop->armed_ns = UINT64_MAX;
}

/* ---- posts ---- */

int lmo_loop_post(struct lmo_loop *loop, lmo_loop_fn *fn, void *arg)
{
    lmo_assert(fn);
    bool wake = false;
    pthread_mutex_lock(&loop->lock);
    bool full = loop->post_count == loop->post_capacity;
    if (!full) {
        loop->posts[(loop->post_head + loop->post_count) % loop->post_capacity] = (struct post){fn, arg};
        loop->post_count++;
        wake = !loop->signalled;
        loop->signalled = true;
    }
    pthread_mutex_unlock(&loop->lock);
    if (wake)
        (void)eventfd_write(loop->event_fd, 1);
    return full ? LMO_E_LIMIT : 0;
}

static void run_posts(struct lmo_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->signalled = false;
    for (size_t left = loop->post_count; left > 0; left--) {
        struct post post = loop->posts[loop->post_head];
        loop->post_head = (loop->post_head + 1) % loop->post_capacity;
        loop->post_count--;
        pthread_mutex_unlock(&loop->lock);
        post.fn(post.arg);
        pthread_mutex_lock(&loop->lock);
    }
    pthread_mutex_unlock(&loop->lock);
}

static void event_fd_ready(void *arg, int fd, uint32_t events)
{
    (void)arg;
    (void)events;
    eventfd_t count;
    (void)eventfd_read(fd, &count);
}

/* ---- signals ---- */

static void signal_fd_ready(void *arg, int fd, uint32_t events)
{
    (void)events;
    struct lmo_loop *loop = arg;
    struct signalfd_siginfo info;
    if (read(fd, &info, sizeof info) == (ssize_t)sizeof info)
        loop->signal_fn(loop->signal_arg, (int)info.ssi_signo);
}

int lmo_loop_signals(struct lmo_loop *loop, const int *signals, lmo_loop_signal_fn *fn, void *arg, struct lmo_err *err)
{
    lmo_assert(loop->signal_fd < 0 && fn);
    sigset_t set;
    sigemptyset(&set);
    for (; *signals; signals++)
        sigaddset(&set, *signals);
    int e = pthread_sigmask(SIG_BLOCK, &set, NULL);
    LMO_AUTO_CLOSE int fd = e == 0 ? signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK) : -1;
    if (fd < 0)
        return lmo_fail(err, LMO_E_IO, "cannot receive signals: %s", strerror(e ? e : errno));
    int r = lmo_loop_add_fd(loop, fd, EPOLLIN, signal_fd_ready, loop, err);
    if (r < 0)
        return r;
    loop->signal_fn = fn;
    loop->signal_arg = arg;
    loop->signal_fd = fd;
    fd = -1;
    return 0;
}

/* ---- life ---- */

int lmo_loop_new(size_t post_capacity, struct lmo_loop **ret_loop, struct lmo_err *err)
{
    lmo_assert(post_capacity > 0 && post_capacity <= POSTS_MAX);
    LMO_AUTO_LOOP struct lmo_loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for an event loop");
    loop->signal_fd = -1;
    loop->timer_free = UINT32_MAX;
    loop->armed_ns = UINT64_MAX;
    loop->post_capacity = post_capacity;
    lmo_assert(pthread_mutex_init(&loop->lock, NULL) == 0);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->timer_fd < 0 || loop->event_fd < 0)
        return lmo_fail(err, LMO_E_LIMIT, "cannot make an event loop: %s", strerror(errno));
    loop->posts = calloc(post_capacity, sizeof *loop->posts);
    if (!loop->posts)
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for an event loop");
    int r = lmo_loop_add_fd(loop, loop->timer_fd, EPOLLIN, timer_fd_ready, loop, err);
    if (r == 0)
        r = lmo_loop_add_fd(loop, loop->event_fd, EPOLLIN, event_fd_ready, loop, err);
    if (r < 0)
        return r;
    *ret_loop = LMO_TAKE(loop);
    return 0;
}

struct lmo_loop *lmo_loop_free(struct lmo_loop *loop)
{
    if (!loop)
        return NULL;
    lmo_assert(!atomic_load(&loop->running));
    lmo_cleanup_close(&loop->signal_fd);
    lmo_cleanup_close(&loop->event_fd);
    lmo_cleanup_close(&loop->timer_fd);
    lmo_cleanup_close(&loop->epoll_fd);
    pthread_mutex_destroy(&loop->lock);
    free(loop->posts);
    free(loop->heap);
    free(loop->timers);
    free(loop->fds);
    free(loop);
    return NULL;
}

static int turn(struct lmo_loop *loop)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int n = epoll_wait(loop->epoll_fd, events, EVENTS_PER_TURN, prepare_wait(loop));
    if (n < 0 && errno != EINTR)
        return LMO_E_IO;
    for (int i = 0; i < n; i++) {
        uint32_t fd = (uint32_t)events[i].data.u64, generation = (uint32_t)(events[i].data.u64 >> 32);
        struct fd_entry entry = loop->fds[fd]; /* a copy: the callback may grow the table */
        if (entry.fn && entry.generation == generation)
            entry.fn(entry.arg, (int)fd, events[i].events);
    }
    run_timers(loop);
    run_posts(loop);
    return 0;
}

int lmo_loop_run(struct lmo_loop *loop)
{
    lmo_assert(!atomic_load(&loop->running));
    loop->thread = pthread_self();
    atomic_store(&loop->running, true);
    int r = 0;
    bool stopping = false;
    while (r == 0 && !stopping) {
        r = turn(loop);
        stopping = atomic_load(&loop->stop);
    }
    if (stopping) {
        run_posts(loop); /* what was queued before the stop */
        atomic_store(&loop->stop, false);
    }
    atomic_store(&loop->running, false);
    return r;
}

void lmo_loop_stop(struct lmo_loop *loop)
{
    atomic_store(&loop->stop, true);
    (void)eventfd_write(loop->event_fd, 1);
}
