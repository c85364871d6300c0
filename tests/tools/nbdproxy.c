/* nbdproxy.c - a delaying NBD proxy: everything passes at once, until it is told to hold writes back.
 *
 * Long for a file: it is one program, in the order of a byte through it, and shares nothing but nbdwire.h.
 *
 * It sits between the guests' QEMUs and the volume service, understands the NBD protocol enough to find whole
 * requests and their replies, and writes a history of every write that went through it, in the order in which it
 * passed them on. On command (a UNIX socket, one line each, one JSON object back):
 *
 *   hold [EXPORT]     the next write of each matching connection, and everything behind it there, stays here
 *   capture [EXPORT]  the next matching write passes, and a copy of it stays here
 *   release           held bytes and copies go into the same established session with the service; the answer says
 *                     what became of each: delivered or not, the service's reply, or that it has closed the session;
 *                     one that was not accepted is followed by an attempt to connect anew to the same export
 *   status            connections, what is held
 *   quit
 *
 * Why both: a QEMU that pauses its guest for switch-over first waits for all of its writes. One that is held stops the
 * migration right there, before there is anything to fence. The copy stands for a write that the source had issued,
 * that was acknowledged or given up, and that some layer below delivers late: it is a real request of the guest, and
 * its arrival in the source's own established session is what a fence must make harmless.
 *
 * `nbdproxy --ctl SOCKET COMMAND...` sends one command and prints the answer.
 *
 * History, one line per write, when its fate is known:
 *   N FORWARDED_US REPLIED_US CONNECTION EXPORT OFFSET LENGTH SEQ STATUS
 * N counts in the order of forwarding over all connections; SEQ is the record's number if it is one of the lab's disk
 * workload, else 0; STATUS is "ok", "error-N", or "none" (the session ended without a reply; REPLIED_US is its end). */
#include "deploy/lab/guest/record.h"
#include "tests/tools/common.h"
#include "tests/tools/nbdwire.h"

#include <argp.h>
#include <assert.h>
#include <fcntl.h>
#include <sys/epoll.h>

#define CONNECTIONS_MAX        128
#define CONTROLS_MAX           8
#define PENDING_MAX            4096
#define ITEMS_MAX              256
#define OUT_MAX                ((size_t)1 << 20)  /* above this the other side is not read */
#define HELD_MAX               ((size_t)64 << 20) /* above this the client is not read */
#define READ_CHUNK             (256u << 10)
#define OPTION_MAX             8192u /* longer options pass unread */
#define PEEK                   64u   /* bytes of a write's payload that are looked at */
#define EXPORT_NAME_MAX        256
#define RELEASE_WAIT_NS        (2 * TOOL_NS_PER_S)
#define INJECTED_COOKIE        UINT64_C(0x4c4d4f0000000000) /* QEMU counts its own from 1 */
#define EXTENDED_REQUEST_MAGIC 0x21e41c71u
#define EXTENDED_REPLY_MAGIC   0x6e8a278cu
#define EXTENDED_SIZE          32u
#define EXTENDED_PAYLOAD_FLAG  32u

const char *argp_program_version = "nbdproxy 1";

struct buf {
    uint8_t *data;
    size_t start, len, size;
};

/* Something kept back, and what became of it. */
struct item {
    bool copy;
    int connection;
    char export_name[EXPORT_NAME_MAX];
    uint64_t offset, length, seq, kept_us, released_us, released_ns, answered_us;
    uint8_t *request; /* copy: header and payload; NULL for what is held in its connection */
    size_t request_len;
    bool released, finished, delivered, answered, session_closed;
    uint32_t error;
    char reconnect[96];
};

struct pending {
    uint64_t cookie, offset, length, seq, number, forwarded_us;
    uint16_t type;
    bool injected;
    struct item *item;
};

enum client_phase { CLIENT_FLAGS, CLIENT_OPTIONS, CLIENT_REQUESTS, CLIENT_OPAQUE };
enum server_phase { SERVER_GREETING, SERVER_OPTIONS, SERVER_REPLIES, SERVER_OPAQUE };

struct connection {
    int id;             /* 0: free */
    int client, server; /* -1: closed */
    bool connected;     /* to the service */
    bool client_eof, server_eof;
    enum client_phase client_phase;
    enum server_phase server_phase;
    struct buf from_client, from_server, to_client, to_server;
    uint64_t client_skip, server_skip; /* bytes of the present message that pass unread */
    bool server_drop;                  /* ... and are not passed on */
    bool no_zeroes, export_name_option, extended;
    char export_name[EXPORT_NAME_MAX];
    struct item *held;
    unsigned pending_count;
    struct pending pending[PENDING_MAX];
};

struct control {
    int fd; /* -1: free */
    char line[512];
    size_t len;
    bool waits; /* for the end of a release */
};

struct proxy {
    const char *listen_address, *upstream, *control_path, *history_path;
    int epoll, listener, control_listener, signals;
    FILE *history;
    struct connection *connections[CONNECTIONS_MAX];
    struct control controls[CONTROLS_MAX];
    struct item *items[ITEMS_MAX];
    unsigned item_count;
    bool hold, capture, quit;
    char filter[EXPORT_NAME_MAX]; /* of hold and capture; "": every export */
    int last_id;
    uint64_t writes, last_injected;
};

