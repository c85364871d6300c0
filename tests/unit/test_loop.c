/* test_loop.c - the event loop and the thread pool. Counts, never durations, decide. */
#include "suites.h"
#include "base/clock.h"
#include "base/loop.h"
#include "base/pool.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static struct lmo_loop *loop;
static char trace[256];

static void setup(void)
{
    struct lmo_err err = {0};
    trace[0] = '\0';
    ck_assert_int_eq(lmo_loop_new(4, &loop, &err), 0);
}

static void teardown(void)
{
    loop = lmo_loop_free(loop);
}

static void note(void *arg)
{
    strcat(trace, arg);
}

static void stop(void *arg)
{
    (void)arg;
    lmo_loop_stop(loop);
}

static void count_up(void *arg)
{
    ++*(int *)arg;
}

START_TEST(timers__fire_in_order_of_time_then_of_creation)
{
    uint64_t t[6];
    uint64_t now = lmo_now_ns();
    ck_assert_int_eq(lmo_loop_timer_at(loop, now + 3000000, note, (void *)"c", &t[0]), 0);
    ck_assert_int_eq(lmo_loop_timer_at(loop, now + 1000000, note, (void *)"a", &t[1]), 0);
    ck_assert_int_eq(lmo_loop_timer_at(loop, now + 3000000, note, (void *)"d", &t[2]), 0);
    ck_assert_int_eq(lmo_loop_timer_at(loop, now + 2000000, note, (void *)"b", &t[3]), 0);
    ck_assert_int_eq(lmo_loop_timer_at(loop, now + 2500000, note, (void *)"x", &t[4]), 0);
    ck_assert_int_eq(lmo_loop_timer(loop, 20, stop, NULL, &t[5]), 0);
    lmo_loop_cancel(loop, &t[4]);
    ck_assert_uint_eq(t[4], 0);
    lmo_loop_cancel(loop, &t[4]);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    ck_assert_str_eq(trace, "abcd");
    lmo_loop_cancel(loop, &t[0]); /* fired: nothing to do */
}
END_TEST

START_TEST(timers__survive_a_thousand_random_cancellations)
{
    enum { COUNT = 1000 };
    static uint64_t timers[COUNT];
    static int fired;
    fired = 0;
    unsigned seed = 42;
    for (int i = 0; i < COUNT; i++)
        ck_assert_int_eq(lmo_loop_timer(loop, (uint64_t)(rand_r(&seed) % 5), count_up, &fired, &timers[i]), 0);
    for (int i = 0; i < COUNT; i += 2)
        lmo_loop_cancel(loop, &timers[i]);
    uint64_t last;
    ck_assert_int_eq(lmo_loop_timer(loop, 6, stop, NULL, &last), 0);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    ck_assert_int_eq(fired, COUNT / 2);
    for (int i = 1; i < COUNT; i += 2) {
        uint64_t stale = timers[i], fresh;
        ck_assert_int_eq(lmo_loop_timer(loop, 1000, note, (void *)"", &fresh), 0);
        lmo_loop_cancel(loop, &stale); /* a stale handle must not hit the new owner of its slot */
        uint64_t check = fresh;
        lmo_loop_cancel(loop, &check);
        ck_assert_uint_ne(fresh, timers[i]);
    }
}
END_TEST

static int rounds;
static void again(void *arg)
{
    uint64_t timer;
    if (++rounds == 100)
        lmo_loop_stop(loop);
    else
        ck_assert_int_eq(lmo_loop_timer(loop, 0, again, arg, &timer), 0);
}

START_TEST(timer_that_makes_itself_anew__does_not_starve_the_others)
{
    uint64_t timer;
    rounds = 0;
    ck_assert_int_eq(lmo_loop_timer(loop, 0, again, NULL, &timer), 0);
    ck_assert_int_eq(lmo_loop_post(loop, note, (void *)"p"), 0);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    ck_assert_int_eq(rounds, 100);
    ck_assert_str_eq(trace, "p");
}
END_TEST

