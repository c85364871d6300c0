/* ops_driver.c - the kinds that are calls to one driver: what each needs, what it calls, in which lane.
 *
 * Every one of them is idempotent by the drivers' contract, so one that was cut short by a restart is simply run
 * again. */
#include "workers/host.h"
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEASURE_MS 2000 /* for a dirty rate that a start depends on: it takes a second */

enum needs {
    NEED_HYPERVISOR = 1,
    NEED_VOLUME = 2,
    NEED_FABRIC = 4,
    NEED_NETWORK = 8,
    NEED_VM = 16,
    NEED_ONE_VOLUME = 32,
    NEED_PORT = 64,
    NEED_XML = 128,
    NEED_DESTINATION = 256,
    NEED_MIGRATION = 512,
    NEED_PERMIT = 1024,
    NEED_EPOCH = 2048,
    NEED_SOURCE = 4096,
    NEED_URIS = 8192
};

typedef int driver_fn(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err);

/* ------------------------------------------------------------------ hypervisor */

static int describe(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_hypervisor *hv = op->w->drv.hypervisor;
    const char *vm = op->req->vm[0] ? op->req->vm : op->req->vm_name;
    struct lmo_err why = {0};
    if (op->req->dirty_fresh_ms && hv->ops->measure_dirty &&
        hv->ops->measure_dirty(hv, vm, op->req->dirty_fresh_ms, MEASURE_MS, &why) < 0) {
        lmo_log(LMO_LOG_INFO, "dirty rate not measured", "vm=%s reason=%s", vm, why.text); /* the facts will say so */
    }
    int r = hv->ops->describe(hv, vm, &op->reply.facts, timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct lmo_vm_facts *f = &op->reply.facts;
    for (unsigned i = 0; i < f->port_count; i++) {
        memcpy(f->ports[i].fabric, op->w->cfg.facts.network_fabric, sizeof f->ports[i].fabric);
    }
    op->reply.has_facts = true;
    op->reply.realtime_us = (int64_t)lmo_realtime_us();
    if (f->state == LMO_RUN_ABSENT) {
        return 0;
    }
    static const struct lmo_hv_disk_map none = {0};
    return hv->ops->outgoing_xml(hv, f->uuid, &none, &op->reply.xml, timeout_ms, err);
}

static struct lmo_hv_incoming incoming(const struct lmo_op *op)
{
    struct lmo_hv_incoming in = {.domain_xml = op->req->xml, .memory_bytes = op->req->memory_bytes, .shut_off = op->req->shut_off};
    memcpy(in.uuid, op->req->vm, sizeof in.uuid);
    return in;
}

static int precheck(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_hypervisor *hv = op->w->drv.hypervisor;
    struct lmo_hv_incoming in = incoming(op);
    int r = hv->ops->precheck_incoming(hv, &in, timeout_ms, err);
    op->reply.realtime_us = (int64_t)lmo_realtime_us();
    return r;
}

static int check_reach(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_hypervisor *hv = op->w->drv.hypervisor;
    int r = lmo_host_route_check(&op->w->cfg.facts, op->req->link, op->req->migration_uri, err);
    return r < 0 ? r : hv->ops->check_reach(hv, op->req->peer_uri, op->req->migration_uri, timeout_ms, err);
}

static int prepare(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_hypervisor *hv = op->w->drv.hypervisor;
    struct lmo_hv_incoming in = incoming(op);
    return hv->ops->prepare_incoming(hv, &in, timeout_ms, err);
}

static int settle(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_hypervisor *hv = op->w->drv.hypervisor;
    return hv->ops->settle(hv, op->req->vm, op->req->persistent, op->req->autostart, timeout_ms, err);
}

static int release(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_hypervisor *hv = op->w->drv.hypervisor;
    return hv->ops->release(hv, op->req->vm, op->req->xml, op->req->autostart, timeout_ms, err);
}

/* At the destination with its own exports, at the source (roll-back) as the definition was. */
static int define(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_hypervisor *hv = op->w->drv.hypervisor;
    const struct lmo_op_request *q = op->req;
    struct lmo_hv_disk_map map = {0};
    for (unsigned i = 0; q->kind == LMO_OP_DEFINE && i < q->volume_count; i++) {
        memcpy(map.disk[i].target, q->volumes[i].target, sizeof map.disk[i].target);
        memcpy(map.disk[i].export_name, q->volumes[i].export_destination, sizeof map.disk[i].export_name);
        map.count++;
    }
    return hv->ops->define(hv, q->vm, q->xml, &map, q->autostart, timeout_ms, err);
}

/* ------------------------------------------------------------------ volumes */

static int check_volume(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_volume_driver *d = op->w->drv.volume;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < op->req->volume_count; i++) {
        r = d->ops->check(d, op->req->volumes[i].volume, op->req->volumes[i].export_name, timeout_ms, err);
    }
    return r;
}

