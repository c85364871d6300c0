/* hypervisor_libvirt_dirty.c - how fast a guest dirties its memory, measured beside everything else.
 *
 * QEMU samples some pages of a guest, waits a second, and looks which of them have changed. One thread asks for that,
 * for a few guests at once, over a connection of its own: nobody's order stands behind it, and what it has found is
 * kept with the guest's record, where describing it costs nothing. It is asked for when somebody looks at a guest
 * whose figure is old.
 *
 * Only ever by page sampling: asked to use its dirty bitmap, QEMU 7.2 without KVM dies (docs/libvirt.md). And never
 * while a migration of the guest runs: libvirt would keep the request waiting for half a minute, and its thread with
 * it. */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <string.h>

#define PERIOD_S   1
#define BATCH      8
#define LATE_MS    2000 /* after the period: then it has failed */
#define LOOK_MS    50
#define REFRESH_MS 60000 /* older than that: measured again when somebody looks */
#define MIB        ((uint64_t)1 << 20)

struct gauge {
    char uuid[LMO_UUID_MAX];
    virDomainPtr dom; /* owned; NULL: nothing is measured */
    bool known;
    uint64_t bytes_per_s;
};

/* `lock` held. May it be measured now? */
static bool measurable(const struct lmo_lv_guest *g)
{
    return !g->job && !g->frozen && !g->incoming;
}

/* `lock` held. Takes what is wanted, a few at a time. */
static unsigned take_wanted(struct lmo_lv *lv, struct gauge *batch)
{
    unsigned n = 0;
    for (struct lmo_lv_guest *g = lv->guests; g && n < BATCH; g = g->next) {
        if (g->dirty_wanted) {
            g->dirty_wanted = false;
            batch[n] = (struct gauge){0};
            memcpy(batch[n].uuid, g->uuid, sizeof batch[n].uuid);
            g->dirty_under_way = measurable(g);
            n += g->dirty_under_way;
        }
    }
    return n;
}

static bool still_measurable(struct lmo_lv *lv, const char *uuid)
{
    pthread_mutex_lock(&lv->lock);
    const struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    bool yes = g && measurable(g);
    pthread_mutex_unlock(&lv->lock);
    return yes;
}

static void begin(struct lmo_lv *lv, struct gauge *m)
{
    struct lmo_err err = {0};
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    if (lmo_lv_domain(lv, LMO_LV_LANE_GAUGE, m->uuid, &dom, &err) < 0 || !still_measurable(lv, m->uuid))
        return;
    if (virDomainStartDirtyRateCalc(dom, PERIOD_S, VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING) < 0) {
        (void)lmo_lv_fail(&err, false, "measuring the dirty rate");
        lmo_log(LMO_LOG_DEBUG, "dirty rate not to be had", "uuid=%s reason=%s", m->uuid, err.text);
        return;
    }
    m->dom = LMO_TAKE(dom); /* from here on QEMU's status is that of this measurement, not of the one before */
}

/* True when there is nothing more to wait for. */
static bool look(struct gauge *m)
{
    virDomainPtr doms[] = {m->dom, NULL};
    virDomainStatsRecordPtr *records = NULL;
    int status = 0;
    long long mib = 0;
    if (!m->dom || m->known)
        return true;
    int n = virDomainListGetStats(doms, VIR_DOMAIN_STATS_DIRTYRATE, &records, VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT);
    if (n == 1 &&
        virTypedParamsGetInt(records[0]->params, records[0]->nparams, "dirtyrate.calc_status", &status) == 1 &&
        status == VIR_DOMAIN_DIRTYRATE_MEASURED &&
        virTypedParamsGetLLong(records[0]->params, records[0]->nparams, "dirtyrate.megabytes_per_second", &mib) == 1 &&
        mib >= 0) {
        m->known = true;
        m->bytes_per_s = (uint64_t)mib * MIB;
    }
    if (records)
        virDomainStatsRecordListFree(records);
    return n < 0 || m->known;
}

/* `lock` held, and given up for a while. False: the driver stops. */
static bool wait_until(struct lmo_lv *lv, uint64_t deadline_ns)
{
    while (!lv->stopping && lmo_lv_wait_changed(lv, deadline_ns))
        ;
    return !lv->stopping;
}

