/* pool.c - base/pool.h on fibers: work begins a little after it was submitted and may take virtual time.
 *
 * What base/pool.c promises is kept: work starts in the order of submission, no more than threads_max at once, `done`
 * runs on the loop in the order in which work ended, through a queue of the pool's own. */
#include "base/pool.h"
#include "sim_private.h"

#include "base/assert.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct job {
    struct lmo_pool *pool;
    lmo_pool_work_fn *work;
    lmo_pool_done_fn *done;
    void *arg;
    struct job *next;
};

struct lmo_pool {
    struct lmo_loop *loop;
    int event_fd;
    unsigned threads_max;
    size_t queue_max, queued_count, running;
    struct job *queued, **queued_last, *finished, **finished_last;
    bool stopping;
};

static void start(struct lmo_pool *pool);

static void run(void *arg)
{
    struct job *job = arg;
    struct lmo_pool *pool = job->pool;
    job->work(job->arg);
    pool->running--;
    job->next = NULL;
    *pool->finished_last = job;
    pool->finished_last = &job->next;
    (void)eventfd_write(pool->event_fd, 1);
    start(pool);
}

static void start(struct lmo_pool *pool)
{
    while (pool->queued && pool->running < pool->threads_max && !pool->stopping) {
        struct job *job = pool->queued;
        pool->queued = job->next;
        if (!pool->queued) {
            pool->queued_last = &pool->queued;
        }
        pool->queued_count--;
        pool->running++;
        sim_spawn(sim_now() + sim_latency(&sim_current()->rng, 15 * SIM_US, 20), run, job);
    }
}

int lmo_pool_submit(struct lmo_pool *pool, lmo_pool_work_fn *work, lmo_pool_done_fn *done, void *arg)
{
    if (pool->stopping || pool->queued_count >= pool->queue_max) {
        return LMO_E_LIMIT;
    }
    struct job *job = calloc(1, sizeof *job);
    if (!job) {
        return LMO_E_NO_MEMORY;
    }
    *job = (struct job){.pool = pool, .work = work, .done = done, .arg = arg};
    *pool->queued_last = job;
    pool->queued_last = &job->next;
    pool->queued_count++;
    start(pool);
    return 0;
}

static void deliver(void *arg, int fd, uint32_t events)
{
    (void)events;
    struct lmo_pool *pool = arg;
    eventfd_t count;
    (void)eventfd_read(fd, &count);
    struct job *job = pool->finished;
    pool->finished = NULL;
    pool->finished_last = &pool->finished;
    while (job) {
        struct job *next = job->next;
        if (job->done) {
            job->done(job->arg, true);
        }
        free(job);
        job = next;
    }
}

int lmo_pool_new(unsigned threads_max, size_t queue_max, struct lmo_loop *loop, struct lmo_pool **ret_pool,
                 struct lmo_err *err)
{
    struct lmo_pool *pool = calloc(1, sizeof *pool);
    if (!pool) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a pool");
    }
    pool->loop = loop;
    pool->threads_max = threads_max;
    pool->queue_max = queue_max;
    pool->queued_last = &pool->queued;
    pool->finished_last = &pool->finished;
    pool->event_fd = eventfd(0, 0);
    int r = lmo_loop_add_fd(loop, pool->event_fd, 1, deliver, pool, err);
    if (r < 0) {
        free(pool);
        return r;
    }
    *ret_pool = pool;
    return 0;
}

/* Only reached where a start fails half-way: nothing was ever submitted. A crash frees nothing. */
int lmo_pool_free(struct lmo_pool *pool, uint64_t timeout_ms)
{
    (void)timeout_ms;
    if (pool) {
        lmo_assert(pool->running == 0 && !pool->queued && !pool->finished);
        lmo_loop_del_fd(pool->loop, pool->event_fd);
        (void)close(pool->event_fd);
        free(pool);
    }
    return 0;
}

size_t lmo_pool_load(struct lmo_pool *pool)
{
    return pool->queued_count + pool->running;
}
