/* planner_stage.c - finding places for everybody on a host that is being emptied.
 *
 * Guests that have to stay together are one unit. Three attempts, each only if the one before left somebody over:
 *  1. one unit after the other, the largest first, each to the host with the best score;
 *  2. small fleets: all combinations, the best first, within a bound on the steps (so an assignment that exists is found);
 *  3. for each one left over: hosts that could take it if they had the room, and guests there that could go elsewhere; those
 *     may in turn push others on, once.
 * What is tried is a stack: every prefix of it has passed the filter and N+1. */
#include "core/planner_internal.h"

#include "base/assert.h"

#include <string.h>

#define SEARCH_HOSTS_MAX 64 /* attempt 2 */
#define SEARCH_UNITS_MAX 32
#define SEARCH_NODES     20000
#define SEARCH_WORK      UINT64_C(1000000) /* hosts looked at for N+1 meanwhile */
#define PUSH_HOSTS_MAX   12                /* attempt 3: hosts looked at for one guest ... */
#define PUSH_LOOKED_AT   64                /* ... guests looked at on one host ... */
#define PUSH_VICTIMS_MAX 8                 /* ... and pushed from it ... */
#define PUSH_DEPTH       2                 /* ... and how far that goes on */
#define PUSH_NODES       4000              /* steps for one stage */
#define SPARE_TRIES      16 /* destinations of a large fleet for which N+1 is worked out, for one guest */
#define SPARE_WORK_MAX   UINT64_C(200000000) /* hosts looked at for N+1 in one plan; then only the best one is tried */
#define OTHER_LANE       2000U               /* points off a host that another lane's stage has to be over for */
#define SOON             4000U /* points off a host whose own turn comes soon: its stage would wait for this one */
#define SOON_ROUNDS      2U    /* within so many turns of each lane */

/* ------------------------------------------------------------------ drafts */

bool planner_try(struct planner *pl, uint32_t guest, uint32_t to, enum lmo_move_why why)
{
    uint32_t from = pl->p->where[guest], entries = pl->log.spare_count;
    pl->log.at = pl->plan->move_count + pl->draft_count + 1;
    if (pl->draft_count == pl->draft_max || !place_try(pl->p, guest, to)) {
        return false;
    }
    pl->drafts[pl->draft_count++] = (struct draft){guest, from, to, why, entries};
    return true;
}

void planner_back(struct planner *pl, uint32_t count)
{
    bool any = pl->draft_count > count;
    while (pl->draft_count > count) {
        struct draft *d = &pl->drafts[--pl->draft_count];
        place_back(pl->p, d->guest, d->from);
    }
    if (any) { /* every prefix has its places: those that this one had are good again */
        place_spare_rewind(pl->p, pl->drafts[count].entries);
    }
}

/* ------------------------------------------------------------------ one destination */

static bool room_for(const struct planner *pl, uint32_t guest, uint32_t host)
{
    const struct lmo_fleet_guest *g = &pl->f->guests[guest];
    const int64_t *room = place_room(pl->p, host);
    return (g->memory_bytes == 0 || room[0] >= (int64_t)g->memory_bytes) &&
           (g->huge_bytes == 0 || room[g->huge_pool] >= (int64_t)g->huge_bytes);
}

/* Bytes that have to be sent again because it goes there: the host is still to be emptied itself. */
static uint64_t caused_by(const struct planner *pl, uint32_t guest, uint32_t host)
{
    bool later = pl->target[host] && pl->stage_of[host] == LMO_NONE;
    return later ? planner_bytes(&pl->f->guests[guest]) + 1 : 0;
}

/* Who is not to be emptied out is not put where it would have to leave again. */
static bool pointless(const struct planner *pl, uint32_t guest, uint32_t host)
{
    return pl->target[host] && pl->stage_of[host] == LMO_NONE && !pl->target[pl->f->guests[guest].host];
}

/* Its stage comes so soon that it would have to wait for the arrival, and then send on what has just arrived. */
static bool soon(const struct planner *pl, uint32_t host)
{
    return pl->target[host] && pl->stage_of[host] == LMO_NONE && pl->host != LMO_NONE && pl->due[host] >= pl->turn &&
           pl->due[host] - pl->turn < SOON_ROUNDS * pl->lane_count;
}

static uint32_t less(uint32_t score, uint32_t points)
{
    return score > points ? score - points : 0;
}

