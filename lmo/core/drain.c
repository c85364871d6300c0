/* drain.c - the step of a drain: which event does what. What becomes of a guest is drain_guest.c, of a host drain_host.c,
 * the states' tables drain_table.c. Invariants: drain.h. */
#include "core/drain_internal.h"

#include "base/assert.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool lmo_drain_begins(const struct lmo_drain *d)
{
    return lmo_drain_is(d->state, LMO_DRAIN_BEGINS);
}

/* ------------------------------------------------------------------ what a step touches */

void lmo_drain_touch_guest(struct lmo_drain *d, uint32_t guest)
{
    struct lmo_drain_guest *g = &d->guests[guest];
    if (!g->touched) {
        g->touched = true;
        g->next_touched = d->touched_guests;
        d->touched_guests = guest;
    }
}

void lmo_drain_touch_host(struct lmo_drain *d, uint32_t host)
{
    struct lmo_drain_host *h = &d->hosts[host];
    if (!h->touched) {
        h->touched = true;
        h->next_touched = d->touched_hosts;
        d->touched_hosts = host;
    }
}

void lmo_drain_settled(struct lmo_drain *d)
{
    while (d->touched_guests != LMO_DRAIN_NONE) {
        struct lmo_drain_guest *g = &d->guests[d->touched_guests];
        d->touched_guests = g->next_touched;
        g->touched = false;
    }
    while (d->touched_hosts != LMO_DRAIN_NONE) {
        struct lmo_drain_host *h = &d->hosts[d->touched_hosts];
        d->touched_hosts = h->next_touched;
        h->touched = false;
    }
}

void lmo_drain_index(struct lmo_drain *d)
{
    memset(d->guests_in, 0, sizeof d->guests_in);
    memset(d->hosts_in, 0, sizeof d->hosts_in);
    d->touched_guests = d->touched_hosts = LMO_DRAIN_NONE;
    d->has_after = false;
    for (uint32_t i = 0; i < d->host_count; i++) {
        struct lmo_drain_host *h = &d->hosts[i];
        h->first = LMO_DRAIN_NONE;
        h->guests = h->open = 0;
        h->touched = false;
        d->hosts_in[h->state]++;
    }
    for (uint32_t i = d->guest_count; i-- > 0;) { /* each host's in their order */
        struct lmo_drain_guest *g = &d->guests[i];
        struct lmo_drain_host *h = &d->hosts[g->host];
        g->next = h->first;
        h->first = i;
        h->guests++;
        h->open += lmo_drain_guest_is(g->state, LMO_DG_OPEN);
        g->touched = g->listed = false;
        d->guests_in[g->state]++;
        d->has_after = d->has_after || g->after_count > 0 || g->after_host != LMO_DRAIN_NONE;
    }
}

/* ------------------------------------------------------------------ the setters: the only places that change a state */

/* Entering a state tells everything about it: what was said of the one before is gone. */
void lmo_drain_set_guest(struct lmo_drain_stepping *s, uint32_t guest, enum lmo_drain_guest_state to, int code,
                         const char *fmt, ...)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_guest *g = &d->guests[guest];
    struct lmo_drain_host *h = &d->hosts[g->host];
    va_list ap;
    lmo_assert(lmo_drain_guest_may_follow(g->state, to));
    bool was = lmo_drain_guest_is(g->state, LMO_DG_OPEN), is = lmo_drain_guest_is(to, LMO_DG_OPEN);
    d->guests_in[g->state]--;
    d->guests_in[to]++;
    h->open += (uint32_t)is - (uint32_t)was;
    if (!g->back) { /* what became of its host's guests */
        h->failed += (uint32_t)(to == LMO_DG_FAILED) - (uint32_t)(g->state == LMO_DG_FAILED);
        h->skipped += (uint32_t)(to == LMO_DG_SKIPPED) - (uint32_t)(g->state == LMO_DG_SKIPPED);
        h->moved += (uint32_t)(to == LMO_DG_MOVED);
    }
    g->state = to;
    g->code = code;
    g->since_ms = s->ev->now_ms;
    g->look_ms = 0;
    if (!is || to == LMO_DG_MOVING) {
        g->wait_ms = 0;
    }
    char text[LMO_TEXT_MAX]; /* the arguments may be the old reason */
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(g->reason, text, sizeof text);
    lmo_drain_touch_guest(d, guest);
    lmo_drain_touch_host(d, g->host);
}

