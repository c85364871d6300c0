/* page.c - see page.h. */
#include "engine/page.h"

#include "base/assert.h"
#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SEAL_DIGITS 16

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

uint64_t lmo_seal(uint64_t seal, const char *text)
{
    for (const char *p = text ? text : ""; *p; p++) {
        seal = (seal ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    }
    return (seal ^ 0xff) * UINT64_C(0x100000001b3); /* ends the text: "ab","c" is not "a","bc" */
}

void lmo_cursor_make(uint64_t seal, const char *position, char ret_cursor[LMO_CURSOR_MAX])
{
    char plain[SEAL_DIGITS + LMO_PAGE_POSITION_MAX];
    int n = snprintf(plain, sizeof plain, "%016" PRIx64 "%s", seal, position);
    lmo_assert(n >= SEAL_DIGITS && (size_t)n < sizeof plain);
    size_t used = 0;
    uint32_t bits = 0;
    unsigned have = 0;
    for (int i = 0; i < n; i++) {
        bits = bits << 8 | (unsigned char)plain[i];
        for (have += 8; have >= 6; have -= 6) {
            ret_cursor[used++] = alphabet[bits >> (have - 6) & 63];
        }
    }
    if (have > 0) {
        ret_cursor[used++] = alphabet[bits << (6 - have) & 63];
    }
    ret_cursor[used] = '\0';
    _Static_assert((SEAL_DIGITS + LMO_PAGE_POSITION_MAX) * 4 / 3 + 2 < LMO_CURSOR_MAX, "a cursor always fits");
}

/* False: not what lmo_cursor_make makes. */
static bool decode(const char *cursor, char *plain, size_t size)
{
    size_t used = 0;
    uint32_t bits = 0;
    unsigned have = 0;
    for (const char *p = cursor; *p; p++) {
        const char *at = strchr(alphabet, *p);
        if (!at) {
            return false;
        }
        bits = bits << 6 | (uint32_t)(at - alphabet);
        have += 6;
        if (have >= 8) {
            have -= 8;
            unsigned char c = (unsigned char)(bits >> have);
            if (used + 1 >= size || c < ' ' || c > '~') {
                return false;
            }
            plain[used++] = (char)c;
        }
    }
    plain[used] = '\0';
    return used > SEAL_DIGITS;
}

int lmo_cursor_read(const char *cursor, uint64_t seal, char ret_position[LMO_PAGE_POSITION_MAX], struct lmo_err *err)
{
    char plain[SEAL_DIGITS + LMO_PAGE_POSITION_MAX], again[LMO_CURSOR_MAX];
    if (!decode(cursor, plain, sizeof plain)) {
        return lmo_fail(err, LMO_E_INVALID, "cursor: not a next_cursor of this API");
    }
    lmo_cursor_make(seal, plain + SEAL_DIGITS, again);
    if (strcmp(again, cursor) != 0) {
        return lmo_fail(err, LMO_E_INVALID, "cursor: of another list, or of other filters than these");
    }
    memcpy(ret_position, plain + SEAL_DIGITS, strlen(plain + SEAL_DIGITS) + 1);
    return 0;
}

int lmo_page_put_next(json_t *body, const struct lmo_page *page, const char *position)
{
    char cursor[LMO_CURSOR_MAX];
    if (!position) {
        return lmo_json_put(body, "next_cursor", json_null());
    }
    lmo_cursor_make(page->seal, position, cursor);
    return lmo_json_put_str(body, "next_cursor", cursor);
}
