/* records.c - the two lists of records: made by orders, loaded at start, removed when their migration is closed. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- set-up ---- */

struct lmo_record *lmo_record_new(const struct lmo_op_request *setup, const char *permit_text,
                                  const struct lmo_permit *permit)
{
    struct lmo_record *r = calloc(1, sizeof *r);
    lmo_assert(r);
    if (setup) {
        r->setup = *setup;
        r->setup.xml = r->setup.permit = NULL; /* not needed again; the request keeps them */
    }
    if (permit_text && permit) {
        r->permit_text = strdup(permit_text);
        lmo_assert(r->permit_text);
        r->permit = *permit;
    }
    return r;
}

struct lmo_record *lmo_record_free(struct lmo_record *r)
{
    if (r) {
        free(r->permit_text);
        free(r);
    }
    return NULL;
}

/* ---- permits that came before their job ---- */

void lmo_permit_cache_put(struct lmo_worker *w, const char *migration, const char *text)
{
    struct lmo_permit_cache_entry *e = w->permits;
    unsigned at = 0;
    while (at < LMO_PERMIT_CACHE_MAX - 1 && strcmp(e[at].migration, migration) != 0 && e[at].text) {
        at++;
    }
    if (e[at].text && strcmp(e[at].migration, migration) != 0) { /* full: the oldest goes */
        free(e[0].text);
        memmove(&e[0], &e[1], sizeof e[0] * at);
        e[at].text = NULL;
    }
    char *copy = strdup(text);
    lmo_assert(copy);
    free(e[at].text);
    e[at].text = copy;
    snprintf(e[at].migration, sizeof e[at].migration, "%s", migration);
}

const char *lmo_permit_cache_get(struct lmo_worker *w, const char *migration)
{
    for (unsigned i = 0; i < LMO_PERMIT_CACHE_MAX && w->permits[i].text; i++) {
        if (strcmp(w->permits[i].migration, migration) == 0) {
            return w->permits[i].text;
        }
    }
    return NULL;
}

/* ---- find, make, remove ---- */

struct lmo_incoming *lmo_incoming_find(struct lmo_worker *w, const char *migration)
{
    struct lmo_incoming *in = w->incoming;
    while (in && strcmp(in->dst.migration, migration) != 0) {
        in = in->next;
    }
    return in;
}

struct lmo_outgoing *lmo_outgoing_find(struct lmo_worker *w, const char *migration)
{
    struct lmo_outgoing *out = w->outgoing;
    while (out && strcmp(out->src.migration, migration) != 0) {
        out = out->next;
    }
    return out;
}

bool lmo_incoming_over(const struct lmo_incoming *in)
{
    return in->dst.stage == LMO_DST_DONE || in->dst.stage == LMO_DST_DISCARDED || in->dst.stage == LMO_DST_LOST;
}

bool lmo_outgoing_over(const struct lmo_outgoing *out)
{
    bool ended = out->src.stage == LMO_SRC_KILLED || out->src.stage == LMO_SRC_REVIVED || out->src.stage == LMO_SRC_RAN;
    return ended && !out->src.job_running;
}

/* New records stand at the head of their list: the first that fits is the newest. */
struct lmo_incoming *lmo_incoming_of_vm(struct lmo_worker *w, const char *vm)
{
    struct lmo_incoming *in = w->incoming;
    while (in && (strcmp(in->dst.vm, vm) != 0 || lmo_incoming_over(in))) {
        in = in->next;
    }
    return in;
}

struct lmo_outgoing *lmo_outgoing_of_vm(struct lmo_worker *w, const char *vm)
{
    struct lmo_outgoing *out = w->outgoing;
    while (out && (strcmp(out->src.vm, vm) != 0 || lmo_outgoing_over(out))) {
        out = out->next;
    }
    return out;
}

int lmo_incoming_make(struct lmo_worker *w, const char *migration, const char *vm, struct lmo_incoming **ret,
                      struct lmo_err *err)
{
    if (w->incoming_count >= LMO_MIGRATIONS_MAX) {
        return lmo_fail(err, LMO_E_LIMIT, "%u migrations to this host are not closed yet; that is the limit",
                        w->incoming_count);
    }
    struct lmo_incoming *in = calloc(1, sizeof *in);
    if (!in) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for another migration");
    }
    in->w = w;
    in->observed = true; /* nothing of it can have happened yet */
    snprintf(in->dst.migration, sizeof in->dst.migration, "%s", migration);
    snprintf(in->dst.vm, sizeof in->dst.vm, "%s", vm);
    in->next = w->incoming;
    w->incoming = in;
    w->incoming_count++;
    *ret = in;
    return 0;
}

int lmo_outgoing_make(struct lmo_worker *w, const char *migration, const char *vm, struct lmo_outgoing **ret,
                      struct lmo_err *err)
{
    if (w->outgoing_count >= LMO_MIGRATIONS_MAX) {
        return lmo_fail(err, LMO_E_LIMIT, "%u migrations from this host are not closed yet; that is the limit",
                        w->outgoing_count);
    }
    struct lmo_outgoing *out = calloc(1, sizeof *out);
    if (!out) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for another migration");
    }
    out->w = w;
    out->observed = true;
    snprintf(out->src.migration, sizeof out->src.migration, "%s", migration);
    snprintf(out->src.vm, sizeof out->src.vm, "%s", vm);
    out->next = w->outgoing;
    w->outgoing = out;
    w->outgoing_count++;
    *ret = out;
    return 0;
}

