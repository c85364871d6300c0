/* planner_list.c - appending what was worked out to the plan: order, what each move waits for, when it is expected.
 *
 * Room. `listed` is the room of a host less all arrivals that are in the plan so far; what leaves it is not added. A move whose
 * guest does not fit into that names the earlier moves off the host that make up for it. So whatever the order of
 * execution, for the arrival that stands last of those that have started: all arrivals before it are counted, and of the
 * departures only those that are certain. That is why invariant N1 holds. When a host was empty and is ready again,
 * counting begins anew, and whoever goes there waits for the end of its stage. */
#include "core/planner_internal.h"

#include "base/assert.h"

#include <string.h>

#define AFTER_MAX 64 /* moves that one waits for */

bool planner_surely_over(const struct planner *pl, uint32_t t, uint32_t s)
{
    const struct lmo_plan_stage *stages = pl->plan->stages;
    return t != LMO_NONE && s != LMO_NONE && t < s && (t < pl->barrier || stages[t].lane == stages[s].lane);
}

/* ------------------------------------------------------------------ order */

static bool longer(const void *arg, uint32_t a, uint32_t b)
{
    const struct planner *pl = arg;
    uint64_t link, of_a = planner_alone_ms(pl->f, &pl->f->guests[pl->drafts[a].guest], &link);
    uint64_t of_b = planner_alone_ms(pl->f, &pl->f->guests[pl->drafts[b].guest], &link);
    if (of_a == of_b) { /* no rate known: by what there is to send */
        of_a = planner_bytes(&pl->f->guests[pl->drafts[a].guest]);
        of_b = planner_bytes(&pl->f->guests[pl->drafts[b].guest]);
    }
    return of_a != of_b ? of_a > of_b : pl->p->turn[pl->drafts[a].guest] < pl->p->turn[pl->drafts[b].guest];
}

/* Tries the drafts again in that order (indices into `from`); false, with everything taken back: a prefix breaks a rule. */
static bool replay(struct planner *pl, const struct draft *from, const uint32_t *order, uint32_t count)
{
    planner_back(pl, 0);
    for (uint32_t n = 0; n < count; n++) {
        const struct draft *d = &from[order ? order[n] : n];
        place_prepare(pl->p, d->guest);
        bool good = place_filter(pl->p, d->to) == LMO_NOT_REJECTED;
        place_forget(pl->p);
        if (!good || !planner_try(pl, d->guest, d->to, d->why)) {
            planner_back(pl, 0);
            return false;
        }
    }
    return true;
}

/* The log's part that belongs to the drafts, out of the way at the end of its arrays. */
struct kept {
    uint32_t spares, refuges;
};

static bool keep(struct planner *pl, struct kept *k)
{
    struct place_log *l = &pl->log;
    uint32_t first = pl->draft_count ? pl->drafts[0].entries : l->spare_count;
    uint32_t refuge = first < l->spare_count ? l->spares[first].refuge_first : l->refuge_count;
    *k = (struct kept){l->spare_count - first, l->refuge_count - refuge};
    if (k->spares > l->spare_max - l->spare_count || k->refuges > l->refuge_max - l->refuge_count) {
        return false;
    }
    l->spare_max -= k->spares;
    l->refuge_max -= k->refuges;
    if (k->spares) {
        memcpy(l->spares + l->spare_max, l->spares + first, k->spares * sizeof *l->spares);
    }
    if (k->refuges) {
        memcpy(l->refuges + l->refuge_max, l->refuges + refuge, k->refuges * sizeof *l->refuges);
    }
    return true;
}

static void drop(struct planner *pl, const struct kept *k)
{
    pl->log.spare_max += k->spares;
    pl->log.refuge_max += k->refuges;
}

/* What was found possible is possible: with the places that were found then, and that a new search may miss. */
static void as_it_was(struct planner *pl, const struct draft *from, uint32_t count, const struct kept *k)
{
    struct place_log *l = &pl->log;
    planner_back(pl, 0);
    if (k->spares) {
        memmove(l->spares + l->spare_count, l->spares + l->spare_max, k->spares * sizeof *l->spares);
    }
    if (k->refuges) {
        memmove(l->refuges + l->refuge_count, l->refuges + l->refuge_max, k->refuges * sizeof *l->refuges);
    }
    l->spare_count += k->spares;
    l->refuge_count += k->refuges;
    drop(pl, k);
    for (uint32_t n = 0; n < count; n++) {
        place_move(pl->p, from[n].guest, from[n].to);
        pl->p->arrivals[from[n].to]++;
        pl->drafts[pl->draft_count++] = from[n];
    }
    place_spare_rewind(pl->p, l->spare_count);
}

