/* stream.c - a worker's event as JSON. */
#include "proto/stream.h"

#include "proto/codec.h"

static const struct lmo_field event_fields[] = {
    LMO_F_ENUM(lmo_worker_event, kind, lmo_worker_event_words, LMO_FIELD_REQUIRED),
    LMO_F_TEXT(lmo_worker_event, migration, LMO_FIELD_ULID),
    LMO_F_TEXT(lmo_worker_event, vm, LMO_FIELD_UUID),
    LMO_F_UINT(lmo_worker_event, epoch, 0),
    LMO_F_UINT(lmo_worker_event, seq, 0),
    LMO_F_INT(lmo_worker_event, at_us),
    LMO_F_BOOL(lmo_worker_event, ok),
    LMO_F_TEXT(lmo_worker_event, text, 0),
    LMO_F_TEXT(lmo_worker_event, evidence, 0),
    LMO_F_ENUM(lmo_worker_event, state, lmo_run_state_words, 0),
    LMO_F_UINT(lmo_worker_event, duration_us, 0),
    LMO_F_UINT(lmo_worker_event, fence_us, 0),
    LMO_F_UINT(lmo_worker_event, verify_us, 0),
    LMO_F_TEXT(lmo_worker_event, answer, 0),
};
static const struct lmo_table event_table = LMO_TABLE(event_fields);

static const struct lmo_field event_progress_fields[] = {
    LMO_F_STRUCT(lmo_worker_event, progress, lmo_progress_table),
};
static const struct lmo_table event_progress_table = LMO_TABLE(event_progress_fields);

json_t *lmo_worker_event_to_json(const struct lmo_worker_event *e)
{
    json_t *j = lmo_codec_encode(&event_table, e, true);
    if (j && e->kind == LMO_WEV_PROGRESS &&
        json_object_set_new(j, "progress", lmo_codec_encode(&lmo_progress_table, &e->progress, true)) < 0) {
        json_decref(j);
        return NULL;
    }
    return j;
}

int lmo_worker_event_from_json(const json_t *j, struct lmo_worker_event *ret, struct lmo_err *err)
{
    struct lmo_worker_event e = {0};
    int r = lmo_codec_decode(&event_table, j, &e, err);
    if (r == 0 && e.kind == LMO_WEV_PROGRESS) {
        r = lmo_codec_decode(&event_progress_table, j, &e, err);
    }
    if (r == 0) {
        *ret = e;
    }
    return r;
}
