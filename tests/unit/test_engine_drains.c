/* test_engine_drains.c - drains through the real engine and the real store, with workers that do as they are told: what is moved,
 * what is not and why, and that a restart at any commit neither loses nor repeats anything.
 *
 * Guests are shut off, so that a move is a handful of calls without a guest's events; what a drain does about them is the same. */
#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "engine/drains.h"
#include "engine/engine.h"
#include "proto/vm.h"
#include "tmpdir.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

Suite *engine_drains_suite(void);

#define HOSTS     4
#define GUESTS    6
#define CALLS_MAX 256
#define GIB       (UINT64_C(1) << 30)

struct fguest {
    char uuid[LMO_UUID_MAX], name[16];
    unsigned host; /* HOSTS: nowhere, in between */
    bool running;
    const char *blocker, *kinds;
    unsigned defined, released; /* how often */
    char migration[LMO_ID_MAX]; /* that described it last */
    unsigned migrations;        /* different ones */
};

struct call {
    bool used, observe;
    unsigned host;
    char path[96];
    enum lmo_op_kind kind;
    char vm[LMO_UUID_MAX];
    lmo_op_done_fn *op_done;
    lmo_observe_done_fn *observe_done;
    void *arg;
    uint64_t timer;
};

static struct {
    char dir[TMPDIR_MAX];
    struct lmo_loop *loop;
    struct lmo_store *store;
    struct lmo_engine *engine;
    struct fguest guests[GUESTS];
    unsigned guest_count;
    bool down[HOSTS];
    int refuses[HOSTS]; /* the code with which it refuses every guest; 0: takes them */
    unsigned boots[HOSTS];
    bool hold;                  /* moves do not get beyond their description */
    unsigned crash_at, commits; /* the engine is dead from this commit on */
    bool crashed;
    bool restored;              /* the store is a backup that was put back */
    unsigned ops;               /* orders to workers */
    struct call calls[CALLS_MAX];
    /* client */
    bool answered;
    int code;
    unsigned status;
    char text[LMO_ERR_TEXT_MAX], field[32];
    json_t *body;
} w;

static const struct lmo_store_ops *real;
static struct lmo_store_ops wrapped;
static struct lmo_limits limits;

/* ------------------------------------------------------------------ workers */

static unsigned host_index(const char *name)
{
    return (unsigned)(name[2] - '1');
}

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
    (void)x, (void)host, (void)cursor;
}

static struct fguest *guest_of(const char *uuid)
{
    for (unsigned i = 0; i < w.guest_count; i++) {
        if (strcmp(w.guests[i].uuid, uuid) == 0) {
            return &w.guests[i];
        }
    }
    ck_abort_msg("no guest %s", uuid);
}

static void facts_of(const struct fguest *g, struct lmo_vm_facts *ret)
{
    memset(ret, 0, sizeof *ret);
    LMO_COPY(ret->uuid, g->uuid);
    LMO_COPY(ret->name, g->name);
    ret->state = g->running ? LMO_RUN_RUNNING : LMO_RUN_SHUT_OFF;
    ret->persistent = true;
    ret->memory_bytes = GIB;
    ret->vcpus = 1;
    if (g->blocker) {
        LMO_COPY(ret->blocker, g->blocker);
        LMO_COPY(ret->blocker_kinds, g->kinds);
    }
}

static void host_facts(unsigned host, struct lmo_host_facts *ret)
{
    memset(ret, 0, sizeof *ret);
    snprintf(ret->host, sizeof ret->host, "hv%u", host + 1);
    snprintf(ret->boot, sizeof ret->boot, "boot%u", w.boots[host]);
    LMO_COPY(ret->hypervisor, "fake");
    ret->memory_total_bytes = ret->memory_free_bytes = 64 * GIB;
    ret->link_count = 1;
    LMO_COPY(ret->links[0].name, "migration");
    LMO_COPY(ret->links[0].address, "10.1.0.1");
    ret->links[0].rate_bytes_per_s = GIB;
}

static json_t *list_of(unsigned host)
{
    json_t *root = json_object(), *vms = json_array();
    for (unsigned i = 0; i < w.guest_count; i++) {
        static struct lmo_vm_facts facts;
        if (w.guests[i].host == host) {
            facts_of(&w.guests[i], &facts);
            json_array_append_new(vms, lmo_vm_facts_to_json(&facts));
        }
    }
    json_object_set_new(root, "vms", vms);
    return root;
}

static void answer_observation(struct call *c)
{
    struct lmo_host_facts facts;
    json_t *body = NULL;
    if (strcmp(c->path, "/v1/observe/host") == 0) {
        host_facts(c->host, &facts);
        body = lmo_host_facts_to_json(&facts);
    } else if (strcmp(c->path, "/v1/observe/vms") == 0) {
        body = list_of(c->host);
    } else if (strcmp(c->path, "/healthz") == 0 || strcmp(c->path, "/v1/observe/volumes") == 0 ||
               strcmp(c->path, "/v1/observe/migrations") == 0) { /* looked at after a restore; not shown */
        c->observe_done(c->arg, LMO_E_UNAVAILABLE, "not here", NULL);
        return;
    } else {
        const char *uuid = strrchr(c->path, '/') + 1;
        static struct lmo_vm_facts vm;
        const struct fguest *g = guest_of(uuid);
        if (g->host == c->host) {
            facts_of(g, &vm);
            body = lmo_vm_facts_to_json(&vm);
        }
    }
    c->observe_done(c->arg, body ? 0 : LMO_E_NOT_FOUND, body ? "" : "no such guest", body);
    json_decref(body);
}

