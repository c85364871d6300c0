/* drivers_hypervisor.c - the hypervisor's driver table on the simulated world, and what every driver call goes through.
 *
 * What a freeze may conclude follows docs/adr/0007: "frozen" and "gone" need a watch that has been whole since the
 * memory was complete, or libvirt's own word that the guest has gone; otherwise the process is continued, and the
 * answer is what can be seen. */
#include "world.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ one call */

int sim_call_begin(struct sim_call *c, struct w_host *h, const char *what, uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_process *p = sim_current();
    lmo_assert(p);
    c->deadline_ns = sim_now() + timeout_ms * SIM_MS;
    c->fate = sim_observe(SIM_POINT_DRIVER);
    world.calls++;
    sim_trace("driver %s", what);
    uint64_t wait = sim_latency(&p->rng, 300 * SIM_US, 30);
    if (c->fate == SIM_FATE_LATE) {
        wait += sim_between(&p->rng, 300, 4000) * SIM_MS;
    }
    uint64_t until = sim_now() + wait;
    if (h->hang_until > until) {
        until = h->hang_until + sim_between(&p->rng, 1, 50) * SIM_MS;
    }
    bool lost = c->fate == SIM_FATE_LOST;
    if (lost || until >= c->deadline_ns) {
        sim_sleep(c->deadline_ns > sim_now() ? c->deadline_ns - sim_now() : 1);
        return lmo_fail(err, LMO_E_TIMEOUT, "%s: no answer in %llu ms", what, (unsigned long long)timeout_ms);
    }
    sim_sleep(until - sim_now());
    if (c->fate == SIM_FATE_FAIL) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "%s: made to fail", what);
    }
    if (h->down_until > sim_now()) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "%s: %s cannot be reached", what,
                        h->hypervisor ? "libvirtd" : "the volume service");
    }
    return 0;
}

int sim_call_end(struct sim_call *c, int r, struct lmo_err *err)
{
    sim_after(c->fate);
    if (r == 0 && c->fate == SIM_FATE_REPLY_LOST) {
        r = lmo_fail(err, LMO_E_TIMEOUT, "the answer was lost");
        sim_sleep(c->deadline_ns > sim_now() ? c->deadline_ns - sim_now() : 1);
    } else {
        sim_sleep(sim_latency(&sim_current()->rng, 100 * SIM_US, 10));
    }
    return r;
}

/* ------------------------------------------------------------------ the table */

struct driver {
    struct lmo_hypervisor base;
    struct w_host *host;
};

static struct w_host *host_of(struct lmo_hypervisor *hv)
{
    return ((struct driver *)hv)->host;
}

static unsigned index_of(struct lmo_hypervisor *hv)
{
    return (unsigned)(host_of(hv) - world.hosts);
}

static struct w_copy *copy_of(struct lmo_hypervisor *hv, const char *uuid, struct w_guest **ret_guest)
{
    *ret_guest = world_guest(uuid);
    return *ret_guest ? &(*ret_guest)->copies[index_of(hv)] : NULL;
}

static int no_guest(struct lmo_err *err, const char *vm)
{
    return lmo_fail(err, LMO_E_NOT_FOUND, "no domain '%s'", vm);
}

static void hv_close(struct lmo_hypervisor *hv)
{
    free(hv);
}

static void facts_of(unsigned host, const struct w_guest *g, struct lmo_vm_facts *f)
{
    const struct w_copy *c = &g->copies[host];
    *f = (struct lmo_vm_facts){.state = world_state(g, host),
                               .persistent = c->defined,
                               .autostart = c->autostart,
                               .memory_bytes = g->memory_bytes,
                               .vcpus = 2,
                               .volume_count = g->volume_count,
                               .port_count = g->port_count};
    memcpy(f->uuid, g->uuid, sizeof f->uuid);
    memcpy(f->name, g->name, sizeof f->name);
    snprintf(f->machine, sizeof f->machine, "pc-q35-7.2");
    for (unsigned i = 0; i < g->volume_count; i++) {
        struct lmo_volume *v = &f->volumes[i];
        const struct w_volume *w = &world.volumes[g->volumes[i]];
        memcpy(v->volume, w->name, sizeof v->volume);
        snprintf(v->target, sizeof v->target, "vd%c", (int)('a' + i));
        snprintf(v->driver, sizeof v->driver, "nbd");
        snprintf(v->service, sizeof v->service, "10.1.0.%u:10809", w->storage);
        memcpy(v->export_name, c->exports[i], sizeof v->export_name);
        v->size_bytes = UINT64_C(1) << 30;
    }
    for (unsigned i = 0; i < g->port_count; i++) {
        memcpy(f->ports[i].id, world.ports[g->ports[i]].id, sizeof f->ports[i].id);
        snprintf(f->ports[i].mac, sizeof f->ports[i].mac, "52:54:00:00:%02x:%02x", (unsigned)(g - world.guests), i);
        snprintf(f->ports[i].bridge, sizeof f->ports[i].bridge, "br-int");
    }
}

