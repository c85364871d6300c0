/* cutover_source.c - carries out what the source's machine decides (logic/source.h).
 *
 * Order within one step, kept by feed(): tell the destination of the pause at once (it has an undo); journal the new
 * state with its reports; and only when that is on disk: stop the process, answer whoever asked, kill, revive.
 *
 * A record takes what the hypervisor says only once it has been observed after a start, and not while JOB_START is
 * inside the driver: until then it is held back, in order. Requests of peers are refused with 503 so long; they ask
 * again. But a freeze whose answer stands in the journal is answered from it at once. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAKE_FLOOR_MS  10
#define OBSERVE_MIN_MS 100
#define OBSERVE_MAX_MS 2000

/* ------------------------------------------------------------------ driver calls */

enum what { DO_FREEZE, DO_KILL, DO_REVIVE, DO_STATE, DO_ADOPT };

struct src_call {
    struct lmo_call call;
    enum what what;
    char migration[LMO_ID_MAX];
    char vm[LMO_UUID_MAX];
    bool paused;           /* REVIVE: its owner had paused it */
    bool frozen;           /* REVIVE: we had stopped it */
    bool job_over;         /* FREEZE: before it began */
    struct lmo_hv_job job; /* ADOPT */
    struct lmo_freeze_result freeze;
    int code;
    enum lmo_run_state state;
    struct lmo_err err;
    uint64_t started_ns, ended_ns;
};

static int do_revive(struct lmo_hypervisor *hv, struct src_call *c)
{
    int r = hv->ops->thaw(hv, c->vm, LMO_REVIVE_TIMEOUT_MS, &c->err);
    if (r < 0 && r != LMO_E_NOT_FOUND) {
        return r;
    }
    int thawed = r;
    r = hv->ops->state(hv, c->vm, &c->state, LMO_STATE_TIMEOUT_MS, thawed < 0 ? NULL : &c->err);
    if (thawed < 0 && r == 0 && !c->frozen && (c->state == LMO_RUN_ABSENT || c->state == LMO_RUN_SHUT_OFF)) {
        /* It ended by itself or by its owner's will while it was still the guest here: there is nothing to continue,
         * and to ask for ever would keep the roll-back from ending. One that we had stopped is another matter. */
        lmo_log(LMO_LOG_WARN, "guest has ended at the source meanwhile", "migration=%s vm=%s state=%s", c->migration,
                c->vm, lmo_run_state_name(c->state));
        return 0;
    }
    if (thawed < 0 || r < 0 || c->state == LMO_RUN_RUNNING || c->state == LMO_RUN_PAUSED_BY_USER) {
        return thawed < 0 ? thawed : r; /* paused by its owner, perhaps during pre-copy: it stays so */
    }
    if (c->state == LMO_RUN_ABSENT || c->state == LMO_RUN_SHUT_OFF) {
        return lmo_fail(&c->err, LMO_E_REFUSED, "the guest's process has ended (%s)", lmo_run_state_name(c->state));
    }
    if (c->paused) {
        return 0;
    }
    return hv->ops->resume(hv, c->vm, LMO_RESUME_TIMEOUT_MS, &c->err);
}

static void work(struct lmo_call *call)
{
    struct src_call *c = (struct src_call *)call;
    struct lmo_worker *w = call->w;
    struct lmo_hypervisor *hv = w->drv.hypervisor;
    c->started_ns = lmo_now_ns();
    switch (c->what) {
    case DO_FREEZE:
        hv->ops->freeze(hv, c->vm, LMO_FREEZE_TIMEOUT_MS, &c->freeze);
        if (c->freeze.answer == LMO_FREEZE_UNKNOWN && c->job_over &&
            hv->ops->state(hv, c->vm, &c->state, LMO_STATE_TIMEOUT_MS, NULL) < 0) {
            c->state = LMO_RUN_UNKNOWN;
        }
        break;
    case DO_KILL: c->code = hv->ops->kill(hv, c->vm, LMO_KILL_TIMEOUT_MS, &c->err); break;
    case DO_REVIVE: c->code = do_revive(hv, c); break;
    case DO_STATE: c->code = hv->ops->state(hv, c->vm, &c->state, LMO_STATE_TIMEOUT_MS, &c->err); break;
    case DO_ADOPT: c->code = hv->ops->job_adopt(hv, &c->job, lmo_worker_on_job_end, w, &c->err); break;
    }
    c->ended_ns = lmo_now_ns();
}

