/* migrations.c - migrations: start, look, wait, cancel. */
#include "api/internal.h"

#include "base/id.h"
#include "base/json.h"
#include "core/convergence.h"
#include "core/phase.h"
#include "core/resolve.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define IDEMPOTENCY_KEY            "Idempotency-Key"
#define DOWNTIME_MAX_MS            600000U
#define THROTTLE_MAX_PERCENT       99U

struct migration_body {
    char vm[LMO_NAME_MAX], source[LMO_NAME_MAX], destination[LMO_NAME_MAX];
    struct lmo_policy policy;
};

static const struct lmo_words on_timeout_words = {lmo_on_timeout_text, lmo_on_timeout_from_text};
static const struct lmo_words prediction_words = {lmo_prediction_text, lmo_prediction_from_text};

static const struct lmo_field policy_fields[] = {
    LMO_F_UINT(lmo_policy, bandwidth_bytes_per_s, 0),
    LMO_F_UINT(lmo_policy, max_downtime_ms, DOWNTIME_MAX_MS),
    LMO_F_UINT(lmo_policy, convergence_timeout_ms, LMO_CONV_TIMEOUT_MAX_MS),
    LMO_F_UINT(lmo_policy, disk_timeout_ms, LMO_CONV_TIMEOUT_MAX_MS),
    LMO_F_BOOL(lmo_policy, accept_stateful_loss),
    LMO_F_BOOL(lmo_policy, allow_throttle),
    LMO_F_UINT(lmo_policy, throttle_initial_percent, THROTTLE_MAX_PERCENT),
    LMO_F_UINT(lmo_policy, throttle_increment_percent, THROTTLE_MAX_PERCENT),
    LMO_F_ENUM(lmo_policy, on_timeout, on_timeout_words, 0),
    LMO_F_UINT(lmo_policy, force_max_pause_ms, DOWNTIME_MAX_MS),
    LMO_F_ENUM(lmo_policy, prediction, prediction_words, 0),
    LMO_F_BOOL(lmo_policy, force),
    LMO_F_BOOL(lmo_policy, accept_host_devices),
};
static const struct lmo_table policy_table = LMO_TABLE(policy_fields);

static const struct lmo_field migration_fields[] = {
    LMO_F_TEXT(migration_body, vm, LMO_FIELD_REQUIRED | LMO_FIELD_HOST), /* a UUID has the same characters */
    LMO_F_TEXT(migration_body, source, LMO_FIELD_HOST),
    LMO_F_TEXT(migration_body, destination, LMO_FIELD_REQUIRED | LMO_FIELD_HOST),
    LMO_F_STRUCT(migration_body, policy, policy_table),
};
static const struct lmo_table migration_table = LMO_TABLE(migration_fields);
static const struct lmo_table empty_table = {0, NULL};

static struct lmo_engine *engine_of(void *api)
{
    return ((struct lmo_api *)api)->engine;
}

/* "operator:alice" */
void principal_of(const struct lmo_http_request *req, char *ret, size_t size)
{
    const struct lmo_identity *peer = lmo_http_peer(req);
    snprintf(ret, size, "%s:%s", lmo_role_name(peer->role), peer->name);
}

/* ------------------------------------------------------------------ start */

