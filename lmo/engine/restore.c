/* restore.c - a store that was put back from a backup: look, say, and only when told so act.
 *
 * Invariants:
 *  B4  From the start to the activation nothing is ordered (engine_send asserts it), nobody outside is called (webhooks, hooks,
 *      notices, traces), no record is stepped, no event of a worker
 *      is taken or acknowledged, no worker is asked by itself: for a worker whose coordinator is lost, this one is no
 *      sign of life, but for the moments of a look, so that its dead-man ends what nobody watches.
 *  B5  Before it is activated its term is above every one that a worker obeys, and its epochs above all that a worker or a
 *      volume has seen; hosts that could not be asked (force) are outnumbered by a leap.
 *  B6  In this order, each durable before the next: epochs; every open record as core/restore.h says; the store's own mark.
 *      After a crash in between it observes again, and the same call goes on.
 *
 * A look: every worker's term (/healthz takes no side), then our own above it; what each host is; everything that the doctor
 * looks at. */
#include "core/restore.h"

#include "base/assert.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "core/doctor.h"
#include "engine/drains_internal.h"
#include "proto/codec.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_TIMEOUT_MS 5000
#define STRANGERS_MAX   4096
#define TURN_MS         100
#define TURNS_MAX       300                 /* then whoever asked is told to try again */
#define LEAP            (UINT64_C(1) << 20) /* terms or epochs that nobody has used up since a backup */

struct restoring {
    struct lmo_engine *engine;
    struct request *request; /* owned; NULL: the look at the start */
    unsigned pending, unseen;
    uint64_t term, epoch; /* the highest that was seen */
    bool no_memory;
    int code; /* why it cannot go on; 0 */
    char why[LMO_ERR_TEXT_MAX];
    struct lmo_restore_stranger *strangers;
    unsigned stranger_count;
    json_t *migrations; /* owned: what becomes of each open record */
    uint64_t timer;
};

struct ask {
    struct restoring *r;
    char host[LMO_NAME_MAX];
    bool facts; /* else: its term */
};

bool engine_observing(const struct lmo_engine *e)
{
    return e->observing;
}

static void stop_with(struct restoring *r, int code, const char *why)
{
    if (r->code == 0) {
        r->code = code;
        LMO_COPY(r->why, why);
    }
}

static void done(struct restoring *r);
static void look_on(struct restoring *r);

/* ------------------------------------------------------------------ hosts */

static void on_answer(void *arg, int code, const char *text, const json_t *body)
{
    struct ask *a = arg;
    struct restoring *r = a->r;
    struct lmo_engine *e = r->engine;
    struct lmo_err err = {0};
    static struct lmo_host_facts facts; /* the loop thread's scratch */
    uint64_t term = 0;
    memset(&facts, 0, sizeof facts);
    if (code == 0 && !a->facts) {
        code = lmo_json_u64(body, "term", 0, INT64_MAX, &term, true, &err);
        r->term = term > r->term ? term : r->term;
    } else if (code == 0) {
        code = lmo_host_facts_from_json(body, &facts, &err);
        r->epoch = facts.epoch > r->epoch ? facts.epoch : r->epoch;
        r->term = facts.term > r->term ? facts.term : r->term;
    }
    if (code < 0) {
        e->callbacks.host_state(e, a->host, NULL, err.text[0] ? err.text : text);
    } else if (a->facts) {
        e->callbacks.host_state(e, a->host, &facts, "");
    }
    r->unseen += code < 0;
    free(a);
    r->pending--;
    look_on(r);
}

static void ask(struct restoring *r, const struct host *h, bool facts)
{
    struct lmo_engine *e = r->engine;
    struct lmo_err err = {0};
    struct ask *a = calloc(1, sizeof *a);
    lmo_assert(a);
    a->r = r;
    a->facts = facts;
    LMO_COPY(a->host, h->row.name);
    if (e->workers->ops->observe(e->workers, h->row.name, facts ? "/v1/observe/host" : "/healthz", LOOK_TIMEOUT_MS,
                                 on_answer, a, &err) < 0) {
        e->callbacks.host_state(e, a->host, NULL, err.text);
        r->unseen++;
        free(a);
        return;
    }
    r->pending++;
}

