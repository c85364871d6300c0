/* settings.h - which coordinator, and as whom: flag > environment > context (contexts.h), each setting by itself.
 * --context is a flag: what a context that was named there sets hides the environment.
 *
 * Certificate and token are two ways to say who asks. Where both are set, the one that was said nearer (flag, then
 * environment, then context) counts; both equally near is refused. */
#ifndef LMO_CLI_SETTINGS_H
#define LMO_CLI_SETTINGS_H

#include "cli/contexts.h"

#define LMO_TOKEN_MAX 513 /* with its end */

struct lmo_settings {
    struct lmo_contexts contexts;          /* owned; `text` may point into it */
    const char *context;                   /* the one in force; "": none */
    const char *text[LMO_CONTEXT_MEMBERS]; /* NULL: not set */
    char token[LMO_TOKEN_MAX];             /* read from token_file; "": none. Release wipes it */
};

/* INVALID or FORBIDDEN with a sentence that says what to do. Release also after a failure. */
int lmo_settings_load(const struct lmo_cli *cli, struct lmo_settings *ret, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_settings_release(struct lmo_settings *s);

/* FORBIDDEN, with the command that mends it, unless nobody but the owner and the group can read the file. */
int lmo_settings_check_private(const char *path, struct lmo_err *err) LMO_MUST_CHECK;

#endif
