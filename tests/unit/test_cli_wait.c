/* test_cli_wait.c - following a migration: exit codes, what is shown, and a coordinator that comes and goes. */
#include "tests/unit/cli_fake.h"

Suite *cli_wait_suite(void);

#define ID  "01JABCDEFGHJKMNPQRSTVWXYZ0"
#define GET "GET /v1/migrations/" ID
#define RECORD(version, phase, rest)                                                                                  \
    "{\"id\":\"" ID "\",\"version\":" version ",\"phase\":\"" phase "\",\"vm\":{\"name\":\"g1\"},\"source\":\"hv1\"," \
    "\"destination\":\"hv2\",\"created_ms\":1000000,\"updated_ms\":1004310" rest "}"
#define QUEUED RECORD("1", "queued", ",\"outcome\":null,\"phases\":[{\"name\":\"queued\",\"started_ms\":1000000}]")
#define PRECOPY                                                                                                      \
    RECORD("5", "precopy",                                                                                           \
           ",\"phases\":[{\"name\":\"queued\",\"started_ms\":1000000,\"ended_ms\":1000003,\"ms\":3},"                \
           "{\"name\":\"precopy\",\"started_ms\":1000003}],\"progress\":{\"percent\":42,\"total_bytes\":2147483648," \
           "\"transferred_bytes\":1288490189,\"remaining_bytes\":851443712,\"rate_bytes_per_s\":123731968,"          \
           "\"dirty_bytes_per_s\":12582912,\"iteration\":2,\"eta_min_ms\":3000,\"eta_max_ms\":5200}")
#define DONE RECORD("9", "completed", ",\"outcome\":\"completed\",\"cutover\":{\"blackout_ms\":96.4}")

START_TEST(wait__ends_with_the_exit_code_of_the_outcome)
{
    static const struct fake_answer completed[] = {{GET, 0, 200, QUEUED},
                                                   {GET "?wait_version=1&wait_ms=25000", 0, 200, PRECOPY},
                                                   {GET "?wait_version=5&wait_ms=25000", 0, 200, DONE},
                                                   {0}};
    expect_exit(completed, "migration wait " ID, LMO_EXIT_OK,
                "g1 moved from hv1 to hv2 in 4.31 s; paused for 96.4 ms\n", "+   0.003 s  precopy\n");
    static const struct fake_answer aborted[] = {
        {GET, 0, 200, RECORD("2", "aborted", ",\"outcome\":\"aborted\",\"reason\":\"cancelled by alice\"")}, {0}};
    expect_exit(aborted, "migration wait " ID, LMO_EXIT_ABORTED, "g1 stays on hv1, unharmed: cancelled by alice\n", "");
    static const struct fake_answer attention[] = {
        {GET, 0, 200, RECORD("2", "attention", ",\"outcome\":\"attention\",\"reason\":\"hv1 is gone\"")}, {0}};
    expect_exit(attention, "migration wait " ID, LMO_EXIT_ATTENTION, "g1 needs a person: hv1 is gone\n",
                "lmo migration show " ID);
    static const struct fake_answer unknown[] = {{GET, 0, 404,
                                                  "{\"code\":\"not_found\",\"detail\":\"no such migration\"}"},
                                                 {0}};
    expect_exit(unknown, "migration wait " ID, LMO_EXIT_FAILED, "", "lmo migration list");
}
END_TEST

START_TEST(migrate_and_wait__starts_from_the_accepted_record_and_prints_one_JSON_document)
{
    static const struct fake_answer script[] = {{"POST /v1/migrations", 0, 202, QUEUED},
                                                {GET "?wait_version=1&wait_ms=25000", 0, 200, DONE},
                                                {0}};
    struct run r = {0};
    run_line(&r, script, "migrate g1 --to hv2 --wait --json");
    ck_assert_int_eq(r.rc, 0);
    ck_assert_uint_gt(r.fake.timeout_ms[1], 25000);
    json_t *j = json_loads(r.out, 0, NULL);
    ck_assert_ptr_nonnull(j);
    ck_assert_str_eq(json_string_value(json_object_get(j, "outcome")), "completed");
    json_decref(j);
    run_done(&r);
}
END_TEST