void lmo_drain_set_host(struct lmo_drain_stepping *s, uint32_t host, enum lmo_drain_host_state to, const char *fmt, ...)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_host *h = &d->hosts[host];
    va_list ap;
    lmo_assert(lmo_drain_host_may_follow(h->state, to));
    d->hosts_in[h->state]--;
    d->hosts_in[to]++;
    h->state = to;
    h->since_ms = s->ev->now_ms;
    h->wait_ms = h->look_ms = 0;
    va_start(ap, fmt);
    (void)vsnprintf(h->reason, sizeof h->reason, fmt, ap);
    va_end(ap);
    if (to == LMO_DH_FAILED && d->code == 0) {
        d->code = LMO_E_REFUSED;
        (void)snprintf(d->reason, sizeof d->reason, "host %s: %.180s", h->name, h->reason);
    }
    lmo_drain_touch_host(d, host);
}

static void set_drain(struct lmo_drain_stepping *s, enum lmo_drain_state to)
{
    struct lmo_drain *d = s->d;
    if (d->state == to) {
        return;
    }
    lmo_assert(lmo_drain_may_follow(d->state, to));
    d->state = to;
    d->state_ms = s->ev->now_ms;
    d->waiting_for[0] = '\0';
    d->waiting_since_ms = 0;
    if (lmo_drain_is(to, LMO_DRAIN_TERMINAL)) {
        d->ended_ms = s->ev->now_ms;
        d->percent = to == LMO_DRAIN_DRAINED ? 100 : d->percent;
    }
}

/* ------------------------------------------------------------------ where the whole of it stands */

static uint32_t hosts_over(const struct lmo_drain *d)
{
    uint32_t over = 0;
    for (int state = 0; state < LMO_DH_COUNT; state++) {
        over += lmo_drain_host_is((enum lmo_drain_host_state)state, LMO_DH_TERMINAL) ? d->hosts_in[state] : 0;
    }
    return over;
}

static bool host_works(const struct lmo_drain_host *h)
{
    return (h->state == LMO_DH_CHECKING || h->state == LMO_DH_HOOK || h->state == LMO_DH_PROBING) && h->wait_ms == 0;
}

/* What the drain waits for: the first thing that is found, hosts before guests. */
static void tell_waiting(struct lmo_drain *d)
{
    d->waiting_for[0] = '\0';
    d->waiting_since_ms = 0;
    for (uint32_t i = 0; i < d->host_count; i++) {
        const struct lmo_drain_host *h = &d->hosts[i];
        if (lmo_drain_host_is(h->state, LMO_DH_BEGUN) && h->wait_ms != 0) {
            (void)snprintf(d->waiting_for, sizeof d->waiting_for, "host %s: %.180s", h->name, h->reason);
            d->waiting_since_ms = h->wait_ms;
            return;
        }
    }
    for (uint32_t i = 0; i < d->guest_count; i++) {
        const struct lmo_drain_guest *g = &d->guests[i];
        if (g->state == LMO_DG_HELD) {
            (void)snprintf(d->waiting_for, sizeof d->waiting_for, "guest %s: %.180s", g->name, g->reason);
            d->waiting_since_ms = g->wait_ms;
            return;
        }
    }
    for (uint32_t i = 0; i < d->guest_count; i++) { /* in its host's turn, after a move of another's */
        const struct lmo_drain_guest *g = &d->guests[i];
        if (g->state == LMO_DG_QUEUED && d->hosts[g->host].state == LMO_DH_EMPTYING && g->reason[0]) {
            (void)snprintf(d->waiting_for, sizeof d->waiting_for, "guest %s: %.180s", g->name, g->reason);
            d->waiting_since_ms = g->since_ms;
            return;
        }
    }
    (void)snprintf(d->waiting_for, sizeof d->waiting_for, LMO_DRAIN_UNTOLD);
    d->waiting_since_ms = d->state_ms;
}

