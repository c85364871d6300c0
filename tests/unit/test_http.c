/* test_http.c - listener and client over real mutual TLS on loopback. */
#include "suites.h"
#include "certs.h"
#include "tmpdir.h"
#include "base/clock.h"
#include "base/json.h"
#include "http/client.h"
#include "http/server.h"

#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

static char dir[TMPDIR_MAX];
static struct test_ca *ca, *other_ca;
static struct lmo_http_server *server;
static struct lmo_loop *loop;
static struct lmo_err err;
static atomic_int handled;

/* The request that /keep holds, for another thread to answer. */
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t kept_there = PTHREAD_COND_INITIALIZER;
static struct lmo_http_request *kept;

static struct lmo_http_request *wait_kept(void)
{
    pthread_mutex_lock(&kept_lock);
    while (!kept)
        pthread_cond_wait(&kept_there, &kept_lock);
    struct lmo_http_request *req = kept;
    kept = NULL;
    pthread_mutex_unlock(&kept_lock);
    return req;
}

static void on_echo(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    (void)arg;
    size_t len;
    const char *body = lmo_http_body(req, &len), *q = lmo_http_query(req, "q"), *h = lmo_http_header(req, "x-test");
    uint64_t n = 7;
    struct lmo_err why = {0};
    if (lmo_http_query_u64(req, "n", 0, 100, &n, &why) < 0) {
        lmo_http_reply_error(req, &why);
        return;
    }
    json_t *json = json_object();
    int r = lmo_json_put_str(json, "id", params->value[0]);
    r |= lmo_json_put_str(json, "method", lmo_http_method(req));
    r |= lmo_json_put_str(json, "peer", lmo_http_peer(req)->name);
    r |= lmo_json_put_str(json, "role", lmo_role_name(lmo_http_peer(req)->role));
    r |= lmo_json_put_str(json, "q", q ? q : "(none)");
    r |= lmo_json_put_str(json, "h", h ? h : "(none)");
    r |= lmo_json_put_u64(json, "n", n);
    r |= lmo_json_put_u64(json, "len", len);
    r |= lmo_json_put_u64(json, "first", len ? (unsigned char)body[0] : 0);
    r |= lmo_http_set_header(req, "Location", "/x");
    ck_assert_int_eq(r, 0);
    lmo_http_reply_json(req, 201, json);
}

static void on_small(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    (void)arg, (void)params;
    lmo_http_reply(req, 200, "application/json", "{}", 2);
}

static void on_keep(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    (void)arg, (void)params;
    uint64_t ms = 10000;
    (void)!lmo_http_query_u64(req, "ms", 0, 100000, &ms, NULL);
    lmo_http_set_timeout(req, ms);
    pthread_mutex_lock(&kept_lock);
    kept = req;
    pthread_cond_signal(&kept_there);
    pthread_mutex_unlock(&kept_lock);
}

/* /queue: requests that two threads answer, in no order. */
static struct lmo_http_request *queued[2048];
static size_t queued_count;
static bool queue_ends;

static void on_queue(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    (void)arg, (void)params;
    uint64_t ms = 10000;
    (void)!lmo_http_query_u64(req, "ms", 0, 100000, &ms, NULL);
    lmo_http_set_timeout(req, ms);
    pthread_mutex_lock(&kept_lock);
    queued[queued_count++] = req;
    pthread_cond_signal(&kept_there);
    pthread_mutex_unlock(&kept_lock);
}

static void *answer_queue(void *arg)
{
    unsigned seed = *(unsigned *)arg;
    pthread_mutex_lock(&kept_lock);
    while (!queue_ends || queued_count > 0) {
        if (queued_count == 0) {
            pthread_cond_wait(&kept_there, &kept_lock);
            continue;
        }
        size_t i = (size_t)rand_r(&seed) % queued_count;
        struct lmo_http_request *req = queued[i];
        queued[i] = queued[--queued_count];
        pthread_mutex_unlock(&kept_lock);
        if (rand_r(&seed) % 4 == 0)
            usleep((unsigned)rand_r(&seed) % 3000);
        lmo_http_reply(req, 200, "text/plain", "x", 1);
        pthread_mutex_lock(&kept_lock);
    }
    pthread_mutex_unlock(&kept_lock);
    return NULL;
}

static void on_large(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    (void)arg, (void)params;
    static char text[300000];
    memset(text, 'x', sizeof text);
    lmo_http_reply(req, 200, "text/plain", text, sizeof text);
}

static void handler(void *arg, struct lmo_http_request *req)
{
    static const struct lmo_http_route routes[] = {
        {"PUT", "/v1/echo/{id}", on_echo}, {"GET", "/v1/echo/{id}", on_echo}, {"GET", "/small", on_small},
        {"GET", "/keep", on_keep},         {"POST", "/keep", on_keep},        {"GET", "/large", on_large},
        {"GET", "/queue", on_queue},
    };
    atomic_fetch_add(&handled, 1);
    lmo_http_dispatch(routes, sizeof routes / sizeof routes[0], arg, req);
}

static struct lmo_http_server *start_server(const struct lmo_http_server_config *base)
{
    struct lmo_http_server_config config = *base;
    struct lmo_http_server *s = NULL;
    strcpy(config.address, "127.0.0.1:0");
    if (!config.tls.ca[0])
        config.tls = test_tls(dir, "ca", "worker", 1);
    config.handler = handler;
    config.log_name = "test";
    ck_assert_msg(lmo_http_server_new(&config, &s, &err) == 0, "%s", err.text);
    return s;
}

static struct lmo_http_client *start_client(const char *ca_name, const char *file)
{
    struct lmo_http_client_config config = {.tls = test_tls(dir, ca_name, file, strcmp(ca_name, "ca") == 0)};
    struct lmo_http_client *client = NULL;
    ck_assert_msg(lmo_http_client_new(loop, &config, &client, &err) == 0, "%s", err.text);
    return client;
}

