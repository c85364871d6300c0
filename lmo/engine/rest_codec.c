/* rest_codec.c - a migration as the REST API shows it. What is not known is null, never 0. */
#include "engine/record_codec.h"

#include "base/clock.h"
#include "base/json.h"
#include "core/attention.h"
#include "proto/codec.h"
#include "proto/vm.h"

#include <stdio.h>

static json_t *text_or_null(const char *text, size_t max)
{
    return text[0] ? lmo_codec_string(text, max) : json_null();
}

static json_t *stamp_or_null(int64_t t)
{
    return t ? json_integer(t) : json_null();
}

static json_t *ms_or_null(bool known, uint64_t us)
{
    return known ? json_real((double)us / 1000.0) : json_null();
}

#define TEXT(field) text_or_null((field), sizeof(field) - 1)

static json_t *vm_json(const struct lmo_migration *m)
{
    json_t *o = json_object();
    int r = lmo_json_put(o, "uuid", TEXT(m->vm.uuid));
    r |= lmo_json_put(o, "name", TEXT(m->vm.name));
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *phases_json(const struct lmo_migration *m)
{
    json_t *array = json_array();
    for (unsigned i = 0; array && i < m->phase_time_count; i++) {
        const struct lmo_phase_time *t = &m->phase_times[i];
        /* `us` is missing for a phase during which the machine was restarted: then the stamps must do. */
        int64_t by_stamps_ms = t->ended_ms > t->started_ms ? t->ended_ms - t->started_ms : 0;
        uint64_t us = t->us ? t->us : (uint64_t)by_stamps_ms * 1000;
        json_t *o = json_object();
        int r = lmo_json_put_str(o, "name", lmo_phase_text(t->phase));
        r |= lmo_json_put(o, "started_ms", stamp_or_null(t->started_ms));
        r |= lmo_json_put(o, "ended_ms", stamp_or_null(t->ended_ms));
        r |= lmo_json_put(o, "ms", ms_or_null(t->ended_ms != 0, us));
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

/* Beyond what an integer of JSON holds, or any use: a year. */
static json_t *eta_ms(uint64_t bytes, uint64_t rate_bytes_per_s)
{
    const double longest = 365.0 * 24 * 3600 * 1000;
    double ms = (double)bytes * 1000.0 / (double)rate_bytes_per_s;
    return json_integer((json_int_t)(ms < longest ? ms : longest));
}

/* How long the rest of pre-copy takes: at best, if nothing more gets dirty; at worst, if the guest goes on dirtying
 * at the measured rate. Null when it cannot be said: no rate yet, the first pass is not over, or it does not
 * converge. */
static void eta(const struct lmo_migration *m, json_t **ret_min, json_t **ret_max)
{
    const struct lmo_progress *p = &m->progress;
    *ret_min = *ret_max = NULL;
    if (m->phase == LMO_PHASE_PRECOPY && p->rate_bytes_per_s > 0) {
        *ret_min = eta_ms(p->remaining_bytes, p->rate_bytes_per_s);
        if (p->iteration > 1 && p->dirty_bytes_per_s < p->rate_bytes_per_s) {
            *ret_max = eta_ms(p->remaining_bytes, p->rate_bytes_per_s - p->dirty_bytes_per_s);
        }
    }
    *ret_min = *ret_min ? *ret_min : json_null();
    *ret_max = *ret_max ? *ret_max : json_null();
}

static json_t *progress_json(const struct lmo_migration *m)
{
    json_t *o = lmo_progress_to_json(&m->progress), *min, *max;
    eta(m, &min, &max);
    int r = lmo_json_put_u64(o, "percent", m->percent);
    r |= lmo_json_put(o, "eta_min_ms", min);
    r |= lmo_json_put(o, "eta_max_ms", max);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *cutover_json(const struct lmo_cutover *c)
{
    json_t *o = json_object();
    bool blackout = c->suspended_us && c->resumed_us;
    int r = lmo_json_put(o, "suspended_us", stamp_or_null(c->suspended_us));
    r |= lmo_json_put(o, "loaded_us", stamp_or_null(c->loaded_us));
    r |= lmo_json_put(o, "frozen_us", stamp_or_null(c->frozen_us));
    r |= lmo_json_put(o, "fenced_us", stamp_or_null(c->fenced_us));
    r |= lmo_json_put(o, "resumed_us", stamp_or_null(c->resumed_us));
    r |= lmo_json_put(o, "blackout_ms",
                      blackout ? json_real((double)(c->resumed_us - c->suspended_us) / 1000.0) : json_null());
    r |= lmo_json_put(o, "loaded_to_resumed_ms", ms_or_null(c->loaded_to_resumed_us != 0, c->loaded_to_resumed_us));
    r |= lmo_json_put(o, "freeze_ms", ms_or_null(c->freeze_us != 0, c->freeze_us));
    r |= lmo_json_put(o, "fence_ms", ms_or_null(c->fence_us != 0, c->fence_us));
    r |= lmo_json_put(o, "verify_ms", ms_or_null(c->verify_us != 0, c->verify_us));
    r |= lmo_json_put(o, "freeze_answer", TEXT(c->freeze_answer));
    r |= lmo_json_put(o, "evidence", TEXT(c->evidence));
    r |= lmo_json_put_bool(o, "committed", c->committed);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *policy_json(const struct lmo_policy *p)
{
    json_t *o = json_object();
    int r = lmo_json_put_u64(o, "bandwidth_bytes_per_s", p->bandwidth_bytes_per_s);
    r |= lmo_json_put_u64(o, "max_downtime_ms", p->max_downtime_ms);
    r |= lmo_json_put_u64(o, "convergence_timeout_ms", p->convergence_timeout_ms);
    r |= lmo_json_put_bool(o, "accept_stateful_loss", p->accept_stateful_loss);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *volumes_json(const struct lmo_vm_facts *vm)
{
    json_t *array = json_array();
    for (unsigned i = 0; array && i < vm->volume_count; i++) {
        if (lmo_json_add(array, lmo_volume_to_json(&vm->volumes[i])) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *ports_json(const struct lmo_vm_facts *vm)
{
    json_t *array = json_array();
    for (unsigned i = 0; array && i < vm->port_count; i++) {
        if (lmo_json_add(array, lmo_port_to_json(&vm->ports[i])) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static int add_resource(json_t *array, const struct lmo_migration *m, enum lmo_resource_kind k, unsigned i)
{
    if (lmo_resource_state(m, k, i) == LMO_RES_ABSENT) {
        return 0;
    }
    json_t *o = json_object();
    const char *object = lmo_resource_object(m, k, i);
    int r = lmo_json_put_str(o, "what", lmo_resource_text(k));
    r |= lmo_json_put(o, "object", text_or_null(object, LMO_NAME_MAX - 1));
    r |= lmo_json_put_str(o, "host", lmo_resource_host(m, k, i));
    r |= lmo_json_put_str(o, "state", lmo_resource_state_text(lmo_resource_state(m, k, i)));
    if (r < 0) {
        json_decref(o);
        o = NULL;
    }
    return lmo_json_add(array, o);
}

/* What this migration made, where, and what became of it. A worker's record is shown once, at its first volume or port. */
static json_t *resources_json(const struct lmo_migration *m)
{
    json_t *array = json_array();
    int r = 0;
    for (unsigned n = 0; array && n < m->resource_count; n++) {
        const struct lmo_resource *res = &m->resources[n];
        for (unsigned i = 0; i < 16; i++) {
            if (res->intended >> i & 1) {
                r |= add_resource(array, m, res->kind, i);
            }
        }
    }
    if (r < 0) {
        json_decref(array);
        return NULL;
    }
    return array;
}

static json_t *lines_json(const char (*lines)[LMO_TEXT_MAX], unsigned count)
{
    json_t *array = json_array();
    for (unsigned i = 0; array && i < count; i++) {
        if (lmo_json_add(array, lmo_codec_string(lines[i], LMO_TEXT_MAX - 1)) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* For the person who must look; null unless one must. */
static json_t *attention_json(const struct lmo_migration *m)
{
    static _Thread_local struct lmo_attention a; /* 8 KiB that need not be on a stack */
    if (m->phase != LMO_PHASE_ATTENTION) {
        return json_null();
    }
    lmo_attention_describe(m, &a);
    json_t *o = json_object(), *safe = json_array();
    int r = lmo_json_put(o, "known", lines_json((const char(*)[LMO_TEXT_MAX])a.known, a.known_count));
    r |= lmo_json_put(o, "unknown", lines_json((const char(*)[LMO_TEXT_MAX])a.unknown, a.unknown_count));
    for (unsigned i = 0; i < a.safe_count; i++) {
        json_t *c = json_object();
        r |= lmo_json_put(c, "command", lmo_codec_string(a.safe[i].command, LMO_TEXT_MAX - 1));
        r |= lmo_json_put(c, "effect", lmo_codec_string(a.safe[i].effect, LMO_TEXT_MAX - 1));
        r |= lmo_json_add(safe, c);
    }
    r |= lmo_json_put(o, "safe", safe);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

#define LONG_CALL_MS 2000 /* a call that is not answered for so long is what the migration waits for */

/* What it waits for, in words: what the record says, else the call that has been under way for longest. */
static int put_waiting(json_t *o, const struct lmo_migration *m)
{
    const struct lmo_task *longest = NULL;
    int64_t now_ms = (int64_t)(lmo_realtime_us() / 1000);
    if (m->waiting_for[0]) {
        int r = lmo_json_put(o, "waiting_for", TEXT(m->waiting_for));
        return r | lmo_json_put(o, "waiting_since_ms", stamp_or_null(m->waiting_since_ms));
    }
    for (unsigned i = 0; i < m->task_count; i++) {
        const struct lmo_task *t = &m->tasks[i];
        bool slow = t->state == LMO_TASK_SENT && t->first_ms > 0 && now_ms - t->first_ms > LONG_CALL_MS;
        if (slow && (!longest || t->first_ms < longest->first_ms)) {
            longest = t;
        }
    }
    char text[LMO_TEXT_MAX] = "";
    if (longest) {
        (void)snprintf(text, sizeof text, "%.60s's answer to %s", lmo_task_host(m, longest), lmo_op_info(longest->kind)->text);
    }
    int r = lmo_json_put(o, "waiting_for", TEXT(text));
    return r | lmo_json_put(o, "waiting_since_ms", longest ? stamp_or_null(longest->first_ms) : json_null());
}

json_t *lmo_migration_to_rest(const struct lmo_migration *m)
{
    /* Who waits for a migration waits no longer once a person must look; that the record is open still, `resolve` knows. */
    bool ended = lmo_phase_is(m->phase, LMO_PHASE_TERMINAL) || m->phase == LMO_PHASE_ATTENTION;
    json_t *o = json_object();
    int r = lmo_json_put_str(o, "id", m->id);
    r |= lmo_json_put_u64(o, "version", m->version);
    r |= lmo_json_put(o, "vm", vm_json(m));
    r |= lmo_json_put(o, "source", TEXT(m->source));
    r |= lmo_json_put(o, "destination", TEXT(m->destination));
    r |= lmo_json_put_u64(o, "epoch", m->epoch);
    r |= lmo_json_put_str(o, "phase", lmo_phase_text(m->phase));
    r |= lmo_json_put(o, "outcome", ended ? json_string(lmo_phase_text(m->phase)) : json_null());
    r |= lmo_json_put(o, "reason", TEXT(m->reason));
    r |= lmo_json_put(o, "reason_code", m->reason_code ? json_string(lmo_err_name(m->reason_code)) : json_null());
    r |= lmo_json_put(o, "failed_in", m->reason_code ? json_string(lmo_phase_text(m->failed_in)) : json_null());
    r |= lmo_json_put_bool(o, "cancel_requested", m->cancel_requested);
    r |= put_waiting(o, m);
    r |= lmo_json_put(o, "created_ms", stamp_or_null(m->created_ms));
    r |= lmo_json_put(o, "updated_ms", stamp_or_null(m->updated_ms));
    r |= lmo_json_put(o, "phases", phases_json(m));
    r |= lmo_json_put(o, "progress", progress_json(m));
    r |= lmo_json_put(o, "cutover", cutover_json(&m->cutover));
    r |= lmo_json_put(o, "migrate_call_ms", m->job_ended ? json_integer((json_int_t)m->job_call_ms) : json_null());
    r |= lmo_json_put(o, "policy", policy_json(&m->policy));
    r |= lmo_json_put(o, "resources", resources_json(m));
    r |= lmo_json_put(o, "attention", attention_json(m));
    r |= lmo_json_put(o, "volumes", volumes_json(&m->vm));
    r |= lmo_json_put(o, "ports", ports_json(&m->vm));
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}
