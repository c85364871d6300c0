/* sqlite_event.c - the event log: written within the transactions of others, read from a number on, kept within bounds.
 *
 * The bounds are applied by the transactions that write events, a few rows at a time (TRIM_MAX), so that none of them takes
 * long; what is due beyond that goes with the next ones. A log that nothing is written to is trimmed when it is opened. */
#include "store/sqlite_internal.h"

#include "base/clock.h"

#include <stdlib.h>

#define TRIM_MAX 256 /* rows that one transaction drops at most: more than it writes, as a rule */

int lmo_sqlite_event_add(struct lmo_store *s, const struct lmo_event_row *row)
{
    struct sqlite_events *ev = &sqlite_of(s)->events;
    if (ev->pending_count >= LMO_EVENTS_PENDING_MAX) {
        return LMO_E_LIMIT;
    }
    if (ev->pending_count == ev->pending_room) {
        unsigned room = ev->pending_room ? 2 * ev->pending_room : 16;
        struct lmo_event_row *grown = realloc(ev->pending, room * sizeof *grown);
        if (!grown) {
            return LMO_E_NO_MEMORY;
        }
        ev->pending = grown;
        ev->pending_room = room;
    }
    ev->pending[ev->pending_count++] = *row;
    return 0;
}

void lmo_sqlite_event_withdraw(struct lmo_store *s)
{
    struct sqlite_events *ev = &sqlite_of(s)->events;
    if (ev->pending_count > 0) {
        ev->pending_count--;
    }
}

int lmo_sqlite_event_write(struct sqlite_store *st, const struct lmo_event_row *row, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db,
                            "INSERT INTO event (at_ms, type, migration, vm_uuid, vm_name, host, to_host, drain, data)"
                            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_i64(stmt, 1, row->at_ms);
    lmo_sql_bind_text(stmt, 2, row->type);
    lmo_sql_bind_text(stmt, 3, row->migration);
    lmo_sql_bind_text(stmt, 4, row->vm);
    lmo_sql_bind_text(stmt, 5, row->vm_name);
    lmo_sql_bind_text(stmt, 6, row->host);
    lmo_sql_bind_text(stmt, 7, row->to_host);
    lmo_sql_bind_text(stmt, 8, row->drain);
    lmo_sql_bind_text(stmt, 9, row->data);
    r = lmo_sql_run(stmt, NULL, err);
    if (r == 0) {
        st->events.written = (uint64_t)lmo_sql_last_rowid(st->db);
    }
    return r;
}

int lmo_sqlite_event_range(struct lmo_store *s, struct lmo_event_range *ret, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    /* Each of the three is one look at one end of a B-tree; min and max in one SELECT would be a scan. */
    int r = lmo_sql_prepare(sqlite_of(s)->db,
                            "SELECT (SELECT min(seq) FROM event), coalesce((SELECT max(seq) FROM event), 0),"
                            " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)",
                            &stmt, err);
    if (r == 0) {
        r = lmo_sql_step(stmt, err);
    }
    if (r < 0) {
        return r;
    }
    uint64_t newest = lmo_sql_u64(stmt, 1), ever = lmo_sql_u64(stmt, 2);
    ret->newest = ever > newest ? ever : newest;
    ret->oldest = lmo_sql_is_null(stmt, 0) ? ret->newest + 1 : lmo_sql_u64(stmt, 0);
    return 0;
}

static int drop_up_to(struct sqlite_store *st, uint64_t seq, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db, "DELETE FROM event WHERE seq <= ?", &stmt, err);
    if (r == 0) {
        lmo_sql_bind_u64(stmt, 1, seq);
        r = lmo_sql_run(stmt, NULL, err);
    }
    return r;
}

/* The last of the first TRIM_MAX rows that are too old; 0: none. Times do not fall along the log but for a clock that was
 * set back: then what lies behind waits for what lies before. */
static int too_old(struct sqlite_store *st, int64_t before_ms, uint64_t *ret, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r = lmo_sql_prepare(st->db, "SELECT seq, at_ms FROM event ORDER BY seq LIMIT ?", &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_u64(stmt, 1, TRIM_MAX);
    *ret = 0;
    while ((r = lmo_sql_step(stmt, err)) == 1 && lmo_sql_i64(stmt, 1) < before_ms) {
        *ret = lmo_sql_u64(stmt, 0);
    }
    return r < 0 ? r : 0;
}

static int trim(struct sqlite_store *st, struct lmo_err *err)
{
    struct sqlite_events *ev = &st->events;
    struct lmo_event_range range;
    int r = lmo_sqlite_event_range(&st->base, &range, err);
    if (r < 0 || range.oldest > range.newest) {
        return r;
    }
    uint64_t up_to = 0, old = 0, furthest = range.oldest + TRIM_MAX - 1;
    uint64_t rows = range.newest - range.oldest + 1;
    ev->holes = rows > ev->holes ? ev->holes : 0; /* they were passed */
    rows -= ev->holes;
    if (ev->keep_count && rows > ev->keep_count) {
        up_to = range.oldest + (rows - ev->keep_count) - 1;
    }
    if (ev->keep_age_ms) {
        int64_t now_ms = (int64_t)(lmo_realtime_us() / 1000);
        r = too_old(st, now_ms - (int64_t)ev->keep_age_ms, &old, err);
    }
    up_to = old > up_to ? old : up_to;
    up_to = up_to > furthest ? furthest : up_to;
    return r == 0 && up_to >= range.oldest ? drop_up_to(st, up_to, err) : r;
}

int lmo_sqlite_events_write(struct sqlite_store *st, struct lmo_err *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < st->events.pending_count; i++) {
        r = lmo_sqlite_event_write(st, &st->events.pending[i], err);
    }
    return r;
}

