/* sql.h - the one door to SQLite: durable by construction, statements cached, errors in our codes.
 *
 * Invariants:
 *  1. A commit that returned 0 is on disk: WAL with synchronous=FULL, both read back at open; open fails otherwise.
 *  2. A database is never opened by a binary older than its schema.
 *  3. Every wait for a lock is bounded by busy_timeout_ms.
 * A handle belongs to one thread at a time (SQLite runs without its own mutexes).
 *
 * Codes: NO_SPACE (disk full), CORRUPT (not a database, malformed), BUSY (lock not had in time), CONFLICT (a
 * constraint), IO, NO_MEMORY, INVALID (bad SQL: a bug of ours), TOO_LARGE. After an error inside a transaction:
 * lmo_sql_rollback. */
#ifndef LMO_SQL_SQL_H
#define LMO_SQL_SQL_H

#include "base/cleanup.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lmo_sql;      /* an open database */
struct lmo_sql_stmt; /* a prepared statement, owned by the database's cache */

/* One numbered, forward-only step; generated from schema/<set>/NNN_name.sql at build time, in order, from 1, no gaps.
 * */
struct lmo_sql_migration {
    unsigned version;
    const char *name;
    const char *sql;
};
extern const struct lmo_sql_migration lmo_schema_coordinator[];
extern const size_t lmo_schema_coordinator_count;
extern const struct lmo_sql_migration lmo_schema_worker[];
extern const size_t lmo_schema_worker_count;

/* At most so much of a database is kept in memory: the pages that a thousand open migrations write to fit. */
#define LMO_SQL_CACHE_KIB "8192"

/* Opens or creates `path` with mode 0600. busy_timeout_ms 0: 5,000. */
int lmo_sql_open(const char *path, unsigned busy_timeout_ms, struct lmo_sql **ret_db,
                 struct lmo_err *err) LMO_MUST_CHECK;
/* Takes db (NULL is fine), rolls back what is open, returns NULL. */
struct lmo_sql *lmo_sql_close(struct lmo_sql *db);

/* Brings the schema up to the last step, each step in its own transaction together with its number. CONFLICT naming
 * both versions if the database is newer than the last step; CORRUPT if a step was applied under another name. */
int lmo_sql_migrate(struct lmo_sql *db, const struct lmo_sql_migration *steps, size_t count,
                    struct lmo_err *err) LMO_MUST_CHECK;
/* The number of the last step applied; 0 for an empty database. */
int lmo_sql_version(struct lmo_sql *db, unsigned *ret_version, struct lmo_err *err) LMO_MUST_CHECK;

/* Transactions do not nest. Begin takes the write lock at once (IMMEDIATE). Rollback never fails visibly and is fine
 * without an open transaction, so that it can stand on every error path. */
