/* audit.c - the audit trail: lines come from any thread and go into the next commit. A line that says "asked" is posted
 * before the request that it speaks of, so it is stored no later than what the request changes. */
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"
#include "proto/codec.h"

#include <stdio.h>
#include <stdlib.h>

struct line {
    struct lmo_engine *engine;
    struct lmo_audit_line line;
};

static void add(void *arg)
{
    struct line *l = arg;
    engine_audit(l->engine, &l->line);
    free(l);
}

void engine_audit(struct lmo_engine *e, struct lmo_audit_line *line)
{
    line->at_ms = engine_now_ms(e);
    if (!e->store->ops->audit) {
        return;
    }
    if (e->store->ops->audit(e->store, line) <
        0) { /* 4,096 wait for a store that cannot be written: it says so already */
        lmo_log(LMO_LOG_ERROR, "audit line lost", "request=%s principal=%s action=%s outcome=%s", line->request,
                line->principal, line->action, line->outcome);
        return;
    }
    e->audits = true;
    engine_flush_soon(e);
}

int lmo_engine_audit(struct lmo_engine *e, const struct lmo_audit_line *line)
{
    if (atomic_load(&e->closed)) {
        return 0; /* the outcome of what is refused because the coordinator stops: nothing was changed */
    }
    struct line *l = malloc(sizeof *l);
    if (!l) {
        return LMO_E_NO_MEMORY;
    }
    *l = (struct line){.engine = e, .line = *line};
    int r = lmo_loop_post(e->loop, add, l);
    if (r < 0) {
        free(l);
    }
    return r;
}

/* ------------------------------------------------------------------ looking at it */

struct listing {
    json_t *array;
    unsigned limit;
    uint64_t last;
    bool more;
    int failed;
};

static int list_one(void *arg, const struct lmo_audit_line *l)
{
    struct listing *list = arg;
    if (json_array_size(list->array) == list->limit) {
        list->more = true;
        return 1;
    }
    list->last = l->n;
    json_t *o = json_object();
#define TEXT(field) lmo_codec_string(l->field, sizeof l->field - 1)
    int r = lmo_json_put_u64(o, "n", l->n);
    r |= lmo_json_put_i64(o, "at_ms", l->at_ms);
    r |= lmo_json_put(o, "request", TEXT(request));
    r |= lmo_json_put(o, "principal", TEXT(principal));
    r |= lmo_json_put(o, "remote", TEXT(remote));
    r |= lmo_json_put(o, "action", TEXT(action));
    r |= lmo_json_put(o, "migration", l->migration[0] ? TEXT(migration) : json_null());
    r |= lmo_json_put(o, "host", l->host[0] ? TEXT(host) : json_null());
    r |= lmo_json_put(o, "outcome", TEXT(outcome));
    r |= lmo_json_put(o, "detail", TEXT(detail));
#undef TEXT
    list->failed |= r;
    list->failed |= lmo_json_add(list->array, o);
    return 0;
}

static void audit_list(struct request *r)
{
    const struct lmo_store_ops *ops = r->engine->store->ops;
    struct listing list = {.array = json_array(), .limit = r->page.limit};
    struct lmo_err err = {0};
    char position[24];
    const struct lmo_audit_filter f = {.migration = r->filter.before,
                                       .host = r->filter.host,
                                       .principal = r->name,
                                       .since_ms = r->filter.since_ms,
                                       .until_ms = r->filter.until_ms};
    uint64_t before = r->version ? r->version : strtoull(r->page.after, NULL, 10);
    int rc = ops->audit_list ? ops->audit_list(r->engine->store, &f, before, list.limit + 1, list_one, &list, &err) : 0;
    json_t *body = json_object();
    list.failed |= lmo_json_put(body, "audit", list.array);
    (void)snprintf(position, sizeof position, "%llu", (unsigned long long)list.last);
    list.failed |= lmo_page_put_next(body, &r->page, list.more ? position : NULL);
    if (rc < 0 || list.failed) {
        json_decref(body);
        engine_reply_fail(r->fn, r->arg, rc < 0 ? rc : LMO_E_NO_MEMORY, "", "%s",
                          rc < 0 ? err.text : "no memory for the list");
        return;
    }
    engine_reply_ok(r->fn, r->arg, 200, body, "");
}

int lmo_engine_audit_list(struct lmo_engine *e, const struct lmo_audit_filter *filter, uint64_t before,
                          const struct lmo_page *page, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(audit_list, fn, arg, filter->principal);
    LMO_COPY(r.filter.before, filter->migration);
    LMO_COPY(r.filter.host, filter->host);
    r.filter.since_ms = filter->since_ms;
    r.filter.until_ms = filter->until_ms;
    r.version = before;
    r.page = *page;
    return engine_post(e, &r);
}
