/* stream.c - per host: GET /v1/observe/host, then one long poll on /v1/events after the other.
 *
 *   WAITING --timer--> OBSERVING --facts--> POLLING --batch--> HELD --acknowledge--> POLLING
 *      ^                   |failed             |failed |new boot: OBSERVING (once acknowledged)
 *      +-------------------+-------------------+
 *
 * The engine hears of a host's state when it changes, and again with new facts when the worker was restarted. */
#include "rpc/internal.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "proto/stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define OBSERVE_TIMEOUT_MS 5000
#define POLL_WAIT_MS       25000
#define POLL_MARGIN_MS     5000 /* beyond the wait: then the worker or the way to it is gone */
#define PROGRESS_MAX       1024 /* jobs of one host at the same time */
#define EMPTY_PAUSE_MS     100  /* a worker that answers at once with nothing is not asked in a tight loop */
#define BACK_OFF_MIN_MS    100
#define BACK_OFF_MAX_MS    5000

static void observe(void *arg);
static void poll_events(struct worker_host *h);

/* ------------------------------------------------------------------ failures */

/* Half of the step is fixed, half random: hosts that went away together do not come back together. */
static uint64_t back_off_ms(unsigned failures)
{
    uint32_t random;
    uint64_t step = failures > 6 ? BACK_OFF_MAX_MS : (uint64_t)BACK_OFF_MIN_MS << failures;
    step = step > BACK_OFF_MAX_MS ? BACK_OFF_MAX_MS : step;
    lmo_random(&random, sizeof(random));
    return step / 2 + random % (step / 2 + 1);
}

/* Last act of its callers: the engine's callback may remove the host. */
static void failed(struct worker_host *h, const char *why)
{
    struct workers *w = h->workers;
    bool tell = h->up || !h->told;
    char name[LMO_NAME_MAX], reason[LMO_TEXT_MAX];
    copy_text(name, sizeof(name), h->name);
    copy_text(reason, sizeof(reason), why);
    h->state = STREAM_WAITING;
    h->up = false;
    h->told = true;
    if (lmo_loop_timer(w->loop, back_off_ms(h->failures), observe, h, &h->timer) < 0) {
        lmo_unreachable("no timer for a worker's back-off");
    }
    h->failures++;
    if (tell) {
        w->cb.host_state(w->cb.arg, name, NULL, reason);
    }
}

/* What a request of ours that failed says. */
static void failed_response(struct worker_host *h, const struct lmo_http_response *r)
{
    char text[LMO_TEXT_MAX];
    if (r->result < 0) {
        copy_text(text, sizeof(text), r->err ? r->err->text : lmo_err_name(r->result));
    } else if (answer_error(r, text) == LMO_E_STALE_TERM) {
        workers_superseded(h->workers, h->name, text);
    }
    failed(h, text);
}

/* ------------------------------------------------------------------ observation */

static int check_protocol(const struct lmo_host_facts *facts, struct lmo_err *err)
{
    uint32_t max = facts->protocol_max ? facts->protocol_max : 1, min = facts->protocol_min ? facts->protocol_min : 1;
    return min <= LMO_PROTOCOL_MAX && max >= LMO_PROTOCOL_MIN
               ? 0
               : lmo_fail(err, LMO_E_UNSUPPORTED,
                          "its worker (%s) speaks protocol %u to %u, this coordinator (%s) %d to %d: bring the older one up to date",
                          facts->version, min, max, LMO_VERSION, LMO_PROTOCOL_MIN, LMO_PROTOCOL_MAX);
}

static void on_observed(void *arg, const struct lmo_http_response *r)
{
    struct worker_host *h = arg;
    struct workers *w = h->workers;
    struct lmo_err err = {0};
    LMO_AUTO_JSON json_t *root = NULL;
    struct lmo_host_facts facts;
    h->request = 0;
    if (r->result < 0 || r->status != 200) {
        failed_response(h, r);
        return;
    }
    int e = lmo_json_parse_object(r->body, r->body_len, LMO_OBSERVE_BODY_MAX, &root, &err);
    if (e == 0) {
        e = lmo_host_facts_from_json(root, &facts, &err);
    }
    if (e == 0 && strcmp(facts.host, h->name) != 0) {
        e = lmo_fail(&err, LMO_E_CONFLICT, "the worker there is %s's", facts.host);
    }
    if (e == 0) {
        e = check_protocol(&facts, &err);
    }
    if (e < 0) {
        failed(h, err.text);
        return;
    }
    char name[LMO_NAME_MAX];
    uint64_t serial = h->serial;
    copy_text(name, sizeof(name), h->name);
    copy_text(h->boot, sizeof(h->boot), facts.boot);
    h->failures = 0;
    h->up = h->told = true;
    h->state = STREAM_POLLING; /* as if it were under way: an acknowledgement inside the callback starts nothing */
    w->cb.host_state(w->cb.arg, name, &facts, "");
    h = workers_find_serial(w, name, serial);
    if (h) {
        poll_events(h);
    }
}

