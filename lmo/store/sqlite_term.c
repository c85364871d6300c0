/* sqlite_term.c - the coordinator's term: raised once at open, looked at in every transaction that writes. */
#include "store/sqlite_internal.h"

#include <inttypes.h>
#include <stdio.h>

int lmo_sqlite_take_term(struct sqlite_store *st, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_begin(st->db, err);
    if (r == 0) {
        r = lmo_sql_prepare(st->db,
                            "INSERT INTO coordinator (one, term) VALUES (1, 1)"
                            " ON CONFLICT (one) DO UPDATE SET term = term + 1 RETURNING term",
                            &stmt, err);
    }
    if (r == 0) {
        r = lmo_sql_step(stmt, err);
        if (r == 1) {
            st->term = lmo_sql_u64(stmt, 0);
            lmo_sql_reset(stmt);
            r = lmo_sql_commit(st->db, err);
        } else if (r == 0) {
            r = lmo_fail(err, LMO_E_INTERNAL, "no term was returned");
        }
    }
    if (r < 0) {
        lmo_sql_rollback(st->db);
        return lmo_err_prefix(err, "taking the coordinator's term");
    }
    return 0;
}

int lmo_sqlite_check_term(struct lmo_store *s, struct lmo_err *err)
{
    struct sqlite_store *st = sqlite_of(s);
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r = lmo_sql_prepare(st->db, "SELECT term FROM coordinator WHERE one = 1", &stmt, err);
    if (r == 0) {
        r = lmo_sql_step(stmt, err);
    }
    if (r < 0) {
        return r;
    }
    uint64_t now = r == 1 ? lmo_sql_u64(stmt, 0) : 0;
    return now == st->term
               ? 0
               : lmo_fail(err, LMO_E_CONFLICT,
                          "another coordinator has taken over: its term is %" PRIu64 ", this one's %" PRIu64, now,
                          st->term);
}

uint64_t lmo_sqlite_term(const struct lmo_store *s)
{
    return ((const struct sqlite_store *)(const void *)s)->term;
}

/* The number in the file's header that SQLite leaves to its users; nobody reads this one. It is another one each time: a page
 * that stays as it was need not be written. */
int lmo_sqlite_beat(struct lmo_store *s, struct lmo_err *err)
{
    struct sqlite_store *st = sqlite_of(s);
    char sql[64];
    (void)snprintf(sql, sizeof(sql), "PRAGMA user_version = %u", (unsigned)((st->term * 65536 + ++st->beats) & 0x7fffffff));
    int r = lmo_sql_begin(st->db, err);
    if (r == 0) {
        r = lmo_sqlite_check_term(s, err);
    }
    if (r == 0) {
        r = lmo_sql_exec(st->db, sql, err);
    }
    if (r == 0) {
        r = lmo_sql_commit(st->db, err);
    }
    if (r < 0) {
        lmo_sql_rollback(st->db);
        return lmo_err_prefix(err, "the store's trial commit");
    }
    return 0;
}
