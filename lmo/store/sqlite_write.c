/* sqlite_write.c - everything that changes the database. Invariants: sqlite.c. */
#include "store/sqlite_internal.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "engine/record_codec.h"

#include <inttypes.h>
#include <string.h>

/* ------------------------------------------------------------------ records */

/* Why an insert met a constraint: names the migration that is in the way. Looks before the roll-back. */
static int insert_conflict(struct sqlite_store *st, const struct lmo_migration *m, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    struct lmo_err ignored = {0};
    if (lmo_sql_prepare(st->db, "SELECT id, phase FROM migration WHERE vm_uuid = ? AND terminal = 0", &stmt,
                        &ignored) == 0) {
        lmo_sql_bind_text(stmt, 1, m->vm.uuid);
        if (lmo_sql_step(stmt, &ignored) == 1 && strcmp(lmo_sql_text(stmt, 0), m->id) != 0) {
            return lmo_fail(err, LMO_E_CONFLICT, "guest %s is already being migrated by %s (%s)",
                            m->vm.name[0] ? m->vm.name : m->vm.uuid, lmo_sql_text(stmt, 0), lmo_sql_text(stmt, 1));
        }
    }
    return lmo_fail(err, LMO_E_CONFLICT, "migration %s is stored already", m->id);
}

/* Everything that is bound here belongs to the item, or to the store, and outlives the statement's one step. */
static void bind(struct lmo_sql_stmt *stmt, int index, const char *text)
{
    lmo_sql_bind_borrowed(stmt, index, text, strlen(text));
}

