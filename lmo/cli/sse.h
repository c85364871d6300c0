/* sse.h - server-sent events, as pieces of any size come in (WHATWG HTML, "Interpreting an event stream"). Pure. */
#ifndef LMO_CLI_SSE_H
#define LMO_CLI_SSE_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

#define LMO_SSE_LINE_MAX ((size_t)256 * 1024) /* what is longer is dropped; the block's other lines count */

/* Borrowed for the length of the callback. `type` and `data` are "" for a block that only says where the stream stands. */
typedef void lmo_sse_fn(void *arg, const char *type, const char *data);

/* Zero-initialise but for fn and arg; release with lmo_sse_release. */
struct lmo_sse {
    lmo_sse_fn *fn;
    void *arg;
    char last_id[64]; /* of the last block that was complete: with this one the stream is resumed; "" none */
    /* the block under way */
    char id[64], type[64];
    bool any, too_long;
    struct lmo_buf line, data;
};
void lmo_sse_feed(struct lmo_sse *s, const char *data, size_t len);
/* A new connection: what was half read is forgotten, the last id is not. */
void lmo_sse_restart(struct lmo_sse *s);
void lmo_sse_release(struct lmo_sse *s);

#endif
