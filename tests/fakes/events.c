/* events.c - from the world to whichever worker has a host's driver open.
 *
 * A seat of this process is called at once, with the lock (the worker's callbacks only put things into an inbox). For
 * another process's host the item goes into the host's ring; that process has a thread that waits for such. Order per host
 * is kept: nothing is given directly while the ring still holds something. */
#include "fakes/internal.h"

#include <unistd.h>

/* Of this process; guarded by the lock of the seat's world (a process may hold several worlds: tests do). */
static pthread_mutex_t seats_lock = PTHREAD_MUTEX_INITIALIZER;
static struct fake_seat *seats;
static struct {
    struct fake_world *world;
    pthread_t thread;
    bool ending;
} foreign; /* the one shared world of this process */

/* With the world's lock, which orders opening and closing against this. */
static struct fake_seat *seat_of(struct fake_world *w, unsigned host)
{
    pthread_mutex_lock(&seats_lock);
    struct fake_seat *s = seats;
    while (s && (s->world != w || s->host != (int)host)) {
        s = s->next;
    }
    pthread_mutex_unlock(&seats_lock);
    return s;
}

static void give(struct fake_seat *s, const struct fake_item *item)
{
    if (!item->job_end) {
        s->on_event(s->event_arg, &item->ev);
    } else if (s->end) {
        s->end(s->end_arg, item->ev.uuid, &item->end);
    }
}

static void send(struct fake_world *w, unsigned host, const struct fake_item *item)
{
    struct fake_host *h = &w->hosts[host];
    if (!h->open) {
        return;
    }
    if (h->owner == getpid() && h->ring_count == 0) {
        struct fake_seat *s = seat_of(w, host);
        if (s) {
            give(s, item);
        }
    } else if (h->ring_count == FAKE_RING) {
        h->ring_lost++;
    } else {
        h->ring[(h->ring_first + h->ring_count++) % FAKE_RING] = *item;
        w->foreign++;
        fake_wake(&w->ring);
    }
}

void fake_emit_locked(struct fake_world *w, const struct fake_guest *g, unsigned host, enum lmo_hv_event_kind kind,
                      const char *reason, uint64_t value)
{
    struct fake_item item = {
        .ev = {.kind = kind, .value = value, .realtime_us = lmo_realtime_us(), .monotonic_ns = lmo_now_ns()}};
    LMO_COPY(item.ev.uuid, g->uuid);
    LMO_COPY(item.ev.reason, reason);
    send(w, host, &item);
}

void fake_emit_end_locked(struct fake_world *w, const struct fake_guest *g, unsigned host, bool ok, const char *text)
{
    struct fake_item item = {.job_end = true, .end = {.call_succeeded = ok, .call_ms = 42}};
    LMO_COPY(item.ev.uuid, g->uuid);
    LMO_COPY(item.end.text, text);
    send(w, host, &item);
}

static void drain(struct fake_world *w)
{
    for (unsigned i = 0; i < w->host_count && w->foreign > 0; i++) {
        struct fake_host *h = &w->hosts[i];
        struct fake_seat *s = h->ring_count > 0 && h->owner == getpid() ? seat_of(w, i) : NULL;
        for (; s && h->ring_count > 0; h->ring_count--, w->foreign--) {
            give(s, &h->ring[h->ring_first]);
            h->ring_first = (h->ring_first + 1) % FAKE_RING;
        }
    }
}

static void *foreign_thread(void *arg)
{
    struct fake_world *w = arg;
    fake_lock(w);
    while (!foreign.ending) {
        drain(w);
        fake_wait_locked(w, &w->ring, LMO_NS_PER_S); /* a killed process may have swallowed a signal */
    }
    fake_unlock(w);
    return NULL;
}

static void start_foreign(struct fake_world *w)
{
    pthread_mutex_lock(&seats_lock);
    bool first = w->shared && !foreign.world;
    if (first) {
        foreign.world = w;
        foreign.ending = false;
    }
    pthread_mutex_unlock(&seats_lock);
    if (first) {
        lmo_assert(pthread_create(&foreign.thread, NULL, foreign_thread, w) == 0);
    }
}

void fake_events_stop(struct fake_world *w)
{
    if (foreign.world != w) {
        return;
    }
    fake_lock(w);
    foreign.ending = true;
    fake_wake(&w->ring);
    fake_unlock(w);
    pthread_join(foreign.thread, NULL);
    foreign.world = NULL;
}

void fake_seat_open(struct fake_seat *seat)
{
    struct fake_world *w = seat->world;
    start_foreign(w);
    fake_lock(w);
    struct fake_host *h = &w->hosts[seat->host];
    w->foreign -= h->ring_count; /* meant for whoever was here before: lost with it */
    h->ring_first = h->ring_count = 0;
    h->owner = getpid();
    h->open = true;
    pthread_mutex_lock(&seats_lock);
    seat->next = seats;
    seats = seat;
    pthread_mutex_unlock(&seats_lock);
    fake_unlock(w);
}

void fake_seat_close(struct fake_seat *seat)
{
    struct fake_world *w = seat->world;
    fake_lock(w);
    w->hosts[seat->host].open = false;
    seat->end = NULL;
    pthread_mutex_lock(&seats_lock);
    for (struct fake_seat **at = &seats; *at; at = &(*at)->next) {
        if (*at == seat) {
            *at = seat->next;
            break;
        }
    }
    pthread_mutex_unlock(&seats_lock);
    fake_unlock(w);
}