static void answer_op(struct call *c)
{
    static struct lmo_op_reply reply;
    struct fguest *g = guest_of(c->vm);
    reply = (struct lmo_op_reply){.state = LMO_OP_DONE, .realtime_us = 1};
    if (c->kind == LMO_OP_DESCRIBE) {
        reply.has_facts = true;
        facts_of(g, &reply.facts);
        reply.xml = (char *)"<domain/>";
    } else if (c->kind == LMO_OP_PRECHECK_INCOMING && w.refuses[c->host] < 0) {
        reply.state = LMO_OP_FAILED;
        reply.code = w.refuses[c->host];
        LMO_COPY(reply.text, "it does not fit here");
    } else if (c->kind == LMO_OP_RELEASE) {
        g->released++;
        g->host = g->host == c->host ? HOSTS : g->host;
    } else if (c->kind == LMO_OP_DEFINE) {
        g->defined++;
        g->host = c->host;
    }
    c->op_done(c->arg, 0, "", &reply);
}

static void answer(void *arg)
{
    struct call c = *(struct call *)arg;
    *(struct call *)arg = (struct call){0};
    if (w.down[c.host] && c.observe) {
        c.observe_done(c.arg, LMO_E_UNAVAILABLE, "no route to it", NULL);
    } else if (w.down[c.host]) {
        c.op_done(c.arg, LMO_E_UNAVAILABLE, "no route to it", NULL);
    } else if (c.observe) {
        answer_observation(&c);
    } else {
        answer_op(&c);
    }
}

static bool is_held(const struct call *c)
{
    return w.hold && !c->observe && c->kind == LMO_OP_DESCRIBE;
}

static struct call *new_call(const char *host, void *arg)
{
    for (unsigned i = 0; i < CALLS_MAX; i++) {
        if (!w.calls[i].used) {
            w.calls[i] = (struct call){.used = true, .host = host_index(host), .arg = arg};
            return &w.calls[i];
        }
    }
    ck_abort_msg("too many calls");
}

static void soon(struct call *c)
{
    if (!w.crashed && !is_held(c)) {
        ck_assert_int_eq(lmo_loop_timer(w.loop, 0, answer, c, &c->timer), 0);
    }
}

static int fake_op(struct lmo_workers *x, const char *host, const struct lmo_op_request *req, uint32_t timeout_ms,
                   lmo_op_done_fn *done, void *arg, struct lmo_err *err)
{
    (void)x, (void)timeout_ms, (void)err;
    struct call *c = new_call(host, arg);
    c->kind = req->kind;
    c->op_done = done;
    LMO_COPY(c->vm, req->vm);
    w.ops++;
    if (req->kind == LMO_OP_DESCRIBE) {
        struct fguest *g = guest_of(req->vm);
        g->migrations += strcmp(g->migration, req->migration) != 0;
        LMO_COPY(g->migration, req->migration);
    }
    soon(c);
    return 0;
}

static int fake_observe(struct lmo_workers *x, const char *host, const char *path, uint32_t timeout_ms,
                        lmo_observe_done_fn *done, void *arg, struct lmo_err *err)
{
    (void)x, (void)timeout_ms, (void)err;
    struct call *c = new_call(host, arg);
    c->observe = true;
    c->observe_done = done;
    LMO_COPY(c->path, path);
    soon(c);
    return 0;
}

static const struct lmo_workers_ops workers_ops = {.host_add = fake_host_add,
                                                   .host_remove = fake_host_remove,
                                                   .acknowledge = fake_acknowledge,
                                                   .op = fake_op,
                                                   .observe = fake_observe};
static struct lmo_workers workers = {.ops = &workers_ops};

/* ------------------------------------------------------------------ the store, and a crash at a commit */

static void stop_loop(void *arg)
{
    lmo_loop_stop(arg);
}

/* Dead before the commit: what it would have stored is lost. */
static int crashing_commit(struct lmo_store *s, const struct lmo_commit_item *items, unsigned count,
                           const struct lmo_commit_cursor *cursors, unsigned cursor_count, struct lmo_err *err)
{
    if (w.crashed || (w.crash_at > 0 && ++w.commits >= w.crash_at)) {
        w.crashed = true;
        lmo_loop_stop(w.loop);
        return lmo_fail(err, LMO_E_IO, "dead");
    }
    return real->commit(s, items, count, cursors, cursor_count, err);
}

static bool is_restored(const struct lmo_store *s, int64_t *ret_made_ms)
{
    (void)s;
    *ret_made_ms = 1;
    return w.restored;
}

static int activate(struct lmo_store *s, struct lmo_err *err)
{
    (void)s, (void)err;
    w.restored = false;
    return 0;
}

/* ------------------------------------------------------------------ driving it */

static void run(uint64_t ms)
{
    uint64_t timer;
    ck_assert_int_eq(lmo_loop_timer(w.loop, ms, stop_loop, w.loop, &timer), 0);
    ck_assert_int_eq(lmo_loop_run(w.loop), 0);
    lmo_loop_cancel(w.loop, &timer);
}

static void host_state(unsigned host)
{
    const struct lmo_workers_callbacks *cb = lmo_engine_callbacks(w.engine);
    struct lmo_host_facts facts;
    char name[8];
    snprintf(name, sizeof name, "hv%u", host + 1);
    host_facts(host, &facts);
    cb->host_state(cb->arg, name, w.down[host] ? NULL : &facts, "no route to it");
}

