/* dispatch.c - from a task of a record to the call that a worker gets, and from its answer back to an event. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GATE_MARGIN_MS (10 * 60000)      /* a permit may be armed this long after the latest end of pre-copy */
#define DIRTY_FRESH_MS 10000             /* a dirty rate that decides about a start is not older */
#define DEADMAN_MS 60000                 /* coordinator silent for so long during pre-copy: the worker aborts it */

/* A permit whose time of issue lies too far in the destination's future is not armed: the precheck must leave room. */
_Static_assert(2 * LMO_CLOCK_SKEW_MAX_MS <= LMO_PERMIT_SKEW_MS, "clocks that pass the precheck arm permits");

struct call {
    struct lmo_engine *engine;
    char id[LMO_ID_MAX];
    char host[LMO_NAME_MAX];
    uint32_t ordinal;
    enum lmo_op_kind kind;
};

/* Is `address` one of the comma-separated `list`? */
static bool in_list(const char *list, const char *address)
{
    size_t len = strlen(address);
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, ",");
        if (n == len && memcmp(p, address, n) == 0) {
            return true;
        }
        p += n + (p[n] == ',');
    }
    return false;
}

/* Who serves the guest's volumes and ports, by what the workers advertise. Left empty where nobody does. */
static void resolve_workers(struct lmo_engine *e, struct lmo_vm_facts *vm)
{
    for (unsigned i = 0; i < vm->volume_count; i++) { /* ours to fill in, whatever was sent */
        vm->volumes[i].worker[0] = vm->volumes[i].worker_url[0] = '\0';
    }
    for (unsigned i = 0; i < vm->port_count; i++) {
        vm->ports[i].worker[0] = '\0';
    }
    for (struct host *h = e->hosts; h; h = h->hh.next) {
        for (unsigned i = 0; i < vm->volume_count; i++) {
            if (vm->volumes[i].service[0] && in_list(h->facts.volume_address, vm->volumes[i].service)) {
                LMO_COPY(vm->volumes[i].worker, h->row.name);
                LMO_COPY(vm->volumes[i].worker_url, h->row.url);
            }
        }
        for (unsigned i = 0; i < vm->port_count; i++) {
            if (h->facts.fabric_name[0] && strcmp(vm->ports[i].fabric, h->facts.fabric_name) == 0) {
                LMO_COPY(vm->ports[i].worker, h->row.name);
            }
        }
    }
}

/* A host that never said what it serves, while something of the guest's is served by nobody: it may be the one. Right
 * after a start that is every host. NULL: none, or everything is served. */
static const char *unheard_server(const struct lmo_engine *e, const struct lmo_vm_facts *vm)
{
    bool served = true;
    for (unsigned i = 0; i < vm->volume_count; i++) {
        served = served && vm->volumes[i].worker[0];
    }
    for (unsigned i = 0; i < vm->port_count; i++) {
        served = served && vm->ports[i].worker[0];
    }
    for (const struct host *h = e->hosts; h && !served; h = h->hh.next) {
        if (!h->facts.host[0]) {
            return h->row.name;
        }
    }
    return NULL;
}

static void fail(struct call *call, int code, const char *text)
{
    struct entry *entry = engine_entry(call->engine, call->id);
    if (!entry) {
        return;
    }
    struct lmo_event ev = {.kind = LMO_EV_TASK_FAILED, .ordinal = call->ordinal, .code = code, .text = text};
    struct lmo_err err = {0};
    if (engine_apply(entry, &ev, &err) < 0) {
        lmo_log(LMO_LOG_ERROR, "failed call refused by the core", "migration=%s why=%s", call->id, err.text);
    }
}

static void succeed(struct call *call, const struct lmo_op_reply *reply)
{
    struct entry *entry = engine_entry(call->engine, call->id);
    if (!entry) {
        return;
    }
    static struct lmo_vm_facts facts; /* the loop thread's scratch */
    struct lmo_event ev = {.kind = LMO_EV_TASK_DONE,
                           .ordinal = call->ordinal,
                           .export_name = reply->export_name[0] ? reply->export_name : NULL,
                           .answer = reply->answer,
                           .evidence = reply->evidence,
                           .worker_us = reply->realtime_us};
    if (reply->has_facts) {
        facts = reply->facts;
        resolve_workers(call->engine, &facts);
        const char *unheard = unheard_server(call->engine, &facts);
        if (unheard) {
            char text[LMO_TEXT_MAX];
            (void)snprintf(text, sizeof text, "a volume or port is served by no host that was heard of; %s was not yet",
                           unheard);
            fail(call, LMO_E_UNAVAILABLE, text);
            return;
        }
        ev.facts = &facts;
    }
    if (call->kind == LMO_OP_DESCRIBE && reply->xml) {
        char *xml = strdup(reply->xml);
        if (!xml) {
            fail(call, LMO_E_NO_MEMORY, "no memory for the domain XML");
            return;
        }
        free(entry->xml);
        entry->xml = xml;
        entry->xml_dirty = true;
    }
    struct lmo_err err = {0};
    if (engine_apply(entry, &ev, &err) < 0) {
        lmo_log(LMO_LOG_ERROR, "answer refused by the core", "migration=%s why=%s", call->id, err.text);
    }
}

