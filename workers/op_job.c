/* op_job.c - JOB_START and OPEN_GATE.
 *
 * A job is started at most once per order. The order is on disk before the driver is called; if this process ends in
 * between, or the driver cannot say what became of its call, the hypervisor is asked whether a job runs (adopt): if so,
 * that is the job; if not, the order has failed and a new one decides. While the call is inside the driver, whatever
 * the hypervisor says about the guest is held back, so that the machine hears of the start first. */
#include "workers/worker.h"
#include "workers/host.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ JOB_START */

struct start_call {
    struct lmo_call call;
    struct lmo_op *op;
    bool adopt; /* only look whether a job runs */
    struct lmo_hv_job job;
    enum lmo_run_state state; /* before the start; when adopting: now */
    int code;
    struct lmo_err err;
};

static bool has_volume(const struct lmo_vm_facts *vm, const char *target)
{
    bool found = false;
    for (unsigned i = 0; i < vm->volume_count; i++) {
        found = found || strcmp(vm->volumes[i].target, target) == 0;
    }
    return found;
}

static bool has_port(const struct lmo_vm_facts *vm, const char *id)
{
    bool found = false;
    for (unsigned i = 0; i < vm->port_count; i++) {
        found = found || strcmp(vm->ports[i].id, id) == 0;
    }
    return found;
}

/* Volumes are fenced, ports are bound and memory was reserved as the guest was described: one that was changed since is not moved.
 * From the start of the job on the hypervisor itself lets nobody change it. */
static int unchanged(const struct lmo_op_request *q, const struct lmo_vm_facts *now, struct lmo_err *err)
{
    if (q->memory_bytes > 0 && now->memory_bytes != q->memory_bytes) {
        return lmo_fail(err, LMO_E_CONFLICT, "the guest was changed since it was looked at: it has %llu MiB of memory, it had %llu",
                        (unsigned long long)(now->memory_bytes >> 20), (unsigned long long)(q->memory_bytes >> 20));
    }
    if (q->vcpus > 0 && now->vcpus != q->vcpus) {
        return lmo_fail(err, LMO_E_CONFLICT, "the guest was changed since it was looked at: it has %u vCPUs, it had %u", now->vcpus,
                        q->vcpus);
    }
    for (unsigned i = 0; i < q->volume_count; i++) {
        if (!has_volume(now, q->volumes[i].target)) {
            return lmo_fail(err, LMO_E_CONFLICT, "the guest was changed since it was looked at: disk %s is gone", q->volumes[i].target);
        }
    }
    for (unsigned i = 0; i < q->port_count; i++) {
        if (!has_port(now, q->ports[i].id)) {
            return lmo_fail(err, LMO_E_CONFLICT, "the guest was changed since it was looked at: port %s is gone", q->ports[i].id);
        }
    }
    if (now->volume_count != q->volume_count || now->port_count != q->port_count) {
        return lmo_fail(err, LMO_E_CONFLICT, "the guest was changed since it was looked at: it has %u disks and %u ports, it had %u and %u",
                        now->volume_count, now->port_count, q->volume_count, q->port_count);
    }
    return 0;
}

static int start_in_driver(struct start_call *c, struct lmo_hypervisor *hv)
{
    const struct lmo_op_request *q = c->op->req;
    struct lmo_hv_disk_map map = {0};
    for (unsigned i = 0; i < q->volume_count; i++) {
        if (q->volumes[i].export_destination[0]) {
            memcpy(map.disk[map.count].target, q->volumes[i].target, sizeof map.disk[0].target);
            memcpy(map.disk[map.count].export_name, q->volumes[i].export_destination, sizeof map.disk[0].export_name);
            map.count++;
        }
    }
    int r = lmo_host_route_check(&c->call.w->cfg.facts, q->link, q->migration_uri, &c->err);
    if (r == 0) {
        r = hv->ops->state(hv, q->vm, &c->state, LMO_STATE_TIMEOUT_MS, &c->err);
    }
    if (r < 0) {
        return r;
    }
    if (c->state != LMO_RUN_RUNNING && c->state != LMO_RUN_PAUSED_BY_USER) {
        return lmo_fail(&c->err, LMO_E_REFUSED, "the guest is %s: it cannot migrate live",
                        lmo_run_state_name(c->state));
    }
    struct lmo_vm_facts *now = calloc(1, sizeof *now);
    r = now ? hv->ops->describe(hv, q->vm, now, LMO_STATE_TIMEOUT_MS, &c->err)
            : lmo_fail(&c->err, LMO_E_NO_MEMORY, "no memory for a guest's facts");
    r = r < 0 ? r : unchanged(q, now, &c->err);
    free(now);
    if (r < 0) {
        return r;
    }
    char *xml = NULL;
    r = hv->ops->outgoing_xml(hv, q->vm, &map, &xml, lmo_op_left_ms(c->op), &c->err);
    if (r < 0) {
        return r;
    }
    c->job.destination_xml = xml;
    r = hv->ops->job_start(hv, &c->job, lmo_worker_on_job_end, c->call.w, &c->err);
    c->job.destination_xml = NULL;
    free(xml);
    return r;
}

