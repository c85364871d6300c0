/* reply.c - bodies in, replies out. Errors are RFC 9457 problem+json with the members code and, where one is at
 * fault, field. */
#include "api/internal.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static json_t *problem(int code, const char *field, const char *text)
{
    json_t *o = json_object();
    char type[64];
    snprintf(type, sizeof(type), LMO_PROBLEM_TYPE "%s", lmo_err_name(code));
    int r = lmo_json_put_str(o, "type", type);
    r |= lmo_json_put_str(o, "title", lmo_err_name(code));
    r |= lmo_json_put_u64(o, "status", (uint64_t)lmo_err_http(code));
    r |= lmo_json_put(o, "detail", lmo_codec_string(text, LMO_ERR_TEXT_MAX));
    r |= lmo_json_put_str(o, "code", lmo_err_name(code));
    if (field[0]) {
        r |= lmo_json_put_str(o, "field", field);
    }
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void reply_problem(struct lmo_http_request *req, int code, const char *field, const char *text)
{
    LMO_AUTO_JSON json_t *o = problem(code, field, text);
    audit_answered(req, code, NULL, text);
    LMO_AUTO_FREE char *body = NULL;
    size_t len = 0;
    if (lmo_json_dump(o, &body, &len, NULL) < 0) {
        lmo_http_reply_fail(req, LMO_E_NO_MEMORY, "no memory for the answer");
        return;
    }
    if (lmo_err_class_of(code) == LMO_CLASS_RETRY) {
        (void)lmo_http_set_header(req, "Retry-After", "1");
    }
    lmo_http_reply(req, (unsigned)lmo_err_http(code), "application/problem+json", body, len);
}

void refuse(struct lmo_http_request *req, int code, const char *field, const char *fmt, ...)
{
    char text[LMO_ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    reply_problem(req, code, field, text);
}

void refuse_error(struct lmo_http_request *req, const struct lmo_err *err)
{
    char field[64] = "";
    size_t len = strspn(err->text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.[]-");
    if (len > 0 && len < sizeof(field) && err->text[len] == ':') {
        memcpy(field, err->text, len);
        field[len] = '\0';
    }
    reply_problem(req, err->code, field, err->text);
}

void reply_to_request(void *request, const struct lmo_engine_reply *reply)
{
    struct lmo_http_request *req = request;
    if (reply->code < 0) {
        reply_problem(req, reply->code, reply->field ? reply->field : "", reply->text ? reply->text : "");
        return;
    }
    audit_answered(req, 0, reply->location, "");
    if (reply->location && reply->location[0]) {
        (void)lmo_http_set_header(req, "Location", reply->location);
    }
    if (reply->etag && reply->etag[0]) {
        (void)lmo_http_set_header(req, "ETag", reply->etag);
    }
    if (reply->json) {
        json_decref(reply->body);
        lmo_http_reply(req, reply->http_status, "application/json", reply->json, reply->json_len);
    } else if (reply->body) {
        lmo_http_reply_json(req, reply->http_status, reply->body);
    } else {
        lmo_http_reply(req, reply->http_status, "", "", 0);
    }
}

void asked(struct lmo_http_request *req, int result)
{
    if (result < 0) {
        refuse(req, result, "", "the coordinator has too many requests waiting");
    }
}

static bool is_json(const char *content_type)
{
    static const char json[] = "application/json";
    return strncasecmp(content_type, json, sizeof(json) - 1) == 0 && strchr("; \t", content_type[sizeof(json) - 1]);
}

bool read_body(struct lmo_http_request *req, const struct lmo_table *table, void *to, json_t **ret_root)
{
    LMO_AUTO_JSON json_t *root = NULL;
    struct lmo_err err = {0};
    size_t len = 0;
    const char *body = lmo_http_body(req, &len), *type = lmo_http_header(req, "Content-Type");
    if (len == 0) {
        body = "{}";
        len = 2;
    } else if (!type || !is_json(type)) {
        refuse(req, LMO_E_INVALID, "Content-Type", "Content-Type: must be application/json");
        return false;
    }
    int r = lmo_json_parse_object(body, len, BODY_MAX, &root, &err);
    if (r == 0) {
        r = lmo_codec_check_known(table, root, NULL, &err);
    }
    if (r == 0) {
        r = lmo_codec_decode(table, root, to, &err);
    }
    if (r < 0) {
        refuse_error(req, &err);
        return false;
    }
    if (ret_root) {
        *ret_root = LMO_TAKE(root);
    }
    return true;
}

bool read_number(struct lmo_http_request *req, const char *name, uint64_t min, uint64_t max, uint64_t *ret)
{
    if (lmo_http_query_u64(req, name, min, max, ret, NULL) < 0) {
        refuse(req, LMO_E_INVALID, name, "%s: must be an integer from %" PRIu64 " to %" PRIu64, name, min, max);
        return false;
    }
    return true;
}
