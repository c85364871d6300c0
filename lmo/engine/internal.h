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
    UT_hash_handle hh;               /* by id */
};

struct lmo_engine {
    struct lmo_loop *loop;
    struct lmo_store *store;
    struct lmo_workers *workers;
    const struct lmo_permit_key *permit_key;
    int64_t booted_ms;               /* since 1970, by CLOCK_REALTIME as it stood when the engine was made */
    struct lmo_workers_callbacks callbacks;
    struct host *hosts;
    struct entry *entries;
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
/* The limits allow it to start. The core may have it wait all the same (held_until_ms). */
void engine_admit(struct entry *entry);
void engine_flush_soon(struct lmo_engine *e);
void engine_journal(struct entry *entry, const char *what, const char *why);

/* dispatch.c */
void engine_send(struct entry *entry, const struct lmo_task *task);

/* requests.c */
void engine_reply_ok(lmo_engine_reply_fn *fn, void *arg, unsigned status, json_t *body, const char *location);
void engine_reply_fail(lmo_engine_reply_fn *fn, void *arg, int code, const char *field, const char *fmt, ...)
    LMO_PRINTF(5, 6);
void engine_wake_waiters(struct entry *entry);
void engine_created(struct entry *entry, int code, const char *text);

/* inventory.c */
json_t *engine_host_json(const struct host *h);
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