enum source_kind { SRC_LISTENER, SRC_CONTROL_LISTENER, SRC_SIGNALS, SRC_CLIENT, SRC_SERVER, SRC_CONTROL };

static uint64_t source(enum source_kind kind, unsigned index)
{
    return (uint64_t)kind << 32 | index;
}

/* ---------------------------------------------------------------- buffers */

static void buf_append(struct buf *b, const void *data, size_t len)
{
    if (b->start + b->len + len > b->size) {
        if (b->len > 0 && b->start > 0)
            memmove(b->data, b->data + b->start, b->len);
        b->start = 0;
        if (b->len + len > b->size) {
            b->size = (b->len + len) * 2;
            b->data = realloc(b->data, b->size);
            if (!b->data)
                tool_die("out of memory");
        }
    }
    memcpy(b->data + b->start + b->len, data, len);
    b->len += len;
}

static uint8_t *buf_head(struct buf *b)
{
    return b->data + b->start;
}

static void buf_consume(struct buf *b, size_t len)
{
    assert(len <= b->len);
    b->start += len;
    b->len -= len;
    if (b->len == 0)
        b->start = 0;
}

static void buf_move(struct buf *to, struct buf *from, size_t len)
{
    if (len == 0)
        return;
    buf_append(to, buf_head(from), len);
    buf_consume(from, len);
}

/* ---------------------------------------------------------------- items and history */

static struct item *item_new(struct proxy *p, const struct connection *c, bool copy, const struct pending *w)
{
    if (p->item_count == ITEMS_MAX)
        return NULL;
    struct item *it = calloc(1, sizeof(*it));
    if (!it)
        tool_die("out of memory");
    it->copy = copy;
    it->connection = c->id;
    snprintf(it->export_name, sizeof(it->export_name), "%s", c->export_name);
    it->offset = w->offset;
    it->length = w->length;
    it->seq = w->seq;
    it->kept_us = tool_realtime_us();
    p->items[p->item_count++] = it;
    return it;
}

static void item_free(struct item *it)
{
    free(it->request);
    free(it);
}

/* Does the connection have something kept back, so that its session must stay as it is? */
static bool has_items(const struct proxy *p, const struct connection *c)
{
    for (unsigned i = 0; i < p->item_count; i++)
        if (p->items[i]->connection == c->id && !p->items[i]->finished)
            return true;
    return false;
}

static void history_line(struct proxy *p, const struct connection *c, const struct pending *w, const char *status)
{
    if (!p->history || w->type == NBDW_CMD_READ || w->type == NBDW_CMD_FLUSH)
        return;
    fprintf(p->history, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %d %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", w->number,
            w->forwarded_us, tool_realtime_us(), c->id, c->export_name[0] ? c->export_name : "?", w->offset, w->length,
            w->seq, status);
}

/* Asks the service whether it would let the export's host in again. Blocks for a round trip, at most seconds. */
static void try_new_connection(struct proxy *p, struct item *it)
{
    int fd = nbdw_connect(p->upstream);
    if (fd < 0) {
        snprintf(it->reconnect, sizeof(it->reconnect), "no connection: %s", strerror(errno));
        return;
    }
    int rc = nbdw_go(fd, it->export_name, NULL);
    if (rc == 0)
        snprintf(it->reconnect, sizeof(it->reconnect), "accepted");
    else if (rc > 0)
        snprintf(it->reconnect, sizeof(it->reconnect), "refused: option error %d%s", rc,
                 rc == 6 ? " (export unknown)" : "");
    else
        snprintf(it->reconnect, sizeof(it->reconnect), "refused: connection closed");
    close(fd);
}

static void item_finish(struct proxy *p, struct item *it)
{
    it->finished = true;
    if (!it->answered || it->error != 0)
        try_new_connection(p, it);
}

/* ---------------------------------------------------------------- client to service */

static bool matches(const struct proxy *p, const struct connection *c)
{
    return p->filter[0] == '\0' || strcmp(p->filter, c->export_name) == 0;
}

static void client_option(struct connection *c)
{
    struct buf *in = &c->from_client;
    const uint8_t *head = buf_head(in);
    uint32_t option = nbdw_get32(head + 8);
    uint32_t len = nbdw_get32(head + 12);
    const uint8_t *name = head + 16;
    uint32_t name_len = len;
    c->export_name_option = option == NBDW_OPT_EXPORT_NAME;
    if (option == NBDW_OPT_GO && len >= 4) {
        name_len = nbdw_get32(name);
        name += 4;
    } else if (option != NBDW_OPT_EXPORT_NAME) {
        name_len = 0;
    }
    if (name_len > 0 && name_len < EXPORT_NAME_MAX && name + name_len <= head + 16 + len) {
        memcpy(c->export_name, name, name_len);
        c->export_name[name_len] = '\0';
        for (char *ch = c->export_name; *ch; ch++) /* it becomes a column of the history */
            if (*ch <= ' ' || *ch == 0x7f)
                *ch = '?';
    }
    buf_move(&c->to_server, in, 16 + len);
}