static void setup(void)
{
    tmpdir_make(dir, "http");
    memset(&err, 0, sizeof err);
    handled = 0;
    kept = NULL;
    ca = test_ca_new(dir, "ca");
    other_ca = test_ca_new(dir, "other");
    test_ca_issue(ca, "worker", &(struct test_leaf){.uri = "urn:lmo:worker:hv1"});
    test_ca_issue(ca, "coordinator", &(struct test_leaf){.uri = "urn:lmo:coordinator:main"});
    test_ca_crl(ca, 0, 3600);
    ck_assert_int_eq(lmo_loop_new(64, &loop, &err), 0);
}

static void teardown(void)
{
    server = lmo_http_server_free(server);
    loop = lmo_loop_free(loop);
    test_ca_free(ca);
    test_ca_free(other_ca);
    tmpdir_remove(dir);
}

static const char *url(const char *path)
{
    static char text[8][512];
    static unsigned next;
    char *t = text[next++ % 8];
    snprintf(t, sizeof text[0], "https://127.0.0.1:%u%s", lmo_http_server_port(server), path);
    return t;
}

#define GET(path_)                   \
    ((struct lmo_http_request_spec){ \
        .method = "GET", .url = url(path_), .timeout_ms = 10000, .peer_role = LMO_ROLE_WORKER, .peer_name = "hv1"})

static int fetch(struct lmo_http_client *client, struct lmo_http_request_spec spec, unsigned *ret_status,
                 char *ret_body)
{
    struct lmo_http_answer answer = {0};
    *ret_status = 0;
    int r = lmo_http_request_sync(client, &spec, &answer, &err);
    if (r == 0) {
        *ret_status = answer.status;
        if (ret_body)
            snprintf(ret_body, 1024, "%s", answer.body);
        lmo_http_answer_done(&answer);
    }
    return r;
}

/* ---- identity and routing: no network ---- */

START_TEST(roles_and_names__parse_from_the_urn_and_nothing_else)
{
    struct lmo_identity id = {0};
    char urn[LMO_URN_MAX];
    for (int role = LMO_ROLE_COORDINATOR; role <= LMO_ROLE_FAULT_INJECTOR; role++) {
        lmo_identity_format_urn((enum lmo_role)role, "a.b-c_1", urn);
        ck_assert_int_eq(lmo_identity_parse_urn(urn, &id, &err), 0);
        ck_assert_int_eq(id.role, role);
        ck_assert_str_eq(id.name, "a.b-c_1");
    }
    static const char *const bad[] = {"urn:lmo:worker:",
                                      "urn:lmo:worker",
                                      "urn:lmo:root:x",
                                      "urn:lmo::x",
                                      "urn:lmo:none:x",
                                      "urn:lmo:Worker:x",
                                      "URN:lmo:worker:x",
                                      "urn:lmo:worker:a/b",
                                      "urn:lmo:worker:a:b",
                                      "",
                                      "urn:lmo:worker:0123456789012345678901234567890123456789012345678901234567890123",
                                      "urn:lmo:workerworkerworkerworkerworkerworker:x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct lmo_identity untouched = {.role = LMO_ROLE_VIEWER};
        ck_assert_int_eq(lmo_identity_parse_urn(bad[i], &untouched, &err), LMO_E_INVALID);
        ck_assert_int_eq(untouched.role, LMO_ROLE_VIEWER);
    }
}
END_TEST

START_TEST(path_templates__match_whole_segments)
{
    struct lmo_http_params p;
    ck_assert(lmo_http_match("/v1/ops/{id}", "/v1/ops/abc", &p) && p.count == 1);
    ck_assert_str_eq(p.value[0], "abc");
    ck_assert(lmo_http_match("/v1/{a}/x/{b}", "/v1/1/x/2", &p) && p.count == 2);
    ck_assert_str_eq(p.value[1], "2");
    ck_assert(lmo_http_match("/", "/", &p) && p.count == 0);
    ck_assert(!lmo_http_match("/v1/ops/{id}", "/v1/ops/", &p));
    ck_assert(!lmo_http_match("/v1/ops/{id}", "/v1/ops/a/b", &p));
    ck_assert(!lmo_http_match("/v1/ops/{id}", "/v1/op/a", &p));
    ck_assert(!lmo_http_match("/v1/ops", "/v1/ops/", &p));
    ck_assert(!lmo_http_match("/v1/ops", "/v1/op", &p));
    char longest[LMO_HTTP_PARAM_MAX + 8] = "/";
    memset(longest + 1, 'a', LMO_HTTP_PARAM_MAX);
    ck_assert(!lmo_http_match("/{id}", longest, &p));
}
END_TEST

/* ---- requests ---- */

START_TEST(request__arrives_whole_with_its_identity)
{
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    char body[1024];
    unsigned status;
    static char large[200000];
    memset(large, 'L', sizeof large);
    struct lmo_http_request_spec spec = GET("/v1/echo/ab%20c?q=x%26y&n=5&bare");
    spec.method = "PUT";
    spec.body = large;
    spec.body_len = sizeof large;
    spec.headers = (const char *const[]){"X-Test: yes", NULL};
    ck_assert_msg(fetch(client, spec, &status, body) == 0, "%s", err.text);
    ck_assert_uint_eq(status, 201);
    ck_assert_str_eq(body,
                     "{\"id\":\"ab c\",\"method\":\"PUT\",\"peer\":\"main\",\"role\":\"coordinator\",\"q\":\"x&y\","
                     "\"h\":\"yes\",\"n\":5,\"len\":200000,\"first\":76}");
    ck_assert_int_eq(fetch(client, GET("/v1/echo/x?n=101"), &status, body), 0);
    ck_assert_uint_eq(status, 400);
    ck_assert_ptr_nonnull(strstr(body, "query parameter 'n': must be a whole number from 0 to 100"));
    ck_assert_int_eq(fetch(client, GET("/nowhere"), &status, body), 0);
    ck_assert_uint_eq(status, 404);
    spec = GET("/v1/echo/x");
    spec.method = "DELETE";
    ck_assert_int_eq(fetch(client, spec, &status, body), 0);
    ck_assert_uint_eq(status, 405);
    ck_assert_ptr_nonnull(strstr(body, "PUT, GET"));
}
END_TEST

