/* watch.c - the listener's second thread: the deadlines that libmicrohttpd does not keep.
 *
 * libmicrohttpd forgets about a suspended connection and restarts its idle timeout with every byte. This thread answers
 * kept requests with 504 at their deadline, and shuts down connections whose handshake, request or response takes too
 * long. It sleeps until the earliest deadline it knew of when it fell asleep; a deadline that was met in the meantime
 * costs one wake-up for nothing. */
#include "http/server_internal.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

void lmo_http_watch_by(struct lmo_http_server *server, uint64_t deadline_ns)
{
    if (deadline_ns < server->next_wake_ns)
        pthread_cond_broadcast(&server->changed);
}

/* Serves what is due; returns the earliest deadline that is left (UINT64_MAX: none). With the lock held. */
static uint64_t serve_due(struct lmo_http_server *server)
{
    uint64_t now = lmo_now_ns(), earliest = UINT64_MAX;
    for (struct lmo_http_request *req = server->pending, *next; req; req = next) {
        next = req->next;
        if (req->deadline_ns > now) {
            earliest = req->deadline_ns < earliest ? req->deadline_ns : earliest;
            continue;
        }
        server->stats.timeouts++;
        lmo_log(LMO_LOG_WARN, "request not answered in time",
                "listener=%s method=%s path=%s peer=%s:%s timeout_ms=%llu", server->config.log_name, req->method,
                req->path, lmo_role_name(req->peer.role), req->peer.name, (unsigned long long)req->timeout_ms);
        (void)lmo_http_answer_locked(req, 504,
                                     lmo_http_problem(504, LMO_E_TIMEOUT, "no answer was ready in time", false, req->id));
    }
    for (struct lmo_http_connection *c = server->connections; c; c = c->next) {
        if (c->deadline_ns == 0)
            continue;
        if (c->deadline_ns > now) {
            earliest = c->deadline_ns < earliest ? c->deadline_ns : earliest;
            continue;
        }
        c->deadline_ns = 0;
        server->stats.timeouts++;
        lmo_log(LMO_LOG_INFO, "connection too slow, closed", "listener=%s remote=%s", server->config.log_name,
                c->remote);
        (void)shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd sees the end and cleans up */
    }
    return earliest;
}

static void *watch(void *arg)
{
    struct lmo_http_server *server = arg;
    pthread_mutex_lock(&server->lock);
    while (!server->watcher_stop) {
        uint64_t earliest = serve_due(server);
        server->next_wake_ns = earliest;
        if (earliest == UINT64_MAX) {
            pthread_cond_wait(&server->changed, &server->lock);
            continue;
        }
        struct timespec until;
        lmo_assert(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
        uint64_t ms = lmo_ms_until(earliest);
        until.tv_sec += (time_t)(ms / 1000);
        until.tv_nsec += (long)(ms % 1000 * LMO_NS_PER_MS);
        if (until.tv_nsec >= (long)LMO_NS_PER_S) {
            until.tv_sec++;
            until.tv_nsec -= (long)LMO_NS_PER_S;
        }
        (void)pthread_cond_timedwait(&server->changed, &server->lock, &until);
    }
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

int lmo_http_watch_start(struct lmo_http_server *server, struct lmo_err *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&server->watcher, NULL, watch, server);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e != 0)
        return lmo_fail(err, LMO_E_LIMIT, "cannot start a thread: %s", strerror(e));
    server->watcher_running = true;
    return 0;
}

void lmo_http_watch_stop(struct lmo_http_server *server)
{
    if (!server->watcher_running)
        return;
    pthread_mutex_lock(&server->lock);
    server->watcher_stop = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    pthread_join(server->watcher, NULL);
    server->watcher_running = false;
}
