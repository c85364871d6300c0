/* plan.c - which calls each phase consists of, in which order.
 *
 * One table. A phase's tasks come in groups; a group is opened when every task of the one before it is done, so the
 * number of volumes and ports (known only after `describe`) is looked at as late as possible. A row of the roll-back
 * names the resource that it undoes: it is planned only for what this migration may have made and has not undone (R1),
 * because a call that was sent may have had its effect whatever came back. */
#include "base/assert.h"
#include "core/internal.h"

#include <stdio.h>
#include <string.h>

enum scope { ONE, VOLUMES, PORTS, VOLUME_WORKERS, FABRICS };
enum guest { ANY, LIVE, SHUT }; /* whose move has this row: of any guest, of one that runs or is paused, of one that is shut off */

static const struct plan_row {
    enum lmo_phase phase;
    uint8_t group;
    enum lmo_op_kind kind;
    enum scope scope;
    enum lmo_resource_kind undoes; /* NONE: always planned */
    enum guest guest;
} plan[] = {
    {LMO_PHASE_PRECHECK, 0, LMO_OP_DESCRIBE, ONE, LMO_RES_NONE, ANY},
    {LMO_PHASE_PRECHECK, 1, LMO_OP_PRECHECK_INCOMING, ONE, LMO_RES_NONE, ANY},
    {LMO_PHASE_PRECHECK, 1, LMO_OP_CHECK_REACH, ONE, LMO_RES_NONE, LIVE},
    {LMO_PHASE_PRECHECK, 1, LMO_OP_CHECK_VOLUME, VOLUMES, LMO_RES_NONE, ANY},
    {LMO_PHASE_PRECHECK, 1, LMO_OP_CHECK_PORT, PORTS, LMO_RES_NONE, ANY},

    {LMO_PHASE_DESTINATION_CREATE, 0, LMO_OP_PREPARE, ONE, LMO_RES_NONE, LIVE},
    {LMO_PHASE_VOLUME_ATTACH, 0, LMO_OP_ATTACH, VOLUMES, LMO_RES_NONE, ANY},
    {LMO_PHASE_NETWORK_PRELOAD, 0, LMO_OP_PRELOAD, FABRICS, LMO_RES_NONE, LIVE},
    {LMO_PHASE_DUAL_INGRESS, 0, LMO_OP_DUAL, PORTS, LMO_RES_NONE, LIVE},

    /* The job starts behind a shut gate; the gate is ordered open only when the permit is journaled at the
     * destination (which has then reached the source and every volume service) and the network is confirmed. */
    {LMO_PHASE_PRECOPY, 0, LMO_OP_PERMIT, ONE, LMO_RES_NONE, LIVE},
    {LMO_PHASE_PRECOPY, 0, LMO_OP_JOB_START, ONE, LMO_RES_NONE, LIVE},
    {LMO_PHASE_PRECOPY, 1, LMO_OP_AWAIT_BOUND, PORTS, LMO_RES_NONE, LIVE},
    {LMO_PHASE_PRECOPY, 1, LMO_OP_AWAIT_INSTALLED, PORTS, LMO_RES_NONE, LIVE},
    {LMO_PHASE_PRECOPY, 2, LMO_OP_OPEN_GATE, ONE, LMO_RES_NONE, LIVE},

    /* Shut off: from the first call on nobody can start it at the source; from the second on nothing of the source's
     * can write, and there is no way back; then it may be started at the destination. */
    {LMO_PHASE_CUTOVER, 0, LMO_OP_RELEASE, ONE, LMO_RES_NONE, SHUT},
    {LMO_PHASE_CUTOVER, 1, LMO_OP_FENCE_SOURCE, VOLUMES, LMO_RES_NONE, SHUT},
    {LMO_PHASE_CUTOVER, 2, LMO_OP_DEFINE, ONE, LMO_RES_NONE, SHUT},

    /* The source's process must be proven dead before what fenced it is cleared away. */
    {LMO_PHASE_FINALIZE, 0, LMO_OP_REMOVE_SOURCE, ONE, LMO_RES_NONE, LIVE},
    {LMO_PHASE_FINALIZE, 0, LMO_OP_SINGLE_DESTINATION, PORTS, LMO_RES_NONE, LIVE},
    {LMO_PHASE_FINALIZE, 0, LMO_OP_SETTLE, ONE, LMO_RES_NONE, LIVE},
    {LMO_PHASE_FINALIZE, 0, LMO_OP_ASSIGN, PORTS, LMO_RES_NONE, SHUT},
    {LMO_PHASE_FINALIZE, 1, LMO_OP_DETACH_SOURCE, VOLUMES, LMO_RES_NONE, ANY},
    {LMO_PHASE_FINALIZE, 2, LMO_OP_CLOSE_SOURCE, ONE, LMO_RES_NONE, ANY},
    {LMO_PHASE_FINALIZE, 2, LMO_OP_CLOSE_DESTINATION, ONE, LMO_RES_NONE, ANY},
    {LMO_PHASE_FINALIZE, 2, LMO_OP_CLOSE_VOLUME, VOLUME_WORKERS, LMO_RES_NONE, ANY},
    {LMO_PHASE_FINALIZE, 2, LMO_OP_CLOSE_FABRIC, FABRICS, LMO_RES_NONE, ANY},

    /* Group 0 drains what was under way. The job's end, then the destination's word that nothing will ever run
     * there, come before anything that helps the source. */
    {LMO_PHASE_ROLLBACK, 1, LMO_OP_JOB_ABORT, ONE, LMO_RES_JOB, ANY},
    {LMO_PHASE_ROLLBACK, 2, LMO_OP_DISCARD, ONE, LMO_RES_PREPARATION, ANY},
    {LMO_PHASE_ROLLBACK, 3, LMO_OP_REVIVE, ONE, LMO_RES_JOB, ANY},
    {LMO_PHASE_ROLLBACK, 3, LMO_OP_RESTORE, ONE, LMO_RES_RELEASED, ANY},
    {LMO_PHASE_ROLLBACK, 3, LMO_OP_SINGLE_SOURCE, PORTS, LMO_RES_DELIVERY, ANY},
    {LMO_PHASE_ROLLBACK, 3, LMO_OP_DETACH_DESTINATION, VOLUMES, LMO_RES_EXPORT, ANY},
    {LMO_PHASE_ROLLBACK, 4, LMO_OP_CLOSE_SOURCE, ONE, LMO_RES_SOURCE_RECORD, ANY},
    {LMO_PHASE_ROLLBACK, 4, LMO_OP_CLOSE_SOURCE, ONE, LMO_RES_RELEASE_RECORD, ANY},
    {LMO_PHASE_ROLLBACK, 4, LMO_OP_CLOSE_DESTINATION, ONE, LMO_RES_DESTINATION_RECORD, ANY},
    {LMO_PHASE_ROLLBACK, 4, LMO_OP_CLOSE_VOLUME, VOLUME_WORKERS, LMO_RES_VOLUME_RECORD, ANY},
    {LMO_PHASE_ROLLBACK, 4, LMO_OP_CLOSE_FABRIC, FABRICS, LMO_RES_FABRIC_RECORD, ANY},
};
#define PLAN_ROWS (sizeof plan / sizeof plan[0])

