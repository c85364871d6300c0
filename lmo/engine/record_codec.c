/* record_codec.c - a migration's record as JSON for the store. See record_codec.h; rest_codec.c has the other form. */
#include "engine/record_codec.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "proto/codec.h"

#include <string.h>

/* ------------------------------------------------------------------ words */

static const char *phase_text(int v)
{
    return v < 0 || v >= LMO_PHASE_COUNT ? NULL : lmo_phase_text((enum lmo_phase)v);
}

static int phase_from_text(const char *word)
{
    return (int)lmo_phase_from_text(word);
}
static const struct lmo_words phase_words = {phase_text, phase_from_text};

static const char *task_state_text(int v)
{
    return v < LMO_TASK_WAITING || v > LMO_TASK_DONE ? NULL : lmo_task_state_text((enum lmo_task_state)v);
}

static int task_state_from_text(const char *word)
{
    return (int)lmo_task_state_from_text(word);
}
static const struct lmo_words task_state_words = {task_state_text, task_state_from_text};

static const struct lmo_words on_timeout_words = {lmo_on_timeout_text, lmo_on_timeout_from_text};
static const struct lmo_words prediction_words = {lmo_prediction_text, lmo_prediction_from_text};
static const struct lmo_words outlook_words = {lmo_outlook_text, lmo_outlook_from_text};
static const struct lmo_words conv_stage_words = {lmo_conv_stage_text, lmo_conv_stage_from_text};
static const struct lmo_words eta_kind_words = {lmo_eta_kind_text, lmo_eta_kind_from_text};

/* ------------------------------------------------------------------ tables */

static const struct lmo_field task_fields[] = {
    LMO_F_ENUM(lmo_task, kind, lmo_op_words, LMO_FIELD_REQUIRED),
    LMO_F_ENUM(lmo_task, state, task_state_words, LMO_FIELD_REQUIRED),
    LMO_F_UINT(lmo_task, group, 0),
    LMO_F_UINT(lmo_task, index, 0),
    LMO_F_BOOL(lmo_task, draining),
    LMO_F_UINT(lmo_task, attempts, 0),
    LMO_F_UINT(lmo_task, ordinal, 0),
    LMO_F_UINT(lmo_task, epoch, 0),
    LMO_F_INT(lmo_task, first_ms),
    LMO_F_INT(lmo_task, not_before_ms),
    LMO_F_TEXT(lmo_task, last_error, 0),
};
static const struct lmo_table task_table = LMO_TABLE(task_fields);

static const char *resource_text(int v)
{
    return v <= LMO_RES_NONE || v >= LMO_RES_COUNT ? NULL : lmo_resource_text((enum lmo_resource_kind)v);
}

static int resource_from_text(const char *word)
{
    return (int)lmo_resource_from_text(word);
}
static const struct lmo_words resource_words = {resource_text, resource_from_text};

static const struct lmo_field resource_fields[] = {
    LMO_F_ENUM(lmo_resource, kind, resource_words, LMO_FIELD_REQUIRED),
    LMO_F_UINT(lmo_resource, intended, 0),
    LMO_F_UINT(lmo_resource, made, 0),
    LMO_F_UINT(lmo_resource, undone, 0),
};
static const struct lmo_table resource_table = LMO_TABLE(resource_fields);

static const struct lmo_field policy_fields[] = {
    LMO_F_UINT(lmo_policy, bandwidth_bytes_per_s, 0),
    LMO_F_UINT(lmo_policy, max_downtime_ms, 0),
    LMO_F_UINT(lmo_policy, convergence_timeout_ms, 0),
    LMO_F_UINT(lmo_policy, disk_timeout_ms, 0),
    LMO_F_BOOL(lmo_policy, accept_stateful_loss),
    LMO_F_BOOL(lmo_policy, allow_throttle),
    LMO_F_UINT(lmo_policy, throttle_initial_percent, 99),
    LMO_F_UINT(lmo_policy, throttle_increment_percent, 99),
    LMO_F_ENUM(lmo_policy, on_timeout, on_timeout_words, 0),
    LMO_F_UINT(lmo_policy, force_max_pause_ms, 0),
    LMO_F_ENUM(lmo_policy, prediction, prediction_words, 0),
};
static const struct lmo_table policy_table = LMO_TABLE(policy_fields);

