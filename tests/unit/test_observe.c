/* test_observe.c - metrics as Prometheus' own tool reads them, readiness, and traces as a collector gets them. */
#include "base/buf.h"
#include "base/metrics.h"
#include "coordinator_fixture.h"
#include "receiver.h"
#include "rpc/outbound.h"
#include "suites.h"

static struct lmo_outbound *outbound;

static void fixture_before_engine(void)
{
    struct lmo_err err = {0};
    const struct lmo_outbound_config config = {0};
    ck_assert_msg(lmo_outbound_open(fx.loop, &config, &outbound, &err) == 0, "%s", err.text);
    fx.engine_config.outbound = outbound;
}

static void fixture_after_engine(void)
{
    outbound = lmo_outbound_close(outbound);
}

#define WAIT_FOR(condition)  \
    do {                     \
        while (!(condition)) \
            usleep(5000);    \
    } while (0)

/* ------------------------------------------------------------------ the format */

/* What `promtool check metrics` says of a text; 0: nothing. */
static int promtool(const char *text, size_t len)
{
    FILE *p = popen("promtool check metrics >&2", "w");
    ck_assert_ptr_nonnull(p);
    ck_assert_uint_eq(fwrite(text, 1, len, p), len);
    return pclose(p);
}

START_TEST(histograms_counters_and_gauges__are_written_as_prometheus_reads_them)
{
    static const char *const values[] = {"plain", "quo\"te\\\n"};
    static const double bounds[] = {0.1, 1, 2.5};
    struct lmo_metrics *m = lmo_metrics_new();
    struct lmo_metric *h = lmo_metrics_add(m, &(struct lmo_metric_spec){.name = "lmo_x_seconds",
                                                                        .help = "X.",
                                                                        .kind = LMO_METRIC_HISTOGRAM,
                                                                        .label = {"what"},
                                                                        .values = {values},
                                                                        .count = {2},
                                                                        .bounds = bounds,
                                                                        .bound_count = 3,
                                                                        .scale = 1e6});
    struct lmo_metric *c = lmo_metrics_add(m, &(struct lmo_metric_spec){.name = "lmo_c_total",
                                                                        .help = "C.",
                                                                        .kind = LMO_METRIC_COUNTER,
                                                                        .label = {"a", "b"},
                                                                        .values = {values, values},
                                                                        .count = {2, 2}});
    struct lmo_metric *g =
        lmo_metrics_add(m, &(struct lmo_metric_spec){.name = "lmo_g", .help = "G.", .kind = LMO_METRIC_GAUGE});
    lmo_metric_observe(h, 0, 0, 50000);
    lmo_metric_observe(h, 0, 0, 100000); /* a bound belongs to its bucket */
    lmo_metric_observe(h, 0, 0, 2000000);
    lmo_metric_observe(h, 0, 0, 9000000);
    lmo_metric_observe(h, 7, 0, 1); /* out of range: left out */
    lmo_metric_observe(NULL, 0, 0, 1);
    lmo_metric_add(c, 1, 0, 3);
    lmo_metric_set(g, 0, 0, 42);
    LMO_AUTO_BUF struct lmo_buf text = LMO_BUF_INIT(65536);
    ck_assert_int_eq(lmo_metrics_render(m, &text), 0);
    ck_assert_str_eq(
        lmo_buf_text(&text),
        "# HELP lmo_x_seconds X.\n# TYPE lmo_x_seconds histogram\n"
        "lmo_x_seconds_bucket{what=\"plain\",le=\"0.1\"} 2\nlmo_x_seconds_bucket{what=\"plain\",le=\"1\"} 2\n"
        "lmo_x_seconds_bucket{what=\"plain\",le=\"2.5\"} 3\nlmo_x_seconds_bucket{what=\"plain\",le=\"+Inf\"} 4\n"
        "lmo_x_seconds_sum{what=\"plain\"} 11.15\nlmo_x_seconds_count{what=\"plain\"} 4\n"
        "# HELP lmo_c_total C.\n# TYPE lmo_c_total counter\n"
        "lmo_c_total{a=\"quo\\\"te\\\\\\n\",b=\"plain\"} 3\n"
        "# HELP lmo_g G.\n# TYPE lmo_g gauge\nlmo_g 42\n");
    ck_assert_int_eq(promtool(text.data, text.len), 0);
    static const char wrong[] = "# TYPE x counter\nx{a=} 1\n";
    ck_assert_int_ne(promtool(wrong, sizeof wrong - 1), 0); /* the tool can say no */
    lmo_metrics_free(m);
}
END_TEST

