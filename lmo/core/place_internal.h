/* place_internal.h - the snapshot added up: what placement, N+1 and the planner work on. Private to lmo/core.
 *
 * `where` says where each guest would be: as in the snapshot at first, then as a plan moves it (place_move). Everything else
 * follows from it and is kept in step. */
#ifndef LMO_CORE_PLACE_INTERNAL_H
#define LMO_CORE_PLACE_INTERNAL_H

#include "core/placement.h"

struct lmo_plan_avoid;
struct lmo_plan_spare;
struct lmo_plan_refuge;

/* One case of N+1: the hosts that carry most of one pool are lost, and their guests were found places. */
struct place_case {
    bool valid;                                     /* what follows holds for the state as it is */
    bool renewed;                                   /* found since place_spare_known was asked */
    uint32_t pool, entry;                           /* of the log, if there is one: where these places stand */
    uint32_t lost_count, lost[LMO_SPARE_HOSTS_MAX]; /* the one that carries least is the last */
    int64_t *reserved, *spare_buffer;               /* [host * pools + pool]: taken by those places */
};

/* The places that were found, in the order in which they were: for whoever has to show them. What does not fit was not found. */
struct place_log {
    struct lmo_plan_spare *spares;
    struct lmo_plan_refuge *refuges;
    uint32_t spare_count, spare_max, refuge_count, refuge_max;
    uint32_t first;     /* entries before it are of another set of open hosts */
    uint32_t at, stage; /* of entries to come */
    bool returning;
    bool full; /* something did not fit */
};

struct lmo_place {
    const struct lmo_fleet *f;
    uint32_t pools;
    /* by host */
    uint8_t *closed;      /* enum lmo_not of those that speak of the host alone, or 0 */
    bool *avoided, *open; /* for all guests; it is being emptied: neither refuge nor to be lost */
    int64_t *room, *used; /* [host * pools + pool]; room may be negative at first */
    uint32_t *vcpus, *arrivals, *rank, *first;
    uint32_t *conflicts, *apart, *together, *must; /* between place_prepare and place_forget only */
    /* by guest */
    uint32_t *where, *next, *prev, *turn, *going, *avoid_head;
    /* groups */
    uint32_t *group_first, *members;
    /* of the guest that place_prepare was told of */
    uint32_t prepared, must_total, wished;
    int64_t along[LMO_FLEET_POOLS_MAX]; /* what those need that have to go along */
    uint32_t along_count;
    /* per guest destinations that are not to be taken: a list by avoid_head */
    const struct lmo_plan_avoid *avoid;
    uint32_t *avoid_next;
    /* N+1 */
    uint32_t spare, case_count;
    struct place_case cases[LMO_FLEET_POOLS_MAX];
    uint32_t *lost_guests, *lost_at;  /* guests to find places for, and those found */
    int64_t *lost_left;               /* room that those places have left */
    uint32_t spare_steps;             /* how often a place may be given up for another in one search */
    uint64_t work;                    /* spent on it, in hosts looked at */
    uint32_t stuck_host, stuck_guest; /* what the last failure was about */
    struct place_log *log;            /* may be NULL */
};

static inline int64_t place_need(const struct lmo_fleet_guest *g, uint32_t pool)
{
    return (int64_t)(pool == 0 ? g->memory_bytes : g->huge_bytes && g->huge_pool == pool ? g->huge_bytes : 0);
}

static inline int64_t *place_room(const struct lmo_place *p, uint32_t host)
{
    return p->room + (size_t)host * p->pools;
}

/* state.c: hands out scratch memory; NULL `at`: only counts. */
struct place_arena {
    char *at;
    size_t used;
};
void *place_take(struct place_arena *a, size_t count, size_t size);

/* Sorts indices by a total order; `arg` is handed on. */
typedef bool place_before_fn(const void *arg, uint32_t a, uint32_t b);
void place_sort(uint32_t *items, uint32_t count, place_before_fn *before, const void *arg);

/* Lays the arrays out and adds the snapshot up. NULL fleet memory only: counts. */
struct lmo_place *place_lay_out(const struct lmo_fleet *f, uint32_t avoid_count, struct place_arena *a);
void place_fill(struct lmo_place *p, uint32_t spare_hosts, const struct lmo_plan_avoid *avoid, uint32_t avoid_count);
/* Why a host takes nobody, as the snapshot has it. */
enum lmo_not place_closed_by(const struct lmo_fleet_host *h);
/* The guest is at `to` from now on. */
void place_move(struct lmo_place *p, uint32_t guest, uint32_t to);
/* Is it neither held by anything of its own nor on its way? */
bool place_movable(const struct lmo_place *p, uint32_t guest);
/* Has it fellows at its host that a hard rule keeps together with it? */
bool place_bound(const struct lmo_place *p, uint32_t guest);

/* filter.c: what groups say about hosts, for one guest at a time; then hosts one by one. */
void place_prepare(struct lmo_place *p, uint32_t guest);
void place_forget(struct lmo_place *p);
/* What the guest needs of any host, its groups and memory and N+1 left aside. */
enum lmo_not place_suits(const struct lmo_place *p, uint32_t guest, uint32_t host);
/* All of the filter but memory, and all of it but N+1, for the prepared guest. */
enum lmo_not place_allowed(const struct lmo_place *p, uint32_t host);
enum lmo_not place_filter(const struct lmo_place *p, uint32_t host);
/* Score of a host that passes; `caused` bytes are to be moved because of it. `parts` may be NULL. */
uint32_t place_score(const struct lmo_place *p, uint32_t host, uint64_t caused, uint32_t *parts);

/* placement.c: "no host can take it: 3 lack memory, ..." from how many hosts had each reason. */
void place_nowhere(const uint32_t counts[LMO_NOT_COUNT], char *text, size_t size);

/* spare.c: N+1. */
void place_spare_begin(struct lmo_place *p);
void place_spare_moved(struct lmo_place *p, uint32_t guest, uint32_t from, uint32_t to);
void place_spare_forget(struct lmo_place *p); /* hosts were opened or closed */
bool place_spare_holds(struct lmo_place *p);
/* What place_spare_holds knows, for taking a move back: bits of valid cases. Restoring leaves out what was found anew since. */
uint32_t place_spare_known(struct lmo_place *p);
void place_spare_restore(struct lmo_place *p, uint32_t known);
/* The log is cut down to `entries`, and the cases are as it says: everything since was taken back. Without a log: nothing. */
void place_spare_rewind(struct lmo_place *p, uint32_t entries);

/* Moves it there if N+1 still holds then; else nothing has changed. */
bool place_try(struct lmo_place *p, uint32_t guest, uint32_t to);
/* Takes back what place_try has done. */
void place_back(struct lmo_place *p, uint32_t guest, uint32_t from);

#endif
