/* observe.c - /healthz, /readyz, /metrics, what was answered how often, and the listener without TLS that shows only these. */
#include "api/internal.h"

#include "base/json.h"
#include "base/metrics.h"

#include <string.h>

static const unsigned statuses[] = {200, 201, 202, 204, 400, 401, 403, 404, 405, 409,
                                    410, 413, 422, 429, 500, 502, 503, 504, 507};
#define STATUS_COUNT (sizeof statuses / sizeof statuses[0])
static const char *const status_names[STATUS_COUNT + 1] = {"200", "201", "202", "204", "400", "401",  "403",
                                                           "404", "405", "409", "410", "413", "422",  "429",
                                                           "500", "502", "503", "504", "507", "other"};
static const double bounds[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};

void observe_init(struct lmo_api *api)
{
    unsigned count = (unsigned)lmo_api_route_count;
    struct lmo_metrics *m = lmo_engine_metrics(api->engine);
    for (unsigned i = 0; i < count && i < ROUTES_MAX; i++) {
        snprintf(api->route_names[i], sizeof api->route_names[i], "%s %s", lmo_api_routes[i].method, lmo_api_routes[i].pattern);
        api->route_texts[i] = api->route_names[i];
    }
    api->route_count = count < ROUTES_MAX ? count : ROUTES_MAX;
    api->route_texts[api->route_count] = "none";
    api->requests =
        lmo_metrics_add(m, &(struct lmo_metric_spec){.name = "lmo_http_requests_total",
                                                     .help = "Requests that were answered, by route and status.",
                                                     .kind = LMO_METRIC_COUNTER,
                                                     .label = {"route", "code"},
                                                     .values = {api->route_texts, status_names},
                                                     .count = {api->route_count + 1, STATUS_COUNT + 1}});
    api->request_seconds =
        lmo_metrics_add(m, &(struct lmo_metric_spec){.name = "lmo_http_request_duration_seconds",
                                                     .help = "From a request's headers to its answer.",
                                                     .kind = LMO_METRIC_HISTOGRAM,
                                                     .label = {"route"},
                                                     .values = {api->route_texts},
                                                     .count = {api->route_count + 1},
                                                     .bounds = bounds,
                                                     .bound_count = sizeof bounds / sizeof bounds[0],
                                                     .scale = 1e6});
}

static void count_answer(struct lmo_api *api, unsigned route, unsigned status, uint64_t us)
{
    unsigned code = 0;
    while (code < STATUS_COUNT && statuses[code] != status) {
        code++;
    }
    lmo_metric_add(api->requests, route, code, 1);
    lmo_metric_observe(api->request_seconds, route, 0, us);
}

void observe_answered(void *arg, int route, unsigned status, uint64_t us)
{
    struct lmo_api *api = arg;
    count_answer(api, route < 0 || (unsigned)route >= api->route_count ? api->route_count : (unsigned)route, status,
                 us);
}

static void reply_metrics(void *arg, const struct lmo_engine_reply *reply)
{
    struct lmo_http_request *req = arg;
    if (reply->code < 0) {
        reply_to_request(req, reply);
        return;
    }
    LMO_AUTO_JSON json_t *body = reply->body;
    lmo_http_reply(req, 200, "text/plain; version=0.0.4; charset=utf-8", json_string_value(body),
                   json_string_length(body));
}

void metrics(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct lmo_api *api = arg;
    (void)params;
    asked(req, lmo_engine_metrics_text(api->engine, reply_metrics, req));
}

void ready(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct lmo_api *api = arg;
    (void)params;
    asked(req, lmo_engine_ready(api->engine, reply_to_request, req));
}

/* ------------------------------------------------------------------ the listener without TLS */

static const struct lmo_http_route plain_routes[] = {
    {"GET", "/healthz", health},
    {"GET", "/readyz", ready},
    {"GET", "/metrics", metrics},
};

static void on_plain(void *arg, struct lmo_http_request *req)
{
    lmo_http_dispatch(plain_routes, sizeof plain_routes / sizeof plain_routes[0], arg, req);
}

int observe_listen(struct lmo_api *api, const char *address, struct lmo_err *err)
{
    struct lmo_http_server_config config = {.handler = on_plain,
                                            .handler_arg = api,
                                            .log_name = "metrics",
                                            .plain = true,
                                            .body_max = 1024,
                                            .connections_max = 16,
                                            .reply_timeout_ms = REPLY_MAX_MS};
    snprintf(config.address, sizeof config.address, "%s", address);
    return lmo_http_server_new(&config, &api->plain, err);
}
