/* ops.c - the op protocol: acceptance, answers, memory (proto/op.h; the kinds themselves: ops_*.c, op_*.c).
 *
 * Invariants:
 *  O1  A mutating op is on disk, with its epoch adopted, before anything is done about it.
 *  O2  Its result is on disk before anybody is told.
 *  O3  One id, one run: a repeated id waits for the run or gets its journaled answer; an id that was forgotten (its
 *      migration is closed in that role) is refused. One exception: an op that ended with an outcome that nobody knows
 *      (class UNKNOWN) is taken up again when its id comes again, as after a restart of this process: the same order,
 *      not answered yet. Every kind can be taken up again (JOB_START then only looks for its job).
 *  O4  An order below the epoch that was seen for the guest is refused, except for the answer to an id that is known.
 *  O5  Of a migration's relayed questions only the newest is kept: they may be asked for days. One that comes again
 *      after it was forgotten is asked once more, which the source's machine answers as any repeated question.
 * Ops that change nothing are not journaled: a repeated one that has ended is run again. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_RESULT_MS 60000 /* of a read-only op, for whoever was told "running" */

static bool journaled(const struct lmo_op *op)
{
    return op->info->mutates && !lmo_op_is_close(op->req->kind);
}

struct lmo_op *lmo_ops_find(struct lmo_worker *w, const char *id)
{
    struct lmo_op *op = w->ops;
    while (op && strcmp(op->req->id, id) != 0) {
        op = op->next;
    }
    return op;
}

static void op_free(struct lmo_op *op)
{
    struct lmo_worker *w = op->w;
    for (struct lmo_op **at = &w->ops; *at; at = &(*at)->next) {
        if (*at == op) {
            *at = op->next;
            w->op_count--;
            break;
        }
    }
    lmo_assert(!op->waiters);
    lmo_loop_cancel(w->loop, &op->timer);
    lmo_op_request_done(op->req);
    free(op->req);
    lmo_op_reply_done(&op->reply);
    free(op->result);
    free(op->permit);
    free(op);
}

/* ------------------------------------------------------------------ answers */

static void reply_text(struct lmo_http_request *http, unsigned status, const char *text)
{
    lmo_http_reply(http, status, "application/json", text, strlen(text));
}

static void reply_running(struct lmo_http_request *http, const char *id)
{
    struct lmo_op_reply reply = {.state = LMO_OP_RUNNING};
    struct lmo_err err = {0};
    char *text = NULL;
    snprintf(reply.id, sizeof reply.id, "%s", id);
    if (lmo_op_reply_encode(&reply, &text, &err) < 0) {
        lmo_http_reply_error(http, &err);
        return;
    }
    reply_text(http, 202, text);
    free(text);
}

static void reply_done(struct lmo_http_request *http, const char *id)
{
    struct lmo_op_reply reply = {.state = LMO_OP_DONE};
    struct lmo_err err = {0};
    char *text = NULL;
    snprintf(reply.id, sizeof reply.id, "%s", id);
    if (lmo_op_reply_encode(&reply, &text, &err) < 0) {
        lmo_http_reply_error(http, &err);
        return;
    }
    reply_text(http, 200, text);
    free(text);
}

static void waiter_due(void *arg)
{
    struct lmo_waiter *waiter = arg;
    struct lmo_op *op = lmo_ops_find(waiter->w, waiter->id);
    lmo_assert(op);
    for (struct lmo_waiter **at = &op->waiters; *at; at = &(*at)->next) {
        if (*at == waiter) {
            *at = waiter->next;
            op->waiter_count--;
            break;
        }
    }
    op->told_running = true;
    reply_running(waiter->http, waiter->id);
    free(waiter);
}

