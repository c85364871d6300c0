/* ops_machine.c - the kinds that go through a record's machine, and the records that orders make.
 *
 * Such an op ends when the machine says so, in the same transaction as the step that ends it: feed() calls
 * lmo_ops_*_moved() after each step, which looks for ops of that migration that wait. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGAIN_MS 50

enum step { FRESH = 0, WAITING, REMOVING, LAST };

/* ------------------------------------------------------------------ records that orders make */

static int limit_new(struct lmo_worker *w, struct lmo_err *err)
{
    uint64_t events = lmo_journal_event_count(w->journal);
    if (events < LMO_EVENTS_MAX) {
        return 0;
    }
    return lmo_fail(err, LMO_E_LIMIT, "%llu events wait for the coordinator; no new migration before it has read them",
                    (unsigned long long)events);
}

static int admit_incoming(struct lmo_op *op, struct lmo_batch *b, struct lmo_err *err)
{
    struct lmo_worker *w = op->w;
    struct lmo_incoming *in = lmo_incoming_find(w, op->req->migration);
    if (in) {
        return strcmp(in->dst.vm, op->req->vm) == 0
                   ? 0
                   : lmo_fail(err, LMO_E_CONFLICT, "migration '%s' is of guest '%s' here", op->req->migration,
                              in->dst.vm);
    }
    int r = limit_new(w, err);
    if (r == 0) {
        r = lmo_incoming_make(w, op->req->migration, op->req->vm, &in, err);
    }
    if (r == 0) {
        op->made_record = true;
        lmo_batch_dst(b, &in->dst);
    }
    return r;
}

static int admit_outgoing(struct lmo_op *op, const char *text, struct lmo_batch *b, struct lmo_err *err)
{
    struct lmo_worker *w = op->w;
    struct lmo_outgoing *out = lmo_outgoing_find(w, op->req->migration);
    if (out && strcmp(out->src.vm, op->req->vm) != 0) {
        return lmo_fail(err, LMO_E_CONFLICT, "migration '%s' is of guest '%s' here", op->req->migration, out->src.vm);
    }
    if (!out) {
        int r = limit_new(w, err);
        if (r == 0) {
            r = lmo_outgoing_make(w, op->req->migration, op->req->vm, &out, err);
        }
        if (r < 0) {
            return r;
        }
        op->made_record = true;
        lmo_batch_src(b, &out->src);
    }
    if (op->req->kind == LMO_OP_JOB_START && out->src.stage == LMO_SRC_IDLE && !out->starting) {
        /* The permit: with the order, or from the destination's hello. Without one the job runs, but the destination
         * is not told of the pause. */
        const char *permit = op->req->permit ? op->req->permit : lmo_permit_cache_get(w, op->req->migration);
        struct lmo_permit *p = calloc(1, sizeof *p);
        struct lmo_err ignored = {0};
        lmo_assert(p);
        if (permit && lmo_worker_verify_permit(w, permit, p, &ignored) < 0) {
            lmo_log(LMO_LOG_WARN, "permit that came with the job is not valid", "migration=%s reason=%s",
                    op->req->migration, ignored.text);
            permit = NULL;
        }
        struct lmo_record *more = lmo_record_new(op->req, permit, permit ? p : NULL);
        lmo_record_free(out->more);
        out->more = more;
        lmo_batch_setup(b, out->src.migration, LMO_OP_ROLE_SOURCE, text, permit);
        free(p);
    }
    return 0;
}

int lmo_op_admit(struct lmo_op *op, const char *text, struct lmo_batch *b, struct lmo_err *err)
{
    enum lmo_op_kind kind = op->req->kind;
    if (kind == LMO_OP_PREPARE || kind == LMO_OP_PERMIT || kind == LMO_OP_DISCARD) {
        return admit_incoming(op, b, err);
    }
    if (kind == LMO_OP_JOB_START || kind == LMO_OP_REVIVE) {
        return admit_outgoing(op, text, b, err);
    }
    return 0;
}

