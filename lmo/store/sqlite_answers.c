/* sqlite_answers.c - answers to requests with an idempotency key, and bearer tokens. */
#include "store/sqlite_internal.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ answers */

int lmo_sqlite_answer(struct lmo_store *s, const char *principal, const char *key, struct lmo_kept_answer *ret,
                      char **ret_body, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    struct lmo_kept_answer a = {0};
    int r = lmo_sql_prepare(sqlite_of(s)->db,
                            "SELECT hash, status, location, etag, body, created_ms FROM kept_answer"
                            " WHERE principal = ? AND key = ?",
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
    a.status = (unsigned)lmo_sql_u64(stmt, 1);
    a.created_ms = lmo_sql_i64(stmt, 5);
    LMO_COPY(a.principal, principal);
    LMO_COPY(a.key, key);
    if (lmo_sql_copy(stmt, 0, a.hash, sizeof(a.hash)) < 0 || lmo_sql_copy(stmt, 2, a.location, sizeof(a.location)) < 0 ||
        lmo_sql_copy(stmt, 3, a.etag, sizeof(a.etag)) < 0) {
        return lmo_fail(err, LMO_E_CORRUPT, "stored answer: a value is too long");
    }
    char *body = strdup(lmo_sql_text(stmt, 4));
    if (!body) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    a.body = *ret_body = body;
    *ret = a;
    return 0;
}

int lmo_sqlite_answer_with(struct lmo_store *s, const struct lmo_kept_answer *a)
{
    struct sqlite_store *st = sqlite_of(s);
    char *body = strdup(a->body);
    if (!body) {
        return LMO_E_NO_MEMORY;
    }
    lmo_sqlite_with_forget(st);
    st->with = *a;
    st->with.next = NULL;
    st->with.body = st->with_body = body;
    return 0;
}

int lmo_sqlite_answer_put(struct sqlite_store *st, const struct lmo_kept_answer *a)
{
    struct lmo_kept_answer *copy = malloc(sizeof *copy);
    char *body = strdup(a->body);
    if (!copy || !body) {
        free(copy);
        free(body);
        return LMO_E_NO_MEMORY;
    }
    *copy = *a;
    copy->body = body;
    copy->next = st->answers;
    st->answers = copy;
    return 0;
}

void lmo_sqlite_answers_written(struct sqlite_store *st)
{
    while (st->answers) {
        const struct lmo_kept_answer *a = st->answers;
        st->answers = a->next;
        free((char *)(uintptr_t)a->body);
        free((void *)(uintptr_t)a);
    }
}

void lmo_sqlite_with_forget(struct sqlite_store *st)
{
    free(st->with_body);
    st->with_body = NULL;
    st->with.key[0] = '\0';
}

static int forget_old(struct sqlite_store *st, int64_t now_ms, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db, "DELETE FROM kept_answer WHERE created_ms < ?", &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_i64(stmt, 1, now_ms - LMO_ANSWER_KEPT_MS);
    return lmo_sql_run(stmt, NULL, err);
}

int lmo_sqlite_answers_write(struct sqlite_store *st, const struct lmo_kept_answer *list, struct lmo_err *err)
{
    int r = list ? forget_old(st, list->created_ms, err) : 0;
    for (const struct lmo_kept_answer *a = list; r == 0 && a; a = a->next) {
        struct lmo_sql_stmt *stmt;
        r = lmo_sql_prepare(st->db,
                            "INSERT INTO kept_answer (principal, key, hash, status, location, etag, body, created_ms)"
                            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                            &stmt, err);
        if (r < 0) {
            return r;
        }
        lmo_sql_bind_text(stmt, 1, a->principal);
        lmo_sql_bind_text(stmt, 2, a->key);
        lmo_sql_bind_text(stmt, 3, a->hash);
        lmo_sql_bind_u64(stmt, 4, a->status);
        lmo_sql_bind_text(stmt, 5, a->location);
        lmo_sql_bind_text(stmt, 6, a->etag);
        lmo_sql_bind_text(stmt, 7, a->body);
        lmo_sql_bind_i64(stmt, 8, a->created_ms);
        r = lmo_sql_run(stmt, NULL, err);
        r = r == LMO_E_CONFLICT ? lmo_fail(err, r, "this idempotency key is in use already") : r;
    }
    return r;
}

int lmo_sqlite_with_write(struct sqlite_store *st, struct lmo_err *err)
{
    return st->with.key[0] ? lmo_sqlite_answers_write(st, &st->with, err) : 0;
}

/* ------------------------------------------------------------------ tokens */

int lmo_sqlite_token_put(struct lmo_store *s, const struct lmo_token_row *t, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    /* One that has expired and was never revoked does not keep its name. */
    int r = lmo_sql_prepare(sqlite_of(s)->db,
                            "UPDATE token SET revoked_ms = expires_ms WHERE name = ? AND revoked_ms IS NULL AND expires_ms <= ?",
                            &stmt, err);
    if (r == 0) {
        lmo_sql_bind_text(stmt, 1, t->name);
        lmo_sql_bind_i64(stmt, 2, t->created_ms);
        r = lmo_sql_run(stmt, NULL, err);
    }
    if (r == 0) {
        r = lmo_sql_prepare(sqlite_of(s)->db,
                            "INSERT INTO token (id, name, role, hash, created_ms, expires_ms, created_by)"
                            " VALUES (?, ?, ?, ?, ?, ?, ?)",
                            &stmt, err);
    }
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, t->id);
    lmo_sql_bind_text(stmt, 2, t->name);
    lmo_sql_bind_text(stmt, 3, t->role);
    lmo_sql_bind_text(stmt, 4, t->hash);
    lmo_sql_bind_i64(stmt, 5, t->created_ms);
    lmo_sql_bind_i64(stmt, 6, t->expires_ms);
    lmo_sql_bind_text(stmt, 7, t->created_by);
    r = lmo_sqlite_run_alone(sqlite_of(s), stmt, NULL, err);
    bool overtaken = r == LMO_E_CONFLICT && lmo_sqlite_check_term(s, NULL) == LMO_E_CONFLICT;
    return r == LMO_E_CONFLICT && !overtaken ? lmo_fail(err, r, "a token named %s is in force already", t->name) : r;
}

