/* tls.h - where a process finds its own certificate and whom it trusts. All files are PEM. */
#ifndef LMO_HTTP_TLS_H
#define LMO_HTTP_TLS_H

#include "base/err.h"
#include "base/types.h"
#include "http/identity.h"

struct lmo_tls_files {
    char ca[LMO_PATH_MAX];   /* one or more CA certificates */
    char crl[LMO_PATH_MAX];  /* revocation lists of these CAs; empty: no revocation check */
    char cert[LMO_PATH_MAX]; /* own certificate, then intermediates */
    char key[LMO_PATH_MAX];  /* own private key; refused if others can read it */
};

/* Whom the own certificate names, as the others will read it. Says nothing about whether they will believe it. */
int lmo_tls_own_identity(const struct lmo_tls_files *files, struct lmo_identity *ret_identity,
                         struct lmo_err *err) LMO_MUST_CHECK;

#endif
