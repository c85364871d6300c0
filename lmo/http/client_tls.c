/* client_tls.c - see client_tls.h. The same rule for revocation lists as in server_tls.c: one that is out of date is
 * still used. */
#include "http/client_tls.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "base/log.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <string.h>

#define PEM_MAX ((size_t)1024 * 1024)

struct lmo_client_tls {
    X509_STORE *store;
    X509 *cert;
    STACK_OF(X509) * chain; /* intermediates to send along */
    EVP_PKEY *key;
};

static int fail_openssl(struct lmo_err *err, int code, const char *path, const char *what)
{
    unsigned long e = ERR_peek_last_error();
    const char *reason = e ? ERR_reason_error_string(e) : NULL;
    ERR_clear_error();
    return lmo_fail(err, code, "%s: %s%s%s", path, what, reason ? ": " : "", reason ? reason : "");
}

/* Reads a file into a memory BIO; *ret_text is what the BIO reads from. */
static int open_pem(const char *path, char **ret_text, size_t *ret_len, BIO **ret_bio, struct lmo_err *err)
{
    int r = lmo_fs_read_file(path, PEM_MAX, ret_text, ret_len, err);
    if (r < 0)
        return r;
    *ret_bio = BIO_new_mem_buf(*ret_text, (int)*ret_len);
    return *ret_bio ? 0 : lmo_fail(err, LMO_E_NO_MEMORY, "no memory for %s", path);
}

/* True at the clean end of a PEM file, false if what follows is broken. */
static bool at_pem_end(void)
{
    unsigned long e = ERR_peek_last_error();
    bool end = e == 0 || (ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE);
    if (end)
        ERR_clear_error();
    return end;
}

static int load_ca(struct lmo_client_tls *tls, const char *path, struct lmo_err *err)
{
    LMO_AUTO_FREE char *text = NULL;
    size_t len;
    BIO *bio = NULL;
    int r = open_pem(path, &text, &len, &bio, err);
    unsigned count = 0;
    X509 *ca;
    while (r == 0 && (ca = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        if (X509_check_ca(ca) == 0)
            r = lmo_fail(err, LMO_E_INVALID, "%s: certificate %u is not a CA", path, count + 1);
        else if (X509_STORE_add_cert(tls->store, ca) != 1)
            r = fail_openssl(err, LMO_E_INVALID, path, "cannot use CA certificate");
        X509_free(ca);
        count++;
    }
    if (r == 0 && (!at_pem_end() || count == 0))
        r = fail_openssl(err, LMO_E_INVALID, path, "holds no CA certificate");
    BIO_free(bio);
    return r;
}

/* Signed by one of the CAs? X509_verify with a list nobody signed would only fail at the first connection. */
static bool signed_by_us(X509_STORE *store, X509_CRL *crl)
{
    bool good = false;
    STACK_OF(X509) *cas = X509_STORE_get1_all_certs(store);
    for (int i = 0; i < sk_X509_num(cas) && !good; i++) {
        X509 *ca = sk_X509_value(cas, i);
        good = X509_NAME_cmp(X509_get_subject_name(ca), X509_CRL_get_issuer(crl)) == 0 &&
               X509_CRL_verify(crl, X509_get0_pubkey(ca)) == 1;
    }
    sk_X509_pop_free(cas, X509_free);
    ERR_clear_error();
    return good;
}

static int load_crl(struct lmo_client_tls *tls, const char *path, struct lmo_err *err)
{
    LMO_AUTO_FREE char *text = NULL;
    size_t len;
    BIO *bio = NULL;
    int r = open_pem(path, &text, &len, &bio, err);
    unsigned count = 0;
    X509_CRL *crl;
    while (r == 0 && (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL))) {
        const ASN1_TIME *next = X509_CRL_get0_nextUpdate(crl);
        if (!signed_by_us(tls->store, crl))
            r = lmo_fail(err, LMO_E_INVALID, "%s holds a revocation list that none of the CAs signed", path);
        else if (X509_STORE_add_crl(tls->store, crl) != 1)
            r = fail_openssl(err, LMO_E_INVALID, path, "cannot use revocation list");
        else if (next && X509_cmp_current_time(next) < 0)
            lmo_log(LMO_LOG_WARN, "revocation list is out of date", "file=%s", path);
        X509_CRL_free(crl);
        count++;
    }
    if (r == 0 && (!at_pem_end() || count == 0))
        r = fail_openssl(err, LMO_E_INVALID, path, "holds no revocation list");
    if (r == 0)
        X509_STORE_set_flags(tls->store, X509_V_FLAG_CRL_CHECK);
    BIO_free(bio);
    return r;
}

static int load_cert(struct lmo_client_tls *tls, const char *path, struct lmo_err *err)
{
    LMO_AUTO_FREE char *text = NULL;
    size_t len;
    BIO *bio = NULL;
    int r = open_pem(path, &text, &len, &bio, err);
    if (r == 0) {
        tls->cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        tls->chain = sk_X509_new_null();
        X509 *extra;
        while (tls->cert && tls->chain && (extra = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
            if (sk_X509_push(tls->chain, extra) <= 0)
                X509_free(extra);
        }
        if (!tls->cert || !tls->chain || !at_pem_end())
            r = fail_openssl(err, LMO_E_INVALID, path, "is not a certificate");
    }
    BIO_free(bio);
    return r;
}

static int load_key(struct lmo_client_tls *tls, const struct lmo_tls_files *files, struct lmo_err *err)
{
    LMO_AUTO_FREE char *text = NULL;
    size_t len = 0;
    BIO *bio = NULL;
    int r = lmo_fs_check_private(files->key, err);
    if (r == 0)
        r = open_pem(files->key, &text, &len, &bio, err);
    if (r == 0) {
        /* An empty password instead of a prompt: keys of a service are not encrypted. */
        tls->key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)(uintptr_t) "");
        if (!tls->key)
            r = fail_openssl(err, LMO_E_INVALID, files->key, "is not a private key");
        else if (X509_check_private_key(tls->cert, tls->key) != 1)
            r = fail_openssl(err, LMO_E_INVALID, files->key, "is not the key of the certificate");
    }
    BIO_free(bio);
    if (text)
        OPENSSL_cleanse(text, len);
    return r;
}

