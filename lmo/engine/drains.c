/* drains.c - drains as objects of the engine: steps, what goes with which commit, what follows after it. See drains_internal.h. */
#include "engine/drains_internal.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct drain *engine_drain(struct lmo_engine *e, const char *id)
{
    struct drain *dr;
    HASH_FIND_STR(e->drains, id, dr);
    return dr;
}

bool engine_drains_open(const struct lmo_engine *e)
{
    return e->drains != NULL && !engine_observing(e);
}

bool engine_drain_holds(struct lmo_engine *e, const struct host *h)
{
    const struct drain *dr = engine_drain(e, h->mark.drain);
    for (uint32_t i = 0; dr && i < dr->d.host_count; i++) {
        if (strcmp(dr->d.hosts[i].name, h->row.name) == 0) {
            return lmo_drain_holds(&dr->d, &dr->d.hosts[i]);
        }
    }
    return false;
}

void engine_drain_free_arrays(struct lmo_drain *d)
{
    free(d->hosts);
    free(d->guests);
    d->hosts = NULL;
    d->guests = NULL;
}

struct drain *engine_drain_new(struct lmo_engine *e, const struct lmo_drain *d)
{
    struct drain *dr = calloc(1, sizeof *dr);
    struct drain_run *runs = calloc(d->host_count + 1, sizeof *runs);
    if (!dr || !runs) {
        free(dr);
        free(runs);
        return NULL;
    }
    dr->engine = e;
    dr->d = *d;
    dr->guest_size = d->guest_count;
    dr->runs = runs;
    lmo_drain_index(&dr->d);
    HASH_ADD_STR(e->drains, d.id, dr);
    return dr;
}

static void drain_free(struct drain *dr)
{
    struct lmo_engine *e = dr->engine;
    lmo_loop_cancel(e->loop, &dr->timer);
    HASH_DEL(e->drains, dr);
    engine_drain_free_arrays(&dr->d);
    free(dr->guests.list);
    free(dr->hosts.list);
    free(dr->runs);
    free(dr->told_guests);
    free(dr);
}

uint32_t engine_drain_append(struct drain *dr, uint32_t host, const char *uuid, const char *name)
{
    struct lmo_drain *d = &dr->d;
    if (d->guest_count >= LMO_DRAIN_GUESTS_MAX) {
        return LMO_DRAIN_NONE;
    }
    if (d->guest_count == dr->guest_size) {
        uint32_t size = dr->guest_size ? 2 * dr->guest_size : 8;
        struct lmo_drain_guest *grown = realloc(d->guests, size * sizeof *grown);
        if (!grown) {
            return LMO_DRAIN_NONE;
        }
        d->guests = grown;
        dr->guest_size = size;
    }
    uint32_t n = d->guest_count++;
    struct lmo_drain_guest *g = &d->guests[n];
    *g = (struct lmo_drain_guest){.host = host,
                                  .state = LMO_DG_QUEUED,
                                  .order = n,
                                  .after_host = LMO_DRAIN_NONE,
                                  .since_ms = engine_now_ms(dr->engine),
                                  .next = d->hosts[host].first};
    LMO_COPY(g->uuid, uuid);
    LMO_COPY(g->name, name);
    LMO_COPY(g->at, d->hosts[host].name);
    d->hosts[host].first = n;
    d->hosts[host].guests++;
    d->hosts[host].open++;
    d->guests_in[LMO_DG_QUEUED]++;
    return n;
}

/* ------------------------------------------------------------------ steps */

static void mark_dirty(struct drain *dr)
{
    struct lmo_engine *e = dr->engine;
    if (!dr->dirty) {
        dr->dirty = true;
        dr->next_dirty = e->dirty_drains;
        e->dirty_drains = dr;
    }
    engine_flush_soon(e);
}

