/* ssl_util.h - the few manners that this directory needs with OpenSSL's error queue. Private to lmo/pki. */
#ifndef LMO_PKI_SSL_UTIL_H
#define LMO_PKI_SSL_UTIL_H

#include "base/err.h"

#include <stdbool.h>

/* lmo_fail with OpenSSL's first reason appended; empties the calling thread's queue. */
int lmo_ssl_fail(struct lmo_err *err, int code, const char *fmt, ...) LMO_PRINTF(3, 4);
void lmo_ssl_clear(void);
/* Did the last PEM_read_* stop only because there is no further PEM block? Empties the queue if so. */
bool lmo_ssl_is_pem_end(void);
/* A pem_password_cb that refuses: nothing here may ever ask a terminal. */
int lmo_ssl_no_passphrase(char *buf, int size, int rwflag, void *arg);

#endif
