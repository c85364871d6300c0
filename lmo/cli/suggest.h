/* suggest.h - "did you mean": the candidates nearest to a word that nobody knows. Pure. */
#ifndef LMO_CLI_SUGGEST_H
#define LMO_CLI_SUGGEST_H

#include <stddef.h>

#define LMO_SUGGEST_MAX      3
#define LMO_SUGGEST_WORD_MAX 64
#define LMO_SUGGEST_TEXT_MAX 320

/* Zero-initialise but for `word`. */
struct lmo_suggest {
    const char *word; /* as typed; borrowed */
    size_t count;
    unsigned distance[LMO_SUGGEST_MAX]; /* ascending */
    char near[LMO_SUGGEST_MAX][LMO_SUGGEST_WORD_MAX];
};

/* Edits (insert, delete, replace, swap neighbours; letters' case is a third of one... counted as none) between two words;
 * words are looked at up to LMO_SUGGEST_WORD_MAX - 1 bytes. */
unsigned lmo_suggest_distance(const char *a, const char *b);
/* Keeps the candidate if it is near enough: within a third of the word's length (at least 1, at most 3), or the word is its
 * beginning (3 characters or more). */
void lmo_suggest_add(struct lmo_suggest *s, const char *candidate);
/* " Did you mean --to or --top?" with `before` put before each ("--"), or "". Returns buf. */
const char *lmo_suggest_text(const struct lmo_suggest *s, const char *before, char buf[LMO_SUGGEST_TEXT_MAX]);

#endif