static void ask_all(struct restoring *r, bool facts)
{
    r->pending++; /* ours, until all are asked */
    for (struct host *h = r->engine->hosts; h; h = h->hh.next) {
        ask(r, h, facts);
    }
    r->pending--;
}

/* B5. */
static int raise_term(struct restoring *r, uint64_t leap)
{
    struct lmo_store *s = r->engine->store;
    struct lmo_err err = {0};
    uint64_t own = s->ops->term(s), want = (r->term >= own ? r->term + 1 : own) + leap;
    int rc = want > own ? s->ops->raise_term(s, want, &err) : 0;
    if (rc < 0) {
        stop_with(r, rc, err.text);
    } else if (r->engine->workers->ops->set_term) {
        r->engine->workers->ops->set_term(r->engine->workers, s->ops->term(s));
    }
    return rc;
}

/* ------------------------------------------------------------------ what was seen */

static bool is_live(enum lmo_run_state s)
{
    return s != LMO_RUN_SHUT_OFF && s != LMO_RUN_ABSENT;
}

static void view_of(const struct restoring *r, const struct lmo_doctor_world *w, const struct entry *entry,
                    struct lmo_restore_view *v)
{
    *v = (struct lmo_restore_view){.seen = r->unseen == 0};
    for (unsigned i = 0; i < w->host_count; i++) {
        v->seen = v->seen && w->hosts[i].seen;
    }
    for (unsigned i = 0; i < w->guest_count; i++) {
        const struct lmo_doctor_guest *g = &w->guests[i];
        if (strcmp(g->uuid, entry->vm) != 0) {
            continue;
        }
        LMO_COPY(v->defined, g->host);
        v->definitions++;
        if (is_live(g->state)) {
            LMO_COPY(v->host, g->host);
            v->copies++;
        }
    }
    for (unsigned i = 0; i < w->record_count; i++) {
        if (strcmp(w->records[i].migration, entry->id) == 0) {
            v->remembered = true;
            v->epoch = w->records[i].epoch > v->epoch ? w->records[i].epoch : v->epoch;
        }
    }
}

static bool stored(const struct restoring *r, const char *migration)
{
    static struct lmo_migration m; /* the loop thread's scratch */
    struct lmo_err err = {0};
    struct lmo_store *s = r->engine->store;
    return engine_entry(r->engine, migration) || s->ops->get(s, migration, &m, &err) != LMO_E_NOT_FOUND;
}

static void take_strangers(struct restoring *r, const struct lmo_doctor_world *w)
{
    for (unsigned i = 0; i < w->record_count; i++) {
        const struct lmo_doctor_record *d = &w->records[i];
        struct lmo_restore_stranger *s = NULL;
        for (unsigned n = 0; n < r->stranger_count && !s; n++) {
            s = strcmp(r->strangers[n].migration, d->migration) == 0 ? &r->strangers[n] : NULL;
        }
        if (!s && (!d->migration[0] || stored(r, d->migration))) {
            continue;
        }
        if (!s && r->stranger_count == STRANGERS_MAX) {
            stop_with(r, LMO_E_LIMIT,
                      "workers remember more migrations that this store does not know than can be looked at");
            return;
        }
        s = s ? s : &r->strangers[r->stranger_count++];
        LMO_COPY(s->migration, d->migration);
        LMO_COPY(s->vm, d->vm);
        s->epoch = d->epoch > s->epoch ? d->epoch : s->epoch;
        if (d->role == LMO_OP_ROLE_SOURCE) {
            LMO_COPY(s->source, d->worker);
            LMO_COPY(s->source_stage, d->stage);
        } else if (d->role == LMO_OP_ROLE_DESTINATION) {
            LMO_COPY(s->destination, d->worker);
            LMO_COPY(s->destination_stage, d->stage);
        }
    }
}

