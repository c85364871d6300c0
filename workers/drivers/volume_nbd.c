/* volume_nbd.c - volume driver for NBD exports of a qemu-storage-daemon: one per host; deleting one is the fence.
 *
 * Invariants (docs/adr/0009-nbd-fence.md argues them):
 *  1. Promise before act. An export is recorded as attached before the service is asked to add it, and as fenced or
 *     detached before it is asked to delete it. So after a crash anywhere, reconciling the service with the table
 *     fences too much rather than too little.
 *  2. The service is only ever given an export for which lmo_nbd_may_offer() holds, and while the volume's slot is
 *     held: a fence that has been recorded cannot be overtaken by an attach or a reconciliation.
 *  3. A fence returns 0 only when the service reported the export deleted or was seen not to have it.
 *  4. A slot's record changes in memory only after it is durable.
 *
 * Volumes are independent: each has a slot that one caller holds at a time; different ones proceed in parallel and
 * their commands share one pipelined connection. A thread reconciles every volume each time the service comes back. */
#include "workers/drivers/driver.h"
#include "workers/drivers/volume_nbd.h"

#include "base/assert.h"
#include "base/fs.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NBD_UNDO_MS 2000u

static struct lmo_nbd *nbd_of(struct lmo_volume_driver *d)
{
    return (struct lmo_nbd *)(void *)((char *)d - offsetof(struct lmo_nbd, base));
}

/* ---------------------------------------------------------------- operations */

/* Splits an export's name and checks that it is one of this volume. */
static int parse_for(const char *volume, const char *export_name, char host[LMO_NAME_MAX], uint64_t *epoch,
                     struct lmo_err *err)
{
    char of_volume[LMO_NBD_VOLUME_MAX];
    if (!lmo_nbd_export_parse(export_name, of_volume, host, epoch) || strcmp(of_volume, volume) != 0)
        return lmo_fail(err, LMO_E_INVALID, "export '%.200s' is not one of volume %.80s: must be VOLUME.HOST.eEPOCH",
                        export_name, volume);
    return 0;
}

/* Did the service certainly not do it? */
static bool certainly_not(int rc)
{
    enum lmo_err_class cls = lmo_err_class_of(rc);
    return cls == LMO_CLASS_RETRY || cls == LMO_CLASS_REFUSE;
}

/* Records and offers one export of a held slot. */
static int attach_held(struct lmo_nbd *d, struct lmo_nbd_slot *s, const char *host, uint64_t epoch,
                       uint64_t deadline_ms, struct lmo_err *err)
{
    char name[LMO_EXPORT_MAX];
    lmo_nbd_export_name(name, s->v.name, host, epoch);
    const struct lmo_nbd_export *e = lmo_nbd_find(&s->v, host, epoch);
    if (e && e->state == LMO_NBD_FENCED)
        return lmo_fail(err, LMO_E_REFUSED, "export %s is fenced; it is never offered again", name);
    bool is_new = !e || e->state != LMO_NBD_ATTACHED;
    if (s->v.retired)
        return lmo_fail(err, LMO_E_GONE, "volume %s is being retired", s->v.name);
    if (is_new && epoch < s->v.high_epoch)
        return lmo_fail(err, LMO_E_STALE_EPOCH, "volume %s was offered under epoch %" PRIu64 "; %" PRIu64 " is lower",
                        s->v.name, s->v.high_epoch, epoch);
    /* No promise while nobody is there to keep it: it would have to be taken back. */
    int rc = lmo_nbd_service_await(&d->service, deadline_ms, NULL, err);
    if (rc == 0)
        rc = lmo_nbd_slot_set(d, s, host, epoch, LMO_NBD_ATTACHED, err);
    if (rc != 0)
        return rc;
    lmo_nbd_slot_unsettle(d, s);
    rc = lmo_nbd_reconcile(d, s, deadline_ms, err);
    if (rc == 0)
        return 0;
    /* Not simply forgotten: an earlier one of several attempts may have had its effect. As "detached" it is withdrawn,
     * should the service turn out to have it, and forgotten then. */
    struct lmo_err undo = {0};
    if (is_new && certainly_not(rc) && lmo_nbd_slot_set(d, s, host, epoch, LMO_NBD_DETACHED, &undo) != 0)
        lmo_log(LMO_LOG_WARN, "attach not undone in the record", "export=%s reason=%s", name, undo.text);
    lmo_nbd_slot_doubt(d, s);
    return rc;
}

