/* sweep.c - see sweep.h. Each real process takes every n-th task. What it found goes into memory that all share, so that
 * one which dies (a fault in the simulator, or one in the product that no assertion caught) is noticed, named and
 * replaced. */
#include "sweep.h"
#include "world.h"

#include "base/assert.h"
#include "base/json.h"
#include "http/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SCENARIOS_MAX  16
#define POINTS_MAX     65536
#define JOBS_MAX       8
#define VIOLATIONS_MAX 24
#define STRIKE_MAX     64

struct point {
    uint8_t process, kind;
    uint32_t k;
};

struct strike {
    struct point at;
    enum sim_fate fate;
};

/* Which fates there are at which points. */
static const enum sim_fate all_fates[SIM_POINT_COUNT][7] = {
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
static const enum sim_fate starve_fates[SIM_POINT_COUNT][7] = {
    [SIM_POINT_SYNC] = {SIM_FATE_FAIL},
    [SIM_POINT_WRITE] = {SIM_FATE_FAIL},
    [SIM_POINT_CONNECT] = {SIM_FATE_FAIL},
    [SIM_POINT_ALLOC] = {SIM_FATE_FAIL},
};

/* One real process' findings about one scenario. */
struct findings {
    uint64_t runs, hit, missed, completed, aborted, refused, abandoned, attention, failed, crashes;
    uint64_t points[RUN_PROCESSES_MAX][SIM_POINT_COUNT], struck[RUN_PROCESSES_MAX][SIM_POINT_COUNT];
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
static struct job *jobs; /* shared */

static struct {
    const struct sweep_options *options;
    struct job *job;
    unsigned index, scenario;
    struct findings *found;
    struct plan plan;
    char processes[RUN_PROCESSES_MAX][PLAN_NAME_MAX];
    /* the run that is under way */
    struct strike first, second;
    unsigned wanted, struck;
    bool recording, only_handover;
    struct point *points;
    size_t point_count;
} s;

static double cpu_now(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------ one run */

static const enum sim_fate *fates_of(unsigned kind)
{
    return s.options->mode == SWEEP_STARVE ? starve_fates[kind] : all_fates[kind];
}

static bool is_swept(const struct sim_process *p, enum sim_point kind)
{
    return p->index < RUN_PROCESSES_MAX && (p->role == LMO_ROLE_COORDINATOR || p->role == LMO_ROLE_WORKER) &&
           fates_of(kind)[0] != SIM_FATE_NONE;
}

static bool is_at(const struct strike *x, const struct sim_process *p, enum sim_point kind, uint64_t k)
{
    return x->at.process == p->index && x->at.kind == kind && x->at.k == k;
}

static enum sim_fate hook(void *arg, struct sim_process *p, enum sim_point kind, uint64_t k)
{
    (void)arg;
    if (s.struck < s.wanted) {
        const struct strike *x = s.struck == 0 ? &s.first : &s.second;
        if (!is_at(x, p, kind, k)) {
            return SIM_FATE_NONE;
        }
        s.struck++;
        return x->fate;
    }
    if (s.recording && is_swept(p, kind) && (!s.only_handover || world.handovers > 0)) {
        lmo_assert(s.point_count < POINTS_MAX);
        s.points[s.point_count++] = (struct point){(uint8_t)p->index, (uint8_t)kind, (uint32_t)k};
    }
    return SIM_FATE_NONE;
}

static void name_strike(const struct strike *x, char *ret, size_t size)
{
    snprintf(ret, size, "%s/%s/%u/%s", s.processes[x->at.process], sim_point_name((enum sim_point)x->at.kind), x->at.k,
             sim_fate_name(x->fate));
}

static void note_violation(const char *what, const char *strikes)
{
    s.found->failed++;
    if (s.found->violation_count < VIOLATIONS_MAX) {
        struct violation *v = &s.found->violations[s.found->violation_count++];
        snprintf(v->what, sizeof v->what, "%.310s", what);
        snprintf(v->strikes, sizeof v->strikes, "%s", strikes);
    }
}

/* Runs the scenario with `wanted` strikes; `record`: what comes after the last one goes to s.points. */
static void run(unsigned wanted, bool record)
{
    static struct run_result r;
    s.wanted = wanted;
    s.struck = 0;
    s.recording = record;
    s.point_count = 0;
    s.job->strikes[0] = '\0';
    if (wanted > 0) {
        name_strike(&s.first, s.job->strikes, STRIKE_MAX);
    }
    if (wanted > 1) {
        size_t n = strlen(s.job->strikes);
        s.job->strikes[n++] = '+';
        name_strike(&s.second, s.job->strikes + n, STRIKE_MAX);
    }
    run_plan(&s.plan, &r);
    if (wanted == 0) {
        memcpy(s.processes, r.processes, sizeof s.processes);
    }
    struct findings *f = s.found;
    f->runs++;
    f->hit += s.struck == wanted;
    f->missed += s.struck != wanted;
    f->completed += r.completed;
    f->aborted += r.aborted;
    f->refused += r.refused;
    f->abandoned += r.abandoned;
    f->attention += r.attention;
    f->crashes += r.crashes;
    if (s.struck != wanted) {
        note_violation("this point was listed and is not there any more", s.job->strikes);
    } else if (r.failed) {
        note_violation(r.violation, s.job->strikes);
    } else if (wanted > 0) {
        const struct point *last = wanted > 1 ? &s.second.at : &s.first.at;
        f->struck[last->process][last->kind]++;
    }
}

/* ------------------------------------------------------------------ all runs of one scenario */

static bool out_of_time(double began)
{
    return s.options->limit_s > 0 && cpu_now() - began > s.options->limit_s;
}

static uint64_t stride_of(const struct point *p)
{
    bool sampled = s.options->mode == SWEEP_PAIRS || p->kind == SIM_POINT_ALLOC;
    uint64_t longer = s.options->mode == SWEEP_PAIRS && s.plan.request_count > 1 ? 4 : 1; /* twice the points, squared */
    return sampled && s.options->stride > 1 ? s.options->stride * longer : 1;
}

static void second_strikes(struct point *points, size_t count)
{
    struct point *kept = malloc((count + 1) * sizeof *kept);
    lmo_assert(kept);
    memcpy(kept, points, count * sizeof *kept);
    for (size_t i = 0; i < count; i++) {
        const enum sim_fate *fates = fates_of(kept[i].kind);
        s.found->points[kept[i].process][kept[i].kind]++;
        for (unsigned n = 0; fates[n] != SIM_FATE_NONE; n++) {
            s.second = (struct strike){kept[i], fates[n]};
            run(2, false);
        }
    }
    free(kept);
}

static void sweep_scenario(const char *name, uint64_t *task, double began)
{
    bool pairs = s.options->mode == SWEEP_PAIRS;
    lmo_assert(sweep_plan(name, &s.plan) == 0);
    s.only_handover = pairs;
    run(0, true);
    size_t count = s.point_count;
    struct point *points = malloc((count + 1) * sizeof *points);
    lmo_assert(points);
    memcpy(points, s.points, count * sizeof *points);
    for (size_t i = 0; i < count; i++) {
        if (i % stride_of(&points[i]) != 0) {
            continue;
        }
        const enum sim_fate *fates = fates_of(points[i].kind);
        bool mine = false;
        for (unsigned n = 0; fates[n] != SIM_FATE_NONE; n++, (*task)++) {
            if (*task % s.options->jobs != s.index || *task < s.job->next) {
                continue;
            }
            if (out_of_time(began)) {
                s.found->incomplete = true;
                break;
            }
            s.job->next = *task;
            mine |= n == 0; /* counted once, by whoever has its first fate */
            s.first = (struct strike){points[i], fates[n]};
            run(1, pairs);
            if (pairs) {
                second_strikes(s.points, s.point_count);
            }
            s.job->next = *task + 1;
        }
        s.found->points[points[i].process][points[i].kind] += mine && !pairs;
    }
    free(points);
}

static void work(unsigned index)
{
    static struct point room[POINTS_MAX];
    s.index = index;
    s.job = &jobs[index];
    s.points = room;
    sim_alloc_points = s.options->mode == SWEEP_STARVE;
    uint64_t task = 0;
    double began = cpu_now();
    run_set_hook(hook, NULL);
    for (s.scenario = 0; sweep_scenario_name(s.scenario); s.scenario++) {
        const char *name = sweep_scenario_name(s.scenario);
        if (s.options->scenario ? strcmp(s.options->scenario, name) != 0
                                : s.options->mode == SWEEP_STARVE && strcmp(name, "live") != 0) {
            continue;
        }
        double before = cpu_now();
        s.found = &s.job->of[s.scenario];
        sweep_scenario(name, &task, began);
        s.found->cpu_s += cpu_now() - before;
    }
    run_set_hook(NULL, NULL);
}

/* ------------------------------------------------------------------ the report */

static const char *const mode_names[] = {"singles", "pairs", "starve"};

static void add_up(struct findings *to, const struct findings *from)
{
    uint64_t *t = &to->runs;
    const uint64_t *f = &from->runs;
    size_t numbers = (offsetof(struct findings, violation_count) - offsetof(struct findings, runs)) / sizeof *t;
    for (size_t i = 0; i < numbers; i++) {
        t[i] += f[i];
    }
    to->cpu_s += from->cpu_s;
    to->incomplete |= from->incomplete;
    for (unsigned i = 0; i < from->violation_count && to->violation_count < VIOLATIONS_MAX; i++) {
        to->violations[to->violation_count++] = from->violations[i];
    }
}

static json_t *points_json(const uint64_t counts[RUN_PROCESSES_MAX][SIM_POINT_COUNT])
{
    json_t *all = json_object();
    for (unsigned p = 0; p < RUN_PROCESSES_MAX; p++) {
        json_t *one = json_object();
        for (unsigned k = 0; k < SIM_POINT_COUNT; k++) {
            if (counts[p][k]) {
                json_object_set_new(one, sim_point_name((enum sim_point)k), json_integer((json_int_t)counts[p][k]));
            }
        }
        if (json_object_size(one) > 0) {
            json_object_set(all, s.processes[p], one);
        }
        json_decref(one);
    }
    return all;
}

static json_t *findings_json(const char *name, const struct findings *f)
{
    json_t *violations = json_array();
    for (unsigned i = 0; i < f->violation_count; i++) {
        json_array_append_new(violations, json_pack("{s:s,s:s,s:s}", "what", f->violations[i].what, "scenario", name,
                                                    "strikes", f->violations[i].strikes));
    }
    return json_pack("{s:s,s:I,s:I,s:I,s:o,s:o,s:{s:I,s:I,s:I,s:I,s:I},s:I,s:I,s:b,s:f,s:o}", "scenario", name, "runs",
                     (json_int_t)f->runs, "hit", (json_int_t)f->hit, "not_hit", (json_int_t)f->missed, "points",
                     points_json(f->points), "strikes", points_json(f->struck), "migrations", "completed",
                     (json_int_t)f->completed, "aborted", (json_int_t)f->aborted, "refused", (json_int_t)f->refused,
                     "abandoned", (json_int_t)f->abandoned, "attention", (json_int_t)f->attention, "crashes",
                     (json_int_t)f->crashes, "violations_found", (json_int_t)f->failed, "complete", !f->incomplete,
                     "cpu_seconds", f->cpu_s, "violations", violations);
}

static uint64_t count_points(const struct findings *f)
{
    uint64_t n = 0;
    for (unsigned p = 0; p < RUN_PROCESSES_MAX; p++) {
        for (unsigned k = 0; k < SIM_POINT_COUNT; k++) {
            n += f->points[p][k];
        }
    }
    return n;
}

static void tell(const char *name, const struct findings *f)
{
    printf("%-8s %-15s %7" PRIu64 " points %8" PRIu64 " runs, %" PRIu64 " not hit; %" PRIu64 " completed %" PRIu64
           " aborted %" PRIu64 " refused %" PRIu64 " attention %" PRIu64 " abandoned; %" PRIu64
           " violations; %.1f CPU s%s\n",
           mode_names[s.options->mode], name, count_points(f), f->runs, f->missed, f->completed, f->aborted, f->refused,
           f->attention, f->abandoned, f->failed, f->cpu_s, f->incomplete ? " (stopped by its limit)" : "");
    for (unsigned i = 0; i < f->violation_count; i++) {
        printf("  FAILED %s\n    again: lmo-sim --scenario %s --strike %s --trace\n", f->violations[i].what, name,
               f->violations[i].strikes);
    }
}

static void write_report(json_t *part)
{
    const char *path = s.options->report;
    json_t *all = json_load_file(path, 0, NULL);
    if (!json_is_object(all)) {
        json_decref(all);
        all = json_object();
    }
    json_object_set_new(all, mode_names[s.options->mode], part);
    if (json_dump_file(all, path, JSON_INDENT(1) | JSON_SORT_KEYS) != 0) {
        fprintf(stderr, "lmo-sim: cannot write %s\n", path);
    }
    json_decref(all);
}

static int report(void)
{
    struct findings total = {0};
    json_t *list = json_array();
    for (unsigned i = 0; sweep_scenario_name(i); i++) {
        struct findings *sum = calloc(1, sizeof *sum);
        lmo_assert(sum);
        for (unsigned j = 0; j < s.options->jobs; j++) {
            add_up(sum, &jobs[j].of[i]);
        }
        if (sum->runs > 0) {
            tell(sweep_scenario_name(i), sum);
            json_array_append_new(list, findings_json(sweep_scenario_name(i), sum));
            add_up(&total, sum);
        }
        free(sum);
    }
    uint64_t points = count_points(&total);
    printf("%s: %" PRIu64 " points, %" PRIu64 " runs with a fault, every point %s; %" PRIu64
           " violations; %.1f CPU s\n",
           mode_names[s.options->mode], points, total.runs, total.missed || total.incomplete ? "NOT hit" : "hit",
           total.failed, total.cpu_s);
    json_t *part = json_pack("{s:I,s:I,s:I,s:b,s:I,s:f,s:o}", "points", (json_int_t)points, "runs",
                             (json_int_t)total.runs, "not_hit", (json_int_t)total.missed, "complete", !total.incomplete,
                             "violations", (json_int_t)total.failed, "cpu_seconds", total.cpu_s, "scenarios", list);
    if (s.options->report && part) {
        write_report(part);
    } else {
        json_decref(part);
    }
    uint64_t bad = total.failed + (total.incomplete ? 1 : 0) + (total.runs == 0 ? 1 : 0);
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n",
           total.runs - (total.failed < total.runs ? total.failed : total.runs), bad);
    return bad == 0 ? 0 : 1;
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
    for (unsigned left = s.options->jobs; left > 0;) {
        int status = 0;
        pid_t pid = wait(&status);
        lmo_assert(pid > 0);
        unsigned j = 0;
        while (j < s.options->jobs && pids[j] != pid) {
            j++;
        }
        lmo_assert(j < s.options->jobs);
        if (status == 0) {
            left--;
            continue;
        }
        char what[96];
        unsigned scenario = 0;
        for (unsigned i = 0; sweep_scenario_name(i); i++) { /* the last that was begun */
            scenario = jobs[j].of[i].runs > 0 ? i : scenario;
        }
        s.found = &jobs[j].of[scenario];
        snprintf(what, sizeof what, "the simulator itself ended: %s %d", WIFSIGNALED(status) ? "signal" : "status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        note_violation(what, jobs[j].strikes);
        jobs[j].next++;
        pids[j] = spawn(j);
    }
}

int sweep_run(const struct sweep_options *o)
{
    static struct sweep_options options;
    options = *o;
    options.jobs = options.jobs < 1 ? 1 : options.jobs > JOBS_MAX ? JOBS_MAX : options.jobs;
    s.options = &options;
    jobs = mmap(NULL, JOBS_MAX * sizeof *jobs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    lmo_assert(jobs != MAP_FAILED);
    struct run_result *clean = calloc(1, sizeof *clean); /* for the processes' names */
    lmo_assert(clean);
    run_init();
    lmo_assert(sweep_plan("live", &s.plan) == 0);
    run_plan(&s.plan, clean);
    memcpy(s.processes, clean->processes, sizeof s.processes);
    free(clean);
    pid_t pids[JOBS_MAX] = {0};
    for (unsigned j = 0; j < options.jobs; j++) {
        pids[j] = spawn(j);
    }
    wait_for_all(pids);
    int r = report();
    (void)munmap(jobs, JOBS_MAX * sizeof *jobs);
    return r;
}
