/* engine.c - the engine's loop: apply events, commit the turn's batch, carry out effects. See engine.h. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/id.h"
#include "base/log.h"
#include "base/str.h"
#include "core/restore.h"
#include "engine/drains_internal.h"
#include "engine/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define STALL_RETRY_MS 500
#define TERM_CHECK_MS 1000 /* how long a coordinator that was overtaken may believe that it is the one */

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

void engine_journal(struct entry *entry, const char *what, const char *why)
{
    if (entry->journal_count == entry->journal_size) {
        unsigned size = entry->journal_size ? 2 * entry->journal_size : 2;
        struct lmo_journal_line *grown = realloc(entry->journal, size * sizeof *grown);
        if (!grown) {
            lmo_log(LMO_LOG_ERROR, "journal line dropped: no memory", "migration=%s what=%s", entry->id, what);
            return;
        }
        entry->journal = grown;
        entry->journal_size = size;
    }
    struct lmo_journal_line *l = &entry->journal[entry->journal_count++];
    *l = (struct lmo_journal_line){.at_ms = engine_now_ms(entry->engine)};
    (void)snprintf(l->migration, sizeof l->migration, "%s", entry->id);
    (void)snprintf(l->phase, sizeof l->phase, "%s", lmo_phase_text(entry->phase));
    (void)snprintf(l->what, sizeof l->what, "%s", what);
    (void)snprintf(l->why, sizeof l->why, "%s", why);
}

static void mark_dirty(struct entry *entry)
{
    struct lmo_engine *e = entry->engine;
    if (!entry->dirty) {
        entry->dirty = true;
        entry->next_dirty = NULL;
        *e->dirty_last = entry;
        e->dirty_last = &entry->next_dirty;
        e->dirtied++;
    }
    engine_flush_soon(e);
}

void engine_inserted(struct entry *entry)
{
    const struct lmo_migration *m = engine_record(entry);
    entry->durable = true;
    entry->wake_ms = m->deadline_ms;
    if (lmo_migration_awaits_notice(m) && m->notice.until_ms < entry->wake_ms) {
        entry->wake_ms = m->notice.until_ms;
    }
    mark_dirty(entry);
}

const struct lmo_task *engine_sent_task(const struct lmo_migration *m, uint32_t ordinal)
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
static void send_later(struct entry *entry, const struct lmo_migration *m, uint32_t ordinal)
{
    if (entry->send_count == LMO_TASKS_MAX) {
        unsigned kept = 0;
        for (unsigned i = 0; i < entry->send_count; i++) {
            if (engine_sent_task(m, entry->send[i]) && entry->send[i] != ordinal) {
                entry->send[kept++] = entry->send[i];
            }
        }
        entry->send_count = kept;
    }
    lmo_assert(entry->send_count < LMO_TASKS_MAX);
    entry->send[entry->send_count++] = ordinal;
}

