/* observe.c - ground truth on demand: what the drivers see now, and what the journal holds. Changes nothing. */
#include "workers/worker.h"
#include "workers/host.h"

#include "base/assert.h"
#include "base/clock.h"
#include "proto/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OBSERVE_TIMEOUT_MS 8000

enum what { VMS, VM, VOLUMES, VOLUME, PORT };

struct look {
    struct lmo_call call;
    enum what what;
    struct lmo_http_request *http;
    char name[LMO_NAME_MAX];
    json_t *json; /* owned */
    int code;
    struct lmo_err err;
};

void lmo_observe_host(struct lmo_worker *w, struct lmo_http_request *http)
{
    struct lmo_host_facts facts = w->cfg.facts;
    facts.realtime_us = (int64_t)lmo_realtime_us();
    facts.term = lmo_journal_term(w->journal);
    facts.epoch = lmo_journal_epoch(w->journal);
    facts.protocol_min = LMO_PROTOCOL_MIN;
    facts.protocol_max = LMO_PROTOCOL_MAX;
    if (facts.hypervisor[0]) {
        lmo_host_memory_read("", &facts);
    }
    lmo_http_reply_json(http, 200, lmo_host_facts_to_json(&facts));
}

static json_t *record(const char *migration, const char *vm, uint64_t epoch, const char *role, const char *stage)
{
    json_t *j = json_object();
    int r = lmo_json_put_str(j, "migration", migration);
    r |= lmo_json_put_str(j, "vm", vm);
    r |= lmo_json_put_u64(j, "epoch", epoch);
    r |= lmo_json_put_str(j, "role", role);
    r |= lmo_json_put_str(j, "stage", stage);
    if (r != 0) {
        json_decref(j);
        return NULL;
    }
    return j;
}

struct holders {
    struct lmo_worker *w;
    json_t *array;
};

/* Ops that are kept of a migration without a record of its own here: a volume's or fabric's worker, or one that has
 * prepared and not more. */
static int add_holder(void *arg, const char *migration, const char *vm, uint64_t epoch, const char *role)
{
    struct holders *h = arg;
    bool destination = strcmp(role, "destination") == 0, source = strcmp(role, "source") == 0;
    if ((destination && lmo_incoming_find(h->w, migration)) || (source && lmo_outgoing_find(h->w, migration))) {
        return 0;
    }
    return lmo_json_add(h->array, record(migration, vm, epoch, role, "")) == 0 ? 0 : 1;
}

void lmo_observe_migrations(struct lmo_worker *w, struct lmo_http_request *http)
{
    json_t *root = json_object(), *array = json_array();
    struct holders holders = {.w = w, .array = array};
    struct lmo_err err = {0};
    if (lmo_journal_holders(w->journal, add_holder, &holders, &err) < 0) {
        json_decref(root);
        json_decref(array);
        lmo_http_reply_error(http, &err);
        return;
    }
    for (struct lmo_incoming *in = w->incoming; in; in = in->next) {
        (void)lmo_json_add(array, record(in->dst.migration, in->dst.vm, in->dst.epoch, "destination",
                                         lmo_dst_stage_text(in->dst.stage)));
    }
    for (struct lmo_outgoing *out = w->outgoing; out; out = out->next) {
        (void)lmo_json_add(array, record(out->src.migration, out->src.vm, out->src.epoch, "source",
                                         lmo_src_stage_text(out->src.stage)));
    }
    if (lmo_json_put(root, "migrations", array) != 0) {
        json_decref(root);
        root = NULL;
    }
    lmo_http_reply_json(http, 200, root);
}

/* ---- on a pool thread ---- */

/* The fabric is what this worker was configured for, not what a hypervisor could know. */
static json_t *vm_json(const struct lmo_worker *w, const struct lmo_vm_facts *vm)
{
    struct lmo_vm_facts facts = *vm;
    for (unsigned i = 0; i < facts.port_count; i++) {
        memcpy(facts.ports[i].fabric, w->cfg.facts.network_fabric, sizeof facts.ports[i].fabric);
    }
    return lmo_vm_facts_to_json(&facts);
}

