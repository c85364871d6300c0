/* test_engine_admission.c - the engine with limits: what starts, what waits and says why, what a new coordinator does, how a
 * link's bandwidth goes from one job to the other. Store and workers are made up and keep many migrations. */
#include "base/clock.h"
#include "base/str.h"
#include "engine/internal.h"
#include "pki/ca.h"
#include "proto/vm.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPS_MAX     8192
#define RECORDS_MAX 4096
#define MIB         (UINT64_C(1) << 20)

Suite *engine_admission_suite(void);

/* ------------------------------------------------------------------ the world */

struct op {
    char host[LMO_NAME_MAX];
    struct lmo_op_request req; /* what it points to is not kept */
    lmo_op_done_fn *done;
    void *arg;
};
struct observation {
    char host[LMO_NAME_MAX], path[160];
    lmo_observe_done_fn *done;
    void *arg;
};

static struct op ops[OPS_MAX]; /* apart: 160 MiB that most tests never touch */

static struct {
    struct lmo_loop *loop;
    struct lmo_engine *engine;
    struct lmo_limits limits;
    unsigned host_count;
    struct lmo_host_limits stored_limits; /* of the host that they were set for last */
    char limits_host[LMO_NAME_MAX];
    struct lmo_migration *records[RECORDS_MAX];
    unsigned record_count, most_running;
    unsigned op_count;
    struct observation observations[256];
    unsigned observation_count;
    struct lmo_host_facts facts; /* what a host says of itself, but for its name */
    char guest_host[LMO_NAME_MAX];
    int code;
    unsigned status;
    char text[LMO_ERR_TEXT_MAX], field[64];
    json_t *body;
    uint64_t seq;
} w;

static struct lmo_migration *record(const char *id)
{
    for (unsigned i = 0; i < w.record_count; i++) {
        if (strcmp(w.records[i]->id, id) == 0) {
            return w.records[i];
        }
    }
    return NULL;
}

static unsigned running(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < w.record_count; i++) {
        n += lmo_migration_is_running(w.records[i]);
    }
    return n;
}

static int fake_commit(struct lmo_store *s, const struct lmo_commit_item *items, unsigned count,
                       const struct lmo_commit_cursor *cursors, unsigned cursor_count, struct lmo_err *err)
{
    (void)s, (void)cursors, (void)cursor_count, (void)err;
    for (unsigned i = 0; i < count; i++) {
        struct lmo_migration *m = record(items[i].record->id);
        ck_assert_uint_eq(items[i].expected_version, m ? m->version : 0);
        if (!m) {
            ck_assert_uint_lt(w.record_count, RECORDS_MAX);
            m = w.records[w.record_count++] = malloc(sizeof *m);
        }
        *m = *items[i].record;
        ck_assert_ptr_null(lmo_migration_broken(m));
    }
    unsigned now = w.record_count < 64 ? running() : 0;
    w.most_running = now > w.most_running ? now : w.most_running;
    return 0;
}

static int fake_next_epoch(struct lmo_store *s, const char *uuid, uint64_t at_least, uint64_t *ret, struct lmo_err *err)
{
    (void)s, (void)uuid, (void)at_least, (void)err;
    *ret = 2;
    return 0;
}

