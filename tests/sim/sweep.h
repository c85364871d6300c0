/* sweep.h - the same scenario again and again, with a fault at every point where one can strike.
 *
 * A clean run of a scenario says which observation points there are. `singles` strikes each of them once with each fate
 * that makes sense there; `pairs` strikes each point from the switch-over to the end of the migration, and in each of those
 * runs then each point that still comes, in what became of the scenario by the first fault (sweep_pairs.c); `starve` lets every Nth write, sync and
 * connection and a sample of the allocations fail. Enumerated, and counted: a point that was listed and not hit is a
 * failure of the sweep. */
#ifndef LMO_TESTS_SIM_SWEEP_H
#define LMO_TESTS_SIM_SWEEP_H

#include "run.h"

enum sweep_mode { SWEEP_SINGLES, SWEEP_PAIRS, SWEEP_STARVE };

struct sweep_options {
    enum sweep_mode mode;
    const char *scenario; /* NULL: all */
    const char *report;   /* JSON is added to this file; NULL: none */
    unsigned jobs;        /* real processes */
    uint64_t stride;      /* every so many; 1: all. Allocations, and first faults of pairs */
    double limit_s;       /* CPU seconds per job after which it stops, incomplete; 0: none */
    bool count_only;      /* pairs: says which there are, and runs the first faults alone */
    bool blurred;         /* pairs: takes crashes for the same that are not; to see that this is noticed */
    bool quiet;           /* prints nothing */
};

/* 0: everything that was listed was hit, and nothing was violated. */
int sweep_run(const struct sweep_options *o);

/* One scenario by name, with faults "process/kind/k/fate+..." as the reports name them. */
int sweep_plan(const char *scenario, struct plan *ret);
int sweep_add_strikes(struct plan *p, const char *strikes);
const char *sweep_scenario_name(unsigned i); /* NULL beyond the last */

#endif
