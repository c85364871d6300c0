/* test_cli_words.c - completion, suggestions, plain columns, advice, and that what is generated agrees with the tables. */
#include "tests/unit/cli_fake.h"

#include "base/fs.h"
#include "cli/advice.h"
#include "cli/commands.h"
#include "cli/format.h"
#include "cli/generate.h"
#include "cli/objects.h"
#include "cli/plain.h"
#include "cli/sse.h"
#include "cli/suggest.h"
#include "cli/watch.h"

Suite *cli_words_suite(void);

static const struct fake_answer nobody[] = {{0}};

/* ------------------------------------------------------------------ suggestions */

START_TEST(distance__counts_edits_and_swaps)
{
    ck_assert_uint_eq(lmo_suggest_distance("host", "host"), 0);
    ck_assert_uint_eq(lmo_suggest_distance("host", "hosts"), 1);
    ck_assert_uint_eq(lmo_suggest_distance("hsot", "host"), 1);
    ck_assert_uint_eq(lmo_suggest_distance("HV1", "hv1"), 0);
    ck_assert_uint_eq(lmo_suggest_distance("", "abc"), 3);
    ck_assert_uint_eq(lmo_suggest_distance("kitten", "sitting"), 3);
}
END_TEST

START_TEST(suggestions__are_the_nearest_three_and_never_far_ones)
{
    struct lmo_suggest s = {.word = "guest-1"};
    char text[LMO_SUGGEST_TEXT_MAX];
    static const char *const names[] = {"guest-2", "guest-10", "gest-1", "database", "guest-2", "guest-11", "guest-3"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        lmo_suggest_add(&s, names[i]);
    ck_assert_uint_eq(s.count, 3);
    ck_assert(!contains(lmo_suggest_text(&s, "", text), "database"));
    struct lmo_suggest none = {.word = "x"};
    lmo_suggest_add(&none, "y");
    lmo_suggest_add(&none, "hosts");
    ck_assert_str_eq(lmo_suggest_text(&none, "", text), "");
    struct lmo_suggest two = {.word = "tp"};
    lmo_suggest_add(&two, "to");
    lmo_suggest_add(&two, "top");
    ck_assert_str_eq(lmo_suggest_text(&two, "--", text), " Did you mean --to or --top?");
}
END_TEST

START_TEST(misspelt_commands_and_options__are_met_with_the_right_ones)
{
    expect_exit(nobody, "mirgate g1 --to hv2", LMO_EXIT_USAGE, "", "Did you mean lmo migrate?");
    expect_exit(nobody, "hots list", LMO_EXIT_USAGE, "", "Did you mean lmo host list?");
    expect_exit(nobody, "migrate g1 --too hv2", LMO_EXIT_USAGE, "", "Did you mean --to?");
    expect_exit(nobody, "--jsn host list", LMO_EXIT_USAGE, "", "Did you mean --json?");
    expect_exit(nobody, "wait hosts/hv1", LMO_EXIT_USAGE, "", "Did you mean host?");
    expect_exit(nobody, "wait host/hv1 --for drainde", LMO_EXIT_USAGE, "", "Did you mean drained?");
    expect_exit(nobody, "wait host/", LMO_EXIT_USAGE, "", "is not one of");
    expect_exit(nobody, "top --sort size", LMO_EXIT_USAGE, "", "age, progress");
    expect_exit(nobody, "watch g1", LMO_EXIT_USAGE, "", "neither migrations");
}
END_TEST

START_TEST(name_that_nobody_has__is_looked_up_for_a_person_only)
{
    static const struct fake_answer asked[] = {{"GET /v1/vms/wbe1", 0, 404,
                                                "{\"code\":\"not_found\",\"detail\":\"no guest wbe1\"}"},
                                               {"GET /v1/vms", 0, 200,
                                                "{\"vms\":[{\"name\":\"web1\",\"host\":\"hv1\"},{\"name\":\"db\"}]}"},
                                               {0}};
    struct run r = {.cli.err_style.tty = true};
    run_line(&r, asked, "vm show wbe1");
    ck_assert_int_eq(r.rc, LMO_EXIT_FAILED);
    ck_assert_msg(contains(r.err, "there is no guest \"wbe1\". Did you mean web1?"), "%s", r.err);
    ck_assert_uint_le(r.fake.timeout_ms[1], 1000);
    run_done(&r);
    static const struct fake_answer silent[] = {{"GET /v1/vms/wbe1", 0, 404,
                                                 "{\"code\":\"not_found\",\"detail\":\"no guest wbe1\"}"},
                                                {0}};
    expect_exit(silent, "vm show wbe1", LMO_EXIT_FAILED, "", "no guest wbe1");
}
END_TEST

/* ------------------------------------------------------------------ completion */

static void completes(const struct fake_answer *script, int count, const char *const *words, const char *want)
{
    char *out = NULL, *err = NULL, *argv[16] = {(char[]){"lmo"}, (char[]){"__complete"}};
    size_t out_len = 0, err_len = 0;
    struct fake fake = {.script = script};
    for (int i = 0; i < count; i++)
        argv[i + 2] = strdup(words[i]);
    struct lmo_cli cli = {.out = open_memstream(&out, &out_len),
                          .err = open_memstream(&err, &err_len),
                          .env = fake_no_env,
                          .system_config = "/nonexistent",
                          .request = fake_request,
                          .request_arg = &fake};
    ck_assert_int_eq(lmo_cli_run(&cli, count + 2, argv), 0);
    fclose(cli.out);
    fclose(cli.err);
    ck_assert_str_eq(err, "");
    ck_assert_msg(strcmp(out, want) == 0, "%s: \"%s\"", words[count - 1], out);
    for (int i = 0; i < count; i++)
        free(argv[i + 2]);
    free(out);
    free(err);
}
#define COMPLETES(script, want, ...)                                              \
    do {                                                                          \
        const char *const words_[] = {__VA_ARGS__};                               \
        completes(script, (int)(sizeof words_ / sizeof words_[0]), words_, want); \
    } while (0)

START_TEST(completion__knows_commands_options_and_fixed_words)
{
    COMPLETES(nobody, "migrate\tMove a running guest to another host\nmigration\t\n", "migra");
    COMPLETES(nobody, "show\tShow one host and what it is able to do\n", "host", "sh");
    COMPLETES(nobody, "--timeout\tStop waiting after S seconds (exit code 6)\n", "migration", "wait", "--ti");
    COMPLETES(nobody, "", "migration", "wait", "--timeout", "3", "--ti");
    COMPLETES(nobody, "force\t\n", "migrate", "g1", "--on-timeout", "f");
    COMPLETES(nobody, "--on-timeout=force\t\n", "migrate", "g1", "--on-timeout=f");
    COMPLETES(nobody, "abort\t\nforce\t\n", "migrate", "g1", "--on-timeout", "=", "");
    COMPLETES(nobody, ":file\n", "--ca", "");
    COMPLETES(nobody, "retry\t\n", "migration", "resolve", "ID", "r");
    COMPLETES(nobody, "host/\t\n", "wait", "ho");
    COMPLETES(nobody, "", "bogus", "");
    COMPLETES(nobody, "", "version", "");
}
END_TEST

START_TEST(completion__asks_for_names_for_a_second_and_is_silent_without_an_answer)
{
    static const struct fake_answer hosts[] = {
        {"GET /v1/hosts", 0, 200,
         "{\"hosts\":[{\"name\":\"hv1\",\"state\":\"up\"},{\"name\":\"ceph\"},{\"name\":\"hv2\"}]}"},
        {0}};
    COMPLETES(hosts, "hv1\tup\nhv2\t\n", "host", "show", "h");
    COMPLETES(hosts, "hv1\tup\nhv2\t\n", "migrate", "g1", "--to", "hv");
    COMPLETES(hosts, "host/hv1\tup\nhost/hv2\t\n", "wait", "host/h");
    static const struct fake_answer vms[] = {{"GET /v1/vms", 0, 200,
                                              "{\"vms\":[{\"name\":\"web\\u001b[1m\",\"host\":\"hv1\"}]}"},
                                             {0}};
    COMPLETES(vms, "web?[1m\thv1\n", "migrate", "");
    static const struct fake_answer migrations[] = {{"GET /v1/migrations?limit=200", 0, 200,
                                                     "{\"migrations\":[{\"id\":\"01J\",\"phase\":\"precopy\"}]}"},
                                                    {0}};
    COMPLETES(migrations, "01J\tprecopy\n", "migration", "show", "");
    static const struct fake_answer drains[] = {{"GET /v1/drains?limit=200", 0, 200,
                                                 "{\"drains\":[{\"id\":\"01D\",\"state\":\"running\"}]}"},
                                                {0}};
    COMPLETES(drains, "drain/01D\trunning\n", "wait", "drain/");
    static const struct fake_answer gone[] = {{"GET /v1/hosts", LMO_E_UNAVAILABLE, 0, ""}, {0}};
    COMPLETES(gone, "", "host", "show", "");
    static const struct fake_answer refused[] = {{"GET /v1/hosts", 0, 403, "{\"code\":\"forbidden\"}"}, {0}};
    COMPLETES(refused, "", "host", "show", "");
    static const struct fake_answer nonsense[] = {{"GET /v1/hosts", 0, 200, "<html>"}, {0}};
    COMPLETES(nonsense, "", "host", "show", "");
}
END_TEST

/* ------------------------------------------------------------------ plain */

START_TEST(plain__has_a_heading_whole_values_and_one_line_an_object)
{
    static const struct fake_answer hosts[] = {
        {"GET /v1/hosts", 0, 200,
         "{\"hosts\":[{\"name\":\"hv1\",\"state\":\"down\",\"since_ms\":1795204001741,\"url\":\"https://"
         "10.0.0.1:8443\","
         "\"last_error\":\"a\\tb\\nc\\u001b[31m\"},{\"name\":\"hv2\",\"state\":\"up\",\"since_ms\":0,\"url\":\"\"}]}"},
        {0}};
    struct run r = {0};
    run_line(&r, hosts, "host list --plain");
    ck_assert_str_eq(r.out, "name\tstate\tsince_ms\turl\tlast_error\n"
                            "hv1\tdown\t1795204001741\thttps://10.0.0.1:8443\ta?b?c?[31m\n"
                            "hv2\tup\t0\t-\t-\n");
    run_done(&r);
    static const struct fake_answer none[] = {{"GET /v1/hosts", 0, 200, "{\"hosts\":[]}"}, {0}};
    run_line(&r, none, "host list --plain");
    ck_assert_str_eq(r.out, "name\tstate\tsince_ms\turl\tlast_error\n");
    run_done(&r);
    static const struct fake_answer one[] = {
        {"GET /v1/migrations?vm=g1", 0, 200,
         "{\"migrations\":[{\"id\":\"01J\",\"vm\":{\"name\":\"g1\",\"uuid\":\"u\"},\"source\":null,\"destination\":"
         "\"hv2\","
         "\"phase\":\"precopy\",\"outcome\":null,\"progress\":{\"percent\":41.5},\"created_ms\":1,\"updated_ms\":2}]}"},
        {0}};
    run_line(&r, one, "migration list --vm g1 --plain");
    ck_assert_ptr_nonnull(strstr(r.out, "\n01J\tg1\tu\t-\thv2\tprecopy\t-\t41.5\t1\t2\t-\t-\t-\n"));
    run_done(&r);
}
END_TEST

START_TEST(every_list_and_show__has_documented_plain_columns)
{
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        const struct lmo_cli_command *c = &lmo_cli_commands[i];
        const char *space = strchr(c->name, ' ');
        const struct lmo_plain_row *row = lmo_plain_find(c->name);
        if (space && strcmp(space, " list") == 0)
            ck_assert_msg(row != NULL && row->array != NULL, "%s has no row in plain.c", c->name);
        if (!row)
            continue;
        char names[512], line[64];
        lmo_plain_names(row, ", ", names, sizeof names);
        snprintf(line, sizeof line, "%s --help", c->name);
        struct run r = {0};
        run_line(&r, nobody, line);
        ck_assert_msg(contains(r.out, "Columns of --plain"), "%s", r.out);
        run_done(&r);
    }
}
END_TEST

