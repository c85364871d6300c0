/* routes.h - the one table of routes, which says who may do what; and what proto/openapi.yaml says of each.
 *
 * Default deny: a route is for the roles that its line names, a role that no line names may do nothing. Tests walk the whole
 * matrix, and hold the table and the document against each other in both directions. */
#ifndef LMO_API_ROUTES_H
#define LMO_API_ROUTES_H

#include "http/identity.h"
#include "http/server.h"

#include <stdbool.h>
#include <stddef.h>

#define LMO_API_ROLE(name) (1U << LMO_ROLE_##name)
/* Who looks, who changes; and everybody that this API is for. */
#define LMO_API_WRITERS (LMO_API_ROLE(OPERATOR) | LMO_API_ROLE(CONTROL_PLANE))
#define LMO_API_READERS (LMO_API_WRITERS | LMO_API_ROLE(VIEWER))
#define LMO_API_ALL     (LMO_API_READERS | LMO_API_ROLE(FAULT_INJECTOR))

enum lmo_api_flags {
    LMO_API_DRY_RUN = 1,     /* its request of the engine honours dry_run; every route that changes something must */
    LMO_API_IF_MATCH = 2,    /* ... and If-Match */
    LMO_API_CERTIFICATE = 4, /* not for bearer tokens */
};

struct lmo_api_route {
    const char *method, *pattern; /* as in http/server.h */
    void (*fn)(void *api, struct lmo_http_request *req, const struct lmo_http_params *params);
    unsigned roles; /* LMO_API_ROLE(...) together; 0: nobody */
    unsigned flags; /* enum lmo_api_flags */
};
extern const struct lmo_api_route lmo_api_routes[];
extern const size_t lmo_api_route_count;

/* Does it change something? Then it is audited, and takes Idempotency-Key and dry_run. */
bool lmo_api_route_writes(const struct lmo_api_route *route);

/* Generated from proto/openapi.yaml and docs/problems at build time (cmake/openapi.py). */
struct lmo_api_operation {
    const char *method, *pattern, *id;
    const char *const *query; /* names of its query parameters; NULL at the end */
};
extern const struct lmo_api_operation lmo_api_operations[];
extern const size_t lmo_api_operation_count;
extern const char lmo_api_document[]; /* the whole of it as JSON */
extern const size_t lmo_api_document_len;
struct lmo_api_problem {
    const char *code, *text; /* Markdown */
};
extern const struct lmo_api_problem lmo_api_problems[];
extern const size_t lmo_api_problem_count;

#endif
