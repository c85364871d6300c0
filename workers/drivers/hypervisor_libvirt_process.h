/* hypervisor_libvirt_process.h - what the kernel says about a guest's QEMU process and about who reads its monitor.
 *
 * Everything that the freeze evidence (docs/adr/0007-freeze-evidence.md) takes from /proc, pidfds and sockets is here:
 * no libvirt, no policy. All functions are bounded: they read a few small files, and the two that wait take a
 * deadline. Needs the right to inspect QEMU and libvirtd as a debugger would (CAP_SYS_PTRACE) and CAP_KILL. */
#ifndef LMO_WORKERS_HYPERVISOR_LIBVIRT_PROCESS_H
#define LMO_WORKERS_HYPERVISOR_LIBVIRT_PROCESS_H

#include "base/err.h"
#include "base/types.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LMO_QEMU_VCPUS_MAX LMO_VCPUS_MAX

/* A guest's QEMU process, pinned: the pidfd can never come to mean another process. */
struct lmo_qemu {
    pid_t pid;
    int pidfd;            /* owned; -1: none */
    uint64_t start_ticks; /* /proc/PID/stat's start time: tells a recycled pid after a restart of ours */
    unsigned vcpus;       /* as libvirt counts them */
    int monitor_fd;       /* number of the monitor's connected socket inside QEMU; -1: not found */
    ino_t monitor_inode;
    char monitor_path[108];
};
#define LMO_QEMU_NONE                 \
    {                                 \
        .pidfd = -1, .monitor_fd = -1 \
    }

/* Where one vCPU thread waits. `call` is the kernel's own line about the system call it is in: number, arguments,
 * stack pointer, program counter. Two equal lines = the same wait, entered from the same place. */
struct lmo_vcpu_wait {
    pid_t tid;
    uint64_t switches; /* times it was put on a processor, ever */
    uint64_t ran_ns;   /* processor time, ever */
    char state;        /* 'S' asleep, 'T' stopped, ... */
    char call[160];
};
struct lmo_vcpu_waits {
    unsigned count;
    struct lmo_vcpu_wait vcpu[LMO_QEMU_VCPUS_MAX];
};

/* Both directions of the monitor's socket, as QEMU's end sees them. */
struct lmo_monitor_look {
    bool open;            /* the reader's end is open too */
    int unread_by_reader; /* bytes QEMU sent that libvirtd has not taken out of the socket */
    int unread_by_qemu;   /* bytes libvirtd sent that QEMU has not taken out */
    bool resume_queued;   /* those contain a "cont" */
    pid_t reader;         /* process at the other end: libvirtd */
};

/* Reads the next decimal number of a text (blanks before it are skipped) and moves on; false if there is none. */
bool lmo_scan_u64(const char **text, uint64_t *ret);

/* Pins the process `pid` if it is the QEMU of that guest (by "-uuid" of its command line). NOT_FOUND if not. */
int lmo_qemu_pin(pid_t pid, const char *uuid, unsigned vcpus, const char *monitor_path, struct lmo_qemu *ret_qemu,
                 struct lmo_err *err) LMO_MUST_CHECK;
void lmo_qemu_unpin(struct lmo_qemu *qemu);
/* A copy with a pidfd of its own (-1 if there was none, or no room for one). */
struct lmo_qemu lmo_qemu_dup(const struct lmo_qemu *qemu);
bool lmo_qemu_ended(const struct lmo_qemu *qemu);
/* Waits for its end; true if it has ended. */
bool lmo_qemu_await_end(const struct lmo_qemu *qemu, uint64_t deadline_ns);
int lmo_qemu_signal(const struct lmo_qemu *qemu, int sig);

/* Waits until every thread is stopped (state T). False at the deadline, or if the process has ended. */
bool lmo_qemu_await_stopped(const struct lmo_qemu *qemu, uint64_t deadline_ns);
/* True if every thread is stopped now; *ret_switches = sum over all threads of times it was put on a processor:
 * while it stays the same, nothing of the process has run. */
bool lmo_qemu_all_stopped(pid_t pid, uint64_t *ret_switches);

/* Finds the vCPU threads (by QEMU's names for them) and where they wait. False unless all of them were found. */
bool lmo_qemu_vcpu_waits(const struct lmo_qemu *qemu, struct lmo_vcpu_waits *ret_waits);
/* The same for the threads of `like`, without looking for them. */
bool lmo_qemu_vcpu_waits_again(const struct lmo_qemu *qemu, const struct lmo_vcpu_waits *like,
                               struct lmo_vcpu_waits *ret_waits);
/* True if every vCPU sits in a futex wait, in one of the given states. */
bool lmo_vcpu_all_wait(const struct lmo_vcpu_waits *waits, const char *states);
/* True if every vCPU is in the very wait it was in at `base`, woken at most `wakes` times since, having used at most
 * `run_ns` of processor time since. */
bool lmo_vcpu_same_waits(const struct lmo_vcpu_waits *base, const struct lmo_vcpu_waits *now, unsigned wakes,
                         uint64_t run_ns);

/* Looks for the monitor's connected socket in QEMU and remembers its number. Off any path that a guest waits for. */
bool lmo_qemu_find_monitor(struct lmo_qemu *qemu);
/* False if the remembered socket is no longer QEMU's monitor. Holds a copy of the socket for microseconds only: while
 * it is held, libvirtd would not notice QEMU's death. */
bool lmo_qemu_monitor_look(const struct lmo_qemu *qemu, struct lmo_monitor_look *ret_look);

/* True if every thread of process `reader` that has the name of that guest's event thread is idle in poll(): it has
 * dealt with all that it had read. False also if there is no such thread. */
bool lmo_qemu_reader_idle(pid_t reader, const char *guest_name);

#endif