static const char *cancel_path(char ret[96])
{
    snprintf(ret, 96, "/v1/migrations/%s/cancel", member("id"));
    return ret;
}

/* A migration that is queued, because its destination takes none, and cancelled: accepted to ended, without a worker. */
static void one_that_ends(void)
{
    static const char *const headers[] = {"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", NULL};
    char path[96];
    ck_assert_uint_eq(ask("PATCH", "/v1/hosts/hv2", "{\"max_incoming\":0}"), 200);
    ck_assert_uint_eq(fixture_ask(LMO_ROLE_OPERATOR, "POST", "/v1/migrations",
                                  "{\"vm\":\"g1\",\"destination\":\"hv2\"}", headers),
                      202);
    ck_assert_uint_eq(ask("POST", cancel_path(path), "{}"), 202);
}

START_TEST(the_coordinators_metrics__pass_prometheus_own_check_and_tell_what_happened)
{
    fixture_two_hosts();
    one_that_ends();
    ck_assert_uint_eq(fixture_ask(LMO_ROLE_VIEWER, "GET", "/metrics", NULL, NULL), 200);
    ck_assert_int_eq(strncmp(fx.answer.content_type, "text/plain; version=0.0.4", 25), 0);
    ck_assert_int_eq(promtool(fx.answer.body, fx.answer.body_len), 0);
    static const char *const expected[] = {
        "\nlmo_migrations_total{outcome=\"aborted\"} 1\n",
        "\nlmo_phase_duration_seconds_count{phase=\"queued\"} 1\n",
        "\nlmo_open_migrations{phase=\"queued\"} 0\n",
        "\nlmo_queue_length{limit=\"incoming\"} 0\n",
        "\nlmo_hosts{state=\"up\"} 2\n",
        "\nlmo_http_requests_total{route=\"POST /v1/migrations\",code=\"202\"} 1\n",
        "\nlmo_store_stalled 0\n",
        "\nlmo_build_info{version=\"",
        "# TYPE lmo_worker_round_trip_seconds histogram",
        "# TYPE lmo_blackout_seconds histogram",
        "# TYPE lmo_convergence_iterations histogram",
        "# TYPE lmo_call_retries_total counter",
        "\nlmo_store_commit_seconds_count ",
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        ck_assert_msg(strstr(fx.answer.body, expected[i]) != NULL, "%s is not in\n%s", expected[i], fx.answer.body);
    }
    ck_assert_uint_eq(fixture_ask(LMO_ROLE_WORKER, "GET", "/metrics", NULL, NULL), 403);
}
END_TEST

START_TEST(readiness__says_what_is_looked_at)
{
    ck_assert_uint_eq(fixture_ask(LMO_ROLE_VIEWER, "GET", "/readyz", NULL, NULL), 200);
    ck_assert(json_is_true(json_object_get(fx.body, "ready")));
    static const char *const checks[] = {"engine_started", "store_writable", "term_ours", "loop_lag"};
    for (size_t i = 0; i < 4; i++) {
        ck_assert(json_is_true(json_object_get(json_object_get(json_object_get(fx.body, "checks"), checks[i]), "ok")));
    }
}
END_TEST