static json_t *outcome_json(const struct entry *entry, enum lmo_phase was, const struct lmo_migration *next)
{
    json_t *o = json_object();
    int rc = lmo_json_put_str(o, "id", entry->id);
    rc |= lmo_json_put_str(o, "vm", entry->vm);
    rc |= lmo_json_put_str(o, "was", lmo_phase_text(was));
    rc |= lmo_json_put_str(o, "becomes", lmo_phase_text(next->phase));
    rc |= lmo_json_put(o, "text", lmo_codec_string(next->reason, sizeof next->reason - 1));
    if (rc < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* What becomes of every open record: said, or (act) done. */
static void settle(struct restoring *r, const struct lmo_doctor_world *w, bool act)
{
    struct lmo_engine *e = r->engine;
    struct entry *entry, *tmp;
    HASH_ITER(hh, e->entries, entry, tmp)
    {
        struct lmo_restore_view v;
        struct lmo_err err = {0};
        enum lmo_phase was = entry->phase;
        view_of(r, w, entry, &v);
        int rc = engine_restored(entry, &v, act, &err);
        if (rc < 0) {
            stop_with(r, rc, err.text);
            return;
        }
        r->no_memory |=
            lmo_json_add(r->migrations, outcome_json(entry, was, act ? engine_record(entry) : e->spare)) < 0;
    }
}

/* ------------------------------------------------------------------ acting */

static json_t *restored_data(const struct lmo_engine *e)
{
    json_t *o = json_object();
    int64_t made_ms = 0;
    (void)e->store->ops->restored(e->store, &made_ms);
    if (lmo_json_put(o, "backup_made_ms", made_ms ? json_integer(made_ms) : json_null()) < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void begin_to_act(struct restoring *r)
{
    struct lmo_engine *e = r->engine;
    struct lmo_err err = {0};
    if (e->dirty || e->stalled) {
        return;
    }
    lmo_loop_cancel(e->loop, &r->timer);
    bool told = engine_tell(e, "store.restored", "", restored_data(e));
    int rc = e->store->ops->activate(e->store, &err);
    if (rc < 0) {
        engine_untold(e, told);
        stop_with(r, rc, err.text);
    } else {
        e->observing = false;
        engine_told(e);
        lmo_log(LMO_LOG_WARN, "activated after a restore: this coordinator acts from here on", "term=%" PRIu64 " by=%s",
                e->store->ops->term(e->store), r->request->url);
        engine_recover(e);
        engine_drains_activated(e);
        if (e->workers->ops->listen) {
            e->workers->ops->listen(e->workers, true);
        }
    }
    done(r);
}

/* The records are committed in batches by the engine's own flush; nothing of them is sent. */
static void on_committed(void *arg)
{
    struct restoring *r = arg;
    r->timer = 0;
    if (r->engine->stopping) {
        stop_with(r, LMO_E_UNAVAILABLE, "the coordinator is stopping");
        done(r);
        return;
    }
    if (r->engine->dirty || r->engine->stalled) {
        if (lmo_loop_timer(r->engine->loop, 50, on_committed, r, &r->timer) < 0) {
            lmo_unreachable("no timer for a restore");
        }
        return;
    }
    begin_to_act(r);
}

static void may_act(struct restoring *r)
{
    char text[LMO_ERR_TEXT_MAX];
    if (r->request->force) {
        return;
    }
    if (r->unseen > 0) {
        (void)snprintf(
            text, sizeof text,
            "%u host(s) could not be asked (lmo host list shows them): what they saw is not known. Bring their workers "
            "back, remove hosts that are gone for good, or use --force",
            r->unseen);
        stop_with(r, LMO_E_UNAVAILABLE, text);
    }
    for (unsigned i = 0; i < r->stranger_count; i++) {
        const struct lmo_restore_stranger *s = &r->strangers[i];
        if (!lmo_restore_stranger_rests(s)) {
            (void)snprintf(text, sizeof text,
                           "migration %s of guest %s, which began after the backup, is still under way (%s: '%s', %s: "
                           "'%s'). Its workers "
                           "finish or abort it by themselves, within minutes; then try again, or use --force",
                           s->migration, s->vm, s->source[0] ? s->source : "source", s->source_stage,
                           s->destination[0] ? s->destination : "destination", s->destination_stage);
            stop_with(r, LMO_E_CONFLICT, text);
        }
    }
}

static void seen_all(void *arg, const struct lmo_doctor_world *w)
{
    struct restoring *r = arg;
    struct lmo_engine *e = r->engine;
    struct lmo_err err = {0};
    if (!w) {
        stop_with(r, e->stopping ? LMO_E_UNAVAILABLE : LMO_E_NO_MEMORY,
                  e->stopping ? "the coordinator is stopping" : "no memory");
        done(r);
        return;
    }
    for (unsigned i = 0; i < w->host_count; i++) {
        const struct host *h = engine_host(e, w->hosts[i].name);
        r->unseen += h && h->up && !w->hosts[i].seen; /* it answered at first, and not all that it was asked */
    }
    for (unsigned i = 0; i < w->export_count; i++) {
        r->epoch = w->exports[i].epoch > r->epoch ? w->exports[i].epoch : r->epoch;
    }
    for (unsigned i = 0; i < w->record_count; i++) {
        r->epoch = w->records[i].epoch > r->epoch ? w->records[i].epoch : r->epoch;
    }
    for (const struct entry *entry = e->entries; entry; entry = entry->hh.next) {
        uint64_t own = engine_record(entry)->epoch;
        r->epoch = own > r->epoch ? own : r->epoch;
    }
    take_strangers(r, w);
    bool act = r->request && r->request->activate;
    if (act && r->code == 0) {
        may_act(r);
    }
    if (act && r->code == 0 && raise_term(r, r->unseen ? LEAP : 0) == 0) {
        int rc = e->store->ops->raise_epochs(e->store, r->epoch / LMO_EPOCH_STRIDE + 1 + (r->unseen ? LEAP : 0), &err);
        if (rc < 0) {
            stop_with(r, rc, err.text);
        }
    }
    if (r->code < 0 || !act) {
        if (r->code == 0) {
            settle(r, w, false);
        }
        done(r);
        return;
    }
    settle(r, w, true);
    if (r->code < 0) {
        done(r);
        return;
    }
    on_committed(r);
}

/* After each round of questions. */
static void look_on(struct restoring *r)
{
    struct lmo_engine *e = r->engine;
    if (r->pending > 0) {
        return;
    }
    if (e->stopping) {
        stop_with(r, LMO_E_UNAVAILABLE, "the coordinator is stopping");
        done(r);
        return;
    }
    if (!r->strangers) { /* the first round: everybody's term */
        r->strangers = calloc(STRANGERS_MAX, sizeof *r->strangers);
        lmo_assert(r->strangers);
        if (raise_term(r, 0) < 0) {
            done(r);
            return;
        }
        r->unseen = 0; /* told anew by the second round */
        ask_all(r, true);
        if (r->pending > 0) {
            return;
        }
    }
    struct lmo_err err = {0};
    int rc = engine_look_at_all(e, seen_all, r, &err);
    if (rc < 0) {
        stop_with(r, rc, err.text);
        done(r);
    }
}

/* ------------------------------------------------------------------ the answer */

static json_t *stranger_json(const struct lmo_restore_stranger *s)
{
    json_t *o = json_object();
    int rc = lmo_json_put_str(o, "id", s->migration);
    rc |= lmo_json_put_str(o, "vm", s->vm);
    rc |= lmo_json_put_str(o, "source", s->source);
    rc |= lmo_json_put_str(o, "destination", s->destination);
    rc |= lmo_json_put_str(o, "source_stage", s->source_stage);
    rc |= lmo_json_put_str(o, "destination_stage", s->destination_stage);
    rc |= lmo_json_put_bool(o, "under_way", !lmo_restore_stranger_rests(s));
    if (rc < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *state_json(const struct lmo_engine *e)
{
    json_t *o = json_object();
    int64_t made_ms = 0;
    if (e->store->ops->restored) {
        (void)e->store->ops->restored(e->store, &made_ms);
    }
    int rc = lmo_json_put_str(o, "state", e->observing ? "observing" : "active");
    rc |= lmo_json_put(o, "backup_made_ms", made_ms ? json_integer(made_ms) : json_null());
    rc |= lmo_json_put_u64(o, "term", e->store->ops->term ? e->store->ops->term(e->store) : 0);
    if (rc < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *answer_json(struct restoring *r)
{
    json_t *o = state_json(r->engine), *strangers = json_array();
    int rc = 0;
    for (unsigned i = 0; i < r->stranger_count; i++) {
        rc |= lmo_json_add(strangers, stranger_json(&r->strangers[i]));
    }
    rc |= lmo_json_put_u64(o, "hosts", HASH_COUNT(r->engine->hosts));
    rc |= lmo_json_put_u64(o, "hosts_unseen", r->unseen);
    rc |= lmo_json_put_u64(o, "epoch_seen", r->epoch);
    rc |= lmo_json_put(o, "migrations", r->migrations);
    r->migrations = NULL;
    rc |= lmo_json_put(o, "strangers", strangers);
    if (rc < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void done(struct restoring *r)
{
    struct request *q = r->request;
    struct lmo_engine *e = r->engine;
    e->restoring = false;
    if (r->code < 0) {
        lmo_log(LMO_LOG_WARN, "restored store", "state=observing code=%s why=%s", lmo_err_name(r->code), r->why);
    }
    if (q && r->code < 0) {
        engine_reply_fail(q->fn, q->arg, r->code, "", "%s", r->why);
    } else if (q) {
        json_t *body = r->no_memory ? NULL : answer_json(r);
        if (body) {
            engine_reply_ok(q->fn, q->arg, 200, body, "");
        } else {
            engine_reply_fail(q->fn, q->arg, LMO_E_NO_MEMORY, "", "no memory for the answer");
        }
    }
    json_decref(r->migrations);
    free(r->strangers);
    free(q);
    free(r);
}

static void begin(struct lmo_engine *e, struct request *request)
{
    struct restoring *r = calloc(1, sizeof *r);
    lmo_assert(r);
    *r = (struct restoring){.engine = e, .request = request, .migrations = json_array()};
    e->restoring = true;
    ask_all(r, false);
    look_on(r);
}

/* Another look is under way, the one at the start as a rule: it ends within its own time limits. */
static void on_turn(void *arg)
{
    struct request *kept = arg;
    uint64_t timer;
    if (!kept->engine->stopping && (kept->engine->restoring || kept->engine->doctor) && kept->turns-- > 0 &&
        lmo_loop_timer(kept->engine->loop, TURN_MS, on_turn, kept, &timer) == 0) {
        return;
    }
    kept->run(kept);
    free(kept);
}

static void restore(struct request *q)
{
    struct lmo_engine *e = q->engine;
    bool refused = !e->observing && q->activate;
    if (q->ask.dry_run && !refused) {
        (void)engine_would(q, 200, state_json(e), q->activate ? "look at all hosts, settle every open record, and act from then on"
                                                              : "look at all hosts and say what would become of every open record");
        return;
    }
    if (!e->observing) {
        json_t *body = !q->activate ? state_json(e) : NULL;
        if (body) {
            engine_reply_ok(q->fn, q->arg, 200, body, "");
        } else {
            engine_reply_fail(q->fn, q->arg, LMO_E_CONFLICT, "",
                              "this coordinator's store is not one that was restored: it acts already");
        }
        return;
    }
    struct request *kept = e->stopping ? NULL : malloc(sizeof *kept);
    if (!kept) {
        engine_reply_fail(q->fn, q->arg, LMO_E_UNAVAILABLE, "", "%s",
                          e->stopping ? "the coordinator is stopping" : "no memory to look at all hosts");
        return;
    }
    *kept = *q; /* the caller frees the original */
    if (!e->restoring && !e->doctor) {
        begin(e, kept);
    } else if (q->turns > 0) {
        on_turn(kept);
    } else {
        engine_reply_fail(q->fn, q->arg, LMO_E_BUSY, "", "somebody looks at all hosts already; try again");
        free(kept);
    }
}

void engine_restore_begin(struct lmo_engine *e)
{
    int64_t made_ms = 0;
    if (!e->store->ops->restored || !e->store->ops->restored(e->store, &made_ms)) {
        return;
    }
    e->observing = true;
    if (e->workers->ops->listen) {
        e->workers->ops->listen(e->workers, false);
    }
    lmo_log(LMO_LOG_WARN,
            "the store was restored from a backup: this coordinator only observes, until lmo restore --activate",
            "backup_made_ms=%" PRId64, made_ms);
}

void engine_restore_look(struct lmo_engine *e)
{
    if (e->observing) {
        begin(e, NULL);
    }
}

int lmo_engine_restore(struct lmo_engine *e, bool activate, bool force, const char *principal, lmo_engine_reply_fn *fn,
                       void *arg)
{
    struct request q = engine_request(restore, fn, arg, "");
    LMO_COPY(q.url, principal);
    q.activate = activate;
    q.force = force;
    q.harmless = true;
    q.turns = TURNS_MAX;
    return engine_post(e, &q);
}
