/* sql.c - see sql.h. Opening, transactions, migrations; statements are in stmt.c. */
#include "sql/internal.h"
#include "base/assert.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int lmo_sql_error(sqlite3 *handle, int rc, const char *what, struct lmo_err *err)
{
    int code;
    switch (rc & 0xFF) {
    case SQLITE_FULL: code = LMO_E_NO_SPACE; break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: code = LMO_E_CORRUPT; break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: code = LMO_E_BUSY; break;
    case SQLITE_CONSTRAINT: code = LMO_E_CONFLICT; break;
    case SQLITE_NOMEM: code = LMO_E_NO_MEMORY; break;
    case SQLITE_TOOBIG: code = LMO_E_TOO_LARGE; break;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH: code = LMO_E_FORBIDDEN; break;
    case SQLITE_IOERR:
        /* A full disk can also show as a failed write. */
        code = handle && sqlite3_system_errno(handle) == ENOSPC ? LMO_E_NO_SPACE : LMO_E_IO;
        break;
    case SQLITE_CANTOPEN: code = LMO_E_IO; break;
    case SQLITE_ERROR:
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
    case SQLITE_MISMATCH: code = LMO_E_INVALID; break;
    default: code = LMO_E_IO; break;
    }
    return lmo_fail(err, code, "database: %s: %s", what, handle ? sqlite3_errmsg(handle) : sqlite3_errstr(rc));
}

int lmo_sql_exec(struct lmo_sql *db, const char *sql, struct lmo_err *err)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
        char what[64];
        snprintf(what, sizeof what, "%.60s", sql);
        return lmo_sql_error(db->handle, rc, what, err);
    }
    return 0;
}

/* Runs "PRAGMA x" and compares its first result, as text, with what it must be. */
static int check_pragma(struct lmo_sql *db, const char *pragma, const char *expected, struct lmo_err *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db->handle, pragma, -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    int r = 0;
    if (rc != SQLITE_ROW) {
        r = lmo_sql_error(db->handle, rc, pragma, err);
    } else {
        const unsigned char *got = sqlite3_column_text(stmt, 0);
        if (!got || strcmp((const char *)got, expected) != 0)
            r = lmo_fail(err, LMO_E_UNSUPPORTED,
                         "database: %s gives '%s' instead of '%s': commits would not be durable here", pragma,
                         got ? (const char *)got : "nothing", expected);
    }
    sqlite3_finalize(stmt);
    return r;
}

/* SQLite would create the file with the umask's mode; the -wal and -shm files take their mode from it. */
static int create_private(const char *path, struct lmo_err *err)
{
    LMO_AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return lmo_fail(err, errno == ENOSPC ? LMO_E_NO_SPACE : LMO_E_IO, "cannot open database %s: %s", path,
                        strerror(errno));
    if (!S_ISREG(st.st_mode))
        return lmo_fail(err, LMO_E_INVALID, "database %s is not a regular file", path);
    return 0;
}

int lmo_sql_open(const char *path, unsigned busy_timeout_ms, struct lmo_sql **ret_db, struct lmo_err *err)
{
    int r = create_private(path, err);
    if (r < 0)
        return r;
    LMO_AUTO_SQL struct lmo_sql *db = calloc(1, sizeof *db);
    if (!db)
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the database");
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
    int rc = sqlite3_open_v2(path, &db->handle, flags, NULL);
    if (rc != SQLITE_OK)
        return lmo_sql_error(db->handle, rc, path, err);
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, busy_timeout_ms ? (int)busy_timeout_ms : 5000);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);

    /* journal_mode first: it reads the file, so a file that is no database is found here. */
    static const char *const settings[][2] = {
        {"PRAGMA journal_mode=WAL", "wal"},
        {"PRAGMA synchronous=FULL; ", NULL},
        {"PRAGMA foreign_keys=ON; ", NULL},
        {"PRAGMA synchronous", "2"},
        {"PRAGMA foreign_keys", "1"},
        {"PRAGMA wal_autocheckpoint=1000", "1000"},
        {"PRAGMA journal_size_limit=16777216", "16777216"},
        {"PRAGMA cache_size=-" LMO_SQL_CACHE_KIB, NULL},
    };
    for (size_t i = 0; r == 0 && i < sizeof settings / sizeof settings[0]; i++) {
        r = settings[i][1] ? check_pragma(db, settings[i][0], settings[i][1], err)
                           : lmo_sql_exec(db, settings[i][0], err);
    }
    if (r < 0) {
        lmo_err_prefix(err, "%s", path);
        return r;
    }
    *ret_db = LMO_TAKE(db);
    return 0;
}

struct lmo_sql *lmo_sql_close(struct lmo_sql *db)
{
    if (!db)
        return NULL;
    lmo_sql_rollback(db);
    lmo_sql_cache_clear(db);
    int rc = sqlite3_close(db->handle);
    lmo_assert(rc == SQLITE_OK); /* every statement is the cache's */
    free(db);
    return NULL;
}

/* ---- the log ---- */

int lmo_sql_tidy(struct lmo_sql *db, struct lmo_sql_log *ret_log, struct lmo_err *err)
{
    int pages = 0, moved = 0;
    int rc = sqlite3_wal_checkpoint_v2(db->handle, "main", SQLITE_CHECKPOINT_PASSIVE, &pages, &moved);
    if (rc != SQLITE_OK)
        return lmo_sql_error(db->handle, rc, "moving the log into the database", err);
    *ret_log = (struct lmo_sql_log){.pages = pages > 0 ? (uint64_t)pages : 0, .moved = moved > 0 ? (uint64_t)moved : 0};
    return 0;
}

