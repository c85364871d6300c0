/* destination.c - the step function of destination.h, one function per received event. */
#include "workers/logic/destination.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

static const char *const stage_texts[LMO_DST_STAGE_COUNT] = {
#define X(name, text) [LMO_DST_##name] = text,
    LMO_DST_STAGES(X)
#undef X
};

const char *lmo_dst_stage_text(enum lmo_dst_stage s)
{
    return stage_texts[s];
}

enum lmo_dst_stage lmo_dst_stage_from_text(const char *text)
{
    for (int i = 0; i < LMO_DST_STAGE_COUNT; i++) {
        if (strcmp(stage_texts[i], text) == 0) {
            return (enum lmo_dst_stage)i;
        }
    }
    return LMO_DST_STAGE_COUNT;
}

static uint32_t all_volumes(const struct lmo_dst *d)
{
    return d->volume_count == 0 ? 0 : (UINT32_C(1) << d->volume_count) - 1;
}

/* A durable worker event that will be journaled together with the state. */
static struct lmo_worker_event *report(const struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev,
                                       enum lmo_worker_event_kind kind)
{
    struct lmo_worker_event *r = &a->report[a->report_count++];
    *r = (struct lmo_worker_event){.kind = kind, .epoch = d->epoch, .at_us = ev->now_us};
    LMO_COPY(r->migration, d->migration);
    LMO_COPY(r->vm, d->vm);
    a->persist = true;
    return r;
}

static void move(struct lmo_dst *d, struct lmo_dst_actions *a, enum lmo_dst_stage stage)
{
    d->stage = stage;
    d->tries = 0;
    d->retry_ms = 0;
    d->stuck_told = false;
    a->persist = true;
}

/* Doubles from `min` to `max`; the caller has just failed once more. */
static void back_off(struct lmo_dst *d, const struct lmo_dst_event *ev, int64_t min, int64_t max)
{
    int64_t delay = d->tries >= 16 ? max : min << d->tries;
    d->tries++;
    d->retry_ms = ev->now_ms + (delay < max ? delay : max);
}

static void ask(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    d->asking = true;
    d->asked_ms = ev->now_ms;
    d->retry_ms = 0;
    a->ask = true;
}

/* The guest is loaded and a permit is here: the cutover begins. */
static void begin_asking(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    move(d, a, LMO_DST_ASKING);
    d->loaded_ms = ev->now_ms;
    d->relay_asked = false;
    if (!d->activated) {
        d->activated = true;
        a->activate = true;
    }
    ask(d, a, ev);
}

static void fence_missing(struct lmo_dst *d, struct lmo_dst_actions *a)
{
    a->fence = all_volumes(d) & ~d->fenced & ~d->fencing;
    d->fencing |= a->fence;
    a->verify = d->fenced & ~d->verified & ~d->verifying;
    d->verifying |= a->verify;
}

static void try_resume(struct lmo_dst *d, struct lmo_dst_actions *a)
{
    if (d->stage == LMO_DST_FENCED && d->verified == all_volumes(d) && !d->resuming) {
        d->resuming = true;
        a->resume = true;
    }
}

/* Every volume is fenced and verified: journal that, then resume. */
static void become_fenced(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    move(d, a, LMO_DST_FENCED);
    d->fenced_boot_us = ev->now_boot_us;
    struct lmo_worker_event *r = report(d, a, ev, LMO_WEV_FENCED);
    r->fence_us = d->committed_boot_us ? ev->now_boot_us - d->committed_boot_us : 0;
    r->verify_us = d->verify_us;
    try_resume(d, a);
}

static void on_permit(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    switch (d->stage) {
    case LMO_DST_IDLE:
    case LMO_DST_ARMED:
        d->has_permit = true;
        d->epoch = ev->epoch;
        d->volume_count = ev->volume_count;
        d->final_paused = ev->final_paused;
        move(d, a, LMO_DST_ARMED);
        if (d->loaded) {
            begin_asking(d, a, ev);
        }
        break;
    case LMO_DST_DISCARDING:
    case LMO_DST_DISCARDED:
    case LMO_DST_LOST:
        a->refused = LMO_E_GONE;
        break;
    case LMO_DST_ASKING:
    case LMO_DST_COMMITTED:
    case LMO_DST_FENCED:
    case LMO_DST_RESUMED:
    case LMO_DST_DONE:
    case LMO_DST_STAGE_COUNT:
        break; /* a repeat: the first one is in force */
    }
}

