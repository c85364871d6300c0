/* net.c - lmo/http at the level of messages: http/client.h and http/server.h on links with latency, loss and cuts.
 *
 * What a caller may conclude from an outcome is what lmo/http/client.c says, by the same rules:
 *   connection refused or not made in time     UNAVAILABLE: nothing was sent
 *   no answer by the deadline, after sending   TIMEOUT: may have been executed
 *   connection broken after sending            UNKNOWN; but once sent again, on a new connection, if the method is
 *                                              idempotent and the connection was a used one
 * and a request that the other side keeps for too long is answered 504 there, whoever replies later.
 *
 * Mutual TLS is assumed to have worked: who is at the other end is the process's role and name.
 *
 * A message on its way belongs to the simulator; what a client waits for is found by number, never by address. */
#include "net.h"
#include "sim_private.h"

#include "base/assert.h"
#include "base/clock.h"
#include "http/client.h"
#include "http/server.h"
#include "proto/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LATENCY_NS (120 * SIM_US)
#define DEAD_NS    (15 * SIM_S) /* unacknowledged for so long: the connection is given up */
#define WARM_NS    (90 * SIM_S)
#define PATH_SIZE  512
#define FIELDS_MAX 8

struct link {
    uint64_t cut_until, loss_until, delay_until, extra_ns;
    unsigned per_mille;
};

struct connection {
    uint64_t client_incarnation, server_incarnation, used_ns;
};

/* A request on its way; a copy of what the client gave. */
struct message {
    struct message *prev, *next;
    uint64_t exchange;
    struct sim_process *from, *to;
    uint64_t to_incarnation; /* of the connection that it is on; 0: a new one */
    char method[8], target[PATH_SIZE];
    char idempotency[72], term[24];
    char *body;
    size_t body_len;
};

struct answer_message {
    struct answer_message *prev, *next;
    uint64_t exchange;
    unsigned status;
    char content_type[48];
    char *body;
    size_t body_len;
};

/* What a client waits for. */
struct exchange {
    struct exchange *prev, *next; /* of all */
    struct exchange *next_ready;
    uint64_t id;
    struct lmo_http_client *client;
    struct sim_process *process, *server;
    lmo_http_response_fn *fn;
    void *arg;
    uint64_t started_ns, deadline_ns;
    size_t response_max;
    bool sending, idempotent, reused, again, connecting, over;
    enum sim_fate fate;
    struct message *kept; /* for a second sending */
    int result;
    unsigned status;
    char content_type[48];
    char *body;
    size_t body_len;
    char why[64];
};

struct lmo_http_client {
    struct lmo_http_client *next;
    struct lmo_loop *loop;
    struct sim_process *process;
    int event_fd;
    unsigned requests, requests_max;
    uint64_t connect_ns;
    struct exchange *ready, **ready_last;
};

struct sim_server; /* the name in sim.h */
struct lmo_http_server {
    struct lmo_http_server *next; /* of all */
    struct sim_process *process;
    char address[LMO_ADDRESS_MAX];
    lmo_http_handler *handler;
    void *arg;
    uint64_t reply_timeout_ms;
    struct lmo_http_request *kept;
};

struct field {
    char name[24], value[128];
};

struct lmo_http_request {
    struct lmo_http_request *prev, *next; /* server->kept */
    struct lmo_http_server *server;
    uint64_t id, exchange;
    struct sim_process *from;
    char method[8], path[PATH_SIZE];
    struct field query[FIELDS_MAX];
    unsigned query_count;
    char idempotency[72], term[24], tag[LMO_NAME_MAX];
    void *owner;
    char *body;
    size_t body_len;
    struct lmo_identity peer;
    uint64_t timeout_ms;
    bool answered, inside;
};

static struct {
    struct link links[SIM_PROCESSES_MAX][SIM_PROCESSES_MAX];
    struct connection connections[SIM_PROCESSES_MAX][SIM_PROCESSES_MAX];
    struct exchange *exchanges;
    struct message *messages;
    struct answer_message *answers;
    struct lmo_http_server *servers;
    struct lmo_http_client *clients;
    uint64_t next_id;
    struct sim_rng rng;
    struct sim_net_counts counts;
} net;

/* ------------------------------------------------------------------ links */

static struct link *link_of(const struct sim_process *from, const struct sim_process *to)
{
    return &net.links[from->index][to->index];
}

void sim_net_cut(const struct sim_process *from, const struct sim_process *to, uint64_t ns)
{
    sim_trace("cut from=%s to=%s ms=%llu", from->name, to->name, (unsigned long long)(ns / SIM_MS));
    link_of(from, to)->cut_until = sim_now() + ns;
}

