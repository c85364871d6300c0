/* fleet.h - the engine's picture of the fleet: what hosts showed of their guests, and what people said about hosts and guests.
 * Shared by the engine's own files only.
 *
 * fleet.c       guests of every host, as shown last, and asking for them
 * marks.c       cordon and labels of hosts, policies and leases of guests: stored with the next commit
 * mark_requests.c what clients say about them
 * snapshot.c    all that as core/fleet.h wants it
 *
 * Guests are remembered only to plan by: nothing is done to a guest that its host has not been asked about anew. Nothing is
 * asked as long as nobody plans anything: the first question turns the refreshing on, FLEET_WATCHED_MS without one turns
 * it off again. */
#ifndef LMO_ENGINE_FLEET_H
#define LMO_ENGINE_FLEET_H

#include "base/hash.h"
#include "core/drain.h"
#include "core/placement.h"
#include "engine/ports.h"

struct lmo_engine;
struct host;
struct entry;

#define LMO_LABELS_TEXT_MAX 1024
#define LMO_LABEL_MAX       (2 * LMO_NAME_MAX)
#define LMO_LEASE_MAX_MS    (INT64_C(24) * 3600 * 1000)
#define LMO_SEEN_FRESH_MS   5000 /* what was shown is at most so old when a plan is made */

/* ------------------------------------------------------------------ what people said */

struct host_mark {
    bool cordoned;
    char drain[LMO_ID_MAX]; /* that keeps the cordon; empty: a person did it */
    char drain_state[32];   /* where it stands in that drain; or empty */
    char by[LMO_NAME_MAX + 32], reason[LMO_TEXT_MAX];
    int64_t since_ms;
    char labels[LMO_LABELS_TEXT_MAX]; /* "rack=3 zone=a", in order */
};

struct vm_group {
    char name[LMO_NAME_MAX];
    bool together, hard;
};
struct vm_policy {
    bool unmovable_given;
    enum lmo_unmovable unmovable;
    char labels[LMO_LABELS_TEXT_MAX]; /* that a host must have */
    unsigned group_count;
    struct vm_group groups[LMO_GUEST_GROUPS_MAX];
};
struct vm_lease {
    char holder[LMO_NAME_MAX + 32], reason[LMO_TEXT_MAX];
    int64_t since_ms, until_ms; /* until 0: there is none */
};
/* Kept for as long as anything was said. */
struct vm_setting {
    char uuid[LMO_UUID_MAX];
    bool has_policy;
    struct vm_policy policy;
    struct vm_lease lease;
    UT_hash_handle hh;
};

/* ------------------------------------------------------------------ what hosts showed */

struct guest {
    char uuid[LMO_UUID_MAX], name[LMO_NAME_MAX];
    struct host *host;
    enum lmo_run_state state;
    uint64_t memory_bytes, huge_page_bytes, disk_bytes;
    uint32_t vcpus;
    uint64_t dirty_bytes_per_s, dirty_age_ms; /* age when it was shown; 0: never measured */
    uint32_t machine, cpu;                    /* interned; LMO_NONE */
    struct lmo_set services, fabrics;
    uint32_t blockers;
    char *blocker;             /* in words, or NULL */
    uint64_t generation;       /* of the list that it was seen in */
    uint32_t index;            /* in the present snapshot */
    struct guest *prev, *next; /* of the same host */
    UT_hash_handle hh;         /* by UUID */
};

/* Names that were met, each with its number; a name beyond the last number has none. */
struct interned {
    uint32_t count, size;
    char (*names)[64];
};
uint32_t engine_intern(struct interned *to, const char *name, uint32_t max);

/* Does a kind of guests' CPU run on a kind of hosts' CPU? */
struct cpu_pair {
    char key[2 * LMO_DIGEST_MAX];
    uint8_t runs; /* LMO_CPU_*; UNKNOWN: being asked */
    UT_hash_handle hh;
};

struct fleet_wait;
struct fleet {
    struct guest *guests; /* by UUID */
    struct vm_setting *settings;
    struct interned machines, services, fabrics, labels, cpus, host_cpus;
    struct cpu_pair *cpu_pairs;
    uint64_t watched_until_ns, timer;
    uint32_t asking; /* questions under way */
    struct fleet_wait *waits;
};

/* Marks, policies and leases, as stored. */
int engine_fleet_load(struct lmo_engine *e, struct lmo_err *err) LMO_MUST_CHECK;
void engine_fleet_done(struct lmo_engine *e);
void engine_fleet_host_gone(struct host *h);
/* It became reachable, or a migration has ended there. */
void engine_fleet_look(struct host *h);

