/* planner.c - planning a rolling drain of a whole fleet, and how near its execution comes to the lower bound.
 *
 *   planner [hosts] [guests per host] [hosts at once] one drain
 *   planner                                           those of the report
 *
 * The fleet is drawn from a fixed seed: guests of 2 to 32 GiB that dirty 0 to 60 MiB/s, hosts with one 10 Gbit/s link, a third
 * of their memory free. The plan is then executed in simulated time: what may start is queued, lmo_admission_decide says
 * what starts and with which share, memory flows as convergence's series has it, hosts are ready again at once. Every
 * evaluation's limits are checked (lmo_admission_broken). Prints one JSON object: of one drain, or "drain" with several by name. */
#include "bench/lib/bench.h"

#include "base/assert.h"
#include "core/planner.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GIB    (UINT64_C(1) << 30)
#define MIB    (UINT64_C(1) << 20)
#define RATE   UINT64_C(1250000000)
#define SEED   UINT64_C(20260131)
#define ROUNDS 5

static uint64_t state = SEED;
static uint32_t draw(uint32_t below)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33) % below;
}

static void *array(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    lmo_assert(p);
    return p;
}

/* ------------------------------------------------------------------ the fleet */

static struct lmo_limits limits;
static struct lmo_policy policy = {.max_downtime_ms = 300};
static struct lmo_fleet fleet;

static void make_fleet(uint32_t host_count, uint32_t per_host)
{
    state = SEED;
    struct lmo_fleet_host *hosts = array(host_count, sizeof *hosts);
    struct lmo_fleet_guest *guests = array((size_t)host_count * per_host, sizeof *guests);
    lmo_limits_default(&limits);
    fleet = (struct lmo_fleet){.limits = &limits,
                               .policy = &policy,
                               .hosts = hosts,
                               .guests = guests,
                               .host_count = host_count,
                               .guest_count = host_count * per_host,
                               .pool_count = 1};
    for (uint32_t h = 0; h < host_count; h++) {
        char *name = array(1, 24);
        uint64_t used = 0;
        (void)snprintf(name, 24, "hv%05u", h);
        for (uint32_t n = 0; n < per_host; n++) {
            struct lmo_fleet_guest *g = &guests[h * per_host + n];
            char *uuid = array(1, 40);
            (void)snprintf(uuid, 40, "00000000-0000-4000-8000-%012u", h * per_host + n);
            uint64_t bytes = GIB * (2 + draw(31));
            *g = (struct lmo_fleet_guest){.uuid = uuid,
                                          .name = uuid,
                                          .host = h,
                                          .state = LMO_RUN_RUNNING,
                                          .memory_bytes = lmo_memory_needed(&limits, bytes, false),
                                          .move_bytes = bytes,
                                          .vcpus = 1 + draw(8),
                                          .dirty_bytes_per_s = draw(61) * MIB,
                                          .dirty_age_ms = 1000,
                                          .cpu = LMO_NONE,
                                          .machine = LMO_NONE};
            used += g->memory_bytes;
        }
        hosts[h] = (struct lmo_fleet_host){.name = name,
                                           .up = true,
                                           .linked = true,
                                           .memory_known = true,
                                           .cpu = LMO_NONE,
                                           .cpus = 64,
                                           .max_incoming = 2,
                                           .max_outgoing = 2,
                                           .rate_bytes_per_s = RATE};
        uint64_t total = (uint64_t)per_host * 27 * GIB;
        total = total > used + 4 * GIB ? total : used + 4 * GIB;
        hosts[h].pools[0] = (struct lmo_fleet_pool){total, total - used, GIB / 2};
    }
}

static void make_plan(const struct lmo_plan_options *o, struct lmo_plan *plan, void **ret_scratch)
{
    struct lmo_plan_sizes s;
    lmo_plan_sizes(&fleet, o, &s);
    *ret_scratch = malloc(s.scratch_bytes);
    lmo_assert(*ret_scratch);
    *plan = (struct lmo_plan){.moves = array(s.move_max, sizeof *plan->moves),
                              .stages = array(s.stage_max, sizeof *plan->stages),
                              .blocked = array(s.blocked_max, sizeof *plan->blocked),
                              .after = array(s.after_max, sizeof *plan->after),
                              .move_max = s.move_max,
                              .stage_max = s.stage_max,
                              .blocked_max = s.blocked_max,
                              .after_max = s.after_max};
}

