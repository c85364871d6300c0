/* status.c - what a service manager and its watchdog want to know. */
#include "base/str.h"
#include "engine/internal.h"

void lmo_engine_status(const struct lmo_engine *e, struct lmo_engine_status *ret)
{
    *ret = (struct lmo_engine_status){.open = HASH_COUNT(e->entries),
                                      .hosts = HASH_COUNT(e->hosts), .observing = e->observing,
                                      .store_code = e->stall_code};
    LMO_COPY(ret->store_why, e->stall_code ? e->stall_why : "");
    for (const struct entry *en = e->entries; en; en = en->hh.next) {
        ret->attention += en->phase == LMO_PHASE_ATTENTION;
    }
    for (const struct host *h = e->hosts; h; h = h->hh.next) {
        ret->hosts_up += h->up;
    }
}

int lmo_engine_beat(struct lmo_engine *e, struct lmo_err *err)
{
    int r = 0;
    if (e->stall_code) {
        return lmo_fail(err, e->stall_code, "%s", e->stall_why);
    }
    if (e->commits == e->commits_beaten && e->store->ops->beat) {
        r = e->store->ops->beat(e->store, err);
    }
    e->commits_beaten = e->commits;
    return r;
}

void lmo_engine_set_limits(struct lmo_engine *e, const struct lmo_limits *limits)
{
    engine_admission_set_limits(e, limits);
}
