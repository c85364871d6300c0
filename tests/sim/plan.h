/* plan.h - what a run consists of, as data: the fleet, what is asked for, what goes wrong. Separate from the noise
 * (latencies, orders, which unsynced writes survive), which comes from the seed alone. Also as JSON (README.md). */
#ifndef LMO_TESTS_SIM_PLAN_H
#define LMO_TESTS_SIM_PLAN_H

#include "sim.h"

#include <jansson.h>

#define PLAN_GUESTS_MAX   6
#define PLAN_REQUESTS_MAX 64
#define PLAN_FAULTS_MAX   64
#define PLAN_NAME_MAX     24

struct plan_guest {
    char name[PLAN_NAME_MAX], host[PLAN_NAME_MAX];
    unsigned volumes, ports;
    uint64_t memory_mib, dirty_mib_per_s;
    bool persistent, owner_paused, shut_off;
};

struct plan_request {
    uint64_t at_ms;
    char guest[PLAN_NAME_MAX], destination[PLAN_NAME_MAX];
    uint64_t cancel_after_ms; /* 0: not */
    uint64_t convergence_ms;  /* 0: the default */
    uint64_t bandwidth_mib;   /* 0: unlimited */
};

/*    name          text           target is           what happens */
#define SIM_FAULTS(X)                                                                                          \
    X(CRASH, "crash")             /* process; dies, restarts after about for_ms (0: stays down) */             \
    X(SLEEP, "sleep")             /* process; SIGSTOP for for_ms */                                            \
    X(TAKEOVER, "takeover")       /* coordinator; asleep for for_ms, loses its lock, the second one starts */  \
    X(CUT, "cut")                 /* process to other; nothing gets through in that direction for for_ms */    \
    X(LOSS, "loss")               /* process to other; value per mille for for_ms */                           \
    X(DELAY, "delay")             /* process to other; value ms more for for_ms */                             \
    X(DISK_FULL, "disk_full")     /* process (its disk); for for_ms */                                         \
    X(DISK_BROKEN, "disk_broken") /* process; every write and sync fails for for_ms */                         \
    X(DISK_SLOW, "disk_slow")     /* process; syncs take value ms more for for_ms */                           \
    X(HANG, "hang")               /* host; libvirtd or the volume service does not answer for for_ms */        \
    X(DOWN, "down")               /* host; libvirtd is restarted, the volume service is down for for_ms */     \
    X(CLOCK, "clock")             /* process; CLOCK_REALTIME jumps by value ms */                              \
    X(FINISH_LOST, "finish_lost") /* guest; the finish of its next job never reaches the source */             \
    X(STREAM_CUT, "stream_cut")   /* host; memory streams break for for_ms */                                  \
    X(COPY_DIES, "copy_dies")     /* guest; its next copy dies value us after it was loaded, before it runs */ \
    X(REFUSE, "refuse")           /* host; accepts no domain for for_ms */                                     \
    X(START, "start")             /* guest; its owner starts it, if it is shut off */                          \
    X(POINT, "point")             /* process; fate at its k-th observation of that kind */

enum fault_kind {
#define X(name, text) FAULT_##name,
    SIM_FAULTS(X)
#undef X
        FAULT_COUNT
};
const char *fault_name(enum fault_kind k);
enum fault_kind fault_from_name(const char *name); /* COUNT: unknown */

struct plan_fault {
    enum fault_kind kind;
    uint64_t at_ms, for_ms;
    char target[PLAN_NAME_MAX], other[PLAN_NAME_MAX];
    int64_t value;
    enum sim_point point; /* POINT */
    uint64_t k;
    enum sim_fate fate;
};

struct plan {
    uint64_t seed;
    unsigned hypervisors, storages;
    unsigned lies; /* enum w_lie: a plan that must fail */
    bool fresh;    /* empty disks at the beginning: databases are made while faults strike */
    unsigned max_migrations, max_incoming, max_outgoing; /* the coordinator's [limits]; 0: the default */
    unsigned guest_count, request_count, fault_count;
    struct plan_guest guests[PLAN_GUESTS_MAX];
    struct plan_request requests[PLAN_REQUESTS_MAX];
    struct plan_fault faults[PLAN_FAULTS_MAX];
};

enum plan_mode {
    PLAN_QUIET,
    PLAN_FAULTS, /* nothing that an orchestrator could not survive: no migration may end in attention */
    PLAN_HARD,   /* copies that die, too */
    PLAN_TWO,    /* and coordinators that are taken over from while they sleep */
};
void plan_random(uint64_t seed, enum plan_mode mode, struct plan *ret);
json_t *plan_to_json(const struct plan *p);
int plan_from_json(const json_t *json, struct plan *ret, struct lmo_err *err) LMO_MUST_CHECK;
int plan_load(const char *path, struct plan *ret, struct lmo_err *err) LMO_MUST_CHECK;
void plan_describe_fault(const struct plan_fault *f, char *ret, size_t size);
void plan_describe_request(const struct plan_request *r, char *ret, size_t size);

#endif
