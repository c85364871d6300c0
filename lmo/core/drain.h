/* drain.h - a drain: one record for the emptying of one host or of many, and the pure function that moves it on.
 *
 * A drain has hosts, in the order of their turns, and guests. Each of the three has a state of its own; the tables below
 * are all there is of them. What is to be done follows from the states alone (level-triggered): a host in CHECKING is asked
 * for its list, a guest in STARTING gets its migration, and so on; whoever loads the record finds there what to do. So a
 * step's effects are just the list of what it touched.
 *
 * Invariants (lmo_drain_broken):
 *  D1  A drain is `drained` only if every one of its hosts' own lists of guests, asked anew after the last of its guests
 *      had been settled, was empty.
 *  D2  A guest has at most one migration of this drain at a time: STARTING names it before it exists, and the name stays
 *      until it has ended.
 *  D3  Nothing begins while the drain is paused, cancelling or over; what runs then goes to its own end.
 *  D4  At most max_hosts hosts have begun and are not done.
 *  D5  No guest is tried more than LMO_DRAIN_TRIES_MAX times, nor again after a failure that it has had before.
 *  D6  Whatever waits has a reason, a beginning and a deadline.
 *  D7  A terminal drain never changes again.
 *
 * The arrays belong to the caller, who may make them larger between steps. Nothing here allocates. Indices are 32 bits,
 * LMO_DRAIN_NONE is none. Times: ms since 1970. */
#ifndef LMO_CORE_DRAIN_H
#define LMO_CORE_DRAIN_H

#include "base/err.h"
#include "base/types.h"
#include "core/phase.h"
#include "core/planner.h"

#include <stdbool.h>
#include <stdint.h>

#define LMO_DRAIN_NONE       UINT32_MAX
#define LMO_DRAIN_PLAN_MAX   33
#define LMO_DRAIN_HOSTS_MAX  1024
#define LMO_DRAIN_GUESTS_MAX 32768
#define LMO_DRAIN_TRIES_MAX  4 /* migrations of one guest, whatever their destinations */
#define LMO_DRAIN_AFTER_MAX \
    16 /* of more, the last ones of the plan's order are kept: admission still sees to the room */
#define LMO_DRAIN_ROUNDS_MAX 10 /* looks at a host's list that found something new, or something that should be gone */
#define LMO_DRAIN_LOOK_MS    2000 /* what is waited for is looked at so often */
#define LMO_DRAIN_BACKOFF_MS 2000 /* before the second try of what may just be out of order; four times that then */
/* Waited for when nothing that is known is: no such case is known (tests/exhaust looks for one), and it is looked at again. */
#define LMO_DRAIN_UNTOLD          "something that none of its hosts and guests tells"
#define LMO_DRAIN_WAIT_DEFAULT_MS (INT64_C(3600) * 1000)
#define LMO_DRAIN_WAIT_MAX_MS     (INT64_C(7) * 86400 * 1000)

/* ------------------------------------------------------------------ states */

#define LMO_DRAIN_BIT(s)   (UINT32_C(1) << LMO_DRAIN_##s)
#define LMO_DRAIN_TERMINAL UINT32_C(1)
#define LMO_DRAIN_BEGINS   UINT32_C(2) /* something new may begin */