static int check_offer(const char *host, uint64_t epoch, struct lmo_err *err)
{
    if (!lmo_nbd_host_valid(host))
        return lmo_fail(err, LMO_E_INVALID, "host '%.80s': a name has 1 to %d of a-z A-Z 0-9 - _ .", host,
                        LMO_NAME_MAX - 1);
    if (epoch > INT64_MAX)
        return lmo_fail(err, LMO_E_INVALID, "epoch %" PRIu64 " is out of range", epoch);
    return 0;
}

/* Undoes a provisioning that failed, so that nothing of it is left. */
static void unprovision(struct lmo_nbd *d, struct lmo_nbd_slot *s)
{
    struct lmo_err err = {0};
    struct lmo_nbd_volume next = s->v;
    next.retired = true;
    int rc = lmo_nbd_slot_commit(d, s, &next, &err);
    lmo_nbd_slot_unsettle(d, s);
    if (rc == 0)
        rc = lmo_nbd_reconcile(d, s, lmo_nbd_now_ms() + NBD_UNDO_MS, &err);
    if (rc != 0) {
        lmo_log(LMO_LOG_WARN, "provisioning not undone yet", "volume=%s reason=%s", s->v.name, err.text);
        lmo_nbd_slot_doubt(d, s);
    }
}

static int nbd_provision(struct lmo_volume_driver *base, const char *volume, const char *path, const char *format,
                         const char *host, uint64_t epoch, char ret_export[LMO_EXPORT_MAX], uint64_t timeout_ms,
                         struct lmo_err *err)
{
    struct lmo_nbd *d = nbd_of(base);
    uint64_t deadline_ms = lmo_nbd_now_ms() + timeout_ms;
    struct lmo_nbd_slot *s = NULL;
    int rc = check_offer(host, epoch, err);
    if (rc == 0 && strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0)
        rc = lmo_fail(err, LMO_E_INVALID, "format '%.32s': must be raw or qcow2", format);
    if (rc == 0 && (path[0] != '/' || strlen(path) >= LMO_PATH_MAX))
        rc = lmo_fail(err, LMO_E_INVALID, "path '%.80s': must be absolute and shorter than %d", path, LMO_PATH_MAX);
    if (rc == 0)
        rc = lmo_nbd_slot_hold(d, volume, true, deadline_ms, &s, err);
    if (rc != 0)
        return rc;
    bool was_known = s->known;
    if (!was_known) {
        snprintf(s->v.path, sizeof(s->v.path), "%s", path);
        snprintf(s->v.format, sizeof(s->v.format), "%s", format);
    } else if (strcmp(s->v.path, path) != 0 || strcmp(s->v.format, format) != 0) {
        rc = lmo_fail(err, LMO_E_CONFLICT, "volume %s is known already: %s of format %s", volume, s->v.path,
                      s->v.format);
    }
    if (rc == 0)
        rc = attach_held(d, s, host, epoch, deadline_ms, err);
    if (rc == 0)
        lmo_nbd_export_name(ret_export, volume, host, epoch);
    else if (!was_known && s->known && certainly_not(rc))
        unprovision(d, s);
    lmo_nbd_slot_release(d, s);
    return rc;
}

