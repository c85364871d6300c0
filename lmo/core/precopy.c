/* precopy.c - convergence control in the record: what convergence.[ch] decides becomes deadlines, orders, reasons.
 *
 * An order that is not confirmed is ordered again with the next sample: a limit counts as in force only when its call
 * has been answered. */
#include "base/assert.h"
#include "core/internal.h"

#include <stdio.h>

#define HOLD_AGAIN_MS 30000        /* a guest that would not converge is looked at again after so long ... */
#define HOLD_MAX_MS   (60 * 60000) /* ... and no longer than this in all */

static bool gate_open(struct lmo_migration *m)
{
    return m->switchover_ready && !lmo_plan_pending(m, LMO_OP_OPEN_GATE);
}

static struct lmo_conv_facts facts_of(struct lmo_step *s, const struct lmo_progress *before)
{
    struct lmo_migration *m = s->m;
    return (struct lmo_conv_facts){.policy = &m->policy,
                                   .downtime_ms = m->downtime_ms,
                                   .ordered_in_pass = m->downtime_iteration,
                                   .open = gate_open(m),
                                   .bandwidth_bytes_per_s = lmo_migration_bandwidth(m),
                                   .memory_bytes = m->vm.memory_bytes,
                                   .before = before,
                                   .now = &m->progress,
                                   .now_ms = s->ev->now_ms};
}

/* ------------------------------------------------------------------ before the start */

/* Back to the queue, to be looked at again: what it waits for is written where a queued migration's reason is. */
static void hold(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    int64_t since = m->held_since_ms ? m->held_since_ms : s->ev->now_ms;
    if (s->ev->now_ms - since >= HOLD_MAX_MS) {
        lmo_step_fail(s, LMO_E_NOT_CONVERGING, m->convergence.forecast.text);
        return;
    }
    lmo_step_enter(s, LMO_PHASE_QUEUED, m->convergence.forecast.text);
    m->held_since_ms = since;
    m->held_until_ms = s->ev->now_ms + HOLD_AGAIN_MS;
    lmo_step_wait(s, m->convergence.forecast.text);
    m->waiting_since_ms = since;
}

void lmo_step_forecast(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    struct lmo_forecast *f = &m->convergence.forecast;
    if (m->policy.prediction == LMO_PREDICTION_OFF) {
        return;
    }
    struct lmo_forecast_facts facts = {.memory_bytes = m->vm.memory_bytes,
                                       .dirty_bytes_per_s = m->vm.dirty_bytes_per_s,
                                       .age_ms = m->vm.dirty_age_ms,
                                       .bandwidth_bytes_per_s = lmo_migration_bandwidth(m)};
    if (m->vm.state == LMO_RUN_PAUSED_BY_USER) { /* its vCPUs stand, and stay so */
        facts.dirty_bytes_per_s = 0;
        facts.age_ms = 1;
    }
    lmo_convergence_forecast(&m->policy, &facts, f);
    lmo_step_note(s, f->text, "prediction: %s", lmo_outlook_text((int)f->outlook));
    if (!lmo_forecast_fails(f) || m->policy.prediction == LMO_PREDICTION_WARN) {
        m->held_since_ms = m->held_until_ms = 0;
    } else if (m->policy.prediction == LMO_PREDICTION_REFUSE) {
        lmo_step_fail(s, LMO_E_NOT_CONVERGING, f->text);
    } else {
        hold(s);
    }
}

bool lmo_step_held(const struct lmo_step *s)
{
    return lmo_migration_awaits_notice(s->m) || (s->m->phase == LMO_PHASE_QUEUED && s->ev->now_ms < s->m->held_until_ms);
}

/* ------------------------------------------------------------------ under way */

void lmo_step_precopy_begin(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    char how[80];
    lmo_convergence_begin(&m->convergence, &m->policy, m->vm.memory_bytes, lmo_migration_bandwidth(m), s->ev->now_ms);
    const struct lmo_budget *b = &m->convergence.memory;
    lmo_budget_text(b, LMO_CONV_BASE_MS, LMO_CONV_FACTOR, how, sizeof how);
    lmo_step_note(s, how, "time-out %llu ms, then %s", (unsigned long long)b->ms,
                  lmo_on_timeout_text((int)m->policy.on_timeout));
}

void lmo_step_bandwidth_changed(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    if (m->phase == LMO_PHASE_PRECOPY) {
        lmo_convergence_bandwidth(&m->convergence, &m->policy, m->vm.memory_bytes, lmo_migration_bandwidth(m));
        m->deadline_ms = lmo_convergence_deadline(&m->convergence);
    }
}

