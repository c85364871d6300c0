/* server.h - HTTPS listener: one epoll thread (libmicrohttpd, TLS by GnuTLS), client certificates required (but see
 * token_peer).
 *
 * Before a handler sees a request, the peer's certificate was verified in our own code: chain to the CA, validity in
 * time, revocation list, purpose "client", exactly one URI `urn:lmo:...`. A peer that fails gets 401 with the reason as
 * problem+json, one log line, and the connection is closed: an answer rather than a TLS alert, so that it knows for
 * certain that nothing was executed. A reload (new CA, list, certificate) applies to new connections at once and is
 * checked again on the next request of open ones.
 *
 * A request is given to the handler once, whole. The handler answers at once, or keeps the pointer and answers later
 * from any thread; exactly one of the lmo_http_reply* calls ends its ownership. A request that is not answered by its
 * deadline is answered 504 by the server; the late reply is then dropped (and still required: it frees the request).
 * The same if the client went away or the server was freed. So a handler that keeps a request must reply to it exactly
 * once, whatever happens. */
#ifndef LMO_HTTP_SERVER_H
#define LMO_HTTP_SERVER_H

#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "http/identity.h"
#include "http/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lmo_http_server;
struct lmo_http_request; /* opaque; accessors below are valid until the reply */

/* On the server's thread; must not block (parse, hand on, or answer). */
typedef void lmo_http_handler(void *arg, struct lmo_http_request *req);

struct lmo_http_server_config {
    char address[LMO_ADDRESS_MAX]; /* "10.0.0.1:8443", "[::]:8443"; port 0 picks a free one */
    struct lmo_tls_files tls;
    lmo_http_handler *handler;
    void *handler_arg;
    const char *log_name; /* appears as listener=<name> in log lines; borrowed */
    /* 0 means the default in parentheses */
    size_t body_max;             /* (1 MiB) */
    size_t header_max;           /* (16 KiB) request line and headers together */
    unsigned connections_max;    /* (256) */
    unsigned connections_per_ip; /* (connections_max) */
    unsigned connections_per_peer; /* (connections_max) of one identity; further ones get 429 */
    unsigned idle_timeout_s;     /* (120) kept-alive connection without a request */
    uint64_t receive_timeout_ms; /* (30,000) TLS handshake; and a whole request once its first line has come */
    uint64_t reply_timeout_ms;   /* (60,000) default deadline of a kept request */
    /* Every request has an id, and every answer says it: the client's X-Request-Id if that is a name (base/id.h), else one
     * that is made here. */
    bool request_ids;
    /* Who shows no certificate at all may be known by `Authorization: Bearer <token>` instead: 0 and *ret_peer, or
     * UNAUTHENTICATED with the reason. Asked with every request. On the server's thread, must not block; gets handler_arg.
     * NULL: a certificate is required. */
    int (*token_peer)(void *arg, const char *token, struct lmo_identity *ret_peer, struct lmo_err *err);
};

int lmo_http_server_new(const struct lmo_http_server_config *config, struct lmo_http_server **ret_server,
                        struct lmo_err *err) LMO_MUST_CHECK;
/* Takes server (NULL is fine), returns NULL. Stops listening, answers kept requests with 503, closes connections, joins
 * the thread. Kept requests stay valid for their owners until they reply. Not from a handler. */
struct lmo_http_server *lmo_http_server_free(struct lmo_http_server *server);

/* Reads the TLS files again. On failure the old ones stay in force. Thread-safe. */
int lmo_http_server_reload(struct lmo_http_server *server, struct lmo_err *err) LMO_MUST_CHECK;

uint16_t lmo_http_server_port(const struct lmo_http_server *server);

struct lmo_http_stats {
    uint64_t connections_total, connections_open, requests_total, refused_peers, timeouts;
};
void lmo_http_server_stats(struct lmo_http_server *server, struct lmo_http_stats *ret_stats);

