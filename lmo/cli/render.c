/* render.c - lists, hosts and guests; see render.h. Migrations are in render_migration.c. */
#include "cli/render.h"
#include "cli/api.h"
#include "cli/render_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

void lmo_text_add(struct lmo_text *t, const char *fmt, ...)
{
    if (t->used >= LMO_RENDER_LINE_MAX - 1)
        return;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->buf + t->used, LMO_RENDER_LINE_MAX - t->used, fmt, ap);
    va_end(ap);
    if (n > 0)
        t->used += (size_t)n;
}

static void heading(struct lmo_grid *t, const char *const *names)
{
    for (unsigned i = 0; i < t->columns; i++)
        lmo_grid_cell(t, names[i]);
}

static void number_cell(struct lmo_grid *t, const json_t *obj, const char *field)
{
    char buf[LMO_FORMAT_MAX];
    snprintf(buf, sizeof buf, "%" PRIu64, lmo_api_u64(obj, field));
    lmo_grid_cell(t, lmo_api_has(obj, field) ? buf : "-");
}

static void text_cell(struct lmo_grid *t, const json_t *obj, const char *field)
{
    const char *s = lmo_api_text(obj, field);
    lmo_grid_cell(t, *s ? s : "-");
}

static void finish(struct lmo_grid *t, const struct lmo_style *style, FILE *out, const char *none)
{
    if (t->rows > 1)
        lmo_grid_print(t, style, out);
    else
        fprintf(out, "%s\n", none);
    lmo_grid_release(t);
}

static void line(FILE *out, const char *name, const char *value)
{
    char safe[LMO_RENDER_LINE_MAX];
    fprintf(out, "%-12s %s\n", name, lmo_format_safe(*value ? value : "-", safe, sizeof safe));
}

/* ------------------------------------------------------------------ hosts */

void lmo_render_hosts(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"NAME", "STATE", "SINCE", "URL", "LAST ERROR"};
    struct lmo_grid t = {.columns = 5};
    char buf[LMO_FORMAT_MAX];
    heading(&t, names);
    size_t i = 0;
    const json_t *h;
    json_array_foreach(json_object_get(answer, "hosts"), i, h)
    {
        text_cell(&t, h, "name");
        text_cell(&t, h, "state");
        lmo_grid_cell(&t, lmo_format_time(lmo_api_u64(h, "since_ms"), buf));
        text_cell(&t, h, "url");
        text_cell(&t, h, "last_error");
    }
    finish(&t, style, out, "no hosts; `lmo host add NAME --url URL` adds one");
}

/* Any JSON below `name`, one line per leaf: capabilities differ from worker to worker. */
static void leaves(const char *name, const json_t *v, unsigned depth, FILE *out)
{
    char path[256], buf[64];
    size_t i = 0;
    const char *key = NULL;
    json_t *child;
    if (json_is_object(v) && depth < 8) {
        json_object_foreach((json_t *)(uintptr_t)v, key, child)
        {
            snprintf(path, sizeof path, "%s%s%s", name, *name ? "." : "", key);
            leaves(path, child, depth + 1, out);
        }
        return;
    }
    char text[LMO_RENDER_LINE_MAX] = "";
    if (json_is_array(v)) {
        size_t used = 0;
        json_array_foreach(v, i, child)
        {
            const char *s = json_string_value(child);
            snprintf(buf, sizeof buf, "%.17g", json_number_value(child));
            if (used < sizeof text) {
                used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", used ? ", " : "",
                                         s                       ? s
                                         : json_is_number(child) ? buf
                                                                 : "...");
            }
        }
    } else if (json_is_string(v)) {
        snprintf(text, sizeof text, "%s", json_string_value(v));
    } else if (json_is_integer(v)) {
        snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    } else if (json_is_real(v)) {
        snprintf(text, sizeof text, "%g", json_real_value(v));
    } else {
        snprintf(text, sizeof text, "%s", json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "-");
    }
    char safe_name[256], safe[LMO_RENDER_LINE_MAX];
    fprintf(out, "  %-24s %s\n", lmo_format_safe(name, safe_name, sizeof safe_name),
            lmo_format_safe(text, safe, sizeof safe));
}

