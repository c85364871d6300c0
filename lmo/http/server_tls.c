/* server_tls.c - see server_tls.h.
 *
 * libmicrohttpd only asks for a client certificate; whether it is good is decided here, with our own trust list, so
 * that a reload needs no restart of the listener. A revocation list past its next-update time is still used, with a
 * warning at load: what it revokes stays revoked, and a list that nobody renewed must not stop a migration half-way. A
 * list that no CA of ours signed is an error. */
#include "http/server_tls.h"
#include "base/assert.h"
#include "base/cleanup.h"
#include "base/fs.h"
#include "base/log.h"

#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PEM_MAX ((size_t)1024 * 1024)

struct lmo_server_tls {
    atomic_uint references;
    gnutls_x509_trust_list_t trust;
    gnutls_pcert_st chain[LMO_TLS_CHAIN_MAX];
    unsigned chain_count;
    gnutls_privkey_t key;
};

static int read_pem(const char *path, char **ret_data, gnutls_datum_t *ret_datum, struct lmo_err *err)
{
    size_t len;
    int r = lmo_fs_read_file(path, PEM_MAX, ret_data, &len, err);
    if (r == 0)
        *ret_datum = (gnutls_datum_t){.data = (unsigned char *)*ret_data, .size = (unsigned)len};
    return r;
}

static int load_ca(struct lmo_server_tls *tls, const char *path, struct lmo_err *err)
{
    LMO_AUTO_FREE char *pem = NULL;
    gnutls_datum_t datum;
    int r = read_pem(path, &pem, &datum, err);
    if (r < 0)
        return r;
    gnutls_x509_crt_t *cas = NULL;
    unsigned count = 0;
    int e = gnutls_x509_crt_list_import2(&cas, &count, &datum, GNUTLS_X509_FMT_PEM, 0);
    if (e < 0)
        return lmo_fail(err, LMO_E_INVALID, "%s holds no CA certificate: %s", path, gnutls_strerror(e));
    for (unsigned i = 0; i < count && r == 0; i++) {
        if (gnutls_x509_crt_get_ca_status(cas[i], NULL) <= 0)
            r = lmo_fail(err, LMO_E_INVALID, "%s: certificate %u is not a CA", path, i + 1);
    }
    unsigned added = 0;
    if (r == 0) {
        int n = gnutls_x509_trust_list_add_cas(tls->trust, cas, count, 0);
        added = n > 0 ? (unsigned)n : 0;
        if (added != count)
            r = lmo_fail(err, LMO_E_INTERNAL, "%s: only %u of %u CA certificates could be used", path, added, count);
    }
    /* What was added is the trust list's now. */
    for (unsigned i = added; i < count; i++)
        gnutls_x509_crt_deinit(cas[i]);
    gnutls_free(cas);
    return r;
}

/* Is the list signed by a CA of `trust`, and how old is it? */
static int check_crl(struct lmo_server_tls *tls, gnutls_x509_crl_t crl, const char *path, struct lmo_err *err)
{
    const unsigned old = GNUTLS_CERT_INVALID | GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED;
    unsigned status = 0;
    /* The trust list looks its issuers up itself when asked to verify on adding; here only the signature counts. */
    gnutls_x509_trust_list_iter_t iter = NULL;
    gnutls_x509_crt_t ca = NULL;
    bool signed_by_us = false;
    while (gnutls_x509_trust_list_iter_get_ca(tls->trust, &iter, &ca) == 0) {
        if (gnutls_x509_crl_check_issuer(crl, ca) == 1 &&
            gnutls_x509_crl_verify(crl, &ca, 1, GNUTLS_VERIFY_DISABLE_TIME_CHECKS, &status) == 0 &&
            (status == 0 || status == old))
            signed_by_us = true;
        gnutls_x509_crt_deinit(ca);
    }
    if (!signed_by_us)
        return lmo_fail(err, LMO_E_INVALID, "%s holds a revocation list that none of the CAs signed", path);
    time_t next = gnutls_x509_crl_get_next_update(crl);
    if (next != (time_t)-1 && next < time(NULL))
        lmo_log(LMO_LOG_WARN, "revocation list is out of date", "file=%s expired_s_ago=%lld", path,
                (long long)(time(NULL) - next));
    return 0;
}