/* For jitter: splitmix64, begun with real randomness. */
static uint32_t next_random(struct lmo_engine *e)
{
    uint64_t z = e->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

/* e->spare is what the record has become. */
static void adopt(struct entry *entry, const struct lmo_effects *effects)
{
    struct lmo_engine *e = entry->engine;
    for (unsigned i = 0; i < e->spare->task_count; i++) {
        if ((effects->send >> i) & 1U) {
            send_later(entry, e->spare, e->spare->tasks[i].ordinal);
        }
    }
    enum lmo_phase before = entry->phase;
    unsigned phases_before = engine_record(entry)->phase_time_count;
    engine_take_spare(entry);
    engine_tell_step(entry, before, effects);
    engine_figures_step(entry, phases_before, effects);
    for (unsigned i = 0; i < effects->journal_count; i++) {
        engine_journal(entry, effects->journal[i].what, effects->journal[i].why);
        lmo_log(LMO_LOG_INFO, "migration", "migration=%s phase=%s trace=%s what=%s why=%s", entry->id,
                lmo_phase_text(entry->phase), engine_record(entry)->trace.id, effects->journal[i].what, effects->journal[i].why);
    }
    entry->durable |= effects->durable;
    entry->ended |= effects->ended;
    entry->wake_ms = effects->wake_ms;
    engine_admission_stepped(entry);
    mark_dirty(entry);
}

int engine_apply(struct entry *entry, struct lmo_event *ev, struct lmo_err *err)
{
    if (entry->engine->observing) { /* B4 */
        return lmo_fail(err, LMO_E_UNAVAILABLE, "the store was restored and is not activated: nothing is decided yet");
    }
    static struct lmo_effects effects; /* the loop thread's scratch: 8 KiB that need not be on every stack */
    ev->now_ms = engine_now_ms(entry->engine);
    ev->now_boot_us = lmo_now_ns() / 1000;
    struct lmo_engine *e = entry->engine;
    ev->random = next_random(e);
    engine_heat(entry, false);
    int r = lmo_core_step(engine_record(entry), ev, e->spare, &effects, err);
    if (r < 0) {
        if (r == LMO_E_INTERNAL && !entry->recovering) {
            lmo_log(LMO_LOG_ERROR, "step refused by an invariant", "migration=%s event=%d why=%s", entry->id,
                    (int)ev->kind, err ? err->text : "");
            lmo_unreachable("a step broke an invariant of the record");
        }
        if (!entry->dirty) {
            engine_cool(entry);
        }
        return r;
    }
    adopt(entry, &effects);
    return 0;
}

int engine_try(struct entry *entry, struct lmo_event *ev, struct lmo_err *err)
{
    static struct lmo_effects effects;
    ev->now_ms = engine_now_ms(entry->engine);
    ev->now_boot_us = lmo_now_ns() / 1000;
    return lmo_core_step(engine_record(entry), ev, entry->engine->spare, &effects, err);
}

int engine_restored(struct entry *entry, const struct lmo_restore_view *v, bool act, struct lmo_err *err)
{
    static struct lmo_effects effects;
    struct lmo_engine *e = entry->engine;
    if (act) {
        engine_heat(entry, false);
    }
    int r = lmo_core_restored(engine_record(entry), v, engine_now_ms(e), e->spare, &effects, err);
    if (r == 0 && act && effects.durable) {
        adopt(entry, &effects);
    }
    return r;
}

/* ------------------------------------------------------------------ objects beside migrations */

struct after_commit {
    struct after_commit *next;
    lmo_engine_reply_fn *fn;
    void *arg;
    unsigned status;
    json_t *body;
    char etag[LMO_ETAG_MAX];
};

int engine_put(struct lmo_engine *e, const struct lmo_object *o, struct lmo_err *err)
{
    int r = e->store->ops->put ? e->store->ops->put(e->store, o) : LMO_E_UNSUPPORTED;
    if (r < 0) {
        return lmo_fail(err, r, "%s", r == LMO_E_NO_MEMORY ? "no memory to store it" : "this store keeps no such things");
    }
    e->objects = true;
    engine_flush_soon(e);
    return 0;
}

void engine_reply_committed(struct request *r, unsigned status, json_t *body, const char *etag)
{
    struct lmo_engine *e = r->engine;
    struct after_commit *a = body ? calloc(1, sizeof *a) : NULL;
    if (!a) {
        json_decref(body);
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory for the answer; it was done");
        return;
    }
    engine_keep_with_commit(e, r->keyed, status, body, "", etag);
    *a = (struct after_commit){.fn = r->fn, .arg = r->arg, .status = status, .body = body};
    LMO_COPY(a->etag, etag);
    *e->after_commit_last = a;
    e->after_commit_last = &a->next;
    engine_flush_soon(e);
}

/* `stopping`: whether it was stored or not is not known. */
static void reply_all(struct lmo_engine *e, bool stopping)
{
    struct after_commit *list = e->after_commit, *next;
    e->after_commit = NULL;
    e->after_commit_last = &e->after_commit;
    for (; list; list = next) {
        next = list->next;
        if (stopping) {
            json_decref(list->body);
            engine_reply_fail(list->fn, list->arg, LMO_E_UNAVAILABLE, "", "the coordinator is stopping");
        } else {
            engine_reply_object(list->fn, list->arg, list->status, list->body, "", list->etag);
        }
        free(list);
    }
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
        lmo_log(LMO_LOG_ERROR, "timer event refused", "migration=%s why=%s", entry->id, err.text);
    }
}

