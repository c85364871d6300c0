/*
 * streamd PORT PERIOD_MS
 *
 * TCP server for probes. A client gets one greeting line
 *
 *   LMO-GUEST 1 boot=BOOT_ID
 *
 * and then one line every PERIOD_MS:
 *
 *   N TICK DISK_SEQ DISK_ERRORS DISK_CONFLICTS MEMORY_ERRORS DIRTY_PAGES GUEST_NS
 *
 * N counts the lines of this connection from 0 without a gap (a client that
 * reads slowly gets them later, never fewer); TICK counts the guest's ticks
 * since boot, so it advances exactly while the guest runs.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "shared.h"

#define CLIENTS_MAX 32

struct client {
    int fd;         /* -1: free */
    uint64_t lines; /* lines formatted so far */
    char out[256];  /* the line under way */
    size_t len, sent;
};

static struct client clients[CLIENTS_MAX];
static char boot_id[64];

static void client_close(struct client *c)
{
    close(c->fd);
    c->fd = -1;
}

/* Sends what is pending. Returns 1 when nothing is left, 0 when the socket is
 * full, -1 when the connection ended. */
static int client_flush(struct client *c)
{
    while (c->sent < c->len) {
        ssize_t n = send(c->fd, c->out + c->sent, c->len - c->sent, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        c->sent += (size_t)n;
    }
    return 1;
}

static void client_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    for (struct client *c = clients; c < clients + CLIENTS_MAX; c++) {
        if (c->fd >= 0)
            continue;
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        c->fd = fd;
        c->lines = 0;
        c->sent = 0;
        c->len = (size_t)snprintf(c->out, sizeof(c->out), "LMO-GUEST 1 boot=%s\n", boot_id);
        if (client_flush(c) < 0)
            client_close(c);
        return;
    }
    close(fd);
}

static void client_tick(struct client *c, const struct shared *s, uint64_t tick)
{
    int rc = client_flush(c);
    if (rc == 1) {
        c->sent = 0;
        c->len = (size_t)snprintf(c->out, sizeof(c->out), "%llu %llu %llu %llu %llu %llu %llu %llu\n",
                                  (unsigned long long)c->lines++, (unsigned long long)tick,
                                  (unsigned long long)atomic_load(&s->disk_seq),
                                  (unsigned long long)atomic_load(&s->disk_errors),
                                  (unsigned long long)atomic_load(&s->disk_conflicts),
                                  (unsigned long long)atomic_load(&s->memory_errors),
                                  (unsigned long long)atomic_load(&s->dirty_pages), (unsigned long long)now_ns());
        rc = client_flush(c);
    }
    if (rc < 0)
        client_close(c);
}

static int listen_on(unsigned long port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 || listen(fd, 16) != 0) {
        perror("streamd: listen");
        exit(1);
    }
    return fd;
}

int main(int argc, char *argv[])
{
    if (argc != 3) {
        fprintf(stderr, "usage: streamd PORT PERIOD_MS\n");
        return 2;
    }
    unsigned long period_ms = parse_number(argv[2], "period");
    struct shared *shared = shared_map();
    setpriority(PRIO_PROCESS, 0, -15);

    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, boot_id, sizeof(boot_id) - 1);
    if (n < 36) {
        perror("boot_id");
        return 1;
    }
    boot_id[36] = '\0';
    close(fd);
    for (struct client *c = clients; c < clients + CLIENTS_MAX; c++)
        c->fd = -1;

    int listener = listen_on(parse_number(argv[1], "port"));
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct timespec period = {.tv_sec = (time_t)(period_ms / 1000), .tv_nsec = (long)(period_ms % 1000 * 1000000)};
    struct itimerspec spec = {.it_interval = period, .it_value = period};
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event on_timer = {.events = EPOLLIN, .data.fd = timer};
    struct epoll_event on_listener = {.events = EPOLLIN, .data.fd = listener};
    if (timer < 0 || timerfd_settime(timer, 0, &spec, NULL) != 0 || poll < 0 ||
        epoll_ctl(poll, EPOLL_CTL_ADD, timer, &on_timer) != 0 ||
        epoll_ctl(poll, EPOLL_CTL_ADD, listener, &on_listener) != 0) {
        perror("streamd");
        return 1;
    }

    for (uint64_t tick = 0;;) {
        struct epoll_event event;
        if (epoll_wait(poll, &event, 1, -1) != 1)
            continue;
        if (event.data.fd == listener) {
            client_accept(listener);
            continue;
        }
        uint64_t expired;
        if (read(timer, &expired, sizeof(expired)) != sizeof(expired))
            continue;
        tick++; /* one line even when several periods were missed */
        for (struct client *c = clients; c < clients + CLIENTS_MAX; c++)
            if (c->fd >= 0)
                client_tick(c, shared, tick);
    }
}
