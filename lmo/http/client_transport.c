/* client_transport.c - libcurl's multi handle on our event loop, and its replacement at a reload. */
#include "http/client_internal.h"
#include "base/assert.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool curl_ready;

static void init_once(void)
{
    const curl_version_info_data *info;
    curl_ready = curl_global_init(CURL_GLOBAL_ALL) == CURLE_OK && (info = curl_version_info(CURLVERSION_NOW)) != NULL &&
                 info->ssl_version && strncmp(info->ssl_version, "OpenSSL/", 8) == 0;
    /* OpenSSL writes without MSG_NOSIGNAL; a peer that hung up must not end the process. */
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
        (void)signal(SIGPIPE, SIG_IGN);
}

int lmo_http_curl_ready(struct lmo_err *err)
{
    pthread_once(&once, init_once);
    return curl_ready ? 0 : lmo_fail(err, LMO_E_UNSUPPORTED, "libcurl is missing or was not built with OpenSSL");
}

/* ---- libcurl's sockets and timer on our loop ---- */

static void collect(struct transport *t)
{
    int left;
    CURLMsg *msg;
    while ((msg = curl_multi_info_read(t->multi, &left))) {
        if (msg->msg != CURLMSG_DONE)
            continue;
        char *private = NULL;
        CURLcode code = msg->data.result;
        lmo_assert(curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &private) == CURLE_OK && private);
        lmo_http_client_finish((struct request *)(void *)private, code);
    }
}

static void socket_ready(void *arg, int fd, uint32_t events)
{
    struct transport *t = arg;
    int what = (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
               (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
    int running;
    (void)curl_multi_socket_action(t->multi, fd, what, &running);
    collect(t);
}

static int socket_cb(CURL *easy, curl_socket_t fd, int what, void *arg, void *registered)
{
    (void)easy;
    struct transport *t = arg;
    if (what == CURL_POLL_REMOVE) {
        if (registered)
            lmo_loop_del_fd(t->client->loop, fd);
        (void)curl_multi_assign(t->multi, fd, NULL);
        return 0;
    }
    uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
    if (registered)
        return lmo_loop_mod_fd(t->client->loop, fd, events) < 0 ? -1 : 0;
    if (lmo_loop_add_fd(t->client->loop, fd, events, socket_ready, t, NULL) < 0)
        return -1;
    (void)curl_multi_assign(t->multi, fd, t);
    return 0;
}

static void timer_due(void *arg)
{
    struct transport *t = arg;
    t->timer = 0;
    int running;
    (void)curl_multi_socket_action(t->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(t);
}

static int timer_cb(CURLM *multi, long timeout_ms, void *arg)
{
    (void)multi;
    struct transport *t = arg;
    lmo_loop_cancel(t->client->loop, &t->timer);
    if (timeout_ms < 0)
        return 0;
    return lmo_loop_timer(t->client->loop, (uint64_t)timeout_ms, timer_due, t, &t->timer) < 0 ? -1 : 0;
}

/* What follows from it (answers, failures) comes from the loop's next turn, like always. */
void lmo_http_client_hurry(struct lmo_http_client *client)
{
    struct transport *t = client->transport;
    int running;
    (void)curl_multi_socket_action(t->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    (void)timer_cb(t->multi, 0, t);
}

/* ---- transports ---- */

void lmo_http_transport_free(struct transport *t)
{
    lmo_assert(t->requests == 0);
    if (t->multi)
        (void)curl_multi_cleanup(t->multi); /* closes connections: socket_cb takes them off the loop */
    lmo_loop_cancel(t->client->loop, &t->timer);
    lmo_client_tls_free(t->tls);
    free(t);
}

int lmo_http_transport_new(struct lmo_http_client *client, struct transport **ret_transport, struct lmo_err *err)
{
    struct transport *t = calloc(1, sizeof *t);
    if (!t)
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for an HTTPS client");
    t->client = client;
    int r = client->config.outside ? lmo_client_tls_load_outside(client->config.tls.ca, &t->tls, err)
                                      : lmo_client_tls_load(&client->config.tls, &t->tls, err);
    if (r == 0 && !(t->multi = curl_multi_init()))
        r = lmo_fail(err, LMO_E_NO_MEMORY, "no memory for an HTTPS client");
    if (r < 0) {
        lmo_http_transport_free(t);
        return r;
    }
    (void)curl_multi_setopt(t->multi, CURLMOPT_SOCKETFUNCTION, socket_cb);
    (void)curl_multi_setopt(t->multi, CURLMOPT_SOCKETDATA, t);
    (void)curl_multi_setopt(t->multi, CURLMOPT_TIMERFUNCTION, timer_cb);
    (void)curl_multi_setopt(t->multi, CURLMOPT_TIMERDATA, t);
    (void)curl_multi_setopt(t->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    (void)curl_multi_setopt(t->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)client->config.connections_per_host);
    (void)curl_multi_setopt(t->multi, CURLMOPT_MAXCONNECTS, (long)client->config.connections_max);
    *ret_transport = t;
    return 0;
}

/* Destroys retired transports without requests; comes back while there are others. On a timer, since a transport must
 * not be destroyed inside its own callbacks. */
static void reap(void *arg)
{
    struct lmo_http_client *client = arg;
    client->reaper = 0;
    for (struct transport **at = &client->retired; *at;) {
        struct transport *t = *at;
        if (t->requests > 0) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        lmo_http_transport_free(t);
    }
    if (client->retired)
        (void)!lmo_loop_timer(client->loop, 1000, reap, client, &client->reaper);
}

int lmo_http_client_reload(struct lmo_http_client *client, struct lmo_err *err)
{
    struct transport *t = NULL;
    int r = lmo_http_transport_new(client, &t, err);
    if (r < 0)
        return r;
    client->transport->next = client->retired;
    client->retired = client->transport;
    client->transport = t;
    lmo_loop_cancel(client->loop, &client->reaper);
    (void)!lmo_loop_timer(client->loop, 0, reap, client, &client->reaper);
    return 0;
}
