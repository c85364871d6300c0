/* service.c - see service.h. */
#include "base/service.h"

#include "base/clock.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@')) {
        return;
    }
    memcpy(to.sun_path, path, len);
    if (path[0] == '@') {
        to.sun_path[0] = '\0'; /* the abstract name space */
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) {
        (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to,
                     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
        (void)close(fd);
    }
}

void lmo_service_ready(void)
{
    tell("READY=1");
}

void lmo_service_reloading(void)
{
    char state[64];
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    (void)snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
                   (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
    tell(state);
}

static void end(int signal)
{
    (void)signal;
    _exit(0);
}

void lmo_service_stopping(void)
{
    struct sigaction action = {.sa_handler = end};
    sigset_t set;
    tell("STOPPING=1");
    (void)sigaction(SIGALRM, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    (void)alarm(LMO_SERVICE_END_S);
}

void lmo_service_status(const char *fmt, ...)
{
    static char last[LMO_SERVICE_STATUS_MAX];
    char state[LMO_SERVICE_STATUS_MAX] = "STATUS=";
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(state + 7, sizeof state - 7, fmt, ap);
    va_end(ap);
    for (char *c = state; *c; c++) {
        *c = *c == '\n' || *c == '\r' ? ' ' : *c;
    }
    if (strcmp(state, last) != 0) {
        memcpy(last, state, sizeof last);
        tell(state);
    }
}

void lmo_service_alive(void)
{
    tell("WATCHDOG=1");
}

uint64_t lmo_service_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!usec || !getenv("NOTIFY_SOCKET") || (pid && strtol(pid, NULL, 10) != (long)getpid())) {
        return 0;
    }
    uint64_t ms = strtoull(usec, NULL, 10) / 3000;
    return usec[0] == '0' ? 0 : ms > 0 ? ms : 1;
}
