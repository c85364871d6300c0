/* disk.h - disks of simulated machines: what is durable, what is only written, and how they fail. */
#ifndef LMO_TESTS_SIM_DISK_H
#define LMO_TESTS_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

struct sim_disk;

/* The disk that files "/sim/NAME/..." are on; made when it is first named. */
struct sim_disk *sim_disk_named(const char *name);
void sim_disk_set_full(struct sim_disk *d, bool full);
/* Every write and sync fails until it is taken back. */
void sim_disk_set_broken(struct sim_disk *d, bool broken);
/* Syncs take so much longer. */
void sim_disk_set_slow(struct sim_disk *d, uint64_t extra_ns);
/* Unsynced writes do not survive the end of a process that has files open here: lost, or kept in part, by the seed. */
void sim_disk_set_forgetful(struct sim_disk *d, bool forgetful);

/* Once per real process, before anything opens a database. */
void sim_vfs_register(void);

struct sim_disk_counts {
    uint64_t syncs, writes, bytes, failed, lost;
};
struct sim_disk_counts sim_disk_counts(void);

#endif
