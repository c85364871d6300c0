/* scripted_switch.h - an OpenFlow 1.4 switch for unit tests: a thread behind a unix socket with a table of flows that
 * the test sets, and a record of what it was sent. Written from the specification, apart from the code under test. */
#ifndef LMO_TESTS_UNIT_SCRIPTED_SWITCH_H
#define LMO_TESTS_UNIT_SCRIPTED_SWITCH_H

#include "base/buf.h"

#include <arpa/inet.h>
#include <check.h>
#include <endian.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SCRIPTED_FLOWS_MAX 16
#define SCRIPTED_SENT_MAX  32

struct scripted_flow {
    uint8_t table;
    uint16_t priority;
    uint64_t cookie, packets;
    uint32_t in_port; /* 0: not matched on */
    bool forwards;    /* has instructions */
};

/* A packet-out (type 13) or flow removal (type 14) that the switch received, in order. */
struct scripted_sent {
    uint8_t type, table;
    uint16_t priority;
    uint32_t in_port;
    uint64_t cookie;
    uint8_t frame[64];
};

struct scripted_switch {
    char path[64], remote[80];
    pthread_t thread;
    int listener;
    pthread_mutex_t lock;
    int fd; /* the present connection, -1 */
    bool refuse, echo_replied;
    bool hang_up_on_barrier; /* once */
    uint8_t version;
    unsigned subscriptions; /* asked for so far */
    uint32_t shut_port;     /* has been told not to forward; 0: none */
    unsigned shut_count;    /* how often any was */
    struct scripted_flow flows[SCRIPTED_FLOWS_MAX];
    size_t flow_count;
    struct scripted_sent sent[SCRIPTED_SENT_MAX];
    size_t sent_count;
};

static inline void scripted_put(struct lmo_buf *b, uint64_t value, size_t bytes)
{
    for (size_t i = bytes; i > 0; i--) {
        uint8_t byte = i > sizeof value ? 0 : (uint8_t)(value >> (8 * (i - 1)));
        ck_assert_int_eq(lmo_buf_append(b, &byte, 1), 0);
    }
}

/* One multipart flow reply. */
static inline void scripted_put_flows(struct lmo_buf *b, const struct scripted_flow *flows, size_t count, uint32_t xid,
                                      bool more)
{
    size_t start = b->len;
    scripted_put(b, 0x0513, 2);
    scripted_put(b, 0, 2);
    scripted_put(b, xid, 4);
    scripted_put(b, 1, 2);
    scripted_put(b, more, 2);
    scripted_put(b, 0, 4);
    for (size_t i = 0; i < count; i++) {
        const struct scripted_flow *f = &flows[i];
        size_t match = f->in_port ? 16 : 8;
        scripted_put(b, 48 + match + (f->forwards ? 8 : 0), 2);
        scripted_put(b, f->table, 1);
        scripted_put(b, 0, 9);
        scripted_put(b, f->priority, 2);
        scripted_put(b, 0, 10);
        scripted_put(b, f->cookie, 8);
        scripted_put(b, f->packets, 8);
        scripted_put(b, 0, 8);
        scripted_put(b, 1, 2);
        scripted_put(b, f->in_port ? 12 : 4, 2);
        if (f->in_port) {
            scripted_put(b, 0x80000004, 4);
            scripted_put(b, f->in_port, 4);
        }
        scripted_put(b, 0, 4);
        if (f->forwards)
            scripted_put(b, 0x0001000808000000, 8);
    }
    b->data[start + 2] = (char)((b->len - start) >> 8);
    b->data[start + 3] = (char)(b->len - start);
}

