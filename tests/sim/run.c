/* run.c - see run.h. Faults come from the plan; when all are over the fleet is left in peace, and has to come to rest. */
#include "run.h"
#include "actors.h"
#include "disk.h"
#include "net.h"
#include "sim_private.h"

#include "base/assert.h"
#include "base/json.h"
#include "http/identity.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESTART_NS   SIM_RESTART_NS
#define AFTERMATH_NS (4500 * SIM_S) /* longest time from the last fault to rest: beyond every phase's deadline */
#define CLEAR_UP_NS  (3 * SIM_S)

static struct {
    const struct plan *plan;
    struct run_result *result;
    sim_fate_fn *hook;
    void *hook_arg;
    void (*on_end)(const struct run_result *r);
    bool at_rest;
} run;

bool run_at_rest(void)
{
    return run.at_rest;
}

void run_set_hook(sim_fate_fn *fn, void *arg)
{
    run.hook = fn;
    run.hook_arg = arg;
}

void run_set_on_end(void (*fn)(const struct run_result *r))
{
    run.on_end = fn;
}

/* ------------------------------------------------------------------ faults */

static void strike(struct sim_process *p, uint64_t down_ns)
{
    p->restart_ns = down_ns ? down_ns : RESTART_NS;
    sim_process_kill(p);
}

static struct sim_disk *disk_of(const char *process)
{
    return sim_disk_named(strncmp(process, "lmod", 4) == 0 ? "store" : process);
}

static void disk_well(void *arg)
{
    struct sim_disk *d = arg;
    sim_disk_set_full(d, false);
    sim_disk_set_broken(d, false);
    sim_disk_set_slow(d, 0);
}

static void host_accepts(void *arg)
{
    ((struct w_host *)arg)->refuses = false;
}

static void take_over(struct sim_process *p, uint64_t ns)
{
    struct sim_process *other = sim_process_named(strcmp(p->name, "lmod") == 0 ? "lmod2" : "lmod");
    if (!other || !p->alive) {
        return;
    }
    sim_process_sleep(p, ns);
    other->restart_ns = RESTART_NS;
    if (!other->alive) {
        other->take_over = true;
        sim_process_start(other);
    }
}

static void fault_due(void *arg)
{
    const struct plan_fault *f = arg;
    struct sim_process *p = sim_process_named(f->target), *o = sim_process_named(f->other);
    unsigned host = world_host_index(f->target);
    struct w_guest *g = world_guest(f->target);
    uint64_t ns = f->for_ms * SIM_MS;
    char text[160];
    plan_describe_fault(f, text, sizeof text);
    sim_trace("FAULT %s", text);
    run.result->struck[f->kind]++;
    switch (f->kind) {
    case FAULT_CRASH:
        if (p && p->alive) {
            strike(p, ns);
        }
        break;
    case FAULT_SLEEP:
        if (p && p->alive) {
            sim_process_sleep(p, ns);
        }
        break;
    case FAULT_TAKEOVER:
        if (p) {
            take_over(p, ns);
        }
        break;
    case FAULT_CUT:
        if (p && o) {
            sim_net_cut(p, o, ns);
        }
        break;
    case FAULT_LOSS:
        if (p && o) {
            sim_net_loss(p, o, (unsigned)f->value, ns);
        }
        break;
    case FAULT_DELAY:
        if (p && o) {
            sim_net_delay(p, o, (uint64_t)f->value * SIM_MS, ns);
        }
        break;
    case FAULT_DISK_FULL:
        sim_disk_set_full(disk_of(f->target), true);
        sim_at(NULL, sim_now() + ns, disk_well, disk_of(f->target));
        break;
    case FAULT_DISK_BROKEN:
        sim_disk_set_broken(disk_of(f->target), true);
        sim_at(NULL, sim_now() + ns, disk_well, disk_of(f->target));
        break;
    case FAULT_DISK_SLOW:
        sim_disk_set_slow(disk_of(f->target), (uint64_t)f->value * SIM_MS);
        sim_at(NULL, sim_now() + ns, disk_well, disk_of(f->target));
        break;
    case FAULT_HANG:
        if (host < W_HOSTS) {
            world.hosts[host].hang_until = sim_now() + ns;
        }
        break;
    case FAULT_DOWN:
        if (host < W_HOSTS) {
            world_watch_broken(host, ns);
        }
        break;
    case FAULT_CLOCK:
        if (p) {
            p->skew_us += f->value * 1000;
        }
        break;
    case FAULT_FINISH_LOST:
        if (g) {
            g->finish_lost_next = true;
        }
        break;
    case FAULT_STREAM_CUT:
        if (host < W_HOSTS) {
            world_stream_cut(host, ns);
        }
        break;
    case FAULT_COPY_DIES:
        if (g) {
            g->dies_next = true;
            g->dies_after_ns = (uint64_t)f->value * SIM_US;
        }
        break;
    case FAULT_REFUSE:
        if (host < W_HOSTS) {
            world.hosts[host].refuses = true;
            sim_at(NULL, sim_now() + ns, host_accepts, &world.hosts[host]);
        }
        break;
    case FAULT_START:
        if (g) {
            world_owner_starts(g);
        }
        break;
    case FAULT_POINT:
    case FAULT_COUNT: break;
    }
}

