/* feed.c - subscribers of the event log; see feed.h. */
#include "engine/feed.h"

#include "base/clock.h"
#include "base/log.h"
#include "engine/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE         128 /* events that one subscriber is led on by before others get their turn */
#define LOOK_MS      1000
#define HEARTBEAT_MS 15000
#define SLOW_MS      30000
#define TEXT_MAX     (LMO_EVENT_BODY_MAX + LMO_EVENT_TYPE_MAX + 64)

struct subscriber {
    struct subscriber *next;
    struct lmo_engine *engine;
    struct lmo_subscription s;
    uint64_t end;        /* until_end: the newest when it began */
    uint64_t cursor;     /* everything up to here was written, or not asked for */
    uint64_t blocked_ns; /* since when its sink has taken nothing for want of room; 0: it takes */
    bool full;           /* not to be tried before it says that there is room, or the next look */
    uint64_t beat_ns;    /* when something was written last */
    bool gone;
};

static void look(void *arg);
static void pump(void *arg);

static void pump_soon(struct lmo_engine *e)
{
    if (!e->feed.pump_timer && lmo_loop_timer(e->loop, 0, pump, e, &e->feed.pump_timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer for the followers of events", "%s", "");
    }
}

/* ------------------------------------------------------------------ writing to one */

/* False: not written. */
static bool write_to(struct subscriber *s, const char *text, size_t len, bool spare)
{
    int r = s->s.sink.write(s->s.sink.arg, text, len, spare);
    if (r == 0) {
        s->blocked_ns = 0;
        s->full = false;
        s->beat_ns = lmo_now_ns();
    } else if (r == LMO_E_LIMIT) {
        s->full = s->full || !spare;
        s->blocked_ns = s->blocked_ns || spare ? s->blocked_ns : lmo_now_ns();
    } else {
        s->gone = true;
    }
    return r == 0;
}

static size_t format(const struct lmo_event_row *row, char text[TEXT_MAX])
{
    char body[LMO_EVENT_BODY_MAX];
    (void)lmo_event_body(row, body);
    int n = row->seq ? snprintf(text, TEXT_MAX, "id: %" PRIu64 "\nevent: %s\ndata: %s\n\n", row->seq, row->type, body)
                     : snprintf(text, TEXT_MAX, "event: %s\ndata: %s\n\n", row->type, body);
    return n < 0 ? 0 : (size_t)n;
}

static bool write_row(struct subscriber *s, const struct lmo_event_row *row)
{
    char text[TEXT_MAX];
    return write_to(s, text, format(row, text), false);
}

/* Where it stands: a client that comes back with this number has missed nothing, though no event carried it. */
static void beat(struct subscriber *s)
{
    char text[96];
    int n = snprintf(text, sizeof text, ": heartbeat\nid: %" PRIu64 "\n\n", s->cursor);
    (void)write_to(s, text, (size_t)n, false);
}

static bool gap(struct subscriber *s, const struct lmo_event_range *range)
{
    char text[320];
    bool ahead = s->cursor > range->newest;
    uint64_t next = ahead ? range->newest : range->oldest - 1;
    int n = snprintf(text, sizeof text,
                     "id: %" PRIu64 "\nevent: gap\ndata: {\"type\":\"gap\",\"data\":{\"after\":%" PRIu64
                     ",\"next\":%" PRIu64 ",\"reason\":\"%s\"}}\n\n",
                     next, s->cursor, next + 1,
                     ahead ? "the number was never given here: another store, or one that was restored"
                           : "the events in between were dropped for their age; read the present state anew");
    if (!write_to(s, text, (size_t)n, false)) {
        return false;
    }
    s->cursor = next;
    return true;
}

/* ------------------------------------------------------------------ leading on from the store */

static int lead(void *arg, const struct lmo_event_row *row)
{
    struct subscriber *s = arg;
    if (lmo_event_matches(&s->s.filter, row) && !write_row(s, row)) {
        return 1; /* the rest when there is room */
    }
    s->cursor = row->seq;
    return 0;
}

/* True: there is more that could be written now. */
static bool lead_on(struct subscriber *s)
{
    struct lmo_engine *e = s->engine;
    struct lmo_event_range range;
    struct lmo_err err = {0};
    if (s->gone || s->full || s->cursor == e->feed.newest) {
        return false;
    }
    int r = e->store->events->range(e->store, &range, &err);
    if (r == 0 && (s->cursor + 1 < range.oldest || s->cursor > range.newest) && !gap(s, &range)) {
        return false;
    }
    uint64_t before = s->cursor;
    if (r == 0) {
        r = e->store->events->list(e->store, s->cursor, PAGE, lead, s, &err);
    }
    if (r == 0 && s->cursor == before && !s->gone && !s->full) {
        s->cursor = e->feed.newest; /* numbers that were never given: a restore leaps */
    }
    if (r < 0) {
        lmo_log(LMO_LOG_ERROR, "events cannot be read", "why=%s", err.text);
        return false; /* looked at again with the next beat */
    }
    return !s->gone && !s->full && s->cursor < e->feed.newest;
}

static void cut(struct subscriber *s, const char *why)
{
    char text[256];
    int n =
        snprintf(text, sizeof text,
                 "event: cut\ndata: {\"type\":\"cut\",\"data\":{\"reason\":\"%s\",\"resume_after\":%" PRIu64 "}}\n\n",
                 why, s->cursor);
    lmo_log(LMO_LOG_INFO, "follower of events cut", "why=%s after=%" PRIu64, why, s->cursor);
    s->s.sink.finish(s->s.sink.arg, text, (size_t)n);
    s->gone = true;
}

static void sweep(struct lmo_engine *e)
{
    for (struct subscriber **at = &e->feed.subscribers; *at;) {
        struct subscriber *s = *at;
        if (!s->gone) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        e->feed.progress -= s->s.progress;
        s->s.sink.release(s->s.sink.arg);
        free(s);
        e->feed.count--;
    }
    if (!e->feed.subscribers) {
        lmo_loop_cancel(e->loop, &e->feed.look_timer);
    }
}

static void pump(void *arg)
{
    struct lmo_engine *e = arg;
    bool more = false;
    e->feed.pump_timer = 0;
    for (struct subscriber *s = e->feed.subscribers; s; s = s->next) {
        more = lead_on(s) || more;
        if (s->s.until_end && !s->gone && s->cursor >= s->end) {
            s->s.sink.finish(s->s.sink.arg, "", 0);
            s->gone = true;
        }
    }
    sweep(e);
    if (more) {
        pump_soon(e);
    }
}

/* Once a second while anybody follows: beats, those that take nothing, and whatever a kick was lost for. */
static void look(void *arg)
{
    struct lmo_engine *e = arg;
    uint64_t now = lmo_now_ns();
    e->feed.look_timer = 0;
    for (struct subscriber *s = e->feed.subscribers; s; s = s->next) {
        if (s->blocked_ns && now - s->blocked_ns >= e->feed.config.slow_ms * LMO_NS_PER_MS) {
            cut(s, "slow reader: it took nothing for too long");
        } else if (now - s->beat_ns >= e->feed.config.heartbeat_ms * LMO_NS_PER_MS) {
            beat(s);
        }
        s->full = false;
    }
    pump(e);
    if (e->feed.subscribers && lmo_loop_timer(e->loop, e->feed.look_ms, look, e, &e->feed.look_timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer for the followers of events", "%s", "");
    }
}

/* ------------------------------------------------------------------ what is new */

struct news {
    struct lmo_engine *engine;
    char text[TEXT_MAX];
};

static int spread(void *arg, const struct lmo_event_row *row)
{
    struct news *n = arg;
    size_t len = 0;
    for (struct subscriber *s = n->engine->feed.subscribers; s; s = s->next) {
        if (s->gone || s->full || s->cursor + 1 != row->seq) {
            continue; /* is led on from the store */
        }
        if (lmo_event_matches(&s->s.filter, row)) {
            len = len ? len : format(row, n->text);
            if (!write_to(s, n->text, len, false)) {
                continue;
            }
        }
        s->cursor = row->seq;
    }
    n->engine->feed.newest = row->seq;
    return 0;
}

void engine_feed_news(struct lmo_engine *e)
{
    static struct news news; /* the loop thread's scratch */
    struct lmo_err err = {0};
    struct lmo_event_range range = {0};
    uint64_t before = e->feed.newest;
    int r = 0;
    news.engine = e;
    if (e->feed.subscribers) {
        do {
            before = e->feed.newest;
            r = e->store->events->list(e->store, before, 2 * PAGE, spread, &news, &err);
        } while (r == 0 && e->feed.newest - before == 2 * PAGE);
        pump_soon(e);
    } else {
        r = e->store->events->range(e->store, &range, &err);
        e->feed.newest = r == 0 ? range.newest : before;
    }
    if (r < 0) {
        lmo_log(LMO_LOG_ERROR, "new events cannot be read; tried again with the next ones", "why=%s", err.text);
    }
}

bool engine_feed_wants_progress(const struct lmo_engine *e)
{
    return e->feed.progress > 0;
}

void engine_feed_progress(struct lmo_engine *e, const struct lmo_event_row *row)
{
    char text[TEXT_MAX];
    size_t len = format(row, text);
    for (struct subscriber *s = e->feed.subscribers; s; s = s->next) {
        if (!s->gone && s->s.progress && !s->full && lmo_event_matches(&s->s.filter, row)) {
            (void)write_to(s, text, len, true);
        }
    }
}

/* ------------------------------------------------------------------ coming and going */

static void subscribe(void *arg)
{
    struct subscriber *s = arg;
    struct lmo_engine *e = s->engine;
    char text[64];
    if (!e->store->events || e->stopping) {
        s->s.sink.release(s->s.sink.arg);
        free(s);
        return;
    }
    s->cursor = s->s.from_now ? e->feed.newest : s->s.after;
    if (!s->s.from_now && s->s.after == 0) { /* all that is kept: what is not kept any more was not asked for */
        struct lmo_event_range range;
        struct lmo_err err = {0};
        s->cursor = e->store->events->range(e->store, &range, &err) == 0 ? range.oldest - 1 : e->feed.newest;
    }
    s->end = e->feed.newest;
    s->next = e->feed.subscribers;
    e->feed.subscribers = s;
    e->feed.count++;
    e->feed.progress += s->s.progress;
    int n = snprintf(text, sizeof text, "retry: 2000\nid: %" PRIu64 "\n\n", s->cursor);
    (void)write_to(s, text, (size_t)n, false);
    if (!e->feed.look_timer && lmo_loop_timer(e->loop, e->feed.look_ms, look, e, &e->feed.look_timer) < 0) {
        cut(s, "the coordinator has no timer left");
    }
    pump_soon(e);
}

int lmo_engine_subscribe(struct lmo_engine *e, const struct lmo_subscription *subscription)
{
    struct subscriber *s = calloc(1, sizeof *s);
    if (!s) {
        return LMO_E_NO_MEMORY;
    }
    s->engine = e;
    s->s = *subscription;
    int r = lmo_loop_post(e->loop, subscribe, s);
    if (r < 0) {
        free(s);
    }
    return r;
}

static void kicked(void *arg)
{
    struct lmo_engine *e = arg;
    atomic_store(&e->feed.kicked, false);
    for (struct subscriber *s = e->feed.subscribers; s; s = s->next) {
        s->full = false; /* who has no room still, says so again */
        if (s->blocked_ns && s->cursor == e->feed.newest) {
            beat(s); /* it was a beat that did not fit */
        }
    }
    pump(e);
}

void lmo_engine_feed_kick(struct lmo_engine *e)
{
    if (!atomic_exchange(&e->feed.kicked, true) && lmo_loop_post(e->loop, kicked, e) < 0) {
        atomic_store(&e->feed.kicked, false);
    }
}

int engine_feed_start(struct lmo_engine *e, struct lmo_err *err)
{
    struct lmo_event_range range = {0};
    int r = e->store->events ? e->store->events->range(e->store, &range, err) : 0;
    e->feed.newest = range.newest;
    return r;
}

void engine_feed_init(struct lmo_engine *e, const struct lmo_feed_config *config)
{
    struct lmo_feed_config *c = &e->feed.config;
    *c = config ? *config : (struct lmo_feed_config){0};
    c->heartbeat_ms = c->heartbeat_ms ? c->heartbeat_ms : HEARTBEAT_MS;
    c->slow_ms = c->slow_ms ? c->slow_ms : SLOW_MS;
    uint32_t least = c->heartbeat_ms < c->slow_ms ? c->heartbeat_ms : c->slow_ms;
    e->feed.look_ms = least / 4 > LOOK_MS ? LOOK_MS : least / 4 + 1;
}

void engine_feed_done(struct lmo_engine *e)
{
    for (struct subscriber *s = e->feed.subscribers; s; s = s->next) {
        if (!s->gone) {
            cut(s, "the coordinator is stopping");
        }
    }
    sweep(e);
    lmo_loop_cancel(e->loop, &e->feed.pump_timer);
    lmo_loop_cancel(e->loop, &e->feed.look_timer);
}
