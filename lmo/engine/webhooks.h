/* webhooks.h - shared by the engine's own files only: webhooks.c, webhook_requests.c, hook_requests.c, notice.c. */
#ifndef LMO_ENGINE_WEBHOOKS_H
#define LMO_ENGINE_WEBHOOKS_H

#include "engine/engine.h"

#define LMO_ROTATION_MS (INT64_C(24) * 3600 * 1000) /* how long an old secret signs too */

struct webhook {
    struct webhook *next;
    struct lmo_engine *engine;
    struct lmo_webhook_row row;
    struct delivery *deliveries; /* waiting or under way, by number; letters among them */
    unsigned count, under_way;
    uint64_t read;    /* events up to here are delivered, among the deliveries, or not asked for */
    uint64_t gate_ns; /* nothing is sent before */
    uint64_t timer, timer_ns, save_timer;
    bool held_up; /* reading on ended before the log did */
    bool dirty;   /* the stored row is older */
    bool letters; /* there may be dead letters that are wanted */
};

struct webhook *engine_webhook(struct lmo_engine *e, const char *id);
struct webhook *engine_webhook_add(struct lmo_engine *e, const struct lmo_webhook_row *row);
void engine_webhook_remove(struct lmo_engine *e, struct webhook *w);
/* Its URL, filter or state is another, or letters are wanted: begins anew at its cursor. */
void engine_webhook_restart(struct webhook *w);

struct request;
/* May this coordinator call that URL? False: the request was refused. */
bool engine_url_is_good(struct request *r, const char *url);

struct signed_call {
    const char *url, *secret, *old_secret;
    int64_t old_until_ms;
    const char *id; /* webhook-id */
    const char *body;
    const char *traceparent; /* a whole header line, or NULL */
};
int engine_post_signed(struct lmo_engine *e, const struct signed_call *c, lmo_outbound_done_fn *done, void *arg,
                       uint64_t *ret_handle, struct lmo_err *err) LMO_MUST_CHECK;

#endif
