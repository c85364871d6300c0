/* fake_drivers.c - see fake_drivers.h. */
#include "fake_drivers.h"

#include "base/clock.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ------------------------------------------------------------------ the checker: from outside of all workers */

static bool runs(const struct fake_host *h)
{
    return h->process && h->vcpus && !h->stopped;
}

static void violate(struct fake_world *w, const char *what)
{
    if (!w->violation[0]) {
        snprintf(w->violation, sizeof w->violation, "%s", what);
    }
}

static void check_world(struct fake_world *w)
{
    if (runs(&w->hosts[0]) && runs(&w->hosts[1])) {
        violate(w, "two copies of the guest may run");
    }
    pthread_cond_broadcast(&w->changed);
}

/* The copy at `h`, which was loaded, begins to run. */
static void check_resume(struct fake_world *w, struct fake_host *h)
{
    struct fake_host *source = &w->hosts[w->job_from];
    if (h == source) {
        return;
    }
    if (source->ran_after_pause) {
        violate(w, "the destination runs although the source ran on after its pause");
    }
    for (unsigned v = 0; v < w->volume_count; v++) {
        for (unsigned e = 0; e < FAKE_EXPORTS; e++) {
            const struct fake_export *x = &w->volumes[v].exports[e];
            if (x->offered && strcmp(x->host, source->name) == 0) {
                violate(w, "the destination runs while an export of the source is still offered");
            }
        }
    }
}

int fake_runs_at(struct fake_world *w)
{
    pthread_mutex_lock(&w->lock);
    int at = runs(&w->hosts[0]) ? (runs(&w->hosts[1]) ? -2 : 0) : runs(&w->hosts[1]) ? 1 : -1;
    pthread_mutex_unlock(&w->lock);
    return at;
}

bool fake_wait_runs_at(struct fake_world *w, int host, unsigned timeout_ms)
{
    uint64_t end = lmo_now_ms() + timeout_ms;
    while (fake_runs_at(w) != host && lmo_now_ms() < end) {
        struct timespec ts = {.tv_nsec = 2000000};
        nanosleep(&ts, NULL);
    }
    return fake_runs_at(w) == host;
}

/* ------------------------------------------------------------------ rules and counters */

/* Called first by every driver function, without the lock. True: fail now with *ret. `enter`'s twin `leave` is called
 * at the end and may turn a success into a lost answer. */
static bool enter(struct fake_world *w, enum fake_call call, int *ret, struct lmo_err *err)
{
    pthread_mutex_lock(&w->lock);
    w->count[call]++;
    struct fake_rule *rule = &w->rules[call];
    uint64_t delay = rule->delay_ms;
    bool fails = rule->times > 0 && !rule->after;
    if (fails) {
        rule->times--;
        *ret = lmo_fail(err, rule->code, "made to fail");
    }
    pthread_mutex_unlock(&w->lock);
    if (delay) {
        struct timespec ts = {.tv_sec = (time_t)(delay / 1000), .tv_nsec = (long)(delay % 1000) * 1000000};
        nanosleep(&ts, NULL);
    }
    return fails;
}

static int leave(struct fake_world *w, enum fake_call call, int r, struct lmo_err *err)
{
    pthread_mutex_lock(&w->lock);
    struct fake_rule *rule = &w->rules[call];
    if (r == 0 && rule->times > 0 && rule->after) {
        rule->times--;
        r = lmo_fail(err, rule->code, "made to lose its answer");
    }
    check_world(w);
    pthread_mutex_unlock(&w->lock);
    return r;
}

unsigned fake_count(struct fake_world *w, enum fake_call call)
{
    pthread_mutex_lock(&w->lock);
    unsigned n = w->count[call];
    pthread_mutex_unlock(&w->lock);
    return n;
}

void fake_fail(struct fake_world *w, enum fake_call call, int code, unsigned times, bool after)
{
    pthread_mutex_lock(&w->lock);
    w->rules[call].code = code;
    w->rules[call].times = times;
    w->rules[call].after = after;
    pthread_mutex_unlock(&w->lock);
}

void fake_delay(struct fake_world *w, enum fake_call call, uint64_t ms)
{
    pthread_mutex_lock(&w->lock);
    w->rules[call].delay_ms = ms;
    pthread_mutex_unlock(&w->lock);
}

/* ------------------------------------------------------------------ events (with the lock) */

static void emit(struct fake_host *h, enum lmo_hv_event_kind kind, const char *reason, uint64_t value)
{
    if (!h->open) {
        return;
    }
    struct lmo_hv_event ev = {.kind = kind,
                              .value = value,
                              .realtime_us = lmo_realtime_us(),
                              .monotonic_ns = lmo_now_ns()};
    snprintf(ev.uuid, sizeof ev.uuid, "%s", FAKE_VM);
    snprintf(ev.reason, sizeof ev.reason, "%s", reason);
    h->on_event(h->event_arg, &ev);
}

