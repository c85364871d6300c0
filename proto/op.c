/* op.c - op requests and replies as JSON text. */
#include "proto/op.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "proto/codec.h"

#include <stdlib.h>
#include <string.h>

static const char *op_state_text(int v)
{
    switch (v) {
    case LMO_OP_RUNNING: return "running";
    case LMO_OP_DONE: return "done";
    case LMO_OP_FAILED: return "failed";
    default: return NULL;
    }
}

static int op_state_from_text(const char *word)
{
    for (int v = LMO_OP_RUNNING; v <= LMO_OP_FAILED; v++) {
        if (strcmp(op_state_text(v), word) == 0) {
            return v;
        }
    }
    return -1;
}
static const struct lmo_words op_state_words = {op_state_text, op_state_from_text};

static const struct lmo_field request_fields[] = {
    LMO_F_TEXT(lmo_op_request, id, LMO_FIELD_REQUIRED | LMO_FIELD_OP_ID),
    LMO_F_ENUM(lmo_op_request, kind, lmo_op_words, LMO_FIELD_REQUIRED),
    LMO_F_TEXT(lmo_op_request, migration, LMO_FIELD_ULID),
    LMO_F_TEXT(lmo_op_request, vm, LMO_FIELD_UUID),
    LMO_F_TEXT(lmo_op_request, vm_name, 0),
    LMO_F_UINT(lmo_op_request, epoch, 0),
    LMO_F_TEXT(lmo_op_request, source, LMO_FIELD_HOST),
    LMO_F_TEXT(lmo_op_request, destination, LMO_FIELD_HOST),
    LMO_F_TEXT(lmo_op_request, source_url, 0),
    LMO_F_TEXT(lmo_op_request, destination_url, 0),
    LMO_F_TEXT(lmo_op_request, peer_uri, 0),
    LMO_F_TEXT(lmo_op_request, migration_uri, 0),
    LMO_F_TEXT(lmo_op_request, link, LMO_FIELD_HOST),
    LMO_F_TEXT(lmo_op_request, host, LMO_FIELD_HOST),
    LMO_F_TEXT(lmo_op_request, path, 0),
    LMO_F_TEXT(lmo_op_request, format, 0),
    LMO_F_TEXT(lmo_op_request, answer, 0),
    LMO_F_TEXT(lmo_op_request, evidence, 0),
    LMO_F_ARRAY(lmo_op_request, volumes, volume_count, lmo_volume_table),
    LMO_F_ARRAY(lmo_op_request, ports, port_count, lmo_port_table),
    LMO_F_BOOL(lmo_op_request, persistent),
    LMO_F_BOOL(lmo_op_request, autostart),
    LMO_F_BOOL(lmo_op_request, shut_off),
    LMO_F_BOOL(lmo_op_request, accept_stateful_loss),
    LMO_F_ENUM(lmo_op_request, final_state, lmo_run_state_words, 0),
    LMO_F_UINT(lmo_op_request, memory_bytes, 0),
    LMO_F_UINT(lmo_op_request, bandwidth_bytes_per_s, 0),
    LMO_F_UINT(lmo_op_request, downtime_ms, 0),
    LMO_F_UINT(lmo_op_request, dirty_fresh_ms, 0),
    LMO_F_UINT(lmo_op_request, throttle_initial_percent, 99),
    LMO_F_UINT(lmo_op_request, throttle_increment_percent, 99),
    LMO_F_UINT(lmo_op_request, deadman_ms, 0),
    LMO_F_OWNED(lmo_op_request, xml, LMO_XML_MAX),
    LMO_F_OWNED(lmo_op_request, permit, LMO_PERMIT_MAX),
};
static const struct lmo_table request_table = LMO_TABLE(request_fields);

static const struct lmo_field reply_fields[] = {
    LMO_F_TEXT(lmo_op_reply, id, LMO_FIELD_REQUIRED | LMO_FIELD_OP_ID),
    LMO_F_ENUM(lmo_op_reply, state, op_state_words, LMO_FIELD_REQUIRED),
    LMO_F_ENUM(lmo_op_reply, code, lmo_error_words, 0),
    LMO_F_TEXT(lmo_op_reply, text, 0),
    LMO_F_TEXT(lmo_op_reply, export_name, 0),
    LMO_F_TEXT(lmo_op_reply, answer, 0),
    LMO_F_TEXT(lmo_op_reply, evidence, 0),
    LMO_F_INT(lmo_op_reply, realtime_us),
    LMO_F_OWNED(lmo_op_reply, xml, LMO_XML_MAX),
};
static const struct lmo_table reply_table = LMO_TABLE(reply_fields);

