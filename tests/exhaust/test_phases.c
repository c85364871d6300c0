/* test_phases.c - the phase table against itself, against the step function and against the diagram in the docs. */
#include "base/str.h"
#include "core/migration.h"
#include "core/rules.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static struct lmo_migration record(enum lmo_phase p, enum lmo_run_state guest)
{
    struct lmo_migration m = {.version = 1, .epoch = 32, .phase = p, .next_ordinal = 7, .deadline_ms = 500, .reason_code = 0};
    LMO_COPY(m.id, "01J00000000000000000000000");
    LMO_COPY(m.source, "hv1");
    LMO_COPY(m.destination, "hv2");
    LMO_COPY(m.vm.uuid, "11111111-2222-3333-4444-555555555555");
    m.vm.volume_count = m.vm.port_count = 1;
    LMO_COPY(m.vm.volumes[0].worker, "ctl");
    LMO_COPY(m.vm.ports[0].worker, "ctl");
    m.vm.state = guest;
    if (guest == LMO_RUN_SHUT_OFF) {
        m.dispatched = UINT64_C(1) << LMO_OP_RELEASE;
    } else {
        m.dispatched = UINT64_C(1) << LMO_OP_PREPARE | UINT64_C(1) << LMO_OP_PERMIT | UINT64_C(1) << LMO_OP_JOB_START;
    }
    if (p == LMO_PHASE_QUEUED) {
        m.dispatched = 0;
        m.deadline_ms = 0;
    }
    lmo_resources_derive(&m);
    if (p == LMO_PHASE_ABORTED) {
        for (unsigned i = 0; i < m.resource_count; i++) {
            m.resources[i].undone = m.resources[i].intended;
        }
    }
    if (p == LMO_PHASE_ATTENTION) {
        m.reason_code = LMO_E_TIMEOUT;
        m.failed_in = LMO_PHASE_CUTOVER;
        m.deadline_ms = 0;
    }
    if (lmo_phase_is(p, LMO_PHASE_TERMINAL)) {
        m.reason_code = p == LMO_PHASE_COMPLETED ? 0 : LMO_E_CANCELLED;
        m.cutover.resumed = p == LMO_PHASE_COMPLETED && guest != LMO_RUN_SHUT_OFF;
        m.cutover.defined = p == LMO_PHASE_COMPLETED && guest == LMO_RUN_SHUT_OFF;
    }
    return m;
}

/* What no decision may ever do, stated without the code's own rules. */
static void decisions_keep_the_guest_whole(const struct lmo_resolve_view *v, const struct lmo_migration *after,
                                           enum lmo_resolution r)
{
    if (r == LMO_RESOLVE_GUEST_AT_SOURCE) { /* nobody was seen, or is unseen, at the other side */
        ck_assert(v->destination == LMO_RUN_ABSENT || v->destination == LMO_RUN_SHUT_OFF);
        ck_assert_int_eq(after->phase, LMO_PHASE_ROLLBACK);
    }
    if (r == LMO_RESOLVE_GUEST_AT_DESTINATION) {
        ck_assert(v->source != LMO_RUN_RUNNING);
        ck_assert(v->destination == LMO_RUN_RUNNING || v->destination == LMO_RUN_LOADED);
        ck_assert(after->cutover.resumed == (v->destination == LMO_RUN_RUNNING)); /* a paused copy is not resumed by a record */
    }
    for (unsigned i = 0; i < after->task_count; i++) { /* the source is helped only after the destination's worker has spoken */
        ck_assert(after->tasks[i].kind != LMO_OP_REVIVE);
    }
    ck_assert(r != LMO_RESOLVE_ABANDON || after->task_count == 0);
}

