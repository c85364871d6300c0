/* rules.h - what holds for each phase and each call when something takes too long, fails, or is not answered.
 *
 * One row per phase: how long it may take, what then, how often a call of it is tried, what undoes it, and the first
 * question of a coordinator that has just loaded a record which stands there. One row per call: what undoes it and what
 * tells whether it happened when its reply was lost. The code reads the tables, docs/phases.md is checked against them.
 *
 * A lost reply is unknown, and the next act is an observation: the same operation id is asked of the worker's journal.
 * That is one, because a worker writes an order down before it acts and its answer before it tells: an id that is not
 * there was never acted upon, one that is there is answered or still running, and never run a second time. */
#ifndef LMO_CORE_RULES_H
#define LMO_CORE_RULES_H

#include "base/ops.h"
#include "core/phase.h"

enum lmo_at_deadline {
    LMO_AT_DEADLINE_NOTHING = 0, /* it has none */
    LMO_AT_DEADLINE_ROLLBACK,    /* undo; the guest runs at the source */
    LMO_AT_DEADLINE_CONVERGENCE, /* the same, with the rates as the reason */
    LMO_AT_DEADLINE_ATTENTION,   /* a person must look; what the workers report still counts */
};

#define LMO_DEADLINE_BY_POLICY INT64_C(-1) /* the migration's convergence time-out */
#define LMO_DEADLINE_BY_LIMITS INT64_C(-2) /* the coordinator's queue time-out, written into the record when it is made */
#define LMO_TRIES_UNTIL_DEADLINE 0         /* giving up a call there would leave a guest or a resource in between */

/*  phase             deadline ms             at the deadline tries  what undoes it
 *  the first question after a restart or a lost reply */
#define LMO_PHASE_RULES(X)                                                                                           \
    X(QUEUED,             LMO_DEADLINE_BY_LIMITS, ROLLBACK,       1, "forgotten: nothing was asked of any host",     \
      "none")                                                                                                        \
    X(PRECHECK,           60000,                  ROLLBACK,       5, "nothing: it only looks",                       \
      "the same looks again")                                                                                        \
    X(DESTINATION_CREATE, 60000,                  ROLLBACK,       5, "discard",                                      \
      "destination's journal: was prepare carried out?")                                                             \
    X(VOLUME_ATTACH,      60000,                  ROLLBACK,       5, "detach_destination, per volume",               \
      "volume workers' journals: which exports were made?")                                                          \
    X(NETWORK_PRELOAD,    60000,                  ROLLBACK,       5, "nothing was made",                             \
      "fabric workers' journals: has the destination's controller confirmed?")                                       \
    X(DUAL_INGRESS,       60000,                  ROLLBACK,       5, "single_source, per port",                      \
      "fabric workers' journals: which ports are requested at both hosts?")                                          \
    X(PRECOPY,            LMO_DEADLINE_BY_POLICY, CONVERGENCE,    5, "job_abort, then discard, then revive",         \
      "source's journal: does the job run? its events: has it ended, is the guest paused?")                          \
    X(CUTOVER,            10 * 60000,             ATTENTION,      0, "none, unless the source ran on",               \
      "destination's events: committed, resumed, back or lost?")                                                     \
    X(FINALIZE,           30 * 60000,             ATTENTION,      0, "none: it is retried until done",               \
      "each worker's journal: what of the source is gone already?")                                                  \
    X(ROLLBACK,           30 * 60000,             ATTENTION,      0, "none: it is the undo, retried until done",     \
      "destination's journal: discarded, or committed after all?")                                                   \
    X(COMPLETED,          0,                      NOTHING,        0, "none: it has ended", "none")                   \
    X(ABORTED,            0,                      NOTHING,        0, "none: it has ended", "none")                   \
    X(ATTENTION,          0,                      NOTHING,        0, "a person's decision",                          \
      "both hosts: where is the guest, and how does each worker's record stand?")                                    \
    X(ABANDONED,          0,                      NOTHING,        0, "none: it has ended, as it stood", "none")

