/* keyed.c - requests with an idempotency key: one effect, however often they come.
 *
 * Invariants:
 *  K1  While a request is under way, its key is in e->keyed: a second one is a CONFLICT. There is one loop, so there is no
 *      moment between looking and taking.
 *  K2  An answer is stored in the transaction of the change that it tells of, if that is one transaction. What crashes before
 *      it has changed nothing, what crashes after it is answered from the store. A change that is more than one (the doctor's
 *      repairs) is answered first and kept right before the answer is sent.
 *  K3  What the client gets is the text that was stored, byte for byte. */
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_KEPT_MAX (256U << 10) /* a longer answer is kept as its location */

struct keyed {
    struct lmo_engine *engine;
    char id[LMO_NAME_MAX + 32 + LMO_KEY_MAX]; /* principal, line break, key */
    struct lmo_kept_answer row;
    char *body; /* what row.body points to; NULL: no answer yet */
    size_t len;
    bool stored; /* some transaction has it, or will have it */
    lmo_engine_reply_fn *fn;
    void *arg;
    UT_hash_handle hh;
};

static void keyed_free(struct keyed *k)
{
    HASH_DEL(k->engine->keyed, k);
    free(k->body);
    free(k);
}

void engine_keyed_free(struct lmo_engine *e)
{
    struct keyed *k, *tmp;
    HASH_ITER(hh, e->keyed, k, tmp)
    {
        keyed_free(k);
    }
}

/* Writes the answer down in memory. False without memory: then it is not kept. */
static bool fill(struct keyed *k, unsigned status, const json_t *body, const char *location, const char *etag)
{
    char *text = NULL;
    size_t len = 0;
    if (body && lmo_json_dump(body, &text, &len, NULL) < 0) {
        return false;
    }
    if (!text && !(text = strdup(""))) {
        return false;
    }
    free(k->body);
    k->body = text;
    k->len = len;
    k->row.status = status;
    k->row.created_ms = engine_now_ms(k->engine);
    LMO_COPY(k->row.location, location);
    LMO_COPY(k->row.etag, etag);
    k->row.body = len <= BODY_KEPT_MAX ? k->body : "";
    return true;
}

/* K2, second half. The effect is there already, so a failure is told to the log and not to the client. */
static void keep_now(struct keyed *k)
{
    const struct lmo_store_ops *ops = k->engine->store->ops;
    struct lmo_err err = {0};
    int r = ops->answer_with ? ops->answer_with(k->engine->store, &k->row) : 0;
    if (r == 0 && ops->answer_with) {
        r = ops->commit(k->engine->store, NULL, 0, NULL, 0, &err);
    }
    if (r < 0) {
        lmo_log(LMO_LOG_ERROR, "answer not kept: a repeat of the request would be carried out", "principal=%s key=%s why=%s",
                k->row.principal, k->row.key, err.text[0] ? err.text : lmo_err_name(r));
    }
}

static void on_reply(void *arg, const struct lmo_engine_reply *reply)
{
    struct keyed *k = arg;
    struct lmo_engine_reply out = *reply;
    if (reply->code == 0 && !k->stored && fill(k, reply->http_status, reply->body, reply->location, reply->etag)) {
        keep_now(k);
    }
    if (reply->code == 0 && k->body) { /* K3 */
        out.http_status = k->row.status;
        out.location = k->row.location;
        out.etag = k->row.etag[0] ? k->row.etag : NULL;
        out.json = k->len > 0 ? k->body : NULL;
        out.json_len = k->len;
    }
    k->fn(k->arg, &out);
    keyed_free(k);
}

/* The object that the first request made, as it is now: answers that an older program kept have no text. */
static void replay_object(struct request *r, const struct lmo_kept_answer *a)
{
    static const char migrations[] = "/v1/migrations/";
    static struct lmo_migration m; /* the loop thread's scratch */
    struct lmo_err err = {0};
    const char *id = strncmp(a->location, migrations, sizeof migrations - 1) == 0 ? a->location + sizeof migrations - 1 : "";
    const struct entry *open = engine_entry(r->engine, id);
    if (open) {
        engine_reply_migration(r->fn, r->arg, a->status, engine_record(open), open);
    } else if (r->engine->store->ops->get(r->engine->store, id, &m, &err) == 0) {
        engine_reply_migration(r->fn, r->arg, a->status, &m, NULL);
    } else {
        engine_reply_fail(r->fn, r->arg, err.code, "Idempotency-Key", "%s", err.text);
    }
}

