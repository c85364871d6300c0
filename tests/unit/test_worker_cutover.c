/* test_worker_cutover.c - whole migrations between workers: the happy path, the four answers, lost peers, restarts at
 * every commit. The fake world checks all the while that never two copies run and that no stale one does. */
#include "test_worker_cluster.h"

#include "base/clock.h"
#include "workers/worker.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void nap(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}

static void assert_moved(struct cluster *c)
{
    ck_assert_int_eq(fake_runs_at(c->world), 1);
    for (unsigned v = 0; v < FAKE_VOLUMES; v++) {
        ck_assert(fake_guest(c->world, 0)->volumes[v].exports[0].fenced);
        ck_assert(fake_guest(c->world, 0)->volumes[v].exports[1].offered);
    }
}

static void assert_stayed(struct cluster *c)
{
    ck_assert_int_eq(fake_runs_at(c->world), 0);
    ck_assert(!fake_guest(c->world, 0)->copies[1].process);
    for (unsigned v = 0; v < FAKE_VOLUMES; v++) {
        ck_assert(fake_guest(c->world, 0)->volumes[v].exports[0].offered);
        ck_assert(!fake_guest(c->world, 0)->volumes[v].exports[1].offered);
    }
}

static void assert_nothing_left(struct cluster *c)
{
    char stage[32];
    for (int i = 0; i < MEMBERS; i++) {
        ck_assert_uint_eq(cluster_observe_stage(c, i, "source", stage), 0);
    }
}

/* Ready for the pause: armed, job running, gate open (but nothing moves by itself). */
static struct cluster *ready(void)
{
    struct cluster *c = cluster_new();
    c->world->cfg.automatic = false;
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert_int_eq(cluster_arm(c), 0);
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_int_eq(cluster_open(c), 0);
    return c;
}

static void assert_stage(struct cluster *c, int member, const char *role, const char *expected, unsigned timeout_ms)
{
    char stage[32] = "";
    uint64_t end = lmo_now_ms() + timeout_ms;
    do {
        (void)cluster_observe_stage(c, member, role, stage);
        if (strcmp(stage, expected) == 0) {
            return;
        }
        nap(10);
    } while (lmo_now_ms() < end);
    ck_assert_str_eq(stage, expected);
}

START_TEST(a_guest_moves_and_nothing_is_left_behind)
{
    struct cluster *c = cluster_new();
    struct lmo_worker_event e;
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert_int_eq(cluster_arm(c), 0);
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_int_eq(cluster_open(c), 0);
    ck_assert(cluster_until_resumed(c, 5000));
    assert_moved(c);
    ck_assert(cluster_has_event(c, HV2, LMO_WEV_RESUMED, &e));
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_JOB_END, 3000, NULL));
    if (getenv("LMO_TEST_TRACE")) {
        fprintf(stderr, "loaded to resumed: %llu us\n", (unsigned long long)e.duration_us);
    }
    ck_assert(fake_guest(c->world, 0)->destination_open);
    ck_assert_int_eq(cluster_finalize(c), 0);
    ck_assert_int_eq(cluster_close(c), 0);
    assert_nothing_left(c);
    ck_assert(!fake_guest(c->world, 0)->copies[0].process && !fake_guest(c->world, 0)->copies[0].defined);
    ck_assert_uint_eq(fake_count(c->world, FAKE_RESUME), 1);
    ck_assert_uint_eq(fake_count(c->world, FAKE_FREEZE), 1);
    ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_START), 1);
    for (int i = 0; i < 200 && fake_count(c->world, FAKE_RELEASE) == 0; i++) {
        nap(10);
    }
    ck_assert_uint_ge(fake_count(c->world, FAKE_RELEASE), 1);
    cluster_free(c);
}
END_TEST

