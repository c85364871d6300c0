/* trace.c - the spans of a migration's phases, made from that of the migration itself. */
#include "core/migration.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void lmo_trace_phase_span(const struct lmo_migration *m, unsigned n, char ret[LMO_SPAN_ID_MAX])
{
    uint64_t x =
        UINT64_C(1469598103934665603); /* FNV-1a over the root's digits, then a mixer: distinct and evenly spread */
    if (n >= LMO_PHASE_TIMES_MAX) {
        memcpy(ret, m->trace.span, LMO_SPAN_ID_MAX);
        return;
    }
    for (const char *p = m->trace.span; *p; p++) {
        x = (x ^ (unsigned char)*p) * UINT64_C(1099511628211);
    }
    x += (n + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    x ^= x >> 31;
    (void)snprintf(ret, LMO_SPAN_ID_MAX, "%016" PRIx64, x ? x : 1); /* all zeros would be no span */
}
