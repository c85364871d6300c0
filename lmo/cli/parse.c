/* parse.c - from argv to a command and its arguments, with argp, driven by the tables of commands.c and options.c.
 *
 * Two passes: options before the command's words (connection, --json, --help, --version), then the command's own with
 * everything that comes after. What the second pass sees wins. Help is rendered here too, from the same rows. */
#include "cli/commands.h"
#include "cli/plain.h"
#include "cli/suggest.h"

#include <argp.h>
#include <string.h>

#define KEY_BASE 0x1000 /* above every character, so that only short_name makes a short option */

struct parse {
    struct lmo_cli *cli;
    const struct lmo_cli_command *command; /* NULL in the first pass */
    lmo_option_mask accepted;
    int first_word; /* first pass: index of the command's first word; 0: none */
    bool help, usage, version;
    struct lmo_cli_args args;
};

static void fill_options(lmo_option_mask accepted, struct argp_option ret[LMO_OPT_COUNT + 1])
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

static int option_of_key(lmo_option_mask accepted, int key)
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

static void help_options(const char *name, const char *arguments, lmo_option_mask accepted, unsigned flags, FILE *out)
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
    fputs("\nWhat is not given comes from the environment (LMO_URL, LMO_CA, LMO_CERT, LMO_KEY,\nLMO_CRL, LMO_TOKEN_FILE, "
          "LMO_CONTEXT), else from the context in force (`lmo context`).\nNO_COLOR turns colours off.\n\nExit codes:\n",
          out);
#define X(name, code, text) fprintf(out, "  %3d  %s\n", code, text);
    LMO_EXITS(X)
#undef X
    fputs("\n`lmo COMMAND --help` explains one command.\n", out);
}

static lmo_option_mask accepted_by(const struct lmo_cli_command *c)
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
    const struct lmo_plain_row *plain = lmo_plain_find(command->name);
    if (plain) {
        char text[600], names[512];
        snprintf(text, sizeof text, "Columns of --plain: %s.", lmo_plain_names(plain, ", ", names, sizeof names));
        fputc('\n', out);
        wrapped(out, text);
    }
}

/* ------------------------------------------------------------------ the command's words */

/* Is there a command "FIRST something"? */
static bool is_group(const char *first, size_t len)
{
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        if (strncmp(lmo_cli_commands[i].name, first, len) == 0 && lmo_cli_commands[i].name[len] == ' ')
            return true;
    }
    return false;
}

/* "`lmo host add`, `lmo host list`": the commands of a group. */
static void list_group(const char *first, char *buf, size_t size)
{
    size_t len = strlen(first), used = 0;
    for (size_t i = 0; i < lmo_cli_command_count && used < size; i++) {
        const char *name = lmo_cli_commands[i].name;
        if (strncmp(name, first, len) == 0 && name[len] == ' ')
            used += (size_t)snprintf(buf + used, size - used, "%s`lmo %s`", used ? ", " : "", name);
    }
}

static int unknown_command(struct lmo_cli *cli, const char *first, const char *second)
{
    char near_text[LMO_SUGGEST_TEXT_MAX], what[128], group[512] = "";
    lmo_format_safe(first, what, sizeof what / 2);
    if (is_group(first, strlen(first))) {
        list_group(first, group, sizeof group);
        if (second) {
            lmo_format_safe(second, what + 64, sizeof what - 64);
            lmo_cli_message(cli, "no command \"%s %s\". There are %s.", what, what + 64, group);
        } else {
            lmo_cli_message(cli, "%s what? There are %s.", what, group);
        }
        return LMO_EXIT_USAGE;
    }
    char whole[LMO_SUGGEST_WORD_MAX];
    snprintf(whole, sizeof whole, "%.30s%s%.30s", first, second ? " " : "", second ? second : "");
    struct lmo_suggest words = {.word = first}, lines = {.word = whole};
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        const char *name = lmo_cli_commands[i].name;
        char word[32];
        snprintf(word, sizeof word, "%.*s", (int)strcspn(name, " "), name);
        lmo_suggest_add(strchr(name, ' ') ? &lines : &words, strchr(name, ' ') ? name : word);
        if (strchr(name, ' '))
            lmo_suggest_add(&words, word);
    }
    const struct lmo_suggest *best = lines.count > 0 ? &lines : &words;
    lmo_cli_message(cli, "no command \"%s\".%s `lmo --help` lists them.", what, lmo_suggest_text(best, "lmo ", near_text));
    return LMO_EXIT_USAGE;
}

/* argp says that it does not know an option, and stops there. */
static void suggest_option(const struct parse *p, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        char word[LMO_SUGGEST_WORD_MAX], text[LMO_SUGGEST_TEXT_MAX];
        if (strncmp(argv[i], "--", 2) != 0)
            continue;
        snprintf(word, sizeof word, "%.*s", (int)strcspn(argv[i] + 2, "="), argv[i] + 2);
        struct lmo_suggest near = {.word = word};
        bool known = false;
        for (int id = 0; id < LMO_OPT_COUNT; id++) {
            if ((p->accepted >> id & 1) == 0)
                continue;
            known |= strncmp(lmo_option_rows[id].long_name, word, strlen(word)) == 0; /* argp takes beginnings */
            lmo_suggest_add(&near, lmo_option_rows[id].long_name);
        }
        if (!known && near.count > 0)
            lmo_cli_message(p->cli, "no option --%s here.%s", word, lmo_suggest_text(&near, "--", text));
    }
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
    if (rc != 0) {
        suggest_option(&p, rest_count, rest);
        return LMO_EXIT_USAGE;
    }
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
    if (rc != 0 && !p.help) {
        suggest_option(&p, argc, argv);
        return LMO_EXIT_USAGE;
    }
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
