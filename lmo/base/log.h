/* log.h - one line per event on standard error, as key=value or as JSON.
 *
 *     lmo_log(LMO_LOG_INFO, "phase entered", "migration=%s phase=%s attempt=%u", id, phase, attempt);
 *     ts=2026-01-31T12:34:56.123456Z level=info event="phase entered" migration=01J... phase=precopy attempt=2
 *
 * The format is a list of key=value pairs, separated by single spaces; it is checked by the compiler like printf's.
 * Each value is formatted on its own and then quoted and escaped as needed, so no value can forge a key or a line.
 * A value may mix text and conversions ("peer=%s:%u"). %n, %ls and %lc are not understood.
 * With JSON, a value that is exactly one integer or floating-point conversion becomes a number.
 *
 * Thread-safe: a line is one write(2), cut at LMO_LOG_LINE_MAX with `truncated=true`. Never log a secret: no keys,
 * tokens, certificates' private parts or request bodies. The layer that handles an error logs it, once. */
#ifndef LMO_BASE_LOG_H
#define LMO_BASE_LOG_H

#include "base/err.h"

#include <stdbool.h>

#define LMO_LOG_LINE_MAX 4096

enum lmo_log_level {
    LMO_LOG_DEBUG = 0,
    LMO_LOG_INFO,
    LMO_LOG_WARN,  /* something unexpected that was handled */
    LMO_LOG_ERROR, /* a person should look */
};

/* Process-wide settings, made once in main(); later calls are safe too. Default: INFO, key=value, fd 2. */
void lmo_log_set_level(enum lmo_log_level level);
void lmo_log_set_json(bool json);
void lmo_log_set_fd(int fd);
/* From now on lines go to this file, made if it is missing (mode 0640), appended to. Called again for the same file it opens it
 * anew: after a rotation has renamed the old one. On failure what was in force stays. */
int lmo_log_open_file(const char *path, struct lmo_err *err) LMO_MUST_CHECK;
/* "debug", "info", "warn", "error" -> level; LMO_E_INVALID otherwise. */
int lmo_log_level_from_name(const char *name, enum lmo_log_level *ret_level) LMO_MUST_CHECK;

bool lmo_log_enabled(enum lmo_log_level level);

/* `event` is a fixed text without variables (people search for it); `fmt` may be "" for no pairs. */
void lmo_log_write(enum lmo_log_level level, const char *event, const char *fmt, ...) LMO_PRINTF(3, 4);

/* Arguments are not evaluated when the level is off. */
#define lmo_log(level, event, ...) (lmo_log_enabled(level) ? lmo_log_write((level), (event), __VA_ARGS__) : (void)0)

#endif
