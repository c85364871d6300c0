/* reports.c - what workers' own events mean: the cutover happens without the coordinator, which learns of it here.
 *
 * Events may be late, repeated or out of order between workers; each is taken for the fact that it states, in any
 * phase in which the fact can still matter. */
#include "base/str.h"
#include "core/internal.h"

#include <stdio.h>
#include <string.h>

static bool undecided(const struct lmo_migration *m)
{
    return m->phase == LMO_PHASE_PRECOPY || m->phase == LMO_PHASE_CUTOVER || m->phase == LMO_PHASE_ROLLBACK ||
           m->phase == LMO_PHASE_ATTENTION;
}

static void on_job_end(struct lmo_step *s, const struct lmo_worker_event *w)
{
    struct lmo_migration *m = s->m;
    if (m->job_ended) {
        return;
    }
    m->job_ended = true;
    m->job_call_ok = w->ok;
    m->job_call_ms = w->duration_us / 1000;
    lmo_step_note(s, w->text, "libvirt's migrate call %s after %llu ms", w->ok ? "returned success" : "returned an error",
                  (unsigned long long)m->job_call_ms);
    if (!w->ok && m->phase == LMO_PHASE_PRECOPY) {
        char text[LMO_TEXT_MAX];
        (void)snprintf(text, sizeof text, "the hypervisor ended the migration: %.200s", w->text);
        lmo_step_fail(s, LMO_E_UNAVAILABLE, text);
    }
}

static void on_committed(struct lmo_step *s, const struct lmo_worker_event *w)
{
    struct lmo_cutover *c = &s->m->cutover;
    if (!undecided(s->m) || c->committed) {
        return;
    }
    c->committed = true;
    c->frozen_us = w->at_us;
    c->freeze_us = w->duration_us;
    LMO_COPY(c->freeze_answer, w->answer);
    LMO_COPY(c->evidence, w->evidence);
    lmo_step_waited(s);
    lmo_step_note(s, w->evidence, "destination committed on the source's word: %s", w->answer);
    /* Unless a person has seen already that the guest is there: what is left then is not the cutover. */
    if (s->m->phase != LMO_PHASE_CUTOVER && !c->resumed) {
        lmo_step_enter(s, LMO_PHASE_CUTOVER, "the destination has committed");
    }
}

static void on_resumed(struct lmo_step *s, const struct lmo_worker_event *w)
{
    struct lmo_cutover *c = &s->m->cutover;
    if (!undecided(s->m) || c->resumed) {
        return;
    }
    c->resumed = true;
    c->resumed_us = w->at_us;
    c->loaded_to_resumed_us = w->duration_us;
    lmo_step_enter(s, LMO_PHASE_FINALIZE,
                   w->state == LMO_RUN_PAUSED_BY_USER ? "the guest is at the destination, paused as its owner left it"
                                                      : "the guest runs at the destination");
}

/* The copy is gone: a DISCARD that was told to come back later need not wait out its back-off. */
static void hasten_discard(struct lmo_migration *m)
{
    struct lmo_task *t = lmo_plan_pending(m, LMO_OP_DISCARD);
    if (t && t->state == LMO_TASK_WAITING) {
        t->not_before_ms = 0;
    }
}

static void on_back(struct lmo_step *s, const struct lmo_worker_event *w)
{
    bool rests = s->m->phase == LMO_PHASE_ATTENTION && !s->m->cutover.resumed;
    if (s->m->phase == LMO_PHASE_PRECOPY || s->m->phase == LMO_PHASE_CUTOVER || rests) {
        lmo_step_fail(s, LMO_E_CANCELLED,
                      "the source's hypervisor resumed the guest there; the destination's paused copy was destroyed");
    } else if (s->m->phase == LMO_PHASE_ROLLBACK) {
        lmo_step_note(s, w->evidence, "the guest runs on at the source; the destination's copy was destroyed");
        hasten_discard(s->m);
    }
}

