/* commands.h - the one table of commands. The parser, --help, `lmo help` and whatever is generated for documentation
 * (manual page, completion) read it; a command that is not in it does not exist. */
#ifndef LMO_CLI_COMMANDS_H
#define LMO_CLI_COMMANDS_H

#include "cli/cli.h"

struct lmo_cli_command {
    const char *name;      /* one or two words: "migrate", "host add" */
    const char *arguments; /* "NAME"; "" if none */
    unsigned min, max;     /* positional arguments */
    lmo_option_mask options; /* without those every command has */
    lmo_option_mask required;
    const char *summary;   /* one line */
    const char *details;   /* for --help; may be NULL */
    const char *not_found; /* what to do after a 404; may be NULL */
    int (*run)(struct lmo_cli *cli);
};
extern const struct lmo_cli_command lmo_cli_commands[];
extern const size_t lmo_cli_command_count;

/* Options that come with every command that speaks to the coordinator, and with every command at all. */
#define LMO_OPTS_CONNECTION \
    (LMO_OPT_BIT(URL) | LMO_OPT_BIT(CA) | LMO_OPT_BIT(CRL) | LMO_OPT_BIT(CERT) | LMO_OPT_BIT(KEY) | \
     LMO_OPT_BIT(CONTEXT) | LMO_OPT_BIT(TOKEN_FILE))
#define LMO_OPTS_ALWAYS (LMO_OPT_BIT(JSON) | LMO_OPT_BIT(PLAIN) | LMO_OPT_BIT(HELP) | LMO_OPT_BIT(USAGE))

/* NULL: none of that name. */
const struct lmo_cli_command *lmo_cli_command_find(const char *name);

/* Parses argv into *ret_command and cli->args. -1: run the command; otherwise an exit code, all being said
 * (help went to cli->out, a problem to cli->err). */
int lmo_cli_parse(struct lmo_cli *cli, int argc, char **argv, const struct lmo_cli_command **ret_command);

/* The overview (command NULL) or one command's help. */
void lmo_cli_help(const struct lmo_cli_command *command, FILE *out);

int lmo_cmd_host_add(struct lmo_cli *cli);
int lmo_cmd_host_list(struct lmo_cli *cli);
int lmo_cmd_host_show(struct lmo_cli *cli);
int lmo_cmd_host_set(struct lmo_cli *cli);
int lmo_cmd_host_remove(struct lmo_cli *cli);
int lmo_cmd_vm_list(struct lmo_cli *cli);
int lmo_cmd_vm_show(struct lmo_cli *cli);
int lmo_cmd_migrate(struct lmo_cli *cli);
int lmo_cmd_migration_list(struct lmo_cli *cli);
int lmo_cmd_token_create(struct lmo_cli *cli);
int lmo_cmd_token_list(struct lmo_cli *cli);
int lmo_cmd_token_revoke(struct lmo_cli *cli);
int lmo_cmd_migration_show(struct lmo_cli *cli);
int lmo_cmd_migration_cancel(struct lmo_cli *cli);
int lmo_cmd_migration_resolve(struct lmo_cli *cli);
int lmo_cmd_migration_wait(struct lmo_cli *cli);
int lmo_cmd_drain(struct lmo_cli *cli);
int lmo_cmd_drain_list(struct lmo_cli *cli);
int lmo_cmd_drain_show(struct lmo_cli *cli);
int lmo_cmd_drain_pause(struct lmo_cli *cli);
int lmo_cmd_drain_resume(struct lmo_cli *cli);
int lmo_cmd_drain_cancel(struct lmo_cli *cli);
int lmo_cmd_drain_continue(struct lmo_cli *cli);
int lmo_cmd_cordon(struct lmo_cli *cli);
int lmo_cmd_uncordon(struct lmo_cli *cli);
int lmo_cmd_host_label(struct lmo_cli *cli);
int lmo_cmd_explain(struct lmo_cli *cli);
int lmo_cmd_rebalance(struct lmo_cli *cli);
int lmo_cmd_vm_policy(struct lmo_cli *cli);
int lmo_cmd_vm_lease(struct lmo_cli *cli);
int lmo_cmd_audit_list(struct lmo_cli *cli);
int lmo_cmd_events(struct lmo_cli *cli);
int lmo_cmd_webhook_add(struct lmo_cli *cli);
int lmo_cmd_webhook_list(struct lmo_cli *cli);
int lmo_cmd_webhook_remove(struct lmo_cli *cli);
int lmo_cmd_webhook_dead_letters(struct lmo_cli *cli);
int lmo_cmd_webhook_redeliver(struct lmo_cli *cli);
int lmo_cmd_backup(struct lmo_cli *cli);
int lmo_cmd_restore(struct lmo_cli *cli);
int lmo_cmd_doctor(struct lmo_cli *cli);
int lmo_cmd_pki_init(struct lmo_cli *cli);
int lmo_cmd_pki_issue(struct lmo_cli *cli);
int lmo_cmd_pki_libvirt(struct lmo_cli *cli);
int lmo_cmd_pki_list(struct lmo_cli *cli);
int lmo_cmd_pki_revoke(struct lmo_cli *cli);
int lmo_cmd_pki_crl(struct lmo_cli *cli);
int lmo_cmd_help(struct lmo_cli *cli);
int lmo_cmd_version(struct lmo_cli *cli);
int lmo_cmd_context_list(struct lmo_cli *cli);
int lmo_cmd_context_show(struct lmo_cli *cli);
int lmo_cmd_context_set(struct lmo_cli *cli);
int lmo_cmd_context_use(struct lmo_cli *cli);
int lmo_cmd_context_remove(struct lmo_cli *cli);
int lmo_cmd_wait(struct lmo_cli *cli);
int lmo_cmd_completion(struct lmo_cli *cli);
int lmo_cmd_watch(struct lmo_cli *cli);
int lmo_cmd_top(struct lmo_cli *cli);

#endif