static void end_job(struct fake_world *w, bool ok, const char *text)
{
    if (!w->job) {
        return;
    }
    w->job = false;
    struct lmo_hv_job_end end = {.call_succeeded = ok, .call_ms = 42};
    snprintf(end.text, sizeof end.text, "%s", text);
    if (w->end) {
        w->end(w->end_arg, FAKE_VM, &end);
    }
    w->end = NULL;
}

static struct fake_host *source_of(struct fake_world *w)
{
    return &w->hosts[w->job_from];
}

static struct fake_host *destination_of(struct fake_world *w)
{
    return &w->hosts[1 - w->job_from];
}

static void process_ends(struct fake_host *h, const char *reason)
{
    if (!h->process) {
        return;
    }
    h->process = h->incoming = h->loaded = h->vcpus = h->stopped = h->resume_queued = h->migration_pause = false;
    emit(h, LMO_HV_EV_STOPPED, reason, 0);
}

/* The source's guest goes on here (or will, once it is continued). */
static void source_resumes(struct fake_host *h)
{
    if (!h->process || h->paused_by_user) {
        return;
    }
    h->migration_pause = false;
    if (h->stopped) {
        h->resume_queued = true;
        return;
    }
    h->vcpus = true;
    h->ran_after_pause = true;
    emit(h, LMO_HV_EV_RESUMED, "migration canceled", 0);
}

/* A frozen or killed source lets the call end, as it was measured to. */
static void job_may_end(struct fake_world *w)
{
    if (w->job && w->job_loaded && !source_of(w)->process) {
        end_job(w, true, "");
    }
}

static void suspend_locked(struct fake_world *w)
{
    struct fake_host *h = source_of(w);
    if (!w->job || w->job_suspended || !h->process) {
        return;
    }
    w->job_suspended = true;
    h->vcpus = false;
    h->migration_pause = true;
    emit(h, LMO_HV_EV_SUSPENDED, "migrated", 0);
    check_world(w);
}

static void load_locked(struct fake_world *w)
{
    struct fake_host *h = destination_of(w);
    if (!w->job || !w->job_suspended || w->job_loaded || !h->incoming) {
        return;
    }
    w->job_loaded = true;
    h->incoming = false;
    h->loaded = true;
    h->defined = true;
    emit(h, LMO_HV_EV_LOADED, "migrated", 0);
    check_world(w);
}

void fake_suspend(struct fake_world *w)
{
    pthread_mutex_lock(&w->lock);
    suspend_locked(w);
    pthread_mutex_unlock(&w->lock);
}

void fake_load(struct fake_world *w)
{
    pthread_mutex_lock(&w->lock);
    load_locked(w);
    pthread_mutex_unlock(&w->lock);
}

void fake_give_up(struct fake_world *w)
{
    pthread_mutex_lock(&w->lock);
    source_resumes(source_of(w));
    end_job(w, false, "client socket is closed");
    check_world(w);
    pthread_mutex_unlock(&w->lock);
}

void fake_finish(struct fake_world *w)
{
    pthread_mutex_lock(&w->lock);
    process_ends(source_of(w), "migrated");
    job_may_end(w);
    check_world(w);
    pthread_mutex_unlock(&w->lock);
}

void fake_copy_dies(struct fake_world *w)
{
    pthread_mutex_lock(&w->lock);
    process_ends(destination_of(w), "failed");
    check_world(w);
    pthread_mutex_unlock(&w->lock);
}

void fake_break_watch(struct fake_world *w, unsigned host, bool restored)
{
    pthread_mutex_lock(&w->lock);
    emit(&w->hosts[host], restored ? LMO_HV_EV_WATCH_RESTORED : LMO_HV_EV_WATCH_BROKEN, "test", 0);
    pthread_mutex_unlock(&w->lock);
}

/* Once the gate is open the job goes its way: pause, a few milliseconds, loaded. */
static void *world_thread(void *arg)
{
    struct fake_world *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->ending) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 5000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        if (w->job && w->automatic && w->job_gate_open) {
            if (!w->job_suspended) {
                suspend_locked(w);
            } else if (!w->job_loaded) {
                load_locked(w);
            }
        }
        job_may_end(w);
        pthread_cond_timedwait(&w->changed, &w->lock, &until);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ------------------------------------------------------------------ hypervisor */

struct fake_hv {
    struct lmo_hypervisor base;
    struct fake_host *host;
};

static struct fake_host *host_of(struct lmo_hypervisor *hv)
{
    return ((struct fake_hv *)hv)->host;
}

