/* test_qmp.c - the QMP client against a service whose answers the test decides. */
#include "workers/drivers/qmp.h"

#include "tests/unit/fake_qmp.h"

#include <check.h>
#include <stdatomic.h>
#include <time.h>

Suite *qmp_suite(void);

static char dir[64];

static void make_dir(void)
{
    snprintf(dir, sizeof(dir), "/tmp/lmo-qmp-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void remove_dir(void)
{
    rmdir(dir);
}

struct seen {
    _Atomic unsigned up, down, events;
    char name[64], id[64];
    _Atomic bool has_event;
};

static void on_up(void *arg, uint64_t generation)
{
    atomic_store(&((struct seen *)arg)->up, (unsigned)generation);
}

static void on_down(void *arg, uint64_t generation)
{
    atomic_store(&((struct seen *)arg)->down, (unsigned)generation);
}

static void on_event(void *arg, const char *name, const json_t *data)
{
    struct seen *s = arg;
    if (atomic_load(&s->has_event))
        return;
    snprintf(s->name, sizeof(s->name), "%s", name);
    snprintf(s->id, sizeof(s->id), "%s", json_string_value(json_object_get(data, "id")));
    atomic_store(&s->has_event, true);
}

static bool echo(struct fake_qmp *f, unsigned connection, const char *command, const json_t *message)
{
    (void)connection;
    if (strcmp(command, "bad") == 0)
        fake_qmp_error(f, message, "GenericError", "it is bad");
    else if (strcmp(command, "unheard") == 0)
        fake_qmp_error(f, message, "CommandNotFound", "never heard of it");
    else if (strcmp(command, "hang-up") == 0)
        return false;
    else if (strcmp(command, "silent") == 0)
        return true;
    else if (strcmp(command, "garbage") == 0)
        fake_qmp_send(f, "this is no JSON\r\n");
    else {
        char *arguments = json_dumps(json_object_get(message, "arguments"), JSON_COMPACT);
        fake_qmp_return(f, message, arguments);
        free(arguments);
    }
    return true;
}

static void start(struct fake_qmp *f, struct lmo_qmp **q, struct seen *seen)
{
    f->handle = f->handle ? f->handle : echo;
    snprintf(f->path, sizeof(f->path), "%s/qmp", dir);
    fake_qmp_start(f);
    struct lmo_qmp_config cfg = {
        .path = f->path, .on_up = on_up, .on_down = on_down, .on_event = on_event, .arg = seen};
    struct lmo_err err = {0};
    ck_assert_msg(lmo_qmp_open(&cfg, q, &err) == 0, "%s", err.text);
}

static void expect_up(struct lmo_qmp *q)
{
    struct lmo_err err = {0};
    ck_assert_msg(lmo_qmp_await(q, 5000, &err) == 0, "%s", err.text);
}

START_TEST(reply_is_matched_and_its_value_handed_over)
{
    struct fake_qmp f = {0};
    struct seen seen = {0};
    struct lmo_qmp *q = NULL;
    start(&f, &q, &seen);
    expect_up(q);
    json_t *arguments = json_pack("{s:i}", "x", 7);
    json_t *value = NULL;
    ck_assert_int_eq(lmo_qmp_call(q, "anything", arguments, 5000, &value, NULL), 0);
    ck_assert(json_equal(arguments, value));
    json_decref(arguments);
    json_decref(value);
    ck_assert_uint_eq(lmo_qmp_generation(q), 1);
    lmo_qmp_close(q);
    fake_qmp_stop(&f);
}
END_TEST

START_TEST(error_reply__is_refused_with_the_services_words)
{
    struct fake_qmp f = {0};
    struct seen seen = {0};
    struct lmo_qmp *q = NULL;
    struct lmo_err err = {0};
    start(&f, &q, &seen);
    expect_up(q);
    ck_assert_int_eq(lmo_qmp_call(q, "bad", NULL, 5000, NULL, &err), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "it is bad"));
    ck_assert_int_eq(lmo_qmp_call(q, "unheard", NULL, 5000, NULL, &err), LMO_E_UNSUPPORTED);
    lmo_qmp_close(q);
    fake_qmp_stop(&f);
}
END_TEST

START_TEST(lost_reply__is_unknown_not_failed)
{
    struct fake_qmp f = {0};
    struct seen seen = {0};
    struct lmo_qmp *q = NULL;
    start(&f, &q, &seen);
    expect_up(q);
    ck_assert_int_eq(lmo_qmp_call(q, "hang-up", NULL, 5000, NULL, NULL), LMO_E_UNKNOWN);
    expect_up(q); /* it reconnects by itself */
    ck_assert_uint_eq(lmo_qmp_generation(q), 2);
    ck_assert_uint_eq(atomic_load(&seen.down), 1);
    ck_assert_int_eq(lmo_qmp_call(q, "anything", NULL, 5000, NULL, NULL), 0);
    lmo_qmp_close(q);
    fake_qmp_stop(&f);
}
END_TEST

START_TEST(no_reply_in_time__is_timeout_and_a_later_command_works)
{
    struct fake_qmp f = {0};
    struct seen seen = {0};
    struct lmo_qmp *q = NULL;
    start(&f, &q, &seen);
    expect_up(q);
    ck_assert_int_eq(lmo_qmp_call(q, "silent", NULL, 30, NULL, NULL), LMO_E_TIMEOUT);
    ck_assert_int_eq(lmo_qmp_call(q, "anything", NULL, 5000, NULL, NULL), 0);
    lmo_qmp_close(q);
    fake_qmp_stop(&f);
}
END_TEST

static json_t *kept; /* the message whose reply comes late */

static bool answer_late(struct fake_qmp *f, unsigned connection, const char *command, const json_t *message)
{
    (void)connection;
    if (strcmp(command, "first") == 0) {
        kept = json_deep_copy(message);
        return true;
    }
    fake_qmp_return(f, kept, "{\"of\": \"first\"}"); /* its caller has given up */
    fake_qmp_return(f, message, "{\"of\": \"second\"}");
    json_decref(kept);
    return true;
}

START_TEST(late_reply__is_not_given_to_the_next_call)
{
    struct fake_qmp f = {.handle = answer_late};
    struct seen seen = {0};
    struct lmo_qmp *q = NULL;
    json_t *value = NULL;
    start(&f, &q, &seen);
    expect_up(q);
    ck_assert_int_eq(lmo_qmp_call(q, "first", NULL, 20, NULL, NULL), LMO_E_TIMEOUT);
    ck_assert_int_eq(lmo_qmp_call(q, "second", NULL, 5000, &value, NULL), 0);
    ck_assert_str_eq(json_string_value(json_object_get(value, "of")), "second");
    json_decref(value);
    lmo_qmp_close(q);
    fake_qmp_stop(&f);
}
END_TEST

START_TEST(service_that_is_not_there__is_unavailable_at_once_and_found_later)
{
    struct fake_qmp f = {.handle = echo};
    struct lmo_qmp *q = NULL;
    snprintf(f.path, sizeof(f.path), "%s/qmp", dir);
    struct lmo_qmp_config cfg = {.path = f.path};
    ck_assert_int_eq(lmo_qmp_open(&cfg, &q, NULL), 0);
    ck_assert_int_eq(lmo_qmp_call(q, "anything", NULL, 5000, NULL, NULL), LMO_E_UNAVAILABLE);
    ck_assert_int_eq(lmo_qmp_await(q, 30, NULL), LMO_E_UNAVAILABLE);
    fake_qmp_start(&f);
    expect_up(q);
    ck_assert_int_eq(lmo_qmp_call(q, "anything", NULL, 5000, NULL, NULL), 0);
    lmo_qmp_close(q);
    fake_qmp_stop(&f);
}
END_TEST

START_TEST(monitor_that_somebody_else_has__is_not_taken_for_connected)
{
    struct fake_qmp f = {.mute = true};
    struct seen seen = {0};
    struct lmo_qmp *q = NULL;
    start(&f, &q, &seen);
    ck_assert_int_eq(lmo_qmp_await(q, 100, NULL), LMO_E_UNAVAILABLE);
    ck_assert_uint_eq(lmo_qmp_generation(q), 0);
    lmo_qmp_close(q);
    fake_qmp_stop(&f);
}
END_TEST

START_TEST(garbage__ends_the_connection)
{
    struct fake_qmp f = {0};
    struct seen seen = {0};
    struct lmo_qmp *q = NULL;
    start(&f, &q, &seen);
    expect_up(q);
    ck_assert_int_eq(lmo_qmp_call(q, "garbage", NULL, 5000, NULL, NULL), LMO_E_UNKNOWN);
    lmo_qmp_close(q);
    fake_qmp_stop(&f);
}
END_TEST

static bool event_first(struct fake_qmp *f, unsigned connection, const char *command, const json_t *message)
{
    (void)connection;
    (void)command;
    fake_qmp_event(f, "BLOCK_EXPORT_DELETED", "{\"id\": \"lmo.a.b.e1\"}");
    fake_qmp_return(f, message, "{}");
    return true;
}

START_TEST(event_that_overtakes_its_commands_reply__is_delivered)
{
    struct fake_qmp f = {.handle = event_first};
    struct seen seen = {0};
    struct lmo_qmp *q = NULL;
    start(&f, &q, &seen);
    expect_up(q);
    ck_assert_int_eq(lmo_qmp_call(q, "block-export-del", NULL, 5000, NULL, NULL), 0);
    ck_assert(atomic_load(&seen.has_event)); /* same thread, same order: it was before the reply */
    ck_assert_str_eq(seen.name, "BLOCK_EXPORT_DELETED");
    ck_assert_str_eq(seen.id, "lmo.a.b.e1");
    lmo_qmp_close(q);
    fake_qmp_stop(&f);
}
END_TEST

struct caller {
    pthread_t thread;
    struct lmo_qmp *q;
    int number, wrong;
};

static void *call_often(void *arg)
{
    struct caller *c = arg;
    for (int i = 0; i < 50; i++) {
        json_t *arguments = json_pack("{s:i, s:i}", "caller", c->number, "round", i);
        json_t *value = NULL;
        if (lmo_qmp_call(c->q, "anything", arguments, 20000, &value, NULL) != 0 || !json_equal(arguments, value))
            c->wrong++;
        json_decref(arguments);
        json_decref(value);
    }
    return NULL;
}

START_TEST(many_threads__get_each_their_own_replies)
{
    struct fake_qmp f = {0};
    struct seen seen = {0};
    struct lmo_qmp *q = NULL;
    struct caller callers[8];
    start(&f, &q, &seen);
    expect_up(q);
    for (int i = 0; i < 8; i++) {
        callers[i] = (struct caller){.q = q, .number = i};
        ck_assert_int_eq(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(callers[i].thread, NULL);
        ck_assert_int_eq(callers[i].wrong, 0);
    }
    lmo_qmp_close(q);
    fake_qmp_stop(&f);
}
END_TEST

static void *call_silent(void *arg)
{
    struct caller *c = arg;
    c->wrong = lmo_qmp_call(c->q, "silent", NULL, 60000, NULL, NULL);
    return NULL;
}

static bool tell(struct fake_qmp *f, unsigned connection, const char *command, const json_t *message)
{
    (void)connection;
    (void)command;
    (void)message;
    uint64_t one = 1;
    ck_assert_int_eq((int)write(*(int *)f->arg, &one, sizeof(one)), (int)sizeof(one));
    return true;
}

START_TEST(shutdown__fails_the_calls_under_way_as_unknown)
{
    int received = eventfd(0, EFD_CLOEXEC);
    struct fake_qmp f = {.handle = tell, .arg = &received};
    struct seen seen = {0};
    struct lmo_qmp *q = NULL;
    start(&f, &q, &seen);
    expect_up(q);
    struct caller c = {.q = q};
    uint64_t count;
    ck_assert_int_eq(pthread_create(&c.thread, NULL, call_silent, &c), 0);
    ck_assert_int_eq((int)read(received, &count, sizeof(count)), (int)sizeof(count));
    lmo_qmp_shutdown(q);
    pthread_join(c.thread, NULL);
    ck_assert_int_eq(c.wrong, LMO_E_UNKNOWN);
    ck_assert_int_eq(lmo_qmp_call(q, "anything", NULL, 100, NULL, NULL), LMO_E_UNAVAILABLE);
    lmo_qmp_close(q);
    fake_qmp_stop(&f);
    close(received);
}
END_TEST

START_TEST(socket_path_that_does_not_fit__is_refused)
{
    char path[200];
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    struct lmo_qmp_config cfg = {.path = path};
    struct lmo_qmp *q = NULL;
    ck_assert_int_eq(lmo_qmp_open(&cfg, &q, NULL), LMO_E_INVALID);
    ck_assert_ptr_null(q);
}
END_TEST

Suite *qmp_suite(void)
{
    Suite *s = suite_create("qmp");
    TCase *tc = tcase_create("client");
    tcase_add_checked_fixture(tc, make_dir, remove_dir);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, reply_is_matched_and_its_value_handed_over);
    tcase_add_test(tc, error_reply__is_refused_with_the_services_words);
    tcase_add_test(tc, lost_reply__is_unknown_not_failed);
    tcase_add_test(tc, no_reply_in_time__is_timeout_and_a_later_command_works);
    tcase_add_test(tc, late_reply__is_not_given_to_the_next_call);
    tcase_add_test(tc, service_that_is_not_there__is_unavailable_at_once_and_found_later);
    tcase_add_test(tc, monitor_that_somebody_else_has__is_not_taken_for_connected);
    tcase_add_test(tc, garbage__ends_the_connection);
    tcase_add_test(tc, event_that_overtakes_its_commands_reply__is_delivered);
    tcase_add_test(tc, many_threads__get_each_their_own_replies);
    tcase_add_test(tc, shutdown__fails_the_calls_under_way_as_unknown);
    tcase_add_test(tc, socket_path_that_does_not_fit__is_refused);
    suite_add_tcase(s, tc);
    return s;
}