void lmo_op_unadmit(struct lmo_op *op)
{
    if (!op->made_record) {
        return;
    }
    struct lmo_incoming *in = lmo_incoming_find(op->w, op->req->migration);
    struct lmo_outgoing *out = lmo_outgoing_find(op->w, op->req->migration);
    if (op->info->role == LMO_OP_ROLE_DESTINATION && in) {
        lmo_incoming_remove(in);
    } else if (op->info->role == LMO_OP_ROLE_SOURCE && out) {
        lmo_outgoing_remove(out);
    }
}

/* ------------------------------------------------------------------ time */

static void again_due(void *arg)
{
    struct lmo_op *op = arg;
    op->timer = 0;
    lmo_op_start_machine(op);
}

void lmo_op_again(struct lmo_op *op, const char *why)
{
    if (lmo_now_ns() >= op->deadline_ns) {
        lmo_op_fail(op, LMO_E_TIMEOUT, "not within %u ms: %.150s", op->info->timeout_ms, why);
        return;
    }
    lmo_assert(lmo_loop_timer(op->w->loop, AGAIN_MS, again_due, op, &op->timer) == 0);
}

static void too_late(void *arg)
{
    struct lmo_op *op = arg;
    op->timer = 0;
    lmo_op_fail(op, LMO_E_TIMEOUT, "not within %u ms; it goes on, and may be asked for again", op->info->timeout_ms);
}

/* From here on the op waits for its record, until its time is up. */
static void wait_for_machine(struct lmo_op *op, enum step step)
{
    op->step = step;
    lmo_loop_cancel(op->w->loop, &op->timer);
    lmo_assert(lmo_loop_timer(op->w->loop, lmo_op_left_ms(op), too_late, op, &op->timer) == 0);
}

/* ------------------------------------------------------------------ destination */

static void start_discard(struct lmo_op *op, struct lmo_incoming *in)
{
    wait_for_machine(op, WAITING);
    struct lmo_dst_event ev = {.kind = LMO_DSTE_DISCARD, .epoch = op->req->epoch};
    struct lmo_dst_actions a;
    lmo_incoming_feed(in, &ev, &a);
    if (!op->finished && a.refused < 0) {
        lmo_op_fail(op, a.refused, "the destination stands at '%s'%s", lmo_dst_stage_text(in->dst.stage),
                    a.refused == LMO_E_BUSY ? ", its guest is loaded: the source's word decides"
                                            : ": only forward from there");
    }
}

static void start_relay_answer(struct lmo_op *op, struct lmo_incoming *in)
{
    struct lmo_dst_event ev = {.kind = LMO_DSTE_ANSWER,
                               .answer = lmo_freeze_answer_from_name(op->req->answer),
                               .text = op->req->evidence};
    lmo_incoming_answer(in, &ev);
    lmo_op_finish(op, 0, NULL);
}

void lmo_ops_incoming_moved(struct lmo_incoming *in, const struct lmo_dst_actions *a)
{
    struct lmo_op *next;
    for (struct lmo_op *op = in->w->ops; a->discard_done && op; op = next) {
        next = op->next;
        if (op->req->kind == LMO_OP_DISCARD && op->step == WAITING && !op->finished &&
            strcmp(op->req->migration, in->dst.migration) == 0) {
            lmo_op_finish(op, a->refused,
                          a->refused < 0 ? "the guest was loaded behind the order: the source's word decides" : NULL);
        }
    }
}

static void start_incoming(struct lmo_op *op)
{
    struct lmo_incoming *in = lmo_incoming_find(op->w, op->req->migration);
    if (!in) {
        lmo_op_fail(op, LMO_E_NOT_FOUND, "migration '%s' is not known here as a destination", op->req->migration);
    } else if (strcmp(in->dst.vm, op->req->vm) != 0) { /* the epoch that was checked is that guest's, not this one's */
        lmo_op_fail(op, LMO_E_CONFLICT, "migration '%s' is of guest '%s' here", op->req->migration, in->dst.vm);
    } else if (!in->observed) {
        lmo_op_again(op, "the hypervisor has not said yet how the guest stands");
    } else if (op->req->kind == LMO_OP_DISCARD) {
        start_discard(op, in);
    } else if (op->req->kind == LMO_OP_RELAY_ANSWER) {
        start_relay_answer(op, in);
    } else {
        lmo_op_start_permit(op);
    }
}

