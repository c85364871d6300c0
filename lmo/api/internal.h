/* internal.h - shared by the files of this directory only; docs/api.md says how to add a route.
 *
 * api.c         listener, and the way of a request to its handler
 * routes.c      the table of routes: who may do what
 * ask.c         Idempotency-Key, If-Match, dry_run: the envelope that goes with a request
 * limits.c      how many requests a client may make
 * page.c        pages of lists: limit, cursor, filters
 * reply.c       the engine's replies and our own refusals as HTTP
 * documents.c   /openapi.json, /problems/{code}
 * inventory.c   hosts and guests
 * migrations.c  migrations
 * tokens.c      bearer tokens
 * audit.c       who changed what */
#ifndef LMO_API_INTERNAL_H
#define LMO_API_INTERNAL_H

#include "api/api.h"
#include "api/limits.h"
#include "api/routes.h"
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
    struct limits *limits;
    bool pre_production;
};

typedef void route_fn(void *api, struct lmo_http_request *req, const struct lmo_http_params *params);
route_fn host_add, host_list, host_get, host_limits, host_remove, vm_list, vm_get, health;
route_fn migration_start, migration_list, migration_get, migration_journal, migration_cancel, migration_resolve, audit_list, doctor;
route_fn token_create, token_list, token_get, token_revoke, openapi_document, problem_page;

/* audit.c */
/* Gives the request its id, and notes who asks for it if it may change something. False: it cannot be noted, so it must not
 * be done. */
bool audit_asked(struct lmo_api *api, struct lmo_http_request *req);
/* Right before the reply. `location` (may be NULL): of what was made. */
void audit_answered(const struct lmo_http_request *req, int code, const char *location, const char *detail);

/* "operator:alice"; "operator:token/ci" for one who came with a bearer token. */
void principal_of(const struct lmo_http_request *req, char *ret, size_t size);

/* ask.c: what the engine has to know of how this is asked for. False: refused. */
bool read_ask(struct lmo_http_request *req, const struct lmo_api_route *route, struct lmo_ask *ret);

/* tokens.c: who a bearer token is (http/server.h). */
int token_peer(void *api, const char *token, struct lmo_identity *ret_peer, struct lmo_err *err);

/* page.c. On failure the request was refused. */
/* The page that the request wants of the list of that name: `limit` and `cursor`. `filters`: names of the query parameters
 * that say what is in the list, NULL at the end; a cursor belongs to their values. */
bool read_page(struct lmo_http_request *req, const char *list, const char *const *filters, struct lmo_page *ret);
/* A query parameter that must be a name; absent leaves "". */
bool read_name(struct lmo_http_request *req, const char *name, char *ret, size_t size);
/* Two query parameters, since_ms and until_ms; absent leaves 0. */
bool read_period(struct lmo_http_request *req, int64_t *ret_since_ms, int64_t *ret_until_ms);

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
/* A query parameter that is a number. On failure the request was refused. */
bool read_number(struct lmo_http_request *req, const char *name, uint64_t min, uint64_t max, uint64_t *ret);

#endif
