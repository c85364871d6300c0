/* stream.c - the event stream: long polls that end when there is something to tell (proto/stream.h).
 *
 * Durable events are read from the journal, so only what is on disk is ever told, and told at once. Progress is volatile:
 * the newest sample per job, told once, and all jobs' together: by itself it ends a poll no more often than each job is
 * sampled, however many jobs there are. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "proto/stream.h"

#include <stdlib.h>
#include <string.h>

#define PROGRESS_EVERY_MS LMO_SAMPLE_OPEN_MS

struct poll {
    struct lmo_waiter waiter; /* first */
    uint64_t after;
};

static void unlink_poll(struct lmo_worker *w, struct poll *p)
{
    for (struct lmo_waiter **at = &w->stream_waiters; *at; at = &(*at)->next) {
        if (*at == &p->waiter) {
            *at = p->waiter.next;
            w->stream_waiter_count--;
            return;
        }
    }
}

static json_t *progress(struct lmo_worker *w)
{
    json_t *array = json_array();
    for (struct lmo_outgoing *out = w->outgoing; array && out; out = out->next) {
        if (!out->sample_news) {
            continue;
        }
        struct lmo_worker_event e = {.kind = LMO_WEV_PROGRESS,
                                     .epoch = out->src.epoch,
                                     .at_us = out->sample_us,
                                     .progress = out->sample};
        memcpy(e.migration, out->src.migration, sizeof e.migration);
        memcpy(e.vm, out->src.vm, sizeof e.vm);
        (void)lmo_json_add(array, lmo_worker_event_to_json(&e));
        out->sample_news = false;
    }
    if (json_array_size(array) > 0) {
        w->progress_due_ns = lmo_now_ns() + PROGRESS_EVERY_MS * LMO_NS_PER_MS;
    }
    return array;
}

static bool has_progress(const struct lmo_worker *w)
{
    if (lmo_now_ns() < w->progress_due_ns) {
        return false;
    }
    for (const struct lmo_outgoing *out = w->outgoing; out; out = out->next) {
        if (out->sample_news) {
            return true;
        }
    }
    return false;
}

/* Takes the request. `next` is the number to ask after: the last event's of a full batch, else the last that was ever
 * handed out. It is never simply what was asked: a coordinator that has lost its place (or a journal that was lost and
 * could not be renumbered) would otherwise wait behind a number that no event will ever have. */
static void answer(struct lmo_worker *w, struct lmo_http_request *http, uint64_t after)
{
    json_t *root = json_object(), *events = json_array();
    uint64_t next = after;
    struct lmo_err err = {0};
    int r = lmo_journal_events(w->journal, after, LMO_STREAM_BATCH, events, &next, &err);
    if (json_array_size(events) < LMO_STREAM_BATCH) {
        next = lmo_journal_last_seq(w->journal);
    }
    if (r < 0) {
        json_decref(root);
        json_decref(events);
        lmo_http_reply_error(http, &err);
        return;
    }
    r = lmo_json_put_str(root, "boot", w->cfg.facts.boot);
    r |= lmo_json_put_u64(root, "next", next);
    r |= lmo_json_put(root, "events", events);
    r |= lmo_json_put(root, "progress", progress(w));
    if (r != 0) {
        json_decref(root);
        root = NULL;
    }
    lmo_http_reply_json(http, 200, root);
}

static void poll_due(void *arg)
{
    struct poll *p = arg;
    struct lmo_worker *w = p->waiter.w;
    unlink_poll(w, p);
    answer(w, p->waiter.http, p->after);
    free(p);
}

static void answer_first(struct lmo_worker *w)
{
    struct poll *p = (struct poll *)w->stream_waiters;
    lmo_loop_cancel(w->loop, &p->waiter.timer);
    poll_due(p);
}

void lmo_stream_get(struct lmo_worker *w, struct lmo_http_request *http, uint64_t after, uint64_t wait_ms)
{
    lmo_journal_acknowledge(w->journal, after);
    if (wait_ms == 0 || lmo_journal_last_seq(w->journal) != after || has_progress(w)) {
        answer(w, http, after);
        return;
    }
    if (w->stream_waiter_count >= LMO_STREAM_WAITERS_MAX) {
        answer_first(w); /* the oldest: its coordinator has most likely gone */
    }
    struct poll *p = calloc(1, sizeof *p);
    lmo_assert(p);
    p->waiter = (struct lmo_waiter){.w = w, .http = http};
    p->after = after;
    lmo_assert(lmo_loop_timer(w->loop, wait_ms, poll_due, p, &p->waiter.timer) == 0);
    struct lmo_waiter **last = &w->stream_waiters;
    while (*last) {
        last = &(*last)->next;
    }
    *last = &p->waiter;
    w->stream_waiter_count++;
}

void lmo_stream_news(void *arg)
{
    struct lmo_worker *w = arg;
    for (unsigned n = w->stream_waiter_count; n > 0; n--) {
        answer_first(w);
    }
}

static void progress_due(void *arg)
{
    struct lmo_worker *w = arg;
    w->progress_timer = 0;
    lmo_stream_news(w);
}

void lmo_stream_progress(struct lmo_worker *w)
{
    if (has_progress(w)) {
        lmo_stream_news(w);
    } else if (!w->progress_timer) {
        lmo_assert(lmo_loop_timer_at(w->loop, w->progress_due_ns, progress_due, w, &w->progress_timer) == 0);
    }
}

void lmo_stream_free(struct lmo_worker *w)
{
    lmo_loop_cancel(w->loop, &w->progress_timer);
    while (w->stream_waiters) {
        struct poll *p = (struct poll *)w->stream_waiters;
        lmo_loop_cancel(w->loop, &p->waiter.timer);
        unlink_poll(w, p);
        lmo_http_reply_fail(p->waiter.http, LMO_E_UNAVAILABLE, "this worker is stopping");
        free(p);
    }
}
