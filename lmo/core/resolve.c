/* resolve.c - what speaks against a decision, and what follows from one. See resolve.h. */
#include "core/resolve.h"

#include "base/assert.h"
#include "base/str.h"
#include "core/internal.h"

#include <stdio.h>
#include <string.h>

const char *lmo_resolution_text(enum lmo_resolution r)
{
    static const char *const texts[LMO_RESOLVE_COUNT] = {"none",
#define X(name, text) text,
                                                         LMO_RESOLUTIONS(X)
#undef X
    };
    return texts[r];
}

enum lmo_resolution lmo_resolution_from_text(const char *text)
{
    for (int i = LMO_RESOLVE_NONE + 1; i < LMO_RESOLVE_COUNT; i++) {
        if (strcmp(lmo_resolution_text((enum lmo_resolution)i), text) == 0) {
            return (enum lmo_resolution)i;
        }
    }
    return LMO_RESOLVE_NONE;
}

static bool stage_is(const char *stage, const char *const *list)
{
    for (; *list; list++) {
        if (strcmp(stage, *list) == 0) {
            return true;
        }
    }
    return false;
}

static bool may_run(enum lmo_run_state s)
{
    return s == LMO_RUN_RUNNING || s == LMO_RUN_PAUSED_BY_USER;
}

/* Is there, and is not a mere definition? */
static bool is_live(enum lmo_run_state s)
{
    return s != LMO_RUN_UNKNOWN && s != LMO_RUN_ABSENT && s != LMO_RUN_SHUT_OFF;
}

static int check_retry(const struct lmo_migration *m, const struct lmo_resolve_view *v, struct lmo_err *err)
{
    if (m->failed_in != LMO_PHASE_CUTOVER && m->failed_in != LMO_PHASE_FINALIZE && m->failed_in != LMO_PHASE_ROLLBACK) {
        return lmo_fail(err, LMO_E_CONFLICT, "what failed was %s: there is nothing to try again",
                        lmo_phase_text(m->failed_in));
    }
    if (m->failed_in == LMO_PHASE_CUTOVER && strcmp(v->destination_stage, "lost") == 0) {
        return lmo_fail(err, LMO_E_CONFLICT, "the destination's copy is gone: no cutover can follow");
    }
    return 0;
}

static int check_source(const struct lmo_migration *m, const struct lmo_resolve_view *v, struct lmo_err *err)
{
    static const char *const forward[] = {"committed", "fenced", "resumed", "done", NULL};
    static const char *const lost[] = {"lost", NULL};
    if (lmo_migration_shut_off(m) && lmo_migration_sent(m, LMO_OP_FENCE_SOURCE)) {
        return lmo_fail(err, LMO_E_CONFLICT,
                        "the guest is shut off and %s may be fenced off from its volumes: it only goes "
                        "forward; retry asks for that",
                        m->source);
    }
    if (v->destination == LMO_RUN_UNKNOWN || strcmp(v->destination_stage, LMO_STAGE_UNSEEN) == 0) {
        return lmo_fail(
            err, LMO_E_UNAVAILABLE,
            "%s cannot be asked: whether a copy is there is not known. Bring its worker back, or take the guest "
            "into your own hands and use abandon",
            m->destination);
    }
    if (stage_is(v->destination_stage, forward) || m->cutover.resumed) {
        return lmo_fail(err, LMO_E_CONFLICT,
                        "%s stands at '%s': the source was given up there, its volumes are or will be "
                        "fenced off; retry goes on from there",
                        m->destination, v->destination_stage);
    }
    if (is_live(v->destination)) { /* a person's word would be weighed against one that may be `frozen` */
        return lmo_fail(
            err, LMO_E_CONFLICT,
            "a copy is at %s (%s), its worker stands at '%s': it is removed once %s answers that the guest runs "
            "there, never on a person's word. %s",
            m->destination, lmo_run_state_name(v->destination), v->destination_stage, m->source,
            check_retry(m, v, NULL) == 0 ? "Use retry: that asks, removes the copy and ends at the source"
                                         : "Destroy the copy by hand, then use abandon");
    }
    if (stage_is(v->destination_stage, lost) && !m->destination_discarded) {
        /* What is known here may be older than what was done there: without its own word that nothing was fenced
         * (its report, or its answer to `discard`), it would only refuse once more. */
        return lmo_fail(
            err, LMO_E_CONFLICT,
            "the copy at %s died behind the source's word: %s. Start the guest cold from its volumes on one host, "
            "then use abandon",
            m->destination,
            m->cutover.fenced_us != 0
                ? "the source was fenced off from its volumes and cannot run on"
                : "the source may be fenced off from its volumes (if it is not, the report of that is on its way "
                  "and leads back to the source by itself)");
    }
    if (v->source == LMO_RUN_UNKNOWN) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "%s cannot be asked: whether the guest is there is not known",
                        m->source);
    }
    if (!is_live(v->source)) {
        return lmo_fail(err, LMO_E_CONFLICT, "the guest is not at %s (%s)", m->source, lmo_run_state_name(v->source));
    }
    return 0;
}

