/* hypervisor.c - one host's guests as a worker's driver sees them. */
#include "fakes/internal.h"

struct fake_hv {
    struct lmo_hypervisor base;
    struct fake_seat *seat;
};

/* One call about one guest: enter, lock, act, unlock, leave. */
struct visit {
    struct fake_world *w;
    unsigned host;
    struct fake_seat *seat;
    struct fake_guest *g;  /* NULL: nobody knows it */
    struct fake_copy *c;   /* here; NULL: none */
    enum fake_call call;
};

/* True: go on, with the lock. False: *ret is the answer. */
static bool begin(struct visit *v, struct lmo_hypervisor *hv, const char *vm, enum fake_call call, int *ret,
                  struct lmo_err *err)
{
    struct fake_seat *seat = ((struct fake_hv *)(void *)hv)->seat;
    *v = (struct visit){.w = seat->world, .host = (unsigned)seat->host, .seat = seat, .call = call};
    if (fake_enter(v->w, call, ret, err)) {
        return false;
    }
    fake_lock(v->w);
    v->g = fake_guest_named(v->w, vm);
    v->c = v->g ? fake_copy_at(v->g, v->host) : NULL;
    return true;
}

static int end(struct visit *v, int r, struct lmo_err *err)
{
    if (v->g) {
        fake_check_locked(v->w, v->g);
    }
    fake_unlock(v->w);
    return fake_leave(v->w, v->call, r, err);
}

/* The slot for a copy that comes here: this host's, or one that nothing is left of. */
static struct fake_copy *make_copy(struct fake_guest *g, unsigned host)
{
    struct fake_copy *c = fake_copy_at(g, host);
    for (unsigned i = 0; !c && i < FAKE_COPIES; i++) {
        struct fake_copy *free_slot = &g->copies[i];
        if (!free_slot->used || (!free_slot->process && !free_slot->defined && !free_slot->prepared)) {
            c = free_slot;
            *c = (struct fake_copy){.used = true, .host = host};
        }
    }
    return c;
}

static void hv_close(struct lmo_hypervisor *hv)
{
    fake_seat_close(((struct fake_hv *)(void *)hv)->seat);
    free(hv);
}

/* ------------------------------------------------------------------ looking */

static void facts_of(const struct visit *v, struct lmo_vm_facts *f)
{
    const struct fake_guest *g = v->g;
    *f = (struct lmo_vm_facts){.state = fake_state_of(v->c),
                               .persistent = v->c->defined,
                               .autostart = v->c->autostart,
                               .memory_bytes = g->memory_bytes,
                               .vcpus = 1};
    LMO_COPY(f->uuid, g->uuid);
    LMO_COPY(f->name, g->name);
    LMO_COPY(f->machine, "pc-q35-7.2");
    f->dirty_age_ms = g->dirty_age_ms;
    f->dirty_bytes_per_s = g->dirty_age_ms ? g->dirty_bytes_per_s : 0;
    f->volume_count = v->w->volume_count;
    for (unsigned i = 0; i < f->volume_count; i++) {
        struct lmo_volume *x = &f->volumes[i];
        LMO_COPY(x->volume, g->volumes[i].name);
        snprintf(x->target, sizeof x->target, "vd%c", 'a' + (char)i);
        LMO_COPY(x->driver, "nbd");
        LMO_COPY(x->service, g->service);
        for (unsigned e = 0; e < FAKE_EXPORTS; e++) { /* what it is attached through: the newest one offered here */
            const struct fake_export *ex = &g->volumes[i].exports[e];
            if (ex->offered && strcmp(ex->host, v->w->hosts[v->host].name) == 0) {
                LMO_COPY(x->export_name, ex->name);
            }
        }
        if (!x->export_name[0]) {
            snprintf(x->export_name, sizeof x->export_name, "%.60s.%.60s.e1", g->volumes[i].name,
                     v->w->hosts[v->host].name);
        }
    }
    f->port_count = 1;
    LMO_COPY(f->ports[0].id, g->port);
    LMO_COPY(f->ports[0].mac, "52:54:00:00:00:01");
}

static int hv_describe(struct lmo_hypervisor *hv, const char *vm, struct lmo_vm_facts *ret, uint64_t timeout_ms,
                       struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, vm, FAKE_DESCRIBE, &r, err)) {
        return r;
    }
    if (fake_state_of(v.c) == LMO_RUN_ABSENT) {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no domain '%s'", vm);
    } else {
        facts_of(&v, ret);
    }
    return end(&v, r, err);
}