/* A look before a person's decision: number v of all combinations of what either host may show. */
static struct lmo_resolve_view view(int v)
{
    static const enum lmo_run_state states[] = {LMO_RUN_UNKNOWN, LMO_RUN_ABSENT, LMO_RUN_RUNNING, LMO_RUN_PAUSED_MIGRATION,
                                                LMO_RUN_LOADED};
    static const char *const stages[] = {LMO_STAGE_UNSEEN, "", "asking", "committed", "resumed", "discarded", "lost"};
    struct lmo_resolve_view r = {.source = states[v % 5], .destination = states[v / 5 % 5]};
    LMO_COPY(r.destination_stage, stages[v / 25 % 7]);
    LMO_COPY(r.source_stage, r.source == LMO_RUN_UNKNOWN ? LMO_STAGE_UNSEEN : "frozen");
    return r;
}
#define VIEWS (5 * 5 * 7)

static const int codes[] = {LMO_E_REFUSED,     LMO_E_CONFLICT, LMO_E_GONE,    LMO_E_STALE_EPOCH, LMO_E_BUSY,
                            LMO_E_UNAVAILABLE, LMO_E_UNKNOWN,  LMO_E_TIMEOUT, LMO_E_INTERNAL};
#define CODES ((int)(sizeof codes / sizeof codes[0]))

static bool of_guest(enum lmo_op_kind kind, enum lmo_run_state guest)
{
    bool shut = kind == LMO_OP_RELEASE || kind == LMO_OP_FENCE_SOURCE || kind == LMO_OP_DEFINE ||
                kind == LMO_OP_RESTORE || kind == LMO_OP_ASSIGN;
    bool live = kind == LMO_OP_JOB_START || kind == LMO_OP_OPEN_GATE || kind == LMO_OP_REVIVE || kind == LMO_OP_DISCARD;
    return guest == LMO_RUN_SHUT_OFF ? !live : !shut;
}

static unsigned long pairs, refused, moved;

static void one_pair(enum lmo_phase p, enum lmo_op_kind kind, enum lmo_event_kind e, int v, enum lmo_run_state guest)
{
    static struct lmo_migration before, after;
    static struct lmo_effects fx;
    struct lmo_vm_facts facts = {.state = guest};
    LMO_COPY(facts.uuid, "11111111-2222-3333-4444-555555555555");
    before = record(p, guest);
    before.group_open = true;
    before.switchover_ready = kind == LMO_OP_OPEN_GATE;
    before.destination_discarded = kind == LMO_OP_REVIVE;
    if (kind != LMO_OP_NONE && !lmo_phase_is(before.phase, LMO_PHASE_TERMINAL)) {
        before.task_count = 1;
        before.tasks[0] =
            (struct lmo_task){.kind = kind, .state = LMO_TASK_SENT, .ordinal = 3, .attempts = 1, .epoch = 32};
    }
    struct lmo_worker_event w = {.kind = (enum lmo_worker_event_kind)(1 + v / 2), .ok = v % 2};
    struct lmo_event ev = {.kind = e, .now_ms = 1000, .ordinal = 3, .code = e == LMO_EV_TASK_FAILED || (e == LMO_EV_ADMITTED && v) ? codes[v] : 0,
                           .text = "why", .share_bytes_per_s = 1U << 20, .facts = &facts, .export_name = "x", .answer = "unknown", .evidence = "",
                           .worker = &w};
    struct lmo_resolve_view seen = view(v % VIEWS);
    if (e == LMO_EV_RESOLVE) {
        ev.resolution = (enum lmo_resolution)(1 + v / VIEWS);
        ev.view = &seen;
    }
    struct lmo_err err = {0};
    pairs++;
    if (lmo_core_step(&before, &ev, &after, &fx, &err) < 0) {
        ck_assert_msg(e == LMO_EV_CANCEL || e == LMO_EV_RESOLVE || e == LMO_EV_ACKNOWLEDGED, "%s", err.text);
        ck_assert_msg(err.code == LMO_E_CONFLICT || (e == LMO_EV_RESOLVE && err.code == LMO_E_UNAVAILABLE), "%s in %s",
                      err.text, lmo_phase_text(before.phase));
        refused++;
        return;
    }
    if (e == LMO_EV_RESOLVE && kind != LMO_OP_REVIVE) {
        decisions_keep_the_guest_whole(&seen, &after, ev.resolution);
    }
    ck_assert_msg(lmo_migration_broken(&after) == NULL, "%s", lmo_migration_broken(&after));
    if (after.phase != before.phase) {
        moved++;
        ck_assert(fx.durable); /* a move that is not stored would be a lie */
        ck_assert(!lmo_phase_is(before.phase, LMO_PHASE_TERMINAL));
    }
    ck_assert_int_eq(fx.ended, lmo_phase_is(after.phase, LMO_PHASE_TERMINAL) && after.phase != before.phase);
}

