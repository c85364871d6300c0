/* sweep.c - see sweep.h. Each real process takes every n-th task. What it found goes into memory that all share, so that
 * one which dies (a fault in the simulator, or one in the product that no assertion caught) is noticed, named and
 * replaced. */
#include "sweep_private.h"

#include "base/assert.h"
#include "http/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define POINTS_MAX 65536

struct sweep sweep;

/* Which fates there are at which points. */
static const enum sim_fate all_fates[SIM_POINT_COUNT][FATES_MAX] = {
    [SIM_POINT_SYNC] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER},
    [SIM_POINT_CALL] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER, SIM_FATE_LOST, SIM_FATE_REPLY_LOST, SIM_FATE_TWICE,
                        SIM_FATE_LATE},
    [SIM_POINT_REPLY] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER},
    [SIM_POINT_SERVE] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER},
    [SIM_POINT_ANSWER] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER, SIM_FATE_LOST},
    [SIM_POINT_DRIVER] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER, SIM_FATE_LOST, SIM_FATE_REPLY_LOST,
                          SIM_FATE_LATE, SIM_FATE_FAIL},
    [SIM_POINT_EVENT] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER},
};
/* What fails, in sweeps of failures. */
static const enum sim_fate starve_fates[SIM_POINT_COUNT][FATES_MAX] = {
    [SIM_POINT_SYNC] = {SIM_FATE_FAIL},
    [SIM_POINT_WRITE] = {SIM_FATE_FAIL},
    [SIM_POINT_CONNECT] = {SIM_FATE_FAIL},
    [SIM_POINT_ALLOC] = {SIM_FATE_FAIL},
};

static bool recording;
static struct point *points;
static size_t point_count;

double sweep_cpu_now(void)
{
    double sum = 0;
    static const int whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    for (unsigned i = 0; i < 2; i++) {
        struct rusage u;
        (void)getrusage(whose[i], &u);
        sum += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    }
    return sum;
}

/* ------------------------------------------------------------------ one run */

const enum sim_fate *sweep_fates_of(unsigned kind)
{
    return sweep.options->mode == SWEEP_STARVE ? starve_fates[kind] : all_fates[kind];
}

bool sweep_is_swept(const struct sim_process *p, enum sim_point kind)
{
    return p->index < RUN_PROCESSES_MAX && (p->role == LMO_ROLE_COORDINATOR || p->role == LMO_ROLE_WORKER) &&
           sweep_fates_of(kind)[0] != SIM_FATE_NONE;
}

static enum sim_fate hook(void *arg, struct sim_process *p, enum sim_point kind, uint64_t k)
{
    (void)arg;
    if (sweep.struck < sweep.wanted) {
        const struct strike *x = &sweep.strikes[0];
        if (x->at.process != p->index || x->at.kind != kind || x->at.k != k) {
            return SIM_FATE_NONE;
        }
        sweep.struck++;
        return x->fate;
    }
    if (recording && sweep_is_swept(p, kind)) {
        lmo_assert(point_count < POINTS_MAX);
        points[point_count++] = (struct point){(uint8_t)p->index, (uint8_t)kind, (uint32_t)k};
    }
    return SIM_FATE_NONE;
}

void sweep_name_strikes(unsigned count)
{
    char *text = sweep.job->strikes;
    size_t size = sizeof sweep.job->strikes, n = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < count; i++) {
        const struct strike *x = &sweep.strikes[i];
        n += (size_t)snprintf(text + n, size - n, "%s%s/%s/%u/%s", i > 0 ? "+" : "", sweep.processes[x->at.process],
                              sim_point_name((enum sim_point)x->at.kind), x->at.k, sim_fate_name(x->fate));
        lmo_assert(n < size);
    }
}

void sweep_note_violation(const char *what, const char *strikes)
{
    sweep.found->failed++;
    if (sweep.found->violation_count < VIOLATIONS_MAX) {
        struct violation *v = &sweep.found->violations[sweep.found->violation_count++];
        snprintf(v->what, sizeof v->what, "%.310s", what);
        snprintf(v->strikes, sizeof v->strikes, "%s", strikes);
    }
}

void sweep_account(const struct run_result *r)
{
    struct findings *f = sweep.found;
    f->runs++;
    f->hit += sweep.struck == sweep.wanted;
    f->missed += sweep.struck != sweep.wanted;
    f->completed += r->completed;
    f->aborted += r->aborted;
    f->refused += r->refused;
    f->abandoned += r->abandoned;
    f->attention += r->attention;
    f->crashes += r->crashes;
    if (sweep.struck != sweep.wanted) {
        sweep_note_violation("this point was listed and is not there any more", sweep.job->strikes);
    } else if (r->failed) {
        sweep_note_violation(r->violation, sweep.job->strikes);
    } else if (sweep.wanted > 0) {
        const struct point *last = &sweep.strikes[sweep.wanted - 1].at;
        f->struck[last->process][last->kind]++;
    }
}

/* Runs the scenario with `wanted` strikes; `record`: the points that it comes to. */
static void run(unsigned wanted, bool record)
{
    static struct run_result r;
    sweep.wanted = wanted;
    sweep.struck = 0;
    recording = record;
    point_count = 0;
    sweep_name_strikes(wanted);
    run_plan(&sweep.plan, &r);
    if (wanted == 0) {
        memcpy(sweep.processes, r.processes, sizeof sweep.processes);
    }
    sweep_account(&r);
}