START_TEST(a_paused_guest_stays_paused)
{
    struct cluster *c = cluster_new();
    fake_guest(c->world, 0)->copies[0].vcpus = false;
    fake_guest(c->world, 0)->copies[0].paused_by_user = true;
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert(c->paused_by_user);
    ck_assert_int_eq(cluster_arm(c), 0);
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_int_eq(cluster_open(c), 0);
    ck_assert(cluster_until_resumed(c, 5000));
    ck_assert_int_eq(fake_runs_at(c->world), -1);
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_SOURCE_GONE, 3000, NULL));
    ck_assert(fake_guest(c->world, 0)->copies[1].process && !fake_guest(c->world, 0)->copies[0].process);
    ck_assert_uint_eq(fake_count(c->world, FAKE_RESUME), 0);
    ck_assert_int_eq(cluster_finalize(c), 0);
    ck_assert_int_eq(cluster_close(c), 0);
    cluster_free(c);
}
END_TEST

START_TEST(cancel_before_the_pause_leaves_the_guest_where_it_is)
{
    struct cluster *c = ready();
    ck_assert_int_eq(cluster_rollback(c), 0);
    ck_assert_int_eq(cluster_close(c), 0);
    assert_stayed(c);
    assert_nothing_left(c);
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_JOB_END, 1000, NULL));
    cluster_free(c);
}
END_TEST

START_TEST(ingress_is_opened_at_the_pause_already)
{
    struct cluster *c = ready();
    fake_suspend(c->world);
    uint64_t end = lmo_now_ms() + 3000;
    while (fake_count(c->world, FAKE_ACTIVATE) == 0 && lmo_now_ms() < end) {
        nap(5);
    }
    ck_assert_uint_eq(fake_count(c->world, FAKE_ACTIVATE), 1);
    fake_load(c->world);
    ck_assert(cluster_until_resumed(c, 5000));
    ck_assert_uint_eq(fake_count(c->world, FAKE_ACTIVATE), 1);
    cluster_free(c);
}
END_TEST

START_TEST(without_a_permit_the_loaded_guest_waits_for_one)
{
    struct cluster *c = cluster_new();
    ck_assert_int_eq(cluster_prepare(c), 0);
    ck_assert_int_eq(cluster_start_job(c), 0);
    ck_assert_int_eq(cluster_open(c), 0);
    ck_assert(cluster_wait_event(c, HV2, LMO_WEV_PERMIT_WANTED, 3000, NULL));
    ck_assert_int_eq(fake_runs_at(c->world), -1);
    ck_assert_int_eq(cluster_op(c, HV2, LMO_OP_DISCARD, NULL), LMO_E_BUSY);
    ck_assert_int_eq(cluster_arm(c), 0);
    ck_assert(cluster_until_resumed(c, 5000));
    assert_moved(c);
    cluster_free(c);
}
END_TEST

START_TEST(a_source_that_ran_on_takes_the_guest_back)
{
    struct cluster *c = ready();
    fake_delay(c->world, FAKE_FREEZE, 100);
    fake_suspend(c->world);
    fake_lock(c->world);
    fake_guest(c->world, 0)->copies[0].vcpus = true; /* resumed behind everybody's back, microseconds before the stop */
    fake_guest(c->world, 0)->copies[0].ran_after_pause = true;
    fake_unlock(c->world);
    fake_load(c->world);
    ck_assert(cluster_wait_event(c, HV2, LMO_WEV_BACK, 5000, NULL));
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_SOURCE_RESUMED, 1000, NULL));
    ck_assert_uint_eq(fake_count(c->world, FAKE_FENCE), 0);
    fake_give_up(c->world);
    ck_assert_int_eq(cluster_rollback(c), 0);
    ck_assert_int_eq(cluster_close(c), 0);
    assert_stayed(c);
    cluster_free(c);
}
END_TEST

