/* ops.c - per op: PUT, and asking again until the outcome is certain or its time is up.
 *
 *   QUEUED --slot free--> UNDER_WAY --answer--> (done) | PAUSED --timer--> UNDER_WAY ...
 *
 * An op's time counts from when it is first sent; waiting for a slot has a bound of its own. What was not sent by then
 * is UNAVAILABLE: certainly not executed.
 *
 * The next request is a PUT as long as nothing was sent and after a 404 ("never accepted that id": the PUT that was
 * lost is lost for good, and the same id is sent again); otherwise it is a GET. What an answer means:
 *
 *   not connected, not authenticated, 429   certainly not executed, unless an earlier PUT may have been: `maybe`
 *   lost, timed out, too large, 5xx         may have been executed: ask. (503 too: a worker that stops answers what it
 *                                           had begun with 503.)
 *   200, 202                                the reply: done, failed, or running: ask again, waiting there
 *   404 to a GET                            not executed so far: the same PUT again
 *   410                                     acknowledged and forgotten: GONE
 *   other 4xx to a PUT                      refused: the worker's code. After a lost PUT too: it looks for the id first
 *
 * `maybe` is never taken back by a 404 alone: bytes of a lost PUT can still lie in a socket's buffer over there. Then
 * only "done", "failed" or a refusal are definite, all else is UNKNOWN at the deadline. */
#include "rpc/internal.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#define ASK_WAIT_MAX_MS 10000 /* how long one request waits at the worker */
#define ASK_MARGIN_MS   3000  /* beyond it: the answer is lost */
#define QUEUED_MAX_MS   15000 /* behind other operations of the same host */
#define WAY_MS          500   /* the worker may use all of the op's time; this is for the way there and back */
#define PAUSE_MIN_MS    20
#define PAUSE_MAX_MS    1000
#define GARBAGE_MAX     3 /* answers that are not understood, then it is given up: UNKNOWN */

enum call_state { CALL_QUEUED = 0, CALL_UNDER_WAY, CALL_PAUSED, CALL_ORPHAN };

struct op_call {
    struct workers *workers;
    struct worker_host *host;    /* NULL: an orphan */
    struct op_call *prev, *next; /* of the host, or the orphans */
    struct op_call *queue_prev, *queue_next;
    enum call_state state;
    char id[LMO_OP_ID_MAX];
    char *body;           /* owned */
    char traceparent[80]; /* header; empty: none */
    bool urgent, counted; /* counted: holds a slot of the host */
    bool put;             /* the request under way or next is a PUT */
    bool maybe;           /* a PUT may have reached the worker */
    bool running;         /* the worker's last word */
    unsigned failures, garbage;
    uint32_t timeout_ms;
    uint64_t deadline_ns, sent_ns; /* deadline: of the wait for a slot, then of the op */
    uint64_t request, timer;
    int code;                /* orphans: what they get */
    char last[LMO_TEXT_MAX]; /* why it is not done yet */
    lmo_op_done_fn *done;
    void *arg;
};

static void start_queued(struct worker_host *h);
static void on_timer(void *arg);

/* ------------------------------------------------------------------ end of a call */

static void give_back_slot(struct op_call *c)
{
    struct worker_host *h = c->host;
    if (c->state == CALL_QUEUED) {
        DL_DELETE2(h->queue_head, c, queue_prev, queue_next);
        h->queued--;
    }
    if (c->counted) {
        c->counted = false;
        if (c->urgent) {
            h->urgent_in_flight--;
        } else {
            h->in_flight--;
        }
    }
}

static void stop_waiting(struct op_call *c)
{
    lmo_loop_cancel(c->workers->loop, &c->timer);
    lmo_http_cancel(c->workers->client, &c->request);
}

/* Last act of its callers: frees the call, and `done` may do anything. */
static void finish(struct op_call *c, int code, const char *why, const struct lmo_op_reply *reply)
{
    char text[LMO_TEXT_MAX];
    lmo_op_done_fn *done = c->done;
    void *arg = c->arg;
    struct worker_host *h = c->host;
    copy_text(text, sizeof(text), why);
    stop_waiting(c);
    if (h) {
        give_back_slot(c);
        DL_DELETE(h->calls, c);
        start_queued(h);
    } else {
        DL_DELETE(c->workers->orphans, c);
    }
    c->workers->call_count--;
    free(c->body);
    free(c);
    done(arg, code, text, code == 0 ? reply : NULL);
}

static void expire(struct op_call *c)
{
    char text[LMO_TEXT_MAX];
    bool maybe = c->maybe || (c->put && c->state == CALL_UNDER_WAY);
    const char *last = c->last[0]                ? c->last
                       : c->state == CALL_QUEUED ? "it waited behind other operations"
                                                 : "no reply";
    if (!maybe) {
        snprintf(text, sizeof(text), "not sent in time: %.200s", last);
        finish(c, LMO_E_UNAVAILABLE, text, NULL);
    } else if (c->running) {
        finish(c, LMO_E_TIMEOUT, "the worker has not finished it in time", NULL);
    } else {
        snprintf(text, sizeof(text), "no answer in time: %.200s", last);
        finish(c, LMO_E_UNKNOWN, text, NULL);
    }
}