/* With nothing else to be said against it, a host that is still to be emptied itself has at most this. */
static uint32_t most_of_later(void)
{
    uint32_t sum = 0;
    for (int n = 0; n < LMO_SCORE_PARTS; n++) {
        sum += (n == LMO_SCORE_BYTES ? 501 : 1000) * lmo_score_weight((enum lmo_score_part)n);
    }
    return sum;
}

struct choice {
    uint32_t host, score;
};

static void consider(struct planner *pl, uint32_t guest, uint32_t h, struct choice *best)
{
    bool out = pl->tried[h] == pl->stamp || pl->p->closed[h] == LMO_NOT_DRAINING || !room_for(pl, guest, h) ||
               pointless(pl, guest, h);
    if (out || place_filter(pl->p, h) != LMO_NOT_REJECTED) {
        return;
    }
    uint32_t score = place_score(pl->p, h, caused_by(pl, guest, h), NULL);
    bool waits = pl->over[h] != LMO_NONE && pl->host != LMO_NONE && pl->plan->stages[pl->over[h]].lane != pl->lane;
    score = less(less(score, waits ? OTHER_LANE : 0), soon(pl, h) ? SOON : 0);
    if (best->host == LMO_NONE || score > best->score ||
        (score == best->score && pl->p->rank[h] < pl->p->rank[best->host])) {
        *best = (struct choice){h, score};
    }
}

/* The best of those not in `mask` (hosts below 64) nor marked as tried. The host that the lane has emptied last comes first:
 * it mostly is the best, and then those that are still to be emptied need not be looked at. */
static uint32_t choose(struct planner *pl, uint32_t guest, uint64_t mask)
{
    struct choice best = {.host = LMO_NONE};
    uint32_t most = planner_bytes(&pl->f->guests[guest]) ? most_of_later() : UINT32_MAX;
    uint32_t last = pl->host != LMO_NONE && pl->lane_last[pl->lane] != LMO_NONE
                        ? pl->plan->stages[pl->lane_last[pl->lane]].host
                        : LMO_NONE;
    place_prepare(pl->p, guest);
    if (last != LMO_NONE && !(last < 64 && (mask >> last & 1))) {
        consider(pl, guest, last, &best);
    }
    for (uint32_t h = 0; h < pl->f->host_count; h++) {
        bool later = pl->target[h] && pl->stage_of[h] == LMO_NONE && best.host != LMO_NONE && best.score > most;
        if (!later && h != last && !(h < 64 && (mask >> h & 1))) {
            consider(pl, guest, h, &best);
        }
    }
    place_forget(pl->p);
    return best.host;
}

static bool allowed(struct planner *pl, uint32_t guest, uint32_t host)
{
    place_prepare(pl->p, guest);
    enum lmo_not why = place_filter(pl->p, host);
    place_forget(pl->p);
    return why == LMO_NOT_REJECTED;
}

static uint32_t tries_of(const struct planner *pl)
{
    return pl->f->host_count <= SEARCH_HOSTS_MAX ? pl->f->host_count : pl->p->work > SPARE_WORK_MAX ? 1 : SPARE_TRIES;
}

/* All of a unit to one host, or nothing. */
static bool unit_to(struct planner *pl, const uint32_t *unit, uint32_t count, uint32_t host)
{
    uint32_t height = pl->draft_count;
    for (uint32_t n = 0; n < count; n++) {
        if ((n > 0 && !allowed(pl, unit[n], host)) || !planner_try(pl, unit[n], host, LMO_MOVE_EMPTY)) {
            planner_back(pl, height);
            return false;
        }
    }
    return true;
}

/* Marks what it has tried with a stamp of its own; `except` (may be LMO_NONE) counts as tried. */
static bool place_unit(struct planner *pl, const uint32_t *unit, uint32_t count, uint32_t except)
{
    pl->stamp++;
    if (except != LMO_NONE) {
        pl->tried[except] = pl->stamp;
    }
    for (uint32_t left = tries_of(pl); left > 0; left--) {
        uint32_t host = choose(pl, unit[0], 0);
        if (host == LMO_NONE) {
            return false;
        }
        if (unit_to(pl, unit, count, host)) {
            return true;
        }
        pl->tried[host] = pl->stamp;
    }
    return false;
}

/* ------------------------------------------------------------------ who has to leave */