static int fake_load_open(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_migration *m, const char *xml),
                          void *arg, struct lmo_err *err)
{
    (void)s, (void)err;
    for (unsigned i = 0; i < w.record_count; i++) {
        if (!lmo_phase_is(w.records[i]->phase, LMO_PHASE_TERMINAL)) {
            int r = cb(arg, w.records[i], NULL);
            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

static int fake_get(struct lmo_store *s, const char *id, struct lmo_migration *ret, struct lmo_err *err)
{
    (void)s;
    const struct lmo_migration *m = record(id);
    if (!m) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "not known");
    }
    *ret = *m;
    return 0;
}

static void host_name(unsigned n, char ret[LMO_NAME_MAX])
{
    (void)snprintf(ret, LMO_NAME_MAX, "hv%u", n + 1);
}

static int fake_host_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_host_row *h), void *arg,
                          struct lmo_err *err)
{
    (void)s, (void)err;
    for (unsigned i = 0; i < w.host_count; i++) {
        struct lmo_host_row row = {0};
        host_name(i, row.name);
        LMO_COPY(row.url, "https://127.0.0.1:1");
        if (strcmp(row.name, w.limits_host) == 0) {
            row.limits = w.stored_limits;
        }
        int r = cb(arg, &row);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int fake_host_limits(struct lmo_store *s, const char *name, const struct lmo_host_limits *l, struct lmo_err *err)
{
    (void)s, (void)err;
    LMO_COPY(w.limits_host, name);
    w.stored_limits = *l;
    return 0;
}

static const struct lmo_store_ops store_ops = {.commit = fake_commit,
                                               .next_epoch = fake_next_epoch,
                                               .load_open = fake_load_open,
                                               .get = fake_get,
                                               .host_list = fake_host_list,
                                               .host_limits = fake_host_limits};

static int fake_host_add(struct lmo_workers *x, const char *name, const char *url, uint64_t cursor, struct lmo_err *err)
{
    (void)x, (void)name, (void)url, (void)cursor, (void)err;
    return 0;
}

static void fake_acknowledge(struct lmo_workers *x, const char *host, uint64_t cursor)
{
    (void)x, (void)host, (void)cursor;
}

static int fake_op(struct lmo_workers *x, const char *host, const struct lmo_op_request *req, uint32_t timeout_ms,
                   lmo_op_done_fn *done, void *arg, struct lmo_err *err)
{
    (void)x, (void)timeout_ms, (void)err;
    ck_assert_uint_lt(w.op_count, OPS_MAX);
    struct op *op = &ops[w.op_count++];
    *op = (struct op){.req = *req, .done = done, .arg = arg};
    op->req.xml = op->req.permit = NULL;
    LMO_COPY(op->host, host);
    return 0;
}

static int fake_observe(struct lmo_workers *x, const char *host, const char *path, uint32_t timeout_ms,
                        lmo_observe_done_fn *done, void *arg, struct lmo_err *err)
{
    (void)x, (void)timeout_ms, (void)err;
    ck_assert_uint_lt(w.observation_count, 256);
    struct observation *o = &w.observations[w.observation_count++];
    *o = (struct observation){.done = done, .arg = arg};
    LMO_COPY(o->host, host);
    LMO_COPY(o->path, path);
    return 0;
}

static const struct lmo_workers_ops workers_ops = {.host_add = fake_host_add,
                                                   .acknowledge = fake_acknowledge,
                                                   .op = fake_op,
                                                   .observe = fake_observe};
static struct lmo_store store = {.ops = &store_ops};
static struct lmo_workers workers = {.ops = &workers_ops};

/* ------------------------------------------------------------------ driving it */

static struct lmo_permit_key *permit_key; /* permits are signed on the way to the gate */

static void set_up_key(void)
{
    char dir[] = "/tmp/lmo-admission-XXXXXX", path[64], command[64];
    struct lmo_err err = {0};
    ck_assert_ptr_nonnull(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/permit.key", dir);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    ck_assert_msg(lmo_pki_init(dir, &err) == 0, "%s", err.text);
    ck_assert_msg(lmo_permit_key_load(path, &permit_key, &err) == 0, "%s", err.text);
    ck_assert_int_eq(system(command), 0);
}

static void tear_down_key(void)
{
    permit_key = lmo_permit_key_free(permit_key);
}

static void stop_loop(void *arg)
{
    lmo_loop_stop(arg);
}

static void run(uint64_t ms)
{
    uint64_t timer;
    ck_assert_int_eq(lmo_loop_timer(w.loop, ms, stop_loop, w.loop, &timer), 0);
    ck_assert_int_eq(lmo_loop_run(w.loop), 0);
}

static struct lmo_host_facts facts_of(const char *host)
{
    struct lmo_host_facts f = w.facts;
    LMO_COPY(f.host, host);
    return f;
}

static void up(const char *host)
{
    struct lmo_host_facts f = facts_of(host);
    const struct lmo_workers_callbacks *cb = lmo_engine_callbacks(w.engine);
    cb->host_state(cb->arg, host, &f, "");
}

static void all_up(void)
{
    for (unsigned i = 0; i < w.host_count; i++) {
        char name[LMO_NAME_MAX];
        host_name(i, name);
        up(name);
    }
    run(2);
}

static void start_engine(void)
{
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_loop_new(64, &w.loop, &err), 0);
    struct lmo_engine_config cfg = {.loop = w.loop, .store = &store, .permit_key = permit_key, .limits = &w.limits};
    ck_assert_int_eq(lmo_engine_new(&cfg, &w.engine, &err), 0);
    ck_assert_msg(lmo_engine_start(w.engine, &workers, &err) == 0, "%s", err.text);
}

static void stop_engine(void)
{
    lmo_engine_stop(w.engine);
    for (unsigned i = 0; i < w.op_count; i++) {
        if (ops[i].done) {
            ops[i].done(ops[i].arg, LMO_E_UNKNOWN, "", NULL);
        }
    }
    for (unsigned i = 0; i < w.observation_count; i++) {
        if (w.observations[i].done) {
            w.observations[i].done(w.observations[i].arg, LMO_E_UNAVAILABLE, "", NULL);
        }
    }
    w.op_count = w.observation_count = 0;
    w.engine = lmo_engine_free(w.engine);
    w.loop = lmo_loop_free(w.loop);
}

static void begin(unsigned host_count)
{
    memset(&w, 0, sizeof w);
    w.host_count = host_count;
    lmo_limits_default(&w.limits);
    w.limits.max_outgoing = 100;
    LMO_COPY(w.facts.hypervisor, "libvirt");
    LMO_COPY(w.facts.peer_uri, "sim://x");
    LMO_COPY(w.facts.boot, "01J00000000000000000000000");
    w.facts.link_count = 1;
    LMO_COPY(w.facts.links[0].name, "migration");
    LMO_COPY(w.facts.links[0].address, "10.1.0.9");
    w.facts.links[0].rate_bytes_per_s = 1000 * MIB;
}

static void end(void)
{
    stop_engine();
    for (unsigned i = 0; i < w.record_count; i++) {
        free(w.records[i]);
    }
    json_decref(w.body);
}

static void on_reply(void *arg, const struct lmo_engine_reply *r)
{
    (void)arg;
    w.code = r->code;
    w.status = r->http_status;
    LMO_COPY(w.text, r->text);
    LMO_COPY(w.field, r->field);
    json_decref(w.body);
    w.body = r->body;
}

/* All that was asked of hosts: hv1 has every guest, its number is its name. Free memory only when `memory`. */
static void answer_observations(bool memory)
{
    for (unsigned i = 0; i < w.observation_count; i++) {
        struct observation o = w.observations[i];
        json_t *j = NULL;
        bool host = strcmp(o.path, "/v1/observe/host") == 0;
        if (!o.done || (host && !memory)) {
            continue;
        }
        w.observations[i].done = NULL;
        if (host) {
            struct lmo_host_facts f = facts_of(o.host);
            j = lmo_host_facts_to_json(&f);
        } else if (strcmp(o.host, w.guest_host[0] ? w.guest_host : "hv1") == 0) {
            struct lmo_vm_facts f = {.state = LMO_RUN_RUNNING, .memory_bytes = 100 * MIB};
            (void)snprintf(f.uuid, sizeof f.uuid, "11111111-2222-3333-4444-%012u",
                           (unsigned)atoi(strrchr(o.path, '/') + 2));
            LMO_COPY(f.name, strrchr(o.path, '/') + 1);
            j = lmo_vm_facts_to_json(&f);
        }
        o.done(o.arg, j ? 0 : LMO_E_NOT_FOUND, j ? "" : "none", j);
        json_decref(j);
    }
}

/* Asks for guest "g<n>" to be moved; returns the record's index. */
static unsigned move(unsigned guest, const char *to)
{
    struct lmo_migrate_request req = {0};
    unsigned before = w.record_count;
    (void)snprintf(req.vm, sizeof req.vm, "g%u", guest);
    LMO_COPY(req.destination, to);
    LMO_COPY(req.principal, "operator:test");
    ck_assert_int_eq(lmo_engine_migrate(w.engine, &req, on_reply, NULL), 0);
    run(2);
    answer_observations(false);
    run(2);
    ck_assert_msg(w.code == 0 && w.status == 202 && w.record_count == before + 1, "%s", w.text);
    return before;
}

static json_t *shown(unsigned n)
{
    ck_assert_int_eq(lmo_engine_migration_get(w.engine, w.records[n]->id, 0, 0, on_reply, NULL), 0);
    run(2);
    ck_assert_int_eq(w.code, 0);
    return w.body;
}

static void assert_held(unsigned n, const char *limit, const char *host, int position)
{
    const json_t *j = shown(n), *held = json_object_get(j, "held_by");
    ck_assert_int_eq(w.records[n]->phase, LMO_PHASE_QUEUED);
    ck_assert_str_eq(json_string_value(json_object_get(held, "limit")), limit);
    ck_assert_str_eq(host[0] ? json_string_value(json_object_get(held, "host")) : "", host);
    ck_assert_int_eq(json_integer_value(json_object_get(j, "queue_position")), position);
    ck_assert_ptr_nonnull(strstr(json_string_value(json_object_get(j, "waiting_for")), "in line"));
}

static void cancel(unsigned n)
{
    ck_assert_int_eq(lmo_engine_migration_cancel(w.engine, w.records[n]->id, "operator:test", on_reply, NULL), 0);
    run(3);
    ck_assert_msg(w.code == 0, "%s", w.text);
}

static struct op *pending(unsigned n, enum lmo_op_kind kind)
{
    for (unsigned i = 0; i < w.op_count; i++) {
        if (ops[i].done && ops[i].req.kind == kind && strcmp(ops[i].req.migration, w.records[n]->id) == 0) {
            return &ops[i];
        }
    }
    return NULL;
}

static void done(unsigned n, enum lmo_op_kind kind)
{
    struct op *op = pending(n, kind);
    ck_assert_msg(op != NULL, "%s was not ordered; the migration is in %s", lmo_op_info(kind)->text,
                  lmo_phase_text(w.records[n]->phase));
    struct lmo_op_reply reply = {.state = LMO_OP_DONE};
    if (kind == LMO_OP_DESCRIBE) {
        reply.has_facts = true;
        reply.facts = w.records[n]->vm;
        reply.facts.state = LMO_RUN_RUNNING;
    }
    lmo_op_done_fn *fn = op->done;
    op->done = NULL;
    fn(op->arg, 0, "", &reply);
    run(2);
}

/* A guest without volumes and ports, up to the order that opens its gate. */
static void to_the_gate(unsigned n)
{
    static const enum lmo_op_kind way[] = {LMO_OP_DESCRIBE, LMO_OP_PRECHECK_INCOMING, LMO_OP_CHECK_REACH,
                                           LMO_OP_PREPARE,  LMO_OP_PERMIT,            LMO_OP_JOB_START};
    for (size_t i = 0; i < sizeof way / sizeof way[0]; i++) {
        done(n, way[i]);
    }
    ck_assert_ptr_nonnull(pending(n, LMO_OP_OPEN_GATE));
}

static void says(unsigned n, const char *host, struct lmo_worker_event e)
{
    e.seq = e.kind == LMO_WEV_PROGRESS ? 0 : ++w.seq;
    e.at_us = 1;
    LMO_COPY(e.migration, w.records[n]->id);
    const struct lmo_workers_callbacks *cb = lmo_engine_callbacks(w.engine);
    cb->events(cb->arg, host, &e, 1, w.seq);
    run(2);
}

/* ------------------------------------------------------------------ slots */

START_TEST(queue_of_many_keeps_to_the_limits_and_each_says_its_place)
{
    begin(3);
    start_engine();
    all_up();
    for (unsigned i = 0; i < 6; i++) {
        (void)move(i + 1, "hv2");
    }
    ck_assert_uint_eq(running(), 2);
    for (unsigned i = 2; i < 6; i++) {
        ck_assert_ptr_null(pending(i, LMO_OP_DESCRIBE));
        assert_held(i, "incoming", "hv2", (int)i - 1);
    }
    unsigned other = move(7, "hv3"); /* another destination: not behind them */
    ck_assert_int_eq(w.records[other]->phase, LMO_PHASE_PRECHECK);
    cancel(3); /* one of the queue: those behind move up, nobody starts */
    ck_assert_int_eq(w.records[3]->phase, LMO_PHASE_ABORTED);
    assert_held(4, "incoming", "hv2", 2);
    cancel(0);                /* one that runs: the oldest of the queue starts */
    done(0, LMO_OP_DESCRIBE); /* nothing to undo */
    ck_assert_int_eq(w.records[0]->phase, LMO_PHASE_ABORTED);
    ck_assert_int_eq(w.records[2]->phase, LMO_PHASE_PRECHECK);
    assert_held(4, "incoming", "hv2", 1);
    ck_assert_uint_le(w.most_running, 3);
    ck_assert_str_eq(w.records[2]->migration_uri, "tcp://10.1.0.9");
    end();
}
END_TEST

START_TEST(new_coordinator_keeps_to_the_limits_and_to_the_order)
{
    begin(3);
    start_engine();
    all_up();
    for (unsigned i = 0; i < 5; i++) {
        (void)move(i + 1, "hv2");
    }
    stop_engine();
    start_engine();
    run(5);
    assert_held(2, "host", "hv1", 1); /* nobody was heard of yet */
    ck_assert_uint_eq(running(), 2);
    all_up();
    ck_assert_uint_eq(running(), 2);
    assert_held(2, "incoming", "hv2", 1);
    assert_held(4, "incoming", "hv2", 3);
    ck_assert_ptr_nonnull(pending(0, LMO_OP_DESCRIBE)); /* asked again, the same call */
    cancel(1);
    done(1, LMO_OP_DESCRIBE);
    ck_assert_int_eq(w.records[2]->phase, LMO_PHASE_PRECHECK);
    ck_assert_uint_eq(running(), 2);
    ck_assert_uint_le(w.most_running, 2);
    end();
}
END_TEST

START_TEST(limits_of_one_host_take_effect_at_once_and_are_kept)
{
    begin(3);
    start_engine();
    all_up();
    for (unsigned i = 0; i < 5; i++) {
        (void)move(i + 1, "hv2");
    }
    struct lmo_host_limits set = {.given = LMO_HOST_LIMIT_INCOMING, .max_incoming = 4};
    ck_assert_int_eq(lmo_engine_host_limits(w.engine, "hv2", &set, 0, on_reply, NULL), 0);
    run(3);
    ck_assert_uint_eq(w.status, 200);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(w.body, "limits"), "max_incoming")), 4);
    ck_assert_uint_eq(running(), 4);
    ck_assert_str_eq(w.limits_host, "hv2");
    ck_assert_uint_eq(w.stored_limits.max_incoming, 4);
    stop_engine();
    start_engine();
    all_up();
    assert_held(4, "incoming", "hv2", 1);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(w.body, "held_by"), "max")), 4);
    struct lmo_host_limits none = {0};
    ck_assert_int_eq(lmo_engine_host_limits(w.engine, "hv2", &none, LMO_HOST_LIMIT_INCOMING, on_reply, NULL), 0);
    run(3);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(w.body, "limits"), "max_incoming")), 2);
    ck_assert_uint_eq(w.stored_limits.given, 0);
    ck_assert_uint_eq(running(), 4); /* those go on */
    end();
}
END_TEST

