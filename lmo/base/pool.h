/* pool.h - a bounded pool of threads for calls that block; results come back on a loop.
 *
 * Threads start when there is work and none is idle, up to the maximum, with small stacks (256 KiB), and stay. They
 * block all signals. Work is started in the order of submission. `done` runs on the loop's thread, in the order in
 * which work ended, through a queue of the pool's own: it is never lost because the loop's post queue is full. */
#ifndef LMO_BASE_POOL_H
#define LMO_BASE_POOL_H

#include "base/err.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stddef.h>

#define LMO_POOL_THREADS_MAX 64

struct lmo_pool;

typedef void lmo_pool_work_fn(void *arg);           /* on a pool thread; may block, must end (have a deadline) */
typedef void lmo_pool_done_fn(void *arg, bool ran); /* on the loop; ran is false if the work was dropped at shutdown */

/* threads_max: 1..64. queue_max: work that may wait for a thread. The loop is borrowed and must outlive the pool.
 * Call on the loop's thread, or before it runs. */
int lmo_pool_new(unsigned threads_max, size_t queue_max, struct lmo_loop *loop, struct lmo_pool **ret_pool,
                 struct lmo_err *err) LMO_MUST_CHECK;

/* Thread-safe. LMO_E_LIMIT when the queue is full (nothing was queued, done will not be called). done may be NULL. */
int lmo_pool_submit(struct lmo_pool *pool, lmo_pool_work_fn *work, lmo_pool_done_fn *done, void *arg) LMO_MUST_CHECK;

/* On the loop's thread (or with the loop not running). Refuses new work, drops what has not started, waits up to
 * `timeout_ms` for what runs, calls every outstanding `done`. 0: all threads joined, the pool is freed.
 * LMO_E_TIMEOUT: some work still runs; the pool is left behind on purpose (its `done` will not be called) and the
 * process should end soon. NULL is fine. */
int lmo_pool_free(struct lmo_pool *pool, uint64_t timeout_ms);

/* Work that is queued or running now; for metrics. */
size_t lmo_pool_load(struct lmo_pool *pool);

#endif
