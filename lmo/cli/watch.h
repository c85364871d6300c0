/* watch.h - changes as lines: what is known of each object, and what is new in the next look at it. Pure but for FILE*.
 *
 * A change is a phase, an outcome or a reason for waiting that is another one than before; progress within a phase is none. */
#ifndef LMO_CLI_WATCH_H
#define LMO_CLI_WATCH_H

#include "cli/format.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lmo_change {
    uint64_t at_ms;                        /* since 1970; 0: unknown */
    const char *object;                    /* "migration", "host", "drain" */
    const char *id;                        /* id or name */
    const char *vm, *source, *destination; /* "": has none */
    const char *state;                     /* phase, outcome, up, down, ... */
    const char *detail;                    /* why, what it waits for; "" */
};

enum lmo_watch_form { LMO_WATCH_TEXT = 0, LMO_WATCH_PLAIN, LMO_WATCH_JSON };
/* The heading of --plain; nothing in the other forms. */
void lmo_watch_heading(enum lmo_watch_form form, FILE *out);
/* One line, flushed. */
void lmo_watch_print(const struct lmo_change *c, enum lmo_watch_form form, const struct lmo_style *style, FILE *out);

/* What was seen last of each object. Zero-initialise. */
struct lmo_watch_seen;
struct lmo_watch {
    struct lmo_watch_seen *seen; /* owned: array */
    size_t count, capacity;
    uint64_t round;
    bool
        by_version; /* news of no higher version than the last is none; otherwise a reason for waiting may be new by itself */
};
void lmo_watch_release(struct lmo_watch *w);
/* Notes one object; *ret_change is set (borrowing from `object` and w) and true returned when it is new or has changed. A
 * migration that had ended before it was first seen is no change if `quiet_ended`. */
bool lmo_watch_migration(struct lmo_watch *w, const json_t *object, bool quiet_ended, struct lmo_change *ret_change);
bool lmo_watch_host(struct lmo_watch *w, const json_t *object, struct lmo_change *ret_change);
bool lmo_watch_drain(struct lmo_watch *w, const json_t *object, bool quiet_ended, struct lmo_change *ret_change);
/* The same for a change that is known already; what it says must outlive the call only. */
bool lmo_watch_note(struct lmo_watch *w, const struct lmo_change *c);
/* A look at a whole list is over: calls back for what was seen in an earlier one and is not there any more, and forgets it. */
void lmo_watch_sweep(struct lmo_watch *w, const char *object, void (*gone)(void *arg, const char *id), void *arg);

#endif
