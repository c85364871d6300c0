/* err.h - error codes and the one table that describes them.
 *
 * Every fallible function returns 0 or a negative `LMO_E_*` and, where a person may read the reason, takes an
 * optional `struct lmo_err *err` as its last argument. The layer that handles an error logs it, once.
 *
 * The class says what a caller may do next. UNKNOWN is an outcome of its own: the call may or may not have had
 * its effect, and the next act is an observation, never a repeat or an assumption. */
#ifndef LMO_BASE_ERR_H
#define LMO_BASE_ERR_H

#include <stddef.h>

enum lmo_err_class {
    LMO_CLASS_NONE = 0,
    LMO_CLASS_RETRY,   /* nothing happened; the same call may succeed later */
    LMO_CLASS_REFUSE,  /* nothing happened; the same call will be refused again */
    LMO_CLASS_UNKNOWN, /* the effect may have happened: observe before anything else */
    LMO_CLASS_BUG,     /* a broken assumption of ours */
};

/*      name              value  stored text               HTTP  class */
#define LMO_ERRORS(X)                                                      \
    X(OK,                 0,     "ok",                     200, NONE)      \
    X(INVALID,            -1,    "invalid",                400, REFUSE)    \
    X(UNAUTHENTICATED,    -2,    "unauthenticated",        401, REFUSE)    \
    X(FORBIDDEN,          -3,    "forbidden",              403, REFUSE)    \
    X(NOT_FOUND,          -4,    "not_found",              404, REFUSE)    \
    X(METHOD,             -5,    "method_not_allowed",     405, REFUSE)    \
    X(CONFLICT,           -6,    "conflict",               409, REFUSE)    \
    X(GONE,               -7,    "gone",                   410, REFUSE)    \
    X(STALE_EPOCH,        -8,    "stale_epoch",            409, REFUSE)    \
    X(TOO_LARGE,          -9,    "too_large",              413, REFUSE)    \
    X(UNSUPPORTED,        -10,   "unsupported",            422, REFUSE)    \
    X(REFUSED,            -11,   "refused",                422, REFUSE)    \
    X(LIMIT,              -12,   "limit",                  429, RETRY)     \
    X(UNAVAILABLE,        -13,   "unavailable",            503, RETRY)     \
    X(BUSY,               -14,   "busy",                   503, RETRY)     \
    X(TIMEOUT,            -15,   "timeout",                504, UNKNOWN)   \
    X(UNKNOWN,            -16,   "unknown_outcome",        502, UNKNOWN)   \
    X(IO,                 -17,   "io",                     500, RETRY)     \
    X(NO_MEMORY,          -18,   "no_memory",              503, RETRY)     \
    X(NO_SPACE,           -19,   "no_space",               507, RETRY)     \
    X(CORRUPT,            -20,   "corrupt",                500, BUG)       \
    X(CANCELLED,          -21,   "cancelled",              409, REFUSE)    \
    X(INTERNAL,           -22,   "internal",               500, BUG)       \
    X(NOT_CONVERGING,     -23,   "not_converging",         409, REFUSE)    \
    X(STALE_TERM,         -24,   "stale_term",             409, REFUSE)    \
    X(PRECONDITION,       -25,   "precondition_failed",    412, REFUSE)

enum lmo_errno {
#define X(name, value, text, http, cls) LMO_E_##name = (value),
    LMO_ERRORS(X)
#undef X
};

/* RFC 9457: the `type` of a problem is this and the stored text; relative to the coordinator's own address, where GET shows
 * its page (docs/problems). */
#define LMO_PROBLEM_TYPE "/problems/"

#define LMO_ERR_TEXT_MAX 384

/* A code and one sentence for a person. Zero-initialise. Owned by the caller; nothing inside is allocated. */
struct lmo_err {
    int code;                    /* 0 or LMO_E_* */
    char text[LMO_ERR_TEXT_MAX]; /* names the field or object, and what would be right */
};

#define LMO_MUST_CHECK __attribute__((warn_unused_result))
#define LMO_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Sets *err (if not NULL) and returns `code`, so that `return lmo_fail(err, LMO_E_X, "...")` reads well. */
int lmo_fail(struct lmo_err *err, int code, const char *fmt, ...) LMO_PRINTF(3, 4);

/* Puts "prefix: " before the text already in *err; returns err's code (or LMO_E_INTERNAL if err is NULL). */
int lmo_err_prefix(struct lmo_err *err, const char *fmt, ...) LMO_PRINTF(2, 3);

/* Table look-ups; unknown codes map to INTERNAL's row. The returned strings are static. */
const char *lmo_err_name(int code);
int lmo_err_http(int code);
enum lmo_err_class lmo_err_class_of(int code);
/* Inverse of lmo_err_name; LMO_E_INTERNAL for a text that is not in the table. */
int lmo_err_from_name(const char *name);

#endif
