/* world.c - hypervisors and their jobs, guests and their writes (world.h). */
#include "world.h"
#include "sim_private.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIVE_UP_NS   (4 * SIM_S)  /* keepalive, as deploy/ sets it */
#define TERM_NS      (10 * SIM_S) /* a stopped process does not hear SIGTERM */
#define TICK_BUSY_NS (40 * SIM_MS)
#define TICK_IDLE_NS (700 * SIM_MS)

struct world world;

/* A write on its way, through the export that its copy had when it was issued. */
struct travelling {
    bool used;
    uint16_t generation;
    unsigned guest, host, i;
    uint32_t number;
    uint64_t serial; /* tells it from others that had this slot */
    char export_name[LMO_EXPORT_MAX];
};
#define TRAVELLING_MAX 256
static struct travelling travelling[TRAVELLING_MAX];
static uint64_t travelling_serial;

static unsigned index_of(const struct w_guest *g)
{
    return (unsigned)(g - world.guests);
}

/* ------------------------------------------------------------------ numbers that ride in events' arguments */

static void *pack(const struct w_guest *g, unsigned host, uint64_t number)
{
    return (void *)(uintptr_t)(number << 16 | (uint64_t)host << 8 | index_of(g));
}

static struct w_guest *unpack(void *arg, unsigned *ret_host, uint64_t *ret_number)
{
    uint64_t v = (uint64_t)(uintptr_t)arg;
    *ret_host = (unsigned)(v >> 8 & 255);
    *ret_number = v >> 16;
    return &world.guests[v & 255];
}

/* ------------------------------------------------------------------ making it */

void world_begin(void)
{
    memset(&world, 0, sizeof world);
    memset(travelling, 0, sizeof travelling);
    travelling_serial = 0;
    world.rng = sim_rng_new(sim_seed(), "world");
}

unsigned world_add_host(const char *name, bool hypervisor, bool storage, struct sim_process *p)
{
    lmo_assert(world.host_count < W_HOSTS);
    struct w_host *h = &world.hosts[world.host_count];
    *h = (struct w_host){.hypervisor = hypervisor, .storage = storage, .process = p};
    snprintf(h->name, sizeof h->name, "%s", name);
    world.hypervisor_count += hypervisor;
    return world.host_count++;
}

static unsigned add_volume(const char *name, unsigned storage, unsigned at)
{
    lmo_assert(world.volume_count < W_VOLUMES);
    struct w_volume *v = &world.volumes[world.volume_count];
    char host[LMO_NAME_MAX];
    memcpy(host, world.hosts[at].name, sizeof host);
    snprintf(v->name, sizeof v->name, "%s", name);
    v->storage = storage;
    struct w_export *x = &v->exports[0];
    snprintf(x->name, sizeof x->name, "%.60s.%.60s.e1", name, host);
    memcpy(x->host, host, sizeof x->host);
    x->epoch = 1;
    x->offered = true;
    return world.volume_count++;
}

unsigned world_add_guest(const char *name, unsigned host, unsigned volumes, unsigned ports, uint64_t memory_bytes,
                         uint64_t dirty_bytes_per_s, bool persistent, enum w_how how)
{
    lmo_assert(world.guest_count < W_GUESTS && volumes <= W_VOLUMES_PER_GUEST && ports <= W_PORTS_PER_GUEST);
    unsigned n = world.guest_count++;
    struct w_guest *g = &world.guests[n];
    snprintf(g->name, sizeof g->name, "%s", name);
    snprintf(g->uuid, sizeof g->uuid, "3f2c1a5e-9f0b-4c5d-8e6f-%012u", n + 1);
    g->memory_bytes = memory_bytes;
    g->dirty_bytes_per_s = dirty_bytes_per_s;
    g->persistent = persistent;
    g->autostart = persistent && n % 2 == 0;
    g->owner_paused = how == W_PAUSED_BY_OWNER;
    g->shut_off = how == W_SHUT_OFF;
    g->volume_count = volumes;
    g->port_count = ports;
    struct w_copy *c = &g->copies[host];
    *c = (struct w_copy){.process = how != W_SHUT_OFF,
                         .vcpus = how == W_RUNS,
                         .paused_by_user = how == W_PAUSED_BY_OWNER,
                         .defined = persistent,
                         .autostart = g->autostart,
                         .generation = 1};
    for (unsigned i = 0; i < volumes; i++) {
        char volume[LMO_NAME_MAX];
        unsigned storage = world.hypervisor_count + (n + i) % (world.host_count - world.hypervisor_count);
        snprintf(volume, sizeof volume, "%.40s-disk%u", name, i);
        g->volumes[i] = add_volume(volume, storage, host);
        memcpy(c->exports[i], world.volumes[g->volumes[i]].exports[0].name, sizeof c->exports[i]);
    }
    for (unsigned i = 0; i < ports; i++) {
        lmo_assert(world.port_count < W_PORTS);
        struct w_port *p = &world.ports[world.port_count];
        snprintf(p->id, sizeof p->id, "%.40s-port%u", name, i);
        p->bound = g->shut_off ? -1 : (int)host;
        p->additional = -1;
        p->requested = g->shut_off && i == 0 ? (int)host : -1;
        g->ports[i] = world.port_count++;
    }
    return n;
}