START_TEST(thousand_requests__use_one_connection)
{
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    unsigned status;
    static uint64_t us[1000];
    for (int i = 0; i < 1000; i++) {
        uint64_t before = lmo_now_ns();
        ck_assert_msg(fetch(client, GET("/small"), &status, NULL) == 0, "%s", err.text);
        us[i] = (lmo_now_ns() - before) / 1000;
    }
    struct lmo_http_stats stats;
    lmo_http_server_stats(server, &stats);
    ck_assert_uint_eq(stats.connections_total, 1);
    ck_assert_uint_eq(stats.requests_total, 1000);
    for (int i = 1; i < 1000; i++) { /* insertion sort: enough for a median */
        uint64_t v = us[i];
        int j = i;
        for (; j > 0 && us[j - 1] > v; j--)
            us[j] = us[j - 1];
        us[j] = v;
    }
    printf("    mutual-TLS request on a kept-alive connection: median %llu us, p99 %llu us\n",
           (unsigned long long)us[500], (unsigned long long)us[990]);
}
END_TEST

static void *answer_later(void *arg)
{
    (void)arg;
    struct lmo_http_request *req = wait_kept();
    ck_assert_str_eq(lmo_http_path(req), "/keep");
    lmo_http_reply(req, 200, "text/plain", "late", 4);
    return NULL;
}

START_TEST(kept_request__is_answered_from_another_thread)
{
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    char body[1024];
    unsigned status;
    for (int i = 0; i < 100; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, answer_later, NULL);
        ck_assert_msg(fetch(client, GET("/keep"), &status, body) == 0, "%s", err.text);
        pthread_join(thread, NULL);
        ck_assert_uint_eq(status, 200);
        ck_assert_str_eq(body, "late");
    }
    struct lmo_http_stats stats;
    lmo_http_server_stats(server, &stats);
    ck_assert_uint_eq(stats.connections_total, 1);
}
END_TEST

START_TEST(kept_request__is_504_at_its_deadline_and_the_late_reply_is_dropped)
{
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    char body[1024];
    unsigned status;
    ck_assert_msg(fetch(client, GET("/keep?ms=50"), &status, body) == 0, "%s", err.text);
    ck_assert_uint_eq(status, 504);
    ck_assert_ptr_nonnull(strstr(body, "\"code\":\"timeout\""));
    struct lmo_http_request *req = wait_kept();
    ck_assert_int_eq(fetch(client, GET("/small"), &status, NULL), 0); /* the connection went on */
    ck_assert_str_eq(lmo_http_query(req, "ms"), "50");                /* still readable */
    lmo_http_reply(req, 200, "text/plain", "x", 1);
    struct lmo_http_stats stats;
    lmo_http_server_stats(server, &stats);
    ck_assert_uint_eq(stats.timeouts, 1);
}
END_TEST

static void *end_server(void *arg)
{
    *(struct lmo_http_request **)arg = wait_kept();
    server = lmo_http_server_free(server);
    return NULL;
}

START_TEST(server_that_ends__answers_503_and_late_replies_are_safe)
{
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    struct lmo_http_request_spec spec = GET("/keep");
    unsigned status = 0;
    pthread_t thread;
    struct lmo_http_request *req = NULL;
    pthread_create(&thread, NULL, end_server, &req);
    int r = fetch(client, spec, &status, NULL);
    pthread_join(thread, NULL);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_uint_eq(status, 503);
    lmo_http_reply(req, 200, "text/plain", "x", 1); /* after the server is gone */
}
END_TEST

START_TEST(oversize_body__is_413_announced_or_not)
{
    server = start_server(&(struct lmo_http_server_config){.body_max = 1000});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    static char large[5000];
    char body[1024];
    unsigned status;
    struct lmo_http_request_spec spec = GET("/v1/echo/x");
    spec.method = "PUT";
    spec.body = large;
    spec.body_len = 1001;
    ck_assert_msg(fetch(client, spec, &status, body) == 0, "%s", err.text);
    ck_assert_uint_eq(status, 413);
    ck_assert_ptr_nonnull(strstr(body, "at most 1000 bytes"));
    spec.body_len = 5000;
    spec.headers = (const char *const[]){"Transfer-Encoding: chunked", NULL};
    ck_assert_msg(fetch(client, spec, &status, body) == 0, "%s", err.text);
    ck_assert_uint_eq(status, 413);
    ck_assert_int_eq(handled, 0);
    spec.body_len = 1000;
    spec.headers = NULL;
    ck_assert_int_eq(fetch(client, spec, &status, body), 0);
    ck_assert_uint_eq(status, 201);
}
END_TEST

START_TEST(oversize_answer__is_refused_by_the_client)
{
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    unsigned status;
    struct lmo_http_request_spec spec = GET("/large");
    ck_assert_int_eq(fetch(client, spec, &status, NULL), 0);
    ck_assert_uint_eq(status, 200);
    spec.response_max = 299999;
    ck_assert_int_eq(fetch(client, spec, &status, NULL), LMO_E_TOO_LARGE);
}
END_TEST

/* ---- who may talk to whom ---- */

static void expect_refused(const char *file, const char *reason)
{
    struct lmo_http_client *client = start_client("ca", file);
    char body[1024];
    unsigned status;
    int before = handled;
    ck_assert_msg(fetch(client, GET("/small"), &status, body) == 0, "%s: %s", file, err.text);
    ck_assert_msg(status == 401, "%s: status %u", file, status);
    ck_assert_msg(strstr(body, reason), "%s: '%s' lacks '%s'", file, body, reason);
    ck_assert_int_eq(handled, before);
    lmo_http_client_free(client);
}

