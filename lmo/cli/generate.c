/* generate.c - manual pages and the reference; see generate.h. */
#include "cli/generate.h"
#include "cli/commands.h"
#include "cli/contexts.h"
#include "cli/plain.h"

#include <ctype.h>
#include <string.h>

#define COMMON (LMO_OPTS_CONNECTION | LMO_OPTS_ALWAYS)

static bool in_group(const struct lmo_cli_command *c, const char *group)
{
    size_t len = strlen(group);
    return strncmp(c->name, group, len) == 0 && (c->name[len] == ' ' || c->name[len] == '\0');
}

const char *lmo_generate_group(size_t index, char buf[32])
{
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        bool seen = false;
        snprintf(buf, 32, "%.*s", (int)strcspn(lmo_cli_commands[i].name, " "), lmo_cli_commands[i].name);
        for (size_t j = 0; j < i && !seen; j++)
            seen = in_group(&lmo_cli_commands[j], buf);
        if (!seen && index-- == 0)
            return buf;
    }
    return NULL;
}

/* ------------------------------------------------------------------ manual pages */

/* One character of text for troff, as itself and as nothing else; returns the columns that it takes in the source. */
static size_t escaped(char c, bool *bold, FILE *out)
{
    switch (c) {
    case '`': *bold = !*bold; return (size_t)fprintf(out, *bold ? "\\fB" : "\\fR");
    case '\\': return (size_t)fprintf(out, "\\e");
    case '-': return (size_t)fprintf(out, "\\-");
    case '\'': return (size_t)fprintf(out, "\\(aq");
    default: fputc(c, out); return 1;
    }
}

/* What is between backquotes becomes bold. */
static void troff(const char *text, FILE *out)
{
    bool bold = false;
    for (; *text; text++)
        escaped(*text, &bold, out);
}

/* Running text: a new line after each sentence, as troff likes it, and before column 80. Ends the line. */
static void paragraph(const char *text, FILE *out)
{
    size_t column = 0;
    bool bold = false, ended = false;
    while (*(text += strspn(text, " "))) {
        size_t len = strcspn(text, " ");
        if (ended || (column > 0 && column + 2 * len > 78)) {
            fputc('\n', out);
            column = 0;
        }
        column += (size_t)fprintf(out, column > 0 ? " " : *text == '.' ? "\\&" : "");
        for (size_t i = 0; i < len; i++)
            column += escaped(text[i], &bold, out);
        ended = strchr(".:;?", text[len - 1]) != NULL;
        text += len;
    }
    fputc('\n', out);
}

/* A sentence that has no full stop of its own. */
static void sentence(const char *text, FILE *out)
{
    char whole[1024];
    snprintf(whole, sizeof whole, "%s.", text);
    paragraph(whole, out);
}

static void man_option(const struct lmo_option_row *row, FILE *out)
{
    fputs(".TP\n", out);
    if (row->short_name)
        fprintf(out, "\\fB\\-%c\\fR, ", row->short_name);
    fputs("\\fB\\-\\-", out);
    troff(row->long_name, out);
    fputs("\\fR", out);
    if (row->argument) {
        fputs("=\\fI", out);
        troff(row->argument, out);
        fputs("\\fR", out);
    }
    fputc('\n', out);
    sentence(row->help, out);
}

static void man_options(lmo_option_mask mask, FILE *out)
{
    for (int id = 0; id < LMO_OPT_COUNT; id++) {
        if (mask >> id & 1)
            man_option(&lmo_option_rows[id], out);
    }
}

static void man_title(const char *name, const char *date, FILE *out)
{
    char upper[64];
    size_t i = 0;
    for (; name[i] && i + 1 < sizeof upper; i++)
        upper[i] = (char)toupper((unsigned char)name[i]);
    upper[i] = '\0';
    fputs(".TH ", out);
    troff(upper, out);
    fprintf(out, " 1 %s \"lmo %s\" \"Live Migration Orchestrator\"\n", date, LMO_VERSION);
}

