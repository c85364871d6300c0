/* source.pml - the source's worker: workers/logic/source.c, with what workers/cutover_source.c and the driver do around
 * it. Part of cutover.pml. */
inline s_tell(answer)
{
    acts = acts | SA_ANSWER | ((answer) * SA_TOLD);
    if :: ask == O_HELD -> ask = O_OK + answer :: else fi;
    if :: o_relay == O_HELD -> o_relay = O_OK + answer :: else fi
}
inline s_refuse(code)
{
    acts = acts | ((code) * SA_REFUSED)
}
inline s_begin_freeze()
{
    s_stage = S_FREEZING; s_resumed_seen = 0; s_freeze = (s_job -> 1 : 3);
    acts = acts | SA_FREEZE
}
inline s_on_freeze()
{
    if
    :: s_raised -> s_refuse(E_STALE) /* by the worker, before its machine is asked */
    :: else ->
        if
        :: s_stage == S_JOB || s_stage == S_SUSPENDED -> s_begin_freeze()
        :: s_stage == S_FREEZING -> skip
        :: s_stage == S_FROZEN -> s_tell(A_FROZEN)
        :: s_stage == S_GONE || s_stage == S_KILLING || s_stage == S_KILLED -> s_tell(A_GONE)
        :: s_stage == S_RAN -> s_tell(A_RUNNING)
        :: else -> s_refuse(E_CONFLICT)
        fi
    fi
}
inline s_killed()
{
    s_stage = S_KILLED; s_kill = 0; s_again = 0;
    acts = acts | SA_KILL_DONE | SR_GONE;
    if :: kill == O_HELD -> kill = O_OK :: else fi;
    if :: c_phase == C_FINALIZE && o_task == O_HELD && !s_job -> o_task = O_OK :: else fi
}
inline s_on_kill()
{
    if
    :: s_stage == S_FROZEN || s_stage == S_GONE -> s_stage = S_KILLING; s_kill = 1; acts = acts | SA_KILL
    :: s_stage == S_KILLING -> skip
    :: s_stage == S_KILLED -> acts = acts | SA_KILL_DONE
    :: else -> s_refuse(E_CONFLICT)
    fi
}
inline s_on_revive(epoch)
{
    if
#ifndef THAW_ANY_EPOCH
    :: s_stage == S_FROZEN && epoch <= EPOCH_PERMIT -> s_refuse(E_STALE)
#endif
    :: s_stage == S_FREEZING -> s_refuse(E_BUSY)
    :: s_stage == S_REVIVING -> skip
    :: s_stage == S_REVIVED -> acts = acts | SA_REVIVE_DONE
    :: s_stage == S_GONE || s_stage == S_KILLING || s_stage == S_KILLED -> s_refuse(E_CONFLICT)
    :: else -> s_stage = S_REVIVING; s_revive = 1; acts = acts | SA_REVIVE
    fi
}
#define REFUSED_BY_S ((acts / SA_REFUSED) & 7)

/* What the driver finds once the process is stopped (docs/adr/0007). It is continued unless it is frozen. */
inline s_look(answer)
{
    if
    :: proc == P_RUN || proc == P_RAN -> answer = A_RUNNING
    :: proc == P_PAUSED && watch -> answer = A_FROZEN
    :: proc == P_DEAD && watch && !ran -> answer = A_GONE
    :: else -> answer = A_UNKNOWN
    fi
}
/* The migrate call, which could not come back as long as the process was stopped. */
inline job_ends()
{
    if :: s_job && hs_end == 0 -> hs_end = 2 :: else fi
}
/* Not stopped any more: what it was told meanwhile happens now. */
inline go_on()
{
    stopped = 0;
    if
    :: queued -> queued = 0; proc = P_RAN; ran = 1; hs_resumed = 1; job_ends()
    :: else
    fi
}
/* The answer would be `unknown` now, and nothing but the world can change that: not what S7 settles. */
#define HOPELESS ((s_stage == S_JOB || s_stage == S_SUSPENDED || s_stage == S_FREEZING) && !watch && !queued && \
                  (proc == P_PAUSED && (s_job || s_freeze == 1 || s_freeze == 2) || proc == P_DEAD))