/* A request that could not even be started: told in the next turn, because the engine may be the caller. */
static void on_not_started(void *arg)
{
    struct worker_host *h = arg;
    h->timer = 0;
    failed(h, h->not_started);
}

static void not_started(struct worker_host *h, const struct lmo_err *err)
{
    h->state = STREAM_WAITING;
    copy_text(h->not_started, sizeof(h->not_started), err->text);
    if (lmo_loop_timer(h->workers->loop, 0, on_not_started, h, &h->timer) < 0) {
        lmo_unreachable("no timer for a worker's failed request");
    }
}

static void observe(void *arg)
{
    struct worker_host *h = arg;
    char url[LMO_URL_MAX + 32];
    struct lmo_err err = {0};
    h->timer = 0;
    h->state = STREAM_OBSERVING;
    snprintf(url, sizeof(url), "%s/v1/observe/host", h->url);
    const struct lmo_http_request_spec spec = {.method = "GET",
                                               .url = url,
                                               .headers = h->workers->headers,
                                               .timeout_ms = OBSERVE_TIMEOUT_MS,
                                               .response_max = 64U << 10,
                                               .peer_role = LMO_ROLE_WORKER,
                                               .peer_name = h->name};
    if (lmo_http_request_async(h->workers->client, &spec, on_observed, h, &h->request, &err) < 0) {
        not_started(h, &err);
    }
}

/* ------------------------------------------------------------------ events */

struct batch {
    char boot[LMO_ID_MAX];
    uint64_t next;
    unsigned count;
    struct lmo_worker_event *events; /* owned: durable ones in order, then progress */
};

static int decode_events(const json_t *array, const char *field, uint64_t after, struct batch *b, struct lmo_err *err)
{
    bool durable = strcmp(field, "events") == 0;
    for (size_t i = 0; array && i < json_array_size(array); i++) {
        struct lmo_worker_event *e = &b->events[b->count];
        if (lmo_worker_event_from_json(json_array_get(array, i), e, err) < 0) {
            return lmo_err_prefix(err, "%s[%zu]", field, i);
        }
        if (durable != (e->seq != 0) || durable != (e->kind != LMO_WEV_PROGRESS) || (durable && e->seq <= after)) {
            return lmo_fail(err, LMO_E_INVALID, "%s[%zu]: number %" PRIu64 " after %" PRIu64 " is out of order", field,
                            i, e->seq, after);
        }
        after = e->seq;
        b->count++;
    }
    if (durable && after > b->next) {
        return lmo_fail(err, LMO_E_INVALID, "next: %" PRIu64 " is below the last event's number", b->next);
    }
    return 0;
}

/* On success the caller frees b->events. */
static int decode_batch(const struct lmo_http_response *r, uint64_t after, struct batch *b, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *root = NULL;
    const json_t *events = NULL, *progress = NULL;
    int e = lmo_json_parse_object(r->body, r->body_len, LMO_STREAM_BODY_MAX, &root, err);
    if (e == 0) {
        e = lmo_json_str(root, "boot", b->boot, sizeof(b->boot), true, err);
    }
    if (e == 0) {
        e = lmo_json_u64(root, "next", 0, INT64_MAX, &b->next, true, err);
    }
    if (e == 0) {
        e = lmo_json_array(root, "events", LMO_STREAM_BATCH, &events, true, err);
    }
    if (e == 0) {
        e = lmo_json_array(root, "progress", PROGRESS_MAX, &progress, false, err);
    }
    if (e < 0) {
        return e;
    }
    if (b->next < after) {
        return lmo_fail(err, LMO_E_CORRUPT,
                        "its event stream went back from %" PRIu64 " to %" PRIu64
                        ": its journal was lost; remove the host and add it again once its guests were looked at",
                        after, b->next);
    }
    LMO_AUTO_FREE struct lmo_worker_event *owned =
        calloc(1 + json_array_size(events) + json_array_size(progress), sizeof(*owned));
    if (!owned) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    b->events = owned;
    e = decode_events(events, "events", after, b, err);
    if (e == 0) {
        e = decode_events(progress, "progress", 0, b, err);
    }
    if (e == 0) {
        b->events = LMO_TAKE(owned);
    }
    return e;
}

