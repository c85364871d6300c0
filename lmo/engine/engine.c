/* engine.c - the engine's loop: apply events, commit the turn's batch, carry out effects. See engine.h. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "engine/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define STALL_RETRY_MS 500

int64_t engine_now_ms(const struct lmo_engine *e)
{
    return e->booted_ms + (int64_t)lmo_now_ms();
}

struct host *engine_host(struct lmo_engine *e, const char *name)
{
    struct host *h;
    HASH_FIND_STR(e->hosts, name, h);
    return h;
}

struct entry *engine_entry(struct lmo_engine *e, const char *id)
{
    struct entry *entry;
    HASH_FIND_STR(e->entries, id, entry);
    return entry;
}

struct entry *engine_entry_of_vm(struct lmo_engine *e, const char *uuid)
{
    struct entry *entry;
    HASH_FIND(hh_vm, e->entries_by_vm, uuid, strlen(uuid), entry);
    return entry;
}

static void entry_free(struct entry *entry)
{
    struct lmo_engine *e = entry->engine;
    lmo_loop_cancel(e->loop, &entry->timer);
    char *key = (char *)entry->hh.key;
    engine_admission_entry_remove(entry);
    HASH_DELETE(hh_vm, e->entries_by_vm, entry);
    HASH_DEL(e->entries, entry);
    free(key);
    free(entry->journal);
    free(entry->xml);
    free(entry->request);
    free(entry->m);
    free(entry->spare);
    free(entry);
}

struct entry *engine_entry_new(struct lmo_engine *e, const struct lmo_migration *m, uint64_t stored_version)
{
    struct entry *entry = calloc(1, sizeof *entry);
    if (!entry) {
        return NULL;
    }
    entry->m = malloc(sizeof *entry->m);
    entry->spare = malloc(sizeof *entry->spare);
    if (!entry->m || !entry->spare) {
        free(entry->m);
        free(entry->spare);
        free(entry);
        return NULL;
    }
    *entry->m = *m;
    entry->engine = e;
    entry->stored_version = stored_version;
    char *key = strdup(m->id); /* its own: m moves. Not inside the macro, which evaluates its arguments twice */
    if (!key) {
        free(entry->m);
        free(entry->spare);
        free(entry);
        return NULL;
    }
    (void)snprintf(entry->vm_uuid, sizeof entry->vm_uuid, "%s", m->vm.uuid);
    entry->item = LMO_NONE;
    HASH_ADD_KEYPTR(hh, e->entries, key, strlen(key), entry);
    HASH_ADD_KEYPTR(hh_vm, e->entries_by_vm, entry->vm_uuid, strlen(entry->vm_uuid), entry);
    struct lmo_err err = {0};
    if (engine_admission_entry_add(entry, &err) < 0) {
        entry_free(entry);
        return NULL;
    }
    return entry;
}

void engine_journal(struct entry *entry, const char *what, const char *why)
{
    if (entry->journal_count == entry->journal_size) {
        unsigned size = entry->journal_size ? 2 * entry->journal_size : 8;
        struct lmo_journal_line *grown = realloc(entry->journal, size * sizeof *grown);
        if (!grown) {
            lmo_log(LMO_LOG_ERROR, "journal line dropped: no memory", "migration=%s what=%s", entry->m->id, what);
            return;
        }
        entry->journal = grown;
        entry->journal_size = size;
    }
    struct lmo_journal_line *l = &entry->journal[entry->journal_count++];
    *l = (struct lmo_journal_line){.at_ms = engine_now_ms(entry->engine)};
    (void)snprintf(l->migration, sizeof l->migration, "%s", entry->m->id);
    (void)snprintf(l->phase, sizeof l->phase, "%s", lmo_phase_text(entry->m->phase));
    (void)snprintf(l->what, sizeof l->what, "%s", what);
    (void)snprintf(l->why, sizeof l->why, "%s", why);
}

static void mark_dirty(struct entry *entry)
{
    if (!entry->dirty) {
        entry->dirty = true;
        entry->next_dirty = entry->engine->dirty;
        entry->engine->dirty = entry;
    }
    engine_flush_soon(entry->engine);
}

void engine_inserted(struct entry *entry)
{
    entry->durable = true;
    entry->wake_ms = entry->m->deadline_ms;
    mark_dirty(entry);
}

