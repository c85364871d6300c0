/* watch_run.h - one run of `lmo watch`: what cmd_watch.c and watch_events.c share. */
#ifndef LMO_CLI_WATCH_RUN_H
#define LMO_CLI_WATCH_RUN_H

#include "cli/wait.h"
#include "cli/watch.h"

#define WATCHER_LATER "`lmo watch` again"

struct watcher {
    struct lmo_cli *cli;
    struct lmo_watch seen;
    struct lmo_patience patience;
    enum lmo_watch_form form;
    bool hosts, named;                         /* what is watched; neither: all migrations */
    bool streams;                              /* changes come as events; looks only say how things stand */
    uint64_t deadline_ns;                      /* 0: none */
    uint64_t lines, most;                      /* most 0: no end */
    bool first;                                /* nothing was looked at yet */
    uint64_t versions[LMO_CLI_POSITIONAL_MAX]; /* of those that were named; UINT64_MAX: it has ended */
};

bool watcher_enough(const struct watcher *w);
void watcher_tell(struct watcher *w, const struct lmo_change *c);
/* Looks at how things stand and tells what is new. 0 or an exit code; *ret_open: how many of the named have not ended (1 for
 * lists). */
int watcher_look(struct watcher *w, unsigned *ret_open);
/* Follows the coordinator's events until it is over: true, and *ret_rc is the exit code. False: it has none; nothing was told
 * that will not be told again. */
bool watcher_stream(struct watcher *w, int *ret_rc);

#endif