/* To the destination's worker; not kept in the network if it cannot have an effect any more. */
inline tell_paused()
{
    if :: d_stage == D_IDLE || d_stage == D_ARMED || d_stage == D_DISCARDING -> told = 1 :: else fi
}
inline s_crash()
{
#ifdef TERM_VOLATILE
    s_forgot = 1;
#endif
    s_pause = 0; s_resumed_seen = 0; s_kill = 0; s_revive = 0; s_again = 0; s_freeze = 0;
    hs_suspended = 0; hs_resumed = 0; hs_stopped = 0;
    if :: proc != P_RUN -> watch = 0 :: else fi;
    if :: ask == O_SENT || ask == O_HELD -> ask = N_NONE :: else fi;
    if :: kill == O_SENT || kill == O_HELD -> kill = N_NONE :: else fi;
    if :: o_relay == O_HELD -> o_relay = O_SENT :: else fi; /* journaled: begins again */
    if :: o_task == O_HELD && c_phase != C_DISCARD -> o_task = O_SENT :: else fi
}
#define OBSERVED (proc == P_DEAD -> 2 : ((proc == P_RUN || proc == P_RAN) && !stopped -> 1 : 0))
inline s_on_restarted()
{
    s_again = 0;
    if
    :: s_stage == S_SUSPENDED && OBSERVED == 1 -> s_stage = S_RAN; acts = acts | SR_RESUMED
    :: s_stage == S_FREEZING -> s_begin_freeze()
    :: s_stage == S_KILLING -> s_kill = 1; acts = acts | SA_KILL
    :: s_stage == S_REVIVING -> s_revive = 1; acts = acts | SA_REVIVE
    :: else
    fi
}