/* A plain request on loopback, as a scraper makes it. */
static void plain_get(const char *path, char *ret, size_t size)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(lmo_api_metrics_port(fx.api)),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char text[256];
    int fd = socket(AF_INET, SOCK_STREAM, 0),
        n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    ck_assert_int_eq(write(fd, text, (size_t)n), n);
    size_t used = 0;
    for (ssize_t got; used < size - 1 && (got = read(fd, ret + used, size - 1 - used)) > 0;) {
        used += (size_t)got;
    }
    ret[used] = '\0';
    close(fd);
}

START_TEST(the_listener_without_tls__shows_figures_and_nothing_else_on_loopback_only)
{
    static char text[1U << 20];
    struct lmo_err err = {0};
    plain_get("/metrics", text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "lmo_build_info"));
    plain_get("/readyz", text, sizeof text);
    ck_assert_int_eq(strncmp(text, "HTTP/1.1 200", 12), 0);
    plain_get("/v1/hosts", text, sizeof text);
    ck_assert_int_eq(strncmp(text, "HTTP/1.1 404", 12), 0);
    struct lmo_api_config config = fx.api_config;
    struct lmo_api *other = NULL;
    LMO_COPY(config.metrics_address, "0.0.0.0:0");
    ck_assert_int_eq(lmo_api_start(&config, &other, &err), LMO_E_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "loopback"));
}
END_TEST

/* ------------------------------------------------------------------ traces */

static const char *text_of(const json_t *o, const char *name)
{
    const char *text = json_string_value(json_object_get(o, name));
    return text ? text : "";
}

static const char *attribute(const json_t *span, const char *key)
{
    size_t i;
    const json_t *a;
    json_array_foreach(json_object_get(span, "attributes"), i, a)
    {
        if (strcmp(text_of(a, "key"), key) == 0) {
            return text_of(json_object_get(a, "value"), "stringValue");
        }
    }
    return "";
}

static bool is_hex(const char *text, size_t len)
{
    return strlen(text) == len && strspn(text, "0123456789abcdef") == len;
}

/* The shapes of the protobuf's JSON mapping with OTLP's own exceptions: ids in hexadecimal, enums as numbers, 64-bit integers as
 * decimal strings, names in lowerCamelCase. */
static void check_span(const json_t *span)
{
    static const char *const known[] = {"traceId",           "spanId",          "parentSpanId", "name",  "kind",
                                        "startTimeUnixNano", "endTimeUnixNano", "attributes",   "status"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)span, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < 9; i++) {
            found = found || strcmp(known[i], key) == 0;
        }
        ck_assert_msg(found, "unknown member %s", key);
    }
    ck_assert(is_hex(text_of(span, "traceId"), 32) && is_hex(text_of(span, "spanId"), 16) &&
              is_hex(text_of(span, "parentSpanId"), 16));
    ck_assert(json_is_integer(json_object_get(span, "kind")));
    ck_assert(json_is_integer(json_object_get(json_object_get(span, "status"), "code")));
    unsigned long long start = strtoull(text_of(span, "startTimeUnixNano"), NULL, 10),
                       end = strtoull(text_of(span, "endTimeUnixNano"), NULL, 10);
    ck_assert(start > 1600000000000000000ULL && end >= start);
}