static void arm_timer(struct entry *entry)
{
    struct lmo_loop *loop = entry->engine->loop;
    if (entry->timer && entry->timer_ms == entry->wake_ms) {
        return; /* the deadline is its phase's: most steps leave it alone */
    }
    lmo_loop_cancel(loop, &entry->timer);
    entry->timer_ms = entry->wake_ms;
    if (entry->wake_ms == 0) {
        return;
    }
    int64_t delay = entry->wake_ms - engine_now_ms(entry->engine);
    delay = delay < 1 ? 1 : delay > 3600000 ? 3600000 : delay; /* early is harmless: the step looks at the time */
    if (lmo_loop_timer(loop, (uint64_t)delay, on_timer, entry, &entry->timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer left", "migration=%s", entry->id);
    }
}

/* The domain's XML is as large as all the rest; after the destination was prepared nothing asks for it again. All that a guest
 * that is shut off consists of is its XML. */
static bool xml_needed(enum lmo_phase phase, bool shut_off)
{
    return shut_off || phase == LMO_PHASE_QUEUED || phase == LMO_PHASE_PRECHECK || phase == LMO_PHASE_DESTINATION_CREATE;
}

static void drop_stored(struct entry *entry)
{
    free(entry->journal);
    entry->journal = NULL;
    entry->journal_count = entry->journal_size = 0;
    free(entry->events);
    entry->events = NULL;
    entry->event_count = entry->event_size = 0;
    entry->durable = entry->xml_dirty = false;
    if (!xml_needed(entry->phase, entry->shut_off)) {
        free(entry->xml);
        entry->xml = NULL;
    }
}

static void carry_out(struct entry *entry)
{
    if (entry->durable) {
        entry->stored_version = entry->version;
    }
    drop_stored(entry);
    if (entry->request) {
        engine_created(entry, 0, "");
    }
    unsigned count = entry->send_count;
    entry->send_count = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct lmo_task *t = engine_sent_task(engine_record(entry), entry->send[i]);
        if (t) {
            engine_send_or_hold(entry, t);
        }
    }
    engine_wake_waiters(entry);
    if (entry->notice || entry->phase == LMO_PHASE_QUEUED) {
        engine_notice_committed(entry);
    }
    if (entry->drain[0]) {
        engine_drains_child_changed(entry);
    }
    if (entry->ended) {
        engine_spans_ended(entry);
        engine_fleet_ended(entry);
        engine_entry_free(entry);
    } else {
        arm_timer(entry);
        engine_cool(entry);
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
    e->stall_code = err->code;
    LMO_COPY(e->stall_why, err->text);
    lmo_log(LMO_LOG_ERROR, "cannot commit; nothing is sent until it works", "try=%u code=%s why=%s", e->stalls,
            lmo_err_name(err->code), err->text);
    if (lmo_loop_timer(e->loop, STALL_RETRY_MS, on_stall_timer, e, &e->stall_timer) < 0) {
        lmo_unreachable("no timer for the store's retry");
    }
}

static struct lmo_commit_item item_of(struct entry *en)
{
    engine_heat(en, true);
    return (struct lmo_commit_item){
        .record = en->hot,
        .expected_version = en->stored_version,
        .journal = en->journal,
        .journal_count = en->journal_count,
        .xml = en->xml_dirty ? en->xml : NULL,
        .answers = engine_answers_of(en),
        .events = en->events,
        .event_count = en->event_count,
    };
}

/* The oldest entries of e->dirty that go into the next transaction. */
static unsigned batch_size(const struct lmo_engine *e)
{
    unsigned count = 0;
    for (const struct entry *en = e->dirty; en && count < LMO_BATCH_MAX; en = en->next_dirty) {
        count++;
    }
    return count;
}

/* Everything that this host's events changed is committed before, or is among the next `count`. */
static bool cursor_due(const struct lmo_engine *e, const struct host *h, unsigned count)
{
    return h->cursor_after <= e->settled + count;
}

static unsigned collect_items(struct lmo_engine *e, unsigned count, struct lmo_commit_item *items, bool *ret_tells)
{
    unsigned n = 0;
    struct entry *en = e->dirty;
    for (unsigned i = 0; i < count; i++, en = en->next_dirty) {
        if (!en->durable) {
            continue;
        }
        *ret_tells = *ret_tells || en->event_count > 0;
        items[n++] = item_of(en);
    }
    return n;
}

/* One transaction for the oldest `count` of what has happened, and the cursors that it settles. */
static int commit_batch(struct lmo_engine *e, unsigned count, struct lmo_err *err)
{
    unsigned cursor_count = 0;
    for (const struct host *h = e->cursors; h; h = h->next_cursor) {
        cursor_count += cursor_due(e, h, count);
    }
    LMO_AUTO_FREE struct lmo_commit_item *items = calloc(count + 1, sizeof *items);
    LMO_AUTO_FREE struct lmo_commit_cursor *cursors = calloc(cursor_count + 1, sizeof *cursors);
    if (!items || !cursors) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a batch of %u records", count);
    }
    bool tells = e->audits;
    unsigned item_count = collect_items(e, count, items, &tells), c = 0;
    for (const struct host *h = e->cursors; h; h = h->next_cursor) {
        if (cursor_due(e, h, count)) {
            cursors[c++] = (struct lmo_commit_cursor){.host = h->row.name, .cursor = h->seen_cursor};
        }
    }
    tells |= engine_tells_hand_over(e);
    if (item_count + cursor_count == 0 && !tells && !e->objects) {
        return 0;
    }
    uint64_t began = lmo_now_ns();
    int r = e->store->ops->commit(e->store, items, item_count, cursors, cursor_count, err);
    if (r == 0) {
        lmo_metric_observe(e->figures.store_commit_seconds, 0, 0, (lmo_now_ns() - began) / 1000);
    } else {
        lmo_metric_add(e->figures.commit_failures, 0, 0, 1);
    }
    e->audits = e->audits && r < 0;
    e->tells = e->tells || (r == 0 && tells);
    e->commits += r == 0;
    e->objects = e->objects && r < 0;
    return r;
}

