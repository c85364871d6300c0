/* x509.c - see x509.h. */
#include "pki/x509.h"
#include "base/id.h"
#include "pki/ssl_util.h"

#include <arpa/inet.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#define CRL_KEEP_SECONDS (7LL * 86400) /* how long an expired certificate stays in the CRL: clocks differ */

int lmo_x509_new_key(bool ed25519, EVP_PKEY **ret, struct lmo_err *err)
{
    EVP_PKEY *k = ed25519 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519") : EVP_EC_gen("P-256");
    if (!k)
        return lmo_ssl_fail(err, LMO_E_INTERNAL, "cannot make a key");
    *ret = k;
    return 0;
}

void lmo_x509_new_serial(char ret_serial[LMO_PKI_SERIAL_MAX])
{
    unsigned char raw[16];
    lmo_random(raw, sizeof raw);
    raw[0] = (unsigned char)((raw[0] & 0x7f) | 0x40);
    for (size_t i = 0; i < sizeof raw; i++)
        snprintf(ret_serial + 2 * i, 3, "%02x", raw[i]);
}

static bool set_serial(ASN1_INTEGER *to, const char *hex)
{
    BIGNUM *bn = NULL;
    bool ok = BN_hex2bn(&bn, hex) > 0 && BN_to_ASN1_INTEGER(bn, to);
    BN_free(bn);
    return ok;
}

static bool add_name(X509_NAME *n, const char *field, const char *text)
{
    return X509_NAME_add_entry_by_txt(n, field, MBSTRING_ASC, (const unsigned char *)text, -1, -1, 0) == 1;
}

/* Constant texts only: this goes through OpenSSL's configuration syntax. */
static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = e && X509_add_ext(cert, e, -1) == 1;
    X509_EXTENSION_free(e);
    return ok;
}

static bool set_times(X509 *cert, int64_t not_before_s, int64_t not_after_s)
{
    return ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)not_before_s) &&
           ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)not_after_s);
}

int lmo_x509_new_ca(EVP_PKEY *key, int64_t now_s, X509 **ret, struct lmo_err *err)
{
    char serial[LMO_PKI_SERIAL_MAX], name[LMO_PKI_SERIAL_MAX + 8];
    lmo_x509_new_serial(serial);
    /* A name of its own for each CA: two that share a name confuse whoever trusts both during a change of CA. */
    snprintf(name, sizeof name, "CA %.8s", serial);
    LMO_AUTO_X509 X509 *c = X509_new();
    bool ok = c && X509_set_version(c, X509_VERSION_3) && set_serial(X509_get_serialNumber(c), serial) &&
              add_name(X509_get_subject_name(c), "O", "LMO") && add_name(X509_get_subject_name(c), "CN", name) &&
              X509_set_issuer_name(c, X509_get_subject_name(c)) && X509_set_pubkey(c, key) &&
              set_times(c, now_s - LMO_PKI_BACKDATE_SECONDS, now_s + LMO_PKI_CA_DAYS * 86400LL) &&
              add_extension(c, c, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
              add_extension(c, c, NID_key_usage, "critical,keyCertSign,cRLSign") &&
              add_extension(c, c, NID_subject_key_identifier, "hash") &&
              add_extension(c, c, NID_authority_key_identifier, "keyid:always") && X509_sign(c, key, EVP_sha256()) > 0;
    if (!ok)
        return lmo_ssl_fail(err, LMO_E_INTERNAL, "cannot make the CA certificate");
    *ret = LMO_TAKE(c);
    return 0;
}

static bool dns_valid(const char *s)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t len = strnlen(s, LMO_PKI_DNS_MAX), label = 0;
    if (len == 0 || len >= LMO_PKI_DNS_MAX || strspn(s, allowed) != len)
        return false;
    if (strspn(s, "0123456789.") == len)
        return false; /* a mistyped IPv4 address, not a name */
    for (const char *p = s; *p; p++) {
        label = *p == '.' ? 0 : label + 1;
        if (label > 63 || (*p == '.' && (p == s || p[-1] == '.' || p[-1] == '-')) || (label == 1 && *p == '-'))
            return false;
    }
    return s[len - 1] != '.' && s[len - 1] != '-';
}

/* Bytes of an IP address in network order; 0: not one. */
static int ip_bytes(const char *address, unsigned char ret[16])
{
    if (inet_pton(AF_INET, address, ret) == 1)
        return 4;
    return inet_pton(AF_INET6, address, ret) == 1 ? 16 : 0;
}

int lmo_x509_check_address(const char *address, struct lmo_err *err)
{
    unsigned char ip[16];
    if (ip_bytes(address, ip) > 0 || dns_valid(address))
        return 0;
    return lmo_fail(err, LMO_E_INVALID, "address \"%s\": neither an IP address nor a DNS name", address);
}