bool lmo_migration_shut_off(const struct lmo_migration *m)
{
    return m->vm.state == LMO_RUN_SHUT_OFF;
}

bool lmo_migration_sent(const struct lmo_migration *m, enum lmo_op_kind kind)
{
    return (m->dispatched >> kind) & 1U;
}

const char *lmo_task_host(const struct lmo_migration *m, const struct lmo_task *t)
{
    switch (lmo_op_info(t->kind)->role) {
    case LMO_OP_ROLE_SOURCE: return m->source;
    case LMO_OP_ROLE_DESTINATION: return m->destination;
    case LMO_OP_ROLE_VOLUME: return m->vm.volumes[t->index].worker;
    case LMO_OP_ROLE_FABRIC: return t->index < LMO_PORTS_MAX ? m->vm.ports[t->index].worker : "";
    case LMO_OP_ROLE_NONE: break;
    }
    lmo_unreachable("a task of no role");
}

void lmo_task_op_id(const struct lmo_migration *m, const struct lmo_task *t, char out[LMO_OP_ID_MAX])
{
    (void)snprintf(out, LMO_OP_ID_MAX, "%s.%llu.%u-%s", m->id, (unsigned long long)t->epoch, t->ordinal,
                   lmo_op_info(t->kind)->text);
}

/* A group that lasts (the cutover's) gets new tasks as often as a worker asks: what is done makes room for them. */
static void drop_done(struct lmo_migration *m)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < m->task_count; i++) {
        if (m->tasks[i].state != LMO_TASK_DONE) {
            m->tasks[kept++] = m->tasks[i];
        }
    }
    m->task_count = kept;
}

