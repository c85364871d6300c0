/* tasks.c - what the answers of workers to calls mean.
 *
 * A failure's class decides, not the call: `refuse` is an answer, `retry` did nothing, `unknown` may have happened
 * and is asked for again under the SAME operation id, which a worker answers from its journal. */
#include "base/str.h"
#include "core/internal.h"
#include "core/rules.h"

#include <stdio.h>
#include <string.h>

#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 10000
#define RELAY_AGAIN_MS 500    /* doubled with every `unknown`, up to: */
#define REST_AGAIN_MS 30000   /* also while it rests: for as long as nobody decides, and without a line in the journal */
#define CLOCK_MAX_US (INT64_MAX / 4) /* whatever a worker says of its clock, differences fit */

static void take_facts(struct lmo_step *s, const struct lmo_vm_facts *facts)
{
    struct lmo_migration *m = s->m;
    if (strcmp(m->vm.uuid, facts->uuid) != 0) {
        char text[LMO_TEXT_MAX];
        (void)snprintf(text, sizeof text, "%s described guest %s instead of %s", m->source, facts->uuid, m->vm.uuid);
        lmo_step_fail(s, LMO_E_INTERNAL, text);
        return;
    }
    m->vm = *facts;
    /* What is bound to the host only while it runs does not hold a definition that somebody wants to have elsewhere. */
    bool only_devices = facts->blocker_kinds[0] && (lmo_blockers_from_text(facts->blocker_kinds) &
                                                    ~(uint32_t)(LMO_BLOCKER_DEVICE | LMO_BLOCKER_HOST_BOUND)) == 0;
    bool accepted = facts->state == LMO_RUN_SHUT_OFF && m->policy.accept_host_devices && only_devices;
    if (facts->blocker[0] && !accepted) {
        lmo_step_fail(s, LMO_E_REFUSED, facts->blocker);
        return;
    }
    bool movable = facts->state == LMO_RUN_RUNNING || facts->state == LMO_RUN_PAUSED_BY_USER ||
                   facts->state == LMO_RUN_SHUT_OFF;
    if (!movable) {
        char text[LMO_TEXT_MAX];
        (void)snprintf(text, sizeof text, "guest is %s at %s; one that runs, is paused by its owner or is shut off can move",
                       lmo_run_state_name(facts->state), m->source);
        lmo_step_fail(s, LMO_E_REFUSED, text);
        return;
    }
    for (unsigned i = 0; i < facts->volume_count; i++) {
        if (!facts->volumes[i].worker[0]) {
            char text[LMO_TEXT_MAX];
            (void)snprintf(text, sizeof text, "volume %s: no worker serves the volume service %s",
                           facts->volumes[i].target, facts->volumes[i].service);
            lmo_step_fail(s, LMO_E_REFUSED, text);
            return;
        }
    }
    for (unsigned i = 0; i < facts->port_count; i++) {
        if (!facts->ports[i].worker[0]) {
            char text[LMO_TEXT_MAX];
            (void)snprintf(text, sizeof text, "port %s: no worker serves the fabric '%s'", facts->ports[i].id,
                           facts->ports[i].fabric);
            lmo_step_fail(s, LMO_E_REFUSED, text);
            return;
        }
    }
    lmo_step_forecast(s);
}

static struct lmo_clock_sample sampled(const struct lmo_step *s, const struct lmo_task *t)
{
    int64_t stamp_us = s->ev->worker_us < CLOCK_MAX_US ? s->ev->worker_us : CLOCK_MAX_US;
    return (struct lmo_clock_sample){.stamp_us = stamp_us, .from_ms = t->first_ms, .to_ms = s->ev->now_ms};
}

