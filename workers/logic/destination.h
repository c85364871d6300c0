/* destination.h - the destination's half of a cutover, as a pure state machine.
 *
 * No I/O, no clock, no allocation: time rides in the event, what to do comes out as data. The worker's runtime
 * (workers/cutover_destination.c) carries it out, in this order: PERSIST the new state, then everything else.
 *
 * Invariants (checked by lmo_dst_broken after every step):
 *  D1  FENCE, VERIFY and RESUME are never asked for before `committed` is durable, and `committed` is only ever
 *      reached through the source's word: `frozen` or `gone`. No time bound, no restart and no permit replaces it.
 *  D2  RESUME is never asked for before every volume of the permit is fenced AND verified.
 *  D3  From `committed` on the copy is never removed by us and DISCARD is refused, under every epoch.
 *  D4  The copy is removed only when the source has answered `running`, or when it was never loaded, or when a
 *      DISCARD comes before it was loaded.
 *  D5  A permit is necessary: without one the loaded guest stays paused, and a permit is asked for.
 *  D6  Whatever is asked for and not answered is asked again, with a back-off that is capped; nothing is given up.
 *
 * Stages, with what each makes true:
 *   idle       known here (an op of this migration came), no permit
 *   armed      the permit is journaled; the guest is not loaded
 *   asking     loaded and paused; the source is being asked to freeze
 *   committed  the source's word is journaled: fences are being put up
 *   fenced     every volume fenced and verified, journaled: the guest is being resumed
 *   resumed    it runs here (or keeps its owner's pause); the source is being told to kill its copy
 *   done       the source's copy is dead, or the coordinator has taken over clearing it
 *   discarding the copy here is being removed
 *   discarded  nothing is here and nothing will run here under this permit
 *   lost       the copy died before it was resumed, after the source's word (`fence_sent` says how far it got) */
#ifndef LMO_WORKERS_DESTINATION_H
#define LMO_WORKERS_DESTINATION_H

#include "base/err.h"
#include "base/ops.h"
#include "base/types.h"

#define LMO_DST_STAGES(X)      \
    X(IDLE, "idle")            \
    X(ARMED, "armed")          \
    X(ASKING, "asking")        \
    X(COMMITTED, "committed")  \
    X(FENCED, "fenced")        \
    X(RESUMED, "resumed")      \
    X(DONE, "done")            \
    X(DISCARDING, "discarding")\
    X(DISCARDED, "discarded")  \
    X(LOST, "lost")
enum lmo_dst_stage {
#define X(name, text) LMO_DST_##name,
    LMO_DST_STAGES(X)
#undef X
    LMO_DST_STAGE_COUNT
};
const char *lmo_dst_stage_text(enum lmo_dst_stage s);
enum lmo_dst_stage lmo_dst_stage_from_text(const char *text); /* LMO_DST_STAGE_COUNT: unknown */

#define LMO_ASK_RELAY_AFTER_MS 150  /* no direct answer for so long: also ask through the coordinator */
#define LMO_ASK_RETRY_MIN_MS 50
#define LMO_ASK_RETRY_MAX_MS 1000
#define LMO_FENCE_RETRY_MIN_MS 20
#define LMO_FENCE_RETRY_MAX_MS 1000
#define LMO_STUCK_AFTER_MS 5000     /* say so, loudly, once */

struct lmo_dst {
    /* durable */
    char migration[LMO_ID_MAX];
    char vm[LMO_UUID_MAX];
    uint64_t epoch;                 /* of the permit; 0 before it */
    enum lmo_dst_stage stage;
    bool has_permit;
    bool loaded;                    /* the hypervisor said so (or it was observed after a restart) */
    bool final_paused;              /* the owner had paused it */
    unsigned volume_count;
    bool fence_sent;                /* durable before the first fence leaves */
    int64_t loaded_us;              /* CLOCK_REALTIME; for the record only */
    enum lmo_freeze_answer answer;  /* the source's word that decided; UNKNOWN until then */
    char evidence[512];
    /* volatile: rebuilt after a restart */
    uint32_t fenced, verified;      /* bit per volume */
    uint32_t fencing, verifying;    /* under way */
    bool asking, resuming, removing, telling; /* under way */
    bool activated;                 /* ingress was opened early */
    bool relay_asked, stuck_told, permit_wanted_told, discard_wanted;
    uint32_t tries;
    int64_t loaded_ms, asked_ms, retry_ms; /* CLOCK_BOOTTIME */
    uint64_t loaded_boot_us, committed_boot_us, fenced_boot_us, verify_us;
    int64_t frozen_us;
    uint64_t freeze_us;
};

