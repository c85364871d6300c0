/* permit.c - keys, signature and envelope of permits. The payload's format is permit_codec.c's.
 *
 * Order in lmo_permit_verify, and why: cap, parse the envelope (two strings, nothing else), decode base64, verify the
 * signature over the decoded bytes, and only then look into them. An attacker who cannot sign therefore reaches
 * nothing but jansson and OpenSSL. */
#include "pki/permit.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "pki/ssl_util.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>

#define SIGNATURE_BYTES 64 /* Ed25519 */
#define PUBLIC_KEYS_MAX 4

struct lmo_permit_key {
    EVP_PKEY *pkey;
};

struct lmo_permit_public {
    size_t count;
    EVP_PKEY *pkey[PUBLIC_KEYS_MAX];
};

static void cleanup_md(EVP_MD_CTX **c)
{
    EVP_MD_CTX_free(*c);
}

struct lmo_permit_key *lmo_permit_key_free(struct lmo_permit_key *k)
{
    if (k)
        EVP_PKEY_free(k->pkey);
    free(k);
    return NULL;
}

struct lmo_permit_public *lmo_permit_public_free(struct lmo_permit_public *p)
{
    for (size_t i = 0; p && i < p->count; i++)
        EVP_PKEY_free(p->pkey[i]);
    free(p);
    return NULL;
}

int lmo_permit_key_load(const char *path, struct lmo_permit_key **ret, struct lmo_err *err)
{
    LMO_AUTO_FCLOSE FILE *f = fopen(path, "re");
    if (!f)
        return lmo_fail(err, LMO_E_IO, "%s: %m", path);
    struct stat st;
    if (fstat(fileno(f), &st) < 0)
        return lmo_fail(err, LMO_E_IO, "%s: %m", path);
    if (!S_ISREG(st.st_mode) || (st.st_mode & 077) != 0) {
        return lmo_fail(err, LMO_E_REFUSED, "%s: a private key must be a file that only its owner may read: chmod 600",
                        path);
    }
    LMO_CLEANUP(lmo_cleanup_permit_key) struct lmo_permit_key *k = calloc(1, sizeof *k);
    if (!k)
        return lmo_fail(err, LMO_E_NO_MEMORY, "%s: out of memory", path);
    k->pkey = PEM_read_PrivateKey(f, NULL, lmo_ssl_no_passphrase, NULL);
    if (!k->pkey)
        return lmo_ssl_fail(err, LMO_E_INVALID, "%s: not a private key in PEM", path);
    if (EVP_PKEY_get_id(k->pkey) != EVP_PKEY_ED25519) {
        return lmo_fail(err, LMO_E_INVALID, "%s: not an Ed25519 key; `lmo pki init` makes one", path);
    }
    *ret = LMO_TAKE(k);
    return 0;
}

/* The next PEM block, which must be a public key. NULL: none, or not one; lmo_ssl_is_pem_end tells which. */
static EVP_PKEY *read_public(FILE *f)
{
    char *name = NULL, *header = NULL;
    unsigned char *der = NULL;
    long len = 0;
    if (PEM_read(f, &name, &header, &der, &len) != 1)
        return NULL;
    const unsigned char *at = der;
    EVP_PKEY *key = strcmp(name, PEM_STRING_PUBLIC) == 0 ? d2i_PUBKEY(NULL, &at, len) : NULL;
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(der);
    return key;
}

int lmo_permit_public_load(const char *path, struct lmo_permit_public **ret, struct lmo_err *err)
{
    LMO_AUTO_FCLOSE FILE *f = fopen(path, "re");
    if (!f)
        return lmo_fail(err, LMO_E_IO, "%s: %m", path);
    LMO_CLEANUP(lmo_cleanup_permit_public) struct lmo_permit_public *p = calloc(1, sizeof *p);
    if (!p)
        return lmo_fail(err, LMO_E_NO_MEMORY, "%s: out of memory", path);
    lmo_ssl_clear();
    for (;;) {
        EVP_PKEY *key = read_public(f);
        if (!key && p->count > 0 && lmo_ssl_is_pem_end())
            break;
        if (!key)
            return lmo_ssl_fail(err, LMO_E_INVALID, "%s: key %zu is not a public key in PEM", path, p->count + 1);
        if (p->count == PUBLIC_KEYS_MAX || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519) {
            EVP_PKEY_free(key);
            return lmo_fail(err, LMO_E_INVALID, "%s: key %zu: at most %d keys, all Ed25519", path, p->count + 1,
                            PUBLIC_KEYS_MAX);
        }
        p->pkey[p->count++] = key;
    }
    *ret = LMO_TAKE(p);
    return 0;
}

/* Canonical base64 only: what does not encode to the same text again (blanks, wrong padding, spare bits) is refused,
 * because EVP_DecodeBlock alone is lax. */
