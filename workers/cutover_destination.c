/* cutover_destination.c - carries out what the destination's machine decides (logic/destination.h).
 *
 * Order within one step, kept by feed(): open the ingress and ask the source at once (both change nothing that would
 * have to be durable); journal the new state with its reports; and only when that is on disk: fence, verify, resume,
 * tell, remove. An effect that needs no write waits behind writes that are already queued, so nothing overtakes the
 * journal.
 *
 * Calls come back by migration: the record may be gone by then. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAKE_FLOOR_MS  10 /* a wake-up that is due already does not become a busy loop */
#define OBSERVE_MIN_MS 100
#define OBSERVE_MAX_MS 2000

static void feed_kind(struct lmo_incoming *in, enum lmo_dst_event_kind kind, unsigned index, const char *text)
{
    struct lmo_dst_event ev = {.kind = kind, .index = index, .text = text};
    lmo_incoming_feed(in, &ev, NULL);
}

/* ------------------------------------------------------------------ driver calls */

enum what { DO_PREPARE_PORT, DO_RESUME, DO_REMOVE, DO_STATE };

struct dst_call {
    struct lmo_call call;
    enum what what;
    char migration[LMO_ID_MAX];
    char vm[LMO_UUID_MAX];
    bool flag;            /* RESUME: the guest stays paused. REMOVE: a loaded copy, too */
    struct lmo_port port; /* PREPARE_PORT */
    int code;
    enum lmo_run_state state;
    uint64_t realtime_us;
    uint64_t started_ns, ended_ns;
    struct lmo_err err;
};

static int do_resume(struct lmo_hypervisor *hv, struct dst_call *c)
{
    if (!c->flag) {
        return hv->ops->resume(hv, c->vm, LMO_RESUME_TIMEOUT_MS, &c->err);
    }
    enum lmo_run_state state = LMO_RUN_UNKNOWN;
    int r = hv->ops->state(hv, c->vm, &state, LMO_STATE_TIMEOUT_MS, &c->err);
    if (r == 0 && state != LMO_RUN_LOADED && state != LMO_RUN_PAUSED_BY_USER) {
        r = lmo_fail(&c->err, LMO_E_REFUSED, "the guest should stay paused here, but is %s", lmo_run_state_name(state));
    }
    return r;
}

static int do_remove(struct lmo_hypervisor *hv, struct dst_call *c)
{
    int r = c->flag ? hv->ops->remove(hv, c->vm, true, LMO_REMOVE_TIMEOUT_MS, &c->err) : 0;
    if (r == 0) {
        r = hv->ops->discard_prepared(hv, c->vm, LMO_REMOVE_TIMEOUT_MS, &c->err);
    }
    if (r == 0 &&
        !c->flag) { /* a copy that died once it was complete leaves its definition; an active one is refused */
        r = hv->ops->remove(hv, c->vm, false, LMO_REMOVE_TIMEOUT_MS, &c->err);
    }
    if (r < 0 && hv->ops->state(hv, c->vm, &c->state, LMO_STATE_TIMEOUT_MS, NULL) < 0) {
        c->state = LMO_RUN_UNKNOWN;
    }
    return r;
}

static void work(struct lmo_call *call)
{
    struct dst_call *c = (struct dst_call *)call;
    struct lmo_worker *w = call->w;
    struct lmo_hypervisor *hv = w->drv.hypervisor;
    c->started_ns = lmo_now_ns();
    switch (c->what) {
    case DO_PREPARE_PORT:
        c->code = w->drv.network->ops->await_installed(w->drv.network, &c->port, LMO_PORT_TIMEOUT_MS, &c->err);
        break;
    case DO_RESUME: c->code = do_resume(hv, c); break;
    case DO_REMOVE: c->code = do_remove(hv, c); break;
    case DO_STATE: c->code = hv->ops->state(hv, c->vm, &c->state, LMO_STATE_TIMEOUT_MS, &c->err); break;
    }
    c->realtime_us = lmo_realtime_us();
    c->ended_ns = lmo_now_ns();
}

static void observed(struct lmo_incoming *in, const struct dst_call *c);