enum lmo_dst_event_kind {
    LMO_DSTE_PERMIT = 1,     /* verified and armable; epoch, volume_count, final_paused set */
    LMO_DSTE_SUSPENDED,      /* the source's worker: the guest has just been paused there */
    LMO_DSTE_LOADED,         /* hypervisor: incoming state complete */
    LMO_DSTE_COPY_GONE,      /* hypervisor: the domain here has ended, or is observed absent */
    LMO_DSTE_ANSWER,         /* the source's word, directly or relayed */
    LMO_DSTE_NO_ANSWER,      /* the direct call failed or timed out */
    LMO_DSTE_FENCE_OK, LMO_DSTE_FENCE_FAILED,     /* index */
    LMO_DSTE_VERIFY_OK, LMO_DSTE_VERIFY_FAILED,   /* index */
    LMO_DSTE_RESUME_OK, LMO_DSTE_RESUME_FAILED,
    LMO_DSTE_TELL_OK, LMO_DSTE_TELL_FAILED,       /* the source's worker killed its copy / could not be told */
    LMO_DSTE_DISCARD,        /* order of the coordinator */
    LMO_DSTE_REMOVE_OK, LMO_DSTE_REMOVE_FAILED,
    LMO_DSTE_RESTARTED,      /* this worker has just started; `state` is what the hypervisor shows now */
    LMO_DSTE_TIMER,
    LMO_DSTE_COUNT
};

struct lmo_dst_event {
    enum lmo_dst_event_kind kind;
    int64_t now_ms;          /* CLOCK_BOOTTIME */
    uint64_t now_boot_us;    /* CLOCK_BOOTTIME */
    int64_t now_us;          /* CLOCK_REALTIME, or the hypervisor's own stamp for LOADED and RESUME_OK */
    unsigned index;
    uint64_t epoch;
    unsigned volume_count;
    bool final_paused;
    enum lmo_freeze_answer answer;
    const char *text;        /* evidence or reason; borrowed; may be NULL */
    int64_t frozen_us;       /* ANSWER */
    uint64_t duration_us;    /* ANSWER, VERIFY_OK */
    enum lmo_run_state state;/* RESTARTED: as observed, never UNKNOWN. REMOVE_FAILED: as observed, or UNKNOWN */
};

/* What to do. All of it only after `next` is durable, if persist is set. */
struct lmo_dst_actions {
    bool persist;
    bool activate;           /* open the ingress early: FIRST of all, even before persisting (it has an undo) */
    bool ask;                /* POST freeze to the source's worker; may leave before persisting: it changes nothing here */
    uint32_t fence, verify;  /* bit per volume */
    bool resume;             /* run the guest; with final_paused: keep it paused, observe only */
    bool tell;               /* POST kill to the source's worker */
    bool remove;             /* remove the copy here; must refuse a loaded one unless stage is DISCARDING by answer */
    bool remove_loaded;      /* the source has answered `running`: a loaded copy may be destroyed */
    int64_t wake_ms;         /* CLOCK_BOOTTIME; 0: none */
    int refused;             /* PERMIT, DISCARD: negative LMO_E_* if it may not be done now (BUSY: ask again; CONFLICT:
                              * committed, only forward; GONE: discarded already) */
    bool discard_done;       /* answer every waiting DISCARD with `refused` (0: nothing is here any more) */
    unsigned report_count;   /* durable worker events, to be journaled in the same transaction */
    struct lmo_worker_event report[6];
};

void lmo_dst_step(const struct lmo_dst *current, const struct lmo_dst_event *ev, struct lmo_dst *next,
                  struct lmo_dst_actions *out);
/* NULL, or the sentence of the invariant that the step broke. */
const char *lmo_dst_broken(const struct lmo_dst *before, const struct lmo_dst *after, const struct lmo_dst_actions *a);

#endif
