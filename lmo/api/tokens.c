/* tokens.c - bearer tokens: lmo_<id>_<secret>, where the secret is 256 random bits, shown once, and kept as its SHA-256
 * alone. A fast hash is right for it: nothing that can be guessed is behind it. */
#include "api/internal.h"

#include "base/id.h"
#include "base/json.h"
#include "base/str.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define PREFIX        "lmo_"
#define SECRET_BYTES  32
#define SECRET_DIGITS (2 * SECRET_BYTES)
#define TOKEN_MAX     (sizeof(PREFIX) + LMO_ID_MAX + SECRET_DIGITS + 1)
#define LIFE_MIN_S    60U
#define LIFE_MAX_S    (366U * 24 * 3600)
#define LIFE_S        (90U * 24 * 3600)

static void to_hex(const unsigned char *raw, size_t len, char *ret)
{
    for (size_t i = 0; i < len; i++) {
        snprintf(ret + 2 * i, 3, "%02x", raw[i]);
    }
}

static bool hash_secret(const char *secret, char ret[65])
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    size_t len = 0;
    if (EVP_Q_digest(NULL, "SHA256", NULL, secret, strlen(secret), raw, &len) != 1 || len != 32) {
        return false;
    }
    to_hex(raw, len, ret);
    return true;
}

/* As long for texts that differ at the first byte as for those that differ at the last. */
static bool same(const char *a, const char *b, size_t len)
{
    unsigned char differ = 0;
    for (size_t i = 0; i < len; i++) {
        differ |= (unsigned char)(a[i] ^ b[i]);
    }
    return differ == 0;
}

int token_peer(void *arg, const char *token, struct lmo_identity *ret_peer, struct lmo_err *err)
{
    struct lmo_api *api = arg;
    struct lmo_token_row row;
    char id[LMO_ID_MAX], hash[65];
    size_t prefix = sizeof(PREFIX) - 1, id_len = LMO_ID_MAX - 1;
    if (strlen(token) != prefix + id_len + 1 + SECRET_DIGITS || strncmp(token, PREFIX, prefix) != 0 ||
        token[prefix + id_len] != '_') {
        return lmo_fail(err, LMO_E_UNAUTHENTICATED, "the bearer token is none of this coordinator's");
    }
    snprintf(id, sizeof(id), "%.*s", (int)id_len, token + prefix);
    bool known = lmo_engine_token_find(api->engine, id, &row);
    if (!hash_secret(token + prefix + id_len + 1, hash) || !known || !same(hash, row.hash, sizeof(hash) - 1)) {
        return lmo_fail(err, LMO_E_UNAUTHENTICATED, "the bearer token is unknown, revoked or has expired");
    }
    *ret_peer = (struct lmo_identity){.role = lmo_role_from_name(row.role), .by_token = true};
    LMO_COPY(ret_peer->name, row.name);
    return 0;
}

/* ------------------------------------------------------------------ requests */

struct token_body {
    char name[LMO_NAME_MAX], role[32];
    uint32_t expires_in_s;
};
static const struct lmo_field token_fields[] = {
    LMO_F_TEXT(token_body, name, LMO_FIELD_REQUIRED | LMO_FIELD_HOST),
    LMO_F_TEXT(token_body, role, LMO_FIELD_REQUIRED),
    LMO_F_UINT(token_body, expires_in_s, LIFE_MAX_S),
};
static const struct lmo_table token_table = LMO_TABLE(token_fields);

/* A token that is being made: its secret waits here for the answer, and is nowhere afterwards. */
struct making {
    struct lmo_http_request *req;
    char id[LMO_ID_MAX], token[TOKEN_MAX];
};

/* The secret goes into this one answer. A repeat under an idempotency key gets the same token without it: it was shown
 * once, and what was shown is not kept. */
static void on_made(void *arg, const struct lmo_engine_reply *reply)
{
    struct making *m = arg;
    struct lmo_engine_reply out = *reply;
    const char *id = json_string_value(json_object_get(reply->body, "id"));
    if (reply->code == 0 && id && strcmp(id, m->id) == 0) {
        (void)lmo_json_put_str(reply->body, "token", m->token);
        out.json = NULL;
    }
    reply_to_request(m->req, &out);
    explicit_bzero(m, sizeof(*m));
    free(m);
}

static bool is_token_role(const char *role)
{
    enum lmo_role r = lmo_role_from_name(role);
    return r != LMO_ROLE_NONE && (LMO_API_ALL >> r & 1U);
}

void token_create(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct token_body body = {.expires_in_s = LIFE_S};
    struct lmo_token_row row = {0};
    unsigned char raw[SECRET_BYTES];
    char secret[SECRET_DIGITS + 1];
    (void)params;
    if (!read_body(req, &token_table, &body, NULL)) {
        return;
    }
    if (!is_token_role(body.role)) {
        refuse(req, LMO_E_INVALID, "role", "role: must be operator, control-plane, viewer or fault-injector");
        return;
    }
    if (body.expires_in_s < LIFE_MIN_S) {
        refuse(req, LMO_E_INVALID, "expires_in_s", "expires_in_s: must be an integer from %u to %u", LIFE_MIN_S, LIFE_MAX_S);
        return;
    }
    struct making *m = calloc(1, sizeof(*m));
    if (!m) {
        refuse(req, LMO_E_NO_MEMORY, "", "no memory for the token");
        return;
    }
    lmo_ulid_generate(row.id);
    lmo_random(raw, sizeof(raw));
    to_hex(raw, sizeof(raw), secret);
    LMO_COPY(row.name, body.name);
    LMO_COPY(row.role, body.role);
    row.expires_ms = (int64_t)body.expires_in_s * 1000;
    principal_of(req, row.created_by, sizeof(row.created_by));
    m->req = req;
    LMO_COPY(m->id, row.id);
    snprintf(m->token, sizeof(m->token), PREFIX "%s_%s", row.id, secret);
    int r = hash_secret(secret, row.hash) ? lmo_engine_token_add(((struct lmo_api *)api)->engine, &row, on_made, m)
                                          : LMO_E_INTERNAL;
    explicit_bzero(raw, sizeof(raw));
    explicit_bzero(secret, sizeof(secret));
    if (r < 0) {
        explicit_bzero(m, sizeof(*m));
        free(m);
    }
    asked(req, r);
}

void token_list(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct lmo_page page;
    (void)params;
    if (read_page(req, "tokens", NULL, &page)) {
        asked(req, lmo_engine_token_list(((struct lmo_api *)api)->engine, &page, reply_to_request, req));
    }
}

static const char *token_id(struct lmo_http_request *req, const struct lmo_http_params *params)
{
    if (!lmo_ulid_valid(params->value[0])) {
        refuse(req, LMO_E_NOT_FOUND, "id", "no token in force has this id");
        return NULL;
    }
    return params->value[0];
}

void token_get(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *id = token_id(req, params);
    if (id) {
        asked(req, lmo_engine_token_get(((struct lmo_api *)api)->engine, id, reply_to_request, req));
    }
}

void token_revoke(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *id = token_id(req, params);
    if (id) {
        asked(req, lmo_engine_token_revoke(((struct lmo_api *)api)->engine, id, reply_to_request, req));
    }
}
