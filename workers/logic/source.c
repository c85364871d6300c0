/* source.c - the step function of source.h, one function per received event. */
#include "workers/logic/source.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

#define RETRY_MIN_MS 50
#define RETRY_MAX_MS 2000
#define STUCK_AFTER_MS 10000

static const char *const stage_texts[LMO_SRC_STAGE_COUNT] = {
#define X(name, text) [LMO_SRC_##name] = text,
    LMO_SRC_STAGES(X)
#undef X
};

const char *lmo_src_stage_text(enum lmo_src_stage s)
{
    return stage_texts[s];
}

enum lmo_src_stage lmo_src_stage_from_text(const char *text)
{
    for (int i = 0; i < LMO_SRC_STAGE_COUNT; i++) {
        if (strcmp(stage_texts[i], text) == 0) {
            return (enum lmo_src_stage)i;
        }
    }
    return LMO_SRC_STAGE_COUNT;
}

static struct lmo_worker_event *report(const struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev,
                                       enum lmo_worker_event_kind kind)
{
    struct lmo_worker_event *r = &a->report[a->report_count++];
    *r = (struct lmo_worker_event){.kind = kind, .epoch = s->epoch, .at_us = ev->now_us};
    LMO_COPY(r->migration, s->migration);
    LMO_COPY(r->vm, s->vm);
    LMO_COPY(r->text, ev->text);
    a->persist = true;
    return r;
}

static void move(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev, enum lmo_src_stage stage)
{
    s->stage = stage;
    s->tries = 0;
    s->retry_ms = 0;
    s->since_ms = ev->now_ms;
    s->stuck_told = false;
    a->persist = true;
}

static void back_off(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    int64_t delay = s->tries >= 16 ? RETRY_MAX_MS : (int64_t)RETRY_MIN_MS << s->tries;
    s->tries++;
    s->retry_ms = ev->now_ms + (delay < RETRY_MAX_MS ? delay : RETRY_MAX_MS);
    if (!s->stuck_told && ev->now_ms - s->since_ms >= STUCK_AFTER_MS) {
        s->stuck_told = true;
        struct lmo_worker_event *r = report(s, a, ev, LMO_WEV_STUCK);
        (void)snprintf(r->text, sizeof r->text, "%s the source's copy keeps failing: %s",
                       s->stage == LMO_SRC_KILLING ? "killing" : "reviving", ev->text ? ev->text : "no reason given");
    }
}

static void tell(struct lmo_src_actions *a, enum lmo_freeze_answer answer)
{
    a->answer = true;
    a->told = answer;
}

static void begin_freeze(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    move(s, a, ev, LMO_SRC_FREEZING);
    s->freeze_started_boot_us = ev->now_boot_us;
    s->resumed_seen = false;
    s->freezing = true;
    a->freeze = true;
}

static void on_job_started(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    if (s->stage != LMO_SRC_IDLE) {
        return;
    }
    move(s, a, ev, LMO_SRC_JOB);
    s->epoch = ev->epoch;
    s->job_running = true;
    s->final_paused = ev->final_paused;
}

static void on_suspended(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    bool behind_the_freeze = s->stage == LMO_SRC_FREEZING && s->pause == 0;
    if (s->stage != LMO_SRC_JOB && !behind_the_freeze) {
        return;
    }
    if (!behind_the_freeze) {
        move(s, a, ev, LMO_SRC_SUSPENDED);
    }
    s->pause++;
    a->notify_suspended = true;
    (void)report(s, a, ev, LMO_WEV_SUSPENDED);
}

static void on_resumed(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    switch (s->stage) {
    case LMO_SRC_SUSPENDED:
        move(s, a, ev, LMO_SRC_RAN);
        (void)report(s, a, ev, LMO_WEV_SOURCE_RESUMED);
        break;
    case LMO_SRC_FREEZING:
        s->resumed_seen = true; /* weighed together with the driver's finding */
        break;
    case LMO_SRC_FROZEN:
    case LMO_SRC_GONE:
    case LMO_SRC_KILLING: {
        /* Must not happen: the finding said that it never ran. Nothing can be taken back; a person must know. */
        struct lmo_worker_event *r = report(s, a, ev, LMO_WEV_STUCK);
        LMO_COPY(r->text, "the hypervisor reports that the frozen source resumed");
        break;
    }
    case LMO_SRC_IDLE:
    case LMO_SRC_JOB: /* its owner's doing, during pre-copy */
    case LMO_SRC_RAN:
    case LMO_SRC_KILLED:
    case LMO_SRC_REVIVING:
    case LMO_SRC_REVIVED:
    case LMO_SRC_STAGE_COUNT:
        break;
    }
}

