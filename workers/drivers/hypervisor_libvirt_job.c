/* hypervisor_libvirt_job.c - the migration job at the source: one thread inside libvirt's migrate call per job.
 *
 * The gate has no open moment. libvirt passes the bandwidth on before the job begins, and the downtime limit is a
 * parameter of QEMU that can be set while no job runs and that libvirt's migrate call leaves alone: both are set before
 * the call. The old downtime limit is put back when the job has failed (after success there is no QEMU any more).
 *
 * The migrate call survives the worker: libvirt goes on by itself. The job's end is then seen by the next worker as
 * events only, never as a call that returned. */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <string.h>

#define MIB ((uint64_t)1 << 20)
/* libvirt's own default: INT64_MAX bytes/s, in MiB/s */
#define UNLIMITED_MIB     (((uint64_t)1 << 43) - 1)
#define START_MS          30000 /* the destination's QEMU starts within this */
#define ADOPTED_SAMPLE_MS 250
#define ORDER_MS          5000 /* limits, progress, abort */

static void job_free(struct lmo_lv_job *job)
{
    free(job->xml);
    free(job->persistent_xml);
    free(job);
}

void lmo_lv_job_active(struct lmo_lv_guest *g)
{
    if (g->job)
        g->job->active = true;
}

bool lmo_lv_job_is_active(const struct lmo_lv_guest *g)
{
    return g->job && g->job->active;
}

/* libvirt counts bandwidth in MiB/s. Rounded down, so that shares of a link do not add up to more than it has; but 0 would mean
 * "no limit" to QEMU, so the least is 1. */
static uint64_t to_mib(uint64_t bytes_per_s)
{
    if (bytes_per_s == 0)
        return UNLIMITED_MIB;
    uint64_t mib = bytes_per_s < MIB ? 1 : bytes_per_s / MIB;
    return mib < UNLIMITED_MIB ? mib : UNLIMITED_MIB;
}

/* ------------------------------------------------------------------ the thread inside libvirt */

/* The definition that the destination will have when the guest is shut off there: the source's, with the
 * destination's exports. libvirt would copy the source's as it is. */
static int persistent_xml(struct lmo_lv_job *job, virDomainPtr dom, struct lmo_err *err)
{
    struct lmo_hv_disk_map map;
    int r = lmo_domxml_exports(job->xml, &map, err);
    if (r < 0)
        return r;
    LMO_AUTO_FREE char *xml =
        virDomainGetXMLDesc(dom, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_MIGRATABLE | VIR_DOMAIN_XML_SECURE);
    if (!xml)
        return lmo_lv_fail(err, false, "reading the domain's persistent XML");
    return lmo_domxml_rewrite(xml, &map, false, &job->persistent_xml, err);
}

static int shut_gate(struct lmo_lv_job *job, virDomainPtr dom, struct lmo_err *err)
{
    unsigned long long before = 0;
    if (virDomainMigrateGetMaxDowntime(dom, &before, 0) == 0)
        job->old_downtime_ms = before;
    if (virDomainMigrateSetMaxDowntime(dom, job->spec.gate_downtime_ms, 0) < 0)
        return lmo_lv_fail(err, false, "setting the gate's downtime limit");
    return 0;
}

static int add_params(const struct lmo_lv_job *job, virTypedParameterPtr *params, int *count, struct lmo_err *err)
{
    int max = 0, r = 0;
    r |= virTypedParamsAddString(params, count, &max, VIR_MIGRATE_PARAM_URI, job->spec.migration_uri);
    r |= virTypedParamsAddString(params, count, &max, VIR_MIGRATE_PARAM_DEST_XML, job->xml);
    if (job->persistent_xml)
        r |= virTypedParamsAddString(params, count, &max, VIR_MIGRATE_PARAM_PERSIST_XML, job->persistent_xml);
    r |= virTypedParamsAddULLong(params, count, &max, VIR_MIGRATE_PARAM_BANDWIDTH,
                                 to_mib(job->spec.gate_bandwidth_bytes_per_s));
    if (job->spec.throttle_initial_percent) {
        r |= virTypedParamsAddInt(params, count, &max, VIR_MIGRATE_PARAM_AUTO_CONVERGE_INITIAL,
                                  (int)job->spec.throttle_initial_percent);
        r |= virTypedParamsAddInt(params, count, &max, VIR_MIGRATE_PARAM_AUTO_CONVERGE_INCREMENT,
                                  (int)job->spec.throttle_increment_percent);
    }
    return r < 0 ? lmo_lv_fail(err, false, "preparing the migration's parameters") : 0;
}