struct lmo_task *lmo_plan_add(struct lmo_step *s, enum lmo_op_kind kind, unsigned index)
{
    struct lmo_migration *m = s->m;
    if (m->task_count == LMO_TASKS_MAX) {
        drop_done(m);
    }
    lmo_assert(m->task_count < LMO_TASKS_MAX); /* the largest group of 16 volumes and 8 ports fits twice */
    struct lmo_task *t = &m->tasks[m->task_count++];
    *t = (struct lmo_task){.kind = kind, .group = m->group, .index = (uint8_t)index, .ordinal = m->next_ordinal++};
    return t;
}

struct lmo_task *lmo_plan_pending(struct lmo_migration *m, enum lmo_op_kind kind)
{
    for (unsigned i = 0; i < m->task_count; i++) {
        if (m->tasks[i].kind == kind && m->tasks[i].state != LMO_TASK_DONE) {
            return &m->tasks[i];
        }
    }
    return NULL;
}

bool lmo_plan_add_once(struct lmo_step *s, enum lmo_op_kind kind)
{
    if (lmo_plan_pending(s->m, kind)) {
        return false;
    }
    (void)lmo_plan_add(s, kind, 0);
    return true;
}

/* Does a lower volume (or port) have the same worker? Then one call is enough for both. */
static bool worker_seen(const struct lmo_migration *m, enum scope scope, unsigned index)
{
    for (unsigned i = 0; i < index; i++) {
        const char *a = scope == VOLUME_WORKERS ? m->vm.volumes[i].worker : m->vm.ports[i].worker;
        const char *b = scope == VOLUME_WORKERS ? m->vm.volumes[index].worker : m->vm.ports[index].worker;
        if (strcmp(a, b) == 0) {
            return true;
        }
    }
    return false;
}

static void open_row(struct lmo_step *s, const struct plan_row *row)
{
    unsigned count = row->scope == ONE ? 1
                     : row->scope == VOLUMES || row->scope == VOLUME_WORKERS ? s->m->vm.volume_count
                                                                             : s->m->vm.port_count;
    bool per_worker = row->scope == VOLUME_WORKERS || row->scope == FABRICS;
    for (unsigned i = 0; i < count; i++) {
        bool owed = row->undoes == LMO_RES_NONE || lmo_resource_owed(s->m, row->undoes, i);
        if (owed && (!per_worker || !worker_seen(s->m, row->scope, i))) {
            (void)lmo_plan_add(s, row->kind, i);
        }
    }
}

static bool of_this_guest(const struct lmo_migration *m, const struct plan_row *row)
{
    return row->guest == ANY || (row->guest == SHUT) == lmo_migration_shut_off(m);
}

/* Opens the present group; done tasks of earlier groups are dropped, their answers have been taken. */
static void open_group(struct lmo_step *s)
{
    s->m->task_count = 0;
    for (size_t i = 0; i < PLAN_ROWS; i++) {
        if (plan[i].phase == s->m->phase && plan[i].group == s->m->group && of_this_guest(s->m, &plan[i])) {
            open_row(s, &plan[i]);
        }
    }
}

static bool group_follows(const struct lmo_migration *m)
{
    for (size_t i = 0; i < PLAN_ROWS; i++) {
        if (plan[i].phase == m->phase && plan[i].group > m->group) {
            return true;
        }
    }
    return false;
}

static bool all_done(const struct lmo_migration *m)
{
    for (unsigned i = 0; i < m->task_count; i++) {
        if (m->tasks[i].state != LMO_TASK_DONE) {
            return false;
        }
    }
    return true;
}

