/* test_attention.c - what a migration made and what of it is undone; and how one that needs a person goes on: by a fact
 * that comes late, or by a decision. */
#include "base/str.h"
#include "core/attention.h"
#include "core/migration.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

Suite *attention_suite(void);

static struct lmo_migration m, spare;
static struct lmo_effects fx;
static struct lmo_err err;
static int64_t now_ms;

static int step(struct lmo_event ev)
{
    err = (struct lmo_err){0};
    ev.now_ms = now_ms;
    ev.now_boot_us = (uint64_t)now_ms * 1000;
    int r = lmo_core_step(&m, &ev, &spare, &fx, &err);
    if (r == 0) {
        m = spare;
        ck_assert_msg(lmo_migration_broken(&m) == NULL, "%s", lmo_migration_broken(&m));
    }
    return r;
}

static struct lmo_task *sent(enum lmo_op_kind kind)
{
    for (unsigned i = 0; i < m.task_count; i++) {
        if (m.tasks[i].kind == kind && m.tasks[i].state == LMO_TASK_SENT) {
            return &m.tasks[i];
        }
    }
    return NULL;
}

static void answered(const struct lmo_task *t, int code)
{
    struct lmo_vm_facts facts = m.vm;
    facts.state = LMO_RUN_RUNNING;
    struct lmo_event ev = {.kind = code ? LMO_EV_TASK_FAILED : LMO_EV_TASK_DONE,
                           .ordinal = t->ordinal,
                           .code = code,
                           .text = "why",
                           .answer = "unknown",
                           .evidence = ""};
    ev.facts = t->kind == LMO_OP_DESCRIBE ? &facts : NULL;
    ev.export_name = t->kind == LMO_OP_ATTACH ? "v.hv2.e32" : NULL;
    ck_assert_int_eq(step(ev), 0);
}

static void done(enum lmo_op_kind kind)
{
    ck_assert_msg(sent(kind) != NULL, "%s was not sent in %s", lmo_op_info(kind)->text, lmo_phase_text(m.phase));
    answered(sent(kind), 0);
}

static void says(struct lmo_worker_event w)
{
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_WORKER, .worker = &w}), 0);
}

static void says_kind(enum lmo_worker_event_kind kind)
{
    says((struct lmo_worker_event){.kind = kind, .at_us = 5});
}

/* Answers what is out with success until the phase is reached or nothing is out. */
static void run_to(enum lmo_phase phase)
{
    for (int guard = 0; guard < 200 && m.phase != phase; guard++) {
        unsigned i = 0;
        while (i < m.task_count && m.tasks[i].state != LMO_TASK_SENT) {
            i++;
        }
        if (i == m.task_count) {
            break;
        }
        answered(&m.tasks[i], 0);
    }
    ck_assert_msg(m.phase == phase, "is in %s, not in %s", lmo_phase_text(m.phase), lmo_phase_text(phase));
}

static void fresh(unsigned volumes, unsigned ports)
{
    now_ms = 1000;
    m = (struct lmo_migration){.version = 1, .epoch = 32, .phase = LMO_PHASE_QUEUED, .next_ordinal = 1};
    LMO_COPY(m.id, "01J00000000000000000000000");
    LMO_COPY(m.source, "hv1");
    LMO_COPY(m.destination, "hv2");
    LMO_COPY(m.vm.uuid, "11111111-2222-3333-4444-555555555555");
    m.policy.convergence_timeout_ms = 60000;
    m.policy.max_downtime_ms = 300;
    m.vm.volume_count = volumes;
    m.vm.port_count = ports;
    for (unsigned i = 0; i < volumes; i++) {
        (void)snprintf(m.vm.volumes[i].volume, sizeof m.vm.volumes[i].volume, "vol%u", i);
        (void)snprintf(m.vm.volumes[i].worker, sizeof m.vm.volumes[i].worker, "store%u", i / 2);
    }
    for (unsigned i = 0; i < ports; i++) {
        (void)snprintf(m.vm.ports[i].id, sizeof m.vm.ports[i].id, "port%u", i);
        LMO_COPY(m.vm.ports[i].worker, "ctl");
    }
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_ADMITTED}), 0);
}

