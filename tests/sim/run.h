/* run.h - one run of a plan: everything is made, things go wrong, everything is looked at, everything is dropped. */
#ifndef LMO_TESTS_SIM_RUN_H
#define LMO_TESTS_SIM_RUN_H

#include "plan.h"

#define RUN_PROCESSES_MAX 10

struct run_result {
    bool failed;
    char violation[512];
    double failed_at_s;
    unsigned requests, accepted, refused, completed, aborted, attention, abandoned;
    unsigned struck[FAULT_COUNT]; /* faults that really happened */
    unsigned fates[SIM_FATE_COUNT];
    unsigned crashes;
    uint64_t virtual_ns, hash, events, longest_gap_ns, messages, syncs, writes, driver_calls;
    unsigned process_count; /* what a sweep enumerates */
    char processes[RUN_PROCESSES_MAX][PLAN_NAME_MAX];
    uint64_t points[RUN_PROCESSES_MAX][SIM_POINT_COUNT];
    char story[1024];                                     /* outcomes in words */
    uint64_t settled[RUN_PROCESSES_MAX][SIM_POINT_COUNT]; /* points when everything had come to rest */
};

/* Once, before anything of this directory or jansson is used. */
void run_init(void);
/* Called before every observation, after the plan's own faults; NONE for the most part. For sweeps. */
void run_set_hook(sim_fate_fn *fn, void *arg);
/* Called with what came of each run, before it is cleared away; it may end the (real) process. NULL: nobody. */
void run_set_on_end(void (*fn)(const struct run_result *r));
void run_plan(const struct plan *p, struct run_result *ret);
/* The hook is not asked any more: the run has come to rest, and is only looked at. */
bool run_at_rest(void);

#endif