static void open_engine(void)
{
    struct lmo_err err = {0};
    ck_assert_msg(lmo_store_sqlite_open(w.dir, &w.store, &err) == 0, "%s", err.text);
    real = w.store->ops;
    wrapped = *real;
    wrapped.commit = crashing_commit;
    wrapped.restored = is_restored;
    wrapped.activate = activate;
    w.store->ops = &wrapped;
    ck_assert_int_eq(lmo_loop_new(256, &w.loop, &err), 0);
    lmo_limits_default(&limits);
    limits.memory_keep_free_bytes = 0;
    struct lmo_engine_config cfg = {.loop = w.loop, .store = w.store, .limits = &limits};
    ck_assert_int_eq(lmo_engine_new(&cfg, &w.engine, &err), 0);
    ck_assert_msg(lmo_engine_start(w.engine, &workers, &err) == 0, "%s", err.text);
    for (unsigned i = 0; i < HOSTS; i++) {
        host_state(i);
    }
}

static void close_engine(void)
{
    lmo_engine_stop(w.engine);
    for (unsigned i = 0; i < CALLS_MAX; i++) {
        struct call c = w.calls[i];
        w.calls[i] = (struct call){0};
        if (c.used) {
            lmo_loop_cancel(w.loop, &c.timer);
        }
        if (c.used && c.observe) {
            c.observe_done(c.arg, LMO_E_UNKNOWN, "", NULL);
        } else if (c.used) {
            c.op_done(c.arg, LMO_E_UNKNOWN, "", NULL);
        }
    }
    w.engine = lmo_engine_free(w.engine);
    w.loop = lmo_loop_free(w.loop);
    w.store->ops = real;
    w.store->ops->close(w.store);
}

static void begin(unsigned guests)
{
    struct lmo_err err = {0};
    memset(&w, 0, sizeof w);
    tmpdir_make(w.dir, "drains");
    struct lmo_store *store;
    ck_assert_int_eq(lmo_store_sqlite_open(w.dir, &store, &err), 0);
    for (unsigned i = 0; i < HOSTS; i++) {
        struct lmo_host_row row = {.url = "https://127.0.0.1:1"};
        snprintf(row.name, sizeof row.name, "hv%u", i + 1);
        ck_assert_int_eq(store->ops->host_put(store, &row, &err), 0);
    }
    store->ops->close(store);
    w.guest_count = guests;
    for (unsigned i = 0; i < guests; i++) {
        snprintf(w.guests[i].uuid, sizeof w.guests[i].uuid, "%08u-0000-4000-8000-000000000000", i + 1);
        snprintf(w.guests[i].name, sizeof w.guests[i].name, "g%u", i + 1);
    }
    open_engine();
}

static void end(void)
{
    close_engine();
    json_decref(w.body);
    tmpdir_remove(w.dir);
}

static void on_reply(void *arg, const struct lmo_engine_reply *r)
{
    (void)arg;
    w.answered = true;
    w.code = r->code;
    w.status = r->http_status;
    LMO_COPY(w.text, r->text);
    LMO_COPY(w.field, r->field);
    json_decref(w.body);
    w.body = r->body;
}

static void asked(int r)
{
    ck_assert_int_eq(r, 0);
    w.answered = false;
    for (unsigned i = 0; i < 2000 && !w.answered && !w.crashed; i++) {
        run(5);
    }
    ck_assert(w.answered || w.crashed);
}

static struct lmo_drain_request request; /* of the next drain, but for its hosts */

static void drain(const char *hosts)
{
    struct lmo_drain_request q = request;
    char text[128];
    LMO_COPY(q.principal, "operator:test");
    LMO_COPY(text, hosts);
    q.hosts = calloc(HOSTS, sizeof *q.hosts);
    for (char *save = NULL, *name = strtok_r(text, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
        LMO_COPY(q.hosts[q.host_count++], name);
    }
    asked(lmo_engine_drain(w.engine, &q, on_reply, NULL));
}

static const char *text_in(const json_t *o, const char *field)
{
    const char *t = json_string_value(json_object_get(o, field));
    return t ? t : "";
}

static char id[LMO_ID_MAX];

static void accepted(const char *hosts)
{
    drain(hosts);
    ck_assert_msg(w.code == 0 && w.status == 202, "%s", w.text);
    LMO_COPY(id, text_in(w.body, "id"));
}

static const char *look(void)
{
    asked(lmo_engine_drain_get(w.engine, id, 0, 0, on_reply, NULL));
    ck_assert_msg(w.code == 0, "%s", w.text);
    return text_in(w.body, "state");
}

static bool is_over(const char *state)
{
    return lmo_drain_is(lmo_drain_state_from_text(state), LMO_DRAIN_TERMINAL);
}

/* Waits until it has that state, or has ended. */
static void until(const char *state)
{
    for (unsigned i = 0; i < 1500; i++) {
        const char *now = look();
        if (strcmp(now, state) == 0) {
            return;
        }
        ck_assert_msg(!is_over(now), "it is %s, not %s: %s", now, state, text_in(w.body, "reason"));
        run(10);
    }
    char *text = json_dumps(w.body, JSON_INDENT(1));
    ck_abort_msg("it never was %s: %s", state, text);
}

static const json_t *guest_in_drain(const char *name)
{
    const json_t *g;
    size_t i;
    json_array_foreach(json_object_get(w.body, "guests"), i, g)
    {
        if (strcmp(text_in(g, "name"), name) == 0) {
            return g;
        }
    }
    ck_abort_msg("no guest %s in the drain", name);
}

static void until_guest(const char *name, const char *state)
{
    for (unsigned i = 0; i < 1500; i++) {
        (void)look();
        if (strcmp(text_in(guest_in_drain(name), "state"), state) == 0) {
            return;
        }
        run(10);
    }
    ck_abort_msg("%s is %s, never %s: %s", name, text_in(guest_in_drain(name), "state"), state,
                 text_in(guest_in_drain(name), "reason"));
}

static void act(enum lmo_drain_act what, const char *host)
{
    asked(lmo_engine_drain_act(w.engine, id, what, host, "operator:test", on_reply, NULL));
}

static void host_json(const char *name)
{
    asked(lmo_engine_host_get(w.engine, name, on_reply, NULL));
    ck_assert_int_eq(w.code, 0);
}

static bool cordoned(const char *name)
{
    host_json(name);
    return json_is_object(json_object_get(w.body, "cordon"));
}

static void release(void)
{
    w.hold = false;
    for (unsigned i = 0; i < CALLS_MAX; i++) {
        if (w.calls[i].used && w.calls[i].timer == 0) {
            soon(&w.calls[i]);
        }
    }
}

/* ------------------------------------------------------------------ tests */

START_TEST(drain_moves_everything_and_keeps_the_host_cordoned)
{
    begin(4);
    accepted("hv1");
    ck_assert(cordoned("hv1"));
    until("drained");
    ck_assert_int_eq(json_integer_value(json_object_get(w.body, "percent")), 100);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_ne(w.guests[i].host, 0);
        ck_assert_uint_ne(w.guests[i].host, HOSTS);
        ck_assert_uint_eq(w.guests[i].defined, 1);
        ck_assert_str_eq(text_in(guest_in_drain(w.guests[i].name), "state"), "moved");
    }
    ck_assert(cordoned("hv1"));
    asked(lmo_engine_host_cordon(w.engine, "hv1", false, "", "operator:test", on_reply, NULL));
    ck_assert_int_eq(w.code, 0);
    ck_assert(!cordoned("hv1"));
    end();
}
END_TEST