static void hv_close(struct lmo_hypervisor *hv)
{
    struct fake_host *h = host_of(hv);
    pthread_mutex_lock(&h->world->lock);
    h->open = false;
    if (source_of(h->world) == h) {
        h->world->end = NULL;
    }
    pthread_mutex_unlock(&h->world->lock);
    free(hv);
}

static enum lmo_run_state state_of(const struct fake_host *h)
{
    return !h->process          ? (h->defined ? LMO_RUN_SHUT_OFF : LMO_RUN_ABSENT)
           : h->incoming        ? LMO_RUN_INCOMING
           : h->loaded          ? LMO_RUN_LOADED
           : h->migration_pause ? LMO_RUN_PAUSED_MIGRATION
           : h->paused_by_user  ? LMO_RUN_PAUSED_BY_USER
           : h->vcpus           ? LMO_RUN_RUNNING
                                : LMO_RUN_PAUSED_OTHER;
}

static void facts_of(struct fake_host *h, struct lmo_vm_facts *f)
{
    *f = (struct lmo_vm_facts){.state = state_of(h), .persistent = h->defined, .memory_bytes = 256U << 20, .vcpus = 1};
    snprintf(f->uuid, sizeof f->uuid, "%s", FAKE_VM);
    snprintf(f->name, sizeof f->name, "guest");
    snprintf(f->machine, sizeof f->machine, "pc-q35-7.2");
    f->dirty_bytes_per_s = h->world->dirty_bytes_per_s;
    f->dirty_age_ms = h->world->dirty_age_ms;
    f->volume_count = h->world->volume_count;
    for (unsigned i = 0; i < f->volume_count; i++) {
        struct lmo_volume *v = &f->volumes[i];
        snprintf(v->volume, sizeof v->volume, "%s", h->world->volumes[i].name);
        snprintf(v->target, sizeof v->target, "vd%c", 'a' + (char)i);
        snprintf(v->driver, sizeof v->driver, "nbd");
        snprintf(v->service, sizeof v->service, "10.0.0.9:10809");
        snprintf(v->export_name, sizeof v->export_name, "%.60s.%.60s.e1", h->world->volumes[i].name, h->name);
    }
    f->port_count = 1;
    snprintf(f->ports[0].id, sizeof f->ports[0].id, "%s", FAKE_PORT);
    snprintf(f->ports[0].mac, sizeof f->ports[0].mac, "52:54:00:00:00:01");
}

