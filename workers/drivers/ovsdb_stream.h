/* ovsdb_stream.h - connecting to what Open vSwitch calls a remote: "unix:PATH", "tcp:HOST:PORT", "tcp:[V6]:PORT".
 *
 * Also used for OpenFlow's management socket. All waits end at a deadline or when `cancel_fd` becomes readable. */
#ifndef LMO_WORKERS_OVSDB_STREAM_H
#define LMO_WORKERS_OVSDB_STREAM_H

#include "base/err.h"

#include <stdint.h>

/* Connects; *ret_fd is owned by the caller, non-blocking and close-on-exec. INVALID for a remote of no known form,
 * UNSUPPORTED for ssl:, UNAVAILABLE when nobody answers, CANCELLED. `cancel_fd` may be -1. */
int lmo_ovsdb_stream_connect(const char *remote, uint64_t deadline_ns, int cancel_fd, int *ret_fd,
                             struct lmo_err *err) LMO_MUST_CHECK;
/* Is the text of a form that can be connected to at all? For refusing a broken configuration at open. */
int lmo_ovsdb_stream_check(const char *remote, struct lmo_err *err) LMO_MUST_CHECK;

#endif
