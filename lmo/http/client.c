/* client.c - the requests of a client: preparing, the last check before sending, outcome. See client.h.
 *
 * What was certainly not executed is decided by one flag, `sending`: set by libcurl's pre-request callback, which runs
 * after the connection is ready and before the first byte of the request. */
#include "http/client_internal.h"
#include "base/assert.h"
#include "base/clock.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <utlist.h>

#define RESPONSE_MAX_DEFAULT ((size_t)1024 * 1024)
#define SPARE_EASY_MAX       8
#define REQUEST_BODY_MAX     ((size_t)16 * 1024 * 1024)

/* ---- callbacks of one request ---- */

static CURLcode ssl_ctx_cb(CURL *easy, void *ctx, void *arg)
{
    (void)easy;
    struct request *req = arg;
    return lmo_client_tls_apply(req->transport->tls, ctx) == 0 ? CURLE_OK : CURLE_SSL_CERTPROBLEM;
}

static int sockopt_cb(void *arg, curl_socket_t fd, curlsocktype purpose)
{
    (void)purpose;
    const struct request *req = arg;
    int bytes = (int)req->client->config.receive_buffer;
    if (bytes > 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    unsigned dead_ms = 15000; /* unacknowledged data or keepalive probes for this long: the peer is gone */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof dead_ms);
    return CURL_SOCKOPT_OK;
}

/* ---- waiting for a connection ---- */

static void start_queued(void *arg);

/* The request has its connection, or will never need one. */
static void connected(struct request *req)
{
    struct lmo_http_client *client = req->client;
    if (!req->connecting)
        return;
    req->connecting = false;
    client->connecting--;
    if (client->queue && !client->starter)
        lmo_assert(lmo_loop_timer(client->loop, 0, start_queued, client, &client->starter) == 0);
}

static int start(struct request *req)
{
    if (curl_multi_add_handle(req->transport->multi, req->easy) != CURLM_OK)
        return LMO_E_INTERNAL;
    req->connecting = true;
    req->client->connecting++;
    return 0;
}

static bool must_wait(const struct lmo_http_client *client)
{
    return client->config.connecting_max > 0 && client->connecting >= client->config.connecting_max;
}

static void start_queued(void *arg)
{
    struct lmo_http_client *client = arg;
    client->starter = 0;
    while (client->queue && !must_wait(client)) {
        struct request *req = client->queue;
        DL_DELETE(client->queue, req);
        req->queued = false;
        if (start(req) < 0)
            lmo_http_client_finish(req, CURLE_FAILED_INIT);
    }
}

/* The connection is ready, nothing was sent. The last word on whether to send. */
static int prereq_cb(void *arg, char *remote, char *local, int remote_port, int local_port)
{
    (void)remote, (void)local, (void)remote_port, (void)local_port;
    struct request *req = arg;
    connected(req);
    if (req->sending && !req->idempotent)
        return CURL_PREREQFUNC_ABORT; /* libcurl wants to send it a second time */
    const struct curl_tlssessioninfo *session = NULL;
    struct lmo_identity peer = {0};
    int r = LMO_E_UNAUTHENTICATED;
    if (curl_easy_getinfo(req->easy, CURLINFO_TLS_SSL_PTR, &session) == CURLE_OK && session && session->internals)
        r = lmo_client_tls_peer(session->internals, &peer, &req->err);
    else
        (void)lmo_fail(&req->err, r, "connection without TLS");
    if (req->peer_role == LMO_ROLE_NONE) {
        req->err.code = 0;
        r = 0; /* the host name was verified; an identity is not asked for */
    } else if (r == 0 &&
               (peer.role != req->peer_role || (req->peer_name[0] && strcmp(peer.name, req->peer_name) != 0))) {
        r = lmo_fail(&req->err, LMO_E_UNAUTHENTICATED, "server is %s '%s' instead of %s '%s'", lmo_role_name(peer.role),
                     peer.name, lmo_role_name(req->peer_role), req->peer_name);
    }
    if (r < 0) {
        req->peer_refused = !req->sending; /* on a second sending the first may have been executed */
        return CURL_PREREQFUNC_ABORT;
    }
    req->peer = peer;
    req->sending = true;
    return CURL_PREREQFUNC_OK;
}