int engine_drain_step(struct drain *dr, struct lmo_drain_event *ev, struct lmo_err *err)
{
    enum lmo_drain_state before = dr->d.state;
    ev->now_ms = engine_now_ms(dr->engine);
    int r = lmo_drain_step(&dr->d, ev, err);
    if (r < 0) {
        return r;
    }
    if (dr->d.state != before) {
        lmo_log(LMO_LOG_INFO, "drain", "drain=%s state=%s why=%s", dr->d.id, lmo_drain_state_text(dr->d.state),
                dr->d.waiting_for[0] ? dr->d.waiting_for : dr->d.reason);
    }
    mark_dirty(dr);
    return 0;
}

void engine_drain_event(struct drain *dr, struct lmo_drain_event *ev)
{
    struct lmo_err err = {0};
    if (engine_drain_step(dr, ev, &err) < 0) {
        lmo_log(LMO_LOG_WARN, "drain takes no notice of an event", "drain=%s event=%d why=%s", dr->d.id, (int)ev->kind,
                err.text);
    }
}

static void on_timer(void *arg)
{
    struct drain *dr = arg;
    struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_TIMER};
    dr->timer = 0;
    if (!dr->engine->stopping) {
        engine_drain_event(dr, &ev);
    }
}

static void arm(struct drain *dr)
{
    struct lmo_engine *e = dr->engine;
    int64_t wake = lmo_drain_wake_ms(&dr->d);
    lmo_loop_cancel(e->loop, &dr->timer);
    if (wake == 0) {
        return;
    }
    int64_t delay = wake - engine_now_ms(e);
    delay = delay < 1 ? 1 : delay > 3600000 ? 3600000 : delay; /* early is harmless: the step looks at the time */
    if (lmo_loop_timer(e->loop, (uint64_t)delay, on_timer, dr, &dr->timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer left", "drain=%s", dr->d.id);
    }
}

/* ------------------------------------------------------------------ before the commit */

/* A cordon is the drain's word about the host, so it changes in the transaction of the step that said so. */
static void sync_cordon(struct drain *dr, const struct lmo_drain_host *dh)
{
    struct lmo_engine *e = dr->engine;
    struct host *h = engine_host(e, dh->name);
    if (!h) {
        return;
    }
    bool ours = strcmp(h->mark.drain, dr->d.id) == 0;
    if (dh->cordon && !ours && !h->mark.drain[0] && !h->mark.cordoned) {
        engine_mark_cordon(h, true, dr->d.id, dr->d.principal, "it is being drained");
        engine_admission_host_changed(e, h);
    } else if (!dh->cordon && ours) {
        engine_mark_cordon(h, false, "", dr->d.principal, "");
        engine_admission_host_changed(e, h);
    }
    bool kept = dh->was_cordoned && h->mark.cordoned && !h->mark.drain[0]; /* by a person, before the drain came */
    if ((strcmp(h->mark.drain, dr->d.id) == 0 || kept) &&
        strcmp(h->mark.drain_state, lmo_drain_host_state_text(dh->state)) != 0) {
        LMO_COPY(h->mark.drain_state, lmo_drain_host_state_text(dh->state));
        (void)engine_mark_store(h);
    }
}

static int put_all(struct drain *dr, struct lmo_err *err)
{
    struct lmo_engine *e = dr->engine;
    struct lmo_drain *d = &dr->d;
    uint64_t done = 0, all = 0;
    for (uint32_t i = d->touched_guests; i != LMO_DRAIN_NONE; i = d->guests[i].next_touched) {
        struct lmo_drain_guest *g = &d->guests[i];
        if (g->state == LMO_DG_STARTING && !g->migration[0]) {
            lmo_ulid_generate(g->migration); /* D2 */
        }
    }
    for (uint32_t i = 0; i < d->guest_count; i++) { /* what is done in proportion to what there is to do */
        const struct lmo_drain_guest *g = &d->guests[i];
        uint64_t weight = (g->memory_bytes >> 20) + 1;
        all += weight;
        done += lmo_drain_guest_is(g->state, LMO_DG_OPEN) || g->back ? 0 : weight;
    }
    uint32_t percent = all ? (uint32_t)(done * 99 / all) : 0;
    d->percent = percent > d->percent ? percent : d->percent;
    int r = engine_drain_put(e, d, err);
    for (uint32_t i = d->touched_hosts; r == 0 && i != LMO_DRAIN_NONE; i = d->hosts[i].next_touched) {
        sync_cordon(dr, &d->hosts[i]);
        r = engine_drain_put_host(e, d, i, err);
    }
    for (uint32_t i = d->touched_guests; r == 0 && i != LMO_DRAIN_NONE; i = d->guests[i].next_touched) {
        r = engine_drain_put_guest(e, d, i, err);
    }
    return r;
}

static void add(struct drain_todo *to, uint32_t n)
{
    if (to->count == to->size) {
        uint32_t size = to->size ? 2 * to->size : 16;
        uint32_t *grown = realloc(to->list, size * sizeof *grown);
        lmo_assert(grown); /* what is to be done must not be forgotten; a restart starts from the store */
        to->list = grown;
        to->size = size;
    }
    to->list[to->count++] = n;
}

/* What this step touched is what is to be done once it is stored; in the order of the plan. */
static void note_todo(struct drain *dr)
{
    struct lmo_drain *d = &dr->d;
    uint32_t from = dr->guests.count;
    for (uint32_t i = d->touched_guests; i != LMO_DRAIN_NONE; i = d->guests[i].next_touched) {
        add(&dr->guests, i);
    }
    for (uint32_t a = from, b = dr->guests.count; a + 1 < b; a++, b--) { /* the list is newest first */
        uint32_t x = dr->guests.list[a];
        dr->guests.list[a] = dr->guests.list[b - 1];
        dr->guests.list[b - 1] = x;
    }
    for (uint32_t i = d->touched_hosts; i != LMO_DRAIN_NONE; i = d->hosts[i].next_touched) {
        add(&dr->hosts, i);
    }
    lmo_drain_settled(d);
}

/* What this commit is the answer to. */
static void keep_answers(struct drain *dr)
{
    struct lmo_engine *e = dr->engine;
    char location[64], etag[LMO_ETAG_MAX];
    bool any = dr->created_keyed != NULL;
    for (const struct drain_waiter *w = dr->waiters; w; w = w->next) {
        any = any || w->keyed;
    }
    if (!any) {
        return;
    }
    LMO_AUTO_JSON json_t *body = engine_drain_json(e, &dr->d, true);
    (void)snprintf(location, sizeof location, "/v1/drains/%s", dr->d.id);
    engine_drain_etag(&dr->d, etag);
    if (body) {
        engine_keep_with_commit(e, dr->created_keyed, 202, body, location, etag);
    }
    for (const struct drain_waiter *w = dr->waiters; body && w; w = w->next) {
        if (w->keyed && dr->d.version > w->version) {
            engine_keep_with_commit(e, w->keyed, w->status, body, w->status == 202 ? location : "", etag);
        }
    }
}

void engine_drains_store(struct lmo_engine *e)
{
    while (e->dirty_drains) {
        struct drain *dr = e->dirty_drains;
        struct lmo_err err = {0};
        const char *broken = lmo_drain_broken(&dr->d);
        e->dirty_drains = dr->next_dirty;
        dr->dirty = false;
        if (broken) {
            lmo_log(LMO_LOG_ERROR, "drain broke an invariant", "drain=%s why=%s", dr->d.id, broken);
            lmo_unreachable("a drain broke an invariant");
        }
        if (put_all(dr, &err) < 0) { /* a step that was taken cannot be taken back; a restart starts from the store */
            lmo_log(LMO_LOG_ERROR, "drain cannot be stored", "drain=%s why=%s", dr->d.id, err.text);
            lmo_unreachable("a drain's record cannot be put");
        }
        engine_drain_tell(dr);
        keep_answers(dr);
        note_todo(dr);
        if (!dr->acting) {
            dr->acting = true;
            dr->next_acting = e->acting_drains;
            e->acting_drains = dr;
        }
    }
}

/* ------------------------------------------------------------------ after the commit */

static void wake_waiters(struct drain *dr)
{
    struct drain_waiter *list = dr->waiters, *next;
    dr->waiters = NULL;
    dr->waiter_count = 0;
    for (; list; list = next) {
        next = list->next;
        if (dr->d.version > list->version || lmo_drain_is(dr->d.state, LMO_DRAIN_TERMINAL)) {
            lmo_loop_cancel(dr->engine->loop, &list->timer);
            engine_reply_drain(list->fn, list->arg, list->status, dr->engine, &dr->d);
            free(list);
        } else {
            list->next = dr->waiters;
            dr->waiters = list;
            dr->waiter_count++;
        }
    }
}

static void tell_creator(struct drain *dr)
{
    lmo_engine_reply_fn *fn = dr->created_fn;
    if (fn) {
        dr->created_fn = NULL;
        dr->created_keyed = NULL;
        engine_reply_drain(fn, dr->created_arg, 202, dr->engine, &dr->d);
    }
}

/* What the stored states want done. The lists are taken first: what is done may step the drain again. */
static void act(struct drain *dr)
{
    struct drain_todo guests = dr->guests, hosts = dr->hosts;
    dr->guests = dr->hosts = (struct drain_todo){0};
    for (uint32_t i = 0; i < hosts.count; i++) {
        engine_drain_do_host(dr, hosts.list[i]);
    }
    engine_drain_do_guests(dr, guests.list, guests.count);
    dr->recovering = false;
    free(guests.list);
    free(hosts.list);
}

/* One that was stepped since it was put (by the end of a migration, in the same turn) has its turn after the next commit. */
void engine_drains_act(struct lmo_engine *e)
{
    struct drain *list = e->acting_drains, *next;
    e->acting_drains = NULL;
    for (; list; list = next) {
        next = list->next_acting;
        list->acting = false;
        if (list->dirty) {
            continue; /* it comes back with the next commit */
        }
        list->stored = true;
        tell_creator(list);
        wake_waiters(list);
        if (!e->stopping) {
            act(list);
        }
        if (lmo_drain_is(list->d.state, LMO_DRAIN_TERMINAL) && !list->dirty) {
            drain_free(list);
        } else {
            arm(list);
        }
    }
}

/* ------------------------------------------------------------------ what happens to its migrations, and to hosts */

void engine_drains_child_changed(struct entry *entry)
{
    struct drain *dr = entry->drain[0] ? engine_drain(entry->engine, entry->drain) : NULL;
    if (!dr || engine_observing(entry->engine) || entry->drain_guest >= dr->d.guest_count ||
        strcmp(dr->d.guests[entry->drain_guest].migration, entry->id) != 0) {
        return;
    }
    const struct lmo_migration *m = engine_record(entry);
    struct lmo_drain_event ev = {.guest = entry->drain_guest, .text = m->reason};
    if (m->phase == LMO_PHASE_ATTENTION) {
        ev.kind = LMO_DRAIN_EV_CHILD_RESTS;
    } else if (lmo_phase_is(m->phase, LMO_PHASE_TERMINAL)) {
        ev.kind = LMO_DRAIN_EV_CHILD_ENDED;
        ev.code = m->phase == LMO_PHASE_COMPLETED   ? 0
                  : m->phase == LMO_PHASE_ABANDONED ? LMO_E_CANCELLED
                                                    : m->reason_code;
        ev.code = m->phase == LMO_PHASE_ABORTED && ev.code == 0 ? LMO_E_UNKNOWN : ev.code;
        ev.failed_in = m->failed_in;
    } else {
        return;
    }
    engine_drain_event(dr, &ev);
}

void engine_drains_child_lost(struct entry *entry, const struct lmo_err *why)
{
    struct drain *dr = entry->drain[0] ? engine_drain(entry->engine, entry->drain) : NULL;
    if (!dr || entry->drain_guest >= dr->d.guest_count) {
        return;
    }
    struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_CHILD_RESTS, .guest = entry->drain_guest, .text = why->text};
    if (entry->stored_version == 0) {
        ev.kind = LMO_DRAIN_EV_CHILD_ENDED;
        ev.code = why->code;
        ev.failed_in = LMO_PHASE_QUEUED;
    }
    engine_drain_event(dr, &ev);
}

