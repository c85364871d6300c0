/* main.c - lmo-sim: runs plans, tells what failed and how to see it again, measures itself. README.md has the usage. */
#include "run.h"
#include "shrink.h"
#include "sweep.h"

#include "base/json.h"
#include "base/log.h"

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef LMO_SIM_COMMIT
#define LMO_SIM_COMMIT "unknown"
#endif

struct arguments {
    uint64_t first, last;
    bool no_faults, hard, two, trace, debug, shrink, keep_going, points;
    const char *report, *plan, *save, *scenario, *strikes;
    bool sweeps;
    struct sweep_options sweep;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char *end = NULL;
    switch (key) {
    case 's':
    case 'S':
        a->first = a->last = strtoull(arg, &end, 10);
        if (end[0] == '.' && end[1] == '.') {
            a->last = strtoull(end + 2, &end, 10);
        }
        if (*end || a->last < a->first) {
            argp_error(state, "seeds are A or A..B");
        }
        return 0;
    case 'n': a->no_faults = true; return 0;
    case 'H': a->hard = true; return 0;
    case '2': a->two = true; return 0;
    case 't': a->trace = true; return 0;
    case 'd': a->trace = a->debug = true; return 0;
    case 'x': a->shrink = true; return 0;
    case 'k': a->keep_going = true; return 0;
    case 'P': a->points = true; return 0;
    case 'r': a->report = arg; return 0;
    case 'p': a->plan = arg; return 0;
    case 'w': a->save = arg; return 0;
    case 'c': a->scenario = arg; return 0;
    case 'e': a->strikes = arg; return 0;
    case 'W':
        a->sweeps = true;
        a->sweep.mode = strcmp(arg, "pairs") == 0    ? SWEEP_PAIRS
                        : strcmp(arg, "starve") == 0 ? SWEEP_STARVE
                                                     : SWEEP_SINGLES;
        if (a->sweep.mode == SWEEP_SINGLES && strcmp(arg, "singles") != 0) {
            argp_error(state, "sweeps are singles, pairs or starve");
        }
        return 0;
    case 'j': a->sweep.jobs = (unsigned)strtoul(arg, NULL, 10); return 0;
    case 'C': a->sweep.count_only = true; return 0;
    case 'g': a->sweep.stride = strtoull(arg, NULL, 10); return 0;
    case 'l': a->sweep.limit_s = strtod(arg, NULL); return 0;
    case ARGP_KEY_ARG: argp_usage(state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"seed", 's', "N", 0, "One seed", 0},
    {"seeds", 'S', "A..B", 0, "Seeds from A to B", 0},
    {"no-faults", 'n', NULL, 0, "Nothing goes wrong", 0},
    {"hard", 'H', NULL, 0, "Also faults that may end in attention", 0},
    {"two", '2', NULL, 0, "And coordinators that are taken over from while they sleep", 0},
    {"plan", 'p', "FILE", 0, "Run the plan in FILE (JSON) instead of one made from the seed", 0},
    {"save-plan", 'w', "FILE", 0, "Write the (shrunk) plan to FILE", 0},
    {"trace", 't', NULL, 0, "Print everything that happens", 0},
    {"debug", 'd', NULL, 0, "The same, with the processes' debug lines", 0},
    {"shrink", 'x', NULL, 0, "Make a failing plan smaller as long as it fails", 0},
    {"keep-going", 'k', NULL, 0, "Go on after a failure; tell each kind of failure once", 0},
    {"points", 'P', NULL, 0, "Print how often each process came to each kind of observation point", 0},
    {"report", 'r', "json|FILE", 0, "Figures as JSON: printed at the end, or written to FILE", 0},
    {"sweep", 'W', "KIND", 0, "Faults at every point: singles, pairs, starve", 1},
    {"scenario", 'c', "NAME", 0, "Only this scenario; without a sweep: run it", 1},
    {"strike", 'e', "P/KIND/K/FATE[+...]", 0, "With --scenario: strike there", 1},
    {"jobs", 'j', "N", 0, "Real processes of a sweep", 1},
    {"stride", 'g', "N", 0, "Every N-th first point of pairs, every N-th allocation", 1},
    {"count", 'C', NULL, 0, "Pairs: count them, and run the first faults alone", 1},
    {"limit", 'l', "S", 0, "CPU seconds per real process of a sweep; then it stops, and fails as incomplete", 1},
    {0},
};
static const struct argp argp = {.options = options,
                                 .parser = parse_option,
                                 .doc =
                                     "Runs a whole fleet in one thread under virtual time, and lets things go wrong."};

static struct totals {
    uint64_t seeds, failed, requests, accepted, completed, aborted, attention, refused, crashes, virtual_ns, events,
        messages, syncs, writes, driver_calls, longest_gap_ns;
    uint64_t struck[FAULT_COUNT], fates[SIM_FATE_COUNT];
    double cpu_s;
} totals;

static enum plan_mode mode_of(const struct arguments *a)
{
    return a->no_faults ? PLAN_QUIET : a->two ? PLAN_TWO : a->hard ? PLAN_HARD : PLAN_FAULTS;
}

static double cpu_now(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void add(const struct run_result *r)
{
    totals.seeds++;
    totals.failed += r->failed;
    totals.requests += r->requests;
    totals.accepted += r->accepted;
    totals.completed += r->completed;
    totals.aborted += r->aborted;
    totals.attention += r->attention;
    totals.refused += r->refused;
    totals.crashes += r->crashes;
    totals.virtual_ns += r->virtual_ns;
    totals.events += r->events;
    totals.messages += r->messages;
    totals.syncs += r->syncs;
    totals.writes += r->writes;
    totals.driver_calls += r->driver_calls;
    totals.longest_gap_ns = r->longest_gap_ns > totals.longest_gap_ns ? r->longest_gap_ns : totals.longest_gap_ns;
    for (unsigned i = 0; i < FAULT_COUNT; i++) {
        totals.struck[i] += r->struck[i];
    }
    for (unsigned i = 0; i < SIM_FATE_COUNT; i++) {
        totals.fates[i] += r->fates[i];
    }
}

static void tell_plan(const struct plan *p)
{
    char text[200];
    for (unsigned i = 0; i < p->guest_count; i++) {
        const struct plan_guest *g = &p->guests[i];
        printf("  %s at %s: %u volumes, %u ports, %" PRIu64 " MiB, dirties %" PRIu64 " MiB/s%s%s\n", g->name, g->host,
               g->volumes, g->ports, g->memory_mib, g->dirty_mib_per_s, g->persistent ? "" : ", transient",
               g->owner_paused ? ", paused by its owner" : "");
    }
    for (unsigned i = 0; i < p->request_count; i++) {
        plan_describe_request(&p->requests[i], text, sizeof text);
        printf("  %s\n", text);
    }
    for (unsigned i = 0; i < p->fault_count; i++) {
        plan_describe_fault(&p->faults[i], text, sizeof text);
        printf("  fault: %s\n", text);
    }
}

static void tell_failure(const struct arguments *a, const struct plan *p, const struct run_result *r)
{
    printf("FAILED seed %" PRIu64 " after %.3f s, hash %016" PRIx64 ", commit %s\n  %s\n", p->seed, r->failed_at_s,
           r->hash, LMO_SIM_COMMIT, r->violation);
    if (a->scenario) {
        printf("  again: lmo-sim --scenario %s --strike %s --trace\n", a->scenario, a->strikes ? a->strikes : "");
    } else if (a->plan) {
        printf("  again: lmo-sim --plan %s --trace\n", a->plan);
    } else {
        printf("  again: lmo-sim --seed %" PRIu64 "%s --trace\n", p->seed,
               a->no_faults ? " --no-faults"
               : a->two     ? " --two"
               : a->hard    ? " --hard"
                            : "");
    }
}

/* Each kind of failure once, or all of them would hide the second kind. */
static bool new_kind(const char *violation)
{
    static char kinds[64][512];
    static unsigned count;
    for (unsigned i = 0; i < count; i++) {
        if (shrink_same(kinds[i], violation)) {
            return false;
        }
    }
    if (count < 64) {
        snprintf(kinds[count++], sizeof kinds[0], "%s", violation);
    }
    return true;
}

static void tell_points(const struct run_result *r)
{
    printf("%-8s", "");
    for (unsigned k = 0; k < SIM_POINT_COUNT; k++) {
        printf(" %8s", sim_point_name((enum sim_point)k));
    }
    printf("\n");
    for (unsigned i = 0; i < r->process_count && i < RUN_PROCESSES_MAX; i++) {
        printf("%-8s", r->processes[i]);
        for (unsigned k = 0; k < SIM_POINT_COUNT; k++) {
            printf(" %8" PRIu64, r->points[i][k]);
        }
        printf("\n");
    }
}

static int save(const char *path, const struct plan *p)
{
    LMO_AUTO_JSON json_t *j = plan_to_json(p);
    if (!j || json_dump_file(j, path, JSON_INDENT(2)) != 0) {
        fprintf(stderr, "lmo-sim: cannot write %s\n", path);
        return -1;
    }
    return 0;
}

/* What the last sweep of single faults beside this report has counted; 0: there was none. */
static json_int_t crash_points(const char *report)
{
    char path[512];
    const char *slash = strrchr(report, '/');
    snprintf(path, sizeof path, "%.*ssweep.json", slash ? (int)(slash - report + 1) : 0, report);
    LMO_AUTO_JSON json_t *j = json_load_file(path, 0, NULL);
    return json_integer_value(json_object_get(json_object_get(j, "singles"), "points"));
}

static void report_json(const char *report)
{
    double virtual_s = (double)totals.virtual_ns / 1e9;
    json_t *faults = json_object();
    for (unsigned i = 0; i < FAULT_COUNT; i++) {
        json_object_set_new(faults, fault_name((enum fault_kind)i), json_integer((json_int_t)totals.struck[i]));
    }
    LMO_AUTO_JSON json_t *j =
        json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:f,s:f,s:s,s:I}", "seeds",
                  (json_int_t)totals.seeds, "failed", (json_int_t)totals.failed, "requests",
                  (json_int_t)totals.requests, "migrations", (json_int_t)totals.accepted, "completed",
                  (json_int_t)totals.completed, "aborted", (json_int_t)totals.aborted, "attention",
                  (json_int_t)totals.attention, "refused", (json_int_t)totals.refused, "crashes",
                  (json_int_t)totals.crashes, "faults", faults, "events", (json_int_t)totals.events, "messages",
                  (json_int_t)totals.messages, "syncs", (json_int_t)totals.syncs, "guest_writes",
                  (json_int_t)totals.writes, "driver_calls", (json_int_t)totals.driver_calls, "longest_gap_ms",
                  (double)totals.longest_gap_ns / 1e6, "virtual_seconds", virtual_s, "cpu_seconds", totals.cpu_s,
                  "speedup", virtual_s / totals.cpu_s, "migrations_per_cpu_second",
                  (double)totals.accepted / totals.cpu_s, "commit", LMO_SIM_COMMIT, "crash_points",
                  crash_points(report));
    if (strcmp(report, "json") != 0) {
        if (json_dump_file(j, report, JSON_INDENT(2)) != 0) {
            fprintf(stderr, "lmo-sim: cannot write %s\n", report);
        }
        return;
    }
    LMO_AUTO_FREE char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
    printf("%s\n", text ? text : "{}");
}

