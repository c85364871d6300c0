/* api_fixture.c - see api_fixture.h. The client is libcurl by itself: what our own client would not let through, or would
 * not notice, is seen here. */
#include "api_fixture.h"

#include "api/routes.h"
#include "base/json.h"
#include "base/loop.h"
#include "fake_worker.h"
#include "proto/vm.h"
#include "rpc/outbound.h"

#include <curl/curl.h>
#include <stdlib.h>

/* ------------------------------------------------------------------ workers that answer from a table */

struct fake_workers {
    struct lmo_workers base;
    struct lmo_loop *loop;
    const struct lmo_workers_callbacks *cb;
    struct later *laters; /* not run yet */
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
    lmo_observe_done_fn *done; /* NULL: not an observation */
    void *arg;
    uint64_t timer;
    struct later *next;
};

static void later(struct fake_workers *w, lmo_loop_fn *fn, struct later l)
{
    struct later *copy = malloc(sizeof(*copy));
    ck_assert_ptr_nonnull(copy);
    l.w = w;
    l.next = w->laters;
    *copy = l;
    w->laters = copy;
    ck_assert_int_eq(lmo_loop_timer(w->loop, 0, fn, copy, &copy->timer), 0);
}

static void later_over(struct later *l)
{
    struct later **at = &l->w->laters;
    while (*at != l) {
        at = &(*at)->next;
    }
    *at = l->next;
    free(l);
}

static void report_up(void *arg)
{
    struct later *l = arg;
    struct lmo_host_facts f = {.boot = "b1", .hypervisor = "sim", .peer_uri = "sim://x",
                               .link_count = 1, .links = {{"migration", "10.0.0.1", 1U << 30}}};
    memcpy(f.host, l->host, sizeof(f.host));
    l->w->cb->host_state(l->w->cb->arg, l->host, &f, "");
    later_over(l);
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
    struct lmo_vm_facts f = {.uuid = API_GUEST_UUID, .name = "g1", .state = LMO_RUN_RUNNING, .memory_bytes = 1U << 28};
    LMO_AUTO_JSON json_t *vm = lmo_vm_facts_to_json(&f);
    if (l->all) {
        LMO_AUTO_JSON json_t *list = json_object();
        json_t *vms = json_array();
        int r = l->known ? lmo_json_add(vms, json_incref(vm)) : 0;
        r |= lmo_json_put(list, "vms", vms);
        ck_assert_int_eq(r, 0);
        l->done(l->arg, 0, "", list);
    } else if (l->known) {
        l->done(l->arg, 0, "", vm);
    } else {
        l->done(l->arg, LMO_E_NOT_FOUND, "no such guest here", NULL);
    }
    later_over(l);
}

static int fake_observe(struct lmo_workers *base, const char *host, const char *path, uint32_t timeout_ms,
                        lmo_observe_done_fn *done, void *arg, struct lmo_err *err)
{
    bool here = strcmp(host, "hv1") == 0;
    struct later l = {.done = done, .arg = arg, .all = strcmp(path, "/v1/observe/vms") == 0};
    (void)timeout_ms;
    (void)err;
    l.known = here && (l.all || strstr(path, "/g1") || strstr(path, API_GUEST_UUID));
    later((struct fake_workers *)(void *)base, answer_observation, l);
    return 0;
}