/* Refuses only what is certain: clocks that are too far apart wherever within the calls they were read. */
static void compare_clocks(struct lmo_step *s, const struct lmo_clock_sample *d)
{
    const struct lmo_migration *m = s->m;
    const struct lmo_clock_sample *o = &m->source_clock;
    if (o->stamp_us == 0 || d->stamp_us == 0) {
        return;
    }
    /* How far the destination's clock is ahead: least if it was read at the end of its call and the source's at the
     * beginning, most the other way round. A call may have ended late in the millisecond that it is stamped with. */
    int64_t ahead_min = d->stamp_us - o->stamp_us - (d->to_ms + 1 - o->from_ms) * 1000;
    int64_t ahead_max = d->stamp_us - o->stamp_us - (d->from_ms - o->to_ms - 1) * 1000;
    int64_t apart_us = ahead_min > 0 ? ahead_min : ahead_max < 0 ? -ahead_max : 0;
    if (apart_us <= LMO_CLOCK_SKEW_MAX_MS * INT64_C(1000)) {
        return;
    }
    char text[LMO_TEXT_MAX];
    (void)snprintf(text, sizeof text,
                   "the clock of %.63s is at least %lld ms %s the clock of %.63s; at most %d ms are allowed", m->destination,
                   (long long)(apart_us / 1000), ahead_min > 0 ? "ahead of" : "behind", m->source, LMO_CLOCK_SKEW_MAX_MS);
    lmo_step_fail(s, LMO_E_REFUSED, text);
}

/* Whether the word can ever be had is not known: libvirt may have nothing left to do that would settle it. */
static int64_t relay_again_ms(const struct lmo_migration *m, const struct lmo_task *t)
{
    unsigned shift = t->attempts > 0 ? t->attempts - 1U : 0;
    int64_t delay = (int64_t)RELAY_AGAIN_MS << (shift < 6 ? shift : 6);
    return m->phase == LMO_PHASE_ATTENTION || delay > REST_AGAIN_MS ? REST_AGAIN_MS : delay;
}

static void relayed_answer(struct lmo_step *s, struct lmo_task *t)
{
    struct lmo_migration *m = s->m;
    if (m->cutover.committed || m->destination_discarded) {
        return;
    }
    if (lmo_freeze_answer_from_name(s->ev->answer ? s->ev->answer : "") == LMO_FREEZE_UNKNOWN) {
        lmo_step_wait(s, s->ev->evidence && s->ev->evidence[0] ? s->ev->evidence : "the source's word is unknown");
        if (m->phase == LMO_PHASE_ROLLBACK) {
            return; /* undoing does not wait for a word that may never come; see ask_source_again() */
        }
        t->state = LMO_TASK_WAITING; /* asked again, as a new question */
        t->ordinal = m->next_ordinal++;
        t->epoch = 0;
        t->not_before_ms = s->ev->now_ms + relay_again_ms(m, t);
        return;
    }
    LMO_COPY(m->cutover.freeze_answer, s->ev->answer);
    LMO_COPY(m->cutover.evidence, s->ev->evidence);
    (void)lmo_plan_add(s, LMO_OP_RELAY_ANSWER, 0);
    lmo_step_note(s, s->ev->evidence, "source's word, through the coordinator: %s", s->ev->answer);
}

bool lmo_step_asked_by_destination(enum lmo_op_kind kind)
{
    return kind == LMO_OP_PERMIT || kind == LMO_OP_RELAY_FREEZE || kind == LMO_OP_RELAY_ANSWER;
}

/* Nothing will ever run there: what it had asked for is not for it any more. */
static void discarded(struct lmo_migration *m)
{
    m->destination_discarded = true;
    for (unsigned i = 0; i < m->task_count; i++) {
        if (lmo_step_asked_by_destination(m->tasks[i].kind) && m->tasks[i].state == LMO_TASK_WAITING) {
            m->tasks[i].state = LMO_TASK_DONE;
        }
    }
}

/* A call that had failed before was what the record waits for, unless another one still is. */
static void no_longer_waited_for(struct lmo_step *s, struct lmo_task *t)
{
    if (t->last_error[0] == '\0') {
        return;
    }
    t->last_error[0] = '\0';
    for (unsigned i = 0; i < s->m->task_count; i++) {
        if (s->m->tasks[i].state != LMO_TASK_DONE && s->m->tasks[i].last_error[0]) {
            return;
        }
    }
    lmo_step_waited(s);
}

