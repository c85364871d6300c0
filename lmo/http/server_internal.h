/* server_internal.h - what server.c, request.c and watch.c share; nobody else includes it.
 *
 * Life of a request (invariants, all under server->lock):
 *  1. A request has up to two owners: the handler's side (until its reply) and libmicrohttpd's side (until its
 *     completion callback). It is freed when both are gone. The server outlives its requests by reference count.
 *  2. `answered` goes from false to true once; whoever makes that step supplies the response, everybody else's is
 *     dropped.
 *  3. `mhd` may be touched by another thread only to resume it, while `suspended` is true. Suspending (on
 *     libmicrohttpd's thread) and resuming both happen under the lock, so that a resume is never lost and never early.
 *  4. A suspended request is in `pending` and has a deadline; so it is always resumed. */
#ifndef LMO_HTTP_SERVER_INTERNAL_H
#define LMO_HTTP_SERVER_INTERNAL_H

#include "http/server.h"
#include "base/buf.h"
#include "http/server_tls.h"

#include <microhttpd.h>
#include <pthread.h>

#define LMO_HTTP_REPLY_HEADERS_MAX 8
#define LMO_HTTP_FIELDS_MAX        64 /* headers and query parameters together */

struct lmo_http_connection {
    struct lmo_http_connection *prev, *next; /* server->connections */
    struct lmo_http_server *server;          /* borrowed: closed before the server ends */
    struct lmo_server_tls *tls;              /* what the handshake used; keeps chain and key alive */
    int fd;
    uint64_t deadline_ns;     /* under the lock; 0: idle or in a handler */
    uint64_t judged;          /* tls_generation of the last good judgement; 0: none */
    bool counted;             /* among the connections of `peer` */
    struct lmo_identity peer; /* valid while judged != 0 */
    char remote[LMO_ADDRESS_MAX];
};

struct lmo_http_field {
    enum { LMO_FIELD_HEADER, LMO_FIELD_QUERY } kind;
    const char *name, *value;
};

struct lmo_http_request {
    unsigned owners;                /* under the lock */
    struct lmo_http_server *server; /* referenced */
    struct MHD_Connection *mhd;
    struct lmo_http_request *prev, *next; /* server->pending, while suspended */

    /* The request: copied, because the handler's side may outlive the connection. */
    char *text; /* one block that method, path and fields point into */
    const char *method, *path;
    struct lmo_http_field fields[LMO_HTTP_FIELDS_MAX];
    unsigned field_count;
    struct lmo_buf body;
    struct lmo_identity peer;
    char remote[LMO_ADDRESS_MAX];
    void *owner; /* the handler's */
    char id[64];

    /* On libmicrohttpd's thread. */
    uint64_t received; /* bytes of body, also those not kept */
    bool handled;      /* the handler was called */
    bool refused;      /* too large: read on, then answer 413 */

    /* Under the lock. */
    bool answered, suspended;
    uint64_t timeout_ms, deadline_ns;
    unsigned status;
    struct MHD_Response *response;
    struct {
        char name[48], value[256];
    } extra[LMO_HTTP_REPLY_HEADERS_MAX];
    unsigned extra_count;
};

struct lmo_http_server {
    struct lmo_http_server_config config; /* defaults filled in */
    unsigned references;                  /* under the lock: the owner and every request */
    struct MHD_Daemon *daemon;
    uint16_t port;
    pthread_t watcher;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* an earlier deadline, stopping, or pending went down */
    bool stopping;          /* nothing is suspended any more */
    bool watcher_running, watcher_stop;
    uint64_t next_wake_ns; /* what the watcher sleeps until */
    struct lmo_server_tls *tls;
    uint64_t tls_generation; /* counts loads, from 1 */
    struct lmo_http_connection *connections;
    struct lmo_http_request *pending;
    unsigned active; /* requests whose completion callback has not come */
    struct lmo_http_stats stats;
};

/* watch.c: the deadlines. */
int lmo_http_watch_start(struct lmo_http_server *server, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_http_watch_stop(struct lmo_http_server *server);
/* With the lock held: makes sure that the watcher wakes by then. */
void lmo_http_watch_by(struct lmo_http_server *server, uint64_t deadline_ns);

/* request.c */
struct lmo_http_request *lmo_http_request_new(struct lmo_http_server *server, struct MHD_Connection *mhd,
                                              const struct lmo_http_connection *connection, const char *method,
                                              const char *path);
/* Drops one owner; frees the request with the last. */
void lmo_http_request_drop(struct lmo_http_request *req);
/* With the lock held. Answers req if nobody did, resuming it if it is suspended. Takes response; false if it was too
 * late. */
bool lmo_http_answer_locked(struct lmo_http_request *req, unsigned status, struct MHD_Response *response);
/* A problem+json response; NULL without memory. `id`: the request's, or "". */
struct MHD_Response *lmo_http_problem(unsigned status, int code, const char *detail, bool close, const char *id);
/* The id of a request whose headers have come, as the listener's request_ids says; else "". */
void lmo_http_find_id(const struct lmo_http_server *server, struct MHD_Connection *mhd, char ret_id[LMO_NAME_MAX]);
/* With the lock held; frees the server with the last reference (then the lock is gone: `true`). */
void lmo_http_server_unref_unlock(struct lmo_http_server *server);

#endif
