/* test_worker_cluster.c - see test_worker_cluster.h. */
#include "test_worker_cluster.h"

#include "base/clock.h"
#include "base/id.h"
#include "base/json.h"
#include "base/str.h"
#include "pki/ca.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char pki_dir[64];
static const char *const names[MEMBERS] = {"hv1", "hv2", "ctl"};

static void nap(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}

/* ------------------------------------------------------------------ certificates */

static void issue(enum lmo_role role, const char *name)
{
    struct lmo_pki_request request = {.role = role, .address_count = 1, .addresses = {"127.0.0.1"}};
    struct lmo_pki_issued issued;
    struct lmo_err err = {0};
    LMO_COPY(request.name, name);
    ck_assert_msg(lmo_pki_issue(pki_dir, &request, &issued, &err) == 0, "%s", err.text);
}

void cluster_pki_setup(void)
{
    struct lmo_err err = {0};
    snprintf(pki_dir, sizeof pki_dir, "/tmp/lmo-worker-pki.XXXXXX");
    ck_assert(mkdtemp(pki_dir) != NULL);
    ck_assert_msg(lmo_pki_init(pki_dir, &err) == 0, "%s", err.text);
    for (int i = 0; i < MEMBERS; i++) {
        issue(LMO_ROLE_WORKER, names[i]);
    }
    issue(LMO_ROLE_WORKER, "hv9");
    issue(LMO_ROLE_COORDINATOR, "lab");
    issue(LMO_ROLE_OPERATOR, "ann");
}

void cluster_pki_teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", pki_dir);
    ck_assert(system(command) == 0);
}

const char *cluster_pki(void)
{
    return pki_dir;
}

struct lmo_tls_files cluster_tls(const char *role, const char *name)
{
    struct lmo_tls_files f = {0};
    snprintf(f.ca, sizeof f.ca, "%s/ca.pem", pki_dir);
    snprintf(f.crl, sizeof f.crl, "%s/crl.pem", pki_dir);
    snprintf(f.cert, sizeof f.cert, "%s/issued/%s-%s.pem", pki_dir, role, name);
    snprintf(f.key, sizeof f.key, "%s/issued/%s-%s.key", pki_dir, role, name);
    return f;
}

/* ------------------------------------------------------------------ members */

static void *run(void *arg)
{
    struct member *m = arg;
    ck_assert(lmo_worker_run(m->worker) == 0);
    return NULL;
}

void cluster_start(struct cluster *c, int i)
{
    struct member *m = &c->m[i];
    struct lmo_err err = {0};
    ck_assert_msg(lmo_worker_new(&m->cfg, &m->worker, &err) == 0, "%s", err.text);
    m->port = lmo_worker_port(m->worker);
    snprintf(m->cfg.listen, sizeof m->cfg.listen, "127.0.0.1:%u", m->port); /* the same one after a restart */
    snprintf(m->url, sizeof m->url, "https://127.0.0.1:%u", m->port);
    ck_assert(pthread_create(&m->thread, NULL, run, m) == 0);
}

void cluster_stop(struct cluster *c, int i)
{
    struct member *m = &c->m[i];
    if (!m->worker) {
        return;
    }
    lmo_worker_stop(m->worker);
    pthread_join(m->thread, NULL);
    m->worker = lmo_worker_free(m->worker);
}

void cluster_restart(struct cluster *c, int i)
{
    cluster_stop(c, i);
    c->m[i].cfg.die_at_commit = 0;
    c->restarts++;
    cluster_start(c, i);
}

bool cluster_revive_dead(struct cluster *c)
{
    bool any = false;
    for (int i = 0; i < MEMBERS; i++) {
        if (c->m[i].worker && lmo_worker_dead(c->m[i].worker)) {
            cluster_restart(c, i);
            any = true;
        }
    }
    return any;
}

