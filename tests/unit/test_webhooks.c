/* test_webhooks.c - webhooks and hooks of guests against a receiver that is not ours (receiver.py): signatures, order of tries,
 * dead letters, restarts; and which URLs and addresses may be called. */
#include "coordinator_fixture.h"
#include "http/address.h"
#include "pki/webhook.h"
#include "receiver.h"
#include "rpc/outbound.h"
#include "suites.h"

static struct lmo_outbound *outbound;
static struct lmo_outbound_config outbound_config;

static void fixture_before_engine(void)
{
    struct lmo_err err = {0};
    ck_assert_msg(lmo_outbound_open(fx.loop, &outbound_config, &outbound, &err) == 0, "%s", err.text);
    fx.engine_config.outbound = outbound;
}

static void fixture_after_engine(void)
{
    outbound = lmo_outbound_close(outbound);
}

static char webhook[LMO_ID_MAX], secret[LMO_SECRET_MAX];

/* What is waited for comes by itself; the test's own time is the bound. */
#define WAIT_FOR(condition)  \
    do {                     \
        while (!(condition)) \
            usleep(5000);    \
    } while (0)

static void add_webhook(const char *members)
{
    char body[512];
    snprintf(body, sizeof body, "{\"url\":\"%s://127.0.0.1:%u/in\"%s}", outbound_config.allow_http ? "http" : "https",
             receiver.port, members);
    ck_assert_uint_eq(ask("POST", "/v1/webhooks", body), 201);
    snprintf(webhook, sizeof webhook, "%s", member("id"));
    snprintf(secret, sizeof secret, "%s", member("secret"));
    ck_assert_int_eq(strncmp(secret, "whsec_", 6), 0);
    receiver_put(".secrets", secret);
}

static unsigned of_webhook(const char *method, const char *suffix, const char *body)
{
    char path[128];
    snprintf(path, sizeof path, "/v1/webhooks/%s%s", webhook, suffix);
    return ask(method, path, body);
}

static json_int_t number(const char *name)
{
    return json_integer_value(json_object_get(fx.body, name));
}

static void happen(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ck_assert_uint_eq(ask("PATCH", "/v1/hosts/hv1", "{\"max_incoming\":2}"), 200);
    }
}

static bool delivered(unsigned n)
{
    ck_assert_uint_eq(of_webhook("GET", "", NULL), 200);
    return number("delivered") >= n;
}

START_TEST(every_event__comes_signed_once_and_verifies_independently)
{
    fixture_two_hosts();
    add_webhook(",\"types\":\"host.limits\"");
    happen(40);
    WAIT_FOR(delivered(40));
    LMO_AUTO_JSON json_t *got = receiver_got();
    ck_assert_uint_eq(json_array_size(got), 40);
    size_t i;
    const json_t *one;
    unsigned seen[2] = {0};
    json_array_foreach(got, i, one)
    {
        ck_assert(json_is_true(json_array_get(json_object_get(one, "good"), 0)));
        LMO_AUTO_JSON json_t *body = receiver_body(one);
        char id[32];
        ck_assert_str_eq(json_string_value(json_object_get(body, "type")), "host.limits");
        snprintf(id, sizeof id, "evt_%lld", (long long)json_integer_value(json_object_get(body, "sequence")));
        ck_assert_str_eq(receiver_header(one, "webhook-id"), id);
        ck_assert_str_eq(receiver_header(one, "content-type"), "application/json");
        seen[0] += (unsigned)json_integer_value(json_object_get(body, "sequence"));
    }
    ck_assert_uint_gt(seen[0], 0);
    ck_assert_uint_eq(of_webhook("GET", "", NULL), 200);
    ck_assert_str_eq(member("secret"), "(none)"); /* shown once */
    ck_assert_int_eq(number("behind"), 0);
}
END_TEST

