/* hypervisor_libvirt_address.c - see the header. */
#include "workers/drivers/hypervisor_libvirt_address.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <libxml/uri.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void cleanup_uri(xmlURI **uri)
{
    if (*uri)
        xmlFreeURI(*uri);
}

int lmo_address_parse(const char *uri, struct lmo_address *ret, struct lmo_err *err)
{
    char text[LMO_URL_MAX + 4];
    bool old = strncmp(uri, "tcp:", 4) == 0 && strncmp(uri, "tcp://", 6) != 0;
    int n = snprintf(text, sizeof text, old ? "tcp://%s" : "%s", old ? uri + 4 : uri);
    LMO_CLEANUP(cleanup_uri) xmlURI *u = n > 0 && (size_t)n < sizeof text ? xmlParseURI(text) : NULL;
    if (!u || !u->scheme || strlen(u->scheme) >= sizeof ret->scheme || u->port > UINT16_MAX)
        return lmo_fail(err, LMO_E_INVALID, "'%.150s' is not a URI", uri);
    struct lmo_address a = {.port = u->port > 0 ? (uint16_t)u->port : 0};
    memcpy(a.scheme, u->scheme, strlen(u->scheme) + 1);
    const char *host = u->server ? u->server : "";
    size_t len = strlen(host);
    if (host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    }
    if (len >= sizeof a.host)
        return lmo_fail(err, LMO_E_INVALID, "'%.150s': the host's name is too long", uri);
    memcpy(a.host, host, len);
    a.host[len] = '\0';
    *ret = a;
    return 0;
}

uint16_t lmo_address_hypervisor_port(const struct lmo_address *a)
{
    static const struct {
        const char *transport;
        uint16_t port; /* libvirt's defaults */
    } known[] = {{"tls", 16514}, {"tcp", 16509}, {"ssh", 22}, {"libssh", 22}, {"libssh2", 22}};
    const char *plus = strchr(a->scheme, '+'), *transport = plus ? plus + 1 : "tls";
    if (!a->host[0])
        return 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(transport, known[i].transport) == 0)
            return a->port ? a->port : known[i].port;
    return 0;
}

static int resolve(const char *host, uint16_t port, int type, struct addrinfo **ret, struct lmo_err *err)
{
    char service[8];
    struct addrinfo hints = {.ai_socktype = type, .ai_flags = AI_NUMERICSERV};
    (void)snprintf(service, sizeof service, "%u", port);
    int e = getaddrinfo(host, service, &hints, ret);
    if (e == EAI_MEMORY)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    return e == 0 ? 0 : lmo_fail(err, LMO_E_REFUSED, "%.150s cannot be resolved: %s", host, gai_strerror(e));
}

/* 0 or the errno that the connection got; ETIMEDOUT at the deadline. */
static int connect_until(int fd, const struct addrinfo *a, uint64_t deadline_ns)
{
    if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        uint64_t left_ms = lmo_ms_until(deadline_ns);
        if (left_ms == 0)
            return ETIMEDOUT;
        int n = poll(&p, 1, left_ms > INT32_MAX ? INT32_MAX : (int)left_ms);
        if (n < 0 && errno != EINTR)
            return errno;
        if (n > 0) {
            int got = 0;
            socklen_t size = sizeof got;
            return getsockopt(fd, SOL_SOCKET, SO_ERROR, &got, &size) < 0 ? errno : got;
        }
    }
}

int lmo_reach_tcp(const char *host, uint16_t port, bool listener, uint64_t timeout_ms, struct lmo_err *err)
{
    uint64_t deadline_ns = lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;
    struct addrinfo *list = NULL;
    int r = resolve(host, port, SOCK_STREAM, &list, err);
    if (r < 0)
        return r;
    int got = ETIMEDOUT;
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
        LMO_AUTO_CLOSE int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 && errno != EAFNOSUPPORT) {
            r = lmo_fail(err, LMO_E_LIMIT, "no socket to look whether %.150s is reached: %s", host, strerror(errno));
            break;
        }
        got = fd < 0 ? EAFNOSUPPORT : connect_until(fd, a, deadline_ns);
        if (got == 0 || (got == ECONNREFUSED && !listener)) {
            freeaddrinfo(list);
            return 0;
        }
    }
    freeaddrinfo(list);
    if (r < 0)
        return r;
    if (got == ETIMEDOUT)
        return lmo_fail(err, LMO_E_REFUSED, "%.150s does not answer at port %u within %llu ms", host, port,
                        (unsigned long long)timeout_ms);
    return lmo_fail(err, LMO_E_REFUSED, "%.150s cannot be reached at port %u: %s", host, port, strerror(got));
}

int lmo_reach_route(const char *host, struct lmo_err *err)
{
    struct addrinfo *list = NULL;
    int r = resolve(host, 9, SOCK_DGRAM, &list, err); /* whichever port: connecting a datagram socket sends nothing */
    if (r < 0)
        return r;
    int got = EHOSTUNREACH;
    for (const struct addrinfo *a = list; a && got != 0; a = a->ai_next) {
        LMO_AUTO_CLOSE int fd = socket(a->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        got = fd < 0 || connect(fd, a->ai_addr, a->ai_addrlen) < 0 ? errno : 0;
    }
    freeaddrinfo(list);
    return got == 0 ? 0 : lmo_fail(err, LMO_E_REFUSED, "this host has no way to %.150s: %s", host, strerror(got));
}
