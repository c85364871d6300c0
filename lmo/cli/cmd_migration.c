/* cmd_migration.c - `lmo migrate` and `lmo migration ...`. */
#include "base/cleanup.h"
#include "base/id.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/plain.h"
#include "cli/render.h"
#include "cli/wait.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>

#define ACCEPT_TRIES 3 /* for one request whose answer was lost */

static int migration_path(struct lmo_cli *cli, const char *after, char path[LMO_API_PATH_MAX])
{
    if (lmo_api_path(path, "/v1/migrations/", cli->args.positional[0], after))
        return 0;
    lmo_cli_message(cli, "\"%.60s\" cannot be the id of a migration", cli->args.positional[0]);
    return LMO_EXIT_USAGE;
}

/* ------------------------------------------------------------------ migrate */

/* How it is to converge. What is not given is the coordinator's default. */
static int convergence_policy(const struct lmo_cli_args *a, json_t *policy)
{
    static const struct {
        enum lmo_option option;
        const char *field;
        bool text;
    } given[] = {
        {LMO_OPT_DISK_TIMEOUT, "disk_timeout_ms", false},
        {LMO_OPT_THROTTLE_INITIAL, "throttle_initial_percent", false},
        {LMO_OPT_THROTTLE_INCREMENT, "throttle_increment_percent", false},
        {LMO_OPT_ON_TIMEOUT, "on_timeout", true},
        {LMO_OPT_FORCE_MAX_PAUSE, "force_max_pause_ms", false},
        {LMO_OPT_PREDICTION, "prediction", true},
    };
    int bad = 0;
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        if (!(a->given >> given[i].option & 1))
            continue;
        bad |= given[i].text ? lmo_json_put_str(policy, given[i].field, a->text[given[i].option])
                             : lmo_json_put_u64(policy, given[i].field, a->number[given[i].option]);
    }
    if (LMO_GIVEN(a, ALLOW_THROTTLE) || LMO_GIVEN(a, THROTTLE_INITIAL) || LMO_GIVEN(a, THROTTLE_INCREMENT))
        bad |= lmo_json_put_bool(policy, "allow_throttle", true);
    return bad;
}

static json_t *request_body(const struct lmo_cli_args *a)
{
    json_t *policy = json_object();
    int bad = 0;
    if (LMO_GIVEN(a, BANDWIDTH))
        bad |= lmo_json_put_u64(policy, "bandwidth_bytes_per_s", a->number[LMO_OPT_BANDWIDTH]);
    if (LMO_GIVEN(a, MAX_DOWNTIME))
        bad |= lmo_json_put_u64(policy, "max_downtime_ms", a->number[LMO_OPT_MAX_DOWNTIME]);
    if (LMO_GIVEN(a, CONVERGENCE_TIMEOUT)) {
        bad |= lmo_json_put_u64(policy, "convergence_timeout_ms", a->number[LMO_OPT_CONVERGENCE_TIMEOUT]);
    }
    if (LMO_GIVEN(a, ACCEPT_STATEFUL_LOSS))
        bad |= lmo_json_put_bool(policy, "accept_stateful_loss", true);
    if (LMO_GIVEN(a, FORCE))
        bad |= lmo_json_put_bool(policy, "force", true);
    bad |= convergence_policy(a, policy);
    json_t *body = json_object();
    bad |= lmo_json_put_str(body, "vm", a->positional[0]);
    if (LMO_GIVEN(a, FROM))
        bad |= lmo_json_put_str(body, "source", a->text[LMO_OPT_FROM]);
    bad |= lmo_json_put_str(body, "destination", a->text[LMO_OPT_TO]);
    bad |= lmo_json_put(body, "policy", policy);
    if (bad == 0)
        return body;
    json_decref(body);
    return NULL;
}

