/* server.c - the listener: socket, libmicrohttpd, and the way of a request through its callbacks.
 *
 * libmicrohttpd calls access_cb once when the headers are there, once or more with the body, once when the request is
 * whole, and once more after a resume. The first call never queues a response for a good request: that would cost
 * the connection its keep-alive (libmicrohttpd assumes that the body was not read). For a bad one that is welcome. */
#include "http/server_internal.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/conf.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

/* How long free() lets replies drain before it closes connections. */
#define DRAIN_MS 500
/* A body past the limit is read and dropped up to this many times the limit, so that the client gets to read the 413.
 * */
#define DROP_FACTOR 8
/* libmicrohttpd keeps one buffer per connection for headers and body pieces; this much is its own. */
#define BUFFER_EXTRA 4096

/* ---- connections ---- */

static void set_deadline(struct lmo_http_connection *c, uint64_t timeout_ms)
{
    pthread_mutex_lock(&c->server->lock);
    c->deadline_ns = timeout_ms ? lmo_now_ns() + timeout_ms * LMO_NS_PER_MS : 0;
    if (c->deadline_ns)
        lmo_http_watch_by(c->server, c->deadline_ns);
    pthread_mutex_unlock(&c->server->lock);
}

static void format_remote(struct MHD_Connection *mhd, char ret_text[LMO_ADDRESS_MAX])
{
    char host[INET6_ADDRSTRLEN] = "?";
    unsigned port = 0;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (info && info->client_addr->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, info->client_addr, sizeof in);
        inet_ntop(AF_INET, &in.sin_addr, host, sizeof host);
        port = ntohs(in.sin_port);
    } else if (info && info->client_addr->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, info->client_addr, sizeof in6);
        inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof host);
        port = ntohs(in6.sin6_port);
    }
    snprintf(ret_text, LMO_ADDRESS_MAX, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
}

static void connection_opened(struct lmo_http_server *server, struct MHD_Connection *mhd, void **slot)
{
    struct lmo_http_connection *c = calloc(1, sizeof *c);
    const union MHD_ConnectionInfo *session = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    const union MHD_ConnectionInfo *fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    *slot = c;
    /* The session's user pointer is libmicrohttpd's for pre-shared keys only, which we do not use. */
    if (session)
        gnutls_session_set_ptr(session->tls_session, c);
    if (!c || !session || !fd)
        return; /* the certificate callback and access_cb refuse a connection without this struct */
    c->server = server;
    c->fd = fd->connect_fd;
    format_remote(mhd, c->remote);
    int on = 1;
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    gnutls_certificate_server_set_request(session->tls_session, GNUTLS_CERT_REQUEST);

    pthread_mutex_lock(&server->lock);
    c->tls = lmo_server_tls_ref(server->tls);
    c->next = server->connections;
    if (c->next)
        c->next->prev = c;
    server->connections = c;
    server->stats.connections_total++;
    server->stats.connections_open++;
    pthread_mutex_unlock(&server->lock);
    set_deadline(c, server->config.receive_timeout_ms);
}

/* Called after the TLS session is gone and before the socket is closed. */
static void connection_closed(struct lmo_http_server *server, struct lmo_http_connection *c)
{
    if (c && c->server) {
        pthread_mutex_lock(&server->lock);
        if (c->prev)
            c->prev->next = c->next;
        else
            server->connections = c->next;
        if (c->next)
            c->next->prev = c->prev;
        server->stats.connections_open--;
        pthread_mutex_unlock(&server->lock);
        lmo_server_tls_unref(c->tls);
    }
    free(c);
}

static void connection_cb(void *arg, struct MHD_Connection *mhd, void **slot, enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        connection_opened(arg, mhd, slot);
    } else {
        connection_closed(arg, *slot);
        *slot = NULL;
    }
}

static int certificate_cb(gnutls_session_t session, const gnutls_datum_t *ca_names, int ca_count,
                          const gnutls_pk_algorithm_t *algorithms, int algorithm_count, gnutls_pcert_st **ret_chain,
                          unsigned *ret_count, gnutls_privkey_t *ret_key)
{
    (void)ca_names, (void)ca_count, (void)algorithms, (void)algorithm_count;
    struct lmo_http_connection *c = gnutls_session_get_ptr(session);
    if (!c || !c->tls)
        return -1;
    lmo_server_tls_own(c->tls, ret_chain, ret_count, ret_key);
    return 0;
}

