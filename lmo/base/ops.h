/* ops.h - the vocabulary between coordinator and workers: operations (orders) and worker events (facts).
 *
 * One table each. The coordinator's core creates tasks of these kinds, proto/ encodes them, a worker executes
 * them. Names are what is stored and sent; the numbers never leave the process. */
#ifndef LMO_BASE_OPS_H
#define LMO_BASE_OPS_H

#include "base/types.h"

#include <stdbool.h>
#include <stdint.h>

/* Which of a worker's capabilities serves an operation, and so which worker it goes to. */
enum lmo_op_role {
    LMO_OP_ROLE_NONE = 0,
    LMO_OP_ROLE_SOURCE,      /* hypervisor of the source host */
    LMO_OP_ROLE_DESTINATION, /* hypervisor (and host network) of the destination host */
    LMO_OP_ROLE_VOLUME,      /* the worker that serves one volume's service */
    LMO_OP_ROLE_FABRIC,      /* the worker that serves one port's fabric */
};

/*  name               text                  role         mutates timeout_ms  what it does */
#define LMO_OPS(X)                                                                                                \
    X(DESCRIBE,          "describe",           SOURCE,      false,  10000) /* facts and XML of the live guest */    \
    X(PRECHECK_INCOMING, "precheck_incoming",  DESTINATION, false,  10000) /* would the domain be accepted there */ \
    X(CHECK_REACH,       "check_reach",        SOURCE,      false,  10000) /* destination's hypervisor reached */    \
    X(CHECK_VOLUME,      "check_volume",       VOLUME,      false,  10000) /* reachable, attached as described */   \
    X(CHECK_PORT,        "check_port",         FABRIC,      false,  10000) /* known, bound, no state to lose */     \
    X(PREPARE,           "prepare",            DESTINATION, true,   15000) /* what the incoming guest needs */      \
    X(ATTACH,            "attach",             VOLUME,      true,   15000) /* export for the destination's epoch */ \
    X(PRELOAD,           "preload",            FABRIC,      true,   15000) /* port-independent policy confirmed */  \
    X(DUAL,              "dual",               FABRIC,      true,   15000) /* delivery to both requested */         \
    X(PERMIT,            "permit",             DESTINATION, true,   15000) /* journal it; reach source, volumes */  \
    X(JOB_START,         "job_start",          SOURCE,      true,   30000) /* pre-copy under way, gate shut */      \
    X(AWAIT_BOUND,       "await_bound",        FABRIC,      false,  30000) /* destination bound in the fabric */    \
    X(AWAIT_INSTALLED,   "await_installed",    DESTINATION, false,  30000) /* flows installed at the destination */ \
    X(OPEN_GATE,         "open_gate",          SOURCE,      true,   10000) /* switch-over allowed from here on */   \
    X(RELAY_FREEZE,      "relay_freeze",       SOURCE,      true,   15000) /* a freeze, through the coordinator */  \
    X(RELAY_ANSWER,      "relay_answer",       DESTINATION, true,   15000) /* its answer, on the way back */        \
    X(REMOVE_SOURCE,     "remove_source",      SOURCE,      true,   60000) /* kill and undefine the moved guest */  \
    X(SETTLE,            "settle",             DESTINATION, true,   15000) /* persistence, autostart as it was */   \
    X(DETACH_SOURCE,     "detach_source",      VOLUME,      true,   15000) /* the fenced export's remains */        \
    X(SINGLE_DESTINATION,"single_destination", FABRIC,      true,   15000) /* ingress at the destination alone */   \
    X(JOB_ABORT,         "job_abort",          SOURCE,      true,   60000) /* done when the job has ended */        \
    X(DISCARD,           "discard",            DESTINATION, true,   30000) /* refused once committed */             \
    X(DETACH_DESTINATION,"detach_destination", VOLUME,      true,   15000) /* roll-back of attach */                \
    X(SINGLE_SOURCE,     "single_source",      FABRIC,      true,   15000) /* roll-back of dual */                  \
    X(REVIVE,            "revive",             SOURCE,      true,   60000) /* the source is the guest: as before */ \
    X(RELEASE,           "release",            SOURCE,      true,   15000) /* shut off: not defined here any more */    \
    X(FENCE_SOURCE,      "fence_source",       VOLUME,      true,   15000) /* shut off: its old export is fenced */     \
    X(DEFINE,            "define",             DESTINATION, true,   15000) /* shut off: defined here from now on */     \
    X(RESTORE,           "restore",            SOURCE,      true,   15000) /* roll-back of release */                   \
    X(ASSIGN,            "assign",             FABRIC,      true,   15000) /* shut off: its port is for the new host */ \
    X(CLOSE_SOURCE,      "close_source",       SOURCE,      true,   10000) /* forget ops; refuse this epoch */      \
    X(CLOSE_DESTINATION, "close_destination",  DESTINATION, true,   10000)                                          \
    X(CLOSE_VOLUME,      "close_volume",       VOLUME,      true,   10000)                                          \
    X(CLOSE_FABRIC,      "close_fabric",       FABRIC,      true,   10000)                                          \
    X(VOLUME_PROVISION,  "volume_provision",   VOLUME,      true,   15000) /* the cloud's: first attachment */      \
    X(VOLUME_RETIRE,     "volume_retire",      VOLUME,      true,   15000) /* the cloud's: forget a volume */