static int migrate(struct lmo_lv_job *job, virDomainPtr dom, struct lmo_err *err)
{
    /* UNSAFE is not given: libvirt's own check (network disks only, or cache=none) is one more opinion, and it is
     * satisfied by the disks that our facts do not block. ABORT_ON_ERROR: a guest whose disk fails is not moved. */
    unsigned flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER | VIR_MIGRATE_PAUSED | VIR_MIGRATE_ABORT_ON_ERROR;
    virTypedParameterPtr params = NULL;
    int count = 0, r = 0;
    if (job->lv->tls) /* the memory stream; libvirt's own connections are as peer_uri says */
        flags |= VIR_MIGRATE_TLS;
    if (job->spec.throttle_initial_percent) /* libvirt 9 cannot change this, or its steps, while the job runs */
        flags |= VIR_MIGRATE_AUTO_CONVERGE;
    if (job->spec.persist_destination) {
        flags |= VIR_MIGRATE_PERSIST_DEST | VIR_MIGRATE_UNDEFINE_SOURCE;
        r = persistent_xml(job, dom, err);
    }
    if (r == 0)
        r = shut_gate(job, dom, err);
    if (r == 0)
        r = add_params(job, &params, &count, err);
    if (r == 0) {
        uint64_t began_ns = lmo_now_ns();
        if (virDomainMigrateToURI3(dom, job->spec.peer_uri, params, (unsigned)count, flags) < 0)
            r = lmo_lv_fail(err, true, "migration");
        job->call_ms = (lmo_now_ns() - began_ns) / LMO_NS_PER_MS;
    }
    virTypedParamsFree(params, count);
    /* What lmo_lv_fail can tell of a failed migration is that it failed; what became of the guest must be observed. */
    if (r < 0 && job->old_downtime_ms && virDomainIsActive(dom) == 1)
        (void)virDomainMigrateSetMaxDowntime(dom, job->old_downtime_ms, 0);
    return r;
}

static void tell_end(struct lmo_lv_job *job)
{
    struct lmo_lv *lv = job->lv;
    struct lmo_hv_job_end end = {.call_succeeded = job->rc == 0, .call_ms = job->call_ms};
    (void)snprintf(end.text, sizeof end.text, "%.*s", (int)sizeof end.text - 1, job->rc < 0 ? job->err.text : "");
    pthread_mutex_lock(&lv->emit);
    pthread_mutex_lock(&lv->lock);
    bool tell = job->end_due && !lv->stopping;
    pthread_mutex_unlock(&lv->lock);
    if (tell)
        job->end(job->arg, job->spec.uuid, &end);
    pthread_mutex_unlock(&lv->emit);
}

/* The last thing that a job's thread does. */
static void job_over(struct lmo_lv_job *job, int r, const struct lmo_err *err)
{
    struct lmo_lv *lv = job->lv;
    pthread_mutex_lock(&lv->lock);
    job->rc = r;
    job->err = *err;
    job->returned = true;
    pthread_cond_broadcast(&lv->changed);
    while (!job->decided) /* by job_start, at its deadline at the latest */
        (void)lmo_lv_wait_changed(lv, lmo_now_ns() + LMO_NS_PER_S);
    struct lmo_lv_guest *g = lmo_lv_guest_find(lv, job->spec.uuid);
    if (g && g->job == job)
        g->job = NULL;
    pthread_cond_broadcast(&lv->changed);
    pthread_mutex_unlock(&lv->lock);
    tell_end(job);
    job_free(job);
    lmo_lv_unref(lv);
}

