/* cutover_peers.c - what a destination asks of the source's worker and of the volumes' workers during its cutover,
 * and the connections that it keeps open for that.
 *
 * Every answer, also none, becomes an event of the machine; the record is found again by migration. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void feed_kind(struct lmo_incoming *in, enum lmo_dst_event_kind kind, unsigned index, const char *text)
{
    struct lmo_dst_event ev = {.kind = kind, .index = index, .text = text};
    lmo_incoming_feed(in, &ev, NULL);
}

struct ask {
    struct lmo_worker *w;
    char migration[LMO_ID_MAX];
    unsigned index;
    uint64_t started_ns;
};

static struct ask *ask_new(struct lmo_incoming *in, unsigned index)
{
    struct ask *a = calloc(1, sizeof *a);
    lmo_assert(a);
    *a = (struct ask){.w = in->w, .index = index, .started_ns = lmo_now_ns()};
    memcpy(a->migration, in->dst.migration, sizeof a->migration);
    return a;
}

/* NULL: the record is gone, or the worker is ending. Copies and frees `arg`. */
static struct lmo_incoming *ask_end(void *arg, int code, struct ask *ret)
{
    *ret = *(struct ask *)arg;
    free(arg);
    return code == LMO_E_CANCELLED ? NULL : lmo_incoming_find(ret->w, ret->migration);
}

static void log_peer(const struct ask *a, const char *what, int code, const char *text)
{
    lmo_log(code ? LMO_LOG_WARN : LMO_LOG_DEBUG, "peer answered",
            "migration=%s call=%s index=%u code=%s us=%llu reason=%s", a->migration, what, a->index, lmo_err_name(code),
            (unsigned long long)(lmo_now_ns() - a->started_ns) / 1000, text);
}

static void freeze_answered(void *arg, int code, const char *text, const struct lmo_peer_reply *reply)
{
    struct ask a;
    struct lmo_incoming *in = ask_end(arg, code, &a);
    if (!in) {
        return;
    }
    log_peer(&a, "freeze", code, code ? text : reply->answer);
    struct lmo_dst_event ev = {.kind = LMO_DSTE_NO_ANSWER, .text = text};
    if (code == 0) {
        ev = (struct lmo_dst_event){.kind = LMO_DSTE_ANSWER,
                                    .answer = lmo_freeze_answer_from_name(reply->answer),
                                    .text = reply->evidence,
                                    .frozen_us = reply->frozen_us,
                                    .duration_us = reply->duration_us};
        lmo_incoming_answer(in, &ev);
        return;
    }
    lmo_incoming_feed(in, &ev, NULL);
}

static void fence_answered(void *arg, int code, const char *text, const struct lmo_peer_reply *reply)
{
    (void)reply;
    struct ask a;
    struct lmo_incoming *in = ask_end(arg, code, &a);
    if (in) {
        log_peer(&a, "fence", code, text);
        feed_kind(in, code == 0 ? LMO_DSTE_FENCE_OK : LMO_DSTE_FENCE_FAILED, a.index, text);
    }
}

static void verify_answered(void *arg, int code, const char *text, const struct lmo_peer_reply *reply)
{
    struct ask a;
    struct lmo_incoming *in = ask_end(arg, code, &a);
    if (!in) {
        return;
    }
    log_peer(&a, "verify", code, text);
    struct lmo_dst_event ev = {.kind = code == 0 ? LMO_DSTE_VERIFY_OK : LMO_DSTE_VERIFY_FAILED,
                               .index = a.index,
                               .text = text,
                               .duration_us = code == 0 ? reply->duration_us : 0};
    lmo_incoming_feed(in, &ev, NULL);
}

static void kill_answered(void *arg, int code, const char *text, const struct lmo_peer_reply *reply)
{
    (void)reply;
    struct ask a;
    struct lmo_incoming *in = ask_end(arg, code, &a);
    if (in) {
        log_peer(&a, "kill", code, text);
        /* Closed there: the coordinator has seen to the source's copy. */
        bool ok = code == 0 || code == LMO_E_GONE;
        feed_kind(in, ok ? LMO_DSTE_TELL_OK : LMO_DSTE_TELL_FAILED, 0, text);
    }
}