START_TEST(two_requests_for_one_guest_at_once_make_one_also_when_it_has_to_wait)
{
    begin(2);
    w.limits.max_incoming = 0;
    start_engine();
    all_up();
    struct lmo_migrate_request req = {.vm = "g1", .destination = "hv2", .principal = "operator:test"};
    ck_assert_int_eq(lmo_engine_migrate(w.engine, &req, on_reply, NULL), 0);
    ck_assert_int_eq(lmo_engine_migrate(w.engine, &req, on_reply, NULL), 0);
    run(2);
    answer_observations(false);
    run(3);
    ck_assert_uint_eq(w.record_count, 1);
    assert_held(0, "incoming", "hv2", 1);
    end();
}
END_TEST

static void on_other_reply(void *arg, const struct lmo_engine_reply *r)
{
    *(bool *)arg = r->code == 0;
    json_decref(r->body);
}

START_TEST(waiting_client_hears_when_the_place_in_line_changes)
{
    begin(2);
    start_engine();
    all_up();
    for (unsigned i = 0; i < 4; i++) {
        (void)move(i + 1, "hv2");
    }
    assert_held(3, "incoming", "hv2", 2);
    uint64_t version = (uint64_t)json_integer_value(json_object_get(w.body, "version"));
    w.status = 0;
    ck_assert_int_eq(lmo_engine_migration_get(w.engine, w.records[3]->id, version, 20000, on_reply, NULL), 0);
    run(20);
    ck_assert_uint_eq(w.status, 0); /* nothing new */
    static bool answered;
    answered = false;
    ck_assert_int_eq(lmo_engine_migration_cancel(w.engine, w.records[2]->id, "operator:test", on_other_reply,
                                                 &answered),
                     0);
    run(10);
    ck_assert(answered);
    ck_assert_uint_eq(w.status, 200); /* the one that waited */
    ck_assert_int_eq(json_integer_value(json_object_get(w.body, "queue_position")), 1);
    ck_assert_uint_gt((uint64_t)json_integer_value(json_object_get(w.body, "version")), version);
    end();
}
END_TEST

