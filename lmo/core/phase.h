/* phase.h - the phases of a migration: one table, from which the code, the documents and the tests are made.
 *
 * A guest that is shut off has no memory to copy and nothing that runs: it goes precheck, volume_attach, cutover,
 * finalize.
 *
 * Legality is what the successor masks say, never the numeric order. Names are stored, numbers never. */
#ifndef LMO_CORE_PHASE_H
#define LMO_CORE_PHASE_H

#include <stdbool.h>
#include <stdint.h>

#define LMO_PHASE_BIT(p) (UINT32_C(1) << LMO_PHASE_##p)

/* Attributes. */
#define LMO_PHASE_TERMINAL UINT32_C(1)     /* nothing follows; nothing is held */
#define LMO_PHASE_CANCELLABLE UINT32_C(2)  /* a request to cancel is honoured here */
#define LMO_PHASE_NO_RETURN UINT32_C(4)    /* switch-over may have happened: only what workers report decides */
#define LMO_PHASE_SOURCE_RUNS UINT32_C(8)  /* the guest may run at the source */
#define LMO_PHASE_DEST_RUNS UINT32_C(16)   /* the guest may run at the destination */
#define LMO_PHASE_BY_EVENT UINT32_C(32)    /* of a live guest: left on a worker's event, not when its tasks are done */
#define LMO_PHASE_RESTING UINT32_C(64)     /* open, but nothing is tried: it waits for a person or for a fact */

/*  name                text                   successors                                     attributes */
#define LMO_PHASES(X)                                                                                              \
    X(QUEUED,             "queued",              LMO_PHASE_BIT(PRECHECK) | LMO_PHASE_BIT(ABORTED),                   \
      LMO_PHASE_CANCELLABLE | LMO_PHASE_SOURCE_RUNS)                                                                 \
    X(PRECHECK,           "precheck",                                                                                \
      LMO_PHASE_BIT(QUEUED) | LMO_PHASE_BIT(DESTINATION_CREATE) | LMO_PHASE_BIT(VOLUME_ATTACH) |                     \
          LMO_PHASE_BIT(ROLLBACK),                                                                                   \
      LMO_PHASE_CANCELLABLE | LMO_PHASE_SOURCE_RUNS)                                                                 \
    X(DESTINATION_CREATE, "destination_create",  LMO_PHASE_BIT(VOLUME_ATTACH) | LMO_PHASE_BIT(ROLLBACK),             \
      LMO_PHASE_CANCELLABLE | LMO_PHASE_SOURCE_RUNS)                                                                 \
    X(VOLUME_ATTACH,      "volume_attach",                                                                           \
      LMO_PHASE_BIT(NETWORK_PRELOAD) | LMO_PHASE_BIT(CUTOVER) | LMO_PHASE_BIT(ROLLBACK),                             \
      LMO_PHASE_CANCELLABLE | LMO_PHASE_SOURCE_RUNS)                                                                 \
    X(NETWORK_PRELOAD,    "network_preload",     LMO_PHASE_BIT(DUAL_INGRESS) | LMO_PHASE_BIT(ROLLBACK),              \
      LMO_PHASE_CANCELLABLE | LMO_PHASE_SOURCE_RUNS)                                                                 \
    X(DUAL_INGRESS,       "dual_ingress",        LMO_PHASE_BIT(PRECOPY) | LMO_PHASE_BIT(ROLLBACK),                   \
      LMO_PHASE_CANCELLABLE | LMO_PHASE_SOURCE_RUNS)                                                                 \
    X(PRECOPY,            "precopy",                                                                                 \
      LMO_PHASE_BIT(CUTOVER) | LMO_PHASE_BIT(FINALIZE) | LMO_PHASE_BIT(ROLLBACK) | LMO_PHASE_BIT(ATTENTION),         \
      LMO_PHASE_CANCELLABLE | LMO_PHASE_SOURCE_RUNS | LMO_PHASE_DEST_RUNS | LMO_PHASE_BY_EVENT)                      \
    X(CUTOVER,            "cutover",                                                                                 \
      LMO_PHASE_BIT(FINALIZE) | LMO_PHASE_BIT(ROLLBACK) | LMO_PHASE_BIT(ATTENTION),                                  \
      LMO_PHASE_NO_RETURN | LMO_PHASE_SOURCE_RUNS | LMO_PHASE_DEST_RUNS | LMO_PHASE_BY_EVENT)                        \
    X(FINALIZE,           "finalize",            LMO_PHASE_BIT(COMPLETED) | LMO_PHASE_BIT(ATTENTION),                \
      LMO_PHASE_NO_RETURN | LMO_PHASE_DEST_RUNS)                                                                     \
    X(ROLLBACK,           "rollback",                                                                                \
      LMO_PHASE_BIT(ABORTED) | LMO_PHASE_BIT(CUTOVER) | LMO_PHASE_BIT(FINALIZE) | LMO_PHASE_BIT(ATTENTION),          \
      LMO_PHASE_SOURCE_RUNS | LMO_PHASE_DEST_RUNS)                                                                   \
    X(COMPLETED,          "completed",           0, LMO_PHASE_TERMINAL | LMO_PHASE_DEST_RUNS)                        \
    X(ABORTED,            "aborted",             0, LMO_PHASE_TERMINAL | LMO_PHASE_SOURCE_RUNS)                      \
    X(ATTENTION,          "attention",                                                                               \
      LMO_PHASE_BIT(CUTOVER) | LMO_PHASE_BIT(FINALIZE) | LMO_PHASE_BIT(ROLLBACK) | LMO_PHASE_BIT(ABANDONED),         \
      LMO_PHASE_SOURCE_RUNS | LMO_PHASE_DEST_RUNS | LMO_PHASE_BY_EVENT | LMO_PHASE_RESTING)                          \
    X(ABANDONED,          "abandoned",           0,                                                                  \
      LMO_PHASE_TERMINAL | LMO_PHASE_SOURCE_RUNS | LMO_PHASE_DEST_RUNS)

enum lmo_phase {
#define X(name, text, successors, attributes) LMO_PHASE_##name,
    LMO_PHASES(X)
#undef X
    LMO_PHASE_COUNT
};

const char *lmo_phase_text(enum lmo_phase p);
/* LMO_PHASE_COUNT for a text that is not in the table. */
enum lmo_phase lmo_phase_from_text(const char *text);
bool lmo_phase_may_follow(enum lmo_phase from, enum lmo_phase to);
bool lmo_phase_is(enum lmo_phase p, uint32_t attribute);

#endif
