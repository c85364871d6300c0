/* test_rpc.c - the coordinator's way to its workers, against a real TLS server that loses, delays and garbles
 * answers. */
#include "base/clock.h"
#include "base/json.h"
#include "base/loop.h"
#include "fake_worker.h"
#include "proto/stream.h"
#include "rpc/workers.h"

#include <stdatomic.h>
#include <stdlib.h>

#define ULID  "01JD2Z3W5X6Y7Z8A9B0C1D2E3F"
#define UUID  "0f0e0d0c-0b0a-4908-8706-050403020100"
#define OP_ID ULID ".3.1-attach"

enum script {
    ANSWER_AT_ONCE = 0,
    LOSE_REPLY,   /* the first PUT is executed, its connection is cut instead of an answer */
    LOSE_REQUEST, /* the first PUT's connection is cut, nothing was executed; GET says 404 */
    RUN_SLOWLY,   /* 202, two GETs say running, then done */
    RUN_FOR_EVER,
    FORGOTTEN, /* the reply is lost, then 410 */
    GARBAGE,
    OVERSIZE,
    OTHER_ID,
    STALE,
    STOPPING_ONCE, /* 503 to the first PUT, 404 to the first GET */
    BUSY_THERE,    /* 429 */
    SILENT,        /* accepted and never answered */
};

struct fake {
    pthread_mutex_t lock;
    struct lmo_http_server *server;
    struct relay relay;
    atomic_int script;
    atomic_uint puts, gets, executed, observations, polls;
    char boot[LMO_ID_MAX];
    char host[LMO_NAME_MAX];
    uint32_t protocol_min, protocol_max; /* 0: it does not say */
    struct lmo_http_request *poll; /* held */
    struct lmo_http_request *silent;
    _Atomic uint64_t poll_after;
    json_t *next_batch; /* answered to the next poll */
};

static struct fake fake;
static struct lmo_loop *loop;
static struct lmo_workers *workers;
static struct lmo_tls_files coordinator_files, worker_files, other_files;

/* What the engine's side saw. */
static struct {
    unsigned done, ok, unavailable, observed, ups, downs, batches, events, wanted;
    int code, observe_code;
    char text[LMO_TEXT_MAX], why[LMO_TEXT_MAX], boot[LMO_ID_MAX];
    struct lmo_op_reply reply;
    uint64_t next, last_seq;
    bool hold; /* do not acknowledge */
    const unsigned *until;
} seen;

/* ------------------------------------------------------------------ the fake's side (the server's thread) */

static void reply_op(struct lmo_http_request *req, unsigned status, const char *id, enum lmo_op_state state)
{
    struct lmo_op_reply r = {.state = state};
    char *text = NULL;
    snprintf(r.id, sizeof(r.id), "%s", id);
    if (state == LMO_OP_DONE) {
        strcpy(r.export_name, "vol.hv1.e3");
    }
    ck_assert_int_eq(lmo_op_reply_encode(&r, &text, NULL), 0);
    lmo_http_reply(req, status, "application/json", text, strlen(text));
    free(text);
}

static void lose(struct lmo_http_request *req, const char *id)
{
    relay_command(&fake.relay, 'c');
    usleep(20000); /* the relay's thread cuts before the answer could get through */
    reply_op(req, 200, id, LMO_OP_DONE);
}

