/* test_api.c - the REST API on the real server, engine and store; only the workers are made up. */
#include "api/api.h"
#include "base/json.h"
#include "base/loop.h"
#include "fake_worker.h"
#include "proto/vm.h"

#include <stdlib.h>

#define UUID "0f0e0d0c-0b0a-4908-8706-050403020100"

/* ------------------------------------------------------------------ workers that answer from a table */

struct fake_workers {
    struct lmo_workers base;
    struct lmo_loop *loop;
    const struct lmo_workers_callbacks *cb;
    unsigned held;
    struct {
        lmo_op_done_fn *done;
        void *arg;
    } ops[64]; /* never answered before the end */
};

struct later {
    struct fake_workers *w;
    char host[LMO_NAME_MAX];
    bool known;
    bool all;
    lmo_observe_done_fn *done;
    void *arg;
};

static void later(struct fake_workers *w, lmo_loop_fn *fn, struct later l)
{
    uint64_t timer;
    struct later *copy = malloc(sizeof(*copy));
    l.w = w;
    *copy = l;
    ck_assert_int_eq(lmo_loop_timer(w->loop, 0, fn, copy, &timer), 0);
}

static void report_up(void *arg)
{
    struct later *l = arg;
    struct lmo_host_facts f = {.boot = "b1", .hypervisor = "sim", .peer_uri = "sim://x",
                               .link_count = 1, .links = {{"migration", "10.0.0.1", 1U << 30}}};
    memcpy(f.host, l->host, sizeof(f.host));
    l->w->cb->host_state(l->w->cb->arg, l->host, &f, "");
    free(l);
}

static int fake_host_add(struct lmo_workers *base, const char *name, const char *url, uint64_t cursor,
                         struct lmo_err *err)
{
    struct later l = {0};
    (void)url;
    (void)cursor;
    (void)err;
    snprintf(l.host, sizeof(l.host), "%s", name);
    later((struct fake_workers *)(void *)base, report_up, l);
    return 0;
}

static void fake_host_remove(struct lmo_workers *base, const char *name)
{
    (void)base;
    (void)name;
}

static void fake_acknowledge(struct lmo_workers *base, const char *host, uint64_t cursor)
{
    (void)base;
    (void)host;
    (void)cursor;
}

static int fake_op(struct lmo_workers *base, const char *host, const struct lmo_op_request *req, uint32_t timeout_ms,
                   lmo_op_done_fn *done, void *arg, struct lmo_err *err)
{
    struct fake_workers *w = (struct fake_workers *)(void *)base;
    (void)host;
    (void)req;
    (void)timeout_ms;
    if (w->held == 64) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "the fake is full");
    }
    w->ops[w->held].done = done;
    w->ops[w->held++].arg = arg;
    return 0;
}

static void answer_observation(void *arg)
{
    struct later *l = arg;
    struct lmo_vm_facts f = {.uuid = UUID, .name = "g1", .state = LMO_RUN_RUNNING, .memory_bytes = 1U << 28};
    LMO_AUTO_JSON json_t *vm = lmo_vm_facts_to_json(&f);
    if (l->all) {
        LMO_AUTO_JSON json_t *body = json_object();
        json_t *vms = json_array();
        int r = l->known ? lmo_json_add(vms, json_incref(vm)) : 0;
        r |= lmo_json_put(body, "vms", vms);
        ck_assert_int_eq(r, 0);
        l->done(l->arg, 0, "", body);
    } else if (l->known) {
        l->done(l->arg, 0, "", vm);
    } else {
        l->done(l->arg, LMO_E_NOT_FOUND, "no such guest here", NULL);
    }
    free(l);
}

static int fake_observe(struct lmo_workers *base, const char *host, const char *path, uint32_t timeout_ms,
                        lmo_observe_done_fn *done, void *arg, struct lmo_err *err)
{
    bool here = strcmp(host, "hv1") == 0;
    struct later l = {.done = done, .arg = arg, .all = strcmp(path, "/v1/observe/vms") == 0};
    (void)timeout_ms;
    (void)err;
    l.known = here && (l.all || strstr(path, "/g1") || strstr(path, UUID));
    later((struct fake_workers *)(void *)base, answer_observation, l);
    return 0;
}

