/* What an OVSDB server sends: framing, in pieces of any size, and values of columns. */
#include "fuzz.h"

#include "base/json.h"
#include "workers/drivers/ovsdb_json.h"

static void values(const json_t *v)
{
    int64_t n;
    for (size_t i = 0; i < lmo_ovsdb_set_size(v) && i < 64; i++) {
        const json_t *at = lmo_ovsdb_set_at(v, i);
        (void)lmo_ovsdb_string(at);
        (void)lmo_ovsdb_uuid(at);
        (void)lmo_ovsdb_integer(at, &n);
    }
    (void)lmo_ovsdb_true(v);
    (void)lmo_ovsdb_set_has_uuid(v, "00000000-0000-4000-8000-000000000001");
    (void)lmo_ovsdb_map_get(v, "key");
    (void)lmo_ovsdb_type_is_composite(v);
}

static void message(const char *text, size_t len)
{
    struct lmo_err err = {0};
    LMO_AUTO_JSON json_t *root = NULL;
    if (lmo_json_parse(text, len, 1U << 20, &root, &err) < 0) {
        return;
    }
    const char *name;
    json_t *v;
    json_t *before = NULL;
    json_object_foreach(root, name, v)
    {
        values(v);
        json_decref(lmo_ovsdb_apply_diff(before, v));
        before = v;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lmo_ovsdb_framer f = {.max_bytes = 1U << 16};
    size_t piece = size > 0 ? data[0] % 61 + 1 : 1, len = 0;
    const char *text;
    for (size_t at = 1; at < size; at += piece) {
        if (lmo_ovsdb_framer_add(&f, data + at, size - at < piece ? size - at : piece) < 0) {
            break;
        }
        int r;
        while ((r = lmo_ovsdb_framer_next(&f, &text, &len)) == 1) {
            message(text, len);
        }
        if (r < 0) {
            break;
        }
    }
    lmo_ovsdb_framer_reset(&f);
    free(f.buf);
    return 0;
}