/* ------------------------------------------------------------------ advice */

START_TEST(every_code__has_advice_of_its_own)
{
    const char *other = lmo_advice(NULL, "a_code_of_the_future", 418);
    ck_assert_str_ne(other, "");
#define X(name, value, text, http, cls)                                                                            \
    ck_assert_msg(strcmp(lmo_advice(NULL, text, http), lmo_advice(NULL, "a_code_of_the_future", http)) != 0, "%s", \
                  text);                                                                                           \
    ck_assert_msg(strlen(lmo_advice(NULL, text, http)) > 10, "%s", text);
    LMO_ERRORS(X)
#undef X
    ck_assert(contains(lmo_advice(NULL, "a_code_of_the_future", 503), "try again"));
    ck_assert(contains(lmo_advice(lmo_cli_command_find("vm show"), "not_found", 404), "lmo vm list"));
}
END_TEST

/* ------------------------------------------------------------------ what is generated */

static char *generated(void (*write)(FILE *))
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    write(f);
    fclose(f);
    return text;
}

START_TEST(reference_in_docs__is_what_the_tables_say)
{
    char *want = generated(lmo_generate_reference), *have = NULL;
    ck_assert_int_eq(lmo_fs_read_file(LMO_SOURCE_DIR "/docs/cli-reference.md", 1 << 20, &have, NULL, NULL), 0);
    ck_assert_msg(strcmp(want, have) == 0, "docs/cli-reference.md is out of date: run `make docs`");
    free(want);
    free(have);
}
END_TEST

