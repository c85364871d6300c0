/* requests.c - what clients ask for: each call is copied, posted to the loop, done there, answered after its commit. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/drains_internal.h"
#include "engine/record_codec.h"
#include "proto/codec.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define DEFAULT_MAX_DOWNTIME_MS 300
#define CANCEL_COMMIT_MS 25000 /* before the API itself gives up */
#define DEFAULT_THROTTLE_INITIAL_PERCENT 20   /* QEMU's own */
#define DEFAULT_THROTTLE_INCREMENT_PERCENT 10

void engine_reply_ok(lmo_engine_reply_fn *fn, void *arg, unsigned status, json_t *body, const char *location)
{
    struct lmo_engine_reply r = {.http_status = status, .body = body, .text = "", .field = "", .location = location};
    fn(arg, &r);
}

void engine_reply_fail(lmo_engine_reply_fn *fn, void *arg, int code, const char *field, const char *fmt, ...)
{
    char text[LMO_ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct lmo_engine_reply r = {.code = code, .text = text, .field = field, .location = ""};
    fn(arg, &r);
}

void engine_reply_object(lmo_engine_reply_fn *fn, void *arg, unsigned status, json_t *body, const char *location,
                         const char *etag)
{
    if (!body) {
        engine_reply_fail(fn, arg, LMO_E_NO_MEMORY, "", "no memory for the answer");
        return;
    }
    struct lmo_engine_reply r = {
        .http_status = status, .body = body, .text = "", .field = "", .location = location, .etag = etag};
    fn(arg, &r);
}

/* `entry`: if the record is open. */
void engine_reply_migration(lmo_engine_reply_fn *fn, void *arg, unsigned status, const struct lmo_migration *m,
                            const struct entry *entry)
{
    char location[64], etag[LMO_ETAG_MAX];
    (void)snprintf(location, sizeof location, "/v1/migrations/%s", m->id);
    engine_migration_etag(m, etag);
    engine_reply_object(fn, arg, status, engine_migration_json(m, entry), status == 202 ? location : "", etag);
}

/* ------------------------------------------------------------------ from any thread to the loop */

static void free_more(const struct request *r)
{
    if (r->more) {
        (r->more_free ? r->more_free : free)(r->more);
    }
}

static void run_request(void *arg)
{
    struct request *r = arg;
    if (r->engine->observing && !r->harmless) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "",
                          "this coordinator's store was restored from a backup: it only observes until `lmo restore --activate`");
    } else if (engine_keyed_begin(r)) {
        r->run(r);
    }
    free_more(r);
    free(r);
}

int engine_post(struct lmo_engine *e, const struct request *template)
{
    struct request *r = malloc(sizeof *r);
    if (!r) {
        free_more(template);
        return LMO_E_NO_MEMORY;
    }
    *r = *template;
    r->engine = e;
    int rc = lmo_loop_post(e->loop, run_request, r);
    if (rc < 0) {
        free_more(r);
        free(r);
    }
    return rc;
}

/* ------------------------------------------------------------------ hosts */

static void host_add(struct request *r)
{
    struct lmo_engine *e = r->engine;
    struct lmo_err err = {0};
    if (engine_host(e, r->name)) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "name", "host %s is registered already", r->name);
        return;
    }
    if (HASH_COUNT(e->hosts) >= LMO_HOSTS_MAX) {
        engine_reply_fail(r->fn, r->arg, LMO_E_LIMIT, "", "%d hosts are registered; that is the limit", LMO_HOSTS_MAX);
        return;
    }
    struct host *h = calloc(1, sizeof *h);
    if (!h) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory for a host");
        return;
    }
    h->engine = e;
    LMO_COPY(h->row.name, r->name);
    LMO_COPY(h->row.url, r->url);
    if (engine_would(r, 201, NULL, "host %s would be registered, and its worker connected to", r->name)) {
        free(h);
        return;
    }
    char location[LMO_NAME_MAX + 16], etag[LMO_ETAG_MAX];
    (void)snprintf(location, sizeof location, "/v1/hosts/%s", h->row.name);
    engine_host_etag(h, etag);
    /* First what can be taken back, then what is durable. */
    int rc = e->workers->ops->host_add(e->workers, h->row.name, h->row.url, 0, &err);
    if (rc == 0 && (rc = engine_admission_host_add(e, h, &err)) < 0) {
        e->workers->ops->host_remove(e->workers, h->row.name);
    } else if (rc == 0) {
        LMO_AUTO_JSON json_t *shown = engine_host_json(e, h);
        engine_keep_with_next_write(r, 201, shown, location, etag);
        bool told = engine_tell_host(e, "host.added", h->row.name, NULL);
        rc = e->store->ops->host_put(e->store, &h->row, &err);
        if (rc < 0) {
            engine_untold(e, told);
            e->workers->ops->host_remove(e->workers, h->row.name);
            engine_admission_host_remove(e, h);
        }
    }
    if (rc < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        free(h);
        return;
    }
    HASH_ADD_STR(e->hosts, row.name, h);
    engine_admission_host_changed(e, h);
    engine_told(e);
    lmo_log(LMO_LOG_INFO, "host registered", "host=%s url=%s", h->row.name, h->row.url);
    engine_reply_object(r->fn, r->arg, 201, engine_host_json(e, h), location, etag);
}

