/* spans.h - the trace of a migration, sent to a collector as OTLP over HTTP with JSON; shared by the engine's own files only. */
#ifndef LMO_ENGINE_SPANS_H
#define LMO_ENGINE_SPANS_H

#include "base/buf.h"
#include "engine/engine.h"

struct spans {
    char url[LMO_URL_MAX]; /* empty: no traces are exported */
    char service[LMO_NAME_MAX];
    struct batch *first, **last; /* encoded spans of one migration each, oldest first */
    unsigned waiting;            /* spans in there */
    struct lmo_buf body;         /* under way */
    unsigned in_body, attempts;
    uint64_t handle, timer;
};

#endif
