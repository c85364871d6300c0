/* hypervisor_libvirt_event.c - what libvirt's and QEMU's events mean: each guest's record, and what the worker is told.
 *
 * All callbacks run on the loop thread, in the order in which libvirtd queued the events: libvirt's own (lifecycle) and
 * QEMU's (STOP, RESUME, MIGRATION) come through one queue, QEMU's just before the one libvirt derives from it.
 * docs/libvirt.md lists the sequences that were seen. */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

#include <libvirt/libvirt-qemu.h>
#include <string.h>

/* QEMU's stamp of a STOP is taken for the lifecycle event that follows it only if it is this young. */
#define STAMP_AGE_MAX_US 2000000

/* ------------------------------------------------------------------ records */

struct lmo_lv_guest *lmo_lv_guest_find(struct lmo_lv *lv, const char *uuid)
{
    for (struct lmo_lv_guest *g = lv->guests; g; g = g->next)
        if (strcmp(g->uuid, uuid) == 0) {
            g->used_ns = lmo_now_ns();
            return g;
        }
    return NULL;
}

void lmo_lv_guest_drop_baseline(struct lmo_lv_guest *g)
{
    free(g->base);
    g->base = NULL;
}

void lmo_lv_guest_free(struct lmo_lv_guest *g)
{
    if (!g)
        return;
    lmo_lv_guest_drop_baseline(g);
    lmo_qemu_unpin(&g->qemu);
    if (g->resume_domain)
        (void)virDomainFree(g->resume_domain);
    free(g);
}

/* The record that was used least recently among those that hold nothing that cannot be learned again. */
static bool make_room(struct lmo_lv *lv)
{
    struct lmo_lv_guest **victim = NULL;
    for (struct lmo_lv_guest **at = &lv->guests; *at; at = &(*at)->next) {
        const struct lmo_lv_guest *g = *at;
        bool idle = !g->job && !g->frozen && !g->incoming && !(g->anchor.valid && !g->anchor.resumed);
        if (idle && (!victim || g->used_ns < (*victim)->used_ns))
            victim = at;
    }
    if (!victim)
        return false;
    struct lmo_lv_guest *g = *victim;
    *victim = g->next;
    lv->guest_count--;
    lmo_lv_guest_free(g);
    return true;
}

struct lmo_lv_guest *lmo_lv_guest_get(struct lmo_lv *lv, const char *uuid, const char *name)
{
    struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    if (!g) {
        if (lv->guest_count >= LMO_LV_GUESTS_MAX && !make_room(lv))
            return NULL;
        g = calloc(1, sizeof *g);
        if (!g)
            return NULL;
        g->qemu = (struct lmo_qemu)LMO_QEMU_NONE;
        (void)snprintf(g->uuid, sizeof g->uuid, "%s", uuid);
        g->used_ns = lmo_now_ns();
        g->next = lv->guests;
        lv->guests = g;
        lv->guest_count++;
    }
    if (name && name[0])
        (void)snprintf(g->name, sizeof g->name, "%s", name);
    return g;
}

/* ------------------------------------------------------------------ telling the worker */

static void emit_full(struct lmo_lv *lv, enum lmo_hv_event_kind kind, const char *uuid, const char *reason,
                      uint64_t value, uint64_t stamp_us)
{
    struct lmo_hv_event ev = {.kind = kind, .value = value, .monotonic_ns = lmo_now_ns()};
    ev.own_stamp = stamp_us != 0;
    ev.realtime_us = stamp_us ? stamp_us : lmo_realtime_us();
    (void)snprintf(ev.uuid, sizeof ev.uuid, "%s", uuid);
    (void)snprintf(ev.reason, sizeof ev.reason, "%s", reason);
    pthread_mutex_lock(&lv->lock);
    bool closed = lv->stopping;
    pthread_mutex_unlock(&lv->lock);
    if (!closed && lv->on_event)
        lv->on_event(lv->arg, &ev);
}

