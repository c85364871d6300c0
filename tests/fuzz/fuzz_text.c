/* Small texts: identities of certificates, cursors, permits, addresses, configuration files. */
#include "fuzz.h"

#include "base/conf.h"
#include "base/id.h"
#include "engine/page.h"
#include "http/identity.h"
#include "pki/permit.h"

static const struct lmo_conf_key keys[] = {
    {"a", "text", LMO_CONF_STRING, false, "x", 0, 10, "text"},
    {"a", "name", LMO_CONF_NAME, true, NULL, 0, 0, "name"},
    {"a", "number", LMO_CONF_UINT, false, "5", 1, 100, "number"},
    {"a", "flag", LMO_CONF_BOOL, false, "no", 0, 0, "flag"},
    {"b *", "address", LMO_CONF_ADDRESS, true, NULL, 0, 0, "address"},
    {"b *", "path", LMO_CONF_PATH, false, NULL, 0, 0, "path"},
};

static void identity(const char *text)
{
    struct lmo_identity who = {0};
    struct lmo_err err = {0};
    char urn[LMO_URN_MAX];
    if (lmo_identity_parse_urn(text, &who, &err) == 0) {
        lmo_identity_format_urn(who.role, who.name, urn);
        lmo_assert(strcmp(urn, text) == 0);
    }
}

static void cursor(const char *text)
{
    struct lmo_err err = {0};
    char position[LMO_PAGE_POSITION_MAX], again[LMO_CURSOR_MAX];
    if (lmo_cursor_read(text, LMO_SEAL_NONE, position, &err) == 0) {
        lmo_cursor_make(LMO_SEAL_NONE, position, again);
        lmo_assert(strcmp(again, text) == 0);
    }
}

static void permit(const char *text, size_t size)
{
    static struct lmo_permit p;
    static char again[1U << 16];
    struct lmo_err err = {0};
    size_t len = 0;
    if (lmo_permit_decode(text, size, &p, &err) == 0) {
        lmo_assert(lmo_permit_encode(&p, again, sizeof again, &len, &err) == 0);
        lmo_assert(len == size && memcmp(again, text, len) == 0);
    }
}

static void configuration(const char *text)
{
    struct lmo_err err = {0};
    LMO_AUTO_CONF struct lmo_conf *conf = NULL;
    if (lmo_conf_parse(text, "fuzz", keys, sizeof keys / sizeof keys[0], &conf, &err) == 0) {
        lmo_assert(lmo_conf_uint(conf, "a", "number") >= 1 && lmo_name_valid(lmo_conf_str(conf, "a", "name")));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size), host[64], uuid[LMO_UUID_MAX];
    struct lmo_err err = {0};
    uint16_t port;
    identity(text);
    cursor(text);
    permit(text, size);
    configuration(text);
    (void)!lmo_address_split(text, host, sizeof host, &port, &err);
    (void)!lmo_uuid_normalise(text, uuid);
    if (lmo_ulid_valid(text)) {
        (void)lmo_ulid_time_ms(text);
    }
    free(text);
    return 0;
}