static int decode_base64(const char *what, const char *text, size_t text_len, unsigned char *ret, size_t size,
                         size_t *ret_len, struct lmo_err *err)
{
    unsigned char raw[LMO_PERMIT_TEXT_MAX];
    unsigned char again[LMO_PERMIT_TEXT_MAX + 4];
    if (text_len == 0 || text_len % 4 != 0 || text_len > LMO_PERMIT_TEXT_MAX) {
        return lmo_fail(err, LMO_E_INVALID, "permit: %s: not base64", what);
    }
    int n = EVP_DecodeBlock(raw, (const unsigned char *)text, (int)text_len);
    if (n < 0)
        return lmo_fail(err, LMO_E_INVALID, "permit: %s: not base64", what);
    if (text[text_len - 1] == '=')
        n--;
    if (text[text_len - 2] == '=')
        n--;
    if (n <= 0 || (size_t)n > size)
        return lmo_fail(err, LMO_E_TOO_LARGE, "permit: %s: %d bytes", what, n);
    int m = EVP_EncodeBlock(again, raw, n);
    if (m < 0 || (size_t)m != text_len || memcmp(again, text, text_len) != 0) {
        return lmo_fail(err, LMO_E_INVALID, "permit: %s: base64 is not in its canonical form", what);
    }
    memcpy(ret, raw, (size_t)n);
    *ret_len = (size_t)n;
    return 0;
}

int lmo_permit_sign(const struct lmo_permit_key *key, const struct lmo_permit *permit, char *ret_text, size_t size,
                    struct lmo_err *err)
{
    char payload[LMO_PERMIT_PAYLOAD_MAX];
    size_t payload_len = 0;
    int rc = lmo_permit_encode(permit, payload, sizeof payload, &payload_len, err);
    if (rc < 0)
        return rc;

    unsigned char signature[SIGNATURE_BYTES];
    size_t signature_len = sizeof signature;
    LMO_CLEANUP(cleanup_md) EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (!md || EVP_DigestSignInit(md, NULL, NULL, NULL, key->pkey) != 1 ||
        EVP_DigestSign(md, signature, &signature_len, (const unsigned char *)payload, payload_len) != 1 ||
        signature_len != sizeof signature) {
        return lmo_ssl_fail(err, LMO_E_INTERNAL, "permit: signing failed");
    }
    /* Base64 needs no escaping in JSON, so the envelope is plain text. */
    unsigned char payload64[LMO_PERMIT_PAYLOAD_MAX / 3 * 4 + 8];
    unsigned char signature64[SIGNATURE_BYTES / 3 * 4 + 8];
    EVP_EncodeBlock(payload64, (const unsigned char *)payload, (int)payload_len);
    EVP_EncodeBlock(signature64, signature, (int)signature_len);
    char text[LMO_PERMIT_TEXT_MAX];
    int n = snprintf(text, sizeof text, "{\"payload\":\"%s\",\"signature\":\"%s\"}", (const char *)payload64,
                     (const char *)signature64);
    if (n < 0 || (size_t)n >= sizeof text || (size_t)n >= size) {
        return lmo_fail(err, LMO_E_TOO_LARGE, "permit: does not fit into %zu bytes", size);
    }
    memcpy(ret_text, text, (size_t)n + 1);
    return 0;
}

static bool signed_by(EVP_PKEY *key, const unsigned char *signature, const unsigned char *payload, size_t payload_len)
{
    LMO_CLEANUP(cleanup_md) EVP_MD_CTX *md = EVP_MD_CTX_new();
    return md && EVP_DigestVerifyInit(md, NULL, NULL, NULL, key) == 1 &&
           EVP_DigestVerify(md, signature, SIGNATURE_BYTES, payload, payload_len) == 1;
}

int lmo_permit_verify(const struct lmo_permit_public *pub, const char *text, struct lmo_permit *ret_permit,
                      struct lmo_err *err)
{
    size_t text_len = text ? strnlen(text, LMO_PERMIT_TEXT_MAX) : 0;
    if (text_len == 0)
        return lmo_fail(err, LMO_E_INVALID, "permit: empty");
    if (text_len >= LMO_PERMIT_TEXT_MAX) {
        return lmo_fail(err, LMO_E_TOO_LARGE, "permit: larger than %d bytes", LMO_PERMIT_TEXT_MAX - 1);
    }
    LMO_AUTO_JSON json_t *envelope = NULL;
    int rc = lmo_json_parse_object(text, text_len, LMO_PERMIT_TEXT_MAX, &envelope, err);
    if (rc < 0) {
        lmo_err_prefix(err, "permit");
        return rc;
    }
    json_t *payload_json = json_object_get(envelope, "payload"),
           *signature_json = json_object_get(envelope, "signature");
    if (!json_is_string(payload_json) || !json_is_string(signature_json) || json_object_size(envelope) != 2) {
        return lmo_fail(err, LMO_E_INVALID, "permit: not an object of the two strings payload and signature");
    }
    unsigned char payload[LMO_PERMIT_PAYLOAD_MAX], signature[SIGNATURE_BYTES];
    size_t payload_len = 0, signature_len = 0;
    rc = decode_base64("payload", json_string_value(payload_json), json_string_length(payload_json), payload,
                       sizeof payload, &payload_len, err);
    if (rc < 0)
        return rc;
    rc = decode_base64("signature", json_string_value(signature_json), json_string_length(signature_json), signature,
                       sizeof signature, &signature_len, err);
    if (rc < 0)
        return rc;

    bool genuine = false;
    for (size_t i = 0; signature_len == SIGNATURE_BYTES && i < pub->count && !genuine; i++) {
        genuine = signed_by(pub->pkey[i], signature, payload, payload_len);
    }
    lmo_ssl_clear();
    if (!genuine)
        return lmo_fail(err, LMO_E_FORBIDDEN, "permit: signed by nobody that this host trusts");
    return lmo_permit_decode((const char *)payload, payload_len, ret_permit, err);
}