static void call_done(struct lmo_call *call, bool ran)
{
    struct dst_call *c = (struct dst_call *)call;
    struct lmo_incoming *in = ran ? lmo_incoming_find(call->w, c->migration) : NULL;
    if (!in) {
        free(c);
        return;
    }
    struct lmo_dst_event ev = {.text = c->err.text, .state = c->state, .now_us = (int64_t)c->realtime_us};
    switch (c->what) {
    case DO_PREPARE_PORT:
        lmo_log(c->code ? LMO_LOG_WARN : LMO_LOG_INFO, "port prepared again", "migration=%s port=%s code=%s reason=%s",
                c->migration, c->port.id, lmo_err_name(c->code), c->err.text);
        break;
    case DO_RESUME:
        if (c->code < 0) {
            lmo_log(LMO_LOG_ERROR, "guest cannot be resumed", "migration=%s vm=%s code=%s reason=%s", c->migration,
                    c->vm, lmo_err_name(c->code), c->err.text);
        }
        ev.kind = c->code == 0 ? LMO_DSTE_RESUME_OK : LMO_DSTE_RESUME_FAILED;
        lmo_incoming_feed(in, &ev, NULL);
        break;
    case DO_REMOVE:
        if (c->code < 0) {
            lmo_log(LMO_LOG_WARN, "copy cannot be removed", "migration=%s vm=%s state=%s code=%s reason=%s",
                    c->migration, c->vm, lmo_run_state_name(c->state), lmo_err_name(c->code), c->err.text);
        }
        ev.kind = c->code == 0 ? LMO_DSTE_REMOVE_OK : LMO_DSTE_REMOVE_FAILED;
        lmo_incoming_feed(in, &ev, NULL);
        break;
    case DO_STATE: observed(in, c); break;
    }
    free(c);
}

static void submit(struct lmo_incoming *in, enum what what, bool flag, const struct lmo_port *port)
{
    struct dst_call *c = calloc(1, sizeof *c);
    lmo_assert(c);
    c->call = (struct lmo_call){.work = work, .done = call_done, .fast = what != DO_PREPARE_PORT};
    c->what = what;
    c->flag = flag;
    if (port) {
        c->port = *port;
    }
    memcpy(c->migration, in->dst.migration, sizeof c->migration);
    memcpy(c->vm, in->dst.vm, sizeof c->vm);
    if (what == DO_RESUME || what == DO_REMOVE) {
        lmo_call_lane(&c->call, "hypervisor", c->vm);
    }
    lmo_call_submit(in->w, &c->call);
}

/* Here and now, not on a pool's thread: the driver does not wait, and every hand-over between threads on the way is
 * frames lost. All ports first, then the log. */
static void activate(struct lmo_incoming *in)
{
    struct lmo_network *net = in->w->drv.network;
    if (!in->more || !net) {
        return;
    }
    const struct lmo_op_request *q = &in->more->setup;
    struct {
        struct lmo_err err;
        uint64_t us;
    } done[LMO_PORTS_MAX];
    memset(done, 0, sizeof done);
    for (unsigned i = 0; i < q->port_count; i++) {
        uint64_t started_ns = lmo_now_ns();
        done[i].err.code = net->ops->activate(net, &q->ports[i], &done[i].err);
        done[i].us = (lmo_now_ns() - started_ns) / 1000;
    }
    for (unsigned i = 0; i < q->port_count; i++) {
        lmo_log(done[i].err.code ? LMO_LOG_WARN : LMO_LOG_INFO, "ingress opened early",
                "migration=%s port=%s code=%s us=%llu reason=%s", in->dst.migration, q->ports[i].id,
                lmo_err_name(done[i].err.code), (unsigned long long)done[i].us, done[i].err.text);
    }
}

/* After a restart the driver holds nothing for the ports: what activate needs is opened again, off everybody's path. */
static void prepare_ports(struct lmo_incoming *in)
{
    if (!in->more || !in->w->drv.network || in->dst.stage != LMO_DST_ARMED) {
        return;
    }
    for (unsigned i = 0; i < in->more->setup.port_count; i++) {
        submit(in, DO_PREPARE_PORT, false, &in->more->setup.ports[i]);
    }
}

/* ------------------------------------------------------------------ one step */