static void wait_for(struct lmo_op *op, struct lmo_http_request *http, uint64_t wait_ms)
{
    if (op->result && !journaled(op)) {
        reply_text(http, 200, op->result);
        return;
    }
    if (op->waiter_count >= LMO_OP_WAITERS_MAX || wait_ms == 0) {
        op->told_running = true;
        reply_running(http, op->req->id);
        return;
    }
    struct lmo_waiter *waiter = calloc(1, sizeof *waiter);
    lmo_assert(waiter);
    *waiter = (struct lmo_waiter){.next = op->waiters, .w = op->w, .http = http};
    memcpy(waiter->id, op->req->id, sizeof waiter->id);
    lmo_assert(lmo_loop_timer(op->w->loop, wait_ms, waiter_due, waiter, &waiter->timer) == 0);
    op->waiters = waiter;
    op->waiter_count++;
}

static void answer_waiters(struct lmo_op *op, const char *text, int code, const char *why)
{
    while (op->waiters) {
        struct lmo_waiter *waiter = op->waiters;
        op->waiters = waiter->next;
        op->waiter_count--;
        lmo_loop_cancel(op->w->loop, &waiter->timer);
        if (text) {
            reply_text(waiter->http, 200, text);
        } else {
            lmo_http_reply_fail(waiter->http, code, "%s", why ? why : "");
        }
        free(waiter);
    }
}

/* ------------------------------------------------------------------ the end of an op */

static void forget_result(void *arg)
{
    struct lmo_op *op = arg;
    op->timer = 0;
    op_free(op);
}

static void result_durable(void *arg, int result)
{
    struct lmo_op *op = arg;
    if (result < 0) {
        answer_waiters(op, NULL, LMO_E_UNAVAILABLE, "this worker is stopping");
        op_free(op);
        return;
    }
    LMO_FAULT(WORKER_ANSWER, op->info->text);
    answer_waiters(op, op->result, 0, NULL);
    if (!journaled(op) && op->told_running) {
        lmo_assert(lmo_loop_timer(op->w->loop, KEPT_RESULT_MS, forget_result, op, &op->timer) == 0);
        return;
    }
    op_free(op);
}

/* The reply as text; one that cannot be encoded (a domain XML that is too long) becomes a failure that can. */
static void encode_result(struct lmo_op *op)
{
    struct lmo_err err = {0};
    int r = lmo_op_reply_encode(&op->reply, &op->result, &err);
    if (r == 0) {
        return;
    }
    struct lmo_op_reply failure = {.state = LMO_OP_FAILED, .code = r};
    memcpy(failure.id, op->reply.id, sizeof failure.id);
    snprintf(failure.text, sizeof failure.text, "%.200s", err.text);
    op->reply.state = LMO_OP_FAILED;
    op->reply.code = r;
    lmo_assert(lmo_op_reply_encode(&failure, &op->result, NULL) == 0);
}

void lmo_op_finish(struct lmo_op *op, int code, const char *text)
{
    lmo_assert(!op->finished);
    op->finished = true;
    lmo_loop_cancel(op->w->loop, &op->timer);
    memcpy(op->reply.id, op->req->id, sizeof op->reply.id);
    op->reply.state = code == 0 ? LMO_OP_DONE : LMO_OP_FAILED;
    op->reply.code = code;
    if (text) {
        snprintf(op->reply.text, sizeof op->reply.text, "%s", text);
    }
    encode_result(op);
    LMO_FAULT(WORKER_ENDED, op->info->text);
    lmo_log(code ? LMO_LOG_WARN : LMO_LOG_INFO, "op ended", "op=%s kind=%s migration=%s vm=%s code=%s ms=%llu text=%s",
            op->req->id, op->info->text, op->req->migration, op->req->vm, lmo_err_name(op->reply.code),
            (unsigned long long)(lmo_now_ns() - op->started_ns) / LMO_NS_PER_MS, op->reply.text);
    if (!journaled(op)) {
        result_durable(op, 0);
        return;
    }
    struct lmo_batch *b = lmo_batch_new();
    lmo_batch_reply(b, op->req->id, op->reply.state, op->result);
    lmo_journal_submit(op->w->journal, b, false, result_durable, op);
}

