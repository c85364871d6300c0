/* peers.c - what this worker asks of other workers, over connections that are opened ahead of time and kept.
 *
 * The other side is always addressed by URL and identified by its certificate: role worker, name of its host. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/cleanup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESPONSE_MAX (16U * 1024U)

struct lmo_peer_call {
    struct lmo_peer_call *next;
    struct lmo_worker *w;
    lmo_peer_fn *fn;
    void *arg;
    uint64_t handle;
    uint64_t timer; /* a call that could not even be started is answered from here */
    int code;
    char text[LMO_TEXT_MAX];
};

static void end(struct lmo_peer_call *c, int code, const char *text, const struct lmo_peer_reply *reply)
{
    struct lmo_worker *w = c->w;
    for (struct lmo_peer_call **at = &w->peer_calls; *at; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            break;
        }
    }
    lmo_peer_fn *fn = c->fn;
    void *arg = c->arg;
    free(c);
    if (fn) {
        bool over = w->stopping || lmo_journal_dead(w->journal);
        fn(arg, over ? LMO_E_CANCELLED : code, text, reply);
    }
}

/* The reason in a problem document, or the status alone. */
static int refused(const struct lmo_http_response *r, char text[LMO_TEXT_MAX])
{
    LMO_AUTO_JSON json_t *problem = NULL;
    char code[64] = "", detail[LMO_TEXT_MAX] = "";
    if (lmo_json_parse_object(r->body, r->body_len, RESPONSE_MAX, &problem, NULL) == 0) {
        if (lmo_json_str(problem, "code", code, sizeof code, false, NULL) < 0 ||
            lmo_json_str(problem, "detail", detail, sizeof detail, false, NULL) < 0) {
            detail[sizeof detail - 1] = '\0';
        }
    }
    snprintf(text, LMO_TEXT_MAX, "status %u: %.200s", r->status, detail[0] ? detail : "no reason given");
    if (code[0]) {
        return lmo_err_from_name(code);
    }
    return r->status == 503 ? LMO_E_UNAVAILABLE : r->status == 504 ? LMO_E_TIMEOUT : LMO_E_REFUSED;
}

static void answered(void *arg, const struct lmo_http_response *r)
{
    struct lmo_peer_call *c = arg;
    char text[LMO_TEXT_MAX] = "";
    if (r->result < 0) {
        snprintf(text, sizeof text, "%.250s", r->err ? r->err->text : "");
        end(c, r->result, text, NULL);
        return;
    }
    if (r->status != 200) {
        int code = refused(r, text);
        end(c, code == LMO_E_OK ? LMO_E_REFUSED : code, text, NULL);
        return;
    }
    struct lmo_peer_reply reply = {0};
    struct lmo_err err = {0};
    int code = lmo_peer_reply_decode(r->body, r->body_len, &reply, &err);
    if (code < 0) {
        snprintf(text, sizeof text, "answer cannot be read: %.200s", err.text);
        end(c, LMO_E_UNKNOWN, text, NULL);
        return;
    }
    end(c, 0, "", &reply);
}

static void not_sent(void *arg)
{
    struct lmo_peer_call *c = arg;
    c->timer = 0;
    char text[LMO_TEXT_MAX];
    memcpy(text, c->text, sizeof text);
    end(c, c->code, text, NULL);
}

void lmo_peer_call(struct lmo_worker *w, const char *url, const char *name, const char *what, const char *permit,
                   unsigned index, uint64_t pause, uint64_t timeout_ms, lmo_peer_fn *fn, void *arg)
{
    struct lmo_peer_call *c = calloc(1, sizeof *c);
    lmo_assert(c);
    *c = (struct lmo_peer_call){.next = w->peer_calls, .w = w, .fn = fn, .arg = arg};
    w->peer_calls = c;

    char address[LMO_URL_MAX + 32];
    LMO_AUTO_FREE char *body = NULL;
    struct lmo_err err = {0};
    struct lmo_peer_request request = {.permit = permit, .index = index, .pause = pause};
    size_t len = strlen(url);
    while (len > 0 && url[len - 1] == '/') {
        len--;
    }
    snprintf(address, sizeof address, "%.*s/v1/peer/%s", (int)len, url, what);
    int r = len == 0 ? lmo_fail(&err, LMO_E_UNAVAILABLE,
                                "worker '%s' cannot be asked: no address, or no journal to write to", name)
                     : lmo_peer_request_encode(&request, &body, &err);
    if (r == 0) {
        struct lmo_http_request_spec spec = {
            .method = "POST",
            .url = address,
            .body = body,
            .body_len = strlen(body),
            .timeout_ms = timeout_ms,
            .response_max = RESPONSE_MAX,
            .peer_role = LMO_ROLE_WORKER,
            .peer_name = name,
        };
        r = lmo_http_request_async(w->client, &spec, answered, c, &c->handle, &err);
    }
    if (r < 0) {
        c->code = r;
        snprintf(c->text, sizeof c->text, "%.250s", err.text);
        lmo_assert(lmo_loop_timer(w->loop, 0, not_sent, c, &c->timer) == 0);
    }
}

void lmo_peer_ping(struct lmo_worker *w, const struct lmo_peer *peer, const char *permit, lmo_peer_fn *fn, void *arg)
{
    lmo_peer_call(w, peer->url, peer->name, "ping", permit, 0, 0, LMO_PING_TIMEOUT_MS, fn, arg);
}

void lmo_peers_free(struct lmo_worker *w)
{
    while (w->peer_calls) {
        struct lmo_peer_call *c = w->peer_calls;
        lmo_loop_cancel(w->loop, &c->timer);
        if (w->client) {
            lmo_http_cancel(w->client, &c->handle);
        }
        end(c, LMO_E_CANCELLED, "", NULL);
    }
}