/* In another order, if every prefix of that keeps the rules; else nothing has changed. */
static void reorder(struct planner *pl, const struct draft *to, const uint32_t *order, uint32_t count,
                    const struct draft *whole, uint32_t whole_count)
{
    struct kept k;
    if (!keep(pl, &k)) {
        return;
    }
    if (replay(pl, to, order, count)) {
        drop(pl, &k);
    } else {
        as_it_was(pl, whole, whole_count, &k);
    }
}

/* Two moves of one guest off the host that is emptied become one, straight to where the second ends. */
static uint32_t shortened(const struct planner *pl, struct draft *ret)
{
    uint32_t count = 0;
    for (uint32_t n = 0; n < pl->draft_count; n++) {
        struct draft d = pl->drafts[n];
        for (uint32_t m = 0; m < count; m++) {
            if (ret[m].guest == d.guest && ret[m].why == LMO_MOVE_EMPTY && d.why == LMO_MOVE_MAKE_ROOM) {
                d.from = ret[m].from;
                d.why = LMO_MOVE_EMPTY;
                memmove(&ret[m], &ret[m + 1], (count - m - 1) * sizeof *ret);
                count--;
                break;
            }
        }
        ret[count++] = d;
    }
    return count;
}

/* The second half of the array of drafts is room for a copy. */
static void put_in_order(struct planner *pl)
{
    struct draft *copy = pl->drafts + pl->draft_max;
    uint32_t count = pl->draft_count;
    bool pushed = false;
    for (uint32_t n = 0; n < count; n++) {
        pushed = pushed || pl->drafts[n].why != LMO_MOVE_EMPTY;
    }
    if (pushed) {
        uint32_t fewer = shortened(pl, copy);
        struct draft *whole = copy + pl->draft_max;
        memcpy(whole, pl->drafts, count * sizeof *whole);
        if (fewer < count) {
            reorder(pl, copy, NULL, fewer, whole, count);
        }
        return; /* who makes room stands before who needs it: left as it was found */
    }
    for (uint32_t n = 0; n < count; n++) {
        pl->order[n] = n;
    }
    place_sort(pl->order, count, longer, pl);
    memcpy(copy, pl->drafts, count * sizeof *copy);
    if (pl->p->spare == 0) { /* arrivals only: every prefix takes less than the whole */
        for (uint32_t n = 0; n < count; n++) {
            pl->drafts[n] = copy[pl->order[n]];
        }
    } else {
        reorder(pl, copy, pl->order, count, copy, count);
    }
}

/* ------------------------------------------------------------------ what a move waits for */

struct waits {
    uint32_t moves[AFTER_MAX], count;
    bool over; /* more than AFTER_MAX */
};

static void wait_for(struct waits *w, uint32_t move)
{
    for (uint32_t n = 0; n < w->count; n++) {
        if (w->moves[n] == move) {
            return;
        }
    }
    if (w->count == AFTER_MAX) {
        w->over = true;
        return;
    }
    w->moves[w->count++] = move;
}

static bool apart(const struct lmo_fleet *f, uint32_t a, uint32_t b)
{
    const struct lmo_fleet_guest *ga = &f->guests[a], *gb = &f->guests[b];
    for (uint32_t n = 0; n < ga->group_count; n++) {
        const struct lmo_fleet_group *group = &f->groups[ga->groups[n]];
        for (uint32_t m = 0; group->hard && group->kind == LMO_GROUP_APART && m < gb->group_count; m++) {
            if (ga->groups[n] == gb->groups[m]) {
                return true;
            }
        }
    }
    return false;
}

static bool enough(const int64_t *room, const struct lmo_fleet_guest *g, uint32_t pools)
{
    for (uint32_t pool = 0; pool < pools; pool++) {
        int64_t need = place_need(g, pool);
        if (need > 0 && room[pool] < need) {
            return false;
        }
    }
    return true;
}