/* A host that was restarted is one that somebody has done with. */
void engine_drains_host_up(struct host *h)
{
    struct lmo_engine *e = h->engine;
    for (struct drain *dr = engine_observing(e) ? NULL : e->drains; dr; dr = dr->hh.next) {
        for (uint32_t i = 0; i < dr->d.host_count; i++) {
            const struct lmo_drain_host *dh = &dr->d.hosts[i];
            bool this = strcmp(dh->name, h->row.name) == 0, away = dh->state == LMO_DH_AWAY;
            if (this && lmo_drain_host_is(dh->state, LMO_DH_BEGUN) && !away) {
                struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_HOST_UP, .host = i};
                engine_drain_event(dr, &ev);
            }
            if (this && away && dh->boot[0] && strcmp(dh->boot, h->facts.boot) != 0) {
                struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_ACKNOWLEDGED, .host = i};
                engine_drain_event(dr, &ev);
            }
        }
    }
}

/* ------------------------------------------------------------------ reading, and the engine's start and end */

struct reading {
    struct lmo_drain *d;
    uint32_t hosts, guests;
    struct lmo_err *err;
};

static int read_header(void *arg, const struct lmo_object *o)
{
    struct reading *r = arg;
    r->hosts = 1; /* found */
    return engine_drain_decode(o->text, r->d, r->err);
}

