/* test_worker_ops.c - the op protocol, roles, permits and bounds of a worker, over real HTTP. */
#include "test_worker_cluster.h"

#include "base/clock.h"
#include "base/id.h"
#include "base/str.h"
#include "pki/ca.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static void nap(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}

static int put_as(struct cluster *c, int member, struct lmo_op_request *req, struct lmo_op_reply *reply)
{
    *reply = (struct lmo_op_reply){0};
    return cluster_put(c, member, req, reply);
}

static unsigned get(struct cluster *c, struct lmo_http_client *as, int member, const char *path, char code[64])
{
    unsigned status = 0;
    char *text = NULL;
    code[0] = '\0';
    ck_assert_int_eq(cluster_request(c, as, member, "GET", path, NULL, 3000, &status, &text), 0);
    json_t *root = json_loads(text, 0, NULL);
    snprintf(code, 64, "%s",
             json_is_string(json_object_get(root, "code")) ? json_string_value(json_object_get(root, "code")) : "");
    json_decref(root);
    free(text);
    return status;
}

static unsigned post_peer(struct cluster *c, struct lmo_http_client *as, int member, const char *what,
                          const char *permit, unsigned index, char code[64])
{
    struct lmo_peer_request request = {.permit = permit, .index = index};
    char *body = NULL, *text = NULL, path[64];
    unsigned status = 0;
    ck_assert_int_eq(lmo_peer_request_encode(&request, &body, NULL), 0);
    snprintf(path, sizeof path, "/v1/peer/%s", what);
    ck_assert_int_eq(cluster_request(c, as, member, "POST", path, body, 3000, &status, &text), 0);
    json_t *root = json_loads(text, 0, NULL);
    snprintf(code, 64, "%s",
             json_is_string(json_object_get(root, "code")) ? json_string_value(json_object_get(root, "code")) : "");
    json_decref(root);
    free(text);
    free(body);
    return status;
}

static struct lmo_http_client *client_as(struct cluster *c, const char *role, const char *name)
{
    struct lmo_http_client_config cfg = {.tls = cluster_tls(role, name)};
    struct lmo_http_client *client = NULL;
    struct lmo_err err = {0};
    ck_assert_msg(lmo_http_client_new(c->loop, &cfg, &client, &err) == 0, "%s", err.text);
    return client;
}

/* ------------------------------------------------------------------ one id, one run */

START_TEST(a_repeated_op_is_answered_and_not_run_again)
{
    struct cluster *c = cluster_new();
    struct lmo_op_request req;
    struct lmo_op_reply first, second;
    cluster_fill(c, LMO_OP_ATTACH, &req);
    req.volume_count = 1;
    LMO_COPY(req.host, "hv2");
    ck_assert_int_eq(put_as(c, CTL, &req, &first), 0);
    ck_assert_int_eq(put_as(c, CTL, &req, &second), 0);
    ck_assert_str_eq(first.export_name, "vol1.hv2.e7");
    ck_assert_str_eq(first.export_name, second.export_name);
    ck_assert_uint_eq(fake_count(c->world, FAKE_ATTACH), 1);
    cluster_restart(c, CTL);
    ck_assert_int_eq(put_as(c, CTL, &req, &second), 0);
    ck_assert_str_eq(first.export_name, second.export_name);
    ck_assert_uint_eq(fake_count(c->world, FAKE_ATTACH), 1);
    cluster_free(c);
}
END_TEST

START_TEST(a_failed_op_keeps_its_failure)
{
    struct cluster *c = cluster_new();
    struct lmo_op_request req;
    struct lmo_op_reply reply;
    fake_fail(c->world, FAKE_ATTACH, LMO_E_UNAVAILABLE, 1, false);
    cluster_fill(c, LMO_OP_ATTACH, &req);
    req.volume_count = 1;
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(put_as(c, CTL, &req, &reply), 0);
        ck_assert_int_eq(reply.state, LMO_OP_FAILED);
        ck_assert_int_eq(reply.code, LMO_E_UNAVAILABLE);
        ck_assert_str_eq(reply.text, "made to fail");
    }
    ck_assert_uint_eq(fake_count(c->world, FAKE_ATTACH), 1);
    cluster_free(c);
}
END_TEST

START_TEST(an_outcome_that_nobody_knows_is_looked_into_under_the_same_id)
{
    struct cluster *c = cluster_new();
    struct lmo_op_request req;
    struct lmo_op_reply reply;
    fake_fail(c->world, FAKE_ATTACH, LMO_E_TIMEOUT, 1, true);
    cluster_fill(c, LMO_OP_ATTACH, &req);
    req.volume_count = 1;
    ck_assert_int_eq(put_as(c, CTL, &req, &reply), 0);
    ck_assert_int_eq(reply.code, LMO_E_TIMEOUT);
    cluster_restart(c, CTL);
    ck_assert_int_eq(put_as(c, CTL, &req, &reply), 0);
    ck_assert_int_eq(reply.code, 0);
    ck_assert_str_eq(reply.export_name, "vol1.hv2.e7");
    ck_assert_int_eq(put_as(c, CTL, &req, &reply), 0);
    ck_assert_int_eq(reply.code, 0);
    ck_assert_uint_eq(fake_count(c->world, FAKE_ATTACH), 2);
    cluster_free(c);
}
END_TEST