int lmo_client_tls_load(const struct lmo_tls_files *files, struct lmo_client_tls **ret_tls, struct lmo_err *err)
{
    struct lmo_client_tls *tls = calloc(1, sizeof *tls);
    if (!tls || !(tls->store = X509_STORE_new())) {
        free(tls);
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for certificates");
    }
    ERR_clear_error();
    int r = load_ca(tls, files->ca, err);
    if (r == 0 && files->crl[0])
        r = load_crl(tls, files->crl, err);
    bool anonymous = !files->cert[0] && !files->key[0];
    if (r == 0 && !anonymous)
        r = load_cert(tls, files->cert, err);
    if (r == 0 && !anonymous)
        r = load_key(tls, files, err);
    if (r < 0) {
        lmo_client_tls_free(tls);
        return r;
    }
    *ret_tls = tls;
    return 0;
}

int lmo_client_tls_load_outside(const char *ca, struct lmo_client_tls **ret_tls, struct lmo_err *err)
{
    struct lmo_client_tls *tls = calloc(1, sizeof *tls);
    if (!tls || !(tls->store = X509_STORE_new())) {
        free(tls);
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for certificates");
    }
    ERR_clear_error();
    int r = ca[0] ? load_ca(tls, ca, err) : 0;
    if (!ca[0] && X509_STORE_set_default_paths(tls->store) != 1)
        r = fail_openssl(err, LMO_E_INVALID, "the system's CAs", "cannot be used");
    if (r < 0) {
        lmo_client_tls_free(tls);
        return r;
    }
    *ret_tls = tls;
    return 0;
}

struct lmo_client_tls *lmo_client_tls_free(struct lmo_client_tls *tls)
{
    if (tls) {
        X509_STORE_free(tls->store);
        X509_free(tls->cert);
        sk_X509_pop_free(tls->chain, X509_free);
        EVP_PKEY_free(tls->key);
        free(tls);
    }
    return NULL;
}

static int verify_cb(int ok, X509_STORE_CTX *ctx)
{
    if (!ok && X509_STORE_CTX_get_error(ctx) == X509_V_ERR_CRL_HAS_EXPIRED) {
        X509_STORE_CTX_set_error(ctx, X509_V_OK);
        return 1;
    }
    return ok;
}

int lmo_client_tls_apply(struct lmo_client_tls *tls, SSL_CTX *ctx)
{
    SSL_CTX_set1_cert_store(ctx, tls->store);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, verify_cb);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_default_read_buffer_len(ctx, 0); /* one record; libcurl asks for 64 KiB per connection */
    bool ok = SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1;
    ok = ok && (!tls->cert || (SSL_CTX_use_certificate(ctx, tls->cert) == 1 && SSL_CTX_use_PrivateKey(ctx, tls->key) == 1));
    for (int i = 0; ok && i < sk_X509_num(tls->chain); i++)
        ok = SSL_CTX_add1_chain_cert(ctx, sk_X509_value(tls->chain, i)) == 1;
    ERR_clear_error();
    return ok ? 0 : LMO_E_NO_MEMORY;
}

/* The one URI urn:lmo:... */
static int read_identity(X509 *cert, struct lmo_identity *ret_identity, struct lmo_err *err)
{
    struct lmo_identity identity = {0};
    unsigned found = 0;
    int r = 0;
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && r == 0; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI)
            continue;
        char urn[LMO_URN_MAX];
        const unsigned char *data = ASN1_STRING_get0_data(name->d.uniformResourceIdentifier);
        size_t len = (size_t)ASN1_STRING_length(name->d.uniformResourceIdentifier);
        if (len < 8 || memcmp(data, "urn:lmo:", 8) != 0)
            continue;
        found++;
        if (len >= sizeof urn || memchr(data, '\0', len)) {
            r = LMO_E_UNAUTHENTICATED;
            continue;
        }
        memcpy(urn, data, len);
        urn[len] = '\0';
        r = lmo_identity_parse_urn(urn, &identity, NULL);
    }
    GENERAL_NAMES_free(names);
    if (r < 0 || found != 1)
        return lmo_fail(err, LMO_E_UNAUTHENTICATED,
                        "server certificate must have exactly one URI urn:lmo:<role>:<name>");
    *ret_identity = identity;
    return 0;
}

static void hex(const unsigned char *data, size_t len, char *ret_text, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    for (size_t i = 0; i < len && n + 2 < size; i++) {
        ret_text[n++] = digits[data[i] >> 4];
        ret_text[n++] = digits[data[i] & 15];
    }
    ret_text[n] = '\0';
}

int lmo_client_tls_peer(const SSL *ssl, struct lmo_identity *ret_identity, struct lmo_err *err)
{
    X509 *cert = SSL_get0_peer_certificate(ssl);
    if (!cert)
        return lmo_fail(err, LMO_E_UNAUTHENTICATED, "server has no certificate");
    struct lmo_identity identity;
    int r = read_identity(cert, &identity, err);
    if (r < 0)
        return r;
    const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
    hex(ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial), identity.serial, sizeof identity.serial);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (X509_digest(cert, EVP_sha256(), digest, &len) == 1)
        hex(digest, len, identity.fingerprint, sizeof identity.fingerprint);
    *ret_identity = identity;
    return 0;
}
