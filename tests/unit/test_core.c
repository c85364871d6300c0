/* test_core.c - the core's step function: the road forward, every way back, and what may never happen. */
#include "base/str.h"
#include "core/migration.h"

#include <check.h>
#include <stdio.h>

static struct lmo_migration m, spare;
static struct lmo_effects fx;
static struct lmo_vm_facts facts;
static int64_t now_ms;

static void fresh(unsigned volumes, unsigned ports)
{
    now_ms = 1000;
    m = (struct lmo_migration){.version = 1, .epoch = 32, .phase = LMO_PHASE_QUEUED, .next_ordinal = 1};
    LMO_COPY(m.id, "01J00000000000000000000000");
    LMO_COPY(m.source, "hv1");
    LMO_COPY(m.destination, "hv2");
    LMO_COPY(m.vm.uuid, "11111111-2222-3333-4444-555555555555");
    m.phase_times[0] = (struct lmo_phase_time){.phase = LMO_PHASE_QUEUED, .started_ms = now_ms};
    m.phase_time_count = 1;
    m.policy.convergence_timeout_ms = 60000;
    m.policy.max_downtime_ms = 300;
    facts = (struct lmo_vm_facts){.state = LMO_RUN_RUNNING, .volume_count = volumes, .port_count = ports};
    LMO_COPY(facts.uuid, m.vm.uuid);
    for (unsigned i = 0; i < volumes; i++) {
        LMO_COPY(facts.volumes[i].worker, "ctl");
        (void)snprintf(facts.volumes[i].target, sizeof facts.volumes[i].target, "vd%c", 'a' + (int)i);
    }
    for (unsigned i = 0; i < ports; i++) {
        LMO_COPY(facts.ports[i].worker, "ctl");
    }
}

/* Applies an event and keeps the result; returns the step's code. */
static int step(struct lmo_event ev)
{
    struct lmo_err err = {0};
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

static void done(enum lmo_op_kind kind)
{
    struct lmo_task *t = sent(kind);
    ck_assert_msg(t != NULL, "%s was not sent", lmo_op_info(kind)->text);
    struct lmo_event ev = {.kind = LMO_EV_TASK_DONE, .ordinal = t->ordinal};
    ev.facts = kind == LMO_OP_DESCRIBE ? &facts : NULL;
    ev.export_name = kind == LMO_OP_ATTACH ? "v.hv2.e32" : NULL;
    ck_assert_int_eq(step(ev), 0);
}

static void failed(enum lmo_op_kind kind, int code)
{
    struct lmo_task *t = sent(kind);
    ck_assert_msg(t != NULL, "%s was not sent", lmo_op_info(kind)->text);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_FAILED, .ordinal = t->ordinal, .code = code, .text = "why"}), 0);
}

static void says(struct lmo_worker_event w)
{
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_WORKER, .worker = &w}), 0);
}

/* Answers every call that is out with success until the record is in `phase` (or nothing is out any more). */
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
        done(m.tasks[i].kind);
    }
    ck_assert_msg(m.phase == phase, "is in %s, not in %s", lmo_phase_text(m.phase), lmo_phase_text(phase));
}

static void admit(void)
{
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_ADMITTED}), 0);
}

static void run_to_cutover(void)
{
    admit();
    run_to(LMO_PHASE_PRECOPY);
    for (int i = 0; i < 100 && !sent(LMO_OP_OPEN_GATE); i++) {
        unsigned k = 0;
        while (k < m.task_count && m.tasks[k].state != LMO_TASK_SENT) {
            k++;
        }
        ck_assert(k < m.task_count);
        done(m.tasks[k].kind);
    }
    done(LMO_OP_OPEN_GATE);
    says((struct lmo_worker_event){.kind = LMO_WEV_SUSPENDED, .at_us = 1});
    says((struct lmo_worker_event){.kind = LMO_WEV_LOADED, .at_us = 2});
    ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
}

START_TEST(the_road_forward_visits_every_phase_in_order_and_completes)
{
    fresh(2, 1);
    run_to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_COMMITTED, .answer = "frozen", .evidence = "e"});
    says((struct lmo_worker_event){.kind = LMO_WEV_FENCED});
    says((struct lmo_worker_event){.kind = LMO_WEV_RESUMED, .state = LMO_RUN_RUNNING});
    ck_assert_int_eq(m.phase, LMO_PHASE_FINALIZE);
    run_to(LMO_PHASE_COMPLETED);
    ck_assert(fx.ended);
    ck_assert_int_eq(m.percent, 100);
    ck_assert_uint_eq(m.phase_time_count, 9);
    ck_assert_uint_eq(m.epoch, 32);
}
END_TEST

START_TEST(a_guest_without_volumes_and_ports_passes_through_their_phases)
{
    fresh(0, 0);
    run_to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_RESUMED, .state = LMO_RUN_RUNNING});
    run_to(LMO_PHASE_COMPLETED);
}
END_TEST

START_TEST(gate_is_not_ordered_open_before_permit_job_and_network_are_confirmed)
{
    fresh(1, 1);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    ck_assert_ptr_null(sent(LMO_OP_AWAIT_BOUND));
    done(LMO_OP_PERMIT);
    done(LMO_OP_AWAIT_BOUND);
    ck_assert_ptr_null(sent(LMO_OP_OPEN_GATE));
    ck_assert(!m.switchover_ready);
    done(LMO_OP_AWAIT_INSTALLED);
    ck_assert(m.switchover_ready);
    ck_assert_ptr_nonnull(sent(LMO_OP_OPEN_GATE));
}
END_TEST

START_TEST(precheck_refusal_aborts_without_touching_anything)
{
    fresh(1, 1);
    admit();
    done(LMO_OP_DESCRIBE);
    failed(LMO_OP_CHECK_PORT, LMO_E_REFUSED);
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
    ck_assert_int_eq(m.reason_code, LMO_E_REFUSED);
    ck_assert_int_eq(m.failed_in, LMO_PHASE_PRECHECK);
}
END_TEST

