/* internal.h - shared by the engine's own files only. */
#ifndef LMO_ENGINE_INTERNAL_H
#define LMO_ENGINE_INTERNAL_H

#include "base/hash.h"
#include "core/breaker.h"
#include "engine/engine.h"
#include "engine/feed.h"
#include "engine/figures.h"
#include "engine/spans.h"
#include "engine/fleet.h"
#include "engine/pack.h"

#include <stdatomic.h>

#define LMO_HOSTS_MAX 4096
#define LMO_OPEN_MAX 20000          /* open migrations; a request beyond it gets LIMIT */
#define LMO_WAITERS_MAX 64          /* long polls per migration */
#define LMO_OBSERVE_TIMEOUT_MS 5000
#define LMO_BATCH_MAX 256           /* records per commit, and records that lie unpacked between turns */

/* A host that the coordinator knows. */
struct host {
    struct lmo_engine *engine;
    struct lmo_host_row row;
    bool up, known;                 /* known: heard of since start, one way or the other */
    int64_t since_ms;
    struct lmo_host_facts facts;    /* last seen; valid once it was up */
    char last_error[LMO_TEXT_MAX];
    uint64_t seen_cursor;           /* events up to here have been stepped, not yet committed */
    uint64_t cursor_after;          /* seen_cursor may be committed once so many entries of e->dirty were settled */
    bool cursor_pending;            /* in e->cursors */
    struct host *next_cursor;
    struct lmo_breaker breaker;
    struct held *held;              /* calls that it holds back, oldest first */
    unsigned held_count;
    uint64_t hold_timer;
    /* admission.c */
    uint32_t slot;                  /* in the fleet's hosts */
    uint64_t facts_ns;              /* when its memory was last heard of */
    uint64_t landed_bytes[LMO_POOLS_MAX];  /* of guests that came since: not yet seen in its free memory */
    uint64_t asked_landed[LMO_POOLS_MAX];  /* how much of that was there when it was asked last */
    bool asking;
    uint64_t ask_again_ns;          /* the last question failed: not before */
    /* fleet.c, marks.c */
    struct host_mark mark;
    struct guest *guests;           /* as shown last */
    uint32_t guest_count;
    uint64_t shown_ns;              /* when the question was sent that was answered last; 0: never */
    uint64_t generation;            /* of that answer */
    struct listing_call *listing;   /* the question under way, and who waits for its answer; NULL: none */
    struct listing_wait *next_listing; /* those who wait for the one after it */
    uint32_t index;                 /* in the present snapshot */
    UT_hash_handle hh;
};

/* A long poll on one migration. */
struct waiter {
    struct lmo_engine *engine;
    struct entry *entry;
    uint64_t version;
    unsigned status;                /* HTTP status of the answer */
    struct keyed *keyed;            /* its change is answered with a key; or NULL */
    uint64_t timer;
    lmo_engine_reply_fn *fn;
    void *arg;
    struct waiter *next;
};

/* How an open migration was shown last: good for as long as its version is. */
struct shown {
    uint64_t version;
    uint64_t until_ns;               /* what it says of a call that takes long changes then; 0: not with time */
    char *text;                      /* NULL: not shown yet */
    size_t len;
};

/* An open migration in memory. Its record is packed, but for as long as it is worked on; what is looked for among all
 * of them stands beside it. Read it with engine_record(). */
struct entry {
    struct lmo_engine *engine;
    char id[LMO_ID_MAX], vm[LMO_UUID_MAX];
    char source[LMO_NAME_MAX], destination[LMO_NAME_MAX];
    char drain[LMO_ID_MAX];          /* that it is part of; or empty */
    uint32_t drain_guest;            /* index there */
    enum lmo_phase phase;
    bool shut_off;                   /* the move of a guest that is shut off */
    uint64_t version;
    struct lmo_packed *packed;       /* the newest state unless `hot` is there */
    struct lmo_migration *hot;       /* unpacked: from the first step of a batch to its commit */
    char *xml;                       /* until the destination was prepared with it; the store keeps it */
    bool xml_dirty;
    uint64_t stored_version;         /* 0: not inserted yet */
    bool dirty, durable, ended, recovering;
    unsigned journal_count, journal_size;
    struct lmo_journal_line *journal;
    unsigned event_count, event_size;
    struct lmo_event_row *events;    /* to be stored with the record */
    struct notice_call *notice;      /* its guest's owner is being told, or was */
    unsigned send_count;
    uint32_t send[LMO_TASKS_MAX];    /* ordinals to send after the commit */
    int64_t wake_ms, timer_ms;       /* when it is to be woken; what `timer` was set for */
    uint64_t timer;
    unsigned waiter_count;
    struct waiter *waiters;
    /* until the insert is committed: who asked for it */
    struct lmo_migrate_request *request;
    lmo_engine_reply_fn *created_fn;
    void *created_arg;
    struct keyed *created_keyed;
    struct entry *next_dirty;
    struct entry *prev_created, *next_created; /* in creations, while `request` is there */
    /* admission.c */
    uint32_t item;                   /* in the fleet's items; LMO_NONE: it takes nothing any more */
    struct lmo_demand demand;
    uint64_t quiet_until_ns;         /* its worker would not take its last share: not to be asked before; 0: no */
    bool hold_told;                  /* the journal says that it had to wait */
    enum lmo_limit told_limit;       /* who waits for news of it was told that */
    uint32_t told_position;
    struct shown row;                /* show.c: in lists */
    bool on_board;                   /* a text of it may be there */
    UT_hash_handle hh;               /* by id */
    UT_hash_handle hh_vm;            /* by guest */
};

