/* vm.c - guests, volumes, ports and progress as JSON, and the words of the enums that several messages share. */
#include "proto/vm.h"

#include "base/ops.h"
#include "proto/codec.h"

#include <string.h>

/* ------------------------------------------------------------------ words */

static const char *run_state_text(int v)
{
    return v < LMO_RUN_UNKNOWN || v > LMO_RUN_PAUSED_OTHER ? NULL : lmo_run_state_name((enum lmo_run_state)v);
}

static int run_state_from_text(const char *word)
{
    return (int)lmo_run_state_from_name(word);
}
const struct lmo_words lmo_run_state_words = {run_state_text, run_state_from_text};

static const char *error_text(int v)
{
    return lmo_err_name(v);
}

static int error_from_text(const char *word)
{
    return lmo_err_from_name(word);
}
const struct lmo_words lmo_error_words = {error_text, error_from_text};

static const char *op_text(int v)
{
    return v <= LMO_OP_NONE || v >= LMO_OP_COUNT ? NULL : lmo_op_info((enum lmo_op_kind)v)->text;
}

static int op_from_text(const char *word)
{
    return (int)lmo_op_from_text(word);
}
const struct lmo_words lmo_op_words = {op_text, op_from_text};

static const char *worker_event_text(int v)
{
    return v <= LMO_WEV_NONE || v >= LMO_WEV_COUNT ? NULL : lmo_worker_event_text((enum lmo_worker_event_kind)v);
}

static int worker_event_from_text(const char *word)
{
    return (int)lmo_worker_event_from_text(word);
}
const struct lmo_words lmo_worker_event_words = {worker_event_text, worker_event_from_text};

/* ------------------------------------------------------------------ tables */

static const struct lmo_field volume_fields[] = {
    LMO_F_TEXT(lmo_volume, volume, 0),
    LMO_F_TEXT(lmo_volume, target, LMO_FIELD_REQUIRED),
    LMO_F_TEXT(lmo_volume, driver, 0),
    LMO_F_TEXT(lmo_volume, service, 0),
    LMO_F_TEXT(lmo_volume, export_name, 0),
    LMO_F_TEXT(lmo_volume, export_destination, 0),
    LMO_F_TEXT(lmo_volume, worker, LMO_FIELD_HOST),
    LMO_F_TEXT(lmo_volume, worker_url, 0),
    LMO_F_UINT(lmo_volume, size_bytes, 0),
    LMO_F_BOOL(lmo_volume, read_only),
};
const struct lmo_table lmo_volume_table = LMO_TABLE(volume_fields);

static const struct lmo_field port_fields[] = {
    LMO_F_TEXT(lmo_port, id, 0),     LMO_F_TEXT(lmo_port, mac, 0),    LMO_F_TEXT(lmo_port, bridge, 0),
    LMO_F_TEXT(lmo_port, device, 0), LMO_F_TEXT(lmo_port, fabric, 0), LMO_F_TEXT(lmo_port, worker, LMO_FIELD_HOST),
};
const struct lmo_table lmo_port_table = LMO_TABLE(port_fields);

static const struct lmo_field vm_facts_fields[] = {
    LMO_F_TEXT(lmo_vm_facts, uuid, LMO_FIELD_REQUIRED | LMO_FIELD_UUID),
    LMO_F_TEXT(lmo_vm_facts, name, 0),
    LMO_F_ENUM(lmo_vm_facts, state, lmo_run_state_words, LMO_FIELD_REQUIRED),
    LMO_F_BOOL(lmo_vm_facts, persistent),
    LMO_F_BOOL(lmo_vm_facts, autostart),
    LMO_F_UINT(lmo_vm_facts, memory_bytes, 0),
    LMO_F_UINT(lmo_vm_facts, huge_page_bytes, 0),
    LMO_F_UINT(lmo_vm_facts, vcpus, LMO_VCPUS_MAX),
    LMO_F_TEXT(lmo_vm_facts, machine, 0),
    LMO_F_TEXT(lmo_vm_facts, cpu, 0),
    LMO_F_UINT(lmo_vm_facts, dirty_bytes_per_s, 0),
    LMO_F_UINT(lmo_vm_facts, dirty_age_ms, 0),
    LMO_F_ARRAY(lmo_vm_facts, volumes, volume_count, lmo_volume_table),
    LMO_F_ARRAY(lmo_vm_facts, ports, port_count, lmo_port_table),
    LMO_F_TEXT(lmo_vm_facts, blocker, 0),
    LMO_F_TEXT(lmo_vm_facts, blocker_kinds, 0),
};
const struct lmo_table lmo_vm_facts_table = LMO_TABLE(vm_facts_fields);

