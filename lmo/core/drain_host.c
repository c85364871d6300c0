/* drain_host.c - what a drain does about one host: its turn, the look at its own list, what follows when it is empty. */
#include "core/drain_internal.h"

#include "base/assert.h"

#include <stdio.h>
#include <string.h>

#define HOOK_TRIES_MAX 3
#define PROBE_MS       2000 /* between looks at a host that is to come back */

static void wait_for(struct lmo_drain_stepping *s, uint32_t host, int64_t look_ms, const char *text)
{
    struct lmo_drain_host *h = &s->d->hosts[host];
    h->wait_ms = h->wait_ms ? h->wait_ms : s->ev->now_ms;
    h->look_ms = look_ms ? s->ev->now_ms + look_ms : 0;
    (void)snprintf(h->reason, sizeof h->reason, "%s", text[0] ? text : "something that was not told");
    lmo_drain_touch_host(s->d, host);
}

/* In a campaign whose hosts come back, one that does not stops it: what is wrong there may be wrong with all. */
static void stop_others(struct lmo_drain_stepping *s, const char *name)
{
    struct lmo_drain *d = s->d;
    if (!d->rolling) {
        return;
    }
    d->stop = true;
    for (uint32_t i = 0; i < d->host_count; i++) {
        if (d->hosts[i].state == LMO_DH_WAITING) {
            lmo_drain_set_host(s, i, LMO_DH_LEFT, "not begun, because host %s did not come through", name);
        }
    }
    for (uint32_t i = 0; i < d->guest_count; i++) {
        struct lmo_drain_guest *g = &d->guests[i];
        if (d->hosts[g->host].state == LMO_DH_LEFT && g->state == LMO_DG_QUEUED) {
            lmo_drain_set_guest(s, i, LMO_DG_LEFT, 0, "its host's turn did not come");
        }
    }
}

static void leave_open(struct lmo_drain_stepping *s, uint32_t host, const char *text)
{
    struct lmo_drain *d = s->d;
    for (uint32_t g = d->hosts[host].first; g != LMO_DRAIN_NONE; g = d->guests[g].next) {
        enum lmo_drain_guest_state state = d->guests[g].state;
        if (lmo_drain_guest_is(state, LMO_DG_OPEN) && !lmo_drain_guest_is(state, LMO_DG_CHILD)) {
            lmo_drain_set_guest(s, g, LMO_DG_LEFT, 0, "%s", text);
        }
    }
}

static void host_over(struct lmo_drain_stepping *s, uint32_t host, enum lmo_drain_host_state to, const char *text)
{
    struct lmo_drain *d = s->d;
    leave_open(s, host, text);
    lmo_drain_set_host(s, host, to, "%s", text);
    if (to != LMO_DH_DONE) {
        stop_others(s, d->hosts[host].name);
    }
}

static bool turns_are_over(const struct lmo_drain *d, const struct lmo_drain_host *h)
{
    bool over = true;
    for (unsigned i = 0; i < h->after_count; i++) {
        over = over && lmo_drain_host_is(d->hosts[h->after[i].n].state, LMO_DH_TERMINAL);
    }
    return over;
}

void lmo_drain_begin_hosts(struct lmo_drain_stepping *s)
{
    struct lmo_drain *d = s->d;
    uint32_t begun = 0;
    for (uint32_t i = 0; i < d->host_count; i++) {
        begun += lmo_drain_host_is(d->hosts[i].state, LMO_DH_BEGUN);
    }
    for (uint32_t i = 0; i < d->host_count && !d->stop && d->hosts_in[LMO_DH_WAITING] > 0; i++) {
        if (d->max_hosts > 0 && begun >= d->max_hosts) { /* D4 */
            return;
        }
        if (d->hosts[i].state == LMO_DH_WAITING && turns_are_over(d, &d->hosts[i])) {
            d->hosts[i].cordon = !d->balance;
            lmo_drain_set_host(s, i, LMO_DH_CHECKING, "%s", "");
            begun++;
            if (d->balance) { /* nothing that could be asked */
                lmo_drain_set_host(s, i, LMO_DH_EMPTYING, "%s", "");
                lmo_drain_go_all(s, i);
                if (d->hosts[i].open == 0) {
                    lmo_drain_host_settled(s, i);
                }
            }
        }
    }
}

void lmo_drain_go_all(struct lmo_drain_stepping *s, uint32_t host)
{
    struct lmo_drain *d = s->d;
    for (uint32_t g = d->hosts[host].first; g != LMO_DRAIN_NONE; g = d->guests[g].next) {
        lmo_drain_go(s, g);
    }
}