/* The next phase of the forward path when all tasks of this one are done; COUNT: it is left by an event. */
static enum lmo_phase forward_of(const struct lmo_migration *m)
{
    bool shut_off = lmo_migration_shut_off(m);
    switch (m->phase) {
    case LMO_PHASE_PRECHECK: return shut_off ? LMO_PHASE_VOLUME_ATTACH : LMO_PHASE_DESTINATION_CREATE;
    case LMO_PHASE_DESTINATION_CREATE: return LMO_PHASE_VOLUME_ATTACH;
    case LMO_PHASE_VOLUME_ATTACH: return shut_off ? LMO_PHASE_CUTOVER : LMO_PHASE_NETWORK_PRELOAD;
    case LMO_PHASE_NETWORK_PRELOAD: return LMO_PHASE_DUAL_INGRESS;
    case LMO_PHASE_DUAL_INGRESS: return LMO_PHASE_PRECOPY;
    case LMO_PHASE_CUTOVER: return shut_off ? LMO_PHASE_FINALIZE : LMO_PHASE_COUNT;
    case LMO_PHASE_FINALIZE: return LMO_PHASE_COMPLETED;
    case LMO_PHASE_ROLLBACK: return LMO_PHASE_ABORTED;
    case LMO_PHASE_QUEUED:
    case LMO_PHASE_PRECOPY:
    case LMO_PHASE_COMPLETED:
    case LMO_PHASE_ABORTED:
    case LMO_PHASE_ATTENTION:
    case LMO_PHASE_ABANDONED:
    case LMO_PHASE_COUNT: break;
    }
    return LMO_PHASE_COUNT;
}

/* Facts that become true with the end of a group. */
static void group_done(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    if (m->phase == LMO_PHASE_PRECOPY && m->group == 1 && !m->switchover_ready) {
        m->switchover_ready = true;
        m->downtime_ms = m->policy.max_downtime_ms < LMO_DOWNTIME_FIRST_MS ? m->policy.max_downtime_ms
                                                                           : LMO_DOWNTIME_FIRST_MS;
        char why[LMO_TEXT_MAX];
        (void)snprintf(why, sizeof why,
                       "permit journaled at %s, source and %u volume service(s) reached, %u port(s) bound and installed",
                       m->destination, m->vm.volume_count, m->vm.port_count);
        lmo_step_note(s, why, "switch-over allowed");
    }
    if (m->phase == LMO_PHASE_ROLLBACK && m->group == 2) {
        bool prepared = lmo_migration_sent(m, LMO_OP_PREPARE);
        bool raised = m->epoch % LMO_EPOCH_STRIDE != 0; /* by an earlier roll-back, which a person has had tried again */
        m->destination_discarded = m->destination_discarded || prepared;
        /* What undoes comes above what can no longer be used: a release that is still on its way; a permit, with the thaw
         * and everything after it. */
        if (!raised && (lmo_migration_sent(m, LMO_OP_RELEASE) || (prepared && lmo_migration_sent(m, LMO_OP_PERMIT)))) {
            m->epoch++;
        }
    }
}

void lmo_plan_advance(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    while (!lmo_phase_is(m->phase, LMO_PHASE_TERMINAL) && m->phase != LMO_PHASE_QUEUED) {
        if (!m->group_open) {
            open_group(s);
            m->group_open = true;
        }
        if (!all_done(m)) {
            return;
        }
        group_done(s);
        if (group_follows(m)) {
            m->group++;
            m->group_open = false;
            continue;
        }
        enum lmo_phase forward = forward_of(m);
        if (forward == LMO_PHASE_COUNT) {
            return; /* left by a worker's event */
        }
        lmo_step_enter(s, forward, "");
    }
}

void lmo_plan_dispatch(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    int64_t wake = m->deadline_ms;
    for (unsigned i = 0; i < m->task_count; i++) {
        struct lmo_task *t = &m->tasks[i];
        if (t->state != LMO_TASK_WAITING) {
            continue;
        }
        if (t->not_before_ms > s->ev->now_ms) {
            wake = wake == 0 || t->not_before_ms < wake ? t->not_before_ms : wake;
            continue;
        }
        t->state = LMO_TASK_SENT;
        t->attempts++;
        if (t->first_ms == 0) {
            t->first_ms = s->ev->now_ms;
        }
        if (t->epoch == 0) {
            t->epoch = m->epoch;
        }
        m->dispatched |= UINT64_C(1) << t->kind;
        lmo_resource_intend(m, t->kind, t->index);
        s->out->send |= UINT64_C(1) << i;
        s->out->durable = true;
    }
    if (m->phase == LMO_PHASE_QUEUED && m->held_until_ms > 0) {
        wake = wake == 0 || m->held_until_ms < wake ? m->held_until_ms : wake;
    }
    if (lmo_migration_awaits_notice(m)) {
        wake = wake == 0 || m->notice.until_ms < wake ? m->notice.until_ms : wake;
    }
    s->out->wake_ms = wake;
}
