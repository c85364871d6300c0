/* request.c - a request as its handler sees it: accessors and replies. Rules: server_internal.h. */
#include "http/server_internal.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/id.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define REQUEST_ID "X-Request-Id"

/* ---- making and dropping ---- */

struct measure {
    size_t bytes;
    unsigned count;
};

static enum MHD_Result measure_field(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
    (void)kind;
    struct measure *m = arg;
    m->bytes += strlen(name) + 1 + (value ? strlen(value) : 0) + 1;
    m->count++;
    return MHD_YES;
}

struct copying {
    struct lmo_http_request *req;
    char *at;
};

static const char *copy_text(struct copying *c, const char *text)
{
    size_t size = strlen(text) + 1;
    const char *copy = memcpy(c->at, text, size);
    c->at += size;
    return copy;
}

static enum MHD_Result copy_field(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct copying *c = arg;
    struct lmo_http_field *field = &c->req->fields[c->req->field_count++];
    field->kind = kind == MHD_HEADER_KIND ? LMO_FIELD_HEADER : LMO_FIELD_QUERY;
    field->name = copy_text(c, name);
    field->value = copy_text(c, value ? value : "");
    return MHD_YES;
}

void lmo_http_find_id(const struct lmo_http_server *server, struct MHD_Connection *mhd, char ret_id[LMO_NAME_MAX])
{
    ret_id[0] = '\0';
    if (!server->config.request_ids)
        return;
    const char *given = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, REQUEST_ID);
    if (given && lmo_name_valid(given))
        memcpy(ret_id, given, strlen(given) + 1);
    else
        lmo_ulid_generate(ret_id);
}

struct lmo_http_request *lmo_http_request_new(struct lmo_http_server *server, struct MHD_Connection *mhd,
                                              const struct lmo_http_connection *connection, const char *method,
                                              const char *path)
{
    struct measure m = {.bytes = strlen(method) + strlen(path) + 2};
    MHD_get_connection_values(mhd, MHD_HEADER_KIND, measure_field, &m);
    MHD_get_connection_values(mhd, MHD_GET_ARGUMENT_KIND, measure_field, &m);
    if (m.count > LMO_HTTP_FIELDS_MAX)
        return NULL;
    struct lmo_http_request *req = calloc(1, sizeof *req);
    char *text = malloc(m.bytes);
    if (!req || !text) {
        free(req);
        free(text);
        return NULL;
    }
    struct copying c = {.req = req, .at = text};
    req->text = text;
    req->method = copy_text(&c, method);
    req->path = copy_text(&c, path);
    MHD_get_connection_values(mhd, MHD_HEADER_KIND, copy_field, &c);
    MHD_get_connection_values(mhd, MHD_GET_ARGUMENT_KIND, copy_field, &c);
    lmo_assert(c.at == text + m.bytes && req->field_count == m.count);
    req->body = LMO_BUF_INIT(server->config.body_max);
    req->peer = connection->peer;
    memcpy(req->remote, connection->remote, sizeof req->remote);
    lmo_http_find_id(server, mhd, req->id);
    req->mhd = mhd;
    req->timeout_ms = server->config.reply_timeout_ms;
    req->owners = 1;
    req->server = server;
    pthread_mutex_lock(&server->lock);
    server->references++;
    server->active++;
    server->stats.requests_total++;
    pthread_mutex_unlock(&server->lock);
    return req;
}

void lmo_http_request_drop(struct lmo_http_request *req)
{
    struct lmo_http_server *server = req->server;
    pthread_mutex_lock(&server->lock);
    lmo_assert(req->owners > 0);
    if (--req->owners > 0) {
        pthread_mutex_unlock(&server->lock);
        return;
    }
    lmo_http_server_unref_unlock(server);
    if (req->response)
        MHD_destroy_response(req->response);
    lmo_buf_done(&req->body);
    free(req->text);
    free(req);
}