void lmo_step_task_done(struct lmo_step *s, struct lmo_task *t)
{
    struct lmo_migration *m = s->m;
    t->state = LMO_TASK_DONE;
    lmo_resource_settle(m, t->kind, t->index);
    no_longer_waited_for(s, t);
    if (t->kind == LMO_OP_DESCRIBE && s->ev->facts) {
        s->m->source_clock = sampled(s, t);
        take_facts(s, s->ev->facts);
    } else if (t->kind == LMO_OP_PRECHECK_INCOMING) {
        struct lmo_clock_sample destination = sampled(s, t);
        compare_clocks(s, &destination);
    } else if (t->kind == LMO_OP_ATTACH && s->ev->export_name) {
        LMO_COPY(m->vm.volumes[t->index].export_destination, s->ev->export_name);
    } else if (t->kind == LMO_OP_DISCARD && m->phase == LMO_PHASE_ROLLBACK) {
        discarded(m);
    } else if (t->kind == LMO_OP_RELAY_FREEZE) {
        relayed_answer(s, t);
    } else if (t->kind == LMO_OP_DEFINE) {
        m->cutover.defined = true;
    } else if (t->kind == LMO_OP_OPEN_GATE) {
        lmo_step_limits_in_force(s);
    }
}

/* Exponential with full jitter above half of it, so that many that failed together do not come back together. */
static int64_t back_off_ms(const struct lmo_task *t, uint32_t random)
{
    unsigned shift = t->attempts > 10 ? 10 : t->attempts;
    int64_t full = (int64_t)RETRY_MIN_MS << shift;
    full = full < RETRY_MAX_MS ? full : RETRY_MAX_MS;
    return full / 2 + (int64_t)(random % (uint32_t)(full / 2 + 1));
}

static void retry(struct lmo_step *s, struct lmo_task *t, bool same_id)
{
    t->state = LMO_TASK_WAITING;
    t->not_before_ms = s->ev->now_ms + back_off_ms(t, s->ev->random);
    if (!same_id) {
        t->ordinal = s->m->next_ordinal++;
        t->epoch = 0;
    }
    char text[LMO_TEXT_MAX];
    (void)snprintf(text, sizeof text, "%s at %s, try %u: %.150s", lmo_op_info(t->kind)->text, lmo_task_host(s->m, t),
                   t->attempts, t->last_error);
    lmo_step_wait(s, text);
}

static void note_failure(struct lmo_step *s, const struct lmo_task *t)
{
    lmo_step_note(s, t->last_error, "%s at %s: %s (try %u)", lmo_op_info(t->kind)->text, lmo_task_host(s->m, t),
                  lmo_err_name(s->ev->code), t->attempts);
}

/* A call that takes something away has nothing to do where that is gone already: a port or volume that its owner has deleted
 * meanwhile, a migration that the worker has closed. */
static bool nothing_left(enum lmo_op_kind kind, int code)
{
    bool takes_away = kind == LMO_OP_SINGLE_SOURCE || kind == LMO_OP_SINGLE_DESTINATION ||
                      kind == LMO_OP_DETACH_SOURCE || kind == LMO_OP_DETACH_DESTINATION;
    return (takes_away && code == LMO_E_NOT_FOUND) || (lmo_op_is_close(kind) && code == LMO_E_GONE);
}

/* The destination's copy is loaded and waits for the source's word. If it could not get it by itself before, it may not now,
 * and it asked for the relay only once. */
static void ask_source_again(struct lmo_step *s)
{
    if (lmo_migration_sent(s->m, LMO_OP_RELAY_FREEZE)) {
        (void)lmo_plan_add_once(s, LMO_OP_RELAY_FREEZE);
    }
}

/* Roll-back: what is refused there is refused for a reason that decides. */
static void failed_in_rollback(struct lmo_step *s, struct lmo_task *t, enum lmo_err_class cls)
{
    int code = s->ev->code;
    if (t->draining) {
        if (cls == LMO_CLASS_UNKNOWN && t->attempts < LMO_TRIES_DRAIN) {
            retry(s, t, true);
        } else {
            t->state = LMO_TASK_DONE; /* done or not: what it may have made is undone below */
        }
        return;
    }
    if (t->kind == LMO_OP_DISCARD && code == LMO_E_CONFLICT) {
        lmo_step_enter(s, s->m->cutover.resumed ? LMO_PHASE_FINALIZE : LMO_PHASE_CUTOVER,
                       "the destination had committed: the abort lost the race");
        return;
    }
    /* The destination has moved on by itself and says so in its answer to `discard`. */
    bool moot = lmo_step_asked_by_destination(t->kind) &&
                (s->m->destination_discarded || (cls == LMO_CLASS_REFUSE && t->kind != LMO_OP_RELAY_FREEZE));
    if (nothing_left(t->kind, code)) {
        t->state = LMO_TASK_DONE;
        lmo_resource_settle(s->m, t->kind, t->index);
    } else if (moot) {
        t->state = LMO_TASK_DONE;
    } else if (t->kind == LMO_OP_REVIVE && cls == LMO_CLASS_REFUSE) {
        lmo_step_attention(s, code, t->last_error);
    } else if (code == LMO_E_STALE_EPOCH || code == LMO_E_GONE) {
        lmo_step_attention(s, code, t->last_error);
    } else {
        bool copy_waits = t->kind == LMO_OP_DISCARD && code == LMO_E_BUSY;
        retry(s, t, cls == LMO_CLASS_UNKNOWN);
        if (copy_waits) {
            ask_source_again(s);
        }
    }
}

