/* planner_check_spare.c - is N+1 kept where a plan says so? Nothing of what placement or the planner have counted is used: where
 * guests are, what they take and what is lost is counted from the snapshot and the moves, and every refuge is looked at. */
#include "core/planner_internal.h"

#include <string.h>

#define PINNED (LMO_BLOCKER_DEVICE | LMO_BLOCKER_LOCAL_DISK | LMO_BLOCKER_HOST_BOUND) /* no other room would help */

void check_spare_lay_out(struct check_spare *c, const struct lmo_fleet *f, struct place_arena *a)
{
    size_t cells = (size_t)f->host_count * f->pool_count;
    c->f = f;
    c->where = place_take(a, f->guest_count, sizeof *c->where);
    c->refuge = place_take(a, f->guest_count, sizeof *c->refuge);
    c->room = place_take(a, cells, sizeof *c->room);
    c->used = place_take(a, cells, sizeof *c->used);
    c->taken = place_take(a, cells, sizeof *c->taken);
}

static size_t cell(const struct check_spare *c, uint32_t host, uint32_t pool)
{
    return (size_t)host * c->f->pool_count + pool;
}

static int64_t takes(const struct lmo_fleet_guest *g, uint32_t pool)
{
    return pool == 0 ? (int64_t)g->memory_bytes : g->huge_pool == pool ? (int64_t)g->huge_bytes : 0;
}

static void add(const struct check_spare *c, int64_t *to, uint32_t guest, uint32_t host, int64_t sign)
{
    for (uint32_t pool = 0; pool < c->f->pool_count; pool++) {
        to[cell(c, host, pool)] += sign * takes(&c->f->guests[guest], pool);
    }
}

void check_spare_begin(struct check_spare *c, const struct lmo_plan *plan, uint32_t spare_hosts)
{
    const struct lmo_fleet *f = c->f;
    c->plan = plan;
    c->spare_hosts = spare_hosts;
    c->next = 0;
    memset(c->used, 0, (size_t)f->host_count * f->pool_count * sizeof *c->used);
    for (uint32_t g = 0; g < f->guest_count; g++) {
        c->where[g] = f->guests[g].host;
        c->refuge[g] = LMO_NONE;
        add(c, c->used, g, c->where[g], 1);
    }
    for (uint32_t h = 0; h < f->host_count; h++) {
        for (uint32_t pool = 0; pool < f->pool_count; pool++) {
            const struct lmo_fleet_pool *is = &f->hosts[h].pools[pool];
            int64_t promised = (int64_t)is->total_bytes - c->used[cell(c, h, pool)], measured = (int64_t)is->free_bytes;
            c->room[cell(c, h, pool)] = (promised < measured ? promised : measured) - (int64_t)is->keep_bytes;
        }
    }
    for (uint32_t m = 0; m < f->move_count; m++) {
        add(c, c->used, f->moves[m].guest, f->moves[m].to, 1);
        add(c, c->room, f->moves[m].guest, f->moves[m].to, -1);
    }
    check_spare_phase(c);
}

void check_spare_moved(struct check_spare *c, uint32_t guest, uint32_t to)
{
    uint32_t from = c->where[guest];
    add(c, c->used, guest, from, -1);
    add(c, c->room, guest, from, 1);
    add(c, c->used, guest, to, 1);
    add(c, c->room, guest, to, -1);
    c->where[guest] = to;
}

void check_spare_phase(struct check_spare *c)
{
    for (uint32_t pool = 0; pool < LMO_FLEET_POOLS_MAX; pool++) {
        c->now[pool] = LMO_NONE;
    }
}

static bool is_lost(const struct lmo_plan_spare *s, uint32_t host)
{
    bool lost = false;
    for (uint32_t n = 0; n < s->lost_count; n++) {
        lost = lost || s->lost[n] == host;
    }
    return lost;
}