/* First what is over anyhow, then as many others as it takes, the latest first. */
static void wait_for_room(const struct planner *pl, const struct lmo_plan_move *m, struct waits *w)
{
    const struct lmo_fleet_guest *g = &pl->f->guests[m->guest];
    uint32_t pools = pl->p->pools;
    int64_t room[LMO_FLEET_POOLS_MAX];
    memcpy(room, pl->listed + (size_t)m->to * pools, pools * sizeof *room);
    for (unsigned certain = 2; certain-- > 0;) {
        for (uint32_t at = pl->left_last[m->to]; at != LMO_NONE && !enough(room, g, pools); at = pl->left_prev[at]) {
            const struct lmo_plan_move *leaves = &pl->plan->moves[at];
            if (planner_surely_over(pl, leaves->stage, m->stage) != (certain == 1)) {
                continue;
            }
            const struct lmo_fleet_guest *leaver = &pl->f->guests[leaves->guest];
            bool helps = false;
            for (uint32_t pool = 0; pool < pools; pool++) {
                helps = helps || (place_need(leaver, pool) > 0 && room[pool] < place_need(g, pool));
                room[pool] += place_need(leaver, pool);
            }
            if (helps && !certain) {
                wait_for(w, at);
            } else if (!helps) {
                for (uint32_t pool = 0; pool < pools; pool++) {
                    room[pool] -= place_need(leaver, pool);
                }
            }
        }
    }
    lmo_assert(enough(room, g, pools));
}

static void find_waits(const struct planner *pl, struct lmo_plan_move *m, uint32_t after_stage, struct waits *w)
{
    *w = (struct waits){0};
    if (pl->last_move[m->guest] != LMO_NONE) {
        wait_for(w, pl->last_move[m->guest]);
    }
    for (uint32_t at = pl->left_last[m->to]; at != LMO_NONE; at = pl->left_prev[at]) {
        const struct lmo_plan_move *left = &pl->plan->moves[at];
        if (left->guest != m->guest && apart(pl->f, left->guest, m->guest) &&
            !planner_surely_over(pl, left->stage, m->stage)) {
            wait_for(w, at);
        }
    }
    m->after_stage = after_stage;
    uint32_t over = pl->over[m->to];
    if (after_stage == LMO_NONE && over != LMO_NONE && !planner_surely_over(pl, over, m->stage)) {
        m->after_stage = over;
    }
    wait_for_room(pl, m, w);
}

/* ------------------------------------------------------------------ when */

static uint64_t soonest(const uint64_t *slots, uint32_t count)
{
    uint64_t best = slots[0];
    for (uint32_t n = 1; n < count; n++) {
        best = slots[n] < best ? slots[n] : best;
    }
    return best;
}

/* Of those free at that time the one that has been so shortest: time before it is lost to what is listed later. */
static void occupy(uint64_t *slots, uint32_t count, uint64_t at, uint64_t until)
{
    uint64_t *best = NULL;
    for (uint32_t n = 0; n < count; n++) {
        best = slots[n] <= at && (!best || slots[n] > *best) ? &slots[n] : best;
    }
    lmo_assert(best);
    *best = until;
}