static int hv_list(struct lmo_hypervisor *hv, int (*cb)(void *arg, const struct lmo_vm_facts *vm), void *arg,
                   uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "list", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct lmo_vm_facts f;
    for (unsigned i = 0; i < world.guest_count; i++) {
        if (world_state(&world.guests[i], index_of(hv)) != LMO_RUN_ABSENT) {
            facts_of(index_of(hv), &world.guests[i], &f);
            if (cb(arg, &f) != 0) {
                break;
            }
        }
    }
    return sim_call_end(&c, 0, err);
}

static int hv_describe(struct lmo_hypervisor *hv, const char *vm, struct lmo_vm_facts *ret_vm, uint64_t timeout_ms,
                       struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "describe", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct lmo_vm_facts f;
    const struct w_guest *g = world_guest(vm);
    if (!g || world_state(g, index_of(hv)) == LMO_RUN_ABSENT) {
        return sim_call_end(&c, no_guest(err, vm), err);
    }
    facts_of(index_of(hv), g, &f);
    r = sim_call_end(&c, 0, err);
    if (r == 0) {
        *ret_vm = f;
    }
    return r;
}

static int hv_state(struct lmo_hypervisor *hv, const char *uuid, enum lmo_run_state *ret_state, uint64_t timeout_ms,
                    struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "state", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    const struct w_guest *g = world_guest(uuid);
    enum lmo_run_state state = g ? world_state(g, index_of(hv)) : LMO_RUN_ABSENT;
    r = sim_call_end(&c, 0, err);
    if (r == 0) {
        *ret_state = state;
    }
    return r;
}

static int hv_outgoing_xml(struct lmo_hypervisor *hv, const char *uuid, const struct lmo_hv_disk_map *map,
                           char **ret_xml, uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "outgoing_xml", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g;
    const struct w_copy *copy = copy_of(hv, uuid, &g);
    if (!copy || (!copy->process && !copy->defined)) {
        return sim_call_end(&c, no_guest(err, uuid), err);
    }
    char text[1024];
    int n = snprintf(text, sizeof text, "<domain uuid='%s'>", uuid);
    for (unsigned i = 0; i < g->volume_count; i++) {
        char target[16];
        const char *name = copy->exports[i];
        snprintf(target, sizeof target, "vd%c", (int)('a' + i));
        for (unsigned m = 0; m < map->count; m++) {
            if (strcmp(map->disk[m].target, target) == 0) {
                name = map->disk[m].export_name;
            }
        }
        n += snprintf(text + n, sizeof text - (size_t)n, "%s=%s;", target, name);
    }
    snprintf(text + n, sizeof text - (size_t)n, "</domain>");
    r = sim_call_end(&c, 0, err);
    if (r == 0) {
        *ret_xml = strdup(text);
        lmo_assert(*ret_xml);
    }
    return r;
}

static int hv_check_reach(struct lmo_hypervisor *hv, const char *peer_uri, const char *migration_uri,
                          uint64_t timeout_ms, struct lmo_err *err)
{
    (void)migration_uri;
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "check_reach", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    unsigned to = world_host_index(peer_uri);
    if (to == W_HOSTS || world.hosts[to].down_until > sim_now() || world.hosts[to].stream_cut_until > sim_now() ||
        host_of(hv)->stream_cut_until > sim_now()) {
        r = lmo_fail(err, LMO_E_REFUSED, "the hypervisor at '%s' cannot be reached from here", peer_uri);
    }
    return sim_call_end(&c, r, err);
}

static int hv_precheck(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                       struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "precheck_incoming", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g;
    (void)copy_of(hv, in->uuid, &g);
    if (!g || world_state(g, index_of(hv)) != LMO_RUN_ABSENT) {
        r = lmo_fail(err, LMO_E_REFUSED, "a domain of that UUID is here already");
    } else if (host_of(hv)->refuses) {
        r = lmo_fail(err, LMO_E_REFUSED, "machine: this host has no pc-q35-7.2");
    }
    return sim_call_end(&c, r, err);
}