static void on_suspended(struct lmo_dst *d, struct lmo_dst_actions *a)
{
    if (d->stage == LMO_DST_ARMED && !d->activated) {
        d->activated = true;
        a->activate = true;
    }
}

static void on_loaded(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    if (d->loaded || (d->stage != LMO_DST_IDLE && d->stage != LMO_DST_ARMED)) {
        return;
    }
    d->loaded = true;
    d->loaded_us = ev->now_us;
    d->loaded_boot_us = ev->now_boot_us;
    (void)report(d, a, ev, LMO_WEV_LOADED);
    if (d->has_permit) {
        begin_asking(d, a, ev);
    } else {
        (void)report(d, a, ev, LMO_WEV_PERMIT_WANTED);
    }
}

/* The copy died. What that means depends on how far the source's word had carried it (safety.md, thaw). */
static void on_copy_gone(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    switch (d->stage) {
    case LMO_DST_IDLE:
    case LMO_DST_ARMED:
        if (d->loaded) { /* it waited for a permit: whoever was told that it is loaded must learn that it is not */
            report(d, a, ev, LMO_WEV_COPY_LOST)->ok = false;
        }
        d->loaded = false; /* an incoming copy that libvirt cleaned up; a new job may load another */
        break;
    case LMO_DST_ASKING:
        move(d, a, LMO_DST_DISCARDED);
        d->loaded = false;
        report(d, a, ev, LMO_WEV_COPY_LOST)->ok = false;
        break;
    case LMO_DST_COMMITTED:
    case LMO_DST_FENCED:
        move(d, a, LMO_DST_LOST);
        report(d, a, ev, LMO_WEV_COPY_LOST)->ok = d->fence_sent;
        break;
    case LMO_DST_DISCARDING:
        d->removing = false;
        move(d, a, LMO_DST_DISCARDED);
        a->discard_done = true;
        if (d->answer == LMO_FREEZE_RUNNING) {
            (void)report(d, a, ev, LMO_WEV_BACK);
        }
        break;
    case LMO_DST_RESUMED: /* it ran; its end is its owner's affair */
    case LMO_DST_DONE:
    case LMO_DST_DISCARDED:
    case LMO_DST_LOST:
    case LMO_DST_STAGE_COUNT:
        break;
    }
}

static void unanswered(struct lmo_dst *d, const struct lmo_dst_event *ev)
{
    d->asking = false;
    back_off(d, ev, LMO_ASK_RETRY_MIN_MS, LMO_ASK_RETRY_MAX_MS);
}

static void on_answer(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    if (d->stage != LMO_DST_ASKING) {
        return; /* late or repeated: the first decisive answer is in force */
    }
    switch (ev->answer) {
    case LMO_FREEZE_FROZEN:
    case LMO_FREEZE_GONE:
        d->asking = false;
        d->answer = ev->answer;
        LMO_COPY(d->evidence, ev->text);
        d->frozen_us = ev->frozen_us;
        d->freeze_us = ev->duration_us;
        move(d, a, LMO_DST_COMMITTED);
        d->committed_boot_us = ev->now_boot_us;
        d->fence_sent = d->volume_count > 0;
        struct lmo_worker_event *r = report(d, a, ev, LMO_WEV_COMMITTED);
        LMO_COPY(r->answer, lmo_freeze_answer_name(ev->answer));
        LMO_COPY(r->evidence, ev->text);
        r->duration_us = ev->duration_us;
        if (ev->frozen_us) {
            r->at_us = ev->frozen_us;
        }
        if (d->volume_count == 0) {
            become_fenced(d, a, ev);
        } else {
            fence_missing(d, a);
        }
        break;
    case LMO_FREEZE_RUNNING:
        d->asking = false;
        d->answer = ev->answer;
        LMO_COPY(d->evidence, ev->text);
        move(d, a, LMO_DST_DISCARDING);
        d->removing = true;
        a->remove = true;
        a->remove_loaded = true;
        break;
    case LMO_FREEZE_UNKNOWN:
        unanswered(d, ev);
        break;
    }
}

static void on_fence(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev, bool ok)
{
    uint32_t bit = UINT32_C(1) << ev->index;
    d->fencing &= ~bit;
    if (d->stage != LMO_DST_COMMITTED && d->stage != LMO_DST_FENCED) {
        return;
    }
    if (ok) {
        d->fenced |= bit;
        a->verify = bit;
        d->verifying |= bit;
    } else {
        back_off(d, ev, LMO_FENCE_RETRY_MIN_MS, LMO_FENCE_RETRY_MAX_MS);
    }
}

