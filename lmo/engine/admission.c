/* admission.c - keeps the snapshot of core/admission.h up to date, evaluates it, and steps the records that this decides.
 *
 * What a migration takes of the fleet follows from its record alone, so nothing has to be given back and nothing to be
 * recovered: the model is filled from the records at the start and after each of their steps, and an evaluation
 * happens before the commit of the very turn in which something changed. What it decides (a start, another share) is part of
 * that commit. Nothing is evaluated in turns in which nothing changed.
 * Memory is admission_memory.c, what people see of all this admission_show.c. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORDER_AGAIN_MS 1000 /* a share that the worker refused: the job is about to end, as a rule */
#define ROUNDS_MAX     3    /* evaluations in one turn */
#define NOBODY         0U   /* slot of a host that is not registered: it never takes part */

/* ------------------------------------------------------------------ arrays that grow */

static int grow(void *array, size_t size, uint32_t from, uint32_t to)
{
    void **p = array;
    char *grown = realloc(*p, size * to);
    if (!grown) {
        return LMO_E_NO_MEMORY;
    }
    memset(grown + size * from, 0, size * (to - from));
    *p = grown;
    return 0;
}

static int more_hosts(struct admission *a)
{
    uint32_t size = a->host_size ? 2 * a->host_size : 16;
    int r = grow(&a->fleet.hosts, sizeof *a->fleet.hosts, a->host_size, size);
    r = r < 0 ? r : grow(&a->hosts, sizeof(struct host *), a->host_size, size);
    if (r == 0) {
        a->host_size = size;
    }
    return r;
}

static int more_items(struct admission *a)
{
    uint32_t size = a->item_size ? 2 * a->item_size : 64;
    int r = grow(&a->fleet.items, sizeof *a->fleet.items, a->item_size, size);
    r = r < 0 ? r : grow(&a->entries, sizeof(struct entry *), a->item_size, size);
    r = r < 0 ? r : grow(&a->queue_prev, sizeof *a->queue_prev, a->item_size, size);
    r = r < 0 ? r : grow(&a->watched, sizeof *a->watched, a->item_size, size);
    if (r == 0) {
        a->item_size = size;
    }
    return r;
}

static int new_slot(struct admission *a, uint32_t *ret)
{
    if (a->free_host != LMO_NONE) {
        *ret = a->free_host;
        a->free_host = a->fleet.hosts[*ret].line[0];
    } else if (a->fleet.host_count < a->host_size || more_hosts(a) == 0) {
        *ret = a->fleet.host_count++;
    } else {
        return LMO_E_NO_MEMORY;
    }
    a->fleet.hosts[*ret] = (struct lmo_adm_host){0};
    return 0;
}

static int new_item(struct admission *a, uint32_t *ret)
{
    if (a->free_item != LMO_NONE) {
        *ret = a->free_item;
        a->free_item = a->fleet.items[*ret].next;
    } else if (a->fleet.item_count < a->item_size || more_items(a) == 0) {
        *ret = a->fleet.item_count++;
    } else {
        return LMO_E_NO_MEMORY;
    }
    a->fleet.items[*ret] = (struct lmo_adm_item){.next = LMO_NONE, .hold = {.host = LMO_NONE}};
    a->watched[*ret] = true;
    return 0;
}

int engine_admission_init(struct lmo_engine *e, const struct lmo_limits *limits, struct lmo_err *err)
{
    struct admission *a = &e->admission;
    uint32_t nobody;
    if (limits) {
        a->limits = *limits;
    } else {
        lmo_limits_default(&a->limits);
    }
    a->free_item = a->free_host = a->queue_tail = a->fleet.queue = LMO_NONE;
    a->fleet.limits = &a->limits;
    if (new_slot(a, &nobody) < 0) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for admission");
    }
    lmo_assert(nobody == NOBODY);
    return 0;
}

void engine_admission_done(struct lmo_engine *e)
{
    struct admission *a = &e->admission;
    lmo_loop_cancel(e->loop, &a->timer);
    free(a->fleet.hosts);
    free(a->fleet.items);
    free(a->hosts);
    free(a->entries);
    free(a->queue_prev);
    free(a->watched);
    *a = (struct admission){0};
}

