/* spare.c - N+1: would the guests of the hosts that carry most find a place on the others?
 *
 * A case is one kind of memory and the hosts that have given most of it. For each case places are found by best fit, the
 * largest guest first and with a bounded number of steps back, and what they take is remembered as reserved. A move that
 * leaves all of that in place needs no new search: it is what makes thousands of moves cheap. A plan has a log of them:
 * whoever wants to know can look at every prefix whether the places are good. Rules: placement.h. */
#include "core/place_internal.h"

#include "core/planner.h"

#include <string.h>

#define STEPS_HOSTS 4000               /* hosts looked at in one search, beyond best fit */
#define WORK_MAX    UINT64_C(20000000) /* in all: from then on nothing but best fit */

/* A guest that nothing could restart elsewhere is not helped by room kept for it. */
#define NOWHERE_ELSE (LMO_BLOCKER_DEVICE | LMO_BLOCKER_LOCAL_DISK | LMO_BLOCKER_HOST_BOUND)

void place_spare_begin(struct lmo_place *p)
{
    p->work = 0;
    p->spare_steps = p->f->host_count ? STEPS_HOSTS / p->f->host_count : 0;
    p->stuck_host = p->stuck_guest = LMO_NONE;
    place_spare_forget(p);
}

void place_spare_forget(struct lmo_place *p)
{
    place_spare_restore(p, 0);
}

uint32_t place_spare_known(struct lmo_place *p)
{
    uint32_t known = 0;
    for (uint32_t c = 0; c < p->case_count; c++) {
        known |= p->cases[c].valid ? 1U << c : 0;
        p->cases[c].renewed = false;
    }
    return known;
}

void place_spare_restore(struct lmo_place *p, uint32_t known)
{
    for (uint32_t c = 0; c < p->case_count; c++) {
        p->cases[c].valid = (known >> c & 1) && !p->cases[c].renewed;
    }
}

static void book(const struct lmo_place *p, int64_t *reserved, uint32_t guest, uint32_t host, int64_t sign)
{
    for (uint32_t pool = 0; pool < p->pools; pool++) {
        reserved[(size_t)host * p->pools + pool] += sign * place_need(&p->f->guests[guest], pool);
    }
}

static size_t bytes_of_cells(const struct lmo_place *p)
{
    return (size_t)p->f->host_count * p->pools * sizeof(int64_t);
}

/* The case as an entry of the log has it. */
static void recall(struct lmo_place *p, struct place_case *c, uint32_t entry)
{
    const struct lmo_plan_spare *s = &p->log->spares[entry];
    memset(c->reserved, 0, bytes_of_cells(p));
    for (uint32_t n = 0; n < s->refuge_count; n++) {
        const struct lmo_plan_refuge *r = &p->log->refuges[s->refuge_first + n];
        book(p, c->reserved, r->guest, r->host, 1);
    }
    c->lost_count = s->lost_count;
    memcpy(c->lost, s->lost, sizeof c->lost);
    c->entry = entry;
    c->valid = true;
}

void place_spare_rewind(struct lmo_place *p, uint32_t entries)
{
    struct place_log *log = p->log;
    if (!log) {
        return;
    }
    if (entries < log->spare_count) {
        log->refuge_count = log->spares[entries].refuge_first;
        log->spare_count = entries;
    }
    for (uint32_t c = 0; c < p->case_count; c++) {
        uint32_t n = log->spare_count;
        while (n > log->first && log->spares[n - 1].pool != p->cases[c].pool) {
            n--;
        }
        if (n <= log->first) {
            p->cases[c].valid = false;
        } else if (!p->cases[c].valid || p->cases[c].entry != n - 1) {
            recall(p, &p->cases[c], n - 1);
        }
    }
}

static int64_t used(const struct lmo_place *p, uint32_t host, uint32_t pool)
{
    return p->used[(size_t)host * p->pools + pool];
}

/* A host that may be lost: those that are down or on their way out have no part in it any more. */
static bool remains(const struct lmo_place *p, uint32_t host)
{
    return p->f->hosts[host].up && !p->f->hosts[host].draining && !p->open[host];
}

static bool carries_more(const struct lmo_place *p, uint32_t pool, uint32_t a, uint32_t b)
{
    int64_t difference = used(p, a, pool) - used(p, b, pool);
    return difference != 0 ? difference > 0 : p->rank[a] < p->rank[b];
}

static bool is_lost(const struct place_case *c, uint32_t host)
{
    for (uint32_t n = 0; n < c->lost_count; n++) {
        if (c->lost[n] == host) {
            return true;
        }
    }
    return false;
}