static void fake_close(struct lmo_workers *base)
{
    struct fake_workers *w = (struct fake_workers *)(void *)base;
    while (w->laters) {
        struct later *l = w->laters;
        lmo_loop_cancel(w->loop, &l->timer);
        if (l->done) {
            l->done(l->arg, LMO_E_UNAVAILABLE, "the end", NULL);
        }
        later_over(l);
    }
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
static struct lmo_loop *engine_loop;
static struct lmo_store *store;
static struct lmo_outbound *outbound;
struct lmo_engine *engine;
static struct lmo_permit_key *permit_key;
struct lmo_api *api;
static struct fake_workers fake_workers;
static pthread_t engine_thread;
static CURL *clients[16]; /* by role; from 8 on without a certificate */
struct api_answer answer;
json_t *body;
struct lmo_api_config api_options;

void api_pki_set_up(void)
{
    char path[128];
    fake_pki_set_up();
    server_files = fake_pki_issue(LMO_ROLE_COORDINATOR, "lmod");
    for (enum lmo_role role = LMO_ROLE_COORDINATOR; role <= LMO_ROLE_FAULT_INJECTOR; role++) {
        role_files[role] = fake_pki_issue(role, "tester");
    }
    snprintf(path, sizeof(path), "%s/openapi.json", fake_pki_dir);
    FILE *f = fopen(path, "w");
    ck_assert(f && fwrite(lmo_api_document, lmo_api_document_len, 1, f) == 1 && fclose(f) == 0);
}

void api_pki_tear_down(void)
{
    fake_pki_tear_down();
}

static void *run_engine(void *arg)
{
    (void)arg;
    ck_assert_int_eq(lmo_loop_run(engine_loop), 0);
    return NULL;
}

static void start_engine(void)
{
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_loop_new(1024, &engine_loop, &err), 0);
    ck_assert_msg(lmo_store_sqlite_open(state_dir, &store, &err) == 0, "%s", err.text);
    const struct lmo_outbound_config calls = {.allow_private = true};
    ck_assert_msg(lmo_outbound_open(engine_loop, &calls, &outbound, &err) == 0, "%s", err.text);
    const struct lmo_engine_config config = {
        .loop = engine_loop, .store = store, .permit_key = permit_key, .outbound = outbound};
    ck_assert_int_eq(lmo_engine_new(&config, &engine, &err), 0);
    memset(&fake_workers, 0, sizeof(fake_workers));
    fake_workers.base.ops = &fake_ops;
    fake_workers.loop = engine_loop;
    fake_workers.cb = lmo_engine_callbacks(engine);
    ck_assert_msg(lmo_engine_start(engine, &fake_workers.base, &err) == 0, "%s", err.text);
    ck_assert_int_eq(pthread_create(&engine_thread, NULL, run_engine, NULL), 0);
    struct lmo_api_config api_config = api_options;
    snprintf(api_config.address, sizeof(api_config.address), "127.0.0.1:0");
    api_config.tls = server_files;
    api_config.engine = engine;
    ck_assert_msg(lmo_api_start(&api_config, &api, &err) == 0, "%s", err.text);
}

