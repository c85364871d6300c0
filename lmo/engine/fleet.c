/* fleet.c - guests of every host as shown last, and asking for them: one question per host at a time. See fleet.h. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/drains_internal.h"
#include "proto/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define FLEET_WATCHED_MS 600000 /* after the last question of anybody's the picture is let grow old */
#define FLEET_TURN_MS    1000
#define FLEET_OLD_MS     60000 /* a list that is older is asked for anew while the fleet is watched */
#define FLEET_PER_TURN   64    /* questions per turn at most: 1,000 hosts in a minute are 17 */
#define LIST_MAX         10000

struct listing_wait {
    struct listing_wait *next;
    engine_listed_fn *fn;
    void *arg;
};
struct listing_call {
    struct lmo_engine *engine;
    char host[LMO_NAME_MAX];
    uint64_t sent_ns;
    struct listing_wait *waits;
};

uint32_t engine_intern(struct interned *to, const char *name, uint32_t max)
{
    for (uint32_t i = 0; i < to->count; i++) {
        if (strcmp(to->names[i], name) == 0) {
            return i;
        }
    }
    if (to->count >= max || strlen(name) >= sizeof to->names[0]) {
        return LMO_NONE;
    }
    if (to->count == to->size) {
        uint32_t size = to->size ? 2 * to->size : 16;
        char(*grown)[64] = realloc(to->names, size * sizeof *grown);
        if (!grown) {
            return LMO_NONE;
        }
        to->names = grown;
        to->size = size;
    }
    LMO_COPY(to->names[to->count], name);
    return to->count++;
}

/* ------------------------------------------------------------------ taking a list in */

static void forget(struct lmo_engine *e, struct guest *g)
{
    HASH_DEL(e->fleet.guests, g);
    if (g->host) {
        DL_DELETE(g->host->guests, g);
        g->host->guest_count--;
    }
    free(g->blocker);
    free(g);
}

static struct guest *guest_at(struct host *h, const char *uuid)
{
    struct lmo_engine *e = h->engine;
    struct guest *g = NULL;
    HASH_FIND_STR(e->fleet.guests, uuid, g);
    if (!g) {
        g = calloc(1, sizeof *g);
        if (!g) {
            return NULL;
        }
        LMO_COPY(g->uuid, uuid);
        HASH_ADD_STR(e->fleet.guests, uuid, g);
    }
    if (g->host != h) {
        if (g->host) {
            DL_DELETE(g->host->guests, g);
            g->host->guest_count--;
        }
        g->host = h;
        DL_APPEND(h->guests, g);
        h->guest_count++;
    }
    return g;
}

/* What the guest needs of a host: volume services and fabrics, each a name that hosts offer or do not. */
static void needs(struct fleet *f, const struct lmo_vm_facts *vm, struct guest *g)
{
    g->services = g->fabrics = (struct lmo_set){{0}};
    g->disk_bytes = 0;
    for (unsigned i = 0; i < vm->volume_count; i++) {
        const struct lmo_volume *v = &vm->volumes[i];
        uint32_t n = v->service[0] ? engine_intern(&f->services, v->service, LMO_SET_MAX) : LMO_NONE;
        if (n != LMO_NONE) {
            (void)lmo_set_add(&g->services, n);
        }
        g->disk_bytes += v->service[0] ? 0 : v->size_bytes;
    }
    for (unsigned i = 0; i < vm->port_count; i++) {
        uint32_t n = vm->ports[i].fabric[0] ? engine_intern(&f->fabrics, vm->ports[i].fabric, LMO_SET_MAX) : LMO_NONE;
        if (n != LMO_NONE) {
            (void)lmo_set_add(&g->fabrics, n);
        }
    }
}

