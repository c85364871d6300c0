/* drains.c - drains, and rebalancing: ask for a plan, carry it out, look, wait, steer. */
#include "api/internal.h"

#include "base/id.h"
#include "base/json.h"
#include "engine/drains.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hook_body {
    char url[LMO_URL_MAX], command[LMO_NAME_MAX];
};
struct drain_body {
    char all_matching[1024], keep_free[8], unmovable[16], plan[LMO_DRAIN_PLAN_MAX];
    uint32_t max_hosts;
    int64_t wait_timeout_ms;
    bool give_back;
    struct hook_body hook;
};
struct rebalance_body {
    char goal[16], keep_free[8];
};

static const struct lmo_field hook_fields[] = {
    LMO_F_TEXT(hook_body, url, 0),
    LMO_F_TEXT(hook_body, command, LMO_FIELD_HOST),
};
static const struct lmo_table hook_table = LMO_TABLE(hook_fields);
static const struct lmo_field drain_fields[] = {
    LMO_F_TEXT(drain_body, all_matching, 0),
    LMO_F_TEXT(drain_body, keep_free, 0),
    LMO_F_TEXT(drain_body, unmovable, 0),
    LMO_F_TEXT(drain_body, plan, 0),
    LMO_F_UINT(drain_body, max_hosts, LMO_DRAIN_HOSTS_MAX),
    LMO_F_INT(drain_body, wait_timeout_ms),
    {.name = "return", .type = LMO_FIELD_BOOL, .offset = offsetof(struct drain_body, give_back), .size = sizeof(bool)},
    LMO_F_STRUCT(drain_body, hook, hook_table),
};
static const struct lmo_table drain_table = LMO_TABLE(drain_fields);
static const struct lmo_field rebalance_fields[] = {
    LMO_F_TEXT(rebalance_body, goal, LMO_FIELD_REQUIRED),
    LMO_F_TEXT(rebalance_body, keep_free, 0),
};
static const struct lmo_table rebalance_table = LMO_TABLE(rebalance_fields);

static struct lmo_engine *engine_of(void *api)
{
    return ((struct lmo_api *)api)->engine;
}

/* "N+1" -> 1; empty: 0. False: refused. */
bool read_keep_free(struct lmo_http_request *req, const char *text, uint32_t *ret)
{
    *ret = 0;
    if (text[0] == '\0') {
        return true;
    }
    bool good =
        strncmp(text, "N+", 2) == 0 && text[2] >= '0' && text[2] <= '0' + LMO_SPARE_HOSTS_MAX && text[3] == '\0';
    if (!good) {
        refuse(req, LMO_E_INVALID, "keep_free",
               "keep_free: must be N+0 to N+%d: so many hosts may be lost, and all guests still have room",
               LMO_SPARE_HOSTS_MAX);
        return false;
    }
    *ret = (uint32_t)(text[2] - '0');
    return true;
}

/* ------------------------------------------------------------------ POST /v1/drains */

/* False: refused. The member is taken out of the body: what is left is for the codec, which knows no lists of texts. */
static bool read_hosts(struct lmo_http_request *req, json_t *root, struct lmo_drain_request *q)
{
    const json_t *hosts = json_object_get(root, "hosts");
    size_t count = json_array_size(hosts);
    if (!hosts || json_is_null(hosts)) {
        return true;
    }
    if (!json_is_array(hosts) || count == 0 || count > LMO_DRAIN_HOSTS_MAX) {
        refuse(req, LMO_E_INVALID, "hosts", "hosts: must be a list of 1 to %d names", LMO_DRAIN_HOSTS_MAX);
        return false;
    }
    q->hosts = calloc(count, sizeof *q->hosts);
    if (!q->hosts) {
        refuse(req, LMO_E_NO_MEMORY, "", "no memory for the request");
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(hosts, i));
        bool twice = false;
        for (size_t n = 0; name && n < i; n++) {
            twice = twice || strcmp(q->hosts[n], name) == 0;
        }
        if (!name || !lmo_name_valid(name) || twice) {
            refuse(req, LMO_E_INVALID, "hosts",
                   twice ? "hosts[%zu]: named twice" : "hosts[%zu]: must be the name of a host", i);
            return false;
        }
        memcpy(q->hosts[q->host_count++], name, strlen(name) + 1);
    }
    return true;
}

static bool fill(struct lmo_http_request *req, const struct drain_body *b, struct lmo_drain_request *q)
{
    int unmovable = b->unmovable[0] ? lmo_unmovable_from_text(b->unmovable) : LMO_UNMOVABLE_FAIL;
    if ((q->host_count > 0) == (b->all_matching[0] != '\0')) {
        refuse(req, LMO_E_INVALID, "hosts", "hosts: give hosts, or all_matching with labels; one of the two");
        return false;
    }
    if (unmovable < 0) {
        refuse(req, LMO_E_INVALID, "unmovable", "unmovable: must be fail, skip, wait, offline or block");
        return false;
    }
    if (b->hook.url[0] && b->hook.command[0]) {
        refuse(req, LMO_E_INVALID, "hook", "hook: a url or a command, not both");
        return false;
    }
    if (b->wait_timeout_ms > LMO_DRAIN_WAIT_MAX_MS) {
        refuse(req, LMO_E_INVALID, "wait_timeout_ms", "wait_timeout_ms: at most %lld",
               (long long)LMO_DRAIN_WAIT_MAX_MS);
        return false;
    }
    q->unmovable = (enum lmo_unmovable)unmovable;
    q->max_hosts = b->max_hosts;
    q->give_back = b->give_back;
    q->wait_timeout_ms = b->wait_timeout_ms;
    memcpy(q->labels, b->all_matching, sizeof q->labels);
    memcpy(q->plan, b->plan, sizeof q->plan);
    memcpy(q->hook_url, b->hook.url, sizeof q->hook_url);
    memcpy(q->hook_command, b->hook.command, sizeof q->hook_command);
    return read_keep_free(req, b->keep_free, &q->spare_hosts);
}

