/* webhook.c - see webhook.h. */
#include "pki/webhook.h"

#include "base/cleanup.h"
#include "base/id.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#define PREFIX       "whsec_"
#define SECRET_BYTES 32
#define KEY_MAX      72 /* EVP_DecodeBlock writes whole groups of three */

void lmo_webhook_secret_new(char ret[LMO_WEBHOOK_SECRET_MAX])
{
    unsigned char bytes[SECRET_BYTES];
    lmo_random(bytes, sizeof bytes);
    memcpy(ret, PREFIX, sizeof PREFIX - 1);
    (void)EVP_EncodeBlock((unsigned char *)ret + sizeof PREFIX - 1, bytes, sizeof bytes);
    OPENSSL_cleanse(bytes, sizeof bytes);
}

/* Length of the key; 0: it is none. */
static size_t decode(const char *secret, unsigned char key[KEY_MAX])
{
    size_t prefix = sizeof PREFIX - 1, len = strlen(secret);
    if (len <= prefix || len >= LMO_WEBHOOK_SECRET_MAX || memcmp(secret, PREFIX, prefix) != 0 ||
        (len - prefix) % 4 != 0) {
        return 0;
    }
    int n = EVP_DecodeBlock(key, (const unsigned char *)secret + prefix, (int)(len - prefix));
    for (size_t i = len; n > 0 && i > prefix && secret[i - 1] == '='; i--) {
        n--; /* it counts padding as bytes */
    }
    return n >= 24 && n <= 64 ? (size_t)n : 0;
}

static int sign_one(const char *secret, const char *text, size_t len, char ret[LMO_WEBHOOK_SIGNATURES_MAX / 2],
                    struct lmo_err *err)
{
    unsigned char key[KEY_MAX], mac[EVP_MAX_MD_SIZE];
    unsigned mac_len = 0;
    size_t key_len = decode(secret, key);
    if (key_len == 0) {
        return lmo_fail(err, LMO_E_INVALID, "the stored secret is not whsec_ and base64 of 24 to 64 bytes");
    }
    bool ok = HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, len, mac, &mac_len) != NULL;
    OPENSSL_cleanse(key, sizeof key);
    if (!ok) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "cannot sign");
    }
    memcpy(ret, "v1,", 3);
    (void)EVP_EncodeBlock((unsigned char *)ret + 3, mac, (int)mac_len);
    return 0;
}

int lmo_webhook_sign(const char *secret, const char *old_secret, const char *id, int64_t timestamp_s, const char *body,
                     size_t len, char ret[LMO_WEBHOOK_SIGNATURES_MAX], struct lmo_err *err)
{
    char one[LMO_WEBHOOK_SIGNATURES_MAX / 2], two[LMO_WEBHOOK_SIGNATURES_MAX / 2] = "", head[160];
    int n = snprintf(head, sizeof head, "%s.%" PRId64 ".", id, timestamp_s);
    if (n < 0 || (size_t)n >= sizeof head || strchr(id, '.')) {
        return lmo_fail(err, LMO_E_INVALID, "the id of a message is too long, or has a full stop");
    }
    LMO_AUTO_FREE char *text = malloc((size_t)n + len);
    if (!text) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a signature");
    }
    memcpy(text, head, (size_t)n);
    memcpy(text + n, body, len);
    int r = sign_one(secret, text, (size_t)n + len, one, err);
    if (r == 0 && old_secret[0]) {
        r = sign_one(old_secret, text, (size_t)n + len, two, err);
    }
    if (r == 0) {
        (void)snprintf(ret, LMO_WEBHOOK_SIGNATURES_MAX, "%s%s%s", one, two[0] ? " " : "", two);
    }
    return r;
}
