/* api.c - the listener, who may do what, and the table of routes.
 *
 * Who: operator and control plane may do everything here, a viewer may look, everybody else is refused; the default is
 * nothing. The role comes from the client's certificate (http/server.h), is looked at before the path, and there is
 * no other way in. What changes something is logged with who asked for it. */
#include "api/internal.h"

#include "base/assert.h"
#include "base/log.h"

#include <string.h>

static const struct lmo_http_route routes[] = {
    {"POST", "/v1/hosts", host_add},
    {"GET", "/v1/hosts", host_list},
    {"GET", "/v1/hosts/{name}", host_get},
    {"PATCH", "/v1/hosts/{name}", host_limits},
    {"DELETE", "/v1/hosts/{name}", host_remove},
    {"POST", "/v1/hosts/{name}/cordon", host_cordon},
    {"POST", "/v1/hosts/{name}/uncordon", host_uncordon},
    {"PUT", "/v1/hosts/{name}/labels", host_labels},
    {"GET", "/v1/vms", vm_list},
    {"GET", "/v1/vms/{id}", vm_get},
    {"GET", "/v1/vms/{id}/explain", vm_explain},
    {"GET", "/v1/vms/{id}/policy", vm_policy_get},
    {"PUT", "/v1/vms/{id}/policy", vm_policy_set},
    {"GET", "/v1/vms/{id}/lease", vm_lease_get},
    {"PUT", "/v1/vms/{id}/lease", vm_lease_set},
    {"DELETE", "/v1/vms/{id}/lease", vm_lease_drop},
    {"POST", "/v1/drains", drain_start},
    {"GET", "/v1/drains", drain_list},
    {"GET", "/v1/drains/{id}", drain_get},
    {"POST", "/v1/drains/{id}/pause", drain_pause},
    {"POST", "/v1/drains/{id}/resume", drain_resume},
    {"POST", "/v1/drains/{id}/cancel", drain_cancel},
    {"POST", "/v1/drains/{id}/acknowledge", drain_acknowledge},
    {"POST", "/v1/rebalance", rebalance},
    {"POST", "/v1/migrations", migration_start},
    {"GET", "/v1/migrations", migration_list},
    {"GET", "/v1/migrations/{id}", migration_get},
    {"GET", "/v1/migrations/{id}/journal", migration_journal},
    {"POST", "/v1/migrations/{id}/cancel", migration_cancel},
    {"POST", "/v1/migrations/{id}/resolve", migration_resolve},
    {"POST", "/v1/doctor", doctor},
    {"GET", "/v1/audit", audit_list},
    {"GET", "/healthz", health},
};

enum right { RIGHT_NONE = 0, RIGHT_READ, RIGHT_WRITE };

static enum right right_of(enum lmo_role role)
{
    switch (role) {
    case LMO_ROLE_OPERATOR:
    case LMO_ROLE_CONTROL_PLANE: return RIGHT_WRITE;
    case LMO_ROLE_VIEWER: return RIGHT_READ;
    case LMO_ROLE_NONE:
    case LMO_ROLE_COORDINATOR:
    case LMO_ROLE_WORKER:
    case LMO_ROLE_FAULT_INJECTOR: return RIGHT_NONE;
    }
    return RIGHT_NONE; /* a role that was added and not thought about here */
}

static void on_request(void *arg, struct lmo_http_request *req)
{
    const struct lmo_identity *peer = lmo_http_peer(req);
    const char *method = lmo_http_method(req), *path = lmo_http_path(req);
    bool writes = strcmp(method, "GET") != 0;
    enum right right = right_of(peer->role);
    if (!audit_asked(arg, req)) {
        lmo_http_reply_fail(req, LMO_E_LIMIT, "the coordinator has too many requests waiting");
        return;
    }
    if (right < (writes ? RIGHT_WRITE : RIGHT_READ)) {
        lmo_log(LMO_LOG_WARN, "request refused: role", "principal=%s:%s method=%s path=%s remote=%s",
                lmo_role_name(peer->role), peer->name, method, path, lmo_http_remote(req));
        refuse(req, LMO_E_FORBIDDEN, "", "a certificate of the role %s may %s", lmo_role_name(peer->role),
               right == RIGHT_NONE ? "not use this API; operator, control-plane and viewer may" : "only read here");
        return;
    }
    if (writes) {
        lmo_log(LMO_LOG_INFO, "request", "principal=%s:%s method=%s path=%s remote=%s", lmo_role_name(peer->role),
                peer->name, method, path, lmo_http_remote(req));
    }
    lmo_http_dispatch(routes, sizeof(routes) / sizeof(routes[0]), arg, req);
}

int lmo_api_start(const struct lmo_api_config *cfg, struct lmo_api **ret, struct lmo_err *err)
{
    LMO_AUTO_FREE struct lmo_api *api = calloc(1, sizeof(*api));
    if (!api) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the API");
    }
    lmo_assert(cfg->engine != NULL);
    api->engine = cfg->engine;
    api->pre_production = cfg->pre_production;
    struct lmo_http_server_config config = {.tls = cfg->tls,
                                            .handler = on_request,
                                            .handler_arg = api,
                                            .log_name = "api",
                                            .body_max = BODY_MAX,
                                            .reply_timeout_ms = REPLY_MAX_MS};
    memcpy(config.address, cfg->address, sizeof(config.address));
    int r = lmo_http_server_new(&config, &api->server, err);
    if (r < 0) {
        return r;
    }
    *ret = LMO_TAKE(api);
    return 0;
}

struct lmo_api *lmo_api_stop(struct lmo_api *api)
{
    if (api) {
        lmo_http_server_free(api->server);
        free(api);
    }
    return NULL;
}

int lmo_api_reload(struct lmo_api *api, struct lmo_err *err)
{
    return lmo_http_server_reload(api->server, err);
}

uint16_t lmo_api_port(const struct lmo_api *api)
{
    return lmo_http_server_port(api->server);
}
