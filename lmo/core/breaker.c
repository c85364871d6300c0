/* breaker.c - see breaker.h. */
#include "core/breaker.h"

const char *lmo_breaker_state_text(enum lmo_breaker_state s)
{
    static const char *const texts[] = {"closed", "open", "half_open"};
    return texts[s];
}

static void try_again(struct lmo_breaker *b)
{
    b->state = LMO_BREAKER_HALF_OPEN;
    b->trial_ms = 0;
}

bool lmo_breaker_admit(struct lmo_breaker *b, bool patient, int64_t now_ms, int64_t *ret_again_ms)
{
    if (b->state == LMO_BREAKER_OPEN && now_ms >= b->until_ms) {
        try_again(b);
    }
    if (b->state == LMO_BREAKER_CLOSED) {
        return true;
    }
    if (b->state == LMO_BREAKER_HALF_OPEN && now_ms >= b->trial_ms) {
        b->trial_ms = now_ms + LMO_BREAKER_TRIAL_MS;
        b->probe_ms = now_ms + LMO_BREAKER_PROBE_MS;
        return true;
    }
    if (!patient && now_ms >= b->probe_ms) {
        b->probe_ms = now_ms + LMO_BREAKER_PROBE_MS;
        return true;
    }
    int64_t until = b->state == LMO_BREAKER_OPEN ? b->until_ms : b->trial_ms;
    *ret_again_ms = !patient && b->probe_ms < until ? b->probe_ms : until;
    return false;
}

/* As with any back-off: half of the pause is fixed, half random, so that what was held back does not come at once. */
static void open_for_a_while(struct lmo_breaker *b, int64_t now_ms, uint32_t random)
{
    unsigned shift = b->opened > 8 ? 8 : b->opened;
    int64_t full = (int64_t)LMO_BREAKER_PAUSE_MIN_MS << shift;
    full = full < LMO_BREAKER_PAUSE_MAX_MS ? full : LMO_BREAKER_PAUSE_MAX_MS;
    b->state = LMO_BREAKER_OPEN;
    b->opened++;
    b->until_ms = now_ms + full / 2 + (int64_t)(random % (uint32_t)(full / 2 + 1));
    b->probe_ms = now_ms + LMO_BREAKER_PROBE_MS;
    b->trial_ms = 0;
}

bool lmo_breaker_answered(struct lmo_breaker *b, bool good, int64_t now_ms, uint32_t random)
{
    enum lmo_breaker_state before = b->state;
    if (good) {
        *b = (struct lmo_breaker){.state = LMO_BREAKER_CLOSED};
        return before != LMO_BREAKER_CLOSED;
    }
    b->failures += b->failures < UINT32_MAX;
    if (b->state == LMO_BREAKER_HALF_OPEN || (b->state == LMO_BREAKER_CLOSED && b->failures >= LMO_BREAKER_FAILURES)) {
        open_for_a_while(b, now_ms, random);
    }
    return b->state != before;
}

bool lmo_breaker_heard(struct lmo_breaker *b)
{
    if (b->state != LMO_BREAKER_OPEN) {
        return false;
    }
    try_again(b);
    return true;
}