static void *job_main(void *arg)
{
    struct lmo_lv_job *job = arg;
    struct lmo_lv *lv = job->lv;
    struct lmo_err err = {0};
    /* A connection of its own: libvirt answers few requests of one client at a time, and this one takes minutes. */
    LMO_LV_AUTO_CONN virConnectPtr conn = NULL;
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    int r = lmo_lv_connect(lv, &conn, &err);
    if (r == 0 && !(dom = virDomainLookupByUUIDString(conn, job->spec.uuid)))
        r = lmo_lv_fail(&err, false, "looking the domain up");
    if (r == 0)
        r = migrate(job, dom, &err);
    lmo_log(LMO_LOG_INFO, "migrate call returned", "uuid=%s migration=%s ok=%d ms=%" PRIu64 " text=%s", job->spec.uuid,
            job->spec.migration, r == 0, job->call_ms, r < 0 ? err.text : "");
    job_over(job, r, &err);
    return NULL;
}

/* The watch saw the guest's process end: no job can run any more. `lock` held. */
static bool process_ended(struct lmo_lv *lv, const struct lmo_lv_job *job)
{
    const struct lmo_lv_guest *g = lmo_lv_guest_find(lv, job->spec.uuid);
    return g && g->stopped && g->stopped_generation == lv->generation;
}

/* A job whose call went with an earlier process of this worker: libvirt goes on by itself. Its statistics are sampled
 * until there is none; what then became of the guest here is what the end is told by. */
static void *adopted_main(void *arg)
{
    struct lmo_lv_job *job = arg;
    struct lmo_lv *lv = job->lv;
    struct lmo_err err = {0};
    struct lmo_progress p = {0};
    enum lmo_run_state state = LMO_RUN_UNKNOWN;
    bool stopping = false;
    int r = 0;
    while (!stopping && r != LMO_E_NOT_FOUND) {
        /* A question that was not answered still holds a thread of the pool: not the next one at once. */
        uint64_t until_ns = lmo_now_ns() + (r < 0 ? 2 * ORDER_MS : ADOPTED_SAMPLE_MS) * LMO_NS_PER_MS;
        pthread_mutex_lock(&lv->lock);
        while (!lv->stopping && !process_ended(lv, job) && lmo_lv_wait_changed(lv, until_ns))
            ;
        stopping = lv->stopping;
        bool ended = process_ended(lv, job);
        pthread_mutex_unlock(&lv->lock);
        r = stopping ? 0 : ended ? LMO_E_NOT_FOUND : lmo_lv_job_progress(&lv->hv, job->spec.uuid, &p, &err);
        if (r == 0)
            job->call_ms = p.elapsed_ms;
    }
    while (!stopping && lmo_lv_state(&lv->hv, job->spec.uuid, &state, ORDER_MS, &err) < 0) {
        pthread_mutex_lock(&lv->lock);
        (void)lmo_lv_wait_changed(lv, lmo_now_ns() + LMO_NS_PER_S);
        stopping = lv->stopping;
        pthread_mutex_unlock(&lv->lock);
    }
    bool left = state == LMO_RUN_ABSENT || state == LMO_RUN_SHUT_OFF;
    if (!left)
        (void)lmo_fail(&err, LMO_E_UNAVAILABLE, "the adopted job is over and the guest is %s here",
                       lmo_run_state_name(state));
    lmo_log(LMO_LOG_INFO, "adopted job is over", "uuid=%s migration=%s state=%s", job->spec.uuid, job->spec.migration,
            lmo_run_state_name(state));
    job_over(job, left ? 0 : LMO_E_UNAVAILABLE, &err);
    return NULL;
}

/* ------------------------------------------------------------------ start */

