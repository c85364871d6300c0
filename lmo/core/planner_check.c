/* planner_check.c - does a plan keep its promises? For tests: it counts again from the snapshot, by itself, prefix by prefix,
 * and shares with the planner only the filter's own rules; of N+1 nothing (planner_check_spare.c). */
#include "core/planner.h"

#include "base/assert.h"
#include "core/place_internal.h"
#include "core/planner_internal.h"

#include <string.h>

struct check {
    const struct lmo_fleet *f;
    const struct lmo_plan_options *o;
    const struct lmo_plan_sizes *sizes;
    const struct lmo_plan *plan;
    struct lmo_place *p;
    uint64_t *before; /* [stage * words + t / 64]: stage t is over before the stage begins */
    uint32_t words;
    uint32_t *spread; /* by group: on how many hosts its members were at first */
    struct check_spare spare;
    int64_t *first_room;
    uint32_t *home; /* by guest: where it was before the stage; LMO_NONE: not moved in it */
};

static void lay_out(struct check *c, struct place_arena *a)
{
    struct place_log log; /* stays as it is: the plan refers to it */
    struct lmo_plan_blocked *away;
    uint32_t away_max, stage_max = c->sizes->stage_max, avoid_count = c->o->avoid_count;
    planner_lay_out_shown(c->f, c->o, c->sizes, a, &log, &away, &away_max);
    c->p = place_lay_out(c->f, avoid_count, a);
    c->words = stage_max / 64 + 1;
    c->before = place_take(a, (size_t)stage_max * c->words, sizeof(uint64_t));
    c->spread = place_take(a, c->f->group_count, sizeof(uint32_t));
    c->first_room = place_take(a, (size_t)c->f->host_count * c->f->pool_count, sizeof *c->first_room);
    c->home = place_take(a, c->f->guest_count, sizeof *c->home);
    check_spare_lay_out(&c->spare, c->f, a);
}

size_t planner_check_scratch(const struct lmo_fleet *f, const struct lmo_plan_options *o,
                             const struct lmo_plan_sizes *s)
{
    struct check c = {.f = f, .o = o, .sizes = s};
    struct place_arena arena = {0};
    lay_out(&c, &arena);
    return arena.used;
}

static bool is_before(const struct check *c, uint32_t t, uint32_t s)
{
    return s != LMO_NONE && t != LMO_NONE && (c->before[(size_t)s * c->words + t / 64] >> (t % 64) & 1);
}

static void close_over(struct check *c)
{
    memset(c->before, 0, (size_t)c->plan->stage_count * c->words * sizeof *c->before);
    for (uint32_t s = 0; s < c->plan->stage_count; s++) {
        uint64_t *row = c->before + (size_t)s * c->words;
        for (uint32_t n = 0; n < c->plan->stages[s].after_count; n++) {
            uint32_t t = c->plan->after[c->plan->stages[s].after_first + n];
            for (uint32_t w = 0; w < c->words; w++) {
                row[w] |= c->before[(size_t)t * c->words + w];
            }
            row[t / 64] |= UINT64_C(1) << (t % 64);
        }
    }
}

static const char *broken_order(const struct lmo_plan *plan)
{
    uint32_t at = 0;
    for (uint32_t s = 0; s < plan->stage_count; s++) {
        const struct lmo_plan_stage *stage = &plan->stages[s];
        if (stage->move_first != at) {
            return "N1: the moves of a stage do not stand together";
        }
        at += stage->move_count;
        for (uint32_t n = 0; n < stage->after_count; n++) {
            if (plan->after[stage->after_first + n] >= s) {
                return "N1: a stage comes after one that stands behind it";
            }
        }
    }
    for (uint32_t m = 0; m < plan->move_count; m++) {
        const struct lmo_plan_move *move = &plan->moves[m];
        for (uint32_t n = 0; n < move->after_count; n++) {
            if (plan->after[move->after_first + n] >= m) {
                return "N1: a move waits for one that stands behind it";
            }
        }
        bool own = move->why == LMO_MOVE_GIVE_BACK && move->after_stage == move->stage;
        if (move->after_stage != LMO_NONE && !own && move->after_stage >= move->stage) {
            return "N1: a move waits for a stage that stands behind its own";
        }
    }
    return plan->stage_count && at != plan->move_count ? "N1: moves that belong to no stage" : NULL;
}

