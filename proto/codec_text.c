/* codec_text.c - a struct straight to JSON text, by the same tables as codec.c.
 *
 * For records, which are written at every step: no tree is built. The text is byte for byte what lmo_codec_encode and a
 * compact dump of it would give; a test compares the two. */
#include "proto/codec.h"

#include "base/assert.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------ values */

/* Bytes that stand for themselves within a JSON string. */
static bool plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static int write_escape(struct lmo_buf *b, unsigned char c)
{
    char text[8];
    switch (c) {
    case '"': return lmo_buf_append(b, "\\\"", 2);
    case '\\': return lmo_buf_append(b, "\\\\", 2);
    case '\b': return lmo_buf_append(b, "\\b", 2);
    case '\f': return lmo_buf_append(b, "\\f", 2);
    case '\n': return lmo_buf_append(b, "\\n", 2);
    case '\r': return lmo_buf_append(b, "\\r", 2);
    case '\t': return lmo_buf_append(b, "\\t", 2);
    default: snprintf(text, sizeof(text), "\\u%04X", c); return lmo_buf_append(b, text, 6);
    }
}

static int write_string(struct lmo_buf *b, const char *text, size_t max)
{
    size_t len = strnlen(text, max);
    const unsigned char *s = (const unsigned char *)text;
    int r = lmo_buf_append(b, "\"", 1);
    for (size_t i = 0; r == 0 && i < len;) {
        size_t n = 0;
        while (i + n < len && plain(s[i + n])) {
            n++;
        }
        if (n > 0) {
            r = lmo_buf_append(b, s + i, n);
        } else if (s[i] < 0x80) {
            r = write_escape(b, s[i]);
            n = 1;
        } else {
            n = lmo_utf8_length(s + i, len - i);
            r = n ? lmo_buf_append(b, s + i, n) : lmo_buf_append(b, "?", 1);
            n = n ? n : 1;
        }
        i += n;
    }
    return r < 0 ? r : lmo_buf_append(b, "\"", 1);
}

static int write_number(struct lmo_buf *b, uint64_t magnitude, bool negative)
{
    char digits[24];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + magnitude % 10);
        magnitude /= 10;
    } while (magnitude > 0);
    if (negative) {
        digits[--at] = '-';
    }
    return lmo_buf_append(b, digits + at, sizeof(digits) - at);
}

static int write_array(struct lmo_buf *b, const struct lmo_field *f, const void *p, unsigned count, bool sparse)
{
    lmo_assert(count <= f->max);
    int r = lmo_buf_append(b, "[", 1);
    for (unsigned i = 0; r == 0 && i < count; i++) {
        if (i > 0) {
            r = lmo_buf_append(b, ",", 1);
        }
        r = r < 0 ? r : lmo_codec_write(f->table, (const char *)p + i * f->size, sparse, b);
    }
    return r < 0 ? r : lmo_buf_append(b, "]", 1);
}

/* ------------------------------------------------------------------ fields */

static unsigned count_of(const struct lmo_field *f, const void *base)
{
    return *(const unsigned *)(const void *)((const char *)base + f->count_offset);
}

static int enum_value(const void *p)
{
    int v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static bool is_empty(const struct lmo_field *f, const void *base);

/* Would the sparse form be {}? */
static bool is_empty_struct(const struct lmo_table *table, const void *p)
{
    for (size_t i = 0; i < table->count; i++) {
        if ((table->fields[i].flags & LMO_FIELD_REQUIRED) || !is_empty(&table->fields[i], p)) {
            return false;
        }
    }
    return true;
}

/* Is the value what a decoder would assume without the field? */
static bool is_empty(const struct lmo_field *f, const void *base)
{
    const void *p = (const char *)base + f->offset;
    switch (f->type) {
    case LMO_FIELD_TEXT: return *(const char *)p == '\0';
    case LMO_FIELD_OWNED: return *(char *const *)p == NULL;
    case LMO_FIELD_BOOL: return !*(const bool *)p;
    case LMO_FIELD_UINT: return lmo_field_load_uint(p, f->size) == 0;
    case LMO_FIELD_INT: return *(const int64_t *)p == 0;
    case LMO_FIELD_ENUM: return enum_value(p) == 0;
    case LMO_FIELD_STRUCT: return is_empty_struct(f->table, p);
    case LMO_FIELD_ARRAY: return count_of(f, base) == 0;
    }
    lmo_unreachable("type of a field");
}

static int write_value(struct lmo_buf *b, const struct lmo_field *f, const void *base, bool sparse)
{
    const void *p = (const char *)base + f->offset;
    switch (f->type) {
    case LMO_FIELD_TEXT: return write_string(b, p, f->size - 1);
    case LMO_FIELD_OWNED: {
        const char *owned = *(char *const *)p;
        return owned ? write_string(b, owned, SIZE_MAX) : lmo_buf_append(b, "null", 4);
    }
    case LMO_FIELD_BOOL: return *(const bool *)p ? lmo_buf_append(b, "true", 4) : lmo_buf_append(b, "false", 5);
    case LMO_FIELD_UINT: {
        uint64_t u = lmo_field_load_uint(p, f->size);
        return write_number(b, u > INT64_MAX ? INT64_MAX : u, false);
    }
    case LMO_FIELD_INT: {
        int64_t i = *(const int64_t *)p;
        return write_number(b, i < 0 ? 0 - (uint64_t)i : (uint64_t)i, i < 0);
    }
    case LMO_FIELD_ENUM: {
        const char *word = f->words->text(enum_value(p));
        lmo_assert(word != NULL);
        return write_string(b, word, SIZE_MAX);
    }
    case LMO_FIELD_STRUCT: return lmo_codec_write(f->table, p, sparse, b);
    case LMO_FIELD_ARRAY: return write_array(b, f, p, count_of(f, base), sparse);
    }
    lmo_unreachable("type of a field");
}

int lmo_codec_write(const struct lmo_table *table, const void *from, bool sparse, struct lmo_buf *buf)
{
    int r = lmo_buf_append(buf, "{", 1);
    bool first = true;
    for (size_t i = 0; r == 0 && i < table->count; i++) {
        const struct lmo_field *f = &table->fields[i];
        if (sparse && !(f->flags & LMO_FIELD_REQUIRED) && is_empty(f, from)) {
            continue;
        }
        r = first ? lmo_buf_append(buf, "\"", 1) : lmo_buf_append(buf, ",\"", 2);
        if (r == 0) {
            r = lmo_buf_append_str(buf, f->name);
        }
        if (r == 0) {
            r = lmo_buf_append(buf, "\":", 2);
        }
        if (r == 0) {
            r = write_value(buf, f, from, sparse);
        }
        first = false;
    }
    return r < 0 ? r : lmo_buf_append(buf, "}", 1);
}