static void end(struct lmo_drain_stepping *s)
{
    struct lmo_drain *d = s->d;
    if (d->hosts_in[LMO_DH_FAILED] > 0 || d->hosts_in[LMO_DH_LEFT] > 0) {
        set_drain(s, LMO_DRAIN_FAILED);
    } else {
        set_drain(s, d->hosts_in[LMO_DH_INCOMPLETE] > 0 ? LMO_DRAIN_INCOMPLETE : LMO_DRAIN_DRAINED); /* D1 */
    }
}

static void cancelled(struct lmo_drain_stepping *s)
{
    struct lmo_drain *d = s->d;
    for (uint32_t i = 0; i < d->host_count; i++) {
        struct lmo_drain_host *h = &d->hosts[i];
        if (!lmo_drain_host_is(h->state, LMO_DH_TERMINAL)) {
            lmo_drain_set_host(s, i, LMO_DH_LEFT, "the drain was cancelled");
        }
        if (h->cordon && h->state == LMO_DH_LEFT) {
            h->cordon = false;
            lmo_drain_touch_host(d, i);
        }
    }
    set_drain(s, LMO_DRAIN_CANCELLED);
}

static void conclude(struct lmo_drain_stepping *s)
{
    struct lmo_drain *d = s->d;
    uint32_t children = d->guests_in[LMO_DG_STARTING] + d->guests_in[LMO_DG_MOVING];
    if (lmo_drain_is(d->state, LMO_DRAIN_TERMINAL) || d->state == LMO_DRAIN_PLANNING) {
        return;
    }
    if (d->state == LMO_DRAIN_CANCELLING) {
        if (children == 0) {
            cancelled(s);
        }
        return;
    }
    if (hosts_over(d) == d->host_count) {
        end(s);
        return;
    }
    if (d->state == LMO_DRAIN_PAUSED) {
        return;
    }
    bool works = children + d->guests_in[LMO_DG_PLACING] > 0;
    for (uint32_t i = 0; i < d->host_count && !works; i++) {
        works = host_works(&d->hosts[i]);
    }
    set_drain(s, works ? LMO_DRAIN_RUNNING : LMO_DRAIN_WAITING);
    if (!works) {
        tell_waiting(d);
    }
}

/* ------------------------------------------------------------------ requests */

static int on_planned(struct lmo_drain_stepping *s, struct lmo_err *err)
{
    struct lmo_drain *d = s->d;
    if (d->state != LMO_DRAIN_PLANNING) {
        return lmo_fail(err, LMO_E_CONFLICT, "drain %s has its plan already", d->id);
    }
    lmo_drain_index(d);
    set_drain(s, LMO_DRAIN_RUNNING);
    for (uint32_t i = 0; i < d->guest_count; i++) {
        d->guests[i].since_ms = s->ev->now_ms;
        lmo_drain_touch_guest(d, i);
    }
    for (uint32_t i = 0; i < d->host_count; i++) {
        d->hosts[i].since_ms = s->ev->now_ms;
        lmo_drain_touch_host(d, i);
    }
    return 0;
}

static int on_pause(struct lmo_drain_stepping *s, struct lmo_err *err)
{
    struct lmo_drain *d = s->d;
    if (d->state == LMO_DRAIN_PAUSED) {
        return 0;
    }
    if (!lmo_drain_may_follow(d->state, LMO_DRAIN_PAUSED)) {
        return lmo_fail(err, LMO_E_CONFLICT, "drain %s is %s: it cannot be paused", d->id,
                        lmo_drain_state_text(d->state));
    }
    set_drain(s, LMO_DRAIN_PAUSED);
    (void)snprintf(d->waiting_for, sizeof d->waiting_for, "%s", s->text);
    d->waiting_since_ms = s->text[0] ? s->ev->now_ms : 0;
    return 0;
}

