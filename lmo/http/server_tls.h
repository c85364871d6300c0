/* server_tls.h - the listener's own certificate and its judgement of a client's; GnuTLS. Private to lmo/http. */
#ifndef LMO_HTTP_SERVER_TLS_H
#define LMO_HTTP_SERVER_TLS_H

#include "base/err.h"
#include "http/identity.h"
#include "http/tls.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

#define LMO_TLS_CHAIN_MAX 8

/* One load of the TLS files; immutable, shared by reference count (connections hold the one they began with). */
struct lmo_server_tls;

int lmo_server_tls_load(const struct lmo_tls_files *files, struct lmo_server_tls **ret_tls,
                        struct lmo_err *err) LMO_MUST_CHECK;
struct lmo_server_tls *lmo_server_tls_ref(struct lmo_server_tls *tls);
/* Takes one reference (NULL is fine), returns NULL. Thread-safe. */
struct lmo_server_tls *lmo_server_tls_unref(struct lmo_server_tls *tls);

/* Own certificate chain and key; borrowed from tls. */
void lmo_server_tls_own(struct lmo_server_tls *tls, gnutls_pcert_st **ret_chain, unsigned *ret_count,
                        gnutls_privkey_t *ret_key);

/* Judges the peer's certificate of an established session against `tls`. 0, or UNAUTHENTICATED with the reason. */
int lmo_server_tls_judge(struct lmo_server_tls *tls, gnutls_session_t session, struct lmo_identity *ret_identity,
                         struct lmo_err *err) LMO_MUST_CHECK;

#endif
