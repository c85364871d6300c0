/* job.c - the running pre-copy at the source: progress samples, the gate's guard, the dead-man, aborts.
 *
 * Sampling is the one poll there is, and nothing on the way to a cutover waits for it. The guard and the dead-man
 * only ever ask for an abort during pre-copy (the record's stage is `job`): from the pause on they keep their hands
 * off. An abort is a request; only the end of the job says what came of it. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ABORT_RETRY_MS 500
#define UNANSWERED_MS  15000 /* a sample without an answer still holds one of the driver's threads: no other at once */

void lmo_job_describe(const struct lmo_outgoing *out, struct lmo_hv_job *ret)
{
    *ret =
        (struct lmo_hv_job){.gate_bandwidth_bytes_per_s = LMO_GATE_BANDWIDTH, .gate_downtime_ms = LMO_GATE_DOWNTIME_MS};
    memcpy(ret->uuid, out->src.vm, sizeof ret->uuid);
    memcpy(ret->migration, out->src.migration, sizeof ret->migration);
    if (out->more) {
        memcpy(ret->peer_uri, out->more->setup.peer_uri, sizeof ret->peer_uri);
        memcpy(ret->migration_uri, out->more->setup.migration_uri, sizeof ret->migration_uri);
        ret->persist_destination = out->more->setup.persistent;
    }
}

/* ------------------------------------------------------------------ abort */

struct abort_call {
    struct lmo_call call;
    char migration[LMO_ID_MAX], vm[LMO_UUID_MAX];
    int code;
    struct lmo_err err;
};

static void abort_work(struct lmo_call *call)
{
    struct abort_call *c = (struct abort_call *)call;
    struct lmo_hypervisor *hv = call->w->drv.hypervisor;
    c->code = hv->ops->job_abort(hv, c->vm, &c->err);
}

static void abort_done(struct lmo_call *call, bool ran)
{
    struct abort_call *c = (struct abort_call *)call;
    if (ran) {
        lmo_log(c->code ? LMO_LOG_WARN : LMO_LOG_INFO, "abort asked", "migration=%s vm=%s code=%s reason=%s",
                c->migration, c->vm, lmo_err_name(c->code), c->err.text);
        struct lmo_outgoing *out = lmo_outgoing_find(call->w, c->migration);
        if (out) {
            out->abort_asking = false;
        }
    }
    free(c);
}

void lmo_job_abort(struct lmo_outgoing *out, const char *why)
{
    uint64_t now = lmo_now_ns();
    if (!out->src.job_running || (out->aborting && now < out->abort_retry_ns)) {
        return;
    }
    if (!out->aborting) {
        lmo_log(LMO_LOG_WARN, "job is to be aborted", "migration=%s vm=%s reason=%s", out->src.migration, out->src.vm,
                why);
    }
    out->aborting = true;
    if (out->abort_asking) {
        return;
    }
    out->abort_asking = true;
    out->abort_retry_ns = now + ABORT_RETRY_MS * LMO_NS_PER_MS;
    struct abort_call *c = calloc(1, sizeof *c);
    lmo_assert(c);
    c->call = (struct lmo_call){.work = abort_work, .done = abort_done, .fast = true};
    memcpy(c->migration, out->src.migration, sizeof c->migration);
    memcpy(c->vm, out->src.vm, sizeof c->vm);
    lmo_call_lane(&c->call, "job", c->vm);
    lmo_call_submit(out->w, &c->call);
}

/* Reports, once, why this worker aborts by itself. The report is durable like every other, and the abort does not wait
 * for it: it only ever leaves the guest where it is. */
static void abort_by_ourselves(struct lmo_outgoing *out, enum lmo_worker_event_kind kind, const char *why)
{
    if (!out->aborting) {
        struct lmo_worker_event e = {.kind = kind, .epoch = out->src.epoch, .at_us = (int64_t)lmo_realtime_us()};
        memcpy(e.migration, out->src.migration, sizeof e.migration);
        memcpy(e.vm, out->src.vm, sizeof e.vm);
        snprintf(e.text, sizeof e.text, "%s", why);
        struct lmo_batch *b = lmo_batch_new();
        lmo_batch_event(b, &e);
        lmo_journal_submit(out->w->journal, b, false, NULL, NULL);
    }
    lmo_job_abort(out, why);
}

/* ------------------------------------------------------------------ the gate's guard */

static bool gate_shut(const struct lmo_outgoing *out)
{
    return out->src.stage == LMO_SRC_JOB && out->src.job_running && !out->src.gate_open;
}

/* The guard needs to see closely; what follows an open gate is for people and for convergence control. */
static uint64_t sample_every_ms(const struct lmo_outgoing *out)
{
    return gate_shut(out) ? LMO_SAMPLE_EVERY_MS : LMO_SAMPLE_OPEN_MS;
}

void lmo_job_iteration(struct lmo_outgoing *out, uint64_t iteration)
{
    if (iteration > 1 && gate_shut(out)) {
        abort_by_ourselves(out, LMO_WEV_GATE_ABORTED, "the first pass over the memory ended with the gate shut");
    }
}

/* How much may be gone before the sample after the next one: at the gate's bandwidth, or as fast as it fell lately
 * (pages that are zero cost next to no bandwidth). */