/* One option, if it is complete. Returns false if more bytes are needed. */
static bool pump_option(struct connection *c)
{
    struct buf *in = &c->from_client;
    if (in->len < 16)
        return false;
    uint32_t len = nbdw_get32(buf_head(in) + 12);
    if (nbdw_get64(buf_head(in)) != NBDW_OPTION_MAGIC || len > OPTION_MAX) {
        c->client_phase = CLIENT_OPAQUE;
        c->server_phase = SERVER_OPAQUE;
        return true;
    }
    if (in->len < 16 + len)
        return false;
    client_option(c);
    return true;
}

/* Reads a request's header. Returns its size, 0 if more bytes are needed, -1 if it is none. */
static int parse_request(struct connection *c, struct pending *w, uint64_t *payload)
{
    struct buf *in = &c->from_client;
    size_t size = c->extended ? EXTENDED_SIZE : NBDW_REQUEST_SIZE;
    if (in->len < size)
        return 0;
    const uint8_t *h = buf_head(in);
    if (nbdw_get32(h) != (c->extended ? EXTENDED_REQUEST_MAGIC : NBDW_REQUEST_MAGIC))
        return -1;
    uint16_t flags = nbdw_get16(h + 4);
    *w = (struct pending){.type = nbdw_get16(h + 6), .cookie = nbdw_get64(h + 8), .offset = nbdw_get64(h + 16)};
    w->length = c->extended ? nbdw_get64(h + 24) : nbdw_get32(h + 24);
    bool has_payload = c->extended ? (flags & EXTENDED_PAYLOAD_FLAG) != 0 : w->type == NBDW_CMD_WRITE;
    *payload = has_payload ? w->length : 0;
    size_t peek = *payload < PEEK ? (size_t)*payload : PEEK;
    if (in->len < size + peek)
        return 0;
    if (w->type == NBDW_CMD_WRITE && peek >= sizeof(struct record)) {
        struct record r;
        memcpy(&r, h + size, sizeof(r));
        w->seq = r.magic == RECORD_MAGIC ? r.seq : 0;
    }
    return (int)size;
}

static bool modifies(uint16_t type)
{
    return type == NBDW_CMD_WRITE || type == NBDW_CMD_TRIM || type == NBDW_CMD_WRITE_ZEROES;
}

static void remember(struct proxy *p, struct connection *c, struct pending *w)
{
    if (w->type == NBDW_CMD_DISC)
        return;
    if (c->pending_count == PENDING_MAX)
        tool_die("connection %d has more than %d requests under way", c->id, PENDING_MAX);
    w->number = modifies(w->type) ? ++p->writes : 0;
    w->forwarded_us = tool_realtime_us();
    c->pending[c->pending_count++] = *w;
}

/* Copies that were released go out between two requests. */
static void inject_released(struct proxy *p, struct connection *c)
{
    for (unsigned i = 0; i < p->item_count; i++) {
        struct item *it = p->items[i];
        if (!it->copy || !it->released || it->finished || it->delivered || it->connection != c->id)
            continue;
        struct pending w = {.type = NBDW_CMD_WRITE,
                            .offset = it->offset,
                            .length = it->length,
                            .seq = it->seq,
                            .injected = true,
                            .item = it};
        w.cookie = INJECTED_COOKIE + ++p->last_injected;
        nbdw_put64(it->request + 8, w.cookie);
        buf_append(&c->to_server, it->request, it->request_len);
        it->delivered = true;
        remember(p, c, &w);
    }
}

/* One request, if enough of it is here and it need not be held. Returns false if nothing more can be done now. */
static bool pump_request(struct proxy *p, struct connection *c)
{
    struct pending w;
    uint64_t payload = 0;
    if (c->held)
        return false;
    inject_released(p, c);
    int size = parse_request(c, &w, &payload);
    if (size <= 0) {
        if (size < 0)
            c->client_phase = CLIENT_OPAQUE;
        return size < 0;
    }
    if (p->hold && modifies(w.type) && matches(p, c)) {
        c->held = item_new(p, c, false, &w);
        return c->held == NULL;
    }
    if (p->capture && w.type == NBDW_CMD_WRITE && matches(p, c)) {
        size_t whole = (size_t)size + (size_t)payload;
        if (c->from_client.len < whole)
            return false;
        struct item *it = item_new(p, c, true, &w);
        if (it && (it->request = malloc(whole)) != NULL) {
            memcpy(it->request, buf_head(&c->from_client), whole);
            it->request_len = whole;
        }
        p->capture = false;
    }
    remember(p, c, &w);
    buf_move(&c->to_server, &c->from_client, (size_t)size);
    c->client_skip = payload;
    return true;
}

static void pump_client(struct proxy *p, struct connection *c)
{
    bool more = true;
    while (more) {
        struct buf *in = &c->from_client;
        if (c->client_skip > 0) {
            size_t n = c->client_skip < in->len ? (size_t)c->client_skip : in->len;
            buf_move(&c->to_server, in, n);
            c->client_skip -= n;
            more = n > 0;
            continue;
        }
        switch (c->client_phase) {
        case CLIENT_FLAGS:
            more = in->len >= 4;
            if (more) {
                c->no_zeroes = nbdw_get32(buf_head(in)) & NBDW_FLAG_NO_ZEROES;
                buf_move(&c->to_server, in, 4);
                c->client_phase = CLIENT_OPTIONS;
            }
            break;
        case CLIENT_OPTIONS: more = pump_option(c); break;
        case CLIENT_REQUESTS: more = pump_request(p, c); break;
        case CLIENT_OPAQUE:
            buf_move(&c->to_server, in, in->len);
            more = false;
            break;
        }
    }
}

