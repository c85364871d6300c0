/* sweep_report.c - what a sweep has found, for people and as JSON. */
#include "sweep_private.h"

#include "base/assert.h"
#include "base/json.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const mode_names[] = {"singles", "pairs", "starve"};

static void tell_line(const char *fmt, ...) LMO_PRINTF(1, 2);

static void tell_line(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!sweep.options->quiet) {
        (void)vprintf(fmt, ap);
    }
    va_end(ap);
}

static bool is_pairs(void)
{
    return sweep.options->mode == SWEEP_PAIRS;
}

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
            json_object_set(all, sweep.processes[p], one);
        }
        json_decref(one);
    }
    return all;
}

static json_t *pairs_json(const struct findings *f)
{
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "first_points", (json_int_t)f->first_points, "first_faults",
                     (json_int_t)f->firsts, "first_faults_same", (json_int_t)f->firsts_same, "pairs",
                     (json_int_t)f->pairs, "run", (json_int_t)f->pairs_run, "same",
                     (json_int_t)(f->pairs - f->pairs_run), "same_run_nevertheless", (json_int_t)f->checked);
}

static json_t *findings_json(const char *name, const struct findings *f)
{
    json_t *violations = json_array();
    for (unsigned i = 0; i < f->violation_count; i++) {
        json_array_append_new(violations, json_pack("{s:s,s:s,s:s}", "what", f->violations[i].what, "scenario", name,
                                                    "strikes", f->violations[i].strikes));
    }
    json_t *j =
        json_pack("{s:s,s:I,s:I,s:I,s:o,s:o,s:{s:I,s:I,s:I,s:I,s:I},s:I,s:I,s:b,s:f,s:o}", "scenario", name, "runs",
                  (json_int_t)f->runs, "hit", (json_int_t)f->hit, "not_hit", (json_int_t)f->missed, "points",
                  points_json(f->points), "strikes", points_json(f->struck), "migrations", "completed",
                  (json_int_t)f->completed, "aborted", (json_int_t)f->aborted, "refused", (json_int_t)f->refused,
                  "abandoned", (json_int_t)f->abandoned, "attention", (json_int_t)f->attention, "crashes",
                  (json_int_t)f->crashes, "violations_found", (json_int_t)f->failed, "complete", !f->incomplete,
                  "cpu_seconds", f->cpu_s, "violations", violations);
    if (j && is_pairs()) {
        json_object_set_new(j, "pairs", pairs_json(f));
    }
    return j;
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

static void tell_pairs(const char *before, const struct findings *f)
{
    tell_line("%s%" PRIu64 " first points, %" PRIu64 " first faults, %" PRIu64 " of them the same as another; %" PRIu64
              " pairs",
              before, f->first_points, f->firsts, f->firsts_same, f->pairs);
    if (!sweep.options->count_only) {
        tell_line(": %" PRIu64 " run, %" PRIu64 " the same as one that was run (%" PRIu64 " of these run nevertheless)",
                  f->pairs_run, f->pairs - f->pairs_run, f->checked);
    }
    tell_line("\n");
}

static void tell(const char *name, const struct findings *f)
{
    tell_line("%-8s %-15s %7" PRIu64 " points %8" PRIu64 " runs, %" PRIu64 " not hit; %" PRIu64 " completed %" PRIu64
              " aborted %" PRIu64 " refused %" PRIu64 " attention %" PRIu64 " abandoned; %" PRIu64
              " violations; %.1f CPU s%s\n",
              mode_names[sweep.options->mode], name, count_points(f), f->runs, f->missed, f->completed, f->aborted,
              f->refused, f->attention, f->abandoned, f->failed, f->cpu_s,
              f->incomplete ? " (stopped by its limit)" : "");
    if (is_pairs()) {
        tell_pairs("  ", f);
    }
    for (unsigned i = 0; i < f->violation_count; i++) {
        tell_line("  FAILED %s\n    again: lmo-sim --scenario %s --strike %s --trace\n", f->violations[i].what, name,
                  f->violations[i].strikes);
    }
}

static void write_report(json_t *part)
{
    const char *path = sweep.options->report;
    json_t *all = json_load_file(path, 0, NULL);
    if (!json_is_object(all)) {
        json_decref(all);
        all = json_object();
    }
    json_object_set_new(all, mode_names[sweep.options->mode], part);
    if (json_dump_file(all, path, JSON_INDENT(1) | JSON_SORT_KEYS) != 0) {
        fprintf(stderr, "lmo-sim: cannot write %s\n", path);
    }
    json_decref(all);
}

int sweep_report(void)
{
    struct findings total = {0};
    json_t *list = json_array();
    for (unsigned i = 0; sweep_scenario_name(i); i++) {
        struct findings *sum = calloc(1, sizeof *sum);
        lmo_assert(sum);
        for (unsigned j = 0; j < sweep.options->jobs; j++) {
            add_up(sum, &sweep.jobs[j].of[i]);
        }
        if (is_pairs()) {
            sweep_pairs_sum(i, sum);
        }
        if (sum->runs > 0) {
            tell(sweep_scenario_name(i), sum);
            json_array_append_new(list, findings_json(sweep_scenario_name(i), sum));
            add_up(&total, sum);
        }
        free(sum);
    }
    uint64_t points = count_points(&total);
    tell_line("%s: %" PRIu64 " points, %" PRIu64 " runs with a fault, every point %s; %" PRIu64
              " violations; %.1f CPU s\n",
              mode_names[sweep.options->mode], points, total.runs, total.missed || total.incomplete ? "NOT hit" : "hit",
              total.failed, total.cpu_s);
    json_t *part = json_pack("{s:I,s:I,s:I,s:b,s:I,s:f,s:o}", "points", (json_int_t)points, "runs",
                             (json_int_t)total.runs, "not_hit", (json_int_t)total.missed, "complete", !total.incomplete,
                             "violations", (json_int_t)total.failed, "cpu_seconds", total.cpu_s, "scenarios", list);
    if (is_pairs()) {
        tell_pairs("pairs: ", &total);
        if (part) {
            json_object_set_new(part, "pairs", pairs_json(&total));
        }
    }
    if (sweep.options->report && part) {
        write_report(part);
    } else {
        json_decref(part);
    }
    uint64_t bad = total.failed + (total.incomplete ? 1 : 0) + (total.runs == 0 ? 1 : 0);
    tell_line("%" PRIu64 " passed, %" PRIu64 " failed\n",
              total.runs - (total.failed < total.runs ? total.failed : total.runs), bad);
    return bad == 0 ? 0 : 1;
}