/* Something changed: looked at before the next commit. */
static void due(struct lmo_engine *e)
{
    e->admission.due = true;
    engine_flush_soon(e);
}

/* ------------------------------------------------------------------ hosts */

int engine_admission_host_add(struct lmo_engine *e, struct host *h, struct lmo_err *err)
{
    if (new_slot(&e->admission, &h->slot) < 0) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for host %s", h->row.name);
    }
    e->admission.hosts[h->slot] = h;
    return 0;
}

void engine_admission_host_remove(struct lmo_engine *e, struct host *h)
{
    struct admission *a = &e->admission;
    a->hosts[h->slot] = NULL;
    a->fleet.hosts[h->slot] = (struct lmo_adm_host){.line = {a->free_host}};
    a->free_host = h->slot;
}

static uint32_t limit_or(const struct host *h, uint32_t bit, uint32_t own, uint32_t common)
{
    return h->row.limits.given & bit ? own : common;
}

void engine_admission_host_changed(struct lmo_engine *e, struct host *h)
{
    struct admission *a = &e->admission;
    struct lmo_adm_host *to = &a->fleet.hosts[h->slot];
    const struct lmo_host_limits *own = &h->row.limits;
    const struct lmo_link *link = lmo_host_link(&h->facts, a->limits.link);
    to->usable = h->up && h->facts.hypervisor[0];
    to->max_incoming = limit_or(h, LMO_HOST_LIMIT_INCOMING, own->max_incoming, a->limits.max_incoming);
    to->max_outgoing = limit_or(h, LMO_HOST_LIMIT_OUTGOING, own->max_outgoing, a->limits.max_outgoing);
    to->rate_bytes_per_s = link ? link->rate_bytes_per_s : 0;
    if ((own->given & LMO_HOST_LIMIT_BANDWIDTH) &&
        (to->rate_bytes_per_s == 0 || own->max_bandwidth_bytes_per_s < to->rate_bytes_per_s)) {
        to->rate_bytes_per_s = own->max_bandwidth_bytes_per_s;
    }
    engine_admission_fill_memory(e, h, to);
    for (uint32_t n = 0; n < a->fleet.item_count; n++) { /* sizes of pages may be told in another order now */
        struct lmo_adm_item *i = &a->fleet.items[n];
        if (i->state != LMO_ADM_FREE && i->destination == h->slot && i->huge_bytes) {
            i->huge_pool = engine_admission_pool(h, engine_record(a->entries[n])->vm.huge_page_bytes);
        }
    }
    due(e);
}

/* ------------------------------------------------------------------ records */

static uint32_t slot_of(struct lmo_engine *e, const char *host)
{
    const struct host *h = engine_host(e, host);
    return h ? h->slot : NOBODY;
}

/* What the record says that the migration takes. */
static void fill_item(struct entry *entry, struct lmo_adm_item *to)
{
    struct lmo_engine *e = entry->engine;
    const struct lmo_migration *m = engine_record(entry);
    const struct host *destination = engine_host(e, m->destination);
    uint8_t pool = m->vm.huge_page_bytes ? engine_admission_pool(destination, m->vm.huge_page_bytes) : 0;
    to->state = lmo_migration_is_running(m) ? LMO_ADM_RUNNING : LMO_ADM_QUEUED;
    to->source = slot_of(e, m->source);
    to->destination = slot_of(e, m->destination);
    bool runs = !lmo_migration_shut_off(m); /* else it only gets defined there */
    to->memory_bytes = runs ? lmo_memory_needed(&e->admission.limits, m->vm.memory_bytes, pool != 0) : 0;
    to->huge_bytes = runs && pool ? m->vm.memory_bytes : 0;
    to->huge_pool = pool;
    to->cap_bytes_per_s = m->policy.bandwidth_bytes_per_s;
    to->demand_bytes_per_s = entry->demand.bytes_per_s;
    to->held = m->phase == LMO_PHASE_QUEUED && engine_now_ms(e) < m->held_until_ms;
    to->notice = lmo_migration_awaits_notice(m);
    to->stream = lmo_migration_streams(m);
    to->adjustable = lmo_migration_adjustable(m) && entry->quiet_until_ns == 0;
    to->ordered = lmo_migration_sent(m, LMO_OP_OPEN_GATE);
    to->share_bytes_per_s = m->share_bytes_per_s;
    to->held_bytes_per_s = m->share_held_bytes_per_s;
}

