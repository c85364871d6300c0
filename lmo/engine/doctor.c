/* doctor.c - gathers what core/doctor.h compares, shows what does not fit, and mends what is provably safe to mend.
 *
 * Looking: every host is asked for its guests, its workers' records and its volumes; then each port of each guest
 * that was seen, at its fabric. What a host did not answer in full makes that host unseen (T1).
 *
 * Mending: one thing at a time, each after everything has been looked at anew, by an ordinary order that its worker
 * journals and may refuse, or by telling the record a fact. No migration is started meanwhile. Each repair is a line
 * in the audit trail. */
#include "core/doctor.h"

#include "base/assert.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"
#include "proto/codec.h"
#include "proto/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_TIMEOUT_MS 12000 /* longer than a worker's own limit: its reason is better than ours */
#define PORTS_AT_ONCE   32
#define LIST_MAX        100000
#define REPAIRS_MAX     64 /* of one request */

/* A growing array: GROW(list, type) makes room for one more. */
struct list {
    void *items;
    unsigned count, room;
};

static void *list_add(struct list *l, size_t size)
{
    if (l->count == l->room) {
        unsigned room = l->room ? 2 * l->room : 64;
        void *grown = realloc(l->items, room * size);
        if (!grown) {
            return NULL;
        }
        l->items = grown;
        l->room = room;
    }
    void *item = (char *)l->items + (size_t)l->count++ * size;
    memset(item, 0, size);
    return item;
}
#define ADD(list, type) ((struct type *)list_add((list), sizeof(struct type)))

enum what { VMS, RECORDS, VOLUMES, PORT };

struct doctor {
    struct lmo_engine *engine;
    struct request *request; /* owned; NULL: only `fn` is told what was seen */
    engine_world_fn *fn;
    void *fn_arg;
    unsigned pending, next_port;
    bool no_memory;
    struct list hosts, guests, uses, exports, ports, records, ended, aside, open;
    struct lmo_finding *findings; /* LMO_FINDINGS_MAX */
    unsigned finding_count;
    bool more;
    /* mending */
    unsigned repairs;
    struct {
        struct lmo_finding finding;
        int code;
        char text[LMO_TEXT_MAX];
    } done[REPAIRS_MAX];
};

struct ask {
    struct doctor *d;
    enum what what;
    unsigned index; /* of the host, or the port */
};

static void examine(struct doctor *d);
static void ask_ports(struct doctor *d);

/* ------------------------------------------------------------------ looking */

static void unseen(struct doctor *d, const char *host, const char *why)
{
    struct lmo_doctor_host *hosts = d->hosts.items;
    for (unsigned i = 0; i < d->hosts.count; i++) {
        if (strcmp(hosts[i].name, host) == 0 && hosts[i].seen) {
            hosts[i].seen = false;
            LMO_COPY(hosts[i].why, why);
        }
    }
}

static void take_guest(struct doctor *d, const char *host, const json_t *item)
{
    static struct lmo_vm_facts vm; /* the loop thread's scratch */
    struct lmo_err err = {0};
    memset(&vm, 0, sizeof vm);
    if (lmo_vm_facts_from_json(item, &vm, &err) < 0) {
        unseen(d, host, err.text);
        return;
    }
    struct lmo_doctor_guest *g = ADD(&d->guests, lmo_doctor_guest);
    d->no_memory |= !g;
    if (g) {
        LMO_COPY(g->host, host);
        LMO_COPY(g->uuid, vm.uuid);
        LMO_COPY(g->name, vm.name);
        g->state = vm.state;
    }
    for (unsigned i = 0; i < vm.volume_count; i++) {
        struct lmo_doctor_use *u = ADD(&d->uses, lmo_doctor_use);
        d->no_memory |= !u;
        if (u) {
            LMO_COPY(u->uuid, vm.uuid);
            LMO_COPY(u->volume, vm.volumes[i].volume);
            LMO_COPY(u->export_name, vm.volumes[i].export_name);
        }
    }
    bool live = vm.state != LMO_RUN_SHUT_OFF && vm.state != LMO_RUN_ABSENT;
    for (unsigned i = 0; live && i < vm.port_count; i++) {
        struct lmo_doctor_port *p = ADD(&d->ports, lmo_doctor_port);
        d->no_memory |= !p;
        for (struct host *h = d->engine->hosts; p && h; h = h->hh.next) {
            if (h->facts.fabric_name[0] && strcmp(h->facts.fabric_name, vm.ports[i].fabric) == 0) {
                LMO_COPY(p->worker, h->row.name);
            }
        }
        if (p) {
            LMO_COPY(p->id, vm.ports[i].id);
            LMO_COPY(p->uuid, vm.uuid);
            LMO_COPY(p->guest_host, host);
        }
    }
}

