/* fleet.h - a snapshot of the whole fleet, as placement and the planner read it: hosts, guests, groups, moves under way.
 *
 * Plain arrays, owned by the caller and only borrowed here; what belongs together refers to each other by index. Nothing of
 * it is changed by placement or planning: same snapshot and options, same answer. Texts are borrowed too and must stay
 * until the call that reads them has returned (verdicts and plans copy what they show).
 *
 * What a snapshot has to fulfil is what lmo_fleet_wrong checks; placement.h and planner.h assert it.
 *
 * Units: bytes, bytes per second, milliseconds. LMO_NONE (core/admission.h): no such index. */
#ifndef LMO_CORE_FLEET_H
#define LMO_CORE_FLEET_H

#include "base/types.h"
#include "core/admission.h"
#include "core/migration.h"

#include <stdbool.h>
#include <stdint.h>

#define LMO_FLEET_HOSTS_MAX  4096
#define LMO_FLEET_GUESTS_MAX 100000
#define LMO_FLEET_GROUPS_MAX 65536
#define LMO_FLEET_POOLS_MAX  8    /* pool 0: ordinary memory; the others: one size of huge pages each, fleet-wide */
#define LMO_FLEET_CPUS_MAX   1024 /* kinds of CPU, of guests and of hosts each */
#define LMO_GUEST_GROUPS_MAX 4
#define LMO_SET_WORDS        4
#define LMO_SET_MAX          (64 * LMO_SET_WORDS) /* elements of one kind that can be told apart */

/* A set of interned things: bit n is thing n. What every host offers need not be interned at all. */
struct lmo_set {
    uint64_t words[LMO_SET_WORDS];
};
/* False, and nothing done, if n >= LMO_SET_MAX. */
bool lmo_set_add(struct lmo_set *s, uint32_t n);
bool lmo_set_has(const struct lmo_set *s, uint32_t n);
/* The lowest element of `needs` that `offers` lacks; LMO_NONE: it lacks nothing. */
uint32_t lmo_set_lacks(const struct lmo_set *needs, const struct lmo_set *offers);

/* ------------------------------------------------------------------ hosts */

struct lmo_fleet_pool {
    uint64_t total_bytes; /* of what guests may use at all */
    uint64_t free_bytes;  /* as measured last */
    uint64_t keep_bytes;  /* never to be given to guests: memory_keep_free of pool 0, as a rule 0 of huge pages */
};

struct lmo_fleet_host {
    const char *name; /* unique, never NULL */
    bool up;          /* its worker answers and has a hypervisor */
    bool cordoned;    /* nothing is to come here */
    bool draining;    /* by a drain that is under way */
    bool linked;      /* has the link that guests' memory takes */
    bool memory_known;
    uint32_t cpu; /* index of a host CPU; LMO_NONE: not known, and then it takes no guest that has needs of that kind */
    uint32_t cpus;                                      /* hardware threads; 0: not known */
    struct lmo_set machines, services, fabrics, labels; /* what it offers */
    uint32_t max_incoming, max_outgoing;                /* slots, 0: none */
    uint64_t rate_bytes_per_s;                          /* of that link, both directions together; 0: not stated */
    uint64_t stream_bytes_per_s; /* what one migration reaches at most on this host, as seen; 0: not known */
    struct lmo_fleet_pool pools[LMO_FLEET_POOLS_MAX];
};

/* ------------------------------------------------------------------ guests */

/* What a drain does about a guest that cannot move live. */
enum lmo_unmovable {
    LMO_UNMOVABLE_FAIL = 0, /* the drain fails for this guest and goes on with the others */
    LMO_UNMOVABLE_SKIP,     /* it stays, and the drain does not count it */
    LMO_UNMOVABLE_WAIT,     /* the drain waits until that has changed */
    LMO_UNMOVABLE_OFFLINE,  /* it is moved while it is shut off, devices or not */
    LMO_UNMOVABLE_BLOCK,    /* local disks are copied along */
};
const char *lmo_unmovable_text(int v);         /* NULL for no such value */
int lmo_unmovable_from_text(const char *text); /* -1 for a text that is none */

struct lmo_fleet_guest {
    const char *uuid; /* unique, never NULL: decides between equals */
    const char *name; /* never NULL */
    uint32_t host;    /* where it is now; while it is being moved: the source */
    enum lmo_run_state state;
    uint64_t memory_bytes; /* ordinary memory that it takes of a host: lmo_memory_needed; 0 when it is shut off */
    uint64_t huge_bytes;   /* and huge pages of pool `huge_pool`; 0: none */
    uint8_t huge_pool;
    uint32_t vcpus;
    uint64_t move_bytes;                      /* memory that pre-copy has to send; 0 when it is shut off */
    uint64_t disk_bytes;                      /* of local disks, in case they are copied along */
    uint64_t dirty_bytes_per_s, dirty_age_ms; /* age 0: never measured */
    const struct lmo_policy *policy;          /* NULL: the fleet's */
    uint32_t cpu, machine;                    /* LMO_NONE: no needs of that kind */
    struct lmo_set services, fabrics, labels; /* what a host must offer */
    uint32_t group_count;                     /* different ones */
    uint32_t groups[LMO_GUEST_GROUPS_MAX];
    bool leased;              /* somebody asked that it stay; */
    const char *lease_text;   /* who and why, or NULL */
    uint32_t blockers;        /* LMO_BLOCKER_* */
    const char *blocker_text; /* in words, or NULL */
    enum lmo_unmovable unmovable;
};

enum lmo_group_kind { LMO_GROUP_APART = 0, LMO_GROUP_TOGETHER };
struct lmo_fleet_group {
    const char *name;
    enum lmo_group_kind kind;
    bool hard; /* a rule; else a wish, which only the score knows */
};

/* A migration under way or admitted: its guest counts at both hosts. At most one for each guest. */
struct lmo_fleet_move {
    uint32_t guest, to;
};

/* Does a guest's CPU run on a host's? As libvirt's own comparison said; UNKNOWN: nobody has asked yet, so no. */
enum { LMO_CPU_UNKNOWN = 0, LMO_CPU_RUNS = 1, LMO_CPU_DIFFERS = 2 };

/* Names of what was interned, for sentences; may be empty: then numbers are shown. */
struct lmo_fleet_names {
    const char *const *names;
    uint32_t count;
};

struct lmo_fleet {
    const struct lmo_limits *limits; /* never NULL */
    const struct lmo_policy *policy; /* never NULL: the coordinator's defaults */
    const struct lmo_fleet_host *hosts;
    const struct lmo_fleet_guest *guests;
    const struct lmo_fleet_group *groups;
    const struct lmo_fleet_move *moves;
    uint32_t host_count, guest_count, group_count, move_count;
    uint32_t pool_count;                      /* 1 or more */
    uint64_t page_bytes[LMO_FLEET_POOLS_MAX]; /* size of each pool's pages; of pool 0: not read */
    const uint8_t *cpu_runs;                  /* [guest's cpu * host_cpu_count + host's cpu] */
    uint32_t guest_cpu_count, host_cpu_count;
    struct lmo_fleet_names machines, services, fabrics, labels;
};

/* NULL, or a sentence that says what is wrong with the snapshot: an index out of range, a limit exceeded, no name. */
const char *lmo_fleet_wrong(const struct lmo_fleet *f);

#endif