struct effects {
    struct lmo_worker *w;
    char migration[LMO_ID_MAX];
    bool clear; /* the copy is gone, and not by our removal: what was made for it goes, too */
    struct lmo_dst_actions a;
};

static void run_effects(struct lmo_incoming *in, const struct lmo_dst_actions *a)
{
    for (unsigned i = 0; i < LMO_VOLUMES_MAX; i++) {
        if (a->fence & (UINT32_C(1) << i)) {
            lmo_incoming_ask_fence(in, i);
        }
    }
    for (unsigned i = 0; i < LMO_VOLUMES_MAX; i++) {
        if (a->verify & (UINT32_C(1) << i)) {
            lmo_incoming_ask_verify(in, i);
        }
    }
    if (a->resume) {
        submit(in, DO_RESUME, in->dst.final_paused, NULL);
    }
    if (a->tell) {
        lmo_incoming_ask_kill(in);
    }
    if (a->remove) {
        submit(in, DO_REMOVE, a->remove_loaded, NULL);
    }
}

static void persisted(void *arg, int result)
{
    struct effects *e = arg;
    struct lmo_incoming *in = result == 0 ? lmo_incoming_find(e->w, e->migration) : NULL;
    if (in) {
        LMO_FAULT(DESTINATION_DURABLE, lmo_dst_stage_text(in->dst.stage));
        run_effects(in, &e->a);
        if (e->clear) {
            submit(in, DO_REMOVE, false, NULL);
        }
    }
    free(e);
}

static void wake(void *arg)
{
    struct lmo_incoming *in = arg;
    in->wake_timer = 0;
    feed_kind(in, LMO_DSTE_TIMER, 0, NULL);
}

static void set_wake(struct lmo_incoming *in, int64_t wake_ms)
{
    struct lmo_loop *loop = in->w->loop;
    lmo_loop_cancel(loop, &in->wake_timer);
    if (wake_ms > 0) {
        uint64_t now = lmo_now_ms(), due = (uint64_t)wake_ms;
        if (due < now + WAKE_FLOOR_MS) {
            due = now + WAKE_FLOOR_MS;
        }
        lmo_assert(lmo_loop_timer_at(loop, due * LMO_NS_PER_MS, wake, in, &in->wake_timer) == 0);
    }
}

/* Times of the way through, for one line at the end of it. */
static void note(struct lmo_incoming *in, const struct lmo_dst *before)
{
    uint64_t now = lmo_now_ns();
    const struct lmo_dst *d = &in->dst;
    if (d->stage == before->stage) {
        return;
    }
    lmo_log(d->stage == LMO_DST_LOST ? LMO_LOG_ERROR : LMO_LOG_INFO, "destination stage",
            "migration=%s vm=%s epoch=%llu stage=%s was=%s answer=%s", d->migration, d->vm,
            (unsigned long long)d->epoch, lmo_dst_stage_text(d->stage), lmo_dst_stage_text(before->stage),
            lmo_freeze_answer_name(d->answer));
    if (d->stage == LMO_DST_ASKING) {
        in->asked_ns = now;
    } else if (d->stage == LMO_DST_COMMITTED) {
        in->answered_ns = now;
    } else if (d->stage == LMO_DST_FENCED) {
        in->fenced_ns = now;
    } else if (d->stage == LMO_DST_RESUMED && in->loaded_ns) {
        lmo_log(LMO_LOG_INFO, "cutover times",
                "migration=%s loaded_to_asked_us=%llu asked_to_answered_us=%llu "
                "answered_to_fenced_us=%llu fenced_to_resumed_us=%llu loaded_to_resumed_us=%llu",
                d->migration, (unsigned long long)(in->asked_ns - in->loaded_ns) / 1000,
                (unsigned long long)(in->answered_ns - in->asked_ns) / 1000,
                (unsigned long long)(in->fenced_ns - in->answered_ns) / 1000,
                (unsigned long long)(now - in->fenced_ns) / 1000, (unsigned long long)(now - in->loaded_ns) / 1000);
    }
}

