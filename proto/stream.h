/* stream.h - a worker's event stream.
 *
 *   GET /v1/events?after=N&wait_ms=M   -> {"boot","next","events":[...],"progress":[...]}
 *
 * Long poll: answers at once when there are durable events with a number above N, or new progress samples (at most
 * the newest per migration), else when M ms have passed. `after=N` is also the acknowledgement: the coordinator has
 * committed everything up to N; the worker deletes those. At most LMO_STREAM_BATCH events an answer. The request
 * itself is the coordinator's sign of life for the dead-man timers. */
#ifndef LMO_PROTO_STREAM_H
#define LMO_PROTO_STREAM_H

#include "base/err.h"
#include "base/ops.h"

#include <jansson.h>

#define LMO_STREAM_BATCH 128
#define LMO_STREAM_BODY_MAX (1024U << 10)

json_t *lmo_worker_event_to_json(const struct lmo_worker_event *e);
int lmo_worker_event_from_json(const json_t *j, struct lmo_worker_event *ret, struct lmo_err *err) LMO_MUST_CHECK;

#endif