START_TEST(an_order_that_names_another_guest_than_its_migration_is_refused)
{
    struct cluster *c = cluster_new();
    struct lmo_op_request req;
    struct lmo_op_reply reply;
    static const enum lmo_op_kind kinds[] = {LMO_OP_OPEN_GATE, LMO_OP_JOB_ABORT, LMO_OP_REMOVE_SOURCE,
                                             LMO_OP_CLOSE_SOURCE};
    c->world->cfg.automatic = false;
    ck_assert_int_eq(cluster_start_job(c), 0);
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        cluster_fill(c, kinds[i], &req);
        LMO_COPY(req.vm, "11111111-1111-4111-8111-111111111111");
        ck_assert_int_eq(put_as(c, HV1, &req, &reply), 0);
        ck_assert_int_eq(reply.code, LMO_E_CONFLICT);
    }
    ck_assert_uint_eq(fake_count(c->world, FAKE_REMOVE), 0);
    ck_assert_int_eq(cluster_rollback(c), 0);
    cluster_free(c);
}
END_TEST

START_TEST(two_requests_with_one_id_share_one_run)
{
    struct cluster *c = cluster_new();
    struct lmo_op_request req;
    char path[160], code[64];
    char *body = NULL, *text = NULL;
    unsigned status = 0;
    fake_delay(c->world, FAKE_ATTACH, 300);
    cluster_fill(c, LMO_OP_ATTACH, &req);
    req.volume_count = 1;
    ck_assert_int_eq(lmo_op_request_encode(&req, &body, NULL), 0);
    snprintf(path, sizeof path, "/v1/ops/%s?wait_ms=50", req.id);
    ck_assert_int_eq(cluster_request(c, NULL, CTL, "PUT", path, body, 2000, &status, &text), 0);
    ck_assert_uint_eq(status, 202);
    free(text);
    ck_assert_int_eq(cluster_request(c, NULL, CTL, "PUT", path, body, 2000, &status, &text), 0);
    ck_assert_uint_eq(status, 202);
    free(text);
    snprintf(path, sizeof path, "/v1/ops/%s?wait_ms=2000", req.id);
    ck_assert_uint_eq(get(c, NULL, CTL, path, code), 200);
    ck_assert_uint_eq(fake_count(c->world, FAKE_ATTACH), 1);
    free(body);
    cluster_free(c);
}
END_TEST

START_TEST(one_id_for_two_requests_is_a_conflict)
{
    struct cluster *c = cluster_new();
    struct lmo_op_request req;
    struct lmo_op_reply reply;
    cluster_fill(c, LMO_OP_ATTACH, &req);
    req.volume_count = 1;
    ck_assert_int_eq(put_as(c, CTL, &req, &reply), 0);
    req.kind = LMO_OP_DETACH_DESTINATION;
    ck_assert_int_eq(put_as(c, CTL, &req, &reply), LMO_E_CONFLICT);
    req.kind = LMO_OP_ATTACH;
    req.epoch++;
    ck_assert_int_eq(put_as(c, CTL, &req, &reply), LMO_E_CONFLICT);
    ck_assert_uint_eq(fake_count(c->world, FAKE_DETACH), 0);
    cluster_free(c);
}
END_TEST

START_TEST(an_op_cut_short_by_a_restart_is_taken_up_again)
{
    /* Commit 1 at ctl is the acceptance of ATTACH, commit 2 its result. */
    for (unsigned commit = 1; commit <= 2; commit++) {
        for (int before = 0; before < 2; before++) {
            struct cluster *c = cluster_new_dying(CTL, commit, before);
            struct lmo_op_request req;
            struct lmo_op_reply reply;
            cluster_fill(c, LMO_OP_ATTACH, &req);
            req.volume_count = 1;
            LMO_COPY(req.host, "hv2");
            ck_assert_int_eq(put_as(c, CTL, &req, &reply), 0);
            ck_assert_int_eq(reply.code, 0);
            ck_assert_str_eq(reply.export_name, "vol1.hv2.e7");
            ck_assert_uint_eq(c->restarts, 1);
            ck_assert_uint_le(fake_count(c->world, FAKE_ATTACH), 2);
            cluster_free(c);
        }
    }
}
END_TEST

START_TEST(a_job_is_never_started_twice)
{
    struct lmo_op_request req;
    struct lmo_op_reply reply;
    /* Acceptance on disk, the driver's call made, its result lost: the job is found. */
    struct cluster *c = cluster_new_dying(HV1, 2, true);
    c->world->cfg.automatic = false;
    cluster_fill(c, LMO_OP_JOB_START, &req);
    ck_assert_int_eq(put_as(c, HV1, &req, &reply), 0);
    ck_assert_int_eq(reply.code, 0);
    ck_assert_uint_eq(c->restarts, 1);
    ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_START), 1);
    ck_assert(fake_guest(c->world, 0)->job.running);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_JOB_ABORT, NULL), 0);
    cluster_free(c);
    /* Acceptance on disk, nothing done: no job is found, and none is started. */
    c = cluster_new_dying(HV1, 1, false);
    cluster_fill(c, LMO_OP_JOB_START, &req);
    ck_assert_int_eq(put_as(c, HV1, &req, &reply), 0);
    ck_assert_int_eq(reply.code, LMO_E_UNAVAILABLE);
    ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_START), 0);
    /* A new order may. */
    c->world->cfg.automatic = false;
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_JOB_START, NULL), LMO_E_CONFLICT);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_JOB_ABORT, NULL), 0);
    cluster_free(c);
}
END_TEST

