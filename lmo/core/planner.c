/* planner.c - which host is emptied when, and what becomes of its guests. Invariants: planner.h; how places are found:
 * planner_stage.c; order, dependencies, times: planner_list.c, planner_time.c.
 *
 * Hosts are worked off in lanes, the next one always in the lane that is expected to be free first. While a stage is worked
 * out the hosts of the other lanes' last stages count as away. If somebody finds no place like that, it is tried again
 * with nobody else away (a barrier: everything before is over, and everything after waits for it); if that fails too, the
 * host's turn comes again after the others, and what is left over at the very end has its reasons written down. */
#include "core/planner.h"

#include "base/assert.h"
#include "core/planner_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FULL_TEXT "the plan is full: empty fewer hosts at a time"
#define WAIT_TEXT "it would have to wait for more than 64 other moves: empty fewer hosts at a time"

const char *lmo_move_why_text(int v)
{
    static const char *const words[] = {"empty", "make_room", "park", "give_back", "balance"};
    return v < 0 || v > LMO_MOVE_BALANCE ? NULL : words[v];
}

/* ------------------------------------------------------------------ away and back */

/* Nothing more is put there, it is nobody's refuge, and what it carries is on its way. */
static void take_away(struct planner *pl, uint32_t host)
{
    pl->p->open[host] = true;
    pl->p->closed[host] = LMO_NOT_DRAINING;
    place_spare_forget(pl->p);
}

void planner_phase(struct planner *pl, uint32_t stage, bool returning)
{
    pl->log.first = pl->log.spare_count;
    pl->log.stage = stage;
    pl->log.returning = returning;
    pl->log.at = pl->plan->move_count;
    pl->log.full = false;
    place_spare_forget(pl->p);
}

static void bring_back(struct planner *pl, uint32_t host)
{
    const struct lmo_fleet_host *h = &pl->f->hosts[host];
    pl->p->open[host] = false;
    pl->p->closed[host] = (uint8_t)place_closed_by(h);
    place_spare_forget(pl->p);
}

static bool complete(const struct lmo_plan_stage *s)
{
    return s->blocked == 0;
}

/* The stage is over for everything that comes later: its host takes guests again, and room there is counted anew. */
static void stage_is_over(struct planner *pl, uint32_t stage)
{
    uint32_t host = pl->plan->stages[stage].host, pools = pl->p->pools;
    if (!complete(&pl->plan->stages[stage]) || pl->over[host] != LMO_NONE) {
        return;
    }
    bring_back(pl, host);
    pl->over[host] = stage;
    pl->left_last[host] = LMO_NONE;
    memcpy(pl->listed + (size_t)host * pools, place_room(pl->p, host), pools * sizeof *pl->listed);
}

/* ------------------------------------------------------------------ one stage */

static void block(struct planner *pl, uint32_t stage, uint32_t guest, enum lmo_not why, const char *text)
{
    struct lmo_plan *plan = pl->plan;
    lmo_assert(plan->blocked_count < plan->blocked_max);
    struct lmo_plan_blocked *b = &plan->blocked[plan->blocked_count++];
    *b = (struct lmo_plan_blocked){.guest = guest,
                                   .stage = stage,
                                   .why = why,
                                   .unmovable = pl->f->guests[guest].unmovable};
    (void)snprintf(b->text, sizeof b->text, "%s", text);
    plan->stages[stage].blocked++;
}

/* Nothing of its guests' own: the host itself lets nobody go. */
static enum lmo_not held_by_host(const struct planner *pl, uint32_t host, char *text, size_t size)
{
    const struct lmo_fleet_host *h = &pl->f->hosts[host];
    enum lmo_not why = !h->up ? LMO_NOT_DOWN : h->max_outgoing == 0 ? LMO_NOT_SLOTS : LMO_NOT_REJECTED;
    (void)snprintf(text, size,
                   why == LMO_NOT_DOWN    ? "%s, where it is, is down"
                   : why == LMO_NOT_SLOTS ? "%s, where it is, has max_outgoing 0"
                                          : "%s",
                   h->name);
    return why;
}

