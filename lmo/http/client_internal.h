/* client_internal.h - what client.c, client_transport.c and client_sync.c share; nobody else includes it.
 *
 * One `transport` is a curl multi handle with the TLS files of one load. A reload makes a new one; the old one serves
 * the requests that it has and is then destroyed with its connections, so that no request after the reload uses an old
 * connection. */
#ifndef LMO_HTTP_CLIENT_INTERNAL_H
#define LMO_HTTP_CLIENT_INTERNAL_H

#include "http/client.h"
#include "base/buf.h"
#include "http/client_tls.h"

#include <curl/curl.h>

#define LMO_HTTP_SPARE_EASY_MAX 8

struct transport {
    struct lmo_http_client *client;
    struct transport *next; /* client->retired */
    CURLM *multi;
    struct lmo_client_tls *tls;
    uint64_t timer; /* libcurl's own */
    unsigned requests;
};

struct request {
    struct lmo_http_client *client;
    struct transport *transport;
    uint32_t slot;
    CURL *easy;
    struct curl_slist *headers;
    char *body;
    char url[LMO_URL_MAX * 2];
    lmo_http_response_fn *fn;
    void *arg;
    uint64_t deadline_timer;
    uint64_t timeout_ms;
    int (*on_data)(void *arg, const char *data, size_t len);
    bool unwanted; /* on_data said so */
    uint64_t started_ns;
    struct lmo_buf response;
    enum lmo_role peer_role;
    char peer_name[LMO_NAME_MAX];
    bool idempotent;
    bool queued;     /* in client->queue: libcurl has not seen it yet */
    bool connecting; /* libcurl has it, and its connection is not ready yet: counts in client->connecting */
    struct request *prev, *next;
    bool sending; /* bytes of the request may have left */
    bool too_large;
    bool peer_refused; /* the server is not who it should be */
    struct lmo_identity peer;
    struct lmo_err err; /* peer_refused: why */
    char curl_text[CURL_ERROR_SIZE];
};

struct slot {
    struct request *request; /* NULL: free */
    uint32_t generation;
    uint32_t next_free;
};

struct lmo_http_client {
    struct lmo_loop *loop;
    struct lmo_http_client_config config;
    struct transport *transport; /* for new requests */
    struct transport *retired;   /* of before reloads, still with requests */
    uint64_t reaper;             /* timer that destroys retired transports */
    struct slot *slots;
    uint32_t slot_count, slot_free; /* allocated; head of the free list or UINT32_MAX */
    unsigned requests, connecting;
    struct request *queue; /* until others have their connections; oldest first */
    uint64_t starter;      /* timer that starts what is queued: not from inside libcurl's callbacks */
    CURL *spare[LMO_HTTP_SPARE_EASY_MAX];
    unsigned spare_count;
    bool calling; /* inside a caller's callback */
};

/* libcurl usable (set up on the first call)? UNSUPPORTED otherwise. */
int lmo_http_curl_ready(struct lmo_err *err) LMO_MUST_CHECK;

int lmo_http_transport_new(struct lmo_http_client *client, struct transport **ret_transport,
                           struct lmo_err *err) LMO_MUST_CHECK;
/* Without requests, and not inside one of its own callbacks. */
void lmo_http_transport_free(struct transport *t);

/* Tells the caller and ends the request. */
void lmo_http_client_finish(struct request *req, CURLcode code);

#endif