START_TEST(unknown_is_asked_again_until_the_source_resumes)
{
    struct cluster *c = ready();
    c->world->freeze_unknown = true;
    fake_suspend(c->world);
    fake_load(c->world);
    nap(300);
    ck_assert_uint_ge(fake_count(c->world, FAKE_FREEZE), 2);
    ck_assert_int_eq(fake_runs_at(c->world), -1);
    fake_give_up(c->world);
    ck_assert(cluster_wait_event(c, HV2, LMO_WEV_BACK, 5000, NULL));
    ck_assert_int_eq(fake_runs_at(c->world), 0);
    cluster_free(c);
}
END_TEST

/* S7, on the machine alone: what the hypervisor shows and whether the job is over decide. */
START_TEST(unknown__is_running_only_for_a_guest_that_lives_and_whose_job_is_over)
{
    static const struct {
        bool job_running;
        enum lmo_run_state state;
        enum lmo_freeze_answer told;
    } cases[] = {
        {false, LMO_RUN_PAUSED_MIGRATION, LMO_FREEZE_RUNNING}, {false, LMO_RUN_PAUSED_BY_USER, LMO_FREEZE_RUNNING},
        {false, LMO_RUN_RUNNING, LMO_FREEZE_RUNNING},          {true, LMO_RUN_PAUSED_MIGRATION, LMO_FREEZE_UNKNOWN},
        {true, LMO_RUN_PAUSED_BY_USER, LMO_FREEZE_UNKNOWN},    {false, LMO_RUN_UNKNOWN, LMO_FREEZE_UNKNOWN},
        {false, LMO_RUN_ABSENT, LMO_FREEZE_UNKNOWN},           {false, LMO_RUN_SHUT_OFF, LMO_FREEZE_UNKNOWN},
        {false, LMO_RUN_INCOMING, LMO_FREEZE_UNKNOWN},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_src s = {.epoch = 16, .stage = LMO_SRC_SUSPENDED, .job_running = cases[i].job_running, .pause = 1}, next;
        struct lmo_src_actions a;
        struct lmo_src_event ev = {.kind = LMO_SRCE_FREEZE, .epoch = 16, .now_ms = 1};
        lmo_src_step(&s, &ev, &next, &a);
        ck_assert(a.freeze && a.persist);
        s = next;
        ev = (struct lmo_src_event){.kind = LMO_SRCE_FREEZE_RESULT, .answer = LMO_FREEZE_UNKNOWN, .state = cases[i].state,
                                    .text = "watch", .now_ms = 2};
        lmo_src_step(&s, &ev, &next, &a);
        ck_assert(a.answer && a.persist);
        ck_assert_int_eq(a.told, cases[i].told);
        ck_assert_int_eq(next.stage, cases[i].told == LMO_FREEZE_RUNNING ? LMO_SRC_RAN : LMO_SRC_SUSPENDED);
        ck_assert_ptr_null(lmo_src_broken(&s, &next, &a));
    }
}
END_TEST

START_TEST(relayed_questions__do_not_pile_up)
{
    struct cluster *c = ready();
    c->world->freeze_unknown = true;
    fake_suspend(c->world);
    fake_load(c->world);
    for (unsigned i = 0; i < LMO_OPS_PER_MIGRATION + 5; i++) {
        ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_RELAY_FREEZE, NULL), 0);
    }
    fake_give_up(c->world);
    ck_assert(cluster_wait_event(c, HV2, LMO_WEV_BACK, 5000, NULL));
    cluster_free(c);
}
END_TEST

START_TEST(a_frozen_source_does_not_come_back_when_its_libvirt_gives_up)
{
    struct cluster *c = ready();
    fake_delay(c->world, FAKE_FENCE, 200);
    fake_suspend(c->world);
    fake_load(c->world);
    assert_stage(c, HV1, "source", "frozen", 3000);
    fake_give_up(c->world); /* queued behind the stop */
    ck_assert(cluster_until_resumed(c, 5000));
    assert_moved(c);
    ck_assert_int_eq(cluster_finalize(c), 0);
    ck_assert_int_eq(cluster_close(c), 0);
    cluster_free(c);
}
END_TEST

