/* test_api.c - the REST API: what each request does, and what is refused. */
#include "api_fixture.h"
#include "base/cleanup.h"
#include "base/id.h"

#include <stdlib.h>

#define UUID API_GUEST_UUID

/* ------------------------------------------------------------------ hosts, guests, health */

START_TEST(hosts__are_added_shown_and_removed)
{
    add_hosts();
    ck_assert_str_eq(member("name"), "hv2");
    ck_assert_uint_eq(ask("GET", "/v1/hosts", NULL), 200);
    ck_assert_uint_eq(json_array_size(json_object_get(body, "hosts")), 2);
    ck_assert_uint_eq(ask("POST", "/v1/hosts", "{\"name\":\"hv1\",\"url\":\"https://10.0.0.1:8443\"}"), 409);
    ck_assert_str_eq(member("field"), "name");
    ck_assert_uint_eq(ask("DELETE", "/v1/hosts/hv2", NULL), 204);
    ck_assert_uint_eq(answer.body_len, 0);
    ck_assert_uint_eq(ask("DELETE", "/v1/hosts/hv2", NULL), 404);
    ck_assert_uint_eq(ask("GET", "/v1/hosts/hv2", NULL), 404);
}
END_TEST

static json_int_t limit(const char *name)
{
    return json_integer_value(json_object_get(json_object_get(body, "limits"), name));
}

START_TEST(limits_of_a_host__are_set_shown_and_taken_back_and_hold_what_is_asked)
{
    char path[96];
    add_hosts();
    ck_assert_int_eq(limit("max_incoming"), 2); /* the coordinator's */
    ck_assert_uint_eq(ask("PATCH", "/v1/hosts/hv2", "{\"max_incoming\":0,\"max_bandwidth_bytes_per_s\":1000000}"), 200);
    ck_assert_int_eq(limit("max_incoming"), 0);
    ck_assert_int_eq(limit("max_bandwidth_bytes_per_s"), 1000000);
    ck_assert_uint_eq(json_array_size(json_object_get(json_object_get(body, "limits"), "set_for_this_host")), 2);
    ck_assert_uint_eq(ask("POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}"), 202);
    ck_assert_str_eq(member("phase"), "queued");
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(body, "held_by"), "limit")), "incoming");
    ck_assert_int_eq(json_integer_value(json_object_get(body, "queue_position")), 1);
    snprintf(path, sizeof(path), "/v1/migrations/%s", member("id"));
    ck_assert_uint_eq(ask("PATCH", "/v1/hosts/hv2", "{\"max_incoming\":null}"), 200); /* absent: as it was */
    ck_assert_int_eq(limit("max_incoming"), 2);
    ck_assert_int_eq(limit("max_bandwidth_bytes_per_s"), 1000000);
    ck_assert_uint_eq(ask("GET", path, NULL), 200);
    ck_assert_str_eq(member("phase"), "precheck");
    ck_assert_int_eq(json_integer_value(json_object_get(body, "share_bytes_per_s")), 1000000);
    ck_assert(json_is_null(json_object_get(body, "held_by")) && json_is_null(json_object_get(body, "queue_position")));
    ck_assert_uint_eq(ask("PATCH", "/v1/hosts/hv9", "{\"max_incoming\":1}"), 404);
    ck_assert_uint_eq(ask("PATCH", "/v1/hosts/hv2", "{\"max_incoming\":-1}"), 400);
    ck_assert_uint_eq(ask("PATCH", "/v1/hosts/hv2", "{\"max_bandwidth_bytes_per_s\":0}"), 400);
    ck_assert_str_eq(member("field"), "max_bandwidth_bytes_per_s");
    ck_assert_uint_eq(ask("PATCH", "/v1/hosts/hv2", "{\"speed\":1}"), 400);
    ck_assert_uint_eq(ask_as(LMO_ROLE_VIEWER, "PATCH", "/v1/hosts/hv2", "{\"max_incoming\":1}", NULL), 403);
}
END_TEST