static void ask_source(struct lmo_incoming *in, const char *what, uint64_t timeout_ms, lmo_peer_fn *fn)
{
    /* A worker that cannot write its journal could do nothing with the answer: it must not stop the source for that. */
    const struct lmo_record *m = lmo_journal_healthy(in->w->journal, NULL) ? in->more : NULL;
    lmo_peer_call(in->w, m ? m->setup.source_url : "", m ? m->permit.source : "", what, m ? m->permit_text : NULL, 0, 0,
                  timeout_ms, fn, ask_new(in, 0));
}

/* The order that carried the permit says how each volume's worker is reached. */
static const struct lmo_volume *volume_of(const struct lmo_op_request *setup, const struct lmo_permit_volume *v)
{
    for (unsigned i = 0; i < setup->volume_count; i++) {
        const struct lmo_volume *s = &setup->volumes[i];
        if (strcmp(s->volume, v->volume) == 0 && strcmp(s->service, v->service) == 0) {
            return s;
        }
    }
    return NULL;
}

static void ask_volume(struct lmo_incoming *in, unsigned index, const char *what, lmo_peer_fn *fn)
{
    const struct lmo_record *m = in->more;
    const struct lmo_permit_volume *v = m && index < m->permit.volume_count ? &m->permit.volumes[index] : NULL;
    const struct lmo_volume *known = v ? volume_of(&m->setup, v) : NULL;
    lmo_peer_call(in->w, known ? known->worker_url : "", v ? v->worker : "", what, m ? m->permit_text : NULL, index, 0,
                  LMO_PEER_FENCE_TIMEOUT_MS, fn, ask_new(in, index));
}

unsigned lmo_incoming_peers(const struct lmo_permit *permit, const struct lmo_op_request *setup,
                            struct lmo_peer peers[LMO_PEERS_MAX])
{
    unsigned count = 1;
    peers[0] = (struct lmo_peer){.connections = 1};
    snprintf(peers[0].name, sizeof peers[0].name, "%s", permit->source);
    snprintf(peers[0].url, sizeof peers[0].url, "%s", setup->source_url);
    for (unsigned i = 0; i < permit->volume_count; i++) {
        const struct lmo_volume *v = volume_of(setup, &permit->volumes[i]);
        const char *url = v ? v->worker_url : "";
        unsigned at = 1;
        while (at < count &&
               (strcmp(peers[at].name, permit->volumes[i].worker) != 0 || strcmp(peers[at].url, url) != 0)) {
            at++;
        }
        if (at == count) {
            peers[count] = (struct lmo_peer){0};
            snprintf(peers[count].name, sizeof peers[count].name, "%s", permit->volumes[i].worker);
            snprintf(peers[count].url, sizeof peers[count].url, "%s", url);
            count++;
        }
        peers[at].connections++; /* volumes are fenced in parallel, one connection each */
    }
    return count;
}

static void warm_due(void *arg)
{
    struct lmo_incoming *in = arg;
    in->warm_timer = 0;
    lmo_incoming_warm(in);
}

void lmo_incoming_warm(struct lmo_incoming *in)
{
    struct lmo_worker *w = in->w;
    lmo_loop_cancel(w->loop, &in->warm_timer);
    if (!in->more || !in->more->permit_text || lmo_incoming_over(in)) {
        return;
    }
    struct lmo_peer peers[LMO_PEERS_MAX];
    unsigned count = lmo_incoming_peers(&in->more->permit, &in->more->setup, peers);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned n = 0; n < peers[i].connections; n++) {
            lmo_peer_ping(w, &peers[i], i == 0 ? in->more->permit_text : NULL, NULL, NULL);
        }
    }
    (void)!lmo_loop_timer(w->loop, LMO_WARM_EVERY_MS, warm_due, in, &in->warm_timer);
}

void lmo_incoming_ask_freeze(struct lmo_incoming *in)
{
    ask_source(in, "freeze", LMO_ASK_TIMEOUT_MS, freeze_answered);
}

void lmo_incoming_ask_kill(struct lmo_incoming *in)
{
    ask_source(in, "kill", LMO_PEER_KILL_TIMEOUT_MS, kill_answered);
}

void lmo_incoming_ask_fence(struct lmo_incoming *in, unsigned index)
{
    ask_volume(in, index, "fence", fence_answered);
}

void lmo_incoming_ask_verify(struct lmo_incoming *in, unsigned index)
{
    ask_volume(in, index, "verify", verify_answered);
}
