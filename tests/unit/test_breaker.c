/* test_breaker.c - the circuit breaker of a host: when it opens, who may pass, when it closes. */
#include "core/breaker.h"

#include <check.h>

Suite *breaker_suite(void);

static struct lmo_breaker b;
static int64_t again;

static void fail_times(unsigned n, int64_t now)
{
    for (unsigned i = 0; i < n; i++) {
        (void)lmo_breaker_answered(&b, false, now, 0);
    }
}

START_TEST(opens_at_the_fifth_failure_in_a_row_and_not_before)
{
    b = (struct lmo_breaker){0};
    fail_times(4, 1000);
    ck_assert_int_eq(b.state, LMO_BREAKER_CLOSED);
    ck_assert(!lmo_breaker_answered(&b, true, 1000, 0));
    fail_times(4, 1000);
    ck_assert_int_eq(b.state, LMO_BREAKER_CLOSED); /* the good answer began the count anew */
    ck_assert(lmo_breaker_answered(&b, false, 1000, 0));
    ck_assert_int_eq(b.state, LMO_BREAKER_OPEN);
}
END_TEST

START_TEST(while_open_what_can_wait_waits_and_what_cannot_probes_once_a_second)
{
    b = (struct lmo_breaker){0};
    fail_times(5, 1000);
    ck_assert(!lmo_breaker_admit(&b, true, 1001, &again));
    ck_assert_int_eq(again, 1000 + LMO_BREAKER_PAUSE_MIN_MS / 2); /* random 0: the shortest pause there is */
    ck_assert(!lmo_breaker_admit(&b, false, 1001, &again));
    ck_assert_int_eq(again, 1000 + LMO_BREAKER_PROBE_MS);
    unsigned passed = 0;
    for (int64_t now = 1000; now < 1000 + LMO_BREAKER_PAUSE_MIN_MS / 2; now += 10) {
        passed += lmo_breaker_admit(&b, false, now, &again);
    }
    ck_assert_uint_eq(passed, 2); /* in two and a half seconds */
}
END_TEST

START_TEST(one_call_tries_when_the_pause_is_over_and_its_answer_closes_the_breaker)
{
    b = (struct lmo_breaker){0};
    fail_times(5, 0);
    int64_t now = LMO_BREAKER_PAUSE_MIN_MS;
    ck_assert(lmo_breaker_admit(&b, true, now, &again));
    ck_assert_int_eq(b.state, LMO_BREAKER_HALF_OPEN);
    ck_assert(!lmo_breaker_admit(&b, true, now + 1, &again));
    ck_assert(again > now + 1);
    ck_assert(lmo_breaker_answered(&b, true, now + 2, 0));
    for (int i = 0; i < 10; i++) {
        ck_assert(lmo_breaker_admit(&b, true, now + 3, &again));
    }
}
END_TEST

START_TEST(a_failed_trial_opens_it_for_twice_as_long_up_to_a_minute)
{
    b = (struct lmo_breaker){0};
    fail_times(5, 0);
    int64_t now = 0, pause = LMO_BREAKER_PAUSE_MIN_MS;
    for (int i = 0; i < 8; i++) {
        now = b.until_ms;
        ck_assert(lmo_breaker_admit(&b, true, now, &again));
        ck_assert(lmo_breaker_answered(&b, false, now, UINT32_MAX));
        ck_assert_int_eq(b.state, LMO_BREAKER_OPEN);
        pause = 2 * pause < LMO_BREAKER_PAUSE_MAX_MS ? 2 * pause : LMO_BREAKER_PAUSE_MAX_MS;
        ck_assert_int_ge(b.until_ms - now, pause / 2);
        ck_assert_int_le(b.until_ms - now, pause);
    }
    ck_assert_int_eq(pause, LMO_BREAKER_PAUSE_MAX_MS);
}
END_TEST

START_TEST(a_trial_whose_answer_never_comes_does_not_shut_the_host_out_for_ever)
{
    b = (struct lmo_breaker){0};
    fail_times(5, 0);
    ck_assert(lmo_breaker_admit(&b, true, b.until_ms, &again));
    ck_assert(!lmo_breaker_admit(&b, true, b.until_ms + 1, &again));
    ck_assert(lmo_breaker_admit(&b, true, again, &again));
}
END_TEST

START_TEST(a_host_that_is_heard_of_again_is_tried_at_once)
{
    b = (struct lmo_breaker){0};
    ck_assert(!lmo_breaker_heard(&b));
    fail_times(5, 0);
    ck_assert(lmo_breaker_heard(&b));
    ck_assert(lmo_breaker_admit(&b, true, 1, &again));
    ck_assert(!lmo_breaker_admit(&b, true, 1, &again));
}
END_TEST

/* Whatever comes in whatever order: never two trials at once, always a time at which to ask again that lies ahead. */
START_TEST(every_short_history_leaves_it_usable)
{
    for (unsigned history = 0; history < 1U << 16; history++) {
        b = (struct lmo_breaker){0};
        fail_times(5, 0);
        int64_t now = 0;
        for (unsigned i = 0; i < 16; i += 2) {
            now += 900;
            switch (history >> i & 3) {
            case 0: (void)lmo_breaker_answered(&b, false, now, history); break;
            case 1: (void)lmo_breaker_heard(&b); break;
            case 2: (void)lmo_breaker_admit(&b, true, now, &again); break;
            default: (void)lmo_breaker_admit(&b, false, now, &again); break;
            }
            struct lmo_breaker copy = b;
            again = 0;
            bool held = !lmo_breaker_admit(&copy, true, now, &again);
            if (held && (again <= now || again > now + LMO_BREAKER_TRIAL_MS)) {
                ck_abort_msg("history %x: asked at %lld to come again at %lld", history, (long long)now,
                             (long long)again);
            }
        }
    }
}
END_TEST

Suite *breaker_suite(void)
{
    Suite *s = suite_create("breaker");
    TCase *t = tcase_create("breaker");
    tcase_add_test(t, opens_at_the_fifth_failure_in_a_row_and_not_before);
    tcase_add_test(t, while_open_what_can_wait_waits_and_what_cannot_probes_once_a_second);
    tcase_add_test(t, one_call_tries_when_the_pause_is_over_and_its_answer_closes_the_breaker);
    tcase_add_test(t, a_failed_trial_opens_it_for_twice_as_long_up_to_a_minute);
    tcase_add_test(t, a_trial_whose_answer_never_comes_does_not_shut_the_host_out_for_ever);
    tcase_add_test(t, a_host_that_is_heard_of_again_is_tried_at_once);
    tcase_add_test(t, every_short_history_leaves_it_usable);
    suite_add_tcase(s, t);
    return s;
}
