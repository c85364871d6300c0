/* options.h - every option of every command, in one table, and their values after parsing.
 *
 * Commands name the options they take by a mask; the parser, --help, and what is generated from the tables (manual
 * page, completion) read the same rows. An option means the same thing in every command. */
#ifndef LMO_CLI_OPTIONS_H
#define LMO_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define LMO_CLI_POSITIONAL_MAX 64
#define LMO_CLI_ADDRESSES_MAX  16

/* Kinds: FLAG; TEXT; UINT (a whole number from min to max); SECONDS (decimals allowed; stored in ms, min and max in
 * ms); MIB (decimals allowed; stored in bytes, min and max in bytes).
 *
 * Columns: id, long name, short name, argument, kind, min, max; and on the second line the help. */
/* clang-format off */
#define LMO_OPTIONS(X) \
    X(URL,                 "url",                  0,   "URL",     TEXT,    0,  0, \
      "Coordinator, https://HOST:PORT (LMO_URL)") \
    X(CA,                  "ca",                   0,   "FILE",    TEXT,    0,  0, \
      "CA certificates to trust (LMO_CA)") \
    X(CRL,                 "crl",                  0,   "FILE",    TEXT,    0,  0, \
      "Revocation list to honour (LMO_CRL)") \
    X(CERT,                "cert",                 0,   "FILE",    TEXT,    0,  0, \
      "Own certificate (LMO_CERT)") \
    X(KEY,                 "key",                  0,   "FILE",    TEXT,    0,  0, \
      "Own private key (LMO_KEY)") \
    X(JSON,                "json",                 0,   NULL,      FLAG,    0,  0, \
      "Print JSON instead of text") \
    X(HELP,                "help",                 'h', NULL,      FLAG,    0,  0, \
      "Print this help") \
    X(USAGE,               "usage",                0,   NULL,      FLAG,    0,  0, \
      "Print a short usage line") \
    X(VERSION,             "version",              'V', NULL,      FLAG,    0,  0, \
      "Print the version") \
    X(HOST_URL,            "url",                  0,   "URL",     TEXT,    0,  0, \
      "The host's worker, https://HOST:PORT") \
    X(MAX_INCOMING,        "max-incoming",         0,   "N",       UINT,    0,  256, \
      "Migrations to this host at once; 0: none") \
    X(MAX_OUTGOING,        "max-outgoing",         0,   "N",       UINT,    0,  256, \
      "Migrations from this host at once; 0: none") \
    X(MAX_BANDWIDTH,       "max-bandwidth",        0,   "MiB/s",   MIB,     1,  1099511627776, \
      "What migrations may use of its migration link, below the link's own rate") \
    X(KEEP_FREE,           "keep-free",            0,   "MiB",     MIB,     0,  1125899906842624, \
      "Memory that stays free on this host") \
    X(RESET,               "reset",                0,   NULL,      FLAG,    0,  0, \
      "Take back what was set for this host before: the coordinator's limits hold, but for those given here") \
    X(TO,                  "to",                   0,   "HOST",    TEXT,    0,  0, \
      "Destination host") \
    X(FROM,                "from",                 0,   "HOST",    TEXT,    0,  0, \
      "Host that the guest is at; without it every host is asked") \
    X(WAIT,                "wait",                 'w', NULL,      FLAG,    0,  0, \
      "Follow the migration until it has ended") \
    X(TIMEOUT,             "timeout",              't', "S",       SECONDS, 1,  31536000000, \
      "Stop waiting after S seconds (exit code 6)") \
    X(BANDWIDTH,           "bandwidth",            0,   "MiB/s",   MIB,     1,  1099511627776, \
      "Limit of the memory stream") \
    X(MAX_DOWNTIME,        "max-downtime",         0,   "MS",      UINT,    1,  600000, \
      "Longest pause convergence control may allow (default 300)") \
    X(CONVERGENCE_TIMEOUT, "convergence-timeout",  0,   "S",       SECONDS, 1,  43200000, \
      "Give up if memory has not converged by then (default: by its size)") \
    X(DISK_TIMEOUT,        "disk-timeout",         0,   "S",       SECONDS, 1,  43200000, \
      "Give up if local disks are not copied by then") \
    X(ALLOW_THROTTLE,      "allow-throttle",       0,   NULL,      FLAG,    0,  0, \
      "Slow the guest's vCPUs down if it dirties memory too fast") \
    X(THROTTLE_INITIAL,    "throttle-initial",     0,   "PERCENT", UINT,    1,  99, \
      "First step of the throttling (default 20)") \
    X(THROTTLE_INCREMENT,  "throttle-increment",   0,   "PERCENT", UINT,    1,  99, \
      "Each further step (default 10)") \
    X(ON_TIMEOUT,          "on-timeout",           0,   "WHAT",    TEXT,    0,  0, \
      "abort (default), or force: allow the pause of --force-max-pause, then abort") \
    X(FORCE_MAX_PAUSE,     "force-max-pause",      0,   "MS",      UINT,    1,  600000, \
      "Longest pause with --on-timeout=force") \
    X(PREDICTION,          "prediction",           0,   "WHAT",    TEXT,    0,  0, \
      "If it will not converge: warn (default), off, queue or refuse") \
    X(ACCEPT_STATEFUL_LOSS,"accept-stateful-loss", 0,   NULL,      FLAG,    0,  0, \
      "Move although a stateful firewall's flow state stays behind") \
    X(IDEMPOTENCY_KEY,     "idempotency-key",      0,   "KEY",     TEXT,    0,  0, \
      "Repeat an earlier request with its key") \
    X(PHASE,               "phase",                0,   "PHASE",   TEXT,    0,  0, \
      "Only migrations in this phase") \
    X(VM,                  "vm",                   0,   "VM",      TEXT,    0,  0, \
      "Only migrations of this guest") \
    X(LIMIT,               "limit",                0,   "N",       UINT,    1,  10000, \
      "At most N of them") \
    X(MIGRATION,           "migration",            0,   "ID",      TEXT,    0,  0, \
      "Only lines about this migration") \
    X(HOST,                "host",                 0,   "HOST",    TEXT,    0,  0, \
      "Only lines about this host") \
    X(REPAIR,              "repair",               0,   NULL,      FLAG,    0,  0, \
      "Mend what is provably safe to mend") \
    X(ACTIVATE,            "activate",             0,   NULL,      FLAG,    0,  0, \
      "From here on the coordinator acts again") \
    X(FORCE,               "force",                0,   NULL,      FLAG,    0,  0, \
      "Although hosts could not be asked, or unknown migrations are under way") \
    X(REASON,              "reason",               0,   "TEXT",    TEXT,    0,  0, \
      "Why; kept with the decision and in the audit trail") \
    X(DIR,                 "dir",                  0,   "DIR",     TEXT,    0,  0, \
      "Directory made by `lmo pki init` (LMO_PKI_DIR)") \
    X(ROLE,                "role",                 0,   "ROLE",    TEXT,    0,  0, \
      "coordinator, worker, operator, control-plane, viewer or fault-injector") \
    X(NAME,                "name",                 0,   "NAME",    TEXT,    0,  0, \
      "Name of the holder: [A-Za-z0-9._-], at most 63") \
    X(ADDRESS,             "address",              0,   "ADDRESS", TEXT,    0,  0, \
      "IP address or DNS name to answer for; may be repeated") \
    X(DAYS,                "days",                 0,   "N",       UINT,    1,  825, \
      "Life of the certificate (default 90 days)") \
    X(SECONDS,             "seconds",              0,   "N",       UINT,    1,  71280000, \
      "Life of the certificate in seconds, for tests") \
    X(RENEW,               "renew",                0,   NULL,      FLAG,    0,  0, \
      "Replace certificate and key; keeps the addresses unless given") \
    X(FOLLOW,              "follow",               'f', NULL,      FLAG,    0,  0, \
      "Go on with what happens") \
    X(SINCE,               "since",                0,   "N",       UINT,    0,  INT64_MAX, \
      "Only events after number N; 0: all that are kept") \
    X(TYPES,               "types",                0,   "LIST",    TEXT,    0,  0, \
      "Only these types of events: migration.phase,host.* (separated by commas)") \
    X(PROGRESS,            "progress",             0,   NULL,      FLAG,    0,  0, \
      "Progress of memory copies too, which is not kept") \
    X(SEQUENCE,            "sequence",             0,   "N",       UINT,    1,  INT64_MAX, \
      "Only event number N; without it all of them") \
    /* the command line itself */ \
    X(CONTEXT,             "context",              0,   "NAME",    TEXT,    0,  0, \
      "Use the settings that `lmo context set NAME` has kept (LMO_CONTEXT)") \
    X(TOKEN_FILE,          "token-file",           0,   "FILE",    TEXT,    0,  0, \
      "File with a bearer token, instead of a certificate (LMO_TOKEN_FILE)") \
    X(PLAIN,               "plain",                0,   NULL,      FLAG,    0,  0, \
      "Print tab-separated columns that stay as they are, for scripts") \
    X(FOR,                 "for",                  0,   "STATE",   TEXT,    0,  0, \
      "State to wait for") \
    X(INTERVAL,            "interval",             0,   "S",       SECONDS, 200, 3600000, \
      "Seconds between two looks") \
    X(TIMES,               "count",                'n', "N",       UINT,    1,  1000000000, \
      "End after N of them") \
    X(FILTER,              "filter",               0,   "TEXT",    TEXT,    0,  0, \
      "Show only lines that have TEXT in them") \
    X(SORT,                "sort",                 0,   "COLUMN",  TEXT,    0,  0, \
      "Order of the migrations: age (default), progress, eta, rate or name") \
    X(ONCE,                "once",                 0,   NULL,      FLAG,    0,  0, \
      "Print it once and end") \
    X(DRY_RUN,             "dry-run",              0,   NULL,      FLAG,    0,  0, \
      "Print what would be done, and do nothing") \
    X(MAX_HOSTS,           "max-hosts",            0,   "N",       UINT,    1,  1024, \
      "Hosts that are being emptied or away at once; each comes back before the next one goes") \
    X(ALL_MATCHING,        "all-matching",         0,   "LABELS",  TEXT,    0,  0, \
      "All hosts with these labels, key=value, several separated by commas") \
    X(KEEP_SPARE,          "keep-free",            0,   "N+1",     TEXT,    0,  0, \
      "Room for the guests of as many lost hosts stays throughout: N+0 to N+3") \
    X(RETURN,              "return",               0,   NULL,      FLAG,    0,  0, \
      "Guests go back to their host once it is back and ready") \
    X(UNMOVABLE,           "unmovable",            0,   "WHAT",    TEXT,    0,  0, \
      "What to do about guests that cannot move live: fail, skip, wait, offline or block") \
    X(PLAN,                "plan",                 0,   "DIGEST",  TEXT,    0,  0, \
      "Only if this is still the plan, as --dry-run printed it") \
    X(HOOK,                "hook",                 0,   "HOOK",    TEXT,    0,  0, \
      "Called when a host is empty: a command's name in the coordinator's configuration, or an https URL") \
    X(SPREAD,              "spread",               0,   NULL,      FLAG,    0,  0, \
      "Evenly loaded hosts") \
    X(PACK,                "pack",                 0,   NULL,      FLAG,    0,  0, \
      "As many empty hosts as can be") \
    X(LABELS,              "labels",               0,   "LABELS",  TEXT,    0,  0, \
      "Labels that a host must have, key=value, several separated by commas") \
    X(GROUP,               "group",                0,   "GROUP",   TEXT,    0,  0, \
      "Affinity groups, NAME:apart or NAME:together, with :hard for a rule; several separated by commas") \
    X(LEASE,               "lease",                0,   "S",       UINT,    0,  86400, \
      "Hold it for S seconds; 0 gives it back")
