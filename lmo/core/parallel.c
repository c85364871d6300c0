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

/* The highest of all that were tried: what is nearly as good as that which is nearly as good is not good any more. */
static uint64_t highest(const struct lmo_parallel *p)
{
    uint64_t top = 0;
    for (uint32_t n = 1; n <= p->max; n++) {
        top = p->known_bytes_per_s[n] > top ? p->known_bytes_per_s[n] : top;
    }
    return top;
}

/* One sample is not enough where noise could turn it: near the gain that decides. */
static bool doubtful(const struct lmo_parallel *p, uint32_t count, uint64_t rate)
{
    if (p->best == 0 || count == p->best) {
        return false;
    }
    bool more = count > p->best;
    uint64_t fewer_rate = more ? p->known_bytes_per_s[p->best] : rate;
    uint64_t more_rate = more ? rate : highest(p);
    uint64_t gain = more_rate > fewer_rate ? more_rate - fewer_rate : 0;
    return gain > fewer_rate / 100 * (LMO_PARALLEL_GAIN_PERCENT - LMO_PARALLEL_DOUBT_PERCENT) &&
           gain < fewer_rate / 100 * (LMO_PARALLEL_GAIN_PERCENT + LMO_PARALLEL_DOUBT_PERCENT);
}

static uint32_t next_down(const struct lmo_parallel *p)
{
    uint32_t down = p->best - (p->best - p->low) / 2;
    return p->low + 1 < p->best && p->known_bytes_per_s[down] == 0 ? down : p->best;
}

/* The one to try next, or the best one if nothing is left. Throughput rises to one peak, or a plateau: while fewer were always
 * better, the peak is seldom above them; where both sides are known to be worse it is likelier in the wider gap. */
static uint32_t next(struct lmo_parallel *p)
{
    bool fell = p->high <= p->max && p->known_bytes_per_s[p->high] > 0;
    bool clearly = fell && gains(p->known_bytes_per_s[p->high], p->known_bytes_per_s[p->best]);
    bool below = fell && (p->low == 0 || (clearly && p->best - p->low >= p->high - p->best));
    if (below && next_down(p) != p->best) {
        return next_down(p);
    }
    if (p->best + 1 < p->high && p->best < p->max) {
        bool doubling = p->high == p->max + 1;
        uint32_t up = doubling ? within(2 * p->best, p->max) : p->best + (p->high - p->best) / 2;
        if (up > p->best && p->known_bytes_per_s[up] == 0) {
            return up;
        }
    }
    return next_down(p);
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
    } else if (!gains(rate, highest(p))) { /* fewer do as well */
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
    p->sum_bytes_per_s += bytes_per_s / LMO_PARALLEL_SAMPLES; /* cannot overflow */
    uint64_t mean = ++p->samples < LMO_PARALLEL_SAMPLES ? bytes_per_s : p->sum_bytes_per_s;
    if (p->samples < LMO_PARALLEL_SAMPLES && doubtful(p, count, mean)) {
        return false;
    }
    learn(p, count, mean);
    uint32_t to = p->steps < LMO_PARALLEL_STEPS_MAX - 1 ? next(p) : p->best;
    p->settled = to == p->best;
    p->drifts = 0;
    return go_to(p, to);
}
