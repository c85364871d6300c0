/* ovsdb_call.c - what callers do over an OVSDB connection: transactions and watches; see ovsdb.h. */
#include "workers/drivers/ovsdb_private.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

#include <inttypes.h>
#include <string.h>

#define CALLS_MAX 256 /* in flight at once; far above what a worker's pool of threads can make */

/* Locked. */
static int await_ready(struct lmo_ovsdb *db, uint64_t deadline_ns, struct lmo_err *err)
{
    while (db->state != OVSDB_READY) {
        if (db->state == OVSDB_UNFIT)
            return lmo_fail(err, LMO_E_UNSUPPORTED, "%s", db->unfit.text);
        if (!lmo_ovsdb_link_wait(&db->link, deadline_ns))
            return lmo_fail(err, LMO_E_UNAVAILABLE, "%s: not connected: %s", db->link.name, db->link.problem.text);
    }
    return 0;
}

int lmo_ovsdb_await_ready(struct lmo_ovsdb *db, uint64_t deadline_ns, struct lmo_err *err)
{
    pthread_mutex_lock(&db->link.lock);
    int r = await_ready(db, deadline_ns, err);
    pthread_mutex_unlock(&db->link.lock);
    return r;
}

/* Sends a request and waits for its reply, owned by the caller. */
static int call(struct lmo_ovsdb *db, const char *method, json_t *params, uint64_t deadline_ns, json_t **ret_reply,
                struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *owned = params;
    struct ovsdb_call c = {0};
    pthread_mutex_lock(&db->link.lock);
    int r = await_ready(db, deadline_ns, err);
    if (r == 0 && db->call_count >= CALLS_MAX)
        r = lmo_fail(err, LMO_E_LIMIT, "%s: %d requests in flight already", db->link.name, CALLS_MAX);
    if (r == 0) {
        c.id = ++db->next_id;
        r = ovsdb_post(db, json_pack("{sssOsI}", "method", method, "params", owned, "id", (json_int_t)c.id), err);
    }
    if (r < 0) {
        pthread_mutex_unlock(&db->link.lock);
        return r;
    }
    c.next = db->calls;
    db->calls = &c;
    db->call_count++;
    while (!c.done && lmo_ovsdb_link_wait(&db->link, deadline_ns))
        continue;
    struct ovsdb_call **at = &db->calls;
    while (*at != &c)
        at = &(*at)->next;
    *at = c.next;
    db->call_count--;
    pthread_mutex_unlock(&db->link.lock);
    if (!c.done)
        return lmo_fail(err, LMO_E_TIMEOUT, "%s: no reply in time; it may or may not have happened", db->link.name);
    if (c.code < 0)
        return lmo_fail(err, c.code, "%s: connection lost before the reply; it may or may not have happened",
                        db->link.name);
    *ret_reply = c.reply;
    return 0;
}

/* RFC 7047's own error words, and those of OVSDB's implementation, as our codes. The transaction did not happen. */
static int code_of(const char *word)
{
    static const struct {
        const char *word;
        int code;
    } table[] = {
        {"timed out", LMO_E_CONFLICT}, /* a "wait" operation with timeout 0 found something else */
        {"referential integrity violation", LMO_E_CONFLICT},
        {"constraint violation", LMO_E_CONFLICT},
        {"not owner", LMO_E_CONFLICT},
        {"resources exhausted", LMO_E_NO_SPACE},
        {"not allowed", LMO_E_FORBIDDEN},
        {"permission error", LMO_E_FORBIDDEN},
        {"unknown database", LMO_E_UNSUPPORTED},
        {"unknown column", LMO_E_UNSUPPORTED},
        {"unknown table", LMO_E_UNSUPPORTED},
        {"I/O error", LMO_E_UNKNOWN}, /* the server could not write its log: it does not know either */
        {"cluster error", LMO_E_UNKNOWN},
        {"canceled", LMO_E_UNKNOWN},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(word, table[i].word) == 0)
            return table[i].code;
    }
    return LMO_E_REFUSED;
}

static int fail_with(const struct lmo_ovsdb *db, const json_t *error, const json_t *details, struct lmo_err *err)
{
    const char *word = json_string_value(error), *text = json_string_value(details);
    return lmo_fail(err, code_of(word ? word : ""), "%s: %s%s%s", db->link.name, word ? word : "error",
                    text ? ": " : "", text ? text : "");
}

