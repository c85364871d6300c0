/* stream.c - replies that go on: a bounded buffer between whoever writes and libmicrohttpd, which reads it.
 *
 * Life of a stream (invariants, under server->lock):
 *  1. Two owners: the writer (until lmo_http_stream_free) and libmicrohttpd's response (until its free callback). It is freed
 *     when both are gone; it keeps the server alive until then.
 *  2. `idle` is true exactly while the connection is suspended for want of data. Only what takes it back to false resumes,
 *     and nobody suspends once the server is stopping or the stream has been ended: so it is always resumed.
 *  3. `ended` goes from false to true once; then nothing more is taken, and the writer's `ended` callback is called once,
 *     by libmicrohttpd's thread, outside of the lock.
 *  4. What was taken goes out before the end, but for the client's own end or one that takes nothing for stall_ms. */
#include "http/server_internal.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <string.h>
#include <sys/socket.h>
#include <utlist.h>

#define BUFFER_DEFAULT ((size_t)256 * 1024)
#define STALL_DEFAULT  30000
#define FINAL_MAX      1024 /* the last words come on top of the buffer's limit */
#define SOCKET_MAX     (256 * 1024)
#define BLOCK          16384 /* what libmicrohttpd asks for at once: one TLS record */

struct lmo_http_stream {
    unsigned owners;
    struct lmo_http_server *server;         /* referenced */
    struct lmo_http_connection *connection; /* NULL once it is gone */
    struct MHD_Connection *mhd;             /* to be resumed while `idle` */
    struct lmo_http_stream *prev, *next;    /* server->streams, until libmicrohttpd's side has gone */
    struct lmo_http_stream_config config;
    char *ring; /* config.buffer_max + FINAL_MAX bytes */
    size_t size, at, used;
    bool bound;   /* the socket's buffer is as small as ours */
    bool idle;    /* suspended */
    bool refused; /* a write found no room: `room` is due when there is */
    bool ended;   /* no more is taken */
    bool told;    /* `ended` was called */
};

/* ------------------------------------------------------------------ life */

/* With the lock held; releases it. */
static void drop_unlock(struct lmo_http_stream *s)
{
    struct lmo_http_server *server = s->server;
    bool last = --s->owners == 0;
    if (!last) {
        pthread_mutex_unlock(&server->lock);
        return;
    }
    lmo_http_server_unref_unlock(server);
    free(s->ring);
    free(s);
}

/* With the lock held. */
static void wake(struct lmo_http_stream *s)
{
    if (s->idle) {
        s->idle = false;
        MHD_resume_connection(s->mhd);
    }
}

void lmo_http_streams_end_locked(struct lmo_http_server *server)
{
    for (struct lmo_http_stream *s = server->streams; s; s = s->next) {
        s->ended = true;
        wake(s);
    }
}

/* ------------------------------------------------------------------ libmicrohttpd's side */

static ssize_t take(struct lmo_http_stream *s, char *to, size_t max)
{
    size_t n = s->used < max ? s->used : max, first = s->size - s->at;
    first = first < n ? first : n;
    memcpy(to, s->ring + s->at, first);
    memcpy(to + first, s->ring, n - first);
    s->at = (s->at + n) % s->size;
    s->used -= n;
    return (ssize_t)n;
}

/* Is the peer's certificate still good? Asked again after every reload of the TLS files. */
static bool still_welcome(struct lmo_http_stream *s)
{
    struct lmo_http_connection *c = s->connection;
    struct lmo_err err = {0};
    return c && lmo_http_judge(s->server, s->mhd, c, &err) == 0;
}

