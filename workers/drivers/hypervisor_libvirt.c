/* hypervisor_libvirt.c - the libvirt hypervisor driver: open, close, its table, and the short orders to a domain.
 * See hypervisor_libvirt.h for the other files, threads and locks; docs/libvirt.md for what libvirt was seen to do. */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"

#include <string.h>

#define CLOSE_WAIT_MS 2000

/* ------------------------------------------------------------------ resume */

/* The domain was looked up when the guest came in; a new look-up only after a restart or a lost connection. */
static virDomainPtr known_domain(struct lmo_lv *lv, const char *uuid)
{
    virDomainPtr dom = NULL;
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    if (g && g->resume_domain && virConnectIsAlive(virDomainGetConnect(g->resume_domain)) == 1) {
        dom = g->resume_domain;
        (void)virDomainRef(dom);
    }
    pthread_mutex_unlock(&lv->lock);
    return dom;
}

static int run_resume(struct lmo_lv_op *op, struct lmo_err *err)
{
    struct lmo_lv *lv = op->lv;
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = known_domain(lv, op->uuid);
    enum lmo_run_state state = LMO_RUN_UNKNOWN;
    pthread_mutex_lock(&lv->lock);
    const struct lmo_lv_guest *g = lmo_lv_guest_find(lv, op->uuid);
    bool loaded = g && g->loaded && g->seen_generation == lv->generation;
    pthread_mutex_unlock(&lv->lock);
    if (!dom) {
        int r = lmo_lv_domain(lv, LMO_LV_LANE_RESUME, op->uuid, &dom, err);
        if (r < 0)
            return r;
    }
    if (!loaded) {
        int r = lmo_lv_observe_state(lv, dom, op->uuid, &state, err);
        if (r < 0 || state == LMO_RUN_RUNNING)
            return r;
        if (state != LMO_RUN_LOADED)
            return lmo_fail(err, LMO_E_INVALID, "the guest is %s here, not loaded", lmo_run_state_name(state));
    }
    int r = lmo_lv_op_in_time(op, err);
    if (r == 0 && virDomainResume(dom) < 0)
        r = lmo_lv_fail(err, true, "resuming the guest");
    return r;
}

static int resume(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_resume, uuid);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    return lmo_lv_op_call(op, timeout_ms, err);
}

/* ------------------------------------------------------------------ remove, settle */

static int undefine(virDomainPtr dom, struct lmo_err *err)
{
    /* The guest lives elsewhere: firmware variables and TPM state on this host are kept, as libvirt's own
     * "undefine at the source" keeps them. Each set of flags is for an older libvirt than the one before. */
    const unsigned flags[] = {
        VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
            VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | VIR_DOMAIN_UNDEFINE_KEEP_NVRAM | VIR_DOMAIN_UNDEFINE_KEEP_TPM,
        VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA | VIR_DOMAIN_UNDEFINE_KEEP_NVRAM,
    };
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (virDomainUndefineFlags(dom, flags[i]) == 0 || virGetLastErrorCode() == VIR_ERR_NO_DOMAIN)
            return 0;
        if (virGetLastErrorCode() != VIR_ERR_INVALID_ARG)
            break;
    }
    return lmo_lv_fail(err, true, "undefining the domain");
}

static int run_remove(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    int r = lmo_lv_domain(op->lv, LMO_LV_LANE_ORDERS, op->uuid, &dom, err);
    if (r == LMO_E_NOT_FOUND || r == 0)
        lmo_lv_forget_outgoing(op->lv, op->uuid);
    if (r == LMO_E_NOT_FOUND)
        return 0;
    if (r < 0)
        return r;
    int persistent = virDomainIsPersistent(dom), active = virDomainIsActive(dom);
    if (active < 0 || persistent < 0)
        return virGetLastErrorCode() == VIR_ERR_NO_DOMAIN ? 0 : lmo_lv_fail(err, false, "asking for the domain");
    if (active == 1) {
        enum lmo_run_state state = LMO_RUN_UNKNOWN;
        r = lmo_lv_observe_state(op->lv, dom, op->uuid, &state, err);
        if (r < 0)
            return r;
        if (!op->flag && state != LMO_RUN_SHUT_OFF)
            return lmo_fail(err, LMO_E_REFUSED, "the guest is %s here and not known to be a dead copy",
                            lmo_run_state_name(state));
        r = lmo_lv_op_in_time(op, err);
        if (r < 0)
            return r;
        if (virDomainDestroy(dom) < 0 && virGetLastErrorCode() != VIR_ERR_NO_DOMAIN &&
            virGetLastErrorCode() != VIR_ERR_OPERATION_INVALID)
            return lmo_lv_fail(err, true, "destroying the domain");
    }
    if (persistent == 0)
        return 0;
    r = lmo_lv_op_in_time(op, err);
    return r < 0 ? r : undefine(dom, err);
}

