/* webhook_requests.c - what clients ask about webhooks and dead letters.
 *
 * A secret is shown in the answer that made it. That answer is kept with its secret if it came with a key: who lost it gets it
 * again that way, and the store has the secret anyway, since it signs. */
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"
#include "engine/webhooks.h"
#include "pki/webhook.h"
#include "proto/codec.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WEBHOOKS_MAX 64

_Static_assert(LMO_SECRET_MAX >= LMO_WEBHOOK_SECRET_MAX, "a secret fits its row");

#define TEXT(field) ((field)[0] ? lmo_codec_string((field), sizeof(field) - 1) : json_null())

static json_t *stamp(int64_t t)
{
    return t ? json_integer(t) : json_null();
}

/* `secret`: only in the answer that made it. */
static json_t *webhook_json(const struct lmo_engine *e, const struct webhook *w, const char *secret)
{
    const struct lmo_webhook_row *r = &w->row;
    json_t *o = json_object();
    uint64_t cursor = w->count ? r->cursor : w->read;
    int rc = lmo_json_put_str(o, "id", r->id);
    rc |= lmo_json_put_str(o, "url", r->url);
    rc |= lmo_json_put_str(o, "types", r->types);
    rc |= lmo_json_put(o, "vm", TEXT(r->vm));
    rc |= lmo_json_put(o, "host", TEXT(r->host));
    rc |= lmo_json_put(o, "description", TEXT(r->description));
    rc |= lmo_json_put_bool(o, "enabled", r->enabled);
    rc |= lmo_json_put(o, "why_disabled", TEXT(r->why_disabled));
    rc |= lmo_json_put_i64(o, "created_ms", r->created_ms);
    rc |= lmo_json_put(o, "created_by", TEXT(r->created_by));
    rc |= lmo_json_put_u64(o, "cursor", cursor);
    rc |= lmo_json_put_u64(o, "behind", e->feed.newest > cursor ? e->feed.newest - cursor : 0);
    rc |= lmo_json_put_u64(o, "delivered", r->delivered);
    rc |= lmo_json_put_u64(o, "dropped", r->dropped);
    rc |= lmo_json_put_u64(o, "failures", r->failures);
    rc |= lmo_json_put(o, "failing_since_ms", stamp(r->failing_since_ms));
    rc |= lmo_json_put(o, "last_error", TEXT(r->last_error));
    rc |= lmo_json_put(o, "old_secret_until_ms", stamp(r->old_secret[0] ? r->old_until_ms : 0));
    if (secret) {
        rc |= lmo_json_put_str(o, "secret", secret);
    }
    if (rc < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* What was asked for of it, and which secret; not how far it has come. */
static void webhook_etag(const struct lmo_webhook_row *w, char ret[LMO_ETAG_MAX])
{
    char text[32];
    uint64_t seal = LMO_SEAL_NONE;
    const char *const members[] = {w->id, w->url, w->types, w->vm, w->host, w->description};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        seal = lmo_seal(seal, members[i]);
    }
    (void)snprintf(text, sizeof text, "%d %" PRId64, w->enabled, w->old_until_ms);
    (void)snprintf(ret, LMO_ETAG_MAX, "\"%016" PRIx64 "\"", lmo_seal(seal, text));
}

static void reply(struct request *r, unsigned status, json_t *body)
{
    if (body) {
        engine_reply_ok(r->fn, r->arg, status, body, "");
    } else {
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory for the answer");
    }
}

/* NULL: refused. */
static struct webhook *find(struct request *r)
{
    struct webhook *w = engine_webhook(r->engine, r->name);
    if (!w) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "id", "there is no webhook %s", r->name);
    }
    return w;
}

/* False: refused. */
bool engine_url_is_good(struct request *r, const char *url)
{
    struct lmo_err err = {0};
    if (!r->engine->store->events || !r->engine->outbound) {
        engine_reply_fail(r->fn, r->arg, LMO_E_UNSUPPORTED, "", "this coordinator calls nobody");
        return false;
    }
    if (r->engine->outbound->ops->check(r->engine->outbound, url, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "url", "%s", err.text);
        return false;
    }
    return true;
}

static bool types_are_good(struct request *r, const char *types)
{
    struct lmo_err err = {0};
    if (lmo_event_types_check(types, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "types", "%s", err.text);
        return false;
    }
    return true;
}

/* ------------------------------------------------------------------ webhooks */