static int hv_list(struct lmo_hypervisor *hv, int (*cb)(void *arg, const struct lmo_vm_facts *vm), void *arg,
                   uint64_t timeout_ms, struct lmo_err *err)
{
    struct fake_world *w = ((struct fake_hv *)(void *)hv)->seat->world;
    for (unsigned n = 0; n < w->guest_count; n++) {
        struct lmo_vm_facts f;
        int r = hv_describe(hv, fake_guest(w, n)->uuid, &f, timeout_ms, err);
        if (r < 0 && r != LMO_E_NOT_FOUND) {
            return r;
        }
        if (r == 0 && cb(arg, &f) != 0) {
            break;
        }
    }
    return 0;
}

static int hv_state(struct lmo_hypervisor *hv, const char *uuid, enum lmo_run_state *ret, uint64_t timeout_ms,
                    struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_STATE, &r, err)) {
        return r;
    }
    *ret = fake_state_of(v.c);
    return end(&v, 0, err);
}

/* As long as a real one, if the world says so. */
static char *domain_xml(const struct visit *v, const struct lmo_hv_disk_map *map)
{
    size_t size = 256 + map->count * 128 + v->w->cfg.xml_bytes, n;
    char *text = malloc(size);
    lmo_assert(text);
    n = (size_t)snprintf(text, size, "<domain>");
    for (unsigned i = 0; i < map->count; i++) {
        n += (size_t)snprintf(text + n, size - n, "%.15s=%.100s;", map->disk[i].target, map->disk[i].export_name);
    }
    while (n + 64 < v->w->cfg.xml_bytes) {
        n += (size_t)snprintf(text + n, size - n, "<address type='pci' bus='0x%02x'/>", (unsigned)(n & 0xff));
    }
    snprintf(text + n, size - n, "</domain>");
    return text;
}

static int hv_outgoing_xml(struct lmo_hypervisor *hv, const char *uuid, const struct lmo_hv_disk_map *map,
                           char **ret_xml, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_OUTGOING_XML, &r, err)) {
        return r;
    }
    *ret_xml = domain_xml(&v, map);
    return end(&v, 0, err);
}

/* ------------------------------------------------------------------ the destination's preparations */

static int hv_check_reach(struct lmo_hypervisor *hv, const char *peer_uri, const char *migration_uri,
                          uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = ((struct fake_hv *)(void *)hv)->seat->world;
    int r = 0;
    if (fake_enter(w, FAKE_CHECK_REACH, &r, err)) {
        return r;
    }
    if (!peer_uri[0] || !migration_uri[0]) {
        r = lmo_fail(err, LMO_E_INVALID, "an address is missing");
    }
    return fake_leave(w, FAKE_CHECK_REACH, r, err);
}

static int hv_precheck(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                       struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    return begin(&v, hv, in->uuid, FAKE_PRECHECK, &r, err) ? end(&v, 0, err) : r;
}

static int hv_prepare(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, in->uuid, FAKE_PREPARE, &r, err)) {
        return r;
    }
    struct fake_copy *c = v.g ? make_copy(v.g, v.host) : NULL;
    if (c) {
        c->prepared = true;
    } else {
        r = lmo_fail(err, LMO_E_REFUSED, "guest '%s' is on other hosts", in->uuid);
    }
    return end(&v, r, err);
}

static int hv_discard(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_DISCARD, &r, err)) {
        return r;
    }
    if (v.c && v.c->process && !v.c->incoming) {
        r = lmo_fail(err, LMO_E_REFUSED, "the guest is not merely incoming");
    } else if (v.c) {
        fake_process_ends_locked(v.w, v.g, v.c, "destroyed");
        v.c->prepared = v.c->defined = false;
    }
    return end(&v, r, err);
}

/* ------------------------------------------------------------------ jobs */

static bool is_source(const struct visit *v)
{
    return v->c && v->g->job.running && &v->g->copies[v->g->job.from] == v->c;
}

static void watch_end(struct visit *v, lmo_hv_job_end_fn *fn, void *arg)
{
    v->seat->end = fn;
    v->seat->end_arg = arg;
}

static int hv_job_adopt(struct lmo_hypervisor *hv, const struct lmo_hv_job *job, lmo_hv_job_end_fn *fn, void *arg,
                        struct lmo_err *err)
{
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, job->uuid, FAKE_JOB_ADOPT, &r, err)) {
        return r;
    }
    if (is_source(&v)) {
        watch_end(&v, fn, arg);
    } else {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no job runs");
    }
    return end(&v, r, err);
}

static int hv_measure_dirty(struct lmo_hypervisor *hv, const char *uuid, uint64_t fresh_ms, uint64_t timeout_ms,
                            struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_MEASURE_DIRTY, &r, err)) {
        return r;
    }
    if (v.g && (v.g->dirty_age_ms == 0 || v.g->dirty_age_ms > fresh_ms)) {
        v.g->dirty_age_ms = 1;
    }
    return end(&v, r, err);
}

