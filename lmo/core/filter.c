/* filter.c - which hosts a guest may go to, and how good each is. Rules: placement.h; weights and formulas:
 * docs/placement.md. Groups are looked at once for a guest (place_prepare), then hosts one by one. */
#include "core/place_internal.h"

#include "base/assert.h"
#include "core/planner.h"

#define FULL              1000U
#define THREADS_SHARED_BY 4U /* vCPUs for each hardware thread at which that part of the balance is worst */

static const uint32_t weights[LMO_SCORE_PARTS] = {
    [LMO_SCORE_ANTI_AFFINITY] = 8, [LMO_SCORE_AFFINITY] = 4, [LMO_SCORE_BYTES] = 8,
    [LMO_SCORE_BALANCE] = 3,       [LMO_SCORE_SPREAD] = 1,
};

uint32_t lmo_score_weight(enum lmo_score_part part)
{
    return weights[part];
}

/* ------------------------------------------------------------------ groups */

/* A fellow of a hard affinity group: does it stay where it is, or does it leave too? */
static void take_bound(struct lmo_place *p, uint32_t guest, uint32_t fellow)
{
    uint32_t at = p->where[fellow];
    bool movable = place_movable(p, fellow);
    if (movable && at == p->where[guest]) {
        p->along_count++;
        for (uint32_t pool = 0; pool < p->pools; pool++) {
            p->along[pool] += place_need(&p->f->guests[fellow], pool);
        }
    } else if (!(movable && p->open[at])) {
        p->must[at]++;
        p->must_total++;
    }
}

static void take_fellow(struct lmo_place *p, uint32_t guest, const struct lmo_fleet_group *group, uint32_t fellow)
{
    uint32_t at = p->where[fellow], going = p->going[fellow];
    if (group->kind == LMO_GROUP_APART) {
        uint32_t *count = group->hard ? p->conflicts : p->apart;
        count[at]++;
        if (going != LMO_NONE) {
            count[going]++;
        }
    } else if (group->hard) {
        take_bound(p, guest, fellow);
    } else {
        p->together[going != LMO_NONE ? going : at]++;
        p->wished++;
    }
}

void place_prepare(struct lmo_place *p, uint32_t guest)
{
    const struct lmo_fleet_guest *g = &p->f->guests[guest];
    lmo_assert(p->prepared == LMO_NONE);
    p->prepared = guest;
    p->must_total = p->wished = p->along_count = 0;
    for (uint32_t pool = 0; pool < p->pools; pool++) {
        p->along[pool] = 0;
    }
    for (uint32_t n = 0; n < g->group_count; n++) {
        for (uint32_t m = p->group_first[g->groups[n]]; m < p->group_first[g->groups[n] + 1]; m++) {
            if (p->members[m] != guest) {
                take_fellow(p, guest, &p->f->groups[g->groups[n]], p->members[m]);
            }
        }
    }
}

static void clear(struct lmo_place *p, uint32_t host)
{
    p->conflicts[host] = p->apart[host] = p->together[host] = p->must[host] = 0;
}

void place_forget(struct lmo_place *p)
{
    const struct lmo_fleet_guest *g = &p->f->guests[p->prepared];
    for (uint32_t n = 0; n < g->group_count; n++) {
        for (uint32_t m = p->group_first[g->groups[n]]; m < p->group_first[g->groups[n] + 1]; m++) {
            clear(p, p->where[p->members[m]]);
            if (p->going[p->members[m]] != LMO_NONE) {
                clear(p, p->going[p->members[m]]);
            }
        }
    }
    p->prepared = LMO_NONE;
}

/* ------------------------------------------------------------------ the filter */

static enum lmo_not cpu_suits(const struct lmo_fleet *f, const struct lmo_fleet_guest *g,
                              const struct lmo_fleet_host *h)
{
    if (g->cpu == LMO_NONE) {
        return LMO_NOT_REJECTED;
    }
    uint8_t runs = h->cpu == LMO_NONE ? LMO_CPU_UNKNOWN : f->cpu_runs[(size_t)g->cpu * f->host_cpu_count + h->cpu];
    return runs == LMO_CPU_RUNS ? LMO_NOT_REJECTED : runs == LMO_CPU_DIFFERS ? LMO_NOT_CPU : LMO_NOT_CPU_UNKNOWN;
}

static bool covers(const struct lmo_set *needs, const struct lmo_set *offers)
{
    uint64_t lacking = 0;
    for (uint32_t w = 0; w < LMO_SET_WORDS; w++) {
        lacking |= needs->words[w] & ~offers->words[w];
    }
    return lacking == 0;
}

enum lmo_not place_suits(const struct lmo_place *p, uint32_t guest, uint32_t host)
{
    const struct lmo_fleet_guest *g = &p->f->guests[guest];
    const struct lmo_fleet_host *h = &p->f->hosts[host];
    enum lmo_not cpu = cpu_suits(p->f, g, h);
    return cpu != LMO_NOT_REJECTED                                            ? cpu
           : g->machine != LMO_NONE && !lmo_set_has(&h->machines, g->machine) ? LMO_NOT_MACHINE
           : !covers(&g->services, &h->services)                              ? LMO_NOT_SERVICE
           : !covers(&g->fabrics, &h->fabrics)                                ? LMO_NOT_FABRIC
           : !covers(&g->labels, &h->labels)                                  ? LMO_NOT_LABEL
                                                                              : LMO_NOT_REJECTED;
}