static int insert_record(struct sqlite_store *st, const struct lmo_migration *m, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r =
        lmo_sql_prepare(st->db,
                        "INSERT INTO migration (id, vm_uuid, vm_name, source, destination, phase, terminal, version,"
                        " created_ms, updated_ms, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        &stmt, err);
    if (r < 0) {
        return r;
    }
    bind(stmt, 1, m->id);
    bind(stmt, 2, m->vm.uuid);
    bind(stmt, 3, m->vm.name);
    bind(stmt, 4, m->source);
    bind(stmt, 5, m->destination);
    bind(stmt, 6, lmo_phase_text(m->phase));
    lmo_sql_bind_i64(stmt, 7, lmo_phase_is(m->phase, LMO_PHASE_TERMINAL));
    lmo_sql_bind_u64(stmt, 8, m->version);
    lmo_sql_bind_i64(stmt, 9, m->created_ms);
    lmo_sql_bind_i64(stmt, 10, m->updated_ms);
    lmo_sql_bind_borrowed(stmt, 11, st->text.data, st->text.len);
    r = lmo_sql_run(stmt, NULL, err);
    return r == LMO_E_CONFLICT ? insert_conflict(st, m, err) : r;
}

/* Why an update matched no row. */
static int update_conflict(struct sqlite_store *st, const struct lmo_migration *m, uint64_t expected,
                           struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    int r = lmo_sql_prepare(st->db, "SELECT version, phase FROM migration WHERE id = ?", &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, m->id);
    r = lmo_sql_step(stmt, err);
    if (r < 0) {
        return r;
    }
    if (r == 0) {
        return lmo_fail(err, LMO_E_CONFLICT, "migration %s: version %" PRIu64 " expected, none is stored", m->id,
                        expected);
    }
    return lmo_fail(err, LMO_E_CONFLICT,
                    "migration %s: version %" PRIu64 " expected, %" PRIu64 " (%s) is stored, %" PRIu64
                    " (%s) was to follow",
                    m->id, expected, lmo_sql_u64(stmt, 0), lmo_sql_text(stmt, 1), m->version, lmo_phase_text(m->phase));
}

/* The usual step: what is searched for stands as it stood, and no index has to be written. *ret_changes 0: not so, or
 * there is a conflict. */
static int update_in_place(struct sqlite_store *st, const struct lmo_migration *m, uint64_t expected,
                           uint64_t *ret_changes, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db,
                            "UPDATE migration SET version = ?, updated_ms = ?, record = ?"
                            " WHERE id = ? AND version = ? AND phase = ? AND vm_uuid = ? AND vm_name = ? AND source = ?"
                            " AND destination = ?",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_u64(stmt, 1, m->version);
    lmo_sql_bind_i64(stmt, 2, m->updated_ms);
    lmo_sql_bind_borrowed(stmt, 3, st->text.data, st->text.len);
    bind(stmt, 4, m->id);
    lmo_sql_bind_u64(stmt, 5, expected);
    bind(stmt, 6, lmo_phase_text(m->phase));
    bind(stmt, 7, m->vm.uuid);
    bind(stmt, 8, m->vm.name);
    bind(stmt, 9, m->source);
    bind(stmt, 10, m->destination);
    return lmo_sql_run(stmt, ret_changes, err);
}

static int update_whole(struct sqlite_store *st, const struct lmo_migration *m, uint64_t expected, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    uint64_t changes = 0;
    bool terminal = lmo_phase_is(m->phase, LMO_PHASE_TERMINAL);
    int r = lmo_sql_prepare(st->db,
                            "UPDATE migration SET vm_name = ?, source = ?, destination = ?, phase = ?, terminal = ?,"
                            " version = ?, updated_ms = ?, record = ?"
                            " WHERE id = ? AND version = ? AND vm_uuid = ? AND terminal <= ?",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    bind(stmt, 1, m->vm.name);
    bind(stmt, 2, m->source);
    bind(stmt, 3, m->destination);
    bind(stmt, 4, lmo_phase_text(m->phase));
    lmo_sql_bind_i64(stmt, 5, terminal);
    lmo_sql_bind_u64(stmt, 6, m->version);
    lmo_sql_bind_i64(stmt, 7, m->updated_ms);
    lmo_sql_bind_borrowed(stmt, 8, st->text.data, st->text.len);
    bind(stmt, 9, m->id);
    lmo_sql_bind_u64(stmt, 10, expected);
    bind(stmt, 11, m->vm.uuid);
    lmo_sql_bind_i64(stmt, 12, terminal);
    r = lmo_sql_run(stmt, &changes, err);
    return r == 0 && changes != 1 ? update_conflict(st, m, expected, err) : r;
}

/* A phase that was entered has a line in the journal. Only which of the two is tried first hangs on this. */
static bool entered_phase(const struct lmo_commit_item *item)
{
    const char *phase = lmo_phase_text(item->record->phase);
    for (unsigned i = 0; i < item->journal_count; i++) {
        if (strcmp(item->journal[i].what, phase) == 0) {
            return true;
        }
    }
    return false;
}

static int update_record(struct sqlite_store *st, const struct lmo_commit_item *item, struct lmo_err *err)
{
    uint64_t changes = 0;
    if (!entered_phase(item)) {
        int r = update_in_place(st, item->record, item->expected_version, &changes, err);
        if (r < 0 || changes == 1) {
            return r;
        }
    }
    return update_whole(st, item->record, item->expected_version, err);
}

/* ------------------------------------------------------------------ what goes with a record */

static int put_xml(struct sqlite_store *st, const struct lmo_migration *m, const char *xml, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = 0;
    if (m->phase == LMO_PHASE_COMPLETED || m->phase == LMO_PHASE_ABORTED) {
        r = lmo_sql_prepare(st->db, "DELETE FROM migration_xml WHERE migration = ?", &stmt, err);
    } else if (xml) {
        r = lmo_sql_prepare(st->db,
                            "INSERT INTO migration_xml (migration, xml) VALUES (?, ?)"
                            " ON CONFLICT (migration) DO UPDATE SET xml = excluded.xml",
                            &stmt, err);
    } else {
        return 0;
    }
    if (r < 0) {
        return r;
    }
    bind(stmt, 1, m->id);
    if (m->phase != LMO_PHASE_COMPLETED && m->phase != LMO_PHASE_ABORTED) {
        bind(stmt, 2, xml);
    }
    return lmo_sql_run(stmt, NULL, err);
}

/* Lines are numbered by the version that the commit was made from, and within it: each commit has another one, and no look
 * at the lines that are there is needed. More lines than that leaves room for run into the numbers of versions that the
 * commit itself has passed: a step has at most LMO_EFFECT_JOURNAL_MAX of them. */
static int add_journal(struct sqlite_store *st, const struct lmo_commit_item *item, unsigned i, struct lmo_err *err)
{
    const struct lmo_journal_line *line = &item->journal[i];
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db, "INSERT INTO journal (migration, n, at_ms, phase, what, why) VALUES (?, ?, ?, ?, ?, ?)",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    bind(stmt, 1, item->record->id);
    lmo_sql_bind_u64(stmt, 2, LMO_JOURNAL_NUMBER(item->expected_version, i));
    lmo_sql_bind_i64(stmt, 3, line->at_ms);
    bind(stmt, 4, line->phase);
    bind(stmt, 5, line->what);
    bind(stmt, 6, line->why);
    return lmo_sql_run(stmt, NULL, err);
}

/* Which hosts it is about: once, when it is accepted. */
static int put_hosts(struct sqlite_store *st, const struct lmo_migration *m, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db, "INSERT OR IGNORE INTO migration_host (host, id) VALUES (?1, ?3), (?2, ?3)", &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, m->source);
    lmo_sql_bind_text(stmt, 2, m->destination);
    lmo_sql_bind_text(stmt, 3, m->id);
    return lmo_sql_run(stmt, NULL, err);
}

/* How lists show it from now on: nothing about it changes any more. */
static int put_summary(struct sqlite_store *st, const struct lmo_migration *m, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    LMO_AUTO_JSON json_t *json = lmo_migration_summary(m);
    LMO_AUTO_FREE char *text = NULL;
    int r = lmo_json_dump(json, &text, NULL, err);
    if (r == 0) {
        r = lmo_sql_prepare(st->db,
                            "INSERT INTO migration_summary (id, summary) VALUES (?1, ?2)"
                            " ON CONFLICT (id) DO UPDATE SET summary = excluded.summary",
                            &stmt, err);
    }
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, m->id);
    lmo_sql_bind_text(stmt, 2, text);
    return lmo_sql_run(stmt, NULL, err);
}