static int hv_prepare(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "prepare_incoming", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g;
    struct w_copy *copy = copy_of(hv, in->uuid, &g);
    if (!copy) {
        return sim_call_end(&c, no_guest(err, in->uuid), err);
    }
    copy->prepared = true;
    return sim_call_end(&c, 0, err);
}

static int hv_discard(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "discard_prepared", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g;
    struct w_copy *copy = copy_of(hv, uuid, &g);
    if (copy && copy->process && !copy->incoming) {
        r = lmo_fail(err, LMO_E_REFUSED, "the guest is not merely incoming");
    } else if (copy) {
        world_process_ends(g, index_of(hv), "destroyed", W_END_DIED);
        copy->prepared = false;
    }
    return sim_call_end(&c, r, err);
}

static int hv_job_adopt(struct lmo_hypervisor *hv, const struct lmo_hv_job *job, lmo_hv_job_end_fn *end, void *arg,
                        struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "job_adopt", 10000, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g = world_guest(job->uuid);
    if (g && g->job.active && g->job.from == index_of(hv)) {
        g->job.end = end;
        g->job.end_arg = arg;
        g->job.end_incarnation = host_of(hv)->process->incarnation;
        if (!g->job.completed) {
            g->copies[index_of(hv)].watched = true;
        }
    } else {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no job runs");
    }
    return sim_call_end(&c, r, err);
}

static int hv_job_start(struct lmo_hypervisor *hv, const struct lmo_hv_job *job, lmo_hv_job_end_fn *end, void *arg,
                        struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "job_start", 10000, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g = world_guest(job->uuid);
    unsigned from = index_of(hv), to = world_host_index(job->peer_uri);
    lmo_assert(g && to < W_HOSTS); /* the plan's own names */
    if (g->job.active) {
        r = lmo_fail(err, LMO_E_BUSY, "a job runs already");
    } else if (world_state(g, to) != LMO_RUN_ABSENT) {
        r = lmo_fail(err, LMO_E_REFUSED, "the destination has that domain already");
    } else if (world.hosts[to].down_until > sim_now() || world.hosts[to].hang_until > sim_now() ||
               world.hosts[to].stream_cut_until > sim_now() || world.hosts[from].stream_cut_until > sim_now()) {
        r = lmo_fail(err, LMO_E_UNAVAILABLE, "the destination's libvirtd cannot be reached");
    } else if (!g->copies[from].process) {
        r = no_guest(err, job->uuid);
    } else {
        world_job_start(g, from, to, job, end, arg);
    }
    return sim_call_end(&c, r, err);
}

static int hv_job_limits(struct lmo_hypervisor *hv, const char *uuid, uint64_t bandwidth, uint64_t downtime_ms,
                         struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "job_limits", 5000, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g = world_guest(uuid);
    if (g && g->job.active && g->job.from == index_of(hv)) {
        world_job_limits(g, bandwidth, downtime_ms);
    } else {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no job runs");
    }
    return sim_call_end(&c, r, err);
}

static int hv_job_progress(struct lmo_hypervisor *hv, const char *uuid, struct lmo_progress *ret_progress,
                           struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "job_progress", 3000, err);
    if (r < 0) {
        return r;
    }
    const struct w_guest *g = world_guest(uuid);
    struct lmo_progress p = {0};
    if (g && g->job.active && g->job.from == index_of(hv)) {
        world_job_progress(g, &p);
    } else {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no job runs");
    }
    r = sim_call_end(&c, r, err);
    if (r == 0) {
        *ret_progress = p;
    }
    return r;
}

static int hv_job_abort(struct lmo_hypervisor *hv, const char *uuid, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "job_abort", 5000, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g = world_guest(uuid);
    r = g && g->job.from == index_of(hv) ? world_job_abort(g, err) : lmo_fail(err, LMO_E_REFUSED, "no job runs");
    return sim_call_end(&c, r, err);
}

/* ------------------------------------------------------------------ freeze, thaw, kill */

static void continue_process(struct w_guest *g, unsigned host)
{
    struct w_copy *c = &g->copies[host];
    if (!c->stopped) {
        return;
    }
    c->stopped = c->frozen = false;
    if (c->resume_queued) {
        c->resume_queued = false;
        world_resume_source(g, host);
    }
    world_changed();
}

