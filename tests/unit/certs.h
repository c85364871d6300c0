/* certs.h - throw-away certificates for tests: a CA, leaves with any URI, purpose and lifetime, revocation lists. */
#ifndef LMO_TESTS_UNIT_CERTS_H
#define LMO_TESTS_UNIT_CERTS_H

#include "http/tls.h"

struct test_ca; /* in memory; its certificate is in DIR/NAME.pem */

struct test_ca *test_ca_new(const char *dir, const char *name);
void test_ca_free(struct test_ca *ca);

struct test_leaf {
    const char *uri;     /* NULL: none */
    const char *uri2;    /* a second one */
    const char *purpose; /* OpenSSL's extendedKeyUsage; NULL: "clientAuth,serverAuth" */
    long from_s, to_s;   /* from now; both 0: an hour each way */
};
/* Writes DIR/FILE.pem and DIR/FILE.key (0600) and returns the serial. */
long test_ca_issue(struct test_ca *ca, const char *file, const struct test_leaf *leaf);
/* Writes DIR/NAME.crl with the given serial revoked (0: none), valid until `to_s` from now. */
void test_ca_crl(struct test_ca *ca, long serial, long to_s);

/* The four paths: DIR/CA.pem, DIR/CA.crl if with_crl, DIR/FILE.pem, DIR/FILE.key */
struct lmo_tls_files test_tls(const char *dir, const char *ca, const char *file, int with_crl);

#endif