static const char *host_state_text(const struct host *h)
{
    return !h->known ? "unknown" : h->up ? "up" : "down";
}

static int by_name(const void *a, const void *b)
{
    const struct host *const *x = a, *const *y = b;
    return strcmp((*x)->row.name, (*y)->row.name);
}

/* Those of the page and one more, by name; `state` empty: all. *ret_count may be above the page's limit by one. */
static const struct host **hosts_of_page(struct lmo_engine *e, const char *state, const struct lmo_page *page, unsigned *ret_count)
{
    unsigned n = 0;
    const struct host **list = calloc(HASH_COUNT(e->hosts) + 1, sizeof *list);
    for (const struct host *h = e->hosts; list && h; h = h->hh.next) {
        if (strcmp(h->row.name, page->after) > 0 && (!state[0] || strcmp(state, host_state_text(h)) == 0)) {
            list[n++] = h;
        }
    }
    if (list) {
        qsort(list, n, sizeof *list, by_name);
    }
    *ret_count = n > page->limit + 1 ? page->limit + 1 : n;
    return list;
}

static void host_list(struct request *r)
{
    unsigned count = 0, limit = r->page.limit;
    LMO_AUTO_FREE const struct host **hosts = hosts_of_page(r->engine, r->phase, &r->page, &count);
    json_t *list = json_array(), *body = json_object();
    int rc = hosts ? 0 : LMO_E_NO_MEMORY;
    for (unsigned i = 0; hosts && i < count && i < limit; i++) {
        rc |= lmo_json_add(list, engine_host_json(r->engine, hosts[i]));
    }
    rc |= lmo_json_put(body, "hosts", list);
    rc |= hosts ? lmo_page_put_next(body, &r->page, count > limit ? hosts[limit - 1]->row.name : NULL) : 0;
    if (rc) {
        json_decref(body);
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory for the list of hosts");
        return;
    }
    engine_reply_ok(r->fn, r->arg, 200, body, "");
}

static void host_get(struct request *r)
{
    struct host *h = engine_host(r->engine, r->name);
    if (!h) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "name", "host %s is not registered", r->name);
        return;
    }
    char etag[LMO_ETAG_MAX];
    engine_host_etag(h, etag);
    engine_reply_object(r->fn, r->arg, 200, engine_host_json(r->engine, h), "", etag);
}

static bool host_in_use(struct lmo_engine *e, const char *name, const char **ret_id)
{
    for (struct entry *en = e->entries; en; en = en->hh.next) {
        bool used = strcmp(en->source, name) == 0 || strcmp(en->destination, name) == 0;
        const struct lmo_migration *m = used ? NULL : engine_record(en);
        for (unsigned i = 0; m && i < m->vm.volume_count; i++) {
            used |= strcmp(m->vm.volumes[i].worker, name) == 0;
        }
        for (unsigned i = 0; m && i < m->vm.port_count; i++) {
            used |= strcmp(m->vm.ports[i].worker, name) == 0;
        }
        if (used) {
            *ret_id = en->id;
            return true;
        }
    }
    return false;
}

