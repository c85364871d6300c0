/* drain_requests.c - looking at drains, waiting for them, and steering them. */
#include "engine/drains_internal.h"

#include "base/json.h"
#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMIT_MS 25000 /* before the API itself gives up */

struct drain_call {
    struct lmo_engine *engine;
    void (*run)(struct drain_call *c);
    lmo_engine_reply_fn *fn;
    void *arg;
    char id[LMO_ID_MAX], state[32], before[LMO_ID_MAX], host[LMO_NAME_MAX], principal[LMO_NAME_MAX + 32];
    uint64_t version;
    uint32_t wait_ms;
    unsigned limit;
    enum lmo_drain_act act;
    bool dry_run;
};

static void run_call(void *arg)
{
    struct drain_call *c = arg;
    c->run(c);
    free(c);
}

static int post_call(struct lmo_engine *e, const struct drain_call *template)
{
    struct drain_call *c = malloc(sizeof *c);
    if (!c) {
        return LMO_E_NO_MEMORY;
    }
    *c = *template;
    c->engine = e;
    int r = lmo_loop_post(e->loop, run_call, c);
    if (r < 0) {
        free(c);
    }
    return r;
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
        engine_reply_ok(w->fn, w->arg, 200, engine_drain_json(dr->engine, &dr->d, true), "");
    }
    free(w);
}

static void wait_for(struct drain *dr, uint64_t version, uint32_t wait_ms, bool writes, lmo_engine_reply_fn *fn,
                     void *arg)
{
    struct drain_waiter *w = calloc(1, sizeof *w);
    if (!w || lmo_loop_timer(dr->engine->loop, wait_ms, on_wait_over, w, &w->timer) < 0) {
        free(w);
        engine_reply_fail(fn, arg, LMO_E_NO_MEMORY, "", "no memory for a wait");
        return;
    }
    w->drain = dr;
    w->writes = writes;
    w->version = version;
    w->fn = fn;
    w->arg = arg;
    w->next = dr->waiters;
    dr->waiters = w;
    dr->waiter_count++;
}

static void reply_stored(struct drain_call *c)
{
    struct lmo_drain d;
    struct lmo_err err = {0};
    if (engine_drain_read(c->engine, c->id, &d, &err) < 0) {
        engine_reply_fail(c->fn, c->arg, err.code, "id", "%s",
                          err.code == LMO_E_NOT_FOUND ? "no drain has this id" : err.text);
        return;
    }
    engine_reply_ok(c->fn, c->arg, 200, engine_drain_json(c->engine, &d, true), "");
    engine_drain_free_arrays(&d);
}

static void drain_get(struct drain_call *c)
{
    struct drain *dr = engine_drain(c->engine, c->id);
    if (!dr || !dr->stored) {
        reply_stored(c);
    } else if (c->wait_ms == 0 || dr->d.version > c->version || dr->waiter_count >= LMO_WAITERS_MAX) {
        engine_reply_ok(c->fn, c->arg, 200, engine_drain_json(c->engine, &dr->d, true), "");
    } else {
        wait_for(dr, c->version, c->wait_ms, false, c->fn, c->arg);
    }
}

int lmo_engine_drain_get(struct lmo_engine *e, const char *id, uint64_t wait_version, uint32_t wait_ms,
                         lmo_engine_reply_fn *fn, void *arg)
{
    struct drain_call c = {.run = drain_get, .fn = fn, .arg = arg, .version = wait_version, .wait_ms = wait_ms};
    LMO_COPY(c.id, id);
    return post_call(e, &c);
}

struct listing {
    struct lmo_engine *engine;
    json_t *array;
    int failed;
};

static int list_one(void *arg, const struct lmo_object *o)
{
    struct listing *l = arg;
    struct lmo_drain d = {0};
    struct lmo_err err = {0};
    const struct drain *open = engine_drain(l->engine, o->key);
    if (!open && engine_drain_decode(o->text, &d, &err) < 0) {
        lmo_log(LMO_LOG_ERROR, "stored drain cannot be read: left out of a list", "why=%s", err.text);
        return 0;
    }
    l->failed |= lmo_json_add(l->array, engine_drain_json(l->engine, open ? &open->d : &d, false));
    return 0;
}

