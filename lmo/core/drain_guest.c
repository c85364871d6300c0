/* drain_guest.c - what a drain does about one guest: when it goes, what happens after a failure, what it waits for. */
#include "core/drain_internal.h"

#include "base/assert.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void lmo_drain_hold(struct lmo_drain_stepping *s, uint32_t guest, int code, int64_t ms, const char *fmt, ...)
{
    struct lmo_drain_guest *g = &s->d->guests[guest];
    char text[LMO_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (s->d->state == LMO_DRAIN_CANCELLING) {
        lmo_drain_set_guest(s, guest, LMO_DG_LEFT, LMO_E_CANCELLED, "the drain was cancelled; %.200s", text);
        return;
    }
    int64_t since = g->wait_ms ? g->wait_ms : s->ev->now_ms;
    lmo_drain_set_guest(s, guest, LMO_DG_HELD, code, "%s", text[0] ? text : "something that was not told");
    g->wait_ms = since;
    g->look_ms = s->ev->now_ms + ms;
}

static bool depends(const struct lmo_drain *d, const struct lmo_drain_guest *g)
{
    return g->depends_on != LMO_DRAIN_NONE && !g->back && lmo_drain_guest_is(d->guests[g->depends_on].state, LMO_DG_OPEN);
}

void lmo_drain_go(struct lmo_drain_stepping *s, uint32_t guest)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_guest *g = &d->guests[guest];
    enum lmo_drain_host_state h = d->hosts[g->host].state;
    if (g->state != LMO_DG_QUEUED) {
        return;
    }
    if (d->state == LMO_DRAIN_CANCELLING) {
        lmo_drain_set_guest(s, guest, LMO_DG_LEFT, LMO_E_CANCELLED, "the drain was cancelled before its turn");
        return;
    }
    if (!lmo_drain_begins(d) || (h != LMO_DH_EMPTYING && h != LMO_DH_REFILLING)) {
        return; /* D3 */
    }
    if (depends(d, g)) {
        (void)snprintf(g->reason, sizeof g->reason, "after guest %s, which makes room at %s",
                       d->guests[g->depends_on].name, g->destination);
        lmo_drain_touch_guest(d, guest);
        return;
    }
    if (g->try_count >= LMO_DRAIN_TRIES_MAX) { /* D5 */
        lmo_drain_set_guest(s, guest, LMO_DG_FAILED, LMO_E_LIMIT, "tried %u times", g->try_count);
        return;
    }
    if (!g->destination[0]) {
        lmo_drain_set_guest(s, guest, LMO_DG_PLACING, 0, "%s", "");
        return;
    }
    struct lmo_drain_try *t = &g->tries[g->try_count++];
    *t = (struct lmo_drain_try){0};
    memcpy(t->destination, g->destination, sizeof t->destination);
    g->migration[0] = '\0'; /* D2: the caller names it before this is stored */
    lmo_drain_set_guest(s, guest, LMO_DG_STARTING, 0, "%s", "");
}

void lmo_drain_dependents(struct lmo_drain_stepping *s, uint32_t guest)
{
    struct lmo_drain *d = s->d;
    for (uint32_t i = 0; d->has_depends && i < d->guest_count; i++) {
        if (d->guests[i].depends_on == guest && d->guests[i].state == LMO_DG_QUEUED) {
            lmo_drain_go(s, i);
        }
    }
}

void lmo_drain_moved(struct lmo_drain_stepping *s, uint32_t guest)
{
    struct lmo_drain_guest *g = &s->d->guests[guest];
    memcpy(g->at, g->destination, sizeof g->at);
    lmo_drain_set_guest(s, guest, LMO_DG_MOVED, 0, "%s", "");
    lmo_drain_dependents(s, guest);
}

static void failed(struct lmo_drain_stepping *s, uint32_t guest, int code, const char *why, const char *text)
{
    lmo_drain_set_guest(s, guest, LMO_DG_FAILED, code, "%s%.200s", why, text[0] ? text : lmo_err_name(code));
    lmo_drain_dependents(s, guest); /* they look for themselves whether there is room */
}