static enum sim_fate fate_of(void *arg, struct sim_process *p, enum sim_point kind, uint64_t k)
{
    (void)arg;
    enum sim_fate fate = SIM_FATE_NONE;
    for (unsigned i = 0; i < run.plan->fault_count; i++) {
        const struct plan_fault *f = &run.plan->faults[i];
        if (f->kind == FAULT_POINT && f->point == kind && f->k == k && strcmp(f->target, p->name) == 0) {
            fate = f->fate;
            p->restart_ns = f->for_ms ? f->for_ms * SIM_MS : RESTART_NS;
            run.result->struck[FAULT_POINT]++;
        }
    }
    if (fate == SIM_FATE_NONE && run.hook && !run.at_rest) {
        fate = run.hook(run.hook_arg, p, kind, k);
    }
    run.result->fates[fate]++;
    return fate;
}

/* ------------------------------------------------------------------ the fleet */

static void make_fleet(const struct plan *p)
{
    char name[PLAN_NAME_MAX];
    (void)sim_process_add("lmod", LMO_ROLE_COORDINATOR, coordinator_main, NULL);
    (void)sim_process_add("lmod2", LMO_ROLE_COORDINATOR, coordinator_main, NULL);
    for (unsigned i = 0; i < p->hypervisors; i++) {
        snprintf(name, sizeof name, "hv%u", i + 1);
        struct sim_process *process = sim_process_add(name, LMO_ROLE_WORKER, worker_main, &world.hosts[i]);
        (void)world_add_host(name, true, false, process);
    }
    for (unsigned i = 0; i < p->storages; i++) {
        snprintf(name, sizeof name, "st%u", i + 1);
        struct w_host *h = &world.hosts[p->hypervisors + i];
        struct sim_process *process = sim_process_add(name, LMO_ROLE_WORKER, worker_main, h);
        (void)world_add_host(name, false, true, process);
    }
    (void)sim_process_add("client", LMO_ROLE_OPERATOR, client_main, NULL);
    (void)sim_process_add("auditor", LMO_ROLE_COORDINATOR, auditor_main, NULL);
    for (unsigned i = 0; i < p->guest_count; i++) {
        const struct plan_guest *g = &p->guests[i];
        unsigned host = world_host_index(g->host);
        lmo_assert(host < p->hypervisors);
        (void)world_add_guest(g->name, host, g->volumes, g->ports, g->memory_mib << 20, g->dirty_mib_per_s << 20,
                              g->persistent,
                              g->shut_off       ? W_SHUT_OFF
                              : g->owner_paused ? W_PAUSED_BY_OWNER
                                                : W_RUNS);
    }
    for (struct sim_process *q = sim_process_at(0); q; q = sim_process_at(q->index + 1)) {
        if (strcmp(q->name, "lmod2") != 0 && strcmp(q->name, "auditor") != 0) {
            q->restart_ns = q->role == LMO_ROLE_OPERATOR ? 0 : RESTART_NS;
            sim_process_start(q);
        }
    }
    world_start();
}

/* When the last thing that the plan wants has begun and ended. */
static uint64_t plan_end_ms(const struct plan *p)
{
    uint64_t end = 1000;
    for (unsigned i = 0; i < p->request_count; i++) {
        uint64_t t = p->requests[i].at_ms + p->requests[i].cancel_after_ms + 1500;
        end = t > end ? t : end;
    }
    for (unsigned i = 0; i < p->fault_count; i++) {
        uint64_t t = p->faults[i].kind == FAULT_POINT ? 0 : p->faults[i].at_ms + p->faults[i].for_ms;
        end = t > end ? t : end;
    }
    return end;
}

