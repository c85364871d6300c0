/* ovsdb_link.c - a connection that is kept; see ovsdb_link.h. */
#include "workers/drivers/ovsdb_link.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "workers/drivers/ovsdb_stream.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define CONNECT_MS       5000
#define BACKOFF_MIN_MS   100
#define BACKOFF_MAX_MS   8000
#define PROBE_DEFAULT_MS 5000
#define OUT_MAX_BYTES    ((size_t)1024 * 1024)
#define READ_BYTES       16384

static void wake(const struct lmo_ovsdb_link *link)
{
    uint64_t one = 1;
    ssize_t ignored = write(link->wake_fd, &one, sizeof one);
    (void)ignored; /* the counter is full: then the reader is being woken already */
}

static void drain(const struct lmo_ovsdb_link *link)
{
    uint64_t ignored;
    ssize_t got = read(link->wake_fd, &ignored, sizeof ignored);
    (void)got;
}

/* Locked. Gives the socket what it takes; false when the connection is broken. */
static bool flush_out(struct lmo_ovsdb_link *link)
{
    size_t done = 0;
    bool broken = false;
    while (done < link->out.len && !broken) {
        ssize_t n = send(link->fd, link->out.data + done, link->out.len - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            done += (size_t)n;
        else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        else
            broken = !(n < 0 && errno == EINTR);
    }
    if (done > 0) {
        memmove(link->out.data, link->out.data + done, link->out.len - done);
        link->out.len -= done;
    }
    return !broken;
}

int lmo_ovsdb_link_send(struct lmo_ovsdb_link *link, const void *bytes, size_t n, struct lmo_err *err)
{
    if (link->fd < 0)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "%s: not connected", link->name);
    bool idle = link->out.len == 0;
    if (lmo_buf_append(&link->out, bytes, n) < 0)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "%s: the peer does not read what it is sent", link->name);
    /* A broken connection is left to the reader, who sees it too: what was accepted is then unknown, not failed. */
    if (!idle || !flush_out(link) || link->out.len > 0)
        wake(link);
    return 0;
}

bool lmo_ovsdb_link_wait(struct lmo_ovsdb_link *link, uint64_t deadline_ns)
{
    uint64_t ms = lmo_ms_until(deadline_ns);
    if (ms == 0)
        return false;
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    uint64_t ns = (uint64_t)at.tv_nsec + ms % 1000 * LMO_NS_PER_MS;
    at.tv_sec += (time_t)(ms / 1000 + ns / LMO_NS_PER_S);
    at.tv_nsec = (long)(ns % LMO_NS_PER_S);
    (void)pthread_cond_timedwait(&link->changed, &link->lock, &at);
    return true;
}

static int read_some(struct lmo_ovsdb_link *link, int fd, struct lmo_err *err)
{
    uint8_t bytes[READ_BYTES];
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "%s", n == 0 ? "closed by the peer" : strerror(errno));
    pthread_mutex_lock(&link->lock);
    int r = link->user->received(link->arg, bytes, (size_t)n, err);
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->lock);
    return r;
}

/* Silence: ask; silence after that: give up. */
static int probe(struct lmo_ovsdb_link *link, uint64_t heard_ns, bool *probed, struct lmo_err *err)
{
    uint64_t now = lmo_now_ns();
    if (now < heard_ns + (*probed ? 2 : 1) * link->probe_ns)
        return 0;
    if (*probed)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "no sign of life for %u ms",
                        (unsigned)(2 * link->probe_ns / LMO_NS_PER_MS));
    *probed = true;
    pthread_mutex_lock(&link->lock);
    int r = link->user->probe(link->arg, err);
    pthread_mutex_unlock(&link->lock);
    return r;
}

/* Serves one connection until it ends. */
static void serve(struct lmo_ovsdb_link *link, int fd, struct lmo_err *err)
{
    uint64_t heard_ns = lmo_now_ns();
    bool probed = false;
    int r = 0;
    while (r >= 0) {
        pthread_mutex_lock(&link->lock);
        bool closing = link->closing, more = link->out.len > 0;
        pthread_mutex_unlock(&link->lock);
        if (closing)
            break;
        struct pollfd p[2] = {{.fd = fd, .events = (short)(POLLIN | (more ? POLLOUT : 0))},
                              {.fd = link->wake_fd, .events = POLLIN}};
        int n = poll(p, 2, (int)lmo_ms_until(heard_ns + (probed ? 2 : 1) * link->probe_ns));
        if (n < 0 && errno != EINTR)
            r = lmo_fail(err, LMO_E_IO, "poll: %s", strerror(errno));
        if (n > 0 && p[1].revents)
            drain(link);
        if (n > 0 && (p[0].revents & POLLOUT)) {
            pthread_mutex_lock(&link->lock);
            if (!flush_out(link))
                r = lmo_fail(err, LMO_E_UNAVAILABLE, "send: %s", strerror(errno));
            pthread_mutex_unlock(&link->lock);
        }
        if (r >= 0 && n > 0 && (p[0].revents & (POLLIN | POLLERR | POLLHUP))) {
            heard_ns = lmo_now_ns();
            probed = false;
            r = read_some(link, fd, err);
        }
        if (r >= 0)
            r = probe(link, heard_ns, &probed, err);
    }
}

