/* backup.c - see backup.h.
 *
 * Restoring, in an order in which every interruption is found out: (1) PATH.restoring is written; from here on programs refuse
 * to open PATH. (2) the copy is made beside PATH. (3) the old files go to DIR/backup, the log first: a log must never
 * stand beside a database that is not its own. (4) the copy takes PATH's name. (5) PATH.restoring goes. */
#include "sql/backup.h"
#include "sql/internal.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/types.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#define PAGES_AT_ONCE 2000
#define SPARE_BYTES   (UINT64_C(16) << 20) /* beyond the copy itself: for the log, and for changing the schema */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void dir_name(const char *path, char ret[LMO_PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 1;
    snprintf(ret, LMO_PATH_MAX, "%.*s", (int)(slash && len == 0 ? 1 : len), slash ? path : ".");
}

static int join(char ret[LMO_PATH_MAX], struct lmo_err *err, const char *fmt, ...) LMO_PRINTF(3, 4);
static int join(char ret[LMO_PATH_MAX], struct lmo_err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(ret, LMO_PATH_MAX, fmt, ap);
    va_end(ap);
    return n < 0 || n >= LMO_PATH_MAX ? lmo_fail(err, LMO_E_INVALID, "the path is too long: %.100s...", ret) : 0;
}

static int flush_path(const char *path, int flags, struct lmo_err *err)
{
    LMO_AUTO_CLOSE int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0) {
        return lmo_fail(err, errno == ENOSPC ? LMO_E_NO_SPACE : LMO_E_IO, "%s: cannot be flushed: %s", path,
                        strerror(errno));
    }
    return 0;
}

