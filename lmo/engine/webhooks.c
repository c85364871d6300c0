/* webhooks.c - carries the event log to webhooks, at least once each.
 *
 * A webhook reads the log on by number and has at most WINDOW deliveries waiting or under way. Its cursor is what lies before
 * the oldest of them: stored now and then, so that after a restart some events are sent again (under the same webhook-id) and
 * none is left out. A delivery that fails is tried again after a time that doubles, with jitter, up to a cap; after its last
 * try it becomes a dead letter, stored together with the cursor that passes it. While a webhook is failing it gets one
 * delivery at a time; after several failures in a row all of them wait. One that failed for a long time, or that says 410,
 * is disabled, and the log tells. */
#include "engine/webhooks.h"

#include "base/clock.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"
#include "pki/webhook.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define WINDOW        16
#define AHEAD_MAX     4096 /* events beyond the cursor: so many are sent again after a restart at most */
#define PAGE          64
#define SAVE_MS       1000
#define GATE_FAILURES 3 /* so many in a row: it is the receiver, not the event */

struct delivery {
    struct delivery *prev, *next; /* by number */
    struct webhook *webhook;
    uint64_t seq;
    int64_t at_ms;
    char type[LMO_EVENT_TYPE_MAX];
    char *body; /* owned */
    unsigned attempts;
    uint64_t due_ns, handle; /* handle: under way */
    bool letter;             /* a dead letter that somebody wants to be sent once more */
    char last_error[LMO_TEXT_MAX];
};

static void work(struct webhook *w);

/* ------------------------------------------------------------------ places and times */

static uint64_t settled(const struct webhook *w)
{
    uint64_t up_to = w->read;
    for (const struct delivery *d = w->deliveries; d; d = d->next) {
        up_to = !d->letter && d->seq - 1 < up_to ? d->seq - 1 : up_to;
    }
    return up_to;
}

static void save(struct webhook *w)
{
    struct lmo_engine *e = w->engine;
    struct lmo_err err = {0};
    w->row.cursor = settled(w);
    if (!w->dirty || e->stalled) {
        return;
    }
    if (e->store->events->webhook_progress(e->store, &w->row, &err) < 0) {
        lmo_log(LMO_LOG_ERROR, "a webhook's place cannot be stored; some events may be sent again", "webhook=%s why=%s",
                w->row.id, err.text);
        return;
    }
    w->dirty = false;
}

