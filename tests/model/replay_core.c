/* replay_core.c - the coordinator's step function, event by event (see replay.c).
 *
 * The record is driven by lmo_core_step alone, from `queued` on. Calls that the model leaves out (describe, attach,
 * open the gate, settle, close ...) succeed as soon as they are sent; those that it knows wait for their label. */
#include "tests/model/replay.h"

#include "base/str.h"
#include "core/migration.h"
#include "core/rules.h"

#include <stdio.h>
#include <string.h>

#define START_MS    INT64_C(1000000)
#define FIRST_EPOCH (3 * LMO_EPOCH_STRIDE)
#define STEPS_MAX   200
#define UUID        "11111111-2222-3333-4444-555555555555"

static struct lmo_migration record;
static struct lmo_effects effects;
static int64_t now_ms;

static const struct {
    int code;
    enum lmo_op_kind kind;
} tasks[] = {
    {T_JOB_START, LMO_OP_JOB_START}, {T_PERMIT, LMO_OP_PERMIT},        {T_RELAY, LMO_OP_RELAY_FREEZE},
    {T_WORD, LMO_OP_RELAY_ANSWER},   {T_ABORT, LMO_OP_JOB_ABORT},      {T_DISCARD, LMO_OP_DISCARD},
    {T_REVIVE, LMO_OP_REVIVE},       {T_REMOVE, LMO_OP_REMOVE_SOURCE},
};

static int code_of(enum lmo_op_kind kind)
{
    for (unsigned i = 0; i < COUNT(tasks); i++) {
        if (tasks[i].kind == kind) {
            return tasks[i].code;
        }
    }
    return 0;
}

static void step(struct lmo_event *ev)
{
    struct lmo_migration before = record;
    struct lmo_err err = {0};
    ev->now_ms = now_ms;
    ev->now_boot_us = (uint64_t)now_ms * 1000;
    if (lmo_core_step(&before, ev, &record, &effects, &err) < 0) {
        record = before;
        effects = (struct lmo_effects){0};
        replay_mismatch("the core refuses the event: %s", err.text);
    }
}

/* Everything that the model leaves out succeeds at once. */
static void answer_the_rest(void)
{
    struct lmo_vm_facts facts = {.state = LMO_RUN_RUNNING, .volume_count = 1};
    LMO_COPY(facts.uuid, UUID);
    LMO_COPY(facts.volumes[0].target, "vda");
    LMO_COPY(facts.volumes[0].worker, "ctl");
    for (int n = 0; n < STEPS_MAX; n++) {
        const struct lmo_task *t = NULL;
        for (unsigned i = 0; i < record.task_count && !t; i++) {
            bool ours = record.tasks[i].state == LMO_TASK_SENT && code_of(record.tasks[i].kind) == 0;
            t = ours ? &record.tasks[i] : NULL;
        }
        if (!t) {
            return;
        }
        struct lmo_event ev = {.kind = LMO_EV_TASK_DONE, .ordinal = t->ordinal, .facts = &facts, .export_name = "x"};
        step(&ev);
    }
    replay_mismatch("the core has no end of calls that the model leaves out");
}

void replay_core_reset(void)
{
    now_ms = START_MS;
    record = (struct lmo_migration){.version = 1,
                                    .epoch = FIRST_EPOCH,
                                    .phase = LMO_PHASE_QUEUED,
                                    .next_ordinal = 1,
                                    .policy = {.max_downtime_ms = 300, .convergence_timeout_ms = UINT32_MAX}};
    LMO_COPY(record.id, "01J00000000000000000000000");
    LMO_COPY(record.source, "hv1");
    LMO_COPY(record.destination, "hv2");
    LMO_COPY(record.vm.uuid, UUID);
    struct lmo_event ev = {.kind = LMO_EV_ADMITTED};
    step(&ev);
    answer_the_rest();
}

