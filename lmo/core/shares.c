/* shares.c - dividing links among those that use them, and what a migration makes of what it is given.
 *
 * Max-min fair by rounds. In each round a link's level is what is left of it for each of its unsettled users; a user can
 * have no more than the lower level of its two links, or its cap. Settled are: who is capped at or below its levels, and
 * all users of a link that is the lowest for each of them. Levels only rise from round to round, so what was settled stays
 * right. The link with the lowest level is always settled: every round makes progress. Chains of links that settle one by
 * one are cut after ROUNDS_MAX: what everybody can have then is within every link's rate, only not the most. */
#include "core/admission.h"

#include "base/assert.h"

#define ROUNDS_MAX 64
#define UNLIMITED  UINT64_MAX

static uint64_t lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* By its policy, and by what it was seen to make use of. */
static uint64_t cap_of(const struct lmo_adm_fleet *f, const struct lmo_adm_item *i)
{
    uint64_t cap = i->cap_bytes_per_s ? i->cap_bytes_per_s : UNLIMITED;
    if (i->demand_bytes_per_s) {
        uint64_t least = lmo_admission_min_share(f, i);
        uint64_t demand = i->demand_bytes_per_s > least ? i->demand_bytes_per_s : least;
        cap = lower(cap, demand);
    }
    return cap;
}

static void begin(struct lmo_adm_fleet *f)
{
    for (uint32_t h = 0; h < f->host_count; h++) {
        f->hosts[h].unsettled = 0;
        f->hosts[h].left = f->hosts[h].rate_bytes_per_s;
    }
    for (uint32_t n = 0; n < f->item_count; n++) {
        struct lmo_adm_item *i = &f->items[n];
        if (i->state == LMO_ADM_FREE || !i->takes_part) {
            continue;
        }
        struct lmo_adm_host *source = &f->hosts[i->source], *destination = &f->hosts[i->destination];
        i->settled = false;
        i->target = 0;
        source->unsettled++;
        destination->unsettled++;
    }
}

static void level_links(struct lmo_adm_fleet *f)
{
    for (uint32_t h = 0; h < f->host_count; h++) {
        struct lmo_adm_host *host = &f->hosts[h];
        host->level = host->rate_bytes_per_s == 0 ? UNLIMITED : host->unsettled ? host->left / host->unsettled : 0;
        host->bottleneck = host->rate_bytes_per_s != 0 && host->unsettled > 0;
    }
}

static uint64_t level_of(const struct lmo_adm_fleet *f, const struct lmo_adm_item *i)
{
    return lower(f->hosts[i->source].level, f->hosts[i->destination].level);
}

static void take(struct lmo_adm_host *h, uint64_t bytes_per_s)
{
    h->unsettled--;
    if (h->rate_bytes_per_s) {
        lmo_assert(bytes_per_s <= h->left);
        h->left -= bytes_per_s;
    }
}

static void settle(struct lmo_adm_fleet *f, struct lmo_adm_item *i, uint64_t target)
{
    i->target = target;
    i->settled = true;
    take(&f->hosts[i->source], target);
    take(&f->hosts[i->destination], target);
}

/* One round; how many it has settled. */
static uint32_t settle_round(struct lmo_adm_fleet *f, bool last)
{
    uint32_t settled = 0;
    level_links(f);
    for (uint32_t n = 0; n < f->item_count; n++) {
        struct lmo_adm_item *i = &f->items[n];
        if (i->state == LMO_ADM_FREE || !i->takes_part || i->settled) {
            continue;
        }
        struct lmo_adm_host *source = &f->hosts[i->source], *destination = &f->hosts[i->destination];
        uint64_t can = lower(level_of(f, i), cap_of(f, i));
        source->bottleneck = source->bottleneck && can == source->level;
        destination->bottleneck = destination->bottleneck && can == destination->level;
    }
    for (uint32_t n = 0; n < f->item_count; n++) {
        struct lmo_adm_item *i = &f->items[n];
        if (i->state == LMO_ADM_FREE || !i->takes_part || i->settled) {
            continue;
        }
        uint64_t level = level_of(f, i), cap = cap_of(f, i);
        bool lowest = f->hosts[i->source].bottleneck || f->hosts[i->destination].bottleneck;
        if (last || cap <= level || lowest) {
            settle(f, i, lower(level, cap));
            settled++;
        }
    }
    return settled;
}

void lmo_shares_divide(struct lmo_adm_fleet *f)
{
    begin(f);
    for (unsigned round = 1; settle_round(f, round == ROUNDS_MAX) > 0; round++) {
        lmo_assert(round <= ROUNDS_MAX);
    }
}

bool lmo_demand_sample(struct lmo_demand *d, uint64_t rate, uint64_t in_force, uint64_t least)
{
    if (in_force == 0) {
        return false; /* no limit: it takes what it can */
    }
    if (rate >= in_force / 100 * LMO_DEMAND_SHORT_PERCENT) {
        d->short_count = 0;
        d->best = 0;
        /* It fills what it has: perhaps it can do more again. Asked for in doublings, until it falls short once more. */
        bool full = d->bytes_per_s && d->bytes_per_s <= in_force && rate >= in_force / 100 * LMO_DEMAND_FULL_PERCENT;
        if (full) {
            d->bytes_per_s = d->bytes_per_s > UINT64_MAX / 2 ? 0 : 2 * d->bytes_per_s;
        }
        return full;
    }
    d->best = rate > d->best ? rate : d->best;
    if (++d->short_count < LMO_DEMAND_SAMPLES) {
        return false;
    }
    uint64_t demand = d->best + d->best / 4;
    demand = demand > least ? demand : least;
    d->short_count = 0;
    d->best = 0;
    if (demand >= in_force || demand == d->bytes_per_s || demand == 0) {
        return false;
    }
    d->bytes_per_s = demand;
    return true;
}
