/* certs.c - see certs.h. Any failure aborts: there is no test without certificates. */
#include "certs.h"
#include "base/assert.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct test_ca {
    char dir[128], name[32];
    X509 *cert;
    EVP_PKEY *key;
    long next_serial, crl_number;
};

static void path_of(const struct test_ca *ca, const char *file, const char *suffix, char ret_path[256])
{
    snprintf(ret_path, 256, "%s/%s.%s", ca->dir, file, suffix);
}

static void write_pem(const char *path, X509 *cert, EVP_PKEY *key, X509_CRL *crl)
{
    char temporary[272];
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *f = fopen(temporary, "w");
    lmo_assert(f);
    lmo_assert(chmod(temporary, key ? 0600 : 0644) == 0);
    lmo_assert((!cert || PEM_write_X509(f, cert)) &&
               (!key || PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL)) &&
               (!crl || PEM_write_X509_CRL(f, crl)));
    lmo_assert(fclose(f) == 0 && rename(temporary, path) == 0);
}

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    lmo_assert(ext && X509_add_ext(cert, ext, -1));
    X509_EXTENSION_free(ext);
}

static X509 *new_cert(EVP_PKEY *key, const char *cn, long serial, long from_s, long to_s)
{
    X509 *cert = X509_new();
    lmo_assert(cert && X509_set_version(cert, 2) && ASN1_INTEGER_set(X509_get_serialNumber(cert), serial));
    lmo_assert(X509_gmtime_adj(X509_getm_notBefore(cert), from_s) && X509_gmtime_adj(X509_getm_notAfter(cert), to_s));
    lmo_assert(X509_set_pubkey(cert, key));
    lmo_assert(X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)cn,
                                          -1, -1, 0));
    return cert;
}

struct test_ca *test_ca_new(const char *dir, const char *name)
{
    struct test_ca *ca = calloc(1, sizeof *ca);
    char path[256];
    lmo_assert(ca);
    snprintf(ca->dir, sizeof ca->dir, "%s", dir);
    snprintf(ca->name, sizeof ca->name, "%s", name);
    ca->key = EVP_EC_gen("P-256");
    ca->next_serial = 100;
    ca->cert = new_cert(ca->key, name, 1, -86400, 86400);
    lmo_assert(X509_set_issuer_name(ca->cert, X509_get_subject_name(ca->cert)));
    add_extension(ca->cert, ca->cert, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(ca->cert, ca->cert, NID_key_usage, "critical,keyCertSign,cRLSign");
    add_extension(ca->cert, ca->cert, NID_subject_key_identifier, "hash");
    lmo_assert(X509_sign(ca->cert, ca->key, EVP_sha256()));
    path_of(ca, name, "pem", path);
    write_pem(path, ca->cert, NULL, NULL);
    return ca;
}

void test_ca_free(struct test_ca *ca)
{
    if (ca) {
        X509_free(ca->cert);
        EVP_PKEY_free(ca->key);
        free(ca);
    }
}

long test_ca_issue(struct test_ca *ca, const char *file, const struct test_leaf *leaf)
{
    char path[256], san[512];
    long serial = ca->next_serial++;
    bool default_time = leaf->from_s == 0 && leaf->to_s == 0;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = new_cert(key, file, serial, default_time ? -3600 : leaf->from_s, default_time ? 3600 : leaf->to_s);
    lmo_assert(X509_set_issuer_name(cert, X509_get_subject_name(ca->cert)));
    add_extension(cert, ca->cert, NID_basic_constraints, "critical,CA:FALSE");
    add_extension(cert, ca->cert, NID_key_usage, "critical,digitalSignature");
    add_extension(cert, ca->cert, NID_ext_key_usage, leaf->purpose ? leaf->purpose : "clientAuth,serverAuth");
    add_extension(cert, ca->cert, NID_authority_key_identifier, "keyid");
    if (leaf->uri) {
        snprintf(san, sizeof san, "URI:%s%s%s", leaf->uri, leaf->uri2 ? ",URI:" : "", leaf->uri2 ? leaf->uri2 : "");
        add_extension(cert, ca->cert, NID_subject_alt_name, san);
    }
    lmo_assert(X509_sign(cert, ca->key, EVP_sha256()));
    path_of(ca, file, "pem", path);
    write_pem(path, cert, NULL, NULL);
    path_of(ca, file, "key", path);
    write_pem(path, NULL, key, NULL);
    X509_free(cert);
    EVP_PKEY_free(key);
    return serial;
}

void test_ca_crl(struct test_ca *ca, long serial, long to_s)
{
    char path[256];
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, -7200), *next = X509_gmtime_adj(NULL, to_s);
    lmo_assert(crl && X509_CRL_set_version(crl, 1) && X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->cert)));
    lmo_assert(X509_CRL_set1_lastUpdate(crl, now) && X509_CRL_set1_nextUpdate(crl, next));
    ASN1_INTEGER *number = ASN1_INTEGER_new();
    lmo_assert(number && ASN1_INTEGER_set(number, ++ca->crl_number) &&
               X509_CRL_add1_ext_i2d(crl, NID_crl_number, number, 0, 0));
    ASN1_INTEGER_free(number);
    if (serial) {
        X509_REVOKED *revoked = X509_REVOKED_new();
        ASN1_INTEGER *which = ASN1_INTEGER_new();
        lmo_assert(revoked && which && ASN1_INTEGER_set(which, serial) &&
                   X509_REVOKED_set_serialNumber(revoked, which) && X509_REVOKED_set_revocationDate(revoked, now) &&
                   X509_CRL_add0_revoked(crl, revoked));
        ASN1_INTEGER_free(which);
    }
    lmo_assert(X509_CRL_sort(crl) && X509_CRL_sign(crl, ca->key, EVP_sha256()));
    path_of(ca, ca->name, "crl", path);
    write_pem(path, NULL, NULL, crl);
    ASN1_TIME_free(now);
    ASN1_TIME_free(next);
    X509_CRL_free(crl);
}

struct lmo_tls_files test_tls(const char *dir, const char *ca, const char *file, int with_crl)
{
    struct lmo_tls_files files = {0};
    snprintf(files.ca, sizeof files.ca, "%s/%s.pem", dir, ca);
    if (with_crl)
        snprintf(files.crl, sizeof files.crl, "%s/%s.crl", dir, ca);
    snprintf(files.cert, sizeof files.cert, "%s/%s.pem", dir, file);
    snprintf(files.key, sizeof files.key, "%s/%s.key", dir, file);
    return files;
}
