/* drain_internal.h - shared by drain*.c only. */
#ifndef LMO_CORE_DRAIN_INTERNAL_H
#define LMO_CORE_DRAIN_INTERNAL_H

#include "core/drain.h"

/* drain_table.c */
bool lmo_drain_guest_may_follow(enum lmo_drain_guest_state from, enum lmo_drain_guest_state to);
bool lmo_drain_host_may_follow(enum lmo_drain_host_state from, enum lmo_drain_host_state to);

/* One step under way. */
struct lmo_drain_stepping {
    struct lmo_drain *d;
    const struct lmo_drain_event *ev;
    const char *text; /* of the event, never NULL */
};

/* drain.c */
void lmo_drain_set_guest(struct lmo_drain_stepping *s, uint32_t guest, enum lmo_drain_guest_state to, int code,
                         const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void lmo_drain_set_host(struct lmo_drain_stepping *s, uint32_t host, enum lmo_drain_host_state to, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void lmo_drain_touch_guest(struct lmo_drain *d, uint32_t guest);
void lmo_drain_touch_host(struct lmo_drain *d, uint32_t host);
bool lmo_drain_begins(const struct lmo_drain *d);

/* drain_guest.c */
/* It is its turn: what is to be done with a QUEUED guest? Nothing, while the drain begins nothing. */
void lmo_drain_go(struct lmo_drain_stepping *s, uint32_t guest);
void lmo_drain_hold(struct lmo_drain_stepping *s, uint32_t guest, int code, int64_t ms, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void lmo_drain_child_failed(struct lmo_drain_stepping *s, uint32_t guest, int code, enum lmo_phase failed_in);
void lmo_drain_start_refused(struct lmo_drain_stepping *s, uint32_t guest);
void lmo_drain_blocked(struct lmo_drain_stepping *s, uint32_t guest);
void lmo_drain_moved(struct lmo_drain_stepping *s, uint32_t guest);
/* Those whose move depended on it. */
void lmo_drain_dependents(struct lmo_drain_stepping *s, uint32_t guest);
void lmo_drain_guest_timer(struct lmo_drain_stepping *s, uint32_t guest);

/* drain_host.c */
void lmo_drain_begin_hosts(struct lmo_drain_stepping *s);
void lmo_drain_host_settled(struct lmo_drain_stepping *s, uint32_t host); /* none of its guests is open */
void lmo_drain_go_all(struct lmo_drain_stepping *s, uint32_t host);
void lmo_drain_listed(struct lmo_drain_stepping *s, uint32_t host);
void lmo_drain_hooked(struct lmo_drain_stepping *s, uint32_t host);
void lmo_drain_host_up(struct lmo_drain_stepping *s, uint32_t host);
void lmo_drain_probed(struct lmo_drain_stepping *s, uint32_t host);
void lmo_drain_host_timer(struct lmo_drain_stepping *s, uint32_t host);

#endif
