/* qmp.c - the QMP client's thread, its connection and the calls that wait for replies.
 *
 * One thread owns the socket's life: it connects, reads, and writes what did not fit at once. Callers write directly
 * (never blocking) as long as nothing is queued before them, so a command costs no thread switch on its way out.
 *
 * Invariants, all under `lock`:
 *  1. `fd` is replaced or closed only by the client's thread; others use it only while they hold the lock.
 *  2. A call is in `calls` from before its first byte is sent until its waiter has taken it out; the thread only
 *     marks it (replied or lost). So a reply finds its call or nobody is waiting any more.
 *  3. Bytes leave in the order in which ids were given: out of order writes would tear commands apart.
 *  4. When a connection is lost every call sent on it is marked lost before `on_down` runs. */
#include "workers/drivers/qmp.h"

#include "base/json.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define QMP_CALLS_MAX       256u               /* calls under way */
#define QMP_OUT_MAX         ((size_t)1 << 20)  /* bytes that wait for the socket */
#define QMP_LINE_MAX        ((size_t)16 << 20) /* one message of the service; the list of all nodes is the largest */
#define QMP_READ_CHUNK      ((size_t)64 << 10)
#define QMP_HANDSHAKE_MS    3000u
#define QMP_BACKOFF_MIN_MS  10u
#define QMP_BACKOFF_MAX_MS  250u
#define QMP_CAPABILITIES_ID 0 /* ids of calls start at 1 */

enum qmp_call_state { QMP_CALL_WAITING, QMP_CALL_REPLIED, QMP_CALL_LOST };

struct qmp_call {
    struct qmp_call *next;
    uint64_t id;
    enum qmp_call_state state;
    json_t *reply; /* the whole message; owned */
};

enum qmp_link { QMP_DOWN, QMP_GREETING, QMP_NEGOTIATING, QMP_READY };

struct lmo_qmp {
    struct lmo_qmp_config cfg;
    struct sockaddr_un address;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* CLOCK_MONOTONIC: replies, the link going up or down */
    int wake;               /* eventfd: stop, output queued, connect now */
    int fd;                 /* -1 unless connected */
    enum qmp_link link;
    bool stop;
    bool hurry;          /* somebody waits for the connection: skip the back-off once */
    uint64_t generation; /* of the last connection that came up */
    uint64_t next_id;
    unsigned call_count;
    struct qmp_call *calls;
    char *out; /* bytes not yet accepted by the socket */
    size_t out_len;
    char *in; /* bytes of an incomplete message; only the thread touches it */
    size_t in_len, in_size;
    size_t in_scanned; /* no end of line before this offset */
};

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static struct timespec deadline_after(uint64_t timeout_ms)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += (time_t)(timeout_ms / 1000);
    ts.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_nsec -= 1000000000;
        ts.tv_sec++;
    }
    return ts;
}

static void wake_thread(struct lmo_qmp *q)
{
    uint64_t one = 1;
    /* An eventfd's counter cannot overflow here, and a wake-up that is pending already is as good. */
    ssize_t n = write(q->wake, &one, sizeof(one));
    (void)n;
}

/* ---------------------------------------------------------------- output */

/* Sends or queues one whole message. Called with the lock held and a connection. */
static int out_append(struct lmo_qmp *q, const char *data, size_t len, struct lmo_err *err)
{
    if (q->out_len + len > QMP_OUT_MAX)
        return lmo_fail(err, LMO_E_BUSY, "volume service: it does not read its commands; %zu bytes wait", q->out_len);
    /* Room first: once the first byte is out, the rest of the message must follow. */
    char *grown = realloc(q->out, q->out_len + len);
    if (!grown)
        return lmo_fail(err, LMO_E_NO_MEMORY, "volume service: no memory for a command of %zu bytes", len);
    q->out = grown;
    size_t sent = 0;
    if (q->out_len == 0) {
        ssize_t n = send(q->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            sent = (size_t)n; /* an error will be seen by the reader, which ends the connection */
    }
    memcpy(q->out + q->out_len, data + sent, len - sent);
    q->out_len += len - sent;
    if (q->out_len > 0)
        wake_thread(q);
    return 0;
}

/* The thread's part: what the socket did not take at once. */
static bool out_flush(struct lmo_qmp *q)
{
    bool alive = true;
    pthread_mutex_lock(&q->lock);
    if (q->out_len > 0) {
        ssize_t n = send(q->fd, q->out, q->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            memmove(q->out, q->out + n, q->out_len - (size_t)n);
            q->out_len -= (size_t)n;
        } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
            alive = false;
        }
    }
    pthread_mutex_unlock(&q->lock);
    return alive;
}

