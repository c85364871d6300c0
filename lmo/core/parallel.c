/* parallel.c - see parallel.h. */
#include "core/parallel.h"

#include "base/assert.h"

#include <string.h>

static uint32_t within(uint32_t n, uint32_t max)
{
    return n < 1 ? 1 : n > max ? max : n;
}

void lmo_parallel_begin(struct lmo_parallel *p, uint32_t first, uint32_t max)
{
    max = within(max, LMO_PARALLEL_MAX);
    *p = (struct lmo_parallel){.max = max, .wanted = within(first, max), .low = 0, .high = max + 1};
}

void lmo_parallel_limit(struct lmo_parallel *p, uint32_t max)
{
    max = within(max, LMO_PARALLEL_MAX);
    if (max == p->max) {
        return;
    }
    bool all_known = p->settled && p->best < max && p->best < p->max; /* it was not the slots that kept it */
    p->max = max;
    p->wanted = within(p->wanted, max);
    p->samples = p->drifts = 0;
    p->sum_bytes_per_s = 0;
    if (!all_known) {
        p->settled = false;
        p->best = 0;
        p->steps = 0;
        p->low = 0;
        p->high = max + 1;
        memset(p->known_bytes_per_s, 0, sizeof p->known_bytes_per_s);
    }
}

/* Is b more than a by at least the gain? */
static bool gains(uint64_t a, uint64_t b)
{
    return b > a && b - a >= a / 100 * LMO_PARALLEL_GAIN_PERCENT && b - a > 0;
}

/* The one to try next, or the best one if nothing is left. Counts above `best` up to `high` first, then those below. */
static uint32_t next(struct lmo_parallel *p)
{
    if (p->best + 1 < p->high && p->best < p->max) {
        bool doubling = p->high == p->max + 1;
        uint32_t up = doubling ? within(2 * p->best, p->max) : p->best + (p->high - p->best) / 2;
        if (up > p->best && p->known_bytes_per_s[up] == 0) {
            return up;
        }
    }
    if (p->low + 1 < p->best) {
        uint32_t down = p->best - (p->best - p->low) / 2;
        if (p->known_bytes_per_s[down] == 0) {
            return down;
        }
    }
    return p->best;
}

/* The count that was tried is known now: is it the best, or where does it bound the search? */
static void learn(struct lmo_parallel *p, uint32_t count, uint64_t rate)
{
    p->known_bytes_per_s[count] = rate ? rate : 1;
    if (p->best == 0) {
        p->best = count;
        return;
    }
    uint64_t of_best = p->known_bytes_per_s[p->best];
    if (count > p->best) {
        if (gains(of_best, rate)) {
            p->low = p->best; /* fewer are worse, by what we know */
            p->best = count;
        } else {
            p->high = count;
        }
    } else if (!gains(rate, of_best)) { /* fewer do as well */
        p->high = p->best < p->high ? p->best : p->high;
        p->best = count;
    } else {
        p->low = count;
    }
}

static bool go_to(struct lmo_parallel *p, uint32_t count)
{
    bool changed = p->wanted != count;
    p->wanted = count;
    p->samples = 0;
    p->sum_bytes_per_s = 0;
    p->steps += changed;
    return changed;
}

/* Has the world changed since? Only where it is settled. */
static bool drifted(struct lmo_parallel *p, uint64_t rate)
{
    uint64_t known = p->known_bytes_per_s[p->wanted], difference = rate > known ? rate - known : known - rate;
    p->drifts = difference > known / 100 * LMO_PARALLEL_DRIFT_PERCENT ? p->drifts + 1 : 0;
    return p->drifts >= LMO_PARALLEL_DRIFTS;
}

bool lmo_parallel_sample(struct lmo_parallel *p, uint32_t count, uint64_t bytes_per_s)
{
    lmo_assert(p->max >= 1 && p->max <= LMO_PARALLEL_MAX && p->wanted >= 1 && p->wanted <= p->max);
    if (count != p->wanted || bytes_per_s == 0) {
        return false;
    }
    if (p->settled) {
        if (!drifted(p, bytes_per_s)) {
            return false;
        }
        lmo_parallel_begin(p, p->wanted, p->max);
    }
    p->sum_bytes_per_s += bytes_per_s / LMO_PARALLEL_SAMPLES;
    if (++p->samples < LMO_PARALLEL_SAMPLES) {
        return false;
    }
    learn(p, count, p->sum_bytes_per_s);
    uint32_t to = p->steps < LMO_PARALLEL_STEPS_MAX - 1 ? next(p) : p->best;
    p->settled = to == p->best;
    p->drifts = 0;
    return go_to(p, to);
}
