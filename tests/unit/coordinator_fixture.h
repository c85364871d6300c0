/* coordinator_fixture.h - a coordinator in this process for tests of what it tells: real store, engine and REST API over
 * mutual TLS on loopback; workers that are always up and answer nothing. It can be stopped and started again on its store. */
#ifndef LMO_TESTS_UNIT_COORDINATOR_FIXTURE_H
#define LMO_TESTS_UNIT_COORDINATOR_FIXTURE_H

#include "api/api.h"
#include "base/json.h"
#include "base/loop.h"
#include "base/str.h"
#include "fake_worker.h"
#include "proto/vm.h"
#include "tmpdir.h"

#include <stdlib.h>

#define FIXTURE_GUEST_NAME "g1"
#define FIXTURE_GUEST_UUID "0f0e0d0c-0b0a-4908-8706-050403020100"

static struct {
    char state[TMPDIR_MAX];
    struct lmo_tls_files server, files[8];
    struct lmo_loop *loop, *client_loop;
    struct lmo_store *store;
    struct lmo_permit_key *key;
    struct lmo_engine *engine;
    struct lmo_api *api;
    struct lmo_workers workers;
    const struct lmo_workers_callbacks *cb;
    pthread_t thread;
    struct lmo_http_client *clients[8];
    /* what tests may set before fixture_start */
    struct lmo_engine_config engine_config;
    struct lmo_api_config api_config;
    struct lmo_http_answer answer;
    json_t *body;
    struct fixture_op {
        lmo_op_done_fn *done;
        void *arg;
        char host[LMO_NAME_MAX], id[LMO_OP_ID_MAX], traceparent[64];
    } ops[256];
    unsigned op_count;
} fx;

/* ------------------------------------------------------------------ workers */

struct fixture_later {
    char host[LMO_NAME_MAX];
    bool known, all;
    lmo_observe_done_fn *done;
    void *arg;
};

static inline void fixture_soon(lmo_loop_fn *fn, const struct fixture_later *l)
{
    uint64_t timer;
    struct fixture_later *copy = malloc(sizeof *copy);
    ck_assert_ptr_nonnull(copy);
    *copy = *l;
    ck_assert_int_eq(lmo_loop_timer(fx.loop, 0, fn, copy, &timer), 0);
}

static inline void fixture_report_up(void *arg)
{
    struct fixture_later *l = arg;
    struct lmo_host_facts f = {.boot = "b1",
                               .hypervisor = "sim",
                               .peer_uri = "sim://x",
                               .link_count = 1,
                               .links = {{"migration", "10.0.0.1", 1U << 30}}};
    LMO_COPY(f.host, l->host);
    fx.cb->host_state(fx.cb->arg, l->host, &f, "");
    free(l);
}

static inline int fixture_host_add(struct lmo_workers *w, const char *name, const char *url, uint64_t cursor,
                                   struct lmo_err *err)
{
    struct fixture_later l = {0};
    (void)w, (void)url, (void)cursor, (void)err;
    LMO_COPY(l.host, name);
    fixture_soon(fixture_report_up, &l);
    return 0;
}

static inline void fixture_host_remove(struct lmo_workers *w, const char *name)
{
    (void)w, (void)name;
}

static inline void fixture_acknowledge(struct lmo_workers *w, const char *host, uint64_t cursor)
{
    (void)w, (void)host, (void)cursor;
}

static inline int fixture_op_call(struct lmo_workers *w, const char *host, const struct lmo_op_request *req,
                                  uint32_t timeout_ms, lmo_op_done_fn *done, void *arg, struct lmo_err *err)
{
    (void)w, (void)timeout_ms;
    if (fx.op_count == 256) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "the fixture is full");
    }
    struct fixture_op *op = &fx.ops[fx.op_count++];
    *op = (struct fixture_op){.done = done, .arg = arg};
    LMO_COPY(op->host, host);
    LMO_COPY(op->id, req->id);
    LMO_COPY(op->traceparent, req->traceparent);
    return 0;
}

