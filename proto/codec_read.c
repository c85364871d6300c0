/* codec_read.c - JSON text that codec_text.c wrote, straight into a struct, by the same tables.
 *
 * For a coordinator that starts with ten thousand records: no tree is built. It takes the usual and leaves the rest to
 * lmo_codec_decode, which is the one that says what is wrong; so nothing is accepted here that would be refused there. A
 * test holds the two against each other. */
#include "proto/codec.h"

#include "base/assert.h"

#include <string.h>

#define WORD_MAX   64
#define FIELDS_MAX 128

/* What is left to read. */
struct text {
    const char *at, *end;
};

static bool take(struct text *t, char c)
{
    if (t->at == t->end || *t->at != c) {
        return false;
    }
    t->at++;
    return true;
}

/* A string without escapes, of ASCII: *ret is what stands between its quotes. */
static bool take_string(struct text *t, struct lmo_span *ret)
{
    if (!take(t, '"')) {
        return false;
    }
    const char *from = t->at;
    while (t->at < t->end && *t->at != '"') {
        unsigned char c = (unsigned char)*t->at;
        if (c < 0x20 || c >= 0x80 || c == '\\') {
            return false;
        }
        t->at++;
    }
    *ret = (struct lmo_span){from, (size_t)(t->at - from)};
    return take(t, '"');
}

static bool read_text(struct text *t, const struct lmo_field *f, char *to)
{
    struct lmo_span s;
    if (!take_string(t, &s) || s.len >= f->size) {
        return false;
    }
    memcpy(to, s.at, s.len);
    to[s.len] = '\0';
    return s.len > 0 ? lmo_field_syntax_fault(f, to) == NULL : !(f->flags & LMO_FIELD_REQUIRED);
}

static bool read_number(struct text *t, const struct lmo_field *f, void *to)
{
    uint64_t value = 0;
    const char *from = t->at;
    while (t->at < t->end && *t->at >= '0' && *t->at <= '9') {
        value = value * 10 + (uint64_t)(*t->at - '0');
        t->at++;
    }
    size_t digits = (size_t)(t->at - from);
    if (digits == 0 || digits > 19 || (digits > 1 && *from == '0') || value > lmo_field_max(f)) {
        return false;
    }
    if (f->type == LMO_FIELD_INT) {
        *(int64_t *)to = (int64_t)value;
    } else {
        lmo_field_store_uint(to, f->size, value);
    }
    return true;
}

static bool read_bool(struct text *t, bool *to)
{
    static const char *const words[] = {"false", "true"};
    for (unsigned i = 0; i < 2; i++) {
        size_t len = strlen(words[i]);
        if ((size_t)(t->end - t->at) >= len && memcmp(t->at, words[i], len) == 0) {
            *to = i == 1;
            t->at += len;
            return true;
        }
    }
    return false;
}

static bool read_enum(struct text *t, const struct lmo_field *f, void *to)
{
    struct lmo_span s;
    char word[WORD_MAX];
    int value;
    if (!take_string(t, &s) || s.len >= sizeof(word)) {
        return false;
    }
    memcpy(word, s.at, s.len);
    word[s.len] = '\0';
    if (!lmo_field_enum_of(f, word, &value)) {
        return false;
    }
    memcpy(to, &value, sizeof(value));
    return true;
}

static bool read_struct(struct text *t, const struct lmo_table *table, void *to, const char *also,
                        struct lmo_span *ret_also);

static bool read_array(struct text *t, const struct lmo_field *f, void *base)
{
    unsigned count = 0;
    if (!take(t, '[')) {
        return false;
    }
    if (!take(t, ']')) {
        do {
            if (count == f->max ||
                !read_struct(t, f->table, (char *)base + f->offset + count * f->size, NULL, NULL)) {
                return false;
            }
            count++;
        } while (take(t, ','));
        if (!take(t, ']')) {
            return false;
        }
    }
    *(unsigned *)(void *)((char *)base + f->count_offset) = count;
    return true;
}

static bool read_field(struct text *t, const struct lmo_field *f, void *base)
{
    void *p = (char *)base + f->offset;
    switch (f->type) {
    case LMO_FIELD_TEXT: return read_text(t, f, p);
    case LMO_FIELD_OWNED: return false;
    case LMO_FIELD_BOOL: return read_bool(t, p);
    case LMO_FIELD_UINT:
    case LMO_FIELD_INT: return read_number(t, f, p);
    case LMO_FIELD_ENUM: return read_enum(t, f, p);
    case LMO_FIELD_STRUCT: return read_struct(t, f->table, p, NULL, NULL);
    case LMO_FIELD_ARRAY: return read_array(t, f, base);
    }
    lmo_unreachable("type of a field");
}

static bool read_words(struct text *t, struct lmo_span *ret)
{
    struct lmo_span word;
    const char *from = t->at;
    if (!take(t, '[')) {
        return false;
    }
    if (!take(t, ']')) {
        do {
            if (!take_string(t, &word)) {
                return false;
            }
        } while (take(t, ','));
        if (!take(t, ']')) {
            return false;
        }
    }
    *ret = (struct lmo_span){from, (size_t)(t->at - from)};
    return true;
}

/* `name` is what stands between the quotes. Members come in the table's order, as a rule. */
static size_t index_of(const struct lmo_table *table, struct lmo_span name, size_t next)
{
    for (size_t n = 0; n < table->count; n++) {
        size_t i = next + n < table->count ? next + n : next + n - table->count;
        const struct lmo_field *f = &table->fields[i];
        if (f->key_len == name.len + 4 && memcmp(f->key + 2, name.at, name.len) == 0) { /* ,"name": */
            return i;
        }
    }
    return table->count;
}

static bool read_struct(struct text *t, const struct lmo_table *table, void *to, const char *also,
                        struct lmo_span *ret_also)
{
    uint64_t seen[FIELDS_MAX / 64] = {0};
    size_t next = 0;
    lmo_assert(table->count <= FIELDS_MAX);
    if (!take(t, '{')) {
        return false;
    }
    if (!take(t, '}')) {
        do {
            struct lmo_span name;
            if (!take_string(t, &name) || !take(t, ':')) {
                return false;
            }
            size_t i = index_of(table, name, next);
            if (i == table->count) {
                bool known = also && !ret_also->at && strlen(also) == name.len && memcmp(also, name.at, name.len) == 0;
                if (!known || !read_words(t, ret_also)) {
                    return false;
                }
                continue;
            }
            if (seen[i / 64] >> i % 64 & 1 || !read_field(t, &table->fields[i], to)) {
                return false;
            }
            seen[i / 64] |= UINT64_C(1) << i % 64;
            next = i + 1 < table->count ? i + 1 : 0;
        } while (take(t, ','));
        if (!take(t, '}')) {
            return false;
        }
    }
    for (size_t i = 0; i < table->count; i++) {
        if ((table->fields[i].flags & LMO_FIELD_REQUIRED) && !(seen[i / 64] >> i % 64 & 1)) {
            return false;
        }
    }
    return true;
}

int lmo_codec_read(const struct lmo_table *table, const char *text, size_t len, const char *also, void *to,
                   struct lmo_span *ret_also)
{
    struct text t = {text, text + len};
    struct lmo_span words = {0};
    if (!read_struct(&t, table, to, also, &words) || t.at != t.end) {
        return LMO_E_UNSUPPORTED;
    }
    if (ret_also) {
        *ret_also = words;
    }
    return 0;
}
