/* commands.c - the table itself; see commands.h. */
#include "cli/commands.h"

#include <string.h>

#define O(id)      LMO_OPT_BIT(id)
#define HOSTS      "`lmo host list` shows the hosts."
#define GUESTS     "`lmo vm list` shows the guests and `lmo host list` the hosts."
#define WEBHOOKS   "`lmo webhook list` shows the webhooks."
#define DRAINS     "`lmo drain list` shows the drains."
#define MIGRATIONS "`lmo migration list` shows the migrations."

const struct lmo_cli_command lmo_cli_commands[] = {
    {"host add", "NAME", 1, 1, (LMO_OPTS_CONNECTION & ~O(URL)) | O(HOST_URL), O(HOST_URL),
     "Make a host known by its worker's address",
     "NAME must be the name in the worker's certificate. Here --url is the worker's; give the coordinator's in LMO_URL "
     "or before the command: lmo --url URL host add ...",
     NULL, lmo_cmd_host_add},
    {"host list", "", 0, 0, LMO_OPTS_CONNECTION, 0, "List hosts and whether they can be reached", NULL, NULL,
     lmo_cmd_host_list},
    {"host show", "HOST", 1, 1, LMO_OPTS_CONNECTION, 0, "Show one host and what it is able to do", NULL, HOSTS,
     lmo_cmd_host_show},
    {"host set", "HOST", 1, 1,
     LMO_OPTS_CONNECTION | O(MAX_INCOMING) | O(MAX_OUTGOING) | O(MAX_BANDWIDTH) | O(KEEP_FREE) | O(RESET), 0,
     "Set limits for one host",
     "What is not given stays as it is. Migrations that run already go on; their bandwidth is divided anew at once.", HOSTS,
     lmo_cmd_host_set},
    {"host remove", "HOST", 1, 1, LMO_OPTS_CONNECTION, 0, "Forget a host; its guests are left alone", NULL, HOSTS,
     lmo_cmd_host_remove},
    {"vm list", "", 0, 0, LMO_OPTS_CONNECTION, 0, "List guests on all hosts", NULL, NULL, lmo_cmd_vm_list},
    {"vm show", "VM", 1, 1, LMO_OPTS_CONNECTION, 0, "Show one guest, by name or UUID", NULL, GUESTS, lmo_cmd_vm_show},
    {"migrate", "VM", 1, 1,
     LMO_OPTS_CONNECTION | O(TO) | O(FROM) | O(FORCE) | O(WAIT) | O(TIMEOUT) | O(BANDWIDTH) | O(MAX_DOWNTIME) | O(CONVERGENCE_TIMEOUT) |
         O(DISK_TIMEOUT) | O(ALLOW_THROTTLE) | O(THROTTLE_INITIAL) | O(THROTTLE_INCREMENT) | O(ON_TIMEOUT) |
         O(FORCE_MAX_PAUSE) | O(PREDICTION) | O(ACCEPT_STATEFUL_LOSS) | O(IDEMPOTENCY_KEY),
     O(TO), "Move a running guest to another host",
     "Without --wait, prints the migration's id as soon as the coordinator has written the request down. With --wait, "
     "follows it to its end; interrupting the command does not stop the migration, `lmo migration cancel` does. "
     "docs/convergence.md tells how time-outs, pauses and throttling work together.",
     GUESTS, lmo_cmd_migrate},
    {"migration list", "", 0, 0, LMO_OPTS_CONNECTION | O(PHASE) | O(VM) | O(LIMIT), 0, "List migrations", NULL, NULL,
     lmo_cmd_migration_list},
    {"migration show", "ID", 1, 1, LMO_OPTS_CONNECTION, 0,
     "Show one migration: each phase, how long it took, what was decided and why", NULL, MIGRATIONS,
     lmo_cmd_migration_show},
    {"migration cancel", "ID", 1, 1, LMO_OPTS_CONNECTION | O(WAIT) | O(TIMEOUT), 0, "Ask for a migration to be undone",
     "Before the guest has been switched over, it stays on its source and never notices. Afterwards the request is "
     "refused.",
     MIGRATIONS, lmo_cmd_migration_cancel},
    {"migration wait", "ID", 1, 1, LMO_OPTS_CONNECTION | O(TIMEOUT), 0, "Follow a migration until it has ended", NULL,
     MIGRATIONS, lmo_cmd_migration_wait},
    {"migration resolve", "ID DECISION", 2, 2, LMO_OPTS_CONNECTION | O(REASON) | O(WAIT) | O(TIMEOUT), O(REASON),
     "Decide about a migration that needs a person",
     "DECISION is one of guest-at-source, guest-at-destination, retry, abandon. `lmo migration show ID` says what is known, "
     "what is not, and which of them are safe. The coordinator looks at both hosts first and refuses a decision that what it "
     "sees speaks against. abandon touches nothing and closes the record. The reason is kept with your name.",
     MIGRATIONS, lmo_cmd_migration_resolve},
    {"drain list", "", 0, 0, LMO_OPTS_CONNECTION | O(LIMIT), 0, "List drains", NULL, NULL, lmo_cmd_drain_list},
    {"drain show", "ID", 1, 1, LMO_OPTS_CONNECTION, 0,
     "Show one drain: each host, each guest, what it waits for or why it failed", NULL, DRAINS, lmo_cmd_drain_show},
    {"drain pause", "ID", 1, 1, LMO_OPTS_CONNECTION, 0, "Let a drain begin nothing new", "What runs goes to its end.", DRAINS,
     lmo_cmd_drain_pause},
    {"drain resume", "ID", 1, 1, LMO_OPTS_CONNECTION, 0, "Let a paused drain go on", NULL, DRAINS, lmo_cmd_drain_resume},
    {"drain cancel", "ID", 1, 1, LMO_OPTS_CONNECTION | O(WAIT) | O(TIMEOUT), 0, "End a drain, and its migrations with it",
     "Migrations past the point of no return complete; every other guest stays where it is. The drain's cordon is lifted.", DRAINS,
     lmo_cmd_drain_cancel},
    {"drain continue", "ID HOST", 2, 2, LMO_OPTS_CONNECTION, 0, "Say that an emptied host may be used again",
     "The drain looks whether the host is ready, lifts its cordon, gives guests back if asked to, and goes on with the next host.",
     DRAINS, lmo_cmd_drain_continue},
    {"drain", "HOST...", 0, LMO_CLI_POSITIONAL_MAX,
     LMO_OPTS_CONNECTION | O(DRY_RUN) | O(WAIT) | O(TIMEOUT) | O(MAX_HOSTS) | O(ALL_MATCHING) | O(KEEP_SPARE) | O(RETURN) |
         O(UNMOVABLE) | O(PLAN) | O(HOOK),
     0, "Move every guest off hosts",
     "Cordons the hosts, makes one plan for all of them, and moves everything. A host is drained only when its own list of guests, "
     "asked anew, is empty; no guest is ever stopped. The hosts stay cordoned, unless they come back one after the other "
     "(--max-hosts, --return, --hook). A repeated request returns the first one's drain. With --dry-run, prints the plan. With "
     "--wait, follows it to its end; exit code 0 only if it is drained.",
     HOSTS, lmo_cmd_drain},
    {"cordon", "HOST", 1, 1, LMO_OPTS_CONNECTION | O(REASON) | O(DRY_RUN), 0, "Let no guest come to a host", NULL, HOSTS,
     lmo_cmd_cordon},
    {"uncordon", "HOST", 1, 1, LMO_OPTS_CONNECTION | O(DRY_RUN), 0, "Let guests come to a host again", NULL, HOSTS,
     lmo_cmd_uncordon},
    {"host label", "HOST [KEY=VALUE...]", 1, LMO_CLI_POSITIONAL_MAX, LMO_OPTS_CONNECTION, 0,
     "Replace a host's labels", "Without labels, takes all of them away.", HOSTS, lmo_cmd_host_label},
    {"explain", "VM", 1, 1, LMO_OPTS_CONNECTION | O(KEEP_SPARE), 0, "Say of each host why it can or cannot take a guest",
     "docs/placement.md tells how to read it.", GUESTS, lmo_cmd_explain},
    {"rebalance", "", 0, 0, LMO_OPTS_CONNECTION | O(SPREAD) | O(PACK) | O(KEEP_SPARE) | O(DRY_RUN) | O(WAIT) | O(TIMEOUT), 0,
     "Move guests to load hosts evenly, or to empty some", "Give --spread or --pack.", NULL,
     lmo_cmd_rebalance},
    {"vm policy", "VM", 1, 1, LMO_OPTS_CONNECTION | O(UNMOVABLE) | O(LABELS) | O(GROUP), 0, "Show or replace a guest's policy",
     "With options, replaces it: what drains do if the guest cannot move live, labels that a host must have, affinity groups.",
     GUESTS, lmo_cmd_vm_policy},
    {"vm lease", "VM", 1, 1, LMO_OPTS_CONNECTION | O(LEASE) | O(REASON), 0, "Show, take or give back a lease on a guest",
     "A guest on which somebody holds a lease is not moved: drains wait for it, migrations are refused.", GUESTS, lmo_cmd_vm_lease},
    {"doctor", "", 0, 0, LMO_OPTS_CONNECTION | O(REPAIR), 0, "Compare every record with what is seen on all hosts",
     "Says what does not fit: how bad it is, what was seen, and which commands are safe. What could not be looked at is "
     "unknown and never guessed. With --repair it mends what is provably safe, one thing after the other, looking anew before "
     "each. Exit code 8: something does not fit (after the repairs).",
     NULL, lmo_cmd_doctor},
    {"token create", "NAME", 1, 1, LMO_OPTS_CONNECTION | O(ROLE) | O(DAYS), O(ROLE), "Make a bearer token and print it, once",
     "For clients that cannot have a certificate; the coordinator takes tokens only where its configuration says so ([api] "
     "tokens). It keeps nothing but a hash: a token that is lost is revoked, and another one made.",
     NULL, lmo_cmd_token_create},
    {"token list", "", 0, 0, LMO_OPTS_CONNECTION, 0, "List the bearer tokens in force", NULL, NULL, lmo_cmd_token_list},
    {"token revoke", "NAME|ID", 1, 1, LMO_OPTS_CONNECTION, 0, "Revoke a bearer token, at once and for good", NULL,
     "`lmo token list` shows the tokens.", lmo_cmd_token_revoke},
    {"backup", "FILE", 1, 1, LMO_OPTS_CONNECTION, 0, "Copy the coordinator's store to a new file, while it works",
     "The file (mode 0600) holds everything that the coordinator knows, guests' definitions included. To put it back: end lmod, "
     "lmod --config FILE --restore FILE, start lmod, lmo restore. Without a coordinator, on its machine: lmod --backup FILE.",
     NULL, lmo_cmd_backup},
    {"restore", "", 0, 0, LMO_OPTS_CONNECTION | O(ACTIVATE) | O(FORCE), 0,
     "Look at, or activate, a store that was put back from a backup",
     "After `lmod --restore FILE` the coordinator only observes. This command looks at all hosts and shows what became of every "
     "migration that was open when the backup was made. With --activate it does what was shown, and the coordinator acts again: "
     "its term and its epochs are above all that workers and volumes have seen. Then look with `lmo doctor`.",
     NULL, lmo_cmd_restore},
    {"audit list", "", 0, 0, LMO_OPTS_CONNECTION | O(MIGRATION) | O(HOST) | O(LIMIT), 0, "Show who changed what, newest first",
     NULL, NULL, lmo_cmd_audit_list},
    {"events", "", 0, 0,
     LMO_OPTS_CONNECTION | O(FOLLOW) | O(SINCE) | O(TYPES) | O(MIGRATION) | O(VM) | O(HOST) | O(PROGRESS), 0,
     "Show what happened, and with --follow what happens",
     "Without --since: all that is kept, or with --follow what happens from now on. A follower that loses the coordinator comes "
     "back and misses nothing; if events were dropped for their age meanwhile, it says so. --json prints one object per line.",
     NULL, lmo_cmd_events},
    {"webhook add", "URL", 1, 1, LMO_OPTS_CONNECTION | O(TYPES) | O(VM) | O(HOST), 0, "Have events sent to a URL",
     "Prints the webhook's id and, this once, the secret that signs what is sent (Standard Webhooks). docs/events.md tells how to "
     "verify it.",
     NULL, lmo_cmd_webhook_add},
    {"webhook list", "", 0, 0, LMO_OPTS_CONNECTION, 0, "List webhooks, and how far each of them is", NULL, NULL, lmo_cmd_webhook_list},
    {"webhook remove", "ID", 1, 1, LMO_OPTS_CONNECTION, 0, "Remove a webhook and its dead letters", NULL, WEBHOOKS,
     lmo_cmd_webhook_remove},
    {"webhook dead-letters", "ID", 1, 1, LMO_OPTS_CONNECTION, 0, "Show the events that a webhook did not take", NULL, WEBHOOKS,
     lmo_cmd_webhook_dead_letters},
    {"webhook redeliver", "ID", 1, 1, LMO_OPTS_CONNECTION | O(SEQUENCE), 0, "Send a webhook's dead letters once more", NULL, WEBHOOKS,
     lmo_cmd_webhook_redeliver},
    {"pki init", "DIR", 1, 1, 0, 0, "Make a certificate authority and the permit keys in a new directory",
     "DIR must not exist yet, or be empty. Who has DIR/ca.key can be anybody, and who has DIR/permit.key can order any "
     "cutover: keep DIR on an administrator's machine.",
     NULL, lmo_cmd_pki_init},
    {"pki issue", "", 0, 0, O(DIR) | O(ROLE) | O(NAME) | O(ADDRESS) | O(DAYS) | O(SECONDS) | O(RENEW),
     O(ROLE) | O(NAME), "Make a key and a certificate: DIR/issued/ROLE-NAME.key and .pem", NULL, NULL,
     lmo_cmd_pki_issue},
    {"pki libvirt", "HOST", 1, 1, O(DIR) | O(ADDRESS) | O(DAYS) | O(SECONDS) | O(RENEW), 0,
     "Make the certificates of a host's libvirt and QEMU: DIR/issued/libvirt-HOST",
     "They encrypt what hypervisors say to each other and guests' memory on its way. --address: every address that another "
     "host's libvirt or QEMU connects to, the migration network's too. The CA is another one than LMO's own, in DIR/libvirt: "
     "whoever has a certificate of it may do anything with a hypervisor. Copy the directory's contents below /etc/pki of the "
     "host, then: systemctl restart libvirtd. To revoke: lmo pki revoke --dir DIR/libvirt worker/HOST.",
     NULL, lmo_cmd_pki_libvirt},
    {"pki list", "", 0, 0, O(DIR), 0, "List every certificate that was ever issued", NULL, NULL, lmo_cmd_pki_list},
    {"pki revoke", "ROLE/NAME|SERIAL...", 1, LMO_CLI_POSITIONAL_MAX, O(DIR), 0,
     "Revoke certificates and write a new DIR/crl.pem",
     "Revocation takes effect where the new crl.pem is put and the program there is told to read it again (SIGHUP).",
     NULL, lmo_cmd_pki_revoke},
    {"pki crl", "", 0, 0, O(DIR), 0, "Write DIR/crl.pem anew, good for another year", NULL, NULL, lmo_cmd_pki_crl},
    {"help", "[COMMAND]", 0, 2, 0, 0, "Explain a command", NULL, NULL, lmo_cmd_help},
    {"version", "", 0, 0, 0, 0, "Print the version", NULL, NULL, lmo_cmd_version},
    /* the command line itself */
    {"context list", "", 0, 0, 0, 0, "List the coordinators that the configuration knows", NULL, NULL, lmo_cmd_context_list},
    {"context show", "[CONTEXT]", 0, 1, O(CONTEXT), 0, "Show one context, or the one in force", NULL, NULL,
     lmo_cmd_context_show},
    {"context set", "NAME", 1, 1, LMO_OPTS_CONNECTION & ~O(CONTEXT), 0,
     "Keep a coordinator's address and the credentials to use with it",
     "Options that are given here become the context's settings; what is not given stays as it is. A key or a token file that "
     "others can read is refused. The configuration holds the files' names, never what is in them.",
     NULL, lmo_cmd_context_set},
    {"context use", "CONTEXT", 1, 1, 0, 0, "Choose the context that is meant where none is named", NULL, NULL,
     lmo_cmd_context_use},
    {"context remove", "CONTEXT", 1, 1, 0, 0, "Forget a context; the files that it names are left alone", NULL, NULL,
     lmo_cmd_context_remove},
    {"wait", "OBJECT", 1, 1, LMO_OPTS_CONNECTION | O(FOR) | O(TIMEOUT), 0, "Wait until something is as it should be",
     "OBJECT is migration/ID, drain/ID, host/NAME or vm/NAME. Without --for: until the migration has ended, the drain is drained, "
     "the host is up, the guest is not migrating. --for takes a phase for a migration; drained, planning, running, waiting, "
     "paused, cancelling, cancelled, incomplete or failed for a drain; up, down, cordoned or drained for a host; idle or migrating for a guest. Exit code 0: it "
     "is so; 4 or 5: it has ended otherwise; 6: not within --timeout.",
     "`lmo host list`, `lmo vm list` and `lmo migration list` show what there is.", lmo_cmd_wait},
    {"completion", "SHELL", 1, 1, 0, 0, "Print the completion script for bash or zsh",
     "For one session: source <(lmo completion bash). Packages install it where the shell finds it. Names of hosts, guests, "
     "migrations and drains are asked of the coordinator, for a second at most; without an answer nothing is offered.",
     NULL, lmo_cmd_completion},
    {"watch", "[WHAT...]", 0, LMO_CLI_POSITIONAL_MAX, LMO_OPTS_CONNECTION | O(INTERVAL) | O(TIMES) | O(TIMEOUT), 0,
     "Print a line for each change, as it happens",
     "WHAT is migrations (also if nothing is given), hosts, or ids of migrations; with ids it ends when all of them have ended. It "
     "begins with how things stand. A change is another phase, outcome or state; progress within a phase is none. The coordinator's "
     "events are followed, and resumed where they broke off; with --interval, or where there are none, it is asked every so often, "
     "which may miss a short phase but tells new reasons for waiting too. With --json each line is a JSON object; --plain has the columns at_ms, object, id, vm, source, destination, "
     "state, detail. --count N ends it after N lines, --timeout S after S seconds (exit code 6).",
     MIGRATIONS, lmo_cmd_watch},
    {"top", "", 0, 0, LMO_OPTS_CONNECTION | O(INTERVAL) | O(TIMES) | O(ONCE) | O(SORT) | O(FILTER), 0,
     "Show hosts, drains and migrations, live",
     "On a terminal: q ends it, p pauses, s changes the order, f filters, r looks again at once, arrows and Page Up and Down "
     "scroll. Elsewhere, on a dumb terminal, and with --plain it prints one block after the other; --json prints a JSON document "
     "a line. --count N ends it after N of them, --once after one.",
     NULL, lmo_cmd_top},
};
const size_t lmo_cli_command_count = sizeof lmo_cli_commands / sizeof lmo_cli_commands[0];

const struct lmo_cli_command *lmo_cli_command_find(const char *name)
{
    for (size_t i = 0; i < lmo_cli_command_count; i++) {
        if (strcmp(lmo_cli_commands[i].name, name) == 0)
            return &lmo_cli_commands[i];
    }
    return NULL;
}