START_TEST(a_receiver_that_fails__is_asked_again_until_it_takes_everything)
{
    fixture_two_hosts();
    receiver_put(".plan", "500 3\n503 2\n302 1");
    add_webhook("");
    happen(5);
    WAIT_FOR(delivered(5));
    LMO_AUTO_JSON json_t *got = receiver_got();
    size_t i, good = 0;
    const json_t *one;
    uint64_t taken = 0;
    json_array_foreach(got, i, one)
    {
        if (json_integer_value(json_object_get(one, "status")) == 204) {
            LMO_AUTO_JSON json_t *body = receiver_body(one);
            uint64_t bit = UINT64_C(1) << (json_integer_value(json_object_get(body, "sequence")) % 64);
            ck_assert(!(taken & bit)); /* each was taken once: no restart happened here */
            taken |= bit;
            good++;
        }
    }
    ck_assert_uint_eq(good, 5);
    ck_assert_uint_eq(json_array_size(got), 5 + 6);
    ck_assert_uint_eq(of_webhook("GET", "", NULL), 200);
    ck_assert_int_eq(number("failures"), 0);
}
END_TEST

START_TEST(an_event_that_is_never_taken__becomes_a_dead_letter_and_can_be_sent_once_more)
{
    fixture_two_hosts();
    receiver_put(".plan", "400 4");
    add_webhook("");
    happen(1);
    do {
        usleep(5000);
        ck_assert_uint_eq(of_webhook("GET", "/dead-letters", NULL), 200);
    } while (json_array_size(json_object_get(fx.body, "dead_letters")) == 0);
    const json_t *letter = json_array_get(json_object_get(fx.body, "dead_letters"), 0);
    long long seq = json_integer_value(json_object_get(letter, "sequence"));
    ck_assert_int_eq(json_integer_value(json_object_get(letter, "attempts")), 4);
    ck_assert_str_eq(json_string_value(json_object_get(letter, "last_error")), "it answered 400");
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(letter, "event"), "sequence")), seq);
    happen(1); /* others are not held up */
    WAIT_FOR(delivered(1));
    ck_assert_uint_eq(of_webhook("POST", "/dead-letters/redeliver", "{\"sequence\":999}"), 404);
    ck_assert_uint_eq(of_webhook("POST", "/dead-letters/redeliver", "{}"), 202);
    ck_assert_int_eq(number("redelivering"), 1);
    WAIT_FOR(delivered(2));
    ck_assert_uint_eq(of_webhook("GET", "/dead-letters", NULL), 200);
    ck_assert_uint_eq(json_array_size(json_object_get(fx.body, "dead_letters")), 0);
    LMO_AUTO_JSON json_t *got = receiver_got();
    char id[32];
    snprintf(id, sizeof id, "evt_%lld", seq);
    ck_assert_str_eq(receiver_header(json_array_get(got, json_array_size(got) - 1), "webhook-id"),
                     id); /* the same id */
    ck_assert(json_is_true(json_array_get(json_object_get(json_array_get(got, json_array_size(got) - 1), "good"), 0)));
}
END_TEST

START_TEST(a_restored_store__calls_nobody_until_it_is_activated)
{
    char copy[sizeof fx.state + 16];
    struct lmo_err err = {0};
    fixture_two_hosts();
    add_webhook(",\"types\":\"host.*,store.*\"");
    snprintf(copy, sizeof copy, "%s/copy", fx.state);
    fx.clients[LMO_ROLE_OPERATOR] = lmo_http_client_free(fx.clients[LMO_ROLE_OPERATOR]);
    fixture_stop();
    ck_assert_msg(lmo_store_sqlite_backup(fx.state, copy, NULL, &err) == 0, "%s", err.text);
    ck_assert_msg(lmo_store_sqlite_restore(fx.state, copy, &err) == 0, "%s", err.text);
    size_t before = receiver_count();
    fixture_start();
    ck_assert_uint_eq(ask("POST", "/v1/restore", "{}"), 200);
    ck_assert_str_eq(member("state"), "observing");
    do { /* what is seen of hosts is told in the log */
        ck_assert_uint_eq(of_webhook("GET", "", NULL), 200);
    } while (number("behind") == 0);
    ck_assert_uint_eq(of_webhook("POST", "/rotate", NULL), 409);
    ck_assert_uint_eq(ask("POST", "/v1/restore", "{}"), 200); /* many turns of the loop */
    ck_assert_uint_eq(receiver_count(), before);
    ck_assert_uint_eq(ask("POST", "/v1/restore", "{\"activate\":true,\"force\":true}"), 200);
    ck_assert_str_eq(member("state"), "active");
    bool told = false;
    while (!told) {
        LMO_AUTO_JSON json_t *got = receiver_got();
        size_t i;
        const json_t *one;
        json_array_foreach(got, i, one)
        {
            LMO_AUTO_JSON json_t *body = receiver_body(one);
            if (strcmp(json_string_value(json_object_get(body, "type")), "store.restored") == 0) {
                const json_t *data = json_object_get(body, "data");
                told = true;
                ck_assert_uint_eq(json_object_size(data), 1);
                ck_assert_int_gt(json_integer_value(json_object_get(data, "backup_made_ms")), 0);
            }
        }
        usleep(5000);
    }
}
END_TEST

