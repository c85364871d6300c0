/* cmd_wait.c - `lmo wait KIND/NAME`. */
#include "base/cleanup.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/objects.h"
#include "cli/plain.h"
#include "cli/render.h"
#include "cli/suggest.h"

#include <string.h>

static int no_such_kind(struct lmo_cli *cli, const char *object)
{
    char kinds[160] = "", word[64], near_text[LMO_SUGGEST_TEXT_MAX];
    size_t used = 0;
    snprintf(word, sizeof word, "%.*s", (int)strcspn(object, "/"), object);
    struct lmo_suggest near = {.word = word};
    for (size_t i = 0; i < lmo_object_row_count && used < sizeof kinds; i++) {
        lmo_suggest_add(&near, lmo_object_rows[i].kind);
        used += (size_t)snprintf(kinds + used, sizeof kinds - used, "%s%s/NAME", i > 0 ? ", " : "",
                                 lmo_object_rows[i].kind);
    }
    lmo_cli_message(cli, "wait: \"%.80s\" is not one of %s.%s", object, kinds, lmo_suggest_text(&near, "", near_text));
    return LMO_EXIT_USAGE;
}

/* --for, checked; *ret_wanted NULL: the end of a migration. */
static int wanted_state(struct lmo_cli *cli, const struct lmo_object_row *row, char ret_first[64],
                        const char **ret_wanted)
{
    const char *given = cli->args.text[LMO_OPT_FOR], *rest = row->states;
    char text[LMO_SUGGEST_TEXT_MAX];
    snprintf(ret_first, 64, "%.*s", (int)strcspn(rest, " "), rest);
    bool known = !given;
    struct lmo_suggest near = {.word = given ? given : ""};
    while (*rest && !known) {
        char state[64];
        size_t len = strcspn(rest, " ");
        snprintf(state, sizeof state, "%.*s", (int)len, rest);
        lmo_suggest_add(&near, state);
        known = strcmp(state, given) == 0;
        rest += len + (rest[len] == ' ');
    }
    if (!known) {
        lmo_cli_message(cli, "wait: --for=%.40s: a %s can be waited for to be one of: %s.%s", given, row->kind,
                        row->states, lmo_suggest_text(&near, "", text));
        return LMO_EXIT_USAGE;
    }
    const char *wanted = given ? given : ret_first;
    *ret_wanted = strcmp(wanted, "ended") == 0 ? NULL : wanted;
    return 0;
}

static void render(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    char object[160], state[160];
    (void)style;
    fprintf(out, "%s %s\n", lmo_format_safe(lmo_api_text(answer, "object"), object, sizeof object),
            lmo_format_safe(lmo_api_text(answer, "state"), state, sizeof state));
}

int lmo_cmd_wait(struct lmo_cli *cli)
{
    const char *object = cli->args.positional[0], *name = NULL, *wanted = NULL;
    char first[64], later[320], state[160];
    const struct lmo_object_row *row = lmo_object_find(object, &name);
    if (!row || *name == '\0')
        return no_such_kind(cli, object);
    int rc = wanted_state(cli, row, first, &wanted);
    if (rc != 0)
        return rc;
    snprintf(later, sizeof later, "`lmo wait %.120s%s%.60s` goes on waiting", object,
             cli->args.text[LMO_OPT_FOR] ? " --for " : "",
             cli->args.text[LMO_OPT_FOR] ? cli->args.text[LMO_OPT_FOR] : "");
    struct lmo_wait w = {.cli = cli, .spec = row->wait, .id = name, .later = later, .wanted = wanted};
    LMO_AUTO_JSON json_t *record = NULL;
    rc = lmo_wait_for(&w, NULL, cli->args.number[LMO_OPT_TIMEOUT], &record);
    lmo_wait_end_line(&w);
    if (!record)
        return rc;
    row->wait->state(&w, record, state, sizeof state);
    LMO_AUTO_JSON json_t *answer =
        json_pack("{s:s, s:s, s:b, s:O}", "object", object, "state", rc == LMO_EXIT_OK && wanted ? wanted : state,
                  "reached", rc == LMO_EXIT_OK, "record", record);
    int printed = answer ? lmo_cli_show(cli, answer, render) : LMO_EXIT_FAILED;
    return rc == 0 ? printed : rc;
}