/* ------------------------------------------------------------------ one request after the other */

static void arm(struct op_call *c, uint64_t due_ns)
{
    lmo_loop_cancel(c->workers->loop, &c->timer);
    if (lmo_loop_timer_at(c->workers->loop, due_ns < c->deadline_ns ? due_ns : c->deadline_ns, on_timer, c, &c->timer) <
        0) {
        lmo_unreachable("no timer in place of the one just cancelled");
    }
}

/* The next request, after a pause that doubles with every failure in a row. */
static void pause_call(struct op_call *c, const char *why)
{
    uint64_t pause = c->failures > 5 ? PAUSE_MAX_MS : (uint64_t)PAUSE_MIN_MS << c->failures;
    c->failures++;
    c->state = CALL_PAUSED;
    copy_text(c->last, sizeof(c->last), why);
    arm(c, lmo_now_ns() + pause * LMO_NS_PER_MS);
}

static void on_answer(void *arg, const struct lmo_http_response *r);

static void send_request(struct op_call *c)
{
    char url[LMO_URL_MAX + LMO_OP_ID_MAX + 48];
    struct lmo_err err = {0};
    uint64_t left = lmo_ms_until(c->deadline_ns);
    uint64_t wait = left > ASK_WAIT_MAX_MS ? ASK_WAIT_MAX_MS : left;
    snprintf(url, sizeof(url), "%s/v1/ops/%s?wait_ms=%" PRIu64, c->host->url, c->id, wait);
    const char *const headers[] = {c->workers->headers[0], c->traceparent, NULL};
    const struct lmo_http_request_spec spec = {.method = c->put ? "PUT" : "GET",
                                               .url = url,
                                               .headers = c->traceparent[0] && headers[0] ? headers : c->workers->headers,
                                               .body = c->put ? c->body : NULL,
                                               .body_len = c->put ? strlen(c->body) : 0,
                                               .timeout_ms = wait + ASK_MARGIN_MS,
                                               .response_max = LMO_OP_BODY_MAX,
                                               .peer_role = LMO_ROLE_WORKER,
                                               .peer_name = c->host->name,
                                               .urgent = c->urgent};
    c->state = CALL_UNDER_WAY;
    c->sent_ns = lmo_now_ns();
    arm(c, c->deadline_ns);
    if (lmo_http_request_async(c->workers->client, &spec, on_answer, c, &c->request, &err) < 0) {
        pause_call(c, err.text);
    }
}

static void on_timer(void *arg)
{
    struct op_call *c = arg;
    c->timer = 0;
    if (c->state == CALL_ORPHAN) {
        finish(c, c->code, c->last, NULL);
    } else if (lmo_now_ns() >= c->deadline_ns) {
        expire(c);
    } else {
        lmo_assert(c->state == CALL_PAUSED);
        send_request(c);
    }
}

/* A 200 or 202: the worker knows this op. */
static void on_reply(struct op_call *c, const struct lmo_http_response *r)
{
    struct lmo_op_reply reply;
    struct lmo_err err = {0};
    c->maybe = true;
    c->put = false;
    int e = lmo_op_reply_decode(r->body, r->body_len, &reply, &err);
    if (e == 0 && strcmp(reply.id, c->id) != 0) {
        e = lmo_fail(&err, LMO_E_INVALID, "id: it is another op's (%s)", reply.id);
        lmo_op_reply_done(&reply);
    }
    if (e < 0) {
        char text[LMO_TEXT_MAX];
        snprintf(text, sizeof(text), "the worker's answer is not understood: %.200s", err.text);
        if (++c->garbage >= GARBAGE_MAX) {
            finish(c, LMO_E_UNKNOWN, text, NULL);
        } else {
            pause_call(c, text);
        }
        return;
    }
    if (reply.state == LMO_OP_RUNNING) {
        c->running = true;
        lmo_op_reply_done(&reply);
        /* It waited there, so ask again at once; unless it did not wait. */
        if (lmo_now_ns() - c->sent_ns >= PAUSE_MIN_MS * LMO_NS_PER_MS) {
            c->failures = 0;
            send_request(c);
        } else {
            pause_call(c, "it is running");
        }
        return;
    }
    finish(c, 0, reply.text, &reply);
    lmo_op_reply_done(&reply);
}

static void on_put_failed(struct op_call *c, const struct lmo_http_response *r, int code, const char *text)
{
    bool unsent = r->result == LMO_E_UNAVAILABLE || r->result == LMO_E_UNAUTHENTICATED || r->result == LMO_E_LIMIT ||
                  r->status == 429 || r->status == 507;
    bool refused = r->result == 0 && r->status >= 400 && r->status < 500 && r->status != 429;
    if (refused || (unsent && !c->maybe)) {
        finish(c, code, text, NULL);
        return;
    }
    if (!unsent) {
        c->maybe = true;
    }
    c->put = false;
    pause_call(c, text);
}

