/* cli.c - running one command line; what all commands share. See cli.h. */
#include "cli/cli.h"
#include "base/loop.h"
#include "cli/commands.h"
#include "cli/transport.h"
#include "cli/words.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void lmo_cli_message(struct lmo_cli *cli, const char *fmt, ...)
{
    char raw[1024], text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(raw, sizeof raw, fmt, ap);
    va_end(ap);
    fflush(cli->out); /* where both go to one terminal, the order is that of writing */
    fprintf(cli->err, "lmo: %s\n", lmo_format_safe(raw, text, sizeof text));
}

int lmo_cli_failed(struct lmo_cli *cli, const struct lmo_err *err)
{
    lmo_cli_message(cli, "%s", err->text[0] ? err->text : lmo_err_name(err->code));
    return LMO_EXIT_FAILED;
}

int lmo_cli_loop(struct lmo_cli *cli, struct lmo_loop **ret_loop, struct lmo_err *err)
{
    int rc = cli->loop ? 0 : lmo_loop_new(16, &cli->loop, err);
    *ret_loop = cli->loop;
    return rc;
}

int lmo_cli_print_json(struct lmo_cli *cli, const json_t *json)
{
    size_t flags = cli->out_style.tty ? JSON_INDENT(2) : JSON_COMPACT;
    if (json_dumpf(json, cli->out, flags) == 0 && fputc('\n', cli->out) != EOF)
        return 0;
    lmo_cli_message(cli, "cannot write to standard output: %s", strerror(errno));
    return LMO_EXIT_FAILED;
}

int lmo_cmd_version(struct lmo_cli *cli)
{
    if (LMO_GIVEN(&cli->args, JSON))
        fprintf(cli->out, "{\"version\":\"%s\"}\n", LMO_VERSION);
    else
        fprintf(cli->out, "lmo %s\n", LMO_VERSION);
    return 0;
}

int lmo_cmd_help(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    if (a->count == 0) {
        lmo_cli_help(NULL, cli->out);
        return 0;
    }
    char name[128];
    snprintf(name, sizeof name, "%s%s%s", a->positional[0], a->count > 1 ? " " : "",
             a->count > 1 ? a->positional[1] : "");
    const struct lmo_cli_command *c = lmo_cli_command_find(name);
    if (!c) {
        lmo_cli_message(cli, "no command \"%s\". `lmo --help` lists them.", name);
        return LMO_EXIT_USAGE;
    }
    lmo_cli_help(c, cli->out);
    return 0;
}

int lmo_cli_run(struct lmo_cli *cli, int argc, char **argv)
{
    /* Not a command: the shells' completion calls it, with lines that are not finished and not to be judged. */
    bool completes = argc > 1 && strcmp(argv[1], "__complete") == 0;
    int rc = completes ? lmo_cli_complete(cli, argc - 2, argv + 2) : lmo_cli_parse(cli, argc, argv, &cli->command);
    if (LMO_GIVEN(&cli->args, PLAIN))
        cli->out_style = (struct lmo_style){0};
    if (rc < 0)
        rc = cli->command->run(cli);
    cli->transport = lmo_transport_free(cli->transport);
    cli->loop = lmo_loop_free(cli->loop);
    if ((fflush(cli->out) != 0 || ferror(cli->out)) && rc == 0) {
        if (errno != EPIPE)
            lmo_cli_message(cli, "cannot write to standard output: %s", strerror(errno));
        rc = LMO_EXIT_FAILED;
    }
    fflush(cli->err);
    return rc;
}