START_TEST(a_copy_that_dies_before_the_word_leaves_the_source_to_be_revived)
{
    struct cluster *c = ready();
    c->world->freeze_unknown = true;
    fake_suspend(c->world);
    fake_load(c->world);
    assert_stage(c, HV2, "destination", "asking", 2000);
    fake_copy_dies(c->world);
    ck_assert(cluster_wait_event(c, HV2, LMO_WEV_COPY_LOST, 3000, NULL));
    fake_give_up(c->world);
    ck_assert_int_eq(cluster_rollback(c), 0);
    assert_stayed(c);
    ck_assert_int_eq(cluster_close(c), 0);
    cluster_free(c);
}
END_TEST

/* Its end is seen before the point of no return, although the hypervisor has not told of it. */
START_TEST(a_copy_that_dies_while_the_word_is_on_its_way__leaves_the_source_to_be_revived)
{
    struct cluster *c = ready();
    fake_delay(c->world, FAKE_FREEZE, 300);
    fake_suspend(c->world);
    fake_load(c->world);
    while (fake_count(c->world, FAKE_FREEZE) == 0) {
        nap(5);
    }
    fake_lock(c->world);
    c->world->hosts[1].open = false; /* the event of its end gets lost */
    fake_unlock(c->world);
    fake_copy_dies(c->world);
    struct lmo_worker_event lost;
    ck_assert(cluster_wait_event(c, HV2, LMO_WEV_COPY_LOST, 5000, &lost));
    ck_assert(!lost.ok); /* nothing was fenced */
    ck_assert(!cluster_has_event(c, HV2, LMO_WEV_COMMITTED, NULL));
    ck_assert_int_eq(cluster_rollback(c), 0);
    ck_assert_int_eq(fake_runs_at(c->world), 0);
    cluster_free(c);
}
END_TEST

/* A daemon that is gone with the loaded copy in its hands ends it when it comes back: nothing is committed before. */
START_TEST(a_word_that_comes_while_the_hypervisor_is_gone__is_not_acted_upon)
{
    struct cluster *c = ready();
    fake_delay(c->world, FAKE_FREEZE, 300);
    fake_suspend(c->world);
    fake_load(c->world);
    while (fake_count(c->world, FAKE_FREEZE) == 0) {
        nap(5);
    }
    fake_lock(c->world);
    c->world->hosts[1].open = false;
    fake_unlock(c->world);
    assert_stage(c, HV1, "source", "frozen", 3000);
    bool dies = _i == 1;
    if (dies) {
        fake_copy_dies(c->world);
    } else { /* asked again and again, for seconds */
        ck_assert(cluster_wait_event(c, HV2, LMO_WEV_STUCK, 15000, NULL));
    }
    ck_assert(!cluster_has_event(c, HV2, LMO_WEV_COMMITTED, NULL));
    fake_lock(c->world);
    c->world->hosts[1].open = true;
    fake_unlock(c->world);
    if (dies) {
        struct lmo_worker_event lost;
        ck_assert(cluster_wait_event(c, HV2, LMO_WEV_COPY_LOST, 5000, &lost));
        ck_assert(!lost.ok); /* nothing was fenced */
        ck_assert_int_eq(cluster_rollback(c), 0);
        ck_assert_int_eq(fake_runs_at(c->world), 0);
    } else {
        ck_assert(cluster_until_resumed(c, 5000));
        assert_moved(c);
    }
    cluster_free(c);
}
END_TEST

