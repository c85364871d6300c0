/* drain_do.c - what a drain has done after its step was stored: migrations for guests that start, places for those that
 * need one, hosts asked for their lists, hooks, probes. Everything here can be done again: what it is about is looked up anew. */
#include "engine/drains_internal.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A question on its way: the drain, and what of it, by names that outlive both. */
struct asked {
    struct lmo_engine *engine;
    char drain[LMO_ID_MAX];
    uint32_t host, guest;
};

static struct asked *ask_for(struct drain *dr, uint32_t host, uint32_t guest)
{
    struct asked *a = calloc(1, sizeof *a);
    lmo_assert(a);
    *a = (struct asked){.engine = dr->engine, .host = host, .guest = guest};
    LMO_COPY(a->drain, dr->d.id);
    return a;
}

/* ------------------------------------------------------------------ one guest's migration */

static void refuse(struct drain *dr, uint32_t guest, int code, bool destination_fault, const char *text)
{
    struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_START_REFUSED,
                                 .guest = guest,
                                 .code = code,
                                 .destination_fault = destination_fault,
                                 .text = text};
    engine_drain_event(dr, &ev);
}

static void started(struct drain *dr, uint32_t guest, struct entry *entry)
{
    struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_STARTED, .guest = guest};
    entry->drain_guest = guest;
    engine_drain_event(dr, &ev);
    if (entry->phase == LMO_PHASE_ATTENTION) {
        engine_drains_child_changed(entry);
    }
}

/* After a restart: what became of the migration that the record names. True: it is known. */
static bool look_up(struct drain *dr, uint32_t guest)
{
    static struct lmo_migration m; /* the loop thread's scratch */
    struct lmo_engine *e = dr->engine;
    const struct lmo_drain_guest *g = &dr->d.guests[guest];
    struct lmo_err err = {0};
    struct entry *entry = g->migration[0] ? engine_entry(e, g->migration) : NULL;
    if (entry) {
        started(dr, guest, entry);
        return true;
    }
    if (!dr->recovering || !g->migration[0] || e->store->ops->get(e->store, g->migration, &m, &err) < 0) {
        return false; /* it was never stored, and so nothing of it was ever sent */
    }
    struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_CHILD_ENDED,
                                 .guest = guest,
                                 .text = m.reason,
                                 .failed_in = m.failed_in};
    if (!lmo_phase_is(m.phase, LMO_PHASE_TERMINAL)) { /* open, and set aside */
        ev.kind = LMO_DRAIN_EV_CHILD_RESTS;
        ev.text = "its record was set aside; see lmo doctor";
        struct lmo_drain_event moving = {.kind = LMO_DRAIN_EV_STARTED, .guest = guest};
        engine_drain_event(dr, &moving);
    } else {
        ev.code = m.phase == LMO_PHASE_COMPLETED ? 0 : m.reason_code < 0 ? m.reason_code : LMO_E_CANCELLED;
    }
    engine_drain_event(dr, &ev);
    return true;
}

static void on_relisted(void *arg, struct host *h, int code, const char *text, const json_t *vms)
{
    struct asked a = *(struct asked *)arg;
    struct drain *dr = engine_drain(a.engine, a.drain);
    (void)vms;
    free(arg);
    enum lmo_drain_guest_state state = dr && a.guest < dr->d.guest_count ? dr->d.guests[a.guest].state : LMO_DG_COUNT;
    if (state != LMO_DG_STARTING && state != LMO_DG_PLACING) {
        return;
    }
    if ((!h || code < 0) && state == LMO_DG_STARTING) {
        refuse(dr, a.guest, LMO_E_UNAVAILABLE, false, text);
    } else if (!h || code < 0) {
        struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_NO_PLACE,
                                     .guest = a.guest,
                                     .code = LMO_E_UNAVAILABLE,
                                     .may_change = true,
                                     .text = text};
        engine_drain_event(dr, &ev);
    } else {
        engine_drain_do_guests(dr, &a.guest, 1);
    }
}

