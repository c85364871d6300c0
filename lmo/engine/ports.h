/* ports.h - what the engine needs of the world: a store and a way to reach workers. Function tables, so that the
 * simulator and a second kind of store can stand behind them.
 *
 * Ordering rule, kept by the engine and relied on by everything: commit() returns before any effect of what it
 * stored is carried out. */
#ifndef LMO_ENGINE_PORTS_H
#define LMO_ENGINE_PORTS_H

#include "base/err.h"
#include "core/admission.h"
#include "core/migration.h"
#include "engine/events_port.h"
#include "proto/observe.h"
#include "proto/op.h"

#include <stdatomic.h>

/* ------------------------------------------------------------------ store */

struct lmo_host_row {
    char name[LMO_NAME_MAX];
    char url[LMO_URL_MAX];
    uint64_t cursor;             /* events of this worker up to here are committed */
    struct lmo_host_limits limits;
};

struct lmo_journal_line {
    char migration[LMO_ID_MAX];
    int64_t at_ms;
    char phase[32];
    char what[LMO_TEXT_MAX], why[LMO_TEXT_MAX];
};

/* The answer to a request that came with an idempotency key. */
struct lmo_kept_answer {
    char principal[LMO_NAME_MAX + 32], key[65], hash[65];
    int64_t created_ms;
    unsigned status;
    char location[LMO_URL_MAX], etag[64];
    const char *body;                   /* text, never NULL; empty with a location: the object there */
    const struct lmo_kept_answer *next; /* of the same commit item */
};
#define LMO_ANSWER_KEPT_MS (INT64_C(7) * 24 * 3600 * 1000) /* then it may be forgotten */

/* One migration's part of a transaction. */
struct lmo_commit_item {
    const struct lmo_migration *record; /* whole; replaces what is there if its version is exactly one batch ahead */
    uint64_t expected_version;          /* 0: insert; CONFLICT if the stored version differs */
    const struct lmo_journal_line *journal;
    unsigned journal_count;
    const char *xml;                    /* NULL: unchanged; the guest's XML as `describe` gave it */
    const struct lmo_kept_answer *answers; /* to what changed it; or NULL */
    const struct lmo_event_row *events; /* told of what changed, in order; see events_port.h */
    unsigned event_count;
};
/* The number under which a store keeps line i of a commit: they rise, with gaps. (A store that is older has 1, 2, 3 ...,
 * which is below what its records' versions give.) */
#define LMO_JOURNAL_NUMBER(expected_version, i) (((expected_version) << 16) + (i) + 1)

struct lmo_commit_cursor {
    const char *host;
    uint64_t cursor;
};

/* One line of the audit trail. */
struct lmo_audit_line {
    uint64_t n;                  /* its number; filled in by the store */
    int64_t at_ms;
    char request[LMO_NAME_MAX];  /* id that the client gave, or that was made for it */
    char principal[LMO_NAME_MAX + 32]; /* "operator:alice", by certificate */
    char remote[LMO_ADDRESS_MAX];
    char action[LMO_TEXT_MAX];   /* "POST /v1/migrations" */
    char migration[LMO_ID_MAX], host[LMO_NAME_MAX]; /* what it was about; or empty */
    char outcome[32];            /* "asked", "ok", or the error's word */
    char detail[LMO_TEXT_MAX];
};
/* Empty and 0: any. */
struct lmo_audit_filter {
    const char *migration, *host, *principal;
    int64_t since_ms, until_ms; /* from the first, below the second */
};
#define LMO_AUDIT_PENDING_MAX 4096 /* lines that wait for a commit */

/* Objects beside migrations: each is one JSON text under a key, replaced whole. */
enum lmo_object_kind {
    LMO_OBJECT_HOST_MARK,   /* key: host; cordon and labels. On the host's row: gone with it */
    LMO_OBJECT_DRAIN,       /* key: id */
    LMO_OBJECT_DRAIN_HOST,  /* key: id of the drain; n; about: host */
    LMO_OBJECT_DRAIN_GUEST, /* key: id of the drain; n; about: guest's UUID */
    LMO_OBJECT_VM_POLICY,   /* key: guest's UUID */
    LMO_OBJECT_VM_LEASE,
    LMO_OBJECT_ANSWER,      /* `answer` alone: what a request with a key was answered; put, never looked for */
    LMO_OBJECT_COUNT
};
struct lmo_object {
    enum lmo_object_kind kind;
    const char *key;
    uint32_t n;
    const char *about;           /* may be NULL */
    const char *state;           /* DRAIN */
    bool terminal;               /* DRAIN */
    int64_t updated_ms;          /* DRAIN */
    const char *text;            /* NULL: is not there (any more) */
    const struct lmo_kept_answer *answer; /* ANSWER; copied */
};
/* Which of them: zeros are no condition. */
struct lmo_object_query {
    enum lmo_object_kind kind;
    const char *key;             /* exactly this one */
    const char *state, *before;  /* DRAIN: newest first, below the id `before` */
    bool open;                   /* DRAIN: not terminal */
    unsigned limit;
};