static bool held_by_nothing(const struct planner *pl, uint32_t host)
{
    char text[LMO_TEXT_MAX];
    return held_by_host(pl, host, text, sizeof text) == LMO_NOT_REJECTED;
}

static bool by_name(const void *arg, uint32_t a, uint32_t b)
{
    const struct planner *pl = arg;
    return pl->p->turn[a] < pl->p->turn[b];
}

/* Everybody there that has no draft: held by something of its own, or found no place, or there was no room in the plan
 * (`full`, or NULL). In the order of their uuids. */
static void block_the_rest(struct planner *pl, uint32_t stage, const char *full)
{
    char text[LMO_TEXT_MAX];
    uint32_t count = 0;
    for (uint32_t g = pl->p->first[pl->host]; g != LMO_NONE; g = pl->p->next[g]) {
        pl->leaving[count++] = g;
    }
    for (uint32_t m = 0; m < pl->f->move_count; m++) {
        if (pl->f->moves[m].to == pl->host) { /* will be there, and this plan cannot say when */
            pl->leaving[count++] = pl->f->moves[m].guest;
        }
    }
    place_sort(pl->leaving, count, by_name, pl);
    for (uint32_t n = 0; n < count; n++) {
        uint32_t g = pl->leaving[n];
        enum lmo_not why, host_says = held_by_host(pl, pl->host, text, sizeof text);
        if (host_says != LMO_NOT_REJECTED) {
            block(pl, stage, g, host_says, text);
        } else if (lmo_place_way_of(&pl->f->guests[g], pl->p->going[g] != LMO_NONE, &why, text, sizeof text) ==
                   LMO_WAY_NONE) {
            block(pl, stage, g, why, text);
        } else if (full) {
            block(pl, stage, g, LMO_NOT_OVER, full);
        } else {
            why = planner_why_not(pl, g, text, sizeof text);
            block(pl, stage, g, why, text);
        }
    }
}

static bool listed_already(const struct lmo_plan *plan, const struct lmo_plan_stage *s, uint32_t t)
{
    for (uint32_t n = 0; n < s->after_count; n++) {
        if (plan->after[s->after_first + n] == t) {
            return true;
        }
    }
    return false;
}

/* Enough for a stage behind all lanes, and then for one after the other. */
uint32_t planner_after_kept(const struct planner *pl)
{
    if (pl->o->kind != LMO_PLAN_EMPTY) {
        return 0;
    }
    return pl->o->host_count - pl->plan->stage_count + (pl->serial ? 0 : pl->lane_count);
}

/* Adds stage t to what stage s comes after; also when it begins, then. False: no room for that. */
static bool comes_after(struct planner *pl, uint32_t s, uint32_t t)
{
    struct lmo_plan *plan = pl->plan;
    struct lmo_plan_stage *stage = &plan->stages[s];
    if (t == LMO_NONE || t == s || listed_already(plan, stage, t)) {
        return true;
    }
    if (plan->after_max - plan->after_count <= planner_after_kept(pl)) {
        return false;
    }
    uint64_t end = plan->stages[t].start_ms + plan->stages[t].expected_ms;
    plan->after[plan->after_count++] = t;
    stage->after_count++;
    stage->start_ms = stage->start_ms > end ? stage->start_ms : end;
    return true;
}

/* The lane's stage before, all lanes' behind a barrier, and those that have put guests there. */
static bool comes_after_all(struct planner *pl, uint32_t s, bool barrier)
{
    struct lmo_plan_stage *stage = &pl->plan->stages[s];
    pl->plan->after_count = stage->after_first;
    stage->after_count = 0;
    stage->start_ms = pl->lane_end[pl->lane];
    pl->barrier = barrier ? s : pl->barrier;
    bool fits = comes_after(pl, s, pl->lane_last[pl->lane]);
    for (uint32_t l = 0; barrier && l < pl->lane_count; l++) {
        fits = fits && comes_after(pl, s, pl->lane_last[l]);
    }
    for (uint32_t at = pl->came_last[pl->host]; at != LMO_NONE && fits; at = pl->came_prev[at]) {
        fits = planner_surely_over(pl, pl->plan->moves[at].stage, s) || comes_after(pl, s, pl->plan->moves[at].stage);
    }
    return fits;
}

