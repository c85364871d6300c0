/* resolve.h - a person's decision about a migration that rests in `attention`, and the reasons to refuse it.
 *
 * Observation comes first: the decision arrives with what both hosts and both workers' records showed just before. What
 * could not be seen is unknown, and unknown never permits anything that a look could have forbidden.
 *
 * A decision replaces no arbiter: `guest-at-source` still asks the destination's worker to discard (which it refuses
 * once it has committed, ADR 4), `guest-at-destination` still fences every volume before anything is resumed. */
#ifndef LMO_CORE_RESOLVE_H
#define LMO_CORE_RESOLVE_H

#include "base/err.h"
#include "base/types.h"

struct lmo_migration;

#define LMO_RESOLUTIONS(X)                        \
    X(GUEST_AT_SOURCE, "guest-at-source")           \
    X(GUEST_AT_DESTINATION, "guest-at-destination") \
    X(RETRY, "retry")                               \
    X(ABANDON, "abandon")

enum lmo_resolution {
    LMO_RESOLVE_NONE = 0,
#define X(name, text) LMO_RESOLVE_##name,
    LMO_RESOLUTIONS(X)
#undef X
    LMO_RESOLVE_COUNT
};
const char *lmo_resolution_text(enum lmo_resolution r);
enum lmo_resolution lmo_resolution_from_text(const char *text); /* LMO_RESOLVE_NONE: not in the table */

#define LMO_STAGE_UNSEEN "?" /* the worker could not be asked; "" is: it was asked, and has no record */

/* What was seen right before the decision. */
struct lmo_resolve_view {
    enum lmo_run_state source, destination; /* UNKNOWN: could not be asked; ABSENT: asked, and not there */
    char source_stage[24], destination_stage[24]; /* of the workers' records of this migration */
};

/* 0, or REFUSED/CONFLICT/UNAVAILABLE with what speaks against it and what to do instead. */
int lmo_resolve_check(const struct lmo_migration *m, enum lmo_resolution r, const struct lmo_resolve_view *v,
                      struct lmo_err *err) LMO_MUST_CHECK;

#endif