static void create(struct request *r)
{
    struct lmo_engine *e = r->engine;
    struct lmo_webhook_row row = {.enabled = true, .created_ms = engine_now_ms(e), .cursor = e->feed.newest};
    const struct lmo_webhook_request *q = &r->webhook;
    struct lmo_err err = {0};
    char location[64], etag[LMO_ETAG_MAX];
    if (!engine_url_is_good(r, q->url) || !types_are_good(r, q->types)) {
        return;
    }
    if (e->webhook_count >= WEBHOOKS_MAX) {
        engine_reply_fail(r->fn, r->arg, LMO_E_LIMIT, "", "there are %d webhooks; that is the limit", WEBHOOKS_MAX);
        return;
    }
    lmo_ulid_generate(row.id);
    lmo_webhook_secret_new(row.secret);
    LMO_COPY(row.url, q->url);
    LMO_COPY(row.types, q->types);
    LMO_COPY(row.vm, q->vm);
    LMO_COPY(row.host, q->host);
    LMO_COPY(row.description, q->description);
    LMO_COPY(row.created_by, q->principal);
    if (engine_would(r, 201, NULL, "events would be sent to %.200s from then on", row.url)) {
        return;
    }
    const struct webhook made = {.engine = e, .row = row, .read = row.cursor};
    json_t *shown = webhook_json(e, &made, row.secret);
    webhook_etag(&row, etag);
    (void)snprintf(location, sizeof location, "/v1/webhooks/%s", row.id);
    engine_keep_with_next_write(r, 201, shown, location, etag);
    if (e->store->events->webhook_put(e->store, &row, &err) < 0) {
        json_decref(shown);
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return;
    }
    if (!engine_webhook_add(e, &row)) {
        json_decref(shown);
        shown = NULL; /* it is stored: the next start of the coordinator has it */
    }
    engine_reply_object(r->fn, r->arg, 201, shown, location, etag);
}

/* The one with the lowest id above `id`; NULL: there is none. Ids rise with time, so a page never shifts. */
static const struct webhook *next_after(const struct lmo_engine *e, const char *id)
{
    const struct webhook *best = NULL;
    for (const struct webhook *w = e->webhooks; w; w = w->next) {
        if (strcmp(w->row.id, id) > 0 && (!best || strcmp(w->row.id, best->row.id) < 0)) {
            best = w;
        }
    }
    return best;
}

static void list(struct request *r)
{
    json_t *array = json_array(), *body = json_object();
    const char *last = r->page.after;
    const struct webhook *w = next_after(r->engine, last);
    int rc = 0;
    for (; w && json_array_size(array) < r->page.limit; w = next_after(r->engine, last)) {
        rc |= lmo_json_add(array, webhook_json(r->engine, w, NULL));
        last = w->row.id;
    }
    rc |= lmo_json_put(body, "webhooks", array);
    rc |= lmo_page_put_next(body, &r->page, w ? last : NULL);
    if (rc < 0) {
        json_decref(body);
        body = NULL;
    }
    reply(r, 200, body);
}

static void get(struct request *r)
{
    const struct webhook *w = find(r);
    char etag[LMO_ETAG_MAX];
    if (w) {
        webhook_etag(&w->row, etag);
        engine_reply_object(r->fn, r->arg, 200, webhook_json(r->engine, w, NULL), "", etag);
    }
}

/* Is it as the client saw it? False: refused. */
static bool still_matches(struct request *r, const struct webhook *w)
{
    char etag[LMO_ETAG_MAX];
    webhook_etag(&w->row, etag);
    return engine_matches(r, etag);
}

/* Stores `next` and makes it the webhook's, which begins anew at its cursor. `secret`: NULL, or it is shown. */
static void put(struct request *r, struct webhook *w, struct lmo_webhook_row *next, const char *secret)
{
    struct lmo_engine *e = r->engine;
    struct lmo_err err = {0};
    char etag[LMO_ETAG_MAX];
    engine_webhook_restart(w);
    next->cursor = w->row.cursor;
    const struct webhook changed = {.engine = e, .row = *next, .read = next->cursor};
    json_t *shown = webhook_json(e, &changed, secret);
    webhook_etag(next, etag);
    engine_keep_with_next_write(r, 200, shown, "", etag);
    if (e->store->events->webhook_put(e->store, next, &err) < 0) {
        json_decref(shown);
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return;
    }
    w->row = *next;
    engine_reply_object(r->fn, r->arg, 200, shown, "", etag);
}

