/* cli.h - the command line `lmo`: what every command is given, and how it ends.
 *
 * Rules: data on stdout, messages on stderr; --json makes stdout one JSON document; nothing that came from the
 * coordinator reaches a terminal unfiltered (format.h); a command returns one of the exit codes below and never calls
 * exit(). The CLI speaks REST only; transport.c alone knows how. `lmo pki` is local and speaks to nobody. */
#ifndef LMO_CLI_CLI_H
#define LMO_CLI_CLI_H

#include "base/err.h"
#include "cli/format.h"
#include "cli/options.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/*      enumerator   code  meaning */
/* clang-format off */
#define LMO_EXITS(X)                                                                                     \
    X(OK,          0,   "done")                                                                          \
    X(FAILED,      1,   "refused, or failed; the message says which and what to do")                     \
    X(USAGE,       2,   "the command line is wrong; nothing was asked of anybody")                       \
    X(UNREACHABLE, 3,   "cannot reach the coordinator, or it is not who it should be")                   \
    X(ABORTED,     4,   "the migration ended aborted: the guest is unharmed on its source; or the drain was cancelled") \
    X(ATTENTION,   5,   "the migration ended in attention, or the drain failed: a person must look")     \
    X(WAIT_OVER,   6,   "waited for --timeout; what was waited for goes on")                                 \
    X(PROTOCOL,    7,   "the answer was not understood: not a coordinator, or of another version")       \
    X(FINDINGS,    8,   "the doctor found something that does not fit")                                  \
    X(INTERRUPTED, 130, "interrupted while waiting; what was waited for goes on")
/* clang-format on */

enum lmo_exit {
#define X(name, code, text) LMO_EXIT_##name = (code),
    LMO_EXITS(X)
#undef X
};

struct lmo_loop;
struct lmo_cli_command;

/* One request to the coordinator. `path` begins with "/v1/" and is encoded already. */
struct lmo_cli_call {
    const char *method, *path;
    const char *idempotency_key; /* NULL: none */
    const char *body;            /* JSON text; NULL: none */
    uint64_t timeout_ms;
    const char *header;          /* "Name: value"; NULL: none */
    /* Of an answer that goes on: each piece of its body; not 0 ends it. Then timeout_ms is the longest silence. */
    int (*on_data)(void *arg, const char *data, size_t len);
    void *data_arg;
};
struct lmo_cli_reply {
    unsigned status;
    char *body; /* owned by whoever received it; terminated */
    size_t body_len;
};
/* 0 when a complete response arrived, whatever its status; else as lmo/http/client.h says. */
typedef int lmo_cli_request_fn(void *arg, const struct lmo_cli_call *call, struct lmo_cli_reply *ret_reply,
                               struct lmo_err *err);

struct lmo_cli {
    FILE *out, *err; /* borrowed */
    struct lmo_style out_style, err_style;
    const char *(*env)(const char *name); /* getenv, or a test's */
    lmo_cli_request_fn *request;          /* NULL: transport.c is opened on first use */
    void *request_arg;                    /* borrowed */
    struct lmo_transport *transport;      /* owned; NULL until first use */
    struct lmo_loop *loop;                /* owned; NULL until lmo_cli_loop */
    const char *system_config;            /* NULL: /etc/lmo/lmo.conf; or a test's */
    uint64_t retry_pause_ms;              /* between attempts to reach a coordinator that went away; 0: 500 */
    uint64_t patience_ms;                 /* how long it may be away while we wait for a migration; 0: 60,000 */
    struct lmo_cli_args args;
    const struct lmo_cli_command *command;
};

/* Runs one command line; returns its exit code. `cli` is set up by the caller: out, err, styles, env, request. Frees
 * what it opened. */
int lmo_cli_run(struct lmo_cli *cli, int argc, char **argv);

/* "lmo: ..." on stderr. */
void lmo_cli_message(struct lmo_cli *cli, const char *fmt, ...) LMO_PRINTF(2, 3);
/* The message of a local failure, with its exit code. */
int lmo_cli_failed(struct lmo_cli *cli, const struct lmo_err *err);
/* The loop that requests run on; signals and terminals may be watched on it too. A callback that stops it interrupts a
 * request that is under way (LMO_E_CANCELLED). Made on first use. */
int lmo_cli_loop(struct lmo_cli *cli, struct lmo_loop **ret_loop, struct lmo_err *err) LMO_MUST_CHECK;
/* One JSON document on stdout. 0, or LMO_EXIT_FAILED when stdout cannot be written. Borrows. */
int lmo_cli_print_json(struct lmo_cli *cli, const json_t *json);

#endif
