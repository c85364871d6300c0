/* sqlite_objects.c - the objects beside migrations: drains, hosts' marks, guests' policies and leases. They wait in memory
 * for the next commit, which they are part of. */
#include "store/sqlite_internal.h"

#include "base/cleanup.h"
#include "base/hash.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pending_object {
    char name[LMO_NAME_MAX + 32]; /* kind, key, n */
    char key[LMO_NAME_MAX], about[LMO_NAME_MAX], state[32];
    enum lmo_object_kind kind;
    uint32_t n;
    bool terminal;
    int64_t updated_ms;
    char *text; /* owned; NULL: to be deleted */
    UT_hash_handle hh;
};

int lmo_sqlite_put(struct lmo_store *s, const struct lmo_object *o)
{
    struct sqlite_store *st = sqlite_of(s);
    char name[LMO_NAME_MAX + 32];
    if (o->kind == LMO_OBJECT_ANSWER) {
        return lmo_sqlite_answer_put(st, o->answer);
    }
    (void)snprintf(name, sizeof name, "%d/%s/%u", (int)o->kind, o->key, o->n);
    struct pending_object *p = NULL;
    char *text = o->text ? strdup(o->text) : NULL;
    if (o->text && !text) {
        return LMO_E_NO_MEMORY;
    }
    HASH_FIND_STR(st->objects, name, p);
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p) {
            free(text);
            return LMO_E_NO_MEMORY;
        }
        LMO_COPY(p->name, name);
        HASH_ADD_STR(st->objects, name, p);
    }
    free(p->text);
    p->text = text;
    p->kind = o->kind;
    p->n = o->n;
    p->terminal = o->terminal;
    p->updated_ms = o->updated_ms;
    LMO_COPY(p->key, o->key);
    LMO_COPY(p->about, o->about);
    LMO_COPY(p->state, o->state);
    return 0;
}

static int write_drain(struct sqlite_store *st, const struct pending_object *p, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db,
                            "INSERT INTO drain (id, state, terminal, updated_ms, record) VALUES (?1, ?2, ?3, ?4, ?5)"
                            " ON CONFLICT (id) DO UPDATE SET state = ?2, terminal = ?3, updated_ms = ?4, record = ?5",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, p->key);
    lmo_sql_bind_text(stmt, 2, p->state);
    lmo_sql_bind_i64(stmt, 3, p->terminal);
    lmo_sql_bind_i64(stmt, 4, p->updated_ms);
    lmo_sql_bind_text(stmt, 5, p->text);
    return lmo_sql_run(stmt, NULL, err);
}

static int write_part(struct sqlite_store *st, const struct pending_object *p, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt;
    int r = lmo_sql_prepare(st->db,
                            p->kind == LMO_OBJECT_DRAIN_HOST
                                ? "INSERT INTO drain_host (drain, n, host, record) VALUES (?1, ?2, ?3, ?4)"
                                  " ON CONFLICT (drain, n) DO UPDATE SET host = ?3, record = ?4"
                                : "INSERT INTO drain_guest (drain, n, vm_uuid, record) VALUES (?1, ?2, ?3, ?4)"
                                  " ON CONFLICT (drain, n) DO UPDATE SET vm_uuid = ?3, record = ?4",
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, p->key);
    lmo_sql_bind_i64(stmt, 2, p->n);
    lmo_sql_bind_text(stmt, 3, p->about);
    lmo_sql_bind_text(stmt, 4, p->text);
    return lmo_sql_run(stmt, NULL, err);
}