void lmo_lv_emit(struct lmo_lv *lv, enum lmo_hv_event_kind kind, const char *uuid, const char *reason)
{
    emit_full(lv, kind, uuid, reason, 0, 0);
}

/* ------------------------------------------------------------------ meaning */

struct told {
    enum lmo_hv_event_kind kind;
    const char *reason;
    uint64_t stamp_us;
};

/* A record from an older generation has a gap in it: what it said about the present is forgotten. The anchor and the
 * baseline stay: they carry their own generation, and a baseline needs no watch any more. */
static void refresh(struct lmo_lv *lv, struct lmo_lv_guest *g)
{
    if (g->seen_generation == lv->generation)
        return;
    g->seen_generation = lv->generation;
    g->paused = g->stop_told = false;
    g->stop_us = g->resume_us = 0;
}

static void saw_run(struct lmo_lv *lv, struct lmo_lv_guest *g)
{
    g->paused = g->stop_told = false;
    g->anchor.resumed = g->anchor.valid;
    lmo_lv_guest_drop_baseline(g);
    if (g->incoming)
        lmo_lv_chore_add(lv, LMO_LV_CHORE_UNMARK, g->uuid);
    g->incoming = g->loaded = false;
}

static void saw_migration_complete(struct lmo_lv *lv, struct lmo_lv_guest *g, uint64_t stamp_us)
{
    if (g->incoming)
        return; /* the destination's QEMU says so too; LOADED follows when libvirt is done with it */
    lmo_lv_guest_drop_baseline(g);
    g->anchor = (struct lmo_lv_anchor){.valid = true, .generation = lv->generation, .realtime_us = stamp_us};
    lmo_lv_chore_add(lv, LMO_LV_CHORE_BASELINE, g->uuid);
}

static void saw_migration_begin(struct lmo_lv *lv, struct lmo_lv_guest *g)
{
    if (g->incoming)
        return;
    /* Whatever was known of an earlier migration out says nothing about this one. */
    g->anchor = (struct lmo_lv_anchor){0};
    lmo_lv_guest_drop_baseline(g);
    lmo_lv_job_active(g);
    lmo_lv_chore_add(lv, LMO_LV_CHORE_PIN, g->uuid);
}

static uint64_t fresh_stamp(uint64_t stamp_us)
{
    uint64_t now = lmo_realtime_us();
    return stamp_us && stamp_us <= now + STAMP_AGE_MAX_US && now - STAMP_AGE_MAX_US <= stamp_us ? stamp_us : 0;
}

static const char *stopped_name(int detail)
{
    switch ((virDomainEventStoppedDetailType)detail) {
    case VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: return "shutdown";
    case VIR_DOMAIN_EVENT_STOPPED_DESTROYED: return "destroyed";
    case VIR_DOMAIN_EVENT_STOPPED_CRASHED: return "crashed";
    case VIR_DOMAIN_EVENT_STOPPED_MIGRATED: return "migrated";
    case VIR_DOMAIN_EVENT_STOPPED_SAVED: return "saved";
    case VIR_DOMAIN_EVENT_STOPPED_FAILED: return "failed";
    case VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT: return "from_snapshot";
    default: return "unknown";
    }
}

static const char *suspended_name(int detail)
{
    switch ((virDomainEventSuspendedDetailType)detail) {
    case VIR_DOMAIN_EVENT_SUSPENDED_PAUSED: return "paused";
    case VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED: return "migrated";
    case VIR_DOMAIN_EVENT_SUSPENDED_IOERROR: return "io_error";
    case VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG: return "watchdog";
    case VIR_DOMAIN_EVENT_SUSPENDED_RESTORED: return "restored";
    case VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT: return "from_snapshot";
    case VIR_DOMAIN_EVENT_SUSPENDED_API_ERROR: return "api_error";
    case VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY: return "postcopy";
    case VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED: return "postcopy_failed";
    default: return "unknown";
    }
}