static void make_peace(void)
{
    sim_net_heal();
    for (unsigned i = 0; i < world.host_count; i++) {
        disk_well(sim_disk_named(world.hosts[i].name));
        world.hosts[i].hang_until = 0;
        world.hosts[i].refuses = false;
    }
    disk_well(sim_disk_named("store"));
    for (struct sim_process *p = sim_process_at(0); p; p = sim_process_at(p->index + 1)) {
        if (!p->alive && p->starts > 0 && p->restart_ns == 0) {
            p->restart_ns = RESTART_NS;
            sim_process_start(p);
        }
    }
    client.quiet = true;
}

/* ------------------------------------------------------------------ the end */

static bool allows_attention(const struct plan *p)
{
    for (unsigned i = 0; i < p->fault_count; i++) {
        if (p->faults[i].kind == FAULT_COPY_DIES) {
            return true;
        }
    }
    return false;
}

static void check_guest(const struct plan *p, const struct w_guest *g, const struct plan_guest *was)
{
    unsigned at = W_HOSTS, here = 0;
    for (unsigned h = 0; h < world.hypervisor_count; h++) {
        const struct w_copy *c = &g->copies[h];
        if (g->shut_off ? c->defined : c->process) {
            here++;
            at = h;
        }
        if (g->shut_off && c->process) {
            sim_violation("at rest: %s was shut off and has a process at %s", g->name, world.hosts[h].name);
        }
    }
    if (here != 1) {
        sim_violation("at rest: %s has %u %s", g->name, here, g->shut_off ? "definitions" : "processes");
        return;
    }
    const struct w_copy *c = &g->copies[at];
    if (g->shut_off) {
        check_defined(g, at);
    } else if (g->owner_paused ? c->vcpus || c->stopped : !world_runs(c)) {
        sim_violation("at rest: %s at %s is %s%s", g->name, world.hosts[at].name,
                      lmo_run_state_name(world_state(g, at)), c->stopped ? " (stopped)" : "");
    }
    for (unsigned h = 0; h < world.hypervisor_count; h++) {
        if (g->copies[h].defined != (h == at && was->persistent)) {
            sim_violation("at rest: %s is %sdefined at %s", g->name, g->copies[h].defined ? "" : "not ",
                          world.hosts[h].name);
        }
        if (g->copies[h].prepared && h != at) {
            sim_violation("at rest: what was prepared for %s is still at %s", g->name, world.hosts[h].name);
        }
    }
    if (c->autostart != g->autostart && was->persistent) {
        sim_violation("at rest: autostart of %s was lost at %s", g->name, world.hosts[at].name);
    }
    for (unsigned i = 0; i < g->volume_count; i++) {
        const struct w_volume *v = &world.volumes[g->volumes[i]];
        unsigned exports = 0;
        for (unsigned x = 0; x < W_EXPORTS; x++) {
            exports += v->exports[x].name[0] != '\0';
            if (v->exports[x].name[0] && strcmp(v->exports[x].host, world.hosts[at].name) != 0) {
                sim_violation("at rest: %s is at %s, and export %s is left", g->name, world.hosts[at].name,
                              v->exports[x].name);
            }
        }
        if (exports != 1) {
            sim_violation("at rest: %s has %u exports", v->name, exports);
        }
    }
    for (unsigned i = 0; i < g->port_count; i++) {
        const struct w_port *q = &world.ports[g->ports[i]];
        int bound = g->shut_off || (was->shut_off && q->requested >= 0 && q->requested != (int)at) ? -1 : (int)at;
        if (g->shut_off && q->requested >= 0 && q->requested != (int)at) {
            sim_violation("at rest: %s is at %s, port %s is requested at %s", g->name, world.hosts[at].name, q->id,
                          world.hosts[q->requested].name);
        }
        if (q->bound != bound || q->additional >= 0) {
            sim_violation("at rest: %s is at %s, port %s is bound at %s%s", g->name, world.hosts[at].name, q->id,
                          q->bound >= 0 ? world.hosts[q->bound].name : "nothing",
                          q->additional >= 0 ? " and elsewhere" : "");
        }
    }
    (void)p;
}