/* ---------------------------------------------------------------- service to client */

static void begin_transmission(struct connection *c)
{
    c->client_phase = CLIENT_REQUESTS;
    c->server_phase = SERVER_REPLIES;
}

static bool pump_option_reply(struct connection *c)
{
    struct buf *in = &c->from_server;
    if (c->export_name_option) { /* the old way in: size and flags, no reply header, then transmission */
        size_t size = c->no_zeroes ? 10 : 134;
        if (in->len < size)
            return false;
        buf_move(&c->to_client, in, size);
        begin_transmission(c);
        return true;
    }
    if (in->len < 20)
        return false;
    const uint8_t *h = buf_head(in);
    uint32_t option = nbdw_get32(h + 8);
    uint32_t type = nbdw_get32(h + 12);
    c->server_skip = nbdw_get32(h + 16);
    if (nbdw_get64(h) != NBDW_OPTION_REPLY_MAGIC) {
        c->server_phase = SERVER_OPAQUE;
        c->server_skip = 0;
        return true;
    }
    if (type == NBDW_REP_ACK && option == NBDW_OPT_GO)
        begin_transmission(c);
    if (type == NBDW_REP_ACK && option == NBDW_OPT_EXTENDED_HEADERS)
        c->extended = true;
    if (type == NBDW_REP_ACK && option == NBDW_OPT_STARTTLS) {
        c->client_phase = CLIENT_OPAQUE;
        c->server_phase = SERVER_OPAQUE;
    }
    buf_move(&c->to_client, in, 20);
    return true;
}

/* A request's last word. */
static void complete(struct proxy *p, struct connection *c, unsigned index, uint32_t error)
{
    struct pending w = c->pending[index];
    c->pending[index] = c->pending[--c->pending_count];
    char status[32] = "ok";
    if (error != 0)
        snprintf(status, sizeof(status), "error-%" PRIu32, error);
    history_line(p, c, &w, status);
    if (w.item) {
        w.item->answered = true;
        w.item->answered_us = tool_realtime_us();
        w.item->error = error;
        item_finish(p, w.item);
    }
}

static int find_pending(const struct connection *c, uint64_t cookie)
{
    for (unsigned i = 0; i < c->pending_count; i++)
        if (c->pending[i].cookie == cookie)
            return (int)i;
    return -1;
}

/* One reply or chunk of one. */
static bool pump_reply(struct proxy *p, struct connection *c)
{
    struct buf *in = &c->from_server;
    if (in->len < NBDW_SIMPLE_REPLY_SIZE)
        return false;
    const uint8_t *h = buf_head(in);
    uint32_t magic = nbdw_get32(h);
    int index = find_pending(c, nbdw_get64(h + 8));
    size_t size = NBDW_SIMPLE_REPLY_SIZE;
    uint64_t rest = 0;
    uint32_t error = 0;
    bool done = true;
    if (magic == NBDW_SIMPLE_REPLY_MAGIC) {
        error = nbdw_get32(h + 4);
        if (index >= 0 && c->pending[index].type == NBDW_CMD_READ && error == 0)
            rest = c->pending[index].length;
    } else if (magic == NBDW_STRUCTURED_REPLY_MAGIC || magic == EXTENDED_REPLY_MAGIC) {
        size = magic == EXTENDED_REPLY_MAGIC ? EXTENDED_SIZE : NBDW_STRUCTURED_REPLY_SIZE;
        bool is_error = nbdw_get16(h + 6) & NBDW_REPLY_TYPE_ERROR;
        if (in->len < size + (is_error ? 4 : 0))
            return false;
        done = nbdw_get16(h + 4) & NBDW_REPLY_FLAG_DONE;
        rest = magic == EXTENDED_REPLY_MAGIC ? nbdw_get64(h + 24) : nbdw_get32(h + 16);
        error = is_error ? nbdw_get32(h + size) : 0;
    } else {
        c->server_phase = SERVER_OPAQUE;
        return true;
    }
    c->server_drop = index >= 0 && c->pending[index].injected;
    c->server_skip = rest;
    if (c->server_drop)
        buf_consume(in, size);
    else
        buf_move(&c->to_client, in, size);
    if (index >= 0 && done)
        complete(p, c, (unsigned)index, error);
    return true;
}

static void pump_server(struct proxy *p, struct connection *c)
{
    bool more = true;
    while (more) {
        struct buf *in = &c->from_server;
        if (c->server_skip > 0) {
            size_t n = c->server_skip < in->len ? (size_t)c->server_skip : in->len;
            if (c->server_drop)
                buf_consume(in, n);
            else
                buf_move(&c->to_client, in, n);
            c->server_skip -= n;
            more = n > 0;
            continue;
        }
        c->server_drop = false;
        switch (c->server_phase) {
        case SERVER_GREETING:
            more = in->len >= 18;
            if (more) {
                buf_move(&c->to_client, in, 18);
                c->server_phase = SERVER_OPTIONS;
            }
            break;
        case SERVER_OPTIONS: more = pump_option_reply(c); break;
        case SERVER_REPLIES: more = pump_reply(p, c); break;
        case SERVER_OPAQUE:
            buf_move(&c->to_client, in, in->len);
            more = false;
            break;
        }
    }
}

