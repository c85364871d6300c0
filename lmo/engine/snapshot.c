/* snapshot.c - the engine's picture of the fleet as placement and the planner read it (core/fleet.h). Made for one question or one
 * plan, in time proportional to hosts and guests; it borrows from hosts and guests, so it must not outlive the turn of the
 * loop that it was made in. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/drains_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

static void fill_all(struct lmo_set *s)
{
    memset(s, 0xff, sizeof *s);
}

/* Adds each word of `text` to the set, in so far as somebody needs it: what nobody was seen to need has no number. */
static void offers(const struct interned *known, const char *text, const char *separators, struct lmo_set *ret)
{
    while (*text) {
        size_t len = strcspn(text, separators);
        for (uint32_t i = 0; len > 0 && i < known->count; i++) {
            if (strlen(known->names[i]) == len && memcmp(known->names[i], text, len) == 0) {
                (void)lmo_set_add(ret, i);
            }
        }
        text += len;
        text += strspn(text, separators);
    }
}

/* All labels that guests ask for, and that hosts have. */
static void labels(struct lmo_engine *e, const char *text, struct lmo_set *ret)
{
    while (*text) {
        char label[64];
        size_t len = strcspn(text, " ");
        (void)snprintf(label, sizeof label, "%.*s", (int)len, text);
        uint32_t n = engine_intern(&e->fleet.labels, label, LMO_SET_MAX);
        if (n != LMO_NONE) {
            (void)lmo_set_add(ret, n);
        }
        text += len;
        text += strspn(text, " ");
    }
}

static uint8_t pool_of(struct lmo_fleet *f, uint64_t page_bytes)
{
    for (uint32_t p = 1; p < f->pool_count; p++) {
        if (f->page_bytes[p] == page_bytes) {
            return (uint8_t)p;
        }
    }
    if (f->pool_count == LMO_FLEET_POOLS_MAX) {
        return 0;
    }
    f->page_bytes[f->pool_count] = page_bytes;
    return (uint8_t)f->pool_count++;
}

static void fill_host(struct snapshot *s, struct host *h, struct lmo_fleet_host *to)
{
    struct lmo_engine *e = s->engine;
    const struct lmo_adm_host *a = &e->admission.fleet.hosts[h->slot];
    const struct lmo_host_facts *f = &h->facts;
    *to = (struct lmo_fleet_host){.name = h->row.name,
                                  .up = h->up && f->hypervisor[0],
                                  .cordoned = h->mark.cordoned,
                                  .draining = h->mark.drain[0] != '\0',
                                  .linked = lmo_host_link(f, e->admission.limits.link) != NULL,
                                  .memory_known = f->memory_total_bytes > 0,
                                  .cpus = f->cpus,
                                  .max_incoming = a->max_incoming,
                                  .max_outgoing = a->max_outgoing,
                                  .rate_bytes_per_s = a->rate_bytes_per_s};
    to->cpu = f->cpu[0] ? engine_intern(&e->fleet.host_cpus, f->cpu, LMO_FLEET_CPUS_MAX) : LMO_NONE;
    if (f->machines[0]) {
        offers(&e->fleet.machines, f->machines, " ", &to->machines);
    } else {
        fill_all(&to->machines);
    }
    if (f->services[0]) {
        offers(&e->fleet.services, f->services, ",", &to->services);
    } else {
        fill_all(&to->services);
    }
    offers(&e->fleet.fabrics, f->network_fabric, " ", &to->fabrics);
    labels(e, h->mark.labels, &to->labels);
    to->pools[0] =
        (struct lmo_fleet_pool){f->memory_total_bytes, f->memory_free_bytes, engine_admission_keep_free(e, h)};
    to->pools[0].free_bytes -=
        h->landed_bytes[0] < to->pools[0].free_bytes ? h->landed_bytes[0] : to->pools[0].free_bytes;
    for (unsigned p = 0; p < f->huge_page_count; p++) {
        uint8_t pool = pool_of(&s->fleet, f->huge_pages[p].size_bytes);
        if (pool > 0) {
            to->pools[pool] = (struct lmo_fleet_pool){f->huge_pages[p].total_bytes, f->huge_pages[p].free_bytes, 0};
        }
    }
}

/* ------------------------------------------------------------------ guests */

struct group_name {
    char key[LMO_NAME_MAX + 4];
    uint32_t index;
    UT_hash_handle hh;
};