static int check_destination(const struct lmo_migration *m, const struct lmo_resolve_view *v, struct lmo_err *err)
{
    static const char *const there[] = {"resumed", "done", NULL};
    static const char *const asking[] = {"asking", NULL};
    if (v->destination == LMO_RUN_UNKNOWN || strcmp(v->destination_stage, LMO_STAGE_UNSEEN) == 0) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "%s cannot be asked: whether the guest is there is not known",
                        m->destination);
    }
    if (may_run(v->source)) {
        return lmo_fail(err, LMO_E_CONFLICT, "the guest is %s at %s: it ran on there", lmo_run_state_name(v->source),
                        m->source);
    }
    if (may_run(v->destination)) {
        if (stage_is(v->destination_stage, there) || v->source == LMO_RUN_ABSENT || v->source == LMO_RUN_SHUT_OFF) {
            return 0;
        }
        return lmo_fail(err, LMO_E_CONFLICT,
                        "the guest is at %s, but its worker stands at '%s' and what is at %s is %s", m->destination,
                        v->destination_stage, m->source, lmo_run_state_name(v->source));
    }
    if (v->destination != LMO_RUN_LOADED || !stage_is(v->destination_stage, asking)) {
        return lmo_fail(err, LMO_E_CONFLICT,
                        "what is at %s is %s, its worker stands at '%s': nothing that could be the guest",
                        m->destination, lmo_run_state_name(v->destination), v->destination_stage);
    }
    /* Loaded and waiting for the source's word. A person may give it in the source's place only if the source
     * cannot. */
    if (v->source != LMO_RUN_UNKNOWN || strcmp(v->source_stage, LMO_STAGE_UNSEEN) != 0) {
        return lmo_fail(err, LMO_E_CONFLICT,
                        "the source's worker answers: its own word decides, not a person's; retry asks it");
    }
    return 0;
}

int lmo_resolve_check(const struct lmo_migration *m, enum lmo_resolution r, const struct lmo_resolve_view *v,
                      struct lmo_err *err)
{
    if (m->phase != LMO_PHASE_ATTENTION) {
        return lmo_fail(err, LMO_E_CONFLICT, "migration %s is in %s: only one in attention needs a decision", m->id,
                        lmo_phase_text(m->phase));
    }
    switch (r) {
    case LMO_RESOLVE_GUEST_AT_SOURCE: return check_source(m, v, err);
    case LMO_RESOLVE_GUEST_AT_DESTINATION: return check_destination(m, v, err);
    case LMO_RESOLVE_RETRY: return check_retry(m, v, err);
    case LMO_RESOLVE_ABANDON: return 0; /* nothing is touched */
    case LMO_RESOLVE_NONE:
    case LMO_RESOLVE_COUNT: break;
    }
    return lmo_fail(err, LMO_E_INVALID, "no such decision");
}

/* The destination asks once; what it asked for may have been dropped since. */
static void ask_source_again(struct lmo_step *s)
{
    if (!s->m->cutover.committed && !s->m->destination_discarded) {
        (void)lmo_plan_add_once(s, LMO_OP_RELAY_FREEZE);
    }
}

int lmo_step_resolve(struct lmo_step *s, struct lmo_err *err)
{
    struct lmo_migration *m = s->m;
    const struct lmo_event *ev = s->ev;
    const char *who = ev->text ? ev->text : "";
    int r = lmo_resolve_check(m, ev->resolution, ev->view, err);
    if (r < 0) {
        return r;
    }
    lmo_step_note(s, who, "decided: %s; seen: %s at %s (record '%s'), %s at %s (record '%s')",
                  lmo_resolution_text(ev->resolution), lmo_run_state_name(ev->view->source), m->source,
                  ev->view->source_stage, lmo_run_state_name(ev->view->destination), m->destination,
                  ev->view->destination_stage);
    switch (ev->resolution) {
    case LMO_RESOLVE_GUEST_AT_SOURCE: lmo_step_enter(s, LMO_PHASE_ROLLBACK, who); break;
    case LMO_RESOLVE_GUEST_AT_DESTINATION:
        if (may_run(ev->view->destination)) {
            m->cutover.resumed = true;
            lmo_step_enter(s, LMO_PHASE_FINALIZE, who);
            break;
        }
        lmo_step_enter(s, LMO_PHASE_CUTOVER, who);
        LMO_COPY(m->cutover.freeze_answer, lmo_freeze_answer_name(LMO_FREEZE_GONE));
        (void)snprintf(m->cutover.evidence, sizeof m->cutover.evidence, "a person's word, not the source's: %.400s",
                       who);
        (void)lmo_plan_add(s, LMO_OP_RELAY_ANSWER, 0);
        break;
    case LMO_RESOLVE_RETRY:
        lmo_step_enter(s, m->failed_in, who);
        if (m->phase == LMO_PHASE_CUTOVER) {
            ask_source_again(s);
        }
        break;
    case LMO_RESOLVE_ABANDON: {
        char text[LMO_TEXT_MAX];
        (void)snprintf(text, sizeof text, "abandoned %.240s", who);
        m->reason_code = LMO_E_CANCELLED;
        LMO_COPY(m->reason, text);
        lmo_step_enter(s, LMO_PHASE_ABANDONED, who);
        break;
    }
    case LMO_RESOLVE_NONE:
    case LMO_RESOLVE_COUNT: lmo_unreachable("a decision that was refused above");
    }
    return 0;
}