int lmo_sql_begin(struct lmo_sql *db, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_sql_commit(struct lmo_sql *db, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_sql_rollback(struct lmo_sql *db);
bool lmo_sql_in_transaction(const struct lmo_sql *db);

/* Commits append to a log (the -wal file), and somebody has to move it into the database. Unless told otherwise SQLite does
 * so within a commit, as soon as the log has 1,000 pages: many milliseconds during which that commit's caller waits. */
struct lmo_sql_log {
    uint64_t pages; /* in the log */
    uint64_t moved; /* the first so many of them are in the database; all of them: the next commit begins at the front */
};
/* Moves what no reader needs there, durably; keeps no commit and no reader waiting. Another thread may do it, with a handle
 * of its own for the same file. BUSY: somebody else is at it. */
int lmo_sql_tidy(struct lmo_sql *db, struct lmo_sql_log *ret_log, struct lmo_err *err) LMO_MUST_CHECK;
/* From now on tidying is the caller's: `fn` is called after each commit of this handle, on disk by then, with the number
 * of pages in the log; it may call lmo_sql_tidy on the handle and nothing else. fn NULL: nobody is told. */
typedef void lmo_sql_logged_fn(void *arg, struct lmo_sql *db, uint64_t pages);
void lmo_sql_tidy_elsewhere(struct lmo_sql *db, lmo_sql_logged_fn *fn, void *arg);

/* Runs fixed SQL text (several statements allowed) without parameters or results. */
int lmo_sql_exec(struct lmo_sql *db, const char *sql, struct lmo_err *err) LMO_MUST_CHECK;

/* A statement from the cache, prepared on first use, reset and with nothing bound. `sql` must be a string that lives as
 * long as the database (a literal). The statement stays the database's; at most 256 different ones. A statement that is
 * still being stepped must not be asked for again. */
int lmo_sql_prepare(struct lmo_sql *db, const char *sql, struct lmo_sql_stmt **ret_stmt,
                    struct lmo_err *err) LMO_MUST_CHECK;

/* Parameters count from 1. A failure is kept and returned by the next step, so binds need no checks of their own. Text
 * and blobs are copied. NULL text binds NULL. u64 above INT64_MAX fails with TOO_LARGE. */
void lmo_sql_bind_text(struct lmo_sql_stmt *stmt, int index, const char *text);
/* The same without a copy: `text` must stay as it is until the step after it has returned 0 or an error. */
void lmo_sql_bind_borrowed(struct lmo_sql_stmt *stmt, int index, const char *text, size_t len);
void lmo_sql_bind_blob(struct lmo_sql_stmt *stmt, int index, const void *data, size_t len);
void lmo_sql_bind_i64(struct lmo_sql_stmt *stmt, int index, int64_t value);
void lmo_sql_bind_u64(struct lmo_sql_stmt *stmt, int index, uint64_t value);
void lmo_sql_bind_null(struct lmo_sql_stmt *stmt, int index);

/* 1: a row is there; 0: no more rows (the statement is reset); negative: failed (the statement is reset). */
int lmo_sql_step(struct lmo_sql_stmt *stmt, struct lmo_err *err) LMO_MUST_CHECK;
/* Steps a statement that returns no rows; *ret_changes (may be NULL) is the number of rows it changed. */
int lmo_sql_run(struct lmo_sql_stmt *stmt, uint64_t *ret_changes, struct lmo_err *err) LMO_MUST_CHECK;
/* Ends reading before the last row. NULL is fine. */
void lmo_sql_reset(struct lmo_sql_stmt *stmt);

/* Columns of the current row count from 0. Text is borrowed until the next step; NULL reads as "" and 0. */
const char *lmo_sql_text(struct lmo_sql_stmt *stmt, int column);
int64_t lmo_sql_i64(struct lmo_sql_stmt *stmt, int column);
uint64_t lmo_sql_u64(struct lmo_sql_stmt *stmt, int column); /* negative reads as 0 */
bool lmo_sql_is_null(struct lmo_sql_stmt *stmt, int column);
const void *lmo_sql_blob(struct lmo_sql_stmt *stmt, int column, size_t *ret_len);
/* Copies text into a fixed buffer; TOO_LARGE if it does not fit (then the buffer holds ""). */
int lmo_sql_copy(struct lmo_sql_stmt *stmt, int column, char *ret_buf, size_t size) LMO_MUST_CHECK;

int64_t lmo_sql_last_rowid(const struct lmo_sql *db);

static inline void lmo_cleanup_sql(struct lmo_sql **db)
{
    *db = lmo_sql_close(*db);
}
static inline void lmo_cleanup_sql_stmt(struct lmo_sql_stmt **stmt)
{
    lmo_sql_reset(*stmt);
}
#define LMO_AUTO_SQL       LMO_CLEANUP(lmo_cleanup_sql)
#define LMO_AUTO_SQL_RESET LMO_CLEANUP(lmo_cleanup_sql_stmt) /* resets the statement at the end of the scope */

#endif