static int nbd_attach(struct lmo_volume_driver *base, const char *volume, const char *host, uint64_t epoch,
                      char ret_export[LMO_EXPORT_MAX], uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_nbd *d = nbd_of(base);
    uint64_t deadline_ms = lmo_nbd_now_ms() + timeout_ms;
    struct lmo_nbd_slot *s = NULL;
    int rc = check_offer(host, epoch, err);
    if (rc == 0)
        rc = lmo_nbd_slot_hold(d, volume, false, deadline_ms, &s, err);
    if (rc != 0)
        return rc;
    rc = attach_held(d, s, host, epoch, deadline_ms, err);
    if (rc == 0)
        lmo_nbd_export_name(ret_export, volume, host, epoch);
    lmo_nbd_slot_release(d, s);
    return rc;
}

static int nbd_fence(struct lmo_volume_driver *base, const char *volume, const char *export_name, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    struct lmo_nbd *d = nbd_of(base);
    uint64_t deadline_ms = lmo_nbd_now_ms() + timeout_ms;
    char host[LMO_NAME_MAX];
    uint64_t epoch;
    struct lmo_nbd_slot *s = NULL;
    int rc = parse_for(volume, export_name, host, &epoch, err);
    if (rc == 0)
        rc = lmo_nbd_slot_hold(d, volume, false, deadline_ms, &s, err);
    if (rc != 0)
        return rc;
    rc = lmo_nbd_slot_set(d, s, host, epoch, LMO_NBD_FENCED, err);
    if (rc == 0) {
        rc = lmo_nbd_withdraw(&d->service, export_name, deadline_ms, err);
        if (rc != 0) {
            lmo_nbd_slot_doubt(d, s);
            if (err)
                lmo_err_prefix(err, "fence of %s is recorded and will be completed, but not verified yet", export_name);
        }
    }
    lmo_nbd_slot_release(d, s);
    return rc;
}

static int nbd_detach(struct lmo_volume_driver *base, const char *volume, const char *export_name, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    struct lmo_nbd *d = nbd_of(base);
    uint64_t deadline_ms = lmo_nbd_now_ms() + timeout_ms;
    char host[LMO_NAME_MAX];
    uint64_t epoch;
    struct lmo_nbd_slot *s = NULL;
    int rc = parse_for(volume, export_name, host, &epoch, err);
    if (rc == 0)
        rc = lmo_nbd_slot_hold(d, volume, false, deadline_ms, &s, err);
    if (rc != 0)
        return rc == LMO_E_NOT_FOUND ? 0 : rc;
    const struct lmo_nbd_export *e = lmo_nbd_find(&s->v, host, epoch);
    bool fenced = e && e->state == LMO_NBD_FENCED; /* stays so: only a proof of death lifts a fence */
    if (!fenced)
        rc = lmo_nbd_slot_set(d, s, host, epoch, LMO_NBD_DETACHED, err);
    if (rc == 0)
        rc = lmo_nbd_withdraw(&d->service, export_name, deadline_ms, err);
    if (rc == 0 && !fenced)
        rc = lmo_nbd_slot_drop(d, s, host, epoch, err);
    if (rc != 0)
        lmo_nbd_slot_doubt(d, s);
    lmo_nbd_slot_release(d, s);
    return rc;
}

static int nbd_retire(struct lmo_volume_driver *base, const char *volume, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_nbd *d = nbd_of(base);
    uint64_t deadline_ms = lmo_nbd_now_ms() + timeout_ms;
    struct lmo_nbd_slot *s = NULL;
    int rc = lmo_nbd_slot_hold(d, volume, false, deadline_ms, &s, err);
    if (rc != 0)
        return rc == LMO_E_NOT_FOUND ? 0 : rc;
    struct lmo_nbd_volume next = s->v;
    next.retired = true;
    rc = lmo_nbd_slot_commit(d, s, &next, err);
    lmo_nbd_slot_doubt(d, s);
    if (rc == 0)
        rc = lmo_nbd_reconcile(d, s, deadline_ms, err);
    lmo_nbd_slot_release(d, s);
    return rc;
}

