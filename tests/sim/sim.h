/* sim.h - the simulator's kernel: virtual time, simulated processes, fibers, memory, observation points.
 *
 * One thread of one real process runs everything. The scheduler owns a heap of events ordered by virtual time (ties
 * in the order of creation); product code runs on fibers only, so that a crash can strike anywhere: the fiber is left
 * and never entered again, and everything that its process had allocated is dropped without running any tear-down.
 *
 * A simulated process is one fiber for its loop (the real base/loop.c, whose epoll_wait blocks here), one per driver
 * call that is under way (pool.c), and short ones for what a listener's or a driver's thread would do.
 *
 * Invariants:
 *  K1  Nothing that happens depends on anything but the plan and its seed: no real clock, no address, no environment.
 *  K2  The scheduler's stack never runs product code, so a crash never unwinds the simulator.
 *  K3  After a crash no event, message or call of the dead incarnation reaches anybody, and nothing reaches it. */
#ifndef LMO_TESTS_SIM_SIM_H
#define LMO_TESTS_SIM_SIM_H

#include "base/err.h"
#include "base/types.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_US UINT64_C(1000)
#define SIM_MS UINT64_C(1000000)
#define SIM_S  UINT64_C(1000000000)

#define SIM_PROCESSES_MAX 24
#define SIM_RESTART_NS    (400 * SIM_MS)                             /* by the service manager, about */
#define SIM_START_NS      (UINT64_C(1000) * SIM_S)                   /* the machines have been up for a while */
#define SIM_EPOCH_US      (UINT64_C(1800000000) * UINT64_C(1000000)) /* CLOCK_REALTIME at boot */

/* ------------------------------------------------------------------ random numbers */

struct sim_rng {
    uint64_t state;
};
struct sim_rng sim_rng_new(uint64_t seed, const char *stream);
uint64_t sim_random(struct sim_rng *r);
uint64_t sim_below(struct sim_rng *r, uint64_t bound);                /* 0 .. bound-1; bound > 0 */
uint64_t sim_between(struct sim_rng *r, uint64_t low, uint64_t high); /* inclusive */
bool sim_chance(struct sim_rng *r, unsigned per_mille);
/* Mostly near `typical`, now and then up to `tail` times as long. */
uint64_t sim_latency(struct sim_rng *r, uint64_t typical_ns, unsigned tail);

/* ------------------------------------------------------------------ observation points
 *
 * Where a crash can strike, and where the outcome of a call can be decided. Counted per process, over all its
 * incarnations, from 1. */
#define SIM_POINTS(X)                                                                \
    X(SYNC, "sync")       /* durable write: before, after */                         \
    X(CALL, "call")       /* request sent: before, after; its fate */                \
    X(REPLY, "reply")     /* reply received: before its callback, after */           \
    X(SERVE, "serve")     /* request received: before its handler, after */          \
    X(ANSWER, "answer")   /* answer given to the network: before, after; its fate */ \
    X(DRIVER, "driver")   /* driver call: before its effect, after it; its fate */   \
    X(EVENT, "event")     /* hypervisor event delivered: before, after */            \
    X(TURN, "turn")       /* turn of the loop: before */                             \
    X(WRITE, "write")     /* write to a file, not synced yet: FAIL */                \
    X(CONNECT, "connect") /* new connection: FAIL */                                 \
    X(ALLOC, "alloc")     /* allocation: FAIL; counted only if asked for */

enum sim_point {
#define X(name, text) SIM_POINT_##name,
    SIM_POINTS(X)
#undef X
        SIM_POINT_COUNT
};
const char *sim_point_name(enum sim_point p);
enum sim_point sim_point_from_name(const char *name); /* COUNT: unknown */

/* What the plan decided for one observation. */
enum sim_fate {
    SIM_FATE_NONE = 0,
    SIM_FATE_CRASH_BEFORE, /* the process dies before it */
    SIM_FATE_CRASH_AFTER,  /* it happened, then the process dies */
    SIM_FATE_LOST, /* CALL: the request never arrives. ANSWER: the reply never arrives. DRIVER: not done, unknown */
    SIM_FATE_REPLY_LOST, /* CALL: carried out, its reply is lost. DRIVER: done, reported as unknown */
    SIM_FATE_TWICE,      /* CALL: delivered twice */
    SIM_FATE_LATE,       /* CALL, ANSWER, DRIVER: some seconds late */
    SIM_FATE_FAIL,       /* SYNC: I/O error. DRIVER: certainly not done. CALL: connection refused */
    SIM_FATE_COUNT
};
const char *sim_fate_name(enum sim_fate f);
enum sim_fate sim_fate_from_name(const char *name); /* COUNT: unknown */

/* ------------------------------------------------------------------ processes */

struct sim_fiber;
struct sim_block; /* memory.c */
struct sim_client;
struct sim_server;

typedef void sim_fn(void *arg);

