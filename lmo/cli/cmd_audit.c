/* cmd_audit.c - `lmo audit list`. */
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/plain.h"

#include <inttypes.h>
#include <string.h>

static void render(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"WHEN",      "WHO",  "FROM",    "WHAT",  "OUTCOME",
                                        "MIGRATION", "HOST", "REQUEST", "DETAIL"};
    struct lmo_grid t = {.columns = 9};
    char buf[LMO_FORMAT_MAX];
    size_t i = 0;
    const json_t *l;
    for (size_t n = 0; n < 9; n++)
        lmo_grid_cell(&t, names[n]);
    json_array_foreach(json_object_get(answer, "audit"), i, l)
    {
        static const char *const fields[] = {"principal", "remote", "action",  "outcome",
                                             "migration", "host",   "request", "detail"};
        lmo_grid_cell(&t, lmo_format_time(lmo_api_u64(l, "at_ms"), buf));
        for (size_t n = 0; n < 8; n++)
            lmo_grid_cell(&t, *lmo_api_text(l, fields[n]) ? lmo_api_text(l, fields[n]) : "-");
    }
    if (t.rows > 1)
        lmo_grid_print(&t, style, out);
    else
        fputs("no lines\n", out);
    lmo_grid_release(&t);
}

int lmo_cmd_audit_list(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    char path[LMO_API_PATH_MAX] = "/v1/audit";
    if (!lmo_api_query(path, "migration", a->text[LMO_OPT_MIGRATION]) ||
        !lmo_api_query(path, "host", a->text[LMO_OPT_HOST]) || !lmo_api_query(path, "limit", a->text[LMO_OPT_LIMIT])) {
        lmo_cli_message(cli, "--migration or --host is too long");
        return LMO_EXIT_USAGE;
    }
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = lmo_api_call(cli, "GET", path, NULL, &answer);
    if (rc != 0)
        return rc;
    return lmo_cli_show(cli, answer, render);
}