/* When `after` is nearly full nothing is left out: every stage is a barrier from then on, and for that room was kept. Returns
 * whether this one is. */
static bool find_order(struct planner *pl, uint32_t s, bool barrier)
{
    if (!comes_after_all(pl, s, barrier)) {
        pl->serial = barrier = true;
        bool fits = comes_after_all(pl, s, true);
        lmo_assert(fits);
    }
    return barrier;
}

/* ------------------------------------------------------------------ giving back */

/* Where it was before the stage moved it. */
static uint32_t home_of(const struct lmo_plan *plan, const struct lmo_plan_stage *stage, const struct lmo_plan_move *m)
{
    for (uint32_t n = 0; n < stage->move_count && m->from != stage->host; n++) {
        if (plan->moves[stage->move_first + n].guest == m->guest) {
            return plan->moves[stage->move_first + n].from;
        }
    }
    return m->from;
}

/* Why it does not return: the rules as things are, or what kept everybody. */
static void stays_away(struct planner *pl, uint32_t s, uint32_t guest, uint32_t home, enum lmo_not why,
                       const char *text)
{
    struct lmo_verdict v = {.why = why};
    lmo_assert(pl->plan->away_count < pl->away_max);
    (void)snprintf(v.text, sizeof v.text, "%s", text);
    if (why == LMO_NOT_REJECTED) {
        pl->p->log = NULL;
        lmo_place_judge(pl->p, guest, home, &v);
        pl->p->log = pl->o->spare_hosts ? &pl->log : NULL;
    }
    if (v.why == LMO_NOT_REJECTED) { /* it could now: others that were to return took a turn in vain */
        v.why = LMO_NOT_SPARE;
        (void)snprintf(v.text, sizeof v.text, "%s: N+1 would not have been kept when it was its turn",
                       pl->f->hosts[home].name);
    }
    struct lmo_plan_blocked *b = &pl->away[pl->plan->away_count++];
    *b = (struct lmo_plan_blocked){.guest = guest,
                                   .stage = s,
                                   .why = v.why,
                                   .unmovable = pl->f->guests[guest].unmovable};
    memcpy(b->text, v.text, sizeof b->text);
}

/* Everybody that the stage moved and that is not where it was. `moves`: of the stage, those that give back left aside. */
static void tell_away(struct planner *pl, uint32_t s, uint32_t moves, enum lmo_not why, const char *text)
{
    const struct lmo_plan_stage *stage = &pl->plan->stages[s];
    for (uint32_t n = 0; n < moves; n++) {
        const struct lmo_plan_move *m = &pl->plan->moves[stage->move_first + n];
        uint32_t home = home_of(pl->plan, stage, m);
        if (pl->p->where[m->guest] == m->to && m->to != home) {
            stays_away(pl, s, m->guest, home, why, text);
        }
    }
}

/* Guests that were moved for this stage go back to where they were, as far as there is room: those that made room last. */
static void give_back(struct planner *pl, uint32_t s)
{
    struct lmo_plan *plan = pl->plan;
    struct lmo_plan_stage *stage = &plan->stages[s];
    uint64_t end_ms = stage->start_ms + stage->expected_ms;
    uint32_t count = stage->move_count;
    char text[LMO_TEXT_MAX] = "";
    stage_is_over(pl, s);
    planner_phase(pl, s, true);
    enum lmo_not why = lmo_place_spare(pl->p, text, sizeof text) ? LMO_NOT_REJECTED : LMO_NOT_SPARE;
    for (unsigned others = 0; others < 2 && why == LMO_NOT_REJECTED; others++) {
        for (uint32_t n = 0; n < count; n++) {
            const struct lmo_plan_move *m = &plan->moves[stage->move_first + n];
            uint32_t home = home_of(plan, stage, m);
            if ((home != stage->host) != (others == 1) || pl->p->where[m->guest] != m->to || m->to == home) {
                continue;
            }
            place_prepare(pl->p, m->guest);
            bool good = place_filter(pl->p, home) == LMO_NOT_REJECTED;
            place_forget(pl->p);
            good = good && planner_try(pl, m->guest, home, LMO_MOVE_GIVE_BACK);
        }
    }
    if (planner_list(pl, s, s, end_ms, &end_ms)) {
        stage->move_count = plan->move_count - stage->move_first;
        stage->expected_ms = end_ms - stage->start_ms;
    } else {
        planner_back(pl, 0);
        why = LMO_NOT_OVER;
        (void)snprintf(text, sizeof text, "%s", FULL_TEXT);
    }
    tell_away(pl, s, count, why, text);
    uint32_t pools = pl->p->pools; /* whoever waits for this stage waits for all of that */
    pl->left_last[stage->host] = LMO_NONE;
    memcpy(pl->listed + (size_t)stage->host * pools, place_room(pl->p, stage->host), pools * sizeof *pl->listed);
}

