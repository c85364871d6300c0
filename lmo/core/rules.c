/* rules.c - look-ups in the tables of rules.h. */
#include "core/rules.h"

static const struct lmo_phase_rule phase_rules[LMO_PHASE_COUNT] = {
#define X(name, deadline_ms, at_deadline, tries, undo, question) \
    [LMO_PHASE_##name] = {deadline_ms, LMO_AT_DEADLINE_##at_deadline, tries, undo, question},
    LMO_PHASE_RULES(X)
#undef X
};

static const struct lmo_op_rule op_rules[LMO_OP_COUNT] = {
#define X(name, undone_by, question) [LMO_OP_##name] = {LMO_OP_##undone_by, question},
    LMO_OP_RULES(X)
#undef X
};

const struct lmo_phase_rule *lmo_phase_rule(enum lmo_phase p)
{
    return &phase_rules[p];
}

const struct lmo_op_rule *lmo_op_rule(enum lmo_op_kind kind)
{
    return &op_rules[kind];
}