/* ------------------------------------------------------------------ the transaction */

static int check_item(const struct lmo_commit_item *item, struct lmo_err *err)
{
    const struct lmo_migration *m = item->record;
    const char *broken = lmo_migration_broken(m);
    if (broken) {
        return lmo_fail(err, LMO_E_INTERNAL, "migration %s: record is broken: %s", m->id, broken);
    }
    if (m->version <= item->expected_version) {
        return lmo_fail(err, LMO_E_INTERNAL, "migration %s: version %" PRIu64 " cannot follow %" PRIu64, m->id,
                        m->version, item->expected_version);
    }
    return 0;
}

static int commit_item(struct sqlite_store *st, const struct lmo_commit_item *item, struct lmo_err *err)
{
    int r = check_item(item, err);
    if (r == 0) {
        r = lmo_record_write(item->record, &st->text, err);
    }
    if (r == 0) {
        r = item->expected_version == 0 ? insert_record(st, item->record, err) : update_record(st, item, err);
    }
    if (r == 0) {
        r = put_xml(st, item->record, item->xml, err);
    }
    for (unsigned i = 0; r == 0 && i < item->journal_count; i++) {
        r = add_journal(st, item, i, err);
    }
    if (r == 0 && item->expected_version == 0) {
        r = put_hosts(st, item->record, err);
    }
    if (r == 0 && lmo_phase_is(item->record->phase, LMO_PHASE_TERMINAL)) {
        r = put_summary(st, item->record, err);
    }
    if (r == 0) {
        r = lmo_sqlite_answers_write(st, item->answers, err);
    }
    return r;
}

