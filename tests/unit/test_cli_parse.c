/* test_cli_parse.c - command lines: what is understood, what is refused before anybody is asked, and what is sent. */
#include "tests/unit/cli_fake.h"

#include "base/json.h"
#include "base/id.h"
#include "cli/api.h"
#include "cli/commands.h"

#include <sys/stat.h>
#include <unistd.h>

Suite *cli_parse_suite(void);

static const struct fake_answer nobody[] = {{0}};

START_TEST(wrong_command_lines__exit_2_and_ask_nobody)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"host", "host what?"},
        {"hst list", "no command"},
        {"host bogus", "lmo host list"},
        {"vm show", "missing VM"},
        {"migrate g1", "missing --to"},
        {"migrate --to hv2", "missing VM"},
        {"host list extra", "too many arguments"},
        {"migrate g1 --to hv2 --timeout 5", "--wait"},
        {"migrate g1 --to hv2 --bandwidth 0", "--bandwidth"},
        {"migrate g1 --to hv2 --bandwidth -1", "--bandwidth"},
        {"migrate g1 --to hv2 --bandwidth 0x10", "--bandwidth"},
        {"migrate g1 --to hv2 --bandwidth 1e3", "--bandwidth"},
        {"migrate g1 --to hv2 --max-downtime 1.5", "whole number"},
        {"migrate g1 --to hv2 --convergence-timeout inf", "--convergence-timeout"},
        {"migrate g1 --to ", "--to: must not be empty"},
        {"vm show ..", "cannot be a name"},
        {"migration show .", "cannot be the id"},
        {"pki issue --dir /nowhere --role king --name x", "--role"},
        {"pki issue --dir /nowhere --role worker --name x --days 1 --seconds 1", "one of them"},
        {"pki list", "--dir"},
        {"help bogus", "no command"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_exit(nobody, cases[i].line, LMO_EXIT_USAGE, "", cases[i].says);
    }
    expect_exit(nobody, "migrate g1 --to hv2 --frobnicate", LMO_EXIT_USAGE, "", "");
}
END_TEST

START_TEST(missing_connection_settings__are_named_with_their_variable)
{
    struct run r = {0};
    char *argv[] = {(char[]){"lmo"}, (char[]){"host"}, (char[]){"list"}, NULL};
    size_t out_len = 0, err_len = 0;
    r.cli = (struct lmo_cli){.out = open_memstream(&r.out, &out_len),
                             .err = open_memstream(&r.err, &err_len),
                             .env = fake_no_env};
    ck_assert_int_eq(lmo_cli_run(&r.cli, 3, argv), LMO_EXIT_USAGE);
    fclose(r.cli.out);
    fclose(r.cli.err);
    ck_assert_ptr_nonnull(strstr(r.err, "--url (or LMO_URL)"));
    run_done(&r);
}
END_TEST

START_TEST(help__goes_to_stdout_and_succeeds_even_on_a_wrong_line)
{
    expect_exit(nobody, "--help", LMO_EXIT_OK, "Exit codes:", "");
    expect_exit(nobody, "migrate --help", LMO_EXIT_OK, "--to=HOST", "");
    expect_exit(nobody, "migrate --bogus --help", LMO_EXIT_OK, "--to=HOST", "");
    expect_exit(nobody, "help host add", LMO_EXIT_OK, "lmo host add", "");
    expect_exit(nobody, "pki issue -h", LMO_EXIT_OK, "--address", "");
    expect_exit(nobody, "version", LMO_EXIT_OK, "lmo " LMO_VERSION, "");
    expect_exit(nobody, "-V", LMO_EXIT_OK, "lmo " LMO_VERSION, "");
}
END_TEST

START_TEST(every_command__is_in_the_overview_and_explains_itself)
{
    struct run overview = {0};
    run_line(&overview, nobody, "--help");
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        const struct lmo_cli_command *c = &lmo_cli_commands[i];
        ck_assert_msg(strstr(overview.out, c->summary) != NULL, "%s", c->name);
        char line[64];
        snprintf(line, sizeof line, "%s --help", c->name);
        expect_exit(nobody, line, LMO_EXIT_OK, c->summary, "");
        ck_assert_ptr_eq(lmo_cli_command_find(c->name), c);
        ck_assert_msg((c->required & ~c->options) == 0, "%s requires what it does not take", c->name);
    }
    run_done(&overview);
}
END_TEST

