/* drain_show.c - drains and plans as REST shows them. What a guest that moves is doing is looked up in its migration. */
#include "engine/drains_internal.h"

#include "base/json.h"
#include "proto/codec.h"

#include <stdio.h>

#define SHOWN_MAX 2000 /* guests in one answer; those that are not settled come first */

#define TEXT(s) lmo_codec_string((s), sizeof(s) - 1)

static json_t *stamp(int64_t ms)
{
    return ms ? json_integer(ms) : json_null();
}

static json_t *code_or_null(int code)
{
    return code < 0 ? json_string(lmo_err_name(code)) : json_null();
}

static json_t *keep_free(uint32_t n)
{
    char text[16];
    (void)snprintf(text, sizeof text, "N+%u", n);
    return n ? json_string(text) : json_null();
}

/* ------------------------------------------------------------------ guests */

static json_t *tries_json(const struct lmo_drain_guest *g)
{
    json_t *array = json_array();
    for (unsigned i = 0; array && i < g->try_count; i++) {
        const struct lmo_drain_try *t = &g->tries[i];
        json_t *o = json_object();
        int r = lmo_json_put(o, "destination", TEXT(t->destination));
        r |= lmo_json_put(o, "code", code_or_null(t->code));
        r |= lmo_json_put(o, "failed_in", t->code < 0 ? json_string(lmo_phase_text(t->failed_in)) : json_null());
        if (r < 0) {
            json_decref(o);
            o = NULL;
        }
        if (lmo_json_add(array, o) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* What its migration is doing: its phase, how far it is, and in the queue what holds it. */
static int put_child(struct lmo_engine *e, const struct lmo_drain_guest *g, json_t *o)
{
    const struct entry *child = g->state == LMO_DG_MOVING && g->migration[0] ? engine_entry(e, g->migration) : NULL;
    const struct lmo_migration *m = child ? engine_record(child) : NULL;
    char text[LMO_TEXT_MAX] = "";
    bool eta = m && m->phase == LMO_PHASE_PRECOPY && m->convergence.eta.high_ms > 0;
    if (child && engine_admission_hold(child)) {
        engine_admission_hold_text(child, text, sizeof text);
    } else if (m) {
        (void)snprintf(text, sizeof text, "%s", m->waiting_for);
    }
    json_t *range = eta ? json_object() : json_null();
    int r = eta ? lmo_json_put_i64(range, "low_ms", m->convergence.eta.low_ms) |
                      lmo_json_put_i64(range, "high_ms", m->convergence.eta.high_ms)
                : 0;
    r |= lmo_json_put(o, "phase", m ? json_string(lmo_phase_text(m->phase)) : json_null());
    r |= lmo_json_put_u64(o, "percent", g->state == LMO_DG_MOVED ? 100 : m ? m->percent : 0);
    r |= lmo_json_put_u64(o, "rate_bytes_per_s", m && m->phase == LMO_PHASE_PRECOPY ? m->progress.rate_bytes_per_s : 0);
    r |= lmo_json_put(o, "eta", range);
    r |= lmo_json_put(o, "waiting_for", text[0] ? TEXT(text) : json_null());
    return r;
}

static json_t *guest_json(struct lmo_engine *e, const struct lmo_drain *d, const struct lmo_drain_guest *g)
{
    json_t *o = json_object();
    int r = lmo_json_put_str(o, "vm", g->uuid);
    r |= lmo_json_put(o, "name", TEXT(g->name));
    r |= lmo_json_put(o, "host", TEXT(d->hosts[g->host].name));
    r |= lmo_json_put(o, "at", TEXT(g->at));
    r |= lmo_json_put(o, "destination", g->destination[0] ? TEXT(g->destination) : json_null());
    r |= lmo_json_put_str(o, "state", lmo_drain_guest_state_text(g->state));
    r |= lmo_json_put_str(o, "why", g->back ? lmo_move_why_text(LMO_MOVE_GIVE_BACK) : lmo_move_why_text((int)g->why));
    r |= lmo_json_put(o, "reason", g->reason[0] ? TEXT(g->reason) : json_null());
    r |= lmo_json_put(o, "reason_code", code_or_null(g->code));
    r |= lmo_json_put_str(o, "unmovable", lmo_unmovable_text((int)g->policy));
    r |= lmo_json_put(o, "tries", tries_json(g));
    r |= lmo_json_put(o, "migration", g->migration[0] ? json_string(g->migration) : json_null());
    r |= lmo_json_put_u64(o, "order", g->order);
    r |= lmo_json_put(o, "since_ms", stamp(g->since_ms));
    r |= lmo_json_put(o, "waiting_since_ms", stamp(g->wait_ms));
    r |= put_child(e, g, o);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *guests_json(struct lmo_engine *e, const struct lmo_drain *d)
{
    json_t *array = json_array();
    unsigned shown = 0;
    int r = 0;
    for (unsigned pass = 0; array && pass < 2; pass++) {
        for (uint32_t i = 0; i < d->guest_count && shown < SHOWN_MAX && r == 0; i++) {
            bool open = lmo_drain_guest_is(d->guests[i].state, LMO_DG_OPEN) || d->guests[i].state == LMO_DG_FAILED;
            if (d->guest_count <= SHOWN_MAX ? pass == 0 : open == (pass == 0)) {
                r = lmo_json_add(array, guest_json(e, d, &d->guests[i]));
                shown++;
            }
        }
    }
    if (r < 0) {
        json_decref(array);
        return NULL;
    }
    return array;
}

/* ------------------------------------------------------------------ the whole of it */

static json_t *hosts_json(const struct lmo_drain *d)
{
    json_t *array = json_array();
    for (uint32_t i = 0; array && i < d->host_count; i++) {
        const struct lmo_drain_host *h = &d->hosts[i];
        json_t *o = json_object();
        int r = lmo_json_put(o, "name", TEXT(h->name));
        r |= lmo_json_put_str(o, "state", lmo_drain_host_state_text(h->state));
        r |= lmo_json_put(o, "reason", h->reason[0] ? TEXT(h->reason) : json_null());
        r |= lmo_json_put(o, "since_ms", stamp(h->since_ms));
        r |= lmo_json_put(o, "waiting_since_ms", stamp(h->wait_ms));
        r |= lmo_json_put_bool(o, "cordoned", h->cordon);
        r |= lmo_json_put_u64(o, "guests", h->guests);
        r |= lmo_json_put_u64(o, "open", h->open);
        r |= lmo_json_put_u64(o, "moved", h->moved);
        r |= lmo_json_put_u64(o, "failed", h->failed);
        r |= lmo_json_put_u64(o, "skipped", h->skipped);
        if (r < 0) {
            json_decref(o);
            o = NULL;
        }
        if (lmo_json_add(array, o) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *counts_json(const struct lmo_drain *d)
{
    json_t *o = json_object();
    int r = 0;
    for (int s = 0; s < LMO_DG_COUNT; s++) {
        r |= lmo_json_put_u64(o, lmo_drain_guest_state_text((enum lmo_drain_guest_state)s), d->guests_in[s]);
    }
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* How fast memory goes now, how much is to go yet, and what follows from both: once over it if nothing is written to meanwhile,
 * twice if it is. Null before anything moves, and while something else than bytes is waited for. */
static int put_speed(struct lmo_engine *e, const struct lmo_drain *d, json_t *o)
{
    uint64_t rate = 0, left = 0;
    for (uint32_t i = 0; i < d->guest_count; i++) {
        const struct lmo_drain_guest *g = &d->guests[i];
        if (!lmo_drain_guest_is(g->state, LMO_DG_OPEN) || g->shut_off) {
            continue;
        }
        const struct entry *child = g->state == LMO_DG_MOVING && g->migration[0] ? engine_entry(e, g->migration) : NULL;
        const struct lmo_migration *m = child && child->phase == LMO_PHASE_PRECOPY ? engine_record(child) : NULL;
        rate += m ? m->progress.rate_bytes_per_s : 0;
        left += m && m->progress.total_bytes ? m->progress.remaining_bytes : g->memory_bytes;
    }
    bool known = rate > 0 && d->state == LMO_DRAIN_RUNNING;
    json_t *eta = known ? json_object() : json_null();
    int r = known ? lmo_json_put_u64(eta, "low_ms", left / rate * 1000) |
                        lmo_json_put_u64(eta, "high_ms", 2 * (left / rate + 1) * 1000)
                  : 0;
    r |= lmo_json_put_u64(o, "rate_bytes_per_s", rate);
    r |= lmo_json_put_u64(o, "bytes_left", left);
    return r | lmo_json_put(o, "eta", eta);
}

json_t *engine_drain_json(struct lmo_engine *e, const struct lmo_drain *d, bool with_guests)
{
    bool over = lmo_drain_is(d->state, LMO_DRAIN_TERMINAL);
    json_t *o = json_object();
    int r = lmo_json_put_str(o, "id", d->id);
    r |= lmo_json_put_u64(o, "version", d->version);
    r |= lmo_json_put_str(o, "kind", d->balance ? "rebalance" : "drain");
    r |= lmo_json_put_str(o, "state", lmo_drain_state_text(d->state));
    r |= lmo_json_put(o, "outcome", over ? json_string(lmo_drain_state_text(d->state)) : json_null());
    r |= lmo_json_put(o, "reason", d->reason[0] ? TEXT(d->reason) : json_null());
    r |= lmo_json_put(o, "reason_code", code_or_null(d->code));
    r |= lmo_json_put(o, "waiting_for", d->waiting_for[0] ? TEXT(d->waiting_for) : json_null());
    r |= lmo_json_put(o, "waiting_since_ms", stamp(d->waiting_since_ms));
    r |= lmo_json_put_u64(o, "percent", d->percent);
    r |= lmo_json_put(o, "created_ms", stamp(d->created_ms));
    r |= lmo_json_put(o, "updated_ms", stamp(d->updated_ms));
    r |= lmo_json_put(o, "ended_ms", stamp(d->ended_ms));
    r |= lmo_json_put(o, "requested_by", TEXT(d->principal));
    r |= lmo_json_put_u64(o, "max_hosts", d->max_hosts);
    r |= lmo_json_put(o, "keep_free", keep_free(d->keep_free));
    r |= lmo_json_put_bool(o, "return", d->give_back);
    r |= lmo_json_put_bool(o, "rolling", d->rolling);
    r |= lmo_json_put_str(o, "unmovable", lmo_unmovable_text((int)d->unmovable));
    r |= lmo_json_put_i64(o, "wait_timeout_ms", d->wait_timeout_ms);
    r |= lmo_json_put(o, "hook",
                      d->hook_url[0]       ? TEXT(d->hook_url)
                      : d->hook_command[0] ? TEXT(d->hook_command)
                                           : json_null());
    r |= lmo_json_put(o, "plan", TEXT(d->plan));
    r |= lmo_json_put_u64(o, "expected_low_ms", d->low_ms);
    r |= lmo_json_put_u64(o, "expected_high_ms", d->high_ms);
    r |= lmo_json_put_u64(o, "host_count", d->host_count);
    r |= lmo_json_put_u64(o, "guest_count", d->guest_count);
    if (with_guests) {
        r |= put_speed(e, d, o);
        r |= lmo_json_put(o, "guests_by_state", counts_json(d));
        r |= lmo_json_put(o, "hosts", hosts_json(d));
        r |= lmo_json_put(o, "guests", guests_json(e, d));
    }
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* ------------------------------------------------------------------ plans */

static json_t *move_json(const struct snapshot *s, const struct lmo_plan *p, uint32_t n)
{
    const struct lmo_plan_move *m = &p->moves[n];
    json_t *o = json_object(), *after = json_array();
    int r = lmo_json_put_u64(o, "order", n);
    r |= lmo_json_put_str(o, "vm", s->guests[m->guest]->uuid);
    r |= lmo_json_put_str(o, "name", s->guests[m->guest]->name);
    r |= lmo_json_put_str(o, "from", s->hosts[m->from]->row.name);
    r |= lmo_json_put_str(o, "to", s->hosts[m->to]->row.name);
    r |= lmo_json_put_str(o, "why", lmo_move_why_text((int)m->why));
    r |= lmo_json_put_str(o, "way", lmo_way_text((int)m->way));
    r |= lmo_json_put(o, "stage", m->stage == LMO_NONE ? json_null() : json_integer(m->stage));
    for (uint32_t i = 0; i < m->after_count; i++) {
        r |= lmo_json_add(after, json_integer(p->after[m->after_first + i]));
    }
    r |= lmo_json_put(o, "after", after);
    r |= lmo_json_put_u64(o, "bytes", m->bytes);
    r |= lmo_json_put_u64(o, "start_ms", m->start_ms);
    r |= lmo_json_put_u64(o, "expected_ms", m->expected_ms);
    r |= lmo_json_put_u64(o, "low_ms", m->low_ms);
    r |= lmo_json_put_u64(o, "high_ms", m->high_ms);
    r |= lmo_json_put_str(o, "outlook", lmo_outlook_text((int)m->outlook));
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *stage_json(const struct snapshot *s, const struct lmo_plan *p, uint32_t n)
{
    const struct lmo_plan_stage *st = &p->stages[n];
    json_t *o = json_object(), *after = json_array();
    int r = lmo_json_put_str(o, "host", s->hosts[st->host]->row.name);
    for (uint32_t i = 0; i < st->after_count; i++) {
        r |= lmo_json_add(after, json_integer(p->after[st->after_first + i]));
    }
    r |= lmo_json_put(o, "after", after);
    r |= lmo_json_put_u64(o, "lane", st->lane);
    r |= lmo_json_put_u64(o, "leaving", st->leaving);
    r |= lmo_json_put_u64(o, "blocked", st->blocked);
    r |= lmo_json_put_u64(o, "start_ms", st->start_ms);
    r |= lmo_json_put_u64(o, "expected_ms", st->expected_ms);
    r |= lmo_json_put_u64(o, "low_ms", st->low_ms);
    r |= lmo_json_put_u64(o, "high_ms", st->high_ms);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *blocked_json(const struct snapshot *s, const struct lmo_plan_blocked *b)
{
    const struct guest *g = s->guests[b->guest];
    json_t *o = json_object();
    int r = lmo_json_put_str(o, "vm", g->uuid);
    r |= lmo_json_put_str(o, "name", g->name);
    r |= lmo_json_put_str(o, "host", g->host->row.name);
    r |= lmo_json_put_str(o, "why_not", lmo_not_text((int)b->why));
    r |= lmo_json_put_str(o, "unmovable", lmo_unmovable_text((int)b->unmovable));
    r |= lmo_json_put(o, "text", TEXT(b->text));
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

json_t *engine_plan_json(const struct snapshot *s, const struct lmo_plan *p, const char *digest)
{
    json_t *o = json_object(), *stages = json_array(), *moves = json_array(), *blocked = json_array();
    int r = lmo_json_put_str(o, "plan", digest);
    r |= lmo_json_put(o, "text", TEXT(p->text));
    r |= lmo_json_put_bool(o, "spare_kept", p->spare_kept);
    r |= lmo_json_put_u64(o, "expected_ms", p->expected_ms);
    r |= lmo_json_put_u64(o, "low_ms", p->low_ms);
    r |= lmo_json_put_u64(o, "high_ms", p->high_ms);
    r |= lmo_json_put_u64(o, "bound_ms", p->bound_ms);
    for (uint32_t i = 0; i < p->stage_count; i++) {
        r |= lmo_json_add(stages, stage_json(s, p, i));
    }
    for (uint32_t i = 0; i < p->move_count; i++) {
        r |= lmo_json_add(moves, move_json(s, p, i));
    }
    for (uint32_t i = 0; i < p->blocked_count; i++) {
        r |= lmo_json_add(blocked, blocked_json(s, &p->blocked[i]));
    }
    r |= lmo_json_put(o, "stages", stages);
    r |= lmo_json_put(o, "moves", moves);
    r |= lmo_json_put(o, "blocked", blocked);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}