/* Never backwards; a host that was removed meanwhile has no row, and that is fine. */
static int commit_cursor(struct sqlite_store *st, const struct lmo_commit_cursor *c, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db, "UPDATE host SET cursor = ?2 WHERE name = ?1 AND cursor < ?2", &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, c->host);
    lmo_sql_bind_u64(stmt, 2, c->cursor);
    return lmo_sql_run(stmt, NULL, err);
}

static int commit_epoch(struct sqlite_store *st, const struct handed_out *e, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db,
                            "INSERT INTO vm_epoch (vm_uuid, epoch) VALUES (?1, ?2)"
                            " ON CONFLICT (vm_uuid) DO UPDATE SET epoch = max(epoch, ?2)",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, e->vm_uuid);
    lmo_sql_bind_u64(stmt, 2, e->epoch);
    return lmo_sql_run(stmt, NULL, err);
}

int lmo_sqlite_commit(struct lmo_store *s, const struct lmo_commit_item *items, unsigned count,
                      const struct lmo_commit_cursor *cursors, unsigned cursor_count, struct lmo_err *err)
{
    struct sqlite_store *st = sqlite_of(s);
    int r = lmo_sql_begin(st->db, err);
    if (r == 0) {
        r = lmo_sqlite_check_term(s, err);
    }
    if (r == 0) {
        r = lmo_sqlite_audit_write(st, err);
    }
    if (r == 0) {
        r = lmo_sqlite_with_write(st, err);
    }
    for (unsigned i = 0; r == 0 && i < st->epoch_count; i++) {
        r = commit_epoch(st, &st->epochs[i], err);
    }
    for (unsigned i = 0; r == 0 && i < count; i++) {
        r = commit_item(st, &items[i], err);
    }
    for (unsigned i = 0; r == 0 && i < cursor_count; i++) {
        r = commit_cursor(st, &cursors[i], err);
    }
    if (r == 0) {
        r = lmo_sql_commit(st->db, err);
    }
    lmo_sqlite_with_forget(st);
    if (r < 0) {
        lmo_sql_rollback(st->db);
    } else {
        lmo_sqlite_audit_written(st);
        st->epoch_count = 0;
    }
    return r;
}

/* ------------------------------------------------------------------ single statements: transactions of their own */

/* The highest epoch of the guest, stored or only handed out; 0: none. */
static int last_epoch(struct sqlite_store *st, const char *vm_uuid, uint64_t *ret, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    for (unsigned i = st->epoch_count; i-- > 0;) { /* the newest first */
        if (strcmp(st->epochs[i].vm_uuid, vm_uuid) == 0) {
            *ret = st->epochs[i].epoch;
            return 0;
        }
    }
    int r = lmo_sql_prepare(st->db, "SELECT epoch FROM vm_epoch WHERE vm_uuid = ?", &stmt, err);
    if (r == 0) {
        lmo_sql_bind_text(stmt, 1, vm_uuid);
        r = lmo_sql_step(stmt, err);
    }
    if (r >= 0) {
        *ret = r == 1 ? lmo_sql_u64(stmt, 0) : 0;
    }
    return r < 0 ? r : 0;
}

int lmo_sqlite_next_epoch(struct lmo_store *s, const char *vm_uuid, uint64_t at_least, uint64_t *ret,
                          struct lmo_err *err)
{
    struct sqlite_store *st = sqlite_of(s);
    uint64_t last = 0;
    int r = last_epoch(st, vm_uuid, &last, err);
    if (r < 0) {
        return r;
    }
    if (st->epoch_count == st->epoch_room) {
        unsigned room = st->epoch_room ? 2 * st->epoch_room : 16;
        struct handed_out *grown = realloc(st->epochs, room * sizeof(*grown));
        if (!grown) {
            return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
        }
        st->epochs = grown;
        st->epoch_room = room;
    }
    struct handed_out *e = &st->epochs[st->epoch_count++];
    memset(e, 0, sizeof(*e));
    LMO_COPY(e->vm_uuid, vm_uuid);
    e->epoch = last + 1 > at_least ? last + 1 : at_least;
    *ret = e->epoch;
    return 0;
}

