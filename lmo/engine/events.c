/* events.c - what is told of which change. An event of a record waits in its entry and is stored with the record; one of a
 * host waits in the store for the transaction that stores the host's change, or for the next one. */
#include "base/assert.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"
#include "proto/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ data */

/* Takes `data`. Text that does not fit is left out: numbers, names and states always do. */
static void put_data(struct lmo_event_row *row, json_t *data)
{
    static const char *const may_go[] = {"waiting_for", "reason", "why", NULL};
    for (unsigned i = 0;; i++) {
        char *text = NULL;
        size_t len = 0;
        bool dumped = lmo_json_dump(data, &text, &len, NULL) == 0;
        if (dumped && len < sizeof row->data) {
            memcpy(row->data, text, len + 1);
        }
        free(text);
        if ((dumped && len < sizeof row->data) || !may_go[i]) {
            break;
        }
        (void)json_object_del(data, may_go[i]);
    }
    if (!row->data[0]) {
        LMO_COPY(row->data, "{}"); /* no memory: that it happened is still told */
    }
    json_decref(data);
}

static json_t *text_or_null(const char *text, size_t max)
{
    return text[0] ? lmo_codec_string(text, max) : json_null();
}
#define TEXT(field) text_or_null((field), sizeof(field) - 1)

static json_t *migration_data(const struct lmo_migration *m, enum lmo_phase phase)
{
    json_t *o = json_object(), *vm = json_object();
    int r = lmo_json_put_str(vm, "uuid", m->vm.uuid);
    r |= lmo_json_put(vm, "name", TEXT(m->vm.name));
    r |= lmo_json_put_str(o, "migration", m->id);
    r |= lmo_json_put(o, "vm", vm);
    r |= lmo_json_put_str(o, "source", m->source);
    r |= lmo_json_put_str(o, "destination", m->destination);
    r |= lmo_json_put_str(o, "phase", lmo_phase_text(phase));
    r |= lmo_json_put_u64(o, "version", m->version);
    if (m->trace.id[0]) {
        r |= lmo_json_put_str(o, "trace_id", m->trace.id);
    }
    if (m->reason_code) {
        r |= lmo_json_put(o, "reason", TEXT(m->reason));
        r |= lmo_json_put_str(o, "reason_code", lmo_err_name(m->reason_code));
        r |= lmo_json_put_str(o, "failed_in", lmo_phase_text(m->failed_in));
    }
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void add_end(json_t *o, const struct lmo_migration *m, int64_t now_ms)
{
    const struct lmo_cutover *c = &m->cutover;
    int r = lmo_json_put_i64(o, "total_ms", now_ms > m->created_ms ? now_ms - m->created_ms : 0);
    if (c->suspended_us && c->resumed_us) {
        r |= lmo_json_put(o, "blackout_ms", json_real((double)(c->resumed_us - c->suspended_us) / 1000.0));
    }
    if (r < 0) {
        lmo_log(LMO_LOG_ERROR, "event without its figures: no memory", "migration=%s", m->id);
    }
}

/* ------------------------------------------------------------------ of migrations */

static void fill_migration(struct lmo_event_row *row, const struct lmo_migration *m, const char *type, int64_t now_ms)
{
    *row = (struct lmo_event_row){.at_ms = now_ms};
    LMO_COPY(row->type, type);
    LMO_COPY(row->migration, m->id);
    LMO_COPY(row->drain, m->drain);
    LMO_COPY(row->vm, m->vm.uuid);
    LMO_COPY(row->vm_name, m->vm.name);
    LMO_COPY(row->host, m->source);
    LMO_COPY(row->to_host, m->destination);
}

/* Takes `data`. */
static void tell(struct entry *entry, const char *type, json_t *data)
{
    struct lmo_engine *e = entry->engine;
    if (!e->store->events) {
        json_decref(data);
        return;
    }
    if (entry->event_count == entry->event_size) {
        unsigned size = entry->event_size ? 2 * entry->event_size : 1;
        struct lmo_event_row *grown = realloc(entry->events, size * sizeof *grown);
        lmo_assert(grown); /* what happened must be told; a restart starts from the store, and tells */
        entry->events = grown;
        entry->event_size = size;
    }
    struct lmo_event_row *row = &entry->events[entry->event_count++];
    fill_migration(row, engine_record(entry), type, engine_now_ms(e));
    put_data(row, data);
}

static const char *type_of(enum lmo_phase phase)
{
    switch (phase) {
    case LMO_PHASE_COMPLETED: return "migration.completed";
    case LMO_PHASE_ABORTED: return "migration.aborted";
    case LMO_PHASE_ABANDONED: return "migration.abandoned";
    case LMO_PHASE_ATTENTION: return "migration.attention";
    case LMO_PHASE_QUEUED:
    case LMO_PHASE_PRECHECK:
    case LMO_PHASE_DESTINATION_CREATE:
    case LMO_PHASE_VOLUME_ATTACH:
    case LMO_PHASE_NETWORK_PRELOAD:
    case LMO_PHASE_DUAL_INGRESS:
    case LMO_PHASE_PRECOPY:
    case LMO_PHASE_CUTOVER:
    case LMO_PHASE_FINALIZE:
    case LMO_PHASE_ROLLBACK:
    case LMO_PHASE_COUNT: break;
    }
    return "migration.phase";
}

static json_t *notice_data(const struct lmo_migration *m)
{
    json_t *o = migration_data(m, m->phase), *n = json_object();
    int r = lmo_json_put_str(n, "state", lmo_notice_state_text((int)m->notice.state));
    r |= lmo_json_put_str(n, "on_no_answer", lmo_no_answer_text((int)m->notice.on_no_answer));
    r |= lmo_json_put_i64(n, "until_ms", m->notice.until_ms);
    r |= lmo_json_put(n, "by", TEXT(m->notice.by));
    r |= lmo_json_put(o, "notice", n);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

void engine_tell_accepted(struct entry *entry, const char *principal)
{
    const struct lmo_migration *m = engine_record(entry);
    json_t *data = migration_data(m, m->phase);
    if (lmo_json_put(data, "requested_by", lmo_codec_string(principal, LMO_NAME_MAX + 32)) < 0) {
        lmo_log(LMO_LOG_ERROR, "event without its requester: no memory", "migration=%s", entry->id);
    }
    tell(entry, "migration.accepted", data);
    if (m->notice.state != LMO_NOTICE_NONE) {
        tell(entry, "migration.notice", notice_data(engine_record(entry)));
    }
}

void engine_tell_step(struct entry *entry, enum lmo_phase before, const struct lmo_effects *effects)
{
    if (effects->notice_settled) {
        tell(entry, "migration.notice", notice_data(engine_record(entry)));
    }
    for (unsigned i = 0; i < effects->entered_count; i++) {
        const struct lmo_migration *m = engine_record(entry);
        enum lmo_phase phase = effects->entered[i];
        json_t *data = migration_data(m, phase);
        if (lmo_json_put_str(data, "previous", lmo_phase_text(before)) < 0) {
            lmo_log(LMO_LOG_ERROR, "event without its previous phase: no memory", "migration=%s", entry->id);
        }
        if (lmo_phase_is(phase, LMO_PHASE_TERMINAL)) {
            add_end(data, m, engine_now_ms(entry->engine));
        }
        tell(entry, type_of(phase), data);
        before = phase;
    }
}

void engine_tell_progress(struct entry *entry)
{
    static struct lmo_event_row row; /* the loop thread's scratch */
    const struct lmo_migration *m = engine_record(entry);
    const struct lmo_progress *p = &m->progress;
    if (!engine_feed_wants_progress(entry->engine) || m->phase != LMO_PHASE_PRECOPY) {
        return;
    }
    fill_migration(&row, m, "migration.progress", engine_now_ms(entry->engine));
    json_t *data = migration_data(m, m->phase);
    int r = lmo_json_put_u64(data, "percent", m->percent);
    r |= lmo_json_put_u64(data, "remaining_bytes", p->remaining_bytes);
    r |= lmo_json_put_u64(data, "rate_bytes_per_s", p->rate_bytes_per_s);
    r |= lmo_json_put_u64(data, "dirty_bytes_per_s", p->dirty_bytes_per_s);
    r |= lmo_json_put_u64(data, "pass", p->iteration);
    if (r < 0) {
        json_decref(data);
        return; /* volatile: the next one comes soon */
    }
    put_data(&row, data);
    engine_feed_progress(entry->engine, &row);
}

/* ------------------------------------------------------------------ of hosts, webhooks */

bool engine_tell(struct lmo_engine *e, const char *type, const char *host, json_t *data)
{
    static struct lmo_event_row row; /* the loop thread's scratch */
    row = (struct lmo_event_row){.at_ms = engine_now_ms(e)};
    LMO_COPY(row.type, type);
    LMO_COPY(row.host, host);
    put_data(&row, data);
    int r = e->store->events ? e->store->events->add(e->store, &row) : 0;
    if (r < 0) { /* thousands wait: the store cannot be written, which is told at length elsewhere */
        lmo_log(LMO_LOG_ERROR, "event lost: too many wait for the store", "event=%s host=%s code=%s", type, host,
                lmo_err_name(r));
    }
    return r == 0 && e->store->events;
}

struct tell_later {
    struct tell_later *next;
    struct lmo_event_row row;
};

void engine_tell_with_commit(struct lmo_engine *e, const struct lmo_event_row *about, const char *type, json_t *data)
{
    struct tell_later *t = e->store->events ? calloc(1, sizeof *t) : NULL;
    if (!e->store->events) {
        json_decref(data);
        return;
    }
    lmo_assert(t); /* what happened must be told; a restart starts from the store, and tells */
    t->row = *about;
    t->row.at_ms = engine_now_ms(e);
    LMO_COPY(t->row.type, type);
    put_data(&t->row, data);
    if (!e->tell_later) {
        e->tell_later_last = &e->tell_later;
    }
    *e->tell_later_last = t;
    e->tell_later_last = &t->next;
    engine_flush_soon(e);
}

bool engine_tells_hand_over(struct lmo_engine *e)
{
    bool any = e->tell_later != NULL;
    while (e->tell_later) {
        struct tell_later *t = e->tell_later;
        int r = e->store->events->add(e->store, &t->row);
        if (r < 0) { /* thousands wait: the store cannot be written, which is told at length elsewhere */
            lmo_log(LMO_LOG_ERROR, "event lost: too many wait for the store", "event=%s host=%s code=%s", t->row.type,
                    t->row.host, lmo_err_name(r));
        }
        e->tell_later = t->next;
        free(t);
    }
    e->audits |= any; /* until a commit has succeeded */
    return e->audits;
}

void engine_tells_done(struct lmo_engine *e)
{
    while (e->tell_later) {
        struct tell_later *t = e->tell_later;
        e->tell_later = t->next;
        free(t);
    }
}

bool engine_tell_host(struct lmo_engine *e, const char *type, const char *host, const char *why)
{
    json_t *data = json_object();
    int r = lmo_json_put_str(data, "host", host);
    if (why) {
        r |= lmo_json_put(data, "why", text_or_null(why, LMO_TEXT_MAX));
    }
    if (r < 0) {
        json_decref(data);
        data = json_object();
    }
    return engine_tell(e, type, host, data);
}

void engine_tell_later(struct lmo_engine *e)
{
    e->audits = true; /* something waits in the store for the next commit */
    engine_flush_soon(e);
}

void engine_told(struct lmo_engine *e)
{
    if (e->store->events && !e->stopping) {
        engine_feed_news(e);
        engine_webhooks_news(e);
    }
}

void lmo_engine_tell_followers(struct lmo_engine *e)
{
    engine_told(e);
}

void engine_untold(struct lmo_engine *e, bool told)
{
    if (told) {
        e->store->events->withdraw(e->store);
    }
}