static void on_poll_timer(void *arg)
{
    struct worker_host *h = arg;
    h->timer = 0;
    poll_events(h);
}

/* After a batch: when all of it is committed, go on; with a look at the facts if the worker is another process now. */
static void go_on(struct worker_host *h, bool at_once)
{
    if (h->delivered > h->acknowledged) {
        h->state = STREAM_HELD;
    } else if (h->boot[0] == '\0') {
        observe(h);
    } else if (at_once) {
        poll_events(h);
    } else if (lmo_loop_timer(h->workers->loop, EMPTY_PAUSE_MS, on_poll_timer, h, &h->timer) < 0) {
        lmo_unreachable("no timer for a worker's long poll");
    }
}

static void on_events(void *arg, const struct lmo_http_response *r)
{
    struct worker_host *h = arg;
    struct workers *w = h->workers;
    struct lmo_err err = {0};
    struct batch b = {0};
    h->request = 0;
    if (r->result < 0 || r->status != 200) {
        failed_response(h, r);
        return;
    }
    if (decode_batch(r, h->acknowledged, &b, &err) < 0) {
        lmo_log(LMO_LOG_ERROR, "worker's event stream not understood", "host=%s why=%s", h->name, err.text);
        failed(h, err.text);
        return;
    }
    LMO_AUTO_FREE struct lmo_worker_event *events = b.events;
    char name[LMO_NAME_MAX];
    uint64_t serial = h->serial;
    bool empty = b.count == 0 && b.next == h->acknowledged;
    if (strcmp(b.boot, h->boot) != 0) {
        h->boot[0] = '\0';
    }
    copy_text(name, sizeof(name), h->name);
    h->delivered = b.next;
    h->state = STREAM_POLLING; /* so that an acknowledgement inside the callback only notes the number */
    if (!empty) {
        w->cb.events(w->cb.arg, name, events, b.count, b.next);
        h = workers_find_serial(w, name, serial);
    }
    if (h) {
        go_on(h, !empty || r->total_us > EMPTY_PAUSE_MS * UINT64_C(1000));
    }
}

static void poll_events(struct worker_host *h)
{
    char url[LMO_URL_MAX + 80];
    struct lmo_err err = {0};
    h->state = STREAM_POLLING;
    snprintf(url, sizeof(url), "%s/v1/events?after=%" PRIu64 "&wait_ms=%d", h->url, h->acknowledged, POLL_WAIT_MS);
    const struct lmo_http_request_spec spec = {.method = "GET",
                                               .url = url,
                                               .headers = h->workers->headers,
                                               .timeout_ms = POLL_WAIT_MS + POLL_MARGIN_MS,
                                               .response_max = LMO_STREAM_BODY_MAX,
                                               .peer_role = LMO_ROLE_WORKER,
                                               .peer_name = h->name};
    if (lmo_http_request_async(h->workers->client, &spec, on_events, h, &h->request, &err) < 0) {
        not_started(h, &err);
    }
}

void stream_acknowledge(struct worker_host *h, uint64_t cursor)
{
    if (cursor > h->delivered) { /* the engine knows better what it has: a host that was added with a lower cursor */
        h->delivered = cursor;
    }
    if (cursor > h->acknowledged) {
        h->acknowledged = cursor;
    }
    if (h->state == STREAM_HELD) {
        go_on(h, true);
    }
}

void stream_start(struct worker_host *h)
{
    if (h->workers->silent) {
        return;
    }
    if (lmo_loop_timer(h->workers->loop, 0, observe, h, &h->timer) < 0) {
        lmo_unreachable("no timer for a new worker");
    }
}

void stream_stop(struct worker_host *h)
{
    lmo_loop_cancel(h->workers->loop, &h->timer);
    lmo_http_cancel(h->workers->client, &h->request);
}