static void killed(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    move(s, a, ev, LMO_SRC_KILLED);
    s->killing = false;
    a->kill_done = true;
    (void)report(s, a, ev, LMO_WEV_SOURCE_GONE);
}

static void on_stopped(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    /* In `suspended` and `freezing` the driver's finding says what the end proves. */
    if (s->stage == LMO_SRC_FROZEN || (s->stage == LMO_SRC_KILLING && !s->killing)) {
        killed(s, a, ev);
    }
}

static void on_job_end(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    if (!s->job_running) {
        return;
    }
    s->job_running = false;
    struct lmo_worker_event *r = report(s, a, ev, LMO_WEV_JOB_END);
    r->ok = ev->ok;
    r->duration_us = ev->duration_us;
}

bool lmo_src_answer_stands(const struct lmo_src *s, enum lmo_freeze_answer *ret)
{
    switch (s->stage) {
    case LMO_SRC_FROZEN: *ret = LMO_FREEZE_FROZEN; return true;
    case LMO_SRC_GONE:
    case LMO_SRC_KILLING:
    case LMO_SRC_KILLED: *ret = LMO_FREEZE_GONE; return true;
    case LMO_SRC_RAN: *ret = LMO_FREEZE_RUNNING; return true;
    case LMO_SRC_IDLE:
    case LMO_SRC_JOB:
    case LMO_SRC_SUSPENDED:
    case LMO_SRC_FREEZING:
    case LMO_SRC_REVIVING:
    case LMO_SRC_REVIVED:
    case LMO_SRC_STAGE_COUNT: break;
    }
    return false;
}

static void on_freeze(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    if (ev->epoch < s->epoch) {
        a->refused = LMO_E_STALE_EPOCH;
        return;
    }
    enum lmo_freeze_answer answer;
    if (lmo_src_answer_stands(s, &answer)) {
        tell(a, answer);
        return;
    }
    switch (s->stage) {
    case LMO_SRC_JOB: /* the event of the pause may be behind the request: the driver looks for itself */
    case LMO_SRC_SUSPENDED:
        begin_freeze(s, a, ev);
        s->freeze_epoch = ev->epoch;
        break;
    case LMO_SRC_FREEZING:
        if (!s->freezing) {
            begin_freeze(s, a, ev);
        }
        break; /* under way: its result answers everybody who waits */
    case LMO_SRC_FROZEN:
    case LMO_SRC_GONE:
    case LMO_SRC_KILLING:
    case LMO_SRC_KILLED:
    case LMO_SRC_RAN:
    case LMO_SRC_IDLE:
    case LMO_SRC_REVIVING:
    case LMO_SRC_REVIVED:
    case LMO_SRC_STAGE_COUNT: a->refused = LMO_E_CONFLICT; break;
    }
}

static bool lives(enum lmo_run_state state)
{
    return state == LMO_RUN_RUNNING || state == LMO_RUN_PAUSED_BY_USER || state == LMO_RUN_PAUSED_MIGRATION ||
           state == LMO_RUN_PAUSED_OTHER;
}

