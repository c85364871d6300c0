/* cmd_drain.c - `lmo drain ...`, `lmo cordon`, `lmo explain`, `lmo rebalance`, and what is said about guests. */
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/objects.h"
#include "cli/plain.h"
#include "cli/render.h"

#include <inttypes.h>
#include <string.h>

static int path_of(struct lmo_cli *cli, const char *before, const char *after, char path[LMO_API_PATH_MAX])
{
    if (lmo_api_path(path, before, cli->args.positional[0], after))
        return 0;
    lmo_cli_message(cli, "\"%.60s\" cannot be a name or an id", cli->args.positional[0]);
    return LMO_EXIT_USAGE;
}

/* One call about the thing that the first argument names. */
static int call(struct lmo_cli *cli, const char *method, const char *before, const char *after, const json_t *body,
                json_t **ret)
{
    char path[LMO_API_PATH_MAX];
    int rc = path_of(cli, before, after, path);
    return rc != 0 ? rc : lmo_api_call(cli, method, path, body, ret);
}

/* What is asked for, or with --dry-run what would come of it. */
static bool dry(struct lmo_cli *cli, char path[LMO_API_PATH_MAX])
{
    return lmo_api_query(path, "dry_run", LMO_GIVEN(&cli->args, DRY_RUN) ? "true" : NULL);
}

/* ------------------------------------------------------------------ waiting */

/* Follows a drain to its end; `first` (may be NULL) is what is known of it. */
static int wait_and_report(struct lmo_cli *cli, const char *id, const json_t *first)
{
    char object[80], later[200];
    const char *name = NULL;
    LMO_AUTO_JSON json_t *record = NULL;
    snprintf(object, sizeof object, "drain/%.60s", id);
    snprintf(later, sizeof later, "`lmo wait %s` follows it, `lmo drain cancel %.60s` ends it", object, id);
    struct lmo_wait w = {
        .cli = cli, .spec = lmo_object_find(object, &name)->wait, .id = name, .later = later, .wanted = "drained"};
    int rc = lmo_wait_for(&w, first, cli->args.number[LMO_OPT_TIMEOUT], &record);
    lmo_wait_end_line(&w);
    if (!record || rc == LMO_EXIT_WAIT_OVER)
        return rc;
    int printed = lmo_cli_show(cli, record, lmo_render_drain);
    if (rc != LMO_EXIT_OK && lmo_api_has(record, "outcome"))
        lmo_cli_message(cli, "drain %s ended %s%s%s", id, lmo_api_text(record, "outcome"),
                        *lmo_api_text(record, "reason") ? ": " : "", lmo_api_text(record, "reason"));
    return rc == LMO_EXIT_OK ? printed : rc;
}

/* ------------------------------------------------------------------ drain */

