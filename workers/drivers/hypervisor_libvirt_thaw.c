/* hypervisor_libvirt_thaw.c - the two ends of a frozen source: it is the guest after all, or it is a dead copy. */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/clock.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

void lmo_lv_freeze_record(const struct lmo_lv *lv, const char *uuid, char *ret, size_t size)
{
    (void)snprintf(ret, size, "%.900s/frozen-%s", lv->state_dir, uuid);
}

static void forget_freeze(struct lmo_lv *lv, const char *uuid)
{
    char path[LMO_PATH_MAX];
    lmo_lv_freeze_record(lv, uuid, path, sizeof path);
    (void)unlink(path);
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    if (g)
        g->frozen = false;
    pthread_mutex_unlock(&lv->lock);
}

/* The pinned process, or a fresh look for it. *ret_qemu is owned by the caller; false: there is none. */
static bool find_process(struct lmo_lv *lv, const char *uuid, struct lmo_qemu *ret_qemu)
{
    for (int i = 0; i < 2; i++) {
        char name[LMO_NAME_MAX] = "";
        pthread_mutex_lock(&lv->lock);
        const struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
        struct lmo_qemu q = LMO_QEMU_NONE;
        if (g) {
            q = lmo_qemu_dup(&g->qemu);
            memcpy(name, g->name, sizeof name);
        }
        pthread_mutex_unlock(&lv->lock);
        if (q.pidfd >= 0 && !lmo_qemu_ended(&q)) {
            *ret_qemu = q;
            return true;
        }
        lmo_qemu_unpin(&q);
        if (i == 0 && !lmo_lv_pin(lv, uuid, name))
            return false;
    }
    return false;
}

static int run_thaw(struct lmo_lv_op *op, struct lmo_err *err)
{
    struct lmo_lv *lv = op->lv;
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    enum lmo_run_state state = LMO_RUN_UNKNOWN;
    int r = lmo_lv_domain(lv, LMO_LV_LANE_RESUME, op->uuid, &dom, err);
    while (r == 0) {
        r = lmo_lv_observe_state(lv, dom, op->uuid, &state, err);
        if (r < 0 || state != LMO_RUN_PAUSED_MIGRATION)
            break; /* runs; or its owner had paused it before the migration, and so it stays */
        struct lmo_domxml_status st;
        const char *name = virDomainGetName(dom);
        bool job = name && lmo_lv_read_status(name, &st, NULL) == 0 && strcmp(st.async_job, "none") != 0;
        if (!job && (r = lmo_lv_op_in_time(op, err)) == 0 && virDomainResume(dom) < 0)
            return lmo_lv_fail(err, true, "resuming the guest");
        if (!job)
            continue;
        /* libvirt is still about to end its job, and will resume the guest itself: its event wakes us. */
        pthread_mutex_lock(&lv->lock);
        uint64_t soon_ns = lmo_now_ns() + 200 * LMO_NS_PER_MS;
        bool in_time = lmo_now_ns() < op->deadline_ns;
        (void)lmo_lv_wait_changed(lv, soon_ns < op->deadline_ns ? soon_ns : op->deadline_ns);
        pthread_mutex_unlock(&lv->lock);
        if (!in_time)
            return lmo_fail(err, LMO_E_TIMEOUT, "continued, but libvirt's migration job has not ended yet");
    }
    if (r == 0 && state != LMO_RUN_RUNNING && state != LMO_RUN_PAUSED_BY_USER)
        r = lmo_fail(err, LMO_E_REFUSED, "continued, but libvirt has the guest as %s", lmo_run_state_name(state));
    return r;
}

int lmo_lv_thaw(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_lv *lv = (struct lmo_lv *)hv;
    struct lmo_qemu q = LMO_QEMU_NONE;
    if (!find_process(lv, uuid, &q))
        return lmo_fail(err, LMO_E_NOT_FOUND, "the guest has no process here");
    /* The record goes first: from here on the process may run, and must never again count as proven frozen. */
    forget_freeze(lv, uuid);
    int r = lmo_qemu_signal(&q, SIGCONT);
    lmo_qemu_unpin(&q);
    if (r < 0)
        return lmo_fail(err, r, "the guest's process cannot be continued");
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new(lv, run_thaw, uuid);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    return lmo_lv_op_call(op, timeout_ms, err);
}

/* libvirt notices the end of a process by itself, within milliseconds when nothing else holds the guest; destroying
 * would wait for the same lock, so it is the last resort and for a domain whose process could not be found. */
static int run_gone(struct lmo_lv_op *op, struct lmo_err *err)
{
    struct lmo_lv *lv = op->lv;
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    int r = lmo_lv_domain(lv, LMO_LV_LANE_ORDERS, op->uuid, &dom, err);
    uint64_t patience_ns = op->flag ? lmo_now_ns() + (op->deadline_ns - lmo_now_ns()) / 2 : 0;
    while (r == 0) {
        int active = virDomainIsActive(dom);
        if (active == 0)
            return 0;
        if (active < 0)
            return virGetLastErrorCode() == VIR_ERR_NO_DOMAIN ? 0 : lmo_lv_fail(err, false, "asking for the domain");
        pthread_mutex_lock(&lv->lock);
        const struct lmo_lv_guest *g = lmo_lv_guest_find(lv, op->uuid);
        bool wait = lmo_now_ns() < patience_ns && !(g && g->stopped);
        uint64_t soon_ns = lmo_now_ns() + 100 * LMO_NS_PER_MS;
        if (wait)
            (void)lmo_lv_wait_changed(lv, soon_ns < patience_ns ? soon_ns : patience_ns);
        pthread_mutex_unlock(&lv->lock);
        if (!wait && (r = lmo_lv_op_in_time(op, err)) == 0 && virDomainDestroy(dom) < 0 &&
            virGetLastErrorCode() != VIR_ERR_NO_DOMAIN && virGetLastErrorCode() != VIR_ERR_OPERATION_INVALID)
            return lmo_lv_fail(err, true, "destroying the domain");
    }
    return r == LMO_E_NOT_FOUND ? 0 : r;
}

int lmo_lv_kill(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_lv *lv = (struct lmo_lv *)hv;
    struct lmo_qemu q = LMO_QEMU_NONE;
    uint64_t deadline_ns = lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;
    bool found = find_process(lv, uuid, &q);
    if (found) {
        int r = lmo_qemu_signal(&q, SIGKILL);
        bool ended = r == LMO_E_NOT_FOUND || (r == 0 && lmo_qemu_await_end(&q, deadline_ns));
        lmo_qemu_unpin(&q);
        if (!ended)
            return r < 0 ? lmo_fail(err, r, "the guest's process cannot be killed")
                         : lmo_fail(err, LMO_E_TIMEOUT, "the guest's process was killed and has not ended yet");
    }
    forget_freeze(lv, uuid);
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new(lv, run_gone, uuid);
    uint64_t left_ms = lmo_ms_until(deadline_ns);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    op->flag = found;
    int r = lmo_lv_op_call(op, left_ms ? left_ms : 1, err);
    /* The process is dead for certain; only libvirt's book-keeping is in doubt. */
    return found && r == LMO_E_UNAVAILABLE
               ? lmo_fail(err, LMO_E_UNKNOWN, "the process is dead; libvirt cannot be asked")
               : r;
}
