/* server_peer.c - what other workers may ask of this one, at the cutover and before it.
 *
 * Checked on the listener's thread: the permit's signature is the coordinator's; the permit names the caller's host,
 * by its certificate, and this host, in the roles that the call needs. Checked on the loop: the permit's epoch is not
 * below what was seen for that guest, and the migration is not closed here. A call without a permit may only say
 * hello. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FREEZE_REPLY_MS 8000
#define KILL_REPLY_MS   20000

enum word { PING, SUSPENDED, FREEZE, FENCE, VERIFY, KILL, WORD_COUNT };
static const char *const words[WORD_COUNT] = {"ping", "suspended", "freeze", "fence", "verify", "kill"};

struct peer_job {
    struct lmo_worker *w;
    struct lmo_http_request *http;
    enum word word;
    struct lmo_peer_request request;
    bool has_permit;
    struct lmo_permit permit;
    uint64_t begun_ns;
};

static void job_free(struct peer_job *j)
{
    lmo_peer_request_done(&j->request);
    free(j);
}

static void reply_empty(struct lmo_http_request *http)
{
    lmo_http_reply(http, 200, "application/json", "{}", 2);
}

/* ------------------------------------------------------------------ fence and verify */

struct volume_call {
    struct lmo_call call;
    struct peer_job *job; /* owned */
    int code;
    uint64_t us;
    struct lmo_err err;
};

static void volume_work(struct lmo_call *call)
{
    struct volume_call *c = (struct volume_call *)call;
    struct lmo_volume_driver *d = call->w->drv.volume;
    const struct lmo_permit_volume *v = &c->job->permit.volumes[c->job->request.index];
    uint64_t started = lmo_now_ns();
    c->code = c->job->word == FENCE ? d->ops->fence(d, v->volume, v->export_source, LMO_FENCE_TIMEOUT_MS, &c->err)
                                    : d->ops->verify(d, v->volume, v->export_source, v->export_destination,
                                                     LMO_FENCE_TIMEOUT_MS, &c->err);
    c->us = (lmo_now_ns() - started) / 1000;
}

static void volume_done(struct lmo_call *call, bool ran)
{
    struct volume_call *c = (struct volume_call *)call;
    struct peer_job *j = c->job;
    if (!ran) {
        lmo_http_reply_fail(j->http, LMO_E_UNAVAILABLE, "this worker is stopping");
    } else {
        const struct lmo_permit_volume *v = &j->permit.volumes[j->request.index];
        lmo_log(c->code ? LMO_LOG_ERROR : LMO_LOG_INFO, j->word == FENCE ? "volume fence" : "volume verify",
                "migration=%s volume=%s export=%s code=%s us=%llu reason=%s", j->permit.migration, v->volume,
                v->export_source, lmo_err_name(c->code), (unsigned long long)c->us, c->err.text);
        char *text = NULL;
        struct lmo_peer_reply reply = {.duration_us = c->us};
        if (c->code < 0 || lmo_peer_reply_encode(&reply, &text, &c->err) < 0) {
            lmo_http_reply_error(j->http, &c->err);
        } else {
            lmo_http_reply(j->http, 200, "application/json", text, strlen(text));
        }
        free(text);
    }
    job_free(j);
    free(c);
}

/* Takes j. */
static void volume(struct peer_job *j)
{
    struct volume_call *c = calloc(1, sizeof *c);
    lmo_assert(c);
    c->call = (struct lmo_call){.work = volume_work, .done = volume_done, .fast = true};
    c->job = j;
    lmo_call_lane(&c->call, "volume", j->permit.volumes[j->request.index].volume);
    lmo_call_submit(j->w, &c->call);
}

/* ------------------------------------------------------------------ the rest, on the loop */