static int variants_of(enum lmo_event_kind e)
{
    return e == LMO_EV_WORKER        ? 2 * (LMO_WEV_COUNT - 1)
           : e == LMO_EV_TASK_FAILED || e == LMO_EV_ADMITTED ? CODES
           : e == LMO_EV_RESOLVE     ? VIEWS * (LMO_RESOLVE_COUNT - 1)
                                     : 1;
}

/* Every phase x every task kind in flight x every event (every worker event, every error code, every decision before every
 * view), of a guest that runs and of one that is shut off: the step either refuses and changes nothing, or moves to a legal
 * successor and leaves a sound record. */
START_TEST(every_phase_and_event_is_legal_or_refused)
{
    static const enum lmo_run_state guests[] = {LMO_RUN_RUNNING, LMO_RUN_SHUT_OFF};
    for (int g = 0; g < 2; g++) {
        for (int p = 0; p < LMO_PHASE_COUNT; p++) {
            for (int kind = LMO_OP_NONE; kind < LMO_OP_COUNT; kind++) {
                for (int e = LMO_EV_ADMITTED; e < LMO_EV_COUNT && of_guest((enum lmo_op_kind)kind, guests[g]); e++) {
                    for (int v = 0; v < variants_of((enum lmo_event_kind)e); v++) {
                        one_pair((enum lmo_phase)p, (enum lmo_op_kind)kind, (enum lmo_event_kind)e, v, guests[g]);
                    }
                }
            }
        }
    }
    printf("phases: %lu phase x call x event combinations, %lu moved, %lu refused\n", pairs, moved, refused);
    ck_assert(refused > 0 && moved > 0);
}
END_TEST

static void append(char *to, size_t size, const char *text)
{
    ck_assert_uint_lt(strlen(to) + strlen(text), size);
    strcat(to, text);
}

static void table_lines(char *want, size_t size)
{
    static const char *const then[] = {"", "rollback", "rollback", "attention"};
    char line[512], deadline[48], tries[32];
    for (int a = 0; a < LMO_PHASE_COUNT; a++) {
        const struct lmo_phase_rule *r = lmo_phase_rule((enum lmo_phase)a);
        if (r->deadline_ms == 0) {
            (void)snprintf(deadline, sizeof deadline, "none");
        } else if (r->deadline_ms == LMO_DEADLINE_BY_POLICY) {
            (void)snprintf(deadline, sizeof deadline, "convergence_timeout_ms, then %s", then[r->at_deadline]);
        } else if (r->deadline_ms == LMO_DEADLINE_BY_LIMITS) {
            (void)snprintf(deadline, sizeof deadline, "queue_timeout, then %s", lmo_phase_text(LMO_PHASE_ABORTED));
        } else {
            (void)snprintf(deadline, sizeof deadline, "%lld s, then %s", (long long)r->deadline_ms / 1000, then[r->at_deadline]);
        }
        (void)snprintf(tries, sizeof tries, r->tries ? "%u" : r->deadline_ms ? "until the deadline" : "-", r->tries);
        (void)snprintf(line, sizeof line, "| `%s` | %s | %s | %s | %s |\n", lmo_phase_text((enum lmo_phase)a), deadline, tries,
                       r->undo, r->question);
        append(want, size, line);
    }
    for (int k = LMO_OP_NONE + 1; k < LMO_OP_COUNT; k++) {
        const struct lmo_op_info *i = lmo_op_info((enum lmo_op_kind)k);
        const struct lmo_op_rule *r = lmo_op_rule((enum lmo_op_kind)k);
        (void)snprintf(line, sizeof line, "| `%s` | %u s | %s | %s | %s |\n", i->text, i->timeout_ms / 1000,
                       i->mutates ? "same id" : "afresh", r->undone_by ? lmo_op_info(r->undone_by)->text : "-", r->question);
        append(want, size, line);
    }
}

