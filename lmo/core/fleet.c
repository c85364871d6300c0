/* fleet.c - sets, words, and what a snapshot has to fulfil. See fleet.h. */
#include "core/fleet.h"

#include <string.h>

/* Sums over a whole fleet have to fit into an int64_t, differences included. */
#define HOST_BYTES_MAX  (UINT64_C(1) << 50)
#define GUEST_BYTES_MAX (UINT64_C(1) << 44)

bool lmo_set_add(struct lmo_set *s, uint32_t n)
{
    if (n >= LMO_SET_MAX) {
        return false;
    }
    s->words[n / 64] |= UINT64_C(1) << (n % 64);
    return true;
}

bool lmo_set_has(const struct lmo_set *s, uint32_t n)
{
    return n < LMO_SET_MAX && (s->words[n / 64] >> (n % 64) & 1);
}

uint32_t lmo_set_lacks(const struct lmo_set *needs, const struct lmo_set *offers)
{
    for (uint32_t w = 0; w < LMO_SET_WORDS; w++) {
        uint64_t lacking = needs->words[w] & ~offers->words[w];
        for (uint32_t bit = 0; lacking; bit++, lacking >>= 1) {
            if (lacking & 1) {
                return 64 * w + bit;
            }
        }
    }
    return LMO_NONE;
}

static const char *const unmovable_words[] = {"fail", "skip", "wait", "offline", "block"};
#define UNMOVABLE_COUNT ((int)(sizeof unmovable_words / sizeof unmovable_words[0]))

const char *lmo_unmovable_text(int v)
{
    return v < 0 || v >= UNMOVABLE_COUNT ? NULL : unmovable_words[v];
}

int lmo_unmovable_from_text(const char *text)
{
    for (int i = 0; i < UNMOVABLE_COUNT; i++) {
        if (strcmp(unmovable_words[i], text) == 0) {
            return i;
        }
    }
    return -1;
}

/* ------------------------------------------------------------------ what a snapshot has to fulfil */

static const char *wrong_host(const struct lmo_fleet *f, const struct lmo_fleet_host *h)
{
    if (!h->name) {
        return "a host has no name";
    }
    if (h->cpu != LMO_NONE && h->cpu >= f->host_cpu_count) {
        return "a host's cpu is not below host_cpu_count";
    }
    for (uint32_t p = 0; p < f->pool_count; p++) {
        const struct lmo_fleet_pool *pool = &h->pools[p];
        if (pool->total_bytes > HOST_BYTES_MAX || pool->free_bytes > HOST_BYTES_MAX ||
            pool->keep_bytes > HOST_BYTES_MAX) {
            return "a host has more than 1 PiB of memory in a pool";
        }
    }
    return NULL;
}

static const char *wrong_guest(const struct lmo_fleet *f, const struct lmo_fleet_guest *g)
{
    if (!g->uuid || !g->name) {
        return "a guest has no uuid or no name";
    }
    if (g->host >= f->host_count) {
        return "a guest's host is not below host_count";
    }
    if (g->memory_bytes > GUEST_BYTES_MAX || g->huge_bytes > GUEST_BYTES_MAX || g->move_bytes > GUEST_BYTES_MAX ||
        g->disk_bytes > HOST_BYTES_MAX) {
        return "a guest has more than 16 TiB of memory, or more than 1 PiB of disks";
    }
    if (g->huge_bytes && (g->huge_pool == 0 || g->huge_pool >= f->pool_count)) {
        return "a guest's huge_pool is 0 or not below pool_count";
    }
    if (g->cpu != LMO_NONE && g->cpu >= f->guest_cpu_count) {
        return "a guest's cpu is not below guest_cpu_count";
    }
    if (g->machine != LMO_NONE && g->machine >= LMO_SET_MAX) {
        return "a guest's machine type is not below 256";
    }
    if (g->vcpus > LMO_VCPUS_MAX) {
        return "a guest has more than 512 vCPUs";
    }
    if (g->group_count > LMO_GUEST_GROUPS_MAX) {
        return "a guest is in more than 4 groups";
    }
    for (uint32_t n = 0; n < g->group_count; n++) {
        if (g->groups[n] >= f->group_count) {
            return "a guest's group is not below group_count";
        }
        for (uint32_t m = 0; m < n; m++) {
            if (g->groups[m] == g->groups[n]) {
                return "a guest is in the same group twice";
            }
        }
    }
    return NULL;
}

static const char *wrong_sizes(const struct lmo_fleet *f)
{
    if (!f->limits || !f->policy) {
        return "no limits or no policy";
    }
    if (f->host_count > LMO_FLEET_HOSTS_MAX) {
        return "more than 4096 hosts";
    }
    if (f->guest_count > LMO_FLEET_GUESTS_MAX || f->move_count > f->guest_count) {
        return "more than 100000 guests, or more moves than guests";
    }
    if (f->group_count > LMO_FLEET_GROUPS_MAX) {
        return "more than 65536 groups";
    }
    if (f->pool_count < 1 || f->pool_count > LMO_FLEET_POOLS_MAX) {
        return "pool_count is not 1 to 8";
    }
    if (f->guest_cpu_count > LMO_FLEET_CPUS_MAX || f->host_cpu_count > LMO_FLEET_CPUS_MAX) {
        return "more than 1024 kinds of CPU";
    }
    return f->guest_cpu_count && f->host_cpu_count && !f->cpu_runs ? "no cpu_runs" : NULL;
}

const char *lmo_fleet_wrong(const struct lmo_fleet *f)
{
    const char *wrong = wrong_sizes(f);
    for (uint32_t h = 0; !wrong && h < f->host_count; h++) {
        wrong = wrong_host(f, &f->hosts[h]);
    }
    for (uint32_t g = 0; !wrong && g < f->guest_count; g++) {
        wrong = wrong_guest(f, &f->guests[g]);
    }
    for (uint32_t n = 0; !wrong && n < f->group_count; n++) {
        wrong = f->groups[n].name ? NULL : "a group has no name";
    }
    for (uint32_t m = 0; !wrong && m < f->move_count; m++) {
        bool good = f->moves[m].guest < f->guest_count && f->moves[m].to < f->host_count &&
                    f->moves[m].to != f->guests[f->moves[m].guest].host;
        wrong = good ? NULL : "a move's guest or destination is out of range, or the guest is there already";
    }
    return wrong;
}
