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
    char host[LMO_NAME_MAX], path[96];
    lmo_observe_done_fn *done;
    void *arg;
};
struct op {
    char host[LMO_NAME_MAX], id[LMO_OP_ID_MAX];
    enum lmo_op_kind kind;
    uint32_t dirty_fresh_ms;
    lmo_op_done_fn *done;
    void *arg;
};
struct reply {
    int code;
    unsigned status;
    char text[LMO_ERR_TEXT_MAX], field[32], id[LMO_ID_MAX];
    char body[8192];
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
    const char *poison;                /* a guest whose record can never be stored */
    const struct lmo_migration *open;  /* what there was at the start */
    struct lmo_quarantine_row aside;   /* set aside, by the store at the start or by the engine */
    unsigned audit_count, audits_stored;
    struct lmo_audit_line audit[32];
    int term_code;
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
    for (unsigned i = 0; i < count; i++) {
        if (w.poison && strcmp(items[i].record->vm.uuid, w.poison) == 0) {
            return lmo_fail(err, LMO_E_TOO_LARGE, "record of too many bytes");
        }
    }
    w.commits++;
    w.audits_stored = w.audit_count;
    for (unsigned i = 0; i < count; i++) {
        bool same = w.has_stored && strcmp(items[i].record->id, w.stored.id) == 0;
        ck_assert_uint_eq(items[i].expected_version, same ? w.stored.version : 0);
        w.stored = *items[i].record;
        w.has_stored = true;
        if (items[i].answers) {
            ck_assert_str_eq(w.key, ""); /* a second one is a conflict, at which the engine stops */
            LMO_COPY(w.key, items[i].answers->key);
            LMO_COPY(w.hash, items[i].answers->hash);
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
    (void)s, (void)err;
    return w.open ? cb(arg, w.open, NULL) : 0;
}

static int fake_audit(struct lmo_store *s, const struct lmo_audit_line *l)
{
    (void)s;
    ck_assert_uint_lt(w.audit_count, 32);
    w.audit[w.audit_count++] = *l;
    return 0;
}

static int fake_quarantine(struct lmo_store *s, const struct lmo_quarantine_row *row, struct lmo_err *err)
{
    (void)s, (void)err;
    w.aside = *row;
    return 0;
}

static int fake_quarantine_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_quarantine_row *row), void *arg,
                                struct lmo_err *err)
{
    (void)s, (void)err;
    return w.aside.migration[0] ? cb(arg, &w.aside) : 0;
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

/* As an older program kept it: where the object is, and no text. */
static int fake_answer(struct lmo_store *s, const char *principal, const char *key, struct lmo_kept_answer *ret, char **ret_body,
                       struct lmo_err *err)
{
    (void)s, (void)principal;
    if (strcmp(w.key, key) != 0) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "new");
    }
    *ret = (struct lmo_kept_answer){.status = 202};
    memcpy(ret->hash, w.hash, sizeof w.hash);
    (void)snprintf(ret->location, sizeof ret->location, "/v1/migrations/%s", w.stored.id);
    ret->body = *ret_body = strdup("");
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
                                               .answer = fake_answer,
                                               .host_list = fake_host_list,
                                               .audit = fake_audit,
                                               .quarantine = fake_quarantine,
                                               .quarantine_list = fake_quarantine_list,
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
    *op = (struct op){.kind = req->kind, .dirty_fresh_ms = req->dirty_fresh_ms, .done = done, .arg = arg};
    LMO_COPY(op->host, host);
    LMO_COPY(op->id, req->id);
    return 0;
}