/* A pause costs no one his patience: what is waited for is waited for anew. */
static int on_resume(struct lmo_drain_stepping *s, struct lmo_err *err)
{
    struct lmo_drain *d = s->d;
    if (lmo_drain_begins(d)) {
        return 0;
    }
    if (d->state != LMO_DRAIN_PAUSED) {
        return lmo_fail(err, LMO_E_CONFLICT, "drain %s is %s, not paused", d->id, lmo_drain_state_text(d->state));
    }
    set_drain(s, LMO_DRAIN_RUNNING);
    for (uint32_t i = 0; i < d->guest_count; i++) {
        struct lmo_drain_guest *g = &d->guests[i];
        if (g->state == LMO_DG_HELD) {
            g->wait_ms = s->ev->now_ms;
            lmo_drain_touch_guest(d, i);
        }
    }
    for (uint32_t i = 0; i < d->host_count; i++) {
        struct lmo_drain_host *h = &d->hosts[i];
        if (h->wait_ms != 0) {
            h->wait_ms = s->ev->now_ms;
            lmo_drain_touch_host(d, i);
        }
        if (h->state == LMO_DH_EMPTYING || h->state == LMO_DH_REFILLING) {
            lmo_drain_go_all(s, i);
        }
    }
    return 0;
}

static int on_cancel(struct lmo_drain_stepping *s, struct lmo_err *err)
{
    struct lmo_drain *d = s->d;
    if (d->state == LMO_DRAIN_CANCELLING) {
        return 0;
    }
    if (lmo_drain_is(d->state, LMO_DRAIN_TERMINAL)) {
        return lmo_fail(err, LMO_E_CONFLICT, "drain %s has ended (%s)", d->id, lmo_drain_state_text(d->state));
    }
    d->code = LMO_E_CANCELLED;
    (void)snprintf(d->reason, sizeof d->reason, "%s", s->text[0] ? s->text : "cancelled by request");
    if (d->state == LMO_DRAIN_PLANNING) {
        cancelled(s);
        return 0;
    }
    set_drain(s, LMO_DRAIN_CANCELLING);
    for (uint32_t i = 0; i < d->guest_count; i++) {
        enum lmo_drain_guest_state state = d->guests[i].state;
        if (lmo_drain_guest_is(state, LMO_DG_CHILD)) {
            lmo_drain_touch_guest(d, i); /* the caller ends it */
        } else if (lmo_drain_guest_is(state, LMO_DG_OPEN)) {
            lmo_drain_set_guest(s, i, LMO_DG_LEFT, LMO_E_CANCELLED, "the drain was cancelled before its turn");
        }
    }
    return 0;
}

static void on_timer(struct lmo_drain_stepping *s)
{
    struct lmo_drain *d = s->d;
    if (d->state == LMO_DRAIN_PAUSED || d->state == LMO_DRAIN_PLANNING) {
        return;
    }
    for (uint32_t i = 0; i < d->guest_count; i++) {
        lmo_drain_guest_timer(s, i);
    }
    for (uint32_t i = 0; i < d->host_count; i++) {
        lmo_drain_host_timer(s, i);
        if (d->state == LMO_DRAIN_WAITING && d->hosts[i].state == LMO_DH_EMPTYING) {
            lmo_drain_go_all(s, i);
        }
    }
}

static void on_recovered(struct lmo_drain_stepping *s)
{
    struct lmo_drain *d = s->d;
    for (uint32_t i = 0; i < d->guest_count; i++) {
        enum lmo_drain_guest_state state = d->guests[i].state;
        if (lmo_drain_guest_is(state, LMO_DG_CHILD) || state == LMO_DG_PLACING) {
            lmo_drain_touch_guest(d, i);
        }
    }
    for (uint32_t i = 0; i < d->host_count; i++) {
        lmo_drain_touch_host(d, i);
    }
}

/* ------------------------------------------------------------------ events about one guest */