static struct lmo_lv_job *job_new(struct lmo_lv *lv, const struct lmo_hv_job *spec, lmo_hv_job_end_fn *end, void *arg)
{
    struct lmo_lv_job *job = calloc(1, sizeof *job);
    if (!job || !(job->xml = strdup(spec->destination_xml ? spec->destination_xml : ""))) {
        free(job);
        return NULL;
    }
    job->lv = lv;
    job->spec = *spec;
    job->spec.destination_xml = NULL; /* borrowed; ours is job->xml */
    job->end = end;
    job->arg = arg;
    job->bandwidth = spec->gate_bandwidth_bytes_per_s;
    job->downtime_ms = spec->gate_downtime_ms;
    return job;
}

/* Registers the job. A new one: what was known of an earlier migration of this guest is forgotten. An adopted one: what
 * the watch saw already (its last byte, perhaps) stays; 1 if this process watches the guest's job already. */
static int register_job(struct lmo_lv *lv, struct lmo_lv_job *job, const char *name, bool adopt, struct lmo_err *err)
{
    int r = 0;
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_get(lv, job->spec.uuid, name);
    if (!g)
        r = lmo_fail(err, LMO_E_LIMIT, "too many guests to watch (%d)", LMO_LV_GUESTS_MAX);
    else if (g->job && adopt)
        r = 1;
    else if (g->job)
        r = lmo_fail(err, LMO_E_BUSY, "a migration job runs for this guest already");
    else if (g->frozen && !adopt)
        r = lmo_fail(err, LMO_E_REFUSED, "the guest is frozen by an earlier migration");
    else if (lv->generation % 2 == 0)
        r = lmo_fail(err, LMO_E_UNAVAILABLE, "libvirt cannot be reached");
    if (r == 0)
        g->job = job;
    if (r == 0 && !adopt) {
        g->anchor = (struct lmo_lv_anchor){0};
        g->log = (struct lmo_domlog_mark){0};
        lmo_lv_guest_drop_baseline(g);
    }
    pthread_mutex_unlock(&lv->lock);
    return r;
}

/* Waits for QEMU to begin sending, or for the call to fail before that; then `end` is not called. The job's thread
 * does not free the job before this has decided. */
static int await_active(struct lmo_lv *lv, struct lmo_lv_job *job, struct lmo_err *err)
{
    uint64_t deadline_ns = lmo_now_ns() + START_MS * LMO_NS_PER_MS;
    bool active, returned, known;
    int r = 0;
    pthread_mutex_lock(&lv->lock);
    while (!job->active && !job->returned && lv->raw_events && lmo_lv_wait_changed(lv, deadline_ns))
        ;
    active = job->active;
    returned = job->returned;
    known = lv->raw_events;
    if (returned && !active && job->rc < 0) {
        /* Never under way: the caller learns it here, and `end` is not called. */
        r = job->rc;
        if (err)
            *err = job->err;
    } else {
        if (!active && !returned && known)
            r = lmo_fail(err, LMO_E_TIMEOUT, "the migration did not begin within %d ms; its end will be told",
                         START_MS);
        job->end_due = true;
    }
    job->decided = true;
    pthread_cond_broadcast(&lv->changed);
    pthread_mutex_unlock(&lv->lock);
    return r;
}

/* Takes the job: on failure it is unregistered and freed. */
static int start_thread(struct lmo_lv *lv, struct lmo_lv_job *job, void *(*fn)(void *), struct lmo_err *err)
{
    pthread_t thread;
    int r = lmo_lv_thread(lv, fn, job, &thread);
    if (r == 0) {
        (void)pthread_detach(thread);
        return 0;
    }
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_find(lv, job->spec.uuid);
    if (g)
        g->job = NULL;
    pthread_mutex_unlock(&lv->lock);
    job_free(job);
    return lmo_fail(err, r, "cannot start a thread for the job");
}

