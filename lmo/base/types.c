/* types.c - stored names of the shared enums. Strings are stored and sent, never numbers. */
#include "base/types.h"

#include <stddef.h>
#include <string.h>

static const char *const run_states[] = {
    [LMO_RUN_UNKNOWN] = "unknown",
    [LMO_RUN_ABSENT] = "absent",
    [LMO_RUN_SHUT_OFF] = "shut_off",
    [LMO_RUN_RUNNING] = "running",
    [LMO_RUN_PAUSED_BY_USER] = "paused_by_user",
    [LMO_RUN_PAUSED_MIGRATION] = "paused_migration",
    [LMO_RUN_LOADED] = "loaded",
    [LMO_RUN_INCOMING] = "incoming",
    [LMO_RUN_PAUSED_OTHER] = "paused_other",
};
_Static_assert(sizeof run_states / sizeof run_states[0] == LMO_RUN_PAUSED_OTHER + 1, "one name per run state");

const char *lmo_run_state_name(enum lmo_run_state s)
{
    return (size_t)s < sizeof run_states / sizeof run_states[0] ? run_states[s] : run_states[LMO_RUN_UNKNOWN];
}

enum lmo_run_state lmo_run_state_from_name(const char *s)
{
    for (size_t i = 0; s && i < sizeof run_states / sizeof run_states[0]; i++) {
        if (strcmp(run_states[i], s) == 0)
            return (enum lmo_run_state)i;
    }
    return LMO_RUN_UNKNOWN;
}

static const char *const blockers[LMO_BLOCKER_COUNT] = {
    [LMO_BLOCKER_NONE] = "none",
    [LMO_BLOCKER_PASSTHROUGH] = "passed_through_device",
    [LMO_BLOCKER_LOCAL_DISK] = "local_disk",
    [LMO_BLOCKER_HOST_BOUND] = "host_bound_device",
    [LMO_BLOCKER_STATE] = "state",
    [LMO_BLOCKER_OTHER] = "other",
};

const char *lmo_blocker_text(enum lmo_blocker b)
{
    return b < LMO_BLOCKER_COUNT ? blockers[b] : NULL;
}

enum lmo_blocker lmo_blocker_from_text(const char *text)
{
    int i = 0;
    while (i < LMO_BLOCKER_COUNT && strcmp(blockers[i], text) != 0) {
        i++;
    }
    return (enum lmo_blocker)i;
}
