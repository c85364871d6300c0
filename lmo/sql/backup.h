/* backup.h - whole copies of a database: while it is in use, before its schema is changed, and back again.
 *
 * A copy is one file of mode 0600, without a log beside it, whole or not there at all: it is written under another name,
 * flushed, looked through (quick_check) and renamed. It carries a mark that says what it is, so that whoever opens it in a
 * database's place, by whatever way it came there, can tell that it shows the past. */
#ifndef LMO_SQL_BACKUP_H
#define LMO_SQL_BACKUP_H

#include "sql/sql.h"

#include <stdatomic.h>

#define LMO_SQL_COPIES_KEPT 5 /* of those that schema changes leave behind, and of what restores replaced; older ones are removed */

/* Copies `from`, which others may be writing meanwhile, as it is at one moment, to `to`, which must not exist (CONFLICT).
 * NO_SPACE, with both numbers, before anything is written if the file system has no room. `stop` (may be NULL): CANCELLED
 * once it is true. Blocks: for a thread of its own. */
int lmo_sql_backup(const char *from, const char *to, const atomic_bool *stop, struct lmo_err *err) LMO_MUST_CHECK;

/* lmo_sql_migrate, with a copy of the database in DIR/backup first if steps are missing and there is something to lose:
 * NAME-schemaN-YYYYMMDDTHHMMSSZ. Only the newest LMO_SQL_COPIES_KEPT of those stay. `path`: of the open database. A database
 * that is newer than the program is refused with a sentence that says what can be done. */
int lmo_sql_upgrade(struct lmo_sql *db, const char *path, const struct lmo_sql_migration *steps, size_t count,
                    struct lmo_err *err) LMO_MUST_CHECK;

/* The mark. 1 and when the copy was made (ms since 1970); 0: the database is no copy. */
int lmo_sql_marked(struct lmo_sql *db, int64_t *ret_made_ms, struct lmo_err *err) LMO_MUST_CHECK;
/* Takes the mark away, in the caller's transaction. */
int lmo_sql_unmark(struct lmo_sql *db, struct lmo_err *err) LMO_MUST_CHECK;

/* Is `path` a copy that this program can use: whole, of this set of schema steps, not newer? *ret_made_ms may be NULL. */
int lmo_sql_check_backup(const char *path, const struct lmo_sql_migration *steps, size_t count, int64_t *ret_made_ms,
                         struct lmo_err *err) LMO_MUST_CHECK;
/* Puts the copy `from` in the place of the database `path`, which nobody has open. What was there is kept as
 * DIR/backup/NAME-replaced-TIME, with its log. After a crash in the middle lmo_sql_restore_pending says so, and the same
 * call finishes it. */
int lmo_sql_restore(const char *from, const char *path, struct lmo_err *err) LMO_MUST_CHECK;
bool lmo_sql_restore_pending(const char *path);

#endif