void lmo_incoming_feed(struct lmo_incoming *in, struct lmo_dst_event *ev, struct lmo_dst_actions *ret_actions)
{
    struct lmo_worker *w = in->w;
    uint64_t now_ns = lmo_now_ns();
    ev->now_ms = ev->now_ms ? ev->now_ms : (int64_t)(now_ns / LMO_NS_PER_MS);
    ev->now_boot_us = ev->now_boot_us ? ev->now_boot_us : now_ns / 1000;
    ev->now_us = ev->now_us ? ev->now_us : (int64_t)lmo_realtime_us();

    struct lmo_dst before = in->dst;
    struct lmo_dst_actions a;
    lmo_dst_step(&before, ev, &in->dst, &a);
    const char *broken = lmo_dst_broken(&before, &in->dst, &a);
    if (broken) {
        lmo_log(LMO_LOG_ERROR, "destination machine broke an invariant", "migration=%s event=%d invariant=%s",
                in->dst.migration, (int)ev->kind, broken);
    }
    lmo_assert(broken == NULL);

    if (!lmo_journal_dead(w->journal)) {
        if (a.activate) {
            activate(in);
        }
        if (a.ask) {
            lmo_incoming_ask_freeze(in);
        }
    }
    note(in, &before);
    LMO_FAULT(DESTINATION_STEP, lmo_dst_stage_text(in->dst.stage));

    bool effects = a.fence || a.verify || a.resume || a.tell || a.remove;
    if (a.persist || a.report_count || effects) {
        struct lmo_batch *b = lmo_batch_new();
        if (a.persist || a.report_count) {
            lmo_batch_dst(b, &in->dst);
        }
        for (unsigned i = 0; i < a.report_count; i++) {
            lmo_batch_event(b, &a.report[i]);
        }
        struct effects *e = calloc(1, sizeof *e);
        lmo_assert(e);
        *e = (struct effects){.w = w, .a = a};
        e->clear = in->dst.stage == LMO_DST_DISCARDED && before.stage != LMO_DST_DISCARDED && !before.removing;
        memcpy(e->migration, in->dst.migration, sizeof e->migration);
        lmo_journal_submit(w->journal, b, false, persisted, e);
    }
    set_wake(in, a.wake_ms);
    lmo_ops_incoming_moved(in, &a);
    if (ret_actions) {
        *ret_actions = a;
    }
}

/* ------------------------------------------------------------------ what the hypervisor says */

static bool defer(struct lmo_incoming *in, const struct lmo_hv_event *ev)
{
    if (in->observed) {
        return false;
    }
    if (in->deferred_count < LMO_DEFERRED_MAX) { /* beyond: the observation that is under way sees it, too */
        struct lmo_deferred *d = calloc(1, sizeof *d), **last = &in->deferred;
        lmo_assert(d);
        d->ev = *ev;
        while (*last) {
            last = &(*last)->next;
        }
        *last = d;
        in->deferred_count++;
    }
    return true;
}

void lmo_incoming_hv_event(struct lmo_incoming *in, const struct lmo_hv_event *ev)
{
    if (defer(in, ev)) {
        return;
    }
    struct lmo_dst_event e = {.now_us = (int64_t)ev->realtime_us, .text = ev->reason};
    switch (ev->kind) {
    case LMO_HV_EV_LOADED:
        in->loaded_ns = ev->monotonic_ns;
        e.kind = LMO_DSTE_LOADED;
        e.now_boot_us = ev->monotonic_ns / 1000;
        break;
    case LMO_HV_EV_STOPPED: e.kind = LMO_DSTE_COPY_GONE; break;
    case LMO_HV_EV_RESUMED: /* earlier than the call that asked for it returns */
        if (in->dst.stage != LMO_DST_FENCED || !in->dst.resuming) {
            return;
        }
        e.kind = LMO_DSTE_RESUME_OK;
        break;
    case LMO_HV_EV_PAUSED_OTHER:
        /* A driver that was started in the middle of the incoming migration cannot tell its end from a person's pause.
         * What the hypervisor shows now can: a guest that is incoming no more is loaded. */
        if ((in->dst.stage == LMO_DST_IDLE || in->dst.stage == LMO_DST_ARMED) && !in->dst.loaded) {
            in->observed = false;
            lmo_incoming_observe(in);
        }
        return;
    case LMO_HV_EV_NONE:
    case LMO_HV_EV_INCOMING:
    case LMO_HV_EV_SUSPENDED:
    case LMO_HV_EV_ITERATION:
    case LMO_HV_EV_WATCH_BROKEN:
    case LMO_HV_EV_WATCH_RESTORED: return;
    }
    lmo_incoming_feed(in, &e, NULL);
}

