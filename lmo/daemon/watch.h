/* watch.h - tells the service manager how the coordinator is: STATUS each second if it changed, WATCHDOG while it gets on.
 *
 * It gets on when the loop turns (the timer of this file is the loop's own) and the store really commits: between two
 * beats there was a commit, or one is tried. So both a loop that hangs and a disk that hangs let the watchdog bite. A disk
 * that refuses is told in STATUS; the beat is withheld then as well, because a new process may find the disk back, with one
 * exception: on a full disk a new process could not even start, while this one still answers questions. */
#ifndef LMO_DAEMON_WATCH_H
#define LMO_DAEMON_WATCH_H

#include "base/loop.h"
#include "engine/engine.h"

struct lmo_watch {
    struct lmo_loop *loop;     /* borrowed */
    struct lmo_engine *engine; /* borrowed */
    uint64_t timer, beat_ms, beat_due_ns;
};
/* Begins; on the loop's thread or before it runs. `w` is the caller's and stays where it is until lmo_watch_stop. */
int lmo_watch_start(struct lmo_watch *w, struct lmo_loop *loop, struct lmo_engine *engine,
                    struct lmo_err *err) LMO_MUST_CHECK;
void lmo_watch_stop(struct lmo_watch *w);

#endif
