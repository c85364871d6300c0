/* fleets.h - fleets for the tests of placement and planning: by hand, and drawn at random from a seed. One at a time. */
#ifndef LMO_TESTS_UNIT_FLEETS_H
#define LMO_TESTS_UNIT_FLEETS_H

#include "core/planner.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIB          (UINT64_C(1) << 30)
#define FLEET_HOSTS  1024
#define FLEET_GUESTS 24000
#define FLEET_GROUPS 64
#define FLEET_MOVES  64
#define FLEET_CPUS   4

static struct lmo_fleet_host hosts[FLEET_HOSTS];
static struct lmo_fleet_guest guests[FLEET_GUESTS];
static struct lmo_fleet_group groups[FLEET_GROUPS];
static struct lmo_fleet_move moves[FLEET_MOVES];
static uint8_t cpu_runs[FLEET_CPUS * FLEET_CPUS];
static char host_names[FLEET_HOSTS][24], guest_names[FLEET_GUESTS][24], guest_uuids[FLEET_GUESTS][40],
    group_names[FLEET_GROUPS][24];
static struct lmo_limits limits;
static struct lmo_policy policy;
static struct lmo_fleet fleet;

__attribute__((unused)) static uint64_t random_state;
__attribute__((unused)) static uint32_t draw(uint32_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return below ? (uint32_t)(random_state >> 33) % below : 0;
}

/* Guests and hosts are written whole as they come: nothing of a fleet before is left. */
static void fleet_begin(uint32_t host_count, uint64_t memory_bytes)
{
    lmo_limits_default(&limits);
    policy = (struct lmo_policy){.max_downtime_ms = 300};
    memset(hosts, 0, host_count * sizeof *hosts);
    memset(groups, 0, sizeof groups);
    memset(cpu_runs, LMO_CPU_RUNS, sizeof cpu_runs);
    fleet = (struct lmo_fleet){.limits = &limits,
                               .policy = &policy,
                               .hosts = hosts,
                               .guests = guests,
                               .groups = groups,
                               .moves = moves,
                               .host_count = host_count,
                               .pool_count = 2,
                               .page_bytes = {0, UINT64_C(2) << 20},
                               .cpu_runs = cpu_runs,
                               .guest_cpu_count = FLEET_CPUS,
                               .host_cpu_count = FLEET_CPUS};
    for (uint32_t h = 0; h < host_count; h++) {
        (void)snprintf(host_names[h], sizeof host_names[h], "hv%04u", h);
        hosts[h] = (struct lmo_fleet_host){.name = host_names[h],
                                           .up = true,
                                           .linked = true,
                                           .memory_known = true,
                                           .cpu = 0,
                                           .cpus = 32,
                                           .max_incoming = 2,
                                           .max_outgoing = 2,
                                           .rate_bytes_per_s = UINT64_C(1250000000),
                                           .pools = {{memory_bytes, memory_bytes, GIB}}};
    }
}

__attribute__((unused)) static uint32_t guest_on(uint32_t host, uint64_t memory_bytes)
{
    uint32_t g = fleet.guest_count++;
    ck_assert_uint_lt(g, FLEET_GUESTS);
    (void)snprintf(guest_names[g], sizeof guest_names[g], "vm%u", g);
    (void)snprintf(guest_uuids[g], sizeof guest_uuids[g], "00000000-0000-4000-8000-%012u", g);
    guests[g] = (struct lmo_fleet_guest){.uuid = guest_uuids[g],
                                         .name = guest_names[g],
                                         .host = host,
                                         .state = LMO_RUN_RUNNING,
                                         .memory_bytes = memory_bytes,
                                         .move_bytes = memory_bytes,
                                         .vcpus = 2,
                                         .dirty_bytes_per_s = UINT64_C(10) << 20,
                                         .dirty_age_ms = 1000,
                                         .cpu = LMO_NONE,
                                         .machine = LMO_NONE};
    uint64_t *is_free = &hosts[host].pools[0].free_bytes;
    *is_free -= *is_free < memory_bytes ? *is_free : memory_bytes;
    return g;
}

__attribute__((unused)) static uint32_t group_of(enum lmo_group_kind kind, bool hard)
{
    uint32_t n = fleet.group_count++;
    (void)snprintf(group_names[n], sizeof group_names[n], "group%u", n);
    groups[n] = (struct lmo_fleet_group){group_names[n], kind, hard};
    return n;
}

__attribute__((unused)) static void join(uint32_t guest, uint32_t group)
{
    guests[guest].groups[guests[guest].group_count++] = group;
}

/* ------------------------------------------------------------------ at random */

/* `full`: how much of the memory guests take, in percent; `odd`: how many of a hundred guests and hosts have something
 * special about them. */