/* A reply's "result" must be an array with one element per operation, none of them an error. */
static int check_results(const struct lmo_ovsdb *db, const json_t *reply, size_t count, struct lmo_err *err)
{
    const json_t *error = json_object_get(reply, "error"), *results = json_object_get(reply, "result");
    if (json_is_object(error))
        return fail_with(db, json_object_get(error, "error"), json_object_get(error, "details"), err);
    if (error && !json_is_null(error))
        return fail_with(db, error, NULL, err);
    for (size_t i = 0; i < json_array_size(results); i++) {
        const json_t *one = json_array_get(results, i);
        if (json_object_get(one, "error"))
            return fail_with(db, json_object_get(one, "error"), json_object_get(one, "details"), err);
    }
    if (json_array_size(results) != count)
        return lmo_fail(err, LMO_E_UNKNOWN, "%s: the server answered %zu of %zu operations", db->link.name,
                        json_array_size(results), count);
    return 0;
}

int lmo_ovsdb_transact(struct lmo_ovsdb *db, json_t *ops, uint64_t deadline_ns, json_t **ret_results,
                       struct lmo_err *err)
{
    if (!ops)
        return lmo_fail(err, LMO_E_NO_MEMORY, "%s: out of memory", db->link.name);
    size_t count = json_array_size(ops);
    json_t *params = json_pack("[s]", db->database);
    if (json_array_extend(params, ops) < 0) {
        json_decref(params);
        params = NULL;
    }
    json_decref(ops);
    if (!params)
        return lmo_fail(err, LMO_E_NO_MEMORY, "%s: out of memory", db->link.name);
    LMO_AUTO_JSON json_t *reply = NULL;
    int r = call(db, "transact", params, deadline_ns, &reply, err);
    if (r == 0)
        r = check_results(db, reply, count, err);
    if (r == 0 && ret_results)
        *ret_results = json_incref(json_object_get(reply, "result"));
    return r;
}

