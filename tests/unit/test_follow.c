/* test_follow.c - following the event log over mutual TLS: order, filters, coming back, gaps, readers that are slow. */
#include "base/buf.h"
#include "coordinator_fixture.h"
#include "suites.h"

static uint64_t keep_count; /* 0: as the store has it */

static void fixture_before_engine(void)
{
    if (keep_count) {
        fx.store->events->keep(fx.store, keep_count, 0);
    }
}

static void fixture_after_engine(void) {}

/* ------------------------------------------------------------------ a follower */

struct follower {
    struct lmo_buf text;
    uint64_t handle;
    bool ended;
    int result;
    unsigned status;
    /* parsed so far */
    size_t parsed;
    unsigned events, gaps, cuts, beats, progress;
    uint64_t last_id, first_id;
    bool hole; /* between two events' numbers */
    char type[LMO_EVENT_TYPE_MAX], data[4096];
};

static void parse(struct follower *f)
{
    const char *text = lmo_buf_text(&f->text) + f->parsed, *end;
    while ((end = strstr(text, "\n\n")) != NULL) {
        char block[8192], *line, *rest = NULL;
        uint64_t id = 0;
        char type[LMO_EVENT_TYPE_MAX] = "", data[4096] = "";
        bool beat = false;
        snprintf(block, sizeof block, "%.*s", (int)(end - text), text);
        for (line = strtok_r(block, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
            if (strncmp(line, "id: ", 4) == 0) {
                id = strtoull(line + 4, NULL, 10);
            } else if (strncmp(line, "event: ", 7) == 0) {
                LMO_COPY(type, line + 7);
            } else if (strncmp(line, "data: ", 6) == 0) {
                LMO_COPY(data, line + 6);
            } else {
                beat = beat || line[0] == ':';
            }
        }
        text = end + 2;
        f->beats += beat;
        if (type[0]) {
            LMO_COPY(f->type, type);
            LMO_COPY(f->data, data);
            if (strcmp(type, "gap") == 0) {
                f->gaps++;
                f->last_id = id;
            } else if (strcmp(type, "cut") == 0) {
                f->cuts++;
            } else if (!id) {
                f->progress++;
            } else {
                f->hole = f->hole || (f->events > 0 && id != f->last_id + 1);
                f->first_id = f->events++ ? f->first_id : id;
            }
        }
        f->last_id = id ? id : f->last_id;
    }
    f->parsed = (size_t)(text - lmo_buf_text(&f->text));
}

static int on_data(void *arg, const char *data, size_t len)
{
    struct follower *f = arg;
    ck_assert_int_eq(lmo_buf_append(&f->text, data, len), 0);
    parse(f);
    return 0;
}

static void on_end(void *arg, const struct lmo_http_response *r)
{
    struct follower *f = arg;
    f->ended = true;
    f->result = r->result;
    f->status = r->status;
}

static void follow_as(struct follower *f, enum lmo_role role, const char *path, const char *last)
{
    struct lmo_err err = {0};
    char url[512], header[64];
    const char *headers[] = {header, NULL};
    snprintf(header, sizeof header, "Last-Event-ID: %s", last ? last : "");
    fixture_url(url, path);
    *f = (struct follower){.text = LMO_BUF_INIT(64U << 20)};
    const struct lmo_http_request_spec spec = {.method = "GET",
                                               .url = url,
                                               .headers = last ? headers : NULL,
                                               .timeout_ms = 60000,
                                               .peer_role = LMO_ROLE_COORDINATOR,
                                               .on_data = on_data,
                                               .data_arg = f};
    ck_assert_int_eq(lmo_http_request_async(fixture_client(role), &spec, on_end, f, &f->handle, &err), 0);
}

static void leave(struct follower *f)
{
    lmo_http_cancel(fixture_client(LMO_ROLE_VIEWER), &f->handle);
    lmo_buf_done(&f->text);
}

static void stop_client(void *arg)
{
    lmo_loop_stop(arg);
}

/* Lets the client work for a moment; what is waited for is a condition of the caller's, bounded by the test's own time. */
static void turn(void)
{
    uint64_t timer;
    ck_assert_int_eq(lmo_loop_timer(fx.client_loop, 5, stop_client, fx.client_loop, &timer), 0);
    ck_assert_int_eq(lmo_loop_run(fx.client_loop), 0);
}

#define WAIT_FOR(condition)  \
    do {                     \
        while (!(condition)) \
            turn();          \
    } while (0)

/* One that has left is noticed with the next beat: until then its place is taken. */
static void follow(struct follower *f, const char *path, const char *last)
{
    for (bool there = false; !there;) {
        follow_as(f, LMO_ROLE_VIEWER, path, last);
        WAIT_FOR(f->ended || f->text.len > 0);
        there = f->status != 429;
        if (!there) {
            lmo_buf_done(&f->text);
        }
    }
}

/* n events: host.limits. */
static void happen(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ck_assert_uint_eq(ask("PATCH", "/v1/hosts/hv1", "{\"max_incoming\":2}"), 200);
    }
}