static int nbd_check(struct lmo_volume_driver *base, const char *volume, const char *export_name, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    struct lmo_nbd *d = nbd_of(base);
    uint64_t deadline_ms = lmo_nbd_now_ms() + timeout_ms;
    char host[LMO_NAME_MAX];
    uint64_t epoch;
    struct lmo_nbd_slot *s = NULL;
    struct lmo_nbd_seen_list seen;
    int rc = parse_for(volume, export_name, host, &epoch, err);
    if (rc == 0)
        rc = lmo_nbd_slot_hold(d, volume, false, deadline_ms, &s, err);
    if (rc != 0)
        return rc;
    const struct lmo_nbd_export *e = lmo_nbd_find(&s->v, host, epoch);
    if (!e || !lmo_nbd_may_offer(&s->v, host, epoch))
        rc = lmo_fail(err, LMO_E_REFUSED, "export %s is %s", export_name, e ? "fenced or detached" : "not known");
    if (rc == 0)
        rc = lmo_nbd_look_settled(d, s, &seen, deadline_ms, err);
    if (rc == 0 && lmo_nbd_seen_find(&seen, export_name) != LMO_NBD_OFFERED) {
        lmo_nbd_slot_doubt(d, s);
        rc = lmo_fail(err, LMO_E_UNAVAILABLE, "export %s is recorded as attached, but its service does not offer it",
                      export_name);
    }
    lmo_nbd_slot_release(d, s);
    return rc;
}

/* What verify() demands of one held slot, judged by the service's own answer. */
static int verify_held(struct lmo_nbd *d, struct lmo_nbd_slot *s, const char *fenced_export, const char *holder_export,
                       uint64_t deadline_ms, struct lmo_err *err)
{
    char host[LMO_NAME_MAX], holder_host[LMO_NAME_MAX];
    uint64_t epoch, holder_epoch;
    int rc = parse_for(s->v.name, fenced_export, host, &epoch, err);
    if (rc == 0)
        rc = parse_for(s->v.name, holder_export, holder_host, &holder_epoch, err);
    if (rc != 0)
        return rc;
    const struct lmo_nbd_export *e = lmo_nbd_find(&s->v, host, epoch);
    bool fenced = e ? e->state == LMO_NBD_FENCED : epoch <= s->v.floor_epoch;
    if (!fenced)
        return lmo_fail(err, LMO_E_CONFLICT, "export %s is not fenced", fenced_export);
    if (!lmo_nbd_may_offer(&s->v, holder_host, holder_epoch))
        return lmo_fail(err, LMO_E_CONFLICT, "export %s is not attached", holder_export);
    struct lmo_nbd_seen_list seen;
    rc = lmo_nbd_look_settled(d, s, &seen, deadline_ms, err);
    if (rc != 0)
        return rc;
    enum lmo_nbd_seen at = lmo_nbd_seen_find(&seen, fenced_export);
    if (seen.overflow || at != LMO_NBD_ABSENT || lmo_nbd_seen_find(&seen, holder_export) != LMO_NBD_OFFERED) {
        lmo_nbd_slot_doubt(d, s);
        if (at == LMO_NBD_DRAINING)
            return lmo_fail(err, LMO_E_BUSY, "export %s: requests in flight are still draining", fenced_export);
        if (at == LMO_NBD_OFFERED)
            return lmo_fail(err, LMO_E_CONFLICT, "export %s is fenced, but the service offers it", fenced_export);
        return lmo_fail(err, LMO_E_UNAVAILABLE, "export %s is not offered by the service", holder_export);
    }
    return 0;
}

static int nbd_verify(struct lmo_volume_driver *base, const char *volume, const char *fenced_export,
                      const char *holder_export, uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_nbd *d = nbd_of(base);
    uint64_t deadline_ms = lmo_nbd_now_ms() + timeout_ms;
    struct lmo_nbd_slot *s = NULL;
    int rc = lmo_nbd_slot_hold(d, volume, false, deadline_ms, &s, err);
    if (rc != 0)
        return rc;
    rc = verify_held(d, s, fenced_export, holder_export, deadline_ms, err);
    lmo_nbd_slot_release(d, s);
    return rc;
}