void sim_net_loss(const struct sim_process *from, const struct sim_process *to, unsigned per_mille, uint64_t ns)
{
    struct link *l = link_of(from, to);
    l->per_mille = per_mille;
    l->loss_until = sim_now() + ns;
}

void sim_net_delay(const struct sim_process *from, const struct sim_process *to, uint64_t extra_ns, uint64_t ns)
{
    struct link *l = link_of(from, to);
    l->extra_ns = extra_ns;
    l->delay_until = sim_now() + ns;
}

void sim_net_heal(void)
{
    memset(net.links, 0, sizeof net.links);
}

bool sim_net_is_cut(const struct sim_process *from, const struct sim_process *to)
{
    return link_of(from, to)->cut_until > sim_now();
}

struct sim_net_counts sim_net_counts(void)
{
    return net.counts;
}

/* When something that is sent now arrives; 0: its connection does not live to see it. */
static uint64_t arrival(const struct sim_process *from, const struct sim_process *to)
{
    const struct link *l = link_of(from, to);
    uint64_t now = sim_now(), way = sim_latency(&net.rng, LATENCY_NS, 10);
    if (l->delay_until > now) {
        way += l->extra_ns;
    }
    if (l->cut_until > now) {
        if (l->cut_until - now >= DEAD_NS) {
            return 0;
        }
        return l->cut_until + sim_between(&net.rng, 1, 800) * SIM_MS;
    }
    if (l->loss_until > now && sim_chance(&net.rng, l->per_mille)) {
        if (sim_chance(&net.rng, 200)) {
            return 0;
        }
        way += 200 * SIM_MS << sim_below(&net.rng, 3);
    }
    return now + way;
}

/* ------------------------------------------------------------------ life of a run */

void sim_net_begin(void)
{
    lmo_assert(!net.exchanges && !net.messages && !net.answers);
    memset(&net, 0, sizeof net);
    net.rng = sim_rng_new(sim_seed(), "net");
}

static void message_free(struct message *m)
{
    if (m->prev) {
        m->prev->next = m->next;
    } else {
        net.messages = m->next;
    }
    if (m->next) {
        m->next->prev = m->prev;
    }
    free(m->body);
    free(m);
}

static void answer_free(struct answer_message *a)
{
    if (a->prev) {
        a->prev->next = a->next;
    } else {
        net.answers = a->next;
    }
    if (a->next) {
        a->next->prev = a->prev;
    }
    free(a->body);
    free(a);
}

static void exchange_free(struct exchange *x)
{
    if (x->prev) {
        x->prev->next = x->next;
    } else {
        net.exchanges = x->next;
    }
    if (x->next) {
        x->next->prev = x->prev;
    }
    if (x->kept) {
        message_free(x->kept);
    }
    free(x->body);
    free(x);
}

static struct exchange *exchange_of(uint64_t id)
{
    struct exchange *x = net.exchanges;
    while (x && x->id != id) {
        x = x->next;
    }
    return x;
}

void sim_net_end(void)
{
    while (net.exchanges) {
        exchange_free(net.exchanges);
    }
    while (net.messages) {
        message_free(net.messages);
    }
    while (net.answers) {
        answer_free(net.answers);
    }
}

static void *copy_of(const void *data, size_t len)
{
    char *copy = malloc(len + 1);
    lmo_assert(copy);
    if (len > 0) {
        memcpy(copy, data, len);
    }
    copy[len] = '\0';
    return copy;
}

/* ------------------------------------------------------------------ outcomes at the client */

/* Puts an exchange on its client's loop. */
static void conclude(struct exchange *x, int result, const char *why)
{
    if (x->over) {
        return;
    }
    x->over = true;
    x->result = result;
    snprintf(x->why, sizeof x->why, "%s", why);
    net.counts.refused += result == LMO_E_UNAVAILABLE;
    net.counts.timeouts += result == LMO_E_TIMEOUT;
    net.counts.broken += result == LMO_E_UNKNOWN;
    *x->client->ready_last = x;
    x->client->ready_last = &x->next_ready;
    (void)eventfd_write(x->client->event_fd, 1);
}

/* Numbers ride in the event's argument: nothing to free, nothing to dangle. */
static void *number(uint64_t id)
{
    return (void *)(uintptr_t)id;
}