/* No host that is not lost carries more than one that is, and as many are lost as there are to lose. */
static const char *broken_lost(const struct check_spare *c, const struct lmo_plan_spare *s, const bool *open)
{
    uint32_t carrying = 0;
    for (uint32_t h = 0; h < c->f->host_count; h++) {
        int64_t used = c->used[cell(c, h, s->pool)];
        bool remains = c->f->hosts[h].up && !c->f->hosts[h].draining && !open[h] && used > 0;
        carrying += remains;
        if (is_lost(s, h) && !remains) {
            return "N2: a host is given as lost that is not there to be lost";
        }
        for (uint32_t n = 0; n < s->lost_count && remains && !is_lost(s, h); n++) {
            if (used > c->used[cell(c, s->lost[n], s->pool)]) {
                return "N2: a host that carries more than those that are given as lost is left out";
            }
        }
    }
    uint32_t most = carrying < c->spare_hosts ? carrying : c->spare_hosts;
    for (uint32_t n = 1; n < s->lost_count; n++) {
        most = s->lost[n] == s->lost[n - 1] ? UINT32_MAX : most;
    }
    return s->lost_count != most ? "N2: not as many hosts are given as lost as may be" : NULL;
}

static bool within(const struct lmo_set *needs, const struct lmo_set *offers)
{
    return lmo_set_lacks(needs, offers) == LMO_NONE;
}

static bool could_run(const struct lmo_fleet *f, const struct lmo_fleet_guest *g, const struct lmo_fleet_host *h)
{
    bool cpu = g->cpu == LMO_NONE ||
               (h->cpu != LMO_NONE && f->cpu_runs[(size_t)g->cpu * f->host_cpu_count + h->cpu] == LMO_CPU_RUNS);
    return cpu && (g->machine == LMO_NONE || lmo_set_has(&h->machines, g->machine)) &&
           within(&g->services, &h->services) && within(&g->fabrics, &h->fabrics) && within(&g->labels, &h->labels);
}

static bool needs_refuge(const struct check_spare *c, const struct lmo_plan_spare *s, uint32_t guest)
{
    const struct lmo_fleet_guest *g = &c->f->guests[guest];
    bool anywhere = false;
    for (uint32_t h = 0; h < c->f->host_count && !anywhere; h++) {
        anywhere = c->f->hosts[h].up && !is_lost(s, h) && could_run(c->f, g, &c->f->hosts[h]);
    }
    return is_lost(s, c->where[guest]) && g->memory_bytes + g->huge_bytes > 0 && !(g->blockers & PINNED) && anywhere;
}

static bool share_a_rule(const struct lmo_fleet *f, const struct lmo_fleet_guest *a, const struct lmo_fleet_guest *b)
{
    for (uint32_t n = 0; n < a->group_count; n++) {
        const struct lmo_fleet_group *group = &f->groups[a->groups[n]];
        for (uint32_t m = 0; m < b->group_count && group->hard && group->kind == LMO_GROUP_APART; m++) {
            if (a->groups[n] == b->groups[m]) {
                return true;
            }
        }
    }
    return false;
}

/* Is a guest that it has to be apart from there: staying, on its way, or with a refuge there too? */
static bool meets_its_like(const struct check_spare *c, uint32_t guest, uint32_t host)
{
    for (uint32_t other = 0; other < c->f->guest_count && c->f->guests[guest].group_count; other++) {
        if (other != guest && (c->where[other] == host || c->refuge[other] == host) &&
            share_a_rule(c->f, &c->f->guests[guest], &c->f->guests[other])) {
            return true;
        }
    }
    for (uint32_t m = 0; m < c->f->move_count; m++) {
        const struct lmo_fleet_move *move = &c->f->moves[m];
        if (move->guest != guest && move->to == host &&
            share_a_rule(c->f, &c->f->guests[guest], &c->f->guests[move->guest])) {
            return true;
        }
    }
    return false;
}