static enum lmo_op_role role_of(const char *word)
{
    static const char *const words[] = {"", "source", "destination", "volume", "fabric"};
    for (int i = LMO_OP_ROLE_SOURCE; i <= LMO_OP_ROLE_FABRIC; i++) {
        if (strcmp(words[i], word) == 0) {
            return (enum lmo_op_role)i;
        }
    }
    return LMO_OP_ROLE_NONE;
}

static int text_of(const json_t *o, const char *field, char *ret, size_t size)
{
    return lmo_json_str(o, field, ret, size, false, NULL);
}

static void take_record(struct doctor *d, const char *host, const json_t *item)
{
    struct lmo_doctor_record r = {0};
    char role[16] = "";
    int rc = text_of(item, "migration", r.migration, sizeof r.migration);
    rc |= text_of(item, "vm", r.vm, sizeof r.vm);
    rc |= text_of(item, "stage", r.stage, sizeof r.stage);
    rc |= text_of(item, "role", role, sizeof role);
    rc |= lmo_json_u64(item, "epoch", 0, INT64_MAX, &r.epoch, true, NULL);
    r.role = role_of(role);
    struct lmo_doctor_record *to = rc == 0 && r.role != LMO_OP_ROLE_NONE ? ADD(&d->records, lmo_doctor_record) : NULL;
    if (!to) {
        unseen(d, host, "a record of its is not understood");
        return;
    }
    LMO_COPY(r.worker, host);
    *to = r;
}

static void take_volume(struct doctor *d, const char *host, const json_t *item)
{
    char volume[LMO_NAME_MAX] = "";
    size_t i;
    const json_t *x;
    if (text_of(item, "volume", volume, sizeof volume) < 0) {
        unseen(d, host, "a volume of its is not understood");
        return;
    }
    json_array_foreach(json_object_get(item, "exports"), i, x)
    {
        struct lmo_doctor_export *e = ADD(&d->exports, lmo_doctor_export);
        d->no_memory |= !e;
        if (e && (text_of(x, "name", e->name, sizeof e->name) < 0 || text_of(x, "host", e->host, sizeof e->host) < 0 ||
                  lmo_json_u64(x, "epoch", 0, INT64_MAX, &e->epoch, true, NULL) < 0)) {
            d->exports.count--;
            unseen(d, host, "an export of its is not understood");
        } else if (e) {
            LMO_COPY(e->worker, host);
            LMO_COPY(e->volume, volume);
            e->offered = json_is_true(json_object_get(x, "offered"));
            e->fenced = json_is_true(json_object_get(x, "fenced"));
        }
    }
}

/* The value of "key=" in a line of words. */
static void word_of(const char *line, const char *key, char *ret, size_t size)
{
    size_t len = strlen(key);
    ret[0] = '\0';
    for (const char *at = line; *at; at += strcspn(at, " "), at += strspn(at, " ")) {
        if (strncmp(at, key, len) == 0 && at[len] == '=') {
            (void)snprintf(ret, size, "%.*s", (int)strcspn(at + len + 1, " "), at + len + 1);
        }
    }
}