static void start_work(struct lmo_call *call)
{
    struct start_call *c = (struct start_call *)call;
    struct lmo_hypervisor *hv = call->w->drv.hypervisor;
    if (!c->adopt) {
        c->code = start_in_driver(c, hv);
        return;
    }
    c->code = hv->ops->job_adopt(hv, &c->job, lmo_worker_on_job_end, call->w, &c->err);
    if (hv->ops->state(hv, c->op->req->vm, &c->state, LMO_STATE_TIMEOUT_MS, NULL) < 0) {
        c->state = LMO_RUN_UNKNOWN;
    }
}

static void call_driver(struct lmo_op *op, struct lmo_outgoing *out, bool adopt);

static void job_runs(struct lmo_op *op, struct lmo_outgoing *out, enum lmo_run_state state)
{
    out->starting = false;
    struct lmo_src_event ev = {.kind = LMO_SRCE_JOB_STARTED,
                               .epoch = op->req->epoch,
                               .final_paused = state == LMO_RUN_PAUSED_BY_USER};
    lmo_outgoing_feed(out, &ev, NULL);
    lmo_op_finish(op, 0, NULL);
    lmo_outgoing_replay(out);
}

static void job_does_not_run(struct lmo_op *op, struct lmo_outgoing *out, int code, const char *text)
{
    out->starting = false;
    lmo_op_finish(op, code, text);
    lmo_outgoing_replay(out);
}

static void adopt_again(struct lmo_op *op, struct lmo_outgoing *out, const char *why)
{
    if (lmo_now_ns() >= op->deadline_ns) {
        job_does_not_run(op, out, LMO_E_UNKNOWN, why); /* the record stays idle: REVIVE or a new order settles it */
        return;
    }
    op->recovered = true; /* from here on it only looks */
    out->starting = false;
    lmo_op_again(op, why);
}

static void start_done(struct lmo_call *call, bool ran)
{
    struct start_call *c = (struct start_call *)call;
    struct lmo_outgoing *out = ran ? lmo_outgoing_find(call->w, c->op->req->migration) : NULL;
    if (!out) {
        free(c);
        return;
    }
    struct lmo_op *op = c->op;
    enum lmo_err_class cls = lmo_err_class_of(c->code);
    if (c->code == 0) {
        job_runs(op, out, c->state);
    } else if (!c->adopt && cls == LMO_CLASS_UNKNOWN) {
        lmo_log(LMO_LOG_WARN, "whether the job started is not known; looking", "migration=%s reason=%s",
                op->req->migration, c->err.text);
        call_driver(op, out, true);
    } else if (!c->adopt) {
        job_does_not_run(op, out, c->code, c->err.text);
    } else if (c->code != LMO_E_NOT_FOUND || c->state == LMO_RUN_UNKNOWN) {
        adopt_again(op, out, c->err.text[0] ? c->err.text : "the hypervisor does not say how the guest stands");
    } else if (c->state == LMO_RUN_RUNNING || c->state == LMO_RUN_PAUSED_BY_USER) {
        job_does_not_run(op, out, LMO_E_UNAVAILABLE,
                         "no job runs; the order was cut short, and is not carried out a second time under this id");
    } else {
        job_does_not_run(op, out, LMO_E_UNKNOWN, "no job runs, and the guest does not run here either");
    }
    free(c);
}

static void call_driver(struct lmo_op *op, struct lmo_outgoing *out, bool adopt)
{
    struct start_call *c = calloc(1, sizeof *c);
    lmo_assert(c);
    c->call = (struct lmo_call){.work = start_work, .done = start_done};
    c->op = op;
    c->adopt = adopt;
    lmo_job_describe(out, &c->job);
    c->job.throttle_initial_percent = op->req->throttle_initial_percent;
    c->job.throttle_increment_percent = op->req->throttle_increment_percent;
    out->starting = true;
    lmo_call_lane(&c->call, "job", op->req->vm);
    lmo_call_submit(op->w, &c->call);
}