static void on_guest(struct lmo_drain_stepping *s, uint32_t guest)
{
    const struct lmo_drain_event *ev = s->ev;
    struct lmo_drain_guest *g = &s->d->guests[guest];
    bool child = lmo_drain_guest_is(g->state, LMO_DG_CHILD), placing = g->state == LMO_DG_PLACING;
    switch (ev->kind) {
    case LMO_DRAIN_EV_STARTED:
        if (g->state == LMO_DG_STARTING) {
            lmo_drain_set_guest(s, guest, LMO_DG_MOVING, 0, "%s", "");
        }
        return;
    case LMO_DRAIN_EV_START_REFUSED:
        if (g->state == LMO_DG_STARTING) {
            lmo_drain_start_refused(s, guest);
        }
        return;
    case LMO_DRAIN_EV_CHILD_ENDED:
        if (child && ev->code == 0) {
            lmo_drain_moved(s, guest);
        } else if (child) {
            lmo_drain_child_failed(s, guest, ev->code, ev->failed_in);
        }
        return;
    case LMO_DRAIN_EV_CHILD_RESTS:
        if (g->state == LMO_DG_MOVING && g->wait_ms == 0) {
            g->wait_ms = ev->now_ms;
            (void)snprintf(g->reason, sizeof g->reason, "its migration needs a person: %.200s", s->text);
            lmo_drain_touch_guest(s->d, guest);
        }
        return;
    case LMO_DRAIN_EV_PLACED:
        if (placing) {
            (void)snprintf(g->destination, sizeof g->destination, "%s", s->text);
            lmo_drain_set_guest(s, guest, LMO_DG_QUEUED, 0, "%s", "");
            lmo_drain_go(s, guest);
        }
        return;
    case LMO_DRAIN_EV_BLOCKED:
        if (placing) {
            lmo_drain_blocked(s, guest);
        }
        return;
    case LMO_DRAIN_EV_NO_PLACE:
        if (placing && ev->may_change) {
            lmo_drain_hold(s, guest, ev->code < 0 ? ev->code : LMO_E_LIMIT, LMO_DRAIN_LOOK_MS, "%s", s->text);
        } else if (placing) {
            lmo_drain_set_guest(s, guest, LMO_DG_FAILED, LMO_E_REFUSED, "%s", s->text);
        }
        return;
    case LMO_DRAIN_EV_GUEST_GONE:
        if (placing || g->state == LMO_DG_STARTING || g->state == LMO_DG_HELD) {
            lmo_drain_set_guest(s, guest, LMO_DG_GONE, 0, "it left without this drain");
        }
        return;
    case LMO_DRAIN_EV_PLANNED:
    case LMO_DRAIN_EV_UNPLANNED:
    case LMO_DRAIN_EV_LISTED:
    case LMO_DRAIN_EV_HOOKED:
    case LMO_DRAIN_EV_ACKNOWLEDGED:
    case LMO_DRAIN_EV_HOST_UP:
    case LMO_DRAIN_EV_PROBED:
    case LMO_DRAIN_EV_PAUSE:
    case LMO_DRAIN_EV_RESUME:
    case LMO_DRAIN_EV_CANCEL:
    case LMO_DRAIN_EV_TIMER:
    case LMO_DRAIN_EV_RECOVERED:
    case LMO_DRAIN_EV_COUNT: break;
    }
    lmo_unreachable("an event that is not about a guest");
}

static int on_acknowledged(struct lmo_drain_stepping *s, uint32_t host, struct lmo_err *err)
{
    const struct lmo_drain_host *h = &s->d->hosts[host];
    if (h->state == LMO_DH_PROBING) {
        return 0;
    }
    if (!lmo_drain_host_may_follow(h->state, LMO_DH_PROBING)) {
        return lmo_fail(err, LMO_E_CONFLICT, "host %s is %s in drain %s: nothing there waits for an acknowledgement",
                        h->name, lmo_drain_host_state_text(h->state), s->d->id);
    }
    lmo_drain_set_host(s, host, LMO_DH_PROBING, "%s", "");
    return 0;
}

/* ------------------------------------------------------------------ the step */

static bool about_guest(enum lmo_drain_event_kind kind)
{
    return kind >= LMO_DRAIN_EV_STARTED && kind <= LMO_DRAIN_EV_GUEST_GONE;
}

/* Those whose guests are all settled go on, and those whose turn has come. */
static void advance(struct lmo_drain_stepping *s, uint32_t over_before)
{
    struct lmo_drain *d = s->d;
    if (!lmo_drain_begins(d)) {
        return;
    }
    for (uint32_t i = 0; i < d->host_count; i++) {
        const struct lmo_drain_host *h = &d->hosts[i];
        if (h->open == 0 && (h->state == LMO_DH_EMPTYING || h->state == LMO_DH_REFILLING)) {
            lmo_drain_host_settled(s, i);
        }
    }
    bool turn_over = hosts_over(d) != over_before;
    lmo_drain_begin_hosts(s);
    for (uint32_t i = 0; turn_over && d->has_after && i < d->host_count; i++) {
        if (d->hosts[i].state == LMO_DH_EMPTYING) {
            lmo_drain_go_all(s, i);
        }
    }
}

