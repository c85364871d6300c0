/* cmd_drain.c - `lmo drain ...`, `lmo cordon`, `lmo explain`, `lmo rebalance`, and what is said about guests. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/render.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>

#define HOLD_MS     25000 /* how long the coordinator may hold one request */
#define RETRY_MS    500
#define PATIENCE_MS 60000

typedef void render_fn(const json_t *answer, const struct lmo_style *style, FILE *out);

static int print(struct lmo_cli *cli, const json_t *answer, render_fn *render)
{
    if (LMO_GIVEN(&cli->args, JSON))
        return lmo_cli_print_json(cli, answer);
    render(answer, &cli->out_style, cli->out);
    return 0;
}

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

/* ------------------------------------------------------------------ waiting */

/* Exit code of a drain that has ended; -1: it has not. */
static int outcome(const json_t *drain)
{
    const char *o = lmo_api_text(drain, "outcome");
    if (*o == '\0')
        return -1;
    return strcmp(o, "drained") == 0 ? LMO_EXIT_OK : strcmp(o, "cancelled") == 0 ? LMO_EXIT_ABORTED : LMO_EXIT_FAILED;
}

static void show(struct lmo_cli *cli, const json_t *drain, char said[LMO_RENDER_LINE_MAX])
{
    char text[LMO_RENDER_LINE_MAX];
    lmo_render_drain_progress(drain, text);
    if (strcmp(text, said) == 0)
        return;
    memcpy(said, text, sizeof text);
    if (!cli->err_style.tty) {
        fprintf(cli->err, "%s\n", text);
        return;
    }
    if (cli->err_style.width > 1 && strlen(text) >= cli->err_style.width)
        text[cli->err_style.width - 1] = '\0'; /* a wrapped line cannot be redrawn */
    fprintf(cli->err, "\r\033[K%s%s", text, outcome(drain) >= 0 ? "\n" : "");
    fflush(cli->err);
}

/* Replaces *record. 0, or an exit code: a coordinator that goes away meanwhile is waited for. */
static int ask(struct lmo_cli *cli, const char *id, uint64_t hold, uint64_t *lost_ns, json_t **record)
{
    char path[LMO_API_PATH_MAX], version[32], wait[32];
    struct lmo_err err = {0};
    struct lmo_cli_reply reply = {0};
    snprintf(version, sizeof version, "%" PRIu64, lmo_api_u64(*record, "version"));
    snprintf(wait, sizeof wait, "%" PRIu64, hold);
    if (!lmo_api_path(path, "/v1/drains/", id, "") ||
        (*record && !(lmo_api_query(path, "wait_version", version) && lmo_api_query(path, "wait_ms", wait)))) {
        lmo_cli_message(cli, "\"%.60s\" cannot be the id of a drain", id);
        return LMO_EXIT_USAGE;
    }
    struct lmo_cli_call c = {.method = "GET", .path = path, .timeout_ms = hold + 10000};
    int rc = lmo_api_request(cli, &c, &reply, &err);
    bool away = rc < 0 || reply.status == 429 || reply.status == 502 || reply.status == 503 || reply.status == 504;
    if (away && *record) {
        uint64_t now = lmo_now_ns(), patience = cli->patience_ms ? cli->patience_ms : PATIENCE_MS;
        if (*lost_ns == 0) {
            lmo_cli_message(cli, "the coordinator does not answer (%s); the drain goes on, trying again",
                            err.text[0] ? err.text : "busy");
            *lost_ns = now;
        }
        free(reply.body);
        if (now - *lost_ns >= patience * LMO_NS_PER_MS) {
            lmo_cli_message(cli, "no answer for %" PRIu64 " s. Later: `lmo drain wait %s`", patience / 1000, id);
            return LMO_EXIT_UNREACHABLE;
        }
        poll(NULL, 0, (int)(cli->retry_pause_ms ? cli->retry_pause_ms : RETRY_MS));
        return 0;
    }
    *lost_ns = 0;
    json_t *json = NULL;
    rc = rc < 0 ? lmo_api_unreached(cli, &err) : lmo_api_accept(cli, &reply, &json);
    free(reply.body);
    if (rc == 0 && json) {
        json_decref(*record);
        *record = json;
    }
    return rc;
}

