/* codes.h - the numbers that the model's trails speak in. Included by cutover.pml (through the C preprocessor) and by
 * replay.c, so that both sides of the comparison read the same table. Macros only: Promela knows nothing else. */
#ifndef LMO_MODEL_CODES_H
#define LMO_MODEL_CODES_H

/* stages of the source's worker, workers/logic/source.h */
#define S_IDLE      0
#define S_JOB       1
#define S_SUSPENDED 2
#define S_FREEZING  3
#define S_FROZEN    4
#define S_GONE      5
#define S_RAN       6
#define S_KILLING   7
#define S_KILLED    8
#define S_REVIVING  9
#define S_REVIVED   10

/* stages of the destination's worker, workers/logic/destination.h */
#define D_IDLE       0
#define D_ARMED      1
#define D_ASKING     2
#define D_COMMITTED  3
#define D_FENCED     4
#define D_RESUMED    5
#define D_DONE       6
#define D_DISCARDING 7
#define D_DISCARDED  8
#define D_LOST       9

/* phases of the coordinator's record, lmo/core/phase.h; a roll-back is told apart by its group of lmo/core/plan.c */
#define C_PRECOPY   0
#define C_CUTOVER   1
#define C_DRAIN     2 /* roll-back, group 0: what was under way */
#define C_ABORT     3 /* roll-back, group 1: the job's end */
#define C_DISCARD   4 /* roll-back, group 2: the destination's word */
#define C_REVIVE    5 /* roll-back, group 3: the source is the guest */
#define C_FINALIZE  6
#define C_COMPLETED 7
#define C_ABORTED   8
#define C_ATTENTION 9 /* rests: what the workers report and what a person decides moves it on */
#define C_ABANDONED 10

/* the four answers to a freeze, lmo/base/ops.h */
#define A_UNKNOWN 0
#define A_FROZEN  1
#define A_GONE    2
#define A_RUNNING 3

#define LIVES_ON  4

/* refusals: which LMO_E_* a step may answer with */
#define NO_REFUSAL 0
#define E_BUSY     1
#define E_CONFLICT 2
#define E_STALE    3
#define E_GONE     4

/* events of the source's machine; the argument is given behind each */
#define SE_JOB_STARTED   1
#define SE_SUSPENDED     2
#define SE_RESUMED       3
#define SE_STOPPED       4
#define SE_JOB_END       5 /* 1: the call succeeded */
#define SE_FREEZE        6 /* 0: the permit's epoch */
#define SE_RESULT        7 /* answer of the driver; LIVES_ON: unknown, and its job over, and it lives (S7) */
#define SE_KILL          8
#define SE_KILL_OK       9
#define SE_KILL_FAILED   10
#define SE_REVIVE        11 /* epoch */
#define SE_REVIVE_OK     12
#define SE_REVIVE_FAILED 13
#define SE_RESTARTED     14 /* as observed, see below */
#define SE_TIMER         15
#define SE_CRASH_TOLD    16 /* no event: paused, told the destination, crashed before it was journaled */
/* Observed: 0 paused by the switch-over, 1 running, 2 shut off; + 4: looked at anew, the worker has not crashed; + 8:
 * the same, while a call of the driver's is under way. */

/* what a step of the source's machine asks for */
#define SA_NOTIFY      1
#define SA_FREEZE      2
#define SA_KILL        4
#define SA_REVIVE      8
#define SA_KILL_DONE   16
#define SA_REVIVE_DONE 32
#define SA_ANSWER      64 /* and which, in the two bits above it */
#define SA_TOLD        128
#define SA_REFUSED     512  /* times a refusal: three bits */
#define SR_SUSPENDED   4096 /* reports to the coordinator */
#define SR_RESUMED     8192
#define SR_GONE        16384
#define SR_JOB_END     2097152 /* not among the DR_* either */

/* events of the destination's machine */
#define DE_PERMIT        1
#define DE_SUSPENDED     2
#define DE_LOADED        3
#define DE_COPY_GONE     4
#define DE_ANSWER        5 /* answer */
#define DE_NO_ANSWER     6
#define DE_FENCE_OK      7
#define DE_FENCE_FAILED  8
#define DE_VERIFY_OK     9
#define DE_VERIFY_FAILED 10
#define DE_RESUME_OK     11
#define DE_RESUME_FAILED 12
#define DE_TELL_OK       13
#define DE_TELL_FAILED   14
#define DE_DISCARD       15
#define DE_REMOVE_OK     16
#define DE_REMOVE_FAILED 17 /* 1: because the copy is loaded */
#define DE_RESTARTED     18 /* copy: 0 incoming, 1 loaded, 2 running, 3 absent */
#define DE_TIMER         19 /* 0: what is due is tried again; 1: the direct answer takes too long */
#define DE_CRASH_ASKED   20 /* no event: loaded, asked the source, crashed before it was journaled */