/* The system would keep megabytes for a client that takes nothing, and what is there is neither ours to count nor in time. */
static void bind_socket(struct lmo_http_stream *s)
{
    int bytes = s->config.buffer_max < SOCKET_MAX ? (int)s->config.buffer_max : SOCKET_MAX;
    if (!s->bound && s->connection) {
        (void)setsockopt(s->connection->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    }
    s->bound = true;
}

static ssize_t read_cb(void *arg, uint64_t position, char *to, size_t max)
{
    struct lmo_http_stream *s = arg;
    struct lmo_http_server *server = s->server;
    (void)position;
    bool welcome = still_welcome(s);
    bind_socket(s);
    pthread_mutex_lock(&server->lock);
    s->ended = s->ended || !welcome;
    if (!welcome) {
        s->used = 0;
    }
    if (s->used == 0 && !s->ended && !server->stopping) {
        MHD_suspend_connection(s->mhd);
        s->idle = true;
        s->connection->deadline_ns = 0;
        pthread_mutex_unlock(&server->lock);
        return 0;
    }
    ssize_t n = s->used > 0 ? take(s, to, max) : MHD_CONTENT_READER_END_OF_STREAM;
    s->connection->deadline_ns = lmo_now_ns() + s->config.stall_ms * LMO_NS_PER_MS;
    lmo_http_watch_by(server, s->connection->deadline_ns);
    bool room = s->refused && !s->ended && s->used <= s->config.buffer_max / 2;
    s->refused = s->refused && !room;
    pthread_mutex_unlock(&server->lock);
    if (room && s->config.room) {
        s->config.room(s->config.arg);
    }
    return n;
}

/* The response is done with, however that came. */
static void free_cb(void *arg)
{
    struct lmo_http_stream *s = arg;
    pthread_mutex_lock(&s->server->lock);
    s->ended = true;
    s->connection = NULL;
    s->mhd = NULL;
    lmo_assert(!s->idle); /* a suspended connection is not closed */
    DL_DELETE(s->server->streams, s);
    s->server->stats.streams_open--;
    bool tell = !s->told;
    s->told = true;
    pthread_mutex_unlock(&s->server->lock);
    if (tell && s->config.ended) {
        s->config.ended(s->config.arg);
    }
    pthread_mutex_lock(&s->server->lock);
    drop_unlock(s);
}

/* ------------------------------------------------------------------ the writer's side */

int lmo_http_reply_stream(struct lmo_http_request *req, unsigned status, const char *content_type,
                          const struct lmo_http_stream_config *config, struct lmo_http_stream **ret_stream)
{
    struct lmo_http_server *server = req->server;
    struct lmo_http_stream *s = calloc(1, sizeof *s);
    size_t buffer = config->buffer_max ? config->buffer_max : BUFFER_DEFAULT;
    char *ring = malloc(buffer + FINAL_MAX);
    struct MHD_Response *response =
        s && ring ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_cb, s, free_cb) : NULL;
    if (!response) {
        free(ring);
        free(s);
        lmo_http_reply_fail(req, LMO_E_NO_MEMORY, "no memory for a stream");
        return LMO_E_NO_MEMORY;
    }
    *s = (struct lmo_http_stream){.owners = 2,
                                  .server = server,
                                  .mhd = req->mhd,
                                  .connection = req->connection,
                                  .config = *config,
                                  .ring = ring,
                                  .size = buffer + FINAL_MAX};
    s->config.buffer_max = buffer;
    s->config.stall_ms = config->stall_ms ? config->stall_ms : STALL_DEFAULT;
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (req->id[0]) {
        (void)MHD_add_response_header(response, "X-Request-Id", req->id);
    }
    for (unsigned i = 0; i < req->extra_count; i++) {
        (void)MHD_add_response_header(response, req->extra[i].name, req->extra[i].value);
    }
    pthread_mutex_lock(&server->lock);
    server->references++;
    server->stats.streams_open++;
    DL_APPEND(server->streams, s);
    bool late = req->answered || !req->mhd;
    if (late) {
        s->ended = true;
    }
    /* If it was too late the response is destroyed right here: free_cb takes the lock, so not under it. */
    bool mine = !late && lmo_http_answer_locked(req, status, response);
    pthread_mutex_unlock(&server->lock);
    if (!mine) {
        MHD_destroy_response(response);
    }
    lmo_http_request_drop(req);
    *ret_stream = s;
    return 0;
}

int lmo_http_stream_write(struct lmo_http_stream *s, const void *data, size_t len, bool spare)
{
    int r = 0;
    pthread_mutex_lock(&s->server->lock);
    size_t limit = spare ? s->config.buffer_max / 2 : s->config.buffer_max;
    if (s->ended) {
        r = LMO_E_GONE;
    } else if (len > limit || s->used > limit - len) {
        s->refused = s->refused || !spare;
        r = LMO_E_LIMIT;
    } else {
        size_t to = (s->at + s->used) % s->size, first = s->size - to;
        first = first < len ? first : len;
        memcpy(s->ring + to, data, first);
        memcpy(s->ring, (const char *)data + first, len - first);
        s->used += len;
        wake(s);
    }
    pthread_mutex_unlock(&s->server->lock);
    return r;
}

void lmo_http_stream_end(struct lmo_http_stream *s, const void *final, size_t len)
{
    pthread_mutex_lock(&s->server->lock);
    if (!s->ended) {
        if (len <= s->size - s->used) {
            size_t to = (s->at + s->used) % s->size, first = s->size - to;
            first = first < len ? first : len;
            memcpy(s->ring + to, final, first);
            memcpy(s->ring, (const char *) final + first, len - first);
            s->used += len;
        }
        s->ended = true;
        wake(s);
    }
    pthread_mutex_unlock(&s->server->lock);
}

struct lmo_http_stream *lmo_http_stream_free(struct lmo_http_stream *s)
{
    if (s) {
        lmo_http_stream_end(s, "", 0);
        pthread_mutex_lock(&s->server->lock);
        drop_unlock(s);
    }
    return NULL;
}