START_TEST(a_source_that_does_not_reach_the_destination_is_refused_before_anything_is_made)
{
    fresh(1, 1);
    admit();
    ck_assert_ptr_null(sent(LMO_OP_CHECK_REACH)); /* not before the guest is known */
    done(LMO_OP_DESCRIBE);
    ck_assert_str_eq(lmo_task_host(&m, sent(LMO_OP_CHECK_REACH)), "hv1");
    done(LMO_OP_PRECHECK_INCOMING);
    done(LMO_OP_CHECK_VOLUME);
    done(LMO_OP_CHECK_PORT);
    ck_assert_int_eq(m.phase, LMO_PHASE_PRECHECK);
    failed(LMO_OP_CHECK_REACH, LMO_E_REFUSED);
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
    ck_assert_int_eq(m.failed_in, LMO_PHASE_PRECHECK);
    ck_assert_str_eq(m.reason, "check_reach at hv1: why");
    for (int kind = LMO_OP_NONE + 1; kind < LMO_OP_COUNT; kind++) {
        bool was_sent = (m.dispatched >> kind) & 1U;
        ck_assert_msg(!was_sent || !lmo_op_info((enum lmo_op_kind)kind)->mutates, "%s was sent",
                      lmo_op_info((enum lmo_op_kind)kind)->text);
    }
}
END_TEST

/* Calls that take `took_ms` from the sending to the answer, and the workers' clocks somewhere within. */
static void describe_and_precheck(int64_t source_ahead_ms, int64_t destination_ahead_ms, int64_t took_ms,
                                  int64_t stamp_at_ms)
{
    fresh(0, 0);
    now_ms = 1000000000;
    admit();
    int64_t sent_ms = now_ms;
    now_ms += took_ms;
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_DONE,
                                             .ordinal = sent(LMO_OP_DESCRIBE)->ordinal,
                                             .facts = &facts,
                                             .worker_us = (sent_ms + stamp_at_ms + source_ahead_ms) * 1000}),
                     0);
    ck_assert_int_eq(m.phase, LMO_PHASE_PRECHECK);
    sent_ms = now_ms;
    now_ms += took_ms;
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_DONE,
                                             .ordinal = sent(LMO_OP_PRECHECK_INCOMING)->ordinal,
                                             .worker_us = (sent_ms + stamp_at_ms + destination_ahead_ms) * 1000}),
                     0);
}

START_TEST(clocks_that_are_certainly_too_far_apart_are_refused)
{
    static const struct {
        int64_t source_ahead_ms, destination_ahead_ms, took_ms, stamp_at_ms;
        const char *expected; /* of the reason; NULL: no refusal */
    } cases[] = {
        {0, 0, 5, 2, NULL},
        {0, 29000, 5, 2, NULL},
        {0, -29000, 5, 2, NULL},
        {-7200000, -7200000, 5, 2, NULL}, /* both are off, and agree */
        {0, 31000, 5, 2, "the clock of hv2 is at least 3"},
        {0, 31000, 5, 5, "ms ahead of the clock of hv1; at most 30000 ms are allowed"},
        {0, -31000, 5, 2, "ms behind the clock of hv1; at most 30000 ms are allowed"},
        {20000, -20000, 5, 0, "ms behind the clock of hv1"},
        {-20000, 20000, 5, 5, "ms ahead of the clock of hv1"},
        /* Long calls: where within them the clocks were read is not known, and so neither is a skew of that size. */
        {0, 31000, 2000, 0, NULL},
        {0, 35000, 2000, 2000, "ms ahead of"},
        {0, 39000, 10000, 5000, NULL},
        {0, 3600000, 10000, 5000, "ms ahead of"},
        {0, INT64_MAX / 1000 - 1000000010, 5, 2, "ms ahead of"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        describe_and_precheck(cases[i].source_ahead_ms, cases[i].destination_ahead_ms, cases[i].took_ms,
                              cases[i].stamp_at_ms);
        if (cases[i].expected) {
            ck_assert_msg(m.phase == LMO_PHASE_ABORTED, "case %zu: is in %s", i, lmo_phase_text(m.phase));
            ck_assert_int_eq(m.reason_code, LMO_E_REFUSED);
            ck_assert_msg(strstr(m.reason, cases[i].expected) != NULL, "case %zu: %s", i, m.reason);
        } else {
            ck_assert_msg(m.phase == LMO_PHASE_PRECHECK, "case %zu: %s", i, m.reason);
        }
    }
}
END_TEST

START_TEST(a_clock_that_is_not_said_is_not_judged)
{
    fresh(0, 0);
    admit();
    done(LMO_OP_DESCRIBE); /* says no time */
    ck_assert_int_eq(m.source_clock.stamp_us, 0);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_DONE,
                                             .ordinal = sent(LMO_OP_PRECHECK_INCOMING)->ordinal,
                                             .worker_us = INT64_C(1000000000000000)}),
                     0);
    ck_assert_int_eq(m.phase, LMO_PHASE_PRECHECK);
    done(LMO_OP_CHECK_REACH);
    ck_assert_int_eq(m.phase, LMO_PHASE_DESTINATION_CREATE);
}
END_TEST

START_TEST(a_blocker_of_the_guest_is_the_reason)
{
    fresh(1, 1);
    LMO_COPY(facts.blocker, "host device vda passed through");
    admit();
    done(LMO_OP_DESCRIBE);
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
    ck_assert_str_eq(m.reason, "host device vda passed through");
}
END_TEST

START_TEST(a_volume_that_nobody_serves_is_refused_by_name)
{
    fresh(2, 0);
    facts.volumes[1].worker[0] = '\0';
    admit();
    done(LMO_OP_DESCRIBE);
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
    ck_assert_ptr_nonnull(strstr(m.reason, "vdb"));
}
END_TEST

START_TEST(unknown_outcome_is_asked_again_under_the_same_id)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_VOLUME_ATTACH);
    char before[LMO_OP_ID_MAX], after[LMO_OP_ID_MAX];
    lmo_task_op_id(&m, sent(LMO_OP_ATTACH), before);
    failed(LMO_OP_ATTACH, LMO_E_UNKNOWN);
    ck_assert_ptr_null(sent(LMO_OP_ATTACH));
    ck_assert(fx.wake_ms > now_ms);
    now_ms = fx.wake_ms;
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
    lmo_task_op_id(&m, sent(LMO_OP_ATTACH), after);
    ck_assert_str_eq(before, after);
}
END_TEST