struct lmo_quarantine_row {
    char migration[LMO_ID_MAX], vm_uuid[LMO_UUID_MAX];
    int64_t at_ms;
    char why[LMO_TEXT_MAX];
};

/* Which migrations: empty and 0 mean any. */
struct lmo_migration_filter {
    char phase[32], vm[LMO_NAME_MAX], host[LMO_NAME_MAX]; /* vm: UUID or name; host: source or destination */
    enum { LMO_ANY_STATE = 0, LMO_OPEN_ONLY, LMO_ENDED_ONLY } state;
    int64_t since_ms, until_ms; /* accepted from the first on, before the second */
    char before[LMO_ID_MAX];    /* ids below this one */
};

struct lmo_token_row {
    char id[LMO_ID_MAX], name[LMO_NAME_MAX], role[32], hash[65]; /* hash: hexadecimal SHA-256 of the secret */
    int64_t created_ms, expires_ms, revoked_ms;                  /* revoked 0: it is not */
    char created_by[LMO_NAME_MAX + 32];
};
#define LMO_TOKENS_MAX 4096 /* in force at once */

struct lmo_store;
struct lmo_store_ops {
    void (*close)(struct lmo_store *s);
    /* ONE durable transaction. On any failure nothing of it is stored. NO_SPACE and IO: the engine keeps the events,
     * stops sending effects, says so, and tries again. */
    int (*commit)(struct lmo_store *s, const struct lmo_commit_item *items, unsigned count,
                  const struct lmo_commit_cursor *cursors, unsigned cursor_count, struct lmo_err *err) LMO_MUST_CHECK;
    /* The next epoch for a guest: greater than every one handed out before. Durable with the next commit(), whatever that
     * holds, and so before anything that carries it can be sent. One that no commit followed may be handed out again. */
    int (*next_epoch)(struct lmo_store *s, const char *vm_uuid, uint64_t at_least, uint64_t *ret, struct lmo_err *err) LMO_MUST_CHECK;
    /* Every record that is not terminal, at start. `xml` is borrowed for the call and may be NULL; it is given for phases up
     * to destination_create. */
    int (*load_open)(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_migration *m, const char *xml),
                     void *arg, struct lmo_err *err) LMO_MUST_CHECK;
    int (*get)(struct lmo_store *s, const char *id, struct lmo_migration *ret, struct lmo_err *err) LMO_MUST_CHECK;
    /* Newest first. `summary`: how lists show one that has ended; NULL: it is open, or ended before summaries were kept. */
    int (*list)(struct lmo_store *s, const struct lmo_migration_filter *f, unsigned limit,
                int (*cb)(void *arg, const char *id, const char *summary), void *arg, struct lmo_err *err) LMO_MUST_CHECK;
    /* From line `after` + 1 on, at most `limit` (0: all) lines; the first one has number 1. */
    int (*journal)(struct lmo_store *s, const char *id, uint64_t after, unsigned limit,
                   int (*cb)(void *arg, uint64_t n, const struct lmo_journal_line *l), void *arg,
                   struct lmo_err *err) LMO_MUST_CHECK;
    int (*host_put)(struct lmo_store *s, const struct lmo_host_row *h, struct lmo_err *err) LMO_MUST_CHECK; /* CONFLICT if it is there */
    /* Replaces what was set for this host. NOT_FOUND if it is not registered. */
    int (*host_limits)(struct lmo_store *s, const char *name, const struct lmo_host_limits *limits, struct lmo_err *err) LMO_MUST_CHECK;
    int (*host_delete)(struct lmo_store *s, const char *name, struct lmo_err *err) LMO_MUST_CHECK;
    int (*host_list)(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_host_row *h), void *arg,
                     struct lmo_err *err) LMO_MUST_CHECK;
    /* The rest may be missing (NULL) in a store that one coordinator alone uses, as tests' do. */
    /* NOT_FOUND if the key is new. *ret_body (owned by the caller) is what ret->body points to. */
    int (*answer)(struct lmo_store *s, const char *principal, const char *key, struct lmo_kept_answer *ret, char **ret_body,
                  struct lmo_err *err) LMO_MUST_CHECK;
    /* The answer goes into the transaction of the next call that writes, whatever that is, and is forgotten if it fails; a
     * commit() of nothing stores it alone. Copied. */
    int (*answer_with)(struct lmo_store *s, const struct lmo_kept_answer *a) LMO_MUST_CHECK;
    int (*token_put)(struct lmo_store *s, const struct lmo_token_row *t, struct lmo_err *err) LMO_MUST_CHECK; /* CONFLICT: the name is taken */
    int (*token_revoke)(struct lmo_store *s, const char *id, int64_t at_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* Those that are not revoked and did not expire before `now_ms`. */
    int (*token_list)(struct lmo_store *s, int64_t now_ms, int (*cb)(void *arg, const struct lmo_token_row *t), void *arg,
                      struct lmo_err *err) LMO_MUST_CHECK;
    /* This coordinator's term: above that of every one before it; durable since the store was opened. */
    uint64_t (*term)(const struct lmo_store *s);
    /* CONFLICT: another coordinator has taken over since. Every write says so too. */
    int (*check_term)(struct lmo_store *s, struct lmo_err *err) LMO_MUST_CHECK;
    /* Kept, and stored with the next commit, in its transaction. LIMIT: too many wait already. */
    int (*audit)(struct lmo_store *s, const struct lmo_audit_line *l) LMO_MUST_CHECK;
    /* Newest first; below line `before` (0: from the newest). */
    int (*audit_list)(struct lmo_store *s, const struct lmo_audit_filter *f, uint64_t before, unsigned limit,
                      int (*cb)(void *arg, const struct lmo_audit_line *l), void *arg, struct lmo_err *err) LMO_MUST_CHECK;
    /* Kept, and stored with the next commit, in its transaction; of several puts of one object the last one counts. */
    int (*put)(struct lmo_store *s, const struct lmo_object *o) LMO_MUST_CHECK;
    /* Stored ones, in order of key and n (drains: newest first). Texts are borrowed for the call. */
    int (*objects)(struct lmo_store *s, const struct lmo_object_query *q, int (*cb)(void *arg, const struct lmo_object *o),
                   void *arg, struct lmo_err *err) LMO_MUST_CHECK;
    /* Sets an open migration aside, durably. load_open does so by itself with a record that cannot be read. */
    int (*quarantine)(struct lmo_store *s, const struct lmo_quarantine_row *row, struct lmo_err *err) LMO_MUST_CHECK;
    int (*quarantine_list)(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_quarantine_row *row), void *arg,
                           struct lmo_err *err) LMO_MUST_CHECK;
    /* True: the store is a backup that was put back and not activated since: it shows the past (engine/restore.c). */
    bool (*restored)(const struct lmo_store *s, int64_t *ret_made_ms);
    /* This coordinator's term becomes at least that; never lower. Durable. */
    int (*raise_term)(struct lmo_store *s, uint64_t at_least, struct lmo_err *err) LMO_MUST_CHECK;
    /* No epoch of any guest, known here or not, is handed out from now on that is not above it. Durable. */
    int (*raise_epochs)(struct lmo_store *s, uint64_t above, struct lmo_err *err) LMO_MUST_CHECK;
    /* It is the present again. Durable. */
    int (*activate)(struct lmo_store *s, struct lmo_err *err) LMO_MUST_CHECK;
    /* A durable transaction that changes nothing that anybody reads: whether the disk still takes one. */
    int (*beat)(struct lmo_store *s, struct lmo_err *err) LMO_MUST_CHECK;
};
struct lmo_store {
    const struct lmo_store_ops *ops;
    const struct lmo_event_store_ops *events; /* NULL: it keeps none */
};
/* store/sqlite.c: <state_dir>/lmod.db, locked against a second coordinator. */
int lmo_store_sqlite_open(const char *state_dir, struct lmo_store **ret, struct lmo_err *err) LMO_MUST_CHECK;
/* The same, also while another coordinator holds the lock (asleep, cut off, on another machine that shares the disk):
 * raises the term, after which that one can write nothing, and takes its lock's place. */
