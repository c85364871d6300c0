/* coordinator.c - a whole coordinator in this process, and its twin that polls. See bench.h. */
#include "bench/lib/bench.h"

#include "api/api.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/str.h"
#include "rpc/workers.h"
#include "simworkers/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POSTS_MAX 8192 /* as lmod */

/* ------------------------------------------------------------------ the poll
 *
 * Between the engine and the real workers: calls go out at once, but what comes back (answers, events) is looked at only
 * when the poll is due. */

struct kept {
    struct kept *next;
    /* an answer */
    lmo_op_done_fn *done;
    void *arg;
    int code;
    char text[LMO_TEXT_MAX];
    bool has_reply;
    struct lmo_op_reply reply;
    /* events, if done is NULL */
    char host[LMO_NAME_MAX];
    struct lmo_worker_event *events;
    unsigned count;
    uint64_t cursor;
};

struct poller {
    struct lmo_workers base;
    struct lmo_workers *inner;
    struct coordinator *c;
    struct kept *first, **last;
    uint64_t timer;
};

struct outstanding {
    struct poller *p;
    lmo_op_done_fn *done;
    void *arg;
};

static struct poller *poller_of(struct lmo_workers *w)
{
    return (struct poller *)(void *)w;
}

static struct kept *keep(struct poller *p)
{
    struct kept *k = calloc(1, sizeof *k);
    lmo_assert(k);
    *p->last = k;
    p->last = &k->next;
    return k;
}

static void look(void *arg)
{
    struct poller *p = arg;
    struct kept *k = p->first, *next;
    p->first = NULL;
    p->last = &p->first;
    for (; k; k = next) {
        next = k->next;
        if (k->done) {
            k->done(k->arg, k->code, k->text, k->has_reply ? &k->reply : NULL);
            free(k->reply.xml);
        } else {
            const struct lmo_workers_callbacks *cb = &p->c->inner_callbacks;
            cb->events(cb->arg, k->host, k->events, k->count, k->cursor);
            free(k->events);
        }
        free(k);
    }
    lmo_assert(lmo_loop_timer(p->c->loop, p->c->poll_ms, look, p, &p->timer) == 0);
}

static void answered(void *arg, int code, const char *text, const struct lmo_op_reply *reply)
{
    struct outstanding *o = arg;
    struct kept *k = keep(o->p);
    k->done = o->done;
    k->arg = o->arg;
    k->code = code;
    LMO_COPY(k->text, text);
    if (reply) {
        k->has_reply = true;
        k->reply = *reply;
        k->reply.xml = reply->xml ? strdup(reply->xml) : NULL;
    }
    free(o);
}

static int poll_op(struct lmo_workers *w, const char *host, const struct lmo_op_request *req, uint32_t timeout_ms,
                   lmo_op_done_fn *done, void *arg, struct lmo_err *err)
{
    struct poller *p = poller_of(w);
    struct outstanding *o = malloc(sizeof *o);
    lmo_assert(o);
    *o = (struct outstanding){p, done, arg};
    int r = p->inner->ops->op(p->inner, host, req, timeout_ms, answered, o, err);
    if (r < 0) {
        free(o);
    }
    return r;
}

static int poll_host_add(struct lmo_workers *w, const char *name, const char *url, uint64_t cursor, struct lmo_err *err)
{
    return poller_of(w)->inner->ops->host_add(poller_of(w)->inner, name, url, cursor, err);
}

static void poll_host_remove(struct lmo_workers *w, const char *name)
{
    poller_of(w)->inner->ops->host_remove(poller_of(w)->inner, name);
}

static void poll_acknowledge(struct lmo_workers *w, const char *host, uint64_t cursor)
{
    poller_of(w)->inner->ops->acknowledge(poller_of(w)->inner, host, cursor);
}

static int poll_observe(struct lmo_workers *w, const char *host, const char *path, uint32_t timeout_ms,
                        lmo_observe_done_fn *done, void *arg, struct lmo_err *err)
{
    return poller_of(w)->inner->ops->observe(poller_of(w)->inner, host, path, timeout_ms, done, arg, err);
}

static void poll_close(struct lmo_workers *w)
{
    struct poller *p = poller_of(w);
    p->inner->ops->close(p->inner);
    lmo_loop_cancel(p->c->loop, &p->timer);
    look(p); /* what the engine is still owed */
    lmo_loop_cancel(p->c->loop, &p->timer);
    free(p);
}

static const struct lmo_workers_ops poll_ops = {.close = poll_close,
                                                .host_add = poll_host_add,
                                                .host_remove = poll_host_remove,
                                                .acknowledge = poll_acknowledge,
                                                .op = poll_op,
                                                .observe = poll_observe};

/* ------------------------------------------------------------------ ears */

static void on_events(void *arg, const char *host, const struct lmo_worker_event *events, unsigned count, uint64_t next)
{
    struct coordinator *c = arg;
    if (!c->poller) {
        c->inner_callbacks.events(c->inner_callbacks.arg, host, events, count, next);
        return;
    }
    struct kept *k = keep(c->poller);
    LMO_COPY(k->host, host);
    k->events = calloc(count + 1, sizeof *events);
    lmo_assert(k->events);
    memcpy(k->events, events, count * sizeof *events);
    k->count = count;
    k->cursor = next;
}

