/* A request of the REST API, whole: method, path, query, headers and body, into the real handlers and the real engine; only the
 * listener, the store's disk and the workers are made up. Every request is answered exactly once, with a documented status.
 *
 * The input: a line "METHOD PATH?QUERY", header lines, an empty line, the body. */
#include "fuzz.h"

#include "api/api.h"
#include "api/routes.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/str.h"
#include "engine/engine.h"
#include "http/server.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

/* ------------------------------------------------------------------ the listener: defining these keeps the real ones out */

#define FIELDS_MAX 32

struct lmo_http_request {
    char *text;
    const char *method, *path, *body;
    size_t body_len;
    struct {
        char kind;
        const char *name, *value;
    } fields[FIELDS_MAX];
    unsigned count;
    void *owner;
    char id[64];
    unsigned answers, status;
};

struct lmo_http_server {
    lmo_http_handler *handler;
    void *arg;
} server;

static struct lmo_identity peer = {.role = LMO_ROLE_OPERATOR, .name = "fuzz"};

int lmo_http_server_new(const struct lmo_http_server_config *c, struct lmo_http_server **ret, struct lmo_err *err)
{
    (void)err;
    server = (struct lmo_http_server){c->handler, c->handler_arg};
    *ret = &server;
    return 0;
}

struct lmo_http_server *lmo_http_server_free(struct lmo_http_server *s)
{
    (void)s;
    return NULL;
}

int lmo_http_server_reload(struct lmo_http_server *s, struct lmo_err *err)
{
    (void)s, (void)err;
    return 0;
}

uint16_t lmo_http_server_port(const struct lmo_http_server *s)
{
    (void)s;
    return 1;
}

const char *lmo_http_method(const struct lmo_http_request *req)
{
    return req->method;
}

const char *lmo_http_path(const struct lmo_http_request *req)
{
    return req->path;
}

static const char *field(const struct lmo_http_request *req, char kind, const char *name)
{
    for (unsigned i = 0; i < req->count; i++) {
        if (req->fields[i].kind == kind && strcasecmp(req->fields[i].name, name) == 0) {
            return req->fields[i].value;
        }
    }
    return NULL;
}

const char *lmo_http_query(const struct lmo_http_request *req, const char *name)
{
    return field(req, 'q', name);
}

const char *lmo_http_query_unknown(const struct lmo_http_request *req, const char *const *known)
{
    for (unsigned i = 0; i < req->count; i++) {
        const char *const *k = known;
        while (*k && strcasecmp(*k, req->fields[i].name) != 0) {
            k++;
        }
        if (req->fields[i].kind == 'q' && !*k) {
            return req->fields[i].name;
        }
    }
    return NULL;
}

const char *lmo_http_header(const struct lmo_http_request *req, const char *name)
{
    return field(req, 'h', name);
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
    (void)req;
    return &peer;
}

const char *lmo_http_remote(const struct lmo_http_request *req)
{
    (void)req;
    return "127.0.0.1:1";
}

int lmo_http_query_u64(const struct lmo_http_request *req, const char *name, uint64_t min, uint64_t max, uint64_t *ret,
                       struct lmo_err *err)
{
    const char *text = lmo_http_query(req, name);
    char *end = NULL;
    unsigned long long value = text ? strtoull(text, &end, 10) : 0;
    if (!text) {
        return 0;
    }
    if (!isdigit((unsigned char)text[0]) || *end || value < min || value > max) {
        return lmo_fail(err, LMO_E_INVALID, "%s", name);
    }
    *ret = value;
    return 0;
}

void lmo_http_set_timeout(struct lmo_http_request *req, uint64_t timeout_ms)
{
    (void)req, (void)timeout_ms;
}

void lmo_http_set_tag(struct lmo_http_request *req, void *owner, const char *id)
{
    req->owner = owner;
    if (id != req->id) {
        snprintf(req->id, sizeof req->id, "%s", id);
    }
}

