/* generate.h - what is written from the tables of commands and options: manual pages, shells' completion, and the reference
 * in docs. `lmo-docs` (generate_main.c) puts them into files at build time. Pure: tables in, characters out. */
#ifndef LMO_CLI_GENERATE_H
#define LMO_CLI_GENERATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* The first words of all commands, none twice, in the table's order; NULL past the end. Into buf. */
const char *lmo_generate_group(size_t index, char buf[32]);

/* lmo.1 (group NULL) or lmo-GROUP.1, in man(7) macros. `date`: YYYY-MM-DD. */
void lmo_generate_man(const char *group, const char *date, FILE *out);
/* docs/cli-reference.md */
void lmo_generate_reference(FILE *out);
/* "bash" or "zsh"; false: no such shell. */
bool lmo_generate_completion(const char *shell, FILE *out);

#endif
