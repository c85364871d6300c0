/* drain_check.c - looking at a drain: when something is due, whose cordon it is, and whether its invariants hold (drain.h). */
#include "core/drain_internal.h"

#include <string.h>

static int64_t earlier(int64_t a, int64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

int64_t lmo_drain_wake_ms(const struct lmo_drain *d)
{
    int64_t wake = 0;
    if (lmo_drain_is(d->state, LMO_DRAIN_TERMINAL) || d->state == LMO_DRAIN_PAUSED || d->state == LMO_DRAIN_PLANNING) {
        return 0;
    }
    for (uint32_t i = 0; i < d->guest_count; i++) {
        const struct lmo_drain_guest *g = &d->guests[i];
        wake = earlier(wake, g->state == LMO_DG_HELD ? g->look_ms : 0);
        wake = earlier(wake,
                       g->wait_ms && lmo_drain_guest_is(g->state, LMO_DG_OPEN) ? g->wait_ms + d->wait_timeout_ms : 0);
    }
    for (uint32_t i = 0; i < d->host_count; i++) {
        const struct lmo_drain_host *h = &d->hosts[i];
        if (lmo_drain_host_is(h->state, LMO_DH_BEGUN)) {
            wake = earlier(wake, h->look_ms);
            wake = earlier(wake, h->wait_ms ? h->wait_ms + d->wait_timeout_ms : 0);
        }
    }
    return wake == 0 && d->state == LMO_DRAIN_WAITING ? d->updated_ms + LMO_DRAIN_LOOK_MS : wake;
}

bool lmo_drain_refused(const struct lmo_drain_guest *g, const char *destination)
{
    for (unsigned i = 0; i < g->try_count; i++) {
        if (g->tries[i].code < 0 && lmo_err_class_of(g->tries[i].code) == LMO_CLASS_REFUSE &&
            strcmp(g->tries[i].destination, destination) == 0) {
            return true;
        }
    }
    return false;
}

bool lmo_drain_holds(const struct lmo_drain *d, const struct lmo_drain_host *h)
{
    return h->cordon && !lmo_drain_is(d->state, LMO_DRAIN_TERMINAL);
}

static const char *guest_broken(const struct lmo_drain *d, const struct lmo_drain_guest *g)
{
    if (g->host >= d->host_count) {
        return "a guest of no host";
    }
    if (g->after_count > LMO_DRAIN_AFTER_MAX || (g->after_host != LMO_DRAIN_NONE && g->after_host >= d->host_count)) {
        return "a move that comes after too many, or after a host that is not there";
    }
    for (unsigned i = 0; i < g->after_count; i++) {
        if (g->after[i].n >= d->guest_count) {
            return "a move that comes after one that is not there";
        }
    }
    if (g->try_count > LMO_DRAIN_TRIES_MAX) {
        return "a guest that was tried too often";
    }
    if (lmo_drain_guest_is(g->state, LMO_DG_CHILD) && (g->try_count == 0 || !g->destination[0])) {
        return "a guest that moves without a try, or to nowhere";
    }
    if (g->state == LMO_DG_MOVING && !g->migration[0]) {
        return "a guest that moves without a migration";
    }
    if (g->state == LMO_DG_HELD && (!g->reason[0] || g->wait_ms == 0 || g->look_ms == 0)) {
        return "a guest that waits without a reason, a beginning or a time to look again";
    }
    if ((g->state == LMO_DG_FAILED || g->state == LMO_DG_SKIPPED) && !g->reason[0]) {
        return "a guest that failed or was skipped without a reason";
    }
    enum lmo_drain_host_state h = d->hosts[g->host].state;
    if (lmo_drain_guest_is(g->state, LMO_DG_CHILD) && h != LMO_DH_EMPTYING && h != LMO_DH_REFILLING) {
        return "a guest that moves although its host's turn has not come, or is over";
    }
    return NULL;
}

const char *lmo_drain_broken(const struct lmo_drain *d)
{
    uint32_t begun = 0, guests_in[LMO_DG_COUNT] = {0}, hosts_in[LMO_DH_COUNT] = {0};
    bool over = lmo_drain_is(d->state, LMO_DRAIN_TERMINAL);
    if (d->host_count == 0 || d->host_count > LMO_DRAIN_HOSTS_MAX || d->guest_count > LMO_DRAIN_GUESTS_MAX) {
        return "no hosts, or too many hosts or guests";
    }
    for (uint32_t i = 0; i < d->host_count; i++) {
        const struct lmo_drain_host *h = &d->hosts[i];
        hosts_in[h->state]++;
        begun += lmo_drain_host_is(h->state, LMO_DH_BEGUN);
        if (over && !lmo_drain_host_is(h->state, LMO_DH_TERMINAL)) {
            return "it is over, and a host of it is not";
        }
        if (d->state == LMO_DRAIN_DRAINED && h->state != LMO_DH_DONE) {
            return "D1: drained, and a host is not";
        }
    }
    if (d->max_hosts > 0 && begun > d->max_hosts) {
        return "D4: more hosts have begun than may at once";
    }
    for (uint32_t i = 0; i < d->guest_count; i++) {
        const struct lmo_drain_guest *g = &d->guests[i];
        const char *broken = guest_broken(d, g);
        guests_in[g->state]++;
        if (broken) {
            return broken;
        }
        if (over && lmo_drain_guest_is(g->state, LMO_DG_CHILD)) {
            return "D7: it is over, and a guest of it moves";
        }
    }
    if (memcmp(guests_in, d->guests_in, sizeof guests_in) != 0 || memcmp(hosts_in, d->hosts_in, sizeof hosts_in) != 0) {
        return "its counts are not those of its guests and hosts";
    }
    if (d->state == LMO_DRAIN_WAITING && (!d->waiting_for[0] || d->waiting_since_ms == 0)) {
        return "D6: it waits without saying what for, or since when";
    }
    return NULL;
}