static void guard(struct lmo_outgoing *out)
{
    const struct lmo_progress *p = &out->sample;
    if (!gate_shut(out) || p->total_bytes == 0) {
        return;
    }
    if (p->iteration > 1) {
        lmo_job_iteration(out, p->iteration);
        return;
    }
    uint64_t per_s = out->progress_drop_per_s > LMO_GATE_BANDWIDTH ? out->progress_drop_per_s : LMO_GATE_BANDWIDTH;
    uint64_t reach = per_s / 1000 * (2 * LMO_SAMPLE_EVERY_MS);
    if (p->remaining_bytes <= reach) {
        char why[LMO_TEXT_MAX];
        snprintf(why, sizeof why,
                 "%llu bytes remain, up to %llu may go before it can be looked at again, and the gate is shut",
                 (unsigned long long)p->remaining_bytes, (unsigned long long)reach);
        abort_by_ourselves(out, LMO_WEV_GATE_ABORTED, why);
    }
}

/* ------------------------------------------------------------------ samples */

struct sample_call {
    struct lmo_call call;
    char migration[LMO_ID_MAX], vm[LMO_UUID_MAX];
    int code;
    struct lmo_progress progress;
    struct lmo_err err;
};

static void sample_work(struct lmo_call *call)
{
    struct sample_call *c = (struct sample_call *)call;
    struct lmo_hypervisor *hv = call->w->drv.hypervisor;
    c->code = hv->ops->job_progress(hv, c->vm, &c->progress, &c->err);
}

static void sample_done(struct lmo_call *call, bool ran)
{
    struct sample_call *c = (struct sample_call *)call;
    struct lmo_worker *w = call->w;
    struct lmo_outgoing *out = ran ? lmo_outgoing_find(w, c->migration) : NULL;
    if (!out) {
        free(c);
        return;
    }
    out->sampling = false;
    if (c->code == 0) {
        uint64_t now = lmo_now_ns(), before = out->sample.remaining_bytes;
        uint64_t ms = out->has_sample ? (now - out->sampled_ns) / LMO_NS_PER_MS : 0;
        if (ms > 0) {
            out->progress_drop_per_s =
                before > c->progress.remaining_bytes ? (before - c->progress.remaining_bytes) * 1000 / ms : 0;
        }
        out->sample = c->progress;
        out->sampled_ns = now;
        out->sample_us = (int64_t)lmo_realtime_us();
        out->has_sample = out->sample_news = true;
        guard(out);
        lmo_stream_progress(w);
    } else {
        if (c->code == LMO_E_TIMEOUT) {
            out->sample_after_ns = lmo_now_ns() + UNANSWERED_MS * LMO_NS_PER_MS;
        }
        lmo_log(LMO_LOG_DEBUG, "no progress to be had", "migration=%s code=%s reason=%s", c->migration,
                lmo_err_name(c->code), c->err.text);
    }
    free(c);
}

/* ------------------------------------------------------------------ the watch */

static void dead_man(struct lmo_outgoing *out)
{
    uint32_t limit = out->more ? out->more->setup.deadman_ms : 0;
    uint64_t silent = (lmo_now_ns() - out->w->coordinator_ns) / LMO_NS_PER_MS;
    if (limit == 0 || silent < limit || out->src.stage != LMO_SRC_JOB) {
        return;
    }
    char why[LMO_TEXT_MAX];
    snprintf(why, sizeof why, "no sign of life from the coordinator for %llu ms, %u are allowed",
             (unsigned long long)silent, limit);
    abort_by_ourselves(out, LMO_WEV_DEADMAN, why);
}

static void tick(void *arg)
{
    struct lmo_outgoing *out = arg;
    out->watch_timer = 0;
    if (out->src.stage != LMO_SRC_JOB || !out->src.job_running) {
        return;
    }
    dead_man(out);
    if (!out->sampling && lmo_now_ns() >= out->sample_after_ns) {
        struct sample_call *c = calloc(1, sizeof *c);
        lmo_assert(c);
        c->call = (struct lmo_call){.work = sample_work, .done = sample_done, .fast = true};
        memcpy(c->migration, out->src.migration, sizeof c->migration);
        memcpy(c->vm, out->src.vm, sizeof c->vm);
        out->sampling = true;
        lmo_call_submit(out->w, &c->call);
    }
    lmo_assert(lmo_loop_timer(out->w->loop, sample_every_ms(out), tick, out, &out->watch_timer) == 0);
}

static void keep_warm(void *arg)
{
    struct lmo_outgoing *out = arg;
    out->warm_timer = 0;
    const struct lmo_record *m = out->more;
    if (m && m->setup.destination_url[0]) {
        struct lmo_peer peer = {.connections = 1};
        memcpy(peer.name, m->setup.destination, sizeof peer.name);
        memcpy(peer.url, m->setup.destination_url, sizeof peer.url);
        lmo_peer_ping(out->w, &peer, NULL, NULL, NULL);
    }
    lmo_assert(lmo_loop_timer(out->w->loop, LMO_WARM_EVERY_MS, keep_warm, out, &out->warm_timer) == 0);
}

void lmo_job_watch(struct lmo_outgoing *out)
{
    struct lmo_loop *loop = out->w->loop;
    if (!out->watch_timer) {
        lmo_assert(lmo_loop_timer(loop, sample_every_ms(out), tick, out, &out->watch_timer) == 0);
    }
    if (!out->warm_timer) {
        lmo_assert(lmo_loop_timer(loop, LMO_WARM_EVERY_MS, keep_warm, out, &out->warm_timer) == 0);
    }
}

void lmo_job_unwatch(struct lmo_outgoing *out)
{
    lmo_loop_cancel(out->w->loop, &out->watch_timer);
    lmo_loop_cancel(out->w->loop, &out->warm_timer);
}
