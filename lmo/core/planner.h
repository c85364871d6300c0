/* planner.h - one plan for emptying any set of hosts, or for balancing a fleet: which guest goes where, in which order,
 * what waits for what, how long it should take, and why what cannot move cannot.
 *
 * Pure and deterministic: same snapshot and options, same plan, whatever the order of the arrays (hosts are told apart by
 * name, guests by uuid). Time is about moves x hosts. docs/placement.md has the rules and formulas.
 *
 * Flags of the snapshot hold for the whole plan: a host that is cordoned or draining there never becomes a destination, not
 * even after its own stage. Whoever plans a drain leaves that drain's own cordon out.
 *
 * A stage is one host being emptied. Stages run in lanes, at most `max_hosts`: a stage begins when the stages that it comes
 * after are over, and a stage is over when its host was empty AND is back and ready (and, with give_back, its guests are
 * back). One with guests that are blocked is over when its moves have ended, and its host is not used again. So a host that
 * takes long holds up its own lane only. In the list the moves of one stage stand together, stages in the order in which
 * they are expected to begin.
 *
 * Invariants (lmo_plan_broken checks a plan from outside):
 *  N1  Whatever needs something names it: room that another move makes (`after`), the end of a stage (`after_stage`), an
 *      earlier move of the same guest (`after`). All of these stand earlier in the plan. In every order of execution
 *      that respects them, memory of no host is over-committed; guests under way count at both ends.
 *  N2  After every prefix of the list N+1 holds (with spare_hosts), the hosts of all stages that can be open then not
 *      counted as refuge. `spares` shows it: a refuge for each guest of the hosts that carry most, at every prefix.
 *  N3  Nothing goes to a host that is down, cordoned, draining, or whose stage is open; nor to a host whose guests could
 *      not all be moved away. What goes to a host whose stage is still to come moves on in that stage.
 *  N4  Hard anti-affinity and affinity hold after every prefix; while an affinity group is being moved, its members may be
 *      on two hosts: the one that they leave and the one that they go to.
 *  N5  Every guest of a host that is to be emptied has a move off it or an entry in `blocked`, never both for one stage. With
 *      give_back every guest that was moved in a stage that emptied its host is back at the end of it, or has an
 *      entry in `away`.
 *  N6  A rebalance has no move that does not improve on what was before it, and no guest moves twice unless it had to be
 *      parked.
 *
 * Ownership and size: lmo_plan_sizes tells how large the caller's arrays and the scratch memory have to be; nothing is
 * allocated here. */
#ifndef LMO_CORE_PLANNER_H
#define LMO_CORE_PLANNER_H

#include "core/placement.h"

enum lmo_plan_kind {
    LMO_PLAN_EMPTY = 0, /* drain: `hosts` are emptied */
    LMO_PLAN_SPREAD,    /* rebalance: evenly loaded hosts */
    LMO_PLAN_PACK,      /* rebalance: as many empty hosts as possible */
};

/* A destination that is not to be taken for one guest, for example because it refused it. */
struct lmo_plan_avoid {
    uint32_t guest, host;
};

struct lmo_plan_options {
    enum lmo_plan_kind kind;
    const uint32_t *hosts; /* EMPTY: to be emptied, each once. Others: NULL */
    uint32_t host_count;
    uint32_t max_hosts;                 /* being emptied or away at the same time; 0: all */
    uint32_t spare_hosts;               /* 1: N+1; 0: not looked at */
    bool as_given;                      /* hosts in the order given; else in the order that is over soonest */
    bool give_back;                     /* guests return to their host when it is ready again */
    uint32_t tolerance_percent;         /* SPREAD: hosts that are so near to the mean are left alone; 0: 5 */
    const struct lmo_plan_avoid *avoid; /* in any order; may be NULL */
    uint32_t avoid_count;               /* at most guest_count */
};

enum lmo_move_why {
    LMO_MOVE_EMPTY = 0, /* its host is emptied */
    LMO_MOVE_MAKE_ROOM, /* others need its place, and it stays where it goes */
    LMO_MOVE_PARK,      /* likewise, but only for the time being: another move of it follows */
    LMO_MOVE_GIVE_BACK, /* back to where it came from */
    LMO_MOVE_BALANCE,   /* rebalance */
};
const char *lmo_move_why_text(int v);

struct lmo_plan_move {
    uint32_t guest, from, to;
    enum lmo_move_why why;
    enum lmo_way way;
    uint32_t stage;                    /* LMO_NONE: a rebalance has none */
    uint32_t after_first, after_count; /* of lmo_plan.after: moves that must have ended well before this one starts */
    uint32_t after_stage; /* must be over: LMO_NONE or an earlier stage; GIVE_BACK: its own stage's host is ready */
    uint64_t bytes;       /* memory, and disks that are copied */
    uint64_t bandwidth_bytes_per_s; /* that it is expected to get; 0: not known */
    uint64_t start_ms;              /* expected, from the beginning of the plan, hosts ready again at once */
    uint64_t expected_ms;           /* how long it should take */
    uint64_t low_ms, high_ms;       /* alone on its links; at the least share it starts with, or at its time-out */
    enum lmo_outlook outlook;       /* core/convergence.h, with the bandwidth that it is expected to get */
};

