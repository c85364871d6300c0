/* ovsdb.c - one connection to an OVSDB server: greeting, dispatch, loss; see ovsdb.h.
 *
 * Order of a connection's life: connect -> get_schema -> all needed columns there? -> READY, and in the same locked
 * step the monitors of all watches are asked for again. What was sent before a loss and has no reply is UNKNOWN. */
#include "workers/drivers/ovsdb_private.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"

#include <string.h>

#define MESSAGE_DEFAULT_BYTES ((size_t)16 * 1024 * 1024)
#define ID_SCHEMA             "schema"
#define ID_PROBE              "probe"

int ovsdb_post(struct lmo_ovsdb *db, json_t *message, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *owned = message;
    LMO_AUTO_FREE char *text = NULL;
    size_t len = 0;
    int r = lmo_json_dump(owned, &text, &len, err);
    return r < 0 ? lmo_err_prefix(err, "%s", db->link.name) : lmo_ovsdb_link_send(&db->link, text, len, err);
}

/* Remembers which columns are notated as differences, and checks that everything needed is there. */
static int take_schema(struct lmo_ovsdb *db, const json_t *schema, struct lmo_err *err)
{
    const json_t *tables = json_object_get(schema, "tables");
    if (!json_is_object(tables))
        return lmo_fail(err, LMO_E_UNSUPPORTED, "%s: the server has no database '%s'", db->link.name, db->database);
    LMO_AUTO_JSON json_t *composite = json_object();
    for (size_t i = 0; i < db->need_count; i++) {
        const struct lmo_ovsdb_need *need = &db->needs[i];
        json_t *columns = json_object_get(json_object_get(tables, need->table), "columns");
        if (!json_object_get(columns, need->column))
            return lmo_fail(err, LMO_E_UNSUPPORTED, "%s: no column '%s' in table '%s'; needed: %s", db->link.name,
                            need->column, need->table, db->needs_what);
        if (json_object_get(composite, need->table))
            continue;
        json_t *flags = json_object(), *definition;
        const char *column;
        json_object_foreach(columns, column, definition)
        {
            bool is = lmo_ovsdb_type_is_composite(json_object_get(definition, "type"));
            if (json_object_set_new(flags, column, json_boolean(is)) < 0)
                return lmo_fail(err, LMO_E_NO_MEMORY, "%s: out of memory", db->link.name);
        }
        if (json_object_set_new(composite, need->table, flags) < 0)
            return lmo_fail(err, LMO_E_NO_MEMORY, "%s: out of memory", db->link.name);
    }
    json_decref(db->composite);
    db->composite = LMO_TAKE(composite);
    return 0;
}