static uint64_t newest(void)
{
    struct follower f;
    follow(&f, "/v1/events?since=0", NULL);
    uint64_t seen;
    do { /* until it is told nothing more: the log is at rest in these tests */
        seen = f.last_id;
        for (int i = 0; i < 20; i++) {
            turn();
        }
    } while (f.last_id != seen || f.events == 0);
    leave(&f);
    return seen;
}

/* ------------------------------------------------------------------ tests */

START_TEST(what_happens__is_told_in_order_with_numbers_and_bodies)
{
    struct follower f;
    fixture_two_hosts();
    uint64_t from = newest();
    follow(&f, "/v1/events", NULL);
    WAIT_FOR(f.last_id >= from); /* it is there: its place was told */
    happen(20);
    WAIT_FOR(f.events == 20);
    ck_assert(!f.hole);
    ck_assert_uint_eq(f.first_id, from + 1);
    ck_assert_str_eq(f.type, "host.limits");
    LMO_AUTO_JSON json_t *body = json_loads(f.data, 0, NULL);
    ck_assert_ptr_nonnull(body);
    ck_assert_str_eq(json_string_value(json_object_get(body, "type")), "host.limits");
    ck_assert_uint_eq((uint64_t)json_integer_value(json_object_get(body, "sequence")), f.last_id);
    ck_assert_ptr_nonnull(json_object_get(body, "timestamp"));
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(body, "data"), "host")), "hv1");
    leave(&f);
}
END_TEST

START_TEST(a_migration__is_followed_from_its_acceptance_on)
{
    struct follower f, other;
    char path[128];
    fixture_two_hosts();
    follow(&f, "/v1/events?since=0&types=migration.*&vm=" FIXTURE_GUEST_NAME, NULL);
    ck_assert_uint_eq(ask("POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}"), 202);
    WAIT_FOR(f.events == 2);
    ck_assert_str_eq(f.type, "migration.phase");
    ck_assert_ptr_nonnull(strstr(f.data, "\"phase\":\"precheck\""));
    ck_assert_ptr_nonnull(strstr(f.data, "\"previous\":\"queued\""));
    snprintf(path, sizeof path, "/v1/events?since=0&migration=%s&host=hv2", member("id"));
    follow(&other, path, NULL);
    WAIT_FOR(other.events == 2);
    ck_assert_uint_eq(other.last_id, f.last_id);
    leave(&other);
    follow(&other, "/v1/events?since=0&host=hv7", NULL);
    WAIT_FOR(other.last_id > 0);
    ck_assert_uint_eq(other.events, 0);
    leave(&other);
    leave(&f);
}
END_TEST

START_TEST(a_follower_that_comes_back__misses_and_doubles_nothing_also_over_a_restart)
{
    struct follower f;
    char last[32];
    fixture_two_hosts();
    uint64_t from = newest();
    follow(&f, "/v1/events", NULL);
    WAIT_FOR(f.last_id >= from);
    happen(10);
    WAIT_FOR(f.events >= 3);
    uint64_t had = f.last_id;
    leave(&f);
    happen(10);
    fx.clients[LMO_ROLE_VIEWER] = lmo_http_client_free(fx.clients[LMO_ROLE_VIEWER]);
    fx.clients[LMO_ROLE_OPERATOR] = lmo_http_client_free(fx.clients[LMO_ROLE_OPERATOR]);
    fixture_stop();
    fixture_start();
    snprintf(last, sizeof last, "%llu", (unsigned long long)had);
    follow(&f, "/v1/events?since=1&types=host.limits", last); /* the header counts, not the URL */
    WAIT_FOR(f.last_id >= from + 20 && f.events == 20 - (unsigned)(had - from));
    ck_assert(!f.hole);
    ck_assert_uint_eq(f.first_id, had + 1);
    ck_assert_uint_eq(f.gaps, 0);
    happen(5); /* and what is new after the restart has new numbers */
    WAIT_FOR(f.events == 25 - (unsigned)(had - from));
    leave(&f);
}
END_TEST

