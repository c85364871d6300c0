/* breaker.h - stops feeding a host that does not answer: a circuit breaker, as a pure state machine.
 *
 *   closed --5 failures in a row--> open --pause over, or the host was heard of--> half-open --a good answer--> closed
 *                                    ^                                              |a bad one
 *                                    +-----------------pause doubled----------------+
 *
 * A failure is a call whose outcome is unknown or that could not be sent; a refusal is an answer, and good here. What
 * makes something (forward) waits while it is open. What undoes, finishes or decides may not wait for ever: it
 * probes, one call every LMO_BREAKER_PROBE_MS. The calls that a paused guest waits for are not asked about here at
 * all. */
#ifndef LMO_CORE_BREAKER_H
#define LMO_CORE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define LMO_BREAKER_FAILURES 5          /* in a row */
#define LMO_BREAKER_PAUSE_MIN_MS 5000   /* the first pause; doubled each time that the probe fails */
#define LMO_BREAKER_PAUSE_MAX_MS 60000
#define LMO_BREAKER_PROBE_MS 1000       /* between two calls of the kind that may not wait, while open */
#define LMO_BREAKER_TRIAL_MS 65000      /* a trial call that was never answered is over by then: the longest call's time */

enum lmo_breaker_state { LMO_BREAKER_CLOSED = 0, LMO_BREAKER_OPEN, LMO_BREAKER_HALF_OPEN };
const char *lmo_breaker_state_text(enum lmo_breaker_state s);

struct lmo_breaker {
    enum lmo_breaker_state state;
    uint32_t failures;     /* in a row */
    uint32_t opened;       /* times in a row, for the pause */
    int64_t until_ms;      /* open: when it becomes half-open */
    int64_t probe_ms;      /* open: when the next call that may not wait may go */
    int64_t trial_ms;      /* half-open: the trial call under way is given up then; 0: none is */
};

/* May a call go to the host now? If not, *ret_again_ms says when to ask again. `patient`: it makes something and can
 * wait. */
bool lmo_breaker_admit(struct lmo_breaker *b, bool patient, int64_t now_ms, int64_t *ret_again_ms);
/* What came of a call. True if the state changed. */
bool lmo_breaker_answered(struct lmo_breaker *b, bool good, int64_t now_ms, uint32_t random);
/* The host was heard of after it had been lost: no need to wait out the pause. True if the state changed. */
bool lmo_breaker_heard(struct lmo_breaker *b);

#endif
