/* test_phases.c - the phase table against itself, against the step function and against the diagram in the docs. */
#include "base/str.h"
#include "core/migration.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

Suite *phases_suite(void);

START_TEST(names_are_unique_and_found_again)
{
    for (int a = 0; a < LMO_PHASE_COUNT; a++) {
        ck_assert_int_eq(lmo_phase_from_text(lmo_phase_text((enum lmo_phase)a)), a);
    }
    ck_assert_int_eq(lmo_phase_from_text("no such phase"), LMO_PHASE_COUNT);
}
END_TEST

START_TEST(terminal_phases_have_no_successor_and_all_others_can_end)
{
    for (int a = 0; a < LMO_PHASE_COUNT; a++) {
        bool reach[LMO_PHASE_COUNT] = {false}, ends = false;
        reach[a] = true;
        for (int round = 0; round < LMO_PHASE_COUNT; round++) {
            for (int b = 0; b < LMO_PHASE_COUNT; b++) {
                for (int c = 0; reach[b] && c < LMO_PHASE_COUNT; c++) {
                    reach[c] |= lmo_phase_may_follow((enum lmo_phase)b, (enum lmo_phase)c);
                }
            }
        }
        for (int b = 0; b < LMO_PHASE_COUNT; b++) {
            ends |= reach[b] && lmo_phase_is((enum lmo_phase)b, LMO_PHASE_TERMINAL);
            if (lmo_phase_is((enum lmo_phase)a, LMO_PHASE_TERMINAL)) {
                ck_assert(!lmo_phase_may_follow((enum lmo_phase)a, (enum lmo_phase)b));
            }
        }
        ck_assert_msg(ends, "%s never ends", lmo_phase_text((enum lmo_phase)a));
    }
}
END_TEST

START_TEST(nothing_is_cancellable_past_the_point_of_no_return)
{
    for (int a = 0; a < LMO_PHASE_COUNT; a++) {
        enum lmo_phase p = (enum lmo_phase)a;
        ck_assert(!(lmo_phase_is(p, LMO_PHASE_NO_RETURN) && lmo_phase_is(p, LMO_PHASE_CANCELLABLE)));
        ck_assert(!(lmo_phase_is(p, LMO_PHASE_TERMINAL) && lmo_phase_is(p, LMO_PHASE_CANCELLABLE)));
    }
}
END_TEST

static struct lmo_migration record(enum lmo_phase p)
{
    struct lmo_migration m = {.version = 1, .epoch = 32, .phase = p, .next_ordinal = 7, .deadline_ms = 500, .reason_code = 0};
    LMO_COPY(m.id, "01J00000000000000000000000");
    LMO_COPY(m.source, "hv1");
    LMO_COPY(m.destination, "hv2");
    LMO_COPY(m.vm.uuid, "11111111-2222-3333-4444-555555555555");
    m.vm.volume_count = m.vm.port_count = 1;
    LMO_COPY(m.vm.volumes[0].worker, "ctl");
    LMO_COPY(m.vm.ports[0].worker, "ctl");
    m.dispatched = UINT64_C(1) << LMO_OP_PREPARE | UINT64_C(1) << LMO_OP_PERMIT | UINT64_C(1) << LMO_OP_JOB_START;
    if (lmo_phase_is(p, LMO_PHASE_TERMINAL)) {
        m.reason_code = p == LMO_PHASE_COMPLETED ? 0 : LMO_E_CANCELLED;
        m.cutover.resumed = p == LMO_PHASE_COMPLETED;
    }
    return m;
}

/* Every phase x every task kind in flight x every event (every worker event, every error code): the step either refuses and
 * changes nothing, or moves to a legal successor and leaves a sound record. */
