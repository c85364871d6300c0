/* restore.c - see restore.h. */
#include "core/restore.h"

#include "base/str.h"
#include "core/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void note(struct lmo_effects *out, const char *why, const char *what)
{
    struct lmo_effect_journal *j = &out->journal[out->journal_count++];
    LMO_COPY(j->what, what);
    LMO_COPY(j->why, why);
}

static void describe(const struct lmo_migration *m, const struct lmo_restore_view *v, char *text, size_t size)
{
    const char *name = m->vm.name[0] ? m->vm.name : m->vm.uuid;
    const char *place = v->copies == 1 && strcmp(v->host, m->destination) == 0 ? ", the destination"
                        : v->copies == 1 && strcmp(v->host, m->source) == 0    ? ", the source"
                                                                               : "";
    if (v->copies > 1) {
        (void)snprintf(text, size, "%s is live on %u hosts, %s among them", name, v->copies, v->host);
    } else if (v->copies == 1) {
        (void)snprintf(text, size, "%s is on %s%s", name, v->host, place);
    } else if (v->definitions > 0) {
        (void)snprintf(text, size, "%s is shut off, defined on %s", name, v->defined);
    } else {
        (void)snprintf(text, size, "%s is on no host that was seen", name);
    }
}

/* The phases' own order does not hold here: what happened in between is not known. */
static void set_phase(struct lmo_migration *m, enum lmo_phase phase, int64_t now_ms)
{
    struct lmo_phase_time *t = m->phase_time_count > 0 ? &m->phase_times[m->phase_time_count - 1] : NULL;
    if (t && t->phase == m->phase && t->ended_ms == 0) {
        t->ended_ms = now_ms;
        t->us = 0;
    }
    m->phase = phase;
    m->phase_started_ms = now_ms;
    m->phase_started_boot_us = INT64_MAX;
    m->deadline_ms = 0;
    m->group = 0;
    m->group_open = true;
    m->task_count = 0;
    m->waiting_for[0] = '\0';
    m->waiting_since_ms = 0;
    if (!lmo_phase_is(phase, LMO_PHASE_TERMINAL) && m->phase_time_count < LMO_PHASE_TIMES_MAX) {
        m->phase_times[m->phase_time_count++] = (struct lmo_phase_time){.phase = phase, .started_ms = now_ms};
    }
}

int lmo_core_restored(const struct lmo_migration *current, const struct lmo_restore_view *v, int64_t now_ms,
                      struct lmo_migration *next, struct lmo_effects *effects, struct lmo_err *err)
{
    char seen[160];
    enum lmo_phase was = current->phase;
    lmo_migration_copy(next, current);
    memset(effects, 0, offsetof(struct lmo_effects, journal));
    if (lmo_phase_is(was, LMO_PHASE_TERMINAL)) {
        return 0;
    }
    describe(current, v, seen, sizeof seen);
    bool over = v->seen && !v->remembered && v->copies <= 1 && v->copies + v->definitions > 0; /* B2 */
    set_phase(next, over ? LMO_PHASE_ABANDONED : LMO_PHASE_ATTENTION, now_ms);
    if (over) {
        next->reason_code = LMO_E_CANCELLED;
        (void)snprintf(next->reason, sizeof next->reason,
                       "it ended after the backup that this store was restored from; %s", seen);
        effects->ended = true;
    } else {
        bool decided = was == LMO_PHASE_CUTOVER || was == LMO_PHASE_FINALIZE || was == LMO_PHASE_ROLLBACK;
        if (was != LMO_PHASE_ATTENTION) {
            next->failed_in = decided ? was : LMO_PHASE_CUTOVER; /* what a retry would go to */
        }
        next->reason_code = LMO_E_UNKNOWN;
        (void)snprintf(next->reason, sizeof next->reason,
                       "it was in %s when the backup was made that this store was restored from; %s%s",
                       lmo_phase_text(was), seen,
                       !v->seen        ? "; not every host was seen"
                       : v->remembered ? "; workers still know of it"
                                       : "");
        next->next_ordinal += LMO_RESTORED_ORDINALS; /* B3 */
        next->epoch = v->epoch > next->epoch ? v->epoch : next->epoch;
    }
    note(effects, next->reason, lmo_phase_text(next->phase));
    effects->durable = true;
    next->version++;
    next->updated_ms = now_ms;
    const char *broken = lmo_migration_broken(next);
    return broken ? lmo_fail(err, LMO_E_INTERNAL, "%s", broken) : 0;
}

static bool is_one_of(const char *stage, const char *const *list)
{
    for (; *list; list++) {
        if (strcmp(stage, *list) == 0) {
            return true;
        }
    }
    return false;
}

bool lmo_restore_stranger_rests(const struct lmo_restore_stranger *s)
{
    static const char *const source[] = {"", "idle", "ran", "killed", "revived", NULL};
    static const char *const destination[] = {"", "idle", "done", "discarded", "lost", NULL};
    return is_one_of(s->source_stage, source) && is_one_of(s->destination_stage, destination);
}
