/* convergence.h - how long pre-copy may take, whether it converges, when it ends, and what is done if it does not.
 *
 * Pure: no clock, no I/O, no allocation. What is known goes in (policy, the state here, two samples of the job), an
 * order comes out. The step function (core/precopy.c) carries it out; docs/convergence.md has the formulas and their
 * sources.
 *
 * Everything is judged by passes over the memory, never by one sample: a sample may fall anywhere in a pass, and what
 * remains falls and jumps like the teeth of a saw.
 *
 * Invariants:
 *  V1  A downtime limit that is ordered is never lower than the one before, never above max_downtime_ms, and after a
 *      force never above force_max_pause_ms.
 *  V2  Every stage has a deadline; a deadline that has passed ends the stage, once: abort, or (memory only) force. A
 *      force is not repeated. So pre-copy ends within disk budget + memory budget + grace, whatever is sampled.
 *  V3  Within one revision of the ETA its range only narrows: the low end stays or rises, the high end stays or
 *      falls. */
#ifndef LMO_CORE_CONVERGENCE_H
#define LMO_CORE_CONVERGENCE_H

#include "base/types.h"

#include <stdbool.h>
#include <stdint.h>

struct lmo_policy;

/* Where the downtime limit begins, and for how many passes over the memory each step of it is given a chance. A guest
 * that converges to less pauses for less; one that does not soon has its policy's full limit. */
#define LMO_DOWNTIME_FIRST_MS 60
#define LMO_DOWNTIME_PASSES   3
/* A stall: none of the last WINDOW passes was IMPROVEMENT % smaller than the one before them, at STALLS ends in a
 * row. */
#define LMO_CONV_WINDOW              3
#define LMO_CONV_IMPROVEMENT_PERCENT 10
#define LMO_CONV_STALLS              2
/* A time-out that the policy leaves open: base + factor x bytes / bandwidth; docs/convergence.md says why these. */
#define LMO_CONV_BASE_MS        60000
#define LMO_CONV_FACTOR         4
#define LMO_CONV_NOMINAL_BPS    (UINT64_C(64) << 20) /* where no bandwidth is stated */
#define LMO_CONV_TIMEOUT_MAX_MS 43200000             /* 12 h */
#define LMO_CONV_GRACE_BASE_MS  30000                /* after a force: this, and the time of one pass */
#define LMO_CONV_PERIOD_MS      1000                 /* over which a dirty rate is measured before the start */

enum lmo_on_timeout { LMO_ON_TIMEOUT_ABORT = 0, LMO_ON_TIMEOUT_FORCE };
const char *lmo_on_timeout_text(int v);         /* NULL for no such value, here and below */
int lmo_on_timeout_from_text(const char *text); /* -1 for a text that is none, here and below */

/* What is done with a forecast that says "will not converge". */
enum lmo_prediction { LMO_PREDICTION_WARN = 0, LMO_PREDICTION_OFF, LMO_PREDICTION_QUEUE, LMO_PREDICTION_REFUSE };
const char *lmo_prediction_text(int v);
int lmo_prediction_from_text(const char *text);

/* ------------------------------------------------------------------ before the start */

enum lmo_outlook {
    LMO_OUTLOOK_UNKNOWN = 0, /* not measured, or what bandwidth it gets is not known */
    LMO_OUTLOOK_CONVERGES,
    LMO_OUTLOOK_THROTTLED, /* only if its vCPUs are slowed down, which the policy allows */
    LMO_OUTLOOK_FORCED,    /* only with the longer pause that the policy allows at the time-out */
    LMO_OUTLOOK_TOO_SLOW,  /* it would, but not within the time-out */
    LMO_OUTLOOK_NEVER,
};
const char *lmo_outlook_text(int v);
int lmo_outlook_from_text(const char *text);

struct lmo_forecast {
    enum lmo_outlook outlook;
    uint64_t dirty_bytes_per_s, bandwidth_bytes_per_s;
    uint64_t age_ms;    /* of the dirty rate; 0: not measured */
    uint64_t needed_ms; /* to converge; 0: not known, or never */
    char text[LMO_TEXT_MAX];
};

/* What is known of a guest before its memory moves. */
struct lmo_forecast_facts {
    uint64_t memory_bytes;
    uint64_t dirty_bytes_per_s;
    uint64_t age_ms;                /* 0: never measured */
    uint64_t bandwidth_bytes_per_s; /* that it gets; 0: not known */
};
void lmo_convergence_forecast(const struct lmo_policy *policy, const struct lmo_forecast_facts *facts,
                              struct lmo_forecast *ret);
/* The same sum alone: ms to converge at that bandwidth; 0: never. A bandwidth of 0 counts as the nominal one. */
uint64_t lmo_convergence_needed_ms(const struct lmo_policy *policy, uint64_t bytes, uint64_t dirty_bytes_per_s,
                                   uint64_t bandwidth_bytes_per_s);
/* Would a migration with this forecast end at its time-out? Then a policy may refuse it or keep it waiting. */
bool lmo_forecast_fails(const struct lmo_forecast *f);