/* ---------------------------------------------------------------- sockets */

static void watch(struct proxy *p, int fd, uint64_t data, uint32_t events, int op)
{
    struct epoll_event ev = {.events = events, .data.u64 = data};
    if (epoll_ctl(p->epoll, op, fd, &ev) != 0)
        tool_die("epoll_ctl: %s", strerror(errno));
}

/* Reads what is there. Returns false at the end of the stream. */
static bool read_some(int fd, struct buf *b, size_t max)
{
    static uint8_t chunk[READ_CHUNK];
    while (b->len < max) {
        ssize_t n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        if (n == 0)
            return false;
        buf_append(b, chunk, (size_t)n);
        if ((size_t)n < sizeof(chunk))
            break;
    }
    return true;
}

/* Writes what can be written. Returns false if the other side is gone. */
static bool write_some(int fd, struct buf *b)
{
    while (b->len > 0) {
        ssize_t n = send(fd, buf_head(b), b->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        buf_consume(b, (size_t)n);
    }
    return true;
}

static void close_client(struct connection *c)
{
    if (c->client >= 0)
        close(c->client);
    c->client = -1;
    c->client_eof = true;
    c->to_client.len = 0;
}

/* The service ended the session: nothing that is under way will be answered. */
static void server_ended(struct proxy *p, struct connection *c)
{
    c->server_eof = true;
    for (unsigned i = 0; i < c->pending_count; i++) {
        struct pending *w = &c->pending[i];
        history_line(p, c, w, "none");
        if (w->item)
            w->item->session_closed = true;
    }
    for (unsigned i = 0; i < c->pending_count; i++)
        if (c->pending[i].item)
            item_finish(p, c->pending[i].item);
    c->pending_count = 0;
    if (c->server >= 0)
        epoll_ctl(p->epoll, EPOLL_CTL_DEL, c->server, NULL); /* it stays open for what is still held */
}

static void connection_free(struct proxy *p, unsigned index)
{
    struct connection *c = p->connections[index];
    close_client(c);
    if (c->server >= 0)
        close(c->server);
    free(c->from_client.data);
    free(c->from_server.data);
    free(c->to_client.data);
    free(c->to_server.data);
    free(c);
    p->connections[index] = NULL;
}

/* After every change: sends, arms epoll, closes what has ended. */
static void settle(struct proxy *p, unsigned index)
{
    struct connection *c = p->connections[index];
    if (!c->server_eof && c->connected && !write_some(c->server, &c->to_server))
        server_ended(p, c);
    if (c->client >= 0 && !write_some(c->client, &c->to_client))
        close_client(c);
    if (c->server_eof && c->to_client.len == 0)
        close_client(c);
    bool idle = c->to_server.len == 0 && c->pending_count == 0 && !has_items(p, c);
    if ((c->client_eof && c->client < 0 && idle) || (c->server_eof && c->client < 0 && !has_items(p, c))) {
        if (!c->server_eof)
            server_ended(p, c);
        connection_free(p, index);
        return;
    }
    if (c->client >= 0) {
        bool full = c->to_server.len > OUT_MAX || c->from_client.len > HELD_MAX;
        watch(p, c->client, source(SRC_CLIENT, index),
              (full || c->client_eof ? 0 : (uint32_t)EPOLLIN) | (c->to_client.len > 0 ? (uint32_t)EPOLLOUT : 0),
              EPOLL_CTL_MOD);
    }
    if (!c->server_eof)
        watch(p, c->server, source(SRC_SERVER, index),
              (c->to_client.len > OUT_MAX ? 0 : (uint32_t)EPOLLIN) |
                  (!c->connected || c->to_server.len > 0 ? (uint32_t)EPOLLOUT : 0),
              EPOLL_CTL_MOD);
}

static void on_client(struct proxy *p, unsigned index, uint32_t events)
{
    struct connection *c = p->connections[index];
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && c->client >= 0 &&
        !read_some(c->client, &c->from_client, HELD_MAX))
        c->client_eof = true;
    pump_client(p, c);
    if (c->client_eof)
        close_client(c); /* NBD knows no half-closed sessions; what it sent before is still passed on */
    settle(p, index);
}

static void on_server(struct proxy *p, unsigned index, uint32_t events)
{
    struct connection *c = p->connections[index];
    if (!c->connected && (events & EPOLLOUT) && !(events & (EPOLLERR | EPOLLHUP)))
        c->connected = true;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !c->server_eof) {
        bool alive = read_some(c->server, &c->from_server, OUT_MAX * 2);
        pump_server(p, c);
        pump_client(p, c); /* transmission may have begun */
        if (!alive)
            server_ended(p, c);
    }
    settle(p, index);
}