static void deadline_due(void *arg)
{
    struct exchange *x = exchange_of((uint64_t)(uintptr_t)arg);
    if (x && !x->over) {
        conclude(x, x->sending ? LMO_E_TIMEOUT : LMO_E_UNAVAILABLE, "no answer by the deadline");
    }
}

static void connect_timeout_due(void *arg)
{
    struct exchange *x = exchange_of((uint64_t)(uintptr_t)arg);
    if (x && !x->over && x->connecting) {
        conclude(x, x->sending ? LMO_E_UNKNOWN : LMO_E_UNAVAILABLE, "no connection in time");
    }
}

static void refused_due(void *arg)
{
    struct exchange *x = exchange_of((uint64_t)(uintptr_t)arg);
    if (x && !x->over) {
        conclude(x, x->sending ? LMO_E_UNKNOWN : LMO_E_UNAVAILABLE, "connection refused");
    }
}

static void connect_to(struct exchange *x);

static void broken_due(void *arg)
{
    struct exchange *x = exchange_of((uint64_t)(uintptr_t)arg);
    if (!x || x->over || !x->sending) {
        return;
    }
    memset(&net.connections[x->process->index][x->server->index], 0, sizeof(struct connection));
    if (x->idempotent && x->reused && !x->again) {
        x->again = true;
        connect_to(x);
        return;
    }
    conclude(x, LMO_E_UNKNOWN, "connection broken");
}

/* The connection is seen to be broken by the client, if the news gets there. */
static void break_connection(struct exchange *x)
{
    uint64_t when = arrival(x->server, x->process);
    if (when) {
        sim_at(x->process, when, broken_due, number(x->id));
    }
}

/* ------------------------------------------------------------------ a request arrives */

static struct lmo_http_server *server_of(const struct sim_process *p)
{
    struct lmo_http_server *s = net.servers;
    while (s && s->process != p) {
        s = s->next;
    }
    return s;
}

static void read_query(struct lmo_http_request *req, char *query)
{
    char *save = NULL;
    for (char *part = strtok_r(query, "&", &save); part && req->query_count < FIELDS_MAX;
         part = strtok_r(NULL, "&", &save)) {
        struct field *f = &req->query[req->query_count++];
        char *equals = strchr(part, '=');
        if (equals) {
            *equals = '\0';
        }
        snprintf(f->name, sizeof f->name, "%s", part);
        snprintf(f->value, sizeof f->value, "%s", equals ? equals + 1 : "");
    }
}

static void request_free(struct lmo_http_request *req)
{
    if (req->prev) {
        req->prev->next = req->next;
    } else if (req->server->kept == req) {
        req->server->kept = req->next;
    }
    if (req->next) {
        req->next->prev = req->prev;
    }
    free(req->body);
    free(req);
}

static void send_answer(struct lmo_http_request *req, unsigned status, const char *type, const void *body, size_t len);

static void kept_too_long(void *arg)
{
    for (struct lmo_http_server *s = net.servers; s; s = s->next) {
        for (struct lmo_http_request *req = s->kept; req; req = req->next) {
            if (req->id == (uint64_t)(uintptr_t)arg) {
                static const char text[] = "{\"code\":\"timeout\",\"detail\":\"no answer was ready in time\"}";
                if (!req->answered) {
                    send_answer(req, 504, "application/problem+json", text, sizeof text - 1);
                }
                return;
            }
        }
    }
}

/* On a fiber of the server's process: its listener's thread. */
static void serve(void *arg)
{
    struct message *m = arg;
    struct sim_process *p = sim_current();
    struct lmo_http_server *s = server_of(p);
    enum sim_fate fate = sim_observe(SIM_POINT_SERVE);
    struct lmo_http_request *req = calloc(1, sizeof *req);
    lmo_assert(req);
    char target[PATH_SIZE];
    memcpy(target, m->target, sizeof target);
    char *query = strchr(target, '?');
    if (query) {
        *query++ = '\0';
    }
    *req = (struct lmo_http_request){.server = s,
                                     .id = ++net.next_id,
                                     .exchange = m->exchange,
                                     .from = m->from,
                                     .body = copy_of(m->body, m->body_len),
                                     .body_len = m->body_len,
                                     .peer.role = (enum lmo_role)m->from->role,
                                     .timeout_ms = s->reply_timeout_ms,
                                     .inside = true};
    memcpy(req->method, m->method, sizeof req->method);
    memcpy(req->path, target, sizeof req->path);
    memcpy(req->idempotency, m->idempotency, sizeof req->idempotency);
    memcpy(req->term, m->term, sizeof req->term);
    memcpy(req->peer.name, m->from->name, sizeof req->peer.name);
    if (query) {
        read_query(req, query);
    }
    uint64_t id = req->id;
    req->next = s->kept;
    if (req->next) {
        req->next->prev = req;
    }
    s->kept = req;
    net.counts.delivered++;
    s->handler(s->arg, req);
    for (req = s->kept; req && req->id != id; req = req->next) {
    }
    if (req) {
        req->inside = false;
        sim_at(p, sim_now() + req->timeout_ms * SIM_MS, kept_too_long, number(id));
    }
    sim_after(fate);
}

