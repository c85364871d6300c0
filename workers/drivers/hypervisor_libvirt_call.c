/* hypervisor_libvirt_call.c - libvirt calls that may hang, made bounded; and the connections they use.
 *
 * libvirt has no time-outs of its own for most calls: one that waits for a hung QEMU's monitor or for a guest's job
 * lock may wait for ever. So each runs on a pool thread with its arguments in an op on the heap; the caller leaves at
 * the deadline and the thread is left to finish. The number of threads is bounded, stuck ones included: when all are
 * stuck, calls are refused with BUSY, which is true. */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT      3

void lmo_lv_cleanup_domain(virDomainPtr *dom)
{
    if (*dom)
        (void)virDomainFree(*dom);
}

void lmo_lv_cleanup_conn(virConnectPtr *conn)
{
    if (*conn)
        (void)virConnectClose(*conn);
}

void lmo_lv_cleanup_op(struct lmo_lv_op **op)
{
    if (*op)
        lmo_lv_op_unref(*op);
}

void lmo_lv_cond_init(pthread_cond_t *cond)
{
    /* CLOCK_MONOTONIC and not BOOTTIME: condition variables know no other. Deadlines are checked against BOOTTIME
     * after each wake, so a suspended host only delays the time-out. */
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* False at the deadline. */
static bool wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ns)
{
    uint64_t now = lmo_now_ns();
    if (now >= deadline_ns)
        return false;
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    uint64_t left = deadline_ns - now, limit = 3600 * LMO_NS_PER_S;
    uint64_t ns = (uint64_t)at.tv_nsec + (left < limit ? left : limit);
    at.tv_sec += (time_t)(ns / LMO_NS_PER_S);
    at.tv_nsec = (long)(ns % LMO_NS_PER_S);
    (void)pthread_cond_timedwait(cond, lock, &at);
    return true;
}

bool lmo_lv_wait_changed(struct lmo_lv *lv, uint64_t deadline_ns)
{
    return wait_until(&lv->changed, &lv->lock, deadline_ns);
}