static int tcp_socket(const char *address, bool listening)
{
    char host[256];
    const char *colon = strrchr(address, ':');
    if (!colon || (size_t)(colon - address) >= sizeof(host))
        tool_die("'%s' must be ADDRESS:PORT", address);
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = '\0';
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
        tool_die("'%s' must be ADDRESS:PORT", address);
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;
    if (fd < 0)
        tool_die("socket: %s", strerror(errno));
    int rc;
    if (listening) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        rc = bind(fd, found->ai_addr, found->ai_addrlen);
        if (rc == 0)
            rc = listen(fd, 64);
    } else {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        rc = connect(fd, found->ai_addr, found->ai_addrlen);
        if (rc != 0 && errno == EINPROGRESS)
            rc = 0;
    }
    freeaddrinfo(found);
    if (rc != 0) {
        if (listening)
            tool_die("cannot listen on %s: %s", address, strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

static void on_accept(struct proxy *p)
{
    int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    unsigned i = 0;
    while (i < CONNECTIONS_MAX && p->connections[i])
        i++;
    struct connection *c = i < CONNECTIONS_MAX ? calloc(1, sizeof(*c)) : NULL;
    int server = c ? tcp_socket(p->upstream, false) : -1;
    if (server < 0) {
        free(c);
        close(fd);
        return;
    }
    c->id = ++p->last_id;
    c->client = fd;
    c->server = server;
    p->connections[i] = c;
    watch(p, fd, source(SRC_CLIENT, i), EPOLLIN, EPOLL_CTL_ADD);
    watch(p, server, source(SRC_SERVER, i), EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

/* ---------------------------------------------------------------- control */

static json_t *item_json(const struct item *it)
{
    json_t *out = json_object();
    tool_put(out, "kind", json_string(it->copy ? "copy" : "held"));
    tool_put(out, "export", json_string(it->export_name));
    tool_put(out, "connection", json_integer(it->connection));
    tool_put(out, "offset", tool_u64(it->offset));
    tool_put(out, "length", tool_u64(it->length));
    tool_put(out, "seq", tool_u64(it->seq));
    tool_put(out, "kept_us", tool_u64(it->kept_us));
    tool_put(out, "released_us", tool_u64(it->released_us));
    tool_put(out, "answered_us", tool_u64(it->answered_us));
    tool_put(out, "session", json_string(it->session_closed ? "closed_by_service" : "open"));
    tool_put(out, "sent", json_boolean(it->delivered));
    char reply[32] = "none";
    if (it->answered && it->error == 0)
        snprintf(reply, sizeof(reply), "ok");
    else if (it->answered)
        snprintf(reply, sizeof(reply), "error-%" PRIu32, it->error);
    tool_put(out, "reply", json_string(reply));
    tool_put(out, "accepted", json_boolean(it->answered && it->error == 0));
    tool_put(out, "reconnect", json_string(it->reconnect));
    return out;
}

static json_t *items_json(const struct proxy *p)
{
    json_t *out = json_object();
    json_t *items = json_array();
    unsigned accepted = 0;
    for (unsigned i = 0; i < p->item_count; i++) {
        json_array_append_new(items, item_json(p->items[i]));
        accepted += p->items[i]->answered && p->items[i]->error == 0;
    }
    tool_put(out, "ok", json_true());
    tool_put(out, "accepted", json_integer(accepted));
    tool_put(out, "items", items);
    return out;
}

static json_t *status_json(const struct proxy *p)
{
    json_t *out = items_json(p);
    json_t *list = json_array();
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        const struct connection *c = p->connections[i];
        if (!c)
            continue;
        json_t *one = json_object();
        tool_put(one, "connection", json_integer(c->id));
        tool_put(one, "export", json_string(c->export_name));
        tool_put(one, "client", json_boolean(c->client >= 0));
        tool_put(one, "service", json_boolean(!c->server_eof));
        tool_put(one, "held", json_boolean(c->held != NULL));
        tool_put(one, "held_bytes", tool_u64(c->held ? c->from_client.len : 0));
        tool_put(one, "under_way", tool_u64(c->pending_count));
        tool_put(one, "opaque", json_boolean(c->client_phase == CLIENT_OPAQUE));
        json_array_append_new(list, one);
    }
    tool_put(out, "hold", json_boolean(p->hold));
    tool_put(out, "capture", json_boolean(p->capture));
    tool_put(out, "writes", tool_u64(p->writes));
    tool_put(out, "connections", list);
    return out;
}

static void control_reply(struct proxy *p, struct control *k, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);
    if (!text)
        tool_die("out of memory");
    nbdw_send(k->fd, text, strlen(text));
    nbdw_send(k->fd, "\n", 1);
    free(text);
    json_decref(json);
    epoll_ctl(p->epoll, EPOLL_CTL_DEL, k->fd, NULL);
    close(k->fd);
    k->fd = -1;
    k->waits = false;
}

static struct connection *connection_of(struct proxy *p, int id)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        if (p->connections[i] && p->connections[i]->id == id)
            return p->connections[i];
    return NULL;
}

/* The service has closed the session that this was meant for: the bytes are sent all the same, to be certain. */
static void release_into_closed(struct proxy *p, struct connection *c, struct item *it)
{
    it->session_closed = true;
    if (c && c->server >= 0) {
        struct buf *held = &c->from_client;
        ssize_t n = it->copy ? send(c->server, it->request, it->request_len, MSG_DONTWAIT | MSG_NOSIGNAL)
                             : send(c->server, buf_head(held), held->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        it->delivered = n > 0;
    }
    item_finish(p, it);
}

static void release(struct proxy *p)
{
    p->hold = p->capture = false;
    for (unsigned i = 0; i < p->item_count; i++) {
        struct item *it = p->items[i];
        struct connection *c = connection_of(p, it->connection);
        if (it->released)
            continue;
        it->released = true;
        it->released_us = tool_realtime_us();
        it->released_ns = tool_now_ns();
        if (!c || c->server_eof) {
            release_into_closed(p, c, it);
            continue;
        }
        if (c->held == it) {
            c->held = NULL;
            it->delivered = true;
        }
    }
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *c = p->connections[i];
        if (!c)
            continue;
        unsigned before = c->pending_count;
        pump_client(p, c);
        for (unsigned k = 0; k < p->item_count; k++) { /* the first write that leaves is the one that was held */
            struct item *it = p->items[k];
            for (unsigned w = before; !it->copy && !it->finished && it->connection == c->id && w < c->pending_count;
                 w++)
                if (c->pending[w].offset == it->offset && modifies(c->pending[w].type) && !c->pending[w].item) {
                    c->pending[w].item = it;
                    break;
                }
        }
        settle(p, i);
    }
}

/* Ends releases that got no reply in time, and answers who waits once all have ended. Returns ms to wait at most. */
static int check_releases(struct proxy *p)
{
    uint64_t now = tool_now_ns();
    bool open = false;
    for (unsigned i = 0; i < p->item_count; i++) {
        struct item *it = p->items[i];
        if (!it->released || it->finished)
            continue;
        if (now - it->released_ns < RELEASE_WAIT_NS) {
            open = true;
            continue;
        }
        struct connection *c = connection_of(p, it->connection);
        for (unsigned w = 0; c && w < c->pending_count; w++)
            if (c->pending[w].item == it)
                c->pending[w].item = NULL;
        item_finish(p, it);
    }
    if (open)
        return 50;
    bool told = false;
    for (unsigned i = 0; i < CONTROLS_MAX; i++) {
        if (p->controls[i].fd < 0 || !p->controls[i].waits)
            continue;
        control_reply(p, &p->controls[i], items_json(p));
        told = true;
    }
    if (told) { /* reported: forgotten */
        unsigned kept = 0;
        for (unsigned i = 0; i < p->item_count; i++) {
            if (p->items[i]->finished)
                item_free(p->items[i]);
            else
                p->items[kept++] = p->items[i];
        }
        p->item_count = kept;
        for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
            if (p->connections[i])
                settle(p, i);
    }
    return -1;
}

static void command(struct proxy *p, struct control *k)
{
    char *save = NULL;
    const char *verb = strtok_r(k->line, " \t\r\n", &save);
    const char *name = strtok_r(NULL, " \t\r\n", &save);
    if (!verb)
        verb = "";
    if (strcmp(verb, "hold") == 0 || strcmp(verb, "capture") == 0) {
        p->hold = verb[0] == 'h';
        p->capture = !p->hold;
        snprintf(p->filter, sizeof(p->filter), "%s", name ? name : "");
        control_reply(p, k, status_json(p));
    } else if (strcmp(verb, "release") == 0) {
        k->waits = true;
        release(p);
    } else if (strcmp(verb, "status") == 0) {
        control_reply(p, k, status_json(p));
    } else if (strcmp(verb, "quit") == 0) {
        p->quit = true;
        control_reply(p, k, json_pack("{s:b}", "ok", 1));
    } else {
        control_reply(p, k,
                      json_pack("{s:b, s:s}", "ok", 0, "error",
                                "unknown command; must be hold, capture, release, status or quit"));
    }
}

static void on_control(struct proxy *p, unsigned index)
{
    struct control *k = &p->controls[index];
    ssize_t n = recv(k->fd, k->line + k->len, sizeof(k->line) - 1 - k->len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || k->len + (size_t)n == sizeof(k->line) - 1) {
        epoll_ctl(p->epoll, EPOLL_CTL_DEL, k->fd, NULL);
        close(k->fd);
        k->fd = -1;
        return;
    }
    k->len += (size_t)n;
    k->line[k->len] = '\0';
    if (strchr(k->line, '\n') && !k->waits)
        command(p, k);
}

static void on_control_accept(struct proxy *p)
{
    int fd = accept4(p->control_listener, NULL, NULL, SOCK_CLOEXEC);
    unsigned i = 0;
    while (i < CONTROLS_MAX && p->controls[i].fd >= 0)
        i++;
    if (fd < 0 || i == CONTROLS_MAX) {
        if (fd >= 0)
            close(fd);
        return;
    }
    p->controls[i] = (struct control){.fd = fd};
    watch(p, fd, source(SRC_CONTROL, i), EPOLLIN, EPOLL_CTL_ADD);
}

/* ---------------------------------------------------------------- main */

static void dispatch(struct proxy *p, const struct epoll_event *ev)
{
    unsigned index = (unsigned)ev->data.u64;
    switch ((enum source_kind)(ev->data.u64 >> 32)) {
    case SRC_LISTENER: on_accept(p); break;
    case SRC_CONTROL_LISTENER: on_control_accept(p); break;
    case SRC_SIGNALS: p->quit = true; break;
    case SRC_CLIENT:
        if (p->connections[index] && p->connections[index]->client >= 0)
            on_client(p, index, ev->events);
        break;
    case SRC_SERVER:
        if (p->connections[index] && !p->connections[index]->server_eof)
            on_server(p, index, ev->events);
        break;
    case SRC_CONTROL:
        if (p->controls[index].fd >= 0)
            on_control(p, index);
        break;
    }
}

static void serve(struct proxy *p)
{
    while (!p->quit) {
        /* One at a time: handling one event may close what another in the same batch is about. */
        struct epoll_event ev;
        int n = epoll_wait(p->epoll, &ev, 1, check_releases(p));
        if (n < 0 && errno != EINTR)
            tool_die("epoll_wait: %s", strerror(errno));
        if (n == 1)
            dispatch(p, &ev);
    }
}

static int listen_control(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(sun.sun_path))
        tool_die("--control: path is too long");
    memcpy(sun.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&sun, sizeof(sun)) != 0 || listen(fd, 8) != 0)
        tool_die("cannot listen on %s: %s", path, strerror(errno));
    return fd;
}