static int hv_job_start(struct lmo_hypervisor *hv, const struct lmo_hv_job *job, lmo_hv_job_end_fn *fn, void *arg,
                        struct lmo_err *err)
{
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, job->uuid, FAKE_JOB_START, &r, err)) {
        return r;
    }
    const char *name = strstr(job->peer_uri, "://");
    int to = fake_host_named(v.w, name ? name + 3 : "");
    struct fake_copy *there = v.g && to >= 0 ? make_copy(v.g, (unsigned)to) : NULL;
    if (!v.c || !v.c->process || !there || there == v.c) {
        r = lmo_fail(err, LMO_E_REFUSED, "no guest here, or no place for it at '%s'", job->peer_uri);
    } else if (v.g->job.running) {
        r = lmo_fail(err, LMO_E_BUSY, "a job runs already");
    } else {
        watch_end(&v, fn, arg);
        v.g->job.bandwidth_bytes_per_s = job->gate_bandwidth_bytes_per_s;
        v.g->job.downtime_ms = job->gate_downtime_ms;
        v.g->job.throttle_initial_percent = job->throttle_initial_percent;
        v.g->job.throttle_increment_percent = job->throttle_increment_percent;
        fake_job_begin_locked(v.w, v.g, v.c, there);
    }
    return end(&v, r, err);
}

static int hv_job_limits(struct lmo_hypervisor *hv, const char *uuid, uint64_t bandwidth, uint64_t downtime_ms,
                         struct lmo_err *err)
{
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_JOB_LIMITS, &r, err)) {
        return r;
    }
    if (is_source(&v)) {
        fake_job_limits_locked(v.w, v.g, bandwidth, downtime_ms);
    } else {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no job runs");
    }
    return end(&v, r, err);
}

static int hv_job_progress(struct lmo_hypervisor *hv, const char *uuid, struct lmo_progress *ret, struct lmo_err *err)
{
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_JOB_PROGRESS, &r, err)) {
        return r;
    }
    if (v.g) {
        fake_job_sample_locked(v.w, v.g, ret);
    } else {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no job runs");
    }
    return end(&v, r, err);
}

static int hv_job_abort(struct lmo_hypervisor *hv, const char *uuid, struct lmo_err *err)
{
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_JOB_ABORT, &r, err)) {
        return r;
    }
    r = v.g ? fake_job_abort_locked(v.w, v.g, err) : lmo_fail(err, LMO_E_REFUSED, "no job can be aborted");
    return end(&v, r, err);
}

/* ------------------------------------------------------------------ the cutover */

static void hv_freeze(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_freeze_result *ret)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    struct lmo_err err = {0};
    memset(ret, 0, sizeof *ret);
    if (!begin(&v, hv, uuid, FAKE_FREEZE, &r, &err)) {
        LMO_COPY(ret->evidence, "made to fail");
        return;
    }
    struct fake_copy *c = v.c;
    if (v.w->freeze_unknown || !c) {
        ret->answer = LMO_FREEZE_UNKNOWN;
    } else if (!c->process) {
        ret->answer = c->ran_after_pause ? LMO_FREEZE_UNKNOWN : LMO_FREEZE_GONE;
    } else if (c->ran_after_pause || (c->vcpus && !c->stopped)) {
        ret->answer = LMO_FREEZE_RUNNING;
    } else {
        c->stopped = true;
        ret->answer = LMO_FREEZE_FROZEN;
    }
    snprintf(ret->evidence, sizeof ret->evidence, "fake: %s", lmo_freeze_answer_name(ret->answer));
    (void)end(&v, 0, &err);
}

static bool hv_copy_ended(struct lmo_hypervisor *hv, const char *uuid)
{
    struct fake_seat *seat = ((struct fake_hv *)(void *)hv)->seat;
    fake_lock(seat->world);
    struct fake_guest *g = fake_guest_named(seat->world, uuid);
    const struct fake_copy *c = g ? fake_copy_at(g, (unsigned)seat->host) : NULL;
    bool ended = c && !c->process;
    fake_unlock(seat->world);
    return ended;
}

static bool hv_reachable(struct lmo_hypervisor *hv)
{
    struct fake_seat *seat = ((struct fake_hv *)(void *)hv)->seat;
    fake_lock(seat->world);
    bool open = seat->world->hosts[seat->host].open;
    fake_unlock(seat->world);
    return open;
}

static int hv_thaw(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_THAW, &r, err)) {
        return r;
    }
    if (v.c && v.c->stopped) {
        v.c->stopped = false;
        if (v.c->resume_queued) {
            v.c->resume_queued = false;
            fake_source_resumes_locked(v.w, v.g, v.c);
        }
    }
    return end(&v, 0, err);
}

static int hv_kill(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_KILL, &r, err)) {
        return r;
    }
    if (v.c) {
        if (fake_copy_runs(v.c)) {
            fake_violate(v.w, v.g, "a running guest was killed");
        }
        fake_process_ends_locked(v.w, v.g, v.c, "migrated");
        fake_job_may_end_locked(v.w, v.g);
    }
    return end(&v, 0, err);
}

