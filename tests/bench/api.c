/* api.c - the REST API under a crowd of readers: pages of a long list, and the status of running migrations.
 *
 *   api DIR [HISTORY] [RUNNING]       DIR: on the disk that is to be measured; HISTORY: 100000, RUNNING: 5000
 *
 * A store with so many migrations that have ended, and so many in pre-copy; the coordinator as lmod has it (store, engine, REST
 * over mutual TLS), workers that answer from memory. 16 clients on kept-alive connections ask, each again as soon as it has its
 * answer: pages of 100 (each client walks through the list by its cursors), the status of running migrations (each another
 * one each time), and, at the same kind of listener, a handler that says hello. The three take turns, ROUNDS times; what is
 * compared is of the same run. Prints one JSON object. */
#include "bench/lib/bench.h"

#include "api/api.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "base/str.h"
#include "http/server.h"
#include "simworkers/fleet.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOSTS    40
#define BATCH    250
#define CLIENTS  16
#define ROUNDS   5
#define ROUND_MS 1500
#define READ_MAX (1U << 20)
#define FOREVER  600000000U /* us: no worker answers */

static struct {
    unsigned history, running;
    char (*ids)[LMO_ID_MAX]; /* of those that run */
    struct lmo_loop *loop;
    struct lmo_engine *engine;
    struct lmo_api *api;
    struct lmo_http_server *hello;
    SSL_CTX *tls;
} b = {.history = 100000, .running = 5000};

/* ------------------------------------------------------------------ the store */

static void end_well(struct lmo_migration *m, unsigned n, unsigned of)
{
    static const uint8_t zeros[10];
    uint8_t random[10];
    memcpy(random, zeros, sizeof random);
    memcpy(random, &n, sizeof n);
    uint64_t now_ms = lmo_realtime_us() / 1000;
    lmo_ulid_format(now_ms - 1000 * (uint64_t)(of - n) - 60000, random, m->id); /* one a second, until a minute ago */
    m->phase = LMO_PHASE_COMPLETED;
    m->task_count = 0;
    m->resource_count = 0;
    m->cutover.resumed = true;
    m->cutover.suspended_us = (int64_t)now_ms * 1000;
    m->cutover.resumed_us = m->cutover.suspended_us + 84100;
    m->percent = 100;
}

static void fill(const char *state)
{
    struct memory_workers w;
    struct lmo_store *store;
    struct lmo_err err = {0};
    struct lmo_commit_item items[BATCH];
    struct lmo_migration *records = calloc(BATCH, sizeof *records);
    lmo_assert(records);
    memory_workers_init(&w, NULL, HOSTS);
    check(lmo_store_sqlite_open(state, &store, &err), &err, "store");
    memory_hosts(&w, store);
    for (unsigned n = 0; n < b.history + b.running; n += BATCH) {
        for (unsigned i = 0; i < BATCH; i++) {
            memory_record(&w, n + i, &records[i]);
            if (n + i < b.history) {
                end_well(&records[i], n + i, b.history);
            } else {
                memcpy(b.ids[n + i - b.history], records[i].id, LMO_ID_MAX);
            }
            items[i] = (struct lmo_commit_item){.record = &records[i]};
        }
        check(store->ops->commit(store, items, BATCH, NULL, 0, &err), &err, "filling");
    }
    free(records);
    store->ops->close(store);
}

/* ------------------------------------------------------------------ the servers */

static void say_hello(void *arg, struct lmo_http_request *req)
{
    (void)arg;
    lmo_http_reply(req, 200, "application/json", "{\"hello\":\"world\"}", 17);
}

static void *run_loop(void *arg)
{
    (void)arg;
    check(lmo_loop_run(b.loop), NULL, "loop");
    return NULL;
}

static void serve(const char *dir, const char *state)
{
    static struct memory_workers workers;
    struct lmo_err err = {0};
    struct lmo_store *store;
    struct lmo_permit_key *key;
    char path[LMO_PATH_MAX];
    pthread_t thread;
    snprintf(path, sizeof path, "%.900s/pki/permit.key", dir);
    check(lmo_loop_new(8192, &b.loop, &err), &err, "loop");
    check(lmo_store_sqlite_open(state, &store, &err), &err, "store");
    check(lmo_store_sqlite_tidy_apart(store, &err), &err, "store");
    check(lmo_permit_key_load(path, &key, &err), &err, "permit key");
    memory_workers_init(&workers, b.loop, HOSTS);
    workers.hold_precopy = true;
    workers.answer_us = FOREVER;
    struct lmo_engine_config cfg = {.loop = b.loop, .store = store, .permit_key = key, .limits = &bench_limits};
    check(lmo_engine_new(&cfg, &b.engine, &err), &err, "engine");
    check(lmo_engine_start(b.engine, &workers.base, &err), &err, "engine");
    memory_workers_up(&workers, lmo_engine_callbacks(b.engine));
    struct lmo_api_config api = {.tls = fleet_tls(dir, "coordinator", "fleet"), .engine = b.engine, .rate_per_s = 1000000, .burst = 1000000};
    LMO_COPY(api.address, "127.0.0.1:0");
    check(lmo_api_start(&api, &b.api, &err), &err, "api");
    struct lmo_http_server_config hello = {.tls = api.tls, .handler = say_hello, .request_ids = true, .connections_max = 1024,
                                           .connections_per_ip = 256, .connections_per_peer = 128, .body_max = 65536};
    LMO_COPY(hello.address, "127.0.0.1:0");
    check(lmo_http_server_new(&hello, &b.hello, &err), &err, "hello");
    check(pthread_create(&thread, NULL, run_loop, NULL) == 0 ? 0 : LMO_E_LIMIT, NULL, "thread");
}