int lmo_sqlite_events_trim(struct sqlite_store *st, struct lmo_err *err)
{
    struct sqlite_events *ev = &st->events;
    if (ev->written < ev->trim_at) {
        return 0;
    }
    int r = trim(st, err);
    if (r == 0) {
        ev->trim_next = ev->written + TRIM_MAX / 2; /* twice as much is dropped as was written: it catches up */
    }
    return r;
}

void lmo_sqlite_events_written(struct sqlite_store *st)
{
    st->events.pending_count = 0;
    st->events.trim_at = st->events.trim_next;
}

void lmo_sqlite_event_keep(struct lmo_store *s, uint64_t count, uint64_t age_ms)
{
    sqlite_of(s)->events.keep_count = count;
    sqlite_of(s)->events.keep_age_ms = age_ms;
    sqlite_of(s)->events.trim_at = sqlite_of(s)->events.trim_next = 0;
}

/* ------------------------------------------------------------------ after a restore */

static int leap(struct sqlite_store *st, void *arg, struct lmo_err *err)
{
    const uint64_t *to = arg;
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_exec(st->db,
                         "INSERT INTO sqlite_sequence (name, seq) SELECT 'event', 0"
                         " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'event')",
                         err);
    r = r < 0 ? r : lmo_sql_prepare(st->db, "UPDATE sqlite_sequence SET seq = max(seq + ?1, ?2) WHERE name = 'event'", &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_u64(stmt, 1, LMO_EVENT_LEAP);
    lmo_sql_bind_u64(stmt, 2, *to);
    return lmo_sql_run(stmt, NULL, err);
}

int lmo_sqlite_events_open(struct sqlite_store *st, struct lmo_err *err)
{
    struct lmo_event_range range;
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    uint64_t to = lmo_realtime_us() / 1000 * 1024;
    int r = st->restored ? lmo_sqlite_alone(st, leap, &to, err) : 0;
    r = r < 0 ? r : lmo_sqlite_event_range(&st->base, &range, err);
    if (r < 0 || range.newest - range.oldest + 1 < LMO_EVENT_LEAP) {
        return r;
    }
    r = lmo_sql_prepare(st->db, "SELECT count(*) FROM event", &stmt, err);
    r = r < 0 ? r : lmo_sql_step(stmt, err);
    if (r == 1) {
        st->events.holes = range.newest - range.oldest + 1 - lmo_sql_u64(stmt, 0);
    }
    return r < 0 ? r : 0;
}

int lmo_sqlite_event_list(struct lmo_store *s, uint64_t after, unsigned limit,
                          int (*cb)(void *arg, const struct lmo_event_row *row), void *arg, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r =
        lmo_sql_prepare(sqlite_of(s)->db,
                        "SELECT seq, at_ms, type, migration, vm_uuid, vm_name, host, to_host, drain, data FROM event"
                        " WHERE seq > ? ORDER BY seq LIMIT ?",
                        &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_u64(stmt, 1, after > INT64_MAX ? INT64_MAX : after);
    lmo_sql_bind_u64(stmt, 2, limit);
    struct lmo_event_row row;
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        row.seq = lmo_sql_u64(stmt, 0);
        row.at_ms = lmo_sql_i64(stmt, 1);
        if (lmo_sql_copy(stmt, 2, row.type, sizeof row.type) < 0 ||
            lmo_sql_copy(stmt, 3, row.migration, sizeof row.migration) < 0 ||
            lmo_sql_copy(stmt, 4, row.vm, sizeof row.vm) < 0 ||
            lmo_sql_copy(stmt, 5, row.vm_name, sizeof row.vm_name) < 0 ||
            lmo_sql_copy(stmt, 6, row.host, sizeof row.host) < 0 ||
            lmo_sql_copy(stmt, 7, row.to_host, sizeof row.to_host) < 0 ||
            lmo_sql_copy(stmt, 8, row.drain, sizeof row.drain) < 0 ||
            lmo_sql_copy(stmt, 9, row.data, sizeof row.data) < 0) {
            return lmo_fail(err, LMO_E_CORRUPT, "stored event %llu is too long", (unsigned long long)row.seq);
        }
        r = cb(arg, &row);
    }
    return r < 0 ? r : 0;
}
