/* cmd_context.c - `lmo context ...`: which coordinators this user knows, and which is meant when none is named. Local. */
#include "base/cleanup.h"
#include "base/id.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/plain.h"
#include "cli/settings.h"
#include "cli/suggest.h"

#include <string.h>

static void release(struct lmo_contexts *c) /* for LMO_CLEANUP */
{
    lmo_contexts_release(c);
}

static int load(struct lmo_cli *cli, struct lmo_contexts *ret)
{
    struct lmo_err err = {0};
    if (lmo_contexts_load(cli, ret, &err) == 0)
        return 0;
    lmo_cli_message(cli, "%s", err.text);
    return LMO_EXIT_USAGE;
}

static int no_such(struct lmo_cli *cli, const struct lmo_contexts *c, const char *name)
{
    struct lmo_suggest near = {.word = name};
    char text[LMO_SUGGEST_TEXT_MAX];
    const char *other;
    for (size_t i = 0; (other = lmo_contexts_at(c, i)); i++)
        lmo_suggest_add(&near, other);
    lmo_cli_message(cli, "there is no context \"%.63s\".%s `lmo context list` shows them.", name,
                    lmo_suggest_text(&near, "", text));
    return LMO_EXIT_FAILED;
}

static json_t *context_json(const struct lmo_contexts *c, const char *name, bool current)
{
    json_t *j = json_object();
    int bad = lmo_json_put_str(j, "name", name) | lmo_json_put_bool(j, "current", current);
    for (int m = 0; m < LMO_CONTEXT_MEMBERS; m++) {
        const char *v = lmo_contexts_get(c, name, (enum lmo_context_member)m);
        bad |= *v ? lmo_json_put_str(j, lmo_context_rows[m].key, v)
                  : lmo_json_put(j, lmo_context_rows[m].key, json_null());
    }
    bad |= lmo_json_put_str(j, "file", lmo_contexts_find(c, name) == c->user ? c->user_path : c->system_path);
    if (bad == 0)
        return j;
    json_decref(j);
    return NULL;
}

static void render_list(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"", "NAME", "URL", "CREDENTIAL", "FILE"};
    struct lmo_grid t = {.columns = 5};
    size_t i = 0;
    const json_t *c;
    for (size_t n = 0; n < 5; n++)
        lmo_grid_cell(&t, names[n]);
    json_array_foreach(json_object_get(answer, "contexts"), i, c)
    {
        const char *cert = json_string_value(json_object_get(c, "cert"));
        const char *token = json_string_value(json_object_get(c, "token_file"));
        const char *url = json_string_value(json_object_get(c, "url"));
        lmo_grid_cell(&t, json_is_true(json_object_get(c, "current")) ? "*" : "");
        lmo_grid_cell(&t, json_string_value(json_object_get(c, "name")));
        lmo_grid_cell(&t, url ? url : "-");
        lmo_grid_cell(&t, cert ? cert : token ? token : "-");
        lmo_grid_cell(&t, json_string_value(json_object_get(c, "file")));
    }
    if (t.rows > 1)
        lmo_grid_print(&t, style, out);
    else
        fputs("no contexts; `lmo context set NAME --url URL --ca FILE --cert FILE --key FILE` makes one\n", out);
    lmo_grid_release(&t);
}

int lmo_cmd_context_list(struct lmo_cli *cli)
{
    LMO_CLEANUP(release) struct lmo_contexts c = {0};
    int rc = load(cli, &c);
    if (rc != 0)
        return rc;
    const char *current = lmo_contexts_current(cli, &c), *name;
    LMO_AUTO_JSON json_t *list = json_array();
    for (size_t i = 0; (name = lmo_contexts_at(&c, i)); i++) {
        if (lmo_json_add(list, context_json(&c, name, strcmp(name, current) == 0)) < 0)
            return LMO_EXIT_FAILED;
    }
    LMO_AUTO_JSON json_t *answer = json_pack("{s:O}", "contexts", list);
    return answer ? lmo_cli_show(cli, answer, render_list) : LMO_EXIT_FAILED;
}

static void render_one(const json_t *c, const struct lmo_style *style, FILE *out)
{
    (void)style;
    fprintf(out, "%-12s %s%s\n", "context", json_string_value(json_object_get(c, "name")),
            json_is_true(json_object_get(c, "current")) ? " (current)" : "");
    for (int m = 0; m < LMO_CONTEXT_MEMBERS; m++) {
        const char *v = json_string_value(json_object_get(c, lmo_context_rows[m].key));
        char safe[LMO_PATH_MAX];
        if (v)
            fprintf(out, "%-12s %s\n", lmo_context_rows[m].key, lmo_format_safe(v, safe, sizeof safe));
    }
    fprintf(out, "%-12s %s\n", "file", json_string_value(json_object_get(c, "file")));
}

int lmo_cmd_context_show(struct lmo_cli *cli)
{
    LMO_CLEANUP(release) struct lmo_contexts c = {0};
    int rc = load(cli, &c);
    if (rc != 0)
        return rc;
    const char *current = lmo_contexts_current(cli, &c);
    const char *name = cli->args.count > 0 ? cli->args.positional[0] : current;
    if (*name == '\0') {
        lmo_cli_message(cli, "no context is in force. `lmo context use NAME` chooses one.");
        return LMO_EXIT_FAILED;
    }
    if (!lmo_contexts_find(&c, name))
        return no_such(cli, &c, name);
    LMO_AUTO_JSON json_t *j = context_json(&c, name, strcmp(name, current) == 0);
    return j ? lmo_cli_show(cli, j, render_one) : LMO_EXIT_FAILED;
}

