/* cmd_doctor.c - `lmo doctor`. */
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/plain.h"

#include <inttypes.h>
#include <string.h>

#define DOCTOR_TIMEOUT_MS 610000 /* a little more than the coordinator's own */

static void show_finding(const json_t *f, const struct lmo_style *style, FILE *out)
{
    char safe[512];
    const char *severity = lmo_api_text(f, "severity");
    enum lmo_color color = strcmp(severity, "critical") == 0 ? LMO_RED : LMO_YELLOW;
    size_t i = 0;
    const json_t *c;
    fprintf(out, "%s%-9s%s", lmo_color_on(style, color), lmo_format_safe(severity, safe, sizeof safe),
            lmo_color_off(style, color));
    fprintf(out, "%s\n", lmo_format_safe(lmo_api_text(f, "text"), safe, sizeof safe));
    if (*lmo_api_text(f, "evidence"))
        fprintf(out, "         seen: %s\n", lmo_format_safe(lmo_api_text(f, "evidence"), safe, sizeof safe));
    json_array_foreach(json_object_get(f, "commands"), i, c)
    {
        if (json_is_string(c))
            fprintf(out, "         safe: %s\n", lmo_format_safe(json_string_value(c), safe, sizeof safe));
    }
}

static void show(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    char safe[512];
    size_t i = 0;
    const json_t *f;
    json_array_foreach(json_object_get(answer, "repairs"), i, f)
    {
        bool good = strcmp(lmo_api_text(f, "outcome"), "ok") == 0;
        fprintf(out, "%s%-9s%s", lmo_color_on(style, good ? LMO_GREEN : LMO_YELLOW), good ? "mended" : "not mended",
                lmo_color_off(style, good ? LMO_GREEN : LMO_YELLOW));
        fprintf(out, "%s%s", good ? "" : " ", lmo_format_safe(lmo_api_text(f, "text"), safe, sizeof safe));
        if (!good)
            fprintf(out, ": %s", lmo_format_safe(lmo_api_text(f, "outcome_text"), safe, sizeof safe));
        fputc('\n', out);
    }
    json_array_foreach(json_object_get(answer, "findings"), i, f)
    {
        show_finding(f, style, out);
    }
    if (json_is_true(json_object_get(answer, "more")))
        fputs("... and more\n", out);
    fprintf(out, "looked at %" PRIu64 " hosts, %" PRIu64 " guests, %" PRIu64 " open migrations: %zu finding(s)\n",
            lmo_api_u64(answer, "hosts"), lmo_api_u64(answer, "guests"), lmo_api_u64(answer, "open_migrations"),
            json_array_size(json_object_get(answer, "findings")));
}

int lmo_cmd_doctor(struct lmo_cli *cli)
{
    bool repair = LMO_GIVEN(&cli->args, REPAIR);
    struct lmo_cli_call call = {.method = "POST",
                                .path = "/v1/doctor",
                                .body = repair ? "{\"repair\":true}" : "{}",
                                .timeout_ms = DOCTOR_TIMEOUT_MS};
    struct lmo_cli_reply reply = {0};
    struct lmo_err err = {0};
    LMO_AUTO_JSON json_t *answer = NULL;
    if (lmo_api_request(cli, &call, &reply, &err) < 0)
        return lmo_api_unreached(cli, &err);
    int rc = lmo_api_accept(cli, &reply, &answer);
    free(reply.body);
    if (rc != 0)
        return rc;
    rc = lmo_cli_show(cli, answer, show);
    if (rc != 0)
        return rc;
    return json_array_size(json_object_get(answer, "findings")) > 0 ? LMO_EXIT_FINDINGS : LMO_EXIT_OK;
}