static void observed(struct lmo_outgoing *out, const struct src_call *c);
static void adopted(struct lmo_outgoing *out, const struct src_call *c);

static void log_call(const struct src_call *c, const char *what)
{
    lmo_log(c->code ? LMO_LOG_WARN : LMO_LOG_INFO, "source call",
            "migration=%s vm=%s call=%s code=%s us=%llu reason=%s", c->migration, c->vm, what, lmo_err_name(c->code),
            (unsigned long long)(c->ended_ns - c->started_ns) / 1000, c->err.text);
}

static void call_done(struct lmo_call *call, bool ran)
{
    struct src_call *c = (struct src_call *)call;
    struct lmo_outgoing *out = ran ? lmo_outgoing_find(call->w, c->migration) : NULL;
    if (!out) {
        free(c);
        return;
    }
    struct lmo_src_event ev = {.text = c->err.text};
    switch (c->what) {
    case DO_FREEZE:
        lmo_log(LMO_LOG_INFO, "freeze answered", "migration=%s vm=%s answer=%s us=%llu evidence=%s", c->migration,
                c->vm, lmo_freeze_answer_name(c->freeze.answer),
                (unsigned long long)(c->ended_ns - c->started_ns) / 1000, c->freeze.evidence);
        ev.kind = LMO_SRCE_FREEZE_RESULT;
        ev.answer = c->freeze.answer;
        ev.state = c->state;
        ev.text = c->freeze.evidence;
        break;
    case DO_KILL:
        log_call(c, "kill");
        ev.kind = c->code == 0 ? LMO_SRCE_KILL_OK : LMO_SRCE_KILL_FAILED;
        break;
    case DO_REVIVE:
        log_call(c, "revive");
        ev.kind = c->code == 0 ? LMO_SRCE_REVIVE_OK : LMO_SRCE_REVIVE_FAILED;
        break;
    case DO_STATE:
        observed(out, c);
        free(c);
        return;
    case DO_ADOPT:
        adopted(out, c);
        free(c);
        return;
    }
    lmo_outgoing_feed(out, &ev, NULL);
    free(c);
}

static void submit(struct lmo_outgoing *out, enum what what)
{
    struct src_call *c = calloc(1, sizeof *c);
    lmo_assert(c);
    c->call = (struct lmo_call){.work = work, .done = call_done, .fast = true};
    c->what = what;
    c->paused = out->src.final_paused || out->revive_paused;
    c->frozen = out->src.frozen_us != 0;
    c->job_over = !out->src.job_running;
    memcpy(c->migration, out->src.migration, sizeof c->migration);
    memcpy(c->vm, out->src.vm, sizeof c->vm);
    if (what == DO_ADOPT) {
        lmo_job_describe(out, &c->job);
        lmo_call_lane(&c->call, "job", c->vm);
    } else if (what != DO_STATE) {
        lmo_call_lane(&c->call, "hypervisor", c->vm);
    }
    lmo_call_submit(out->w, &c->call);
}

/* ------------------------------------------------------------------ whoever asked */

static void reply_peer(struct lmo_http_request *http, const struct lmo_peer_reply *reply)
{
    char *text = NULL;
    struct lmo_err err = {0};
    if (lmo_peer_reply_encode(reply, &text, &err) < 0) {
        lmo_http_reply_error(http, &err);
        return;
    }
    lmo_http_reply(http, 200, "application/json", text, strlen(text));
    free(text);
}

/* Answers those who wait for a freeze (or a kill). */
static void answer_askers(struct lmo_outgoing *out, bool kill, const struct lmo_peer_reply *reply)
{
    for (struct lmo_asker **at = &out->askers; *at;) {
        struct lmo_asker *a = *at;
        if (a->kill != kill) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        out->asker_count--;
        reply_peer(a->http, reply);
        free(a);
    }
}

bool lmo_outgoing_ready(const struct lmo_outgoing *out, bool freeze)
{
    enum lmo_freeze_answer answer;
    return !out->starting && (out->observed || (freeze && lmo_src_answer_stands(&out->src, &answer)));
}