static void to_cutover(void)
{
    fresh(2, 1);
    run_to(LMO_PHASE_PRECOPY);
    for (int i = 0; i < 50 && !sent(LMO_OP_OPEN_GATE); i++) {
        unsigned k = 0;
        while (m.tasks[k].state != LMO_TASK_SENT) {
            k++;
        }
        answered(&m.tasks[k], 0);
    }
    done(LMO_OP_OPEN_GATE);
    says_kind(LMO_WEV_SUSPENDED);
    says_kind(LMO_WEV_LOADED);
    ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
}

static void time_out(void)
{
    now_ms = m.deadline_ms;
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
    ck_assert_int_eq(m.phase, LMO_PHASE_ATTENTION);
}

static void to_attention(void)
{
    to_cutover();
    time_out();
}

static struct lmo_resolve_view view(enum lmo_run_state source, const char *source_stage, enum lmo_run_state destination,
                                    const char *destination_stage)
{
    struct lmo_resolve_view v = {.source = source, .destination = destination};
    LMO_COPY(v.source_stage, source_stage);
    LMO_COPY(v.destination_stage, destination_stage);
    return v;
}

static int decide(enum lmo_resolution r, struct lmo_resolve_view v)
{
    return step(
        (struct lmo_event){.kind = LMO_EV_RESOLVE, .resolution = r, .view = &v, .text = "by operator:test: because"});
}

/* ------------------------------------------------------------------ resources */

START_TEST(a_resource_is_intended_before_its_call_is_sent_and_made_by_its_answer)
{
    fresh(3, 0);
    run_to(LMO_PHASE_VOLUME_ATTACH);
    ck_assert_int_eq(lmo_resource_state(&m, LMO_RES_EXPORT, 1), LMO_RES_INTENDED);
    ck_assert_int_eq(lmo_resource_state(&m, LMO_RES_PREPARATION, 0), LMO_RES_MADE);
    ck_assert_int_eq(lmo_resource_state(&m, LMO_RES_JOB, 0), LMO_RES_ABSENT);
    answered(sent(LMO_OP_ATTACH), 0);
    ck_assert_int_eq(lmo_resource_state(&m, LMO_RES_EXPORT, 0), LMO_RES_MADE);
    ck_assert_int_eq(lmo_resource_state(&m, LMO_RES_EXPORT, 1), LMO_RES_INTENDED);
    ck_assert_str_eq(lmo_resource_host(&m, LMO_RES_EXPORT, 2), "store1");
    ck_assert_str_eq(lmo_resource_object(&m, LMO_RES_EXPORT, 2), "vol2");
}
END_TEST

START_TEST(only_what_may_have_been_made_is_undone_and_nothing_is_owed_at_the_end)
{
    fresh(3, 2);
    run_to(LMO_PHASE_VOLUME_ATTACH);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL, .text = "by a test"}), 0);
    unsigned undone = 0;
    for (int guard = 0; guard < 100 && m.phase == LMO_PHASE_ROLLBACK; guard++) {
        unsigned i = 0;
        while (m.tasks[i].state != LMO_TASK_SENT) {
            i++;
        }
        enum lmo_op_kind kind = m.tasks[i].kind;
        undone += kind == LMO_OP_DETACH_DESTINATION;
        ck_assert(kind != LMO_OP_SINGLE_SOURCE && kind != LMO_OP_REVIVE && kind != LMO_OP_JOB_ABORT &&
                  kind != LMO_OP_CLOSE_SOURCE && kind != LMO_OP_CLOSE_FABRIC);
        answered(&m.tasks[i], 0);
    }
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
    ck_assert_uint_eq(undone, 3);
    for (unsigned i = 0; i < m.resource_count; i++) {
        ck_assert_uint_eq(m.resources[i].intended, m.resources[i].undone);
    }
}
END_TEST