static void range_of(struct planner *pl, struct lmo_plan_stage *stage)
{
    uint64_t low = 0, high = 0, longest = 0;
    for (uint32_t n = 0; n < stage->move_count; n++) {
        const struct lmo_plan_move *m = &pl->plan->moves[stage->move_first + n];
        longest = m->low_ms > longest ? m->low_ms : longest;
        low += m->low_ms;
        high += m->high_ms;
    }
    uint32_t slots = pl->f->hosts[stage->host].max_outgoing;
    stage->low_ms = low / (slots ? slots : 1) > longest ? low / (slots ? slots : 1) : longest;
    stage->low_ms = stage->low_ms < stage->expected_ms ? stage->low_ms : stage->expected_ms;
    stage->high_ms =
        high > stage->expected_ms ? high : stage->expected_ms; /* one after the other, each at its slowest */
}

/* As if every stage before were over. How many are, that were not. */
static uint32_t all_over(struct planner *pl)
{
    uint32_t count = 0;
    for (uint32_t l = 0; l < pl->lane_count; l++) {
        uint32_t last = pl->lane_last[l];
        if (last != LMO_NONE && pl->over[pl->plan->stages[last].host] == LMO_NONE &&
            complete(&pl->plan->stages[last])) {
            stage_is_over(pl, last);
            count++;
        }
    }
    return count;
}

/* Writes the stage down as its drafts are. */
static void list_stage(struct planner *pl, bool barrier)
{
    struct lmo_plan *plan = pl->plan;
    uint32_t s = plan->stage_count++, host = pl->host;
    struct lmo_plan_stage *stage = &plan->stages[s];
    uint64_t end_ms;
    *stage = (struct lmo_plan_stage){.host = host,
                                     .lane = pl->lane,
                                     .move_first = plan->move_count,
                                     .parallel = 1,
                                     .start_ms = pl->lane_end[pl->lane]};
    pl->stage_of[host] = s;
    stage->after_first = plan->after_count;
    barrier = find_order(pl, s, barrier);
    bool full = !planner_list(pl, s, LMO_NONE, stage->start_ms, &end_ms);
    if (full && pl->too_many && !barrier) { /* behind a barrier what is over need not be waited for one by one */
        barrier = find_order(pl, s, true);
        full = !planner_list(pl, s, LMO_NONE, stage->start_ms, &end_ms);
    }
    const char *said = full && pl->too_many ? WAIT_TEXT : full || pl->log.full ? FULL_TEXT : NULL;
    if (full) {
        planner_back(pl, 0);
    }
    stage->move_count = full ? 0 : plan->move_count - stage->move_first;
    stage->expected_ms = full ? 0 : end_ms - stage->start_ms;
    for (uint32_t n = 0; n < stage->move_count; n++) {
        stage->leaving += plan->moves[stage->move_first + n].from == host;
    }
    block_the_rest(pl, s, said);
    if (pl->o->give_back && complete(stage)) {
        give_back(pl, s);
    } else if (pl->o->give_back) {
        char text[LMO_TEXT_MAX];
        (void)snprintf(text, sizeof text,
                       "%s: %u of its guests cannot leave, and nobody returns to a host that was not emptied",
                       pl->f->hosts[host].name, stage->blocked);
        tell_away(pl, s, stage->move_count, LMO_NOT_DRAINING, text);
    }
    if (barrier) {
        (void)all_over(pl);
    }
    range_of(pl, stage);
    for (uint32_t l = 0; l < pl->lane_count; l++) {
        if (l == pl->lane || barrier) {
            pl->lane_last[l] = s;
            pl->lane_end[l] = stage->start_ms + stage->expected_ms;
        }
    }
    pl->barrier = barrier ? s + 1 : pl->barrier;
}