START_TEST(client_certificate_that_is_not_good__is_refused_with_the_reason_and_no_effect)
{
    test_ca_issue(ca, "expired", &(struct test_leaf){.uri = "urn:lmo:operator:eve", .from_s = -7200, .to_s = -10});
    test_ca_issue(ca, "future", &(struct test_leaf){.uri = "urn:lmo:operator:eve", .from_s = 1000, .to_s = 2000});
    test_ca_issue(ca, "serveronly", &(struct test_leaf){.uri = "urn:lmo:operator:eve", .purpose = "serverAuth"});
    test_ca_issue(ca, "nouri", &(struct test_leaf){0});
    test_ca_issue(ca, "twouris",
                  &(struct test_leaf){.uri = "urn:lmo:operator:eve", .uri2 = "urn:lmo:coordinator:main"});
    test_ca_issue(ca, "badrole", &(struct test_leaf){.uri = "urn:lmo:root:eve"});
    test_ca_issue(ca, "otheruri", &(struct test_leaf){.uri = "spiffe://x/y", .uri2 = "urn:lmo:operator:ok"});
    test_ca_issue(other_ca, "stranger", &(struct test_leaf){.uri = "urn:lmo:coordinator:main"});
    long serial = test_ca_issue(ca, "revoked", &(struct test_leaf){.uri = "urn:lmo:operator:eve"});
    test_ca_crl(ca, serial, 3600);
    server = start_server(&(struct lmo_http_server_config){0});
    expect_refused("expired", "has expired");
    expect_refused("future", "is not valid yet");
    expect_refused("serveronly", "is not for client authentication");
    expect_refused("nouri", "has 0 URIs");
    expect_refused("twouris", "has 2 URIs");
    expect_refused("badrole", "is not urn:lmo:");
    expect_refused("stranger", "was issued by an unknown CA");
    expect_refused("revoked", "is revoked");
    struct lmo_http_stats stats;
    lmo_http_server_stats(server, &stats);
    ck_assert_uint_eq(stats.refused_peers, 8);
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "otheruri");
    unsigned status;
    ck_assert_int_eq(fetch(client, GET("/small"), &status, NULL), 0);
    ck_assert_uint_eq(status, 200); /* a URI of somebody else's scheme does not matter */
}
END_TEST

START_TEST(reload__revokes_an_open_connection_and_takes_new_certificates)
{
    long serial = test_ca_issue(ca, "operator", &(struct test_leaf){.uri = "urn:lmo:operator:eve"});
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "operator");
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *good = start_client("ca", "coordinator");
    unsigned status;
    ck_assert_int_eq(fetch(client, GET("/small"), &status, NULL), 0);
    ck_assert_uint_eq(status, 200);
    test_ca_crl(ca, serial, 3600);
    ck_assert_int_eq(fetch(client, GET("/small"), &status, NULL), 0);
    ck_assert_uint_eq(status, 200); /* not before the reload */
    ck_assert_int_eq(lmo_http_server_reload(server, &err), 0);
    ck_assert_int_eq(fetch(client, GET("/small"), &status, NULL), 0);
    ck_assert_uint_eq(status, 401);

    test_ca_issue(ca, "worker", &(struct test_leaf){.uri = "urn:lmo:worker:renamed"});
    ck_assert_int_eq(lmo_http_server_reload(server, &err), 0);
    struct lmo_http_request_spec spec = GET("/small");
    spec.peer_name = "renamed";
    ck_assert_int_eq(fetch(good, spec, &status, NULL), 0);

    char path[128];
    snprintf(path, sizeof path, "%s/worker.key", dir);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(lmo_http_server_reload(server, &err), LMO_E_NOT_FOUND);
    ck_assert_int_eq(fetch(good, spec, &status, NULL), 0);
    ck_assert_uint_eq(status, 200); /* the old files stay in force */
}
END_TEST

START_TEST(client_reload__uses_the_new_certificate_on_a_new_connection)
{
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    char body[1024];
    unsigned status;
    ck_assert_int_eq(fetch(client, GET("/v1/echo/x"), &status, body), 0);
    ck_assert_ptr_nonnull(strstr(body, "\"peer\":\"main\""));
    test_ca_issue(ca, "coordinator", &(struct test_leaf){.uri = "urn:lmo:coordinator:second"});
    ck_assert_int_eq(lmo_http_client_reload(client, &err), 0);
    ck_assert_int_eq(fetch(client, GET("/v1/echo/x"), &status, body), 0);
    ck_assert_ptr_nonnull(strstr(body, "\"peer\":\"second\""));
}
END_TEST

START_TEST(revocation_list_out_of_date__is_still_used)
{
    long serial = test_ca_issue(ca, "revoked", &(struct test_leaf){.uri = "urn:lmo:operator:eve"});
    test_ca_crl(ca, serial, -60);
    server = start_server(&(struct lmo_http_server_config){0});
    expect_refused("revoked", "is revoked");
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    unsigned status;
    ck_assert_msg(fetch(client, GET("/small"), &status, NULL) == 0, "%s", err.text);
    ck_assert_uint_eq(status, 200);
}
END_TEST

