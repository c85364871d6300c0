/* transport.h - requests to the coordinator over mutual TLS; the only place that knows lmo/http. */
#ifndef LMO_CLI_TRANSPORT_H
#define LMO_CLI_TRANSPORT_H

#include "cli/cli.h"

struct lmo_transport;

/* Strings are copied. INVALID names the option that is missing or wrong. */
struct lmo_transport_config {
    const char *url, *ca, *crl, *cert, *key; /* crl may be NULL; cert and key too, if there is a token */
    const char *token;                       /* sent as "Authorization: Bearer"; NULL or "": none */
};
/* `loop` is borrowed for the transport's life. */
int lmo_transport_open(struct lmo_loop *loop, const struct lmo_transport_config *config, struct lmo_transport **ret,
                       struct lmo_err *err) LMO_MUST_CHECK;
/* Takes t (NULL is fine), returns NULL. */
struct lmo_transport *lmo_transport_free(struct lmo_transport *t);

/* An lmo_cli_request_fn; `arg` is the transport. */
int lmo_transport_request(void *arg, const struct lmo_cli_call *call, struct lmo_cli_reply *ret_reply,
                          struct lmo_err *err) LMO_MUST_CHECK;

/* An answer that goes on: each piece is given to on_data as it comes; not 0 from there ends it. `idle_ms`: without a piece for
 * so long it is taken for broken. Returns when it has ended: 0 with *ret_reply, whose body is of a refusal only; CANCELLED when
 * on_data or whoever stopped the loop ended it; otherwise as http/client.h says. `last_event_id`: NULL or "" for none. */
typedef int lmo_transport_data_fn(void *arg, const char *data, size_t len);
int lmo_transport_follow(struct lmo_transport *t, const char *path, const char *last_event_id, uint64_t idle_ms,
                         lmo_transport_data_fn *on_data, void *arg, struct lmo_cli_reply *ret_reply,
                         struct lmo_err *err) LMO_MUST_CHECK;

#endif