static int hv_remove(struct lmo_hypervisor *hv, const char *uuid, bool expected_dead, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_REMOVE, &r, err)) {
        return r;
    }
    if (v.c && fake_copy_runs(v.c)) {
        fake_violate(v.w, v.g, "a running guest was removed");
    }
    if (v.c && v.c->process && !expected_dead) {
        r = lmo_fail(err, LMO_E_REFUSED, "the guest is not dead");
    } else if (v.c) {
        fake_process_ends_locked(v.w, v.g, v.c, "destroyed");
        fake_job_may_end_locked(v.w, v.g);
        v.c->defined = v.c->prepared = false;
    }
    return end(&v, r, err);
}

static int hv_resume(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_RESUME, &r, err)) {
        return r;
    }
    struct fake_copy *c = v.c;
    if (!c || !c->process || c->incoming || c->stopped) {
        r = lmo_fail(err, LMO_E_INVALID, "the guest is %s", lmo_run_state_name(fake_state_of(c)));
    } else if (!c->vcpus) {
        if (c->loaded) {
            fake_check_resume_locked(v.w, v.g, c);
            if (c->paused_by_user) {
                fake_violate(v.w, v.g, "a guest that its owner had paused was resumed");
            }
        } else {
            c->ran_after_pause = true;
        }
        c->loaded = c->migration_pause = false;
        c->vcpus = true;
        fake_emit_locked(v.w, v.g, c->host, LMO_HV_EV_RESUMED, "unpaused", 0);
    }
    return end(&v, r, err);
}

static int hv_settle(struct lmo_hypervisor *hv, const char *uuid, bool persistent, bool autostart, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_SETTLE, &r, err)) {
        return r;
    }
    if (v.c) {
        v.c->defined = persistent;
        v.c->autostart = autostart;
        v.c->prepared = false;
    }
    return end(&v, 0, err);
}

static int hv_release(struct lmo_hypervisor *hv, const char *uuid, const char *xml, bool autostart, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    (void)autostart;
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_RELEASE_GUEST, &r, err)) {
        return r;
    }
    if (!xml[0]) {
        fake_violate(v.w, v.g, "a release without the definition");
    }
    if (v.c && v.c->process) {
        v.c->defined = true;
        r = lmo_fail(err, LMO_E_CONFLICT, "the guest was started here meanwhile");
    } else if (v.c) {
        v.c->defined = v.c->autostart = false;
    }
    return end(&v, r, err);
}

static int hv_define(struct lmo_hypervisor *hv, const char *uuid, const char *xml, const struct lmo_hv_disk_map *map,
                     bool autostart, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)xml;
    (void)map;
    (void)timeout_ms;
    struct visit v;
    int r = 0;
    if (!begin(&v, hv, uuid, FAKE_DEFINE, &r, err)) {
        return r;
    }
    struct fake_copy *c = v.g ? make_copy(v.g, v.host) : NULL;
    for (unsigned i = 0; c && i < FAKE_COPIES; i++) {
        if (&v.g->copies[i] != c && v.g->copies[i].defined) {
            fake_violate(v.w, v.g, "defined on two hosts");
        }
    }
    if (c) {
        c->defined = true;
        c->autostart = autostart;
    } else {
        r = lmo_fail(err, LMO_E_REFUSED, "guest '%s' is on other hosts", uuid);
    }
    return end(&v, r, err);
}

static const struct lmo_hypervisor_ops hv_ops = {
    .name = "fake",
    .close = hv_close,
    .list = hv_list,
    .describe = hv_describe,
    .state = hv_state,
    .outgoing_xml = hv_outgoing_xml,
    .check_reach = hv_check_reach,
    .precheck_incoming = hv_precheck,
    .prepare_incoming = hv_prepare,
    .discard_prepared = hv_discard,
    .job_adopt = hv_job_adopt,
    .job_start = hv_job_start,
    .job_limits = hv_job_limits,
    .job_progress = hv_job_progress,
    .job_abort = hv_job_abort,
    .measure_dirty = hv_measure_dirty,
    .freeze = hv_freeze,
    .copy_ended = hv_copy_ended,
    .reachable = hv_reachable,
    .thaw = hv_thaw,
    .kill = hv_kill,
    .remove = hv_remove,
    .resume = hv_resume,
    .settle = hv_settle,
    .release = hv_release,
    .define = hv_define,
};

struct lmo_hypervisor *fake_hypervisor_new(struct fake_seat *seat)
{
    struct fake_hv *hv = calloc(1, sizeof *hv);
    lmo_assert(hv);
    *hv = (struct fake_hv){.base.ops = &hv_ops, .seat = seat};
    return &hv->base;
}
