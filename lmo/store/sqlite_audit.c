/* sqlite_audit.c - the audit trail, and the migrations that are set aside. */
#include "store/sqlite_internal.h"

#include "base/cleanup.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ audit */

int lmo_sqlite_audit(struct lmo_store *s, const struct lmo_audit_line *l)
{
    struct sqlite_store *st = sqlite_of(s);
    if (st->audit_count >= LMO_AUDIT_PENDING_MAX) {
        return LMO_E_LIMIT;
    }
    if (st->audit_count == st->audit_size) {
        unsigned size = st->audit_size ? 2 * st->audit_size : 16;
        struct lmo_audit_line *grown = realloc(st->audit, size * sizeof *grown);
        if (!grown) {
            return LMO_E_NO_MEMORY;
        }
        st->audit = grown;
        st->audit_size = size;
    }
    st->audit[st->audit_count++] = *l;
    return 0;
}

static int write_line(struct sqlite_store *st, const struct lmo_audit_line *l, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(
        st->db,
        "INSERT INTO audit (at_ms, request, principal, remote, action, migration, host, outcome, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_i64(stmt, 1, l->at_ms);
    lmo_sql_bind_text(stmt, 2, l->request);
    lmo_sql_bind_text(stmt, 3, l->principal);
    lmo_sql_bind_text(stmt, 4, l->remote);
    lmo_sql_bind_text(stmt, 5, l->action);
    lmo_sql_bind_text(stmt, 6, l->migration);
    lmo_sql_bind_text(stmt, 7, l->host);
    lmo_sql_bind_text(stmt, 8, l->outcome);
    lmo_sql_bind_text(stmt, 9, l->detail);
    return lmo_sql_run(stmt, NULL, err);
}

int lmo_sqlite_audit_write(struct sqlite_store *st, struct lmo_err *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < st->audit_count; i++) {
        r = write_line(st, &st->audit[i], err);
    }
    return r;
}

void lmo_sqlite_audit_written(struct sqlite_store *st)
{
    st->audit_count = 0;
}

/* One statement per index; the other filters are looked at line by line. */
static const char *list_statement(bool by_migration, bool by_host)
{
#define LIST(where)                                                                                               \
    "SELECT n, at_ms, request, principal, remote, action, migration, host, outcome, detail FROM audit WHERE n < " \
    "?1" where " AND (?5 = '' OR principal = ?5) AND at_ms >= ?6 AND at_ms < ?7 ORDER BY n DESC LIMIT ?2"
    static const char *const sql[4] = {LIST(""), LIST(" AND migration = ?3"), LIST(" AND host = ?4"),
                                       LIST(" AND migration = ?3 AND host = ?4")};
#undef LIST
    return sql[(by_migration ? 1 : 0) + (by_host ? 2 : 0)];
}

int lmo_sqlite_audit_list(struct lmo_store *s, const struct lmo_audit_filter *f, uint64_t before, unsigned limit,
                          int (*cb)(void *arg, const struct lmo_audit_line *l), void *arg, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    bool by_migration = f->migration && f->migration[0], by_host = f->host && f->host[0];
    int r = lmo_sql_prepare(sqlite_of(s)->db, list_statement(by_migration, by_host), &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_u64(stmt, 1, before ? before : INT64_MAX);
    lmo_sql_bind_u64(stmt, 2, limit);
    if (by_migration) {
        lmo_sql_bind_text(stmt, 3, f->migration);
    }
    if (by_host) {
        lmo_sql_bind_text(stmt, 4, f->host);
    }
    lmo_sql_bind_text(stmt, 5, f->principal ? f->principal : "");
    lmo_sql_bind_i64(stmt, 6, f->since_ms);
    lmo_sql_bind_i64(stmt, 7, f->until_ms ? f->until_ms : INT64_MAX);
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        struct lmo_audit_line l = {.n = lmo_sql_u64(stmt, 0), .at_ms = lmo_sql_i64(stmt, 1)};
        if (lmo_sql_copy(stmt, 2, l.request, sizeof l.request) < 0 ||
            lmo_sql_copy(stmt, 3, l.principal, sizeof l.principal) < 0 ||
            lmo_sql_copy(stmt, 4, l.remote, sizeof l.remote) < 0 ||
            lmo_sql_copy(stmt, 5, l.action, sizeof l.action) < 0 ||
            lmo_sql_copy(stmt, 6, l.migration, sizeof l.migration) < 0 ||
            lmo_sql_copy(stmt, 7, l.host, sizeof l.host) < 0 ||
            lmo_sql_copy(stmt, 8, l.outcome, sizeof l.outcome) < 0 ||
            lmo_sql_copy(stmt, 9, l.detail, sizeof l.detail) < 0) {
            return lmo_fail(err, LMO_E_CORRUPT, "a stored audit line is too long");
        }
        r = cb(arg, &l);
    }
    return r < 0 ? r : 0;
}

/* ------------------------------------------------------------------ quarantine */

int lmo_sqlite_quarantine(struct lmo_store *s, const struct lmo_quarantine_row *row, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(sqlite_of(s)->db,
                            "INSERT INTO quarantine (migration, vm_uuid, at_ms, why) VALUES (?, ?, ?, ?)"
                            " ON CONFLICT (migration) DO UPDATE SET why = excluded.why",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, row->migration);
    lmo_sql_bind_text(stmt, 2, row->vm_uuid);
    lmo_sql_bind_i64(stmt, 3, row->at_ms);
    lmo_sql_bind_text(stmt, 4, row->why);
    return lmo_sql_run(stmt, NULL, err);
}

int lmo_sqlite_quarantine_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_quarantine_row *row),
                               void *arg, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r = lmo_sql_prepare(sqlite_of(s)->db,
                            "SELECT migration, vm_uuid, at_ms, why FROM quarantine ORDER BY migration", &stmt, err);
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        struct lmo_quarantine_row row = {.at_ms = lmo_sql_i64(stmt, 2)};
        (void)!lmo_sql_copy(stmt, 0, row.migration, sizeof row.migration); /* cut or empty: what is there is shown */
        (void)!lmo_sql_copy(stmt, 1, row.vm_uuid, sizeof row.vm_uuid);
        (void)!lmo_sql_copy(stmt, 3, row.why, sizeof row.why);
        r = cb(arg, &row);
    }
    return r < 0 ? r : 0;
}