static int attach(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_volume_driver *d = op->w->drv.volume;
    const char *host = op->req->host[0] ? op->req->host : op->req->destination;
    return d->ops->attach(d, op->req->volumes[0].volume, host, op->req->epoch, op->reply.export_name, timeout_ms, err);
}

static int detach_source(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_volume_driver *d = op->w->drv.volume;
    return d->ops->detach(d, op->req->volumes[0].volume, op->req->volumes[0].export_name, timeout_ms, err);
}

static int fence_source(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_volume_driver *d = op->w->drv.volume;
    const struct lmo_volume *v = &op->req->volumes[0];
    int r = d->ops->fence(d, v->volume, v->export_name, timeout_ms, err);
    return r < 0 ? r : d->ops->verify(d, v->volume, v->export_name, v->export_destination, timeout_ms, err);
}

/* The coordinator may not know the export's name: attach's answer was lost. Then whatever is offered to the
 * destination, is not what the guest is attached through and is not newer than this order, is what attach made. */
static int detach_destination(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_volume_driver *d = op->w->drv.volume;
    const struct lmo_volume *v = &op->req->volumes[0];
    if (v->export_destination[0]) {
        return d->ops->detach(d, v->volume, v->export_destination, timeout_ms, err);
    }
    struct lmo_volume_state *s = calloc(1, sizeof *s);
    int r = s ? d->ops->observe(d, v->volume, s, timeout_ms, err) : lmo_fail(err, LMO_E_NO_MEMORY, "no memory");
    for (unsigned i = 0; r == 0 && i < s->export_count; i++) {
        if (strcmp(s->exports[i].host, op->req->destination) == 0 && !s->exports[i].fenced &&
            s->exports[i].epoch <= op->req->epoch && strcmp(s->exports[i].name, v->export_name) != 0) {
            r = d->ops->detach(d, v->volume, s->exports[i].name, timeout_ms, err);
        }
    }
    free(s);
    return r;
}

static int provision(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_volume_driver *d = op->w->drv.volume;
    return d->ops->provision(d, op->req->volumes[0].volume, op->req->path, op->req->format, op->req->host,
                             op->req->epoch, op->reply.export_name, timeout_ms, err);
}

static int retire(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_volume_driver *d = op->w->drv.volume;
    return d->ops->retire(d, op->req->volumes[0].volume, timeout_ms, err);
}

/* ------------------------------------------------------------------ fabric and host network */

static int check_port(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_fabric *f = op->w->drv.fabric;
    const struct lmo_op_request *q = op->req;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < q->port_count; i++) {
        r = q->shut_off ? f->ops->check_unbound(f, &q->ports[i], q->source, q->destination, timeout_ms, err)
                        : f->ops->check(f, &q->ports[i], q->source, q->destination, q->accept_stateful_loss, timeout_ms,
                                        err);
    }
    return r;
}

static int preload(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_fabric *f = op->w->drv.fabric;
    return f->ops->preload(f, op->req->destination, timeout_ms, err);
}