static enum lmo_freeze_answer look(struct w_guest *g, unsigned host)
{
    struct w_copy *c = &g->copies[host];
    if (!c->process) {
        bool seen = c->watched || c->ended == W_END_MIGRATED;
        return c->paused_at_end && seen ? LMO_FREEZE_GONE : LMO_FREEZE_UNKNOWN;
    }
    if (c->ran_after_pause || c->vcpus) {
        return LMO_FREEZE_RUNNING;
    }
    return c->completed && (c->watched || c->declared || c->frozen) ? LMO_FREEZE_FROZEN : LMO_FREEZE_UNKNOWN;
}

static void hv_freeze(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_freeze_result *ret)
{
    struct sim_call c;
    struct w_host *h = host_of(hv);
    unsigned host = index_of(hv);
    struct w_guest *g = world_guest(uuid);
    memset(ret, 0, sizeof *ret);
    if (!g) {
        snprintf(ret->evidence, sizeof ret->evidence, "no such guest");
        return;
    }
    world.freezes++;
    /* The signal goes to the process, past libvirtd: neither a hung nor a dead one stands in its way. */
    c.fate = sim_observe(SIM_POINT_DRIVER);
    c.deadline_ns = sim_now() + timeout_ms * SIM_MS;
    sim_sleep(sim_latency(&sim_current()->rng, 150 * SIM_US, 10));
    struct w_copy *copy = &g->copies[host];
    if (copy->process) {
        copy->stopped = true;
        world_changed();
    }
    sim_sleep(sim_latency(&sim_current()->rng, 300 * SIM_US, 20));
    enum lmo_freeze_answer answer = look(g, host);
    /* Evidence can fail to be found for reasons of its own; it is never made up. */
    if (answer != LMO_FREEZE_RUNNING && (c.fate == SIM_FATE_FAIL || c.fate == SIM_FATE_LOST)) {
        answer = LMO_FREEZE_UNKNOWN;
    }
    if (answer == LMO_FREEZE_FROZEN && (world.lies & W_LIE_FREEZE)) {
        continue_process(g, host);
    } else if (answer == LMO_FREEZE_FROZEN) {
        copy->frozen = true;
    } else {
        continue_process(g, host);
    }
    if (answer == LMO_FREEZE_UNKNOWN && h->hang_until > sim_now()) {
        sim_sleep(c.deadline_ns > sim_now() ? c.deadline_ns - sim_now() : 1);
    }
    sim_after(c.fate);
    sim_trace("freeze guest=%s host=%s answer=%s", g->name, h->name, lmo_freeze_answer_name(answer));
    ret->answer = answer;
    snprintf(ret->evidence, sizeof ret->evidence, "simulated: %s", lmo_freeze_answer_name(answer));
    sim_sleep(20 * SIM_US);
}

static bool hv_copy_ended(struct lmo_hypervisor *hv, const char *uuid)
{
    struct w_guest *g;
    const struct w_copy *copy = copy_of(hv, uuid, &g);
    return copy && !copy->process;
}

static bool hv_reachable(struct lmo_hypervisor *hv)
{
    return host_of(hv)->hang_until <= sim_now();
}

static int hv_thaw(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "thaw", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g = world_guest(uuid);
    if (g) {
        world.thaws++;
        continue_process(g, index_of(hv));
    }
    return sim_call_end(&c, 0, err);
}

static int hv_kill(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "kill", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g = world_guest(uuid);
    if (g) {
        if (world_runs(&g->copies[index_of(hv)])) {
            sim_violation("%s: a running guest was killed at %s", g->name, host_of(hv)->name);
        }
        world_process_ends(g, index_of(hv), "migrated", W_END_MIGRATED);
    }
    return sim_call_end(&c, 0, err);
}

static int hv_remove(struct lmo_hypervisor *hv, const char *uuid, bool expected_dead, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "remove", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g;
    struct w_copy *copy = copy_of(hv, uuid, &g);
    if (copy && copy->process && !expected_dead) {
        r = lmo_fail(err, LMO_E_REFUSED, "the guest is not dead");
    } else if (copy) {
        if (world_runs(copy)) {
            sim_violation("%s: a running guest was removed at %s", g->name, host_of(hv)->name);
        }
        world_process_ends(g, index_of(hv), "destroyed", W_END_DIED);
        copy->defined = copy->autostart = copy->prepared = (world.lies & W_LIE_REMOVE) != 0;
        world_changed();
    }
    return sim_call_end(&c, r, err);
}