static void acknowledge(struct lmo_engine *e, unsigned count)
{
    for (struct host **at = &e->cursors; *at;) {
        struct host *h = *at;
        if (!cursor_due(e, h, count)) {
            at = &h->next_cursor;
            continue;
        }
        *at = h->next_cursor;
        h->cursor_pending = false;
        h->row.cursor = h->seen_cursor;
        e->workers->ops->acknowledge(e->workers, h->row.name, h->row.cursor); /* E2 */
    }
}

void engine_cursor_forget(struct lmo_engine *e, struct host *host)
{
    for (struct host **at = &e->cursors; *at; at = &(*at)->next_cursor) {
        if (*at == host) {
            *at = host->next_cursor;
            return;
        }
    }
}

static struct entry *take_dirty(struct lmo_engine *e)
{
    struct entry *entry = e->dirty;
    e->dirty = entry->next_dirty;
    if (!e->dirty) {
        e->dirty_last = &e->dirty;
    }
    entry->dirty = false;
    e->settled++;
    return entry;
}

/* The batch was refused for what one of its records is, not for the store's state: each is stored alone, and those that
 * never can be are set aside. The rest of the batch (cursors, audit lines) is stored by the caller's next try. */
static void isolate(struct lmo_engine *e, unsigned count)
{
    struct entry **at = &e->dirty;
    for (; count > 0; count--) {
        struct entry *en = *at;
        struct lmo_err err = {0};
        int r = 0;
        if (en->durable) {
            struct lmo_commit_item item = item_of(en);
            r = e->store->ops->commit(e->store, &item, 1, NULL, 0, &err);
        }
        if (r == 0 && en->durable) {
            en->stored_version = en->version;
            en->durable = en->xml_dirty = false; /* its effects follow with the batch's */
            en->journal_count = en->event_count = 0;
            e->tells = true;
        }
        if (r == 0 || !engine_is_hopeless(r)) {
            at = &en->next_dirty;
            continue;
        }
        *at = en->next_dirty;
        e->settled++;
        engine_set_aside(en, &err);
        engine_entry_free(en);
    }
    while (*at) {
        at = &(*at)->next_dirty;
    }
    e->dirty_last = at;
}

