/* watch.c - tells the service manager how the worker is: STATUS each second if it changed, WATCHDOG while its loop turns.
 *
 * The journal commits on the loop, so a disk that hangs lets the watchdog bite. A disk that refuses does not: a new process
 * would find the same disk and would have lost its unbroken watch over the guests, which is evidence that a cutover under way
 * may need (docs/adr/0007). It is told in STATUS. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/service.h"

#define LOOK_MS 1000

static void look(void *arg)
{
    struct lmo_worker *w = arg;
    const char *why = "";
    unsigned in = 0, out = 0;
    for (const struct lmo_incoming *i = w->incoming; i; i = i->next) {
        in += !lmo_incoming_over(i);
    }
    for (const struct lmo_outgoing *o = w->outgoing; o; o = o->next) {
        out += !lmo_outgoing_over(o);
    }
    bool good = lmo_journal_healthy(w->journal, &why);
    lmo_service_status("%u guest%s on the way in, %u on the way out%s%s", in, in == 1 ? "" : "s", out,
                       good ? "" : "; NOTHING IS DONE, the journal cannot be written: ", good ? "" : why);
    uint64_t beat_ms = lmo_service_watchdog_ms();
    if (beat_ms > 0) {
        lmo_service_alive();
    }
    if (lmo_loop_timer(w->loop, beat_ms > 0 && beat_ms < LOOK_MS ? beat_ms : LOOK_MS, look, w, &w->watch_timer) < 0) {
        lmo_unreachable("no timer for the watchdog");
    }
}

int lmo_worker_watch(struct lmo_worker *w, struct lmo_err *err)
{
    return lmo_loop_timer(w->loop, 0, look, w, &w->watch_timer) < 0
               ? lmo_fail(err, LMO_E_LIMIT, "no timer for the watchdog")
               : 0;
}