START_TEST(who_waits_too_long_is_given_up_and_the_reason_names_the_limit)
{
    begin(2);
    w.limits.max_incoming = 0;
    w.limits.queue_timeout_ms = 60;
    start_engine();
    all_up();
    unsigned n = move(1, "hv2");
    run(120);
    ck_assert_int_eq(w.records[n]->phase, LMO_PHASE_ABORTED);
    ck_assert_ptr_nonnull(strstr(w.records[n]->reason, "incoming slot of host hv2"));
    end();
}
END_TEST

/* ------------------------------------------------------------------ links and memory */

START_TEST(host_without_the_link_is_refused_by_name_at_once_and_also_in_the_queue)
{
    begin(2);
    w.limits.max_incoming = 1;
    start_engine();
    all_up();
    (void)move(1, "hv2");
    unsigned waiting = move(2, "hv2");
    w.facts.link_count = 0;
    up("hv2");
    run(3);
    cancel(0);
    done(0, LMO_OP_DESCRIBE);
    ck_assert_int_eq(w.records[waiting]->phase, LMO_PHASE_ABORTED);
    ck_assert_int_eq(w.records[waiting]->reason_code, LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(w.records[waiting]->reason, "host hv2 has no link 'migration'"));
    struct lmo_migrate_request req = {.vm = "g3", .destination = "hv2", .principal = "operator:test"};
    ck_assert_int_eq(lmo_engine_migrate(w.engine, &req, on_reply, NULL), 0);
    run(2);
    answer_observations(false);
    run(2);
    ck_assert_int_eq(w.code, LMO_E_REFUSED);
    ck_assert_str_eq(w.field, "destination");
    ck_assert_ptr_nonnull(strstr(w.text, "host hv2 has no link 'migration'"));
    end();
}
END_TEST