void *lmo_http_owner(const struct lmo_http_request *req)
{
    return req->owner;
}

const char *lmo_http_id(const struct lmo_http_request *req)
{
    return req->id;
}

int lmo_http_set_header(struct lmo_http_request *req, const char *name, const char *value)
{
    (void)req;
    lmo_assert(name[0] && value && !strpbrk(value, "\r\n")); /* nothing of a client's splits an answer */
    return 0;
}

void lmo_http_reply(struct lmo_http_request *req, unsigned status, const char *type, const void *body, size_t len)
{
    (void)type;
    lmo_assert(status >= 200 && status < 600 && (body || len == 0));
    req->answers++;
    req->status = status;
}

void lmo_http_reply_json(struct lmo_http_request *req, unsigned status, json_t *json)
{
    char *text = NULL;
    size_t len = 0;
    lmo_assert(lmo_json_dump(json, &text, &len, NULL) == 0);
    json_decref(json);
    lmo_http_reply(req, status, "application/json", text, len);
    free(text);
}

void lmo_http_reply_error(struct lmo_http_request *req, const struct lmo_err *err)
{
    lmo_http_reply(req, (unsigned)lmo_err_http(err->code), "", "", 0);
}

void lmo_http_reply_fail(struct lmo_http_request *req, int code, const char *fmt, ...)
{
    (void)fmt;
    lmo_http_reply(req, (unsigned)lmo_err_http(code), "", "", 0);
}

void lmo_http_set_route(struct lmo_http_request *req, int route)
{
    (void)req, (void)route;
}

void lmo_http_reply_file(struct lmo_http_request *req, unsigned status, const char *type, int fd, uint64_t size)
{
    (void)size;
    (void)close(fd);
    lmo_http_reply(req, status, type, "", 0);
}

/* Nobody follows: a stream is refused like one for which there is no memory. */
int lmo_http_reply_stream(struct lmo_http_request *req, unsigned status, const char *type,
                          const struct lmo_http_stream_config *config, struct lmo_http_stream **ret)
{
    (void)status, (void)type, (void)config, (void)ret;
    lmo_http_reply_fail(req, LMO_E_NO_MEMORY, "no streams here");
    return LMO_E_NO_MEMORY;
}

int lmo_http_stream_write(struct lmo_http_stream *stream, const void *data, size_t len, bool spare)
{
    (void)stream, (void)data, (void)len, (void)spare;
    return LMO_E_GONE;
}

void lmo_http_stream_end(struct lmo_http_stream *stream, const void *final, size_t len)
{
    (void)stream, (void)final, (void)len;
}

struct lmo_http_stream *lmo_http_stream_free(struct lmo_http_stream *stream)
{
    (void)stream;
    return NULL;
}

/* ------------------------------------------------------------------ the world */

static struct lmo_loop *loop;
static struct lmo_engine *engine;
static struct lmo_api *api;

static int add_host(struct lmo_workers *w, const char *name, const char *url, uint64_t cursor, struct lmo_err *err)
{
    (void)w, (void)name, (void)url, (void)cursor, (void)err;
    return 0;
}

static void remove_host(struct lmo_workers *w, const char *name)
{
    (void)w, (void)name;
}

static void acknowledge(struct lmo_workers *w, const char *host, uint64_t cursor)
{
    (void)w, (void)host, (void)cursor;
}

static int refuse_op(struct lmo_workers *w, const char *host, const struct lmo_op_request *req, uint32_t timeout_ms,
                     lmo_op_done_fn *done, void *arg, struct lmo_err *err)
{
    (void)w, (void)host, (void)req, (void)timeout_ms, (void)done, (void)arg;
    return lmo_fail(err, LMO_E_UNAVAILABLE, "no workers here");
}