START_TEST(posts__run_in_order_and_are_refused_when_full)
{
    ck_assert_int_eq(lmo_loop_post(loop, note, (void *)"1"), 0);
    ck_assert_int_eq(lmo_loop_post(loop, note, (void *)"2"), 0);
    ck_assert_int_eq(lmo_loop_post(loop, note, (void *)"3"), 0);
    ck_assert_int_eq(lmo_loop_post(loop, stop, NULL), 0);
    ck_assert_int_eq(lmo_loop_post(loop, note, (void *)"5"), LMO_E_LIMIT);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    ck_assert_str_eq(trace, "123");
    ck_assert_int_eq(lmo_loop_post(loop, note, (void *)"4"), 0);
    lmo_loop_stop(loop);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    ck_assert_str_eq(trace, "1234");
}
END_TEST

#define POSTS_PER_THREAD 5000
static atomic_int posted;
static void count_post(void *arg)
{
    (void)arg;
    if (atomic_fetch_add(&posted, 1) + 1 == 4 * POSTS_PER_THREAD)
        lmo_loop_stop(loop);
}

static void *poster(void *arg)
{
    for (int i = 0; i < POSTS_PER_THREAD;) {
        if (lmo_loop_post(loop, count_post, arg) == 0)
            i++;
        else
            sched_yield();
    }
    return NULL;
}

START_TEST(posts_from_four_threads__are_all_executed)
{
    pthread_t threads[4];
    posted = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, poster, NULL);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(posted, 4 * POSTS_PER_THREAD);
}
END_TEST

static int pipes[2][2];
static int fd_calls;

static void drop_both(void *arg, int fd, uint32_t events)
{
    (void)arg, (void)fd;
    ck_assert(events & EPOLLIN);
    fd_calls++;
    lmo_loop_del_fd(loop, pipes[0][0]);
    lmo_loop_del_fd(loop, pipes[1][0]);
    lmo_loop_stop(loop);
}

START_TEST(fd_deleted_during_a_turn__is_not_called_in_it)
{
    fd_calls = 0;
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(pipe(pipes[i]), 0);
        ck_assert_int_eq((int)write(pipes[i][1], "x", 1), 1);
        ck_assert_int_eq(lmo_loop_add_fd(loop, pipes[i][0], EPOLLIN, drop_both, NULL, NULL), 0);
    }
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    ck_assert_int_eq(fd_calls, 1);
    for (int i = 0; i < 4; i++)
        close(pipes[i / 2][i % 2]);
}
END_TEST

static void on_signal(void *arg, int signal)
{
    *(int *)arg = signal;
    lmo_loop_stop(loop);
}

START_TEST(signals__arrive_on_the_loop)
{
    int got = 0;
    ck_assert_int_eq(lmo_loop_signals(loop, (const int[]){SIGTERM, SIGINT, 0}, on_signal, &got, NULL), 0);
    kill(getpid(), SIGTERM);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    ck_assert_int_eq(got, SIGTERM);
}
END_TEST

/* ---- pool ---- */

static atomic_int worked;
static int finished, dropped;
static sem_t gate;

static void work(void *arg)
{
    (void)arg;
    atomic_fetch_add(&worked, 1);
}

static atomic_int arrived;

static void work_at_gate(void *arg)
{
    (void)arg;
    atomic_fetch_add(&arrived, 1);
    sem_wait(&gate);
    atomic_fetch_add(&worked, 1);
}

static void done(void *arg, bool ran)
{
    const int *expected = arg;
    ck_assert(lmo_loop_on_thread(loop) || !ran || expected == NULL);
    *(ran ? &finished : &dropped) += 1;
    if (expected && finished == *expected)
        lmo_loop_stop(loop);
}