static void join_groups(struct snapshot *s, struct group_name **names, const struct vm_policy *p,
                        struct lmo_fleet_guest *to)
{
    for (unsigned i = 0; i < p->group_count; i++) {
        struct group_name *n = NULL;
        char key[LMO_NAME_MAX + 4];
        (void)snprintf(key, sizeof key, "%d%d/%s", p->groups[i].together, p->groups[i].hard, p->groups[i].name);
        HASH_FIND_STR(*names, key, n);
        if (!n && s->fleet.group_count < LMO_FLEET_GROUPS_MAX && (n = calloc(1, sizeof *n)) != NULL) {
            LMO_COPY(n->key, key);
            n->index = s->fleet.group_count++;
            s->groups[n->index] =
                (struct lmo_fleet_group){.name = p->groups[i].name,
                                         .kind = p->groups[i].together ? LMO_GROUP_TOGETHER : LMO_GROUP_APART,
                                         .hard = p->groups[i].hard};
            HASH_ADD_STR(*names, key, n);
        }
        if (n) {
            to->groups[to->group_count++] = n->index;
        }
    }
}

static void fill_guest(struct snapshot *s, struct group_name **names, const struct guest *g, struct lmo_fleet_guest *to)
{
    struct lmo_engine *e = s->engine;
    const struct vm_setting *said = engine_setting(e, g->uuid);
    bool off = g->state == LMO_RUN_SHUT_OFF;
    uint8_t pool = !off && g->huge_page_bytes ? pool_of(&s->fleet, g->huge_page_bytes) : 0;
    *to = (struct lmo_fleet_guest){
        .uuid = g->uuid,
        .name = g->name,
        .host = g->host->index,
        .state = g->state,
        .memory_bytes = off ? 0 : lmo_memory_needed(&e->admission.limits, g->memory_bytes, pool != 0),
        .huge_bytes = pool ? g->memory_bytes : 0,
        .huge_pool = pool,
        .vcpus = g->vcpus,
        .move_bytes = off ? 0 : g->memory_bytes,
        .disk_bytes = g->disk_bytes,
        .dirty_bytes_per_s = g->dirty_bytes_per_s,
        .dirty_age_ms = g->dirty_age_ms,
        .cpu = g->cpu,
        .machine = g->machine,
        .services = g->services,
        .fabrics = g->fabrics,
        .blockers = g->blockers,
        .blocker_text = g->blocker,
    };
    to->unmovable = said && said->has_policy && said->policy.unmovable_given ? said->policy.unmovable : s->unmovable;
    if (to->unmovable == LMO_UNMOVABLE_BLOCK) {
        to->unmovable = LMO_UNMOVABLE_FAIL; /* no volume driver here copies local disks */
    }
    if (said && said->has_policy) {
        labels(e, said->policy.labels, &to->labels);
        join_groups(s, names, &said->policy, to);
    }
    if (engine_leased(e, said)) {
        engine_lease_text(said, s->lease_texts[s->lease_count], LMO_TEXT_MAX);
        to->leased = true;
        to->lease_text = s->lease_texts[s->lease_count++];
    }
}

static void fill_moves(struct snapshot *s)
{
    struct lmo_engine *e = s->engine;
    for (const struct entry *en = e->entries; en; en = en->hh.next) {
        struct guest *g = NULL;
        const struct host *to = engine_host(e, en->destination);
        HASH_FIND_STR(e->fleet.guests, en->vm, g);
        if (g && to && g->host != to && s->fleet.move_count < s->fleet.guest_count) {
            s->moves[s->fleet.move_count++] = (struct lmo_fleet_move){.guest = g->index, .to = to->index};
        }
    }
}

static void fill_cpus(struct snapshot *s)
{
    struct fleet *f = &s->engine->fleet;
    for (uint32_t g = 0; g < f->cpus.count; g++) {
        for (uint32_t h = 0; h < f->host_cpus.count; h++) {
            char key[2 * LMO_DIGEST_MAX];
            struct cpu_pair *p = NULL;
            (void)snprintf(key, sizeof key, "%s/%s", f->cpus.names[g], f->host_cpus.names[h]);
            HASH_FIND_STR(f->cpu_pairs, key, p);
            s->cpu_runs[g * f->host_cpus.count + h] = p ? p->runs : LMO_CPU_UNKNOWN;
        }
    }
}

static int fill_names(const struct interned *from, struct lmo_fleet_names *to, const char ***ret)
{
    *ret = calloc(from->count + 1, sizeof **ret);
    for (uint32_t i = 0; *ret && i < from->count; i++) {
        (*ret)[i] = from->names[i];
    }
    *to = (struct lmo_fleet_names){*ret, from->count};
    return *ret ? 0 : LMO_E_NO_MEMORY;
}

void engine_snapshot_done(struct snapshot *s)
{
    free(s->hosts);
    free(s->guests);
    free(s->fleet_hosts);
    free(s->fleet_guests);
    free(s->groups);
    free(s->moves);
    free(s->lease_texts);
    free(s->cpu_runs);
    for (unsigned i = 0; i < 4; i++) {
        free(s->names[i]);
    }
    free(s->scratch);
    *s = (struct snapshot){0};
}

