/* test_worker_config.c - the worker's configuration file: sections are capabilities, mistakes are errors. */
#include "workers/config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BASE                                                                          \
    "[worker]\nhost = hv1\nlisten = 10.0.0.1:7443\nstate_dir = /var/lib/lmo-worker\n" \
    "[tls]\nca = /a/ca.pem\ncert = /a/c.pem\nkey = /a/c.key\ncrl = /a/crl.pem\npermit_key = /a/permit.pub\n"

static int load(const char *text, struct lmo_worker_config *cfg, struct lmo_err *err)
{
    char path[] = "/tmp/lmo-worker-conf.XXXXXX";
    int fd = mkstemp(path);
    ck_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    struct lmo_conf *conf = NULL;
    enum lmo_log_level level;
    int r = lmo_worker_config_load(path, &conf, cfg, &level, err);
    unlink(path);
    (void)lmo_conf_free(conf);
    return r;
}

START_TEST(a_section_that_is_absent_is_a_capability_that_is_not_there)
{
    struct lmo_worker_config cfg;
    struct lmo_err err = {0};
    ck_assert_msg(load(BASE "[hypervisor]\ndriver = libvirt\npeer_uri = qemu+tcp://x/system\ntls = no\n"
                            "[link migration]\naddress = 10.1.0.1\nrate = 1000000\n",
                       &cfg, &err) == 0,
                  "%s", err.text);
    ck_assert_str_eq(cfg.facts.host, "hv1");
    ck_assert_str_eq(cfg.facts.hypervisor, "libvirt");
    ck_assert_str_eq(cfg.facts.peer_uri, "qemu+tcp://x/system");
    ck_assert_uint_eq(cfg.facts.link_count, 1);
    ck_assert_str_eq(cfg.facts.links[0].name, "migration");
    ck_assert_str_eq(cfg.facts.links[0].address, "10.1.0.1");
    ck_assert_uint_eq(cfg.facts.links[0].rate_bytes_per_s, 1000000);
    ck_assert_str_eq(cfg.facts.network, "");
    ck_assert_str_eq(cfg.facts.fabric, "");
    ck_assert_str_eq(cfg.facts.volume, "");
}
END_TEST

START_TEST(hypervisors_speak_tls_unless_told_not_to)
{
    struct lmo_worker_config cfg;
    struct lmo_err err = {0};
    ck_assert_msg(load(BASE "[hypervisor]\ndriver = libvirt\n", &cfg, &err) == 0, "%s", err.text);
    ck_assert_str_eq(cfg.facts.peer_uri, "qemu+tls://10.0.0.1/system");
}
END_TEST

START_TEST(a_mistake_is_named_with_its_place)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {BASE "[hypervisor]\ndriver = xen\n", "[hypervisor] driver: 'xen'"},
        {BASE "[hypervisor]\nuri = qemu:///system\n", "[hypervisor] driver"},
        {BASE "[volume]\ndriver = nbd\nservice = s\n", "[volume] address"},
        {BASE "[fabric]\ndriver = ovn\nname = f\n", "[fabric] northbound"},
        {BASE "[network]\ndriver = ovn\nfabric = f\nchassis = hv2\n", "[network] chassis"},
        {BASE "[link migration]\naddress = 10.1.0.1\n", "[link migration] rate"},
        {BASE "[link migration]\naddress = 10.1.0.1\nrate = 0\n", "[link migration] rate"},
        {BASE "[link migration]\naddress = hv1.example\nrate = 1\n", "[link migration] address"},
        {BASE "[link a b]\naddress = 10.1.0.1\nrate = 1\n", "[link a b]"},
        {BASE "[hypervisor]\ndriver = libvirt\npeer_uri = x\nmigration_uri = tcp://x\n", "migration_uri"},
        {BASE "[hypervisor]\ndriver = libvirt\npeer_uri = qemu+tcp://x/system\n", "qemu+tcp: is not encrypted"},
        {BASE "[hypervisor]\ndriver = libvirt\ntls = no\n", "peer_uri: is needed with tls = no"},
        {BASE "[worker]\nlog_level = info\n", "twice"},
        {BASE "[hypervizor]\ndriver = libvirt\n", "hypervizor"},
        {"[worker]\nhost = hv1\n", "listen"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_worker_config cfg;
        struct lmo_err err = {0};
        ck_assert_int_lt(load(cases[i].text, &cfg, &err), 0);
        ck_assert_msg(strstr(err.text, cases[i].expected) != NULL, "%s", err.text);
    }
}
END_TEST

Suite *worker_config_suite(void);
Suite *worker_config_suite(void)
{
    Suite *s = suite_create("worker_config");
    TCase *t = tcase_create("config");
    tcase_add_test(t, a_section_that_is_absent_is_a_capability_that_is_not_there);
    tcase_add_test(t, hypervisors_speak_tls_unless_told_not_to);
    tcase_add_test(t, a_mistake_is_named_with_its_place);
    suite_add_tcase(s, t);
    return s;
}