static int phase_code(void)
{
    static const int groups[] = {C_DRAIN, C_ABORT, C_DISCARD, C_REVIVE};
    switch (record.phase) {
    case LMO_PHASE_PRECOPY: return C_PRECOPY;
    case LMO_PHASE_CUTOVER: return C_CUTOVER;
    case LMO_PHASE_ROLLBACK: return record.group < COUNT(groups) ? groups[record.group] : -1;
    case LMO_PHASE_FINALIZE: return C_FINALIZE;
    case LMO_PHASE_COMPLETED: return C_COMPLETED;
    case LMO_PHASE_ABORTED: return C_ABORTED;
    case LMO_PHASE_ATTENTION: return C_ATTENTION;
    case LMO_PHASE_ABANDONED: return C_ABANDONED;
    case LMO_PHASE_QUEUED:
    case LMO_PHASE_PRECHECK:
    case LMO_PHASE_DESTINATION_CREATE:
    case LMO_PHASE_VOLUME_ATTACH:
    case LMO_PHASE_NETWORK_PRELOAD:
    case LMO_PHASE_DUAL_INGRESS:
    case LMO_PHASE_COUNT: break;
    }
    return -1;
}

static int actions_code(void)
{
    int code = 0;
    for (unsigned i = 0; i < record.task_count; i++) {
        code |= record.tasks[i].state != LMO_TASK_DONE ? code_of(record.tasks[i].kind) : 0;
    }
    return code | (record.cutover.committed ? 256 : 0) | (record.cutover.resumed ? 512 : 0) |
           (record.destination_discarded ? 1024 : 0) | (record.epoch > FIRST_EPOCH ? 2048 : 0);
}

static struct lmo_task *unfinished(int code)
{
    for (unsigned i = 0; i < record.task_count; i++) {
        if (record.tasks[i].state != LMO_TASK_DONE && code_of(record.tasks[i].kind) == code) {
            return &record.tasks[i];
        }
    }
    replay_mismatch("the core has no such call under way");
    return NULL;
}

static void finish(struct lmo_event *ev, int code)
{
    const struct lmo_task *t = unfinished(code);
    if (!t) {
        return;
    }
    if (t->state != LMO_TASK_SENT) {
        replay_mismatch("the call that is answered was not sent");
        return;
    }
    ev->ordinal = t->ordinal;
    step(ev);
}

static void report(int kind)
{
    static const struct {
        int code;
        struct lmo_worker_event event;
    } reports[] = {
        {SR_JOB_END, {.kind = LMO_WEV_JOB_END, .ok = false}},
        {DR_LOADED, {.kind = LMO_WEV_LOADED}},
        {DR_PERMIT_WANTED, {.kind = LMO_WEV_PERMIT_WANTED}},
        {DR_FREEZE_WANTED, {.kind = LMO_WEV_FREEZE_WANTED}},
        {DR_COMMITTED, {.kind = LMO_WEV_COMMITTED, .answer = "frozen"}},
        {DR_RESUMED, {.kind = LMO_WEV_RESUMED, .state = LMO_RUN_RUNNING}},
        {DR_BACK, {.kind = LMO_WEV_BACK}},
        {DR_COPY_LOST, {.kind = LMO_WEV_COPY_LOST, .ok = false}},
        {DR_LOST_FENCED, {.kind = LMO_WEV_COPY_LOST, .ok = true}},
    };
    for (unsigned i = 0; i < COUNT(reports); i++) {
        if (reports[i].code == kind) {
            struct lmo_event ev = {.kind = LMO_EV_WORKER, .worker = &reports[i].event};
            step(&ev);
            return;
        }
    }
    replay_mismatch("no such report");
}

static void recovered(void)
{
    struct lmo_event ev = {.kind = LMO_EV_RECOVERED};
    uint64_t sent = 0;
    for (unsigned i = 0; i < record.task_count; i++) {
        sent |= record.tasks[i].state == LMO_TASK_SENT ? UINT64_C(1) << i : 0;
    }
    step(&ev);
    if ((effects.send & sent) != sent) {
        replay_mismatch("a call that may be under way is not asked for again");
    }
}

/* The next timer is one call's, or the phase's. */
static void none_due_but(const struct lmo_task *t)
{
    for (unsigned i = 0; i < record.task_count; i++) {
        struct lmo_task *other = &record.tasks[i];
        if (other != t && other->state == LMO_TASK_WAITING && other->not_before_ms <= now_ms) {
            other->not_before_ms = now_ms + 1;
        }
    }
}

static void due_again(int code)
{
    const struct lmo_task *t = unfinished(code);
    if (!t || t->state == LMO_TASK_SENT) {
        replay_mismatch("the call does not wait for a retry");
        return;
    }
    now_ms = t->not_before_ms > now_ms ? t->not_before_ms : now_ms;
    none_due_but(t);
    struct lmo_event ev = {.kind = LMO_EV_TIMER};
    step(&ev);
    t = unfinished(code);
    if (t && t->state != LMO_TASK_SENT) {
        replay_mismatch("the call is not sent again when it is due");
    }
}