static int allocate(struct snapshot *s, uint32_t hosts, uint32_t guests, uint32_t groups, uint32_t leases)
{
    const struct fleet *f = &s->engine->fleet;
    s->hosts = calloc(hosts + 1, sizeof *s->hosts);
    s->fleet_hosts = calloc(hosts + 1, sizeof *s->fleet_hosts);
    s->guests = calloc(guests + 1, sizeof *s->guests);
    s->fleet_guests = calloc(guests + 1, sizeof *s->fleet_guests);
    s->moves = calloc(guests + 1, sizeof *s->moves);
    s->groups = calloc(groups + 1, sizeof *s->groups);
    s->lease_texts = calloc(leases + 1, sizeof *s->lease_texts);
    s->cpu_runs = calloc((size_t)(f->cpus.count + 1) * (f->host_cpus.count + hosts + 1), 1);
    return s->hosts && s->fleet_hosts && s->guests && s->fleet_guests && s->moves && s->groups && s->lease_texts &&
                   s->cpu_runs
               ? 0
               : LMO_E_NO_MEMORY;
}

/* Names before hosts: what hosts offer is told in numbers of what guests need. */
static void fill(struct snapshot *s)
{
    struct lmo_engine *e = s->engine;
    struct lmo_fleet *f = &s->fleet;
    struct group_name *names = NULL, *n, *next;
    for (struct host *h = e->hosts; h && f->host_count < LMO_FLEET_HOSTS_MAX; h = h->hh.next) {
        h->index = f->host_count;
        s->hosts[f->host_count] = h;
        fill_host(s, h, &s->fleet_hosts[f->host_count++]);
    }
    for (struct guest *g = e->fleet.guests; g && f->guest_count < LMO_FLEET_GUESTS_MAX; g = g->hh.next) {
        if (g->host) {
            g->index = f->guest_count;
            s->guests[f->guest_count] = g;
            fill_guest(s, &names, g, &s->fleet_guests[f->guest_count++]);
        }
    }
    HASH_ITER(hh, names, n, next)
    {
        HASH_DEL(names, n);
        free(n);
    }
    fill_moves(s);
    fill_cpus(s);
}

int engine_snapshot(struct lmo_engine *e, enum lmo_unmovable unmovable, struct snapshot *ret, struct lmo_err *err)
{
    uint32_t hosts = HASH_COUNT(e->hosts), guests = HASH_COUNT(e->fleet.guests),
             settings = HASH_COUNT(e->fleet.settings);
    uint32_t groups = settings * LMO_GUEST_GROUPS_MAX;
    *ret = (struct snapshot){.engine = e, .unmovable = unmovable};
    for (struct host *h = e->hosts; h; h = h->hh.next) { /* their number is the matrix' width */
        if (h->facts.cpu[0]) {
            (void)engine_intern(&e->fleet.host_cpus, h->facts.cpu, LMO_FLEET_CPUS_MAX);
        }
    }
    int r = allocate(ret, hosts, guests, groups < LMO_FLEET_GROUPS_MAX ? groups : LMO_FLEET_GROUPS_MAX, settings);
    if (r == 0) {
        engine_policy_default(&ret->policy);
        ret->fleet = (struct lmo_fleet){.limits = &e->admission.limits,
                                        .policy = &ret->policy,
                                        .hosts = ret->fleet_hosts,
                                        .guests = ret->fleet_guests,
                                        .groups = ret->groups,
                                        .moves = ret->moves,
                                        .pool_count = 1,
                                        .cpu_runs = ret->cpu_runs,
                                        .guest_cpu_count = e->fleet.cpus.count,
                                        .host_cpu_count = e->fleet.host_cpus.count};
        fill(ret);
        r = fill_names(&e->fleet.machines, &ret->fleet.machines, &ret->names[0]);
        r = r < 0 ? r : fill_names(&e->fleet.services, &ret->fleet.services, &ret->names[1]);
        r = r < 0 ? r : fill_names(&e->fleet.fabrics, &ret->fleet.fabrics, &ret->names[2]);
        r = r < 0 ? r : fill_names(&e->fleet.labels, &ret->fleet.labels, &ret->names[3]);
    }
    if (r < 0) {
        engine_snapshot_done(ret);
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a picture of %u hosts and %u guests", hosts, guests);
    }
    const char *wrong = lmo_fleet_wrong(&ret->fleet);
    if (wrong) {
        engine_snapshot_done(ret);
        return lmo_fail(err, LMO_E_INTERNAL, "the picture of the fleet is wrong: %s", wrong);
    }
    return 0;
}

int engine_snapshot_place(struct snapshot *s, const struct lmo_place_options *o, struct lmo_err *err)
{
    if (!s->scratch && !(s->scratch = malloc(lmo_place_scratch(&s->fleet)))) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory to place guests");
    }
    s->place = lmo_place_begin(&s->fleet, o, s->scratch);
    return 0;
}

uint32_t engine_snapshot_host(const struct snapshot *s, const char *name)
{
    const struct host *h = engine_host(s->engine, name);
    return h ? h->index : LMO_NONE;
}