START_TEST(a_follower_that_is_too_late__is_told_of_the_gap)
{
    struct follower f;
    fixture_two_hosts();
    happen(30);
    uint64_t last = newest();
    fixture_stop();
    keep_count = 5;
    fixture_start();
    fx.clients[LMO_ROLE_OPERATOR] = lmo_http_client_free(fx.clients[LMO_ROLE_OPERATOR]);
    fx.clients[LMO_ROLE_VIEWER] = lmo_http_client_free(fx.clients[LMO_ROLE_VIEWER]);
    happen(1);
    happen(1);
    follow(&f, "/v1/events", "3");
    WAIT_FOR(f.events >= 3 && f.last_id > last);
    ck_assert_uint_eq(f.gaps, 1);
    ck_assert_uint_gt(f.first_id, 4);
    ck_assert(!f.hole);
    leave(&f);
    follow(&f, "/v1/events", "999999"); /* of another store, or one that was put back */
    WAIT_FOR(f.gaps == 1);
    leave(&f);
    follow(&f, "/v1/events?since=0", NULL); /* all that is kept: that is no gap */
    WAIT_FOR(f.last_id > last);
    ck_assert_uint_eq(f.gaps, 0);
    leave(&f);
}
END_TEST

START_TEST(a_slow_reader__is_cut_with_a_reason_keeps_nobody_waiting_and_comes_back_without_loss)
{
    struct follower slow, quick;
    char last[32];
    fixture_two_hosts();
    uint64_t from = newest();
    struct lmo_err err = {0};
    const struct lmo_http_client_config narrow = {.tls = fx.files[LMO_ROLE_CONTROL_PLANE], .receive_buffer = 4096};
    ck_assert_int_eq(lmo_http_client_new(fx.client_loop, &narrow, &fx.clients[LMO_ROLE_CONTROL_PLANE], &err), 0);
    follow_as(&slow, LMO_ROLE_CONTROL_PLANE, "/v1/events", NULL);
    WAIT_FOR(slow.last_id >= from);
    /* Nobody runs its loop from here on: it takes nothing but what its socket holds. The buffer is small; so is the time. */
    struct lmo_loop *slow_loop = fx.client_loop;
    struct lmo_http_client *slow_client = fx.clients[LMO_ROLE_CONTROL_PLANE];
    fx.clients[LMO_ROLE_CONTROL_PLANE] = NULL;
    fx.clients[LMO_ROLE_OPERATOR] = lmo_http_client_free(fx.clients[LMO_ROLE_OPERATOR]);
    fx.clients[LMO_ROLE_VIEWER] = lmo_http_client_free(fx.clients[LMO_ROLE_VIEWER]);
    ck_assert_int_eq(lmo_loop_new(16, &fx.client_loop, &err), 0);
    follow(&quick, "/v1/events", NULL);
    WAIT_FOR(quick.last_id >= from);
    unsigned happened = 0;
    for (bool cut = false; !cut;) { /* until the server has closed it: then a new follower gets the place */
        happen(100);
        happened += 100;
        struct follower third;
        follow_as(&third, LMO_ROLE_CONTROL_PLANE, "/v1/events", NULL); /* the third of two that may */
        WAIT_FOR(third.ended || third.last_id > 0);
        cut = !third.ended;
        ck_assert(cut || third.status == 429);
        lmo_http_cancel(fixture_client(LMO_ROLE_CONTROL_PLANE), &third.handle);
        lmo_buf_done(&third.text);
        ck_assert_uint_le(happened, 100000);
    }
    WAIT_FOR(quick.events == happened); /* it was not held up */
    ck_assert(!quick.hole);
    while (!slow.ended) { /* what was on the way, the reason, the end */
        uint64_t timer;
        ck_assert_int_eq(lmo_loop_timer(slow_loop, 5, stop_client, slow_loop, &timer), 0);
        ck_assert_int_eq(lmo_loop_run(slow_loop), 0);
    }
    ck_assert(!slow.hole);
    uint64_t had = slow.last_id;
    unsigned events = slow.events;
    lmo_http_client_free(slow_client);
    lmo_loop_free(slow_loop);
    lmo_buf_done(&slow.text);
    leave(&quick);
    snprintf(last, sizeof last, "%llu", (unsigned long long)had);
    follow(&slow, "/v1/events", last);
    WAIT_FOR(slow.events == happened - events);
    ck_assert_uint_eq(slow.gaps, 0);
    ck_assert_uint_eq(slow.first_id, had + 1);
    leave(&slow);
}
END_TEST