static void fake_close(struct lmo_workers *base)
{
    struct fake_workers *w = (struct fake_workers *)(void *)base;
    while (w->held > 0) {
        w->held--;
        w->ops[w->held].done(w->ops[w->held].arg, LMO_E_UNAVAILABLE, "the end", NULL);
    }
}

static const struct lmo_workers_ops fake_ops = {.close = fake_close,
                                                .host_add = fake_host_add,
                                                .host_remove = fake_host_remove,
                                                .acknowledge = fake_acknowledge,
                                                .op = fake_op,
                                                .observe = fake_observe};

/* ------------------------------------------------------------------ fixture */

static struct lmo_tls_files server_files, role_files[8];
static char state_dir[64];
static struct lmo_loop *engine_loop, *client_loop;
static struct lmo_store *store;
static struct lmo_engine *engine;
static struct lmo_permit_key *permit_key;
static struct lmo_api *api;
static struct fake_workers fake_workers;
static pthread_t engine_thread;
static struct lmo_http_client *clients[8];
static struct lmo_http_answer answer;
static json_t *body;

static void pki_set_up(void)
{
    fake_pki_set_up();
    server_files = fake_pki_issue(LMO_ROLE_COORDINATOR, "lmod");
    for (enum lmo_role role = LMO_ROLE_COORDINATOR; role <= LMO_ROLE_FAULT_INJECTOR; role++) {
        role_files[role] = fake_pki_issue(role, "tester");
    }
}

static void *run_engine(void *arg)
{
    (void)arg;
    ck_assert_int_eq(lmo_loop_run(engine_loop), 0);
    return NULL;
}