static void on_done(void *arg, int code, const char *text, const struct lmo_op_reply *reply)
{
    struct call *call = arg;
    if (call->engine->stopping) {
        free(call);
        return;
    }
    LMO_FAULT(COORDINATOR_REPLY, lmo_op_info(call->kind)->text);
    int outcome = code < 0 ? code : reply->state == LMO_OP_DONE ? 0 : reply->code;
    bool sick = lmo_err_class_of(outcome) == LMO_CLASS_UNKNOWN || (code < 0 && code == LMO_E_UNAVAILABLE);
    engine_answered(call->engine, call->host, !sick);
    if (code < 0) {
        fail(call, code, text);
    } else if (reply->state == LMO_OP_DONE) {
        succeed(call, reply);
    } else {
        fail(call, reply->code < 0 ? reply->code : LMO_E_INTERNAL, reply->text);
    }
    free(call);
}

/* ------------------------------------------------------------------ building requests */

/* How the guest is to stand at the end: as it stood when it was described. */
static enum lmo_run_state final_state(const struct lmo_migration *m)
{
    return m->vm.state == LMO_RUN_PAUSED_BY_USER ? LMO_RUN_PAUSED_BY_USER : LMO_RUN_RUNNING;
}

static int sign_permit(const struct entry *entry, uint64_t epoch, char **ret_text, struct lmo_err *err)
{
    const struct lmo_migration *m = engine_record(entry);
    uint64_t now = lmo_realtime_us() / 1000;
    struct lmo_permit p = {
        .epoch = epoch,
        .final_state = final_state(m) == LMO_RUN_RUNNING ? LMO_PERMIT_FINAL_RUNNING : LMO_PERMIT_FINAL_PAUSED,
        .issued_ms = now,
        .expires_ms = now + lmo_convergence_longest_ms(&m->convergence) + GATE_MARGIN_MS,
        .volume_count = m->vm.volume_count,
    };
    LMO_COPY(p.migration, m->id);
    LMO_COPY(p.vm_uuid, m->vm.uuid);
    LMO_COPY(p.source, m->source);
    LMO_COPY(p.destination, m->destination);
    for (unsigned i = 0; i < m->vm.volume_count; i++) {
        const struct lmo_volume *v = &m->vm.volumes[i];
        LMO_COPY(p.volumes[i].volume, v->volume);
        LMO_COPY(p.volumes[i].service, v->service);
        LMO_COPY(p.volumes[i].worker, v->worker);
        LMO_COPY(p.volumes[i].export_source, v->export_name);
        LMO_COPY(p.volumes[i].export_destination, v->export_destination);
    }
    LMO_AUTO_FREE char *text = malloc(LMO_PERMIT_TEXT_MAX);
    if (!text) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a permit");
    }
    int r = lmo_permit_sign(entry->engine->permit_key, &p, text, LMO_PERMIT_TEXT_MAX, err);
    if (r < 0) {
        return lmo_err_prefix(err, "permit");
    }
    *ret_text = LMO_TAKE(text);
    return 0;
}

/* What every call carries: who, where, under which epoch. */
static void fill_common(const struct lmo_migration *m, const struct lmo_task *t, struct lmo_op_request *r)
{
    lmo_task_op_id(m, t, r->id);
    r->kind = t->kind;
    r->epoch = t->epoch;
    r->final_state = final_state(m);
    r->persistent = m->vm.persistent;
    r->autostart = m->vm.autostart;
    r->shut_off = lmo_migration_shut_off(m);
    r->accept_stateful_loss = m->policy.accept_stateful_loss;
    r->memory_bytes = m->vm.memory_bytes;
    LMO_COPY(r->migration, m->id);
    LMO_COPY(r->vm, m->vm.uuid);
    LMO_COPY(r->vm_name, m->vm.name);
    LMO_COPY(r->source, m->source);
    LMO_COPY(r->destination, m->destination);
    LMO_COPY(r->source_url, m->source_url);
    LMO_COPY(r->destination_url, m->destination_url);
}