static int refused_peer(struct lmo_http_server *server, const struct lmo_http_connection *c, const struct lmo_err *err)
{
    pthread_mutex_lock(&server->lock);
    server->stats.refused_peers++;
    pthread_mutex_unlock(&server->lock);
    lmo_log(LMO_LOG_WARN, "peer refused", "listener=%s remote=%s reason=%s", server->config.log_name, c->remote, err->text);
    return err->code;
}

/* One principal with all connections would leave none for the others. Counted when the peer is known. */
static int count_peer(struct lmo_http_server *server, struct lmo_http_connection *c, struct lmo_err *err)
{
    unsigned n = 0;
    if (c->counted || server->config.connections_per_peer >= server->config.connections_max)
        return 0;
    pthread_mutex_lock(&server->lock);
    for (const struct lmo_http_connection *o = server->connections; o; o = o->next)
        n += o->counted && o->peer.role == c->peer.role && o->peer.by_token == c->peer.by_token &&
             strcmp(o->peer.name, c->peer.name) == 0;
    c->counted = n < server->config.connections_per_peer;
    pthread_mutex_unlock(&server->lock);
    return c->counted ? 0
                      : lmo_fail(err, LMO_E_LIMIT, "%s '%s' has %u connections, which is the limit",
                                 lmo_role_name(c->peer.role), c->peer.name, n);
}

/* A connection without a certificate is nobody's; each of its requests may be somebody's. */
static int judge_token(struct lmo_http_server *server, struct MHD_Connection *mhd, struct lmo_http_connection *c,
                       struct lmo_err *err)
{
    static const char scheme[] = "Bearer ";
    const char *value = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    struct lmo_identity peer = {0};
    if (!value || strncasecmp(value, scheme, sizeof scheme - 1) != 0)
        return lmo_fail(err, LMO_E_UNAUTHENTICATED, "a client certificate or a bearer token is required");
    int r = server->config.token_peer(server->config.handler_arg, value + sizeof scheme - 1, &peer, err);
    if (r < 0)
        return r;
    bool same = c->counted && c->peer.role == peer.role && strcmp(c->peer.name, peer.name) == 0;
    pthread_mutex_lock(&server->lock); /* others count by these two */
    c->counted = same;
    c->peer = peer;
    pthread_mutex_unlock(&server->lock);
    return count_peer(server, c, err);
}

static int judge_certificate(struct lmo_http_server *server, gnutls_session_t session, struct lmo_http_connection *c,
                             struct lmo_err *err)
{
    pthread_mutex_lock(&server->lock);
    uint64_t generation = server->tls_generation;
    struct lmo_server_tls *tls = c->judged == generation ? NULL : lmo_server_tls_ref(server->tls);
    pthread_mutex_unlock(&server->lock);
    if (!tls)
        return 0;
    struct lmo_identity peer = {0};
    int r = lmo_server_tls_judge(tls, session, &peer, err);
    lmo_server_tls_unref(tls);
    c->judged = r == 0 ? generation : 0;
    if (r < 0)
        return r;
    pthread_mutex_lock(&server->lock);
    c->peer = peer;
    pthread_mutex_unlock(&server->lock);
    return count_peer(server, c, err);
}

/* Judges the peer: by its certificate, once per connection and load of the TLS files; by a token, with every request. Who
 * shows a certificate is who it says, or nobody. */
static int judge(struct lmo_http_server *server, struct MHD_Connection *mhd, struct lmo_http_connection *c,
                 struct lmo_err *err)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    unsigned shown = 0;
    if (!info)
        return lmo_fail(err, LMO_E_INTERNAL, "connection without TLS");
    bool token = server->config.token_peer && !gnutls_certificate_get_peers(info->tls_session, &shown);
    int r = token ? judge_token(server, mhd, c, err) : judge_certificate(server, info->tls_session, c, err);
    return r < 0 ? refused_peer(server, c, err) : 0;
}

/* ---- requests ---- */

/* Queues a response and lets go of it. */
static enum MHD_Result queue(struct MHD_Connection *mhd, unsigned status, struct MHD_Response *response)
{
    if (!response)
        return MHD_NO;
    enum MHD_Result ok = MHD_queue_response(mhd, status, response);
    MHD_destroy_response(response);
    return ok;
}

static enum MHD_Result refuse(const struct lmo_http_server *server, struct MHD_Connection *mhd, int code, const char *text)
{
    unsigned status = (unsigned)lmo_err_http(code);
    char id[LMO_NAME_MAX];
    lmo_http_find_id(server, mhd, id);
    return queue(mhd, status, lmo_http_problem(status, code, text, true, id));
}

