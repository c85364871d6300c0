/* routes.c - the table of routes. See routes.h. */
#include "api/internal.h"

#include <string.h>

#define ALL     LMO_API_ALL
#define READERS LMO_API_READERS
#define WRITERS LMO_API_WRITERS
#define DRY     LMO_API_DRY_RUN
#define MATCH   LMO_API_IF_MATCH

const struct lmo_api_route lmo_api_routes[] = {
    {"POST", "/v1/hosts", host_add, WRITERS, DRY},
    {"GET", "/v1/hosts", host_list, READERS, 0},
    {"GET", "/v1/hosts/{name}", host_get, READERS, 0},
    {"PATCH", "/v1/hosts/{name}", host_limits, WRITERS, DRY | MATCH},
    {"DELETE", "/v1/hosts/{name}", host_remove, WRITERS, DRY | MATCH},
    {"POST", "/v1/hosts/{name}/cordon", host_cordon, WRITERS, DRY | MATCH},
    {"POST", "/v1/hosts/{name}/uncordon", host_uncordon, WRITERS, DRY | MATCH},
    {"PUT", "/v1/hosts/{name}/labels", host_labels, WRITERS, DRY | MATCH},
    {"GET", "/v1/vms", vm_list, READERS, 0},
    {"GET", "/v1/vms/{id}", vm_get, READERS, 0},
    {"GET", "/v1/vms/{id}/explain", vm_explain, READERS, 0},
    {"GET", "/v1/vms/{id}/policy", vm_policy_get, READERS, 0},
    {"PUT", "/v1/vms/{id}/policy", vm_policy_set, WRITERS, DRY | MATCH},
    {"GET", "/v1/vms/{id}/lease", vm_lease_get, READERS, 0},
    {"PUT", "/v1/vms/{id}/lease", vm_lease_set, WRITERS, DRY | MATCH},
    {"DELETE", "/v1/vms/{id}/lease", vm_lease_drop, WRITERS, DRY | MATCH},
    {"POST", "/v1/drains", drain_start, WRITERS, DRY},
    {"GET", "/v1/drains", drain_list, READERS, 0},
    {"GET", "/v1/drains/{id}", drain_get, READERS, 0},
    {"POST", "/v1/drains/{id}/pause", drain_pause, WRITERS, DRY | MATCH},
    {"POST", "/v1/drains/{id}/resume", drain_resume, WRITERS, DRY | MATCH},
    {"POST", "/v1/drains/{id}/cancel", drain_cancel, WRITERS, DRY | MATCH},
    {"POST", "/v1/drains/{id}/acknowledge", drain_acknowledge, WRITERS, DRY},
    {"POST", "/v1/rebalance", rebalance, WRITERS, DRY},
    {"POST", "/v1/migrations", migration_start, WRITERS, DRY},
    {"GET", "/v1/migrations", migration_list, READERS, 0},
    {"GET", "/v1/migrations/{id}", migration_get, READERS, 0},
    {"GET", "/v1/migrations/{id}/journal", migration_journal, READERS, 0},
    {"POST", "/v1/migrations/{id}/cancel", migration_cancel, WRITERS, DRY | MATCH},
    {"POST", "/v1/migrations/{id}/resolve", migration_resolve, WRITERS, DRY | MATCH},
    {"POST", "/v1/doctor", doctor, WRITERS, DRY},
    /* The whole store, and whether it acts: operators alone; a token is as good as what is in the store. */
    {"POST", "/v1/backup", backup, LMO_API_ROLE(OPERATOR), DRY | LMO_API_CERTIFICATE},
    {"POST", "/v1/restore", restore, LMO_API_ROLE(OPERATOR), DRY | LMO_API_CERTIFICATE},
    /* Who may make a token may make one of any role: operators, and nobody by means of a token. */
    {"POST", "/v1/tokens", token_create, LMO_API_ROLE(OPERATOR), DRY | LMO_API_CERTIFICATE},
    {"GET", "/v1/tokens", token_list, READERS, 0},
    {"GET", "/v1/tokens/{id}", token_get, READERS, 0},
    {"DELETE", "/v1/tokens/{id}", token_revoke, LMO_API_ROLE(OPERATOR), DRY | LMO_API_CERTIFICATE},
    {"GET", "/v1/audit", audit_list, READERS, 0},
    {"GET", "/v1/events", events_follow, READERS, 0},
    {"POST", "/v1/migrations/{id}/acknowledge", migration_acknowledge, WRITERS, DRY | MATCH},
    {"PUT", "/v1/vms/{id}/hook", hook_put, WRITERS, DRY | MATCH},
    {"GET", "/v1/vms/{id}/hook", hook_get, READERS, 0},
    {"DELETE", "/v1/vms/{id}/hook", hook_remove, WRITERS, DRY | MATCH},
    {"POST", "/v1/webhooks", webhook_create, WRITERS, DRY},
    {"GET", "/v1/webhooks", webhook_list, READERS, 0},
    {"GET", "/v1/webhooks/{id}", webhook_get, READERS, 0},
    {"PATCH", "/v1/webhooks/{id}", webhook_change, WRITERS, DRY | MATCH},
    {"DELETE", "/v1/webhooks/{id}", webhook_remove, WRITERS, DRY | MATCH},
    {"POST", "/v1/webhooks/{id}/rotate", webhook_rotate, WRITERS, DRY | MATCH},
    {"GET", "/v1/webhooks/{id}/dead-letters", dead_letters, READERS, 0},
    {"POST", "/v1/webhooks/{id}/dead-letters/redeliver", dead_redeliver, WRITERS, DRY},
    {"GET", "/readyz", ready, ALL, 0},
    {"GET", "/metrics", metrics, READERS, 0},
    {"GET", "/healthz", health, ALL, 0}, /* whoever makes faults has to see first that this is not production */
    {"GET", "/openapi.json", openapi_document, ALL, 0},
    {"GET", "/problems/{code}", problem_page, ALL, 0},
};
const size_t lmo_api_route_count = sizeof(lmo_api_routes) / sizeof(lmo_api_routes[0]);

bool lmo_api_route_writes(const struct lmo_api_route *route)
{
    return strcmp(route->method, "GET") != 0;
}