/* ------------------------------------------------------------------ looking things up */

unsigned world_host_index(const char *name)
{
    unsigned i = 0;
    while (i < world.host_count && strcmp(world.hosts[i].name, name) != 0) {
        i++;
    }
    return i < world.host_count ? i : W_HOSTS;
}

struct w_host *world_host_of(const struct sim_process *p)
{
    for (unsigned i = 0; i < world.host_count; i++) {
        if (world.hosts[i].process == p) {
            return &world.hosts[i];
        }
    }
    return NULL;
}

struct w_guest *world_guest(const char *name)
{
    for (unsigned i = 0; i < world.guest_count; i++) {
        if (strcmp(world.guests[i].uuid, name) == 0 || strcmp(world.guests[i].name, name) == 0) {
            return &world.guests[i];
        }
    }
    return NULL;
}

struct w_volume *world_volume(const char *name)
{
    for (unsigned i = 0; i < world.volume_count; i++) {
        if (strcmp(world.volumes[i].name, name) == 0) {
            return &world.volumes[i];
        }
    }
    return NULL;
}

struct w_port *world_port(const char *id)
{
    for (unsigned i = 0; i < world.port_count; i++) {
        if (strcmp(world.ports[i].id, id) == 0) {
            return &world.ports[i];
        }
    }
    return NULL;
}

struct w_export *world_export(struct w_volume *v, const char *name)
{
    for (unsigned i = 0; i < W_EXPORTS; i++) {
        if (strcmp(v->exports[i].name, name) == 0) {
            return &v->exports[i];
        }
    }
    return NULL;
}

bool world_runs(const struct w_copy *c)
{
    return c->process && c->vcpus && !c->stopped;
}

enum lmo_run_state world_state(const struct w_guest *g, unsigned host)
{
    const struct w_copy *c = &g->copies[host];
    if (!c->process) {
        return c->defined ? LMO_RUN_SHUT_OFF : LMO_RUN_ABSENT;
    }
    if (c->incoming) {
        return LMO_RUN_INCOMING;
    }
    if (c->loaded) {
        return LMO_RUN_LOADED; /* until it is resumed or settled: the driver keeps a marker of how it came in */
    }
    if (c->migration_pause) {
        return LMO_RUN_PAUSED_MIGRATION;
    }
    return c->paused_by_user ? LMO_RUN_PAUSED_BY_USER : c->vcpus ? LMO_RUN_RUNNING : LMO_RUN_PAUSED_OTHER;
}

void world_changed(void)
{
    sim_changes();
    check_world();
    sim_wake(&world.changed);
}

/* ------------------------------------------------------------------ events to whoever watches */

struct emitted {
    unsigned host;
    uint64_t incarnation;
    struct lmo_hv_event ev;
};

static void hand_over(void *arg)
{
    struct emitted *e = arg;
    struct w_host *h = &world.hosts[e->host];
    enum sim_fate fate = sim_observe(SIM_POINT_EVENT);
    struct lmo_hv_event ev = e->ev;
    ev.monotonic_ns = sim_now();
    h->on_event(h->event_arg, &ev);
    sim_after(fate);
}

static void emitted_due(void *arg)
{
    struct emitted *e = arg;
    struct w_host *h = &world.hosts[e->host];
    struct sim_process *p = h->process;
    if (p->alive && p->asleep_until > sim_now()) {
        sim_at(NULL, p->asleep_until, emitted_due, e);
        return;
    }
    if (p->alive && p->incarnation == e->incarnation && h->event_incarnation == e->incarnation) {
        sim_run_in(p, hand_over, e);
    }
    free(e);
}

