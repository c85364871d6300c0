/* admission.h - which queued migrations may start now, what holds the others, and how bandwidth is divided.
 *
 * A pure function over a snapshot in compact arrays that the caller owns: hosts, and one item for each open migration.
 * It is evaluated whole, in time proportional to hosts + items, whenever something that it reads has changed; there is
 * no other state but what the items carry from one evaluation to the next (`overtaken`). docs/admission.md has the
 * rules and the formulas in words.
 *
 * Invariants (asserted after every evaluation):
 *  A1  No limit is exceeded by an admission: of all that was running before, plus all that is admitted, no count is above
 *      its maximum, no pool of memory and no link's sum of minimum shares is above what there is. (A limit that was
 *      lowered below what runs already is never raised by it: nothing is admitted until it fits again.)
 *  A2  The bandwidth that may be in force on a link, outstanding orders included (`held`), is never raised above its rate:
 *      a share grows only by what is free, and what another one gives up is free once that was confirmed.
 *  A3  An admitted migration gets at once at least its minimum share on both of its links.
 *  A4  First come, first served for each limit: what an older one waits for is not given to a younger one. One that has
 *      been overtaken LMO_OVERTAKEN_MAX times has everything that it needs kept for it, so that it starts when those that
 *      run now have ended. What a host is not part of never holds a migration up.
 *
 * Units: bytes, bytes per second. A rate or cap of 0 is no limit. */
#ifndef LMO_CORE_ADMISSION_H
#define LMO_CORE_ADMISSION_H

#include "base/types.h"

#include <stdbool.h>
#include <stdint.h>

/* ------------------------------------------------------------------ configuration */

/* The coordinator's section [limits]; see lmo_limits_default for the values where it says nothing. */
struct lmo_limits {
    uint32_t max_migrations;             /* of the whole fleet, at once */
    uint32_t max_incoming, max_outgoing; /* per host */
    uint64_t min_share_bytes_per_s;  /* below it a migration is not worth starting: few fast ones, not many slow ones */
    uint64_t memory_keep_free_bytes; /* of a destination's memory */
    uint64_t memory_overhead_bytes;  /* of a guest's process, beside the guest's memory ... */
    uint32_t memory_overhead_percent; /* ... and in proportion to it */
    uint64_t queue_timeout_ms;        /* a migration that was not admitted by then ends aborted */
    char link[LMO_NAME_MAX];          /* name of the link that guests' memory takes */
};
void lmo_limits_default(struct lmo_limits *ret);

/* What was set for one host alone; `given` says which members count. */
enum {
    LMO_HOST_LIMIT_INCOMING = 1,
    LMO_HOST_LIMIT_OUTGOING = 2,
    LMO_HOST_LIMIT_BANDWIDTH = 4,
    LMO_HOST_LIMIT_KEEP_FREE = 8,
};
struct lmo_host_limits {
    uint32_t given;
    uint32_t max_incoming, max_outgoing;
    uint64_t max_bandwidth_bytes_per_s; /* of the migration link, below its own rate */
    uint64_t memory_keep_free_bytes;
};

/* Memory that a guest takes of its destination beside what the pool of its pages gives: all of it, for ordinary pages. */
uint64_t lmo_memory_needed(const struct lmo_limits *l, uint64_t memory_bytes, bool huge_pages);

/* ------------------------------------------------------------------ the snapshot */

#define LMO_NONE          UINT32_MAX
#define LMO_OVERTAKEN_MAX 8
#define LMO_POOLS_MAX     (1 + LMO_PAGE_SIZES_MAX) /* pool 0: ordinary memory; the others: one size of huge pages each */

enum lmo_limit {
    LMO_LIMIT_NONE = 0,
    LMO_LIMIT_HOST, /* one of its hosts cannot take part now */
    LMO_LIMIT_FLEET,
    LMO_LIMIT_OUTGOING,
    LMO_LIMIT_INCOMING,
    LMO_LIMIT_BANDWIDTH, /* the link cannot give it a minimum share */
    LMO_LIMIT_MEMORY,
    LMO_LIMIT_HUGE_PAGES,
    LMO_LIMIT_NOTICE, /* its guest's owner was told and has not acknowledged yet */
    LMO_LIMIT_ASKING,  /* the destination is being asked for its free memory */
    LMO_LIMIT_PREDICTION, /* it would not converge now: it is looked at again later */
    LMO_LIMIT_FREEING, /* others are giving up bandwidth for it and have not confirmed yet */
    LMO_LIMIT_COUNT
};
const char *lmo_limit_text(enum lmo_limit l);

/* Why a queued migration does not start. */
struct lmo_hold {
    enum lmo_limit limit;
    uint32_t host;        /* index; LMO_NONE: the fleet's */
    uint32_t position;    /* in the line for that limit at that host; 1 is next */
    uint64_t in_use, max; /* by those that run, and the limit */
    uint64_t needed;      /* by this one */
};

