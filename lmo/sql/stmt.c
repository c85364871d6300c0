/* stmt.c - the statement cache, binds, steps and columns. */
#include "sql/internal.h"
#include "base/assert.h"

#include <stdio.h>
#include <string.h>

static struct lmo_sql_stmt **bucket_of(struct lmo_sql *db, const char *sql)
{
    size_t i = (size_t)(((uintptr_t)sql * UINT64_C(0x9E3779B97F4A7C15)) >> 32) % LMO_SQL_BUCKETS;
    while (db->buckets[i] && db->buckets[i]->sql != sql)
        i = (i + 1) % LMO_SQL_BUCKETS;
    return &db->buckets[i];
}

int lmo_sql_prepare(struct lmo_sql *db, const char *sql, struct lmo_sql_stmt **ret_stmt, struct lmo_err *err)
{
    struct lmo_sql_stmt **bucket = bucket_of(db, sql), *stmt = *bucket;
    if (stmt) {
        lmo_assert(!stmt->stepping && strcmp(sqlite3_sql(stmt->handle), sql) == 0);
        sqlite3_clear_bindings(stmt->handle);
        stmt->bind_code = 0;
        *ret_stmt = stmt;
        return 0;
    }
    if (db->statement_count == LMO_SQL_STATEMENTS_MAX)
        return lmo_fail(err, LMO_E_INTERNAL, "database: more than %d different statements", LMO_SQL_STATEMENTS_MAX);
    sqlite3_stmt *handle = NULL;
    const char *tail = NULL;
    int rc = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &handle, &tail);
    char what[64];
    snprintf(what, sizeof what, "%.60s", sql);
    if (rc != SQLITE_OK)
        return lmo_sql_error(db->handle, rc, what, err);
    if (!handle || (tail && tail[strspn(tail, " \n\t;")] != '\0')) {
        sqlite3_finalize(handle);
        return lmo_fail(err, LMO_E_INVALID, "database: %s: must be exactly one statement", what);
    }
    stmt = &db->statements[db->statement_count++];
    *stmt = (struct lmo_sql_stmt){.db = db, .handle = handle, .sql = sql};
    *bucket = stmt;
    *ret_stmt = stmt;
    return 0;
}

void lmo_sql_cache_clear(struct lmo_sql *db)
{
    for (size_t i = 0; i < db->statement_count; i++)
        sqlite3_finalize(db->statements[i].handle);
    db->statement_count = 0;
    memset(db->buckets, 0, sizeof db->buckets);
}

void lmo_sql_cache_reset(struct lmo_sql *db)
{
    for (size_t i = 0; i < db->statement_count; i++)
        lmo_sql_reset(&db->statements[i]);
}

void lmo_sql_reset(struct lmo_sql_stmt *stmt)
{
    if (!stmt)
        return;
    (void)sqlite3_reset(stmt->handle); /* repeats the last step's error, which was reported */
    stmt->stepping = false;
}

/* ---- parameters ---- */

static void bound(struct lmo_sql_stmt *stmt, int index, int rc)
{
    if (rc == SQLITE_OK || stmt->bind_code)
        return;
    struct lmo_err err = {0};
    char what[48];
    snprintf(what, sizeof what, "parameter %d", index);
    stmt->bind_code = lmo_sql_error(NULL, rc, what, &err);
    snprintf(stmt->bind_text, sizeof stmt->bind_text, "%.60s", err.text);
}

void lmo_sql_bind_text(struct lmo_sql_stmt *stmt, int index, const char *text)
{
    bound(stmt, index,
          text ? sqlite3_bind_text(stmt->handle, index, text, -1, SQLITE_TRANSIENT)
               : sqlite3_bind_null(stmt->handle, index));
}

void lmo_sql_bind_borrowed(struct lmo_sql_stmt *stmt, int index, const char *text, size_t len)
{
    bound(stmt, index, sqlite3_bind_text64(stmt->handle, index, text, len, SQLITE_STATIC, SQLITE_UTF8));
}