/* ---- reading ---- */

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
    for (unsigned i = 0; i < req->field_count; i++) {
        if (req->fields[i].kind == LMO_FIELD_QUERY && strcmp(req->fields[i].name, name) == 0)
            return req->fields[i].value;
    }
    return NULL;
}

const char *lmo_http_query_unknown(const struct lmo_http_request *req, const char *const *known)
{
    for (unsigned i = 0; i < req->field_count; i++) {
        const char *const *k = known;
        while (*k && strcmp(*k, req->fields[i].name) != 0)
            k++;
        if (req->fields[i].kind == LMO_FIELD_QUERY && !*k)
            return req->fields[i].name;
    }
    return NULL;
}

const char *lmo_http_header(const struct lmo_http_request *req, const char *name)
{
    for (unsigned i = 0; i < req->field_count; i++) {
        if (req->fields[i].kind == LMO_FIELD_HEADER && strcasecmp(req->fields[i].name, name) == 0)
            return req->fields[i].value;
    }
    return NULL;
}

const char *lmo_http_body(const struct lmo_http_request *req, size_t *ret_len)
{
    if (ret_len)
        *ret_len = req->body.len;
    return lmo_buf_text(&req->body);
}

const struct lmo_identity *lmo_http_peer(const struct lmo_http_request *req)
{
    return &req->peer;
}

void lmo_http_set_tag(struct lmo_http_request *req, void *owner, const char *id)
{
    req->owner = owner;
    if (id != req->id)
        snprintf(req->id, sizeof(req->id), "%s", id);
}

void *lmo_http_owner(const struct lmo_http_request *req)
{
    return req->owner;
}

const char *lmo_http_id(const struct lmo_http_request *req)
{
    return req->id;
}

const char *lmo_http_remote(const struct lmo_http_request *req)
{
    return req->remote;
}

int lmo_http_query_u64(const struct lmo_http_request *req, const char *name, uint64_t min, uint64_t max,
                       uint64_t *ret_value, struct lmo_err *err)
{
    const char *text = lmo_http_query(req, name);
    if (!text)
        return 0;
    size_t digits = strspn(text, "0123456789");
    uint64_t value = 0;
    bool ok = digits > 0 && digits <= 19 && text[digits] == '\0';
    for (size_t i = 0; ok && i < digits; i++)
        value = value * 10 + (uint64_t)(text[i] - '0');
    if (!ok || value < min || value > max)
        return lmo_fail(err, LMO_E_INVALID, "query parameter '%s': must be a whole number from %llu to %llu", name,
                        (unsigned long long)min, (unsigned long long)max);
    *ret_value = value;
    return 0;
}

void lmo_http_set_timeout(struct lmo_http_request *req, uint64_t timeout_ms)
{
    const uint64_t longest = UINT64_C(600000);
    req->timeout_ms = timeout_ms < longest ? timeout_ms : longest;
}

int lmo_http_set_header(struct lmo_http_request *req, const char *name, const char *value)
{
    if (req->extra_count == LMO_HTTP_REPLY_HEADERS_MAX || strlen(name) >= sizeof req->extra[0].name ||
        strlen(value) >= sizeof req->extra[0].value || strpbrk(value, "\r\n") || strpbrk(name, "\r\n: "))
        return LMO_E_INVALID;
    memcpy(req->extra[req->extra_count].name, name, strlen(name) + 1);
    memcpy(req->extra[req->extra_count].value, value, strlen(value) + 1);
    req->extra_count++;
    return 0;
}

/* ---- answering ---- */

bool lmo_http_answer_locked(struct lmo_http_request *req, unsigned status, struct MHD_Response *response)
{
    if (req->answered) {
        if (response)
            MHD_destroy_response(response);
        return false;
    }
    req->answered = true;
    req->status = status;
    req->response = response; /* NULL (no memory): the connection will be closed */
    if (req->suspended) {
        struct lmo_http_server *server = req->server;
        req->suspended = false;
        if (req->prev)
            req->prev->next = req->next;
        else
            server->pending = req->next;
        if (req->next)
            req->next->prev = req->prev;
        MHD_resume_connection(req->mhd);
    }
    return true;
}

