/* figures.c - what the engine measures, and whether it is ready. Counters and histograms are sampled where things happen, each
 * by one add; gauges are filled in when somebody asks. */
#include "engine/figures.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/json.h"
#include "engine/internal.h"
#include "engine/spans.h"
#include "engine/webhooks.h"

#include <stdlib.h>
#include <string.h>

#define LAG_BAD_MS 1000
#define TEXT_MAX   (4U << 20)

static const double phase_bounds[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,    2.5,
                                      5,     10,   30,    60,   120, 300,  600, 1800, 3600};
static const double short_bounds[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
static const double blackout_bounds[] = {0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10};
static const double iteration_bounds[] = {1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100};

static const char *const outcomes[] = {"completed", "aborted", "abandoned"};
static const char *const answers[] = {"done", "failed", "unknown"};
static const char *const host_states[] = {"up", "down"};
static const char *const webhook_states[] = {"enabled", "disabled"};
static const char *const attempt_results[] = {"taken", "failed"};
static const char *const span_results[] = {"exported", "dropped"};
static const char *const versions[] = {LMO_VERSION};
static const char *const builds[] = {LMO_FAULT_BUILD};
static const char *phase_names[LMO_PHASE_COUNT], *limit_names[LMO_LIMIT_COUNT], *kind_names[LMO_OP_COUNT];

#define COUNT(a)          (unsigned)(sizeof(a) / sizeof((a)[0]))
#define LABEL(name, list) .label = {name}, .values = {list}, .count = {COUNT(list)}
#define BOUNDS(list)      .bounds = (list), .bound_count = COUNT(list)

static void fill_names(void)
{
    for (int i = 0; i < LMO_PHASE_COUNT; i++) {
        phase_names[i] = lmo_phase_text((enum lmo_phase)i);
    }
    for (int i = 0; i < LMO_LIMIT_COUNT; i++) {
        const char *text = lmo_limit_text((enum lmo_limit)i);
        limit_names[i] = text && text[0] ? text : "none";
    }
    kind_names[0] = "none";
    for (int i = 1; i < LMO_OP_COUNT; i++) {
        kind_names[i] = lmo_op_info((enum lmo_op_kind)i)->text;
    }
}

int engine_figures_init(struct lmo_engine *e, struct lmo_err *err)
{
    struct figures *f = &e->figures;
    struct lmo_metrics *m = f->registry = lmo_metrics_new();
    if (!m) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the metrics");
    }
    fill_names();
#define ADD(member, ...) f->member = lmo_metrics_add(m, &(struct lmo_metric_spec){__VA_ARGS__})
    ADD(build, .name = "lmo_build_info", .help = "Always 1; the labels say what runs.", .kind = LMO_METRIC_GAUGE,
        .label = {"version", "faults"}, .values = {versions, builds}, .count = {1, 1});
    ADD(phase_seconds, .name = "lmo_phase_duration_seconds",
        .help = "How long migrations were in a phase that they have left.", .kind = LMO_METRIC_HISTOGRAM,
        LABEL("phase", phase_names), BOUNDS(phase_bounds), .scale = 1e6);
    ADD(blackout_seconds, .name = "lmo_blackout_seconds",
        .help = "How long guests ran nowhere, suspended at the source to resumed at the destination.",
        .kind = LMO_METRIC_HISTOGRAM, BOUNDS(blackout_bounds), .scale = 1e6);
    ADD(convergence_iterations, .name = "lmo_convergence_iterations",
        .help = "Passes over the memory of migrations that were switched over.", .kind = LMO_METRIC_HISTOGRAM,
        BOUNDS(iteration_bounds));
    ADD(migrations, .name = "lmo_migrations_total", .help = "Migrations that have ended, by outcome.",
        .kind = LMO_METRIC_COUNTER, LABEL("outcome", outcomes));
    ADD(attention, .name = "lmo_attention_total", .help = "How often a migration came to need a person.",
        .kind = LMO_METRIC_COUNTER);
    ADD(retries, .name = "lmo_call_retries_total",
        .help = "Calls to workers that were ordered again after a failure or an unknown outcome.",
        .kind = LMO_METRIC_COUNTER, LABEL("call", kind_names));
    ADD(open_migrations, .name = "lmo_open_migrations", .help = "Migrations that have not ended, by phase.",
        .kind = LMO_METRIC_GAUGE, LABEL("phase", phase_names));
    ADD(queue, .name = "lmo_queue_length", .help = "Queued migrations, by what holds them.", .kind = LMO_METRIC_GAUGE,
        LABEL("limit", limit_names));
    ADD(hosts, .name = "lmo_hosts", .help = "Registered hosts, by whether their worker answers.",
        .kind = LMO_METRIC_GAUGE, LABEL("state", host_states));
    ADD(round_trip_seconds, .name = "lmo_worker_round_trip_seconds",
        .help = "From ordering a call to a worker to its outcome.", .kind = LMO_METRIC_HISTOGRAM,
        .label = {"call", "outcome"}, .values = {kind_names, answers}, .count = {COUNT(kind_names), 3},
        BOUNDS(short_bounds), .scale = 1e6);
    ADD(store_commit_seconds, .name = "lmo_store_commit_seconds",
        .help = "How long the store took for a commit that succeeded.", .kind = LMO_METRIC_HISTOGRAM,
        BOUNDS(short_bounds), .scale = 1e6);
    ADD(commit_failures, .name = "lmo_store_commit_failures_total", .help = "Commits that failed; each is tried again.",
        .kind = LMO_METRIC_COUNTER);
    ADD(stalled, .name = "lmo_store_stalled", .help = "1 while the store cannot be written and nothing is sent.",
        .kind = LMO_METRIC_GAUGE);
    ADD(events, .name = "lmo_events_newest", .help = "Number of the newest event of the log.",
        .kind = LMO_METRIC_GAUGE);
    ADD(followers, .name = "lmo_event_followers", .help = "Clients that follow the events now.",
        .kind = LMO_METRIC_GAUGE);
    ADD(webhooks, .name = "lmo_webhooks", .help = "Webhooks, by state.", .kind = LMO_METRIC_GAUGE,
        LABEL("state", webhook_states));
    ADD(webhook_attempts, .name = "lmo_webhook_attempts_total", .help = "Attempts to deliver an event, by result.",
        .kind = LMO_METRIC_COUNTER, LABEL("result", attempt_results));
    ADD(webhook_behind, .name = "lmo_webhook_behind_events",
        .help = "Events that the webhook furthest behind has not settled yet.", .kind = LMO_METRIC_GAUGE);
    ADD(spans, .name = "lmo_trace_spans_total", .help = "Spans of traces, by what became of them.",
        .kind = LMO_METRIC_COUNTER, LABEL("result", span_results));
#undef ADD
    lmo_metric_set(f->build, 0, 0, 1);
    return 0;
}

