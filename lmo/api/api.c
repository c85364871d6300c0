/* api.c - the listener, and the way of a request to its handler: its id and its line in the audit trail, the limit of its
 * principal, the route, the role, how it is asked for; then the handler. Who may do what is routes.c.
 *
 * Who: the role in the client's certificate, or of a bearer token where the configuration allows them; there is no other way
 * in. The default is nothing. */
#include "api/internal.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

#define CONNECTIONS_MAX           1024U
#define CONNECTIONS_PER_IP        256U
#define CONNECTIONS_PER_PRINCIPAL 128U

/* The route of the request; or NULL, and in `ret_allow` the methods that there are for its path. */
static const struct lmo_api_route *route_of(const struct lmo_http_request *req, struct lmo_http_params *ret_params,
                                            char *ret_allow, size_t size)
{
    size_t used = 0;
    ret_allow[0] = '\0';
    for (size_t i = 0; i < lmo_api_route_count; i++) {
        const struct lmo_api_route *r = &lmo_api_routes[i];
        if (!lmo_http_match(r->pattern, lmo_http_path(req), ret_params)) {
            continue;
        }
        if (strcmp(r->method, lmo_http_method(req)) == 0) {
            return r;
        }
        int n = snprintf(ret_allow + used, size - used, "%s%s", used ? ", " : "", r->method);
        used += n > 0 && (size_t)n < size - used ? (size_t)n : 0;
    }
    return NULL;
}

static bool has_any_right(enum lmo_role role)
{
    for (size_t i = 0; i < lmo_api_route_count; i++) {
        if (lmo_api_routes[i].roles >> role & 1U) {
            return true;
        }
    }
    return false;
}

static void refuse_role(struct lmo_http_request *req, const char *why)
{
    const struct lmo_identity *peer = lmo_http_peer(req);
    lmo_log(LMO_LOG_WARN, "request refused: role", "request=%s principal=%s:%s%s method=%s path=%s remote=%s",
            lmo_http_id(req), lmo_role_name(peer->role), peer->by_token ? "token/" : "", peer->name, lmo_http_method(req),
            lmo_http_path(req), lmo_http_remote(req));
    refuse(req, LMO_E_FORBIDDEN, "", "a %s of the role %s may %s", peer->by_token ? "token" : "certificate",
           lmo_role_name(peer->role), why);
}

/* False: refused. */
static bool may(struct lmo_http_request *req, const struct lmo_api_route *route)
{
    const struct lmo_identity *peer = lmo_http_peer(req);
    if (!has_any_right(peer->role)) { /* whatever there is or is not: it is none of its business */
        refuse_role(req, "not use this API; operator, control-plane and viewer may");
        return false;
    }
    if (route && !(route->roles >> peer->role & 1U)) {
        refuse_role(req, lmo_api_route_writes(route) && peer->role == LMO_ROLE_VIEWER ? "only read here" : "not do this");
        return false;
    }
    if (route && peer->by_token && (route->flags & LMO_API_CERTIFICATE)) {
        refuse_role(req, "not do this: it takes a certificate");
        return false;
    }
    return true;
}

/* False: refused. */
static bool within_limits(struct lmo_api *api, struct lmo_http_request *req)
{
    char principal[LMO_NAME_MAX + 32], text[16];
    uint32_t after_s = 1;
    principal_of(req, principal, sizeof(principal));
    if (limits_take(api->limits, principal, lmo_now_ns(), &after_s)) {
        return true;
    }
    snprintf(text, sizeof(text), "%u", after_s);
    (void)lmo_http_set_header(req, "Retry-After", text);
    lmo_http_reply_fail(req, LMO_E_LIMIT, "%s asks too often; nothing was done", principal);
    return false;
}

static void on_request(void *arg, struct lmo_http_request *req)
{
    struct lmo_api *api = arg;
    struct lmo_http_params params;
    struct lmo_ask ask;
    char allow[64];
    if (!within_limits(api, req)) {
        return;
    }
    if (!audit_asked(api, req)) {
        lmo_http_reply_fail(req, LMO_E_LIMIT, "the coordinator has too many requests waiting");
        return;
    }
    const struct lmo_api_route *route = route_of(req, &params, allow, sizeof(allow));
    if (!may(req, route)) {
        return;
    }
    if (!route && allow[0]) {
        (void)lmo_http_set_header(req, "Allow", allow);
        refuse(req, LMO_E_METHOD, "", "%s is not possible here; possible: %s", lmo_http_method(req), allow);
        return;
    }
    if (!route) {
        refuse(req, LMO_E_NOT_FOUND, "", "there is nothing at %.200s", lmo_http_path(req));
        return;
    }
    if (lmo_api_route_writes(route)) {
        const struct lmo_identity *peer = lmo_http_peer(req);
        lmo_log(LMO_LOG_INFO, "request", "request=%s principal=%s:%s%s method=%s path=%s remote=%s", lmo_http_id(req),
                lmo_role_name(peer->role), peer->by_token ? "token/" : "", peer->name, route->method, lmo_http_path(req),
                lmo_http_remote(req));
    }
    if (!read_ask(req, route, &ask)) {
        return;
    }
    lmo_engine_ask(&ask);
    route->fn(api, req, &params); /* the request may have ended when it returns */
    lmo_engine_ask(NULL);
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
    api->limits = limits_new(cfg->rate_per_s ? cfg->rate_per_s : LMO_API_RATE_PER_S,
                             cfg->burst ? cfg->burst : LMO_API_BURST);
    if (!api->limits) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the API");
    }
    struct lmo_http_server_config config = {.tls = cfg->tls,
                                            .handler = on_request,
                                            .handler_arg = api,
                                            .log_name = "api",
                                            .body_max = BODY_MAX,
                                            .reply_timeout_ms = REPLY_MAX_MS,
                                            .connections_max = cfg->connections_max ? cfg->connections_max : CONNECTIONS_MAX,
                                            .connections_per_ip = cfg->connections_per_ip ? cfg->connections_per_ip
                                                                                          : CONNECTIONS_PER_IP,
                                            .connections_per_peer = cfg->connections_per_principal
                                                                        ? cfg->connections_per_principal
                                                                        : CONNECTIONS_PER_PRINCIPAL,
                                            .request_ids = true,
                                            .token_peer = cfg->tokens ? token_peer : NULL};
    memcpy(config.address, cfg->address, sizeof(config.address));
    int r = lmo_http_server_new(&config, &api->server, err);
    if (r < 0) {
        limits_free(api->limits);
        return r;
    }
    *ret = LMO_TAKE(api);
    return 0;
}

struct lmo_api *lmo_api_stop(struct lmo_api *api)
{
    if (api) {
        lmo_http_server_free(api->server);
        limits_free(api->limits);
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