static void set_up(void)
{
    struct lmo_err err = {0};
    char key[LMO_PATH_MAX];
    strcpy(state_dir, "/tmp/lmo-api-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(state_dir));
    snprintf(key, sizeof(key), "%s/permit.key", fake_pki_dir);
    ck_assert_msg(lmo_permit_key_load(key, &permit_key, &err) == 0, "%s", err.text);
    ck_assert_int_eq(lmo_loop_new(1024, &engine_loop, &err), 0);
    ck_assert_msg(lmo_store_sqlite_open(state_dir, &store, &err) == 0, "%s", err.text);
    const struct lmo_engine_config config = {.loop = engine_loop, .store = store, .permit_key = permit_key};
    ck_assert_int_eq(lmo_engine_new(&config, &engine, &err), 0);
    memset(&fake_workers, 0, sizeof(fake_workers));
    fake_workers.base.ops = &fake_ops;
    fake_workers.loop = engine_loop;
    fake_workers.cb = lmo_engine_callbacks(engine);
    ck_assert_msg(lmo_engine_start(engine, &fake_workers.base, &err) == 0, "%s", err.text);
    ck_assert_int_eq(pthread_create(&engine_thread, NULL, run_engine, NULL), 0);
    struct lmo_api_config api_config = {.address = "127.0.0.1:0", .tls = server_files, .engine = engine};
    ck_assert_msg(lmo_api_start(&api_config, &api, &err) == 0, "%s", err.text);
    ck_assert_int_eq(lmo_loop_new(16, &client_loop, &err), 0);
}

static void forget_answer(void)
{
    lmo_http_answer_done(&answer);
    memset(&answer, 0, sizeof(answer));
    json_decref(body);
    body = NULL;
}

static void tear_down(void)
{
    char command[96];
    forget_answer();
    for (size_t i = 0; i < sizeof(clients) / sizeof(clients[0]); i++) {
        clients[i] = lmo_http_client_free(clients[i]);
    }
    client_loop = lmo_loop_free(client_loop);
    api = lmo_api_stop(api);
    lmo_loop_stop(engine_loop);
    pthread_join(engine_thread, NULL);
    fake_close(&fake_workers.base);
    engine = lmo_engine_free(engine);
    store->ops->close(store);
    engine_loop = lmo_loop_free(engine_loop);
    permit_key = lmo_permit_key_free(permit_key);
    snprintf(command, sizeof(command), "rm -rf '%s'", state_dir);
    ck_assert_int_eq(system(command), 0);
}

/* ------------------------------------------------------------------ asking */

static unsigned ask_as(enum lmo_role role, const char *method, const char *path, const char *text,
                       const char *const *headers)
{
    struct lmo_err err = {0};
    char url[512];
    if (!clients[role]) {
        const struct lmo_http_client_config config = {.tls = role_files[role]};
        ck_assert_msg(lmo_http_client_new(client_loop, &config, &clients[role], &err) == 0, "%s", err.text);
    }
    forget_answer();
    snprintf(url, sizeof(url), "https://127.0.0.1:%u%s", lmo_api_port(api), path);
    const struct lmo_http_request_spec spec = {.method = method,
                                               .url = url,
                                               .headers = headers,
                                               .body = text,
                                               .body_len = text ? strlen(text) : 0,
                                               .timeout_ms = 10000,
                                               .response_max = 1U << 20,
                                               .peer_role = LMO_ROLE_COORDINATOR};
    ck_assert_msg(lmo_http_request_sync(clients[role], &spec, &answer, &err) == 0, "%s %s: %s", method, path, err.text);
    body = answer.body_len ? json_loads(answer.body, 0, NULL) : NULL;
    ck_assert_msg(answer.body_len == 0 || body, "%s", answer.body);
    return answer.status;
}

static unsigned ask(const char *method, const char *path, const char *text)
{
    return ask_as(LMO_ROLE_OPERATOR, method, path, text, NULL);
}

static const char *member(const char *name)
{
    const char *text = json_string_value(json_object_get(body, name));
    return text ? text : "(none)";
}

static void add_hosts(void)
{
    ck_assert_uint_eq(ask("POST", "/v1/hosts", "{\"name\":\"hv1\",\"url\":\"https://10.0.0.1:8443\"}"), 201);
    ck_assert_uint_eq(ask("POST", "/v1/hosts", "{\"name\":\"hv2\",\"url\":\"https://10.0.0.2:8443/\"}"), 201);
    for (int i = 0; i < 100 && strcmp(member("state"), "up") != 0; i++) { /* reported by the fake in its next turn */
        ck_assert_uint_eq(ask("GET", "/v1/hosts/hv2", NULL), 200);
    }
}

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
    char path[128], url[256];
    struct lmo_err err = {0};
    add_hosts();
    ck_assert_uint_eq(ask("POST", "/v1/migrations", "{\"vm\":\"g1\",\"destination\":\"hv2\"}"), 202);
    snprintf(path, sizeof(path), "/v1/migrations/%s?wait_version=1000000&wait_ms=60000", member("id"));
    snprintf(url, sizeof(url), "https://127.0.0.1:%u%s", lmo_api_port(api), path);
    const struct lmo_http_request_spec spec = {
        .method = "GET", .url = url, .timeout_ms = 300, .response_max = 1U << 20, .peer_role = LMO_ROLE_COORDINATOR};
    forget_answer();
    ck_assert_int_eq(lmo_http_request_sync(clients[LMO_ROLE_OPERATOR], &spec, &answer, &err), LMO_E_TIMEOUT);
}
END_TEST

Suite *api_suite(void);
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

Suite *api_suite(void)
{
    Suite *s = suite_create("api");
    TCase *t = tcase_create("rest");
    tcase_add_unchecked_fixture(t, pki_set_up, fake_pki_tear_down);
    tcase_add_checked_fixture(t, set_up, tear_down);
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
    suite_add_tcase(s, t);
    return s;
}