static int move(const char *from, const char *to, struct lmo_err *err)
{
    char dir[LMO_PATH_MAX];
    if (rename(from, to) < 0) {
        return errno == ENOENT ? LMO_E_NOT_FOUND
                               : lmo_fail(err, LMO_E_IO, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
    }
    dir_name(to, dir);
    return flush_path(dir, O_RDONLY | O_DIRECTORY, err);
}

/* ------------------------------------------------------------------ the mark */

static int table_exists(struct lmo_sql *db, const char *sql, struct lmo_err *err)
{
    LMO_AUTO_SQL_RESET struct lmo_sql_stmt *stmt = NULL;
    int r = lmo_sql_prepare(db, sql, &stmt, err);
    return r < 0 ? r : lmo_sql_step(stmt, err);
}

#define HAS_MARK  "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'lmo_backup'"
#define HAS_STEPS "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'lmo_schema_step'"

int lmo_sql_marked(struct lmo_sql *db, int64_t *ret_made_ms, struct lmo_err *err)
{
    int r = table_exists(db, HAS_MARK, err);
    if (r != 1) {
        return r;
    }
    LMO_AUTO_SQL_RESET struct lmo_sql_stmt *stmt = NULL;
    r = lmo_sql_prepare(db, "SELECT made_ms FROM lmo_backup WHERE one = 1", &stmt, err);
    r = r < 0 ? r : lmo_sql_step(stmt, err);
    if (r < 0) {
        return r;
    }
    *ret_made_ms = r == 1 ? lmo_sql_i64(stmt, 0) : 0;
    return 1; /* without its row, too: better one too many than one too few */
}

int lmo_sql_unmark(struct lmo_sql *db, struct lmo_err *err)
{
    return lmo_sql_exec(db, "DROP TABLE IF EXISTS lmo_backup", err);
}

static int mark(struct lmo_sql *db, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt = NULL;
    int r = lmo_sql_begin(db, err);
    r = r < 0 ? r : lmo_sql_unmark(db, err);
    r = r < 0
            ? r
            : lmo_sql_exec(
                  db,
                  "CREATE TABLE lmo_backup (one INTEGER PRIMARY KEY CHECK (one = 1), made_ms INTEGER NOT NULL) STRICT",
                  err);
    r = r < 0 ? r : lmo_sql_prepare(db, "INSERT INTO lmo_backup (one, made_ms) VALUES (1, ?)", &stmt, err);
    if (r == 0) {
        lmo_sql_bind_i64(stmt, 1, (int64_t)(lmo_realtime_us() / 1000));
        r = lmo_sql_run(stmt, NULL, err);
    }
    r = r < 0 ? r : lmo_sql_commit(db, err);
    if (r < 0) {
        lmo_sql_rollback(db);
    }
    return r;
}

/* ------------------------------------------------------------------ copying */

static int check_room(struct lmo_sql *from, const char *to, struct lmo_err *err)
{
    char dir[LMO_PATH_MAX];
    struct statvfs fs;
    uint64_t needed = SPARE_BYTES;
    {
        LMO_AUTO_SQL_RESET struct lmo_sql_stmt *stmt = NULL;
        int r = lmo_sql_prepare(from, "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
                                &stmt, err);
        r = r < 0 ? r : lmo_sql_step(stmt, err);
        if (r < 0) {
            return r;
        }
        needed += lmo_sql_u64(stmt, 0);
    }
    dir_name(to, dir);
    if (statvfs(dir, &fs) < 0) {
        return lmo_fail(err, errno == ENOENT ? LMO_E_NOT_FOUND : LMO_E_IO, "%s: %s", dir, strerror(errno));
    }
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    return room >= needed ? 0
                          : lmo_fail(err, LMO_E_NO_SPACE, "%s has %llu MiB free, a copy of the database needs %llu MiB",
                                     dir, (unsigned long long)(room >> 20), (unsigned long long)((needed >> 20) + 1));
}

/* With a reading transaction of its own on `from`, the copy is of one moment, and commits meanwhile do not make it begin anew. */
static int copy_pages(struct lmo_sql *from, struct lmo_sql *to, const atomic_bool *stop, struct lmo_err *err)
{
    int r = lmo_sql_exec(from, "BEGIN; SELECT count(*) FROM sqlite_schema", err);
    if (r < 0) {
        return r;
    }
    sqlite3_backup *b = sqlite3_backup_init(to->handle, "main", from->handle, "main");
    int rc = b ? SQLITE_OK : SQLITE_ERROR;
    while (rc == SQLITE_OK && !(stop && atomic_load(stop))) {
        rc = sqlite3_backup_step(b, PAGES_AT_ONCE);
    }
    bool stopped = rc == SQLITE_OK;
    if (b) {
        int end = sqlite3_backup_finish(b);
        rc = rc == SQLITE_DONE ? end : rc;
    }
    lmo_sql_rollback(from);
    if (stopped && stop && atomic_load(stop)) {
        return lmo_fail(err, LMO_E_CANCELLED, "the copy was not finished");
    }
    return rc == SQLITE_OK || rc == SQLITE_DONE ? 0 : lmo_sql_error(to->handle, rc, "copying", err);
}

static int check_pages(struct lmo_sql *db, struct lmo_err *err)
{
    LMO_AUTO_SQL_RESET struct lmo_sql_stmt *stmt = NULL;
    int r = lmo_sql_prepare(db, "PRAGMA quick_check(1)", &stmt, err);
    r = r < 0 ? r : lmo_sql_step(stmt, err);
    if (r < 0) {
        return r;
    }
    return r == 1 && strcmp(lmo_sql_text(stmt, 0), "ok") == 0
               ? 0
               : lmo_fail(err, LMO_E_CORRUPT, "database is damaged: %.200s", lmo_sql_text(stmt, 0));
}

/* `to` is made or replaced. */
static int copy_to(const char *from, const char *to, bool marked, const atomic_bool *stop, struct lmo_err *err)
{
    LMO_AUTO_SQL struct lmo_sql *source = NULL, *target = NULL;
    int r = lmo_sql_open(from, 0, &source, err);
    r = r < 0 ? r : check_room(source, to, err);
    if (r < 0) {
        return r;
    }
    (void)unlink(to);
    r = lmo_sql_open(to, 0, &target, err);
    r = r < 0 ? r : copy_pages(source, target, stop, err);
    r = r < 0 ? r : check_pages(target, err);
    r = r < 0 || !marked ? r : mark(target, err);
    /* One file: the log is moved into it and does not come back. */
    r = r < 0 ? r : lmo_sql_exec(target, "PRAGMA journal_mode = DELETE", err);
    target = lmo_sql_close(target);
    return r < 0 ? r : flush_path(to, O_RDONLY, err);
}

int lmo_sql_backup(const char *from, const char *to, const atomic_bool *stop, struct lmo_err *err)
{
    char part[LMO_PATH_MAX], dir[LMO_PATH_MAX];
    struct stat st;
    if (lstat(to, &st) == 0) {
        return lmo_fail(err, LMO_E_CONFLICT, "%s is there already", to);
    }
    if (stat(from, &st) < 0) { /* or it would be made */
        return lmo_fail(err, LMO_E_NOT_FOUND, "%s: %s", from, strerror(errno));
    }
    int r = join(part, err, "%s.part", to);
    r = r < 0 ? r : copy_to(from, part, true, stop, err);
    if (r == 0 && link(part, to) < 0) { /* unlike a rename it replaces nothing */
        r = lmo_fail(err, errno == EEXIST ? LMO_E_CONFLICT : LMO_E_IO, "%s: %s", to, strerror(errno));
    }
    if (r != LMO_E_INVALID) {
        (void)unlink(part);
    }
    dir_name(to, dir);
    return r < 0 ? r : flush_path(dir, O_RDONLY | O_DIRECTORY, err);
}

/* ------------------------------------------------------------------ before the schema is changed */

static void time_stamp(char *ret, size_t size)
{
    time_t now = (time_t)(lmo_realtime_us() / 1000000);
    struct tm tm;
    (void)gmtime_r(&now, &tm);
    (void)strftime(ret, size, "%Y%m%dT%H%M%SZ", &tm);
}

static int newest_first(const void *a, const void *b)
{
    const struct dirent *const *x = a, *const *y = b;
    return strcmp(strrchr((*y)->d_name, '-'), strrchr((*x)->d_name, '-')); /* by the time in the name */
}

static void remove_copy(const char *dir, const char *name)
{
    static const char *const parts[] = {"", "-wal", "-shm"}; /* what a restore replaced is kept with its log */
    char path[LMO_PATH_MAX];
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (join(path, NULL, "%s/%s%s", dir, name, parts[i]) == 0) {
            (void)unlink(path);
        }
    }
}

