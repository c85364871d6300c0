/* attention.h - what the record of a migration in `attention` says to the person who must look: what is known, what is
 * not, and which commands are safe. Derived from the record alone, so that it can be shown when nothing answers. */
#ifndef LMO_CORE_ATTENTION_H
#define LMO_CORE_ATTENTION_H

#include "base/types.h"

struct lmo_migration;

#define LMO_ATTENTION_LINES 8

struct lmo_attention_command {
    char command[LMO_TEXT_MAX]; /* as typed */
    char effect[LMO_TEXT_MAX];  /* what it does, and when it is refused */
};

struct lmo_attention {
    unsigned known_count, unknown_count, safe_count;
    char known[LMO_ATTENTION_LINES][LMO_TEXT_MAX];
    char unknown[LMO_ATTENTION_LINES][LMO_TEXT_MAX];
    struct lmo_attention_command safe[LMO_ATTENTION_LINES];
};

void lmo_attention_describe(const struct lmo_migration *m, struct lmo_attention *ret);

#endif