static void take_guest(struct host *h, const struct lmo_vm_facts *vm)
{
    struct fleet *f = &h->engine->fleet;
    if (vm->state == LMO_RUN_INCOMING || vm->state == LMO_RUN_LOADED) {
        return; /* a copy on its way: it is its source's guest */
    }
    struct guest *g = guest_at(h, vm->uuid);
    if (!g) {
        lmo_log(LMO_LOG_ERROR, "no memory to remember a guest", "host=%s vm=%s", h->row.name, vm->uuid);
        return;
    }
    LMO_COPY(g->name, vm->name[0] ? vm->name : vm->uuid);
    g->state = vm->state;
    g->memory_bytes = vm->memory_bytes;
    g->huge_page_bytes = vm->huge_page_bytes;
    g->vcpus = vm->vcpus;
    g->dirty_bytes_per_s = vm->dirty_bytes_per_s;
    g->dirty_age_ms = vm->dirty_age_ms;
    g->machine = vm->machine[0] ? engine_intern(&f->machines, vm->machine, LMO_SET_MAX) : LMO_NONE;
    g->cpu = vm->cpu[0] ? engine_intern(&f->cpus, vm->cpu, LMO_FLEET_CPUS_MAX) : LMO_NONE;
    needs(f, vm, g);
    g->blockers = lmo_blockers_from_text(vm->blocker_kinds);
    g->blockers |= vm->blocker[0] && g->blockers == 0 ? (uint32_t)LMO_BLOCKER_OTHER : 0;
    free(g->blocker);
    g->blocker = vm->blocker[0] ? strdup(vm->blocker) : NULL;
    g->generation = h->generation;
}

static void take_list(struct host *h, const json_t *vms, uint64_t sent_ns)
{
    static struct lmo_vm_facts vm; /* the loop thread's scratch */
    struct lmo_engine *e = h->engine;
    h->generation++;
    for (size_t i = 0; i < json_array_size(vms); i++) {
        struct lmo_err err = {0};
        memset(&vm, 0, sizeof vm);
        if (lmo_vm_facts_from_json(json_array_get(vms, i), &vm, &err) < 0) {
            lmo_log(LMO_LOG_WARN, "host shows a guest that cannot be read", "host=%s why=%s", h->row.name, err.text);
            continue;
        }
        take_guest(h, &vm);
    }
    struct guest *g, *next;
    DL_FOREACH_SAFE(h->guests, g, next)
    {
        if (g->generation != h->generation) {
            forget(e, g);
        }
    }
    h->shown_ns = sent_ns;
}

const char *engine_listed_uuid(const json_t *vms, size_t i)
{
    return json_string_value(json_object_get(json_array_get(vms, i), "uuid"));
}

/* ------------------------------------------------------------------ asking */

static void answer_all(struct listing_wait *waits, struct host *h, int code, const char *text, const json_t *vms)
{
    while (waits) {
        struct listing_wait *w = waits;
        waits = w->next;
        w->fn(w->arg, h, code, text, vms);
        free(w);
    }
}

static void forget_waits(struct listing_wait *waits)
{
    while (waits) {
        struct listing_wait *next = waits->next;
        free(waits);
        waits = next;
    }
}

static void on_listed(void *arg, int code, const char *text, const json_t *body)
{
    struct listing_call *c = arg;
    struct lmo_engine *e = c->engine;
    struct host *h = engine_host(e, c->host);
    const json_t *vms = NULL;
    struct lmo_err err = {0};
    e->fleet.asking--;
    if (!h || h->listing != c) { /* removed meanwhile: those who waited were answered then */
        free(c);
        return;
    }
    if (e->stopping) { /* whoever waits is being taken down too */
        forget_waits(c->waits);
        h->listing = NULL;
        free(c);
        return;
    }
    if (code == 0 && lmo_json_array(body, "vms", LIST_MAX, &vms, true, &err) < 0) {
        code = err.code;
        text = err.text;
    }
    if (code == 0) {
        take_list(h, vms, c->sent_ns);
    } else {
        lmo_log(LMO_LOG_WARN, "host did not show its guests", "host=%s why=%s", c->host, text);
    }
    h->listing = NULL;
    struct listing_wait *waits = c->waits;
    free(c);
    if (h->next_listing) { /* asked while this one was under way */
        struct listing_wait *later = h->next_listing;
        h->next_listing = NULL;
        engine_fleet_ask(h, NULL, NULL);
        if (h->listing) {
            h->listing->waits = later;
        } else {
            answer_all(later, h, LMO_E_UNAVAILABLE, "it cannot be asked", NULL);
        }
    }
    answer_all(waits, h, code, text, vms);
}

