/* test_hooks.c - what is called when a host is empty: real programs, by name, with a deadline. */
#include "base/str.h"
#include "certs.h"
#include "rpc/hooks.h"
#include "tmpdir.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Suite *hooks_suite(void);

static struct {
    char dir[TMPDIR_MAX];
    struct lmo_loop *loop;
    struct lmo_conf *conf;
    struct lmo_hook_caller *caller;
    bool called, acknowledged;
    int code;
    char text[LMO_TEXT_MAX];
} w;

static const struct lmo_conf_key keys[] = {LMO_HOOK_KEYS};

static void program(const char *name, const char *script)
{
    char path[TMPDIR_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", w.dir, name);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fprintf(f, "#!/bin/sh\n%s\n", script);
    fclose(f);
    ck_assert_int_eq(chmod(path, 0755), 0);
}

static void set_up(void)
{
    struct lmo_err err = {0};
    char text[1024];
    memset(&w, 0, sizeof w);
    tmpdir_make(w.dir, "hooks");
    struct test_ca *ca = test_ca_new(w.dir, "ca");
    const struct test_leaf leaf = {.uri = "urn:lmo:coordinator:main"};
    (void)test_ca_issue(ca, "own", &leaf);
    test_ca_free(ca);
    program("good", "echo \"$LMO_HOST $LMO_DRAIN\" > $(dirname $0)/said");
    program("later", "exit 75");
    program("bad", "exit 3");
    program("slow", "sleep 60 & sleep 60");
    snprintf(text, sizeof text,
             "[hook good]\ncommand = %s/good\n[hook later]\ncommand = %s/later\n[hook bad]\ncommand = %s/bad\n"
             "[hook slow]\ncommand = %s/slow\ndeadline = 1\n[hook missing]\ncommand = %s/missing\n",
             w.dir, w.dir, w.dir, w.dir, w.dir);
    ck_assert_msg(lmo_conf_parse(text, "test", keys, sizeof keys / sizeof keys[0], &w.conf, &err) == 0, "%s", err.text);
    ck_assert_int_eq(lmo_loop_new(64, &w.loop, &err), 0);
    const struct lmo_tls_files tls = test_tls(w.dir, "ca", "own", 0);
    ck_assert_msg(lmo_hooks_open(w.loop, w.conf, &tls, &w.caller, &err) == 0, "%s", err.text);
}

static void tear_down(void)
{
    w.caller = lmo_hooks_close(w.caller);
    w.loop = lmo_loop_free(w.loop);
    w.conf = lmo_conf_free(w.conf);
    tmpdir_remove(w.dir);
}

static void on_done(void *arg, int code, bool acknowledged, const char *text)
{
    (void)arg;
    ck_assert(!w.called);
    w.called = true;
    w.code = code;
    w.acknowledged = acknowledged;
    LMO_COPY(w.text, text);
    lmo_loop_stop(w.loop);
}

static int call(const char *command, const char *url, struct lmo_err *err)
{
    const struct lmo_hook hook = {.url = url, .command = command, .drain = "01J00000000000000000000000", .host = "hv1"};
    const struct lmo_hooks *port = lmo_hooks_port(w.caller);
    int r = port->check(port->arg, &hook, err);
    w.called = false;
    r = r < 0 ? r : port->call(port->arg, &hook, on_done, NULL, err);
    if (r == 0) {
        ck_assert(!w.called); /* never within the call */
        ck_assert_int_eq(lmo_loop_run(w.loop), 0);
        ck_assert(w.called);
    }
    return r;
}

START_TEST(exit_code_says_what_came_of_it)
{
    struct lmo_err err = {0};
    ck_assert_int_eq(call("good", "", &err), 0);
    ck_assert_int_eq(w.code, 0);
    ck_assert(w.acknowledged);
    char path[TMPDIR_MAX + 32], said[64] = "";
    snprintf(path, sizeof path, "%s/said", w.dir);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_ptr_nonnull(fgets(said, sizeof said, f));
    fclose(f);
    ck_assert_str_eq(said, "hv1 01J00000000000000000000000\n");
    ck_assert_int_eq(call("later", "", &err), 0);
    ck_assert_int_eq(w.code, 0);
    ck_assert(!w.acknowledged);
    ck_assert_int_eq(call("bad", "", &err), 0);
    ck_assert_int_eq(w.code, LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(w.text, "exit code 3"));
}
END_TEST

START_TEST(command_that_does_not_end_is_killed_with_all_that_it_began)
{
    struct lmo_err err = {0};
    ck_assert_int_eq(call("slow", "", &err), 0);
    ck_assert_int_eq(w.code, LMO_E_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(w.text, "deadline"));
}
END_TEST

START_TEST(only_what_the_configuration_names_is_called)
{
    struct lmo_err err = {0};
    ck_assert_int_eq(call("/bin/true", "", &err), LMO_E_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "[hook /bin/true]"));
    ck_assert_int_eq(call("", "http://10.0.0.1/", &err), LMO_E_INVALID);
    ck_assert_int_eq(call("", "https://", &err), LMO_E_INVALID);
    ck_assert_int_lt(call("missing", "", &err), 0); /* configured, and not there */
    ck_assert_int_eq(call("", "https://127.0.0.1:1/x", &err), 0);
    ck_assert_int_eq(w.code, LMO_E_UNAVAILABLE);
}
END_TEST

Suite *hooks_suite(void)
{
    Suite *s = suite_create("hooks");
    TCase *t = tcase_create("hooks");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, exit_code_says_what_came_of_it);
    tcase_add_test(t, command_that_does_not_end_is_killed_with_all_that_it_began);
    tcase_add_test(t, only_what_the_configuration_names_is_called);
    suite_add_tcase(s, t);
    return s;
}