START_TEST(a_frozen_source_is_revived_only_under_a_higher_epoch)
{
    struct cluster *c = ready();
    fake_fail(c->world, FAKE_FENCE, LMO_E_UNAVAILABLE, 100000, false);
    fake_suspend(c->world);
    fake_load(c->world);
    assert_stage(c, HV1, "source", "frozen", 3000);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_REVIVE, NULL), LMO_E_STALE_EPOCH);
    ck_assert_int_eq(cluster_op(c, HV2, LMO_OP_DISCARD, NULL), LMO_E_CONFLICT);
    fake_copy_dies(c->world);
    ck_assert(cluster_wait_event(c, HV2, LMO_WEV_COPY_LOST, 3000, NULL));
    cluster_raise_epoch(c);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_REVIVE, NULL), 0);
    fake_give_up(c->world);
    ck_assert_int_eq(fake_runs_at(c->world), 0);
    cluster_free(c);
}
END_TEST

/* The hypervisor ends a frozen source's job only when the process goes on: the thaw must not wait for that end. */
START_TEST(a_frozen_source_is_thawed_while_its_job_has_not_ended)
{
    struct cluster *c = ready();
    cluster_stop(c, HV2);
    fake_suspend(c->world);
    fake_load(c->world);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_RELAY_FREEZE, NULL), 0);
    assert_stage(c, HV1, "source", "frozen", 3000);
    fake_copy_dies(c->world);
    cluster_start(c, HV2);
    ck_assert(fake_guest(c->world, 0)->job.running);
    ck_assert_int_eq(cluster_rollback(c), 0);
    ck_assert(fake_guest(c->world, 0)->job.running);
    ck_assert_uint_eq(fake_count(c->world, FAKE_JOB_ABORT), 0);
    assert_stayed(c);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_CLOSE_SOURCE, NULL), LMO_E_BUSY);
    fake_give_up(c->world);
    ck_assert(cluster_wait_event(c, HV1, LMO_WEV_JOB_END, 3000, NULL));
    ck_assert_int_eq(cluster_close(c), 0);
    cluster_free(c);
}
END_TEST

START_TEST(a_fence_that_fails_is_tried_until_it_holds)
{
    struct cluster *c = ready();
    fake_fail(c->world, FAKE_FENCE, LMO_E_UNKNOWN, 3, true);
    fake_fail(c->world, FAKE_VERIFY, LMO_E_REFUSED, 2, false);
    fake_suspend(c->world);
    fake_load(c->world);
    ck_assert(cluster_until_resumed(c, 8000));
    assert_moved(c);
    ck_assert_uint_ge(fake_count(c->world, FAKE_FENCE), 5);
    cluster_free(c);
}
END_TEST

START_TEST(a_volume_worker_that_is_down_at_the_cutover_only_delays_it)
{
    struct cluster *c = ready();
    cluster_stop(c, CTL);
    fake_suspend(c->world);
    fake_load(c->world);
    assert_stage(c, HV2, "destination", "committed", 3000);
    nap(200);
    ck_assert_int_eq(fake_runs_at(c->world), -1);
    cluster_restart(c, CTL);
    ck_assert(cluster_until_resumed(c, 8000));
    assert_moved(c);
    cluster_free(c);
}
END_TEST

START_TEST(a_source_worker_that_is_down_is_asked_until_it_answers)
{
    struct cluster *c = ready();
    fake_suspend(c->world);
    nap(50);
    cluster_stop(c, HV1);
    fake_load(c->world);
    nap(300);
    ck_assert_int_eq(fake_runs_at(c->world), -1);
    cluster_restart(c, HV1);
    ck_assert(cluster_until_resumed(c, 8000)); /* the fake's watch is never broken: frozen is proven */
    assert_moved(c);
    cluster_free(c);
}
END_TEST

