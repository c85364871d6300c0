/* shrink.h - from a plan that fails to a short one that still does. */
#ifndef LMO_TESTS_SIM_SHRINK_H
#define LMO_TESTS_SIM_SHRINK_H

#include "run.h"

/* Leaves faults, requests and guests out, one after the other and again, as long as the run still fails in the same way;
 * at most `runs_max` runs. Returns how many it took. */
unsigned shrink_plan(struct plan *p, struct run_result *result, unsigned runs_max);
/* Do two failures look like the same one? */
bool shrink_same(const char *a, const char *b);

#endif
