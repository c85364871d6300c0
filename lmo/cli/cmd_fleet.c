/* cmd_fleet.c - `lmo host ...` and `lmo vm ...`. */
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/plain.h"
#include "cli/render.h"

#include <string.h>

static int get_one(struct lmo_cli *cli, const char *collection, lmo_render_fn *render)
{
    char path[LMO_API_PATH_MAX];
    if (!lmo_api_path(path, collection, cli->args.positional[0], "")) {
        lmo_cli_message(cli, "\"%.60s\" cannot be a name", cli->args.positional[0]);
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = lmo_api_call(cli, "GET", path, NULL, &answer);
    return rc != 0 ? rc : lmo_cli_show(cli, answer, render);
}

int lmo_cmd_host_list(struct lmo_cli *cli)
{
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = lmo_api_list(cli, "/v1/hosts", "hosts", &answer);
    return rc != 0 ? rc : lmo_cli_show(cli, answer, lmo_render_hosts);
}

int lmo_cmd_host_show(struct lmo_cli *cli)
{
    return get_one(cli, "/v1/hosts/", lmo_render_host);
}

int lmo_cmd_host_add(struct lmo_cli *cli)
{
    LMO_AUTO_JSON json_t *body =
        json_pack("{s:s, s:s}", "name", cli->args.positional[0], "url", cli->args.text[LMO_OPT_HOST_URL]);
    if (!body) {
        lmo_cli_message(cli, "name and URL must be UTF-8");
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *host = NULL;
    int rc = lmo_api_call(cli, "POST", "/v1/hosts", body, &host);
    if (rc != 0)
        return rc;
    if (LMO_GIVEN(&cli->args, JSON))
        return lmo_cli_print_json(cli, host);
    lmo_cli_message(cli, "added %s; `lmo host show %s` tells whether it can be reached", cli->args.positional[0],
                    cli->args.positional[0]);
    return 0;
}

int lmo_cmd_host_set(struct lmo_cli *cli)
{
    static const struct {
        enum lmo_option option;
        const char *member;
    } limits[] = {{LMO_OPT_MAX_INCOMING, "max_incoming"},
                  {LMO_OPT_MAX_OUTGOING, "max_outgoing"},
                  {LMO_OPT_MAX_BANDWIDTH, "max_bandwidth_bytes_per_s"},
                  {LMO_OPT_KEEP_FREE, "memory_keep_free_bytes"}};
    char path[LMO_API_PATH_MAX];
    if (!lmo_api_path(path, "/v1/hosts/", cli->args.positional[0], "")) {
        lmo_cli_message(cli, "\"%.60s\" cannot be a host's name", cli->args.positional[0]);
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *body = json_object();
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        bool given = (cli->args.given >> limits[i].option) & 1U;
        if (given || LMO_GIVEN(&cli->args, RESET))
            (void)lmo_json_put(body, limits[i].member,
                               given ? json_integer((json_int_t)cli->args.number[limits[i].option]) : json_null());
    }
    if (json_object_size(body) == 0) {
        lmo_cli_message(cli, "nothing to set: give a limit, or --reset");
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *host = NULL;
    int rc = lmo_api_call(cli, "PATCH", path, body, &host);
    if (rc != 0)
        return rc;
    return lmo_cli_show(cli, host, lmo_render_host);
}

int lmo_cmd_host_remove(struct lmo_cli *cli)
{
    char path[LMO_API_PATH_MAX];
    if (!lmo_api_path(path, "/v1/hosts/", cli->args.positional[0], "")) {
        lmo_cli_message(cli, "\"%.60s\" cannot be a host's name", cli->args.positional[0]);
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = lmo_api_call(cli, "DELETE", path, NULL, &answer);
    if (rc != 0)
        return rc;
    lmo_cli_message(cli, "removed %s; its guests are left alone", cli->args.positional[0]);
    if (LMO_GIVEN(&cli->args, JSON))
        fputs("{}\n", cli->out);
    return 0;
}

/* A list that lacks some hosts' guests must not look complete. */
static void warn_unreachable(struct lmo_cli *cli, const json_t *answer)
{
    char names[400] = "";
    size_t i = 0, used = 0;
    const json_t *h;
    json_array_foreach(json_object_get(answer, "hosts_unreachable"), i, h)
    {
        const char *name = json_is_string(h) ? json_string_value(h) : lmo_api_text(h, "name");
        if (used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", name);
    }
    if (used > 0)
        lmo_cli_message(cli, "not reachable, so their guests are missing here or may be out of date: %s", names);
}

int lmo_cmd_vm_list(struct lmo_cli *cli)
{
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = lmo_api_list(cli, "/v1/vms?limit=1000", "vms", &answer); /* for each page all hosts are asked */
    if (rc == 0)
        rc = lmo_cli_show(cli, answer, lmo_render_vms);
    if (answer)
        warn_unreachable(cli, answer);
    return rc;
}

int lmo_cmd_vm_show(struct lmo_cli *cli)
{
    return get_one(cli, "/v1/vms/", lmo_render_vm);
}
