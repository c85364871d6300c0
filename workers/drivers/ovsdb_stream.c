/* ovsdb_stream.c - connections to Open vSwitch's remotes; see ovsdb_stream.h. */
#include "workers/drivers/ovsdb_stream.h"

#include "base/clock.h"
#include "base/types.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct address {
    struct sockaddr_storage sa;
    socklen_t len;
};

static int poll_ms(uint64_t deadline_ns)
{
    uint64_t ms = lmo_ms_until(deadline_ns);
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

static int parse_unix(const char *remote, const char *path, struct address *ret, struct lmo_err *err)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof un.sun_path)
        return lmo_fail(err, LMO_E_INVALID, "remote '%s': a socket's path has 1 to %zu characters", remote,
                        sizeof un.sun_path - 1);
    memcpy(un.sun_path, path, len + 1);
    memcpy(&ret->sa, &un, sizeof un);
    ret->len = sizeof un;
    return 0;
}

/* Splits "HOST:PORT" or "[V6]:PORT". */
static int split_tcp(const char *remote, const char *text, char *host, size_t host_size, char *port, size_t port_size,
                     struct lmo_err *err)
{
    const char *colon = strrchr(text, ':');
    const char *start = text, *end = colon;
    if (colon && text[0] == '[' && colon > text + 1 && colon[-1] == ']') {
        start = text + 1;
        end = colon - 1;
    }
    size_t port_len = colon ? strlen(colon + 1) : 0;
    if (!colon || end <= start || (size_t)(end - start) >= host_size || port_len == 0 || port_len >= port_size ||
        strspn(colon + 1, "0123456789") != port_len)
        return lmo_fail(err, LMO_E_INVALID, "remote '%s': tcp:HOST:PORT expected", remote);
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = '\0';
    memcpy(port, colon + 1, port_len + 1);
    return 0;
}

static int parse(const char *remote, bool resolve, struct address *ret, struct lmo_err *err)
{
    if (strncmp(remote, "unix:", 5) == 0)
        return parse_unix(remote, remote + 5, ret, err);
    if (strncmp(remote, "ssl:", 4) == 0)
        return lmo_fail(err, LMO_E_UNSUPPORTED, "remote '%s': ssl is not supported yet; use tcp or unix", remote);
    if (strncmp(remote, "tcp:", 4) != 0)
        return lmo_fail(err, LMO_E_INVALID, "remote '%s': unix:PATH or tcp:HOST:PORT expected", remote);
    char host[LMO_URL_MAX], port[6];
    int r = split_tcp(remote, remote + 4, host, sizeof host, port, sizeof port, err);
    if (r < 0 || !resolve)
        return r;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    int g = getaddrinfo(host, port, &hints, &list);
    if (g != 0)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "remote '%s': %s", remote, gai_strerror(g));
    memcpy(&ret->sa, list->ai_addr, list->ai_addrlen);
    ret->len = list->ai_addrlen;
    freeaddrinfo(list);
    return 0;
}

int lmo_ovsdb_stream_check(const char *remote, struct lmo_err *err)
{
    struct address ignored;
    return parse(remote, false, &ignored, err);
}

static int await_connected(const char *remote, int fd, uint64_t deadline_ns, int cancel_fd, struct lmo_err *err)
{
    struct pollfd p[2] = {{.fd = fd, .events = POLLOUT}, {.fd = cancel_fd, .events = POLLIN}};
    int n;
    do
        n = poll(p, 2, poll_ms(deadline_ns));
    while (n < 0 && errno == EINTR);
    if (p[1].revents)
        return lmo_fail(err, LMO_E_CANCELLED, "connection to '%s' given up", remote);
    if (n <= 0)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "remote '%s': no answer", remote);
    int problem = 0;
    socklen_t len = sizeof problem;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &len) < 0)
        problem = errno;
    if (problem != 0)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "remote '%s': %s", remote, strerror(problem));
    return 0;
}

static int connect_to(const char *remote, int fd, const struct address *a, uint64_t deadline_ns, int cancel_fd,
                      struct lmo_err *err)
{
    if (a->sa.ss_family != AF_UNIX) {
        /* Small messages that somebody waits for: never held back for a fuller packet. */
        int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (connect(fd, (const struct sockaddr *)&a->sa, a->len) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "remote '%s': %s", remote, strerror(errno));
    return await_connected(remote, fd, deadline_ns, cancel_fd, err);
}

int lmo_ovsdb_stream_connect(const char *remote, uint64_t deadline_ns, int cancel_fd, int *ret_fd, struct lmo_err *err)
{
    struct address a = {.len = 0};
    int r = parse(remote, true, &a, err);
    if (r < 0)
        return r;
    int fd = socket(a.sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return lmo_fail(err, LMO_E_UNAVAILABLE, "remote '%s': no socket: %s", remote, strerror(errno));
    r = connect_to(remote, fd, &a, deadline_ns, cancel_fd, err);
    if (r < 0)
        close(fd);
    else
        *ret_fd = fd;
    return r;
}
