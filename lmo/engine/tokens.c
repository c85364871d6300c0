/* tokens.c - bearer tokens: made, shown without their secrets, revoked; and looked up by whoever lets requests in.
 *
 * Those in force are in memory, under a lock of their own: they are looked up on other threads, for every request that comes
 * with one. A token is in memory only after it is stored, and leaves memory only after its revocation is stored, so what was
 * answered holds after a restart too. */
#include "base/hash.h"
#include "base/json.h"
#include "base/str.h"
#include "engine/internal.h"
#include "proto/codec.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct token {
    struct lmo_token_row row;
    UT_hash_handle hh;
};

struct tokens {
    pthread_mutex_t lock;
    struct token *by_id;
};

static bool in_force(const struct lmo_engine *e, const struct lmo_token_row *row)
{
    return row->revoked_ms == 0 && row->expires_ms > engine_now_ms(e);
}

static int add(void *arg, const struct lmo_token_row *row)
{
    struct tokens *t = arg;
    struct token *token = malloc(sizeof *token);
    if (!token) {
        return LMO_E_NO_MEMORY;
    }
    token->row = *row;
    pthread_mutex_lock(&t->lock);
    HASH_ADD_STR(t->by_id, row.id, token);
    pthread_mutex_unlock(&t->lock);
    return 0;
}

int engine_tokens_load(struct lmo_engine *e, struct lmo_err *err)
{
    struct tokens *t = calloc(1, sizeof *t);
    if (!t) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for tokens");
    }
    lmo_assert(pthread_mutex_init(&t->lock, NULL) == 0);
    e->tokens = t;
    return e->store->ops->token_list ? e->store->ops->token_list(e->store, engine_now_ms(e), add, t, err) : 0;
}

void engine_tokens_free(struct lmo_engine *e)
{
    struct token *token, *tmp;
    if (!e->tokens) {
        return;
    }
    HASH_ITER(hh, e->tokens->by_id, token, tmp)
    {
        HASH_DEL(e->tokens->by_id, token);
        free(token);
    }
    pthread_mutex_destroy(&e->tokens->lock);
    free(e->tokens);
    e->tokens = NULL;
}

bool lmo_engine_token_find(struct lmo_engine *e, const char *id, struct lmo_token_row *ret)
{
    struct token *token;
    pthread_mutex_lock(&e->tokens->lock);
    HASH_FIND_STR(e->tokens->by_id, id, token);
    if (token) {
        *ret = token->row;
    }
    pthread_mutex_unlock(&e->tokens->lock);
    return token && in_force(e, ret);
}

/* Those that have expired make room. On the loop: the only thread that changes anything. */
static void sweep(struct lmo_engine *e)
{
    struct token *token, *tmp;
    pthread_mutex_lock(&e->tokens->lock);
    HASH_ITER(hh, e->tokens->by_id, token, tmp)
    {
        if (!in_force(e, &token->row)) {
            HASH_DEL(e->tokens->by_id, token);
            free(token);
        }
    }
    pthread_mutex_unlock(&e->tokens->lock);
}

static struct token *find(struct request *r)
{
    struct token *token;
    sweep(r->engine);
    HASH_FIND_STR(r->engine->tokens->by_id, r->name, token);
    if (!token) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "id", "no token in force has this id");
    }
    return token;
}

