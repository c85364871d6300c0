/* step.c - the one function that decides: record and event in, record and effects out.
 *
 * Invariants:
 *  C1  A phase is left only for a successor of the table (asserted).
 *  C2  The gate is ordered open only in a step whose record says switchover_ready, and only after the permit's
 *      receipt and every port's confirmation were recorded.
 *  C3  Before the destination has said that nothing is or will be there (destination_discarded), nothing is done that
 *      lets the source run again, and nothing of the destination's is taken away but its copy.
 *  C4  Nothing is undone while a call that could make it is still under way: such calls drain first.
 *  C5  A terminal record never changes again.
 *  C6  A record that rests in attention orders nothing but the questions that the destination had asked; what a worker
 *      reports moves it on as it would have moved the phase before, and so does a person's decision, if nothing that
 *      was seen speaks against it (resolve.h). */
#include "base/assert.h"
#include "core/internal.h"
#include "core/rules.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BOOT_CLOCK_TOLERANCE_MS 2000       /* between the stamps and the clock since boot, after a restart */

static const char *const task_states[] = {
    [LMO_TASK_WAITING] = "waiting", [LMO_TASK_SENT] = "sent", [LMO_TASK_DONE] = "done"};

const char *lmo_task_state_text(enum lmo_task_state s)
{
    return task_states[s];
}

enum lmo_task_state lmo_task_state_from_text(const char *text)
{
    for (int i = LMO_TASK_WAITING; i < LMO_TASK_DONE; i++) {
        if (strcmp(task_states[i], text) == 0) {
            return (enum lmo_task_state)i;
        }
    }
    return LMO_TASK_DONE;
}

void lmo_step_note(struct lmo_step *s, const char *why, const char *what_fmt, ...)
{
    s->out->durable = true;
    if (s->out->journal_count == LMO_EFFECT_JOURNAL_MAX) {
        return;
    }
    struct lmo_effect_journal *j = &s->out->journal[s->out->journal_count++];
    va_list ap;
    va_start(ap, what_fmt);
    (void)vsnprintf(j->what, sizeof j->what, what_fmt, ap);
    va_end(ap);
    (void)snprintf(j->why, sizeof j->why, "%s", why ? why : "");
}

void lmo_step_wait(struct lmo_step *s, const char *text)
{
    if (s->m->waiting_for[0] == '\0') {
        s->m->waiting_since_ms = s->ev->now_ms;
    }
    (void)snprintf(s->m->waiting_for, sizeof s->m->waiting_for, "%s", text);
    s->out->durable = true;
}

void lmo_step_waited(struct lmo_step *s)
{
    s->m->waiting_for[0] = '\0';
    s->m->waiting_since_ms = 0;
}

static int64_t deadline_of(const struct lmo_migration *m, enum lmo_phase p, int64_t now_ms)
{
    int64_t ms = lmo_phase_rule(p)->deadline_ms;
    if (ms == LMO_DEADLINE_BY_POLICY) {
        return lmo_convergence_deadline(&m->convergence);
    }
    return ms <= 0 ? 0 : now_ms + ms; /* back in the queue its own time-out holds, see precopy.c */
}

static void close_phase_time(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    struct lmo_phase_time *t = m->phase_time_count > 0 ? &m->phase_times[m->phase_time_count - 1] : NULL;
    if (t && t->phase == m->phase) { /* of a record that went back and forth too often, the last rounds are not kept */
        t->ended_ms = s->ev->now_ms;
        t->us = s->ev->now_boot_us >= m->phase_started_boot_us ? s->ev->now_boot_us - m->phase_started_boot_us : 0;
    }
}

/* C4: what may be making something is waited for before it is undone. C6: the destination asks once, its question lives
 * as long as nothing is decided. All else is forgotten. */
static void keep_tasks(struct lmo_migration *m, enum lmo_phase to)
{
    bool undecided = (to == LMO_PHASE_ATTENTION || (to == LMO_PHASE_CUTOVER && m->phase == LMO_PHASE_ATTENTION)) &&
                     !m->cutover.committed && !m->destination_discarded;
    unsigned kept = 0;
    for (unsigned i = 0; i < m->task_count; i++) {
        struct lmo_task *t = &m->tasks[i];
        bool drains = to == LMO_PHASE_ROLLBACK && t->state == LMO_TASK_SENT && lmo_op_info(t->kind)->mutates;
        bool asked = undecided && t->state != LMO_TASK_DONE && lmo_step_asked_by_destination(t->kind);
        if (drains || asked) {
            t->draining = drains;
            m->tasks[kept++] = *t;
        }
    }
    m->task_count = kept;
}