static int load_crl(struct lmo_server_tls *tls, const char *path, struct lmo_err *err)
{
    LMO_AUTO_FREE char *pem = NULL;
    gnutls_datum_t datum;
    int r = read_pem(path, &pem, &datum, err);
    if (r < 0)
        return r;
    gnutls_x509_crl_t *crls = NULL;
    unsigned count = 0;
    int e = gnutls_x509_crl_list_import2(&crls, &count, &datum, GNUTLS_X509_FMT_PEM, 0);
    if (e < 0)
        return lmo_fail(err, LMO_E_INVALID, "%s holds no revocation list: %s", path, gnutls_strerror(e));
    for (unsigned i = 0; i < count && r == 0; i++)
        r = check_crl(tls, crls[i], path, err);
    if (r == 0) {
        int n = gnutls_x509_trust_list_add_crls(tls->trust, crls, count, 0, 0);
        if (n < 0 || (unsigned)n != count)
            r = lmo_fail(err, LMO_E_INTERNAL, "%s: the revocation list could not be used", path);
    } else {
        for (unsigned i = 0; i < count; i++)
            gnutls_x509_crl_deinit(crls[i]);
    }
    gnutls_free(crls);
    return r;
}

static int load_own(struct lmo_server_tls *tls, const struct lmo_tls_files *files, struct lmo_err *err)
{
    LMO_AUTO_FREE char *cert_pem = NULL, *key_pem = NULL;
    gnutls_datum_t cert, key;
    int r = read_pem(files->cert, &cert_pem, &cert, err);
    if (r == 0)
        r = lmo_fs_check_private(files->key, err);
    if (r == 0)
        r = read_pem(files->key, &key_pem, &key, err);
    if (r < 0)
        return r;
    unsigned count = LMO_TLS_CHAIN_MAX;
    int e = gnutls_pcert_list_import_x509_raw(tls->chain, &count, &cert, GNUTLS_X509_FMT_PEM, 0);
    if (e < 0)
        return lmo_fail(err, LMO_E_INVALID, "%s: not a certificate: %s", files->cert, gnutls_strerror(e));
    tls->chain_count = count;
    e = gnutls_privkey_init(&tls->key);
    if (e == 0)
        e = gnutls_privkey_import_x509_raw(tls->key, &key, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_memset(key_pem, 0, key.size);
    if (e < 0)
        return lmo_fail(err, LMO_E_INVALID, "%s: not a private key: %s", files->key, gnutls_strerror(e));

    gnutls_pubkey_t public_key = NULL;
    unsigned char of_key[32], of_cert[32];
    size_t key_len = sizeof of_key, cert_len = sizeof of_cert;
    e = gnutls_pubkey_init(&public_key);
    if (e == 0)
        e = gnutls_pubkey_import_privkey(public_key, tls->key, 0, 0);
    if (e == 0)
        e = gnutls_pubkey_get_key_id(public_key, GNUTLS_KEYID_USE_SHA256, of_key, &key_len);
    if (e == 0)
        e = gnutls_pubkey_get_key_id(tls->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, of_cert, &cert_len);
    gnutls_pubkey_deinit(public_key);
    if (e < 0 || key_len != cert_len || memcmp(of_key, of_cert, key_len) != 0)
        return lmo_fail(err, LMO_E_INVALID, "%s is not the key of certificate %s", files->key, files->cert);
    return 0;
}

int lmo_server_tls_load(const struct lmo_tls_files *files, struct lmo_server_tls **ret_tls, struct lmo_err *err)
{
    struct lmo_server_tls *tls = calloc(1, sizeof *tls);
    if (!tls || gnutls_x509_trust_list_init(&tls->trust, 0) < 0) {
        free(tls);
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for certificates");
    }
    atomic_init(&tls->references, 1);
    int r = load_ca(tls, files->ca, err);
    if (r == 0 && files->crl[0])
        r = load_crl(tls, files->crl, err);
    if (r == 0)
        r = load_own(tls, files, err);
    if (r < 0) {
        lmo_server_tls_unref(tls);
        return r;
    }
    *ret_tls = tls;
    return 0;
}

struct lmo_server_tls *lmo_server_tls_ref(struct lmo_server_tls *tls)
{
    unsigned before = atomic_fetch_add(&tls->references, 1);
    lmo_assert(before > 0);
    return tls;
}

struct lmo_server_tls *lmo_server_tls_unref(struct lmo_server_tls *tls)
{
    if (!tls || atomic_fetch_sub(&tls->references, 1) != 1)
        return NULL;
    for (unsigned i = 0; i < tls->chain_count; i++)
        gnutls_pcert_deinit(&tls->chain[i]);
    gnutls_privkey_deinit(tls->key);
    gnutls_x509_trust_list_deinit(tls->trust, 1);
    free(tls);
    return NULL;
}

void lmo_server_tls_own(struct lmo_server_tls *tls, gnutls_pcert_st **ret_chain, unsigned *ret_count,
                        gnutls_privkey_t *ret_key)
{
    *ret_chain = tls->chain;
    *ret_count = tls->chain_count;
    *ret_key = tls->key;
}

/* The one URI urn:lmo:... of a certificate. */
static int read_identity(gnutls_x509_crt_t cert, struct lmo_identity *ret_identity, struct lmo_err *err)
{
    struct lmo_identity identity = {0};
    unsigned found = 0;
    for (unsigned i = 0; i < 64; i++) {
        char san[256];
        size_t size = sizeof san;
        int type = gnutls_x509_crt_get_subject_alt_name(cert, i, san, &size, NULL);
        if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
            break;
        if (type == GNUTLS_E_SHORT_MEMORY_BUFFER)
            return lmo_fail(err, LMO_E_UNAUTHENTICATED, "certificate has an alternative name that is too long");
        if (type != GNUTLS_SAN_URI || size >= sizeof san)
            continue;
        san[size] = '\0';
        if (strncmp(san, "urn:lmo:", 8) != 0)
            continue;
        if (strlen(san) != size || lmo_identity_parse_urn(san, &identity, err) < 0)
            return lmo_fail(err, LMO_E_UNAUTHENTICATED, "certificate URI is not urn:lmo:<role>:<name>");
        found++;
    }
    if (found != 1)
        return lmo_fail(err, LMO_E_UNAUTHENTICATED,
                        "certificate has %u URIs urn:lmo:<role>:<name>; it must have exactly one", found);
    *ret_identity = identity;
    return 0;
}

static void hex(const unsigned char *data, size_t len, char *ret_text)
{
    for (size_t i = 0; i < len; i++)
        snprintf(ret_text + 2 * i, 3, "%02x", data[i]);
}

static void read_marks(gnutls_x509_crt_t cert, struct lmo_identity *identity)
{
    unsigned char raw[64];
    size_t len = (LMO_SERIAL_MAX - 1) / 2;
    if (gnutls_x509_crt_get_serial(cert, raw, &len) == 0)
        hex(raw, len, identity->serial);
    len = sizeof raw;
    if (gnutls_x509_crt_get_fingerprint(cert, GNUTLS_DIG_SHA256, raw, &len) == 0 && len == 32)
        hex(raw, len, identity->fingerprint);
}

int lmo_tls_own_identity(const struct lmo_tls_files *files, struct lmo_identity *ret_identity, struct lmo_err *err)
{
    LMO_AUTO_FREE char *pem = NULL;
    gnutls_datum_t datum;
    gnutls_x509_crt_t *chain = NULL;
    unsigned count = 0;
    int r = read_pem(files->cert, &pem, &datum, err);
    if (r < 0)
        return r;
    int e = gnutls_x509_crt_list_import2(&chain, &count, &datum, GNUTLS_X509_FMT_PEM, 0);
    if (e < 0 || count == 0)
        return lmo_fail(err, LMO_E_INVALID, "%s: not a certificate: %s", files->cert, gnutls_strerror(e));
    struct lmo_identity identity = {0};
    r = read_identity(chain[0], &identity, err);
    if (r == 0) {
        read_marks(chain[0], &identity);
        *ret_identity = identity;
    } else {
        lmo_err_prefix(err, "%s", files->cert);
    }
    for (unsigned i = 0; i < count; i++)
        gnutls_x509_crt_deinit(chain[i]);
    gnutls_free(chain);
    return r;
}

static const char *reason_of(unsigned status)
{
    /* The most telling first: an unknown signer also sets "invalid". */
    return status & GNUTLS_CERT_REVOKED              ? "is revoked"
           : status & GNUTLS_CERT_SIGNER_NOT_FOUND   ? "was issued by an unknown CA"
           : status & GNUTLS_CERT_EXPIRED            ? "has expired"
           : status & GNUTLS_CERT_NOT_ACTIVATED      ? "is not valid yet"
           : status & GNUTLS_CERT_PURPOSE_MISMATCH   ? "is not for client authentication"
           : status & GNUTLS_CERT_SIGNATURE_FAILURE  ? "has a wrong signature"
           : status & GNUTLS_CERT_SIGNER_NOT_CA      ? "was issued by a certificate that is no CA"
           : status & GNUTLS_CERT_INSECURE_ALGORITHM ? "uses an insecure algorithm"
                                                     : "is not valid";
}

int lmo_server_tls_judge(struct lmo_server_tls *tls, gnutls_session_t session, struct lmo_identity *ret_identity,
                         struct lmo_err *err)
{
    unsigned count = 0;
    const gnutls_datum_t *raw = gnutls_certificate_get_peers(session, &count);
    if (!raw || count == 0)
        return lmo_fail(err, LMO_E_UNAUTHENTICATED, "a client certificate is required");
    if (count > LMO_TLS_CHAIN_MAX)
        return lmo_fail(err, LMO_E_UNAUTHENTICATED, "certificate chain of more than %d certificates",
                        LMO_TLS_CHAIN_MAX);
    gnutls_x509_crt_t chain[LMO_TLS_CHAIN_MAX];
    unsigned made = 0;
    int e = 0;
    while (made < count && e >= 0) {
        e = gnutls_x509_crt_init(&chain[made]);
        if (e < 0)
            break;
        e = gnutls_x509_crt_import(chain[made], &raw[made], GNUTLS_X509_FMT_DER);
        made++;
    }
    int r = e < 0 ? lmo_fail(err, LMO_E_UNAUTHENTICATED, "certificate cannot be read: %s", gnutls_strerror(e)) : 0;
    if (r == 0) {
        static char purpose[] = GNUTLS_KP_TLS_WWW_CLIENT;
        gnutls_typed_vdata_st wanted = {.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)purpose};
        unsigned status = 0;
        e = gnutls_x509_trust_list_verify_crt2(tls->trust, chain, count, &wanted, 1, 0, &status, NULL);
        struct lmo_identity who = {0};
        (void)read_identity(chain[0], &who, NULL); /* for the text only */
        if (e < 0)
            r = lmo_fail(err, LMO_E_UNAUTHENTICATED, "certificate cannot be verified: %s", gnutls_strerror(e));
        else if (status != 0)
            r = lmo_fail(err, LMO_E_UNAUTHENTICATED, "certificate of %s '%s' %s", lmo_role_name(who.role), who.name,
                         reason_of(status));
    }
    struct lmo_identity identity;
    if (r == 0)
        r = read_identity(chain[0], &identity, err);
    if (r == 0) {
        read_marks(chain[0], &identity);
        *ret_identity = identity;
    }
    for (unsigned i = 0; i < made; i++)
        gnutls_x509_crt_deinit(chain[i]);
    return r;
}