static void keep(struct lmo_lv *lv, const struct gauge *m)
{
    struct lmo_lv_guest *g = lmo_lv_guest_find(lv, m->uuid);
    if (g)
        g->dirty_under_way = false;
    if (g && m->known) {
        g->dirty_bytes_per_s = m->bytes_per_s;
        g->dirty_ns = lmo_now_ns();
    }
}

/* `lock` held, and given up for a while. */
static void measure(struct lmo_lv *lv, struct gauge *batch, unsigned n)
{
    pthread_mutex_unlock(&lv->lock);
    for (unsigned i = 0; i < n; i++)
        begin(lv, &batch[i]);
    uint64_t due_ns = lmo_now_ns() + PERIOD_S * LMO_NS_PER_S, late_ns = due_ns + LATE_MS * LMO_NS_PER_MS;
    pthread_mutex_lock(&lv->lock);
    bool done = false;
    while (!done && due_ns < late_ns && wait_until(lv, due_ns)) {
        pthread_mutex_unlock(&lv->lock);
        done = true;
        for (unsigned i = 0; i < n; i++)
            done = look(&batch[i]) && done;
        due_ns = lmo_now_ns() + LOOK_MS * LMO_NS_PER_MS;
        pthread_mutex_lock(&lv->lock);
    }
    for (unsigned i = 0; i < n; i++)
        keep(lv, &batch[i]);
    pthread_cond_broadcast(&lv->changed);
    pthread_mutex_unlock(&lv->lock);
    for (unsigned i = 0; i < n; i++)
        lmo_lv_cleanup_domain(&batch[i].dom);
    pthread_mutex_lock(&lv->lock);
}

void *lmo_lv_gauge_main(void *arg)
{
    struct lmo_lv *lv = arg;
    struct gauge batch[BATCH];
    pthread_mutex_lock(&lv->lock);
    while (!lv->stopping) {
        unsigned n = take_wanted(lv, batch);
        if (n > 0)
            measure(lv, batch, n);
        else
            (void)lmo_lv_wait_changed(lv, lmo_now_ns() + 60 * LMO_NS_PER_S);
    }
    pthread_mutex_unlock(&lv->lock);
    lmo_lv_unref(lv);
    return NULL;
}

static uint64_t age_ms(const struct lmo_lv_guest *g)
{
    uint64_t now = lmo_now_ns();
    return now > g->dirty_ns ? (now - g->dirty_ns) / LMO_NS_PER_MS + 1 : 1;
}

/* `lock` held. */
static void want(struct lmo_lv *lv, struct lmo_lv_guest *g)
{
    if (!g->dirty_wanted && !g->dirty_under_way && measurable(g)) {
        g->dirty_wanted = true;
        pthread_cond_broadcast(&lv->changed);
    }
}

void lmo_lv_dirty_facts(struct lmo_lv *lv, struct lmo_vm_facts *vm)
{
    if (vm->state != LMO_RUN_RUNNING)
        return;
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_get(lv, vm->uuid, vm->name);
    if (g && g->dirty_ns) {
        vm->dirty_bytes_per_s = g->dirty_bytes_per_s;
        vm->dirty_age_ms = age_ms(g);
    }
    if (g && (!g->dirty_ns || age_ms(g) > REFRESH_MS))
        want(lv, g);
    pthread_mutex_unlock(&lv->lock);
}

int lmo_lv_measure_dirty(struct lmo_hypervisor *hv, const char *uuid, uint64_t fresh_ms, uint64_t timeout_ms,
                         struct lmo_err *err)
{
    struct lmo_lv *lv = (struct lmo_lv *)hv;
    uint64_t deadline_ns = lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;
    int r = 0;
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_get(lv, uuid, NULL);
    if (g && !(g->dirty_ns && age_ms(g) <= fresh_ms))
        want(lv, g);
    /* Found anew each time: a record may be dropped to make room. */
    while (r == 0 && (!(g = lmo_lv_guest_find(lv, uuid)) || !g->dirty_ns || age_ms(g) > fresh_ms)) {
        if (!g)
            r = lmo_fail(err, LMO_E_LIMIT, "too many guests to watch (%d)", LMO_LV_GUESTS_MAX);
        else if (lv->stopping || !lmo_lv_wait_changed(lv, deadline_ns))
            r = lmo_fail(err, LMO_E_TIMEOUT, "no dirty rate within %" PRIu64 " ms", timeout_ms);
    }
    pthread_mutex_unlock(&lv->lock);
    return r;
}