static void on_copy_lost(struct lmo_step *s, const struct lmo_worker_event *w)
{
    if (!undecided(s->m) || s->m->cutover.resumed) {
        return;
    }
    if (w->ok) {
        lmo_step_attention(s, LMO_E_UNKNOWN,
                           "the destination's copy died after the source was fenced off: no copy can run on. "
                           "Safe: start the guest cold from its volumes, on one host");
    } else if (s->m->phase != LMO_PHASE_ROLLBACK) {
        lmo_step_fail(s, LMO_E_UNAVAILABLE, "the destination's copy died before it was resumed");
    } else {
        hasten_discard(s->m);
    }
}

/* A destination that was discarded, or whose guest a person has seen run, asks for nothing any more: an event of its that comes this late must not freeze the
 * source, at the epoch at which it is being helped. */
static void want(struct lmo_step *s, enum lmo_op_kind kind, const char *what)
{
    const struct lmo_cutover *c = &s->m->cutover;
    bool asks = undecided(s->m) && !c->committed && !c->resumed && !s->m->destination_discarded;
    if (asks && lmo_plan_add_once(s, kind)) {
        lmo_step_note(s, "", "%s", what);
    }
}

void lmo_step_worker_event(struct lmo_step *s, const struct lmo_worker_event *w)
{
    struct lmo_migration *m = s->m;
    if (w->kind == LMO_WEV_PROGRESS) {
        lmo_step_progress(s, &w->progress);
        return;
    }
    s->out->durable = true;
    if (lmo_phase_is(m->phase, LMO_PHASE_TERMINAL)) {
        return;
    }
    switch (w->kind) {
    case LMO_WEV_SUSPENDED:
        m->cutover.suspended_us = w->at_us;
        lmo_step_note(s, "", "guest paused at the source by switch-over");
        break;
    case LMO_WEV_SOURCE_RESUMED: lmo_step_note(s, w->text, "the guest runs on at the source"); break;
    case LMO_WEV_JOB_END: on_job_end(s, w); break;
    case LMO_WEV_GATE_ABORTED:
    case LMO_WEV_DEADMAN:
        if (m->phase == LMO_PHASE_PRECOPY) {
            lmo_step_fail(s, LMO_E_CANCELLED, w->text);
        }
        break;
    case LMO_WEV_LOADED:
        m->cutover.loaded_us = w->at_us;
        if (m->phase == LMO_PHASE_PRECOPY) {
            lmo_step_enter(s, LMO_PHASE_CUTOVER, "the guest is loaded and paused at the destination");
        }
        break;
    case LMO_WEV_FREEZE_WANTED:
        want(s, LMO_OP_RELAY_FREEZE, "source does not answer the destination directly: asking it through the coordinator");
        break;
    case LMO_WEV_PERMIT_WANTED:
        want(s, LMO_OP_PERMIT, "the destination asks for a permit");
        break;
    case LMO_WEV_COMMITTED: on_committed(s, w); break;
    case LMO_WEV_FENCED:
        m->cutover.fenced_us = w->at_us;
        m->cutover.fence_us = w->fence_us;
        m->cutover.verify_us = w->verify_us;
        lmo_step_waited(s);
        lmo_step_note(s, "", "%u volume(s) fenced and verified", m->vm.volume_count);
        break;
    case LMO_WEV_RESUMED: on_resumed(s, w); break;
    case LMO_WEV_BACK: on_back(s, w); break;
    case LMO_WEV_COPY_LOST: on_copy_lost(s, w); break;
    case LMO_WEV_STUCK:
        lmo_step_wait(s, w->text);
        lmo_step_note(s, "", "waits: %s", w->text);
        break;
    case LMO_WEV_SOURCE_GONE: lmo_step_note(s, "", "the source's copy is dead"); break;
    case LMO_WEV_PROGRESS:
    case LMO_WEV_NONE:
    case LMO_WEV_COUNT: break;
    }
}
