/* world.h - a world to run real workers in: hosts, guests, volume services, a fabric; scriptable.
 *
 * The world is the truth that tests look at, and it checks by itself, at every change, what must never happen
 * (world->violation): two copies of a guest that may run at once, a copy that runs with memory older than its volumes, a
 * run at the destination before every source export is fenced. Workers come and go; the world stays, as libvirt and
 * QEMU do.
 *
 * A world is one block of memory without pointers. It may be private, or a file that several processes map: then the
 * process that made it (the keeper) lets time pass, and any other may be killed at any moment. Thread-safe. Events and ends
 * of jobs are given to whichever worker has the host's driver open; nobody there: they are lost, as in life. */
#ifndef LMO_TESTS_FAKES_WORLD_H
#define LMO_TESTS_FAKES_WORLD_H

#include "workers/runtime.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#define FAKE_VOLUMES 2 /* per guest */
#define FAKE_EXPORTS 4 /* per volume, remembered at once */
#define FAKE_COPIES  2 /* of a guest: where it is, where it goes */
#define FAKE_RING    256 /* events of a host on their way to another process */
#define FAKE_VM      "3f2c1a5e-9f0b-4c5d-8e6f-0123456789ab" /* the guest of a private world */
#define FAKE_PORT    "7d9f1a5e-9f0b-4c5d-8e6f-0123456789ab"

/* Calls that can be counted, made to fail, delayed or held. */
#define FAKE_CALLS(X)                                                                                                  \
    X(DESCRIBE)                                                                                                        \
    X(STATE) X(OUTGOING_XML) X(PRECHECK) X(PREPARE) X(DISCARD) X(JOB_START) X(JOB_ADOPT) X(JOB_LIMITS) X(JOB_PROGRESS) \
        X(JOB_ABORT) X(FREEZE) X(THAW) X(KILL) X(REMOVE) X(RESUME) X(SETTLE) X(PROVISION) X(RETIRE) X(CHECK_VOLUME)    \
            X(ATTACH) X(FENCE) X(VERIFY) X(DETACH) X(CHECK_PORT) X(PRELOAD) X(DUAL) X(AWAIT_BOUND) X(SINGLE)           \
                X(AWAIT_INSTALLED) X(ACTIVATE) X(RELEASE) X(CHECK_REACH) X(MEASURE_DIRTY) X(RELEASE_GUEST) X(DEFINE) X(ASSIGN)
enum fake_call {
#define X(name) FAKE_##name,
    FAKE_CALLS(X)
#undef X
        FAKE_CALL_COUNT
};

/* Wakes those who wait for it, in whatever process; guarded by the world's lock. */
struct fake_signal {
    _Atomic uint32_t turn;
};

struct fake_rule {
    int code;       /* fail with it ... */
    unsigned times; /* ... so often */
    bool after;     /* do it, then fail (the answer is lost) */
    uint64_t delay_ms;
};

/* An event, or the end of a job, on its way to a worker. */
struct fake_item {
    struct lmo_hv_event ev;
    bool job_end;
    struct lmo_hv_job_end end;
};

struct fake_host {
    char name[LMO_NAME_MAX];
    /* whoever has the driver open */
    bool open;
    pid_t owner;
    unsigned ring_first, ring_count, ring_lost;
    struct fake_item ring[FAKE_RING];
};

/* A guest's process on one host. */
struct fake_copy {
    unsigned host;
    bool used;     /* this slot means something */
    bool process;  /* QEMU exists */
    bool incoming; /* waits for the stream */
    bool loaded;   /* stream complete, never run here yet */
    bool vcpus;    /* would run if the process is not stopped */
    bool paused_by_user;
    bool migration_pause;
    bool stopped;       /* SIGSTOP */
    bool resume_queued; /* libvirt resumed it while it was stopped: it runs as soon as it is continued */
    bool ran_after_pause;
    bool defined, autostart, prepared;
};

struct fake_export {
    char name[LMO_EXPORT_MAX], host[LMO_NAME_MAX];
    uint64_t epoch;
    bool offered, fenced;
};

struct fake_volume {
    char name[LMO_NAME_MAX];
    struct fake_export exports[FAKE_EXPORTS];
};

/* A guest's memory on its way. */
struct fake_job {
    bool running, gate_open, suspended, loaded;
    unsigned from, to; /* copies */
    uint64_t total, remaining;
    uint32_t iteration;
    uint64_t bandwidth_bytes_per_s, downtime_ms; /* limits in force; 0: none */
    uint32_t throttle_initial_percent, throttle_increment_percent; /* as the job was started */
    uint64_t disk_total, disk_remaining;
    uint64_t iteration_ns;                       /* when the present pass began, with `remaining` to go */
    uint64_t due_ns;                             /* the next thing that happens by itself; 0: nothing */
    uint64_t started_ns;                         /* lmo_now_ns; stays after the job */
};

struct fake_guest {
    char uuid[LMO_UUID_MAX], name[LMO_NAME_MAX], port[LMO_NAME_MAX], service[LMO_ADDRESS_MAX];
    uint64_t memory_bytes, dirty_bytes_per_s;
    uint64_t dirty_age_ms; /* since it was measured; 0: never */
    struct fake_copy copies[FAKE_COPIES];
    struct fake_volume volumes[FAKE_VOLUMES];
    struct fake_job job;
    /* network */
    bool dual, destination_open;
    char single[LMO_NAME_MAX];
    uint64_t moves; /* ended well */
};