/* Up to dual_ingress it is about the two hosts; from pre-copy on it is about the guest itself. */
static bool is_the_destinations(int code, enum lmo_phase failed_in)
{
    return lmo_err_class_of(code) == LMO_CLASS_REFUSE && code != LMO_E_NOT_CONVERGING &&
           (failed_in == LMO_PHASE_QUEUED || failed_in == LMO_PHASE_PRECHECK || failed_in == LMO_PHASE_DESTINATION_CREATE ||
            failed_in == LMO_PHASE_VOLUME_ATTACH || failed_in == LMO_PHASE_NETWORK_PRELOAD ||
            failed_in == LMO_PHASE_DUAL_INGRESS);
}

/* The same failure as before: of the guest itself wherever it was to go, of a destination at that one. */
static bool happened_before(const struct lmo_drain_guest *g)
{
    const struct lmo_drain_try *last = &g->tries[g->try_count - 1];
    for (unsigned i = 0; i + 1 < g->try_count; i++) {
        const struct lmo_drain_try *t = &g->tries[i];
        bool here = strcmp(t->destination, last->destination) == 0;
        if (t->code == last->code && t->failed_in == last->failed_in &&
            (here || !is_the_destinations(last->code, last->failed_in))) {
            return true;
        }
    }
    return false;
}

/* The present try has failed. `again_ms` 0: another destination, at once. */
static void try_again(struct lmo_drain_stepping *s, uint32_t guest, int code, int64_t again_ms)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_guest *g = &d->guests[guest];
    if (g->try_count >= LMO_DRAIN_TRIES_MAX) { /* D5 */
        failed(s, guest, code, "tried as often as is allowed; the last time: ", s->text);
        return;
    }
    char last[LMO_NAME_MAX];
    memcpy(last, g->destination, sizeof last);
    if (!g->back) {
        g->destination[0] = '\0';
    }
    if (again_ms > 0) {
        lmo_drain_hold(s, guest, code, again_ms, "tried %u of %u times; at %s: %.160s", g->try_count, LMO_DRAIN_TRIES_MAX,
                       last, s->text);
    } else if (lmo_drain_begins(d)) {
        lmo_drain_set_guest(s, guest, LMO_DG_PLACING, code, "%s refused: %.180s", last, s->text);
    } else {
        lmo_drain_set_guest(s, guest, LMO_DG_QUEUED, code, "%s refused: %.180s", last, s->text);
    }
}

void lmo_drain_child_failed(struct lmo_drain_stepping *s, uint32_t guest, int code, enum lmo_phase failed_in)
{
    struct lmo_drain_guest *g = &s->d->guests[guest];
    lmo_assert(g->try_count > 0);
    g->tries[g->try_count - 1].code = code;
    g->tries[g->try_count - 1].failed_in = failed_in;
    if (s->d->state == LMO_DRAIN_CANCELLING) {
        lmo_drain_set_guest(s, guest, LMO_DG_LEFT, code, "%.250s", s->text);
    } else if (code == LMO_E_CANCELLED) {
        failed(s, guest, code, "its migration was cancelled: ", s->text);
    } else if (happened_before(g)) {
        failed(s, guest, code, "as before, so it is not tried again: ", s->text);
    } else if (is_the_destinations(code, failed_in)) {
        if (g->back) {
            failed(s, guest, code, "", s->text);
        } else {
            try_again(s, guest, code, 0);
        }
    } else {
        int64_t pause = LMO_DRAIN_BACKOFF_MS << (2 * (g->try_count - 1));
        try_again(s, guest, code, pause);
    }
}