START_TEST(prediction_that_it_will_not_converge__is_said_once_and_others_are_not)
{
#define PREDICTED(version, outlook) \
    RECORD(version, "precheck", ",\"convergence\":{\"prediction\":{\"outlook\":\"" outlook "\",\"text\":\"dirties 410 MiB/s\"}}")
    static const struct fake_answer never[] = {{GET, 0, 200, PREDICTED("1", "never")},
                                               {GET "?wait_version=1&wait_ms=25000", 0, 200, PREDICTED("2", "never")},
                                               {GET "?wait_version=2&wait_ms=25000", 0, 200, DONE},
                                               {0}};
    struct run r = {0};
    run_line(&r, never, "migration wait " ID);
    const char *said = strstr(r.err, "predicted: dirties 410 MiB/s");
    ck_assert_ptr_nonnull(said);
    ck_assert_ptr_null(strstr(said + 1, "predicted"));
    run_done(&r);
    static const struct fake_answer converges[] = {{GET, 0, 200, PREDICTED("1", "converges")},
                                                   {GET "?wait_version=1&wait_ms=25000", 0, 200, DONE},
                                                   {0}};
    run_line(&r, converges, "migration wait " ID);
    ck_assert_ptr_null(strstr(r.err, "predicted"));
    run_done(&r);
}
END_TEST

START_TEST(coordinator_that_restarts_meanwhile__is_waited_for)
{
    static const struct fake_answer script[] = {{GET, 0, 200, QUEUED},
                                                {GET "?wait_version=1&wait_ms=25000", LMO_E_UNKNOWN, 0, ""},
                                                {GET "?wait_version=1&wait_ms=25000", LMO_E_UNAVAILABLE, 0, ""},
                                                {GET "?wait_version=1&wait_ms=25000", 0, 503,
                                                 "{\"code\":\"unavailable\"}"},
                                                {GET "?wait_version=1&wait_ms=25000", 0, 200, DONE},
                                                {0}};
    struct run r = {0};
    run_line(&r, script, "migration wait " ID);
    ck_assert_int_eq(r.rc, LMO_EXIT_OK);
    ck_assert_ptr_nonnull(strstr(r.err, "does not answer"));
    ck_assert_ptr_nonnull(strstr(r.err, "answers again"));
    run_done(&r);
}
END_TEST

START_TEST(coordinator_that_stays_away__is_exit_3_and_says_how_to_go_on)
{
    static const struct fake_answer script[] = {{GET, 0, 200, QUEUED},
                                                {GET "?wait_version=1&wait_ms=25000", LMO_E_UNAVAILABLE, 0, ""},
                                                {GET "?wait_version=1&wait_ms=25000", LMO_E_UNAVAILABLE, 0, ""},
                                                {0}};
    struct run r = {.cli.patience_ms = 1};
    run_line(&r, script, "migration wait " ID);
    ck_assert_int_eq(r.rc, LMO_EXIT_UNREACHABLE);
    ck_assert_ptr_nonnull(strstr(r.err, "lmo migration wait " ID));
    run_done(&r);
    static const struct fake_answer impostor[] = {{GET, 0, 200, QUEUED},
                                                  {GET "?wait_version=1&wait_ms=25000", LMO_E_UNAUTHENTICATED, 0, ""},
                                                  {0}};
    expect_exit(impostor, "migration wait " ID, LMO_EXIT_UNREACHABLE, "", "Check --url and --ca");
}
END_TEST

START_TEST(timeout__is_exit_6_and_the_hold_is_never_longer_than_what_is_left)
{
    static const struct fake_answer script[] = {{GET, 0, 200, QUEUED},
                                                {GET "?wait_version=1&wait_ms=*", 0, 200, QUEUED},
                                                {0}};
    struct run r = {0};
    run_line(&r, script,
             "migration wait " ID " --timeout 0.3"); /* less than the pause after an answer that came early */
    ck_assert_int_eq(r.rc, LMO_EXIT_WAIT_OVER);
    ck_assert_int_le(atoi(strstr(r.fake.path[1], "wait_ms=") + 8), 300);
    ck_assert_ptr_nonnull(strstr(r.err, "still in phase queued"));
    run_done(&r);
}
END_TEST

START_TEST(terminal__gets_one_line_that_is_redrawn_and_no_plain_ones)
{
    static const struct fake_answer script[] = {{GET, 0, 200, QUEUED},
                                                {GET "?wait_version=1&wait_ms=25000", 0, 200, PRECOPY},
                                                {GET "?wait_version=5&wait_ms=25000", 0, 200, DONE},
                                                {0}};
    struct run r = {.cli.err_style.tty = true};
    run_line(&r, script, "migration wait " ID);
    ck_assert_int_eq(r.rc, LMO_EXIT_OK);
    ck_assert_str_eq(r.err,
                     "\r\033[Kqueued            "
                     "\r\033[Kqueued             3 ms\n"
                     "\r\033[Kprecopy             42 %  1.2 GiB sent, 812 MiB left, 118 MiB/s, dirtying 12.0 MiB/s, "
                     "pass 2, ETA 3.0-5.2 s"
                     "\r\033[K");
    run_done(&r);
}
END_TEST