static int dual(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_fabric *f = op->w->drv.fabric;
    const struct lmo_op_request *q = op->req;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < q->port_count; i++) {
        r = f->ops->dual(f, &q->ports[i], q->source, q->destination, timeout_ms, err);
    }
    return r;
}

static int await_bound(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_fabric *f = op->w->drv.fabric;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < op->req->port_count; i++) {
        r = f->ops->await_bound(f, &op->req->ports[i], op->req->destination, timeout_ms, err);
    }
    return r;
}

static int single(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_fabric *f = op->w->drv.fabric;
    const char *host = op->req->kind == LMO_OP_SINGLE_SOURCE ? op->req->source : op->req->destination;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < op->req->port_count; i++) {
        r = f->ops->single(f, &op->req->ports[i], host, timeout_ms, err);
    }
    return r;
}

static int assign(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_fabric *f = op->w->drv.fabric;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < op->req->port_count; i++) {
        r = f->ops->assign(f, &op->req->ports[i], op->req->destination, timeout_ms, err);
    }
    return r;
}

static int await_installed(struct lmo_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_network *n = op->w->drv.network;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < op->req->port_count; i++) {
        r = n->ops->await_installed(n, &op->req->ports[i], timeout_ms, err);
    }
    return r;
}

/* ------------------------------------------------------------------ the table */

enum lane { LANE_NONE, LANE_VM, LANE_VOLUME, LANE_PORT, LANE_PRELOAD };