struct fake_world_config {
    unsigned hosts, guests; /* guest n begins at host n % hosts */
    unsigned volumes;       /* per guest */
    unsigned rack;          /* hosts that share a volume service and a fabric; 0: all */
    unsigned xml_bytes;     /* size of a domain's XML; 0: a few words */
    bool automatic;         /* jobs go their way once the gate is open */
    uint64_t memory_bytes;  /* of a guest */
    uint64_t rate_bytes_per_s;  /* what a job transfers without a limit; 0: a job converges at once */
    uint64_t dirty_bytes_per_s; /* what a guest changes */
    uint64_t load_ms;           /* from the pause to loaded */
};

struct fake_world {
    uint32_t magic;
    size_t size;
    bool shared;
    struct fake_world_config cfg;
    pthread_mutex_t lock;
    struct fake_signal changed; /* anything at all */
    struct fake_signal ring;    /* something for another process */
    unsigned host_count, guest_count, volume_count, foreign; /* foreign: items in all rings */
    unsigned count[FAKE_CALL_COUNT];
    struct fake_rule rules[FAKE_CALL_COUNT];
    bool freeze_unknown; /* the next freezes find nothing out */
    unsigned torn;       /* how often a process was killed within a change */
    uint64_t next_due_ns;
    char violation[256]; /* empty: none */
    bool ending;
    size_t guests_at; /* the guests' offset from the world; hosts follow the world at once */
    struct fake_host hosts[];
};

/* A private world: two hosts, hv1 and hv2, one guest at hv1 with two volumes, "vol1" and "vol2". Starts its keeper. */
struct fake_world *fake_world_new(void);
void fake_world_free(struct fake_world *w);

/* A fleet: hosts hv1..., guests guest-0.... `path` NULL: private. The caller is the keeper. */
int fake_world_make(const struct fake_world_config *cfg, const char *path, struct fake_world **ret,
                    struct lmo_err *err) LMO_MUST_CHECK;
/* The same world from another process, which lets go of it with fake_world_leave(). */
int fake_world_join(const char *path, struct fake_world **ret, struct lmo_err *err) LMO_MUST_CHECK;
void fake_world_leave(struct fake_world *w);

static inline struct fake_guest *fake_guest(struct fake_world *w, unsigned n)
{
    return (struct fake_guest *)(void *)((char *)w + w->guests_at) + n;
}
void fake_lock(struct fake_world *w);
void fake_unlock(struct fake_world *w);

/* ---- a worker's drivers ---- */

/* One worker's place in the world; outlives the worker. Fills cfg's driver functions: hypervisor and host network of
 * hosts[host] (negative: none), and volume service and fabric if `services`. */
struct fake_seat {
    struct fake_world *world;
    int host;
    bool services;
    /* of the worker that has the drivers open */
    lmo_hv_event_fn *on_event;
    void *event_arg;
    lmo_hv_job_end_fn *end;
    void *end_arg;
    struct fake_seat *next;
};
void fake_seat(struct fake_seat *seat, struct fake_world *w, int host, bool services, struct lmo_worker_config *cfg);
/* What a worker of a fleet advertises. */
void fake_facts(const struct fake_world *w, unsigned host, bool services, struct lmo_host_facts *ret);

/* Held: no job goes beyond its open gate. Let go: those that wait there converge. */
void fake_hold(struct fake_world *w, bool hold);
/* Only these guests', while all others stay held. */
void fake_let_go(struct fake_world *w, unsigned first, unsigned count);

/* ---- what hypervisors do by themselves, on demand (a private world's guest) ---- */
void fake_suspend(struct fake_world *w);   /* switch-over: the source is paused */
void fake_load(struct fake_world *w);      /* the destination has everything */
void fake_give_up(struct fake_world *w);   /* the source's libvirt resumes its guest; the call fails */
void fake_finish(struct fake_world *w);    /* the source's libvirt kills its guest; the call succeeds */
void fake_copy_dies(struct fake_world *w); /* the destination's process ends */
/* The same of any guest of a fleet. The copy dies only before it runs: false, it was too late. */
void fake_give_up_of(struct fake_world *w, struct fake_guest *g);
bool fake_copy_dies_of(struct fake_world *w, struct fake_guest *g);
/* Its owner starts it or shuts it off where it is defined; false: not now (a job runs, or it is so already). */
bool fake_set_power(struct fake_world *w, struct fake_guest *g, bool on);
void fake_break_watch(struct fake_world *w, unsigned host, bool restored);

unsigned fake_count(struct fake_world *w, enum fake_call call);
void fake_fail(struct fake_world *w, enum fake_call call, int code, unsigned times, bool after);
void fake_delay(struct fake_world *w, enum fake_call call, uint64_t ms);
/* "attach" gives FAKE_ATTACH; negative if there is no such call. */
int fake_call_from_name(const char *name);
/* Where the guest may run now: copy, -1 nowhere, -2 two places. */
int fake_runs_at(struct fake_world *w);
bool fake_wait_runs_at(struct fake_world *w, int host, unsigned timeout_ms);

#endif