START_TEST(a_start_whose_answer_is_lost_is_looked_for)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    fake_fail(c->world, FAKE_JOB_START, LMO_E_UNKNOWN, 1, true);
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_ADOPT), 1);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_JOB_ABORT, NULL), 0);
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_JOB_END, 1000, NULL));
    cluster_free(c);
}
END_TEST

START_TEST(a_running_job_is_taken_over_by_a_restarted_worker)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    ck_assert_int_eq(cluster_start_job(c), 0);
    cluster_restart(c, HV1);
    nap(100);
    ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_ADOPT), 1);
    fake_give_up(c->world);
    struct lmo_worker_event e;
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_JOB_END, 2000, &e));
    ck_assert_str_eq(e.text, "client socket is closed");
    cluster_free(c);
}
END_TEST

START_TEST(a_job_that_ended_unseen_is_reported_as_such)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    ck_assert_int_eq(cluster_start_job(c), 0);
    cluster_stop(c, HV1);
    fake_give_up(c->world);
    cluster_start(c, HV1);
    struct lmo_worker_event e;
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_JOB_END, 2000, &e));
    ck_assert(!e.ok);
    cluster_free(c);
}
END_TEST

/* ------------------------------------------------------------------ epochs and closing */

START_TEST(a_lower_epoch_is_refused)
{
    struct cluster *c = cluster_new();
    ck_assert_int_eq(cluster_op_volume(c, LMO_OP_ATTACH, 0), 0);
    c->epoch = 9;
    ck_assert_int_eq(cluster_op_volume(c, LMO_OP_ATTACH, 1), 0);
    c->epoch = 8;
    ck_assert_int_eq(cluster_op_volume(c, LMO_OP_DETACH_SOURCE, 0), LMO_E_STALE_EPOCH);
    cluster_restart(c, CTL);
    ck_assert_int_eq(cluster_op_volume(c, LMO_OP_DETACH_SOURCE, 0), LMO_E_STALE_EPOCH);
    ck_assert_uint_eq(fake_count(c->world, FAKE_DETACH), 0);
    c->epoch = 9;
    ck_assert_int_eq(cluster_op_volume(c, LMO_OP_DETACH_SOURCE, 0), 0);
    cluster_free(c);
}
END_TEST

START_TEST(what_is_closed_is_gone_and_closing_again_is_done)
{
    struct cluster *c = cluster_new();
    struct lmo_op_request attach, close;
    struct lmo_op_reply reply;
    char path[160], code[64];
    cluster_fill(c, LMO_OP_ATTACH, &attach);
    attach.volume_count = 1;
    ck_assert_int_eq(put_as(c, CTL, &attach, &reply), 0);
    cluster_fill(c, LMO_OP_CLOSE_VOLUME, &close);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(put_as(c, CTL, &close, &reply), 0);
        ck_assert_int_eq(reply.state, LMO_OP_DONE);
        if (i == 1) {
            cluster_restart(c, CTL);
        }
    }
    ck_assert_int_eq(put_as(c, CTL, &attach, &reply), LMO_E_GONE);
    ck_assert_uint_eq(fake_count(c->world, FAKE_ATTACH), 1);
    snprintf(path, sizeof path, "/v1/ops/%s", attach.id);
    ck_assert_uint_eq(get(c, NULL, CTL, path, code), 410);
    snprintf(path, sizeof path, "/v1/ops/%s", close.id);
    ck_assert_uint_eq(get(c, NULL, CTL, path, code), 200);
    /* Another role of the same worker is not closed by it. */
    ck_assert_int_eq(cluster_op(c, CTL, LMO_OP_DUAL, NULL), 0);
    ck_assert_int_eq(cluster_op(c, CTL, LMO_OP_CLOSE_FABRIC, NULL), 0);
    ck_assert_int_eq(cluster_op(c, CTL, LMO_OP_DUAL, NULL), LMO_E_GONE);
    /* The next migration of the guest, under a higher epoch, is welcome. */
    lmo_ulid_generate(c->migration);
    ck_assert_int_eq(cluster_op(c, CTL, LMO_OP_DUAL, NULL), LMO_E_GONE);
    c->epoch++;
    ck_assert_int_eq(cluster_op(c, CTL, LMO_OP_DUAL, NULL), 0);
    cluster_free(c);
}
END_TEST

START_TEST(an_id_that_was_never_seen_is_not_found)
{
    struct cluster *c = cluster_new();
    char code[64];
    ck_assert_uint_eq(get(c, NULL, HV1, "/v1/ops/01ARZ3NDEKTSV4RRFFQ69G5FAV.7.1-prepare", code), 404);
    ck_assert_str_eq(code, "not_found");
    cluster_free(c);
}
END_TEST

START_TEST(nothing_that_owes_something_can_be_closed)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert_int_eq(cluster_arm(c), 0);
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_CLOSE_SOURCE, NULL), LMO_E_BUSY);
    fake_fail(c->world, FAKE_VERIFY, LMO_E_REFUSED, 100000, false);
    fake_suspend(c->world);
    fake_load(c->world);
    nap(200);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_CLOSE_SOURCE, NULL), LMO_E_BUSY);
    ck_assert_int_eq(cluster_op(c, HV2, LMO_OP_CLOSE_DESTINATION, NULL), LMO_E_BUSY);
    fake_fail(c->world, FAKE_VERIFY, 0, 0, false);
    ck_assert(cluster_until_resumed(c, 5000));
    ck_assert_int_eq(cluster_finalize(c), 0);
    ck_assert_int_eq(cluster_close(c), 0);
    cluster_free(c);
}
END_TEST

