/* ssl_util.c - see ssl_util.h. */
#include "pki/ssl_util.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <stdio.h>

int lmo_ssl_fail(struct lmo_err *err, int code, const char *fmt, ...)
{
    char what[LMO_ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    ERR_clear_error();
    return lmo_fail(err, code, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
}

void lmo_ssl_clear(void)
{
    ERR_clear_error();
}

bool lmo_ssl_is_pem_end(void)
{
    unsigned long e = ERR_peek_last_error();
    if (ERR_GET_LIB(e) != ERR_LIB_PEM || ERR_GET_REASON(e) != PEM_R_NO_START_LINE)
        return false;
    ERR_clear_error();
    return true;
}

int lmo_ssl_no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf, (void)size, (void)rwflag, (void)arg;
    return -1;
}