START_TEST(guests__are_shown_where_they_are)
{
    add_hosts();
    ck_assert_uint_eq(ask("GET", "/v1/vms", NULL), 200);
    ck_assert_uint_eq(json_array_size(json_object_get(body, "vms")), 1);
    ck_assert_uint_eq(ask("GET", "/v1/vms/g1", NULL), 200);
    ck_assert_uint_eq(ask("GET", "/v1/vms/" UUID, NULL), 200);
    ck_assert_uint_eq(ask("GET", "/v1/vms/nobody", NULL), 404);
    ck_assert_uint_eq(ask("GET", "/v1/vms/..%2Fmigrations", NULL), 404);
}
END_TEST

START_TEST(health__says_that_the_engine_turns)
{
    ck_assert_uint_eq(ask("GET", "/healthz", NULL), 200);
    ck_assert_str_eq(member("status"), "ok");
    ck_assert(json_is_false(json_object_get(body, "pre_production")));
    ck_assert(json_is_boolean(json_object_get(body, "fault_points")));
}
END_TEST

/* ------------------------------------------------------------------ migrations */

START_TEST(a_migration__is_accepted_shown_listed_and_cancelled)
{
    char id[LMO_ID_MAX], path[128];
    add_hosts();
    ck_assert_uint_eq(ask("POST", "/v1/migrations",
                          "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":"
                          "{\"max_downtime_ms\":250,\"accept_stateful_loss\":true}}"),
                      202);
    snprintf(id, sizeof(id), "%s", member("id"));
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(body, "policy"), "max_downtime_ms")), 250);
    ck_assert_str_eq(member("source"), "hv1");
    snprintf(path, sizeof(path), "/v1/migrations/%s", id);
    ck_assert_uint_eq(ask("GET", path, NULL), 200);
    ck_assert_str_eq(member("id"), id);
    json_int_t version = json_integer_value(json_object_get(body, "version"));
    ck_assert_uint_eq(ask("POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}"), 409);
    ck_assert_msg(strstr(member("detail"), id) != NULL, "%s", member("detail"));
    ck_assert_uint_eq(ask("GET", "/v1/migrations?vm=g1&limit=5", NULL), 200);
    ck_assert_uint_eq(json_array_size(json_object_get(body, "migrations")), 1);
    ck_assert_uint_eq(ask("GET", "/v1/migrations?phase=completed", NULL), 200);
    ck_assert_uint_eq(json_array_size(json_object_get(body, "migrations")), 0);
    snprintf(path, sizeof(path), "/v1/migrations/%s/journal", id);
    ck_assert_uint_eq(ask("GET", path, NULL), 200);
    ck_assert_uint_ge(json_array_size(json_object_get(body, "journal")), 1);
    ck_assert_uint_eq(ask("DELETE", "/v1/hosts/hv1", NULL), 409); /* it takes part */
    snprintf(path, sizeof(path), "/v1/migrations/%s/cancel", id);
    ck_assert_uint_eq(ask("POST", path, NULL), 202);
    snprintf(path, sizeof(path), "/v1/migrations/%s?wait_version=%lld&wait_ms=2000", id, (long long)version);
    ck_assert_uint_eq(ask("GET", path, NULL), 200);
    ck_assert_int_gt(json_integer_value(json_object_get(body, "version")), version);
}
END_TEST

START_TEST(waiting__ends_after_wait_ms_with_what_there_is)
{
    char path[128];
    add_hosts();
    ck_assert_uint_eq(ask("POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}"), 202);
    snprintf(path, sizeof(path), "/v1/migrations/%s?wait_version=1000000&wait_ms=200", member("id"));
    ck_assert_uint_eq(ask("GET", path, NULL), 200);
}
END_TEST

START_TEST(same_idempotency_key__has_one_effect)
{
    static const char *const key[] = {"Idempotency-Key: abc-1", NULL};
    char id[LMO_ID_MAX];
    add_hosts();
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}",
                             key),
                      202);
    snprintf(id, sizeof(id), "%s", member("id"));
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/migrations", "{ \"destination\":\"hv2\", \"vm\":\"g1\" }",
                             key),
                      202);
    ck_assert_str_eq(member("id"), id);
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/migrations", "{\"vm\":\"g2\",\"destination\":\"hv2\"}",
                             key),
                      422);
    ck_assert_str_eq(member("field"), "Idempotency-Key");
    /* Another client's key of the same name is another key. */
    ck_assert_uint_eq(ask_as(LMO_ROLE_CONTROL_PLANE, "POST", "/v1/migrations",
                             "{\"vm\":\"g1\",\"destination\":\"hv2\"}", key),
                      409);
}
END_TEST