static void overview_page(FILE *f)
{
    lmo_generate_man(NULL, "2026-01-01", f);
}

START_TEST(manual_pages__name_every_command_option_and_exit_code)
{
    char group[32], *whole = generated(overview_page);
    size_t groups = 0;
    for (; lmo_generate_group(groups, group); groups++) {
        char *page = NULL;
        size_t len = 0;
        FILE *f = open_memstream(&page, &len);
        lmo_generate_man(group, "2026-01-01", f);
        fclose(f);
        for (size_t i = 0; i < lmo_cli_command_count; i++) {
            const struct lmo_cli_command *c = &lmo_cli_commands[i];
            size_t n = strlen(group);
            if (strncmp(c->name, group, n) != 0 || (c->name[n] != ' ' && c->name[n] != '\0'))
                continue;
            char heading[64] = ".SS lmo ";
            for (const char *at = c->name; *at; at++) { /* a hyphen that is to be typed is \- there */
                size_t used = strlen(heading);
                snprintf(heading + used, sizeof heading - used, *at == '-' ? "\\-" : "%c", *at);
            }
            strcat(heading, "\n");
            ck_assert_msg(contains(page, heading), "%s", heading);
            for (int id = 0; id < LMO_OPT_COUNT; id++) {
                char first[40];
                snprintf(first, sizeof first, "\\fB\\-\\-%.*s", (int)strcspn(lmo_option_rows[id].long_name, "-"),
                         lmo_option_rows[id].long_name);
                if ((c->options | LMO_OPTS_ALWAYS) >> id & 1)
                    ck_assert_msg(contains(page, first) || contains(whole, first), "%s: %s", c->name, first);
            }
        }
        free(page);
    }
    ck_assert_uint_gt(groups, 10);
#define X(name, code, text) ck_assert_msg(contains(whole, ".TP\n.B " #code "\n"), #code);
    LMO_EXITS(X)
#undef X
    free(whole);
}
END_TEST

