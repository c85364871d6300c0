/* inventory.c - hosts and guests. */
#include "api/internal.h"

#include "base/fault.h"
#include "base/id.h"
#include "base/json.h"
#include "core/admission.h"
#include "proto/vm.h"

#include <string.h>

#define SLOTS_MAX 256 /* records that a worker keeps in each role */

struct host_body {
    char name[LMO_NAME_MAX], url[LMO_URL_MAX];
};

static const struct lmo_field host_fields[] = {
    LMO_F_TEXT(host_body, name, LMO_FIELD_REQUIRED | LMO_FIELD_HOST),
    LMO_F_TEXT(host_body, url, LMO_FIELD_REQUIRED),
};
static const struct lmo_table host_table = LMO_TABLE(host_fields);

static const struct lmo_field limits_fields[] = {
    LMO_F_UINT(lmo_host_limits, max_incoming, SLOTS_MAX),
    LMO_F_UINT(lmo_host_limits, max_outgoing, SLOTS_MAX),
    LMO_F_UINT(lmo_host_limits, max_bandwidth_bytes_per_s, 0),
    LMO_F_UINT(lmo_host_limits, memory_keep_free_bytes, 0),
};
static const struct lmo_table limits_table = LMO_TABLE(limits_fields);

/* "https://address:port", nothing after it but a slash: paths are the protocol's. */
static bool is_worker_url(const char *url)
{
    static const char scheme[] = "https://";
    if (strncmp(url, scheme, sizeof(scheme) - 1) != 0) {
        return false;
    }
    const char *authority = url + sizeof(scheme) - 1;
    size_t len = strspn(authority, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.:[]-");
    return len > 0 && (authority[len] == '\0' || strcmp(authority + len, "/") == 0);
}

void host_add(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct host_body body = {0};
    (void)params;
    if (!read_body(req, &host_table, &body, NULL)) {
        return;
    }
    if (!is_worker_url(body.url)) {
        refuse(req, LMO_E_INVALID, "url", "url: must be https://address:port");
        return;
    }
    asked(req, lmo_engine_host_add(((struct lmo_api *)api)->engine, body.name, body.url, reply_to_request, req));
}

void host_list(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    static const char *const filters[] = {"state", NULL};
    const char *state = lmo_http_query(req, "state");
    struct lmo_page page;
    (void)params;
    if (state && strcmp(state, "unknown") != 0 && strcmp(state, "up") != 0 && strcmp(state, "down") != 0) {
        refuse(req, LMO_E_INVALID, "state", "state: must be unknown, up or down");
    } else if (read_page(req, "hosts", filters, &page)) {
        asked(req, lmo_engine_host_list(((struct lmo_api *)api)->engine, state ? state : "", &page, reply_to_request, req));
    }
}

/* The name in the path; a text that can be no name is the name of no host. */
static const char *host_name(struct lmo_http_request *req, const struct lmo_http_params *params)
{
    if (!lmo_name_valid(params->value[0])) {
        refuse(req, LMO_E_NOT_FOUND, "name", "no host can have that name");
        return NULL;
    }
    return params->value[0];
}

void host_get(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *name = host_name(req, params);
    if (name) {
        asked(req, lmo_engine_host_get(((struct lmo_api *)api)->engine, name, reply_to_request, req));
    }
}

/* An absent member leaves the limit as it is, null takes it back to the coordinator's. */
void host_limits(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    static const struct {
        const char *field;
        uint32_t bit;
    } members[] = {{"max_incoming", LMO_HOST_LIMIT_INCOMING},
                   {"max_outgoing", LMO_HOST_LIMIT_OUTGOING},
                   {"max_bandwidth_bytes_per_s", LMO_HOST_LIMIT_BANDWIDTH},
                   {"memory_keep_free_bytes", LMO_HOST_LIMIT_KEEP_FREE}};
    LMO_AUTO_JSON json_t *root = NULL;
    struct lmo_host_limits set = {0};
    uint32_t reset = 0;
    const char *name = host_name(req, params);
    if (!name || !read_body(req, &limits_table, &set, &root)) {
        return;
    }
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        const json_t *v = json_object_get(root, members[i].field);
        set.given |= v && !json_is_null(v) ? members[i].bit : 0;
        reset |= json_is_null(v) ? members[i].bit : 0;
    }
    if ((set.given & LMO_HOST_LIMIT_BANDWIDTH) && set.max_bandwidth_bytes_per_s == 0) {
        refuse(req, LMO_E_INVALID, "max_bandwidth_bytes_per_s", "max_bandwidth_bytes_per_s: must be above 0");
        return;
    }
    asked(req, lmo_engine_host_limits(((struct lmo_api *)api)->engine, name, &set, reset, reply_to_request, req));
}

void host_remove(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *name = host_name(req, params);
    if (name) {
        asked(req, lmo_engine_host_remove(((struct lmo_api *)api)->engine, name, reply_to_request, req));
    }
}

void vm_list(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    static const char *const filters[] = {"host", "state", NULL};
    const char *state = lmo_http_query(req, "state");
    char host[LMO_NAME_MAX];
    struct lmo_page page;
    (void)params;
    if (state && strcmp(lmo_run_state_name(lmo_run_state_from_name(state)), state) != 0) {
        refuse(req, LMO_E_INVALID, "state", "state: '%.40s' is not the state of a guest", state);
    } else if (read_name(req, "host", host, sizeof(host)) && read_page(req, "vms", filters, &page)) {
        asked(req, lmo_engine_vm_list(((struct lmo_api *)api)->engine, host, state ? state : "", &page, reply_to_request, req));
    }
}

void vm_get(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    if (!lmo_name_valid(params->value[0])) { /* it becomes part of a path at the workers */
        refuse(req, LMO_E_NOT_FOUND, "vm", "no guest can have that name");
        return;
    }
    asked(req, lmo_engine_vm_get(((struct lmo_api *)api)->engine, params->value[0], reply_to_request, req));
}

/* ------------------------------------------------------------------ health */

#define HEALTH(pre_production)                                                                         \
    "{\"status\":\"ok\",\"version\":\"" LMO_VERSION "\",\"pre_production\":" pre_production               \
    ",\"fault_points\":" LMO_FAULT_JSON "}"

static void on_alive(void *request, const struct lmo_engine_reply *reply)
{
    static const char body[] = HEALTH("false");
    json_decref(reply->body);
    lmo_http_reply(request, 200, "application/json", body, sizeof(body) - 1);
}

static void on_alive_pre_production(void *request, const struct lmo_engine_reply *reply)
{
    static const char body[] = HEALTH("true");
    json_decref(reply->body);
    lmo_http_reply(request, 200, "application/json", body, sizeof(body) - 1);
}

/* That the engine's loop turns is what matters: any answer to a question about a host that cannot exist shows it. */
void health(void *api, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct lmo_api *a = api;
    (void)params;
    asked(req, lmo_engine_host_get(a->engine, "-", a->pre_production ? on_alive_pre_production : on_alive, req));
}
