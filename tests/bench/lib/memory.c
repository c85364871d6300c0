/* memory.c - workers that answer from memory, behind the engine's port. See bench.h. */
#include "bench/lib/bench.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/str.h"
#include "proto/vm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define SERVICE "10.0.0.9:10809"
#define FABRIC  "net"

/* A migration that calls come for. */
struct seen {
    struct memory_workers *w;
    char id[LMO_ID_MAX], vm[LMO_UUID_MAX], source[LMO_NAME_MAX], destination[LMO_NAME_MAX];
    uint64_t due_ns; /* of the next event */
    unsigned stage;  /* of the events after the gate */
    UT_hash_handle hh;
};

struct answer {
    struct memory_workers *w;
    char id[LMO_OP_ID_MAX], migration[LMO_ID_MAX], host[LMO_NAME_MAX];
    enum lmo_op_kind kind;
    uint64_t epoch;
    unsigned guest;
    uint64_t due_ns;
    lmo_op_done_fn *done;
    lmo_observe_done_fn *observed;
    void *arg;
};

static struct memory_workers *of(struct lmo_workers *w)
{
    return (struct memory_workers *)(void *)w;
}

void memory_guest_uuid(unsigned n, char uuid[LMO_UUID_MAX])
{
    snprintf(uuid, LMO_UUID_MAX, "00000000-0000-4000-8000-%012u", n);
}

static unsigned guest_number(const char *uuid)
{
    return (unsigned)strtoul(uuid + 24, NULL, 10);
}

static void host_name(unsigned n, char name[LMO_NAME_MAX])
{
    snprintf(name, LMO_NAME_MAX, "h%u", n + 1);
}

static void source_of(const struct memory_workers *w, unsigned guest, char name[LMO_NAME_MAX])
{
    host_name(guest % (w->hosts - 1), name);
}

static void destination_of(const struct memory_workers *w, unsigned guest, char name[LMO_NAME_MAX])
{
    host_name((guest + 1) % (w->hosts - 1), name);
}

static void facts_of(const struct memory_workers *w, unsigned guest, struct lmo_vm_facts *f)
{
    char source[LMO_NAME_MAX];
    source_of(w, guest, source);
    *f = (struct lmo_vm_facts){.state = LMO_RUN_RUNNING,
                               .persistent = true,
                               .memory_bytes = UINT64_C(8) << 30,
                               .vcpus = 4,
                               .volume_count = 2,
                               .port_count = 1};
    memory_guest_uuid(guest, f->uuid);
    snprintf(f->name, sizeof f->name, "guest-%u", guest);
    LMO_COPY(f->machine, "pc-q35-7.2");
    for (unsigned i = 0; i < f->volume_count; i++) {
        struct lmo_volume *v = &f->volumes[i];
        snprintf(v->volume, sizeof v->volume, "vol%u.%u", i + 1, guest);
        snprintf(v->target, sizeof v->target, "vd%c", 'a' + (char)i);
        LMO_COPY(v->driver, "nbd");
        LMO_COPY(v->service, SERVICE);
        snprintf(v->export_name, sizeof v->export_name, "vol%u.%u.%.60s.e1", i + 1, guest, source);
        v->size_bytes = UINT64_C(40) << 30;
    }
    snprintf(f->ports[0].id, sizeof f->ports[0].id, "7d9f1a5e-9f0b-4c5d-8e6f-%012u", guest);
    LMO_COPY(f->ports[0].mac, "52:54:00:00:00:01");
    LMO_COPY(f->ports[0].bridge, "br-int");
    LMO_COPY(f->ports[0].fabric, FABRIC);
}

/* ------------------------------------------------------------------ steps */

static void given(struct memory_workers *w, const char *migration, uint64_t due_ns, bool event)
{
    if (!w->steps) {
        return;
    }
    lmo_assert(w->pending_count < MEMORY_PENDING_MAX);
    struct memory_pending *p = &w->pending[w->pending_count++];
    *p = (struct memory_pending){.event = event, .due_ns = due_ns};
    LMO_COPY(p->migration, migration);
}

static bool is_stored(const char *migration, const struct lmo_commit_item *items, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(items[i].record->id, migration) == 0) {
            return true;
        }
    }
    return false;
}

void memory_workers_committed(struct memory_workers *w, const struct lmo_commit_item *items, unsigned count)
{
    uint64_t now = lmo_now_ns();
    w->settled_count = 0;
    for (unsigned i = 0; w->steps && i < w->pending_count; i++) {
        struct memory_pending *p = &w->pending[i];
        if (!p->event && !is_stored(p->migration, items, count)) {
            w->unsettled++;
            continue;
        }
        p->sample = w->steps->count;
        samples_add(w->steps, now - p->due_ns);
        w->settled[w->settled_count++] = *p;
    }
    w->pending_count = 0;
}