/* In the order in which they happened. A watch that is broken (libvirtd restarts) loses them. */
static void emit(unsigned host, const char *uuid, enum lmo_hv_event_kind kind, const char *reason, uint64_t value)
{
    struct w_host *h = &world.hosts[host];
    bool about_watch = kind == LMO_HV_EV_WATCH_BROKEN || kind == LMO_HV_EV_WATCH_RESTORED;
    if (!h->process->alive || h->event_incarnation != h->process->incarnation ||
        (h->down_until > sim_now() && !about_watch)) {
        return;
    }
    struct sim_process *before = sim_own(NULL);
    struct emitted *e = calloc(1, sizeof *e);
    lmo_assert(e);
    (void)sim_own(before);
    *e = (struct emitted){.host = host,
                          .incarnation = h->event_incarnation,
                          .ev = {.kind = kind, .value = value, .realtime_us = SIM_EPOCH_US + sim_now() / 1000}};
    snprintf(e->ev.uuid, sizeof e->ev.uuid, "%s", uuid);
    snprintf(e->ev.reason, sizeof e->ev.reason, "%s", reason);
    uint64_t when = sim_now() + sim_latency(&world.rng, 400 * SIM_US, 30);
    h->last_event_ns = when > h->last_event_ns ? when : h->last_event_ns + 1;
    sim_trace("hv event host=%s vm=%s kind=%d reason=%s", h->name, uuid, (int)kind, reason);
    sim_mix((uint64_t)kind << 8 | host, value);
    sim_at(NULL, h->last_event_ns, emitted_due, e);
}

void world_emit(unsigned host, const struct w_guest *g, enum lmo_hv_event_kind kind, const char *reason, uint64_t value)
{
    emit(host, g->uuid, kind, reason, value);
}

/* ------------------------------------------------------------------ writes */

static bool service_up(const struct w_volume *v)
{
    return world.hosts[v->storage].down_until <= sim_now();
}

static void write_arrives(struct travelling *t)
{
    struct w_guest *g = &world.guests[t->guest];
    struct w_copy *c = &g->copies[t->host];
    struct w_volume *v = &world.volumes[g->volumes[t->i]];
    const struct w_export *x = world_export(v, t->export_name);
    bool accepted = x && x->offered;
    if (accepted) {
        v->writes++;
        world.writes++;
    } else {
        v->refused++;
    }
    check_write(g, t->host, t->i, t->number, accepted, c->generation == t->generation);
    if (accepted) {
        v->last = t->number;
    }
    if (c->generation == t->generation) {
        c->in_flight[t->i] = 0;
        if (accepted) {
            c->memory[t->i] = t->number;
        }
    }
    t->used = false;
}

static void write_due(void *arg)
{
    uint64_t n = (uint64_t)(uintptr_t)arg;
    struct travelling *t = &travelling[n % TRAVELLING_MAX];
    if (!t->used || t->serial != n / TRAVELLING_MAX) {
        return; /* was waited for at a pause */
    }
    if (!service_up(&world.volumes[world.guests[t->guest].volumes[t->i]])) {
        sim_at(NULL, sim_now() + 50 * SIM_MS, write_due, arg);
        return;
    }
    write_arrives(t);
}

static void issue_write(struct w_guest *g, unsigned host, unsigned i)
{
    struct w_copy *c = &g->copies[host];
    unsigned slot = 0;
    while (slot < TRAVELLING_MAX && travelling[slot].used) {
        slot++;
    }
    lmo_assert(slot <
               TRAVELLING_MAX); /* at most one per copy's generation and volume; those of dead ones arrive soon */
    struct travelling *t = &travelling[slot];
    *t = (struct travelling){.used = true,
                             .generation = c->generation,
                             .guest = index_of(g),
                             .host = host,
                             .i = i,
                             .number = c->memory[i] + 1,
                             .serial = ++travelling_serial};
    memcpy(t->export_name, c->exports[i], sizeof t->export_name);
    c->in_flight[i] = t->number;
    sim_at(NULL, sim_now() + sim_latency(&world.rng, 200 * SIM_US, 2000), write_due,
           (void *)(uintptr_t)(t->serial * TRAVELLING_MAX + slot));
}