void engine_fleet_ask(struct host *h, engine_listed_fn *done, void *arg)
{
    struct lmo_engine *e = h->engine;
    struct lmo_err err = {0};
    struct listing_wait *w = done ? calloc(1, sizeof *w) : NULL;
    lmo_assert(!done || w); /* a few bytes; who waits must hear */
    if (w) {
        *w = (struct listing_wait){.fn = done, .arg = arg};
    }
    if (h->listing) {
        if (w) {
            w->next = h->next_listing;
            h->next_listing = w;
        }
        return;
    }
    struct listing_call *c = calloc(1, sizeof *c);
    lmo_assert(c);
    *c = (struct listing_call){.engine = e, .sent_ns = lmo_now_ns(), .waits = w};
    LMO_COPY(c->host, h->row.name);
    h->listing = c;
    int r = h->up ? e->workers->ops->observe(e->workers, h->row.name, "/v1/observe/vms", LMO_OBSERVE_TIMEOUT_MS,
                                             on_listed, c, &err)
                  : lmo_fail(&err, LMO_E_UNAVAILABLE, "host %s does not answer: %.200s", h->row.name,
                             h->known ? h->last_error : "not heard of since the coordinator started");
    if (r < 0) {
        h->listing = NULL;
        free(c);
        answer_all(w, h, r, err.text, NULL);
        return;
    }
    e->fleet.asking++;
}

void engine_fleet_host_gone(struct host *h)
{
    struct lmo_engine *e = h->engine;
    struct guest *g, *next;
    DL_FOREACH_SAFE(h->guests, g, next)
    {
        forget(e, g);
    }
    struct listing_wait *waits = h->listing ? h->listing->waits : NULL, *later = h->next_listing;
    if (h->listing) {
        h->listing->waits = NULL;
    }
    h->listing = NULL; /* its answer comes to nobody */
    h->next_listing = NULL;
    answer_all(waits, NULL, LMO_E_NOT_FOUND, "the host was removed", NULL);
    answer_all(later, NULL, LMO_E_NOT_FOUND, "the host was removed", NULL);
}

/* ------------------------------------------------------------------ keeping it fresh */

static bool watched(const struct lmo_engine *e, uint64_t now)
{
    return e->fleet.watched_until_ns > now;
}

static bool shows_guests(const struct host *h)
{
    return h->up && h->facts.hypervisor[0];
}