static void suspended(struct peer_job *j)
{
    struct lmo_incoming *in = lmo_incoming_find(j->w, j->permit.migration);
    if (!in) {
        lmo_http_reply_fail(j->http, LMO_E_NOT_FOUND, "migration '%s' is not known here", j->permit.migration);
        return;
    }
    uint64_t taken_ns = lmo_now_ns();
    struct lmo_dst_event ev = {.kind = LMO_DSTE_SUSPENDED};
    lmo_incoming_feed(in, &ev, NULL);
    reply_empty(j->http);
    lmo_log(LMO_LOG_INFO, "source's guest stands still", "migration=%s check_us=%llu act_us=%llu", j->permit.migration,
            (unsigned long long)(taken_ns - j->begun_ns) / 1000, (unsigned long long)(lmo_now_ns() - taken_ns) / 1000);
}

static void freeze_or_kill(struct peer_job *j)
{
    struct lmo_outgoing *out = lmo_outgoing_find(j->w, j->permit.migration);
    if (!out || strcmp(out->src.vm, j->permit.vm_uuid) != 0) {
        /* Not "gone", not "running": nothing is known. The asker goes on asking, and the coordinator is told. */
        lmo_http_reply_fail(j->http, LMO_E_NOT_FOUND, "migration '%s' of guest '%s' is not known here",
                            j->permit.migration, j->permit.vm_uuid);
        return;
    }
    lmo_outgoing_ask(out, j->http, j->word == KILL, j->permit.epoch);
}

/* The destination's hello carries the permit, so that this source can tell it of the pause. */
static void ping(struct peer_job *j)
{
    struct lmo_worker *w = j->w;
    if (j->has_permit && strcmp(j->permit.source, w->cfg.facts.host) == 0) {
        struct lmo_outgoing *out = lmo_outgoing_find(w, j->permit.migration);
        if (!out) {
            lmo_permit_cache_put(w, j->permit.migration, j->request.permit);
        } else if (out->more && !out->more->permit_text) {
            out->more->permit_text = strdup(j->request.permit);
            lmo_assert(out->more->permit_text);
            out->more->permit = j->permit;
            struct lmo_batch *b = lmo_batch_new();
            lmo_batch_setup(b, out->src.migration, LMO_OP_ROLE_SOURCE, NULL, j->request.permit);
            lmo_journal_submit(w->journal, b, false, NULL, NULL);
        }
    }
    reply_empty(j->http);
}

static enum lmo_op_role role_of(enum word word)
{
    switch (word) {
    case SUSPENDED: return LMO_OP_ROLE_DESTINATION;
    case FREEZE:
    case KILL: return LMO_OP_ROLE_SOURCE;
    case FENCE:
    case VERIFY: return LMO_OP_ROLE_VOLUME;
    case PING:
    case WORD_COUNT: break;
    }
    return LMO_OP_ROLE_NONE;
}

/* Takes j; the epoch has been adopted. */
static void act(struct peer_job *j)
{
    switch (j->word) {
    case PING: ping(j); break;
    case SUSPENDED: suspended(j); break;
    case FREEZE:
    case KILL: freeze_or_kill(j); break;
    case FENCE:
    case VERIFY: volume(j); return;
    case WORD_COUNT: break;
    }
    job_free(j);
}

static void adopted(void *arg, int result)
{
    struct peer_job *j = arg;
    if (result < 0) {
        lmo_http_reply_fail(j->http, result == LMO_E_CANCELLED ? LMO_E_UNAVAILABLE : result,
                            "the journal cannot be written");
        job_free(j);
        return;
    }
    act(j);
}

static void run(void *arg)
{
    struct peer_job *j = arg;
    struct lmo_worker *w = j->w;
    struct lmo_err err = {0};
    if (w->stopping || lmo_journal_dead(w->journal)) {
        lmo_http_reply_fail(j->http, LMO_E_UNAVAILABLE, "this worker is stopping");
        job_free(j);
        return;
    }
    bool raise = false;
    if (j->word != PING &&
        lmo_worker_check_epoch(w, j->permit.vm_uuid, j->permit.epoch, role_of(j->word), &raise, &err) < 0) {
        lmo_log(LMO_LOG_WARN, "peer refused", "call=%s migration=%s vm=%s epoch=%llu reason=%s", words[j->word],
                j->permit.migration, j->permit.vm_uuid, (unsigned long long)j->permit.epoch, err.text);
        lmo_http_reply_error(j->http, &err);
        job_free(j);
        return;
    }
    if (!raise) {
        act(j);
        return;
    }
    struct lmo_batch *b = lmo_batch_new();
    lmo_worker_adopt_epoch(w, b, j->permit.vm_uuid, j->permit.epoch);
    lmo_journal_submit(w->journal, b, true, adopted, j);
}