START_TEST(server_that_is_not_the_expected_one__gets_nothing_sent)
{
    static const struct {
        const char *file, *ca;
        int expected;
        const char *text;
    } cases[] = {
        {"hv2", "ca", LMO_E_UNAUTHENTICATED, "server is worker 'hv2' instead of worker 'hv1'"},
        {"coordinator", "ca", LMO_E_UNAUTHENTICATED, "server is coordinator 'main'"},
        {"clientonly", "ca", LMO_E_UNAUTHENTICATED, "certificate"},
        {"expired", "ca", LMO_E_UNAUTHENTICATED, "expired"},
        {"revoked", "ca", LMO_E_UNAUTHENTICATED, "revoked"},
        {"stranger", "other", LMO_E_UNAUTHENTICATED, "certificate"},
        {"nouri", "ca", LMO_E_UNAUTHENTICATED, "exactly one URI"},
    };
    test_ca_issue(ca, "hv2", &(struct test_leaf){.uri = "urn:lmo:worker:hv2"});
    test_ca_issue(ca, "clientonly", &(struct test_leaf){.uri = "urn:lmo:worker:hv1", .purpose = "clientAuth"});
    test_ca_issue(ca, "expired", &(struct test_leaf){.uri = "urn:lmo:worker:hv1", .from_s = -7200, .to_s = -10});
    test_ca_issue(ca, "nouri", &(struct test_leaf){0});
    test_ca_issue(other_ca, "stranger", &(struct test_leaf){.uri = "urn:lmo:worker:hv1"});
    long serial = test_ca_issue(ca, "revoked", &(struct test_leaf){.uri = "urn:lmo:worker:hv1"});
    test_ca_crl(ca, serial, 3600);
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned status;
        struct lmo_http_server_config config = {.tls = test_tls(dir, cases[i].ca, cases[i].file, 0)};
        server = start_server(&config);
        int r = fetch(client, GET("/small"), &status, NULL);
        ck_assert_msg(r == cases[i].expected, "%s: %s %s", cases[i].file, lmo_err_name(r), err.text);
        ck_assert_msg(strstr(err.text, cases[i].text), "%s: %s", cases[i].file, err.text);
        ck_assert_int_eq(handled, 0);
        server = lmo_http_server_free(server);
    }
}
END_TEST

START_TEST(reused_connection__is_checked_against_each_requests_own_peer)
{
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    unsigned status;
    struct lmo_http_request_spec spec = GET("/small");
    spec.peer_name = NULL; /* any worker */
    ck_assert_int_eq(fetch(client, spec, &status, NULL), 0);
    ck_assert_int_eq(handled, 1);
    spec.peer_name = "hv2";
    ck_assert_int_eq(fetch(client, spec, &status, NULL), LMO_E_UNAUTHENTICATED);
    ck_assert_int_eq(handled, 1);
    spec.peer_role = LMO_ROLE_NONE; /* then the host name is verified, which the certificate lacks */
    ck_assert_int_eq(fetch(client, spec, &status, NULL), LMO_E_UNAUTHENTICATED);
}
END_TEST

START_TEST(connection_without_client_certificate__is_401)
{
    server = start_server(&(struct lmo_http_server_config){0});
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons(lmo_http_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
    SSL *ssl = SSL_new(ctx);
    SSL_set_fd(ssl, fd);
    ck_assert_int_eq(SSL_connect(ssl), 1);
    static const char request[] = "GET /small HTTP/1.1\r\nHost: x\r\n\r\n";
    char answer[2048] = "";
    int len = 0, n;
    ck_assert_int_eq(SSL_write(ssl, request, (int)sizeof request - 1), (int)sizeof request - 1);
    while (len < (int)sizeof answer - 1 && (n = SSL_read(ssl, answer + len, (int)sizeof answer - 1 - len)) > 0)
        len += n; /* until the server closes */
    ck_assert_ptr_nonnull(strstr(answer, "HTTP/1.1 401"));
    ck_assert_ptr_nonnull(strstr(answer, "a client certificate is required"));
    ck_assert_int_eq(handled, 0);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
}
END_TEST

START_TEST(tls_files_that_cannot_work__are_refused_at_start)
{
    struct lmo_http_server *s = NULL;
    struct lmo_http_client *c = NULL;
    struct lmo_http_server_config config = {.handler = handler, .tls = test_tls(dir, "ca", "worker", 1)};
    struct lmo_http_client_config client = {.tls = config.tls};
    strcpy(config.address, "127.0.0.1:0");
    char path[128];

    snprintf(path, sizeof path, "%s/worker.key", dir);
    ck_assert_int_eq(chmod(path, 0644), 0);
    ck_assert_int_eq(lmo_http_server_new(&config, &s, &err), LMO_E_FORBIDDEN);
    ck_assert_int_eq(lmo_http_client_new(loop, &client, &c, &err), LMO_E_FORBIDDEN);
    ck_assert_int_eq(chmod(path, 0600), 0);

    snprintf(config.tls.key, sizeof config.tls.key, "%s/coordinator.key", dir);
    client.tls = config.tls;
    ck_assert_int_eq(lmo_http_server_new(&config, &s, &err), LMO_E_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "is not the key of"));
    ck_assert_int_eq(lmo_http_client_new(loop, &client, &c, &err), LMO_E_INVALID);

    config.tls = test_tls(dir, "ca", "worker", 1);
    test_ca_crl(other_ca, 0, 3600);
    snprintf(config.tls.crl, sizeof config.tls.crl, "%s/other.crl", dir);
    client.tls = config.tls;
    ck_assert_int_eq(lmo_http_server_new(&config, &s, &err), LMO_E_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "none of the CAs signed"));
    ck_assert_int_eq(lmo_http_client_new(loop, &client, &c, &err), LMO_E_INVALID);

    config.tls = test_tls(dir, "worker", "worker", 0); /* a leaf as CA */
    client.tls = config.tls;
    ck_assert_int_eq(lmo_http_server_new(&config, &s, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_http_client_new(loop, &client, &c, &err), LMO_E_INVALID);
    snprintf(config.tls.ca, sizeof config.tls.ca, "%s/worker.key", dir);
    client.tls = config.tls;
    ck_assert_int_eq(lmo_http_server_new(&config, &s, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_http_client_new(loop, &client, &c, &err), LMO_E_INVALID);
    ck_assert_ptr_null(s);
    ck_assert_ptr_null(c);
}
END_TEST

/* ---- outcomes ---- */

START_TEST(nobody_listening__is_unavailable_and_certainly_not_executed)
{
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    unsigned status;
    /* Bound, not listening: refused for sure, and nobody else can take the port meanwhile. */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&in, len), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    char target[64];
    snprintf(target, sizeof target, "https://127.0.0.1:%u/small", ntohs(in.sin_port));
    struct lmo_http_request_spec spec = {.method = "GET",
                                         .url = target,
                                         .timeout_ms = 5000,
                                         .peer_role = LMO_ROLE_WORKER};
    ck_assert_int_eq(fetch(client, spec, &status, NULL), LMO_E_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(err.text, "nothing was sent"));
    /* A listener that never speaks TLS: the deadline passes before anything was sent. */
    ck_assert_int_eq(listen(fd, 5), 0);
    spec.timeout_ms = 100;
    ck_assert_int_eq(fetch(client, spec, &status, NULL), LMO_E_UNAVAILABLE);
    close(fd);
    spec.url = "http://127.0.0.1/";
    ck_assert_int_eq(fetch(client, spec, &status, NULL), LMO_E_INVALID);
}
END_TEST