static void host_limits(struct request *r)
{
    struct lmo_engine *e = r->engine;
    struct host *h = engine_host(e, r->name);
    struct lmo_err err = {0};
    if (!h) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "name", "host %s is not registered", r->name);
        return;
    }
    char etag[LMO_ETAG_MAX];
    engine_host_etag(h, etag);
    if (!engine_matches(r, etag)) {
        return;
    }
    struct lmo_host_limits next = h->row.limits, before = next;
    const struct lmo_host_limits *set = &r->limits;
    next.given = (next.given & ~r->reset) | set->given;
    next.max_incoming = set->given & LMO_HOST_LIMIT_INCOMING ? set->max_incoming : next.max_incoming;
    next.max_outgoing = set->given & LMO_HOST_LIMIT_OUTGOING ? set->max_outgoing : next.max_outgoing;
    next.max_bandwidth_bytes_per_s =
        set->given & LMO_HOST_LIMIT_BANDWIDTH ? set->max_bandwidth_bytes_per_s : next.max_bandwidth_bytes_per_s;
    next.memory_keep_free_bytes =
        set->given & LMO_HOST_LIMIT_KEEP_FREE ? set->memory_keep_free_bytes : next.memory_keep_free_bytes;
    h->row.limits = next;
    engine_admission_host_changed(e, h); /* nothing is decided by it before this turn of the loop has ended */
    json_t *shown = engine_host_json(e, h);
    engine_host_etag(h, etag);
    bool only_asked = engine_would(r, 200, json_incref(shown), "the limits of host %s would be set", r->name);
    bool told = !only_asked && engine_tell_host(e, "host.limits", r->name, NULL);
    engine_keep_with_next_write(r, 200, shown, "", etag);
    if (only_asked || e->store->ops->host_limits(e->store, r->name, &next, &err) < 0) {
        h->row.limits = before;
        engine_admission_host_changed(e, h);
        json_decref(shown);
        if (!only_asked) {
            engine_untold(e, told);
            engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        }
        return;
    }
    engine_told(e);
    engine_reply_object(r->fn, r->arg, 200, shown, "", etag);
}

static void host_remove(struct request *r)
{
    struct lmo_engine *e = r->engine;
    struct host *h = engine_host(e, r->name);
    struct lmo_err err = {0};
    const char *id;
    char etag[LMO_ETAG_MAX];
    if (!h) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "name", "host %s is not registered", r->name);
        return;
    }
    engine_host_etag(h, etag);
    if (!engine_matches(r, etag)) {
        return;
    }
    if (host_in_use(e, r->name, &id)) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "name", "host %s takes part in migration %s", r->name, id);
        return;
    }
    if (h->mark.drain[0] && engine_drain_holds(e, h)) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "name", "host %s is being drained by %s; cancel it first", r->name,
                          h->mark.drain);
        return;
    }
    if (engine_would(r, 204, NULL, "host %s would be forgotten", r->name)) {
        return;
    }
    engine_keep_with_next_write(r, 204, NULL, "", "");
    bool told = engine_tell_host(e, "host.removed", r->name, NULL);
    if (e->store->ops->host_delete(e->store, r->name, &err) < 0) {
        engine_untold(e, told);
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return;
    }
    e->workers->ops->host_remove(e->workers, r->name);
    engine_cursor_forget(e, h);
    HASH_DEL(e->hosts, h);
    engine_admission_host_remove(e, h);
    engine_host_free(h);
    engine_told(e);
    engine_reply_ok(r->fn, r->arg, 204, NULL, "");
}

/* ------------------------------------------------------------------ starting a migration */

struct creation {
    struct lmo_engine *engine;
    struct lmo_ask ask;
    struct keyed *keyed;
    struct lmo_migrate_request req;
    lmo_engine_reply_fn *fn;
    void *arg;
};

static void creation_fail(struct creation *c, int code, const char *field, const char *text)
{
    engine_reply_fail(c->fn, c->arg, code, field, "%s", text);
}