START_TEST(completion_scripts__exist_for_bash_and_zsh_and_nothing_else)
{
    expect_exit(nobody, "completion bash", LMO_EXIT_OK, "__complete", "");
    expect_exit(nobody, "completion zsh", LMO_EXIT_OK, "#compdef lmo", "");
    expect_exit(nobody, "completion fish", LMO_EXIT_USAGE, "", "not for \"fish\"");
}
END_TEST

/* ------------------------------------------------------------------ objects and changes */

START_TEST(wait__ends_with_the_state_that_was_asked_for)
{
    static const struct fake_answer up[] = {{"GET /v1/hosts/hv1", 0, 200, "{\"name\":\"hv1\",\"state\":\"down\"}"},
                                            {"GET /v1/hosts/hv1", LMO_E_UNAVAILABLE, 0, ""},
                                            {"GET /v1/hosts/hv1", 0, 200, "{\"name\":\"hv1\",\"state\":\"up\"}"},
                                            {0}};
    expect_exit(up, "wait host/hv1", LMO_EXIT_OK, "host/hv1 up\n", "answers again");
    static const struct fake_answer cordoned[] = {{"GET /v1/hosts/hv1", 0, 200,
                                                   "{\"name\":\"hv1\",\"state\":\"up\",\"cordoned\":false}"},
                                                  {"GET /v1/hosts/hv1", 0, 200,
                                                   "{\"name\":\"hv1\",\"state\":\"up\",\"cordoned\":true}"},
                                                  {0}};
    expect_exit(cordoned, "wait host/hv1 --for cordoned", LMO_EXIT_OK, "host/hv1 cordoned\n", "");
    static const struct fake_answer idle[] = {{"GET /v1/vms/g1", 0, 200,
                                               "{\"name\":\"g1\",\"host\":\"hv1\",\"migration\":\"01J\"}"},
                                              {"GET /v1/vms/g1", 0, 200,
                                               "{\"name\":\"g1\",\"host\":\"hv2\",\"migration\":null}"},
                                              {0}};
    expect_exit(idle, "wait vm/g1", LMO_EXIT_OK, "vm/g1 idle\n", "");
#define DRAIN(version, state) \
    "{\"id\":\"01D\",\"version\":" version ",\"state\":\"" state "\",\"waiting_for\":\"a slot\"}"
    static const struct fake_answer drained[] = {{"GET /v1/drains/01D", 0, 200, DRAIN("1", "running")},
                                                 {"GET /v1/drains/01D?wait_version=1&wait_ms=25000", 0, 200,
                                                  DRAIN("2", "drained")},
                                                 {0}};
    expect_exit(drained, "wait drain/01D", LMO_EXIT_OK, "drain/01D drained\n", "running, waiting: a slot");
    static const struct fake_answer cancelled[] = {{"GET /v1/drains/01D", 0, 200, DRAIN("1", "cancelled")}, {0}};
    expect_exit(cancelled, "wait drain/01D", LMO_EXIT_ABORTED, "cancelled", "");
    static const struct fake_answer failed[] = {{"GET /v1/drains/01D", 0, 200, DRAIN("1", "failed")}, {0}};
    expect_exit(failed, "wait drain/01D", LMO_EXIT_ATTENTION, "failed", "");
    static const struct fake_answer past[] = {{"GET /v1/migrations/01J", 0, 200,
                                               "{\"id\":\"01J\",\"version\":9,\"phase\":\"completed\",\"outcome\":"
                                               "\"completed\",\"phases\":[{\"name\":\"precopy\"}]}"},
                                              {0}};
    expect_exit(past, "wait migration/01J --for precopy", LMO_EXIT_OK, "migration/01J precopy\n", "");
    expect_exit(past, "wait migration/01J --for aborted", LMO_EXIT_FAILED, "", "");
    static const struct fake_answer unknown[] = {{"GET /v1/hosts/hv9", 0, 404,
                                                  "{\"code\":\"not_found\",\"detail\":\"no host\"}"},
                                                 {0}};
    expect_exit(unknown, "wait host/hv9", LMO_EXIT_FAILED, "", "lmo host list");
}
END_TEST