int main(int argc, char **argv)
{
    static struct plan plan;
    static struct run_result result;
    struct arguments a = {.first = 1, .last = 1};
    struct lmo_err err = {0};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    run_init();
    sim_tracing = a.trace;
    if (a.debug) {
        lmo_log_set_level(LMO_LOG_DEBUG);
    }
    if (a.sweeps) {
        a.sweep.scenario = a.scenario;
        a.sweep.report = a.report;
        return sweep_run(&a.sweep);
    }
    for (uint64_t seed = a.first; seed <= a.last; seed++) {
        if (a.scenario && (sweep_plan(a.scenario, &plan) < 0 || sweep_add_strikes(&plan, a.strikes) < 0)) {
            fprintf(stderr, "lmo-sim: no such scenario, or no such point\n");
            return 2;
        }
        if (a.plan && plan_load(a.plan, &plan, &err) < 0) {
            fprintf(stderr, "lmo-sim: %s\n", err.text);
            return 2;
        }
        if (!a.plan && !a.scenario) {
            plan_random(seed, mode_of(&a), &plan);
        }
        for (unsigned i = 0; i < plan.fault_count; i++) {
            sim_alloc_points |= plan.faults[i].kind == FAULT_POINT && plan.faults[i].point == SIM_POINT_ALLOC;
        }
        double before = cpu_now();
        run_plan(&plan, &result);
        totals.cpu_s += cpu_now() - before;
        add(&result);
        if (a.first == a.last) {
            tell_plan(&plan);
            printf("%sseed %" PRIu64 " hash %016" PRIx64 " virtual %.3f s crashes %u\n", result.story, plan.seed,
                   result.hash, (double)result.virtual_ns / 1e9, result.crashes);
        }
        if (a.points) {
            tell_points(&result);
        }
        if (result.failed && new_kind(result.violation)) {
            tell_failure(&a, &plan, &result);
            if (a.shrink) {
                sim_tracing = false;
                unsigned runs = shrink_plan(&plan, &result, 400);
                printf("  shrunk in %u runs to %u requests and %u faults:\n", runs, plan.request_count,
                       plan.fault_count);
                tell_plan(&plan);
                printf("%s  %s\n", result.story, result.violation);
            }
        }
        if (a.save && save(a.save, &plan) < 0) {
            return 2;
        }
        if (result.failed && !a.keep_going) {
            break;
        }
    }
    if (a.report) {
        report_json(a.report);
    }
    if (a.first != a.last && (!a.report || strcmp(a.report, "json") != 0)) {
        printf("%" PRIu64 " seeds, %" PRIu64 " failed; %" PRIu64 " migrations (%" PRIu64 " completed, %" PRIu64
               " aborted, %" PRIu64 " attention), %" PRIu64 " crashes; %.0f virtual s in %.2f CPU s: %.0fx, %.0f "
               "migrations per CPU second\n",
               totals.seeds, totals.failed, totals.accepted, totals.completed, totals.aborted, totals.attention,
               totals.crashes, (double)totals.virtual_ns / 1e9, totals.cpu_s,
               (double)totals.virtual_ns / 1e9 / totals.cpu_s, (double)totals.accepted / totals.cpu_s);
    }
    if (a.first != a.last) {
        printf("%" PRIu64 " passed, %" PRIu64 " failed\n", totals.seeds - totals.failed, totals.failed);
    }
    return totals.failed ? 1 : 0;
}
