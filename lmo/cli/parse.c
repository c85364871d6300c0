/* parse.c - from argv to a command and its arguments, with argp, driven by the tables of commands.c and options.c.
 *
 * Two passes: options before the command's words (connection, --json, --help, --version), then the command's own with
 * everything that comes after. What the second pass sees wins. Help is rendered here too, from the same rows. */
#include "cli/commands.h"

#include <argp.h>
#include <string.h>

#define KEY_BASE 0x1000 /* above every character, so that only short_name makes a short option */

struct parse {
    struct lmo_cli *cli;
    const struct lmo_cli_command *command; /* NULL in the first pass */
    uint64_t accepted;
    int first_word; /* first pass: index of the command's first word; 0: none */
    bool help, usage, version;
    struct lmo_cli_args args;
};

static void fill_options(uint64_t accepted, struct argp_option ret[LMO_OPT_COUNT + 1])
{
    size_t n = 0;
    for (int id = 0; id < LMO_OPT_COUNT; id++) {
        if ((accepted >> id & 1) == 0)
            continue;
        const struct lmo_option_row *row = &lmo_option_rows[id];
        /* argp orders by group: first the command's own options, then the connection's, then help. */
        int group = (LMO_OPTS_ALWAYS >> id & 1) || id == LMO_OPT_VERSION ? 3 : (LMO_OPTS_CONNECTION >> id & 1) ? 2 : 1;
        ret[n++] = (struct argp_option){.name = row->long_name,
                                        .key = row->short_name ? row->short_name : KEY_BASE + id,
                                        .arg = row->argument,
                                        .doc = row->help,
                                        .group = group};
    }
    ret[n] = (struct argp_option){0};
}

static int option_of_key(uint64_t accepted, int key)
{
    for (int id = 0; id < LMO_OPT_COUNT; id++) {
        const struct lmo_option_row *row = &lmo_option_rows[id];
        if ((accepted >> id & 1) && key == (row->short_name ? row->short_name : KEY_BASE + id))
            return id;
    }
    return -1;
}

static error_t on_positional(struct parse *p, char *arg, struct argp_state *state)
{
    if (!p->command) {
        p->first_word = state->next - 1;
        state->next = state->argc; /* the rest is the command's */
        return 0;
    }
    unsigned max = p->command->max;
    if (p->args.count >= max) {
        argp_error(state, "too many arguments, beginning with \"%s\"", arg);
        return EINVAL;
    }
    p->args.positional[p->args.count++] = arg;
    return 0;
}

static error_t on_key(int key, char *arg, struct argp_state *state)
{
    struct parse *p = state->input;
    if (key == ARGP_KEY_INIT) {
        state->err_stream = p->cli->err;
        state->out_stream = p->cli->out;
        return 0;
    }
    if (key == ARGP_KEY_ARG)
        return on_positional(p, arg, state);
    int id = option_of_key(p->accepted, key);
    if (id < 0)
        return ARGP_ERR_UNKNOWN;
    char problem[256];
    if (!lmo_option_set(&p->args, (enum lmo_option)id, arg, problem, sizeof problem)) {
        argp_error(state, "%s", problem);
        return EINVAL;
    }
    p->help |= id == LMO_OPT_HELP;
    p->usage |= id == LMO_OPT_USAGE;
    p->version |= id == LMO_OPT_VERSION;
    return 0;
}

/* Help asked for is help given, whatever else is wrong with the line. */
static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    }
    return false;
}

static int run_argp(struct parse *p, int argc, char **argv, unsigned flags)
{
    struct argp_option options[LMO_OPT_COUNT + 1];
    fill_options(p->accepted, options);
    struct argp argp = {.options = options,
                        .parser = on_key,
                        .args_doc = p->command ? p->command->arguments : "COMMAND"};
    return argp_parse(&argp, argc, argv, flags | ARGP_NO_EXIT | ARGP_NO_HELP, NULL, p);
}

/* ------------------------------------------------------------------ help */

