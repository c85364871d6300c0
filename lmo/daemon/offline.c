/* offline.c - see offline.h. */
#include "daemon/offline.h"

#include "engine/ports.h"

#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int lmo_offline_backup(const char *state_dir, const char *to, struct lmo_err *err)
{
    int r = lmo_store_sqlite_backup(state_dir, to, NULL, err);
    if (r == 0) {
        (void)printf("%s: a copy of the store as it is now\n", to);
    }
    return r;
}

/* Files of another user's would be there afterwards, which the coordinator could not open. */
static int check_user(const char *state_dir, struct lmo_err *err)
{
    struct stat st;
    if (stat(state_dir, &st) < 0 || st.st_uid == geteuid()) {
        return 0;
    }
    const struct passwd *owner = getpwuid(st.st_uid);
    return lmo_fail(err, LMO_E_FORBIDDEN, "%s is %s's: run this as that user (runuser -u %s -- lmod ...)", state_dir,
                    owner ? owner->pw_name : "another user", owner ? owner->pw_name : "USER");
}

int lmo_offline_restore(const char *state_dir, const char *from, struct lmo_err *err)
{
    int r = check_user(state_dir, err);
    r = r < 0 ? r : lmo_store_sqlite_restore(state_dir, from, err);
    if (r == 0) {
        (void)printf(
            "%s was put in the place of the store; what was there is in %s/backup.\n"
            "Start lmod: it only observes. `lmo restore` shows what it sees, `lmo restore --activate` lets it act.\n",
            from, state_dir);
    }
    return r;
}
