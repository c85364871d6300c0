/* planner_balance.c - rebalancing: spread guests over the hosts, or pack them onto few.
 *
 * Spread takes one guest at a time off the host that carries most, to where it does most good; pack empties the host that
 * carries least, if all of its guests find room on hosts that have some already, or leaves it alone. A guest moves
 * once; a move that does not improve is not made. Load is guests' ordinary memory by what the host may give to guests. */
#include "core/planner_internal.h"

#include "base/assert.h"

#define TOLERANCE_PERCENT 5
#define PPM               1000000

static int64_t capacity(const struct planner *pl, uint32_t host)
{
    const struct lmo_fleet_pool *pool = &pl->f->hosts[host].pools[0];
    return pool->total_bytes > pool->keep_bytes ? (int64_t)(pool->total_bytes - pool->keep_bytes) : 0;
}

static int64_t used(const struct planner *pl, uint32_t host)
{
    return pl->p->used[(size_t)host * pl->p->pools];
}

/* In millionths. */
static int64_t load_with(const struct planner *pl, uint32_t host, int64_t more)
{
    int64_t all = capacity(pl, host) / PPM;
    return all > 0 ? (used(pl, host) + more) / all : PPM;
}

/* Takes part: open to guests, and known. */
static bool takes_part(const struct planner *pl, uint32_t host)
{
    return pl->p->closed[host] == LMO_NOT_REJECTED && pl->f->hosts[host].memory_known &&
           pl->f->hosts[host].max_outgoing > 0 && capacity(pl, host) >= PPM;
}

static bool may_move(const struct planner *pl, uint32_t guest)
{
    const struct lmo_fleet_guest *g = &pl->f->guests[guest];
    return g->memory_bytes > 0 && pl->p->where[guest] == g->host && place_movable(pl->p, guest) &&
           !place_bound(pl->p, guest);
}

/* ------------------------------------------------------------------ spread */

/* The host with most load that was not given up on. */
static uint32_t fullest(const struct planner *pl, uint32_t given_up)
{
    uint32_t best = LMO_NONE;
    int64_t most = 0;
    for (uint32_t h = 0; h < pl->f->host_count; h++) {
        int64_t load = load_with(pl, h, 0);
        if (takes_part(pl, h) && pl->queue[h] != given_up &&
            (best == LMO_NONE || load > most || (load == most && pl->p->rank[h] < pl->p->rank[best]))) {
            best = h;
            most = load;
        }
    }
    return best;
}

struct step {
    uint32_t guest, to;
    int64_t higher; /* the higher load of the two hosts afterwards */
};

/* Where a guest of `from` gets the two hosts nearest to each other. */
static void try_guest(struct planner *pl, uint32_t guest, uint32_t from, int64_t tolerance, struct step *best)
{
    int64_t need = (int64_t)pl->f->guests[guest].memory_bytes, before = load_with(pl, from, 0);
    place_prepare(pl->p, guest);
    for (uint32_t h = 0; h < pl->f->host_count; h++) {
        if (h == from || pl->tried[h] == pl->stamp || !takes_part(pl, h)) {
            continue;
        }
        int64_t there = load_with(pl, h, need), here = load_with(pl, from, -need);
        int64_t higher = there > here ? there : here;
        bool improves = before - load_with(pl, h, 0) > 2 * tolerance && higher < before;
        bool nearer = higher < best->higher || (higher == best->higher && best->guest != LMO_NONE &&
                                                (guest != best->guest ? pl->p->turn[guest] < pl->p->turn[best->guest]
                                                                      : pl->p->rank[h] < pl->p->rank[best->to]));
        if (improves && (best->guest == LMO_NONE || nearer) && place_filter(pl->p, h) == LMO_NOT_REJECTED) {
            *best = (struct step){guest, h, higher};
        }
    }
    place_forget(pl->p);
}

static bool relieve(struct planner *pl, uint32_t from, int64_t tolerance)
{
    pl->stamp++;
    for (uint32_t tries = 0; tries < pl->f->host_count; tries++) {
        struct step best = {LMO_NONE, LMO_NONE, INT64_MAX};
        for (uint32_t g = pl->p->first[from]; g != LMO_NONE; g = pl->p->next[g]) {
            if (may_move(pl, g)) {
                try_guest(pl, g, from, tolerance, &best);
            }
        }
        if (best.guest == LMO_NONE) {
            return false;
        }
        if (planner_try(pl, best.guest, best.to, LMO_MOVE_BALANCE)) {
            return true;
        }
        pl->tried[best.to] = pl->stamp; /* N+1 */
    }
    return false;
}

