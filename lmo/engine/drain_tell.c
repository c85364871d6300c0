/* drain_tell.c - what is told of drains: each change of a drain's and of its guests' states, by the commit that stores it. */
#include "engine/drains_internal.h"

#include "base/assert.h"
#include "base/json.h"
#include "base/str.h"
#include "proto/codec.h"

#include <stdlib.h>

#define TEXT(s) ((s)[0] ? lmo_codec_string((s), sizeof(s) - 1) : json_null())

static void tell(struct drain *dr, const struct lmo_event_row *about, const char *type, json_t *data, int failed)
{
    if (failed) {
        json_decref(data); /* no memory: that it happened is still told */
        data = NULL;
    }
    engine_tell_with_commit(dr->engine, about, type, data);
}

static void tell_drain(struct drain *dr, const char *type, enum lmo_drain_state previous)
{
    const struct lmo_drain *d = &dr->d;
    struct lmo_event_row about = {0};
    json_t *o = json_object();
    LMO_COPY(about.drain, d->id);
    if (d->host_count == 1 && !d->balance) {
        LMO_COPY(about.host, d->hosts[0].name);
    }
    int r = lmo_json_put_str(o, "drain", d->id);
    r |= lmo_json_put_str(o, "kind", d->balance ? "rebalance" : "drain");
    r |= lmo_json_put_str(o, "state", lmo_drain_state_text(d->state));
    r |= lmo_json_put_str(o, "previous", lmo_drain_state_text(previous));
    r |= lmo_json_put_u64(o, "version", d->version);
    r |= lmo_json_put_u64(o, "hosts", d->host_count);
    r |= lmo_json_put_u64(o, "guests", d->guest_count);
    r |= lmo_json_put_u64(o, "moved", d->guests_in[LMO_DG_MOVED]);
    r |= lmo_json_put(o, "requested_by", TEXT(d->principal));
    r |= lmo_json_put(o, "waiting_for", TEXT(d->waiting_for));
    r |= lmo_json_put(o, "reason", TEXT(d->reason));
    tell(dr, &about, type, o, r);
}

/* NULL: nobody needs to be told that a guest is in this state. */
static const char *guest_type(enum lmo_drain_guest_state state)
{
    return state == LMO_DG_MOVED     ? "drain.guest_moved"
           : state == LMO_DG_HELD    ? "drain.guest_blocked"
           : state == LMO_DG_FAILED  ? "drain.guest_failed"
           : state == LMO_DG_SKIPPED ? "drain.guest_skipped"
                                     : NULL;
}

static void tell_guest(struct drain *dr, const struct lmo_drain_guest *g)
{
    const struct lmo_drain *d = &dr->d;
    struct lmo_event_row about = {0};
    json_t *o = json_object(), *vm = json_object();
    LMO_COPY(about.drain, d->id);
    LMO_COPY(about.vm, g->uuid);
    LMO_COPY(about.vm_name, g->name);
    LMO_COPY(about.migration, g->migration);
    LMO_COPY(about.host, d->balance ? g->at : d->hosts[g->host].name);
    LMO_COPY(about.to_host, g->destination);
    int r = lmo_json_put_str(vm, "uuid", g->uuid);
    r |= lmo_json_put(vm, "name", TEXT(g->name));
    r |= lmo_json_put_str(o, "drain", d->id);
    r |= lmo_json_put(o, "vm", vm);
    r |= lmo_json_put(o, "host", TEXT(about.host));
    r |= lmo_json_put(o, "destination", TEXT(g->destination));
    r |= lmo_json_put_str(o, "state", lmo_drain_guest_state_text(g->state));
    r |= lmo_json_put(o, "migration", TEXT(g->migration));
    r |= lmo_json_put_u64(o, "tries", g->try_count);
    r |= lmo_json_put(o, "reason", TEXT(g->reason));
    r |= lmo_json_put(o, "reason_code", g->code < 0 ? json_string(lmo_err_name(g->code)) : json_null());
    tell(dr, &about, guest_type(g->state), o, r);
}

/* As many as there are guests; those that are new were told nothing of. */
static void grow(struct drain *dr)
{
    if (dr->told_guest_count < dr->d.guest_count) {
        uint8_t *grown = realloc(dr->told_guests, dr->d.guest_count);
        lmo_assert(grown); /* what happened must be told; a restart starts from the store, and tells */
        for (uint32_t i = dr->told_guest_count; i < dr->d.guest_count; i++) {
            grown[i] = LMO_DG_QUEUED;
        }
        dr->told_guests = grown;
        dr->told_guest_count = dr->d.guest_count;
    }
}

void engine_drain_told(struct drain *dr)
{
    grow(dr);
    for (uint32_t i = 0; i < dr->d.guest_count; i++) {
        dr->told_guests[i] = (uint8_t)dr->d.guests[i].state;
    }
    dr->told = true;
    dr->told_state = dr->d.state;
}

void engine_drain_tell(struct drain *dr)
{
    const struct lmo_drain *d = &dr->d;
    if (!dr->told) {
        tell_drain(dr, "drain.accepted", LMO_DRAIN_PLANNING);
        dr->told_state = LMO_DRAIN_PLANNING;
        dr->told = true;
    }
    grow(dr);
    for (uint32_t i = d->touched_guests; i != LMO_DRAIN_NONE; i = d->guests[i].next_touched) {
        if (dr->told_guests[i] != (uint8_t)d->guests[i].state && guest_type(d->guests[i].state)) {
            tell_guest(dr, &d->guests[i]);
        }
        dr->told_guests[i] = (uint8_t)d->guests[i].state;
    }
    if (d->state != dr->told_state) {
        tell_drain(dr,
                   d->state == LMO_DRAIN_DRAINED      ? "drain.drained"
                   : d->state == LMO_DRAIN_INCOMPLETE ? "drain.incomplete"
                   : d->state == LMO_DRAIN_FAILED     ? "drain.failed"
                   : d->state == LMO_DRAIN_CANCELLED  ? "drain.cancelled"
                                                      : "drain.state",
                   dr->told_state);
        dr->told_state = d->state;
    }
}