/* ------------------------------------------------------------------ execution in simulated time */

struct execution {
    const struct lmo_plan *plan;
    struct lmo_adm_host *hosts;
    struct lmo_adm_item *items;
    uint32_t *move_of; /* by item */
    double *left;      /* by item: bytes still to be sent, what it dirties meanwhile not counted */
    bool *done;        /* by move */
    uint32_t *stage_left;
    bool *begun; /* by stage */
    uint64_t evaluations, violations;
    uint32_t item_max, finished;
    double now_s;
};

static bool stage_over(const struct execution *x, uint32_t s)
{
    return s == LMO_NONE || (x->begun[s] && x->stage_left[s] == 0);
}

static bool may_begin(const struct execution *x, const struct lmo_plan_stage *s)
{
    for (uint32_t n = 0; n < s->after_count; n++) {
        if (!stage_over(x, x->plan->after[s->after_first + n])) {
            return false;
        }
    }
    return true;
}

static bool may_start(const struct execution *x, const struct lmo_plan_move *m)
{
    for (uint32_t n = 0; n < m->after_count; n++) {
        if (!x->done[x->plan->after[m->after_first + n]]) {
            return false;
        }
    }
    return stage_over(x, m->after_stage);
}

static uint32_t new_item(const struct execution *x, uint32_t *count)
{
    for (uint32_t n = 0; n < *count; n++) {
        if (x->items[n].state == LMO_ADM_FREE) {
            return n;
        }
    }
    lmo_assert(*count < x->item_max);
    return (*count)++;
}

/* Queues all moves of the stages that may begin, in the plan's order; what still waits is looked at again. */
static void queue_more(struct execution *x, struct lmo_adm_fleet *f, bool *queued, uint32_t *tail)
{
    for (uint32_t s = 0; s < x->plan->stage_count; s++) {
        const struct lmo_plan_stage *stage = &x->plan->stages[s];
        if (!x->begun[s] && !may_begin(x, stage)) {
            continue;
        }
        if (!x->begun[s]) {
            x->begun[s] = true;
            x->hosts[stage->host].max_outgoing = stage->parallel;
        }
        for (uint32_t n = 0; x->stage_left[s] > 0 && n < stage->move_count; n++) {
            uint32_t m = stage->move_first + n;
            const struct lmo_plan_move *move = &x->plan->moves[m];
            if (queued[m] || !may_start(x, move)) {
                continue;
            }
            uint32_t i = new_item(x, &f->item_count);
            queued[m] = true;
            x->move_of[i] = m;
            x->items[i] = (struct lmo_adm_item){.state = LMO_ADM_QUEUED,
                                                .source = move->from,
                                                .destination = move->to,
                                                .next = LMO_NONE,
                                                .memory_bytes = fleet.guests[move->guest].memory_bytes};
            *(*tail == LMO_NONE ? &f->queue : &x->items[*tail].next) = i;
            *tail = i;
        }
    }
}

static void start(struct execution *x, uint32_t i)
{
    const struct lmo_fleet_guest *g = &fleet.guests[x->plan->moves[x->move_of[i]].guest];
    x->items[i].state = LMO_ADM_RUNNING;
    x->items[i].stream = x->items[i].adjustable = true;
    x->items[i].share_bytes_per_s = x->items[i].held_bytes_per_s = x->items[i].new_share_bytes_per_s;
    double rest = (double)RATE * (double)policy.max_downtime_ms / 1000.0;
    x->left[i] = (double)g->move_bytes > rest ? (double)g->move_bytes - rest : 1;
}

