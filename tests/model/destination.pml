/* destination.pml - the destination's worker: workers/logic/destination.c, with what workers/cutover_destination.c and
 * the driver do around it. Part of cutover.pml. */
inline d_report(kind)
{
    acts = acts | kind;
    if
    :: kind == DR_LOADED && c_phase == C_PRECOPY -> e_loaded = 1
    :: kind == DR_PERMIT_WANTED && UNDECIDED && !c_committed && !c_resumed && !c_discarded -> e_permit = 1
    :: kind == DR_FREEZE_WANTED && UNDECIDED && !c_committed && !c_resumed && !c_discarded -> e_freeze = 1
    :: kind == DR_COMMITTED && UNDECIDED -> e_committed = 1
    :: kind == DR_RESUMED && UNDECIDED -> e_resumed = 1
    :: kind == DR_BACK && UNDECIDED -> e_back = 1
    :: kind == DR_COPY_LOST && UNDECIDED -> e_lost = 1
    :: kind == DR_LOST_FENCED && UNDECIDED -> e_lost_fenced = 1
    :: else /* the record would ignore it, whatever happens */
    fi
}
inline d_activate()
{
    if
    :: !d_open ->
        d_open = 1; acts = acts | DA_ACTIVATE;
        HOLDS(P_WORD, proc != P_RUN); /* not before the pause: every frame would be answered twice */
        if :: copy != G_DEAD -> ingress = 1 :: else fi
    :: else
    fi
}
inline d_ask()
{
    d_asking = 1; d_again = 0; ask = O_SENT;
    acts = acts | DA_ASK
}
/* Asks what is missing of the volume: the fence, then whether it holds. */
inline d_fence_missing()
{
    if
    :: d_permit && !d_fenced && !d_fencing -> d_fencing = 1; fence = O_SENT; acts = acts | DA_FENCE
    :: else
    fi;
    if
    :: d_permit && d_fenced && !d_verified && !d_verifying -> d_verifying = 1; acts = acts | DA_VERIFY
    :: else
    fi
}
inline d_try_resume()
{
    if
    :: d_stage == D_FENCED && (d_verified || !d_permit) && !d_resuming -> d_resuming = 1; acts = acts | DA_RESUME
    :: else
    fi
}
inline d_become_fenced()
{
    d_stage = D_FENCED; d_again = 0;
    d_report(DR_FENCED);
    d_try_resume()
}
inline d_commit(answer)
{
    d_asking = 0; d_answer = answer; d_stage = D_COMMITTED; d_again = 0;
    d_report(DR_COMMITTED);
#ifdef NO_FENCE
    d_verified = 1;
    d_become_fenced()
#else
    if
    :: !d_permit -> d_become_fenced() /* no volume is known */
    :: else -> d_fence_missing()
    fi
#endif
}
inline d_begin_asking()
{
    d_stage = D_ASKING; d_relay = 0;
    d_activate();
    told = 0; /* says nothing new */
#ifdef NO_FREEZE
    d_commit(A_FROZEN)
#else
    d_ask()
#endif
}
inline d_on_loaded()
{
    d_loaded = 1;
    d_report(DR_LOADED);
    if :: d_permit -> d_begin_asking() :: else -> d_report(DR_PERMIT_WANTED) fi
}
inline d_discard_done(code)
{
    acts = acts | DA_DISCARD_DONE | ((code) * DA_REFUSED);
    if
    :: c_phase == C_DISCARD && o_task == O_HELD -> o_task = (code == NO_REFUSAL -> O_OK : O_BUSY)
    :: else
    fi
}
inline d_on_gone()
{
    if
    :: d_stage == D_IDLE || d_stage == D_ARMED ->
#ifndef SILENT_LOSS
        if :: d_loaded -> d_report(DR_COPY_LOST) :: else fi;
#endif
        d_loaded = 0
    :: d_stage == D_ASKING ->
        d_stage = D_DISCARDED; d_loaded = 0; d_asking = 0; d_again = 0;
        d_report(DR_COPY_LOST)
    :: d_stage == D_COMMITTED || d_stage == D_FENCED ->
        d_stage = D_LOST; d_again = 0;
        d_report(DR_LOST_FENCED)
    :: d_stage == D_DISCARDING ->
        d_removing = 0; d_again = 0; d_stage = D_DISCARDED;
        d_discard_done(NO_REFUSAL);
        if :: d_answer == A_RUNNING -> d_report(DR_BACK) :: else fi
    :: else
    fi
}
inline d_on_permit()
{
    if
    :: d_stage == D_IDLE || d_stage == D_ARMED ->
        d_permit = 1; d_stage = D_ARMED;
        if :: d_loaded -> d_begin_asking() :: else fi
    :: d_stage == D_DISCARDING || d_stage == D_DISCARDED || d_stage == D_LOST ->
        acts = acts | (E_GONE * DA_REFUSED)
    :: else
    fi
}
inline d_unanswered()
{
    d_asking = 0; d_again = 1
}
inline d_on_answer(a)
{
    if
    :: d_stage != D_ASKING
    :: else ->
        if
        :: a == A_FROZEN || a == A_GONE -> d_commit(a)
        :: a == A_RUNNING ->
            d_asking = 0; d_answer = a; d_stage = D_DISCARDING; d_again = 0;
            d_removing = 1; d_remove_loaded = 1;
            acts = acts | DA_REMOVE | DA_REMOVE_LOADED
        :: a == A_UNKNOWN -> d_unanswered()
        fi
    fi
}
inline d_remove(flag)
{
    d_removing = 1; d_again = 0; d_remove_loaded = flag;
    acts = acts | DA_REMOVE | ((flag) * DA_REMOVE_LOADED)
}
inline d_on_discard()
{
    if
    :: d_stage == D_IDLE || d_stage == D_ARMED ->
        if
        :: d_loaded -> acts = acts | (E_BUSY * DA_REFUSED); d_report(DR_PERMIT_WANTED)
        :: else -> d_stage = D_DISCARDING; d_remove(0)
        fi
    :: d_stage == D_ASKING -> acts = acts | (E_BUSY * DA_REFUSED)
    :: d_stage >= D_COMMITTED && d_stage <= D_DONE || d_stage == D_LOST ->
        acts = acts | (E_CONFLICT * DA_REFUSED)
    :: d_stage == D_DISCARDED -> acts = acts | DA_DISCARD_DONE
    :: else
    fi
}
#define REFUSED_BY_D ((acts / DA_REFUSED) & 7)
inline d_crash()
{
#ifdef TERM_VOLATILE
    d_forgot = 1;
#endif
    d_fenced = 0; d_verified = 0; d_fencing = 0; d_verifying = 0; d_asking = 0; d_resuming = 0; d_removing = 0;
    d_telling = 0; d_open = 0; d_relay = 0; d_again = 0; d_remove_loaded = 0;
    hd_loaded = 0; hd_gone = 0;
    if :: ask == O_SENT -> late_ask = 1 :: else fi; /* what left is in the network; its answer comes to nobody */
    ask = 0;
    if :: fence == O_SENT -> late_fence = 1 :: else fi;
    fence = 0; kill = 0;
    if :: c_phase == C_DISCARD && o_task == O_HELD -> o_task = O_SENT :: else fi; /* journaled: begins again */
#ifdef PERMIT_VOLATILE
    d_permit = 0
#else
    skip
#endif
}
inline d_on_restarted()
{
    if
    :: d_stage == D_IDLE || d_stage == D_ARMED ->
        if
        :: copy == G_DEAD -> d_on_gone()
        :: copy == G_LOADED -> d_loaded = 0; d_on_loaded()
        :: else
        fi
    :: d_stage == D_ASKING ->
        if
        :: copy == G_DEAD -> d_on_gone()
#ifdef RESTART_RESUMES
        :: else -> d_commit(A_FROZEN) /* on the permit alone */
#else
        :: else -> d_begin_asking()
#endif
        fi
    :: d_stage == D_COMMITTED ->
        if
        :: copy == G_DEAD -> d_on_gone()
        :: copy != G_DEAD && !d_permit -> d_become_fenced()
        :: else -> d_fence_missing()
        fi
    :: d_stage == D_FENCED ->
        if
        :: copy == G_DEAD -> d_on_gone()
        :: else -> d_fenced = d_permit; d_fence_missing(); d_try_resume()
        fi
    :: d_stage == D_RESUMED -> d_telling = 1; kill = O_SENT; acts = acts | DA_TELL
    :: d_stage == D_DISCARDING ->
        if
        :: copy == G_DEAD -> d_on_gone()
        :: else -> d_remove(d_answer == A_RUNNING)
        fi
    :: else
    fi
}
inline d_resumed()
{
    d_resuming = 0;
    if
    :: d_stage == D_FENCED ->
        d_stage = D_RESUMED; d_again = 0; d_telling = 1; kill = O_SENT;
        d_report(DR_RESUMED);
        acts = acts | DA_TELL
    :: else
    fi
}