/* First call: headers only. */
static enum MHD_Result begin(struct lmo_http_server *server, struct MHD_Connection *mhd, struct lmo_http_connection *c,
                             const char *method, const char *path, void **slot)
{
    struct lmo_err err = {0};
    if (judge(server, mhd, c, &err) < 0)
        return refuse(server, mhd, err.code == LMO_E_LIMIT ? LMO_E_LIMIT : LMO_E_UNAUTHENTICATED, err.text);
    const char *length = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    /* One that is not absurdly large is read and dropped first: an answer that overtakes the body is lost with the
     * connection while the client still sends. */
    if (length && strtoull(length, NULL, 10) > (unsigned long long)server->config.body_max * DROP_FACTOR) {
        char text[80];
        snprintf(text, sizeof text, "the body may have at most %zu bytes", server->config.body_max);
        return refuse(server, mhd, LMO_E_TOO_LARGE, text);
    }
    struct lmo_http_request *req = lmo_http_request_new(server, mhd, c, method, path);
    if (!req)
        return refuse(server, mhd, LMO_E_LIMIT, "no memory, or too many headers and query parameters");
    *slot = req;
    return MHD_YES;
}

static enum MHD_Result receive(struct lmo_http_server *server, struct lmo_http_request *req, const char *data,
                               size_t *len)
{
    req->received += *len;
    if (!req->refused && lmo_buf_append(&req->body, data, *len) < 0) {
        req->refused = true;
        lmo_buf_done(&req->body);
    }
    *len = 0;
    return req->received > (uint64_t)server->config.body_max * DROP_FACTOR ? MHD_NO : MHD_YES;
}

/* The answer is there: hand it to libmicrohttpd. */
static enum MHD_Result send_answer(struct lmo_http_connection *c, struct lmo_http_request *req)
{
    set_deadline(c, req->server->config.receive_timeout_ms);
    struct MHD_Response *response = req->response;
    req->response = NULL;
    return queue(req->mhd, req->status, response);
}

/* The request is whole: call the handler; then answer, or suspend until somebody does. */
static enum MHD_Result handle(struct lmo_http_server *server, struct lmo_http_connection *c,
                              struct lmo_http_request *req)
{
    set_deadline(c, 0);
    req->handled = true;
    if (req->refused) {
        char text[80];
        snprintf(text, sizeof text, "the body may have at most %zu bytes", server->config.body_max);
        req->answered = true;
        return refuse(server, req->mhd, LMO_E_TOO_LARGE, text);
    }
    pthread_mutex_lock(&server->lock);
    req->owners++; /* the handler's side */
    pthread_mutex_unlock(&server->lock);

    server->config.handler(server->config.handler_arg, req);

    pthread_mutex_lock(&server->lock);
    if (!req->answered && server->stopping)
        (void)lmo_http_answer_locked(req, 503, lmo_http_problem(503, LMO_E_UNAVAILABLE, "shutting down", true, req->id));
    bool answered = req->answered;
    if (!answered) {
        MHD_suspend_connection(req->mhd);
        req->suspended = true;
        req->prev = NULL;
        req->next = server->pending;
        if (req->next)
            req->next->prev = req;
        server->pending = req;
        req->deadline_ns = lmo_now_ns() + req->timeout_ms * LMO_NS_PER_MS;
        lmo_http_watch_by(server, req->deadline_ns);
    }
    pthread_mutex_unlock(&server->lock);
    return answered ? send_answer(c, req) : MHD_YES;
}

static enum MHD_Result access_cb(void *arg, struct MHD_Connection *mhd, const char *path, const char *method,
                                 const char *version, const char *data, size_t *len, void **slot)
{
    (void)version;
    struct lmo_http_server *server = arg;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct lmo_http_connection *c = info ? info->socket_context : NULL;
    struct lmo_http_request *req = *slot;
    if (!c || !c->tls)
        return MHD_NO;
    if (!req)
        return begin(server, mhd, c, method, path, slot);
    if (*len > 0)
        return receive(server, req, data, len);
    if (!req->handled)
        return handle(server, c, req);
    pthread_mutex_lock(&server->lock);
    bool answered = req->answered;
    pthread_mutex_unlock(&server->lock);
    lmo_assert(answered); /* only an answer resumes */
    return send_answer(c, req);
}

