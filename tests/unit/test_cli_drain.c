/* test_cli_drain.c - `lmo drain` and what belongs to it: what is asked of the coordinator, what is shown, and the exit codes. */
#include "cli/commands.h"
#include "cli_fake.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

Suite *cli_drain_suite(void);

#define ID "01J00000000000000000000000"
#define DRAIN(state, outcome, version)                                                                               \
    "{\"id\":\"" ID "\",\"version\":" version ",\"kind\":\"drain\",\"state\":\"" state "\",\"outcome\":" outcome     \
    ",\"percent\":50,\"host_count\":1,\"guest_count\":2,\"reason\":\"g2 could not be moved\",\"waiting_for\":null,"  \
    "\"guests_by_state\":{\"moved\":1,\"moving\":1},\"rate_bytes_per_s\":123731968,\"eta\":{\"low_ms\":3000,\"high_" \
    "ms\":7000},"                                                                                                    \
    "\"hosts\":[{\"name\":\"hv1\",\"state\":\"emptying\",\"guests\":2}],"                                            \
    "\"guests\":[{\"name\":\"g2\",\"host\":\"hv1\",\"destination\":\"hv2\",\"state\":\"moving\",\"percent\":7,"      \
    "\"tries\":[{}],"                                                                                                \
    "\"waiting_for\":\"an outgoing slot of host hv1 (2 of 2 in use); 1st in line\"}]}"

static const struct fake_answer nobody[] = {{0}};

START_TEST(drain__sends_hosts_and_options_and_prints_the_id)
{
    static const struct fake_answer script[] = {{"POST /v1/drains", 0, 202, DRAIN("running", "null", "3")}, {0}};
    struct run r = {0};
    run_line(&r, script, "drain hv1 hv2 --max-hosts 1 --keep-free N+1 --return --unmovable skip --hook reboot");
    ck_assert_int_eq(r.rc, 0);
    ck_assert_str_eq(r.fake.body[0],
                     "{\"hosts\":[\"hv1\",\"hv2\"],\"keep_free\":\"N+1\",\"unmovable\":\"skip\",\"max_hosts\":1,"
                     "\"return\":true,\"hook\":{\"command\":\"reboot\"}}");
    ck_assert_str_eq(r.out, ID "\n");
    run_done(&r);
    run_line(&r, script, "drain --all-matching rack=3");
    ck_assert_str_eq(r.fake.body[0], "{\"all_matching\":\"rack=3\"}");
    run_done(&r);
    expect_exit(nobody, "drain", LMO_EXIT_USAGE, "", "name hosts, or give --all-matching");
    expect_exit(nobody, "drain hv1 --all-matching rack=3", LMO_EXIT_USAGE, "", "one of the two");
    expect_exit(nobody, "drain hv1 --timeout 3", LMO_EXIT_USAGE, "", "add --wait");
    expect_exit(nobody, "rebalance", LMO_EXIT_USAGE, "", "--spread or --pack");
}
END_TEST

START_TEST(wait__exits_0_only_when_it_is_drained)
{
    static const struct {
        const char *state, *answer;
        int rc;
    } ends[] = {{"drained", DRAIN("drained", "\"drained\"", "4"), 0},
                {"incomplete", DRAIN("incomplete", "\"incomplete\"", "4"), LMO_EXIT_ATTENTION},
                {"failed", DRAIN("failed", "\"failed\"", "4"), LMO_EXIT_ATTENTION},
                {"cancelled", DRAIN("cancelled", "\"cancelled\"", "4"), LMO_EXIT_ABORTED}};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        const struct fake_answer script[] = {{"POST /v1/drains", 0, 202, DRAIN("running", "null", "3")},
                                             {"GET /v1/drains/" ID "?wait_version=3&wait_ms=25000", 0, 200,
                                              ends[i].answer},
                                             {0}};
        struct run r = {0};
        run_line(&r, script, "drain hv1 --wait");
        ck_assert_int_eq(r.rc, ends[i].rc);
        ck_assert_ptr_nonnull(strstr(r.out, "1st in line"));
        ck_assert_ptr_nonnull(strstr(r.err, "118 MiB/s"));
        run_done(&r);
    }
}
END_TEST

