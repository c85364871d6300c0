/* observe.c - one-off GETs of ground truth. Reading changes nothing over there, so there is no asking again here: who
 * wants to know again observes again. */
#include "rpc/internal.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/json.h"

#include <stdio.h>
#include <string.h>
#include <utlist.h>

struct observe_call {
    struct workers *workers;
    struct worker_host *host; /* NULL: an orphan */
    struct observe_call *prev, *next;
    uint64_t request, timer;
    lmo_observe_done_fn *done;
    void *arg;
};

/* Last act of its callers. */
static void finish(struct observe_call *c, int code, const char *text, const json_t *body)
{
    lmo_observe_done_fn *done = c->done;
    void *arg = c->arg;
    lmo_loop_cancel(c->workers->loop, &c->timer);
    if (c->host) {
        c->host->observe_count--;
        DL_DELETE(c->host->observes, c);
    } else {
        DL_DELETE(c->workers->orphan_observes, c);
    }
    free(c);
    done(arg, code, text, body);
}

static void on_answer(void *arg, const struct lmo_http_response *r)
{
    struct observe_call *c = arg;
    struct lmo_err err = {0};
    LMO_AUTO_JSON json_t *root = NULL;
    c->request = 0;
    if (r->result < 0) {
        finish(c, r->result, r->err ? r->err->text : lmo_err_name(r->result), NULL);
    } else if (r->status != 200) {
        char text[LMO_TEXT_MAX];
        int code = answer_error(r, text);
        finish(c, code, text, NULL);
    } else if (lmo_json_parse_object(r->body, r->body_len, LMO_OBSERVE_BODY_MAX, &root, &err) < 0) {
        char text[LMO_TEXT_MAX];
        snprintf(text, sizeof(text), "the worker's answer is not understood: %.200s", err.text);
        finish(c, LMO_E_UNKNOWN, text, NULL);
    } else {
        finish(c, 0, "", root);
    }
}

int workers_observe(struct lmo_workers *base, const char *host, const char *path, uint32_t timeout_ms,
                    lmo_observe_done_fn *done, void *arg, struct lmo_err *err)
{
    struct workers *w = workers_of(base);
    struct worker_host *h = workers_find(w, host);
    char url[2 * LMO_URL_MAX];
    size_t plain = strspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-");
    if ((strncmp(path, "/v1/observe/", 12) != 0 && strcmp(path, "/healthz") != 0) || path[plain] != '\0' || strstr(path, "/.")) {
        return lmo_fail(err, LMO_E_INVALID, "'%.80s' is not the path of an observation", path);
    }
    if (!h) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "host %s is not known", host);
    }
    if (h->observe_count >= OBSERVES_MAX) {
        return lmo_fail(err, LMO_E_LIMIT, "host %s: %u observations are under way already", host, h->observe_count);
    }
    int n = snprintf(url, sizeof(url), "%s%s", h->url, path);
    if (n < 0 || (size_t)n >= sizeof(url)) {
        return lmo_fail(err, LMO_E_INVALID, "host %s: path too long", host);
    }
    struct observe_call *c = calloc(1, sizeof(*c));
    if (!c) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    *c = (struct observe_call){.workers = w, .host = h, .done = done, .arg = arg};
    const struct lmo_http_request_spec spec = {.method = "GET",
                                               .url = url,
                                               .headers = w->headers,
                                               .timeout_ms = timeout_ms,
                                               .response_max = LMO_OBSERVE_BODY_MAX,
                                               .peer_role = LMO_ROLE_WORKER,
                                               .peer_name = h->name};
    int r = lmo_http_request_async(w->client, &spec, on_answer, c, &c->request, err);
    if (r < 0) {
        free(c);
        return r;
    }
    h->observe_count++;
    DL_PREPEND(h->observes, c);
    return 0;
}

static void on_orphan(void *arg)
{
    struct observe_call *c = arg;
    c->timer = 0;
    finish(c, LMO_E_UNAVAILABLE, "the host is not talked to any more", NULL);
}

void observe_drop_host(struct worker_host *h)
{
    struct observe_call *c, *next;
    struct workers *w = h->workers;
    DL_FOREACH_SAFE(h->observes, c, next)
    {
        lmo_http_cancel(w->client, &c->request);
        DL_DELETE(h->observes, c);
        DL_PREPEND(w->orphan_observes, c);
        c->host = NULL;
        if (lmo_loop_timer(w->loop, 0, on_orphan, c, &c->timer) < 0) {
            lmo_unreachable("no timer for the end of an observation");
        }
    }
}

void observe_drop_orphans(struct workers *w)
{
    while (w->orphan_observes) {
        struct observe_call *c = w->orphan_observes;
        finish(c, LMO_E_UNAVAILABLE, "the coordinator is stopping", NULL);
    }
}