/* Sends the request until an answer is there. Repeating is safe: the coordinator gives one effect to one key. */
static int request_migration(struct lmo_cli *cli, const char *body, const char *key, json_t **ret_record)
{
    struct lmo_cli_call call = {.method = "POST",
                                .path = "/v1/migrations",
                                .idempotency_key = key,
                                .body = body,
                                .timeout_ms = LMO_API_TIMEOUT_MS};
    struct lmo_err err = {0};
    int rc = 0;
    bool maybe_sent = false;
    for (unsigned i = 0; i < ACCEPT_TRIES; i++) {
        struct lmo_cli_reply reply = {0};
        err = (struct lmo_err){0};
        rc = lmo_api_request(cli, &call, &reply, &err);
        if (rc == 0) {
            rc = lmo_api_accept(cli, &reply, ret_record);
            free(reply.body);
            return rc;
        }
        maybe_sent |= lmo_err_class_of(rc) == LMO_CLASS_UNKNOWN;
        if (!maybe_sent || i + 1 == ACCEPT_TRIES)
            break;
        lmo_cli_message(cli, "the answer was lost (%s); asking again with the same key, so that nothing happens twice",
                        err.text);
        poll(NULL, 0, (int)(cli->retry_pause_ms ? cli->retry_pause_ms : 1000));
    }
    rc = lmo_api_unreached(cli, &err);
    if (maybe_sent) {
        lmo_cli_message(cli,
                        "It is not known whether the request was accepted. `lmo migration list --vm %s` tells, or "
                        "repeat the command with --idempotency-key %s.",
                        cli->args.positional[0], key);
    }
    return rc;
}

/* Waits for a migration and says how it ended; `first` may be NULL and is borrowed. */
static int wait_and_report(struct lmo_cli *cli, const char *id, const json_t *first)
{
    LMO_AUTO_JSON json_t *record = NULL;
    int rc = lmo_wait_run(cli, id, first, cli->args.number[LMO_OPT_TIMEOUT], &record);
    if (!record)
        return rc;
    int printed = lmo_cli_show(cli, record, lmo_render_ended);
    if (printed != 0)
        return rc == 0 ? printed : rc;
    if (rc == LMO_EXIT_ATTENTION)
        lmo_cli_message(cli, "`lmo migration show %s` says what is known and what is safe", id);
    return rc;
}