START_TEST(deadline_after_sending__is_a_timeout_with_unknown_effect)
{
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    unsigned status;
    struct lmo_http_request_spec spec = GET("/keep");
    int r = LMO_E_UNAVAILABLE; /* on a busy machine a short deadline may pass before anything was sent */
    for (spec.timeout_ms = 100; r == LMO_E_UNAVAILABLE && spec.timeout_ms < 10000; spec.timeout_ms *= 2) {
        r = fetch(client, spec, &status, NULL);
    }
    ck_assert_int_eq(r, LMO_E_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(err.text, "may have been executed"));
    lmo_http_reply(wait_kept(), 200, "text/plain", "x", 1); /* the client is gone: safe */
}
END_TEST

/* A TLS server that answers its first request well, and closes the connection once it has read the second: how a peer
 * looks that dies while it executes. Counts the requests that it was sent. */
static int dying_fd;
static atomic_int dying_requests;
static void *dying_server(void *arg)
{
    (void)arg;
    char path[128];
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    snprintf(path, sizeof path, "%s/worker.pem", dir);
    ck_assert_int_eq(SSL_CTX_use_certificate_file(ctx, path, SSL_FILETYPE_PEM), 1);
    snprintf(path, sizeof path, "%s/worker.key", dir);
    ck_assert_int_eq(SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM), 1);
    int fd;
    while ((fd = accept(dying_fd, NULL, NULL)) >= 0) {
        SSL *ssl = SSL_new(ctx);
        SSL_set_fd(ssl, fd);
        char request[4096];
        static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        if (SSL_accept(ssl) == 1 && SSL_read(ssl, request, sizeof request) > 0) {
            atomic_fetch_add(&dying_requests, 1);
            SSL_write(ssl, answer, (int)sizeof answer - 1);
            if (SSL_read(ssl, request, sizeof request) > 0)
                atomic_fetch_add(&dying_requests, 1);
        }
        SSL_free(ssl);
        close(fd);
    }
    SSL_CTX_free(ctx);
    return NULL;
}

START_TEST(server_that_dies_mid_request__is_unknown_and_a_post_is_never_sent_twice)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    dying_requests = 0;
    dying_fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(dying_fd, (struct sockaddr *)&in, len), 0);
    ck_assert_int_eq(listen(dying_fd, 5), 0);
    ck_assert_int_eq(getsockname(dying_fd, (struct sockaddr *)&in, &len), 0);
    pthread_t thread;
    pthread_create(&thread, NULL, dying_server, NULL);

    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    char target[64];
    unsigned status;
    snprintf(target, sizeof target, "https://127.0.0.1:%u/x", ntohs(in.sin_port));
    struct lmo_http_request_spec spec = {.method = "POST",
                                         .url = target,
                                         .timeout_ms = 5000,
                                         .peer_role = LMO_ROLE_WORKER,
                                         .peer_name = "hv1",
                                         .body = "{}",
                                         .body_len = 2};
    ck_assert_msg(fetch(client, spec, &status, NULL) == 0, "%s", err.text);
    ck_assert_int_eq(fetch(client, spec, &status, NULL), LMO_E_UNKNOWN);
    ck_assert_ptr_nonnull(strstr(err.text, "may have been executed"));
    ck_assert_int_eq(dying_requests, 2);
    /* An idempotent one is sent again on a new connection, where this server answers. */
    spec.method = "PUT";
    ck_assert_int_eq(fetch(client, spec, &status, NULL), 0);
    ck_assert_int_eq(fetch(client, spec, &status, NULL), 0);
    ck_assert_int_eq(dying_requests, 5);
    shutdown(dying_fd, SHUT_RDWR);
    client = lmo_http_client_free(client);
    pthread_join(thread, NULL);
    close(dying_fd);
}
END_TEST

struct counting {
    int answers, expected;
};
static void count_answer(void *arg, const struct lmo_http_response *response)
{
    struct counting *c = arg;
    ck_assert_msg(response->result == 0 && response->status == 200, "%s", response->err->text);
    ck_assert_str_eq(response->peer.name, "hv1");
    ck_assert_uint_eq(strlen(response->peer.fingerprint), 64);
    if (++c->answers == c->expected)
        lmo_loop_stop(loop);
}

static void never(void *arg, const struct lmo_http_response *response)
{
    (void)arg, (void)response;
    ck_abort_msg("a cancelled request was answered");
}

START_TEST(many_at_once__are_bounded_in_connections_and_all_answered)
{
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    struct counting c = {.expected = 300};
    for (int i = 0; i < c.expected; i++) {
        struct lmo_http_request_spec spec = GET("/small");
        uint64_t cancelled = 0;
        ck_assert_int_eq(lmo_http_request_async(client, &spec, count_answer, &c, NULL, &err), 0);
        ck_assert_int_eq(lmo_http_request_async(client, &spec, never, &c, &cancelled, &err), 0);
        lmo_http_cancel(client, &cancelled);
        lmo_http_cancel(client, &cancelled);
    }
    ck_assert_uint_eq(lmo_http_client_load(client), 300);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    ck_assert_uint_eq(lmo_http_client_load(client), 0);
    struct lmo_http_stats stats;
    lmo_http_server_stats(server, &stats);
    ck_assert_uint_le(stats.connections_total, 8);
}
END_TEST