START_TEST(a_call_that_was_never_answered_is_undone_all_the_same)
{
    fresh(1, 0);
    run_to(LMO_PHASE_VOLUME_ATTACH);
    for (int i = 0; i < 10 && m.phase == LMO_PHASE_VOLUME_ATTACH; i++) {
        answered(sent(LMO_OP_ATTACH), LMO_E_UNKNOWN);
        if (m.phase == LMO_PHASE_ROLLBACK) {
            break;
        }
        now_ms = fx.wake_ms;
        ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
    }
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    ck_assert_int_eq(lmo_resource_state(&m, LMO_RES_EXPORT, 0), LMO_RES_INTENDED);
    done(LMO_OP_DISCARD);
    ck_assert_ptr_nonnull(sent(LMO_OP_DETACH_DESTINATION));
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(after_the_move_the_guest_keeps_its_exports_and_nothing_else_is_left)
{
    to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_COMMITTED, .answer = "frozen", .evidence = "e"});
    says((struct lmo_worker_event){.kind = LMO_WEV_RESUMED, .state = LMO_RUN_RUNNING});
    run_to(LMO_PHASE_COMPLETED);
    ck_assert_int_eq(lmo_resource_state(&m, LMO_RES_EXPORT, 1), LMO_RES_KEPT);
    ck_assert_int_eq(lmo_resource_state(&m, LMO_RES_DELIVERY, 0), LMO_RES_KEPT);
    ck_assert_int_eq(lmo_resource_state(&m, LMO_RES_SOURCE_RECORD, 0), LMO_RES_UNDONE);
    ck_assert_int_eq(lmo_resource_state(&m, LMO_RES_VOLUME_RECORD, 1), LMO_RES_UNDONE);
    ck_assert_int_eq(lmo_resource_state(&m, LMO_RES_PERMIT, 0), LMO_RES_SPENT);
}
END_TEST

START_TEST(a_record_of_an_older_program_owes_all_that_its_calls_may_have_made)
{
    fresh(2, 1);
    run_to(LMO_PHASE_DUAL_INGRESS);
    m.resource_count = 0;
    lmo_resources_derive(&m);
    ck_assert(lmo_resource_owed(&m, LMO_RES_EXPORT, 0) && lmo_resource_owed(&m, LMO_RES_EXPORT, 1));
    ck_assert(lmo_resource_owed(&m, LMO_RES_DELIVERY, 0));
    ck_assert(!lmo_resource_owed(&m, LMO_RES_JOB, 0));
}
END_TEST

START_TEST(a_record_that_lists_what_its_guest_has_not_is_broken)
{
    fresh(1, 0);
    run_to(LMO_PHASE_VOLUME_ATTACH);
    for (unsigned i = 0; i < m.resource_count; i++) {
        if (m.resources[i].kind == LMO_RES_EXPORT) {
            m.resources[i].intended = 2;
        }
    }
    ck_assert_ptr_nonnull(lmo_migration_broken(&m));
}
END_TEST

/* ------------------------------------------------------------------ facts that come late */

START_TEST(resumed_after_the_deadline__goes_on_to_finalize_and_completes)
{
    to_attention();
    ck_assert(!fx.ended);
    ck_assert_int_eq(m.deadline_ms, 0);
    says((struct lmo_worker_event){.kind = LMO_WEV_COMMITTED, .answer = "gone", .evidence = "e"});
    ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
    says((struct lmo_worker_event){.kind = LMO_WEV_RESUMED, .state = LMO_RUN_RUNNING});
    run_to(LMO_PHASE_COMPLETED);
    ck_assert_int_eq(m.reason_code, 0);
}
END_TEST