void lmo_step_enter(struct lmo_step *s, enum lmo_phase phase, const char *why)
{
    struct lmo_migration *m = s->m;
    lmo_assert(lmo_phase_may_follow(m->phase, phase)); /* C1 */
    close_phase_time(s);
    keep_tasks(m, phase);
    /* Where nothing is planned the first group is what is kept or asked for: a roll-back's has to drain. */
    m->group_open = phase == LMO_PHASE_ROLLBACK || phase == LMO_PHASE_ATTENTION ||
                    (phase == LMO_PHASE_CUTOVER && !lmo_migration_shut_off(m));
    m->phase = phase;
    m->phase_started_ms = s->ev->now_ms;
    m->phase_started_boot_us = s->ev->now_boot_us;
    if (phase == LMO_PHASE_PRECOPY) {
        lmo_step_precopy_begin(s);
    }
    m->deadline_ms = deadline_of(m, phase, s->ev->now_ms);
    m->group = 0;
    lmo_step_waited(s);
    bool terminal = lmo_phase_is(phase, LMO_PHASE_TERMINAL);
    if (phase == LMO_PHASE_QUEUED) { /* held: it goes on queueing, and the looks at it in between do not fill the list */
        m->phase_time_count = 1;
        m->phase_times[0].ended_ms = 0;
        m->phase_times[0].us = 0;
        m->phase_started_ms = m->phase_times[0].started_ms;
        m->phase_started_boot_us = INT64_MAX;
    } else if (!terminal && m->phase_time_count < LMO_PHASE_TIMES_MAX) {
        m->phase_times[m->phase_time_count++] =
            (struct lmo_phase_time){.phase = phase, .started_ms = s->ev->now_ms};
    }
    if (phase == LMO_PHASE_COMPLETED) {
        m->percent = 100;
        m->reason_code = 0; /* of an abort that lost the race: it is in the journal, and nothing went wrong */
        m->reason[0] = '\0';
        m->failed_in = LMO_PHASE_QUEUED;
    }
    s->out->ended = terminal;
    unsigned last = s->out->entered_count < LMO_EFFECT_ENTERED_MAX ? s->out->entered_count++ : LMO_EFFECT_ENTERED_MAX - 1;
    s->out->entered[last] = phase;
    lmo_step_note(s, why, "%s", lmo_phase_text(phase));
}

static void set_reason(struct lmo_step *s, int code, const char *text)
{
    if (s->m->reason_code == 0) { /* the first cause is the one to show */
        s->m->reason_code = code;
        s->m->failed_in = s->m->phase;
        (void)snprintf(s->m->reason, sizeof s->m->reason, "%s", text);
    }
}

void lmo_step_fail(struct lmo_step *s, int code, const char *text)
{
    if (s->m->phase == LMO_PHASE_ATTENTION) {
        s->m->reason_code = 0; /* what it waited for is known now */
    }
    set_reason(s, code, text);
    lmo_step_enter(s, s->m->phase == LMO_PHASE_QUEUED ? LMO_PHASE_ABORTED : LMO_PHASE_ROLLBACK, text);
}

void lmo_step_attention(struct lmo_step *s, int code, const char *text)
{
    struct lmo_migration *m = s->m;
    enum lmo_phase failed_in = m->failed_in;
    bool rests = m->phase == LMO_PHASE_ATTENTION;
    m->reason_code = 0; /* what a person must look at now comes before what began it; that is in the journal */
    set_reason(s, code, text);
    if (rests) {
        m->failed_in = failed_in; /* what a retry would go back to */
        lmo_step_note(s, text, "still needs a person");
        return;
    }
    lmo_step_enter(s, LMO_PHASE_ATTENTION, text);
}

static void on_timer(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    lmo_step_notice_due(s);
    if (m->deadline_ms == 0 || s->ev->now_ms < m->deadline_ms || lmo_phase_is(m->phase, LMO_PHASE_TERMINAL)) {
        return;
    }
    char text[LMO_TEXT_MAX];
    const char *waited = m->waiting_for[0]                             ? m->waiting_for
                         : m->phase == LMO_PHASE_QUEUED && s->ev->text ? s->ev->text
                                                                       : "a worker's answer";
    (void)snprintf(text, sizeof text, "%s did not end within its deadline; waiting for %.180s", lmo_phase_text(m->phase),
                   waited);
    switch (lmo_phase_rule(m->phase)->at_deadline) {
    case LMO_AT_DEADLINE_ROLLBACK: lmo_step_fail(s, LMO_E_TIMEOUT, text); break;
    case LMO_AT_DEADLINE_CONVERGENCE: lmo_step_precopy_overdue(s); break;
    case LMO_AT_DEADLINE_ATTENTION: lmo_step_attention(s, LMO_E_TIMEOUT, text); break;
    case LMO_AT_DEADLINE_NOTHING: lmo_unreachable("a deadline in a phase that has none");
    }
}

