/* nbdwire.h - the NBD protocol's numbers, and a client of a few lines that blocks with a deadline.
 *
 * For test tools and tests only: it says exactly what goes over the wire, which a library would hide. Newstyle fixed
 * negotiation, NBD_OPT_GO, simple replies (structured ones are not asked for). Source: the NBD protocol document. */
#ifndef LMO_TESTS_NBDWIRE_H
#define LMO_TESTS_NBDWIRE_H

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define NBDW_MAGIC                  0x4e42444d41474943u /* "NBDMAGIC" */
#define NBDW_OPTION_MAGIC           0x49484156454f5054u /* "IHAVEOPT" */
#define NBDW_OPTION_REPLY_MAGIC     0x3e889045565a9u
#define NBDW_REQUEST_MAGIC          0x25609513u
#define NBDW_SIMPLE_REPLY_MAGIC     0x67446698u
#define NBDW_STRUCTURED_REPLY_MAGIC 0x668e33efu
#define NBDW_FLAG_FIXED_NEWSTYLE    1u
#define NBDW_FLAG_NO_ZEROES         2u
#define NBDW_OPT_EXPORT_NAME        1u
#define NBDW_OPT_ABORT              2u
#define NBDW_OPT_STARTTLS           5u
#define NBDW_OPT_INFO               6u
#define NBDW_OPT_GO                 7u
#define NBDW_OPT_STRUCTURED_REPLY   8u
#define NBDW_OPT_EXTENDED_HEADERS   11u
#define NBDW_REP_ACK                1u
#define NBDW_REP_INFO               3u
#define NBDW_REP_ERROR              0x80000000u
#define NBDW_CMD_READ               0u
#define NBDW_CMD_WRITE              1u
#define NBDW_CMD_DISC               2u
#define NBDW_CMD_FLUSH              3u
#define NBDW_CMD_TRIM               4u
#define NBDW_CMD_WRITE_ZEROES       6u
#define NBDW_REQUEST_SIZE           28u
#define NBDW_SIMPLE_REPLY_SIZE      16u
#define NBDW_STRUCTURED_REPLY_SIZE  20u
#define NBDW_REPLY_FLAG_DONE        1u
#define NBDW_REPLY_TYPE_ERROR       0x8000u /* this bit: an error chunk */

static inline uint16_t nbdw_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t nbdw_get32(const uint8_t *p)
{
    return (uint32_t)nbdw_get16(p) << 16 | nbdw_get16(p + 2);
}
static inline uint64_t nbdw_get64(const uint8_t *p)
{
    return (uint64_t)nbdw_get32(p) << 32 | nbdw_get32(p + 4);
}
static inline void nbdw_put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void nbdw_put32(uint8_t *p, uint32_t v)
{
    nbdw_put16(p, (uint16_t)(v >> 16));
    nbdw_put16(p + 2, (uint16_t)v);
}
static inline void nbdw_put64(uint8_t *p, uint64_t v)
{
    nbdw_put32(p, (uint32_t)(v >> 32));
    nbdw_put32(p + 4, (uint32_t)v);
}

static inline void nbdw_request(uint8_t ret[NBDW_REQUEST_SIZE], uint16_t type, uint64_t cookie, uint64_t offset,
                                uint32_t length)
{
    nbdw_put32(ret, NBDW_REQUEST_MAGIC);
    nbdw_put16(ret + 4, 0);
    nbdw_put16(ret + 6, type);
    nbdw_put64(ret + 8, cookie);
    nbdw_put64(ret + 16, offset);
    nbdw_put32(ret + 24, length);
}

