/* planner_internal.h - what the planner's files share. Private to lmo/core.
 *
 * A stage is worked out as drafts (planner_stage.c): moves tried one after the other on the state of place_internal.h, a
 * stack that can be taken back to any height. When it is as good as it gets it is listed (planner_list.c): put in order, given
 * what it waits for and its times, appended to the plan. planner.c decides which stage comes next. */
#ifndef LMO_CORE_PLANNER_INTERNAL_H
#define LMO_CORE_PLANNER_INTERNAL_H

#include "core/place_internal.h"
#include "core/planner.h"

#define PLANNER_SLOTS      16   /* slots of one host that the expected times know of */
#define PLANNER_FLEET      1024 /* and of the fleet */
#define PLANNER_SHARED_MAX 256  /* moves of a stage whose shares are looked at together */

struct draft {
    uint32_t guest, from, to;
    enum lmo_move_why why;
    uint32_t entries; /* of the log, before it was tried */
};

struct planner {
    const struct lmo_fleet *f;
    const struct lmo_plan_options *o;
    struct lmo_plan *plan;
    struct lmo_place *p;
    /* by host */
    bool *target;       /* to be emptied */
    uint32_t *stage_of; /* its stage, or LMO_NONE */
    uint32_t *over;     /* its stage, once that is over and it takes guests again */
    int64_t *listed;    /* [host * pools + pool]: room less all arrivals listed; what leaves is not added, see list.c */
    uint32_t *left_last; /* the last listed move off it since it was empty, or LMO_NONE */
    uint32_t *came_last; /* likewise the last one onto it */
    uint32_t *tried, *local, *queue;
    uint32_t *due;                /* of targets: their turn in the order of this round */
    uint64_t *out_free, *in_free; /* [host * SLOTS + slot]: from when on it is free, expected */
    uint64_t *alone_ms;           /* of targets: what they take at least */
    /* by move, by guest */
    uint32_t *left_prev, *came_prev, *last_move, *bond;
    uint64_t *move_end;
    /* lanes */
    uint32_t lane_count;
    uint32_t *lane_last; /* stage, or LMO_NONE */
    uint64_t *lane_end;
    uint32_t barrier; /* all stages below it are over before any later one begins */
    /* the stage under way */
    uint32_t host, lane; /* LMO_NONE in a rebalance */
    uint32_t turn;       /* whose `due` is now */
    uint32_t move_max;   /* of the plan's moves */
    struct draft *drafts;
    uint32_t draft_count, draft_max;
    uint32_t *leaving, leaving_count, *failed, failed_count, *order;
    uint32_t stamp, nodes;
    uint64_t work_max;
    uint64_t *fleet_free;
    uint64_t *shares; /* by draft: what it is expected to get */
    struct lmo_adm_host *adm_hosts;
    struct lmo_adm_item *adm_items;
    /* what is shown of it besides the caller's arrays */
    struct place_log log;
    struct lmo_plan_blocked *away;
    uint32_t away_max;
    bool serial;   /* `after` is nearly full: from now on one stage after the other, each after all before it */
    bool too_many; /* a move would have had to wait for more than one can */
};

/* planner_begin.c: lays everything out, adds the snapshot up. */
void planner_begin(struct planner *pl, const struct lmo_fleet *f, const struct lmo_plan_options *o, void *scratch,
                   struct lmo_plan *plan);

/* What of the scratch memory stays when the plan is made. */
void planner_lay_out_shown(const struct lmo_fleet *f, const struct lmo_plan_options *o, const struct lmo_plan_sizes *s,
                           struct place_arena *a, struct place_log *log, struct lmo_plan_blocked **ret_away,
                           uint32_t *ret_away_max);
/* Entries of `after` that moves may not use: without them the order of stages could not be said. */
uint32_t planner_after_kept(const struct planner *pl);
/* What is logged from now on belongs to this stage; what was found with other hosts open is forgotten. */
void planner_phase(struct planner *pl, uint32_t stage, bool returning);

/* planner_stage.c */
/* Empties the open host as far as it goes: fills drafts and `failed`. */
void planner_empty(struct planner *pl);
/* Takes drafts back until `count` are left. */
void planner_back(struct planner *pl, uint32_t count);
/* Tries a move; false: N+1 would not hold, or no more drafts fit. */
bool planner_try(struct planner *pl, uint32_t guest, uint32_t to, enum lmo_move_why why);
/* Why nobody takes it, as things are. */
enum lmo_not planner_why_not(struct planner *pl, uint32_t guest, char *text, size_t size);

/* planner_list.c */
/* Appends the drafts to the plan; false, with nothing changed but the order of the drafts: no room in the plan. */
bool planner_list(struct planner *pl, uint32_t stage, uint32_t after_stage, uint64_t start_ms, uint64_t *ret_end_ms);
/* Is it certain that stage t is over before anything of stage s starts? s LMO_NONE: a rebalance. */
bool planner_surely_over(const struct planner *pl, uint32_t t, uint32_t s);

/* planner_time.c */
uint64_t planner_alone_ms(const struct lmo_fleet *f, const struct lmo_fleet_guest *g, uint64_t *ret_link_ms);
uint64_t planner_bytes(const struct lmo_fleet_guest *g);
/* How many at once off `host` end soonest, for the drafts as they are. */
uint32_t planner_parallel(const struct planner *pl, uint32_t host);
/* What each draft gets while `parallel` of them run, into pl->shares. */
void planner_shares(struct planner *pl, uint32_t parallel);
void planner_times(const struct planner *pl, struct lmo_plan_move *m);

/* planner_check.c */
size_t planner_check_scratch(const struct lmo_fleet *f, const struct lmo_plan_options *o,
                             const struct lmo_plan_sizes *s);

/* planner_check_spare.c: N+1 as the plan shows it, counted from the snapshot. */
struct check_spare {
    const struct lmo_fleet *f;
    const struct lmo_plan *plan;
    uint32_t spare_hosts, next; /* entry */
    uint32_t *where;
    int64_t *room, *used, *taken;      /* [host * pools + pool] */
    uint32_t *refuge;                  /* by guest, of the entry that is looked at */
    uint32_t now[LMO_FLEET_POOLS_MAX]; /* entry by pool, or LMO_NONE */
};
void check_spare_lay_out(struct check_spare *c, const struct lmo_fleet *f, struct place_arena *a);
void check_spare_begin(struct check_spare *c, const struct lmo_plan *plan, uint32_t spare_hosts);
void check_spare_moved(struct check_spare *c, uint32_t guest, uint32_t to);
/* Another stage or phase: entries before it count no more. */
void check_spare_phase(struct check_spare *c);
/* NULL if N+1 holds when `at` moves have been made; open: by host, being emptied. */
const char *check_spare_broken(struct check_spare *c, uint32_t stage, bool returning, uint32_t at, const bool *open);

/* planner_balance.c */
void planner_spread(struct planner *pl);
void planner_pack(struct planner *pl);

#endif