START_TEST(not_a_terminal__gets_no_control_characters)
{
    static const struct fake_answer script[] = {{GET, 0, 200, QUEUED},
                                                {GET "?wait_version=1&wait_ms=25000", 0, 200, PRECOPY},
                                                {GET "?wait_version=5&wait_ms=25000", 0, 200, DONE},
                                                {0}};
    struct run r = {0};
    run_line(&r, script, "migration wait " ID);
    ck_assert_str_eq(r.err, "+   0.000 s  queued\n+   0.003 s  precopy\n");
    run_done(&r);
}
END_TEST

START_TEST(what_a_migration_waits_for__is_said_once)
{
#define WAITING(version) RECORD(version, "queued", ",\"waiting_for\":\"a place on hv2: 1 ahead\"")
    static const struct fake_answer script[] = {{GET, 0, 200, WAITING("1")},
                                                {GET "?wait_version=1&wait_ms=25000", 0, 200, WAITING("2")},
                                                {GET "?wait_version=2&wait_ms=25000", 0, 200, DONE},
                                                {0}};
    struct run r = {0};
    run_line(&r, script, "migration wait " ID);
    ck_assert_str_eq(r.err, "lmo: queued, waiting: a place on hv2: 1 ahead\n");
    run_done(&r);
}
END_TEST

START_TEST(cancel_and_wait__succeeds_only_if_the_guest_stayed)
{
    static const struct fake_answer stayed[] = {
        {"POST /v1/migrations/" ID "/cancel", 0, 202, PRECOPY},
        {GET, 0, 200, RECORD("6", "aborted", ",\"outcome\":\"aborted\",\"reason\":\"cancelled\"")},
        {0}};
    expect_exit(stayed, "migration cancel " ID " --wait", LMO_EXIT_OK, "stays on hv1", "");
    static const struct fake_answer moved[] = {{"POST /v1/migrations/" ID "/cancel", 0, 202, PRECOPY},
                                               {GET, 0, 200, DONE},
                                               {0}};
    expect_exit(moved, "migration cancel " ID " --wait", LMO_EXIT_FAILED, "moved", "too late");
    static const struct fake_answer plain[] = {{"POST /v1/migrations/" ID "/cancel", 0, 202, PRECOPY}, {0}};
    expect_exit(plain, "migration cancel " ID, LMO_EXIT_OK, "", "lmo migration wait " ID);
    static const struct fake_answer late[] = {
        {"POST /v1/migrations/" ID "/cancel", 0, 409,
         "{\"code\":\"conflict\",\"detail\":\"the guest has been switched over\"}"},
        {0}};
    expect_exit(late, "migration cancel " ID, LMO_EXIT_FAILED, "", "switched over");
}
END_TEST

START_TEST(record_without_a_phase__is_not_waited_for)
{
    static const struct fake_answer script[] = {{GET, 0, 200, "{\"hello\":1}"}, {0}};
    expect_exit(script, "migration wait " ID, LMO_EXIT_PROTOCOL, "", "not a migration's record");
    static const struct fake_answer empty[] = {{GET, 0, 200, ""}, {0}};
    expect_exit(empty, "migration wait " ID, LMO_EXIT_PROTOCOL, "", "not a migration's record");
}
END_TEST

Suite *cli_wait_suite(void)
{
    Suite *s = suite_create("cli_wait");
    TCase *tc = tcase_create("wait");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, wait__ends_with_the_exit_code_of_the_outcome);
    tcase_add_test(tc, migrate_and_wait__starts_from_the_accepted_record_and_prints_one_JSON_document);
    tcase_add_test(tc, prediction_that_it_will_not_converge__is_said_once_and_others_are_not);
    tcase_add_test(tc, coordinator_that_restarts_meanwhile__is_waited_for);
    tcase_add_test(tc, coordinator_that_stays_away__is_exit_3_and_says_how_to_go_on);
    tcase_add_test(tc, timeout__is_exit_6_and_the_hold_is_never_longer_than_what_is_left);
    tcase_add_test(tc, terminal__gets_one_line_that_is_redrawn_and_no_plain_ones);
    tcase_add_test(tc, not_a_terminal__gets_no_control_characters);
    tcase_add_test(tc, what_a_migration_waits_for__is_said_once);
    tcase_add_test(tc, cancel_and_wait__succeeds_only_if_the_guest_stayed);
    tcase_add_test(tc, record_without_a_phase__is_not_waited_for);
    suite_add_tcase(s, tc);
    return s;
}