/* One command as a line. Returns owned text, NULL without memory. */
static char *command_text(const char *command, const json_t *arguments, uint64_t id)
{
    json_t *message = json_pack("{s:s, s:I}", "execute", command, "id", (json_int_t)id);
    char *text = NULL;
    /* Our own deep copy: sharing `arguments` would make two threads count its references. */
    json_t *copy = arguments ? json_deep_copy(arguments) : json_object();
    if (message && copy && json_object_set_new(message, "arguments", copy) == 0) {
        (void)!lmo_json_dump(message, &text, NULL, NULL);
    } else if (!message) {
        json_decref(copy);
    }
    json_decref(message);
    size_t len = text ? strlen(text) : 0;
    char *line = text ? realloc(text, len + 2) : NULL;
    if (!line) {
        free(text);
        return NULL;
    }
    memcpy(line + len, "\n", 2);
    return line;
}

/* ---------------------------------------------------------------- input */

/* Takes `message`. Its caller becomes the only owner: two threads must not share a JSON value's count. */
static void handle_reply(struct lmo_qmp *q, json_t *message)
{
    const json_t *id = json_object_get(message, "id");
    uint64_t number = json_is_integer(id) ? (uint64_t)json_integer_value(id) : QMP_CAPABILITIES_ID;
    pthread_mutex_lock(&q->lock);
    for (struct qmp_call *c = q->calls; c && message; c = c->next) {
        if (c->id == number && c->state == QMP_CALL_WAITING) {
            c->reply = message;
            message = NULL;
            c->state = QMP_CALL_REPLIED;
            pthread_cond_broadcast(&q->changed);
        }
    }
    pthread_mutex_unlock(&q->lock);
    json_decref(message);
}

/* Greeting and negotiation. Returns false if the peer does not speak QMP. */
static bool handle_handshake(struct lmo_qmp *q, const json_t *message)
{
    if (q->link == QMP_GREETING) {
        if (!json_object_get(message, "QMP"))
            return false;
        char *line = command_text("qmp_capabilities", NULL, QMP_CAPABILITIES_ID);
        if (!line)
            return false;
        pthread_mutex_lock(&q->lock);
        int rc = out_append(q, line, strlen(line), NULL);
        q->link = QMP_NEGOTIATING;
        pthread_mutex_unlock(&q->lock);
        free(line);
        return rc == 0;
    }
    if (!json_object_get(message, "return"))
        return json_object_get(message, "event") != NULL; /* an event may come first; an error ends it */
    pthread_mutex_lock(&q->lock);
    q->link = QMP_READY;
    uint64_t generation = ++q->generation;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    if (q->cfg.on_up)
        q->cfg.on_up(q->cfg.arg, generation);
    return true;
}

static bool handle_message(struct lmo_qmp *q, const char *text, size_t len)
{
    json_t *message = NULL;
    (void)!lmo_json_parse(text, len, len, &message, NULL);
    bool alive = json_is_object(message); /* what is no message: the stream cannot be trusted any more */
    if (alive && q->link != QMP_READY) {
        alive = handle_handshake(q, message);
    } else if (alive) {
        const char *event = json_string_value(json_object_get(message, "event"));
        if (!event) {
            handle_reply(q, message);
            return true;
        }
        if (q->cfg.on_event)
            q->cfg.on_event(q->cfg.arg, event, json_object_get(message, "data"));
    }
    json_decref(message);
    return alive;
}