int lmo_sqlite_token_revoke(struct lmo_store *s, const char *id, int64_t at_ms, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    uint64_t changes = 0;
    int r = lmo_sql_prepare(sqlite_of(s)->db, "UPDATE token SET revoked_ms = ?2 WHERE id = ?1 AND revoked_ms IS NULL", &stmt,
                            err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, id);
    lmo_sql_bind_i64(stmt, 2, at_ms);
    r = lmo_sqlite_run_alone(sqlite_of(s), stmt, &changes, err);
    return r == 0 && changes == 0 ? lmo_fail(err, LMO_E_NOT_FOUND, "no token in force has this id") : r;
}

int lmo_sqlite_token_list(struct lmo_store *s, int64_t now_ms, int (*cb)(void *arg, const struct lmo_token_row *t), void *arg,
                          struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r = lmo_sql_prepare(sqlite_of(s)->db,
                            "SELECT id, name, role, hash, created_ms, expires_ms, created_by FROM token"
                            " WHERE revoked_ms IS NULL AND expires_ms > ? ORDER BY id",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_i64(stmt, 1, now_ms);
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        struct lmo_token_row t = {.created_ms = lmo_sql_i64(stmt, 4), .expires_ms = lmo_sql_i64(stmt, 5)};
        if (lmo_sql_copy(stmt, 0, t.id, sizeof(t.id)) < 0 || lmo_sql_copy(stmt, 1, t.name, sizeof(t.name)) < 0 ||
            lmo_sql_copy(stmt, 2, t.role, sizeof(t.role)) < 0 || lmo_sql_copy(stmt, 3, t.hash, sizeof(t.hash)) < 0 ||
            lmo_sql_copy(stmt, 6, t.created_by, sizeof(t.created_by)) < 0) {
            return lmo_fail(err, LMO_E_CORRUPT, "a stored token's value is too long");
        }
        r = cb(arg, &t);
    }
    return r < 0 ? r : 0;
}
