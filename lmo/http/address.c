/* address.c - see address.h. The blocks are those of the IANA special-purpose registries that are not globally reachable. */
#include "http/address.h"

#include "base/types.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static bool is_public_v4(uint32_t a)
{
    static const struct {
        uint32_t block;
        unsigned bits;
    } inside[] = {
        {0x00000000, 8},  /* this network */
        {0x0a000000, 8},  /* private */
        {0x64400000, 10}, /* shared, 100.64/10 */
        {0x7f000000, 8},  /* loopback */
        {0xa9fe0000, 16}, /* link-local: metadata services of clouds */
        {0xac100000, 12}, /* private */
        {0xc0000000, 24}, /* protocol assignments */
        {0xc0000200, 24}, /* documentation */
        {0xc0a80000, 16}, /* private */
        {0xc6120000, 15}, /* benchmarking */
        {0xc6336400, 24}, /* documentation */
        {0xcb007100, 24}, /* documentation */
        {0xe0000000, 3},  /* multicast, reserved, broadcast */
    };
    for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) {
        if ((a ^ inside[i].block) >> (32 - inside[i].bits) == 0) {
            return false;
        }
    }
    return true;
}

static uint32_t v4_in(const uint8_t *bytes)
{
    uint32_t a;
    memcpy(&a, bytes, sizeof a);
    return ntohl(a);
}

static bool is_public_v6(const uint8_t *b)
{
    static const uint8_t zeros[10] = {0}, translated[12] = {0, 0x64, 0xff, 0x9b};
    if (memcmp(b, zeros, 10) == 0 && b[10] == 0xff && b[11] == 0xff) {
        return is_public_v4(v4_in(b + 12)); /* ::ffff:a.b.c.d */
    }
    if (memcmp(b, translated, 12) == 0) {
        return is_public_v4(v4_in(b + 12)); /* 64:ff9b::a.b.c.d */
    }
    if (b[0] == 0x20 && b[1] == 0x02) {
        return is_public_v4(v4_in(b + 2)); /* 6to4 */
    }
    bool global = (b[0] & 0xe0) == 0x20; /* 2000::/3: all else is local, multicast or unassigned */
    bool documentation = b[0] == 0x20 && b[1] == 0x01 && b[2] == 0x0d && b[3] == 0xb8;
    bool special = b[0] == 0x20 && b[1] == 0x01 && b[2] < 2; /* 2001::/23: Teredo and others */
    return global && !documentation && !special;
}

bool lmo_address_is_public(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        return is_public_v4(ntohl(in.sin_addr.s_addr));
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof in6);
        return is_public_v6(in6.sin6_addr.s6_addr);
    }
    return false;
}

static int check_host(const char *host, bool inside, struct lmo_err *err)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    bool v4 = inet_pton(AF_INET, host, &in.sin_addr) == 1, v6 = inet_pton(AF_INET6, host, &in6.sin6_addr) == 1;
    const struct sockaddr *address =
        v4 ? (const struct sockaddr *)(const void *)&in : (const struct sockaddr *)(const void *)&in6;
    if ((v4 || v6) && !inside && !lmo_address_is_public(address)) {
        return lmo_fail(err, LMO_E_INVALID,
                        "url: '%s' is not a public address; [webhooks] allow_private would allow it", host);
    }
    return 0;
}

int lmo_url_check(const char *url, bool plain, bool inside, struct lmo_err *err)
{
    char host[128];
    bool https = strncmp(url, "https://", 8) == 0, http = strncmp(url, "http://", 7) == 0;
    if (strlen(url) >= LMO_URL_MAX) {
        return lmo_fail(err, LMO_E_INVALID, "url: longer than %d characters", LMO_URL_MAX - 1);
    }
    if (!https && !(http && plain)) {
        return lmo_fail(err, LMO_E_INVALID,
                        http ? "url: must be https://; [webhooks] allow_http would allow http://"
                             : "url: must be https://HOST[:PORT][/PATH]");
    }
    for (const char *p = url; *p; p++) {
        if (*p <= ' ' || *p > '~' || *p == '"' || *p == '\\' || *p == '<' || *p == '>') {
            return lmo_fail(err, LMO_E_INVALID, "url: has a character that a URL cannot have");
        }
    }
    const char *at = url + (https ? 8 : 7);
    size_t authority = strcspn(at, "/?#");
    if (memchr(at, '@', authority) || strchr(url, '#')) {
        return lmo_fail(err, LMO_E_INVALID, "url: must have no user and no fragment");
    }
    bool bracket = at[0] == '[';
    size_t len = bracket ? strcspn(at, "]") : strcspn(at, ":/?");
    size_t from = bracket ? 1 : 0, rest = bracket ? len + 1 : len;
    if (len <= from || len >= sizeof host || rest > authority) {
        return lmo_fail(err, LMO_E_INVALID, "url: has no host");
    }
    size_t digits = at[rest] == ':' ? strspn(at + rest + 1, "0123456789") : 0;
    if (rest < authority && (at[rest] != ':' || digits == 0 || digits > 5 || rest + 1 + digits != authority)) {
        return lmo_fail(err, LMO_E_INVALID, "url: the port must be a number");
    }
    (void)snprintf(host, sizeof host, "%.*s", (int)(len - from), at + from);
    return check_host(host, inside, err);
}