/* Handles every complete line in the buffer. */
static bool in_consume(struct lmo_qmp *q)
{
    size_t start = 0;
    bool alive = true;
    while (alive) {
        char *end = memchr(q->in + q->in_scanned, '\n', q->in_len - q->in_scanned);
        if (!end)
            break;
        size_t line_end = (size_t)(end - q->in);
        size_t len = line_end - start;
        if (len > 0 && q->in[line_end - 1] == '\r')
            len--;
        if (len > 0)
            alive = handle_message(q, q->in + start, len);
        start = line_end + 1;
        q->in_scanned = start;
    }
    memmove(q->in, q->in + start, q->in_len - start);
    q->in_len -= start;
    q->in_scanned = q->in_len;
    return alive;
}

static bool in_read(struct lmo_qmp *q)
{
    if (q->in_size - q->in_len < QMP_READ_CHUNK) {
        if (q->in_len + QMP_READ_CHUNK > QMP_LINE_MAX)
            return false;
        char *grown = realloc(q->in, q->in_len + QMP_READ_CHUNK);
        if (!grown)
            return false;
        q->in = grown;
        q->in_size = q->in_len + QMP_READ_CHUNK;
    }
    ssize_t n = recv(q->fd, q->in + q->in_len, q->in_size - q->in_len, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    q->in_len += (size_t)n;
    return in_consume(q);
}

/* ---------------------------------------------------------------- the thread */

static bool stopping(struct lmo_qmp *q)
{
    pthread_mutex_lock(&q->lock);
    bool stop = q->stop;
    pthread_mutex_unlock(&q->lock);
    return stop;
}

static bool link_connect(struct lmo_qmp *q)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    /* A UNIX socket connects at once or not at all (EAGAIN: the listener's backlog is full). */
    if (connect(fd, (const struct sockaddr *)&q->address, sizeof(q->address)) != 0) {
        close(fd);
        return false;
    }
    pthread_mutex_lock(&q->lock);
    q->fd = fd;
    q->link = QMP_GREETING;
    q->out_len = 0;
    pthread_mutex_unlock(&q->lock);
    q->in_len = q->in_scanned = 0;
    return true;
}

static void link_drop(struct lmo_qmp *q)
{
    pthread_mutex_lock(&q->lock);
    bool was_ready = q->link == QMP_READY;
    uint64_t generation = q->generation;
    close(q->fd);
    q->fd = -1;
    q->link = QMP_DOWN;
    q->out_len = 0;
    for (struct qmp_call *c = q->calls; c; c = c->next)
        if (c->state == QMP_CALL_WAITING)
            c->state = QMP_CALL_LOST;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    if (was_ready && q->cfg.on_down)
        q->cfg.on_down(q->cfg.arg, generation);
}

static void drain_wake(struct lmo_qmp *q)
{
    uint64_t count;
    ssize_t n = read(q->wake, &count, sizeof(count));
    (void)n;
}

/* Serves the connection until it is lost or the client is closed. Returns whether it ever became ready. */
static bool link_serve(struct lmo_qmp *q)
{
    uint64_t handshake_end = now_ms() + QMP_HANDSHAKE_MS;
    bool was_ready = false;
    bool alive = true;
    while (alive && !stopping(q)) {
        pthread_mutex_lock(&q->lock);
        bool ready = q->link == QMP_READY;
        bool output = q->out_len > 0;
        pthread_mutex_unlock(&q->lock);
        was_ready = was_ready || ready;
        uint64_t now = now_ms();
        if (!ready && now >= handshake_end)
            break; /* connected, but somebody else has the monitor: a QMP socket serves one client at a time */
        struct pollfd fds[2] = {
            {.fd = q->fd, .events = (short)(POLLIN | (output ? POLLOUT : 0))},
            {.fd = q->wake, .events = POLLIN},
        };
        if (poll(fds, 2, ready ? -1 : (int)(handshake_end - now)) < 0 && errno != EINTR)
            break;
        if (fds[1].revents)
            drain_wake(q);
        if (fds[0].revents & POLLOUT)
            alive = out_flush(q);
        if (alive && (fds[0].revents & (POLLIN | POLLHUP | POLLERR)))
            alive = in_read(q);
    }
    return was_ready;
}

