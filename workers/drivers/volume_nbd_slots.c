/* volume_nbd_slots.c - one slot per volume, and making the service agree with what the slots record.
 *
 * A slot is held by one caller at a time: whoever changes a volume's record, or asks the service to change what it
 * offers of that volume, holds it. That is what keeps an attach or a reconciliation from overtaking a fence.
 * volume_nbd.c states the invariants. */
#include "workers/drivers/volume_nbd.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NBD_RECONCILE_MS       10000u /* for one volume */
#define NBD_RECONCILE_AGAIN_MS 1000u  /* after a volume could not be reconciled */

/* ---------------------------------------------------------------- slots */

static struct lmo_nbd_slot *slot_find(struct lmo_nbd *d, const char *volume)
{
    for (struct lmo_nbd_slot *s = d->slots; s; s = s->next)
        if (strcmp(s->v.name, volume) == 0)
            return s;
    return NULL;
}

struct lmo_nbd_slot *lmo_nbd_slot_new(struct lmo_nbd *d, const char *volume)
{
    struct lmo_nbd_slot *s = d->slot_count < LMO_NBD_VOLUMES_MAX ? calloc(1, sizeof(*s)) : NULL;
    if (s) {
        snprintf(s->v.name, sizeof(s->v.name), "%s", volume);
        s->next = d->slots;
        d->slots = s;
        d->slot_count++;
    }
    return s;
}

