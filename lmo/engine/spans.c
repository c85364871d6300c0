/* spans.c - one span per phase and one for the whole of each migration that has ended, exported in batches.
 *
 * Made from the record when it ends, so a restart in between loses none and doubles none: until then the record holds all that
 * a span says. The queue is bounded; what does not fit, or was not taken in ATTEMPTS tries, is dropped and counted: traces are
 * for looking at, and nothing waits for them. */
#include "engine/spans.h"

#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"
#include "proto/codec.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_MAX    4096 /* spans */
#define BATCH_MAX    512
#define BATCH_MS     500
#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS 30000
#define ATTEMPTS     6
#define TIMEOUT_MS   10000
#define BODY_MAX     (4U << 20)

#define KIND_INTERNAL 1
#define STATUS_OK     1
#define STATUS_ERROR  2

struct batch {
    struct batch *next;
    unsigned count;
    size_t len;
    char text[]; /* spans, separated by commas */
};

enum { EXPORTED, DROPPED };

static void flush(void *arg);

static void count(struct lmo_engine *e, unsigned what, unsigned n)
{
    lmo_metric_add(e->figures.spans, what, 0, n);
}

static void arm(struct lmo_engine *e, uint64_t ms)
{
    struct spans *s = &e->spans;
    if (!s->timer && !s->handle && lmo_loop_timer(e->loop, ms, flush, e, &s->timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer for traces", "%s", "");
    }
}

/* ------------------------------------------------------------------ encoding */

static int put_attribute(json_t *array, const char *key, json_t *value, const char *type)
{
    json_t *o = json_object(), *v = json_object();
    int r = lmo_json_put_str(o, "key", key);
    r |= lmo_json_put(v, type, value);
    r |= lmo_json_put(o, "value", v);
    return r | lmo_json_add(array, o);
}

static int put_text(json_t *array, const char *key, const char *text)
{
    return text[0] ? put_attribute(array, key, lmo_codec_string(text, LMO_TEXT_MAX), "stringValue") : 0;
}

static int put_time(json_t *o, const char *name, int64_t ms)
{
    char text[32]; /* 64-bit integers are decimal strings there */
    (void)snprintf(text, sizeof text, "%" PRId64, ms * INT64_C(1000000));
    return lmo_json_put_str(o, name, text);
}

static json_t *span_json(const struct lmo_migration *m, unsigned n, const char *name, int64_t start_ms, int64_t end_ms)
{
    char id[LMO_SPAN_ID_MAX];
    bool root = n == LMO_PHASE_TIMES_MAX;
    json_t *o = json_object(), *attributes = json_array(), *status = json_object();
    lmo_trace_phase_span(m, n, id);
    int r = lmo_json_put_str(o, "traceId", m->trace.id);
    r |= lmo_json_put_str(o, "spanId", id);
    const char *parent = root ? m->trace.parent : m->trace.span;
    r |= parent[0] ? lmo_json_put_str(o, "parentSpanId", parent) : 0;
    r |= lmo_json_put_str(o, "name", name);
    r |= lmo_json_put_u64(o, "kind", KIND_INTERNAL);
    r |= put_time(o, "startTimeUnixNano", start_ms);
    r |= put_time(o, "endTimeUnixNano", end_ms > start_ms ? end_ms : start_ms);
    r |= put_text(attributes, "lmo.migration.id", m->id);
    r |= put_text(attributes, root ? "lmo.outcome" : "lmo.phase",
                  root ? lmo_phase_text(m->phase) : lmo_phase_text(m->phase_times[n].phase));
    if (root) {
        r |= put_text(attributes, "lmo.vm.uuid", m->vm.uuid);
        r |= put_text(attributes, "lmo.vm.name", m->vm.name);
        r |= put_text(attributes, "lmo.source", m->source);
        r |= put_text(attributes, "lmo.destination", m->destination);
        r |= put_text(attributes, "lmo.reason", m->reason);
        if (m->cutover.suspended_us && m->cutover.resumed_us) {
            r |= put_attribute(attributes, "lmo.blackout_seconds",
                               json_real((double)(m->cutover.resumed_us - m->cutover.suspended_us) / 1e6),
                               "doubleValue");
        }
    }
    r |= lmo_json_put(o, "attributes", attributes);
    bool bad = m->phase != LMO_PHASE_COMPLETED && (root || m->phase_times[n].phase == m->failed_in);
    r |= lmo_json_put_u64(status, "code", bad ? STATUS_ERROR : STATUS_OK);
    r |= bad ? lmo_json_put(status, "message", lmo_codec_string(m->reason, sizeof m->reason - 1)) : 0;
    r |= lmo_json_put(o, "status", status);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static int append_span(struct lmo_buf *to, json_t *span)
{
    char *text = NULL;
    size_t len = 0;
    int r = lmo_json_dump(span, &text, &len, NULL);
    json_decref(span);
    if (r == 0 && to->len > 0) {
        r = lmo_buf_append_str(to, ",");
    }
    r = r < 0 ? r : lmo_buf_append(to, text, len);
    free(text);
    return r;
}

void engine_spans_ended(struct entry *entry)
{
    struct lmo_engine *e = entry->engine;
    struct spans *s = &e->spans;
    const struct lmo_migration *m = engine_record(entry);
    if (!s->url[0] || !e->outbound || engine_observing(e) || !m->trace.id[0] || !m->trace.sampled) {
        return;
    }
    unsigned n = m->phase_time_count + 1;
    LMO_AUTO_BUF struct lmo_buf text = LMO_BUF_INIT(BODY_MAX);
    int r = append_span(&text, span_json(m, LMO_PHASE_TIMES_MAX, "migration", m->created_ms, m->updated_ms));
    for (unsigned i = 0; r == 0 && i < m->phase_time_count; i++) {
        const struct lmo_phase_time *t = &m->phase_times[i];
        r = append_span(&text, span_json(m, i, lmo_phase_text(t->phase), t->started_ms,
                                         t->ended_ms ? t->ended_ms : m->updated_ms));
    }
    struct batch *b = r == 0 && s->waiting + n <= QUEUE_MAX ? malloc(sizeof *b + text.len) : NULL;
    if (!b) {
        count(e, DROPPED, n);
        return;
    }
    *b = (struct batch){.count = n, .len = text.len};
    memcpy(b->text, text.data, text.len);
    *s->last = b;
    s->last = &b->next;
    s->waiting += n;
    arm(e, BATCH_MS);
}

/* ------------------------------------------------------------------ sending */

static struct batch *pop(struct spans *s)
{
    struct batch *b = s->first;
    s->first = b->next;
    s->last = s->first ? s->last : &s->first;
    s->waiting -= b->count;
    return b;
}

static int build(struct lmo_engine *e)
{
    struct spans *s = &e->spans;
    lmo_buf_reset(&s->body);
    s->in_body = s->attempts = 0;
    int r = lmo_buf_appendf(&s->body,
                            "{\"resourceSpans\":[{\"resource\":{\"attributes\":["
                            "{\"key\":\"service.name\",\"value\":{\"stringValue\":\"%s\"}},"
                            "{\"key\":\"service.version\",\"value\":{\"stringValue\":\"" LMO_VERSION "\"}}]},"
                            "\"scopeSpans\":[{\"scope\":{\"name\":\"lmo\",\"version\":\"" LMO_VERSION "\"},\"spans\":[",
                            s->service);
    while (r == 0 && s->first && s->in_body + s->first->count <= BATCH_MAX) {
        struct batch *b = pop(s);
        r = s->in_body ? lmo_buf_append_str(&s->body, ",") : 0;
        r = r < 0 ? r : lmo_buf_append(&s->body, b->text, b->len);
        s->in_body += b->count;
        free(b);
    }
    return r < 0 ? r : lmo_buf_append_str(&s->body, "]}]}]}");
}

static void gave_up(struct lmo_engine *e, const char *why)
{
    count(e, DROPPED, e->spans.in_body);
    lmo_log(LMO_LOG_WARN, "traces dropped", "spans=%u why=%s", e->spans.in_body, why);
    e->spans.in_body = 0;
}

static void on_answer(void *arg, int code, unsigned status, const char *body, const char *text)
{
    struct lmo_engine *e = arg;
    struct spans *s = &e->spans;
    char why[LMO_TEXT_MAX];
    uint64_t wait = BATCH_MS;
    (void)body;
    s->handle = 0;
    if (code == 0) {
        (void)snprintf(why, sizeof why, "the collector answered %u", status);
    } else {
        LMO_COPY(why, text);
    }
    bool retry =
        code < 0 || status == 429 || status == 502 || status == 503 || status == 504; /* and no others, as OTLP says */
    if (code == 0 && status == 200) {
        count(e, EXPORTED, s->in_body);
        s->in_body = 0;
    } else if (!retry || s->attempts >= ATTEMPTS) {
        gave_up(e, why);
    } else {
        uint32_t random;
        lmo_random(&random, sizeof random);
        uint64_t ms = (uint64_t)RETRY_MIN_MS << (s->attempts - 1);
        ms = ms > RETRY_MAX_MS ? RETRY_MAX_MS : ms;
        wait = ms / 2 + random % (ms / 2 + 1);
    }
    if (s->in_body || s->first) {
        arm(e, wait);
    }
}

static void flush(void *arg)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    struct lmo_engine *e = arg;
    struct spans *s = &e->spans;
    struct lmo_err err = {0};
    s->timer = 0;
    if (e->stopping) {
        return;
    }
    if (s->in_body == 0 && build(e) < 0) {
        gave_up(e, "no memory");
        return;
    }
    const struct lmo_outbound_request r = {.url = s->url,
                                           .headers = headers,
                                           .body = s->body.data,
                                           .len = s->body.len,
                                           .timeout_ms = TIMEOUT_MS,
                                           .ours = true};
    s->attempts++;
    if (e->outbound->ops->post(e->outbound, &r, on_answer, e, &s->handle, &err) < 0) {
        s->handle = 0;
        on_answer(e, err.code, 0, "", err.text);
    }
}

void engine_spans_init(struct lmo_engine *e, const struct lmo_otlp_config *config)
{
    struct spans *s = &e->spans;
    s->last = &s->first;
    s->body = LMO_BUF_INIT(BODY_MAX);
    LMO_COPY(s->url, config->endpoint);
    LMO_COPY(s->service, config->service[0] ? config->service : "lmod");
}

void engine_spans_done(struct lmo_engine *e)
{
    struct spans *s = &e->spans;
    if (s->handle) {
        e->outbound->ops->cancel(e->outbound, &s->handle);
    }
    lmo_loop_cancel(e->loop, &s->timer);
    while (s->first) {
        free(pop(s));
    }
    lmo_buf_done(&s->body);
}
