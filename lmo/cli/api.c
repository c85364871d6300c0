/* api.c - see api.h. */
#include "cli/api.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/advice.h"
#include "cli/settings.h"
#include "cli/transport.h"

#include <string.h>

#define JSON_BYTES_MAX (64u << 20)

/* ------------------------------------------------------------------ paths */

static bool append_encoded(char *buf, size_t size, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    size_t used = strlen(buf);
    for (; *text; text++) {
        bool as_is = strchr(plain, *text) != NULL;
        size_t need = as_is ? 1 : 3;
        if (used + need >= size)
            return false;
        if (as_is)
            buf[used] = *text;
        else
            snprintf(buf + used, 4, "%%%02X", (unsigned char)*text);
        used += need;
        buf[used] = '\0';
    }
    return true;
}

bool lmo_api_path(char ret_path[LMO_API_PATH_MAX], const char *before, const char *segment, const char *after)
{
    /* "." and ".." would be folded away by whoever normalises the URL, and mean another resource. */
    if (*segment == '\0' || strcmp(segment, ".") == 0 || strcmp(segment, "..") == 0)
        return false;
    snprintf(ret_path, LMO_API_PATH_MAX, "%s", before);
    if (!append_encoded(ret_path, LMO_API_PATH_MAX, segment))
        return false;
    size_t used = strlen(ret_path);
    if (used + strlen(after) >= LMO_API_PATH_MAX)
        return false;
    memcpy(ret_path + used, after, strlen(after) + 1);
    return true;
}

bool lmo_api_query(char path[LMO_API_PATH_MAX], const char *name, const char *value)
{
    if (!value)
        return true;
    size_t used = strlen(path);
    int n = snprintf(path + used, LMO_API_PATH_MAX - used, "%c%s=", strchr(path, '?') ? '&' : '?', name);
    return n > 0 && (size_t)n < LMO_API_PATH_MAX - used && append_encoded(path, LMO_API_PATH_MAX, value);
}

/* ------------------------------------------------------------------ connection */

static int open_transport(struct lmo_cli *cli, struct lmo_err *err)
{
    struct lmo_settings s;
    struct lmo_loop *loop = NULL;
    int rc = lmo_settings_load(cli, &s, err);
    if (rc == 0)
        rc = lmo_cli_loop(cli, &loop, err);
    if (rc == 0) {
        struct lmo_transport_config c = {.url = s.text[LMO_CONTEXT_URL],
                                         .ca = s.text[LMO_CONTEXT_CA],
                                         .crl = s.text[LMO_CONTEXT_CRL],
                                         .cert = s.text[LMO_CONTEXT_CERT],
                                         .key = s.text[LMO_CONTEXT_KEY],
                                         .token = s.token};
        rc = lmo_transport_open(loop, &c, &cli->transport, err);
    }
    lmo_settings_release(&s);
    return rc;
}

static int ready(struct lmo_cli *cli, struct lmo_err *err)
{
    int rc = cli->transport ? 0 : open_transport(cli, err);
    if (rc < 0) {
        /* Whatever is wrong here is wrong with the command line or the files it names; nobody was asked anything. */
        err->code = LMO_E_INVALID;
        return err->code;
    }
    return 0;
}

int lmo_api_request(struct lmo_cli *cli, const struct lmo_cli_call *call, struct lmo_cli_reply *ret_reply,
                    struct lmo_err *err)
{
    if (cli->request)
        return cli->request(cli->request_arg, call, ret_reply, err);
    int rc = ready(cli, err);
    return rc < 0 ? rc : lmo_transport_request(cli->transport, call, ret_reply, err);
}

int lmo_api_follow(struct lmo_cli *cli, const char *path, const char *last_event_id, uint64_t idle_ms,
                   int (*on_data)(void *arg, const char *data, size_t len), void *arg, struct lmo_cli_reply *ret_reply,
                   struct lmo_err *err)
{
    if (cli->request)
        return lmo_fail(err, LMO_E_UNSUPPORTED, "no answers that go on");
    int rc = ready(cli, err);
    return rc < 0 ? rc : lmo_transport_follow(cli->transport, path, last_event_id, idle_ms, on_data, arg, ret_reply, err);
}

/* ------------------------------------------------------------------ answers */

const char *lmo_api_text(const json_t *obj, const char *field)
{
    const char *s = json_string_value(json_object_get(obj, field));
    return s ? s : "";
}

double lmo_api_number(const json_t *obj, const char *field)
{
    return json_number_value(json_object_get(obj, field));
}

uint64_t lmo_api_u64(const json_t *obj, const char *field)
{
    double n = lmo_api_number(obj, field);
    const json_t *v = json_object_get(obj, field);
    if (json_is_integer(v))
        return json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v) : 0;
    return n > 0 && n < 9e18 ? (uint64_t)(n + 0.5) : 0;
}

bool lmo_api_has(const json_t *obj, const char *field)
{
    const json_t *v = json_object_get(obj, field);
    return v && !json_is_null(v);
}

