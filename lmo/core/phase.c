/* phase.c - look-ups in the table of phase.h. */
#include "core/phase.h"

#include <string.h>

static const struct {
    const char *text;
    uint32_t successors, attributes;
} phase_table[LMO_PHASE_COUNT] = {
#define X(name, text, successors, attributes) [LMO_PHASE_##name] = {text, successors, attributes},
    LMO_PHASES(X)
#undef X
};

const char *lmo_phase_text(enum lmo_phase p)
{
    return phase_table[p].text;
}

enum lmo_phase lmo_phase_from_text(const char *text)
{
    for (int i = 0; i < LMO_PHASE_COUNT; i++) {
        if (strcmp(phase_table[i].text, text) == 0) {
            return (enum lmo_phase)i;
        }
    }
    return LMO_PHASE_COUNT;
}

bool lmo_phase_may_follow(enum lmo_phase from, enum lmo_phase to)
{
    return (phase_table[from].successors >> to) & 1U;
}

bool lmo_phase_is(enum lmo_phase p, uint32_t attribute)
{
    return (phase_table[p].attributes & attribute) == attribute;
}