static int hv_resume(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "resume", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g;
    struct w_copy *copy = copy_of(hv, uuid, &g);
    if (!copy || !copy->process || copy->incoming || copy->stopped) {
        r = lmo_fail(err, LMO_E_INVALID, "the guest is %s",
                     copy ? lmo_run_state_name(world_state(g, index_of(hv))) : "unknown");
    } else if (!copy->vcpus && copy->loaded) {
        world_run_loaded(g, index_of(hv));
    } else if (!copy->vcpus) {
        if (copy->paused_by_user) {
            sim_violation("%s: was paused by its owner, and was resumed", g->name);
        }
        world_resume_source(g, index_of(hv));
    }
    return sim_call_end(&c, r, err);
}

static int hv_settle(struct lmo_hypervisor *hv, const char *uuid, bool persistent, bool autostart, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "settle", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g;
    struct w_copy *copy = copy_of(hv, uuid, &g);
    if (copy) {
        copy->defined = persistent;
        copy->autostart = autostart;
        copy->loaded = false;
    }
    return sim_call_end(&c, 0, err);
}

/* ------------------------------------------------------------------ a guest that is shut off */

static int hv_release(struct lmo_hypervisor *hv, const char *uuid, const char *xml, bool autostart, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "release", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g;
    struct w_copy *copy = copy_of(hv, uuid, &g);
    lmo_assert(xml[0]);
    world.handovers++;
    if (copy && copy->process) {
        copy->defined = true;
        copy->autostart = autostart;
        r = lmo_fail(err, LMO_E_CONFLICT, "the guest was started here meanwhile");
    } else if (copy) {
        copy->defined = copy->autostart = (world.lies & W_LIE_REMOVE) != 0;
        world_changed();
    }
    return sim_call_end(&c, r, err);
}

/* What the definition says of that disk. */
static void export_of(const char *xml, const char *target, char ret[LMO_EXPORT_MAX])
{
    char key[24];
    snprintf(key, sizeof key, "%s=", target);
    const char *at = strstr(xml, key);
    lmo_assert(at);
    at += strlen(key);
    snprintf(ret, LMO_EXPORT_MAX, "%.*s", (int)strcspn(at, ";"), at);
}

static int hv_define(struct lmo_hypervisor *hv, const char *uuid, const char *xml, const struct lmo_hv_disk_map *map,
                     bool autostart, uint64_t timeout_ms, struct lmo_err *err)
{
    struct sim_call c;
    int r = sim_call_begin(&c, host_of(hv), "define", timeout_ms, err);
    if (r < 0) {
        return r;
    }
    struct w_guest *g;
    struct w_copy *copy = copy_of(hv, uuid, &g);
    if (!copy) {
        return sim_call_end(&c, no_guest(err, uuid), err);
    }
    if (copy->process || copy->defined) { /* as it was asked for already, and perhaps started since */
        return sim_call_end(&c, 0, err);
    }
    for (unsigned i = 0; i < g->volume_count; i++) {
        char target[16];
        snprintf(target, sizeof target, "vd%c", (int)('a' + i));
        export_of(xml, target, copy->exports[i]);
        for (unsigned m = 0; m < map->count; m++) {
            if (strcmp(map->disk[m].target, target) == 0) {
                memcpy(copy->exports[i], map->disk[m].export_name, sizeof copy->exports[i]);
            }
        }
    }
    copy->defined = true;
    copy->autostart = autostart;
    check_defined(g, index_of(hv));
    world_changed();
    return sim_call_end(&c, 0, err);
}

static const struct lmo_hypervisor_ops ops = {
    .name = "sim",
    .close = hv_close,
    .list = hv_list,
    .describe = hv_describe,
    .state = hv_state,
    .outgoing_xml = hv_outgoing_xml,
    .check_reach = hv_check_reach,
    .precheck_incoming = hv_precheck,
    .prepare_incoming = hv_prepare,
    .discard_prepared = hv_discard,
    .job_adopt = hv_job_adopt,
    .job_start = hv_job_start,
    .job_limits = hv_job_limits,
    .job_progress = hv_job_progress,
    .job_abort = hv_job_abort,
    .freeze = hv_freeze,
    .copy_ended = hv_copy_ended,
    .reachable = hv_reachable,
    .thaw = hv_thaw,
    .kill = hv_kill,
    .remove = hv_remove,
    .resume = hv_resume,
    .settle = hv_settle,
    .release = hv_release,
    .define = hv_define,
};

struct lmo_hypervisor *sim_hypervisor_open(struct w_host *h)
{
    struct driver *d = calloc(1, sizeof *d);
    lmo_assert(d);
    *d = (struct driver){.base.ops = &ops, .host = h};
    return &d->base;
}