static int read_host(void *arg, const struct lmo_object *o)
{
    struct reading *r = arg;
    if (o->n != r->hosts || r->hosts >= r->d->host_count) {
        return lmo_fail(r->err, LMO_E_CORRUPT, "stored drain: host %u is out of order", o->n);
    }
    return engine_drain_decode_host(o->text, &r->d->hosts[r->hosts++], r->err);
}

static int read_guest(void *arg, const struct lmo_object *o)
{
    struct reading *r = arg;
    if (o->n != r->guests || r->guests >= r->d->guest_count) {
        return lmo_fail(r->err, LMO_E_CORRUPT, "stored drain: guest %u is out of order", o->n);
    }
    int rc = engine_drain_decode_guest(o->text, &r->d->guests[r->guests++], r->err);
    return rc == 0 && r->d->guests[o->n].host >= r->d->host_count
               ? lmo_fail(r->err, LMO_E_CORRUPT, "stored drain: guest %u is of no host", o->n)
               : rc;
}

int engine_drain_read(struct lmo_engine *e, const char *id, struct lmo_drain *ret, struct lmo_err *err)
{
    const struct lmo_store_ops *ops = e->store->ops;
    struct reading reading = {.d = ret, .err = err};
    struct lmo_object_query q = {.kind = LMO_OBJECT_DRAIN, .key = id};
    *ret = (struct lmo_drain){0};
    int r = ops->objects ? ops->objects(e->store, &q, read_header, &reading, err) : 0;
    if (r < 0 || reading.hosts == 0) {
        return r < 0 ? r : lmo_fail(err, LMO_E_NOT_FOUND, "no drain has this id");
    }
    reading.hosts = 0;
    ret->hosts = calloc(ret->host_count + 1, sizeof *ret->hosts);
    ret->guests = calloc(ret->guest_count + 1, sizeof *ret->guests);
    if (!ret->hosts || !ret->guests) {
        r = lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a drain");
    }
    q.kind = LMO_OBJECT_DRAIN_HOST;
    r = r < 0 ? r : ops->objects(e->store, &q, read_host, &reading, err);
    q.kind = LMO_OBJECT_DRAIN_GUEST;
    r = r < 0 ? r : ops->objects(e->store, &q, read_guest, &reading, err);
    if (r == 0 && (reading.hosts != ret->host_count || reading.guests != ret->guest_count)) {
        r = lmo_fail(err, LMO_E_CORRUPT, "stored drain: %u of %u hosts, %u of %u guests", reading.hosts,
                     ret->host_count, reading.guests, ret->guest_count);
    }
    if (r == 0) {
        lmo_drain_index(ret);
        const char *broken = lmo_drain_broken(ret);
        r = broken ? lmo_fail(err, LMO_E_CORRUPT, "stored drain: %s", broken) : 0;
    }
    if (r < 0) {
        engine_drain_free_arrays(ret);
        return lmo_err_prefix(err, "drain %.30s", id);
    }
    return 0;
}

