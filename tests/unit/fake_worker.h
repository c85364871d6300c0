/* fake_worker.h - certificates and a worker's HTTP side for tests: a real TLS server with a scripted handler, behind
 * a small TCP relay that can cut every connection at a chosen moment or refuse new ones. Used by test_rpc.c and
 * test_api.c. */
#ifndef LMO_TESTS_FAKE_WORKER_H
#define LMO_TESTS_FAKE_WORKER_H

#include "http/client.h"
#include "http/server.h"
#include "pki/ca.h"

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ------------------------------------------------------------------ certificates */

static char fake_pki_dir[64];

static inline void fake_pki_set_up(void)
{
    struct lmo_err err = {0};
    strcpy(fake_pki_dir, "/tmp/lmo-fake-pki-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(fake_pki_dir));
    ck_assert_msg(lmo_pki_init(fake_pki_dir, &err) == 0, "%s", err.text);
}

static inline void fake_pki_tear_down(void)
{
    char command[96];
    ck_assert(strncmp(fake_pki_dir, "/tmp/lmo-fake-pki-", 18) == 0);
    snprintf(command, sizeof(command), "rm -rf '%s'", fake_pki_dir);
    ck_assert_int_eq(system(command), 0);
}

static inline struct lmo_tls_files fake_pki_issue(enum lmo_role role, const char *name)
{
    struct lmo_err err = {0};
    struct lmo_pki_request request = {.role = role, .address_count = 1, .addresses = {"127.0.0.1"}};
    struct lmo_pki_issued issued;
    struct lmo_tls_files files = {0};
    snprintf(request.name, sizeof(request.name), "%s", name);
    ck_assert_msg(lmo_pki_issue(fake_pki_dir, &request, &issued, &err) == 0, "%s", err.text);
    snprintf(files.ca, sizeof(files.ca), "%s/ca.pem", fake_pki_dir);
    snprintf(files.crl, sizeof(files.crl), "%s/crl.pem", fake_pki_dir);
    snprintf(files.cert, sizeof(files.cert), "%s", issued.certificate);
    snprintf(files.key, sizeof(files.key), "%s", issued.key);
    return files;
}

/* ------------------------------------------------------------------ the relay */

#define RELAY_MAX 64

struct relay {
    int listener, commands[2];
    uint16_t port, to_port;
    pthread_t thread;
    struct {
        int client, server;
    } pair[RELAY_MAX];
    unsigned count;
    bool refuse;
};

static inline void relay_close_pair(struct relay *r, unsigned i)
{
    /* A reset, not an orderly end: what a crashed host or a firewall makes of it. */
    struct linger now = {1, 0};
    setsockopt(r->pair[i].client, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(r->pair[i].client);
    close(r->pair[i].server);
    r->pair[i] = r->pair[--r->count];
}

static inline bool relay_copy(int from, int to)
{
    char buf[16384];
    ssize_t n = read(from, buf, sizeof(buf));
    return n > 0 && send(to, buf, (size_t)n, MSG_NOSIGNAL) == n;
}

static inline void relay_accept(struct relay *r)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(r->to_port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int client = accept(r->listener, NULL, NULL), server = socket(AF_INET, SOCK_STREAM, 0);
    if (client < 0 || r->refuse || r->count == RELAY_MAX || connect(server, (struct sockaddr *)&to, sizeof(to)) < 0) {
        close(client);
        close(server);
        return;
    }
    r->pair[r->count].client = client;
    r->pair[r->count++].server = server;
}

static inline void *relay_run(void *arg)
{
    struct relay *r = arg;
    for (;;) {
        struct pollfd fds[2 + 2 * RELAY_MAX] = {{r->listener, POLLIN, 0}, {r->commands[0], POLLIN, 0}};
        unsigned count = r->count;
        for (unsigned i = 0; i < count; i++) {
            fds[2 + 2 * i] = (struct pollfd){r->pair[i].client, POLLIN, 0};
            fds[3 + 2 * i] = (struct pollfd){r->pair[i].server, POLLIN, 0};
        }
        poll(fds, 2 + 2 * count, -1);
        for (unsigned i = count; i-- > 0;) {
            bool ok = (!fds[2 + 2 * i].revents || relay_copy(r->pair[i].client, r->pair[i].server)) &&
                      (!fds[3 + 2 * i].revents || relay_copy(r->pair[i].server, r->pair[i].client));
            if (!ok) {
                relay_close_pair(r, i);
            }
        }
        if (fds[0].revents) {
            relay_accept(r);
        }
        char command = 0;
        if (fds[1].revents && read(r->commands[0], &command, 1) == 1) {
            while (r->count > 0) {
                relay_close_pair(r, 0);
            }
            r->refuse = command == 'r' || (r->refuse && command == 'c');
            if (command == 'q') {
                return NULL;
            }
        }
    }
}

static inline void relay_start(struct relay *r, uint16_t to_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    memset(r, 0, sizeof(*r));
    r->to_port = to_port;
    r->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(r->listener, (struct sockaddr *)&at, len), 0);
    ck_assert_int_eq(listen(r->listener, 64), 0);
    ck_assert_int_eq(getsockname(r->listener, (struct sockaddr *)&at, &len), 0);
    r->port = ntohs(at.sin_port);
    ck_assert_int_eq(pipe2(r->commands, O_CLOEXEC), 0);
    ck_assert_int_eq(pthread_create(&r->thread, NULL, relay_run, r), 0);
}

/* 'c' cut all, 'r' cut all and refuse, 'a' accept again, 'q' quit. */
static inline void relay_command(struct relay *r, char command)
{
    ck_assert_int_eq(write(r->commands[1], &command, 1), 1);
}

static inline void relay_stop(struct relay *r)
{
    relay_command(r, 'q');
    pthread_join(r->thread, NULL);
    close(r->listener);
    close(r->commands[0]);
    close(r->commands[1]);
}

#endif