/* ------------------------------------------------------------------ who may ask */

START_TEST(only_the_coordinator_orders_and_observes)
{
    struct cluster *c = cluster_new();
    static const char *const paths[] = {"/v1/events?after=0",
                                        "/v1/observe/host",
                                        "/v1/observe/vms",
                                        "/v1/observe/migrations",
                                        "/v1/ops/01ARZ3NDEKTSV4RRFFQ69G5FAV.7.1-prepare",
                                        "/v1/observe/vm/guest"};
    char code[64];
    struct lmo_http_client *others[] = {client_as(c, "worker", "hv2"), client_as(c, "operator", "ann")};
    for (unsigned o = 0; o < 2; o++) {
        for (unsigned i = 0; i < sizeof paths / sizeof paths[0]; i++) {
            ck_assert_uint_eq(get(c, others[o], HV1, paths[i], code), 403);
            ck_assert_str_eq(code, "forbidden");
        }
        ck_assert_uint_eq(get(c, others[o], HV1, "/healthz", code), 200);
    }
    ck_assert_uint_eq(post_peer(c, others[1], HV1, "ping", NULL, 0, code), 403);
    ck_assert_uint_eq(post_peer(c, NULL, HV1, "ping", NULL, 0, code), 403);
    ck_assert_uint_eq(get(c, NULL, HV1, "/v1/observe/host", code), 200);
    ck_assert_uint_eq(get(c, NULL, HV1, "/v1/observe/vm/guest", code), 200);
    ck_assert_uint_eq(get(c, NULL, HV1, "/v1/observe/vm/nobody", code), 404);
    ck_assert_uint_eq(get(c, NULL, HV1, "/v1/observe/volume/vol1", code), 422);
    ck_assert_uint_eq(get(c, NULL, CTL, "/v1/observe/volume/vol1", code), 200);
    ck_assert_uint_eq(get(c, NULL, CTL, "/v1/observe/port/" FAKE_PORT, code), 200);
    ck_assert_uint_eq(get(c, NULL, HV1, "/v1/nothing", code), 404);
    lmo_http_client_free(others[0]);
    lmo_http_client_free(others[1]);
    cluster_free(c);
}
END_TEST

START_TEST(peers_need_a_permit_that_names_both_of_them)
{
    struct cluster *c = cluster_new();
    char code[64], wrong[LMO_PERMIT_TEXT_MAX], good[LMO_PERMIT_TEXT_MAX], key[128], other[128];
    struct lmo_http_client *hv1 = client_as(c, "worker", "hv1"), *hv2 = client_as(c, "worker", "hv2"),
                           *hv9 = client_as(c, "worker", "hv9");
    ck_assert_int_eq(cluster_prepare(c), 0);
    cluster_sign(c, c->epoch, 60000, good);
    snprintf(key, sizeof key, "%s/permit.key", cluster_pki());
    cluster_sign_as(c, key, c->epoch, 60000, "hv9", "hv2", wrong);
    ck_assert_uint_eq(post_peer(c, hv2, HV1, "freeze", NULL, 0, code), 403);
    ck_assert_uint_eq(post_peer(c, hv9, HV1, "freeze", good, 0, code), 403);
    ck_assert_uint_eq(post_peer(c, hv2, HV1, "freeze", wrong, 0, code), 403);
    ck_assert_uint_eq(post_peer(c, hv1, HV1, "kill", good, 0, code), 403);
    ck_assert_uint_eq(post_peer(c, hv9, CTL, "fence", good, 0, code), 403);
    ck_assert_uint_eq(post_peer(c, hv1, CTL, "fence", good, 0, code), 403);
    ck_assert_uint_eq(post_peer(c, hv2, CTL, "fence", good, 5, code), 400);
    ck_assert_uint_eq(post_peer(c, hv2, HV2, "suspended", good, 0, code), 403);
    ck_assert_uint_eq(post_peer(c, hv2, HV1, "nonsense", good, 0, code), 404);
    /* Signed by another key. */
    snprintf(other, sizeof other, "%s/other", c->dir);
    struct lmo_err err = {0};
    ck_assert_msg(lmo_pki_init(other, &err) == 0, "%s", err.text);
    LMO_COPY(key, other);
    snprintf(key + strlen(key), sizeof key - strlen(key), "/permit.key");
    cluster_sign_as(c, key, c->epoch, 60000, "hv1", "hv2", wrong);
    ck_assert_uint_eq(post_peer(c, hv2, CTL, "fence", wrong, 0, code), 403);
    /* An older epoch than what was seen. */
    cluster_sign(c, c->epoch - 1, 60000, wrong);
    ck_assert_uint_eq(post_peer(c, hv2, CTL, "fence", wrong, 0, code), 409);
    ck_assert_str_eq(code, "stale_epoch");
    ck_assert_uint_eq(fake_count(c->world, FAKE_FENCE), 0);
    ck_assert_uint_eq(fake_count(c->world, FAKE_FREEZE), 0);
    ck_assert_uint_eq(fake_count(c->world, FAKE_KILL), 0);
    /* The right one, for a migration whose job never started here: nothing is known, nothing is stopped. */
    ck_assert_uint_eq(post_peer(c, hv2, HV1, "freeze", good, 0, code), 404);
    ck_assert_uint_eq(fake_count(c->world, FAKE_FREEZE), 0);
    /* Closed: gone. */
    ck_assert_int_eq(cluster_op_volume(c, LMO_OP_CLOSE_VOLUME, 0), 0);
    ck_assert_uint_eq(post_peer(c, hv2, CTL, "fence", good, 0, code), 410);
    lmo_http_client_free(hv1);
    lmo_http_client_free(hv2);
    lmo_http_client_free(hv9);
    cluster_free(c);
}
END_TEST