static void change(struct request *r)
{
    struct webhook *w = find(r);
    const struct lmo_webhook_request *q = &r->webhook;
    if (!w || !still_matches(r, w)) {
        return;
    }
    struct lmo_webhook_row next = w->row;
    if ((q->given & LMO_WEBHOOK_URL) && !engine_url_is_good(r, q->url)) {
        return;
    }
    if ((q->given & LMO_WEBHOOK_TYPES) && !types_are_good(r, q->types)) {
        return;
    }
    lmo_str_copy(next.url, sizeof next.url, q->given & LMO_WEBHOOK_URL ? q->url : w->row.url);
    lmo_str_copy(next.types, sizeof next.types, q->given & LMO_WEBHOOK_TYPES ? q->types : w->row.types);
    lmo_str_copy(next.vm, sizeof next.vm, q->given & LMO_WEBHOOK_VM ? q->vm : w->row.vm);
    lmo_str_copy(next.host, sizeof next.host, q->given & LMO_WEBHOOK_HOST ? q->host : w->row.host);
    lmo_str_copy(next.description, sizeof next.description,
                 q->given & LMO_WEBHOOK_DESCRIPTION ? q->description : w->row.description);
    if (q->given & LMO_WEBHOOK_ENABLED) {
        next.enabled = q->enabled;
        lmo_str_copy(next.why_disabled, sizeof next.why_disabled, q->enabled ? "" : "by request");
        next.failures = q->enabled ? 0 : next.failures;
        next.failing_since_ms = q->enabled ? 0 : next.failing_since_ms;
    }
    if (!engine_would(r, 200, webhook_json(r->engine, &(struct webhook){.row = next, .read = next.cursor}, NULL),
                      "webhook %s would be changed", next.id)) {
        put(r, w, &next, NULL);
    }
}

static void rotate(struct request *r)
{
    struct webhook *w = find(r);
    if (!w || !still_matches(r, w) ||
        engine_would(r, 200, NULL, "webhook %s would get a new secret; the old one would sign too for a day", w->row.id)) {
        return;
    }
    struct lmo_webhook_row next = w->row;
    memcpy(next.old_secret, next.secret, sizeof next.old_secret);
    next.old_until_ms = engine_now_ms(r->engine) + LMO_ROTATION_MS;
    lmo_webhook_secret_new(next.secret);
    put(r, w, &next, next.secret);
}

static void remove_one(struct request *r)
{
    struct webhook *w = find(r);
    struct lmo_err err = {0};
    if (!w || !still_matches(r, w) ||
        engine_would(r, 204, NULL, "webhook %s and its dead letters would be removed", w->row.id)) {
        return;
    }
    engine_keep_with_next_write(r, 204, NULL, "", "");
    if (r->engine->store->events->webhook_delete(r->engine->store, w->row.id, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return;
    }
    engine_webhook_remove(r->engine, w);
    engine_reply_ok(r->fn, r->arg, 204, NULL, "");
}

/* ------------------------------------------------------------------ dead letters */

struct letters {
    json_t *array;
    unsigned limit;
    uint64_t last; /* number of the last one in the array */
    bool more;
    int failed;
};

static int add_letter(void *arg, const struct lmo_dead_letter *l)
{
    struct letters *to = arg;
    if (json_array_size(to->array) == to->limit) {
        to->more = true;
        return 1;
    }
    json_t *o = json_object();
    int r = lmo_json_put_u64(o, "sequence", l->seq);
    r |= lmo_json_put_i64(o, "at_ms", l->at_ms);
    r |= lmo_json_put_str(o, "type", l->type);
    r |= lmo_json_put_u64(o, "attempts", l->attempts);
    r |= lmo_json_put(o, "last_error", TEXT(l->last_error));
    r |= lmo_json_put_bool(o, "redelivering", l->wanted);
    r |= lmo_json_put(o, "event", json_loads(l->body, 0, NULL));
    to->failed |= r;
    to->failed |= lmo_json_add(to->array, o);
    to->last = l->seq;
    return 0;
}

static void dead_list(struct request *r)
{
    const struct webhook *w = find(r);
    struct letters l = {.limit = r->page.limit};
    struct lmo_err err = {0};
    char position[24];
    if (!w) {
        return;
    }
    l.array = json_array();
    json_t *body = json_object();
    int rc = r->engine->store->events->dead_list(r->engine->store, w->row.id, false, strtoull(r->page.after, NULL, 10),
                                                 r->page.limit + 1, add_letter, &l, &err);
    (void)snprintf(position, sizeof position, "%" PRIu64, l.last);
    l.failed |= lmo_json_put(body, "dead_letters", l.array);
    l.failed |= lmo_page_put_next(body, &r->page, l.more ? position : NULL);
    if (rc < 0 || l.failed) {
        json_decref(body);
        engine_reply_fail(r->fn, r->arg, rc < 0 ? rc : LMO_E_NO_MEMORY, "", "%s",
                          rc < 0 ? err.text : "no memory for the list");
        return;
    }
    engine_reply_ok(r->fn, r->arg, 200, body, "");
}

struct counted {
    uint64_t seq, count; /* seq 0: all */
};

static int count_letter(void *arg, const struct lmo_dead_letter *l)
{
    struct counted *c = arg;
    c->count += c->seq == 0 || c->seq == l->seq;
    return c->seq ? 1 : 0;
}

/* How many would be sent once more; false: refused. */
static bool count_letters(struct request *r, const struct webhook *w, uint64_t *ret)
{
    struct counted c = {.seq = r->version};
    struct lmo_err err = {0};
    if (r->engine->store->events->dead_list(r->engine->store, w->row.id, false, c.seq ? c.seq - 1 : 0, LMO_DEAD_LETTERS_MAX,
                                            count_letter, &c, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return false;
    }
    if (c.seq && c.count == 0) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "sequence", "no dead letter of this webhook is event %" PRIu64,
                          c.seq);
        return false;
    }
    *ret = c.count;
    return true;
}

