/* test_cli_context.c - contexts in the configuration, which setting counts, and files that others could read. */
#include "tests/unit/cli_fake.h"

#include "base/fs.h"
#include "cli/settings.h"
#include "tests/unit/tmpdir.h"

#include <sys/stat.h>

Suite *cli_context_suite(void);

static char home[TMPDIR_MAX];
static const char *variables[8][2];

static const char *test_env(const char *name)
{
    if (strcmp(name, "XDG_CONFIG_HOME") == 0)
        return home;
    for (size_t i = 0; i < 8 && variables[i][0]; i++) {
        if (strcmp(variables[i][0], name) == 0)
            return variables[i][1];
    }
    return NULL;
}

static void set_variable(size_t at, const char *name, const char *value)
{
    variables[at][0] = name;
    variables[at][1] = value;
    variables[at + 1][0] = NULL;
}

static const char *path_of(const char *name)
{
    static char path[4][320];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", home, name);
    return p;
}

static void put_file(const char *name, const char *text, mode_t mode)
{
    ck_assert_int_eq(lmo_fs_write_atomic(path_of(name), text, strlen(text), 0600, NULL), 0);
    ck_assert_int_eq(chmod(path_of(name), mode), 0);
}

static void setup(void)
{
    tmpdir_make(home, "cli-context");
    variables[0][0] = NULL;
    put_file("key", "k", 0600);
    put_file("token", " secret-token\n", 0600);
}

static void teardown(void)
{
    tmpdir_remove(home);
}

/* `line` with every '@' replaced by the test's directory. */
static int command(const char *line, char *ret_out, char *ret_err)
{
    char text[2048], *argv[32], *rest = text, *out = NULL, *err = NULL;
    size_t used = 0, out_len = 0, err_len = 0;
    int argc = 0;
    used = (size_t)snprintf(text, sizeof text, "lmo ");
    for (; *line; line++)
        used +=
            (size_t)snprintf(text + used, sizeof text - used, *line == '@' ? "%s" : "%.1s", *line == '@' ? home : line);
    for (char *word; argc < 31 && (word = strsep(&rest, " "));)
        argv[argc++] = word;
    argv[argc] = NULL;
    struct lmo_cli cli = {.out = open_memstream(&out, &out_len),
                          .err = open_memstream(&err, &err_len),
                          .env = test_env,
                          .system_config = path_of("system.conf")};
    int rc = lmo_cli_run(&cli, argc, argv);
    fclose(cli.out);
    fclose(cli.err);
    snprintf(ret_out, 2048, "%s", out);
    snprintf(ret_err, 2048, "%s", err);
    free(out);
    free(err);
    return rc;
}

static char out[2048], err[2048];
#define LMO(rc, line)    ck_assert_msg(command(line, out, err) == (rc), "%s: %s%s", line, out, err)
#define SAYS(text, part) ck_assert_msg(contains(text, part), "\"%s\" is not in: %s", part, text)

static void resolve(const char *line, struct lmo_settings *ret, int want)
{
    static char text[512]; /* settings point into it */
    char *argv[16], *rest = text;
    int argc = 0;
    snprintf(text, sizeof text, "lmo %s", line);
    for (char *word; argc < 15 && (word = strsep(&rest, " "));)
        argv[argc++] = word;
    argv[argc] = NULL;
    struct lmo_cli cli = {.out = stderr, .err = stderr, .env = test_env, .system_config = path_of("system.conf")};
    for (int i = 0; i < argc; i++) { /* the options alone: what parsing would leave */
        const char *equals = strchr(argv[i], '=');
        for (int m = 0; equals && m < LMO_CONTEXT_MEMBERS + 1; m++) {
            enum lmo_option id = m < LMO_CONTEXT_MEMBERS ? lmo_context_rows[m].option : LMO_OPT_CONTEXT;
            size_t len = strlen(lmo_option_rows[id].long_name);
            if (strncmp(argv[i] + 2, lmo_option_rows[id].long_name, len) == 0 && argv[i][2 + len] == '=') {
                char problem[256];
                ck_assert(lmo_option_set(&cli.args, id, equals + 1, problem, sizeof problem));
            }
        }
    }
    struct lmo_err e = {0};
    int rc = lmo_settings_load(&cli, ret, &e);
    ck_assert_msg(rc == want, "%s: %d: %s", line, rc, e.text);
    snprintf(err, sizeof err, "%s", e.text);
}