int lmo_store_sqlite_take_over(const char *state_dir, struct lmo_store **ret, struct lmo_err *err) LMO_MUST_CHECK;

/* Copies <state_dir>'s store to a file, whether or not a coordinator uses it (sql/backup.h), unless `stop` (may be
 * NULL) becomes true. Blocks, for as long as that takes; any thread. */
int lmo_store_sqlite_backup(const char *state_dir, const char *to, const atomic_bool *stop, struct lmo_err *err) LMO_MUST_CHECK;
/* Puts a backup in the place of <state_dir>'s store, which no coordinator may use (BUSY). The next one observes only. */
int lmo_store_sqlite_restore(const char *state_dir, const char *from, struct lmo_err *err) LMO_MUST_CHECK;

/* Moves the database's log by a thread of its own from now on, until the store is closed, so that no commit has to
 * (sqlite_tidy.c). For programs that serve; a store without it does the same work, now and then within a commit. */
int lmo_store_sqlite_tidy_apart(struct lmo_store *s, struct lmo_err *err) LMO_MUST_CHECK;

/* ------------------------------------------------------------------ hooks */

/* What is called when a drain has emptied a host: a URL, or a command that the coordinator's configuration names. */
struct lmo_hook {
    const char *url, *command; /* one of them is empty */
    const char *drain, *host;
};
/* code 0: it was called; `acknowledged`: and the host may be used again. */
typedef void lmo_hook_done_fn(void *arg, int code, bool acknowledged, const char *text);
struct lmo_hooks {
    void *arg;
    /* Is that the name of a command, is that a URL that may be called? INVALID says what would be. */
    int (*check)(void *arg, const struct lmo_hook *hook, struct lmo_err *err) LMO_MUST_CHECK;
    /* `done` on the engine's loop, once, within the hooks' deadline; never within the call itself. */
    int (*call)(void *arg, const struct lmo_hook *hook, lmo_hook_done_fn *done, void *done_arg, struct lmo_err *err) LMO_MUST_CHECK;
};

