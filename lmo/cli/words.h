/* words.h - what a word of a command line names (a host, a guest, one of a few words, ...), from the tables of commands and
 * options, and which such names there are. Completion and "did you mean" use it. */
#ifndef LMO_CLI_WORDS_H
#define LMO_CLI_WORDS_H

#include "cli/cli.h"

enum lmo_word {
    LMO_WORD_ANY = 0, /* nothing is known about it */
    LMO_WORD_HOST,
    LMO_WORD_VM,
    LMO_WORD_MIGRATION,
    LMO_WORD_DRAIN,
    LMO_WORD_CONTEXT,
    LMO_WORD_FILE,
    LMO_WORD_DIR,
    LMO_WORD_COMMAND, /* of `lmo help` */
    LMO_WORD_OBJECT,  /* KIND/NAME of `lmo wait` */
    LMO_WORD_FIXED    /* one of a few */
};
/* `ret_words` (static, separated by blanks) is set for FIXED. */
enum lmo_word lmo_word_of_argument(const struct lmo_cli_command *command, unsigned index, const char **ret_words);
enum lmo_word lmo_word_of_option(enum lmo_option option, const char **ret_words);

/* Called with each name there is; `about` is a word or two on it, or "". Both are borrowed, and from the coordinator: filter
 * before they reach a terminal. */
typedef void lmo_word_fn(void *arg, const char *name, const char *about);
/* Asks the coordinator for hosts, guests, migrations or drains, waiting `timeout_ms` at most; reads contexts from the
 * configuration. 0, or a negative LMO_E_* with nothing printed: whoever asks here is not told of failures. */
int lmo_words_list(struct lmo_cli *cli, enum lmo_word kind, uint64_t timeout_ms, lmo_word_fn *fn,
                   void *arg) LMO_MUST_CHECK;

/* `lmo __complete WORD...`: completions of the last word, one "word<TAB>about" a line, or ":file" or ":dir". What the shells'
 * scripts call. Always 0; silent when nothing is known or the coordinator does not answer within a second. */
int lmo_cli_complete(struct lmo_cli *cli, int count, char **words);

#endif