static void man_usage(const struct lmo_cli_command *c, FILE *out)
{
    fputs("\\fBlmo ", out);
    troff(c->name, out);
    fputs("\\fR", out);
    for (int id = 0; id < LMO_OPT_COUNT; id++) {
        const struct lmo_option_row *row = &lmo_option_rows[id];
        if ((c->required >> id & 1) == 0)
            continue;
        fputs(" \\fB\\-\\-", out);
        troff(row->long_name, out);
        fputs("\\fR \\fI", out);
        troff(row->argument ? row->argument : "", out);
        fputs("\\fR", out);
    }
    fputs(" [\\fIOPTION\\fR...]", out);
    if (*c->arguments) {
        fputs(" \\fI", out);
        troff(c->arguments, out);
        fputs("\\fR", out);
    }
    fputc('\n', out);
}

static void man_group(const char *group, const char *date, FILE *out)
{
    char name[64], columns[512];
    size_t count = 0;
    const struct lmo_cli_command *only = NULL;
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        if (in_group(&lmo_cli_commands[i], group)) {
            only = &lmo_cli_commands[i];
            count++;
        }
    }
    snprintf(name, sizeof name, "lmo-%s", group);
    man_title(name, date, out);
    fputs(".SH NAME\n", out);
    troff(name, out);
    fputs(" \\- ", out);
    if (count == 1 && only)
        troff(only->summary, out);
    else
        fprintf(out, "commands of the live migration orchestrator: %s", group);
    fputs("\n.SH SYNOPSIS\n", out);
    bool first = true;
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        if (!in_group(&lmo_cli_commands[i], group))
            continue;
        fputs(first ? "" : ".br\n", out);
        first = false;
        man_usage(&lmo_cli_commands[i], out);
    }
    fputs(".SH DESCRIPTION\n", out);
    lmo_option_mask options = 0;
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        const struct lmo_cli_command *c = &lmo_cli_commands[i];
        if (!in_group(c, group))
            continue;
        fputs(".SS lmo ", out);
        troff(c->name, out);
        fputc('\n', out);
        sentence(c->summary, out);
        if (c->details)
            paragraph(c->details, out);
        const struct lmo_plain_row *plain = lmo_plain_find(c->name);
        if (plain) {
            fputs(".PP\nColumns of \\fB\\-\\-plain\\fR:\n", out);
            sentence(lmo_plain_names(plain, ", ", columns, sizeof columns), out);
        }
        options |= c->options;
    }
    if ((options & ~COMMON) != 0) {
        fputs(".SH OPTIONS\n", out);
        paragraph("Each command takes those that its usage (`--help`) names; `lmo`(1) has the options of all commands.",
                  out);
        man_options(options & ~COMMON, out);
    }
    fputs(".SH SEE ALSO\n.BR lmo (1)\n", out);
}

static void man_overview(const char *date, FILE *out)
{
    char group[32];
    man_title("lmo", date, out);
    fputs(".SH NAME\nlmo \\- move running virtual machines between hosts\n.SH SYNOPSIS\n"
          "\\fBlmo\\fR [\\fIOPTION\\fR...] \\fICOMMAND\\fR [\\fIARGUMENT\\fR...]\n.SH DESCRIPTION\n"
          "The operator\\(aqs tool of the live migration orchestrator.\nIt asks the coordinator (lmod) over HTTPS;\n"
          "\\fBlmo pki\\fR and \\fBlmo context\\fR are local.\n.SH COMMANDS\n",
          out);
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        const struct lmo_cli_command *c = &lmo_cli_commands[i];
        fputs(".TP\n\\fB", out);
        troff(c->name, out);
        fputs("\\fR", out);
        if (*c->arguments) {
            fputs(" \\fI", out);
            troff(c->arguments, out);
            fputs("\\fR", out);
        }
        fputc('\n', out);
        sentence(c->summary, out);
    }
    fputs(".SH OPTIONS\nThese may stand before the command or after it.\n", out);
    man_options(COMMON | LMO_OPT_BIT(VERSION), out);
    fputs(".SH ENVIRONMENT\n", out);
    for (int m = 0; m < LMO_CONTEXT_MEMBERS; m++)
        fprintf(out, ".TP\n.B %s\nThe same as \\-\\-%s.\n", lmo_context_rows[m].variable,
                lmo_option_rows[lmo_context_rows[m].option].long_name);
    fputs(".TP\n.B LMO_CONTEXT\nThe same as \\-\\-context.\n.TP\n.B LMO_PKI_DIR\nThe same as \\-\\-dir of \\fBlmo "
          "pki\\fR.\n"
          ".TP\n.B NO_COLOR\nNo colours.\n.SH FILES\n"
          ".TP\n.I $XDG_CONFIG_HOME/lmo/config\nThe user\\(aqs contexts; without XDG_CONFIG_HOME in ~/.config.\n"
          ".TP\n.I /etc/lmo/lmo.conf\nThe system\\(aqs contexts.\n.SH EXIT STATUS\n",
          out);