static void saw_suspended(struct lmo_lv *lv, struct lmo_lv_guest *g, int detail, struct told *ret)
{
    g->paused = true;
    ret->reason = suspended_name(detail);
    ret->kind = LMO_HV_EV_PAUSED_OTHER;
    if (detail == VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED && !g->incoming) {
        ret->kind = g->stop_told ? LMO_HV_EV_NONE : LMO_HV_EV_SUSPENDED; /* once for each pause */
        ret->stamp_us = fresh_stamp(g->stop_us);
        if (!lv->raw_events) /* the next best thing to QEMU's own word */
            saw_migration_complete(lv, g, 0);
    } else if (detail == VIR_DOMAIN_EVENT_SUSPENDED_PAUSED && g->incoming) {
        /* A person cannot suspend a guest that is coming in: libvirt's incoming job excludes it until it is loaded. */
        ret->kind = LMO_HV_EV_LOADED;
        ret->reason = "migrated";
        g->loaded = true;
    }
}

/* QEMU's own STOP, ahead of what libvirt makes of it. It gives no reason and needs none: during a migration out, libvirt
 * calls every STOP of a running guest SUSPENDED/MIGRATED. The pauses that it calls something else (I/O error, watchdog) it
 * announces before QEMU's STOP, which then finds the guest paused. So this tells the same pauses, earlier. */
static void saw_stop(struct lmo_lv_guest *g, uint64_t stamp_us, struct told *ret)
{
    g->stop_us = stamp_us;
    if (lmo_lv_job_is_active(g) && !g->incoming && !g->paused) {
        g->stop_told = true;
        *ret = (struct told){LMO_HV_EV_SUSPENDED, "migrated", fresh_stamp(stamp_us)};
    }
    g->paused = true;
}

static void saw_started(struct lmo_lv *lv, struct lmo_lv_guest *g, int detail, struct told *ret)
{
    lmo_qemu_unpin(&g->qemu);
    lmo_lv_guest_drop_baseline(g);
    g->anchor = (struct lmo_lv_anchor){0};
    g->stopped = g->frozen = g->loaded = g->paused = g->stop_told = false;
    g->incoming = detail == VIR_DOMAIN_EVENT_STARTED_MIGRATED;
    ret->kind = g->incoming ? LMO_HV_EV_INCOMING : LMO_HV_EV_RESUMED;
    ret->reason = g->incoming ? "migrated" : "started";
    if (g->incoming) {
        lmo_lv_chore_add(lv, LMO_LV_CHORE_MARK, g->uuid);
        lmo_lv_chore_add(lv, LMO_LV_CHORE_PIN, g->uuid); /* its end is then seen without libvirt */
    }
}

static void saw_stopped(struct lmo_lv *lv, struct lmo_lv_guest *g, int detail, struct told *ret)
{
    g->stopped = true;
    g->stopped_detail = detail;
    g->stopped_generation = lv->generation;
    if (g->incoming)
        lmo_lv_chore_add(lv, LMO_LV_CHORE_UNMARK, g->uuid);
    g->incoming = g->loaded = g->frozen = false;
    ret->kind = LMO_HV_EV_STOPPED;
    ret->reason = stopped_name(detail);
}

