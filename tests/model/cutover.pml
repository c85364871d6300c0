/* cutover.pml - the cutover and its recovery, as a model for Spin. docs/model.md explains it and says what is left out.
 *
 * One guest, one volume, one permit. Actors: the source's worker (source.pml), the destination's worker
 * (destination.pml), the coordinator and the one that takes over from it (coordinator.pml); and the world (world.pml):
 * the two hypervisors, the volume service, the network. Every transition of a machine of ours is a step of
 * workers/logic or lmo/core and says so in a line "LMO ..."; replay.c does the same step with the real function and
 * compares.
 *
 * Durable is what a crash leaves alone: the stages, the permit, the answer, the record. What the comments call volatile
 * is forgotten by a crash. A step, its journal and its effects are one transition, because a crash between them is the
 * same as one before (nothing happened) or behind (the effect is under way, and lost or late); the two messages that
 * leave before the journal have a crash of their own (DE_CRASH_ASKED, SE_CRASH_TOLD).
 *
 * Every fault takes one from a budget (FAULTS), and nothing is asked again before its answer can have changed. So there
 * is no infinite run (checked; with ENDLESS there is one, to see that it would be noticed), and "everything is resolved
 * in the end" is a property of the states without successors.
 *
 * Switches, each of which breaks the protocol in one place and must be found:
 *   NO_FREEZE NO_FENCE LOOK_FIRST RESTART_RESUMES TIME_BOUND THAW_ANY_EPOCH NO_ADOPTION NO_TERM TERM_VOLATILE
 *   PERMIT_VOLATILE REPEAT_LOST
 * and three that were ours until this model found them: SILENT_LOSS WORD_HOLDS REOPENED. */
#include "codes.h"

#ifndef FAULTS
#define FAULTS 1
#endif

/* ------------------------------------------------------------------ the world */

/* the source's process */
#define P_RUN    0 /* has never been paused by a switch-over */
#define P_PAUSED 1
#define P_RAN    2 /* was paused, and runs again */
#define P_DEAD   3
byte proc;
bit stopped;      /* by a signal: nothing of it happens, whatever it was told */
bit queued;       /* ... such as this: libvirt's order to resume */
bit watch;        /* the source's driver has an unbroken watch since the pause */
bit ran;          /* history: it ran after its pause */

/* libvirt's migration at the source */
#define J_NONE 0
#define J_JOB  1 /* pre-copy */
#define J_WAIT 2 /* guest paused, waits for the destination's finish */
#define J_OVER 3 /* it has resumed the guest, or killed it, or given up in pre-copy */
#define J_LOST 4 /* it was restarted behind the pause: it leaves the guest as it is */
byte job;
bit finish;       /* the destination's libvirt has reported finish; the reply is under way, or lost */
bit abort_asked;

/* the destination's process */
#define G_INCOMING 0
#define G_LOADED   1
#define G_RUNNING  2
#define G_DEAD     3
byte copy;
bit copy_killed;  /* history: it died by itself */
bit ingress;      /* frames reach the destination's port */

/* the volume */
bit inflight;     /* a write that the source issued before its pause, not on the volume yet */
#define F_NONE 0
#define F_BEGUN 1 /* recorded; the export is gone, what was in flight is not drained */
#define F_DONE 2
byte fenced;

/* events of the hypervisors, on their way to the worker (its volatile queue, in this order) */
bit hs_suspended, hs_resumed, hs_stopped;
byte hs_end;      /* the migrate call came back: 1 with success, 2 with an error */
bit hd_loaded, hd_gone;

/* ------------------------------------------------------------------ the source's worker */

byte s_stage;
bit s_job;        /* job_running */
bit s_frozen;     /* it was frozen once: a dead process is not "ended by itself" */
bit s_raised;     /* the highest epoch seen is EPOCH_RAISED */
/* volatile */
bit s_pause, s_resumed_seen, s_kill, s_revive, s_again;
byte s_freeze;    /* 1: the driver is about to act, 2: half of it is done; 3, 4: the same, and the job was over before */
#ifdef LOOK_FIRST
byte s_found;
#endif

/* ------------------------------------------------------------------ the destination's worker */

byte d_stage;
bit d_permit, d_loaded;
byte d_answer;
/* volatile */
bit d_fenced, d_verified, d_fencing, d_verifying, d_asking, d_resuming, d_removing, d_telling, d_open, d_relay, d_again;
bit d_remove_loaded;

/* ------------------------------------------------------------------ the coordinator's record */

