/* fleet.h - where the parts of a simulated fleet are, for lmo-simworkers and whoever drives it. */
#ifndef LMO_TESTS_SIMWORKERS_FLEET_H
#define LMO_TESTS_SIMWORKERS_FLEET_H

#include "base/err.h"
#include "http/tls.h"

/* DIR/pki: a CA, a worker's certificate for each of hv1 to hv<hosts>, coordinator "fleet", operator "fleet". */
int fleet_make_pki(const char *dir, unsigned hosts, const char *address, struct lmo_err *err) LMO_MUST_CHECK;
struct lmo_tls_files fleet_tls(const char *dir, const char *role, const char *name);

#endif