struct cluster *cluster_new_dying(int victim, unsigned die_at_commit, bool before)
{
    struct cluster *c = calloc(1, sizeof *c);
    ck_assert(c);
    /* Memory, if there is such a place: these tests are about order, not about the disk's speed. */
    snprintf(c->dir, sizeof c->dir, "%s/lmo-worker-test.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    ck_assert(mkdtemp(c->dir) != NULL);
    c->world = fake_world_new();
    c->epoch = 7;
    c->deadman_ms = 30000;
    lmo_ulid_generate(c->migration);
    for (int i = 0; i < MEMBERS; i++) {
        struct lmo_worker_config *cfg = &c->m[i].cfg;
        snprintf(cfg->listen, sizeof cfg->listen, "127.0.0.1:0");
        snprintf(cfg->state_dir, sizeof cfg->state_dir, "%s/%s", c->dir, names[i]);
        snprintf(cfg->permit_key, sizeof cfg->permit_key, "%s/permit.pub", pki_dir);
        cfg->tls = cluster_tls("worker", names[i]);
        LMO_COPY(cfg->facts.host, names[i]);
        LMO_COPY(cfg->facts.network_fabric, i < CTL ? "net" : "");
        LMO_COPY(cfg->facts.hypervisor, i < CTL ? "fake" : "");
        if (i == victim) {
            cfg->die_at_commit = die_at_commit;
            cfg->die_before = before;
        }
        fake_seat(&c->m[i].seat, c->world, i < CTL ? i : -1, i >= CTL, cfg);
        cluster_start(c, i);
    }
    struct lmo_err err = {0};
    struct lmo_http_client_config client = {.tls = cluster_tls("coordinator", "lab"), .connect_timeout_ms = 500};
    ck_assert(lmo_loop_new(256, &c->loop, &err) == 0);
    ck_assert_msg(lmo_http_client_new(c->loop, &client, &c->client, &err) == 0, "%s", err.text);
    for (unsigned i = 0; i < FAKE_VOLUMES; i++) {
        struct lmo_volume *v = &c->volumes[i];
        snprintf(v->volume, sizeof v->volume, "vol%u", i + 1);
        snprintf(v->target, sizeof v->target, "vd%c", 'a' + (char)i);
        LMO_COPY(v->driver, "nbd");
        LMO_COPY(v->service, "10.0.0.9:10809");
        snprintf(v->export_name, sizeof v->export_name, "vol%u.hv1.e1", i + 1);
        LMO_COPY(v->worker, "ctl");
    }
    LMO_COPY(c->port.id, FAKE_PORT);
    LMO_COPY(c->port.mac, "52:54:00:00:00:01");
    return c;
}

struct cluster *cluster_new(void)
{
    return cluster_new_dying(-1, 0, false);
}

void cluster_free(struct cluster *c)
{
    for (int i = 0; i < MEMBERS; i++) {
        cluster_stop(c, i);
    }
    c->client = lmo_http_client_free(c->client);
    c->loop = lmo_loop_free(c->loop);
    ck_assert_msg(c->world->violation[0] == '\0', "%s", c->world->violation);
    fake_world_free(c->world);
    char command[192];
    snprintf(command, sizeof command, "rm -rf '%s'", c->dir);
    ck_assert(system(command) == 0);
    free(c);
}

/* ------------------------------------------------------------------ requests */

int cluster_request(struct cluster *c, struct lmo_http_client *client, int member, const char *method, const char *path,
                    const char *body, uint64_t timeout_ms, unsigned *ret_status, char **ret_body)
{
    char url[LMO_URL_MAX * 2];
    snprintf(url, sizeof url, "%s%s", c->m[member].url, path);
    struct lmo_http_request_spec spec = {.method = method,
                                         .url = url,
                                         .body = body,
                                         .body_len = body ? strlen(body) : 0,
                                         .timeout_ms = timeout_ms,
                                         .peer_role = LMO_ROLE_WORKER,
                                         .peer_name = names[member]};
    struct lmo_http_answer answer = {0};
    struct lmo_err err = {0};
    int r = lmo_http_request_sync(client ? client : c->client, &spec, &answer, &err);
    if (r == 0) {
        *ret_status = answer.status;
        if (ret_body) {
            *ret_body = LMO_TAKE(answer.body);
        }
        lmo_http_answer_done(&answer);
    }
    return r;
}

void cluster_fill(struct cluster *c, enum lmo_op_kind kind, struct lmo_op_request *req)
{
    *req = (struct lmo_op_request){.kind = kind, .epoch = c->epoch};
    snprintf(req->id, sizeof req->id, "%s.%llu.%u-%s", c->migration, (unsigned long long)c->epoch, ++c->ordinal,
             lmo_op_info(kind)->text);
    LMO_COPY(req->migration, c->migration);
    LMO_COPY(req->vm, FAKE_VM);
    LMO_COPY(req->vm_name, "guest");
    LMO_COPY(req->source, "hv1");
    LMO_COPY(req->destination, "hv2");
    LMO_COPY(req->source_url, c->m[HV1].url);
    LMO_COPY(req->destination_url, c->m[HV2].url);
    LMO_COPY(req->peer_uri, "fake://hv2");
    LMO_COPY(req->migration_uri, "tcp://hv2");
    req->persistent = true;
    req->final_state = c->paused_by_user ? LMO_RUN_PAUSED_BY_USER : LMO_RUN_RUNNING;
    req->memory_bytes = 256U << 20;
    req->deadman_ms = c->deadman_ms;
    req->downtime_ms = 300;
    req->port_count = 1;
    req->ports[0] = c->port;
    req->volume_count = FAKE_VOLUMES;
    for (unsigned i = 0; i < FAKE_VOLUMES; i++) {
        req->volumes[i] = c->volumes[i];
        LMO_COPY(req->volumes[i].worker_url, c->m[CTL].url);
    }
    if (kind == LMO_OP_PREPARE || kind == LMO_OP_PRECHECK_INCOMING) {
        req->xml = strdup("<domain/>");
    }
    if (kind == LMO_OP_PERMIT || kind == LMO_OP_RELAY_FREEZE) {
        req->permit = strdup(c->permit);
    }
}

int cluster_put(struct cluster *c, int member, const struct lmo_op_request *req, struct lmo_op_reply *reply)
{
    char path[LMO_OP_ID_MAX + 64];
    char *body = NULL;
    struct lmo_err err = {0};
    ck_assert_msg(lmo_op_request_encode(req, &body, &err) == 0, "%s", err.text);
    snprintf(path, sizeof path, "/v1/ops/%s?wait_ms=200", req->id);
    uint64_t end = lmo_now_ms() + 20000;
    int result = LMO_E_TIMEOUT;
    while (lmo_now_ms() < end) {
        unsigned status = 0;
        char *text = NULL;
        int r = cluster_request(c, NULL, member, "PUT", path, body, 300, &status, &text);
        if (r == 0 && status == 200) {
            ck_assert_msg(lmo_op_reply_decode(text, strlen(text), reply, &err) == 0, "%s", err.text);
            free(text);
            result = 0;
            break;
        }
        if (r == 0 && status >= 400 && status != 503) {
            json_t *problem = json_loads(text, 0, NULL);
            result = lmo_err_from_name(json_string_value(json_object_get(problem, "code")));
            json_decref(problem);
            free(text);
            break;
        }
        free(text);
        (void)cluster_revive_dead(c);
        nap(10);
    }
    free(body);
    return result;
}

static int put_and_free(struct cluster *c, int member, struct lmo_op_request *req, struct lmo_op_reply *reply,
                        char why[LMO_TEXT_MAX])
{
    int r = cluster_put(c, member, req, reply);
    lmo_op_request_done(req);
    if (why) {
        snprintf(why, LMO_TEXT_MAX, "%s", r == 0 ? reply->text : lmo_err_name(r));
    }
    if (r == 0) {
        r = reply->code;
    }
    if (r < 0 && getenv("LMO_TEST_TRACE")) {
        fprintf(stderr, "%s: %s: %s\n", req->id, lmo_err_name(r), reply->text);
    }
    return r;
}

int cluster_op(struct cluster *c, int member, enum lmo_op_kind kind, char why[LMO_TEXT_MAX])
{
    struct lmo_op_request req;
    struct lmo_op_reply reply = {0};
    cluster_fill(c, kind, &req);
    int r = put_and_free(c, member, &req, &reply, why);
    lmo_op_reply_done(&reply);
    return r;
}

int cluster_op_volume(struct cluster *c, enum lmo_op_kind kind, unsigned index)
{
    struct lmo_op_request req;
    struct lmo_op_reply reply = {0};
    cluster_fill(c, kind, &req);
    req.volume_count = 1;
    req.volumes[0] = req.volumes[index];
    LMO_COPY(req.host, "hv2");
    int r = put_and_free(c, CTL, &req, &reply, NULL);
    if (r == 0 && kind == LMO_OP_ATTACH) {
        LMO_COPY(c->volumes[index].export_destination, reply.export_name);
    }
    lmo_op_reply_done(&reply);
    return r;
}

/* ------------------------------------------------------------------ events */

static void take_events(struct member *m, const json_t *root)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(root, "events"), i, item)
    {
        struct lmo_worker_event e;
        struct lmo_err err = {0};
        ck_assert_msg(lmo_worker_event_from_json(item, &e, &err) == 0, "%s", err.text);
        ck_assert_uint_gt(e.seq, m->cursor + i);
        ck_assert_uint_lt(m->event_count, EVENTS_KEPT);
        m->events[m->event_count++] = e;
    }
    json_array_foreach(json_object_get(root, "progress"), i, item)
    {
        struct lmo_worker_event e;
        ck_assert(lmo_worker_event_from_json(item, &e, NULL) == 0);
        m->progress = e.progress;
        m->has_progress = true;
    }
    m->cursor = (uint64_t)json_integer_value(json_object_get(root, "next"));
}

