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

/* The range in which the guest will be switched over, counted from the sample that it was made of. Null while it cannot be
 * said: outside of pre-copy, behind the shut gate. */
static int put_eta(json_t *o, const struct lmo_migration *m)
{
    const struct lmo_eta *e = &m->convergence.eta;
    bool known = m->phase == LMO_PHASE_PRECOPY && e->kind != LMO_ETA_NONE;
    int64_t low = e->low_ms > m->updated_ms ? e->low_ms - m->updated_ms : 0;
    int64_t high = e->high_ms > m->updated_ms ? e->high_ms - m->updated_ms : 0;
    int r = lmo_json_put(o, "eta_min_ms", known ? json_integer(low) : json_null());
    r |= lmo_json_put(o, "eta_max_ms", known ? json_integer(high) : json_null());
    r |= lmo_json_put(o, "eta_earliest_ms", known ? json_integer(e->low_ms) : json_null());
    r |= lmo_json_put(o, "eta_latest_ms", known ? json_integer(e->high_ms) : json_null());
    r |= lmo_json_put_str(o, "eta_kind", lmo_eta_kind_text((int)(known ? e->kind : LMO_ETA_NONE)));
    r |= lmo_json_put_u64(o, "eta_revision", e->revision);
    return r;
}

static json_t *progress_json(const struct lmo_migration *m)
{
    json_t *o = lmo_progress_to_json(&m->progress);
    int r = lmo_json_put_u64(o, "percent", m->percent);
    r |= put_eta(o, m);
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
    r |= lmo_json_put_u64(o, "disk_timeout_ms", p->disk_timeout_ms);
    r |= lmo_json_put_bool(o, "accept_stateful_loss", p->accept_stateful_loss);
    r |= lmo_json_put_bool(o, "allow_throttle", p->allow_throttle);
    r |= lmo_json_put_u64(o, "throttle_initial_percent", p->throttle_initial_percent);
    r |= lmo_json_put_u64(o, "throttle_increment_percent", p->throttle_increment_percent);
    r |= lmo_json_put_str(o, "on_timeout", lmo_on_timeout_text((int)p->on_timeout));
    r |= lmo_json_put_u64(o, "force_max_pause_ms", p->force_max_pause_ms);
    r |= lmo_json_put_str(o, "prediction", lmo_prediction_text((int)p->prediction));
    r |= lmo_json_put_bool(o, "force", p->force);
    r |= lmo_json_put_bool(o, "accept_host_devices", p->accept_host_devices);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* Null: nobody wanted to be told. */
static json_t *notice_json(const struct lmo_notice *n)
{
    if (n->state == LMO_NOTICE_NONE) {
        return json_null();
    }
    json_t *o = json_object();
    int r = lmo_json_put_str(o, "state", lmo_notice_state_text((int)n->state));
    r |= lmo_json_put_str(o, "on_no_answer", lmo_no_answer_text((int)n->on_no_answer));
    r |= lmo_json_put(o, "until_ms", stamp_or_null(n->until_ms));
    r |= lmo_json_put(o, "answered_ms", stamp_or_null(n->answered_ms));
    r |= lmo_json_put(o, "by", TEXT(n->by));
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *forecast_json(const struct lmo_forecast *f)
{
    json_t *o = json_object();
    bool measured = f->age_ms > 0;
    int r = lmo_json_put_str(o, "outlook", lmo_outlook_text((int)f->outlook));
    r |= lmo_json_put(o, "text", TEXT(f->text));
    r |= lmo_json_put(o, "dirty_bytes_per_s", measured ? json_integer((json_int_t)f->dirty_bytes_per_s) : json_null());
    r |= lmo_json_put(o, "dirty_age_ms", measured ? json_integer((json_int_t)f->age_ms) : json_null());
    r |= lmo_json_put(o, "bandwidth_bytes_per_s",
                      f->bandwidth_bytes_per_s ? json_integer((json_int_t)f->bandwidth_bytes_per_s) : json_null());
    r |= lmo_json_put(o, "needed_ms", f->needed_ms ? json_integer((json_int_t)f->needed_ms) : json_null());
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* Null: this stage has not been reached. */
static json_t *budget_json(const struct lmo_budget *b, uint64_t base_ms, unsigned factor)
{
    char how[96];
    if (b->ms == 0) {
        return json_null();
    }
    lmo_budget_text(b, base_ms, factor, how, sizeof how);
    json_t *o = json_object();
    int r = lmo_json_put_u64(o, "ms", b->ms);
    r |= lmo_json_put_bool(o, "by_policy", b->by_policy);
    r |= lmo_json_put_str(o, "how", how);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *convergence_json(const struct lmo_migration *m)
{
    const struct lmo_convergence *c = &m->convergence;
    json_t *o = json_object();
    int r = lmo_json_put(o, "prediction", forecast_json(&c->forecast));
    r |= lmo_json_put_str(o, "stage", lmo_conv_stage_text((int)c->stage));
    r |= lmo_json_put_bool(o, "stalled", c->stalled);
    r |= lmo_json_put_u64(o, "downtime_limit_ms", m->downtime_ms);
    r |= lmo_json_put(o, "memory_timeout", budget_json(&c->memory, LMO_CONV_BASE_MS, LMO_CONV_FACTOR));
    r |= lmo_json_put(o, "disk_timeout", budget_json(&c->disk, LMO_CONV_BASE_MS, LMO_CONV_FACTOR));
    r |= lmo_json_put(o, "force_grace", budget_json(&c->grace, LMO_CONV_GRACE_BASE_MS, 1));
    r |= lmo_json_put(o, "deadline_ms", stamp_or_null(m->phase == LMO_PHASE_PRECOPY ? m->deadline_ms : 0));
    r |= lmo_json_put(o, "held_until_ms", stamp_or_null(m->phase == LMO_PHASE_QUEUED ? m->held_until_ms : 0));
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

/* The call that has been under way for longest. */
static const struct lmo_task *longest_call(const struct lmo_migration *m)
{
    const struct lmo_task *longest = NULL;
    for (unsigned i = 0; i < m->task_count; i++) {
        const struct lmo_task *t = &m->tasks[i];
        if (t->state == LMO_TASK_SENT && t->first_ms > 0 && (!longest || t->first_ms < longest->first_ms)) {
            longest = t;
        }
    }
    return longest;
}

int64_t lmo_migration_shown_until_ms(const struct lmo_migration *m)
{
    const struct lmo_task *t = m->waiting_for[0] ? NULL : longest_call(m);
    int64_t at_ms = t ? t->first_ms + LONG_CALL_MS : 0;
    return at_ms >= (int64_t)(lmo_realtime_us() / 1000) ? at_ms : 0;
}

/* What it waits for, in words: what the record says, else the call that has been under way for longest. */
static int put_waiting(json_t *o, const struct lmo_migration *m)
{
    if (m->waiting_for[0]) {
        int r = lmo_json_put(o, "waiting_for", TEXT(m->waiting_for));
        return r | lmo_json_put(o, "waiting_since_ms", stamp_or_null(m->waiting_since_ms));
    }
    const struct lmo_task *longest = longest_call(m);
    if (longest && (int64_t)(lmo_realtime_us() / 1000) - longest->first_ms <= LONG_CALL_MS) {
        longest = NULL;
    }
    char text[LMO_TEXT_MAX] = "";
    if (longest) {
        (void)snprintf(text, sizeof text, "%.60s's answer to %s", lmo_task_host(m, longest), lmo_op_info(longest->kind)->text);
    }
    int r = lmo_json_put(o, "waiting_for", TEXT(text));
    return r | lmo_json_put(o, "waiting_since_ms", longest ? stamp_or_null(longest->first_ms) : json_null());
}

/* What lists show, and the record begins with. */
static int put_summary(json_t *o, const struct lmo_migration *m)
{
    /* Who waits for a migration waits no longer once a person must look; that the record is open still, `resolve` knows. */
    bool ended = lmo_phase_is(m->phase, LMO_PHASE_TERMINAL) || m->phase == LMO_PHASE_ATTENTION;
    int r = lmo_json_put_str(o, "id", m->id);
    r |= lmo_json_put_u64(o, "version", m->version);
    r |= lmo_json_put(o, "vm", vm_json(m));
    r |= lmo_json_put(o, "source", TEXT(m->source));
    r |= lmo_json_put(o, "destination", TEXT(m->destination));
    r |= lmo_json_put(o, "drain", m->drain[0] ? TEXT(m->drain) : json_null());
    r |= lmo_json_put_str(o, "phase", lmo_phase_text(m->phase));
    r |= lmo_json_put(o, "outcome", ended ? json_string(lmo_phase_text(m->phase)) : json_null());
    r |= lmo_json_put(o, "reason", TEXT(m->reason));
    r |= lmo_json_put(o, "reason_code", m->reason_code ? json_string(lmo_err_name(m->reason_code)) : json_null());
    r |= lmo_json_put_bool(o, "cancel_requested", m->cancel_requested);
    r |= put_waiting(o, m);
    r |= lmo_json_put(o, "notice", notice_json(&m->notice));
    r |= lmo_json_put(o, "trace_id", TEXT(m->trace.id));
    r |= lmo_json_put(o, "created_ms", stamp_or_null(m->created_ms));
    return r | lmo_json_put(o, "updated_ms", stamp_or_null(m->updated_ms));
}

json_t *lmo_migration_summary(const struct lmo_migration *m)
{
    const struct lmo_cutover *c = &m->cutover;
    bool blackout = c->suspended_us && c->resumed_us;
    json_t *o = json_object(), *progress = json_object(), *cutover = json_object();
    int r = put_summary(o, m);
    r |= lmo_json_put_u64(progress, "percent", m->percent);
    r |= lmo_json_put(o, "progress", progress);
    r |= lmo_json_put(cutover, "blackout_ms",
                      blackout ? json_real((double)(c->resumed_us - c->suspended_us) / 1000.0) : json_null());
    r |= lmo_json_put(o, "cutover", cutover);
    r |= lmo_json_put(o, "queue_position", json_null()); /* of one that has none; else the engine puts it */
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

json_t *lmo_migration_to_rest(const struct lmo_migration *m)
{
    json_t *o = json_object();
    int r = put_summary(o, m);
    r |= lmo_json_put_u64(o, "epoch", m->epoch);
    r |= lmo_json_put(o, "failed_in", m->reason_code ? json_string(lmo_phase_text(m->failed_in)) : json_null());
    r |= lmo_json_put(o, "phases", phases_json(m));
    r |= lmo_json_put(o, "progress", progress_json(m));
    r |= lmo_json_put(o, "convergence", convergence_json(m));
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
