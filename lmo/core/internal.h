/* internal.h - shared by the core's own files only. */
#ifndef LMO_CORE_INTERNAL_H
#define LMO_CORE_INTERNAL_H

#include "core/migration.h"

/* What one step works on. */
struct lmo_step {
    struct lmo_migration *m; /* the next record */
    struct lmo_effects *out;
    const struct lmo_event *ev;
};

/* Appends to the journal effect; silently dropped beyond LMO_EFFECT_JOURNAL_MAX (a step writes few). */
void lmo_step_note(struct lmo_step *s, const char *why, const char *what_fmt, ...) __attribute__((format(printf, 3, 4)));
/* Leaves the present phase for `phase`, whose first group of tasks is opened by lmo_plan_advance. Asserts legality. */
void lmo_step_enter(struct lmo_step *s, enum lmo_phase phase, const char *why);
/* Something went wrong (or was cancelled) before the guest was committed: remember why, go and undo. */
void lmo_step_fail(struct lmo_step *s, int code, const char *text);
/* Nothing more can be decided safely: remember why, leave it to a person. What a worker reports still counts. */
void lmo_step_attention(struct lmo_step *s, int code, const char *text);
void lmo_step_wait(struct lmo_step *s, const char *text);
/* What was waited for has come. */
void lmo_step_waited(struct lmo_step *s);

/* plan.c: opens groups and phases as long as nothing is left to do in the present one. */
void lmo_plan_advance(struct lmo_step *s);
/* Adds one task to the present group. Tasks that are done may move or go: no pointer to a task is good afterwards. */
struct lmo_task *lmo_plan_add(struct lmo_step *s, enum lmo_op_kind kind, unsigned index);
/* The same, unless one of that kind is unfinished. True: added. */
bool lmo_plan_add_once(struct lmo_step *s, enum lmo_op_kind kind);
/* The unfinished task of that kind, or NULL. */
struct lmo_task *lmo_plan_pending(struct lmo_migration *m, enum lmo_op_kind kind);
/* Marks every task that is due as SENT and computes when to wake. */
void lmo_plan_dispatch(struct lmo_step *s);

/* tasks.c */
void lmo_step_task_done(struct lmo_step *s, struct lmo_task *t);
void lmo_step_task_failed(struct lmo_step *s, struct lmo_task *t);
void lmo_step_task_held(struct lmo_step *s, struct lmo_task *t);
/* Is it what the destination asks for while it is undecided? */
bool lmo_step_asked_by_destination(enum lmo_op_kind kind);
/* resolve.c */
int lmo_step_resolve(struct lmo_step *s, struct lmo_err *err) LMO_MUST_CHECK;
/* precopy.c */
/* The guest was described: will it converge? May refuse the migration or put it back into the queue, as the policy says. */
void lmo_step_forecast(struct lmo_step *s);
/* In the queue, and not to be looked at again yet. */
bool lmo_step_held(const struct lmo_step *s);
void lmo_step_precopy_begin(struct lmo_step *s);
void lmo_step_progress(struct lmo_step *s, const struct lmo_progress *sample);
/* What the migration gets is another than before. */
void lmo_step_bandwidth_changed(struct lmo_step *s);
void lmo_step_limit_failed(struct lmo_step *s);
void lmo_step_precopy_overdue(struct lmo_step *s);
/* notice.c */
int lmo_step_acknowledged(struct lmo_step *s, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_step_notice_due(struct lmo_step *s);
/* bandwidth.c */
void lmo_step_admitted(struct lmo_step *s);
void lmo_step_share(struct lmo_step *s);
/* OPEN_GATE was carried out: what it ordered is in force, and nothing else. */
void lmo_step_limits_in_force(struct lmo_step *s);
/* reports.c */
void lmo_step_worker_event(struct lmo_step *s, const struct lmo_worker_event *w);

#endif
