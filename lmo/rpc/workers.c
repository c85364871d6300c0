/* workers.c - hosts come and go. See internal.h for the other files.
 *
 * Invariants:
 *  1. Per host at most one request of the stream (observation or long poll) is under way, and always either that, or a
 *     timer, or a batch that the engine has not acknowledged: a stream is never forgotten.
 *  2. A long poll acknowledges only what the engine said is committed.
 *  3. Exactly one call of `done` for each op and observation that was accepted, never inside the call that accepted it.
 *  4. UNAVAILABLE is given only while no byte of the op can have reached the worker; from then on the outcome is what
 *     the worker says about this op id, or UNKNOWN/TIMEOUT.
 *  5. Every answer comes from the certificate urn:lmo:worker:<host>, checked by the client on every request. */
#include "rpc/internal.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/id.h"

#include <stdio.h>
#include <string.h>

struct worker_host *workers_find(struct workers *w, const char *name)
{
    struct worker_host *h = NULL;
    HASH_FIND_STR(w->hosts, name, h);
    return h;
}

struct worker_host *workers_find_serial(struct workers *w, const char *name, uint64_t serial)
{
    struct worker_host *h = workers_find(w, name);
    return h && h->serial == serial ? h : NULL;
}

static int host_add(struct lmo_workers *base, const char *name, const char *url, uint64_t cursor, struct lmo_err *err)
{
    struct workers *w = workers_of(base);
    size_t url_len = strlen(url);
    if (!lmo_name_valid(name)) {
        return lmo_fail(err, LMO_E_INVALID, "host name: not a name (letters, digits, '.', '_', '-')");
    }
    if (strncmp(url, "https://", 8) != 0 || url_len >= LMO_URL_MAX) {
        return lmo_fail(err, LMO_E_INVALID, "host %s: url must be https and shorter than %d characters", name,
                        LMO_URL_MAX);
    }
    if (workers_find(w, name)) {
        return lmo_fail(err, LMO_E_CONFLICT, "host %s is known already", name);
    }
    if (HASH_COUNT(w->hosts) >= HOSTS_MAX) {
        return lmo_fail(err, LMO_E_LIMIT, "at most %d hosts", HOSTS_MAX);
    }
    struct worker_host *h = calloc(1, sizeof(*h));
    if (!h) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    h->workers = w;
    copy_text(h->name, sizeof(h->name), name);
    while (url_len > 8 && url[url_len - 1] == '/') { /* paths are appended */
        url_len--;
    }
    snprintf(h->url, sizeof(h->url), "%.*s", (int)url_len, url);
    h->serial = ++w->next_serial;
    h->acknowledged = h->delivered = cursor;
    HASH_ADD_STR(w->hosts, name, h);
    stream_start(h);
    return 0;
}

static void host_free(struct worker_host *h)
{
    HASH_DEL(h->workers->hosts, h);
    stream_stop(h);
    ops_drop_host(h);
    observe_drop_host(h);
    free(h);
}

static void host_remove(struct lmo_workers *base, const char *name)
{
    struct worker_host *h = workers_find(workers_of(base), name);
    if (h) {
        host_free(h);
    }
}

static void acknowledge(struct lmo_workers *base, const char *name, uint64_t cursor)
{
    struct worker_host *h = workers_find(workers_of(base), name);
    if (h) {
        stream_acknowledge(h, cursor);
    }
}

void workers_superseded(struct workers *w, const char *host, const char *why)
{
    if (w->cb.superseded) {
        w->cb.superseded(w->cb.arg, host, why);
    }
}

void lmo_workers_http_set_term(struct lmo_workers *base, uint64_t term)
{
    struct workers *w = workers_of(base);
    snprintf(w->term_header, sizeof(w->term_header), LMO_TERM_HEADER ": %llu", (unsigned long long)term);
    w->headers[0] = w->term_header;
}

static void listen_to(struct lmo_workers *base, bool on)
{
    struct workers *w = workers_of(base);
    bool was_silent = w->silent;
    w->silent = !on;
    for (struct worker_host *h = w->hosts; on && was_silent && h; h = h->hh.next) {
        stream_start(h);
    }
}

static void workers_close(struct lmo_workers *base)
{
    if (!base) {
        return;
    }
    struct workers *w = workers_of(base);
    struct worker_host *h, *next;
    HASH_ITER(hh, w->hosts, h, next)
    {
        host_free(h);
    }
    ops_drop_orphans(w);
    observe_drop_orphans(w);
    lmo_http_client_free(w->client);
    free(w);
}

static const struct lmo_workers_ops http_ops = {
    .close = workers_close,
    .host_add = host_add,
    .host_remove = host_remove,
    .acknowledge = acknowledge,
    .op = workers_op,
    .observe = workers_observe,
    .set_term = lmo_workers_http_set_term,
    .listen = listen_to,
};

int lmo_workers_http_open(struct lmo_loop *loop, const struct lmo_tls_files *tls,
                          const struct lmo_workers_callbacks *cb, struct lmo_workers **ret, struct lmo_err *err)
{
    LMO_AUTO_FREE struct workers *w = calloc(1, sizeof(*w));
    if (!w) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    const struct lmo_http_client_config config = {.tls = *tls,
                                                  .connections_per_host = CONNECTIONS_PER_HOST,
                                                  .connections_max = 2 * HOSTS_MAX,
                                                  .requests_max = 4 * HOSTS_MAX,
                                                  .connecting_max = CONNECTING_MAX};
    int r = lmo_http_client_new(loop, &config, &w->client, err);
    if (r < 0) {
        return r;
    }
    w->base.ops = &http_ops;
    w->loop = loop;
    w->cb = *cb;
    *ret = &LMO_TAKE(w)->base;
    return 0;
}

int lmo_workers_http_reload(struct lmo_workers *w, struct lmo_err *err)
{
    return lmo_http_client_reload(workers_of(w)->client, err);
}