struct ids {
    char (*ids)[LMO_ID_MAX];
    unsigned count;
};

static int note_id(void *arg, const struct lmo_object *o)
{
    struct ids *to = arg;
    char(*grown)[LMO_ID_MAX] = realloc(to->ids, (to->count + 1) * sizeof *grown);
    if (!grown) {
        return LMO_E_NO_MEMORY;
    }
    to->ids = grown;
    LMO_COPY(to->ids[to->count++], o->key);
    return 0;
}

static void recover(struct drain *dr)
{
    struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_RECOVERED};
    dr->recovering = true;
    for (uint32_t i = 0; i < dr->d.guest_count; i++) {
        struct entry *child = dr->d.guests[i].migration[0] ? engine_entry(dr->engine, dr->d.guests[i].migration) : NULL;
        if (child) {
            child->drain_guest = i;
        }
    }
    engine_drain_event(dr, &ev);
}

int engine_drains_load(struct lmo_engine *e, struct lmo_err *err)
{
    const struct lmo_object_query q = {.kind = LMO_OBJECT_DRAIN, .open = true};
    struct ids open = {0};
    int r = e->store->ops->objects ? e->store->ops->objects(e->store, &q, note_id, &open, err) : 0;
    for (unsigned i = 0; r == 0 && i < open.count; i++) {
        struct lmo_drain d;
        struct lmo_err why = {0};
        r = engine_drain_read(e, open.ids[i], &d, &why);
        if (r ==
            LMO_E_CORRUPT) { /* one that cannot be read must not keep the others from going on; its children go on by themselves */
            lmo_log(LMO_LOG_ERROR, "stored drain cannot be read: nothing is done about it", "why=%s", why.text);
            r = 0;
            continue;
        }
        struct drain *dr = r == 0 ? engine_drain_new(e, &d) : NULL;
        if (!dr) {
            r = lmo_fail(err, r < 0 ? r : LMO_E_NO_MEMORY, "%s", r < 0 ? why.text : "no memory for a drain");
            break;
        }
        dr->stored = true;
        engine_drain_told(dr);
        if (!engine_observing(e)) {
            recover(dr);
        }
    }
    free(open.ids);
    return r;
}