int lmo_lv_thread(struct lmo_lv *lv, void *(*fn)(void *), void *arg, pthread_t *ret)
{
    /* The program's signals are its loop's business: no thread of a driver takes one. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pthread_mutex_lock(&lv->lock);
    lv->refs++;
    pthread_mutex_unlock(&lv->lock);
    int r = pthread_create(ret, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0)
        lmo_lv_unref(lv);
    return r == 0 ? 0 : LMO_E_NO_MEMORY;
}

/* ------------------------------------------------------------------ ops */

struct lmo_lv_op *lmo_lv_op_new(struct lmo_lv *lv, lmo_lv_op_fn *run, const char *uuid)
{
    struct lmo_lv_op *op = calloc(1, sizeof *op);
    if (!op)
        return NULL;
    op->lv = lv;
    op->run = run;
    op->refs = 1;
    lmo_lv_cond_init(&op->finished);
    (void)snprintf(op->uuid, sizeof op->uuid, "%s", uuid ? uuid : "");
    pthread_mutex_lock(&lv->lock);
    lv->refs++;
    pthread_mutex_unlock(&lv->lock);
    return op;
}

static void op_free(struct lmo_lv_op *op)
{
    struct lmo_lv *lv = op->lv;
    pthread_cond_destroy(&op->finished);
    free(op->text);
    free(op->result_text);
    free(op->map);
    free(op->facts);
    free(op);
    lmo_lv_unref(lv);
}

void lmo_lv_op_unref(struct lmo_lv_op *op)
{
    pthread_mutex_lock(&op->lv->pool.lock);
    bool last = --op->refs == 0;
    pthread_mutex_unlock(&op->lv->pool.lock);
    if (last)
        op_free(op);
}

static void run_op(struct lmo_lv *lv, struct lmo_lv_op *op)
{
    struct lmo_err err = {0};
    pthread_mutex_unlock(&lv->pool.lock);
    /* An op that waited in the queue until its caller left must not begin: nobody would know. */
    int rc = lmo_now_ns() < op->deadline_ns ? op->run(op, &err)
                                            : lmo_fail(&err, LMO_E_BUSY, "no thread was free in time; not begun");
    pthread_mutex_lock(&lv->pool.lock);
    op->rc = rc;
    op->err = err;
    op->done = true;
    pthread_cond_broadcast(&op->finished);
    bool last = --op->refs == 0;
    if (last) {
        if (rc == 0)
            lmo_log(LMO_LOG_WARN, "libvirt call finished after its deadline", "uuid=%s", op->uuid);
        pthread_mutex_unlock(&lv->pool.lock);
        op_free(op);
        pthread_mutex_lock(&lv->pool.lock);
    }
}

static void *pool_main(void *arg)
{
    struct lmo_lv *lv = arg;
    pthread_mutex_lock(&lv->pool.lock);
    for (;;) {
        while (!lv->pool.head && !lv->pool.stopping) {
            lv->pool.idle++;
            pthread_cond_wait(&lv->pool.wanted, &lv->pool.lock);
            lv->pool.idle--;
        }
        struct lmo_lv_op *op = lv->pool.head;
        if (!op)
            break;
        lv->pool.head = op->next;
        if (!lv->pool.head)
            lv->pool.tail = &lv->pool.head;
        lv->pool.queued--;
        run_op(lv, op);
    }
    lv->pool.threads--;
    pthread_mutex_unlock(&lv->pool.lock);
    lmo_lv_unref(lv);
    return NULL;
}

void lmo_lv_pool_init(struct lmo_lv *lv)
{
    pthread_mutex_init(&lv->pool.lock, NULL);
    pthread_cond_init(&lv->pool.wanted, NULL);
    lv->pool.tail = &lv->pool.head;
}

void lmo_lv_pool_stop(struct lmo_lv *lv)
{
    pthread_mutex_lock(&lv->pool.lock);
    lv->pool.stopping = true;
    pthread_cond_broadcast(&lv->pool.wanted);
    pthread_mutex_unlock(&lv->pool.lock);
}

/* With pool.lock held, which it gives up for a moment. */
static bool ensure_thread(struct lmo_lv *lv)
{
    if (lv->pool.idle > lv->pool.queued)
        return true;
    if (lv->pool.threads == LMO_LV_CALLS_MAX)
        return false;
    lv->pool.threads++;
    pthread_mutex_unlock(&lv->pool.lock);
    pthread_t thread;
    int r = lmo_lv_thread(lv, pool_main, lv, &thread);
    if (r == 0)
        pthread_detach(thread);
    pthread_mutex_lock(&lv->pool.lock);
    lv->pool.threads -= r != 0;
    return r == 0;
}

int lmo_lv_op_call(struct lmo_lv_op *op, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_lv *lv = op->lv;
    op->deadline_ns = lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;
    pthread_mutex_lock(&lv->pool.lock);
    if (lv->pool.stopping || !ensure_thread(lv)) {
        pthread_mutex_unlock(&lv->pool.lock);
        return lmo_fail(err, LMO_E_BUSY, "all %d libvirt calls that may run at once are under way", LMO_LV_CALLS_MAX);
    }
    op->refs++;
    *lv->pool.tail = op;
    lv->pool.tail = &op->next;
    lv->pool.queued++;
    pthread_cond_signal(&lv->pool.wanted);
    while (!op->done && wait_until(&op->finished, &lv->pool.lock, op->deadline_ns))
        ;
    bool done = op->done;
    pthread_mutex_unlock(&lv->pool.lock);
    if (!done)
        return lmo_fail(err, LMO_E_TIMEOUT, "libvirt did not answer within %llu ms", (unsigned long long)timeout_ms);
    if (op->rc < 0 && err)
        *err = op->err;
    return op->rc;
}

int lmo_lv_op_in_time(const struct lmo_lv_op *op, struct lmo_err *err)
{
    return lmo_now_ns() < op->deadline_ns ? 0 : lmo_fail(err, LMO_E_TIMEOUT, "libvirt took too long; left as it is");
}

/* ------------------------------------------------------------------ connections */

int lmo_lv_connect(struct lmo_lv *lv, virConnectPtr *ret_conn, struct lmo_err *err)
{
    virConnectPtr conn = virConnectOpen(lv->uri);
    if (!conn)
        return lmo_lv_fail(err, false, "connecting to libvirt");
    /* A libvirtd that hangs without closing is noticed after KEEPALIVE_INTERVAL_S * (KEEPALIVE_COUNT + 1). */
    (void)virConnectSetKeepAlive(conn, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT);
    *ret_conn = conn;
    return 0;
}

int lmo_lv_lane_get(struct lmo_lv *lv, enum lmo_lv_lane lane, virConnectPtr *ret_conn, struct lmo_err *err)
{
    int r = 0;
    lmo_assert(lane < LMO_LV_LANE_COUNT);
    pthread_mutex_lock(&lv->lane[lane].lock);
    if (lv->lane[lane].conn && virConnectIsAlive(lv->lane[lane].conn) != 1) {
        (void)virConnectClose(lv->lane[lane].conn);
        lv->lane[lane].conn = NULL;
    }
    if (!lv->lane[lane].conn)
        r = lmo_lv_connect(lv, &lv->lane[lane].conn, err);
    if (r == 0) {
        (void)virConnectRef(lv->lane[lane].conn);
        *ret_conn = lv->lane[lane].conn;
    }
    pthread_mutex_unlock(&lv->lane[lane].lock);
    return r;
}

int lmo_lv_domain(struct lmo_lv *lv, enum lmo_lv_lane lane, const char *uuid, virDomainPtr *ret_dom,
                  struct lmo_err *err)
{
    LMO_LV_AUTO_CONN virConnectPtr conn = NULL;
    int r = lmo_lv_lane_get(lv, lane, &conn, err);
    if (r < 0)
        return r;
    virDomainPtr dom = virDomainLookupByUUIDString(conn, uuid);
    if (!dom)
        return lmo_lv_fail(err, false, "looking the domain up");
    *ret_dom = dom;
    return 0;
}

/* libvirt reports a connection that broke under a call in several ways. */
static bool connection_lost(const virError *e)
{
    return e->domain == VIR_FROM_RPC || e->code == VIR_ERR_NO_CONNECT || e->code == VIR_ERR_INVALID_CONN ||
           (e->code == VIR_ERR_SYSTEM_ERROR && e->domain == VIR_FROM_REMOTE) ||
           (e->message &&
            (strstr(e->message, "client socket is closed") || strstr(e->message, "End of file while reading")));
}

int lmo_lv_fail(struct lmo_err *err, bool mutating, const char *what)
{
    const virError *e = virGetLastError();
    if (!e)
        return lmo_fail(err, LMO_E_INTERNAL, "%s: libvirt failed without saying why", what);
    int code = LMO_E_REFUSED;
    if (connection_lost(e))
        code = mutating ? LMO_E_UNKNOWN : LMO_E_UNAVAILABLE;
    else if (e->code == VIR_ERR_NO_DOMAIN)
        code = LMO_E_NOT_FOUND;
    else if (e->code == VIR_ERR_OPERATION_TIMEOUT || e->code == VIR_ERR_RESOURCE_BUSY)
        code = LMO_E_BUSY; /* libvirt waited for another job on that guest and gave up before beginning */
    else if (e->code == VIR_ERR_AUTH_FAILED || e->code == VIR_ERR_ACCESS_DENIED)
        code = LMO_E_FORBIDDEN;
    else if (e->code == VIR_ERR_NO_MEMORY)
        code = LMO_E_NO_MEMORY;
    else if (e->code == VIR_ERR_INTERNAL_ERROR && mutating)
        code = LMO_E_UNKNOWN;
    return lmo_fail(err, code, "%s: %s", what, e->message ? e->message : "no message");
}
