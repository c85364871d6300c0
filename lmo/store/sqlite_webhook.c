/* sqlite_webhook.c - webhooks, their dead letters, and the hooks of guests. */
#include "store/sqlite_internal.h"

#include "base/cleanup.h"

#include <stdlib.h>

/* Runs `fn` and what was added to the event log in one transaction that looks at the term first. */
static int alone(struct lmo_store *s, int (*fn)(struct sqlite_store *st, void *arg, struct lmo_err *err), void *arg,
                 struct lmo_err *err)
{
    return lmo_sqlite_alone(sqlite_of(s), fn, arg, err);
}

/* ------------------------------------------------------------------ webhooks */

static int put(struct sqlite_store *st, void *arg, struct lmo_err *err)
{
    const struct lmo_webhook_row *w = arg;
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(
        st->db,
        "INSERT INTO webhook (id, url, types, vm, host, description, secret, old_secret, old_until_ms, created_ms,"
        " created_by, enabled, why_disabled, cursor, failing_since_ms, failures, last_error, delivered, dropped)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET url = excluded.url, types = excluded.types, vm = excluded.vm, host = "
        "excluded.host,"
        " description = excluded.description, secret = excluded.secret, old_secret = excluded.old_secret,"
        " old_until_ms = excluded.old_until_ms, enabled = excluded.enabled, why_disabled = excluded.why_disabled,"
        " cursor = excluded.cursor, failing_since_ms = excluded.failing_since_ms, failures = excluded.failures,"
        " last_error = excluded.last_error, delivered = excluded.delivered, dropped = excluded.dropped",
        &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, w->id);
    lmo_sql_bind_text(stmt, 2, w->url);
    lmo_sql_bind_text(stmt, 3, w->types);
    lmo_sql_bind_text(stmt, 4, w->vm);
    lmo_sql_bind_text(stmt, 5, w->host);
    lmo_sql_bind_text(stmt, 6, w->description);
    lmo_sql_bind_text(stmt, 7, w->secret);
    lmo_sql_bind_text(stmt, 8, w->old_secret);
    lmo_sql_bind_i64(stmt, 9, w->old_until_ms);
    lmo_sql_bind_i64(stmt, 10, w->created_ms);
    lmo_sql_bind_text(stmt, 11, w->created_by);
    lmo_sql_bind_i64(stmt, 12, w->enabled);
    lmo_sql_bind_text(stmt, 13, w->why_disabled);
    lmo_sql_bind_u64(stmt, 14, w->cursor);
    lmo_sql_bind_i64(stmt, 15, w->failing_since_ms);
    lmo_sql_bind_u64(stmt, 16, w->failures);
    lmo_sql_bind_text(stmt, 17, w->last_error);
    lmo_sql_bind_u64(stmt, 18, w->delivered);
    lmo_sql_bind_u64(stmt, 19, w->dropped);
    return lmo_sql_run(stmt, NULL, err);
}

int lmo_sqlite_webhook_put(struct lmo_store *s, const struct lmo_webhook_row *row, struct lmo_err *err)
{
    return alone(s, put, (void *)(uintptr_t)row, err);
}

/* One that was removed meanwhile has no row, and that is fine. */
static int progress(struct sqlite_store *st, void *arg, struct lmo_err *err)
{
    const struct lmo_webhook_row *w = arg;
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db,
                            "UPDATE webhook SET enabled = ?2, why_disabled = ?3, cursor = ?4, failing_since_ms = ?5,"
                            " failures = ?6, last_error = ?7, delivered = ?8, dropped = ?9 WHERE id = ?1",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, w->id);
    lmo_sql_bind_i64(stmt, 2, w->enabled);
    lmo_sql_bind_text(stmt, 3, w->why_disabled);
    lmo_sql_bind_u64(stmt, 4, w->cursor);
    lmo_sql_bind_i64(stmt, 5, w->failing_since_ms);
    lmo_sql_bind_u64(stmt, 6, w->failures);
    lmo_sql_bind_text(stmt, 7, w->last_error);
    lmo_sql_bind_u64(stmt, 8, w->delivered);
    lmo_sql_bind_u64(stmt, 9, w->dropped);
    return lmo_sql_run(stmt, NULL, err);
}