struct hello {
    struct lmo_worker *w;
    char id[LMO_OP_ID_MAX];
};

/* The destination's worker answered, or did not. */
static void destination_answered(void *arg, int code, const char *text, const struct lmo_peer_reply *reply)
{
    (void)reply;
    struct hello h = *(struct hello *)arg;
    free(arg);
    struct lmo_op *op = code == LMO_E_CANCELLED ? NULL : lmo_ops_find(h.w, h.id);
    struct lmo_outgoing *out = op ? lmo_outgoing_find(h.w, op->req->migration) : NULL;
    if (!op || op->finished) {
        return;
    }
    if (!out) {
        lmo_op_fail(op, LMO_E_GONE, "the migration was closed here meanwhile");
    } else if (code < 0) {
        lmo_op_fail(op, LMO_E_UNAVAILABLE, "the destination's worker does not answer: %.150s", text);
    } else {
        call_driver(op, out, false);
    }
}

static void start_job(struct lmo_op *op, struct lmo_outgoing *out)
{
    if (out->src.stage != LMO_SRC_IDLE || out->starting) {
        lmo_op_fail(op, LMO_E_CONFLICT, "the source stands at '%s': a migration has one job",
                    lmo_src_stage_text(out->src.stage));
        return;
    }
    if (op->recovered) {
        call_driver(op, out, true);
        return;
    }
    const struct lmo_op_request *q = op->req;
    if (!q->destination_url[0] || !q->destination[0]) {
        lmo_op_fail(op, LMO_E_INVALID, "destination and destination_url: are needed");
        return;
    }
    struct hello *h = calloc(1, sizeof *h);
    lmo_assert(h);
    h->w = op->w;
    memcpy(h->id, q->id, sizeof h->id);
    struct lmo_peer peer = {.connections = 1};
    memcpy(peer.name, q->destination, sizeof peer.name);
    memcpy(peer.url, q->destination_url, sizeof peer.url);
    lmo_peer_ping(op->w, &peer, NULL, destination_answered, h);
}

/* ------------------------------------------------------------------ OPEN_GATE */

struct gate_call {
    struct lmo_call call;
    struct lmo_op *op;
    int code;
    struct lmo_err err;
};

static void gate_work(struct lmo_call *call)
{
    struct gate_call *c = (struct gate_call *)call;
    struct lmo_hypervisor *hv = call->w->drv.hypervisor;
    const struct lmo_op_request *q = c->op->req;
    c->code = hv->ops->job_limits(hv, q->vm, q->bandwidth_bytes_per_s, q->downtime_ms, &c->err);
}

static void gate_done(struct lmo_call *call, bool ran)
{
    struct gate_call *c = (struct gate_call *)call;
    if (ran) {
        lmo_op_finish(c->op, c->code, c->code < 0 ? c->err.text : NULL);
    }
    free(c);
}

/* That the gate is open is on disk: from here on the guard keeps its hands off. */
static void gate_durable(void *arg, int result)
{
    struct gate_call *c = arg;
    if (result < 0) {
        free(c);
        return;
    }
    lmo_call_submit(c->op->w, &c->call);
}

static void open_gate(struct lmo_op *op, struct lmo_outgoing *out)
{
    if (!out->src.job_running || out->aborting) {
        lmo_op_fail(op, LMO_E_CONFLICT, out->aborting ? "the job is being aborted" : "no job runs");
        return;
    }
    struct lmo_src_event ev = {.kind = LMO_SRCE_GATE_OPENED, .epoch = op->req->epoch};
    lmo_outgoing_feed(out, &ev, NULL);
    struct gate_call *c = calloc(1, sizeof *c);
    lmo_assert(c);
    c->call = (struct lmo_call){.w = op->w, .work = gate_work, .done = gate_done, .fast = true};
    c->op = op;
    lmo_call_lane(&c->call, "job", op->req->vm);
    lmo_journal_submit(op->w->journal, lmo_batch_new(), false, gate_durable, c);
}

void lmo_op_start_job(struct lmo_op *op)
{
    struct lmo_outgoing *out = lmo_outgoing_find(op->w, op->req->migration);
    lmo_assert(out);
    if (op->req->kind == LMO_OP_OPEN_GATE) {
        open_gate(op, out);
    } else {
        start_job(op, out);
    }
}
