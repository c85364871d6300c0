/* offline.c - see offline.h. */
#include "daemon/offline.h"

#include "engine/ports.h"

#include <stdio.h>

int lmo_offline_backup(const char *state_dir, const char *to, struct lmo_err *err)
{
    int r = lmo_store_sqlite_backup(state_dir, to, NULL, err);
    if (r == 0) {
        (void)printf("%s: a copy of the store as it is now\n", to);
    }
    return r;
}

int lmo_offline_restore(const char *state_dir, const char *from, struct lmo_err *err)
{
    int r = lmo_store_sqlite_restore(state_dir, from, err);
    if (r == 0) {
        (void)printf(
            "%s was put in the place of the store; what was there is in %s/backup.\n"
            "Start lmod: it only observes. `lmo restore` shows what it sees, `lmo restore --activate` lets it act.\n",
            from, state_dir);
    }
    return r;
}
