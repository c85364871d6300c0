/* webhooks.c - webhooks, their dead letters, and hooks of guests. A secret is in one answer only: that of the request which made it. */
#include "api/internal.h"

#include "base/id.h"
#include "base/json.h"
#include "base/str.h"

#include <string.h>

struct webhook_body {
    char url[LMO_URL_MAX], types[LMO_WEBHOOK_TYPES_MAX], vm[LMO_NAME_MAX], host[LMO_NAME_MAX],
        description[LMO_TEXT_MAX];
    bool enabled;
};
static const struct lmo_field webhook_fields[] = {
    LMO_F_TEXT(webhook_body, url, 0),
    LMO_F_TEXT(webhook_body, types, 0),
    LMO_F_TEXT(webhook_body, vm, LMO_FIELD_HOST),
    LMO_F_TEXT(webhook_body, host, LMO_FIELD_HOST),
    LMO_F_TEXT(webhook_body, description, 0),
    LMO_F_BOOL(webhook_body, enabled),
};
static const struct lmo_table webhook_table = LMO_TABLE(webhook_fields);

struct redeliver_body {
    uint64_t sequence;
};
static const struct lmo_field redeliver_fields[] = {LMO_F_UINT(redeliver_body, sequence, 0)};
static const struct lmo_table redeliver_table = LMO_TABLE(redeliver_fields);

static const struct lmo_words no_answer_words = {lmo_no_answer_text, lmo_no_answer_from_text};
struct hook_body {
    char url[LMO_URL_MAX];
    uint32_t deadline_ms;
    enum lmo_no_answer on_no_answer;
};
static const struct lmo_field hook_fields[] = {
    LMO_F_TEXT(hook_body, url, LMO_FIELD_REQUIRED),
    LMO_F_UINT(hook_body, deadline_ms, LMO_NOTICE_DEADLINE_MAX_MS),
    LMO_F_ENUM(hook_body, on_no_answer, no_answer_words, 0),
};
static const struct lmo_table hook_table = LMO_TABLE(hook_fields);
static const struct lmo_table empty_table = {0, NULL};

static struct lmo_engine *engine_of(void *api)
{
    return ((struct lmo_api *)api)->engine;
}

/* NULL: refused. */
static const char *webhook_id(struct lmo_http_request *req, const struct lmo_http_params *params)
{
    if (!lmo_ulid_valid(params->value[0])) {
        refuse(req, LMO_E_NOT_FOUND, "id", "there is no webhook %.60s", params->value[0]);
        return NULL;
    }
    return params->value[0];
}

static bool read_webhook(struct lmo_http_request *req, struct lmo_webhook_request *q)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } members[] = {{"url", LMO_WEBHOOK_URL},         {"types", LMO_WEBHOOK_TYPES},
                   {"vm", LMO_WEBHOOK_VM},           {"host", LMO_WEBHOOK_HOST},
                   {"enabled", LMO_WEBHOOK_ENABLED}, {"description", LMO_WEBHOOK_DESCRIPTION}};
    LMO_AUTO_JSON json_t *root = NULL;
    struct webhook_body b = {.enabled = true};
    if (!read_body(req, &webhook_table, &b, &root)) {
        return false;
    }
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        q->given |= json_object_get(root, members[i].name) ? members[i].bit : 0;
    }
    LMO_COPY(q->url, b.url);
    LMO_COPY(q->types, b.types);
    LMO_COPY(q->vm, b.vm);
    LMO_COPY(q->host, b.host);
    LMO_COPY(q->description, b.description);
    q->enabled = b.enabled;
    principal_of(req, q->principal, sizeof q->principal);
    return true;
}

void webhook_create(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct lmo_webhook_request q = {0};
    (void)params;
    if (!read_webhook(req, &q)) {
        return;
    }
    if (!q.url[0]) {
        refuse(req, LMO_E_INVALID, "url", "url: is missing");
    } else if (q.given & LMO_WEBHOOK_ENABLED) {
        refuse(req, LMO_E_INVALID, "enabled", "enabled: a new webhook is; change it afterwards");
    } else {
        asked(req, lmo_engine_webhook_create(engine_of(api), &q, reply_to_request, req));
    }
}

void webhook_list(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct lmo_page page;
    (void)params;
    if (read_page(req, "webhooks", NULL, &page)) {
        asked(req, lmo_engine_webhook_list(engine_of(api), &page, reply_to_request, req));
    }
}

