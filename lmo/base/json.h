/* json.h - JSON in and out, on jansson, with caps before anything is parsed and errors that name the field.
 *
 * Getters: `field` is the member of `obj`. An absent member is an error when `required`; otherwise 0 is returned and
 * the output stays as it was, so put the default there first. A JSON null counts as absent. A value of the wrong type
 * or out of range is always LMO_E_INVALID with a text such as "field 'memory_bytes': must be an integer from 1 to
 * 4096". For nested objects call lmo_err_prefix(err, "volumes[%zu]", i) on the way up. Builders return 0 or a negative
 * code (NO_MEMORY; INVALID for text that is not UTF-8); collect with `r |= ...`. */
#ifndef LMO_BASE_JSON_H
#define LMO_BASE_JSON_H

#include "base/cleanup.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LMO_JSON_DEPTH_MAX 16

/* Parses one JSON object or array of at most `max_len` bytes and LMO_JSON_DEPTH_MAX levels; duplicate keys are
 * refused. *ret_root is owned by the caller (json_decref, LMO_AUTO_JSON). TOO_LARGE or INVALID on failure. */
int lmo_json_parse(const char *text, size_t len, size_t max_len, json_t **ret_root, struct lmo_err *err) LMO_MUST_CHECK;
/* The same, and the root must be an object. */
int lmo_json_parse_object(const char *text, size_t len, size_t max_len, json_t **ret_root,
                          struct lmo_err *err) LMO_MUST_CHECK;

/* Text of at most size-1 bytes without NUL inside, copied into ret_buf. */
int lmo_json_str(const json_t *obj, const char *field, char *ret_buf, size_t size, bool required,
                 struct lmo_err *err) LMO_MUST_CHECK;
/* The same without the copy, borrowed from obj; at most max_len bytes. For long texts (domain XML). */
int lmo_json_text(const json_t *obj, const char *field, size_t max_len, const char **ret_text, bool required,
                  struct lmo_err *err) LMO_MUST_CHECK;
int lmo_json_u64(const json_t *obj, const char *field, uint64_t min, uint64_t max, uint64_t *ret_value, bool required,
                 struct lmo_err *err) LMO_MUST_CHECK;
int lmo_json_u32(const json_t *obj, const char *field, uint32_t min, uint32_t max, uint32_t *ret_value, bool required,
                 struct lmo_err *err) LMO_MUST_CHECK;
int lmo_json_i64(const json_t *obj, const char *field, int64_t min, int64_t max, int64_t *ret_value, bool required,
                 struct lmo_err *err) LMO_MUST_CHECK;
int lmo_json_bool(const json_t *obj, const char *field, bool *ret_value, bool required,
                  struct lmo_err *err) LMO_MUST_CHECK;
/* Borrowed from obj. */
int lmo_json_object(const json_t *obj, const char *field, const json_t **ret_object, bool required,
                    struct lmo_err *err) LMO_MUST_CHECK;
/* Borrowed from obj; at most max_items. */
int lmo_json_array(const json_t *obj, const char *field, size_t max_items, const json_t **ret_array, bool required,
                   struct lmo_err *err) LMO_MUST_CHECK;
/* INVALID naming the first member of obj that is not in the NULL-terminated list. */
int lmo_json_known(const json_t *obj, const char *const *fields, struct lmo_err *err) LMO_MUST_CHECK;

/* Builders; `obj` NULL (a failed json_object()) gives NO_MEMORY. lmo_json_put takes `value`, also on failure. */
int lmo_json_put(json_t *obj, const char *field, json_t *value);
int lmo_json_put_str(json_t *obj, const char *field, const char *text);
int lmo_json_put_u64(json_t *obj, const char *field, uint64_t value);
int lmo_json_put_i64(json_t *obj, const char *field, int64_t value);
int lmo_json_put_bool(json_t *obj, const char *field, bool value);
/* Appends to an array; takes `value`, also on failure. */
int lmo_json_add(json_t *array, json_t *value);

/* Compact text, owned by the caller. ret_len may be NULL. Always this one, never json_dumps: see json.c. */
int lmo_json_dump(const json_t *root, char **ret_text, size_t *ret_len, struct lmo_err *err) LMO_MUST_CHECK;
/* The same with the members of objects in order: equal objects give equal texts. */
int lmo_json_dump_sorted(const json_t *root, char **ret_text, struct lmo_err *err) LMO_MUST_CHECK;

static inline void lmo_cleanup_json(json_t **json)
{
    json_decref(*json);
}
#define LMO_AUTO_JSON LMO_CLEANUP(lmo_cleanup_json)

#endif