START_TEST(watch__tells_what_is_new_and_not_what_moves_within_a_phase)
{
    struct lmo_watch w = {0};
    struct lmo_change c;
    static const char *const looks[] = {
        "{\"id\":\"1\",\"phase\":\"queued\",\"outcome\":null,\"waiting_for\":\"a slot; 2nd in "
        "line\",\"vm\":{\"name\":\"g\"}}",
        "{\"id\":\"1\",\"phase\":\"queued\",\"outcome\":null,\"waiting_for\":\"a slot; 2nd in "
        "line\",\"vm\":{\"name\":\"g\"}}",
        "{\"id\":\"1\",\"phase\":\"precopy\",\"outcome\":null,\"progress\":{\"percent\":1},\"vm\":{\"name\":\"g\"}}",
        "{\"id\":\"1\",\"phase\":\"precopy\",\"outcome\":null,\"progress\":{\"percent\":50},\"vm\":{\"name\":\"g\"}}",
        "{\"id\":\"1\",\"phase\":\"completed\",\"outcome\":\"completed\",\"vm\":{\"name\":\"g\"}}",
    };
    static const bool told[] = {true, false, true, false, true};
    for (size_t i = 0; i < 5; i++) {
        json_t *j = json_loads(looks[i], 0, NULL);
        ck_assert_msg(lmo_watch_migration(&w, j, true, &c) == told[i], "%zu", i);
        json_decref(j);
    }
    json_t *old = json_loads("{\"id\":\"0\",\"phase\":\"aborted\",\"outcome\":\"aborted\"}", 0, NULL);
    ck_assert(!lmo_watch_migration(&w, old, true, &c)); /* it had ended before anybody looked */
    json_decref(old);
    lmo_watch_release(&w);
}
END_TEST