static int on_cancel(struct lmo_step *s, struct lmo_err *err)
{
    struct lmo_migration *m = s->m;
    if (m->phase == LMO_PHASE_ROLLBACK) {
        return 0; /* is being undone already */
    }
    if (m->phase == LMO_PHASE_ATTENTION) {
        return lmo_fail(err, LMO_E_CONFLICT, "migration %s waits for a person's decision: lmo migration resolve %s ...", m->id,
                        m->id);
    }
    if (!lmo_phase_is(m->phase, LMO_PHASE_CANCELLABLE)) {
        return lmo_fail(err, LMO_E_CONFLICT, "migration %s is in %s: %s", m->id, lmo_phase_text(m->phase),
                        lmo_phase_is(m->phase, LMO_PHASE_TERMINAL) ? "it has ended"
                                                                   : "past the point of no return, it only goes forward");
    }
    m->cancel_requested = true;
    lmo_step_fail(s, LMO_E_CANCELLED, s->ev->text && s->ev->text[0] ? s->ev->text : "cancelled by request");
    return 0;
}

/* The calls that may be under way are exactly the tasks in SENT: ask again, same ids. */
static void on_recovered(struct lmo_step *s)
{
    unsigned asked = 0;
    /* Was the machine restarted too? Then its clock since boot says nothing of this phase: the stamps must do. */
    int64_t by_stamps_ms = s->ev->now_ms - s->m->phase_started_ms;
    int64_t by_boot_ms = ((int64_t)s->ev->now_boot_us - (int64_t)s->m->phase_started_boot_us) / 1000;
    if (by_boot_ms < 0 || by_boot_ms - by_stamps_ms > BOOT_CLOCK_TOLERANCE_MS ||
        by_stamps_ms - by_boot_ms > BOOT_CLOCK_TOLERANCE_MS) {
        s->m->phase_started_boot_us = INT64_MAX;
    }
    for (unsigned i = 0; i < s->m->task_count; i++) {
        if (s->m->tasks[i].state == LMO_TASK_SENT) {
            s->out->send |= UINT64_C(1) << i;
            asked++;
        }
    }
    lmo_step_note(s, "", "coordinator started; asking again for %u call(s) that may be under way", asked);
}

static struct lmo_task *find_task(struct lmo_migration *m, uint32_t ordinal)
{
    for (unsigned i = 0; i < m->task_count; i++) {
        if (m->tasks[i].ordinal == ordinal && m->tasks[i].state == LMO_TASK_SENT) {
            return &m->tasks[i];
        }
    }
    return NULL;
}

int lmo_core_step(const struct lmo_migration *current, const struct lmo_event *event, struct lmo_migration *next,
                  struct lmo_effects *effects, struct lmo_err *err)
{
    lmo_assert(next != current);
    if (lmo_phase_is(current->phase, LMO_PHASE_TERMINAL) &&
        (event->kind == LMO_EV_CANCEL || event->kind == LMO_EV_RESOLVE || event->kind == LMO_EV_ACKNOWLEDGED)) {
        return lmo_fail(err, LMO_E_CONFLICT, "migration %s has ended (%s)", current->id, lmo_phase_text(current->phase));
    }
    lmo_migration_copy(next, current);
    memset(effects, 0, offsetof(struct lmo_effects, journal)); /* its lines count only as far as journal_count */
    struct lmo_step s = {.m = next, .out = effects, .ev = event};
    if (lmo_phase_is(current->phase, LMO_PHASE_TERMINAL)) {
        return 0; /* C5 */
    }
    int r = 0;
    struct lmo_task *t = NULL;
    switch (event->kind) {
    case LMO_EV_ADMITTED:
        if (next->phase == LMO_PHASE_QUEUED && !lmo_step_held(&s)) {
            lmo_step_admitted(&s);
        }
        break;
    case LMO_EV_SHARE: lmo_step_share(&s); break;
    case LMO_EV_TASK_DONE:
    case LMO_EV_TASK_FAILED:
        t = find_task(next, event->ordinal);
        if (t) {
            effects->durable = true;
            if (event->kind == LMO_EV_TASK_DONE) {
                lmo_step_task_done(&s, t);
            } else {
                lmo_step_task_failed(&s, t);
            }
        }
        break;
    case LMO_EV_WORKER: lmo_step_worker_event(&s, event->worker); break;
    case LMO_EV_CANCEL: r = on_cancel(&s, err); break;
    case LMO_EV_TIMER: on_timer(&s); break;
    case LMO_EV_RECOVERED: on_recovered(&s); break;
    case LMO_EV_HELD:
        t = find_task(next, event->ordinal);
        if (t) {
            lmo_step_task_held(&s, t);
        }
        break;
    case LMO_EV_ACKNOWLEDGED: r = lmo_step_acknowledged(&s, err); break;
    case LMO_EV_RESOLVE: r = lmo_step_resolve(&s, err); break;
    case LMO_EV_COUNT: lmo_unreachable("no such event");
    }
    if (r < 0) {
        return r;
    }
    lmo_plan_advance(&s);
    lmo_plan_dispatch(&s);
    next->version++;
    next->updated_ms = event->now_ms;
    const char *broken = lmo_migration_broken(next);
    if (broken) {
        return lmo_fail(err, LMO_E_INTERNAL, "%s", broken);
    }
    return 0;
}