START_TEST(hurried_request__reaches_the_server_before_the_loop_turns)
{
    server = start_server(&(struct lmo_http_server_config){0});
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    struct counting c = {.expected = 1};
    struct lmo_http_request_spec spec = GET("/keep");
    unsigned status;
    ck_assert_int_eq(fetch(client, GET("/small"), &status, NULL), 0); /* the connection is open from now on */
    ck_assert_int_eq(lmo_http_request_async(client, &spec, count_answer, &c, NULL, &err), 0);
    lmo_http_client_hurry(client);
    struct lmo_http_request *held = wait_kept(); /* the loop does not run: it waits in vain without the hurry */
    lmo_http_reply(held, 200, "application/json", "{}", 2);
    ck_assert_int_eq(c.answers, 0); /* the answer is the loop's to bring */
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    ck_assert_int_eq(c.answers, 1);
}
END_TEST

struct ordered {
    int answers, normal_at, urgent_at, silent;
};
static void silent_answer(void *arg, const struct lmo_http_response *response)
{
    struct ordered *o = arg;
    ck_assert_int_eq(response->result, LMO_E_UNAVAILABLE);
    o->silent++;
    if (++o->answers == 5)
        lmo_loop_stop(loop);
}
static void normal_answer(void *arg, const struct lmo_http_response *response)
{
    struct ordered *o = arg;
    ck_assert_int_eq(response->result, 0);
    o->normal_at = ++o->answers;
    if (o->answers == 5)
        lmo_loop_stop(loop);
}
static void urgent_answer(void *arg, const struct lmo_http_response *response)
{
    struct ordered *o = arg;
    ck_assert_int_eq(response->result, 0);
    o->urgent_at = ++o->answers;
}

/* Two handshakes may be under way; two hosts that never answer one take them, until their connect time-out. */
START_TEST(handshakes_that_hang__hold_up_others_for_their_time_limit_but_nothing_urgent)
{
    server = start_server(&(struct lmo_http_server_config){0});
    struct lmo_http_client_config config = {
        .tls = test_tls(dir, "ca", "coordinator", 1), .connecting_max = 2, .connect_timeout_ms = 400};
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = NULL;
    ck_assert_int_eq(lmo_http_client_new(loop, &config, &client, &err), 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&in, len), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    ck_assert_int_eq(listen(fd, 8), 0);
    char target[64];
    snprintf(target, sizeof target, "https://127.0.0.1:%u/small", ntohs(in.sin_port));
    struct lmo_http_request_spec dead = {
        .method = "GET", .url = target, .timeout_ms = 5000, .peer_role = LMO_ROLE_WORKER};
    struct ordered o = {0};
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(lmo_http_request_async(client, &dead, silent_answer, &o, NULL, &err), 0);
    struct lmo_http_request_spec good = GET("/small");
    uint64_t cancelled = 0;
    ck_assert_int_eq(lmo_http_request_async(client, &good, never, &o, &cancelled, &err), 0);
    ck_assert_int_eq(lmo_http_request_async(client, &good, normal_answer, &o, NULL, &err), 0);
    lmo_http_cancel(client, &cancelled); /* while it waits */
    good.urgent = true;
    ck_assert_int_eq(lmo_http_request_async(client, &good, urgent_answer, &o, NULL, &err), 0);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    close(fd);
    ck_assert_int_eq(o.silent, 3);
    ck_assert_int_eq(o.urgent_at, 1);
    ck_assert_int_gt(o.normal_at, 2); /* behind the first two, in the order of asking */
    ck_assert_uint_eq(lmo_http_client_load(client), 0);
}
END_TEST

START_TEST(request_whose_time_is_up_while_it_waits_for_its_connection__was_not_sent)
{
    struct lmo_http_client_config config = {
        .tls = test_tls(dir, "ca", "coordinator", 1), .connecting_max = 1, .connect_timeout_ms = 2000};
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = NULL;
    ck_assert_int_eq(lmo_http_client_new(loop, &config, &client, &err), 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&in, len), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    ck_assert_int_eq(listen(fd, 8), 0);
    char target[64];
    unsigned status;
    snprintf(target, sizeof target, "https://127.0.0.1:%u/small", ntohs(in.sin_port));
    struct lmo_http_request_spec spec = {
        .method = "GET", .url = target, .timeout_ms = 5000, .peer_role = LMO_ROLE_WORKER};
    uint64_t first = 0;
    ck_assert_int_eq(lmo_http_request_async(client, &spec, never, NULL, &first, &err), 0);
    spec.timeout_ms = 100;
    ck_assert_int_eq(fetch(client, spec, &status, NULL), LMO_E_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(err.text, "nothing was sent"));
    lmo_http_cancel(client, &first);
    close(fd);
}
END_TEST

static void stop_loop(void *arg)
{
    (void)arg;
    lmo_loop_stop(loop);
}

static void ignore(void *arg, const struct lmo_http_response *response)
{
    (void)arg, (void)response;
}

struct stress {
    int answers, expected, ok, late, gone;
};
static void stress_answer(void *arg, const struct lmo_http_response *response)
{
    struct stress *s = arg;
    ck_assert(response->result == 0 || response->result == LMO_E_TIMEOUT || response->result == LMO_E_UNAVAILABLE);
    ck_assert(response->result != 0 || response->status == 200 || response->status == 504);
    *(response->result != 0 ? &s->gone : response->status == 200 ? &s->ok : &s->late) += 1;
    if (++s->answers == s->expected)
        lmo_loop_stop(loop);
}