/*  name         text          successors                                                                   attributes */
#define LMO_DRAIN_STATES(X)                                                                                       \
    X(PLANNING, "planning",                                                                                       \
      LMO_DRAIN_BIT(RUNNING) | LMO_DRAIN_BIT(WAITING) | LMO_DRAIN_BIT(DRAINED) | LMO_DRAIN_BIT(FAILED) |          \
          LMO_DRAIN_BIT(CANCELLED),                                                                               \
      0)                                                                                                          \
    X(RUNNING, "running",                                                                                         \
      LMO_DRAIN_BIT(WAITING) | LMO_DRAIN_BIT(PAUSED) | LMO_DRAIN_BIT(CANCELLING) | LMO_DRAIN_BIT(DRAINED) |       \
          LMO_DRAIN_BIT(INCOMPLETE) | LMO_DRAIN_BIT(FAILED) | LMO_DRAIN_BIT(CANCELLED),                           \
      LMO_DRAIN_BEGINS)                                                                                           \
    X(WAITING, "waiting",                                                                                         \
      LMO_DRAIN_BIT(RUNNING) | LMO_DRAIN_BIT(PAUSED) | LMO_DRAIN_BIT(CANCELLING) | LMO_DRAIN_BIT(DRAINED) |       \
          LMO_DRAIN_BIT(INCOMPLETE) | LMO_DRAIN_BIT(FAILED) | LMO_DRAIN_BIT(CANCELLED),                           \
      LMO_DRAIN_BEGINS)                                                                                           \
    X(PAUSED, "paused",                                                                                           \
      LMO_DRAIN_BIT(RUNNING) | LMO_DRAIN_BIT(WAITING) | LMO_DRAIN_BIT(CANCELLING) | LMO_DRAIN_BIT(DRAINED) |      \
          LMO_DRAIN_BIT(INCOMPLETE) | LMO_DRAIN_BIT(FAILED) | LMO_DRAIN_BIT(CANCELLED),                           \
      0)                                                                                                          \
    X(CANCELLING, "cancelling", LMO_DRAIN_BIT(CANCELLED), 0)                                                      \
    X(DRAINED, "drained", 0, LMO_DRAIN_TERMINAL)       /* every host's own list was empty */                      \
    X(INCOMPLETE, "incomplete", 0, LMO_DRAIN_TERMINAL) /* nothing failed, but guests were left by their policy */ \
    X(FAILED, "failed", 0, LMO_DRAIN_TERMINAL)                                                                    \
    X(CANCELLED, "cancelled", 0, LMO_DRAIN_TERMINAL)

enum lmo_drain_state {
#define X(name, text, successors, attributes) LMO_DRAIN_##name,
    LMO_DRAIN_STATES(X)
#undef X
        LMO_DRAIN_STATE_COUNT
};

/* Attributes of a guest's state. */
#define LMO_DG_OPEN   UINT32_C(1) /* its host is not settled while a guest of it is there */
#define LMO_DG_CHILD  UINT32_C(2) /* has a migration of this drain's, or is about to */
#define LMO_DG_BIT(s) (UINT32_C(1) << LMO_DG_##s)

#define LMO_DRAIN_GUEST_STATES(X)                                                                                \
    X(QUEUED, "queued", /* until its host's turn, the move that it depends on, or the end of a pause */          \
      LMO_DG_BIT(HELD) | LMO_DG_BIT(PLACING) | LMO_DG_BIT(STARTING) | LMO_DG_BIT(SKIPPED) | LMO_DG_BIT(FAILED) | \
          LMO_DG_BIT(GONE) | LMO_DG_BIT(LEFT) | LMO_DG_BIT(MOVED),                                               \
      LMO_DG_OPEN)                                                                                               \
    X(HELD, "waiting", /* for what its reason says; looked at again */                                           \
      LMO_DG_BIT(QUEUED) | LMO_DG_BIT(PLACING) | LMO_DG_BIT(FAILED) | LMO_DG_BIT(GONE) | LMO_DG_BIT(LEFT) |      \
          LMO_DG_BIT(MOVED),                                                                                     \
      LMO_DG_OPEN)                                                                                               \
    X(PLACING, "placing", /* the caller looks at the guest and for a destination */                              \
      LMO_DG_BIT(QUEUED) | LMO_DG_BIT(HELD) | LMO_DG_BIT(STARTING) | LMO_DG_BIT(SKIPPED) | LMO_DG_BIT(FAILED) |  \
          LMO_DG_BIT(GONE) | LMO_DG_BIT(LEFT) | LMO_DG_BIT(MOVED),                                               \
      LMO_DG_OPEN)                                                                                               \
    X(STARTING, "starting", /* the caller makes its migration */                                                 \
      LMO_DG_BIT(QUEUED) | LMO_DG_BIT(HELD) | LMO_DG_BIT(PLACING) | LMO_DG_BIT(MOVING) | LMO_DG_BIT(FAILED) |    \
          LMO_DG_BIT(GONE) | LMO_DG_BIT(LEFT) | LMO_DG_BIT(MOVED),                                               \
      LMO_DG_OPEN | LMO_DG_CHILD)                                                                                \
    X(MOVING, "moving", /* its migration is in admission's queue, or under way */                                \
      LMO_DG_BIT(QUEUED) | LMO_DG_BIT(HELD) | LMO_DG_BIT(PLACING) | LMO_DG_BIT(MOVED) | LMO_DG_BIT(FAILED) |     \
          LMO_DG_BIT(LEFT),                                                                                      \
      LMO_DG_OPEN | LMO_DG_CHILD)                                                                                \
    X(MOVED, "moved", LMO_DG_BIT(QUEUED), 0) /* QUEUED: back to where it came from */                            \
    X(SKIPPED, "skipped", LMO_DG_BIT(GONE), 0)                                                                   \
    X(FAILED, "failed", LMO_DG_BIT(GONE), 0)                                                                     \
    X(GONE, "gone", LMO_DG_BIT(QUEUED), 0) /* it left without this drain */                                      \
    X(LEFT, "left", 0, 0)                  /* the drain ended before its turn */

