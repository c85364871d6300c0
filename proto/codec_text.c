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

/* Room for `len` more bytes and a terminator; as cheap as it can be, for there are a hundred members. */
static inline int room(struct lmo_buf *b, size_t len)
{
    return b->len + len < b->capacity ? 0 : lmo_buf_reserve(b, len);
}

/* Bytes that stand for themselves within a JSON string. */
static bool plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

/* Eight of them at once. A byte is caught by its high bit, by being below 0x20, or by being zero after an exclusive or with
 * what it must not be. The subtractions may also catch the byte after one that was caught, which changes nothing. */
static bool plain8(const char *text)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    uint64_t x, quote, backslash;
    memcpy(&x, text, sizeof(x));
    quote = x ^ ones * '"';
    backslash = x ^ ones * '\\';
    return ((x | (x - ones * 0x20) | (quote - ones) | (backslash - ones)) & high) == 0;
}

static bool all_plain(const char *text, size_t len)
{
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        if (!plain8(text + i)) {
            return false;
        }
    }
    while (i < len && plain((unsigned char)text[i])) {
        i++;
    }
    return i == len;
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

static int write_escaped(struct lmo_buf *b, const char *text, size_t len)
{
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

static int write_string(struct lmo_buf *b, const char *text, size_t max)
{
    size_t len = strnlen(text, max);
    if (!all_plain(text, len)) {
        return write_escaped(b, text, len);
    }
    int r = room(b, len + 2);
    if (r == 0) {
        char *to = b->data + b->len;
        to[0] = '"';
        memcpy(to + 1, text, len);
        to[len + 1] = '"';
        b->len += len + 2;
    }
    return r;
}

static int write_raw(struct lmo_buf *b, const char *text, size_t len)
{
    int r = room(b, len);
    if (r == 0) {
        memcpy(b->data + b->len, text, len);
        b->len += len;
    }
    return r;
}

/* Two digits at a time: stamps have thirteen. */
static int write_number(struct lmo_buf *b, uint64_t magnitude, bool negative)
{
    static const char pairs[] = "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
                                "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    char digits[24];
    size_t at = sizeof(digits);
    while (magnitude >= 10) {
        at -= 2;
        memcpy(digits + at, pairs + magnitude % 100 * 2, 2);
        magnitude /= 100;
    }
    if (magnitude > 0 || at == sizeof(digits)) {
        digits[--at] = (char)('0' + magnitude);
    }
    if (negative) {
        digits[--at] = '-';
    }
    return write_raw(b, digits + at, sizeof(digits) - at);
}

static int write_struct(struct lmo_buf *b, const struct lmo_table *table, const void *from, bool sparse);

static int write_array(struct lmo_buf *b, const struct lmo_field *f, const void *p, unsigned count, bool sparse)
{
    lmo_assert(count <= f->max);
    int r = write_raw(b, "[", 1);
    for (unsigned i = 0; r == 0 && i < count; i++) {
        if (i > 0) {
            r = write_raw(b, ",", 1);
        }
        r = r < 0 ? r : write_struct(b, f->table, (const char *)p + i * f->size, sparse);
    }
    return r < 0 ? r : write_raw(b, "]", 1);
}

/* ------------------------------------------------------------------ fields */

static unsigned count_of(const struct lmo_field *f, const void *base)
{
    return *(const unsigned *)(const void *)((const char *)base + f->count_offset);
}

/* As lmo_field_load_uint, which this file asks a hundred times for each record. */
static inline uint64_t load_uint(const void *p, size_t size)
{
    return size == 8   ? *(const uint64_t *)p
           : size == 4 ? *(const uint32_t *)p
           : size == 2 ? *(const uint16_t *)p
                       : *(const uint8_t *)p;
}

static int enum_value(const void *p)
{
    int v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* Is the value what a decoder would assume without the field? Of a struct, that is found out by writing it. */
static bool is_empty(const struct lmo_field *f, const void *base)
{
    const void *p = (const char *)base + f->offset;
    switch (f->type) {
    case LMO_FIELD_TEXT: return *(const char *)p == '\0';
    case LMO_FIELD_OWNED: return *(char *const *)p == NULL;
    case LMO_FIELD_BOOL: return !*(const bool *)p;
    case LMO_FIELD_UINT: return load_uint(p, f->size) == 0;
    case LMO_FIELD_INT: return *(const int64_t *)p == 0;
    case LMO_FIELD_ENUM: return enum_value(p) == 0;
    case LMO_FIELD_STRUCT: return false;
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
        return owned ? write_string(b, owned, SIZE_MAX) : write_raw(b, "null", 4);
    }
    case LMO_FIELD_BOOL: return *(const bool *)p ? write_raw(b, "true", 4) : write_raw(b, "false", 5);
    case LMO_FIELD_UINT: {
        uint64_t u = load_uint(p, f->size);
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
    case LMO_FIELD_STRUCT: return write_struct(b, f->table, p, sparse);
    case LMO_FIELD_ARRAY: return write_array(b, f, p, count_of(f, base), sparse);
    }
    lmo_unreachable("type of a field");
}

/* An object is opened by its first member's comma, which becomes the brace. */
static int write_struct(struct lmo_buf *b, const struct lmo_table *table, const void *from, bool sparse)
{
    size_t start = b->len;
    int r = 0;
    for (size_t i = 0; r == 0 && i < table->count; i++) {
        const struct lmo_field *f = &table->fields[i];
        size_t before = b->len;
        if (sparse && !(f->flags & LMO_FIELD_REQUIRED) && is_empty(f, from)) {
            continue;
        }
        r = write_raw(b, f->key, f->key_len);
        if (r == 0) {
            r = write_value(b, f, from, sparse);
        }
        bool nothing = f->type == LMO_FIELD_STRUCT && r == 0 && b->len == before + f->key_len + 2;
        if (nothing && sparse && !(f->flags & LMO_FIELD_REQUIRED)) {
            b->len = before; /* {} */
        }
    }
    if (r == 0 && b->len == start) {
        return write_raw(b, "{}", 2);
    }
    if (r == 0) {
        b->data[start] = '{';
        r = write_raw(b, "}", 1);
    }
    return r;
}

int lmo_codec_write(const struct lmo_table *table, const void *from, bool sparse, struct lmo_buf *buf)
{
    int r = write_struct(buf, table, from, sparse);
    if (buf->data) {
        buf->data[buf->len] = '\0';
    }
    return r;
}
