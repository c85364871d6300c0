/* pool.c - see pool.h.
 *
 * One mutex guards everything. A job is in exactly one place: queued, running (owned by its thread), or finished. */
#include "base/pool.h"
#include "base/assert.h"
#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES ((size_t)1024 * 1024) /* sanitizers' frames are larger */
#else
#define STACK_BYTES ((size_t)256 * 1024)
#endif

struct job {
    lmo_pool_work_fn *work;
    lmo_pool_done_fn *done;
    void *arg;
    struct job *next;
};

struct job_list {
    struct job *head, **tail;
};

struct lmo_pool {
    struct lmo_loop *loop;
    int event_fd; /* on the loop: something is in `finished` */
    unsigned threads_max;
    size_t queue_max;

    pthread_mutex_t lock;
    pthread_cond_t work_there; /* queued grew, or stopping */
    pthread_cond_t went_idle;  /* running went down */
    struct job_list queued, finished;
    size_t queued_count, running;
    unsigned thread_count, idle;
    bool stopping, signalled;
    struct lmo_pool *next_left_behind;
    pthread_t threads[LMO_POOL_THREADS_MAX];
};

/* Pools whose threads never ended: kept reachable, so that a leak checker does not report what is deliberate. */
static pthread_mutex_t left_behind_lock = PTHREAD_MUTEX_INITIALIZER;
static struct lmo_pool *left_behind;

static void list_add(struct job_list *list, struct job *job)
{
    job->next = NULL;
    *list->tail = job;
    list->tail = &job->next;
}

static struct job *list_take(struct job_list *list)
{
    struct job *job = list->head;
    if (job) {
        list->head = job->next;
        if (!list->head)
            list->tail = &list->head;
    }
    return job;
}

