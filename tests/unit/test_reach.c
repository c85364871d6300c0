/* test_reach.c - what a URI names, and whether it is reached, against real sockets on the loopback. */
#include "workers/drivers/hypervisor_libvirt_address.h"

#include "base/clock.h"
#include "suites.h"

#include <arpa/inet.h>
#include <check.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NOT_ASKED 99999u

START_TEST(uri__names_host_and_the_port_of_its_transport)
{
    static const struct {
        const char *uri, *scheme, *host;
        unsigned port, hypervisor; /* NOT_ASKED: it is no hypervisor's */
    } cases[] = {
        {"qemu+tcp://10.77.0.12/system", "qemu+tcp", "10.77.0.12", 0, 16509},
        {"qemu+tcp://hv2:1234/system", "qemu+tcp", "hv2", 1234, 1234},
        {"qemu+tls://hv2.example/system", "qemu+tls", "hv2.example", 0, 16514},
        {"qemu://hv2/system", "qemu", "hv2", 0, 16514},
        {"qemu+ssh://root@hv2/system", "qemu+ssh", "hv2", 0, 22},
        {"qemu+libssh2://root@hv2:2222/system?no_tty=1", "qemu+libssh2", "hv2", 2222, 2222},
        {"qemu+tcp://[fd00::12]/system", "qemu+tcp", "fd00::12", 0, 16509},
        {"qemu:///system", "qemu", "", 0, 0},
        {"qemu+unix://hv2/system", "qemu+unix", "hv2", 0, 0},
        {"tcp://10.78.0.12", "tcp", "10.78.0.12", 0, NOT_ASKED},
        {"tcp://[fd00::12]:49152", "tcp", "fd00::12", 49152, NOT_ASKED},
        {"tcp:hv2:49152", "tcp", "hv2", 49152, NOT_ASKED},
        {"tcp:hv2", "tcp", "hv2", 0, NOT_ASKED},
        {"rdma://hv2", "rdma", "hv2", 0, NOT_ASKED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_address a;
        struct lmo_err err = {0};
        ck_assert_msg(lmo_address_parse(cases[i].uri, &a, &err) == 0, "%s", err.text);
        ck_assert_str_eq(a.scheme, cases[i].scheme);
        ck_assert_str_eq(a.host, cases[i].host);
        ck_assert_msg(a.port == cases[i].port, "%s: port %u", cases[i].uri, a.port);
        ck_assert_msg(cases[i].hypervisor == NOT_ASKED || lmo_address_hypervisor_port(&a) == cases[i].hypervisor, "%s",
                      cases[i].uri);
    }
    static const char *const bad[] = {"", "hv2", "://hv2", "tcp://hv2:99999", "tcp://[fd00::12", "a b://c"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct lmo_address a;
        struct lmo_err err = {0};
        ck_assert_msg(lmo_address_parse(bad[i], &a, &err) == LMO_E_INVALID, "'%s' was taken for a URI", bad[i]);
    }
}
END_TEST

static int listener(const char *address, int backlog, uint16_t *ret_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert(inet_pton(AF_INET, address, &at.sin_addr) == 1);
    ck_assert(bind(fd, (struct sockaddr *)&at, size) == 0 && getsockname(fd, (struct sockaddr *)&at, &size) == 0);
    ck_assert(backlog < 0 || listen(fd, backlog) == 0);
    *ret_port = ntohs(at.sin_port);
    return fd;
}

START_TEST(port_where_somebody_listens__is_reached)
{
    uint16_t port;
    struct lmo_err err = {0};
    int fd = listener("127.0.0.1", 4, &port);
    ck_assert_msg(lmo_reach_tcp("127.0.0.1", port, true, 2000, &err) == 0, "%s", err.text);
    ck_assert_int_eq(lmo_reach_tcp("127.0.0.1", port, false, 2000, &err), 0);
    close(fd);
}
END_TEST

START_TEST(port_where_nobody_listens__is_an_answer_but_no_hypervisor)
{
    uint16_t port;
    struct lmo_err err = {0};
    int fd = listener("127.0.0.1", -1, &port); /* bound, so nobody else can listen there */
    ck_assert_msg(lmo_reach_tcp("127.0.0.1", port, false, 2000, &err) == 0, "%s", err.text);
    ck_assert_int_eq(lmo_reach_tcp("127.0.0.1", port, true, 2000, &err), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "127.0.0.1 cannot be reached at port"));
    ck_assert_ptr_nonnull(strstr(err.text, "refused"));
    close(fd);
}
END_TEST

START_TEST(address_that_says_nothing__is_not_reached_and_costs_no_more_than_the_deadline)
{
    /* A full queue of connections: the kernel drops every further SYN, as a firewall would. */
    uint16_t port;
    struct lmo_err err = {0};
    int fd = listener("127.0.0.1", 0, &port), fill[3];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < 3; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)!connect(fill[i], (struct sockaddr *)&at, sizeof at);
    }
    uint64_t began_ms = lmo_now_ms();
    ck_assert_int_eq(lmo_reach_tcp("127.0.0.1", port, false, 300, &err), LMO_E_REFUSED);
    ck_assert_uint_ge(lmo_now_ms() - began_ms, 299);
    ck_assert_ptr_nonnull(strstr(err.text, "127.0.0.1 does not answer at port"));
    ck_assert_ptr_nonnull(strstr(err.text, "within 300 ms"));
    for (int i = 0; i < 3; i++)
        close(fill[i]);
    close(fd);
}
END_TEST

START_TEST(address_without_a_route__is_not_reached)
{
    struct lmo_err err = {0};
    /* The broadcast address: the kernel connects nobody to it, whatever routes there are. */
    ck_assert_int_eq(lmo_reach_tcp("255.255.255.255", 49215, false, 1000, &err), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "255.255.255.255 cannot be reached at port 49215"));
    ck_assert_int_eq(lmo_reach_route("255.255.255.255", &err), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "no way to 255.255.255.255"));
    ck_assert_int_eq(lmo_reach_route("127.0.0.1", &err), 0);
}
END_TEST

START_TEST(name_that_nobody_knows__is_not_reached)
{
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_reach_tcp("no-such-host.invalid", 16509, true, 1000, &err), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "no-such-host.invalid cannot be resolved"));
}
END_TEST

Suite *reach_suite(void);
Suite *reach_suite(void)
{
    Suite *s = suite_create("reach");
    TCase *t = tcase_create("reach");
    tcase_set_timeout(t, 30);
    tcase_add_test(t, uri__names_host_and_the_port_of_its_transport);
    tcase_add_test(t, port_where_somebody_listens__is_reached);
    tcase_add_test(t, port_where_nobody_listens__is_an_answer_but_no_hypervisor);
    tcase_add_test(t, address_that_says_nothing__is_not_reached_and_costs_no_more_than_the_deadline);
    tcase_add_test(t, address_without_a_route__is_not_reached);
    tcase_add_test(t, name_that_nobody_knows__is_not_reached);
    suite_add_tcase(s, t);
    return s;
}