proctype Source()
{
    byte answer;
    bit lives_on; /* scratch, like it */
end:
    do
    /* orders of the coordinator */
    :: d_step { o_start == O_SENT ->
        s_hears(T_JOB_START);
        s_begin();
        if
        :: s_stage == S_IDLE -> s_stage = S_JOB; s_job = 1; job = J_JOB
        :: else
#ifdef REPEAT_LOST
            /* not the answer of the first, but once more */
            if :: !s_job && SOURCE_RUNS && job == J_OVER && copy == G_DEAD && !hd_gone ->
                s_job = 1; job = J_JOB; copy = G_INCOMING; finish = 0; abort_asked = 0
            :: else fi
#endif
        fi;
        o_start = O_OK;
        s_end(SE_JOB_STARTED, 0) }
    :: d_step { c_phase == C_ABORT && o_task == O_SENT -> /* no event of the machine: the worker asks libvirt */
        s_hears(T_ABORT);
        o_task = O_HELD; abort_asked = s_job }
    :: d_step { c_phase == C_ABORT && o_task == O_HELD && (!s_job || s_stage == S_FROZEN) ->
        o_task = O_OK }
    :: d_step { c_phase == C_REVIVE && o_task == O_SENT ->
        s_hears(T_REVIVE);
        s_begin();
        s_raised = 1;
        o_task = O_HELD;
        s_on_revive(EPOCH_RAISED);
        if
        :: REFUSED_BY_S == E_BUSY -> o_task = O_BUSY
        :: REFUSED_BY_S == E_CONFLICT -> o_task = O_REFUSED
        :: acts & SA_REVIVE_DONE -> o_task = O_OK
        :: else
        fi;
        s_end(SE_REVIVE, EPOCH_RAISED) }
    :: d_step { faults > 0 && s_stage == S_FROZEN ->
        /* In the network since an earlier attempt; its term may be right. Everywhere else it is refused by its epoch
         * before the machine is asked. */
        faults--;
        s_begin();
        s_on_revive(EPOCH_OLD);
        s_end(SE_REVIVE, EPOCH_OLD) }
    :: d_step { c_phase == C_FINALIZE && o_task == O_SENT ->
        s_hears(T_REMOVE);
        s_begin();
        o_task = O_HELD;
        s_on_kill();
        if
        :: REFUSED_BY_S -> o_task = O_REFUSED
        :: (acts & SA_KILL_DONE) && !s_job -> o_task = O_OK
        :: else
        fi;
        s_end(SE_KILL, 0) }
    /* orders that came too late, or whose coordinator was overtaken meanwhile */
    :: d_step { late_start && s_stage == S_IDLE && !s_raised -> /* else answered from the journal, or by the epoch */
        s_begin();
        late_start = 0; s_stage = S_JOB; s_job = 1; job = J_JOB;
        s_end(SE_JOB_STARTED, 0) }
    :: d_step { (old & T_JOB_START) && S_OBEYS_OLD && s_stage == S_IDLE && !s_raised ->
        s_begin();
        s_obeys_old(T_JOB_START);
        s_stage = S_JOB; s_job = 1; job = J_JOB;
        s_end(SE_JOB_STARTED, 0) }
    :: d_step { (old & T_RELAY) && S_OBEYS_OLD ->
        s_begin();
        s_obeys_old(T_RELAY);
        s_on_freeze();
        s_end(SE_FREEZE, s_raised) }
    :: d_step { (old & T_ABORT) && S_OBEYS_OLD && s_job && !abort_asked ->
        s_obeys_old(T_ABORT);
        abort_asked = 1;
        w_end(W_OLD_ABORT) }
    :: d_step { (old & T_REVIVE) && S_OBEYS_OLD ->
        s_begin();
        s_obeys_old(T_REVIVE);
        s_raised = 1;
        s_on_revive(EPOCH_RAISED);
        s_end(SE_REVIVE, EPOCH_RAISED) }
    :: d_step { (old & T_REMOVE) && S_OBEYS_OLD ->
        s_begin();
        s_obeys_old(T_REMOVE);
        s_on_kill();
        s_end(SE_KILL, 0) }
#ifndef NO_TERM
    :: d_step { (old & OLD_AT_S) && !S_OBEYS_OLD -> old = old & (255 - OLD_AT_S); w_end(W_STALE_TERM) }
#endif
    :: d_step { c_up && !s_heard -> s_heard = 1; S_KNOWS; w_end(W_TERM_HEARD) }
    /* the destination's word */
    :: d_step { ask == O_SENT ->
        s_begin();
        ask = O_HELD;
        s_on_freeze();
        if :: REFUSED_BY_S -> ask = N_NONE :: else fi;
        s_end(SE_FREEZE, s_raised) }
    :: d_step { late_ask ->
        s_begin();
        late_ask = 0;
        s_on_freeze();
        s_end(SE_FREEZE, s_raised) }
    :: d_step { o_relay == O_SENT ->
        s_hears(T_RELAY);
        s_begin();
        o_relay = O_HELD;
        s_on_freeze();
        HOLDS(P_WORD, !REFUSED_BY_S); /* it is asked by an undecided destination: the source was not revived */
        s_end(SE_FREEZE, s_raised) }
    :: d_step { kill == O_SENT ->
        s_begin();
        kill = O_HELD;
        s_on_kill();
        if
        :: REFUSED_BY_S -> kill = N_NONE
        :: acts & SA_KILL_DONE -> kill = O_OK
        :: else
        fi;
        s_end(SE_KILL, 0) }
    /* the driver: stop, THEN look */
#ifndef LOOK_FIRST
    :: d_step { s_freeze & 1 -> s_freeze++; stopped = (proc != P_DEAD); w_end(W_STOP) }
    :: d_step { s_freeze == 2 || s_freeze == 4 -> s_look(answer);
#else
    :: d_step { s_freeze & 1 -> s_freeze++; s_look(s_found); w_end(W_STOP) }
    :: d_step { s_freeze == 2 || s_freeze == 4 -> answer = s_found; stopped = (proc != P_DEAD);
#endif
        s_begin();
        if :: answer != A_FROZEN -> go_on() :: else fi;
        HOLDS(P_WORD, !s_resumed_seen || answer == A_RUNNING);
        if /* S7: the job was over when it was asked for, and the driver has seen that it lives */
        :: answer == A_UNKNOWN && s_freeze == 4 && proc != P_DEAD -> answer = A_RUNNING; lives_on = 1
        :: else
        fi;
        s_freeze = 0;
        if
        :: answer == A_FROZEN -> s_stage = S_FROZEN; s_frozen = 1
        :: answer == A_GONE -> s_stage = S_GONE
        :: answer == A_RUNNING -> s_stage = S_RAN; acts = acts | SR_RESUMED
        :: answer == A_UNKNOWN -> s_stage = (s_pause -> S_SUSPENDED : S_JOB)
        fi;
        s_tell(answer);
        s_end(SE_RESULT, (lives_on -> LIVES_ON : answer));
        answer = 0; lives_on = 0 }
    /* the driver: kill, revive */
    :: d_step { s_kill ->
        s_begin();
        HOLDS(P_HARM, copy == G_RUNNING && !SOURCE_RUNS);
        proc = P_DEAD; stopped = 0; queued = 0;
        if :: job == J_WAIT -> job = J_OVER :: else fi;
        job_ends();
        s_killed();
        s_end(SE_KILL_OK, 0) }
    :: d_step { s_kill && faults > 0 ->
        faults--;
        s_begin();
        s_kill = 0; s_again = 1;
        s_end(SE_KILL_FAILED, 0) }
    :: d_step { s_revive && !(proc == P_DEAD && s_frozen) ->
        s_begin();
        s_revive = 0; s_again = 0;
        stopped = 0;
        if
        :: proc == P_PAUSED ->
            proc = P_RAN; ran = 1; hs_resumed = 1;
            if :: queued -> queued = 0; job_ends() :: else fi
        :: else
        fi;
        if
        :: s_stage == S_REVIVING ->
            s_stage = S_REVIVED; acts = acts | SA_REVIVE_DONE;
            if :: c_phase == C_REVIVE && o_task == O_HELD -> o_task = O_OK :: else fi
        :: else
        fi;
        s_end(SE_REVIVE_OK, 0) }
    :: d_step { s_revive && (proc == P_DEAD && s_frozen || faults > 0) ->
        s_begin();
        if :: proc == P_DEAD && s_frozen :: else -> faults--; s_again = 1 fi; /* a dead one stays dead */
        s_revive = 0;
        s_end(SE_REVIVE_FAILED, 0) }
    :: d_step { s_again ->
        s_begin();
        s_again = 0;
        if
        :: s_stage == S_KILLING -> s_kill = 1; acts = acts | SA_KILL
        :: s_stage == S_REVIVING -> s_revive = 1; acts = acts | SA_REVIVE
        fi;
        s_end(SE_TIMER, 0) }
    /* the hypervisor's events, in their order */
    :: d_step { hs_suspended ->
        s_begin();
        hs_suspended = 0;
        if
        :: s_stage == S_JOB || s_stage == S_FREEZING && !s_pause ->
            if :: s_stage == S_JOB -> s_stage = S_SUSPENDED :: else fi;
            s_pause = 1; tell_paused();
            acts = acts | SA_NOTIFY | SR_SUSPENDED
        :: else
        fi;
        s_end(SE_SUSPENDED, 0) }
    :: d_step { hs_resumed && !hs_suspended ->
        s_begin();
        hs_resumed = 0;
        if
        :: s_stage == S_SUSPENDED -> s_stage = S_RAN; acts = acts | SR_RESUMED
        :: s_stage == S_FREEZING -> s_resumed_seen = 1
        :: else -> HOLDS(P_WORD, s_stage != S_FROZEN && s_stage != S_GONE && s_stage != S_KILLING)
        fi;
        s_end(SE_RESUMED, 0) }
    :: d_step { hs_stopped && !hs_suspended && !hs_resumed ->
        s_begin();
        hs_stopped = 0;
        if :: s_stage == S_FROZEN || s_stage == S_KILLING && !s_kill -> s_killed() :: else fi;
        s_end(SE_STOPPED, 0) }
    :: d_step { hs_end && !hs_suspended && !hs_resumed && !hs_stopped ->
        s_begin();
        s_job = 0;
        acts = acts | SR_JOB_END;
        if :: hs_end == 2 && c_phase == C_PRECOPY -> e_end = 1 :: else fi;
        if :: c_phase == C_FINALIZE && o_task == O_HELD && s_stage == S_KILLED -> o_task = O_OK :: else fi;
        s_end(SE_JOB_END, hs_end == 1);
        hs_end = 0 }
    /* crashes: at once another process of this worker, which looks how the guest stands */
    :: d_step { faults > 0 && s_stage != S_IDLE ->
        faults--;
        s_crash();
        s_begin();
        s_on_restarted();
        s_end(SE_RESTARTED, OBSERVED) }
    :: d_step { faults > 0 && hs_suspended && s_stage == S_JOB ->
        faults--;
        tell_paused();
        s_crash();
        s_begin();
        s_end(SE_CRASH_TOLD, OBSERVED) }
    od
}
