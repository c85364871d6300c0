/* world.pml - what is not ours: libvirt and QEMU at both ends, the volume service, the network. Part of cutover.pml. */

/* libvirtd at the source is restarted while it waits for the destination: it leaves the guest as it is. */
inline libvirtd_restarts()
{
    faults--;
    job = J_LOST; finish = 0;
    hs_suspended = 0; hs_resumed = 0; hs_stopped = 0; job_ends();
    s_begin();
    h_arg = (s_freeze || s_kill || s_revive -> 8 : 4); /* a call that is under way still answers */
    if :: h_arg == 4 -> s_on_restarted() :: else fi;
    s_end(SE_RESTARTED, OBSERVED + h_arg)
}

proctype World()
{
end:
    do
    /* libvirt at the source */
    :: d_step { job == J_JOB && copy == G_INCOMING && !stopped ->
        proc = P_PAUSED; job = J_WAIT; watch = 1; hs_suspended = 1; inflight = 1; /* a write is under way */
        w_end(W_PAUSE) }
    :: d_step { job == J_WAIT && copy == G_INCOMING && proc == P_PAUSED ->
        copy = G_LOADED; finish = 1; hd_loaded = 1;
        w_end(W_LOAD) }
    :: d_step { job == J_WAIT && proc != P_DEAD -> /* the reply of finish is lost, or says that it failed */
        job = J_OVER; finish = 0;
        if
        :: stopped -> queued = 1
        :: else ->
            hs_end = 2;
            if :: proc == P_PAUSED -> proc = P_RAN; ran = 1; hs_resumed = 1 :: else fi
        fi;
        w_end(W_RESUME) }
    :: d_step { job == J_WAIT && finish -> /* the reply is there: the source's part is over */
        job = J_OVER; finish = 0;
        proc = P_DEAD; stopped = 0; hs_stopped = 1; hs_end = 1;
        w_end(W_KILL) }
    :: d_step { job == J_JOB && (abort_asked || copy == G_DEAD) ->
        job = J_OVER; hs_end = 2;
        w_end(W_JOB_FAILS) }
    :: d_step { job == J_WAIT && faults > 0 -> libvirtd_restarts() }
    :: d_step { job == J_WAIT && faults > 0 && watch -> watch = 0; libvirtd_restarts() } /* and what it says was all there was */
    /* the destination's process */
    :: d_step { copy == G_INCOMING && (job == J_OVER || job == J_LOST) ->
        copy = G_DEAD; ingress = 0; hd_gone = 1;
        w_end(W_INCOMING_ENDS) }
    :: d_step { (copy == G_INCOMING || copy == G_LOADED) && job != J_NONE && faults > 0 ->
        faults--;
        copy = G_DEAD; copy_killed = 1; ingress = 0; hd_gone = 1;
        w_end(W_COPY_DIES) }
    /* the volume service: the exclusion is recorded and the export deleted; done is what is drained */
    :: d_step { fence == O_SENT -> fence = O_HELD; if :: fenced == F_NONE -> fenced = F_BEGUN :: else fi;
        w_end(W_FENCE_BEGINS) }
    :: d_step { late_fence -> late_fence = 0; if :: fenced == F_NONE -> fenced = F_BEGUN :: else fi;
        w_end(W_FENCE_LATE) }
    :: d_step { fenced == F_BEGUN && !inflight -> fenced = F_DONE; w_end(W_FENCE_DRAINED) }
    :: d_step { inflight && (copy == G_RUNNING || fenced == F_BEGUN) -> inflight = 0; /* earlier, it would not matter */
        HOLDS(P_WRITER, copy != G_RUNNING); /* which runs, and writes */
        w_end(W_WRITE_LANDS) }
    /* the network */
    :: d_step { ask == O_SENT && faults > 0 -> faults--; ask = N_NONE; w_end(W_ASK_LOST) }
    :: d_step { ask == O_SENT && faults > 0 -> faults--; ask = N_NONE; late_ask = 1; w_end(W_ASK_LATE) }
    :: d_step { ask >= O_OK && ask < N_NONE && faults > 0 -> faults--; ask = N_NONE; w_end(W_ANSWER_LOST) }
    :: d_step { told && faults > 0 -> faults--; told = 0; w_end(W_TOLD_LOST) }
    :: d_step { late_ask || late_permit || late_start || late_fence || old ->
        late_ask = 0; late_permit = 0; late_start = 0; late_fence = 0; old = 0; old_word = 0; s_heard = 1; d_heard = 1;
        w_end(W_LATE_LOST) }
    od
}
