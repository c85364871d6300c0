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
#include "engine/ports.h"
#include "pki/permit.h"

#include <jansson.h>

struct lmo_engine;

struct lmo_engine_config {
    struct lmo_loop *loop;                   /* borrowed */
    struct lmo_store *store;                 /* borrowed */
    const struct lmo_permit_key *permit_key; /* borrowed */
    const struct lmo_limits *limits;         /* copied; NULL: lmo_limits_default */
};

int lmo_engine_new(const struct lmo_engine_config *cfg, struct lmo_engine **ret, struct lmo_err *err) LMO_MUST_CHECK;
struct lmo_engine *lmo_engine_free(struct lmo_engine *e);
/* Callbacks for lmo_workers_*_open; valid as long as the engine. */
const struct lmo_workers_callbacks *lmo_engine_callbacks(struct lmo_engine *e);
/* Loads hosts and open records and begins to drive them. `workers` is borrowed. */
int lmo_engine_start(struct lmo_engine *e, struct lmo_workers *workers, struct lmo_err *err) LMO_MUST_CHECK;

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

/* Compares every record with what is seen on all hosts; `repair`: mends what is provably safe, one thing after the other. */
int lmo_engine_doctor(struct lmo_engine *e, bool repair, const char *principal, lmo_engine_reply_fn *fn, void *arg) LMO_MUST_CHECK;
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
