/* internal.h - shared by the files of this directory only.
 *
 * api.c         listener, who may do what, the table of routes
 * reply.c       the engine's replies and our own refusals as HTTP
 * inventory.c   hosts and guests
 * migrations.c  migrations
 * drains.c      drains, rebalancing
 * fleet.c       what is said about hosts and guests: cordon, labels, policies, leases; explain
 * audit.c       who changed what */
#ifndef LMO_API_INTERNAL_H
#define LMO_API_INTERNAL_H

#include "api/api.h"
#include "http/server.h"
#include "proto/codec.h"

#define BODY_MAX        (64U << 10)
#define WAIT_MAX_MS     60000U /* longest a client may ask to wait */
#define REPLY_MARGIN_MS 5000U  /* beyond it: then the engine itself does not answer */
#define REPLY_MAX_MS    30000U /* requests that ask hosts before they are answered */
#define LIST_MAX        1000U
#define LIST_DEFAULT    100U

struct lmo_api {
    struct lmo_http_server *server;
    struct lmo_engine *engine;
    bool pre_production;
};

typedef void route_fn(void *api, struct lmo_http_request *req, const struct lmo_http_params *params);
route_fn host_add, host_list, host_get, host_limits, host_remove, vm_list, vm_get, health;
route_fn migration_start, migration_list, migration_get, migration_journal, migration_cancel, migration_resolve, audit_list, doctor;
/* drains.c, fleet.c */
route_fn drain_start, drain_list, drain_get, drain_pause, drain_resume, drain_cancel, drain_acknowledge, rebalance;
route_fn host_cordon, host_uncordon, host_labels, vm_explain, vm_policy_set, vm_policy_get, vm_lease_set, vm_lease_get, vm_lease_drop;
/* "N+1" -> 1; empty: 0. False: refused. */
bool read_keep_free(struct lmo_http_request *req, const char *text, uint32_t *ret);

/* audit.c */
/* False: it cannot be noted who asks for it, so it must not be done. */
bool audit_asked(struct lmo_api *api, struct lmo_http_request *req);
/* Right before the reply. `location` (may be NULL): of what was made. */
void audit_answered(const struct lmo_http_request *req, int code, const char *location, const char *detail);

/* migrations.c: "operator:alice" */
void principal_of(const struct lmo_http_request *req, char *ret, size_t size);

/* reply.c */
/* A lmo_engine_reply_fn whose argument is the request. */
void reply_to_request(void *request, const struct lmo_engine_reply *reply);
/* Ends the request. `field` may be empty. */
void refuse(struct lmo_http_request *req, int code, const char *field, const char *fmt, ...) LMO_PRINTF(4, 5);
/* The same; the field is what stands before the first colon, as the codec's errors have it. */
void refuse_error(struct lmo_http_request *req, const struct lmo_err *err);
/* For what an engine call returned: a failure ends the request, otherwise the reply will. */
void asked(struct lmo_http_request *req, int result);

/* The body, decoded by `table` into `to`, nothing unknown in it. On failure the request was refused and has ended. An
 * absent body is an empty object. *ret_root (may be NULL): owned by the caller. */
bool read_body(struct lmo_http_request *req, const struct lmo_table *table, void *to, json_t **ret_root);
/* The two halves of it, for bodies with members that the codec has no type for: those are taken out in between. */
bool read_raw_body(struct lmo_http_request *req, json_t **ret_root);
bool decode_body(struct lmo_http_request *req, const struct lmo_table *table, const json_t *root, void *to);
/* A query parameter that is a number. On failure the request was refused. */
bool read_number(struct lmo_http_request *req, const char *name, uint64_t min, uint64_t max, uint64_t *ret);

#endif