void lmo_drain_host_settled(struct lmo_drain_stepping *s, uint32_t host)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_host *h = &d->hosts[host];
    if (d->balance) {
        char text[LMO_TEXT_MAX] = "";
        if (h->failed + h->skipped > 0) {
            (void)snprintf(text, sizeof text, "%u guests could not be moved, %u were left by their policy", h->failed,
                           h->skipped);
        }
        lmo_drain_set_host(s, host, LMO_DH_CHECKING, "%s", "");
        host_over(s, host, h->failed > 0 ? LMO_DH_FAILED : h->skipped > 0 ? LMO_DH_INCOMPLETE : LMO_DH_DONE, text);
        return;
    }
    if (h->state == LMO_DH_EMPTYING) {
        lmo_drain_set_host(s, host, LMO_DH_CHECKING, "%s", "");
        return;
    }
    uint32_t away = 0;
    for (uint32_t g = h->first; g != LMO_DRAIN_NONE; g = d->guests[g].next) {
        away += d->guests[g].back && d->guests[g].state == LMO_DG_FAILED;
    }
    char text[LMO_TEXT_MAX] = "";
    if (away > 0) {
        (void)snprintf(text, sizeof text, "%u of its guests did not come back to it and run where they were moved to",
                       away);
    }
    host_over(s, host, LMO_DH_DONE, text);
}

/* It is empty: D1. Moves that were to make room for its guests are not needed any more. */
static void emptied(struct lmo_drain_stepping *s, uint32_t host)
{
    struct lmo_drain *d = s->d;
    leave_open(s, host, "not needed: its host was empty already");
    if (!d->rolling) {
        host_over(s, host, LMO_DH_DONE, "");
    } else if (d->hook_url[0] || d->hook_command[0]) {
        lmo_drain_set_host(s, host, LMO_DH_HOOK, "%s", "");
    } else {
        lmo_drain_set_host(s, host, LMO_DH_AWAY, "%s", "");
        wait_for(s, host, 0,
                 "it is empty and waits for an acknowledgement that it may be used again, or for its restart");
    }
}

/* What the list says of the guests that are known. */
static uint32_t compare(struct lmo_drain_stepping *s, uint32_t host, uint32_t *ret_lingering)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_host *h = &d->hosts[host];
    uint32_t lingering = 0;
    for (uint32_t g = h->first; g != LMO_DRAIN_NONE; g = d->guests[g].next) {
        d->guests[g].listed = false;
    }
    for (uint32_t i = 0; i < s->ev->listed_count; i++) {
        lmo_assert(d->guests[s->ev->listed[i]].host == host);
        d->guests[s->ev->listed[i]].listed = true;
    }
    for (uint32_t i = h->first; i != LMO_DRAIN_NONE; i = d->guests[i].next) {
        struct lmo_drain_guest *g = &d->guests[i];
        bool waits = g->state == LMO_DG_QUEUED || g->state == LMO_DG_HELD || g->state == LMO_DG_PLACING ||
                     g->state == LMO_DG_FAILED || g->state == LMO_DG_SKIPPED;
        if (strcmp(g->at, h->name) != 0 && g->state != LMO_DG_MOVED) {
            continue; /* on its way from elsewhere, to make room */
        }
        if (!g->listed && waits) {
            lmo_drain_set_guest(s, i, LMO_DG_GONE, 0, "it left without this drain");
            lmo_drain_dependents(s, i);
        } else if (g->listed && g->state == LMO_DG_GONE && !d->stop) {
            g->destination[0] = '\0';
            lmo_drain_set_guest(s, i, LMO_DG_QUEUED, 0, "%s", "it came back");
        } else if (g->listed && g->state == LMO_DG_MOVED) {
            lingering++;
        }
    }
    *ret_lingering = lingering;
    return h->open;
}

void lmo_drain_listed(struct lmo_drain_stepping *s, uint32_t host)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_host *h = &d->hosts[host];
    char text[LMO_TEXT_MAX];
    uint32_t lingering = 0;
    if (s->ev->code < 0) {
        wait_for(s, host, LMO_DRAIN_LOOK_MS, s->text);
        return;
    }
    uint32_t open = compare(s, host, &lingering);
    if (s->ev->total == 0) {
        emptied(s, host);
    } else if ((open > 0 || lingering > 0) && h->rounds >= LMO_DRAIN_ROUNDS_MAX) {
        (void)snprintf(text, sizeof text, "it still shows %u guests after %u looks; what was found last was %s",
                       s->ev->total, h->rounds, open > 0 ? "new" : "moved away before");
        host_over(s, host, LMO_DH_FAILED, text);
    } else if (open > 0) {
        h->rounds++;
        lmo_drain_set_host(s, host, LMO_DH_EMPTYING, "%s", "");
        lmo_drain_go_all(s, host);
    } else if (lingering > 0) {
        h->rounds++;
        (void)snprintf(text, sizeof text, "it still shows %u guests that were moved away", lingering);
        wait_for(s, host, PROBE_MS, text);
    } else {
        bool failed = h->failed > 0 || h->skipped == 0;
        (void)snprintf(text, sizeof text,
                       "%u guests are still there: %u could not be moved, %u were left by their policy", s->ev->total,
                       h->failed, h->skipped);
        host_over(s, host, failed ? LMO_DH_FAILED : LMO_DH_INCOMPLETE, text);
    }
}