START_TEST(a_restart__sends_again_what_was_not_settled_and_leaves_nothing_out)
{
    fixture_two_hosts();
    add_webhook(",\"types\":\"host.limits\"");
    receiver_put(".plan", "503 1000000");
    happen(30);
    WAIT_FOR(receiver_count() >= 2);
    fx.clients[LMO_ROLE_OPERATOR] = lmo_http_client_free(fx.clients[LMO_ROLE_OPERATOR]);
    fixture_stop();
    receiver_put(".plan", "");
    fixture_start();
    happen(1);
    WAIT_FOR(delivered(31));
    LMO_AUTO_JSON json_t *got = receiver_got();
    size_t i;
    const json_t *one;
    uint64_t taken = 0;
    json_array_foreach(got, i, one)
    {
        LMO_AUTO_JSON json_t *body = receiver_body(one);
        bool took = json_integer_value(json_object_get(one, "status")) == 204;
        taken |= took ? UINT64_C(1) << (json_integer_value(json_object_get(body, "sequence")) % 64) : 0;
    }
    ck_assert_int_eq(__builtin_popcountll(taken), 31);
}
END_TEST

START_TEST(rotation__signs_with_both_secrets)
{
    char both[256];
    fixture_two_hosts();
    add_webhook("");
    ck_assert_uint_eq(of_webhook("POST", "/rotate", "{}"), 200);
    ck_assert_str_ne(member("secret"), secret);
    ck_assert(json_is_integer(json_object_get(fx.body, "old_secret_until_ms")));
    snprintf(both, sizeof both, "%s\n%s\nwhsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw", secret, member("secret"));
    receiver_put(".secrets", both);
    happen(1);
    WAIT_FOR(delivered(1));
    LMO_AUTO_JSON json_t *got = receiver_got();
    const json_t *good = json_object_get(json_array_get(got, 0), "good");
    ck_assert(json_is_true(json_array_get(good, 0)) && json_is_true(json_array_get(good, 1)) &&
              json_is_false(json_array_get(good, 2)));
}
END_TEST

START_TEST(a_receiver_that_fails_for_long_or_says_gone__is_disabled_and_the_log_tells)
{
    fixture_two_hosts();
    receiver_put(".plan", "410 1");
    add_webhook(",\"types\":\"host.limits\"");
    happen(1);
    do {
        usleep(5000);
        ck_assert_uint_eq(of_webhook("GET", "", NULL), 200);
    } while (json_is_true(json_object_get(fx.body, "enabled")));
    happen(2);
    ck_assert_uint_eq(of_webhook("POST", "/dead-letters/redeliver", "{}"), 409);
    size_t before = receiver_count();
    receiver_put(".plan", "410 1\n500 1000000");
    ck_assert_uint_eq(of_webhook("PATCH", "", "{\"enabled\":true}"), 200);
    do { /* fails on and on: disabled after the configured time and number */
        happen(1);
        ck_assert_uint_eq(of_webhook("GET", "", NULL), 200);
    } while (json_is_true(json_object_get(fx.body, "enabled")));
    ck_assert_ptr_nonnull(strstr(member("why_disabled"), "it answered 500"));
    ck_assert_uint_gt(receiver_count(), before);
    receiver_put(".plan", "");
    ck_assert_uint_eq(of_webhook("PATCH", "", "{\"enabled\":true,\"types\":\"webhook.*\"}"), 200);
    WAIT_FOR(delivered(1)); /* the event that says so, even to the one that it is about */
    LMO_AUTO_JSON json_t *got = receiver_got();
    LMO_AUTO_JSON json_t *last = receiver_body(json_array_get(got, json_array_size(got) - 1));
    ck_assert_str_eq(json_string_value(json_object_get(last, "type")), "webhook.disabled");
}
END_TEST