void api_set_up(void)
{
    struct lmo_err err = {0};
    char key[LMO_PATH_MAX];
    strcpy(state_dir, "/tmp/lmo-api-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(state_dir));
    snprintf(key, sizeof(key), "%s/permit.key", fake_pki_dir);
    ck_assert_msg(lmo_permit_key_load(key, &permit_key, &err) == 0, "%s", err.text);
    start_engine();
}

static void forget_answer(void)
{
    free(answer.body);
    free(answer.headers);
    memset(&answer, 0, sizeof(answer));
    json_decref(body);
    body = NULL;
}

static void stop_engine(void)
{
    for (size_t i = 0; i < sizeof(clients) / sizeof(clients[0]); i++) {
        curl_easy_cleanup(clients[i]);
        clients[i] = NULL;
    }
    api = lmo_api_stop(api);
    lmo_loop_stop(engine_loop);
    pthread_join(engine_thread, NULL);
    lmo_engine_stop(engine);
    fake_close(&fake_workers.base);
    engine = lmo_engine_free(engine);
    outbound = lmo_outbound_close(outbound);
    store->ops->close(store);
    engine_loop = lmo_loop_free(engine_loop);
}

void api_restart(void)
{
    stop_engine();
    start_engine();
}

void api_tear_down(void)
{
    char command[96];
    forget_answer();
    stop_engine();
    permit_key = lmo_permit_key_free(permit_key);
    snprintf(command, sizeof(command), "rm -rf '%s'", state_dir);
    ck_assert_int_eq(system(command), 0);
}

/* ------------------------------------------------------------------ asking */

static size_t add_to(char **text, const char *data, size_t len)
{
    size_t used = *text ? strlen(*text) : 0;
    *text = realloc(*text, used + len + 1);
    ck_assert_ptr_nonnull(*text);
    memcpy(*text + used, data, len);
    (*text)[used + len] = '\0';
    return len;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    (void)arg;
    answer.body_len += size * count;
    return add_to(&answer.body, data, size * count);
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    (void)arg;
    return add_to(&answer.headers, data, size * count);
}

const char *answer_header(const char *name)
{
    static char value[512];
    size_t len = strlen(name);
    for (const char *at = answer.headers; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL) {
        if (strncasecmp(at, name, len) == 0 && at[len] == ':') {
            snprintf(value, sizeof(value), "%.*s", (int)strcspn(at + len + 2, "\r\n"), at + len + 2);
            return value;
        }
    }
    return NULL;
}

/* Every exchange, for the last test of the case: every answer must be one that proto/openapi.yaml has. */
static void record(const char *method, const char *path)
{
    char file[128];
    json_t *o = json_object(), *headers = json_array();
    for (char *at = answer.headers; at && *at; at += strcspn(at, "\n") + (at[strcspn(at, "\n")] ? 1 : 0)) {
        json_array_append_new(headers, json_stringn(at, strcspn(at, "\r\n")));
    }
    json_object_set_new(o, "method", json_string(method));
    json_object_set_new(o, "path", json_string(path));
    json_object_set_new(o, "status", json_integer(answer.status));
    json_object_set_new(o, "headers", headers);
    json_object_set_new(o, "body", json_string(answer.body ? answer.body : ""));
    snprintf(file, sizeof(file), "%s/exchanges.jsonl", fake_pki_dir);
    FILE *f = fopen(file, "a");
    ck_assert(f && json_dumpf(o, f, JSON_COMPACT) == 0 && fputc('\n', f) == '\n' && fclose(f) == 0);
    json_decref(o);
}

int answers_conform(void)
{
    char command[512];
    snprintf(command, sizeof(command), "/usr/bin/python3 '%s/tests/api/conform.py' '%s/openapi.json' '%s/exchanges.jsonl'",
             LMO_SOURCE_DIR, fake_pki_dir, fake_pki_dir);
    return system(command);
}

/* A client of that role; of none: it shows no certificate. */
static CURL *client_of(enum lmo_role role)
{
    const struct lmo_tls_files *files = &role_files[role];
    if (clients[role]) {
        return clients[role];
    }
    CURL *c = clients[role] = curl_easy_init();
    ck_assert_ptr_nonnull(c);
    curl_easy_setopt(c, CURLOPT_CAINFO, server_files.ca);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    if (role != LMO_ROLE_NONE) {
        curl_easy_setopt(c, CURLOPT_SSLCERT, files->cert);
        curl_easy_setopt(c, CURLOPT_SSLKEY, files->key);
    }
    return c;
}

int ask_within(enum lmo_role role, const char *method, const char *path, const char *text, const char *const *headers,
               long timeout_ms)
{
    char url[2048];
    struct curl_slist *list = text ? curl_slist_append(NULL, "Content-Type: application/json") : NULL;
    CURL *c = client_of(role);
    forget_answer();
    for (; headers && *headers; headers++) {
        if (strncasecmp(*headers, "Content-Type:", 13) == 0) {
            curl_slist_free_all(list);
            list = NULL;
        }
        list = curl_slist_append(list, *headers);
    }
    list = curl_slist_append(list, "Expect:");
    snprintf(url, sizeof(url), "https://127.0.0.1:%u%s", lmo_api_port(api), path);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, list);
    if (text) {
        curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, (long)strlen(text));
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, text);
    } else {
        curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
        curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
    }
    CURLcode code = curl_easy_perform(c);
    long status = 0;
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(list);
    if (code != CURLE_OK) {
        return code == CURLE_OPERATION_TIMEDOUT ? -1 : -2;
    }
    answer.status = (unsigned)status;
    snprintf(answer.content_type, sizeof(answer.content_type), "%s", answer_header("Content-Type") ? answer_header("Content-Type") : "");
    body = answer.body_len && strstr(answer.content_type, "json") ? json_loads(answer.body, 0, NULL) : NULL;
    ck_assert_msg(!strstr(answer.content_type, "json") || body, "%s", answer.body);
    record(method, path);
    return (int)answer.status;
}

unsigned ask_as(enum lmo_role role, const char *method, const char *path, const char *text, const char *const *headers)
{
    int status = ask_within(role, method, path, text, headers, 20000);
    ck_assert_msg(status > 0, "%s %s: no answer (%d)", method, path, status);
    return (unsigned)status;
}

unsigned ask(const char *method, const char *path, const char *text)
{
    return ask_as(LMO_ROLE_OPERATOR, method, path, text, NULL);
}

unsigned ask_with_token(const char *token, const char *method, const char *path, const char *text)
{
    char line[256];
    const char *const headers[] = {line, NULL};
    snprintf(line, sizeof(line), "Authorization: Bearer %s", token);
    return ask_as(LMO_ROLE_NONE, method, path, text, headers);
}

const char *member(const char *name)
{
    const char *text = json_string_value(json_object_get(body, name));
    return text ? text : "(none)";
}

json_int_t number(const char *name)
{
    return json_integer_value(json_object_get(body, name));
}

void add_hosts(void)
{
    ck_assert_uint_eq(ask("POST", "/v1/hosts", "{\"name\":\"hv1\",\"url\":\"https://10.0.0.1:8443\"}"), 201);
    ck_assert_uint_eq(ask("POST", "/v1/hosts", "{\"name\":\"hv2\",\"url\":\"https://10.0.0.2:8443/\"}"), 201);
    for (int i = 0; i < 100 && strcmp(member("state"), "up") != 0; i++) { /* reported by the fake in its next turn */
        ck_assert_uint_eq(ask("GET", "/v1/hosts/hv2", NULL), 200);
    }
}