/* clang-format on */

enum lmo_option {
#define X(id, long_name, short_name, argument, kind, min, max, help) LMO_OPT_##id,
    LMO_OPTIONS(X)
#undef X
        LMO_OPT_COUNT
};
/* A set of options, one bit each. */
typedef unsigned __int128 lmo_option_mask;
#define LMO_OPT_BIT(id) ((lmo_option_mask)1 << LMO_OPT_##id)

enum lmo_option_kind {
    LMO_OPT_KIND_FLAG,
    LMO_OPT_KIND_TEXT,
    LMO_OPT_KIND_UINT,
    LMO_OPT_KIND_SECONDS,
    LMO_OPT_KIND_MIB
};

struct lmo_option_row {
    const char *long_name;
    int short_name; /* 0: none */
    const char *argument;
    enum lmo_option_kind kind;
    uint64_t min, max;
    const char *help;
};
extern const struct lmo_option_row lmo_option_rows[LMO_OPT_COUNT];

/* Values; strings are borrowed from argv. */
struct lmo_cli_args {
    lmo_option_mask given;           /* options that were given */
    const char *text[LMO_OPT_COUNT]; /* NULL: not given */
    uint64_t number[LMO_OPT_COUNT];
    unsigned address_count;
    const char *addresses[LMO_CLI_ADDRESSES_MAX];
    unsigned count; /* positional arguments */
    const char *positional[LMO_CLI_POSITIONAL_MAX];
};
#define LMO_GIVEN(args, id) (((args)->given & LMO_OPT_BIT(id)) != 0)

/* Puts one option's argument (NULL for a flag) into `args`. False: *ret_problem says what would be right. */
bool lmo_option_set(struct lmo_cli_args *args, enum lmo_option id, const char *argument, char *ret_problem,
                    unsigned problem_size);

#endif