static void issue_writes(struct w_guest *g, unsigned host)
{
    for (unsigned i = 0; i < g->volume_count; i++) {
        if (!g->copies[host].in_flight[i]) {
            issue_write(g, host, i);
        }
    }
}

static void tick(void *arg)
{
    struct w_guest *g = arg;
    for (unsigned h = 0; h < world.hypervisor_count; h++) {
        if (world_runs(&g->copies[h])) {
            issue_writes(g, h);
        }
    }
    uint64_t every = g->job.active || g->gap_started_ns ? TICK_BUSY_NS : TICK_IDLE_NS;
    sim_at(NULL, sim_now() + every / 2 + sim_below(&world.rng, every), tick, g);
}

void world_start(void)
{
    for (unsigned i = 0; i < world.guest_count; i++) {
        sim_at(NULL, sim_now(), tick, &world.guests[i]);
    }
}

/* QEMU finishes what is under way before it stands still. False: it cannot now. */
static bool drain(struct w_guest *g, unsigned host)
{
    struct w_copy *c = &g->copies[host];
    for (unsigned i = 0; i < g->volume_count; i++) {
        if (c->in_flight[i] && !service_up(&world.volumes[g->volumes[i]])) {
            return false;
        }
    }
    for (unsigned n = 0; n < TRAVELLING_MAX; n++) {
        struct travelling *t = &travelling[n];
        if (t->used && t->guest == index_of(g) && t->host == host && t->generation == c->generation) {
            write_arrives(t);
        }
    }
    return true;
}

/* ------------------------------------------------------------------ copies that run, stop and end */

static void end_job(struct w_guest *g, bool ok, const char *text);

void world_resume_source(struct w_guest *g, unsigned host)
{
    struct w_copy *c = &g->copies[host];
    if (!c->process || c->paused_by_user) {
        return;
    }
    if (c->stopped) {
        c->resume_queued = true;
        return;
    }
    bool was = c->migration_pause;
    c->migration_pause = false;
    c->vcpus = true;
    if (was) {
        c->ran_after_pause = true;
    }
    sim_trace("guest runs on guest=%s host=%s", g->name, world.hosts[host].name);
    world_emit(host, g, LMO_HV_EV_RESUMED, "migration canceled", 0);
    issue_writes(g, host);
    world_changed();
}

void world_run_loaded(struct w_guest *g, unsigned host)
{
    struct w_copy *c = &g->copies[host];
    check_begins_to_run(g, host);
    sim_trace("guest runs guest=%s host=%s", g->name, world.hosts[host].name);
    c->loaded = false;
    c->vcpus = true;
    world_emit(host, g, LMO_HV_EV_RESUMED, "unpaused", 0);
    issue_writes(g, host);
    world_changed();
}

/* Hands the end of the call to the worker that waits for it, if it still lives. */
struct call_end {
    struct w_host *host;
    lmo_hv_job_end_fn *end;
    void *arg;
    uint64_t incarnation;
    char uuid[LMO_UUID_MAX];
    struct lmo_hv_job_end what;
};

static void hand_end(void *arg)
{
    struct call_end *e = arg;
    enum sim_fate fate = sim_observe(SIM_POINT_EVENT);
    e->end(e->arg, e->uuid, &e->what);
    sim_after(fate);
}

static void call_end_due(void *arg)
{
    struct call_end *e = arg;
    struct sim_process *p = e->host->process;
    if (p->alive && p->asleep_until > sim_now()) {
        sim_at(NULL, p->asleep_until, call_end_due, e);
        return;
    }
    if (p->alive && p->incarnation == e->incarnation) {
        sim_run_in(p, hand_end, e);
    }
    free(e);
}

static void end_job(struct w_guest *g, bool ok, const char *text)
{
    struct w_job *j = &g->job;
    if (!j->active) {
        return;
    }
    j->active = false;
    j->schedule++;
    sim_trace("job ends guest=%s ok=%d text=%s", g->name, ok, text);
    if (!j->end) {
        return;
    }
    struct w_host *h = &world.hosts[j->from];
    struct sim_process *before = sim_own(NULL);
    struct call_end *e = calloc(1, sizeof *e);
    lmo_assert(e);
    (void)sim_own(before);
    *e = (struct call_end){.host = h, .end = j->end, .arg = j->end_arg, .incarnation = j->end_incarnation};
    e->what.call_succeeded = ok;
    e->what.call_ms = (sim_now() - j->started_ns) / SIM_MS;
    snprintf(e->what.text, sizeof e->what.text, "%s", text);
    memcpy(e->uuid, g->uuid, sizeof e->uuid);
    uint64_t when = sim_now() + sim_latency(&world.rng, 500 * SIM_US, 30);
    h->last_event_ns = when > h->last_event_ns ? when : h->last_event_ns + 1;
    j->end = NULL;
    sim_at(NULL, h->last_event_ns, call_end_due, e);
}