enum lmo_op_kind {
    LMO_OP_NONE = 0,
#define X(name, text, role, mutates, timeout_ms) LMO_OP_##name,
    LMO_OPS(X)
#undef X
    LMO_OP_COUNT
};

struct lmo_op_info {
    const char *text;
    enum lmo_op_role role;
    bool mutates;        /* journaled by the worker: same id, same answer */
    uint32_t timeout_ms; /* how long the worker may take before the outcome counts as unknown */
};
/* Static row of the table; kind must be a valid kind other than NONE. */
const struct lmo_op_info *lmo_op_info(enum lmo_op_kind kind);
/* CLOSE_*: what the worker has journaled of the migration in that role may be forgotten. */
bool lmo_op_is_close(enum lmo_op_kind kind);
/* LMO_OP_NONE for a text that is not in the table. */
enum lmo_op_kind lmo_op_from_text(const char *text);

/* Facts that a worker reports on its event stream. All but PROGRESS are durable: journaled at the worker together
 * with the state that they speak of, numbered, and kept until the coordinator has committed what followed. */
#define LMO_WORKER_EVENTS(X)                                                                         \
    X(PROGRESS,       "progress")       /* source: a sample of the running job */                    \
    X(SUSPENDED,      "suspended")      /* source: vCPUs paused by switch-over; blackout begins */   \
    X(SOURCE_RESUMED, "source_resumed") /* source: the hypervisor resumed the guest here */          \
    X(JOB_END,        "job_end")        /* source: libvirt's call came back; decides nothing alone */\
    X(GATE_ABORTED,   "gate_aborted")   /* source: convergence came near with the gate shut */       \
    X(DEADMAN,        "deadman")        /* source: coordinator silent too long; abort asked */       \
    X(LOADED,         "loaded")         /* destination: incoming state complete, guest paused */     \
    X(FREEZE_WANTED,  "freeze_wanted")  /* destination: source does not answer directly; relay */    \
    X(PERMIT_WANTED,  "permit_wanted")  /* destination: loaded, but no permit is journaled */        \
    X(COMMITTED,      "committed")      /* destination: source's word is in; only forward now */     \
    X(FENCED,         "fenced")         /* destination: every volume fenced and verified */          \
    X(RESUMED,        "resumed")        /* destination: the guest runs (or keeps its owner's pause) */\
    X(BACK,           "back")           /* destination: source runs on; this copy is destroyed */    \
    X(COPY_LOST,      "copy_lost")      /* destination: its copy died before it was resumed */       \
    X(STUCK,          "stuck")          /* any: waits for something; the text says what, since when */\
    X(SOURCE_GONE,    "source_gone")    /* source: its process is proven dead */

enum lmo_worker_event_kind {
    LMO_WEV_NONE = 0,
#define X(name, text) LMO_WEV_##name,
    LMO_WORKER_EVENTS(X)
#undef X
    LMO_WEV_COUNT
};
const char *lmo_worker_event_text(enum lmo_worker_event_kind kind);
enum lmo_worker_event_kind lmo_worker_event_from_text(const char *text);

/* The four answers to a freeze (docs/adr on freeze evidence). */
enum lmo_freeze_answer {
    LMO_FREEZE_UNKNOWN = 0, /* the watch was broken and no other evidence settles it */
    LMO_FREEZE_FROZEN,      /* stopped, and proven never to have run since the pause */
    LMO_FREEZE_GONE,        /* ended, and proven never to have run after the pause */
    LMO_FREEZE_RUNNING,     /* it did resume; it has been continued at once */
};
const char *lmo_freeze_answer_name(enum lmo_freeze_answer a);
enum lmo_freeze_answer lmo_freeze_answer_from_name(const char *s); /* UNKNOWN for anything else */

/* A worker's event, decoded. Only the fields that its kind speaks of are set. */
struct lmo_worker_event {
    enum lmo_worker_event_kind kind;
    char migration[LMO_ID_MAX];
    char vm[LMO_UUID_MAX];
    uint64_t epoch;
    uint64_t seq;                  /* of the worker's stream; 0: volatile */
    int64_t at_us;                 /* CLOCK_REALTIME where it happened */
    bool ok;                       /* JOB_END: the call succeeded. COPY_LOST: a fence may have been sent */
    char text[LMO_TEXT_MAX];
    char evidence[512];
    enum lmo_run_state state;
    uint64_t duration_us;          /* JOB_END: of the call. RESUMED: loaded to resumed. COMMITTED: of the freeze */
    uint64_t fence_us, verify_us;  /* FENCED */
    char answer[16];               /* COMMITTED */
    struct lmo_progress progress;  /* PROGRESS */
};

#endif
