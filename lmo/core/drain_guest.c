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

/* The first thing that its move has to wait for, in words; false: nothing. *ret_replan: something that was to make room for it has
 * not done so. */
static bool must_wait(const struct lmo_drain *d, const struct lmo_drain_guest *g, char *text, size_t size,
                      bool *ret_replan)
{
    *ret_replan = false;
    if (g->back) {
        return false;
    }
    for (unsigned i = 0; i < g->after_count; i++) {
        const struct lmo_drain_guest *first = &d->guests[g->after[i].n];
        if (lmo_drain_guest_is(first->state, LMO_DG_OPEN)) {
            bool self = strcmp(first->uuid, g->uuid) == 0;
            (void)snprintf(text, size, "%s%s", self ? "after its own move to " : "room that is made by moving guest ",
                           self ? first->destination : first->name);
            return true;
        }
        *ret_replan = *ret_replan || (first->state != LMO_DG_MOVED && first->state != LMO_DG_GONE);
    }
    if (g->after_host != LMO_DRAIN_NONE && !lmo_drain_host_is(d->hosts[g->after_host].state, LMO_DH_TERMINAL)) {
        (void)snprintf(text, size, "host %s to be back", d->hosts[g->after_host].name);
        return true;
    }
    return false;
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
    bool replan = false;
    char text[LMO_TEXT_MAX];
    if (must_wait(d, g, text, sizeof text, &replan)) {
        if (strcmp(g->reason, text) != 0) {
            memcpy(g->reason, text, sizeof text);
            lmo_drain_touch_guest(d, guest);
        }
        return;
    }
    if (replan) {
        g->destination[0] = '\0';
        g->after_count = 0;
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
    for (uint32_t i = 0; d->has_after && i < d->guest_count; i++) {
        bool after = false;
        for (unsigned a = 0; a < d->guests[i].after_count && !after; a++) {
            after = d->guests[i].after[a].n == guest;
        }
        if (after && strcmp(d->guests[i].uuid, d->guests[guest].uuid) == 0) {
            memcpy(d->guests[i].at, d->guests[guest].at, sizeof d->guests[i].at); /* wherever it went */
        }
        if (after && d->guests[i].state == LMO_DG_QUEUED) {
            lmo_drain_go(s, i);
        }
    }
}

void lmo_drain_moved(struct lmo_drain_stepping *s, uint32_t guest)
{
    struct lmo_drain_guest *g = &s->d->guests[guest];
    memcpy(g->at, g->destination, sizeof g->at);
    lmo_drain_set_guest(s, guest, LMO_DG_MOVED, 0, "%s", "");
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
           (failed_in == LMO_PHASE_QUEUED || failed_in == LMO_PHASE_PRECHECK ||
            failed_in == LMO_PHASE_DESTINATION_CREATE || failed_in == LMO_PHASE_VOLUME_ATTACH ||
            failed_in == LMO_PHASE_NETWORK_PRELOAD || failed_in == LMO_PHASE_DUAL_INGRESS);
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
        lmo_drain_hold(s, guest, code, again_ms, "tried %u of %u times; at %s: %.160s", g->try_count,
                       LMO_DRAIN_TRIES_MAX, last, s->text);
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

/* It cannot be moved as it is. (One that its policy lets move all the same, shut off or with its disks, is placed.) */
void lmo_drain_blocked(struct lmo_drain_stepping *s, uint32_t guest)
{
    const struct lmo_drain_guest *g = &s->d->guests[guest];
    const char *text = s->text[0] ? s->text : "it cannot move live";
    if (s->ev->code == LMO_E_BUSY) {
        lmo_drain_hold(s, guest, LMO_E_BUSY, LMO_DRAIN_LOOK_MS, "%s", text);
        return;
    }
    switch (g->policy) {
    case LMO_UNMOVABLE_SKIP:
        lmo_drain_set_guest(s, guest, LMO_DG_SKIPPED, LMO_E_REFUSED, "%s", text);
        lmo_drain_dependents(s, guest);
        return;
    case LMO_UNMOVABLE_WAIT: lmo_drain_hold(s, guest, LMO_E_REFUSED, LMO_DRAIN_LOOK_MS, "%s", text); return;
    case LMO_UNMOVABLE_OFFLINE:
        failed(s, guest, LMO_E_REFUSED,
               g->shut_off ? "cannot move even while it is shut off: "
                           : "runs, and its policy moves it only while it is shut off: ",
               text);
        return;
    case LMO_UNMOVABLE_BLOCK:
        failed(s, guest, LMO_E_REFUSED, "its disks are not copied, as no volume driver here can: ", text);
        return;
    case LMO_UNMOVABLE_FAIL: break;
    }
    failed(s, guest, LMO_E_REFUSED, "", text);
}

void lmo_drain_guest_timer(struct lmo_drain_stepping *s, uint32_t guest)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_guest *g = &d->guests[guest];
    if (g->wait_ms != 0 && lmo_drain_guest_is(g->state, LMO_DG_OPEN) &&
        s->ev->now_ms >= g->wait_ms + d->wait_timeout_ms && (g->state == LMO_DG_HELD || g->state == LMO_DG_MOVING)) {
        char text[LMO_TEXT_MAX];
        memcpy(text, g->reason, sizeof text);
        failed(s, guest, LMO_E_TIMEOUT, "waited as long as is allowed: ", text);
    } else if (g->state == LMO_DG_HELD && s->ev->now_ms >= g->look_ms && lmo_drain_begins(d)) {
        lmo_drain_set_guest(s, guest, LMO_DG_PLACING, g->code, "%s", g->reason);
    }
}
