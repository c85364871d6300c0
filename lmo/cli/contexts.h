/* contexts.h - the command line's own configuration: named coordinators and the credentials to use with each.
 *
 * Two files of the same form (INI, base/conf.h): the user's ($XDG_CONFIG_HOME/lmo/config, else ~/.config/lmo/config) and the
 * system's (/etc/lmo/lmo.conf). A context of the user's file hides the system's of the same name; which context is current
 * is the user's file's word first. They hold paths, never secrets; still, a file that others could write would let them say
 * which CA is to be trusted, so it is refused. Only the user's file is ever written, whole or not at all. */
#ifndef LMO_CLI_CONTEXTS_H
#define LMO_CLI_CONTEXTS_H

#include "cli/cli.h"

#include "base/conf.h"
#include "base/types.h"

/* Members of a context; the order is that of output. */
enum lmo_context_member {
    LMO_CONTEXT_URL = 0,
    LMO_CONTEXT_CA,
    LMO_CONTEXT_CRL,
    LMO_CONTEXT_CERT,
    LMO_CONTEXT_KEY,
    LMO_CONTEXT_TOKEN_FILE,
    LMO_CONTEXT_MEMBERS
};
struct lmo_context_row {
    const char *key;      /* in the file */
    const char *variable; /* of the environment */
    enum lmo_option option;
    const char *help;
};
extern const struct lmo_context_row lmo_context_rows[LMO_CONTEXT_MEMBERS];

struct lmo_contexts {
    char user_path[LMO_PATH_MAX]; /* "": neither XDG_CONFIG_HOME nor HOME is set */
    const char *system_path;
    struct lmo_conf *user, *system; /* owned; NULL: no such file */
};

/* Reads both files. INVALID for what is wrong in one of them, FORBIDDEN for one that others can write. */
int lmo_contexts_load(const struct lmo_cli *cli, struct lmo_contexts *ret, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_contexts_release(struct lmo_contexts *c);

/* The file that has a context of that name; NULL: none has. */
const struct lmo_conf *lmo_contexts_find(const struct lmo_contexts *c, const char *name);
/* "": not set. Borrowed. */
const char *lmo_contexts_get(const struct lmo_contexts *c, const char *name, enum lmo_context_member member);
/* The context in force: --context, LMO_CONTEXT, the user's file, the system's. "": none. Borrowed. */
const char *lmo_contexts_current(const struct lmo_cli *cli, const struct lmo_contexts *c);
/* Names in order, the user's first, none twice; NULL past the end. Borrowed. */
const char *lmo_contexts_at(const struct lmo_contexts *c, size_t index);

/* Changes of the user's file: what is not concerned, comments included, stays as it is. The result is checked before it is
 * written. `value` NULL takes the key away. */
int lmo_contexts_edit(const struct lmo_contexts *c, const char *section, const char *const *keys,
                      const char *const *values, size_t count, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_contexts_remove(const struct lmo_contexts *c, const char *name, struct lmo_err *err) LMO_MUST_CHECK;

#endif