START_TEST(back_after_the_deadline__rolls_back_and_aborts)
{
    to_attention();
    says_kind(LMO_WEV_BACK);
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    ck_assert_ptr_nonnull(strstr(m.reason, "resumed the guest there"));
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(copy_lost_after_the_fence__stays_for_a_person_with_the_new_reason)
{
    to_attention();
    says((struct lmo_worker_event){.kind = LMO_WEV_COPY_LOST, .ok = true});
    ck_assert_int_eq(m.phase, LMO_PHASE_ATTENTION);
    ck_assert_ptr_nonnull(strstr(m.reason, "start the guest cold"));
    ck_assert_int_eq(m.failed_in, LMO_PHASE_CUTOVER);
}
END_TEST

START_TEST(what_the_destination_asked_for_lives_on_while_the_record_rests)
{
    to_cutover();
    says_kind(LMO_WEV_FREEZE_WANTED);
    ck_assert_ptr_nonnull(sent(LMO_OP_RELAY_FREEZE));
    time_out();
    struct lmo_task *t = sent(LMO_OP_RELAY_FREEZE);
    ck_assert_ptr_nonnull(t);
    ck_assert_int_eq(step((struct lmo_event){
                         .kind = LMO_EV_TASK_DONE, .ordinal = t->ordinal, .answer = "running", .evidence = "it ran"}),
                     0);
    ck_assert_ptr_nonnull(sent(LMO_OP_RELAY_ANSWER));
}
END_TEST

START_TEST(while_it_rests_a_failing_question_is_asked_seldom_and_without_a_line_in_the_journal)
{
    to_cutover();
    says_kind(LMO_WEV_FREEZE_WANTED);
    time_out();
    answered(sent(LMO_OP_RELAY_FREEZE), LMO_E_UNAVAILABLE);
    ck_assert_uint_eq(fx.journal_count, 0);
    ck_assert_int_ge(fx.wake_ms, now_ms + 30000);
}
END_TEST

START_TEST(cancel_in_attention_says_who_must_decide)
{
    to_attention();
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL, .text = "x"}), LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "resolve"));
}
END_TEST

/* ------------------------------------------------------------------ decisions */

START_TEST(guest_at_source_is_refused_while_a_copy_is_or_may_be_at_the_destination)
{
    to_attention();
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_SOURCE, view(LMO_RUN_RUNNING, "ran", LMO_RUN_LOADED, "asking")),
                     LMO_E_CONFLICT);
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_SOURCE, view(LMO_RUN_RUNNING, "ran", LMO_RUN_UNKNOWN, "?")),
                     LMO_E_UNAVAILABLE);
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_SOURCE, view(LMO_RUN_RUNNING, "ran", LMO_RUN_ABSENT, "committed")),
                     LMO_E_CONFLICT);
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_SOURCE, view(LMO_RUN_ABSENT, "gone", LMO_RUN_ABSENT, "discarded")),
                     LMO_E_CONFLICT);
    ck_assert_int_eq(m.phase, LMO_PHASE_ATTENTION);
}
END_TEST

START_TEST(guest_at_source_with_a_copy_that_waits__names_the_decision_that_leads_there)
{
    to_attention();
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_SOURCE, view(LMO_RUN_RUNNING, "ran", LMO_RUN_LOADED, "asking")),
                     LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "Use retry"));
    ck_assert_int_eq(decide(LMO_RESOLVE_RETRY, view(LMO_RUN_RUNNING, "ran", LMO_RUN_LOADED, "asking")), 0);
    ck_assert_ptr_nonnull(sent(LMO_OP_RELAY_FREEZE));
    says_kind(LMO_WEV_BACK);
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

