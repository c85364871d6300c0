/* parallel.h - how many migrations at once give the highest aggregate rate, found from what they reach.
 *
 * For one host (or path) whose link has no stated rate, or where something else is the limit: a processor that encrypts, a
 * slow switch. There more at once does not help, and each of them dirties longer. What is learned lives in a struct of
 * the caller's; a sample goes in, a number comes out.
 *
 * A sample is the aggregate throughput over some time in which exactly `count` migrations sent memory all the time: count
 * it from stable moment to stable moment, not from a start. One sample is worth a second or more of that.
 *
 * Hill climbing with hysteresis. At each count one sample is taken; if that is within LMO_PARALLEL_DOUBT_PERCENT of the gain
 * that decides, LMO_PARALLEL_SAMPLES are averaged. Then:
 *   up    first by doubling, then halving the interval, while that gives LMO_PARALLEL_GAIN_PERCENT more than the best so far
 *   back  to the best one if it does not; what was tried counts as known
 *   stay  until throughput at the best one has changed by LMO_PARALLEL_DRIFT_PERCENT, LMO_PARALLEL_DRIFTS samples in a
 *         row; then what was learned is forgotten and the search begins again at the present count
 * A lower number is tried too: of two that give the same, within the gain, the lower one is kept. Without noise it is
 * within 10 % of the best after 8 samples at most but for one curve in 2,000 (16 slots; test_parallel.c).
 *
 * Invariants:
 *  C1  1 <= wanted <= max, always.
 *  C2  While throughput depends on the count alone, at most LMO_PARALLEL_STEPS_MAX changes are made, and then none.
 *  C3  What it settles on has, within the gain, the highest throughput of all counts that it tried. */
#ifndef LMO_CORE_PARALLEL_H
#define LMO_CORE_PARALLEL_H

#include <stdbool.h>
#include <stdint.h>

#define LMO_PARALLEL_MAX           64
#define LMO_PARALLEL_SAMPLES       2
#define LMO_PARALLEL_GAIN_PERCENT  7
#define LMO_PARALLEL_DOUBT_PERCENT 6
#define LMO_PARALLEL_DRIFT_PERCENT 30
#define LMO_PARALLEL_DRIFTS        6
#define LMO_PARALLEL_STEPS_MAX     16

struct lmo_parallel {
    uint32_t max;    /* slots: 1 to LMO_PARALLEL_MAX */
    uint32_t wanted; /* so many at once now */
    uint32_t best;   /* of those known; 0: none yet */
    uint32_t low,
        high; /* what is left to be tried lies between: low is known to be worse or the best, high to be no better */
    bool settled;
    uint32_t samples, drifts, steps;
    uint64_t sum_bytes_per_s;
    uint64_t known_bytes_per_s[LMO_PARALLEL_MAX + 1]; /* by count; 0: not tried */
};

/* `first`: to begin with (the plan's own guess); both are brought within 1 and LMO_PARALLEL_MAX. */
void lmo_parallel_begin(struct lmo_parallel *p, uint32_t first, uint32_t max);
/* The slots have changed: `wanted` is brought below at once, what was learned stays. */
void lmo_parallel_limit(struct lmo_parallel *p, uint32_t max);
/* One sample; true if `wanted` has changed. Samples with another count than `wanted`, and those of 0, are not counted: there
 * were not enough migrations to tell, or it has not come to so many yet. */
bool lmo_parallel_sample(struct lmo_parallel *p, uint32_t count, uint64_t bytes_per_s);

#endif
