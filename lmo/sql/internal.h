/* internal.h - what sql.c and stmt.c share; nobody else includes it. */
#ifndef LMO_SQL_INTERNAL_H
#define LMO_SQL_INTERNAL_H

#include "sql/sql.h"

#include <sqlite3.h>

#define LMO_SQL_STATEMENTS_MAX 256
#define LMO_SQL_BUCKETS        512 /* open addressing over the text's address, at most half full */

struct lmo_sql_stmt {
    struct lmo_sql *db;
    sqlite3_stmt *handle;
    const char *sql; /* the key: the literal's address, then its text */
    bool stepping;   /* between a step that gave a row and its reset */
    int bind_code;   /* first failed bind, returned by the next step */
    char bind_text[64];
};

struct lmo_sql {
    sqlite3 *handle;
    struct lmo_sql_stmt statements[LMO_SQL_STATEMENTS_MAX];
    size_t statement_count;
    struct lmo_sql_stmt *buckets[LMO_SQL_BUCKETS];
    lmo_sql_logged_fn *logged;
    void *logged_arg;
};

/* Fills err from SQLite's code and message; returns our code. */
int lmo_sql_error(sqlite3 *handle, int rc, const char *what, struct lmo_err *err);
/* Was every step applied under the name that this binary knows it by? */
int lmo_sql_check_names(struct lmo_sql *db, const struct lmo_sql_migration *steps, unsigned version,
                        struct lmo_err *err) LMO_MUST_CHECK;
/* Finalises every statement; for close. */
void lmo_sql_cache_clear(struct lmo_sql *db);
/* Resets every statement; for rollback. */
void lmo_sql_cache_reset(struct lmo_sql *db);

#endif