/* The schema has come: READY or UNFIT. */
static int greeted(struct lmo_ovsdb *db, const json_t *message, struct lmo_err *err)
{
    const json_t *schema = json_object_get(message, "result");
    db->unfit = (struct lmo_err){0};
    if (take_schema(db, schema, &db->unfit) < 0) {
        lmo_log(LMO_LOG_ERROR, "database unfit", "to=%s reason=%s", db->link.name, db->unfit.text);
        db->state = OVSDB_UNFIT;
        return 0;
    }
    const char *version = json_string_value(json_object_get(schema, "version"));
    lmo_log(LMO_LOG_INFO, "database connected", "to=%s schema=%s version=%s", db->link.name, db->database,
            version ? version : "?");
    db->state = OVSDB_READY;
    db->link.useful = true;
    for (struct lmo_ovsdb_watch *w = db->watches; w; w = w->next) {
        int r = ovsdb_post_monitor(db, w, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static struct lmo_ovsdb_watch *find_watch(struct lmo_ovsdb *db, const char *id)
{
    struct lmo_ovsdb_watch *w = db->watches;
    while (w && (!id || strcmp(w->id, id) != 0))
        w = w->next;
    return w;
}

/* A reply of the server: to a call, to a watch's monitor, or to ourselves. */
static int on_reply(struct lmo_ovsdb *db, json_t *message, struct lmo_err *err)
{
    const json_t *id = json_object_get(message, "id");
    if (json_is_integer(id)) {
        for (struct ovsdb_call *c = db->calls; c; c = c->next) {
            if (c->id == json_integer_value(id) && !c->done) {
                c->reply = json_incref(message);
                c->done = true;
            }
        }
        return 0; /* nobody: the caller's deadline passed */
    }
    const char *text = json_string_value(id);
    if (text && strcmp(text, ID_SCHEMA) == 0 && db->state == OVSDB_GREETING)
        return greeted(db, message, err);
    struct lmo_ovsdb_watch *w = find_watch(db, text);
    int r = w ? ovsdb_watch_reply(db, w, message) : 0;
    return r < 0 ? lmo_fail(err, r, "contents of '%s' not understood", w->table) : 0;
}

static int on_message(struct lmo_ovsdb *db, json_t *message, struct lmo_err *err)
{
    const char *method = json_string_value(json_object_get(message, "method"));
    json_t *params = json_object_get(message, "params"), *id = json_object_get(message, "id");
    if (!method)
        return on_reply(db, message, err);
    if (strcmp(method, "echo") == 0)
        return ovsdb_post(db, json_pack("{sO*sO*sn}", "id", id, "result", params, "error"), err);
    if (strcmp(method, "update2") == 0) {
        struct lmo_ovsdb_watch *w = find_watch(db, json_string_value(json_array_get(params, 0)));
        int r = w && w->current ? ovsdb_watch_apply(db, w, json_array_get(params, 1)) : 0;
        return r < 0 ? lmo_fail(err, r, "change of '%s' not understood", w->table) : 0;
    }
    return 0;
}

static int received(void *arg, const uint8_t *bytes, size_t n, struct lmo_err *err)
{
    struct lmo_ovsdb *db = arg;
    const char *text;
    size_t len;
    int r = lmo_ovsdb_framer_add(&db->framer, bytes, n);
    while (r == 0 && (r = lmo_ovsdb_framer_next(&db->framer, &text, &len)) > 0) {
        LMO_AUTO_JSON json_t *message = NULL;
        r = lmo_json_parse_object(text, len, db->framer.max_bytes, &message, err);
        if (r == 0)
            r = on_message(db, message, err);
        if (r < 0)
            return r;
    }
    return r < 0 ? lmo_fail(err, r, "stream not understood (%s)", lmo_err_name(r)) : 0;
}

static int connected(void *arg, struct lmo_err *err)
{
    struct lmo_ovsdb *db = arg;
    db->state = OVSDB_GREETING;
    lmo_ovsdb_framer_reset(&db->framer);
    return ovsdb_post(db, json_pack("{sss[s]ss}", "method", "get_schema", "params", db->database, "id", ID_SCHEMA),
                      err);
}

static int probe(void *arg, struct lmo_err *err)
{
    return ovsdb_post(arg, json_pack("{sss[]ss}", "method", "echo", "params", "id", ID_PROBE), err);
}

/* Whatever waited for an answer does not know what became of its request. */
static void lost(void *arg)
{
    struct lmo_ovsdb *db = arg;
    db->state = OVSDB_DOWN;
    for (struct ovsdb_call *c = db->calls; c; c = c->next) {
        c->code = c->done ? c->code : LMO_E_UNKNOWN;
        c->done = true;
    }
    for (struct lmo_ovsdb_watch *w = db->watches; w; w = w->next)
        w->current = false;
}

static const struct lmo_ovsdb_link_user link_user = {.connected = connected,
                                                     .received = received,
                                                     .probe = probe,
                                                     .lost = lost};

static void destroy(struct lmo_ovsdb *db)
{
    lmo_ovsdb_framer_reset(&db->framer);
    json_decref(db->composite);
    free(db);
}

int lmo_ovsdb_open(const struct lmo_ovsdb_config *cfg, struct lmo_ovsdb **ret, struct lmo_err *err)
{
    struct lmo_ovsdb *db = calloc(1, sizeof *db);
    if (!db)
        return lmo_fail(err, LMO_E_NO_MEMORY, "%s: out of memory", cfg->name);
    (void)snprintf(db->database, sizeof db->database, "%s", cfg->database);
    (void)snprintf(db->needs_what, sizeof db->needs_what, "%s", cfg->needs_what ? cfg->needs_what : "a newer server");
    db->needs = cfg->needs;
    db->need_count = cfg->need_count;
    db->framer.max_bytes = cfg->max_message_bytes ? cfg->max_message_bytes : MESSAGE_DEFAULT_BYTES;
    int r = lmo_ovsdb_link_start(&db->link, cfg->name, cfg->remotes, cfg->probe_ms, &link_user, db, err);
    if (r < 0) {
        destroy(db);
        return r;
    }
    *ret = db;
    return 0;
}

void lmo_ovsdb_close(struct lmo_ovsdb *db)
{
    if (!db)
        return;
    lmo_assert(!db->calls && !db->watches);
    lmo_ovsdb_link_stop(&db->link);
    destroy(db);
}