static const struct kind {
    driver_fn *fn; /* NULL: not one driver call */
    unsigned needs;
    enum lane lane;
} kinds[LMO_OP_COUNT] = {
    [LMO_OP_DESCRIBE] = {describe, NEED_HYPERVISOR, LANE_NONE},
    [LMO_OP_PRECHECK_INCOMING] = {precheck, NEED_HYPERVISOR | NEED_VM | NEED_XML, LANE_NONE},
    [LMO_OP_CHECK_REACH] = {check_reach, NEED_HYPERVISOR | NEED_URIS, LANE_NONE},
    [LMO_OP_CHECK_VOLUME] = {check_volume, NEED_VOLUME, LANE_NONE},
    [LMO_OP_CHECK_PORT] = {check_port, NEED_FABRIC | NEED_PORT, LANE_NONE},
    [LMO_OP_PREPARE] = {prepare, NEED_HYPERVISOR | NEED_VM | NEED_XML | NEED_MIGRATION | NEED_EPOCH, LANE_VM},
    [LMO_OP_ATTACH] = {attach, NEED_VOLUME | NEED_ONE_VOLUME | NEED_EPOCH, LANE_VOLUME},
    [LMO_OP_PRELOAD] = {preload, NEED_FABRIC | NEED_DESTINATION, LANE_PRELOAD},
    [LMO_OP_DUAL] = {dual, NEED_FABRIC | NEED_PORT | NEED_DESTINATION | NEED_SOURCE, LANE_PORT},
    [LMO_OP_PERMIT] = {NULL, NEED_HYPERVISOR | NEED_VM | NEED_MIGRATION | NEED_PERMIT | NEED_EPOCH, LANE_NONE},
    [LMO_OP_JOB_START] = {NULL, NEED_HYPERVISOR | NEED_VM | NEED_MIGRATION | NEED_EPOCH, LANE_NONE},
    [LMO_OP_AWAIT_BOUND] = {await_bound, NEED_FABRIC | NEED_PORT | NEED_DESTINATION, LANE_NONE},
    [LMO_OP_AWAIT_INSTALLED] = {await_installed, NEED_NETWORK | NEED_PORT, LANE_NONE},
    [LMO_OP_OPEN_GATE] = {NULL, NEED_HYPERVISOR | NEED_VM | NEED_MIGRATION, LANE_NONE},
    [LMO_OP_RELAY_FREEZE] = {NULL, NEED_HYPERVISOR | NEED_VM | NEED_MIGRATION | NEED_PERMIT, LANE_NONE},
    [LMO_OP_RELAY_ANSWER] = {NULL, NEED_HYPERVISOR | NEED_VM | NEED_MIGRATION, LANE_NONE},
    [LMO_OP_REMOVE_SOURCE] = {NULL, NEED_HYPERVISOR | NEED_VM | NEED_MIGRATION, LANE_NONE},
    [LMO_OP_SETTLE] = {settle, NEED_HYPERVISOR | NEED_VM, LANE_VM},
    [LMO_OP_DETACH_SOURCE] = {detach_source, NEED_VOLUME | NEED_ONE_VOLUME, LANE_VOLUME},
    [LMO_OP_SINGLE_DESTINATION] = {single, NEED_FABRIC | NEED_PORT | NEED_DESTINATION, LANE_PORT},
    [LMO_OP_JOB_ABORT] = {NULL, NEED_HYPERVISOR | NEED_VM | NEED_MIGRATION, LANE_NONE},
    [LMO_OP_DISCARD] = {NULL, NEED_HYPERVISOR | NEED_VM | NEED_MIGRATION, LANE_NONE},
    [LMO_OP_DETACH_DESTINATION] = {detach_destination, NEED_VOLUME | NEED_ONE_VOLUME, LANE_VOLUME},
    [LMO_OP_SINGLE_SOURCE] = {single, NEED_FABRIC | NEED_PORT | NEED_SOURCE, LANE_PORT},
    [LMO_OP_REVIVE] = {NULL, NEED_HYPERVISOR | NEED_VM | NEED_MIGRATION | NEED_EPOCH, LANE_NONE},
    [LMO_OP_RELEASE] = {release, NEED_HYPERVISOR | NEED_VM | NEED_XML | NEED_MIGRATION | NEED_EPOCH, LANE_VM},
    [LMO_OP_FENCE_SOURCE] = {fence_source, NEED_VOLUME | NEED_ONE_VOLUME | NEED_EPOCH, LANE_VOLUME},
    [LMO_OP_DEFINE] = {define, NEED_HYPERVISOR | NEED_VM | NEED_XML | NEED_MIGRATION | NEED_EPOCH, LANE_VM},
    [LMO_OP_RESTORE] = {define, NEED_HYPERVISOR | NEED_VM | NEED_XML | NEED_MIGRATION | NEED_EPOCH, LANE_VM},
    [LMO_OP_ASSIGN] = {assign, NEED_FABRIC | NEED_PORT | NEED_DESTINATION | NEED_EPOCH, LANE_PORT},
    [LMO_OP_CLOSE_SOURCE] = {NULL, NEED_VM | NEED_MIGRATION | NEED_EPOCH, LANE_NONE},
    [LMO_OP_CLOSE_DESTINATION] = {NULL, NEED_VM | NEED_MIGRATION | NEED_EPOCH, LANE_NONE},
    [LMO_OP_CLOSE_VOLUME] = {NULL, NEED_VM | NEED_MIGRATION | NEED_EPOCH, LANE_NONE},
    [LMO_OP_CLOSE_FABRIC] = {NULL, NEED_VM | NEED_MIGRATION | NEED_EPOCH, LANE_NONE},
    [LMO_OP_VOLUME_PROVISION] = {provision, NEED_VOLUME | NEED_ONE_VOLUME, LANE_VOLUME},
    [LMO_OP_VOLUME_RETIRE] = {retire, NEED_VOLUME | NEED_ONE_VOLUME, LANE_VOLUME},
};

bool lmo_op_is_driver_call(enum lmo_op_kind kind)
{
    return kinds[kind].fn != NULL;
}

