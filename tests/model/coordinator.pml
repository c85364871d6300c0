/* coordinator.pml - the coordinator's record from pre-copy on: lmo/core; that it asks again after a restart, under a
 * higher term; and what one that was overtaken had sent. Part of cutover.pml. */
inline c_clear()
{
    o_start = 0;
    if :: o_permit == O_SENT -> late_permit = 1 :: else fi;
    o_permit = 0; o_relay = 0; o_word = 0; word = 0; o_task = 0;
    c_over = 0;
    c_relayed = 0 /* matters in a roll-back only, which begins anew */
}
#define IDLE_GROUP (o_start == 0 && o_permit == 0 && o_relay == 0 && o_word == 0 && o_task == 0)
/* Opens groups of the roll-back, and the end of it, as long as nothing is left to do in the present one. */
inline c_advance()
{
    if
    :: IDLE_GROUP && c_phase == C_DRAIN -> c_phase = C_ABORT; o_task = O_SENT
    :: IDLE_GROUP && c_phase == C_ABORT && !c_discarded -> c_phase = C_DISCARD; o_task = O_SENT
    :: IDLE_GROUP && c_phase == C_ABORT && c_discarded -> c_raised = 1; c_phase = C_REVIVE; o_task = O_SENT
    :: IDLE_GROUP && c_phase == C_DISCARD -> c_discarded = 1; c_raised = 1; c_phase = C_REVIVE; o_task = O_SENT
    :: IDLE_GROUP && c_phase == C_REVIVE -> c_phase = C_ABORTED
    :: IDLE_GROUP && c_phase == C_FINALIZE -> c_phase = C_COMPLETED
    :: else
    fi
}
inline c_roll_back()
{
    c_phase = C_DRAIN; o_task = 0; c_over = 0;
    if :: o_start == O_WAIT -> o_start = 0 :: else fi;
    if :: o_permit == O_WAIT -> o_permit = 0 :: else fi;
    if :: o_relay == O_WAIT -> o_relay = 0 :: else fi;
    if :: o_word == O_WAIT -> o_word = 0 :: else fi
}
/* Rests. What the destination had asked for lives on as long as nothing is decided. */
inline c_attention(from)
{
    if
    :: c_committed || c_discarded -> c_clear()
    :: else -> o_start = 0; o_task = 0
    fi;
    c_over = from; c_phase = C_ATTENTION
}
inline c_hasten()
{
    if :: c_phase == C_DISCARD && o_task == O_WAIT -> o_task = O_SENT :: else fi
}
inline c_task_lost(task, var)
{
    c_begin();
    var = O_WAIT;
    if
    :: c_discarded && ROLLING && task != T_JOB_START -> var = O_NONE; c_advance() /* by a copy that is no more */
    :: else
    fi;
    c_end(CE_LOST, task)
}
inline c_task_again(task, var)
{
    c_begin();
    var = O_SENT;
    c_end(CE_AGAIN, task)
}

/* Of what the record calls sent, what has not reached its worker may still do so. A call that was answered or is being
 * carried out is known there by its id. */
inline c_overtaken()
{
#ifndef NO_TERM
    if :: s_heard -> old = old & OLD_AT_D :: else fi; /* of one before it: as good as refused */
    if :: d_heard -> old = old & OLD_AT_S; old_word = 0 :: else fi;
#endif
    if :: o_start == O_SENT || late_start -> old = old | T_JOB_START; late_start = 0; s_heard = 0 :: else fi;
    if :: o_permit == O_SENT || late_permit -> old = old | T_PERMIT; late_permit = 0; d_heard = 0 :: else fi;
    if :: o_relay == O_SENT -> old = old | T_RELAY; s_heard = 0 :: else fi;
    if :: o_word == O_SENT -> old = old | T_WORD; old_word = word; d_heard = 0 :: else fi;
    if
    :: o_task == O_SENT ->
        old = old | TASK_OF_PHASE;
        if :: c_phase == C_DISCARD -> d_heard = 0 :: else -> s_heard = 0 fi
    :: else
    fi
}

