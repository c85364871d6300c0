/* notice.h - the word that a guest's owner gets before the guest is moved, and the wait for his acknowledgement.
 *
 * A wait of the queue, like that for a better prediction: while it lasts the migration takes part in nothing and holds
 * nothing. It begins when the migration is accepted and ends with the acknowledgement or at `until_ms`, whatever becomes of
 * the calls that tell him: those are the engine's business, made again after every restart under the same id. */
#ifndef LMO_CORE_NOTICE_H
#define LMO_CORE_NOTICE_H

#include "base/types.h"

#include <stdbool.h>
#include <stdint.h>

#define LMO_NOTICE_DEADLINE_MIN_MS 1000
#define LMO_NOTICE_DEADLINE_MAX_MS 86400000 /* a day, as long as a migration may queue */

enum lmo_notice_state {
    LMO_NOTICE_NONE = 0, /* nobody wants to be told */
    LMO_NOTICE_WAITING,
    LMO_NOTICE_ACKNOWLEDGED,
    LMO_NOTICE_UNANSWERED, /* the deadline passed; it went on, or was given up, as `abort_unanswered` says */
};
/* NULL for what is no state; NONE for a text that is not one. */
const char *lmo_notice_state_text(int state);
int lmo_notice_state_from_text(const char *text);

enum lmo_no_answer { LMO_NO_ANSWER_PROCEED = 0, LMO_NO_ANSWER_ABORT };
const char *lmo_no_answer_text(int what);
/* -1 for a text that is neither. */
int lmo_no_answer_from_text(const char *text);

struct lmo_notice {
    enum lmo_notice_state state;
    enum lmo_no_answer on_no_answer;
    uint32_t deadline_ms; /* how long the owner has */
    int64_t asked_ms, until_ms, answered_ms;
    char url[LMO_URL_MAX];
    char by[LMO_NAME_MAX + 32]; /* who acknowledged: "operator:alice", or "hook" for the hook's own answer */
};

#endif
