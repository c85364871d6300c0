/* ops.c - look-ups in the tables of ops.h. */
#include "base/ops.h"

#include <string.h>

static const struct lmo_op_info op_table[LMO_OP_COUNT] = {
#define X(name, text, role, mutates, timeout_ms) [LMO_OP_##name] = {text, LMO_OP_ROLE_##role, mutates, timeout_ms},
    LMO_OPS(X)
#undef X
};

const struct lmo_op_info *lmo_op_info(enum lmo_op_kind kind)
{
    return &op_table[kind];
}

bool lmo_op_is_close(enum lmo_op_kind kind)
{
    return kind == LMO_OP_CLOSE_SOURCE || kind == LMO_OP_CLOSE_DESTINATION || kind == LMO_OP_CLOSE_VOLUME ||
           kind == LMO_OP_CLOSE_FABRIC;
}

enum lmo_op_kind lmo_op_from_text(const char *text)
{
    for (int i = 1; i < LMO_OP_COUNT; i++) {
        if (strcmp(op_table[i].text, text) == 0) {
            return (enum lmo_op_kind)i;
        }
    }
    return LMO_OP_NONE;
}

static const char *const event_table[LMO_WEV_COUNT] = {
    [LMO_WEV_NONE] = "",
#define X(name, text) [LMO_WEV_##name] = text,
    LMO_WORKER_EVENTS(X)
#undef X
};

const char *lmo_worker_event_text(enum lmo_worker_event_kind kind)
{
    return event_table[kind];
}

enum lmo_worker_event_kind lmo_worker_event_from_text(const char *text)
{
    for (int i = 1; i < LMO_WEV_COUNT; i++) {
        if (strcmp(event_table[i], text) == 0) {
            return (enum lmo_worker_event_kind)i;
        }
    }
    return LMO_WEV_NONE;
}

static const char *const freeze_answers[] = {
    [LMO_FREEZE_UNKNOWN] = "unknown",
    [LMO_FREEZE_FROZEN] = "frozen",
    [LMO_FREEZE_GONE] = "gone",
    [LMO_FREEZE_RUNNING] = "running",
};

const char *lmo_freeze_answer_name(enum lmo_freeze_answer a)
{
    return freeze_answers[a];
}

enum lmo_freeze_answer lmo_freeze_answer_from_name(const char *s)
{
    for (int i = LMO_FREEZE_FROZEN; i <= LMO_FREEZE_RUNNING; i++) {
        if (strcmp(freeze_answers[i], s) == 0) {
            return (enum lmo_freeze_answer)i;
        }
    }
    return LMO_FREEZE_UNKNOWN;
}
