/* sqlite_internal.h - shared by the files of this directory only. */
#ifndef LMO_STORE_SQLITE_INTERNAL_H
#define LMO_STORE_SQLITE_INTERNAL_H

#include "base/buf.h"
#include "engine/ports.h"
#include "sql/sql.h"

/* sqlite_event.c */
struct sqlite_events {
    struct lmo_event_row *pending; /* for the next transaction that writes */
    unsigned pending_count, pending_room;
    uint64_t written;              /* number of the last one; of a transaction that failed too: then it only is a hint */
    uint64_t trim_at, trim_next;   /* from which number on the bounds are looked at; the next one, once this is on disk */
    uint64_t keep_count, keep_age_ms;
    uint64_t holes;                /* numbers between the first and the last one that no row has (a restore's leap) */
};

struct sqlite_store {
    struct lmo_store base; /* first: a struct lmo_store * of ours is a struct sqlite_store * */
    struct lmo_sql *db;
    struct tidier *tidier; /* NULL: SQLite tidies up by itself, within commits */
    struct lmo_buf text; /* of the record that is being stored */
    char db_path[LMO_PATH_MAX];
    int lock_fd;
    uint64_t term;
    bool restored;               /* a backup that was not activated yet */
    int64_t backup_ms;           /* when that was made */
    unsigned beats;
    unsigned audit_count, audit_size; /* lines that wait for the next commit */
    struct lmo_audit_line *audit;
    struct lmo_kept_answer with; /* goes with the next write; key empty: none */
    char *with_body;
    const struct lmo_kept_answer *answers; /* that go with the next commit; owned */
    struct handed_out {          /* epochs that the next commit writes down */
        char vm_uuid[LMO_UUID_MAX];
        uint64_t epoch;
    } *epochs;
    unsigned epoch_count, epoch_room;
    struct sqlite_events events;
    struct pending_object *objects; /* that the next commit writes down, by their names */
};

static inline struct sqlite_store *sqlite_of(struct lmo_store *s)
{
    return (struct sqlite_store *)(void *)s;
}