/* ------------------------------------------------------------------ source */

struct remove_call {
    struct lmo_call call;
    struct lmo_op *op;
    int code;
    struct lmo_err err;
};

static void remove_work(struct lmo_call *call)
{
    struct remove_call *c = (struct remove_call *)call;
    struct lmo_hypervisor *hv = call->w->drv.hypervisor;
    c->code = hv->ops->remove(hv, c->op->req->vm, true, LMO_REMOVE_TIMEOUT_MS, &c->err);
}

static void end_when_job_ended(struct lmo_op *op, const struct lmo_outgoing *out)
{
    if (!out->src.job_running && !out->starting) {
        lmo_op_finish(op, 0, NULL);
    }
}

/* A frozen source had sent everything before it was stopped, and moves nothing now: what an abort is ordered for holds
 * already. The hypervisor cannot end the job before the process goes on, so whoever waited for that end before the thaw
 * would wait for himself; and every request to abort would hold one of the hypervisor's threads for as long. */
static bool end_because_frozen(struct lmo_op *op, const struct lmo_outgoing *out)
{
    if (out->src.stage != LMO_SRC_FROZEN) {
        return false;
    }
    lmo_op_finish(op, 0, "the source is frozen: its job moves nothing, and ends when the guest is thawed or killed");
    return true;
}

static void remove_done(struct lmo_call *call, bool ran)
{
    struct remove_call *c = (struct remove_call *)call;
    struct lmo_op *op = c->op;
    if (ran && !op->finished) {
        struct lmo_outgoing *out = lmo_outgoing_find(call->w, op->req->migration);
        op->pending = 0;
        if (c->code < 0) {
            lmo_op_finish(op, c->code, c->err.text);
        } else if (out) {
            wait_for_machine(op, LAST);
            end_when_job_ended(op, out);
        } else {
            lmo_op_finish(op, 0, NULL);
        }
    }
    free(c);
}

static void remove_domain(struct lmo_op *op)
{
    struct remove_call *c = calloc(1, sizeof *c);
    lmo_assert(c);
    c->call = (struct lmo_call){.work = remove_work, .done = remove_done};
    c->op = op;
    op->step = REMOVING;
    op->pending = 1;
    lmo_loop_cancel(op->w->loop, &op->timer); /* the driver's call has its own limit; the op ends with it */
    lmo_call_lane(&c->call, "hypervisor", op->req->vm);
    lmo_call_submit(op->w, &c->call);
}

static bool feed_order(struct lmo_op *op, struct lmo_outgoing *out, enum lmo_src_event_kind kind, uint64_t epoch)
{
    wait_for_machine(op, WAITING);
    struct lmo_src_event ev = {.kind = kind, .epoch = epoch};
    struct lmo_src_actions a;
    lmo_outgoing_feed(out, &ev, &a);
    if (op->finished || a.refused == 0) {
        return true;
    }
    lmo_op_fail(op, a.refused, "the source stands at '%s' under epoch %llu", lmo_src_stage_text(out->src.stage),
                (unsigned long long)out->src.epoch);
    return false;
}

static void start_relay_freeze(struct lmo_op *op, struct lmo_outgoing *out)
{
    struct lmo_permit *p = calloc(1, sizeof *p);
    struct lmo_err err = {0};
    lmo_assert(p);
    int r = lmo_worker_verify_permit(op->w, op->req->permit, p, &err);
    if (r == 0 && (strcmp(p->source, op->w->cfg.facts.host) != 0 || strcmp(p->migration, op->req->migration) != 0 ||
                   strcmp(p->vm_uuid, op->req->vm) != 0)) {
        r = lmo_fail(&err, LMO_E_FORBIDDEN, "the permit is of migration '%s', guest '%s', source '%s'", p->migration,
                     p->vm_uuid, p->source);
    }
    bool raise;
    if (r == 0) {
        r = lmo_worker_check_epoch(op->w, p->vm_uuid, p->epoch, LMO_OP_ROLE_SOURCE, &raise, &err);
    }
    uint64_t epoch = p->epoch;
    free(p);
    if (r < 0) {
        lmo_op_finish(op, r, err.text);
        return;
    }
    (void)feed_order(op, out, LMO_SRCE_FREEZE, epoch);
}