enum lmo_drain_guest_state {
#define X(name, text, successors, attributes) LMO_DG_##name,
    LMO_DRAIN_GUEST_STATES(X)
#undef X
        LMO_DG_COUNT
};

#define LMO_DH_BEGUN    UINT32_C(1) /* its turn has come and is not over */
#define LMO_DH_TERMINAL UINT32_C(2)
#define LMO_DH_BIT(s)   (UINT32_C(1) << LMO_DH_##s)

#define LMO_DRAIN_HOST_STATES(X)                                                                               \
    X(WAITING, "waiting", LMO_DH_BIT(CHECKING) | LMO_DH_BIT(LEFT), 0) /* for its turn */                       \
    X(CHECKING, "checking",                                           /* it is asked which guests it has */    \
      LMO_DH_BIT(EMPTYING) | LMO_DH_BIT(HOOK) | LMO_DH_BIT(AWAY) | LMO_DH_BIT(DONE) | LMO_DH_BIT(INCOMPLETE) | \
          LMO_DH_BIT(FAILED) | LMO_DH_BIT(LEFT),                                                               \
      LMO_DH_BEGUN)                                                                                            \
    X(EMPTYING, "emptying", LMO_DH_BIT(CHECKING) | LMO_DH_BIT(LEFT) | LMO_DH_BIT(FAILED), LMO_DH_BEGUN)        \
    X(HOOK, "hook", /* it is empty; its hook is called */                                                      \
      LMO_DH_BIT(AWAY) | LMO_DH_BIT(PROBING) | LMO_DH_BIT(FAILED) | LMO_DH_BIT(LEFT), LMO_DH_BEGUN)            \
    X(AWAY, "maintenance", /* it is empty, until somebody says that it may be used again */                    \
      LMO_DH_BIT(PROBING) | LMO_DH_BIT(FAILED) | LMO_DH_BIT(LEFT), LMO_DH_BEGUN)                               \
    X(PROBING, "probing", /* it is looked whether it is ready */                                               \
      LMO_DH_BIT(REFILLING) | LMO_DH_BIT(DONE) | LMO_DH_BIT(FAILED) | LMO_DH_BIT(LEFT), LMO_DH_BEGUN)          \
    X(REFILLING, "returning", LMO_DH_BIT(DONE) | LMO_DH_BIT(LEFT) | LMO_DH_BIT(FAILED), LMO_DH_BEGUN)          \
    X(DONE, "drained", 0, LMO_DH_TERMINAL)                                                                     \
    X(INCOMPLETE, "incomplete", 0, LMO_DH_TERMINAL)                                                            \
    X(FAILED, "failed", 0, LMO_DH_TERMINAL)                                                                    \
    X(LEFT, "left", 0, LMO_DH_TERMINAL)

enum lmo_drain_host_state {
#define X(name, text, successors, attributes) LMO_DH_##name,
    LMO_DRAIN_HOST_STATES(X)
#undef X
        LMO_DH_COUNT
};

const char *lmo_drain_state_text(enum lmo_drain_state s);
enum lmo_drain_state lmo_drain_state_from_text(const char *text); /* COUNT: none */
bool lmo_drain_may_follow(enum lmo_drain_state from, enum lmo_drain_state to);
bool lmo_drain_is(enum lmo_drain_state s, uint32_t attribute);
const char *lmo_drain_guest_state_text(enum lmo_drain_guest_state s);
enum lmo_drain_guest_state lmo_drain_guest_state_from_text(const char *text);
bool lmo_drain_guest_is(enum lmo_drain_guest_state s, uint32_t attribute);
const char *lmo_drain_host_state_text(enum lmo_drain_host_state s);
enum lmo_drain_host_state lmo_drain_host_state_from_text(const char *text);
bool lmo_drain_host_is(enum lmo_drain_host_state s, uint32_t attribute);

/* ------------------------------------------------------------------ the record */

struct lmo_drain_ref {
    uint32_t n;
};

