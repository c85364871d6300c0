/* resource.h - what one migration makes in the world, and what became of it: the migration's resource journal.
 *
 * A row per kind, a bit per volume or port. `intended` is stored in the transaction that decides to send the making
 * call, so a coordinator that starts again knows everything that may exist; `made` and `undone` are stored with the
 * answers. The host of a resource follows from the record, which names it before the first resource is intended and
 * never changes it afterwards.
 *
 * Invariants:
 *  R1  Only what is `intended` is ever undone, on the host that it was made on: no other migration's, nobody else's.
 *  R2  made and undone are subsets of intended.
 *  R3  A migration that ended as aborted owes nothing: all that it intended is undone. */
#ifndef LMO_CORE_RESOURCE_H
#define LMO_CORE_RESOURCE_H

#include "base/ops.h"
#include "base/types.h"

#include <stdbool.h>
#include <stdint.h>

struct lmo_migration;

enum lmo_resource_scope { LMO_SCOPE_ONE, LMO_SCOPE_VOLUME, LMO_SCOPE_PORT, LMO_SCOPE_VOLUME_WORKER, LMO_SCOPE_FABRIC };

/* What is left of it when the guest has moved: KEPT is the guest's own from then on, SPENT has done its work. */
/*  name               text                  one per        made by    undone by           afterwards  what it is */
#define LMO_RESOURCES(X)                                                                                             \
    X(PREPARATION,       "preparation",        ONE,           PREPARE,   DISCARD,            SPENT) /* destination */ \
    X(EXPORT,            "export",             VOLUME,        ATTACH,    DETACH_DESTINATION, KEPT)  /* of a volume */ \
    X(DELIVERY,          "delivery",           PORT,          DUAL,      SINGLE_SOURCE,      KEPT)  /* of frames */  \
    X(PERMIT,            "permit",             ONE,           PERMIT,    DISCARD,            SPENT) /* journaled */  \
    X(JOB,               "job",                ONE,           JOB_START, REVIVE,             SPENT) /* and its pause */  \
    X(RELEASED,          "released",           ONE,           RELEASE,   RESTORE,            SPENT) /* shut off */       \
    X(SOURCE_RECORD,     "source_record",      ONE,           JOB_START, CLOSE_SOURCE,       SPENT) /* a worker's */     \
    X(RELEASE_RECORD,    "release_record",     ONE,           RELEASE,   CLOSE_SOURCE,       SPENT) /* shut off */       \
    X(DESTINATION_RECORD,"destination_record", ONE,           PREPARE,   CLOSE_DESTINATION,  SPENT)                      \
    X(VOLUME_RECORD,     "volume_record",      VOLUME_WORKER, ATTACH,    CLOSE_VOLUME,       SPENT)                      \
    X(FABRIC_RECORD,     "fabric_record",      FABRIC,        PRELOAD,   CLOSE_FABRIC,       SPENT)

enum lmo_resource_kind {
    LMO_RES_NONE = 0,
#define X(name, text, scope, made_by, undone_by, afterwards) LMO_RES_##name,
    LMO_RESOURCES(X)
#undef X
    LMO_RES_COUNT
};
#define LMO_RESOURCES_MAX (LMO_RES_COUNT - 1)

enum lmo_resource_state {
    LMO_RES_ABSENT = 0, /* never intended */
    LMO_RES_INTENDED,   /* its call may have been carried out */
    LMO_RES_MADE,       /* its worker said so */
    LMO_RES_UNDONE,     /* so did the worker that took it away */
    LMO_RES_KEPT,       /* the guest has moved: it is the guest's own */
    LMO_RES_SPENT,      /* the guest has moved: nothing is left to undo */
};
const char *lmo_resource_state_text(enum lmo_resource_state s);

struct lmo_resource {
    enum lmo_resource_kind kind;
    uint16_t intended, made, undone; /* bit per volume or port; a worker's record: bit of its first one */
};

const char *lmo_resource_text(enum lmo_resource_kind k);
enum lmo_resource_kind lmo_resource_from_text(const char *text); /* LMO_RES_NONE: not in the table */
enum lmo_resource_scope lmo_resource_scope(enum lmo_resource_kind k);

/* The call is about to be sent: what it makes may exist from now on. */
void lmo_resource_intend(struct lmo_migration *m, enum lmo_op_kind op, unsigned index);
/* The call was carried out, or its worker said that nothing of it is left. */
void lmo_resource_settle(struct lmo_migration *m, enum lmo_op_kind op, unsigned index);
/* May it exist and be ours to take away? */
bool lmo_resource_owed(const struct lmo_migration *m, enum lmo_resource_kind k, unsigned index);
enum lmo_resource_state lmo_resource_state(const struct lmo_migration *m, enum lmo_resource_kind k, unsigned index);
/* Where it was made; its name there (a volume's, a port's; "" for what there is one of). */
const char *lmo_resource_host(const struct lmo_migration *m, enum lmo_resource_kind k, unsigned index);
const char *lmo_resource_object(const struct lmo_migration *m, enum lmo_resource_kind k, unsigned index);

/* A record stored by a program that knew only which kinds of call were sent: everything that they may have made. */
void lmo_resources_derive(struct lmo_migration *m);
/* NULL, or the sentence of the invariant that the record breaks. */
const char *lmo_resources_broken(const struct lmo_migration *m);

#endif
