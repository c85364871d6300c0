/* transport.c - see transport.h. The coordinator is whoever shows a certificate of our CA with the role coordinator;
 * under which address it was reached proves nothing and is not asked. */
#include "cli/transport.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "http/client.h"

#include <string.h>

#define ANSWER_MAX (2048u << 20) /* a backup; lists are far below */

struct lmo_transport {
    struct lmo_loop *loop; /* borrowed */
    struct lmo_http_client *client;
    char url[LMO_URL_MAX];        /* without a slash at the end */
    char authorization[32 + 512]; /* header line; "" without a token */
};

struct lmo_transport *lmo_transport_free(struct lmo_transport *t)
{
    if (t) {
        lmo_http_client_free(t->client);
        explicit_bzero(t->authorization, sizeof t->authorization);
    }
    free(t);
    return NULL;
}
static void cleanup_transport(struct lmo_transport **t)
{
    *t = lmo_transport_free(*t);
}

static int copy(const char *what, const char *from, char *ret, size_t size, struct lmo_err *err)
{
    size_t len = strlen(from);
    if (len >= size)
        return lmo_fail(err, LMO_E_INVALID, "%s: longer than %zu characters", what, size - 1);
    memcpy(ret, from, len + 1);
    return 0;
}

int lmo_transport_open(struct lmo_loop *loop, const struct lmo_transport_config *config, struct lmo_transport **ret,
                       struct lmo_err *err)
{
    if (strncmp(config->url, "https://", 8) != 0 || config->url[8] == '\0') {
        return lmo_fail(err, LMO_E_INVALID, "--url: must be https://HOST:PORT, not \"%.100s\"", config->url);
    }
    LMO_CLEANUP(cleanup_transport) struct lmo_transport *t = calloc(1, sizeof *t);
    if (!t)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    struct lmo_http_client_config http = {.connections_max = 1, .requests_max = 4};
    int rc = copy("--url", config->url, t->url, sizeof t->url, err);
    if (rc == 0)
        rc = copy("--ca", config->ca, http.tls.ca, sizeof http.tls.ca, err);
    if (rc == 0)
        rc = copy("--crl", config->crl ? config->crl : "", http.tls.crl, sizeof http.tls.crl, err);
    if (rc == 0)
        rc = copy("--cert", config->cert ? config->cert : "", http.tls.cert, sizeof http.tls.cert, err);
    if (rc == 0)
        rc = copy("--key", config->key ? config->key : "", http.tls.key, sizeof http.tls.key, err);
    if (rc == 0 && config->token && *config->token) {
        int n = snprintf(t->authorization, sizeof t->authorization, "Authorization: Bearer %s", config->token);
        if (n < 0 || (size_t)n >= sizeof t->authorization)
            rc = lmo_fail(err, LMO_E_INVALID, "--token-file: the token is too long");
    }
    if (rc < 0)
        return rc;
    for (size_t len = strlen(t->url); len > 0 && t->url[len - 1] == '/';)
        t->url[--len] = '\0';
    t->loop = loop;
    rc = lmo_http_client_new(loop, &http, &t->client, err);
    if (rc < 0)
        return rc;
    *ret = LMO_TAKE(t);
    return 0;
}

int lmo_transport_request(void *arg, const struct lmo_cli_call *call, struct lmo_cli_reply *ret_reply,
                          struct lmo_err *err)
{
    struct lmo_transport *t = arg;
    char url[LMO_URL_MAX + 1024], key_header[256];
    int n = snprintf(url, sizeof url, "%s%s", t->url, call->path);
    if (n < 0 || (size_t)n >= sizeof url)
        return lmo_fail(err, LMO_E_INVALID, "the argument is too long for a URL");
    const char *headers[5] = {call->on_data ? "Accept: text/event-stream" : "Accept: application/json"};
    size_t header_count = 1;
    if (t->authorization[0])
        headers[header_count++] = t->authorization;
    if (call->idempotency_key) {
        n = snprintf(key_header, sizeof key_header, "Idempotency-Key: %s", call->idempotency_key);
        if (n < 0 || (size_t)n >= sizeof key_header)
            return lmo_fail(err, LMO_E_INVALID, "--idempotency-key: too long");
        headers[header_count++] = key_header;
    }
    if (call->header)
        headers[header_count++] = call->header;
    struct lmo_http_request_spec spec = {.method = call->method,
                                         .url = url,
                                         .headers = headers,
                                         .body = call->body,
                                         .body_len = call->body ? strlen(call->body) : 0,
                                         .timeout_ms = call->timeout_ms,
                                         .response_max = ANSWER_MAX,
                                         .peer_role = LMO_ROLE_COORDINATOR,
                                         .on_data = call->on_data,
                                         .data_arg = call->data_arg};
    struct lmo_http_answer answer = {0};
    int rc = lmo_http_request_sync(t->client, &spec, &answer, err);
    if (rc < 0)
        return rc;
    *ret_reply =
        (struct lmo_cli_reply){.status = answer.status, .body = LMO_TAKE(answer.body), .body_len = answer.body_len};
    lmo_http_answer_done(&answer);
    return 0;
}

/* ------------------------------------------------------------------ answers that go on */

struct follow {
    struct lmo_loop *loop;
    lmo_transport_data_fn *on_data;
    void *arg;
    struct lmo_cli_reply reply;
    struct lmo_err err;
    int rc;
    bool done;
};

static int on_piece(void *arg, const char *data, size_t len)
{
    struct follow *f = arg;
    return f->on_data(f->arg, data, len);
}

static void on_end(void *arg, const struct lmo_http_response *response)
{
    struct follow *f = arg;
    f->done = true;
    f->rc = response->result;
    if (response->result < 0) {
        f->err = *response->err;
    } else {
        f->reply.status = response->status;
        f->reply.body = strdup(response->body);
        f->reply.body_len = f->reply.body ? response->body_len : 0;
    }
    lmo_loop_stop(f->loop);
}

int lmo_transport_follow(struct lmo_transport *t, const char *path, const char *last_event_id, uint64_t idle_ms,
                         lmo_transport_data_fn *on_data, void *arg, struct lmo_cli_reply *ret_reply, struct lmo_err *err)
{
    char url[LMO_URL_MAX + 1024], last[128];
    const char *headers[] = {"Accept: text/event-stream", NULL, NULL, NULL};
    size_t count = 1;
    snprintf(url, sizeof url, "%s%s", t->url, path);
    if (t->authorization[0])
        headers[count++] = t->authorization;
    if (last_event_id && *last_event_id) {
        snprintf(last, sizeof last, "Last-Event-ID: %.63s", last_event_id);
        headers[count++] = last;
    }
    struct follow f = {.loop = t->loop, .on_data = on_data, .arg = arg};
    struct lmo_http_request_spec spec = {.method = "GET",
                                         .url = url,
                                         .headers = headers,
                                         .timeout_ms = idle_ms,
                                         .peer_role = LMO_ROLE_COORDINATOR,
                                         .on_data = on_piece,
                                         .data_arg = &f};
    uint64_t handle = 0;
    int rc = lmo_http_request_async(t->client, &spec, on_end, &f, &handle, err);
    if (rc < 0)
        return rc;
    rc = lmo_loop_run(t->loop);
    if (!f.done) {
        lmo_http_cancel(t->client, &handle);
        return lmo_fail(err, rc < 0 ? rc : LMO_E_CANCELLED, "%s: interrupted", url);
    }
    if (f.rc < 0) {
        *err = f.err;
        return f.rc;
    }
    *ret_reply = f.reply;
    return 0;
}
