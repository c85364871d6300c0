/* id.c - see id.h. ULID: https://github.com/ulid/spec; 26 characters hold 130 bits, so the first is at most '7'. */
#include "base/id.h"
#include "base/assert.h"
#include "base/clock.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static const char crockford[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

void lmo_random(void *ret, size_t len)
{
    char *p = ret;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        lmo_assert(n > 0);
        p += n;
        len -= (size_t)n;
    }
}

void lmo_ulid_format(uint64_t realtime_ms, const uint8_t random[10], char ret_id[LMO_ID_MAX])
{
    for (int i = 9; i >= 0; i--) {
        ret_id[i] = crockford[realtime_ms & 31];
        realtime_ms >>= 5;
    }
    /* 80 bits in 16 characters: two groups of 40 bits in 8. */
    for (int group = 0; group < 2; group++) {
        uint64_t bits = 0;
        for (int i = 0; i < 5; i++)
            bits = bits << 8 | random[group * 5 + i];
        for (int i = 7; i >= 0; i--) {
            ret_id[10 + group * 8 + i] = crockford[bits & 31];
            bits >>= 5;
        }
    }
    ret_id[26] = '\0';
}

void lmo_ulid_generate(char ret_id[LMO_ID_MAX])
{
    uint8_t random[10];
    lmo_random(random, sizeof random);
    lmo_ulid_format(lmo_realtime_us() / 1000, random, ret_id);
}

bool lmo_ulid_valid(const char *id)
{
    if (!id || strlen(id) != 26 || id[0] > '7')
        return false;
    return strspn(id, crockford) == 26;
}

uint64_t lmo_ulid_time_ms(const char *id)
{
    lmo_assert(lmo_ulid_valid(id));
    uint64_t ms = 0;
    for (int i = 0; i < 10; i++)
        ms = ms << 5 | (uint64_t)(strchr(crockford, id[i]) - crockford);
    return ms;
}

void lmo_uuid_generate(char ret_uuid[LMO_UUID_MAX])
{
    uint8_t b[16];
    lmo_random(b, sizeof b);
    b[6] = (uint8_t)((b[6] & 0x0F) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3F) | 0x80);
    snprintf(ret_uuid, LMO_UUID_MAX, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

int lmo_uuid_normalise(const char *text, char ret_uuid[LMO_UUID_MAX])
{
    if (!text || strlen(text) != 36)
        return LMO_E_INVALID;
    char uuid[LMO_UUID_MAX];
    for (int i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        unsigned char c = (unsigned char)text[i];
        if (dash ? c != '-' : !(c < 0x80 && isxdigit(c)))
            return LMO_E_INVALID;
        uuid[i] = (char)(c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);
    }
    uuid[36] = '\0';
    memcpy(ret_uuid, uuid, sizeof uuid);
    return 0;
}

bool lmo_uuid_valid(const char *uuid)
{
    char normal[LMO_UUID_MAX];
    return lmo_uuid_normalise(uuid, normal) == 0 && strcmp(normal, uuid) == 0;
}

bool lmo_name_valid(const char *name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    if (!name || name[0] == '\0' || name[0] == '.' || name[0] == '-')
        return false;
    size_t len = strnlen(name, LMO_NAME_MAX);
    return len < LMO_NAME_MAX && strspn(name, allowed) == len;
}
