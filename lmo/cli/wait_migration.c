/* wait_migration.c - what is shown while a migration is waited for, and how it ends; see wait.h. */
#include "cli/wait.h"
#include "cli/api.h"
#include "cli/render.h"

#include <string.h>

/* One line per phase that has begun since the last look: "+   0.024 s  precheck". */
static void show_phase(struct lmo_wait *w, const json_t *record, const json_t *phase)
{
    const struct lmo_style *s = &w->cli->err_style;
    char name[64];
    uint64_t from = lmo_api_u64(record, "created_ms"), at = lmo_api_u64(phase, "started_ms");
    enum lmo_color c = lmo_render_phase_color(lmo_api_text(phase, "name"));
    fprintf(w->cli->err, "+%8.3f s  %s%s%s\n", at > from ? (double)(at - from) / 1e3 : 0.0, lmo_color_on(s, c),
            lmo_format_safe(lmo_api_text(phase, "name"), name, sizeof name), lmo_color_off(s, c));
}

/* The same on a terminal, with how long it took once it is over. */
static void show_phase_live(struct lmo_wait *w, const json_t *phase)
{
    const struct lmo_style *s = &w->cli->err_style;
    char name[64], took[LMO_FORMAT_MAX];
    enum lmo_color c = lmo_render_phase_color(lmo_api_text(phase, "name"));
    lmo_format_safe(lmo_api_text(phase, "name"), name, sizeof name);
    fprintf(w->cli->err, "\r\033[K%s%-18s%s %s\n", lmo_color_on(s, c), name, lmo_color_off(s, c),
            lmo_render_ms(phase, "ms", took));
    w->live_phase[0] = '\0';
}

static void warn_once(struct lmo_wait *w, const json_t *record)
{
    const json_t *prediction = json_object_get(json_object_get(record, "convergence"), "prediction");
    const char *outlook = lmo_api_text(prediction, "outlook");
    if (w->warned || (strcmp(outlook, "never") != 0 && strcmp(outlook, "too_slow") != 0))
        return;
    w->warned = true;
    if (w->cli->err_style.tty)
        fputs("\r\033[K", w->cli->err);
    lmo_cli_message(w->cli, "predicted: %s", lmo_api_text(prediction, "text"));
}

static void show(struct lmo_wait *w, const json_t *record)
{
    const json_t *phases = json_object_get(record, "phases");
    size_t count = json_array_size(phases);
    bool live = w->cli->err_style.tty, over = lmo_wait_outcome(record) >= 0;
    for (; w->shown < count; w->shown++) {
        const json_t *p = json_array_get(phases, w->shown);
        if (live && lmo_api_u64(p, "ended_ms") == 0)
            break; /* its line is not finished yet */
        if (live)
            show_phase_live(w, p);
        else
            show_phase(w, record, p);
    }
    warn_once(w, record);
    const char *why = lmo_api_text(record, "waiting_for");
    if (!live && strncmp(why, w->said, sizeof w->said - 1) != 0) {
        snprintf(w->said, sizeof w->said, "%s", why);
        if (*why)
            lmo_cli_message(w->cli, "%s, waiting: %s", lmo_api_text(record, "phase"), why);
    }
    if (live && !over) {
        char line[LMO_RENDER_LINE_MAX];
        lmo_render_progress(record, line);
        unsigned width = w->cli->err_style.width;
        if (width > 1 && strlen(line) >= width)
            line[width - 1] = '\0'; /* a wrapped line cannot be redrawn */
        fprintf(w->cli->err, "\r\033[K%s", line);
        snprintf(w->live_phase, sizeof w->live_phase, "%s", lmo_api_text(record, "phase"));
    } else if (live) {
        fputs("\r\033[K", w->cli->err);
        w->live_phase[0] = '\0';
    }
    fflush(w->cli->err);
}

int lmo_wait_outcome(const json_t *migration)
{
    const char *o = lmo_api_text(migration, "outcome");
    if (strcmp(o, "completed") == 0)
        return LMO_EXIT_OK;
    if (strcmp(o, "aborted") == 0)
        return LMO_EXIT_ABORTED;
    if (strcmp(o, "attention") == 0 || strcmp(o, "abandoned") == 0)
        return LMO_EXIT_ATTENTION;
    return -1;
}

/* Has it been in that phase, or did it end there? */
static bool has_been(const json_t *record, const char *phase)
{
    size_t i = 0;
    const json_t *p;
    if (strcmp(lmo_api_text(record, "phase"), phase) == 0 || strcmp(lmo_api_text(record, "outcome"), phase) == 0)
        return true;
    json_array_foreach(json_object_get(record, "phases"), i, p)
    {
        if (strcmp(lmo_api_text(p, "name"), phase) == 0)
            return true;
    }
    return false;
}

static int outcome(const struct lmo_wait *w, const json_t *record)
{
    int ended = lmo_wait_outcome(record);
    if (!w->wanted)
        return ended;
    if (has_been(record, w->wanted))
        return LMO_EXIT_OK;
    return ended == LMO_EXIT_OK ? LMO_EXIT_FAILED : ended; /* it will not come any more */
}

static void state(const struct lmo_wait *w, const json_t *record, char *buf, size_t size)
{
    (void)w;
    snprintf(buf, size, "in phase %s", lmo_api_text(record, "phase"));
}

const struct lmo_wait_spec lmo_wait_migration = {.noun = "migration",
                                                 .goes_on = "the migration goes on",
                                                 .collection = "/v1/migrations/",
                                                 .member = "phase",
                                                 .versioned = true,
                                                 .outcome = outcome,
                                                 .show = show,
                                                 .state = state};

int lmo_wait_run(struct lmo_cli *cli, const char *id, const json_t *first, uint64_t timeout_ms, json_t **ret_record)
{
    char later[256];
    snprintf(later, sizeof later, "`lmo migration wait %.60s` or `lmo migration cancel %.60s`", id, id);
    struct lmo_wait w = {.cli = cli, .spec = &lmo_wait_migration, .id = id, .later = later};
    return lmo_wait_for(&w, first, timeout_ms, ret_record);
}