START_TEST(memory_is_reserved_until_the_guest_is_seen_in_it)
{
    begin(2);
    w.limits.memory_keep_free_bytes = 100 * MIB;
    w.limits.memory_overhead_bytes = 50 * MIB;
    w.limits.memory_overhead_percent = 0;
    w.facts.memory_total_bytes = 1000 * MIB;
    w.facts.memory_free_bytes = 420 * MIB; /* two of 150 fit above what is kept free, a third does not */
    start_engine();
    all_up();
    for (unsigned i = 0; i < 3; i++) {
        (void)move(i + 1, "hv2");
    }
    assert_held(2, "incoming", "hv2", 1); /* the slots are the first to be named */
    struct lmo_host_limits set = {.given = LMO_HOST_LIMIT_INCOMING, .max_incoming = 10};
    ck_assert_int_eq(lmo_engine_host_limits(w.engine, "hv2", &set, 0, on_reply, NULL), 0);
    run(3);
    assert_held(2, "memory", "hv2", 1);
    /* The first arrives: what is known of the host is older, so its memory stays counted. */
    to_the_gate(0);
    done(0, LMO_OP_OPEN_GATE);
    says(0, "hv2", (struct lmo_worker_event){.kind = LMO_WEV_LOADED});
    says(0, "hv2", (struct lmo_worker_event){.kind = LMO_WEV_COMMITTED, .answer = "frozen"});
    says(0, "hv2", (struct lmo_worker_event){.kind = LMO_WEV_RESUMED, .state = LMO_RUN_RUNNING});
    done(0, LMO_OP_REMOVE_SOURCE);
    done(0, LMO_OP_SETTLE);
    done(0, LMO_OP_CLOSE_SOURCE);
    done(0, LMO_OP_CLOSE_DESTINATION);
    ck_assert_int_eq(w.records[0]->phase, LMO_PHASE_COMPLETED);
    assert_held(2, "memory", "hv2", 1);
    /* A guest of somebody else ends there: the host says so when it is asked again. */
    struct host *h = engine_host(w.engine, "hv2");
    h->facts_ns -= 11 * UINT64_C(1000000000);
    struct lmo_host_limits same = set;
    ck_assert_int_eq(lmo_engine_host_limits(w.engine, "hv2", &same, 0, on_reply, NULL), 0);
    run(3);
    w.facts.memory_free_bytes = 420 * MIB; /* the first guest is in it, and as much was freed */
    answer_observations(true);
    run(3);
    ck_assert_int_eq(w.records[2]->phase, LMO_PHASE_PRECHECK);
    end();
}
END_TEST