/* Where the guest is must follow from the completed migrations, in the order of their requests' ends; what is certain
 * from outside: it is where it began, or at the destination of a completed one. */
static void check_record(const struct plan_guest *was)
{
    const struct w_guest *g = world_guest(was->name);
    const char *at = "";
    for (unsigned h = 0; h < world.hypervisor_count; h++) {
        at = (g->shut_off ? g->copies[h].defined : g->copies[h].process) ? world.hosts[h].name : at;
    }
    bool moved = false, explained = false, left = false;
    for (unsigned i = 0; i < client.plan->request_count; i++) {
        const struct asked *a = &client.asked[i];
        if (strcmp(a->request->guest, was->name) == 0 && strcmp(a->outcome, "completed") == 0) {
            moved = true;
            explained |= strcmp(a->destination, at) == 0;
            left |= strcmp(a->source, was->host) == 0;
        }
    }
    if (moved ? !explained || !left : strcmp(was->host, at) != 0) {
        sim_violation("the records do not say why %s is at %s: it began at %s", was->name, at, was->host);
    }
}

static void check_requests(const struct plan *p, struct run_result *r)
{
    unsigned known = 0;
    for (unsigned i = 0; i < p->request_count; i++) {
        const struct asked *a = &client.asked[i];
        r->accepted += a->accepted;
        r->refused += a->refused;
        known += a->seen;
        if (a->accepted && !a->seen) {
            sim_violation("%s was accepted as %s, and there is no such migration", a->key, a->id);
        }
        r->completed += strcmp(a->outcome, "completed") == 0;
        r->aborted += strcmp(a->outcome, "aborted") == 0;
        r->abandoned += strcmp(a->outcome, "abandoned") == 0;
        if (a->attention) {
            r->attention++;
            if (!allows_attention(p)) {
                sim_violation("%s (%s to %s) ended in attention: %s", a->key, a->request->guest,
                              a->request->destination, a->reason);
            }
        }
    }
    if (client.listed > known) {
        sim_violation("%u migrations, and only %u requests were accepted", client.listed, known);
    }
    if (client.problem[0]) {
        sim_violation("%s", client.problem);
    }
}

static void tell_story(const struct plan *p, struct run_result *r)
{
    size_t n = 0;
    for (unsigned i = 0; i < p->request_count && n + 160 < sizeof r->story; i++) {
        const struct asked *a = &client.asked[i];
        n += (size_t)snprintf(r->story + n, sizeof r->story - n, "  %s %s -> %s: %s %s%.90s\n", a->key,
                              a->request->guest, a->request->destination,
                              a->outcome[0] ? a->outcome
                              : a->refused  ? "refused"
                              : a->accepted ? "open in"
                                            : "no answer",
                              a->outcome[0] || a->refused ? "" : a->phase, a->reason[0] ? a->reason : a->waiting_for);
    }
}

static void not_at_rest(const struct plan *p)
{
    for (unsigned i = 0; i < p->request_count; i++) {
        const struct asked *a = &client.asked[i];
        if (!a->accepted && !a->refused) {
            sim_violation("%s got no answer after %u tries", a->key, a->tries);
            return;
        }
        if (a->accepted && !a->outcome[0]) {
            sim_violation("%s (%s to %s) never ended: in %s, waiting for: %s", a->key, a->request->guest,
                          a->request->destination, a->phase, a->waiting_for[0] ? a->waiting_for : a->reason);
            return;
        }
    }
    sim_violation("the fleet does not come to rest");
}

static bool needs_a_person(const char *guest)
{
    for (unsigned i = 0; i < client.plan->request_count; i++) {
        if (strcmp(client.asked[i].request->guest, guest) == 0 && strcmp(client.asked[i].outcome, "abandoned") == 0) {
            return true;
        }
    }
    return false;
}