/* The destination's copy is gone before it was complete, or the stream is: QEMU at the source goes on. */
static void job_fails(struct w_guest *g, const char *text)
{
    struct w_job *j = &g->job;
    if (!j->active) {
        return;
    }
    unsigned from = j->from, to = j->to;
    bool suspended = j->suspended, loaded = j->loaded;
    end_job(g, false, text);
    if (!loaded && g->copies[to].process && g->copies[to].incoming) {
        world_process_ends(g, to, "failed", W_END_DIED);
    }
    if (suspended) {
        world_resume_source(g, from);
    }
}

void world_process_ends(struct w_guest *g, unsigned host, const char *reason, enum w_end how)
{
    struct w_copy *c = &g->copies[host];
    struct w_job *j = &g->job;
    if (!c->process) {
        return;
    }
    sim_trace("process of the guest ends guest=%s host=%s reason=%s", g->name, world.hosts[host].name, reason);
    bool was_source = j->active && j->from == host, was_destination = j->active && j->to == host;
    c->ended = how;
    c->paused_at_end = !c->vcpus && c->completed && !c->ran_after_pause;
    c->process = c->incoming = c->loaded = c->vcpus = c->stopped = c->resume_queued = c->migration_pause = false;
    c->frozen = false;
    c->generation++;
    memset(c->in_flight, 0, sizeof c->in_flight); /* what travels still arrives; nobody waits for it */
    world_emit(host, g, LMO_HV_EV_STOPPED, reason, 0);
    if (was_source && j->loaded) {
        end_job(g, true, "");
    } else if (was_source) {
        unsigned to = j->to;
        end_job(g, false, "the domain has ended");
        if (g->copies[to].incoming) {
            world_process_ends(g, to, "failed", W_END_DIED);
        }
    } else if (was_destination && !g->copies[j->from].declared) {
        job_fails(g, "the destination's domain has ended");
    }
    world_changed();
}

/* ------------------------------------------------------------------ jobs */

static uint64_t rate_of(const struct w_job *j)
{
    return j->bandwidth && j->bandwidth < W_LINK_BYTES_PER_S ? j->bandwidth : W_LINK_BYTES_PER_S;
}

static void pass_ends(void *arg);
static void memory_complete(void *arg);

static void schedule(struct w_guest *g, uint64_t when, sim_fn *fn)
{
    g->job.schedule++;
    sim_at(NULL, when, fn, pack(g, 0, g->job.schedule));
}

/* The job whose step is due; NULL: it was put off or is over. */
static struct w_guest *due_job(void *arg)
{
    unsigned host;
    uint64_t number;
    struct w_guest *g = unpack(arg, &host, &number);
    return g->job.active && g->job.schedule == number ? g : NULL;
}

static void schedule_pass(struct w_guest *g)
{
    struct w_job *j = &g->job;
    uint64_t ns = (uint64_t)((double)j->remaining * 1e9 / (double)rate_of(j));
    j->pass_changed_ns = sim_now();
    schedule(g, sim_now() + ns + 100 * SIM_US, pass_ends);
}

static void transferred(struct w_job *j)
{
    uint64_t ns = sim_now() - j->pass_changed_ns;
    uint64_t bytes = (uint64_t)((double)ns * (double)rate_of(j) / 1e9);
    bytes = bytes < j->remaining ? bytes : j->remaining;
    j->remaining -= bytes;
    j->sent += bytes;
    j->pass_changed_ns = sim_now();
}

static void stream_lost_due(void *arg)
{
    struct w_guest *g = due_job(arg);
    if (g) {
        job_fails(g, "migration stream: broken pipe");
    }
}

static bool stream_is_cut(const struct w_job *j)
{
    return world.hosts[j->from].stream_cut_until > sim_now() || world.hosts[j->to].stream_cut_until > sim_now();
}

