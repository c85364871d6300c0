/* codec.c - walks the tables of codec.h in both directions. */
#include "proto/codec.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/id.h"
#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ encoding */

size_t lmo_utf8_length(const unsigned char *s, size_t left)
{
    unsigned char c = s[0];
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (n == 0 || n > left) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] > 0x9f) || (c == 0xf0 && s[1] < 0x90) ||
        (c == 0xf4 && s[1] > 0x8f)) {
        return 0;
    }
    return n;
}

json_t *lmo_codec_string(const char *text, size_t max)
{
    size_t len = strnlen(text, max);
    json_t *s = json_stringn(text, len);
    if (s) {
        return s;
    }
    LMO_AUTO_FREE char *clean = malloc(len + 1);
    if (!clean) {
        return NULL;
    }
    memcpy(clean, text, len);
    clean[len] = '\0';
    for (size_t i = 0; i < len;) {
        size_t n = lmo_utf8_length((const unsigned char *)clean + i, len - i);
        if (n == 0) {
            clean[i] = '?';
            n = 1;
        }
        i += n;
    }
    return json_stringn(clean, len);
}

uint64_t lmo_field_load_uint(const void *p, size_t size)
{
    switch (size) {
    case 1: return *(const uint8_t *)p;
    case 2: return *(const uint16_t *)p;
    case 4: return *(const uint32_t *)p;
    case 8: return *(const uint64_t *)p;
    default: lmo_unreachable("size of an unsigned field");
    }
}

void lmo_field_store_uint(void *p, size_t size, uint64_t v)
{
    switch (size) {
    case 1: *(uint8_t *)p = (uint8_t)v; break;
    case 2: *(uint16_t *)p = (uint16_t)v; break;
    case 4: *(uint32_t *)p = (uint32_t)v; break;
    case 8: *(uint64_t *)p = v; break;
    default: lmo_unreachable("size of an unsigned field");
    }
}

static int load_enum(const struct lmo_field *f, const void *p)
{
    int v;
    lmo_assert(f->size == sizeof(v));
    memcpy(&v, p, sizeof(v));
    return v;
}