START_TEST(a_definite_failure_is_tried_again_under_a_new_id_and_then_rolled_back)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_VOLUME_ATTACH);
    uint32_t ordinal = sent(LMO_OP_ATTACH)->ordinal;
    for (int i = 0; i < 4; i++) {
        failed(LMO_OP_ATTACH, LMO_E_UNAVAILABLE);
        ck_assert_int_eq(m.phase, LMO_PHASE_VOLUME_ATTACH);
        now_ms = fx.wake_ms;
        ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
        ck_assert_int_ne(sent(LMO_OP_ATTACH)->ordinal, ordinal);
    }
    failed(LMO_OP_ATTACH, LMO_E_UNAVAILABLE);
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(a_call_that_was_refused_is_not_waited_for_again_in_the_roll_back)
{
    fresh(1, 1);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_PERMIT);
    failed(LMO_OP_JOB_START, LMO_E_REFUSED);
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    ck_assert_ptr_nonnull(sent(LMO_OP_JOB_ABORT));
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(cancel_waits_for_a_call_that_may_be_making_something_before_undoing_it)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_VOLUME_ATTACH);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL, .text = "by a test"}), 0);
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    ck_assert_ptr_null(sent(LMO_OP_DISCARD));
    done(LMO_OP_ATTACH);
    ck_assert_str_eq(m.vm.volumes[0].export_destination, "v.hv2.e32");
    done(LMO_OP_DISCARD);
    ck_assert_ptr_nonnull(sent(LMO_OP_DETACH_DESTINATION));
    run_to(LMO_PHASE_ABORTED);
    ck_assert_int_eq(m.reason_code, LMO_E_CANCELLED);
}
END_TEST

START_TEST(roll_back_of_precopy_ends_the_job_then_discards_then_revives_at_a_higher_epoch)
{
    fresh(1, 1);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    done(LMO_OP_PERMIT);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL, .text = "by a test"}), 0);
    ck_assert_uint_eq(sent(LMO_OP_JOB_ABORT)->epoch, 32);
    ck_assert_ptr_null(sent(LMO_OP_DISCARD));
    done(LMO_OP_JOB_ABORT);
    ck_assert_uint_eq(sent(LMO_OP_DISCARD)->epoch, 32);
    ck_assert_ptr_null(sent(LMO_OP_REVIVE));
    done(LMO_OP_DISCARD);
    ck_assert_uint_eq(sent(LMO_OP_REVIVE)->epoch, 33);
    ck_assert_uint_eq(sent(LMO_OP_SINGLE_SOURCE)->epoch, 33);
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(abort_that_loses_the_race_goes_forward)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    done(LMO_OP_PERMIT);
    done(LMO_OP_OPEN_GATE);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL, .text = "by a test"}), 0);
    done(LMO_OP_JOB_ABORT);
    failed(LMO_OP_DISCARD, LMO_E_CONFLICT);
    ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
    says((struct lmo_worker_event){.kind = LMO_WEV_COMMITTED, .answer = "frozen"});
    says((struct lmo_worker_event){.kind = LMO_WEV_RESUMED, .state = LMO_RUN_RUNNING});
    run_to(LMO_PHASE_COMPLETED);
    ck_assert_int_eq(m.reason_code, 0); /* nothing went wrong; that a cancel was asked for is said elsewhere */
    ck_assert(m.cancel_requested);
}
END_TEST

START_TEST(destination_that_is_busy_is_asked_again_until_it_is_decided)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    done(LMO_OP_PERMIT);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL, .text = "by a test"}), 0);
    done(LMO_OP_OPEN_GATE); /* it was under way: it drains first */
    done(LMO_OP_JOB_ABORT);
    failed(LMO_OP_DISCARD, LMO_E_BUSY);
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    says((struct lmo_worker_event){.kind = LMO_WEV_BACK});
    ck_assert_ptr_nonnull(sent(LMO_OP_DISCARD)); /* not left to its back-off */
    done(LMO_OP_DISCARD);
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(cancel_past_switch_over_is_refused)
{
    fresh(1, 0);
    run_to_cutover();
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL, .text = "by a test"}), LMO_E_CONFLICT);
    ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
}
END_TEST

START_TEST(source_that_ran_on_ends_in_aborted_with_the_reason)
{
    fresh(1, 1);
    run_to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_JOB_END, .ok = false, .text = "client socket is closed"});
    ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
    says((struct lmo_worker_event){.kind = LMO_WEV_BACK});
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    run_to(LMO_PHASE_ABORTED);
    ck_assert_ptr_nonnull(strstr(m.reason, "resumed the guest"));
}
END_TEST

START_TEST(libvirt_error_after_the_commit_does_not_matter)
{
    fresh(1, 0);
    run_to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_COMMITTED, .answer = "frozen"});
    says((struct lmo_worker_event){.kind = LMO_WEV_JOB_END, .ok = false, .text = "client socket is closed"});
    ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
    says((struct lmo_worker_event){.kind = LMO_WEV_RESUMED, .state = LMO_RUN_RUNNING});
    run_to(LMO_PHASE_COMPLETED);
}
END_TEST

START_TEST(job_that_fails_in_precopy_is_rolled_back)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    done(LMO_OP_PERMIT);
    done(LMO_OP_OPEN_GATE);
    says((struct lmo_worker_event){.kind = LMO_WEV_JOB_END, .ok = false, .text = "no route"});
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    run_to(LMO_PHASE_ABORTED);
    ck_assert_ptr_nonnull(strstr(m.reason, "no route"));
}
END_TEST

START_TEST(convergence_time_out_aborts_with_the_measured_rates)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    done(LMO_OP_PERMIT);
    done(LMO_OP_OPEN_GATE);
    says((struct lmo_worker_event){.kind = LMO_WEV_PROGRESS,
                                   .progress = {.total_bytes = 1000UL << 20, .remaining_bytes = 500UL << 20, .iteration = 7,
                                                .rate_bytes_per_s = 100UL << 20, .dirty_bytes_per_s = 150UL << 20}});
    ck_assert_int_eq(m.percent, 50);
    now_ms = m.deadline_ms;
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    ck_assert_int_eq(m.reason_code, LMO_E_NOT_CONVERGING);
    ck_assert_ptr_nonnull(strstr(m.reason, "500 MiB remaining"));
    ck_assert_ptr_nonnull(strstr(m.reason, "transfers 100 MiB/s"));
    ck_assert_ptr_nonnull(strstr(m.reason, "dirties 150 MiB/s"));
}
END_TEST

START_TEST(percent_never_falls_and_progress_alone_is_not_stored)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    says((struct lmo_worker_event){.kind = LMO_WEV_PROGRESS, .progress = {.total_bytes = 100, .remaining_bytes = 10}});
    ck_assert(!fx.durable);
    says((struct lmo_worker_event){.kind = LMO_WEV_PROGRESS, .progress = {.total_bytes = 100, .remaining_bytes = 60}});
    ck_assert_int_eq(m.percent, 90);
}
END_TEST