static int remove_domain(struct lmo_hypervisor *hv, const char *uuid, bool expected_dead, uint64_t timeout_ms,
                         struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_remove, uuid);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    op->flag = expected_dead;
    return lmo_lv_op_call(op, timeout_ms, err);
}

/* The move is over: from here on a paused guest is one that its owner paused, not one that waits to be resumed. */
static void end_incoming(struct lmo_lv *lv, const char *uuid)
{
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    if (g)
        g->incoming = g->loaded = false;
    pthread_mutex_unlock(&lv->lock);
    lmo_lv_unmark_incoming(lv, uuid); /* here and now: settled is settled, also after a restart */
}

static int run_settle(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    int autostart = 0, r = lmo_lv_domain(op->lv, LMO_LV_LANE_ORDERS, op->uuid, &dom, err);
    if (r < 0)
        return r;
    int persistent = virDomainIsPersistent(dom);
    if (persistent < 0)
        return lmo_lv_fail(err, false, "asking whether the domain is persistent");
    if (op->flag && persistent == 0) {
        LMO_AUTO_FREE char *xml = virDomainGetXMLDesc(dom, VIR_DOMAIN_XML_MIGRATABLE | VIR_DOMAIN_XML_SECURE);
        virDomainPtr defined = xml ? virDomainDefineXMLFlags(virDomainGetConnect(dom), xml, 0) : NULL;
        if (!defined)
            return lmo_lv_fail(err, true, "defining the domain");
        (void)virDomainFree(defined);
    }
    if (!op->flag)
        return persistent == 1 ? undefine(dom, err) : 0; /* a transient guest has no autostart */
    if (virDomainGetAutostart(dom, &autostart) < 0)
        return lmo_lv_fail(err, false, "asking for autostart");
    if ((autostart == 1) != op->flag2 && virDomainSetAutostart(dom, op->flag2) < 0)
        return lmo_lv_fail(err, true, "setting autostart");
    return 0;
}

static int settle(struct lmo_hypervisor *hv, const char *uuid, bool persistent, bool autostart, uint64_t timeout_ms,
                  struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_settle, uuid);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    op->flag = persistent;
    op->flag2 = autostart;
    int r = lmo_lv_op_call(op, timeout_ms, err);
    if (r == 0)
        end_incoming((struct lmo_lv *)hv, uuid);
    return r;
}

/* ------------------------------------------------------------------ open and close */

static void lmo_lv_free(struct lmo_lv *lv)
{
    while (lv->guests) {
        struct lmo_lv_guest *g = lv->guests;
        lv->guests = g->next;
        lmo_lv_guest_free(g);
    }
    for (int i = 0; i < LMO_LV_LANE_COUNT; i++) {
        if (lv->lane[i].conn)
            (void)virConnectClose(lv->lane[i].conn);
        pthread_mutex_destroy(&lv->lane[i].lock);
    }
    pthread_cond_destroy(&lv->changed);
    pthread_cond_destroy(&lv->pool.wanted);
    pthread_mutex_destroy(&lv->pool.lock);
    pthread_mutex_destroy(&lv->lock);
    pthread_mutex_destroy(&lv->emit);
    free(lv);
}

void lmo_lv_unref(struct lmo_lv *lv)
{
    pthread_mutex_lock(&lv->lock);
    bool last = --lv->refs == 0;
    if (lv->refs == 1)
        pthread_cond_broadcast(&lv->changed); /* close() may be waiting for the threads */
    pthread_mutex_unlock(&lv->lock);
    if (last)
        lmo_lv_free(lv);
}

/* After it returns no callback is called any more. Threads that are stuck inside libvirt keep the memory until they
 * come back; a migration that runs goes on in libvirt. */