void drain_start(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    LMO_AUTO_JSON json_t *root = NULL;
    struct drain_body body = {0};
    struct lmo_drain_request q = {0};
    (void)params;
    if (!read_raw_body(req, &root)) {
        return;
    }
    bool good = read_hosts(req, root, &q);
    if (good) {
        (void)json_object_del(root, "hosts");
        good = decode_body(req, &drain_table, root, &body) && fill(req, &body, &q);
    }
    if (!good) {
        free(q.hosts);
        return;
    }
    principal_of(req, q.principal, sizeof q.principal);
    lmo_http_set_timeout(req, REPLY_MAX_MS);
    asked(req, lmo_engine_drain(engine_of(api), &q, reply_to_request, req));
}

/* ------------------------------------------------------------------ look */

void drain_list(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    static const char *const filters[] = {"state", NULL};
    const char *state = lmo_http_query(req, "state");
    struct lmo_page page;
    (void)params;
    if (state && lmo_drain_state_from_text(state) == LMO_DRAIN_STATE_COUNT) {
        refuse(req, LMO_E_INVALID, "state", "state: '%.40s' is not the state of a drain", state);
    } else if (read_page(req, "drains", filters, &page)) {
        asked(req, lmo_engine_drain_list(engine_of(api), state ? state : "", &page, reply_to_request, req));
    }
}

static const char *drain_id(struct lmo_http_request *req, const struct lmo_http_params *params)
{
    if (!lmo_ulid_valid(params->value[0])) {
        refuse(req, LMO_E_NOT_FOUND, "id", "drain %.40s is not known", params->value[0]);
        return NULL;
    }
    return params->value[0];
}

void drain_get(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    uint64_t version = 0, wait_ms = 0;
    const char *id = drain_id(req, params);
    if (!id || !read_number(req, "wait_version", 0, INT64_MAX, &version) ||
        !read_number(req, "wait_ms", 0, WAIT_MAX_MS, &wait_ms)) {
        return;
    }
    lmo_http_set_timeout(req, wait_ms + REPLY_MARGIN_MS);
    asked(req, lmo_engine_drain_get(engine_of(api), id, version, (uint32_t)wait_ms, reply_to_request, req));
}

/* ------------------------------------------------------------------ steer */

struct act_body {
    char host[LMO_NAME_MAX];
};
static const struct lmo_table plain_act_table = {0};
static const struct lmo_field acknowledge_fields[] = {
    LMO_F_TEXT(act_body, host, LMO_FIELD_REQUIRED | LMO_FIELD_HOST),
};
static const struct lmo_table acknowledge_table = LMO_TABLE(acknowledge_fields);

static void act(void *api, struct lmo_http_request *req, const struct lmo_http_params *params, enum lmo_drain_act what)
{
    char principal[LMO_NAME_MAX + 32];
    struct act_body body = {0};
    const char *id = drain_id(req, params);
    if (!id ||
        !read_body(req, what == LMO_DRAIN_ACT_ACKNOWLEDGE ? &acknowledge_table : &plain_act_table, &body, NULL)) {
        return;
    }
    principal_of(req, principal, sizeof(principal));
    lmo_http_set_timeout(req, REPLY_MAX_MS);
    asked(req, lmo_engine_drain_act(engine_of(api), id, what, body.host, principal, reply_to_request, req));
}

void drain_pause(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    act(api, req, params, LMO_DRAIN_ACT_PAUSE);
}

void drain_resume(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    act(api, req, params, LMO_DRAIN_ACT_RESUME);
}

void drain_cancel(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    act(api, req, params, LMO_DRAIN_ACT_CANCEL);
}

void drain_acknowledge(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    act(api, req, params, LMO_DRAIN_ACT_ACKNOWLEDGE);
}

/* ------------------------------------------------------------------ rebalance */

void rebalance(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct rebalance_body body = {0};
    char principal[LMO_NAME_MAX + 32];
    uint32_t spare = 0;
    (void)params;
    if (!read_body(req, &rebalance_table, &body, NULL) || !read_keep_free(req, body.keep_free, &spare)) {
        return;
    }
    bool pack = strcmp(body.goal, "pack") == 0;
    if (!pack && strcmp(body.goal, "spread") != 0) {
        refuse(req, LMO_E_INVALID, "goal", "goal: must be spread or pack");
        return;
    }
    principal_of(req, principal, sizeof(principal));
    lmo_http_set_timeout(req, REPLY_MAX_MS);
    asked(req, lmo_engine_rebalance(engine_of(api), pack, spare, principal, reply_to_request, req));
}