static void on_op(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    const char *id = params->value[0];
    bool put = strcmp(lmo_http_method(req), "PUT") == 0;
    static char big[LMO_OP_BODY_MAX + 1000];
    (void)arg;
    pthread_mutex_lock(&fake.lock);
    unsigned n = put ? ++fake.puts : ++fake.gets;
    enum script script = (enum script)atomic_load(&fake.script);
    bool known = fake.executed > 0, refuses = script == STALE || script == BUSY_THERE;
    bool first_put_is_lost = script == LOSE_REQUEST || script == STOPPING_ONCE;
    if (put && !known && !refuses && !(first_put_is_lost && n == 1)) {
        fake.executed++;
    }
    pthread_mutex_unlock(&fake.lock);
    switch (script) {
    case ANSWER_AT_ONCE: reply_op(req, 200, id, LMO_OP_DONE); return;
    case LOSE_REPLY:
        if (put && n == 1) {
            lose(req, id);
            return;
        }
        reply_op(req, 200, id, LMO_OP_DONE);
        return;
    case LOSE_REQUEST:
    case STOPPING_ONCE:
        if (put && n == 1 && script == LOSE_REQUEST) {
            lose(req, id);
        } else if (put && n == 1) {
            lmo_http_reply_fail(req, LMO_E_UNAVAILABLE, "stopping");
        } else if (!put && !known) {
            lmo_http_reply_fail(req, LMO_E_NOT_FOUND, "never seen");
        } else {
            reply_op(req, 200, id, LMO_OP_DONE);
        }
        return;
    case RUN_SLOWLY:
        if (put || n < 3) {
            usleep(put ? 0 : 30000);
            reply_op(req, 202, id, LMO_OP_RUNNING);
        } else {
            reply_op(req, 200, id, LMO_OP_DONE);
        }
        return;
    case RUN_FOR_EVER:
        usleep(25000);
        reply_op(req, 202, id, LMO_OP_RUNNING);
        return;
    case FORGOTTEN:
        if (put) {
            lose(req, id);
        } else {
            lmo_http_reply_fail(req, LMO_E_GONE, "acknowledged and forgotten");
        }
        return;
    case GARBAGE: lmo_http_reply(req, 200, "application/json", "{\"id\":", 6); return;
    case OVERSIZE:
        memset(big, ' ', sizeof(big));
        lmo_http_reply(req, 200, "application/json", big, sizeof(big));
        return;
    case OTHER_ID: reply_op(req, 200, "another.1.1-x", LMO_OP_DONE); return;
    case STALE: lmo_http_reply_fail(req, LMO_E_STALE_EPOCH, "epoch 3 is below 4"); return;
    case BUSY_THERE: lmo_http_reply_fail(req, LMO_E_LIMIT, "too many"); return;
    case SILENT:
        pthread_mutex_lock(&fake.lock);
        if (fake.silent) {
            pthread_mutex_unlock(&fake.lock);
            lmo_http_reply_fail(req, LMO_E_UNAVAILABLE, "silent");
            return;
        }
        fake.silent = req;
        pthread_mutex_unlock(&fake.lock);
        return;
    }
}

static void answer_poll(struct lmo_http_request *req, json_t *batch)
{
    lmo_http_reply_json(req, 200, batch);
}

static json_t *new_batch(uint64_t next)
{
    json_t *j = json_object();
    int r = lmo_json_put_str(j, "boot", fake.boot);
    r |= lmo_json_put_u64(j, "next", next);
    r |= lmo_json_put(j, "events", json_array());
    r |= lmo_json_put(j, "progress", json_array());
    ck_assert_int_eq(r, 0);
    return j;
}

static void on_poll(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    (void)arg;
    (void)params;
    uint64_t after = 0;
    ck_assert_int_eq(lmo_http_query_u64(req, "after", 0, INT64_MAX, &after, NULL), 0);
    pthread_mutex_lock(&fake.lock);
    fake.polls++;
    fake.poll_after = after;
    json_t *batch = fake.next_batch;
    fake.next_batch = NULL;
    struct lmo_http_request *old = fake.poll;
    fake.poll = batch ? NULL : req;
    pthread_mutex_unlock(&fake.lock);
    if (old) { /* its client went away */
        answer_poll(old, new_batch(after));
    }
    if (batch) {
        answer_poll(req, batch);
    }
}

static void on_host(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct lmo_host_facts f = {.hypervisor = "sim"};
    (void)arg;
    (void)params;
    pthread_mutex_lock(&fake.lock);
    fake.observations++;
    snprintf(f.boot, sizeof(f.boot), "%s", fake.boot);
    snprintf(f.host, sizeof(f.host), "%s", fake.host);
    f.protocol_min = fake.protocol_min;
    f.protocol_max = fake.protocol_max;
    pthread_mutex_unlock(&fake.lock);
    lmo_http_reply_json(req, 200, lmo_host_facts_to_json(&f));
}

static void on_vm(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    (void)arg;
    if (strcmp(params->value[0], "known") == 0) {
        lmo_http_reply_json(req, 200, json_pack("{s:s}", "name", "known"));
    } else {
        lmo_http_reply_fail(req, LMO_E_NOT_FOUND, "no guest %s here", params->value[0]);
    }
}

static const struct lmo_http_route routes[] = {
    {"PUT", "/v1/ops/{id}", on_op},       {"GET", "/v1/ops/{id}", on_op},        {"GET", "/v1/events", on_poll},
    {"GET", "/v1/observe/host", on_host}, {"GET", "/v1/observe/vm/{vm}", on_vm},
};

static void on_request(void *arg, struct lmo_http_request *req)
{
    lmo_http_dispatch(routes, sizeof(routes) / sizeof(routes[0]), arg, req);
}

/* Gives a batch to the poll that waits, or to the next one. */
static void emit(json_t *batch)
{
    pthread_mutex_lock(&fake.lock);
    struct lmo_http_request *req = fake.poll;
    fake.poll = NULL;
    if (!req) {
        json_decref(fake.next_batch);
        fake.next_batch = batch;
    }
    pthread_mutex_unlock(&fake.lock);
    if (req) {
        answer_poll(req, batch);
    }
}