/* ---- request: borrowed strings, valid until the reply ---- */
const char *lmo_http_method(const struct lmo_http_request *req);
const char *lmo_http_path(const struct lmo_http_request *req); /* percent-decoded, without query */
const char *lmo_http_query(const struct lmo_http_request *req,
                           const char *name); /* decoded; NULL if absent; "" if bare */
/* The first query parameter that is not among `known` (NULL at the end); NULL: there is none. */
const char *lmo_http_query_unknown(const struct lmo_http_request *req, const char *const *known);
const char *lmo_http_header(const struct lmo_http_request *req, const char *name); /* NULL if absent; any case */
const char *lmo_http_body(const struct lmo_http_request *req, size_t *ret_len);    /* NUL-terminated, never NULL */
const struct lmo_identity *lmo_http_peer(const struct lmo_http_request *req);
const char *lmo_http_remote(const struct lmo_http_request *req); /* "address:port" */
/* Query parameter as a number: absent leaves *ret_value as it was; INVALID if not a decimal in range. */
int lmo_http_query_u64(const struct lmo_http_request *req, const char *name, uint64_t min, uint64_t max,
                       uint64_t *ret_value, struct lmo_err *err) LMO_MUST_CHECK;

/* For a handler that keeps the request: answer 504 by itself `timeout_ms` from now (instead of the default). Before
 * the handler returns, on its thread. At most 10 minutes. */
void lmo_http_set_timeout(struct lmo_http_request *req, uint64_t timeout_ms);
/* What the handler wants to find again when it replies: its own pointer, and the request's id (at most 63 characters;
 * "" until it is set, but for listeners with request_ids). Before the handler returns. */
void lmo_http_set_tag(struct lmo_http_request *req, void *owner, const char *id);
void *lmo_http_owner(const struct lmo_http_request *req);
const char *lmo_http_id(const struct lmo_http_request *req);
/* A response header to send with the reply, e.g. "Location", "Retry-After"; at most 8. Before the reply. */
int lmo_http_set_header(struct lmo_http_request *req, const char *name, const char *value);

/* ---- reply: each takes req; thread-safe; body is copied ---- */
void lmo_http_reply(struct lmo_http_request *req, unsigned status, const char *content_type, const void *body,
                    size_t len);
/* Takes `json` too (NULL, or one that cannot be dumped: 500). */
void lmo_http_reply_json(struct lmo_http_request *req, unsigned status, json_t *json);
/* RFC 9457 problem+json from an error: status by the table of base/err.h; members type, title, status, detail, code. */
void lmo_http_reply_error(struct lmo_http_request *req, const struct lmo_err *err);
/* The same from a code and a formatted sentence. */
void lmo_http_reply_fail(struct lmo_http_request *req, int code, const char *fmt, ...) LMO_PRINTF(3, 4);

/* ---- routing helper ---- */
#define LMO_HTTP_PARAMS_MAX 4
#define LMO_HTTP_PARAM_MAX  128
struct lmo_http_params {
    unsigned count;
    char value[LMO_HTTP_PARAMS_MAX][LMO_HTTP_PARAM_MAX];
};
/* True if `path` matches `pattern`, in which each "{...}" stands for one non-empty segment of at most 127 bytes:
 * "/v1/ops/{id}" matches "/v1/ops/abc". No trailing slashes. */
bool lmo_http_match(const char *pattern, const char *path, struct lmo_http_params *ret_params);

struct lmo_http_route {
    const char *method, *pattern;
    void (*fn)(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params);
};
/* Calls the first route that matches; answers 404, or 405 with Allow, itself. Takes req. */
void lmo_http_dispatch(const struct lmo_http_route *routes, size_t count, void *arg, struct lmo_http_request *req);

static inline void lmo_cleanup_http_server(struct lmo_http_server **s)
{
    *s = lmo_http_server_free(*s);
}
#define LMO_AUTO_HTTP_SERVER LMO_CLEANUP(lmo_cleanup_http_server)

#endif