void engine_drains_activated(struct lmo_engine *e)
{
    for (struct drain *dr = e->drains; dr; dr = dr->hh.next) {
        struct lmo_drain_event pause = {
            .kind = LMO_DRAIN_EV_PAUSE,
            .text = "the store was restored from a backup; look at the drain, then resume or cancel it"};
        struct lmo_err err = {0};
        recover(dr);
        if (engine_drain_step(dr, &pause, &err) < 0) { /* paused already, or being cancelled: that goes on */
            lmo_log(LMO_LOG_INFO, "restored drain is not paused", "drain=%s why=%s", dr->d.id, err.text);
        }
    }
}

void engine_drains_done(struct lmo_engine *e)
{
    struct drain *dr, *next;
    HASH_ITER(hh, e->drains, dr, next)
    {
        if (dr->created_fn) {
            engine_reply_fail(dr->created_fn, dr->created_arg, LMO_E_UNAVAILABLE, "", "the coordinator is stopping");
        }
        while (dr->waiters) {
            struct drain_waiter *w = dr->waiters;
            dr->waiters = w->next;
            lmo_loop_cancel(e->loop, &w->timer);
            engine_reply_fail(w->fn, w->arg, LMO_E_UNAVAILABLE, "", "the coordinator is stopping");
            free(w);
        }
        drain_free(dr);
    }
    e->dirty_drains = e->acting_drains = NULL;
}