static int hv_describe(struct lmo_hypervisor *hv, const char *vm, struct lmo_vm_facts *ret, uint64_t timeout_ms,
                       struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_host *h = host_of(hv);
    int r = 0;
    if (enter(h->world, FAKE_DESCRIBE, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&h->world->lock);
    if ((strcmp(vm, FAKE_VM) != 0 && strcmp(vm, "guest") != 0) || state_of(h) == LMO_RUN_ABSENT) {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no domain '%s'", vm);
    } else {
        facts_of(h, ret);
    }
    pthread_mutex_unlock(&h->world->lock);
    return leave(h->world, FAKE_DESCRIBE, r, err);
}

static int hv_list(struct lmo_hypervisor *hv, int (*cb)(void *arg, const struct lmo_vm_facts *vm), void *arg,
                   uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_vm_facts f;
    int r = hv_describe(hv, FAKE_VM, &f, timeout_ms, err);
    if (r == 0) {
        (void)cb(arg, &f);
    }
    return r == LMO_E_NOT_FOUND ? 0 : r;
}

static int hv_state(struct lmo_hypervisor *hv, const char *uuid, enum lmo_run_state *ret, uint64_t timeout_ms,
                    struct lmo_err *err)
{
    (void)timeout_ms;
    (void)uuid;
    struct fake_host *h = host_of(hv);
    int r = 0;
    if (enter(h->world, FAKE_STATE, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&h->world->lock);
    *ret = state_of(h);
    pthread_mutex_unlock(&h->world->lock);
    return leave(h->world, FAKE_STATE, 0, err);
}

static int hv_outgoing_xml(struct lmo_hypervisor *hv, const char *uuid, const struct lmo_hv_disk_map *map,
                           char **ret_xml, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    (void)uuid;
    struct fake_host *h = host_of(hv);
    int r = 0;
    if (enter(h->world, FAKE_OUTGOING_XML, &r, err)) {
        return r;
    }
    char text[1024];
    int n = snprintf(text, sizeof text, "<domain>");
    for (unsigned i = 0; i < map->count; i++) {
        n +=
            snprintf(text + n, sizeof text - (size_t)n, "%.15s=%.100s;", map->disk[i].target, map->disk[i].export_name);
    }
    snprintf(text + n, sizeof text - (size_t)n, "</domain>");
    *ret_xml = strdup(text);
    return leave(h->world, FAKE_OUTGOING_XML, 0, err);
}

static int hv_precheck(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                       struct lmo_err *err)
{
    (void)timeout_ms;
    (void)in;
    int r = 0;
    struct fake_world *w = host_of(hv)->world;
    return enter(w, FAKE_PRECHECK, &r, err) ? r : leave(w, FAKE_PRECHECK, 0, err);
}

static int hv_prepare(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    (void)timeout_ms;
    (void)in;
    struct fake_host *h = host_of(hv);
    int r = 0;
    if (enter(h->world, FAKE_PREPARE, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&h->world->lock);
    h->prepared = true;
    pthread_mutex_unlock(&h->world->lock);
    return leave(h->world, FAKE_PREPARE, 0, err);
}

static int hv_discard(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    (void)uuid;
    struct fake_host *h = host_of(hv);
    int r = 0;
    if (enter(h->world, FAKE_DISCARD, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&h->world->lock);
    if (h->process && !h->incoming) {
        r = lmo_fail(err, LMO_E_REFUSED, "the guest is not merely incoming");
    } else {
        process_ends(h, "destroyed");
        h->prepared = h->defined = false;
    }
    pthread_mutex_unlock(&h->world->lock);
    return leave(h->world, FAKE_DISCARD, r, err);
}

static int hv_job_adopt(struct lmo_hypervisor *hv, const struct lmo_hv_job *job, lmo_hv_job_end_fn *end, void *arg,
                        struct lmo_err *err)
{
    (void)job;
    struct fake_host *h = host_of(hv);
    struct fake_world *w = h->world;
    int r = 0;
    if (enter(w, FAKE_JOB_ADOPT, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    if (w->job && source_of(w) == h) {
        w->end = end;
        w->end_arg = arg;
    } else {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no job runs");
    }
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_JOB_ADOPT, r, err);
}

static int hv_measure_dirty(struct lmo_hypervisor *hv, const char *uuid, uint64_t fresh_ms, uint64_t timeout_ms,
                            struct lmo_err *err)
{
    (void)uuid;
    (void)timeout_ms;
    struct fake_world *w = host_of(hv)->world;
    int r = 0;
    if (enter(w, FAKE_MEASURE_DIRTY, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    if (w->dirty_age_ms == 0 || w->dirty_age_ms > fresh_ms) {
        w->dirty_age_ms = 1;
    }
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_MEASURE_DIRTY, r, err);
}

static int hv_job_start(struct lmo_hypervisor *hv, const struct lmo_hv_job *job, lmo_hv_job_end_fn *end, void *arg,
                        struct lmo_err *err)
{
    struct fake_host *h = host_of(hv);
    struct fake_world *w = h->world;
    int r = 0;
    if (enter(w, FAKE_JOB_START, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    if (w->job) {
        r = lmo_fail(err, LMO_E_BUSY, "a job runs already");
    } else {
        w->job_from = (unsigned)(h - w->hosts);
        w->job_spec = *job;
        w->job_spec.destination_xml = NULL; /* borrowed */
        w->job = true;
        w->job_gate_open = w->job_suspended = w->job_loaded = false;
        w->end = end;
        w->end_arg = arg;
        w->iteration = 1;
        struct fake_host *d = destination_of(w);
        d->process = d->incoming = true;
        d->loaded = d->vcpus = false;
        d->paused_by_user = h->paused_by_user;
        emit(d, LMO_HV_EV_INCOMING, "migrated", 0);
    }
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_JOB_START, r, err);
}

static int hv_job_limits(struct lmo_hypervisor *hv, const char *uuid, uint64_t bandwidth, uint64_t downtime_ms,
                         struct lmo_err *err)
{
    (void)uuid;
    struct fake_world *w = host_of(hv)->world;
    int r = 0;
    if (enter(w, FAKE_JOB_LIMITS, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    if (w->job) {
        w->job_gate_open = true;
        w->limit_bandwidth = bandwidth;
        w->limit_downtime_ms = downtime_ms;
    } else {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no job runs");
    }
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_JOB_LIMITS, r, err);
}

static int hv_job_progress(struct lmo_hypervisor *hv, const char *uuid, struct lmo_progress *ret, struct lmo_err *err)
{
    (void)uuid;
    struct fake_world *w = host_of(hv)->world;
    int r = 0;
    if (enter(w, FAKE_JOB_PROGRESS, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    *ret = (struct lmo_progress){.total_bytes = w->total,
                                 .remaining_bytes = w->remaining,
                                 .iteration = w->iteration,
                                 .disk_total_bytes = w->disk_total,
                                 .disk_remaining_bytes = w->disk_remaining,
                                 .transferred_bytes = w->total - w->remaining};
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_JOB_PROGRESS, 0, err);
}

static int hv_job_abort(struct lmo_hypervisor *hv, const char *uuid, struct lmo_err *err)
{
    (void)uuid;
    struct fake_world *w = host_of(hv)->world;
    int r = 0;
    if (enter(w, FAKE_JOB_ABORT, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    if (w->job && !w->job_loaded) {
        process_ends(destination_of(w), "failed");
        if (w->job_suspended) {
            source_resumes(source_of(w));
        }
        end_job(w, false, "operation aborted");
    } else {
        r = lmo_fail(err, LMO_E_REFUSED, "no job can be aborted");
    }
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_JOB_ABORT, r, err);
}

static void hv_freeze(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_freeze_result *ret)
{
    (void)uuid;
    (void)timeout_ms;
    struct fake_host *h = host_of(hv);
    struct fake_world *w = h->world;
    int r = 0;
    struct lmo_err err = {0};
    memset(ret, 0, sizeof *ret);
    if (enter(w, FAKE_FREEZE, &r, &err)) {
        snprintf(ret->evidence, sizeof ret->evidence, "made to fail");
        return;
    }
    pthread_mutex_lock(&w->lock);
    if (w->freeze_unknown) {
        ret->answer = LMO_FREEZE_UNKNOWN;
    } else if (!h->process) {
        ret->answer = h->ran_after_pause ? LMO_FREEZE_UNKNOWN : LMO_FREEZE_GONE;
    } else if (h->ran_after_pause || (h->vcpus && !h->stopped)) {
        ret->answer = LMO_FREEZE_RUNNING;
    } else {
        h->stopped = true;
        ret->answer = LMO_FREEZE_FROZEN;
    }
    snprintf(ret->evidence, sizeof ret->evidence, "fake: %s", lmo_freeze_answer_name(ret->answer));
    pthread_mutex_unlock(&w->lock);
    (void)leave(w, FAKE_FREEZE, 0, &err);
}

static int hv_thaw(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)uuid;
    (void)timeout_ms;
    struct fake_host *h = host_of(hv);
    int r = 0;
    if (enter(h->world, FAKE_THAW, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&h->world->lock);
    if (h->stopped) {
        h->stopped = false;
        if (h->resume_queued) {
            h->resume_queued = false;
            source_resumes(h);
        }
    }
    pthread_mutex_unlock(&h->world->lock);
    return leave(h->world, FAKE_THAW, 0, err);
}

static int hv_kill(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)uuid;
    (void)timeout_ms;
    struct fake_host *h = host_of(hv);
    int r = 0;
    if (enter(h->world, FAKE_KILL, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&h->world->lock);
    if (runs(h)) {
        violate(h->world, "a running guest was killed");
    }
    process_ends(h, "migrated");
    pthread_mutex_unlock(&h->world->lock);
    return leave(h->world, FAKE_KILL, 0, err);
}

static int hv_remove(struct lmo_hypervisor *hv, const char *uuid, bool expected_dead, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    (void)uuid;
    (void)timeout_ms;
    struct fake_host *h = host_of(hv);
    int r = 0;
    if (enter(h->world, FAKE_REMOVE, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&h->world->lock);
    if (runs(h)) {
        violate(h->world, "a running guest was removed");
    }
    if (h->process && !expected_dead) {
        r = lmo_fail(err, LMO_E_REFUSED, "the guest is not dead");
    } else {
        process_ends(h, "destroyed");
        h->defined = false;
    }
    pthread_mutex_unlock(&h->world->lock);
    return leave(h->world, FAKE_REMOVE, r, err);
}

static int hv_resume(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)uuid;
    (void)timeout_ms;
    struct fake_host *h = host_of(hv);
    struct fake_world *w = h->world;
    int r = 0;
    if (enter(w, FAKE_RESUME, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    if (!h->process || h->incoming || h->stopped) {
        r = lmo_fail(err, LMO_E_INVALID, "the guest is %s", lmo_run_state_name(state_of(h)));
    } else if (!h->vcpus) {
        if (h->loaded) {
            check_resume(w, h);
            if (h->paused_by_user) {
                violate(w, "a guest that its owner had paused was resumed");
            }
        } else {
            h->ran_after_pause = true;
        }
        h->loaded = h->migration_pause = false;
        h->vcpus = true;
        emit(h, LMO_HV_EV_RESUMED, "unpaused", 0);
    }
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_RESUME, r, err);
}

static int hv_settle(struct lmo_hypervisor *hv, const char *uuid, bool persistent, bool autostart, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    (void)uuid;
    (void)timeout_ms;
    struct fake_host *h = host_of(hv);
    int r = 0;
    if (enter(h->world, FAKE_SETTLE, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&h->world->lock);
    h->defined = persistent;
    h->autostart = autostart;
    pthread_mutex_unlock(&h->world->lock);
    return leave(h->world, FAKE_SETTLE, 0, err);
}

static const struct lmo_hypervisor_ops hv_ops = {
    .name = "fake",
    .close = hv_close,
    .list = hv_list,
    .describe = hv_describe,
    .state = hv_state,
    .outgoing_xml = hv_outgoing_xml,
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
    .thaw = hv_thaw,
    .kill = hv_kill,
    .remove = hv_remove,
    .resume = hv_resume,
    .settle = hv_settle,
};

/* ------------------------------------------------------------------ volumes */

struct fake_volumes {
    struct lmo_volume_driver base;
    struct fake_world *world;
};

static struct fake_world *volumes_world(struct lmo_volume_driver *d)
{
    return ((struct fake_volumes *)d)->world;
}

static void vol_close(struct lmo_volume_driver *d)
{
    free(d);
}

static struct fake_volume *volume_named(struct fake_world *w, const char *name)
{
    for (unsigned i = 0; i < w->volume_count; i++) {
        if (strcmp(w->volumes[i].name, name) == 0) {
            return &w->volumes[i];
        }
    }
    return NULL;
}

static struct fake_export *export_named(struct fake_volume *v, const char *name)
{
    for (unsigned i = 0; v && i < FAKE_EXPORTS; i++) {
        if (strcmp(v->exports[i].name, name) == 0) {
            return &v->exports[i];
        }
    }
    return NULL;
}

static int offer(struct fake_world *w, const char *volume, const char *host, uint64_t epoch,
                 char ret_export[LMO_EXPORT_MAX], struct lmo_err *err)
{
    struct fake_volume *v = volume_named(w, volume);
    char name[LMO_EXPORT_MAX];
    snprintf(name, sizeof name, "%.60s.%.60s.e%llu", volume, host, (unsigned long long)epoch);
    struct fake_export *x = export_named(v, name);
    if (!x) {
        x = export_named(v, "");
    }
    if (!v || !x) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "no volume '%s', or no slot", volume);
    }
    snprintf(x->name, sizeof x->name, "%s", name);
    snprintf(x->host, sizeof x->host, "%s", host);
    x->epoch = epoch;
    x->offered = !x->fenced;
    snprintf(ret_export, LMO_EXPORT_MAX, "%s", name);
    return 0;
}

static int vol_provision(struct lmo_volume_driver *d, const char *volume, const char *path, const char *format,
                         const char *host, uint64_t epoch, char ret_export[LMO_EXPORT_MAX], uint64_t timeout_ms,
                         struct lmo_err *err)
{
    (void)path;
    (void)format;
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    int r = 0;
    if (enter(w, FAKE_PROVISION, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    r = offer(w, volume, host, epoch, ret_export, err);
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_PROVISION, r, err);
}

static int vol_retire(struct lmo_volume_driver *d, const char *volume, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)volume;
    (void)timeout_ms;
    int r = 0;
    struct fake_world *w = volumes_world(d);
    return enter(w, FAKE_RETIRE, &r, err) ? r : leave(w, FAKE_RETIRE, 0, err);
}

static int vol_check(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    int r = 0;
    if (enter(w, FAKE_CHECK_VOLUME, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    struct fake_export *x = export_named(volume_named(w, volume), export_name);
    r = x && x->offered ? 0 : lmo_fail(err, LMO_E_REFUSED, "export '%s' is not offered", export_name);
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_CHECK_VOLUME, r, err);
}

static int vol_attach(struct lmo_volume_driver *d, const char *volume, const char *host, uint64_t epoch,
                      char ret_export[LMO_EXPORT_MAX], uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    int r = 0;
    if (enter(w, FAKE_ATTACH, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    r = offer(w, volume, host, epoch, ret_export, err);
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_ATTACH, r, err);
}

static int vol_fence(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    int r = 0;
    if (enter(w, FAKE_FENCE, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    struct fake_export *x = export_named(volume_named(w, volume), export_name);
    if (x) {
        x->offered = false;
        x->fenced = true;
    } else {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no export '%s'", export_name);
    }
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_FENCE, r, err);
}

static int vol_verify(struct lmo_volume_driver *d, const char *volume, const char *fenced, const char *holder,
                      uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    int r = 0;
    if (enter(w, FAKE_VERIFY, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    struct fake_export *f = export_named(volume_named(w, volume), fenced),
                       *h = export_named(volume_named(w, volume), holder);
    r = f && f->fenced && h && h->offered ? 0 : lmo_fail(err, LMO_E_REFUSED, "the fence does not hold");
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_VERIFY, r, err);
}

static int vol_detach(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    int r = 0;
    if (enter(w, FAKE_DETACH, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    struct fake_export *x = export_named(volume_named(w, volume), export_name);
    if (x) {
        x->offered = false;
    }
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_DETACH, 0, err);
}

static int vol_observe(struct lmo_volume_driver *d, const char *volume, struct lmo_volume_state *ret,
                       uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    pthread_mutex_lock(&w->lock);
    struct fake_volume *v = volume_named(w, volume);
    int r = v ? 0 : lmo_fail(err, LMO_E_NOT_FOUND, "no volume '%s'", volume);
    if (v) {
        *ret = (struct lmo_volume_state){.size_bytes = 1};
        snprintf(ret->volume, sizeof ret->volume, "%s", volume);
        for (unsigned i = 0; i < FAKE_EXPORTS; i++) {
            const struct fake_export *x = &v->exports[i];
            if (x->name[0]) {
                unsigned n = ret->export_count++;
                snprintf(ret->exports[n].name, sizeof ret->exports[n].name, "%s", x->name);
                snprintf(ret->exports[n].host, sizeof ret->exports[n].host, "%s", x->host);
                ret->exports[n].epoch = x->epoch;
                ret->exports[n].offered = x->offered;
                ret->exports[n].fenced = x->fenced;
            }
        }
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}

static const struct lmo_volume_ops vol_ops = {
    .name = "fake",
    .close = vol_close,
    .provision = vol_provision,
    .retire = vol_retire,
    .check = vol_check,
    .attach = vol_attach,
    .fence = vol_fence,
    .verify = vol_verify,
    .detach = vol_detach,
    .observe = vol_observe,
};

/* ------------------------------------------------------------------ fabric and host network */

struct fake_fabric {
    struct lmo_fabric base;
    struct fake_world *world;
};

static struct fake_world *fabric_world(struct lmo_fabric *f)
{
    return ((struct fake_fabric *)f)->world;
}

static void fab_close(struct lmo_fabric *f)
{
    free(f);
}

static int fab_check(struct lmo_fabric *f, const struct lmo_port *port, const char *source, const char *destination,
                     bool accept, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)port;
    (void)source;
    (void)destination;
    (void)accept;
    (void)timeout_ms;
    int r = 0;
    return enter(fabric_world(f), FAKE_CHECK_PORT, &r, err) ? r : leave(fabric_world(f), FAKE_CHECK_PORT, 0, err);
}

static int fab_preload(struct lmo_fabric *f, const char *destination, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)destination;
    (void)timeout_ms;
    int r = 0;
    return enter(fabric_world(f), FAKE_PRELOAD, &r, err) ? r : leave(fabric_world(f), FAKE_PRELOAD, 0, err);
}

static int fab_dual(struct lmo_fabric *f, const struct lmo_port *port, const char *source, const char *destination,
                    uint64_t timeout_ms, struct lmo_err *err)
{
    (void)port;
    (void)source;
    (void)destination;
    (void)timeout_ms;
    struct fake_world *w = fabric_world(f);
    int r = 0;
    if (enter(w, FAKE_DUAL, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    w->dual = true;
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_DUAL, 0, err);
}

static int fab_await_bound(struct lmo_fabric *f, const struct lmo_port *port, const char *destination,
                           uint64_t timeout_ms, struct lmo_err *err)
{
    (void)port;
    (void)destination;
    (void)timeout_ms;
    int r = 0;
    return enter(fabric_world(f), FAKE_AWAIT_BOUND, &r, err) ? r : leave(fabric_world(f), FAKE_AWAIT_BOUND, 0, err);
}

static int fab_single(struct lmo_fabric *f, const struct lmo_port *port, const char *host, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    (void)port;
    (void)timeout_ms;
    struct fake_world *w = fabric_world(f);
    int r = 0;
    if (enter(w, FAKE_SINGLE, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    w->dual = false;
    w->destination_open = false;
    snprintf(w->single, sizeof w->single, "%s", host);
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_SINGLE, 0, err);
}

static int fab_observe(struct lmo_fabric *f, const struct lmo_port *port, char *ret_text, size_t size,
                       uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    (void)err;
    struct fake_world *w = fabric_world(f);
    pthread_mutex_lock(&w->lock);
    snprintf(ret_text, size, "%s single=%s dual=%d", port->id, w->single, w->dual);
    pthread_mutex_unlock(&w->lock);
    return 0;
}

static const struct lmo_fabric_ops fab_ops = {
    .name = "fake",
    .close = fab_close,
    .check = fab_check,
    .preload = fab_preload,
    .dual = fab_dual,
    .await_bound = fab_await_bound,
    .single = fab_single,
    .observe = fab_observe,
};

struct fake_network {
    struct lmo_network base;
    struct fake_world *world;
};

static struct fake_world *network_world(struct lmo_network *n)
{
    return ((struct fake_network *)n)->world;
}

static void net_close(struct lmo_network *n)
{
    free(n);
}

static int net_await_installed(struct lmo_network *n, const struct lmo_port *port, uint64_t timeout_ms,
                               struct lmo_err *err)
{
    (void)port;
    (void)timeout_ms;
    int r = 0;
    return enter(network_world(n), FAKE_AWAIT_INSTALLED, &r, err)
               ? r
               : leave(network_world(n), FAKE_AWAIT_INSTALLED, 0, err);
}

static int net_activate(struct lmo_network *n, const struct lmo_port *port, struct lmo_err *err)
{
    (void)port;
    struct fake_world *w = network_world(n);
    int r = 0;
    if (enter(w, FAKE_ACTIVATE, &r, err)) {
        return r;
    }
    pthread_mutex_lock(&w->lock);
    w->destination_open = true;
    pthread_mutex_unlock(&w->lock);
    return leave(w, FAKE_ACTIVATE, 0, err);
}

static int net_activated(struct lmo_network *n, const struct lmo_port *port, bool *ret_open, uint64_t timeout_ms,
                         struct lmo_err *err)
{
    (void)port;
    (void)timeout_ms;
    (void)err;
    struct fake_world *w = network_world(n);
    pthread_mutex_lock(&w->lock);
    *ret_open = w->destination_open;
    pthread_mutex_unlock(&w->lock);
    return 0;
}

static void net_release(struct lmo_network *n, const struct lmo_port *port)
{
    (void)port;
    int r = 0;
    (void)enter(network_world(n), FAKE_RELEASE, &r, NULL);
}

static const struct lmo_network_ops net_ops = {
    .name = "fake",
    .close = net_close,
    .await_installed = net_await_installed,
    .activate = net_activate,
    .activated = net_activated,
    .release = net_release,
};

/* ------------------------------------------------------------------ seats */

static int seat_open(void *arg, lmo_hv_event_fn *on_event, void *event_arg, struct lmo_worker_drivers *ret,
                     struct lmo_err *err)
{
    (void)err;
    struct fake_seat *seat = arg;
    struct fake_world *w = seat->world;
    if (seat->index < 0) {
        struct fake_volumes *v = calloc(1, sizeof *v);
        struct fake_fabric *f = calloc(1, sizeof *f);
        ck_assert(v && f);
        *v = (struct fake_volumes){.base.ops = &vol_ops, .world = w};
        *f = (struct fake_fabric){.base.ops = &fab_ops, .world = w};
        *ret = (struct lmo_worker_drivers){.volume = &v->base, .fabric = &f->base};
        return 0;
    }
    struct fake_hv *hv = calloc(1, sizeof *hv);
    struct fake_network *n = calloc(1, sizeof *n);
    ck_assert(hv && n);
    *hv = (struct fake_hv){.base.ops = &hv_ops, .host = &w->hosts[seat->index]};
    *n = (struct fake_network){.base.ops = &net_ops, .world = w};
    pthread_mutex_lock(&w->lock);
    hv->host->on_event = on_event;
    hv->host->event_arg = event_arg;
    hv->host->open = true;
    pthread_mutex_unlock(&w->lock);
    *ret = (struct lmo_worker_drivers){.hypervisor = &hv->base, .network = &n->base};
    return 0;
}

static void seat_close(void *arg, struct lmo_worker_drivers *d)
{
    (void)arg;
    if (d->hypervisor) {
        d->hypervisor->ops->close(d->hypervisor);
    }
    if (d->network) {
        d->network->ops->close(d->network);
    }
    if (d->volume) {
        d->volume->ops->close(d->volume);
    }
    if (d->fabric) {
        d->fabric->ops->close(d->fabric);
    }
}

void fake_seat(struct fake_seat *seat, struct fake_world *w, int index, struct lmo_worker_config *cfg)
{
    *seat = (struct fake_seat){.world = w, .index = index};
    cfg->drivers_open = seat_open;
    cfg->drivers_close = seat_close;
    cfg->drivers_arg = seat;
}

struct fake_world *fake_world_new(void)
{
    struct fake_world *w = calloc(1, sizeof *w);
    ck_assert(w);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    for (unsigned i = 0; i < FAKE_HOSTS; i++) {
        w->hosts[i].world = w;
        snprintf(w->hosts[i].name, sizeof w->hosts[i].name, "hv%u", i + 1);
    }
    w->hosts[0].process = w->hosts[0].vcpus = w->hosts[0].defined = true;
    w->volume_count = FAKE_VOLUMES;
    for (unsigned i = 0; i < FAKE_VOLUMES; i++) {
        char name[LMO_EXPORT_MAX];
        snprintf(w->volumes[i].name, sizeof w->volumes[i].name, "vol%u", i + 1);
        (void)!offer(w, w->volumes[i].name, "hv1", 1, name, NULL);
    }
    w->total = UINT64_C(256) << 20;
    w->remaining = UINT64_C(200) << 20;
    w->automatic = true;
    ck_assert(pthread_create(&w->thread, NULL, world_thread, w) == 0);
    return w;
}

void fake_world_free(struct fake_world *w)
{
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    free(w);
}