void lmo_sql_bind_blob(struct lmo_sql_stmt *stmt, int index, const void *data, size_t len)
{
    bound(stmt, index,
          len ? sqlite3_bind_blob64(stmt->handle, index, data, len, SQLITE_TRANSIENT)
              : sqlite3_bind_zeroblob(stmt->handle, index, 0));
}

void lmo_sql_bind_i64(struct lmo_sql_stmt *stmt, int index, int64_t value)
{
    bound(stmt, index, sqlite3_bind_int64(stmt->handle, index, value));
}

void lmo_sql_bind_u64(struct lmo_sql_stmt *stmt, int index, uint64_t value)
{
    bound(stmt, index, value <= INT64_MAX ? sqlite3_bind_int64(stmt->handle, index, (int64_t)value) : SQLITE_TOOBIG);
}

void lmo_sql_bind_null(struct lmo_sql_stmt *stmt, int index)
{
    bound(stmt, index, sqlite3_bind_null(stmt->handle, index));
}

/* ---- results ---- */

int lmo_sql_step(struct lmo_sql_stmt *stmt, struct lmo_err *err)
{
    if (stmt->bind_code) {
        lmo_sql_reset(stmt);
        return lmo_fail(err, stmt->bind_code, "%s in %.120s", stmt->bind_text, stmt->sql);
    }
    int rc = sqlite3_step(stmt->handle);
    if (rc == SQLITE_ROW) {
        stmt->stepping = true;
        return 1;
    }
    int r = 0;
    if (rc != SQLITE_DONE) {
        char what[64];
        snprintf(what, sizeof what, "%.60s", stmt->sql);
        r = lmo_sql_error(stmt->db->handle, rc, what, err);
    }
    lmo_sql_reset(stmt);
    return r;
}

int lmo_sql_run(struct lmo_sql_stmt *stmt, uint64_t *ret_changes, struct lmo_err *err)
{
    int r = lmo_sql_step(stmt, err);
    if (r == 1) {
        lmo_sql_reset(stmt);
        return lmo_fail(err, LMO_E_INVALID, "database: %.60s: returns rows", stmt->sql);
    }
    if (r == 0 && ret_changes)
        *ret_changes = (uint64_t)sqlite3_changes64(stmt->db->handle);
    return r;
}

const char *lmo_sql_text(struct lmo_sql_stmt *stmt, int column)
{
    lmo_assert(stmt->stepping);
    const unsigned char *text = sqlite3_column_text(stmt->handle, column);
    /* Without memory SQLite says NULL, too: an empty text would then be taken for what is stored. */
    lmo_assert(text || sqlite3_column_type(stmt->handle, column) == SQLITE_NULL);
    return text ? (const char *)text : "";
}

int64_t lmo_sql_i64(struct lmo_sql_stmt *stmt, int column)
{
    lmo_assert(stmt->stepping);
    return sqlite3_column_int64(stmt->handle, column);
}

uint64_t lmo_sql_u64(struct lmo_sql_stmt *stmt, int column)
{
    int64_t value = lmo_sql_i64(stmt, column);
    return value > 0 ? (uint64_t)value : 0;
}

bool lmo_sql_is_null(struct lmo_sql_stmt *stmt, int column)
{
    lmo_assert(stmt->stepping);
    return sqlite3_column_type(stmt->handle, column) == SQLITE_NULL;
}

const void *lmo_sql_blob(struct lmo_sql_stmt *stmt, int column, size_t *ret_len)
{
    lmo_assert(stmt->stepping);
    const void *data = sqlite3_column_blob(stmt->handle, column);
    *ret_len = (size_t)sqlite3_column_bytes(stmt->handle, column);
    return data ? data : "";
}

int lmo_sql_copy(struct lmo_sql_stmt *stmt, int column, char *ret_buf, size_t size)
{
    lmo_assert(size > 0);
    const char *text = lmo_sql_text(stmt, column);
    size_t len = strlen(text);
    ret_buf[0] = '\0';
    if (len >= size)
        return LMO_E_TOO_LARGE;
    memcpy(ret_buf, text, len + 1);
    return 0;
}