/* Has move `a` certainly ended before `b` starts? */
static bool certain(const struct check *c, uint32_t a, uint32_t b)
{
    const struct lmo_plan_move *ma = &c->plan->moves[a], *mb = &c->plan->moves[b];
    for (uint32_t n = 0; n < mb->after_count; n++) {
        if (c->plan->after[mb->after_first + n] == a) {
            return true;
        }
    }
    bool by_own = mb->after_stage != LMO_NONE && mb->after_stage == mb->stage && ma->stage == mb->stage &&
                  ma->why != LMO_MOVE_GIVE_BACK && mb->why == LMO_MOVE_GIVE_BACK;
    return by_own || is_before(c, ma->stage, mb->stage) ||
           (mb->after_stage != LMO_NONE && mb->after_stage != mb->stage &&
            (ma->stage == mb->after_stage || is_before(c, ma->stage, mb->after_stage)));
}

/* Room of the destination with all arrivals listed up to this one, and only the departures that are certain. */
static const char *broken_room(const struct check *c, uint32_t m, const int64_t *first_room)
{
    const struct lmo_plan_move *move = &c->plan->moves[m];
    for (uint32_t pool = 0; pool < c->f->pool_count; pool++) {
        int64_t room = first_room[(size_t)move->to * c->f->pool_count + pool];
        if (place_need(&c->f->guests[move->guest], pool) == 0) {
            continue;
        }
        for (uint32_t n = 0; n <= m; n++) {
            const struct lmo_plan_move *other = &c->plan->moves[n];
            int64_t need = place_need(&c->f->guests[other->guest], pool);
            room -= other->to == move->to ? need : 0;
            room += other->from == move->to && n < m && certain(c, n, m) ? need : 0;
        }
        if (room < 0) {
            return "N1: memory of a destination may be over-committed";
        }
    }
    return NULL;
}

static const char *broken_same_guest(const struct check *c, uint32_t m)
{
    for (uint32_t n = m; n-- > 0;) {
        if (c->plan->moves[n].guest == c->plan->moves[m].guest) {
            return c->plan->stage_count == 0 ? "N6: a rebalance moves a guest twice"
                   : certain(c, n, m)        ? NULL
                                             : "N1: a guest's second move does not wait for its first";
        }
    }
    return NULL;
}

static const char *broken_destination(const struct check *c, uint32_t m)
{
    const struct lmo_plan_move *move = &c->plan->moves[m];
    const struct lmo_fleet_host *h = &c->f->hosts[move->to];
    if (!h->up || h->cordoned || h->draining) {
        return "N3: a destination is down, cordoned or draining";
    }
    for (uint32_t t = 0; t < c->plan->stage_count && t <= move->stage; t++) {
        bool over = move->after_stage == t || is_before(c, t, move->stage) ||
                    (move->after_stage != move->stage && is_before(c, t, move->after_stage));
        if (c->plan->stages[t].host == move->to && (!over || c->plan->stages[t].blocked)) {
            return "N3: a destination's own stage may be open, or has not emptied it";
        }
    }
    for (uint32_t t = move->stage; t < c->plan->stage_count && move->stage != LMO_NONE; t++) {
        if (t > move->stage && c->plan->stages[t].host == move->to && !is_before(c, move->stage, t)) {
            return "N3: a guest may arrive while its destination is being emptied";
        }
    }
    return NULL;
}

/* Once a stage of the list up to `s` has begun that stage t is before, t is over. */
static bool over_by(const struct check *c, uint32_t t, uint32_t s)
{
    for (uint32_t u = t + 1; u <= s; u++) {
        if (is_before(c, t, u)) {
            return true;
        }
    }
    return false;
}