static void take_port(struct lmo_doctor_port *p, const json_t *body)
{
    const char *line = json_string_value(json_object_get(body, "fabric"));
    if (line) {
        word_of(line, "chassis", p->bound, sizeof p->bound);
        word_of(line, "additional", p->additional, sizeof p->additional);
        word_of(line, "requested-chassis", p->requested, sizeof p->requested);
    }
}

static void on_look(void *arg, int code, const char *text, const json_t *body)
{
    struct ask *a = arg;
    struct doctor *d = a->d;
    static const char *const member[] = {"vms", "migrations", "volumes"};
    if (a->what == PORT) {
        struct lmo_doctor_port *p = (struct lmo_doctor_port *)d->ports.items + a->index;
        if (code == 0) {
            take_port(p, body);
        } else if (code != LMO_E_NOT_FOUND) {
            unseen(d, p->worker, text);
        }
    } else {
        char host[LMO_NAME_MAX];
        const json_t *array = code == 0 ? json_object_get(body, member[a->what]) : NULL;
        size_t i;
        const json_t *item;
        LMO_COPY(host, ((struct lmo_doctor_host *)d->hosts.items)[a->index].name);
        if (!json_is_array(array)) {
            unseen(d, host, code < 0 ? text : "its answer is not understood");
        }
        json_array_foreach(array, i, item)
        {
            switch (a->what) {
            case VMS: take_guest(d, host, item); break;
            case RECORDS: take_record(d, host, item); break;
            case VOLUMES: take_volume(d, host, item); break;
            case PORT: break;
            }
        }
    }
    free(a);
    d->pending--;
    ask_ports(d);
}

static void look(struct doctor *d, enum what what, unsigned index, const char *host, const char *path)
{
    struct lmo_workers *w = d->engine->workers;
    struct lmo_err err = {0};
    struct ask *a = malloc(sizeof *a);
    lmo_assert(a);
    *a = (struct ask){.d = d, .what = what, .index = index};
    d->pending++;
    if (w->ops->observe(w, host, path, LOOK_TIMEOUT_MS, on_look, a, &err) < 0) {
        d->pending--;
        free(a);
        unseen(d, host, err.text);
    }
}

static int add_host(struct doctor *d, struct host *h)
{
    struct lmo_doctor_host *to = ADD(&d->hosts, lmo_doctor_host);
    if (!to) {
        return LMO_E_NO_MEMORY;
    }
    LMO_COPY(to->name, h->row.name);
    to->hypervisor = !h->facts.host[0] || h->facts.hypervisor[0];
    to->seen = h->up;
    LMO_COPY(to->why, h->up ? "" : h->known ? h->last_error : "not heard of since the coordinator started");
    return 0;
}

static void forget(struct doctor *d)
{
    struct list *lists[] = {&d->hosts,   &d->guests, &d->uses,  &d->exports, &d->ports,
                            &d->records, &d->ended,  &d->aside, &d->open};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        free(lists[i]->items);
        *lists[i] = (struct list){0};
    }
    d->next_port = 0;
    d->finding_count = 0;
    d->more = false;
}

static void gather(struct doctor *d)
{
    struct lmo_engine *e = d->engine;
    forget(d);
    d->pending = 1; /* ours, until all are asked */
    for (struct host *h = e->hosts; h; h = h->hh.next) {
        d->no_memory |= add_host(d, h) < 0;
    }
    for (unsigned i = 0; i < d->hosts.count; i++) {
        struct lmo_doctor_host host = ((struct lmo_doctor_host *)d->hosts.items)[i];
        const struct host *h = engine_host(e, host.name);
        if (!host.seen || !h) {
            continue;
        }
        if (h->facts.hypervisor[0]) {
            look(d, VMS, i, host.name, "/v1/observe/vms");
        }
        if (h->facts.volume[0]) {
            look(d, VOLUMES, i, host.name, "/v1/observe/volumes");
        }
        look(d, RECORDS, i, host.name, "/v1/observe/migrations");
    }
    d->pending--;
    ask_ports(d);
}