int lmo_sqlite_webhook_progress(struct lmo_store *s, const struct lmo_webhook_row *row, struct lmo_err *err)
{
    return alone(s, progress, (void *)(uintptr_t)row, err);
}

static int run_with_id(struct sqlite_store *st, const char *sql, const char *id, uint64_t *ret_changes,
                       struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db, sql, &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, id);
    return lmo_sql_run(stmt, ret_changes, err);
}

static int remove_webhook(struct sqlite_store *st, void *arg, struct lmo_err *err)
{
    uint64_t changes = 0;
    int r = run_with_id(st, "DELETE FROM dead_letter WHERE webhook = ?", arg, NULL, err);
    r = r < 0 ? r : run_with_id(st, "DELETE FROM webhook WHERE id = ?", arg, &changes, err);
    return r == 0 && changes == 0 ? lmo_fail(err, LMO_E_NOT_FOUND, "there is no such webhook") : r;
}

int lmo_sqlite_webhook_delete(struct lmo_store *s, const char *id, struct lmo_err *err)
{
    return alone(s, remove_webhook, (void *)(uintptr_t)id, err);
}

/* Collects failures of lmo_sql_copy. */
#define COPY(column, member) bad |= lmo_sql_copy(stmt, (column), (member), sizeof(member))

int lmo_sqlite_webhook_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_webhook_row *row), void *arg,
                            struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r = lmo_sql_prepare(
        sqlite_of(s)->db,
        "SELECT id, url, types, vm, host, description, secret, old_secret, old_until_ms, created_ms, created_by,"
        " enabled, why_disabled, cursor, failing_since_ms, failures, last_error, delivered, dropped FROM webhook ORDER "
        "BY id",
        &stmt, err);
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        struct lmo_webhook_row w = {.old_until_ms = lmo_sql_i64(stmt, 8),
                                    .created_ms = lmo_sql_i64(stmt, 9),
                                    .enabled = lmo_sql_i64(stmt, 11) != 0,
                                    .cursor = lmo_sql_u64(stmt, 13),
                                    .failing_since_ms = lmo_sql_i64(stmt, 14),
                                    .failures = lmo_sql_u64(stmt, 15),
                                    .delivered = lmo_sql_u64(stmt, 17),
                                    .dropped = lmo_sql_u64(stmt, 18)};
        int bad = 0;
        COPY(0, w.id);
        COPY(1, w.url);
        COPY(2, w.types);
        COPY(3, w.vm);
        COPY(4, w.host);
        COPY(5, w.description);
        COPY(6, w.secret);
        COPY(7, w.old_secret);
        COPY(10, w.created_by);
        COPY(12, w.why_disabled);
        COPY(16, w.last_error);
        r = bad ? lmo_fail(err, LMO_E_CORRUPT, "a stored webhook is too long") : cb(arg, &w);
    }
    return r < 0 ? r : 0;
}

/* ------------------------------------------------------------------ dead letters */

struct burial {
    const struct lmo_dead_letter *letter;
    const struct lmo_webhook_row *row;
    uint64_t dropped;
};