void cluster_poll(struct cluster *c, int member, uint64_t wait_ms)
{
    char path[128];
    unsigned status = 0;
    char *text = NULL;
    snprintf(path, sizeof path, "/v1/events?after=%llu&wait_ms=%llu", (unsigned long long)c->m[member].cursor,
             (unsigned long long)wait_ms);
    if (cluster_request(c, NULL, member, "GET", path, NULL, wait_ms + 400, &status, &text) == 0 && status == 200) {
        json_t *root = json_loads(text, 0, NULL);
        ck_assert(root);
        take_events(&c->m[member], root);
        json_decref(root);
    }
    free(text);
}

bool cluster_has_event(const struct cluster *c, int member, enum lmo_worker_event_kind kind,
                       struct lmo_worker_event *ret)
{
    const struct member *m = &c->m[member];
    for (unsigned i = m->event_count; i > 0; i--) {
        if (m->events[i - 1].kind == kind) {
            if (ret) {
                *ret = m->events[i - 1];
            }
            return true;
        }
    }
    return false;
}

bool cluster_wait_event(struct cluster *c, int member, enum lmo_worker_event_kind kind, unsigned timeout_ms,
                        struct lmo_worker_event *ret)
{
    uint64_t end = lmo_now_ms() + timeout_ms;
    while (!cluster_has_event(c, member, kind, ret)) {
        uint64_t now = lmo_now_ms();
        if (now >= end) {
            return false;
        }
        cluster_poll(c, member, end - now < 50 ? end - now : 50);
        if (cluster_revive_dead(c)) {
            nap(20);
        }
    }
    return true;
}

