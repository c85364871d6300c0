/* test_api_hostile.c - clients that are slow, greedy or many: they get their own connections closed or refused, and everybody
 * else is answered. What is waited for is always an observed end, with the listener's deadlines made short. */
#include "api_fixture.h"
#include "fake_worker.h"

#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>

static struct lmo_http_server *server;
static struct lmo_tls_files own, files[3]; /* operators a, b and c */
static SSL_CTX *contexts[3];

static void pki(void)
{
    static const char *const names[] = {"a", "b", "c"};
    fake_pki_set_up();
    own = fake_pki_issue(LMO_ROLE_COORDINATOR, "lmod");
    for (unsigned i = 0; i < 3; i++) {
        files[i] = fake_pki_issue(LMO_ROLE_OPERATOR, names[i]);
    }
}

static char big[16U << 20]; /* more than sockets take in by themselves */

static void answer_request(void *arg, struct lmo_http_request *req)
{
    (void)arg;
    bool much = strcmp(lmo_http_path(req), "/big") == 0;
    lmo_http_reply(req, 200, "text/plain", big, much ? sizeof(big) : 2);
}

static void set_up(void)
{
    struct lmo_err err = {0};
    memset(big, 'x', sizeof(big));
    const struct lmo_http_server_config config = {.address = "127.0.0.1:0",
                                                  .tls = own,
                                                  .handler = answer_request,
                                                  .request_ids = true,
                                                  .connections_max = 24,
                                                  .connections_per_ip = 20,
                                                  .connections_per_peer = 4,
                                                  .idle_timeout_s = 1,
                                                  .receive_timeout_ms = 700};
    ck_assert_msg(lmo_http_server_new(&config, &server, &err) == 0, "%s", err.text);
    for (unsigned i = 0; i < 3; i++) {
        contexts[i] = SSL_CTX_new(TLS_client_method());
        ck_assert_int_eq(SSL_CTX_use_certificate_file(contexts[i], files[i].cert, SSL_FILETYPE_PEM), 1);
        ck_assert_int_eq(SSL_CTX_use_PrivateKey_file(contexts[i], files[i].key, SSL_FILETYPE_PEM), 1);
    }
}

static void tear_down(void)
{
    server = lmo_http_server_free(server);
    for (unsigned i = 0; i < 3; i++) {
        SSL_CTX_free(contexts[i]);
    }
}

struct conn {
    int fd;
    SSL *ssl;
};

static int open_socket(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(lmo_http_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

/* False: the listener would not have it. */
static bool open_conn(struct conn *c, unsigned who)
{
    *c = (struct conn){.fd = open_socket(), .ssl = SSL_new(contexts[who])};
    SSL_set_fd(c->ssl, c->fd);
    return SSL_connect(c->ssl) == 1;
}

static void close_conn(struct conn *c)
{
    SSL_free(c->ssl);
    close(c->fd);
}

static void say(struct conn *c, const char *text)
{
    (void)!SSL_write(c->ssl, text, (int)strlen(text));
}

/* Status of one whole request on the connection; 0: it is closed. */
static unsigned request(struct conn *c)
{
    char text[2048] = "";
    say(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    int n = SSL_read(c->ssl, text, sizeof(text) - 1);
    unsigned status = 0;
    return n > 0 && sscanf(text, "HTTP/1.1 %u", &status) == 1 ? status : 0;
}

/* An honest client, all the while. */
static void somebody_else_is_answered(void)
{
    struct conn c;
    ck_assert(open_conn(&c, 2));
    ck_assert_uint_eq(request(&c), 200);
    close_conn(&c);
}

/* The listener ends the connection by itself; the alarm of the test case is the only other end. `trickle`: a byte now and
 * then, which must not keep it open. */
static void ends_by_itself(struct conn *c, const char *trickle)
{
    char buf[256];
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    for (;;) {
        int r = poll(&p, 1, 100);
        if (r > 0 && read(c->fd, buf, sizeof(buf)) <= 0) {
            return;
        }
        if (r == 0 && trickle) {
            (void)signal(SIGPIPE, SIG_IGN);
            say(c, trickle);
        }
        somebody_else_is_answered();
    }
}

static const struct {
    const char *before, *trickle;
} slow[] = {
    {NULL, NULL},                                                                 /* no TLS at all */
    {"", NULL},                                                                   /* a handshake, and silence */
    {"", "G"},                                                                    /* a request line that never ends */
    {"GET / HTTP/1.1\r\nHost: x\r\n", "a: b\r\n"},                                /* headers that never end */
    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n", "x"},         /* a body that trickles in */
    {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", NULL},                                  /* a request, and then nothing more */
};

START_TEST(a_slow_client__is_cut_off_and_keeps_nobody_waiting)
{
    struct conn c = {.fd = -1};
    if (slow[_i].before) {
        ck_assert(open_conn(&c, 0));
        say(&c, slow[_i].before);
    } else {
        c.fd = open_socket();
    }
    ends_by_itself(&c, slow[_i].trickle);
    close_conn(&c);
}
END_TEST

START_TEST(a_client_that_does_not_take_its_answer__is_cut_off)
{
    struct conn c;
    struct lmo_http_stats stats = {0};
    ck_assert(open_conn(&c, 0));
    say(&c, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    while (stats.timeouts == 0) { /* it reads nothing; the test case's alarm is the other end */
        somebody_else_is_answered();
        lmo_http_server_stats(server, &stats);
    }
    close_conn(&c);
}
END_TEST

START_TEST(one_principal__has_so_many_connections_and_the_next_one_is_told_so)
{
    struct conn c[8];
    unsigned good = 0, refused = 0;
    for (unsigned i = 0; i < 8; i++) {
        ck_assert(open_conn(&c[i], 0));
        unsigned status = request(&c[i]);
        good += status == 200;
        refused += status == 429;
    }
    ck_assert_uint_eq(good, 4);
    ck_assert_uint_eq(refused, 4);
    somebody_else_is_answered();
    close_conn(&c[0]);
    for (unsigned status = 429; status == 429;) { /* the place is free again, once the listener has seen the end */
        struct conn again;
        ck_assert(open_conn(&again, 0));
        status = request(&again);
        close_conn(&again);
    }
    for (unsigned i = 1; i < 8; i++) {
        close_conn(&c[i]);
    }
}
END_TEST

START_TEST(one_address__cannot_take_every_connection)
{
    int fds[64];
    unsigned closed = 0;
    for (unsigned i = 0; i < 64; i++) {
        fds[i] = open_socket();
    }
    for (unsigned i = 0; i < 64; i++) { /* those above the limit are closed unheard; the others when nothing comes */
        char byte;
        closed += read(fds[i], &byte, 1) <= 0;
        close(fds[i]);
    }
    ck_assert_uint_eq(closed, 64);
    somebody_else_is_answered();
}
END_TEST

Suite *api_hostile_suite(void);
Suite *api_hostile_suite(void)
{
    Suite *s = suite_create("api_hostile");
    TCase *t = tcase_create("hostile");
    tcase_add_unchecked_fixture(t, pki, fake_pki_tear_down);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, a_slow_client__is_cut_off_and_keeps_nobody_waiting, 0, sizeof(slow) / sizeof(slow[0]));
    tcase_add_test(t, a_client_that_does_not_take_its_answer__is_cut_off);
    tcase_add_test(t, one_principal__has_so_many_connections_and_the_next_one_is_told_so);
    tcase_add_test(t, one_address__cannot_take_every_connection);
    suite_add_tcase(s, t);
    return s;
}