START_TEST(tls__is_verified_by_the_configured_ca_and_by_name)
{
    fixture_two_hosts();
    add_webhook(""); /* https, a certificate of our test CA for 127.0.0.1 */
    happen(1);
    WAIT_FOR(delivered(1));
    outbound_config.ca[0] = '\0'; /* the system's CAs do not know it */
    fx.clients[LMO_ROLE_OPERATOR] = lmo_http_client_free(fx.clients[LMO_ROLE_OPERATOR]);
    fixture_stop();
    fixture_start();
    happen(1);
    do {
        usleep(5000);
        ck_assert_uint_eq(of_webhook("GET", "", NULL), 200);
    } while (number("failures") == 0);
    ck_assert_uint_eq(receiver_count(), 1); /* nothing was sent */
}
END_TEST

START_TEST(requests_about_webhooks__are_checked)
{
    static const struct {
        const char *method, *path, *body;
        unsigned status;
        const char *field;
    } cases[] = {
        {"POST", "/v1/webhooks", "{}", 400, "url"},
        {"POST", "/v1/webhooks", "{\"url\":\"ftp://example.org/\"}", 400, "url"},
        {"POST", "/v1/webhooks", "{\"url\":\"https://user:pw@example.org/\"}", 400, "url"},
        {"POST", "/v1/webhooks", "{\"url\":\"https://example.org/#x\"}", 400, "url"},
        {"POST", "/v1/webhooks", "{\"url\":\"https://example.org/\",\"types\":\"NO\"}", 400, "types"},
        {"POST", "/v1/webhooks", "{\"url\":\"https://example.org/\",\"secret\":\"mine\"}", 400, "secret"},
        {"POST", "/v1/webhooks", "{\"url\":\"https://example.org/\",\"enabled\":false}", 400, "enabled"},
        {"GET", "/v1/webhooks/x", NULL, 404, "id"},
        {"GET", "/v1/webhooks/01J00000000000000000000001", NULL, 404, "id"},
        {"PATCH", "/v1/webhooks/01J00000000000000000000001", "{\"enabled\":true}", 404, "id"},
        {"DELETE", "/v1/webhooks/01J00000000000000000000001", NULL, 404, "id"},
        {"PUT", "/v1/vms/g1/hook", "{\"url\":\"https://example.org/\"}", 400, "vm"},
        {"PUT", "/v1/vms/" FIXTURE_GUEST_UUID "/hook", "{}", 400, "url"},
        {"PUT", "/v1/vms/" FIXTURE_GUEST_UUID "/hook", "{\"url\":\"https://example.org/\",\"deadline_ms\":1}", 400,
         "deadline_ms"},
        {"PUT", "/v1/vms/" FIXTURE_GUEST_UUID "/hook", "{\"url\":\"https://example.org/\",\"on_no_answer\":\"wait\"}",
         400, "on_no_answer"},
        {"GET", "/v1/vms/" FIXTURE_GUEST_UUID "/hook", NULL, 404, "vm"},
        {"POST", "/v1/migrations/x/acknowledge", "{}", 404, "id"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned status = ask(cases[i].method, cases[i].path, cases[i].body);
        ck_assert_msg(status == cases[i].status, "%s %s %s: %u %s", cases[i].method, cases[i].path,
                      cases[i].body ? cases[i].body : "", status, fx.answer.body);
        ck_assert_str_eq(member("field"), cases[i].field);
    }
    ck_assert_uint_eq(fixture_ask(LMO_ROLE_VIEWER, "POST", "/v1/webhooks", "{\"url\":\"https://example.org/\"}", NULL),
                      403);
    ck_assert_uint_eq(fixture_ask(LMO_ROLE_VIEWER, "GET", "/v1/webhooks", NULL, NULL), 200);
    add_webhook(",\"description\":\"mine\"");
    ck_assert_uint_eq(of_webhook("PATCH", "", "{}"), 400);
    ck_assert_uint_eq(of_webhook("DELETE", "", NULL), 204);
    ck_assert_uint_eq(of_webhook("GET", "", NULL), 404);
}
END_TEST

/* ------------------------------------------------------------------ hooks of guests */

static const char *const hook_path = "/v1/vms/" FIXTURE_GUEST_UUID "/hook";
static char migration[LMO_ID_MAX];

static void put_hook(const char *members)
{
    char body[256];
    snprintf(body, sizeof body, "{\"url\":\"http://127.0.0.1:%u/hook\"%s}", receiver.port, members);
    unsigned status = ask("PUT", hook_path, body);
    ck_assert(status == 200 || status == 201);
    receiver_put(".secrets", member("secret"));
}

static void start_migration(void)
{
    static const char *const headers[] = {"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", NULL};
    ck_assert_uint_eq(fixture_ask(LMO_ROLE_OPERATOR, "POST", "/v1/migrations",
                                  "{\"vm\":\"g1\",\"destination\":\"hv2\"}", headers),
                      202);
    snprintf(migration, sizeof migration, "%s", member("id"));
}

static const char *phase_of(void)
{
    char path[128];
    snprintf(path, sizeof path, "/v1/migrations/%s", migration);
    ck_assert_uint_eq(ask("GET", path, NULL), 200);
    return member("phase");
}

static unsigned acknowledge(void)
{
    char path[128];
    snprintf(path, sizeof path, "/v1/migrations/%s/acknowledge", migration);
    return ask("POST", path, "{}");
}

START_TEST(the_owner__is_told_signed_and_the_move_waits_for_his_acknowledgement)
{
    fixture_two_hosts();
    put_hook(",\"deadline_ms\":3600000,\"on_no_answer\":\"abort\"");
    receiver_put(".plan", "500 1\n202 1");
    start_migration();
    ck_assert_str_eq(member("phase"), "queued");
    ck_assert_ptr_nonnull(strstr(member("waiting_for"), "acknowledgement"));
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(fx.body, "held_by"), "limit")), "notice");
    WAIT_FOR(receiver_count() == 2); /* the first call failed */
    ck_assert_str_eq(phase_of(), "queued");
    LMO_AUTO_JSON json_t *got = receiver_got();
    const json_t *one = json_array_get(got, 1);
    char id[64];
    snprintf(id, sizeof id, "notice_%s", migration);
    ck_assert_str_eq(receiver_header(one, "webhook-id"), id);
    ck_assert_str_eq(receiver_header(json_array_get(got, 0), "webhook-id"), id);
    ck_assert(json_is_true(json_array_get(json_object_get(one, "good"), 0)));
    ck_assert_int_eq(strncmp(receiver_header(one, "traceparent"), "00-4bf92f3577b34da6a3ce929d0e0e4736-", 36), 0);
    fx.clients[LMO_ROLE_OPERATOR] = lmo_http_client_free(fx.clients[LMO_ROLE_OPERATOR]);
    fixture_stop(); /* the wait outlives the coordinator, and he is told again */
    fixture_start();
    WAIT_FOR(receiver_count() == 3);
    ck_assert_str_eq(phase_of(), "queued");
    ck_assert_uint_eq(acknowledge(), 202);
    WAIT_FOR(strcmp(phase_of(), "queued") != 0);
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(fx.body, "notice"), "state")), "acknowledged");
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(fx.body, "notice"), "by")), "operator:tester");
    ck_assert_str_eq(member("trace_id"), "4bf92f3577b34da6a3ce929d0e0e4736");
}
END_TEST