/* ------------------------------------------------------------------ the clients: one thread, 16 connections */

enum question { LIST, GET, HELLO, QUESTIONS };

struct client {
    SSL *ssl;
    int fd;
    char cursor[300];
    unsigned next;
    uint64_t asked_ns;
    char *in;
    size_t len;
};

static void open_client(struct client *c, uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 ||
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) {
        die("cannot connect");
    }
    c->ssl = SSL_new(b.tls);
    SSL_set_fd(c->ssl, c->fd);
    if (SSL_connect(c->ssl) != 1) {
        die("no TLS");
    }
    (void)fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->len = 0;
}

static void close_client(struct client *c)
{
    SSL_free(c->ssl);
    close(c->fd);
}

static void ask(struct client *c, enum question q)
{
    char text[700];
    int n = 0;
    if (q == LIST) {
        n = snprintf(text, sizeof text, "GET /v1/migrations?limit=100%s%s HTTP/1.1\r\nHost: x\r\n\r\n", c->cursor[0] ? "&cursor=" : "", c->cursor);
    } else if (q == GET) {
        c->next = (c->next * 1103515245U + 12345U) & 0x7fffffff;
        n = snprintf(text, sizeof text, "GET /v1/migrations/%s HTTP/1.1\r\nHost: x\r\n\r\n", b.ids[(c->next >> 8) % b.running]);
    } else {
        n = snprintf(text, sizeof text, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    c->asked_ns = lmo_now_ns();
    c->len = 0;
    if (SSL_write(c->ssl, text, n) != n) {
        die("cannot ask");
    }
}

/* The answer is whole: its body; NULL: not yet. */
static char *whole_answer(struct client *c)
{
    c->in[c->len] = '\0';
    char *body = strstr(c->in, "\r\n\r\n"), *length = strcasestr(c->in, "\r\nContent-Length: ");
    if (!body || !length) {
        return NULL;
    }
    body += 4;
    return c->len == (size_t)(body - c->in) + strtoul(length + 18, NULL, 10) ? body : NULL;
}

static void take_cursor(struct client *c, const char *body)
{
    const char *at = body + strlen(body) - 300 > body ? body + strlen(body) - 300 : body, *next = strstr(at, "\"next_cursor\":\"");
    c->cursor[0] = '\0';
    if (next) {
        snprintf(c->cursor, sizeof c->cursor, "%.*s", (int)strcspn(next + 15, "\""), next + 15);
    }
}

static uint64_t answers[QUESTIONS], bytes[QUESTIONS];

static void receive(struct client *c, enum question q, struct samples *to, bool again)
{
    for (;;) {
        int n = SSL_read(c->ssl, c->in + c->len, (int)(READ_MAX - c->len - 1));
        if (n <= 0) {
            if (SSL_get_error(c->ssl, n) != SSL_ERROR_WANT_READ) {
                die("connection lost");
            }
            return;
        }
        c->len += (size_t)n;
        char *body = whole_answer(c);
        if (body) {
            samples_add(to, lmo_now_ns() - c->asked_ns);
            if (strncmp(c->in, "HTTP/1.1 200", 12) != 0) {
                die("%.200s", c->in);
            }
            answers[q]++;
            bytes[q] += c->len;
            if (q == LIST) {
                take_cursor(c, body);
            }
            c->asked_ns = 0;
            if (again) {
                ask(c, q);
            }
            return;
        }
    }
}

/* Answers a second. */
static double round_of(enum question q, uint16_t port, struct samples *to)
{
    static struct client clients[CLIENTS];
    struct pollfd fds[CLIENTS];
    uint64_t before = answers[q];
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i].in = clients[i].in ? clients[i].in : malloc(READ_MAX);
        lmo_assert(clients[i].in);
        clients[i].next = clients[i].next ? clients[i].next : i * 7919 + 1;
        open_client(&clients[i], port);
        fds[i] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
    }
    uint64_t began = lmo_now_ns(), end = began + ROUND_MS * LMO_NS_PER_MS;
    for (unsigned i = 0; i < CLIENTS; i++) {
        ask(&clients[i], q);
    }
    for (unsigned open = CLIENTS; open > 0;) {
        bool again = lmo_now_ns() < end;
        if (poll(fds, CLIENTS, 10000) <= 0) {
            die("no answer within ten seconds");
        }
        open = 0;
        for (unsigned i = 0; i < CLIENTS; i++) {
            if (fds[i].revents) {
                receive(&clients[i], q, to, again);
            }
            open += clients[i].asked_ns != 0;
        }
    }
    double seconds = (double)(lmo_now_ns() - began) / 1e9;
    for (unsigned i = 0; i < CLIENTS; i++) {
        close_client(&clients[i]);
    }
    return (double)(answers[q] - before) / seconds;
}