byte c_phase;
bit c_up = 1;
bit c_committed, c_resumed, c_discarded, c_raised;
bit c_relayed;    /* the relay was needed once */
byte c_over;      /* in attention: the phase whose deadline has passed, which can be gone back to */
/* tasks: 0 none or done, 1 waits for its retry, 2 order under way, 3 at the worker, 4 and above: reply under way */
#define O_NONE 0
#define O_WAIT 1
#define O_SENT 2
#define O_HELD 3
#define O_OK   4
#define O_BUSY 5
#define O_REFUSED 6 /* CONFLICT for a discard and a revive, GONE for a permit */
byte o_task;      /* the one of the present group: abort, discard, revive or remove, by phase */
byte o_start, o_permit;
byte o_relay;     /* its reply: O_OK + answer */
byte o_word;      /* relay_answer: 0 or O_SENT or O_WAIT */
byte word;        /* what it says */
/* reports of the workers' journals that the coordinator has not read */
bit e_end, e_loaded, e_permit, e_freeze, e_committed, e_resumed, e_back, e_lost, e_lost_fenced;

/* ------------------------------------------------------------------ the network */

/* the destination's question: 0 none, O_SENT, O_HELD at the source, O_OK + answer on its way back, or N_NONE */
#define N_NONE 9
byte ask;
byte fence, kill; /* 0 none, O_SENT, O_HELD */
bit told;         /* "suspended", from worker to worker */
bit late_ask, late_permit, late_start, late_fence; /* copies without anybody who waits for the answer */

/* What coordinators that are no longer in office had sent, T_*, and what it said. */
byte old, old_word;
#define OLD_AT_S (T_JOB_START | T_RELAY | T_ABORT | T_REVIVE | T_REMOVE)
#define OLD_AT_D (T_PERMIT | T_WORD | T_DISCARD)
/* The worker has heard of the one in office: its journal holds the higher term. Always so where nothing old is left. */
bit s_heard = 1, d_heard = 1;
#ifdef NO_TERM
#define S_OBEYS_OLD true
#define D_OBEYS_OLD true
#else
#ifdef TERM_VOLATILE
bit s_forgot, d_forgot;
#define S_KNOWS s_forgot = 0
#define D_KNOWS d_forgot = 0
#define S_OBEYS_OLD (!s_heard || s_forgot)
#define D_OBEYS_OLD (!d_heard || d_forgot)
#else
#define S_OBEYS_OLD (!s_heard)
#define D_OBEYS_OLD (!d_heard)
#endif
#endif
#ifndef S_KNOWS
#define S_KNOWS skip
#define D_KNOWS skip
#endif

byte faults = FAULTS;

/* scratch of one step, 0 between steps */
int acts, h_arg;
byte before, h_ev;

#define SOURCE_RUNS ((proc == P_RUN || proc == P_RAN) && !stopped)
/* The source lives, nobody but us will resume it or end it, and we have said that it is the guest (S7). */
#define KEPT        (proc == P_PAUSED && s_stage == S_RAN && (job == J_OVER || job == J_LOST))
#define UNDECIDED   (c_phase <= C_DISCARD || c_phase == C_REVIVE || c_phase == C_ATTENTION)
#define ROLLING     (c_phase >= C_DRAIN && c_phase <= C_REVIVE)
#define TASKS (((o_start > 0) * T_JOB_START) | ((o_permit > 0) * T_PERMIT) | ((o_relay > 0) * T_RELAY) | \
               ((o_word > 0) * T_WORD) | ((o_task > 0) * TASK_OF_PHASE))
#define TASK_OF_PHASE (c_phase == C_ABORT -> T_ABORT : (c_phase == C_DISCARD -> T_DISCARD : \
                       (c_phase == C_REVIVE -> T_REVIVE : T_REMOVE)))

/* ------------------------------------------------------------------ properties */

#define P_RUNNER   1  /* at most one copy runs */
#define P_STALE    2  /* the destination does not run with memory from before the source ran on */
#define P_WRITER   4  /* no write of the source lands behind one of the destination */
#define P_HARM     8  /* no copy is killed, removed or fenced off that runs, or that is the last one */
#define P_WORD     16 /* what was said or done early is never contradicted: frozen, relayed, ingress opened */
#define P_RESOLVED 32 /* every run ends where a run may end */
#define P_TERM     64 /* a worker that has heard of a coordinator obeys none before it */
/* All of them, unless a broken variant is to be shown to break a certain one. */
#ifndef PROPERTIES
#define PROPERTIES 127
#endif
#define HOLDS(p, condition) assert(!(PROPERTIES & (p)) || (condition))

/* Looked at after every transition that can touch them. */
inline check()
{
    HOLDS(P_RUNNER, !(copy == G_RUNNING && SOURCE_RUNS));
    HOLDS(P_STALE, !(copy == G_RUNNING && ran));
    HOLDS(P_HARM, !(SOURCE_RUNS && fenced != F_NONE))
}

/* What may be at the end of a run, when nothing more can happen. */
#define MOVED    (copy == G_RUNNING && proc == P_DEAD && fenced == F_DONE && ingress && c_phase == C_COMPLETED && \
                  (d_stage == D_RESUMED || d_stage == D_DONE) && s_stage == S_KILLED)
#define STAYED   (SOURCE_RUNS && copy == G_DEAD && fenced == F_NONE && !ingress && c_phase == C_ABORTED && \
                  d_stage == D_DISCARDED && (s_stage == S_REVIVED || s_stage == S_IDLE))