static int bury(struct sqlite_store *st, void *arg, struct lmo_err *err)
{
    struct burial *b = arg;
    const struct lmo_dead_letter *l = b->letter;
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db,
                            "INSERT INTO dead_letter (webhook, seq, at_ms, type, body, attempts, last_error, wanted)"
                            " SELECT ?, ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM webhook WHERE id = ?1)"
                            " ON CONFLICT (webhook, seq) DO UPDATE SET attempts = excluded.attempts,"
                            " last_error = excluded.last_error, wanted = excluded.wanted",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, l->webhook);
    lmo_sql_bind_u64(stmt, 2, l->seq);
    lmo_sql_bind_i64(stmt, 3, l->at_ms);
    lmo_sql_bind_text(stmt, 4, l->type);
    lmo_sql_bind_text(stmt, 5, l->body);
    lmo_sql_bind_u64(stmt, 6, l->attempts);
    lmo_sql_bind_text(stmt, 7, l->last_error);
    lmo_sql_bind_i64(stmt, 8, l->wanted);
    r = lmo_sql_run(stmt, NULL, err);
    if (r == 0) {
        r = lmo_sql_prepare(st->db,
                            "DELETE FROM dead_letter WHERE webhook = ?1 AND seq IN (SELECT seq FROM dead_letter WHERE"
                            " webhook = ?1 ORDER BY seq DESC LIMIT -1 OFFSET ?2)",
                            &stmt, err);
    }
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, l->webhook);
    lmo_sql_bind_u64(stmt, 2, LMO_DEAD_LETTERS_MAX);
    r = lmo_sql_run(stmt, &b->dropped, err);
    return r < 0 ? r : progress(st, (void *)(uintptr_t)b->row, err);
}

int lmo_sqlite_dead_put(struct lmo_store *s, const struct lmo_dead_letter *letter, const struct lmo_webhook_row *row,
                        unsigned *ret_dropped, struct lmo_err *err)
{
    struct burial b = {.letter = letter, .row = row};
    int r = alone(s, bury, &b, err);
    *ret_dropped = r == 0 ? (unsigned)b.dropped : 0;
    return r;
}

struct one_letter {
    const char *webhook;
    uint64_t seq, changes;
    bool wanted;
};

static int dig_out(struct sqlite_store *st, void *arg, struct lmo_err *err)
{
    struct one_letter *o = arg;
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db, "DELETE FROM dead_letter WHERE webhook = ? AND seq = ?", &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, o->webhook);
    lmo_sql_bind_u64(stmt, 2, o->seq);
    return lmo_sql_run(stmt, NULL, err);
}

int lmo_sqlite_dead_delete(struct lmo_store *s, const char *webhook, uint64_t seq, struct lmo_err *err)
{
    struct one_letter o = {.webhook = webhook, .seq = seq};
    return alone(s, dig_out, &o, err);
}

static int want(struct sqlite_store *st, void *arg, struct lmo_err *err)
{
    struct one_letter *o = arg;
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db, "UPDATE dead_letter SET wanted = ?3 WHERE webhook = ?1 AND (?2 = 0 OR seq = ?2)",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, o->webhook);
    lmo_sql_bind_u64(stmt, 2, o->seq);
    lmo_sql_bind_i64(stmt, 3, o->wanted);
    return lmo_sql_run(stmt, &o->changes, err);
}

int lmo_sqlite_dead_want(struct lmo_store *s, const char *webhook, uint64_t seq, bool wanted, uint64_t *ret_count,
                         struct lmo_err *err)
{
    struct one_letter o = {.webhook = webhook, .seq = seq, .wanted = wanted};
    int r = alone(s, want, &o, err);
    *ret_count = r == 0 ? o.changes : 0;
    return r;
}

int lmo_sqlite_dead_list(struct lmo_store *s, const char *webhook, bool only_wanted, uint64_t after, unsigned limit,
                         int (*cb)(void *arg, const struct lmo_dead_letter *letter), void *arg, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r = lmo_sql_prepare(sqlite_of(s)->db,
                            "SELECT webhook, seq, at_ms, type, body, attempts, last_error, wanted FROM dead_letter"
                            " WHERE webhook = ? AND seq > ? AND wanted >= ? ORDER BY seq LIMIT ?",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, webhook);
    lmo_sql_bind_u64(stmt, 2, after);
    lmo_sql_bind_i64(stmt, 3, only_wanted);
    lmo_sql_bind_u64(stmt, 4, limit);
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        struct lmo_dead_letter l = {.seq = lmo_sql_u64(stmt, 1),
                                    .at_ms = lmo_sql_i64(stmt, 2),
                                    .attempts = (unsigned)lmo_sql_u64(stmt, 5),
                                    .wanted = lmo_sql_i64(stmt, 7) != 0};
        int bad = 0;
        COPY(0, l.webhook);
        COPY(3, l.type);
        COPY(4, l.body);
        COPY(6, l.last_error);
        r = bad ? lmo_fail(err, LMO_E_CORRUPT, "a stored dead letter is too long") : cb(arg, &l);
    }
    return r < 0 ? r : 0;
}