START_TEST(dry_run__prints_moves_and_blockers)
{
    static const struct fake_answer script[] = {
        {"POST /v1/drains?dry_run=true", 0, 200,
         "{\"dry_run\":true,\"status\":202,\"would\":\"x\",\"result\":{\"plan\":\"abc\",\"text\":\"1 "
         "guest\",\"low_ms\":1000,\"high_ms\":2000,\"moves\":[{\"order\":0,\"name\":\"g1\","
         "\"from\":\"hv1\",\"to\":\"hv2\",\"why\":\"empty\",\"way\":\"live\",\"after\":[],\"start_ms\":0,\"low_ms\":"
         "1000,\"high_ms\":2000}],"
         "\"blocked\":[{\"name\":\"g2\",\"host\":\"hv1\",\"unmovable\":\"fail\",\"text\":\"a device is passed "
         "through\"}]}}"},
        {0}};
    struct run r = {0};
    run_line(&r, script, "drain hv1 --dry-run");
    ck_assert_int_eq(r.rc, 0);
    ck_assert_ptr_nonnull(strstr(r.out, "g1"));
    ck_assert_ptr_nonnull(strstr(r.out, "1.00 s to 2.00 s"));
    ck_assert_ptr_nonnull(strstr(r.out, "a device is passed through"));
    ck_assert_ptr_nonnull(strstr(r.out, "abc"));
    run_done(&r);
}
END_TEST

START_TEST(labels_policies_and_leases__become_what_the_coordinator_wants)
{
    static const char uuid[] = "11111111-2222-4333-8444-555555555555";
    static const struct fake_answer label[] = {{"PUT /v1/hosts/hv1/labels", 0, 200, "{\"name\":\"hv1\"}"}, {0}},
                                    policy[] = {{"PUT /v1/vms/11111111-2222-4333-8444-555555555555/policy", 0, 200,
                                                 "{}"},
                                                {0}},
                                    lease[] = {{"PUT /v1/vms/11111111-2222-4333-8444-555555555555/lease", 0, 200, "{}"},
                                               {0}},
                                    cordon[] = {{"POST /v1/hosts/hv1/cordon", 0, 200, "{\"cordoned\":true}"}, {0}};
    struct run r = {0};
    char line[200];
    run_line(&r, label, "host label hv1 rack=3 zone=a");
    ck_assert_str_eq(r.fake.body[0], "{\"labels\":{\"rack\":\"3\",\"zone\":\"a\"}}");
    run_done(&r);
    snprintf(line, sizeof line, "vm policy %s --unmovable wait --group web:apart:hard", uuid);
    run_line(&r, policy, line);
    ck_assert_str_eq(
        r.fake.body[0],
        "{\"labels\":{},\"groups\":[{\"name\":\"web\",\"kind\":\"apart\",\"hard\":true}],\"unmovable\":\"wait\"}");
    run_done(&r);
    snprintf(line, sizeof line, "vm lease %s --lease 60 --reason resize", uuid);
    run_line(&r, lease, line);
    ck_assert_str_eq(r.fake.body[0], "{\"reason\":\"resize\",\"seconds\":60}");
    run_done(&r);
    run_line(&r, cordon, "cordon hv1 --reason kernel");
    ck_assert_int_eq(r.rc, 0);
    ck_assert_str_eq(r.fake.body[0], "{\"reason\":\"kernel\"}");
    run_done(&r);
    snprintf(line, sizeof line, "vm lease %s --lease 60", uuid);
    expect_exit(nobody, line, LMO_EXIT_USAGE, "", "--reason");
    expect_exit(nobody, "host label hv1 rack", LMO_EXIT_USAGE, "", "key=value");
}
END_TEST

Suite *cli_drain_suite(void)
{
    Suite *s = suite_create("cli_drain");
    TCase *t = tcase_create("drains");
    tcase_add_test(t, drain__sends_hosts_and_options_and_prints_the_id);
    tcase_add_test(t, wait__exits_0_only_when_it_is_drained);
    tcase_add_test(t, dry_run__prints_moves_and_blockers);
    tcase_add_test(t, labels_policies_and_leases__become_what_the_coordinator_wants);
    suite_add_tcase(s, t);
    return s;
}