START_TEST(freeze_is_relayed_and_its_answer_carried_to_the_destination)
{
    fresh(1, 0);
    run_to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_FREEZE_WANTED});
    says((struct lmo_worker_event){.kind = LMO_WEV_FREEZE_WANTED});
    struct lmo_task *t = sent(LMO_OP_RELAY_FREEZE);
    ck_assert_ptr_nonnull(t);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_DONE, .ordinal = t->ordinal, .answer = "unknown", .evidence = "watch"}), 0);
    ck_assert_ptr_null(sent(LMO_OP_RELAY_ANSWER));
    now_ms = fx.wake_ms;
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
    t = sent(LMO_OP_RELAY_FREEZE);
    ck_assert_ptr_nonnull(t);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_DONE, .ordinal = t->ordinal, .answer = "frozen", .evidence = "e"}), 0);
    ck_assert_ptr_nonnull(sent(LMO_OP_RELAY_ANSWER));
    ck_assert_str_eq(m.cutover.freeze_answer, "frozen");
}
END_TEST

START_TEST(a_word_that_stays_unknown__is_asked_for_ever_more_seldom_and_ends_with_a_person)
{
    fresh(1, 0);
    run_to_cutover();
    int64_t began = now_ms, expected = 500;
    says((struct lmo_worker_event){.kind = LMO_WEV_FREEZE_WANTED});
    unsigned tasks = m.task_count, asked = 0;
    while (m.phase == LMO_PHASE_CUTOVER && asked < 1000) {
        struct lmo_task *t = sent(LMO_OP_RELAY_FREEZE);
        if (t) {
            asked++;
            ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_DONE, .ordinal = t->ordinal, .answer = "unknown",
                                                     .evidence = "watch"}), 0);
            ck_assert_uint_eq(m.task_count, tasks);
            if (fx.wake_ms < m.deadline_ms) {
                ck_assert_int_eq(fx.wake_ms - now_ms, expected);
            }
            expected = 2 * expected < 30000 ? 2 * expected : 30000;
        }
        now_ms = fx.wake_ms;
        ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
    }
    ck_assert_int_eq(m.phase, LMO_PHASE_ATTENTION);
    ck_assert_uint_lt(asked, 30);
    ck_assert_int_le(now_ms - began, 600000);
    ck_assert_ptr_nonnull(strstr(m.reason, "waiting for watch"));
}
END_TEST

START_TEST(copy_lost_before_the_fence_thaws_the_source_above_the_permits_epoch)
{
    fresh(1, 0);
    run_to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_COPY_LOST, .ok = false});
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    done(LMO_OP_JOB_ABORT);
    done(LMO_OP_DISCARD);
    ck_assert_uint_eq(sent(LMO_OP_REVIVE)->epoch, 33);
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(copy_lost_after_the_fence_needs_a_person)
{
    fresh(1, 0);
    run_to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_COMMITTED, .answer = "frozen"});
    says((struct lmo_worker_event){.kind = LMO_WEV_COPY_LOST, .ok = true});
    ck_assert_int_eq(m.phase, LMO_PHASE_ATTENTION);
    ck_assert_ptr_nonnull(strstr(m.reason, "cold from its volumes"));
}
END_TEST

START_TEST(freeze_request_that_comes_after_the_discard_does_not_freeze_the_source_again)
{
    fresh(1, 0);
    run_to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_COPY_LOST, .ok = false});
    done(LMO_OP_JOB_ABORT);
    done(LMO_OP_DISCARD);
    ck_assert_ptr_nonnull(sent(LMO_OP_REVIVE));
    says((struct lmo_worker_event){.kind = LMO_WEV_FREEZE_WANTED});
    says((struct lmo_worker_event){.kind = LMO_WEV_PERMIT_WANTED});
    ck_assert_ptr_null(sent(LMO_OP_RELAY_FREEZE));
    ck_assert_ptr_null(sent(LMO_OP_PERMIT));
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(freeze_that_waits_to_be_asked_again_ends_with_the_discard)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    done(LMO_OP_PERMIT);
    done(LMO_OP_OPEN_GATE);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL, .text = "by a test"}), 0);
    done(LMO_OP_JOB_ABORT);
    says((struct lmo_worker_event){.kind = LMO_WEV_FREEZE_WANTED});
    struct lmo_task *t = sent(LMO_OP_RELAY_FREEZE);
    ck_assert_ptr_nonnull(t);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_DONE, .ordinal = t->ordinal, .answer = "unknown", .evidence = ""}), 0);
    done(LMO_OP_DISCARD);
    ck_assert_ptr_nonnull(sent(LMO_OP_REVIVE));
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

/* Found by tests/model: the copy is dead, the source's word will never be known, and nobody undid anything. */
START_TEST(freeze_that_is_never_answered_does_not_hold_the_roll_back)
{
    fresh(1, 0);
    run_to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_FREEZE_WANTED});
    struct lmo_task *t = sent(LMO_OP_RELAY_FREEZE);
    ck_assert_ptr_nonnull(t);
    says((struct lmo_worker_event){.kind = LMO_WEV_COPY_LOST, .ok = false});
    ck_assert_ptr_null(sent(LMO_OP_JOB_ABORT)); /* it may stop the source yet: its answer is awaited */
    t = sent(LMO_OP_RELAY_FREEZE);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_DONE, .ordinal = t->ordinal, .answer = "unknown", .evidence = "w"}), 0);
    done(LMO_OP_JOB_ABORT);
    done(LMO_OP_DISCARD);
    ck_assert_ptr_nonnull(sent(LMO_OP_REVIVE));
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(destination_that_is_busy_in_the_roll_back_gets_its_word_relayed_again)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    done(LMO_OP_PERMIT);
    done(LMO_OP_OPEN_GATE);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL, .text = "by a test"}), 0);
    says((struct lmo_worker_event){.kind = LMO_WEV_FREEZE_WANTED}); /* the abort is losing the race */
    struct lmo_task *t = sent(LMO_OP_RELAY_FREEZE);
    ck_assert_ptr_nonnull(t);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_DONE, .ordinal = t->ordinal, .answer = "unknown", .evidence = "w"}), 0);
    ck_assert_ptr_null(sent(LMO_OP_RELAY_FREEZE));
    done(LMO_OP_JOB_ABORT);
    failed(LMO_OP_DISCARD, LMO_E_BUSY);
    t = sent(LMO_OP_RELAY_FREEZE);
    ck_assert_ptr_nonnull(t);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_DONE, .ordinal = t->ordinal, .answer = "running", .evidence = "w"}), 0);
    ck_assert_ptr_nonnull(sent(LMO_OP_RELAY_ANSWER));
}
END_TEST