/* No migration was made: what does not lie in the destination does not count as a try. */
void lmo_drain_start_refused(struct lmo_drain_stepping *s, uint32_t guest)
{
    struct lmo_drain_guest *g = &s->d->guests[guest];
    int code = s->ev->code < 0 ? s->ev->code : LMO_E_REFUSED;
    lmo_assert(g->try_count > 0);
    g->migration[0] = '\0';
    if (s->d->state == LMO_DRAIN_CANCELLING) {
        g->try_count--;
        lmo_drain_set_guest(s, guest, LMO_DG_LEFT, LMO_E_CANCELLED, "the drain was cancelled before its turn");
    } else if (s->ev->destination_fault && !g->back) {
        g->tries[g->try_count - 1].code = code;
        g->tries[g->try_count - 1].failed_in = LMO_PHASE_QUEUED;
        try_again(s, guest, code, 0);
    } else {
        g->try_count--;
        if (!g->back) {
            g->destination[0] = '\0';
        }
        lmo_drain_hold(s, guest, code, LMO_DRAIN_LOOK_MS, "%s", s->text);
    }
}

static enum lmo_unmovable policy_of(const struct lmo_drain *d, const struct lmo_drain_guest *g)
{
    enum lmo_unmovable p = g->policy != LMO_UNMOVABLE_DEFAULT ? g->policy : d->unmovable;
    return p == LMO_UNMOVABLE_DEFAULT ? LMO_UNMOVABLE_FAIL : p;
}

/* It cannot move live. (A guest that its policy lets move all the same is placed, not blocked.) */
void lmo_drain_blocked(struct lmo_drain_stepping *s, uint32_t guest)
{
    struct lmo_drain_guest *g = &s->d->guests[guest];
    enum lmo_unmovable policy = policy_of(s->d, g);
    const char *text = s->text[0] ? s->text : "it cannot move live";
    if (s->ev->code == LMO_E_BUSY) { /* somebody asked that it be left alone for now */
        lmo_drain_hold(s, guest, LMO_E_BUSY, LMO_DRAIN_LOOK_MS, "%s", text);
        return;
    }
    switch (policy) {
    case LMO_UNMOVABLE_SKIP:
        lmo_drain_set_guest(s, guest, LMO_DG_SKIPPED, LMO_E_REFUSED, "%s", text);
        lmo_drain_dependents(s, guest);
        return;
    case LMO_UNMOVABLE_WAIT: lmo_drain_hold(s, guest, LMO_E_REFUSED, LMO_DRAIN_LOOK_MS, "%s", text); return;
    case LMO_UNMOVABLE_OFFLINE:
        failed(s, guest, LMO_E_REFUSED, g->shut_off ? "cannot move even while it is shut off: "
                                                    : "runs, and its policy moves it only while it is shut off: ", text);
        return;
    case LMO_UNMOVABLE_BLOCK:
        failed(s, guest, LMO_E_REFUSED, s->ev->blocker == LMO_BLOCKER_LOCAL_DISK ? "no volume driver there copies local disks: "
                                                                                 : "not a local disk that could be copied: ", text);
        return;
    case LMO_UNMOVABLE_DEFAULT:
    case LMO_UNMOVABLE_FAIL:
    case LMO_UNMOVABLE_COUNT: break;
    }
    failed(s, guest, LMO_E_REFUSED, "", text);
}

void lmo_drain_guest_timer(struct lmo_drain_stepping *s, uint32_t guest)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_guest *g = &d->guests[guest];
    if (g->wait_ms != 0 && lmo_drain_guest_is(g->state, LMO_DG_OPEN) && s->ev->now_ms >= g->wait_ms + d->wait_timeout_ms &&
        (g->state == LMO_DG_HELD || g->state == LMO_DG_MOVING)) {
        char text[LMO_TEXT_MAX];
        memcpy(text, g->reason, sizeof text);
        failed(s, guest, LMO_E_TIMEOUT, "waited as long as is allowed: ", text);
    } else if (g->state == LMO_DG_HELD && s->ev->now_ms >= g->look_ms && lmo_drain_begins(d)) {
        lmo_drain_set_guest(s, guest, LMO_DG_PLACING, g->code, "%s", g->reason);
    }
}