void webhook_get(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *id = webhook_id(req, params);
    if (id) {
        asked(req, lmo_engine_webhook_get(engine_of(api), id, reply_to_request, req));
    }
}

void webhook_change(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct lmo_webhook_request q = {0};
    const char *id = webhook_id(req, params);
    if (!id || !read_webhook(req, &q)) {
        return;
    }
    if (q.given == 0) {
        refuse(req, LMO_E_INVALID, "", "nothing to change: give url, types, vm, host, description or enabled");
    } else if ((q.given & LMO_WEBHOOK_URL) && !q.url[0]) {
        refuse(req, LMO_E_INVALID, "url", "url: must not be empty");
    } else {
        asked(req, lmo_engine_webhook_change(engine_of(api), id, &q, reply_to_request, req));
    }
}

void webhook_rotate(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct redeliver_body nothing;
    const char *id = webhook_id(req, params);
    if (id && read_body(req, &empty_table, &nothing, NULL)) {
        asked(req, lmo_engine_webhook_rotate(engine_of(api), id, reply_to_request, req));
    }
}

void webhook_remove(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *id = webhook_id(req, params);
    struct redeliver_body nothing;
    if (id && read_body(req, &empty_table, &nothing, NULL)) {
        asked(req, lmo_engine_webhook_remove(engine_of(api), id, reply_to_request, req));
    }
}

void dead_letters(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *id = webhook_id(req, params);
    struct lmo_page page;
    if (id && read_page(req, id, NULL, &page)) { /* a cursor of one webhook's list is none of another's */
        asked(req, lmo_engine_dead_letters(engine_of(api), id, &page, reply_to_request, req));
    }
}

void dead_redeliver(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *id = webhook_id(req, params);
    struct redeliver_body b = {0};
    if (id && read_body(req, &redeliver_table, &b, NULL)) {
        asked(req, lmo_engine_redeliver(engine_of(api), id, b.sequence, reply_to_request, req));
    }
}

/* ------------------------------------------------------------------ hooks */

static bool vm_uuid(struct lmo_http_request *req, const struct lmo_http_params *params, char ret[LMO_UUID_MAX])
{
    if (lmo_uuid_normalise(params->value[0], ret) < 0) {
        refuse(req, LMO_E_INVALID, "vm", "vm: a hook belongs to a UUID, and %.60s is none", params->value[0]);
        return false;
    }
    return true;
}

void hook_put(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    char vm[LMO_UUID_MAX], principal[LMO_NAME_MAX + 32];
    struct hook_body b = {.deadline_ms = 60000, .on_no_answer = LMO_NO_ANSWER_PROCEED};
    if (!vm_uuid(req, params, vm) || !read_body(req, &hook_table, &b, NULL)) {
        return;
    }
    if (b.deadline_ms < LMO_NOTICE_DEADLINE_MIN_MS) {
        refuse(req, LMO_E_INVALID, "deadline_ms", "deadline_ms: must be an integer from %d to %d",
               LMO_NOTICE_DEADLINE_MIN_MS, LMO_NOTICE_DEADLINE_MAX_MS);
        return;
    }
    principal_of(req, principal, sizeof principal);
    asked(req, lmo_engine_hook_put(engine_of(api), vm, b.url, b.deadline_ms, b.on_no_answer, principal,
                                   reply_to_request, req));
}

void hook_get(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    char vm[LMO_UUID_MAX];
    if (vm_uuid(req, params, vm)) {
        asked(req, lmo_engine_hook_get(engine_of(api), vm, reply_to_request, req));
    }
}

void hook_remove(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    char vm[LMO_UUID_MAX];
    struct redeliver_body nothing;
    if (vm_uuid(req, params, vm) && read_body(req, &empty_table, &nothing, NULL)) {
        asked(req, lmo_engine_hook_remove(engine_of(api), vm, reply_to_request, req));
    }
}

void migration_acknowledge(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    char principal[LMO_NAME_MAX + 32];
    struct redeliver_body nothing;
    if (!lmo_ulid_valid(params->value[0])) {
        refuse(req, LMO_E_NOT_FOUND, "id", "no migration has this id");
        return;
    }
    if (read_body(req, &empty_table, &nothing, NULL)) {
        principal_of(req, principal, sizeof principal);
        asked(req,
              lmo_engine_migration_acknowledge(engine_of(api), params->value[0], principal, reply_to_request, req));
    }
}
