/* page.c - which part of a list is wanted. */
#include "api/internal.h"

#include "base/id.h"

#include <string.h>

bool read_page(struct lmo_http_request *req, const char *list, const char *const *filters, struct lmo_page *ret)
{
    struct lmo_page page = {.seal = lmo_seal(LMO_SEAL_NONE, list)};
    const char *cursor = lmo_http_query(req, "cursor");
    uint64_t limit = LIST_DEFAULT;
    struct lmo_err err = {0};
    for (; filters && *filters; filters++) {
        page.seal = lmo_seal(page.seal, lmo_http_query(req, *filters));
    }
    if (!read_number(req, "limit", 1, LIST_MAX, &limit)) {
        return false;
    }
    page.limit = (unsigned)limit;
    if (cursor && lmo_cursor_read(cursor, page.seal, page.after, &err) < 0) {
        refuse_error(req, &err);
        return false;
    }
    *ret = page;
    return true;
}

bool read_name(struct lmo_http_request *req, const char *name, char *ret, size_t size)
{
    const char *text = lmo_http_query(req, name);
    ret[0] = '\0';
    if (!text) {
        return true;
    }
    if (!lmo_name_valid(text) || strlen(text) >= size) {
        refuse(req, LMO_E_INVALID, name, "%s: must be a name: 1 to %d of A-Z a-z 0-9 . _ -, not beginning with . or -", name,
               LMO_NAME_MAX - 1);
        return false;
    }
    memcpy(ret, text, strlen(text) + 1);
    return true;
}

bool read_period(struct lmo_http_request *req, int64_t *ret_since_ms, int64_t *ret_until_ms)
{
    const uint64_t last = (UINT64_C(1) << 48) - 1; /* an id holds no more */
    uint64_t since = 0, until = 0;
    if (!read_number(req, "since_ms", 0, last, &since) || !read_number(req, "until_ms", 0, last, &until)) {
        return false;
    }
    *ret_since_ms = (int64_t)since;
    *ret_until_ms = (int64_t)until;
    return true;
}