void engine_figures_done(struct lmo_engine *e)
{
    e->figures.registry = lmo_metrics_free(e->figures.registry);
}

struct lmo_metrics *lmo_engine_metrics(struct lmo_engine *e)
{
    return e->figures.registry;
}

/* ------------------------------------------------------------------ sampled where it happens */

static void sample_end(struct figures *f, const struct lmo_migration *m)
{
    const struct lmo_cutover *c = &m->cutover;
    unsigned outcome = m->phase == LMO_PHASE_COMPLETED ? 0 : m->phase == LMO_PHASE_ABORTED ? 1 : 2;
    lmo_metric_add(f->migrations, outcome, 0, 1);
    if (c->suspended_us && c->resumed_us > c->suspended_us) {
        lmo_metric_observe(f->blackout_seconds, 0, 0, (uint64_t)(c->resumed_us - c->suspended_us));
        lmo_metric_observe(f->convergence_iterations, 0, 0, m->progress.iteration);
    }
}

void engine_figures_step(struct entry *entry, unsigned phases_before, const struct lmo_effects *effects)
{
    struct figures *f = &entry->engine->figures;
    if (effects->entered_count == 0) {
        return;
    }
    const struct lmo_migration *m = engine_record(entry);
    for (unsigned i = phases_before ? phases_before - 1 : 0; i < m->phase_time_count;
         i++) { /* those that it has left */
        const struct lmo_phase_time *t = &m->phase_times[i];
        if (t->ended_ms) {
            int64_t ms = t->ended_ms - t->started_ms;
            lmo_metric_observe(f->phase_seconds, t->phase, 0, t->us ? t->us : ms > 0 ? (uint64_t)ms * 1000 : 0);
        }
    }
    for (unsigned i = 0; i < effects->entered_count; i++) {
        if (effects->entered[i] == LMO_PHASE_ATTENTION) {
            lmo_metric_add(f->attention, 0, 0, 1);
        }
    }
    if (effects->ended) {
        sample_end(f, m);
    }
}

