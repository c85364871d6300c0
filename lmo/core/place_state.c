/* place_state.c - the snapshot added up, and kept in step while guests are moved in thought. See place_internal.h. */
#include "core/place_internal.h"

#include "base/assert.h"
#include "core/planner.h"

#include <string.h>

#define ALIGN 16

void *place_take(struct place_arena *a, size_t count, size_t size)
{
    void *at = a->at ? a->at + a->used : NULL;
    a->used += (count * size + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

/* ------------------------------------------------------------------ sorting */

static void sift(uint32_t *items, uint32_t at, uint32_t count, place_before_fn *before, const void *arg)
{
    uint32_t moving = items[at];
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && before(arg, items[child], items[child + 1])) {
            child++;
        }
        if (!before(arg, moving, items[child])) {
            break;
        }
        items[at] = items[child];
    }
    items[at] = moving;
}

/* Heap sort: in place and never slow; the order is total, so it need not be stable. */
void place_sort(uint32_t *items, uint32_t count, place_before_fn *before, const void *arg)
{
    for (uint32_t n = count / 2; n > 0; n--) {
        sift(items, n - 1, count, before, arg);
    }
    for (uint32_t n = count; n > 1; n--) {
        uint32_t last = items[n - 1];
        items[n - 1] = items[0];
        items[0] = last;
        sift(items, 0, n - 1, before, arg);
    }
}

static bool host_before(const void *arg, uint32_t a, uint32_t b)
{
    const struct lmo_fleet *f = arg;
    int c = strcmp(f->hosts[a].name, f->hosts[b].name);
    return c != 0 ? c < 0 : a < b;
}

static bool guest_before(const void *arg, uint32_t a, uint32_t b)
{
    const struct lmo_fleet *f = arg;
    int c = strcmp(f->guests[a].uuid, f->guests[b].uuid);
    return c != 0 ? c < 0 : a < b;
}

/* Place of each in that order; `scratch` has room for `count`. */
static void rank(uint32_t *ret, uint32_t *scratch, uint32_t count, place_before_fn *before, const struct lmo_fleet *f)
{
    for (uint32_t n = 0; n < count; n++) {
        scratch[n] = n;
    }
    bool sorted = true; /* as callers have them, mostly */
    for (uint32_t n = 1; n < count && sorted; n++) {
        sorted = before(f, n - 1, n);
    }
    if (!sorted) {
        place_sort(scratch, count, before, f);
    }
    for (uint32_t n = 0; n < count; n++) {
        ret[scratch[n]] = n;
    }
}

/* ------------------------------------------------------------------ layout */

struct lmo_place *place_lay_out(const struct lmo_fleet *f, uint32_t avoid_count, struct place_arena *a)
{
    struct lmo_place counted, *at = place_take(a, 1, sizeof *at), *p = at ? at : &counted;
    size_t hosts = f->host_count, guests = f->guest_count, cells = hosts * f->pool_count;
    *p = (struct lmo_place){.f = f, .pools = f->pool_count, .prepared = LMO_NONE};
    p->closed = place_take(a, hosts, sizeof *p->closed);
    p->avoided = place_take(a, hosts, sizeof *p->avoided);
    p->open = place_take(a, hosts, sizeof *p->open);
    p->room = place_take(a, cells, sizeof *p->room);
    p->used = place_take(a, cells, sizeof *p->used);
    uint32_t **by_host[] = {&p->vcpus,     &p->arrivals, &p->rank,     &p->first,
                            &p->conflicts, &p->apart,    &p->together, &p->must};
    for (size_t n = 0; n < sizeof by_host / sizeof by_host[0]; n++) {
        *by_host[n] = place_take(a, hosts, sizeof(uint32_t));
    }
    uint32_t **by_guest[] = {&p->where, &p->next,       &p->prev,        &p->turn,
                             &p->going, &p->avoid_head, &p->lost_guests, &p->lost_at};
    for (size_t n = 0; n < sizeof by_guest / sizeof by_guest[0]; n++) {
        *by_guest[n] = place_take(a, guests, sizeof(uint32_t));
    }
    p->lost_left = place_take(a, guests, sizeof(int64_t));
    p->group_first = place_take(a, (size_t)f->group_count + 1, sizeof(uint32_t));
    p->members = place_take(a, guests * LMO_GUEST_GROUPS_MAX, sizeof(uint32_t));
    p->avoid_next = place_take(a, avoid_count, sizeof(uint32_t));
    for (uint32_t c = 0; c < f->pool_count; c++) {
        p->cases[c].reserved = place_take(a, cells, sizeof(int64_t));
        p->cases[c].spare_buffer = place_take(a, cells, sizeof(int64_t));
    }
    return at;
}

