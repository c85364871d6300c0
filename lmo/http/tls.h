/* tls.h - where a process finds its own certificate and whom it trusts. All files are PEM. */
#ifndef LMO_HTTP_TLS_H
#define LMO_HTTP_TLS_H

#include "base/types.h"

struct lmo_tls_files {
    char ca[LMO_PATH_MAX];   /* one or more CA certificates */
    char crl[LMO_PATH_MAX];  /* revocation lists of these CAs; empty: no revocation check */
    char cert[LMO_PATH_MAX]; /* own certificate, then intermediates */
    char key[LMO_PATH_MAX];  /* own private key; refused if others can read it */
};

#endif
