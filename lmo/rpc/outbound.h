/* outbound.h - engine/outbound.h over lmo/http's client. */
#ifndef LMO_RPC_OUTBOUND_H
#define LMO_RPC_OUTBOUND_H

#include "base/loop.h"
#include "base/types.h"
#include "engine/outbound.h"

struct lmo_outbound_config {
    char ca[LMO_PATH_MAX];      /* PEM file of CAs that receivers of webhooks are verified by; empty: the system's */
    char otlp_ca[LMO_PATH_MAX]; /* likewise of the collector of traces */
    bool allow_http;            /* webhooks and hooks to http:// URLs: unencrypted, though signed */
    bool allow_private;         /* ... and to addresses that are not public: loopback, private, link-local */
};
int lmo_outbound_open(struct lmo_loop *loop, const struct lmo_outbound_config *config, struct lmo_outbound **ret,
                      struct lmo_err *err) LMO_MUST_CHECK;
/* Takes o (NULL is fine), returns NULL. Calls under way are cancelled. */
struct lmo_outbound *lmo_outbound_close(struct lmo_outbound *o);
int lmo_outbound_reload(struct lmo_outbound *o, struct lmo_err *err) LMO_MUST_CHECK;

#endif