static const struct lmo_task *sent_task(const struct lmo_migration *m, uint32_t ordinal)
{
    for (unsigned i = 0; i < m->task_count; i++) {
        if (m->tasks[i].ordinal == ordinal && m->tasks[i].state == LMO_TASK_SENT) {
            return &m->tasks[i];
        }
    }
    return NULL; /* a later step of the same batch has dropped it */
}

/* A task that is SENT and in no list would never be sent. Many steps may share one batch (while the store cannot
 * commit): what they have dropped since makes room, and no more are SENT at once than the list holds. */
static void send_later(struct entry *entry, uint32_t ordinal)
{
    if (entry->send_count == LMO_TASKS_MAX) {
        unsigned kept = 0;
        for (unsigned i = 0; i < entry->send_count; i++) {
            if (sent_task(entry->m, entry->send[i]) && entry->send[i] != ordinal) {
                entry->send[kept++] = entry->send[i];
            }
        }
        entry->send_count = kept;
    }
    lmo_assert(entry->send_count < LMO_TASKS_MAX);
    entry->send[entry->send_count++] = ordinal;
}

int engine_apply(struct entry *entry, struct lmo_event *ev, struct lmo_err *err)
{
    static struct lmo_effects effects; /* the loop thread's scratch: 8 KiB that need not be on every stack */
    ev->now_ms = engine_now_ms(entry->engine);
    ev->now_boot_us = lmo_now_ns() / 1000;
    lmo_random(&ev->random, sizeof ev->random);
    int r = lmo_core_step(entry->m, ev, entry->spare, &effects, err);
    if (r < 0) {
        if (r == LMO_E_INTERNAL) {
            lmo_log(LMO_LOG_ERROR, "step refused by an invariant", "migration=%s event=%d why=%s", entry->m->id,
                    (int)ev->kind, err ? err->text : "");
            lmo_unreachable("a step broke an invariant of the record");
        }
        return r;
    }
    struct lmo_migration *old = entry->m;
    entry->m = entry->spare;
    entry->spare = old;
    for (unsigned i = 0; i < effects.journal_count; i++) {
        engine_journal(entry, effects.journal[i].what, effects.journal[i].why);
        lmo_log(LMO_LOG_INFO, "migration", "migration=%s phase=%s what=%s why=%s", entry->m->id,
                lmo_phase_text(entry->m->phase), effects.journal[i].what, effects.journal[i].why);
    }
    for (unsigned i = 0; i < entry->m->task_count; i++) {
        if ((effects.send >> i) & 1U) {
            send_later(entry, entry->m->tasks[i].ordinal);
        }
    }
    entry->durable |= effects.durable;
    entry->ended |= effects.ended;
    entry->wake_ms = effects.wake_ms;
    engine_admission_stepped(entry);
    mark_dirty(entry);
    return 0;
}

/* ------------------------------------------------------------------ after the commit */

static void on_timer(void *arg)
{
    struct entry *entry = arg;
    entry->timer = 0;
    struct lmo_event ev = {.kind = LMO_EV_TIMER};
    struct lmo_err err = {0};
    char held[LMO_TEXT_MAX];
    if (engine_admission_hold(entry)) {
        engine_admission_hold_text(entry, held, sizeof held);
        ev.text = held;
    }
    if (engine_apply(entry, &ev, &err) < 0) {
        lmo_log(LMO_LOG_ERROR, "timer event refused", "migration=%s why=%s", entry->m->id, err.text);
    }
}

static void arm_timer(struct entry *entry)
{
    struct lmo_loop *loop = entry->engine->loop;
    lmo_loop_cancel(loop, &entry->timer);
    if (entry->wake_ms == 0) {
        return;
    }
    int64_t delay = entry->wake_ms - engine_now_ms(entry->engine);
    delay = delay < 1 ? 1 : delay > 3600000 ? 3600000 : delay; /* early is harmless: the step looks at the time */
    if (lmo_loop_timer(loop, (uint64_t)delay, on_timer, entry, &entry->timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer left", "migration=%s", entry->m->id);
    }
}

static void carry_out(struct entry *entry)
{
    entry->journal_count = 0;
    entry->durable = entry->xml_dirty = false;
    if (entry->request) {
        engine_created(entry, 0, "");
    }
    unsigned count = entry->send_count;
    entry->send_count = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct lmo_task *t = sent_task(entry->m, entry->send[i]);
        if (t) {
            engine_send(entry, t);
        }
    }
    engine_wake_waiters(entry);
    if (entry->ended) {
        entry_free(entry);
    } else {
        arm_timer(entry);
    }
}