static void on_verify(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev, bool ok)
{
    uint32_t bit = UINT32_C(1) << ev->index;
    d->verifying &= ~bit;
    if (d->stage != LMO_DST_COMMITTED && d->stage != LMO_DST_FENCED) {
        return;
    }
    if (!ok) {
        d->fenced &= ~bit; /* asked again from the fence on: it is idempotent */
        d->verified &= ~bit;
        back_off(d, ev, LMO_FENCE_RETRY_MIN_MS, LMO_FENCE_RETRY_MAX_MS);
        return;
    }
    d->verified |= bit;
    if (ev->duration_us > d->verify_us) {
        d->verify_us = ev->duration_us;
    }
    if (d->verified != all_volumes(d)) {
        return;
    }
    if (d->stage == LMO_DST_COMMITTED) {
        become_fenced(d, a, ev);
    } else {
        try_resume(d, a);
    }
}

static void on_resume(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev, bool ok)
{
    d->resuming = false;
    if (d->stage != LMO_DST_FENCED) {
        return;
    }
    if (!ok) {
        back_off(d, ev, LMO_FENCE_RETRY_MIN_MS, LMO_FENCE_RETRY_MAX_MS);
        return;
    }
    move(d, a, LMO_DST_RESUMED);
    struct lmo_worker_event *r = report(d, a, ev, LMO_WEV_RESUMED);
    r->state = d->final_paused ? LMO_RUN_PAUSED_BY_USER : LMO_RUN_RUNNING;
    r->duration_us = d->loaded_boot_us ? ev->now_boot_us - d->loaded_boot_us : 0;
    d->telling = true;
    a->tell = true;
}

static void on_tell(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev, bool ok)
{
    d->telling = false;
    if (d->stage != LMO_DST_RESUMED) {
        return;
    }
    if (ok) {
        move(d, a, LMO_DST_DONE);
    } else {
        back_off(d, ev, LMO_ASK_RETRY_MIN_MS, LMO_ASK_RETRY_MAX_MS);
    }
}

static void on_discard(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    switch (d->stage) {
    case LMO_DST_IDLE:
    case LMO_DST_ARMED:
        if (d->loaded) { /* only IDLE: the source has not been asked, and cannot be without a permit */
            a->refused = LMO_E_BUSY;
            (void)report(d, a, ev, LMO_WEV_PERMIT_WANTED);
            break;
        }
        move(d, a, LMO_DST_DISCARDING);
        d->removing = true;
        a->remove = true;
        break;
    case LMO_DST_ASKING:
        a->refused = LMO_E_BUSY;
        break;
    case LMO_DST_COMMITTED:
    case LMO_DST_FENCED:
    case LMO_DST_RESUMED:
    case LMO_DST_DONE:
        a->refused = LMO_E_CONFLICT;
        break;
    case LMO_DST_LOST:
        a->refused = d->fence_sent ? LMO_E_CONFLICT : 0;
        a->discard_done = !d->fence_sent;
        break;
    case LMO_DST_DISCARDED:
        a->discard_done = true;
        break;
    case LMO_DST_DISCARDING:
    case LMO_DST_STAGE_COUNT:
        break;
    }
}

static void on_remove_failed(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    d->removing = false;
    if (d->stage != LMO_DST_DISCARDING) {
        return;
    }
    if (ev->state == LMO_RUN_LOADED && d->answer != LMO_FREEZE_RUNNING) {
        /* The guest was loaded behind the order to discard it: the cutover decides, not the order. */
        a->refused = LMO_E_BUSY;
        a->discard_done = true;
        move(d, a, d->has_permit ? LMO_DST_ARMED : LMO_DST_IDLE);
        on_loaded(d, a, ev);
        return;
    }
    back_off(d, ev, LMO_ASK_RETRY_MIN_MS, LMO_ASK_RETRY_MAX_MS);
}

/* Whatever was under way before is not known to have happened: everything volatile starts again from what the
 * hypervisor shows and what the journal says. */
