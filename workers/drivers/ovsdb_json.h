/* ovsdb_json.h - OVSDB's JSON: framing a byte stream into messages, and reading and changing column values.
 *
 * Pure: no sockets, no threads, no clock. RFC 7047 gives the notation of values (section 5.1); ovsdb-server(7),
 * "update2", gives the notation of changes. */
#ifndef LMO_WORKERS_OVSDB_JSON_H
#define LMO_WORKERS_OVSDB_JSON_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LMO_OVSDB_DEPTH_MAX 16 /* nesting of one message; a schema, the deepest that a server sends, has 11 levels */

/* Splits a stream into JSON objects. Zero-initialise, set max_bytes; everything else is private. */
struct lmo_ovsdb_framer {
    size_t max_bytes; /* one message; a longer one is refused before it is read whole */
    char *buf;
    size_t len, cap; /* bytes held, bytes allocated */
    size_t scan;     /* bytes already looked at */
    size_t taken;    /* length of the message that the last _next returned: dropped by the next call */
    unsigned depth;
    bool in_string, escaped;
};

/* Takes in `n` bytes of the stream. TOO_LARGE, NO_MEMORY. */
int lmo_ovsdb_framer_add(struct lmo_ovsdb_framer *f, const void *bytes, size_t n) LMO_MUST_CHECK;
/* 1 with a complete message (borrowed until the next call on f), 0 when more bytes are needed, INVALID when the stream
 * is no sequence of JSON objects, TOO_LARGE for one that is too long or too deep. */
int lmo_ovsdb_framer_next(struct lmo_ovsdb_framer *f, const char **ret_text, size_t *ret_len) LMO_MUST_CHECK;
/* Forgets everything held (a new connection); keeps max_bytes. */
void lmo_ovsdb_framer_reset(struct lmo_ovsdb_framer *f);

/* Reading a column's value. All borrow `v`, take NULL, and answer "nothing there" for a value of another shape. */
size_t lmo_ovsdb_set_size(const json_t *v);          /* a bare atom is a set of one */
json_t *lmo_ovsdb_set_at(const json_t *v, size_t i); /* borrowed; NULL past the end */
const char *lmo_ovsdb_string(const json_t *v);       /* a string, or the only string of an optional column */
const char *lmo_ovsdb_uuid(const json_t *v);         /* of ["uuid", "..."], or the only one of an optional column */
bool lmo_ovsdb_integer(const json_t *v, int64_t *ret);
bool lmo_ovsdb_true(const json_t *v); /* true or the optional true */
bool lmo_ovsdb_set_has_uuid(const json_t *v, const char *uuid);
const char *lmo_ovsdb_map_get(const json_t *v, const char *key); /* string-to-string maps */

/* Is the column's value composite (more than one element possible)? `type` is the schema's. Decides how a change is
 * notated: composite columns as the difference, others as the new value. */
bool lmo_ovsdb_type_is_composite(const json_t *type);
/* Returns owned: `old` with the difference `diff` applied; NULL when out of memory or of no known shape. */
json_t *lmo_ovsdb_apply_diff(const json_t *old, const json_t *diff);

/* Makes ["uuid", u]. Returns owned, NULL when out of memory (as json_pack does). */
json_t *lmo_ovsdb_make_uuid(const char *uuid);

#endif