static bool leaves_before(const void *arg, uint32_t a, uint32_t b)
{
    const struct planner *pl = arg;
    const struct lmo_fleet_guest *ga = &pl->f->guests[a], *gb = &pl->f->guests[b];
    uint64_t of_a = ga->memory_bytes + ga->huge_bytes, of_b = gb->memory_bytes + gb->huge_bytes;
    if (pl->bond[a] != pl->bond[b]) {
        return pl->bond[a] < pl->bond[b];
    }
    return of_a != of_b ? of_a > of_b : pl->p->turn[a] < pl->p->turn[b];
}

/* The first by uuid of those that it has to stay together with, itself included; LMO_NONE: nobody. */
static uint32_t bond_of(const struct planner *pl, uint32_t guest)
{
    const struct lmo_fleet_guest *g = &pl->f->guests[guest];
    uint32_t first = LMO_NONE;
    for (uint32_t n = 0; n < g->group_count; n++) {
        const struct lmo_fleet_group *group = &pl->f->groups[g->groups[n]];
        for (uint32_t m = pl->p->group_first[g->groups[n]];
             group->hard && group->kind == LMO_GROUP_TOGETHER && m < pl->p->group_first[g->groups[n] + 1]; m++) {
            uint32_t fellow = pl->p->members[m];
            bool here = fellow != guest && pl->p->where[fellow] == pl->p->where[guest];
            first = here && pl->p->turn[fellow] < first ? pl->p->turn[fellow] : first;
        }
    }
    return first == LMO_NONE ? LMO_NONE : first < pl->p->turn[guest] ? first : pl->p->turn[guest];
}

static void gather(struct planner *pl)
{
    pl->leaving_count = pl->failed_count = 0;
    for (uint32_t g = pl->p->first[pl->host]; g != LMO_NONE; g = pl->p->next[g]) {
        if (place_movable(pl->p, g)) {
            pl->bond[g] = bond_of(pl, g);
            pl->leaving[pl->leaving_count++] = g;
        }
    }
    place_sort(pl->leaving, pl->leaving_count, leaves_before, pl);
}

/* How many from `at` on are one unit. */
static uint32_t unit_size(const struct planner *pl, const uint32_t *guests, uint32_t count, uint32_t at)
{
    uint32_t end = at + 1;
    while (end < count && pl->bond[guests[at]] != LMO_NONE && pl->bond[guests[end]] == pl->bond[guests[at]]) {
        end++;
    }
    return end - at;
}

/* ------------------------------------------------------------------ 1: one after the other */

static void one_after_the_other(struct planner *pl)
{
    pl->failed_count = 0;
    for (uint32_t at = 0, size; at < pl->leaving_count; at += size) {
        size = unit_size(pl, pl->leaving, pl->leaving_count, at);
        if (!place_unit(pl, &pl->leaving[at], size, LMO_NONE)) {
            memcpy(&pl->failed[pl->failed_count], &pl->leaving[at], size * sizeof *pl->failed);
            pl->failed_count += size;
        }
    }
}

/* ------------------------------------------------------------------ 2: all combinations */

static bool combine(struct planner *pl, const uint32_t *guests, uint32_t count, uint32_t at)
{
    if (at == count) {
        return true;
    }
    uint32_t size = unit_size(pl, guests, count, at), height = pl->draft_count;
    uint64_t mask = 0;
    for (uint32_t n = 0; n < pl->f->host_count && pl->nodes < SEARCH_NODES && pl->p->work < pl->work_max; n++) {
        pl->nodes++;
        uint32_t host = choose(pl, guests[at], mask);
        if (host == LMO_NONE) {
            return false;
        }
        if (unit_to(pl, &guests[at], size, host) && combine(pl, guests, count, at + size)) {
            return true;
        }
        planner_back(pl, height);
        mask |= UINT64_C(1) << host;
    }
    return false;
}

/* Those that no host takes even now that nobody has moved yet are left out. */
static bool all_combinations(struct planner *pl)
{
    uint32_t count = 0, units = 0;
    if (pl->f->host_count > SEARCH_HOSTS_MAX) {
        return false;
    }
    planner_back(pl, 0);
    pl->stamp++;
    for (uint32_t at = 0, size; at < pl->leaving_count; at += size) {
        size = unit_size(pl, pl->leaving, pl->leaving_count, at);
        if (choose(pl, pl->leaving[at], 0) != LMO_NONE) {
            memcpy(&pl->order[count], &pl->leaving[at], size * sizeof *pl->order);
            count += size;
            units++;
        }
    }
    pl->nodes = 0;
    pl->work_max = pl->p->work + SEARCH_WORK;
    if (units > SEARCH_UNITS_MAX || !combine(pl, pl->order, count, 0)) {
        planner_back(pl, 0);
        return false;
    }
    pl->failed_count = 0;
    for (uint32_t n = 0; n < pl->leaving_count; n++) {
        if (pl->p->where[pl->leaving[n]] == pl->host) {
            pl->failed[pl->failed_count++] = pl->leaving[n];
        }
    }
    return true;
}