static bool push_name(GENERAL_NAMES *names, int type, const void *data, int len)
{
    GENERAL_NAME *g = GENERAL_NAME_new();
    ASN1_STRING *s = type == GEN_IPADD ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();
    if (!g || !s || !ASN1_STRING_set(s, data, len)) {
        GENERAL_NAME_free(g);
        ASN1_STRING_free(s);
        return false;
    }
    GENERAL_NAME_set0_value(g, type, s);
    if (sk_GENERAL_NAME_push(names, g) > 0)
        return true;
    GENERAL_NAME_free(g);
    return false;
}

static bool add_subject_names(X509 *cert, const struct lmo_pki_request *request)
{
    char urn[LMO_URN_MAX];
    lmo_identity_format_urn(request->role, request->name, urn);
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    bool ok = names && push_name(names, GEN_URI, urn, (int)strlen(urn));
    for (unsigned i = 0; ok && i < request->address_count; i++) {
        unsigned char ip[16];
        const char *a = request->addresses[i];
        int bytes = ip_bytes(a, ip);
        ok = bytes > 0 ? push_name(names, GEN_IPADD, ip, bytes) : push_name(names, GEN_DNS, a, (int)strlen(a));
    }
    ok = ok && X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(names);
    return ok;
}

int lmo_x509_new_leaf(X509 *ca, EVP_PKEY *ca_key, EVP_PKEY *key, const struct lmo_pki_entry *entry,
                      const struct lmo_pki_request *request, X509 **ret, struct lmo_err *err)
{
    /* Only what is dialled may serve: a stolen operator's key must not pose as a coordinator, not even to a client
     * that forgets to look at the role. */
    bool server = request->role == LMO_ROLE_COORDINATOR || request->role == LMO_ROLE_WORKER;
    LMO_AUTO_X509 X509 *c = X509_new();
    bool ok = c && X509_set_version(c, X509_VERSION_3) && set_serial(X509_get_serialNumber(c), entry->serial) &&
              add_name(X509_get_subject_name(c), "O", "LMO") &&
              add_name(X509_get_subject_name(c), "OU", lmo_role_name(request->role)) &&
              add_name(X509_get_subject_name(c), "UID", request->name) &&
              X509_set_issuer_name(c, X509_get_subject_name(ca)) && X509_set_pubkey(c, key) &&
              set_times(c, entry->not_before_s, entry->not_after_s) &&
              add_extension(c, ca, NID_basic_constraints, "critical,CA:FALSE") &&
              add_extension(c, ca, NID_key_usage,
                            request->hypervisor ? "critical,digitalSignature,keyEncipherment"
                                                : "critical,digitalSignature") &&
              add_extension(c, ca, NID_ext_key_usage, server ? "serverAuth,clientAuth" : "clientAuth") &&
              add_extension(c, ca, NID_subject_key_identifier, "hash") &&
              add_extension(c, ca, NID_authority_key_identifier, "keyid:always") && add_subject_names(c, request) &&
              X509_sign(c, ca_key, EVP_sha256()) > 0;
    if (!ok)
        return lmo_ssl_fail(err, LMO_E_INTERNAL, "cannot make the certificate");
    *ret = LMO_TAKE(c);
    return 0;
}

static bool crl_add_entry(X509_CRL *crl, const struct lmo_pki_entry *e)
{
    X509_REVOKED *r = X509_REVOKED_new();
    ASN1_INTEGER *serial = ASN1_INTEGER_new();
    ASN1_TIME *at = ASN1_TIME_set(NULL, (time_t)e->revoked_s);
    bool ok = r && serial && at && set_serial(serial, e->serial) && X509_REVOKED_set_serialNumber(r, serial) &&
              X509_REVOKED_set_revocationDate(r, at) && X509_CRL_add0_revoked(crl, r);
    if (!ok)
        X509_REVOKED_free(r);
    ASN1_INTEGER_free(serial);
    ASN1_TIME_free(at);
    return ok;
}

static bool crl_add_extensions(X509_CRL *crl, X509 *ca, uint64_t number)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, ca, NULL, NULL, crl, 0);
    X509_EXTENSION *aki = X509V3_EXT_conf_nid(NULL, &ctx, NID_authority_key_identifier, "keyid:always");
    ASN1_INTEGER *n = ASN1_INTEGER_new();
    bool ok = aki && n && X509_CRL_add_ext(crl, aki, -1) && ASN1_INTEGER_set_uint64(n, number) &&
              X509_CRL_add1_ext_i2d(crl, NID_crl_number, n, 0, X509V3_ADD_DEFAULT) == 1;
    X509_EXTENSION_free(aki);
    ASN1_INTEGER_free(n);
    return ok;
}