static void start(struct drain *dr, uint32_t guest)
{
    static struct found_vm found; /* the loop thread's scratch */
    struct lmo_engine *e = dr->engine;
    const struct lmo_drain_guest *g = &dr->d.guests[guest];
    struct lmo_err err = {0};
    if (look_up(dr, guest)) {
        return;
    }
    if (dr->d.state == LMO_DRAIN_CANCELLING) {
        refuse(dr, guest, LMO_E_CANCELLED, false, "the drain was cancelled");
        return;
    }
    struct host *at = engine_host(e, g->at);
    struct guest *seen = NULL;
    HASH_FIND_STR(e->fleet.guests, g->uuid, seen);
    if (!at) {
        refuse(dr, guest, LMO_E_NOT_FOUND, false, "the host that it was on is not registered any more");
        return;
    }
    if (!seen && at->shown_ns == 0) { /* right after a start: nobody has been asked yet */
        engine_fleet_ask(at, on_relisted, ask_for(dr, g->host, guest));
        return;
    }
    if (!seen || seen->host != at) {
        struct lmo_drain_event gone = {.kind = LMO_DRAIN_EV_GUEST_GONE, .guest = guest};
        engine_drain_event(dr, &gone);
        return;
    }
    memset(&found, 0, sizeof found);
    found.count = 1;
    LMO_COPY(found.host, at->row.name);
    LMO_COPY(found.facts.uuid, seen->uuid);
    LMO_COPY(found.facts.name, seen->name);
    found.facts.state = seen->state;
    found.facts.memory_bytes = seen->memory_bytes;
    found.facts.huge_page_bytes = seen->huge_page_bytes;
    struct lmo_policy policy;
    struct entry *entry = NULL;
    bool destination_fault = false;
    engine_policy_default(&policy);
    policy.accept_host_devices = g->policy == LMO_UNMOVABLE_OFFLINE;
    int r = engine_create_child(e, &found, g->destination, &policy, dr->d.id, g->migration, &entry, &destination_fault,
                                &err);
    if (r < 0) {
        refuse(dr, guest, r, destination_fault, err.text);
        return;
    }
    started(dr, guest, entry);
}

static void end_child(struct drain *dr, const struct lmo_drain_guest *g)
{
    struct entry *entry = engine_entry(dr->engine, g->migration);
    char text[LMO_TEXT_MAX];
    struct lmo_err err = {0};
    (void)snprintf(text, sizeof text, "drain %s was cancelled", dr->d.id);
    struct lmo_event ev = {.kind = LMO_EV_CANCEL, .text = text};
    if (entry && engine_apply(entry, &ev, &err) < 0) {
        lmo_log(LMO_LOG_INFO, "migration of a cancelled drain goes on", "migration=%s why=%s", entry->id, err.text);
    }
}

/* ------------------------------------------------------------------ places */

static bool may_change(enum lmo_not why)
{
    switch (why) {
    case LMO_NOT_DOWN:
    case LMO_NOT_CORDONED:
    case LMO_NOT_DRAINING:
    case LMO_NOT_CPU_UNKNOWN:
    case LMO_NOT_ANTI_AFFINITY:
    case LMO_NOT_AFFINITY:
    case LMO_NOT_MEMORY_UNKNOWN:
    case LMO_NOT_MEMORY:
    case LMO_NOT_HUGE_PAGES:
    case LMO_NOT_SPARE:
    case LMO_NOT_SLOTS: return true;
    case LMO_NOT_REJECTED:
    case LMO_NOT_MIGRATING:
    case LMO_NOT_LEASED:
    case LMO_NOT_BLOCKED:
    case LMO_NOT_STATE:
    case LMO_NOT_HERE:
    case LMO_NOT_AVOIDED:
    case LMO_NOT_LINK:
    case LMO_NOT_CPU:
    case LMO_NOT_MACHINE:
    case LMO_NOT_SERVICE:
    case LMO_NOT_FABRIC:
    case LMO_NOT_LABEL:
    case LMO_NOT_NOWHERE:
    case LMO_NOT_OVER:
    case LMO_NOT_COUNT: break;
    }
    return false;
}

/* Hosts that this guest is not sent to: those that refused it, those of this drain whose turn is still to come or has begun. */
static uint32_t avoided(const struct drain *dr, const struct lmo_drain_guest *g, const struct snapshot *s,
                        uint32_t *ret)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->fleet.host_count; i++) {
        const char *name = s->hosts[i]->row.name;
        bool avoid = lmo_drain_refused(g, name);
        for (uint32_t h = 0; h < dr->d.host_count && !avoid && !g->back; h++) {
            const struct lmo_drain_host *dh = &dr->d.hosts[h];
            avoid = strcmp(dh->name, name) == 0 && (dh->cordon || dh->state == LMO_DH_WAITING);
        }
        if (avoid) {
            ret[count++] = i;
        }
    }
    return count;
}

