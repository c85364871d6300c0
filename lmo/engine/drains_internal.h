/* drains_internal.h - drains, for the engine's own files.
 *
 * drains.c       the object: steps, what is stored with which commit, what follows after it; start and end of the engine
 * drain_do.c     what a drain has done: migrations, places for guests, lists of hosts, hooks, probes
 * drain_plan.c   requests: the plan, and the drain that is made from it
 * drain_requests.c looking at drains, and steering them
 * drain_show.c   drains and plans as REST shows them
 * drain_codec.c  the stored form
 * drain_tell.c   their events
 *
 * Order of things, for E1 to E3 and for "never started twice":
 *  - a step's record is put before the commit of its turn; what it wants done is done after that commit (drain_do.c);
 *  - a guest's migration is named in the drain's record (STARTING) by a commit before the migration is made;
 *  - a migration's end is stepped into its drain after the commit of that end. Whoever loads the drain looks each named
 *    migration up: it is open, has ended, or was never stored, and then it is made under the same name. */
#ifndef LMO_ENGINE_DRAINS_INTERNAL_H
#define LMO_ENGINE_DRAINS_INTERNAL_H

#include "core/planner.h"
#include "engine/drains.h"
#include "engine/internal.h"

#define LMO_DRAINS_MAX 256 /* that are not over */

struct drain_waiter {
    struct drain *drain;
    bool writes; /* waits for the commit of what it asked for */
    struct keyed *keyed; /* ... whose answer is kept by that commit; or NULL */
    unsigned status;     /* of the answer */
    uint64_t version, timer;
    lmo_engine_reply_fn *fn;
    void *arg;
    struct drain_waiter *next;
};

struct drain_run { /* of each host, not stored */
    bool asking;   /* a list, a hook or a probe is under way */
};

/* Indices of what was touched by steps that are put, and not acted upon yet. */
struct drain_todo {
    uint32_t count, size;
    uint32_t *list;
};

struct drain {
    struct lmo_engine *engine;
    struct lmo_drain d;
    uint32_t guest_size; /* allocated */
    struct drain_run *runs;
    bool dirty, stored, recovering;
    bool acting; /* put, and not acted upon yet */
    struct drain *next_dirty, *next_acting;
    struct drain_todo guests, hosts;
    uint64_t timer;
    lmo_engine_reply_fn *created_fn; /* until its first commit: who asked for it */
    void *created_arg;
    struct keyed *created_keyed;
    bool told;                      /* that it was accepted; then these are what was told last: */
    enum lmo_drain_state told_state;
    uint8_t *told_guests;           /* enum lmo_drain_guest_state */
    uint32_t told_guest_count;
    unsigned waiter_count;
    struct drain_waiter *waiters;
    UT_hash_handle hh;
};

/* drains.c */
struct drain *engine_drain(struct lmo_engine *e, const char *id);
struct drain *engine_drain_new(struct lmo_engine *e,
                               const struct lmo_drain *d); /* takes the arrays; NULL without memory */
int engine_drain_step(struct drain *dr, struct lmo_drain_event *ev, struct lmo_err *err);
/* For events that cannot be refused. */
void engine_drain_event(struct drain *dr, struct lmo_drain_event *ev);
/* One more guest of this host's, QUEUED without a destination: its index. NONE: no memory, or too many. */
uint32_t engine_drain_append(struct drain *dr, uint32_t host, const char *uuid, const char *name);
int engine_drain_read(struct lmo_engine *e, const char *id, struct lmo_drain *ret, struct lmo_err *err) LMO_MUST_CHECK;
void engine_drain_free_arrays(struct lmo_drain *d);
/* Before the commit, after it. */
void engine_drains_store(struct lmo_engine *e);
void engine_drains_act(struct lmo_engine *e);
void engine_drains_child_changed(struct entry *entry);
/* It was set aside: never stored, or a person must look. */
void engine_drains_child_lost(struct entry *entry, const struct lmo_err *why);
void engine_drains_host_up(struct host *h);
bool engine_drains_open(const struct lmo_engine *e);
bool engine_drain_holds(struct lmo_engine *e, const struct host *h);
int engine_drains_load(struct lmo_engine *e, struct lmo_err *err) LMO_MUST_CHECK;
void engine_drains_done(struct lmo_engine *e);

/* A restored store is acted upon from here on: what it had under way is paused, for a person to look at. */
void engine_drains_activated(struct lmo_engine *e);

/* drain_tell.c: the events of what was stepped since the last commit, with the next one. */
void engine_drain_tell(struct drain *dr);
/* It was loaded: all of it was told before. */
void engine_drain_told(struct drain *dr);

/* drain_requests.c */
void engine_drain_etag(const struct lmo_drain *d, char ret[LMO_ETAG_MAX]);
void engine_reply_drain(lmo_engine_reply_fn *fn, void *arg, unsigned status, struct lmo_engine *e,
                        const struct lmo_drain *d);
/* who: what it waits for, and how it is answered; the rest is filled in. */
void engine_drain_wait(struct drain *dr, uint64_t version, uint32_t wait_ms, const struct drain_waiter *who);

/* drain_do.c */
void engine_drain_do_guests(struct drain *dr, const uint32_t *guests, uint32_t count);
void engine_drain_do_host(struct drain *dr, uint32_t host);

/* drain_codec.c */
int engine_drain_put(struct lmo_engine *e, const struct lmo_drain *d, struct lmo_err *err) LMO_MUST_CHECK;
int engine_drain_put_host(struct lmo_engine *e, const struct lmo_drain *d, uint32_t host,
                          struct lmo_err *err) LMO_MUST_CHECK;
int engine_drain_put_guest(struct lmo_engine *e, const struct lmo_drain *d, uint32_t guest,
                           struct lmo_err *err) LMO_MUST_CHECK;
int engine_drain_decode(const char *text, struct lmo_drain *ret, struct lmo_err *err) LMO_MUST_CHECK;
int engine_drain_decode_host(const char *text, struct lmo_drain_host *ret, struct lmo_err *err) LMO_MUST_CHECK;
int engine_drain_decode_guest(const char *text, struct lmo_drain_guest *ret, struct lmo_err *err) LMO_MUST_CHECK;
extern const struct lmo_words engine_unmovable_words; /* marks.c */

/* drain_show.c */
json_t *engine_drain_json(struct lmo_engine *e, const struct lmo_drain *d, bool with_guests);
json_t *engine_plan_json(const struct snapshot *s, const struct lmo_plan *p, const char *digest);

/* requests.c: a drain's migration, as a request would make it, under a name that is known. `found` says where the guest is. 0; or why
 * not, and whether another destination may do. */
int engine_create_child(struct lmo_engine *e, const struct found_vm *found, const char *destination,
                        const struct lmo_policy *policy, const char *drain, const char *id, struct entry **ret,
                        bool *ret_destination_fault, struct lmo_err *err);
void engine_policy_default(struct lmo_policy *p);

#endif