static void add_event(json_t *batch, uint64_t seq)
{
    struct lmo_worker_event e = {.kind = seq ? LMO_WEV_LOADED : LMO_WEV_PROGRESS,
                                 .migration = ULID,
                                 .vm = UUID,
                                 .epoch = 3,
                                 .seq = seq,
                                 .at_us = 1};
    ck_assert_int_eq(lmo_json_add(json_object_get(batch, seq ? "events" : "progress"), lmo_worker_event_to_json(&e)),
                     0);
}

/* ------------------------------------------------------------------ the engine's side (the loop's thread) */

static void stop_if_reached(const unsigned *counter)
{
    if (seen.until == counter && *counter >= seen.wanted) {
        lmo_loop_stop(loop);
    }
}

static void on_events(void *arg, const char *host, const struct lmo_worker_event *events, unsigned count, uint64_t next)
{
    (void)arg;
    ck_assert_str_eq(host, "hv1");
    for (unsigned i = 0; i < count; i++) {
        seen.last_seq = events[i].seq ? events[i].seq : seen.last_seq;
    }
    seen.events += count;
    seen.batches++;
    seen.next = next;
    if (!seen.hold) {
        workers->ops->acknowledge(workers, host, next);
    }
    stop_if_reached(&seen.batches);
}

static void on_host_state(void *arg, const char *host, const struct lmo_host_facts *facts, const char *why)
{
    (void)arg;
    ck_assert_str_eq(host, "hv1");
    if (facts) {
        seen.ups++;
        snprintf(seen.boot, sizeof(seen.boot), "%s", facts->boot);
        stop_if_reached(&seen.ups);
    } else {
        seen.downs++;
        snprintf(seen.why, sizeof(seen.why), "%s", why);
        stop_if_reached(&seen.downs);
    }
}

static void on_done(void *arg, int code, const char *text, const struct lmo_op_reply *reply)
{
    (void)arg;
    seen.code = code;
    seen.ok += code == 0;
    seen.unavailable += code == LMO_E_UNAVAILABLE;
    snprintf(seen.text, sizeof(seen.text), "%s", text);
    if (reply) {
        seen.reply = *reply;
        seen.reply.xml = NULL;
    }
    seen.done++;
    stop_if_reached(&seen.done);
}

static void on_observed(void *arg, int code, const char *text, const json_t *body)
{
    (void)arg;
    seen.observe_code = code;
    snprintf(seen.text, sizeof(seen.text), "%s", text);
    ck_assert_int_eq(code == 0, body != NULL);
    seen.observed++;
    stop_if_reached(&seen.observed);
}

static void give_up(void *arg)
{
    *(bool *)arg = true;
    lmo_loop_stop(loop);
}

/* Runs the loop until the counter has reached `wanted`; fails after `limit_ms`. */
static void run_until(const unsigned *counter, unsigned wanted, uint64_t limit_ms)
{
    bool late = false;
    uint64_t timer = 0;
    if (*counter >= wanted) {
        return;
    }
    seen.until = counter;
    seen.wanted = wanted;
    ck_assert_int_eq(lmo_loop_timer(loop, limit_ms, give_up, &late, &timer), 0);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
    lmo_loop_cancel(loop, &timer);
    seen.until = NULL;
    ck_assert_msg(!late, "not reached: %u instead of %u; last: %s / %s", *counter, wanted, seen.text, seen.why);
}

static void run_for(uint64_t ms)
{
    bool ignored = false;
    uint64_t timer = 0;
    ck_assert_int_eq(lmo_loop_timer(loop, ms, give_up, &ignored, &timer), 0);
    ck_assert_int_eq(lmo_loop_run(loop), 0);
}

static int send_op(uint32_t timeout_ms)
{
    struct lmo_op_request req = {.id = OP_ID,
                                 .kind = LMO_OP_ATTACH,
                                 .migration = ULID,
                                 .vm = UUID,
                                 .epoch = 3,
                                 .volume_count = 1,
                                 .volumes = {{.target = "vda"}}};
    return workers->ops->op(workers, "hv1", &req, timeout_ms, on_done, NULL, NULL);
}

/* ------------------------------------------------------------------ fixture */

static void pki_set_up(void)
{
    fake_pki_set_up();
    coordinator_files = fake_pki_issue(LMO_ROLE_COORDINATOR, "lmod");
    worker_files = fake_pki_issue(LMO_ROLE_WORKER, "hv1");
    other_files = fake_pki_issue(LMO_ROLE_WORKER, "hv2");
}