/* What the request left open. Not the time-outs: those are computed once it is known what is to be moved. */
static int complete_policy(struct lmo_policy *p, const char **field, struct lmo_err *err)
{
    p->max_downtime_ms = p->max_downtime_ms ? p->max_downtime_ms : DEFAULT_MAX_DOWNTIME_MS;
    if (p->on_timeout == LMO_ON_TIMEOUT_FORCE && p->force_max_pause_ms < p->max_downtime_ms) {
        *field = "policy.force_max_pause_ms";
        return lmo_fail(err, LMO_E_INVALID, "on_timeout force: the longest pause must be stated, and be at least max_downtime_ms (%u)",
                        p->max_downtime_ms);
    }
    if (p->on_timeout != LMO_ON_TIMEOUT_FORCE && p->force_max_pause_ms > 0) {
        *field = "policy.force_max_pause_ms";
        return lmo_fail(err, LMO_E_INVALID, "only means something with on_timeout force");
    }
    if (!p->allow_throttle && (p->throttle_initial_percent > 0 || p->throttle_increment_percent > 0)) {
        *field = "policy.allow_throttle";
        return lmo_fail(err, LMO_E_INVALID, "throttling is not allowed, but its steps are given");
    }
    if (p->allow_throttle) {
        p->throttle_initial_percent = p->throttle_initial_percent ? p->throttle_initial_percent
                                                                  : DEFAULT_THROTTLE_INITIAL_PERCENT;
        p->throttle_increment_percent = p->throttle_increment_percent ? p->throttle_increment_percent
                                                                      : DEFAULT_THROTTLE_INCREMENT_PERCENT;
    }
    return 0;
}

static void fill_record(struct creation *c, const struct found_vm *found, uint64_t epoch, struct lmo_migration *m)
{
    struct lmo_engine *e = c->engine;
    const struct host *src = engine_host(e, found->host), *dst = engine_host(e, c->req.destination);
    *m = (struct lmo_migration){.phase = LMO_PHASE_QUEUED, .epoch = epoch, .next_ordinal = 1, .version = 1};
    lmo_ulid_generate(m->id);
    LMO_COPY(m->source, found->host);
    LMO_COPY(m->destination, c->req.destination);
    LMO_COPY(m->source_url, src->row.url);
    LMO_COPY(m->destination_url, dst->row.url);
    LMO_COPY(m->peer_uri, dst->facts.peer_uri);
    LMO_COPY(m->vm.uuid, found->facts.uuid);
    LMO_COPY(m->vm.name, found->facts.name);
    m->vm.memory_bytes = found->facts.memory_bytes;
    m->vm.huge_page_bytes = found->facts.huge_page_bytes;
    m->policy = c->req.policy;
    m->created_ms = m->updated_ms = m->phase_started_ms = engine_now_ms(e);
    m->phase_started_boot_us = lmo_now_ns() / 1000;
    m->deadline_ms = m->created_ms + (int64_t)e->admission.limits.queue_timeout_ms;
    m->phase_times[0] = (struct lmo_phase_time){.phase = LMO_PHASE_QUEUED, .started_ms = m->created_ms};
    m->phase_time_count = 1;
    engine_trace_begin(&m->trace, &c->req.trace);
    struct lmo_vm_hook_row hook;
    if (e->store->events && e->outbound && e->store->events->vm_hook_get(e->store, m->vm.uuid, &hook, NULL) == 0) {
        int what = lmo_no_answer_from_text(hook.on_no_answer);
        lmo_notice_begin(m, hook.url, hook.deadline_ms, what == LMO_NO_ANSWER_ABORT ? LMO_NO_ANSWER_ABORT : LMO_NO_ANSWER_PROCEED);
    }
}