START_TEST(option_that_two_rows_spell_alike__is_taken_by_one_command_only_once)
{
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        lmo_option_mask mask = lmo_cli_commands[i].options | LMO_OPTS_ALWAYS;
        for (int a = 0; a < LMO_OPT_COUNT; a++) {
            for (int b = a + 1; b < LMO_OPT_COUNT; b++) {
                bool both = (mask >> a & 1) && (mask >> b & 1);
                ck_assert_msg(!both || strcmp(lmo_option_rows[a].long_name, lmo_option_rows[b].long_name) != 0,
                              "%s: --%s", lmo_cli_commands[i].name, lmo_option_rows[a].long_name);
            }
        }
    }
}
END_TEST

START_TEST(numbers__are_scaled_exactly)
{
    static const struct {
        enum lmo_option id;
        const char *text;
        uint64_t want;
    } cases[] = {
        {LMO_OPT_BANDWIDTH, "1", 1048576},
        {LMO_OPT_BANDWIDTH, "0.5", 524288},
        {LMO_OPT_BANDWIDTH, "1048576", UINT64_C(1) << 40},
        {LMO_OPT_TIMEOUT, "1.5", 1500},
        {LMO_OPT_TIMEOUT, "0.001", 1},
        {LMO_OPT_TIMEOUT, "600", 600000},
        {LMO_OPT_CONVERGENCE_TIMEOUT, "30", 30000},
        {LMO_OPT_MAX_DOWNTIME, "300", 300},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_cli_args a = {0};
        char problem[256];
        ck_assert_msg(lmo_option_set(&a, cases[i].id, cases[i].text, problem, sizeof problem), "%s", problem);
        ck_assert_uint_eq(a.number[cases[i].id], cases[i].want);
    }
    static const char *const bad[] = {"",   ".",  ".5", "1.",  "1.2.3", "-1",
                                      "+1", " 1", "1 ", "1,5", "nan",   "99999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct lmo_cli_args a = {0};
        char problem[256];
        bool ok = lmo_option_set(&a, LMO_OPT_TIMEOUT, bad[i], problem, sizeof problem);
        ck_assert_msg(!ok || strcmp(bad[i], "1.") == 0, "\"%s\"", bad[i]);
    }
}
END_TEST

/* ------------------------------------------------------------------ what is sent */

static const char accepted[] = "{\"id\":\"01JABCDEFGHJKMNPQRSTVWXYZ0\",\"version\":1,\"phase\":\"queued\"}";

START_TEST(migrate__sends_vm_destination_policy_and_a_fresh_key)
{
    static const struct fake_answer script[] = {{"POST /v1/migrations", 0, 202, accepted}, {0}};
    struct run r = {0};
    run_line(&r, script,
             "migrate g1 --to hv2 --from hv1 --bandwidth 10 --max-downtime 300 --convergence-timeout 60 "
             "--accept-stateful-loss");
    ck_assert_int_eq(r.rc, 0);
    ck_assert_str_eq(r.out, "01JABCDEFGHJKMNPQRSTVWXYZ0\n"); /* the id and nothing else: for scripts */
    ck_assert(lmo_ulid_valid(r.fake.key[0]));
    ck_assert_str_eq(r.fake.body[0],
                     "{\"vm\":\"g1\",\"source\":\"hv1\",\"destination\":\"hv2\",\"policy\":{\"bandwidth_bytes_per_s\":10485760,"
                     "\"max_downtime_ms\":300,\"convergence_timeout_ms\":60000,\"accept_stateful_loss\":true}}");
    run_done(&r);
    run_line(&r, script,
             "migrate g1 --to hv2 --on-timeout force --force-max-pause 2000 --throttle-initial 30 --disk-timeout 9.5 "
             "--prediction refuse");
    ck_assert_str_eq(r.fake.body[0],
                     "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{\"disk_timeout_ms\":9500,"
                     "\"throttle_initial_percent\":30,\"on_timeout\":\"force\",\"force_max_pause_ms\":2000,"
                     "\"prediction\":\"refuse\",\"allow_throttle\":true}}");
    run_done(&r);
    run_line(&r, script, "migrate g1 --to hv2 --idempotency-key k1 --json");
    ck_assert_str_eq(r.fake.key[0], "k1");
    ck_assert_str_eq(r.fake.body[0], "{\"vm\":\"g1\",\"destination\":\"hv2\",\"policy\":{}}");
    ck_assert_ptr_nonnull(strstr(r.out, "\"phase\":\"queued\""));
    run_done(&r);
}
END_TEST

