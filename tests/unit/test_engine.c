/* test_engine.c - the engine between a store and workers that do as they are told: what is committed before what, what
 * happens when the store cannot commit, requests that race, and who may say what. */
#include "base/str.h"
#include "engine/engine.h"
#include "proto/vm.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define CALLS_MAX   64
#define REPLIES_MAX 8
#define GUEST_1     "11111111-2222-3333-4444-555555555555"
#define GUEST_2     "22222222-2222-3333-4444-555555555555"

/* ------------------------------------------------------------------ the world */

struct observation {
    char host[LMO_NAME_MAX];
    lmo_observe_done_fn *done;
    void *arg;
};
struct op {
    char host[LMO_NAME_MAX], id[LMO_OP_ID_MAX];
    enum lmo_op_kind kind;
    lmo_op_done_fn *done;
    void *arg;
};
struct reply {
    int code;
    unsigned status;
    char text[LMO_ERR_TEXT_MAX], field[32], id[LMO_ID_MAX];
};

static struct {
    struct lmo_loop *loop;
    struct lmo_engine *engine;
    /* store */
    int commit_code;
    unsigned commits;
    struct lmo_migration stored;
    bool has_stored;
    char key[65], hash[65];
    uint64_t cursor;
    /* workers */
    struct observation observations[CALLS_MAX];
    struct op ops[CALLS_MAX];
    unsigned observation_count, op_count;
    uint64_t acknowledged;
    /* client */
    struct reply replies[REPLIES_MAX];
    unsigned reply_count;
} w;

static int fake_commit(struct lmo_store *s, const struct lmo_commit_item *items, unsigned count,
                       const struct lmo_commit_cursor *cursors, unsigned cursor_count, struct lmo_err *err)
{
    (void)s;
    if (w.commit_code < 0) {
        return lmo_fail(err, w.commit_code, "the disk is full");
    }
    w.commits++;
    for (unsigned i = 0; i < count; i++) {
        ck_assert_uint_eq(items[i].expected_version, w.has_stored ? w.stored.version : 0);
        w.stored = *items[i].record;
        w.has_stored = true;
        if (items[i].idempotency_key) {
            ck_assert_str_eq(w.key, ""); /* a second one is a conflict, at which the engine stops */
            LMO_COPY(w.key, items[i].idempotency_key);
            LMO_COPY(w.hash, items[i].idempotency_hash);
        }
    }
    for (unsigned i = 0; i < cursor_count; i++) {
        w.cursor = cursors[i].cursor > w.cursor ? cursors[i].cursor : w.cursor;
    }
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
    (void)s, (void)cb, (void)arg, (void)err;
    return 0;
}

static int fake_get(struct lmo_store *s, const char *id, struct lmo_migration *ret, struct lmo_err *err)
{
    (void)s;
    if (!w.has_stored || strcmp(id, w.stored.id) != 0) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "not known");
    }
    *ret = w.stored;
    return 0;
}

static int fake_idempotency(struct lmo_store *s, const char *principal, const char *key, char ret_hash[65],
                            char ret_migration[LMO_ID_MAX], struct lmo_err *err)
{
    (void)s, (void)principal;
    if (strcmp(w.key, key) != 0) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "new");
    }
    memcpy(ret_hash, w.hash, sizeof w.hash);
    memcpy(ret_migration, w.stored.id, LMO_ID_MAX);
    return 0;
}

