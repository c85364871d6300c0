/* client.h - HTTPS requests on an event loop: persistent mutual-TLS connections (libcurl multi, TLS by OpenSSL).
 *
 * The server's certificate is verified against the CA, the revocation list and the clock; and when the caller names
 * a peer, its URI must be exactly `urn:lmo:<role>:<name>`, checked before each request is sent (also on a reused
 * connection). Host names and IP SANs play no part then: hosts are addressed by IP. Without a named peer the URL's host
 * is verified.
 *
 * The outcome says what is certain:
 *   0                   a complete response arrived (whatever its status)
 *   LMO_E_UNAVAILABLE   not connected, nothing was sent: certainly not executed (also: connect or TLS handshake timed
 *   out) LMO_E_UNAUTHENTICATED  the peer is not who it should be; nothing was sent LMO_E_TIMEOUT       the deadline
 *   passed after sending had begun: may have been executed LMO_E_UNKNOWN       the connection broke after sending had
 *   begun: may have been executed LMO_E_TOO_LARGE     the response passed response_max: executed, answer lost (observe)
 *   LMO_E_LIMIT         too many requests queued in this client: not sent
 * A request that a reused connection lost before any answer is sent again once on a new connection if its method is
 * idempotent (GET, HEAD, PUT, DELETE), never otherwise.
 *
 * All calls on the loop's thread. Callbacks run on the loop, never inside the call that started the request. */
#ifndef LMO_HTTP_CLIENT_H
#define LMO_HTTP_CLIENT_H

#include "base/cleanup.h"
#include "base/err.h"
#include "base/loop.h"
#include "http/identity.h"
#include "http/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lmo_http_client;
struct sockaddr;

struct lmo_http_client_config {
    struct lmo_tls_files tls; /* cert and key both empty: no client certificate (a token says who asks) */
    /* 0 means the default in parentheses */
    unsigned connections_per_host; /* (8) more requests wait, their deadline running */
    unsigned connections_max;      /* (1024) kept open in all */
    unsigned requests_max;         /* (4096) in flight or waiting */
    unsigned connecting_max;       /* (no limit) requests that wait for their connection to be made; more wait their turn,
                                    * their deadline running: a thousand handshakes at once would all time out */
    uint64_t connect_timeout_ms;   /* (2,000) TCP and TLS; never longer than the request's own deadline */
    /* For calls to others than our fleet: no certificate of ours is shown (tls.cert and tls.key are not read), whoever answers is
     * verified by tls.ca or, if that is empty, by the system's CAs, and by the URL's host. */
    bool outside;
    bool plain; /* http:// URLs too; only with `outside` */
    /* With `outside`: asked before each connection, with the address that the name was resolved to. May be NULL: any. */
    bool (*may_connect)(void *arg, const struct sockaddr *address);
    void *may_connect_arg;
    unsigned receive_buffer; /* (the system's) bytes of each socket's receive buffer: a small one makes a slow reader */
    unsigned idle_s; /* (90) reuse of a connection idle for longer; keep below the server's idle timeout */
};

struct lmo_http_request_spec {
    const char *method;         /* "GET", "PUT", ... */
    const char *url;            /* "https://10.0.0.1:8443/v1/ops/x"; https only */
    const char *const *headers; /* NULL, or "Name: value" strings ending with NULL; Content-Type is JSON by default */
    const void *body;           /* NULL: none */
    size_t body_len;
    uint64_t timeout_ms;     /* whole request, from the call; required */
    size_t response_max;     /* (1 MiB) */
    enum lmo_role peer_role; /* LMO_ROLE_NONE: verify the host name of the URL instead */
    const char *peer_name;   /* NULL or "": any name of that role */
    /* A body that goes on (server-sent events): of a 2xx answer each piece is given to on_data as it comes, and kept nowhere;
     * response_max does not count then, and timeout_ms begins anew with each piece. Not 0: no more is wanted; the request ends
     * with CANCELLED. The callback for the response comes at the end, as always. on_data must not cancel it or free the client. */
    int (*on_data)(void *arg, const char *data, size_t len);
    void *data_arg;          /* its argument */
    bool owned_arg;          /* the callback's argument is malloc'ed, and freed here if the callback will not be called */
    bool urgent;             /* does not wait for connecting_max */
};

/* Borrowed for the length of the callback. */
struct lmo_http_response {
    int result;       /* 0 or LMO_E_*, see above */
    unsigned status;  /* 0 unless result is 0 */
    const char *body; /* NUL-terminated, never NULL */
    size_t body_len;
    const char *content_type; /* "" if none */
    struct lmo_identity peer; /* who answered; role NONE if nobody did */
    uint64_t total_us;        /* from the call to the last byte */
    bool reused_connection;
    const struct lmo_err *err; /* text for a person when result is not 0 */
};

typedef void lmo_http_response_fn(void *arg, const struct lmo_http_response *response);

/* The loop is borrowed and must outlive the client. */
int lmo_http_client_new(struct lmo_loop *loop, const struct lmo_http_client_config *config,
                        struct lmo_http_client **ret_client, struct lmo_err *err) LMO_MUST_CHECK;
/* Takes client (NULL is fine), returns NULL. Requests under way are cancelled: their callbacks are NOT called. Not from
 * a response callback. */
struct lmo_http_client *lmo_http_client_free(struct lmo_http_client *client);
/* Reads the TLS files again, for new connections; idle connections are closed before their next use. Old ones stay in
 * force on failure. */
int lmo_http_client_reload(struct lmo_http_client *client, struct lmo_err *err) LMO_MUST_CHECK;

/* Starts a request; everything in `spec` is copied. 0: `fn` will be called exactly once, unless cancelled. *ret_handle
 * (may be NULL) is never 0. Otherwise INVALID, LIMIT or NO_MEMORY, and fn is not called. */
int lmo_http_request_async(struct lmo_http_client *client, const struct lmo_http_request_spec *spec,
                           lmo_http_response_fn *fn, void *arg, uint64_t *ret_handle,
                           struct lmo_err *err) LMO_MUST_CHECK;
/* After this fn will not be called. The request may still be executed by the server. Sets *handle to 0; a handle that
 * is 0 or already answered is left alone. */
void lmo_http_cancel(struct lmo_http_client *client, uint64_t *handle);

/* Sends what was asked for just now before it returns, where a connection is open, instead of at the loop's next turn.
 * For the rare request that every microsecond counts for. Loop thread. */
void lmo_http_client_hurry(struct lmo_http_client *client);

/* Requests in flight or waiting; for metrics. */
unsigned lmo_http_client_load(const struct lmo_http_client *client);

/* ---- blocking, for the command line ---- */
struct lmo_http_answer {
    unsigned status;
    char *body; /* owned */
    size_t body_len;
    char content_type[64];
};
/* Runs one request to its end on the client's loop, which must not be running. 0 or as above. */
int lmo_http_request_sync(struct lmo_http_client *client, const struct lmo_http_request_spec *spec,
                          struct lmo_http_answer *ret_answer, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_http_answer_done(struct lmo_http_answer *answer);

static inline void lmo_cleanup_http_client(struct lmo_http_client **c)
{
    *c = lmo_http_client_free(*c);
}
#define LMO_AUTO_HTTP_CLIENT LMO_CLEANUP(lmo_cleanup_http_client)

#endif