static json_t *drain_body(const struct lmo_cli_args *a)
{
    json_t *body = json_object(), *hosts = json_array();
    int bad = 0;
    for (unsigned i = 0; i < a->count; i++)
        bad |= lmo_json_add(hosts, json_string(a->positional[i]));
    if (a->count > 0)
        bad |= lmo_json_put(body, "hosts", hosts);
    else
        json_decref(hosts);
    static const struct {
        enum lmo_option option;
        const char *member;
    } texts[] = {{LMO_OPT_ALL_MATCHING, "all_matching"},
                 {LMO_OPT_KEEP_SPARE, "keep_free"},
                 {LMO_OPT_UNMOVABLE, "unmovable"},
                 {LMO_OPT_PLAN, "plan"}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        bad |= a->text[texts[i].option] ? lmo_json_put_str(body, texts[i].member, a->text[texts[i].option]) : 0;
    if (LMO_GIVEN(a, MAX_HOSTS))
        bad |= lmo_json_put_u64(body, "max_hosts", a->number[LMO_OPT_MAX_HOSTS]);
    if (LMO_GIVEN(a, RETURN))
        bad |= lmo_json_put_bool(body, "return", true);
    if (LMO_GIVEN(a, HOOK)) {
        bool url = strncmp(a->text[LMO_OPT_HOOK], "https://", 8) == 0;
        json_t *hook = json_object();
        bad |= lmo_json_put_str(hook, url ? "url" : "command", a->text[LMO_OPT_HOOK]);
        bad |= lmo_json_put(body, "hook", hook);
    }
    if (bad) {
        json_decref(body);
        return NULL;
    }
    return body;
}

/* Of a dry run: the plan; or the drain that does it already. */
static int show_plan(struct lmo_cli *cli, const json_t *answer)
{
    const json_t *result = json_object_get(answer, "result");
    if (LMO_GIVEN(&cli->args, JSON))
        return lmo_cli_print_json(cli, answer);
    if (lmo_api_has(result, "moves"))
        lmo_render_plan(result, &cli->out_style, cli->out);
    else
        lmo_cli_message(cli, "%s", lmo_api_text(answer, "would"));
    return 0;
}

static int started(struct lmo_cli *cli, const json_t *answer)
{
    const char *id = lmo_api_text(answer, "id");
    if (LMO_GIVEN(&cli->args, DRY_RUN))
        return show_plan(cli, answer);
    if (LMO_GIVEN(&cli->args, WAIT)) {
        lmo_cli_message(cli, "drain %s: %" PRIu64 " hosts, %" PRIu64 " guests", id, lmo_api_u64(answer, "host_count"),
                        lmo_api_u64(answer, "guest_count"));
        return wait_and_report(cli, id, answer);
    }
    if (LMO_GIVEN(&cli->args, JSON))
        return lmo_cli_print_json(cli, answer);
    char safe[64];
    fprintf(cli->out, "%s\n", lmo_format_safe(id, safe, sizeof safe));
    lmo_cli_message(cli, "accepted. `lmo wait drain/%s` follows it.", id);
    return 0;
}

int lmo_cmd_drain(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    if ((a->count > 0) == LMO_GIVEN(a, ALL_MATCHING)) {
        lmo_cli_message(cli, "drain: name hosts, or give --all-matching; one of the two");
        return LMO_EXIT_USAGE;
    }
    if (LMO_GIVEN(a, TIMEOUT) && !LMO_GIVEN(a, WAIT)) {
        lmo_cli_message(cli, "drain: --timeout is about waiting: add --wait");
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *body = drain_body(a);
    LMO_AUTO_JSON json_t *answer = NULL;
    if (!body) {
        lmo_cli_message(cli, "drain: names must be UTF-8");
        return LMO_EXIT_USAGE;
    }
    char path[LMO_API_PATH_MAX] = "/v1/drains";
    int rc = dry(cli, path) ? lmo_api_call(cli, "POST", path, body, &answer) : LMO_EXIT_USAGE;
    return rc != 0 ? rc : started(cli, answer);
}

int lmo_cmd_rebalance(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    if (LMO_GIVEN(a, SPREAD) == LMO_GIVEN(a, PACK)) {
        lmo_cli_message(cli, "rebalance: give --spread or --pack");
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *body = json_pack("{s:s}", "goal", LMO_GIVEN(a, PACK) ? "pack" : "spread");
    if (body && LMO_GIVEN(a, KEEP_SPARE))
        (void)lmo_json_put_str(body, "keep_free", a->text[LMO_OPT_KEEP_SPARE]);
    LMO_AUTO_JSON json_t *answer = NULL;
    char path[LMO_API_PATH_MAX] = "/v1/rebalance";
    int rc = dry(cli, path) ? lmo_api_call(cli, "POST", path, body, &answer) : LMO_EXIT_USAGE;
    return rc != 0 ? rc : started(cli, answer);
}

int lmo_cmd_drain_list(struct lmo_cli *cli)
{
    char path[LMO_API_PATH_MAX] = "/v1/drains";
    LMO_AUTO_JSON json_t *answer = NULL;
    (void)lmo_api_query(path, "limit", cli->args.text[LMO_OPT_LIMIT]);
    int rc = lmo_api_list(cli, path, "drains", &answer);
    return rc != 0 ? rc : lmo_cli_show(cli, answer, lmo_render_drains);
}

int lmo_cmd_drain_show(struct lmo_cli *cli)
{
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = call(cli, "GET", "/v1/drains/", "", NULL, &answer);
    return rc != 0 ? rc : lmo_cli_show(cli, answer, lmo_render_drain);
}

static int steer(struct lmo_cli *cli, const char *act, const json_t *body, const char *said)
{
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = call(cli, "POST", "/v1/drains/", act, body, &answer);
    if (rc != 0)
        return rc;
    if (LMO_GIVEN(&cli->args, JSON))
        return lmo_cli_print_json(cli, answer);
    lmo_cli_message(cli, "%s; the drain is %s now", said, lmo_api_text(answer, "state"));
    return 0;
}

int lmo_cmd_drain_pause(struct lmo_cli *cli)
{
    return steer(cli, "/pause", NULL, "asked");
}

int lmo_cmd_drain_resume(struct lmo_cli *cli)
{
    return steer(cli, "/resume", NULL, "asked");
}

int lmo_cmd_drain_cancel(struct lmo_cli *cli)
{
    if (LMO_GIVEN(&cli->args, WAIT)) {
        LMO_AUTO_JSON json_t *answer = NULL;
        int rc = call(cli, "POST", "/v1/drains/", "/cancel", NULL, &answer);
        rc = rc != 0 ? rc : wait_and_report(cli, cli->args.positional[0], answer);
        return rc == LMO_EXIT_ABORTED ? 0 : rc; /* that is what was asked for */
    }
    return steer(cli, "/cancel", NULL, "asked");
}

int lmo_cmd_drain_continue(struct lmo_cli *cli)
{
    LMO_AUTO_JSON json_t *body = json_pack("{s:s}", "host", cli->args.positional[1]);
    if (!body) {
        lmo_cli_message(cli, "the host's name must be UTF-8");
        return LMO_EXIT_USAGE;
    }
    return steer(cli, "/acknowledge", body, "said");
}

/* ------------------------------------------------------------------ hosts */

static int set_cordon(struct lmo_cli *cli, const char *what)
{
    char path[LMO_API_PATH_MAX];
    LMO_AUTO_JSON json_t *body = json_object();
    LMO_AUTO_JSON json_t *answer = NULL;
    if (cli->args.text[LMO_OPT_REASON])
        (void)lmo_json_put_str(body, "reason", cli->args.text[LMO_OPT_REASON]);
    int rc = path_of(cli, "/v1/hosts/", what, path);
    rc = rc != 0 ? rc : dry(cli, path) ? lmo_api_call(cli, "POST", path, body, &answer) : LMO_EXIT_USAGE;
    if (rc != 0 || LMO_GIVEN(&cli->args, JSON))
        return rc != 0 ? rc : lmo_cli_print_json(cli, answer);
    if (LMO_GIVEN(&cli->args, DRY_RUN))
        lmo_cli_message(cli, "%s", lmo_api_text(answer, "would"));
    else
        lmo_cli_message(cli, "%s is %s", cli->args.positional[0],
                        json_is_true(json_object_get(answer, "cordoned")) ? "cordoned: it takes no guests"
                                                                          : "not cordoned: it takes guests");
    return 0;
}

int lmo_cmd_cordon(struct lmo_cli *cli)
{
    return set_cordon(cli, "/cordon");
}

int lmo_cmd_uncordon(struct lmo_cli *cli)
{
    return set_cordon(cli, "/uncordon");
}

/* "key=value,key=value" into an object. False: it is none. */
static bool add_labels(struct lmo_cli *cli, json_t *to, const char *text)
{
    while (text && *text) {
        char label[200];
        size_t n = strcspn(text, ",");
        snprintf(label, sizeof label, "%.*s", (int)n, text);
        char *equals = strchr(label, '=');
        if (!equals || n >= sizeof label) {
            lmo_cli_message(cli, "\"%.60s\" is not key=value", label);
            return false;
        }
        *equals = '\0';
        if (lmo_json_put_str(to, label, equals + 1) < 0) {
            lmo_cli_message(cli, "labels must be UTF-8");
            return false;
        }
        text += n + (text[n] == ',');
    }
    return true;
}

int lmo_cmd_host_label(struct lmo_cli *cli)
{
    LMO_AUTO_JSON json_t *body = json_object();
    LMO_AUTO_JSON json_t *answer = NULL;
    json_t *labels = json_object();
    bool good = lmo_json_put(body, "labels", labels) == 0;
    for (unsigned i = 1; good && i < cli->args.count; i++)
        good = add_labels(cli, labels, cli->args.positional[i]);
    if (!good)
        return LMO_EXIT_USAGE;
    int rc = call(cli, "PUT", "/v1/hosts/", "/labels", body, &answer);
    return rc != 0 ? rc : lmo_cli_show(cli, answer, lmo_render_host);
}

/* ------------------------------------------------------------------ guests */

int lmo_cmd_explain(struct lmo_cli *cli)
{
    char path[LMO_API_PATH_MAX];
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = path_of(cli, "/v1/vms/", "/explain", path);
    if (rc == 0 && !lmo_api_query(path, "keep_free", cli->args.text[LMO_OPT_KEEP_SPARE]))
        rc = LMO_EXIT_USAGE;
    rc = rc != 0 ? rc : lmo_api_call(cli, "GET", path, NULL, &answer);
    return rc != 0 ? rc : lmo_cli_show(cli, answer, lmo_render_explain);
}

/* Policies and leases belong to the UUID; a name is looked up first. */
static int resolve(struct lmo_cli *cli, char uuid[64])
{
    LMO_AUTO_JSON json_t *vm = NULL;
    const char *given = cli->args.positional[0];
    if (strlen(given) == 36 && given[8] == '-' && given[13] == '-') {
        snprintf(uuid, 64, "%s", given);
        return 0;
    }
    int rc = call(cli, "GET", "/v1/vms/", "", NULL, &vm);
    if (rc == 0)
        snprintf(uuid, 64, "%s", lmo_api_text(vm, "uuid"));
    return rc;
}

/* "web:apart:hard,db:together" */
static bool add_groups(struct lmo_cli *cli, json_t *to, const char *text)
{
    while (text && *text) {
        char group[200];
        size_t n = strcspn(text, ",");
        snprintf(group, sizeof group, "%.*s", (int)n, text);
        char *save = NULL, *name = strtok_r(group, ":", &save), *kind = strtok_r(NULL, ":", &save),
             *hard = strtok_r(NULL, ":", &save);
        if (!name || !kind || (hard && strcmp(hard, "hard") != 0)) {
            lmo_cli_message(cli, "--group: NAME:apart or NAME:together, and :hard after it for a rule");
            return false;
        }
        (void)lmo_json_add(to, json_pack("{s:s, s:s, s:b}", "name", name, "kind", kind, "hard", hard != NULL));
        text += n + (text[n] == ',');
    }
    return true;
}

int lmo_cmd_vm_policy(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    char uuid[64], path[LMO_API_PATH_MAX];
    LMO_AUTO_JSON json_t *body = json_object();
    LMO_AUTO_JSON json_t *answer = NULL;
    bool set = LMO_GIVEN(a, UNMOVABLE) || LMO_GIVEN(a, LABELS) || LMO_GIVEN(a, GROUP);
    json_t *labels = json_object(), *groups = json_array();
    bool good = lmo_json_put(body, "labels", labels) == 0 && lmo_json_put(body, "groups", groups) == 0 &&
                add_labels(cli, labels, a->text[LMO_OPT_LABELS]) && add_groups(cli, groups, a->text[LMO_OPT_GROUP]);
    if (!good)
        return LMO_EXIT_USAGE;
    if (LMO_GIVEN(a, UNMOVABLE))
        (void)lmo_json_put_str(body, "unmovable", a->text[LMO_OPT_UNMOVABLE]);
    int rc = resolve(cli, uuid);
    if (rc == 0 && !lmo_api_path(path, "/v1/vms/", uuid, "/policy"))
        rc = LMO_EXIT_USAGE;
    rc = rc != 0 ? rc : lmo_api_call(cli, set ? "PUT" : "GET", path, set ? body : NULL, &answer);
    return rc != 0 ? rc : lmo_cli_show(cli, answer, lmo_render_policy);
}

int lmo_cmd_vm_lease(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    char uuid[64], path[LMO_API_PATH_MAX];
    LMO_AUTO_JSON json_t *answer = NULL;
    LMO_AUTO_JSON json_t *body = NULL;
    uint64_t seconds = a->number[LMO_OPT_LEASE];
    const char *method = !LMO_GIVEN(a, LEASE) ? "GET" : seconds ? "PUT" : "DELETE";
    if (seconds > 0 && !LMO_GIVEN(a, REASON)) {
        lmo_cli_message(cli, "vm lease: --reason says to others why they must wait");
        return LMO_EXIT_USAGE;
    }
    if (seconds > 0)
        body = json_pack("{s:s, s:I}", "reason", a->text[LMO_OPT_REASON], "seconds", (json_int_t)seconds);
    int rc = resolve(cli, uuid);
    if (rc == 0 && !lmo_api_path(path, "/v1/vms/", uuid, "/lease"))
        rc = LMO_EXIT_USAGE;
    rc = rc != 0 ? rc : lmo_api_call(cli, method, path, body, &answer);
    return rc != 0 ? rc : lmo_cli_show(cli, answer, lmo_render_lease);
}