static json_t *string_array(const char *const *list)
{
    json_t *array = json_array();
    for (; array && *list; list++) {
        if (json_array_append_new(array, json_string(*list)) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

json_t *lmo_ovsdb_select_op(const char *table, json_t *where, const char *const *columns)
{
    return json_pack("{sssssoso}", "op", "select", "table", table, "where", where, "columns", string_array(columns));
}

int lmo_ovsdb_select(struct lmo_ovsdb *db, const char *table, json_t *where, const char *const *columns,
                     uint64_t deadline_ns, json_t **ret_rows, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *results = NULL;
    int r = lmo_ovsdb_transact(db, json_pack("[o]", lmo_ovsdb_select_op(table, where, columns)), deadline_ns, &results,
                               err);
    if (r == LMO_E_UNKNOWN || r == LMO_E_TIMEOUT) {
        /* A question has no effect: not knowing whether it was asked is simply having no answer. */
        if (err)
            err->code = LMO_E_UNAVAILABLE;
        return LMO_E_UNAVAILABLE;
    }
    if (r < 0)
        return r;
    json_t *rows = json_object_get(json_array_get(results, 0), "rows");
    if (!json_is_array(rows))
        return lmo_fail(err, LMO_E_UNAVAILABLE, "%s: a select without rows", db->link.name);
    *ret_rows = json_incref(rows);
    return 0;
}

/* ------------------------------------------------------------------ watches */

int ovsdb_post_monitor(struct lmo_ovsdb *db, struct lmo_ovsdb_watch *w, struct lmo_err *err)
{
    json_t *request = json_pack("{sO}", "columns", w->columns);
    if (w->where)
        json_object_set(request, "where", w->where);
    return ovsdb_post(db,
                      json_pack("{sss[ss{s[o]}]ss}", "method", "monitor_cond", "params", db->database, w->id, w->table,
                                request, "id", w->id),
                      err);
}

int ovsdb_watch_reply(struct lmo_ovsdb *db, struct lmo_ovsdb_watch *w, const json_t *message)
{
    const json_t *error = json_object_get(message, "error");
    if (error && !json_is_null(error)) {
        LMO_AUTO_FREE char *text = NULL;
        (void)!lmo_json_dump(error, &text, NULL, NULL);
        lmo_log(LMO_LOG_ERROR, "database monitor refused", "database=%s table=%s error=%s", db->link.name, w->table,
                text ? text : "?");
        w->code = LMO_E_UNSUPPORTED;
        return 0;
    }
    json_object_clear(w->rows);
    int r = ovsdb_watch_apply(db, w, json_object_get(message, "result"));
    w->current = r == 0;
    return r;
}

/* One changed row: the columns that changed, as differences where the column is composite. */
static int modify_row(const struct lmo_ovsdb *db, const struct lmo_ovsdb_watch *w, json_t *row, const json_t *change)
{
    const json_t *composite = json_object_get(db->composite, w->table);
    const char *column;
    json_t *value;
    if (!row)
        return LMO_E_CORRUPT;
    json_object_foreach((json_t *)change, column, value)
    {
        json_t *now = json_is_true(json_object_get(composite, column))
                          ? lmo_ovsdb_apply_diff(json_object_get(row, column), value)
                          : json_incref(value);
        if (!now || json_object_set_new(row, column, now) < 0)
            return LMO_E_CORRUPT;
    }
    return 0;
}

int ovsdb_watch_apply(struct lmo_ovsdb *db, struct lmo_ovsdb_watch *w, const json_t *updates)
{
    const char *uuid;
    json_t *change;
    json_object_foreach(json_object_get(updates, w->table), uuid, change)
    {
        json_t *fresh = json_object_get(change, "initial");
        fresh = fresh ? fresh : json_object_get(change, "insert");
        json_t *modified = json_object_get(change, "modify");
        int r = 0;
        if (fresh)
            r = json_object_set(w->rows, uuid, fresh) < 0 ? LMO_E_NO_MEMORY : 0;
        else if (modified)
            r = modify_row(db, w, json_object_get(w->rows, uuid), modified);
        else if (json_object_get(change, "delete"))
            (void)json_object_del(w->rows, uuid);
        if (r < 0)
            return r;
    }
    return 0;
}

static void free_watch(struct lmo_ovsdb_watch *w)
{
    json_decref(w->where);
    json_decref(w->columns);
    json_decref(w->rows);
    free(w);
}

static int any_rows(void *arg, const json_t *rows, struct lmo_err *err)
{
    (void)arg, (void)rows, (void)err;
    return 1;
}

int lmo_ovsdb_watch_open(struct lmo_ovsdb *db, const char *table, json_t *where, const char *const *columns,
                         uint64_t deadline_ns, struct lmo_ovsdb_watch **ret, struct lmo_err *err)
{
    struct lmo_ovsdb_watch *w = calloc(1, sizeof *w);
    if (!w) {
        json_decref(where);
        return lmo_fail(err, LMO_E_NO_MEMORY, "%s: out of memory", db->link.name);
    }
    w->db = db;
    w->where = where;
    w->columns = string_array(columns);
    w->rows = json_object();
    (void)snprintf(w->table, sizeof w->table, "%s", table);
    pthread_mutex_lock(&db->link.lock);
    (void)snprintf(w->id, sizeof w->id, "w%" PRId64, ++db->next_id);
    w->next = db->watches;
    db->watches = w;
    /* When the connection is not ready, the reader asks for all watches as soon as it is. */
    int r = db->state == OVSDB_READY ? ovsdb_post_monitor(db, w, err) : 0;
    pthread_mutex_unlock(&db->link.lock);
    if (r == 0)
        r = lmo_ovsdb_watch_wait(w, any_rows, NULL, deadline_ns, err);
    if (r < 0) {
        lmo_ovsdb_watch_close(w);
        return r == LMO_E_TIMEOUT
                   ? lmo_fail(err, LMO_E_UNAVAILABLE, "%s: no contents of '%s' in time", db->link.name, table)
                   : r;
    }
    *ret = w;
    return 0;
}

void lmo_ovsdb_watch_close(struct lmo_ovsdb_watch *w)
{
    if (!w)
        return;
    struct lmo_ovsdb *db = w->db;
    pthread_mutex_lock(&db->link.lock);
    struct lmo_ovsdb_watch **at = &db->watches;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    if (db->state == OVSDB_READY) {
        /* If this cannot be sent, the connection is broken and the monitor ends with it. */
        int r =
            ovsdb_post(db, json_pack("{sss[s]ss}", "method", "monitor_cancel", "params", w->id, "id", "cancel"), NULL);
        (void)r;
    }
    pthread_mutex_unlock(&db->link.lock);
    free_watch(w);
}

int lmo_ovsdb_watch_wait(struct lmo_ovsdb_watch *w, lmo_ovsdb_until_fn *until, void *arg, uint64_t deadline_ns,
                         struct lmo_err *err)
{
    struct lmo_ovsdb *db = w->db;
    int r = 0;
    pthread_mutex_lock(&db->link.lock);
    while (r == 0) {
        if (w->code < 0)
            r = lmo_fail(err, w->code, "%s: table '%s' cannot be monitored", db->link.name, w->table);
        else if (db->state == OVSDB_UNFIT)
            r = lmo_fail(err, LMO_E_UNSUPPORTED, "%s", db->unfit.text);
        else if (w->current)
            r = until(arg, w->rows, err);
        if (r == 0 && !lmo_ovsdb_link_wait(&db->link, deadline_ns))
            r = w->current
                    ? lmo_fail(err, LMO_E_TIMEOUT, "%s: not seen in time", db->link.name)
                    : lmo_fail(err, LMO_E_UNAVAILABLE, "%s: not connected: %s", db->link.name, db->link.problem.text);
    }
    pthread_mutex_unlock(&db->link.lock);
    return r < 0 ? r : 0;
}