static int fake_host_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_host_row *h), void *arg,
                          struct lmo_err *err)
{
    (void)s, (void)err;
    static const char *const names[] = {"hv1", "hv2", "hv3"};
    for (unsigned i = 0; i < 3; i++) {
        struct lmo_host_row row = {0};
        LMO_COPY(row.name, names[i]);
        LMO_COPY(row.url, "https://127.0.0.1:1");
        int r = cb(arg, &row);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int fake_host_delete(struct lmo_store *s, const char *name, struct lmo_err *err)
{
    (void)s, (void)name, (void)err;
    return 0;
}

static const struct lmo_store_ops store_ops = {.commit = fake_commit,
                                               .next_epoch = fake_next_epoch,
                                               .load_open = fake_load_open,
                                               .get = fake_get,
                                               .idempotency = fake_idempotency,
                                               .host_list = fake_host_list,
                                               .host_delete = fake_host_delete};

static int fake_host_add(struct lmo_workers *x, const char *name, const char *url, uint64_t cursor, struct lmo_err *err)
{
    (void)x, (void)name, (void)url, (void)cursor, (void)err;
    return 0;
}

static void fake_host_remove(struct lmo_workers *x, const char *name)
{
    (void)x, (void)name;
}

static void fake_acknowledge(struct lmo_workers *x, const char *host, uint64_t cursor)
{
    (void)x, (void)host;
    ck_assert_uint_le(cursor, w.cursor); /* E2 */
    w.acknowledged = cursor;
}

static int fake_op(struct lmo_workers *x, const char *host, const struct lmo_op_request *req, uint32_t timeout_ms,
                   lmo_op_done_fn *done, void *arg, struct lmo_err *err)
{
    (void)x, (void)timeout_ms, (void)err;
    bool written = false; /* E1: as SENT, in what is stored */
    for (unsigned i = 0; w.has_stored && i < w.stored.task_count; i++) {
        char id[LMO_OP_ID_MAX];
        lmo_task_op_id(&w.stored, &w.stored.tasks[i], id);
        written = written || (strcmp(id, req->id) == 0 && w.stored.tasks[i].state == LMO_TASK_SENT);
    }
    ck_assert_msg(written, "%s was sent before it was committed", req->id);
    ck_assert_uint_lt(w.op_count, CALLS_MAX);
    struct op *op = &w.ops[w.op_count++];
    *op = (struct op){.kind = req->kind, .done = done, .arg = arg};
    LMO_COPY(op->host, host);
    LMO_COPY(op->id, req->id);
    return 0;
}

static int fake_observe(struct lmo_workers *x, const char *host, const char *path, uint32_t timeout_ms,
                        lmo_observe_done_fn *done, void *arg, struct lmo_err *err)
{
    (void)x, (void)path, (void)timeout_ms, (void)err;
    ck_assert_uint_lt(w.observation_count, CALLS_MAX);
    struct observation *o = &w.observations[w.observation_count++];
    *o = (struct observation){.done = done, .arg = arg};
    LMO_COPY(o->host, host);
    return 0;
}

static const struct lmo_workers_ops workers_ops = {.host_add = fake_host_add,
                                                   .host_remove = fake_host_remove,
                                                   .acknowledge = fake_acknowledge,
                                                   .op = fake_op,
                                                   .observe = fake_observe};
static struct lmo_store store = {.ops = &store_ops};
static struct lmo_workers workers = {.ops = &workers_ops};

/* ------------------------------------------------------------------ driving it */

static void stop_loop(void *arg)
{
    lmo_loop_stop(arg);
}

/* Everything that is due within so many milliseconds. */
static void run(uint64_t ms)
{
    uint64_t timer;
    ck_assert_int_eq(lmo_loop_timer(w.loop, ms, stop_loop, w.loop, &timer), 0);
    ck_assert_int_eq(lmo_loop_run(w.loop), 0);
}

static void up(const char *host)
{
    struct lmo_host_facts facts = {0};
    LMO_COPY(facts.host, host);
    LMO_COPY(facts.hypervisor, "libvirt");
    facts.link_count = 1;
    LMO_COPY(facts.links[0].name, "migration");
    LMO_COPY(facts.links[0].address, "10.1.0.1");
    const struct lmo_workers_callbacks *cb = lmo_engine_callbacks(w.engine);
    cb->host_state(cb->arg, host, &facts, "");
}

static void begin(void)
{
    struct lmo_err err = {0};
    memset(&w, 0, sizeof w);
    ck_assert_int_eq(lmo_loop_new(64, &w.loop, &err), 0);
    struct lmo_engine_config cfg = {.loop = w.loop, .store = &store};
    ck_assert_int_eq(lmo_engine_new(&cfg, &w.engine, &err), 0);
    ck_assert_int_eq(lmo_engine_start(w.engine, &workers, &err), 0);
    up("hv1");
    up("hv2");
    up("hv3");
}

static void end(void)
{
    lmo_engine_stop(w.engine);
    for (unsigned i = 0; i < w.op_count; i++) {
        if (w.ops[i].done) {
            w.ops[i].done(w.ops[i].arg, LMO_E_UNKNOWN, "", NULL);
        }
    }
    w.engine = lmo_engine_free(w.engine);
    w.loop = lmo_loop_free(w.loop);
}

static void on_reply(void *arg, const struct lmo_engine_reply *r)
{
    (void)arg;
    ck_assert_uint_lt(w.reply_count, REPLIES_MAX);
    struct reply *to = &w.replies[w.reply_count++];
    to->code = r->code;
    to->status = r->http_status;
    LMO_COPY(to->text, r->text);
    LMO_COPY(to->field, r->field);
    LMO_COPY(to->id, r->body ? json_string_value(json_object_get(r->body, "id")) : "");
    json_decref(r->body);
}

static void ask_to_move(const char *guest, const char *key)
{
    struct lmo_migrate_request req = {0};
    LMO_COPY(req.vm, guest);
    LMO_COPY(req.destination, "hv2");
    LMO_COPY(req.idempotency_key, key);
    LMO_COPY(req.idempotency_hash, guest);
    LMO_COPY(req.principal, "operator:test");
    ck_assert_int_eq(lmo_engine_migrate(w.engine, &req, on_reply, NULL), 0);
    run(5);
}

/* The oldest unanswered question to `host`; `guest` NULL: it has none of that name. */
static void answer(const char *host, const char *guest)
{
    for (unsigned i = 0; i < w.observation_count; i++) {
        struct observation o = w.observations[i];
        if (o.done && strcmp(o.host, host) == 0) {
            w.observations[i].done = NULL;
            if (!guest) {
                o.done(o.arg, LMO_E_NOT_FOUND, "no such guest", NULL);
                return;
            }
            struct lmo_vm_facts facts = {.state = LMO_RUN_RUNNING};
            LMO_COPY(facts.uuid, guest);
            LMO_COPY(facts.name, "g");
            json_t *j = lmo_vm_facts_to_json(&facts);
            o.done(o.arg, 0, "", j);
            json_decref(j);
            return;
        }
    }
    ck_abort_msg("%s was not asked", host);
}

static struct op *pending(enum lmo_op_kind kind)
{
    for (unsigned i = 0; i < w.op_count; i++) {
        if (w.ops[i].done && w.ops[i].kind == kind) {
            return &w.ops[i];
        }
    }
    return NULL;
}

static void says(const char *host, enum lmo_worker_event_kind kind, uint64_t seq)
{
    struct lmo_worker_event e = {.kind = kind, .seq = seq, .at_us = 1};
    LMO_COPY(e.migration, w.stored.id);
    const struct lmo_workers_callbacks *cb = lmo_engine_callbacks(w.engine);
    cb->events(cb->arg, host, &e, 1, seq);
}

/* A migration of GUEST_1 from hv1 to hv2 whose first call is out. */
static void started(void)
{
    begin();
    ask_to_move(GUEST_1, "");
    answer("hv1", GUEST_1);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(5);
    ck_assert_uint_eq(w.reply_count, 1);
    ck_assert_uint_eq(w.replies[0].status, 202);
    ck_assert_ptr_nonnull(pending(LMO_OP_DESCRIBE));
}

/* ------------------------------------------------------------------ tests */

START_TEST(request_is_answered_and_its_first_call_sent_only_after_the_commit)
{
    begin();
    ask_to_move(GUEST_1, "");
    w.commit_code = LMO_E_NO_SPACE;
    answer("hv1", GUEST_1);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(50);
    ck_assert_uint_eq(w.reply_count, 0);
    ck_assert_uint_eq(w.op_count, 0);
    ask_to_move(GUEST_2, ""); /* refused while the store cannot be written */
    ck_assert_uint_eq(w.reply_count, 1);
    ck_assert_int_eq(w.replies[0].code, LMO_E_UNAVAILABLE);
    w.commit_code = 0;
    run(700);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_uint_eq(w.replies[1].status, 202);
    ck_assert_ptr_nonnull(pending(LMO_OP_DESCRIBE));
    end();
}
END_TEST

START_TEST(event_is_acknowledged_only_after_the_commit_of_what_followed)
{
    started();
    w.commit_code = LMO_E_NO_SPACE;
    says("hv1", LMO_WEV_JOB_END, 7);
    run(50);
    ck_assert_uint_eq(w.acknowledged, 0);
    w.commit_code = 0;
    run(700);
    ck_assert_uint_eq(w.acknowledged, 7);
    ck_assert(w.stored.job_ended);
    end();
}
END_TEST

START_TEST(worker_that_is_no_part_of_a_migration_decides_nothing_about_it)
{
    started();
    says("hv3", LMO_WEV_SUSPENDED, 1);
    says("hv3", LMO_WEV_FENCED, 2);
    says("hv1", LMO_WEV_LOADED, 1); /* the source cannot say that */
    run(5);
    ck_assert_int_eq(w.stored.cutover.suspended_us, 0);
    ck_assert_int_eq(w.stored.cutover.fenced_us, 0);
    ck_assert_int_eq(w.stored.cutover.loaded_us, 0);
    ck_assert_uint_gt(w.acknowledged, 0); /* it is forgotten over there all the same */
    says("hv1", LMO_WEV_SUSPENDED, 2);
    run(5);
    ck_assert_int_ne(w.stored.cutover.suspended_us, 0);
    end();
}
END_TEST

START_TEST(two_requests_for_one_guest_that_are_resolved_together_make_one_migration)
{
    begin();
    ask_to_move(GUEST_1, "");
    ask_to_move(GUEST_1, "");
    for (int i = 0; i < 2; i++) {
        answer("hv1", GUEST_1);
        answer("hv2", NULL);
        answer("hv3", NULL);
    }
    run(5);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_int_eq(w.replies[0].code, LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(w.replies[0].text, "is being moved"));
    ck_assert_uint_eq(w.replies[1].status, 202);
    end();
}
END_TEST

START_TEST(one_key_for_two_guests_at_the_same_time_starts_one_migration)
{
    begin();
    ask_to_move(GUEST_1, "k");
    ask_to_move(GUEST_2, "k");
    for (int i = 0; i < 2; i++) {
        answer("hv1", i == 0 ? GUEST_1 : GUEST_2);
        answer("hv2", NULL);
        answer("hv3", NULL);
    }
    run(5);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_int_eq(w.replies[0].code, LMO_E_CONFLICT);
    ck_assert_str_eq(w.replies[0].field, "Idempotency-Key");
    ck_assert_uint_eq(w.replies[1].status, 202);
    end();
}
END_TEST

START_TEST(repeat_that_was_under_way_beside_the_first_gets_the_firsts_migration)
{
    begin();
    ask_to_move(GUEST_1, "k");
    ask_to_move(GUEST_1, "k");
    answer("hv1", GUEST_1);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(5); /* the first is committed now */
    answer("hv1", GUEST_1);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(5);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_uint_eq(w.replies[1].status, 202);
    ck_assert_str_eq(w.replies[0].id, w.replies[1].id);
    end();
}
END_TEST

START_TEST(host_that_is_removed_while_a_guest_on_it_is_looked_for_is_not_moved_from)
{
    begin();
    ask_to_move(GUEST_1, "");
    answer("hv1", GUEST_1);
    ck_assert_int_eq(lmo_engine_host_remove(w.engine, "hv1", on_reply, NULL), 0);
    run(5);
    ck_assert_uint_eq(w.replies[0].status, 204);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(5);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_int_eq(w.replies[1].code, LMO_E_CONFLICT);
    ck_assert(!w.has_stored);
    end();
}
END_TEST

START_TEST(request_that_could_not_be_committed_before_the_stop_is_refused_once)
{
    begin();
    ask_to_move(GUEST_1, "");
    w.commit_code = LMO_E_NO_SPACE;
    answer("hv1", GUEST_1);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(5);
    end();
    ck_assert_uint_eq(w.reply_count, 1);
    ck_assert_int_eq(w.replies[0].code, LMO_E_UNAVAILABLE);
}
END_TEST

Suite *engine_suite(void);
Suite *engine_suite(void)
{
    Suite *s = suite_create("engine");
    TCase *t = tcase_create("engine");
    tcase_set_timeout(t, 20);
    tcase_add_test(t, request_is_answered_and_its_first_call_sent_only_after_the_commit);
    tcase_add_test(t, event_is_acknowledged_only_after_the_commit_of_what_followed);
    tcase_add_test(t, worker_that_is_no_part_of_a_migration_decides_nothing_about_it);
    tcase_add_test(t, two_requests_for_one_guest_that_are_resolved_together_make_one_migration);
    tcase_add_test(t, one_key_for_two_guests_at_the_same_time_starts_one_migration);
    tcase_add_test(t, repeat_that_was_under_way_beside_the_first_gets_the_firsts_migration);
    tcase_add_test(t, host_that_is_removed_while_a_guest_on_it_is_looked_for_is_not_moved_from);
    tcase_add_test(t, request_that_could_not_be_committed_before_the_stop_is_refused_once);
    suite_add_tcase(s, t);
    return s;
}