static int refused(struct lmo_cli *cli, const struct lmo_cli_reply *reply)
{
    LMO_AUTO_JSON json_t *problem = NULL;
    if (lmo_json_parse_object(reply->body ? reply->body : "", reply->body_len, JSON_BYTES_MAX, &problem, NULL) < 0) {
        lmo_cli_message(cli, "the answer has status %u and is not LMO's: is --url the coordinator's?", reply->status);
        return LMO_EXIT_PROTOCOL;
    }
    const char *detail = lmo_api_text(problem, "detail"), *title = lmo_api_text(problem, "title");
    const char *code = lmo_api_text(problem, "code"), *field = lmo_api_text(problem, "field");
    size_t field_len = strlen(field);
    bool said = strncmp(detail, field, field_len) == 0 && detail[field_len] == ':';
    if (said || lmo_err_from_name(code) != LMO_E_INVALID)
        field = ""; /* it matters where a value is wrong in itself; "name: host hv9 is not registered" helps nobody */
    lmo_cli_message(cli, "%s%s%s (%s%s%u)", field, *field ? ": " : "",
                    *detail  ? detail
                    : *title ? title
                             : "refused without a reason",
                    code, *code ? ", " : "", reply->status);
    lmo_cli_message(cli, "%s", lmo_advice(cli->command, code, reply->status));
    if (reply->status == 404)
        lmo_advise_names(cli);
    if (LMO_GIVEN(&cli->args, JSON))
        (void)lmo_cli_print_json(cli, problem);
    return LMO_EXIT_FAILED;
}

int lmo_api_accept(struct lmo_cli *cli, const struct lmo_cli_reply *reply, json_t **ret_json)
{
    if (reply->status < 200 || reply->status > 299)
        return refused(cli, reply);
    json_t *json = NULL;
    struct lmo_err err = {0};
    if (reply->body_len > 0 && lmo_json_parse_object(reply->body, reply->body_len, JSON_BYTES_MAX, &json, &err) < 0) {
        lmo_cli_message(cli, "the answer is not understood: %s. Is --url the coordinator's?", err.text);
        return LMO_EXIT_PROTOCOL;
    }
    *ret_json = json;
    return 0;
}

int lmo_api_unreached(struct lmo_cli *cli, const struct lmo_err *err)
{
    switch (err->code) {
    case LMO_E_INVALID: lmo_cli_message(cli, "%s", err->text); return LMO_EXIT_USAGE;
    case LMO_E_TOO_LARGE: lmo_cli_message(cli, "%s", err->text); return LMO_EXIT_PROTOCOL;
    case LMO_E_UNAUTHENTICATED:
        lmo_cli_message(cli, "%s", err->text);
        lmo_cli_message(cli, "Nothing was asked. Check --url and --ca, and the coordinator's certificate.");
        return LMO_EXIT_UNREACHABLE;
    case LMO_E_UNAVAILABLE:
        lmo_cli_message(cli, "cannot reach the coordinator: %s", err->text);
        lmo_cli_message(cli, "Nothing was asked. Check --url, and that lmod runs there.");
        return LMO_EXIT_UNREACHABLE;
    case LMO_E_TIMEOUT:
    case LMO_E_UNKNOWN:
        lmo_cli_message(cli, "the coordinator's answer was lost: %s", err->text);
        return LMO_EXIT_UNREACHABLE;
    default: break;
    }
    return lmo_cli_failed(cli, err);
}

int lmo_api_call(struct lmo_cli *cli, const char *method, const char *path, const json_t *body, json_t **ret_json)
{
    LMO_AUTO_FREE char *text = NULL;
    struct lmo_err err = {0};
    if (body && lmo_json_dump(body, &text, NULL, &err) < 0)
        return lmo_cli_failed(cli, &err);
    struct lmo_cli_call call = {.method = method, .path = path, .body = text, .timeout_ms = LMO_API_TIMEOUT_MS};
    struct lmo_cli_reply reply = {0};
    int rc = lmo_api_request(cli, &call, &reply, &err);
    if (rc < 0) {
        rc = lmo_api_unreached(cli, &err);
        if (rc == LMO_EXIT_UNREACHABLE && lmo_err_class_of(err.code) == LMO_CLASS_UNKNOWN &&
            strcmp(method, "GET") != 0) {
            lmo_cli_message(cli, "It may have been done: look before you repeat it.");
        }
        return rc;
    }
    rc = lmo_api_accept(cli, &reply, ret_json);
    free(reply.body);
    return rc;
}

int lmo_api_list(struct lmo_cli *cli, const char *path, const char *list, json_t **ret_json)
{
    json_t *all = NULL;
    int rc = lmo_api_call(cli, "GET", path, NULL, &all);
    while (rc == 0 && *lmo_api_text(all, "next_cursor")) {
        char next[LMO_API_PATH_MAX];
        json_t *page = NULL;
        snprintf(next, sizeof next, "%s", path);
        if (!lmo_api_query(next, "cursor", lmo_api_text(all, "next_cursor"))) {
            lmo_cli_message(cli, "the answer is not understood: its cursor is too long");
            rc = LMO_EXIT_PROTOCOL;
            break;
        }
        rc = lmo_api_call(cli, "GET", next, NULL, &page);
        bool bad = rc == 0 && (json_array_extend(json_object_get(all, list), json_object_get(page, list)) < 0 ||
                               json_object_set(all, "next_cursor", json_object_get(page, "next_cursor")) < 0);
        json_decref(page);
        if (bad) {
            lmo_cli_message(cli, "the answer is not understood: a page of the list is missing");
            rc = LMO_EXIT_PROTOCOL;
        }
    }
    if (rc != 0) {
        json_decref(all);
        all = NULL;
    }
    *ret_json = all;
    return rc;
}