START_TEST(answers_deadlines_and_disconnects_at_once__lose_nothing)
{
    server = start_server(&(struct lmo_http_server_config){0});
    struct lmo_http_client *client = start_client("ca", "coordinator");
    pthread_t threads[2];
    unsigned seeds[2] = {1, 2}, seed = 3;
    queued_count = 0;
    queue_ends = false;
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, answer_queue, &seeds[i]);
    struct stress s = {.expected = 1000};
    for (int i = 0; i < s.expected; i++) {
        char path[64];
        snprintf(path, sizeof path, "/queue?ms=%d", rand_r(&seed) % 3 == 0 ? rand_r(&seed) % 4 : 5000);
        struct lmo_http_request_spec spec = GET(path);
        spec.timeout_ms = rand_r(&seed) % 5 == 0 ? 1 + (uint64_t)rand_r(&seed) % 300 : 20000;
        ck_assert_int_eq(lmo_http_request_async(client, &spec, stress_answer, &s, NULL, &err), 0);
    }
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    ck_assert_int_eq(s.ok + s.late + s.gone, s.expected);
    ck_assert_int_gt(s.ok, 0);
    for (int i = 0; i < 20; i++) { /* and some that the end of the server meets half-way */
        struct lmo_http_request_spec spec = GET("/queue");
        ck_assert_msg(lmo_http_request_async(client, &spec, ignore, NULL, NULL, &err) == 0, "%s", err.text);
    }
    uint64_t timer;
    ck_assert_int_eq(lmo_loop_timer(loop, 3, stop_loop, NULL, &timer), 0);
    (void)!lmo_loop_run(loop);
    lmo_http_client_free(client);
    server = lmo_http_server_free(server);
    pthread_mutex_lock(&kept_lock);
    queue_ends = true;
    pthread_cond_broadcast(&kept_there);
    pthread_mutex_unlock(&kept_lock);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}
END_TEST

START_TEST(client_freed_with_requests_under_way__calls_nobody)
{
    server = start_server(&(struct lmo_http_server_config){0});
    struct lmo_http_client *client = start_client("ca", "coordinator");
    for (int i = 0; i < 20; i++) {
        struct lmo_http_request_spec spec = GET("/small");
        ck_assert_int_eq(lmo_http_request_async(client, &spec, never, NULL, NULL, &err), 0);
    }
    lmo_http_client_free(client);
    lmo_loop_stop(loop);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
}
END_TEST

START_TEST(slow_and_silent_clients__block_nobody_and_are_cut_off)
{
    server = start_server(&(struct lmo_http_server_config){.receive_timeout_ms = 200});
    int fds[10];
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons(lmo_http_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < 10; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        ck_assert_int_eq(connect(fds[i], (struct sockaddr *)&in, sizeof in), 0);
        ck_assert_int_eq((int)send(fds[i], "\x16\x03\x01", 3, 0), 3); /* the beginning of a handshake */
    }
    LMO_AUTO_HTTP_CLIENT struct lmo_http_client *client = start_client("ca", "coordinator");
    unsigned status;
    ck_assert_int_eq(fetch(client, GET("/small"), &status, NULL), 0);
    ck_assert_uint_eq(status, 200);
    for (int i = 0; i < 10; i++) {
        char c;
        while (recv(fds[i], &c, 1, 0) > 0) /* blocks until the server closes (or sends an alert first) */
            continue;
        close(fds[i]);
    }
    struct lmo_http_stats stats;
    lmo_http_server_stats(server, &stats);
    ck_assert_uint_eq(stats.timeouts, 10);
    ck_assert_int_eq(fetch(client, GET("/small"), &status, NULL), 0); /* idle is not slow */
    lmo_http_server_stats(server, &stats);
    ck_assert_uint_eq(stats.connections_total, 11);
}
END_TEST

Suite *http_suite(void)
{
    Suite *suite = suite_create("http");
    TCase *pure = tcase_create("pure");
    tcase_add_test(pure, roles_and_names__parse_from_the_urn_and_nothing_else);
    tcase_add_test(pure, path_templates__match_whole_segments);
    suite_add_tcase(suite, pure);
    TCase *tc = tcase_create("tls");
    tcase_set_timeout(tc, 30);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, request__arrives_whole_with_its_identity);
    tcase_add_test(tc, thousand_requests__use_one_connection);
    tcase_add_test(tc, kept_request__is_answered_from_another_thread);
    tcase_add_test(tc, kept_request__is_504_at_its_deadline_and_the_late_reply_is_dropped);
    tcase_add_test(tc, server_that_ends__answers_503_and_late_replies_are_safe);
    tcase_add_test(tc, oversize_body__is_413_announced_or_not);
    tcase_add_test(tc, oversize_answer__is_refused_by_the_client);
    tcase_add_test(tc, client_certificate_that_is_not_good__is_refused_with_the_reason_and_no_effect);
    tcase_add_test(tc, reload__revokes_an_open_connection_and_takes_new_certificates);
    tcase_add_test(tc, client_reload__uses_the_new_certificate_on_a_new_connection);
    tcase_add_test(tc, revocation_list_out_of_date__is_still_used);
    tcase_add_test(tc, server_that_is_not_the_expected_one__gets_nothing_sent);
    tcase_add_test(tc, reused_connection__is_checked_against_each_requests_own_peer);
    tcase_add_test(tc, connection_without_client_certificate__is_401);
    tcase_add_test(tc, tls_files_that_cannot_work__are_refused_at_start);
    tcase_add_test(tc, nobody_listening__is_unavailable_and_certainly_not_executed);
    tcase_add_test(tc, deadline_after_sending__is_a_timeout_with_unknown_effect);
    tcase_add_test(tc, server_that_dies_mid_request__is_unknown_and_a_post_is_never_sent_twice);
    tcase_add_test(tc, many_at_once__are_bounded_in_connections_and_all_answered);
    tcase_add_test(tc, hurried_request__reaches_the_server_before_the_loop_turns);
    tcase_add_test(tc, handshakes_that_hang__hold_up_others_for_their_time_limit_but_nothing_urgent);
    tcase_add_test(tc, request_whose_time_is_up_while_it_waits_for_its_connection__was_not_sent);
    tcase_add_test(tc, answers_deadlines_and_disconnects_at_once__lose_nothing);
    tcase_add_test(tc, client_freed_with_requests_under_way__calls_nobody);
    tcase_add_test(tc, slow_and_silent_clients__block_nobody_and_are_cut_off);
    suite_add_tcase(suite, tc);
    return suite;
}