static inline uint64_t scripted_get(const uint8_t *p, size_t bytes)
{
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

/* Locked. Answers a flow request, one flow per part. */
static inline void scripted_answer_flows(struct scripted_switch *s, struct lmo_buf *out, const uint8_t *m, uint32_t xid)
{
    const uint8_t *body = m + 16;
    uint64_t cookie = scripted_get(body + 16, 8), mask = scripted_get(body + 24, 8);
    uint32_t in_port = scripted_get(body + 34, 2) == 12 ? (uint32_t)scripted_get(body + 40, 4) : 0;
    for (size_t i = 0; i < s->flow_count; i++) {
        const struct scripted_flow *f = &s->flows[i];
        if ((body[0] != 0xff && body[0] != f->table) || ((f->cookie ^ cookie) & mask) ||
            (in_port && in_port != f->in_port))
            continue;
        scripted_put_flows(out, f, 1, xid, true);
    }
    scripted_put_flows(out, NULL, 0, xid, false);
}

/* Locked. Ports 1 to 4 all exist, in one reply. */
static inline void scripted_answer_ports(const struct scripted_switch *s, struct lmo_buf *out, uint32_t xid)
{
    scripted_put(out, 0x05130000 + 16 + 4 * 40, 4);
    scripted_put(out, xid, 4);
    scripted_put(out, 13, 2);
    scripted_put(out, 0, 6);
    for (uint32_t port = 1; port <= 4; port++) {
        scripted_put(out, port, 4);
        scripted_put(out, 40, 2);
        scripted_put(out, 0, 2);
        scripted_put(out, 0xfe5400a957a7, 6);
        scripted_put(out, 0, 18);
        scripted_put(out, port == s->shut_port ? 32 : 0, 4);
        scripted_put(out, 0, 4);
    }
}

/* Locked. Records what was sent, and removes a flow as a switch does: strictly. */
static inline void scripted_record(struct scripted_switch *s, const uint8_t *m, size_t len)
{
    struct scripted_sent sent = {.type = m[1]};
    if (m[1] == 13) {
        sent.in_port = (uint32_t)scripted_get(m + 12, 4);
        memcpy(sent.frame, m + 40, len - 40 < sizeof sent.frame ? len - 40 : sizeof sent.frame);
    } else {
        sent.cookie = scripted_get(m + 8, 8);
        sent.table = m[24];
        ck_assert_uint_eq(m[25], 4);
        sent.priority = (uint16_t)scripted_get(m + 30, 2);
        sent.in_port = scripted_get(m + 50, 2) == 12 ? (uint32_t)scripted_get(m + 56, 4) : 0;
        for (size_t i = 0; i < s->flow_count; i++) {
            struct scripted_flow *f = &s->flows[i];
            if (f->table == sent.table && f->priority == sent.priority && f->cookie == sent.cookie &&
                f->in_port == sent.in_port)
                *f = s->flows[--s->flow_count];
        }
    }
    if (s->sent_count < SCRIPTED_SENT_MAX)
        s->sent[s->sent_count++] = sent;
}

static inline void scripted_answer(struct scripted_switch *s, struct lmo_buf *out, const uint8_t *m, size_t len)
{
    uint32_t xid = (uint32_t)scripted_get(m + 4, 4);
    pthread_mutex_lock(&s->lock);
    if (s->refuse && m[1] == 18) {
        scripted_put(out, 0x0501000c, 4);
        scripted_put(out, xid, 4);
        scripted_put(out, 0x00010002, 4);
    } else if (m[1] == 18 && scripted_get(m + 8, 2) == 1) {
        scripted_answer_flows(s, out, m, xid);
    } else if (m[1] == 18 && scripted_get(m + 8, 2) == 13) {
        scripted_answer_ports(s, out, xid);
    } else if (m[1] == 16) {
        ck_assert_uint_eq(scripted_get(m + 16, 6), 0xfe5400a957a7);
        ck_assert_uint_eq(scripted_get(m + 28, 4), 32);
        bool shut = scripted_get(m + 24, 4) & 32;
        s->shut_port = shut ? (uint32_t)scripted_get(m + 8, 4) : 0;
        s->shut_count += shut;
    } else if (m[1] == 18 && scripted_get(m + 8, 2) == 16) {
        s->subscriptions += m[31] == 0;
    } else if (m[1] == 20 && s->hang_up_on_barrier) {
        s->hang_up_on_barrier = false;
        (void)shutdown(s->fd, SHUT_RDWR);
    } else if (m[1] == 20) {
        scripted_put(out, 0x05150008, 4);
        scripted_put(out, xid, 4);
    } else if (m[1] == 2) {
        scripted_put(out, 0x05030008, 4);
        scripted_put(out, xid, 4);
    } else if (m[1] == 3) {
        s->echo_replied |= len == 12 && memcmp(m + 8, "ping", 4) == 0;
    } else if (m[1] == 13 || m[1] == 14) {
        scripted_record(s, m, len);
    }
    pthread_mutex_unlock(&s->lock);
}

static inline bool scripted_receive(int fd, uint8_t *m, size_t *ret_len)
{
    if (recv(fd, m, 8, MSG_WAITALL) != 8)
        return false;
    *ret_len = (size_t)scripted_get(m + 2, 2);
    size_t rest = *ret_len - 8;
    return rest == 0 || recv(fd, m + 8, rest, MSG_WAITALL) == (ssize_t)rest;
}

static inline void *scripted_main(void *arg)
{
    struct scripted_switch *s = arg;
    static uint8_t m[65536];
    for (;;) {
        int fd = accept(s->listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        pthread_mutex_lock(&s->lock);
        s->fd = fd;
        uint8_t hello[] = {s->version, 0, 0, 8, 0, 0, 0, 1};
        pthread_mutex_unlock(&s->lock);
        (void)!send(fd, hello, sizeof hello, MSG_NOSIGNAL);
        size_t len;
        while (scripted_receive(fd, m, &len)) {
            LMO_AUTO_BUF struct lmo_buf out = LMO_BUF_INIT(65536);
            scripted_answer(s, &out, m, len);
            if (out.len)
                (void)!send(fd, out.data, out.len, MSG_NOSIGNAL);
        }
        pthread_mutex_lock(&s->lock);
        close(fd);
        s->fd = -1;
        pthread_mutex_unlock(&s->lock);
    }
}

static inline void scripted_switch_start(struct scripted_switch *s)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    *s = (struct scripted_switch){.fd = -1, .version = 5};
    (void)snprintf(s->path, sizeof s->path, "/tmp/lmo-switch-%d", (int)getpid());
    (void)snprintf(s->remote, sizeof s->remote, "unix:%s", s->path);
    (void)snprintf(un.sun_path, sizeof un.sun_path, "%s", s->path);
    (void)unlink(s->path);
    pthread_mutex_init(&s->lock, NULL);
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(s->listener, (struct sockaddr *)&un, sizeof un), 0);
    ck_assert_int_eq(listen(s->listener, 4), 0);
    ck_assert_int_eq(pthread_create(&s->thread, NULL, scripted_main, s), 0);
}