static int apply(struct lmo_drain_stepping *s, struct lmo_err *err)
{
    struct lmo_drain *d = s->d;
    const struct lmo_drain_event *ev = s->ev;
    if (about_guest(ev->kind)) {
        lmo_assert(ev->guest < d->guest_count);
        if (d->state != LMO_DRAIN_PLANNING) {
            on_guest(s, ev->guest);
            if (!lmo_drain_guest_is(d->guests[ev->guest].state, LMO_DG_OPEN)) {
                lmo_drain_dependents(s, ev->guest);
            }
        }
        return 0;
    }
    switch (ev->kind) {
    case LMO_DRAIN_EV_PLANNED: return on_planned(s, err);
    case LMO_DRAIN_EV_UNPLANNED:
        if (d->state == LMO_DRAIN_PLANNING) {
            d->code = ev->code < 0 ? ev->code : LMO_E_REFUSED;
            (void)snprintf(d->reason, sizeof d->reason, "%s", s->text);
            for (uint32_t i = 0; i < d->host_count; i++) {
                lmo_drain_set_host(s, i, LMO_DH_LEFT, "there is no plan");
            }
            set_drain(s, LMO_DRAIN_FAILED);
        }
        return 0;
    case LMO_DRAIN_EV_LISTED:
        if (d->hosts[ev->host].state == LMO_DH_CHECKING) {
            lmo_drain_listed(s, ev->host);
        }
        return 0;
    case LMO_DRAIN_EV_HOOKED:
        if (d->hosts[ev->host].state == LMO_DH_HOOK) {
            lmo_drain_hooked(s, ev->host);
        }
        return 0;
    case LMO_DRAIN_EV_ACKNOWLEDGED: return on_acknowledged(s, ev->host, err);
    case LMO_DRAIN_EV_HOST_UP: lmo_drain_host_up(s, ev->host); return 0;
    case LMO_DRAIN_EV_PROBED:
        if (d->hosts[ev->host].state == LMO_DH_PROBING) {
            lmo_drain_probed(s, ev->host);
        }
        return 0;
    case LMO_DRAIN_EV_PAUSE: return on_pause(s, err);
    case LMO_DRAIN_EV_RESUME: return on_resume(s, err);
    case LMO_DRAIN_EV_CANCEL: return on_cancel(s, err);
    case LMO_DRAIN_EV_TIMER: on_timer(s); return 0;
    case LMO_DRAIN_EV_RECOVERED: on_recovered(s); return 0;
    case LMO_DRAIN_EV_STARTED:
    case LMO_DRAIN_EV_START_REFUSED:
    case LMO_DRAIN_EV_CHILD_ENDED:
    case LMO_DRAIN_EV_CHILD_RESTS:
    case LMO_DRAIN_EV_PLACED:
    case LMO_DRAIN_EV_BLOCKED:
    case LMO_DRAIN_EV_NO_PLACE:
    case LMO_DRAIN_EV_GUEST_GONE:
    case LMO_DRAIN_EV_COUNT: break;
    }
    lmo_unreachable("an event of no kind");
}

int lmo_drain_step(struct lmo_drain *d, const struct lmo_drain_event *ev, struct lmo_err *err)
{
    struct lmo_drain_stepping s = {.d = d, .ev = ev, .text = ev->text ? ev->text : ""};
    bool asked = ev->kind == LMO_DRAIN_EV_PAUSE || ev->kind == LMO_DRAIN_EV_RESUME || ev->kind == LMO_DRAIN_EV_CANCEL ||
                 ev->kind == LMO_DRAIN_EV_ACKNOWLEDGED || ev->kind == LMO_DRAIN_EV_PLANNED;
    if (lmo_drain_is(d->state, LMO_DRAIN_TERMINAL)) { /* D7 */
        return asked ? lmo_fail(err, LMO_E_CONFLICT, "drain %s has ended (%s)", d->id, lmo_drain_state_text(d->state))
                     : 0;
    }
    uint32_t over = hosts_over(d);
    int r = apply(&s, err);
    if (r < 0) {
        return r;
    }
    advance(&s, over);
    conclude(&s);
    d->version++;
    d->updated_ms = ev->now_ms;
    return 0;
}