/* ------------------------------------------------------------------ 3: pushing others on */

static bool push(struct planner *pl, uint32_t guest, uint32_t depth, enum lmo_move_why why);

/* What is lacking there of each kind of memory; false: nothing. */
static bool lacking(const struct planner *pl, uint32_t guest, uint32_t host, int64_t *ret)
{
    bool any = false;
    for (uint32_t pool = 0; pool < pl->p->pools; pool++) {
        int64_t need = place_need(&pl->f->guests[guest], pool), room = place_room(pl->p, host)[pool];
        ret[pool] = need > 0 && need > room ? need - room : 0;
        any = any || ret[pool] > 0;
    }
    return any;
}

static bool helps(const struct planner *pl, uint32_t victim, const int64_t *lacks, bool alone)
{
    bool all = true, some = false;
    for (uint32_t pool = 0; pool < pl->p->pools; pool++) {
        int64_t need = place_need(&pl->f->guests[victim], pool);
        all = all && need >= lacks[pool];
        some = some || (lacks[pool] > 0 && need > 0);
    }
    return alone ? all : some;
}

static bool cheaper(const void *arg, uint32_t a, uint32_t b)
{
    const struct planner *pl = arg;
    /* those that are on their way anyhow cost nothing */
    bool free_a = pl->f->guests[a].host == pl->host, free_b = pl->f->guests[b].host == pl->host;
    uint64_t of_a = planner_bytes(&pl->f->guests[a]), of_b = planner_bytes(&pl->f->guests[b]);
    if (free_a != free_b) {
        return free_a;
    }
    return of_a != of_b ? of_a < of_b : pl->p->turn[a] < pl->p->turn[b];
}

/* Guests there that may be pushed on, the cheapest first. */
static uint32_t victims_of(struct planner *pl, uint32_t host, uint32_t ret[PUSH_LOOKED_AT])
{
    uint32_t count = 0;
    for (uint32_t g = pl->p->first[host]; g != LMO_NONE; g = pl->p->next[g]) {
        const struct lmo_fleet_guest *guest = &pl->f->guests[g];
        bool full = count == PUSH_LOOKED_AT;
        if (guest->memory_bytes + guest->huge_bytes == 0 || !place_movable(pl->p, g) || place_bound(pl->p, g) ||
            (full && !cheaper(pl, g, ret[count - 1]))) {
            continue;
        }
        count += !full;
        uint32_t n = count - 1;
        for (; n > 0 && cheaper(pl, g, ret[n - 1]); n--) {
            ret[n] = ret[n - 1];
        }
        ret[n] = g;
    }
    return count;
}

static bool push_one(struct planner *pl, uint32_t victim, uint32_t depth)
{
    uint32_t from = pl->p->where[victim], height = pl->draft_count;
    if (++pl->nodes > PUSH_NODES) {
        return false;
    }
    pl->stamp++;
    pl->tried[from] = pl->stamp;
    for (uint32_t left = tries_of(pl); left > 0; left--) {
        uint32_t to = choose(pl, victim, 0);
        if (to == LMO_NONE) {
            break;
        }
        if (planner_try(pl, victim, to, LMO_MOVE_MAKE_ROOM)) {
            return true;
        }
        pl->tried[to] = pl->stamp;
    }
    planner_back(pl, height);
    return depth > 1 && push(pl, victim, depth - 1, LMO_MOVE_MAKE_ROOM);
}