START_TEST(an_owner_who_says_yes_in_his_answer__needs_no_second_call)
{
    fixture_two_hosts();
    put_hook(",\"deadline_ms\":3600000");
    receiver_put(".plan", "200 1 {\"ack\": true}");
    start_migration();
    WAIT_FOR(strcmp(phase_of(), "queued") != 0);
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(fx.body, "notice"), "by")), "hook");
    ck_assert_uint_eq(receiver_count(), 1);
}
END_TEST

START_TEST(an_owner_who_says_nothing__decides_by_what_was_agreed)
{
    fixture_two_hosts();
    receiver_put(".plan", "500 1000000");
    put_hook(",\"deadline_ms\":1000,\"on_no_answer\":\"abort\"");
    start_migration();
    WAIT_FOR(strcmp(phase_of(), "queued") != 0);
    ck_assert_str_eq(member("phase"), "aborted");
    ck_assert_uint_eq(acknowledge(), 409);
    put_hook(",\"deadline_ms\":1000,\"on_no_answer\":\"proceed\"");
    start_migration();
    WAIT_FOR(strcmp(phase_of(), "queued") != 0);
    ck_assert_str_eq(member("phase"), "precheck");
    ck_assert_uint_eq(ask("DELETE", hook_path, NULL), 204);
    ck_assert_uint_eq(ask("DELETE", hook_path, NULL), 404);
}
END_TEST