static void decide(struct execution *x, struct lmo_adm_fleet *f, uint32_t *tail)
{
    lmo_admission_decide(f);
    x->evaluations++;
    x->violations += lmo_admission_broken(f) != NULL;
    uint32_t before = LMO_NONE;
    for (uint32_t i = f->queue, after; i != LMO_NONE; i = after) {
        after = x->items[i].next;
        if (!x->items[i].admitted) {
            before = i;
            continue;
        }
        *(before == LMO_NONE ? &f->queue : &x->items[before].next) = after;
        start(x, i);
    }
    *tail = before;
    for (uint32_t i = 0; i < f->item_count; i++) {
        if (x->items[i].state == LMO_ADM_RUNNING && x->items[i].changed) {
            x->items[i].share_bytes_per_s = x->items[i].held_bytes_per_s = x->items[i].new_share_bytes_per_s;
        }
    }
}

static double speed(const struct execution *x, uint32_t i)
{
    const struct lmo_fleet_guest *g = &fleet.guests[x->plan->moves[x->move_of[i]].guest];
    double s = (double)x->items[i].share_bytes_per_s - (double)g->dirty_bytes_per_s;
    return s > 1 ? s : 1;
}

/* On to the next end. False: nothing runs. */
static bool advance(struct execution *x, struct lmo_adm_fleet *f)
{
    double soonest = INFINITY;
    for (uint32_t i = 0; i < f->item_count; i++) {
        if (x->items[i].state == LMO_ADM_RUNNING) {
            soonest = fmin(soonest, x->left[i] / speed(x, i));
        }
    }
    if (!isfinite(soonest)) {
        return false;
    }
    x->now_s += soonest;
    for (uint32_t i = 0; i < f->item_count; i++) {
        if (x->items[i].state != LMO_ADM_RUNNING) {
            continue;
        }
        x->left[i] -= soonest * speed(x, i);
        if (x->left[i] > 0.5) {
            continue;
        }
        const struct lmo_plan_move *m = &x->plan->moves[x->move_of[i]];
        uint64_t bytes = x->items[i].memory_bytes;
        x->hosts[m->to].pool_bytes[0] -= bytes < x->hosts[m->to].pool_bytes[0] ? bytes : x->hosts[m->to].pool_bytes[0];
        x->hosts[m->from].pool_bytes[0] += bytes;
        x->items[i].state = LMO_ADM_FREE;
        x->done[x->move_of[i]] = true;
        x->finished++;
        if (--x->stage_left[m->stage] == 0) {
            x->hosts[x->plan->stages[m->stage].host].max_outgoing = 2;
        }
    }
    return true;
}

static void execute(struct execution *x, const struct lmo_plan *plan)
{
    *x = (struct execution){.plan = plan, .item_max = 8192};
    x->hosts = array(fleet.host_count, sizeof *x->hosts);
    x->items = array(x->item_max, sizeof *x->items);
    x->move_of = array(x->item_max, sizeof *x->move_of);
    x->left = array(x->item_max, sizeof *x->left);
    x->done = array(plan->move_count, sizeof *x->done);
    x->stage_left = array(plan->stage_count, sizeof *x->stage_left);
    x->begun = array(plan->stage_count, sizeof *x->begun);
    bool *queued = array(plan->move_count, sizeof *queued);
    struct lmo_adm_fleet f = {
        .limits = &limits, .hosts = x->hosts, .host_count = fleet.host_count, .items = x->items, .queue = LMO_NONE};
    uint32_t tail = LMO_NONE;
    for (uint32_t h = 0; h < fleet.host_count; h++) {
        const struct lmo_fleet_host *host = &fleet.hosts[h];
        x->hosts[h] = (struct lmo_adm_host){.usable = true,
                                            .max_incoming = host->max_incoming,
                                            .max_outgoing = host->max_outgoing,
                                            .rate_bytes_per_s = host->rate_bytes_per_s,
                                            .pool_known = {true},
                                            .pool_bytes = {host->pools[0].free_bytes - host->pools[0].keep_bytes}};
    }
    for (uint32_t s = 0; s < plan->stage_count; s++) {
        x->stage_left[s] = plan->stages[s].move_count;
    }
    do {
        queue_more(x, &f, queued, &tail);
        decide(x, &f, &tail);
    } while (advance(x, &f));
    free(queued);
}

