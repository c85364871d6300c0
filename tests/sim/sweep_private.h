/* sweep_private.h - what the parts of a sweep share: sweep.c (singles, failures, real processes), sweep_pairs.c,
 * sweep_report.c. */
#ifndef LMO_TESTS_SIM_SWEEP_PRIVATE_H
#define LMO_TESTS_SIM_SWEEP_PRIVATE_H

#include "sweep.h"

#define SCENARIOS_MAX  16
#define JOBS_MAX       8
#define VIOLATIONS_MAX 24
#define STRIKE_MAX     64
#define FATES_MAX      7 /* of one point, with the NONE at the end */

struct point {
    uint8_t process, kind;
    uint32_t k;
};

struct strike {
    struct point at;
    enum sim_fate fate;
};

/* One real process' findings about one scenario. `same` and what follows: of pairs, see sweep_pairs.c. */
struct findings {
    uint64_t runs, hit, missed, completed, aborted, refused, abandoned, attention, failed, crashes;
    uint64_t points[RUN_PROCESSES_MAX][SIM_POINT_COUNT], struck[RUN_PROCESSES_MAX][SIM_POINT_COUNT];
    uint64_t first_points, firsts, firsts_same, pairs, pairs_run, same, checked;
    unsigned violation_count;
    struct violation {
        char what[320], strikes[2 * STRIKE_MAX];
    } violations[VIOLATIONS_MAX];
    double cpu_s;
    bool incomplete;
};
struct job {
    uint64_t next;                /* task to go on with */
    char strikes[2 * STRIKE_MAX]; /* of the run that is under way */
    struct findings of[SCENARIOS_MAX];
};

/* Of this real process; what `job` and `found` point to is shared with all. */
struct sweep {
    const struct sweep_options *options;
    struct job *jobs, *job;
    unsigned index, scenario;
    struct findings *found;
    struct plan plan;
    char processes[RUN_PROCESSES_MAX][PLAN_NAME_MAX];
    struct strike strikes[2]; /* of the run that is under way */
    unsigned wanted, struck;
};
extern struct sweep sweep;

/* Ends with NONE. */
const enum sim_fate *sweep_fates_of(unsigned kind);
bool sweep_is_swept(const struct sim_process *p, enum sim_point kind);
/* CPU seconds of this real process and of those that it has waited for. */
double sweep_cpu_now(void);
bool sweep_out_of_time(double began);
/* sweep.job->strikes: the first `count` of sweep.strikes in words. */
void sweep_name_strikes(unsigned count);
void sweep_note_violation(const char *what, const char *strikes);
void sweep_account(const struct run_result *r);

/* All pairs of one scenario, as far as they are this job's. */
void sweep_pairs(const char *name, uint64_t *task, double began);
/* Before the jobs are started: what they share. */
void sweep_pairs_init(void);
/* Adds what is known only when all jobs have ended: pairs behind first faults that were the same as another. */
void sweep_pairs_sum(unsigned scenario, struct findings *sum);

/* Prints and writes; the exit status. */
int sweep_report(void);

#endif