static inline void fixture_answer(void *arg)
{
    struct fixture_later *l = arg;
    struct lmo_vm_facts f = {.uuid = FIXTURE_GUEST_UUID,
                             .name = FIXTURE_GUEST_NAME,
                             .state = LMO_RUN_RUNNING,
                             .memory_bytes = 1U << 28};
    LMO_AUTO_JSON json_t *vm = lmo_vm_facts_to_json(&f);
    if (l->all) {
        LMO_AUTO_JSON json_t *body = json_object();
        json_t *vms = json_array();
        int r = l->known ? lmo_json_add(vms, json_incref(vm)) : 0;
        ck_assert_int_eq(r | lmo_json_put(body, "vms", vms), 0);
        l->done(l->arg, 0, "", body);
    } else {
        l->done(l->arg, l->known ? 0 : LMO_E_NOT_FOUND, l->known ? "" : "not here", l->known ? vm : NULL);
    }
    free(l);
}

static inline int fixture_observe(struct lmo_workers *w, const char *host, const char *path, uint32_t timeout_ms,
                                  lmo_observe_done_fn *done, void *arg, struct lmo_err *err)
{
    struct fixture_later l = {.done = done, .arg = arg, .all = strcmp(path, "/v1/observe/vms") == 0};
    (void)w, (void)timeout_ms, (void)err;
    l.known =
        strcmp(host, "hv1") == 0 && (l.all || strstr(path, "/" FIXTURE_GUEST_NAME) || strstr(path, FIXTURE_GUEST_UUID));
    fixture_soon(fixture_answer, &l);
    return 0;
}

static inline void fixture_close(struct lmo_workers *w)
{
    (void)w;
    while (fx.op_count > 0) {
        fx.op_count--;
        fx.ops[fx.op_count].done(fx.ops[fx.op_count].arg, LMO_E_UNAVAILABLE, "the end", NULL);
    }
}

static const struct lmo_workers_ops fixture_worker_ops = {.close = fixture_close,
                                                          .host_add = fixture_host_add,
                                                          .host_remove = fixture_host_remove,
                                                          .acknowledge = fixture_acknowledge,
                                                          .op = fixture_op_call,
                                                          .observe = fixture_observe};

/* ------------------------------------------------------------------ life */

/* Once per suite, unchecked. */
static inline void fixture_pki(void)
{
    fake_pki_set_up();
    fx.server = fake_pki_issue(LMO_ROLE_COORDINATOR, "lmod");
    for (enum lmo_role role = LMO_ROLE_COORDINATOR; role <= LMO_ROLE_FAULT_INJECTOR; role++) {
        fx.files[role] = fake_pki_issue(role, "tester");
    }
}

static inline void *fixture_run(void *arg)
{
    (void)arg;
    ck_assert_int_eq(lmo_loop_run(fx.loop), 0);
    return NULL;
}

/* Between the loop's making and the engine's: what else lives on the loop. */
static void fixture_before_engine(void);
static void fixture_after_engine(void);

static inline void fixture_start(void)
{
    struct lmo_err err = {0};
    char key[LMO_PATH_MAX];
    snprintf(key, sizeof key, "%s/permit.key", fake_pki_dir);
    ck_assert_msg(lmo_permit_key_load(key, &fx.key, &err) == 0, "%s", err.text);
    ck_assert_int_eq(lmo_loop_new(1024, &fx.loop, &err), 0);
    ck_assert_msg(lmo_store_sqlite_open(fx.state, &fx.store, &err) == 0, "%s", err.text);
    fx.engine_config.loop = fx.loop;
    fx.engine_config.store = fx.store;
    fx.engine_config.permit_key = fx.key;
    fixture_before_engine();
    ck_assert_int_eq(lmo_engine_new(&fx.engine_config, &fx.engine, &err), 0);
    fx.workers.ops = &fixture_worker_ops;
    fx.cb = lmo_engine_callbacks(fx.engine);
    ck_assert_msg(lmo_engine_start(fx.engine, &fx.workers, &err) == 0, "%s", err.text);
    ck_assert_int_eq(pthread_create(&fx.thread, NULL, fixture_run, NULL), 0);
    LMO_COPY(fx.api_config.address, "127.0.0.1:0");
    fx.api_config.tls = fx.server;
    fx.api_config.engine = fx.engine;
    ck_assert_msg(lmo_api_start(&fx.api_config, &fx.api, &err) == 0, "%s", err.text);
}

