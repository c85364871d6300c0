/* planner_begin.c - how large a plan may get, where in the scratch memory everything lies, and how it is before the first stage. */
#include "base/assert.h"
#include "core/planner_internal.h"

#include <string.h>

#define MOVES_MAX   400000
#define MOVES_MORE  1024 /* beyond what can be counted: guests that make room */
#define REFUGES_MAX 8000000

const char *lmo_plan_options_wrong(const struct lmo_fleet *f, const struct lmo_plan_options *o)
{
    uint64_t seen[LMO_FLEET_HOSTS_MAX / 64 + 1] = {0};
    if (o->kind != LMO_PLAN_EMPTY && o->host_count) {
        return "a rebalance empties no hosts";
    }
    if (o->spare_hosts > LMO_SPARE_HOSTS_MAX) {
        return "spare_hosts is more than 3";
    }
    if (o->host_count > f->host_count || (o->host_count && !o->hosts)) {
        return "more hosts to be emptied than there are";
    }
    for (uint32_t n = 0; n < o->host_count; n++) {
        if (o->hosts[n] >= f->host_count) {
            return "a host to be emptied is not below host_count";
        }
        if (seen[o->hosts[n] / 64] >> (o->hosts[n] % 64) & 1) {
            return "a host is to be emptied twice";
        }
        seen[o->hosts[n] / 64] |= UINT64_C(1) << (o->hosts[n] % 64);
    }
    if (o->avoid_count > f->guest_count) {
        return "more destinations to avoid than guests";
    }
    for (uint32_t n = 0; n < o->avoid_count; n++) {
        if (o->avoid[n].guest >= f->guest_count || o->avoid[n].host >= f->host_count) {
            return "a destination to avoid is out of range";
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------ layout */

static uint32_t lanes_of(const struct lmo_plan_options *o)
{
    return o->max_hosts && o->max_hosts < o->host_count ? o->max_hosts : o->host_count;
}

static uint32_t guests_to_leave(const struct lmo_fleet *f, const struct lmo_plan_options *o)
{
    uint64_t targets[LMO_FLEET_HOSTS_MAX / 64 + 1] = {0};
    uint32_t count = 0;
    for (uint32_t n = 0; n < o->host_count; n++) {
        targets[o->hosts[n] / 64] |= UINT64_C(1) << (o->hosts[n] % 64);
    }
    for (uint32_t g = 0; g < f->guest_count; g++) {
        count += targets[f->guests[g].host / 64] >> (f->guests[g].host % 64) & 1;
    }
    return count;
}

/* Places for N+1: one search for each move and kind of memory at most. Refuges: as many as the guests of two average hosts for
 * each, within a bound. */
void planner_lay_out_shown(const struct lmo_fleet *f, const struct lmo_plan_options *o, const struct lmo_plan_sizes *s,
                           struct place_arena *a, struct place_log *log, struct lmo_plan_blocked **ret_away,
                           uint32_t *ret_away_max)
{
    uint64_t spares = o->spare_hosts ? (uint64_t)f->pool_count * (s->move_max + 2ULL * s->stage_max + 2) : 0;
    uint64_t each = 4 + 2ULL * o->spare_hosts * f->guest_count / (f->host_count ? f->host_count : 1);
    uint64_t refuges = spares * each < REFUGES_MAX ? spares * each : REFUGES_MAX;
    *log = (struct place_log){.spare_max = (uint32_t)spares, .refuge_max = (uint32_t)refuges};
    log->spares = place_take(a, log->spare_max, sizeof *log->spares);
    log->refuges = place_take(a, log->refuge_max, sizeof *log->refuges);
    *ret_away_max = o->give_back ? s->move_max / 2 : 0;
    *ret_away = place_take(a, *ret_away_max, sizeof **ret_away);
}

static void lay_out(struct planner *pl, const struct lmo_plan_sizes *s, struct place_arena *a)
{
    const struct lmo_fleet *f = pl->f;
    size_t hosts = f->host_count, guests = f->guest_count, lanes = lanes_of(pl->o);
    planner_lay_out_shown(f, pl->o, s, a, &pl->log, &pl->away, &pl->away_max);
    pl->p = place_lay_out(f, pl->o->avoid_count, a);
    pl->target = place_take(a, hosts, sizeof *pl->target);
    pl->listed = place_take(a, hosts * f->pool_count, sizeof *pl->listed);
    uint32_t **by_host[] = {&pl->stage_of, &pl->over,  &pl->left_last, &pl->tried,
                            &pl->local,    &pl->queue, &pl->came_last, &pl->due};
    for (size_t n = 0; n < sizeof by_host / sizeof by_host[0]; n++) {
        *by_host[n] = place_take(a, hosts, sizeof(uint32_t));
    }
    pl->out_free = place_take(a, hosts * PLANNER_SLOTS, sizeof(uint64_t));
    pl->in_free = place_take(a, hosts * PLANNER_SLOTS, sizeof(uint64_t));
    pl->alone_ms = place_take(a, hosts, sizeof(uint64_t));
    pl->left_prev = place_take(a, s->move_max, sizeof(uint32_t));
    pl->came_prev = place_take(a, s->move_max, sizeof(uint32_t));
    pl->move_end = place_take(a, s->move_max, sizeof(uint64_t));
    pl->lane_last = place_take(a, lanes, sizeof(uint32_t));
    pl->lane_end = place_take(a, lanes, sizeof(uint64_t));
    pl->draft_max = f->guest_count + MOVES_MORE;
    pl->drafts = place_take(a, 3 * (size_t)pl->draft_max, sizeof *pl->drafts);
    pl->shares = place_take(a, pl->draft_max, sizeof(uint64_t));
    pl->order = place_take(a, pl->draft_max > hosts ? pl->draft_max : hosts, sizeof(uint32_t));
    uint32_t **by_guest[] = {&pl->last_move, &pl->bond, &pl->leaving, &pl->failed};
    for (size_t n = 0; n < sizeof by_guest / sizeof by_guest[0]; n++) {
        *by_guest[n] = place_take(a, guests, sizeof(uint32_t));
    }
    pl->fleet_free = place_take(a, PLANNER_FLEET, sizeof(uint64_t));
    pl->adm_hosts = place_take(a, 2 * (size_t)PLANNER_SHARED_MAX, sizeof *pl->adm_hosts);
    pl->adm_items = place_take(a, PLANNER_SHARED_MAX, sizeof *pl->adm_items);
}

void lmo_plan_sizes(const struct lmo_fleet *f, const struct lmo_plan_options *o, struct lmo_plan_sizes *ret)
{
    struct planner counting = {.f = f, .o = o};
    struct place_arena arena = {0};
    uint64_t base = o->kind == LMO_PLAN_EMPTY ? guests_to_leave(f, o) : f->guest_count;
    uint64_t moves = base * (o->give_back ? 4 : 3) + MOVES_MORE;
    *ret = (struct lmo_plan_sizes){.move_max = (uint32_t)(moves < MOVES_MAX ? moves : MOVES_MAX),
                                   .stage_max = o->host_count ? o->host_count : 1,
                                   .blocked_max = (uint32_t)base + f->move_count + 1};
    ret->after_max = 4 * ret->move_max + 8 * ret->stage_max + lanes_of(o) + MOVES_MORE;
    lay_out(&counting, ret, &arena);
    ret->scratch_bytes = arena.used + planner_check_scratch(f, o, ret);
}

void planner_begin(struct planner *pl, const struct lmo_fleet *f, const struct lmo_plan_options *o, void *scratch,
                   struct lmo_plan *plan)
{
    struct lmo_plan_sizes sizes;
    struct place_arena arena = {.at = scratch};
    lmo_assert(scratch && !lmo_fleet_wrong(f) && !lmo_plan_options_wrong(f, o));
    lmo_plan_sizes(f, o, &sizes);
    lmo_assert(plan->stage_max >= sizes.stage_max && plan->blocked_max >= sizes.blocked_max &&
               plan->after_max >= lanes_of(o) + (o->kind == LMO_PLAN_EMPTY ? o->host_count : 0));
    plan->move_count = plan->stage_count = plan->blocked_count = plan->after_count = 0;
    plan->expected_ms = plan->low_ms = plan->high_ms = plan->bound_ms = 0;
    plan->away_count = 0;
    *pl = (struct planner){.f = f,
                           .o = o,
                           .plan = plan,
                           .move_max = plan->move_max < sizes.move_max ? plan->move_max : sizes.move_max,
                           .lane_count = lanes_of(o),
                           .host = LMO_NONE,
                           .lane = LMO_NONE};
    lay_out(pl, &sizes, &arena);
    place_fill(pl->p, o->spare_hosts, o->avoid, o->avoid_count);
    pl->p->log = o->spare_hosts ? &pl->log : NULL;
    pl->log.stage = LMO_NONE;
    plan->spares = pl->log.spares;
    plan->refuges = pl->log.refuges;
    plan->away = pl->away;
    memcpy(pl->listed, pl->p->room, (size_t)f->host_count * f->pool_count * sizeof *pl->listed);
    memset(pl->out_free, 0, (size_t)f->host_count * PLANNER_SLOTS * sizeof *pl->out_free);
    memset(pl->in_free, 0, (size_t)f->host_count * PLANNER_SLOTS * sizeof *pl->in_free);
    memset(pl->fleet_free, 0, PLANNER_FLEET * sizeof *pl->fleet_free);
    for (uint32_t h = 0; h < f->host_count; h++) {
        pl->target[h] = false;
        pl->alone_ms[h] = pl->tried[h] = pl->due[h] = 0;
        pl->stage_of[h] = pl->over[h] = pl->left_last[h] = pl->came_last[h] = pl->local[h] = LMO_NONE;
    }
    for (uint32_t g = 0; g < f->guest_count; g++) {
        uint64_t link;
        pl->last_move[g] = pl->bond[g] = LMO_NONE;
        pl->alone_ms[f->guests[g].host] += planner_alone_ms(f, &f->guests[g], &link);
    }
    for (uint32_t l = 0; l < pl->lane_count; l++) {
        pl->lane_last[l] = LMO_NONE;
        pl->lane_end[l] = 0;
    }
    for (uint32_t n = 0; n < o->host_count; n++) {
        pl->target[o->hosts[n]] = true;
    }
}