/* ------------------------------------------------------------------ under way */

enum lmo_conv_stage {
    LMO_CONV_NONE = 0,
    LMO_CONV_DISKS, /* local disks are copied, memory waits; drivers that copy no disks never are here */
    LMO_CONV_MEMORY,
    LMO_CONV_FORCED, /* the time-out has passed; the longer pause is allowed, for a grace */
};
const char *lmo_conv_stage_text(int v);
int lmo_conv_stage_from_text(const char *text);

struct lmo_budget {
    uint64_t ms;    /* 0: none yet */
    bool by_policy; /* an explicit value of the policy; else computed from what follows */
    uint64_t bytes, bandwidth_bytes_per_s;
    bool nominal; /* no bandwidth was stated: the nominal one was taken */
};

enum lmo_eta_kind {
    LMO_ETA_NONE = 0, /* gate shut, or nothing measured yet */
    LMO_ETA_DISKS,
    LMO_ETA_FIRST_PASS,
    LMO_ETA_CONVERGING,
    LMO_ETA_NOT_CONVERGING,
    LMO_ETA_FORCED,
};
const char *lmo_eta_kind_text(int v);
int lmo_eta_kind_from_text(const char *text);

/* When the guest will be switched over, as stamps. The revision rises when the promise made before cannot be kept:
 * the kind changed, a limit changed, or its high end has passed. */
struct lmo_eta {
    enum lmo_eta_kind kind;
    uint32_t revision;
    int64_t low_ms, high_ms;
    uint64_t bandwidth_bytes_per_s; /* limit in force when it was made */
};

/* One finished pass: what had to be sent again after it, i.e. the size of the next. */
struct lmo_pass {
    uint32_t number;
    uint64_t rest_bytes;
};

struct lmo_convergence {
    struct lmo_forecast forecast;
    enum lmo_conv_stage stage;
    int64_t began_ms, stage_ms; /* pre-copy; the present stage */
    struct lmo_budget disk, memory, grace;
    uint32_t samples;    /* with the gate open */
    uint64_t pass_bytes; /* size of the pass under way, as far as known */
    unsigned pass_count;
    struct lmo_pass passes[LMO_CONV_WINDOW + 1]; /* the newest last */
    uint32_t unimproved;                         /* ends of passes in a row without improvement over the window */
    bool stalled;
    bool reorder; /* the limit that was decided has not been confirmed: to be ordered again */
    struct lmo_eta eta;
};

/* What a decision is taken on. */
struct lmo_conv_facts {
    const struct lmo_policy *policy;
    uint32_t downtime_ms;           /* limit ordered last */
    uint32_t ordered_in_pass;       /* in this pass; 0: not known yet */
    bool open;                      /* the gate is open, and no order of ours is under way */
    uint64_t bandwidth_bytes_per_s; /* that it gets; 0: no limit */
    uint64_t memory_bytes;
    const struct lmo_progress *before, *now; /* the sample before, the present one */
    int64_t now_ms;
};

enum lmo_conv_act {
    LMO_CONV_NOTHING = 0,
    LMO_CONV_RAISE, /* order downtime_ms */
    LMO_CONV_FORCE, /* likewise, and it is the last one */
    LMO_CONV_ABORT,
};
struct lmo_conv_order {
    enum lmo_conv_act act;
    uint32_t downtime_ms;
    bool stalled_now;        /* it has just come to a stall: worth a line */
    char text[LMO_TEXT_MAX]; /* why; for ABORT the reason */
};

/* Pre-copy begins. */
void lmo_convergence_begin(struct lmo_convergence *c, const struct lmo_policy *policy, uint64_t memory_bytes,
                           uint64_t bandwidth_bytes_per_s, int64_t now_ms);
/* The bandwidth that the migration gets has changed: budgets that were computed follow it, upwards only. */
void lmo_convergence_bandwidth(struct lmo_convergence *c, const struct lmo_policy *policy, uint64_t memory_bytes,
                               uint64_t bandwidth_bytes_per_s);
/* When the present stage ends at the latest. */
int64_t lmo_convergence_deadline(const struct lmo_convergence *c);
/* The latest possible end of pre-copy, counted from its beginning: what has a time limit beside it must live longer. */
uint64_t lmo_convergence_longest_ms(const struct lmo_convergence *c);
void lmo_convergence_sample(struct lmo_convergence *c, const struct lmo_conv_facts *f, struct lmo_conv_order *ret);
/* The least that one of the newest WINDOW passes has left; 0: none has ended. */
uint64_t lmo_convergence_least_rest(const struct lmo_convergence *c);
/* The deadline has passed. */
void lmo_convergence_time_out(struct lmo_convergence *c, const struct lmo_conv_facts *f, struct lmo_conv_order *ret);
/* "60 s + 4 x 256 MiB / 16 MiB/s" or "by policy". */
void lmo_budget_text(const struct lmo_budget *b, uint64_t base_ms, unsigned factor, char *ret, unsigned size);

#endif