/* 0 if the guest may be moved from where it was found; else *field says whose fault it is. */
static int judge(struct creation *c, const struct found_vm *f, const char **field, struct lmo_err *err)
{
    struct lmo_engine *e = c->engine;
    const char *vm = c->req.vm;
    *field = "";
    if (e->stopping) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "the coordinator is stopping; nothing was started");
    }
    if (e->mending) {
        return lmo_fail(err, LMO_E_BUSY, "the doctor is mending; try again");
    }
    *field = "vm";
    if (f->count == 0 && c->req.source[0] && f->unreachable == 0) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "guest %s: host %s does not have it", vm, c->req.source);
    }
    if (f->count == 0) {
        return f->unreachable == 0
                   ? lmo_fail(err, LMO_E_NOT_FOUND, "guest %s: no host has it", vm)
                   : lmo_fail(err, LMO_E_UNAVAILABLE,
                              "guest %s: on none of the hosts that answered; %u did not, %s among them", vm,
                              f->unreachable, f->unreachable_host);
    }
    const struct lmo_quarantine_row *aside = engine_quarantined(e, f->facts.uuid);
    if (aside) {
        return lmo_fail(err, LMO_E_CONFLICT, "guest %s: its migration %s was set aside (%.150s); see lmo doctor", vm,
                        aside->migration, aside->why);
    }
    if (f->count > 1) {
        const struct entry *moving = engine_entry_of_vm(e, f->facts.uuid);
        return moving ? lmo_fail(err, LMO_E_CONFLICT, "guest %s is being moved by migration %s", vm, moving->id)
                      : lmo_fail(err, LMO_E_CONFLICT, "guest %s is on two hosts, %s and %s: which one is it?", vm,
                                 f->host, f->other);
    }
    const struct entry *open = engine_entry_of_vm(e, f->facts.uuid);
    if (open) {
        return lmo_fail(err, LMO_E_CONFLICT, "guest %s is being moved by migration %s", vm, open->id);
    }
    if (engine_leased(e, engine_setting(e, f->facts.uuid))) {
        char text[LMO_TEXT_MAX];
        engine_lease_text(engine_setting(e, f->facts.uuid), text, sizeof text);
        return lmo_fail(err, LMO_E_CONFLICT, "guest %s must not be moved now: %s", vm, text);
    }
    if (!engine_host(e, f->host)) { /* it answered, and was removed before all had */
        return lmo_fail(err, LMO_E_CONFLICT, "guest %s: host %s, which has it, was removed meanwhile", vm, f->host);
    }
    *field = "destination";
    const struct host *dst = engine_host(e, c->req.destination);
    if (!dst) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "host %s is not registered", c->req.destination);
    }
    if (strcmp(f->host, c->req.destination) == 0) {
        return lmo_fail(err, LMO_E_INVALID, "guest %s is on host %s already", vm, f->host);
    }
    if (!dst->up) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "host %s does not answer: %.200s", dst->row.name,
                        dst->known ? dst->last_error : "not heard of since the coordinator started");
    }
    if (!dst->facts.hypervisor[0]) {
        return lmo_fail(err, LMO_E_INVALID, "host %s runs no hypervisor", dst->row.name);
    }
    int r = engine_permits(e, dst, f->facts.uuid, vm, c->req.policy.force, err);
    return r < 0 ? r : engine_admission_possible(e, engine_host(e, f->host), dst, &f->facts, err);
}

/* A dry run: what admission would do with it now, as the youngest of the queue. */
static void say_what_would_be(struct creation *c, const struct lmo_migration *m, const struct found_vm *found)
{
    struct request r = {.engine = c->engine, .ask = c->ask, .fn = c->fn, .arg = c->arg};
    char held[LMO_TEXT_MAX] = "";
    json_t *result = NULL;
    int rc = engine_admission_what_if(c->engine, m, held, sizeof held, &result);
    if (rc < 0) {
        engine_reply_fail(c->fn, c->arg, LMO_E_NO_MEMORY, "", "no memory for the answer");
        return;
    }
    (void)engine_would(&r, 202, result, "guest %s would be moved from %s to %s; %s%s", c->req.vm, found->host, c->req.destination,
                       held[0] ? "it would wait for " : "it would start at once", held);
}

/* The guest was looked for. Several requests may have been looking at the same time: whatever was asked before that is
 * asked again here, in one go with the creation. */
static void create(void *arg, const struct found_vm *found)
{
    struct creation *c = arg;
    struct lmo_engine *e = c->engine;
    static struct lmo_migration m; /* the loop thread's scratch */
    struct lmo_err err = {0};
    const char *field = "";
    uint64_t epoch = 0;
    e->creating--;
    int r = judge(c, found, &field, &err);
    if (r == 0 && c->ask.dry_run) {
        fill_record(c, found, LMO_EPOCH_STRIDE, &m);
        say_what_would_be(c, &m, found);
        free(c);
        return;
    }
    if (r == 0) {
        r = e->store->ops->next_epoch(e->store, found->facts.uuid, 1, &epoch, &err);
    }
    if (r < 0) {
        creation_fail(c, err.code, field, err.text);
        free(c);
        return;
    }
    fill_record(c, found, epoch * LMO_EPOCH_STRIDE, &m);
    struct entry *entry = engine_entry_new(e, &m, 0);
    struct lmo_migrate_request *req = malloc(sizeof *req);
    if (!entry || !req) {
        lmo_log(LMO_LOG_ERROR, "no memory for a migration", "vm=%s", c->req.vm);
        abort(); /* half of a record cannot be taken back safely here; a restart starts from the store */
    }
    *req = c->req;
    entry->request = req;
    DL_APPEND2(e->creations, entry, prev_created, next_created);
    entry->created_fn = c->fn;
    entry->created_arg = c->arg;
    entry->created_keyed = c->keyed;
    free(c);
    engine_journal(entry, "accepted", req->principal);
    engine_tell_accepted(entry, req->principal);
    engine_inserted(entry); /* whether it may start is decided before the commit: admission.c */
}