proctype Coordinator()
{
    byte a;
end:
    do
    /* reports */
    :: d_step { c_up && s_heard && e_end -> c_begin(); e_end = 0;
        if :: c_phase == C_PRECOPY -> c_roll_back(); c_advance() :: else fi;
        c_end(CE_REPORT, SR_JOB_END) }
    :: d_step { c_up && d_heard && e_loaded -> c_begin(); e_loaded = 0;
        if :: c_phase == C_PRECOPY -> c_clear(); c_phase = C_CUTOVER :: else fi;
        c_end(CE_REPORT, DR_LOADED) }
    :: d_step { c_up && d_heard && e_permit && !e_loaded -> c_begin(); e_permit = 0;
        if :: UNDECIDED && !c_committed && !c_resumed && !c_discarded && o_permit == 0 -> o_permit = O_SENT :: else fi;
        c_end(CE_REPORT, DR_PERMIT_WANTED) }
    :: d_step { c_up && d_heard && e_freeze && !e_loaded && !e_permit -> c_begin(); e_freeze = 0;
        if :: UNDECIDED && !c_committed && !c_resumed && !c_discarded && o_relay == 0 -> o_relay = O_SENT; c_relayed = 1 :: else fi;
        c_end(CE_REPORT, DR_FREEZE_WANTED) }
    :: d_step { c_up && d_heard && e_committed && !e_loaded && !e_permit && !e_freeze -> c_begin(); e_committed = 0;
        if
        :: UNDECIDED && !c_committed ->
            c_committed = 1;
            if
#ifdef REOPENED
            :: c_phase != C_CUTOVER -> c_clear(); c_phase = C_CUTOVER
#else
            :: c_phase != C_CUTOVER && !c_resumed -> c_clear(); c_phase = C_CUTOVER
#endif
            :: else
            fi
        :: else
        fi;
        c_end(CE_REPORT, DR_COMMITTED) }
    :: d_step { c_up && d_heard && e_resumed && !e_committed && !e_freeze && !e_permit -> c_begin(); e_resumed = 0;
        if :: UNDECIDED && !c_resumed -> c_resumed = 1; c_clear(); c_phase = C_FINALIZE; o_task = O_SENT :: else fi;
        c_end(CE_REPORT, DR_RESUMED) }
    :: d_step { c_up && d_heard && e_back && !e_loaded && !e_freeze && !e_permit -> c_begin(); e_back = 0;
        if
        :: c_phase == C_PRECOPY || c_phase == C_CUTOVER || c_phase == C_ATTENTION && !c_resumed ->
            c_roll_back(); c_advance()
        :: ROLLING -> c_hasten()
        :: else
        fi;
        c_end(CE_REPORT, DR_BACK) }
    :: d_step { c_up && d_heard && e_lost && !e_loaded && !e_freeze && !e_permit -> c_begin(); e_lost = 0;
        if
        :: c_phase == C_PRECOPY || c_phase == C_CUTOVER || c_phase == C_ATTENTION && !c_resumed ->
            c_roll_back(); c_advance()
        :: ROLLING && !c_resumed -> c_hasten()
        :: else
        fi;
        c_end(CE_REPORT, DR_COPY_LOST) }
    :: d_step { c_up && d_heard && e_lost_fenced && !e_committed && !e_freeze && !e_permit -> c_begin();
        e_lost_fenced = 0;
        if
        :: UNDECIDED && !c_resumed && c_phase != C_ATTENTION -> c_attention(0)
        :: else /* if it rests: it still needs a person */
        fi;
        c_end(CE_REPORT, DR_LOST_FENCED) }
    /* answers */
    :: d_step { c_up && o_start == O_OK -> c_begin(); o_start = 0; c_advance(); c_end(CE_DONE, T_JOB_START) }
    :: d_step { c_up && o_permit == O_OK -> c_begin(); o_permit = 0; c_advance(); c_end(CE_DONE, T_PERMIT) }
    :: d_step { c_up && o_permit == O_REFUSED -> c_begin();
        if
        :: c_phase == C_PRECOPY -> o_permit = 0; c_roll_back(); c_advance()
        :: c_phase == C_CUTOVER || c_phase == C_ATTENTION -> o_permit = O_WAIT
        :: else -> o_permit = 0; c_advance() /* the destination has moved on by itself */
        fi;
        c_end(CE_REFUSED, T_PERMIT * 8 + E_GONE) }
    :: d_step { c_up && o_word == O_OK -> c_begin(); o_word = 0; word = 0; c_advance(); c_end(CE_DONE, T_WORD) }
    :: d_step { c_up && o_relay >= O_OK -> c_begin();
        a = o_relay - O_OK;
        if
        :: c_committed || c_discarded -> o_relay = 0
        :: else ->
            if
#ifdef WORD_HOLDS
            :: a == A_UNKNOWN -> o_relay = O_WAIT
#else
            :: a == A_UNKNOWN -> o_relay = (ROLLING -> O_NONE : O_WAIT) /* an undoing does not wait for the word */
#endif
            :: else -> o_relay = 0; o_word = O_SENT; word = a
            fi
        fi;
        c_advance();
        c_end(CE_ANSWERED, a);
        a = 0 }
    :: d_step { c_up && o_task == O_OK -> c_begin();
        a = TASK_OF_PHASE;
        o_task = 0;
        if :: c_phase == C_DISCARD -> /* what the destination had asked for is not for it any more */
            c_discarded = 1;
            if :: o_permit == O_WAIT -> o_permit = 0 :: else fi;
            if :: o_relay == O_WAIT -> o_relay = 0 :: else fi;
            if :: o_word == O_WAIT -> o_word = 0; word = 0 :: else fi
        :: else
        fi;
        c_advance();
        c_end(CE_DONE, a);
        a = 0 }
    :: d_step { c_up && o_task == O_BUSY -> c_begin();
        a = TASK_OF_PHASE;
        o_task = O_WAIT;
        if /* but the copy does */
        :: c_phase == C_DISCARD && c_relayed && o_relay == 0 -> o_relay = O_SENT
        :: else
        fi;
        c_end(CE_REFUSED, a * 8 + E_BUSY);
        a = 0 }
    :: d_step { c_up && o_task == O_REFUSED -> c_begin();
        a = TASK_OF_PHASE;
        if
        :: c_phase == C_DISCARD && c_resumed -> c_clear(); c_phase = C_FINALIZE; o_task = O_SENT
        :: c_phase == C_DISCARD && !c_resumed -> c_clear(); c_phase = C_CUTOVER /* the abort lost the race */
        :: c_phase == C_REVIVE -> c_attention(0)
        :: c_phase == C_FINALIZE -> o_task = O_WAIT
        fi;
        c_end(CE_REFUSED, a * 8 + E_CONFLICT);
        a = 0 }
    /* a call or its reply is lost: unknown, and the same call again */
    :: d_step { c_up && o_permit > O_WAIT && faults > 0 -> faults--; c_task_lost(T_PERMIT, o_permit) }
    :: d_step { c_up && o_start > O_WAIT && faults > 0 -> faults--; c_task_lost(T_JOB_START, o_start) }
    :: d_step { c_up && o_relay > O_WAIT && faults > 0 -> faults--; c_task_lost(T_RELAY, o_relay) }
    :: d_step { c_up && o_word > O_WAIT && faults > 0 -> faults--; c_task_lost(T_WORD, o_word) }
    :: d_step { c_up && o_task > O_WAIT && faults > 0 -> faults--;
        c_begin(); a = TASK_OF_PHASE; o_task = O_WAIT; c_end(CE_LOST, a); a = 0 }
    :: d_step { c_up && c_phase == C_DRAIN && o_start > O_WAIT && faults > 0 -> faults--; c_begin();
        if :: o_start == O_SENT -> late_start = 1 :: else fi;
        o_start = 0; c_advance();
        c_end(CE_GIVEN_UP, T_JOB_START) }
    /* the phase takes too long, for a reason that is not among the faults here: it rests, and a person decides */
    :: d_step { c_up && (c_phase == C_CUTOVER || ROLLING || c_phase == C_FINALIZE) && faults > 0 -> faults--; c_begin();
        a = (ROLLING -> C_DRAIN : c_phase);
        c_attention(a); a = 0;
        c_end(CE_OVERDUE, 0) }
    :: d_step { c_up && c_over && d_stage != D_LOST -> c_begin(); /* with a copy lost, nothing comes of it */
        if
        :: c_over == C_CUTOVER ->
            c_phase = C_CUTOVER; c_over = 0;
            if :: !c_committed && !c_discarded && o_relay == 0 -> o_relay = O_SENT; c_relayed = 1 :: else fi
        :: c_over == C_DRAIN -> c_roll_back(); c_advance()
        :: c_over == C_FINALIZE -> c_clear(); c_phase = C_FINALIZE; o_task = O_SENT
        fi;
        c_end(CE_RESOLVED, R_RETRY) }
    :: d_step { c_up && c_phase == C_ATTENTION && copy == G_DEAD && proc != P_DEAD && !c_resumed &&
            (d_stage < D_COMMITTED || d_stage == D_DISCARDING || d_stage == D_DISCARDED) -> c_begin();
        c_roll_back(); c_advance();
        c_end(CE_RESOLVED, R_AT_SOURCE) }
    :: d_step { c_up && c_phase == C_ATTENTION && copy == G_RUNNING && !SOURCE_RUNS &&
            (d_stage == D_RESUMED || d_stage == D_DONE) -> c_begin();
        c_resumed = 1; c_clear(); c_phase = C_FINALIZE; o_task = O_SENT;
        c_end(CE_RESOLVED, R_AT_DESTINATION) }
    :: d_step { c_up && c_over -> c_begin(); /* elsewhere nothing more can happen: it would only close the record */
        c_clear(); c_phase = C_ABANDONED;
        e_end = 0; e_loaded = 0; e_permit = 0; e_freeze = 0; e_committed = 0; e_resumed = 0; e_back = 0; e_lost = 0;
        e_lost_fenced = 0; /* it listens no more */
        c_end(CE_RESOLVED, R_ABANDON) }
    /* time: a call that failed is due again; one that was refused, only when the answer can have changed */
    :: d_step { c_up && o_permit == O_WAIT &&
            !((c_phase == C_CUTOVER || c_phase == C_ATTENTION) && d_stage >= D_DISCARDING) ->
        c_task_again(T_PERMIT, o_permit) }
    :: d_step { c_up && o_start == O_WAIT -> c_task_again(T_JOB_START, o_start) }
#ifdef ENDLESS
    :: d_step { c_up && o_relay == O_WAIT -> c_task_again(T_RELAY, o_relay) }
#else
    :: d_step { c_up && o_relay == O_WAIT && !HOPELESS -> c_task_again(T_RELAY, o_relay) }
#endif
    :: d_step { c_up && o_word == O_WAIT -> c_task_again(T_WORD, o_word) }
    :: d_step { c_up && o_task == O_WAIT &&
            !(c_phase == C_DISCARD && (d_stage == D_ASKING || d_stage < D_ASKING && d_loaded)) &&
            !(c_phase == C_REVIVE && s_stage == S_FREEZING) &&
            !(c_phase == C_FINALIZE && s_stage != S_FROZEN && s_stage != S_GONE && s_stage != S_KILLING &&
              s_stage != S_KILLED) ->
        c_begin(); a = TASK_OF_PHASE; o_task = O_SENT; c_end(CE_AGAIN, a); a = 0 }
    /* a person cancels, or pre-copy takes too long */
    :: d_step { c_up && c_phase == C_PRECOPY -> c_begin();
        c_roll_back(); c_advance();
        c_end(CE_CANCEL, 0) }
    /* it crashes, or is overtaken in its sleep: what it had sent is in the network, under its term; the next one has
     * taken a higher one, and asks again */
    :: d_step { c_up && faults > 0 && (c_phase < C_COMPLETED || c_phase == C_ATTENTION) -> faults--; c_up = 0;
        c_overtaken();
        w_end(W_COORDINATOR_DIES) }
    :: d_step { !c_up -> c_begin(); c_up = 1;
        if :: o_start > O_WAIT -> o_start = O_SENT :: else fi;
        if :: o_permit > O_WAIT -> o_permit = O_SENT :: else fi;
        if :: o_relay > O_WAIT -> o_relay = O_SENT :: else fi;
        if :: o_word > O_WAIT -> o_word = O_SENT :: else fi;
        if :: o_task > O_WAIT -> o_task = O_SENT :: else fi;
#ifdef NO_ADOPTION
        /* by the record alone: the source is the guest */
        if :: c_phase == C_PRECOPY || c_phase == C_CUTOVER && !c_committed ->
            c_clear(); c_phase = C_REVIVE; c_raised = 1; o_task = O_SENT
        :: else fi;
#endif
        c_end(CE_RECOVERED, 0) }
    od
}