int lmo_cmd_migrate(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    if (LMO_GIVEN(a, TIMEOUT) && !LMO_GIVEN(a, WAIT)) {
        lmo_cli_message(cli, "migrate: --timeout is about waiting: add --wait, or give --convergence-timeout");
        return LMO_EXIT_USAGE;
    }
    char key[LMO_ID_MAX];
    lmo_ulid_generate(key);
    LMO_AUTO_JSON json_t *body = request_body(a);
    LMO_AUTO_FREE char *text = NULL;
    struct lmo_err err = {0};
    if (!body || lmo_json_dump(body, &text, NULL, &err) < 0) {
        lmo_cli_message(cli, "migrate: names must be UTF-8");
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *record = NULL;
    int rc =
        request_migration(cli, text, LMO_GIVEN(a, IDEMPOTENCY_KEY) ? a->text[LMO_OPT_IDEMPOTENCY_KEY] : key, &record);
    if (rc != 0)
        return rc;
    char id[64];
    snprintf(id, sizeof id, "%s", lmo_api_text(record, "id"));
    if (*id == '\0') {
        lmo_cli_message(cli, "accepted, but the answer has no id: is the coordinator of another version?");
        return LMO_EXIT_PROTOCOL;
    }
    if (LMO_GIVEN(a, WAIT)) {
        lmo_cli_message(cli, "migration %s: %s to %s", id, a->positional[0], a->text[LMO_OPT_TO]);
        return wait_and_report(cli, id, record);
    }
    if (LMO_GIVEN(a, JSON))
        return lmo_cli_print_json(cli, record);
    char safe[64];
    fprintf(cli->out, "%s\n", lmo_format_safe(id, safe, sizeof safe));
    lmo_cli_message(cli, "accepted. `lmo migration wait %s` follows it.", id);
    return 0;
}

/* ------------------------------------------------------------------ migration ... */

int lmo_cmd_migration_list(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    char path[LMO_API_PATH_MAX] = "/v1/migrations";
    bool fits = lmo_api_query(path, "phase", a->text[LMO_OPT_PHASE]) &&
                lmo_api_query(path, "vm", a->text[LMO_OPT_VM]) && lmo_api_query(path, "limit", a->text[LMO_OPT_LIMIT]);
    if (!fits) {
        lmo_cli_message(cli, "--phase or --vm is too long");
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = lmo_api_call(cli, "GET", path, NULL, &answer);
    if (rc != 0)
        return rc;
    return lmo_cli_show(cli, answer, lmo_render_migrations);
}

int lmo_cmd_migration_show(struct lmo_cli *cli)
{
    char path[LMO_API_PATH_MAX];
    LMO_AUTO_JSON json_t *record = NULL;
    LMO_AUTO_JSON json_t *journal = NULL;
    int rc = migration_path(cli, "", path);
    if (rc == 0)
        rc = lmo_api_call(cli, "GET", path, NULL, &record);
    if (rc == 0)
        rc = migration_path(cli, "/journal", path);
    if (rc == 0)
        rc = lmo_api_list(cli, path, "journal", &journal);
    if (rc != 0)
        return rc;
    /* One document: the record with its journal inside. */
    json_t *entries = json_object_get(journal, "journal");
    if (entries && json_object_set(record, "journal", entries) < 0)
        return LMO_EXIT_FAILED;
    return lmo_cli_show(cli, record, lmo_render_migration_whole);
}

int lmo_cmd_migration_cancel(struct lmo_cli *cli)
{
    char path[LMO_API_PATH_MAX];
    const char *id = cli->args.positional[0];
    if (LMO_GIVEN(&cli->args, TIMEOUT) && !LMO_GIVEN(&cli->args, WAIT)) {
        lmo_cli_message(cli, "migration cancel: --timeout is about waiting: add --wait");
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = migration_path(cli, "/cancel", path);
    if (rc == 0)
        rc = lmo_api_call(cli, "POST", path, NULL, &answer);
    if (rc != 0)
        return rc;
    if (LMO_GIVEN(&cli->args, WAIT)) {
        rc = wait_and_report(cli, id, NULL);
        if (rc == LMO_EXIT_ABORTED)
            return 0; /* that is what was asked for */
        if (rc != 0)
            return rc;
        lmo_cli_message(cli, "too late to cancel: the guest had moved");
        return LMO_EXIT_FAILED;
    }
    if (LMO_GIVEN(&cli->args, JSON))
        return lmo_cli_print_json(cli, answer);
    lmo_cli_message(cli, "asked. `lmo migration wait %s` tells how it ends.", id);
    return 0;
}

int lmo_cmd_migration_wait(struct lmo_cli *cli)
{
    return wait_and_report(cli, cli->args.positional[0], NULL);
}

int lmo_cmd_migration_resolve(struct lmo_cli *cli)
{
    char path[LMO_API_PATH_MAX];
    const char *id = cli->args.positional[0], *decision = cli->args.positional[1];
    if (LMO_GIVEN(&cli->args, TIMEOUT) && !LMO_GIVEN(&cli->args, WAIT)) {
        lmo_cli_message(cli, "migration resolve: --timeout is about waiting: add --wait");
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *body = json_pack("{s:s, s:s}", "decision", decision, "reason", cli->args.text[LMO_OPT_REASON]);
    if (!body) {
        lmo_cli_message(cli, "the reason must be UTF-8");
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = migration_path(cli, "/resolve", path);
    if (rc == 0)
        rc = lmo_api_call(cli, "POST", path, body, &answer);
    if (rc != 0)
        return rc;
    if (LMO_GIVEN(&cli->args, WAIT))
        return wait_and_report(cli, id, NULL);
    if (LMO_GIVEN(&cli->args, JSON))
        return lmo_cli_print_json(cli, answer);
    lmo_cli_message(cli, "decided: %s; the migration is in %s now", decision, lmo_api_text(answer, "phase"));
    return 0;
}