static void deferred_free(struct lmo_deferred *d)
{
    while (d) {
        struct lmo_deferred *next = d->next;
        free(d);
        d = next;
    }
}

void lmo_incoming_remove(struct lmo_incoming *in)
{
    struct lmo_worker *w = in->w;
    for (struct lmo_incoming **at = &w->incoming; *at; at = &(*at)->next) {
        if (*at == in) {
            *at = in->next;
            w->incoming_count--;
            break;
        }
    }
    lmo_loop_cancel(w->loop, &in->wake_timer);
    lmo_loop_cancel(w->loop, &in->observe_timer);
    lmo_loop_cancel(w->loop, &in->warm_timer);
    deferred_free(in->deferred);
    lmo_record_free(in->more);
    free(in);
}

void lmo_outgoing_remove(struct lmo_outgoing *out)
{
    struct lmo_worker *w = out->w;
    for (struct lmo_outgoing **at = &w->outgoing; *at; at = &(*at)->next) {
        if (*at == out) {
            *at = out->next;
            w->outgoing_count--;
            break;
        }
    }
    lmo_loop_cancel(w->loop, &out->wake_timer);
    lmo_loop_cancel(w->loop, &out->observe_timer);
    lmo_loop_cancel(w->loop, &out->warm_timer);
    lmo_loop_cancel(w->loop, &out->watch_timer);
    while (out->askers) {
        struct lmo_asker *a = out->askers;
        out->askers = a->next;
        lmo_http_reply_fail(a->http, w->stopping ? LMO_E_UNAVAILABLE : LMO_E_GONE, "%s",
                            w->stopping ? "this worker is stopping" : "the migration is closed here");
        free(a);
    }
    deferred_free(out->deferred);
    lmo_record_free(out->more);
    free(out);
}

/* ---- at start ---- */

/* Decodes what belongs to a record. A set-up that cannot be read any more is worth a loud line, not a worker that
 * does not start: the machine then asks for a permit again, or is told what to do by its coordinator. */
static struct lmo_record *load_more(struct lmo_worker *w, const char *migration, const char *request,
                                    const char *permit_text)
{
    struct lmo_op_request setup = {0};
    struct lmo_err err = {0};
    struct lmo_permit *permit = NULL;
    struct lmo_record *more = NULL;
    if (request && lmo_op_request_decode(request, strlen(request), &setup, &err) < 0) {
        lmo_log(LMO_LOG_ERROR, "journaled order cannot be read", "migration=%s reason=%s", migration, err.text);
        return NULL;
    }
    if (permit_text) {
        permit = calloc(1, sizeof *permit);
        lmo_assert(permit);
        if (lmo_worker_verify_permit(w, permit_text, permit, &err) < 0) {
            lmo_log(LMO_LOG_ERROR, "journaled permit is not valid", "migration=%s reason=%s", migration, err.text);
            permit_text = NULL;
        }
    }
    if (request || permit_text) {
        more = lmo_record_new(request ? &setup : NULL, permit_text, permit_text ? permit : NULL);
    }
    lmo_op_request_done(&setup);
    free(permit);
    return more;
}

static int load_dst(void *arg, const struct lmo_dst *d, const char *request, const char *permit)
{
    struct lmo_worker *w = arg;
    struct lmo_incoming *in;
    struct lmo_err err = {0};
    int r = lmo_incoming_make(w, d->migration, d->vm, &in, &err);
    if (r < 0) {
        return r;
    }
    in->dst = *d;
    in->observed = false;
    in->more = load_more(w, d->migration, request, permit);
    lmo_log(LMO_LOG_INFO, "destination record loaded", "migration=%s vm=%s epoch=%llu stage=%s", d->migration, d->vm,
            (unsigned long long)d->epoch, lmo_dst_stage_text(d->stage));
    return 0;
}

static int load_src(void *arg, const struct lmo_src *s, const char *request, const char *permit)
{
    struct lmo_worker *w = arg;
    struct lmo_outgoing *out;
    struct lmo_err err = {0};
    int r = lmo_outgoing_make(w, s->migration, s->vm, &out, &err);
    if (r < 0) {
        return r;
    }
    out->src = *s;
    out->observed = false;
    out->more = load_more(w, s->migration, request, permit);
    lmo_log(LMO_LOG_INFO, "source record loaded", "migration=%s vm=%s epoch=%llu stage=%s job_running=%d", s->migration,
            s->vm, (unsigned long long)s->epoch, lmo_src_stage_text(s->stage), s->job_running);
    return 0;
}

int lmo_records_load(struct lmo_worker *w, struct lmo_err *err)
{
    int r = lmo_journal_load_dst(w->journal, load_dst, w, err);
    return r < 0 ? r : lmo_journal_load_src(w->journal, load_src, w, err);
}

void lmo_records_start(struct lmo_worker *w)
{
    for (struct lmo_incoming *in = w->incoming; in; in = in->next) {
        lmo_incoming_observe(in);
        lmo_incoming_warm(in);
    }
    for (struct lmo_outgoing *out = w->outgoing; out; out = out->next) {
        lmo_outgoing_observe(out);
    }
}

void lmo_records_free(struct lmo_worker *w)
{
    while (w->incoming) {
        lmo_incoming_remove(w->incoming);
    }
    while (w->outgoing) {
        lmo_outgoing_remove(w->outgoing);
    }
    for (unsigned i = 0; i < LMO_PERMIT_CACHE_MAX; i++) {
        free(w->permits[i].text);
    }
}