void lmo_op_fail(struct lmo_op *op, int code, const char *fmt, ...)
{
    char text[LMO_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    lmo_op_finish(op, code, text);
}

uint64_t lmo_op_left_ms(const struct lmo_op *op)
{
    uint64_t left = lmo_ms_until(op->deadline_ns);
    return left > 0 ? left : 1;
}

/* ------------------------------------------------------------------ acceptance */

static void start(struct lmo_op *op)
{
    op->accepted = true;
    op->started_ns = lmo_now_ns();
    op->deadline_ns = op->started_ns + op->info->timeout_ms * LMO_NS_PER_MS;
    if (lmo_op_is_close(op->req->kind)) {
        lmo_op_start_close(op);
    } else if (lmo_op_is_driver_call(op->req->kind)) {
        lmo_op_start_driver(op);
    } else {
        lmo_op_start_machine(op);
    }
}

static void accepted(void *arg, int result)
{
    struct lmo_op *op = arg;
    if (result < 0) {
        lmo_op_unadmit(op);
        answer_waiters(op, NULL, result == LMO_E_CANCELLED ? LMO_E_UNAVAILABLE : result,
                       result == LMO_E_CANCELLED ? "this worker is stopping" : "the journal cannot be written");
        op_free(op);
        return;
    }
    LMO_FAULT(WORKER_ACCEPTED, op->info->text);
    start(op);
}

static struct lmo_op *op_new(struct lmo_worker *w, struct lmo_op_request *req)
{
    struct lmo_op *op = calloc(1, sizeof *op);
    lmo_assert(op);
    op->w = w;
    op->req = req;
    op->info = lmo_op_info(req->kind);
    op->started_ns = lmo_now_ns();
    op->next = w->ops;
    w->ops = op;
    w->op_count++;
    return op;
}

static int check_limits(struct lmo_worker *w, const struct lmo_op_request *req, struct lmo_err *err)
{
    unsigned count = 0;
    if (w->op_count >= LMO_OPS_RUNNING_MAX) {
        return lmo_fail(err, LMO_E_LIMIT, "%u ops run already; that is the limit", w->op_count);
    }
    if (!lmo_op_info(req->kind)->mutates || lmo_op_is_close(req->kind)) {
        return 0;
    }
    const char *why;
    if (!lmo_journal_healthy(w->journal, &why)) {
        return lmo_fail(err, LMO_E_NO_SPACE, "the journal cannot be written: %s", why);
    }
    int r = lmo_journal_op_count(w->journal, req->migration, &count, err);
    if (r == 0 && req->migration[0] && count >= LMO_OPS_PER_MIGRATION) {
        r = lmo_fail(err, LMO_E_LIMIT, "migration '%s' has %u ops here; that is the limit", req->migration, count);
    }
    return r;
}

/* Journals the order; it starts when that is on disk. Takes req. */
static int accept(struct lmo_worker *w, struct lmo_op_request *req, bool raise, struct lmo_op **ret,
                  struct lmo_err *err)
{
    char *text = NULL;
    int r = lmo_op_request_encode(req, &text, err);
    if (r < 0) {
        lmo_op_request_done(req);
        free(req);
        return r;
    }
    struct lmo_op *op = op_new(w, req);
    struct lmo_batch *b = lmo_batch_new();
    r = lmo_op_admit(op, text, b, err);
    if (r < 0) {
        lmo_batch_free(b);
        op_free(op);
        free(text);
        return r;
    }
    if (raise) {
        lmo_worker_adopt_epoch(w, b, req->vm, req->epoch);
    }
    if (req->kind == LMO_OP_RELAY_FREEZE) {
        lmo_batch_superseded(b, req->migration); /* asked for as long as nobody knows: only the newest counts */
    }
    lmo_batch_op(b, req, text);
    free(text);
    lmo_journal_submit(w->journal, b, true, accepted, op);
    *ret = op;
    return 0;
}

static int same_request(const struct lmo_op_request *req, enum lmo_op_kind kind, const char *vm, uint64_t epoch,
                        struct lmo_err *err)
{
    if (kind == req->kind && strcmp(vm, req->vm) == 0 && epoch == req->epoch) {
        return 0;
    }
    return lmo_fail(err, LMO_E_CONFLICT, "op '%s' is known here as %s of guest '%s' under epoch %llu", req->id,
                    lmo_op_info(kind)->text, vm, (unsigned long long)epoch);
}

static bool outcome_unknown(const char *reply_text)
{
    struct lmo_op_reply reply = {0};
    bool unknown = lmo_op_reply_decode(reply_text, strlen(reply_text), &reply, NULL) == 0 &&
                   lmo_err_class_of(reply.code) == LMO_CLASS_UNKNOWN;
    lmo_op_reply_done(&reply);
    return unknown;
}

/* An id that is known: 1 and the request has been answered, or waits. 0: not known, or to be taken up again. */
static int known(struct lmo_worker *w, const struct lmo_op_request *req, struct lmo_http_request *http,
                 uint64_t wait_ms, bool *ret_again, struct lmo_err *err)
{
    struct lmo_op *op = lmo_ops_find(w, req->id);
    if (op) {
        int r = same_request(req, op->req->kind, op->req->vm, op->req->epoch, err);
        if (r < 0) {
            return r;
        }
        wait_for(op, http, wait_ms);
        return 1;
    }
    struct lmo_journal_op row = {0};
    int r = lmo_journal_op(w->journal, req->id, &row, err);
    if (r == LMO_E_NOT_FOUND) {
        return 0;
    }
    if (r == 0) {
        r = same_request(req, row.kind, row.vm, row.epoch, err);
    }
    if (r == 0 && row.state == LMO_OP_RUNNING) {
        r = lmo_fail(err, LMO_E_UNAVAILABLE, "op '%s' has not been taken up again yet", req->id);
    }
    if (r == 0 && row.state == LMO_OP_FAILED && outcome_unknown(row.text)) {
        *ret_again = true;
    } else if (r == 0) {
        reply_text(http, 200, row.text);
        r = 1;
    }
    lmo_journal_op_done(&row);
    return r;
}

static int put(struct lmo_worker *w, struct lmo_op_request *req, struct lmo_http_request *http, uint64_t wait_ms,
               struct lmo_err *err)
{
    const struct lmo_op_info *info = lmo_op_info(req->kind);
    bool raise = false, closed = false, again = false;
    int r = known(w, req, http, wait_ms, &again, err);
    if (r == 0 && req->migration[0]) {
        r = lmo_journal_closed(w->journal, req->migration, info->role, &closed, err);
    }
    if (r == 0 && closed && lmo_op_is_close(req->kind)) {
        reply_done(http, req->id);
        r = 1;
    }
    if (r == 0 && closed && info->mutates) {
        r = lmo_fail(err, LMO_E_GONE, "migration '%s' is closed here", req->migration);
    }
    if (r == 0 && info->mutates) {
        r = lmo_worker_check_epoch(w, req->vm, req->epoch, info->role, &raise, err);
    }
    if (r == 0) {
        r = lmo_op_check(w, req, err);
    }
    if (r == 0) {
        r = check_limits(w, req, err);
    }
    if (r != 0) {
        lmo_op_request_done(req);
        free(req);
        return r;
    }
    struct lmo_op *op;
    if (info->mutates && !lmo_op_is_close(req->kind)) {
        r = accept(w, req, raise, &op, err);
        if (r == 0) {
            op->recovered = again;
            wait_for(op, http, wait_ms ? wait_ms : 1); /* never "running" before it is on disk */
        }
        return r < 0 ? r : 1;
    }
    op = op_new(w, req);
    wait_for(op, http, wait_ms ? wait_ms : 1);
    start(op);
    return 1;
}

void lmo_ops_put(struct lmo_worker *w, struct lmo_op_request *req, struct lmo_http_request *http, uint64_t wait_ms)
{
    struct lmo_err err = {0};
    char id[LMO_OP_ID_MAX];
    memcpy(id, req->id, sizeof id);
    if (put(w, req, http, wait_ms, &err) < 0) {
        lmo_log(LMO_LOG_WARN, "op refused", "op=%s code=%s reason=%s", id, lmo_err_name(err.code), err.text);
        lmo_http_reply_error(http, &err);
    }
}

/* "<migration>.<epoch>.<ordinal>-<kind>" */
static bool split_id(const char *id, char migration[LMO_ID_MAX], enum lmo_op_kind *kind)
{
    const char *dot = strchr(id, '.'), *dash = strrchr(id, '-');
    if (!dot || !dash || (size_t)(dot - id) >= LMO_ID_MAX) {
        return false;
    }
    snprintf(migration, LMO_ID_MAX, "%.*s", (int)(dot - id), id);
    *kind = lmo_op_from_text(dash + 1);
    return *kind != LMO_OP_NONE;
}

void lmo_ops_get(struct lmo_worker *w, const char *id, struct lmo_http_request *http, uint64_t wait_ms)
{
    struct lmo_op *op = lmo_ops_find(w, id);
    if (op) {
        wait_for(op, http, wait_ms);
        return;
    }
    struct lmo_journal_op row = {0};
    struct lmo_err err = {0};
    int r = lmo_journal_op(w->journal, id, &row, &err);
    if (r == 0) {
        if (row.state == LMO_OP_RUNNING) {
            reply_running(http, id);
        } else {
            reply_text(http, 200, row.text);
        }
        lmo_journal_op_done(&row);
        return;
    }
    char migration[LMO_ID_MAX];
    enum lmo_op_kind kind;
    bool closed = false;
    if (r == LMO_E_NOT_FOUND && split_id(id, migration, &kind)) {
        r = lmo_journal_closed(w->journal, migration, lmo_op_info(kind)->role, &closed, &err);
        if (r == 0 && closed && lmo_op_is_close(kind)) {
            reply_done(http, id);
            return;
        }
        if (r == 0 && closed) {
            lmo_http_reply_fail(http, LMO_E_GONE, "migration '%s' is closed here; its ops are forgotten", migration);
            return;
        }
    }
    lmo_http_reply_error(http, &err);
}

/* ------------------------------------------------------------------ after a restart */

static int recover(void *arg, const char *id, const char *request)
{
    struct lmo_worker *w = arg;
    struct lmo_err err = {0};
    struct lmo_op_request *req = calloc(1, sizeof *req);
    lmo_assert(req);
    int r = lmo_op_request_decode(request, strlen(request), req, &err);
    if (r < 0) {
        lmo_log(LMO_LOG_ERROR, "journaled op cannot be read", "op=%s reason=%s", id, err.text);
        free(req);
        return r;
    }
    struct lmo_op *op = op_new(w, req);
    op->recovered = true;
    return 0;
}

/* Loads what was running; lmo_ops_restart takes it up once the loop runs. */
int lmo_ops_recover(struct lmo_worker *w, struct lmo_err *err)
{
    int r = lmo_journal_load_ops(w->journal, recover, w, err);
    return r < 0 ? lmo_fail(err, LMO_E_CORRUPT, "the journal holds an order that cannot be read") : 0;
}

void lmo_ops_restart(struct lmo_worker *w)
{
    struct lmo_op *next;
    for (struct lmo_op *op = w->ops; op; op = next) {
        next = op->next; /* a start may end its own op, never another one at once: results wait for the journal */
        if (op->recovered && !op->accepted) {
            lmo_log(LMO_LOG_INFO, "op taken up again", "op=%s kind=%s migration=%s vm=%s", op->req->id, op->info->text,
                    op->req->migration, op->req->vm);
            start(op);
        }
    }
}

void lmo_ops_free(struct lmo_worker *w)
{
    while (w->ops) {
        struct lmo_op *op = w->ops;
        answer_waiters(op, NULL, LMO_E_UNAVAILABLE, "this worker is stopping");
        op_free(op);
    }
}