/* The other end of the control socket. */
static int send_command(const char *path, int argc, char **argv)
{
    char buf[65536];
    int fd = nbdw_connect(path);
    if (fd < 0)
        tool_die("cannot connect to %s: %s", path, strerror(errno));
    for (int i = 0; i < argc; i++)
        if (!nbdw_send(fd, argv[i], strlen(argv[i])) || !nbdw_send(fd, i + 1 < argc ? " " : "\n", 1))
            tool_die("cannot send to %s: %s", path, strerror(errno));
    size_t total = 0;
    for (ssize_t n; (n = recv(fd, buf, sizeof(buf), 0)) > 0; total += (size_t)n)
        fwrite(buf, 1, (size_t)n, stdout);
    close(fd);
    if (total == 0)
        tool_die("no answer");
    return 0;
}

enum { OPT_CTL = 256 };

static const struct argp_option options[] = {
    {"listen", 'l', "ADDRESS:PORT", 0, "Where guests connect", 0},
    {"upstream", 'u', "ADDRESS:PORT", 0, "The volume service", 0},
    {"control", 'c', "SOCKET", 0, "UNIX socket for commands", 0},
    {"history", 'H', "FILE", 0, "Append one line per write", 0},
    {"ctl", OPT_CTL, "SOCKET", 0, "Send COMMAND to a running proxy instead of being one", 0},
    {0},
};