struct heard {
    char text[1024];
};

static void hear(void *arg, const char *type, const char *data)
{
    struct heard *h = arg;
    size_t used = strlen(h->text);
    snprintf(h->text + used, sizeof h->text - used, "[%s|%s]", type, data);
}

START_TEST(event_stream__is_the_same_in_pieces_of_any_size)
{
    static const char stream[] = ": heartbeat\nid: 7\n\nid: 8\r\nevent: migration.phase\r\ndata: {\"a\":1}\r\n\r\n"
                                 "event: x\ndata:one\ndata: two\nretry: 5\n\n\nid: 9\nevent: half";
    for (size_t piece = 1; piece < sizeof stream; piece++) {
        struct heard h = {""};
        struct lmo_sse s = {.fn = hear, .arg = &h};
        lmo_sse_restart(&s);
        for (size_t at = 0; at < sizeof stream - 1; at += piece)
            lmo_sse_feed(&s, stream + at, at + piece < sizeof stream - 1 ? piece : sizeof stream - 1 - at);
        ck_assert_str_eq(h.text, "[|][migration.phase|{\"a\":1}][x|one\ntwo]");
        ck_assert_str_eq(s.last_id, "8"); /* what is half read is not resumed behind */
        lmo_sse_restart(&s);
        lmo_sse_feed(&s, "id: 10\n\n", 8);
        ck_assert_str_eq(s.last_id, "10");
        lmo_sse_release(&s);
    }
    struct heard h = {""};
    struct lmo_sse s = {.fn = hear, .arg = &h};
    static char large[LMO_SSE_LINE_MAX + 16];
    memset(large, 'x', sizeof large);
    lmo_sse_restart(&s);
    lmo_sse_feed(&s, "id: 1\ndata: ", 12);
    lmo_sse_feed(&s, large, sizeof large);
    lmo_sse_feed(&s, "\n\ndata: y\n\n", 12);
    ck_assert_str_eq(h.text, "[|][|y]");
    ck_assert_str_eq(s.last_id, "1");
    lmo_sse_release(&s);
}
END_TEST

/* ------------------------------------------------------------------ terminals */