/* It would be asked to discard, refuse for the fence that it has sent, and another deadline would pass. */
START_TEST(guest_at_source_with_a_copy_lost__is_refused_until_it_is_known_that_nothing_was_fenced)
{
    to_attention();
    ck_assert_int_eq(m.cutover.fenced_us, 0); /* sent, and not reported */
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_SOURCE, view(LMO_RUN_PAUSED_MIGRATION, "frozen", LMO_RUN_ABSENT, "lost")),
                     LMO_E_CONFLICT);
    ck_assert_int_eq(m.phase, LMO_PHASE_ATTENTION);
    says((struct lmo_worker_event){.kind = LMO_WEV_COPY_LOST, .ok = true});
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_SOURCE, view(LMO_RUN_PAUSED_MIGRATION, "frozen", LMO_RUN_ABSENT, "lost")),
                     LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "cold"));
    /* Nothing was: its report leads back by itself, and a roll-back that came to rest may be tried again. */
    to_attention();
    says((struct lmo_worker_event){.kind = LMO_WEV_COPY_LOST, .ok = false});
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    done(LMO_OP_JOB_ABORT);
    done(LMO_OP_DISCARD);
    answered(sent(LMO_OP_REVIVE), LMO_E_REFUSED);
    ck_assert_int_eq(m.phase, LMO_PHASE_ATTENTION);
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_SOURCE, view(LMO_RUN_PAUSED_MIGRATION, "frozen", LMO_RUN_ABSENT, "lost")),
                     0);
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(a_question_that_comes_after_a_person_has_seen_the_guest_there__is_not_relayed)
{
    to_attention();
    ck_assert_int_eq(
        decide(LMO_RESOLVE_GUEST_AT_DESTINATION, view(LMO_RUN_ABSENT, "killed", LMO_RUN_RUNNING, "resumed")), 0);
    time_out();
    says_kind(LMO_WEV_FREEZE_WANTED);
    says_kind(LMO_WEV_PERMIT_WANTED);
    ck_assert_int_eq(m.phase, LMO_PHASE_ATTENTION);
    ck_assert_ptr_null(sent(LMO_OP_RELAY_FREEZE));
    ck_assert_ptr_null(sent(LMO_OP_PERMIT));
}
END_TEST

START_TEST(guest_at_source_rolls_back_through_the_destinations_own_word)
{
    to_attention();
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_SOURCE,
                            view(LMO_RUN_PAUSED_MIGRATION, "frozen", LMO_RUN_ABSENT, "discarded")),
                     0);
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    ck_assert_ptr_null(sent(LMO_OP_REVIVE));
    done(LMO_OP_JOB_ABORT);
    done(LMO_OP_DISCARD);
    ck_assert_ptr_nonnull(sent(LMO_OP_REVIVE));
    ck_assert_uint_eq(m.epoch, 33);
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(guest_at_destination_is_refused_while_the_source_runs_or_can_speak_for_itself)
{
    to_attention();
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_DESTINATION, view(LMO_RUN_RUNNING, "ran", LMO_RUN_LOADED, "asking")),
                     LMO_E_CONFLICT);
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_DESTINATION,
                            view(LMO_RUN_UNKNOWN, "frozen", LMO_RUN_LOADED, "asking")),
                     LMO_E_CONFLICT);
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_DESTINATION, view(LMO_RUN_UNKNOWN, "?", LMO_RUN_ABSENT, "lost")),
                     LMO_E_CONFLICT);
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_DESTINATION, view(LMO_RUN_UNKNOWN, "?", LMO_RUN_UNKNOWN, "?")),
                     LMO_E_UNAVAILABLE);
}
END_TEST

START_TEST(guest_at_destination_gives_a_waiting_copy_a_persons_word_in_a_dead_sources_place)
{
    to_attention();
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_DESTINATION, view(LMO_RUN_UNKNOWN, "?", LMO_RUN_LOADED, "asking")), 0);
    ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
    ck_assert_ptr_nonnull(sent(LMO_OP_RELAY_ANSWER));
    ck_assert_str_eq(m.cutover.freeze_answer, "gone");
    ck_assert_ptr_nonnull(strstr(m.cutover.evidence, "operator:test"));
    ck_assert(!m.cutover.resumed);
}
END_TEST

START_TEST(guest_at_destination_that_runs_there_goes_on_to_finalize)
{
    to_attention();
    ck_assert_int_eq(decide(LMO_RESOLVE_GUEST_AT_DESTINATION, view(LMO_RUN_ABSENT, "killed", LMO_RUN_RUNNING, "done")),
                     0);
    ck_assert_int_eq(m.phase, LMO_PHASE_FINALIZE);
    run_to(LMO_PHASE_COMPLETED);
}
END_TEST

