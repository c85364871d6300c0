/* notice.c - the wait for a guest's owner; see notice.h. */
#include "core/notice.h"

#include "base/str.h"
#include "core/internal.h"

#include <stdio.h>
#include <string.h>

static const char *const states[] = {[LMO_NOTICE_NONE] = "none",
                                     [LMO_NOTICE_WAITING] = "waiting",
                                     [LMO_NOTICE_ACKNOWLEDGED] = "acknowledged",
                                     [LMO_NOTICE_UNANSWERED] = "unanswered"};
static const char *const no_answers[] = {[LMO_NO_ANSWER_PROCEED] = "proceed", [LMO_NO_ANSWER_ABORT] = "abort"};

const char *lmo_notice_state_text(int state)
{
    return state < LMO_NOTICE_NONE || state > LMO_NOTICE_UNANSWERED ? NULL : states[state];
}

int lmo_notice_state_from_text(const char *text)
{
    for (int i = LMO_NOTICE_NONE; i <= LMO_NOTICE_UNANSWERED; i++) {
        if (strcmp(states[i], text) == 0) {
            return i;
        }
    }
    return LMO_NOTICE_NONE;
}

const char *lmo_no_answer_text(int what)
{
    return what < LMO_NO_ANSWER_PROCEED || what > LMO_NO_ANSWER_ABORT ? NULL : no_answers[what];
}

int lmo_no_answer_from_text(const char *text)
{
    for (int i = LMO_NO_ANSWER_PROCEED; i <= LMO_NO_ANSWER_ABORT; i++) {
        if (strcmp(no_answers[i], text) == 0) {
            return i;
        }
    }
    return -1;
}

void lmo_notice_begin(struct lmo_migration *m, const char *url, uint32_t deadline_ms, enum lmo_no_answer on_no_answer)
{
    struct lmo_notice *n = &m->notice;
    *n = (struct lmo_notice){.state = LMO_NOTICE_WAITING,
                             .on_no_answer = on_no_answer,
                             .deadline_ms = deadline_ms,
                             .asked_ms = m->created_ms,
                             .until_ms = m->created_ms + deadline_ms};
    LMO_COPY(n->url, url);
    (void)snprintf(m->waiting_for, sizeof m->waiting_for,
                   "the acknowledgement of the guest's owner, at most %u s; then: %s", deadline_ms / 1000,
                   no_answers[on_no_answer]);
    m->waiting_since_ms = m->created_ms;
}

bool lmo_migration_awaits_notice(const struct lmo_migration *m)
{
    return m->phase == LMO_PHASE_QUEUED && m->notice.state == LMO_NOTICE_WAITING;
}

int lmo_step_acknowledged(struct lmo_step *s, struct lmo_err *err)
{
    struct lmo_migration *m = s->m;
    struct lmo_notice *n = &m->notice;
    const char *by = s->ev->text && s->ev->text[0] ? s->ev->text : "hook";
    if (n->state == LMO_NOTICE_NONE) {
        return lmo_fail(err, LMO_E_CONFLICT, "migration %s waits for no acknowledgement: its guest has no hook", m->id);
    }
    if (n->state == LMO_NOTICE_UNANSWERED) {
        return lmo_fail(err, LMO_E_CONFLICT, "migration %s: the acknowledgement came after its deadline", m->id);
    }
    if (n->state == LMO_NOTICE_ACKNOWLEDGED || !lmo_migration_awaits_notice(m)) {
        return 0; /* said again */
    }
    n->state = LMO_NOTICE_ACKNOWLEDGED;
    n->answered_ms = s->ev->now_ms;
    LMO_COPY(n->by, by);
    lmo_step_waited(s);
    s->out->notice_settled = true;
    lmo_step_note(s, by, "the guest's owner has acknowledged");
    return 0;
}

void lmo_step_notice_due(struct lmo_step *s)
{
    struct lmo_migration *m = s->m;
    struct lmo_notice *n = &m->notice;
    char text[LMO_TEXT_MAX];
    if (!lmo_migration_awaits_notice(m) || s->ev->now_ms < n->until_ms) {
        return;
    }
    n->state = LMO_NOTICE_UNANSWERED;
    n->answered_ms = s->ev->now_ms;
    lmo_step_waited(s);
    s->out->notice_settled = true;
    (void)snprintf(text, sizeof text, "the guest's owner did not acknowledge within %u s", n->deadline_ms / 1000);
    lmo_step_note(s, no_answers[n->on_no_answer], "%s", text);
    if (n->on_no_answer == LMO_NO_ANSWER_ABORT) {
        lmo_step_fail(s, LMO_E_TIMEOUT, text);
    }
}