static int add_vm(void *arg, const struct lmo_vm_facts *vm)
{
    struct look *k = arg;
    return lmo_json_add(k->json, vm_json(k->call.w, vm)) == 0 ? 0 : 1;
}

static int look_vms(struct look *k, struct lmo_hypervisor *hv)
{
    k->json = json_array();
    int r = hv->ops->list(hv, add_vm, k, OBSERVE_TIMEOUT_MS, &k->err);
    json_t *root = json_object(), *array = k->json;
    k->json = NULL;
    if (lmo_json_put(root, "vms", array) == 0) {
        k->json = root;
    } else {
        json_decref(root);
    }
    return r;
}

static int look_vm(struct look *k, struct lmo_hypervisor *hv)
{
    struct lmo_vm_facts *facts = calloc(1, sizeof *facts);
    if (!facts) {
        return lmo_fail(&k->err, LMO_E_NO_MEMORY, "no memory for a guest's facts");
    }
    int r = hv->ops->describe(hv, k->name, facts, OBSERVE_TIMEOUT_MS, &k->err);
    if (r == 0) {
        k->json = vm_json(k->call.w, facts);
    }
    free(facts);
    return r;
}

static json_t *export_json(const struct lmo_volume_state *s, unsigned i)
{
    json_t *j = json_object();
    int r = lmo_json_put_str(j, "name", s->exports[i].name);
    r |= lmo_json_put_str(j, "host", s->exports[i].host);
    r |= lmo_json_put_u64(j, "epoch", s->exports[i].epoch);
    r |= lmo_json_put_bool(j, "offered", s->exports[i].offered);
    r |= lmo_json_put_bool(j, "fenced", s->exports[i].fenced);
    if (r != 0) {
        json_decref(j);
        return NULL;
    }
    return j;
}

static json_t *volume_json(const struct lmo_volume_state *s)
{
    json_t *exports = json_array(), *j = json_object();
    for (unsigned i = 0; i < s->export_count; i++) {
        (void)lmo_json_add(exports, export_json(s, i));
    }
    int r = lmo_json_put_str(j, "volume", s->volume);
    r |= lmo_json_put_str(j, "path", s->path);
    r |= lmo_json_put_u64(j, "size_bytes", s->size_bytes);
    r |= lmo_json_put(j, "exports", exports);
    if (r != 0) {
        json_decref(j);
        return NULL;
    }
    return j;
}

struct listing {
    struct look *look;
    struct lmo_volume_driver *d;
    struct lmo_volume_state state;
    uint64_t deadline_ns;
    int code;
};

static int list_volume(void *arg, const char *volume)
{
    struct listing *l = arg;
    uint64_t left = lmo_ms_until(l->deadline_ns);
    memset(&l->state, 0, sizeof l->state);
    l->code = left == 0 ? lmo_fail(&l->look->err, LMO_E_TIMEOUT, "not all volumes could be looked at in time")
                        : l->d->ops->observe(l->d, volume, &l->state, left, &l->look->err);
    if (l->code == LMO_E_NOT_FOUND) {
        return l->code = 0; /* retired since it was listed */
    }
    return l->code < 0 || lmo_json_add(l->look->json, volume_json(&l->state)) < 0 ? 1 : 0;
}

/* All of them, or a failure: a list that lacks some would make the rest look like all there is. */
static int look_volumes(struct look *k, struct lmo_volume_driver *d)
{
    struct listing *l = calloc(1, sizeof *l);
    if (!l) {
        return lmo_fail(&k->err, LMO_E_NO_MEMORY, "no memory for the volumes");
    }
    *l = (struct listing){.look = k, .d = d, .deadline_ns = lmo_now_ns() + OBSERVE_TIMEOUT_MS * LMO_NS_PER_MS};
    k->json = json_array();
    int r = d->ops->list ? d->ops->list(d, list_volume, l, &k->err)
                         : lmo_fail(&k->err, LMO_E_UNSUPPORTED, "this volume driver cannot list its volumes");
    r = r == 0 ? l->code : r;
    json_t *root = json_object(), *array = k->json;
    k->json = NULL;
    if (lmo_json_put(root, "volumes", array) == 0) {
        k->json = root;
    } else {
        json_decref(root);
    }
    free(l);
    return r;
}

