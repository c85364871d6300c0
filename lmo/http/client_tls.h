/* client_tls.h - our certificate and our trust as a client; OpenSSL, for libcurl. Private to lmo/http. */
#ifndef LMO_HTTP_CLIENT_TLS_H
#define LMO_HTTP_CLIENT_TLS_H

#include "base/err.h"
#include "http/identity.h"
#include "http/tls.h"

#include <openssl/ssl.h>

/* One load of the TLS files, immutable. Loaded once and shared by all connections: libcurl makes an SSL_CTX per
 * connection, reading files each time would cost milliseconds. */
struct lmo_client_tls;

int lmo_client_tls_load(const struct lmo_tls_files *files, struct lmo_client_tls **ret_tls,
                        struct lmo_err *err) LMO_MUST_CHECK;
/* For calls to others: trust alone. `ca` empty: the system's. */
int lmo_client_tls_load_outside(const char *ca, struct lmo_client_tls **ret_tls, struct lmo_err *err) LMO_MUST_CHECK;
/* Takes tls (NULL is fine), returns NULL. */
struct lmo_client_tls *lmo_client_tls_free(struct lmo_client_tls *tls);

/* Puts certificate, key, trust and verification into a new SSL_CTX. */
int lmo_client_tls_apply(struct lmo_client_tls *tls, SSL_CTX *ctx) LMO_MUST_CHECK;

/* Who the server of an established, verified session is; UNAUTHENTICATED if its certificate has no identity. */
int lmo_client_tls_peer(const SSL *ssl, struct lmo_identity *ret_identity, struct lmo_err *err) LMO_MUST_CHECK;

#endif