static void list_all(struct planner *pl)
{
    uint64_t end_ms;
    if (!planner_list(pl, LMO_NONE, LMO_NONE, 0, &end_ms)) {
        lmo_assert(pl->plan->move_count == 0);
        pl->log.full = true; /* no room for what they wait for: nothing is done */
        planner_back(pl, 0);
    }
}

void planner_spread(struct planner *pl)
{
    uint32_t percent = pl->o->tolerance_percent ? pl->o->tolerance_percent : TOLERANCE_PERCENT;
    int64_t tolerance = (int64_t)percent * (PPM / 100);
    const uint32_t given_up = 1;
    for (uint32_t h = 0; h < pl->f->host_count; h++) {
        pl->queue[h] = 0;
    }
    for (uint32_t n = 0; n < pl->f->guest_count + pl->f->host_count; n++) {
        uint32_t from = fullest(pl, given_up);
        if (from == LMO_NONE) {
            break;
        }
        if (!relieve(pl, from, tolerance)) {
            pl->queue[from] = given_up;
        }
    }
    list_all(pl);
}

/* ------------------------------------------------------------------ pack */

/* The host with least that has not been looked at, and that nobody was put on. */
static uint32_t emptiest(const struct planner *pl, uint32_t looked_at)
{
    uint32_t best = LMO_NONE;
    for (uint32_t h = 0; h < pl->f->host_count; h++) {
        if (pl->queue[h] == looked_at || !takes_part(pl, h) || pl->p->first[h] == LMO_NONE) {
            continue;
        }
        int64_t of_h = used(pl, h), of_best = best == LMO_NONE ? 0 : used(pl, best);
        if (best == LMO_NONE || of_h < of_best || (of_h == of_best && pl->p->rank[h] < pl->p->rank[best])) {
            best = h;
        }
    }
    return best;
}

/* Where least is left over: full hosts first. */
static uint32_t tightest(struct planner *pl, uint32_t guest, uint32_t from)
{
    uint32_t best = LMO_NONE;
    int64_t best_load = 0;
    place_prepare(pl->p, guest);
    for (uint32_t h = 0; h < pl->f->host_count; h++) {
        int64_t load = load_with(pl, h, 0);
        if (h == from || pl->tried[h] == pl->stamp || !takes_part(pl, h) || pl->p->first[h] == LMO_NONE ||
            place_filter(pl->p, h) != LMO_NOT_REJECTED) {
            continue;
        }
        if (best == LMO_NONE || load > best_load || (load == best_load && pl->p->rank[h] < pl->p->rank[best])) {
            best = h;
            best_load = load;
        }
    }
    place_forget(pl->p);
    return best;
}

static bool larger(const void *arg, uint32_t a, uint32_t b)
{
    const struct planner *pl = arg;
    uint64_t of_a = pl->f->guests[a].memory_bytes, of_b = pl->f->guests[b].memory_bytes;
    return of_a != of_b ? of_a > of_b : pl->p->turn[a] < pl->p->turn[b];
}

static bool pack_away(struct planner *pl, uint32_t host)
{
    uint32_t height = pl->draft_count, count = 0;
    for (uint32_t g = pl->p->first[host]; g != LMO_NONE; g = pl->p->next[g]) {
        if (!may_move(pl, g)) {
            return false;
        }
        pl->leaving[count++] = g;
    }
    place_sort(pl->leaving, count, larger, pl);
    for (uint32_t n = 0; n < count; n++) {
        uint32_t to;
        pl->stamp++;
        while ((to = tightest(pl, pl->leaving[n], host)) != LMO_NONE &&
               !planner_try(pl, pl->leaving[n], to, LMO_MOVE_BALANCE)) {
            pl->tried[to] = pl->stamp;
        }
        if (to == LMO_NONE) {
            planner_back(pl, height);
            return false;
        }
    }
    return true;
}

void planner_pack(struct planner *pl)
{
    const uint32_t looked_at = 1;
    for (uint32_t h = 0; h < pl->f->host_count; h++) {
        pl->queue[h] = pl->p->arrivals[h] ? looked_at : 0; /* somebody is on the way there */
    }
    for (uint32_t host; (host = emptiest(pl, looked_at)) != LMO_NONE;) {
        uint32_t height = pl->draft_count;
        pl->queue[host] = looked_at;
        if (pack_away(pl, host)) {
            for (uint32_t n = height; n < pl->draft_count; n++) {
                pl->queue[pl->drafts[n].to] = looked_at;
            }
        }
    }
    list_all(pl);
}
