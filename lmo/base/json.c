/* json.c - see json.h. jansson recurses while it parses, so the depth is checked on the raw text first. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

static int check_depth(const char *text, size_t len, struct lmo_err *err)
{
    unsigned depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > LMO_JSON_DEPTH_MAX)
                return lmo_fail(err, LMO_E_TOO_LARGE, "JSON is nested deeper than %d levels", LMO_JSON_DEPTH_MAX);
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return 0;
}

/* For want of memory jansson calls a text invalid, reads it with a character missing, or writes one with a key missing: a
 * record that is whole would pass for a broken one, an address for another. So what it was denied is remembered here, per thread. */
static _Thread_local bool denied;

static void *allocate(size_t size)
{
    void *block = malloc(size);
    denied |= block == NULL;
    return block;
}

__attribute__((constructor)) static void watch_allocations(void)
{
    json_set_alloc_funcs(allocate, free);
}

int lmo_json_parse(const char *text, size_t len, size_t max_len, json_t **ret_root, struct lmo_err *err)
{
    if (len > max_len)
        return lmo_fail(err, LMO_E_TOO_LARGE, "JSON of %zu bytes; at most %zu are accepted", len, max_len);
    int r = check_depth(text, len, err);
    if (r < 0)
        return r;
    json_error_t error;
    denied = false;
    LMO_AUTO_JSON json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (denied)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    if (!root)
        return lmo_fail(err, LMO_E_INVALID, "not JSON: line %d, column %d: %s", error.line, error.column, error.text);
    *ret_root = LMO_TAKE(root);
    return 0;
}

int lmo_json_parse_object(const char *text, size_t len, size_t max_len, json_t **ret_root, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *root = NULL;
    int r = lmo_json_parse(text, len, max_len, &root, err);
    if (r < 0)
        return r;
    if (!json_is_object(root))
        return lmo_fail(err, LMO_E_INVALID, "must be a JSON object");
    *ret_root = LMO_TAKE(root);
    return 0;
}

/* 1: *ret_value is there; 0: absent and not required; negative: absent. */
static int find(const json_t *obj, const char *field, bool required, const json_t **ret_value, struct lmo_err *err)
{
    if (!json_is_object(obj))
        return lmo_fail(err, LMO_E_INVALID, "must be an object with field '%s'", field);
    const json_t *value = json_object_get(obj, field);
    if (!value || json_is_null(value))
        return required ? lmo_fail(err, LMO_E_INVALID, "field '%s' is missing", field) : 0;
    *ret_value = value;
    return 1;
}

int lmo_json_text(const json_t *obj, const char *field, size_t max_len, const char **ret_text, bool required,
                  struct lmo_err *err)
{
    const json_t *value = NULL;
    int r = find(obj, field, required, &value, err);
    if (r <= 0)
        return r;
    size_t len = json_is_string(value) ? json_string_length(value) : 0;
    if (!json_is_string(value) || len > max_len || memchr(json_string_value(value), '\0', len))
        return lmo_fail(err, LMO_E_INVALID, "field '%s': must be a text of at most %zu bytes", field, max_len);
    *ret_text = json_string_value(value);
    return 0;
}

int lmo_json_str(const json_t *obj, const char *field, char *ret_buf, size_t size, bool required, struct lmo_err *err)
{
    const char *text = NULL;
    int r = lmo_json_text(obj, field, size - 1, &text, required, err);
    if (r < 0 || !text)
        return r;
    memcpy(ret_buf, text, strlen(text) + 1);
    return 0;
}

int lmo_json_i64(const json_t *obj, const char *field, int64_t min, int64_t max, int64_t *ret_value, bool required,
                 struct lmo_err *err)
{
    const json_t *value = NULL;
    int r = find(obj, field, required, &value, err);
    if (r <= 0)
        return r;
    if (!json_is_integer(value) || json_integer_value(value) < min || json_integer_value(value) > max)
        return lmo_fail(err, LMO_E_INVALID, "field '%s': must be an integer from %lld to %lld", field, (long long)min,
                        (long long)max);
    *ret_value = json_integer_value(value);
    return 0;
}

int lmo_json_u64(const json_t *obj, const char *field, uint64_t min, uint64_t max, uint64_t *ret_value, bool required,
                 struct lmo_err *err)
{
    /* JSON integers are signed 64-bit here: nothing above INT64_MAX can be read or written. */
    int64_t top = max > INT64_MAX ? INT64_MAX : (int64_t)max, number = -1;
    int r = lmo_json_i64(obj, field, min > INT64_MAX ? INT64_MAX : (int64_t)min, top, &number, required, err);
    if (r < 0 || number < 0)
        return r;
    *ret_value = (uint64_t)number;
    return 0;
}