START_TEST(second_request_returns_the_first__another_one_for_the_same_host_is_refused)
{
    begin(3);
    w.hold = true;
    accepted("hv1");
    drain("hv1");
    ck_assert_uint_eq(w.status, 202);
    ck_assert_str_eq(text_in(w.body, "id"), id);
    drain("hv1 hv2");
    ck_assert_int_eq(w.code, LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(w.text, id));
    asked(lmo_engine_host_cordon(w.engine, "hv1", false, "", "operator:test", on_reply, NULL));
    ck_assert_int_eq(w.code, LMO_E_CONFLICT); /* the drain keeps it */
    asked(lmo_engine_host_remove(w.engine, "hv1", on_reply, NULL));
    ck_assert_int_eq(w.code, LMO_E_CONFLICT);
    release();
    until("drained");
    ck_assert_uint_eq(w.guests[0].migrations, 1);
    end();
}
END_TEST

START_TEST(a_restored_store__is_looked_at_and_its_drains_rest_until_it_is_activated_and_are_paused_then)
{
    begin(1);
    asked(lmo_engine_vm_lease_set(w.engine, w.guests[0].uuid, "resizing it", 3600, "control-plane:cp", on_reply, NULL));
    ck_assert_int_eq(w.code, 0);
    accepted("hv1");
    until("waiting");
    close_engine();
    w.restored = true;
    w.ops = 0;
    open_engine();
    (void)look();
    json_int_t version = json_integer_value(json_object_get(w.body, "version"));
    run(LMO_DRAIN_LOOK_MS + 500); /* a drain that acts would have looked after its guest */
    (void)look();
    ck_assert_int_eq(json_integer_value(json_object_get(w.body, "version")), version);
    ck_assert(cordoned("hv1"));
    act(LMO_DRAIN_ACT_CANCEL, "");
    ck_assert_int_eq(w.code, LMO_E_CONFLICT);
    drain("hv2");
    ck_assert_int_eq(w.code, LMO_E_CONFLICT);
    asked(lmo_engine_host_cordon(w.engine, "hv2", true, "", "operator:test", on_reply, NULL));
    ck_assert_int_eq(w.code, LMO_E_CONFLICT);
    asked(lmo_engine_vm_explain(w.engine, "g1", 0, on_reply, NULL)); /* a question */
    ck_assert_int_eq(w.code, 0);
    ck_assert_uint_eq(w.ops, 0);
    asked(lmo_engine_restore(w.engine, true, true, "operator:test", on_reply, NULL));
    ck_assert_msg(w.code == 0 && !w.restored, "%s", w.text);
    until("paused");
    ck_assert_ptr_nonnull(strstr(text_in(w.body, "waiting_for"), "restored from a backup"));
    ck_assert_uint_eq(w.ops, 0);
    asked(lmo_engine_vm_lease_set(w.engine, w.guests[0].uuid, "", 0, "control-plane:cp", on_reply, NULL));
    act(LMO_DRAIN_ACT_RESUME, "");
    ck_assert_int_eq(w.code, 0);
    until("drained");
    ck_assert_uint_eq(w.guests[0].migrations, 1);
    end();
}
END_TEST