struct lmo_drain_try {
    char destination[LMO_NAME_MAX];
    int code; /* of its end; 0: not ended yet, or well */
    enum lmo_phase failed_in;
};

/* A guest's part in the turn of one host: one move. A plan that has several moves of one guest (out of the way of a swap, or on from a
 * host whose turn comes later) has as many of these. */
struct lmo_drain_guest {
    char uuid[LMO_UUID_MAX], name[LMO_NAME_MAX];
    uint32_t host; /* in whose turn it moves */
    enum lmo_move_why why;
    enum lmo_drain_guest_state state;
    enum lmo_unmovable policy; /* its own, or the drain's */
    bool shut_off;
    bool back;                      /* it has left, and is on its way back, or has been */
    char at[LMO_NAME_MAX];          /* host that it is on when its move begins; after it, that it is on */
    char destination[LMO_NAME_MAX]; /* planned, or where it went; empty: to be found */
    uint32_t order;                 /* in the plan, of all */
    unsigned
        after_count; /* moves that must have ended before: they make its room, or are earlier ones of the same guest */
    struct lmo_drain_ref after[LMO_DRAIN_AFTER_MAX];
    uint32_t after_host; /* whose turn must be over; or NONE */
    char migration
        [LMO_ID_MAX]; /* the present or the last one; in STARTING filled in by the caller before it is stored */
    unsigned try_count;
    struct lmo_drain_try tries[LMO_DRAIN_TRIES_MAX];
    int code; /* why it failed, or is held */
    char reason[LMO_TEXT_MAX];
    int64_t since_ms; /* in this state */
    int64_t wait_ms;  /* HELD, or MOVING and a person must look: since when it has not got on; 0: it does */
    int64_t look_ms;  /* HELD: when it is looked at again */
    uint64_t memory_bytes;
    uint64_t low_ms, high_ms; /* expected time of its move */
    /* not stored */
    uint32_t next; /* of the same host */
    uint32_t next_touched;
    bool touched, listed;
};

struct lmo_drain_host {
    char name[LMO_NAME_MAX];
    enum lmo_drain_host_state state;
    bool cordon;       /* this drain keeps it cordoned */
    bool was_cordoned; /* somebody else had, before: not lifted */
    uint32_t rounds;   /* looks at its list that did not settle it */
    uint32_t hook_tries;
    unsigned after_count; /* hosts whose turns must be over before its own begins */
    struct lmo_drain_ref after[LMO_DRAIN_AFTER_MAX];
    int64_t since_ms;
    int64_t wait_ms;       /* since when something is waited for; 0: nothing */
    int64_t look_ms;       /* when it is looked at again; 0: as soon as it can be */
    char boot[LMO_ID_MAX]; /* its worker's, when it was found empty: another one later means that it was restarted */
    char links[LMO_TEXT_MAX],
        services[LMO_TEXT_MAX]; /* what it offered before: the same is asked of it when it is back */
    char reason[LMO_TEXT_MAX];
    uint32_t moved, failed, skipped;
    /* not stored */
    uint32_t first;        /* of its guests */
    uint32_t guests, open; /* how many, and how many of them are not settled */
    uint32_t next_touched;
    bool touched;
};

struct lmo_drain {
    char id[LMO_ID_MAX];
    uint64_t version; /* +1 at every step */
    enum lmo_drain_state state;
    /* as asked for */
    uint32_t max_hosts; /* at once; 0: all */
    uint32_t keep_free; /* the fleet must be able to lose so many more hosts */
    bool give_back;     /* guests return to where they came from */
    bool rolling;       /* hosts come back, each before the next one goes */
    bool balance; /* not a drain: moves all over the fleet, in the turn of one host that stands for all and is none */
    enum lmo_unmovable unmovable;                           /* for guests that have no policy of their own */
    char hook_url[LMO_URL_MAX], hook_command[LMO_NAME_MAX]; /* at `host-drained`; at most one is given */
    int64_t wait_timeout_ms;                                /* longest wait for any one thing */
    char principal[LMO_NAME_MAX + 32];
    char plan[LMO_DRAIN_PLAN_MAX]; /* digest of the plan that it carries out */
    uint64_t low_ms, high_ms;      /* expected time of all */
    /* as it goes */
    int64_t created_ms, updated_ms, ended_ms, state_ms;
    char waiting_for[LMO_TEXT_MAX];
    int64_t waiting_since_ms;
    int code; /* LMO_E_* of what went wrong first; 0: nothing */
    char reason[LMO_TEXT_MAX];
    bool stop;                        /* a host failed: no other one begins */
    uint32_t percent;                 /* never falls */
    uint32_t host_count, guest_count; /* the caller keeps the arrays that long */
    struct lmo_drain_host *hosts;
    struct lmo_drain_guest *guests;
    /* not stored */
    uint32_t guests_in[LMO_DG_COUNT], hosts_in[LMO_DH_COUNT];
    uint32_t touched_guests, touched_hosts; /* first of each list */
    bool has_after;
};