/* libmicrohttpd is done with the request: sent, failed, or the connection is gone. */
static void completed_cb(void *arg, struct MHD_Connection *mhd, void **slot, enum MHD_RequestTerminationCode why)
{
    (void)why;
    struct lmo_http_server *server = arg;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct lmo_http_connection *c = info ? info->socket_context : NULL;
    /* libmicrohttpd's own timeout of an idle connection begins anew with every byte: not so the time in which the next
     * request line has to be there. */
    if (c && c->server)
        set_deadline(c, (uint64_t)server->config.idle_timeout_s * 1000 + server->config.receive_timeout_ms);
    struct lmo_http_request *req = *slot;
    *slot = NULL;
    if (!req)
        return;
    pthread_mutex_lock(&server->lock);
    lmo_assert(!req->suspended);
    req->answered = true;
    req->mhd = NULL;
    server->active--;
    if (server->stopping)
        pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    lmo_http_request_drop(req);
}

/* The request line has come: from here the whole request has to come in time. */
static void *uri_cb(void *arg, const char *uri, struct MHD_Connection *mhd)
{
    (void)uri;
    struct lmo_http_server *server = arg;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct lmo_http_connection *c = info ? info->socket_context : NULL;
    if (c && c->server)
        set_deadline(c, server->config.receive_timeout_ms);
    return NULL; /* what access_cb finds in its slot */
}

static void mhd_log(void *arg, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void mhd_log(void *arg, const char *fmt, va_list ap)
{
    struct lmo_http_server *server = arg;
    char text[256];
    vsnprintf(text, sizeof text, fmt, ap);
    text[strcspn(text, "\n")] = '\0';
    lmo_log(LMO_LOG_DEBUG, "http library", "listener=%s text=%s", server->config.log_name, text);
}

/* ---- life ---- */

static int open_socket(const char *address, uint16_t *ret_port, int *ret_fd, struct lmo_err *err)
{
    char host[INET6_ADDRSTRLEN];
    uint16_t port;
    int r = lmo_address_split(address, host, sizeof host, &port, err);
    if (r < 0)
        return r;
    struct sockaddr_storage ss = {0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    socklen_t len;
    if (inet_pton(AF_INET, host, &in.sin_addr) == 1) {
        memcpy(&ss, &in, sizeof in);
        len = sizeof in;
    } else if (inet_pton(AF_INET6, host, &in6.sin6_addr) == 1) {
        memcpy(&ss, &in6, sizeof in6);
        len = sizeof in6;
    } else {
        return lmo_fail(err, LMO_E_INVALID, "'%s': the host must be an IP address", address);
    }
    LMO_AUTO_CLOSE int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&ss, len) < 0 || listen(fd, 256) < 0)
        return lmo_fail(err, errno == EADDRINUSE ? LMO_E_BUSY : LMO_E_UNAVAILABLE, "cannot listen on %s: %s", address,
                        strerror(errno));
    len = sizeof ss;
    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
        return lmo_fail(err, LMO_E_IO, "cannot listen on %s: %s", address, strerror(errno));
    if (ss.ss_family == AF_INET)
        memcpy(&in, &ss, sizeof in);
    else
        memcpy(&in6, &ss, sizeof in6);
    *ret_port = ntohs(ss.ss_family == AF_INET ? in.sin_port : in6.sin6_port);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static void fill_defaults(struct lmo_http_server_config *c)
{
    c->body_max = c->body_max ? c->body_max : (size_t)1024 * 1024;
    c->header_max = c->header_max ? c->header_max : (size_t)16 * 1024;
    c->connections_max = c->connections_max ? c->connections_max : 256;
    c->connections_per_ip = c->connections_per_ip ? c->connections_per_ip : c->connections_max;
    c->connections_per_peer = c->connections_per_peer ? c->connections_per_peer : c->connections_max;
    c->idle_timeout_s = c->idle_timeout_s ? c->idle_timeout_s : 120;
    c->receive_timeout_ms = c->receive_timeout_ms ? c->receive_timeout_ms : 30000;
    c->reply_timeout_ms = c->reply_timeout_ms ? c->reply_timeout_ms : 60000;
    c->log_name = c->log_name ? c->log_name : "http";
}

static int start_daemon(struct lmo_http_server *server, int listen_fd, struct lmo_err *err)
{
    const struct lmo_http_server_config *c = &server->config;
    unsigned flags =
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_TLS | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_ITC;
    struct MHD_OptionItem options[] = {
        {MHD_OPTION_EXTERNAL_LOGGER, (intptr_t)mhd_log, server}, /* first: later options may log */
        {MHD_OPTION_LISTEN_SOCKET, listen_fd, NULL},
        {MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)connection_cb, server},
        {MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)completed_cb, server},
        {MHD_OPTION_URI_LOG_CALLBACK, (intptr_t)uri_cb, server},
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(uintptr_t)certificate_cb},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t) "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {MHD_OPTION_CONNECTION_LIMIT, (intptr_t)c->connections_max, NULL},
        {MHD_OPTION_PER_IP_CONNECTION_LIMIT, (intptr_t)c->connections_per_ip, NULL},
        {MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)c->idle_timeout_s, NULL},
        {MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)(c->header_max + BUFFER_EXTRA), NULL},
        {MHD_OPTION_STRICT_FOR_CLIENT, 1, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    server->daemon =
        MHD_start_daemon(flags, 0, NULL, NULL, access_cb, server, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
    if (!server->daemon)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "cannot start the HTTPS listener on %s: %s", c->address,
                        strerror(errno));
    return 0;
}

