/* peer.c - what workers say to each other at the cutover, as JSON text. */
#include "proto/peer.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "proto/codec.h"
#include "proto/op.h"

#include <stdlib.h>
#include <string.h>

static const struct lmo_field request_fields[] = {
    {LMO_F_NAME("permit"),
     .type = LMO_FIELD_OWNED,
     .offset = offsetof(struct lmo_peer_request, permit_owned),
     .size = LMO_F_SIZE(lmo_peer_request, permit_owned),
     .max = LMO_PERMIT_MAX},
    LMO_F_UINT(lmo_peer_request, index, LMO_VOLUMES_MAX - 1),
    LMO_F_UINT(lmo_peer_request, pause, 0),
};
static const struct lmo_table request_table = LMO_TABLE(request_fields);

static const struct lmo_field reply_fields[] = {
    LMO_F_TEXT(lmo_peer_reply, answer, 0),
    LMO_F_TEXT(lmo_peer_reply, evidence, 0),
    LMO_F_INT(lmo_peer_reply, frozen_us),
    LMO_F_UINT(lmo_peer_reply, duration_us, 0),
};
static const struct lmo_table reply_table = LMO_TABLE(reply_fields);

void lmo_peer_request_done(struct lmo_peer_request *r)
{
    free(r->permit_owned);
    r->permit_owned = NULL;
    r->permit = NULL;
}

int lmo_peer_request_encode(const struct lmo_peer_request *r, char **ret_text, struct lmo_err *err)
{
    if (r->permit && strnlen(r->permit, LMO_PERMIT_MAX + 1) > LMO_PERMIT_MAX) {
        return lmo_fail(err, LMO_E_TOO_LARGE, "permit: longer than %u characters", LMO_PERMIT_MAX);
    }
    struct lmo_peer_request shallow = *r; /* the encoder reads permit_owned; nothing is freed here */
    LMO_AUTO_FREE char *permit = r->permit ? strdup(r->permit) : NULL;
    if (r->permit && !permit) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    shallow.permit_owned = permit;
    return lmo_codec_dump(lmo_codec_encode(&request_table, &shallow, true), LMO_PEER_BODY_MAX, "peer message", ret_text, err);
}

int lmo_peer_request_decode(const char *text, size_t len, struct lmo_peer_request *ret, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *root = NULL;
    int e = lmo_json_parse_object(text, len, LMO_PEER_BODY_MAX, &root, err);
    if (e < 0) {
        return e;
    }
    struct lmo_peer_request r = {0};
    e = lmo_codec_decode(&request_table, root, &r, err);
    if (e < 0) {
        lmo_peer_request_done(&r);
        return e;
    }
    r.permit = r.permit_owned;
    *ret = r;
    return 0;
}

int lmo_peer_reply_encode(const struct lmo_peer_reply *r, char **ret_text, struct lmo_err *err)
{
    return lmo_codec_dump(lmo_codec_encode(&reply_table, r, true), LMO_PEER_BODY_MAX, "peer message", ret_text, err);
}

int lmo_peer_reply_decode(const char *text, size_t len, struct lmo_peer_reply *ret, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *root = NULL;
    int e = lmo_json_parse_object(text, len, LMO_PEER_BODY_MAX, &root, err);
    if (e < 0) {
        return e;
    }
    struct lmo_peer_reply r = {0};
    e = lmo_codec_decode(&reply_table, root, &r, err);
    if (e == 0) {
        *ret = r;
    }
    return e;
}
