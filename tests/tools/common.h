/* common.h - what the test tools share: clocks, an orderly end on SIGINT and SIGTERM, JSON on standard output.
 *
 * Each tool is one program of one file. Data goes to standard output as one JSON object, messages to standard error.
 * Exit codes: 0 what was asked for was done; 1 it could not be; 2 wrong usage (argp's own: 64). */
#ifndef LMO_TESTS_TOOLS_COMMON_H
#define LMO_TESTS_TOOLS_COMMON_H

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define TOOL_NS_PER_MS UINT64_C(1000000)
#define TOOL_NS_PER_S  UINT64_C(1000000000)

__attribute__((noreturn, format(printf, 1, 2))) static inline void tool_die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static inline uint64_t tool_clock_ns(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * TOOL_NS_PER_S + (uint64_t)ts.tv_nsec;
}

static inline uint64_t tool_now_ns(void)
{
    return tool_clock_ns(CLOCK_MONOTONIC);
}
static inline uint64_t tool_realtime_us(void)
{
    return tool_clock_ns(CLOCK_REALTIME) / 1000;
}

/* A descriptor that becomes readable at SIGINT or SIGTERM. Call before any thread is started. */
static inline int tool_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
        tool_die("cannot block signals");
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        tool_die("signalfd: %s", strerror(errno));
    return fd;
}

/* A decimal number from min to max; exits with a message that names `what` otherwise. */
static inline uint64_t tool_number(const char *text, const char *what, uint64_t min, uint64_t max)
{
    char *end = NULL;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *text == '-' || value < min || value > max) {
        fprintf(stderr, "%s: %s must be a number from %" PRIu64 " to %" PRIu64 ", not '%s'\n",
                program_invocation_short_name, what, min, max, text);
        exit(2);
    }
    return value;
}

/* Seconds with a fraction ("2.5") as nanoseconds. */
static inline uint64_t tool_seconds(const char *text, const char *what)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0) || value > 1e6) {
        fprintf(stderr, "%s: %s must be a number of seconds, not '%s'\n", program_invocation_short_name, what, text);
        exit(2);
    }
    return (uint64_t)(value * 1e9);
}

static inline double tool_ms(uint64_t ns)
{
    return (double)(ns / 1000) / 1000.0;
}

static inline void tool_put(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0)
        tool_die("out of memory");
}

static inline json_t *tool_u64(uint64_t value)
{
    return json_integer((json_int_t)value);
}

/* One object, one line or indented, then flushed. Takes `root`. */
static inline void tool_print(json_t *root, FILE *to, bool compact)
{
    if (json_dumpf(root, to, (compact ? JSON_COMPACT : JSON_INDENT(2)) | JSON_REAL_PRECISION(10)) != 0 ||
        fputc('\n', to) == EOF || fflush(to) != 0)
        tool_die("cannot write the report");
    json_decref(root);
}

#endif