/* Follows a drain to its end; `first` (may be NULL) is what is known of it. */
static int wait_and_report(struct lmo_cli *cli, const char *id, const json_t *first)
{
    LMO_AUTO_JSON json_t *record = json_incref((json_t *)(uintptr_t)first);
    uint64_t timeout = cli->args.number[LMO_OPT_TIMEOUT], lost_ns = 0;
    uint64_t deadline_ns = timeout ? lmo_now_ns() + timeout * LMO_NS_PER_MS : 0;
    char said[LMO_RENDER_LINE_MAX] = "";
    int end = -1;
    while (true) {
        if (record) {
            show(cli, record, said);
            end = outcome(record);
        }
        if (end >= 0)
            break;
        uint64_t left = deadline_ns ? lmo_ms_until(deadline_ns) : HOLD_MS;
        if (record && left == 0) {
            lmo_cli_message(
                cli, "still %s when the time was up; the drain goes on. `lmo drain wait %s` or `lmo drain cancel %s`.",
                lmo_api_text(record, "state"), id, id);
            return LMO_EXIT_WAIT_OVER;
        }
        int rc = ask(cli, id, left < HOLD_MS ? left : HOLD_MS, &lost_ns, &record);
        if (rc != 0)
            return rc;
    }
    int printed = print(cli, record, lmo_render_drain);
    if (end != LMO_EXIT_OK)
        lmo_cli_message(cli, "drain %s ended %s%s%s", id, lmo_api_text(record, "outcome"),
                        *lmo_api_text(record, "reason") ? ": " : "", lmo_api_text(record, "reason"));
    return end == LMO_EXIT_OK ? printed : end;
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
    if (LMO_GIVEN(a, DRY_RUN))
        bad |= lmo_json_put_bool(body, "dry_run", true);
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

static int started(struct lmo_cli *cli, const json_t *answer)
{
    const char *id = lmo_api_text(answer, "id");
    if (LMO_GIVEN(&cli->args, DRY_RUN))
        return print(cli, answer, lmo_render_plan);
    if (LMO_GIVEN(&cli->args, WAIT)) {
        lmo_cli_message(cli, "drain %s: %" PRIu64 " hosts, %" PRIu64 " guests", id, lmo_api_u64(answer, "host_count"),
                        lmo_api_u64(answer, "guest_count"));
        return wait_and_report(cli, id, answer);
    }
    if (LMO_GIVEN(&cli->args, JSON))
        return lmo_cli_print_json(cli, answer);
    char safe[64];
    fprintf(cli->out, "%s\n", lmo_format_safe(id, safe, sizeof safe));
    lmo_cli_message(cli, "accepted. `lmo drain wait %s` follows it.", id);
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
    int rc = lmo_api_call(cli, "POST", "/v1/drains", body, &answer);
    return rc != 0 ? rc : started(cli, answer);
}

int lmo_cmd_rebalance(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    if (LMO_GIVEN(a, SPREAD) == LMO_GIVEN(a, PACK)) {
        lmo_cli_message(cli, "rebalance: give --spread or --pack");
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *body =
        json_pack("{s:s, s:b}", "goal", LMO_GIVEN(a, PACK) ? "pack" : "spread", "dry_run", LMO_GIVEN(a, DRY_RUN));
    if (body && LMO_GIVEN(a, KEEP_SPARE))
        (void)lmo_json_put_str(body, "keep_free", a->text[LMO_OPT_KEEP_SPARE]);
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = lmo_api_call(cli, "POST", "/v1/rebalance", body, &answer);
    return rc != 0 ? rc : started(cli, answer);
}

int lmo_cmd_drain_list(struct lmo_cli *cli)
{
    char path[LMO_API_PATH_MAX] = "/v1/drains";
    LMO_AUTO_JSON json_t *answer = NULL;
    (void)lmo_api_query(path, "limit", cli->args.text[LMO_OPT_LIMIT]);
    int rc = lmo_api_call(cli, "GET", path, NULL, &answer);
    return rc != 0 ? rc : print(cli, answer, lmo_render_drains);
}

int lmo_cmd_drain_show(struct lmo_cli *cli)
{
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = call(cli, "GET", "/v1/drains/", "", NULL, &answer);
    return rc != 0 ? rc : print(cli, answer, lmo_render_drain);
}

int lmo_cmd_drain_wait(struct lmo_cli *cli)
{
    return wait_and_report(cli, cli->args.positional[0], NULL);
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
    LMO_AUTO_JSON json_t *body = json_pack("{s:b}", "dry_run", LMO_GIVEN(&cli->args, DRY_RUN));
    LMO_AUTO_JSON json_t *answer = NULL;
    if (cli->args.text[LMO_OPT_REASON])
        (void)lmo_json_put_str(body, "reason", cli->args.text[LMO_OPT_REASON]);
    int rc = call(cli, "POST", "/v1/hosts/", what, body, &answer);
    if (rc != 0 || LMO_GIVEN(&cli->args, JSON))
        return rc != 0 ? rc : lmo_cli_print_json(cli, answer);
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
    return rc != 0 ? rc : print(cli, answer, lmo_render_host);
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
    return rc != 0 ? rc : print(cli, answer, lmo_render_explain);
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
    return rc != 0 ? rc : print(cli, answer, lmo_render_policy);
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
    return rc != 0 ? rc : print(cli, answer, lmo_render_lease);
}