/* A stopped process keeps its hypervisor silent; what the journal knows needs no hypervisor. */
START_TEST(a_source_worker_that_restarts_behind_the_freeze__answers_from_its_journal_at_once)
{
    struct cluster *c = ready();
    cluster_stop(c, HV2);
    fake_suspend(c->world);
    fake_load(c->world);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_RELAY_FREEZE, NULL), 0);
    ck_assert(fake_guest(c->world, 0)->copies[0].stopped);
    cluster_stop(c, HV1);
    fake_fail(c->world, FAKE_STATE, LMO_E_TIMEOUT, 1000000, false);
    cluster_restart(c, HV1);
    struct lmo_op_request req;
    struct lmo_op_reply reply = {0};
    cluster_fill(c, LMO_OP_RELAY_FREEZE, &req);
    ck_assert_int_eq(cluster_put(c, HV1, &req, &reply), 0);
    ck_assert_int_eq(reply.code, 0);
    ck_assert_str_eq(reply.answer, "frozen");
    lmo_op_reply_done(&reply);
    lmo_op_request_done(&req);
    ck_assert_int_eq(cluster_op(c, HV1, LMO_OP_RELAY_FREEZE, NULL), 0); /* and again */
    ck_assert_uint_eq(fake_count(c->world, FAKE_FREEZE), 1);
    /* What the hypervisor has to say is still waited for where it matters. */
    fake_fail(c->world, FAKE_STATE, 0, 0, false);
    cluster_restart(c, HV2);
    ck_assert(cluster_until_resumed(c, 8000));
    assert_moved(c);
    cluster_free(c);
}
END_TEST

START_TEST(the_way_through_the_coordinator_works_when_workers_cannot_talk)
{
    struct cluster *c = ready();
    struct lmo_op_request req;
    struct lmo_op_reply reply = {0};
    /* Another permit, with an address where nobody listens, as if the hosts were cut off from each other. */
    cluster_stop(c, HV1);
    uint16_t port = c->m[HV1].port;
    snprintf(c->m[HV1].cfg.listen, sizeof c->m[HV1].cfg.listen, "127.0.0.1:0");
    cluster_restart(c, HV1);
    ck_assert_uint_ne(port, c->m[HV1].port);
    fake_suspend(c->world);
    fake_load(c->world);
    ck_assert(cluster_wait_event(c, HV2, LMO_WEV_FREEZE_WANTED, 3000, NULL));
    ck_assert_int_eq(fake_runs_at(c->world), -1);
    cluster_fill(c, LMO_OP_RELAY_FREEZE, &req);
    ck_assert_int_eq(cluster_put(c, HV1, &req, &reply), 0);
    ck_assert_int_eq(reply.code, 0);
    ck_assert_str_eq(reply.answer, "frozen");
    lmo_op_request_done(&req);
    cluster_fill(c, LMO_OP_RELAY_ANSWER, &req);
    snprintf(req.answer, sizeof req.answer, "%s", reply.answer);
    snprintf(req.evidence, sizeof req.evidence, "%s", reply.evidence);
    struct lmo_op_reply done = {0};
    ck_assert_int_eq(cluster_put(c, HV2, &req, &done), 0);
    ck_assert_int_eq(done.code, 0);
    lmo_op_request_done(&req);
    ck_assert(fake_wait_runs_at(c->world, 1, 3000));
    assert_moved(c);
    /* The source cannot be told: the coordinator's order kills it. */
    ck_assert_int_eq(cluster_finalize(c), 0);
    ck_assert_int_eq(cluster_close(c), 0);
    cluster_free(c);
}
END_TEST

START_TEST(a_destination_worker_that_was_dead_does_not_resume_a_stale_copy)
{
    struct cluster *c = ready();
    cluster_stop(c, HV2);
    fake_suspend(c->world);
    fake_load(c->world);
    fake_give_up(c->world); /* the source's libvirt resumes its guest meanwhile */
    ck_assert_int_eq(fake_runs_at(c->world), 0);
    cluster_restart(c, HV2);
    ck_assert(cluster_wait_event(c, HV2, LMO_WEV_BACK, 5000, NULL));
    ck_assert_uint_eq(fake_count(c->world, FAKE_RESUME), 0);
    ck_assert_int_eq(fake_runs_at(c->world), 0);
    ck_assert(!fake_guest(c->world, 0)->copies[1].process);
    cluster_free(c);
}
END_TEST