/* ------------------------------------------------------------------ all stages */

static uint32_t free_lane(const struct planner *pl)
{
    uint32_t best = 0;
    for (uint32_t l = 1; l < pl->lane_count; l++) {
        best = pl->lane_end[l] < pl->lane_end[best] ? l : best;
    }
    return best;
}

/* They may still be under way after all. Nobody was put there meanwhile. */
static void not_all_over(struct planner *pl)
{
    for (uint32_t l = 0; l < pl->lane_count; l++) {
        uint32_t last = pl->lane_last[l];
        if (last != LMO_NONE && l != pl->lane && !pl->o->give_back && last >= pl->barrier &&
            pl->over[pl->plan->stages[last].host] == last) {
            pl->over[pl->plan->stages[last].host] = LMO_NONE;
            take_away(pl, pl->plan->stages[last].host);
        }
    }
}

/* False: somebody found no place, and nothing was done; it may be better later. */
static bool empty_host(struct planner *pl, uint32_t host, bool last_chance)
{
    uint32_t stage = pl->plan->stage_count, entries = pl->log.spare_count;
    bool barrier = pl->serial;
    pl->host = host;
    pl->lane = free_lane(pl);
    if (pl->lane_last[pl->lane] != LMO_NONE) {
        stage_is_over(pl, pl->lane_last[pl->lane]);
    }
    if (barrier) {
        (void)all_over(pl);
    }
    take_away(pl, host);
    planner_phase(pl, stage, false);
    if (pl->plan->spare_kept && held_by_nothing(pl, host)) {
        planner_empty(pl);
        if (pl->failed_count && all_over(pl) > 0) {
            barrier = true;
            planner_back(pl, 0);
            place_spare_rewind(pl->p, entries);
            planner_phase(pl, stage, false);
            planner_empty(pl);
        }
        if (pl->failed_count && !last_chance) {
            planner_back(pl, 0);
            place_spare_rewind(pl->p, entries);
            if (barrier) {
                not_all_over(pl);
            }
            bring_back(pl, host);
            return false;
        }
    }
    list_stage(pl, barrier);
    return true;
}

static bool takes_longer(const void *arg, uint32_t a, uint32_t b)
{
    const struct planner *pl = arg;
    uint64_t ua = (uint64_t)pl->p->used[(size_t)a * pl->p->pools], ub = (uint64_t)pl->p->used[(size_t)b * pl->p->pools];
    return pl->alone_ms[a] != pl->alone_ms[b] ? pl->alone_ms[a] > pl->alone_ms[b]
           : ua != ub                         ? ua > ub
                                              : pl->p->rank[a] < pl->p->rank[b];
}

/* Longest first: lanes end at nearly the same time then. But where all hosts are to be emptied, the first ones' guests have to
 * move twice: those are the ones with the least. */
static void order_hosts(struct planner *pl, uint32_t *hosts)
{
    uint32_t count = pl->o->host_count;
    bool outside = false;
    memcpy(hosts, pl->o->hosts, count * sizeof *hosts);
    if (pl->o->as_given) {
        return;
    }
    for (uint32_t h = 0; h < pl->f->host_count; h++) {
        outside = outside || (!pl->target[h] && pl->p->closed[h] == LMO_NOT_REJECTED);
    }
    place_sort(hosts, count, takes_longer, pl);
    for (uint32_t n = 0; !outside && n < pl->lane_count; n++) {
        uint32_t least = hosts[count - 1];
        memmove(hosts + 1, hosts, (count - 1) * sizeof *hosts);
        hosts[0] = least;
    }
}