/* A call goes out: a step that it follows from ends no earlier. */
static void released(struct memory_workers *w, const char *migration)
{
    uint64_t now = lmo_now_ns();
    for (unsigned i = 0; w->steps && i < w->settled_count; i++) {
        const struct memory_pending *p = &w->settled[i];
        if (strcmp(p->migration, migration) == 0) {
            w->steps->ns[p->sample] = now - p->due_ns;
        }
    }
}

/* ------------------------------------------------------------------ events */

static void tell(struct memory_workers *w, const struct seen *m, const char *host, enum lmo_worker_event_kind kind)
{
    struct lmo_worker_event e = {.kind = kind, .at_us = (int64_t)lmo_realtime_us(), .ok = true, .duration_us = 30000};
    uint64_t *seq = &w->seqs[strtoul(host + 1, NULL, 10) % 64];
    e.seq = ++*seq;
    LMO_COPY(e.migration, m->id);
    LMO_COPY(e.vm, m->vm);
    LMO_COPY(e.answer, "frozen");
    LMO_COPY(e.evidence, "stopped; no run time since the pause, no resume in the monitor's log");
    w->cb.events(w->cb.arg, host, &e, 1, e.seq);
}

/* splitmix64: from 0 (not included) to 1. */
static double uniform(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return ((double)((z ^ (z >> 31)) >> 11) + 1) / 0x1p53;
}

/* Returns when it is due. */
static uint64_t after(struct memory_workers *w, lmo_loop_fn *fn, void *arg)
{
    uint64_t timer, due = lmo_now_ns();
    if (w->answer_us && w->random) {
        due += (uint64_t)(-log(uniform(&w->random)) * w->answer_us * 1000.0);
    } else if (w->answer_us) {
        uint32_t random;
        lmo_random(&random, sizeof random);
        due += (uint64_t)w->answer_us * (500 + random % 1000);
    }
    lmo_assert(lmo_loop_timer_at(w->loop, due, fn, arg, &timer) == 0);
    return due;
}

/* Pause, loaded, committed, fenced, resumed, and the end of the job. */
static void next_event(void *arg)
{
    struct seen *m = arg;
    struct memory_workers *w = m->w;
    static const enum lmo_worker_event_kind kinds[] = {LMO_WEV_SUSPENDED, LMO_WEV_LOADED,  LMO_WEV_COMMITTED,
                                                       LMO_WEV_FENCED,    LMO_WEV_JOB_END, LMO_WEV_RESUMED};
    enum lmo_worker_event_kind kind = kinds[m->stage];
    bool last = ++m->stage == sizeof kinds / sizeof kinds[0];
    given(w, m->id, m->due_ns, true);
    tell(w, m, kind == LMO_WEV_SUSPENDED || kind == LMO_WEV_JOB_END ? m->source : m->destination, kind);
    if (!last) {
        m->due_ns = after(w, next_event, m);
    }
}

/* ------------------------------------------------------------------ calls */

static struct seen *see(struct memory_workers *w, const struct lmo_op_request *req)
{
    struct seen *all = w->guests, *m;
    HASH_FIND_STR(all, req->migration, m);
    if (!m) {
        m = calloc(1, sizeof *m);
        lmo_assert(m);
        m->w = w;
        LMO_COPY(m->id, req->migration);
        LMO_COPY(m->vm, req->vm);
        LMO_COPY(m->source, req->source);
        LMO_COPY(m->destination, req->destination);
        HASH_ADD_STR(all, id, m);
        w->guests = all;
    }
    return m;
}

static void forget(struct memory_workers *w, struct seen *m)
{
    struct seen *all = w->guests;
    HASH_DEL(all, m);
    w->guests = all;
    free(m);
}

static char *make_xml(unsigned bytes)
{
    char *xml = malloc(bytes + 1);
    lmo_assert(xml);
    memset(xml, 'x', bytes);
    xml[bytes] = '\0';
    return xml;
}

