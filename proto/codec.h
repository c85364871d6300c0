/* codec.h - structs to JSON and back, from one table per struct.
 *
 * A table lists a struct's members once; encoder and decoder both read it, so that they cannot disagree. Used by the
 * messages of proto/ and by the store's record codec (lmo/engine/record_codec.c); nobody else needs it.
 *
 * Decoding: unknown members are ignored (a newer peer may know more), a null counts as absent, an absent member
 * leaves the struct's value as it was. A wrong type, a text that does not fit, a number out of range, a word that is
 * not in an enum's table, an array that is too long: LMO_E_INVALID naming the place, "volumes[0].target: longer than
 * 15 characters". Encoding cannot fail but for memory: bytes that are not UTF-8 (a text that a fixed buffer cut in
 * the middle of a character) are replaced by '?', numbers above INT64_MAX, which JSON integers here cannot carry, by
 * INT64_MAX.
 *
 * Invariant: the tables are constants of ours; a table that contradicts its struct is a bug, found by the tests. */
#ifndef LMO_PROTO_CODEC_H
#define LMO_PROTO_CODEC_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lmo_field_type {
    LMO_FIELD_TEXT,  /* char[size] */
    LMO_FIELD_OWNED, /* char *, allocated; `max` bytes at most */
    LMO_FIELD_BOOL,
    LMO_FIELD_UINT,   /* uint8_t to uint64_t by `size`; `max` 0: what the type holds, INT64_MAX at most */
    LMO_FIELD_INT,    /* int64_t from 0 on: stamps */
    LMO_FIELD_ENUM,   /* enum or int, as a word */
    LMO_FIELD_STRUCT, /* nested, by `table` */
    LMO_FIELD_ARRAY,  /* struct x[max] of `table` with the unsigned at `count_offset` */
};

#define LMO_FIELD_REQUIRED 1U /* present, and a text not empty */
#define LMO_FIELD_UUID     2U /* a text that, unless empty, must be a UUID in lower case */
#define LMO_FIELD_ULID     4U
#define LMO_FIELD_HOST     8U  /* a text that, unless empty, must be a name as in base/id.h */
#define LMO_FIELD_OP_ID    16U /* the same characters, up to LMO_OP_ID_MAX: it goes into a path */

/* Words of an enum. text() gives NULL for a value without a word; from_text() may give anything for a word that it
 * does not know: what it gives is checked by asking text() again. */
struct lmo_words {
    const char *(*text)(int value);
    int (*from_text)(const char *word);
};

struct lmo_table;
struct lmo_field {
    const char *name;
    const char *key; /* ,"name": */
    size_t key_len;
    enum lmo_field_type type;
    unsigned flags;
    size_t offset, size; /* ARRAY: size of one element */
    uint64_t max;
    size_t count_offset;
    const struct lmo_words *words;
    const struct lmo_table *table;
};
struct lmo_table {
    size_t count;
    const struct lmo_field *fields;
};

#define LMO_F_SIZE(s, m) sizeof(((struct s *)0)->m)
#define LMO_F_NAME(n)    .name = (n), .key = ",\"" n "\":", .key_len = sizeof(",\"" n "\":") - 1
#define LMO_F_AT(s, m)   LMO_F_NAME(#m), .offset = offsetof(struct s, m), .size = LMO_F_SIZE(s, m)
#define LMO_F_TEXT(s, m, fl)                                  \
    {                                                         \
        LMO_F_AT(s, m), .type = LMO_FIELD_TEXT, .flags = (fl) \
    }
#define LMO_F_OWNED(s, m, mx)                                \
    {                                                        \
        LMO_F_AT(s, m), .type = LMO_FIELD_OWNED, .max = (mx) \
    }
#define LMO_F_BOOL(s, m)                       \
    {                                          \
        LMO_F_AT(s, m), .type = LMO_FIELD_BOOL \
    }
#define LMO_F_UINT(s, m, mx)                                \
    {                                                       \
        LMO_F_AT(s, m), .type = LMO_FIELD_UINT, .max = (mx) \
    }
#define LMO_F_INT(s, m)                       \
    {                                         \
        LMO_F_AT(s, m), .type = LMO_FIELD_INT \
    }
#define LMO_F_ENUM(s, m, w, fl)                                              \
    {                                                                        \
        LMO_F_AT(s, m), .type = LMO_FIELD_ENUM, .flags = (fl), .words = &(w) \
    }