static void *qmp_thread(void *arg)
{
    struct lmo_qmp *q = arg;
    uint64_t backoff_ms = QMP_BACKOFF_MIN_MS;
    while (!stopping(q)) {
        if (link_connect(q)) {
            if (link_serve(q))
                backoff_ms = QMP_BACKOFF_MIN_MS;
            link_drop(q);
        }
        pthread_mutex_lock(&q->lock);
        bool wait = !q->stop && !q->hurry;
        q->hurry = false;
        pthread_mutex_unlock(&q->lock);
        if (wait) {
            struct pollfd fd = {.fd = q->wake, .events = POLLIN};
            if (poll(&fd, 1, (int)backoff_ms) > 0)
                drain_wake(q);
            backoff_ms = backoff_ms * 2 < QMP_BACKOFF_MAX_MS ? backoff_ms * 2 : QMP_BACKOFF_MAX_MS;
        }
    }
    return NULL;
}

/* ---------------------------------------------------------------- interface */

static void qmp_free(struct lmo_qmp *q)
{
    if (q->wake >= 0)
        close(q->wake);
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->lock);
    free(q->out);
    free(q->in);
    free(q);
}

int lmo_qmp_open(const struct lmo_qmp_config *cfg, struct lmo_qmp **ret, struct lmo_err *err)
{
    struct lmo_qmp *q = calloc(1, sizeof(*q));
    if (!q)
        return lmo_fail(err, LMO_E_NO_MEMORY, "volume service: no memory");
    q->cfg = *cfg;
    q->fd = -1;
    q->next_id = QMP_CAPABILITIES_ID + 1;
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->changed, &attr);
    pthread_condattr_destroy(&attr);
    q->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    q->address.sun_family = AF_UNIX;
    size_t len = strlen(cfg->path);
    if (len == 0 || len >= sizeof(q->address.sun_path)) {
        qmp_free(q);
        return lmo_fail(err, LMO_E_INVALID, "volume service: socket path must have 1 to %zu characters, has %zu",
                        sizeof(q->address.sun_path) - 1, len);
    }
    memcpy(q->address.sun_path, cfg->path, len);
    q->cfg.path = q->address.sun_path;
    int rc = q->wake < 0 ? errno : pthread_create(&q->thread, NULL, qmp_thread, q);
    if (rc != 0) {
        qmp_free(q);
        return lmo_fail(err, LMO_E_IO, "volume service: cannot start its client: %s", strerror(rc));
    }
    *ret = q;
    return 0;
}

void lmo_qmp_shutdown(struct lmo_qmp *q)
{
    pthread_mutex_lock(&q->lock);
    bool first = !q->stop;
    q->stop = true;
    pthread_cond_broadcast(&q->changed);
    wake_thread(q);
    pthread_mutex_unlock(&q->lock);
    if (first)
        pthread_join(q->thread, NULL);
}

void lmo_qmp_close(struct lmo_qmp *q)
{
    if (!q)
        return;
    lmo_qmp_shutdown(q);
    qmp_free(q);
}

/* Takes a finished or abandoned call out of the list. Called with the lock held. */
static void call_remove(struct lmo_qmp *q, const struct qmp_call *call)
{
    for (struct qmp_call **p = &q->calls; *p; p = &(*p)->next) {
        if (*p == call) {
            *p = call->next;
            q->call_count--;
            return;
        }
    }
}