/* Hosts of stages that can be open while `s` is: listed so far, and nothing listed so far says that they are over. */
static void set_open(struct check *c, uint32_t s, bool giving_back)
{
    for (uint32_t h = 0; h < c->f->host_count; h++) {
        c->p->open[h] = false;
        c->p->closed[h] = (uint8_t)place_closed_by(&c->f->hosts[h]);
    }
    for (uint32_t t = 0; t <= s && s != LMO_NONE; t++) {
        const struct lmo_plan_stage *stage = &c->plan->stages[t];
        bool back = stage->blocked == 0 && (over_by(c, t, s) || (c->o->give_back && (t < s || giving_back)));
        if (!back) {
            c->p->open[stage->host] = true;
            c->p->closed[stage->host] = LMO_NOT_DRAINING;
        }
    }
    check_spare_phase(&c->spare);
}

static uint32_t hosts_of_group(const struct lmo_place *p, uint32_t group, bool *ret_shared)
{
    uint32_t count = 0;
    *ret_shared = false;
    for (uint32_t a = p->group_first[group]; a < p->group_first[group + 1]; a++) {
        bool seen = false;
        for (uint32_t b = p->group_first[group]; b < a; b++) {
            seen = seen || p->where[p->members[a]] == p->where[p->members[b]];
        }
        count += !seen;
        *ret_shared = *ret_shared || seen;
    }
    return count;
}

static const char *broken_groups(const struct check *c, uint32_t guest, uint32_t to)
{
    const struct lmo_fleet_guest *g = &c->f->guests[guest];
    for (uint32_t n = 0; n < g->group_count; n++) {
        const struct lmo_fleet_group *group = &c->f->groups[g->groups[n]];
        bool shared;
        uint32_t hosts = hosts_of_group(c->p, g->groups[n], &shared);
        for (uint32_t m = c->p->group_first[g->groups[n]];
             group->hard && group->kind == LMO_GROUP_APART && m < c->p->group_first[g->groups[n] + 1]; m++) {
            if (c->p->members[m] != guest && c->p->where[c->p->members[m]] == to) {
                return "N4: two of a hard anti-affinity group are on one host";
            }
        }
        uint32_t most = c->spread[g->groups[n]] + 1;
        if (group->hard && group->kind == LMO_GROUP_TOGETHER && hosts > (most > 2 ? most : 2)) {
            return "N4: a hard affinity group is torn apart";
        }
    }
    return NULL;
}

static const char *broken_end_of_stage(const struct check *c, uint32_t s)
{
    const struct lmo_plan_stage *stage = &c->plan->stages[s];
    uint32_t there = 0, told = 0;
    for (uint32_t g = c->p->first[stage->host]; g != LMO_NONE; g = c->p->next[g]) {
        bool blocked = false;
        for (uint32_t n = 0; n < c->plan->blocked_count; n++) {
            blocked = blocked || (c->plan->blocked[n].guest == g && c->plan->blocked[n].stage == s);
        }
        if (!blocked) {
            return "N5: a guest of a host to be emptied has neither a move nor a reason";
        }
        there++;
    }
    for (uint32_t n = 0; n < c->plan->blocked_count; n++) {
        told += c->plan->blocked[n].stage == s && c->p->where[c->plan->blocked[n].guest] == stage->host;
    }
    return there != told ? "N5: a guest is blocked twice" : NULL;
}

static const char *broken_move(struct check *c, uint32_t m, const int64_t *first_room)
{
    const struct lmo_plan_move *move = &c->plan->moves[m];
    if (c->p->where[move->guest] != move->from || move->from == move->to) {
        return "N1: a move does not start where its guest is";
    }
    const char *broken = broken_room(c, m, first_room);
    broken = broken ? broken : broken_same_guest(c, m);
    broken = broken ? broken : broken_destination(c, m);
    if (!broken && place_suits(c->p, move->guest, move->to) != LMO_NOT_REJECTED) {
        broken = "N3: a destination lacks what its guest needs";
    }
    if (!broken && !place_movable(c->p, move->guest)) {
        broken = "N3: a guest that cannot be moved is moved";
    }
    place_move(c->p, move->guest, move->to);
    check_spare_moved(&c->spare, move->guest, move->to);
    broken = broken ? broken : broken_groups(c, move->guest, move->to);
    bool back = move->why == LMO_MOVE_GIVE_BACK;
    return broken ? broken : check_spare_broken(&c->spare, move->stage, back, m + 1, c->p->open);
}