/* what a step of the destination's machine asks for */
#define DA_ACTIVATE      1
#define DA_ASK           2
#define DA_FENCE         4
#define DA_VERIFY        8
#define DA_RESUME        16
#define DA_TELL          32
#define DA_REMOVE        64
#define DA_REMOVE_LOADED 128
#define DA_DISCARD_DONE  256
#define DA_REFUSED       512  /* times a refusal: three bits */
#define DR_LOADED        4096 /* reports to the coordinator */
#define DR_PERMIT_WANTED 8192
#define DR_FREEZE_WANTED 16384
#define DR_COMMITTED     32768
#define DR_FENCED        65536
#define DR_RESUMED       131072
#define DR_BACK          262144
#define DR_COPY_LOST     524288
#define DR_LOST_FENCED   1048576 /* the loss was reported with "a fence may have been sent" */

/* events of the coordinator's record */
#define CE_CANCEL    1
#define CE_RECOVERED 2
#define CE_REPORT    3 /* DR_* or SR_JOB_END; its flag is added as 1 */
#define CE_DONE      4 /* task */
#define CE_ANSWERED  5 /* relay: answer */
#define CE_LOST      6 /* task: its call or reply was lost */
#define CE_REFUSED   7 /* task * 8 + refusal */
#define CE_AGAIN     8 /* task: its retry is due */
#define CE_GIVEN_UP  9 /* task: lost once too often; what it may do yet is undone */
#define CE_OVERDUE   10 /* the phase's deadline has passed */
#define CE_RESOLVED  11 /* a person has decided: R_* */

/* a person's decisions, lmo/core/resolve.h */
#define R_AT_SOURCE      1
#define R_AT_DESTINATION 2
#define R_RETRY          3
#define R_ABANDON        4

/* what the world does: numbers for "LMO W" */
#define W_PAUSE            1 /* switch-over: the source's guest is paused, a write is under way */
#define W_LOAD             2 /* the destination has everything and reports finish */
#define W_RESUME           3 /* the source's libvirt gives up and resumes the guest (queued, if it is stopped) */
#define W_KILL             4 /* the source's libvirt has the finish reply and ends its guest */
#define W_JOB_FAILS        5 /* pre-copy ends without a switch-over */
#define W_INCOMING_ENDS    6 /* the destination's libvirt clears away what never became complete */
#define W_COPY_DIES        7 /* the destination's copy dies by itself */
#define W_WRITE_LANDS      8
#define W_FENCE_BEGINS     9
#define W_FENCE_LATE       10 /* a fence of a worker that has crashed since */
#define W_FENCE_DRAINED    11 /* nothing of the source is in flight at the volume service any more */
#define W_ASK_LOST         12
#define W_ASK_LATE         13
#define W_ANSWER_LOST      14
#define W_TOLD_LOST        15
#define W_LATE_LOST        16 /* copies that were late are lost after all */
#define W_STOP             17 /* the source's driver has done the first half of a freeze */
#define W_COORDINATOR_DIES 18 /* or is overtaken in its sleep: what it had sent is in the network */
#define W_END_MOVED        19 /* how a run ends, see MOVED */
#define W_END_STAYED       20
#define W_END_LOST         21
#define W_END_BOTH_DEAD    22
#define W_END_UNKNOWABLE   23
#define W_END_ABANDONED    24
#define W_TERM_HEARD       25 /* the first word of a new coordinator is there, and its term with it */
#define W_STALE_TERM       26 /* what an overtaken one had sent is refused */
#define W_OLD_ABORT        27 /* ... is obeyed: the order to end the job, which no machine sees */

/* tasks, as bits in "is under way" and as the argument of events */
#define T_JOB_START 1
#define T_PERMIT    2
#define T_RELAY     4 /* relay_freeze */
#define T_WORD      8 /* relay_answer */
#define T_ABORT     16
#define T_DISCARD   32
#define T_REVIVE    64
#define T_REMOVE    128

/* epochs: of an earlier attempt of the same guest, of this one's permit, and above it */
#define EPOCH_OLD    1
#define EPOCH_PERMIT 2
#define EPOCH_RAISED 3

#endif
