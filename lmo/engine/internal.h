/* internal.h - shared by the engine's own files only. */
#ifndef LMO_ENGINE_INTERNAL_H
#define LMO_ENGINE_INTERNAL_H

#include "engine/engine.h"

#include <uthash.h>

#define LMO_HOSTS_MAX 4096
#define LMO_OPEN_MAX 20000          /* open migrations; a request beyond it gets LIMIT */
#define LMO_WAITERS_MAX 64          /* long polls per migration */
#define LMO_OBSERVE_TIMEOUT_MS 5000

/* A host that the coordinator knows. */
struct host {
    struct lmo_host_row row;
    bool up, known;                 /* known: heard of since start, one way or the other */
    int64_t since_ms;
    struct lmo_host_facts facts;    /* last seen; valid once it was up */
    char last_error[LMO_TEXT_MAX];
    uint64_t seen_cursor;           /* events up to here have been stepped, not yet committed */
    struct host *prev, *next;       /* in moved_hosts; prev NULL: not in it */
    /* admission.c */
    uint32_t slot;                  /* in the fleet's hosts */
    uint64_t facts_ns;              /* when its memory was last heard of */
    uint64_t landed_bytes[LMO_POOLS_MAX];  /* of guests that came since: not yet seen in its free memory */
    uint64_t asked_landed[LMO_POOLS_MAX];  /* how much of that was there when it was asked last */
    bool asking;
    uint64_t ask_again_ns;          /* the last question failed: not before */
    UT_hash_handle hh;
};

/* A long poll on one migration. */
struct waiter {
    struct lmo_engine *engine;
    struct entry *entry;
    uint64_t version;
    unsigned status;                /* HTTP status of the answer */
    uint64_t timer;
    lmo_engine_reply_fn *fn;
    void *arg;
    struct waiter *next;
};

/* An open migration in memory. */
struct entry {
    struct lmo_engine *engine;
    struct lmo_migration *m, *spare; /* the newest state; a buffer for the next one */
    char *xml;
    bool xml_dirty;
    uint64_t stored_version;         /* 0: not inserted yet */
    bool dirty, durable, ended;
    unsigned journal_count, journal_size;
    struct lmo_journal_line *journal;
    unsigned send_count;
    uint32_t send[LMO_TASKS_MAX];    /* ordinals to send after the commit */
    int64_t wake_ms;
    uint64_t timer;
    unsigned waiter_count;
    struct waiter *waiters;
    /* until the insert is committed: who asked for it */
    struct lmo_migrate_request *request;
    lmo_engine_reply_fn *created_fn;
    void *created_arg;
    struct entry *next_dirty;
    struct entry *prev_created, *next_created; /* in creations, while `request` is there */
    char vm_uuid[LMO_UUID_MAX];      /* the key of hh_vm: m moves */
    /* admission.c */
    uint32_t item;                   /* in the fleet's items; LMO_NONE: it takes nothing any more */
    struct lmo_demand demand;
    uint64_t quiet_until_ns;         /* its worker would not take its last share: not to be asked before; 0: no */
    bool hold_told;                  /* the journal says that it had to wait */
    enum lmo_limit told_limit;       /* who waits for news of it was told that */
    uint32_t told_position;
    UT_hash_handle hh;               /* by id */
    UT_hash_handle hh_vm;            /* by the guest's UUID */
};

/* What admission.c keeps: the snapshot of core/admission.h, updated as records and hosts change. */
struct admission {
    struct lmo_limits limits;
    struct lmo_adm_fleet fleet;
    struct entry **entries;          /* of each item */
    struct host **hosts;             /* of each host's slot */
    uint32_t item_size, host_size;   /* allocated */
    uint32_t free_item, free_host;   /* chains of free ones, through `next` and `line[0]`; LMO_NONE: none */
    uint32_t queue_tail;
    uint32_t *queue_prev;            /* of each item */
    bool *watched;                   /* of each item: somebody may be waiting for news of what holds it */
    bool due;                        /* something changed since the last evaluation */
    bool again;                      /* carrying out the present one changes what it was made from */
    uint64_t timer, timer_ns;        /* to look again, and when */
    uint64_t evaluations;            /* for tests and for people who wonder */
};

struct lmo_engine {
    struct lmo_loop *loop;
    struct lmo_store *store;
    struct lmo_workers *workers;
    const struct lmo_permit_key *permit_key;
    int64_t booted_ms;               /* since 1970, by CLOCK_REALTIME as it stood when the engine was made */
    struct lmo_workers_callbacks callbacks;
    struct host *hosts;
    struct entry *entries, *entries_by_vm;
    struct entry *creations;         /* those whose insert is not committed yet */
    struct host *moved_hosts;        /* those with a cursor to commit */
    struct admission admission;
    unsigned creating;               /* migrate requests that are being resolved */
    struct entry *dirty;             /* what the next commit holds */
    bool flush_posted, stalled, stopping;
    uint64_t stall_timer;
    unsigned stalls;
};

