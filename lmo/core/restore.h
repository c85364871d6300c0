/* restore.h - what becomes of an open record after the coordinator's store was put back from a backup.
 *
 * The record shows the past: the migration may have ended since, or have got on, under another coordinator that is not there
 * any more; its guest may have moved again. What workers and hosts show decides, never the record:
 *  B1  Nothing is undone, and nothing ordered, on the word of a record of the past.
 *  B2  A migration of which no worker remembers anything is over: workers forget one only when they are told that it is, and
 *      that is told only after its end was stored. Its record is closed with what was seen of the guest.
 *  B3  All else rests in `attention`: what its workers report, or a person after a look at both hosts, moves it on. No call of
 *      it has an id, or an epoch, that one of the lost coordinator can have had.
 *
 * Pure, like everything here. */
#ifndef LMO_CORE_RESTORE_H
#define LMO_CORE_RESTORE_H

#include "core/migration.h"

#define LMO_RESTORED_ORDINALS (UINT32_C(1) << 20) /* no migration has had so many calls */

struct lmo_restore_view {
    bool seen;               /* every host that may know of it was */
    bool remembered;         /* some worker has a record, or answers, of this migration */
    uint64_t epoch;          /* the highest that any of those carries; 0: none */
    unsigned copies;         /* hosts on which the guest is live */
    char host[LMO_NAME_MAX]; /* one of them */
    unsigned definitions;    /* hosts that have it, live or shut off */
    char defined[LMO_NAME_MAX];
};

/* `next` (not `current`) is what the record becomes, effects->journal what is said of it; nothing is to be sent. A record that is
 * over already stays as it is: *next is a copy, and effects->durable false. INTERNAL, as of lmo_core_step. */
int lmo_core_restored(const struct lmo_migration *current, const struct lmo_restore_view *v, int64_t now_ms,
                      struct lmo_migration *next, struct lmo_effects *effects, struct lmo_err *err) LMO_MUST_CHECK;

/* A migration that workers remember and the store does not know: it began after the backup. */
struct lmo_restore_stranger {
    char migration[LMO_ID_MAX], vm[LMO_UUID_MAX];
    char source[LMO_NAME_MAX], destination[LMO_NAME_MAX]; /* hosts with a record of that role; "": none */
    char source_stage[24], destination_stage[24];
    uint64_t epoch;
};
/* Is it certain from those stages that no worker does anything more for it? */
bool lmo_restore_stranger_rests(const struct lmo_restore_stranger *s);

#endif