static void order_limit(struct lmo_step *s, uint32_t downtime_ms)
{
    struct lmo_migration *m = s->m;
    lmo_assert(downtime_ms >= m->downtime_ms); /* V1 */
    m->downtime_ms = downtime_ms;
    m->downtime_iteration = m->progress.iteration ? m->progress.iteration : 1;
    m->convergence.reorder = lmo_plan_pending(m, LMO_OP_OPEN_GATE) != NULL; /* that one may carry the limit before */
    if (!m->convergence.reorder) {
        (void)lmo_plan_add(s, LMO_OP_OPEN_GATE, 0);
    }
}

static void count_percent(struct lmo_migration *m)
{
    const struct lmo_progress *p = &m->progress;
    if (p->total_bytes > 0 && p->remaining_bytes <= p->total_bytes) {
        uint64_t done = 100 * (p->total_bytes - p->remaining_bytes) / p->total_bytes;
        uint8_t percent = (uint8_t)(done > 99 ? 99 : done);
        m->percent = percent > m->percent ? percent : m->percent;
    }
}

/* The pass in which the limit in force was ordered is only known once a sample says which one is under way. */
static void know_the_pass(struct lmo_migration *m)
{
    if (gate_open(m) && (m->downtime_iteration == 0 || m->progress.iteration < m->downtime_iteration)) {
        m->downtime_iteration = m->progress.iteration;
    }
}

void lmo_step_progress(struct lmo_step *s, const struct lmo_progress *sample)
{
    struct lmo_migration *m = s->m;
    if (m->phase != LMO_PHASE_PRECOPY) {
        return;
    }
    struct lmo_progress before = m->progress;
    m->progress = *sample;
    count_percent(m);
    know_the_pass(m);
    struct lmo_conv_facts facts = facts_of(s, &before);
    struct lmo_conv_order order;
    enum lmo_conv_stage stage = m->convergence.stage;
    lmo_convergence_sample(&m->convergence, &facts, &order);
    if (order.stalled_now) {
        lmo_step_note(
            s, "",
            "stalled: each of the last %d passes left %llu MiB or more, transfers %llu MiB/s, dirties %llu MiB/s",
            LMO_CONV_WINDOW, (unsigned long long)(lmo_convergence_least_rest(&m->convergence) >> 20),
            (unsigned long long)(sample->rate_bytes_per_s >> 20),
            (unsigned long long)(sample->dirty_bytes_per_s >> 20));
    }
    if (m->convergence.stage != stage) {
        lmo_step_note(s, "", "copying %s", lmo_conv_stage_text((int)m->convergence.stage));
    }
    if (order.act == LMO_CONV_RAISE) {
        order_limit(s, order.downtime_ms);
        lmo_step_note(s, order.text, "downtime limit raised to %u ms in pass %u", m->downtime_ms, sample->iteration);
    } else if (m->convergence.reorder && facts.open) {
        order_limit(s, m->downtime_ms);
        s->out->durable = true;
    }
    m->deadline_ms = lmo_convergence_deadline(&m->convergence);
}

/* A later order of a limit failed: the job may just have ended; if it has not, the next sample orders it again. */
void lmo_step_limit_failed(struct lmo_step *s)
{
    s->m->convergence.reorder = true;
}

void lmo_step_precopy_overdue(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    char text[LMO_TEXT_MAX];
    if (!m->switchover_ready) {
        (void)snprintf(text, sizeof text, "switch-over was not ready within %llu ms: waiting for %.150s",
                       (unsigned long long)m->convergence.memory.ms,
                       m->waiting_for[0] ? m->waiting_for : "a worker's confirmation");
        lmo_step_fail(s, LMO_E_NOT_CONVERGING, text);
        return;
    }
    struct lmo_conv_facts facts = facts_of(s, &m->progress);
    struct lmo_conv_order order;
    lmo_convergence_time_out(&m->convergence, &facts, &order);
    if (order.act == LMO_CONV_ABORT) {
        lmo_step_fail(s, LMO_E_NOT_CONVERGING, order.text);
    } else if (order.act == LMO_CONV_FORCE) {
        order_limit(s, order.downtime_ms);
        lmo_step_note(s, order.text, "forced: a pause of up to %u ms is allowed for %llu ms", m->downtime_ms,
                      (unsigned long long)m->convergence.grace.ms);
    }
    m->deadline_ms = m->phase == LMO_PHASE_PRECOPY ? lmo_convergence_deadline(&m->convergence) : m->deadline_ms;
}