static void on_turn(void *arg)
{
    struct lmo_engine *e = arg;
    uint64_t now = lmo_now_ns();
    unsigned asked = 0;
    e->fleet.timer = 0;
    if (e->stopping || (!watched(e, now) && !engine_drains_open(e))) {
        return;
    }
    for (struct host *h = e->hosts; h && asked < FLEET_PER_TURN; h = h->hh.next) {
        if (shows_guests(h) && !h->listing && now - h->shown_ns > FLEET_OLD_MS * LMO_NS_PER_MS) {
            engine_fleet_ask(h, NULL, NULL);
            asked++;
        }
    }
    if (lmo_loop_timer(e->loop, FLEET_TURN_MS, on_turn, e, &e->fleet.timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer left to look at the fleet", "%s", "");
    }
}

static void watch(struct lmo_engine *e)
{
    e->fleet.watched_until_ns = lmo_now_ns() + FLEET_WATCHED_MS * LMO_NS_PER_MS;
    if (e->fleet.timer == 0 && lmo_loop_timer(e->loop, FLEET_TURN_MS, on_turn, e, &e->fleet.timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer left to look at the fleet", "%s", "");
    }
}

void engine_fleet_look(struct host *h)
{
    struct lmo_engine *e = h->engine;
    if (shows_guests(h) && (watched(e, lmo_now_ns()) || engine_drains_open(e))) {
        engine_fleet_ask(h, NULL, NULL);
    }
}

void engine_fleet_ended(struct entry *entry)
{
    struct lmo_engine *e = entry->engine;
    struct host *source = engine_host(e, entry->source), *destination = engine_host(e, entry->destination);
    struct guest *g = NULL;
    HASH_FIND_STR(e->fleet.guests, entry->vm, g);
    if (g && destination && entry->phase == LMO_PHASE_COMPLETED) {
        (void)guest_at(destination, g->uuid);
        g->generation = destination->generation;
    }
    if (source) {
        engine_fleet_look(source);
    }
    if (destination) {
        engine_fleet_look(destination);
    }
}

struct fleet_wait {
    struct lmo_engine *engine;
    engine_refreshed_fn *fn;
    void *arg;
    unsigned pending;
    struct fleet_wait *prev, *next;
};

static void refreshed(struct fleet_wait *w)
{
    if (--w->pending == 0) {
        DL_DELETE(w->engine->fleet.waits, w);
        w->fn(w->arg);
        free(w);
    }
}

static void on_refreshed(void *arg, struct host *h, int code, const char *text, const json_t *vms)
{
    (void)h, (void)code, (void)text, (void)vms;
    refreshed(arg);
}

void engine_fleet_refresh(struct lmo_engine *e, engine_refreshed_fn *fn, void *arg)
{
    struct fleet_wait *w = calloc(1, sizeof *w);
    uint64_t now = lmo_now_ns();
    lmo_assert(w);
    *w = (struct fleet_wait){.engine = e, .fn = fn, .arg = arg, .pending = 1};
    DL_APPEND(e->fleet.waits, w);
    watch(e);
    for (struct host *h = e->hosts; h; h = h->hh.next) {
        if (!shows_guests(h)) {
            continue;
        }
        if (engine_admission_stale(h, now)) {
            engine_admission_ask(e, h);
        }
        if (h->shown_ns == 0 || now - h->shown_ns > LMO_SEEN_FRESH_MS * LMO_NS_PER_MS) {
            w->pending++;
            engine_fleet_ask(h, on_refreshed, w);
        }
    }
    refreshed(w);
}

struct guest *engine_guest(struct lmo_engine *e, const char *vm, bool *ret_many)
{
    struct guest *found = NULL;
    *ret_many = false;
    HASH_FIND_STR(e->fleet.guests, vm, found);
    for (struct guest *g = found ? NULL : e->fleet.guests; g; g = g->hh.next) {
        if (strcmp(g->name, vm) == 0) {
            *ret_many = found != NULL;
            found = g;
        }
    }
    return found;
}

/* ------------------------------------------------------------------ life */

int engine_fleet_load(struct lmo_engine *e, struct lmo_err *err)
{
    return engine_marks_load(e, err);
}

void engine_fleet_done(struct lmo_engine *e)
{
    struct fleet *f = &e->fleet;
    lmo_loop_cancel(e->loop, &f->timer);
    struct fleet_wait *w, *wn;
    DL_FOREACH_SAFE(f->waits, w, wn)
    {
        DL_DELETE(f->waits, w);
        w->fn(w->arg); /* sees that the coordinator is stopping, and says so */
        free(w);
    }
    for (struct host *h = e->hosts; h; h = h->hh.next) {
        if (h->listing) {
            forget_waits(h->listing->waits);
            h->listing->waits = NULL;
        }
        forget_waits(h->next_listing);
        h->next_listing = NULL;
    }
    struct guest *g, *gn;
    HASH_ITER(hh, f->guests, g, gn)
    {
        forget(e, g);
    }
    struct cpu_pair *p, *pn;
    HASH_ITER(hh, f->cpu_pairs, p, pn)
    {
        HASH_DEL(f->cpu_pairs, p);
        free(p);
    }
    engine_settings_free(e);
    struct interned *tables[] = {&f->machines, &f->services, &f->fabrics, &f->labels, &f->cpus, &f->host_cpus};
    for (unsigned i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        free(tables[i]->names);
    }
    *f = (struct fleet){0};
}