START_TEST(permit_that_a_discarding_destination_refuses_needs_no_person)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    failed(LMO_OP_PERMIT, LMO_E_REFUSED);
    done(LMO_OP_JOB_ABORT);
    failed(LMO_OP_DISCARD, LMO_E_BUSY);
    says((struct lmo_worker_event){.kind = LMO_WEV_PERMIT_WANTED});
    failed(LMO_OP_PERMIT, LMO_E_GONE);
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    now_ms = fx.wake_ms;
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
    done(LMO_OP_DISCARD);
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(destination_that_asks_again_and_again_does_not_fill_the_record)
{
    fresh(1, 0);
    run_to_cutover();
    for (int i = 0; i < 100; i++) {
        says((struct lmo_worker_event){.kind = LMO_WEV_FREEZE_WANTED});
        struct lmo_task *t = sent(LMO_OP_RELAY_FREEZE);
        ck_assert_ptr_nonnull(t);
        ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_DONE, .ordinal = t->ordinal, .answer = "frozen", .evidence = "e"}), 0);
        done(LMO_OP_RELAY_ANSWER);
    }
    ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
}
END_TEST

START_TEST(what_has_come_is_not_waited_for_any_more)
{
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    failed(LMO_OP_PERMIT, LMO_E_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(m.waiting_for, "permit"));
    now_ms = fx.wake_ms;
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
    done(LMO_OP_JOB_START); /* another one: the permit is still waited for */
    ck_assert_ptr_nonnull(strstr(m.waiting_for, "permit"));
    done(LMO_OP_PERMIT);
    ck_assert_str_eq(m.waiting_for, "");
    ck_assert_int_eq(m.waiting_since_ms, 0);
}
END_TEST

START_TEST(another_guest_than_the_one_asked_for_is_not_moved)
{
    fresh(1, 0);
    admit();
    LMO_COPY(facts.uuid, "99999999-2222-3333-4444-555555555555");
    done(LMO_OP_DESCRIBE);
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
    ck_assert_str_eq(m.vm.uuid, "11111111-2222-3333-4444-555555555555");
}
END_TEST

START_TEST(phase_during_which_the_machine_was_restarted_is_measured_by_its_stamps)
{
    fresh(1, 0);
    admit();
    m.phase_started_boot_us = 5; /* of the boot before; this one has been up for longer than the phase lasted */
    now_ms += 10 * 60000;
    m.phase_started_ms = now_ms - 50;
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_RECOVERED}), 0);
    run_to(LMO_PHASE_DESTINATION_CREATE);
    ck_assert_uint_eq(m.phase_times[1].us, 0);
}
END_TEST

START_TEST(restart_asks_again_for_exactly_what_was_sent)
{
    fresh(2, 0);
    admit();
    run_to(LMO_PHASE_VOLUME_ATTACH);
    done(LMO_OP_ATTACH);
    uint32_t ordinal = sent(LMO_OP_ATTACH)->ordinal;
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_RECOVERED}), 0);
    ck_assert_int_eq(__builtin_popcountll(fx.send), 1);
    ck_assert_int_eq(sent(LMO_OP_ATTACH)->ordinal, ordinal);
}
END_TEST

START_TEST(answers_of_an_earlier_phase_change_nothing)
{
    fresh(1, 0);
    admit();
    uint32_t ordinal = sent(LMO_OP_DESCRIBE)->ordinal;
    run_to(LMO_PHASE_VOLUME_ATTACH);
    struct lmo_migration before = m;
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TASK_FAILED, .ordinal = ordinal, .code = LMO_E_REFUSED, .text = "late"}), 0);
    ck_assert_int_eq(m.phase, before.phase);
    ck_assert(!fx.durable);
}
END_TEST

START_TEST(finalize_keeps_trying_because_the_guest_runs_where_it_should)
{
    fresh(1, 0);
    run_to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_RESUMED, .state = LMO_RUN_RUNNING});
    for (int i = 0; i < 20; i++) {
        failed(LMO_OP_REMOVE_SOURCE, LMO_E_UNAVAILABLE);
        ck_assert_int_eq(m.phase, LMO_PHASE_FINALIZE);
        ck_assert(m.waiting_for[0] != '\0');
        now_ms += 11000;
        ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
    }
    run_to(LMO_PHASE_COMPLETED);
}
END_TEST

START_TEST(a_port_that_its_owner_deleted_meanwhile_does_not_hold_the_roll_back)
{
    fresh(0, 1);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    done(LMO_OP_PERMIT);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL, .text = "by a test"}), 0);
    done(LMO_OP_JOB_ABORT);
    done(LMO_OP_DISCARD);
    failed(LMO_OP_SINGLE_SOURCE, LMO_E_NOT_FOUND);
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(downtime_begins_low_and_is_raised_by_passes_to_the_policys_limit)
{
    static const uint32_t steps[] = {120, 240, 300};
    fresh(1, 0);
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    done(LMO_OP_PERMIT);
    ck_assert_uint_eq(m.downtime_ms, 60);
    uint32_t pass = 1;
    says((struct lmo_worker_event){.kind = LMO_WEV_PROGRESS, .progress = {.iteration = pass}});
    ck_assert_uint_eq(m.downtime_ms, 60); /* the first order is still under way */
    done(LMO_OP_OPEN_GATE);
    for (unsigned i = 0; i < 3; i++) {
        says((struct lmo_worker_event){.kind = LMO_WEV_PROGRESS, .progress = {.iteration = pass}});
        ck_assert_ptr_null(sent(LMO_OP_OPEN_GATE));
        pass += 3;
        says((struct lmo_worker_event){.kind = LMO_WEV_PROGRESS, .progress = {.iteration = pass}});
        ck_assert_uint_eq(m.downtime_ms, steps[i]);
        ck_assert(fx.durable);
        done(LMO_OP_OPEN_GATE);
    }
    says((struct lmo_worker_event){.kind = LMO_WEV_PROGRESS, .progress = {.iteration = 100}});
    ck_assert_ptr_null(sent(LMO_OP_OPEN_GATE));
    ck_assert_uint_eq(m.downtime_ms, 300);
}
END_TEST

static void to_open_gate(void)
{
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    done(LMO_OP_PERMIT);
    done(LMO_OP_OPEN_GATE);
}

static void timer(void)
{
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
}

static struct lmo_worker_event sampled(uint32_t pass)
{
    return (struct lmo_worker_event){.kind = LMO_WEV_PROGRESS,
                                     .progress = {.total_bytes = 1000UL << 20, .remaining_bytes = 500UL << 20,
                                                  .iteration = pass, .rate_bytes_per_s = 100UL << 20,
                                                  .dirty_bytes_per_s = 150UL << 20}};
}