static void start_server(const struct lmo_tls_files *files)
{
    struct lmo_err err = {0};
    const struct lmo_http_server_config config = {.address = "127.0.0.1:0",
                                                  .tls = *files,
                                                  .handler = on_request,
                                                  .log_name = "fake",
                                                  .body_max = LMO_OP_BODY_MAX};
    ck_assert_msg(lmo_http_server_new(&config, &fake.server, &err) == 0, "%s", err.text);
    relay_start(&fake.relay, lmo_http_server_port(fake.server));
}

static void set_up_with(const struct lmo_tls_files *files, uint64_t cursor)
{
    struct lmo_err err = {0};
    char url[64];
    const struct lmo_workers_callbacks cb = {.events = on_events, .host_state = on_host_state};
    memset(&fake, 0, sizeof(fake));
    memset(&seen, 0, sizeof(seen));
    pthread_mutex_init(&fake.lock, NULL);
    strcpy(fake.boot, "boot-1");
    strcpy(fake.host, "hv1");
    start_server(files);
    ck_assert_int_eq(lmo_loop_new(1024, &loop, &err), 0);
    ck_assert_msg(lmo_workers_http_open(loop, &coordinator_files, &cb, &workers, &err) == 0, "%s", err.text);
    snprintf(url, sizeof(url), "https://127.0.0.1:%u", fake.relay.port);
    ck_assert_msg(workers->ops->host_add(workers, "hv1", url, cursor, &err) == 0, "%s", err.text);
}

static void set_up(void)
{
    set_up_with(&worker_files, 0);
}

static void tear_down(void)
{
    if (workers) {
        workers->ops->close(workers);
        workers = NULL;
    }
    loop = lmo_loop_free(loop);
    relay_stop(&fake.relay);
    fake.server = lmo_http_server_free(fake.server);
    if (fake.poll) { /* kept requests are valid until they are answered, whatever ended in between */
        lmo_http_reply_fail(fake.poll, LMO_E_UNAVAILABLE, "end");
    }
    if (fake.silent) {
        lmo_http_reply_fail(fake.silent, LMO_E_UNAVAILABLE, "end");
    }
    json_decref(fake.next_batch);
    pthread_mutex_destroy(&fake.lock);
}

/* ------------------------------------------------------------------ ops */

START_TEST(an_op__is_answered_with_its_reply)
{
    ck_assert_int_eq(send_op(5000), 0);
    ck_assert_uint_eq(seen.done, 0); /* never inside the call */
    run_until(&seen.done, 1, 5000);
    ck_assert_int_eq(seen.code, 0);
    ck_assert_str_eq(seen.reply.export_name, "vol.hv1.e3");
    ck_assert_uint_eq(fake.puts, 1);
    ck_assert_uint_eq(fake.gets, 0);
}
END_TEST

START_TEST(lost_reply__is_asked_for_and_never_executed_twice)
{
    fake.script = LOSE_REPLY;
    ck_assert_int_eq(send_op(5000), 0);
    run_until(&seen.done, 1, 5000);
    ck_assert_int_eq(seen.code, 0);
    ck_assert_uint_eq(fake.executed, 1);
}
END_TEST

START_TEST(lost_request__is_sent_again_after_a_404)
{
    fake.script = LOSE_REQUEST;
    ck_assert_int_eq(send_op(5000), 0);
    run_until(&seen.done, 1, 5000);
    ck_assert_int_eq(seen.code, 0);
    ck_assert_uint_eq(fake.executed, 1);
    ck_assert_uint_ge(fake.puts, 2);
}
END_TEST

START_TEST(worker_that_is_stopping__may_have_begun_so_it_is_asked)
{
    fake.script = STOPPING_ONCE;
    ck_assert_int_eq(send_op(5000), 0);
    run_until(&seen.done, 1, 5000);
    ck_assert_int_eq(seen.code, 0);
    ck_assert_uint_eq(fake.puts, 2);
    ck_assert_uint_eq(fake.gets, 1);
}
END_TEST

START_TEST(slow_op__is_waited_for_with_gets)
{
    fake.script = RUN_SLOWLY;
    ck_assert_int_eq(send_op(5000), 0);
    run_until(&seen.done, 1, 5000);
    ck_assert_int_eq(seen.code, 0);
    ck_assert_uint_eq(fake.puts, 1);
    ck_assert_uint_eq(fake.gets, 3);
}
END_TEST

START_TEST(op_that_never_ends__is_a_timeout_not_a_failure)
{
    fake.script = RUN_FOR_EVER;
    uint64_t began = lmo_now_ms();
    ck_assert_int_eq(send_op(500), 0);
    run_until(&seen.done, 1, 5000);
    ck_assert_int_eq(seen.code, LMO_E_TIMEOUT);
    ck_assert_uint_ge(lmo_now_ms() - began, 500);
    ck_assert_uint_eq(fake.puts, 1);
}
END_TEST