static int logged(void *arg, sqlite3 *handle, const char *name, int pages)
{
    struct lmo_sql *db = arg;
    (void)handle;
    (void)name;
    if (db->logged)
        db->logged(db->logged_arg, db, pages > 0 ? (uint64_t)pages : 0);
    return SQLITE_OK; /* the commit is on disk: what becomes of the log is not its caller's concern */
}

void lmo_sql_tidy_elsewhere(struct lmo_sql *db, lmo_sql_logged_fn *fn, void *arg)
{
    db->logged = fn;
    db->logged_arg = arg;
    (void)sqlite3_wal_hook(db->handle, logged, db); /* SQLite's own moving is such a hook: this one takes its place */
}

/* ---- transactions ---- */

int lmo_sql_begin(struct lmo_sql *db, struct lmo_err *err)
{
    lmo_assert(!lmo_sql_in_transaction(db));
    struct lmo_sql_stmt *stmt = NULL;
    int r = lmo_sql_prepare(db, "BEGIN IMMEDIATE", &stmt, err);
    return r < 0 ? r : lmo_sql_run(stmt, NULL, err);
}

int lmo_sql_commit(struct lmo_sql *db, struct lmo_err *err)
{
    lmo_assert(lmo_sql_in_transaction(db));
    struct lmo_sql_stmt *stmt = NULL;
    int r = lmo_sql_prepare(db, "COMMIT", &stmt, err);
    return r < 0 ? r : lmo_sql_run(stmt, NULL, err);
}

void lmo_sql_rollback(struct lmo_sql *db)
{
    if (!db->handle || !lmo_sql_in_transaction(db))
        return;
    lmo_sql_cache_reset(db); /* a statement being read would keep the transaction's snapshot */
    (void)sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
}

bool lmo_sql_in_transaction(const struct lmo_sql *db)
{
    return sqlite3_get_autocommit(db->handle) == 0;
}

int64_t lmo_sql_last_rowid(const struct lmo_sql *db)
{
    return sqlite3_last_insert_rowid(db->handle);
}

/* ---- migrations ---- */

static int ensure_table(struct lmo_sql *db, struct lmo_err *err)
{
    return lmo_sql_exec(db,
                        "CREATE TABLE IF NOT EXISTS lmo_schema_step (version INTEGER PRIMARY KEY, name TEXT NOT NULL, "
                        "applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ','now'))) STRICT",
                        err);
}

int lmo_sql_version(struct lmo_sql *db, unsigned *ret_version, struct lmo_err *err)
{
    int r = ensure_table(db, err);
    if (r < 0)
        return r;
    LMO_AUTO_SQL_RESET struct lmo_sql_stmt *stmt = NULL;
    r = lmo_sql_prepare(db, "SELECT coalesce(max(version), 0) FROM lmo_schema_step", &stmt, err);
    if (r == 0)
        r = lmo_sql_step(stmt, err);
    if (r < 0)
        return r;
    *ret_version = (unsigned)lmo_sql_u64(stmt, 0);
    return 0;
}

/* Was every step applied under the name that this binary knows it by? */
static int check_names(struct lmo_sql *db, const struct lmo_sql_migration *steps, unsigned version, struct lmo_err *err)
{
    for (unsigned i = 0; i < version; i++) {
        LMO_AUTO_SQL_RESET struct lmo_sql_stmt *stmt = NULL;
        int r = lmo_sql_prepare(db, "SELECT name FROM lmo_schema_step WHERE version = ?", &stmt, err);
        if (r < 0)
            return r;
        lmo_sql_bind_u64(stmt, 1, steps[i].version);
        r = lmo_sql_step(stmt, err);
        if (r < 0)
            return r;
        const char *name = r == 1 ? lmo_sql_text(stmt, 0) : "nothing";
        if (strcmp(name, steps[i].name) != 0)
            return lmo_fail(err, LMO_E_CORRUPT,
                            "database: schema step %u is '%s' there and '%s' here: not the same history",
                            steps[i].version, name, steps[i].name);
    }
    return 0;
}

static int apply(struct lmo_sql *db, const struct lmo_sql_migration *step, struct lmo_err *err)
{
    int r = lmo_sql_begin(db, err);
    if (r < 0)
        return r;
    r = lmo_sql_exec(db, step->sql, err);
    lmo_assert(r < 0 || lmo_sql_in_transaction(db)); /* a step must not commit by itself */
    struct lmo_sql_stmt *stmt = NULL;
    if (r == 0)
        r = lmo_sql_prepare(db, "INSERT INTO lmo_schema_step (version, name) VALUES (?, ?)", &stmt, err);
    if (r == 0) {
        lmo_sql_bind_u64(stmt, 1, step->version);
        lmo_sql_bind_text(stmt, 2, step->name);
        r = lmo_sql_run(stmt, NULL, err);
    }
    if (r == 0)
        r = lmo_sql_commit(db, err);
    if (r < 0) {
        lmo_sql_rollback(db);
        lmo_err_prefix(err, "schema step %u (%s)", step->version, step->name);
    }
    return r;
}

int lmo_sql_migrate(struct lmo_sql *db, const struct lmo_sql_migration *steps, size_t count, struct lmo_err *err)
{
    for (size_t i = 0; i < count; i++)
        lmo_assert(steps[i].version == i + 1);
    unsigned version = 0;
    int r = lmo_sql_version(db, &version, err);
    if (r < 0)
        return r;
    if (version > count)
        return lmo_fail(
            err, LMO_E_CONFLICT,
            "the database has schema %u and this program knows up to %zu: use the newer program, or a backup", version,
            count);
    r = check_names(db, steps, version, err);
    for (size_t i = version; r == 0 && i < count; i++)
        r = apply(db, &steps[i], err);
    return r;
}