static inline void fixture_stop(void)
{
    fx.api = lmo_api_stop(fx.api);
    lmo_loop_stop(fx.loop);
    pthread_join(fx.thread, NULL);
    lmo_engine_stop(fx.engine);
    fixture_close(&fx.workers);
    fx.engine = lmo_engine_free(fx.engine);
    fixture_after_engine();
    fx.store->ops->close(fx.store);
    fx.loop = lmo_loop_free(fx.loop);
    fx.key = lmo_permit_key_free(fx.key);
}

static inline void fixture_set_up(void)
{
    struct lmo_err err = {0};
    tmpdir_make(fx.state, "coordinator");
    ck_assert_int_eq(lmo_loop_new(16, &fx.client_loop, &err), 0);
    fixture_start();
}

static inline void fixture_forget(void)
{
    lmo_http_answer_done(&fx.answer);
    json_decref(fx.body);
    fx.body = NULL;
}

static inline void fixture_tear_down(void)
{
    fixture_forget();
    for (size_t i = 0; i < 8; i++) {
        fx.clients[i] = lmo_http_client_free(fx.clients[i]);
    }
    fx.client_loop = lmo_loop_free(fx.client_loop);
    fixture_stop();
    tmpdir_remove(fx.state);
}

/* ------------------------------------------------------------------ asking */

static inline void fixture_url(char ret[512], const char *path)
{
    snprintf(ret, 512, "https://127.0.0.1:%u%s", lmo_api_port(fx.api), path);
}

static inline struct lmo_http_client *fixture_client(enum lmo_role role)
{
    struct lmo_err err = {0};
    if (!fx.clients[role]) {
        const struct lmo_http_client_config config = {.tls = fx.files[role]};
        ck_assert_msg(lmo_http_client_new(fx.client_loop, &config, &fx.clients[role], &err) == 0, "%s", err.text);
    }
    return fx.clients[role];
}

static inline unsigned fixture_ask(enum lmo_role role, const char *method, const char *path, const char *text,
                                   const char *const *headers)
{
    struct lmo_err err = {0};
    char url[512];
    fixture_forget();
    fixture_url(url, path);
    const struct lmo_http_request_spec spec = {.method = method,
                                               .url = url,
                                               .headers = headers,
                                               .body = text,
                                               .body_len = text ? strlen(text) : 0,
                                               .timeout_ms = 30000,
                                               .response_max = 4U << 20,
                                               .peer_role = LMO_ROLE_COORDINATOR};
    int r = lmo_http_request_sync(fixture_client(role), &spec, &fx.answer, &err);
    ck_assert_msg(r == 0, "%s %s: %s", method, path, err.text);
    fx.body = fx.answer.body_len ? json_loads(fx.answer.body, 0, NULL) : NULL;
    return fx.answer.status;
}

static inline unsigned ask(const char *method, const char *path, const char *text)
{
    return fixture_ask(LMO_ROLE_OPERATOR, method, path, text, NULL);
}

static inline const char *member(const char *name)
{
    const char *text = json_string_value(json_object_get(fx.body, name));
    return text ? text : "(none)";
}

static inline void fixture_two_hosts(void)
{
    ck_assert_uint_eq(ask("POST", "/v1/hosts", "{\"name\":\"hv1\",\"url\":\"https://10.0.0.1:8443\"}"), 201);
    ck_assert_uint_eq(ask("POST", "/v1/hosts", "{\"name\":\"hv2\",\"url\":\"https://10.0.0.2:8443\"}"), 201);
    do {
        ck_assert_uint_eq(ask("GET", "/v1/hosts/hv2", NULL), 200);
    } while (strcmp(member("state"), "up") != 0);
    do {
        ck_assert_uint_eq(ask("GET", "/v1/hosts/hv1", NULL), 200);
    } while (strcmp(member("state"), "up") != 0);
}

#endif