START_TEST(host_set__sends_what_was_given_and_null_for_what_is_taken_back)
{
    static const struct fake_answer script[] = {
        {"PATCH /v1/hosts/hv1", 0, 200, "{\"name\":\"hv1\",\"limits\":{\"max_incoming\":3}}"}, {0}};
    struct run r = {0};
    run_line(&r, script, "host set hv1 --max-incoming 3 --max-bandwidth 0.5");
    ck_assert_int_eq(r.rc, 0);
    ck_assert_str_eq(r.fake.body[0], "{\"max_incoming\":3,\"max_bandwidth_bytes_per_s\":524288}");
    ck_assert_ptr_nonnull(strstr(r.out, "max_incoming"));
    run_done(&r);
    run_line(&r, script, "host set hv1 --reset --keep-free 1");
    ck_assert_str_eq(r.fake.body[0], "{\"max_incoming\":null,\"max_outgoing\":null,\"max_bandwidth_bytes_per_s\":null,"
                                     "\"memory_keep_free_bytes\":1048576}");
    run_done(&r);
    expect_exit(nobody, "host set hv1", LMO_EXIT_USAGE, "", "nothing to set");
}
END_TEST

START_TEST(lost_answer_to_migrate__is_asked_for_again_with_the_same_key)
{
    static const struct fake_answer script[] = {{"POST /v1/migrations", LMO_E_UNKNOWN, 0, ""},
                                                {"POST /v1/migrations", LMO_E_UNAVAILABLE, 0, ""},
                                                {"POST /v1/migrations", 0, 202, accepted},
                                                {0}};
    struct run r = {0};
    run_line(&r, script, "migrate g1 --to hv2");
    ck_assert_int_eq(r.rc, 0);
    ck_assert_str_eq(r.fake.key[0], r.fake.key[1]);
    ck_assert_str_eq(r.fake.key[0], r.fake.key[2]);
    run_done(&r);
    static const struct fake_answer never[] = {{"POST /v1/migrations", LMO_E_TIMEOUT, 0, ""},
                                               {"POST /v1/migrations", LMO_E_TIMEOUT, 0, ""},
                                               {"POST /v1/migrations", LMO_E_UNAVAILABLE, 0, ""},
                                               {0}};
    run_line(&r, never, "migrate g1 --to hv2");
    ck_assert_int_eq(r.rc, LMO_EXIT_UNREACHABLE);
    ck_assert_ptr_nonnull(strstr(r.err, r.fake.key[0])); /* so that a person can repeat it safely */
    ck_assert_ptr_nonnull(strstr(r.err, "not known whether"));
    run_done(&r);
}
END_TEST

START_TEST(coordinator_that_is_not_there__is_exit_3_and_asked_once)
{
    static const struct fake_answer post[] = {{"POST /v1/migrations", LMO_E_UNAVAILABLE, 0, ""}, {0}};
    expect_exit(post, "migrate g1 --to hv2", LMO_EXIT_UNREACHABLE, "", "Nothing was asked");
    static const struct fake_answer get[] = {{"GET /v1/hosts", LMO_E_UNAUTHENTICATED, 0, ""}, {0}};
    expect_exit(get, "host list", LMO_EXIT_UNREACHABLE, "", "--ca");
    static const struct fake_answer lost[] = {{"POST /v1/hosts", LMO_E_TIMEOUT, 0, ""}, {0}};
    expect_exit(lost, "host add hv1 --url https://10.0.0.1:8443", LMO_EXIT_UNREACHABLE, "", "look before you repeat");
}
END_TEST

