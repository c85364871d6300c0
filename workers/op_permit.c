/* op_permit.c - PERMIT: arms this host as the destination of one cutover.
 *
 * Done means: the permit is journaled here, the source's worker and the worker of every volume answered just now, over
 * connections that are kept open. That is part of the evidence for opening the gate. A permit that comes when the
 * guest is loaded already (it was asked for) is not held up by a peer that does not answer: the cutover asks them
 * itself, and goes through the coordinator if need be. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_volumes(const struct lmo_permit *p, const struct lmo_op_request *q, struct lmo_err *err)
{
    for (unsigned i = 0; i < p->volume_count; i++) {
        const struct lmo_permit_volume *v = &p->volumes[i];
        unsigned n = 0;
        while (n < q->volume_count &&
               (strcmp(q->volumes[n].volume, v->volume) != 0 || strcmp(q->volumes[n].service, v->service) != 0)) {
            n++;
        }
        if (n == q->volume_count || !q->volumes[n].worker_url[0]) {
            return lmo_fail(err, LMO_E_INVALID, "volumes: how the worker of volume '%s' is reached is not said",
                            v->volume);
        }
        if (strcmp(q->volumes[n].worker, v->worker) != 0) {
            return lmo_fail(err, LMO_E_INVALID,
                            "volumes: '%s' is served by '%s' in the permit and by '%s' in the order", v->volume,
                            v->worker, q->volumes[n].worker);
        }
    }
    return 0;
}

static int check(struct lmo_op *op, const struct lmo_incoming *in, struct lmo_permit *p, struct lmo_err *err)
{
    const struct lmo_op_request *q = op->req;
    int r = lmo_worker_verify_permit(op->w, q->permit, p, err);
    if (r < 0) {
        return r;
    }
    if (strcmp(p->migration, q->migration) != 0 || strcmp(p->vm_uuid, q->vm) != 0 || p->epoch != q->epoch) {
        return lmo_fail(err, LMO_E_INVALID, "permit: is of migration '%s', guest '%s', epoch %llu", p->migration,
                        p->vm_uuid, (unsigned long long)p->epoch);
    }
    if (strcmp(p->destination, op->w->cfg.facts.host) != 0) {
        return lmo_fail(err, LMO_E_FORBIDDEN, "permit: the destination is '%s', this is '%s'", p->destination,
                        op->w->cfg.facts.host);
    }
    if (q->source[0] && strcmp(p->source, q->source) != 0) {
        return lmo_fail(err, LMO_E_INVALID, "permit: the source is '%s', the order says '%s'", p->source, q->source);
    }
    if (!q->source_url[0]) {
        return lmo_fail(err, LMO_E_INVALID, "source_url: is missing");
    }
    bool armed = in->more && in->more->permit_text && in->more->permit.epoch == p->epoch;
    if (armed && !lmo_permit_same(&in->more->permit, p)) {
        return lmo_fail(err, LMO_E_CONFLICT, "permit: another one is armed under epoch %llu",
                        (unsigned long long)p->epoch);
    }
    r = armed ? 0 : lmo_permit_may_arm(p, lmo_realtime_us() / 1000, err);
    return r < 0 ? r : check_volumes(p, q, err);
}

static void arm(struct lmo_op *op)
{
    struct lmo_worker *w = op->w;
    struct lmo_incoming *in = lmo_incoming_find(w, op->req->migration);
    if (!in) {
        lmo_op_fail(op, LMO_E_GONE, "the migration was closed here meanwhile");
        return;
    }
    char *text = NULL;
    struct lmo_err err = {0};
    char *permit_text = op->req->permit; /* kept apart from the set-up */
    op->req->permit = NULL;
    int r = lmo_op_request_encode(op->req, &text, &err);
    op->req->permit = permit_text;
    if (r < 0) {
        lmo_op_finish(op, r, err.text);
        return;
    }
    bool in_force = in->dst.stage != LMO_DST_IDLE && in->dst.stage != LMO_DST_ARMED;
    struct lmo_record *before = in->more;
    if (!in_force || !before) {
        in->more = lmo_record_new(op->req, permit_text, op->permit);
    }
    struct lmo_batch *b = lmo_batch_new();
    lmo_batch_setup(b, in->dst.migration, LMO_OP_ROLE_DESTINATION, text, permit_text);
    free(text);
    struct lmo_dst_event ev = {.kind = LMO_DSTE_PERMIT,
                               .epoch = op->permit->epoch,
                               .volume_count = op->permit->volume_count,
                               .final_paused = op->permit->final_state == LMO_PERMIT_FINAL_PAUSED};
    struct lmo_dst_actions a;
    lmo_incoming_feed(in, &ev, &a);
    if (a.refused < 0) {
        if (in->more != before) {
            lmo_record_free(in->more);
            in->more = before;
        }
        lmo_batch_free(b);
        lmo_op_fail(op, a.refused, "the destination stands at '%s'", lmo_dst_stage_text(in->dst.stage));
        return;
    }
    if (in->more == before) {
        lmo_batch_free(b); /* the first one is in force */
    } else {
        lmo_record_free(before);
        lmo_journal_submit(w->journal, b, false, NULL, NULL);
    }
    lmo_incoming_warm(in);
    char receipt[LMO_TEXT_MAX];
    snprintf(receipt, sizeof receipt, "permit journaled; source '%s' and the workers of %u volume(s) %s after %llu ms",
             op->permit->source, op->permit->volume_count, op->err.code ? "did not all answer" : "answered",
             (unsigned long long)(lmo_now_ns() - op->started_ns) / LMO_NS_PER_MS);
    lmo_op_finish(op, 0, receipt);
}