static void *thread_main(void *arg)
{
    struct lmo_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct job *job = list_take(&pool->queued);
        if (!job) {
            if (pool->stopping)
                break;
            pool->idle++;
            pthread_cond_wait(&pool->work_there, &pool->lock);
            pool->idle--;
            continue;
        }
        pool->queued_count--;
        pool->running++;
        pthread_mutex_unlock(&pool->lock);
        job->work(job->arg);
        pthread_mutex_lock(&pool->lock);
        pool->running--;
        list_add(&pool->finished, job);
        if (!pool->signalled) {
            pool->signalled = true;
            (void)eventfd_write(pool->event_fd, 1);
        }
        if (pool->stopping)
            pthread_cond_signal(&pool->went_idle);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* With the lock held. */
static int start_thread(struct lmo_pool *pool)
{
    pthread_attr_t attr;
    sigset_t all, before;
    if (pthread_attr_init(&attr) != 0)
        return LMO_E_NO_MEMORY;
    sigfillset(&all);
    int e = pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (e == 0) {
        pthread_sigmask(SIG_SETMASK, &all, &before);
        e = pthread_create(&pool->threads[pool->thread_count], &attr, thread_main, pool);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_attr_destroy(&attr);
    if (e != 0)
        return LMO_E_LIMIT;
    pool->thread_count++;
    return 0;
}

int lmo_pool_submit(struct lmo_pool *pool, lmo_pool_work_fn *work, lmo_pool_done_fn *done, void *arg)
{
    lmo_assert(work);
    struct job *job = malloc(sizeof *job);
    if (!job)
        return LMO_E_NO_MEMORY;
    *job = (struct job){.work = work, .done = done, .arg = arg};
    int r = 0;
    pthread_mutex_lock(&pool->lock);
    /* A job that an idle thread will take at once does not wait, so it does not count against the queue. */
    if (pool->stopping || pool->queued_count >= pool->queue_max + pool->idle + (pool->threads_max - pool->thread_count))
        r = LMO_E_LIMIT;
    else if (pool->queued_count >= pool->idle && pool->thread_count < pool->threads_max && start_thread(pool) < 0 &&
             pool->thread_count == 0)
        r = LMO_E_LIMIT; /* with at least one thread the job merely waits longer */
    if (r == 0) {
        list_add(&pool->queued, job);
        pool->queued_count++;
        pthread_cond_signal(&pool->work_there);
    }
    pthread_mutex_unlock(&pool->lock);
    if (r < 0)
        free(job);
    return r;
}

/* Calls `done` for what has finished by now. */
static void deliver(struct lmo_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->signalled = false;
    struct job *job = pool->finished.head;
    pool->finished.head = NULL;
    pool->finished.tail = &pool->finished.head;
    pthread_mutex_unlock(&pool->lock);
    while (job) {
        struct job *next = job->next;
        if (job->done)
            job->done(job->arg, true);
        free(job);
        job = next;
    }
}

static void event_fd_ready(void *arg, int fd, uint32_t events)
{
    (void)events;
    eventfd_t count;
    (void)eventfd_read(fd, &count);
    deliver(arg);
}

int lmo_pool_new(unsigned threads_max, size_t queue_max, struct lmo_loop *loop, struct lmo_pool **ret_pool,
                 struct lmo_err *err)
{
    lmo_assert(threads_max >= 1 && threads_max <= LMO_POOL_THREADS_MAX);
    struct lmo_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a thread pool");
    pool->loop = loop;
    pool->threads_max = threads_max;
    pool->queue_max = queue_max;
    pool->queued.tail = &pool->queued.head;
    pool->finished.tail = &pool->finished.head;
    pool->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int r = pool->event_fd < 0 ? lmo_fail(err, LMO_E_LIMIT, "cannot make a thread pool: %s", strerror(errno))
                               : lmo_loop_add_fd(loop, pool->event_fd, EPOLLIN, event_fd_ready, pool, err);
    if (r < 0) {
        lmo_cleanup_close(&pool->event_fd);
        free(pool);
        return r;
    }
    pthread_condattr_t attr;
    lmo_assert(pthread_mutex_init(&pool->lock, NULL) == 0 && pthread_condattr_init(&attr) == 0);
    lmo_assert(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    lmo_assert(pthread_cond_init(&pool->work_there, &attr) == 0 && pthread_cond_init(&pool->went_idle, &attr) == 0);
    pthread_condattr_destroy(&attr);
    *ret_pool = pool;
    return 0;
}

/* Waits until nothing runs; false if the deadline passed first. With the lock held. */
static bool wait_idle(struct lmo_pool *pool, uint64_t timeout_ms)
{
    struct timespec until;
    lmo_assert(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * (long)LMO_NS_PER_MS;
    if (until.tv_nsec >= (long)LMO_NS_PER_S) {
        until.tv_sec++;
        until.tv_nsec -= (long)LMO_NS_PER_S;
    }
    while (pool->running > 0) {
        if (pthread_cond_timedwait(&pool->went_idle, &pool->lock, &until) == ETIMEDOUT)
            return pool->running == 0;
    }
    return true;
}

int lmo_pool_free(struct lmo_pool *pool, uint64_t timeout_ms)
{
    if (!pool)
        return 0;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    struct job *dropped = pool->queued.head;
    pool->queued.head = NULL;
    pool->queued.tail = &pool->queued.head;
    pool->queued_count = 0;
    pthread_cond_broadcast(&pool->work_there);
    bool idle = wait_idle(pool, timeout_ms);
    unsigned threads = pool->thread_count;
    pthread_mutex_unlock(&pool->lock);

    for (unsigned i = 0; idle && i < threads; i++)
        pthread_join(pool->threads[i], NULL);
    lmo_loop_del_fd(pool->loop, pool->event_fd);
    deliver(pool);
    while (dropped) {
        struct job *next = dropped->next;
        if (dropped->done)
            dropped->done(dropped->arg, false);
        free(dropped);
        dropped = next;
    }
    if (!idle) { /* the threads still use the pool: see the header */
        for (unsigned i = 0; i < threads; i++)
            pthread_detach(pool->threads[i]);
        pthread_mutex_lock(&left_behind_lock);
        pool->next_left_behind = left_behind;
        left_behind = pool;
        pthread_mutex_unlock(&left_behind_lock);
        return LMO_E_TIMEOUT;
    }
    lmo_cleanup_close(&pool->event_fd);
    pthread_cond_destroy(&pool->work_there);
    pthread_cond_destroy(&pool->went_idle);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
    return 0;
}

size_t lmo_pool_load(struct lmo_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    size_t load = pool->queued_count + pool->running;
    pthread_mutex_unlock(&pool->lock);
    return load;
}