START_TEST(what_is_carried_out_is_what_was_printed)
{
    begin(4);
    lmo_engine_ask(&(struct lmo_ask){.dry_run = true});
    drain("hv1");
    lmo_engine_ask(NULL);
    ck_assert_msg(w.code == 0 && w.status == 200, "%s", w.text);
    LMO_AUTO_JSON json_t *plan = json_incref(json_object_get(w.body, "result"));
    ck_assert_uint_eq(json_array_size(json_object_get(plan, "moves")), 4);
    ck_assert(!cordoned("hv1")); /* nothing was done */
    LMO_COPY(request.plan, text_in(plan, "plan"));
    accepted("hv1");
    until("drained");
    const json_t *m;
    size_t i;
    json_array_foreach(json_object_get(plan, "moves"), i, m)
    {
        const json_t *g = guest_in_drain(text_in(m, "name"));
        ck_assert_str_eq(text_in(g, "destination"), text_in(m, "to"));
        ck_assert_int_eq(json_integer_value(json_object_get(g, "order")), (json_int_t)i);
    }
    w.guests[0].host = 1; /* hv2 has another guest now */
    drain("hv2");
    ck_assert_int_eq(w.code, LMO_E_CONFLICT);
    ck_assert_str_eq(w.field, "plan");
    request.plan[0] = '\0';
    end();
}
END_TEST

static void migrate(const char *vm, const char *to, bool force)
{
    struct lmo_migrate_request req = {.policy.force = force};
    LMO_COPY(req.vm, vm);
    LMO_COPY(req.destination, to);
    LMO_COPY(req.principal, "operator:test");
    asked(lmo_engine_migrate(w.engine, &req, on_reply, NULL));
}

START_TEST(cordoned_host_is_no_destination__of_a_drain_or_of_a_migration_without_force)
{
    begin(3);
    for (unsigned h = 1; h < 3; h++) {
        char name[8];
        snprintf(name, sizeof name, "hv%u", h + 1);
        asked(lmo_engine_host_cordon(w.engine, name, true, "disk is dying", "operator:test", on_reply, NULL));
        ck_assert_int_eq(w.code, 0);
    }
    migrate(w.guests[0].uuid, "hv2", false);
    ck_assert_int_eq(w.code, LMO_E_REFUSED);
    ck_assert_str_eq(w.field, "destination");
    ck_assert_ptr_nonnull(strstr(w.text, "disk is dying"));
    migrate(w.guests[0].uuid, "hv2", true);
    ck_assert_int_eq(w.code, 0);
    for (unsigned i = 0; i < 500 && w.guests[0].host != 1; i++) {
        run(5);
    }
    ck_assert_uint_eq(w.guests[0].host, 1);
    run(50);
    close_engine();
    open_engine(); /* the cordon is in the store */
    ck_assert(cordoned("hv2"));
    accepted("hv1");
    until("drained");
    ck_assert_uint_eq(w.guests[1].host, 3); /* the only one that is left */
    ck_assert_uint_eq(w.guests[2].host, 3);
    end();
}
END_TEST

START_TEST(cordon_is_looked_at_again_when_the_migration_would_begin__and_the_guest_goes_elsewhere)
{
    begin(1);
    for (unsigned h = 2; h < 4; h++) { /* so that the plan can only say hv2 */
        char name[8];
        snprintf(name, sizeof name, "hv%u", h + 1);
        asked(lmo_engine_host_cordon(w.engine, name, true, "", "operator:test", on_reply, NULL));
    }
    const struct lmo_host_limits none = {.given = LMO_HOST_LIMIT_OUTGOING};
    asked(lmo_engine_host_limits(w.engine, "hv1", &none, 0, on_reply, NULL)); /* nothing may leave hv1 for now */
    accepted("hv1");
    until_guest("g1", "moving");
    ck_assert_str_eq(text_in(guest_in_drain("g1"), "destination"), "hv2");
    ck_assert_ptr_nonnull(strstr(text_in(guest_in_drain("g1"), "waiting_for"), "outgoing slot"));
    asked(lmo_engine_host_cordon(w.engine, "hv3", false, "", "operator:test", on_reply, NULL));
    asked(lmo_engine_host_cordon(w.engine, "hv2", true, "too late", "operator:test", on_reply, NULL));
    asked(
        lmo_engine_host_limits(w.engine, "hv1", &(struct lmo_host_limits){0}, LMO_HOST_LIMIT_OUTGOING, on_reply, NULL));
    until("drained");
    ck_assert_uint_eq(w.guests[0].host, 2);
    ck_assert_uint_eq(w.guests[0].defined, 1);
    end();
}
END_TEST

START_TEST(cancel_ends_the_children__leaves_the_guests_and_lifts_the_cordon)
{
    begin(4);
    w.hold = true;
    accepted("hv1");
    until_guest("g1", "moving");
    act(LMO_DRAIN_ACT_CANCEL, "");
    ck_assert_int_eq(w.code, 0);
    ck_assert_str_eq(text_in(w.body, "state"), "cancelling");
    release();
    until("cancelled");
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(w.guests[i].host, 0);
        ck_assert_str_eq(text_in(guest_in_drain(w.guests[i].name), "state"), "left");
    }
    ck_assert(!cordoned("hv1"));
    run(100);
    ck_assert_uint_eq(w.guests[0].migrations, 1); /* and nothing comes back */
    act(LMO_DRAIN_ACT_CANCEL, "");
    ck_assert_int_eq(w.code, LMO_E_CONFLICT);
    end();
}
END_TEST