START_TEST(guest_that_can_never_fit_is_refused_and_huge_pages_are_counted_apart)
{
    begin(2);
    w.limits.memory_keep_free_bytes = 0;
    w.facts.memory_total_bytes = 200 * MIB;
    w.facts.memory_free_bytes = 200 * MIB;
    start_engine();
    all_up();
    struct lmo_err err = {0};
    const struct host *a = engine_host(w.engine, "hv1"), *b = engine_host(w.engine, "hv2");
    struct lmo_vm_facts vm = {.memory_bytes = 300 * MIB};
    ck_assert_int_eq(engine_admission_possible(w.engine, a, b, &vm, &err), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "host hv2 has 200 MiB in all"));
    vm.huge_page_bytes = 2 * MIB;
    ck_assert_int_eq(engine_admission_possible(w.engine, a, b, &vm, &err), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "huge pages of 2048 KiB, and host hv2 has none"));
    end();
}
END_TEST

/* ------------------------------------------------------------------ bandwidth */

START_TEST(bandwidth_goes_from_one_to_two_and_back_and_never_twice)
{
    begin(3);
    w.limits.min_share_bytes_per_s = 100 * MIB;
    start_engine();
    all_up();
    unsigned a = move(1, "hv2");
    to_the_gate(a);
    ck_assert_uint_eq(pending(a, LMO_OP_OPEN_GATE)->req.bandwidth_bytes_per_s, 1000 * MIB);
    unsigned b = move(2, "hv3"); /* while the order is under way it cannot be changed: the second waits for that */
    assert_held(b, "freeing", "hv1", 1);
    done(a, LMO_OP_OPEN_GATE);
    ck_assert_uint_eq(pending(a, LMO_OP_OPEN_GATE)->req.bandwidth_bytes_per_s, 500 * MIB);
    ck_assert_int_eq(w.records[b]->phase, LMO_PHASE_QUEUED); /* not confirmed yet */
    ck_assert_uint_eq(w.records[a]->share_held_bytes_per_s, 1000 * MIB);
    stop_engine(); /* a coordinator that starts here knows what may be in force */
    start_engine();
    all_up();
    ck_assert_int_eq(w.records[b]->phase, LMO_PHASE_QUEUED);
    done(a, LMO_OP_OPEN_GATE);
    ck_assert_int_eq(w.records[b]->phase, LMO_PHASE_PRECHECK);
    ck_assert_uint_eq(w.records[b]->share_bytes_per_s, 500 * MIB);
    to_the_gate(b);
    ck_assert_uint_eq(pending(b, LMO_OP_OPEN_GATE)->req.bandwidth_bytes_per_s, 500 * MIB);
    done(b, LMO_OP_OPEN_GATE);
    /* The first is loaded: its part is free, and the second gets it. */
    says(a, "hv2", (struct lmo_worker_event){.kind = LMO_WEV_LOADED});
    ck_assert_uint_eq(pending(b, LMO_OP_OPEN_GATE)->req.bandwidth_bytes_per_s, 1000 * MIB);
    done(b, LMO_OP_OPEN_GATE);
    ck_assert_uint_eq(w.records[b]->share_held_bytes_per_s, 1000 * MIB);
    ck_assert_ptr_null(pending(b, LMO_OP_OPEN_GATE));
    /* The source ran on: the first is undone, and that takes nothing of the link any more. */
    says(a, "hv2", (struct lmo_worker_event){.kind = LMO_WEV_BACK});
    ck_assert_int_eq(w.records[a]->phase, LMO_PHASE_ROLLBACK);
    ck_assert(lmo_migration_is_running(w.records[a]) && !lmo_migration_streams(w.records[a]));
    ck_assert_ptr_null(pending(b, LMO_OP_OPEN_GATE));
    end();
}
END_TEST