void engine_admission_set_limits(struct lmo_engine *e, const struct lmo_limits *limits)
{
    struct admission *a = &e->admission;
    struct lmo_limits next = *limits;
    LMO_COPY(next.link, a->limits.link); /* memory that is on its way took the old one */
    a->limits = next;
    for (struct host *h = e->hosts; h; h = h->hh.next) {
        engine_admission_host_changed(e, h);
    }
    for (uint32_t n = 0; n < a->fleet.item_count; n++) { /* what a guest takes of a host's memory is a matter of limits, too */
        if (a->entries[n]) {
            fill_item(a->entries[n], &a->fleet.items[n]);
        }
    }
    due(e);
}

/* Whatever it was set for: those whose worker was to be left alone may be asked again, and everything is looked at. */
static void on_timer(void *arg)
{
    struct lmo_engine *e = arg;
    struct admission *a = &e->admission;
    uint64_t now = lmo_now_ns();
    bool quiet = false;
    a->timer = 0;
    for (uint32_t n = 0; n < a->fleet.item_count; n++) {
        struct entry *entry = a->entries[n];
        if (entry && entry->quiet_until_ns && entry->quiet_until_ns <= now) {
            entry->quiet_until_ns = 0;
            fill_item(entry, &a->fleet.items[n]);
        }
        quiet = quiet || (entry && entry->quiet_until_ns);
    }
    if (quiet) {
        engine_admission_look_again(e, ORDER_AGAIN_MS);
    }
    due(e);
}

void engine_admission_look_again(struct lmo_engine *e, uint64_t ms)
{
    struct admission *a = &e->admission;
    uint64_t at_ns = lmo_now_ns() + ms * LMO_NS_PER_MS;
    if (a->timer && a->timer_ns <= at_ns) {
        return;
    }
    lmo_loop_cancel(e->loop, &a->timer);
    a->timer_ns = at_ns;
    if (lmo_loop_timer(e->loop, ms, on_timer, e, &a->timer) < 0) {
        lmo_unreachable("no timer for admission");
    }
}

static bool same(const struct lmo_adm_item *a, const struct lmo_adm_item *b)
{
    return a->state == b->state && a->held == b->held && a->notice == b->notice && a->stream == b->stream && a->adjustable == b->adjustable &&
           a->ordered == b->ordered && a->share_bytes_per_s == b->share_bytes_per_s &&
           a->held_bytes_per_s == b->held_bytes_per_s && a->memory_bytes == b->memory_bytes &&
           a->huge_bytes == b->huge_bytes && a->demand_bytes_per_s == b->demand_bytes_per_s &&
           a->cap_bytes_per_s == b->cap_bytes_per_s;
}

static void queue_append(struct admission *a, uint32_t n)
{
    a->queue_prev[n] = a->queue_tail;
    a->fleet.items[n].next = LMO_NONE;
    if (a->queue_tail == LMO_NONE) {
        a->fleet.queue = n;
    } else {
        a->fleet.items[a->queue_tail].next = n;
    }
    a->queue_tail = n;
}

static void queue_remove(struct admission *a, uint32_t n)
{
    uint32_t before = a->queue_prev[n], after = a->fleet.items[n].next;
    if (before == LMO_NONE) {
        a->fleet.queue = after;
    } else {
        a->fleet.items[before].next = after;
    }
    if (after == LMO_NONE) {
        a->queue_tail = before;
    } else {
        a->queue_prev[after] = before;
    }
    a->fleet.items[n].next = LMO_NONE;
}

int engine_admission_entry_add(struct entry *entry, struct lmo_err *err)
{
    struct admission *a = &entry->engine->admission;
    if (new_item(a, &entry->item) < 0) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a migration");
    }
    a->entries[entry->item] = entry;
    fill_item(entry, &a->fleet.items[entry->item]);
    if (a->fleet.items[entry->item].state == LMO_ADM_QUEUED) {
        queue_append(a, entry->item);
    }
    due(entry->engine);
    return 0;
}