int lmo_http_server_new(const struct lmo_http_server_config *config, struct lmo_http_server **ret_server,
                        struct lmo_err *err)
{
    lmo_assert(config->handler);
    struct lmo_http_server *server = calloc(1, sizeof *server);
    if (!server)
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a listener");
    server->config = *config;
    fill_defaults(&server->config);
    server->references = 1;
    server->tls_generation = 1;
    server->next_wake_ns = UINT64_MAX;
    pthread_condattr_t attr;
    lmo_assert(pthread_mutex_init(&server->lock, NULL) == 0 && pthread_condattr_init(&attr) == 0 &&
               pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 &&
               pthread_cond_init(&server->changed, &attr) == 0);
    pthread_condattr_destroy(&attr);

    LMO_AUTO_CLOSE int fd = -1;
    int r = lmo_server_tls_load(&config->tls, &server->tls, err);
    if (r == 0)
        r = open_socket(config->address, &server->port, &fd, err);
    if (r == 0)
        r = lmo_http_watch_start(server, err);
    if (r == 0)
        r = start_daemon(server, fd, err);
    if (r < 0) {
        lmo_http_server_free(server);
        return r;
    }
    fd = -1; /* libmicrohttpd's */
    *ret_server = server;
    return 0;
}

void lmo_http_server_unref_unlock(struct lmo_http_server *server)
{
    bool last = --server->references == 0;
    pthread_mutex_unlock(&server->lock);
    if (!last)
        return;
    lmo_server_tls_unref(server->tls);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

struct lmo_http_server *lmo_http_server_free(struct lmo_http_server *server)
{
    if (!server)
        return NULL;
    int listen_fd = server->daemon ? MHD_quiesce_daemon(server->daemon) : -1;
    lmo_cleanup_close(&listen_fd);
    pthread_mutex_lock(&server->lock);
    server->stopping = true; /* from here on nothing is suspended */
    while (server->pending)
        (void)lmo_http_answer_locked(server->pending, 503,
                                     lmo_http_problem(503, LMO_E_UNAVAILABLE, "shutting down", true, server->pending->id));
    struct timespec until;
    lmo_assert(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_nsec += (long)(DRAIN_MS * LMO_NS_PER_MS);
    if (until.tv_nsec >= (long)LMO_NS_PER_S) {
        until.tv_sec++;
        until.tv_nsec -= (long)LMO_NS_PER_S;
    }
    while (server->active > 0 && pthread_cond_timedwait(&server->changed, &server->lock, &until) == 0)
        continue;
    pthread_mutex_unlock(&server->lock);
    if (server->daemon)
        MHD_stop_daemon(server->daemon);
    server->daemon = NULL;
    lmo_http_watch_stop(server);
    pthread_mutex_lock(&server->lock);
    lmo_http_server_unref_unlock(server);
    return NULL;
}

int lmo_http_server_reload(struct lmo_http_server *server, struct lmo_err *err)
{
    struct lmo_server_tls *tls = NULL;
    int r = lmo_server_tls_load(&server->config.tls, &tls, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&server->lock);
    struct lmo_server_tls *old = server->tls;
    server->tls = tls;
    server->tls_generation++;
    pthread_mutex_unlock(&server->lock);
    lmo_server_tls_unref(old);
    return 0;
}

uint16_t lmo_http_server_port(const struct lmo_http_server *server)
{
    return server->port;
}

void lmo_http_server_stats(struct lmo_http_server *server, struct lmo_http_stats *ret_stats)
{
    pthread_mutex_lock(&server->lock);
    *ret_stats = server->stats;
    pthread_mutex_unlock(&server->lock);
}