static void flush(void *arg)
{
    struct lmo_engine *e = arg;
    if (e->stalled) {
        e->flush_posted = false;
        return;
    }
    engine_drains_store(e);  /* a cordon is in force before anything is admitted */
    engine_admission_run(e); /* what it steps is part of this commit: no other flush is asked for */
    e->flush_posted = false;
    if (e->admission.due) {
        engine_flush_soon(e);
    }
    struct lmo_err err = {0};
    unsigned count = batch_size(e);
    LMO_FAULT(COORDINATOR_COMMIT, "");
    int r = commit_batch(e, count, &err);
    if (engine_is_hopeless(r)) {
        isolate(e, count);
        err = (struct lmo_err){0};
        count = batch_size(e);
        r = commit_batch(e, count, &err);
    }
    if (r < 0) {
        stall(e, &err); /* E4 */
        return;
    }
    LMO_FAULT(COORDINATOR_EFFECTS, "");
    if (e->stalls > 0) {
        lmo_log(LMO_LOG_WARN, "commits work again", "after=%u", e->stalls);
        e->stalls = 0;
        e->stall_code = 0;
    }
    acknowledge(e, count);
    for (; count > 0; count--) {
        carry_out(take_dirty(e)); /* E1, E3; may free the entry */
    }
    reply_all(e, false);
    engine_drains_act(e);
    if (e->tells) { /* after the effects: those do not wait for who follows */
        e->tells = false;
        engine_told(e);
    }
    if (e->dirty) { /* what else is ready gets its turn before the next batch */
        engine_flush_soon(e);
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

/* ------------------------------------------------------------------ the term */

/* E5: whoever was overtaken ends at once, whatever it was about to do. True: the term is still ours. */
static bool check_term(struct lmo_engine *e)
{
    struct lmo_err err = {0};
    int r = e->store->ops->check_term ? e->store->ops->check_term(e->store, &err) : 0;
    if (r == LMO_E_CONFLICT) {
        lmo_log(LMO_LOG_ERROR, "another coordinator has taken over: stopping", "why=%s", err.text);
        abort();
    }
    return r == 0; /* a store that cannot be read: nothing can be written either, so nothing new is done */
}

static void on_term_timer(void *arg)
{
    struct lmo_engine *e = arg;
    e->term_timer = 0;
    (void)check_term(e);
    if (lmo_loop_timer(e->loop, TERM_CHECK_MS, on_term_timer, e, &e->term_timer) < 0) {
        lmo_unreachable("no timer for the term");
    }
}

/* A worker's word alone does not stop a coordinator: it may belong to another one. */
static void on_superseded(void *arg, const char *host, const char *why)
{
    struct lmo_engine *e = arg;
    if (!e->stopping && check_term(e)) {
        lmo_log(LMO_LOG_ERROR, "worker obeys a coordinator of a higher term, which this store knows nothing of",
                "host=%s why=%s", host, why);
    }
}

/* ------------------------------------------------------------------ workers */

void lmo_engine_stop(struct lmo_engine *e)
{
    if (e) {
        atomic_store(&e->closed, true);
        e->stopping = true;
    }
}

/* May this host's worker say that of this migration? A worker that is not part of it, or not of that side, decides
 * nothing about it: "resumed" from anybody else would have the running guest killed at its source. */
static bool may_say(const struct entry *m, const char *host, enum lmo_worker_event_kind kind)
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
    if (!h || e->stopping || e->observing) {
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
        if (!may_say(entry, host, events[i].kind)) {
            lmo_log(LMO_LOG_WARN, "event of a worker that has no say in it: ignored", "migration=%s host=%s event=%s",
                    entry->id, host, lmo_worker_event_text(events[i].kind));
            continue;
        }
        LMO_FAULT(COORDINATOR_EVENT, lmo_worker_event_text(events[i].kind));
        struct lmo_event ev = {.kind = LMO_EV_WORKER, .worker = &events[i]};
        struct lmo_err err = {0};
        if (engine_apply(entry, &ev, &err) < 0) {
            lmo_log(LMO_LOG_ERROR, "worker event refused", "migration=%s host=%s why=%s", entry->id, host, err.text);
        } else if (events[i].kind == LMO_WEV_PROGRESS) {
            engine_admission_sample(entry);
            engine_tell_progress(entry);
        }
    }
    if (next > h->seen_cursor) {
        h->seen_cursor = next;
        h->cursor_after = e->dirtied;
        if (!h->cursor_pending) {
            h->cursor_pending = true;
            h->next_cursor = e->cursors;
            e->cursors = h;
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
        if (engine_tell_host(e, up ? "host.up" : "host.down", host, up ? NULL : why)) {
            engine_tell_later(e);
        }
    }
    h->known = true;
    h->up = up;
    if (facts) {
        h->facts = *facts;
        h->facts_ns = lmo_now_ns();
        h->last_error[0] = '\0';
        engine_heard(h);
        engine_fleet_look(h);
        engine_drains_host_up(h);
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
    int r = engine_entries_init(e, err);
    if (r < 0) {
        free(e);
        return r;
    }
    r = engine_board_init(e, err);
    if (r < 0) {
        engine_entries_done(e);
        free(e);
        return r;
    }
    lmo_random(&e->random, sizeof e->random);
    e->dirty_last = &e->dirty;
    engine_feed_init(e, &cfg->feed);
    e->outbound = cfg->outbound;
    engine_webhooks_init(e, &cfg->webhooks);
    engine_spans_init(e, &cfg->otlp);
    e->after_commit_last = &e->after_commit;
    e->loop = cfg->loop;
    e->store = cfg->store;
    e->permit_key = cfg->permit_key;
    e->hooks = cfg->hooks;
    r = engine_admission_init(e, cfg->limits, err);
    r = r < 0 ? r : engine_figures_init(e, err);
    if (r < 0) {
        engine_entries_done(e);
        engine_board_done(e);
        free(e);
        return r;
    }
    e->booted_ms = (int64_t)(lmo_realtime_us() / 1000) - (int64_t)lmo_now_ms();
    e->callbacks = (struct lmo_workers_callbacks){.arg = e, .events = on_events, .host_state = on_host_state,
                                                  .superseded = on_superseded};
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
        engine_entry_free(entry);
    }
    engine_tells_done(e);
    engine_feed_done(e);
    engine_webhooks_done(e);
    reply_all(e, true);
    engine_drains_done(e);
    engine_admission_done(e);
    engine_entries_done(e);
    engine_fleet_done(e);
    struct host *h, *htmp;
    HASH_ITER(hh, e->hosts, h, htmp) {
        HASH_DEL(e->hosts, h);
        engine_host_free(h);
    }
    engine_quarantine_free(e);
    engine_keyed_free(e);
    engine_board_done(e);
    engine_tokens_free(e);
    engine_spans_done(e);
    engine_figures_done(e);
    lmo_loop_cancel(e->loop, &e->stall_timer);
    lmo_loop_cancel(e->loop, &e->term_timer);
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
    h->engine = e;
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
    if (xml && xml_needed(m->phase, lmo_migration_shut_off(m)) && !(entry->xml = strdup(xml))) {
        return LMO_E_NO_MEMORY;
    }
    return 0;
}

void engine_recover(struct lmo_engine *e)
{
    struct entry *entry, *tmp;
    HASH_ITER(hh, e->entries, entry, tmp) {
        struct lmo_event ev = {.kind = LMO_EV_RECOVERED};
        struct lmo_err why = {0};
        entry->recovering = true;
        int r = engine_apply(entry, &ev, &why);
        entry->recovering = false;
        if (r < 0) {
            engine_set_aside(entry, &why);
            engine_entry_free(entry);
        }
    }
}

int lmo_engine_start(struct lmo_engine *e, struct lmo_workers *workers, struct lmo_err *err)
{
    e->workers = workers;
    engine_restore_begin(e);
    int r = e->store->ops->host_list(e->store, load_host, e, err);
    if (r < 0) {
        return lmo_err_prefix(err, "loading hosts");
    }
    r = engine_fleet_load(e, err);
    if (r < 0) {
        return lmo_err_prefix(err, "loading what was said about hosts and guests");
    }
    r = e->store->ops->load_open(e->store, load_open, e, err);
    if (r < 0) {
        return lmo_err_prefix(err, "loading open migrations");
    }
    r = engine_quarantine_load(e, err);
    if (r < 0) {
        return lmo_err_prefix(err, "loading what was set aside");
    }
    r = engine_tokens_load(e, err);
    if (r < 0) {
        return lmo_err_prefix(err, "loading tokens");
    }
    r = engine_feed_start(e, err);
    if (r == 0) {
        r = engine_webhooks_start(e, err);
    }
    if (r < 0) {
        return lmo_err_prefix(err, "reading the event log");
    }
    if (!e->observing) {
        engine_recover(e);
    }
    r = engine_drains_load(e, err);
    if (r < 0) {
        return lmo_err_prefix(err, "loading drains");
    }
    if (e->store->ops->check_term && lmo_loop_timer(e->loop, TERM_CHECK_MS, on_term_timer, e, &e->term_timer) < 0) {
        return lmo_fail(err, LMO_E_LIMIT, "no timer for the term");
    }
    lmo_log(LMO_LOG_INFO, "engine started", "hosts=%u open_migrations=%u", HASH_COUNT(e->hosts), HASH_COUNT(e->entries));
    engine_restore_look(e);
    return 0;
}