/* ------------------------------------------------------------------ what is refused */

#define LONG_64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static const struct {
    const char *method, *path, *body;
    unsigned status;
    const char *code, *field;
} refusals[] = {
    {"POST", "/v1/migrations", "{\"vm\":\"nobody\",\"destination\":\"hv2\"}", 404, "not_found", "vm"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv9\"}", 404, "not_found", "destination"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv1\"}", 400, "invalid", "destination"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\"}", 400, "invalid", "destination"},
    {"POST", "/v1/migrations", "{\"vm\":\"\",\"destination\":\"hv2\"}", 400, "invalid", "vm"},
    {"POST", "/v1/migrations", "{\"vm\":\"../x\",\"destination\":\"hv2\"}", 400, "invalid", "vm"},
    {"POST", "/v1/migrations", "{\"vm\":7,\"destination\":\"hv2\"}", 400, "invalid", "vm"},
    {"POST", "/v1/migrations", "{\"vm\":\"" LONG_64 "\",\"destination\":\"hv2\"}", 400, "invalid", "vm"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\",\"colour\":1}", 400, "invalid", "colour"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{\"speed\":1}}", 400, "invalid",
     "policy.speed"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{\"max_downtime_ms\":-1}}", 400,
     "invalid", "policy.max_downtime_ms"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{\"max_downtime_ms\":600001}}", 400,
     "invalid", "policy.max_downtime_ms"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{\"on_timeout\":\"wait\"}}", 400,
     "invalid", "policy.on_timeout"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{\"on_timeout\":\"force\"}}", 400,
     "invalid", "policy.force_max_pause_ms"},
    {"POST", "/v1/migrations",
     "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{\"on_timeout\":\"force\",\"force_max_pause_ms\":299}}", 400,
     "invalid", "policy.force_max_pause_ms"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{\"force_max_pause_ms\":3000}}", 400,
     "invalid", "policy.force_max_pause_ms"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{\"throttle_initial_percent\":30}}", 400,
     "invalid", "policy.allow_throttle"},
    {"POST", "/v1/migrations",
     "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{\"allow_throttle\":true,\"throttle_increment_percent\":100}}", 400,
     "invalid", "policy.throttle_increment_percent"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{\"prediction\":\"maybe\"}}", 400,
     "invalid", "policy.prediction"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":[]}", 400, "invalid", "policy"},
    {"POST", "/v1/migrations", "{\"vm\":\"g1\",", 400, "invalid", NULL},
    {"POST", "/v1/migrations", "[]", 400, "invalid", NULL},
    {"POST", "/v1/migrations", NULL, 400, "invalid", "vm"},
    {"POST", "/v1/migrations", "[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]", 413, "too_large", NULL},
    {"POST", "/v1/hosts", "{\"name\":\"hv3\"}", 400, "invalid", "url"},
    {"POST", "/v1/hosts", "{\"name\":\"hv3\",\"url\":\"http://10.0.0.3\"}", 400, "invalid", "url"},
    {"POST", "/v1/hosts", "{\"name\":\"hv3\",\"url\":\"https://a@b/\"}", 400, "invalid", "url"},
    {"POST", "/v1/hosts", "{\"name\":\"hv3\",\"url\":\"https://10.0.0.3/x\"}", 400, "invalid", "url"},
    {"POST", "/v1/hosts", "{\"name\":\"-x\",\"url\":\"https://10.0.0.3\"}", 400, "invalid", "name"},
    {"GET", "/v1/hosts/.x", NULL, 404, "not_found", "name"},
    {"GET", "/v1/migrations/nope", NULL, 404, "not_found", "id"},
    {"GET", "/v1/migrations/01JD2Z3W5X6Y7Z8A9B0C1D2E3F", NULL, 404, "not_found", "id"},
    {"GET", "/v1/migrations/01JD2Z3W5X6Y7Z8A9B0C1D2E3F?wait_ms=60001", NULL, 400, "invalid", "wait_ms"},
    {"GET", "/v1/migrations/01JD2Z3W5X6Y7Z8A9B0C1D2E3F?wait_version=x", NULL, 400, "invalid", "wait_version"},
    {"GET", "/v1/migrations/01JD2Z3W5X6Y7Z8A9B0C1D2E3F/journal", NULL, 404, "not_found", "id"},
    {"POST", "/v1/migrations/01JD2Z3W5X6Y7Z8A9B0C1D2E3F/cancel", NULL, 404, "not_found", "id"},
    {"POST", "/v1/migrations/01JD2Z3W5X6Y7Z8A9B0C1D2E3F/cancel", "{\"why\":\"x\"}", 400, "invalid", "why"},
    {"GET", "/v1/migrations?phase=flying", NULL, 400, "invalid", "phase"},
    {"GET", "/v1/migrations?limit=0", NULL, 400, "invalid", "limit"},
    {"GET", "/v1/migrations?limit=1001", NULL, 400, "invalid", "limit"},
    {"GET", "/v1/migrations?before=x", NULL, 400, "invalid", "before"},
    {"GET", "/v2/hosts", NULL, 404, "not_found", NULL},
    {"PATCH", "/v1/hosts", "{}", 405, "method_not_allowed", NULL},
};

START_TEST(bad_requests__get_a_clear_error_and_change_nothing)
{
    add_hosts();
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        unsigned status = ask(refusals[i].method, refusals[i].path, refusals[i].body);
        const char *what = refusals[i].body ? refusals[i].body : refusals[i].path;
        ck_assert_msg(status == refusals[i].status, "%s: %u %s", what, status, answer.body);
        ck_assert_str_eq(answer.content_type, "application/problem+json");
        ck_assert_str_eq(member("code"), refusals[i].code);
        ck_assert_msg(strcmp(member("field"), refusals[i].field ? refusals[i].field : "(none)") == 0, "%s: %s", what,
                      answer.body);
        ck_assert_int_eq(json_integer_value(json_object_get(body, "status")), (int)status);
        ck_assert_msg(strncmp(member("type"), "/problems/", 10) == 0 && strcmp(member("type") + 10, member("code")) == 0, "%s",
                      member("type"));
        ck_assert_uint_gt(strlen(member("detail")), 5);
    }
    ck_assert_uint_eq(ask("GET", "/v1/migrations", NULL), 200);
    ck_assert_uint_eq(json_array_size(json_object_get(body, "migrations")), 0);
    ck_assert_uint_eq(ask("GET", "/v1/hosts", NULL), 200);
    ck_assert_uint_eq(json_array_size(json_object_get(body, "hosts")), 2);
}
END_TEST

START_TEST(wrong_headers__are_refused)
{
    static const char *const text[] = {"Content-Type: text/plain", NULL};
    static const char *const spaces[] = {"Idempotency-Key: a b", NULL};
    static const char *const too_long[] = {"Idempotency-Key: a" LONG_64, NULL};
    static const char *const charset[] = {"Content-Type: application/json; charset=utf-8", NULL};
    const char *request = "{\"vm\":\"nobody\",\"destination\":\"hv2\"}";
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/migrations", request, text), 400);
    ck_assert_str_eq(member("field"), "Content-Type");
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/migrations", request, spaces), 400);
    ck_assert_str_eq(member("field"), "Idempotency-Key");
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/migrations", request, too_long), 400);
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/migrations", request, charset), 404);
}
END_TEST

START_TEST(body_above_the_cap__is_413)
{
    LMO_AUTO_FREE char *big = malloc(70000);
    memset(big, ' ', 69999);
    big[69999] = '\0';
    ck_assert_uint_eq(ask("POST", "/v1/migrations", big), 413);
    ck_assert_str_eq(member("code"), "too_large");
}
END_TEST

START_TEST(roles__may_do_what_they_may)
{
    static const struct {
        enum lmo_role role;
        unsigned read, write;
    } rights[] = {{LMO_ROLE_OPERATOR, 200, 404}, {LMO_ROLE_CONTROL_PLANE, 200, 404},
                  {LMO_ROLE_VIEWER, 200, 403},   {LMO_ROLE_COORDINATOR, 403, 403},
                  {LMO_ROLE_WORKER, 403, 403},   {LMO_ROLE_FAULT_INJECTOR, 403, 403}};
    for (size_t i = 0; i < sizeof(rights) / sizeof(rights[0]); i++) {
        ck_assert_uint_eq(ask_as(rights[i].role, "GET", "/v1/hosts", NULL, NULL), rights[i].read);
        ck_assert_uint_eq(ask_as(rights[i].role, "POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}",
                                 NULL),
                          rights[i].write);
        ck_assert_uint_eq(ask_as(rights[i].role, "DELETE", "/v1/hosts/hv1", NULL, NULL), rights[i].write);
        if (rights[i].write == 403) {
            ck_assert_str_eq(member("code"), "forbidden");
            ck_assert_msg(strstr(member("detail"), lmo_role_name(rights[i].role)) != NULL, "%s", member("detail"));
        }
    }
}
END_TEST

START_TEST(stopping_while_a_client_waits__answers_it)
{
    /* The wait is cut short by tear_down: what is checked is that nothing hangs and nothing leaks. */
    char path[128];
    add_hosts();
    ck_assert_uint_eq(ask("POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}"), 202);
    snprintf(path, sizeof(path), "/v1/migrations/%s?wait_version=1000000&wait_ms=60000", member("id"));
    ck_assert_int_eq(ask_within(LMO_ROLE_OPERATOR, "GET", path, NULL, NULL, 300), -1);
}
END_TEST

/* ------------------------------------------------------------------ decisions, the doctor, the audit trail */

START_TEST(a_decision__is_checked_before_anybody_is_asked)
{
    char id[LMO_ID_MAX], path[128];
    add_hosts();
    ck_assert_uint_eq(ask("POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}"), 202);
    snprintf(id, sizeof(id), "%s", member("id"));
    snprintf(path, sizeof(path), "/v1/migrations/%s/resolve", id);
    ck_assert_uint_eq(ask("POST", path, "{\"decision\":\"flip-a-coin\",\"reason\":\"x\"}"), 400);
    ck_assert_str_eq(member("field"), "decision");
    ck_assert_uint_eq(ask("POST", path, "{\"decision\":\"retry\"}"), 400); /* without a reason nobody decides */
    ck_assert_uint_eq(ask("POST", path, "{\"decision\":\"retry\",\"reason\":\"x\"}"), 409);
    ck_assert_msg(strstr(member("detail"), "only one in attention") != NULL, "%s", member("detail"));
    ck_assert_uint_eq(ask("POST", "/v1/migrations/01JD2Z3W5X6Y7Z8A9B0C1D2E3F/resolve",
                          "{\"decision\":\"retry\",\"reason\":\"x\"}"), 404);
    ck_assert_uint_eq(ask_as(LMO_ROLE_VIEWER, "POST", path, "{\"decision\":\"retry\",\"reason\":\"x\"}", NULL), 403);
}
END_TEST

START_TEST(the_doctor__answers_and_is_not_a_viewers)
{
    add_hosts();
    ck_assert_uint_eq(ask("POST", "/v1/doctor", "{}"), 200);
    ck_assert_int_eq(json_integer_value(json_object_get(body, "hosts")), 2);
    ck_assert(json_is_array(json_object_get(body, "findings")));
    ck_assert_uint_eq(ask("POST", "/v1/doctor", "{\"repair\":\"yes\"}"), 400);
    ck_assert_uint_eq(ask_as(LMO_ROLE_VIEWER, "POST", "/v1/doctor", "{}", NULL), 403);
    ck_assert_uint_eq(ask("GET", "/v1/doctor", NULL), 405);
}
END_TEST

/* Lines of that request, newest first, as "outcome outcome ...". */
static void outcomes_of(const char *request, char *ret, size_t size)
{
    size_t i;
    const json_t *l;
    ret[0] = '\0';
    ck_assert_uint_eq(ask("GET", "/v1/audit?limit=100", NULL), 200);
    json_array_foreach(json_object_get(body, "audit"), i, l)
    {
        if (strcmp(json_string_value(json_object_get(l, "request")), request) == 0) {
            size_t used = strlen(ret);
            snprintf(ret + used, size - used, "%s ", json_string_value(json_object_get(l, "outcome")));
        }
    }
}

START_TEST(every_change__leaves_who_what_and_what_came_of_it)
{
    static const char *const made[] = {"X-Request-Id: move-1", NULL}, *const denied[] = {"X-Request-Id: sneak-1", NULL};
    char id[LMO_ID_MAX], path[128], text[256] = "";
    add_hosts();
    ck_assert_uint_eq(ask_as(LMO_ROLE_OPERATOR, "POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}", made), 202);
    snprintf(id, sizeof(id), "%s", member("id"));
    ck_assert_uint_eq(ask_as(LMO_ROLE_VIEWER, "DELETE", "/v1/hosts/hv1", NULL, denied), 403);
    for (int i = 0; i < 100 && strcmp(text, "ok asked ") != 0; i++) { /* an outcome follows its answer */
        outcomes_of("move-1", text, sizeof(text));
    }
    ck_assert_str_eq(text, "ok asked ");
    for (int i = 0; i < 100 && strcmp(text, "forbidden asked ") != 0; i++) {
        outcomes_of("sneak-1", text, sizeof(text));
    }
    ck_assert_str_eq(text, "forbidden asked ");
    snprintf(path, sizeof(path), "/v1/audit?migration=%s", id);
    ck_assert_uint_eq(ask("GET", path, NULL), 200);
    const json_t *line = json_array_get(json_object_get(body, "audit"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(line, "principal")), "operator:tester");
    ck_assert_str_eq(json_string_value(json_object_get(line, "action")), "POST /v1/migrations");
    ck_assert_uint_eq(ask("GET", "/v1/audit?host=hv1", NULL), 200);
    line = json_array_get(json_object_get(body, "audit"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(line, "principal")), "viewer:tester");
    ck_assert_uint_eq(ask("GET", "/v1/audit?migration=x", NULL), 400);
    ck_assert_uint_eq(ask_as(LMO_ROLE_VIEWER, "GET", "/v1/audit", NULL, NULL), 200); /* looking is a viewer's right */
}
END_TEST

START_TEST(every_answer_so_far__is_one_that_openapi_has)
{
    ck_assert_int_eq(answers_conform(), 0);
}
END_TEST

Suite *api_suite(void);
Suite *api_suite(void)
{
    Suite *s = suite_create("api");
    TCase *t = tcase_create("rest");
    tcase_add_unchecked_fixture(t, api_pki_set_up, api_pki_tear_down);
    tcase_add_checked_fixture(t, api_set_up, api_tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, hosts__are_added_shown_and_removed);
    tcase_add_test(t, limits_of_a_host__are_set_shown_and_taken_back_and_hold_what_is_asked);
    tcase_add_test(t, guests__are_shown_where_they_are);
    tcase_add_test(t, health__says_that_the_engine_turns);
    tcase_add_test(t, a_migration__is_accepted_shown_listed_and_cancelled);
    tcase_add_test(t, waiting__ends_after_wait_ms_with_what_there_is);
    tcase_add_test(t, same_idempotency_key__has_one_effect);
    tcase_add_test(t, bad_requests__get_a_clear_error_and_change_nothing);
    tcase_add_test(t, wrong_headers__are_refused);
    tcase_add_test(t, body_above_the_cap__is_413);
    tcase_add_test(t, roles__may_do_what_they_may);
    tcase_add_test(t, stopping_while_a_client_waits__answers_it);
    tcase_add_test(t, a_decision__is_checked_before_anybody_is_asked);
    tcase_add_test(t, the_doctor__answers_and_is_not_a_viewers);
    tcase_add_test(t, every_change__leaves_who_what_and_what_came_of_it);
    tcase_add_test(t, every_answer_so_far__is_one_that_openapi_has);
    suite_add_tcase(s, t);
    return s;
}