START_TEST(pool__runs_work_and_reports_on_the_loop)
{
    struct lmo_pool *pool = NULL;
    int expected = 200;
    worked = finished = dropped = 0;
    ck_assert_int_eq(lmo_pool_new(4, 200, loop, &pool, NULL), 0);
    for (int i = 0; i < expected; i++)
        ck_assert_int_eq(lmo_pool_submit(pool, work, done, &expected), 0);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    ck_assert_int_eq(worked, expected);
    ck_assert_int_eq(lmo_pool_free(pool, 1000), 0);
    ck_assert_int_eq(finished, expected);
}
END_TEST

/* Once the pool has dropped its queue, lets the two that run go on. */
static void *open_gate_for_two(void *arg)
{
    while (lmo_pool_load(arg) > 2)
        sched_yield();
    sem_post(&gate);
    sem_post(&gate);
    return NULL;
}

START_TEST(pool__refuses_above_its_bound_and_drops_what_never_started)
{
    struct lmo_pool *pool = NULL;
    worked = arrived = finished = dropped = 0;
    sem_init(&gate, 0, 0);
    ck_assert_int_eq(lmo_pool_new(2, 3, loop, &pool, NULL), 0);
    int accepted = 0;
    while (lmo_pool_submit(pool, work_at_gate, done, NULL) == 0)
        ck_assert_int_lt(++accepted, 20);
    ck_assert_int_ge(accepted, 3);
    ck_assert_int_le(accepted, 5);
    ck_assert_uint_eq(lmo_pool_load(pool), (unsigned)accepted);
    while (arrived < 2)
        sched_yield();
    pthread_t opener;
    pthread_create(&opener, NULL, open_gate_for_two, pool);
    ck_assert_int_eq(lmo_pool_free(pool, 10000), 0);
    pthread_join(opener, NULL);
    ck_assert_int_eq(worked, 2);
    ck_assert_int_eq(finished, 2);
    ck_assert_int_eq(dropped, accepted - 2);
}
END_TEST

START_TEST(pool_with_stuck_work__is_left_behind_at_the_deadline)
{
    struct lmo_pool *pool = NULL;
    worked = arrived = finished = dropped = 0;
    sem_init(&gate, 0, 0);
    ck_assert_int_eq(lmo_pool_new(1, 3, loop, &pool, NULL), 0);
    ck_assert_int_eq(lmo_pool_submit(pool, work_at_gate, done, NULL), 0);
    while (arrived < 1)
        sched_yield();
    ck_assert_int_eq(lmo_pool_free(pool, 20), LMO_E_TIMEOUT);
    ck_assert_int_eq(dropped + finished, 0);
    sem_post(&gate);
}
END_TEST

Suite *loop_suite(void)
{
    Suite *suite = suite_create("loop");
    TCase *tc = tcase_create("loop");
    tcase_set_timeout(tc, 20);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, timers__fire_in_order_of_time_then_of_creation);
    tcase_add_test(tc, timers__survive_a_thousand_random_cancellations);
    tcase_add_test(tc, timer_that_makes_itself_anew__does_not_starve_the_others);
    tcase_add_test(tc, posts__run_in_order_and_are_refused_when_full);
    tcase_add_test(tc, posts_from_four_threads__are_all_executed);
    tcase_add_test(tc, fd_deleted_during_a_turn__is_not_called_in_it);
    tcase_add_test(tc, signals__arrive_on_the_loop);
    tcase_add_test(tc, pool__runs_work_and_reports_on_the_loop);
    tcase_add_test(tc, pool__refuses_above_its_bound_and_drops_what_never_started);
    suite_add_tcase(suite, tc);
    /* Leaks a pool on purpose: no fixture, so that the loop outlives it. */
    TCase *stuck = tcase_create("stuck");
    tcase_add_checked_fixture(stuck, setup, NULL);
    tcase_add_test(stuck, pool_with_stuck_work__is_left_behind_at_the_deadline);
    suite_add_tcase(suite, stuck);
    return suite;
}