/* When nothing else is asked any more: the ports, some at a time; when they are through: the comparison. */
static void ask_ports(struct doctor *d)
{
    char path[64 + LMO_NAME_MAX];
    if (d->next_port == 0 && d->pending > 0) {
        return;
    }
    while (d->pending < PORTS_AT_ONCE && d->next_port < d->ports.count) {
        struct lmo_doctor_port *p = (struct lmo_doctor_port *)d->ports.items + d->next_port++;
        if (p->worker[0] && lmo_name_valid(p->id)) {
            (void)snprintf(path, sizeof path, "/v1/observe/port/%s", p->id);
            look(d, PORT, d->next_port - 1, p->worker, path);
        }
    }
    if (d->pending == 0) {
        examine(d);
    }
}

/* ------------------------------------------------------------------ comparing */

static int by_uuid(const void *a, const void *b)
{
    return strcmp(((const struct lmo_doctor_guest *)a)->uuid, ((const struct lmo_doctor_guest *)b)->uuid);
}

/* How the migrations ended that workers still remember. */
static void look_up_ended(struct doctor *d)
{
    static struct lmo_migration m; /* the loop thread's scratch */
    const struct lmo_doctor_record *records = d->records.items;
    for (unsigned i = 0; i < d->records.count; i++) {
        struct lmo_err err = {0};
        if (engine_entry(d->engine, records[i].migration)) {
            continue;
        }
        struct lmo_doctor_ended *e = ADD(&d->ended, lmo_doctor_ended);
        d->no_memory |= !e;
        if (!e) {
            return;
        }
        LMO_COPY(e->migration, records[i].migration);
        e->phase = LMO_PHASE_COUNT;
        if (d->engine->store->ops->get(d->engine->store, records[i].migration, &m, &err) == 0) {
            e->phase = m.phase;
            e->epoch = m.epoch;
            LMO_COPY(e->source, m.source);
            LMO_COPY(e->destination, m.destination);
        }
    }
}

static struct lmo_doctor_world world_of(const struct doctor *d)
{
    return (struct lmo_doctor_world){
        .hosts = d->hosts.items,
        .host_count = d->hosts.count,
        .guests = d->guests.items,
        .guest_count = d->guests.count,
        .uses = d->uses.items,
        .use_count = d->uses.count,
        .exports = d->exports.items,
        .export_count = d->exports.count,
        .ports = d->ports.items,
        .port_count = d->ports.count,
        .records = d->records.items,
        .record_count = d->records.count,
        .ended = d->ended.items,
        .ended_count = d->ended.count,
        .aside = d->aside.items,
        .aside_count = d->aside.count,
        .open = d->open.items,
        .open_count = d->open.count,
    };
}

static void compare(struct doctor *d)
{
    struct lmo_engine *e = d->engine;
    look_up_ended(d);
    for (struct entry *entry = e->entries; entry; entry = entry->hh.next) {
        /* A copy, for as long as the comparison lasts: packed records are unpacked one at a time. */
        struct lmo_migration *copy = malloc(sizeof *copy);
        const struct lmo_migration **m = copy ? list_add(&d->open, sizeof *m) : NULL;
        d->no_memory |= !m;
        if (!m) {
            free(copy);
            break;
        }
        *copy = *engine_record(entry);
        *m = copy;
    }
    for (const struct quarantined *q = e->quarantine; q; q = q->next) {
        struct lmo_doctor_aside *a = ADD(&d->aside, lmo_doctor_aside);
        d->no_memory |= !a;
        if (a) {
            LMO_COPY(a->migration, q->row.migration);
            LMO_COPY(a->vm, q->row.vm_uuid);
            LMO_COPY(a->why, q->row.why);
        }
    }
    if (d->guests.count > 1) {
        qsort(d->guests.items, d->guests.count, sizeof(struct lmo_doctor_guest), by_uuid);
    }
    const struct lmo_doctor_world w = world_of(d);
    if (d->fn) {
        d->fn(d->fn_arg, d->no_memory ? NULL : &w);
    } else {
        d->finding_count = lmo_doctor_examine(&w, d->findings, LMO_FINDINGS_MAX, &d->more);
    }
    for (unsigned i = 0; i < d->open.count; i++) {
        free((void *)(uintptr_t)w.open[i]);
    }
}