static void arrive(void *arg);

static void arrive(void *arg)
{
    struct message *m = arg;
    struct sim_process *p = m->to;
    struct exchange *x = exchange_of(m->exchange);
    if (p->alive && p->asleep_until > sim_now()) {
        sim_at(NULL, p->asleep_until + sim_below(&net.rng, 2 * SIM_MS), arrive, m);
        return;
    }
    if (!p->alive || m->to_incarnation != p->incarnation || !server_of(p)) {
        if (x) {
            break_connection(x);
        }
        message_free(m);
        return;
    }
    sim_trace("serve %s <- %s: %s %.120s", p->name, m->from->name, m->method, m->target);
    sim_mix(m->exchange, m->body_len);
    /* The message is found by its list if the process dies in there: kept until the fiber has copied it. */
    sim_run_in(p, serve, m);
    message_free(m);
}

static struct message *message_copy(const struct message *m)
{
    struct message *copy = calloc(1, sizeof *copy);
    lmo_assert(copy);
    *copy = *m;
    copy->body = copy_of(m->body, m->body_len);
    copy->prev = NULL;
    copy->next = net.messages;
    if (copy->next) {
        copy->next->prev = copy;
    }
    net.messages = copy;
    return copy;
}

/* Over a connection that is there: the request leaves now. */
static void transmit(struct exchange *x)
{
    struct sim_process *before = sim_own(NULL);
    struct connection *c = &net.connections[x->process->index][x->server->index];
    struct message *m = message_copy(x->kept);
    x->sending = true;
    c->used_ns = sim_now();
    m->to_incarnation = c->server_incarnation;
    uint64_t when = arrival(x->process, x->server);
    if (x->fate == SIM_FATE_LOST && !x->again) {
        when = 0;
    }
    if (when == 0) {
        message_free(m);
        /* Seen at once (a reset), after the kernel has given up, or not before the deadline. */
        uint64_t seen = sim_below(&net.rng, 3) == 0 ? sim_now() + 20 * SIM_MS : sim_now() + DEAD_NS;
        sim_at(x->process, seen, broken_due, number(x->id));
        (void)sim_own(before);
        return;
    }
    if (x->fate == SIM_FATE_LATE) {
        when += sim_between(&net.rng, 500, 8000) * SIM_MS;
    }
    if (x->fate == SIM_FATE_TWICE && x->idempotent) {
        struct message *second = message_copy(m);
        net.counts.repeated++;
        sim_at(NULL, when + sim_between(&net.rng, 0, 3000) * SIM_MS, arrive, second);
    }
    sim_at(NULL, when, arrive, m);
    (void)sim_own(before);
}

/* ------------------------------------------------------------------ connecting */

static void connected(void *arg)
{
    struct exchange *x = exchange_of((uint64_t)(uintptr_t)arg);
    if (!x || x->over) {
        return;
    }
    struct sim_process *p = x->server;
    if (p->alive && p->asleep_until > sim_now()) {
        sim_at(x->process, p->asleep_until, connected, arg);
        return;
    }
    if (!p->alive || !server_of(p)) {
        x->connecting = false;
        uint64_t when = arrival(p, x->process);
        sim_at(x->process, when ? when : x->deadline_ns, refused_due, arg);
        return;
    }
    if (sim_net_is_cut(x->process, p) || sim_net_is_cut(p, x->process)) {
        return; /* the handshake is stuck: its time-out tells */
    }
    x->connecting = false;
    net.connections[x->process->index][p->index] =
        (struct connection){x->process->incarnation, p->incarnation, sim_now()};
    transmit(x);
}

static void connect_to(struct exchange *x)
{
    uint64_t now = sim_now(), limit = now + x->client->connect_ns;
    uint64_t there = arrival(x->process, x->server), back = arrival(x->server, x->process);
    x->connecting = true;
    sim_at(x->process, limit, connect_timeout_due, number(x->id));
    if (there && back && there + (back - now) < limit) {
        sim_at(x->process, there + (back - now) + sim_between(&net.rng, 500, 2500) * SIM_US, connected, number(x->id));
    }
}

