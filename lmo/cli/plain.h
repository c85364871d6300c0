/* plain.h - --plain: tab-separated columns for scripts, and the choice between JSON, plain and text.
 *
 * A promise: a heading line with the columns' names, then a line per object; columns are never renamed, moved or taken away,
 * new ones come at the end; values are the coordinator's own (bytes, milliseconds since 1970), never cut, rounded or
 * coloured; "-" for what is absent. Tabs, line ends and control characters inside a value become "?". A command's columns are
 * one row of the table in plain.c; `lmo COMMAND --help`, the manual pages and docs/cli-reference.md name them from there. */
#ifndef LMO_CLI_PLAIN_H
#define LMO_CLI_PLAIN_H

#include "cli/cli.h"

struct lmo_plain_row {
    const char *command; /* as in the table of commands */
    const char *array;   /* member of the answer that has the objects; NULL: the answer is the one object */
    const char *columns; /* "name state vm=vm.name": column, or column=path with dots; separated by blanks */
};
/* NULL: the command has no columns; --plain is then its text, without colours. */
const struct lmo_plain_row *lmo_plain_find(const char *command);
/* The columns' names alone, separated by `separator`. Returns buf. */
const char *lmo_plain_names(const struct lmo_plain_row *row, const char *separator, char *buf, size_t size);
/* Pure. False: out of memory or stdout failed. */
bool lmo_plain_print(const struct lmo_plain_row *row, const json_t *answer, FILE *out);

typedef void lmo_render_fn(const json_t *answer, const struct lmo_style *style, FILE *out);
/* Prints an answer as the command line asked for: JSON, plain columns or text by `render`. 0 or an exit code. */
int lmo_cli_show(struct lmo_cli *cli, const json_t *answer, lmo_render_fn *render);

#endif