static void open_tls(const char *dir)
{
    struct lmo_tls_files f = fleet_tls(dir, "operator", "fleet");
    b.tls = SSL_CTX_new(TLS_client_method());
    if (!b.tls || SSL_CTX_use_certificate_file(b.tls, f.cert, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(b.tls, f.key, SSL_FILETYPE_PEM) != 1 || SSL_CTX_load_verify_locations(b.tls, f.ca, NULL) != 1) {
        die("cannot read the client's certificate");
    }
    SSL_CTX_set_verify(b.tls, SSL_VERIFY_PEER, NULL);
}

/* ------------------------------------------------------------------ */

static int by_value(const void *x, const void *y)
{
    double d = *(const double *)x - *(const double *)y;
    return d < 0 ? -1 : d > 0;
}

static void put(json_t *o, const char *key, double value, int digits)
{
    json_object_set_new(o, key, digits ? json_real(rounded(value, digits)) : json_integer((json_int_t)(value + 0.5)));
}

int main(int argc, char **argv)
{
    static const char *const names[QUESTIONS] = {"list", "get", "hello"};
    char dir[LMO_PATH_MAX], state[LMO_PATH_MAX], key[64];
    struct samples times[QUESTIONS] = {{0}};
    double rates[QUESTIONS][ROUNDS], ratios[ROUNDS];
    struct lmo_err err = {0};
    if (argc < 2) {
        die("usage: api DIR [HISTORY] [RUNNING]");
    }
    b.history = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : b.history;
    b.running = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : b.running;
    b.ids = calloc(b.running + BATCH, sizeof *b.ids);
    lmo_assert(b.ids && b.history % BATCH == 0 && b.running % BATCH == 0 && b.running > 0);
    lmo_log_set_level(LMO_LOG_ERROR);
    make_dir(argv[1], "api", dir);
    make_dir(dir, "state", state);
    check(fleet_make_pki(dir, HOSTS, "127.0.0.1", &err), &err, "certificates");
    fill(state);
    serve(dir, state);
    open_tls(dir);
    uint16_t ports[QUESTIONS] = {lmo_api_port(b.api), lmo_api_port(b.api), lmo_http_server_port(b.hello)};
    struct samples warm = {0};
    for (enum question q = LIST; q < QUESTIONS; q++) {
        (void)round_of(q, ports[q], &warm);
    }
    samples_done(&warm);
    memset(bytes, 0, sizeof bytes);
    memset(answers, 0, sizeof answers);
    for (unsigned i = 0; i < ROUNDS; i++) {
        for (enum question q = LIST; q < QUESTIONS; q++) {
            rates[q][i] = round_of(q, ports[q], &times[q]);
        }
        ratios[i] = rates[GET][i] / rates[HELLO][i];
    }
    json_t *all = json_object(), *api = json_object(), *raw = json_object();
    qsort(ratios, ROUNDS, sizeof ratios[0], by_value);
    put(api, "list_p99_ms", (double)samples_percentile(&times[LIST], 99) / 1e6, 2);
    put(api, "get_p99_ms", (double)samples_percentile(&times[GET], 99) / 1e6, 2);
    put(api, "get_over_hello", ratios[ROUNDS / 2], 2);
    for (enum question q = LIST; q < QUESTIONS; q++) {
        qsort(rates[q], ROUNDS, sizeof rates[q][0], by_value);
        snprintf(key, sizeof key, "api_%s_per_s", names[q]);
        put(raw, key, rates[q][ROUNDS / 2], 0);
        snprintf(key, sizeof key, "api_%s_p50_ms", names[q]);
        put(raw, key, (double)samples_percentile(&times[q], 50) / 1e6, 2);
        snprintf(key, sizeof key, "api_%s_bytes", names[q]);
        put(raw, key, (double)bytes[q] / (double)answers[q], 0);
    }
    put(raw, "api_get_over_hello_least", ratios[0], 2);
    put(raw, "api_history", b.history, 0);
    put(raw, "api_running", b.running, 0);
    json_object_set_new(all, "api", api);
    json_object_set_new(all, "raw", raw);
    json_dumpf(all, stdout, JSON_INDENT(2));
    (void)putchar('\n');
    json_decref(all);
    (void)fflush(stdout);
    exit(0); /* without taking the coordinator down in order; the directory goes */
}