START_TEST(a_kill_is_refused_while_the_source_may_run)
{
    struct cluster *c = cluster_new();
    char code[64];
    c->world->cfg.automatic = false;
    struct lmo_http_client *hv2 = client_as(c, "worker", "hv2");
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert_int_eq(cluster_arm(c), 0);
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_uint_eq(post_peer(c, hv2, HV1, "kill", c->permit, 0, code), 409);
    fake_suspend(c->world);
    nap(50);
    ck_assert_uint_eq(post_peer(c, hv2, HV1, "kill", c->permit, 0, code), 409);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_REMOVE_SOURCE, NULL), LMO_E_CONFLICT);
    ck_assert_uint_eq(fake_count(c->world, FAKE_KILL), 0);
    lmo_http_client_free(hv2);
    cluster_free(c);
}
END_TEST

START_TEST(a_permit_is_armed_only_if_everything_fits)
{
    struct cluster *c = cluster_new();
    char why[LMO_TEXT_MAX], key[128];
    snprintf(key, sizeof key, "%s/permit.key", cluster_pki());
    ck_assert_int_eq(cluster_prepare(c), 0);
    cluster_sign_as(c, key, c->epoch, 60000, "hv1", "hv9", c->permit);
    ck_assert_int_eq(cluster_op(c, HV2, LMO_OP_PERMIT, why), LMO_E_FORBIDDEN);
    cluster_sign_as(c, key, c->epoch, 60000, "hv9", "hv2", c->permit);
    ck_assert_int_eq(cluster_op(c, HV2, LMO_OP_PERMIT, why), LMO_E_INVALID);
    cluster_sign(c, c->epoch + 1, 60000, c->permit);
    ck_assert_int_eq(cluster_op(c, HV2, LMO_OP_PERMIT, why), LMO_E_INVALID);
    cluster_sign(c, c->epoch, 1, c->permit);
    nap(5);
    ck_assert_int_eq(cluster_op(c, HV2, LMO_OP_PERMIT, why), LMO_E_REFUSED);
    /* The volumes' worker is not there: the receipt could not say that it was reached. */
    cluster_stop(c, CTL);
    cluster_sign(c, c->epoch, 60000, c->permit);
    ck_assert_int_eq(cluster_op(c, HV2, LMO_OP_PERMIT, why), LMO_E_UNAVAILABLE);
    char stage[32];
    (void)cluster_observe_stage(c, HV2, "destination", stage);
    ck_assert_str_eq(stage, "idle");
    cluster_start(c, CTL);
    ck_assert_int_eq(cluster_op(c, HV2, LMO_OP_PERMIT, why), 0);
    (void)cluster_observe_stage(c, HV2, "destination", stage);
    ck_assert_str_eq(stage, "armed");
    /* Again, with other times: the same agreement. With other contents: not. */
    cluster_sign(c, c->epoch, 90000, c->permit);
    ck_assert_int_eq(cluster_op(c, HV2, LMO_OP_PERMIT, why), 0);
    c->paused_by_user = true;
    cluster_sign(c, c->epoch, 90000, c->permit);
    ck_assert_int_eq(cluster_op(c, HV2, LMO_OP_PERMIT, why), LMO_E_CONFLICT);
    cluster_free(c);
}
END_TEST

START_TEST(a_worker_without_the_capability_says_so)
{
    struct cluster *c = cluster_new();
    ck_assert_int_eq(cluster_op(c, CTL, LMO_OP_PREPARE, NULL), LMO_E_UNSUPPORTED);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_DUAL, NULL), LMO_E_UNSUPPORTED);
    struct lmo_op_request req;
    struct lmo_op_reply reply;
    cluster_fill(c, LMO_OP_PREPARE, &req);
    free(req.xml);
    req.xml = NULL;
    ck_assert_int_eq(put_as(c, HV2, &req, &reply), LMO_E_INVALID);
    cluster_free(c);
}
END_TEST

/* ------------------------------------------------------------------ the job's guards */

START_TEST(convergence_with_the_gate_shut_is_aborted)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert_int_eq(cluster_start_job(c), 0);
    nap(300);
    ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_ABORT), 0);
    fake_lock(c->world);
    fake_guest(c->world, 0)->job.remaining = 100000;
    fake_unlock(c->world);
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_GATE_ABORTED, 2000, NULL));
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_JOB_END, 2000, NULL));
    ck_assert_int_eq(fake_runs_at(c->world), 0);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_OPEN_GATE, NULL), LMO_E_CONFLICT);
    cluster_free(c);
}
END_TEST

