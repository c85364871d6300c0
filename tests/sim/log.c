/* log.c - base/log.h for simulated processes: lines go to the trace, if there is one; errors are remembered. */
#include "base/log.h"
#include "sim.h"

#include <stdio.h>
#include <string.h>

static enum lmo_log_level level = LMO_LOG_INFO;
static sim_log_fn *listener;

void sim_set_on_log(sim_log_fn *fn)
{
    listener = fn;
}

void lmo_log_set_level(enum lmo_log_level l)
{
    level = l;
}

void lmo_log_set_json(bool json)
{
    (void)json;
}

void lmo_log_set_fd(int fd)
{
    (void)fd;
}

int lmo_log_open_file(const char *path, struct lmo_err *err)
{
    return lmo_fail(err, LMO_E_UNSUPPORTED, "%s: simulated processes have no log files", path);
}

int lmo_log_level_from_name(const char *name, enum lmo_log_level *ret_level)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (unsigned i = 0; i < 4; i++) {
        if (strcmp(names[i], name) == 0) {
            *ret_level = (enum lmo_log_level)i;
            return 0;
        }
    }
    return LMO_E_INVALID;
}

bool lmo_log_enabled(enum lmo_log_level l)
{
    return l >= LMO_LOG_ERROR || (listener && l == LMO_LOG_INFO) || (sim_tracing && l >= level);
}

void lmo_log_write(enum lmo_log_level l, const char *event, const char *fmt, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    struct sim_process *p = sim_current();
    if (p && l == LMO_LOG_ERROR) {
        snprintf(p->last_error, sizeof p->last_error, "%s", event);
    }
    bool heard = listener && l == LMO_LOG_INFO && strcmp(event, "migration") == 0;
    if (!sim_tracing && !heard) {
        return;
    }
    char text[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (heard) {
        listener(text);
    }
    if (!sim_tracing) {
        return;
    }
    sim_trace_line("  %s: %s %s", names[l], event, text);
}