/* ------------------------------------------------------------------ the figures */

static json_t *drain(uint32_t host_count, uint32_t per_host, uint32_t at_once)
{
    make_fleet(host_count, per_host);
    uint32_t *targets = array(host_count, sizeof *targets);
    for (uint32_t h = 0; h < host_count; h++) {
        targets[h] = h;
    }
    struct lmo_plan_options o = {.hosts = targets, .host_count = host_count, .max_hosts = at_once, .spare_hosts = 1};
    struct lmo_plan plan;
    struct samples took = {0};
    void *scratch;
    make_plan(&o, &plan, &scratch);
    for (unsigned n = 0; n < ROUNDS; n++) {
        clock_t before = clock(); /* processor time: others use this machine too */
        lmo_plan_make(&fleet, &o, scratch, &plan);
        samples_add(&took, (uint64_t)(clock() - before) * (UINT64_C(1000000000) / CLOCKS_PER_SEC));
    }
    struct execution x;
    execute(&x, &plan);
    json_t *j =
        json_pack("{s:i, s:i, s:i, s:f, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:I, s:I, s:b}", "hosts", (int)host_count,
                  "guests", (int)fleet.guest_count, "max_hosts", (int)at_once, "plan_cpu_ms",
                  rounded((double)samples_percentile(&took, 50) / 1e6, 1), "moves", (int)plan.move_count, "stages",
                  (int)plan.stage_count, "blocked", (int)plan.blocked_count, "bound_s",
                  rounded((double)plan.bound_ms / 1e3, 1), "planned_s", rounded((double)plan.expected_ms / 1e3, 1),
                  "makespan_s", rounded(x.now_s, 1), "makespan_over_bound",
                  plan.bound_ms ? rounded(x.now_s * 1e3 / (double)plan.bound_ms, 3) : 0.0, "evaluations",
                  (json_int_t)x.evaluations, "limit_violations", (json_int_t)x.violations, "complete",
                  x.finished == plan.move_count);
    lmo_assert(j);
    samples_done(&took);
    return j;
}

/* What is in the report: hosts, guests on each, hosts at once. */
static json_t *drains(void)
{
    static const struct {
        const char *name;
        uint32_t hosts, per_host, at_once;
    } all[] = {{"hosts_1000_at_once_10", 1000, 20, 10},
               {"hosts_1000_at_once_50", 1000, 20, 50},
               {"hosts_100_at_once_5", 100, 20, 5}};
    json_t *by_name = json_object();
    double worst = 0;
    for (size_t n = 0; n < sizeof all / sizeof all[0]; n++) {
        json_t *one = drain(all[n].hosts, all[n].per_host, all[n].at_once);
        worst = fmax(worst, json_real_value(json_object_get(one, "makespan_over_bound")));
        lmo_assert(json_object_set_new(by_name, all[n].name, one) == 0);
    }
    lmo_assert(json_object_set_new(by_name, "makespan_over_bound_worst", json_real(rounded(worst, 3))) == 0);
    json_t *j = json_pack("{s:o}", "drain", by_name);
    lmo_assert(j);
    return j;
}

int main(int argc, char **argv)
{
    uint32_t hosts = argc > 1 ? (uint32_t)atoi(argv[1]) : 0, per_host = argc > 2 ? (uint32_t)atoi(argv[2]) : 20;
    uint32_t at_once = argc > 3 ? (uint32_t)atoi(argv[3]) : 10;
    if (argc > 1 &&
        (hosts < 2 || hosts > LMO_FLEET_HOSTS_MAX || per_host < 1 || per_host > LMO_FLEET_GUESTS_MAX / hosts)) {
        die("planner [hosts: 2 to 4096] [guests per host: at most 100000 in all] [hosts at once]");
    }
    json_t *j = argc > 1 ? drain(hosts, per_host, at_once) : drains();
    json_dumpf(j, stdout, JSON_INDENT(2));
    puts("");
    json_decref(j);
    return 0;
}