struct ping {
    struct lmo_worker *w;
    char id[LMO_OP_ID_MAX];
    char name[LMO_NAME_MAX];
};

static void pinged(void *arg, int code, const char *text, const struct lmo_peer_reply *reply)
{
    (void)reply;
    struct ping p = *(struct ping *)arg;
    free(arg);
    struct lmo_op *op = code == LMO_E_CANCELLED ? NULL : lmo_ops_find(p.w, p.id);
    if (!op || op->finished || op->pending == 0) {
        return;
    }
    if (code < 0 && op->err.code == 0) {
        (void)lmo_fail(&op->err, LMO_E_UNAVAILABLE, "worker '%s' does not answer: %.150s", p.name, text);
    }
    if (--op->pending > 0) {
        return;
    }
    const struct lmo_incoming *in = lmo_incoming_find(op->w, op->req->migration);
    if (op->err.code < 0 && in && !in->dst.loaded) {
        lmo_op_finish(op, op->err.code, op->err.text);
        return;
    }
    arm(op);
}

void lmo_op_start_permit(struct lmo_op *op)
{
    struct lmo_worker *w = op->w;
    struct lmo_incoming *in = lmo_incoming_find(w, op->req->migration);
    struct lmo_err err = {0};
    if (!op->permit) {
        op->permit = calloc(1, sizeof *op->permit);
        lmo_assert(op->permit);
    }
    int r = check(op, in, op->permit, &err);
    if (r < 0) {
        lmo_op_finish(op, r, err.text);
        return;
    }
    struct lmo_peer peers[LMO_PEERS_MAX];
    unsigned count = lmo_incoming_peers(op->permit, op->req, peers);
    op->pending = 0;
    for (unsigned i = 0; i < count; i++) {
        op->pending += peers[i].connections;
    }
    for (unsigned i = 0; i < count; i++) {
        for (unsigned n = 0; n < peers[i].connections; n++) {
            struct ping *p = calloc(1, sizeof *p);
            lmo_assert(p);
            p->w = w;
            memcpy(p->id, op->req->id, sizeof p->id);
            memcpy(p->name, peers[i].name, sizeof p->name);
            lmo_peer_ping(w, &peers[i], i == 0 ? op->req->permit : NULL, pinged, p);
        }
    }
}