void world_job_start(struct w_guest *g, unsigned from, unsigned to, const struct lmo_hv_job *job,
                     lmo_hv_job_end_fn *end, void *arg)
{
    struct w_job *j = &g->job;
    struct w_copy *s = &g->copies[from], *d = &g->copies[to];
    uint64_t number = j->number + 1, at = j->schedule + 1;
    *j = (struct w_job){.active = true,
                        .from = from,
                        .to = to,
                        .number = number,
                        .schedule = at,
                        .total = g->memory_bytes,
                        .remaining = g->memory_bytes,
                        .bandwidth = job->gate_bandwidth_bytes_per_s,
                        .downtime_ms = job->gate_downtime_ms,
                        .iteration = 1,
                        .persist = job->persist_destination,
                        .started_ns = sim_now(),
                        .pass_started_ns = sim_now(),
                        .finish_lost = g->finish_lost_next,
                        .end = end,
                        .end_arg = arg,
                        .end_incarnation = world.hosts[from].process->incarnation};
    g->finish_lost_next = false;
    world.jobs++;
    s->completed = s->watched = s->declared = s->ran_after_pause = s->frozen = false;
    uint16_t generation = (uint16_t)(d->generation + 1);
    bool prepared = d->prepared;
    *d = (struct w_copy){.process = true,
                         .incoming = true,
                         .paused_by_user = s->paused_by_user,
                         .generation = generation,
                         .prepared = prepared};
    const char *at_text = job->destination_xml;
    for (unsigned i = 0; i < g->volume_count; i++) {
        char key[16];
        snprintf(key, sizeof key, "vd%c=", (int)('a' + i));
        const char *found = at_text ? strstr(at_text, key) : NULL;
        lmo_assert(found);
        found += strlen(key);
        size_t len = strcspn(found, ";");
        lmo_assert(len < sizeof d->exports[i]);
        memcpy(d->exports[i], found, len);
        d->exports[i][len] = '\0';
    }
    sim_trace("job starts guest=%s from=%s to=%s", g->name, world.hosts[from].name, world.hosts[to].name);
    world_emit(to, g, LMO_HV_EV_INCOMING, "migrated", 0);
    schedule_pass(g);
    world_changed();
}

void world_job_limits(struct w_guest *g, uint64_t bandwidth, uint64_t downtime_ms)
{
    struct w_job *j = &g->job;
    transferred(j);
    j->bandwidth = bandwidth;
    j->downtime_ms = downtime_ms;
    if (!j->suspended) {
        schedule_pass(g);
    }
}

void world_job_progress(const struct w_guest *g, struct lmo_progress *ret)
{
    struct w_job j = g->job;
    if (!j.suspended) {
        transferred(&j);
    }
    *ret = (struct lmo_progress){.total_bytes = j.total,
                                 .transferred_bytes = j.sent,
                                 .remaining_bytes = j.remaining,
                                 .rate_bytes_per_s = rate_of(&j),
                                 .dirty_bytes_per_s = j.iteration > 1 ? g->dirty_bytes_per_s : 0,
                                 .iteration = j.iteration,
                                 .downtime_limit_ms = j.downtime_ms,
                                 .bandwidth_bytes_per_s = j.bandwidth,
                                 .elapsed_ms = (sim_now() - j.started_ns) / SIM_MS};
}

int world_job_abort(struct w_guest *g, struct lmo_err *err)
{
    if (!g->job.active || g->job.completed) {
        return lmo_fail(err, LMO_E_REFUSED, "no job can be aborted");
    }
    job_fails(g, "operation aborted: migration out job: canceled by client");
    return 0;
}