START_TEST(a_worker_that_starts_before_its_hypervisor_waits_for_it)
{
    struct cluster *c = ready();
    cluster_stop(c, HV2);
    fake_suspend(c->world);
    fake_load(c->world);
    fake_fail(c->world, FAKE_STATE, LMO_E_UNAVAILABLE, 4, false);
    cluster_restart(c, HV2);
    ck_assert(cluster_until_resumed(c, 8000));
    ck_assert_uint_ge(fake_count(c->world, FAKE_STATE), 4);
    assert_moved(c);
    cluster_free(c);
}
END_TEST

START_TEST(a_resume_that_fails_is_tried_again)
{
    struct cluster *c = ready();
    fake_fail(c->world, FAKE_RESUME, LMO_E_UNAVAILABLE, 2, false);
    fake_suspend(c->world);
    fake_load(c->world);
    ck_assert(cluster_until_resumed(c, 5000));
    assert_moved(c);
    cluster_free(c);
}
END_TEST

START_TEST(a_broken_watch_makes_the_workers_look_again)
{
    struct cluster *c = ready();
    fake_lock(c->world);
    c->world->hosts[1].open = false; /* events of the destination get lost */
    fake_unlock(c->world);
    fake_suspend(c->world);
    fake_load(c->world);
    nap(100);
    ck_assert_int_eq(fake_runs_at(c->world), -1);
    fake_lock(c->world);
    c->world->hosts[1].open = true;
    fake_unlock(c->world);
    fake_break_watch(c->world, 1, false);
    fake_break_watch(c->world, 1, true);
    ck_assert(cluster_until_resumed(c, 5000));
    assert_moved(c);
    cluster_free(c);
}
END_TEST

/* ------------------------------------------------------------------ the process dies at a commit */

/* Plays the whole migration as a coordinator would, whatever fails on the way: forward if it can, else back. */
static void migrate_somehow(struct cluster *c)
{
    int r = cluster_prepare(c);
    r = r ? r : cluster_arm(c);
    r = r ? r : cluster_start_job(c);
    r = r ? r : cluster_open(c);
    if (r == 0 && cluster_until_resumed(c, 15000)) {
        for (int i = 0; i < 5 && (r = cluster_finalize(c)) < 0; i++) {
            nap(50);
        }
        ck_assert_int_eq(r, 0);
        ck_assert_int_eq(cluster_close(c), 0);
        assert_moved(c);
    } else {
        for (int i = 0; i < 20 && (r = cluster_rollback(c)) < 0; i++) {
            if (r == LMO_E_CONFLICT || r == LMO_E_BUSY) { /* the cutover went its way meanwhile */
                if (cluster_until_resumed(c, 5000)) {
                    ck_assert_int_eq(cluster_finalize(c), 0);
                    ck_assert_int_eq(cluster_close(c), 0);
                    assert_moved(c);
                    assert_nothing_left(c);
                    return;
                }
            }
            nap(50);
        }
        ck_assert_int_eq(r, 0);
        ck_assert_int_eq(cluster_close(c), 0);
        assert_stayed(c);
    }
    assert_nothing_left(c);
}

/* A little more than each worker's share of commits in one migration. Every point is tried right before and right after
 * its commit with LMO_TEST_FULL=1; else before and after take turns. */
#define LAST_COMMIT 15

static void die_at(int member, int i)
{
    if (!getenv("LMO_TEST_FULL") && i % 2 != i / 2 % 2) {
        return;
    }
    struct cluster *c = cluster_new_dying(member, (unsigned)i / 2 + 1, i % 2);
    migrate_somehow(c);
    if (getenv("LMO_TEST_TRACE")) {
        fprintf(stderr, "member %d died %s commit %d: restarts %u, guest at %d, commits %u\n", member,
                i % 2 ? "before" : "after", i / 2 + 1, c->restarts, fake_runs_at(c->world),
                lmo_worker_commits(c->m[member].worker));
    }
    cluster_free(c);
}