static void failed_in_finalize(struct lmo_step *s, struct lmo_task *t, enum lmo_err_class cls)
{
    if (nothing_left(t->kind, s->ev->code)) {
        t->state = LMO_TASK_DONE;
        lmo_resource_settle(s->m, t->kind, t->index);
    } else if (s->ev->code == LMO_E_STALE_EPOCH) {
        lmo_step_attention(s, s->ev->code, t->last_error);
    } else {
        retry(s, t, cls == LMO_CLASS_UNKNOWN); /* the guest runs where it should: there is time */
    }
}

static void failed_forward(struct lmo_step *s, struct lmo_task *t, enum lmo_err_class cls);

/* Of a live guest the only calls are the relay's: they are repeated until the cutover is decided. In attention too: whoever
 * looks at it needs no luck with the order in which two hosts come back. Of a guest that is shut off, its release is the
 * last call that can still be undone. */
static void failed_in_cutover(struct lmo_step *s, struct lmo_task *t, enum lmo_err_class cls)
{
    if (t->kind == LMO_OP_RELEASE) {
        failed_forward(s, t, cls);
        return;
    }
    retry(s, t, cls == LMO_CLASS_UNKNOWN);
    if (s->m->phase == LMO_PHASE_ATTENTION) {
        t->not_before_ms = s->ev->now_ms + REST_AGAIN_MS;
    }
}

static void failed_forward(struct lmo_step *s, struct lmo_task *t, enum lmo_err_class cls)
{
    unsigned tries = t->kind == LMO_OP_RELEASE ? LMO_TRIES_RELEASE : lmo_phase_rule(s->m->phase)->tries;
    bool again = (cls == LMO_CLASS_RETRY || cls == LMO_CLASS_UNKNOWN) && t->attempts < tries;
    bool open = t->kind == LMO_OP_OPEN_GATE && (s->m->gate_open || s->m->downtime_iteration > 0);
    if (open && !again) {
        t->state = LMO_TASK_DONE; /* other limits for an open gate: those in force stay, and the job may just have ended */
        no_longer_waited_for(s, t);
        lmo_step_limit_failed(s);
        return;
    }
    if (again) {
        retry(s, t, cls == LMO_CLASS_UNKNOWN);
        return;
    }
    char text[LMO_TEXT_MAX];
    (void)snprintf(text, sizeof text, "%s at %s: %.180s", lmo_op_info(t->kind)->text, lmo_task_host(s->m, t),
                   t->last_error);
    t->state = LMO_TASK_DONE; /* answered: the roll-back has nothing of it to wait for, only, perhaps, to undo */
    lmo_step_fail(s, s->ev->code, text);
}

/* Not a failure: nothing was tried. But whoever looks should see what it waits for. */
void lmo_step_task_held(struct lmo_step *s, struct lmo_task *t)
{
    LMO_COPY(t->last_error, s->ev->text);
    lmo_step_wait(s, s->ev->text);
}

void lmo_step_task_failed(struct lmo_step *s, struct lmo_task *t)
{
    enum lmo_err_class cls = lmo_err_class_of(s->ev->code);
    LMO_COPY(t->last_error, s->ev->text);
    if (s->m->phase != LMO_PHASE_ATTENTION) {
        note_failure(s, t);
    }
    if (s->m->phase == LMO_PHASE_ROLLBACK) {
        failed_in_rollback(s, t, cls);
    } else if (s->m->phase == LMO_PHASE_FINALIZE) {
        failed_in_finalize(s, t, cls);
    } else if (s->m->phase == LMO_PHASE_CUTOVER || s->m->phase == LMO_PHASE_ATTENTION) {
        failed_in_cutover(s, t, cls);
    } else {
        failed_forward(s, t, cls);
    }
}