/* A pass over the memory is done: another one, or the switch-over. */
static void pass_ends(void *arg)
{
    struct w_guest *g = due_job(arg);
    if (!g) {
        return;
    }
    struct w_job *j = &g->job;
    if (stream_is_cut(j)) {
        schedule(g, sim_now() + GIVE_UP_NS, stream_lost_due);
        return;
    }
    uint64_t ns = sim_now() - j->pass_started_ns;
    uint64_t dirtied =
        world_runs(&g->copies[j->from]) ? (uint64_t)((double)g->dirty_bytes_per_s * (double)ns / 1e9) : 0;
    dirtied = dirtied < g->memory_bytes ? dirtied : g->memory_bytes;
    j->sent += j->remaining;
    j->remaining = dirtied;
    j->pass_started_ns = sim_now();
    if (dirtied > rate_of(j) / 1000 * j->downtime_ms) {
        j->iteration++;
        world_emit(j->from, g, LMO_HV_EV_ITERATION, "", j->iteration);
        schedule_pass(g);
        return;
    }
    if (!drain(g, j->from)) {
        schedule_pass(g);
        return;
    }
    struct w_copy *s = &g->copies[j->from];
    j->suspended = true;
    world.handovers++;
    memcpy(j->snapshot, s->memory, sizeof j->snapshot);
    sim_trace("switch-over guest=%s", g->name);
    if (!s->paused_by_user) {
        s->vcpus = false;
        s->migration_pause = true;
        world_emit(j->from, g, LMO_HV_EV_SUSPENDED, "migrated", 0);
    }
    uint64_t rest = (uint64_t)((double)j->remaining * 1e9 / (double)rate_of(j));
    schedule(g, sim_now() + rest + sim_latency(&world.rng, 3 * SIM_MS, 10), memory_complete);
    world_changed();
}

static void loaded_due(void *arg);
static void finish_due(void *arg);
static void finish_arrives(void *arg);
static void source_killed_due(void *arg);
static void source_gives_up(void *arg);

static void memory_complete(void *arg)
{
    struct w_guest *g = due_job(arg);
    if (!g) {
        return;
    }
    struct w_job *j = &g->job;
    if (stream_is_cut(j)) {
        schedule(g, sim_now() + GIVE_UP_NS, stream_lost_due);
        return;
    }
    struct w_copy *s = &g->copies[j->from];
    struct w_host *h = &world.hosts[j->from];
    j->completed = true;
    j->remaining = 0;
    s->completed = true;
    s->watched = h->process->alive && h->event_incarnation == h->process->incarnation && h->down_until <= sim_now();
    schedule(g, sim_now() + sim_latency(&world.rng, 2 * SIM_MS, 20), loaded_due);
}

static void copy_dies_due(void *arg)
{
    unsigned host;
    uint64_t generation;
    struct w_guest *g = unpack(arg, &host, &generation);
    const struct w_copy *c =
        &g->copies[host]; /* one that its owner paused may be at home already: not our fault then */
    if (c->loaded && c->generation == generation && !c->paused_by_user) {
        world_process_ends(g, host, "failed", W_END_DIED);
    }
}

static void loaded_due(void *arg)
{
    struct w_guest *g = due_job(arg);
    if (!g) {
        return;
    }
    struct w_job *j = &g->job;
    if (g->dies_next) {
        g->dies_next = false;
        sim_at(NULL, sim_now() + g->dies_after_ns, copy_dies_due, pack(g, j->to, g->copies[j->to].generation));
    }
    struct w_copy *d = &g->copies[j->to];
    j->loaded = true;
    d->incoming = false;
    d->loaded = true;
    d->defined = j->persist;
    memcpy(d->memory, j->snapshot, sizeof d->memory);
    if (world.lies & W_LIE_LOADED) {
        d->memory[0] /= 2;
    }
    sim_trace("loaded guest=%s host=%s", g->name, world.hosts[j->to].name);
    world_emit(j->to, g, LMO_HV_EV_LOADED, "migrated", 0);
    schedule(g, sim_now() + sim_latency(&world.rng, 5 * SIM_MS, 20), finish_due);
    world_changed();
}

/* The destination's libvirt says finish. If it is lost, the source's libvirt resumes its guest: at once when it sees the
 * connection break, or after its keepalive. */
static void finish_due(void *arg)
{
    struct w_guest *g = due_job(arg);
    if (!g) {
        return;
    }
    struct w_job *j = &g->job;
    if (j->finish_lost || stream_is_cut(j) || world.hosts[j->from].down_until > sim_now()) {
        uint64_t after = sim_chance(&world.rng, 400) ? sim_between(&world.rng, 1, 60) * SIM_MS : GIVE_UP_NS;
        sim_trace("finish lost guest=%s", g->name);
        schedule(g, sim_now() + after, source_gives_up);
        return;
    }
    schedule(g, sim_now() + sim_latency(&world.rng, 8 * SIM_MS, 10), finish_arrives);
}

