/* source.h - the source's half of a migration, as a pure state machine: the job, the pause, the freeze and its
 * four answers, thaw and kill.
 *
 * Invariants:
 *  S1  The intent to freeze is durable before the process is stopped, its result durable before it is told.
 *  S2  `frozen` and `gone` are told only as the driver's (or the journaled) finding; a restart never makes one up.
 *  S3  A frozen source is continued only by REVIVE under a higher epoch than the freeze's, never by a timer.
 *  S4  A source that was found to run on after its pause answers `running` for the rest of the migration.
 *  S7  Where no finding is to be had, a source that lives and whose job is over answers `running`: nobody but us will
 *      ever resume it or end it, it is the newest copy there is, and no earlier answer has let the destination commit
 *      (that would stand in the stage). Whether it ran since its pause does not matter then: it is the guest.
 *  S5  A freeze for a closed or superseded migration is refused (by the caller of the step: epoch and closed check).
 *  S6  KILL is obeyed only for a source that is frozen, gone or killed: never a running guest.
 *
 * Stages: idle, job (pre-copy under way), suspended (paused by switch-over), freezing (intent), frozen, gone (ended
 * after the pause, never ran), ran (resumed here after the pause), killing, killed, reviving, revived. */
#ifndef LMO_WORKERS_SOURCE_H
#define LMO_WORKERS_SOURCE_H

#include "base/err.h"
#include "base/ops.h"
#include "base/types.h"

#define LMO_SRC_STAGES(X)       \
    X(IDLE, "idle")             \
    X(JOB, "job")               \
    X(SUSPENDED, "suspended")   \
    X(FREEZING, "freezing")     \
    X(FROZEN, "frozen")         \
    X(GONE, "gone")             \
    X(RAN, "ran")               \
    X(KILLING, "killing")       \
    X(KILLED, "killed")         \
    X(REVIVING, "reviving")     \
    X(REVIVED, "revived")
enum lmo_src_stage {
#define X(name, text) LMO_SRC_##name,
    LMO_SRC_STAGES(X)
#undef X
    LMO_SRC_STAGE_COUNT
};
const char *lmo_src_stage_text(enum lmo_src_stage s);
enum lmo_src_stage lmo_src_stage_from_text(const char *text);

struct lmo_src {
    /* durable */
    char migration[LMO_ID_MAX];
    char vm[LMO_UUID_MAX];
    uint64_t epoch;               /* of the job */
    uint64_t freeze_epoch;        /* under which it was frozen */
    enum lmo_src_stage stage;
    bool job_running;             /* the migrate call (or an adopted job) has not ended */
    bool gate_open;
    bool final_paused;            /* its owner had paused the guest */
    char evidence[512];
    int64_t frozen_us;            /* CLOCK_REALTIME */
    uint64_t freeze_us;
    /* volatile */
    uint64_t pause;               /* number of the pause; 1 is the first */
    uint64_t freeze_started_boot_us;
    bool resumed_seen;            /* a resume was reported while a freeze was under way */
    bool freezing, killing, reviving; /* under way */
    bool stuck_told;
    int64_t since_ms;             /* when what is being retried began; CLOCK_BOOTTIME */
    uint32_t tries;
    int64_t retry_ms;
};

enum lmo_src_event_kind {
    LMO_SRCE_JOB_STARTED = 1,
    LMO_SRCE_SUSPENDED,       /* hypervisor: paused by switch-over */
    LMO_SRCE_RESUMED,         /* hypervisor: runs (again) here */
    LMO_SRCE_STOPPED,         /* hypervisor: the process has ended */
    LMO_SRCE_JOB_END,         /* ok, text, duration_us */
    LMO_SRCE_GATE_OPENED,
    LMO_SRCE_FREEZE,          /* asked by the destination's worker or relayed; epoch of the permit */
    LMO_SRCE_FREEZE_RESULT,   /* the driver's finding */
    LMO_SRCE_KILL,            /* the destination runs: kill the copy here */
    LMO_SRCE_KILL_OK, LMO_SRCE_KILL_FAILED,
    LMO_SRCE_REVIVE,          /* order of the coordinator: the source is the guest; epoch */
    LMO_SRCE_REVIVE_OK, LMO_SRCE_REVIVE_FAILED,
    LMO_SRCE_RESTARTED,       /* this worker has just started; `state`, `stopped` as observed */
    LMO_SRCE_TIMER,
    LMO_SRCE_COUNT
};

struct lmo_src_event {
    enum lmo_src_event_kind kind;
    int64_t now_ms;           /* CLOCK_BOOTTIME */
    uint64_t now_boot_us;
    int64_t now_us;           /* CLOCK_REALTIME or the hypervisor's own stamp */
    uint64_t epoch;
    bool ok;
    bool final_paused;
    const char *text;         /* borrowed; may be NULL */
    uint64_t duration_us;
    enum lmo_freeze_answer answer; /* FREEZE_RESULT */
    enum lmo_run_state state; /* RESTARTED; FREEZE_RESULT with `unknown`: as seen after it, UNKNOWN if it was not */
};

struct lmo_src_actions {
    bool persist;
    bool notify_suspended;    /* tell the destination's worker, at once, before persisting (it has an undo) */
    bool freeze;              /* call the driver; only after persist */
    bool answer;              /* tell every waiting asker `next->...`: the fields below; only after persist */
    enum lmo_freeze_answer told;
    bool kill;                /* kill the process here */
    bool revive;              /* continue and, if libvirt left it paused, resume it */
    int64_t wake_ms;
    int refused;              /* KILL, REVIVE, FREEZE: negative LMO_E_* if it may not be done now */
    bool kill_done, revive_done; /* answer waiting KILL / REVIVE callers with success */
    unsigned report_count;
    struct lmo_worker_event report[4];
};

/* Does the stage answer a freeze for itself? Such an answer is durable and no look at the guest changes it (S2, S4), so it
 * is told before a worker that has just started has seen anything: a stopped process keeps its hypervisor silent for long,
 * and the guest stands meanwhile. */
bool lmo_src_answer_stands(const struct lmo_src *s, enum lmo_freeze_answer *ret);
void lmo_src_step(const struct lmo_src *current, const struct lmo_src_event *ev, struct lmo_src *next,
                  struct lmo_src_actions *out);
const char *lmo_src_broken(const struct lmo_src *before, const struct lmo_src *after, const struct lmo_src_actions *a);

#endif