/* ------------------------------------------------------------------ the answer */

#define TEXT(field) ((field)[0] ? lmo_codec_string((field), sizeof(field) - 1) : json_null())

static json_t *finding_json(const struct lmo_finding *f)
{
    json_t *o = json_object(), *commands = json_array();
    int r = lmo_json_put_str(o, "kind", lmo_finding_text(f->kind));
    r |= lmo_json_put_str(o, "severity", lmo_severity_text(lmo_finding_severity(f->kind)));
    r |= lmo_json_put(o, "text", TEXT(f->text));
    r |= lmo_json_put(o, "evidence", TEXT(f->evidence));
    r |= lmo_json_put(o, "migration", TEXT(f->migration));
    r |= lmo_json_put(o, "vm", TEXT(f->vm));
    r |= lmo_json_put(o, "host", TEXT(f->host));
    r |= lmo_json_put(o, "object", TEXT(f->object));
    r |= lmo_json_put(o, "repair", f->repair ? json_string(lmo_repair_text(f->repair)) : json_null());
    for (unsigned i = 0; i < f->command_count; i++) {
        r |= lmo_json_add(commands, TEXT(f->commands[i]));
    }
    r |= lmo_json_put(o, "commands", commands);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *answer_json(const struct doctor *d)
{
    json_t *o = json_object(), *findings = json_array(), *repairs = json_array();
    int r = 0;
    for (unsigned i = 0; i < d->finding_count; i++) {
        r |= lmo_json_add(findings, finding_json(&d->findings[i]));
    }
    for (unsigned i = 0; i < d->repairs; i++) {
        json_t *one = finding_json(&d->done[i].finding);
        r |= lmo_json_put_str(one, "outcome", lmo_err_name(d->done[i].code));
        r |= lmo_json_put(one, "outcome_text", TEXT(d->done[i].text));
        r |= lmo_json_add(repairs, one);
    }
    r |= lmo_json_put(o, "findings", findings);
    r |= lmo_json_put(o, "repairs", repairs);
    r |= lmo_json_put_bool(o, "more", d->more);
    r |= lmo_json_put_u64(o, "hosts", d->hosts.count);
    r |= lmo_json_put_u64(o, "guests", d->guests.count);
    r |= lmo_json_put_u64(o, "open_migrations", d->open.count);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void end(struct doctor *d)
{
    struct request *q = d->request;
    json_t *body = d->no_memory ? NULL : answer_json(d);
    d->engine->doctor = d->engine->mending = false;
    if (d->engine->stopping) {
        json_decref(body);
        engine_reply_fail(q->fn, q->arg, LMO_E_UNAVAILABLE, "", "the coordinator is stopping");
    } else if (!body) {
        engine_reply_fail(q->fn, q->arg, LMO_E_NO_MEMORY, "", "no memory for the comparison");
    } else {
        engine_reply_ok(q->fn, q->arg, 200, body, "");
    }
    forget(d);
    free(d->findings);
    free(q);
    free(d);
}

/* ------------------------------------------------------------------ mending */

static bool tried(const struct doctor *d, const struct lmo_finding *f)
{
    for (unsigned i = 0; i < d->repairs; i++) {
        const struct lmo_finding *g = &d->done[i].finding;
        if (g->kind == f->kind && g->role == f->role && strcmp(g->migration, f->migration) == 0 &&
            strcmp(g->host, f->host) == 0 && strcmp(g->object, f->object) == 0) {
            return true;
        }
    }
    return false;
}

static void repaired(struct doctor *d, int code, const char *text)
{
    const struct lmo_finding *f = &d->done[d->repairs].finding;
    struct lmo_audit_line l = {0};
    d->done[d->repairs].code = code;
    LMO_COPY(d->done[d->repairs].text, text);
    LMO_COPY(l.request, "doctor");
    LMO_COPY(l.principal, d->request->url);
    (void)snprintf(l.action, sizeof l.action, "repair %s: %s", lmo_repair_text(f->repair), lmo_finding_text(f->kind));
    LMO_COPY(l.migration, f->migration);
    LMO_COPY(l.host, f->host);
    LMO_COPY(l.outcome, lmo_err_name(code));
    (void)snprintf(l.detail, sizeof l.detail, "%.150s %.100s", f->text, text);
    engine_audit(d->engine, &l);
    lmo_log(code ? LMO_LOG_WARN : LMO_LOG_INFO, "doctor's repair",
            "repair=%s host=%s migration=%s object=%s code=%s why=%s", lmo_repair_text(f->repair), f->host,
            f->migration, f->object, lmo_err_name(code), text);
    d->repairs++;
    gather(d); /* everything anew: for the next repair, and for the answer */
}

static void on_repaired(void *arg, int code, const char *text, const struct lmo_op_reply *reply)
{
    struct doctor *d = arg;
    bool failed = code == 0 && reply->state != LMO_OP_DONE;
    char why[LMO_TEXT_MAX];
    LMO_COPY(why, failed ? reply->text : text ? text : "");
    repaired(d, failed ? reply->code : code, why);
}

static void tell(struct doctor *d, const struct lmo_finding *f)
{
    struct entry *entry = engine_entry(d->engine, f->migration);
    struct lmo_err err = {0};
    struct lmo_worker_event w = {.kind = f->repair == LMO_REPAIR_RESUMED ? LMO_WEV_RESUMED : LMO_WEV_BACK,
                                 .at_us = engine_now_ms(d->engine) * 1000,
                                 .state = LMO_RUN_RUNNING};
    LMO_COPY(w.evidence, f->evidence);
    struct lmo_event ev = {.kind = LMO_EV_WORKER, .worker = &w};
    int r = entry ? engine_apply(entry, &ev, &err) : LMO_E_NOT_FOUND;
    repaired(d, r, err.text);
}

static enum lmo_op_kind close_of(enum lmo_op_role role)
{
    switch (role) {
    case LMO_OP_ROLE_SOURCE: return LMO_OP_CLOSE_SOURCE;
    case LMO_OP_ROLE_DESTINATION: return LMO_OP_CLOSE_DESTINATION;
    case LMO_OP_ROLE_VOLUME: return LMO_OP_CLOSE_VOLUME;
    case LMO_OP_ROLE_FABRIC: return LMO_OP_CLOSE_FABRIC;
    case LMO_OP_ROLE_NONE: break;
    }
    lmo_unreachable("a record of no role");
}

/* Orders about no migration have an id without a dot and name no guest: no epoch of a guest's is touched by them. */
static void fill_order(const struct lmo_finding *f, struct lmo_op_request *req)
{
    char id[LMO_ID_MAX];
    lmo_ulid_generate(id);
    req->epoch = f->epoch ? f->epoch : 1;
    if (f->repair == LMO_REPAIR_CLOSE) {
        req->kind = close_of(f->role);
        LMO_COPY(req->migration, f->migration);
        LMO_COPY(req->vm, f->vm);
        (void)snprintf(req->id, sizeof req->id, "%s.%llu.0-%s", f->migration, (unsigned long long)req->epoch,
                       lmo_op_info(req->kind)->text);
        return;
    }
    req->kind = f->repair == LMO_REPAIR_DETACH ? LMO_OP_DETACH_SOURCE : LMO_OP_SINGLE_DESTINATION;
    (void)snprintf(req->id, sizeof req->id, "doctor-%s-%s", id, lmo_op_info(req->kind)->text);
    if (f->repair == LMO_REPAIR_DETACH) {
        req->volume_count = 1;
        LMO_COPY(req->volumes[0].volume, f->volume);
        LMO_COPY(req->volumes[0].target, "none"); /* no guest's device: the message wants one */
        LMO_COPY(req->volumes[0].export_name, f->object);
    } else {
        req->port_count = 1;
        LMO_COPY(req->ports[0].id, f->object);
        LMO_COPY(req->destination, f->other);
        LMO_COPY(req->source, f->other);
    }
}

static void mend(struct doctor *d, const struct lmo_finding *f)
{
    static struct lmo_op_request req; /* the loop thread's scratch */
    struct lmo_err err = {0};
    d->done[d->repairs].finding = *f;
    if (f->repair == LMO_REPAIR_RESUMED || f->repair == LMO_REPAIR_BACK) {
        tell(d, f);
        return;
    }
    memset(&req, 0, sizeof req);
    fill_order(f, &req);
    struct lmo_workers *w = d->engine->workers;
    if (w->ops->op(w, f->host, &req, lmo_op_info(req.kind)->timeout_ms, on_repaired, d, &err) < 0) {
        repaired(d, err.code, err.text);
    }
}

static void examine(struct doctor *d)
{
    struct lmo_engine *e = d->engine;
    if (d->fn) {
        e->doctor = false;
        if (e->stopping) {
            d->fn(d->fn_arg, NULL);
        } else {
            compare(d);
        }
        forget(d);
        free(d);
        return;
    }
    if (e->stopping) {
        end(d);
        return;
    }
    compare(d);
    for (unsigned i = 0; d->engine->mending && !d->no_memory && d->repairs < REPAIRS_MAX && i < d->finding_count; i++) {
        if (d->findings[i].repair != LMO_REPAIR_NONE && !tried(d, &d->findings[i])) {
            mend(d, &d->findings[i]);
            return;
        }
    }
    end(d);
}

int engine_look_at_all(struct lmo_engine *e, engine_world_fn *fn, void *arg, struct lmo_err *err)
{
    struct doctor *d = e->doctor ? NULL : calloc(1, sizeof *d);
    if (!d) {
        return e->doctor ? lmo_fail(err, LMO_E_BUSY, "another doctor is looking already")
                         : lmo_fail(err, LMO_E_NO_MEMORY, "no memory to look at all hosts");
    }
    *d = (struct doctor){.engine = e, .fn = fn, .fn_arg = arg};
    e->doctor = true;
    gather(d);
    return 0;
}

static void doctor(struct request *q)
{
    struct lmo_engine *e = q->engine;
    if (e->doctor) {
        engine_reply_fail(q->fn, q->arg, LMO_E_BUSY, "", "another doctor is looking already");
        return;
    }
    if (q->repair && (e->stalled || e->creating > 0)) {
        engine_reply_fail(q->fn, q->arg, LMO_E_BUSY, "",
                          e->stalled ? "the coordinator's store cannot be written now"
                                     : "a migration is being started; try again");
        return;
    }
    struct doctor *d = calloc(1, sizeof *d);
    struct request *kept = malloc(sizeof *kept);
    struct lmo_finding *findings = calloc(LMO_FINDINGS_MAX, sizeof *findings);
    if (!d || !kept || !findings) {
        free(d);
        free(kept);
        free(findings);
        engine_reply_fail(q->fn, q->arg, LMO_E_NO_MEMORY, "", "no memory to look at all hosts");
        return;
    }
    *kept = *q; /* the caller frees the original */
    d->engine = e;
    d->request = kept;
    d->findings = findings;
    e->doctor = true;
    e->mending = q->repair;
    gather(d);
}

int lmo_engine_doctor(struct lmo_engine *e, bool repair, const char *principal, lmo_engine_reply_fn *fn, void *arg)
{
    struct request q = engine_request(doctor, fn, arg, "");
    LMO_COPY(q.url, principal);
    q.repair = repair;
    q.harmless = !repair;
    return engine_post(e, &q);
}