void lmo_render_host(const json_t *host, const struct lmo_style *style, FILE *out)
{
    char buf[LMO_FORMAT_MAX];
    (void)style;
    line(out, "name", lmo_api_text(host, "name"));
    line(out, "state", lmo_api_text(host, "state"));
    line(out, "since", lmo_format_time(lmo_api_u64(host, "since_ms"), buf));
    line(out, "url", lmo_api_text(host, "url"));
    if (*lmo_api_text(host, "last_error"))
        line(out, "last error", lmo_api_text(host, "last_error"));
    const json_t *breaker = json_object_get(host, "breaker");
    if (breaker && strcmp(lmo_api_text(breaker, "state"), "closed") != 0) {
        char text[160];
        snprintf(text, sizeof text, "%s: %" PRIu64 " calls in a row without an answer, %" PRIu64 " held back",
                 lmo_api_text(breaker, "state"), lmo_api_u64(breaker, "failures"), lmo_api_u64(breaker, "held_calls"));
        line(out, "breaker", text);
    }
    const json_t *limits = json_object_get(host, "limits"), *in_use = json_object_get(host, "in_use");
    if (json_object_size(limits) > 0) {
        fputs("limits\n", out);
        leaves("", limits, 0, out);
    }
    if (json_object_size(in_use) > 0) {
        fputs("in use by migrations\n", out);
        leaves("", in_use, 0, out);
    }
    const json_t *capabilities = json_object_get(host, "capabilities");
    if (json_object_size(capabilities) > 0) {
        fputs("capabilities\n", out);
        leaves("", capabilities, 0, out);
    }
}

/* ------------------------------------------------------------------ guests */

void lmo_render_vms(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"NAME",    "HOST",  "STATE",     "MEMORY", "VCPUS",
                                        "VOLUMES", "PORTS", "MIGRATION", "UUID"};
    struct lmo_grid t = {.columns = 9, .right = 0x78};
    char buf[LMO_FORMAT_MAX];
    heading(&t, names);
    size_t i = 0;
    const json_t *v;
    json_array_foreach(json_object_get(answer, "vms"), i, v)
    {
        text_cell(&t, v, "name");
        text_cell(&t, v, "host");
        text_cell(&t, v, "state");
        lmo_grid_cell(&t, lmo_format_bytes(lmo_api_u64(v, "memory_bytes"), buf));
        number_cell(&t, v, "vcpus");
        number_cell(&t, v, "volumes");
        number_cell(&t, v, "ports");
        text_cell(&t, v, "migration");
        text_cell(&t, v, "uuid");
    }
    finish(&t, style, out, "no guests");
}

void lmo_render_vm(const json_t *vm, const struct lmo_style *style, FILE *out)
{
    static const char *const text[] = {"name", "uuid", "host", "state", "machine", "migration", "blocker"};
    char buf[LMO_FORMAT_MAX];
    (void)style;
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        if (*lmo_api_text(vm, text[i]))
            line(out, text[i], lmo_api_text(vm, text[i]));
    }
    line(out, "memory", lmo_format_bytes(lmo_api_u64(vm, "memory_bytes"), buf));
    static const char *const numbers[] = {"vcpus", "volumes", "ports"};
    for (size_t i = 0; i < 3; i++) {
        const json_t *v = json_object_get(vm, numbers[i]);
        if (json_is_array(v)) { /* in detail */
            size_t j = 0;
            const json_t *item;
            json_array_foreach(v, j, item)
            {
                snprintf(buf, sizeof buf, "%s %zu", numbers[i], j + 1);
                fprintf(out, "%s\n", buf);
                leaves("", item, 0, out);
            }
        } else if (json_is_number(v)) {
            snprintf(buf, sizeof buf, "%" PRIu64, lmo_api_u64(vm, numbers[i]));
            line(out, numbers[i], buf);
        }
    }
}