/* Of a host or a guest; a host that was removed meanwhile has no row, and that is fine. */
static int write_setting(struct sqlite_store *st, const struct pending_object *p, struct lmo_err *err)
{
    static const char *const put[] = {
        [LMO_OBJECT_VM_POLICY] = "INSERT INTO vm_policy (vm_uuid, record) VALUES (?1, ?2)"
                                 " ON CONFLICT (vm_uuid) DO UPDATE SET record = ?2",
        [LMO_OBJECT_VM_LEASE] = "INSERT INTO vm_lease (vm_uuid, record) VALUES (?1, ?2)"
                                " ON CONFLICT (vm_uuid) DO UPDATE SET record = ?2",
    };
    static const char *const drop[] = {
        [LMO_OBJECT_VM_POLICY] = "DELETE FROM vm_policy WHERE vm_uuid = ?1",
        [LMO_OBJECT_VM_LEASE] = "DELETE FROM vm_lease WHERE vm_uuid = ?1",
    };
    struct lmo_sql_stmt *stmt;
    bool mark = p->kind == LMO_OBJECT_HOST_MARK;
    int r = lmo_sql_prepare(st->db,
                            mark      ? "UPDATE host SET mark = ?2 WHERE name = ?1"
                            : p->text ? put[p->kind]
                                      : drop[p->kind],
                            &stmt, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(stmt, 1, p->key);
    if (mark || p->text) {
        lmo_sql_bind_text(stmt, 2, p->text);
    }
    return lmo_sql_run(stmt, NULL, err);
}

int lmo_sqlite_objects_write(struct sqlite_store *st, struct lmo_err *err)
{
    int r = 0;
    for (const struct pending_object *p = st->objects; r == 0 && p;
         p = p->hh.next) { /* in the order in which they came */
        switch (p->kind) {
        case LMO_OBJECT_DRAIN: r = write_drain(st, p, err); break;
        case LMO_OBJECT_DRAIN_HOST:
        case LMO_OBJECT_DRAIN_GUEST: r = write_part(st, p, err); break;
        case LMO_OBJECT_HOST_MARK:
        case LMO_OBJECT_VM_POLICY:
        case LMO_OBJECT_VM_LEASE: r = write_setting(st, p, err); break;
        case LMO_OBJECT_ANSWER:
        case LMO_OBJECT_COUNT: break;
        }
    }
    return r < 0 ? r : lmo_sqlite_answers_write(st, st->answers, err);
}

void lmo_sqlite_objects_written(struct sqlite_store *st)
{
    struct pending_object *p, *next;
    lmo_sqlite_answers_written(st);
    HASH_ITER(hh, st->objects, p, next)
    {
        HASH_DEL(st->objects, p);
        free(p->text);
        free(p);
    }
}

/* ------------------------------------------------------------------ reading */

/* Columns: key, n, about, state, terminal, updated_ms, record. ?1 key, ?2 state, ?3 before, ?4 limit: whichever there are. */
static const char *statement(const struct lmo_object_query *q, bool *ret_ranged)
{
    bool key = q->key && q->key[0], state = q->state && q->state[0];
    *ret_ranged = false;
#define DRAINS(where)                                                                                                 \
    "SELECT id, 0, '', state, terminal, updated_ms, record FROM drain WHERE id < ?3" where " ORDER BY id DESC LIMIT " \
                                                                                           "?4"
#define PART(table, about)          "SELECT drain, n, " about ", '', 0, 0, record FROM " table " WHERE drain = ?1 ORDER BY n"
#define SETTING(table, name, where) "SELECT " name ", 0, '', '', 0, 0, record FROM " table where " ORDER BY 1"
    switch (q->kind) {
    case LMO_OBJECT_HOST_MARK: return "SELECT name, 0, '', '', 0, 0, mark FROM host WHERE mark IS NOT NULL ORDER BY 1";
    case LMO_OBJECT_DRAIN:
        if (key) {
            return "SELECT id, 0, '', state, terminal, updated_ms, record FROM drain WHERE id = ?1";
        }
        *ret_ranged = true;
        return q->open ? DRAINS(" AND terminal = 0") : state ? DRAINS(" AND state = ?2") : DRAINS("");
    case LMO_OBJECT_DRAIN_HOST: return PART("drain_host", "host");
    case LMO_OBJECT_DRAIN_GUEST: return PART("drain_guest", "vm_uuid");
    case LMO_OBJECT_VM_POLICY:
        return key ? SETTING("vm_policy", "vm_uuid", " WHERE vm_uuid = ?1") : SETTING("vm_policy", "vm_uuid", "");
    case LMO_OBJECT_VM_LEASE:
        return key ? SETTING("vm_lease", "vm_uuid", " WHERE vm_uuid = ?1") : SETTING("vm_lease", "vm_uuid", "");
    case LMO_OBJECT_ANSWER:
    case LMO_OBJECT_COUNT: break;
    }
#undef DRAINS
#undef PART
#undef SETTING
    return NULL;
}

int lmo_sqlite_objects(struct lmo_store *s, const struct lmo_object_query *q,
                       int (*cb)(void *arg, const struct lmo_object *o), void *arg, struct lmo_err *err)
{
    struct lmo_sql_stmt *stmt LMO_AUTO_SQL_RESET = NULL;
    bool ranged = false, part = q->kind == LMO_OBJECT_DRAIN_HOST || q->kind == LMO_OBJECT_DRAIN_GUEST;
    const char *sql = statement(q, &ranged);
    int r =
        sql ? lmo_sql_prepare(sqlite_of(s)->db, sql, &stmt, err) : lmo_fail(err, LMO_E_INTERNAL, "objects of no kind");
    if (r < 0) {
        return r;
    }
    if (part || (q->key && q->key[0] && q->kind != LMO_OBJECT_HOST_MARK)) {
        lmo_sql_bind_text(stmt, 1, q->key ? q->key : "");
    }
    if (ranged && !q->open && q->state && q->state[0]) {
        lmo_sql_bind_text(stmt, 2, q->state);
    }
    if (ranged) {
        lmo_sql_bind_text(stmt, 3, q->before && q->before[0] ? q->before : "~"); /* above every ULID */
        lmo_sql_bind_u64(stmt, 4, q->limit ? q->limit : INT64_MAX);
    }
    while (r == 0 && (r = lmo_sql_step(stmt, err)) == 1) {
        struct lmo_object o = {.kind = q->kind,
                               .key = lmo_sql_text(stmt, 0),
                               .n = (uint32_t)lmo_sql_u64(stmt, 1),
                               .about = lmo_sql_text(stmt, 2),
                               .state = lmo_sql_text(stmt, 3),
                               .terminal = lmo_sql_i64(stmt, 4) != 0,
                               .updated_ms = lmo_sql_i64(stmt, 5),
                               .text = lmo_sql_text(stmt, 6)};
        r = cb(arg, &o);
    }
    return r < 0 ? r : 0; /* a callback that had enough returns more than 0 */
}
