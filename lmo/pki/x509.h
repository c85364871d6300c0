/* x509.h - keys, certificates and revocation lists as OpenSSL objects and as PEM. No files. Private to lmo/pki.
 *
 * Profile (docs/pki.md): EC P-256 with SHA-256; subject O=LMO, OU=<role>, UID=<name> and no CN, because TLS libraries
 * take a CN for a host name when a certificate has no DNS SAN; identity = URI SAN urn:lmo:<role>:<name>. */
#ifndef LMO_PKI_X509_H
#define LMO_PKI_X509_H

#include "base/cleanup.h"
#include "pki/ca.h"
#include "pki/index.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

static inline void lmo_cleanup_pkey(EVP_PKEY **k)
{
    EVP_PKEY_free(*k);
}
static inline void lmo_cleanup_x509(X509 **c)
{
    X509_free(*c);
}
static inline void lmo_cleanup_crl(X509_CRL **c)
{
    X509_CRL_free(*c);
}
#define LMO_AUTO_PKEY LMO_CLEANUP(lmo_cleanup_pkey)
#define LMO_AUTO_X509 LMO_CLEANUP(lmo_cleanup_x509)
#define LMO_AUTO_CRL  LMO_CLEANUP(lmo_cleanup_crl)

/* `ed25519`: for permits; else EC P-256. All *ret are owned by the caller. */
int lmo_x509_new_key(bool ed25519, EVP_PKEY **ret, struct lmo_err *err) LMO_MUST_CHECK;

int lmo_x509_new_ca(EVP_PKEY *key, int64_t now_s, X509 **ret, struct lmo_err *err) LMO_MUST_CHECK;

/* 32 hex digits, the first from 4 to 7: 127 bits with the highest one set, so that the number has one spelling. */
void lmo_x509_new_serial(char ret_serial[LMO_PKI_SERIAL_MAX]);

/* `entry` gives serial, identity and times, `request` the addresses. */
int lmo_x509_new_leaf(X509 *ca, EVP_PKEY *ca_key, EVP_PKEY *key, const struct lmo_pki_entry *entry,
                      const struct lmo_pki_request *request, X509 **ret, struct lmo_err *err) LMO_MUST_CHECK;

int lmo_x509_new_crl(X509 *ca, EVP_PKEY *ca_key, const struct lmo_pki_index *index, int64_t now_s, X509_CRL **ret,
                     struct lmo_err *err) LMO_MUST_CHECK;

/* INVALID unless `address` is an IP address or a DNS name without wildcard. */
int lmo_x509_check_address(const char *address, struct lmo_err *err) LMO_MUST_CHECK;
/* The IP and DNS SANs of a certificate into request->addresses; what does not fit is an error. */
int lmo_x509_copy_addresses(X509 *cert, struct lmo_pki_request *request, struct lmo_err *err) LMO_MUST_CHECK;

int lmo_x509_time(const ASN1_TIME *t, int64_t *ret_s, struct lmo_err *err) LMO_MUST_CHECK;

/* *ret_pem is owned by the caller, terminated; private keys: PKCS 8, no passphrase. */
enum lmo_pem_kind { LMO_PEM_PRIVATE = 1, LMO_PEM_PUBLIC, LMO_PEM_CERTIFICATE, LMO_PEM_CRL };
int lmo_x509_to_pem(enum lmo_pem_kind kind, void *object, char **ret_pem, size_t *ret_len,
                    struct lmo_err *err) LMO_MUST_CHECK;

#endif