/* ------------------------------------------------------------------ workers */

/* Callbacks run on the engine's loop thread. */
struct lmo_workers_callbacks {
    void *arg;
    /* A batch from one worker's stream; durable events in order, then progress. `next` is the cursor to commit. */
    void (*events)(void *arg, const char *host, const struct lmo_worker_event *events, unsigned count, uint64_t next);
    /* The worker became reachable (facts) or unreachable (facts NULL, why says it). */
    void (*host_state)(void *arg, const char *host, const struct lmo_host_facts *facts, const char *why);
    /* A worker refused a call because it obeys a coordinator of a higher term. May be NULL. */
    void (*superseded)(void *arg, const char *host, const char *why);
};

/* code 0: reply is set (borrowed). UNAVAILABLE: certainly not executed. UNKNOWN/TIMEOUT: may have been. GONE,
 * STALE_EPOCH, ...: refused by the worker. */
typedef void lmo_op_done_fn(void *arg, int code, const char *text, const struct lmo_op_reply *reply);
/* code 0: body is set (borrowed JSON). */
typedef void lmo_observe_done_fn(void *arg, int code, const char *text, const json_t *body);

struct lmo_workers;
struct lmo_workers_ops {
    void (*close)(struct lmo_workers *w);
    int (*host_add)(struct lmo_workers *w, const char *name, const char *url, uint64_t cursor, struct lmo_err *err) LMO_MUST_CHECK;
    void (*host_remove)(struct lmo_workers *w, const char *name);
    /* Cursor that the next long poll acknowledges: everything up to it is committed. Progress to beyond it stops
     * until this is called, so an engine that cannot commit is not flooded. */
    void (*acknowledge)(struct lmo_workers *w, const char *host, uint64_t cursor);
    /* Sends, and asks again (GET) as long as the worker says "running" or a reply was lost, until timeout_ms. Exactly
     * one call of `done` for each op that was accepted (returned 0). */
    int (*op)(struct lmo_workers *w, const char *host, const struct lmo_op_request *req, uint32_t timeout_ms,
              lmo_op_done_fn *done, void *arg, struct lmo_err *err) LMO_MUST_CHECK;
    int (*observe)(struct lmo_workers *w, const char *host, const char *path, uint32_t timeout_ms,
                   lmo_observe_done_fn *done, void *arg, struct lmo_err *err) LMO_MUST_CHECK;
    /* The rest may be missing (NULL) where no store is ever restored, as in tests. */
    /* The term of every request from now on. */
    void (*set_term)(struct lmo_workers *w, uint64_t term);
    /* Off: no event stream of any host, now and of hosts that are added; a worker hears only what is asked of it. */
    void (*listen)(struct lmo_workers *w, bool on);
};
struct lmo_workers {
    const struct lmo_workers_ops *ops;
};

#endif
