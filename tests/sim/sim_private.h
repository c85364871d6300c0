/* sim_private.h - what the simulator's own files share and no scenario needs. */
#ifndef LMO_TESTS_SIM_PRIVATE_H
#define LMO_TESTS_SIM_PRIVATE_H

#include "sim.h"

/* memory.c */
size_t sim_memory_size(void *block);
/* In a real process that was just forked for the rest of a run: from here on nothing of its parent's is written to. */
void sim_memory_forked(void);
bool sim_memory_is_own(const void *block); /* not the parent's */

/* kernel.c: something outside of the running process's own memory is touched (sim_moment) */
void sim_changes(void);

/* kernel.c: fibers */
struct sim_fiber *sim_fiber_current(void);
/* fds.c: a process is gone, its descriptors with it */
void sim_fds_drop(struct sim_process *p);
void sim_fds_reset(void);
/* Blocks the current fiber until sim_fiber_ready. */
void sim_fiber_block(void);
/* Enters it again at `when`, or when it is no longer busy. Once per block. */
void sim_fiber_ready(struct sim_fiber *f, uint64_t when);
uint64_t sim_fiber_local(const struct sim_fiber *f);

/* net.c */
void sim_net_begin(void);
void sim_net_drop(struct sim_process *p);
void sim_net_end(void);

/* vfs.c */
void sim_disks_begin(bool installed);
void sim_disks_drop(struct sim_process *p);
void sim_disks_forget_nothing(void); /* nobody will look any more */
/* What is durable now is what machines have on their disks when a run begins with them installed. */
void sim_disks_install(void);

/* permit.c: once per real process */
void sim_permits_init(void);

#endif