START_TEST(behind_the_open_gate_convergence_is_welcome)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    fake_guest(c->world, 0)->job.remaining = 1;
    fake_guest(c->world, 0)->job.iteration = 5;
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert_int_eq(cluster_arm(c), 0);
    fake_guest(c->world, 0)->job.total = 0; /* as before the first statistics come in */
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_int_eq(cluster_open(c), 0);
    fake_lock(c->world);
    fake_guest(c->world, 0)->job.total = 1000000;
    fake_guest(c->world, 0)->job.iteration = 5;
    fake_unlock(c->world);
    nap(500);
    ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_ABORT), 0);
    cluster_poll(c, HV1, 500);
    ck_assert(c->m[HV1].has_progress);
    ck_assert_uint_eq(c->m[HV1].progress.iteration, 5);
    cluster_free(c);
}
END_TEST

START_TEST(guest_that_was_changed_since_it_was_described_is_not_moved)
{
    static const struct {
        uint64_t memory_bytes;
        uint32_t vcpus;
        bool disk, port;
        const char *says;
    } cases[] = {{512U << 20, 0, false, false, "memory"},
                 {256U << 20, 77, false, false, "vCPUs"},
                 {256U << 20, 0, true, false, "disk vdz is gone"},
                 {256U << 20, 0, false, true, "port nobody is gone"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cluster *c = cluster_new();
        struct lmo_op_request req;
        struct lmo_op_reply reply;
        c->world->cfg.automatic = false;
        ck_assert_int_eq(cluster_prepare(c), 0);
        cluster_fill(c, LMO_OP_JOB_START, &req); /* as it was then */
        req.memory_bytes = cases[i].memory_bytes;
        req.vcpus = cases[i].vcpus;
        if (cases[i].disk) {
            strcpy(req.volumes[0].target, "vdz");
        }
        if (cases[i].port) {
            strcpy(req.ports[0].id, "nobody");
        }
        ck_assert_int_eq(put_as(c, HV1, &req, &reply), 0);
        ck_assert_int_eq(reply.code, LMO_E_CONFLICT);
        ck_assert_msg(strstr(reply.text, "was changed since") && strstr(reply.text, cases[i].says), "%s", reply.text);
        ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_START), 0);
        cluster_free(c);
    }
}
END_TEST

START_TEST(throttling_is_the_hypervisors_only_when_the_order_allows_it)
{
    for (uint32_t percent = 0; percent <= 30; percent += 30) {
        struct cluster *c = cluster_new();
        c->world->cfg.automatic = false;
        ck_assert_int_eq(cluster_prepare(c), 0);
        struct lmo_op_request req;
        struct lmo_op_reply reply;
        cluster_fill(c, LMO_OP_JOB_START, &req);
        req.throttle_initial_percent = percent;
        req.throttle_increment_percent = percent;
        ck_assert_int_eq(put_as(c, HV1, &req, &reply), 0);
        ck_assert_int_eq(reply.code, 0);
        fake_lock(c->world);
        ck_assert_uint_eq(fake_guest(c->world, 0)->job.throttle_initial_percent, percent);
        ck_assert_uint_eq(fake_guest(c->world, 0)->job.throttle_increment_percent, percent);
        fake_unlock(c->world);
        cluster_free(c);
    }
}
END_TEST

START_TEST(raised_downtime_limit_reaches_the_hypervisor_with_the_bandwidth)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert_int_eq(cluster_arm(c), 0);
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_int_eq(cluster_open(c), 0);
    static const uint64_t limits[] = {60, 120, 6000};
    for (unsigned i = 0; i < 3; i++) {
        struct lmo_op_request req;
        struct lmo_op_reply reply;
        cluster_fill(c, LMO_OP_OPEN_GATE, &req);
        req.downtime_ms = limits[i];
        req.bandwidth_bytes_per_s = 48 << 20;
        ck_assert_int_eq(put_as(c, HV1, &req, &reply), 0);
        ck_assert_int_eq(reply.code, 0);
        fake_lock(c->world);
        ck_assert_uint_eq(fake_guest(c->world, 0)->job.downtime_ms, limits[i]);
        ck_assert_uint_eq(fake_guest(c->world, 0)->job.bandwidth_bytes_per_s, 48 << 20);
        fake_unlock(c->world);
    }
    cluster_free(c);
}
END_TEST

static void describe(struct cluster *c, uint32_t fresh_ms, struct lmo_op_reply *reply)
{
    struct lmo_op_request req;
    cluster_fill(c, LMO_OP_DESCRIBE, &req);
    req.dirty_fresh_ms = fresh_ms;
    ck_assert_int_eq(put_as(c, HV1, &req, reply), 0);
    ck_assert_int_eq(reply->code, 0);
    ck_assert(reply->has_facts);
}

START_TEST(dirty_rate_is_waited_for_only_where_a_start_depends_on_it)
{
    struct cluster *c = cluster_new();
    struct lmo_op_reply reply;
    fake_guest(c->world, 0)->dirty_bytes_per_s = 70 << 20;
    describe(c, 0, &reply);
    ck_assert_uint_eq(fake_count(c->world, FAKE_MEASURE_DIRTY), 0);
    ck_assert_uint_eq(reply.facts.dirty_age_ms, 0); /* nobody has measured it */
    lmo_op_reply_done(&reply);
    describe(c, 10000, &reply);
    ck_assert_uint_eq(fake_count(c->world, FAKE_MEASURE_DIRTY), 1);
    ck_assert_uint_eq(reply.facts.dirty_bytes_per_s, 70 << 20);
    ck_assert_uint_gt(reply.facts.dirty_age_ms, 0);
    lmo_op_reply_done(&reply);
    describe(c, 0, &reply); /* from now on it is known */
    ck_assert_uint_eq(fake_count(c->world, FAKE_MEASURE_DIRTY), 1);
    ck_assert_uint_eq(reply.facts.dirty_bytes_per_s, 70 << 20);
    lmo_op_reply_done(&reply);
    cluster_free(c);
}
END_TEST