START_TEST(a_guest_without_a_hook__waits_for_nobody)
{
    fixture_two_hosts();
    start_migration();
    WAIT_FOR(strcmp(phase_of(), "queued") != 0);
    ck_assert(json_is_null(json_object_get(fx.body, "notice")));
    ck_assert_uint_eq(acknowledge(), 409);
    ck_assert_uint_gt(fx.op_count, 0); /* and its calls to workers carry the trace, with a span of the phase */
    ck_assert_int_eq(strncmp(fx.ops[0].traceparent, "00-4bf92f3577b34da6a3ce929d0e0e4736-", 36), 0);
    ck_assert_uint_eq(strlen(fx.ops[0].traceparent), 55);
    ck_assert_int_ne(strncmp(fx.ops[0].traceparent + 36, "00f067aa0ba902b7", 16), 0);
}
END_TEST

/* ------------------------------------------------------------------ what is pure */

START_TEST(a_signature__is_that_of_the_specification)
{
    /* The secret and message of the specification's own example; the signature was computed by Python's hmac. */
    static const char body[] = "{\"test\": 2432232314}";
    char got[LMO_WEBHOOK_SIGNATURES_MAX];
    struct lmo_err err = {0};
    ck_assert_msg(lmo_webhook_sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "", "msg_p5jXN8AQM9LWM0D4loKWxJek",
                                   1614265330, body, sizeof body - 1, got, &err) == 0,
                  "%s", err.text);
    ck_assert_str_eq(got, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    ck_assert_int_eq(lmo_webhook_sign("whsec_c2hvcnQ=", "", "a", 1, "", 0, got, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_webhook_sign("nothing", "", "a", 1, "", 0, got, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_webhook_sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "", "a.b", 1, "", 0, got, &err),
                     LMO_E_INVALID);
}
END_TEST

START_TEST(addresses_that_are_not_public__are_told_from_those_that_are)
{
    static const struct {
        const char *text;
        bool is_public;
    } cases[] = {
        {"8.8.8.8", true},
        {"1.1.1.1", true},
        {"172.15.255.255", true},
        {"172.32.0.0", true},
        {"100.63.255.255", true},
        {"100.128.0.0", true},
        {"127.0.0.1", false},
        {"127.255.255.254", false},
        {"10.0.0.1", false},
        {"172.16.0.1", false},
        {"172.31.255.255", false},
        {"192.168.1.1", false},
        {"169.254.169.254", false},
        {"100.64.0.1", false},
        {"0.0.0.0", false},
        {"224.0.0.1", false},
        {"255.255.255.255", false},
        {"192.0.2.1", false},
        {"198.18.0.1", false},
        {"240.0.0.1", false},
        {"2606:4700::1111", true},
        {"::1", false},
        {"::", false},
        {"fe80::1", false},
        {"fc00::1", false},
        {"fd12::1", false},
        {"ff02::1", false},
        {"::ffff:127.0.0.1", false},
        {"::ffff:8.8.8.8", true},
        {"64:ff9b::7f00:1", false},
        {"2002:7f00:1::", false},
        {"2001:db8::1", false},
        {"2001:0:1::1", false},
        {"::127.0.0.1", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        bool v4 = inet_pton(AF_INET, cases[i].text, &in.sin_addr) == 1;
        ck_assert(v4 || inet_pton(AF_INET6, cases[i].text, &in6.sin6_addr) == 1);
        const struct sockaddr *a = v4 ? (const struct sockaddr *)(void *)&in : (const struct sockaddr *)(void *)&in6;
        ck_assert_msg(lmo_address_is_public(a) == cases[i].is_public, "%s", cases[i].text);
    }
}
END_TEST

START_TEST(urls__are_https_with_a_host_that_may_be_called)
{
    static const struct {
        const char *url;
        bool plain, inside, good;
    } cases[] = {
        {"https://example.org", false, false, true}, {"https://example.org:8443/a?b=c", false, false, true},
        {"https://8.8.8.8/", false, false, true},    {"https://127.0.0.1/", false, false, false},
        {"https://127.0.0.1/", false, true, true},   {"https://[::1]/", false, false, false},
        {"https://[::1]:99/", false, true, true},    {"http://example.org/", false, false, false},
        {"http://example.org/", true, false, true},  {"http://10.0.0.1/", true, false, false},
        {"https://", false, false, false},           {"https:///x", false, false, false},
        {"https://a@b/", false, false, false},       {"https://a:b/", false, false, false},
        {"https://a:123456/", false, false, false},  {"https://a/ b", false, false, false},
        {"https://a/\r\nX: y", false, false, false}, {"file:///etc/passwd", true, true, false},
        {"https://[::1", false, true, false},        {"https://a/#f", false, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_err err = {0};
        bool good = lmo_url_check(cases[i].url, cases[i].plain, cases[i].inside, &err) == 0;
        ck_assert_msg(good == cases[i].good, "%s: %s", cases[i].url, err.text);
    }
}
END_TEST

START_TEST(a_name_that_resolves_to_a_private_address__is_not_connected_to)
{
    char body[128];
    fixture_two_hosts();
    /* "localhost" is a name, so only its resolution tells: asked for at the connection, not when the webhook was made. */
    snprintf(body, sizeof body, "{\"url\":\"http://localhost:%u/\"}", receiver.port);
    ck_assert_uint_eq(ask("POST", "/v1/webhooks", body), 201);
    snprintf(webhook, sizeof webhook, "%s", member("id"));
    happen(1);
    do {
        usleep(5000);
        ck_assert_uint_eq(of_webhook("GET", "", NULL), 200);
    } while (number("failures") == 0);
    ck_assert_ptr_nonnull(strstr(member("last_error"), "not a public one"));
    ck_assert_uint_eq(receiver_count(), 0);
}
END_TEST

START_TEST(traceparent__is_read_as_the_recommendation_says)
{
    static const struct {
        const char *text;
        bool good;
    } cases[] = {
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true},
        {"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-later", true},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", false},
        {"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false},
        {"00-00000000000000000000000000000000-00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false},
        {"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_trace t = {0};
        ck_assert_msg(lmo_traceparent_parse(cases[i].text, &t) == cases[i].good, "%s", cases[i].text);
        ck_assert(!cases[i].good || strcmp(t.id, "4bf92f3577b34da6a3ce929d0e0e4736") == 0);
        ck_assert(!cases[i].good || t.sampled == (i != 1));
    }
}
END_TEST

static void set_up(void)
{
    outbound_config = (struct lmo_outbound_config){.allow_http = true, .allow_private = true};
    fx.engine_config = (struct lmo_engine_config){.webhooks = {.retry_min_ms = 10,
                                                               .retry_max_ms = 40,
                                                               .attempts = 4,
                                                               .timeout_ms = 10000,
                                                               .disable_after_ms = 1500,
                                                               .disable_failures = 8}};
    fx.api_config = (struct lmo_api_config){0};
    receiver_start(NULL, NULL);
    fixture_set_up();
}

static void set_up_patient(void)
{
    set_up();
    fixture_tear_down();
    fx.engine_config.webhooks.attempts = 1000000; /* for tests of long outages */
    fx.engine_config.webhooks.disable_after_ms = 3600000;
    fixture_set_up();
}

static void set_up_public(void)
{
    outbound_config = (struct lmo_outbound_config){.allow_http = true};
    fx.engine_config = (struct lmo_engine_config){.webhooks = {.retry_min_ms = 10, .retry_max_ms = 40}};
    receiver_start(NULL, NULL);
    fixture_set_up();
}

static void set_up_tls(void)
{
    outbound_config = (struct lmo_outbound_config){.allow_private = true};
    snprintf(outbound_config.ca, sizeof outbound_config.ca, "%s/ca.pem", fake_pki_dir);
    fx.engine_config = (struct lmo_engine_config){.webhooks = {.retry_min_ms = 10, .retry_max_ms = 40}};
    struct lmo_tls_files files = fx.server; /* for 127.0.0.1, by our own CA */
    receiver_start(files.cert, files.key);
    fixture_set_up();
}

static void tear_down(void)
{
    fixture_tear_down();
    receiver_stop();
}

static TCase *case_of(Suite *s, const char *name, void (*before)(void))
{
    TCase *t = tcase_create(name);
    tcase_add_unchecked_fixture(t, fixture_pki, fake_pki_tear_down);
    tcase_add_checked_fixture(t, before, tear_down);
    tcase_set_timeout(t, 60);
    suite_add_tcase(s, t);
    return t;
}

Suite *webhooks_suite(void);
Suite *webhooks_suite(void)
{
    Suite *s = suite_create("webhooks");
    TCase *t = case_of(s, "delivery", set_up);
    tcase_add_test(t, every_event__comes_signed_once_and_verifies_independently);
    tcase_add_test(t, an_event_that_is_never_taken__becomes_a_dead_letter_and_can_be_sent_once_more);
    tcase_add_test(t, rotation__signs_with_both_secrets);
    tcase_add_test(t, a_receiver_that_fails_for_long_or_says_gone__is_disabled_and_the_log_tells);
    tcase_add_test(t, requests_about_webhooks__are_checked);
    tcase_add_test(t, the_owner__is_told_signed_and_the_move_waits_for_his_acknowledgement);
    tcase_add_test(t, an_owner_who_says_yes_in_his_answer__needs_no_second_call);
    tcase_add_test(t, an_owner_who_says_nothing__decides_by_what_was_agreed);
    tcase_add_test(t, a_guest_without_a_hook__waits_for_nobody);
    TCase *u = case_of(s, "patient", set_up_patient);
    tcase_add_test(u, a_receiver_that_fails__is_asked_again_until_it_takes_everything);
    tcase_add_test(u, a_restored_store__calls_nobody_until_it_is_activated);
    tcase_add_test(u, a_restart__sends_again_what_was_not_settled_and_leaves_nothing_out);
    TCase *v = case_of(s, "tls", set_up_tls);
    tcase_add_test(v, tls__is_verified_by_the_configured_ca_and_by_name);
    TCase *p = case_of(s, "public", set_up_public);
    tcase_add_test(p, a_name_that_resolves_to_a_private_address__is_not_connected_to);
    TCase *q = tcase_create("pure");
    tcase_add_test(q, a_signature__is_that_of_the_specification);
    tcase_add_test(q, addresses_that_are_not_public__are_told_from_those_that_are);
    tcase_add_test(q, urls__are_https_with_a_host_that_may_be_called);
    tcase_add_test(q, traceparent__is_read_as_the_recommendation_says);
    suite_add_tcase(s, q);
    return s;
}