/* ------------------------------------------------------------------ client */

static void deliver(void *arg, int fd, uint32_t events)
{
    (void)events;
    struct lmo_http_client *client = arg;
    eventfd_t count;
    (void)eventfd_read(fd, &count);
    while (client->ready) {
        struct exchange *x = client->ready;
        client->ready = x->next_ready;
        if (!client->ready) {
            client->ready_last = &client->ready;
        }
        client->requests--;
        struct lmo_err err = {0};
        struct lmo_http_response response = {.result = x->result,
                                             .status = x->result == 0 ? x->status : 0,
                                             .body = x->result == 0 && x->body ? x->body : "",
                                             .body_len = x->result == 0 ? x->body_len : 0,
                                             .content_type = x->content_type,
                                             .total_us = (sim_now() - x->started_ns) / 1000,
                                             .reused_connection = x->reused,
                                             .err = &err};
        if (x->result == 0) {
            response.peer.role = (enum lmo_role)x->server->role;
            memcpy(response.peer.name, x->server->name, sizeof response.peer.name);
        } else {
            (void)lmo_fail(&err, x->result, "%s: %s%s", x->server->name, x->why,
                           x->sending ? " (after sending had begun: it may have been executed)"
                                      : " (nothing was sent)");
        }
        sim_mix(x->id, (uint64_t)(unsigned)x->result << 16 | x->status);
        enum sim_fate fate = sim_observe(SIM_POINT_REPLY);
        x->fn(x->arg, &response);
        exchange_free(x);
        sim_after(fate);
    }
}

int lmo_http_client_new(struct lmo_loop *loop, const struct lmo_http_client_config *config,
                        struct lmo_http_client **ret_client, struct lmo_err *err)
{
    struct lmo_http_client *client = calloc(1, sizeof *client);
    lmo_assert(client);
    client->loop = loop;
    client->process = sim_current();
    client->requests_max = config->requests_max ? config->requests_max : 4096;
    client->connect_ns = (config->connect_timeout_ms ? config->connect_timeout_ms : 2000) * SIM_MS;
    client->ready_last = &client->ready;
    client->event_fd = eventfd(0, 0);
    int r = lmo_loop_add_fd(loop, client->event_fd, EPOLLIN, deliver, client, err);
    if (r < 0) {
        free(client);
        return r;
    }
    client->next = net.clients;
    net.clients = client;
    *ret_client = client;
    return 0;
}

static void forget_client(struct lmo_http_client *client)
{
    for (struct exchange *x = net.exchanges, *next; x; x = next) {
        next = x->next;
        if (x->client == client) {
            exchange_free(x);
        }
    }
    for (struct lmo_http_client **at = &net.clients; *at; at = &(*at)->next) {
        if (*at == client) {
            *at = client->next;
            break;
        }
    }
}

struct lmo_http_client *lmo_http_client_free(struct lmo_http_client *client)
{
    if (client) {
        forget_client(client);
        lmo_loop_del_fd(client->loop, client->event_fd);
        (void)close(client->event_fd);
        free(client);
    }
    return NULL;
}

int lmo_http_client_reload(struct lmo_http_client *client, struct lmo_err *err)
{
    (void)client;
    (void)err;
    return 0;
}

static struct lmo_http_server *server_at(const char *address)
{
    struct lmo_http_server *s = net.servers;
    while (s && strcmp(s->address, address) != 0) {
        s = s->next;
    }
    return s;
}

/* Addresses are fixed for a run: 10.0.0.INDEX. */
static struct sim_process *process_at(const char *address)
{
    unsigned index = 0;
    return sscanf(address, "10.0.0.%u:", &index) == 1 ? sim_process_at(index) : NULL;
}