static json_t *encode_array(const struct lmo_field *f, const void *p, unsigned count, bool sparse)
{
    json_t *array = json_array();
    lmo_assert(count <= f->max);
    for (unsigned i = 0; array && i < count; i++) {
        if (json_array_append_new(array, lmo_codec_encode(f->table, (const char *)p + i * f->size, sparse)) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* *ret_empty: the value is what a decoder would assume without the field. */
static json_t *encode_field(const struct lmo_field *f, const void *base, bool sparse, bool *ret_empty)
{
    const void *p = (const char *)base + f->offset;
    uint64_t u;
    int e;
    const char *word, *owned;
    json_t *object;

    switch (f->type) {
    case LMO_FIELD_TEXT: *ret_empty = *(const char *)p == '\0'; return lmo_codec_string(p, f->size - 1);
    case LMO_FIELD_OWNED:
        owned = *(char *const *)p;
        *ret_empty = owned == NULL;
        return owned ? lmo_codec_string(owned, SIZE_MAX) : json_null();
    case LMO_FIELD_BOOL: *ret_empty = !*(const bool *)p; return json_boolean(*(const bool *)p);
    case LMO_FIELD_UINT:
        u = lmo_field_load_uint(p, f->size);
        *ret_empty = u == 0;
        return json_integer(u > INT64_MAX ? INT64_MAX : (json_int_t)u);
    case LMO_FIELD_INT: *ret_empty = *(const int64_t *)p == 0; return json_integer(*(const int64_t *)p);
    case LMO_FIELD_ENUM:
        e = load_enum(f, p);
        word = f->words->text(e);
        lmo_assert(word != NULL);
        *ret_empty = e == 0;
        return json_string(word);
    case LMO_FIELD_STRUCT:
        object = lmo_codec_encode(f->table, p, sparse);
        *ret_empty = sparse && object && json_object_size(object) == 0;
        return object;
    case LMO_FIELD_ARRAY: {
        unsigned count = *(const unsigned *)(const void *)((const char *)base + f->count_offset);
        *ret_empty = count == 0;
        return encode_array(f, p, count, sparse);
    }
    }
    lmo_unreachable("type of a field");
}

json_t *lmo_codec_encode(const struct lmo_table *table, const void *from, bool sparse)
{
    json_t *obj = json_object();
    for (size_t i = 0; obj && i < table->count; i++) {
        const struct lmo_field *f = &table->fields[i];
        bool empty = false;
        json_t *value = encode_field(f, from, sparse, &empty);
        if (sparse && empty && !(f->flags & LMO_FIELD_REQUIRED)) {
            json_decref(value);
            continue;
        }
        if (json_object_set_new(obj, f->name, value) < 0) { /* also for a NULL value */
            json_decref(obj);
            return NULL;
        }
    }
    return obj;
}

/* ------------------------------------------------------------------ decoding */

/* Where we are, for the error text: a list from the leaf up, on the stack. */
struct place {
    const struct place *up;
    const char *name;
    long index; /* -1: not an element */
};

static void place_text(const struct place *at, char *buf, size_t size)
{
    if (at->up) {
        place_text(at->up, buf, size);
    } else {
        buf[0] = '\0';
    }
    size_t len = strlen(buf);
    if (at->index >= 0) {
        snprintf(buf + len, size - len, "[%ld]", at->index);
    } else {
        snprintf(buf + len, size - len, "%s%s", len ? "." : "", at->name);
    }
}

#define PLACE_MAX 160

static int wrong(const struct place *at, struct lmo_err *err, const char *what)
{
    char where[PLACE_MAX];
    place_text(at, where, sizeof(where));
    return lmo_fail(err, LMO_E_INVALID, "%s: %s", where, what);
}

static int wrong_type(const struct place *at, struct lmo_err *err, const char *wanted)
{
    char what[96];
    snprintf(what, sizeof(what), "must be %s", wanted);
    return wrong(at, err, what);
}

static bool op_id_valid(const char *text)
{
    return text[0] != '.' && text[0] != '-' &&
           text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")] == '\0';
}

const char *lmo_field_syntax_fault(const struct lmo_field *f, const char *text)
{
    unsigned flags = f->flags;
    if ((flags & LMO_FIELD_UUID) && !lmo_uuid_valid(text)) {
        return "not a UUID in lower case";
    }
    if ((flags & LMO_FIELD_ULID) && !lmo_ulid_valid(text)) {
        return "not a ULID";
    }
    if (((flags & LMO_FIELD_HOST) && !lmo_name_valid(text)) || ((flags & LMO_FIELD_OP_ID) && !op_id_valid(text))) {
        return "not a name (letters, digits, '.', '_', '-')";
    }
    return NULL;
}

static int decode_text(const struct lmo_field *f, const json_t *j, void *p, const struct place *at, struct lmo_err *err)
{
    if (!json_is_string(j)) {
        return wrong_type(at, err, "a string");
    }
    const char *text = json_string_value(j);
    size_t len = json_string_length(j), max = f->type == LMO_FIELD_TEXT ? f->size - 1 : (size_t)f->max;
    if (len > max) {
        char what[64];
        snprintf(what, sizeof(what), "longer than %zu characters", max);
        return wrong(at, err, what);
    }
    if (memchr(text, '\0', len)) {
        return wrong(at, err, "contains a zero byte");
    }
    const char *fault = len > 0 ? lmo_field_syntax_fault(f, text) : NULL;
    if (fault) {
        return wrong(at, err, fault);
    }
    if ((f->flags & LMO_FIELD_REQUIRED) && len == 0) {
        return wrong(at, err, "must not be empty");
    }
    if (f->type == LMO_FIELD_OWNED) {
        char *copy = strdup(text);
        if (!copy) {
            return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
        }
        free(*(char **)p);
        *(char **)p = copy;
        return 0;
    }
    memcpy(p, text, len + 1);
    return 0;
}

uint64_t lmo_field_max(const struct lmo_field *f)
{
    if (f->type == LMO_FIELD_INT || (f->max == 0 && f->size == 8)) {
        return INT64_MAX;
    }
    return f->max ? f->max : (UINT64_C(1) << (8 * f->size)) - 1;
}

static int decode_number(const struct lmo_field *f, const json_t *j, void *p, const struct place *at,
                         struct lmo_err *err)
{
    uint64_t max = lmo_field_max(f);
    if (!json_is_integer(j) || json_integer_value(j) < 0 || (uint64_t)json_integer_value(j) > max) {
        char wanted[64];
        snprintf(wanted, sizeof(wanted), "an integer from 0 to %" PRIu64, max);
        return wrong_type(at, err, wanted);
    }
    if (f->type == LMO_FIELD_INT) {
        *(int64_t *)p = json_integer_value(j);
    } else {
        lmo_field_store_uint(p, f->size, (uint64_t)json_integer_value(j));
    }
    return 0;
}

bool lmo_field_enum_of(const struct lmo_field *f, const char *word, int *ret)
{
    int value = f->words->from_text(word);
    const char *back = f->words->text(value);
    *ret = value;
    return back && strcmp(back, word) == 0;
}

static int decode_enum(const struct lmo_field *f, const json_t *j, void *p, const struct place *at, struct lmo_err *err)
{
    if (!json_is_string(j)) {
        return wrong_type(at, err, "a string");
    }
    const char *word = json_string_value(j);
    int value;
    if (!lmo_field_enum_of(f, word, &value)) {
        char what[96];
        snprintf(what, sizeof(what), "'%.40s' is not one of the words known here", word);
        return wrong(at, err, what);
    }
    memcpy(p, &value, sizeof(value));
    return 0;
}

static int decode_struct(const struct lmo_table *table, const json_t *from, void *to, const struct place *up,
                         struct lmo_err *err);

static int decode_array(const struct lmo_field *f, const json_t *j, void *base, const struct place *at,
                        struct lmo_err *err)
{
    if (!json_is_array(j)) {
        return wrong_type(at, err, "an array");
    }
    size_t count = json_array_size(j);
    if (count > f->max) {
        char what[64];
        snprintf(what, sizeof(what), "more than %" PRIu64 " elements", f->max);
        return wrong(at, err, what);
    }
    for (size_t i = 0; i < count; i++) {
        struct place element = {at, NULL, (long)i};
        int r = decode_struct(f->table, json_array_get(j, i), (char *)base + f->offset + i * f->size, &element, err);
        if (r < 0) {
            return r;
        }
    }
    *(unsigned *)(void *)((char *)base + f->count_offset) = (unsigned)count;
    return 0;
}

static int decode_field(const struct lmo_field *f, const json_t *j, void *base, const struct place *at,
                        struct lmo_err *err)
{
    void *p = (char *)base + f->offset;
    switch (f->type) {
    case LMO_FIELD_TEXT:
    case LMO_FIELD_OWNED: return decode_text(f, j, p, at, err);
    case LMO_FIELD_BOOL:
        if (!json_is_boolean(j)) {
            return wrong_type(at, err, "true or false");
        }
        *(bool *)p = json_is_true(j);
        return 0;
    case LMO_FIELD_UINT:
    case LMO_FIELD_INT: return decode_number(f, j, p, at, err);
    case LMO_FIELD_ENUM: return decode_enum(f, j, p, at, err);
    case LMO_FIELD_STRUCT: return decode_struct(f->table, j, p, at, err);
    case LMO_FIELD_ARRAY: return decode_array(f, j, base, at, err);
    }
    lmo_unreachable("type of a field");
}

static int decode_struct(const struct lmo_table *table, const json_t *from, void *to, const struct place *up,
                         struct lmo_err *err)
{
    if (!json_is_object(from)) {
        return up ? wrong_type(up, err, "an object") : lmo_fail(err, LMO_E_INVALID, "must be a JSON object");
    }
    for (size_t i = 0; i < table->count; i++) {
        const struct lmo_field *f = &table->fields[i];
        const struct place at = {up, f->name, -1};
        const json_t *j = json_object_get(from, f->name);
        if (!j || json_is_null(j)) {
            if (f->flags & LMO_FIELD_REQUIRED) {
                return wrong(&at, err, "is missing");
            }
            continue;
        }
        int r = decode_field(f, j, to, &at, err);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int lmo_codec_decode(const struct lmo_table *table, const json_t *from, void *to, struct lmo_err *err)
{
    return decode_struct(table, from, to, NULL, err);
}

/* ------------------------------------------------------------------ members that nobody knows */

/* *next: where to look first; what we wrote ourselves comes in the table's order. */
static const struct lmo_field *find_field(const struct lmo_table *table, const char *name, size_t *next)
{
    for (size_t n = 0; n < table->count; n++) {
        size_t i = (*next + n) % table->count;
        if (strcmp(table->fields[i].name, name) == 0) {
            *next = i + 1;
            return &table->fields[i];
        }
    }
    return NULL;
}

static int check_known(const struct lmo_table *table, const json_t *from, const char *also, const struct place *up,
                       struct lmo_err *err)
{
    /* jansson iterates only over what it may change; nothing is changed here. */
    json_t *object = (json_t *)(uintptr_t)from;
    size_t next = 0;
    for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i)) {
        const struct place at = {up, json_object_iter_key(i), -1};
        const struct lmo_field *f = find_field(table, at.name, &next);
        const json_t *value = json_object_iter_value(i);
        int r = 0;
        if (!f && !(also && strcmp(at.name, also) == 0)) {
            return wrong(&at, err, "is not known");
        }
        if (f && f->type == LMO_FIELD_STRUCT) {
            r = check_known(f->table, value, NULL, &at, err);
        }
        for (size_t n = 0; f && f->type == LMO_FIELD_ARRAY && r == 0 && n < json_array_size(value); n++) {
            const struct place element = {&at, NULL, (long)n};
            r = check_known(f->table, json_array_get(value, n), NULL, &element, err);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int lmo_codec_check_known(const struct lmo_table *table, const json_t *from, const char *also, struct lmo_err *err)
{
    return check_known(table, from, also, NULL, err);
}

int lmo_codec_dump(json_t *json, size_t max, const char *what, char **ret_text, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *owned = json;
    LMO_AUTO_FREE char *text = NULL;
    size_t len = 0;
    if (!owned) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    int r = lmo_json_dump(owned, &text, &len, err);
    if (r < 0) {
        return r;
    }
    if (len > max) {
        return lmo_fail(err, LMO_E_TOO_LARGE, "%s of %zu bytes; at most %zu", what, len, max);
    }
    *ret_text = LMO_TAKE(text);
    return 0;
}