int lmo_lv_job_adopt(struct lmo_hypervisor *hv, const struct lmo_hv_job *spec, lmo_hv_job_end_fn *end, void *arg,
                     struct lmo_err *err)
{
    struct lmo_lv *lv = (struct lmo_lv *)hv;
    struct lmo_vm_facts vm = {0};
    struct lmo_progress p = {0};
    int r = lmo_lv_facts(hv, spec->uuid, &vm, ORDER_MS, err);
    if (r == 0)
        r = lmo_lv_job_progress(hv, spec->uuid, &p, err);
    if (r < 0)
        return r;
    struct lmo_lv_job *job = job_new(lv, spec, end, arg);
    if (!job)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    job->active = job->decided = job->end_due = true;
    r = register_job(lv, job, vm.name, true, err);
    if (r != 0) {
        job_free(job);
        return r < 0 ? r : 0; /* a job of our own: its end will be told */
    }
    /* Pinned again: this process has never held its pidfd. What went before this watch is unseen, and stays so. */
    if (!lmo_lv_pin(lv, spec->uuid, vm.name))
        lmo_log(LMO_LOG_WARN, "guest's process not found", "guest=%s uuid=%s", vm.name, spec->uuid);
    return start_thread(lv, job, adopted_main, err);
}

int lmo_lv_job_start(struct lmo_hypervisor *hv, const struct lmo_hv_job *spec, lmo_hv_job_end_fn *end, void *arg,
                     struct lmo_err *err)
{
    struct lmo_lv *lv = (struct lmo_lv *)hv;
    struct lmo_vm_facts vm = {0};
    int r = lmo_lv_facts(hv, spec->uuid, &vm, ORDER_MS, err);
    if (r < 0)
        return r;
    if (vm.blocker[0])
        return lmo_fail(err, LMO_E_REFUSED, "the guest cannot move live: %s", vm.blocker);
    struct lmo_lv_job *job = job_new(lv, spec, end, arg);
    if (!job)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    r = register_job(lv, job, vm.name, false, err);
    if (r < 0) {
        job_free(job);
        return r;
    }
    /* The process is pinned before the job begins: whatever is frozen later is the process that sent the memory. */
    if (!lmo_lv_pin(lv, spec->uuid, vm.name))
        lmo_log(LMO_LOG_WARN, "guest's process not found", "guest=%s uuid=%s", vm.name, spec->uuid);
    lmo_lv_note_outgoing(lv, spec->uuid, vm.name);
    r = start_thread(lv, job, job_main, err);
    return r < 0 ? r : await_active(lv, job, err);
}

/* ------------------------------------------------------------------ orders to a running job */

static int run_limits(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    int r = lmo_lv_domain(op->lv, LMO_LV_LANE_ORDERS, op->uuid, &dom, err);
    if (r < 0)
        return r;
    /* The downtime first: at the gate's bandwidth it opens nothing by itself yet. */
    if (virDomainMigrateSetMaxDowntime(dom, op->number2, 0) < 0)
        return lmo_lv_fail(err, true, "setting the downtime limit");
    if (virDomainMigrateSetMaxSpeed(dom, (unsigned long)to_mib(op->number), 0) < 0)
        return lmo_lv_fail(err, true, "setting the bandwidth limit");
    pthread_mutex_lock(&op->lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_find(op->lv, op->uuid);
    if (g && g->job) {
        g->job->bandwidth = op->number;
        g->job->downtime_ms = op->number2;
    }
    pthread_mutex_unlock(&op->lv->lock);
    return 0;
}

int lmo_lv_job_limits(struct lmo_hypervisor *hv, const char *uuid, uint64_t bandwidth_bytes_per_s, uint64_t downtime_ms,
                      struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_limits, uuid);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    op->number = bandwidth_bytes_per_s;
    op->number2 = downtime_ms;
    return lmo_lv_op_call(op, ORDER_MS, err);
}

static uint64_t param(virTypedParameterPtr params, int count, const char *name)
{
    unsigned long long wide = 0;
    int narrow = 0;
    virTypedParameterPtr p = virTypedParamsGet(params, count, name);
    if (!p)
        return 0;
    if (p->type == VIR_TYPED_PARAM_ULLONG && virTypedParamsGetULLong(params, count, name, &wide) == 1)
        return wide;
    if (p->type == VIR_TYPED_PARAM_INT && virTypedParamsGetInt(params, count, name, &narrow) == 1 && narrow > 0)
        return (uint64_t)narrow;
    return 0;
}