START_TEST(time_out_that_the_policy_leaves_open_follows_the_memory_and_is_in_the_journal)
{
    fresh(1, 0);
    m.policy.convergence_timeout_ms = 0;
    m.policy.bandwidth_bytes_per_s = 100UL << 20;
    facts.memory_bytes = 1000UL << 20;
    admit();
    run_to(LMO_PHASE_PRECOPY);
    bool said = false;
    for (unsigned i = 0; i < fx.journal_count; i++) {
        said |= strcmp(fx.journal[i].what, "time-out 100000 ms, then abort") == 0 &&
                strcmp(fx.journal[i].why, "60 s + 4 x 1000 MiB / 100.0 MiB/s") == 0;
    }
    ck_assert(said);
    ck_assert_int_eq(m.deadline_ms, now_ms + 60000 + 40000);
}
END_TEST

START_TEST(force_allows_the_stated_pause_once_and_then_gives_up)
{
    fresh(1, 0);
    m.policy.on_timeout = LMO_ON_TIMEOUT_FORCE;
    m.policy.force_max_pause_ms = 2500;
    to_open_gate();
    says(sampled(7));
    now_ms = m.deadline_ms;
    timer();
    ck_assert_int_eq(m.phase, LMO_PHASE_PRECOPY);
    ck_assert_uint_eq(m.downtime_ms, 2500);
    ck_assert_ptr_nonnull(sent(LMO_OP_OPEN_GATE));
    ck_assert_int_gt(m.deadline_ms, now_ms);
    ck_assert_int_eq(fx.wake_ms, m.deadline_ms);
    done(LMO_OP_OPEN_GATE);
    says(sampled(20));
    says(sampled(30));
    ck_assert_uint_eq(m.downtime_ms, 2500); /* never more */
    ck_assert_ptr_null(sent(LMO_OP_OPEN_GATE));
    now_ms = m.deadline_ms;
    timer();
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    ck_assert_int_eq(m.reason_code, LMO_E_NOT_CONVERGING);
    ck_assert_ptr_nonnull(strstr(m.reason, "pause of 2500 ms"));
}
END_TEST

START_TEST(limit_that_was_decided_while_another_order_was_under_way_is_ordered_when_that_is_answered)
{
    fresh(1, 0);
    m.policy.on_timeout = LMO_ON_TIMEOUT_FORCE;
    m.policy.force_max_pause_ms = 2500;
    to_open_gate();
    says(sampled(1));
    says(sampled(4));
    uint32_t first = sent(LMO_OP_OPEN_GATE)->ordinal;
    now_ms = m.deadline_ms;
    timer();
    ck_assert_uint_eq(m.downtime_ms, 2500);
    ck_assert_uint_eq(sent(LMO_OP_OPEN_GATE)->ordinal, first); /* with the limit before it */
    done(LMO_OP_OPEN_GATE);
    ck_assert_ptr_null(sent(LMO_OP_OPEN_GATE));
    says(sampled(5));
    ck_assert_ptr_nonnull(sent(LMO_OP_OPEN_GATE));
    ck_assert_uint_gt(sent(LMO_OP_OPEN_GATE)->ordinal, first);
    /* ... and an order that fails is ordered again. */
    failed(LMO_OP_OPEN_GATE, LMO_E_UNAVAILABLE);
    ck_assert_int_eq(m.phase, LMO_PHASE_PRECOPY);
    now_ms += 1000;
    timer();
    says(sampled(6));
    ck_assert_ptr_nonnull(sent(LMO_OP_OPEN_GATE));
    done(LMO_OP_OPEN_GATE);
    says(sampled(7));
    ck_assert_ptr_null(sent(LMO_OP_OPEN_GATE));
}
END_TEST

START_TEST(force_does_not_open_a_gate_that_was_not_ready)
{
    fresh(1, 0);
    m.policy.on_timeout = LMO_ON_TIMEOUT_FORCE;
    m.policy.force_max_pause_ms = 2500;
    admit();
    run_to(LMO_PHASE_PRECOPY);
    done(LMO_OP_JOB_START);
    now_ms = m.deadline_ms;
    timer();
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    ck_assert_ptr_nonnull(strstr(m.reason, "switch-over was not ready within 60000 ms"));
}
END_TEST

static void would_not_converge(enum lmo_prediction prediction)
{
    fresh(1, 0);
    m.policy.prediction = prediction;
    m.policy.bandwidth_bytes_per_s = 250UL << 20;
    facts.memory_bytes = 1000UL << 20;
    facts.dirty_bytes_per_s = 410UL << 20;
    facts.dirty_age_ms = 2000;
    admit();
    done(LMO_OP_DESCRIBE);
}

START_TEST(forecast_only_warns_unless_the_policy_says_more)
{
    would_not_converge(LMO_PREDICTION_WARN);
    ck_assert_int_eq(m.phase, LMO_PHASE_PRECHECK);
    ck_assert_int_eq(m.convergence.forecast.outlook, LMO_OUTLOOK_NEVER);
    ck_assert_str_eq(fx.journal[0].what, "prediction: never");
    ck_assert_ptr_nonnull(strstr(fx.journal[0].why, "will not converge: dirties 410 MiB/s, gets 250 MiB/s"));
    run_to(LMO_PHASE_PRECOPY);
    ck_assert_int_eq(m.convergence.forecast.outlook, LMO_OUTLOOK_NEVER);
    would_not_converge(LMO_PREDICTION_OFF);
    ck_assert_str_eq(m.convergence.forecast.text, "");
}
END_TEST

START_TEST(forecast_refuses_before_anything_was_touched)
{
    would_not_converge(LMO_PREDICTION_REFUSE);
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
    ck_assert_int_eq(m.reason_code, LMO_E_NOT_CONVERGING);
    ck_assert_int_eq(m.failed_in, LMO_PHASE_PRECHECK);
    ck_assert_ptr_nonnull(strstr(m.reason, "will not converge: dirties 410 MiB/s, gets 250 MiB/s"));
}
END_TEST

START_TEST(forecast_keeps_it_queued_until_the_guest_is_quieter)
{
    would_not_converge(LMO_PREDICTION_QUEUE);
    int64_t since = now_ms;
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(m.phase, LMO_PHASE_QUEUED);
        ck_assert_ptr_nonnull(strstr(m.waiting_for, "will not converge"));
        ck_assert_int_eq(m.waiting_since_ms, since);
        ck_assert_uint_eq(m.task_count, 0);
        ck_assert_int_gt(fx.wake_ms, now_ms);
        admit(); /* too early */
        ck_assert_int_eq(m.phase, LMO_PHASE_QUEUED);
        now_ms = fx.wake_ms;
        admit();
        ck_assert_int_eq(m.phase, LMO_PHASE_PRECHECK);
        done(LMO_OP_DESCRIBE);
    }
    now_ms = fx.wake_ms;
    facts.dirty_bytes_per_s = 10UL << 20;
    admit();
    done(LMO_OP_DESCRIBE);
    ck_assert_int_eq(m.phase, LMO_PHASE_PRECHECK);
    ck_assert_str_eq(m.waiting_for, "");
    run_to(LMO_PHASE_PRECOPY);
    ck_assert_uint_eq(m.phase_time_count, 7); /* one for queueing, whatever came in between */
}
END_TEST

