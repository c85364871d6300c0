/* test_destination.c - the destination's machine where one exact order of events matters. All orders: tests/exhaust. */
#include "base/str.h"
#include "workers/logic/destination.h"

#include <check.h>
#include <string.h>

Suite *destination_suite(void);

static struct lmo_dst d;
static struct lmo_dst_actions a;

static void feed(enum lmo_dst_event_kind kind)
{
    struct lmo_dst_event ev = {.kind = kind, .now_ms = 1000, .epoch = 16};
    struct lmo_dst next;
    lmo_dst_step(&d, &ev, &next, &a);
    ck_assert_ptr_null(lmo_dst_broken(&d, &next, &a));
    d = next;
}

static void discarding(void)
{
    d = (struct lmo_dst){.epoch = 16, .stage = LMO_DST_ARMED, .has_permit = true};
    LMO_COPY(d.migration, "01J00000000000000000000000");
    feed(LMO_DSTE_DISCARD);
    ck_assert_int_eq(d.stage, LMO_DST_DISCARDING);
    ck_assert(a.remove);
}

/* libvirtd that hung at the pause defines the guest while it winds up: the process's end is not the end of the work. */
START_TEST(the_copys_end_does_not_overtake_its_removal)
{
    discarding();
    feed(LMO_DSTE_COPY_GONE);
    ck_assert_int_eq(d.stage, LMO_DST_DISCARDING);
    ck_assert(!a.discard_done);
    feed(LMO_DSTE_REMOVE_OK);
    ck_assert_int_eq(d.stage, LMO_DST_DISCARDED);
    ck_assert(a.discard_done);
}
END_TEST

START_TEST(the_copys_end_hastens_a_removal_that_had_failed)
{
    discarding();
    feed(LMO_DSTE_REMOVE_FAILED);
    ck_assert(!d.removing && a.wake_ms > 1000);
    feed(LMO_DSTE_COPY_GONE);
    ck_assert_int_eq(d.stage, LMO_DST_DISCARDING);
    ck_assert_int_le(a.wake_ms, 1000);
    feed(LMO_DSTE_TIMER);
    ck_assert(a.remove);
    feed(LMO_DSTE_REMOVE_OK);
    ck_assert_int_eq(d.stage, LMO_DST_DISCARDED);
}
END_TEST

Suite *destination_suite(void)
{
    Suite *s = suite_create("destination");
    TCase *t = tcase_create("discard");
    tcase_add_test(t, the_copys_end_does_not_overtake_its_removal);
    tcase_add_test(t, the_copys_end_hastens_a_removal_that_had_failed);
    suite_add_tcase(s, t);
    return s;
}
