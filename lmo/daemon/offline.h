/* offline.h - what the command line of lmod does with its store: a copy, and putting one back. */
#ifndef LMO_DAEMON_OFFLINE_H
#define LMO_DAEMON_OFFLINE_H

#include "base/err.h"

/* A copy of <state_dir>'s store, whether or not a coordinator uses it; `to` must not exist. Says so on stdout. */
int lmo_offline_backup(const char *state_dir, const char *to, struct lmo_err *err) LMO_MUST_CHECK;
/* Puts a copy in its place while no coordinator runs; says on stdout what comes next. */
int lmo_offline_restore(const char *state_dir, const char *from, struct lmo_err *err) LMO_MUST_CHECK;

#endif