START_TEST(worker_that_never_answers__is_unknown)
{
    fake.script = SILENT;
    ck_assert_int_eq(send_op(300), 0);
    run_until(&seen.done, 1, 5000);
    ck_assert_int_eq(seen.code, LMO_E_UNKNOWN);
}
END_TEST

START_TEST(forgotten_op__is_gone)
{
    fake.script = FORGOTTEN;
    ck_assert_int_eq(send_op(5000), 0);
    run_until(&seen.done, 1, 5000);
    ck_assert_int_eq(seen.code, LMO_E_GONE);
    ck_assert_str_eq(seen.text, "acknowledged and forgotten");
}
END_TEST

static const struct {
    enum script script;
    int code;
    const char *text;
} refusals[] = {
    {GARBAGE, LMO_E_UNKNOWN, "the worker's answer is not understood"},
    {OVERSIZE, LMO_E_UNKNOWN, "no answer in time"},
    {OTHER_ID, LMO_E_UNKNOWN, "the worker's answer is not understood"},
    {STALE, LMO_E_STALE_EPOCH, "epoch 3 is below 4"},
    {BUSY_THERE, LMO_E_LIMIT, "too many"},
};

START_TEST(answers_that_are_no_success__have_their_class)
{
    fake.script = refusals[_i].script;
    ck_assert_int_eq(send_op(600), 0);
    run_until(&seen.done, 1, 5000);
    ck_assert_int_eq(seen.code, refusals[_i].code);
    ck_assert_msg(strstr(seen.text, refusals[_i].text) != NULL, "%s", seen.text);
}
END_TEST

START_TEST(worker_that_is_not_there__is_unavailable_at_once)
{
    relay_command(&fake.relay, 'r');
    usleep(50000);
    uint64_t began = lmo_now_ms();
    ck_assert_int_eq(send_op(10000), 0);
    run_until(&seen.done, 1, 5000);
    ck_assert_int_eq(seen.code, LMO_E_UNAVAILABLE);
    ck_assert_uint_lt(lmo_now_ms() - began, 3000);
    ck_assert_uint_eq(fake.puts, 0);
}
END_TEST

START_TEST(two_hundred_ops_at_once__are_queued_and_all_answered)
{
    for (int i = 0; i < 200; i++) {
        struct lmo_op_request req = {.kind = LMO_OP_CHECK_VOLUME, .migration = ULID, .vm = UUID, .epoch = 3};
        snprintf(req.id, sizeof(req.id), ULID ".3.%d-check_volume", i);
        ck_assert_int_eq(workers->ops->op(workers, "hv1", &req, 10000, on_done, NULL, NULL), 0);
    }
    run_until(&seen.done, 200, 20000);
    /* On a very busy machine a connection may not be had in time: then that op was not sent, and says so. */
    ck_assert_uint_eq(seen.ok + seen.unavailable, 200);
    ck_assert_uint_eq(seen.ok, fake.puts);
    ck_assert_uint_gt(seen.ok, 150);
}
END_TEST

START_TEST(op_that_waited_for_a_slot__has_all_of_its_time_from_the_send)
{
    fake.script = RUN_FOR_EVER;
    uint64_t began = lmo_now_ms();
    for (int i = 0; i < 17; i++) { /* sixteen slots; the last op waits for longer than it may take */
        struct lmo_op_request req = {.kind = LMO_OP_CHECK_VOLUME, .migration = ULID, .vm = UUID, .epoch = 3};
        snprintf(req.id, sizeof(req.id), ULID ".3.%d-check_volume", i);
        ck_assert_int_eq(workers->ops->op(workers, "hv1", &req, i < 16 ? 1500 : 200, on_done, NULL, NULL), 0);
    }
    run_until(&seen.done, 17, 20000);
    ck_assert_int_eq(lmo_err_class_of(seen.code), LMO_CLASS_UNKNOWN); /* it was sent, and ran out of its own time */
    ck_assert_uint_ge(lmo_now_ms() - began, 2700);
    ck_assert_uint_eq(fake.puts, 17);
}
END_TEST

START_TEST(the_queue_has_a_bound)
{
    unsigned accepted = 0;
    int r = 0;
    fake.script = RUN_FOR_EVER;
    for (int i = 0; i < 2000 && r == 0; i++) {
        struct lmo_op_request req = {.kind = LMO_OP_CHECK_VOLUME};
        snprintf(req.id, sizeof(req.id), "x.%d", i);
        r = workers->ops->op(workers, "hv1", &req, 200, on_done, NULL, NULL);
        accepted += r == 0;
    }
    ck_assert_int_eq(r, LMO_E_LIMIT);
    run_until(&seen.done, accepted, 25000);
    ck_assert_uint_gt(seen.unavailable, 0); /* those that waited too long were never sent, and say so */
    ck_assert_uint_le(fake.puts, accepted - seen.unavailable);
}
END_TEST