static void fill_objects(const struct lmo_migration *m, const struct lmo_task *t, struct lmo_op_request *r)
{
    enum lmo_op_role role = lmo_op_info(t->kind)->role;
    bool one_port = t->kind == LMO_OP_AWAIT_INSTALLED;
    if (t->kind == LMO_OP_PERMIT || t->kind == LMO_OP_JOB_START || t->kind == LMO_OP_DISCARD ||
        t->kind == LMO_OP_DEFINE) {
        r->volume_count = m->vm.volume_count;
        memcpy(r->volumes, m->vm.volumes, m->vm.volume_count * sizeof r->volumes[0]);
        r->port_count = m->vm.port_count;
        memcpy(r->ports, m->vm.ports, m->vm.port_count * sizeof r->ports[0]);
    } else if (role == LMO_OP_ROLE_VOLUME) {
        r->volume_count = 1;
        r->volumes[0] = m->vm.volumes[t->index];
        LMO_COPY(r->host, m->destination);
    } else if (role == LMO_OP_ROLE_FABRIC || one_port) {
        r->port_count = 1;
        r->ports[0] = m->vm.ports[t->index];
    }
}

static int fill_kind(const struct entry *entry, const struct lmo_task *t, struct lmo_op_request *r, struct lmo_err *err)
{
    const struct lmo_migration *m = engine_record(entry);
    bool wants_xml = t->kind == LMO_OP_PRECHECK_INCOMING || t->kind == LMO_OP_PREPARE || t->kind == LMO_OP_RELEASE ||
                     t->kind == LMO_OP_DEFINE || t->kind == LMO_OP_RESTORE;
    if (wants_xml && entry->xml && !(r->xml = strdup(entry->xml))) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the domain XML");
    }
    if (t->kind == LMO_OP_PERMIT || t->kind == LMO_OP_RELAY_FREEZE) {
        return sign_permit(entry, t->epoch, &r->permit, err);
    }
    if (t->kind == LMO_OP_JOB_START || t->kind == LMO_OP_OPEN_GATE) {
        r->bandwidth_bytes_per_s = lmo_migration_bandwidth(m);
        r->downtime_ms = m->downtime_ms;
        r->deadman_ms = DEADMAN_MS;
        if (t->kind == LMO_OP_JOB_START && m->policy.allow_throttle) {
            r->throttle_initial_percent = m->policy.throttle_initial_percent;
            r->throttle_increment_percent = m->policy.throttle_increment_percent;
        }
    }
    if (t->kind == LMO_OP_JOB_START || t->kind == LMO_OP_CHECK_REACH) {
        LMO_COPY(r->peer_uri, m->peer_uri);
        LMO_COPY(r->migration_uri, m->migration_uri);
        LMO_COPY(r->link, entry->engine->admission.limits.link);
    }
    bool decides = m->policy.prediction == LMO_PREDICTION_QUEUE || m->policy.prediction == LMO_PREDICTION_REFUSE;
    if (t->kind == LMO_OP_DESCRIBE && decides) {
        r->dirty_fresh_ms = DIRTY_FRESH_MS;
    }
    if (t->kind == LMO_OP_RELAY_ANSWER) {
        LMO_COPY(r->answer, m->cutover.freeze_answer);
        LMO_COPY(r->evidence, m->cutover.evidence);
    }
    return 0;
}

/* Failures to send at all become events of the next turn: a step never runs inside another's effects. */
struct late_failure {
    struct call *call;
    int code;
    char text[LMO_TEXT_MAX];
};

static void deliver_late(void *arg)
{
    struct late_failure *f = arg;
    fail(f->call, f->code, f->text);
    free(f->call);
    free(f);
}

static void fail_soon(struct call *call, const struct lmo_err *err)
{
    struct late_failure *f = calloc(1, sizeof *f);
    uint64_t timer;
    lmo_assert(f); /* a few bytes on a path that has just failed: nothing sane is left to do */
    f->call = call;
    f->code = err->code;
    LMO_COPY(f->text, err->text);
    if (lmo_loop_timer(call->engine->loop, 0, deliver_late, f, &timer) < 0) {
        lmo_unreachable("no timer for a failed call");
    }
}

void engine_send(struct entry *entry, const struct lmo_task *task)
{
    static struct lmo_op_request req; /* the loop thread's scratch: 20 KiB */
    struct lmo_engine *e = entry->engine;
    struct call *call = calloc(1, sizeof *call);
    lmo_assert(call);
    *call = (struct call){.engine = e, .ordinal = task->ordinal, .kind = task->kind};
    LMO_COPY(call->id, entry->id);
    const struct lmo_migration *m = engine_record(entry);
    struct lmo_err err = {0};
    const char *host = lmo_task_host(m, task);
    LMO_COPY(call->host, host);
    lmo_op_request_clear(&req);
    fill_common(m, task, &req);
    fill_objects(m, task, &req);
    int r = fill_kind(entry, task, &req, &err);
    LMO_FAULT(COORDINATOR_SEND, lmo_op_info(task->kind)->text);
    if (r == 0) {
        lmo_log(LMO_LOG_DEBUG, "call", "migration=%s op=%s host=%s", entry->id, req.id, host);
        r = e->workers->ops->op(e->workers, host, &req, lmo_op_info(task->kind)->timeout_ms, on_done, call, &err);
    }
    lmo_op_request_done(&req);
    if (r < 0) {
        fail_soon(call, &err);
    }
}
