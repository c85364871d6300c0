/* planner_time.c - how long moves should take, how many at once end soonest, and the time that no execution can beat.
 *
 * No formula of its own for a migration: core/convergence says how long one takes with a bandwidth, core/admission who gets
 * which. docs/placement.md has what is added up here. */
#include "core/planner_internal.h"

#include "base/assert.h"

#include <string.h>

#define OVERHEAD_MS         500 /* of a migration, beside its memory: checks, preparation, switch-over, clearing up */
#define PARALLEL_MAX        PLANNER_SLOTS
#define PARALLEL_IF_UNKNOWN 2
#define MARGIN_PERCENT      25 /* of what a steady guest needs: on the high end */
#define MARGIN_MS           1000

static uint64_t lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The lower of two where 0 is "no limit". */
static uint64_t limit(uint64_t a, uint64_t b)
{
    return a == 0 ? b : b == 0 ? a : lower(a, b);
}

static const struct lmo_policy *policy_of(const struct lmo_fleet *f, const struct lmo_fleet_guest *g)
{
    return g->policy ? g->policy : f->policy;
}

static uint64_t dirty_of(const struct lmo_fleet_guest *g)
{
    return g->dirty_age_ms && g->state != LMO_RUN_PAUSED_BY_USER ? g->dirty_bytes_per_s : 0;
}

uint64_t planner_bytes(const struct lmo_fleet_guest *g)
{
    bool copies = (g->blockers & LMO_BLOCKER_LOCAL_DISK) && g->unmovable == LMO_UNMOVABLE_BLOCK;
    return g->state == LMO_RUN_SHUT_OFF ? 0 : g->move_bytes + (copies ? g->disk_bytes : 0);
}

/* The end of its patience with that bandwidth: memory's time-out and what may come after it. */
static uint64_t patience_ms(const struct lmo_fleet *f, const struct lmo_fleet_guest *g, uint64_t bandwidth)
{
    struct lmo_convergence c = {0};
    lmo_convergence_begin(&c, policy_of(f, g), planner_bytes(g), bandwidth, 0);
    return lmo_convergence_longest_ms(&c);
}

/* Bandwidth 0: not known, the nominal one. One that does not converge takes until its time-out. */
static uint64_t takes_ms(const struct lmo_fleet *f, const struct lmo_fleet_guest *g, uint64_t bandwidth)
{
    if (planner_bytes(g) == 0) {
        return 0;
    }
    uint64_t needed = lmo_convergence_needed_ms(policy_of(f, g), planner_bytes(g), dirty_of(g), bandwidth);
    uint64_t patience = patience_ms(f, g, bandwidth);
    return needed ? lower(needed, patience) : patience;
}

/* ------------------------------------------------------------------ the bound */

/* Alone on its links, in ms; *ret_link_ms: how much of its source's link that takes. Of one that does not converge only what
 * has to be sent in any case is counted. 0, 0: no rate is known. */
uint64_t planner_alone_ms(const struct lmo_fleet *f, const struct lmo_fleet_guest *g, uint64_t *ret_link_ms)
{
    const struct lmo_fleet_host *h = &f->hosts[g->host];
    const struct lmo_policy *policy = policy_of(f, g);
    uint64_t rate = h->rate_bytes_per_s,
             best = limit(limit(rate, h->stream_bytes_per_s), policy->bandwidth_bytes_per_s);
    *ret_link_ms = 0;
    if (best == 0 || planner_bytes(g) == 0) {
        return 0;
    }
    uint64_t ms = lmo_convergence_needed_ms(policy, planner_bytes(g), dirty_of(g), best);
    ms = ms ? ms : lmo_convergence_needed_ms(policy, planner_bytes(g), 0, best);
    *ret_link_ms = rate == 0 ? 0 : (uint64_t)((double)ms * (double)best / (double)rate);
    return ms;
}

static bool can_leave(const struct lmo_fleet *f, const struct lmo_fleet_guest *g)
{
    const struct lmo_fleet_host *h = &f->hosts[g->host];
    return h->up && h->max_outgoing && lmo_place_way_of(g, false, NULL, NULL, 0) != LMO_WAY_NONE;
}