static const struct lmo_field progress_fields[] = {
    LMO_F_UINT(lmo_progress, total_bytes, 0),           LMO_F_UINT(lmo_progress, transferred_bytes, 0),
    LMO_F_UINT(lmo_progress, remaining_bytes, 0),       LMO_F_UINT(lmo_progress, rate_bytes_per_s, 0),
    LMO_F_UINT(lmo_progress, dirty_bytes_per_s, 0),     LMO_F_UINT(lmo_progress, iteration, 0),
    LMO_F_UINT(lmo_progress, throttle_percent, 100),    LMO_F_UINT(lmo_progress, downtime_limit_ms, 0),
    LMO_F_UINT(lmo_progress, bandwidth_bytes_per_s, 0), LMO_F_UINT(lmo_progress, elapsed_ms, 0),
    LMO_F_UINT(lmo_progress, disk_total_bytes, 0),      LMO_F_UINT(lmo_progress, disk_transferred_bytes, 0),
    LMO_F_UINT(lmo_progress, disk_remaining_bytes, 0),  LMO_F_UINT(lmo_progress, disk_rate_bytes_per_s, 0),
};
const struct lmo_table lmo_progress_table = LMO_TABLE(progress_fields);

/* ------------------------------------------------------------------ messages */

json_t *lmo_volume_to_json(const struct lmo_volume *v)
{
    return lmo_codec_encode(&lmo_volume_table, v, false);
}

int lmo_volume_from_json(const json_t *j, struct lmo_volume *ret, struct lmo_err *err)
{
    struct lmo_volume v = {0};
    int r = lmo_codec_decode(&lmo_volume_table, j, &v, err);
    if (r == 0) {
        *ret = v;
    }
    return r;
}

json_t *lmo_port_to_json(const struct lmo_port *p)
{
    return lmo_codec_encode(&lmo_port_table, p, false);
}

int lmo_port_from_json(const json_t *j, struct lmo_port *ret, struct lmo_err *err)
{
    struct lmo_port p = {0};
    int r = lmo_codec_decode(&lmo_port_table, j, &p, err);
    if (r == 0) {
        *ret = p;
    }
    return r;
}

json_t *lmo_vm_facts_to_json(const struct lmo_vm_facts *f)
{
    return lmo_codec_encode(&lmo_vm_facts_table, f, false);
}

int lmo_vm_facts_from_json(const json_t *j, struct lmo_vm_facts *ret, struct lmo_err *err)
{
    struct lmo_vm_facts f = {0};
    int r = lmo_codec_decode(&lmo_vm_facts_table, j, &f, err);
    if (r == 0) {
        *ret = f;
    }
    return r;
}

json_t *lmo_progress_to_json(const struct lmo_progress *p)
{
    return lmo_codec_encode(&lmo_progress_table, p, false);
}

int lmo_progress_from_json(const json_t *j, struct lmo_progress *ret, struct lmo_err *err)
{
    struct lmo_progress p = {0};
    int r = lmo_codec_decode(&lmo_progress_table, j, &p, err);
    if (r == 0) {
        *ret = p;
    }
    return r;
}