/* Pushes guests off `host` until the guest fits there, and moves it there. */
static bool push_off(struct planner *pl, uint32_t guest, uint32_t host, uint32_t depth, enum lmo_move_why why)
{
    uint32_t height = pl->draft_count, victims[PUSH_LOOKED_AT], pushed = 0;
    uint32_t count = victims_of(pl, host, victims);
    int64_t lacks[LMO_FLEET_POOLS_MAX];
    bool more = lacking(pl, guest, host, lacks);
    for (uint32_t n = 0; more && n < count; n++) { /* one that is enough, if there is one */
        if (helps(pl, victims[n], lacks, true) && push_one(pl, victims[n], depth)) {
            more = false;
        }
    }
    for (uint32_t n = count; more && n > 0 && pushed < PUSH_VICTIMS_MAX; n--) { /* or several, large ones first */
        if (pl->p->where[victims[n - 1]] == host && helps(pl, victims[n - 1], lacks, false)) {
            pushed += push_one(pl, victims[n - 1], depth);
            more = lacking(pl, guest, host, lacks);
        }
    }
    if (!more && allowed(pl, guest, host) && planner_try(pl, guest, host, why)) {
        return true;
    }
    planner_back(pl, height);
    return false;
}

struct by_lack {
    struct planner *pl;
    uint32_t guest;
};

static bool lacks_less(const struct planner *pl, uint32_t guest, uint32_t a, uint32_t b)
{
    uint32_t pool = pl->f->guests[guest].huge_bytes ? pl->f->guests[guest].huge_pool : 0;
    int64_t of_a = place_room(pl->p, a)[pool], of_b = place_room(pl->p, b)[pool];
    return of_a != of_b ? of_a > of_b : pl->p->rank[a] < pl->p->rank[b];
}

static bool push(struct planner *pl, uint32_t guest, uint32_t depth, enum lmo_move_why why)
{
    uint32_t hosts[PUSH_HOSTS_MAX], count = 0;
    place_prepare(pl->p, guest);
    for (uint32_t h = 0; h < pl->f->host_count; h++) {
        if (!pl->f->hosts[h].memory_known || pointless(pl, guest, h) || place_allowed(pl->p, h) != LMO_NOT_REJECTED ||
            (count == PUSH_HOSTS_MAX && !lacks_less(pl, guest, h, hosts[count - 1]))) {
            continue;
        }
        count += count < PUSH_HOSTS_MAX;
        uint32_t n = count - 1;
        for (; n > 0 && lacks_less(pl, guest, h, hosts[n - 1]); n--) {
            hosts[n] = hosts[n - 1];
        }
        hosts[n] = h;
    }
    place_forget(pl->p);
    for (uint32_t n = 0; n < count; n++) {
        if (++pl->nodes > PUSH_NODES) {
            return false;
        }
        if (push_off(pl, guest, hosts[n], depth, why)) {
            return true;
        }
    }
    return false;
}

static void push_others(struct planner *pl)
{
    uint32_t count = pl->failed_count, kept = 0;
    pl->nodes = 0;
    for (uint32_t at = 0, size; at < count; at += size) {
        size = unit_size(pl, pl->failed, count, at);
        bool placed = size == 1 && push(pl, pl->failed[at], PUSH_DEPTH, LMO_MOVE_EMPTY);
        placed = placed || place_unit(pl, &pl->failed[at], size, LMO_NONE); /* others may have moved on for it */
        for (uint32_t n = 0; !placed && n < size; n++) {
            pl->failed[kept++] = pl->failed[at + n];
        }
    }
    pl->failed_count = kept;
}

/* ------------------------------------------------------------------ the stage */

void planner_empty(struct planner *pl)
{
    lmo_assert(pl->draft_count == 0);
    gather(pl);
    if (!place_spare_holds(pl->p)) { /* without this host N+1 does not hold even before anybody has moved */
        memcpy(pl->failed, pl->leaving, pl->leaving_count * sizeof *pl->failed);
        pl->failed_count = pl->leaving_count;
        return;
    }
    one_after_the_other(pl);
    if (pl->failed_count == 0 || all_combinations(pl)) {
        if (pl->failed_count) {
            push_others(pl);
        }
        return;
    }
    one_after_the_other(pl);
    push_others(pl);
}

enum lmo_not planner_why_not(struct planner *pl, uint32_t guest, char *text, size_t size)
{
    uint32_t counts[LMO_NOT_COUNT] = {0};
    bool only_spare = true;
    place_prepare(pl->p, guest);
    for (uint32_t h = 0; h < pl->f->host_count; h++) {
        enum lmo_not why = place_filter(pl->p, h);
        counts[why == LMO_NOT_REJECTED ? LMO_NOT_SPARE : why]++;
        only_spare = only_spare && why != LMO_NOT_REJECTED;
    }
    place_forget(pl->p);
    place_nowhere(counts, text, size);
    return !only_spare ? LMO_NOT_SPARE : LMO_NOT_NOWHERE;
}
