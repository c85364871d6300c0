/* ovsdb_json.c - framing and values of OVSDB's JSON; see ovsdb_json.h.
 *
 * The framer only counts brackets outside strings. That is enough to find where an object ends, because jansson then
 * parses what was framed and refuses anything that was not JSON. It looks at every byte once. */
#include "workers/drivers/ovsdb_json.h"

#include <string.h>

#define MIN_CAPACITY  ((size_t)8192)
#define KEPT_CAPACITY ((size_t)65536)

int lmo_ovsdb_framer_add(struct lmo_ovsdb_framer *f, const void *bytes, size_t n)
{
    /* One read may bring the end of a message of the largest size and the beginning of the next. */
    size_t most = f->max_bytes + n;
    if (f->len > most - n)
        return LMO_E_TOO_LARGE;
    if (f->cap - f->len < n) {
        size_t cap = f->cap ? f->cap * 2 : MIN_CAPACITY;
        cap = cap < f->len + n ? f->len + n : cap;
        char *buf = realloc(f->buf, cap);
        if (!buf)
            return LMO_E_NO_MEMORY;
        f->buf = buf;
        f->cap = cap;
    }
    memcpy(f->buf + f->len, bytes, n);
    f->len += n;
    return 0;
}

/* Drops the message handed out before, and the memory of an unusually large one. */
static void drop_taken(struct lmo_ovsdb_framer *f)
{
    if (!f->taken)
        return;
    memmove(f->buf, f->buf + f->taken, f->len - f->taken);
    f->len -= f->taken;
    f->taken = 0;
    f->scan = 0;
    if (f->cap > KEPT_CAPACITY && f->len <= MIN_CAPACITY) {
        char *small = realloc(f->buf, MIN_CAPACITY);
        if (small) {
            f->buf = small;
            f->cap = MIN_CAPACITY;
        }
    }
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

int lmo_ovsdb_framer_next(struct lmo_ovsdb_framer *f, const char **ret_text, size_t *ret_len)
{
    drop_taken(f);
    for (; f->scan < f->len; f->scan++) {
        char c = f->buf[f->scan];
        if (f->in_string) {
            if (f->escaped)
                f->escaped = false;
            else if (c == '\\')
                f->escaped = true;
            else if (c == '"')
                f->in_string = false;
            continue;
        }
        if (f->depth == 0 && c != '{') {
            if (!is_space(c))
                return LMO_E_INVALID;
            /* White space between messages is not kept: it would count against the next one's size. */
            f->taken = f->scan + 1;
            drop_taken(f);
            f->scan = (size_t)-1; /* the loop's increment makes it 0 */
            continue;
        }
        if (c == '"') {
            f->in_string = true;
        } else if (c == '{' || c == '[') {
            if (++f->depth > LMO_OVSDB_DEPTH_MAX)
                return LMO_E_TOO_LARGE;
        } else if ((c == '}' || c == ']') && --f->depth == 0) {
            f->taken = f->scan + 1;
            *ret_text = f->buf;
            *ret_len = f->taken;
            return 1;
        }
    }
    return f->len > f->max_bytes ? LMO_E_TOO_LARGE : 0;
}

void lmo_ovsdb_framer_reset(struct lmo_ovsdb_framer *f)
{
    size_t max_bytes = f->max_bytes;
    free(f->buf);
    *f = (struct lmo_ovsdb_framer){.max_bytes = max_bytes};
}

/* The elements of ["set", [...]] or of ["map", [...]]; NULL for anything else. */
static json_t *elements_of(const json_t *v, const char *kind)
{
    const char *tag = json_string_value(json_array_get(v, 0));
    if (json_array_size(v) != 2 || !tag || strcmp(tag, kind) != 0)
        return NULL;
    json_t *list = json_array_get(v, 1);
    return json_is_array(list) ? list : NULL;
}

size_t lmo_ovsdb_set_size(const json_t *v)
{
    if (!v || elements_of(v, "map"))
        return 0;
    const json_t *list = elements_of(v, "set");
    return list ? json_array_size(list) : 1;
}

json_t *lmo_ovsdb_set_at(const json_t *v, size_t i)
{
    if (!v || elements_of(v, "map"))
        return NULL;
    json_t *list = elements_of(v, "set");
    if (list)
        return json_array_get(list, i);
    return i == 0 ? (json_t *)v : NULL; /* borrowed either way; jansson has no const accessors */
}

static json_t *only(const json_t *v)
{
    return lmo_ovsdb_set_size(v) == 1 ? lmo_ovsdb_set_at(v, 0) : NULL;
}

const char *lmo_ovsdb_string(const json_t *v)
{
    return json_string_value(only(v));
}

static const char *uuid_atom(const json_t *v)
{
    const char *tag = json_string_value(json_array_get(v, 0));
    if (json_array_size(v) != 2 || !tag || strcmp(tag, "uuid") != 0)
        return NULL;
    return json_string_value(json_array_get(v, 1));
}

const char *lmo_ovsdb_uuid(const json_t *v)
{
    return uuid_atom(only(v));
}

bool lmo_ovsdb_integer(const json_t *v, int64_t *ret)
{
    const json_t *n = only(v);
    if (!json_is_integer(n))
        return false;
    *ret = json_integer_value(n);
    return true;
}

bool lmo_ovsdb_true(const json_t *v)
{
    return json_is_true(only(v));
}

bool lmo_ovsdb_set_has_uuid(const json_t *v, const char *uuid)
{
    for (size_t i = 0; i < lmo_ovsdb_set_size(v); i++) {
        const char *u = uuid_atom(lmo_ovsdb_set_at(v, i));
        if (u && strcmp(u, uuid) == 0)
            return true;
    }
    return false;
}

const char *lmo_ovsdb_map_get(const json_t *v, const char *key)
{
    const json_t *list = elements_of(v, "map");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i);
        const char *k = json_string_value(json_array_get(pair, 0));
        if (k && strcmp(k, key) == 0)
            return json_string_value(json_array_get(pair, 1));
    }
    return NULL;
}