static const char *broken_refuge(const struct check_spare *c, const struct lmo_plan_spare *s, uint32_t guest,
                                 const bool *open)
{
    uint32_t at = c->refuge[guest];
    const struct lmo_fleet_guest *g = &c->f->guests[guest];
    if (at == LMO_NONE) {
        return needs_refuge(c, s, guest) ? "N2: a guest of a host that may be lost has no refuge" : NULL;
    }
    const struct lmo_fleet_host *h = &c->f->hosts[at];
    bool takes_guests = h->up && !h->cordoned && !h->draining && h->linked && h->max_incoming && h->memory_known;
    if (!is_lost(s, c->where[guest])) {
        return "N2: a guest has a refuge, and its host is not lost";
    }
    if (!takes_guests || open[at] || is_lost(s, at)) {
        return "N2: a refuge takes no guests";
    }
    if (!could_run(c->f, g, h)) {
        return "N2: a refuge lacks what its guest needs";
    }
    for (uint32_t pool = 0; pool < c->f->pool_count; pool++) {
        if (takes(g, pool) > 0 && c->taken[cell(c, at, pool)] > c->room[cell(c, at, pool)]) {
            return "N2: a refuge has not the room for all that count on it";
        }
    }
    return meets_its_like(c, guest, at) ? "N2: two that have to be apart have the same refuge" : NULL;
}

static const char *broken_entry(struct check_spare *c, const struct lmo_plan_spare *s, const bool *open)
{
    const struct lmo_plan_refuge *refuges = c->plan->refuges + s->refuge_first;
    const char *broken = broken_lost(c, s, open);
    memset(c->taken, 0, (size_t)c->f->host_count * c->f->pool_count * sizeof *c->taken);
    for (uint32_t n = 0; n < s->refuge_count && !broken; n++) {
        bool good = refuges[n].guest < c->f->guest_count && refuges[n].host < c->f->host_count &&
                    c->refuge[refuges[n].guest] == LMO_NONE;
        if (!good) {
            broken = "N2: a guest has two refuges, or one that does not exist";
            break;
        }
        c->refuge[refuges[n].guest] = refuges[n].host;
        add(c, c->taken, refuges[n].guest, refuges[n].host, 1);
    }
    for (uint32_t g = 0; g < c->f->guest_count && !broken; g++) {
        broken = broken_refuge(c, s, g, open);
    }
    for (uint32_t n = 0; n < s->refuge_count; n++) {
        if (refuges[n].guest < c->f->guest_count) {
            c->refuge[refuges[n].guest] = LMO_NONE;
        }
    }
    return broken;
}

/* Does anybody that may be lost take of that pool at all? */
static bool is_used(const struct check_spare *c, uint32_t pool, const bool *open)
{
    for (uint32_t h = 0; h < c->f->host_count; h++) {
        if (c->f->hosts[h].up && !c->f->hosts[h].draining && !open[h] && c->used[cell(c, h, pool)] > 0) {
            return true;
        }
    }
    return false;
}

const char *check_spare_broken(struct check_spare *c, uint32_t stage, bool returning, uint32_t at, const bool *open)
{
    const struct lmo_plan *plan = c->plan;
    const char *broken = NULL;
    for (; c->spare_hosts && c->next < plan->spare_count && plan->spares[c->next].at <= at; c->next++) {
        const struct lmo_plan_spare *s = &plan->spares[c->next];
        bool later = stage != LMO_NONE && (s->stage > stage || (s->stage == stage && s->returning && !returning));
        if (later) {
            break;
        }
        if (s->stage == stage && s->returning == returning && s->pool < c->f->pool_count) {
            c->now[s->pool] = c->next;
        }
    }
    for (uint32_t pool = 0; c->spare_hosts && pool < c->f->pool_count && !broken; pool++) {
        if (c->now[pool] != LMO_NONE) {
            broken = broken_entry(c, &plan->spares[c->now[pool]], open);
        } else if (is_used(c, pool, open)) {
            broken = "N2: nothing shows that N+1 holds";
        }
    }
    return broken;
}
