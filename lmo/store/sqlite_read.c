/* sqlite_read.c - everything that reads the database. Invariants: sqlite.c. A callback may write; it must not call the
 * same reading function again before that returned. */
#include "store/sqlite_internal.h"

#include "base/cleanup.h"
#include "base/id.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/record_codec.h"

#include <stdio.h>
#include <string.h>

/* Record of the present row (columns: id, record) into *m; CORRUPT names the id. */
static int read_record(struct lmo_sql_stmt *stmt, struct lmo_migration *m, struct lmo_err *err)
{
    char id[LMO_ID_MAX];
    const char *text = lmo_sql_text(stmt, 1);
    int r = lmo_sql_copy(stmt, 0, id, sizeof(id));
    if (r < 0) {
        return lmo_fail(err, LMO_E_CORRUPT, "a stored migration's id is longer than %d characters", LMO_ID_MAX - 1);
    }
    r = lmo_record_decode(text, strlen(text), m, err);
    const char *broken = r == 0 ? lmo_migration_broken(m) : NULL;
    if (r == 0 && strcmp(m->id, id) != 0) {
        broken = "its id is another one than its row's";
    }
    if (broken) {
        r = lmo_fail(err, LMO_E_CORRUPT, "stored record is broken: %s", broken);
    }
    return r < 0 ? lmo_err_prefix(err, "migration %s", id) : 0;
}

/* One record that cannot be read must not keep all others from being driven. Its row stays as it is: its guest takes no
 * other migration (the unique index), and whoever repairs it finds everything. */
static int set_aside(struct lmo_store *s, struct lmo_sql_stmt *stmt, const struct lmo_err *why, struct lmo_err *err)
{
    struct lmo_quarantine_row row = {.at_ms = lmo_sql_i64(stmt, 4)};
    (void)!lmo_sql_copy(stmt, 0, row.migration, sizeof(row.migration)); /* what does not fit is part of what is wrong */
    (void)!lmo_sql_copy(stmt, 3, row.vm_uuid, sizeof(row.vm_uuid));
    snprintf(row.why, sizeof(row.why), "%.250s", why->text);
    lmo_log(LMO_LOG_ERROR, "stored migration cannot be read: set aside, nothing is done about it",
            "migration=%s vm=%s why=%s", row.migration, row.vm_uuid, row.why);
    return lmo_sqlite_quarantine(s, &row, err);
}

int lmo_sqlite_load_open(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_migration *m, const char *xml),
                         void *arg, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    LMO_AUTO_FREE struct lmo_migration *m = malloc(sizeof(*m));
    if (!m) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    int r = lmo_sql_exec(sqlite_of(s)->db, "DELETE FROM quarantine", err); /* whatever was wrong is looked at anew */
    if (r == 0) {
        r = lmo_sql_prepare(
            sqlite_of(s)->db,
            "SELECT m.id, m.record, x.xml, m.vm_uuid, m.updated_ms FROM migration m"
            " LEFT JOIN migration_xml x ON x.migration = m.id AND m.phase IN (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
            " WHERE m.terminal = 0 ORDER BY m.id",
            &stmt, err);
    }
    /* Elsewhere nothing asks for the guest's XML, and it is larger than the record. */
    static const enum lmo_phase with_xml[] = {LMO_PHASE_QUEUED,        LMO_PHASE_PRECHECK, LMO_PHASE_DESTINATION_CREATE,
                                              LMO_PHASE_VOLUME_ATTACH, LMO_PHASE_CUTOVER,  LMO_PHASE_ROLLBACK,
                                              LMO_PHASE_ATTENTION};
    for (int i = 0; r == 0 && i < 7; i++) {
        lmo_sql_bind_text(stmt, i + 1, lmo_phase_text(with_xml[i]));
    }
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        struct lmo_err why = {0};
        r = read_record(stmt, m, &why);
        if (r == LMO_E_CORRUPT) {
            r = set_aside(s, stmt, &why, err);
        } else if (r < 0) {
            r = lmo_fail(err, r, "%s", why.text);
        } else {
            r = cb(arg, m, lmo_sql_is_null(stmt, 2) ? NULL : lmo_sql_text(stmt, 2));
        }
    }
    return r < 0 ? r : 0; /* a callback that had enough returns more than 0 */
}