static void replay(struct request *r, const struct lmo_kept_answer *a)
{
    if (strcmp(a->hash, r->ask.hash) != 0) {
        engine_reply_fail(r->fn, r->arg, LMO_E_REFUSED, "Idempotency-Key", "this key came with another request before%s%s",
                          a->location[0] ? ", which made " : "", a->location);
    } else if (!a->body[0] && a->location[0]) {
        replay_object(r, a);
    } else {
        struct lmo_engine_reply reply = {.http_status = a->status,
                                         .body = a->body[0] ? json_loads(a->body, 0, NULL) : NULL,
                                         .json = a->body[0] ? a->body : NULL,
                                         .json_len = strlen(a->body),
                                         .text = "",
                                         .field = "",
                                         .location = a->location,
                                         .etag = a->etag[0] ? a->etag : NULL};
        r->fn(r->arg, &reply);
    }
}

static bool under_way(struct request *r, char *id, size_t size)
{
    struct keyed *k;
    (void)snprintf(id, size, "%s\n%s", r->ask.principal, r->ask.key);
    HASH_FIND_STR(r->engine->keyed, id, k);
    if (k) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "Idempotency-Key", "a request with this key is being carried out");
    }
    return k != NULL;
}

bool engine_keyed_begin(struct request *r)
{
    struct lmo_engine *e = r->engine;
    struct lmo_kept_answer before;
    struct lmo_err err = {0};
    char *body = NULL, id[sizeof((struct keyed *)0)->id];
    if (!r->ask.key[0] || r->ask.dry_run) {
        return true;
    }
    if (under_way(r, id, sizeof id)) {
        return false;
    }
    int rc = e->store->ops->answer ? e->store->ops->answer(e->store, r->ask.principal, r->ask.key, &before, &body, &err)
                                   : LMO_E_NOT_FOUND;
    if (rc == 0) {
        replay(r, &before);
        free(body);
        return false;
    }
    struct keyed *k = rc == LMO_E_NOT_FOUND ? calloc(1, sizeof *k) : NULL;
    if (!k) {
        engine_reply_fail(r->fn, r->arg, rc == LMO_E_NOT_FOUND ? LMO_E_NO_MEMORY : rc, "", "%s",
                          rc == LMO_E_NOT_FOUND ? "no memory for a request" : err.text);
        return false;
    }
    *k = (struct keyed){.engine = e, .fn = r->fn, .arg = r->arg};
    LMO_COPY(k->id, id);
    LMO_COPY(k->row.principal, r->ask.principal);
    LMO_COPY(k->row.key, r->ask.key);
    LMO_COPY(k->row.hash, r->ask.hash);
    HASH_ADD_STR(e->keyed, id, k);
    r->keyed = k;
    r->fn = on_reply;
    r->arg = k;
    return true;
}

void engine_keep_with_next_write(struct request *r, unsigned status, const json_t *body, const char *location,
                                 const char *etag)
{
    struct keyed *k = r->keyed;
    const struct lmo_store_ops *ops = r->engine->store->ops;
    if (k && ops->answer_with && fill(k, status, body, location, etag)) {
        k->stored = ops->answer_with(r->engine->store, &k->row) == 0;
    }
}

void engine_keep_with_commit(struct lmo_engine *e, struct keyed *k, unsigned status, const json_t *body,
                             const char *location, const char *etag)
{
    struct lmo_err err = {0};
    if (k && !k->stored && fill(k, status, body, location, etag)) {
        const struct lmo_object o = {.kind = LMO_OBJECT_ANSWER, .key = k->row.key, .answer = &k->row};
        k->stored = engine_put(e, &o, &err) == 0;
    }
}

/* ------------------------------------------------------------------ with a record */

static void link_answer(const struct lmo_kept_answer **list, struct keyed *k, struct entry *entry, unsigned status)
{
    const struct lmo_migration *m = engine_record(entry);
    char location[LMO_URL_MAX], etag[LMO_ETAG_MAX];
    LMO_AUTO_JSON json_t *body = engine_migration_json(m, entry);
    (void)snprintf(location, sizeof location, "/v1/migrations/%s", entry->id);
    engine_migration_etag(m, etag);
    if (body && fill(k, status, body, location, etag)) {
        k->stored = true;
        k->row.next = *list;
        *list = &k->row;
    }
}

const struct lmo_kept_answer *engine_answers_of(struct entry *entry)
{
    const struct lmo_kept_answer *list = NULL;
    if (entry->request && entry->created_keyed) {
        link_answer(&list, entry->created_keyed, entry, 202);
    }
    for (struct waiter *w = entry->waiters; w; w = w->next) {
        if (w->keyed && w->status == 202 && entry->version > w->version) {
            link_answer(&list, w->keyed, entry, 202);
        }
    }
    return list;
}