/* ------------------------------------------------------------------ on the listener's thread */

static bool names(const char *a, const char *b)
{
    return a[0] != '\0' && strcmp(a, b) == 0;
}

/* Does the permit name caller and receiver in the roles that the call needs? */
static int authorise(const struct peer_job *j, const char *caller, struct lmo_err *err)
{
    const struct lmo_permit *p = &j->permit;
    const char *here = j->w->cfg.facts.host;
    unsigned index = j->request.index;
    bool from_destination = names(p->destination, caller);
    bool ok = false;
    switch (j->word) {
    case PING: ok = from_destination || names(p->source, caller); break;
    case SUSPENDED: ok = names(p->source, caller) && names(p->destination, here); break;
    case FREEZE:
    case KILL: ok = from_destination && names(p->source, here); break;
    case FENCE:
    case VERIFY:
        if (index >= p->volume_count) {
            return lmo_fail(err, LMO_E_INVALID, "index: the permit has %u volumes", p->volume_count);
        }
        ok = from_destination && names(p->volumes[index].worker, here);
        break;
    case WORD_COUNT: break;
    }
    return ok ? 0
              : lmo_fail(err, LMO_E_FORBIDDEN,
                         "the permit does not let '%s' ask '%s' for %s (source '%s', destination '%s')", caller, here,
                         words[j->word], p->source, p->destination);
}

static int check(struct peer_job *j, const char *caller, struct lmo_err *err)
{
    size_t len;
    const char *body = lmo_http_body(j->http, &len);
    int r = lmo_peer_request_decode(body, len, &j->request, err);
    if (r < 0) {
        return r;
    }
    j->has_permit = j->request.permit && j->request.permit[0];
    if (!j->has_permit) {
        return j->word == PING ? 0 : lmo_fail(err, LMO_E_FORBIDDEN, "permit: is missing");
    }
    r = lmo_worker_verify_permit(j->w, j->request.permit, &j->permit, err);
    if (r < 0) {
        return r;
    }
    if ((j->word == FENCE || j->word == VERIFY) && !j->w->drv.volume) {
        return lmo_fail(err, LMO_E_UNSUPPORTED, "this worker serves no volumes");
    }
    if ((j->word == FREEZE || j->word == KILL || j->word == SUSPENDED) && !j->w->drv.hypervisor) {
        return lmo_fail(err, LMO_E_UNSUPPORTED, "this worker has no hypervisor");
    }
    return authorise(j, caller, err);
}

void lmo_server_peer(struct lmo_worker *w, struct lmo_http_request *http, const char *what)
{
    int word = PING;
    while (word < WORD_COUNT && strcmp(words[word], what) != 0) {
        word++;
    }
    if (word == WORD_COUNT) {
        lmo_http_reply_fail(http, LMO_E_NOT_FOUND, "no such call");
        return;
    }
    struct peer_job *j = calloc(1, sizeof *j);
    if (!j) {
        lmo_http_reply_fail(http, LMO_E_NO_MEMORY, "no memory for the request");
        return;
    }
    *j = (struct peer_job){.w = w, .http = http, .word = (enum word)word, .begun_ns = lmo_now_ns()};
    const char *caller = lmo_http_peer(http)->name;
    struct lmo_err err = {0};
    if (check(j, caller, &err) < 0) {
        lmo_log(LMO_LOG_WARN, "peer refused", "call=%s peer=%s code=%s reason=%s", what, caller, lmo_err_name(err.code),
                err.text);
        lmo_http_reply_error(http, &err);
        job_free(j);
        return;
    }
    lmo_http_set_timeout(http, word == KILL ? KILL_REPLY_MS : FREEZE_REPLY_MS);
    if (!lmo_worker_post(w, run, j)) {
        lmo_http_reply_fail(http, LMO_E_BUSY, "too many requests wait already; try again");
        job_free(j);
    }
}