START_TEST(removed_host__answers_its_ops_in_the_next_turn)
{
    fake.script = SILENT;
    ck_assert_int_eq(send_op(60000), 0);
    run_until(&seen.ups, 1, 5000);
    ck_assert_int_eq(workers->ops->observe(workers, "hv1", "/v1/observe/vm/known", 5000, on_observed, NULL, NULL), 0);
    workers->ops->host_remove(workers, "hv1");
    ck_assert_uint_eq(seen.done, 0);
    run_until(&seen.done, 1, 5000);
    run_until(&seen.observed, 1, 5000);
    ck_assert_int_eq(seen.code, LMO_E_UNKNOWN);
    ck_assert_int_eq(seen.observe_code, LMO_E_UNAVAILABLE);
    ck_assert_int_eq(send_op(100), LMO_E_UNAVAILABLE);
}
END_TEST

START_TEST(close__answers_what_is_outstanding)
{
    fake.script = SILENT;
    ck_assert_int_eq(send_op(60000), 0);
    run_until(&seen.ups, 1, 5000);
    workers->ops->close(workers);
    workers = NULL;
    ck_assert_uint_eq(seen.done, 1);
    ck_assert_int_eq(seen.code, LMO_E_UNKNOWN);
}
END_TEST

/* ------------------------------------------------------------------ observations */

START_TEST(observations__tell_absent_from_unreachable)
{
    ck_assert_int_eq(workers->ops->observe(workers, "hv1", "/v1/observe/vm/known", 5000, on_observed, NULL, NULL), 0);
    run_until(&seen.observed, 1, 5000);
    ck_assert_int_eq(seen.observe_code, 0);
    ck_assert_int_eq(workers->ops->observe(workers, "hv1", "/v1/observe/vm/other", 5000, on_observed, NULL, NULL), 0);
    run_until(&seen.observed, 2, 5000);
    ck_assert_int_eq(seen.observe_code, LMO_E_NOT_FOUND);
    ck_assert_str_eq(seen.text, "no guest other here");
    relay_command(&fake.relay, 'r');
    usleep(50000);
    ck_assert_int_eq(workers->ops->observe(workers, "hv1", "/v1/observe/vm/other", 5000, on_observed, NULL, NULL), 0);
    run_until(&seen.observed, 3, 5000);
    ck_assert_int_ne(seen.observe_code, LMO_E_NOT_FOUND);
}
END_TEST

/* ------------------------------------------------------------------ the stream */

START_TEST(events__arrive_in_order_and_are_acknowledged_by_the_next_poll)
{
    run_until(&seen.ups, 1, 5000);
    ck_assert_str_eq(seen.boot, "boot-1");
    json_t *batch = new_batch(2);
    add_event(batch, 1);
    add_event(batch, 2);
    add_event(batch, 0);
    emit(batch);
    run_until(&seen.batches, 1, 5000);
    ck_assert_uint_eq(seen.events, 3);
    ck_assert_uint_eq(seen.last_seq, 2);
    batch = new_batch(3);
    add_event(batch, 3);
    emit(batch);
    run_until(&seen.batches, 2, 5000);
    run_for(200);
    ck_assert_uint_eq(fake.poll_after, 3);
    ck_assert_uint_eq(fake.observations, 1);
}
END_TEST

START_TEST(no_poll_goes_out__before_the_engine_has_committed)
{
    seen.hold = true;
    run_until(&seen.ups, 1, 5000);
    json_t *batch = new_batch(5);
    add_event(batch, 5);
    emit(batch);
    run_until(&seen.batches, 1, 5000);
    unsigned polls = fake.polls;
    run_for(300);
    ck_assert_uint_eq(fake.polls, polls);
    workers->ops->acknowledge(workers, "hv1", 4);
    run_for(100);
    ck_assert_uint_eq(fake.polls, polls);
    workers->ops->acknowledge(workers, "hv1", 5);
    run_for(300);
    ck_assert_uint_eq(fake.polls, polls + 1);
    ck_assert_uint_eq(fake.poll_after, 5);
}
END_TEST

START_TEST(restarted_worker__is_observed_again)
{
    run_until(&seen.ups, 1, 5000);
    pthread_mutex_lock(&fake.lock);
    strcpy(fake.boot, "boot-2");
    pthread_mutex_unlock(&fake.lock);
    json_t *batch = new_batch(1);
    add_event(batch, 1);
    emit(batch);
    run_until(&seen.ups, 2, 5000);
    ck_assert_uint_eq(seen.batches, 1);
    ck_assert_str_eq(seen.boot, "boot-2");
    ck_assert_uint_eq(seen.downs, 0);
}
END_TEST