void lmo_drain_hooked(struct lmo_drain_stepping *s, uint32_t host)
{
    struct lmo_drain_host *h = &s->d->hosts[host];
    char text[LMO_TEXT_MAX];
    if (s->ev->code == 0 && s->ev->acknowledged) {
        lmo_drain_set_host(s, host, LMO_DH_PROBING, "%s", "");
    } else if (s->ev->code == 0) {
        lmo_drain_set_host(s, host, LMO_DH_AWAY, "%s", "");
        wait_for(s, host, 0,
                 "its hook was called; it waits for the acknowledgement that it may be used again, or for its restart");
    } else if (++h->hook_tries >= HOOK_TRIES_MAX) {
        (void)snprintf(text, sizeof text, "its hook failed %u times: %.180s", h->hook_tries, s->text);
        host_over(s, host, LMO_DH_FAILED, text);
    } else {
        wait_for(s, host, LMO_DRAIN_LOOK_MS, s->text);
    }
}

void lmo_drain_probed(struct lmo_drain_stepping *s, uint32_t host)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_host *h = &d->hosts[host];
    if (s->ev->code < 0) {
        wait_for(s, host, PROBE_MS, s->text);
        return;
    }
    h->cordon = false;
    if (!d->give_back) {
        host_over(s, host, LMO_DH_DONE, "");
        return;
    }
    lmo_drain_set_host(s, host, LMO_DH_REFILLING, "%s", "");
    for (uint32_t i = h->first; i != LMO_DRAIN_NONE; i = d->guests[i].next) {
        struct lmo_drain_guest *g = &d->guests[i];
        if (g->state == LMO_DG_MOVED && !g->back && g->why == LMO_MOVE_EMPTY) {
            g->back = true;
            g->try_count = 0;
            memcpy(g->destination, h->name, sizeof g->destination);
            lmo_drain_set_guest(s, i, LMO_DG_QUEUED, 0, "%s", "");
        }
    }
    lmo_drain_go_all(s, host);
}

void lmo_drain_host_up(struct lmo_drain_stepping *s, uint32_t host)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_host *h = &d->hosts[host];
    bool asks = h->state == LMO_DH_CHECKING || h->state == LMO_DH_PROBING;
    if (!lmo_drain_begins(d)) {
        return;
    }
    if (asks && h->look_ms != 0) {
        h->look_ms = 0;
        lmo_drain_touch_host(d, host);
    }
    for (uint32_t g = h->first; g != LMO_DRAIN_NONE; g = d->guests[g].next) {
        if (d->guests[g].state == LMO_DG_HELD && d->guests[g].code == LMO_E_UNAVAILABLE) {
            lmo_drain_set_guest(s, g, LMO_DG_PLACING, LMO_E_UNAVAILABLE, "%s", d->guests[g].reason);
        }
    }
}

void lmo_drain_host_timer(struct lmo_drain_stepping *s, uint32_t host)
{
    struct lmo_drain *d = s->d;
    struct lmo_drain_host *h = &d->hosts[host];
    bool asks = h->state == LMO_DH_CHECKING || h->state == LMO_DH_HOOK || h->state == LMO_DH_PROBING;
    if (!lmo_drain_begins(d) || !lmo_drain_host_is(h->state, LMO_DH_BEGUN)) {
        return;
    }
    if (h->wait_ms != 0 && s->ev->now_ms >= h->wait_ms + d->wait_timeout_ms) {
        char text[LMO_TEXT_MAX];
        (void)snprintf(text, sizeof text, "waited as long as is allowed: %.200s", h->reason);
        host_over(s, host, LMO_DH_FAILED, text);
    } else if (asks && h->look_ms != 0 && s->ev->now_ms >= h->look_ms) {
        h->look_ms = 0;
        lmo_drain_touch_host(d, host);
    }
}