int lmo_sqlite_get(struct lmo_store *s, const char *id, struct lmo_migration *ret, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r = lmo_sql_prepare(sqlite_of(s)->db, "SELECT id, record FROM migration WHERE id = ?", &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, id);
    r = lmo_sql_step(stmt, err);
    if (r == 0) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "migration %.40s is not known", id);
    }
    return r < 0 ? r : read_record(stmt, ret, err);
}

/* One statement per combination of filters, so that each can use its index. ?1 phase, ?2 vm, ?3 below, ?4 limit, ?5 from, ?6
 * host, ?7 terminal. Of an id's first ten characters, which are its time, "from" and "below" are made. */
static const char *list_statement(bool by_phase, bool by_vm, bool by_host, bool by_state)
{
#define PAGE  " LEFT JOIN migration_summary s ON s.id = m.id WHERE m.id < ?3 AND m.id >= ?5"
#define PHASE " AND m.phase = ?1"
#define VM    " AND (m.vm_uuid = ?2 OR m.vm_name = ?2)"
#define STATE " AND m.terminal = ?7"
#define ALL(what)   "SELECT m.id, s.summary FROM migration m" PAGE what " ORDER BY m.id DESC LIMIT ?4"
#define HOST(what)                                                                                                \
    "SELECT m.id, s.summary FROM migration_host h CROSS JOIN migration m ON m.id = h.id" PAGE " AND h.host = ?6"  \
    " AND h.id < ?3 AND h.id >= ?5" what " ORDER BY h.id DESC LIMIT ?4"
    static const char *const sql[16] = {
        ALL(""),        ALL(PHASE),        ALL(VM),        ALL(PHASE VM),        ALL(STATE),        ALL(PHASE STATE),
        ALL(VM STATE),  ALL(PHASE VM STATE), HOST(""),     HOST(PHASE),          HOST(VM),          HOST(PHASE VM),
        HOST(STATE),    HOST(PHASE STATE), HOST(VM STATE), HOST(PHASE VM STATE),
    };
#undef PAGE
#undef PHASE
#undef VM
#undef STATE
#undef ALL
#undef HOST
    return sql[(by_phase ? 1 : 0) + (by_vm ? 2 : 0) + (by_state ? 4 : 0) + (by_host ? 8 : 0)];
}

int lmo_sqlite_list(struct lmo_store *s, const struct lmo_migration_filter *f, unsigned limit,
                    int (*cb)(void *arg, const char *id, const char *summary), void *arg, struct lmo_err *err)
{
    static const uint8_t zeros[10];
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    char from[LMO_ID_MAX] = "", below[LMO_ID_MAX] = "~"; /* above every ULID */
    if (f->since_ms > 0) {
        lmo_ulid_format((uint64_t)f->since_ms, zeros, from);
    }
    if (f->until_ms > 0) {
        lmo_ulid_format((uint64_t)f->until_ms, zeros, below);
    }
    if (f->before[0] && strcmp(f->before, below) < 0) {
        LMO_COPY(below, f->before);
    }
    int r = lmo_sql_prepare(sqlite_of(s)->db,
                            list_statement(f->phase[0], f->vm[0], f->host[0], f->state != LMO_ANY_STATE), &stmt, err);
    if (r < 0) {
        return r;
    }
    if (f->phase[0]) {
        lmo_sql_bind_text(stmt, 1, f->phase);
    }
    if (f->vm[0]) {
        lmo_sql_bind_text(stmt, 2, f->vm);
    }
    lmo_sql_bind_text(stmt, 3, below);
    lmo_sql_bind_u64(stmt, 4, limit);
    lmo_sql_bind_text(stmt, 5, from);
    if (f->host[0]) {
        lmo_sql_bind_text(stmt, 6, f->host);
    }
    if (f->state != LMO_ANY_STATE) {
        lmo_sql_bind_i64(stmt, 7, f->state == LMO_ENDED_ONLY);
    }
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        char id[LMO_ID_MAX];
        r = lmo_sql_copy(stmt, 0, id, sizeof(id));
        if (r < 0) {
            lmo_log(LMO_LOG_ERROR, "stored migration cannot be read: left out of a list", "why=its id is too long");
            r = 0;
        } else {
            r = cb(arg, id, lmo_sql_is_null(stmt, 1) ? NULL : lmo_sql_text(stmt, 1));
        }
    }
    return r < 0 ? r : 0; /* a callback that had enough returns more than 0 */
}

