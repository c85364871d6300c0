/* hypervisor_libvirt_connection.c - the watch: an event loop, one connection for events, and its keeper.
 *
 * `generation` numbers the unbroken spans: odd while the watch is whole, even while it is broken. Whoever draws a
 * conclusion from "no such event was seen" compares the generation at both ends of the span. */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <string.h>

#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS   5000

/* ------------------------------------------------------------------ event loop */

/* libvirt's default loop is one per process and can neither be replaced nor taken down. */
static void loop_register(void)
{
    if (virInitialize() < 0 || virEventRegisterDefaultImpl() < 0)
        lmo_log(LMO_LOG_ERROR, "libvirt's event loop cannot be registered", "reason=%s", virGetLastErrorMessage());
}

/* libvirt would print every error to standard error; ours are returned, and logged by whoever handles them. */
static void silent(void *arg, virErrorPtr error)
{
    (void)arg;
    (void)error;
}

static void beat(int timer, void *arg)
{
    (void)timer;
    (void)arg;
}

static void *loop_main(void *arg)
{
    struct lmo_lv *lv = arg;
    int timer =
        virEventAddTimeout(LMO_LV_LOOP_BEAT_MS, beat, NULL, NULL); /* so that `stopping` is seen without an event */
    for (bool stop = false; !stop;) {
        if (virEventRunDefaultImpl() < 0)
            lmo_log(LMO_LOG_ERROR, "libvirt's event loop failed", "reason=%s", virGetLastErrorMessage());
        pthread_mutex_lock(&lv->lock);
        stop = lv->stopping;
        pthread_mutex_unlock(&lv->lock);
    }
    if (timer >= 0)
        (void)virEventRemoveTimeout(timer);
    lmo_lv_unref(lv);
    return NULL;
}

/* ------------------------------------------------------------------ one pass of the loop, awaited */

struct pass {
    pthread_mutex_t lock;
    pthread_cond_t ran;
    bool done;
    unsigned refs; /* the waiter and the timer */
};

static void pass_unref(void *arg)
{
    struct pass *p = arg;
    pthread_mutex_lock(&p->lock);
    bool last = --p->refs == 0;
    pthread_mutex_unlock(&p->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->ran);
    free(p);
}

static void pass_ran(int timer, void *arg)
{
    struct pass *p = arg;
    pthread_mutex_lock(&p->lock);
    p->done = true;
    pthread_cond_signal(&p->ran);
    pthread_mutex_unlock(&p->lock);
    (void)virEventRemoveTimeout(timer);
}

static bool await_pass(uint64_t deadline_ns)
{
    struct pass *p = calloc(1, sizeof *p);
    if (!p)
        return false;
    pthread_mutex_init(&p->lock, NULL);
    lmo_lv_cond_init(&p->ran);
    p->refs = 2;
    int timer = virEventAddTimeout(0, pass_ran, p, pass_unref);
    if (timer < 0)
        p->refs = 1;
    pthread_mutex_lock(&p->lock);
    while (timer >= 0 && !p->done && lmo_now_ns() < deadline_ns) {
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        uint64_t left = deadline_ns - lmo_now_ns();
        uint64_t ns = (uint64_t)at.tv_nsec + (left > LMO_NS_PER_S ? LMO_NS_PER_S : left);
        at.tv_sec += (time_t)(ns / LMO_NS_PER_S);
        at.tv_nsec = (long)(ns % LMO_NS_PER_S);
        (void)pthread_cond_timedwait(&p->ran, &p->lock, &at);
    }
    bool done = p->done;
    pthread_mutex_unlock(&p->lock);
    pass_unref(p);
    return done;
}

static int ping(struct lmo_lv_op *op, struct lmo_err *err)
{
    struct lmo_lv *lv = op->lv;
    LMO_LV_AUTO_CONN virConnectPtr conn = NULL;
    pthread_mutex_lock(&lv->lock);
    if (lv->watch && lv->generation == op->number) {
        conn = lv->watch;
        (void)virConnectRef(conn);
    }
    pthread_mutex_unlock(&lv->lock);
    unsigned long version;
    if (!conn)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "the watch is broken");
    for (int i = 0; i < 2; i++)
        if (virConnectGetLibVersion(conn, &version) < 0)
            return lmo_lv_fail(err, false, "asking libvirt for its version");
    return 0;
}

/* Why two of each. libvirtd's main loop sends queued events to a client from a timer and reads the client's requests,
 * in one iteration in either order; it writes answers in a later iteration. So an event that was queued before the
 * first request was sent is on the connection, in front of the second answer at the latest. On our side the thread
 * that reads the connection queues the event for the loop before it hands the second answer out; the first pass of the
 * loop may run before the event's own timer in the same iteration, the second one cannot. */
bool lmo_lv_watch_flush(struct lmo_lv *lv, uint64_t generation, uint64_t deadline_ns)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new(lv, ping, NULL);
    uint64_t left_ms = lmo_ms_until(deadline_ns);
    if (!op || left_ms == 0)
        return false;
    op->number = generation;
    if (lmo_lv_op_call(op, left_ms, NULL) < 0)
        return false;
    for (int i = 0; i < 2; i++)
        if (!await_pass(deadline_ns))
            return false;
    pthread_mutex_lock(&lv->lock);
    bool whole = lv->generation == generation;
    pthread_mutex_unlock(&lv->lock);
    return whole;
}

/* ------------------------------------------------------------------ connecting */

