/* cmd_token.c - `lmo token ...`. */
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/plain.h"

#include <inttypes.h>
#include <string.h>

int lmo_cmd_token_create(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    LMO_AUTO_JSON json_t *body = json_object();
    LMO_AUTO_JSON json_t *answer = NULL;
    int bad = lmo_json_put_str(body, "name", a->positional[0]) | lmo_json_put_str(body, "role", a->text[LMO_OPT_ROLE]);
    if (LMO_GIVEN(a, DAYS))
        bad |= lmo_json_put_u64(body, "expires_in_s", a->number[LMO_OPT_DAYS] * 86400);
    if (bad) {
        lmo_cli_message(cli, "NAME and --role must be UTF-8");
        return LMO_EXIT_USAGE;
    }
    int rc = lmo_api_call(cli, "POST", "/v1/tokens", body, &answer);
    if (rc != 0)
        return rc;
    if (LMO_GIVEN(a, JSON))
        return lmo_cli_print_json(cli, answer);
    if (!*lmo_api_text(answer, "token")) {
        lmo_cli_message(cli, "the answer is not understood: it has no token");
        return LMO_EXIT_PROTOCOL;
    }
    char until[LMO_FORMAT_MAX], safe[128];
    fprintf(cli->out, "%s\n", lmo_format_safe(lmo_api_text(answer, "token"), safe, sizeof safe));
    lmo_cli_message(cli, "good until %s; it is not shown again. `lmo token revoke %s` ends it.",
                    lmo_format_time(lmo_api_u64(answer, "expires_ms"), until), a->positional[0]);
    return 0;
}

static void render(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"NAME", "ROLE", "MADE", "EXPIRES", "BY", "ID"};
    struct lmo_grid t = {.columns = 6};
    char buf[LMO_FORMAT_MAX];
    size_t i = 0;
    const json_t *k;
    for (size_t n = 0; n < 6; n++)
        lmo_grid_cell(&t, names[n]);
    json_array_foreach(json_object_get(answer, "tokens"), i, k)
    {
        lmo_grid_cell(&t, lmo_api_text(k, "name"));
        lmo_grid_cell(&t, lmo_api_text(k, "role"));
        lmo_grid_cell(&t, lmo_format_time(lmo_api_u64(k, "created_ms"), buf));
        lmo_grid_cell(&t, lmo_format_time(lmo_api_u64(k, "expires_ms"), buf));
        lmo_grid_cell(&t, lmo_api_text(k, "created_by"));
        lmo_grid_cell(&t, lmo_api_text(k, "id"));
    }
    if (t.rows > 1)
        lmo_grid_print(&t, style, out);
    else
        fputs("no tokens\n", out);
    lmo_grid_release(&t);
}

int lmo_cmd_token_list(struct lmo_cli *cli)
{
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = lmo_api_list(cli, "/v1/tokens", "tokens", &answer);
    return rc != 0 ? rc : lmo_cli_show(cli, answer, render);
}

/* A name is looked up; what is none in the list is taken for an id, and the coordinator says what it is not. */
int lmo_cmd_token_revoke(struct lmo_cli *cli)
{
    const char *which = cli->args.positional[0], *id = which;
    LMO_AUTO_JSON json_t *answer = NULL;
    LMO_AUTO_JSON json_t *gone = NULL;
    char path[LMO_API_PATH_MAX];
    size_t i = 0;
    const json_t *k;
    int rc = lmo_api_list(cli, "/v1/tokens", "tokens", &answer);
    if (rc != 0)
        return rc;
    json_array_foreach(json_object_get(answer, "tokens"), i, k)
    {
        if (strcmp(lmo_api_text(k, "name"), which) == 0)
            id = lmo_api_text(k, "id");
    }
    if (!lmo_api_path(path, "/v1/tokens/", id, "")) {
        lmo_cli_message(cli, "\"%.60s\" cannot be a token's name or id", which);
        return LMO_EXIT_USAGE;
    }
    rc = lmo_api_call(cli, "DELETE", path, NULL, &gone);
    if (rc == 0)
        fprintf(cli->out, "revoked %s\n", which);
    return rc;
}