static const struct lmo_field forecast_fields[] = {
    LMO_F_ENUM(lmo_forecast, outlook, outlook_words, 0),
    LMO_F_UINT(lmo_forecast, dirty_bytes_per_s, 0),
    LMO_F_UINT(lmo_forecast, bandwidth_bytes_per_s, 0),
    LMO_F_UINT(lmo_forecast, age_ms, 0),
    LMO_F_UINT(lmo_forecast, needed_ms, 0),
    LMO_F_TEXT(lmo_forecast, text, 0),
};
static const struct lmo_table forecast_table = LMO_TABLE(forecast_fields);

static const struct lmo_field budget_fields[] = {
    LMO_F_UINT(lmo_budget, ms, 0),
    LMO_F_BOOL(lmo_budget, by_policy),
    LMO_F_UINT(lmo_budget, bytes, 0),
    LMO_F_UINT(lmo_budget, bandwidth_bytes_per_s, 0),
    LMO_F_BOOL(lmo_budget, nominal),
};
static const struct lmo_table budget_table = LMO_TABLE(budget_fields);

static const struct lmo_field pass_fields[] = {
    LMO_F_UINT(lmo_pass, number, 0),
    LMO_F_UINT(lmo_pass, rest_bytes, 0),
};
static const struct lmo_table pass_table = LMO_TABLE(pass_fields);

static const struct lmo_field eta_fields[] = {
    LMO_F_ENUM(lmo_eta, kind, eta_kind_words, 0),
    LMO_F_UINT(lmo_eta, revision, 0),
    LMO_F_INT(lmo_eta, low_ms),
    LMO_F_INT(lmo_eta, high_ms),
    LMO_F_UINT(lmo_eta, bandwidth_bytes_per_s, 0),
};
static const struct lmo_table eta_table = LMO_TABLE(eta_fields);

static const struct lmo_field convergence_fields[] = {
    LMO_F_STRUCT(lmo_convergence, forecast, forecast_table),
    LMO_F_ENUM(lmo_convergence, stage, conv_stage_words, 0),
    LMO_F_INT(lmo_convergence, began_ms),
    LMO_F_INT(lmo_convergence, stage_ms),
    LMO_F_STRUCT(lmo_convergence, disk, budget_table),
    LMO_F_STRUCT(lmo_convergence, memory, budget_table),
    LMO_F_STRUCT(lmo_convergence, grace, budget_table),
    LMO_F_UINT(lmo_convergence, samples, 0),
    LMO_F_UINT(lmo_convergence, pass_bytes, 0),
    LMO_F_ARRAY(lmo_convergence, passes, pass_count, pass_table),
    LMO_F_UINT(lmo_convergence, unimproved, 0),
    LMO_F_BOOL(lmo_convergence, stalled),
    LMO_F_BOOL(lmo_convergence, reorder),
    LMO_F_STRUCT(lmo_convergence, eta, eta_table),
};
static const struct lmo_table convergence_table = LMO_TABLE(convergence_fields);

static const struct lmo_field phase_time_fields[] = {
    LMO_F_ENUM(lmo_phase_time, phase, phase_words, LMO_FIELD_REQUIRED),
    LMO_F_INT(lmo_phase_time, started_ms),
    LMO_F_INT(lmo_phase_time, ended_ms),
    LMO_F_UINT(lmo_phase_time, us, 0),
};
static const struct lmo_table phase_time_table = LMO_TABLE(phase_time_fields);

static const struct lmo_field cutover_fields[] = {
    LMO_F_INT(lmo_cutover, suspended_us),  LMO_F_INT(lmo_cutover, loaded_us),
    LMO_F_INT(lmo_cutover, frozen_us),     LMO_F_INT(lmo_cutover, fenced_us),
    LMO_F_INT(lmo_cutover, resumed_us),    LMO_F_UINT(lmo_cutover, loaded_to_resumed_us, 0),
    LMO_F_UINT(lmo_cutover, freeze_us, 0), LMO_F_UINT(lmo_cutover, fence_us, 0),
    LMO_F_UINT(lmo_cutover, verify_us, 0), LMO_F_TEXT(lmo_cutover, freeze_answer, 0),
    LMO_F_TEXT(lmo_cutover, evidence, 0),  LMO_F_BOOL(lmo_cutover, committed),
    LMO_F_BOOL(lmo_cutover, resumed),      LMO_F_BOOL(lmo_cutover, defined),
};
static const struct lmo_table cutover_table = LMO_TABLE(cutover_fields);

static const struct lmo_field clock_sample_fields[] = {
    LMO_F_INT(lmo_clock_sample, stamp_us),
    LMO_F_INT(lmo_clock_sample, from_ms),
    LMO_F_INT(lmo_clock_sample, to_ms),
};
static const struct lmo_table clock_sample_table = LMO_TABLE(clock_sample_fields);