START_TEST(broken_connection__is_told_and_mended)
{
    run_until(&seen.ups, 1, 5000);
    run_for(100);
    relay_command(&fake.relay, 'r');
    run_until(&seen.downs, 1, 5000);
    ck_assert_uint_gt(strlen(seen.why), 5);
    run_for(500);
    ck_assert_uint_eq(seen.downs, 1); /* told once */
    relay_command(&fake.relay, 'a');
    run_until(&seen.ups, 2, 5000);
    run_for(200); /* the new poll takes the place of the one that was cut */
    json_t *batch = new_batch(1);
    add_event(batch, 1);
    emit(batch);
    run_until(&seen.batches, 1, 5000);
}
END_TEST

START_TEST(wrong_certificate_name__gets_nothing_sent)
{
    run_until(&seen.downs, 1, 5000);
    ck_assert_msg(strstr(seen.why, "hv1") || strstr(seen.why, "hv2"), "%s", seen.why);
    ck_assert_uint_eq(fake.observations, 0);
    ck_assert_int_eq(send_op(2000), 0);
    run_until(&seen.done, 1, 5000);
    ck_assert_int_eq(seen.code, LMO_E_UNAUTHENTICATED);
    ck_assert_uint_eq(fake.puts, 0);
    ck_assert_uint_eq(seen.ups, 0);
}
END_TEST

START_TEST(worker_that_calls_itself_otherwise__is_not_believed)
{
    pthread_mutex_lock(&fake.lock);
    strcpy(fake.host, "hv7");
    pthread_mutex_unlock(&fake.lock);
    run_until(&seen.downs, 1, 5000);
    ck_assert_str_eq(seen.why, "the worker there is hv7's");
}
END_TEST

START_TEST(worker_of_another_protocol__gets_no_orders_and_it_is_said_why)
{
    pthread_mutex_lock(&fake.lock);
    fake.protocol_min = LMO_PROTOCOL_MAX + 1;
    fake.protocol_max = LMO_PROTOCOL_MAX + 3;
    pthread_mutex_unlock(&fake.lock);
    run_until(&seen.downs, 1, 5000);
    ck_assert_msg(strstr(seen.why, "speaks protocol 2 to 4, this coordinator") != NULL, "%s", seen.why);
    ck_assert_uint_eq(seen.ups, 0);
}
END_TEST

START_TEST(worker_of_a_newer_program_that_still_speaks_ours__is_talked_to)
{
    pthread_mutex_lock(&fake.lock);
    fake.protocol_min = LMO_PROTOCOL_MAX;
    fake.protocol_max = LMO_PROTOCOL_MAX + 3;
    pthread_mutex_unlock(&fake.lock);
    run_until(&seen.ups, 1, 5000);
}
END_TEST

/* As after a restore: hosts are asked what the engine asks, and nothing by itself. */
START_TEST(silent__no_stream_begins_until_it_is_listened_again)
{
    char url[64];
    snprintf(url, sizeof(url), "https://127.0.0.1:%u", fake.relay.port);
    workers->ops->listen(workers, false);
    workers->ops->host_remove(workers, "hv1");
    ck_assert_int_eq(workers->ops->host_add(workers, "hv1", url, 0, NULL), 0);
    ck_assert_int_eq(workers->ops->observe(workers, "hv1", "/v1/observe/vm/known", 5000, on_observed, NULL, NULL), 0);
    run_until(&seen.observed, 1, 5000);
    ck_assert_uint_eq(fake.observations, 0);
    ck_assert_uint_eq(seen.ups + seen.downs, 0);
    workers->ops->listen(workers, true);
    run_until(&seen.ups, 1, 5000);
}
END_TEST

static void emit_raw(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(j);
    emit(j);
}

static const char *const bad_batches[] = {
    "{}",
    "{\"boot\":\"boot-1\",\"next\":1}",
    "{\"boot\":\"boot-1\",\"next\":-1,\"events\":[]}",
    "{\"boot\":\"boot-1\",\"next\":9,\"events\":[{\"kind\":\"loaded\",\"seq\":8},{\"kind\":\"loaded\",\"seq\":7}]}",
    "{\"boot\":\"boot-1\",\"next\":9,\"events\":[{\"kind\":\"loaded\"}]}",
    "{\"boot\":\"boot-1\",\"next\":9,\"events\":[{\"kind\":\"flying\",\"seq\":8}]}",
    "{\"boot\":\"boot-1\",\"next\":7,\"events\":[{\"kind\":\"loaded\",\"seq\":8}]}",
    "{\"boot\":\"boot-1\",\"next\":9,\"events\":[],\"progress\":[{\"kind\":\"loaded\",\"seq\":8}]}",
};