#define LMO_F_STRUCT(s, m, t)                                   \
    {                                                           \
        LMO_F_AT(s, m), .type = LMO_FIELD_STRUCT, .table = &(t) \
    }
#define LMO_F_ARRAY(s, m, n, t)                                                                             \
    {                                                                                                       \
        LMO_F_NAME(#m), .type = LMO_FIELD_ARRAY, .offset = offsetof(struct s, m), .size = LMO_F_SIZE(s, m[0]),  \
        .max = LMO_F_SIZE(s, m) / LMO_F_SIZE(s, m[0]), .count_offset = offsetof(struct s, n), .table = &(t) \
    }
#define LMO_TABLE(f)                    \
    {                                   \
        sizeof(f) / sizeof((f)[0]), (f) \
    }

/* New reference, NULL only without memory. `sparse`: members that are empty, zero or false are left out (a required one
 * never), and structs of which nothing is left. */
json_t *lmo_codec_encode(const struct lmo_table *table, const void *from, bool sparse);

/* The same as text, compact, appended to `buf`; TOO_LARGE at its cap, NO_MEMORY. What the buffer then holds is of no use. */
int lmo_codec_write(const struct lmo_table *table, const void *from, bool sparse, struct lmo_buf *buf) LMO_MUST_CHECK;

/* The way back, without a tree: text that lmo_codec_write wrote sparsely into `to`, which the caller has zeroed. It knows no
 * spaces, no escapes and no null, only what is usual; anything else, and anything that is wrong, is UNSUPPORTED without a
 * reason: then lmo_codec_decode has the answer, and `to` is of no use. Never reads OWNED members.
 * `also` (may be NULL): a member at the top that the table does not have, an array of words; *ret_also: its text from
 * bracket to bracket, within `text`; NULL if it is not there. */
struct lmo_span {
    const char *at;
    size_t len;
};
int lmo_codec_read(const struct lmo_table *table, const char *text, size_t len, const char *also, void *to,
                   struct lmo_span *ret_also) LMO_MUST_CHECK;

/* Decodes into `to`, which the caller has initialised (and whose OWNED members he frees, also after a failure). */
int lmo_codec_decode(const struct lmo_table *table, const json_t *from, void *to, struct lmo_err *err) LMO_MUST_CHECK;

/* INVALID naming the first member, at any depth, that the table does not know; `also` (may be NULL) is known at the
 * top. For what people write and for what we store: a member that is not understood must not be passed over there. */
int lmo_codec_check_known(const struct lmo_table *table, const json_t *from, const char *also,
                          struct lmo_err *err) LMO_MUST_CHECK;

/* json_string() for a text of at most `max` bytes that may not be UTF-8 or not terminated. */
json_t *lmo_codec_string(const char *text, size_t max);

/* Length of the UTF-8 character at `s` (`left` bytes follow, at least one), 0 if it is none. As RFC 3629: no overlong
 * forms, no surrogates, nothing above U+10FFFF. */
size_t lmo_utf8_length(const unsigned char *s, size_t left);
/* An unsigned member of `size` bytes. */
uint64_t lmo_field_load_uint(const void *p, size_t size);
void lmo_field_store_uint(void *p, size_t size, uint64_t value);
/* The largest number that the field may hold. */
uint64_t lmo_field_max(const struct lmo_field *f);
/* NULL, or what is wrong with a text that is not empty, by the field's flags. */
const char *lmo_field_syntax_fault(const struct lmo_field *f, const char *text);
/* The enum's value of that word; false: it is none of its words. */
bool lmo_field_enum_of(const struct lmo_field *f, const char *word, int *ret);

/* Tables and words that several messages share (vm.c). */
extern const struct lmo_table lmo_volume_table, lmo_port_table, lmo_vm_facts_table, lmo_progress_table;
extern const struct lmo_words lmo_run_state_words, lmo_error_words, lmo_op_words, lmo_worker_event_words;

/* Message text from `json`, which it takes (NULL: out of memory): what we write is capped like what we read. `what` names
 * the message in the error. *ret_text is owned by the caller. */
int lmo_codec_dump(json_t *json, size_t max, const char *what, char **ret_text, struct lmo_err *err) LMO_MUST_CHECK;

#endif