/* ------------------------------------------------------------------ adding up */

enum lmo_not place_closed_by(const struct lmo_fleet_host *h)
{
    return !h->up                 ? LMO_NOT_DOWN
           : h->cordoned          ? LMO_NOT_CORDONED
           : h->draining          ? LMO_NOT_DRAINING
           : h->max_incoming == 0 ? LMO_NOT_SLOTS
           : !h->linked           ? LMO_NOT_LINK
                                  : LMO_NOT_REJECTED;
}

static void link_guest(struct lmo_place *p, uint32_t guest, uint32_t host)
{
    p->where[guest] = host;
    p->prev[guest] = LMO_NONE;
    p->next[guest] = p->first[host];
    if (p->next[guest] != LMO_NONE) {
        p->prev[p->next[guest]] = guest;
    }
    p->first[host] = guest;
}

static void unlink_guest(struct lmo_place *p, uint32_t guest)
{
    uint32_t before = p->prev[guest], after = p->next[guest];
    *(before == LMO_NONE ? &p->first[p->where[guest]] : &p->next[before]) = after;
    if (after != LMO_NONE) {
        p->prev[after] = before;
    }
}

/* Groups as one array of members, group after group. */
static void fill_groups(struct lmo_place *p)
{
    const struct lmo_fleet *f = p->f;
    memset(p->group_first, 0, ((size_t)f->group_count + 1) * sizeof *p->group_first);
    for (uint32_t g = 0; g < f->guest_count; g++) {
        for (uint32_t n = 0; n < f->guests[g].group_count; n++) {
            p->group_first[f->guests[g].groups[n]]++;
        }
    }
    uint32_t sum = 0;
    for (uint32_t n = 0; n <= f->group_count; n++) { /* ends for now: filled from the back */
        sum += n < f->group_count ? p->group_first[n] : 0;
        p->group_first[n] = sum;
    }
    for (uint32_t g = f->guest_count; g > 0; g--) {
        for (uint32_t n = 0; n < f->guests[g - 1].group_count; n++) {
            p->members[--p->group_first[f->guests[g - 1].groups[n]]] = g - 1;
        }
    }
}

static void add_use(struct lmo_place *p, uint32_t host, uint32_t guest, int64_t sign)
{
    const struct lmo_fleet_guest *g = &p->f->guests[guest];
    int64_t *room = place_room(p, host), *used = p->used + (size_t)host * p->pools;
    room[0] -= sign * (int64_t)g->memory_bytes;
    used[0] += sign * (int64_t)g->memory_bytes;
    if (g->huge_bytes) {
        room[g->huge_pool] -= sign * (int64_t)g->huge_bytes;
        used[g->huge_pool] += sign * (int64_t)g->huge_bytes;
    }
    if (g->state != LMO_RUN_SHUT_OFF) {
        p->vcpus[host] += sign > 0 ? g->vcpus : 0U - g->vcpus;
    }
}

/* Room is the smaller of two: free as measured, and total less what its guests may grow to. */
static void fill_host(struct lmo_place *p, uint32_t host)
{
    const struct lmo_fleet_host *h = &p->f->hosts[host];
    int64_t *room = place_room(p, host), *used = p->used + (size_t)host * p->pools;
    for (uint32_t n = 0; n < p->pools; n++) {
        int64_t by_total = (int64_t)h->pools[n].total_bytes - used[n], by_free = (int64_t)h->pools[n].free_bytes;
        room[n] = (by_total < by_free ? by_total : by_free) - (int64_t)h->pools[n].keep_bytes;
    }
}