/* sqlite_write.c */
int lmo_sqlite_commit(struct lmo_store *s, const struct lmo_commit_item *items, unsigned count,
                      const struct lmo_commit_cursor *cursors, unsigned cursor_count,
                      struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_next_epoch(struct lmo_store *s, const char *vm_uuid, uint64_t at_least, uint64_t *ret,
                          struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_host_put(struct lmo_store *s, const struct lmo_host_row *h, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_host_limits(struct lmo_store *s, const char *name, const struct lmo_host_limits *l,
                           struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_host_delete(struct lmo_store *s, const char *name, struct lmo_err *err) LMO_MUST_CHECK;

/* One statement, as a transaction that looks at the term first and holds what goes with it. */
int lmo_sqlite_run_alone(struct sqlite_store *st, struct lmo_sql_stmt *stmt, uint64_t *ret_changes,
                         struct lmo_err *err) LMO_MUST_CHECK;

/* sqlite_answers.c */
int lmo_sqlite_answer(struct lmo_store *s, const char *principal, const char *key, struct lmo_kept_answer *ret,
                      char **ret_body, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_answer_with(struct lmo_store *s, const struct lmo_kept_answer *a) LMO_MUST_CHECK;
/* In the caller's transaction: one and all that follow it; and the one that goes with the next write. */
int lmo_sqlite_answers_write(struct sqlite_store *st, const struct lmo_kept_answer *list, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_with_write(struct sqlite_store *st, struct lmo_err *err) LMO_MUST_CHECK;
/* The write has ended, well or not. */
void lmo_sqlite_with_forget(struct sqlite_store *st);
int lmo_sqlite_answer_put(struct sqlite_store *st, const struct lmo_kept_answer *a) LMO_MUST_CHECK;
void lmo_sqlite_answers_written(struct sqlite_store *st);
int lmo_sqlite_token_put(struct lmo_store *s, const struct lmo_token_row *t, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_token_revoke(struct lmo_store *s, const char *id, int64_t at_ms, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_token_list(struct lmo_store *s, int64_t now_ms, int (*cb)(void *arg, const struct lmo_token_row *t), void *arg,
                          struct lmo_err *err) LMO_MUST_CHECK;
/* One transaction of its own: looks at the term, runs `fn`, writes the events that wait. */
int lmo_sqlite_alone(struct sqlite_store *st, int (*fn)(struct sqlite_store *st, void *arg, struct lmo_err *err), void *arg,
                     struct lmo_err *err) LMO_MUST_CHECK;

/* sqlite_term.c */
int lmo_sqlite_take_term(struct sqlite_store *st, struct lmo_err *err) LMO_MUST_CHECK;
/* CONFLICT if it is not ours any more. Inside a transaction nobody can raise it until that ends. */
int lmo_sqlite_check_term(struct lmo_store *s, struct lmo_err *err) LMO_MUST_CHECK;
uint64_t lmo_sqlite_term(const struct lmo_store *s);
int lmo_sqlite_beat(struct lmo_store *s, struct lmo_err *err) LMO_MUST_CHECK;

/* sqlite_restore.c */
bool lmo_sqlite_restored(const struct lmo_store *s, int64_t *ret_made_ms);
int lmo_sqlite_raise_term(struct lmo_store *s, uint64_t at_least, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_raise_epochs(struct lmo_store *s, uint64_t above, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_activate(struct lmo_store *s, struct lmo_err *err) LMO_MUST_CHECK;

/* sqlite_audit.c */
int lmo_sqlite_audit(struct lmo_store *s, const struct lmo_audit_line *l) LMO_MUST_CHECK;
/* In the caller's transaction; afterwards, when that is on disk. */
int lmo_sqlite_audit_write(struct sqlite_store *st, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_sqlite_audit_written(struct sqlite_store *st);
int lmo_sqlite_audit_list(struct lmo_store *s, const struct lmo_audit_filter *f, uint64_t before, unsigned limit,
                          int (*cb)(void *arg, const struct lmo_audit_line *l), void *arg, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_quarantine(struct lmo_store *s, const struct lmo_quarantine_row *row, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_quarantine_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_quarantine_row *row), void *arg,
                               struct lmo_err *err) LMO_MUST_CHECK;

/* sqlite_event.c: the first two are for a transaction that is under way; _written: it is on disk */
int lmo_sqlite_event_add(struct lmo_store *s, const struct lmo_event_row *row) LMO_MUST_CHECK;
void lmo_sqlite_event_withdraw(struct lmo_store *s);
int lmo_sqlite_event_write(struct sqlite_store *st, const struct lmo_event_row *row, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_event_range(struct lmo_store *s, struct lmo_event_range *ret, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_events_write(struct sqlite_store *st, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_events_trim(struct sqlite_store *st, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_sqlite_events_written(struct sqlite_store *st);
void lmo_sqlite_event_keep(struct lmo_store *s, uint64_t count, uint64_t age_ms);
/* Once, when the store is opened: leaps if it was restored. */
int lmo_sqlite_events_open(struct sqlite_store *st, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_event_list(struct lmo_store *s, uint64_t after, unsigned limit, int (*cb)(void *arg, const struct lmo_event_row *row), void *arg, struct lmo_err *err) LMO_MUST_CHECK;
/* sqlite_webhook.c */
int lmo_sqlite_webhook_put(struct lmo_store *s, const struct lmo_webhook_row *row, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_webhook_progress(struct lmo_store *s, const struct lmo_webhook_row *row, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_webhook_delete(struct lmo_store *s, const char *id, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_webhook_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_webhook_row *row), void *arg, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_dead_put(struct lmo_store *s, const struct lmo_dead_letter *letter, const struct lmo_webhook_row *row, unsigned *ret_dropped, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_dead_delete(struct lmo_store *s, const char *webhook, uint64_t seq, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_dead_want(struct lmo_store *s, const char *webhook, uint64_t seq, bool wanted, uint64_t *ret_count, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_dead_list(struct lmo_store *s, const char *webhook, bool only_wanted, uint64_t after, unsigned limit, int (*cb)(void *arg, const struct lmo_dead_letter *letter), void *arg, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_vm_hook_put(struct lmo_store *s, const struct lmo_vm_hook_row *row, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_vm_hook_delete(struct lmo_store *s, const char *vm, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_vm_hook_get(struct lmo_store *s, const char *vm, struct lmo_vm_hook_row *ret, struct lmo_err *err) LMO_MUST_CHECK;
/* sqlite_objects.c */
int lmo_sqlite_put(struct lmo_store *s, const struct lmo_object *o) LMO_MUST_CHECK;
int lmo_sqlite_objects(struct lmo_store *s, const struct lmo_object_query *q,
                       int (*cb)(void *arg, const struct lmo_object *o), void *arg, struct lmo_err *err) LMO_MUST_CHECK;
/* In the caller's transaction; afterwards, when that is on disk. */
int lmo_sqlite_objects_write(struct sqlite_store *st, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_sqlite_objects_written(struct sqlite_store *st);

/* sqlite_tidy.c: ends the thread. NULL is fine. */
void lmo_sqlite_tidy_stop(struct tidier *t);

/* sqlite_read.c */
int lmo_sqlite_load_open(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_migration *m, const char *xml),
                         void *arg, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_get(struct lmo_store *s, const char *id, struct lmo_migration *ret, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_list(struct lmo_store *s, const struct lmo_migration_filter *f, unsigned limit,
                    int (*cb)(void *arg, const char *id, const char *summary), void *arg, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_journal(struct lmo_store *s, const char *id, uint64_t after, unsigned limit,
                       int (*cb)(void *arg, uint64_t n, const struct lmo_journal_line *l), void *arg,
                       struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_host_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_host_row *h), void *arg,
                         struct lmo_err *err) LMO_MUST_CHECK;

#endif