void lmo_outgoing_ask(struct lmo_outgoing *out, struct lmo_http_request *http, bool kill, uint64_t epoch)
{
    if (!lmo_outgoing_ready(out, !kill)) {
        lmo_http_reply_fail(http, LMO_E_UNAVAILABLE,
                            "this worker is still finding out how the guest stands; ask again");
        return;
    }
    if (out->asker_count >= LMO_ASKERS_MAX) {
        lmo_http_reply_fail(http, LMO_E_BUSY, "%u requests wait for this already", out->asker_count);
        return;
    }
    struct lmo_asker *a = calloc(1, sizeof *a);
    lmo_assert(a);
    *a = (struct lmo_asker){.next = out->askers, .http = http, .kill = kill};
    out->askers = a;
    out->asker_count++;
    struct lmo_src_event ev = {.kind = kill ? LMO_SRCE_KILL : LMO_SRCE_FREEZE, .epoch = epoch};
    struct lmo_src_actions actions;
    lmo_outgoing_feed(out, &ev, &actions);
    if (actions.refused < 0) {
        out->askers = a->next; /* nothing else can have answered it: answers wait for the journal */
        out->asker_count--;
        free(a);
        lmo_http_reply_fail(http, actions.refused, "the source stands at '%s' under epoch %llu",
                            lmo_src_stage_text(out->src.stage), (unsigned long long)out->src.epoch);
    }
}

/* ------------------------------------------------------------------ the early word to the destination */

struct told {
    char migration[LMO_ID_MAX];
    uint64_t started_ns;
};

static void suspended_told(void *arg, int code, const char *text, const struct lmo_peer_reply *reply)
{
    (void)reply;
    struct told *t = arg;
    if (code != LMO_E_CANCELLED) {
        lmo_log(code ? LMO_LOG_WARN : LMO_LOG_INFO, "destination told of the pause",
                "migration=%s code=%s us=%llu reason=%s", t->migration, lmo_err_name(code),
                (unsigned long long)(lmo_now_ns() - t->started_ns) / 1000, text);
    }
    free(t);
}

static void tell_suspended(struct lmo_outgoing *out)
{
    const struct lmo_record *m = out->more;
    if (!m || !m->permit_text) {
        lmo_log(LMO_LOG_WARN, "no permit here: the destination cannot be told of the pause", "migration=%s",
                out->src.migration);
        return;
    }
    struct told *t = calloc(1, sizeof *t);
    lmo_assert(t);
    memcpy(t->migration, out->src.migration, sizeof t->migration);
    t->started_ns = lmo_now_ns();
    lmo_peer_call(out->w, m->setup.destination_url, m->permit.destination, "suspended", m->permit_text, 0,
                  out->src.pause, LMO_SUSPENDED_TIMEOUT_MS, suspended_told, t);
    lmo_http_client_hurry(out->w->client); /* journal and log can wait, the guest's frames cannot */
}

/* ------------------------------------------------------------------ one step */

struct effects {
    struct lmo_worker *w;
    char migration[LMO_ID_MAX];
    struct lmo_src_actions a;
    struct lmo_peer_reply reply;
};

static void persisted(void *arg, int result)
{
    struct effects *e = arg;
    struct lmo_outgoing *out = result == 0 ? lmo_outgoing_find(e->w, e->migration) : NULL;
    if (out) {
        LMO_FAULT(SOURCE_DURABLE, lmo_src_stage_text(out->src.stage));
        if (e->a.answer) {
            answer_askers(out, false, &e->reply);
        }
        if (e->a.kill_done) {
            answer_askers(out, true, &(struct lmo_peer_reply){0});
        }
        if (e->a.freeze) {
            submit(out, DO_FREEZE);
        }
        if (e->a.kill) {
            submit(out, DO_KILL);
        }
        if (e->a.revive) {
            submit(out, DO_REVIVE);
        }
    }
    free(e);
}

static void wake(void *arg)
{
    struct lmo_outgoing *out = arg;
    out->wake_timer = 0;
    struct lmo_src_event ev = {.kind = LMO_SRCE_TIMER};
    lmo_outgoing_feed(out, &ev, NULL);
}

static void set_wake(struct lmo_outgoing *out, int64_t wake_ms)
{
    struct lmo_loop *loop = out->w->loop;
    lmo_loop_cancel(loop, &out->wake_timer);
    if (wake_ms > 0) {
        uint64_t now = lmo_now_ms(), due = (uint64_t)wake_ms;
        if (due < now + WAKE_FLOOR_MS) {
            due = now + WAKE_FLOOR_MS;
        }
        lmo_assert(lmo_loop_timer_at(loop, due * LMO_NS_PER_MS, wake, out, &out->wake_timer) == 0);
    }
}

