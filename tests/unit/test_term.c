/* test_term.c - two coordinators on one store, and the one that was asleep: it writes nothing, and no worker obeys
 * it. */
#include "base/cleanup.h"
#include "base/str.h"
#include "engine/ports.h"
#include "test_worker_cluster.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

Suite *term_suite(void);

/* ------------------------------------------------------------------ the store */

static char dir[64];

static void set_up(void)
{
    LMO_COPY(dir, "/tmp/lmo-term-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void tear_down(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static struct lmo_store *opened(bool take_over)
{
    struct lmo_store *s = NULL;
    struct lmo_err err = {0};
    int r = take_over ? lmo_store_sqlite_take_over(dir, &s, &err) : lmo_store_sqlite_open(dir, &s, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    return s;
}

static struct lmo_migration sample(void)
{
    struct lmo_migration m = {.version = 1, .epoch = 16, .phase = LMO_PHASE_QUEUED, .created_ms = 1, .updated_ms = 1};
    LMO_COPY(m.id, "01J00000000000000000000000");
    LMO_COPY(m.source, "hv1");
    LMO_COPY(m.destination, "hv2");
    LMO_COPY(m.vm.uuid, "11111111-2222-3333-4444-555555555555");
    return m;
}

static int put(struct lmo_store *s, const struct lmo_migration *m, uint64_t expected, struct lmo_err *err)
{
    struct lmo_commit_item item = {.record = m, .expected_version = expected};
    return s->ops->commit(s, &item, 1, NULL, 0, err);
}

START_TEST(every_start_takes_a_higher_term)
{
    uint64_t before = 0;
    for (int i = 0; i < 3; i++) {
        struct lmo_store *s = opened(i == 1);
        ck_assert_uint_gt(s->ops->term(s), before);
        before = s->ops->term(s);
        s->ops->close(s);
    }
}
END_TEST

START_TEST(whoever_was_overtaken_writes_nothing_any_more)
{
    static struct lmo_migration m;
    struct lmo_err err = {0};
    uint64_t epoch = 0;
    struct lmo_store *old = opened(false);
    m = sample();
    ck_assert_int_eq(put(old, &m, 0, &err), 0);
    struct lmo_store *new = opened(true);
    ck_assert_uint_gt(new->ops->term(new), old->ops->term(old));
    m.version = 2; /* the version it expects is there still: only the term speaks against it */
    ck_assert_int_eq(put(old, &m, 1, &err), LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "taken over"));
    ck_assert_int_eq(old->ops->next_epoch(old, m.vm.uuid, 1, &epoch, &err), 0); /* in its memory: worth nothing ... */
    ck_assert_int_eq(put(old, &m, 1, &err), LMO_E_CONFLICT);                   /* ... without a commit */
    ck_assert_int_eq(old->ops->check_term(old, &err), LMO_E_CONFLICT);
    struct lmo_host_row row = {.name = "hv9", .url = "https://x"};
    ck_assert_int_eq(old->ops->host_put(old, &row, &err), LMO_E_CONFLICT);
    ck_assert_int_eq(old->ops->host_delete(old, "hv9", &err), LMO_E_CONFLICT);
    ck_assert_int_eq(new->ops->check_term(new, &err), 0);
    ck_assert_msg(put(new, &m, 1, &err) == 0, "%s", err.text);
    old->ops->close(old);
    new->ops->close(new);
}
END_TEST

START_TEST(the_lock_is_the_new_ones_whatever_the_old_one_does_with_its_own)
{
    struct lmo_store *old = opened(false), *new = opened(true), *third = NULL;
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_store_sqlite_open(dir, &third, &err), LMO_E_BUSY);
    old->ops->close(old);
    ck_assert_int_eq(lmo_store_sqlite_open(dir, &third, &err), LMO_E_BUSY);
    new->ops->close(new);
    struct lmo_store *next = NULL;
    ck_assert_int_eq(lmo_store_sqlite_take_over(dir, &next, &err), 0);
    next->ops->close(next);
}
END_TEST

START_TEST(a_take_over_where_nobody_was_is_a_start)
{
    struct lmo_store *s = opened(true);
    struct lmo_err err = {0};
    ck_assert_int_eq(s->ops->check_term(s, &err), 0);
    s->ops->close(s);
}
END_TEST

/* Many at once: exactly one of them is the coordinator at the end, and it has the highest term. */
START_TEST(of_many_that_take_over_at_once_one_is_left)
{
    struct lmo_store *first = opened(false);
    int fd[2];
    ck_assert_int_eq(pipe(fd), 0);
    enum { MANY = 6 };
    pid_t children[MANY];
    for (int i = 0; i < MANY; i++) {
        children[i] = fork();
        ck_assert_int_ge(children[i], 0);
        if (children[i] == 0) {
            char go;
            struct lmo_store *s = NULL;
            struct lmo_err err = {0};
            close(fd[1]);
            (void)!read(fd[0], &go, 1); /* until the parent closes it: all at once */
            int r = lmo_store_sqlite_take_over(dir, &s, &err);
            usleep(300000); /* until the others have had their turn */
            _exit(r == 0 && s->ops->check_term(s, &err) == 0 ? 7 : 0);
        }
    }
    close(fd[0]);
    close(fd[1]);
    int winners = 0;
    for (int i = 0; i < MANY; i++) {
        int status;
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        winners += WIFEXITED(status) && WEXITSTATUS(status) == 7;
    }
    ck_assert_int_eq(winners, 1);
    struct lmo_err err = {0};
    ck_assert_int_eq(first->ops->check_term(first, &err), LMO_E_CONFLICT);
    first->ops->close(first);
}
END_TEST

/* ------------------------------------------------------------------ workers */

/* A request under a term; returns the status. */
static unsigned ask(struct cluster *c, int member, uint64_t term, const char *method, const char *path,
                    const char *body)
{
    static const char *const names[] = {"hv1", "hv2", "ctl"};
    char url[2 * LMO_URL_MAX], header[64];
    snprintf(url, sizeof url, "%s%s", c->m[member].url, path);
    snprintf(header, sizeof header, LMO_TERM_HEADER ": %llu", (unsigned long long)term);
    const char *headers[] = {header, NULL};
    struct lmo_http_request_spec spec = {.method = method,
                                         .url = url,
                                         .headers = headers,
                                         .body = body,
                                         .body_len = body ? strlen(body) : 0,
                                         .timeout_ms = 10000,
                                         .peer_role = LMO_ROLE_WORKER,
                                         .peer_name = names[member]};
    struct lmo_http_answer answer = {0};
    struct lmo_err err = {0};
    ck_assert_msg(lmo_http_request_sync(c->client, &spec, &answer, &err) == 0, "%s", err.text);
    unsigned status = answer.status;
    if (status == 409) {
        ck_assert_ptr_nonnull(strstr(answer.body, "\"stale_term\""));
    }
    lmo_http_answer_done(&answer);
    return status;
}

static unsigned put_attach(struct cluster *c, uint64_t term)
{
    struct lmo_op_request req;
    char path[LMO_OP_ID_MAX + 32];
    LMO_AUTO_FREE char *body = NULL;
    cluster_fill(c, LMO_OP_ATTACH, &req);
    req.volume_count = 1;
    req.volumes[0] = c->volumes[0];
    ck_assert_int_eq(lmo_op_request_encode(&req, &body, NULL), 0);
    snprintf(path, sizeof path, "/v1/ops/%s", req.id);
    return ask(c, CTL, term, "PUT", path, body);
}

START_TEST(a_worker_refuses_a_coordinator_below_the_term_that_it_saw)
{
    struct cluster *c = cluster_new();
    for (int member = HV1; member <= CTL; member++) { /* the volume service's worker too */
        ck_assert_uint_eq(ask(c, member, 5, "GET", "/v1/observe/host", NULL), 200);
        ck_assert_uint_eq(ask(c, member, 4, "GET", "/v1/observe/host", NULL), 409);
        ck_assert_uint_eq(ask(c, member, 4, "GET", "/v1/events?after=0", NULL), 409);
        ck_assert_uint_eq(ask(c, member, 0, "GET", "/v1/observe/migrations", NULL), 409);
        ck_assert_uint_eq(ask(c, member, 5, "GET", "/v1/observe/migrations", NULL), 200);
    }
    ck_assert_uint_eq(put_attach(c, 4), 409);
    ck_assert_uint_eq(put_attach(c, 5), 200);
    cluster_free(c);
}
END_TEST

START_TEST(the_term_outlives_the_worker)
{
    struct cluster *c = cluster_new();
    ck_assert_uint_eq(ask(c, HV1, 9, "GET", "/v1/observe/host", NULL), 200);
    cluster_restart(c, HV1);
    ck_assert_uint_eq(ask(c, HV1, 8, "GET", "/v1/observe/host", NULL), 409);
    ck_assert_uint_eq(ask(c, HV1, 9, "GET", "/v1/observe/host", NULL), 200);
    cluster_free(c);
}
END_TEST

START_TEST(a_call_of_the_old_one_for_an_open_migration_is_refused_although_its_epoch_is_right)
{
    struct cluster *c = cluster_new();
    ck_assert_uint_eq(put_attach(c, 1), 200);
    ck_assert_uint_eq(ask(c, CTL, 2, "GET", "/v1/observe/host", NULL), 200); /* the new one has only looked so far */
    ck_assert_uint_eq(put_attach(c, 1), 409);
    cluster_free(c);
}
END_TEST

START_TEST(a_header_that_is_no_term_is_refused)
{
    struct cluster *c = cluster_new();
    static const char *const bad[] = {"x", "-1", "1x", "99999999999999999999", " "};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char url[LMO_URL_MAX + 32], header[64];
        snprintf(url, sizeof url, "%s/v1/observe/host", c->m[HV1].url);
        snprintf(header, sizeof header, LMO_TERM_HEADER ": %s", bad[i]);
        const char *headers[] = {header, NULL};
        struct lmo_http_request_spec spec = {.method = "GET",
                                             .url = url,
                                             .headers = headers,
                                             .timeout_ms = 10000,
                                             .peer_role = LMO_ROLE_WORKER,
                                             .peer_name = "hv1"};
        struct lmo_http_answer answer = {0};
        ck_assert_int_eq(lmo_http_request_sync(c->client, &spec, &answer, NULL), 0);
        ck_assert_msg(answer.status == 400 || i == 4, "%s: %u", bad[i], answer.status);
        lmo_http_answer_done(&answer);
    }
    cluster_free(c);
}
END_TEST