START_TEST(a_migrations_trace__reaches_the_collector_after_failures_with_a_span_per_phase)
{
    fixture_two_hosts();
    receiver_put(".plan", "503 2\n200 1000 {}");
    one_that_ends();
    WAIT_FOR(receiver_count() >= 3);
    LMO_AUTO_JSON json_t *got = receiver_got();
    const json_t *one = json_array_get(got, 2);
    ck_assert_str_eq(text_of(one, "path"), "/v1/traces");
    ck_assert_str_eq(receiver_header(one, "content-type"), "application/json");
    ck_assert_str_eq(text_of(json_array_get(got, 0), "body"), text_of(one, "body")); /* the same, tried again */
    LMO_AUTO_JSON json_t *body = receiver_body(one);
    const json_t *resource = json_array_get(json_object_get(body, "resourceSpans"), 0);
    ck_assert_str_eq(attribute(json_object_get(resource, "resource"), "service.name"), "lmod");
    const json_t *scope = json_array_get(json_object_get(resource, "scopeSpans"), 0),
                 *spans = json_object_get(scope, "spans");
    ck_assert_str_eq(text_of(json_object_get(scope, "scope"), "name"), "lmo");
    ck_assert_uint_eq(json_array_size(spans), 2);
    const json_t *root = json_array_get(spans, 0), *queued = json_array_get(spans, 1);
    check_span(root);
    check_span(queued);
    ck_assert_str_eq(text_of(root, "traceId"), "4bf92f3577b34da6a3ce929d0e0e4736");
    ck_assert_str_eq(text_of(root, "parentSpanId"), "00f067aa0ba902b7");
    ck_assert_str_eq(text_of(root, "name"), "migration");
    ck_assert_str_eq(attribute(root, "lmo.outcome"), "aborted");
    ck_assert_str_eq(attribute(root, "lmo.vm.name"), "g1");
    ck_assert_str_eq(text_of(queued, "parentSpanId"), text_of(root, "spanId"));
    ck_assert_str_eq(text_of(queued, "name"), "queued");
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(root, "status"), "code")), 2);
    do { /* counted once the answer has come */
        ck_assert_uint_eq(fixture_ask(LMO_ROLE_VIEWER, "GET", "/metrics", NULL, NULL), 200);
    } while (!strstr(fx.answer.body, "\nlmo_trace_spans_total{result=\"exported\"} 2\n"));
}
END_TEST

START_TEST(a_collector_that_refuses__loses_spans_which_are_counted_and_not_tried_again)
{
    fixture_two_hosts();
    receiver_put(".plan", "400 1\n200 1000 {}");
    one_that_ends();
    do {
        usleep(5000);
        ck_assert_uint_eq(fixture_ask(LMO_ROLE_VIEWER, "GET", "/metrics", NULL, NULL), 200);
    } while (!strstr(fx.answer.body, "\nlmo_trace_spans_total{result=\"dropped\"} 2\n"));
    ck_assert_uint_eq(receiver_count(), 1);
}
END_TEST

static void set_up(void)
{
    receiver_start(NULL, NULL);
    fx.engine_config = (struct lmo_engine_config){0};
    snprintf(fx.engine_config.otlp.endpoint, sizeof fx.engine_config.otlp.endpoint, "http://127.0.0.1:%u/v1/traces",
             receiver.port);
    fx.api_config = (struct lmo_api_config){.metrics_address = "127.0.0.1:0"};
    fixture_set_up();
}

static void tear_down(void)
{
    fixture_tear_down();
    receiver_stop();
}

Suite *observe_suite(void);
Suite *observe_suite(void)
{
    Suite *s = suite_create("observe");
    TCase *t = tcase_create("coordinator");
    tcase_add_unchecked_fixture(t, fixture_pki, fake_pki_tear_down);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, the_coordinators_metrics__pass_prometheus_own_check_and_tell_what_happened);
    tcase_add_test(t, readiness__says_what_is_looked_at);
    tcase_add_test(t, the_listener_without_tls__shows_figures_and_nothing_else_on_loopback_only);
    tcase_add_test(t, a_migrations_trace__reaches_the_collector_after_failures_with_a_span_per_phase);
    tcase_add_test(t, a_collector_that_refuses__loses_spans_which_are_counted_and_not_tried_again);
    suite_add_tcase(s, t);
    TCase *f = tcase_create("format");
    tcase_set_timeout(f, 60);
    tcase_add_test(f, histograms_counters_and_gauges__are_written_as_prometheus_reads_them);
    suite_add_tcase(s, f);
    return s;
}
