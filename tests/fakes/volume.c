/* volume.c - a volume service: who is offered what under which epoch, and what is fenced. */
#include "fakes/internal.h"

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
    struct fake_volume *v = NULL;
    return fake_guest_of_volume(w, name, &v) ? v : NULL;
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

/* A free slot, or that of the oldest export that is offered no more. */
static struct fake_export *export_slot(struct fake_volume *v)
{
    struct fake_export *oldest = NULL;
    for (unsigned i = 0; v && i < FAKE_EXPORTS; i++) {
        struct fake_export *x = &v->exports[i];
        if (!x->name[0]) {
            return x;
        }
        if (!x->offered && (!oldest || x->epoch < oldest->epoch)) {
            oldest = x;
        }
    }
    return oldest;
}

int fake_offer_locked(struct fake_world *w, const char *volume, const char *host, uint64_t epoch,
                      char ret_export[LMO_EXPORT_MAX], struct lmo_err *err)
{
    struct fake_volume *v = volume_named(w, volume);
    char name[LMO_EXPORT_MAX];
    snprintf(name, sizeof name, "%.60s.%.60s.e%llu", volume, host, (unsigned long long)epoch);
    struct fake_export *x = export_named(v, name);
    if (!x) {
        x = export_slot(v);
        if (!x) {
            return lmo_fail(err, LMO_E_NOT_FOUND, "no volume '%s', or no slot", volume);
        }
        *x = (struct fake_export){.epoch = epoch};
        LMO_COPY(x->name, name);
        LMO_COPY(x->host, host);
    }
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
    if (fake_enter(w, FAKE_PROVISION, &r, err)) {
        return r;
    }
    fake_lock(w);
    r = fake_offer_locked(w, volume, host, epoch, ret_export, err);
    fake_unlock(w);
    return fake_leave(w, FAKE_PROVISION, r, err);
}

static int vol_retire(struct lmo_volume_driver *d, const char *volume, uint64_t timeout_ms, struct lmo_err *err)
{
    (void)volume;
    (void)timeout_ms;
    int r = 0;
    struct fake_world *w = volumes_world(d);
    return fake_enter(w, FAKE_RETIRE, &r, err) ? r : fake_leave(w, FAKE_RETIRE, 0, err);
}

static int vol_check(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    int r = 0;
    if (fake_enter(w, FAKE_CHECK_VOLUME, &r, err)) {
        return r;
    }
    fake_lock(w);
    struct fake_export *x = export_named(volume_named(w, volume), export_name);
    r = x && x->offered ? 0 : lmo_fail(err, LMO_E_REFUSED, "export '%s' is not offered", export_name);
    fake_unlock(w);
    return fake_leave(w, FAKE_CHECK_VOLUME, r, err);
}

static int vol_attach(struct lmo_volume_driver *d, const char *volume, const char *host, uint64_t epoch,
                      char ret_export[LMO_EXPORT_MAX], uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    int r = 0;
    if (fake_enter(w, FAKE_ATTACH, &r, err)) {
        return r;
    }
    fake_lock(w);
    r = fake_offer_locked(w, volume, host, epoch, ret_export, err);
    fake_unlock(w);
    return fake_leave(w, FAKE_ATTACH, r, err);
}

static int vol_fence(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                     struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    int r = 0;
    if (fake_enter(w, FAKE_FENCE, &r, err)) {
        return r;
    }
    fake_lock(w);
    struct fake_export *x = export_named(volume_named(w, volume), export_name);
    if (x) {
        x->offered = false;
        x->fenced = true;
    } else {
        r = lmo_fail(err, LMO_E_NOT_FOUND, "no export '%s'", export_name);
    }
    fake_unlock(w);
    return fake_leave(w, FAKE_FENCE, r, err);
}

static int vol_verify(struct lmo_volume_driver *d, const char *volume, const char *fenced, const char *holder,
                      uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    int r = 0;
    if (fake_enter(w, FAKE_VERIFY, &r, err)) {
        return r;
    }
    fake_lock(w);
    struct fake_export *f = export_named(volume_named(w, volume), fenced),
                       *h = export_named(volume_named(w, volume), holder);
    r = f && f->fenced && h && h->offered ? 0 : lmo_fail(err, LMO_E_REFUSED, "the fence does not hold");
    fake_unlock(w);
    return fake_leave(w, FAKE_VERIFY, r, err);
}

static int vol_detach(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                      struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    int r = 0;
    if (fake_enter(w, FAKE_DETACH, &r, err)) {
        return r;
    }
    fake_lock(w);
    struct fake_export *x = export_named(volume_named(w, volume), export_name);
    if (x) {
        x->offered = false;
    }
    fake_unlock(w);
    return fake_leave(w, FAKE_DETACH, 0, err);
}

static int vol_observe(struct lmo_volume_driver *d, const char *volume, struct lmo_volume_state *ret,
                       uint64_t timeout_ms, struct lmo_err *err)
{
    (void)timeout_ms;
    struct fake_world *w = volumes_world(d);
    fake_lock(w);
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
    fake_unlock(w);
    return r;
}

static int vol_list(struct lmo_volume_driver *d, int (*cb)(void *arg, const char *volume), void *arg, struct lmo_err *err)
{
    struct fake_world *w = volumes_world(d);
    (void)err;
    for (unsigned n = 0; n < w->guest_count; n++) {
        for (unsigned i = 0; i < w->volume_count; i++) {
            char name[LMO_NAME_MAX]; /* the world's own is not held while the caller looks at it */
            fake_lock(w);
            snprintf(name, sizeof name, "%s", fake_guest(w, n)->volumes[i].name);
            fake_unlock(w);
            if (name[0] && cb(arg, name) != 0) {
                return 0;
            }
        }
    }
    return 0;
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
    .list = vol_list,
};


struct lmo_volume_driver *fake_volume_new(struct fake_world *w)
{
    struct fake_volumes *v = calloc(1, sizeof *v);
    lmo_assert(v);
    *v = (struct fake_volumes){.base.ops = &vol_ops, .world = w};
    return &v->base;
}
