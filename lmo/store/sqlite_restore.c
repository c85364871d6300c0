/* sqlite_restore.c - a store that was put back from a backup, and backups themselves.
 *
 * The mark that sql/backup.h leaves in every copy is the state: as long as it is there, whoever opens the store observes only.
 * The row of vm_epoch without a guest is the lowest epoch of guests that this store knows nothing of: they may have
 * come, and moved, after the backup was made. */
#include "store/sqlite_internal.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "sql/backup.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

bool lmo_sqlite_restored(const struct lmo_store *s, int64_t *ret_made_ms)
{
    const struct sqlite_store *st = (const struct sqlite_store *)(const void *)s;
    *ret_made_ms = st->backup_ms;
    return st->restored;
}

static int change(struct sqlite_store *st, const char *sql, uint64_t value, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db, sql, &stmt, err);
    if (r == 0) {
        lmo_sql_bind_u64(stmt, 1, value);
        r = lmo_sql_run(stmt, NULL, err);
    }
    return r;
}

static int begin(struct sqlite_store *st, struct lmo_err *err)
{
    int r = lmo_sql_begin(st->db, err);
    return r < 0 ? r : lmo_sqlite_check_term(&st->base, err);
}

static int end(struct sqlite_store *st, int r, struct lmo_err *err)
{
    r = r < 0 ? r : lmo_sql_commit(st->db, err);
    if (r < 0) {
        lmo_sql_rollback(st->db);
    }
    return r;
}

int lmo_sqlite_raise_term(struct lmo_store *s, uint64_t at_least, struct lmo_err *err)
{
    struct sqlite_store *st = sqlite_of(s);
    if (at_least <= st->term) {
        return 0;
    }
    int r = begin(st, err);
    r = r < 0 ? r : change(st, "UPDATE coordinator SET term = ?1 WHERE one = 1 AND term < ?1", at_least, err);
    r = end(st, r, err);
    if (r == 0) {
        st->term = at_least;
    }
    return r;
}

int lmo_sqlite_raise_epochs(struct lmo_store *s, uint64_t above, struct lmo_err *err)
{
    struct sqlite_store *st = sqlite_of(s);
    int r = above > 0 ? begin(st, err) : 0;
    if (above == 0) {
        return 0;
    }
    r = r < 0 ? r : change(st, "UPDATE vm_epoch SET epoch = ?1 WHERE epoch < ?1", above, err);
    r = r < 0 ? r
              : change(st,
                       "INSERT INTO vm_epoch (vm_uuid, epoch) VALUES ('', ?1)"
                       " ON CONFLICT (vm_uuid) DO UPDATE SET epoch = max(epoch, ?1)",
                       above, err);
    return end(st, r, err);
}

static int unmark(struct sqlite_store *st, void *arg, struct lmo_err *err)
{
    (void)arg;
    return lmo_sql_unmark(st->db, err);
}

int lmo_sqlite_activate(struct lmo_store *s, struct lmo_err *err)
{
    struct sqlite_store *st = sqlite_of(s);
    int r = lmo_sqlite_alone(st, unmark, NULL, err);
    if (r == 0) {
        st->restored = false;
    }
    return r;
}

/* ------------------------------------------------------------------ backups */

static int database_of(const char *state_dir, const char *file, char ret[LMO_PATH_MAX], struct lmo_err *err)
{
    int n = snprintf(ret, LMO_PATH_MAX, "%s/%s", state_dir, file);
    return n < 0 || n >= LMO_PATH_MAX ? lmo_fail(err, LMO_E_INVALID, "state directory: path too long") : 0;
}

int lmo_store_sqlite_backup(const char *state_dir, const char *to, const atomic_bool *stop, struct lmo_err *err)
{
    char path[LMO_PATH_MAX];
    int r = database_of(state_dir, "lmod.db", path, err);
    return r < 0 ? r : lmo_sql_backup(path, to, stop, err);
}

int lmo_store_sqlite_restore(const char *state_dir, const char *from, struct lmo_err *err)
{
    char path[LMO_PATH_MAX], lock[LMO_PATH_MAX];
    LMO_AUTO_CLOSE int lock_fd = -1;
    int r = database_of(state_dir, "lmod.db", path, err);
    r = r < 0 ? r : database_of(state_dir, "lmod.lock", lock, err);
    r = r < 0 ? r : lmo_fs_mkdir_p(state_dir, 0700, err);
    if (r == 0 && (r = lmo_fs_lock(lock, 0600, &lock_fd, err)) == LMO_E_BUSY) {
        return lmo_err_prefix(err, "a coordinator uses %s: end it first", state_dir);
    }
    r = r < 0 ? r : lmo_sql_check_backup(from, lmo_schema_coordinator, lmo_schema_coordinator_count, NULL, err);
    return r < 0 ? r : lmo_sql_restore(from, path, err);
}