int lmo_http_request_async(struct lmo_http_client *client, const struct lmo_http_request_spec *spec,
                           lmo_http_response_fn *fn, void *arg, uint64_t *ret_handle, struct lmo_err *err)
{
    if (strncmp(spec->url, "https://", 8) != 0) {
        return lmo_fail(err, LMO_E_INVALID, "'%.100s' is not an https URL", spec->url);
    }
    if (client->requests >= client->requests_max) {
        return lmo_fail(err, LMO_E_LIMIT, "%u requests are waiting already", client->requests);
    }
    char address[LMO_ADDRESS_MAX];
    const char *rest = spec->url + 8, *slash = strchr(rest, '/');
    lmo_assert(slash && (size_t)(slash - rest) < sizeof address && strlen(slash) < PATH_SIZE);
    memcpy(address, rest, (size_t)(slash - rest));
    address[slash - rest] = '\0';
    struct sim_process *to = process_at(address);
    lmo_assert(to); /* the plan knows no other addresses */

    enum sim_fate fate = sim_observe(SIM_POINT_CALL);
    struct sim_process *before = sim_own(NULL);
    struct exchange *x = calloc(1, sizeof *x);
    struct message *m = calloc(1, sizeof *m);
    lmo_assert(x && m);
    *x = (struct exchange){.id = ++net.next_id,
                           .client = client,
                           .process = client->process,
                           .server = to,
                           .fn = fn,
                           .arg = arg,
                           .started_ns = sim_now(),
                           .deadline_ns = sim_now() + spec->timeout_ms * SIM_MS,
                           .response_max = spec->response_max ? spec->response_max : (size_t)1024 * 1024,
                           .idempotent = strcmp(spec->method, "POST") != 0,
                           .fate = fate,
                           .next = net.exchanges};
    if (x->next) {
        x->next->prev = x;
    }
    net.exchanges = x;
    *m = (struct message){.exchange = x->id, .from = client->process, .to = to, .body_len = spec->body_len};
    snprintf(m->method, sizeof m->method, "%s", spec->method);
    memcpy(m->target, slash, strlen(slash) + 1);
    m->body = copy_of(spec->body, spec->body_len);
    for (const char *const *h = spec->headers; h && *h; h++) {
        if (strncasecmp(*h, "Idempotency-Key: ", 17) == 0) {
            snprintf(m->idempotency, sizeof m->idempotency, "%s", *h + 17);
        } else if (strncasecmp(*h, LMO_TERM_HEADER ": ", sizeof LMO_TERM_HEADER + 1) == 0) {
            snprintf(m->term, sizeof m->term, "%s", *h + sizeof LMO_TERM_HEADER + 1);
        }
    }
    m->next = net.messages;
    if (m->next) {
        m->next->prev = m;
    }
    net.messages = m;
    x->kept = m;
    (void)sim_own(before);
    client->requests++;
    net.counts.requests++;

    sim_at(x->process, x->deadline_ns, deadline_due, number(x->id));
    const struct connection *c = &net.connections[x->process->index][to->index];
    bool warm = c->used_ns && c->used_ns + WARM_NS > sim_now() && c->client_incarnation == x->process->incarnation;
    if (fate == SIM_FATE_FAIL || (!warm && sim_observe(SIM_POINT_CONNECT) == SIM_FATE_FAIL)) {
        sim_at(x->process, sim_now() + 200 * SIM_US, refused_due, number(x->id));
    } else if (warm) {
        x->reused = true;
        transmit(x);
    } else {
        connect_to(x);
    }
    if (ret_handle) {
        *ret_handle = x->id;
    }
    sim_after(fate);
    return 0;
}

void lmo_http_cancel(struct lmo_http_client *client, uint64_t *handle)
{
    struct exchange *x = *handle ? exchange_of(*handle) : NULL;
    *handle = 0;
    if (!x || x->client != client) {
        return;
    }
    for (struct exchange **at = &client->ready; *at; at = &(*at)->next_ready) {
        if (*at == x) {
            *at = x->next_ready;
            break;
        }
    }
    client->ready_last = &client->ready;
    while (*client->ready_last) {
        client->ready_last = &(*client->ready_last)->next_ready;
    }
    client->requests--;
    exchange_free(x);
}

/* Everything leaves at once here. */
void lmo_http_client_hurry(struct lmo_http_client *client)
{
    (void)client;
}

int lmo_tls_own_identity(const struct lmo_tls_files *files, struct lmo_identity *ret_identity, struct lmo_err *err)
{
    (void)files;
    (void)err;
    const struct sim_process *p = sim_current();
    *ret_identity = (struct lmo_identity){.role = (enum lmo_role)p->role};
    memcpy(ret_identity->name, p->name, sizeof ret_identity->name);
    return 0;
}

unsigned lmo_http_client_load(const struct lmo_http_client *client)
{
    return client->requests;
}

/* ------------------------------------------------------------------ server */

int lmo_http_server_new(const struct lmo_http_server_config *config, struct lmo_http_server **ret_server,
                        struct lmo_err *err)
{
    if (server_at(config->address)) {
        return lmo_fail(err, LMO_E_BUSY, "cannot listen on %s: it is in use", config->address);
    }
    struct lmo_http_server *s = calloc(1, sizeof *s);
    lmo_assert(s);
    s->process = sim_current();
    memcpy(s->address, config->address, sizeof s->address);
    s->handler = config->handler;
    s->arg = config->handler_arg;
    s->reply_timeout_ms = config->reply_timeout_ms ? config->reply_timeout_ms : 60000;
    s->next = net.servers;
    net.servers = s;
    *ret_server = s;
    return 0;
}