int lmo_sqlite_run_alone(struct sqlite_store *st, struct lmo_sql_stmt *stmt, uint64_t *ret_changes, struct lmo_err *err)
{
    int r = lmo_sql_begin(st->db, err);
    if (r == 0) {
        r = lmo_sqlite_check_term(&st->base, err);
    }
    if (r == 0) {
        r = lmo_sqlite_with_write(st, err);
    }
    lmo_sqlite_with_forget(st);
    if (r == 0) {
        r = lmo_sql_run(stmt, ret_changes, err);
    }
    if (r == 0) {
        r = lmo_sql_commit(st->db, err);
    }
    if (r < 0) {
        lmo_sql_rollback(st->db);
    }
    return r;
}

int lmo_sqlite_host_put(struct lmo_store *s, const struct lmo_host_row *h, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(sqlite_of(s)->db, "INSERT INTO host (name, url, cursor) VALUES (?, ?, ?)", &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, h->name);
    lmo_sql_bind_text(stmt, 2, h->url);
    lmo_sql_bind_u64(stmt, 3, h->cursor);
    r = lmo_sqlite_run_alone(sqlite_of(s), stmt, NULL, err);
    bool overtaken = r == LMO_E_CONFLICT && lmo_sqlite_check_term(s, NULL) == LMO_E_CONFLICT;
    return r == LMO_E_CONFLICT && !overtaken ? lmo_fail(err, r, "host %s is registered already", h->name) : r;
}

static void bind_limit(struct lmo_sql_stmt *stmt, int index, bool given, uint64_t value)
{
    if (given) {
        lmo_sql_bind_u64(stmt, index, value);
    } else {
        lmo_sql_bind_null(stmt, index);
    }
}

int lmo_sqlite_host_limits(struct lmo_store *s, const char *name, const struct lmo_host_limits *l, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    uint64_t changes = 0;
    int r = lmo_sql_prepare(sqlite_of(s)->db,
                            "UPDATE host SET max_incoming = ?2, max_outgoing = ?3, max_bandwidth_bytes_per_s = ?4,"
                            " memory_keep_free_bytes = ?5 WHERE name = ?1",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, name);
    bind_limit(stmt, 2, l->given & LMO_HOST_LIMIT_INCOMING, l->max_incoming);
    bind_limit(stmt, 3, l->given & LMO_HOST_LIMIT_OUTGOING, l->max_outgoing);
    bind_limit(stmt, 4, l->given & LMO_HOST_LIMIT_BANDWIDTH, l->max_bandwidth_bytes_per_s);
    bind_limit(stmt, 5, l->given & LMO_HOST_LIMIT_KEEP_FREE, l->memory_keep_free_bytes);
    r = lmo_sqlite_run_alone(sqlite_of(s), stmt, &changes, err);
    return r == 0 && changes == 0 ? lmo_fail(err, LMO_E_NOT_FOUND, "host %s is not registered", name) : r;
}

int lmo_sqlite_host_delete(struct lmo_store *s, const char *name, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    uint64_t changes = 0;
    int r = lmo_sql_prepare(sqlite_of(s)->db, "DELETE FROM host WHERE name = ?", &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, name);
    r = lmo_sqlite_run_alone(sqlite_of(s), stmt, &changes, err);
    return r == 0 && changes == 0 ? lmo_fail(err, LMO_E_NOT_FOUND, "host %s is not registered", name) : r;
}