static void journal_step(struct lmo_outgoing *out, const struct lmo_src_actions *a)
{
    LMO_FAULT(SOURCE_STEP, lmo_src_stage_text(out->src.stage));
    struct lmo_batch *b = lmo_batch_new();
    if (a->persist || a->report_count) {
        lmo_batch_src(b, &out->src);
    }
    for (unsigned i = 0; i < a->report_count; i++) {
        lmo_batch_event(b, &a->report[i]);
    }
    struct effects *e = calloc(1, sizeof *e);
    lmo_assert(e);
    *e = (struct effects){.w = out->w, .a = *a};
    memcpy(e->migration, out->src.migration, sizeof e->migration);
    if (a->answer) {
        snprintf(e->reply.answer, sizeof e->reply.answer, "%s", lmo_freeze_answer_name(a->told));
        memcpy(e->reply.evidence, out->src.evidence, sizeof e->reply.evidence);
        e->reply.frozen_us = out->src.frozen_us;
        e->reply.duration_us = out->src.freeze_us;
    }
    lmo_journal_submit(out->w->journal, b, false, persisted, e);
}

void lmo_outgoing_feed(struct lmo_outgoing *out, struct lmo_src_event *ev, struct lmo_src_actions *ret_actions)
{
    struct lmo_worker *w = out->w;
    uint64_t now_ns = lmo_now_ns();
    ev->now_ms = ev->now_ms ? ev->now_ms : (int64_t)(now_ns / LMO_NS_PER_MS);
    ev->now_boot_us = ev->now_boot_us ? ev->now_boot_us : now_ns / 1000;
    ev->now_us = ev->now_us ? ev->now_us : (int64_t)lmo_realtime_us();

    struct lmo_src before = out->src;
    struct lmo_src_actions a;
    lmo_src_step(&before, ev, &out->src, &a);
    const char *broken = lmo_src_broken(&before, &out->src, &a);
    if (broken) {
        lmo_log(LMO_LOG_ERROR, "source machine broke an invariant", "migration=%s event=%d invariant=%s",
                out->src.migration, (int)ev->kind, broken);
    }
    lmo_assert(broken == NULL);

    if (a.notify_suspended && !lmo_journal_dead(w->journal)) {
        tell_suspended(out);
    }
    if (before.stage != out->src.stage || before.job_running != out->src.job_running) {
        lmo_log(LMO_LOG_INFO, "source stage", "migration=%s vm=%s epoch=%llu stage=%s was=%s job_running=%d",
                out->src.migration, out->src.vm, (unsigned long long)out->src.epoch, lmo_src_stage_text(out->src.stage),
                lmo_src_stage_text(before.stage), out->src.job_running);
    }
    if (a.persist || a.report_count || a.freeze || a.answer || a.kill || a.revive || a.kill_done) {
        journal_step(out, &a);
    }
    set_wake(out, a.wake_ms);
    if (out->src.stage == LMO_SRC_JOB && out->src.job_running) {
        lmo_job_watch(out);
    } else {
        lmo_job_unwatch(out);
    }
    lmo_ops_outgoing_moved(out, &a);
    if (ret_actions) {
        *ret_actions = a;
    }
}

/* ------------------------------------------------------------------ what the hypervisor says */

static void defer(struct lmo_outgoing *out, const struct lmo_deferred *what)
{
    /* Beyond the bound only the end of a job is kept: anything else is seen by the observation that follows. */
    if (out->deferred_count >= LMO_DEFERRED_MAX && !what->job_end) {
        return;
    }
    struct lmo_deferred *d = calloc(1, sizeof *d), **last = &out->deferred;
    lmo_assert(d);
    *d = *what;
    d->next = NULL;
    while (*last) {
        last = &(*last)->next;
    }
    *last = d;
    out->deferred_count++;
}

void lmo_outgoing_hv_event(struct lmo_outgoing *out, const struct lmo_hv_event *ev)
{
    if (!out->observed || out->starting) {
        defer(out, &(struct lmo_deferred){.ev = *ev});
        return;
    }
    struct lmo_src_event e = {.now_us = (int64_t)ev->realtime_us, .text = ev->reason};
    switch (ev->kind) {
    case LMO_HV_EV_SUSPENDED: e.kind = LMO_SRCE_SUSPENDED; break;
    case LMO_HV_EV_RESUMED: e.kind = LMO_SRCE_RESUMED; break;
    case LMO_HV_EV_STOPPED: e.kind = LMO_SRCE_STOPPED; break;
    case LMO_HV_EV_ITERATION: lmo_job_iteration(out, ev->value); return;
    case LMO_HV_EV_NONE:
    case LMO_HV_EV_INCOMING:
    case LMO_HV_EV_LOADED:
    case LMO_HV_EV_PAUSED_OTHER:
    case LMO_HV_EV_WATCH_BROKEN:
    case LMO_HV_EV_WATCH_RESTORED: return;
    }
    lmo_outgoing_feed(out, &e, NULL);
}