int engine_create_child(struct lmo_engine *e, const struct found_vm *found, const char *destination, const struct lmo_policy *policy,
                        const char *drain, const char *id, struct entry **ret, bool *ret_destination_fault, struct lmo_err *err)
{
    static struct lmo_migration m; /* the loop thread's scratch */
    static struct creation c;
    const char *field = "";
    uint64_t epoch = 0;
    c = (struct creation){.engine = e, .req.policy = *policy};
    LMO_COPY(c.req.vm, found->facts.name);
    LMO_COPY(c.req.destination, destination);
    int r = HASH_COUNT(e->entries) + e->creating >= LMO_OPEN_MAX
                ? lmo_fail(err, LMO_E_LIMIT, "%d migrations are open; that is the limit", LMO_OPEN_MAX)
                : judge(&c, found, &field, err);
    *ret_destination_fault = strcmp(field, "destination") == 0;
    if (r == 0) {
        r = e->store->ops->next_epoch(e->store, found->facts.uuid, 1, &epoch, err);
    }
    if (r < 0) {
        return r;
    }
    fill_record(&c, found, epoch * LMO_EPOCH_STRIDE, &m);
    LMO_COPY(m.id, id);
    LMO_COPY(m.drain, drain);
    m.deadline_ms = m.created_ms + LMO_DRAIN_WAIT_MAX_MS; /* a long drain's last guests wait for the first ones: that is no failure */
    struct entry *entry = engine_entry_new(e, &m, 0);
    if (!entry) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a migration");
    }
    char why[LMO_TEXT_MAX];
    (void)snprintf(why, sizeof why, "drain %s", drain);
    engine_journal(entry, "accepted", why);
    engine_inserted(entry);
    *ret = entry;
    return 0;
}

void engine_policy_default(struct lmo_policy *p)
{
    const char *field;
    struct lmo_err err = {0};
    *p = (struct lmo_policy){0};
    if (complete_policy(p, &field, &err) < 0) {
        lmo_unreachable("a policy that says nothing is completed");
    }
}

/* The insert is durable: the client may know (E3). */
void engine_created(struct entry *entry, int code, const char *text)
{
    struct lmo_migrate_request *req = entry->request;
    entry->request = NULL;
    DL_DELETE2(entry->engine->creations, entry, prev_created, next_created);
    if (code < 0) {
        engine_reply_fail(entry->created_fn, entry->created_arg, code, "", "%s", text);
    } else {
        engine_reply_migration(entry->created_fn, entry->created_arg, 202, engine_record(entry), entry);
    }
    free(req);
}

static void migrate(struct request *r)
{
    struct lmo_engine *e = r->engine;
    struct lmo_err err = {0};
    if (e->stalled) {
        engine_reply_fail(r->fn, r->arg, LMO_E_UNAVAILABLE, "", "the coordinator's store cannot be written; nothing is started");
        return;
    }
    if (HASH_COUNT(e->entries) + e->creating >= LMO_OPEN_MAX) {
        engine_reply_fail(r->fn, r->arg, LMO_E_LIMIT, "", "%d migrations are open; that is the limit", LMO_OPEN_MAX);
        return;
    }
    if (r->migrate.source[0] && !engine_host(e, r->migrate.source)) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "source", "host %s is not registered", r->migrate.source);
        return;
    }
    if (!engine_host(e, r->migrate.destination)) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "destination", "host %s is not registered", r->migrate.destination);
        return;
    }
    struct creation *c = calloc(1, sizeof *c);
    if (!c) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory for a request");
        return;
    }
    *c = (struct creation){
        .engine = e, .ask = r->ask, .keyed = r->keyed, .req = r->migrate, .fn = r->fn, .arg = r->arg};
    const char *field = "";
    if (complete_policy(&c->req.policy, &field, &err) < 0) {
        creation_fail(c, err.code, field, err.text);
        free(c);
        return;
    }
    engine_admission_prefetch(e, engine_host(e, r->migrate.destination));
    e->creating++;
    int rc = c->req.source[0] ? engine_find_vm_at(e, c->req.vm, c->req.source, create, c, &err)
                              : engine_find_vm(e, c->req.vm, create, c, &err);
    if (rc < 0) {
        e->creating--;
        creation_fail(c, err.code, "vm", err.text);
        free(c);
    }
}