uint64_t lmo_plan_bound(const struct lmo_fleet *f, const struct lmo_plan_options *o)
{
    uint64_t link_ms[LMO_FLEET_HOSTS_MAX] = {0}, slot_ms[LMO_FLEET_HOSTS_MAX] = {0};
    uint32_t longest[LMO_FLEET_HOSTS_MAX] = {0};
    uint64_t targets[LMO_FLEET_HOSTS_MAX / 64 + 1] = {0}, times = o->give_back ? 2 : 1;
    double bytes = 0, rates = 0;
    uint64_t all = 0, sum = 0, bound = 0;
    bool unlimited = false;
    for (uint32_t n = 0; n < o->host_count; n++) {
        targets[o->hosts[n] / 64] |= UINT64_C(1) << (o->hosts[n] % 64);
    }
    for (uint32_t n = 0; n < f->guest_count; n++) {
        const struct lmo_fleet_guest *g = &f->guests[n];
        if (!(targets[g->host / 64] >> (g->host % 64) & 1) || !can_leave(f, g)) {
            continue;
        }
        uint64_t on_link, ms = planner_alone_ms(f, g, &on_link);
        link_ms[g->host] += on_link * times;
        slot_ms[g->host] += ms * times;
        longest[g->host] = (uint32_t)(lower(ms * times, UINT32_MAX) > longest[g->host] ? lower(ms * times, UINT32_MAX)
                                                                                       : longest[g->host]);
        bytes += (double)on_link * (double)f->hosts[g->host].rate_bytes_per_s / 1000.0 * (double)times;
        all += ms * times;
    }
    for (uint32_t h = 0; h < f->host_count; h++) {
        const struct lmo_fleet_host *host = &f->hosts[h];
        uint64_t own = slot_ms[h] && host->max_outgoing ? slot_ms[h] / (times * host->max_outgoing) : 0;
        own += times == 2 && slot_ms[h] && host->max_incoming ? slot_ms[h] / (times * host->max_incoming) : 0;
        own = own > link_ms[h] ? own : link_ms[h];
        own = own > longest[h] ? own : longest[h];
        bound = own > bound ? own : bound;
        sum += own;
        rates += host->up && host->linked ? (double)host->rate_bytes_per_s : 0;
        unlimited = unlimited || (host->up && host->linked && host->rate_bytes_per_s == 0);
    }
    uint64_t by_fleet = f->limits->max_migrations ? all / f->limits->max_migrations : 0;
    uint64_t by_links = unlimited || rates <= 0 ? 0 : (uint64_t)(2 * bytes / rates * 1000.0); /* each takes two links */
    uint64_t by_lanes = o->max_hosts && o->max_hosts < o->host_count ? sum / o->max_hosts : 0;
    bound = by_fleet > bound ? by_fleet : bound;
    bound = by_links > bound ? by_links : bound;
    return by_lanes > bound ? by_lanes : bound;
}

/* ------------------------------------------------------------------ how many at once */

uint32_t planner_parallel(const struct planner *pl, uint32_t host)
{
    const struct lmo_fleet_host *h = &pl->f->hosts[host];
    uint64_t rate = h->rate_bytes_per_s, least = pl->f->limits->min_share_bytes_per_s, best_ms = UINT64_MAX;
    uint32_t best = 1, most = (uint32_t)lower(lower(h->max_outgoing, PARALLEL_MAX), pl->draft_count);
    if (rate == 0) {
        return most < PARALLEL_IF_UNKNOWN ? (most ? most : 1) : PARALLEL_IF_UNKNOWN;
    }
    for (uint32_t k = 1; k <= most && (k == 1 || rate / k >= least); k++) {
        uint64_t sum = 0, longest = 0;
        for (uint32_t n = 0; n < pl->draft_count; n++) {
            const struct lmo_fleet_guest *g = &pl->f->guests[pl->drafts[n].guest];
            uint64_t share = limit(limit(rate / k, h->stream_bytes_per_s), policy_of(pl->f, g)->bandwidth_bytes_per_s);
            uint64_t ms = pl->drafts[n].from == host ? takes_ms(pl->f, g, share) + OVERHEAD_MS : 0;
            sum += ms;
            longest = ms > longest ? ms : longest;
        }
        uint64_t together = sum / k > longest ? sum / k : longest;
        if (together < best_ms) {
            best_ms = together;
            best = k;
        }
    }
    return best;
}

/* ------------------------------------------------------------------ who gets what */

static uint32_t local_host(struct planner *pl, uint32_t host, uint32_t *count, uint32_t parallel)
{
    if (pl->local[host] == LMO_NONE) {
        const struct lmo_fleet_host *h = &pl->f->hosts[host];
        pl->local[host] = (*count)++;
        uint32_t out = host == pl->host ? (uint32_t)lower(parallel, h->max_outgoing) : h->max_outgoing;
        pl->adm_hosts[pl->local[host]] = (struct lmo_adm_host){.usable = true,
                                                               .max_incoming = h->max_incoming,
                                                               .max_outgoing = out,
                                                               .rate_bytes_per_s = h->rate_bytes_per_s};
    }
    return pl->local[host];
}

/* What admission gives to those that start first, if the others do too whose turn it is; those behind them are expected to
 * get what the ones before them from the same host had. */
