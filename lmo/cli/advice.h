/* advice.h - what to do next, for every code that a problem can carry; and "did you mean" for names that nobody has. */
#ifndef LMO_CLI_ADVICE_H
#define LMO_CLI_ADVICE_H

#include "cli/cli.h"

/* One sentence or two for a person; never empty. `code` is the problem's "code"; one that is not known (a newer coordinator)
 * is advised on by its HTTP status. For not_found the command's own hint comes first. */
const char *lmo_advice(const struct lmo_cli_command *command, const char *code, unsigned status);

/* After a 404, and only for a person at a terminal: asks which hosts and guests there are (1 s at most, silent on failure) and
 * names those that are like what was typed. */
void lmo_advise_names(struct lmo_cli *cli);

#endif