void engine_admission_entry_remove(struct entry *entry)
{
    struct admission *a = &entry->engine->admission;
    if (entry->item == LMO_NONE) {
        return;
    }
    struct lmo_adm_item *i = &a->fleet.items[entry->item];
    if (i->state == LMO_ADM_QUEUED) {
        queue_remove(a, entry->item);
    }
    a->entries[entry->item] = NULL;
    *i = (struct lmo_adm_item){.state = LMO_ADM_FREE, .next = a->free_item};
    a->free_item = entry->item;
    entry->item = LMO_NONE;
    a->due = true;
}

void engine_admission_stepped(struct entry *entry)
{
    struct admission *a = &entry->engine->admission;
    if (entry->item == LMO_NONE) {
        return;
    }
    struct lmo_adm_item *i = &a->fleet.items[entry->item], before = *i;
    if (lmo_phase_is(entry->phase, LMO_PHASE_TERMINAL)) {
        if (before.state == LMO_ADM_RUNNING) {
            engine_admission_landed(entry);
        }
        engine_admission_entry_remove(entry);
        return;
    }
    const struct lmo_migration *m = engine_record(entry);
    bool unconfirmed = m->share_held_bytes_per_s > m->share_bytes_per_s;
    if (before.state == LMO_ADM_RUNNING && !before.adjustable && before.ordered && unconfirmed &&
        !entry->quiet_until_ns && lmo_migration_adjustable(m)) {
        entry->quiet_until_ns = lmo_now_ns() + ORDER_AGAIN_MS * LMO_NS_PER_MS;
        engine_admission_look_again(entry->engine, ORDER_AGAIN_MS);
    }
    fill_item(entry, i);
    if (before.state == LMO_ADM_QUEUED && i->state == LMO_ADM_RUNNING) {
        queue_remove(a, entry->item);
    } else if (before.state == LMO_ADM_RUNNING && i->state == LMO_ADM_QUEUED) { /* held back by its prediction */
        queue_append(a, entry->item);
    }
    a->due = a->due || !same(&before, i);
}

void engine_admission_sample(struct entry *entry)
{
    const struct lmo_migration *m = engine_record(entry);
    struct lmo_engine *e = entry->engine;
    if (entry->item == LMO_NONE || !m->gate_open || m->phase != LMO_PHASE_PRECOPY || !lmo_migration_adjustable(m)) {
        return;
    }
    struct lmo_adm_item *i = &e->admission.fleet.items[entry->item];
    uint64_t least = lmo_admission_min_share(&e->admission.fleet, i);
    if (m->progress.bandwidth_bytes_per_s &&
        lmo_demand_sample(&entry->demand, m->progress.rate_bytes_per_s, m->progress.bandwidth_bytes_per_s, least)) {
        i->demand_bytes_per_s = entry->demand.bytes_per_s;
        due(e);
    }
}

/* ------------------------------------------------------------------ the evaluation */

static void log_refused(int r, const struct entry *entry, const struct lmo_err *err)
{
    if (r < 0) {
        lmo_log(LMO_LOG_ERROR, "admission refused by the core", "migration=%s why=%s", entry->id, err->text);
        lmo_unreachable("a record that admission counts on refused its decision");
    }
}

/* "tcp://ADDRESS", with brackets around what has colons. */
static void migration_uri(const struct lmo_link *link, char ret[LMO_URL_MAX])
{
    bool v6 = strchr(link->address, ':') != NULL;
    (void)snprintf(ret, LMO_URL_MAX, "tcp://%s%s%s", v6 ? "[" : "", link->address, v6 ? "]" : "");
}