void planner_shares(struct planner *pl, uint32_t parallel)
{
    uint32_t count = (uint32_t)lower(pl->draft_count, PLANNER_SHARED_MAX), hosts = 0;
    for (uint32_t n = 0; n < count; n++) {
        const struct draft *d = &pl->drafts[n];
        const struct lmo_fleet_guest *g = &pl->f->guests[d->guest];
        uint32_t source = local_host(pl, d->from, &hosts, parallel), to = local_host(pl, d->to, &hosts, parallel);
        pl->adm_items[n] = (struct lmo_adm_item){.state = LMO_ADM_QUEUED,
                                                 .source = source,
                                                 .destination = to,
                                                 .next = n + 1 < count ? n + 1 : LMO_NONE,
                                                 .cap_bytes_per_s = policy_of(pl->f, g)->bandwidth_bytes_per_s,
                                                 .demand_bytes_per_s = pl->f->hosts[d->from].stream_bytes_per_s};
    }
    struct lmo_adm_fleet fleet = {.limits = pl->f->limits,
                                  .hosts = pl->adm_hosts,
                                  .host_count = hosts,
                                  .items = pl->adm_items,
                                  .item_count = count,
                                  .queue = count ? 0 : LMO_NONE};
    lmo_admission_decide(&fleet);
    for (uint32_t n = 0; n < pl->draft_count; n++) {
        const struct draft *d = &pl->drafts[n];
        uint64_t share = n < count && pl->adm_items[n].admitted ? pl->adm_items[n].new_share_bytes_per_s : 0;
        for (uint32_t m = n; share == 0 && m > 0; m--) {
            share = pl->drafts[m - 1].from == d->from ? pl->shares[m - 1] : 0;
        }
        share = share || n >= count ? share : lmo_admission_min_share(&fleet, &pl->adm_items[n]);
        share = limit(share, pl->f->hosts[d->from].stream_bytes_per_s);
        pl->shares[n] = limit(share, policy_of(pl->f, &pl->f->guests[d->guest])->bandwidth_bytes_per_s);
    }
    for (uint32_t n = 0; n < count; n++) {
        pl->local[pl->drafts[n].from] = pl->local[pl->drafts[n].to] = LMO_NONE;
    }
}

/* ------------------------------------------------------------------ times of one move */

static enum lmo_outlook outlook_of(const struct planner *pl, const struct lmo_fleet_guest *g, uint64_t bandwidth)
{
    uint64_t dirty = dirty_of(g);
    const struct lmo_policy *policy = policy_of(pl->f, g);
    if (planner_bytes(g) == 0 || g->state == LMO_RUN_PAUSED_BY_USER || (g->dirty_age_ms && dirty == 0)) {
        return LMO_OUTLOOK_CONVERGES;
    }
    struct lmo_forecast_facts facts = {.memory_bytes = planner_bytes(g),
                                       .dirty_bytes_per_s = dirty,
                                       .age_ms = g->dirty_age_ms,
                                       .bandwidth_bytes_per_s = bandwidth};
    struct lmo_forecast forecast;
    lmo_convergence_forecast(policy, &facts, &forecast);
    return forecast.outlook;
}

void planner_times(const struct planner *pl, struct lmo_plan_move *m)
{
    const struct lmo_fleet *f = pl->f;
    const struct lmo_fleet_guest *g = &f->guests[m->guest];
    const struct lmo_fleet_host *from = &f->hosts[m->from], *to = &f->hosts[m->to];
    uint64_t cap = limit(policy_of(f, g)->bandwidth_bytes_per_s, from->stream_bytes_per_s);
    uint64_t path = limit(from->rate_bytes_per_s, to->rate_bytes_per_s), alone = limit(path, cap);
    uint64_t least = limit(limit(f->limits->min_share_bytes_per_s, path), cap);
    uint64_t got = m->bandwidth_bytes_per_s;
    uint64_t pessimistic = path == 0 ? got : got && got < least ? got : least;
    m->bytes = planner_bytes(g);
    m->outlook = outlook_of(pl, g, got);
    m->expected_ms = takes_ms(f, g, got) + OVERHEAD_MS;
    m->low_ms = takes_ms(f, g, alone) + OVERHEAD_MS;
    /* never measured: up to the end of its patience */
    uint64_t most = m->bytes && m->way == LMO_WAY_LIVE && g->dirty_age_ms == 0 && g->state == LMO_RUN_RUNNING
                        ? patience_ms(f, g, pessimistic)
                        : takes_ms(f, g, pessimistic);
    m->high_ms = lower(most + most / 100 * MARGIN_PERCENT,
                       most > patience_ms(f, g, pessimistic) ? most : patience_ms(f, g, pessimistic)) +
                 OVERHEAD_MS + MARGIN_MS;
    m->low_ms = lower(m->low_ms, m->expected_ms);
    m->high_ms = m->high_ms > m->expected_ms ? m->high_ms : m->expected_ms;
}