static void give_answer(void *arg)
{
    struct answer *a = arg;
    struct memory_workers *w = a->w;
    struct seen *all = w->guests, *m;
    static struct lmo_op_reply reply;
    memset(&reply, 0, offsetof(struct lmo_op_reply, facts)); /* has_facts says whether there are any */
    memset((char *)&reply + offsetof(struct lmo_op_reply, export_name), 0,
           sizeof reply - offsetof(struct lmo_op_reply, export_name));
    LMO_COPY(reply.id, a->id);
    reply.state = LMO_OP_DONE;
    if (a->kind == LMO_OP_DESCRIBE) {
        reply.has_facts = true;
        facts_of(w, a->guest, &reply.facts);
        reply.xml = w->xml_bytes ? make_xml(w->xml_bytes) : NULL;
    } else if (a->kind == LMO_OP_ATTACH) {
        snprintf(reply.export_name, sizeof reply.export_name, "vol1.%u.%.40s.e%llu", a->guest, a->host,
                 (unsigned long long)a->epoch);
    }
    HASH_FIND_STR(all, a->migration, m);
    given(w, a->migration, a->due_ns, false);
    a->done(a->arg, 0, "", &reply);
    free(reply.xml);
    if (m && a->kind == LMO_OP_OPEN_GATE && !w->hold_precopy) {
        m->due_ns = after(w, next_event, m);
    } else if (m && a->kind == LMO_OP_CLOSE_SOURCE) {
        forget(w, m);
    }
    free(a);
}

static int op(struct lmo_workers *base, const char *host, const struct lmo_op_request *req, uint32_t timeout_ms,
              lmo_op_done_fn *done, void *arg, struct lmo_err *err)
{
    struct memory_workers *w = of(base);
    struct answer *a = calloc(1, sizeof *a);
    (void)timeout_ms, (void)err;
    lmo_assert(a);
    *a = (struct answer){.w = w, .kind = req->kind, .epoch = req->epoch, .done = done, .arg = arg};
    a->guest = guest_number(req->vm);
    LMO_COPY(a->id, req->id);
    LMO_COPY(a->migration, req->migration);
    LMO_COPY(a->host, host);
    (void)see(w, req);
    released(w, req->migration);
    w->ops++;
    a->due_ns = after(w, give_answer, a);
    return 0;
}

static void give_observation(void *arg)
{
    struct answer *a = arg;
    char source[LMO_NAME_MAX];
    source_of(a->w, a->guest, source);
    if (strcmp(source, a->host) == 0) {
        static struct lmo_vm_facts facts;
        facts_of(a->w, a->guest, &facts);
        json_t *j = lmo_vm_facts_to_json(&facts);
        a->observed(a->arg, 0, "", j);
        json_decref(j);
    } else {
        a->observed(a->arg, LMO_E_NOT_FOUND, "no such guest here", NULL);
    }
    free(a);
}

static int observe(struct lmo_workers *base, const char *host, const char *path, uint32_t timeout_ms,
                   lmo_observe_done_fn *done, void *arg, struct lmo_err *err)
{
    struct memory_workers *w = of(base);
    struct answer *a = calloc(1, sizeof *a);
    uint64_t timer;
    (void)timeout_ms, (void)err;
    lmo_assert(a);
    *a = (struct answer){.w = w, .observed = done, .arg = arg};
    a->guest = guest_number(strrchr(path, '/') + 1);
    LMO_COPY(a->host, host);
    lmo_assert(lmo_loop_timer(w->loop, 0, give_observation, a, &timer) == 0);
    return 0;
}

/* ------------------------------------------------------------------ hosts */

static int host_add(struct lmo_workers *w, const char *name, const char *url, uint64_t cursor, struct lmo_err *err)
{
    (void)url, (void)err;
    of(w)->seqs[strtoul(name + 1, NULL, 10) % 64] = cursor;
    return 0;
}

static void host_remove(struct lmo_workers *w, const char *name)
{
    (void)w, (void)name;
}

static void acknowledge(struct lmo_workers *w, const char *host, uint64_t cursor)
{
    (void)w, (void)host, (void)cursor;
}

static const struct lmo_workers_ops ops = {
    .host_add = host_add, .host_remove = host_remove, .acknowledge = acknowledge, .op = op, .observe = observe};

void memory_workers_init(struct memory_workers *w, struct lmo_loop *loop, unsigned hosts)
{
    lmo_assert(hosts >= 3 && hosts < 64);
    *w = (struct memory_workers){.base.ops = &ops, .loop = loop, .hosts = hosts};
}

void memory_workers_done(struct memory_workers *w)
{
    struct seen *all = w->guests, *m, *next;
    HASH_ITER(hh, all, m, next)
    {
        HASH_DEL(all, m);
        free(m);
    }
    w->guests = NULL;
}

const struct lmo_limits bench_limits = {.max_migrations = 20000,
                                        .max_incoming = 20000,
                                        .max_outgoing = 20000,
                                        .min_share_bytes_per_s = 1,
                                        .queue_timeout_ms = UINT64_C(24) * 3600 * 1000,
                                        .link = "migration"};