static inline void scripted_switch_hang_up(struct scripted_switch *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->fd >= 0)
        (void)shutdown(s->fd, SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
}

static inline void scripted_switch_stop(struct scripted_switch *s)
{
    (void)shutdown(s->listener, SHUT_RDWR);
    scripted_switch_hang_up(s);
    pthread_join(s->thread, NULL);
    close(s->listener);
    (void)unlink(s->path);
    pthread_mutex_destroy(&s->lock);
}

static inline void scripted_switch_refuse(struct scripted_switch *s, bool refuse)
{
    pthread_mutex_lock(&s->lock);
    s->refuse = refuse;
    pthread_mutex_unlock(&s->lock);
}

static inline void scripted_switch_hang_up_on_barrier(struct scripted_switch *s)
{
    pthread_mutex_lock(&s->lock);
    s->hang_up_on_barrier = true;
    pthread_mutex_unlock(&s->lock);
}

static inline uint32_t scripted_switch_shut_port(struct scripted_switch *s, unsigned *ret_count)
{
    pthread_mutex_lock(&s->lock);
    uint32_t port = s->shut_port;
    *ret_count = s->shut_count;
    pthread_mutex_unlock(&s->lock);
    return port;
}

static inline void scripted_switch_shut(struct scripted_switch *s, uint32_t port)
{
    pthread_mutex_lock(&s->lock);
    s->shut_port = port;
    pthread_mutex_unlock(&s->lock);
}

static inline unsigned scripted_switch_subscriptions(struct scripted_switch *s)
{
    pthread_mutex_lock(&s->lock);
    unsigned n = s->subscriptions;
    pthread_mutex_unlock(&s->lock);
    return n;
}

static inline void scripted_switch_version(struct scripted_switch *s, uint8_t version)
{
    pthread_mutex_lock(&s->lock);
    s->version = version;
    pthread_mutex_unlock(&s->lock);
}

/* Replaces the flows and reports a change, as a subscription would. */
static inline void scripted_switch_flows(struct scripted_switch *s, const struct scripted_flow *flows, size_t count)
{
    static const uint8_t update[] = {5, 19, 0, 16, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0};
    pthread_mutex_lock(&s->lock);
    if (count)
        memcpy(s->flows, flows, count * sizeof *flows);
    s->flow_count = count;
    if (s->fd >= 0)
        (void)!send(s->fd, update, sizeof update, MSG_NOSIGNAL);
    pthread_mutex_unlock(&s->lock);
}

static inline void scripted_switch_echo(struct scripted_switch *s)
{
    static const uint8_t echo[] = {5, 2, 0, 12, 0, 0, 0, 77, 'p', 'i', 'n', 'g'};
    pthread_mutex_lock(&s->lock);
    (void)!send(s->fd, echo, sizeof echo, MSG_NOSIGNAL);
    pthread_mutex_unlock(&s->lock);
}

static inline bool scripted_switch_saw_echo_reply(struct scripted_switch *s, unsigned ms)
{
    bool saw = false;
    for (unsigned i = 0; i < ms && !saw; i++) {
        pthread_mutex_lock(&s->lock);
        saw = s->echo_replied;
        pthread_mutex_unlock(&s->lock);
        if (!saw)
            (void)poll(NULL, 0, 1);
    }
    return saw;
}

/* What was sent so far, once it is at least `count`. */
static inline size_t scripted_switch_sent(struct scripted_switch *s, size_t count, unsigned ms,
                                          struct scripted_sent *ret)
{
    size_t n = 0;
    for (unsigned i = 0; i < ms && n < count; i++) {
        pthread_mutex_lock(&s->lock);
        n = s->sent_count;
        memcpy(ret, s->sent, n * sizeof *ret);
        pthread_mutex_unlock(&s->lock);
        if (n < count)
            (void)poll(NULL, 0, 1);
    }
    return n;
}

#endif