static void source_gives_up(void *arg)
{
    struct w_guest *g = due_job(arg);
    if (!g) {
        return;
    }
    unsigned from = g->job.from;
    if (g->copies[from].stopped) {
        world_resume_source(g, from); /* the order is queued in its monitor; libvirt waits for the answer */
        schedule(g, sim_now() + 500 * SIM_MS, source_gives_up);
        return;
    }
    bool ran = g->copies[from].ran_after_pause;
    end_job(g, false, "client socket is closed");
    if (!ran) {
        world_resume_source(g, from);
    }
}

static void finish_arrives(void *arg)
{
    struct w_guest *g = due_job(arg);
    if (!g) {
        return;
    }
    struct w_copy *s = &g->copies[g->job.from];
    s->declared = true;
    s->defined = s->defined && !g->job.persist;
    schedule(g, sim_now() + (s->stopped ? TERM_NS : sim_between(&world.rng, 10, 1200) * SIM_MS), source_killed_due);
    world_changed();
}

static void source_killed_due(void *arg)
{
    struct w_guest *g = due_job(arg);
    if (g) {
        world_process_ends(g, g->job.from, "migrated", W_END_MIGRATED);
    }
}

/* ------------------------------------------------------------------ what owners do */

void world_owner_starts(struct w_guest *g)
{
    for (unsigned h = 0; h < world.hypervisor_count && g->shut_off; h++) {
        struct w_copy *c = &g->copies[h];
        bool opens = c->defined && !c->process && world.hosts[h].down_until <= sim_now();
        for (unsigned i = 0; i < g->volume_count && opens; i++) {
            const struct w_export *x = world_export(&world.volumes[g->volumes[i]], c->exports[i]);
            opens = x && x->offered; /* or QEMU does not come up */
        }
        if (!opens) {
            continue;
        }
        for (unsigned i = 0; i < g->volume_count; i++) {
            c->memory[i] = world.volumes[g->volumes[i]].last;
        }
        for (unsigned i = 0; i < g->port_count; i++) {
            struct w_port *p = &world.ports[g->ports[i]];
            p->bound = p->requested < 0 || p->requested == (int)h ? (int)h : -1;
        }
        g->shut_off = false;
        c->process = c->vcpus = true;
        c->generation++;
        sim_trace("its owner starts guest=%s host=%s", g->name, world.hosts[h].name);
        world_emit(h, g, LMO_HV_EV_RESUMED, "booted", 0);
        issue_writes(g, h);
        world_changed();
    }
}

/* ------------------------------------------------------------------ faults */

static void restored_due(void *arg)
{
    unsigned host = (unsigned)(uintptr_t)arg;
    if (world.hosts[host].down_until <= sim_now()) {
        emit(host, "", LMO_HV_EV_WATCH_RESTORED, "connected again", 0);
        world_changed();
    }
}

void world_watch_broken(unsigned host, uint64_t ns)
{
    struct w_host *h = &world.hosts[host];
    emit(host, "", LMO_HV_EV_WATCH_BROKEN, "connection lost", 0);
    h->down_until = sim_now() + ns;
    for (unsigned i = 0; i < world.guest_count; i++) {
        world.guests[i].copies[host].watched = false;
        struct w_job *j = &world.guests[i].job;
        /* libvirtd was the one that talked to the other side: before the switch-over it gives up; afterwards the
         * source stays paused until somebody resumes it, a destination that is not complete is killed. */
        if (j->active && (j->from == host || j->to == host)) {
            if (!j->suspended) {
                job_fails(&world.guests[i], "libvirtd was restarted");
            } else if (j->from == host) {
                end_job(&world.guests[i], false, "libvirtd was restarted"); /* and nobody resumes the guest */
            } else if (!j->loaded) {
                world_process_ends(&world.guests[i], host, "failed", W_END_DIED);
            }
        }
    }
    if (h->hypervisor) {
        sim_at(NULL, h->down_until, restored_due, (void *)(uintptr_t)host);
    }
}

void world_stream_cut(unsigned host, uint64_t ns)
{
    world.hosts[host].stream_cut_until = sim_now() + ns;
}

void world_process_gone(struct sim_process *p)
{
    struct w_host *h = world_host_of(p);
    if (!h) {
        return;
    }
    h->on_event = NULL;
    h->event_incarnation = 0;
    unsigned host = (unsigned)(h - world.hosts);
    for (unsigned i = 0; i < world.guest_count; i++) {
        struct w_guest *g = &world.guests[i];
        g->copies[host].watched = false;
        if (g->job.active && g->job.from == host) {
            g->job.end = NULL;
        }
    }
}
