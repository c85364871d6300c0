/* ask.c - how something is asked for: Idempotency-Key, If-Match, dry_run. The engine keeps what they promise
 * (engine/engine.h); here they are read, and refused where they mean nothing. */
#include "api/internal.h"

#include "base/json.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define KEY_HEADER   "Idempotency-Key"
#define MATCH_HEADER "If-Match"

/* The body in one canonical form: the same members in another order or spacing are the same request. What is no JSON is
 * taken as it is: its handler refuses it. */
static int canonical_body(const struct lmo_http_request *req, char **ret)
{
    size_t len = 0;
    const char *body = lmo_http_body(req, &len);
    LMO_AUTO_JSON json_t *root = NULL;
    if (len > 0 && lmo_json_parse(body, len, BODY_MAX, &root, NULL) == 0) {
        return lmo_json_dump_sorted(root, ret, NULL);
    }
    *ret = strndup(len > 0 ? body : "{}", len > 0 ? len : 2);
    return *ret ? 0 : LMO_E_NO_MEMORY;
}

static const struct lmo_api_operation *operation_of(const struct lmo_api_route *route)
{
    for (size_t i = 0; i < lmo_api_operation_count; i++) {
        if (strcmp(lmo_api_operations[i].pattern, route->pattern) == 0 &&
            strcmp(lmo_api_operations[i].method, route->method) == 0) {
            return &lmo_api_operations[i];
        }
    }
    return NULL;
}

/* SHA-256 of method, path, query and body. */
static int digest(const struct lmo_http_request *req, const struct lmo_api_operation *op, char ret[65])
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    LMO_AUTO_FREE char *body = NULL;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md && canonical_body(req, &body) == 0 && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;
    ok = ok && EVP_DigestUpdate(md, lmo_http_method(req), strlen(lmo_http_method(req)) + 1) == 1;
    ok = ok && EVP_DigestUpdate(md, lmo_http_path(req), strlen(lmo_http_path(req)) + 1) == 1;
    for (const char *const *q = op ? op->query : NULL; ok && q && *q; q++) {
        const char *value = lmo_http_query(req, *q);
        ok = !value || (EVP_DigestUpdate(md, *q, strlen(*q) + 1) == 1 && EVP_DigestUpdate(md, value, strlen(value) + 1) == 1);
    }
    ok = ok && EVP_DigestUpdate(md, body, strlen(body)) == 1 && EVP_DigestFinal_ex(md, raw, &len) == 1 && len == 32;
    EVP_MD_CTX_free(md);
    for (unsigned i = 0; ok && i < len; i++) {
        snprintf(ret + (size_t)2 * i, 3, "%02x", raw[i]);
    }
    return ok ? 0 : LMO_E_NO_MEMORY;
}

static bool read_key(struct lmo_http_request *req, const struct lmo_api_operation *op, struct lmo_ask *ask)
{
    const char *key = lmo_http_header(req, KEY_HEADER);
    if (!key) {
        return true;
    }
    size_t len = strlen(key);
    bool printable = true;
    for (size_t i = 0; i < len; i++) {
        printable = printable && key[i] > ' ' && key[i] <= '~';
    }
    if (len == 0 || len >= sizeof(ask->key) || !printable) {
        refuse(req, LMO_E_INVALID, KEY_HEADER, KEY_HEADER ": must be 1 to 64 printable characters without spaces");
        return false;
    }
    memcpy(ask->key, key, len + 1);
    if (digest(req, op, ask->hash) < 0) {
        refuse(req, LMO_E_NO_MEMORY, "", "no memory for the request");
        return false;
    }
    return true;
}

static bool read_match(struct lmo_http_request *req, const struct lmo_api_route *route, struct lmo_ask *ask)
{
    const char *match = lmo_http_header(req, MATCH_HEADER);
    if (!match) {
        return true;
    }
    if (!(route->flags & LMO_API_IF_MATCH)) {
        refuse(req, LMO_E_INVALID, MATCH_HEADER, MATCH_HEADER ": means nothing for %s %s", route->method, route->pattern);
        return false;
    }
    if (!match[0] || strlen(match) >= sizeof(ask->if_match)) {
        refuse(req, LMO_E_INVALID, MATCH_HEADER, MATCH_HEADER ": must be an ETag as it was given, or *");
        return false;
    }
    memcpy(ask->if_match, match, strlen(match) + 1);
    return true;
}

static bool read_dry_run(struct lmo_http_request *req, const struct lmo_api_route *route, struct lmo_ask *ask)
{
    const char *text = lmo_http_query(req, "dry_run");
    ask->dry_run = text && strcmp(text, "true") == 0;
    if (text && !ask->dry_run && strcmp(text, "false") != 0) {
        refuse(req, LMO_E_INVALID, "dry_run", "dry_run: must be true or false");
        return false;
    }
    if (ask->dry_run && !(route->flags & LMO_API_DRY_RUN)) {
        refuse(req, LMO_E_INVALID, "dry_run", "dry_run: not possible for %s %s; nothing was done", route->method, route->pattern);
        return false;
    }
    return true;
}

/* A misspelt filter must not be an answer about everything, nor a misspelt dry_run a deed. */
static bool check_query(struct lmo_http_request *req, const struct lmo_api_operation *op)
{
    const char *unknown = op ? lmo_http_query_unknown(req, op->query) : NULL;
    if (unknown) {
        refuse(req, LMO_E_INVALID, unknown, "%.60s: not a parameter of this request", unknown);
        return false;
    }
    return true;
}

bool read_ask(struct lmo_http_request *req, const struct lmo_api_route *route, struct lmo_ask *ret)
{
    const struct lmo_api_operation *op = operation_of(route);
    *ret = (struct lmo_ask){0};
    principal_of(req, ret->principal, sizeof(ret->principal));
    if (!check_query(req, op)) {
        return false;
    }
    return !lmo_api_route_writes(route) ||
           (read_dry_run(req, route, ret) && read_match(req, route, ret) && read_key(req, op, ret));
}
