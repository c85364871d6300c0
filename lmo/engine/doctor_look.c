/* doctor_look.c - what the doctor sees: every host is asked for its guests, its worker's records and its volumes; then each
 * port of each guest that was seen, at its fabric. What a host did not answer in full makes that host unseen (T1). */
#include "engine/doctor.h"

#include "base/assert.h"
#include "base/id.h"
#include "base/json.h"
#include "base/str.h"
#include "proto/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_TIMEOUT_MS 12000 /* longer than a worker's own limit: its reason is better than ours */
#define PORTS_AT_ONCE   32

enum what { VMS, RECORDS, VOLUMES, PORT };

struct ask {
    struct doctor *d;
    enum what what;
    unsigned index; /* of the host, or the port */
};

static void ask_ports(struct doctor *d);

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

void engine_doctor_look(struct doctor *d)
{
    struct lmo_engine *e = d->engine;
    engine_doctor_forget(d);
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
        engine_doctor_seen(d);
    }
}