/* ------------------------------------------------------------------ the commit */

static void flush(void *arg);

static void on_stall_timer(void *arg)
{
    struct lmo_engine *e = arg;
    e->stall_timer = 0;
    e->stalled = false;
    engine_flush_soon(e);
}

static void stall(struct lmo_engine *e, const struct lmo_err *err)
{
    if (err->code == LMO_E_CONFLICT) { /* E5 */
        lmo_log(LMO_LOG_ERROR, "the store was written by another coordinator: stopping", "why=%s", err->text);
        abort();
    }
    e->stalled = true;
    e->stalls++;
    lmo_log(LMO_LOG_ERROR, "cannot commit; nothing is sent until it works", "try=%u code=%s why=%s", e->stalls,
            lmo_err_name(err->code), err->text);
    if (lmo_loop_timer(e->loop, STALL_RETRY_MS, on_stall_timer, e, &e->stall_timer) < 0) {
        lmo_unreachable("no timer for the store's retry");
    }
}

/* One transaction for everything that happened in this turn of the loop. */
static int commit_batch(struct lmo_engine *e, struct lmo_err *err)
{
    unsigned count = 0, cursor_count = 0;
    for (struct entry *en = e->dirty; en; en = en->next_dirty) {
        count += en->durable;
    }
    for (const struct host *h = e->moved_hosts; h; h = h->next) {
        cursor_count++;
    }
    if (count == 0 && cursor_count == 0) {
        return 0;
    }
    LMO_AUTO_FREE struct lmo_commit_item *items = calloc(count + 1, sizeof *items);
    LMO_AUTO_FREE struct lmo_commit_cursor *cursors = calloc(cursor_count + 1, sizeof *cursors);
    if (!items || !cursors) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a batch of %u records", count);
    }
    unsigned i = 0;
    for (struct entry *en = e->dirty; en; en = en->next_dirty) {
        if (en->durable) {
            items[i++] = (struct lmo_commit_item){
                .record = en->m,
                .expected_version = en->stored_version,
                .journal = en->journal,
                .journal_count = en->journal_count,
                .xml = en->xml_dirty ? en->xml : NULL,
                .idempotency_key = en->request && en->request->idempotency_key[0] ? en->request->idempotency_key : NULL,
                .idempotency_hash = en->request && en->request->idempotency_key[0] ? en->request->idempotency_hash : NULL,
                .principal = en->request && en->request->idempotency_key[0] ? en->request->principal : NULL,
            };
        }
    }
    unsigned c = 0;
    for (const struct host *h = e->moved_hosts; h; h = h->next) {
        cursors[c++] = (struct lmo_commit_cursor){.host = h->row.name, .cursor = h->seen_cursor};
    }
    return e->store->ops->commit(e->store, items, count, cursors, cursor_count, err);
}

static void flush(void *arg)
{
    struct lmo_engine *e = arg;
    if (e->stalled) {
        e->flush_posted = false;
        return;
    }
    engine_admission_run(e); /* what it steps is part of this commit: no other flush is asked for */
    e->flush_posted = false;
    if (e->admission.due) {
        engine_flush_soon(e);
    }
    struct lmo_err err = {0};
    if (commit_batch(e, &err) < 0) {
        stall(e, &err); /* E4 */
        return;
    }
    if (e->stalls > 0) {
        lmo_log(LMO_LOG_WARN, "commits work again", "after=%u", e->stalls);
        e->stalls = 0;
    }
    while (e->moved_hosts) {
        struct host *h = e->moved_hosts;
        DL_DELETE(e->moved_hosts, h);
        h->prev = h->next = NULL;
        h->row.cursor = h->seen_cursor;
        e->workers->ops->acknowledge(e->workers, h->row.name, h->row.cursor); /* E2 */
    }
    struct entry *list = e->dirty;
    e->dirty = NULL;
    while (list) {
        struct entry *entry = list;
        list = entry->next_dirty;
        entry->dirty = false;
        if (entry->durable) {
            entry->stored_version = entry->m->version;
        }
        carry_out(entry); /* E1, E3; may free the entry */
    }
}