static int run_progress(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    virTypedParameterPtr p = NULL;
    pthread_mutex_lock(&op->lv->lock);
    const struct lmo_lv_guest *guest = lmo_lv_guest_find(op->lv, op->uuid);
    bool frozen = guest && guest->frozen;
    pthread_mutex_unlock(&op->lv->lock);
    if (frozen) /* its monitor would not answer, and libvirt would hold the guest for as long */
        return lmo_fail(err, LMO_E_BUSY, "the guest is frozen");
    int type = 0, n = 0, r = lmo_lv_domain(op->lv, LMO_LV_LANE_ORDERS, op->uuid, &dom, err);
    if (r < 0)
        return r;
    if (virDomainGetJobStats(dom, &type, &p, &n, 0) < 0)
        return lmo_lv_fail(err, false, "asking for the job's statistics");
    if (type == VIR_DOMAIN_JOB_NONE) {
        virTypedParamsFree(p, n);
        return lmo_fail(err, LMO_E_NOT_FOUND, "no job runs for this guest");
    }
    op->progress = (struct lmo_progress){
        .total_bytes = param(p, n, VIR_DOMAIN_JOB_MEMORY_TOTAL),
        .transferred_bytes = param(p, n, VIR_DOMAIN_JOB_MEMORY_PROCESSED),
        .remaining_bytes = param(p, n, VIR_DOMAIN_JOB_MEMORY_REMAINING),
        .rate_bytes_per_s = param(p, n, VIR_DOMAIN_JOB_MEMORY_BPS),
        .dirty_bytes_per_s =
            param(p, n, VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE) * param(p, n, VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE),
        .iteration = (uint32_t)param(p, n, VIR_DOMAIN_JOB_MEMORY_ITERATION),
        .throttle_percent = (uint32_t)param(p, n, VIR_DOMAIN_JOB_AUTO_CONVERGE_THROTTLE),
        .elapsed_ms = param(p, n, VIR_DOMAIN_JOB_TIME_ELAPSED),
        .disk_total_bytes = param(p, n, VIR_DOMAIN_JOB_DISK_TOTAL),
        .disk_transferred_bytes = param(p, n, VIR_DOMAIN_JOB_DISK_PROCESSED),
        .disk_remaining_bytes = param(p, n, VIR_DOMAIN_JOB_DISK_REMAINING),
        .disk_rate_bytes_per_s = param(p, n, VIR_DOMAIN_JOB_DISK_BPS),
    };
    virTypedParamsFree(p, n);
    pthread_mutex_lock(&op->lv->lock);
    const struct lmo_lv_guest *g = lmo_lv_guest_find(op->lv, op->uuid);
    if (g && g->job) {
        op->progress.bandwidth_bytes_per_s = g->job->bandwidth;
        op->progress.downtime_limit_ms = g->job->downtime_ms;
    }
    pthread_mutex_unlock(&op->lv->lock);
    return 0;
}

int lmo_lv_job_progress(struct lmo_hypervisor *hv, const char *uuid, struct lmo_progress *ret_progress,
                        struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_progress, uuid);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    int r = lmo_lv_op_call(op, ORDER_MS, err);
    if (r == 0)
        *ret_progress = op->progress;
    return r;
}

static int run_abort(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    int r = lmo_lv_domain(op->lv, LMO_LV_LANE_ORDERS, op->uuid, &dom, err);
    if (r == 0 && virDomainAbortJob(dom) < 0)
        r = lmo_lv_fail(err, false, "asking for the abort");
    return r;
}

int lmo_lv_job_abort(struct lmo_hypervisor *hv, const char *uuid, struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_abort, uuid);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    return lmo_lv_op_call(op, ORDER_MS, err);
}
