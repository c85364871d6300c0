/* plain.c - see plain.h. */
#include "cli/plain.h"
#include "cli/commands.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HOST_COLUMNS "name state since_ms url last_error"
#define VM_COLUMNS   "name host state memory_bytes vcpus migration uuid"
#define MIGRATION_COLUMNS                                                                                            \
    "id vm=vm.name vm_uuid=vm.uuid source destination phase outcome percent=progress.percent created_ms updated_ms " \
    "waiting_for reason blackout_ms=cutover.blackout_ms"
#define DRAIN_COLUMNS                                                                                             \
    "id kind state outcome percent host_count guest_count created_ms updated_ms ended_ms waiting_for reason requested_by"

static const struct lmo_plain_row rows[] = {
    {"host list", "hosts", HOST_COLUMNS},
    {"host show", NULL, HOST_COLUMNS},
    {"vm list", "vms", VM_COLUMNS},
    {"vm show", NULL, VM_COLUMNS},
    {"migration list", "migrations", MIGRATION_COLUMNS},
    {"migration show", NULL, MIGRATION_COLUMNS},
    {"migration wait", NULL, MIGRATION_COLUMNS},
    {"drain list", "drains", DRAIN_COLUMNS},
    {"drain show", NULL, DRAIN_COLUMNS},
    {"drain cancel", NULL, DRAIN_COLUMNS},
    {"drain", NULL, DRAIN_COLUMNS},
    {"rebalance", NULL, DRAIN_COLUMNS},
    {"host label", NULL, HOST_COLUMNS},
    {"explain", "hosts", "host possible why_not score text"},
    {"vm policy", NULL, "vm unmovable labels groups"},
    {"vm lease", NULL, "vm holder reason since_ms until_ms"},
    {"audit list", "audit", "n at_ms request principal remote action outcome migration host detail"},
    {"token list", "tokens", "id name role created_ms expires_ms created_by"},
    {"webhook list", "webhooks",
     "id url types vm host enabled behind delivered dropped failures failing_since_ms last_error why_disabled created_ms"},
    {"webhook dead-letters", "dead_letters", "sequence at_ms type attempts redelivering last_error"},
    {"doctor", "findings", "severity kind migration vm host object text evidence"},
    {"pki list", "certificates", "serial role name not_before_ms not_after_ms status"},
    {"context list", "contexts", "name current url ca crl cert key token_file file"},
    {"context show", NULL, "name current url ca crl cert key token_file file"},
    {"wait", NULL, "object state reached"},
};

const struct lmo_plain_row *lmo_plain_find(const char *command)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].command, command) == 0)
            return &rows[i];
    }
    return NULL;
}

/* The next word of `columns`: its name and path. False at the end. */
static bool next_column(const char **columns, char ret_name[64], char ret_path[64])
{
    const char *s = *columns + strspn(*columns, " ");
    size_t len = strcspn(s, " "), name = strcspn(s, "= ");
    if (len == 0)
        return false;
    snprintf(ret_name, 64, "%.*s", (int)name, s);
    snprintf(ret_path, 64, "%.*s", (int)(name < len ? len - name - 1 : len), name < len ? s + name + 1 : s);
    *columns = s + len;
    return true;
}

const char *lmo_plain_names(const struct lmo_plain_row *row, const char *separator, char *buf, size_t size)
{
    const char *rest = row->columns;
    char name[64], path[64];
    size_t used = 0;
    buf[0] = '\0';
    while (used < size && next_column(&rest, name, path))
        used += (size_t)snprintf(buf + used, size - used, "%s%s", used > 0 ? separator : "", name);
    return buf;
}

static const json_t *member(const json_t *object, const char *path)
{
    char key[64];
    for (size_t len; object && *path; path += len + (path[len] == '.')) {
        len = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)len, path);
        object = json_object_get(object, key);
    }
    return object;
}

static bool print_text(const char *text, FILE *out)
{
    size_t size = strlen(text) + 1;
    char *safe = malloc(size);
    if (!safe)
        return false;
    fputs(*text ? lmo_format_safe(text, safe, size) : "-", out);
    free(safe);
    return true;
}

static bool print_value(const json_t *v, FILE *out)
{
    if (json_is_string(v))
        return print_text(json_string_value(v), out);
    if (json_is_integer(v))
        fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v))
        fprintf(out, "%.15g", json_real_value(v));
    else if (json_is_boolean(v))
        fputs(json_is_true(v) ? "true" : "false", out);
    else if (json_is_array(v))
        fprintf(out, "%zu", json_array_size(v)); /* how many there are: a list has no place in a column */
    else
        fputc('-', out);
    return true;
}

static bool print_line(const struct lmo_plain_row *row, const json_t *object, FILE *out)
{
    const char *rest = row->columns;
    char name[64], path[64];
    bool first = true, good = true;
    while (good && next_column(&rest, name, path)) {
        if (!first)
            fputc('\t', out);
        first = false;
        good = print_value(member(object, path), out);
    }
    fputc('\n', out);
    return good;
}

bool lmo_plain_print(const struct lmo_plain_row *row, const json_t *answer, FILE *out)
{
    char names[512];
    size_t i = 0;
    const json_t *object;
    bool good = true;
    fprintf(out, "%s\n", lmo_plain_names(row, "\t", names, sizeof names));
    if (!row->array)
        return print_line(row, answer, out) && !ferror(out);
    json_array_foreach(json_object_get(answer, row->array), i, object)
    {
        good = good && print_line(row, object, out);
    }
    return good && !ferror(out);
}

int lmo_cli_show(struct lmo_cli *cli, const json_t *answer, lmo_render_fn *render)
{
    const struct lmo_plain_row *row = cli->command ? lmo_plain_find(cli->command->name) : NULL;
    if (LMO_GIVEN(&cli->args, JSON))
        return lmo_cli_print_json(cli, answer);
    if (!LMO_GIVEN(&cli->args, PLAIN) || !row) {
        render(answer, &cli->out_style, cli->out);
        return 0;
    }
    if (lmo_plain_print(row, answer, cli->out))
        return 0;
    lmo_cli_message(cli, "cannot write to standard output");
    return LMO_EXIT_FAILED;
}