/* The `spare` hosts that carry most of the case's pool, the most loaded first. */
static void find_lost(const struct lmo_place *p, struct place_case *c)
{
    c->lost_count = 0;
    for (uint32_t h = 0; h < p->f->host_count; h++) {
        if (!remains(p, h) || used(p, h, c->pool) <= 0) {
            continue;
        }
        uint32_t n = c->lost_count;
        while (n > 0 && carries_more(p, c->pool, h, c->lost[n - 1])) {
            n--;
        }
        if (n == p->spare) {
            continue;
        }
        c->lost_count += c->lost_count < p->spare;
        for (uint32_t m = c->lost_count - 1; m > n; m--) {
            c->lost[m] = c->lost[m - 1];
        }
        c->lost[n] = h;
    }
}

/* ------------------------------------------------------------------ finding places */

static int64_t size_of(const struct lmo_fleet_guest *g)
{
    return (int64_t)(g->memory_bytes + g->huge_bytes);
}

static bool larger(const void *arg, uint32_t a, uint32_t b)
{
    const struct lmo_place *p = arg;
    int64_t of_a = size_of(&p->f->guests[a]), of_b = size_of(&p->f->guests[b]);
    return of_a != of_b ? of_a > of_b : p->turn[a] < p->turn[b];
}

/* A refuge takes guests now, and is not lost itself. */
static bool is_refuge(const struct lmo_place *p, const struct place_case *c, uint32_t host)
{
    return p->closed[host] == LMO_NOT_REJECTED && p->f->hosts[host].memory_known && !is_lost(c, host);
}

/* A hard rule says that it may not be there: by those that are there or on their way, and by those that were just found a
 * place there. */
static bool apart_from(const struct lmo_place *p, const struct place_case *c, uint32_t guest, uint32_t host,
                       uint32_t found)
{
    const struct lmo_fleet_guest *g = &p->f->guests[guest];
    for (uint32_t n = 0; n < g->group_count; n++) {
        const struct lmo_fleet_group *group = &p->f->groups[g->groups[n]];
        if (!group->hard || group->kind != LMO_GROUP_APART) {
            continue;
        }
        for (uint32_t m = p->group_first[g->groups[n]]; m < p->group_first[g->groups[n] + 1]; m++) {
            uint32_t fellow = p->members[m], at = p->where[fellow];
            for (uint32_t i = 0; i < found && is_lost(c, at); i++) {
                at = p->lost_guests[i] == fellow ? p->lost_at[i] : at;
            }
            if (fellow != guest && (at == host || p->going[fellow] == host)) {
                return true;
            }
        }
    }
    return false;
}

/* The refuge that the n-th fills best, of those that come after the one that it has been given already (if any). */
static uint32_t next_fit(struct lmo_place *p, const struct place_case *c, uint32_t n)
{
    uint32_t guest = p->lost_guests[n], best = LMO_NONE, given = p->lost_at[n];
    const struct lmo_fleet_guest *g = &p->f->guests[guest];
    uint32_t by = g->huge_bytes ? g->huge_pool : 0;
    int64_t best_left = 0;
    for (uint32_t h = 0; h < p->f->host_count; h++) {
        const int64_t *room = place_room(p, h), *reserved = c->spare_buffer + (size_t)h * p->pools;
        int64_t left = room[by] - reserved[by] - place_need(g, by);
        bool fits = left >= 0 && (by == 0 || room[0] - reserved[0] >= (int64_t)g->memory_bytes);
        bool had =
            given != LMO_NONE && (left < p->lost_left[n] || (left == p->lost_left[n] && p->rank[h] <= p->rank[given]));
        if (!fits || had || !is_refuge(p, c, h) || (best != LMO_NONE && left > best_left) ||
            (best != LMO_NONE && left == best_left && p->rank[h] > p->rank[best]) ||
            place_suits(p, guest, h) != LMO_NOT_REJECTED || apart_from(p, c, guest, h, n)) {
            continue;
        }
        best = h;
        best_left = left;
    }
    p->lost_left[n] = best_left;
    return best;
}

/* Of a guest that no other host could take at all, not even an empty one, nothing is asked. */
static bool hopeless(const struct lmo_place *p, const struct place_case *c, uint32_t guest)
{
    for (uint32_t h = 0; h < p->f->host_count; h++) {
        if (p->f->hosts[h].up && !is_lost(c, h) && place_suits(p, guest, h) == LMO_NOT_REJECTED) {
            return false;
        }
    }
    return true;
}

static void reserve(struct lmo_place *p, struct place_case *c, uint32_t n, int64_t sign)
{
    if (p->lost_at[n] != LMO_NONE) {
        book(p, c->spare_buffer, p->lost_guests[n], p->lost_at[n], sign);
    }
}

static uint32_t gather(struct lmo_place *p, const struct place_case *c)
{
    uint32_t count = 0;
    for (uint32_t n = 0; n < c->lost_count; n++) {
        for (uint32_t g = p->first[c->lost[n]]; g != LMO_NONE; g = p->next[g]) {
            if (size_of(&p->f->guests[g]) > 0 && !(p->f->guests[g].blockers & NOWHERE_ELSE)) {
                p->lost_guests[count++] = g;
            }
        }
    }
    place_sort(p->lost_guests, count, larger, p);
    return count;
}