/* ------------------------------------------------------------------ waiting for news of a migration */

static void waiter_unlink(struct waiter *w)
{
    for (struct waiter **p = &w->entry->waiters; *p; p = &(*p)->next) {
        if (*p == w) {
            *p = w->next;
            w->entry->waiter_count--;
            return;
        }
    }
}

static void waiter_answer(struct waiter *w)
{
    lmo_loop_cancel(w->engine->loop, &w->timer);
    engine_reply_migration(w->fn, w->arg, w->status, engine_record(w->entry), w->entry);
    free(w);
}

static void on_wait_over(void *arg)
{
    struct waiter *w = arg;
    w->timer = 0;
    waiter_unlink(w);
    if (w->status == 202 && w->entry->stored_version <= w->version) { /* E3: what it asked for is not on disk */
        engine_reply_fail(w->fn, w->arg, LMO_E_TIMEOUT, "",
                          "the coordinator's store cannot be written; the request takes effect when it can");
        free(w);
        return;
    }
    waiter_answer(w);
}

void engine_wake_waiters(struct entry *entry)
{
    struct waiter *list = entry->waiters, *next;
    entry->waiters = NULL;
    entry->waiter_count = 0;
    for (; list; list = next) {
        next = list->next;
        if (entry->version > list->version || entry->ended) {
            waiter_answer(list);
        } else {
            list->next = entry->waiters;
            entry->waiters = list;
            entry->waiter_count++;
        }
    }
}

void engine_fail_waiters(struct entry *entry, int code, const char *why)
{
    while (entry->waiters) {
        struct waiter *w = entry->waiters;
        entry->waiters = w->next;
        lmo_loop_cancel(w->engine->loop, &w->timer);
        engine_reply_fail(w->fn, w->arg, code, "", "%s", why);
        free(w);
    }
    entry->waiter_count = 0;
}

/* Answers `r` when the record is committed with a version above `version`, or after wait_ms with what there is. */
void engine_wait_for(struct request *r, struct entry *entry, uint64_t version, uint32_t wait_ms, unsigned status)
{
    struct waiter *w = calloc(1, sizeof *w);
    if (!w || lmo_loop_timer(r->engine->loop, wait_ms, on_wait_over, w, &w->timer) < 0) {
        free(w);
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory for a wait");
        return;
    }
    w->engine = r->engine;
    w->entry = entry;
    w->version = version;
    w->status = status;
    w->keyed = r->keyed;
    w->fn = r->fn;
    w->arg = r->arg;
    w->next = entry->waiters;
    entry->waiters = w;
    entry->waiter_count++;
    engine_admission_watch(entry);
}

/* E3: answered by the commit of what was just applied. */
void engine_wait_committed(struct request *r, struct entry *entry)
{
    engine_wait_for(r, entry, entry->version - 1, CANCEL_COMMIT_MS, 202);
}

