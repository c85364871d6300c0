/* engine.h - drives every open migration: events in, decisions by the core, one durable commit, effects after it.
 *
 * Threads: the engine lives on one loop thread. Everything below marked "any thread" posts to that loop; replies come
 * back on it. Everything else is called on the loop thread.
 *
 * Invariants:
 *  E1  No effect of a step is carried out before the step's record is committed.
 *  E2  A worker's event is acknowledged only after everything that followed from it is committed.
 *  E3  A request is answered with success only after what it changed is committed.
 *  E4  When the store cannot commit, nothing is sent and nothing is lost: the batch is tried again, loudly.
 *  E5  When the store says that another coordinator has written, or has raised the term, this one stops at once (it
 *      aborts). It looks with every commit, once a second, and whenever a worker refuses its term. */
#ifndef LMO_ENGINE_ENGINE_H
#define LMO_ENGINE_ENGINE_H

#include "base/err.h"
#include "base/loop.h"
#include "core/admission.h"
#include "core/migration.h"
#include "engine/page.h"
#include "engine/feed.h"
#include "engine/outbound.h"
#include "engine/ports.h"
#include "pki/permit.h"

#include <jansson.h>

struct lmo_engine;

/* How webhooks are delivered (docs/events.md). 0: the default in parentheses */
struct lmo_webhooks_config {
    uint32_t retry_min_ms;     /* (1,000) after the first failure; doubled with each, with jitter, up to: */
    uint32_t retry_max_ms;     /* (3,600,000) */
    uint32_t attempts;         /* (12) of one event, then it is a dead letter */
    uint32_t timeout_ms;       /* (20,000) of one attempt */
    uint32_t disable_after_ms; /* (86,400,000) without one success, and at least: */
    uint32_t disable_failures; /* (20) failures in a row: disabled */
};

struct lmo_otlp_config {
    char endpoint[LMO_URL_MAX]; /* "http://127.0.0.1:4318/v1/traces"; empty: no traces are exported */
    char service[LMO_NAME_MAX]; /* service.name; empty: "lmod" */
};

struct lmo_engine_config {
    struct lmo_loop *loop;                   /* borrowed */
    struct lmo_store *store;                 /* borrowed */
    const struct lmo_permit_key *permit_key; /* borrowed */
    const struct lmo_limits *limits;         /* copied; NULL: lmo_limits_default */
    struct lmo_feed_config feed;
    struct lmo_outbound *outbound;           /* borrowed; NULL: nobody is called */
    struct lmo_webhooks_config webhooks;
    struct lmo_otlp_config otlp;
    const struct lmo_hooks *hooks;           /* borrowed; NULL: there are none */
};

int lmo_engine_new(const struct lmo_engine_config *cfg, struct lmo_engine **ret, struct lmo_err *err) LMO_MUST_CHECK;
struct lmo_engine *lmo_engine_free(struct lmo_engine *e);
/* Callbacks for lmo_workers_*_open; valid as long as the engine. */
const struct lmo_workers_callbacks *lmo_engine_callbacks(struct lmo_engine *e);
/* Loads hosts and open records and begins to drive them. `workers` is borrowed. */
int lmo_engine_start(struct lmo_engine *e, struct lmo_workers *workers, struct lmo_err *err) LMO_MUST_CHECK;

/* For whoever watches over the program. On the loop thread. */
struct lmo_engine_status {
    unsigned open, attention;   /* migrations */
    unsigned hosts, hosts_up;
    bool observing;             /* the store was restored, and not activated yet */
    int store_code;             /* LMO_E_*: why the store cannot commit; 0: it can */
    char store_why[LMO_TEXT_MAX];
};
void lmo_engine_status(const struct lmo_engine *e, struct lmo_engine_status *ret);
/* Has the store really committed since the last call? If nothing had to be written, something is, to find out. 0, or
 * the store's error. */
int lmo_engine_beat(struct lmo_engine *e, struct lmo_err *err) LMO_MUST_CHECK;
/* Other limits from now on, but for the link (`limits->link` is ignored): what runs goes on, what waits is looked at anew,
 * shares are divided anew. Deadlines in the queue that were given stay. On the loop thread. */
void lmo_engine_set_limits(struct lmo_engine *e, const struct lmo_limits *limits);

/* From here on nothing that happens is stepped any more: what calls under way answer while everything is being taken down
 * is for the next coordinator to ask again. */
void lmo_engine_stop(struct lmo_engine *e);

/* ---- requests: any thread ----
 * Exactly one reply for each call that returned 0; LIMIT when the queue is full, and then no reply.
 * `body` (taken by the callee; may be NULL) goes with success; code and text with failure. `field` names the member of the
 * request at fault, or is empty. Strings given to the calls are copied. */