static void help_options(const char *name, const char *arguments, uint64_t accepted, unsigned flags, FILE *out)
{
    struct argp_option options[LMO_OPT_COUNT + 1];
    fill_options(accepted, options);
    struct argp argp = {.options = options, .parser = on_key, .args_doc = arguments};
    char copy[64];
    snprintf(copy, sizeof copy, "%s", name);
    argp_help(&argp, out, flags, copy);
}

static void full_name(const struct lmo_cli_command *command, char *ret, size_t size)
{
    snprintf(ret, size, "lmo %s", command->name);
}

/* Breaks `text` into lines of at most 79 columns. */
static void wrapped(FILE *out, const char *text)
{
    size_t column = 0;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column > 0 && column + 1 + word > 79) {
            fputc('\n', out);
            column = 0;
        }
        column += (size_t)fprintf(out, "%s%.*s", column > 0 ? " " : "", (int)word, text);
        text += word + (text[word] == ' ');
    }
    fputc('\n', out);
}

static void overview(FILE *out)
{
    fputs("Usage: lmo [OPTION...] COMMAND [ARGUMENT...]\nMove running virtual machines between hosts.\n\nCommands:\n",
          out);
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        const struct lmo_cli_command *c = &lmo_cli_commands[i];
        char left[80];
        snprintf(left, sizeof left, "%s%s%s", c->name, *c->arguments ? " " : "", c->arguments);
        fprintf(out, strlen(left) < 20 ? "  %-20s %s\n" : "  %s\n                       %s\n", left, c->summary);
    }
    fputs("\nOptions of all commands:\n", out);
    help_options("lmo", "", LMO_OPTS_CONNECTION | LMO_OPTS_ALWAYS | LMO_OPT_BIT(VERSION), ARGP_HELP_LONG, out);
    fputs("\nWithout --url, --ca, --cert, --key and --crl: the environment's LMO_URL, LMO_CA,\nLMO_CERT, LMO_KEY and "
          "LMO_CRL. NO_COLOR turns colours off.\n\nExit codes:\n",
          out);
#define X(name, code, text) fprintf(out, "  %3d  %s\n", code, text);
    LMO_EXITS(X)
#undef X
    fputs("\n`lmo COMMAND --help` explains one command.\n", out);
}

static uint64_t accepted_by(const struct lmo_cli_command *c)
{
    return c->options | LMO_OPTS_ALWAYS;
}

void lmo_cli_help(const struct lmo_cli_command *command, FILE *out)
{
    if (!command) {
        overview(out);
        return;
    }
    char name[64];
    full_name(command, name, sizeof name);
    help_options(name, command->arguments, accepted_by(command), ARGP_HELP_USAGE, out);
    fprintf(out, "%s.\n\n", command->summary);
    help_options(name, command->arguments, accepted_by(command), ARGP_HELP_LONG, out);
    if (command->details) {
        fputc('\n', out);
        wrapped(out, command->details);
    }
}

/* ------------------------------------------------------------------ the command's words */

static int unknown_command(struct lmo_cli *cli, const char *first, const char *second)
{
    char near[512] = "";
    size_t len = strlen(first), used = 0;
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        const char *name = lmo_cli_commands[i].name;
        bool related = strncmp(name, first, len < 3 ? len : 3) == 0;
        if (related && used < sizeof near) {
            used += (size_t)snprintf(near + used, sizeof near - used, "%s`lmo %s`", used ? ", " : "", name);
        }
    }
    char what[128];
    lmo_format_safe(first, what, sizeof what / 2);
    bool is_group = false;
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        is_group |= strncmp(lmo_cli_commands[i].name, first, len) == 0 && lmo_cli_commands[i].name[len] == ' ';
    }
    if (is_group && !second)
        lmo_cli_message(cli, "%s what? There are %s.", what, near);
    else
        lmo_cli_message(cli, "no command \"%s%s%.60s\".%s%s%s", what, is_group ? " " : "", is_group ? second : "",
                        used ? " Did you mean " : " `lmo --help` lists them", near, used ? "?" : ".");
    return LMO_EXIT_USAGE;
}