START_TEST(pause_begins_nothing_new__resume_goes_on)
{
    begin(2);
    asked(lmo_engine_vm_lease_set(w.engine, w.guests[1].uuid, "resizing it", 3600, "control-plane:cp", on_reply, NULL));
    ck_assert_int_eq(w.code, 0);
    accepted("hv1");
    until("waiting");
    ck_assert_str_eq(text_in(guest_in_drain("g2"), "state"), "waiting");
    ck_assert_ptr_nonnull(strstr(text_in(guest_in_drain("g2"), "reason"), "resizing it"));
    ck_assert_ptr_nonnull(strstr(text_in(w.body, "waiting_for"), "resizing it"));
    ck_assert_int_gt(json_integer_value(json_object_get(w.body, "waiting_since_ms")), 0);
    migrate(w.guests[1].uuid, "hv2", false);
    ck_assert_int_eq(w.code, LMO_E_CONFLICT); /* nobody else moves it either */
    act(LMO_DRAIN_ACT_PAUSE, "");
    ck_assert_str_eq(text_in(w.body, "state"), "paused");
    asked(lmo_engine_vm_lease_set(w.engine, w.guests[1].uuid, "", 0, "control-plane:cp", on_reply, NULL));
    ck_assert_int_eq(w.code, 0);
    run(LMO_DRAIN_LOOK_MS + 300);
    ck_assert_uint_eq(w.guests[1].migrations, 0);
    act(LMO_DRAIN_ACT_RESUME, "");
    until("drained");
    ck_assert_uint_eq(w.guests[1].migrations, 1);
    end();
}
END_TEST

START_TEST(destination_that_refuses_is_left_out__and_none_is_tried_twice)
{
    begin(2);
    w.refuses[1] = w.refuses[2] = LMO_E_REFUSED;
    accepted("hv1");
    until("drained");
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_uint_eq(w.guests[i].host, 3);
        ck_assert_uint_le(w.guests[i].migrations, 3);
        const json_t *tries = json_object_get(guest_in_drain(w.guests[i].name), "tries");
        for (size_t a = 0; a < json_array_size(tries); a++) {
            for (size_t b = 0; b < a; b++) {
                ck_assert_str_ne(text_in(json_array_get(tries, a), "destination"),
                                 text_in(json_array_get(tries, b), "destination"));
            }
        }
    }
    end();
}
END_TEST

START_TEST(guest_that_everybody_refuses_fails__the_others_are_moved__and_it_stays_where_it_was)
{
    begin(2);
    w.refuses[1] = w.refuses[2] = w.refuses[3] = LMO_E_REFUSED;
    accepted("hv1");
    until("failed");
    ck_assert_uint_eq(w.guests[0].host, 0);
    ck_assert_uint_eq(w.guests[0].migrations, 3);
    ck_assert_str_eq(text_in(guest_in_drain("g1"), "state"), "failed");
    ck_assert_str_ne(text_in(guest_in_drain("g1"), "reason"), "");
    ck_assert(cordoned("hv1")); /* whoever looks at it decides */
    end();
}
END_TEST

static void unmovable(enum lmo_unmovable policy, const char *guest_state, const char *drain_state)
{
    begin(2);
    w.guests[0].running = true;
    w.guests[0].blocker = "a device of this host is passed through (hostdev)";
    w.guests[0].kinds = "device";
    request.unmovable = policy;
    request.wait_timeout_ms = 1000;
    accepted("hv1");
    request = (struct lmo_drain_request){0};
    until(drain_state);
    ck_assert_str_eq(text_in(guest_in_drain("g1"), "state"), guest_state);
    ck_assert_ptr_nonnull(strstr(text_in(guest_in_drain("g1"), "reason"), "passed through"));
    ck_assert_uint_eq(w.guests[0].host, 0);
    ck_assert_uint_eq(w.guests[0].migrations, 0);
    ck_assert_str_eq(text_in(guest_in_drain("g2"), "state"), "moved");
}

START_TEST(unmovable_guest_by_policy_fail)
{
    unmovable(LMO_UNMOVABLE_FAIL, "failed", "failed");
    end();
}
END_TEST

START_TEST(unmovable_guest_by_policy_skip__the_drain_does_not_call_itself_drained)
{
    unmovable(LMO_UNMOVABLE_SKIP, "skipped", "incomplete");
    end();
}
END_TEST

START_TEST(unmovable_guest_by_policy_wait__fails_when_the_wait_is_over)
{
    unmovable(LMO_UNMOVABLE_WAIT, "failed", "failed");
    end();
}
END_TEST

START_TEST(unmovable_guest_by_policy_wait__goes_when_it_can)
{
    begin(1);
    w.guests[0].running = true;
    w.guests[0].blocker = "a device of this host is passed through (hostdev)";
    w.guests[0].kinds = "device";
    struct lmo_vm_policy p = {.unmovable_given = true, .unmovable = LMO_UNMOVABLE_WAIT};
    struct lmo_err err = {0};
    asked(lmo_engine_vm_policy_set(w.engine, w.guests[0].uuid, &p, on_reply, NULL, &err));
    ck_assert_int_eq(w.code, 0);
    accepted("hv1"); /* whose own policy is fail */
    until("waiting");
    w.guests[0].running = false; /* its owner took the device away and shut it off */
    w.guests[0].blocker = NULL;
    until("drained");
    end();
}
END_TEST

START_TEST(unmovable_guest_by_policy_block__says_that_nothing_copies_its_disks)
{
    unmovable(LMO_UNMOVABLE_BLOCK, "failed", "failed");
    end();
}
END_TEST

START_TEST(unmovable_guest_by_policy_offline__fails_while_it_runs__is_moved_when_it_is_shut_off)
{
    unmovable(LMO_UNMOVABLE_OFFLINE, "failed", "failed");
    end();
    begin(1);
    w.guests[0].blocker = "a device of this host is passed through (hostdev)";
    w.guests[0].kinds = "device";
    request.unmovable = LMO_UNMOVABLE_OFFLINE;
    accepted("hv1");
    request = (struct lmo_drain_request){0};
    until("drained");
    ck_assert_uint_eq(w.guests[0].defined, 1);
    end();
}
END_TEST