static void on_restarted(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    bool absent = ev->state == LMO_RUN_ABSENT || ev->state == LMO_RUN_SHUT_OFF;
    bool present = !absent && ev->state != LMO_RUN_INCOMING;
    d->fenced = d->verified = d->fencing = d->verifying = 0;
    d->asking = d->resuming = d->removing = d->telling = false;
    d->activated = d->relay_asked = d->stuck_told = false;
    d->tries = 0;
    d->retry_ms = 0;
    d->loaded_ms = ev->now_ms; /* what is said to be stuck is so since this start, at least */
    d->loaded_boot_us = d->committed_boot_us = 0; /* durations across a restart would be lies */
    switch (d->stage) {
    case LMO_DST_IDLE:
    case LMO_DST_ARMED:
        if (absent) {
            on_copy_gone(d, a, ev);
        } else if (present) {
            d->loaded = false; /* so that it is reported and asked for (again) */
            on_loaded(d, a, ev);
        }
        break;
    case LMO_DST_ASKING:
        if (absent) {
            on_copy_gone(d, a, ev);
        } else {
            begin_asking(d, a, ev);
        }
        break;
    case LMO_DST_COMMITTED:
        if (absent) {
            on_copy_gone(d, a, ev);
        } else if (d->volume_count == 0) {
            become_fenced(d, a, ev);
        } else {
            fence_missing(d, a);
        }
        break;
    case LMO_DST_FENCED:
        if (absent) {
            on_copy_gone(d, a, ev);
        } else { /* fenced, says the journal; whether it holds is asked of the service again */
            d->fenced = all_volumes(d);
            fence_missing(d, a);
            try_resume(d, a);
        }
        break;
    case LMO_DST_RESUMED:
        d->telling = true;
        a->tell = true;
        break;
    case LMO_DST_DISCARDING:
        if (absent) {
            on_copy_gone(d, a, ev);
        } else {
            d->removing = true;
            a->remove = true;
            a->remove_loaded = d->answer == LMO_FREEZE_RUNNING;
        }
        break;
    case LMO_DST_DONE:
    case LMO_DST_DISCARDED:
    case LMO_DST_LOST:
    case LMO_DST_STAGE_COUNT:
        break;
    }
}

static void say_stuck(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    if (d->stuck_told || ev->now_ms - d->loaded_ms < LMO_STUCK_AFTER_MS) {
        return;
    }
    d->stuck_told = true;
    struct lmo_worker_event *r = report(d, a, ev, LMO_WEV_STUCK);
    const char *what = d->stage == LMO_DST_ASKING ? "the source's word (frozen, gone or running)"
                       : d->stage == LMO_DST_COMMITTED ? "every volume to be fenced and verified"
                                                       : "the hypervisor to resume the guest";
    (void)snprintf(r->text, sizeof r->text, "guest paused at the destination, waiting for %s", what);
}

static void on_timer(struct lmo_dst *d, struct lmo_dst_actions *a, const struct lmo_dst_event *ev)
{
    bool due = ev->now_ms >= d->retry_ms;
    switch (d->stage) {
    case LMO_DST_ASKING:
        if (!d->asking && due) {
            ask(d, a, ev);
        }
        if (!d->relay_asked && ev->now_ms - d->loaded_ms >= LMO_ASK_RELAY_AFTER_MS) {
            d->relay_asked = true;
            (void)report(d, a, ev, LMO_WEV_FREEZE_WANTED);
        }
        say_stuck(d, a, ev);
        break;
    case LMO_DST_COMMITTED:
        if (due) {
            fence_missing(d, a);
        }
        say_stuck(d, a, ev);
        break;
    case LMO_DST_FENCED:
        if (due) {
            fence_missing(d, a);
            try_resume(d, a);
        }
        say_stuck(d, a, ev);
        break;
    case LMO_DST_RESUMED:
        if (due && !d->telling) {
            d->telling = true;
            d->retry_ms = 0;
            a->tell = true;
        }
        break;
    case LMO_DST_DISCARDING:
        if (due && !d->removing) {
            d->removing = true;
            d->retry_ms = 0;
            a->remove = true;
            a->remove_loaded = d->answer == LMO_FREEZE_RUNNING;
        }
        break;
    case LMO_DST_IDLE:
    case LMO_DST_ARMED:
    case LMO_DST_DONE:
    case LMO_DST_DISCARDED:
    case LMO_DST_LOST:
    case LMO_DST_STAGE_COUNT:
        break;
    }
}

/* The earliest moment at which on_timer() would do something. */
static int64_t next_wake(const struct lmo_dst *d)
{
    int64_t wake = d->retry_ms;
    bool waiting = d->stage == LMO_DST_ASKING || d->stage == LMO_DST_COMMITTED || d->stage == LMO_DST_FENCED;
    if (waiting && !d->stuck_told) {
        int64_t stuck = d->loaded_ms + LMO_STUCK_AFTER_MS;
        wake = wake == 0 || stuck < wake ? stuck : wake;
    }
    if (d->stage == LMO_DST_ASKING && !d->relay_asked) {
        int64_t relay = d->loaded_ms + LMO_ASK_RELAY_AFTER_MS;
        wake = wake == 0 || relay < wake ? relay : wake;
    }
    return wake;
}