void engine_flush_soon(struct lmo_engine *e)
{
    if (e->flush_posted || e->stalled) {
        return;
    }
    uint64_t timer;
    e->flush_posted = true;
    if (lmo_loop_timer(e->loop, 0, flush, e, &timer) < 0) { /* the next turn: all that is ready now goes with it */
        lmo_unreachable("no timer for the commit");
    }
}

/* ------------------------------------------------------------------ workers */

void lmo_engine_stop(struct lmo_engine *e)
{
    if (e) {
        e->stopping = true;
    }
}

/* May this host's worker say that of this migration? A worker that is not part of it, or not of that side, decides
 * nothing about it: "resumed" from anybody else would have the running guest killed at its source. */
static bool may_say(const struct lmo_migration *m, const char *host, enum lmo_worker_event_kind kind)
{
    bool source = strcmp(host, m->source) == 0, destination = strcmp(host, m->destination) == 0;
    switch (kind) {
    case LMO_WEV_PROGRESS:
    case LMO_WEV_SUSPENDED:
    case LMO_WEV_SOURCE_RESUMED:
    case LMO_WEV_JOB_END:
    case LMO_WEV_GATE_ABORTED:
    case LMO_WEV_DEADMAN:
    case LMO_WEV_SOURCE_GONE: return source;
    case LMO_WEV_LOADED:
    case LMO_WEV_FREEZE_WANTED:
    case LMO_WEV_PERMIT_WANTED:
    case LMO_WEV_COMMITTED:
    case LMO_WEV_FENCED:
    case LMO_WEV_RESUMED:
    case LMO_WEV_BACK:
    case LMO_WEV_COPY_LOST: return destination;
    case LMO_WEV_STUCK: return source || destination;
    case LMO_WEV_NONE:
    case LMO_WEV_COUNT: break;
    }
    return false;
}

static void on_events(void *arg, const char *host, const struct lmo_worker_event *events, unsigned count, uint64_t next)
{
    struct lmo_engine *e = arg;
    struct host *h = engine_host(e, host);
    if (!h || e->stopping) {
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        if (events[i].seq != 0 && events[i].seq <= h->seen_cursor) {
            continue; /* delivered again: stepped already */
        }
        struct entry *entry = engine_entry(e, events[i].migration);
        if (!entry || entry->ended) {
            continue; /* of a migration that has ended: nothing depends on it any more */
        }
        if (!may_say(entry->m, host, events[i].kind)) {
            lmo_log(LMO_LOG_WARN, "event of a worker that has no say in it: ignored", "migration=%s host=%s event=%s",
                    entry->m->id, host, lmo_worker_event_text(events[i].kind));
            continue;
        }
        struct lmo_event ev = {.kind = LMO_EV_WORKER, .worker = &events[i]};
        struct lmo_err err = {0};
        if (engine_apply(entry, &ev, &err) < 0) {
            lmo_log(LMO_LOG_ERROR, "worker event refused", "migration=%s host=%s why=%s", entry->m->id, host, err.text);
        } else if (events[i].kind == LMO_WEV_PROGRESS) {
            engine_admission_sample(entry);
        }
    }
    if (next > h->seen_cursor) {
        h->seen_cursor = next;
        if (!h->prev) {
            DL_APPEND(e->moved_hosts, h);
        }
        engine_flush_soon(e);
    }
}

static void on_host_state(void *arg, const char *host, const struct lmo_host_facts *facts, const char *why)
{
    struct lmo_engine *e = arg;
    struct host *h = engine_host(e, host);
    if (!h || e->stopping) {
        return;
    }
    bool up = facts != NULL;
    if (!h->known || h->up != up) {
        h->since_ms = engine_now_ms(e);
        lmo_log(up ? LMO_LOG_INFO : LMO_LOG_WARN, up ? "worker reachable" : "worker unreachable", "host=%s why=%s", host,
                why ? why : "");
    }
    h->known = true;
    h->up = up;
    if (facts) {
        h->facts = *facts;
        h->facts_ns = lmo_now_ns();
        h->last_error[0] = '\0';
    } else {
        (void)snprintf(h->last_error, sizeof h->last_error, "%s", why ? why : "unreachable");
    }
    engine_admission_host_changed(e, h);
}