/* With give_back: each guest that the stage has moved is back, or it is said why not; once. */
static const char *broken_return(const struct check *c, uint32_t s)
{
    const struct lmo_plan_stage *stage = &c->plan->stages[s];
    for (uint32_t n = 0; n < stage->move_count && c->o->give_back; n++) {
        const struct lmo_plan_move *m = &c->plan->moves[stage->move_first + n];
        c->home[m->guest] = c->home[m->guest] == LMO_NONE ? m->from : c->home[m->guest];
    }
    const char *broken = NULL;
    uint32_t away = 0, told = 0;
    for (uint32_t n = 0; n < stage->move_count && c->o->give_back; n++) {
        uint32_t guest = c->plan->moves[stage->move_first + n].guest, entries = 0;
        if (c->home[guest] == LMO_NONE) {
            continue;
        }
        for (uint32_t a = 0; a < c->plan->away_count; a++) {
            entries += c->plan->away[a].guest == guest && c->plan->away[a].stage == s;
        }
        bool is_away = c->p->where[guest] != c->home[guest];
        broken =
            entries == is_away ? broken : "N5: a guest that was moved is neither back, nor is it said once why not";
        away += is_away;
        c->home[guest] = LMO_NONE;
    }
    for (uint32_t a = 0; a < c->plan->away_count; a++) {
        told += c->plan->away[a].stage == s;
    }
    return broken || told == away ? broken : "N5: a guest is said to be away that was not moved";
}

const char *lmo_plan_broken(const struct lmo_fleet *f, const struct lmo_plan_options *o, const struct lmo_plan *plan,
                            void *scratch)
{
    struct lmo_plan_sizes sizes;
    lmo_plan_sizes(f, o, &sizes);
    struct check c = {.f = f, .o = o, .plan = plan, .sizes = &sizes};
    struct place_arena arena = {.at = scratch};
    lay_out(&c, &arena);
    const char *broken = broken_order(plan);
    if (broken) {
        return broken;
    }
    place_fill(c.p, 0, o->avoid, o->avoid_count);
    memcpy(c.first_room, c.p->room, (size_t)f->host_count * f->pool_count * sizeof *c.first_room);
    for (uint32_t g = 0; g < f->guest_count; g++) {
        c.home[g] = LMO_NONE;
    }
    uint32_t spare_hosts = o->spare_hosts < LMO_SPARE_HOSTS_MAX ? o->spare_hosts : LMO_SPARE_HOSTS_MAX;
    check_spare_begin(&c.spare, plan, spare_hosts);
    close_over(&c);
    for (uint32_t n = 0; n < f->group_count; n++) {
        bool shared;
        c.spread[n] = hosts_of_group(c.p, n, &shared);
    }
    uint32_t at = 0;
    for (uint32_t s = 0; s < plan->stage_count && !broken; s++) {
        const struct lmo_plan_stage *stage = &plan->stages[s];
        bool checked = false;
        for (uint32_t n = 0; n < stage->move_count && !broken; n++, at++) {
            bool back = plan->moves[at].why == LMO_MOVE_GIVE_BACK;
            if (back && !checked) {
                broken = broken_end_of_stage(&c, s);
                checked = true;
            }
            if (n == 0 || back != (plan->moves[at - 1].why == LMO_MOVE_GIVE_BACK)) {
                set_open(&c, s, back);
                broken = broken ? broken : check_spare_broken(&c.spare, s, back, at, c.p->open);
            }
            broken = broken ? broken : broken_move(&c, at, c.first_room);
        }
        broken = broken || checked ? broken : broken_end_of_stage(&c, s);
        broken = broken ? broken : broken_return(&c, s);
    }
    set_open(&c, LMO_NONE, false);
    for (; at < plan->move_count && !broken; at++) {
        broken = broken_move(&c, at, c.first_room);
    }
    return broken;
}
