/* calls.c - driver calls on the pools, in lanes.
 *
 * A lane exists while one of its calls is queued or running. The call at its head is at a pool; the others wait here,
 * so that a slow driver never holds more than one thread per guest and driver with calls that must not overlap. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STALLED_RETRY_MS 50

struct lmo_lane {
    struct lmo_lane *next;
    char name[sizeof(((struct lmo_call *)0)->lane)];
    struct lmo_call *waiting, **last;
};

void lmo_call_lane(struct lmo_call *c, const char *driver, const char *what)
{
    snprintf(c->lane, sizeof c->lane, "%s.%s", driver, what);
}

static struct lmo_lane *find(struct lmo_worker *w, const char *name)
{
    struct lmo_lane *lane = w->lanes;
    while (lane && strcmp(lane->name, name) != 0) {
        lane = lane->next;
    }
    return lane;
}

static void work(void *arg)
{
    struct lmo_call *c = arg;
    c->work(c);
}

static void to_pool(struct lmo_call *c);

static void lane_next(struct lmo_worker *w, const char *name)
{
    struct lmo_lane *lane = find(w, name);
    lmo_assert(lane);
    struct lmo_call *c = lane->waiting;
    if (c) {
        lane->waiting = c->next;
        if (!c->next) {
            lane->last = &lane->waiting;
        }
        to_pool(c);
        return;
    }
    for (struct lmo_lane **at = &w->lanes; *at; at = &(*at)->next) {
        if (*at == lane) {
            *at = lane->next;
            free(lane);
            return;
        }
    }
}

static void done(void *arg, bool ran)
{
    struct lmo_call *c = arg;
    struct lmo_worker *w = c->w;
    char lane[sizeof c->lane];
    memcpy(lane, c->lane, sizeof lane);
    bool alive = ran && !w->stopping && !lmo_journal_dead(w->journal);
    c->done(c, alive); /* frees c */
    if (lane[0]) {
        lane_next(w, lane);
    }
}

static void retry_stalled(void *arg)
{
    struct lmo_worker *w = arg;
    w->stalled_timer = 0;
    struct lmo_call *c = w->stalled;
    w->stalled = NULL;
    while (c) {
        struct lmo_call *next = c->next;
        to_pool(c);
        c = next;
    }
}

static void to_pool(struct lmo_call *c)
{
    struct lmo_worker *w = c->w;
    c->next = NULL;
    if (w->stopping) {
        done(c, false);
        return;
    }
    if (lmo_pool_submit(c->fast ? w->fast : w->slow, work, done, c) == 0) {
        return;
    }
    lmo_log(LMO_LOG_WARN, "no thread for a driver call; it waits", "lane=%s", c->lane);
    struct lmo_call **last = &w->stalled;
    while (*last) {
        last = &(*last)->next;
    }
    *last = c;
    if (!w->stalled_timer) {
        lmo_assert(lmo_loop_timer(w->loop, STALLED_RETRY_MS, retry_stalled, w, &w->stalled_timer) == 0);
    }
}

void lmo_call_submit(struct lmo_worker *w, struct lmo_call *c)
{
    c->w = w;
    c->next = NULL;
    if (c->lane[0] == '\0') {
        to_pool(c);
        return;
    }
    struct lmo_lane *lane = find(w, c->lane);
    if (lane) {
        *lane->last = c;
        lane->last = &c->next;
        return;
    }
    lane = calloc(1, sizeof *lane);
    lmo_assert(lane);
    memcpy(lane->name, c->lane, sizeof lane->name);
    lane->last = &lane->waiting;
    lane->next = w->lanes;
    w->lanes = lane;
    to_pool(c);
}

void lmo_calls_free(struct lmo_worker *w)
{
    lmo_assert(w->stopping);
    while (w->stalled) {
        struct lmo_call *c = w->stalled;
        w->stalled = c->next;
        done(c, false); /* and, through its lane, whatever waited behind it */
    }
}