static json_t *to_json(const struct lmo_token_row *row)
{
    json_t *o = json_object();
    int r = lmo_json_put_str(o, "id", row->id);
    r |= lmo_json_put_str(o, "name", row->name);
    r |= lmo_json_put_str(o, "role", row->role);
    r |= lmo_json_put_i64(o, "created_ms", row->created_ms);
    r |= lmo_json_put_i64(o, "expires_ms", row->expires_ms);
    r |= lmo_json_put_str(o, "created_by", row->created_by);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void token_etag(const struct lmo_token_row *row, char ret[LMO_ETAG_MAX])
{
    (void)snprintf(ret, LMO_ETAG_MAX, "\"%s\"", row->id); /* nothing about it ever changes */
}

/* ------------------------------------------------------------------ requests */

static bool name_taken(const struct lmo_engine *e, const char *name)
{
    for (const struct token *t = e->tokens->by_id; t; t = t->hh.next) {
        if (strcmp(t->row.name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void token_add(struct request *r)
{
    struct lmo_engine *e = r->engine;
    struct lmo_err err = {0};
    char location[64], etag[LMO_ETAG_MAX];
    sweep(e);
    if (!e->store->ops->token_put) {
        engine_reply_fail(r->fn, r->arg, LMO_E_UNSUPPORTED, "", "this store keeps no tokens");
        return;
    }
    if (name_taken(e, r->token.name)) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "name", "a token named %s is in force already", r->token.name);
        return;
    }
    if (HASH_COUNT(e->tokens->by_id) >= LMO_TOKENS_MAX) {
        engine_reply_fail(r->fn, r->arg, LMO_E_LIMIT, "", "%d tokens are in force; that is the limit", LMO_TOKENS_MAX);
        return;
    }
    r->token.created_ms = engine_now_ms(e);
    r->token.expires_ms += r->token.created_ms;
    r->token.revoked_ms = 0;
    json_t *shown = to_json(&r->token);
    token_etag(&r->token, etag);
    if (engine_would(r, 201, NULL, "a token named %s of the role %s would be made", r->token.name, r->token.role)) {
        json_decref(shown);
        return;
    }
    (void)snprintf(location, sizeof location, "/v1/tokens/%s", r->token.id);
    engine_keep_with_next_write(r, 201, shown, location, etag);
    int rc = e->store->ops->token_put(e->store, &r->token, &err);
    rc = rc < 0 ? rc : add(e->tokens, &r->token);
    if (rc < 0) {
        json_decref(shown);
        engine_reply_fail(r->fn, r->arg, rc, rc == LMO_E_CONFLICT ? "name" : "", "%s",
                          err.text[0] ? err.text : "no memory for the token");
        return;
    }
    engine_reply_object(r->fn, r->arg, 201, shown, location, etag);
}

static void token_get(struct request *r)
{
    const struct token *t = find(r);
    char etag[LMO_ETAG_MAX];
    if (t) {
        token_etag(&t->row, etag);
        engine_reply_object(r->fn, r->arg, 200, to_json(&t->row), "", etag);
    }
}

static void token_revoke(struct request *r)
{
    struct lmo_engine *e = r->engine;
    struct lmo_err err = {0};
    struct token *t = find(r);
    if (!t || engine_would(r, 204, NULL, "token %s (%s) would be revoked", t->row.id, t->row.name)) {
        return;
    }
    engine_keep_with_next_write(r, 204, NULL, "", "");
    if (e->store->ops->token_revoke(e->store, t->row.id, engine_now_ms(e), &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return;
    }
    pthread_mutex_lock(&e->tokens->lock);
    HASH_DEL(e->tokens->by_id, t);
    pthread_mutex_unlock(&e->tokens->lock);
    free(t);
    engine_reply_ok(r->fn, r->arg, 204, NULL, "");
}

static int by_id(const struct token *a, const struct token *b)
{
    return strcmp(a->row.id, b->row.id);
}

static void token_list(struct request *r)
{
    struct lmo_engine *e = r->engine;
    json_t *list = json_array(), *body = json_object();
    const char *next = NULL, *last = "";
    int rc = 0;
    sweep(e);
    pthread_mutex_lock(&e->tokens->lock);
    HASH_SORT(e->tokens->by_id, by_id);
    pthread_mutex_unlock(&e->tokens->lock);
    for (const struct token *t = e->tokens->by_id; t; t = t->hh.next) {
        if (strcmp(t->row.id, r->page.after) <= 0) {
            continue;
        }
        if (json_array_size(list) == r->page.limit) {
            next = last;
            break;
        }
        rc |= lmo_json_add(list, to_json(&t->row));
        last = t->row.id;
    }
    rc |= lmo_json_put(body, "tokens", list);
    rc |= lmo_page_put_next(body, &r->page, next);
    if (rc < 0) {
        json_decref(body);
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory for the list of tokens");
        return;
    }
    engine_reply_ok(r->fn, r->arg, 200, body, "");
}

/* ------------------------------------------------------------------ the public calls */

int lmo_engine_token_add(struct lmo_engine *e, const struct lmo_token_row *row, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(token_add, fn, arg, row->id);
    r.token = *row;
    return engine_post(e, &r);
}

int lmo_engine_token_get(struct lmo_engine *e, const char *id, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(token_get, fn, arg, id);
    return engine_post(e, &r);
}

int lmo_engine_token_list(struct lmo_engine *e, const struct lmo_page *page, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(token_list, fn, arg, "");
    r.page = *page;
    return engine_post(e, &r);
}

int lmo_engine_token_revoke(struct lmo_engine *e, const char *id, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(token_revoke, fn, arg, id);
    return engine_post(e, &r);
}
