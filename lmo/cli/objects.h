/* objects.h - what `lmo wait KIND/NAME` can wait for: one table. A kind that is not in it cannot be waited for. */
#ifndef LMO_CLI_OBJECTS_H
#define LMO_CLI_OBJECTS_H

#include "cli/wait.h"
#include "cli/words.h"

struct lmo_object_row {
    const char *kind;   /* "host" */
    enum lmo_word word; /* what its names are, for completion */
    const char *states; /* what --for takes, separated by blanks; the first is waited for without it */
    const char *list;   /* how to see which there are; for messages */
    const struct lmo_wait_spec *wait;
};
extern const struct lmo_object_row lmo_object_rows[];
extern const size_t lmo_object_row_count;

/* The row of "host/hv1"; *ret_name: what comes after the slash. NULL: no such kind, or no slash. */
const struct lmo_object_row *lmo_object_find(const char *object, const char **ret_name);

#endif