proctype Destination()
{
    byte a;
end:
    do
    /* orders of the coordinator */
    :: d_step { o_permit == O_SENT ->
        d_hears(T_PERMIT);
        d_begin();
        d_on_permit();
        o_permit = (REFUSED_BY_D -> O_REFUSED : O_OK);
        d_end(DE_PERMIT, 0) }
    :: d_step { o_permit == O_SENT && d_permit -> /* the same call again: answered from the journal */
        d_hears(T_PERMIT);
        o_permit = O_OK }
    :: d_step { late_permit ->
        d_begin();
        late_permit = 0;
        d_on_permit();
        d_end(DE_PERMIT, 0) }
    :: d_step { c_phase == C_DISCARD && o_task == O_SENT ->
        d_hears(T_DISCARD);
        d_begin();
        o_task = O_HELD;
        d_on_discard();
        if
        :: REFUSED_BY_D == E_BUSY -> o_task = O_BUSY
        :: REFUSED_BY_D == E_CONFLICT -> o_task = O_REFUSED
        :: acts & DA_DISCARD_DONE -> o_task = O_OK
        :: else
        fi;
        d_end(DE_DISCARD, 0) }
    :: d_step { o_word == O_SENT ->
        d_hears(T_WORD);
        d_begin();
        a = word;
        if :: old & T_WORD :: else -> old_word = 0 fi;
        o_word = O_OK;
        d_on_answer(a);
        d_end(DE_ANSWER, a);
        a = 0 }
    /* of a coordinator that was overtaken */
    :: d_step { (old & T_PERMIT) && D_OBEYS_OLD ->
        d_begin();
        d_obeys_old(T_PERMIT);
        d_on_permit();
        d_end(DE_PERMIT, 0) }
    :: d_step { (old & T_DISCARD) && D_OBEYS_OLD ->
        d_begin();
        d_obeys_old(T_DISCARD);
        d_on_discard();
        d_end(DE_DISCARD, 0) }
    :: d_step { (old & T_WORD) && D_OBEYS_OLD ->
        d_begin();
        d_obeys_old(T_WORD);
        a = old_word; old_word = 0;
        d_on_answer(a);
        d_end(DE_ANSWER, a);
        a = 0 }
#ifndef NO_TERM
    :: d_step { (old & OLD_AT_D) && !D_OBEYS_OLD ->
        old = old & (255 - OLD_AT_D); old_word = 0;
        w_end(W_STALE_TERM) }
#endif
    :: d_step { c_up && !d_heard -> d_heard = 1; D_KNOWS; w_end(W_TERM_HEARD) }
    /* the source's worker */
    :: d_step { told ->
        d_begin();
        told = 0;
        if :: d_stage == D_ARMED -> d_activate() :: else fi;
        d_end(DE_SUSPENDED, 0) }
    :: d_step { ask >= O_OK && ask < N_NONE ->
        d_begin();
        a = ask - O_OK;
        ask = 0;
        d_on_answer(a);
        d_end(DE_ANSWER, a);
        a = 0 }
    :: d_step { ask == N_NONE ->
        d_begin();
        ask = 0;
#ifdef TIME_BOUND
        if :: d_stage == D_ASKING -> d_commit(A_GONE) :: else fi;
#else
        if :: d_stage == D_ASKING -> d_unanswered() :: else fi;
#endif
        d_end(DE_NO_ANSWER, 0) }
    :: d_step { kill == O_OK || kill == N_NONE ->
        d_begin();
        a = (kill == O_OK -> DE_TELL_OK : DE_TELL_FAILED);
        kill = 0; d_telling = 0;
        if
        :: d_stage == D_RESUMED && a == DE_TELL_OK -> d_stage = D_DONE; d_again = 0
        :: d_stage == D_RESUMED && a == DE_TELL_FAILED -> d_again = 1
        :: else
        fi;
        d_end(a, 0);
        a = 0 }
    :: d_step { (kill == O_SENT || kill == O_HELD) && faults > 0 -> /* lost, or its answer */
        faults--;
        d_begin();
        if :: kill == O_HELD :: else fi;
        kill = 0; d_telling = 0;
        if :: d_stage == D_RESUMED -> d_again = 1 :: else fi;
        d_end(DE_TELL_FAILED, 0) }
    /* the volume service's answers */
    :: d_step { fence == O_HELD && fenced == F_DONE ->
        d_begin();
        fence = 0; d_fencing = 0;
        if
        :: d_stage == D_COMMITTED || d_stage == D_FENCED ->
            d_fenced = 1; d_verifying = 1; acts = acts | DA_VERIFY
        :: else
        fi;
        d_end(DE_FENCE_OK, 0) }
    :: d_step { fence > 0 && faults > 0 -> /* lost, or its answer, or refused */
        faults--;
        d_begin();
        fence = 0; d_fencing = 0;
        if :: d_stage == D_COMMITTED || d_stage == D_FENCED -> d_again = 1 :: else fi;
        d_end(DE_FENCE_FAILED, 0) }
    :: d_step { d_verifying && fenced == F_DONE ->
        d_begin();
        d_verifying = 0;
        if
        :: d_stage == D_COMMITTED -> d_verified = 1; d_become_fenced()
        :: d_stage == D_FENCED -> d_verified = 1; d_try_resume()
        :: else
        fi;
        d_end(DE_VERIFY_OK, 0) }
    :: d_step { d_verifying && faults > 0 ->
        faults--;
        d_begin();
        d_verifying = 0;
        if
        :: d_stage == D_COMMITTED || d_stage == D_FENCED -> d_fenced = 0; d_verified = 0; d_again = 1
        :: else
        fi;
        d_end(DE_VERIFY_FAILED, 0) }
    /* the driver */
    :: d_step { d_resuming && (copy == G_LOADED || copy == G_RUNNING) ->
        d_begin();
        copy = G_RUNNING;
        d_resumed();
        d_end(DE_RESUME_OK, 0) }
    :: d_step { d_resuming && (copy == G_DEAD || faults > 0) -> /* a dead one cannot; or the reply is lost */
        d_begin();
        if :: copy == G_DEAD :: else -> faults--; copy = G_RUNNING fi;
        d_resuming = 0;
        if :: d_stage == D_FENCED && copy != G_DEAD -> d_again = 1 :: else fi;
        d_end(DE_RESUME_FAILED, 0) }
    :: d_step { d_removing && (copy != G_LOADED || d_remove_loaded) ->
        d_begin();
        HOLDS(P_HARM, copy != G_RUNNING && (copy != G_LOADED || proc == P_RAN || KEPT));
        copy = G_DEAD; ingress = 0; d_remove_loaded = 0;
        d_removing = 0;
        if :: d_stage == D_DISCARDING -> d_on_gone() :: else fi;
        d_end(DE_REMOVE_OK, 0) }
    :: d_step { d_removing && copy == G_LOADED && !d_remove_loaded -> /* loaded behind the order: the cutover decides */
        d_begin();
        d_removing = 0;
        if
        :: d_stage == D_DISCARDING && d_answer != A_RUNNING ->
            d_discard_done(E_BUSY);
            d_stage = (d_permit -> D_ARMED : D_IDLE);
            if :: !d_loaded -> d_on_loaded() :: else fi
        :: else
        fi;
        d_end(DE_REMOVE_FAILED, 1) }
    :: d_step { d_removing && faults > 0 && (copy != G_LOADED || d_remove_loaded) ->
        faults--;
        d_begin();
        d_removing = 0;
        if :: d_stage == D_DISCARDING -> d_again = 1 :: else fi;
        d_end(DE_REMOVE_FAILED, 0) }
    /* time: what failed is tried again; a question only when its answer can have changed */
    :: d_step { d_again && !(d_stage == D_ASKING && (d_asking || HOPELESS)) ->
        d_begin();
        d_again = 0;
        if
        :: d_stage == D_ASKING -> d_ask()
        :: d_stage == D_COMMITTED -> d_fence_missing()
        :: d_stage == D_FENCED -> d_fence_missing(); d_try_resume()
        :: d_stage == D_RESUMED -> d_telling = 1; kill = O_SENT; acts = acts | DA_TELL
        :: d_stage == D_DISCARDING -> d_remove(d_answer == A_RUNNING)
        fi;
        d_end(DE_TIMER, 0) }
    :: d_step { d_stage == D_ASKING && !d_relay && (d_again || late_ask || faults > 0) ->
        d_begin();
        if :: d_again || late_ask :: else -> faults-- fi; /* slow: neither answered nor failed */
        if :: !d_asking -> d_ask() :: else fi;
        d_relay = 1;
        d_report(DR_FREEZE_WANTED);
        d_end(DE_TIMER, 1) }
    /* the hypervisor's events */
    :: d_step { hd_loaded ->
        d_begin();
        hd_loaded = 0;
        if :: !d_loaded && (d_stage == D_IDLE || d_stage == D_ARMED) -> d_on_loaded() :: else fi;
        d_end(DE_LOADED, 0) }
    :: d_step { hd_gone && !hd_loaded ->
        d_begin();
        hd_gone = 0;
        if
        :: d_stage != D_DISCARDING -> d_on_gone()
        :: else /* what it leaves is the removal's to take, which is tried (again) */
        fi;
        d_end(DE_COPY_GONE, 0) }
    /* crashes */
    :: d_step { faults > 0 ->
        faults--;
        d_crash();
        d_begin();
        d_on_restarted();
        d_end(DE_RESTARTED, copy) }
    :: d_step { faults > 0 && hd_loaded && d_stage == D_ARMED ->
        faults--;
        d_crash();
        late_ask = 1;
        d_begin();
        d_on_restarted();
        d_end(DE_CRASH_ASKED, copy) }
    od
}