START_TEST(a_quiet_log__still_beats_and_says_where_the_follower_stands)
{
    struct follower f;
    fixture_two_hosts();
    uint64_t from = newest();
    follow(&f, "/v1/events?types=migration.*", NULL); /* nothing of that kind: only the beats tell its place */
    WAIT_FOR(f.beats >= 2);
    ck_assert_uint_eq(f.events, 0);
    ck_assert_uint_eq(f.last_id, from);
    happen(3);
    unsigned beats = f.beats;
    WAIT_FOR(f.beats >= beats + 2);
    ck_assert_uint_eq(f.last_id, from + 3);
    leave(&f);
}
END_TEST

START_TEST(what_is_kept__can_be_read_to_its_end)
{
    struct follower f;
    fixture_two_hosts();
    happen(300);
    follow(&f, "/v1/events?since=0&follow=false", NULL);
    WAIT_FOR(f.ended);
    ck_assert_uint_eq(f.status, 200);
    ck_assert_int_eq(f.result, 0);
    ck_assert_uint_eq(f.events, 300 + 4);
    ck_assert(!f.hole);
    lmo_buf_done(&f.text);
}
END_TEST

START_TEST(stopping__ends_streams_and_waits_for_nobody)
{
    struct follower f;
    fixture_two_hosts();
    follow(&f, "/v1/events?since=0", NULL);
    WAIT_FOR(f.events > 0);
    fixture_stop();
    WAIT_FOR(f.ended);
    lmo_buf_done(&f.text);
    fx.clients[LMO_ROLE_VIEWER] = lmo_http_client_free(fx.clients[LMO_ROLE_VIEWER]);
    fixture_start();
}
END_TEST

START_TEST(bad_filters_and_places__are_refused_by_name)
{
    static const struct {
        const char *path, *last, *field;
    } cases[] = {
        {"/v1/events?types=Migration", NULL, "types"},
        {"/v1/events?migration=x", NULL, "migration"},
        {"/v1/events?drain=x", NULL, "drain"},
        {"/v1/events?vm=..%2F", NULL, "vm"},
        {"/v1/events?host=a%20b", NULL, "host"},
        {"/v1/events?since=-1", NULL, "since"},
        {"/v1/events?since=x", NULL, "since"},
        {"/v1/events", "abc", "Last-Event-ID"},
        {"/v1/events?progress=yes", NULL, "progress"},
        {"/v1/events?follow=1", NULL, "follow"},
        {"/v1/events?since=9999999999999999999", NULL, "since"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[64];
        const char *headers[] = {header, NULL};
        snprintf(header, sizeof header, "Last-Event-ID: %s", cases[i].last ? cases[i].last : "");
        ck_assert_uint_eq(fixture_ask(LMO_ROLE_VIEWER, "GET", cases[i].path, NULL, cases[i].last ? headers : NULL),
                          400);
        ck_assert_str_eq(member("field"), cases[i].field);
    }
    ck_assert_uint_eq(fixture_ask(LMO_ROLE_WORKER, "GET", "/v1/events", NULL, NULL), 403);
}
END_TEST

static void set_up(void)
{
    fx.engine_config = (struct lmo_engine_config){.feed = {.heartbeat_ms = 200, .slow_ms = 500}};
    fx.api_config = (struct lmo_api_config){.followers_max = 2, .stream_buffer = 16384, .stream_stall_ms = 2000};
    fixture_set_up();
}

Suite *follow_suite(void);
Suite *follow_suite(void)
{
    Suite *s = suite_create("follow");
    TCase *t = tcase_create("follow");
    tcase_add_unchecked_fixture(t, fixture_pki, fake_pki_tear_down);
    tcase_add_checked_fixture(t, set_up, fixture_tear_down);
    tcase_set_timeout(t, 30);
    tcase_add_test(t, what_happens__is_told_in_order_with_numbers_and_bodies);
    tcase_add_test(t, a_migration__is_followed_from_its_acceptance_on);
    tcase_add_test(t, a_follower_that_comes_back__misses_and_doubles_nothing_also_over_a_restart);
    tcase_add_test(t, a_follower_that_is_too_late__is_told_of_the_gap);
    tcase_add_test(t, a_slow_reader__is_cut_with_a_reason_keeps_nobody_waiting_and_comes_back_without_loss);
    tcase_add_test(t, a_quiet_log__still_beats_and_says_where_the_follower_stands);
    tcase_add_test(t, what_is_kept__can_be_read_to_its_end);
    tcase_add_test(t, stopping__ends_streams_and_waits_for_nobody);
    tcase_add_test(t, bad_filters_and_places__are_refused_by_name);
    suite_add_tcase(s, t);
    return s;
}