START_TEST(guest_that_stays_too_busy_is_not_kept_queued_for_ever_and_can_be_cancelled)
{
    would_not_converge(LMO_PREDICTION_QUEUE);
    int64_t since = now_ms;
    unsigned looks = 0;
    while (m.phase == LMO_PHASE_QUEUED) {
        ck_assert_uint_lt(looks++, 1000);
        now_ms = fx.wake_ms;
        admit();
        done(LMO_OP_DESCRIBE);
    }
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
    ck_assert_int_eq(m.reason_code, LMO_E_NOT_CONVERGING);
    ck_assert_int_ge(now_ms - since, 3600000);
    would_not_converge(LMO_PREDICTION_QUEUE);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL, .text = "by a test"}), 0);
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(held_migration_is_woken_again_after_a_restart_of_the_coordinator)
{
    would_not_converge(LMO_PREDICTION_QUEUE);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_RECOVERED}), 0);
    ck_assert_int_eq(fx.wake_ms, m.held_until_ms);
}
END_TEST

START_TEST(paused_guest_dirties_nothing_whatever_was_measured)
{
    fresh(1, 0);
    m.policy.prediction = LMO_PREDICTION_REFUSE;
    m.policy.bandwidth_bytes_per_s = 250UL << 20;
    facts.state = LMO_RUN_PAUSED_BY_USER;
    facts.dirty_bytes_per_s = 410UL << 20;
    facts.dirty_age_ms = 2000;
    admit();
    done(LMO_OP_DESCRIBE);
    ck_assert_int_eq(m.phase, LMO_PHASE_PRECHECK);
    ck_assert_int_eq(m.convergence.forecast.outlook, LMO_OUTLOOK_CONVERGES);
}
END_TEST

START_TEST(sixteen_volumes_and_eight_ports_fit_every_phase)
{
    fresh(LMO_VOLUMES_MAX, LMO_PORTS_MAX);
    run_to_cutover();
    says((struct lmo_worker_event){.kind = LMO_WEV_RESUMED, .state = LMO_RUN_RUNNING});
    run_to(LMO_PHASE_COMPLETED);
}
END_TEST

START_TEST(a_terminal_record_never_changes_again)
{
    fresh(0, 0);
    admit();
    failed(LMO_OP_DESCRIBE, LMO_E_NOT_FOUND);
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
    says((struct lmo_worker_event){.kind = LMO_WEV_RESUMED});
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
    ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL}), LMO_E_CONFLICT);
}
END_TEST

/* ------------------------------------------------------------------ a guest that is shut off */

static void run_shut_off_to_cutover(void)
{
    fresh(2, 1);
    facts.state = LMO_RUN_SHUT_OFF;
    admit();
    run_to(LMO_PHASE_CUTOVER);
}

START_TEST(a_guest_that_is_shut_off__is_released_then_fenced_then_defined)
{
    run_shut_off_to_cutover();
    ck_assert_uint_eq(m.phase_time_count, 4); /* queued, precheck, volume_attach, cutover */
    ck_assert_ptr_null(sent(LMO_OP_FENCE_SOURCE));
    done(LMO_OP_RELEASE);
    ck_assert_ptr_null(sent(LMO_OP_DEFINE));
    done(LMO_OP_FENCE_SOURCE);
    ck_assert_ptr_null(sent(LMO_OP_DEFINE)); /* one of two volumes is still the source's */
    done(LMO_OP_FENCE_SOURCE);
    done(LMO_OP_DEFINE);
    ck_assert_int_eq(m.phase, LMO_PHASE_FINALIZE);
    ck_assert_ptr_nonnull(sent(LMO_OP_ASSIGN));
    ck_assert_ptr_null(sent(LMO_OP_REMOVE_SOURCE));
    run_to(LMO_PHASE_COMPLETED);
    ck_assert(m.cutover.defined && !m.cutover.resumed);
}
END_TEST

START_TEST(a_guest_that_was_started_meanwhile__stays_and_gets_its_definition_back)
{
    run_shut_off_to_cutover();
    failed(LMO_OP_RELEASE, LMO_E_CONFLICT);
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    ck_assert_ptr_nonnull(sent(LMO_OP_RESTORE));
    ck_assert_uint_eq(sent(LMO_OP_RESTORE)->epoch, 33); /* above a release that may still be on its way */
    run_to(LMO_PHASE_ABORTED);
    ck_assert_int_eq(m.reason_code, LMO_E_CONFLICT);
    ck_assert_ptr_null(strstr(m.reason, "fence"));
}
END_TEST

/* Epochs are few: one roll-back takes one, however often a person has it tried again. */
START_TEST(a_roll_back_that_is_tried_again__raises_the_epoch_once)
{
    const struct lmo_resolve_view seen = {.source = LMO_RUN_SHUT_OFF,
                                          .destination = LMO_RUN_ABSENT,
                                          .source_stage = LMO_STAGE_UNSEEN,
                                          .destination_stage = LMO_STAGE_UNSEEN};
    run_shut_off_to_cutover();
    failed(LMO_OP_RELEASE, LMO_E_CONFLICT);
    for (unsigned i = 0; i < 2 * LMO_EPOCH_STRIDE; i++) {
        ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
        ck_assert_uint_eq(m.epoch, 33);
        now_ms = m.deadline_ms;
        ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
        ck_assert_int_eq(m.phase, LMO_PHASE_ATTENTION);
        ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_RESOLVE, .resolution = LMO_RESOLVE_RETRY, .view = &seen, .text = "by a person"}), 0);
    }
    run_to(LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(a_release_whose_outcome_is_unknown__is_asked_again_then_undone)
{
    run_shut_off_to_cutover();
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
        failed(LMO_OP_RELEASE, LMO_E_UNKNOWN);
        now_ms += 60000;
        ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
    }
    ck_assert_int_eq(m.phase, LMO_PHASE_ROLLBACK);
    ck_assert_ptr_nonnull(sent(LMO_OP_RESTORE));
}
END_TEST

