/* sqlite.c - the store on SQLite: opening, locking, closing. Writing is sqlite_write.c, reading sqlite_read.c, and
 * sqlite_tidy.c keeps SQLite's housekeeping out of the commits.
 *
 * Invariants of these files:
 *  1. What a call returned 0 for is on disk (sql/sql.h: WAL, synchronous=FULL, both asserted at open).
 *  2. One coordinator: <state_dir>/lmod.lock is held from open to close. The engine's memory is a cache of the
 *     database; a second writer would make it lie.
 *  3. One transaction = records + journal + outbox (inside the records) + cursors: a worker's event is forgotten by the
 *     worker only after the cursor moved, and the cursor moves only with the records that the event changed.
 *  4. A record is replaced only if its stored version is the one that the new one was made from, and never once it is
 *     terminal by one that is not.
 *  5. One open migration per guest: a unique index, not a look-up.
 *  6. An epoch that was handed out is on disk before any effect of the engine can carry it: the first commit after it
 *     writes it down, even one that is about other guests. One transaction per request less than writing it at once.
 *  7. One term: it is raised when the store is opened, and every transaction that writes looks at it first. A coordinator
 *     whose lock was taken from it (take_over) writes nothing after that.
 *  8. No record goes in or comes out that lmo_migration_broken() objects to.
 *  9. An event is stored by the transaction that stores what it tells of; its number is never given twice. */
#include "store/sqlite_internal.h"

#include "sql/backup.h"

#include "base/cleanup.h"
#include "base/fs.h"
#include "base/str.h"
#include "engine/record_codec.h"

#include <stdio.h>
#include <unistd.h>

static void store_close(struct lmo_store *s)
{
    if (!s) {
        return;
    }
    struct sqlite_store *st = sqlite_of(s);
    lmo_sqlite_tidy_stop(st->tidier);
    lmo_sql_close(st->db);
    free(st->audit);
    lmo_sqlite_with_forget(st);
    free(st->epochs);
    lmo_buf_done(&st->text);
    free(st->events.pending);
    lmo_sqlite_objects_written(st); /* nobody was told that they are stored */
    close(st->lock_fd); /* after the database: whoever gets the lock finds it closed */
    free(st);
}

static const struct lmo_store_ops sqlite_ops = {
    .close = store_close,
    .commit = lmo_sqlite_commit,
    .next_epoch = lmo_sqlite_next_epoch,
    .load_open = lmo_sqlite_load_open,
    .get = lmo_sqlite_get,
    .list = lmo_sqlite_list,
    .journal = lmo_sqlite_journal,
    .answer = lmo_sqlite_answer,
    .answer_with = lmo_sqlite_answer_with,
    .token_put = lmo_sqlite_token_put,
    .token_revoke = lmo_sqlite_token_revoke,
    .token_list = lmo_sqlite_token_list,
    .host_put = lmo_sqlite_host_put,
    .host_limits = lmo_sqlite_host_limits,
    .host_delete = lmo_sqlite_host_delete,
    .host_list = lmo_sqlite_host_list,
    .term = lmo_sqlite_term,
    .check_term = lmo_sqlite_check_term,
    .audit = lmo_sqlite_audit,
    .audit_list = lmo_sqlite_audit_list,
    .put = lmo_sqlite_put,
    .objects = lmo_sqlite_objects,
    .quarantine = lmo_sqlite_quarantine,
    .quarantine_list = lmo_sqlite_quarantine_list,
    .beat = lmo_sqlite_beat,
    .restored = lmo_sqlite_restored,
    .raise_term = lmo_sqlite_raise_term,
    .raise_epochs = lmo_sqlite_raise_epochs,
    .activate = lmo_sqlite_activate,
};

static const struct lmo_event_store_ops sqlite_event_ops = {
    .add = lmo_sqlite_event_add,
    .withdraw = lmo_sqlite_event_withdraw,
    .list = lmo_sqlite_event_list,
    .range = lmo_sqlite_event_range,
    .keep = lmo_sqlite_event_keep,
    .webhook_put = lmo_sqlite_webhook_put,
    .webhook_progress = lmo_sqlite_webhook_progress,
    .webhook_delete = lmo_sqlite_webhook_delete,
    .webhook_list = lmo_sqlite_webhook_list,
    .dead_put = lmo_sqlite_dead_put,
    .dead_delete = lmo_sqlite_dead_delete,
    .dead_want = lmo_sqlite_dead_want,
    .dead_list = lmo_sqlite_dead_list,
    .vm_hook_put = lmo_sqlite_vm_hook_put,
    .vm_hook_delete = lmo_sqlite_vm_hook_delete,
    .vm_hook_get = lmo_sqlite_vm_hook_get,
};