/* engine.c */
/* ms since 1970. Deadlines are measured by it, so it does not jump: set once, it goes on by the clock since boot. */
int64_t engine_now_ms(const struct lmo_engine *e);
struct host *engine_host(struct lmo_engine *e, const char *name);
struct entry *engine_entry(struct lmo_engine *e, const char *id);
struct entry *engine_entry_of_vm(struct lmo_engine *e, const char *uuid);
struct entry *engine_entry_new(struct lmo_engine *e, const struct lmo_migration *m, uint64_t stored_version);
/* Steps the record; what follows is committed and carried out at the end of this turn of the loop. */
int engine_apply(struct entry *entry, struct lmo_event *ev, struct lmo_err *err);
void engine_flush_soon(struct lmo_engine *e);
/* A new record that nothing has happened to yet: it is inserted with the next commit. */
void engine_inserted(struct entry *entry);
void engine_journal(struct entry *entry, const char *what, const char *why);

/* admission.c. The model is made at the start; a failure is one of memory. */
int engine_admission_init(struct lmo_engine *e, const struct lmo_limits *limits, struct lmo_err *err);
void engine_admission_done(struct lmo_engine *e);
int engine_admission_host_add(struct lmo_engine *e, struct host *h, struct lmo_err *err);
void engine_admission_host_remove(struct lmo_engine *e, struct host *h);
/* Its facts, its state or its limits are not what they were. */
void engine_admission_host_changed(struct lmo_engine *e, struct host *h);
int engine_admission_entry_add(struct entry *entry, struct lmo_err *err);
void engine_admission_entry_remove(struct entry *entry);
/* After a step: what it takes of the fleet may be another thing now. */
void engine_admission_stepped(struct entry *entry);
/* A sample of a job that runs. */
void engine_admission_sample(struct entry *entry);
/* Before the commit: evaluates if something changed, and steps the records that this decides. */
void engine_admission_run(struct lmo_engine *e);
/* Evaluates in so many ms, if not before. */
void engine_admission_look_again(struct lmo_engine *e, uint64_t ms);
/* admission_memory.c */
#define LMO_MEMORY_FRESH_MS 10000 /* so old may be what is known of a destination's memory */
uint64_t engine_admission_keep_free(const struct lmo_engine *e, const struct host *h);
void engine_admission_fill_memory(const struct lmo_engine *e, const struct host *h, struct lmo_adm_host *to);
/* Index of the pool with pages of that size; 0: the host (which may be NULL) has none. */
uint8_t engine_admission_pool(const struct host *h, uint64_t page_bytes);
/* The migration has ended, and its guest may be there to stay: what is known of the host's memory may be from before. */
void engine_admission_landed(struct entry *entry);
bool engine_admission_stale(const struct host *h, uint64_t now_ns);
void engine_admission_ask(struct lmo_engine *e, struct host *h);
/* admission_show.c */
/* Somebody waits for news of it from now on. */
void engine_admission_watch(struct entry *entry);
/* What holds it is another thing than when it was last shown: makes that a newer version. */
void engine_admission_tell(struct entry *entry);
/* `entry`: if the record is open. */
json_t *engine_migration_json(const struct lmo_migration *m, const struct entry *entry);
int engine_admission_host_json(const struct lmo_engine *e, const struct host *h, json_t *to);
/* What holds a queued record, or NULL. */
const struct lmo_hold *engine_admission_hold(const struct entry *entry);
/* "2nd in line for an incoming slot of host hv2 (2 of 2 are in use)" */
void engine_admission_hold_text(const struct entry *entry, char *ret, size_t size);
/* Asks for its free memory if what is known is old, so that the answer is there when it is needed. */
void engine_admission_prefetch(struct lmo_engine *e, struct host *h);
/* 0, or why no migration between these two can ever start as they are configured. */
int engine_admission_possible(const struct lmo_engine *e, const struct host *source, const struct host *destination,
                              const struct lmo_vm_facts *vm, struct lmo_err *err);

/* dispatch.c */
void engine_send(struct entry *entry, const struct lmo_task *task);

/* requests.c */
void engine_reply_ok(lmo_engine_reply_fn *fn, void *arg, unsigned status, json_t *body, const char *location);
void engine_reply_fail(lmo_engine_reply_fn *fn, void *arg, int code, const char *field, const char *fmt, ...)
    LMO_PRINTF(5, 6);
void engine_wake_waiters(struct entry *entry);
void engine_created(struct entry *entry, int code, const char *text);

/* inventory.c */
json_t *engine_host_json(const struct lmo_engine *e, const struct host *h);
/* Asks every hypervisor host for one guest; `fn` gets where it is. */
struct found_vm {
    unsigned count;                  /* hosts that have it */
    char host[LMO_NAME_MAX];         /* the first of them */
    char other[LMO_NAME_MAX];        /* a second one, if count > 1 */
    struct lmo_vm_facts facts;
    unsigned unreachable;            /* hosts that did not answer */
    char unreachable_host[LMO_NAME_MAX];
};
typedef void engine_found_fn(void *arg, const struct found_vm *found);
void engine_vm_list(struct lmo_engine *e, lmo_engine_reply_fn *fn, void *arg);
void engine_vm_get(struct lmo_engine *e, const char *vm, lmo_engine_reply_fn *fn, void *arg);
int engine_find_vm(struct lmo_engine *e, const char *vm, engine_found_fn *fn, void *arg, struct lmo_err *err) LMO_MUST_CHECK;

#endif