#define X(name, code, text)             \
    fprintf(out, ".TP\n.B %d\n", code); \
    paragraph(text ".", out);
    LMO_EXITS(X)
#undef X
    fputs(".SH SEE ALSO\n", out);
    for (size_t i = 0; lmo_generate_group(i, group); i++) {
        char next[32];
        fputs(".BR lmo\\-", out);
        troff(group, out);
        fputs(lmo_generate_group(i + 1, next) ? " (1),\n" : " (1)\n", out);
    }
}

void lmo_generate_man(const char *group, const char *date, FILE *out)
{
    if (group)
        man_group(group, date, out);
    else
        man_overview(date, out);
}

/* ------------------------------------------------------------------ reference */

/* Inside a table's cell a bar would end it. */
static void cell(const char *text, FILE *out)
{
    for (; *text; text++)
        fprintf(out, *text == '|' ? "\\|" : "%c", *text);
}

static void option_lines(lmo_option_mask mask, lmo_option_mask required, FILE *out)
{
    fputs("\n| option | |\n|---|---|\n", out);
    for (int id = 0; id < LMO_OPT_COUNT; id++) {
        const struct lmo_option_row *row = &lmo_option_rows[id];
        if ((mask >> id & 1) == 0)
            continue;
        fputs("| `", out);
        if (row->short_name)
            fprintf(out, "-%c`, `", row->short_name);
        fprintf(out, "--%s%s%s` | ", row->long_name, row->argument ? " " : "", row->argument ? row->argument : "");
        cell(row->help, out);
        fputs(required >> id & 1 ? " (required) |\n" : " |\n", out);
    }
}

void lmo_generate_reference(FILE *out)
{
    char group[32], columns[512];
    fputs(
        "# Reference of `lmo`\n\nWritten by `make docs` from the tables of commands and options (`lmo/cli/commands.c`, "
        "`options.h`, `plain.c`): do not edit.\n[cli.md](cli.md) is about what the commands have in common.\n\n"
        "## Options of all commands\n",
        out);
    option_lines(COMMON | LMO_OPT_BIT(VERSION), 0, out);
    fputs("\nCommands that speak to nobody (`context`, `pki`, `completion`, `help`, `version`) need no connection.\n\n"
          "## Exit codes\n\n| code | |\n|---|---|\n",
          out);
#define X(name, code, text) fprintf(out, "| %d | %s |\n", code, text);
    LMO_EXITS(X)
#undef X
    for (size_t g = 0; lmo_generate_group(g, group); g++) {
        for (size_t i = 0; i < lmo_cli_command_count; i++) {
            const struct lmo_cli_command *c = &lmo_cli_commands[i];
            if (!in_group(c, group))
                continue;
            fprintf(out, "\n## `lmo %s%s%s`\n\n%s.\n", c->name, *c->arguments ? " " : "", c->arguments, c->summary);
            if (c->details)
                fprintf(out, "\n%s\n", c->details);
            if ((c->options & ~COMMON) != 0)
                option_lines(c->options & ~COMMON, c->required, out);
            const struct lmo_plain_row *plain = lmo_plain_find(c->name);
            if (plain)
                fprintf(out, "\nColumns of `--plain`: %s.\n", lmo_plain_names(plain, ", ", columns, sizeof columns));
        }
    }
}