START_TEST(source_worker_dies_at_each_commit_and_the_migration_ends_well)
{
    die_at(HV1, _i);
}
END_TEST

START_TEST(destination_worker_dies_at_each_commit_and_the_migration_ends_well)
{
    die_at(HV2, _i);
}
END_TEST

START_TEST(volume_worker_dies_at_each_commit_and_the_migration_ends_well)
{
    die_at(CTL, _i);
}
END_TEST

Suite *worker_cutover_suite(void);
Suite *worker_cutover_suite(void)
{
    Suite *s = suite_create("worker_cutover");
    TCase *t = tcase_create("cutover");
    tcase_add_unchecked_fixture(t, cluster_pki_setup, cluster_pki_teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_guest_moves_and_nothing_is_left_behind);
    tcase_add_test(t, a_paused_guest_stays_paused);
    tcase_add_test(t, cancel_before_the_pause_leaves_the_guest_where_it_is);
    tcase_add_test(t, ingress_is_opened_at_the_pause_already);
    tcase_add_test(t, without_a_permit_the_loaded_guest_waits_for_one);
    tcase_add_test(t, a_source_that_ran_on_takes_the_guest_back);
    tcase_add_test(t, unknown_is_asked_again_until_the_source_resumes);
    tcase_add_test(t, unknown__is_running_only_for_a_guest_that_lives_and_whose_job_is_over);
    tcase_add_test(t, relayed_questions__do_not_pile_up);
    tcase_add_test(t, a_frozen_source_does_not_come_back_when_its_libvirt_gives_up);
    tcase_add_test(t, a_copy_that_dies_before_the_word_leaves_the_source_to_be_revived);
    tcase_add_test(t, a_copy_that_dies_while_the_word_is_on_its_way__leaves_the_source_to_be_revived);
    tcase_add_loop_test(t, a_word_that_comes_while_the_hypervisor_is_gone__is_not_acted_upon, 0, 2);
    tcase_add_test(t, a_frozen_source_is_revived_only_under_a_higher_epoch);
    tcase_add_test(t, a_frozen_source_is_thawed_while_its_job_has_not_ended);
    tcase_add_test(t, a_fence_that_fails_is_tried_until_it_holds);
    tcase_add_test(t, a_volume_worker_that_is_down_at_the_cutover_only_delays_it);
    tcase_add_test(t, a_source_worker_that_is_down_is_asked_until_it_answers);
    tcase_add_test(t, a_source_worker_that_restarts_behind_the_freeze__answers_from_its_journal_at_once);
    tcase_add_test(t, the_way_through_the_coordinator_works_when_workers_cannot_talk);
    tcase_add_test(t, a_destination_worker_that_was_dead_does_not_resume_a_stale_copy);
    tcase_add_test(t, a_worker_that_starts_before_its_hypervisor_waits_for_it);
    tcase_add_test(t, a_resume_that_fails_is_tried_again);
    tcase_add_test(t, a_broken_watch_makes_the_workers_look_again);
    suite_add_tcase(s, t);
    TCase *d = tcase_create("dying");
    tcase_add_unchecked_fixture(d, cluster_pki_setup, cluster_pki_teardown);
    tcase_set_timeout(d, 60);
    tcase_add_loop_test(d, source_worker_dies_at_each_commit_and_the_migration_ends_well, 0, LAST_COMMIT * 2);
    tcase_add_loop_test(d, destination_worker_dies_at_each_commit_and_the_migration_ends_well, 0, LAST_COMMIT * 2);
    tcase_add_loop_test(d, volume_worker_dies_at_each_commit_and_the_migration_ends_well, 0, LAST_COMMIT * 2);
    suite_add_tcase(s, d);
    return s;
}