static void forget_server(struct lmo_http_server *s)
{
    for (struct lmo_http_server **at = &net.servers; *at; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            return;
        }
    }
}

struct lmo_http_server *lmo_http_server_free(struct lmo_http_server *s)
{
    if (s) {
        lmo_assert(!s->kept); /* only where a start fails half-way */
        forget_server(s);
        free(s);
    }
    return NULL;
}

int lmo_http_server_reload(struct lmo_http_server *s, struct lmo_err *err)
{
    (void)s;
    (void)err;
    return 0;
}

uint16_t lmo_http_server_port(const struct lmo_http_server *s)
{
    (void)s;
    return 8443;
}

/* The end of a process: its connections break, both ways. */
void sim_net_drop(struct sim_process *p)
{
    for (struct lmo_http_server *s = net.servers, *next; s; s = next) {
        next = s->next;
        if (s->process == p) {
            forget_server(s);
        }
    }
    for (struct lmo_http_client *c = net.clients, *next; c; c = next) {
        next = c->next;
        if (c->process == p) {
            forget_client(c);
        }
    }
    for (struct exchange *x = net.exchanges; x; x = x->next) {
        if (x->server == p && x->sending && !x->over) {
            break_connection(x);
        }
    }
}

/* ------------------------------------------------------------------ a request as its handler sees it */

const char *lmo_http_method(const struct lmo_http_request *req)
{
    return req->method;
}

const char *lmo_http_path(const struct lmo_http_request *req)
{
    return req->path;
}

const char *lmo_http_query(const struct lmo_http_request *req, const char *name)
{
    for (unsigned i = 0; i < req->query_count; i++) {
        if (strcmp(req->query[i].name, name) == 0) {
            return req->query[i].value;
        }
    }
    return NULL;
}

const char *lmo_http_query_unknown(const struct lmo_http_request *req, const char *const *known)
{
    for (unsigned i = 0; i < req->query_count; i++) {
        const char *const *k = known;
        while (*k && strcmp(*k, req->query[i].name) != 0) {
            k++;
        }
        if (!*k) {
            return req->query[i].name;
        }
    }
    return NULL;
}

const char *lmo_http_header(const struct lmo_http_request *req, const char *name)
{
    if (strcasecmp(name, "Content-Type") == 0) {
        return req->body_len > 0 ? "application/json" : NULL; /* http/client.h sends that by default */
    }
    const char *value = strcasecmp(name, "Idempotency-Key") == 0 ? req->idempotency
                        : strcasecmp(name, LMO_TERM_HEADER) == 0 ? req->term
                                                                 : "";
    return value[0] ? value : NULL;
}

const char *lmo_http_body(const struct lmo_http_request *req, size_t *ret_len)
{
    if (ret_len) {
        *ret_len = req->body_len;
    }
    return req->body;
}

const struct lmo_identity *lmo_http_peer(const struct lmo_http_request *req)
{
    return &req->peer;
}

const char *lmo_http_remote(const struct lmo_http_request *req)
{
    return req->from->name;
}

int lmo_http_query_u64(const struct lmo_http_request *req, const char *name, uint64_t min, uint64_t max,
                       uint64_t *ret_value, struct lmo_err *err)
{
    const char *text = lmo_http_query(req, name);
    if (!text) {
        return 0;
    }
    char *end = NULL;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || value < min || value > max) {
        return lmo_fail(err, LMO_E_INVALID, "query parameter '%s': must be a whole number from %llu to %llu", name,
                        (unsigned long long)min, (unsigned long long)max);
    }
    *ret_value = value;
    return 0;
}

void lmo_http_set_tag(struct lmo_http_request *req, void *owner, const char *id)
{
    req->owner = owner;
    if (id != req->tag) {
        snprintf(req->tag, sizeof req->tag, "%s", id);
    }
}

void *lmo_http_owner(const struct lmo_http_request *req)
{
    return req->owner;
}

const char *lmo_http_id(const struct lmo_http_request *req)
{
    return req->tag;
}

void lmo_http_set_timeout(struct lmo_http_request *req, uint64_t timeout_ms)
{
    req->timeout_ms = timeout_ms < 600000 ? timeout_ms : 600000;
}