/* `lock` held. */
static void saw_lifecycle(struct lmo_lv *lv, struct lmo_lv_guest *g, int event, int detail, struct told *ret)
{
    switch ((virDomainEventType)event) {
    case VIR_DOMAIN_EVENT_STARTED: saw_started(lv, g, detail, ret); break;
    case VIR_DOMAIN_EVENT_SUSPENDED: saw_suspended(lv, g, detail, ret); break;
    case VIR_DOMAIN_EVENT_RESUMED:
        saw_run(lv, g);
        ret->kind = LMO_HV_EV_RESUMED;
        ret->reason = detail == VIR_DOMAIN_EVENT_RESUMED_MIGRATED ? "migrated" : "unpaused";
        ret->stamp_us = fresh_stamp(g->resume_us);
        break;
    case VIR_DOMAIN_EVENT_STOPPED: saw_stopped(lv, g, detail, ret); break;
    case VIR_DOMAIN_EVENT_PMSUSPENDED:
        ret->kind = LMO_HV_EV_PAUSED_OTHER;
        ret->reason = "pmsuspended";
        break;
    case VIR_DOMAIN_EVENT_CRASHED:
        ret->kind = LMO_HV_EV_PAUSED_OTHER;
        ret->reason = "crashed";
        break;
    case VIR_DOMAIN_EVENT_DEFINED:
    case VIR_DOMAIN_EVENT_UNDEFINED:
    case VIR_DOMAIN_EVENT_SHUTDOWN:
    default: break;
    }
}

/* ------------------------------------------------------------------ callbacks */

/* Takes `emit` and `lock`; NULL (locks released) if the event is of a connection that is no longer the watch. */
static struct lmo_lv_guest *begin(struct lmo_lv *lv, virConnectPtr conn, virDomainPtr dom)
{
    char uuid[VIR_UUID_STRING_BUFLEN];
    struct lmo_lv_guest *g = NULL;
    pthread_mutex_lock(&lv->emit);
    pthread_mutex_lock(&lv->lock);
    if (conn == lv->watch && lv->generation % 2 == 1 && virDomainGetUUIDString(dom, uuid) == 0) {
        g = lmo_lv_guest_get(lv, uuid, virDomainGetName(dom));
        if (!g)
            lmo_log(LMO_LOG_ERROR, "too many guests to watch", "uuid=%s max=%d", uuid, LMO_LV_GUESTS_MAX);
    }
    if (g) {
        refresh(lv, g);
        return g;
    }
    pthread_mutex_unlock(&lv->lock);
    pthread_mutex_unlock(&lv->emit);
    return NULL;
}

static void end(struct lmo_lv *lv, const char *uuid, const struct told *told, uint64_t value)
{
    pthread_cond_broadcast(&lv->changed);
    pthread_mutex_unlock(&lv->lock);
    if (told->kind != LMO_HV_EV_NONE)
        emit_full(lv, told->kind, uuid, told->reason, value, told->stamp_us);
    pthread_mutex_unlock(&lv->emit);
}

int lmo_lv_on_lifecycle(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *arg)
{
    struct lmo_lv *lv = arg;
    struct told told = {0};
    char uuid[LMO_UUID_MAX];
    struct lmo_lv_guest *g = begin(lv, conn, dom);
    if (!g)
        return 0;
    memcpy(uuid, g->uuid, sizeof uuid);
    saw_lifecycle(lv, g, event, detail, &told);
    end(lv, uuid, &told, 0);
    return 0;
}

static void on_iteration(virConnectPtr conn, virDomainPtr dom, int iteration, void *arg)
{
    struct lmo_lv *lv = arg;
    char uuid[LMO_UUID_MAX];
    struct lmo_lv_guest *g = begin(lv, conn, dom);
    if (!g)
        return;
    memcpy(uuid, g->uuid, sizeof uuid);
    lmo_lv_job_active(g);
    end(lv, uuid, &(struct told){LMO_HV_EV_ITERATION, "iteration", 0}, iteration > 0 ? (uint64_t)iteration : 0);
}

static void on_io_error(virConnectPtr conn, virDomainPtr dom, const char *path, const char *alias, int action,
                        const char *reason, void *arg)
{
    (void)conn;
    (void)arg;
    (void)path;
    /* The pause that may follow comes as a lifecycle event; this says which disk and why. */
    lmo_log(LMO_LOG_WARN, "guest's disk failed", "guest=%s disk=%s action=%d reason=%s", virDomainGetName(dom),
            alias ? alias : "", action, reason ? reason : "");
}