START_TEST(refusals__exit_1_with_the_reason_the_code_and_what_to_do)
{
    static const struct fake_answer missing[] = {{"GET /v1/vms/g9", 0, 404,
                                                  "{\"status\":404,\"code\":\"not_found\",\"detail\":\"no guest g9\"}"},
                                                 {0}};
    expect_exit(missing, "vm show g9", LMO_EXIT_FAILED, "", "no guest g9 (not_found, 404)\nlmo: `lmo vm list`");
    expect_exit(missing, "vm show g9 --json", LMO_EXIT_FAILED, "\"code\":\"not_found\"", "no guest g9");
    static const struct fake_answer role[] = {{"POST /v1/migrations", 0, 403,
                                               "{\"title\":\"Forbidden\",\"code\":\"forbidden\"}"},
                                              {0}};
    expect_exit(role, "migrate g1 --to hv2", LMO_EXIT_FAILED, "", "role operator");
    static const struct fake_answer twice[] = {
        {"POST /v1/hosts", 0, 400, "{\"detail\":\"url: must be https\",\"field\":\"url\",\"code\":\"invalid\"}"}, {0}};
    expect_exit(twice, "host add hv1 --url http://x", LMO_EXIT_FAILED, "", "lmo: url: must be https (invalid, 400)");
    static const struct fake_answer fields[] = {
        {"POST /v1/hosts", 0, 400, "{\"detail\":\"must be https\",\"field\":\"url\",\"code\":\"invalid\"}"}, {0}};
    expect_exit(fields, "host add hv1 --url http://x", LMO_EXIT_FAILED, "", "url: must be https");
}
END_TEST

START_TEST(answers_that_are_not_LMOs__are_exit_7)
{
    static const struct fake_answer html[] = {{"GET /v1/hosts", 0, 502, "<html>"}, {0}};
    expect_exit(html, "host list", LMO_EXIT_PROTOCOL, "", "--url");
    static const struct fake_answer text[] = {{"GET /v1/hosts", 0, 200, "hello"}, {0}};
    expect_exit(text, "host list", LMO_EXIT_PROTOCOL, "", "not understood");
    static const struct fake_answer other[] = {{"POST /v1/migrations", 0, 202, "{}"}, {0}};
    expect_exit(other, "migrate g1 --to hv2", LMO_EXIT_PROTOCOL, "", "no id");
}
END_TEST

START_TEST(arguments__cannot_leave_their_place_in_the_path)
{
    static const struct fake_answer script[] = {{"GET /v1/vms/a%2F..%2F..%2Fhosts%3Fx%3D1%23%25", 0, 200, "{}"}, {0}};
    expect_exit(script, "vm show a/../../hosts?x=1#%", LMO_EXIT_OK, "", "");
    static const struct fake_answer list[] = {{"GET /v1/migrations?phase=pre%26copy&vm=g%3D1&limit=5", 0, 200,
                                               "{\"migrations\":[]}"},
                                              {0}};
    expect_exit(list, "migration list --phase pre&copy --vm g=1 --limit 5", LMO_EXIT_OK, "no migrations", "");
    char path[LMO_API_PATH_MAX], longest[LMO_API_PATH_MAX + 1];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    ck_assert(!lmo_api_path(path, "/v1/vms/", longest, ""));
    ck_assert(!lmo_api_path(path, "/v1/vms/", "", ""));
}
END_TEST

START_TEST(lists__are_read_to_their_last_page)
{
    static const struct fake_answer pages[] = {
        {"GET /v1/hosts", 0, 200, "{\"hosts\":[{\"name\":\"hv1\"}],\"next_cursor\":\"a+b\"}"},
        {"GET /v1/hosts?cursor=a%2Bb", 0, 200, "{\"hosts\":[{\"name\":\"hv2\"}],\"next_cursor\":null}"},
        {0}};
    expect_exit(pages, "host list", LMO_EXIT_OK, "hv2", "");
    static const struct fake_answer broken[] = {
        {"GET /v1/hosts", 0, 200, "{\"hosts\":[{\"name\":\"hv1\"}],\"next_cursor\":\"a\"}"}, {"GET /v1/hosts?cursor=a", 0, 200, "{}"}, {0}};
    expect_exit(broken, "host list", LMO_EXIT_PROTOCOL, "", "a page of the list is missing");
}
END_TEST