START_TEST(context__is_set_used_shown_listed_and_removed)
{
    LMO(0, "context set prod --url https://c1:8443 --ca @/ca.pem --cert @/cert --key @/key");
    LMO(0, "context set test --url https://c2:8443 --ca @/ca.pem --token-file @/token");
    LMO(1, "context show");
    SAYS(err, "no context is in force");
    LMO(0, "context use prod");
    LMO(0, "context show");
    SAYS(out, "prod (current)");
    SAYS(out, "https://c1:8443");
    LMO(0, "context list --plain");
    ck_assert_msg(strncmp(out,
                          "name\tcurrent\turl\tca\tcrl\tcert\tkey\ttoken_file\tfile\nprod\ttrue\thttps://c1:8443\t",
                          70) == 0,
                  "%s", out);
    SAYS(out, "\ntest\tfalse\thttps://c2:8443\t");
    LMO(0, "context list --json");
    json_t *j = json_loads(out, 0, NULL);
    ck_assert_uint_eq(json_array_size(json_object_get(j, "contexts")), 2);
    json_decref(j);
    LMO(0, "context remove prod");
    LMO(1, "context show");
    LMO(1, "context use prdo");
    LMO(1, "context use tset");
    SAYS(err, "Did you mean test?");
    struct stat st;
    ck_assert_int_eq(stat(path_of("lmo/config"), &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
}
END_TEST

START_TEST(what_a_person_wrote_into_the_file__stays)
{
    ck_assert_int_eq(mkdir(path_of("lmo"), 0700), 0);
    put_file("lmo/config",
             "# mine\n[context prod]\n; the old one\nurl = https://old:1\nca=/ca\n\n[context other]\nurl = https://o:1",
             0600);
    LMO(0, "context set prod --url https://new:2");
    LMO(0, "context use prod");
    char *text = NULL;
    ck_assert_int_eq(lmo_fs_read_file(path_of("lmo/config"), 4096, &text, NULL, NULL), 0);
    ck_assert_str_eq(
        text,
        "# mine\n[context prod]\nurl = https://new:2\n; the old one\nca=/ca\n\n[context other]\nurl = https://o:1\n"
        "\n[lmo]\ncontext = prod\n");
    free(text);
    LMO(0, "context remove prod");
    ck_assert_int_eq(lmo_fs_read_file(path_of("lmo/config"), 4096, &text, NULL, NULL), 0);
    ck_assert_str_eq(text, "# mine\n[context other]\nurl = https://o:1\n\n[lmo]\n");
    free(text);
}
END_TEST

START_TEST(setting__flag_before_environment_before_context_and_a_named_context_before_the_environment)
{
    struct lmo_settings s;
    LMO(0, "context set a --url https://a:1 --ca /ca --cert /cert --key @/key");
    LMO(0, "context set b --url https://b:1 --ca /ca --cert /cert --key @/key");
    LMO(0, "context use a");
    resolve("", &s, 0);
    ck_assert_str_eq(s.text[LMO_CONTEXT_URL], "https://a:1");
    ck_assert_str_eq(s.context, "a");
    lmo_settings_release(&s);
    set_variable(0, "LMO_CONTEXT", "b");
    resolve("", &s, 0);
    ck_assert_str_eq(s.text[LMO_CONTEXT_URL], "https://b:1");
    lmo_settings_release(&s);
    set_variable(1, "LMO_URL", "https://e:1");
    resolve("", &s, 0);
    ck_assert_str_eq(s.text[LMO_CONTEXT_URL], "https://e:1");
    ck_assert_str_eq(s.text[LMO_CONTEXT_CA], "/ca");
    lmo_settings_release(&s);
    resolve("--context=a", &s, 0);
    ck_assert_str_eq(s.text[LMO_CONTEXT_URL], "https://a:1");
    lmo_settings_release(&s);
    resolve("--context=a --url=https://f:1", &s, 0);
    ck_assert_str_eq(s.text[LMO_CONTEXT_URL], "https://f:1");
    lmo_settings_release(&s);
    resolve("--context=c", &s, LMO_E_INVALID);
    SAYS(err, "no context \"c\"");
    lmo_settings_release(&s);
}
END_TEST

START_TEST(system_file__is_used_hidden_by_the_users_and_never_written)
{
    struct lmo_settings s;
    put_file("system.conf", "[lmo]\ncontext = site\n[context site]\nurl = https://s:1\nca = /ca\ncert = /c\nkey = /k\n",
             0644);
    LMO(0, "context show");
    SAYS(out, "system.conf");
    LMO(1, "context remove site");
    SAYS(err, "not this user's");
    /* What the user sets hides the system's context whole, so it takes over what was not given. */
    LMO(0, "context set site --token-file @/token");
    resolve("", &s, 0);
    ck_assert_str_eq(s.text[LMO_CONTEXT_URL], "https://s:1");
    ck_assert_ptr_null(s.text[LMO_CONTEXT_CERT]);
    ck_assert_str_eq(s.token, "secret-token");
    lmo_settings_release(&s);
}
END_TEST

START_TEST(file_that_others_can_read__is_refused_with_the_command_that_mends_it)
{
    struct lmo_settings s;
    LMO(0, "context set t --url https://c:1 --ca /ca --token-file @/token");
    LMO(0, "context use t");
    ck_assert_int_eq(chmod(path_of("token"), 0644), 0);
    resolve("", &s, LMO_E_FORBIDDEN);
    SAYS(err, "Run: chmod 600 ");
    ck_assert_str_eq(s.token, "");
    lmo_settings_release(&s);
    LMO(2, "context set t --token-file @/token");
    SAYS(err, "chmod 600");
    LMO(2, "host list");
    SAYS(err, "chmod 600");
    ck_assert_int_eq(chmod(path_of("key"), 0604), 0);
    LMO(2, "context set k --cert /cert --key @/key");
    SAYS(err, "chmod 600");
    ck_assert_int_eq(chmod(path_of("lmo/config"), 0666), 0);
    LMO(2, "context list");
    SAYS(err, "chmod go-w");
}
END_TEST

START_TEST(certificate_and_token__the_nearer_one_counts_and_both_alike_are_refused)
{
    struct lmo_settings s;
    char line[1024];
    LMO(0, "context set c --url https://c:1 --ca /ca --cert /cert --key @/key");
    LMO(0, "context use c");
    snprintf(line, sizeof line, "--token-file=%s", path_of("token"));
    resolve(line, &s, 0);
    ck_assert_ptr_null(s.text[LMO_CONTEXT_CERT]);
    ck_assert_ptr_null(s.text[LMO_CONTEXT_KEY]);
    ck_assert_str_eq(s.token, "secret-token");
    lmo_settings_release(&s);
    snprintf(line, sizeof line, "--token-file=%s --cert=/x --key=%s", path_of("token"), path_of("key"));
    resolve(line, &s, LMO_E_INVALID);
    SAYS(err, "both set on the command line");
    lmo_settings_release(&s);
    LMO(2, "context set c --token-file @/token --cert /x");
    SAYS(err, "one kind");
    /* Who sets the other kind gives the first one up. */
    LMO(0, "context set c --token-file @/token");
    LMO(0, "context show --plain");
    SAYS(out, "\t-\t-\t/tmp");
}
END_TEST

START_TEST(wrong_values__are_named_and_nothing_is_written)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"context set x", "nothing to set"},
        {"context set x --url http://c:1", "must be https://"},
        {"context set a/b --url https://c:1", "letters"},
        {"context set x --key @/none", "No such file"},
        {"context set x --token-file @", "not a regular file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        LMO(2, cases[i].line);
        SAYS(err, cases[i].says);
    }
    ck_assert_int_ne(access(path_of("lmo/config"), F_OK), 0);
    put_file("token", "two words", 0600);
    LMO(2, "host list --url https://c:1 --ca /ca --token-file @/token");
    SAYS(err, "one token");
    ck_assert(!contains(err, "two words")); /* no secret in a message */
    ck_assert_int_eq(mkdir(path_of("lmo"), 0700), 0);
    put_file("lmo/config", "[context x]\nurll = https://c:1\n", 0600);
    LMO(2, "context list");
    SAYS(err, "urll");
}
END_TEST

Suite *cli_context_suite(void)
{
    Suite *s = suite_create("cli_context");
    TCase *tc = tcase_create("contexts");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, context__is_set_used_shown_listed_and_removed);
    tcase_add_test(tc, what_a_person_wrote_into_the_file__stays);
    tcase_add_test(tc, setting__flag_before_environment_before_context_and_a_named_context_before_the_environment);
    tcase_add_test(tc, system_file__is_used_hidden_by_the_users_and_never_written);
    tcase_add_test(tc, file_that_others_can_read__is_refused_with_the_command_that_mends_it);
    tcase_add_test(tc, certificate_and_token__the_nearer_one_counts_and_both_alike_are_refused);
    tcase_add_test(tc, wrong_values__are_named_and_nothing_is_written);
    suite_add_tcase(s, tc);
    return s;
}