/* QEMU's {"status": "..."} of a MIGRATION event. */
static void saw_migration_status(struct lmo_lv *lv, struct lmo_lv_guest *g, const char *details, uint64_t stamp_us)
{
    LMO_AUTO_JSON json_t *root = NULL;
    char status[32] = "";
    if (!details || lmo_json_parse_object(details, strlen(details), 4096, &root, NULL) < 0 ||
        lmo_json_str(root, "status", status, sizeof status, true, NULL) < 0)
        return;
    if (strcmp(status, "setup") == 0)
        saw_migration_begin(lv, g);
    else if (strcmp(status, "completed") == 0)
        saw_migration_complete(lv, g, stamp_us);
}

void lmo_lv_on_raw(virConnectPtr conn, virDomainPtr dom, const char *event, long long seconds, unsigned int micros,
                   const char *details, void *arg)
{
    struct lmo_lv *lv = arg;
    struct told told = {0};
    char uuid[LMO_UUID_MAX];
    uint64_t stamp_us = seconds > 0 ? (uint64_t)seconds * 1000000 + micros : 0;
    struct lmo_lv_guest *g = begin(lv, conn, dom);
    if (!g)
        return;
    memcpy(uuid, g->uuid, sizeof uuid);
    if (strcmp(event, "STOP") == 0) {
        saw_stop(g, stamp_us, &told);
    } else if (strcmp(event, "RESUME") == 0) {
        g->resume_us = stamp_us;
        saw_run(lv, g);
    } else if (strcmp(event, "MIGRATION") == 0) {
        saw_migration_status(lv, g, details, stamp_us);
    }
    end(lv, uuid, &told, 0);
}

int lmo_lv_events_register(struct lmo_lv *lv, virConnectPtr conn, bool *ret_raw, struct lmo_err *err)
{
    const struct {
        int id;
        virConnectDomainEventGenericCallback fn;
    } events[] = {
        {VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(lmo_lv_on_lifecycle)},
        {VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, VIR_DOMAIN_EVENT_CALLBACK(on_iteration)},
        {VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, VIR_DOMAIN_EVENT_CALLBACK(on_io_error)},
    };
    _Static_assert(sizeof events / sizeof events[0] <= LMO_LV_EVENTS_MAX, "room for every registration");
    for (size_t i = 0; i < LMO_LV_EVENTS_MAX; i++)
        lv->event_ids[i] = lv->raw_ids[i] = -1;
    /* QEMU's own first: then a lifecycle event never arrives without the stamp it is made from. */
    lv->raw_ids[0] =
        virConnectDomainQemuMonitorEventRegister(conn, NULL, "^(STOP|RESUME|MIGRATION)$", lmo_lv_on_raw, lv, NULL,
                                                 VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX);
    if (lv->raw_ids[0] < 0)
        lmo_log(LMO_LOG_WARN, "QEMU's own events cannot be had", "reason=%s", virGetLastErrorMessage());
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        lv->event_ids[i] = virConnectDomainEventRegisterAny(conn, NULL, events[i].id, events[i].fn, lv, NULL);
        if (lv->event_ids[i] < 0)
            return lmo_lv_fail(err, false, "registering for events");
    }
    *ret_raw = lv->raw_ids[0] >= 0;
    return 0;
}

void lmo_lv_events_unregister(struct lmo_lv *lv, virConnectPtr conn)
{
    for (size_t i = 0; i < LMO_LV_EVENTS_MAX; i++) {
        if (lv->event_ids[i] >= 0)
            (void)virConnectDomainEventDeregisterAny(conn, lv->event_ids[i]);
        if (lv->raw_ids[i] >= 0)
            (void)virConnectDomainQemuMonitorEventDeregister(conn, lv->raw_ids[i]);
        lv->event_ids[i] = lv->raw_ids[i] = -1;
    }
}