START_TEST(batch_that_is_not_understood__reaches_nobody)
{
    run_until(&seen.ups, 1, 5000);
    emit_raw(bad_batches[_i]);
    run_until(&seen.downs, 1, 5000);
    ck_assert_uint_eq(seen.batches, 0);
    run_until(&seen.ups, 2, 5000); /* and it is tried again from where it was */
    run_for(100);
    ck_assert_uint_eq(fake.poll_after, 0);
}
END_TEST

START_TEST(stream_that_went_back__is_loud_and_delivers_nothing)
{
    tear_down();
    set_up_with(&worker_files, 40);
    run_until(&seen.ups, 1, 5000);
    json_t *batch = new_batch(3);
    add_event(batch, 3);
    emit(batch);
    run_until(&seen.downs, 1, 5000);
    ck_assert_msg(strstr(seen.why, "went back from 40 to 3"), "%s", seen.why);
    ck_assert_uint_eq(seen.batches, 0);
}
END_TEST

START_TEST(empty_answers_at_once__do_not_make_a_busy_loop)
{
    run_until(&seen.ups, 1, 5000);
    for (int i = 0; i < 50; i++) {
        emit(new_batch(0));
        run_for(10);
    }
    ck_assert_uint_lt(fake.polls, 12);
    ck_assert_uint_eq(seen.batches, 0);
}
END_TEST

static void set_up_other(void)
{
    set_up_with(&other_files, 0);
}

Suite *rpc_suite(void);
Suite *rpc_suite(void)
{
    Suite *s = suite_create("rpc");
    TCase *t = tcase_create("workers");
    tcase_add_unchecked_fixture(t, pki_set_up, fake_pki_tear_down);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, an_op__is_answered_with_its_reply);
    tcase_add_test(t, lost_reply__is_asked_for_and_never_executed_twice);
    tcase_add_test(t, lost_request__is_sent_again_after_a_404);
    tcase_add_test(t, worker_that_is_stopping__may_have_begun_so_it_is_asked);
    tcase_add_test(t, slow_op__is_waited_for_with_gets);
    tcase_add_test(t, op_that_never_ends__is_a_timeout_not_a_failure);
    tcase_add_test(t, worker_that_never_answers__is_unknown);
    tcase_add_test(t, forgotten_op__is_gone);
    tcase_add_loop_test(t, answers_that_are_no_success__have_their_class, 0, sizeof(refusals) / sizeof(refusals[0]));
    tcase_add_test(t, worker_that_is_not_there__is_unavailable_at_once);
    tcase_add_test(t, two_hundred_ops_at_once__are_queued_and_all_answered);
    tcase_add_test(t, op_that_waited_for_a_slot__has_all_of_its_time_from_the_send);
    tcase_add_test(t, the_queue_has_a_bound);
    tcase_add_test(t, removed_host__answers_its_ops_in_the_next_turn);
    tcase_add_test(t, close__answers_what_is_outstanding);
    tcase_add_test(t, observations__tell_absent_from_unreachable);
    tcase_add_test(t, events__arrive_in_order_and_are_acknowledged_by_the_next_poll);
    tcase_add_test(t, no_poll_goes_out__before_the_engine_has_committed);
    tcase_add_test(t, restarted_worker__is_observed_again);
    tcase_add_test(t, broken_connection__is_told_and_mended);
    tcase_add_test(t, worker_that_calls_itself_otherwise__is_not_believed);
    tcase_add_test(t, worker_of_another_protocol__gets_no_orders_and_it_is_said_why);
    tcase_add_test(t, worker_of_a_newer_program_that_still_speaks_ours__is_talked_to);
    tcase_add_test(t, silent__no_stream_begins_until_it_is_listened_again);
    tcase_add_loop_test(t, batch_that_is_not_understood__reaches_nobody, 0,
                        sizeof(bad_batches) / sizeof(bad_batches[0]));
    tcase_add_test(t, stream_that_went_back__is_loud_and_delivers_nothing);
    tcase_add_test(t, empty_answers_at_once__do_not_make_a_busy_loop);
    suite_add_tcase(s, t);
    TCase *o = tcase_create("impostor");
    tcase_add_unchecked_fixture(o, pki_set_up, fake_pki_tear_down);
    tcase_add_checked_fixture(o, set_up_other, tear_down);
    tcase_add_test(o, wrong_certificate_name__gets_nothing_sent);
    suite_add_tcase(s, o);
    return s;
}