static void start(struct lmo_engine *e, struct entry *entry, uint64_t share)
{
    const struct host *s = engine_host(e, entry->source), *d = engine_host(e, entry->destination);
    char uri[LMO_URL_MAX];
    struct lmo_err err = {0}, why = {0};
    struct lmo_event ev = {.kind = LMO_EV_ADMITTED, .share_bytes_per_s = share};
    lmo_assert(s && d);
    const struct lmo_migration *m = engine_record(entry);
    ev.code = engine_permits(e, d, m->vm.uuid, m->vm.name, m->policy.force, &why);
    ev.code = ev.code < 0 ? ev.code : engine_admission_possible(e, s, d, &m->vm, &why);
    if (ev.code < 0) { /* its hosts were told other things while it waited; what was meant for it is free again */
        ev.text = why.text;
        e->admission.again = true;
    } else {
        migration_uri(lmo_host_link(&d->facts, e->admission.limits.link), uri);
        ev.migration_uri = uri;
        ev.peer_uri = d->facts.peer_uri;
    }
    log_refused(engine_apply(entry, &ev, &err), entry, &err);
}

/* Those that were admitted, and news for those that were not. */
static void act_on_queue(struct lmo_engine *e)
{
    struct admission *a = &e->admission;
    for (uint32_t n = a->fleet.queue, next; n != LMO_NONE; n = next) {
        const struct lmo_adm_item *i = &a->fleet.items[n];
        next = i->next;
        if (i->admitted) {
            start(e, a->entries[n], i->new_share_bytes_per_s);
        } else if (a->watched[n]) {
            struct entry *entry = a->entries[n];
            if (!entry->hold_told && entry->version > entry->stored_version) { /* goes with its first commit */
                char text[LMO_TEXT_MAX];
                engine_admission_hold_text(entry, text, sizeof text);
                engine_journal(entry, "waits in the queue", text);
                entry->hold_told = true;
                engine_inserted(entry);
            }
            a->watched[n] = entry->waiter_count > 0;
            if (entry->waiter_count > 0) {
                engine_admission_tell(entry);
            }
        }
    }
}

static void act_on_shares(struct lmo_engine *e)
{
    struct admission *a = &e->admission;
    for (uint32_t n = 0; a->fleet.changed > 0 && n < a->fleet.item_count; n++) {
        const struct lmo_adm_item *i = &a->fleet.items[n];
        if (i->state == LMO_ADM_RUNNING && i->changed) {
            struct lmo_err err = {0};
            struct lmo_event ev = {.kind = LMO_EV_SHARE, .share_bytes_per_s = i->new_share_bytes_per_s};
            const struct host *source = engine_host(e, a->entries[n]->source);
            a->fleet.changed--;
            if (i->ordered && !(source && source->up)) {
                continue; /* when it is back, it is looked at again */
            }
            a->again = a->again || !i->ordered; /* what it gives up is free already */
            log_refused(engine_apply(a->entries[n], &ev, &err), a->entries[n], &err);
        }
    }
}

static void evaluate(struct lmo_engine *e)
{
    struct admission *a = &e->admission;
    uint64_t now = lmo_now_ns();
    for (uint32_t n = a->fleet.queue; n != LMO_NONE; n = a->fleet.items[n].next) {
        uint32_t to = a->fleet.items[n].destination;
        a->fleet.hosts[to].memory_stale = engine_admission_stale(a->hosts[to], now);
    }
    lmo_admission_decide(&a->fleet);
    const char *broken = lmo_admission_broken(&a->fleet);
    if (broken) {
        lmo_log(LMO_LOG_ERROR, "admission broke an invariant", "why=%s", broken);
        lmo_unreachable("admission broke an invariant");
    }
    a->evaluations++;
    a->again = false;
    act_on_shares(e);
    act_on_queue(e);
    a->due = a->again; /* all else that was stepped makes true what the evaluation has counted with already */
    for (uint32_t n = 0; n < a->fleet.host_count; n++) {
        if (a->fleet.hosts[n].ask_memory && a->hosts[n]) {
            engine_admission_ask(e, a->hosts[n]);
        }
    }
    if (a->fleet.waits_for_memory) {
        engine_admission_look_again(e, LMO_MEMORY_FRESH_MS);
    }
}

void engine_admission_run(struct lmo_engine *e)
{
    if (e->observing) {
        e->admission.due = false; /* all is looked at anew when the records are told that they were loaded */
        return;
    }
    for (unsigned round = 0; round < ROUNDS_MAX && e->admission.due && !e->stopping && e->workers; round++) {
        evaluate(e); /* what then is still due is looked at in the next turn */
    }
}
