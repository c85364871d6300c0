/* webhook.h - secrets and signatures as the Standard Webhooks specification 1.0.0 has them: the symmetric scheme, v1. */
#ifndef LMO_PKI_WEBHOOK_H
#define LMO_PKI_WEBHOOK_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define LMO_WEBHOOK_SECRET_MAX     96  /* "whsec_", base64 of 24 to 64 bytes, the terminator */
#define LMO_WEBHOOK_SIGNATURES_MAX 128 /* two of them */

/* A new secret of 32 random bytes. */
void lmo_webhook_secret_new(char ret[LMO_WEBHOOK_SECRET_MAX]);
/* What goes into the header webhook-signature: a signature with `secret` and, unless that is empty, one with `old_secret`. `id`
 * has no full stop. INVALID for what is no secret. */
int lmo_webhook_sign(const char *secret, const char *old_secret, const char *id, int64_t timestamp_s, const char *body,
                     size_t len, char ret[LMO_WEBHOOK_SIGNATURES_MAX], struct lmo_err *err) LMO_MUST_CHECK;

#endif