static void close_driver(struct lmo_hypervisor *hv)
{
    struct lmo_lv *lv = (struct lmo_lv *)hv;
    if (!lv)
        return;
    pthread_mutex_lock(&lv->emit); /* a callback under way ends first */
    pthread_mutex_lock(&lv->lock);
    lv->stopping = true;
    pthread_cond_broadcast(&lv->changed);
    pthread_mutex_unlock(&lv->lock);
    pthread_mutex_unlock(&lv->emit);
    lmo_lv_pool_stop(lv);
    uint64_t deadline_ns = lmo_now_ns() + CLOSE_WAIT_MS * LMO_NS_PER_MS;
    pthread_mutex_lock(&lv->lock);
    while (lv->refs > 1 && lmo_lv_wait_changed(lv, deadline_ns))
        ;
    unsigned left = lv->refs - 1;
    pthread_mutex_unlock(&lv->lock);
    if (left > 0)
        lmo_log(LMO_LOG_WARN, "libvirt calls still under way at close", "count=%u", left);
    lmo_lv_unref(lv);
}

static const struct lmo_hypervisor_ops ops = {
    .name = "libvirt",
    .close = close_driver,
    .list = lmo_lv_list,
    .describe = lmo_lv_describe,
    .state = lmo_lv_state,
    .outgoing_xml = lmo_lv_outgoing_xml,
    .check_reach = lmo_lv_check_reach,
    .precheck_incoming = lmo_lv_precheck_incoming,
    .prepare_incoming = lmo_lv_prepare_incoming,
    .discard_prepared = lmo_lv_discard_prepared,
    .job_adopt = lmo_lv_job_adopt,
    .job_start = lmo_lv_job_start,
    .job_limits = lmo_lv_job_limits,
    .job_progress = lmo_lv_job_progress,
    .job_abort = lmo_lv_job_abort,
    .measure_dirty = lmo_lv_measure_dirty,
    .freeze = lmo_lv_freeze,
    .copy_ended = lmo_lv_copy_ended,
    .reachable = lmo_lv_reachable,
    .thaw = lmo_lv_thaw,
    .kill = lmo_lv_kill,
    .remove = remove_domain,
    .resume = resume,
    .settle = settle,
    .release = lmo_lv_release,
    .define = lmo_lv_define,
};

static struct lmo_lv *lmo_lv_new(const struct lmo_hypervisor_config *cfg)
{
    struct lmo_lv *lv = calloc(1, sizeof *lv);
    if (!lv)
        return NULL;
    lv->hv.ops = &ops;
    lv->refs = 1;
    memcpy(lv->uri, cfg->uri, sizeof lv->uri);
    lv->tls = cfg->tls;
    memcpy(lv->state_dir, cfg->state_dir, sizeof lv->state_dir);
    lv->on_event = cfg->on_event;
    lv->arg = cfg->arg;
    pthread_mutex_init(&lv->emit, NULL);
    pthread_mutex_init(&lv->lock, NULL);
    lmo_lv_cond_init(&lv->changed);
    for (int i = 0; i < LMO_LV_LANE_COUNT; i++)
        pthread_mutex_init(&lv->lane[i].lock, NULL);
    for (int i = 0; i < LMO_LV_EVENTS_MAX; i++)
        lv->event_ids[i] = lv->raw_ids[i] = -1;
    lmo_lv_pool_init(lv);
    return lv;
}

int lmo_hypervisor_libvirt_open(const struct lmo_hypervisor_config *cfg, struct lmo_hypervisor **ret,
                                struct lmo_err *err)
{
    if (!cfg->uri[0])
        return lmo_fail(err, LMO_E_UNAVAILABLE, "hypervisor: no libvirt URI is configured");
    if (strlen(cfg->state_dir) > LMO_PATH_MAX - 124 || lmo_fs_mkdir_p(cfg->state_dir, 0700, err) < 0)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "hypervisor: the state directory '%.200s' cannot be used",
                        cfg->state_dir);
    struct lmo_lv *lv = lmo_lv_new(cfg);
    if (!lv)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    int r = lmo_lv_watch_start(lv, err);
    if (r == 0 && (r = lmo_lv_thread(lv, lmo_lv_chore_main, lv, &lv->chore)) == 0) {
        (void)pthread_detach(lv->chore);
        r = lmo_lv_thread(lv, lmo_lv_gauge_main, lv, &lv->gauge);
        if (r == 0)
            (void)pthread_detach(lv->gauge);
    }
    if (r < 0) {
        r = lmo_fail(err, r, "cannot start the threads of the libvirt driver");
        close_driver(&lv->hv);
        return r;
    }
    *ret = &lv->hv;
    return 0;
}