static void start_abort(struct lmo_op *op, struct lmo_outgoing *out)
{
    if (!out->src.job_running && !out->starting) {
        lmo_op_finish(op, 0, "no job runs");
        return;
    }
    if (end_because_frozen(op, out)) {
        return;
    }
    lmo_job_abort(out, "ordered by the coordinator");
    if (lmo_now_ns() >= op->deadline_ns) {
        lmo_op_fail(op, LMO_E_TIMEOUT, "the job has not ended within %u ms", op->info->timeout_ms);
        return;
    }
    op->step = LAST;
    lmo_loop_cancel(op->w->loop, &op->timer);
    lmo_assert(lmo_loop_timer(op->w->loop, 10 * AGAIN_MS, again_due, op, &op->timer) == 0);
}

void lmo_ops_outgoing_moved(struct lmo_outgoing *out, const struct lmo_src_actions *a)
{
    struct lmo_op *next;
    for (struct lmo_op *op = out->w->ops; op; op = next) {
        next = op->next; /* journaled ops outlive their end: they are freed by the journal, later */
        enum lmo_op_kind kind = op->req->kind;
        if (op->finished || op->step == FRESH || strcmp(op->req->migration, out->src.migration) != 0) {
            continue;
        }
        if (kind == LMO_OP_RELAY_FREEZE && a->answer) {
            snprintf(op->reply.answer, sizeof op->reply.answer, "%s", lmo_freeze_answer_name(a->told));
            memcpy(op->reply.evidence, out->src.evidence, sizeof op->reply.evidence);
            lmo_op_finish(op, 0, NULL);
        } else if (kind == LMO_OP_REMOVE_SOURCE && op->step == WAITING && a->kill_done) {
            remove_domain(op);
        } else if (kind == LMO_OP_REVIVE && a->revive_done) {
            lmo_op_finish(op, 0, NULL);
        } else if (kind == LMO_OP_JOB_ABORT && op->step == LAST && end_because_frozen(op, out)) {
            continue;
        } else if ((kind == LMO_OP_REMOVE_SOURCE || kind == LMO_OP_JOB_ABORT) && op->step == LAST) {
            end_when_job_ended(op, out);
        }
    }
}

static void start_outgoing(struct lmo_op *op)
{
    struct lmo_outgoing *out = lmo_outgoing_find(op->w, op->req->migration);
    enum lmo_op_kind kind = op->req->kind;
    if (!out && kind == LMO_OP_JOB_ABORT) {
        lmo_op_finish(op, 0, "no job was ever started here");
    } else if (!out) {
        lmo_op_fail(op, LMO_E_NOT_FOUND, "migration '%s' is not known here as a source", op->req->migration);
    } else if (strcmp(out->src.vm, op->req->vm) != 0) { /* above all: REMOVE_SOURCE destroys what the order names */
        lmo_op_fail(op, LMO_E_CONFLICT, "migration '%s' is of guest '%s' here", op->req->migration, out->src.vm);
    } else if (!lmo_outgoing_ready(out, kind == LMO_OP_RELAY_FREEZE) &&
               !(out->observed && (kind == LMO_OP_JOB_ABORT || kind == LMO_OP_JOB_START))) {
        lmo_op_again(op, "the hypervisor has not said yet how the guest stands");
    } else if (kind == LMO_OP_RELAY_FREEZE) {
        start_relay_freeze(op, out);
    } else if (kind == LMO_OP_REMOVE_SOURCE) {
        (void)feed_order(op, out, LMO_SRCE_KILL, op->req->epoch);
    } else if (kind == LMO_OP_REVIVE) {
        out->revive_paused = op->req->final_state == LMO_RUN_PAUSED_BY_USER;
        (void)feed_order(op, out, LMO_SRCE_REVIVE, op->req->epoch);
    } else if (kind == LMO_OP_JOB_ABORT) {
        start_abort(op, out);
    } else {
        lmo_op_start_job(op);
    }
}

void lmo_op_start_machine(struct lmo_op *op)
{
    if (op->info->role == LMO_OP_ROLE_DESTINATION) {
        start_incoming(op);
    } else {
        start_outgoing(op);
    }
}