START_TEST(width__counts_columns_not_bytes)
{
    char buf[64];
    ck_assert_uint_eq(lmo_format_width("abc"), 3);
    ck_assert_uint_eq(lmo_format_width("h\u00e9"), 2);
    ck_assert_uint_eq(lmo_format_width("e\u0301"), 1);      /* combining acute */
    ck_assert_uint_eq(lmo_format_width("\u4ed6\u306e"), 4); /* wide */
    ck_assert_uint_eq(lmo_format_width("\U0001f680"), 2);   /* emoji */
    ck_assert_uint_eq(lmo_format_width("\u2500"), 1);       /* box drawing */
    ck_assert_str_eq(lmo_format_fit("\u4ed6\u306eab", 4, buf, sizeof buf), "\u4ed6~");
    ck_assert_str_eq(lmo_format_fit("abc", 3, buf, sizeof buf), "abc");
    ck_assert_str_eq(lmo_format_fit("abcd", 3, buf, sizeof buf), "ab~");
    ck_assert_str_eq(lmo_format_fit("abcd", 0, buf, sizeof buf), "");
}
END_TEST

START_TEST(table__fits_a_narrow_terminal_and_stays_whole_elsewhere)
{
    static const char *const cells[] = {
        "ID", "GUEST", "WHY", "01JABCDEFGHJKMNPQRSTVWXYZ0", "database-of-the-north", "the fleet's limit is in use"};
    for (unsigned width = 0; width < 120; width += width < 20 ? 20 : 1) {
        struct lmo_grid t = {.columns = 3};
        struct lmo_style style = {.width = width};
        char *text = NULL, *rest, *line;
        size_t len = 0;
        for (size_t i = 0; i < 6; i++)
            lmo_grid_cell(&t, cells[i]);
        FILE *f = open_memstream(&text, &len);
        ck_assert(lmo_grid_print(&t, &style, f));
        fclose(f);
        lmo_grid_release(&t);
        ck_assert_msg(contains(text, "01JABCDEFGHJKMNPQRSTVWXYZ0"), "%s",
                      text); /* what the row is about is never cut */
        if (width == 0)
            ck_assert(contains(text, "the fleet's limit is in use") && contains(text, "database-of-the-north"));
        rest = text;
        while (width >= 38 && (line = strsep(&rest, "\n")))
            ck_assert_msg(lmo_format_width(line) <= width, "%u: %s", width, line);
        free(text);
    }
}
END_TEST

Suite *cli_words_suite(void)
{
    Suite *s = suite_create("cli_words");
    TCase *tc = tcase_create("words");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, distance__counts_edits_and_swaps);
    tcase_add_test(tc, suggestions__are_the_nearest_three_and_never_far_ones);
    tcase_add_test(tc, misspelt_commands_and_options__are_met_with_the_right_ones);
    tcase_add_test(tc, name_that_nobody_has__is_looked_up_for_a_person_only);
    tcase_add_test(tc, completion__knows_commands_options_and_fixed_words);
    tcase_add_test(tc, completion__asks_for_names_for_a_second_and_is_silent_without_an_answer);
    tcase_add_test(tc, plain__has_a_heading_whole_values_and_one_line_an_object);
    tcase_add_test(tc, every_list_and_show__has_documented_plain_columns);
    tcase_add_test(tc, every_code__has_advice_of_its_own);
    tcase_add_test(tc, reference_in_docs__is_what_the_tables_say);
    tcase_add_test(tc, manual_pages__name_every_command_option_and_exit_code);
    tcase_add_test(tc, completion_scripts__exist_for_bash_and_zsh_and_nothing_else);
    tcase_add_test(tc, wait__ends_with_the_state_that_was_asked_for);
    tcase_add_test(tc, watch__tells_what_is_new_and_not_what_moves_within_a_phase);
    tcase_add_test(tc, event_stream__is_the_same_in_pieces_of_any_size);
    tcase_add_test(tc, width__counts_columns_not_bytes);
    tcase_add_test(tc, table__fits_a_narrow_terminal_and_stays_whole_elsewhere);
    suite_add_tcase(s, tc);
    return s;
}