static uint32_t slots_of(uint32_t max)
{
    return max == 0 ? 1 : max < PLANNER_SLOTS ? max : PLANNER_SLOTS;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Gives it the first slots that are free: list scheduling. */
static uint64_t schedule(struct planner *pl, struct lmo_plan_move *m, uint32_t parallel, uint64_t start_ms,
                         const struct waits *w)
{
    const struct lmo_fleet_host *from = &pl->f->hosts[m->from], *to = &pl->f->hosts[m->to];
    uint32_t out_max = slots_of(from->max_outgoing), fleet_max = pl->f->limits->max_migrations;
    out_max = m->from == pl->host && parallel < out_max ? parallel : out_max;
    fleet_max = fleet_max == 0 ? 1 : fleet_max < PLANNER_FLEET ? fleet_max : PLANNER_FLEET;
    uint64_t *out = pl->out_free + (size_t)m->from * PLANNER_SLOTS, *in = pl->in_free + (size_t)m->to * PLANNER_SLOTS;
    uint32_t in_max = slots_of(to->max_incoming);
    uint64_t at = later(soonest(out, out_max), later(soonest(in, in_max), soonest(pl->fleet_free, fleet_max)));
    at = later(at, start_ms);
    for (uint32_t n = 0; n < w->count; n++) {
        at = later(at, pl->move_end[w->moves[n]]);
    }
    if (m->after_stage != LMO_NONE && m->after_stage != m->stage) {
        at = later(at, pl->plan->stages[m->after_stage].start_ms + pl->plan->stages[m->after_stage].expected_ms);
    }
    m->start_ms = at;
    occupy(out, out_max, at, at + m->expected_ms);
    occupy(in, in_max, at, at + m->expected_ms);
    occupy(pl->fleet_free, fleet_max, at, at + m->expected_ms);
    return at + m->expected_ms;
}

/* ------------------------------------------------------------------ appending */

static void append(struct planner *pl, const struct lmo_plan_move *m, const struct waits *w, uint64_t end_ms)
{
    struct lmo_plan *plan = pl->plan;
    uint32_t number = plan->move_count++;
    plan->moves[number] = *m;
    plan->moves[number].after_first = plan->after_count;
    plan->moves[number].after_count = w->count;
    memcpy(&plan->after[plan->after_count], w->moves, w->count * sizeof *w->moves);
    plan->after_count += w->count;
    pl->last_move[m->guest] = number;
    pl->left_prev[number] = pl->left_last[m->from];
    pl->left_last[m->from] = number;
    pl->came_prev[number] = pl->came_last[m->to];
    pl->came_last[m->to] = number;
    pl->move_end[number] = end_ms;
    for (uint32_t pool = 0; pool < pl->p->pools; pool++) {
        pl->listed[(size_t)m->to * pl->p->pools + pool] -= place_need(&pl->f->guests[m->guest], pool);
    }
}

/* Takes the moves from `first` on out of the plan again. */
static void unlist(struct planner *pl, uint32_t first, uint32_t after_count)
{
    struct lmo_plan *plan = pl->plan;
    while (plan->move_count > first) {
        const struct lmo_plan_move *m = &plan->moves[--plan->move_count];
        pl->left_last[m->from] = pl->left_prev[plan->move_count];
        pl->came_last[m->to] = pl->came_prev[plan->move_count];
        for (uint32_t pool = 0; pool < pl->p->pools; pool++) {
            pl->listed[(size_t)m->to * pl->p->pools + pool] += place_need(&pl->f->guests[m->guest], pool);
        }
        pl->last_move[m->guest] = LMO_NONE;
    }
    for (uint32_t n = 0; n < first; n++) {
        pl->last_move[plan->moves[n].guest] = n;
    }
    plan->after_count = after_count;
}

bool planner_list(struct planner *pl, uint32_t stage, uint32_t after_stage, uint64_t start_ms, uint64_t *ret_end_ms)
{
    struct lmo_plan *plan = pl->plan;
    uint32_t first = plan->move_count, after_count = plan->after_count, parallel = PLANNER_SLOTS;
    pl->too_many = false;
    bool returns = after_stage == stage && stage != LMO_NONE, leaves = pl->o->give_back && !returns;
    if (pl->move_max - plan->move_count < pl->draft_count ||
        (leaves && pl->away_max - plan->away_count < pl->draft_count)) {
        return false;
    }
    if (pl->host != LMO_NONE && after_stage == LMO_NONE) {
        put_in_order(pl);
        parallel = planner_parallel(pl, pl->host);
        plan->stages[stage].parallel = parallel;
    }
    planner_shares(pl, parallel);
    *ret_end_ms = start_ms;
    for (uint32_t n = 0; n < pl->draft_count; n++) {
        const struct draft *d = &pl->drafts[n];
        struct waits w;
        struct lmo_plan_move m = {.guest = d->guest,
                                  .from = d->from,
                                  .to = d->to,
                                  .why = d->why,
                                  .stage = stage,
                                  .way = lmo_place_way_of(&pl->f->guests[d->guest], false, NULL, NULL, 0),
                                  .bandwidth_bytes_per_s = pl->shares[n]};
        find_waits(pl, &m, after_stage, &w);
        if (w.over || plan->after_max - plan->after_count < w.count + planner_after_kept(pl)) {
            pl->too_many = w.over;
            unlist(pl, first, after_count);
            return false;
        }
        planner_times(pl, &m);
        uint64_t end_ms = schedule(pl, &m, parallel, start_ms, &w);
        append(pl, &m, &w, end_ms);
        *ret_end_ms = later(*ret_end_ms, end_ms);
    }
    pl->draft_count = 0;
    return true;
}