START_TEST(guest_is_described_although_its_dirty_rate_cannot_be_measured)
{
    struct cluster *c = cluster_new();
    struct lmo_op_reply reply;
    fake_fail(c->world, FAKE_MEASURE_DIRTY, LMO_E_TIMEOUT, 1, false);
    describe(c, 10000, &reply);
    ck_assert_uint_eq(reply.facts.dirty_age_ms, 0);
    lmo_op_reply_done(&reply);
    cluster_free(c);
}
END_TEST

START_TEST(figures_of_disks_that_are_copied_are_reported_beside_the_memorys)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    ck_assert_int_eq(cluster_prepare(c), 0);
    fake_guest(c->world, 0)->job.total = 0;
    ck_assert_int_eq(cluster_start_job(c), 0);
    fake_lock(c->world);
    fake_guest(c->world, 0)->job.disk_total = 1000;
    fake_guest(c->world, 0)->job.disk_remaining = 400;
    fake_unlock(c->world);
    for (int i = 0; i < 40 && c->m[HV1].progress.disk_total_bytes == 0; i++)
        cluster_poll(c, HV1, 200);
    ck_assert_uint_eq(c->m[HV1].progress.disk_total_bytes, 1000);
    ck_assert_uint_eq(c->m[HV1].progress.disk_remaining_bytes, 400);
    cluster_free(c);
}
END_TEST

START_TEST(a_silent_coordinator_ends_the_precopy)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    c->deadman_ms = 700;
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert_int_eq(cluster_arm(c), 0);
    ck_assert_int_eq(cluster_start_job(c), 0);
    for (int i = 0; i < 12; i++) {
        cluster_poll(c, HV1, 100);
    }
    ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_ABORT), 0);
    nap(1200);
    ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_ABORT), 1);
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_DEADMAN, 1000, NULL));
    ck_assert_int_eq(fake_runs_at(c->world), 0);
    cluster_free(c);
}
END_TEST

START_TEST(after_the_pause_a_silent_coordinator_changes_nothing)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    c->deadman_ms = 300;
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert_int_eq(cluster_arm(c), 0);
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_int_eq(cluster_open(c), 0);
    fake_suspend(c->world);
    nap(900);
    ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_ABORT), 0);
    fake_load(c->world);
    ck_assert(fake_wait_runs_at(c->world, 1, 3000));
    cluster_free(c);
}
END_TEST

/* ------------------------------------------------------------------ events and the disk */