/* ------------------------------------------------------------------ life */

int lmo_engine_new(const struct lmo_engine_config *cfg, struct lmo_engine **ret, struct lmo_err *err)
{
    struct lmo_engine *e = calloc(1, sizeof *e);
    if (!e) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the engine");
    }
    e->loop = cfg->loop;
    e->store = cfg->store;
    e->permit_key = cfg->permit_key;
    int r = engine_admission_init(e, cfg->limits, err);
    if (r < 0) {
        free(e);
        return r;
    }
    e->booted_ms = (int64_t)(lmo_realtime_us() / 1000) - (int64_t)lmo_now_ms();
    e->callbacks = (struct lmo_workers_callbacks){.arg = e, .events = on_events, .host_state = on_host_state};
    *ret = e;
    return 0;
}

const struct lmo_workers_callbacks *lmo_engine_callbacks(struct lmo_engine *e)
{
    return &e->callbacks;
}

struct lmo_engine *lmo_engine_free(struct lmo_engine *e)
{
    if (!e) {
        return NULL;
    }
    struct entry *entry, *tmp;
    HASH_ITER(hh, e->entries, entry, tmp) {
        while (entry->waiters) {
            struct waiter *w = entry->waiters;
            entry->waiters = w->next;
            lmo_loop_cancel(e->loop, &w->timer);
            engine_reply_fail(w->fn, w->arg, LMO_E_UNAVAILABLE, "", "the coordinator is stopping");
            free(w);
        }
        if (entry->request) {
            engine_created(entry, LMO_E_UNAVAILABLE, "the coordinator is stopping; nothing was started");
        }
        entry_free(entry);
    }
    engine_admission_done(e);
    struct host *h, *htmp;
    HASH_ITER(hh, e->hosts, h, htmp) {
        HASH_DEL(e->hosts, h);
        free(h);
    }
    lmo_loop_cancel(e->loop, &e->stall_timer);
    free(e);
    return NULL;
}

static int load_host(void *arg, const struct lmo_host_row *row)
{
    struct lmo_engine *e = arg;
    struct host *h = calloc(1, sizeof *h);
    if (!h) {
        return LMO_E_NO_MEMORY;
    }
    h->row = *row;
    h->seen_cursor = row->cursor;
    HASH_ADD_STR(e->hosts, row.name, h);
    struct lmo_err err = {0};
    int r = engine_admission_host_add(e, h, &err);
    return r < 0 ? r : e->workers->ops->host_add(e->workers, row->name, row->url, row->cursor, &err);
}

static int load_open(void *arg, const struct lmo_migration *m, const char *xml)
{
    struct lmo_engine *e = arg;
    struct entry *entry = engine_entry_new(e, m, m->version);
    if (!entry) {
        return LMO_E_NO_MEMORY;
    }
    if (xml && !(entry->xml = strdup(xml))) {
        return LMO_E_NO_MEMORY;
    }
    return 0;
}

int lmo_engine_start(struct lmo_engine *e, struct lmo_workers *workers, struct lmo_err *err)
{
    e->workers = workers;
    int r = e->store->ops->host_list(e->store, load_host, e, err);
    if (r < 0) {
        return lmo_err_prefix(err, "loading hosts");
    }
    r = e->store->ops->load_open(e->store, load_open, e, err);
    if (r < 0) {
        return lmo_err_prefix(err, "loading open migrations");
    }
    unsigned count = HASH_COUNT(e->entries);
    for (struct entry *entry = e->entries; entry; entry = entry->hh.next) {
        struct lmo_event ev = {.kind = LMO_EV_RECOVERED};
        r = engine_apply(entry, &ev, err);
        if (r < 0) {
            return lmo_err_prefix(err, "recovering migration %s", entry->m->id);
        }
    }
    lmo_log(LMO_LOG_INFO, "engine started", "hosts=%u open_migrations=%u", HASH_COUNT(e->hosts), count);
    return 0;
}