/* Takes one or two words; *ret_used says how many. */
static const struct lmo_cli_command *match_words(char **words, int count, int *ret_used)
{
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        const struct lmo_cli_command *c = &lmo_cli_commands[i];
        const char *space = strchr(c->name, ' ');
        size_t first = space ? (size_t)(space - c->name) : strlen(c->name);
        if (strlen(words[0]) != first || strncmp(words[0], c->name, first) != 0)
            continue;
        if (space && (count < 2 || strcmp(words[1], space + 1) != 0))
            continue;
        *ret_used = space ? 2 : 1;
        return c;
    }
    return NULL;
}

static int check_arguments(struct lmo_cli *cli, const struct lmo_cli_command *c)
{
    if (cli->args.count < c->min) {
        lmo_cli_message(cli, "%s: missing %s. Try `lmo %s --help`.", c->name, c->arguments, c->name);
        return LMO_EXIT_USAGE;
    }
    for (int id = 0; id < LMO_OPT_COUNT; id++) {
        if ((c->required & ~cli->args.given) >> id & 1) {
            lmo_cli_message(cli, "%s: missing --%s %s. Try `lmo %s --help`.", c->name, lmo_option_rows[id].long_name,
                            lmo_option_rows[id].argument, c->name);
            return LMO_EXIT_USAGE;
        }
    }
    return -1;
}

static int parse_command(struct lmo_cli *cli, int argc, char **argv, const struct lmo_cli_command **ret_command)
{
    int used = 0;
    const struct lmo_cli_command *c = match_words(argv, argc, &used);
    if (!c)
        return unknown_command(cli, argv[0], argc > 1 && argv[1][0] != '-' ? argv[1] : NULL);
    char name[64];
    full_name(c, name, sizeof name);
    char *word = argv[used - 1];
    argv[used - 1] = name; /* argp's messages begin with argv[0] */
    char **rest = argv + used - 1;
    int rest_count = argc - used + 1;
    if (asks_for_help(rest_count, rest)) {
        argv[used - 1] = word;
        lmo_cli_help(c, cli->out);
        return LMO_EXIT_OK;
    }
    struct parse p = {.cli = cli, .command = c, .accepted = accepted_by(c), .args = cli->args};
    p.args.count = 0;
    int rc = run_argp(&p, rest_count, rest, 0);
    argv[used - 1] = word;
    if (rc != 0)
        return LMO_EXIT_USAGE;
    if (p.usage) {
        help_options(name, c->arguments, p.accepted, ARGP_HELP_USAGE, cli->out);
        return LMO_EXIT_OK;
    }
    cli->args = p.args;
    *ret_command = c;
    return check_arguments(cli, c);
}

int lmo_cli_parse(struct lmo_cli *cli, int argc, char **argv, const struct lmo_cli_command **ret_command)
{
    struct parse p = {.cli = cli, .accepted = LMO_OPTS_CONNECTION | LMO_OPTS_ALWAYS | LMO_OPT_BIT(VERSION)};
    int rc = run_argp(&p, argc, argv, ARGP_IN_ORDER);
    if (rc != 0 && !p.help)
        return LMO_EXIT_USAGE;
    cli->args = p.args;
    if (p.help) {
        lmo_cli_help(NULL, cli->out);
        return LMO_EXIT_OK;
    }
    if (p.version) {
        lmo_cmd_version(cli);
        return LMO_EXIT_OK;
    }
    if (p.usage) {
        fputs("Usage: lmo [OPTION...] COMMAND [ARGUMENT...]\n", cli->out);
        return LMO_EXIT_OK;
    }
    if (p.first_word == 0) {
        lmo_cli_message(cli, "no command given. `lmo --help` lists them.");
        return LMO_EXIT_USAGE;
    }
    return parse_command(cli, argc - p.first_word, argv + p.first_word, ret_command);
}