struct arguments {
    struct proxy *p;
    const char *ctl;
    int command_count;
    char *command[3];
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'l': a->p->listen_address = arg; break;
    case 'u': a->p->upstream = arg; break;
    case 'c': a->p->control_path = arg; break;
    case 'H': a->p->history_path = arg; break;
    case OPT_CTL: a->ctl = arg; break;
    case ARGP_KEY_ARG:
        if (!a->ctl || a->command_count == 3)
            argp_usage(state);
        a->command[a->command_count++] = arg;
        break;
    case ARGP_KEY_END:
        if (a->ctl ? a->command_count == 0 : !a->p->listen_address || !a->p->upstream || !a->p->control_path)
            argp_error(state, "either --listen, --upstream and --control, or --ctl SOCKET COMMAND");
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    options,
    parse,
    "[COMMAND [EXPORT]]",
    "A delaying NBD proxy. Commands: hold [EXPORT], capture [EXPORT], release, status, quit.",
    NULL,
    NULL,
    NULL};

int main(int argc, char **argv)
{
    static struct proxy p;
    struct arguments a = {.p = &p};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (a.ctl)
        return send_command(a.ctl, a.command_count, a.command);
    p.epoll = epoll_create1(EPOLL_CLOEXEC);
    p.signals = tool_signals();
    p.listener = tcp_socket(p.listen_address, true);
    p.control_listener = listen_control(p.control_path);
    if (p.history_path) {
        p.history = fopen(p.history_path, "ae");
        if (!p.history)
            tool_die("cannot write %s: %s", p.history_path, strerror(errno));
        setvbuf(p.history, NULL, _IOLBF, 0);
    }
    for (unsigned i = 0; i < CONTROLS_MAX; i++)
        p.controls[i].fd = -1;
    watch(&p, p.listener, source(SRC_LISTENER, 0), EPOLLIN, EPOLL_CTL_ADD);
    watch(&p, p.control_listener, source(SRC_CONTROL_LISTENER, 0), EPOLLIN, EPOLL_CTL_ADD);
    watch(&p, p.signals, source(SRC_SIGNALS, 0), EPOLLIN, EPOLL_CTL_ADD);
    serve(&p);
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        if (!p.connections[i])
            continue;
        if (!p.connections[i]->server_eof)
            server_ended(&p, p.connections[i]);
        connection_free(&p, i);
    }
    for (unsigned i = 0; i < p.item_count; i++)
        item_free(p.items[i]);
    if (p.history && fclose(p.history) != 0)
        tool_die("cannot write %s: %s", p.history_path, strerror(errno));
    unlink(p.control_path);
    return 0;
}