static void no_place(struct drain *dr, struct snapshot *s, uint32_t guest, uint32_t index, const char *text)
{
    struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_NO_PLACE, .guest = guest, .text = text};
    struct lmo_verdict *verdicts = calloc(s->fleet.host_count + 1, sizeof *verdicts);
    if (verdicts) {
        lmo_place_explain(s->place, index, verdicts);
    }
    for (uint32_t i = 0; verdicts && i < s->fleet.host_count; i++) {
        ev.may_change = ev.may_change || may_change(verdicts[i].why);
    }
    free(verdicts);
    engine_drain_event(dr, &ev);
}

static void place(struct drain *dr, struct snapshot *s, uint32_t guest)
{
    struct lmo_engine *e = dr->engine;
    struct lmo_drain_guest *g = &dr->d.guests[guest];
    struct guest *seen = NULL;
    struct lmo_err err = {0};
    char text[LMO_TEXT_MAX] = "";
    enum lmo_not why = LMO_NOT_REJECTED;
    HASH_FIND_STR(e->fleet.guests, g->uuid, seen);
    struct host *at = engine_host(e, g->at);
    if (!seen || !at || seen->host != at || seen->index >= s->fleet.guest_count || s->guests[seen->index] != seen) {
        struct lmo_drain_event unseen = {.kind = at && at->shown_ns ? LMO_DRAIN_EV_GUEST_GONE : LMO_DRAIN_EV_BLOCKED,
                                         .guest = guest,
                                         .code = LMO_E_BUSY,
                                         .text = "its host has not shown it yet"};
        if (at && !at->shown_ns) {
            engine_fleet_ask(at, NULL, NULL);
        }
        engine_drain_event(dr, &unseen);
        return;
    }
    g->shut_off = seen->state == LMO_RUN_SHUT_OFF;
    g->memory_bytes = seen->memory_bytes;
    g->policy = s->fleet_guests[seen->index].unmovable;
    if (lmo_place_way(&s->fleet, seen->index, &why, text, sizeof text) == LMO_WAY_NONE) {
        bool later = why == LMO_NOT_MIGRATING || why == LMO_NOT_LEASED;
        struct lmo_drain_event blocked = {.kind = LMO_DRAIN_EV_BLOCKED,
                                          .guest = guest,
                                          .code = later ? LMO_E_BUSY : LMO_E_REFUSED,
                                          .text = text};
        engine_drain_event(dr, &blocked);
        return;
    }
    uint32_t *avoid = calloc(s->fleet.host_count + 1, sizeof *avoid), best = LMO_NONE;
    struct lmo_place_options o = {.spare_hosts = dr->d.keep_free, .avoid = avoid};
    struct lmo_verdict verdict = {0};
    o.avoid_count = avoid ? avoided(dr, g, s, avoid) : 0;
    if (!avoid || engine_snapshot_place(s, &o, &err) < 0) {
        LMO_COPY(verdict.text, avoid ? err.text : "no memory to place it");
    } else if (g->back) {
        uint32_t home = engine_snapshot_host(s, dr->d.hosts[g->host].name);
        if (home != LMO_NONE) {
            lmo_place_judge(s->place, seen->index, home, &verdict);
            best = verdict.why == LMO_NOT_REJECTED ? home : LMO_NONE;
        }
    } else {
        best = lmo_place_best(s->place, seen->index, &verdict);
    }
    if (best == LMO_NONE) {
        no_place(dr, s, guest, seen->index, verdict.text);
    } else {
        struct lmo_drain_event placed = {.kind = LMO_DRAIN_EV_PLACED, .guest = guest, .text = s->hosts[best]->row.name};
        engine_drain_event(dr, &placed);
    }
    free(avoid);
}

/* What is known of it was shown too long ago to decide by: its host is asked first. */
static bool is_old(const struct drain *dr, uint32_t guest)
{
    const struct host *at = engine_host(dr->engine, dr->d.guests[guest].at);
    return at && at->up && lmo_now_ns() - at->shown_ns > LMO_SEEN_FRESH_MS * LMO_NS_PER_MS;
}

static bool ask_first(struct drain *dr, uint32_t guest)
{
    const struct lmo_drain_guest *g = &dr->d.guests[guest];
    bool ask = g->state == LMO_DG_PLACING && is_old(dr, guest);
    if (ask) {
        engine_fleet_ask(engine_host(dr->engine, g->at), on_relisted, ask_for(dr, g->host, guest));
    }
    return ask;
}

