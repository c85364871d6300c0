/* cmd_webhook.c - `lmo webhook ...`. */
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/plain.h"

#include <inttypes.h>
#include <string.h>

static bool path_of(struct lmo_cli *cli, const char *suffix, char path[LMO_API_PATH_MAX])
{
    if (lmo_api_path(path, "/v1/webhooks/", cli->args.positional[0], suffix))
        return true;
    lmo_cli_message(cli, "\"%.60s\" cannot be a webhook's id", cli->args.positional[0]);
    return false;
}

int lmo_cmd_webhook_add(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    LMO_AUTO_JSON json_t *body = json_object(), *answer = NULL;
    int r = lmo_json_put_str(body, "url", a->positional[0]);
    r |= a->text[LMO_OPT_TYPES] ? lmo_json_put_str(body, "types", a->text[LMO_OPT_TYPES]) : 0;
    r |= a->text[LMO_OPT_VM] ? lmo_json_put_str(body, "vm", a->text[LMO_OPT_VM]) : 0;
    r |= a->text[LMO_OPT_HOST] ? lmo_json_put_str(body, "host", a->text[LMO_OPT_HOST]) : 0;
    if (r < 0) {
        lmo_cli_message(cli, "URL and filters must be UTF-8");
        return LMO_EXIT_USAGE;
    }
    int rc = lmo_api_call(cli, "POST", "/v1/webhooks", body, &answer);
    if (rc != 0)
        return rc;
    if (LMO_GIVEN(a, JSON))
        return lmo_cli_print_json(cli, answer);
    char clean[2][256];
    fprintf(cli->out, "%s\n%s\n", lmo_format_safe(lmo_api_text(answer, "id"), clean[0], sizeof clean[0]),
            lmo_format_safe(lmo_api_text(answer, "secret"), clean[1], sizeof clean[1]));
    lmo_cli_message(cli, "the second line is the secret that signs; it is not shown again");
    return 0;
}

static void render_list(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"ID", "URL", "TYPES", "STATE", "BEHIND", "DELIVERED", "DROPPED", "LAST ERROR"};
    struct lmo_grid t = {.columns = 8};
    size_t i = 0;
    const json_t *w;
    for (size_t n = 0; n < 8; n++)
        lmo_grid_cell(&t, names[n]);
    json_array_foreach(json_object_get(answer, "webhooks"), i, w)
    {
        char text[3][24];
        bool enabled = json_is_true(json_object_get(w, "enabled"));
        snprintf(text[0], sizeof text[0], "%" PRIu64, lmo_api_u64(w, "behind"));
        snprintf(text[1], sizeof text[1], "%" PRIu64, lmo_api_u64(w, "delivered"));
        snprintf(text[2], sizeof text[2], "%" PRIu64, lmo_api_u64(w, "dropped"));
        const char *error = enabled ? lmo_api_text(w, "last_error") : lmo_api_text(w, "why_disabled");
        lmo_grid_cell(&t, lmo_api_text(w, "id"));
        lmo_grid_cell(&t, lmo_api_text(w, "url"));
        lmo_grid_cell(&t, *lmo_api_text(w, "types") ? lmo_api_text(w, "types") : "all");
        lmo_grid_cell(&t, !enabled ? "disabled" : lmo_api_u64(w, "failures") ? "failing" : "enabled");
        for (size_t n = 0; n < 3; n++)
            lmo_grid_cell(&t, text[n]);
        lmo_grid_cell(&t, *error ? error : "-");
    }
    if (t.rows > 1)
        lmo_grid_print(&t, style, out);
    else
        fputs("no webhooks\n", out);
    lmo_grid_release(&t);
}

int lmo_cmd_webhook_list(struct lmo_cli *cli)
{
    LMO_AUTO_JSON json_t *answer = NULL;
    int rc = lmo_api_list(cli, "/v1/webhooks", "webhooks", &answer);
    return rc != 0 ? rc : lmo_cli_show(cli, answer, render_list);
}

int lmo_cmd_webhook_remove(struct lmo_cli *cli)
{
    char path[LMO_API_PATH_MAX];
    LMO_AUTO_JSON json_t *answer = NULL;
    if (!path_of(cli, "", path))
        return LMO_EXIT_USAGE;
    int rc = lmo_api_call(cli, "DELETE", path, NULL, &answer);
    if (rc == 0 && LMO_GIVEN(&cli->args, JSON))
        fputs("{}\n", cli->out);
    return rc;
}

static void render_letters(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"SEQUENCE", "WHEN", "TYPE", "ATTEMPTS", "LAST ERROR"};
    struct lmo_grid t = {.columns = 5};
    size_t i = 0;
    const json_t *l;
    for (size_t n = 0; n < 5; n++)
        lmo_grid_cell(&t, names[n]);
    json_array_foreach(json_object_get(answer, "dead_letters"), i, l)
    {
        char text[2][24], buf[LMO_FORMAT_MAX];
        snprintf(text[0], sizeof text[0], "%" PRIu64, lmo_api_u64(l, "sequence"));
        snprintf(text[1], sizeof text[1], "%" PRIu64, lmo_api_u64(l, "attempts"));
        lmo_grid_cell(&t, text[0]);
        lmo_grid_cell(&t, lmo_format_time(lmo_api_u64(l, "at_ms"), buf));
        lmo_grid_cell(&t, lmo_api_text(l, "type"));
        lmo_grid_cell(&t, text[1]);
        lmo_grid_cell(&t, lmo_api_text(l, "last_error"));
    }
    if (t.rows > 1)
        lmo_grid_print(&t, style, out);
    else
        fputs("no dead letters\n", out);
    lmo_grid_release(&t);
}

int lmo_cmd_webhook_dead_letters(struct lmo_cli *cli)
{
    char path[LMO_API_PATH_MAX];
    LMO_AUTO_JSON json_t *answer = NULL;
    if (!path_of(cli, "/dead-letters", path))
        return LMO_EXIT_USAGE;
    int rc = lmo_api_list(cli, path, "dead_letters", &answer);
    return rc != 0 ? rc : lmo_cli_show(cli, answer, render_letters);
}

int lmo_cmd_webhook_redeliver(struct lmo_cli *cli)
{
    char path[LMO_API_PATH_MAX];
    LMO_AUTO_JSON json_t *answer = NULL, *body = json_object();
    if (!path_of(cli, "/dead-letters/redeliver", path))
        return LMO_EXIT_USAGE;
    if (LMO_GIVEN(&cli->args, SEQUENCE))
        (void)lmo_json_put_u64(body, "sequence", cli->args.number[LMO_OPT_SEQUENCE]);
    int rc = lmo_api_call(cli, "POST", path, body, &answer);
    if (rc != 0)
        return rc;
    if (LMO_GIVEN(&cli->args, JSON))
        return lmo_cli_print_json(cli, answer);
    fprintf(cli->out, "%" PRIu64 " will be sent once more\n", lmo_api_u64(answer, "redelivering"));
    return 0;
}
