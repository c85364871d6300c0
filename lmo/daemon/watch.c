/* watch.c - see watch.h. */
#include "daemon/watch.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/service.h"

#include <stdio.h>

#define LOOK_MS 1000

static void show(const struct lmo_engine_status *s)
{
    char needs[64] = "", store[LMO_TEXT_MAX + 64] = "";
    if (s->attention > 0) {
        (void)snprintf(needs, sizeof needs, " (%u of them %s a person)", s->attention,
                       s->attention == 1 ? "needs" : "need");
    }
    if (s->observing) {
        (void)snprintf(store, sizeof store, "; ONLY OBSERVES since its store was restored: lmo restore --activate");
    }
    if (s->store_code) {
        (void)snprintf(store, sizeof store, "; NOTHING IS DONE, the store cannot be written: %s", s->store_why);
    }
    lmo_service_status("%u open migration%s%s, %u of %u hosts up%s", s->open, s->open == 1 ? "" : "s", needs,
                       s->hosts_up, s->hosts, store);
}

static void beat(struct lmo_watch *w)
{
    struct lmo_err err = {0};
    int r = lmo_engine_beat(w->engine, &err);
    if (r == 0 || r == LMO_E_NO_SPACE) {
        lmo_service_alive();
    } else {
        lmo_log(LMO_LOG_ERROR, "the watchdog is not fed: the store does not commit", "code=%s why=%s", lmo_err_name(r),
                err.text);
    }
    w->beat_due_ns = lmo_now_ns() + w->beat_ms * LMO_NS_PER_MS;
}

static void look(void *arg)
{
    struct lmo_watch *w = arg;
    struct lmo_engine_status status;
    w->timer = 0;
    lmo_engine_status(w->engine, &status);
    show(&status);
    if (w->beat_ms > 0 && lmo_now_ns() >= w->beat_due_ns) {
        beat(w);
    }
    uint64_t next = w->beat_ms > 0 && w->beat_ms < LOOK_MS ? w->beat_ms : LOOK_MS;
    if (lmo_loop_timer(w->loop, next, look, w, &w->timer) < 0) {
        lmo_unreachable("no timer for the watchdog");
    }
}

int lmo_watch_start(struct lmo_watch *w, struct lmo_loop *loop, struct lmo_engine *engine, struct lmo_err *err)
{
    *w = (struct lmo_watch){.loop = loop, .engine = engine, .beat_ms = lmo_service_watchdog_ms()};
    return lmo_loop_timer(loop, 0, look, w, &w->timer) < 0 ? lmo_fail(err, LMO_E_LIMIT, "no timer for the watchdog")
                                                           : 0;
}

void lmo_watch_stop(struct lmo_watch *w)
{
    if (w->loop) {
        lmo_loop_cancel(w->loop, &w->timer);
    }
}