START_TEST(every_phase_and_event_is_legal_or_refused)
{
    static struct lmo_migration before, after;
    static struct lmo_effects fx;
    static const int codes[] = {LMO_E_REFUSED, LMO_E_CONFLICT, LMO_E_GONE, LMO_E_STALE_EPOCH, LMO_E_BUSY,
                                LMO_E_UNAVAILABLE, LMO_E_UNKNOWN, LMO_E_TIMEOUT, LMO_E_INTERNAL};
    struct lmo_vm_facts facts = {.state = LMO_RUN_RUNNING};
    unsigned long pairs = 0, refused = 0, moved = 0;
    LMO_COPY(facts.uuid, "11111111-2222-3333-4444-555555555555");
    for (int p = 0; p < LMO_PHASE_COUNT; p++) {
        for (int kind = LMO_OP_NONE; kind < LMO_OP_COUNT; kind++) {
            for (int e = LMO_EV_ADMITTED; e < LMO_EV_COUNT; e++) {
                int variants = e == LMO_EV_WORKER ? 2 * (LMO_WEV_COUNT - 1)
                               : e == LMO_EV_TASK_FAILED || e == LMO_EV_ADMITTED ? (int)(sizeof codes / sizeof codes[0])
                                                         : 1;
                for (int v = 0; v < variants; v++) {
                    before = record((enum lmo_phase)p);
                    before.group_open = true;
                    if (kind == LMO_OP_OPEN_GATE) {
                        before.switchover_ready = true;
                    }
                    if (kind == LMO_OP_REVIVE) {
                        before.destination_discarded = true;
                    }
                    if (kind != LMO_OP_NONE && !lmo_phase_is(before.phase, LMO_PHASE_TERMINAL)) {
                        before.task_count = 1;
                        before.tasks[0] = (struct lmo_task){.kind = (enum lmo_op_kind)kind, .state = LMO_TASK_SENT,
                                                            .ordinal = 3, .attempts = 1, .epoch = 32};
                    }
                    struct lmo_worker_event w = {.kind = (enum lmo_worker_event_kind)(1 + v / 2), .ok = v % 2};
                    struct lmo_event ev = {.kind = (enum lmo_event_kind)e, .now_ms = 1000, .ordinal = 3,
                                           .code = e == LMO_EV_TASK_FAILED || (e == LMO_EV_ADMITTED && v) ? codes[v] : 0,
                                           .text = "why", .share_bytes_per_s = 1U << 20,
                                           .facts = &facts, .export_name = "x", .answer = "unknown", .evidence = "",
                                           .worker = &w};
                    struct lmo_err err = {0};
                    pairs++;
                    if (lmo_core_step(&before, &ev, &after, &fx, &err) < 0) {
                        ck_assert_int_eq(e, LMO_EV_CANCEL);
                        ck_assert_int_eq(err.code, LMO_E_CONFLICT);
                        refused++;
                        continue;
                    }
                    ck_assert_msg(lmo_migration_broken(&after) == NULL, "%s", lmo_migration_broken(&after));
                    if (after.phase != before.phase) {
                        moved++;
                        ck_assert(fx.durable); /* a move that is not stored would be a lie */
                        ck_assert(!lmo_phase_is(before.phase, LMO_PHASE_TERMINAL));
                    }
                    ck_assert_int_eq(fx.ended, lmo_phase_is(after.phase, LMO_PHASE_TERMINAL) && after.phase != before.phase);
                }
            }
        }
    }
    printf("phases: %lu phase x call x event combinations, %lu moved, %lu refused\n", pairs, moved, refused);
    ck_assert(refused > 0 && moved > 0);
}
END_TEST

START_TEST(the_diagram_in_the_docs_is_the_table)
{
    char line[256], want[8192] = "";
    for (int a = 0; a < LMO_PHASE_COUNT; a++) {
        for (int b = 0; b < LMO_PHASE_COUNT; b++) {
            if (lmo_phase_may_follow((enum lmo_phase)a, (enum lmo_phase)b)) {
                (void)snprintf(line, sizeof line, "    %s --> %s\n", lmo_phase_text((enum lmo_phase)a),
                               lmo_phase_text((enum lmo_phase)b));
                strcat(want, line);
            }
        }
    }
    if (getenv("LMO_PRINT_DIAGRAM")) {
        printf("%s", want);
        fflush(stdout);
    }
    FILE *f = fopen(LMO_SOURCE_DIR "/docs/phases.md", "r");
    ck_assert_msg(f != NULL, "docs/phases.md is missing");
    char have[8192] = "";
    while (fgets(line, sizeof line, f)) {
        if (strstr(line, " --> ")) {
            strcat(have, line);
        }
    }
    fclose(f);
    ck_assert_msg(strcmp(have, want) == 0, "docs/phases.md is not what the table says; it should hold:\n%s", want);
}
END_TEST

Suite *phases_suite(void)
{
    Suite *s = suite_create("phases");
    TCase *t = tcase_create("table");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, names_are_unique_and_found_again);
    tcase_add_test(t, terminal_phases_have_no_successor_and_all_others_can_end);
    tcase_add_test(t, nothing_is_cancellable_past_the_point_of_no_return);
    tcase_add_test(t, every_phase_and_event_is_legal_or_refused);
    tcase_add_test(t, the_diagram_in_the_docs_is_the_table);
    suite_add_tcase(s, t);
    return s;
}