struct lmo_plan_stage {
    uint32_t host;
    uint32_t lane;                     /* 0 to max_hosts - 1 */
    uint32_t after_first, after_count; /* of lmo_plan.after: STAGES that must be over before this one begins */
    uint32_t move_first, move_count;   /* of lmo_plan.moves */
    uint32_t leaving, blocked;         /* guests that are moved off it; that cannot be, skipped ones included */
    uint32_t parallel; /* migrations off this host at once that are expected to end soonest: to begin with */
    uint64_t start_ms, expected_ms, low_ms, high_ms; /* as of moves; low and high: how long the stage takes */
};

/* A guest of a host to be emptied that has no move off it; or, in `away`, one that was moved and does not return. */
struct lmo_plan_blocked {
    uint32_t guest, stage;
    enum lmo_not why;
    enum lmo_unmovable unmovable; /* what its policy wants done about it; counts for LMO_NOT_BLOCKED only */
    char text[LMO_TEXT_MAX];
};

/* N+1, shown. If the `lost` hosts failed - those that have given most of the pool - their guests had these refuges. It is so
 * from the prefix of `at` moves on, until the next entry of the same pool, stage and phase. Guests that need no refuge
 * (placement.h) have none. */
struct lmo_plan_refuge {
    uint32_t guest, host;
};
struct lmo_plan_spare {
    uint32_t at;    /* moves of the list that have been made */
    uint32_t stage; /* its host is open; LMO_NONE: of a rebalance */
    bool returning; /* it has been emptied and is back: guests return */
    uint32_t pool;
    uint32_t lost_count, lost[LMO_SPARE_HOSTS_MAX];
    uint32_t refuge_first, refuge_count; /* of lmo_plan.refuges */
};

struct lmo_plan {
    /* the caller's arrays, with room as lmo_plan_sizes says */
    struct lmo_plan_move *moves;
    struct lmo_plan_stage *stages;
    struct lmo_plan_blocked *blocked;
    uint32_t *after;
    uint32_t move_max, stage_max, blocked_max, after_max;
    /* found */
    uint32_t move_count, stage_count, blocked_count, after_count;
    bool spare_kept;      /* with spare_hosts: N+1 holds before the first move; if not, nothing is moved */
    uint64_t expected_ms; /* makespan: from the first start to the last end, hosts ready again at once */
    uint64_t low_ms, high_ms;
    uint64_t bound_ms;       /* no execution within the limits is faster: lmo_plan_bound */
    char text[LMO_TEXT_MAX]; /* one sentence: what it will do */
    /* in the scratch memory, as long as that is left alone */
    const struct lmo_plan_spare *spares;
    const struct lmo_plan_refuge *refuges;
    uint32_t spare_count, refuge_count;
    const struct lmo_plan_blocked
        *away; /* with give_back: guests that were moved for a stage and do not return, and why */
    uint32_t away_count;
};

struct lmo_plan_sizes {
    uint32_t move_max, stage_max, blocked_max, after_max;
    size_t scratch_bytes;
};
void lmo_plan_sizes(const struct lmo_fleet *f, const struct lmo_plan_options *o, struct lmo_plan_sizes *ret);

/* NULL, or a sentence that says what is wrong with the options: a host twice, an index out of range. */
const char *lmo_plan_options_wrong(const struct lmo_fleet *f, const struct lmo_plan_options *o);
/* Fleet and options are not wrong. Fills in everything "found" and the arrays. With less room for moves or `after` than
 * lmo_plan_sizes tells (stages and blocked never) what does not fit is not moved: LMO_NOT_OVER. */
void lmo_plan_make(const struct lmo_fleet *f, const struct lmo_plan_options *o, void *scratch, struct lmo_plan *ret);
/* NULL, or a sentence that names the invariant which the plan breaks. Needs the same scratch memory as it was left (`spares` is in
 * it); slow: for tests. */
const char *lmo_plan_broken(const struct lmo_fleet *f, const struct lmo_plan_options *o, const struct lmo_plan *plan,
                            void *scratch);

/* The shortest time in which the guests of `hosts` that can move at all could have left, hosts ready again at once: the
 * largest of
 *   each host:  bytes that its guests take at least on its link / rate; their times alone / max_outgoing; the longest one
 *   the fleet:  all those times / max_migrations; all those bytes / all the rates of hosts that can take guests
 *   max_hosts:  the hosts' own bounds added up / max_hosts
 * and twice that which is sent, with give_back. 0: no rate is stated anywhere. */
uint64_t lmo_plan_bound(const struct lmo_fleet *f, const struct lmo_plan_options *o);

#endif