int lmo_sqlite_journal(struct lmo_store *s, const char *id, uint64_t after, unsigned limit,
                       int (*cb)(void *arg, uint64_t n, const struct lmo_journal_line *l), void *arg, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r = lmo_sql_prepare(sqlite_of(s)->db,
                            "SELECT migration, at_ms, phase, what, why, n FROM journal WHERE migration = ? AND n > ?"
                            " ORDER BY n LIMIT ?",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, id);
    lmo_sql_bind_u64(stmt, 2, after);
    lmo_sql_bind_i64(stmt, 3, limit > 0 ? (int64_t)limit : -1);
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        struct lmo_journal_line line = {.at_ms = lmo_sql_i64(stmt, 1)};
        if (lmo_sql_copy(stmt, 0, line.migration, sizeof(line.migration)) < 0 ||
            lmo_sql_copy(stmt, 2, line.phase, sizeof(line.phase)) < 0 ||
            lmo_sql_copy(stmt, 3, line.what, sizeof(line.what)) < 0 ||
            lmo_sql_copy(stmt, 4, line.why, sizeof(line.why)) < 0) {
            return lmo_fail(err, LMO_E_CORRUPT, "migration %.40s: a stored journal line is too long", id);
        }
        r = cb(arg, lmo_sql_u64(stmt, 5), &line);
    }
    return r < 0 ? r : 0; /* a callback that had enough returns more than 0 */
}

static struct lmo_host_limits read_limits(struct lmo_sql_stmt *stmt)
{
    return (struct lmo_host_limits){
        .given = (lmo_sql_is_null(stmt, 3) ? 0U : LMO_HOST_LIMIT_INCOMING) |
                 (lmo_sql_is_null(stmt, 4) ? 0U : LMO_HOST_LIMIT_OUTGOING) |
                 (lmo_sql_is_null(stmt, 5) ? 0U : LMO_HOST_LIMIT_BANDWIDTH) |
                 (lmo_sql_is_null(stmt, 6) ? 0U : LMO_HOST_LIMIT_KEEP_FREE),
        .max_incoming = (uint32_t)lmo_sql_u64(stmt, 3),
        .max_outgoing = (uint32_t)lmo_sql_u64(stmt, 4),
        .max_bandwidth_bytes_per_s = lmo_sql_u64(stmt, 5),
        .memory_keep_free_bytes = lmo_sql_u64(stmt, 6),
    };
}

int lmo_sqlite_host_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_host_row *h), void *arg,
                         struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r = lmo_sql_prepare(sqlite_of(s)->db, 
                            "SELECT name, url, cursor, max_incoming, max_outgoing, max_bandwidth_bytes_per_s,"
                            " memory_keep_free_bytes FROM host ORDER BY name",
                            &stmt, err);
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        struct lmo_host_row h = {.cursor = lmo_sql_u64(stmt, 2), .limits = read_limits(stmt)};
        if (lmo_sql_copy(stmt, 0, h.name, sizeof(h.name)) < 0 || lmo_sql_copy(stmt, 1, h.url, sizeof(h.url)) < 0) {
            return lmo_fail(err, LMO_E_CORRUPT, "a stored host's name or URL is too long");
        }
        r = cb(arg, &h);
    }
    return r < 0 ? r : 0; /* a callback that had enough returns more than 0 */
}