/* Translates a reply. Takes `reply`. */
static int reply_result(json_t *reply, const char *command, json_t **ret_value, struct lmo_err *err)
{
    json_t *value = json_object_get(reply, "return");
    int rc = 0;
    if (value) {
        if (ret_value)
            *ret_value = json_incref(value);
    } else {
        const json_t *error = json_object_get(reply, "error");
        const char *cls = json_string_value(json_object_get(error, "class"));
        const char *desc = json_string_value(json_object_get(error, "desc"));
        bool missing = cls && strcmp(cls, "CommandNotFound") == 0;
        rc = lmo_fail(err, missing ? LMO_E_UNSUPPORTED : LMO_E_REFUSED, "volume service: %s: %s", command,
                      desc ? desc : "refused without a reason");
    }
    json_decref(reply);
    return rc;
}

int lmo_qmp_call(struct lmo_qmp *q, const char *command, const json_t *arguments, uint64_t timeout_ms,
                 json_t **ret_value, struct lmo_err *err)
{
    struct timespec deadline = deadline_after(timeout_ms);
    struct qmp_call call = {.state = QMP_CALL_WAITING};
    int rc = 0;
    pthread_mutex_lock(&q->lock);
    if (q->link != QMP_READY || q->stop) {
        rc = lmo_fail(err, LMO_E_UNAVAILABLE, "volume service: not connected to %s", q->cfg.path);
    } else if (q->call_count >= QMP_CALLS_MAX) {
        rc = lmo_fail(err, LMO_E_BUSY, "volume service: %u commands are under way", QMP_CALLS_MAX);
    } else {
        call.id = q->next_id++;
        char *line = command_text(command, arguments, call.id);
        rc = line ? out_append(q, line, strlen(line), err)
                  : lmo_fail(err, LMO_E_NO_MEMORY, "volume service: no memory for a command");
        free(line);
    }
    if (rc != 0) {
        pthread_mutex_unlock(&q->lock);
        return rc;
    }
    /* Listed after the bytes left, but before the lock is: the reader needs the lock to look for it. */
    call.next = q->calls;
    q->calls = &call;
    q->call_count++;
    int wait = 0;
    while (call.state == QMP_CALL_WAITING && !q->stop && wait != ETIMEDOUT)
        wait = pthread_cond_timedwait(&q->changed, &q->lock, &deadline);
    call_remove(q, &call);
    pthread_mutex_unlock(&q->lock);
    if (call.state == QMP_CALL_REPLIED)
        return reply_result(call.reply, command, ret_value, err);
    if (call.state == QMP_CALL_WAITING && wait == ETIMEDOUT)
        return lmo_fail(err, LMO_E_TIMEOUT, "volume service: no reply to %s within %llu ms", command,
                        (unsigned long long)timeout_ms);
    return lmo_fail(err, LMO_E_UNKNOWN, "volume service: connection lost before the reply to %s", command);
}

int lmo_qmp_await(struct lmo_qmp *q, uint64_t timeout_ms, struct lmo_err *err)
{
    struct timespec deadline = deadline_after(timeout_ms);
    pthread_mutex_lock(&q->lock);
    if (q->link == QMP_DOWN) {
        q->hurry = true;
        wake_thread(q);
    }
    int wait = 0;
    while (q->link != QMP_READY && !q->stop && wait != ETIMEDOUT)
        wait = pthread_cond_timedwait(&q->changed, &q->lock, &deadline);
    bool ready = q->link == QMP_READY && !q->stop;
    pthread_mutex_unlock(&q->lock);
    return ready ? 0 : lmo_fail(err, LMO_E_UNAVAILABLE, "volume service: not connected to %s", q->cfg.path);
}

uint64_t lmo_qmp_generation(struct lmo_qmp *q)
{
    pthread_mutex_lock(&q->lock);
    uint64_t generation = q->link == QMP_READY ? q->generation : 0;
    pthread_mutex_unlock(&q->lock);
    return generation;
}