/* Asks the host now. `done` (may be NULL) is called once: code 0, and `body` is its list (borrowed), which is taken into the picture
 * already. Questions that are asked while one is under way get the next one's answer, never an older one's. */
typedef void engine_listed_fn(void *arg, struct host *h, int code, const char *text, const json_t *vms);
void engine_fleet_ask(struct host *h, engine_listed_fn *done, void *arg);
/* Asks all whose list is older than LMO_SEEN_FRESH_MS; `fn` when each has answered, or not within its time. */
typedef void engine_refreshed_fn(void *arg);
void engine_fleet_refresh(struct lmo_engine *e, engine_refreshed_fn *fn, void *arg);
/* A migration is over: its guest is where it says, until its hosts say otherwise. */
void engine_fleet_ended(struct entry *entry);
/* By UUID or name; *ret_many: more than one has that name. */
struct guest *engine_guest(struct lmo_engine *e, const char *vm, bool *ret_many);
/* The UUID in one element of a host's list; NULL: it has none. */
const char *engine_listed_uuid(const json_t *vms, size_t i);

/* ------------------------------------------------------------------ marks.c */

/* Both are part of the next commit. */
void engine_mark_cordon(struct host *h, bool cordon, const char *drain, const char *by, const char *reason);
int engine_mark_store(const struct host *h);
/* In memory only. */
void engine_mark_set(struct host *h, bool cordon, const char *drain, const char *by, const char *reason);
/* NULL: nothing was said about it. */
const struct vm_setting *engine_setting(struct lmo_engine *e, const char *uuid);
/* NULL without memory. */
struct vm_setting *engine_setting_make(struct lmo_engine *e, const char *uuid);
/* Part of the next commit; NULL takes it away. */
int engine_policy_store(struct lmo_engine *e, const char *uuid, const struct vm_policy *p, struct lmo_err *err) LMO_MUST_CHECK;
int engine_lease_store(struct lmo_engine *e, const char *uuid, const struct vm_lease *l, struct lmo_err *err) LMO_MUST_CHECK;
bool engine_leased(const struct lmo_engine *e, const struct vm_setting *s);
void engine_lease_text(const struct vm_setting *s, char *ret, size_t size);
/* 0, or why no guest (or not this one) may come to this host now, or leave its own: cordon, lease. `drain` (may be empty): whose
 * own moves are looked at. */
int engine_permits(struct lmo_engine *e, const struct host *to, const char *uuid, const char *name, bool force,
                   struct lmo_err *err);
/* "key=value" pairs in order, without doubles; INVALID names `field`. */
int engine_labels_parse(const char *text, char ret[LMO_LABELS_TEXT_MAX], const char *field, struct lmo_err *err);
bool engine_label_in(const char *labels, const char *label);
json_t *engine_labels_json(const char *labels);
int engine_mark_json(const struct host *h, json_t *to);
void engine_settings_free(struct lmo_engine *e);
int engine_marks_load(struct lmo_engine *e, struct lmo_err *err) LMO_MUST_CHECK;

/* ------------------------------------------------------------------ snapshot.c */

struct snapshot {
    struct lmo_engine *engine;
    struct lmo_fleet fleet;
    enum lmo_unmovable unmovable;
    struct lmo_policy policy; /* the coordinator's defaults */
    struct host **hosts;      /* by index */
    struct guest **guests;
    struct lmo_fleet_host *fleet_hosts;
    struct lmo_fleet_guest *fleet_guests;
    struct lmo_fleet_group *groups;
    struct lmo_fleet_move *moves;
    char (*lease_texts)[LMO_TEXT_MAX];
    uint32_t lease_count;
    uint8_t *cpu_runs;
    const char **names[4];
    void *scratch;           /* of `place` */
    struct lmo_place *place; /* NULL until engine_snapshot_place */
};
/* `unmovable`: for guests that have no policy of their own. */
int engine_snapshot(struct lmo_engine *e, enum lmo_unmovable unmovable, struct snapshot *ret,
                    struct lmo_err *err) LMO_MUST_CHECK;
int engine_snapshot_place(struct snapshot *s, const struct lmo_place_options *o, struct lmo_err *err) LMO_MUST_CHECK;
void engine_snapshot_done(struct snapshot *s);
/* Index, or LMO_NONE. */
uint32_t engine_snapshot_host(const struct snapshot *s, const char *name);

#endif
