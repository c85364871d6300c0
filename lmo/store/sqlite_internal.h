/* sqlite_internal.h - shared by the files of this directory only. */
#ifndef LMO_STORE_SQLITE_INTERNAL_H
#define LMO_STORE_SQLITE_INTERNAL_H

#include "engine/ports.h"
#include "sql/sql.h"

struct sqlite_store {
    struct lmo_store base; /* first: a struct lmo_store * of ours is a struct sqlite_store * */
    struct lmo_sql *db;
    struct tidier *tidier; /* NULL: SQLite tidies up by itself, within commits */
    char db_path[LMO_PATH_MAX];
    int lock_fd;
    uint64_t term;
    unsigned audit_count, audit_size; /* lines that wait for the next commit */
    struct lmo_audit_line *audit;
    struct handed_out {          /* epochs that the next commit writes down */
        char vm_uuid[LMO_UUID_MAX];
        uint64_t epoch;
    } *epochs;
    unsigned epoch_count, epoch_room;
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
int lmo_sqlite_audit_list(struct lmo_store *s, const char *migration, const char *host, uint64_t before, unsigned limit,
                          int (*cb)(void *arg, const struct lmo_audit_line *l), void *arg, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_quarantine(struct lmo_store *s, const struct lmo_quarantine_row *row, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_quarantine_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_quarantine_row *row), void *arg,
                               struct lmo_err *err) LMO_MUST_CHECK;

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
int lmo_sqlite_list(struct lmo_store *s, const char *phase, const char *vm, const char *before, unsigned limit,
                    int (*cb)(void *arg, const struct lmo_migration *m), void *arg, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_journal(struct lmo_store *s, const char *id, int (*cb)(void *arg, const struct lmo_journal_line *l),
                       void *arg, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_idempotency(struct lmo_store *s, const char *principal, const char *key, char ret_hash[65],
                           char ret_migration[LMO_ID_MAX], struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sqlite_host_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_host_row *h), void *arg,
                         struct lmo_err *err) LMO_MUST_CHECK;

#endif