static void on_answer(void *arg, const struct lmo_http_response *r)
{
    struct op_call *c = arg;
    char text[LMO_TEXT_MAX];
    int code = r->result;
    c->request = 0;
    if (r->result == 0 && (r->status == 200 || r->status == 202)) {
        on_reply(c, r);
        return;
    }
    if (r->result < 0) {
        copy_text(text, sizeof(text), r->err ? r->err->text : lmo_err_name(r->result));
    } else {
        code = answer_error(r, text);
    }
    lmo_log(LMO_LOG_DEBUG, "op not answered", "op=%s host=%s method=%s code=%s why=%s", c->id, c->host->name,
            c->put ? "PUT" : "GET", lmo_err_name(code), text);
    if (code == LMO_E_STALE_TERM) { /* nothing was done, and nothing that this coordinator asks will be */
        char host[LMO_NAME_MAX];
        struct workers *w = c->workers;
        copy_text(host, sizeof(host), c->host->name);
        finish(c, c->maybe ? LMO_E_UNKNOWN : code, text, NULL);
        workers_superseded(w, host, text);
    } else if (c->put) {
        on_put_failed(c, r, code, text);
    } else if (r->result == 0 && r->status == 410) {
        finish(c, LMO_E_GONE, text, NULL);
    } else {
        c->put = r->result == 0 && r->status == 404;
        c->running = c->running && !c->put;
        pause_call(c, text);
    }
}

/* ------------------------------------------------------------------ beginning of a call */

static bool is_urgent(enum lmo_op_kind kind)
{
    return kind == LMO_OP_RELAY_FREEZE || kind == LMO_OP_RELAY_ANSWER || kind == LMO_OP_OPEN_GATE;
}

static void take_slot(struct op_call *c)
{
    c->counted = true;
    if (c->urgent) {
        c->host->urgent_in_flight++;
    } else {
        c->host->in_flight++;
    }
    c->put = true;
    c->deadline_ns = lmo_now_ns() + ((uint64_t)c->timeout_ms + WAY_MS) * LMO_NS_PER_MS;
    send_request(c);
}

static void start_queued(struct worker_host *h)
{
    while (h->queue_head && h->in_flight < OPS_IN_FLIGHT_MAX) {
        struct op_call *c = h->queue_head;
        DL_DELETE2(h->queue_head, c, queue_prev, queue_next);
        h->queued--;
        take_slot(c);
    }
}

int workers_op(struct lmo_workers *base, const char *host, const struct lmo_op_request *req, uint32_t timeout_ms,
               lmo_op_done_fn *done, void *arg, struct lmo_err *err)
{
    struct workers *w = workers_of(base);
    struct worker_host *h = workers_find(w, host);
    if (!h) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "host %s is not known", host);
    }
    if (h->queued >= OPS_QUEUED_MAX || w->call_count >= CALLS_MAX) {
        return lmo_fail(err, LMO_E_LIMIT, "host %s: %u operations are waiting already, %u in all", host, h->queued,
                        w->call_count);
    }
    struct op_call *c = calloc(1, sizeof(*c));
    if (!c) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    c->workers = w;
    c->host = h;
    c->done = done;
    c->arg = arg;
    c->timeout_ms = timeout_ms;
    c->deadline_ns = lmo_now_ns() + QUEUED_MAX_MS * LMO_NS_PER_MS;
    copy_text(c->id, sizeof(c->id), req->id);
    if (req->traceparent[0]) {
        snprintf(c->traceparent, sizeof(c->traceparent), "traceparent: %s", req->traceparent);
    }
    int r = lmo_op_request_encode(req, &c->body, err);
    if (r == 0 && lmo_loop_timer_at(w->loop, c->deadline_ns, on_timer, c, &c->timer) < 0) {
        r = lmo_fail(err, LMO_E_LIMIT, "no timer left for another operation");
    }
    if (r < 0) {
        free(c->body);
        free(c);
        return r;
    }
    w->call_count++;
    c->urgent = is_urgent(req->kind) && h->urgent_in_flight < OPS_URGENT_MAX;
    DL_PREPEND(h->calls, c);
    if (c->urgent || (h->in_flight < OPS_IN_FLIGHT_MAX && !h->queue_head)) {
        take_slot(c);
    } else {
        DL_APPEND2(h->queue_head, c, queue_prev, queue_next);
        h->queued++;
    }
    return 0;
}

/* ------------------------------------------------------------------ hosts that go */

void ops_drop_host(struct worker_host *h)
{
    struct op_call *c, *next;
    struct workers *w = h->workers;
    DL_FOREACH_SAFE(h->calls, c, next)
    {
        stop_waiting(c);
        give_back_slot(c);
        DL_DELETE(h->calls, c);
        DL_PREPEND(w->orphans, c);
        c->host = NULL;
        c->state = CALL_ORPHAN;
        c->code = c->maybe || c->put ? LMO_E_UNKNOWN : LMO_E_UNAVAILABLE;
        snprintf(c->last, sizeof(c->last), "host %s is not talked to any more", h->name);
        c->deadline_ns = lmo_now_ns();
        arm(c, c->deadline_ns);
    }
}

void ops_drop_orphans(struct workers *w)
{
    while (w->orphans) {
        struct op_call *c = w->orphans;
        finish(c, c->code, c->last, NULL);
    }
}
