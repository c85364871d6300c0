/* words.c - see words.h. */
#include "cli/words.h"
#include "base/json.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/contexts.h"

#include <stdlib.h>
#include <string.h>

#define PHASES                                                                                                         \
    "queued precheck destination_create volume_attach network_preload dual_ingress precopy cutover finalize rollback " \
    "completed aborted attention abandoned"
#define ANSWER_MAX (16u << 20)

/* What a placeholder in a row of commands.c stands for; `group` is the command's first word, NULL: any. */
static const struct {
    const char *group, *placeholder;
    enum lmo_word word;
    const char *words;
} arguments[] = {
    {NULL, "HOST", LMO_WORD_HOST, NULL},
    {NULL, "VM", LMO_WORD_VM, NULL},
    {NULL, "MIGRATION", LMO_WORD_MIGRATION, NULL},
    {NULL, "DRAIN", LMO_WORD_DRAIN, NULL},
    {"migration", "ID", LMO_WORD_MIGRATION, NULL},
    {"drain", "ID", LMO_WORD_DRAIN, NULL},
    {"watch", "WHAT", LMO_WORD_MIGRATION, "migrations hosts"},
    {NULL, "CONTEXT", LMO_WORD_CONTEXT, NULL},
    {NULL, "COMMAND", LMO_WORD_COMMAND, NULL},
    {NULL, "OBJECT", LMO_WORD_OBJECT, NULL},
    {NULL, "DIR", LMO_WORD_DIR, NULL},
    {NULL, "FILE", LMO_WORD_FILE, NULL},
    {NULL, "DECISION", LMO_WORD_FIXED, "guest-at-source guest-at-destination retry abandon"},
    {NULL, "SHELL", LMO_WORD_FIXED, "bash zsh"},
};

/* The same for options, by long name; what is not here goes by the argument's own name. */
static const struct {
    const char *option, *words;
} choices[] = {
    {"phase", PHASES},
    {"on-timeout", "abort force"},
    {"prediction", "warn off queue refuse"},
    {"role", "coordinator worker operator control-plane viewer fault-injector"},
    {"sort", "age progress eta rate name"},
};

static enum lmo_word word_of(const char *group, const char *placeholder, size_t len, const char **ret_words)
{
    for (size_t i = 0; i < sizeof arguments / sizeof arguments[0]; i++) {
        if (strlen(arguments[i].placeholder) != len || strncmp(arguments[i].placeholder, placeholder, len) != 0)
            continue;
        if (arguments[i].group && (!group || strcmp(arguments[i].group, group) != 0))
            continue;
        *ret_words = arguments[i].words;
        return arguments[i].word;
    }
    return LMO_WORD_ANY;
}

enum lmo_word lmo_word_of_argument(const struct lmo_cli_command *command, unsigned index, const char **ret_words)
{
    char group[32];
    snprintf(group, sizeof group, "%.*s", (int)strcspn(command->name, " "), command->name);
    const char *s = command->arguments;
    *ret_words = NULL;
    for (unsigned i = 0; *s; i++) {
        s += strspn(s, "[ ");
        size_t len = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), whole = strcspn(s, " ");
        bool repeated = whole >= 3 && memmem(s, whole, "...", 3) != NULL;
        if (i == index || repeated)
            return word_of(group, s, len, ret_words);
        s += whole;
    }
    return LMO_WORD_ANY;
}

enum lmo_word lmo_word_of_option(enum lmo_option option, const char **ret_words)
{
    const struct lmo_option_row *row = &lmo_option_rows[option];
    *ret_words = NULL;
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        if (strcmp(choices[i].option, row->long_name) == 0) {
            *ret_words = choices[i].words;
            return LMO_WORD_FIXED;
        }
    }
    if (option == LMO_OPT_CONTEXT)
        return LMO_WORD_CONTEXT;
    if (option == LMO_OPT_MIGRATION)
        return LMO_WORD_MIGRATION;
    return row->argument ? word_of(NULL, row->argument, strlen(row->argument), ret_words) : LMO_WORD_ANY;
}

static const struct {
    enum lmo_word word;
    const char *path, *array, *name, *about;
} lists[] = {
    {LMO_WORD_HOST, "/v1/hosts", "hosts", "name", "state"},
    {LMO_WORD_VM, "/v1/vms", "vms", "name", "host"},
    {LMO_WORD_MIGRATION, "/v1/migrations?limit=200", "migrations", "id", "phase"},
    {LMO_WORD_DRAIN, "/v1/drains?limit=200", "drains", "id", "state"},
};

static int list_contexts(struct lmo_cli *cli, lmo_word_fn *fn, void *arg)
{
    struct lmo_contexts c;
    struct lmo_err err = {0};
    int rc = lmo_contexts_load(cli, &c, &err);
    if (rc < 0)
        return rc;
    const char *name;
    for (size_t i = 0; (name = lmo_contexts_at(&c, i)); i++)
        fn(arg, name, lmo_contexts_get(&c, name, LMO_CONTEXT_URL));
    lmo_contexts_release(&c);
    return 0;
}

int lmo_words_list(struct lmo_cli *cli, enum lmo_word kind, uint64_t timeout_ms, lmo_word_fn *fn, void *arg)
{
    if (kind == LMO_WORD_CONTEXT)
        return list_contexts(cli, fn, arg);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        if (lists[i].word != kind)
            continue;
        struct lmo_cli_call call = {.method = "GET", .path = lists[i].path, .timeout_ms = timeout_ms};
        struct lmo_cli_reply reply = {0};
        struct lmo_err err = {0};
        LMO_AUTO_JSON json_t *answer = NULL;
        int rc = lmo_api_request(cli, &call, &reply, &err);
        if (rc == 0 && reply.status != 200)
            rc = LMO_E_UNAVAILABLE;
        if (rc == 0)
            rc = lmo_json_parse_object(reply.body, reply.body_len, ANSWER_MAX, &answer, &err);
        free(reply.body);
        size_t n = 0;
        const json_t *item;
        json_array_foreach(json_object_get(answer, lists[i].array), n, item)
        {
            if (*lmo_api_text(item, lists[i].name))
                fn(arg, lmo_api_text(item, lists[i].name), lmo_api_text(item, lists[i].about));
        }
        return rc;
    }
    return 0;
}