struct lmo_phase_rule {
    int64_t deadline_ms; /* 0: none; LMO_DEADLINE_BY_POLICY, _BY_LIMITS */
    enum lmo_at_deadline at_deadline;
    uint16_t tries;      /* of one call; LMO_TRIES_UNTIL_DEADLINE */
    const char *undo, *question;
};
const struct lmo_phase_rule *lmo_phase_rule(enum lmo_phase p);

/* How often a call of a phase that failed is asked about before it counts as possibly carried out, and is undone. */
#define LMO_TRIES_DRAIN 5
/* The one call of a cutover that can still be undone: of a guest that is shut off. */
#define LMO_TRIES_RELEASE 5

/*  call                undone by           what tells whether it happened, beside the worker's journal under its id */
#define LMO_OP_RULES(X)                                                                                                \
    X(DESCRIBE,           NONE,               "nothing: it only looks")                                                 \
    X(PRECHECK_INCOMING,  NONE,               "nothing: it only looks")                                                 \
    X(CHECK_REACH,        NONE,               "nothing: it only looks")                                                 \
    X(CHECK_VOLUME,       NONE,               "nothing: it only looks")                                                 \
    X(CHECK_PORT,         NONE,               "nothing: it only looks")                                                 \
    X(PREPARE,            DISCARD,            "the destination's record of the migration")                              \
    X(ATTACH,             DETACH_DESTINATION, "the volume's exports: one for the destination under this epoch")         \
    X(PRELOAD,            NONE,               "the fabric: the destination's controller is up to date")                 \
    X(DUAL,               SINGLE_SOURCE,      "the port's requested hosts")                                             \
    X(PERMIT,             DISCARD,            "the destination's record: armed")                                        \
    X(JOB_START,          REVIVE,             "the guest's job at the source")                                          \
    X(AWAIT_BOUND,        NONE,               "nothing: it only looks")                                                 \
    X(AWAIT_INSTALLED,    NONE,               "nothing: it only looks")                                                 \
    X(OPEN_GATE,          JOB_ABORT,          "the job's limits at the source")                                         \
    X(RELAY_FREEZE,       REVIVE,             "the source's record: frozen, gone, ran")                                 \
    X(RELAY_ANSWER,       NONE,               "the destination's record: committed or not")                             \
    X(REMOVE_SOURCE,      NONE,               "the source: no process, no definition")                                  \
    X(SETTLE,             NONE,               "the destination's definition of the guest")                              \
    X(DETACH_SOURCE,      NONE,               "the volume's exports: none for the source")                              \
    X(SINGLE_DESTINATION, NONE,               "the port's requested hosts")                                             \
    X(JOB_ABORT,          NONE,               "the source: no job")                                                     \
    X(DISCARD,            NONE,               "the destination's record: discarded, or committed")                      \
    X(DETACH_DESTINATION, NONE,               "the volume's exports: none for the destination")                         \
    X(SINGLE_SOURCE,      NONE,               "the port's requested hosts")                                             \
    X(REVIVE,             NONE,               "the source: the guest as its owner left it")                             \
    X(RELEASE,            RESTORE,            "the source's definition of the guest: none")                             \
    X(FENCE_SOURCE,       NONE,               "the volume's exports: the source's is fenced")                           \
    X(DEFINE,             NONE,               "the destination's definition of the guest")                              \
    X(RESTORE,            NONE,               "the source's definition of the guest")                                   \
    X(ASSIGN,             NONE,               "the port's requested host")                                              \
    X(CLOSE_SOURCE,       NONE,               "the worker's record: gone")                                              \
    X(CLOSE_DESTINATION,  NONE,               "the worker's record: gone")                                              \
    X(CLOSE_VOLUME,       NONE,               "the worker's record: gone")                                              \
    X(CLOSE_FABRIC,       NONE,               "the worker's record: gone")                                              \
    X(VOLUME_PROVISION,   VOLUME_RETIRE,      "the volume's exports")                                                   \
    X(VOLUME_RETIRE,      NONE,               "the volume is unknown to its service")

struct lmo_op_rule {
    enum lmo_op_kind undone_by; /* NONE: nothing of it needs undoing */
    const char *question;
};
const struct lmo_op_rule *lmo_op_rule(enum lmo_op_kind kind);

#endif
