/* bandwidth.c - one migration's part of admission: starting with a share, and changing it while it runs.
 *
 * A share is ordered as part of OPEN_GATE, the one order that sets a job's limits. The values of an order never change while
 * it is under way (retries under the same id included), so that its answer says which limits are in force:
 *
 *   share_bytes_per_s       what was ordered last
 *   share_held_bytes_per_s  the most that may be in force: the greater of that and of what was in force before, until the
 *                           order is confirmed. Admission counts this against the links. */
#include "core/internal.h"

#include "base/str.h"

uint64_t lmo_migration_bandwidth(const struct lmo_migration *m)
{
    uint64_t policy = m->policy.bandwidth_bytes_per_s, share = m->share_bytes_per_s;
    return share == 0 ? policy : policy == 0 || share < policy ? share : policy;
}

bool lmo_migration_is_running(const struct lmo_migration *m)
{
    return m->phase != LMO_PHASE_QUEUED && !lmo_phase_is(m->phase, LMO_PHASE_TERMINAL);
}

bool lmo_migration_streams(const struct lmo_migration *m)
{
    /* Once it was loaded, the destination holds all of the memory, whatever becomes of it. A job that is being undone
     * before that may still be sending. */
    bool there = m->phase == LMO_PHASE_CUTOVER || m->phase == LMO_PHASE_FINALIZE || m->cutover.loaded_us != 0;
    return lmo_migration_is_running(m) && !there && !m->job_ended && !lmo_migration_shut_off(m);
}

bool lmo_migration_adjustable(const struct lmo_migration *m)
{
    if (!lmo_migration_streams(m) || m->phase == LMO_PHASE_ROLLBACK) {
        return false;
    }
    for (unsigned i = 0; i < m->task_count; i++) {
        const struct lmo_task *t = &m->tasks[i];
        if (t->kind == LMO_OP_OPEN_GATE && t->state != LMO_TASK_DONE &&
            (t->attempts > 0 || t->state == LMO_TASK_SENT)) {
            return false;
        }
    }
    return !lmo_migration_sent(m, LMO_OP_OPEN_GATE) || m->phase == LMO_PHASE_PRECOPY;
}

void lmo_step_admitted(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    if (s->ev->code < 0) {
        lmo_step_fail(s, s->ev->code, s->ev->text ? s->ev->text : "cannot start");
        return;
    }
    m->share_bytes_per_s = m->share_held_bytes_per_s = s->ev->share_bytes_per_s;
    if (s->ev->peer_uri) {
        LMO_COPY(m->peer_uri, s->ev->peer_uri);
    }
    if (s->ev->migration_uri) {
        LMO_COPY(m->migration_uri, s->ev->migration_uri);
    }
    lmo_step_enter(s, LMO_PHASE_PRECHECK, "admitted");
}

void lmo_step_share(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    uint64_t share = s->ev->share_bytes_per_s;
    if (!lmo_migration_adjustable(m) || share == 0) {
        return; /* it moved on meanwhile */
    }
    bool ordered = lmo_migration_sent(m, LMO_OP_OPEN_GATE);
    m->share_bytes_per_s = share;
    s->out->durable = true;
    if (!ordered) { /* nothing flows yet: the gate is opened with it */
        m->share_held_bytes_per_s = share;
        lmo_step_bandwidth_changed(s);
        return;
    }
    m->share_held_bytes_per_s = share > m->share_held_bytes_per_s ? share : m->share_held_bytes_per_s;
    (void)lmo_plan_add_once(s, LMO_OP_OPEN_GATE);
    lmo_step_bandwidth_changed(s);
    lmo_step_note(s, "the links are divided anew", "share: %llu KiB/s", (unsigned long long)(share >> 10));
}

void lmo_step_limits_in_force(struct lmo_step *s)
{
    s->m->gate_open = true;
    s->m->share_held_bytes_per_s = s->m->share_bytes_per_s;
}