START_TEST(refused_change_of_an_open_gate_is_no_failure_of_the_migration)
{
    begin(3);
    start_engine();
    all_up();
    unsigned a = move(1, "hv2");
    to_the_gate(a);
    done(a, LMO_OP_OPEN_GATE);
    (void)move(2, "hv3");
    struct op *op = pending(a, LMO_OP_OPEN_GATE);
    ck_assert_ptr_nonnull(op);
    lmo_op_done_fn *fn = op->done;
    op->done = NULL;
    struct lmo_op_reply reply = {.state = LMO_OP_FAILED, .code = LMO_E_CONFLICT, .text = "no job runs"};
    fn(op->arg, 0, "", &reply);
    run(2);
    ck_assert_int_eq(w.records[a]->phase, LMO_PHASE_PRECOPY);
    ck_assert_uint_eq(w.records[a]->share_held_bytes_per_s, 1000 * MIB); /* nobody said that it is less */
    run(100);
    ck_assert_ptr_null(pending(a, LMO_OP_OPEN_GATE)); /* nor is it asked for in a loop */
    run(1200);
    ck_assert_uint_eq(pending(a, LMO_OP_OPEN_GATE)->req.bandwidth_bytes_per_s, 500 * MIB);
    end();
}
END_TEST

START_TEST(job_that_cannot_use_its_share_leaves_it_to_the_other)
{
    begin(3);
    w.limits.min_share_bytes_per_s = 50 * MIB;
    start_engine();
    all_up();
    unsigned slow = move(1, "hv2"), fast = move(2, "hv3");
    to_the_gate(slow);
    done(slow, LMO_OP_OPEN_GATE);
    to_the_gate(fast);
    done(fast, LMO_OP_OPEN_GATE);
    ck_assert_uint_eq(w.records[slow]->share_held_bytes_per_s, 500 * MIB);
    uint64_t evaluations = w.engine->admission.evaluations;
    struct lmo_worker_event e = {.kind = LMO_WEV_PROGRESS,
                                 .progress = {.total_bytes = 1,
                                              .iteration = 1,
                                              .rate_bytes_per_s = 80 * MIB,
                                              .bandwidth_bytes_per_s = 500 * MIB}};
    for (unsigned i = 1; i < LMO_DEMAND_SAMPLES; i++) {
        says(slow, "hv1", e);
    }
    ck_assert_uint_eq(w.engine->admission.evaluations, evaluations); /* samples alone evaluate nothing */
    says(slow, "hv1", e);
    ck_assert_uint_eq(pending(slow, LMO_OP_OPEN_GATE)->req.bandwidth_bytes_per_s, 100 * MIB);
    ck_assert_ptr_null(pending(fast, LMO_OP_OPEN_GATE));
    done(slow, LMO_OP_OPEN_GATE);
    ck_assert_uint_eq(pending(fast, LMO_OP_OPEN_GATE)->req.bandwidth_bytes_per_s, 900 * MIB);
    end();
}
END_TEST