static void fill_avoid(struct lmo_place *p, const struct lmo_plan_avoid *avoid, uint32_t avoid_count)
{
    p->avoid = avoid;
    for (uint32_t n = 0; n < avoid_count; n++) {
        p->avoid_next[n] = p->avoid_head[avoid[n].guest];
        p->avoid_head[avoid[n].guest] = n;
    }
}

void place_fill(struct lmo_place *p, uint32_t spare_hosts, const struct lmo_plan_avoid *avoid, uint32_t avoid_count)
{
    const struct lmo_fleet *f = p->f;
    rank(p->rank, p->first, f->host_count, host_before, f);
    rank(p->turn, p->next, f->guest_count, guest_before, f);
    for (uint32_t h = 0; h < f->host_count; h++) {
        p->closed[h] = (uint8_t)place_closed_by(&f->hosts[h]);
        p->avoided[h] = p->open[h] = false;
        p->first[h] = LMO_NONE;
        p->vcpus[h] = p->arrivals[h] = p->conflicts[h] = p->apart[h] = p->together[h] = p->must[h] = 0;
    }
    memset(p->used, 0, (size_t)f->host_count * p->pools * sizeof *p->used);
    uint32_t used_pools = 1;
    for (uint32_t g = 0; g < f->guest_count; g++) {
        link_guest(p, g, f->guests[g].host);
        add_use(p, f->guests[g].host, g, 1);
        used_pools |= f->guests[g].huge_bytes ? 1U << f->guests[g].huge_pool : 0;
        p->going[g] = p->avoid_head[g] = LMO_NONE;
    }
    for (uint32_t h = 0; h < f->host_count; h++) {
        fill_host(p, h);
    }
    for (uint32_t m = 0; m < f->move_count; m++) { /* counts at both ends until it is over */
        p->going[f->moves[m].guest] = f->moves[m].to;
        p->arrivals[f->moves[m].to]++;
        add_use(p, f->moves[m].to, f->moves[m].guest, 1);
    }
    fill_avoid(p, avoid, avoid_count);
    fill_groups(p);
    p->spare = spare_hosts < LMO_SPARE_HOSTS_MAX ? spare_hosts : LMO_SPARE_HOSTS_MAX;
    p->case_count = 0;
    for (uint32_t n = 0; n < p->pools; n++) {
        if (used_pools >> n & 1) {
            p->cases[p->case_count++].pool = n;
        }
    }
    place_spare_begin(p);
}

void place_move(struct lmo_place *p, uint32_t guest, uint32_t to)
{
    uint32_t from = p->where[guest];
    lmo_assert(to < p->f->host_count && from != to);
    unlink_guest(p, guest);
    add_use(p, from, guest, -1);
    link_guest(p, guest, to);
    add_use(p, to, guest, 1);
    place_spare_moved(p, guest, from, to);
}

bool place_movable(const struct lmo_place *p, uint32_t guest)
{
    return lmo_place_way_of(&p->f->guests[guest], p->going[guest] != LMO_NONE, NULL, NULL, 0) != LMO_WAY_NONE;
}

bool place_bound(const struct lmo_place *p, uint32_t guest)
{
    const struct lmo_fleet_guest *g = &p->f->guests[guest];
    for (uint32_t n = 0; n < g->group_count; n++) {
        const struct lmo_fleet_group *group = &p->f->groups[g->groups[n]];
        for (uint32_t m = p->group_first[g->groups[n]];
             group->hard && group->kind == LMO_GROUP_TOGETHER && m < p->group_first[g->groups[n] + 1]; m++) {
            if (p->members[m] != guest && p->where[p->members[m]] == p->where[guest]) {
                return true;
            }
        }
    }
    return false;
}

bool place_try(struct lmo_place *p, uint32_t guest, uint32_t to)
{
    uint32_t from = p->where[guest], known = place_spare_known(p), entries = p->log ? p->log->spare_count : 0;
    place_move(p, guest, to);
    if (place_spare_holds(p)) {
        p->arrivals[to]++;
        return true;
    }
    place_move(p, guest, from);
    place_spare_restore(p, known);
    place_spare_rewind(p, entries);
    return false;
}

void place_back(struct lmo_place *p, uint32_t guest, uint32_t from)
{
    p->arrivals[p->where[guest]]--;
    place_move(p, guest, from);
}
