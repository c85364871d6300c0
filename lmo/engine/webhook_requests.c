/* webhook_requests.c - what clients ask about webhooks, dead letters and hooks of guests. */
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
#define ROTATION_MS  (INT64_C(24) * 3600 * 1000) /* how long the old secret signs too */

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

static void reply(struct request *r, unsigned status, json_t *body, const char *location)
{
    if (body) {
        engine_reply_ok(r->fn, r->arg, status, body, location);
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
static bool can_send(struct request *r)
{
    if (!r->engine->store->events || !r->engine->outbound) {
        engine_reply_fail(r->fn, r->arg, LMO_E_UNSUPPORTED, "", "this coordinator calls nobody");
        return false;
    }
    return true;
}

static bool url_is_good(struct request *r, const char *url)
{
    struct lmo_err err = {0};
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
    char location[64];
    if (!can_send(r) || !url_is_good(r, q->url) || !types_are_good(r, q->types)) {
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
    if (e->store->events->webhook_put(e->store, &row, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return;
    }
    struct webhook *w = engine_webhook_add(e, &row);
    (void)snprintf(location, sizeof location, "/v1/webhooks/%s", row.id);
    reply(r, 201, w ? webhook_json(e, w, row.secret) : NULL, location);
}

static void list(struct request *r)
{
    json_t *array = json_array(), *body = json_object();
    int rc = 0;
    for (const struct webhook *w = r->engine->webhooks; w; w = w->next) {
        rc |= lmo_json_add(array, webhook_json(r->engine, w, NULL));
    }
    rc |= lmo_json_put(body, "webhooks", array);
    if (rc < 0) {
        json_decref(body);
        body = NULL;
    }
    reply(r, 200, body, "");
}

static void get(struct request *r)
{
    struct webhook *w = find(r);
    if (w) {
        reply(r, 200, webhook_json(r->engine, w, NULL), "");
    }
}

/* Stores `next` and makes it the webhook's; begins anew at its cursor. False: refused. */
static bool put(struct request *r, struct webhook *w, struct lmo_webhook_row *next)
{
    struct lmo_engine *e = r->engine;
    struct lmo_err err = {0};
    engine_webhook_restart(w);
    next->cursor = w->row.cursor;
    if (e->store->events->webhook_put(e->store, next, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return false;
    }
    w->row = *next;
    return true;
}

static void change(struct request *r)
{
    struct webhook *w = find(r);
    const struct lmo_webhook_request *q = &r->webhook;
    if (!w || !can_send(r)) {
        return;
    }
    struct lmo_webhook_row next = w->row;
    if ((q->given & LMO_WEBHOOK_URL) && !url_is_good(r, q->url)) {
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
    if (put(r, w, &next)) {
        reply(r, 200, webhook_json(r->engine, w, NULL), "");
    }
}

static void rotate(struct request *r)
{
    struct webhook *w = find(r);
    if (!w) {
        return;
    }
    struct lmo_webhook_row next = w->row;
    memcpy(next.old_secret, next.secret, sizeof next.old_secret);
    next.old_until_ms = engine_now_ms(r->engine) + ROTATION_MS;
    lmo_webhook_secret_new(next.secret);
    if (put(r, w, &next)) {
        reply(r, 200, webhook_json(r->engine, w, w->row.secret), "");
    }
}

static void remove_one(struct request *r)
{
    struct webhook *w = find(r);
    struct lmo_err err = {0};
    if (!w) {
        return;
    }
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
    int failed;
};

static int add_letter(void *arg, const struct lmo_dead_letter *l)
{
    struct letters *to = arg;
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
    return 0;
}

static void dead_list(struct request *r)
{
    struct webhook *w = find(r);
    struct letters l = {0};
    struct lmo_err err = {0};
    if (!w) {
        return;
    }
    l.array = json_array();
    json_t *body = json_object();
    int rc = r->engine->store->events->dead_list(r->engine->store, w->row.id, false, r->version, r->limit, add_letter,
                                                 &l, &err);
    l.failed |= lmo_json_put(body, "dead_letters", l.array);
    if (rc < 0 || l.failed) {
        json_decref(body);
        engine_reply_fail(r->fn, r->arg, rc < 0 ? rc : LMO_E_NO_MEMORY, "", "%s",
                          rc < 0 ? err.text : "no memory for the list");
        return;
    }
    engine_reply_ok(r->fn, r->arg, 200, body, "");
}

static void redeliver(struct request *r)
{
    struct webhook *w = find(r);
    struct lmo_err err = {0};
    uint64_t count = 0;
    if (!w || !can_send(r)) {
        return;
    }
    if (!w->row.enabled) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "id", "the webhook is disabled (%.200s): enable it first",
                          w->row.why_disabled);
        return;
    }
    if (r->engine->store->events->dead_want(r->engine->store, w->row.id, r->version, true, &count, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return;
    }
    if (count == 0 && r->version) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "sequence",
                          "no dead letter of this webhook is event %" PRIu64, r->version);
        return;
    }
    engine_webhook_restart(w);
    json_t *body = json_object();
    if (lmo_json_put_u64(body, "redelivering", count) < 0) {
        json_decref(body);
        body = NULL;
    }
    reply(r, 202, body, "");
}

/* ------------------------------------------------------------------ hooks of guests */

static json_t *hook_json(const struct lmo_vm_hook_row *h, const char *secret)
{
    json_t *o = json_object();
    int rc = lmo_json_put_str(o, "vm", h->vm);
    rc |= lmo_json_put_str(o, "url", h->url);
    rc |= lmo_json_put_u64(o, "deadline_ms", h->deadline_ms);
    rc |= lmo_json_put_str(o, "on_no_answer", h->on_no_answer);
    rc |= lmo_json_put_i64(o, "created_ms", h->created_ms);
    rc |= lmo_json_put(o, "created_by", TEXT(h->created_by));
    rc |= lmo_json_put(o, "old_secret_until_ms", stamp(h->old_secret[0] ? h->old_until_ms : 0));
    if (secret) {
        rc |= lmo_json_put_str(o, "secret", secret);
    }
    if (rc < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void hook_put(struct request *r)
{
    struct lmo_engine *e = r->engine;
    struct lmo_vm_hook_row row = {.deadline_ms = r->wait_ms, .created_ms = engine_now_ms(e)}, before;
    struct lmo_err err = {0};
    if (!can_send(r) || !url_is_good(r, r->url)) {
        return;
    }
    LMO_COPY(row.vm, r->name);
    LMO_COPY(row.url, r->url);
    LMO_COPY(row.on_no_answer, r->phase);
    LMO_COPY(row.created_by, r->webhook.principal);
    lmo_webhook_secret_new(row.secret);
    bool there = e->store->events->vm_hook_get(e->store, row.vm, &before, &err) == 0;
    if (there) {
        LMO_COPY(row.old_secret, before.secret);
        row.old_until_ms = engine_now_ms(e) + ROTATION_MS;
    }
    if (e->store->events->vm_hook_put(e->store, &row, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return;
    }
    reply(r, there ? 200 : 201, hook_json(&row, row.secret), "");
}

static void hook_get(struct request *r)
{
    struct lmo_vm_hook_row row;
    struct lmo_err err = {0};
    int rc = r->engine->store->events ? r->engine->store->events->vm_hook_get(r->engine->store, r->name, &row, &err)
                                      : lmo_fail(&err, LMO_E_NOT_FOUND, "the guest has no hook");
    if (rc < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "vm", "%s", err.text);
    } else {
        reply(r, 200, hook_json(&row, NULL), "");
    }
}

static void hook_delete(struct request *r)
{
    struct lmo_err err = {0};
    if (!can_send(r)) {
        return;
    }
    if (r->engine->store->events->vm_hook_delete(r->engine->store, r->name, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "vm", "%s", err.text);
    } else {
        engine_reply_ok(r->fn, r->arg, 204, NULL, "");
    }
}

static void acknowledge(struct request *r)
{
    struct lmo_engine *e = r->engine;
    static struct lmo_migration m;
    struct lmo_err err = {0};
    struct entry *entry = engine_entry(e, r->name);
    if (!entry || entry->stored_version == 0) {
        if (e->store->ops->get(e->store, r->name, &m, &err) < 0) {
            engine_reply_fail(r->fn, r->arg, err.code, "id", "%s",
                              err.code == LMO_E_NOT_FOUND ? "no migration has this id" : err.text);
        } else {
            engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "id", "migration %s has ended (%s)", m.id,
                              lmo_phase_text(m.phase));
        }
        return;
    }
    if (e->stalled) {
        engine_reply_fail(r->fn, r->arg, LMO_E_UNAVAILABLE, "", "the coordinator's store cannot be written now");
        return;
    }
    struct lmo_event ev = {.kind = LMO_EV_ACKNOWLEDGED, .text = r->url};
    if (engine_apply(entry, &ev, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "id", "%s", err.text);
        return;
    }
    engine_wait_committed(r, entry);
}

/* ------------------------------------------------------------------ the public calls */

static int post_webhook(struct lmo_engine *e, void (*run)(struct request *), const char *id,
                        const struct lmo_webhook_request *q, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(run, fn, arg, id);
    r.harmless = run == list || run == get;
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

int lmo_engine_webhook_list(struct lmo_engine *e, lmo_engine_reply_fn *fn, void *arg)
{
    return post_webhook(e, list, "", NULL, fn, arg);
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

int lmo_engine_dead_letters(struct lmo_engine *e, const char *webhook, uint64_t after, unsigned limit,
                            lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(dead_list, fn, arg, webhook);
    r.harmless = true;
    r.version = after;
    r.limit = limit;
    return engine_post(e, &r);
}

int lmo_engine_redeliver(struct lmo_engine *e, const char *webhook, uint64_t seq, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(redeliver, fn, arg, webhook);
    r.version = seq;
    return engine_post(e, &r);
}

int lmo_engine_hook_put(struct lmo_engine *e, const char *vm, const char *url, uint32_t deadline_ms,
                        enum lmo_no_answer on_no_answer, const char *principal, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(hook_put, fn, arg, vm);
    LMO_COPY(r.url, url);
    LMO_COPY(r.phase, lmo_no_answer_text((int)on_no_answer));
    LMO_COPY(r.webhook.principal, principal);
    r.wait_ms = deadline_ms;
    return engine_post(e, &r);
}

int lmo_engine_hook_get(struct lmo_engine *e, const char *vm, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(hook_get, fn, arg, vm);
    r.harmless = true;
    return engine_post(e, &r);
}

int lmo_engine_hook_remove(struct lmo_engine *e, const char *vm, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(hook_delete, fn, arg, vm);
    return engine_post(e, &r);
}

int lmo_engine_migration_acknowledge(struct lmo_engine *e, const char *id, const char *principal,
                                     lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(acknowledge, fn, arg, id);
    LMO_COPY(r.url, principal);
    return engine_post(e, &r);
}