int lmo_op_check(struct lmo_worker *w, const struct lmo_op_request *q, struct lmo_err *err)
{
    unsigned needs = kinds[q->kind].needs;
    const char *kind = lmo_op_info(q->kind)->text;
    const char *lacks = (needs & NEED_HYPERVISOR) && !w->drv.hypervisor ? "hypervisor"
                        : (needs & NEED_VOLUME) && !w->drv.volume       ? "volume service"
                        : (needs & NEED_FABRIC) && !w->drv.fabric       ? "fabric"
                        : (needs & NEED_NETWORK) && !w->drv.network     ? "host network"
                                                                        : NULL;
    if (lacks) {
        return lmo_fail(err, LMO_E_UNSUPPORTED, "%s: the worker of '%s' has no %s", kind, w->cfg.facts.host, lacks);
    }
    const char *missing = (needs & NEED_VM) && !q->vm[0]                      ? "vm"
                          : (needs & NEED_MIGRATION) && !q->migration[0]      ? "migration"
                          : (needs & NEED_EPOCH) && q->epoch == 0             ? "epoch"
                          : (needs & NEED_XML) && !q->xml                     ? "xml"
                          : (needs & NEED_PERMIT) && !q->permit               ? "permit"
                          : (needs & NEED_PORT) && q->port_count == 0         ? "ports"
                          : (needs & NEED_ONE_VOLUME) && q->volume_count != 1 ? "volumes (exactly one)"
                          : (needs & NEED_DESTINATION) && !q->destination[0]  ? "destination"
                          : (needs & NEED_SOURCE) && !q->source[0]            ? "source"
                          : (needs & NEED_URIS) && !q->peer_uri[0]            ? "peer_uri"
                          : (needs & NEED_URIS) && !q->migration_uri[0]       ? "migration_uri"
                                                                              : NULL;
    return missing ? lmo_fail(err, LMO_E_INVALID, "%s needs the field '%s'", kind, missing) : 0;
}

/* ------------------------------------------------------------------ the call */

struct op_call {
    struct lmo_call call;
    struct lmo_op *op; /* stays: it ends with this call */
    int code;
    struct lmo_err err;
};

static void work(struct lmo_call *call)
{
    struct op_call *c = (struct op_call *)call;
    c->code = kinds[c->op->req->kind].fn(c->op, lmo_op_left_ms(c->op), &c->err);
}

static void done(struct lmo_call *call, bool ran)
{
    struct op_call *c = (struct op_call *)call;
    if (ran) {
        lmo_op_finish(c->op, c->code, c->code < 0 ? c->err.text : NULL);
    }
    free(c);
}

/* The host network opens things for a port here that CLOSE_DESTINATION has released again. */
static void note_watched(struct lmo_op *op)
{
    struct lmo_incoming *in = lmo_incoming_find(op->w, op->req->migration);
    for (unsigned i = 0; in && i < op->req->port_count; i++) {
        unsigned n = 0;
        while (n < in->watched_count && strcmp(in->watched[n].id, op->req->ports[i].id) != 0) {
            n++;
        }
        if (n == in->watched_count && n < LMO_PORTS_MAX) {
            in->watched[in->watched_count++] = op->req->ports[i];
        }
    }
}

void lmo_op_start_driver(struct lmo_op *op)
{
    if (op->req->kind == LMO_OP_AWAIT_INSTALLED) {
        note_watched(op);
    }
    const struct kind *k = &kinds[op->req->kind];
    struct op_call *c = calloc(1, sizeof *c);
    lmo_assert(c);
    c->call = (struct lmo_call){.work = work, .done = done};
    c->op = op;
    switch (k->lane) {
    case LANE_NONE: break;
    case LANE_VM: lmo_call_lane(&c->call, "hypervisor", op->req->vm); break;
    case LANE_VOLUME: lmo_call_lane(&c->call, "volume", op->req->volumes[0].volume); break;
    case LANE_PORT: lmo_call_lane(&c->call, "fabric", op->req->ports[0].id); break;
    case LANE_PRELOAD: lmo_call_lane(&c->call, "preload", op->req->destination); break;
    }
    lmo_call_submit(op->w, &c->call);
}