static void place_all(struct drain *dr, const uint32_t *guests, uint32_t count)
{
    struct snapshot s;
    struct lmo_err err = {0};
    bool any = false;
    for (uint32_t i = 0; i < count && !any; i++) {
        any = dr->d.guests[guests[i]].state == LMO_DG_PLACING;
    }
    if (!any) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        (void)ask_first(dr, guests[i]);
    }
    int r = engine_snapshot(dr->engine, dr->d.unmovable, &s, &err);
    for (uint32_t i = 0; i < count; i++) {
        if (dr->d.guests[guests[i]].state != LMO_DG_PLACING || is_old(dr, guests[i])) {
            continue;
        }
        if (r == 0) {
            place(dr, &s, guests[i]);
        } else {
            struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_NO_PLACE,
                                         .guest = guests[i],
                                         .may_change = true,
                                         .text = err.text};
            engine_drain_event(dr, &ev);
        }
    }
    if (r == 0) {
        engine_snapshot_done(&s);
    }
}

void engine_drain_do_guests(struct drain *dr, const uint32_t *guests, uint32_t count)
{
    place_all(dr, guests, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct lmo_drain_guest *g = &dr->d.guests[guests[i]];
        if (g->state == LMO_DG_STARTING &&
            g->migration[0]) { /* one that has just been placed is named with the next commit */
            start(dr, guests[i]);
        } else if (g->state == LMO_DG_MOVING && dr->recovering) {
            if (!look_up(dr, guests[i])) {
                start(dr, guests[i]);
            }
        }
        if (g->state == LMO_DG_MOVING && dr->d.state == LMO_DRAIN_CANCELLING) {
            end_child(dr, g);
        }
    }
}

/* ------------------------------------------------------------------ hosts */

static void remember(struct lmo_drain_host *dh, const struct host *h)
{
    size_t used = 0;
    LMO_COPY(dh->boot, h->facts.boot);
    dh->links[0] = '\0';
    for (unsigned i = 0; i < h->facts.link_count && used < sizeof dh->links; i++) {
        int n = snprintf(dh->links + used, sizeof dh->links - used, "%s%s", used ? " " : "", h->facts.links[i].name);
        used += n > 0 ? (size_t)n : 0;
    }
    (void)snprintf(dh->services, sizeof dh->services, "%s %s %s", h->facts.hypervisor[0] ? "hypervisor" : "",
                   h->facts.network, h->facts.network_fabric);
}

/* The host's own list, asked anew: guests that the drain does not know yet become part of it. */
static void on_host_listed(void *arg, struct host *h, int code, const char *text, const json_t *vms)
{
    struct asked a = *(struct asked *)arg;
    struct drain *dr = engine_drain(a.engine, a.drain);
    free(arg);
    if (!dr) {
        return;
    }
    dr->runs[a.host].asking = false;
    struct lmo_drain_host *dh = &dr->d.hosts[a.host];
    if (dh->state != LMO_DH_CHECKING) {
        return;
    }
    struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_LISTED,
                                 .host = a.host,
                                 .code = h ? code : LMO_E_NOT_FOUND,
                                 .text = text};
    size_t total = ev.code == 0 ? json_array_size(vms) : 0;
    uint32_t *listed = calloc(total + 1, sizeof *listed);
    lmo_assert(listed);
    for (size_t i = 0; i < total && ev.code == 0; i++) {
        const char *uuid = engine_listed_uuid(vms, i);
        uint32_t found = LMO_DRAIN_NONE;
        for (uint32_t n = dh->first; uuid && n != LMO_DRAIN_NONE; n = dr->d.guests[n].next) {
            const struct lmo_drain_guest *g = &dr->d.guests[n];
            bool passing = g->why == LMO_MOVE_MAKE_ROOM || (strcmp(g->at, dh->name) != 0 && g->state != LMO_DG_MOVED);
            if (strcmp(g->uuid, uuid) == 0 && !passing) {
                found = found == LMO_DRAIN_NONE || lmo_drain_guest_is(g->state, LMO_DG_OPEN) ? n : found;
            }
        }
        if (uuid && found == LMO_DRAIN_NONE) {
            const char *name = json_string_value(json_object_get(json_array_get(vms, i), "name"));
            found = engine_drain_append(dr, a.host, uuid, name ? name : uuid);
            dh = &dr->d.hosts[a.host];
        }
        if (found != LMO_DRAIN_NONE) {
            listed[ev.listed_count++] = found;
        }
    }
    ev.listed = listed;
    ev.total = (uint32_t)total;
    if (ev.code == 0 && total == 0) {
        remember(dh, h);
    }
    engine_drain_event(dr, &ev);
    free(listed);
}