/* ------------------------------------------------------------------ size */

START_TEST(thousands_of_open_records_on_a_thousand_hosts_start_in_turns_that_stay_short)
{
    begin(1000);
    w.limits.max_migrations = 500;
    for (unsigned i = 0; i < 3000; i++) {
        struct lmo_migration *m = w.records[w.record_count++] = calloc(1, sizeof *m);
        *m = (struct lmo_migration){.version = 1, .epoch = 32, .phase = LMO_PHASE_QUEUED, .next_ordinal = 1};
        (void)snprintf(m->id, sizeof m->id, "01J000000000000000000%05u", i);
        (void)snprintf(m->vm.uuid, sizeof m->vm.uuid, "11111111-2222-3333-4444-%012u", i);
        host_name(i % 1000, m->source);
        host_name((i + 1 + i / 1000) % 1000, m->destination);
        m->policy.max_downtime_ms = m->policy.convergence_timeout_ms = 1000;
    }
    start_engine();
    all_up();
    run(50);
    ck_assert_uint_eq(running(), 500);
    ck_assert_ptr_eq(engine_entry_of_vm(w.engine, w.records[2999]->vm.uuid),
                     engine_entry(w.engine, w.records[2999]->id));
    uint64_t before = w.engine->admission.evaluations, began = lmo_now_ns();
    for (unsigned i = 0; i < 20; i++) {
        cancel(1000 + i);
    }
    ck_assert_uint_le(w.engine->admission.evaluations - before, 40);
    ck_assert_uint_lt((lmo_now_ns() - began) / LMO_NS_PER_MS, 5000);
    end();
}
END_TEST

Suite *engine_admission_suite(void)
{
    Suite *s = suite_create("engine_admission");
    TCase *t = tcase_create("slots");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, queue_of_many_keeps_to_the_limits_and_each_says_its_place);
    tcase_add_test(t, new_coordinator_keeps_to_the_limits_and_to_the_order);
    tcase_add_test(t, limits_of_one_host_take_effect_at_once_and_are_kept);
    tcase_add_test(t, two_requests_for_one_guest_at_once_make_one_also_when_it_has_to_wait);
    tcase_add_test(t, waiting_client_hears_when_the_place_in_line_changes);
    tcase_add_test(t, who_waits_too_long_is_given_up_and_the_reason_names_the_limit);
    tcase_add_test(t, host_without_the_link_is_refused_by_name_at_once_and_also_in_the_queue);
    tcase_add_test(t, guest_that_can_never_fit_is_refused_and_huge_pages_are_counted_apart);
    suite_add_tcase(s, t);
    TCase *b = tcase_create("jobs");
    tcase_set_timeout(b, 60);
    tcase_add_unchecked_fixture(b, set_up_key, tear_down_key);
    tcase_add_test(b, memory_is_reserved_until_the_guest_is_seen_in_it);
    tcase_add_test(b, bandwidth_goes_from_one_to_two_and_back_and_never_twice);
    tcase_add_test(b, refused_change_of_an_open_gate_is_no_failure_of_the_migration);
    tcase_add_test(b, job_that_cannot_use_its_share_leaves_it_to_the_other);
    suite_add_tcase(s, b);
    TCase *z = tcase_create("size");
    tcase_set_timeout(z, 60);
    tcase_add_test(z, thousands_of_open_records_on_a_thousand_hosts_start_in_turns_that_stay_short);
    suite_add_tcase(s, z);
    return s;
}