static bool refused(const struct lmo_place *p, uint32_t guest, uint32_t host)
{
    bool found = p->avoided[host];
    for (uint32_t n = p->avoid_head[guest]; n != LMO_NONE && !found; n = p->avoid_next[n]) {
        found = p->avoid[n].host == host;
    }
    return found;
}

static enum lmo_not groups_allow(const struct lmo_place *p, uint32_t host)
{
    if (p->conflicts[host]) {
        return LMO_NOT_ANTI_AFFINITY;
    }
    if (p->must_total) {
        return p->must[host] ? LMO_NOT_REJECTED : LMO_NOT_AFFINITY;
    }
    const int64_t *room = place_room(p, host);
    for (uint32_t pool = 0; p->along_count && pool < p->pools; pool++) {
        if (p->along[pool] && room[pool] < p->along[pool] + place_need(&p->f->guests[p->prepared], pool)) {
            return LMO_NOT_AFFINITY;
        }
    }
    return LMO_NOT_REJECTED;
}

enum lmo_not place_allowed(const struct lmo_place *p, uint32_t host)
{
    uint32_t guest = p->prepared;
    const struct lmo_fleet_guest *g = &p->f->guests[guest];
    if (p->where[guest] == host) {
        return LMO_NOT_HERE;
    }
    enum lmo_not closed = p->closed[host];
    bool link_unused = closed == LMO_NOT_LINK && g->state == LMO_RUN_SHUT_OFF;
    if (closed != LMO_NOT_REJECTED && !link_unused) {
        return closed;
    }
    if (refused(p, guest, host)) {
        return LMO_NOT_AVOIDED;
    }
    enum lmo_not needs = place_suits(p, guest, host);
    return needs != LMO_NOT_REJECTED ? needs : groups_allow(p, host);
}

enum lmo_not place_filter(const struct lmo_place *p, uint32_t host)
{
    const struct lmo_fleet_guest *g = &p->f->guests[p->prepared];
    const int64_t *room = place_room(p, host);
    bool fits = g->memory_bytes == 0 || room[0] >= (int64_t)g->memory_bytes;
    bool huge_fits = g->huge_bytes == 0 || room[g->huge_pool] >= (int64_t)g->huge_bytes;
    enum lmo_not why = place_allowed(p, host);
    if (why != LMO_NOT_REJECTED || (fits && huge_fits && p->f->hosts[host].memory_known)) {
        return why;
    }
    bool needs = g->memory_bytes > 0 || g->huge_bytes > 0;
    return !needs                            ? LMO_NOT_REJECTED
           : !p->f->hosts[host].memory_known ? LMO_NOT_MEMORY_UNKNOWN
           : !fits                           ? LMO_NOT_MEMORY
                                             : LMO_NOT_HUGE_PAGES;
}

/* ------------------------------------------------------------------ the score */

static uint32_t lower(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* What would be left of the scarcest, in thousandths of what there is. */
static uint32_t balance(const struct lmo_place *p, uint32_t host)
{
    const struct lmo_fleet_guest *g = &p->f->guests[p->prepared];
    const struct lmo_fleet_host *h = &p->f->hosts[host];
    const int64_t *room = place_room(p, host);
    uint32_t part = FULL;
    for (uint32_t pool = 0; pool < p->pools; pool++) {
        int64_t left = room[pool] - place_need(g, pool), unit = (int64_t)(h->pools[pool].total_bytes / FULL);
        if ((pool == 0 || (g->huge_bytes && g->huge_pool == pool)) && unit > 0) {
            part = lower(part, left <= 0 ? 0 : (uint32_t)lower(FULL, (uint32_t)(left / unit)));
        }
    }
    if (h->cpus) {
        uint32_t all = h->cpus * THREADS_SHARED_BY, taken = p->vcpus[host] + g->vcpus;
        part = lower(part, taken >= all ? 0 : (uint32_t)((uint64_t)(all - taken) * FULL / all));
    }
    return part;
}

uint32_t place_score(const struct lmo_place *p, uint32_t host, uint64_t caused, uint32_t *parts)
{
    const struct lmo_fleet_guest *g = &p->f->guests[p->prepared];
    uint64_t own = g->move_bytes / FULL + 1;
    uint32_t found[LMO_SCORE_PARTS] = {
        [LMO_SCORE_ANTI_AFFINITY] = p->apart[host] ? FULL / (1 + p->apart[host]) : FULL,
        [LMO_SCORE_AFFINITY] = p->wished ? FULL * p->together[host] / p->wished : FULL,
        [LMO_SCORE_BYTES] = caused ? (uint32_t)(own * FULL / (own + caused / FULL + 1)) : FULL,
        [LMO_SCORE_BALANCE] = balance(p, host),
        [LMO_SCORE_SPREAD] = FULL / (1 + p->arrivals[host]),
    };
    uint32_t score = 0;
    for (uint32_t n = 0; n < LMO_SCORE_PARTS; n++) {
        score += found[n] * weights[n];
        if (parts) {
            parts[n] = found[n];
        }
    }
    return score;
}