struct lmo_engine_reply {
    int code;             /* 0 or LMO_E_* */
    unsigned http_status; /* on success */
    json_t *body;
    const char *json; /* the same as text, if that is there already; borrowed for the call. Of long lists there is only this */
    size_t json_len;
    const char *text, *field;
    const char *location; /* of a created object, or "" */
    const char *etag;     /* of the object shown, with its quotes; NULL: none */
};
typedef void lmo_engine_reply_fn(void *arg, const struct lmo_engine_reply *reply);

/* ---- how something is asked for ----
 * Goes with every request that this thread posts between lmo_engine_ask(ask) and lmo_engine_ask(NULL): the API sets it around
 * a route's handler, so that no call has to hand it through. What it promises holds for every request of the engine:
 *  - A key makes the answer of a change be kept, in the change's own transaction where there is one. The same request again
 *    gets that answer and has no effect; another one under the key is REFUSED; while the first is under way, CONFLICT. Only
 *    success is kept: what was refused has changed nothing, and is judged anew.
 *  - dry_run: nothing is changed. The answer is 200 with {"dry_run": true, "status", "would", "result"}.
 *  - if_match: PRECONDITION unless the object is still in the state that this ETag names. */
#define LMO_KEY_MAX  65
#define LMO_ETAG_MAX 64
struct lmo_ask {
    char principal[LMO_NAME_MAX + 32]; /* whose key it is */
    char key[LMO_KEY_MAX];             /* Idempotency-Key; empty: none */
    char hash[65];                     /* what was asked for, hexadecimal SHA-256; with a key */
    char if_match[256];                /* as it came; empty: none */
    bool dry_run;
};
/* Borrowed until it is replaced. */
void lmo_engine_ask(const struct lmo_ask *ask);

struct lmo_migrate_request {
    char vm[LMO_NAME_MAX];           /* UUID or name */
    char source[LMO_NAME_MAX];       /* only this host is asked for the guest; empty: every one is */
    char destination[LMO_NAME_MAX];
    struct lmo_policy policy;        /* zeros: defaults */
    char principal[LMO_NAME_MAX + 32];
    char idempotency_key[65], idempotency_hash[65]; /* for callers within the coordinator: as in struct lmo_ask */
    struct lmo_trace trace;          /* the requester's; empty: a new one */
};