static void deadline_due(void *arg);

static size_t write_cb(char *data, size_t size, size_t count, void *arg)
{
    struct request *req = arg;
    size_t len = size * count;
    long status = 0;
    if (req->on_data && curl_easy_getinfo(req->easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK && status / 100 == 2) {
        lmo_loop_cancel(req->client->loop, &req->deadline_timer);
        req->unwanted = lmo_loop_timer(req->client->loop, req->timeout_ms, deadline_due, req, &req->deadline_timer) < 0 ||
                        req->on_data(req->arg, data, len) != 0;
        return req->unwanted ? 0 : len;
    }
    if (lmo_buf_append(&req->response, data, len) < 0) {
        req->too_large = true;
        return 0;
    }
    return len;
}

/* ---- life of a request ---- */

/* `clean`: the transfer ended well. Only then is the easy handle used again: one that was taken off half-way keeps
 * its receive buffer, whose size libcurl forgets at a reset (setting it anew fails, not setting it overflows it). */
static void release(struct request *req, bool clean)
{
    struct lmo_http_client *client = req->client;
    lmo_loop_cancel(client->loop, &req->deadline_timer);
    connected(req);
    if (req->queued)
        DL_DELETE(client->queue, req);
    if (req->easy) {
        if (!req->queued)
            (void)curl_multi_remove_handle(req->transport->multi, req->easy);
        if (clean && client->spare_count < LMO_HTTP_SPARE_EASY_MAX) {
            curl_easy_reset(req->easy);
            client->spare[client->spare_count++] = req->easy;
        } else {
            curl_easy_cleanup(req->easy);
        }
    }
    struct slot *slot = &client->slots[req->slot];
    slot->request = NULL;
    slot->generation++;
    slot->next_free = client->slot_free;
    client->slot_free = req->slot;
    client->requests--;
    req->transport->requests--;
    curl_slist_free_all(req->headers);
    lmo_buf_done(&req->response);
    free(req->body);
    free(req);
}

static int outcome(const struct request *req, CURLcode code)
{
    if (code == CURLE_OK)
        return 0;
    if (req->too_large)
        return LMO_E_TOO_LARGE;
    if (req->unwanted)
        return LMO_E_CANCELLED;
    if (!req->sending) {
        bool refused = req->peer_refused || code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_ISSUER_ERROR;
        return refused ? LMO_E_UNAUTHENTICATED : code == CURLE_OUT_OF_MEMORY ? LMO_E_NO_MEMORY : LMO_E_UNAVAILABLE;
    }
    return code == CURLE_OPERATION_TIMEDOUT ? LMO_E_TIMEOUT : LMO_E_UNKNOWN;
}

/* Tells the caller and ends the request. */
void lmo_http_client_finish(struct request *req, CURLcode code)
{
    struct lmo_http_client *client = req->client;
    struct lmo_http_response response = {
        .result = outcome(req, code),
        .body = lmo_buf_text(&req->response),
        .body_len = req->response.len,
        .content_type = "",
        .peer = req->peer,
        .total_us = (lmo_now_ns() - req->started_ns) / 1000,
        .err = &req->err,
    };
    long status = 0, connects = 0;
    const char *type = NULL;
    if (response.result == 0) {
        req->err.code = 0;
        (void)curl_easy_getinfo(req->easy, CURLINFO_RESPONSE_CODE, &status);
        (void)curl_easy_getinfo(req->easy, CURLINFO_CONTENT_TYPE, &type);
        response.status = (unsigned)status;
        response.content_type = type ? type : "";
    } else if (req->too_large) {
        (void)lmo_fail(&req->err, response.result, "%s: answer of more than %zu bytes", req->url, req->response.max);
    } else if (!req->peer_refused) {
        const char *why = req->curl_text[0] ? req->curl_text : curl_easy_strerror(code);
        (void)lmo_fail(&req->err, response.result, "%s: %s%s", req->url, why,
                       req->sending ? " (after sending had begun: it may have been executed)" : " (nothing was sent)");
    } else {
        lmo_err_prefix(&req->err, "%s", req->url);
    }
    if (curl_easy_getinfo(req->easy, CURLINFO_NUM_CONNECTS, &connects) == CURLE_OK)
        response.reused_connection = response.result == 0 && connects == 0;

    /* The slot is freed first: the handle is dead inside the callback, a cancel in there does nothing. */
    struct slot *slot = &client->slots[req->slot];
    slot->generation++;
    bool outer = client->calling;
    client->calling = true;
    req->fn(req->arg, &response);
    client->calling = outer;
    release(req, code == CURLE_OK);
}

static void deadline_due(void *arg)
{
    struct request *req = arg;
    req->deadline_timer = 0;
    snprintf(req->curl_text, sizeof req->curl_text, "no answer by the deadline");
    lmo_http_client_finish(req, CURLE_OPERATION_TIMEDOUT);
}

static bool same_method(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static int set_headers(struct request *req, const struct lmo_http_request_spec *spec)
{
    bool typed = false;
    struct curl_slist *list = curl_slist_append(NULL, "Expect:"); /* no waiting for "100 Continue" */
    for (const char *const *h = spec->headers; list && h && *h; h++) {
        struct curl_slist *longer = curl_slist_append(list, *h);
        typed = typed || strncasecmp(*h, "Content-Type:", 13) == 0;
        if (!longer)
            curl_slist_free_all(list);
        list = longer;
    }
    if (list && spec->body && !typed) {
        struct curl_slist *longer = curl_slist_append(list, "Content-Type: application/json");
        if (!longer)
            curl_slist_free_all(list);
        list = longer;
    }
    req->headers = list;
    return list ? 0 : LMO_E_NO_MEMORY;
}

/* Every option of one request. libcurl copies strings, except the body. */
static int configure(struct request *req, const struct lmo_http_request_spec *spec)
{
    const struct lmo_http_client_config *config = &req->client->config;
    uint64_t connect_ms = spec->timeout_ms < config->connect_timeout_ms ? spec->timeout_ms : config->connect_timeout_ms;
    bool has_body = spec->body || same_method(spec->method, "POST") || same_method(spec->method, "PUT");
    CURL *e = req->easy;
    CURLcode c = CURLE_OK;
#define SET(option, value) c = c == CURLE_OK ? curl_easy_setopt(e, CURLOPT_##option, (value)) : c
    SET(PRIVATE, req);
    SET(ERRORBUFFER, req->curl_text);
    SET(NOSIGNAL, 1L);
    SET(URL, req->url);
    SET(PROTOCOLS_STR, "https");
    SET(PROXY, ""); /* the environment does not decide where we connect to */
    SET(NOPROXY, "*");
    SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(HTTPHEADER, req->headers);
    SET(USERAGENT, "lmo/" LMO_VERSION);
    SET(CUSTOMREQUEST, spec->method);
    if (same_method(spec->method, "HEAD"))
        SET(NOBODY, 1L);
    if (has_body) {
        SET(POSTFIELDSIZE_LARGE, (curl_off_t)spec->body_len);
        SET(POSTFIELDS, req->body ? req->body : "");
    }
    SET(WRITEFUNCTION, write_cb);
    SET(WRITEDATA, req);
    SET(PREREQFUNCTION, prereq_cb);
    SET(PREREQDATA, req);
    SET(SOCKOPTFUNCTION, sockopt_cb);
    SET(SOCKOPTDATA, req);
    SET(CONNECTTIMEOUT_MS, (long)connect_ms);
    SET(MAXAGE_CONN, (long)config->idle_s);
    SET(TCP_NODELAY, 1L);
    SET(TCP_KEEPALIVE, 1L);
    SET(TCP_KEEPIDLE, 10L);
    SET(TCP_KEEPINTVL, 5L);
    SET(BUFFERSIZE, 8192L);
    SET(UPLOAD_BUFFERSIZE, 16384L); /* the least; 64 KiB otherwise, held as long as an answer is waited for */
    SET(SSL_CTX_FUNCTION, ssl_ctx_cb);
    SET(SSL_CTX_DATA, req);
    SET(CAINFO, NULL); /* trust comes from ssl_ctx_cb alone */
    SET(CAPATH, NULL);
    SET(SSL_SESSIONID_CACHE, 0L); /* a resumed session would skip the verification */
    SET(SSL_ENABLE_ALPN, 0L);
    SET(SSL_VERIFYPEER, 1L);
    SET(SSL_VERIFYHOST, spec->peer_role == LMO_ROLE_NONE ? 2L : 0L);
#undef SET
    return c == CURLE_OK ? 0 : c == CURLE_OUT_OF_MEMORY ? LMO_E_NO_MEMORY : LMO_E_INVALID;
}

static int take_slot(struct lmo_http_client *client, uint32_t *ret_slot)
{
    if (client->requests >= client->config.requests_max)
        return LMO_E_LIMIT;
    if (client->slot_free == UINT32_MAX) {
        uint32_t count = client->slot_count ? client->slot_count * 2 : 16;
        struct slot *slots = realloc(client->slots, count * sizeof *slots);
        if (!slots)
            return LMO_E_NO_MEMORY;
        for (uint32_t i = client->slot_count; i < count; i++)
            slots[i] = (struct slot){.generation = 1, .next_free = i + 1 < count ? i + 1 : UINT32_MAX};
        client->slot_free = client->slot_count;
        client->slots = slots;
        client->slot_count = count;
    }
    *ret_slot = client->slot_free;
    client->slot_free = client->slots[*ret_slot].next_free;
    return 0;
}

static int check_spec(const struct lmo_http_request_spec *spec, struct lmo_err *err)
{
    lmo_assert(spec->method && spec->url && spec->timeout_ms > 0);
    if (strncmp(spec->url, "https://", 8) != 0 || strlen(spec->url) >= sizeof((struct request *)0)->url)
        return lmo_fail(err, LMO_E_INVALID, "'%.100s' is not an https URL, or too long", spec->url);
    if (spec->body_len > REQUEST_BODY_MAX)
        return lmo_fail(err, LMO_E_TOO_LARGE, "request body of %zu bytes", spec->body_len);
    if (spec->peer_name && strlen(spec->peer_name) >= LMO_NAME_MAX)
        return lmo_fail(err, LMO_E_INVALID, "peer name '%.80s' is too long", spec->peer_name);
    return 0;
}

static int prepare(struct request *req, const struct lmo_http_request_spec *spec)
{
    struct lmo_http_client *client = req->client;
    memcpy(req->url, spec->url, strlen(spec->url) + 1);
    req->response = LMO_BUF_INIT(spec->response_max ? spec->response_max : RESPONSE_MAX_DEFAULT);
    req->peer_role = spec->peer_role;
    if (spec->peer_name)
        memcpy(req->peer_name, spec->peer_name, strlen(spec->peer_name) + 1);
    req->idempotent = same_method(spec->method, "GET") || same_method(spec->method, "HEAD") ||
                      same_method(spec->method, "PUT") || same_method(spec->method, "DELETE");
    if (spec->body_len > 0) {
        req->body = malloc(spec->body_len);
        if (!req->body)
            return LMO_E_NO_MEMORY;
        memcpy(req->body, spec->body, spec->body_len);
    }
    int r = set_headers(req, spec);
    if (r < 0)
        return r;
    req->easy = client->spare_count ? client->spare[--client->spare_count] : curl_easy_init();
    if (!req->easy)
        return LMO_E_NO_MEMORY;
    r = configure(req, spec);
    if (r == 0)
        r = lmo_loop_timer(client->loop, spec->timeout_ms, deadline_due, req, &req->deadline_timer);
    if (r < 0)
        return r;
    if (!spec->urgent && (client->queue || must_wait(client))) {
        req->queued = true;
        DL_APPEND(client->queue, req);
        return 0;
    }
    return start(req);
}

int lmo_http_request_async(struct lmo_http_client *client, const struct lmo_http_request_spec *spec,
                           lmo_http_response_fn *fn, void *arg, uint64_t *ret_handle, struct lmo_err *err)
{
    int r = check_spec(spec, err);
    if (r < 0)
        return r;
    struct request *req = calloc(1, sizeof *req);
    if (!req)
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a request");
    r = take_slot(client, &req->slot);
    if (r < 0) {
        free(req);
        return lmo_fail(err, r, "%u requests are waiting already", client->requests);
    }
    req->client = client;
    req->transport = client->transport;
    req->fn = fn;
    req->arg = arg;
    req->on_data = spec->on_data;
    req->timeout_ms = spec->timeout_ms;
    req->started_ns = lmo_now_ns();
    client->slots[req->slot].request = req;
    client->requests++;
    req->transport->requests++;
    uint64_t handle = (uint64_t)client->slots[req->slot].generation << 32 | (req->slot + 1);
    r = prepare(req, spec);
    if (r < 0) {
        release(req, false);
        return lmo_fail(err, r, "%.200s: the request could not be prepared", spec->url);
    }
    if (ret_handle)
        *ret_handle = handle;
    return 0;
}

void lmo_http_cancel(struct lmo_http_client *client, uint64_t *handle)
{
    uint32_t slot = (uint32_t)*handle - 1, generation = (uint32_t)(*handle >> 32);
    if (*handle != 0 && slot < client->slot_count && client->slots[slot].generation == generation &&
        client->slots[slot].request)
        release(client->slots[slot].request, false);
    *handle = 0;
}

unsigned lmo_http_client_load(const struct lmo_http_client *client)
{
    return client->requests;
}

int lmo_http_client_new(struct lmo_loop *loop, const struct lmo_http_client_config *config,
                        struct lmo_http_client **ret_client, struct lmo_err *err)
{
    int r = lmo_http_curl_ready(err);
    if (r < 0)
        return r;
    struct lmo_http_client *client = calloc(1, sizeof *client);
    if (!client)
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for an HTTPS client");
    client->loop = loop;
    client->config = *config;
    client->slot_free = UINT32_MAX;
    struct lmo_http_client_config *c = &client->config;
    c->connections_per_host = c->connections_per_host ? c->connections_per_host : 8;
    c->connections_max = c->connections_max ? c->connections_max : 1024;
    c->requests_max = c->requests_max ? c->requests_max : 4096;
    c->connect_timeout_ms = c->connect_timeout_ms ? c->connect_timeout_ms : 2000;
    c->idle_s = c->idle_s ? c->idle_s : 90;
    r = lmo_http_transport_new(client, &client->transport, err);
    if (r < 0) {
        free(client);
        return r;
    }
    *ret_client = client;
    return 0;
}

struct lmo_http_client *lmo_http_client_free(struct lmo_http_client *client)
{
    if (!client)
        return NULL;
    lmo_assert(!client->calling);
    for (uint32_t i = 0; i < client->slot_count; i++) {
        if (client->slots[i].request)
            release(client->slots[i].request, false);
    }
    lmo_loop_cancel(client->loop, &client->reaper);
    lmo_loop_cancel(client->loop, &client->starter);
    while (client->retired) {
        struct transport *t = client->retired;
        client->retired = t->next;
        lmo_http_transport_free(t);
    }
    lmo_http_transport_free(client->transport);
    while (client->spare_count > 0)
        curl_easy_cleanup(client->spare[--client->spare_count]);
    free(client->slots);
    free(client);
    return NULL;
}