static void given_up(int code)
{
    struct lmo_event ev = {.kind = LMO_EV_TASK_FAILED, .code = LMO_E_UNKNOWN, .text = "lost"};
    struct lmo_task *t = unfinished(code);
    if (t) {
        t->attempts = LMO_TRIES_DRAIN;
        finish(&ev, code);
    }
}

static void overdue(void)
{
    struct lmo_event ev = {.kind = LMO_EV_TIMER};
    if (record.deadline_ms == 0) {
        replay_mismatch("the phase has no deadline");
    }
    now_ms = record.deadline_ms > now_ms ? record.deadline_ms : now_ms;
    none_due_but(NULL);
    step(&ev);
}

/* With what the model's guard says that was seen at both hosts; the source's record matters to one decision only, which
 * the model leaves out. */
static void resolved(int decision)
{
    static const struct {
        enum lmo_resolution resolution;
        enum lmo_run_state source, destination;
    } decisions[] = {
        [R_AT_SOURCE] = {LMO_RESOLVE_GUEST_AT_SOURCE, LMO_RUN_PAUSED_MIGRATION, LMO_RUN_ABSENT},
        [R_AT_DESTINATION] = {LMO_RESOLVE_GUEST_AT_DESTINATION, LMO_RUN_PAUSED_MIGRATION, LMO_RUN_RUNNING},
        [R_RETRY] = {LMO_RESOLVE_RETRY, LMO_RUN_UNKNOWN, LMO_RUN_UNKNOWN},
        [R_ABANDON] = {LMO_RESOLVE_ABANDON, LMO_RUN_UNKNOWN, LMO_RUN_UNKNOWN},
    };
    if (decision <= 0 || decision >= (int)COUNT(decisions)) {
        replay_mismatch("no such decision");
        return;
    }
    struct lmo_resolve_view view = {.source = decisions[decision].source,
                                    .destination = decisions[decision].destination};
    LMO_COPY(view.source_stage, LMO_STAGE_UNSEEN);
    LMO_COPY(view.destination_stage, replay_destination_stage());
    struct lmo_event ev = {.kind = LMO_EV_RESOLVE,
                           .resolution = decisions[decision].resolution,
                           .view = &view,
                           .text = "by the model: a trail"};
    none_due_but(NULL);
    step(&ev);
}

void replay_core(void)
{
    static const int refusals[] = {[E_BUSY] = LMO_E_BUSY, [E_CONFLICT] = LMO_E_CONFLICT, [E_GONE] = LMO_E_GONE};
    const struct replay_label *l = &replay_at.label;
    struct lmo_event ev = {0};
    switch (l->event) {
    case CE_CANCEL:
        ev.kind = LMO_EV_CANCEL;
        step(&ev);
        break;
    case CE_RECOVERED: recovered(); break;
    case CE_REPORT: report(l->argument); break;
    case CE_DONE:
        ev.kind = LMO_EV_TASK_DONE;
        finish(&ev, l->argument);
        break;
    case CE_ANSWERED:
        ev = (struct lmo_event){.kind = LMO_EV_TASK_DONE,
                                .answer = lmo_freeze_answer_name(replay_answers[l->argument]),
                                .evidence = "seen"};
        finish(&ev, T_RELAY);
        break;
    case CE_LOST:
        ev = (struct lmo_event){.kind = LMO_EV_TASK_FAILED, .code = LMO_E_UNKNOWN, .text = "lost"};
        finish(&ev, l->argument);
        break;
    case CE_REFUSED:
        ev = (struct lmo_event){.kind = LMO_EV_TASK_FAILED, .code = refusals[l->argument % 8], .text = "refused"};
        finish(&ev, l->argument / 8);
        break;
    case CE_AGAIN: due_again(l->argument); break;
    case CE_GIVEN_UP: given_up(l->argument); break;
    case CE_OVERDUE: overdue(); break;
    case CE_RESOLVED: resolved(l->argument); break;
    default: replay_mismatch("no such event of the coordinator"); return;
    }
    answer_the_rest();
    if (phase_code() != l->stage) {
        replay_mismatch("the record is in %s (group %u), the model says %d", lmo_phase_text(record.phase), record.group,
                        l->stage);
    }
    if (actions_code() != l->actions) {
        replay_mismatch("the record's calls and facts are %d", actions_code());
    }
}