START_TEST(a_shut_off_guest_whose_source_may_be_fenced__only_goes_forward)
{
    static const int codes[] = {LMO_E_UNKNOWN, LMO_E_UNAVAILABLE, LMO_E_REFUSED, LMO_E_CONFLICT, LMO_E_INTERNAL};
    for (unsigned i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        run_shut_off_to_cutover();
        done(LMO_OP_RELEASE);
        failed(LMO_OP_FENCE_SOURCE, codes[i]);
        ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
        ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_CANCEL}), LMO_E_CONFLICT);
        now_ms += 20000;
        ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
        done(LMO_OP_FENCE_SOURCE);
        done(LMO_OP_FENCE_SOURCE);
        failed(LMO_OP_DEFINE, codes[i]);
        ck_assert_int_eq(m.phase, LMO_PHASE_CUTOVER);
        now_ms += 20000;
        ck_assert_int_eq(step((struct lmo_event){.kind = LMO_EV_TIMER}), 0);
        done(LMO_OP_DEFINE);
        run_to(LMO_PHASE_COMPLETED);
    }
}
END_TEST

Suite *core_suite(void);
Suite *core_suite(void)
{
    Suite *s = suite_create("core");
    TCase *t = tcase_create("step");
    tcase_add_test(t, the_road_forward_visits_every_phase_in_order_and_completes);
    tcase_add_test(t, a_guest_without_volumes_and_ports_passes_through_their_phases);
    tcase_add_test(t, gate_is_not_ordered_open_before_permit_job_and_network_are_confirmed);
    tcase_add_test(t, precheck_refusal_aborts_without_touching_anything);
    tcase_add_test(t, a_source_that_does_not_reach_the_destination_is_refused_before_anything_is_made);
    tcase_add_test(t, clocks_that_are_certainly_too_far_apart_are_refused);
    tcase_add_test(t, a_clock_that_is_not_said_is_not_judged);
    tcase_add_test(t, a_blocker_of_the_guest_is_the_reason);
    tcase_add_test(t, a_volume_that_nobody_serves_is_refused_by_name);
    tcase_add_test(t, unknown_outcome_is_asked_again_under_the_same_id);
    tcase_add_test(t, a_definite_failure_is_tried_again_under_a_new_id_and_then_rolled_back);
    tcase_add_test(t, a_call_that_was_refused_is_not_waited_for_again_in_the_roll_back);
    tcase_add_test(t, cancel_waits_for_a_call_that_may_be_making_something_before_undoing_it);
    tcase_add_test(t, roll_back_of_precopy_ends_the_job_then_discards_then_revives_at_a_higher_epoch);
    tcase_add_test(t, abort_that_loses_the_race_goes_forward);
    tcase_add_test(t, destination_that_is_busy_is_asked_again_until_it_is_decided);
    tcase_add_test(t, cancel_past_switch_over_is_refused);
    tcase_add_test(t, source_that_ran_on_ends_in_aborted_with_the_reason);
    tcase_add_test(t, libvirt_error_after_the_commit_does_not_matter);
    tcase_add_test(t, job_that_fails_in_precopy_is_rolled_back);
    tcase_add_test(t, convergence_time_out_aborts_with_the_measured_rates);
    tcase_add_test(t, percent_never_falls_and_progress_alone_is_not_stored);
    tcase_add_test(t, freeze_is_relayed_and_its_answer_carried_to_the_destination);
    tcase_add_test(t, a_word_that_stays_unknown__is_asked_for_ever_more_seldom_and_ends_with_a_person);
    tcase_add_test(t, copy_lost_before_the_fence_thaws_the_source_above_the_permits_epoch);
    tcase_add_test(t, copy_lost_after_the_fence_needs_a_person);
    tcase_add_test(t, freeze_request_that_comes_after_the_discard_does_not_freeze_the_source_again);
    tcase_add_test(t, freeze_that_waits_to_be_asked_again_ends_with_the_discard);
    tcase_add_test(t, freeze_that_is_never_answered_does_not_hold_the_roll_back);
    tcase_add_test(t, destination_that_is_busy_in_the_roll_back_gets_its_word_relayed_again);
    tcase_add_test(t, permit_that_a_discarding_destination_refuses_needs_no_person);
    tcase_add_test(t, destination_that_asks_again_and_again_does_not_fill_the_record);
    tcase_add_test(t, what_has_come_is_not_waited_for_any_more);
    tcase_add_test(t, another_guest_than_the_one_asked_for_is_not_moved);
    tcase_add_test(t, phase_during_which_the_machine_was_restarted_is_measured_by_its_stamps);
    tcase_add_test(t, restart_asks_again_for_exactly_what_was_sent);
    tcase_add_test(t, answers_of_an_earlier_phase_change_nothing);
    tcase_add_test(t, finalize_keeps_trying_because_the_guest_runs_where_it_should);
    tcase_add_test(t, a_port_that_its_owner_deleted_meanwhile_does_not_hold_the_roll_back);
    tcase_add_test(t, downtime_begins_low_and_is_raised_by_passes_to_the_policys_limit);
    tcase_add_test(t, time_out_that_the_policy_leaves_open_follows_the_memory_and_is_in_the_journal);
    tcase_add_test(t, force_allows_the_stated_pause_once_and_then_gives_up);
    tcase_add_test(t, limit_that_was_decided_while_another_order_was_under_way_is_ordered_when_that_is_answered);
    tcase_add_test(t, force_does_not_open_a_gate_that_was_not_ready);
    tcase_add_test(t, forecast_only_warns_unless_the_policy_says_more);
    tcase_add_test(t, forecast_refuses_before_anything_was_touched);
    tcase_add_test(t, forecast_keeps_it_queued_until_the_guest_is_quieter);
    tcase_add_test(t, guest_that_stays_too_busy_is_not_kept_queued_for_ever_and_can_be_cancelled);
    tcase_add_test(t, held_migration_is_woken_again_after_a_restart_of_the_coordinator);
    tcase_add_test(t, paused_guest_dirties_nothing_whatever_was_measured);
    tcase_add_test(t, sixteen_volumes_and_eight_ports_fit_every_phase);
    tcase_add_test(t, a_terminal_record_never_changes_again);
    tcase_add_test(t, a_guest_that_is_shut_off__is_released_then_fenced_then_defined);
    tcase_add_test(t, a_guest_that_was_started_meanwhile__stays_and_gets_its_definition_back);
    tcase_add_test(t, a_release_whose_outcome_is_unknown__is_asked_again_then_undone);
    tcase_add_test(t, a_shut_off_guest_whose_source_may_be_fenced__only_goes_forward);
    tcase_add_test(t, a_roll_back_that_is_tried_again__raises_the_epoch_once);
    suite_add_tcase(s, t);
    return s;
}
