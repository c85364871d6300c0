/* replay.h - shared by the files of model-replay only: the label that is being walked, and how a difference is told. */
#ifndef LMO_TESTS_MODEL_REPLAY_H
#define LMO_TESTS_MODEL_REPLAY_H

#include "base/err.h"
#include "base/ops.h"
#include "tests/model/codes.h"

#include <stdbool.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* "LMO machine event argument stage actions" */
struct replay_label {
    char machine; /* S, D, C, or W: the world */
    int event, argument, stage, actions;
};

struct replay_position {
    unsigned trail, step;
    struct replay_label label;
    bool failed; /* this trail: the rest of it is meaningless */
    unsigned trails_failed;
};
extern struct replay_position replay_at;

void replay_mismatch(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* E_* of codes.h; 7 for an error that the model does not know. */
int replay_refusal(int code);
/* By A_* of codes.h, and back. */
extern const enum lmo_freeze_answer replay_answers[4];
int replay_answer_code(enum lmo_freeze_answer a);

/* Each: the label's event to the real machine, and a comparison of what comes out. */
void replay_workers_reset(void);
void replay_source(void);
void replay_destination(void);
/* How its record stands now, as a coordinator that looks at it reads it. */
const char *replay_destination_stage(void);
void replay_core_reset(void);
void replay_core(void);

#endif