/* ---------------------------------------------------------------- observation */

static void state_add(struct lmo_volume_state *ret, const char *name, bool offered, bool fenced)
{
    char volume[LMO_NBD_VOLUME_MAX];
    if (ret->export_count == sizeof(ret->exports) / sizeof(ret->exports[0]))
        return;
    unsigned i = ret->export_count++;
    snprintf(ret->exports[i].name, sizeof(ret->exports[i].name), "%s", name);
    bool parsed = lmo_nbd_export_parse(name, volume, ret->exports[i].host, &ret->exports[i].epoch);
    lmo_assert(parsed); /* both sources of names yield only such */
    ret->exports[i].offered = offered;
    ret->exports[i].fenced = fenced;
}

/* The few that fit, in the order in which they matter: attached, then whatever else the service has, then what is
 * fenced, newest first. */
static void fill_state(struct lmo_nbd_volume *v, const struct lmo_nbd_seen_list *seen, struct lmo_volume_state *ret)
{
    char name[LMO_EXPORT_MAX];
    for (unsigned i = 0; i < v->export_count; i++) {
        lmo_nbd_export_name(name, v->name, v->exports[i].host, v->exports[i].epoch);
        if (v->exports[i].state == LMO_NBD_ATTACHED)
            state_add(ret, name, lmo_nbd_seen_find(seen, name) == LMO_NBD_OFFERED, false);
    }
    for (unsigned i = 0; i < seen->count; i++) {
        char volume[LMO_NBD_VOLUME_MAX], host[LMO_NAME_MAX];
        uint64_t epoch;
        const struct lmo_nbd_export *e = NULL;
        if (lmo_nbd_export_parse(seen->exports[i].name, volume, host, &epoch))
            e = lmo_nbd_find(v, host, epoch);
        if (!e || e->state != LMO_NBD_ATTACHED)
            state_add(ret, seen->exports[i].name, true, e ? e->state == LMO_NBD_FENCED : epoch <= v->floor_epoch);
    }
    for (unsigned i = v->export_count; i-- > 0;) {
        lmo_nbd_export_name(name, v->name, v->exports[i].host, v->exports[i].epoch);
        if (v->exports[i].state == LMO_NBD_FENCED && lmo_nbd_seen_find(seen, name) == LMO_NBD_ABSENT)
            state_add(ret, name, false, true);
    }
}

static int nbd_observe(struct lmo_volume_driver *base, const char *volume, struct lmo_volume_state *ret,
                       uint64_t timeout_ms, struct lmo_err *err)
{
    struct lmo_nbd *d = nbd_of(base);
    uint64_t deadline_ms = lmo_nbd_now_ms() + timeout_ms;
    struct lmo_nbd_slot *s = NULL;
    int rc = lmo_nbd_slot_hold(d, volume, false, deadline_ms, &s, err);
    if (rc != 0)
        return rc;
    struct lmo_nbd_seen_list seen;
    struct lmo_volume_state state = {0};
    do {
        memset(&seen, 0, sizeof(seen));
        rc = lmo_nbd_service_await(&d->service, deadline_ms, NULL, err);
        if (rc == 0)
            rc = lmo_nbd_look(&d->service, volume, lmo_nbd_seen_add, &seen, deadline_ms, err);
        if (rc == 0)
            rc = lmo_nbd_node_size(&d->service, volume, deadline_ms, &state.size_bytes, err);
        if (rc == LMO_E_NOT_FOUND)
            rc = 0; /* nothing attached: the service need not have opened it */
    } while (lmo_nbd_try_again(&d->service, rc, deadline_ms));
    if (rc == 0) {
        snprintf(state.volume, sizeof(state.volume), "%s", volume);
        snprintf(state.path, sizeof(state.path), "%s", s->v.path);
        fill_state(&s->v, &seen, &state);
        *ret = state;
    }
    lmo_nbd_slot_release(d, s);
    return rc;
}

/* ---------------------------------------------------------------- life */