int lmo_cmd_context_use(struct lmo_cli *cli)
{
    LMO_CLEANUP(release) struct lmo_contexts c = {0};
    static const char *const key[] = {"context"};
    const char *name = cli->args.positional[0];
    struct lmo_err err = {0};
    int rc = load(cli, &c);
    if (rc != 0)
        return rc;
    if (!lmo_contexts_find(&c, name))
        return no_such(cli, &c, name);
    if (lmo_contexts_edit(&c, "lmo", key, &name, 1, &err) < 0)
        return lmo_cli_failed(cli, &err);
    lmo_cli_message(cli, "from now on, %s is meant where no context is named", name);
    return 0;
}

/* A path as it will be understood from everywhere. */
static int absolute(const char *path, char ret[LMO_PATH_MAX], struct lmo_err *err)
{
    char cwd[LMO_PATH_MAX] = "";
    if (*path != '/' && !getcwd(cwd, sizeof cwd))
        return lmo_fail(err, LMO_E_INVALID, "the working directory has no path");
    int n = snprintf(ret, LMO_PATH_MAX, "%s%s%s", cwd, *cwd ? "/" : "", path);
    return n > 0 && n < LMO_PATH_MAX ? 0 : lmo_fail(err, LMO_E_INVALID, "%.60s...: the path is too long", path);
}

int lmo_cmd_context_set(struct lmo_cli *cli)
{
    LMO_CLEANUP(release) struct lmo_contexts c = {0};
    const char *name = cli->args.positional[0], *names[LMO_CONTEXT_MEMBERS], *values[LMO_CONTEXT_MEMBERS];
    const char *given[LMO_CONTEXT_MEMBERS] = {0};
    char paths[LMO_CONTEXT_MEMBERS][LMO_PATH_MAX], section[128];
    struct lmo_err err = {0};
    size_t count = 0;
    int rc = load(cli, &c);
    if (rc != 0)
        return rc;
    if (!lmo_name_valid(name)) {
        lmo_cli_message(cli, "a context's name is made of letters, digits, '.', '_' and '-', at most 63");
        return LMO_EXIT_USAGE;
    }
    for (int m = 0; m < LMO_CONTEXT_MEMBERS; m++) {
        const char *v = cli->args.text[lmo_context_rows[m].option];
        if (!v)
            continue;
        if (m == LMO_CONTEXT_URL && strncmp(v, "https://", 8) != 0)
            rc = lmo_fail(&err, LMO_E_INVALID, "--url: must be https://HOST:PORT, not \"%.100s\"", v);
        else if (m != LMO_CONTEXT_URL)
            rc = absolute(v, paths[m], &err);
        if (rc == 0 && (m == LMO_CONTEXT_KEY || m == LMO_CONTEXT_TOKEN_FILE))
            rc = lmo_settings_check_private(paths[m], &err);
        if (rc < 0) {
            lmo_cli_message(cli, "%s", err.text);
            return LMO_EXIT_USAGE;
        }
        given[m] = m == LMO_CONTEXT_URL ? v : paths[m];
        names[count] = lmo_context_rows[m].key;
        values[count++] = given[m];
    }
    if (count == 0) {
        lmo_cli_message(cli, "nothing to set: give --url, --ca, --crl, --cert, --key or --token-file");
        return LMO_EXIT_USAGE;
    }
    /* Who turns from one kind of credential to the other means it. */
    bool token = given[LMO_CONTEXT_TOKEN_FILE] != NULL, cert = given[LMO_CONTEXT_CERT] || given[LMO_CONTEXT_KEY];
    if (token && cert) {
        lmo_cli_message(cli, "--token-file and --cert or --key: give one kind of credential");
        return LMO_EXIT_USAGE;
    }
    unsigned drop = token ? 1u << LMO_CONTEXT_CERT | 1u << LMO_CONTEXT_KEY : cert ? 1u << LMO_CONTEXT_TOKEN_FILE : 0;
    bool copied = lmo_contexts_find(&c, name) == c.system; /* the user's own one will hide it whole */
    for (int m = 0; m < LMO_CONTEXT_MEMBERS; m++) {
        const char *v = lmo_contexts_get(&c, name, (enum lmo_context_member)m);
        bool dropped = drop >> m & 1;
        if (given[m] || (!dropped && !(copied && *v)))
            continue;
        names[count] = lmo_context_rows[m].key;
        values[count++] = dropped ? NULL : v;
    }
    snprintf(section, sizeof section, "context %s", name);
    if (lmo_contexts_edit(&c, section, names, values, count, &err) < 0)
        return lmo_cli_failed(cli, &err);
    lmo_cli_message(cli, "kept in %s; `lmo context use %s` makes it the one that is meant", c.user_path, name);
    return 0;
}

int lmo_cmd_context_remove(struct lmo_cli *cli)
{
    LMO_CLEANUP(release) struct lmo_contexts c = {0};
    const char *name = cli->args.positional[0];
    struct lmo_err err = {0};
    int rc = load(cli, &c);
    if (rc != 0)
        return rc;
    const struct lmo_conf *file = lmo_contexts_find(&c, name);
    if (!file)
        return no_such(cli, &c, name);
    if (file != c.user) {
        lmo_cli_message(cli, "%s is in %s, which is not this user's to change", name, c.system_path);
        return LMO_EXIT_FAILED;
    }
    if (lmo_contexts_remove(&c, name, &err) < 0)
        return lmo_cli_failed(cli, &err);
    lmo_cli_message(cli, "forgot %s; the files that it named are left alone", name);
    return 0;
}