/* ------------------------------------------------------------------ what the doctor asks of workers */

START_TEST(a_worker_shows_all_volumes_and_every_migration_that_it_still_remembers)
{
    struct cluster *c = cluster_new();
    unsigned status = 0;
    LMO_AUTO_FREE char *volumes = NULL;
    LMO_AUTO_FREE char *before = NULL;
    LMO_AUTO_FREE char *after = NULL;
    LMO_AUTO_FREE char *none = NULL;
    ck_assert_int_eq(cluster_request(c, NULL, CTL, "GET", "/v1/observe/migrations", NULL, 5000, &status, &before), 0);
    ck_assert_ptr_null(strstr(before, c->migration));
    ck_assert_int_eq(cluster_op_volume(c, LMO_OP_ATTACH, 0), 0);
    ck_assert_int_eq(cluster_request(c, NULL, CTL, "GET", "/v1/observe/volumes", NULL, 5000, &status, &volumes), 0);
    ck_assert_uint_eq(status, 200);
    for (int i = 0; i < FAKE_VOLUMES; i++) {
        ck_assert_msg(strstr(volumes, c->volumes[i].volume) != NULL, "%s", volumes);
    }
    ck_assert_msg(strstr(volumes, "\"exports\"") != NULL, "%s", volumes);
    ck_assert_int_eq(cluster_request(c, NULL, CTL, "GET", "/v1/observe/migrations", NULL, 5000, &status, &after), 0);
    ck_assert_msg(strstr(after, c->migration) && strstr(after, "\"volume\""), "%s", after);
    ck_assert_int_eq(cluster_request(c, NULL, HV1, "GET", "/v1/observe/volumes", NULL, 5000, &status, &none), 0);
    ck_assert_uint_ge(status, 400); /* not an empty list: it has no volume service */
    cluster_free(c);
}
END_TEST

Suite *term_suite(void)
{
    Suite *s = suite_create("term");
    TCase *t = tcase_create("store");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 30);
    tcase_add_test(t, every_start_takes_a_higher_term);
    tcase_add_test(t, whoever_was_overtaken_writes_nothing_any_more);
    tcase_add_test(t, the_lock_is_the_new_ones_whatever_the_old_one_does_with_its_own);
    tcase_add_test(t, a_take_over_where_nobody_was_is_a_start);
    tcase_add_test(t, of_many_that_take_over_at_once_one_is_left);
    suite_add_tcase(s, t);
    t = tcase_create("workers");
    tcase_add_unchecked_fixture(t, cluster_pki_setup, cluster_pki_teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_worker_refuses_a_coordinator_below_the_term_that_it_saw);
    tcase_add_test(t, the_term_outlives_the_worker);
    tcase_add_test(t, a_call_of_the_old_one_for_an_open_migration_is_refused_although_its_epoch_is_right);
    tcase_add_test(t, a_header_that_is_no_term_is_refused);
    tcase_add_test(t, a_worker_shows_all_volumes_and_every_migration_that_it_still_remembers);
    suite_add_tcase(s, t);
    return s;
}
