/* feed.h - following the event log: who wants which events, from where on, and where they are written to.
 *
 * A subscriber is led through the log by its number: everything up to it was written to its sink or was not asked for. What
 * is new goes to those who are at the end straight away; who is behind, or whose sink is full, is led on from the store when
 * there is room. So a slow reader costs no memory but its sink's, and nothing is skipped for it: either it gets the next
 * event, or the word `gap` because that was dropped for its age, or `cut` because it took nothing for too long. */
#ifndef LMO_ENGINE_FEED_H
#define LMO_ENGINE_FEED_H

#include "base/err.h"
#include "engine/events_port.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lmo_engine;

/* Empty members match everything. */
struct lmo_event_filter {
    char types
        [LMO_WEBHOOK_TYPES_MAX]; /* "migration.*,host.up": separated by commas; ".*" at the end: all of that kind */
    char migration[LMO_ID_MAX], drain[LMO_ID_MAX];
    char vm[LMO_NAME_MAX];   /* UUID or name */
    char host[LMO_NAME_MAX]; /* source or destination of a migration, too */
};
/* INVALID naming `types` unless it is a list as above of at most 32 words. */
int lmo_event_types_check(const char *types, struct lmo_err *err) LMO_MUST_CHECK;
bool lmo_event_matches(const struct lmo_event_filter *f, const struct lmo_event_row *row);
/* {"type","timestamp","sequence","data"}: what is sent, by whatever way. Returns the length; `ret` is terminated. */
size_t lmo_event_body(const struct lmo_event_row *row, char ret[LMO_EVENT_BODY_MAX]);

/* Where a subscriber's events go. Called on the loop; none may block. */
struct lmo_event_sink {
    void *arg;
    /* 0: taken whole. LIMIT: no room now; lmo_engine_feed_kick() says when there is. GONE: nobody reads any more. `spare`: it
     * may be left out: to be taken only if there is plenty of room. */
    int (*write)(void *arg, const char *text, size_t len, bool spare);
    /* The last words; they fit, always. */
    void (*finish)(void *arg, const char *text, size_t len);
    /* Exactly once, and nothing after it. */
    void (*release)(void *arg);
};

struct lmo_subscription {
    struct lmo_event_filter filter;
    bool from_now;  /* only what happens from here on */
    uint64_t after; /* otherwise: what follows this number; 0: all that is kept */
    bool progress;  /* volatile progress too */
    bool until_end; /* no more than what is there when it begins: then the sink is finished */
    struct lmo_event_sink sink;
};

struct lmo_feed_config {   /* 0: the default in parentheses */
    uint32_t heartbeat_ms; /* (15,000) a line at least so often, so that a dead connection is noticed on either side */
    uint32_t slow_ms;      /* (30,000) a sink that has had no room for so long is cut */
};

/* Any thread. Takes the sink if it returns 0: `release` follows, at the latest when the engine is freed. */
int lmo_engine_subscribe(struct lmo_engine *e, const struct lmo_subscription *s) LMO_MUST_CHECK;
/* Any thread: some sink has room again, or has ended. Never fails: at the latest the next heartbeat looks by itself. */
void lmo_engine_feed_kick(struct lmo_engine *e);

/* On the loop: somebody else than the engine has committed events to its store (a bench). */
void lmo_engine_tell_followers(struct lmo_engine *e);

#endif
