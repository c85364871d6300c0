/* cmd_events.c - `lmo events`: the event log, once or followed. Server-sent events in, a line each out; with --json one object
 * per line. A follower that loses the coordinator comes back with the last number it had. */
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#define BLOCK_MAX  (64u << 10)
#define SILENCE_MS 60000 /* four beats */
#define PAUSE_MS   2000

struct reader {
    struct lmo_cli *cli;
    struct lmo_buf text; /* what is not a whole block yet */
    char last[32];       /* number to come back with */
    bool json, broken, cut;
};

static const char *member(const json_t *data, const char *name)
{
    const char *text = lmo_api_text(data, name);
    return *text ? text : "-";
}

static void render(struct reader *r, const json_t *event)
{
    const json_t *data = json_object_get(event, "data");
    const char *vm = lmo_api_text(json_object_get(data, "vm"), "name");
    char clean[8][256];
    FILE *out = r->cli->out;
    fprintf(out, "%s  %-20s", lmo_format_safe(lmo_api_text(event, "timestamp"), clean[0], sizeof clean[0]),
            lmo_format_safe(lmo_api_text(event, "type"), clean[1], sizeof clean[1]));
    if (lmo_api_has(data, "migration")) {
        fprintf(out, "  %s  %s  %s -> %s  %s", lmo_format_safe(member(data, "migration"), clean[2], sizeof clean[2]),
                lmo_format_safe(*vm ? vm : member(json_object_get(data, "vm"), "uuid"), clean[3], sizeof clean[3]),
                lmo_format_safe(member(data, "source"), clean[4], sizeof clean[4]),
                lmo_format_safe(member(data, "destination"), clean[5], sizeof clean[5]),
                lmo_format_safe(member(data, "phase"), clean[6], sizeof clean[6]));
    } else if (lmo_api_has(data, "host")) {
        fprintf(out, "  %s", lmo_format_safe(member(data, "host"), clean[2], sizeof clean[2]));
    } else if (lmo_api_has(data, "webhook")) {
        fprintf(out, "  %s", lmo_format_safe(member(data, "webhook"), clean[2], sizeof clean[2]));
    }
    const char *why = lmo_api_has(data, "reason") ? lmo_api_text(data, "reason") : lmo_api_text(data, "why");
    fprintf(out, "%s%s\n", *why ? "  " : "", lmo_format_safe(why, clean[7], sizeof clean[7]));
}

static void take_data(struct reader *r, const char *type, const char *data)
{
    LMO_AUTO_JSON json_t *event = NULL;
    if (lmo_json_parse_object(data, strlen(data), BLOCK_MAX, &event, NULL) < 0) {
        r->broken = true;
        return;
    }
    const json_t *about = json_object_get(event, "data");
    if (strcmp(type, "gap") == 0)
        lmo_cli_message(r->cli, "events %" PRIu64 " to %" PRIu64 " are not kept any more: read the present state anew",
                        lmo_api_u64(about, "after") + 1, lmo_api_u64(about, "next") - 1);
    if (strcmp(type, "cut") == 0) {
        lmo_cli_message(r->cli, "the coordinator ended the stream: %.200s", lmo_api_text(about, "reason"));
        r->cut = true;
    }
    if (r->json)
        (void)fprintf(r->cli->out, "%s\n", data); /* JSON has no control characters to be filtered */
    else if (strcmp(type, "gap") != 0 && strcmp(type, "cut") != 0)
        render(r, event);
    (void)fflush(r->cli->out);
}

static void take_block(struct reader *r, char *block)
{
    char type[64] = "", *rest = NULL;
    const char *data = NULL;
    for (char *line = strtok_r(block, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, "id: ", 4) == 0)
            snprintf(r->last, sizeof r->last, "%s", line + 4);
        else if (strncmp(line, "event: ", 7) == 0)
            snprintf(type, sizeof type, "%s", line + 7);
        else if (strncmp(line, "data: ", 6) == 0)
            data = line + 6;
    }
    if (data)
        take_data(r, type, data);
}

static int on_data(void *arg, const char *bytes, size_t len)
{
    struct reader *r = arg;
    if (lmo_buf_append(&r->text, bytes, len) < 0)
        r->broken = true;
    char *at = r->text.data, *end;
    while (!r->broken && at && (end = strstr(at, "\n\n")) != NULL) {
        *end = '\0';
        take_block(r, at);
        at = end + 2;
    }
    if (at && !r->broken) {
        size_t left = r->text.len - (size_t)(at - r->text.data);
        memmove(r->text.data, at, left + 1);
        r->text.len = left;
    }
    return r->broken || ferror(r->cli->out);
}

static bool build_path(const struct lmo_cli_args *a, bool follow, const char *since, char path[LMO_API_PATH_MAX])
{
    snprintf(path, LMO_API_PATH_MAX, "/v1/events");
    return lmo_api_query(path, "types", a->text[LMO_OPT_TYPES]) &&
           lmo_api_query(path, "migration", a->text[LMO_OPT_MIGRATION]) &&
           lmo_api_query(path, "vm", a->text[LMO_OPT_VM]) && lmo_api_query(path, "host", a->text[LMO_OPT_HOST]) &&
           lmo_api_query(path, "progress", LMO_GIVEN(a, PROGRESS) ? "true" : NULL) &&
           lmo_api_query(path, "since", since) && lmo_api_query(path, "follow", follow ? NULL : "false");
}

int lmo_cmd_events(struct lmo_cli *cli)
{
    const struct lmo_cli_args *a = &cli->args;
    struct reader r = {.cli = cli, .json = LMO_GIVEN(a, JSON), .text = LMO_BUF_INIT(BLOCK_MAX)};
    bool follow = LMO_GIVEN(a, FOLLOW);
    char path[LMO_API_PATH_MAX], since[32], header[64];
    snprintf(since, sizeof since, "%" PRIu64, a->number[LMO_OPT_SINCE]);
    /* Without --since: all that is kept, or, when following, what happens from now on. */
    if (!build_path(a, follow, LMO_GIVEN(a, SINCE) || !follow ? since : NULL, path)) {
        lmo_cli_message(cli, "a filter is too long");
        return LMO_EXIT_USAGE;
    }
    for (;;) {
        struct lmo_err err = {0};
        struct lmo_cli_reply reply = {0};
        LMO_AUTO_JSON json_t *nothing = NULL;
        snprintf(header, sizeof header, "Last-Event-ID: %s", r.last);
        const struct lmo_cli_call call = {.method = "GET",
                                          .path = path,
                                          .timeout_ms = SILENCE_MS,
                                          .on_data = on_data,
                                          .data_arg = &r,
                                          .header = r.last[0] ? header : NULL};
        lmo_buf_reset(&r.text);
        r.cut = false;
        int rc = lmo_api_request(cli, &call, &reply, &err);
        if (rc == 0 && reply.status != 200)
            rc = lmo_api_accept(cli, &reply, &nothing);
        else if (rc < 0 && !r.broken && !(follow && r.last[0]))
            rc = lmo_api_unreached(cli, &err);
        else if (rc < 0 && r.broken)
            lmo_cli_message(cli, "what came is not a stream of events");
        free(reply.body);
        if (r.broken || rc > 0 || (rc == 0 && !follow)) {
            lmo_buf_done(&r.text);
            return r.broken ? LMO_EXIT_PROTOCOL : rc;
        }
        if (rc < 0)
            lmo_cli_message(cli, "%.200s; coming back after event %.20s", err.text, r.last);
        struct timespec pause = {PAUSE_MS / 1000, PAUSE_MS % 1000 * 1000000L};
        (void)nanosleep(&pause, NULL);
    }
}