static void on_host_state(void *arg, const char *host, const struct lmo_host_facts *facts, const char *why)
{
    struct coordinator *c = arg;
    c->inner_callbacks.host_state(c->inner_callbacks.arg, host, facts, why);
    bool *was = &c->host_up[strtoul(host + strcspn(host, "0123456789"), NULL, 10) % BENCH_HOSTS_MAX];
    if ((facts != NULL) != *was) {
        *was = facts != NULL;
        c->up += *was ? 1U : -1U;
    }
}

static struct coordinator *heard; /* commit() of a store has no other way to us; one coordinator at a time */

static int on_commit(struct lmo_store *s, const struct lmo_commit_item *items, unsigned count,
                     const struct lmo_commit_cursor *cursors, unsigned cursor_count, struct lmo_err *err)
{
    struct coordinator *c = heard;
    int r = c->inner_store->commit(s, items, count, cursors, cursor_count, err);
    for (unsigned i = 0; r == 0 && i < count; i++) {
        const struct lmo_migration *m = items[i].record;
        c->transitions++;
        if (lmo_phase_is(m->phase, LMO_PHASE_TERMINAL)) {
            unsigned guest = (unsigned)strtoul(m->vm.uuid + 24, NULL, 16);
            lmo_assert(guest < c->guests);
            c->ended_ns[guest] = lmo_now_ns();
            c->ended_well += m->phase == LMO_PHASE_COMPLETED;
            c->ended++;
            if (m->phase != LMO_PHASE_COMPLETED && c->ended - c->ended_well <= 3) {
                (void)fprintf(stderr, "%s: %s in %s: %s\n", m->vm.name, lmo_phase_text(m->phase),
                              lmo_phase_text(m->failed_in), m->reason);
            }
        }
    }
    return r;
}

/* ------------------------------------------------------------------ life */

static void *run(void *arg)
{
    struct coordinator *c = arg;
    check(lmo_loop_run(c->loop), NULL, "coordinator's loop");
    return NULL;
}

static void open_workers(struct coordinator *c, const struct lmo_tls_files *tls)
{
    struct lmo_err err = {0};
    struct lmo_workers *real;
    c->inner_callbacks = *lmo_engine_callbacks(c->engine);
    c->callbacks = (struct lmo_workers_callbacks){.arg = c, .events = on_events, .host_state = on_host_state};
    check(lmo_workers_http_open(c->loop, tls, &c->callbacks, &real, &err), &err, "workers");
    c->workers = real;
    if (c->poll_ms > 0) {
        struct poller *p = calloc(1, sizeof *p);
        lmo_assert(p);
        *p = (struct poller){.base.ops = &poll_ops, .inner = real, .c = c, .last = &p->first};
        c->poller = p;
        c->workers = &p->base;
        lmo_assert(lmo_loop_timer(c->loop, c->poll_ms, look, p, &p->timer) == 0);
    }
}

struct coordinator *coordinator_start(const char *dir, const char *state, unsigned guests, unsigned poll_ms)
{
    struct coordinator *c = calloc(1, sizeof *c);
    struct lmo_err err = {0};
    char path[LMO_PATH_MAX];
    lmo_assert(c);
    heard = c;
    c->guests = guests;
    c->poll_ms = poll_ms;
    c->ended_ns = calloc(guests, sizeof *c->ended_ns);
    lmo_assert(c->ended_ns);
    struct lmo_tls_files tls = fleet_tls(dir, "coordinator", "fleet");
    check(lmo_loop_new(POSTS_MAX, &c->loop, &err), &err, "loop");
    check(lmo_store_sqlite_open(state, &c->store, &err), &err, "store");
    c->inner_store = c->store->ops;
    c->store_ops = *c->inner_store;
    c->store_ops.commit = on_commit;
    c->store->ops = &c->store_ops;
    snprintf(path, sizeof path, "%.900s/pki/permit.key", dir);
    check(lmo_permit_key_load(path, &c->key, &err), &err, "permit key");
    struct lmo_engine_config cfg = {.loop = c->loop, .store = c->store, .permit_key = c->key, .limits = &bench_limits};
    check(lmo_engine_new(&cfg, &c->engine, &err), &err, "engine");
    open_workers(c, &tls);
    check(lmo_engine_start(c->engine, c->workers, &err), &err, "engine");
    struct lmo_api_config api = {.tls = tls, .engine = c->engine, .rate_per_s = 1000000, .burst = 1000000}; /* not measured */
    LMO_COPY(api.address, "127.0.0.1:0");
    check(lmo_api_start(&api, &c->api, &err), &err, "api");
    check(pthread_create(&c->thread, NULL, run, c) == 0 ? 0 : LMO_E_LIMIT, NULL, "coordinator's thread");
    return c;
}

void coordinator_stop(struct coordinator *c)
{
    lmo_loop_stop(c->loop);
    pthread_join(c->thread, NULL);
    c->api = lmo_api_stop(c->api);
    lmo_engine_stop(c->engine);
    c->workers->ops->close(c->workers);
    c->engine = lmo_engine_free(c->engine);
    c->store->ops->close(c->store);
    c->key = lmo_permit_key_free(c->key);
    c->loop = lmo_loop_free(c->loop);
    free(c->ended_ns);
    free(c);
}