void lmo_outgoing_job_end(struct lmo_outgoing *out, const struct lmo_hv_job_end *end)
{
    if (!out->observed || out->starting) {
        defer(out, &(struct lmo_deferred){.job_end = true, .end = *end});
        return;
    }
    lmo_log(LMO_LOG_INFO, "job ended", "migration=%s vm=%s ok=%d call_ms=%llu reason=%s", out->src.migration,
            out->src.vm, end->call_succeeded, (unsigned long long)end->call_ms, end->text);
    out->aborting = false;
    struct lmo_src_event ev = {.kind = LMO_SRCE_JOB_END,
                               .ok = end->call_succeeded,
                               .text = end->text,
                               .duration_us = end->call_ms * 1000};
    lmo_outgoing_feed(out, &ev, NULL);
}

void lmo_outgoing_replay(struct lmo_outgoing *out)
{
    struct lmo_deferred *d = out->deferred;
    out->deferred = NULL;
    out->deferred_count = 0;
    while (d) {
        struct lmo_deferred *next = d->next;
        if (d->job_end) {
            lmo_outgoing_job_end(out, &d->end);
        } else {
            lmo_outgoing_hv_event(out, &d->ev);
        }
        free(d);
        d = next;
    }
}

static void observe_due(void *arg)
{
    struct lmo_outgoing *out = arg;
    out->observe_timer = 0;
    lmo_outgoing_observe(out);
}

static void observe_later(struct lmo_outgoing *out, const struct src_call *c)
{
    uint64_t delay = out->observe_tries > 4 ? OBSERVE_MAX_MS : (uint64_t)OBSERVE_MIN_MS << out->observe_tries;
    out->observe_tries++;
    lmo_log(out->observe_tries == 1 ? LMO_LOG_WARN : LMO_LOG_DEBUG, "hypervisor cannot be asked; again later",
            "migration=%s vm=%s code=%s reason=%s", out->src.migration, out->src.vm, lmo_err_name(c->code),
            c->err.text);
    lmo_assert(lmo_loop_timer(out->w->loop, delay, observe_due, out, &out->observe_timer) == 0);
}

void lmo_outgoing_observe(struct lmo_outgoing *out)
{
    lmo_loop_cancel(out->w->loop, &out->observe_timer);
    if (out->observing || !out->w->drv.hypervisor) {
        return;
    }
    out->observing = true;
    submit(out, DO_STATE);
}

/* Still `observing` until a job that this process did not start has been taken over, too. */
static void observed(struct lmo_outgoing *out, const struct src_call *c)
{
    out->observing = false;
    if (c->code < 0 || c->state == LMO_RUN_UNKNOWN) {
        observe_later(out, c);
        return;
    }
    lmo_log(LMO_LOG_INFO, "guest observed", "migration=%s vm=%s role=source stage=%s state=%s", out->src.migration,
            out->src.vm, lmo_src_stage_text(out->src.stage), lmo_run_state_name(c->state));
    bool first = !out->observed;
    out->observed = true;
    /* Observed anew in the middle of a life (the hypervisor's events had been interrupted): a call that is under way
     * still answers. A second freeze behind the first could continue what the first one proved frozen. */
    if (first || !(out->src.freezing || out->src.killing || out->src.reviving)) {
        struct lmo_src_event ev = {.kind = LMO_SRCE_RESTARTED, .state = c->state};
        lmo_outgoing_feed(out, &ev, NULL);
    }
    if ((first || out->unadopted) && out->src.job_running && out->more) {
        out->unadopted = true;
        out->observing = true;
        submit(out, DO_ADOPT);
    } else {
        out->observe_tries = 0;
    }
    lmo_outgoing_replay(out);
}

static void adopted(struct lmo_outgoing *out, const struct src_call *c)
{
    out->observing = false;
    if (c->code == 0) {
        lmo_log(LMO_LOG_INFO, "job taken over", "migration=%s vm=%s", c->migration, c->vm);
    } else if (c->code == LMO_E_NOT_FOUND) {
        struct lmo_hv_job_end end = {.call_succeeded = false};
        snprintf(end.text, sizeof end.text, "the job ended while this worker was not there to see how");
        lmo_outgoing_job_end(out, &end);
    } else {
        observe_later(out, c);
        return;
    }
    out->unadopted = false;
    out->observe_tries = 0;
}
