/* workers.h - the coordinator's way to its workers: `struct lmo_workers_ops` of engine/ports.h over mutual TLS. */
#ifndef LMO_RPC_WORKERS_H
#define LMO_RPC_WORKERS_H

#include "base/err.h"
#include "base/loop.h"
#include "engine/ports.h"
#include "http/tls.h"

/* The loop is borrowed and must outlive *ret; the callbacks are copied. Every call, and every callback, on its
 * thread. */
int lmo_workers_http_open(struct lmo_loop *loop, const struct lmo_tls_files *tls,
                          const struct lmo_workers_callbacks *cb, struct lmo_workers **ret,
                          struct lmo_err *err) LMO_MUST_CHECK;

/* The coordinator's term: goes with every request from now on. Before the first host is added. */
void lmo_workers_http_set_term(struct lmo_workers *w, uint64_t term);

/* Reads the TLS files again, for new connections; on failure the old ones stay in force. */
int lmo_workers_http_reload(struct lmo_workers *w, struct lmo_err *err) LMO_MUST_CHECK;

#endif