static const struct lmo_field record_fields[] = {
    LMO_F_TEXT(lmo_migration, id, LMO_FIELD_REQUIRED | LMO_FIELD_ULID),
    LMO_F_UINT(lmo_migration, version, 0),
    LMO_F_TEXT(lmo_migration, source, 0),
    LMO_F_TEXT(lmo_migration, destination, LMO_FIELD_REQUIRED),
    LMO_F_UINT(lmo_migration, epoch, 0),
    LMO_F_ENUM(lmo_migration, phase, phase_words, LMO_FIELD_REQUIRED),
    LMO_F_ENUM(lmo_migration, failed_in, phase_words, 0),
    LMO_F_ENUM(lmo_migration, reason_code, lmo_error_words, 0),
    LMO_F_TEXT(lmo_migration, reason, 0),
    LMO_F_TEXT(lmo_migration, waiting_for, 0),
    LMO_F_INT(lmo_migration, waiting_since_ms),
    LMO_F_BOOL(lmo_migration, cancel_requested),
    LMO_F_INT(lmo_migration, created_ms),
    LMO_F_INT(lmo_migration, updated_ms),
    LMO_F_INT(lmo_migration, phase_started_ms),
    LMO_F_UINT(lmo_migration, phase_started_boot_us, 0),
    LMO_F_INT(lmo_migration, deadline_ms),
    LMO_F_STRUCT(lmo_migration, policy, policy_table),
    LMO_F_STRUCT(lmo_migration, vm, lmo_vm_facts_table),
    LMO_F_TEXT(lmo_migration, peer_uri, 0),
    LMO_F_TEXT(lmo_migration, migration_uri, 0),
    LMO_F_TEXT(lmo_migration, source_url, 0),
    LMO_F_TEXT(lmo_migration, destination_url, 0),
    LMO_F_STRUCT(lmo_migration, source_clock, clock_sample_table),
    LMO_F_UINT(lmo_migration, next_ordinal, 0),
    /* dispatched: a set of op kinds, stored as their words; see below */
    LMO_F_ARRAY(lmo_migration, resources, resource_count, resource_table),
    LMO_F_UINT(lmo_migration, group, 0),
    LMO_F_BOOL(lmo_migration, group_open),
    LMO_F_ARRAY(lmo_migration, tasks, task_count, task_table),
    LMO_F_BOOL(lmo_migration, switchover_ready),
    LMO_F_INT(lmo_migration, held_since_ms),
    LMO_F_INT(lmo_migration, held_until_ms),
    LMO_F_STRUCT(lmo_migration, convergence, convergence_table),
    LMO_F_UINT(lmo_migration, share_bytes_per_s, 0),
    LMO_F_UINT(lmo_migration, share_held_bytes_per_s, 0),
    LMO_F_BOOL(lmo_migration, gate_open),
    LMO_F_UINT(lmo_migration, downtime_ms, 0),
    LMO_F_UINT(lmo_migration, downtime_iteration, 0),
    LMO_F_BOOL(lmo_migration, job_ended),
    LMO_F_BOOL(lmo_migration, job_call_ok),
    LMO_F_UINT(lmo_migration, job_call_ms, 0),
    LMO_F_BOOL(lmo_migration, destination_discarded),
    LMO_F_STRUCT(lmo_migration, progress, lmo_progress_table),
    LMO_F_UINT(lmo_migration, percent, 100),
    LMO_F_STRUCT(lmo_migration, cutover, cutover_table),
    LMO_F_ARRAY(lmo_migration, phase_times, phase_time_count, phase_time_table),
};
static const struct lmo_table record_table = LMO_TABLE(record_fields);

#define DISPATCHED "dispatched"
#define TEXT_USUAL 6144 /* bytes that most records need at most */

_Static_assert(LMO_OP_COUNT <= 64, "the set of dispatched kinds is one word");

/* ------------------------------------------------------------------ the set of dispatched kinds */

/* The last member of the record's object, which is left open for it. */
static int write_dispatched(uint64_t set, struct lmo_buf *buf)
{
    int r = lmo_buf_append_str(buf, ",\"" DISPATCHED "\":[");
    const char *before = "\"";
    for (int kind = LMO_OP_NONE + 1; r == 0 && kind < LMO_OP_COUNT; kind++) {
        if (set >> kind & 1) {
            r = lmo_buf_append_str(buf, before);
            r = r < 0 ? r : lmo_buf_append_str(buf, lmo_op_words.text(kind));
            before = "\",\"";
        }
    }
    return r < 0 ? r : lmo_buf_append_str(buf, before[1] ? "\"]}" : "]}");
}