/* Only those that this program made, known by their names, PREFIX...-TIME; others are somebody's. */
static void prune(const char *dir, const char *path, const char *kind)
{
    struct dirent **list = NULL;
    char prefix[LMO_PATH_MAX];
    int count = scandir(dir, &list, NULL, alphasort), kept = 0;
    (void)join(prefix, NULL, "%s-%s", base_name(path), kind);
    for (int i = 0; i < count; i++) {
        const char *time = strrchr(list[i]->d_name, '-');
        if (strncmp(list[i]->d_name, prefix, strlen(prefix)) == 0 && time && strlen(time) == strlen("-YYYYMMDDTHHMMSSZ")) {
            list[kept++] = list[i];
        } else {
            free(list[i]);
        }
    }
    if (kept > 1) {
        qsort(list, (size_t)kept, sizeof *list, newest_first);
    }
    for (int i = 0; i < kept; i++) {
        if (i >= LMO_SQL_COPIES_KEPT) {
            remove_copy(dir, list[i]->d_name);
        }
        free(list[i]);
    }
    free(list);
}

static int copy_before(const char *path, unsigned version, struct lmo_err *err)
{
    char dir[LMO_PATH_MAX], to[LMO_PATH_MAX], stamp[32];
    struct stat st;
    dir_name(path, dir);
    time_stamp(stamp, sizeof stamp);
    int r = join(to, err, "%s/backup", dir);
    r = r < 0 ? r : lmo_fs_mkdir_p(to, 0700, err);
    snprintf(dir, sizeof dir, "%s", to);
    r = r < 0 ? r : join(to, err, "%s/%s-schema%u-%s", dir, base_name(path), version, stamp);
    if (r == 0 && lstat(to, &st) < 0) { /* else: of this very second */
        r = lmo_sql_backup(path, to, NULL, err);
    }
    if (r < 0) {
        return lmo_err_prefix(err, "the schema is not changed without a copy of the database first");
    }
    lmo_log(LMO_LOG_INFO, "database copied before its schema is changed", "file=%s schema=%u", to, version);
    prune(dir, path, "schema");
    return 0;
}