/* Takes the volume's slot. `create`: a volume that is not known yet gets one. BUSY at the deadline. */
int lmo_nbd_slot_hold(struct lmo_nbd *d, const char *volume, bool create, uint64_t deadline_ms,
                      struct lmo_nbd_slot **ret, struct lmo_err *err)
{
    if (!lmo_nbd_volume_valid(volume))
        return lmo_fail(err, LMO_E_INVALID, "volume '%.80s': a name has 1 to %d of a-z A-Z 0-9 - _", volume,
                        LMO_NBD_VOLUME_MAX - 1);
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    int rc = 0;
    int wait = 0;
    pthread_mutex_lock(&d->lock);
    struct lmo_nbd_slot *s = slot_find(d, volume);
    bool full = !s && create && (s = lmo_nbd_slot_new(d, volume)) == NULL;
    while (s && s->held && wait != ETIMEDOUT)
        wait = pthread_cond_timedwait(&d->released, &d->lock, &until);
    if (full) {
        rc = lmo_fail(err, LMO_E_LIMIT, "volume %s: no room for more than %d volumes", volume, LMO_NBD_VOLUMES_MAX);
    } else if (!s || (!s->known && !create && !s->held)) {
        rc = lmo_fail(err, LMO_E_NOT_FOUND, "volume %s is not known to its service", volume);
    } else if (s->held) {
        rc = lmo_fail(err, LMO_E_BUSY, "volume %s: another operation on it has not ended", volume);
    } else {
        s->held = true;
        *ret = s;
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

void lmo_nbd_slot_release(struct lmo_nbd *d, struct lmo_nbd_slot *s)
{
    pthread_mutex_lock(&d->lock);
    s->held = false;
    pthread_cond_broadcast(&d->released);
    pthread_mutex_unlock(&d->lock);
}

/* Makes `next` the volume's record: durable first, then in memory. */
int lmo_nbd_slot_commit(struct lmo_nbd *d, struct lmo_nbd_slot *s, const struct lmo_nbd_volume *next,
                        struct lmo_err *err)
{
    int rc = lmo_nbd_save(d->dir, next, err);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&d->lock); /* others compare the name meanwhile */
    s->v = *next;
    s->known = true;
    pthread_mutex_unlock(&d->lock);
    return 0;
}

/* Changes one export's state in the record. No write if it is so already. */
int lmo_nbd_slot_set(struct lmo_nbd *d, struct lmo_nbd_slot *s, const char *host, uint64_t epoch,
                     enum lmo_nbd_state state, struct lmo_err *err)
{
    const struct lmo_nbd_export *e = lmo_nbd_find(&s->v, host, epoch);
    if (e && e->state == state)
        return 0;
    struct lmo_nbd_volume next = s->v;
    int rc = lmo_nbd_put(&next, host, epoch, state, err);
    return rc == 0 ? lmo_nbd_slot_commit(d, s, &next, err) : rc;
}

/* Takes one export out of the record. */
int lmo_nbd_slot_drop(struct lmo_nbd *d, struct lmo_nbd_slot *s, const char *host, uint64_t epoch, struct lmo_err *err)
{
    struct lmo_nbd_volume next = s->v;
    lmo_nbd_drop(&next, host, epoch);
    return lmo_nbd_slot_commit(d, s, &next, err);
}

int lmo_nbd_slot_forget(struct lmo_nbd *d, struct lmo_nbd_slot *s, struct lmo_err *err)
{
    int rc = lmo_nbd_erase(d->dir, s->v.name, err);
    if (rc != 0)
        return rc;
    struct lmo_nbd_volume empty = {0};
    memcpy(empty.name, s->v.name, sizeof(empty.name));
    pthread_mutex_lock(&d->lock);
    s->v = empty;
    s->known = false;
    s->reconciled = 0;
    pthread_mutex_unlock(&d->lock);
    return 0;
}

/* ---------------------------------------------------------------- reconciliation */

void lmo_nbd_seen_add(void *arg, const char *export_name, enum lmo_nbd_seen seen)
{
    struct lmo_nbd_seen_list *list = arg;
    if (list->count == sizeof(list->exports) / sizeof(list->exports[0])) {
        list->overflow = true;
        return;
    }
    snprintf(list->exports[list->count].name, LMO_EXPORT_MAX, "%s", export_name);
    list->exports[list->count++].seen = seen;
}

enum lmo_nbd_seen lmo_nbd_seen_find(const struct lmo_nbd_seen_list *list, const char *export_name)
{
    for (unsigned i = 0; i < list->count; i++)
        if (strcmp(list->exports[i].name, export_name) == 0)
            return list->exports[i].seen;
    return LMO_NBD_ABSENT;
}

/* Must an export that the service has be withdrawn? Fenced, detached, or below the floor: yes. One that the record
 * does not know otherwise was made by somebody else: it is left alone, and observe() reports it. */
static bool must_go(struct lmo_nbd_volume *v, const char *host, uint64_t epoch)
{
    const struct lmo_nbd_export *e = lmo_nbd_find(v, host, epoch);
    if (e)
        return !lmo_nbd_may_offer(v, host, epoch);
    return v->retired || epoch <= v->floor_epoch;
}

static int withdraw_excluded(struct lmo_nbd *d, struct lmo_nbd_slot *s, const struct lmo_nbd_seen_list *seen,
                             uint64_t deadline_ms, struct lmo_err *err)
{
    for (unsigned i = 0; i < seen->count; i++) {
        char volume[LMO_NBD_VOLUME_MAX], host[LMO_NAME_MAX];
        uint64_t epoch;
        if (!lmo_nbd_export_parse(seen->exports[i].name, volume, host, &epoch) || !must_go(&s->v, host, epoch))
            continue;
        int rc = lmo_nbd_withdraw(&d->service, seen->exports[i].name, deadline_ms, err);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int offer_attached(struct lmo_nbd *d, struct lmo_nbd_slot *s, const struct lmo_nbd_seen_list *seen,
                          uint64_t deadline_ms, struct lmo_err *err)
{
    bool node_there = false;
    for (unsigned i = 0; i < s->v.export_count; i++) {
        const struct lmo_nbd_export *e = &s->v.exports[i];
        char name[LMO_EXPORT_MAX];
        lmo_nbd_export_name(name, s->v.name, e->host, e->epoch);
        if (!lmo_nbd_may_offer(&s->v, e->host, e->epoch) || lmo_nbd_seen_find(seen, name) == LMO_NBD_OFFERED)
            continue;
        int rc = node_there ? 0 : lmo_nbd_node_add(&d->service, &s->v, deadline_ms, err);
        if (rc == 0)
            rc = lmo_nbd_offer(&d->service, s->v.name, name, deadline_ms, err);
        if (rc != 0)
            return rc;
        node_there = true;
    }
    return 0;
}

/* Detached exports that are gone from the service need no record any more. */
static int forget_detached(struct lmo_nbd *d, struct lmo_nbd_slot *s, struct lmo_err *err)
{
    struct lmo_nbd_volume next = s->v;
    for (unsigned i = next.export_count; i-- > 0;)
        if (next.exports[i].state == LMO_NBD_DETACHED)
            lmo_nbd_drop(&next, next.exports[i].host, next.exports[i].epoch);
    return next.export_count == s->v.export_count ? 0 : lmo_nbd_slot_commit(d, s, &next, err);
}

static int reconcile_once(struct lmo_nbd *d, struct lmo_nbd_slot *s, uint64_t deadline_ms, struct lmo_err *err)
{
    uint64_t generation;
    int rc = lmo_nbd_service_await(&d->service, deadline_ms, &generation, err);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&d->lock);
    bool done = s->reconciled == generation;
    pthread_mutex_unlock(&d->lock);
    if (done)
        return 0;
    struct lmo_nbd_seen_list seen = {0};
    rc = lmo_nbd_look(&d->service, s->v.name, lmo_nbd_seen_add, &seen, deadline_ms, err);
    if (rc == 0 && seen.overflow)
        rc = lmo_fail(err, LMO_E_LIMIT, "volume %s: the service has more exports of it than can be judged", s->v.name);
    if (rc == 0)
        rc = withdraw_excluded(d, s, &seen, deadline_ms, err);
    if (rc == 0)
        rc = offer_attached(d, s, &seen, deadline_ms, err);
    if (rc == 0)
        rc = forget_detached(d, s, err);
    if (rc == 0 && s->v.retired) {
        rc = lmo_nbd_node_remove(&d->service, s->v.name, deadline_ms, err);
        if (rc == 0)
            return lmo_nbd_slot_forget(d, s, err);
    }
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&d->lock);
    s->reconciled = generation;
    pthread_mutex_unlock(&d->lock);
    return 0;
}

void lmo_nbd_slot_unsettle(struct lmo_nbd *d, struct lmo_nbd_slot *s)
{
    pthread_mutex_lock(&d->lock);
    s->reconciled = 0;
    pthread_mutex_unlock(&d->lock);
}

void lmo_nbd_slot_doubt(struct lmo_nbd *d, struct lmo_nbd_slot *s)
{
    lmo_nbd_slot_unsettle(d, s);
    pthread_mutex_lock(&d->service.lock);
    d->doubt = true;
    pthread_cond_broadcast(&d->service.changed);
    pthread_mutex_unlock(&d->service.lock);
}

int lmo_nbd_reconcile(struct lmo_nbd *d, struct lmo_nbd_slot *s, uint64_t deadline_ms, struct lmo_err *err)
{
    int rc;
    do
        rc = reconcile_once(d, s, deadline_ms, err);
    while (lmo_nbd_try_again(&d->service, rc, deadline_ms));
    return rc;
}

int lmo_nbd_look_settled(struct lmo_nbd *d, struct lmo_nbd_slot *s, struct lmo_nbd_seen_list *ret, uint64_t deadline_ms,
                         struct lmo_err *err)
{
    int rc;
    do {
        memset(ret, 0, sizeof(*ret));
        rc = reconcile_once(d, s, deadline_ms, err);
        if (rc == 0)
            rc = lmo_nbd_look(&d->service, s->v.name, lmo_nbd_seen_add, ret, deadline_ms, err);
    } while (lmo_nbd_try_again(&d->service, rc, deadline_ms));
    return rc;
}

/* All volumes for one connection. Returns whether every one succeeded. The list only grows, and only at its head. */
static bool reconcile_all(struct lmo_nbd *d, uint64_t generation, bool is_new)
{
    bool ok = true;
    unsigned count = 0;
    pthread_mutex_lock(&d->lock);
    struct lmo_nbd_slot *s = d->slots;
    pthread_mutex_unlock(&d->lock);
    for (; s && lmo_nbd_service_generation(&d->service) == generation; s = s->next) {
        uint64_t deadline_ms = lmo_nbd_now_ms() + NBD_RECONCILE_MS;
        struct lmo_nbd_slot *held = NULL;
        struct lmo_err err = {0};
        char name[LMO_NBD_VOLUME_MAX];
        pthread_mutex_lock(&d->lock);
        memcpy(name, s->v.name, sizeof(name));
        pthread_mutex_unlock(&d->lock);
        int rc = lmo_nbd_slot_hold(d, name, false, deadline_ms, &held, &err);
        if (rc == LMO_E_NOT_FOUND)
            continue;
        if (rc == 0) {
            rc = lmo_nbd_reconcile(d, held, deadline_ms, &err);
            lmo_nbd_slot_release(d, held);
            count++;
        }
        if (rc != 0) {
            ok = false;
            lmo_log(LMO_LOG_WARN, "volume not reconciled with its service", "volume=%s error=%s reason=%s", name,
                    lmo_err_name(rc), err.text);
        }
    }
    if (ok && !s && is_new)
        lmo_log(LMO_LOG_INFO, "volume service reconciled", "connection=%" PRIu64 " volumes=%u", generation, count);
    return ok;
}

/* Sleeps until the service's connection is another one than `done`, something became doubtful, or `timeout_ms`
 * (0: none) has passed. Returns the connection, 0 if there is none. */
static uint64_t await_connection(struct lmo_nbd *d, uint64_t done, uint64_t timeout_ms)
{
    uint64_t deadline_ms = lmo_nbd_now_ms() + timeout_ms;
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    struct lmo_nbd_service *service = &d->service;
    int wait = 0;
    pthread_mutex_lock(&service->lock);
    while (!d->stop && (service->generation == 0 || (service->generation == done && !d->doubt)) && wait != ETIMEDOUT)
        wait = timeout_ms > 0 ? pthread_cond_timedwait(&service->changed, &service->lock, &until)
                              : pthread_cond_wait(&service->changed, &service->lock);
    uint64_t generation = d->stop ? 0 : service->generation;
    if (generation != 0)
        d->doubt = false;
    pthread_mutex_unlock(&service->lock);
    return generation;
}

static bool stopping(struct lmo_nbd *d)
{
    pthread_mutex_lock(&d->service.lock);
    bool stop = d->stop;
    pthread_mutex_unlock(&d->service.lock);
    return stop;
}

void *lmo_nbd_reconciler_thread(void *arg)
{
    struct lmo_nbd *d = arg;
    uint64_t done = 0;
    uint64_t again_ms = 0;
    while (!stopping(d)) {
        uint64_t generation = await_connection(d, done, again_ms);
        if (generation == 0)
            continue;
        bool ok = reconcile_all(d, generation, generation != done);
        done = generation;
        again_ms = ok ? 0 : NBD_RECONCILE_AGAIN_MS;
    }
    return NULL;
}