/* ------------------------------------------------------------------ permits */

void cluster_sign_as(struct cluster *c, const char *key_file, uint64_t epoch, uint64_t lives_ms, const char *source,
                     const char *destination, char text[LMO_PERMIT_TEXT_MAX])
{
    struct lmo_permit_key *key = NULL;
    struct lmo_err err = {0};
    struct lmo_permit *p = calloc(1, sizeof *p);
    ck_assert_msg(lmo_permit_key_load(key_file, &key, &err) == 0, "%s", err.text);
    p->epoch = epoch;
    p->final_state = c->paused_by_user ? LMO_PERMIT_FINAL_PAUSED : LMO_PERMIT_FINAL_RUNNING;
    p->issued_ms = lmo_realtime_us() / 1000;
    p->expires_ms = p->issued_ms + lives_ms;
    LMO_COPY(p->migration, c->migration);
    LMO_COPY(p->vm_uuid, FAKE_VM);
    LMO_COPY(p->source, source);
    LMO_COPY(p->destination, destination);
    p->volume_count = FAKE_VOLUMES;
    for (unsigned i = 0; i < FAKE_VOLUMES; i++) {
        LMO_COPY(p->volumes[i].volume, c->volumes[i].volume);
        LMO_COPY(p->volumes[i].service, c->volumes[i].service);
        LMO_COPY(p->volumes[i].worker, "ctl");
        LMO_COPY(p->volumes[i].export_source, c->volumes[i].export_name);
        LMO_COPY(p->volumes[i].export_destination,
                 c->volumes[i].export_destination[0] ? c->volumes[i].export_destination : "none");
    }
    ck_assert_msg(lmo_permit_sign(key, p, text, LMO_PERMIT_TEXT_MAX, &err) == 0, "%s", err.text);
    lmo_permit_key_free(key);
    free(p);
}

