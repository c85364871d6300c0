/* record_codec.c - a migration's record as JSON for the store. See record_codec.h; rest_codec.c has the other form. */
#include "engine/record_codec.h"

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

static const struct lmo_field policy_fields[] = {
    LMO_F_UINT(lmo_policy, bandwidth_bytes_per_s, 0),
    LMO_F_UINT(lmo_policy, max_downtime_ms, 0),
    LMO_F_UINT(lmo_policy, convergence_timeout_ms, 0),
    LMO_F_BOOL(lmo_policy, accept_stateful_loss),
};
static const struct lmo_table policy_table = LMO_TABLE(policy_fields);

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
    LMO_F_BOOL(lmo_cutover, resumed),
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
    LMO_F_UINT(lmo_migration, group, 0),
    LMO_F_BOOL(lmo_migration, group_open),
    LMO_F_ARRAY(lmo_migration, tasks, task_count, task_table),
    LMO_F_BOOL(lmo_migration, switchover_ready),
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

_Static_assert(LMO_OP_COUNT <= 64, "the set of dispatched kinds is one word");

/* ------------------------------------------------------------------ the set of dispatched kinds */

static json_t *encode_dispatched(uint64_t set)
{
    json_t *array = json_array();
    for (int kind = LMO_OP_NONE + 1; array && kind < LMO_OP_COUNT; kind++) {
        if ((set >> kind & 1) && json_array_append_new(array, json_string(lmo_op_words.text(kind))) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
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

int lmo_record_encode(const struct lmo_migration *m, char **ret_text, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *root = lmo_codec_encode(&record_table, m, true);
    if (!root || json_object_set_new(root, DISPATCHED, encode_dispatched(m->dispatched)) < 0) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    LMO_AUTO_FREE char *text = NULL;
    size_t len = 0;
    int r = lmo_json_dump(root, &text, &len, err);
    if (r < 0) {
        return r;
    }
    if (len > LMO_RECORD_TEXT_MAX) {
        return lmo_fail(err, LMO_E_TOO_LARGE, "record of %zu bytes; at most %u", len, LMO_RECORD_TEXT_MAX);
    }
    *ret_text = LMO_TAKE(text);
    return 0;
}

int lmo_record_decode(const char *text, size_t len, struct lmo_migration *ret, struct lmo_err *err)
{
    struct lmo_err why = {0};
    LMO_AUTO_JSON json_t *root = NULL;
    LMO_AUTO_FREE struct lmo_migration *m = calloc(1, sizeof(*m));
    if (!m) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    int r = lmo_json_parse_object(text, len, LMO_RECORD_TEXT_MAX, &root, &why);
    if (r == 0) {
        r = lmo_codec_decode(&record_table, root, m, &why);
    }
    if (r == 0) {
        r = decode_dispatched(root, &m->dispatched, &why);
    }
    if (r == 0) {
        r = lmo_codec_check_known(&record_table, root, DISPATCHED, &why);
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
