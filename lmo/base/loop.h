/* loop.h - the event loop: epoll, one timerfd (CLOCK_BOOTTIME) behind a min-heap of timers, one eventfd for posts.
 *
 * One thread runs a loop. Everything but lmo_loop_post, lmo_loop_stop and lmo_loop_on_thread is called on that thread,
 * or before lmo_loop_run. Callbacks run on the loop's thread, never inside the call that registered them, and must not
 * block. A callback may add, change or delete any fd or timer, its own included.
 *
 * One turn: fds that are ready, then timers that are due (in order of their time, then of their creation), then the
 * posts that were queued when their turn began (in order of posting). */
#ifndef LMO_BASE_LOOP_H
#define LMO_BASE_LOOP_H

#include "base/cleanup.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

struct lmo_loop;

typedef void lmo_loop_fn(void *arg);
typedef void lmo_loop_fd_fn(void *arg, int fd, uint32_t events); /* events: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP */
typedef void lmo_loop_signal_fn(void *arg, int signal);

/* `post_capacity`: posts that may wait at once (1 to 1,048,576). */
int lmo_loop_new(size_t post_capacity, struct lmo_loop **ret_loop, struct lmo_err *err) LMO_MUST_CHECK;
/* Takes loop (NULL is fine; not while it runs), returns NULL. Posts still queued are dropped without being called. */
struct lmo_loop *lmo_loop_free(struct lmo_loop *loop);

/* Runs until lmo_loop_stop; 0, or LMO_E_IO if epoll itself fails. Posts queued before the stop are still executed.
 * May be called again afterwards. */
int lmo_loop_run(struct lmo_loop *loop) LMO_MUST_CHECK;
/* Thread-safe; may precede lmo_loop_run, which then returns after one turn. */
void lmo_loop_stop(struct lmo_loop *loop);

/* File descriptors: level-triggered, borrowed (closing is the owner's business, after del). One registration per fd. */
int lmo_loop_add_fd(struct lmo_loop *loop, int fd, uint32_t events, lmo_loop_fd_fn *fn, void *arg,
                    struct lmo_err *err) LMO_MUST_CHECK;
int lmo_loop_mod_fd(struct lmo_loop *loop, int fd, uint32_t events) LMO_MUST_CHECK;
/* After this returns, the callback will not be called any more, also not for events of the current turn. */
void lmo_loop_del_fd(struct lmo_loop *loop, int fd);

/* One-shot timer, due `delay_ms` from now (0: next turn). *ret_timer is never 0. LMO_E_LIMIT above 65,536 timers. */
int lmo_loop_timer(struct lmo_loop *loop, uint64_t delay_ms, lmo_loop_fn *fn, void *arg,
                   uint64_t *ret_timer) LMO_MUST_CHECK;
/* The same, due at an absolute time on lmo_now_ns. */
int lmo_loop_timer_at(struct lmo_loop *loop, uint64_t due_ns, lmo_loop_fn *fn, void *arg,
                      uint64_t *ret_timer) LMO_MUST_CHECK;
/* Cancels and sets *timer to 0. A timer that is 0, has fired or was cancelled is left alone. */
void lmo_loop_cancel(struct lmo_loop *loop, uint64_t *timer);

/* Thread-safe. Queues fn(arg) for the loop's thread; LMO_E_LIMIT (nothing queued) when full. */
int lmo_loop_post(struct lmo_loop *loop, lmo_loop_fn *fn, void *arg) LMO_MUST_CHECK;

/* Blocks the given signals in the calling thread (call it before other threads start, they inherit the mask) and has
 * them delivered to fn on the loop. `signals` ends with 0. Once per loop. */
int lmo_loop_signals(struct lmo_loop *loop, const int *signals, lmo_loop_signal_fn *fn, void *arg,
                     struct lmo_err *err) LMO_MUST_CHECK;

/* True on the thread that is inside lmo_loop_run. */
bool lmo_loop_on_thread(const struct lmo_loop *loop);

static inline void lmo_cleanup_loop(struct lmo_loop **loop)
{
    *loop = lmo_loop_free(*loop);
}
#define LMO_AUTO_LOOP LMO_CLEANUP(lmo_cleanup_loop)

#endif
