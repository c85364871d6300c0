/* test_fault.c - the fault points' order `hold` (lmo/base/fault.h): who waits, for how long, and who does not. The code is
 * compiled into this file, under another name: the program under test has none. */
#ifndef LMO_FAULT_POINTS
#define LMO_FAULT_POINTS
#endif
#define lmo_fault_hit fault_hit_under_test
#include "base/fault.c"

#include "suites.h"
#include "tmpdir.h"

#include <stdatomic.h>

static char dir[TMPDIR_MAX], orders_path[TMPDIR_MAX + 16], struck_path[TMPDIR_MAX + 32];

static void order(const char *text)
{
    char next[TMPDIR_MAX + 32];
    snprintf(next, sizeof next, "%s.new", orders_path);
    FILE *f = fopen(next, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_ge(fputs(text, f), 0);
    ck_assert_int_eq(fclose(f), 0);
    ck_assert_int_eq(rename(next, orders_path), 0);
}

static void set_up(void)
{
    tmpdir_make(dir, "fault");
    snprintf(orders_path, sizeof orders_path, "%s/orders", dir);
    snprintf(struck_path, sizeof struck_path, "%s.struck", orders_path);
    ck_assert_int_eq(setenv("LMO_FAULT_ORDERS", orders_path, 1), 0);
    counted_count = 0;
}

static void tear_down(void)
{
    (void)unsetenv("LMO_FAULT_ORDERS");
    tmpdir_remove(dir);
}

struct passer {
    pthread_t thread;
    const char *detail;
    atomic_bool passed;
};

static void *pass_by(void *arg)
{
    struct passer *p = arg;
    fault_hit_under_test(LMO_FAULT_SOURCE_STEP, p->detail);
    atomic_store(&p->passed, true);
    return NULL;
}

static void begin(struct passer *p, const char *detail)
{
    p->detail = detail;
    atomic_init(&p->passed, false);
    ck_assert_int_eq(pthread_create(&p->thread, NULL, pass_by, p), 0);
}

static void await_struck(const char *id)
{
    while (!has_line(struck_path, id)) {
        nap(1);
    }
}

START_TEST(hold__keeps_its_thread_until_the_order_is_withdrawn_and_nobody_else)
{
    struct passer held, other;
    order("# a remark\nH source.step:freezing 1 hold 60000\n");
    begin(&held, "freezing");
    await_struck("H");
    begin(&other, "suspended");
    ck_assert_int_eq(pthread_join(other.thread, NULL), 0);
    fault_hit_under_test(LMO_FAULT_WORKER_ENDED, "freezing");
    ck_assert(!atomic_load(&held.passed));
    order("# a remark\nH2 source.step:freezing 1 hold 60000\n"); /* an id that only begins alike */
    ck_assert_int_eq(pthread_join(held.thread, NULL), 0);
    ck_assert(atomic_load(&held.passed));
}
END_TEST

START_TEST(hold__ends_by_itself_and_strikes_once)
{
    order("H source.step 2 hold 20\n");
    fault_hit_under_test(LMO_FAULT_SOURCE_STEP, "job");
    ck_assert(!has_line(struck_path, "H")); /* the second hit */
    fault_hit_under_test(LMO_FAULT_SOURCE_STEP, "job");
    ck_assert(has_line(struck_path, "H"));
    counted_count = 0; /* another life of the process: what was noted holds */
    order("H source.step 1 hold 60000\n");
    fault_hit_under_test(LMO_FAULT_SOURCE_STEP, "job");
}
END_TEST

START_TEST(hold_without_a_time__is_no_order)
{
    struct order o;
    ck_assert(!parse("H source.step 1 hold", &o));
    ck_assert(!parse("H source.step 0 hold 100", &o));
    ck_assert(!parse("H source.step 1 wait 100", &o));
    ck_assert(parse("H source.step:freezing 1 hold 100", &o));
    ck_assert_str_eq(o.detail, "freezing");
    ck_assert_uint_eq(o.ms, 100);
}
END_TEST

Suite *fault_suite(void);
Suite *fault_suite(void)
{
    Suite *s = suite_create("fault");
    TCase *t = tcase_create("hold");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 50);
    tcase_add_test(t, hold__keeps_its_thread_until_the_order_is_withdrawn_and_nobody_else);
    tcase_add_test(t, hold__ends_by_itself_and_strikes_once);
    tcase_add_test(t, hold_without_a_time__is_no_order);
    suite_add_tcase(s, t);
    return s;
}