static int fake_observe(struct lmo_workers *x, const char *host, const char *path, uint32_t timeout_ms,
                        lmo_observe_done_fn *done, void *arg, struct lmo_err *err)
{
    (void)x, (void)timeout_ms, (void)err;
    ck_assert_uint_lt(w.observation_count, CALLS_MAX);
    struct observation *o = &w.observations[w.observation_count++];
    *o = (struct observation){.done = done, .arg = arg};
    LMO_COPY(o->host, host);
    LMO_COPY(o->path, path);
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

static void begin_with(const struct lmo_migration *open, const struct lmo_quarantine_row *aside)
{
    struct lmo_err err = {0};
    memset(&w, 0, sizeof w);
    if (open) {
        w.open = open;
        w.stored = *open;
        w.has_stored = true;
    }
    if (aside) {
        w.aside = *aside;
    }
    ck_assert_int_eq(lmo_loop_new(64, &w.loop, &err), 0);
    struct lmo_engine_config cfg = {.loop = w.loop, .store = &store};
    ck_assert_int_eq(lmo_engine_new(&cfg, &w.engine, &err), 0);
    ck_assert_int_eq(lmo_engine_start(w.engine, &workers, &err), 0);
    up("hv1");
    up("hv2");
    up("hv3");
}

static void begin(void)
{
    begin_with(NULL, NULL);
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
    const char *id = json_string_value(json_object_get(r->body, "id"));
    LMO_COPY(to->id, id ? id : "");
    char *body = r->body ? json_dumps(r->body, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    (void)snprintf(to->body, sizeof to->body, "%s", body ? body : "");
    free(body);
    json_decref(r->body);
}

static struct lmo_policy policy; /* of the next request */

static void ask_to_move(const char *guest, const char *key)
{
    struct lmo_migrate_request req = {.policy = policy};
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

START_TEST(only_a_prediction_that_decides_waits_for_a_measurement_and_it_is_queued_where_it_says_no)
{
    static const struct { enum lmo_prediction prediction; bool waits; } cases[] = {
        {LMO_PREDICTION_WARN, false}, {LMO_PREDICTION_OFF, false}, {LMO_PREDICTION_REFUSE, true}, {LMO_PREDICTION_QUEUE, true}};
    for (unsigned i = 0; i < 4; i++) {
        policy = (struct lmo_policy){.prediction = cases[i].prediction, .bandwidth_bytes_per_s = 16 << 20};
        started();
        ck_assert_int_eq(pending(LMO_OP_DESCRIBE)->dirty_fresh_ms > 0, cases[i].waits);
        static struct lmo_op_reply reply;
        reply = (struct lmo_op_reply){.state = LMO_OP_DONE, .has_facts = true};
        reply.facts.state = LMO_RUN_RUNNING;
        reply.facts.dirty_bytes_per_s = 60 << 20;
        reply.facts.dirty_age_ms = 1000;
        LMO_COPY(reply.facts.uuid, GUEST_1);
        struct op *op = pending(LMO_OP_DESCRIBE);
        lmo_op_done_fn *done = op->done;
        op->done = NULL;
        done(op->arg, 0, "", &reply);
        run(5);
        ck_assert_int_eq(w.stored.phase, cases[i].prediction == LMO_PREDICTION_QUEUE    ? LMO_PHASE_QUEUED
                                         : cases[i].prediction == LMO_PREDICTION_REFUSE ? LMO_PHASE_ABORTED
                                                                                        : LMO_PHASE_PRECHECK);
        ck_assert_int_eq(w.stored.held_until_ms > 0, cases[i].prediction == LMO_PREDICTION_QUEUE);
        end();
    }
    policy = (struct lmo_policy){0};
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

static void ask_to_move_from(const char *guest, const char *source)
{
    struct lmo_migrate_request req = {0};
    LMO_COPY(req.vm, guest);
    LMO_COPY(req.source, source);
    LMO_COPY(req.destination, "hv2");
    LMO_COPY(req.principal, "operator:ann");
    ck_assert_int_eq(lmo_engine_migrate(w.engine, &req, on_reply, NULL), 0);
    run(5);
}

START_TEST(request_that_names_the_source__asks_only_that_host)
{
    begin();
    ask_to_move_from(GUEST_1, "hv3");
    ck_assert_uint_eq(w.observation_count, 1);
    answer("hv3", GUEST_1);
    run(20);
    ck_assert_uint_eq(w.reply_count, 1);
    ck_assert_uint_eq(w.replies[0].status, 202);
    ck_assert_str_eq(w.stored.source, "hv3");
    ask_to_move_from(GUEST_2, "hv1");
    answer("hv1", NULL); /* it is not there, wherever else it may be */
    run(20);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_int_eq(w.replies[1].code, LMO_E_NOT_FOUND);
    ask_to_move_from(GUEST_2, "hv9");
    ck_assert_uint_eq(w.reply_count, 3);
    ck_assert_int_eq(w.replies[2].code, LMO_E_NOT_FOUND);
    ck_assert_str_eq(w.replies[2].field, "source");
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
    ask_to_move(GUEST_2, "k"); /* refused at once: no host is asked */
    answer("hv1", GUEST_1);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(5);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_int_eq(w.replies[0].code, LMO_E_CONFLICT);
    ck_assert_str_eq(w.replies[0].field, "Idempotency-Key");
    ck_assert_uint_eq(w.replies[1].status, 202);
    end();
}
END_TEST

START_TEST(repeat_while_the_first_is_under_way_is_told_so_and_later_gets_the_firsts_migration)
{
    begin();
    ask_to_move(GUEST_1, "k");
    ask_to_move(GUEST_1, "k");
    answer("hv1", GUEST_1);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(5); /* the first is committed now */
    ask_to_move(GUEST_1, "k");
    ck_assert_uint_eq(w.reply_count, 3);
    ck_assert_int_eq(w.replies[0].code, LMO_E_CONFLICT);
    ck_assert_str_eq(w.replies[0].field, "Idempotency-Key");
    ck_assert_uint_eq(w.replies[1].status, 202);
    ck_assert_uint_eq(w.replies[2].status, 202);
    ck_assert_str_eq(w.replies[1].id, w.replies[2].id);
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
/* ------------------------------------------------------------------ a host that does not answer */

START_TEST(sick_host__forward_calls_are_held_back_and_the_record_says_so)
{
    started();
    for (int i = 0; i < 40 && pending(LMO_OP_DESCRIBE); i++) { /* five tries, then it is given up */
        struct op *op = pending(LMO_OP_DESCRIBE);
        lmo_op_done_fn *done = op->done;
        op->done = NULL;
        done(op->arg, LMO_E_UNKNOWN, "no answer", NULL);
        run(1700);
    }
    ck_assert_int_eq(w.stored.phase, LMO_PHASE_ABORTED);
    unsigned before = w.op_count, asked = w.observation_count;
    ask_to_move(GUEST_1, "");
    ck_assert_uint_gt(w.observation_count, asked);
    answer("hv1", GUEST_1);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(20);
    ck_assert_uint_eq(w.op_count, before); /* decided, stored, not sent */
    ck_assert_int_eq(w.stored.phase, LMO_PHASE_PRECHECK);
    ck_assert_ptr_nonnull(strstr(w.stored.waiting_for, "held back"));
    up("hv1"); /* heard of again: one call tries at once */
    run(20);
    ck_assert_uint_eq(w.op_count, before + 1);
    ck_assert_ptr_nonnull(pending(LMO_OP_DESCRIBE));
    end();
}
END_TEST

/* ------------------------------------------------------------------ records that cannot be stored or read */

START_TEST(record_that_can_never_be_stored__fails_alone_and_all_others_go_on)
{
    started();
    w.poison = GUEST_2;
    ask_to_move(GUEST_2, "");
    answer("hv1", GUEST_2);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(5);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_int_eq(w.replies[1].code, LMO_E_TOO_LARGE);
    ck_assert_str_eq(w.aside.migration, ""); /* it never was there: nothing is blocked by it */
    says("hv1", LMO_WEV_JOB_END, 1);
    run(5);
    ck_assert_uint_eq(w.acknowledged, 1);
    end();
}
END_TEST

START_TEST(open_record_that_cannot_be_stored_any_more__is_set_aside_and_blocks_its_guest_alone)
{
    started();
    w.poison = GUEST_1;
    says("hv1", LMO_WEV_JOB_END, 1);
    run(5);
    ck_assert_str_eq(w.aside.migration, w.stored.id);
    ck_assert_uint_eq(w.acknowledged, 1); /* the host's events go on */
    unsigned ops = w.op_count;
    w.poison = NULL;
    ask_to_move(GUEST_1, "");
    answer("hv1", GUEST_1);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(5);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_int_eq(w.replies[1].code, LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(w.replies[1].text, "set aside"));
    ck_assert_uint_eq(w.op_count, ops); /* nothing is done about it */
    end();
}
END_TEST

START_TEST(guest_of_a_record_that_could_not_be_read__takes_no_other_migration)
{
    struct lmo_quarantine_row row = {.migration = "01J00000000000000000000009", .vm_uuid = GUEST_1, .why = "epoch is 0"};
    begin_with(NULL, &row);
    ask_to_move(GUEST_1, "");
    answer("hv1", GUEST_1);
    answer("hv2", NULL);
    answer("hv3", NULL);
    run(5);
    ck_assert_int_eq(w.replies[0].code, LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(w.replies[0].text, row.migration));
    end();
}
END_TEST

START_TEST(audit_line__is_stored_no_later_than_what_it_speaks_of)
{
    struct lmo_audit_line line = {.request = "r1", .outcome = "asked"};
    begin();
    ck_assert_int_eq(lmo_engine_audit(w.engine, &line), 0);
    ask_to_move(GUEST_1, "");
    run(5);
    ck_assert_uint_eq(w.audits_stored, 1); /* with nothing else to store, too */
    ck_assert_int_gt(w.audit[0].at_ms, 0);
    end();
}
END_TEST

/* ------------------------------------------------------------------ a person's decision, the doctor's */

static struct lmo_migration at_rest(void)
{
    struct lmo_migration m = {.version = 7, .epoch = 32, .phase = LMO_PHASE_ATTENTION, .failed_in = LMO_PHASE_CUTOVER,
                              .reason_code = LMO_E_TIMEOUT, .reason = "why", .next_ordinal = 9};
    LMO_COPY(m.id, "01J00000000000000000000000");
    LMO_COPY(m.source, "hv1");
    LMO_COPY(m.destination, "hv2");
    LMO_COPY(m.vm.uuid, GUEST_1);
    m.dispatched = UINT64_C(1) << LMO_OP_PREPARE | UINT64_C(1) << LMO_OP_PERMIT | UINT64_C(1) << LMO_OP_JOB_START;
    lmo_resources_derive(&m);
    return m;
}

/* Answers every question that is open: the guest is where `states` says, workers' records stand at `stage` on hv2. */
static void answer_all(enum lmo_run_state hv1, enum lmo_run_state hv2, const char *stage)
{
    for (unsigned i = 0; i < w.observation_count; i++) {
        struct observation o = w.observations[i];
        enum lmo_run_state state = strcmp(o.host, "hv1") == 0 ? hv1 : strcmp(o.host, "hv2") == 0 ? hv2 : LMO_RUN_ABSENT;
        struct lmo_vm_facts facts = {.state = state};
        json_t *body = NULL;
        if (!o.done) {
            continue;
        }
        w.observations[i].done = NULL;
        LMO_COPY(facts.uuid, GUEST_1);
        LMO_COPY(facts.name, "g");
        if (strstr(o.path, "/migrations")) {
            body = strcmp(o.host, "hv2") == 0 && stage[0]
                       ? json_pack("{s:[{s:s,s:s,s:i,s:s,s:s}]}", "migrations", "migration", "01J00000000000000000000000", "vm",
                                   GUEST_1, "epoch", 32, "role", "destination", "stage", stage)
                       : json_pack("{s:[]}", "migrations");
        } else if (strstr(o.path, "/vms")) {
            body = state == LMO_RUN_ABSENT ? json_pack("{s:[]}", "vms") : json_pack("{s:[o]}", "vms", lmo_vm_facts_to_json(&facts));
        } else if (state != LMO_RUN_ABSENT) {
            body = lmo_vm_facts_to_json(&facts);
        }
        o.done(o.arg, body ? 0 : LMO_E_NOT_FOUND, body ? "" : "no such guest", body);
        json_decref(body);
    }
}

static void decide(enum lmo_resolution r)
{
    ck_assert_int_eq(lmo_engine_migration_resolve(w.engine, "01J00000000000000000000000", r, "I looked", "operator:test",
                                                  on_reply, NULL), 0);
    run(5);
}

START_TEST(decision__is_judged_by_what_was_seen_right_before_it)
{
    struct lmo_migration m = at_rest();
    begin_with(&m, NULL);
    decide(LMO_RESOLVE_GUEST_AT_SOURCE);
    ck_assert_uint_eq(w.reply_count, 0); /* first it is looked at: both guests, both records */
    ck_assert_uint_eq(w.observation_count, 4);
    answer_all(LMO_RUN_RUNNING, LMO_RUN_LOADED, "asking");
    run(5);
    ck_assert_int_eq(w.replies[0].code, LMO_E_CONFLICT);
    ck_assert_uint_eq(w.op_count, 0);
    decide(LMO_RESOLVE_GUEST_AT_SOURCE);
    answer_all(LMO_RUN_RUNNING, LMO_RUN_ABSENT, "discarded");
    run(5);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_int_eq(w.replies[1].code, 0);
    ck_assert_uint_eq(w.replies[1].status, 202);
    ck_assert_int_eq(w.stored.phase, LMO_PHASE_ROLLBACK);
    ck_assert_ptr_nonnull(pending(LMO_OP_JOB_ABORT));
    end();
}
END_TEST

START_TEST(decision_about_a_host_that_does_not_answer__is_refused_as_unknown)
{
    struct lmo_migration m = at_rest();
    begin_with(&m, NULL);
    decide(LMO_RESOLVE_GUEST_AT_SOURCE);
    for (unsigned i = 0; i < w.observation_count; i++) {
        struct observation o = w.observations[i];
        w.observations[i].done = NULL;
        o.done(o.arg, LMO_E_TIMEOUT, "no answer", NULL);
    }
    run(5);
    ck_assert_int_eq(w.replies[0].code, LMO_E_UNAVAILABLE);
    decide(LMO_RESOLVE_ABANDON); /* needs no look: it touches nothing */
    for (unsigned i = 0; i < w.observation_count; i++) {
        struct observation o = w.observations[i];
        if (o.done) {
            w.observations[i].done = NULL;
            o.done(o.arg, LMO_E_TIMEOUT, "no answer", NULL);
        }
    }
    run(5);
    ck_assert_int_eq(w.replies[1].code, 0);
    ck_assert_int_eq(w.stored.phase, LMO_PHASE_ABANDONED);
    ck_assert_ptr_nonnull(strstr(w.stored.reason, "operator:test: I looked"));
    end();
}
END_TEST

START_TEST(doctor__tells_a_resting_record_what_has_happened_and_notes_it)
{
    struct lmo_migration m = at_rest();
    begin_with(&m, NULL);
    ck_assert_int_eq(lmo_engine_doctor(w.engine, false, "operator:test", on_reply, NULL), 0);
    run(5);
    answer_all(LMO_RUN_ABSENT, LMO_RUN_RUNNING, "resumed");
    run(5);
    ck_assert_uint_eq(w.reply_count, 1);
    ck_assert_ptr_nonnull(strstr(w.replies[0].body, "waits_for_the_past"));
    ck_assert_int_eq(w.stored.phase, LMO_PHASE_ATTENTION); /* it only looked */
    ck_assert_int_eq(lmo_engine_doctor(w.engine, true, "operator:test", on_reply, NULL), 0);
    run(5);
    answer_all(LMO_RUN_ABSENT, LMO_RUN_RUNNING, "resumed");
    run(5);
    answer_all(LMO_RUN_ABSENT, LMO_RUN_RUNNING, "resumed"); /* everything anew after the repair */
    run(5);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_ptr_nonnull(strstr(w.replies[1].body, "tell_resumed"));
    ck_assert_ptr_nonnull(strstr(w.replies[1].body, "\"findings\":[]"));
    ck_assert_int_eq(w.stored.phase, LMO_PHASE_FINALIZE);
    ck_assert_uint_eq(w.audit_count, 1);
    ck_assert_str_eq(w.audit[0].principal, "operator:test");
    ck_assert_uint_eq(w.audits_stored, 1);
    end();
}
END_TEST

START_TEST(doctor__says_which_host_it_could_not_look_at)
{
    begin();
    const struct lmo_workers_callbacks *cb = lmo_engine_callbacks(w.engine);
    cb->host_state(cb->arg, "hv2", NULL, "connection refused");
    ck_assert_int_eq(lmo_engine_doctor(w.engine, false, "operator:test", on_reply, NULL), 0);
    run(5);
    ck_assert_int_eq(lmo_engine_doctor(w.engine, false, "operator:test", on_reply, NULL), 0);
    run(5);
    ck_assert_int_eq(w.replies[0].code, LMO_E_BUSY); /* one at a time */
    answer_all(LMO_RUN_RUNNING, LMO_RUN_ABSENT, "");
    run(5);
    ck_assert_uint_eq(w.reply_count, 2);
    ck_assert_ptr_nonnull(strstr(w.replies[1].body, "host_not_seen"));
    ck_assert_ptr_nonnull(strstr(w.replies[1].body, "connection refused"));
    end();
}
END_TEST

Suite *engine_suite(void)
{
    Suite *s = suite_create("engine");
    TCase *t = tcase_create("engine");
    tcase_set_timeout(t, 20);
    tcase_add_test(t, request_is_answered_and_its_first_call_sent_only_after_the_commit);
    tcase_add_test(t, event_is_acknowledged_only_after_the_commit_of_what_followed);
    tcase_add_test(t, only_a_prediction_that_decides_waits_for_a_measurement_and_it_is_queued_where_it_says_no);
    tcase_add_test(t, worker_that_is_no_part_of_a_migration_decides_nothing_about_it);
    tcase_add_test(t, request_that_names_the_source__asks_only_that_host);
    tcase_add_test(t, two_requests_for_one_guest_that_are_resolved_together_make_one_migration);
    tcase_add_test(t, one_key_for_two_guests_at_the_same_time_starts_one_migration);
    tcase_add_test(t, repeat_while_the_first_is_under_way_is_told_so_and_later_gets_the_firsts_migration);
    tcase_add_test(t, host_that_is_removed_while_a_guest_on_it_is_looked_for_is_not_moved_from);
    tcase_add_test(t, request_that_could_not_be_committed_before_the_stop_is_refused_once);
    suite_add_tcase(s, t);
    t = tcase_create("recovery");
    tcase_set_timeout(t, 30);
    tcase_add_test(t, sick_host__forward_calls_are_held_back_and_the_record_says_so);
    tcase_add_test(t, record_that_can_never_be_stored__fails_alone_and_all_others_go_on);
    tcase_add_test(t, open_record_that_cannot_be_stored_any_more__is_set_aside_and_blocks_its_guest_alone);
    tcase_add_test(t, guest_of_a_record_that_could_not_be_read__takes_no_other_migration);
    tcase_add_test(t, audit_line__is_stored_no_later_than_what_it_speaks_of);
    tcase_add_test(t, decision__is_judged_by_what_was_seen_right_before_it);
    tcase_add_test(t, decision_about_a_host_that_does_not_answer__is_refused_as_unknown);
    tcase_add_test(t, doctor__tells_a_resting_record_what_has_happened_and_notes_it);
    tcase_add_test(t, doctor__says_which_host_it_could_not_look_at);
    suite_add_tcase(s, t);
    return s;
}