START_TEST(tokens__are_made_shown_once_and_revoked_by_name)
{
    static const struct fake_answer made[] = {{"POST /v1/tokens", 0, 201, "{\"token\":\"lmo_X_y\",\"expires_ms\":1}"}, {0}};
    struct run r = {0};
    run_line(&r, made, "token create ci --role viewer --days 2");
    ck_assert_int_eq(r.rc, 0);
    ck_assert_str_eq(r.fake.body[0], "{\"name\":\"ci\",\"role\":\"viewer\",\"expires_in_s\":172800}");
    run_done(&r);
    expect_exit(made, "token create ci --role viewer", LMO_EXIT_OK, "lmo_X_y", "not shown again");
    static const struct fake_answer none[] = {{"POST /v1/tokens", 0, 201, "{}"}, {0}};
    expect_exit(none, "token create ci --role viewer", LMO_EXIT_PROTOCOL, "", "no token");
    static const struct fake_answer revoke[] = {
        {"GET /v1/tokens", 0, 200, "{\"tokens\":[{\"name\":\"ci\",\"id\":\"X\"}],\"next_cursor\":null}"},
        {"DELETE /v1/tokens/X", 0, 204, ""},
        {0}};
    expect_exit(revoke, "token revoke ci", LMO_EXIT_OK, "revoked ci", "");
}
END_TEST

START_TEST(webhooks__are_added_listed_and_removed)
{
    static const struct fake_answer made[] = {{"POST /v1/webhooks", 0, 201, "{\"id\":\"W\",\"secret\":\"whsec_x\"}"}, {0}};
    struct run r = {0};
    run_line(&r, made, "webhook add https://a.example/in --types migration.* --host hv1");
    ck_assert_int_eq(r.rc, 0);
    ck_assert_str_eq(r.fake.body[0], "{\"url\":\"https://a.example/in\",\"types\":\"migration.*\",\"host\":\"hv1\"}");
    ck_assert_str_eq(r.out, "W\nwhsec_x\n");
    ck_assert(contains(r.err, "not shown again"));
    run_done(&r);
    static const struct fake_answer list[] = {
        {"GET /v1/webhooks", 0, 200, "{\"webhooks\":[{\"id\":\"V\",\"url\":\"u\",\"enabled\":true}],\"next_cursor\":\"n\"}"},
        {"GET /v1/webhooks?cursor=n", 0, 200,
         "{\"webhooks\":[{\"id\":\"W\",\"url\":\"u\",\"enabled\":false,\"why_disabled\":\"by request\",\"behind\":7}],\"next_cursor\":null}"},
        {0}};
    expect_exit(list, "webhook list", LMO_EXIT_OK, "by request", "");
    expect_exit(list, "webhook list --plain", LMO_EXIT_OK, "\nW\tu\t-\t-\t-\tfalse\t7\t", "");
    static const struct fake_answer none[] = {{"GET /v1/webhooks", 0, 200, "{\"webhooks\":[],\"next_cursor\":null}"}, {0}};
    expect_exit(none, "webhook list", LMO_EXIT_OK, "no webhooks", "");
    static const struct fake_answer gone[] = {{"DELETE /v1/webhooks/W", 0, 204, ""}, {0}};
    expect_exit(gone, "webhook remove W", LMO_EXIT_OK, "", "");
    expect_exit(nobody, "webhook remove ..", LMO_EXIT_USAGE, "", "cannot be a webhook's id");
}
END_TEST

START_TEST(dead_letters__are_listed_to_the_last_and_sent_once_more)
{
    static const struct fake_answer list[] = {
        {"GET /v1/webhooks/W/dead-letters", 0, 200,
         "{\"dead_letters\":[{\"sequence\":4,\"at_ms\":1,\"type\":\"host.up\",\"attempts\":12,\"last_error\":\"a\\u001b[1m\"}],"
         "\"next_cursor\":\"n\"}"},
        {"GET /v1/webhooks/W/dead-letters?cursor=n", 0, 200,
         "{\"dead_letters\":[{\"sequence\":9,\"at_ms\":2,\"type\":\"host.down\",\"attempts\":3,\"redelivering\":true}],\"next_cursor\":null}"},
        {0}};
    expect_exit(list, "webhook dead-letters W", LMO_EXIT_OK, "host.down", "");
    expect_exit(list, "webhook dead-letters W --plain", LMO_EXIT_OK, "4\t1\thost.up\t12\t-\ta?[1m\n9\t2\thost.down\t3\ttrue\t-\n", "");
    static const struct fake_answer sent[] = {{"POST /v1/webhooks/W/dead-letters/redeliver", 0, 202, "{\"redelivering\":3}"}, {0}};
    struct run r = {0};
    run_line(&r, sent, "webhook redeliver W --sequence 4");
    ck_assert_str_eq(r.fake.body[0], "{\"sequence\":4}");
    ck_assert_str_eq(r.out, "3 will be sent once more\n");
    run_done(&r);
}
END_TEST