/* Best fit for one after the other; when somebody finds nothing the one before is given the next best, `spare_steps`
 * times at most. */
static bool find_places(struct lmo_place *p, struct place_case *c, uint32_t count)
{
    uint32_t n = 0, most = 0;
    uint64_t steps = 0, max = p->work > WORK_MAX ? 0 : p->spare_steps;
    if (count) {
        p->lost_at[0] = LMO_NONE;
    }
    while (n < count) {
        bool first = p->lost_at[n] == LMO_NONE;
        p->lost_at[n] = next_fit(p, c, n);
        p->work += p->f->host_count;
        if (p->lost_at[n] != LMO_NONE || (first && hopeless(p, c, p->lost_guests[n]))) {
            reserve(p, c, n, 1);
            if (++n < count) {
                p->lost_at[n] = LMO_NONE;
            }
            continue;
        }
        most = n > most ? n : most;
        do {
            if (n == 0 || ++steps > max) {
                p->stuck_guest = p->lost_guests[most];
                p->stuck_host = p->where[p->stuck_guest];
                return false;
            }
            reserve(p, c, --n, -1);
        } while (p->lost_at[n] == LMO_NONE); /* of those nothing was asked */
    }
    return true;
}

/* False: no room for it. */
static bool write_down(struct lmo_place *p, struct place_case *c, uint32_t count)
{
    struct place_log *log = p->log;
    if (!log) {
        return true;
    }
    if (log->spare_count == log->spare_max || log->refuge_max - log->refuge_count < count) {
        log->full = true;
        return false;
    }
    c->entry = log->spare_count++;
    struct lmo_plan_spare *s = &log->spares[c->entry];
    *s = (struct lmo_plan_spare){.at = log->at,
                                 .stage = log->stage,
                                 .returning = log->returning,
                                 .pool = c->pool,
                                 .lost_count = c->lost_count,
                                 .refuge_first = log->refuge_count};
    memcpy(s->lost, c->lost, sizeof s->lost);
    for (uint32_t n = 0; n < count; n++) {
        if (p->lost_at[n] != LMO_NONE) {
            log->refuges[log->refuge_count++] = (struct lmo_plan_refuge){p->lost_guests[n], p->lost_at[n]};
        }
    }
    s->refuge_count = log->refuge_count - s->refuge_first;
    return true;
}

/* Searched into the second buffer: if it fails, what was known before is still there, for when the move is taken back. */
static bool search(struct lmo_place *p, struct place_case *c)
{
    struct place_case found = *c;
    find_lost(p, &found);
    memset(found.spare_buffer, 0, bytes_of_cells(p));
    uint32_t count = gather(p, &found);
    if (!find_places(p, &found, count) || !write_down(p, &found, count)) {
        return false;
    }
    *c = found;
    c->spare_buffer = found.reserved;
    c->reserved = found.spare_buffer;
    c->valid = c->renewed = true;
    return true;
}

/* ------------------------------------------------------------------ what a move leaves in place */

static bool has_hard_apart(const struct lmo_place *p, uint32_t guest)
{
    const struct lmo_fleet_guest *g = &p->f->guests[guest];
    for (uint32_t n = 0; n < g->group_count; n++) {
        if (p->f->groups[g->groups[n]].hard && p->f->groups[g->groups[n]].kind == LMO_GROUP_APART) {
            return true;
        }
    }
    return false;
}

/* After the move the same hosts are lost, and every place that was found is still one. */
static bool still_stands(const struct lmo_place *p, const struct place_case *c, uint32_t guest, uint32_t from,
                         uint32_t to)
{
    if (is_lost(c, from) || is_lost(c, to) || has_hard_apart(p, guest)) {
        return false;
    }
    bool now_most = remains(p, to) && used(p, to, c->pool) > 0 &&
                    (c->lost_count < p->spare || carries_more(p, c->pool, to, c->lost[c->lost_count - 1]));
    const int64_t *room = place_room(p, to), *reserved = c->reserved + (size_t)to * p->pools;
    for (uint32_t pool = 0; pool < p->pools; pool++) {
        if (reserved[pool] > 0 && room[pool] < reserved[pool]) {
            return false;
        }
    }
    return !now_most;
}

void place_spare_moved(struct lmo_place *p, uint32_t guest, uint32_t from, uint32_t to)
{
    for (uint32_t c = 0; p->spare && c < p->case_count; c++) {
        p->cases[c].valid = p->cases[c].valid && still_stands(p, &p->cases[c], guest, from, to);
    }
}

bool place_spare_holds(struct lmo_place *p)
{
    for (uint32_t c = 0; p->spare && c < p->case_count; c++) {
        if (!p->cases[c].valid && !search(p, &p->cases[c])) {
            return false;
        }
    }
    return true;
}