static void nbd_free(struct lmo_nbd *d)
{
    while (d->slots) {
        struct lmo_nbd_slot *s = d->slots;
        d->slots = s->next;
        free(s);
    }
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    pthread_cond_destroy(&d->released);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static void nbd_close(struct lmo_volume_driver *base)
{
    if (!base)
        return;
    struct lmo_nbd *d = nbd_of(base);
    pthread_mutex_lock(&d->service.lock);
    d->stop = true;
    pthread_cond_broadcast(&d->service.changed);
    pthread_mutex_unlock(&d->service.lock);
    lmo_nbd_service_shutdown(&d->service); /* before the join: the thread may be waiting for a reply */
    pthread_join(d->reconciler, NULL);
    lmo_nbd_service_close(&d->service);
    nbd_free(d);
}

/* Slots are put before the first and freed at the end alone: from one to the next without the lock. */
static int nbd_list(struct lmo_volume_driver *base, int (*cb)(void *arg, const char *volume), void *arg, struct lmo_err *err)
{
    struct lmo_nbd *d = (struct lmo_nbd *)(void *)base;
    (void)err;
    pthread_mutex_lock(&d->lock);
    struct lmo_nbd_slot *s = d->slots;
    pthread_mutex_unlock(&d->lock);
    for (int stop = 0; s && !stop; s = s->next) {
        pthread_mutex_lock(&d->lock);
        bool known = s->known;
        pthread_mutex_unlock(&d->lock);
        stop = known ? cb(arg, s->v.name) : 0;
    }
    return 0;
}

static const struct lmo_volume_ops nbd_ops = {
    .name = "nbd",
    .close = nbd_close,
    .provision = nbd_provision,
    .retire = nbd_retire,
    .check = nbd_check,
    .attach = nbd_attach,
    .fence = nbd_fence,
    .verify = nbd_verify,
    .detach = nbd_detach,
    .observe = nbd_observe,
    .list = nbd_list,
};

static int load_one(void *arg, const struct lmo_nbd_volume *v)
{
    struct lmo_nbd *d = arg;
    struct lmo_nbd_slot *s = lmo_nbd_slot_new(d, v->name);
    if (!s)
        return LMO_E_LIMIT;
    s->v = *v;
    s->known = true;
    return 0;
}

int lmo_volume_nbd_open(const char *qmp, const char *state_dir, struct lmo_volume_driver **ret, struct lmo_err *err)
{
    struct lmo_nbd *d = calloc(1, sizeof(*d));
    if (!d)
        return lmo_fail(err, LMO_E_NO_MEMORY, "volume driver: no memory");
    d->base.ops = &nbd_ops;
    d->lock_fd = -1;
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&d->released, &attr);
    pthread_condattr_destroy(&attr);
    int rc = 0;
    if (strlen(state_dir) >= sizeof(d->dir))
        rc = lmo_fail(err, LMO_E_INVALID, "volume driver: state directory's path is too long");
    snprintf(d->dir, sizeof(d->dir), "%s", state_dir);
    char lock_path[LMO_PATH_MAX + 16];
    snprintf(lock_path, sizeof(lock_path), "%s/nbd.lock", d->dir);
    if (rc == 0)
        rc = lmo_fs_mkdir_p(d->dir, 0700, err);
    if (rc == 0)
        rc = lmo_fs_lock(lock_path, 0600, &d->lock_fd, err);
    if (rc == 0)
        rc = lmo_nbd_load_all(d->dir, load_one, d, err);
    if (rc == 0)
        rc = lmo_nbd_service_open(&d->service, qmp, err);
    if (rc != 0) {
        nbd_free(d);
        return rc;
    }
    if (pthread_create(&d->reconciler, NULL, lmo_nbd_reconciler_thread, d) != 0) {
        lmo_nbd_service_close(&d->service);
        nbd_free(d);
        return lmo_fail(err, LMO_E_IO, "volume driver: cannot start its thread");
    }
    *ret = &d->base;
    return 0;
}
