/* op_close.c - CLOSE_*: the coordinator has committed everything that this worker said about a migration in one role.
 *
 * Forgets its ops and its record and refuses its epoch from then on, in one transaction. Idempotent without a
 * journaled op of its own: what is closed already is answered `done` (ops.c). Refused while the record still owes
 * something: a guest that waits, a process that is stopped, an op that runs. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool incoming_owes(const struct lmo_incoming *in)
{
    switch (in->dst.stage) {
    case LMO_DST_IDLE:
    case LMO_DST_ARMED: return in->dst.loaded;
    case LMO_DST_RESUMED:
    case LMO_DST_DONE:
    case LMO_DST_DISCARDED:
    case LMO_DST_LOST: return false;
    case LMO_DST_ASKING:
    case LMO_DST_COMMITTED:
    case LMO_DST_FENCED:
    case LMO_DST_DISCARDING:
    case LMO_DST_STAGE_COUNT: break;
    }
    return true;
}

static bool outgoing_owes(const struct lmo_outgoing *out)
{
    switch (out->src.stage) {
    case LMO_SRC_IDLE:
    case LMO_SRC_JOB:
    case LMO_SRC_RAN:
    case LMO_SRC_KILLED:
    case LMO_SRC_REVIVED: return out->src.job_running || out->starting;
    case LMO_SRC_SUSPENDED:
    case LMO_SRC_FREEZING:
    case LMO_SRC_FROZEN:
    case LMO_SRC_GONE:
    case LMO_SRC_KILLING:
    case LMO_SRC_REVIVING:
    case LMO_SRC_STAGE_COUNT: break;
    }
    return true;
}

static const struct lmo_op *running_op(const struct lmo_op *close)
{
    for (const struct lmo_op *op = close->w->ops; op; op = op->next) {
        if (op != close && op->info->role == close->info->role && op->info->mutates &&
            !lmo_op_is_close(op->req->kind) && strcmp(op->req->migration, close->req->migration) == 0) {
            return op;
        }
    }
    return NULL;
}

/* ---- the host network's watches ---- */

struct release_call {
    struct lmo_call call;
    unsigned count;
    struct lmo_port ports[LMO_PORTS_MAX];
};

static void release_work(struct lmo_call *call)
{
    struct release_call *c = (struct release_call *)call;
    struct lmo_network *n = call->w->drv.network;
    for (unsigned i = 0; i < c->count; i++) {
        n->ops->release(n, &c->ports[i]);
    }
}

static void release_done(struct lmo_call *call, bool ran)
{
    (void)ran;
    free(call);
}

static void release(struct lmo_worker *w, const struct lmo_port *ports, unsigned count)
{
    if (!w->drv.network || count == 0) {
        return;
    }
    struct release_call *c = calloc(1, sizeof *c);
    lmo_assert(c);
    c->call = (struct lmo_call){.work = release_work, .done = release_done};
    c->count = count;
    memcpy(c->ports, ports, count * sizeof *ports);
    lmo_call_submit(w, &c->call);
}

/* ---- the close itself ---- */

static void closed(void *arg, int result)
{
    struct lmo_op *op = arg;
    struct lmo_worker *w = op->w;
    if (result < 0) {
        if (result == LMO_E_CANCELLED) {
            return; /* the worker is ending; whoever waits is answered there */
        }
        lmo_op_finish(op, result, "the journal cannot be written");
        return;
    }
    struct lmo_incoming *in = lmo_incoming_find(w, op->req->migration);
    struct lmo_outgoing *out = lmo_outgoing_find(w, op->req->migration);
    if (op->req->kind == LMO_OP_CLOSE_DESTINATION) {
        if (in && in->more) {
            release(w, in->more->setup.ports, in->more->setup.port_count);
        } else if (in) {
            release(w, in->watched, in->watched_count);
        }
        if (in) {
            lmo_incoming_remove(in);
        }
    } else if (op->req->kind == LMO_OP_CLOSE_SOURCE && out) {
        lmo_outgoing_remove(out);
    }
    lmo_op_finish(op, 0, NULL);
}

void lmo_op_start_close(struct lmo_op *op)
{
    struct lmo_worker *w = op->w;
    const struct lmo_op_request *q = op->req;
    struct lmo_incoming *in = lmo_incoming_find(w, q->migration);
    struct lmo_outgoing *out = lmo_outgoing_find(w, q->migration);
    const struct lmo_op *other = running_op(op);
    struct lmo_journal_vm vm;
    struct lmo_err err = {0};
    if (other) {
        lmo_op_fail(op, LMO_E_BUSY, "op '%s' still runs", other->req->id);
        return;
    }
    if ((q->kind == LMO_OP_CLOSE_DESTINATION && in && strcmp(in->dst.vm, q->vm) != 0) ||
        (q->kind == LMO_OP_CLOSE_SOURCE && out && strcmp(out->src.vm, q->vm) != 0)) {
        lmo_op_fail(op, LMO_E_CONFLICT, "migration '%s' is of another guest here", q->migration);
        return;
    }
    if (q->kind == LMO_OP_CLOSE_DESTINATION && in && incoming_owes(in)) {
        lmo_op_fail(op, LMO_E_BUSY, "the destination stands at '%s'", lmo_dst_stage_text(in->dst.stage));
        return;
    }
    if (q->kind == LMO_OP_CLOSE_SOURCE && out && outgoing_owes(out)) {
        lmo_op_fail(op, LMO_E_BUSY, "the source stands at '%s'%s", lmo_src_stage_text(out->src.stage),
                    out->src.job_running ? ", its job runs" : "");
        return;
    }
    if (lmo_journal_vm(w->journal, q->vm, &vm, &err) < 0) {
        lmo_op_finish(op, err.code, err.text);
        return;
    }
    vm.seen = q->epoch > vm.seen ? q->epoch : vm.seen;
    vm.closed[op->info->role] = q->epoch > vm.closed[op->info->role] ? q->epoch : vm.closed[op->info->role];
    struct lmo_batch *b = lmo_batch_new();
    lmo_batch_vm(b, &vm);
    lmo_batch_close(b, q->migration, op->info->role, q->epoch);
    lmo_journal_submit(w->journal, b, true, closed, op);
}