static bool has_words(const char *all, const char *words)
{
    while (*words) {
        char word[LMO_NAME_MAX];
        size_t len = strcspn(words, " ");
        (void)snprintf(word, sizeof word, "%.*s", (int)len, words);
        if (len > 0 && !engine_label_in(all, word)) {
            return false;
        }
        words += len;
        words += strspn(words, " ");
    }
    return true;
}

/* Ready: its worker answers, it offers what it offered before, and it shows its guests. */
static void on_probed(void *arg, struct host *h, int code, const char *text, const json_t *vms)
{
    struct asked a = *(struct asked *)arg;
    struct drain *dr = engine_drain(a.engine, a.drain);
    (void)vms;
    free(arg);
    if (!dr) {
        return;
    }
    struct lmo_drain_host *dh = &dr->d.hosts[a.host], now = {0};
    char why[LMO_TEXT_MAX];
    struct lmo_drain_event ev = {.kind = LMO_DRAIN_EV_PROBED, .host = a.host, .code = h ? code : LMO_E_NOT_FOUND};
    dr->runs[a.host].asking = false;
    (void)snprintf(why, sizeof why, "not ready: %.200s", text);
    if (ev.code == 0) {
        remember(&now, h);
        if (!has_words(now.links, dh->links)) {
            ev.code = LMO_E_UNAVAILABLE;
            (void)snprintf(why, sizeof why, "not ready: it has the links '%.80s', before it had '%.80s'", now.links,
                           dh->links);
        } else if (!has_words(now.services, dh->services)) {
            ev.code = LMO_E_UNAVAILABLE;
            (void)snprintf(why, sizeof why, "not ready: it offers '%.80s', before it offered '%.80s'", now.services,
                           dh->services);
        }
    }
    ev.text = why;
    engine_drain_event(dr, &ev);
}

static void on_hooked(void *arg, int code, bool acknowledged, const char *text)
{
    struct asked a = *(struct asked *)arg;
    struct drain *dr = engine_drain(a.engine, a.drain);
    free(arg);
    if (!dr || a.engine->stopping) {
        return;
    }
    dr->runs[a.host].asking = false;
    struct lmo_drain_event ev = {
        .kind = LMO_DRAIN_EV_HOOKED, .host = a.host, .code = code, .acknowledged = acknowledged, .text = text};
    engine_drain_event(dr, &ev);
}

static void call_hook(struct drain *dr, uint32_t host)
{
    struct lmo_engine *e = dr->engine;
    struct lmo_err err = {0};
    struct asked *a = ask_for(dr, host, LMO_DRAIN_NONE);
    const struct lmo_hook hook = {.url = dr->d.hook_url,
                                  .command = dr->d.hook_command,
                                  .drain = dr->d.id,
                                  .host = dr->d.hosts[host].name};
    dr->runs[host].asking = true;
    int r = e->hooks ? e->hooks->call(e->hooks->arg, &hook, on_hooked, a, &err)
                     : lmo_fail(&err, LMO_E_UNSUPPORTED, "this coordinator calls no hooks");
    if (r < 0) {
        on_hooked(a, r, false, err.text);
    }
}

void engine_drain_do_host(struct drain *dr, uint32_t host)
{
    struct lmo_drain_host *dh = &dr->d.hosts[host];
    struct host *h = engine_host(dr->engine, dh->name);
    bool asks = dh->state == LMO_DH_CHECKING || dh->state == LMO_DH_HOOK || dh->state == LMO_DH_PROBING;
    if (!asks || dh->look_ms != 0 || dr->runs[host].asking) {
        return;
    }
    if (dh->state == LMO_DH_HOOK) {
        call_hook(dr, host);
        return;
    }
    struct asked *a = ask_for(dr, host, LMO_DRAIN_NONE);
    engine_listed_fn *fn = dh->state == LMO_DH_CHECKING ? on_host_listed : on_probed;
    dr->runs[host].asking = true;
    if (h) {
        engine_fleet_ask(h, fn, a);
    } else {
        fn(a, NULL, LMO_E_NOT_FOUND, "the host is not registered any more", NULL);
    }
}