/* ------------------------------------------------------------------ hooks of guests */

static int put_hook(struct sqlite_store *st, void *arg, struct lmo_err *err)
{
    const struct lmo_vm_hook_row *h = arg;
    struct lmo_sql_stmt *stmt;
    int r =
        lmo_sql_prepare(st->db,
                        "INSERT OR REPLACE INTO vm_hook (vm_uuid, url, deadline_ms, on_no_answer, secret, old_secret,"
                        " old_until_ms, created_ms, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, h->vm);
    lmo_sql_bind_text(stmt, 2, h->url);
    lmo_sql_bind_u64(stmt, 3, h->deadline_ms);
    lmo_sql_bind_text(stmt, 4, h->on_no_answer);
    lmo_sql_bind_text(stmt, 5, h->secret);
    lmo_sql_bind_text(stmt, 6, h->old_secret);
    lmo_sql_bind_i64(stmt, 7, h->old_until_ms);
    lmo_sql_bind_i64(stmt, 8, h->created_ms);
    lmo_sql_bind_text(stmt, 9, h->created_by);
    return lmo_sql_run(stmt, NULL, err);
}

int lmo_sqlite_vm_hook_put(struct lmo_store *s, const struct lmo_vm_hook_row *row, struct lmo_err *err)
{
    return alone(s, put_hook, (void *)(uintptr_t)row, err);
}

static int remove_hook(struct sqlite_store *st, void *arg, struct lmo_err *err)
{
    uint64_t changes = 0;
    int r = run_with_id(st, "DELETE FROM vm_hook WHERE vm_uuid = ?", arg, &changes, err);
    return r == 0 && changes == 0 ? lmo_fail(err, LMO_E_NOT_FOUND, "the guest has no hook") : r;
}

int lmo_sqlite_vm_hook_delete(struct lmo_store *s, const char *vm, struct lmo_err *err)
{
    return alone(s, remove_hook, (void *)(uintptr_t)vm, err);
}

int lmo_sqlite_vm_hook_get(struct lmo_store *s, const char *vm, struct lmo_vm_hook_row *ret, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r =
        lmo_sql_prepare(sqlite_of(s)->db,
                        "SELECT vm_uuid, url, deadline_ms, on_no_answer, secret, old_secret, old_until_ms, created_ms,"
                        " created_by FROM vm_hook WHERE vm_uuid = ?",
                        &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, vm);
    r = lmo_sql_step(stmt, err);
    if (r <= 0) {
        return r < 0 ? r : lmo_fail(err, LMO_E_NOT_FOUND, "the guest has no hook");
    }
    struct lmo_vm_hook_row h = {.deadline_ms = (uint32_t)lmo_sql_u64(stmt, 2),
                                .old_until_ms = lmo_sql_i64(stmt, 6),
                                .created_ms = lmo_sql_i64(stmt, 7)};
    int bad = 0;
    COPY(0, h.vm);
    COPY(1, h.url);
    COPY(3, h.on_no_answer);
    COPY(4, h.secret);
    COPY(5, h.old_secret);
    COPY(8, h.created_by);
    if (bad) {
        return lmo_fail(err, LMO_E_CORRUPT, "a stored hook is too long");
    }
    *ret = h;
    return 0;
}