START_TEST(events_are_kept_until_they_are_acknowledged)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    ck_assert_int_eq(cluster_start_job(c), 0);
    fake_give_up(c->world);
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_JOB_END, 2000, NULL));
    uint64_t cursor = c->m[HV1].cursor;
    ck_assert_uint_gt(cursor, 0);
    c->m[HV1].cursor = 0;
    c->m[HV1].event_count = 0;
    cluster_restart(c, HV1);
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_JOB_END, 2000, NULL)); /* not acknowledged: told again */
    cluster_poll(c, HV1, 0);
    nap(1200); /* the acknowledgement reaches the disk within a second */
    c->m[HV1].cursor = 0;
    c->m[HV1].event_count = 0;
    cluster_poll(c, HV1, 0);
    ck_assert_uint_eq(c->m[HV1].event_count, 0);
    ck_assert_uint_ge(c->m[HV1].cursor, cursor); /* where the stream stands, not what was asked */
    /* A cursor from another life of the journal: numbering goes on above it. */
    c->m[HV1].cursor = 1000;
    cluster_poll(c, HV1, 0);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_REVIVE, NULL), 0);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_CLOSE_SOURCE, NULL), 0);
    lmo_ulid_generate(c->migration);
    c->epoch++;
    ck_assert_int_eq(cluster_start_job(c), 0);
    fake_give_up(c->world);
    struct lmo_worker_event e;
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_JOB_END, 2000, &e));
    ck_assert_uint_gt(e.seq, 1000);
    cluster_free(c);
}
END_TEST

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    ck_assert(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    ck_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

START_TEST(a_full_disk_stops_everything_before_it_happens)
{
    struct cluster *c = cluster_new();
    signal(SIGXFSZ, SIG_IGN);
    c->world->cfg.automatic = false;
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert_int_eq(cluster_arm(c), 0);
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_int_eq(cluster_open(c), 0);
    unsigned attached = fake_count(c->world, FAKE_ATTACH);
    limit_files(1);
    int r = cluster_op_volume(c, LMO_OP_ATTACH, 0);
    ck_assert_msg(r == LMO_E_IO || r == LMO_E_NO_SPACE, "%d", r);
    ck_assert_uint_eq(fake_count(c->world, FAKE_ATTACH), attached);
    fake_suspend(c->world);
    fake_load(c->world);
    nap(400);
    ck_assert_uint_eq(fake_count(c->world, FAKE_FREEZE), 0);
    ck_assert_int_eq(fake_runs_at(c->world), -1);
    char code[64];
    ck_assert_uint_eq(get(c, NULL, HV2, "/healthz", code), 503);
    limit_files(RLIM_INFINITY);
    ck_assert(cluster_until_resumed(c, 15000));
    ck_assert_int_eq(cluster_op_volume(c, LMO_OP_ATTACH, 0), 0);
    cluster_free(c);
}
END_TEST

START_TEST(a_journal_of_another_host_is_refused)
{
    struct cluster *c = cluster_new();
    struct lmo_worker *w = NULL;
    struct lmo_err err = {0};
    cluster_stop(c, HV1);
    struct lmo_worker_config cfg = c->m[HV1].cfg;
    LMO_COPY(cfg.facts.host, "hv2");
    cfg.tls = cluster_tls("worker", "hv2");
    ck_assert_int_eq(lmo_worker_new(&cfg, &w, &err), LMO_E_CONFLICT);
    cfg = c->m[HV2].cfg; /* runs: locked */
    ck_assert_int_eq(lmo_worker_new(&cfg, &w, &err), LMO_E_BUSY);
    cluster_free(c);
}
END_TEST

START_TEST(a_worker_whose_certificate_is_of_another_host_does_not_start)
{
    static const struct {
        const char *role, *name, *expected;
    } cases[] = {
        {"worker", "hv9", "is of worker 'hv9'; right would be a certificate of urn:lmo:worker:hv1, or host = hv9"},
        {"operator", "ann", "is of operator 'ann'; right would be a certificate of urn:lmo:worker:hv1"},
    };
    struct cluster *c = cluster_new();
    cluster_stop(c, HV1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_worker *w = NULL;
        struct lmo_err err = {0};
        struct lmo_worker_config cfg = c->m[HV1].cfg;
        cfg.tls = cluster_tls(cases[i].role, cases[i].name);
        ck_assert_int_eq(lmo_worker_new(&cfg, &w, &err), LMO_E_INVALID);
        ck_assert_ptr_null(w);
        ck_assert_msg(strstr(err.text, "[worker] host is 'hv1'") != NULL, "%s", err.text);
        ck_assert_msg(strstr(err.text, cfg.tls.cert) != NULL, "%s", err.text);
        const char *at = strstr(err.text, cases[i].expected);
        ck_assert_msg(at && strlen(at) == strlen(cases[i].expected), "%s", err.text);
    }
    cluster_start(c, HV1); /* its own: as before */
    cluster_free(c);
}
END_TEST

Suite *worker_ops_suite(void);
Suite *worker_ops_suite(void)
{
    Suite *s = suite_create("worker_ops");
    TCase *t = tcase_create("ops");
    tcase_add_unchecked_fixture(t, cluster_pki_setup, cluster_pki_teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_repeated_op_is_answered_and_not_run_again);
    tcase_add_test(t, a_failed_op_keeps_its_failure);
    tcase_add_test(t, an_outcome_that_nobody_knows_is_looked_into_under_the_same_id);
    tcase_add_test(t, an_order_that_names_another_guest_than_its_migration_is_refused);
    tcase_add_test(t, two_requests_with_one_id_share_one_run);
    tcase_add_test(t, one_id_for_two_requests_is_a_conflict);
    tcase_add_test(t, an_op_cut_short_by_a_restart_is_taken_up_again);
    tcase_add_test(t, a_job_is_never_started_twice);
    tcase_add_test(t, a_start_whose_answer_is_lost_is_looked_for);
    tcase_add_test(t, a_running_job_is_taken_over_by_a_restarted_worker);
    tcase_add_test(t, a_job_that_ended_unseen_is_reported_as_such);
    tcase_add_test(t, a_lower_epoch_is_refused);
    tcase_add_test(t, what_is_closed_is_gone_and_closing_again_is_done);
    tcase_add_test(t, an_id_that_was_never_seen_is_not_found);
    tcase_add_test(t, nothing_that_owes_something_can_be_closed);
    tcase_add_test(t, only_the_coordinator_orders_and_observes);
    tcase_add_test(t, peers_need_a_permit_that_names_both_of_them);
    tcase_add_test(t, a_kill_is_refused_while_the_source_may_run);
    tcase_add_test(t, a_permit_is_armed_only_if_everything_fits);
    tcase_add_test(t, a_worker_without_the_capability_says_so);
    tcase_add_test(t, convergence_with_the_gate_shut_is_aborted);
    tcase_add_test(t, behind_the_open_gate_convergence_is_welcome);
    tcase_add_test(t, guest_that_was_changed_since_it_was_described_is_not_moved);
    tcase_add_test(t, throttling_is_the_hypervisors_only_when_the_order_allows_it);
    tcase_add_test(t, raised_downtime_limit_reaches_the_hypervisor_with_the_bandwidth);
    tcase_add_test(t, dirty_rate_is_waited_for_only_where_a_start_depends_on_it);
    tcase_add_test(t, guest_is_described_although_its_dirty_rate_cannot_be_measured);
    tcase_add_test(t, figures_of_disks_that_are_copied_are_reported_beside_the_memorys);
    tcase_add_test(t, a_silent_coordinator_ends_the_precopy);
    tcase_add_test(t, after_the_pause_a_silent_coordinator_changes_nothing);
    tcase_add_test(t, events_are_kept_until_they_are_acknowledged);
    tcase_add_test(t, a_full_disk_stops_everything_before_it_happens);
    tcase_add_test(t, a_journal_of_another_host_is_refused);
    tcase_add_test(t, a_worker_whose_certificate_is_of_another_host_does_not_start);
    suite_add_tcase(s, t);
    return s;
}