int lmo_json_u32(const json_t *obj, const char *field, uint32_t min, uint32_t max, uint32_t *ret_value, bool required,
                 struct lmo_err *err)
{
    uint64_t number = UINT64_MAX;
    int r = lmo_json_u64(obj, field, min, max, &number, required, err);
    if (r == 0 && number != UINT64_MAX)
        *ret_value = (uint32_t)number;
    return r;
}

int lmo_json_bool(const json_t *obj, const char *field, bool *ret_value, bool required, struct lmo_err *err)
{
    const json_t *value = NULL;
    int r = find(obj, field, required, &value, err);
    if (r <= 0)
        return r;
    if (!json_is_boolean(value))
        return lmo_fail(err, LMO_E_INVALID, "field '%s': must be true or false", field);
    *ret_value = json_is_true(value);
    return 0;
}

int lmo_json_object(const json_t *obj, const char *field, const json_t **ret_object, bool required, struct lmo_err *err)
{
    const json_t *value = NULL;
    int r = find(obj, field, required, &value, err);
    if (r <= 0)
        return r;
    if (!json_is_object(value))
        return lmo_fail(err, LMO_E_INVALID, "field '%s': must be an object", field);
    *ret_object = value;
    return 0;
}

int lmo_json_array(const json_t *obj, const char *field, size_t max_items, const json_t **ret_array, bool required,
                   struct lmo_err *err)
{
    const json_t *value = NULL;
    int r = find(obj, field, required, &value, err);
    if (r <= 0)
        return r;
    if (!json_is_array(value) || json_array_size(value) > max_items)
        return lmo_fail(err, LMO_E_INVALID, "field '%s': must be an array of at most %zu items", field, max_items);
    *ret_array = value;
    return 0;
}

int lmo_json_known(const json_t *obj, const char *const *fields, struct lmo_err *err)
{
    if (!json_is_object(obj))
        return lmo_fail(err, LMO_E_INVALID, "must be an object");
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)obj, name, value)
    {
        bool known = false;
        for (size_t i = 0; fields[i] && !known; i++)
            known = strcmp(fields[i], name) == 0;
        if (!known)
            return lmo_fail(err, LMO_E_INVALID, "unknown field '%.64s'", name);
    }
    return 0;
}

int lmo_json_put(json_t *obj, const char *field, json_t *value)
{
    return json_object_set_new(obj, field, value) == 0 ? 0 : LMO_E_NO_MEMORY;
}

int lmo_json_put_str(json_t *obj, const char *field, const char *text)
{
    json_t *value = json_string(text);
    if (!value)
        return LMO_E_INVALID; /* not UTF-8; jansson does not tell that from no memory */
    return lmo_json_put(obj, field, value);
}

int lmo_json_put_u64(json_t *obj, const char *field, uint64_t value)
{
    if (value > INT64_MAX)
        return LMO_E_INVALID;
    return lmo_json_put(obj, field, json_integer((json_int_t)value));
}

int lmo_json_put_i64(json_t *obj, const char *field, int64_t value)
{
    return lmo_json_put(obj, field, json_integer(value));
}

int lmo_json_put_bool(json_t *obj, const char *field, bool value)
{
    return lmo_json_put(obj, field, json_boolean(value));
}

int lmo_json_add(json_t *array, json_t *value)
{
    return json_array_append_new(array, value) == 0 ? 0 : LMO_E_NO_MEMORY;
}

static int dump(const json_t *root, size_t flags, char **ret_text, size_t *ret_len, struct lmo_err *err)
{
    denied = false;
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_ENCODE_ANY | flags) : NULL;
    if (!text || denied) {
        free(text);
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for JSON text");
    }
    *ret_text = text;
    if (ret_len)
        *ret_len = strlen(text);
    return 0;
}

int lmo_json_dump(const json_t *root, char **ret_text, size_t *ret_len, struct lmo_err *err)
{
    return dump(root, 0, ret_text, ret_len, err);
}

int lmo_json_dump_sorted(const json_t *root, char **ret_text, struct lmo_err *err)
{
    return dump(root, JSON_SORT_KEYS, ret_text, NULL, err);
}