START_TEST(host_that_dies_in_mid_drain__is_waited_for_and_then_given_up__never_called_drained)
{
    begin(2);
    w.hold = true;
    request.wait_timeout_ms = 1500;
    accepted("hv1");
    request = (struct lmo_drain_request){0};
    until_guest("g2", "moving");
    w.down[0] = true;
    host_state(0);
    act(LMO_DRAIN_ACT_CANCEL, "");
    release();
    until("cancelled");
    end();
    begin(0);
    w.down[0] = true;
    host_state(0);
    request.wait_timeout_ms = 1500;
    accepted("hv1");
    request = (struct lmo_drain_request){0};
    until("waiting");
    ck_assert_ptr_nonnull(strstr(text_in(w.body, "waiting_for"), "does not answer"));
    until("failed");
    end();
}
END_TEST

START_TEST(guest_that_appears_in_mid_drain_is_moved_too)
{
    begin(3);
    w.guests[2].host = 3;
    w.hold = true;
    accepted("hv1");
    until_guest("g1", "moving");
    w.guests[2].host = 0; /* somebody started it there, cordon or not */
    release();
    until("drained");
    ck_assert_uint_ne(w.guests[2].host, 0);
    ck_assert_str_eq(text_in(guest_in_drain("g3"), "state"), "moved");
    end();
}
END_TEST

START_TEST(campaign_goes_host_by_host__waits_until_each_is_back_and_ready__and_gives_guests_back)
{
    begin(4);
    w.guests[2].host = w.guests[3].host = 1;
    request.max_hosts = 1;
    request.give_back = true;
    accepted("hv1 hv2");
    request = (struct lmo_drain_request){0};
    until("waiting");
    ck_assert_ptr_nonnull(strstr(text_in(w.body, "waiting_for"), "acknowledgement"));
    const json_t *hosts = json_object_get(w.body, "hosts");
    char first[8], second[8];
    LMO_COPY(first, text_in(json_array_get(hosts, 0), "name"));
    LMO_COPY(second, text_in(json_array_get(hosts, 1), "name"));
    ck_assert_str_eq(text_in(json_array_get(hosts, 0), "state"), "maintenance");
    ck_assert_str_eq(text_in(json_array_get(hosts, 1), "state"), "waiting");
    ck_assert(cordoned(first));
    ck_assert(!cordoned(second));
    w.down[host_index(first)] = true;
    host_state(host_index(first));
    act(LMO_DRAIN_ACT_ACKNOWLEDGE, first); /* somebody believes that it is back: it is looked at */
    ck_assert_int_eq(w.code, 0);
    until("waiting");
    ck_assert_ptr_nonnull(strstr(text_in(w.body, "waiting_for"), "not ready"));
    ck_assert(cordoned(first));
    w.down[host_index(first)] = false;
    w.boots[host_index(first)]++;
    host_state(host_index(first));
    for (unsigned i = 0; i < 1500 && cordoned(second) == false; i++) {
        run(10);
    }
    (void)look();
    ck_assert_str_eq(text_in(json_array_get(json_object_get(w.body, "hosts"), 0), "state"), "drained");
    ck_assert(!cordoned(first));
    for (unsigned i = 0; i < 4; i++) { /* the first one's guests are back */
        ck_assert(w.guests[i].defined == 0 || w.guests[i].defined == 2 || w.guests[i].host != host_index(first));
    }
    until("waiting");
    w.boots[host_index(second)]++; /* its restart is the acknowledgement */
    host_state(host_index(second));
    until("drained");
    ck_assert_uint_eq(w.guests[0].host, 0);
    ck_assert_uint_eq(w.guests[3].host, 1);
    ck_assert(!cordoned("hv1") && !cordoned("hv2"));
    end();
}
END_TEST

START_TEST(hosts_are_chosen_by_label)
{
    struct lmo_err err = {0};
    begin(2);
    asked(lmo_engine_host_labels(w.engine, "hv1", "zone=a rack=3", on_reply, NULL, &err));
    ck_assert_str_eq(text_in(json_object_get(w.body, "labels"), "rack"), "3");
    ck_assert_int_eq(lmo_engine_host_labels(w.engine, "hv1", "zone", on_reply, NULL, &err), LMO_E_INVALID);
    struct lmo_drain_request q = {.labels = "rack=4"};
    asked(lmo_engine_drain(w.engine, &q, on_reply, NULL));
    ck_assert_int_eq(w.code, LMO_E_NOT_FOUND);
    q = (struct lmo_drain_request){.labels = "rack=3"};
    asked(lmo_engine_drain(w.engine, &q, on_reply, NULL));
    ck_assert_int_eq(w.code, 0);
    LMO_COPY(id, text_in(w.body, "id"));
    until("drained");
    end();
}
END_TEST

START_TEST(explain_says_of_every_host_why_not)
{
    begin(1);
    asked(lmo_engine_host_cordon(w.engine, "hv2", true, "", "operator:test", on_reply, NULL));
    w.down[2] = true;
    host_state(2);
    asked(lmo_engine_vm_explain(w.engine, "g1", 0, on_reply, NULL));
    ck_assert_msg(w.code == 0, "%s", w.text);
    const json_t *h;
    size_t i;
    json_array_foreach(json_object_get(w.body, "hosts"), i, h)
    {
        const char *name = text_in(h, "host"), *why = text_in(h, "why_not");
        ck_assert_str_eq(why, strcmp(name, "hv1") == 0   ? lmo_not_text(LMO_NOT_HERE)
                              : strcmp(name, "hv2") == 0 ? lmo_not_text(LMO_NOT_CORDONED)
                              : strcmp(name, "hv3") == 0 ? lmo_not_text(LMO_NOT_DOWN)
                                                         : "");
        ck_assert_int_eq(json_is_true(json_object_get(h, "possible")), strcmp(name, "hv4") == 0);
    }
    ck_assert_uint_eq(json_array_size(json_object_get(w.body, "hosts")), HOSTS);
    asked(lmo_engine_vm_explain(w.engine, "g9", 0, on_reply, NULL));
    ck_assert_int_eq(w.code, LMO_E_NOT_FOUND);
    end();
}
END_TEST