void memory_workers_up(struct memory_workers *w, const struct lmo_workers_callbacks *cb)
{
    w->cb = *cb;
    for (unsigned i = 0; i < w->hosts; i++) {
        struct lmo_host_facts f = {0};
        host_name(i, f.host);
        LMO_COPY(f.hypervisor, i + 1 < w->hosts ? "memory" : "");
        LMO_COPY(f.network_fabric, FABRIC);
        f.link_count = 1;
        LMO_COPY(f.links[0].name, bench_limits.link);
        snprintf(f.links[0].address, sizeof f.links[0].address, "10.0.2.%u", i + 1);
        if (i + 1 == w->hosts) {
            LMO_COPY(f.volume, "memory");
            LMO_COPY(f.volume_address, SERVICE);
            LMO_COPY(f.fabric, "memory");
            LMO_COPY(f.fabric_name, FABRIC);
        }
        cb->host_state(cb->arg, f.host, &f, "");
    }
}

void memory_hosts(const struct memory_workers *w, struct lmo_store *store)
{
    struct lmo_err err = {0};
    for (unsigned i = 0; i < w->hosts; i++) {
        struct lmo_host_row row = {0};
        host_name(i, row.name);
        snprintf(row.url, sizeof row.url, "https://10.0.1.%u:8443", i + 1);
        check(store->ops->host_put(store, &row, &err), &err, "host");
    }
}

void memory_record(const struct memory_workers *w, unsigned n, struct lmo_migration *m)
{
    memset(m, 0, sizeof *m);
    lmo_ulid_generate(m->id);
    source_of(w, n, m->source);
    destination_of(w, n, m->destination);
    facts_of(w, n, &m->vm);
    for (unsigned i = 0; i < m->vm.volume_count; i++) {
        struct lmo_volume *v = &m->vm.volumes[i];
        host_name(w->hosts - 1, v->worker);
        snprintf(v->worker_url, sizeof v->worker_url, "https://10.0.1.%u:8443", w->hosts);
        snprintf(v->export_destination, sizeof v->export_destination, "vol%u.%u.h%u.e16", i + 1, n,
                 (n + 1) % (w->hosts - 1) + 1);
    }
    host_name(w->hosts - 1, m->vm.ports[0].worker);
    snprintf(m->source_url, sizeof m->source_url, "https://10.0.1.%u:8443", n % (w->hosts - 1) + 1);
    snprintf(m->destination_url, sizeof m->destination_url, "https://10.0.1.%u:8443", (n + 1) % (w->hosts - 1) + 1);
    snprintf(m->peer_uri, sizeof m->peer_uri, "qemu+tls://h%u/system", (n + 1) % (w->hosts - 1) + 1);
    snprintf(m->migration_uri, sizeof m->migration_uri, "tcp://10.0.2.%u", (n + 1) % (w->hosts - 1) + 1);
    m->epoch = LMO_EPOCH_STRIDE;
    m->version = 14;
    m->phase = LMO_PHASE_PRECOPY;
    m->created_ms = m->updated_ms = m->phase_started_ms = (int64_t)(lmo_realtime_us() / 1000);
    m->phase_started_boot_us = lmo_now_ns() / 1000;
    m->policy.max_downtime_ms = m->downtime_ms = 300;
    m->policy.convergence_timeout_ms = 3600000;
    m->deadline_ms = m->created_ms + 3600000;
    m->next_ordinal = 14;
    m->group_open = true;
    for (int kind = LMO_OP_DESCRIBE; kind <= LMO_OP_JOB_START; kind++) {
        m->dispatched |= UINT64_C(1) << kind;
    }
    m->dispatched &= ~(UINT64_C(1) << LMO_OP_OPEN_GATE);
    /* One in four is being given its permit and its job, the others' jobs wait for the network. */
    bool first = n % 4 == 0;
    m->group = first ? 0 : 1;
    m->task_count = 2;
    m->tasks[0] = (struct lmo_task){.kind = first ? LMO_OP_PERMIT : LMO_OP_AWAIT_BOUND, .ordinal = 12};
    m->tasks[1] = (struct lmo_task){.kind = first ? LMO_OP_JOB_START : LMO_OP_AWAIT_INSTALLED, .ordinal = 13};
    m->tasks[0].group = m->tasks[1].group = m->group;
    for (unsigned i = 0; i < 2; i++) {
        m->tasks[i].state = LMO_TASK_SENT;
        m->tasks[i].attempts = 1;
        m->tasks[i].epoch = m->epoch;
        m->tasks[i].first_ms = m->created_ms;
    }
    for (enum lmo_phase p = LMO_PHASE_QUEUED; p <= LMO_PHASE_PRECOPY; p++) {
        m->phase_times[m->phase_time_count++] = (struct lmo_phase_time){.phase = p, .started_ms = m->created_ms};
    }
}