static void drain_list(struct drain_call *c)
{
    const struct lmo_store_ops *ops = c->engine->store->ops;
    const struct lmo_object_query q = {.kind = LMO_OBJECT_DRAIN,
                                       .state = c->state,
                                       .before = c->before,
                                       .limit = c->limit};
    struct listing l = {.engine = c->engine, .array = json_array()};
    struct lmo_err err = {0};
    int r = ops->objects ? ops->objects(c->engine->store, &q, list_one, &l, &err) : 0;
    json_t *body = json_object();
    l.failed |= lmo_json_put(body, "drains", l.array);
    if (r < 0 || l.failed) {
        json_decref(body);
        engine_reply_fail(c->fn, c->arg, r < 0 ? r : LMO_E_NO_MEMORY, "", "%s",
                          r < 0 ? err.text : "no memory for the list");
        return;
    }
    engine_reply_ok(c->fn, c->arg, 200, body, "");
}

int lmo_engine_drain_list(struct lmo_engine *e, const char *state, const char *before, unsigned limit,
                          lmo_engine_reply_fn *fn, void *arg)
{
    struct drain_call c = {.run = drain_list, .fn = fn, .arg = arg, .limit = limit};
    LMO_COPY(c.state, state);
    LMO_COPY(c.before, before);
    return post_call(e, &c);
}

static void drain_act(struct drain_call *c)
{
    static const enum lmo_drain_event_kind kinds[] = {[LMO_DRAIN_ACT_PAUSE] = LMO_DRAIN_EV_PAUSE,
                                                      [LMO_DRAIN_ACT_RESUME] = LMO_DRAIN_EV_RESUME,
                                                      [LMO_DRAIN_ACT_CANCEL] = LMO_DRAIN_EV_CANCEL,
                                                      [LMO_DRAIN_ACT_ACKNOWLEDGE] = LMO_DRAIN_EV_ACKNOWLEDGED};
    struct lmo_engine *e = c->engine;
    struct drain *dr = engine_drain(e, c->id);
    struct lmo_err err = {0};
    char text[LMO_TEXT_MAX];
    (void)snprintf(text, sizeof text, "cancelled by %.200s", c->principal);
    struct lmo_drain_event ev = {.kind = kinds[c->act], .text = text};
    if (!dr) {
        struct lmo_drain d;
        if (engine_drain_read(e, c->id, &d, &err) < 0) {
            engine_reply_fail(c->fn, c->arg, err.code, "id", "%s",
                              err.code == LMO_E_NOT_FOUND ? "no drain has this id" : err.text);
        } else {
            engine_reply_fail(c->fn, c->arg, LMO_E_CONFLICT, "id", "drain %s has ended (%s)", d.id,
                              lmo_drain_state_text(d.state));
            engine_drain_free_arrays(&d);
        }
        return;
    }
    if (e->stalled) {
        engine_reply_fail(c->fn, c->arg, LMO_E_UNAVAILABLE, "", "the coordinator's store cannot be written now");
        return;
    }
    while (c->act == LMO_DRAIN_ACT_ACKNOWLEDGE && ev.host < dr->d.host_count &&
           strcmp(dr->d.hosts[ev.host].name, c->host) != 0) {
        ev.host++;
    }
    if (ev.host == dr->d.host_count) {
        engine_reply_fail(c->fn, c->arg, LMO_E_NOT_FOUND, "host", "host %s is not part of drain %s", c->host, dr->d.id);
        return;
    }
    if (c->dry_run) {
        engine_reply_ok(c->fn, c->arg, 200, engine_drain_json(e, &dr->d, true), "");
        return;
    }
    if (engine_drain_step(dr, &ev, &err) < 0) {
        engine_reply_fail(c->fn, c->arg, err.code, c->act == LMO_DRAIN_ACT_ACKNOWLEDGE ? "host" : "id", "%s", err.text);
        return;
    }
    wait_for(dr, dr->d.version - 1, COMMIT_MS, true, c->fn, c->arg); /* E3: answered by the commit */
}

int lmo_engine_drain_act(struct lmo_engine *e, const char *id, enum lmo_drain_act act, const char *host, bool dry_run,
                         const char *principal, lmo_engine_reply_fn *fn, void *arg)
{
    struct drain_call c = {.run = drain_act, .fn = fn, .arg = arg, .act = act, .dry_run = dry_run};
    LMO_COPY(c.id, id);
    LMO_COPY(c.host, host);
    LMO_COPY(c.principal, principal);
    return post_call(e, &c);
}