const char *lmo_migration_broken(const struct lmo_migration *m)
{
    if (m->phase >= LMO_PHASE_COUNT) {
        return "phase is not in the table";
    }
    if (m->task_count > LMO_TASKS_MAX || m->vm.volume_count > LMO_VOLUMES_MAX || m->vm.port_count > LMO_PORTS_MAX) {
        return "a count is above its limit";
    }
    if (m->id[0] == '\0' || m->source[0] == '\0' || m->destination[0] == '\0' || m->vm.uuid[0] == '\0') {
        return "id, source, destination or guest is empty";
    }
    if (strcmp(m->source, m->destination) == 0) {
        return "source and destination are the same host";
    }
    if (m->epoch == 0) {
        return "epoch is 0";
    }
    if (m->policy.max_downtime_ms > 0 &&
        m->downtime_ms > (m->convergence.stage == LMO_CONV_FORCED && m->policy.force_max_pause_ms > m->policy.max_downtime_ms
                              ? m->policy.force_max_pause_ms
                              : m->policy.max_downtime_ms)) {
        return "V1: the downtime limit is above what the policy allows";
    }
    if (lmo_migration_sent(m, LMO_OP_OPEN_GATE) && !m->switchover_ready) {
        return "C2: the gate was ordered open before switch-over was ready";
    }
    if (m->notice.state == LMO_NOTICE_WAITING && m->phase != LMO_PHASE_QUEUED && !lmo_phase_is(m->phase, LMO_PHASE_TERMINAL)) {
        return "left the queue while the guest's owner is waited for";
    }
    if (m->share_held_bytes_per_s < m->share_bytes_per_s) {
        return "a share is more than what may be in force";
    }
    if (m->phase == LMO_PHASE_COMPLETED && !m->cutover.resumed && !m->cutover.defined) {
        return "completed without the destination's word that the guest is there";
    }
    if (m->phase == LMO_PHASE_ABORTED && m->cutover.committed && !m->destination_discarded) {
        return "aborted although the destination had committed";
    }
    bool unhappy = m->phase == LMO_PHASE_ATTENTION || (lmo_phase_is(m->phase, LMO_PHASE_TERMINAL) && m->phase != LMO_PHASE_COMPLETED);
    if (unhappy && m->reason_code == 0) {
        return "ended without success, or rests, without a reason";
    }
    const char *resources = lmo_resources_broken(m);
    if (resources) {
        return resources;
    }
    if ((m->phase == LMO_PHASE_ROLLBACK || m->phase == LMO_PHASE_ABORTED) && lmo_migration_shut_off(m) &&
        lmo_migration_sent(m, LMO_OP_FENCE_SOURCE)) {
        return "rolled back although the source of a guest that is shut off may be fenced";
    }
    for (unsigned i = 0; i < m->task_count; i++) {
        if (m->tasks[i].kind == LMO_OP_REVIVE && !m->destination_discarded) {
            return "C3: the source is to run again before the destination was discarded";
        }
        if (m->tasks[i].kind == LMO_OP_NONE || m->tasks[i].kind >= LMO_OP_COUNT) {
            return "a task of no kind";
        }
    }
    return NULL;
}