void lmo_dst_step(const struct lmo_dst *current, const struct lmo_dst_event *ev, struct lmo_dst *next,
                  struct lmo_dst_actions *out)
{
    *next = *current;
    *out = (struct lmo_dst_actions){0};
    switch (ev->kind) {
    case LMO_DSTE_PERMIT: on_permit(next, out, ev); break;
    case LMO_DSTE_SUSPENDED: on_suspended(next, out); break;
    case LMO_DSTE_LOADED: on_loaded(next, out, ev); break;
    case LMO_DSTE_COPY_GONE:
        if (next->stage != LMO_DST_DISCARDING) {
            on_copy_gone(next, out, ev);
        } else if (!next->removing) {
            next->retry_ms = ev->now_ms; /* the process is gone; what it leaves (a definition) is the removal's to take */
        }
        break;
    case LMO_DSTE_ANSWER: on_answer(next, out, ev); break;
    case LMO_DSTE_NO_ANSWER:
        if (next->stage == LMO_DST_ASKING) {
            unanswered(next, ev);
        }
        break;
    case LMO_DSTE_FENCE_OK: on_fence(next, out, ev, true); break;
    case LMO_DSTE_FENCE_FAILED: on_fence(next, out, ev, false); break;
    case LMO_DSTE_VERIFY_OK: on_verify(next, out, ev, true); break;
    case LMO_DSTE_VERIFY_FAILED: on_verify(next, out, ev, false); break;
    case LMO_DSTE_RESUME_OK: on_resume(next, out, ev, true); break;
    case LMO_DSTE_RESUME_FAILED: on_resume(next, out, ev, false); break;
    case LMO_DSTE_TELL_OK: on_tell(next, out, ev, true); break;
    case LMO_DSTE_TELL_FAILED: on_tell(next, out, ev, false); break;
    case LMO_DSTE_DISCARD: on_discard(next, out, ev); break;
    case LMO_DSTE_REMOVE_OK:
        if (next->stage == LMO_DST_DISCARDING) {
            on_copy_gone(next, out, ev);
        }
        break;
    case LMO_DSTE_REMOVE_FAILED: on_remove_failed(next, out, ev); break;
    case LMO_DSTE_RESTARTED: on_restarted(next, out, ev); break;
    case LMO_DSTE_TIMER: on_timer(next, out, ev); break;
    case LMO_DSTE_COUNT: break;
    }
    out->wake_ms = next_wake(next);
}

const char *lmo_dst_broken(const struct lmo_dst *before, const struct lmo_dst *after, const struct lmo_dst_actions *a)
{
    bool word = after->answer == LMO_FREEZE_FROZEN || after->answer == LMO_FREEZE_GONE;
    bool committed = after->stage == LMO_DST_COMMITTED || after->stage == LMO_DST_FENCED ||
                     after->stage == LMO_DST_RESUMED || after->stage == LMO_DST_DONE;
    bool was_committed = before->stage == LMO_DST_COMMITTED || before->stage == LMO_DST_FENCED ||
                         before->stage == LMO_DST_RESUMED || before->stage == LMO_DST_DONE;
    if (committed && (!word || !after->has_permit)) {
        return "D1/D5: committed without the source's word or without a permit";
    }
    if ((a->fence || a->verify || a->resume) && !committed) {
        return "D1: fence, verify or resume before committed";
    }
    if (a->fence && !after->fence_sent) {
        return "D1: a fence leaves without having been journaled as sent";
    }
    if (a->resume && (after->stage != LMO_DST_FENCED || after->verified != all_volumes(after))) {
        return "D2: resume before every volume is fenced and verified";
    }
    if (was_committed && !committed && after->stage != LMO_DST_LOST) {
        return "D3: went back behind committed";
    }
    if (a->remove && after->stage != LMO_DST_DISCARDING) {
        return "D3/D4: removes the copy outside discarding";
    }
    if (a->remove_loaded && after->answer != LMO_FREEZE_RUNNING) {
        return "D4: destroys a loaded copy although the source did not answer running";
    }
    if (before->stage != after->stage && !a->persist) {
        return "a stage changed without being persisted";
    }
    return NULL;
}