static void look_at_everything(const struct plan *p, struct run_result *r)
{
    sim_run_until(sim_now() + CLEAR_UP_NS);
    struct sim_process *a = sim_process_named("auditor");
    sim_process_start(a);
    for (unsigned i = 0; i < 240 && auditor.answered < world.host_count && !sim_violated(); i++) {
        sim_run_until(sim_now() + 500 * SIM_MS);
    }
    if (sim_violated()) {
        return;
    }
    check_requests(p, r);
    for (unsigned i = 0; i < p->guest_count && !sim_violated(); i++) {
        if (needs_a_person(p->guests[i].name)) {
            continue; /* what is left of it is what the record says */
        }
        check_guest(p, world_guest(p->guests[i].name), &p->guests[i]);
        if (!sim_violated()) {
            check_record(&p->guests[i]);
        }
    }
    if (!sim_violated() && auditor.answered < auditor.asked) {
        sim_violation("at rest: %u of %u workers answer", auditor.answered, auditor.asked);
    }
    if (!sim_violated() && auditor.open > 0 && r->abandoned == 0) {
        sim_violation("at rest: %u records are open at workers; the first: %s", auditor.open, auditor.first);
    }
}

/* The largest fleet starts for the first time, once: later runs begin with what that left on the disks. */
static void install(void)
{
    static const struct plan largest = {.hypervisors = 4, .storages = 2};
    static struct run_result ignored;
    run.plan = &largest;
    run.result = &ignored;
    sim_begin(0, false);
    world_begin();
    actors_begin(&largest);
    make_fleet(&largest);
    sim_process_kill(sim_process_named("client"));
    sim_run_until(SIM_START_NS + SIM_S);
    lmo_assert(!sim_violated());
    sim_disks_install();
    sim_end();
}

void run_init(void)
{
    static bool once;
    if (!once) {
        once = true;
        (void)mallopt(M_MMAP_THRESHOLD,
                      1 << 30); /* what one run gives back the next one takes: not through the kernel */
        (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
        json_object_seed(1);
        sim_permits_init();
        sim_vfs_register();
        install();
    }
}

void run_plan(const struct plan *p, struct run_result *ret)
{
    run_init();
    *ret = (struct run_result){.requests = p->request_count};
    run.plan = p;
    run.result = ret;
    run.at_rest = false;
    sim_begin(p->seed, !p->fresh);
    sim_set_fates(fate_of, NULL);
    sim_set_on_drop(world_process_gone);
    world_begin();
    world.lies = p->lies;
    actors_begin(p);
    make_fleet(p);
    for (unsigned i = 0; i < p->fault_count; i++) {
        if (p->faults[i].kind != FAULT_POINT) {
            sim_at(NULL, SIM_START_NS + p->faults[i].at_ms * SIM_MS, fault_due, (void *)&p->faults[i]);
        }
    }
    sim_run_until(SIM_START_NS + plan_end_ms(p) * SIM_MS);
    make_peace();
    uint64_t limit = sim_now() + AFTERMATH_NS;
    while (!client.settled && !sim_violated() && sim_now() < limit) {
        sim_run_until(sim_now() + 500 * SIM_MS);
    }
    if (!sim_violated() && !client.settled) {
        not_at_rest(p);
    }
    run.at_rest = true;
    for (struct sim_process *q = sim_process_at(0); q && q->index < RUN_PROCESSES_MAX;
         q = sim_process_at(q->index + 1)) {
        memcpy(ret->settled[q->index], q->points, sizeof q->points);
    }
    if (!sim_violated()) {
        look_at_everything(p, ret);
    }
    tell_story(p, ret);
    ret->failed = sim_violated() != NULL;
    if (ret->failed) {
        snprintf(ret->violation, sizeof ret->violation, "%s", sim_violated());
        ret->failed_at_s = (double)(sim_violated_ns() - SIM_START_NS) / 1e9;
    }
    ret->virtual_ns = sim_now() - SIM_START_NS;
    ret->hash = sim_hash();
    ret->events = sim_event_count();
    ret->messages = sim_net_counts().requests;
    ret->syncs = sim_disk_counts().syncs;
    ret->writes = world.writes;
    ret->driver_calls = world.calls;
    for (unsigned i = 0; i < p->guest_count; i++) {
        uint64_t gap = world.guests[i].longest_gap_ns;
        ret->longest_gap_ns = gap > ret->longest_gap_ns ? gap : ret->longest_gap_ns;
    }
    for (struct sim_process *q = sim_process_at(0); q && q->index < RUN_PROCESSES_MAX;
         q = sim_process_at(q->index + 1)) {
        snprintf(ret->processes[q->index], PLAN_NAME_MAX, "%.23s", q->name);
        memcpy(ret->points[q->index], q->points, sizeof q->points);
        ret->crashes += q->crashes;
        ret->process_count = q->index + 1;
    }
    if (run.on_end) {
        run.on_end(ret);
    }
    sim_end();
}
