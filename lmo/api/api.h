/* api.h - the REST API: HTTP in, the engine's requests out. The routes are in proto/openapi.yaml. */
#ifndef LMO_API_API_H
#define LMO_API_API_H

#include "base/cleanup.h"
#include "base/err.h"
#include "base/types.h"
#include "engine/engine.h"
#include "http/tls.h"

#include <stdbool.h>
#include <stdint.h>

struct lmo_api;

struct lmo_api_config {
    char address[LMO_ADDRESS_MAX]; /* "10.0.0.1:8440" */
    struct lmo_tls_files tls;
    struct lmo_engine *engine; /* borrowed; must outlive the API and every reply it still owes */
    bool pre_production;       /* what /healthz says: faults may be made here on purpose */
    bool tokens;               /* whoever shows no certificate may come with a bearer token */
    /* 0: the default */
    uint32_t rate_per_s, burst; /* requests of one principal */
    uint32_t connections_max, connections_per_ip, connections_per_principal;
};
#define LMO_API_RATE_PER_S 2000U
#define LMO_API_BURST      4000U


int lmo_api_start(const struct lmo_api_config *cfg, struct lmo_api **ret, struct lmo_err *err) LMO_MUST_CHECK;
/* Takes api (NULL is fine), returns NULL. Requests that wait are answered 503. Before the engine is freed. */
struct lmo_api *lmo_api_stop(struct lmo_api *api);
/* Reads the TLS files again; on failure the old ones stay in force. */
int lmo_api_reload(struct lmo_api *api, struct lmo_err *err) LMO_MUST_CHECK;
uint16_t lmo_api_port(const struct lmo_api *api);

static inline void lmo_cleanup_api(struct lmo_api **api)
{
    *api = lmo_api_stop(*api);
}
#define LMO_AUTO_API LMO_CLEANUP(lmo_cleanup_api)

#endif
