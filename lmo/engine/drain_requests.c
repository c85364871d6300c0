/* drain_requests.c - looking at drains, waiting for them, and steering them. */
#include "engine/drains_internal.h"

#include "base/json.h"
#include "base/log.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMIT_MS 25000 /* before the API itself gives up */

/* What is asked of a drain that is steered. */
struct steering {
    enum lmo_drain_act act;
    char host[LMO_NAME_MAX], principal[LMO_NAME_MAX + 32];
};

void engine_drain_etag(const struct lmo_drain *d, char ret[LMO_ETAG_MAX])
{
    (void)snprintf(ret, LMO_ETAG_MAX, "\"%s-%" PRIx64 "\"", lmo_drain_state_text(d->state), (uint64_t)d->state_ms);
}

void engine_reply_drain(lmo_engine_reply_fn *fn, void *arg, unsigned status, struct lmo_engine *e,
                        const struct lmo_drain *d)
{
    char location[64], etag[LMO_ETAG_MAX];
    (void)snprintf(location, sizeof location, "/v1/drains/%s", d->id);
    engine_drain_etag(d, etag);
    engine_reply_object(fn, arg, status, engine_drain_json(e, d, true), status == 202 ? location : "", etag);
}

static void on_wait_over(void *arg)
{
    struct drain_waiter *w = arg;
    struct drain *dr = w->drain;
    w->timer = 0;
    for (struct drain_waiter **at = &dr->waiters; *at; at = &(*at)->next) {
        if (*at == w) {
            *at = w->next;
            dr->waiter_count--;
            break;
        }
    }
    if (w->writes) { /* E3: what it asked for is not on disk */
        engine_reply_fail(w->fn, w->arg, LMO_E_TIMEOUT, "",
                          "the coordinator's store cannot be written; the request takes effect when it can");
    } else {
        engine_reply_drain(w->fn, w->arg, w->status, dr->engine, &dr->d);
    }
    free(w);
}

void engine_drain_wait(struct drain *dr, uint64_t version, uint32_t wait_ms, const struct drain_waiter *who)
{
    struct drain_waiter *w = calloc(1, sizeof *w);
    if (!w || lmo_loop_timer(dr->engine->loop, wait_ms, on_wait_over, w, &w->timer) < 0) {
        free(w);
        engine_reply_fail(who->fn, who->arg, LMO_E_NO_MEMORY, "", "no memory for a wait");
        return;
    }
    uint64_t timer = w->timer;
    *w = *who;
    w->drain = dr;
    w->version = version;
    w->timer = timer;
    w->next = dr->waiters;
    dr->waiters = w;
    dr->waiter_count++;
}

static void reply_stored(struct request *r)
{
    struct lmo_drain d;
    struct lmo_err err = {0};
    if (engine_drain_read(r->engine, r->name, &d, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "id", "%s",
                          err.code == LMO_E_NOT_FOUND ? "no drain has this id" : err.text);
        return;
    }
    engine_reply_drain(r->fn, r->arg, 200, r->engine, &d);
    engine_drain_free_arrays(&d);
}

static void drain_get(struct request *r)
{
    struct drain *dr = engine_drain(r->engine, r->name);
    const struct drain_waiter who = {.fn = r->fn, .arg = r->arg, .status = 200};
    if (!dr || !dr->stored) {
        reply_stored(r);
    } else if (r->wait_ms == 0 || dr->d.version > r->version || dr->waiter_count >= LMO_WAITERS_MAX) {
        engine_reply_drain(r->fn, r->arg, 200, r->engine, &dr->d);
    } else {
        engine_drain_wait(dr, r->version, r->wait_ms, &who);
    }
}

int lmo_engine_drain_get(struct lmo_engine *e, const char *id, uint64_t wait_version, uint32_t wait_ms,
                         lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(drain_get, fn, arg, id);
    r.version = wait_version;
    r.wait_ms = wait_ms;
    r.harmless = true;
    return engine_post(e, &r);
}

struct listing {
    struct lmo_engine *engine;
    json_t *array;
    unsigned limit, count; /* count: what the store gave, one more than the page has if there is a next one */
    char last[LMO_ID_MAX]; /* of the page */
    int failed;
};

static int list_one(void *arg, const struct lmo_object *o)
{
    struct listing *l = arg;
    struct lmo_drain d = {0};
    struct lmo_err err = {0};
    const struct drain *open = engine_drain(l->engine, o->key);
    if (l->count++ >= l->limit) {
        return 0;
    }
    LMO_COPY(l->last, o->key);
    if (!open && engine_drain_decode(o->text, &d, &err) < 0) {
        lmo_log(LMO_LOG_ERROR, "stored drain cannot be read: left out of a list", "why=%s", err.text);
        return 0;
    }
    l->failed |= lmo_json_add(l->array, engine_drain_json(l->engine, open ? &open->d : &d, false));
    return 0;
}

static void drain_list(struct request *r)
{
    const struct lmo_store_ops *ops = r->engine->store->ops;
    const struct lmo_object_query q = {.kind = LMO_OBJECT_DRAIN,
                                       .state = r->phase,
                                       .before = r->page.after,
                                       .limit = r->page.limit + 1};
    struct listing l = {.engine = r->engine, .array = json_array(), .limit = r->page.limit};
    struct lmo_err err = {0};
    int rc = ops->objects ? ops->objects(r->engine->store, &q, list_one, &l, &err) : 0;
    json_t *body = json_object();
    l.failed |= lmo_json_put(body, "drains", l.array);
    l.failed |= lmo_page_put_next(body, &r->page, l.count > l.limit ? l.last : NULL);
    if (rc < 0 || l.failed) {
        json_decref(body);
        engine_reply_fail(r->fn, r->arg, rc < 0 ? rc : LMO_E_NO_MEMORY, "", "%s",
                          rc < 0 ? err.text : "no memory for the list");
        return;
    }
    engine_reply_ok(r->fn, r->arg, 200, body, "");
}