int lmo_x509_new_crl(X509 *ca, EVP_PKEY *ca_key, const struct lmo_pki_index *index, int64_t now_s, X509_CRL **ret,
                     struct lmo_err *err)
{
    LMO_AUTO_CRL X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *last = ASN1_TIME_set(NULL, (time_t)(now_s - LMO_PKI_BACKDATE_SECONDS));
    ASN1_TIME *next = ASN1_TIME_set(NULL, (time_t)(now_s + LMO_PKI_CRL_SECONDS));
    bool ok = crl && last && next && X509_CRL_set_version(crl, X509_CRL_VERSION_2) &&
              X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca)) && X509_CRL_set1_lastUpdate(crl, last) &&
              X509_CRL_set1_nextUpdate(crl, next);
    ASN1_TIME_free(last);
    ASN1_TIME_free(next);
    for (size_t i = 0; ok && i < index->count; i++) {
        const struct lmo_pki_entry *e = &index->entries[i];
        if (e->revoked_s != 0 && e->not_after_s + CRL_KEEP_SECONDS > now_s)
            ok = crl_add_entry(crl, e);
    }
    ok = ok && crl_add_extensions(crl, ca, index->crl_number) && X509_CRL_sort(crl) &&
         X509_CRL_sign(crl, ca_key, EVP_sha256()) > 0;
    if (!ok)
        return lmo_ssl_fail(err, LMO_E_INTERNAL, "cannot make the revocation list");
    *ret = LMO_TAKE(crl);
    return 0;
}

/* One IP or DNS name as text; false: another kind of name, or one that does not fit. */
static bool address_text(const GENERAL_NAME *g, char ret[LMO_PKI_DNS_MAX], bool *ret_other)
{
    int type = 0;
    const ASN1_STRING *s = GENERAL_NAME_get0_value(g, &type);
    *ret_other = type != GEN_IPADD && type != GEN_DNS;
    if (*ret_other)
        return false;
    const unsigned char *data = ASN1_STRING_get0_data(s);
    size_t len = (size_t)ASN1_STRING_length(s);
    if (type == GEN_IPADD) {
        int family = len == 4 ? AF_INET : AF_INET6;
        return (len == 4 || len == 16) && inet_ntop(family, data, ret, LMO_PKI_DNS_MAX);
    }
    if (len >= LMO_PKI_DNS_MAX || memchr(data, '\0', len))
        return false;
    memcpy(ret, data, len);
    ret[len] = '\0';
    return dns_valid(ret);
}

int lmo_x509_copy_addresses(X509 *cert, struct lmo_pki_request *request, struct lmo_err *err)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    bool ok = true;
    for (int i = 0; ok && i < sk_GENERAL_NAME_num(names); i++) {
        char text[LMO_PKI_DNS_MAX];
        bool other = false;
        if (!address_text(sk_GENERAL_NAME_value(names, i), text, &other)) {
            ok = other;
            continue;
        }
        ok = request->address_count < LMO_PKI_ADDRESSES_MAX;
        if (ok)
            memcpy(request->addresses[request->address_count++], text, sizeof text);
    }
    GENERAL_NAMES_free(names);
    if (!ok)
        return lmo_fail(err, LMO_E_INVALID, "addresses of the present certificate cannot be kept: name them all");
    return 0;
}

int lmo_x509_time(const ASN1_TIME *t, int64_t *ret_s, struct lmo_err *err)
{
    struct tm tm;
    if (!t || ASN1_TIME_to_tm(t, &tm) != 1)
        return lmo_ssl_fail(err, LMO_E_CORRUPT, "not a time");
    *ret_s = timegm(&tm);
    return 0;
}

int lmo_x509_to_pem(enum lmo_pem_kind kind, void *object, char **ret_pem, size_t *ret_len, struct lmo_err *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int ok = 0;
    switch (bio ? kind : 0) {
    case LMO_PEM_PRIVATE: ok = PEM_write_bio_PKCS8PrivateKey(bio, object, NULL, NULL, 0, NULL, NULL); break;
    case LMO_PEM_PUBLIC: ok = PEM_write_bio_PUBKEY(bio, object); break;
    case LMO_PEM_CERTIFICATE: ok = PEM_write_bio_X509(bio, object); break;
    case LMO_PEM_CRL: ok = PEM_write_bio_X509_CRL(bio, object); break;
    default: break;
    }
    char *data = NULL;
    long len = ok == 1 ? BIO_get_mem_data(bio, &data) : 0;
    char *pem = len > 0 ? strndup(data, (size_t)len) : NULL;
    if (data && kind == LMO_PEM_PRIVATE)
        OPENSSL_cleanse(data, (size_t)len);
    BIO_free(bio);
    if (!pem)
        return lmo_ssl_fail(err, LMO_E_INTERNAL, "cannot write PEM");
    *ret_pem = pem;
    *ret_len = (size_t)len;
    return 0;
}