/* ------------------------------------------------------------------ all runs of one scenario */

bool sweep_out_of_time(double began)
{
    return sweep.options->limit_s > 0 && sweep_cpu_now() - began > sweep.options->limit_s;
}

static uint64_t stride_of(const struct point *p)
{
    return p->kind == SIM_POINT_ALLOC && sweep.options->stride > 1 ? sweep.options->stride : 1;
}

static void sweep_scenario(const char *name, uint64_t *task, double began)
{
    lmo_assert(sweep_plan(name, &sweep.plan) == 0);
    run(0, true);
    size_t count = point_count;
    struct point *list = malloc((count + 1) * sizeof *list);
    lmo_assert(list);
    memcpy(list, points, count * sizeof *list);
    for (size_t i = 0; i < count; i++) {
        if (i % stride_of(&list[i]) != 0) {
            continue;
        }
        const enum sim_fate *fates = sweep_fates_of(list[i].kind);
        bool mine = false;
        for (unsigned n = 0; fates[n] != SIM_FATE_NONE; n++, (*task)++) {
            if (*task % sweep.options->jobs != sweep.index || *task < sweep.job->next) {
                continue;
            }
            if (sweep_out_of_time(began)) {
                sweep.found->incomplete = true;
                break;
            }
            sweep.job->next = *task;
            mine |= n == 0; /* counted once, by whoever has its first fate */
            sweep.strikes[0] = (struct strike){list[i], fates[n]};
            run(1, false);
            sweep.job->next = *task + 1;
        }
        sweep.found->points[list[i].process][list[i].kind] += mine;
    }
    free(list);
}

static void work(unsigned index)
{
    static struct point room[POINTS_MAX];
    const struct sweep_options *o = sweep.options;
    sweep.index = index;
    sweep.job = &sweep.jobs[index];
    points = room;
    sim_alloc_points = o->mode == SWEEP_STARVE;
    uint64_t task = 0;
    double began = sweep_cpu_now();
    run_set_hook(hook, NULL);
    for (sweep.scenario = 0; sweep_scenario_name(sweep.scenario); sweep.scenario++) {
        const char *name = sweep_scenario_name(sweep.scenario);
        if (o->scenario ? strcmp(o->scenario, name) != 0 : o->mode == SWEEP_STARVE && strcmp(name, "live") != 0) {
            continue;
        }
        double before = sweep_cpu_now();
        sweep.found = &sweep.job->of[sweep.scenario];
        if (o->mode == SWEEP_PAIRS) {
            sweep_pairs(name, &task, began);
        } else {
            sweep_scenario(name, &task, began);
        }
        sweep.found->cpu_s += sweep_cpu_now() - before;
    }
    run_set_hook(NULL, NULL);
}

/* ------------------------------------------------------------------ real processes */

static pid_t spawn(unsigned index)
{
    fflush(stdout);
    pid_t pid = fork();
    lmo_assert(pid >= 0);
    if (pid == 0) {
        work(index);
        fflush(stdout);
        _exit(0);
    }
    return pid;
}

/* One that died is noted with the run in which it did, and goes on behind it. */
static void wait_for_all(pid_t pids[JOBS_MAX])
{
    for (unsigned left = sweep.options->jobs; left > 0;) {
        int status = 0;
        pid_t pid = wait(&status);
        lmo_assert(pid > 0);
        unsigned j = 0;
        while (j < sweep.options->jobs && pids[j] != pid) {
            j++;
        }
        lmo_assert(j < sweep.options->jobs);
        if (status == 0) {
            left--;
            continue;
        }
        char what[96];
        unsigned scenario = 0;
        for (unsigned i = 0; sweep_scenario_name(i); i++) { /* the last that was begun */
            scenario = sweep.jobs[j].of[i].runs > 0 ? i : scenario;
        }
        sweep.found = &sweep.jobs[j].of[scenario];
        snprintf(what, sizeof what, "the simulator itself ended: %s %d", WIFSIGNALED(status) ? "signal" : "status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        sweep_note_violation(what, sweep.jobs[j].strikes);
        sweep.jobs[j].next++;
        pids[j] = spawn(j);
    }
}

int sweep_run(const struct sweep_options *o)
{
    static struct sweep_options options;
    options = *o;
    options.jobs = options.jobs < 1 ? 1 : options.jobs > JOBS_MAX ? JOBS_MAX : options.jobs;
    sweep.options = &options;
    sweep.jobs = mmap(NULL, JOBS_MAX * sizeof *sweep.jobs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    lmo_assert(sweep.jobs != MAP_FAILED);
    if (options.mode == SWEEP_PAIRS) {
        sweep_pairs_init();
    }
    struct run_result *clean = calloc(1, sizeof *clean); /* for the processes' names */
    lmo_assert(clean);
    run_init();
    lmo_assert(sweep_plan("live", &sweep.plan) == 0);
    run_plan(&sweep.plan, clean);
    memcpy(sweep.processes, clean->processes, sizeof sweep.processes);
    free(clean);
    pid_t pids[JOBS_MAX] = {0};
    for (unsigned j = 0; j < options.jobs; j++) {
        pids[j] = spawn(j);
    }
    wait_for_all(pids);
    int r = sweep_report();
    (void)munmap(sweep.jobs, JOBS_MAX * sizeof *sweep.jobs);
    return r;
}