/* Hands `body` (malloc'ed, taken) to the client and ends the handler's ownership. */
static void answer(struct lmo_http_request *req, unsigned status, const char *content_type, char *body, size_t len)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE);
    if (!response)
        free(body);
    if (response && content_type && content_type[0])
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    if (response)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (response && req->server->config.request_ids)
        (void)MHD_add_response_header(response, REQUEST_ID, req->id);
    if (response && status == 401)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    for (unsigned i = 0; response && i < req->extra_count; i++)
        (void)MHD_add_response_header(response, req->extra[i].name, req->extra[i].value);
    pthread_mutex_lock(&req->server->lock);
    (void)lmo_http_answer_locked(req, status, response);
    pthread_mutex_unlock(&req->server->lock);
    lmo_http_request_drop(req);
}

void lmo_http_reply(struct lmo_http_request *req, unsigned status, const char *content_type, const void *body,
                    size_t len)
{
    char *copy = malloc(len ? len : 1);
    if (copy && len)
        memcpy(copy, body, len);
    answer(req, copy ? status : 500, content_type, copy, copy ? len : 0);
}

static json_t *problem_json(unsigned status, int code, const char *detail)
{
    json_t *json = json_object();
    char type[64];
    snprintf(type, sizeof type, LMO_PROBLEM_TYPE "%s", lmo_err_name(code));
    int r = lmo_json_put_str(json, "type", type);
    r |= lmo_json_put_str(json, "title", lmo_err_name(code));
    r |= lmo_json_put_u64(json, "status", status);
    r |= lmo_json_put_str(json, "code", lmo_err_name(code));
    if (lmo_json_put_str(json, "detail", detail) < 0)
        r |= lmo_json_put_str(json, "detail", "(the text cannot be shown)");
    if (r < 0) {
        json_decref(json);
        return NULL;
    }
    return json;
}

struct MHD_Response *lmo_http_problem(unsigned status, int code, const char *detail, bool close, const char *id)
{
    LMO_AUTO_JSON json_t *json = problem_json(status, code, detail);
    char *text = NULL;
    size_t len = 0;
    if (lmo_json_dump(json, &text, &len, NULL) < 0)
        return NULL;
    struct MHD_Response *response = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(text);
        return NULL;
    }
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/problem+json");
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (id[0])
        (void)MHD_add_response_header(response, REQUEST_ID, id);
    if (status == 401)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (lmo_err_class_of(code) == LMO_CLASS_RETRY)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    if (close)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    return response;
}

void lmo_http_reply_json(struct lmo_http_request *req, unsigned status, json_t *json)
{
    char *text = NULL;
    size_t len = 0;
    struct lmo_err err = {0};
    int r = lmo_json_dump(json, &text, &len, &err);
    json_decref(json);
    if (r < 0)
        lmo_http_reply_error(req, &err);
    else
        answer(req, status, "application/json", text, len);
}

void lmo_http_reply_error(struct lmo_http_request *req, const struct lmo_err *err)
{
    int code = err->code < 0 ? err->code : LMO_E_INTERNAL;
    unsigned status = (unsigned)lmo_err_http(code);
    LMO_AUTO_JSON json_t *json = problem_json(status, code, err->text);
    char *text = NULL;
    size_t len = 0;
    if (lmo_json_dump(json, &text, &len, NULL) < 0)
        lmo_http_reply(req, status, "text/plain", "out of memory\n", 14);
    else
        answer(req, status, "application/problem+json", text, len);
}

void lmo_http_reply_fail(struct lmo_http_request *req, int code, const char *fmt, ...)
{
    struct lmo_err err = {.code = code};
    char text[LMO_ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    (void)lmo_fail(&err, code, "%s", text);
    lmo_http_reply_error(req, &err);
}