START_TEST(events__are_a_line_each_and_a_gap_is_said)
{
    static const char stream[] =
        "retry: 2000\nid: 3\n\nid: 9\nevent: gap\ndata: {\"type\":\"gap\",\"data\":{\"after\":3,\"next\":10}}\n\n"
        "id: 10\nevent: host.up\ndata: {\"type\":\"host.up\",\"timestamp\":\"2026-01-31T12:34:56Z\",\"sequence\":10,"
        "\"data\":{\"host\":\"hv1\\u001b[1m\"}}\n\n: heartbeat\nid: 11\n\n";
    static const struct fake_answer once[] = {{"GET /v1/events?types=host.%2A&since=3&follow=false", 0, 200, stream}, {0}};
    struct run r = {0};
    run_line(&r, once, "events --types host.* --since 3");
    ck_assert_msg(r.rc == 0, "%s", r.err);
    ck_assert_str_eq(r.out, "2026-01-31T12:34:56Z  host.up               hv1?[1m\n");
    ck_assert_msg(contains(r.err, "events 4 to 9 are not kept any more"), "%s", r.err);
    run_done(&r);
    run_line(&r, once, "events --types host.* --since 3 --json");
    ck_assert(contains(r.out, "\"sequence\":10") && contains(r.out, "\"type\":\"gap\""));
    run_done(&r);
    static const struct fake_answer bad[] = {{"GET /v1/events?since=0&follow=false", 0, 200, "id: 1\ndata: <html>\n\n"}, {0}};
    expect_exit(bad, "events", LMO_EXIT_PROTOCOL, "", "not a stream of events");
    static const struct fake_answer refused[] = {
        {"GET /v1/events?since=0&follow=false", 0, 403, "{\"code\":\"forbidden\",\"detail\":\"not for you\"}"}, {0}};
    expect_exit(refused, "events", LMO_EXIT_FAILED, "", "not for you");
}
END_TEST

START_TEST(hosts__are_added_shown_and_removed)
{
    static const struct fake_answer add[] = {
        {"POST /v1/hosts", 0, 201, "{\"name\":\"hv1\",\"url\":\"https://10.0.0.1:8443\",\"state\":\"unknown\"}"}, {0}};
    struct run r = {0};
    run_line(&r, add, "--url https://coordinator:8443 host add hv1 --url https://10.0.0.1:8443");
    ck_assert_int_eq(r.rc, 0);
    ck_assert_str_eq(r.fake.body[0], "{\"name\":\"hv1\",\"url\":\"https://10.0.0.1:8443\"}");
    ck_assert_str_eq(r.cli.args.text[LMO_OPT_URL], "https://coordinator:8443"); /* two different options */
    run_done(&r);
    static const struct fake_answer remove[] = {{"DELETE /v1/hosts/hv1", 0, 204, ""}, {0}};
    expect_exit(remove, "host remove hv1", LMO_EXIT_OK, "", "removed hv1");
    static const struct fake_answer show[] = {{"GET /v1/hosts/hv1", 0, 200,
                                               "{\"name\":\"hv1\",\"state\":\"up\",\"capabilities\":{\"hypervisor\":"
                                               "\"libvirt\",\"qemu\":{\"version\":[7,2]}}}"},
                                              {0}};
    expect_exit(show, "host show hv1", LMO_EXIT_OK, "qemu.version             7, 2", "");
}
END_TEST