static int decode_dispatched(const json_t *root, uint64_t *ret, struct lmo_err *err)
{
    const json_t *array = NULL;
    int r = lmo_json_array(root, DISPATCHED, LMO_OP_COUNT, &array, false, err);
    if (r < 0 || !array) {
        return r;
    }
    uint64_t set = 0;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *word = json_string_value(json_array_get(array, i));
        int kind = word ? lmo_op_words.from_text(word) : LMO_OP_NONE;
        if (kind == LMO_OP_NONE) {
            return lmo_fail(err, LMO_E_INVALID, DISPATCHED "[%zu]: not an operation known here", i);
        }
        set |= UINT64_C(1) << kind;
    }
    *ret = set;
    return 0;
}

/* ------------------------------------------------------------------ whole records */

int lmo_record_write(const struct lmo_migration *m, struct lmo_buf *buf, struct lmo_err *err)
{
    lmo_buf_reset(buf);
    int r = lmo_buf_reserve(buf, TEXT_USUAL);
    if (r == 0) {
        r = lmo_codec_write(&record_table, m, true, buf);
    }
    if (r == 0) {
        lmo_assert(buf->len > 2 && buf->data[buf->len - 1] == '}'); /* not empty: it has required members */
        buf->len--;
        r = write_dispatched(m->dispatched, buf);
    }
    if (r == LMO_E_TOO_LARGE) {
        return lmo_fail(err, r, "record of more than %u bytes", LMO_RECORD_TEXT_MAX);
    }
    return r < 0 ? lmo_fail(err, r, "out of memory") : 0;
}

int lmo_record_encode(const struct lmo_migration *m, char **ret_text, struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf buf = LMO_BUF_INIT(LMO_RECORD_TEXT_MAX);
    int r = lmo_record_write(m, &buf, err);
    char *text = r == 0 ? lmo_buf_take(&buf, NULL) : NULL;
    if (r == 0 && !text) {
        r = lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    if (r == 0) {
        *ret_text = text;
    }
    return r;
}

/* The usual: a record as lmo_record_write writes it, with nothing in it that needs an escape. */
static bool read_usual(const char *text, size_t len, struct lmo_migration *m)
{
    struct lmo_span words = {0};
    if (lmo_codec_read(&record_table, text, len, DISPATCHED, m, &words) < 0) {
        return false;
    }
    int kind = LMO_OP_NONE; /* of the word before: they stand in order */
    for (size_t at = 1; at + 1 < words.len;) {
        const char *word = words.at + at + 1, *end = memchr(word, '"', words.len - at - 1);
        size_t size = (size_t)(end - word);
        do {
            if (++kind == LMO_OP_COUNT) {
                return false;
            }
        } while (strncmp(lmo_op_words.text(kind), word, size) != 0 || lmo_op_words.text(kind)[size] != '\0');
        m->dispatched |= UINT64_C(1) << kind;
        at += size + 3; /* "word", */
    }
    return true;
}

static int decode_tree(const char *text, size_t len, struct lmo_migration *m, struct lmo_err *why)
{
    LMO_AUTO_JSON json_t *root = NULL;
    int r = lmo_json_parse_object(text, len, LMO_RECORD_TEXT_MAX, &root, why);
    if (r == 0) {
        r = lmo_codec_decode(&record_table, root, m, why);
    }
    if (r == 0) {
        r = decode_dispatched(root, &m->dispatched, why);
    }
    if (r == 0) {
        r = lmo_codec_check_known(&record_table, root, DISPATCHED, why);
    }
    return r;
}

int lmo_record_decode(const char *text, size_t len, struct lmo_migration *ret, struct lmo_err *err)
{
    struct lmo_err why = {0};
    LMO_AUTO_FREE struct lmo_migration *m = calloc(1, sizeof(*m));
    if (!m) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    int r = 0;
    if (len > LMO_RECORD_TEXT_MAX || !read_usual(text, len, m)) {
        memset(m, 0, sizeof(*m));
        r = decode_tree(text, len, m, &why);
    }
    if (r == 0 && m->resource_count == 0 && m->dispatched != 0 && !lmo_phase_is(m->phase, LMO_PHASE_TERMINAL)) {
        lmo_resources_derive(m);
    }
    if (r == LMO_E_NO_MEMORY) {
        return lmo_fail(err, r, "out of memory");
    }
    if (r < 0) {
        return lmo_fail(err, LMO_E_CORRUPT, "stored record: %s", why.text);
    }
    *ret = *m;
    return 0;
}