static json_t *count_json(uint64_t count)
{
    json_t *body = json_object();
    if (lmo_json_put_u64(body, "redelivering", count) < 0) {
        json_decref(body);
        return NULL;
    }
    return body;
}

static void redeliver(struct request *r)
{
    struct webhook *w = find(r);
    struct lmo_err err = {0};
    uint64_t count = 0, done = 0;
    if (!w || !engine_url_is_good(r, w->row.url)) {
        return;
    }
    if (!w->row.enabled) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "id", "the webhook is disabled (%.200s): enable it first",
                          w->row.why_disabled);
        return;
    }
    if (!count_letters(r, w, &count) ||
        engine_would(r, 202, count_json(count), "%" PRIu64 " dead letter(s) would be sent once more", count)) {
        return;
    }
    json_t *body = count_json(count);
    engine_keep_with_next_write(r, 202, body, "", "");
    if (r->engine->store->events->dead_want(r->engine->store, w->row.id, r->version, true, &done, &err) < 0) {
        json_decref(body);
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return;
    }
    engine_webhook_restart(w);
    reply(r, 202, body);
}

/* ------------------------------------------------------------------ the public calls */

static int post_webhook(struct lmo_engine *e, void (*run)(struct request *), const char *id,
                        const struct lmo_webhook_request *q, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(run, fn, arg, id);
    r.harmless = run == get;
    if (q) {
        r.webhook = *q;
    }
    return engine_post(e, &r);
}

int lmo_engine_webhook_create(struct lmo_engine *e, const struct lmo_webhook_request *q, lmo_engine_reply_fn *fn,
                              void *arg)
{
    return post_webhook(e, create, "", q, fn, arg);
}

int lmo_engine_webhook_list(struct lmo_engine *e, const struct lmo_page *page, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(list, fn, arg, "");
    r.harmless = true;
    r.page = *page;
    return engine_post(e, &r);
}

int lmo_engine_webhook_get(struct lmo_engine *e, const char *id, lmo_engine_reply_fn *fn, void *arg)
{
    return post_webhook(e, get, id, NULL, fn, arg);
}

int lmo_engine_webhook_change(struct lmo_engine *e, const char *id, const struct lmo_webhook_request *q,
                              lmo_engine_reply_fn *fn, void *arg)
{
    return post_webhook(e, change, id, q, fn, arg);
}

int lmo_engine_webhook_rotate(struct lmo_engine *e, const char *id, lmo_engine_reply_fn *fn, void *arg)
{
    return post_webhook(e, rotate, id, NULL, fn, arg);
}

int lmo_engine_webhook_remove(struct lmo_engine *e, const char *id, lmo_engine_reply_fn *fn, void *arg)
{
    return post_webhook(e, remove_one, id, NULL, fn, arg);
}

int lmo_engine_dead_letters(struct lmo_engine *e, const char *webhook, const struct lmo_page *page, lmo_engine_reply_fn *fn,
                            void *arg)
{
    struct request r = engine_request(dead_list, fn, arg, webhook);
    r.harmless = true;
    r.page = *page;
    return engine_post(e, &r);
}

int lmo_engine_redeliver(struct lmo_engine *e, const char *webhook, uint64_t seq, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(redeliver, fn, arg, webhook);
    r.version = seq;
    return engine_post(e, &r);
}
