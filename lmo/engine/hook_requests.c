/* hook_requests.c - what clients ask about hooks of guests, and a guest's owner who answers one. */
#include "base/json.h"
#include "base/str.h"
#include "engine/internal.h"
#include "engine/webhooks.h"
#include "pki/webhook.h"
#include "proto/codec.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TEXT(field) ((field)[0] ? lmo_codec_string((field), sizeof(field) - 1) : json_null())

static json_t *hook_json(const struct lmo_vm_hook_row *h, const char *secret)
{
    json_t *o = json_object();
    int rc = lmo_json_put_str(o, "vm", h->vm);
    rc |= lmo_json_put_str(o, "url", h->url);
    rc |= lmo_json_put_u64(o, "deadline_ms", h->deadline_ms);
    rc |= lmo_json_put_str(o, "on_no_answer", h->on_no_answer);
    rc |= lmo_json_put_i64(o, "created_ms", h->created_ms);
    rc |= lmo_json_put(o, "created_by", TEXT(h->created_by));
    rc |= lmo_json_put(o, "old_secret_until_ms", h->old_secret[0] ? json_integer(h->old_until_ms) : json_null());
    if (secret) {
        rc |= lmo_json_put_str(o, "secret", secret);
    }
    if (rc < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void hook_etag(const struct lmo_vm_hook_row *h, char ret[LMO_ETAG_MAX])
{
    char text[80];
    (void)snprintf(text, sizeof text, "%" PRIu32 " %s %" PRId64 " %" PRId64, h->deadline_ms, h->on_no_answer, h->created_ms,
                   h->old_until_ms);
    (void)snprintf(ret, LMO_ETAG_MAX, "\"%016" PRIx64 "\"", lmo_seal(lmo_seal(LMO_SEAL_NONE, h->url), text));
}

/* 1, 0 (it has none, and that is fine), or it was refused. */
static int read_hook(struct request *r, bool must, struct lmo_vm_hook_row *ret)
{
    const struct lmo_store *s = r->engine->store;
    struct lmo_err err = {0};
    char etag[LMO_ETAG_MAX];
    int rc = s->events ? s->events->vm_hook_get(r->engine->store, r->name, ret, &err)
                       : lmo_fail(&err, LMO_E_NOT_FOUND, "the guest has no hook");
    if (rc == LMO_E_NOT_FOUND && !must && r->ask.if_match[0]) {
        engine_reply_fail(r->fn, r->arg, LMO_E_PRECONDITION, "If-Match", "the guest has no hook");
        return LMO_E_PRECONDITION;
    }
    if (rc < 0 && (must || rc != LMO_E_NOT_FOUND)) {
        engine_reply_fail(r->fn, r->arg, rc, rc == LMO_E_NOT_FOUND ? "vm" : "", "%s", err.text);
        return rc;
    }
    if (rc < 0) {
        return 0;
    }
    hook_etag(ret, etag);
    return engine_matches(r, etag) ? 1 : LMO_E_PRECONDITION;
}

static void hook_put(struct request *r)
{
    struct lmo_engine *e = r->engine;
    struct lmo_vm_hook_row row = {.deadline_ms = r->wait_ms, .created_ms = engine_now_ms(e)}, before;
    struct lmo_err err = {0};
    char location[64] = "", etag[LMO_ETAG_MAX];
    if (!engine_url_is_good(r, r->url)) {
        return;
    }
    int there = read_hook(r, false, &before);
    unsigned status = there ? 200 : 201;
    if (there < 0 || engine_would(r, status, NULL, "%.200s would be told before guest %s is moved", r->url, r->name)) {
        return;
    }
    LMO_COPY(row.vm, r->name);
    LMO_COPY(row.url, r->url);
    LMO_COPY(row.on_no_answer, r->phase);
    LMO_COPY(row.created_by, r->webhook.principal);
    lmo_webhook_secret_new(row.secret);
    if (there) {
        LMO_COPY(row.old_secret, before.secret);
        row.old_until_ms = engine_now_ms(e) + LMO_ROTATION_MS;
    } else {
        (void)snprintf(location, sizeof location, "/v1/vms/%s/hook", row.vm);
    }
    json_t *shown = hook_json(&row, row.secret);
    hook_etag(&row, etag);
    engine_keep_with_next_write(r, status, shown, location, etag);
    if (e->store->events->vm_hook_put(e->store, &row, &err) < 0) {
        json_decref(shown);
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return;
    }
    engine_reply_object(r->fn, r->arg, status, shown, location, etag);
}

static void hook_get(struct request *r)
{
    struct lmo_vm_hook_row row;
    char etag[LMO_ETAG_MAX];
    if (read_hook(r, true, &row) == 1) {
        hook_etag(&row, etag);
        engine_reply_object(r->fn, r->arg, 200, hook_json(&row, NULL), "", etag);
    }
}

static void hook_delete(struct request *r)
{
    struct lmo_vm_hook_row row;
    struct lmo_err err = {0};
    if (read_hook(r, true, &row) != 1 ||
        engine_would(r, 204, NULL, "nobody would be told any more before guest %s is moved", r->name)) {
        return;
    }
    engine_keep_with_next_write(r, 204, NULL, "", "");
    if (r->engine->store->events->vm_hook_delete(r->engine->store, r->name, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "vm", "%s", err.text);
    } else {
        engine_reply_ok(r->fn, r->arg, 204, NULL, "");
    }
}

static void acknowledge(struct request *r)
{
    struct lmo_engine *e = r->engine;
    static struct lmo_migration m; /* the loop thread's scratch */
    struct lmo_err err = {0};
    char etag[LMO_ETAG_MAX];
    struct entry *entry = engine_entry(e, r->name);
    if (!entry || entry->stored_version == 0) {
        if (e->store->ops->get(e->store, r->name, &m, &err) < 0) {
            engine_reply_fail(r->fn, r->arg, err.code, "id", "%s",
                              err.code == LMO_E_NOT_FOUND ? "no migration has this id" : err.text);
            return;
        }
        engine_migration_etag(&m, etag);
        if (engine_matches(r, etag)) {
            engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "id", "migration %s has ended (%s)", m.id,
                              lmo_phase_text(m.phase));
        }
        return;
    }
    if (e->stalled) {
        engine_reply_fail(r->fn, r->arg, LMO_E_UNAVAILABLE, "", "the coordinator's store cannot be written now");
        return;
    }
    engine_migration_etag(engine_record(entry), etag);
    if (!engine_matches(r, etag)) {
        return;
    }
    struct lmo_event ev = {.kind = LMO_EV_ACKNOWLEDGED, .text = r->url};
    if (r->ask.dry_run) {
        if (engine_try(entry, &ev, &err) < 0) {
            engine_reply_fail(r->fn, r->arg, err.code, "id", "%s", err.text);
        } else {
            (void)engine_would(r, 202, NULL, "migration %s would wait for the guest's owner no more", entry->id);
        }
        return;
    }
    if (engine_apply(entry, &ev, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "id", "%s", err.text);
        return;
    }
    engine_wait_committed(r, entry);
}

/* ------------------------------------------------------------------ the public calls */

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