START_TEST(list_that_lacks_a_hosts_guests__says_so)
{
    static const struct fake_answer script[] = {
        {"GET /v1/vms?limit=1000", 0, 200, "{\"vms\":[{\"name\":\"g1\",\"host\":\"hv1\"}],\"hosts_unreachable\":[\"hv3\"]}"}, {0}};
    expect_exit(script, "vm list", LMO_EXIT_OK, "g1", "hv3");
}
END_TEST

/* ------------------------------------------------------------------ pki, through the command line */

START_TEST(pki__works_from_init_to_revoke)
{
    char parent[] = "/tmp/lmo-cli-pki-XXXXXX", line[256];
    ck_assert_ptr_nonnull(mkdtemp(parent));
#define PKI(rc, in_out, in_err, ...)                   \
    do {                                               \
        snprintf(line, sizeof line, __VA_ARGS__);      \
        expect_exit(nobody, line, rc, in_out, in_err); \
    } while (0)
    PKI(LMO_EXIT_FAILED, "", "lmo pki init", "pki list --dir %s/ca", parent);
    PKI(LMO_EXIT_OK, "", "made a CA", "pki init %s/ca", parent);
    PKI(LMO_EXIT_FAILED, "", "a CA already", "pki init %s/ca", parent);
    PKI(LMO_EXIT_OK, "issued/worker-hv1.pem\n", "serial",
        "pki issue --dir %s/ca --role worker --name hv1 --address 10.0.0.1 --address hv1.example --seconds 600",
        parent);
    PKI(LMO_EXIT_FAILED, "", "--renew", "pki issue --dir %s/ca --role worker --name hv1", parent);
    PKI(LMO_EXIT_OK, "valid", "", "pki list --dir %s/ca", parent);
    PKI(LMO_EXIT_OK, "", "1 revoked", "pki revoke --dir %s/ca worker/hv1", parent);
    PKI(LMO_EXIT_OK, "\"status\":\"revoked\"", "", "pki list --dir %s/ca --json", parent);
    PKI(LMO_EXIT_FAILED, "", "no certificate", "pki revoke --dir %s/ca worker/hv2", parent);
    PKI(LMO_EXIT_OK, "", "crl.pem", "pki crl --dir %s/ca", parent);
    snprintf(line, sizeof line, "rm -r %s", parent);
    ck_assert_int_eq(system(line), 0);
}
END_TEST

Suite *cli_parse_suite(void)
{
    Suite *s = suite_create("cli_parse");
    TCase *tc = tcase_create("lines");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, wrong_command_lines__exit_2_and_ask_nobody);
    tcase_add_test(tc, missing_connection_settings__are_named_with_their_variable);
    tcase_add_test(tc, help__goes_to_stdout_and_succeeds_even_on_a_wrong_line);
    tcase_add_test(tc, every_command__is_in_the_overview_and_explains_itself);
    tcase_add_test(tc, option_that_two_rows_spell_alike__is_taken_by_one_command_only_once);
    tcase_add_test(tc, numbers__are_scaled_exactly);
    tcase_add_test(tc, migrate__sends_vm_destination_policy_and_a_fresh_key);
    tcase_add_test(tc, host_set__sends_what_was_given_and_null_for_what_is_taken_back);
    tcase_add_test(tc, lost_answer_to_migrate__is_asked_for_again_with_the_same_key);
    tcase_add_test(tc, coordinator_that_is_not_there__is_exit_3_and_asked_once);
    tcase_add_test(tc, refusals__exit_1_with_the_reason_the_code_and_what_to_do);
    tcase_add_test(tc, answers_that_are_not_LMOs__are_exit_7);
    tcase_add_test(tc, arguments__cannot_leave_their_place_in_the_path);
    tcase_add_test(tc, hosts__are_added_shown_and_removed);
    tcase_add_test(tc, webhooks__are_added_listed_and_removed);
    tcase_add_test(tc, dead_letters__are_listed_to_the_last_and_sent_once_more);
    tcase_add_test(tc, events__are_a_line_each_and_a_gap_is_said);
    tcase_add_test(tc, lists__are_read_to_their_last_page);
    tcase_add_test(tc, tokens__are_made_shown_once_and_revoked_by_name);
    tcase_add_test(tc, list_that_lacks_a_hosts_guests__says_so);
    tcase_add_test(tc, pki__works_from_init_to_revoke);
    suite_add_tcase(s, tc);
    return s;
}