int lmo_sql_upgrade(struct lmo_sql *db, const char *path, const struct lmo_sql_migration *steps, size_t count,
                    struct lmo_err *err)
{
    unsigned version = 0;
    if (lmo_sql_restore_pending(path)) {
        return lmo_fail(err, LMO_E_CONFLICT, "%s: a restore was interrupted here: run lmod --restore FILE again", path);
    }
    int r = lmo_sql_version(db, &version, err);
    if (r == 0 && version > count) {
        return lmo_fail(
            err, LMO_E_CONFLICT,
            "%s was last used by a newer program: it has schema %u, this program knows up to %zu. Install the newer "
            "program again, or restore one of the copies of schema %zu or lower in the directory backup beside it",
            path, version, count, count);
    }
    if (r == 0 && version > 0 && version < count) {
        r = copy_before(path, version, err);
    }
    return r < 0 ? r : lmo_sql_migrate(db, steps, count, err);
}

/* ------------------------------------------------------------------ back again */

int lmo_sql_check_backup(const char *path, const struct lmo_sql_migration *steps, size_t count, int64_t *ret_made_ms,
                         struct lmo_err *err)
{
    LMO_AUTO_SQL struct lmo_sql *db = NULL;
    struct stat st;
    unsigned version = 0;
    int64_t made_ms = 0;
    if (stat(path, &st) < 0) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "%s: %s", path, strerror(errno));
    }
    int r = lmo_sql_open(path, 0, &db, err);
    r = r < 0 ? r : check_pages(db, err);
    r = r < 0 ? r : table_exists(db, HAS_STEPS, err);
    if (r == 0) {
        return lmo_fail(err, LMO_E_INVALID, "%s: not a database of this program", path);
    }
    r = r < 0 ? r : lmo_sql_version(db, &version, err);
    r = r < 0 ? r : lmo_sql_check_names(db, steps, version < count ? version : (unsigned)count, err);
    if (r == 0 && version > count) {
        return lmo_fail(err, LMO_E_CONFLICT,
                        "%s: has schema %u, this program knows up to %zu: restore it with the newer program", path,
                        version, count);
    }
    r = r < 0 ? r : lmo_sql_marked(db, &made_ms, err);
    if (r == 1 && ret_made_ms) {
        *ret_made_ms = made_ms;
    }
    /* As it was: a copy has no log beside it. */
    return r < 0 ? r : lmo_sql_exec(db, "PRAGMA journal_mode = DELETE", err);
}

bool lmo_sql_restore_pending(const char *path)
{
    char flag[LMO_PATH_MAX];
    struct stat st;
    return join(flag, NULL, "%s.restoring", path) == 0 && lstat(flag, &st) == 0;
}

static int keep_old(const char *path, struct lmo_err *err)
{
    static const char *const parts[] = {"-wal", "-shm", ""}; /* the log first, see above */
    char dir[LMO_PATH_MAX], backup[LMO_PATH_MAX], from[LMO_PATH_MAX], to[LMO_PATH_MAX], stamp[32];
    time_stamp(stamp, sizeof stamp);
    dir_name(path, dir);
    int r = join(backup, err, "%s/backup", dir);
    r = r < 0 ? r : lmo_fs_mkdir_p(backup, 0700, err);
    for (size_t i = 0; r == 0 && i < sizeof parts / sizeof parts[0]; i++) {
        r = join(from, err, "%s%s", path, parts[i]);
        r = r < 0 ? r : join(to, err, "%s/%s-replaced-%s%s", backup, base_name(path), stamp, parts[i]);
        r = r < 0 ? r : move(from, to, err);
        r = r == LMO_E_NOT_FOUND ? 0 : r;
    }
    prune(backup, path, "replaced");
    return r;
}

int lmo_sql_restore(const char *from, const char *path, struct lmo_err *err)
{
    char flag[LMO_PATH_MAX], fresh[LMO_PATH_MAX], dir[LMO_PATH_MAX];
    dir_name(path, dir);
    int r = join(flag, err, "%s.restoring", path);
    r = r < 0 ? r : join(fresh, err, "%s.new", path);
    r = r < 0 ? r : lmo_fs_write_atomic(flag, from, strlen(from), 0600, err);
    r = r < 0 ? r : copy_to(from, fresh, true, NULL, err);
    if (r == LMO_E_NO_SPACE) {
        (void)unlink(flag); /* nothing has been touched */
    }
    r = r < 0 ? r : keep_old(path, err);
    r = r < 0 ? r : move(fresh, path, err);
    if (r == 0 && unlink(flag) < 0) {
        r = lmo_fail(err, LMO_E_IO, "%s: %s", flag, strerror(errno));
    }
    return r < 0 ? r : flush_path(dir, O_RDONLY | O_DIRECTORY, err);
}