__attribute__((unused)) static void random_guest(uint32_t host, uint32_t odd)
{
    uint32_t g = guest_on(host, GIB * (1 + draw(8)));
    struct lmo_fleet_guest *guest = &guests[g];
    guest->dirty_bytes_per_s = (uint64_t)draw(300) << 20;
    guest->dirty_age_ms = draw(5) ? 1000 : 0;
    guest->vcpus = 1 + draw(8);
    if (draw(100) >= odd) {
        return;
    }
    switch (draw(10)) {
    case 0: guest->cpu = draw(2); break;
    case 1: (void)lmo_set_add(&guest->labels, draw(3)); break;
    case 2: (void)lmo_set_add(&guest->services, draw(3)); break;
    case 3: guest->blockers = 1U << draw(4); break;
    case 4: guest->leased = true; break;
    case 5:
        guest->state = LMO_RUN_SHUT_OFF;
        hosts[host].pools[0].free_bytes += guest->memory_bytes;
        guest->memory_bytes = guest->move_bytes = 0;
        break;
    case 6:
        hosts[host].pools[0].free_bytes += guest->memory_bytes;
        guest->huge_bytes = guest->memory_bytes;
        guest->huge_pool = 1;
        guest->memory_bytes = GIB / 4;
        hosts[host].pools[1].total_bytes += guest->huge_bytes;
        break;
    default:
        if (fleet.group_count) {
            join(g, draw(fleet.group_count));
        }
        break;
    }
    guest->unmovable = (enum lmo_unmovable)draw(5);
}

__attribute__((unused)) static void random_fleet(uint32_t host_count, uint32_t full, uint32_t odd)
{
    fleet_begin(host_count, 64 * GIB);
    for (uint32_t n = draw(4); odd && n > 0; n--) {
        (void)group_of((enum lmo_group_kind)draw(2), draw(2));
    }
    for (uint32_t h = 0; h < host_count; h++) {
        struct lmo_fleet_host *host = &hosts[h];
        host->pools[0].total_bytes = host->pools[0].free_bytes = GIB * (32 + draw(64));
        host->cpu = draw(2);
        host->max_incoming = 1 + draw(4);
        host->max_outgoing = 1 + draw(4);
        host->rate_bytes_per_s = draw(8) ? UINT64_C(1250000000) : UINT64_C(125000000);
        for (uint32_t n = 0; n < 3; n++) {
            (void)(draw(4) ? lmo_set_add(&host->labels, n) : false);
            (void)(draw(4) ? lmo_set_add(&host->services, n) : false);
        }
        host->pools[1].total_bytes = host->pools[1].free_bytes = odd ? GIB * draw(32) : 0;
        if (draw(100) < odd) {
            bool *flags[] = {&host->cordoned, &host->draining};
            host->up = draw(3) > 0;
            *flags[draw(2)] = draw(2);
            host->linked = draw(6) > 0;
            host->memory_known = draw(6) > 0;
        }
        while (host->pools[0].total_bytes - host->pools[0].free_bytes < host->pools[0].total_bytes / 100 * full &&
               host->pools[0].free_bytes > 10 * GIB) {
            random_guest(h, odd);
        }
    }
    for (uint32_t n = draw(3); odd && n > 0 && fleet.guest_count > 0; n--) {
        uint32_t g = draw(fleet.guest_count), to = draw(host_count);
        bool twice = fleet.move_count && moves[0].guest == g;
        if (guests[g].host != to && !twice) {
            moves[fleet.move_count++] = (struct lmo_fleet_move){g, to};
        }
    }
    cpu_runs[1] = LMO_CPU_DIFFERS;
    ck_assert_msg(!lmo_fleet_wrong(&fleet), "%s", lmo_fleet_wrong(&fleet));
}

/* ------------------------------------------------------------------ plans */

struct made {
    struct lmo_plan plan;
    void *scratch;
};

__attribute__((unused)) static struct made make_plan(const struct lmo_plan_options *o)
{
    struct lmo_plan_sizes sizes;
    struct made made = {0};
    lmo_plan_sizes(&fleet, o, &sizes);
    made.scratch = malloc(sizes.scratch_bytes);
    memset(made.scratch, 0xA5, sizes.scratch_bytes); /* nothing may depend on what was there */
    made.plan = (struct lmo_plan){.moves = malloc(sizes.move_max * sizeof *made.plan.moves),
                                  .stages = malloc(sizes.stage_max * sizeof *made.plan.stages),
                                  .blocked = malloc(sizes.blocked_max * sizeof *made.plan.blocked),
                                  .after = malloc(sizes.after_max * sizeof *made.plan.after),
                                  .move_max = sizes.move_max,
                                  .stage_max = sizes.stage_max,
                                  .blocked_max = sizes.blocked_max,
                                  .after_max = sizes.after_max};
    lmo_plan_make(&fleet, o, made.scratch, &made.plan);
    return made;
}

__attribute__((unused)) static void plan_done(struct made *made)
{
    free(made->scratch);
    free(made->plan.moves);
    free(made->plan.stages);
    free(made->plan.blocked);
    free(made->plan.after);
}

#endif