/* `emit` and `lock` not held. Idempotent for one connection. */
static void watch_broken(struct lmo_lv *lv, virConnectPtr conn, const char *reason)
{
    pthread_mutex_lock(&lv->emit);
    pthread_mutex_lock(&lv->lock);
    bool mine = lv->watch == conn && lv->generation % 2 == 1;
    if (mine) {
        lv->generation++;
        pthread_cond_broadcast(&lv->changed);
    }
    pthread_mutex_unlock(&lv->lock);
    if (mine)
        lmo_lv_emit(lv, LMO_HV_EV_WATCH_BROKEN, "", reason);
    pthread_mutex_unlock(&lv->emit);
}

static const char *const close_reasons[] = {
    [VIR_CONNECT_CLOSE_REASON_ERROR] = "error",
    [VIR_CONNECT_CLOSE_REASON_EOF] = "eof",
    [VIR_CONNECT_CLOSE_REASON_KEEPALIVE] = "keepalive",
    [VIR_CONNECT_CLOSE_REASON_CLIENT] = "client",
};

static void on_close(virConnectPtr conn, int reason, void *arg)
{
    bool known = reason >= 0 && (size_t)reason < sizeof close_reasons / sizeof close_reasons[0];
    watch_broken(arg, conn, known ? close_reasons[reason] : "unknown");
}

/* Registers everything on a new connection and only then calls the watch whole. `emit` is held throughout, so an event
 * of the new connection is recorded under the new generation, and WATCH_RESTORED is told before it. */
static int watch_open(struct lmo_lv *lv, struct lmo_err *err)
{
    virConnectPtr conn = NULL;
    bool raw = false;
    int r = lmo_lv_connect(lv, &conn, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&lv->emit);
    r = lmo_lv_events_register(lv, conn, &raw, err);
    if (r == 0 && virConnectRegisterCloseCallback(conn, on_close, lv, NULL) < 0)
        r = lmo_lv_fail(err, false, "registering for the connection's end");
    if (r == 0 && virConnectIsAlive(conn) != 1)
        r = lmo_fail(err, LMO_E_UNAVAILABLE, "the connection to libvirt ended at once");
    if (r == 0) {
        pthread_mutex_lock(&lv->lock);
        lmo_assert(lv->generation % 2 == 0);
        lv->generation++;
        lv->watch = conn;
        lv->raw_events = raw;
        pthread_cond_broadcast(&lv->changed);
        pthread_mutex_unlock(&lv->lock);
        lmo_lv_emit(lv, LMO_HV_EV_WATCH_RESTORED, "", "connected");
    }
    pthread_mutex_unlock(&lv->emit);
    if (r < 0) {
        lmo_lv_events_unregister(lv, conn);
        (void)virConnectClose(conn);
    }
    return r;
}

/* Called with `lock` held, which it gives up: closing talks to libvirtd and waits for callbacks. */
static void watch_drop(struct lmo_lv *lv)
{
    virConnectPtr conn = lv->watch;
    lv->watch = NULL;
    pthread_mutex_unlock(&lv->lock);
    if (conn) {
        lmo_lv_events_unregister(lv, conn);
        (void)virConnectUnregisterCloseCallback(conn, on_close);
        (void)virConnectClose(conn);
    }
    pthread_mutex_lock(&lv->lock);
}

static void *keeper_main(void *arg)
{
    struct lmo_lv *lv = arg;
    uint64_t backoff_ms = BACKOFF_FIRST_MS;
    bool told = false; /* that it is down: once, not at every attempt */
    pthread_mutex_lock(&lv->lock);
    while (!lv->stopping) {
        if (lv->generation % 2 == 1) {
            (void)lmo_lv_wait_changed(lv, lmo_now_ns() + 60 * LMO_NS_PER_S);
            continue;
        }
        watch_drop(lv);
        if (lv->stopping)
            break;
        bool first = lv->generation == 0;
        pthread_mutex_unlock(&lv->lock);
        struct lmo_err err = {0};
        int r = watch_open(lv, &err);
        if (r < 0 && !told) {
            lmo_log(LMO_LOG_WARN, "libvirt cannot be reached", "uri=%s reason=%s", lv->uri, err.text);
            pthread_mutex_lock(&lv->emit);
            if (first) /* otherwise the break itself was told */
                lmo_lv_emit(lv, LMO_HV_EV_WATCH_BROKEN, "", "unreachable");
            pthread_mutex_unlock(&lv->emit);
        }
        told = r < 0;
        pthread_mutex_lock(&lv->lock);
        if (r == 0) {
            backoff_ms = BACKOFF_FIRST_MS;
            continue;
        }
        uint64_t again_ns = lmo_now_ns() + backoff_ms * LMO_NS_PER_MS;
        while (!lv->stopping && lmo_lv_wait_changed(lv, again_ns))
            ;
        backoff_ms = backoff_ms * 2 < BACKOFF_MAX_MS ? backoff_ms * 2 : BACKOFF_MAX_MS;
    }
    watch_drop(lv);
    pthread_mutex_unlock(&lv->lock);
    lmo_lv_unref(lv);
    return NULL;
}

int lmo_lv_watch_start(struct lmo_lv *lv, struct lmo_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, loop_register);
    virSetErrorFunc(NULL, silent);
    int r = lmo_lv_thread(lv, loop_main, lv, &lv->loop);
    if (r == 0) {
        (void)pthread_detach(lv->loop);
        r = lmo_lv_thread(lv, keeper_main, lv, &lv->keeper);
        if (r == 0)
            (void)pthread_detach(lv->keeper);
    }
    if (r < 0)
        return lmo_fail(err, r, "cannot start the threads of the libvirt driver");
    return 0;
}
