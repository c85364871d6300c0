/* outbound.h - calls to programs that are not ours: receivers of webhooks, guests' owners, collectors of traces. A port of the
 * engine, like those of ports.h; rpc/outbound.c is the one over libcurl. */
#ifndef LMO_ENGINE_OUTBOUND_H
#define LMO_ENGINE_OUTBOUND_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lmo_outbound_request {
    const char *url;
    const char *const *headers; /* "Name: value" strings ending with NULL; Content-Type is JSON */
    const char *body;           /* borrowed for the call */
    size_t len;
    uint32_t timeout_ms;
    bool ours; /* the coordinator's own configuration names the URL: any address, http:// too */
};
/* On the loop. code 0: an answer with `status`, whose body (cut at 16 KiB, terminated) is borrowed; else LMO_E_* and a text. */
typedef void lmo_outbound_done_fn(void *arg, int code, unsigned status, const char *body, const char *text);

struct lmo_outbound;
struct lmo_outbound_ops {
    /* POST. 0: `done` will be called exactly once, never inside this call, unless it is cancelled. */
    int (*post)(struct lmo_outbound *o, const struct lmo_outbound_request *r, lmo_outbound_done_fn *done, void *arg,
                uint64_t *ret_handle, struct lmo_err *err) LMO_MUST_CHECK;
    /* `done` will not be called; sets it to 0. The call may still be carried out over there. */
    void (*cancel)(struct lmo_outbound *o, uint64_t *handle);
    /* INVALID, beginning with "url: ", unless such a URL may be called. Any thread. */
    int (*check)(const struct lmo_outbound *o, const char *url, struct lmo_err *err) LMO_MUST_CHECK;
};
struct lmo_outbound {
    const struct lmo_outbound_ops *ops;
};

#endif