static void on_freeze_result(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    s->freezing = false;
    if (s->stage != LMO_SRC_FREEZING) {
        return;
    }
    enum lmo_freeze_answer answer = ev->answer;
    LMO_COPY(s->evidence, ev->text);
    s->freeze_us = ev->now_boot_us - s->freeze_started_boot_us;
    if (s->resumed_seen && answer != LMO_FREEZE_RUNNING) {
        /* A resume was reported while the driver looked. Whatever it found, the safe reading is that it ran. */
        a->revive = answer == LMO_FREEZE_FROZEN;
        answer = LMO_FREEZE_RUNNING;
        LMO_COPY(s->evidence, "a resume was reported while the process was being stopped");
    }
    if (answer == LMO_FREEZE_UNKNOWN && !s->job_running && lives(ev->state)) {
        answer = LMO_FREEZE_RUNNING; /* S7 */
        (void)snprintf(s->evidence, sizeof s->evidence, "the job is over and the hypervisor kept the guest here (%s); %s",
                       lmo_run_state_name(ev->state), ev->text ? ev->text : "");
    }
    switch (answer) {
    case LMO_FREEZE_FROZEN:
        move(s, a, ev, LMO_SRC_FROZEN);
        s->frozen_us = ev->now_us;
        break;
    case LMO_FREEZE_GONE: move(s, a, ev, LMO_SRC_GONE); break;
    case LMO_FREEZE_RUNNING:
        move(s, a, ev, LMO_SRC_RAN);
        (void)report(s, a, ev, LMO_WEV_SOURCE_RESUMED);
        break;
    case LMO_FREEZE_UNKNOWN: /* back to where it was asked: a pause that was not seen yet is still to come */
        move(s, a, ev, s->pause > 0 ? LMO_SRC_SUSPENDED : LMO_SRC_JOB);
        break;
    }
    tell(a, answer);
}

static void on_kill(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    switch (s->stage) {
    case LMO_SRC_FROZEN:
    case LMO_SRC_GONE:
        move(s, a, ev, LMO_SRC_KILLING);
        s->killing = true;
        a->kill = true;
        break;
    case LMO_SRC_KILLING: break;
    case LMO_SRC_KILLED: a->kill_done = true; break;
    case LMO_SRC_IDLE:
    case LMO_SRC_JOB:
    case LMO_SRC_SUSPENDED:
    case LMO_SRC_FREEZING:
    case LMO_SRC_RAN:
    case LMO_SRC_REVIVING:
    case LMO_SRC_REVIVED:
    case LMO_SRC_STAGE_COUNT: a->refused = LMO_E_CONFLICT; break;
    }
}

static void on_kill_failed(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    s->killing = false;
    if (s->stage == LMO_SRC_KILLING) {
        back_off(s, a, ev);
    }
}

static void on_revive(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    switch (s->stage) {
    case LMO_SRC_FROZEN:
        if (ev->epoch <= s->freeze_epoch) {
            a->refused = LMO_E_STALE_EPOCH; /* S3 */
            return;
        }
        break;
    case LMO_SRC_IDLE:
    case LMO_SRC_JOB:
    case LMO_SRC_SUSPENDED:
    case LMO_SRC_RAN: break;
    case LMO_SRC_FREEZING: a->refused = LMO_E_BUSY; return;
    case LMO_SRC_REVIVING: return;
    case LMO_SRC_REVIVED: a->revive_done = true; return;
    case LMO_SRC_GONE:
    case LMO_SRC_KILLING:
    case LMO_SRC_KILLED:
    case LMO_SRC_STAGE_COUNT: a->refused = LMO_E_CONFLICT; return;
    }
    move(s, a, ev, LMO_SRC_REVIVING);
    s->reviving = true;
    a->revive = true;
}

/* After a start of the worker nothing is under way. A journaled finding stands: the stopped process stayed stopped. */
static void on_restarted(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    s->freezing = s->killing = s->reviving = false;
    s->tries = 0;
    s->retry_ms = 0;
    s->since_ms = ev->now_ms;
    switch (s->stage) {
    case LMO_SRC_SUSPENDED:
        if (ev->state == LMO_RUN_RUNNING) {
            on_resumed(s, a, ev);
        }
        break;
    case LMO_SRC_FREEZING: begin_freeze(s, a, ev); break;
    case LMO_SRC_KILLING:
        s->killing = true;
        a->kill = true;
        break;
    case LMO_SRC_REVIVING:
        s->reviving = true;
        a->revive = true;
        break;
    case LMO_SRC_IDLE:
    case LMO_SRC_JOB:
    case LMO_SRC_FROZEN:
    case LMO_SRC_GONE:
    case LMO_SRC_RAN:
    case LMO_SRC_KILLED:
    case LMO_SRC_REVIVED:
    case LMO_SRC_STAGE_COUNT: break;
    }
}