void cluster_sign(struct cluster *c, uint64_t epoch, uint64_t lives_ms, char text[LMO_PERMIT_TEXT_MAX])
{
    char key[128];
    snprintf(key, sizeof key, "%s/permit.key", pki_dir);
    cluster_sign_as(c, key, epoch, lives_ms, "hv1", "hv2", text);
}

/* ------------------------------------------------------------------ a migration */

int cluster_prepare(struct cluster *c)
{
    struct lmo_op_request req;
    struct lmo_op_reply reply = {0};
    cluster_fill(c, LMO_OP_DESCRIBE, &req);
    int r = put_and_free(c, HV1, &req, &reply, NULL);
    if (r == 0) {
        c->paused_by_user = reply.facts.state == LMO_RUN_PAUSED_BY_USER;
    }
    lmo_op_reply_done(&reply);
    r = r ? r : cluster_op(c, HV2, LMO_OP_PRECHECK_INCOMING, NULL);
    r = r ? r : cluster_op(c, HV1, LMO_OP_CHECK_REACH, NULL);
    r = r ? r : cluster_op(c, CTL, LMO_OP_CHECK_VOLUME, NULL);
    r = r ? r : cluster_op(c, CTL, LMO_OP_CHECK_PORT, NULL);
    r = r ? r : cluster_op(c, HV2, LMO_OP_PREPARE, NULL);
    for (unsigned i = 0; r == 0 && i < FAKE_VOLUMES; i++) {
        r = cluster_op_volume(c, LMO_OP_ATTACH, i);
    }
    r = r ? r : cluster_op(c, CTL, LMO_OP_PRELOAD, NULL);
    return r ? r : cluster_op(c, CTL, LMO_OP_DUAL, NULL);
}

int cluster_arm(struct cluster *c)
{
    cluster_sign(c, c->epoch, 600000, c->permit);
    return cluster_op(c, HV2, LMO_OP_PERMIT, NULL);
}

int cluster_start_job(struct cluster *c)
{
    return cluster_op(c, HV1, LMO_OP_JOB_START, NULL);
}

int cluster_open(struct cluster *c)
{
    int r = cluster_op(c, CTL, LMO_OP_AWAIT_BOUND, NULL);
    r = r ? r : cluster_op(c, HV2, LMO_OP_AWAIT_INSTALLED, NULL);
    return r ? r : cluster_op(c, HV1, LMO_OP_OPEN_GATE, NULL);
}

static void relay(struct cluster *c)
{
    struct lmo_op_request req;
    struct lmo_op_reply reply = {0};
    cluster_fill(c, LMO_OP_RELAY_FREEZE, &req);
    int r = put_and_free(c, HV1, &req, &reply, NULL);
    if (r == 0) {
        struct lmo_op_request back;
        struct lmo_op_reply done = {0};
        cluster_fill(c, LMO_OP_RELAY_ANSWER, &back);
        LMO_COPY(back.answer, reply.answer);
        LMO_COPY(back.evidence, reply.evidence);
        (void)put_and_free(c, HV2, &back, &done, NULL);
        lmo_op_reply_done(&done);
    }
    lmo_op_reply_done(&reply);
}