/* What is kept of the event log unless keep() says otherwise (docs/events.md). */
#define EVENTS_KEPT 1000000
#define EVENTS_KEPT_MS (UINT64_C(7) * 24 * 3600 * 1000)

static int join(char *path, size_t size, const char *dir, const char *file, struct lmo_err *err)
{
    int n = snprintf(path, size, "%s/%s", dir, file);
    return n < 0 || (size_t)n >= size ? lmo_fail(err, LMO_E_INVALID, "state directory: path too long") : 0;
}

/* One take-over at a time: two that cross could each believe that the other is the one. */
static int guard_take_over(const char *state_dir, int *ret_fd, struct lmo_err *err)
{
    char path[LMO_PATH_MAX];
    int r = join(path, sizeof(path), state_dir, "lmod.takeover.lock", err);
    if (r == 0) {
        r = lmo_fs_lock(path, 0600, ret_fd, err);
    }
    return r == LMO_E_BUSY ? lmo_err_prefix(err, "another take-over is under way") : r;
}

/* The lock's file is replaced, not unlocked: only its holder could do that. Whoever comes later finds the new file. The
 * term was raised before: whoever held the lock can write nothing any more. */
static int take_lock_over(const char *lock_path, int *ret_fd, struct lmo_err *err)
{
    int r = lmo_fs_lock(lock_path, 0600, ret_fd, err);
    if (r != LMO_E_BUSY) {
        return r; /* nobody holds it (any more) */
    }
    if (unlink(lock_path) < 0) {
        return lmo_fail(err, LMO_E_IO, "%s: cannot be replaced", lock_path);
    }
    return lmo_fs_lock(lock_path, 0600, ret_fd, err);
}

static int open_store(const char *state_dir, bool take_over, struct lmo_store **ret, struct lmo_err *err)
{
    char db_path[LMO_PATH_MAX], lock_path[LMO_PATH_MAX];
    LMO_AUTO_CLOSE int lock_fd = -1, guard_fd = -1;
    LMO_AUTO_SQL struct lmo_sql *db = NULL;
    LMO_AUTO_FREE struct sqlite_store *st = calloc(1, sizeof(*st));
    if (!st) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    st->text = LMO_BUF_INIT(LMO_RECORD_TEXT_MAX);
    int r = join(db_path, sizeof(db_path), state_dir, "lmod.db", err);
    if (r == 0) {
        r = join(lock_path, sizeof(lock_path), state_dir, "lmod.lock", err);
    }
    if (r == 0) {
        r = lmo_fs_mkdir_p(state_dir, 0700, err);
    }
    if (r < 0) {
        return r;
    }
    if (!take_over && (r = lmo_fs_lock(lock_path, 0600, &lock_fd, err)) < 0) {
        return r == LMO_E_BUSY ? lmo_err_prefix(err, "another coordinator uses %s (if it is asleep or cut off: --take-over)",
                                                state_dir)
                               : r;
    }
    if (take_over && (r = guard_take_over(state_dir, &guard_fd, err)) < 0) {
        return r;
    }
    r = lmo_sql_open(db_path, 0, &db, err);
    if (r == 0) {
        r = lmo_sql_upgrade(db, db_path, lmo_schema_coordinator, lmo_schema_coordinator_count, err);
    }
    if (r == 0) {
        r = lmo_sql_marked(db, &st->backup_ms, err);
        st->restored = r == 1;
        r = r < 0 ? r : 0;
    }
    st->db = db;
    if (r == 0) {
        r = lmo_sqlite_take_term(st, err);
    }
    if (r == 0 && take_over) {
        r = take_lock_over(lock_path, &lock_fd, err);
    }
    if (r == 0) {
        r = lmo_sqlite_check_term(&st->base, err);
    }
    if (r == 0) {
        r = lmo_sqlite_events_open(st, err);
    }
    if (r < 0) {
        return r;
    }
    st->base.ops = &sqlite_ops;
    st->base.events = &sqlite_event_ops;
    lmo_sqlite_event_keep(&st->base, EVENTS_KEPT, EVENTS_KEPT_MS);
    LMO_COPY(st->db_path, db_path);
    st->db = LMO_TAKE(db);
    st->lock_fd = lock_fd;
    lock_fd = -1;
    *ret = &LMO_TAKE(st)->base;
    return 0;
}

int lmo_store_sqlite_open(const char *state_dir, struct lmo_store **ret, struct lmo_err *err)
{
    return open_store(state_dir, false, ret, err);
}

int lmo_store_sqlite_take_over(const char *state_dir, struct lmo_store **ret, struct lmo_err *err)
{
    return open_store(state_dir, true, ret, err);
}