/* SHA-256 of the body in one canonical form: the same members in another order or spacing are the same request. */
static int hash_body(const json_t *root, char ret[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    size_t len = 0;
    LMO_AUTO_FREE char *text = NULL;
    if (lmo_json_dump_sorted(root, &text, NULL) < 0 || EVP_Q_digest(NULL, "SHA256", NULL, text, strlen(text), digest, &len) != 1 || len != 32) {
        return LMO_E_NO_MEMORY;
    }
    for (size_t i = 0; i < len; i++) {
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
    }
    return 0;
}

/* False: refused. */
static bool read_idempotency(struct lmo_http_request *req, const json_t *root, struct lmo_migrate_request *m)
{
    const char *key = lmo_http_header(req, IDEMPOTENCY_KEY);
    if (!key) {
        return true;
    }
    size_t len = strlen(key);
    bool printable = true;
    for (size_t i = 0; i < len; i++) {
        printable = printable && key[i] > ' ' && key[i] <= '~';
    }
    if (len == 0 || len >= sizeof(m->idempotency_key) || !printable) {
        refuse(req, LMO_E_INVALID, IDEMPOTENCY_KEY,
               IDEMPOTENCY_KEY ": must be 1 to 64 printable characters without spaces");
        return false;
    }
    memcpy(m->idempotency_key, key, len + 1);
    if (hash_body(root, m->idempotency_hash) < 0) {
        refuse(req, LMO_E_NO_MEMORY, "", "no memory for the request");
        return false;
    }
    return true;
}

void migration_start(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    LMO_AUTO_JSON json_t *root = NULL;
    struct migration_body body = {0};
    struct lmo_migrate_request m = {0};
    (void)params;
    if (!read_body(req, &migration_table, &body, &root) || !read_idempotency(req, root, &m)) {
        return;
    }
    memcpy(m.vm, body.vm, sizeof(m.vm));
    memcpy(m.source, body.source, sizeof(m.source));
    memcpy(m.destination, body.destination, sizeof(m.destination));
    m.policy = body.policy;
    principal_of(req, m.principal, sizeof(m.principal));
    lmo_http_set_timeout(req, REPLY_MAX_MS);
    asked(req, lmo_engine_migrate(engine_of(api), &m, reply_to_request, req));
}

/* ------------------------------------------------------------------ look */

static const char *text_or_empty(const char *text)
{
    return text ? text : "";
}

void migration_list(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *phase = text_or_empty(lmo_http_query(req, "phase")), *vm = text_or_empty(lmo_http_query(req, "vm"));
    const char *before = text_or_empty(lmo_http_query(req, "before"));
    uint64_t limit = LIST_DEFAULT;
    (void)params;
    if (phase[0] && lmo_phase_from_text(phase) == LMO_PHASE_COUNT) {
        refuse(req, LMO_E_INVALID, "phase", "phase: '%.40s' is not the name of a phase", phase);
    } else if (strlen(vm) >= LMO_NAME_MAX) {
        refuse(req, LMO_E_INVALID, "vm", "vm: longer than %d characters", LMO_NAME_MAX - 1);
    } else if (before[0] && !lmo_ulid_valid(before)) {
        refuse(req, LMO_E_INVALID, "before", "before: must be the id of a migration");
    } else if (read_number(req, "limit", 1, LIST_MAX, &limit)) {
        asked(req,
              lmo_engine_migration_list(engine_of(api), phase, vm, before, (unsigned)limit, reply_to_request, req));
    }
}

/* The id in the path; a text that can be no id is the id of no migration. */
static const char *migration_id(struct lmo_http_request *req, const struct lmo_http_params *params)
{
    if (!lmo_ulid_valid(params->value[0])) {
        refuse(req, LMO_E_NOT_FOUND, "id", "migration %.40s is not known", params->value[0]);
        return NULL;
    }
    return params->value[0];
}

void migration_get(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    uint64_t version = 0, wait_ms = 0;
    const char *id = migration_id(req, params);
    if (!id || !read_number(req, "wait_version", 0, INT64_MAX, &version) ||
        !read_number(req, "wait_ms", 0, WAIT_MAX_MS, &wait_ms)) {
        return;
    }
    lmo_http_set_timeout(req, wait_ms + REPLY_MARGIN_MS);
    asked(req, lmo_engine_migration_get(engine_of(api), id, version, (uint32_t)wait_ms, reply_to_request, req));
}

void migration_journal(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *id = migration_id(req, params);
    if (id) {
        asked(req, lmo_engine_migration_journal(engine_of(api), id, reply_to_request, req));
    }
}

/* ------------------------------------------------------------------ cancel */

void migration_cancel(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    char principal[LMO_NAME_MAX + 32];
    const char *id = migration_id(req, params);
    int unused = 0;
    if (!id || !read_body(req, &empty_table, &unused, NULL)) {
        return;
    }
    principal_of(req, principal, sizeof(principal));
    asked(req, lmo_engine_migration_cancel(engine_of(api), id, principal, reply_to_request, req));
}

/* ------------------------------------------------------------------ resolve */

struct resolve_body {
    char decision[32], reason[LMO_TEXT_MAX];
};
static const struct lmo_field resolve_fields[] = {
    LMO_F_TEXT(resolve_body, decision, LMO_FIELD_REQUIRED),
    LMO_F_TEXT(resolve_body, reason, LMO_FIELD_REQUIRED),
};
static const struct lmo_table resolve_table = LMO_TABLE(resolve_fields);

void migration_resolve(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    char principal[LMO_NAME_MAX + 32];
    struct resolve_body body = {0};
    const char *id = migration_id(req, params);
    if (!id || !read_body(req, &resolve_table, &body, NULL)) {
        return;
    }
    enum lmo_resolution decision = lmo_resolution_from_text(body.decision);
    if (decision == LMO_RESOLVE_NONE) {
        refuse(req, LMO_E_INVALID, "decision", "decision: must be guest-at-source, guest-at-destination, retry or abandon");
        return;
    }
    principal_of(req, principal, sizeof(principal));
    lmo_http_set_timeout(req, REPLY_MAX_MS + REPLY_MARGIN_MS); /* two hosts are asked first */
    asked(req, lmo_engine_migration_resolve(engine_of(api), id, decision, body.reason, principal, reply_to_request, req));
}
