/* sqlite_internal.h - shared by the files of this directory only. */
#ifndef LMO_STORE_SQLITE_INTERNAL_H
#define LMO_STORE_SQLITE_INTERNAL_H

#include "base/buf.h"
#include "engine/ports.h"
#include "sql/sql.h"

struct sqlite_store {
    struct lmo_store base; /* first: a struct lmo_store * of ours is a struct sqlite_store * */
    struct lmo_sql *db;
    struct tidier *tidier; /* NULL: SQLite tidies up by itself, within commits */
    struct lmo_buf text; /* of the record that is being stored */
    char db_path[LMO_PATH_MAX];
    int lock_fd;
    uint64_t term;
    unsigned audit_count, audit_size; /* lines that wait for the next commit */
    struct lmo_audit_line *audit;
    struct lmo_kept_answer with; /* goes with the next write; key empty: none */
    char *with_body;
    struct handed_out {          /* epochs that the next commit writes down */
        char vm_uuid[LMO_UUID_MAX];
        uint64_t epoch;
    } *epochs;
    unsigned epoch_count, epoch_room;
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
int lmo_sqlite_token_put(struct lmo_store *s, const struct lmo_token_row *t, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_token_revoke(struct lmo_store *s, const char *id, int64_t at_ms, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_token_list(struct lmo_store *s, int64_t now_ms, int (*cb)(void *arg, const struct lmo_token_row *t), void *arg,
                          struct lmo_err *err) LMO_MUST_CHECK;

/* sqlite_term.c */
int lmo_sqlite_take_term(struct sqlite_store *st, struct lmo_err *err) LMO_MUST_CHECK;
/* CONFLICT if it is not ours any more. Inside a transaction nobody can raise it until that ends. */
int lmo_sqlite_check_term(struct lmo_store *s, struct lmo_err *err) LMO_MUST_CHECK;
uint64_t lmo_sqlite_term(const struct lmo_store *s);

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