START_TEST(committed_that_comes_after_a_person_has_seen_the_guest_there_does_not_lead_back)
{
    to_attention();
    ck_assert_int_eq(
        decide(LMO_RESOLVE_GUEST_AT_DESTINATION, view(LMO_RUN_ABSENT, "killed", LMO_RUN_RUNNING, "resumed")), 0);
    time_out();
    ck_assert_int_eq(m.failed_in, LMO_PHASE_FINALIZE);
    says((struct lmo_worker_event){.kind = LMO_WEV_COMMITTED, .answer = "frozen", .evidence = "e"});
    says((struct lmo_worker_event){.kind = LMO_WEV_RESUMED, .state = LMO_RUN_RUNNING});
    ck_assert(m.cutover.committed);
    ck_assert_int_eq(m.phase, LMO_PHASE_ATTENTION); /* a cutover would be left by RESUMED, which was taken already */
    ck_assert_int_eq(decide(LMO_RESOLVE_RETRY, view(LMO_RUN_ABSENT, "killed", LMO_RUN_RUNNING, "done")), 0);
    run_to(LMO_PHASE_COMPLETED);
}
END_TEST

START_TEST(retry_goes_back_to_where_it_stopped_with_a_fresh_deadline)
{
    to_attention();
    ck_assert_int_eq(decide(LMO_RESOLVE_RETRY, view(LMO_RUN_UNKNOWN, "?", LMO_RUN_LOADED, "asking")), 0);
    ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
    ck_assert_int_gt(m.deadline_ms, now_ms);
    ck_assert_ptr_nonnull(sent(LMO_OP_RELAY_FREEZE)); /* the destination asks but once */
}
END_TEST

START_TEST(retry_of_a_roll_back_does_not_undo_twice_and_keeps_its_epoch)
{
    to_cutover();
    says_kind(LMO_WEV_BACK);
    done(LMO_OP_JOB_ABORT);
    done(LMO_OP_DISCARD);
    ck_assert_uint_eq(m.epoch, 33);
    answered(sent(LMO_OP_REVIVE), LMO_E_REFUSED);
    ck_assert_int_eq(m.phase, LMO_PHASE_ATTENTION);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(decide(LMO_RESOLVE_RETRY, view(LMO_RUN_RUNNING, "ran", LMO_RUN_ABSENT, "discarded")), 0);
        done(LMO_OP_JOB_ABORT);
        ck_assert_ptr_null(sent(LMO_OP_DISCARD));
        ck_assert_uint_eq(m.epoch, 33);
        answered(sent(LMO_OP_REVIVE), LMO_E_REFUSED);
    }
    ck_assert_int_eq(decide(LMO_RESOLVE_RETRY, view(LMO_RUN_RUNNING, "ran", LMO_RUN_ABSENT, "discarded")), 0);
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(abandon_closes_the_record_and_touches_nothing)
{
    to_attention();
    ck_assert_int_eq(decide(LMO_RESOLVE_ABANDON, view(LMO_RUN_UNKNOWN, "?", LMO_RUN_UNKNOWN, "?")), 0);
    ck_assert_int_eq(m.phase, LMO_PHASE_ABANDONED);
    ck_assert(fx.ended);
    ck_assert(fx.send == 0);
    ck_assert_ptr_nonnull(strstr(m.reason, "because"));
    ck_assert_int_eq(decide(LMO_RESOLVE_RETRY, view(LMO_RUN_UNKNOWN, "?", LMO_RUN_UNKNOWN, "?")), LMO_E_CONFLICT);
}
END_TEST

START_TEST(a_decision_about_a_migration_that_needs_none_is_refused)
{
    to_cutover();
    ck_assert_int_eq(decide(LMO_RESOLVE_ABANDON, view(LMO_RUN_UNKNOWN, "?", LMO_RUN_UNKNOWN, "?")), LMO_E_CONFLICT);
    ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
}
END_TEST