bool cluster_until_resumed(struct cluster *c, unsigned timeout_ms)
{
    uint64_t end = lmo_now_ms() + timeout_ms;
    unsigned seen = 0;
    while (lmo_now_ms() < end) {
        cluster_poll(c, HV2, 30);
        cluster_poll(c, HV1, 0);
        if (cluster_has_event(c, HV2, LMO_WEV_RESUMED, NULL)) {
            return true;
        }
        if (cluster_has_event(c, HV2, LMO_WEV_BACK, NULL) || cluster_has_event(c, HV2, LMO_WEV_COPY_LOST, NULL)) {
            return false;
        }
        for (; seen < c->m[HV2].event_count; seen++) {
            enum lmo_worker_event_kind kind = c->m[HV2].events[seen].kind;
            if (kind == LMO_WEV_PERMIT_WANTED) {
                (void)cluster_op(c, HV2, LMO_OP_PERMIT, NULL);
            } else if (kind == LMO_WEV_FREEZE_WANTED) {
                relay(c);
            }
        }
        (void)cluster_revive_dead(c);
    }
    return false;
}

int cluster_finalize(struct cluster *c)
{
    int r = cluster_op(c, HV1, LMO_OP_REMOVE_SOURCE, NULL);
    r = r ? r : cluster_op(c, HV2, LMO_OP_SETTLE, NULL);
    for (unsigned i = 0; r == 0 && i < FAKE_VOLUMES; i++) {
        r = cluster_op_volume(c, LMO_OP_DETACH_SOURCE, i);
    }
    return r ? r : cluster_op(c, CTL, LMO_OP_SINGLE_DESTINATION, NULL);
}

void cluster_raise_epoch(struct cluster *c)
{
    c->epoch++;
}

int cluster_rollback(struct cluster *c)
{
    int r = cluster_op(c, HV1, LMO_OP_JOB_ABORT, NULL);
    /* As the coordinator does: a destination that is busy (a copy's end is still on its way to it) is asked again. */
    uint64_t until = lmo_now_ns() + 5 * LMO_NS_PER_S;
    do {
        r = r && r != LMO_E_BUSY ? r : cluster_op(c, HV2, LMO_OP_DISCARD, NULL);
    } while (r == LMO_E_BUSY && lmo_now_ns() < until);
    if (r < 0) {
        return r;
    }
    cluster_raise_epoch(c);
    r = cluster_op(c, HV1, LMO_OP_REVIVE, NULL);
    for (unsigned i = 0; r == 0 && i < FAKE_VOLUMES; i++) {
        r = cluster_op_volume(c, LMO_OP_DETACH_DESTINATION, i);
    }
    return r ? r : cluster_op(c, CTL, LMO_OP_SINGLE_SOURCE, NULL);
}

int cluster_close(struct cluster *c)
{
    int r = cluster_op(c, HV1, LMO_OP_CLOSE_SOURCE, NULL);
    r = r ? r : cluster_op(c, HV2, LMO_OP_CLOSE_DESTINATION, NULL);
    for (unsigned i = 0; r == 0 && i < FAKE_VOLUMES; i++) {
        r = cluster_op_volume(c, LMO_OP_CLOSE_VOLUME, i);
    }
    return r ? r : cluster_op(c, CTL, LMO_OP_CLOSE_FABRIC, NULL);
}

uint64_t cluster_observe_stage(struct cluster *c, int member, const char *role, char stage[32])
{
    unsigned status = 0;
    char *text = NULL;
    stage[0] = '\0';
    ck_assert(cluster_request(c, NULL, member, "GET", "/v1/observe/migrations", NULL, 3000, &status, &text) == 0);
    ck_assert_uint_eq(status, 200);
    json_t *root = json_loads(text, 0, NULL), *item;
    size_t i;
    json_array_foreach(json_object_get(root, "migrations"), i, item)
    {
        if (strcmp(json_string_value(json_object_get(item, "role")), role) == 0) {
            snprintf(stage, 32, "%s", json_string_value(json_object_get(item, "stage")));
        }
    }
    uint64_t count = json_array_size(json_object_get(root, "migrations"));
    json_decref(root);
    free(text);
    return count;
}
