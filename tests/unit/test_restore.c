/* test_restore.c - what becomes of a record of the past, for each thing that can be seen now. */
#include "base/str.h"
#include "core/restore.h"
#include "suites.h"

#include <string.h>

static struct lmo_migration m, next;
static struct lmo_effects fx;
static struct lmo_err err;

static void setup(void)
{
    memset(&m, 0, sizeof m);
    LMO_COPY(m.id, "01ARZ3NDEKTSV4RRFFQ69G5FAV");
    LMO_COPY(m.source, "hv1");
    LMO_COPY(m.destination, "hv2");
    LMO_COPY(m.vm.uuid, "6f0d3c1e-0000-4000-8000-000000000001");
    LMO_COPY(m.vm.name, "web1");
    m.epoch = 32;
    m.version = 7;
    m.next_ordinal = 9;
    m.task_count = 1;
    m.tasks[0] = (struct lmo_task){.kind = LMO_OP_ATTACH, .state = LMO_TASK_SENT, .ordinal = 8, .epoch = 32};
    m.phase_time_count = 1;
    m.phase_times[0] = (struct lmo_phase_time){.phase = LMO_PHASE_PRECOPY, .started_ms = 100};
    m.phase = LMO_PHASE_PRECOPY;
    m.deadline_ms = 5000;
}

static void settle(const struct lmo_restore_view *v)
{
    ck_assert_msg(lmo_core_restored(&m, v, 1000, &next, &fx, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(fx.send, 0); /* B1 */
    ck_assert(lmo_migration_broken(&next) == NULL);
}

START_TEST(a_migration_that_nobody_remembers_is_over_wherever_its_guest_is)
{
    static const struct {
        const char *host, *says;
    } cases[] = {{"hv2", "web1 is on hv2, the destination"},
                 {"hv1", "web1 is on hv1, the source"},
                 {"hv3", "web1 is on hv3"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_restore_view v = {.seen = true, .copies = 1, .definitions = 1};
        LMO_COPY(v.host, cases[i].host);
        settle(&v);
        ck_assert_int_eq(next.phase, LMO_PHASE_ABANDONED);
        ck_assert(fx.ended && fx.durable && next.version == 8 && next.task_count == 0 && next.deadline_ms == 0);
        ck_assert_msg(strstr(next.reason, cases[i].says) != NULL, "%s", next.reason);
    }
}
END_TEST

START_TEST(what_is_remembered_or_unseen_or_strange_is_left_to_a_person_under_numbers_that_nobody_had)
{
    const struct lmo_restore_view cases[] = {
        {.seen = true, .copies = 1, .definitions = 1, .host = "hv2", .remembered = true, .epoch = 34},
        {.seen = false, .copies = 1, .definitions = 1, .host = "hv2"},
        {.seen = true, .copies = 2, .definitions = 2, .host = "hv2"},
        {.seen = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int phase = 0; phase < LMO_PHASE_COUNT; phase++) {
            setup();
            m.phase = (enum lmo_phase)phase;
            m.reason_code = phase == LMO_PHASE_ATTENTION ? LMO_E_TIMEOUT : 0;
            if (lmo_phase_is(m.phase, LMO_PHASE_TERMINAL)) {
                continue;
            }
            settle(&cases[i]);
            ck_assert_int_eq(next.phase, LMO_PHASE_ATTENTION);
            ck_assert(!fx.ended && next.task_count == 0);
            ck_assert_uint_eq(next.next_ordinal, 9 + LMO_RESTORED_ORDINALS);
            ck_assert_uint_eq(next.epoch, cases[i].epoch ? 34 : 32);
            bool known = phase == LMO_PHASE_FINALIZE || phase == LMO_PHASE_ROLLBACK;
            if (phase != LMO_PHASE_ATTENTION) {
                ck_assert_int_eq(next.failed_in, known ? (enum lmo_phase)phase : LMO_PHASE_CUTOVER);
            }
        }
    }
}
END_TEST

START_TEST(a_record_that_is_over_stays_as_it_is)
{
    struct lmo_restore_view v = {.seen = true, .remembered = true};
    m.phase = LMO_PHASE_ABORTED;
    m.task_count = 0;
    m.reason_code = LMO_E_CANCELLED;
    settle(&v);
    ck_assert(!fx.durable && next.version == 7 && next.phase == LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(a_stranger_rests_only_in_stages_in_which_no_worker_does_anything_more)
{
    static const struct {
        const char *source, *destination;
        bool rests;
    } cases[] = {{"", "", true},
                 {"killed", "done", true},
                 {"revived", "discarded", true},
                 {"job", "armed", false},
                 {"frozen", "asking", false},
                 {"gone", "committed", false},
                 {"killed", "resumed", false},
                 {"?", "", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_restore_stranger s = {0};
        LMO_COPY(s.source_stage, cases[i].source);
        LMO_COPY(s.destination_stage, cases[i].destination);
        ck_assert_msg(lmo_restore_stranger_rests(&s) == cases[i].rests, "%s %s", cases[i].source, cases[i].destination);
    }
}
END_TEST

Suite *restore_suite(void)
{
    Suite *s = suite_create("restore");
    TCase *t = tcase_create("restore");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, a_migration_that_nobody_remembers_is_over_wherever_its_guest_is);
    tcase_add_test(t, what_is_remembered_or_unseen_or_strange_is_left_to_a_person_under_numbers_that_nobody_had);
    tcase_add_test(t, a_record_that_is_over_stays_as_it_is);
    tcase_add_test(t, a_stranger_rests_only_in_stages_in_which_no_worker_does_anything_more);
    suite_add_tcase(s, t);
    return s;
}