bool lmo_ovsdb_type_is_composite(const json_t *type)
{
    const json_t *max = json_object_get(type, "max");
    if (json_is_string(max))
        return true; /* "unlimited" */
    return json_is_integer(max) && json_integer_value(max) > 1;
}

/* ovsdb-server(7), update2: a set's difference holds the elements that are in exactly one of old and new. */
static json_t *apply_set(const json_t *old, const json_t *diff)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < lmo_ovsdb_set_size(old); i++) {
        json_t *e = lmo_ovsdb_set_at(old, i);
        bool removed = false;
        for (size_t j = 0; !removed && j < lmo_ovsdb_set_size(diff); j++)
            removed = json_equal(e, lmo_ovsdb_set_at(diff, j));
        if (!removed)
            json_array_append(list, e);
    }
    for (size_t j = 0; list && j < lmo_ovsdb_set_size(diff); j++) {
        json_t *e = lmo_ovsdb_set_at(diff, j);
        bool had = false;
        for (size_t i = 0; !had && i < lmo_ovsdb_set_size(old); i++)
            had = json_equal(e, lmo_ovsdb_set_at(old, i));
        if (!had)
            json_array_append(list, e);
    }
    return json_pack("[so]", "set", list);
}

/* ... and a map's the pairs that are only in one (added or removed), or whose value is new. */
static json_t *apply_map(const json_t *old, const json_t *diff)
{
    const json_t *was = elements_of(old, "map"), *change = elements_of(diff, "map");
    json_t *list = json_array();
    for (size_t i = 0; list && i < json_array_size(was); i++) {
        json_t *pair = json_array_get(was, i);
        bool touched = false;
        for (size_t j = 0; !touched && j < json_array_size(change); j++)
            touched = json_equal(json_array_get(pair, 0), json_array_get(json_array_get(change, j), 0));
        if (!touched)
            json_array_append(list, pair);
    }
    for (size_t j = 0; list && j < json_array_size(change); j++) {
        json_t *pair = json_array_get(change, j);
        bool removed = false;
        for (size_t i = 0; !removed && i < json_array_size(was); i++)
            removed = json_equal(pair, json_array_get(was, i));
        if (!removed)
            json_array_append(list, pair);
    }
    return json_pack("[so]", "map", list);
}

json_t *lmo_ovsdb_apply_diff(const json_t *old, const json_t *diff)
{
    if (elements_of(diff, "map"))
        return elements_of(old, "map") || !old ? apply_map(old, diff) : NULL;
    return apply_set(old, diff);
}

json_t *lmo_ovsdb_make_uuid(const char *uuid)
{
    return json_pack("[ss]", "uuid", uuid);
}