/* Connects to "HOST:PORT" or, if there is a slash in it, to a UNIX socket; 5 s for every later operation. -1: errno. */
static inline int nbdw_connect(const char *address)
{
    int fd = -1;
    struct timeval limit = {.tv_sec = 5};
    if (strchr(address, '/')) {
        struct sockaddr_un sun = {.sun_family = AF_UNIX};
        snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", address);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof(sun)) != 0) {
            close(fd);
            return -1;
        }
    } else {
        char host[256];
        const char *colon = strrchr(address, ':');
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
        struct addrinfo *found = NULL;
        if (!colon || (size_t)(colon - address) >= sizeof(host)) {
            errno = EINVAL;
            return -1;
        }
        memcpy(host, address, (size_t)(colon - address));
        host[colon - address] = '\0';
        if (getaddrinfo(host, colon + 1, &hints, &found) != 0) {
            errno = EINVAL;
            return -1;
        }
        fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int one = 1;
        if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0 ||
                        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
                        connect(fd, found->ai_addr, found->ai_addrlen) != 0)) {
            close(fd);
            fd = -1;
        }
        freeaddrinfo(found);
    }
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    }
    return fd;
}

static inline bool nbdw_send(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

/* False at the end of the stream too; then errno is 0. */
static inline bool nbdw_recv(int fd, void *data, size_t len)
{
    char *p = data;
    while (len > 0) {
        ssize_t n = recv(fd, p, len, 0);
        if (n <= 0) {
            if (n == 0)
                errno = 0;
            return false;
        }
        p += n;
        len -= (size_t)n;
    }
    return true;
}

/* Negotiates up to the transmission phase. 0; or the server's NBD_REP_ERR_* (positive as a negative int would not
 * hold it: the low 31 bits); or -1 when the connection broke. ret_size may be NULL. */
static inline int nbdw_go(int fd, const char *export_name, uint64_t *ret_size)
{
    uint8_t buf[512];
    uint32_t name_len = (uint32_t)strlen(export_name);
    if (!nbdw_recv(fd, buf, 18) || nbdw_get64(buf) != NBDW_MAGIC || nbdw_get64(buf + 8) != NBDW_OPTION_MAGIC)
        return -1;
    nbdw_put32(buf, NBDW_FLAG_FIXED_NEWSTYLE | NBDW_FLAG_NO_ZEROES);
    nbdw_put64(buf + 4, NBDW_OPTION_MAGIC);
    nbdw_put32(buf + 12, NBDW_OPT_GO);
    nbdw_put32(buf + 16, 4 + name_len + 2);
    nbdw_put32(buf + 20, name_len);
    if (name_len > 256 || !nbdw_send(fd, buf, 24) || !nbdw_send(fd, export_name, name_len))
        return -1;
    nbdw_put16(buf, 0);
    if (!nbdw_send(fd, buf, 2))
        return -1;
    for (;;) {
        uint8_t head[20];
        if (!nbdw_recv(fd, head, sizeof(head)) || nbdw_get64(head) != NBDW_OPTION_REPLY_MAGIC)
            return -1;
        uint32_t type = nbdw_get32(head + 12);
        uint32_t len = nbdw_get32(head + 16);
        if (len > sizeof(buf) || !nbdw_recv(fd, buf, len))
            return -1;
        if (type & NBDW_REP_ERROR)
            return (int)(type & ~NBDW_REP_ERROR);
        if (type == NBDW_REP_INFO && len >= 12 && nbdw_get16(buf) == 0 && ret_size)
            *ret_size = nbdw_get64(buf + 2);
        if (type == NBDW_REP_ACK)
            return 0;
    }
}

/* One request and its simple reply. 0; a positive NBD error; -1 when the connection broke (errno 0: closed). */
static inline int nbdw_io(int fd, uint16_t type, uint64_t offset, void *data, uint32_t len)
{
    uint8_t buf[NBDW_REQUEST_SIZE];
    nbdw_request(buf, type, 1, offset, len);
    if (!nbdw_send(fd, buf, sizeof(buf)) || (type == NBDW_CMD_WRITE && !nbdw_send(fd, data, len)))
        return -1;
    if (!nbdw_recv(fd, buf, NBDW_SIMPLE_REPLY_SIZE) || nbdw_get32(buf) != NBDW_SIMPLE_REPLY_MAGIC)
        return -1;
    int error = (int)nbdw_get32(buf + 4);
    if (error == 0 && type == NBDW_CMD_READ && !nbdw_recv(fd, data, len))
        return -1;
    return error;
}

#endif