START_TEST(the_record_says_what_is_known_what_is_not_and_what_is_safe)
{
    static struct lmo_attention a;
    to_cutover();
    says_kind(LMO_WEV_FREEZE_WANTED);
    time_out();
    lmo_attention_describe(&m, &a);
    ck_assert_uint_ge(a.known_count, 2);
    ck_assert_ptr_nonnull(strstr(a.known[1], "loaded at hv2"));
    ck_assert_ptr_nonnull(strstr(a.unknown[0], "relay_freeze"));
    bool at_source = false, at_destination = false;
    for (unsigned i = 0; i < a.safe_count; i++) {
        at_source |= strstr(a.safe[i].command, "guest-at-source") != NULL;
        at_destination |= strstr(a.safe[i].command, "guest-at-destination") != NULL;
    }
    ck_assert(at_source && at_destination);
    says((struct lmo_worker_event){.kind = LMO_WEV_COMMITTED, .answer = "frozen"});
    time_out();
    lmo_attention_describe(&m, &a);
    for (unsigned i = 0; i < a.safe_count; i++) { /* past the commit nobody is told to give it back */
        ck_assert_ptr_null(strstr(a.safe[i].command, "guest-at-source"));
    }
}
END_TEST

Suite *attention_suite(void)
{
    Suite *s = suite_create("attention");
    TCase *t = tcase_create("resources");
    tcase_add_test(t, a_resource_is_intended_before_its_call_is_sent_and_made_by_its_answer);
    tcase_add_test(t, only_what_may_have_been_made_is_undone_and_nothing_is_owed_at_the_end);
    tcase_add_test(t, a_call_that_was_never_answered_is_undone_all_the_same);
    tcase_add_test(t, after_the_move_the_guest_keeps_its_exports_and_nothing_else_is_left);
    tcase_add_test(t, a_record_of_an_older_program_owes_all_that_its_calls_may_have_made);
    tcase_add_test(t, a_record_that_lists_what_its_guest_has_not_is_broken);
    suite_add_tcase(s, t);
    t = tcase_create("facts");
    tcase_add_test(t, resumed_after_the_deadline__goes_on_to_finalize_and_completes);
    tcase_add_test(t, back_after_the_deadline__rolls_back_and_aborts);
    tcase_add_test(t, copy_lost_after_the_fence__stays_for_a_person_with_the_new_reason);
    tcase_add_test(t, what_the_destination_asked_for_lives_on_while_the_record_rests);
    tcase_add_test(t, while_it_rests_a_failing_question_is_asked_seldom_and_without_a_line_in_the_journal);
    tcase_add_test(t, cancel_in_attention_says_who_must_decide);
    suite_add_tcase(s, t);
    t = tcase_create("decisions");
    tcase_add_test(t, guest_at_source_is_refused_while_a_copy_is_or_may_be_at_the_destination);
    tcase_add_test(t, guest_at_source_with_a_copy_that_waits__names_the_decision_that_leads_there);
    tcase_add_test(t, guest_at_source_with_a_copy_lost__is_refused_until_it_is_known_that_nothing_was_fenced);
    tcase_add_test(t, a_question_that_comes_after_a_person_has_seen_the_guest_there__is_not_relayed);
    tcase_add_test(t, guest_at_source_rolls_back_through_the_destinations_own_word);
    tcase_add_test(t, guest_at_destination_is_refused_while_the_source_runs_or_can_speak_for_itself);
    tcase_add_test(t, guest_at_destination_gives_a_waiting_copy_a_persons_word_in_a_dead_sources_place);
    tcase_add_test(t, guest_at_destination_that_runs_there_goes_on_to_finalize);
    tcase_add_test(t, committed_that_comes_after_a_person_has_seen_the_guest_there_does_not_lead_back);
    tcase_add_test(t, retry_goes_back_to_where_it_stopped_with_a_fresh_deadline);
    tcase_add_test(t, retry_of_a_roll_back_does_not_undo_twice_and_keeps_its_epoch);
    tcase_add_test(t, abandon_closes_the_record_and_touches_nothing);
    tcase_add_test(t, a_decision_about_a_migration_that_needs_none_is_refused);
    tcase_add_test(t, the_record_says_what_is_known_what_is_not_and_what_is_safe);
    suite_add_tcase(s, t);
    return s;
}