/* ------------------------------------------------------------------ when somebody asks */

static void fill_gauges(struct lmo_engine *e)
{
    struct figures *f = &e->figures;
    uint64_t phases[LMO_PHASE_COUNT] = {0}, limits[LMO_LIMIT_COUNT] = {0}, up = 0, on = 0, behind = 0;
    for (const struct entry *entry = e->entries; entry; entry = entry->hh.next) {
        const struct lmo_hold *h = engine_admission_hold(entry);
        phases[entry->phase]++;
        limits[h ? h->limit : LMO_LIMIT_NONE] += entry->phase == LMO_PHASE_QUEUED;
    }
    for (unsigned i = 0; i < LMO_PHASE_COUNT; i++) {
        lmo_metric_set(f->open_migrations, i, 0, phases[i]);
    }
    for (unsigned i = 0; i < LMO_LIMIT_COUNT; i++) {
        lmo_metric_set(f->queue, i, 0, limits[i]);
    }
    for (const struct host *h = e->hosts; h; h = h->hh.next) {
        up += h->up;
    }
    for (const struct webhook *w = e->webhooks; w; w = w->next) {
        uint64_t cursor = w->count ? w->row.cursor : w->read;
        on += w->row.enabled;
        behind = w->row.enabled && e->feed.newest > cursor && e->feed.newest - cursor > behind ? e->feed.newest - cursor
                                                                                               : behind;
    }
    lmo_metric_set(f->hosts, 0, 0, up);
    lmo_metric_set(f->hosts, 1, 0, HASH_COUNT(e->hosts) - up);
    lmo_metric_set(f->webhooks, 0, 0, on);
    lmo_metric_set(f->webhooks, 1, 0, e->webhook_count - on);
    lmo_metric_set(f->webhook_behind, 0, 0, behind);
    lmo_metric_set(f->followers, 0, 0, e->feed.count);
    lmo_metric_set(f->events, 0, 0, e->feed.newest);
    lmo_metric_set(f->stalled, 0, 0, e->stalled);
}

static void metrics(struct request *r)
{
    LMO_AUTO_BUF struct lmo_buf text = LMO_BUF_INIT(TEXT_MAX);
    fill_gauges(r->engine);
    json_t *body =
        lmo_metrics_render(r->engine->figures.registry, &text) == 0 ? json_stringn(text.data, text.len) : NULL;
    if (!body) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory for the metrics");
        return;
    }
    engine_reply_ok(r->fn, r->arg, 200, body, "");
}

int lmo_engine_metrics_text(struct lmo_engine *e, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(metrics, fn, arg, "");
    r.harmless = true;
    return engine_post(e, &r);
}

static void put_check(json_t *checks, const char *name, bool ok, const char *detail, bool *ready)
{
    json_t *o = json_object();
    int r = lmo_json_put_bool(o, "ok", ok);
    r |= lmo_json_put(o, "detail", ok ? json_null() : json_string(detail));
    r |= lmo_json_put(checks, name, o);
    *ready = *ready && ok && r == 0;
}

static void ready(struct request *r)
{
    struct lmo_engine *e = r->engine;
    struct lmo_err err = {0};
    json_t *body = json_object(), *checks = json_object();
    bool good = true;
    uint64_t lag_ms = (lmo_now_ns() - r->version) / LMO_NS_PER_MS;
    int term = e->store->ops->check_term ? e->store->ops->check_term(e->store, &err) : 0;
    put_check(checks, "engine_started", e->workers != NULL && !e->stopping, "it is starting or stopping", &good);
    put_check(checks, "store_writable", !e->stalled, "commits fail; nothing is sent until they work", &good);
    put_check(checks, "term_ours", term == 0, err.text, &good);
    put_check(checks, "loop_lag", lag_ms < LAG_BAD_MS, "the engine's loop is late by a second or more", &good);
    int rc = lmo_json_put_bool(body, "ready", good);
    rc |= lmo_json_put_u64(body, "loop_lag_ms", lag_ms);
    rc |= lmo_json_put(body, "checks", checks);
    if (rc < 0) {
        json_decref(body);
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory for the answer");
        return;
    }
    engine_reply_ok(r->fn, r->arg, good ? 200 : 503, body, "");
}

int lmo_engine_ready(struct lmo_engine *e, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(ready, fn, arg, "");
    r.harmless = true;
    r.version = lmo_now_ns();
    return engine_post(e, &r);
}