struct quarantined {
    struct quarantined *next;
    struct lmo_quarantine_row row;
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

/* feed.c: who follows the event log. */
struct feed {
    struct lmo_feed_config config;
    struct subscriber *subscribers;
    unsigned count, progress;        /* in all; those that want progress */
    uint64_t newest;                 /* every event up to here was given to whoever was at the end */
    uint64_t pump_timer, look_timer;
    uint32_t look_ms;
    atomic_bool kicked;
};

struct lmo_engine {
    struct lmo_loop *loop;
    struct lmo_store *store;
    struct lmo_workers *workers;
    const struct lmo_permit_key *permit_key;
    const struct lmo_hooks *hooks;
    int64_t booted_ms;               /* since 1970, by CLOCK_REALTIME as it stood when the engine was made */
    struct lmo_workers_callbacks callbacks;
    struct host *hosts;
    struct entry *entries, *by_vm;
    struct quarantined *quarantine;
    bool observing, restoring;       /* restore.c: nothing is done; somebody looks at everything */
    bool doctor, mending;            /* somebody looks at everything; and mends: no migration begins */
    bool audits;                     /* lines wait in the store for the next commit */
    bool tells;                      /* events were stored that nobody was given yet */
    struct tell_later *tell_later, **tell_later_last; /* events that go with the next commit */
    bool objects;                    /* and so do objects beside migrations */
    struct after_commit *after_commit, **after_commit_last; /* answers that the next commit lets go */
    struct fleet fleet;
    struct drain *drains;            /* that are not over */
    struct drain *dirty_drains;      /* that have been stepped since they were put */
    struct drain *acting_drains;     /* that are put, and acted upon after the next commit */
    struct entry *creations;         /* those whose insert is not committed yet */
    struct keyed *keyed;             /* requests with a key that are under way */
    struct tokens *tokens;
    struct board *board;
    struct admission admission;
    struct feed feed;
    struct lmo_outbound *outbound;
    struct lmo_webhooks_config webhooks_config;
    struct webhook *webhooks;
    unsigned webhook_count;
    struct figures figures;
    struct spans spans;
    unsigned creating;               /* migrate requests that are being resolved */
    struct entry *dirty, **dirty_last; /* what the next commits hold, oldest first */
    uint64_t dirtied, settled;       /* how many were ever put there, and taken off after their commit */
    struct host *cursors;            /* hosts whose seen_cursor is to be committed */
    struct lmo_migration *spare;     /* what the next step writes to */
    struct lmo_migration *view;      /* engine_record() of an entry that is not hot... */
    const struct entry *viewed;      /* ...this one; NULL: of none */
    struct lmo_migration *buffers[LMO_BATCH_MAX]; /* for hot records, free now */
    unsigned buffer_count, hot_count;
    bool flush_posted, stalled, stopping;
    atomic_bool closed;              /* lines for the audit trail come too late */
    uint64_t stall_timer, term_timer;
    unsigned stalls;
    uint64_t random;                 /* state of the generator of jitter */
    int stall_code;                  /* of the last commit that failed; 0 once one has succeeded */
    char stall_why[LMO_TEXT_MAX];
    uint64_t commits, commits_beaten; /* transactions that are on disk; of them, those that lmo_engine_beat has seen */
};

/* engine.c */
/* Kept for the next commit; a store that keeps no such things, or no memory: an error. */
int engine_put(struct lmo_engine *e, const struct lmo_object *o, struct lmo_err *err) LMO_MUST_CHECK;
struct request;
/* Replies `body` (taken) once all that was put so far is stored (E3), and keeps that for its key in the same transaction. */
void engine_reply_committed(struct request *r, unsigned status, json_t *body, const char *etag);
/* ms since 1970. Deadlines are measured by it, so it does not jump: set once, it goes on by the clock since boot. */
int64_t engine_now_ms(const struct lmo_engine *e);
struct host *engine_host(struct lmo_engine *e, const char *name);
void engine_cursor_forget(struct lmo_engine *e, struct host *h);
/* Steps the record; what follows is committed and carried out at the end of this turn of the loop. */
int engine_apply(struct entry *entry, struct lmo_event *ev, struct lmo_err *err);
/* Whether engine_apply would take the event now; changes nothing. */
int engine_try(struct entry *entry, struct lmo_event *ev, struct lmo_err *err);
/* NULL: none that is under way has that ordinal (a later step may have dropped it). */
const struct lmo_task *engine_sent_task(const struct lmo_migration *m, uint32_t ordinal);
void engine_flush_soon(struct lmo_engine *e);
/* A new record that nothing has happened to yet: it is inserted with the next commit. */
void engine_inserted(struct entry *entry);
void engine_journal(struct entry *entry, const char *what, const char *why);

/* entries.c */
int engine_entries_init(struct lmo_engine *e, struct lmo_err *err) LMO_MUST_CHECK;
void engine_entries_done(struct lmo_engine *e);
struct entry *engine_entry(struct lmo_engine *e, const char *id);
struct entry *engine_entry_of_vm(struct lmo_engine *e, const char *uuid);
/* NULL without memory. */
struct entry *engine_entry_new(struct lmo_engine *e, const struct lmo_migration *m, uint64_t stored_version);
void engine_entry_free(struct entry *entry);
/* The newest state; good until the next call for another entry, or the next step. */
const struct lmo_migration *engine_record(const struct entry *entry);
/* Unpacks, if fewer than LMO_BATCH_MAX are (or `anyway`). */
void engine_heat(struct entry *entry, bool anyway);
void engine_cool(struct entry *entry);
/* e->spare is the newest state from now on. */
void engine_take_spare(struct entry *entry);

/* admission.c. The model is made at the start; a failure is one of memory. */
int engine_admission_init(struct lmo_engine *e, const struct lmo_limits *limits, struct lmo_err *err);
void engine_admission_done(struct lmo_engine *e);
void engine_admission_set_limits(struct lmo_engine *e, const struct lmo_limits *limits);
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

/* Evaluates with one more in the queue, and changes nothing. `ret_held`: what it would wait for; empty: nothing.
 * *ret_result (owned by the caller): the migration as it would be shown. NO_MEMORY. */
int engine_admission_what_if(struct lmo_engine *e, const struct lmo_migration *m, char *ret_held, size_t size,
                             json_t **ret_result);
/* events.c: what is told. Of a record: with its next commit. */
void engine_tell_accepted(struct entry *entry, const char *principal);
/* After a step; `before`: the phase that it began in. */
void engine_tell_step(struct entry *entry, enum lmo_phase before, const struct lmo_effects *effects);
void engine_tell_progress(struct entry *entry);
/* Of anything else: right before the store's call that stores the change; engine_untold() if that failed, with what this
 * returned, and engine_told() if it did not. Without such a call: engine_tell_later(). Takes `data`. */
bool engine_tell(struct lmo_engine *e, const char *type, const char *host, json_t *data);
bool engine_tell_host(struct lmo_engine *e, const char *type, const char *host, const char *why);
void engine_tell_later(struct lmo_engine *e);
/* Of what engine_put has put, or will put before the next commit: stored by that commit. `about`: its names; the rest of it
 * is filled in. Takes `data`. */
void engine_tell_with_commit(struct lmo_engine *e, const struct lmo_event_row *about, const char *type, json_t *data);
/* Right before the commit. True: the store has something to tell. */
bool engine_tells_hand_over(struct lmo_engine *e);
void engine_tells_done(struct lmo_engine *e);
void engine_untold(struct lmo_engine *e, bool told);
/* A transaction that stored events is on disk. */
void engine_told(struct lmo_engine *e);

/* feed.c */
void engine_feed_init(struct lmo_engine *e, const struct lmo_feed_config *config);
int engine_feed_start(struct lmo_engine *e, struct lmo_err *err) LMO_MUST_CHECK;
void engine_feed_done(struct lmo_engine *e);
void engine_feed_news(struct lmo_engine *e);
bool engine_feed_wants_progress(const struct lmo_engine *e);
void engine_feed_progress(struct lmo_engine *e, const struct lmo_event_row *row);

/* webhooks.c */
void engine_webhooks_init(struct lmo_engine *e, const struct lmo_webhooks_config *config);
int engine_webhooks_start(struct lmo_engine *e, struct lmo_err *err) LMO_MUST_CHECK;
void engine_webhooks_done(struct lmo_engine *e);
void engine_webhooks_news(struct lmo_engine *e);

/* notice.c */
/* The record is on disk: if it waits for its guest's owner, he is told; if it does not any more, the call ends. */
void engine_notice_committed(struct entry *entry);
void engine_notice_drop(struct entry *entry);

/* figures.c */
int engine_figures_init(struct lmo_engine *e, struct lmo_err *err) LMO_MUST_CHECK;
void engine_figures_done(struct lmo_engine *e);
/* After a step; `phases_before`: how many phase times the record had. */
void engine_figures_step(struct entry *entry, unsigned phases_before, const struct lmo_effects *effects);

/* spans.c */
void engine_spans_init(struct lmo_engine *e, const struct lmo_otlp_config *config);
void engine_spans_done(struct lmo_engine *e);
/* The record has ended, and that is on disk. */
void engine_spans_ended(struct entry *entry);

/* trace.c */
void engine_trace_begin(struct lmo_trace *t, const struct lmo_trace *from);
/* Of its n-th phase (LMO_PHASE_TIMES_MAX: of itself), behind `before`; "" of a record without a trace. */
void engine_traceparent(const struct lmo_migration *m, unsigned phase, const char *before, char *ret, size_t size);
/* The present phase's index in phase_times, or LMO_PHASE_TIMES_MAX. */
unsigned engine_trace_phase(const struct lmo_migration *m);

/* dispatch.c */
void engine_send(struct entry *entry, const struct lmo_task *task);

/* hold.c */
/* Sends the call, or holds it back as long as its host's breaker says so. */
void engine_send_or_hold(struct entry *entry, const struct lmo_task *task);
/* A call to the host has ended: with an answer (any answer), or without. */
void engine_answered(struct lmo_engine *e, const char *host, bool good);
void engine_heard(struct host *h);
void engine_host_free(struct host *h);

/* A client's request on its way from any thread to the loop. */
struct request {
    struct lmo_engine *engine;
    void (*run)(struct request *r);
    lmo_engine_reply_fn *fn;
    void *arg;
    struct lmo_ask ask;
    struct keyed *keyed; /* it came with a key; fn and arg are that one's */
    char name[LMO_NAME_MAX + 32], url[LMO_URL_MAX], phase[32];
    struct lmo_page page;
    struct lmo_migration_filter filter;
    bool full;
    uint64_t version;
    uint32_t wait_ms;
    struct lmo_token_row token;
    struct lmo_migrate_request migrate;
    struct lmo_host_limits limits;
    uint32_t reset;
    enum lmo_resolution resolution;
    char reason[LMO_TEXT_MAX];
    bool repair;
    struct lmo_webhook_request webhook;
    bool activate, force; /* restore.c */
    unsigned turns;       /* how often it may wait for its own */
    void *more;           /* what else it needs: from malloc(), freed with it; taken from it by who goes on later (NULL then) */
    void (*more_free)(void *more); /* NULL: free() */
    bool harmless;        /* may be done while a restored store is only observed: it orders nothing of anybody */
};

/* restore.c */
struct lmo_restore_view;
/* Before hosts and records are loaded: is the store one that was restored? */
void engine_restore_begin(struct lmo_engine *e);
/* Afterwards: if it is, looks at everything once. */
void engine_restore_look(struct lmo_engine *e);
/* Whoever starts anything by itself asks first: true, and nothing may be ordered. */
bool engine_observing(const struct lmo_engine *e);
/* engine.c: the record becomes what core/restore.h says (act), or only e->spare does. */
int engine_restored(struct entry *entry, const struct lmo_restore_view *v, bool act, struct lmo_err *err) LMO_MUST_CHECK;
/* Every open record learns that a coordinator has just loaded it. */
void engine_recover(struct lmo_engine *e);
/* doctor.c: looks at everything; `fn` once, later, with what was seen, sorted as core/doctor.h wants it; NULL: no memory, or
 * the coordinator is stopping. BUSY: somebody does already. */
struct lmo_doctor_world;
typedef void engine_world_fn(void *arg, const struct lmo_doctor_world *w);
int engine_look_at_all(struct lmo_engine *e, engine_world_fn *fn, void *arg, struct lmo_err *err) LMO_MUST_CHECK;

/* quarantine.c */
int engine_quarantine_load(struct lmo_engine *e, struct lmo_err *err) LMO_MUST_CHECK;
/* NULL: none of this guest's. */
const struct lmo_quarantine_row *engine_quarantined(const struct lmo_engine *e, const char *uuid);
void engine_quarantine_free(struct lmo_engine *e);
/* Would the same record fail again, however often it is tried? */
bool engine_is_hopeless(int code);
/* The caller frees the entry afterwards. */
void engine_set_aside(struct entry *entry, const struct lmo_err *why);

/* audit.c: on the loop. Sets the line's time. */
void engine_audit(struct lmo_engine *e, struct lmo_audit_line *line);

/* ask.c: how something is asked for (engine.h). */
struct lmo_ask engine_asked(void);
/* True: it is a dry run, and answered: what the real one would be answered with. Takes `result` (may be NULL) in any case. */
bool engine_would(struct request *r, unsigned status, json_t *result, const char *fmt, ...) LMO_PRINTF(4, 5);
/* False: answered, the object is not what the client believes. */
bool engine_matches(struct request *r, const char *etag);
/* What writers could collide on, as an ETag: add here what a request can change. */
void engine_host_etag(const struct host *h, char ret[LMO_ETAG_MAX]);
void engine_migration_etag(const struct lmo_migration *m, char ret[LMO_ETAG_MAX]);

/* keyed.c: requests with an idempotency key. */
/* False: answered (from before, or refused); else the request may go on, its answer will be kept. */
bool engine_keyed_begin(struct request *r);
/* The request's change is the next thing that the store is told to write, outside of commits: its answer goes with it. */
void engine_keep_with_next_write(struct request *r, unsigned status, const json_t *body, const char *location,
                                 const char *etag);
/* The request's change (engine_put) is part of the next commit: so is its answer. `k` may be NULL: it has no key. */
void engine_keep_with_commit(struct lmo_engine *e, struct keyed *k, unsigned status, const json_t *body,
                             const char *location, const char *etag);
/* For the commit that `entry` is part of: answers to what changed it, borrowed until it is done; NULL: none. */
const struct lmo_kept_answer *engine_answers_of(struct entry *entry);
void engine_keyed_free(struct lmo_engine *e);

/* tokens.c */
int engine_tokens_load(struct lmo_engine *e, struct lmo_err *err) LMO_MUST_CHECK;
void engine_tokens_free(struct lmo_engine *e);

/* board.c */
int engine_board_init(struct lmo_engine *e, struct lmo_err *err) LMO_MUST_CHECK;
void engine_board_done(struct lmo_engine *e);
/* until_ns: from then on it is shown no more; 0: until it is taken down. */
void engine_board_put(struct lmo_engine *e, const char *id, const char *etag, const char *text, size_t len, uint64_t until_ns);
void engine_board_forget(struct lmo_engine *e, const char *id);

/* show.c */
void engine_shown_free(struct shown *s);

/* requests.c */
void engine_wait_for(struct request *r, struct entry *entry, uint64_t version, uint32_t wait_ms, unsigned status);
void engine_reply_migration(lmo_engine_reply_fn *fn, void *arg, unsigned status, const struct lmo_migration *m,
                            const struct entry *entry);
void engine_reply_object(lmo_engine_reply_fn *fn, void *arg, unsigned status, json_t *body, const char *location,
                         const char *etag);
void engine_fail_waiters(struct entry *entry, int code, const char *why);
/* Takes template->more, also after a failure. */
int engine_post(struct lmo_engine *e, const struct request *template) LMO_MUST_CHECK;
struct request engine_request(void (*run)(struct request *), lmo_engine_reply_fn *fn, void *arg, const char *name);
void engine_wait_committed(struct request *r, struct entry *entry);
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
void engine_vm_list(struct request *r);
void engine_vm_get(struct lmo_engine *e, const char *vm, lmo_engine_reply_fn *fn, void *arg);
int engine_find_vm(struct lmo_engine *e, const char *vm, engine_found_fn *fn, void *arg, struct lmo_err *err) LMO_MUST_CHECK;
/* The same of one host only. */
int engine_find_vm_at(struct lmo_engine *e, const char *vm, const char *host, engine_found_fn *fn, void *arg,
                      struct lmo_err *err) LMO_MUST_CHECK;

#endif