static void on_timer(struct lmo_src *s, struct lmo_src_actions *a, const struct lmo_src_event *ev)
{
    if (s->retry_ms == 0 || ev->now_ms < s->retry_ms) {
        return;
    }
    s->retry_ms = 0;
    if (s->stage == LMO_SRC_KILLING && !s->killing) {
        s->killing = true;
        a->kill = true;
    } else if (s->stage == LMO_SRC_REVIVING && !s->reviving) {
        s->reviving = true;
        a->revive = true;
    }
}

void lmo_src_step(const struct lmo_src *current, const struct lmo_src_event *ev, struct lmo_src *next,
                  struct lmo_src_actions *out)
{
    *next = *current;
    *out = (struct lmo_src_actions){0};
    switch (ev->kind) {
    case LMO_SRCE_JOB_STARTED: on_job_started(next, out, ev); break;
    case LMO_SRCE_SUSPENDED: on_suspended(next, out, ev); break;
    case LMO_SRCE_RESUMED: on_resumed(next, out, ev); break;
    case LMO_SRCE_STOPPED: on_stopped(next, out, ev); break;
    case LMO_SRCE_JOB_END: on_job_end(next, out, ev); break;
    case LMO_SRCE_GATE_OPENED:
        if (!next->gate_open) {
            next->gate_open = true;
            out->persist = true;
        }
        break;
    case LMO_SRCE_FREEZE: on_freeze(next, out, ev); break;
    case LMO_SRCE_FREEZE_RESULT: on_freeze_result(next, out, ev); break;
    case LMO_SRCE_KILL: on_kill(next, out, ev); break;
    case LMO_SRCE_KILL_OK:
        if (next->stage == LMO_SRC_KILLING) {
            killed(next, out, ev);
        }
        break;
    case LMO_SRCE_KILL_FAILED: on_kill_failed(next, out, ev); break;
    case LMO_SRCE_REVIVE: on_revive(next, out, ev); break;
    case LMO_SRCE_REVIVE_OK:
        next->reviving = false;
        if (next->stage == LMO_SRC_REVIVING) {
            move(next, out, ev, LMO_SRC_REVIVED);
            out->revive_done = true;
        }
        break;
    case LMO_SRCE_REVIVE_FAILED:
        next->reviving = false;
        if (next->stage == LMO_SRC_REVIVING) {
            back_off(next, out, ev);
        }
        break;
    case LMO_SRCE_RESTARTED: on_restarted(next, out, ev); break;
    case LMO_SRCE_TIMER: on_timer(next, out, ev); break;
    case LMO_SRCE_COUNT: break;
    }
    out->wake_ms = next->retry_ms;
}

const char *lmo_src_broken(const struct lmo_src *before, const struct lmo_src *after, const struct lmo_src_actions *a)
{
    if (a->freeze && (after->stage != LMO_SRC_FREEZING || !a->persist)) {
        return "S1: stops the process without a durable intent";
    }
    if (a->answer && a->told == LMO_FREEZE_FROZEN && after->stage != LMO_SRC_FROZEN) {
        return "S2: tells `frozen` without the finding";
    }
    if (a->answer && a->told == LMO_FREEZE_GONE && after->stage != LMO_SRC_GONE && after->stage != LMO_SRC_KILLING &&
        after->stage != LMO_SRC_KILLED) {
        return "S2: tells `gone` without the finding";
    }
    if (before->stage == LMO_SRC_FROZEN && after->stage != LMO_SRC_FROZEN && after->stage != LMO_SRC_KILLING &&
        after->stage != LMO_SRC_KILLED && after->stage != LMO_SRC_REVIVING) {
        return "S3: leaves frozen by another way than kill or revive";
    }
    if (before->stage == LMO_SRC_RAN && after->stage != LMO_SRC_RAN && after->stage != LMO_SRC_REVIVING) {
        return "S4: forgets that the source ran on";
    }
    if (a->kill && after->stage != LMO_SRC_KILLING) {
        return "S6: kills a source that is neither frozen nor gone";
    }
    if (before->stage != after->stage && !a->persist) {
        return "a stage changed without being persisted";
    }
    return NULL;
}
