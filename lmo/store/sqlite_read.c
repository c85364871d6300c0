/* sqlite_read.c - everything that reads the database. Invariants: sqlite.c. A callback may write; it must not call the
 * same reading function again before that returned. */
#include "store/sqlite_internal.h"

#include "base/cleanup.h"
#include "base/log.h"
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

/* One statement per combination of filters, so that each can use its index. ?1 phase, ?2 vm, ?3 before, ?4 limit. */
static const char *list_statement(bool by_phase, bool by_vm)
{
#define LIST(where) "SELECT id, record FROM migration WHERE id < ?3" where " ORDER BY id DESC LIMIT ?4"
    if (by_phase) {
        return by_vm ? LIST(" AND phase = ?1 AND (vm_uuid = ?2 OR vm_name = ?2)") : LIST(" AND phase = ?1");
    }
    return by_vm ? LIST(" AND (vm_uuid = ?2 OR vm_name = ?2)") : LIST("");
#undef LIST
}

int lmo_sqlite_list(struct lmo_store *s, const char *phase, const char *vm, const char *before, unsigned limit,
                    int (*cb)(void *arg, const struct lmo_migration *m), void *arg, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    LMO_AUTO_FREE struct lmo_migration *m = malloc(sizeof(*m));
    bool by_phase = phase && phase[0], by_vm = vm && vm[0];
    if (!m) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    int r = lmo_sql_prepare(sqlite_of(s)->db, list_statement(by_phase, by_vm), &stmt, err);
    if (r < 0) {
        return r;
    }
    if (by_phase) {
        lmo_sql_bind_text(stmt, 1, phase);
    }
    if (by_vm) {
        lmo_sql_bind_text(stmt, 2, vm);
    }
    lmo_sql_bind_text(stmt, 3, before && before[0] ? before : "~"); /* above every ULID */
    lmo_sql_bind_u64(stmt, 4, limit);
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        r = read_record(stmt, m, err);
        if (r == LMO_E_CORRUPT) {
            lmo_log(LMO_LOG_ERROR, "stored migration cannot be read: left out of a list", "why=%s", err ? err->text : "");
            r = 0;
        } else if (r == 0) {
            r = cb(arg, m);
        }
    }
    return r < 0 ? r : 0; /* a callback that had enough returns more than 0 */
}

int lmo_sqlite_journal(struct lmo_store *s, const char *id, int (*cb)(void *arg, const struct lmo_journal_line *l),
                       void *arg, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r = lmo_sql_prepare(sqlite_of(s)->db,
                            "SELECT migration, at_ms, phase, what, why FROM journal WHERE migration = ? ORDER BY n",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, id);
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        struct lmo_journal_line line = {.at_ms = lmo_sql_i64(stmt, 1)};
        if (lmo_sql_copy(stmt, 0, line.migration, sizeof(line.migration)) < 0 ||
            lmo_sql_copy(stmt, 2, line.phase, sizeof(line.phase)) < 0 ||
            lmo_sql_copy(stmt, 3, line.what, sizeof(line.what)) < 0 ||
            lmo_sql_copy(stmt, 4, line.why, sizeof(line.why)) < 0) {
            return lmo_fail(err, LMO_E_CORRUPT, "migration %.40s: a stored journal line is too long", id);
        }
        r = cb(arg, &line);
    }
    return r < 0 ? r : 0; /* a callback that had enough returns more than 0 */
}

int lmo_sqlite_idempotency(struct lmo_store *s, const char *principal, const char *key, char ret_hash[65],
                           char ret_migration[LMO_ID_MAX], struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    char hash[65], migration[LMO_ID_MAX];
    int r = lmo_sql_prepare(sqlite_of(s)->db, "SELECT hash, migration FROM idempotency WHERE principal = ? AND key = ?",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, principal);
    lmo_sql_bind_text(stmt, 2, key);
    r = lmo_sql_step(stmt, err);
    if (r <= 0) {
        return r < 0 ? r : lmo_fail(err, LMO_E_NOT_FOUND, "this idempotency key is new");
    }
    if (lmo_sql_copy(stmt, 0, hash, sizeof(hash)) < 0 || lmo_sql_copy(stmt, 1, migration, sizeof(migration)) < 0) {
        return lmo_fail(err, LMO_E_CORRUPT, "stored idempotency key: a value is too long");
    }
    memcpy(ret_hash, hash, sizeof(hash));
    memcpy(ret_migration, migration, sizeof(migration));
    return 0;
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