/* ------------------------------------------------------------------ events */

enum lmo_drain_event_kind {
    LMO_DRAIN_EV_PLANNED = 1,   /* hosts and guests are filled in */
    LMO_DRAIN_EV_UNPLANNED,     /* there can be no plan: `text` */
    LMO_DRAIN_EV_STARTED,       /* guest: its migration is stored */
    LMO_DRAIN_EV_START_REFUSED, /* guest: `code`, `text`; `destination_fault` */
    LMO_DRAIN_EV_CHILD_ENDED,   /* guest: code 0 if it was moved; else `code`, `failed_in`, `text` */
    LMO_DRAIN_EV_CHILD_RESTS,   /* guest: its migration needs a person: `text` */
    LMO_DRAIN_EV_PLACED,        /* guest: `text` is its destination */
    LMO_DRAIN_EV_BLOCKED,  /* guest: cannot be moved as it is: `text`; code BUSY: somebody asked that it stay for now */
    LMO_DRAIN_EV_NO_PLACE, /* guest: `text`; `may_change` */
    LMO_DRAIN_EV_GUEST_GONE,   /* guest: it is not there any more, and no migration of ours took it */
    LMO_DRAIN_EV_LISTED,       /* host: code 0 and the list; else it did not answer, `text` */
    LMO_DRAIN_EV_HOOKED,       /* host: code 0: called, `acknowledged`; else `text` */
    LMO_DRAIN_EV_ACKNOWLEDGED, /* host: somebody says that it may be used again */
    LMO_DRAIN_EV_HOST_UP,      /* host: it answers (again): what waited for that is looked at now */
    LMO_DRAIN_EV_PROBED,       /* host: code 0: ready; else `text` says what is missing */
    LMO_DRAIN_EV_PAUSE,  /* `text`: by whom, or why */
    LMO_DRAIN_EV_RESUME,
    LMO_DRAIN_EV_CANCEL, /* `text`: by whom */
    LMO_DRAIN_EV_TIMER,
    LMO_DRAIN_EV_RECOVERED, /* just loaded */
    LMO_DRAIN_EV_COUNT
};

struct lmo_drain_event {
    enum lmo_drain_event_kind kind;
    int64_t now_ms;
    uint32_t guest, host; /* index */
    int code;
    enum lmo_phase failed_in;
    const char *text;       /* borrowed; NULL: "" */
    bool destination_fault; /* START_REFUSED: another destination may do */
    bool may_change;        /* NO_PLACE: there may be one later */
    bool acknowledged;
    /* LISTED: this drain's guests that are in the list, and how many it has in all. Guests that are not this drain's yet
     * have been appended to the array before, as QUEUED. */
    const uint32_t *listed;
    uint32_t listed_count, total;
};

/* Moves the drain on, in place. 0, or a negative LMO_E_* when the event is not acceptable now: then nothing has changed.
 * Events that are merely stale (about a guest or host that has moved on) are accepted and change nothing.
 * What it touched is in the two lists afterwards; the caller empties them with lmo_drain_settled. */
int lmo_drain_step(struct lmo_drain *d, const struct lmo_drain_event *ev, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_drain_settled(struct lmo_drain *d);
/* After a load, and after guests were appended: fills in all that is not stored. */
void lmo_drain_index(struct lmo_drain *d);
/* When an LMO_DRAIN_EV_TIMER is due; 0: none. In time proportional to what the drain has. */
int64_t lmo_drain_wake_ms(const struct lmo_drain *d);
/* Has this destination refused this guest before? */
bool lmo_drain_refused(const struct lmo_drain_guest *g, const char *destination);
/* Is the host's cordon this drain's to keep? */
bool lmo_drain_holds(const struct lmo_drain *d, const struct lmo_drain_host *h);
/* NULL, or a sentence that names the invariant that does not hold. */
const char *lmo_drain_broken(const struct lmo_drain *d);

#endif