struct sim_process {
    char name[LMO_NAME_MAX];
    unsigned index;
    unsigned role; /* enum lmo_role: what its certificate says */
    sim_fn *main;  /* runs on its main fiber, at every start */
    void *arg;
    bool alive;
    uint64_t incarnation;  /* +1 at every start and end */
    uint64_t asleep_until; /* SIGSTOP; 0: awake */
    int64_t skew_us;       /* of CLOCK_REALTIME */
    bool starved;          /* an allocation of it was made to fail: it may end itself for that */
    bool take_over;        /* a coordinator: its next start takes the store from another one */
    uint64_t restart_ns;   /* after an end; 0: stays down */
    unsigned crashes, starts;
    uint64_t points[SIM_POINT_COUNT];
    struct sim_fiber *fibers;   /* blocked ones */
    struct sim_block *blocks;   /* its memory */
    struct sim_client *clients; /* net.c */
    struct sim_server *servers;
    char last_error[160]; /* newest error in its log */
    struct sim_rng rng;
};

struct sim_process *sim_process_add(const char *name, unsigned role, sim_fn *main, void *arg);
void sim_process_start(struct sim_process *p);
/* Ends it here and now, as SIGKILL does. Does not return when it is the caller's own. */
void sim_process_kill(struct sim_process *p);
void sim_process_sleep(struct sim_process *p, uint64_t ns);
struct sim_process *sim_process_named(const char *name);
struct sim_process *sim_process_at(unsigned index); /* NULL beyond the last */
struct sim_process *sim_current(void);              /* NULL: the simulator itself */
/* The world's part when a process has ended: before its memory goes. */
void sim_set_on_drop(void (*fn)(struct sim_process *p));

/* ------------------------------------------------------------------ time and events */

uint64_t sim_now(void); /* of whoever runs: a process may be ahead of the scheduler while it is busy */
int64_t sim_now_since_start_us(void);
/* Calls fn(arg) on the scheduler's stack at `when`; dropped if `p` (may be NULL) is another incarnation by then, put off
 * while it is asleep. */
void sim_at(struct sim_process *p, uint64_t when, sim_fn *fn, void *arg);
/* Runs fn(arg) in the context of `p`, now, on a fiber of its own. From the scheduler's stack. */
void sim_run_in(struct sim_process *p, sim_fn *fn, void *arg);
/* A fiber of the current process that begins at `when`. */
void sim_spawn(uint64_t when, sim_fn *fn, void *arg);
/* On a fiber. */
void sim_sleep(uint64_t ns);
void sim_busy(uint64_t ns); /* the fiber is that much later from here on; others may run meanwhile */

/* Something that fibers wait for. Zero-initialise; fibers that die leave it by themselves. */
struct sim_signal {
    struct sim_fiber *waiting;
};
/* False: the deadline passed. */
bool sim_wait(struct sim_signal *s, uint64_t deadline_ns);
void sim_wake(struct sim_signal *s);

/* ------------------------------------------------------------------ one run */

/* Everything begins anew; `seed` decides all noise. `installed`: with databases on the disks, as after a first start. */
void sim_begin(uint64_t seed, bool installed);
/* Runs events until `until` (virtual), or until nothing is left, or sim_stop. */
void sim_run_until(uint64_t until);
void sim_stop(void);
void sim_end(void);
uint64_t sim_seed(void);
uint64_t sim_hash(void);
void sim_hash_anew(void); /* from here on: what comes, without what has been */
uint64_t sim_event_count(void);

/* A checker's or the product's own: the run has failed. The first one counts. */
void sim_violation(const char *fmt, ...) LMO_PRINTF(1, 2);
const char *sim_violated(void); /* NULL: not yet */
uint64_t sim_violated_ns(void);

/* One observation; may not return. CRASH_AFTER is returned: the caller does what is to be done and calls sim_after. */
enum sim_fate sim_observe(enum sim_point kind);
void sim_after(enum sim_fate fate);
/* The plan's say: NONE for the most part. Set by run.c. */
typedef enum sim_fate sim_fate_fn(void *arg, struct sim_process *p, enum sim_point kind, uint64_t k);
void sim_set_fates(sim_fate_fn *fn, void *arg);

/* What a crash of the running process, here and now, would leave behind is a function of this: two crashes at equal
 * moments of one run are one and the same. For the process runs in one scheduler's event, in which nobody else runs; its
 * memory, fibers, timers, descriptors and random numbers end with it; and whatever else there is (disks, network, world,
 * events of others, random numbers of others) was not touched between the two, or `changes` had grown. Counted too often
 * is harmless. */
struct sim_moment {
    uint64_t event, changes;
    unsigned process;
};
struct sim_moment sim_moment(const struct sim_process *p);
/* Called at a crash that a fate decided, before anything is dropped. */
void sim_set_on_crash(void (*fn)(void *arg, struct sim_process *p), void *arg);
/* Are allocations observed, too? They are many. */
extern bool sim_alloc_points;

/* ------------------------------------------------------------------ trace */

extern bool sim_tracing;
void sim_trace_line(const char *fmt, ...) LMO_PRINTF(1, 2);
#define sim_trace(...) (sim_tracing ? sim_trace_line(__VA_ARGS__) : (void)0)
/* Mixes something that happened into the run's hash. */
void sim_mix(uint64_t a, uint64_t b);

/* What the processes log about migrations at level info ("migration=ID phase=PHASE what=..."); NULL: nobody listens. */
typedef void sim_log_fn(const char *text);
void sim_set_on_log(sim_log_fn *fn);

/* ------------------------------------------------------------------ memory */

/* Everything allocated from here on belongs to `p` (NULL: the simulator). Returns the owner before. */
struct sim_process *sim_own(struct sim_process *p);
void sim_memory_drop(struct sim_process *p);
uint64_t sim_memory_of(const struct sim_process *p);

#endif
