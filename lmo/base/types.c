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

static const char *const blockers[] = {"device", "local_disk", "host_bound", "other"}; /* bit by bit */

void lmo_blockers_text(uint32_t set, char ret[LMO_BLOCKERS_TEXT_MAX])
{
    ret[0] = '\0';
    for (size_t i = 0; i < sizeof blockers / sizeof blockers[0]; i++) {
        if ((set >> i) & 1U) {
            if (ret[0]) {
                strcat(ret, " "); /* all four fit */
            }
            strcat(ret, blockers[i]);
        }
    }
}

uint32_t lmo_blockers_from_text(const char *text)
{
    uint32_t set = 0;
    while (*text) {
        size_t len = strcspn(text, " "), i = 0;
        while (i < sizeof blockers / sizeof blockers[0] && (strlen(blockers[i]) != len || memcmp(blockers[i], text, len) != 0)) {
            i++;
        }
        set |= len == 0 ? 0U : i < sizeof blockers / sizeof blockers[0] ? 1U << i : (uint32_t)LMO_BLOCKER_OTHER;
        text += len;
        text += strspn(text, " ");
    }
    return set;
}