static void migration_cancel(struct request *r)
{
    static struct lmo_migration m;
    struct lmo_err err = {0};
    struct entry *entry = engine_entry(r->engine, r->name);
    if (!entry || entry->stored_version == 0) {
        if (r->engine->store->ops->get(r->engine->store, r->name, &m, &err) < 0) {
            engine_reply_fail(r->fn, r->arg, err.code, "id", "%s",
                              err.code == LMO_E_NOT_FOUND ? "no migration has this id" : err.text);
            return;
        }
        char ended[LMO_ETAG_MAX];
        engine_migration_etag(&m, ended);
        if (engine_matches(r, ended)) {
            engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "id", "migration %s has ended (%s)", m.id,
                              lmo_phase_text(m.phase));
        }
        return;
    }
    if (r->engine->stalled) {
        engine_reply_fail(r->fn, r->arg, LMO_E_UNAVAILABLE, "", "the coordinator's store cannot be written now");
        return;
    }
    char text[LMO_TEXT_MAX], etag[LMO_ETAG_MAX];
    engine_migration_etag(engine_record(entry), etag);
    if (!engine_matches(r, etag)) {
        return;
    }
    (void)snprintf(text, sizeof text, "cancelled by %.200s", r->url);
    struct lmo_event ev = {.kind = LMO_EV_CANCEL, .text = text};
    if (r->ask.dry_run) {
        if (engine_try(entry, &ev, &err) < 0) {
            engine_reply_fail(r->fn, r->arg, err.code, "id", "%s", err.text);
        } else {
            (void)engine_would(r, 202, NULL, "migration %s, which is in %s, would be undone", entry->id,
                               lmo_phase_text(entry->phase));
        }
        return;
    }
    if (engine_apply(entry, &ev, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "id", "%s", err.text);
        return;
    }
    engine_wait_committed(r, entry);
}

/* ------------------------------------------------------------------ the public calls */

static void vm_list(struct request *r)
{
    engine_vm_list(r);
}

static void vm_get(struct request *r)
{
    engine_vm_get(r->engine, r->name, r->fn, r->arg);
}

struct request engine_request(void (*run)(struct request *), lmo_engine_reply_fn *fn, void *arg, const char *name)
{
    struct request r = {.run = run, .ask = engine_asked(), .fn = fn, .arg = arg};
    LMO_COPY(r.name, name);
    return r;
}

int lmo_engine_host_add(struct lmo_engine *e, const char *name, const char *url, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(host_add, fn, arg, name);
    r.harmless = true;
    LMO_COPY(r.url, url);
    return engine_post(e, &r);
}

int lmo_engine_host_list(struct lmo_engine *e, const char *state, const struct lmo_page *page, lmo_engine_reply_fn *fn,
                         void *arg)
{
    struct request r = engine_request(host_list, fn, arg, "");
    LMO_COPY(r.phase, state);
    r.page = *page;
    r.harmless = true;
    return engine_post(e, &r);
}

int lmo_engine_host_get(struct lmo_engine *e, const char *name, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(host_get, fn, arg, name);
    r.harmless = true;
    return engine_post(e, &r);
}

int lmo_engine_host_limits(struct lmo_engine *e, const char *name, const struct lmo_host_limits *set, uint32_t reset,
                           lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(host_limits, fn, arg, name);
    r.limits = *set;
    r.reset = reset;
    return engine_post(e, &r);
}

int lmo_engine_host_remove(struct lmo_engine *e, const char *name, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(host_remove, fn, arg, name);
    r.harmless = true;
    return engine_post(e, &r);
}

int lmo_engine_vm_list(struct lmo_engine *e, const char *host, const char *state, const struct lmo_page *page,
                       lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(vm_list, fn, arg, host);
    r.harmless = true;
    LMO_COPY(r.phase, state);
    r.page = *page;
    return engine_post(e, &r);
}

int lmo_engine_vm_get(struct lmo_engine *e, const char *vm, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(vm_get, fn, arg, vm);
    r.harmless = true;
    return engine_post(e, &r);
}

int lmo_engine_migrate(struct lmo_engine *e, const struct lmo_migrate_request *req, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(migrate, fn, arg, "");
    r.migrate = *req;
    if (!r.ask.key[0] && req->idempotency_key[0]) {
        LMO_COPY(r.ask.principal, req->principal);
        LMO_COPY(r.ask.key, req->idempotency_key);
        LMO_COPY(r.ask.hash, req->idempotency_hash);
    }
    return engine_post(e, &r);
}

int lmo_engine_migration_cancel(struct lmo_engine *e, const char *id, const char *principal, lmo_engine_reply_fn *fn,
                                void *arg)
{
    struct request r = engine_request(migration_cancel, fn, arg, id);
    LMO_COPY(r.url, principal);
    return engine_post(e, &r);
}