/* A person's, by design: the copy died by itself behind the source's word, */
#define LOST     (copy == G_DEAD && copy_killed && !SOURCE_RUNS && d_stage == D_LOST && c_phase == C_ATTENTION)
/* or both processes ended, and neither by us, */
#define BOTH_DEAD (copy == G_DEAD && copy_killed && proc == P_DEAD && d_stage == D_DISCARDED && \
                  (c_phase == C_ATTENTION || c_phase == C_REVIVE || c_phase == C_ABORTED))
/* or nobody can know whether the source ran on, and it will never say. */
#define UNKNOWABLE (copy == G_LOADED && !SOURCE_RUNS && !stopped && !watch && d_stage == D_ASKING && \
                  proc == P_DEAD && (s_stage == S_JOB || s_stage == S_SUSPENDED) && UNDECIDED)

/* A person has taken the guest into their own hands: where it is then is theirs, that no two of it run is not. */
#define ABANDONED (c_phase == C_ABANDONED)

/* ------------------------------------------------------------------ the trail */

#ifdef COVER
c_decl { \#include "cover.h" }
bit known;
#define COVERED(machine, stage) \
    c_code { now.known = lmo_known(machine, now.h_ev, now.h_arg, now.before, now.stage, now.acts); }; \
    assert(known); known = 0
#else
#define COVERED(machine, stage) skip
#endif
#define CLEAN acts = 0; before = 0; h_ev = 0; h_arg = 0

inline s_begin() { acts = 0; before = s_stage }
inline s_end(ev, arg)
{
    h_ev = ev; h_arg = arg;
    printf("LMO S %d %d %d %d\n", h_ev, h_arg, s_stage, acts);
    check();
    COVERED(1, s_stage);
    CLEAN
}
inline d_begin() { acts = 0; before = d_stage }
inline d_end(ev, arg)
{
    h_ev = ev; h_arg = arg;
    printf("LMO D %d %d %d %d\n", h_ev, h_arg, d_stage, acts);
    check();
    COVERED(2, d_stage);
    CLEAN
}
inline c_begin() { acts = 0; before = c_phase }
inline c_end(ev, arg)
{
    h_ev = ev; h_arg = arg;
    acts = TASKS | (c_committed * 256) | (c_resumed * 512) | (c_discarded * 1024) | (c_raised * 2048);
    printf("LMO C %d %d %d %d\n", h_ev, h_arg, c_phase, acts);
    COVERED(3, c_phase);
    CLEAN
}
/* What the world does has no machine of ours behind it; the line is for people. */
inline w_end(what)
{
    h_ev = what;
    printf("LMO W %d 0 %d 0\n", h_ev, proc);
    check();
    COVERED(4, proc);
    CLEAN
}
/* ------------------------------------------------------------------ who acts */

/* An order of the coordinator in office is here; a copy of it that an earlier one had sent is the same call. With
 * OLDER_IDS it counts as another: so that without terms also a call under an id of before is looked at. */
#ifdef OLDER_IDS
#define SAME_CALL(task) 255
#else
#define SAME_CALL(task) (255 - (task))
#endif
inline s_hears(task)
{
    old = old & SAME_CALL(task);
    if :: c_up -> s_heard = 1; S_KNOWS :: else fi /* else it is the old one's */
}
inline d_hears(task)
{
    old = old & SAME_CALL(task);
    if :: c_up -> d_heard = 1; D_KNOWS :: else fi /* else it is the old one's */
}
/* Of one that was overtaken, and is carried out. */
inline s_obeys_old(task)
{
    HOLDS(P_TERM, !s_heard);
    old = old & (255 - (task));
    if :: old & OLD_AT_S :: else -> s_heard = 1 fi
}
inline d_obeys_old(task)
{
    HOLDS(P_TERM, !d_heard);
    old = old & (255 - (task));
    if :: old & OLD_AT_D :: else -> d_heard = 1 fi
}

#include "source.pml"
#include "destination.pml"
#include "world.pml"
#include "coordinator.pml"

/* Eventual resolution: this is reached when nothing else can happen. */
proctype Judge()
{
    timeout;
    HOLDS(P_RESOLVED, MOVED || STAYED || LOST || BOTH_DEAD || UNKNOWABLE || ABANDONED);
    d_step {
        if
        :: MOVED -> w_end(W_END_MOVED)
        :: STAYED -> w_end(W_END_STAYED)
        :: LOST -> w_end(W_END_LOST)
        :: BOTH_DEAD -> w_end(W_END_BOTH_DEAD)
        :: UNKNOWABLE -> w_end(W_END_UNKNOWABLE)
        :: ABANDONED -> w_end(W_END_ABANDONED)
        :: else /* not looked at */
        fi
    }
}

init
{
    atomic {
        o_start = O_SENT; o_permit = O_SENT; /* pre-copy's first group is ordered */
        run Source(); run Destination(); run World(); run Coordinator(); run Judge()
    }
}