static void diagram_lines(char *want, size_t size)
{
    char line[256];
    for (int a = 0; a < LMO_PHASE_COUNT; a++) {
        for (int b = 0; b < LMO_PHASE_COUNT; b++) {
            if (lmo_phase_may_follow((enum lmo_phase)a, (enum lmo_phase)b)) {
                (void)snprintf(line, sizeof line, "    %s --> %s\n", lmo_phase_text((enum lmo_phase)a),
                               lmo_phase_text((enum lmo_phase)b));
                append(want, size, line);
            }
        }
    }
}

START_TEST(diagram_and_tables_in_the_docs_are_those_of_the_code)
{
    static char want[32768], have[32768];
    char line[1024];
    diagram_lines(want, sizeof want);
    table_lines(want, sizeof want);
    if (getenv("LMO_PRINT_DIAGRAM")) {
        printf("%s", want);
        fflush(stdout);
    }
    FILE *f = fopen(LMO_SOURCE_DIR "/docs/phases.md", "r");
    ck_assert_msg(f != NULL, "docs/phases.md is missing");
    while (fgets(line, sizeof line, f)) {
        if (strstr(line, " --> ") || strncmp(line, "| `", 3) == 0) {
            append(have, sizeof have, line);
        }
    }
    fclose(f);
    ck_assert_msg(strcmp(have, want) == 0, "docs/phases.md is not what the tables say: see LMO_PRINT_DIAGRAM=1");
}
END_TEST

/* The plan, the resource table and the tables of rules say the same about what undoes what. */
START_TEST(what_undoes_a_call_agrees_everywhere)
{
    static const struct { enum lmo_op_kind made_by, undone_by; } made[] = {
#define X(name, text, scope, made_by, undone_by, afterwards) {LMO_OP_##made_by, LMO_OP_##undone_by},
        LMO_RESOURCES(X)
#undef X
    };
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        ck_assert(lmo_op_info(made[i].made_by)->mutates && lmo_op_info(made[i].undone_by)->mutates);
        bool record = strncmp(lmo_op_info(made[i].undone_by)->text, "close_", 6) == 0;
        if (!record) {
            ck_assert_int_eq(lmo_op_rule(made[i].made_by)->undone_by, made[i].undone_by);
        }
    }
    for (int a = 0; a < LMO_PHASE_COUNT; a++) {
        const struct lmo_phase_rule *r = lmo_phase_rule((enum lmo_phase)a);
        ck_assert_msg(r->undo && r->question, "%s has no row", lmo_phase_text((enum lmo_phase)a));
        bool ends = lmo_phase_is((enum lmo_phase)a, LMO_PHASE_TERMINAL), rests = lmo_phase_is((enum lmo_phase)a, LMO_PHASE_RESTING);
        ck_assert((r->deadline_ms == 0) == (ends || rests)); /* every wait has one */
        ck_assert((r->at_deadline == LMO_AT_DEADLINE_NOTHING) == (r->deadline_ms == 0));
        if (r->at_deadline == LMO_AT_DEADLINE_ATTENTION) {
            ck_assert(lmo_phase_may_follow((enum lmo_phase)a, LMO_PHASE_ATTENTION));
        }
    }
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
    tcase_add_test(t, diagram_and_tables_in_the_docs_are_those_of_the_code);
    tcase_add_test(t, what_undoes_a_call_agrees_everywhere);
    suite_add_tcase(s, t);
    return s;
}