static int look_volume(struct look *k, struct lmo_volume_driver *d)
{
    struct lmo_volume_state *s = calloc(1, sizeof *s);
    int r = s ? d->ops->observe(d, k->name, s, OBSERVE_TIMEOUT_MS, &k->err)
              : lmo_fail(&k->err, LMO_E_NO_MEMORY, "no memory for a volume's state");
    if (r == 0) {
        k->json = volume_json(s);
    }
    free(s);
    return r;
}

/* Whatever of the two this worker has: the fabric's view, the host's view. */
static int look_port(struct look *k, struct lmo_worker *w)
{
    struct lmo_port port = {0};
    char text[1024] = "";
    bool open = false;
    memcpy(port.id, k->name, sizeof port.id);
    k->json = json_object();
    int r = lmo_json_put_str(k->json, "id", port.id);
    if (r == 0 && w->drv.fabric) {
        r = w->drv.fabric->ops->observe(w->drv.fabric, &port, text, sizeof text, OBSERVE_TIMEOUT_MS, &k->err);
        if (r == 0) {
            r = lmo_json_put_str(k->json, "fabric", text);
        }
    }
    if (r == 0 && w->drv.network) {
        struct lmo_err err = {0}; /* a port that is not on this host is no failure */
        if (w->drv.network->ops->activated(w->drv.network, &port, &open, OBSERVE_TIMEOUT_MS, &err) == 0) {
            r = lmo_json_put_bool(k->json, "activated", open);
        }
    }
    return r;
}

static void work(struct lmo_call *call)
{
    struct look *k = (struct look *)call;
    struct lmo_worker *w = call->w;
    switch (k->what) {
    case VMS: k->code = look_vms(k, w->drv.hypervisor); break;
    case VM: k->code = look_vm(k, w->drv.hypervisor); break;
    case VOLUMES: k->code = look_volumes(k, w->drv.volume); break;
    case VOLUME: k->code = look_volume(k, w->drv.volume); break;
    case PORT: k->code = look_port(k, w); break;
    }
}

static void done(struct lmo_call *call, bool ran)
{
    struct look *k = (struct look *)call;
    if (!ran) {
        lmo_http_reply_fail(k->http, LMO_E_UNAVAILABLE, "this worker is stopping");
    } else if (k->code < 0) {
        lmo_http_reply_error(k->http, &k->err);
    } else {
        lmo_http_reply_json(k->http, 200, json_incref(k->json));
    }
    json_decref(k->json);
    free(k);
}

static void look(struct lmo_worker *w, struct lmo_http_request *http, enum what what, const char *name, bool able)
{
    if (!able) {
        lmo_http_reply_fail(http, LMO_E_UNSUPPORTED, "this worker has no such capability");
        return;
    }
    struct look *k = calloc(1, sizeof *k);
    lmo_assert(k);
    k->call = (struct lmo_call){.work = work, .done = done};
    k->what = what;
    k->http = http;
    snprintf(k->name, sizeof k->name, "%s", name);
    lmo_call_submit(w, &k->call);
}

void lmo_observe_vms(struct lmo_worker *w, struct lmo_http_request *http, const char *vm)
{
    look(w, http, vm ? VM : VMS, vm ? vm : "", w->drv.hypervisor != NULL);
}

void lmo_observe_volumes(struct lmo_worker *w, struct lmo_http_request *http)
{
    look(w, http, VOLUMES, "", w->drv.volume != NULL);
}

void lmo_observe_volume(struct lmo_worker *w, struct lmo_http_request *http, const char *volume)
{
    look(w, http, VOLUME, volume, w->drv.volume != NULL);
}

void lmo_observe_port(struct lmo_worker *w, struct lmo_http_request *http, const char *port)
{
    look(w, http, PORT, port, w->drv.fabric != NULL || w->drv.network != NULL);
}