static int connect_one(struct lmo_ovsdb_link *link, const char *remote, int *ret_fd, struct lmo_err *err)
{
    int fd;
    int r = lmo_ovsdb_stream_connect(remote, lmo_now_ns() + CONNECT_MS * LMO_NS_PER_MS, link->wake_fd, &fd, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&link->lock);
    link->fd = fd;
    r = link->user->connected(link->arg, err);
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->lock);
    *ret_fd = fd;
    return r;
}

/* True when the connection was of use. */
static bool disconnect(struct lmo_ovsdb_link *link, const struct lmo_err *why)
{
    pthread_mutex_lock(&link->lock);
    bool was_useful = link->useful;
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    link->useful = false;
    link->problem = *why;
    lmo_buf_reset(&link->out);
    link->user->lost(link->arg);
    pthread_cond_broadcast(&link->changed);
    pthread_mutex_unlock(&link->lock);
    return was_useful;
}

/* True when the link is being stopped. */
static bool pause_before_retry(struct lmo_ovsdb_link *link, uint64_t ms)
{
    uint64_t until = lmo_now_ns() + ms * LMO_NS_PER_MS;
    for (;;) {
        pthread_mutex_lock(&link->lock);
        bool closing = link->closing;
        pthread_mutex_unlock(&link->lock);
        uint64_t left = lmo_ms_until(until);
        if (closing || left == 0)
            return closing;
        struct pollfd p = {.fd = link->wake_fd, .events = POLLIN};
        if (poll(&p, 1, (int)left) > 0)
            drain(link);
    }
}

static void *reader_main(void *arg)
{
    struct lmo_ovsdb_link *link = arg;
    uint64_t backoff_ms = BACKOFF_MIN_MS;
    bool quiet = false; /* one line per outage, not one per attempt */
    for (size_t attempt = 0;; attempt++) {
        const char *remote = link->remotes[attempt % link->remote_count];
        struct lmo_err err = {0};
        int fd;
        if (connect_one(link, remote, &fd, &err) >= 0)
            serve(link, fd, &err);
        bool useful = disconnect(link, &err);
        if (pause_before_retry(link, 0))
            return NULL;
        if (useful || !quiet)
            lmo_log(LMO_LOG_WARN, "connection down", "to=%s remote=%s reason=%s", link->name, remote, err.text);
        quiet = !useful;
        backoff_ms = useful ? BACKOFF_MIN_MS : backoff_ms;
        if (pause_before_retry(link, backoff_ms))
            return NULL;
        backoff_ms = backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : backoff_ms * 2;
    }
}

static int split_remotes(struct lmo_ovsdb_link *link, const char *text, struct lmo_err *err)
{
    while (*text) {
        size_t len = strcspn(text, ",");
        if (link->remote_count == LMO_OVSDB_REMOTES_MAX || len == 0 || len >= sizeof link->remotes[0])
            return lmo_fail(err, LMO_E_INVALID, "%s: 1 to %d remotes expected, separated by commas", link->name,
                            LMO_OVSDB_REMOTES_MAX);
        char *remote = link->remotes[link->remote_count++];
        memcpy(remote, text, len);
        remote[len] = '\0';
        int r = lmo_ovsdb_stream_check(remote, err);
        if (r < 0) {
            (void)lmo_err_prefix(err, "%s", link->name);
            return r;
        }
        text += len + (text[len] == ',');
    }
    return link->remote_count ? 0 : lmo_fail(err, LMO_E_INVALID, "%s: no remote configured", link->name);
}

static void release(struct lmo_ovsdb_link *link)
{
    if (link->wake_fd >= 0)
        close(link->wake_fd);
    lmo_buf_done(&link->out);
    pthread_cond_destroy(&link->changed);
    pthread_mutex_destroy(&link->lock);
}

int lmo_ovsdb_link_start(struct lmo_ovsdb_link *link, const char *name, const char *remotes, uint64_t probe_ms,
                         const struct lmo_ovsdb_link_user *user, void *arg, struct lmo_err *err)
{
    *link = (struct lmo_ovsdb_link){.user = user, .arg = arg, .fd = -1, .out = LMO_BUF_INIT(OUT_MAX_BYTES)};
    (void)snprintf(link->name, sizeof link->name, "%s", name);
    link->probe_ns = (probe_ms ? probe_ms : PROBE_DEFAULT_MS) * LMO_NS_PER_MS;
    (void)lmo_fail(&link->problem, LMO_E_UNAVAILABLE, "no answer yet");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&link->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&link->lock, NULL);
    link->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int r = link->wake_fd < 0 ? lmo_fail(err, LMO_E_LIMIT, "%s: eventfd: %s", link->name, strerror(errno))
                              : split_remotes(link, remotes, err);
    if (r == 0 && pthread_create(&link->reader, NULL, reader_main, link) != 0)
        r = lmo_fail(err, LMO_E_LIMIT, "%s: no thread to be had", link->name);
    if (r < 0)
        release(link);
    return r;
}

void lmo_ovsdb_link_stop(struct lmo_ovsdb_link *link)
{
    pthread_mutex_lock(&link->lock);
    link->closing = true;
    pthread_mutex_unlock(&link->lock);
    wake(link);
    pthread_join(link->reader, NULL);
    release(link);
}