struct lmo_adm_host {
    /* given */
    bool usable;
    bool memory_stale; /* what is known of its memory is too old to admit by */
    uint32_t max_incoming, max_outgoing;
    uint64_t rate_bytes_per_s;
    bool pool_known[LMO_POOLS_MAX];
    uint64_t pool_bytes[LMO_POOLS_MAX]; /* that guests on their way may take: free, less what is to be kept */
    /* found */
    bool ask_memory;                   /* the answer would admit somebody */
    uint32_t incoming, outgoing;       /* running, those admitted now included */
    uint64_t pool_used[LMO_POOLS_MAX]; /* by those */
    uint64_t needed_bytes_per_s;       /* sum of their minimum shares */
    uint64_t held_bytes_per_s;         /* sum of what may be in force */
    /* within one evaluation */
    uint32_t claim_incoming, claim_outgoing, admits, line[LMO_LIMIT_COUNT];
    uint64_t claim_pool[LMO_POOLS_MAX], claim_bytes_per_s;
    bool pressed;       /* somebody waits for bandwidth here that others have to give up */
    uint32_t unsettled; /* users of the link whose share is still to be found */
    uint64_t left, level;
    bool bottleneck;
};

enum lmo_adm_state { LMO_ADM_FREE = 0, LMO_ADM_QUEUED, LMO_ADM_RUNNING };

struct lmo_adm_item {
    /* given */
    enum lmo_adm_state state;
    uint32_t source, destination; /* indices of hosts, not equal */
    uint32_t next;                /* QUEUED: the one after it in the queue, or LMO_NONE */
    uint64_t memory_bytes;        /* ordinary memory that it takes at the destination */
    uint64_t huge_bytes;          /* and huge pages, of pool huge_pool */
    uint8_t huge_pool;
    uint64_t cap_bytes_per_s;    /* the policy's */
    uint64_t demand_bytes_per_s; /* what it was seen to make use of, with a margin; 0: all that it gets */
    bool stream;                 /* RUNNING: sends memory, or will */
    bool adjustable;             /* RUNNING: its share may be changed now; false: an order is under way */
    bool ordered; /* RUNNING: a change is an order to its worker; false: nothing flows yet, it holds at once */
    uint64_t share_bytes_per_s; /* RUNNING: ordered last; 0: none was given */
    uint64_t held_bytes_per_s;  /* RUNNING: at most so much is in force */
    bool held;                  /* QUEUED: its own prediction holds it; it takes part in nothing */
    bool notice;                /* QUEUED: its guest's owner is waited for; likewise */
    uint32_t overtaken;         /* QUEUED: kept by the caller; counted here */
    /* found */
    bool admitted; /* it may start, with the share below */
    bool changed;  /* RUNNING: `share_bytes_per_s` is to become the one below */
    uint64_t new_share_bytes_per_s;
    struct lmo_hold hold; /* QUEUED and not admitted */
    /* within one evaluation */
    bool takes_part, settled;
    uint32_t mark;
    uint64_t target;
};

struct lmo_adm_fleet {
    const struct lmo_limits *limits;
    struct lmo_adm_host *hosts;
    uint32_t host_count;
    struct lmo_adm_item *items;
    uint32_t item_count; /* FREE ones included */
    uint32_t queue;      /* the oldest QUEUED item, or LMO_NONE */
    /* found */
    uint32_t running;           /* those admitted now included */
    uint32_t admitted, changed; /* how many */
    bool waits_for_memory;      /* somebody is held by memory that others than migrations may free: look again */
    /* within one evaluation */
    uint32_t claims, line;
};

/* Fills in everything "found". */
void lmo_admission_decide(struct lmo_adm_fleet *f);
/* The least share with which a migration between these two hosts is worth starting; 0: neither link has a rate. */
uint64_t lmo_admission_min_share(const struct lmo_adm_fleet *f, const struct lmo_adm_item *i);
/* NULL, or a sentence that names the invariant that does not hold after an evaluation. */
const char *lmo_admission_broken(const struct lmo_adm_fleet *f);

/* shares.c: target shares of all that take part, into `target`; UINT64_MAX: neither of its links is limited. Max-min fair:
 * nobody gets less so that somebody with more gets even more. */
void lmo_shares_divide(struct lmo_adm_fleet *f);

/* ------------------------------------------------------------------ use of a share */

/* What one running migration makes of its share, from its samples. */
struct lmo_demand {
    uint64_t bytes_per_s; /* 0: all that it gets */
    uint64_t best;        /* fastest sample since it began to fall short */
    uint32_t short_count; /* samples in a row below LMO_DEMAND_SHORT_PERCENT of what was in force */
};
#define LMO_DEMAND_SHORT_PERCENT \
    80 /* a demand that was found is 125 % of what was seen: that is neither short nor full */
#define LMO_DEMAND_FULL_PERCENT 92
#define LMO_DEMAND_SAMPLES      6
/* One sample of a job under a limit of `in_force`; true if the demand has changed. It never falls below `least`. */
bool lmo_demand_sample(struct lmo_demand *d, uint64_t rate, uint64_t in_force, uint64_t least);

#endif