static void replay(struct lmo_incoming *in)
{
    struct lmo_deferred *d = in->deferred;
    in->deferred = NULL;
    in->deferred_count = 0;
    while (d) {
        struct lmo_deferred *next = d->next;
        lmo_incoming_hv_event(in, &d->ev);
        free(d);
        d = next;
    }
}

static void observe_due(void *arg)
{
    struct lmo_incoming *in = arg;
    in->observe_timer = 0;
    lmo_incoming_observe(in);
}

void lmo_incoming_answer(struct lmo_incoming *in, struct lmo_dst_event *ev)
{
    struct lmo_hypervisor *hv = in->w->drv.hypervisor;
    if (ev->answer == LMO_FREEZE_FROZEN && in->dst.stage == LMO_DST_ASKING && hv &&
        hv->ops->copy_ended(hv, in->dst.vm)) {
        lmo_log(LMO_LOG_WARN, "the copy has ended with the source's word in hand", "migration=%s vm=%s",
                in->dst.migration, in->dst.vm);
        struct lmo_dst_event gone = {.kind = LMO_DSTE_COPY_GONE, .text = "the copy's process has ended"};
        lmo_incoming_feed(in, &gone, NULL);
        return;
    }
    /* A frozen source can still be revived, a committed move cannot be taken back: the word is asked for again, and acted
     * upon once the daemon that has to run the copy is there and has not ended it. */
    if (ev->answer == LMO_FREEZE_FROZEN && in->dst.stage == LMO_DST_ASKING && hv && !hv->ops->reachable(hv)) {
        lmo_log(LMO_LOG_WARN, "the source's word is not acted upon while the hypervisor here does not answer",
                "migration=%s vm=%s", in->dst.migration, in->dst.vm);
        struct lmo_dst_event later = {.kind = LMO_DSTE_NO_ANSWER, .text = "the hypervisor does not answer"};
        lmo_incoming_feed(in, &later, NULL);
        return;
    }
    lmo_incoming_feed(in, ev, NULL);
}

void lmo_incoming_observe(struct lmo_incoming *in)
{
    lmo_loop_cancel(in->w->loop, &in->observe_timer);
    if (in->observing || !in->w->drv.hypervisor) {
        return;
    }
    in->observing = true;
    submit(in, DO_STATE, false, NULL);
}

static void observed(struct lmo_incoming *in, const struct dst_call *c)
{
    in->observing = false;
    if (c->code < 0 || c->state == LMO_RUN_UNKNOWN) {
        uint64_t delay = in->observe_tries > 4 ? OBSERVE_MAX_MS : (uint64_t)OBSERVE_MIN_MS << in->observe_tries;
        in->observe_tries++;
        lmo_log(in->observe_tries == 1 ? LMO_LOG_WARN : LMO_LOG_DEBUG, "hypervisor cannot be asked; again later",
                "migration=%s vm=%s code=%s reason=%s", in->dst.migration, in->dst.vm, lmo_err_name(c->code),
                c->err.text);
        lmo_assert(lmo_loop_timer(in->w->loop, delay, observe_due, in, &in->observe_timer) == 0);
        return;
    }
    in->observe_tries = 0;
    lmo_log(LMO_LOG_INFO, "guest observed", "migration=%s vm=%s role=destination stage=%s state=%s", in->dst.migration,
            in->dst.vm, lmo_dst_stage_text(in->dst.stage), lmo_run_state_name(c->state));
    bool first = !in->observed; /* not after an interruption of the events: to prepare a port forgets it first */
    in->observed = true;
    struct lmo_dst_event ev = {.kind = LMO_DSTE_RESTARTED, .state = c->state};
    lmo_incoming_feed(in, &ev, NULL);
    if (first) {
        prepare_ports(in);
    }
    replay(in);
}
