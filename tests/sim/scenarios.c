/* scenarios.c - what sweeps run: small, quiet plans, each one way that a migration goes. */
#include "sweep.h"

#include <stdio.h>
#include <string.h>

static struct plan_guest guest(const char *name, unsigned volumes, unsigned ports)
{
    struct plan_guest g = {.host = "hv1",
                           .volumes = volumes,
                           .ports = ports,
                           .memory_mib = 128,
                           .dirty_mib_per_s = 10,
                           .persistent = true};
    snprintf(g.name, sizeof g.name, "%s", name);
    return g;
}

static void migrate(struct plan *p, const char *name, const char *to, uint64_t at_ms)
{
    struct plan_request *q = &p->requests[p->request_count++];
    *q = (struct plan_request){.at_ms = at_ms};
    snprintf(q->guest, sizeof q->guest, "%s", name);
    snprintf(q->destination, sizeof q->destination, "%s", to);
}

static void add_fault(struct plan *p, enum fault_kind kind, const char *target, uint64_t at_ms, uint64_t for_ms)
{
    struct plan_fault *f = &p->faults[p->fault_count++];
    *f = (struct plan_fault){.kind = kind, .at_ms = at_ms, .for_ms = for_ms};
    snprintf(f->target, sizeof f->target, "%s", target);
}

static void one_guest(struct plan *p, unsigned volumes, unsigned ports)
{
    p->guests[p->guest_count++] = guest("vm1", volumes, ports);
    migrate(p, "vm1", "hv2", 200);
}

static void live(struct plan *p)
{
    one_guest(p, 2, 1);
}

static void cancel(struct plan *p)
{
    one_guest(p, 1, 1);
    p->guests[0].memory_mib = 1024;
    p->requests[0].cancel_after_ms = 300; /* in the first pass over the memory */
}

static void no_convergence(struct plan *p)
{
    one_guest(p, 1, 1);
    p->guests[0].memory_mib = 2048;
    p->guests[0].dirty_mib_per_s = 4000;
    p->requests[0].convergence_ms = 1500;
}

static void owner_paused(struct plan *p)
{
    one_guest(p, 1, 1);
    p->guests[0].owner_paused = true;
}

static void shut_off(struct plan *p)
{
    one_guest(p, 2, 1);
    p->guests[0].shut_off = true;
}

static void there_and_back(struct plan *p)
{
    one_guest(p, 1, 1);
    p->guests[0].persistent = false;
    migrate(p, "vm1", "hv1", 2000);
}

static void refused(struct plan *p)
{
    one_guest(p, 1, 1);
    add_fault(p, FAULT_REFUSE, "hv2", 0, 10000);
}

static void queue_of_two(struct plan *p)
{
    one_guest(p, 1, 0);
    p->guests[p->guest_count++] = guest("vm2", 1, 1);
    migrate(p, "vm2", "hv2", 210);
    p->max_incoming = 1;
}

static void finish_lost(struct plan *p)
{
    one_guest(p, 1, 1);
    add_fault(p, FAULT_FINISH_LOST, "vm1", 100, 0);
}

static const struct {
    const char *name;
    void (*fill)(struct plan *p);
} scenarios[] = {
    {"live", live},
    {"cancel", cancel},
    {"no_convergence", no_convergence},
    {"owner_paused", owner_paused},
    {"shut_off", shut_off},
    {"there_and_back", there_and_back},
    {"refused", refused},
    {"queue_of_two", queue_of_two},
    {"finish_lost", finish_lost},
};

const char *sweep_scenario_name(unsigned i)
{
    return i < sizeof scenarios / sizeof scenarios[0] ? scenarios[i].name : NULL;
}

int sweep_plan(const char *scenario, struct plan *ret)
{
    for (unsigned i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (strcmp(scenarios[i].name, scenario) == 0) {
            *ret = (struct plan){.seed = 1000 + i, .hypervisors = 2, .storages = 1};
            scenarios[i].fill(ret);
            return 0;
        }
    }
    return -1;
}

int sweep_add_strikes(struct plan *p, const char *strikes)
{
    for (const char *at = strikes; at && *at;) {
        char process[PLAN_NAME_MAX], kind[16], fate[24];
        unsigned long long k;
        struct plan_fault *f = &p->faults[p->fault_count];
        if (p->fault_count == PLAN_FAULTS_MAX ||
            sscanf(at, "%23[^/]/%15[^/]/%llu/%23[a-z_]", process, kind, &k, fate) != 4) {
            return -1;
        }
        *f = (struct plan_fault){.kind = FAULT_POINT,
                                 .point = sim_point_from_name(kind),
                                 .fate = sim_fate_from_name(fate),
                                 .k = k};
        memcpy(f->target, process, sizeof f->target);
        if (f->point == SIM_POINT_COUNT || f->fate == SIM_FATE_COUNT) {
            return -1;
        }
        p->fault_count++;
        at = strchr(at, '+');
        at = at ? at + 1 : NULL;
    }
    return 0;
}
