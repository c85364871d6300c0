/* fake_drivers.h - a small world to run workers in: hosts with one guest, a volume service, a fabric; scriptable.
 *
 * The world is the truth that the tests look at, and it checks by itself, at every change, what must never happen
 * (world->violation): two copies that may run at once, a copy that runs with memory older than the volume, a run at the
 * destination before every source export is fenced. Workers come and go; the world stays, as libvirt and QEMU do.
 *
 * Thread-safe. Events and ends of jobs are given to whichever worker has the host's driver open; nobody there: they
 * are lost, as in life. */
#ifndef LMO_TESTS_UNIT_FAKE_DRIVERS_H
#define LMO_TESTS_UNIT_FAKE_DRIVERS_H

#include "workers/runtime.h"

#include <pthread.h>
#include <stdbool.h>

#define FAKE_HOSTS   2
#define FAKE_VOLUMES 2
#define FAKE_EXPORTS 4
#define FAKE_VM      "3f2c1a5e-9f0b-4c5d-8e6f-0123456789ab"
#define FAKE_PORT    "7d9f1a5e-9f0b-4c5d-8e6f-0123456789ab"

/* Calls that can be counted, made to fail, delayed or held. */
#define FAKE_CALLS(X)                                                                                                  \
    X(DESCRIBE)                                                                                                        \
    X(STATE) X(OUTGOING_XML) X(PRECHECK) X(PREPARE) X(DISCARD) X(JOB_START) X(JOB_ADOPT) X(JOB_LIMITS) X(JOB_PROGRESS) \
        X(JOB_ABORT) X(MEASURE_DIRTY) X(FREEZE) X(THAW) X(KILL) X(REMOVE) X(RESUME) X(SETTLE) X(PROVISION) X(RETIRE) X(CHECK_VOLUME)    \
            X(ATTACH) X(FENCE) X(VERIFY) X(DETACH) X(CHECK_PORT) X(PRELOAD) X(DUAL) X(AWAIT_BOUND) X(SINGLE)           \
                X(AWAIT_INSTALLED) X(ACTIVATE) X(RELEASE)
enum fake_call {
#define X(name) FAKE_##name,
    FAKE_CALLS(X)
#undef X
        FAKE_CALL_COUNT
};

struct fake_world;

struct fake_host {
    struct fake_world *world;
    char name[LMO_NAME_MAX];
    /* the guest's process here */
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
    /* whoever has the driver open */
    lmo_hv_event_fn *on_event;
    void *event_arg;
    bool open;
};

struct fake_rule {
    int code;       /* fail with it ... */
    unsigned times; /* ... so often */
    bool after;     /* do it, then fail (the answer is lost) */
    uint64_t delay_ms;
};

struct fake_export {
    char name[LMO_EXPORT_MAX], host[LMO_NAME_MAX];
    uint64_t epoch;
    bool offered, fenced;
};

struct fake_volume {
    char name[LMO_NAME_MAX];
    bool known;
    struct fake_export exports[FAKE_EXPORTS];
};

struct fake_world {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct fake_host hosts[FAKE_HOSTS];
    struct fake_volume volumes[FAKE_VOLUMES];
    unsigned volume_count;
    unsigned count[FAKE_CALL_COUNT];
    struct fake_rule rules[FAKE_CALL_COUNT];
    /* the job, always from hosts[job_from] to the other one */
    bool job, job_gate_open, job_suspended, job_loaded;
    unsigned job_from;
    lmo_hv_job_end_fn *end;
    void *end_arg;
    uint64_t total, remaining;
    uint32_t iteration;
    uint64_t dirty_bytes_per_s, dirty_age_ms; /* as measured before; age 0: never */
    uint64_t disk_total, disk_remaining;
    struct lmo_hv_job job_spec;               /* what the last job was started with */
    uint64_t limit_bandwidth, limit_downtime_ms; /* ordered last */
    bool automatic;      /* once the gate is open: pause, load, and end by themselves */
    bool freeze_unknown; /* the next freezes find nothing out */
    /* network */
    bool dual, destination_open;
    char single[LMO_NAME_MAX];
    char violation[256]; /* empty: none */
    pthread_t thread;
    bool thread_runs, ending;
};

struct fake_world *fake_world_new(void);
void fake_world_free(struct fake_world *w);

/* Fills cfg's driver functions: a hypervisor and a host network for hosts[index], or (index -1) volume service and
 * fabric. */
struct fake_seat {
    struct fake_world *world;
    int index;
};
void fake_seat(struct fake_seat *seat, struct fake_world *w, int index, struct lmo_worker_config *cfg);

/* ---- what hypervisors do by themselves ---- */
void fake_suspend(struct fake_world *w);   /* switch-over: the source is paused */
void fake_load(struct fake_world *w);      /* the destination has everything */
void fake_give_up(struct fake_world *w);   /* the source's libvirt resumes its guest; the call fails */
void fake_finish(struct fake_world *w);    /* the source's libvirt kills its guest; the call succeeds */
void fake_copy_dies(struct fake_world *w); /* the destination's process ends */
void fake_break_watch(struct fake_world *w, unsigned host, bool restored);

unsigned fake_count(struct fake_world *w, enum fake_call call);
void fake_fail(struct fake_world *w, enum fake_call call, int code, unsigned times, bool after);
void fake_delay(struct fake_world *w, enum fake_call call, uint64_t ms);
/* Where the guest may run now: index, -1 nowhere, -2 two places. */
int fake_runs_at(struct fake_world *w);
bool fake_wait_runs_at(struct fake_world *w, int host, unsigned timeout_ms);

#endif
