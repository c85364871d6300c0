/* check.c - what must hold at every change of the world. Knows hypervisors, volumes and guests, nothing of ours. */
#include "world.h"

#include <string.h>

static unsigned runners(const struct w_guest *g)
{
    unsigned n = 0;
    for (unsigned h = 0; h < world.hypervisor_count; h++) {
        n += world_runs(&g->copies[h]);
    }
    return n;
}

void check_world(void)
{
    for (unsigned i = 0; i < world.guest_count; i++) {
        struct w_guest *g = &world.guests[i];
        unsigned n = runners(g);
        if (n > 1) {
            sim_violation("%s: two copies run", g->name);
        }
        unsigned defined = 0;
        for (unsigned h = 0; h < world.hypervisor_count; h++) {
            defined += g->copies[h].defined;
        }
        if (g->shut_off && defined > 1) {
            sim_violation("%s: is shut off and can be started on %u hosts", g->name, defined);
        }
        if (n == 0 && !g->gap_started_ns && !g->owner_paused && !g->shut_off) {
            g->gap_started_ns = sim_now();
        } else if (n > 0 && g->gap_started_ns) {
            uint64_t gap = sim_now() - g->gap_started_ns;
            g->longest_gap_ns = gap > g->longest_gap_ns ? gap : g->longest_gap_ns;
            g->gap_started_ns = 0;
        }
    }
}

/* A copy that was loaded begins to run: its memory must be the guest's, and nobody else may write any more. */
void check_begins_to_run(struct w_guest *g, unsigned host)
{
    const struct w_copy *c = &g->copies[host];
    if (g->owner_paused) {
        sim_violation("%s: was paused by its owner, and is run at %s", g->name, world.hosts[host].name);
    }
    for (unsigned h = 0; h < world.hypervisor_count; h++) {
        const struct w_copy *o = &g->copies[h];
        if (h != host && o->process && !o->incoming && (o->vcpus || o->ran_after_pause)) {
            sim_violation("%s: begins to run at %s, although it ran on at %s", g->name, world.hosts[host].name,
                          world.hosts[h].name);
        }
    }
    for (unsigned i = 0; i < g->volume_count; i++) {
        const struct w_volume *v = &world.volumes[g->volumes[i]];
        if (v->last != c->memory[i]) {
            sim_violation("%s: begins to run at %s with memory of write %u, and %s has write %u", g->name,
                          world.hosts[host].name, c->memory[i], v->name, v->last);
        }
        for (unsigned x = 0; x < W_EXPORTS; x++) {
            const struct w_export *e = &v->exports[x];
            if (e->offered && strcmp(e->host, world.hosts[host].name) != 0) {
                sim_violation("%s: begins to run at %s while %s is still offered", g->name, world.hosts[host].name,
                              e->name);
            }
        }
        const struct w_export *own = NULL;
        for (unsigned x = 0; x < W_EXPORTS; x++) {
            if (strcmp(v->exports[x].name, c->exports[i]) == 0) {
                own = &v->exports[x];
            }
        }
        if (!own || !own->offered) {
            sim_violation("%s: begins to run at %s, and its export of %s is not offered", g->name,
                          world.hosts[host].name, v->name);
        }
    }
}

void check_write(struct w_guest *g, unsigned host, unsigned i, uint32_t number, bool accepted, bool alive)
{
    const struct w_copy *c = &g->copies[host];
    const struct w_volume *v = &world.volumes[g->volumes[i]];
    if (accepted && number != v->last + 1) {
        sim_violation("%s: write %u from %s accepted by %s after write %u", g->name, number, world.hosts[host].name,
                      v->name, v->last);
    }
    if (!accepted && alive && world_runs(c)) {
        sim_violation("%s runs at %s, and %s refuses its write: fenced, or its export is gone", g->name,
                      world.hosts[host].name, v->name);
    }
}

void check_defined(const struct w_guest *g, unsigned host)
{
    const struct w_copy *c = &g->copies[host];
    for (unsigned i = 0; i < g->volume_count; i++) {
        struct w_volume *v = &world.volumes[g->volumes[i]];
        const struct w_export *own = world_export(v, c->exports[i]);
        if (!c->exports[i][0] || !own || !own->offered) {
            sim_violation("%s: is defined at %s with an export of %s that is not offered", g->name,
                          world.hosts[host].name, v->name);
            return;
        }
        for (unsigned x = 0; x < W_EXPORTS; x++) {
            if (v->exports[x].offered && v->exports[x].epoch < own->epoch) {
                sim_violation("%s: can be started at %s while %s is still offered", g->name, world.hosts[host].name,
                              v->exports[x].name);
            }
        }
    }
}

void check_offered(const struct w_volume *v, const char *export_name)
{
    for (unsigned i = 0; i < W_EXPORTS; i++) {
        if (strcmp(v->fenced_names[i], export_name) == 0) {
            sim_violation("%s: export %s was fenced and is offered again", v->name, export_name);
        }
    }
}