int lmo_engine_host_add(struct lmo_engine *e, const char *name, const char *url, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* By name. Empty state: any; else unknown, up or down. */
int lmo_engine_host_list(struct lmo_engine *e, const char *state, const struct lmo_page *page, lmo_engine_reply_fn *fn,
                         void *arg) LMO_MUST_CHECK;
int lmo_engine_host_get(struct lmo_engine *e, const char *name, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* Sets what `set->given` says, takes back to the coordinator's limits what `reset` says. */
int lmo_engine_host_limits(struct lmo_engine *e, const char *name, const struct lmo_host_limits *set, uint32_t reset,
                           lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_host_remove(struct lmo_engine *e, const char *name, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* By UUID, then host. Empty host or state (as in the workers' words): any. */
int lmo_engine_vm_list(struct lmo_engine *e, const char *host, const char *state, const struct lmo_page *page,
                       lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_vm_get(struct lmo_engine *e, const char *vm, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_migrate(struct lmo_engine *e, const struct lmo_migrate_request *req, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* wait_ms > 0: answers when the record's version is above wait_version, or after wait_ms with what there is. */
int lmo_engine_migration_get(struct lmo_engine *e, const char *id, uint64_t wait_version, uint32_t wait_ms,
                             lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* The same at once, from what was shown last, if that is what would be shown now. Any thread. *ret_text: owned by the caller.
 * False: it has to be asked for. */
bool lmo_engine_migration_peek(struct lmo_engine *e, const char *id, char **ret_text, size_t *ret_len, char ret_etag[LMO_ETAG_MAX]);
/* Newest first; `full`: whole records, not summaries. */
int lmo_engine_migration_list(struct lmo_engine *e, const struct lmo_migration_filter *filter, bool full,
                              const struct lmo_page *page, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* Oldest first. */
int lmo_engine_migration_journal(struct lmo_engine *e, const char *id, const struct lmo_page *page,
                                 lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* Looks at both hosts, then decides; refused when what was seen speaks against it. `reason` is what the person says. */
int lmo_engine_migration_resolve(struct lmo_engine *e, const char *id, enum lmo_resolution decision, const char *reason,
                                 const char *principal, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_migration_cancel(struct lmo_engine *e, const char *id, const char *principal, lmo_engine_reply_fn *fn,
                                void *arg) LMO_MUST_CHECK;

/* The guest's owner says that it may move now. */
int lmo_engine_migration_acknowledge(struct lmo_engine *e, const char *id, const char *principal, lmo_engine_reply_fn *fn,
                                     void *arg) LMO_MUST_CHECK;

/* ---- webhooks and hooks: any thread, as above ---- */
enum {
    LMO_WEBHOOK_URL = 1, LMO_WEBHOOK_TYPES = 2, LMO_WEBHOOK_VM = 4, LMO_WEBHOOK_HOST = 8, LMO_WEBHOOK_DESCRIPTION = 16,
    LMO_WEBHOOK_ENABLED = 32,
};
struct lmo_webhook_request {
    uint32_t given; /* of a change: what of it is meant */
    char url[LMO_URL_MAX], types[LMO_WEBHOOK_TYPES_MAX], vm[LMO_NAME_MAX], host[LMO_NAME_MAX], description[LMO_TEXT_MAX];
    bool enabled;
    char principal[LMO_NAME_MAX + 32];
};
int lmo_engine_webhook_create(struct lmo_engine *e, const struct lmo_webhook_request *q, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* By id: oldest first. */
int lmo_engine_webhook_list(struct lmo_engine *e, const struct lmo_page *page, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_webhook_get(struct lmo_engine *e, const char *id, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_webhook_change(struct lmo_engine *e, const char *id, const struct lmo_webhook_request *q, lmo_engine_reply_fn *fn,
                              void *arg) LMO_MUST_CHECK;
/* A new secret; the old one signs too for a day. */
int lmo_engine_webhook_rotate(struct lmo_engine *e, const char *id, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_webhook_remove(struct lmo_engine *e, const char *id, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* By number. */
int lmo_engine_dead_letters(struct lmo_engine *e, const char *webhook, const struct lmo_page *page, lmo_engine_reply_fn *fn,
                            void *arg) LMO_MUST_CHECK;
/* seq 0: all of them. */
int lmo_engine_redeliver(struct lmo_engine *e, const char *webhook, uint64_t seq, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* `vm`: a UUID. */
int lmo_engine_hook_put(struct lmo_engine *e, const char *vm, const char *url, uint32_t deadline_ms, enum lmo_no_answer on_no_answer,
                        const char *principal, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_hook_get(struct lmo_engine *e, const char *vm, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_hook_remove(struct lmo_engine *e, const char *vm, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;

/* ---- what it measures ---- */
struct lmo_metrics;
/* The registry, for others who measure too; the engine's. */
struct lmo_metrics *lmo_engine_metrics(struct lmo_engine *e);
/* The text in Prometheus' format, as one JSON string. Any thread. */
int lmo_engine_metrics_text(struct lmo_engine *e, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* May requests be sent here? 200, or 503 with what is wrong. Any thread. */
int lmo_engine_ready(struct lmo_engine *e, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;

/* Reads the header `traceparent`; false for what is none (then it counts as absent, as the recommendation says). */
bool lmo_traceparent_parse(const char *text, struct lmo_trace *ret);

/* Compares every record with what is seen on all hosts; `repair`: mends what is provably safe, one thing after the other. */
int lmo_engine_doctor(struct lmo_engine *e, bool repair, const char *principal, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* A store that was put back from a backup (restore.c). Looks at all hosts and says what would become of every open record; with
 * `activate` does that and acts from then on. `force`: although hosts could not be asked, or migrations that the store does
 * not know are under way. CONFLICT if the store is none of that kind and is to be activated. */
int lmo_engine_restore(struct lmo_engine *e, bool activate, bool force, const char *principal, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* One line of the audit trail; `at_ms` and `n` are filled in. Any thread; there is no reply. */
int lmo_engine_audit(struct lmo_engine *e, const struct lmo_audit_line *line) LMO_MUST_CHECK;
/* Newest first. `before` 0: the page's position. */
int lmo_engine_audit_list(struct lmo_engine *e, const struct lmo_audit_filter *filter, uint64_t before,
                          const struct lmo_page *page, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;

/* Bearer tokens. `row`: id, name, role, hash, created_by, and in expires_ms how long it shall live; the rest is filled in. */
int lmo_engine_token_add(struct lmo_engine *e, const struct lmo_token_row *row, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_token_get(struct lmo_engine *e, const char *id, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* By id: oldest first. */
int lmo_engine_token_list(struct lmo_engine *e, const struct lmo_page *page, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
int lmo_engine_token_revoke(struct lmo_engine *e, const char *id, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
/* Any thread, at once: the token of that id, if it is in force now. False: there is none. */
bool lmo_engine_token_find(struct lmo_engine *e, const char *id, struct lmo_token_row *ret);

#endif