int lmo_engine_drain_list(struct lmo_engine *e, const char *state, const struct lmo_page *page, lmo_engine_reply_fn *fn,
                          void *arg)
{
    struct request r = engine_request(drain_list, fn, arg, "");
    LMO_COPY(r.phase, state);
    r.page = *page;
    r.harmless = true;
    return engine_post(e, &r);
}

/* ------------------------------------------------------------------ steering */

static void refuse_ended(struct request *r)
{
    struct lmo_drain d;
    struct lmo_err err = {0};
    char etag[LMO_ETAG_MAX];
    if (engine_drain_read(r->engine, r->name, &d, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "id", "%s",
                          err.code == LMO_E_NOT_FOUND ? "no drain has this id" : err.text);
        return;
    }
    engine_drain_etag(&d, etag);
    if (engine_matches(r, etag)) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "id", "drain %s has ended (%s)", d.id,
                          lmo_drain_state_text(d.state));
    }
    engine_drain_free_arrays(&d);
}

/* What the step would make of it, on a copy. */
static void try_it(struct request *r, const struct drain *dr, struct lmo_drain_event *ev)
{
    struct lmo_drain d = dr->d;
    struct lmo_err err = {0};
    d.hosts = malloc((d.host_count + 1U) * sizeof *d.hosts);
    d.guests = malloc((d.guest_count + 1U) * sizeof *d.guests);
    if (!d.hosts || !d.guests) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory to try it");
    } else {
        memcpy(d.hosts, dr->d.hosts, d.host_count * sizeof *d.hosts);
        memcpy(d.guests, dr->d.guests, d.guest_count * sizeof *d.guests);
        ev->now_ms = engine_now_ms(r->engine);
        int rc = lmo_drain_step(&d, ev, &err);
        if (rc < 0) {
            engine_reply_fail(r->fn, r->arg, rc, ev->kind == LMO_DRAIN_EV_ACKNOWLEDGED ? "host" : "id", "%s", err.text);
        } else {
            (void)engine_would(r, 200, engine_drain_json(r->engine, &d, true), "drain %s would be %s", d.id,
                               lmo_drain_state_text(d.state));
        }
    }
    engine_drain_free_arrays(&d);
}

static void drain_act(struct request *r)
{
    static const enum lmo_drain_event_kind kinds[] = {[LMO_DRAIN_ACT_PAUSE] = LMO_DRAIN_EV_PAUSE,
                                                      [LMO_DRAIN_ACT_RESUME] = LMO_DRAIN_EV_RESUME,
                                                      [LMO_DRAIN_ACT_CANCEL] = LMO_DRAIN_EV_CANCEL,
                                                      [LMO_DRAIN_ACT_ACKNOWLEDGE] = LMO_DRAIN_EV_ACKNOWLEDGED};
    const struct steering *c = r->more;
    struct lmo_engine *e = r->engine;
    struct drain *dr = engine_drain(e, r->name);
    struct lmo_err err = {0};
    char text[LMO_TEXT_MAX], etag[LMO_ETAG_MAX];
    (void)snprintf(text, sizeof text, "%s by %.200s", c->act == LMO_DRAIN_ACT_PAUSE ? "paused" : "cancelled",
                   c->principal);
    struct lmo_drain_event ev = {.kind = kinds[c->act], .text = text};
    if (!dr) {
        refuse_ended(r);
        return;
    }
    engine_drain_etag(&dr->d, etag);
    if (!engine_matches(r, etag)) {
        return;
    }
    while (c->act == LMO_DRAIN_ACT_ACKNOWLEDGE && ev.host < dr->d.host_count &&
           strcmp(dr->d.hosts[ev.host].name, c->host) != 0) {
        ev.host++;
    }
    if (ev.host == dr->d.host_count) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "host", "host %s is not part of drain %s", c->host, dr->d.id);
        return;
    }
    if (r->ask.dry_run) {
        try_it(r, dr, &ev);
        return;
    }
    if (e->stalled) {
        engine_reply_fail(r->fn, r->arg, LMO_E_UNAVAILABLE, "", "the coordinator's store cannot be written now");
        return;
    }
    if (engine_drain_step(dr, &ev, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, c->act == LMO_DRAIN_ACT_ACKNOWLEDGE ? "host" : "id", "%s", err.text);
        return;
    }
    const struct drain_waiter who = {.writes = true, .keyed = r->keyed, .status = 200, .fn = r->fn, .arg = r->arg};
    engine_drain_wait(dr, dr->d.version - 1, COMMIT_MS, &who); /* E3: answered by the commit */
}

int lmo_engine_drain_act(struct lmo_engine *e, const char *id, enum lmo_drain_act act, const char *host,
                         const char *principal, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(drain_act, fn, arg, id);
    struct steering *c = calloc(1, sizeof *c);
    if (!c) {
        return LMO_E_NO_MEMORY;
    }
    c->act = act;
    LMO_COPY(c->host, host);
    LMO_COPY(c->principal, principal);
    r.more = c;
    return engine_post(e, &r);
}