static int refuse_observe(struct lmo_workers *w, const char *host, const char *path, uint32_t timeout_ms,
                          lmo_observe_done_fn *done, void *arg, struct lmo_err *err)
{
    (void)w, (void)host, (void)path, (void)timeout_ms, (void)done, (void)arg;
    return lmo_fail(err, LMO_E_UNAVAILABLE, "no workers here");
}

static const struct lmo_workers_ops worker_ops = {.host_add = add_host,
                                                  .host_remove = remove_host,
                                                  .acknowledge = acknowledge,
                                                  .op = refuse_op,
                                                  .observe = refuse_observe};
static struct lmo_workers workers = {.ops = &worker_ops};

static void remove_state(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -rf /dev/shm/lmo-fuzz-%d", (int)getpid());
    (void)!system(command);
}

static void begin(void)
{
    static char dir[64];
    struct lmo_store *store;
    struct lmo_err err = {0};
    lmo_log_set_level(LMO_LOG_ERROR);
    snprintf(dir, sizeof dir, "/dev/shm/lmo-fuzz-%d", (int)getpid());
    lmo_assert(atexit(remove_state) == 0);
    lmo_assert(lmo_loop_new(64, &loop, &err) == 0 && lmo_store_sqlite_open(dir, &store, &err) == 0);
    struct lmo_host_row host = {.name = "hv1", .url = "https://10.0.0.1:1"};
    (void)!store->ops->host_put(store, &host, &err);
    const struct lmo_engine_config cfg = {.loop = loop, .store = store};
    lmo_assert(lmo_engine_new(&cfg, &engine, &err) == 0 && lmo_engine_start(engine, &workers, &err) == 0);
    struct lmo_api_config config = {.address = "127.0.0.1:0", .engine = engine, .rate_per_s = 1000000, .burst = 1000000};
    lmo_assert(lmo_api_start(&config, &api, &err) == 0);
}

/* ------------------------------------------------------------------ a request */

static char *next_line(char **at)
{
    char *line = *at, *end = line ? strchr(line, '\n') : NULL;
    if (end) {
        *end = '\0';
    }
    *at = end ? end + 1 : NULL;
    return line;
}

static void add_field(struct lmo_http_request *req, char kind, char *text, char separator)
{
    char *value = text ? strchr(text, separator) : NULL;
    if (text && text[0] && req->count < FIELDS_MAX) {
        if (value) {
            *value++ = '\0';
            value += separator == ':' && *value == ' ';
        }
        req->fields[req->count].kind = kind;
        req->fields[req->count].name = text;
        req->fields[req->count++].value = value ? value : "";
    }
}

static void read_request(struct lmo_http_request *req)
{
    char *at = req->text, *line = next_line(&at), *path = strchr(line, ' ');
    req->method = line;
    req->path = "/";
    if (path) {
        *path++ = '\0';
        req->path = path;
        char *query = strchr(path, '?');
        if (query) {
            *query++ = '\0';
        }
        for (char *save = NULL, *part = query ? strtok_r(query, "&", &save) : NULL; part; part = strtok_r(NULL, "&", &save)) {
            add_field(req, 'q', part, '=');
        }
    }
    while (at && (line = next_line(&at)) && line[0]) {
        add_field(req, 'h', line, ':');
    }
    req->body = at ? at : "";
    req->body_len = strlen(req->body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!loop) {
        begin();
    }
    struct lmo_http_request req = {.text = fuzz_text(data, size)};
    read_request(&req);
    req.fields[req.count < FIELDS_MAX ? req.count++ : 0] =
        (typeof(req.fields[0])){.kind = 'h', .name = "Content-Type", .value = "application/json"};
    server.handler(server.arg, &req);
    for (unsigned i = 0; i < 50 && req.answers == 0; i++) {
        lmo_loop_stop(loop); /* one turn */
        lmo_assert(lmo_loop_run(loop) == 0);
    }
    lmo_assert(req.answers == 1);
    lmo_assert(req.status != 500); /* whatever was asked: no fault of ours */
    free(req.text);
    return 0;
}