static void on_save(void *arg)
{
    struct webhook *w = arg;
    w->save_timer = 0;
    save(w);
    if (w->dirty && lmo_loop_timer(w->engine->loop, SAVE_MS, on_save, w, &w->save_timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer for a webhook's place", "webhook=%s", w->row.id);
    }
}

static void changed(struct webhook *w)
{
    w->dirty = true;
    if (!w->save_timer && lmo_loop_timer(w->engine->loop, SAVE_MS, on_save, w, &w->save_timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer for a webhook's place", "webhook=%s", w->row.id);
    }
}

/* Between half and the whole of base * 2^(n-1), at most the cap. */
static uint64_t back_off_ms(const struct lmo_webhooks_config *c, uint64_t n)
{
    uint64_t ms = c->retry_min_ms, random;
    for (; n > 1 && ms < c->retry_max_ms; n--) {
        ms *= 2;
    }
    ms = ms > c->retry_max_ms ? c->retry_max_ms : ms;
    lmo_random(&random, sizeof random);
    return ms / 2 + random % (ms / 2 + 1);
}

static void on_work(void *arg)
{
    struct webhook *w = arg;
    w->timer = 0;
    work(w);
}

static void work_at(struct webhook *w, uint64_t due_ns)
{
    if (w->timer && w->timer_ns <= due_ns) {
        return;
    }
    lmo_loop_cancel(w->engine->loop, &w->timer);
    w->timer_ns = due_ns;
    if (lmo_loop_timer_at(w->engine->loop, due_ns, on_work, w, &w->timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer for a webhook", "webhook=%s", w->row.id);
    }
}

/* ------------------------------------------------------------------ ends of deliveries */

static void drop(struct webhook *w, struct delivery *d)
{
    DL_DELETE(w->deliveries, d);
    w->count--;
    if (d->handle) {
        w->under_way--;
        w->engine->outbound->ops->cancel(w->engine->outbound, &d->handle);
    }
    free(d->body);
    free(d);
}

static void drop_all(struct webhook *w)
{
    while (w->deliveries) {
        drop(w, w->deliveries);
    }
}

static void disable(struct webhook *w, const char *why)
{
    struct lmo_engine *e = w->engine;
    json_t *data = json_object();
    struct lmo_err err = {0};
    w->row.cursor = settled(w);
    drop_all(w);
    w->row.enabled = false;
    LMO_COPY(w->row.why_disabled, why);
    lmo_log(LMO_LOG_WARN, "webhook disabled", "webhook=%s why=%s", w->row.id, why);
    int r = lmo_json_put_str(data, "webhook", w->row.id);
    r |= lmo_json_put_str(data, "url", w->row.url);
    r |= lmo_json_put_str(data, "why", why);
    bool told = engine_tell(e, "webhook.disabled", "", r == 0 ? data : NULL);
    if (e->store->events->webhook_progress(e->store, &w->row, &err) < 0) {
        engine_untold(e, told);
        lmo_log(LMO_LOG_ERROR, "that a webhook is disabled cannot be stored", "webhook=%s why=%s", w->row.id, err.text);
        changed(w);
        return;
    }
    engine_told(e);
}

/* 0: stored, and the cursor goes past it. */
static int bury(struct webhook *w, struct delivery *d)
{
    struct lmo_engine *e = w->engine;
    static struct lmo_dead_letter letter; /* the loop thread's scratch */
    struct lmo_err err = {0};
    unsigned dropped = 0;
    letter = (struct lmo_dead_letter){.seq = d->seq, .at_ms = d->at_ms, .attempts = d->attempts};
    LMO_COPY(letter.webhook, w->row.id);
    LMO_COPY(letter.type, d->type);
    LMO_COPY(letter.body, d->body);
    LMO_COPY(letter.last_error, d->last_error);
    int r = e->store->events->dead_put(e->store, &letter, &w->row, &dropped, &err);
    if (r < 0) {
        lmo_log(LMO_LOG_ERROR, "a dead letter cannot be stored; it is tried again",
                "webhook=%s event=%" PRIu64 " why=%s", w->row.id, d->seq, err.text);
        return r;
    }
    w->row.dropped += dropped;
    lmo_log(LMO_LOG_WARN, "event not delivered: a dead letter now", "webhook=%s event=%" PRIu64 " attempts=%u why=%s",
            w->row.id, d->seq, d->attempts, d->last_error);
    return 0;
}

static void succeeded(struct webhook *w, struct delivery *d)
{
    struct lmo_engine *e = w->engine;
    struct lmo_err err = {0};
    if (d->letter && e->store->events->dead_delete(e->store, w->row.id, d->seq, &err) < 0) {
        lmo_log(LMO_LOG_ERROR, "a dead letter that was delivered stays", "webhook=%s why=%s", w->row.id, err.text);
    }
    w->row.delivered++;
    w->row.failures = 0;
    w->row.failing_since_ms = 0;
    w->row.last_error[0] = '\0';
    w->gate_ns = 0;
    drop(w, d);
    changed(w);
}

static void failed(struct webhook *w, struct delivery *d, const char *why)
{
    struct lmo_engine *e = w->engine;
    const struct lmo_webhooks_config *c = &e->webhooks_config;
    int64_t now_ms = engine_now_ms(e);
    uint64_t now = lmo_now_ns();
    LMO_COPY(d->last_error, why);
    LMO_COPY(w->row.last_error, why);
    w->row.failures++;
    w->row.failing_since_ms = w->row.failing_since_ms ? w->row.failing_since_ms : now_ms;
    d->due_ns = now + back_off_ms(c, d->attempts) * LMO_NS_PER_MS;
    w->gate_ns = w->row.failures >= GATE_FAILURES ? now + back_off_ms(c, w->row.failures) * LMO_NS_PER_MS : 0;
    changed(w);
    if (d->letter || d->attempts >= c->attempts) {
        if (bury(w, d) == 0) { /* of a letter: its newest failure, and that nobody wants it now */
            drop(w, d);
        }
    }
    if (now_ms - w->row.failing_since_ms >= (int64_t)c->disable_after_ms && w->row.failures >= c->disable_failures) {
        char text[LMO_TEXT_MAX];
        (void)snprintf(text, sizeof text, "no delivery succeeded for %" PRId64 " s, %" PRIu64 " attempts; last: %.150s",
                       (now_ms - w->row.failing_since_ms) / 1000, w->row.failures, why);
        disable(w, text);
    }
}

static void on_answer(void *arg, int code, unsigned status, const char *body, const char *text)
{
    struct delivery *d = arg;
    struct webhook *w = d->webhook;
    char why[LMO_TEXT_MAX];
    (void)body;
    d->handle = 0;
    w->under_way--;
    lmo_metric_add(w->engine->figures.webhook_attempts, code == 0 && status >= 200 && status < 300 ? 0 : 1, 0, 1);
    if (code == 0 && status >= 200 && status < 300) {
        succeeded(w, d);
    } else if (code == 0 && status == 410) {
        disable(w, "it answered 410: it wants no more events");
    } else {
        if (code == 0) {
            (void)snprintf(why, sizeof why, "it answered %u", status);
        } else {
            (void)snprintf(why, sizeof why, "%.200s", text);
        }
        failed(w, d, why);
    }
    work(w);
}

/* ------------------------------------------------------------------ sending */

int engine_post_signed(struct lmo_engine *e, const struct signed_call *c, lmo_outbound_done_fn *done, void *arg,
                       uint64_t *ret_handle, struct lmo_err *err)
{
    char signatures[LMO_WEBHOOK_SIGNATURES_MAX], id[96], stamp[48], signature[LMO_WEBHOOK_SIGNATURES_MAX + 24];
    int64_t now_s = (int64_t)(lmo_realtime_us() / 1000000);
    const char *old = c->old_until_ms > engine_now_ms(e) ? c->old_secret : "";
    int r = lmo_webhook_sign(c->secret, old, c->id, now_s, c->body, strlen(c->body), signatures, err);
    if (r < 0) {
        return r;
    }
    (void)snprintf(id, sizeof id, "webhook-id: %s", c->id);
    (void)snprintf(stamp, sizeof stamp, "webhook-timestamp: %" PRId64, now_s);
    (void)snprintf(signature, sizeof signature, "webhook-signature: %s", signatures);
    const char *const headers[] = {id, stamp, signature, c->traceparent && c->traceparent[0] ? c->traceparent : NULL,
                                   NULL};
    const struct lmo_outbound_request request = {.url = c->url,
                                                 .headers = headers,
                                                 .body = c->body,
                                                 .len = strlen(c->body),
                                                 .timeout_ms = e->webhooks_config.timeout_ms};
    return e->outbound->ops->post(e->outbound, &request, done, arg, ret_handle, err);
}

static void send(struct webhook *w, struct delivery *d)
{
    struct lmo_err err = {0};
    char id[40];
    (void)snprintf(id, sizeof id, "evt_%" PRIu64, d->seq);
    const struct signed_call call = {.url = w->row.url,
                                     .secret = w->row.secret,
                                     .old_secret = w->row.old_secret,
                                     .old_until_ms = w->row.old_until_ms,
                                     .id = id,
                                     .body = d->body};
    d->attempts++;
    if (engine_post_signed(w->engine, &call, on_answer, d, &d->handle, &err) == 0) {
        w->under_way++;
    } else {
        d->handle = 0;
        failed(w, d, err.text);
    }
}

/* Sends what is due and may go; true if a call failed at once, which changes what may. */
static bool send_due(struct webhook *w, uint64_t now, uint64_t *next)
{
    for (struct delivery *d = w->deliveries; d; d = d->next) {
        unsigned most = w->row.failures > 0 ? 1 : WINDOW;
        if (d->handle || w->under_way >= most) {
            continue;
        }
        uint64_t due = d->due_ns > w->gate_ns ? d->due_ns : w->gate_ns;
        if (due > now) {
            *next = due < *next ? due : *next;
            continue;
        }
        uint64_t failures = w->row.failures;
        send(w, d);
        if (w->row.failures != failures || !w->row.enabled) {
            return true;
        }
    }
    return false;
}

/* ------------------------------------------------------------------ reading on */

static struct delivery *add(struct webhook *w, uint64_t seq, const char *body, size_t len)
{
    struct delivery *d = calloc(1, sizeof *d);
    char *copy = d ? malloc(len + 1) : NULL;
    if (!copy) {
        free(d);
        return NULL;
    }
    memcpy(copy, body, len + 1);
    d->webhook = w;
    d->seq = seq;
    d->body = copy;
    DL_APPEND(w->deliveries, d);
    w->count++;
    return d;
}

static int read_one(void *arg, const struct lmo_event_row *row)
{
    struct webhook *w = arg;
    static char body[LMO_EVENT_BODY_MAX]; /* the loop thread's scratch */
    struct lmo_event_filter f = {0};
    LMO_COPY(f.types, w->row.types);
    LMO_COPY(f.vm, w->row.vm);
    LMO_COPY(f.host, w->row.host);
    if (lmo_event_matches(&f, row)) {
        size_t len = lmo_event_body(row, body);
        struct delivery *d = w->count < WINDOW ? add(w, row->seq, body, len) : NULL;
        if (!d) {
            w->held_up = true;
            return 1; /* full, or no memory: it is read again */
        }
        d->at_ms = row->at_ms;
        LMO_COPY(d->type, row->type);
    } else if (!w->deliveries) {
        w->dirty = true; /* its place moves on: stored with the next delivery, or when the coordinator stops */
    }
    w->read = row->seq;
    return 0;
}

static int read_letter(void *arg, const struct lmo_dead_letter *l)
{
    struct webhook *w = arg;
    for (const struct delivery *d = w->deliveries; d; d = d->next) {
        if (d->letter && d->seq == l->seq) {
            return 0;
        }
    }
    struct delivery *d = w->count < WINDOW ? add(w, l->seq, l->body, strlen(l->body)) : NULL;
    if (!d) {
        return 1;
    }
    d->letter = true;
    d->at_ms = l->at_ms;
    d->attempts = l->attempts;
    LMO_COPY(d->type, l->type);
    return 0;
}

/* The log was trimmed beyond its place: those events are gone, which is counted and told, never passed over in silence. */
static void skip_gap(struct webhook *w, struct lmo_err *err)
{
    struct lmo_engine *e = w->engine;
    struct lmo_event_range range;
    if (e->store->events->range(e->store, &range, err) < 0 || w->read + 1 >= range.oldest) {
        return;
    }
    uint64_t gone = range.oldest - 1 - w->read;
    gone = gone < LMO_EVENT_LEAP ? gone : 1; /* over a restore's leap: most of those numbers were never given */
    lmo_log(LMO_LOG_WARN, "events were dropped for their age before a webhook got them", "webhook=%s events=%" PRIu64,
            w->row.id, gone);
    json_t *data = json_object();
    int r = lmo_json_put_str(data, "webhook", w->row.id);
    r |= lmo_json_put_u64(data, "after", w->read);
    r |= lmo_json_put_u64(data, "next", range.oldest);
    w->row.dropped += gone;
    w->read = range.oldest - 1;
    if (engine_tell(e, "webhook.gap", "", r == 0 ? data : NULL)) {
        engine_tell_later(e);
    }
    changed(w);
}

static void read_on(struct webhook *w)
{
    struct lmo_engine *e = w->engine;
    struct lmo_err err = {0};
    int r = 0;
    if (w->letters && w->count < WINDOW) {
        unsigned before = w->count;
        r = e->store->events->dead_list(e->store, w->row.id, true, 0, WINDOW, read_letter, w, &err);
        w->letters = w->count > before || r < 0;
    }
    skip_gap(w, &err);
    for (uint64_t before = UINT64_MAX; r == 0 && w->read != before && w->count < WINDOW && w->read < e->feed.newest &&
                                       w->read - settled(w) < AHEAD_MAX;) {
        before = w->read;
        w->held_up = false;
        r = e->store->events->list(e->store, w->read, PAGE, read_one, w, &err);
        if (r == 0 && w->read == before && !w->held_up) {
            w->read = e->feed.newest; /* numbers that were never given: a restore leaps */
        }
    }
    if (r < 0) {
        lmo_log(LMO_LOG_ERROR, "events cannot be read for a webhook", "webhook=%s why=%s", w->row.id, err.text);
        work_at(w, lmo_now_ns() + SAVE_MS * LMO_NS_PER_MS);
    }
}

static void work(struct webhook *w)
{
    uint64_t next = UINT64_MAX;
    if (!w->row.enabled || w->engine->stopping || !w->engine->outbound || engine_observing(w->engine)) {
        return;
    }
    read_on(w);
    while (w->row.enabled && send_due(w, lmo_now_ns(), &next)) {
        next = UINT64_MAX;
    }
    if (next != UINT64_MAX && w->row.enabled) {
        work_at(w, next);
    }
}

/* ------------------------------------------------------------------ coming and going */

void engine_webhooks_news(struct lmo_engine *e)
{
    for (struct webhook *w = e->webhooks; w; w = w->next) {
        if (w->row.enabled && w->count < WINDOW) {
            work_at(w, lmo_now_ns()); /* in the next turn: not inside a commit's end, and not inside itself */
        }
    }
}

struct webhook *engine_webhook(struct lmo_engine *e, const char *id)
{
    struct webhook *w = e->webhooks;
    while (w && strcmp(w->row.id, id) != 0) {
        w = w->next;
    }
    return w;
}

struct webhook *engine_webhook_add(struct lmo_engine *e, const struct lmo_webhook_row *row)
{
    struct webhook *w = calloc(1, sizeof *w);
    if (w) {
        w->engine = e;
        w->row = *row;
        w->read = row->cursor;
        w->letters = true;
        LL_APPEND(e->webhooks, w);
        e->webhook_count++;
        work_at(w, lmo_now_ns());
    }
    return w;
}

void engine_webhook_remove(struct lmo_engine *e, struct webhook *w)
{
    drop_all(w);
    lmo_loop_cancel(e->loop, &w->timer);
    lmo_loop_cancel(e->loop, &w->save_timer);
    LL_DELETE(e->webhooks, w);
    e->webhook_count--;
    free(w);
}

void engine_webhook_restart(struct webhook *w)
{
    w->row.cursor = settled(w);
    drop_all(w);
    w->read = w->row.cursor;
    w->gate_ns = 0;
    w->letters = true;
    work_at(w, lmo_now_ns());
}

static int load(void *arg, const struct lmo_webhook_row *row)
{
    return engine_webhook_add(arg, row) ? 0 : LMO_E_NO_MEMORY;
}

void engine_webhooks_init(struct lmo_engine *e, const struct lmo_webhooks_config *config)
{
    struct lmo_webhooks_config *c = &e->webhooks_config;
    *c = config ? *config : (struct lmo_webhooks_config){0};
#define DEFAULT(member, value) c->member = c->member ? c->member : (value)
    DEFAULT(retry_min_ms, 1000);
    DEFAULT(retry_max_ms, 3600000);
    DEFAULT(attempts, 12);
    DEFAULT(timeout_ms, 20000);
    DEFAULT(disable_after_ms, 86400000);
    DEFAULT(disable_failures, 20);
#undef DEFAULT
}

int engine_webhooks_start(struct lmo_engine *e, struct lmo_err *err)
{
    return e->store->events ? e->store->events->webhook_list(e->store, load, e, err) : 0;
}

void engine_webhooks_done(struct lmo_engine *e)
{
    while (e->webhooks) {
        save(e->webhooks);
        engine_webhook_remove(e, e->webhooks);
    }
}