static const struct lmo_field reply_facts_fields[] = {
    LMO_F_STRUCT(lmo_op_reply, facts, lmo_vm_facts_table),
};
static const struct lmo_table reply_facts_table = LMO_TABLE(reply_facts_fields);

static int too_long(const char *text, size_t max, const char *field, struct lmo_err *err)
{
    return text && strnlen(text, max + 1) > max
               ? lmo_fail(err, LMO_E_TOO_LARGE, "%s: longer than %zu characters", field, max)
               : 0;
}

void lmo_op_request_clear(struct lmo_op_request *r)
{
    memset(r, 0, offsetof(struct lmo_op_request, volumes));
    r->port_count = 0;
    memset((char *)r + offsetof(struct lmo_op_request, persistent), 0,
           sizeof *r - offsetof(struct lmo_op_request, persistent));
}

void lmo_op_request_done(struct lmo_op_request *r)
{
    free(r->xml);
    free(r->permit);
    r->xml = r->permit = NULL;
}

int lmo_op_request_encode(const struct lmo_op_request *r, char **ret_text, struct lmo_err *err)
{
    int e = too_long(r->xml, LMO_XML_MAX, "xml", err);
    if (e == 0) {
        e = too_long(r->permit, LMO_PERMIT_MAX, "permit", err);
    }
    return e < 0 ? e : lmo_codec_dump(lmo_codec_encode(&request_table, r, true), LMO_OP_BODY_MAX, "op message", ret_text, err);
}

int lmo_op_request_decode(const char *text, size_t len, struct lmo_op_request *ret, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *root = NULL;
    int e = lmo_json_parse_object(text, len, LMO_OP_BODY_MAX, &root, err);
    if (e < 0) {
        return e;
    }
    struct lmo_op_request r = {0};
    e = lmo_codec_decode(&request_table, root, &r, err);
    if (e < 0) {
        lmo_op_request_done(&r);
        return e;
    }
    *ret = r;
    return 0;
}

void lmo_op_reply_done(struct lmo_op_reply *r)
{
    free(r->xml);
    r->xml = NULL;
}

int lmo_op_reply_encode(const struct lmo_op_reply *r, char **ret_text, struct lmo_err *err)
{
    int e = too_long(r->xml, LMO_XML_MAX, "xml", err);
    if (e < 0) {
        return e;
    }
    json_t *j = lmo_codec_encode(&reply_table, r, true);
    if (j && r->has_facts &&
        json_object_set_new(j, "facts", lmo_codec_encode(&lmo_vm_facts_table, &r->facts, true)) < 0) {
        json_decref(j);
        j = NULL;
    }
    return lmo_codec_dump(j, LMO_OP_BODY_MAX, "op message", ret_text, err);
}

int lmo_op_reply_decode(const char *text, size_t len, struct lmo_op_reply *ret, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *root = NULL;
    int e = lmo_json_parse_object(text, len, LMO_OP_BODY_MAX, &root, err);
    if (e < 0) {
        return e;
    }
    struct lmo_op_reply r = {0};
    const json_t *facts = json_object_get(root, "facts");
    r.has_facts = facts && !json_is_null(facts);
    e = lmo_codec_decode(&reply_table, root, &r, err);
    if (e == 0 && r.has_facts) {
        e = lmo_codec_decode(&reply_facts_table, root, &r, err);
    }
    if (e == 0 && (r.state == LMO_OP_FAILED) != (r.code != LMO_E_OK)) {
        e = lmo_fail(err, LMO_E_INVALID,
                     r.code ? "code: given, but the op did not fail" : "code: is missing for an op that failed");
    }
    if (e < 0) {
        lmo_op_reply_done(&r);
        return e;
    }
    *ret = r;
    return 0;
}