static void empty_hosts(struct planner *pl)
{
    uint32_t *waiting = pl->queue, count = pl->o->host_count;
    order_hosts(pl, waiting);
    for (bool last_chance = pl->o->as_given; count > 0;) {
        uint32_t left = 0;
        for (uint32_t n = 0; n < count; n++) {
            pl->due[waiting[n]] = n;
        }
        for (uint32_t n = 0; n < count; n++) {
            pl->turn = n;
            if (!empty_host(pl, waiting[n], last_chance)) {
                waiting[left++] = waiting[n];
            }
        }
        last_chance = left == count; /* a round in which nobody got any further */
        count = left;
    }
}

/* Who made room and moves again later was only parked. */
static void name_parked(struct planner *pl)
{
    for (uint32_t n = 0; n < pl->plan->move_count; n++) {
        struct lmo_plan_move *m = &pl->plan->moves[n];
        bool again = pl->last_move[m->guest] != n;
        m->why = m->why == LMO_MOVE_MAKE_ROOM && again ? LMO_MOVE_PARK : m->why;
    }
}

static void sum_up(struct planner *pl)
{
    struct lmo_plan *plan = pl->plan;
    uint64_t low = 0, high = 0;
    plan->spare_count = pl->log.spare_count;
    plan->refuge_count = pl->log.refuge_count;
    name_parked(pl);
    for (uint32_t n = 0; n < plan->move_count; n++) {
        const struct lmo_plan_move *m = &plan->moves[n];
        uint64_t end = m->start_ms + m->expected_ms;
        plan->expected_ms = end > plan->expected_ms ? end : plan->expected_ms;
        low = m->low_ms > low ? m->low_ms : low;
        high += m->high_ms;
    }
    plan->low_ms = low;
    plan->high_ms = plan->stage_count ? 0 : high;
    for (uint32_t l = 0; l < pl->lane_count; l++) {
        uint64_t lane_low = 0, lane_high = 0;
        for (uint32_t s = 0; s < plan->stage_count; s++) {
            lane_low += plan->stages[s].lane == l ? plan->stages[s].low_ms : 0;
            lane_high += plan->stages[s].lane == l || plan->stages[s].after_count > 1 ? plan->stages[s].high_ms : 0;
        }
        plan->low_ms = lane_low > plan->low_ms ? lane_low : plan->low_ms;
        plan->high_ms = lane_high > plan->high_ms ? lane_high : plan->high_ms;
    }
    plan->high_ms = plan->high_ms > plan->expected_ms ? plan->high_ms : plan->expected_ms;
    plan->low_ms = plan->low_ms < plan->expected_ms ? plan->low_ms : plan->expected_ms;
    plan->bound_ms = pl->o->kind == LMO_PLAN_EMPTY ? lmo_plan_bound(pl->f, pl->o) : 0;
    pl->p->log = NULL;
    if (!plan->spare_kept) {
        (void)lmo_place_spare(pl->p, plan->text, sizeof plan->text);
    } else if (pl->o->kind != LMO_PLAN_EMPTY) {
        (void)snprintf(plan->text, sizeof plan->text,
                       pl->log.full       ? "the plan would be too large: nothing is moved"
                       : plan->move_count ? "moves %u guests in about %" PRIu64 " s"
                                          : "no move of a guest would improve anything",
                       plan->move_count, plan->expected_ms / 1000);
    } else {
        (void)snprintf(plan->text, sizeof plan->text,
                       "%u moves off %u hosts, at most %u hosts at a time, in about %" PRIu64
                       " s; %u guests cannot be moved",
                       plan->move_count, plan->stage_count, pl->lane_count, plan->expected_ms / 1000,
                       plan->blocked_count);
    }
}

void lmo_plan_make(const struct lmo_fleet *f, const struct lmo_plan_options *o, void *scratch, struct lmo_plan *ret)
{
    struct planner pl;
    planner_begin(&pl, f, o, scratch, ret);
    ret->spare_kept = place_spare_holds(pl.p);
    if (o->kind == LMO_PLAN_EMPTY) {
        place_spare_rewind(pl.p, 0);
        empty_hosts(&pl);
    } else if (ret->spare_kept && o->kind == LMO_PLAN_SPREAD) {
        planner_spread(&pl);
    } else if (ret->spare_kept) {
        planner_pack(&pl);
    }
    sum_up(&pl);
}