START_TEST(rebalance_spreads_and_ends)
{
    begin(6);
    for (unsigned i = 0; i < 6; i++) {
        w.guests[i].running = false;
    }
    lmo_engine_ask(&(struct lmo_ask){.dry_run = true});
    asked(lmo_engine_rebalance(w.engine, true, 0, "operator:test", on_reply, NULL));
    lmo_engine_ask(NULL);
    ck_assert_msg(w.code == 0 && w.status == 200, "%s", w.text);
    asked(lmo_engine_rebalance(w.engine, false, 0, "operator:test", on_reply, NULL));
    ck_assert_msg(w.code == 0 && w.status == 202, "%s", w.text);
    LMO_COPY(id, text_in(w.body, "id"));
    ck_assert_str_eq(text_in(w.body, "kind"), "rebalance");
    until("drained");
    end();
}
END_TEST

/* ------------------------------------------------------------------ restarts */

/* One drain with a refusing destination, dead at commit `n`, then another coordinator. False: it was over before. */
static bool dead_at(unsigned n)
{
    begin(3);
    w.refuses[1] = LMO_E_REFUSED;
    w.crash_at = n;
    id[0] = '\0';
    drain("hv1");
    if (w.answered && w.code == 0) {
        LMO_COPY(id, text_in(w.body, "id"));
    }
    for (unsigned i = 0; i < 1000 && !w.crashed && id[0]; i++) {
        if (is_over(look())) {
            break;
        }
        run(5);
    }
    bool crashed = w.crashed;
    close_engine();
    w.crashed = false;
    w.crash_at = 0;
    open_engine();
    if (!id[0]) { /* the client never heard: it asks again */
        accepted("hv1");
    }
    until("drained");
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_ne(w.guests[i].host, 0);
        ck_assert_uint_ne(w.guests[i].host, HOSTS);
        ck_assert_uint_le(w.guests[i].migrations, 2); /* one where it was refused, one that took it */
        ck_assert_uint_ge(w.guests[i].defined, 1);
    }
    ck_assert(cordoned("hv1"));
    end();
    return crashed;
}

START_TEST(restart_at_every_commit_of_a_drain__starts_no_migration_twice_and_ends_drained)
{
    unsigned n = 1;
    while (dead_at(n)) {
        ck_assert_uint_lt(++n, 200);
    }
    ck_assert_uint_gt(n, 8); /* it did die in between */
}
END_TEST

Suite *engine_drains_suite(void)
{
    Suite *s = suite_create("engine_drains");
    TCase *t = tcase_create("drains");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, drain_moves_everything_and_keeps_the_host_cordoned);
    tcase_add_test(t, second_request_returns_the_first__another_one_for_the_same_host_is_refused);
    tcase_add_test(t, a_restored_store__is_looked_at_and_its_drains_rest_until_it_is_activated_and_are_paused_then);
    tcase_add_test(t, what_is_carried_out_is_what_was_printed);
    tcase_add_test(t, cordoned_host_is_no_destination__of_a_drain_or_of_a_migration_without_force);
    tcase_add_test(t, cordon_is_looked_at_again_when_the_migration_would_begin__and_the_guest_goes_elsewhere);
    tcase_add_test(t, cancel_ends_the_children__leaves_the_guests_and_lifts_the_cordon);
    tcase_add_test(t, pause_begins_nothing_new__resume_goes_on);
    tcase_add_test(t, destination_that_refuses_is_left_out__and_none_is_tried_twice);
    tcase_add_test(t, guest_that_everybody_refuses_fails__the_others_are_moved__and_it_stays_where_it_was);
    tcase_add_test(t, unmovable_guest_by_policy_fail);
    tcase_add_test(t, unmovable_guest_by_policy_skip__the_drain_does_not_call_itself_drained);
    tcase_add_test(t, unmovable_guest_by_policy_wait__fails_when_the_wait_is_over);
    tcase_add_test(t, unmovable_guest_by_policy_wait__goes_when_it_can);
    tcase_add_test(t, unmovable_guest_by_policy_block__says_that_nothing_copies_its_disks);
    tcase_add_test(t, unmovable_guest_by_policy_offline__fails_while_it_runs__is_moved_when_it_is_shut_off);
    tcase_add_test(t, host_that_dies_in_mid_drain__is_waited_for_and_then_given_up__never_called_drained);
    tcase_add_test(t, guest_that_appears_in_mid_drain_is_moved_too);
    tcase_add_test(t, campaign_goes_host_by_host__waits_until_each_is_back_and_ready__and_gives_guests_back);
    tcase_add_test(t, hosts_are_chosen_by_label);
    tcase_add_test(t, explain_says_of_every_host_why_not);
    tcase_add_test(t, rebalance_spreads_and_ends);
    tcase_add_test(t, restart_at_every_commit_of_a_drain__starts_no_migration_twice_and_ends_drained);
    suite_add_tcase(s, t);
    return s;
}
