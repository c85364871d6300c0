/* sqlite_internal.h - shared by the files of this directory only. */
#ifndef LMO_STORE_SQLITE_INTERNAL_H
#define LMO_STORE_SQLITE_INTERNAL_H

#include "engine/ports.h"
#include "sql/sql.h"

struct sqlite_store {
    struct lmo_store base; /* first: a struct lmo_store * of ours is a struct sqlite_store * */
    struct lmo_sql *db;
    int lock_fd;
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