int lmo_http_set_header(struct lmo_http_request *req, const char *name, const char *value)
{
    (void)req;
    (void)name;
    (void)value;
    return 0;
}

static void answer_arrives(void *arg)
{
    struct answer_message *a = arg;
    struct exchange *x = exchange_of(a->exchange);
    if (!x || x->over) {
        answer_free(a);
        return;
    }
    if (x->process->asleep_until > sim_now()) {
        sim_at(NULL, x->process->asleep_until, answer_arrives, a);
        return;
    }
    if (a->body_len > x->response_max) {
        conclude(x, LMO_E_TOO_LARGE, "answer too large");
    } else {
        x->status = a->status;
        memcpy(x->content_type, a->content_type, sizeof x->content_type);
        x->body = a->body;
        x->body_len = a->body_len;
        a->body = NULL;
        net.connections[x->process->index][x->server->index].used_ns = sim_now();
        net.counts.replies++;
        conclude(x, 0, "");
    }
    answer_free(a);
}

/* Ends the wait of whoever asked; the request itself stays its handler's. */
static void send_answer(struct lmo_http_request *req, unsigned status, const char *type, const void *body, size_t len)
{
    req->answered = true;
    struct exchange *x = exchange_of(req->exchange);
    if (!x || x->over) {
        return; /* whoever asked has gone */
    }
    enum sim_fate fate = x->fate == SIM_FATE_REPLY_LOST ? SIM_FATE_LOST : SIM_FATE_NONE;
    uint64_t when = arrival(req->server->process, x->process);
    if (fate == SIM_FATE_LOST || when == 0) {
        if (sim_chance(&net.rng, 500)) {
            break_connection(x);
        }
        return;
    }
    struct sim_process *before = sim_own(NULL);
    struct answer_message *a = calloc(1, sizeof *a);
    lmo_assert(a);
    *a = (struct answer_message){
        .next = net.answers, .exchange = req->exchange, .status = status, .body = copy_of(body, len), .body_len = len};
    if (a->next) {
        a->next->prev = a;
    }
    net.answers = a;
    snprintf(a->content_type, sizeof a->content_type, "%s", type ? type : "");
    (void)sim_own(before);
    sim_at(NULL, when, answer_arrives, a);
}

void lmo_http_reply(struct lmo_http_request *req, unsigned status, const char *content_type, const void *body,
                    size_t len)
{
    enum sim_fate fate = sim_observe(SIM_POINT_ANSWER);
    struct exchange *x = exchange_of(req->exchange);
    if (x && (fate == SIM_FATE_LOST || fate == SIM_FATE_REPLY_LOST)) {
        x->fate = SIM_FATE_REPLY_LOST;
    }
    if (!req->answered) {
        send_answer(req, status, content_type, body, len);
    }
    request_free(req);
    sim_after(fate);
}

void lmo_http_reply_json(struct lmo_http_request *req, unsigned status, json_t *json)
{
    char *text = NULL;
    size_t len = 0;
    struct lmo_err err = {0};
    int r = lmo_json_dump(json, &text, &len, &err);
    json_decref(json);
    if (r < 0) {
        lmo_http_reply_error(req, &err);
    } else {
        lmo_http_reply(req, status, "application/json", text, len);
    }
    free(text);
}

void lmo_http_reply_error(struct lmo_http_request *req, const struct lmo_err *err)
{
    int code = err->code < 0 ? err->code : LMO_E_INTERNAL;
    LMO_AUTO_JSON json_t *json = json_object();
    char type[64], *text = NULL;
    size_t len = 0;
    snprintf(type, sizeof type, LMO_PROBLEM_TYPE "%s", lmo_err_name(code));
    int r = lmo_json_put_str(json, "type", type);
    r |= lmo_json_put_str(json, "title", lmo_err_name(code));
    r |= lmo_json_put_u64(json, "status", (uint64_t)lmo_err_http(code));
    r |= lmo_json_put_str(json, "code", lmo_err_name(code));
    r |= lmo_json_put_str(json, "detail", err->text);
    r |= lmo_json_dump(json, &text, &len, NULL);
    lmo_assert(r == 0);
    lmo_http_reply(req, (unsigned)lmo_err_http(code), "application/problem+json", text, len);
    free(text);
}

void lmo_http_reply_fail(struct lmo_http_request *req, int code, const char *fmt, ...)
{
    struct lmo_err err = {.code = code};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err.text, sizeof err.text, fmt, ap);
    va_end(ap);
    lmo_http_reply_error(req, &err);
}
