/* top_view.c - see top_view.h. */
#include "cli/top_view.h"
#include "cli/api.h"
#include "cli/render.h"
#include "cli/render_text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LINE_MAX_BYTES (LMO_GRID_COLUMNS_MAX * (LMO_CELL_MAX * 2 + 2))
#define UNLIMITED      SIZE_MAX

static const char *const sort_names[] = {
#define X(name, text) [LMO_TOP_BY_##name] = (text),
    LMO_TOP_SORTS(X)
#undef X
};

const char *lmo_top_sort_name(enum lmo_top_sort sort)
{
    return sort < LMO_TOP_SORT_COUNT ? sort_names[sort] : "";
}

enum lmo_top_sort lmo_top_sort_from_name(const char *name)
{
    int i = 0;
    while (i < LMO_TOP_SORT_COUNT && strcmp(sort_names[i], name) != 0)
        i++;
    return (enum lmo_top_sort)i;
}

void lmo_top_model_release(struct lmo_top_model *m)
{
    json_decref(m->hosts);
    json_decref(m->migrations);
    json_decref(m->drains);
    *m = (struct lmo_top_model){0};
}

/* Where lines go: how many are left, and how wide they may be. */
struct canvas {
    lmo_top_line_fn *fn;
    void *arg;
    size_t left; /* UNLIMITED: any */
    unsigned width;
};

static void put(struct canvas *c, enum lmo_color color, const char *text)
{
    char line[LINE_MAX_BYTES];
    if (c->left == 0)
        return;
    if (c->left != UNLIMITED)
        c->left--;
    c->fn(c->arg, color, c->width > 0 ? lmo_format_fit(text, c->width, line, sizeof line) : text);
}

/* ------------------------------------------------------------------ what is shown */

static bool matches(const struct lmo_top_view *v, const json_t *object, const char *const *members)
{
    if (!v->filter[0])
        return true;
    for (; *members; members++) {
        const char *text = strcmp(*members, "vm") == 0 ? lmo_api_text(json_object_get(object, "vm"), "name")
                                                       : lmo_api_text(object, *members);
        if (strcasestr(text, v->filter))
            return true;
    }
    return false;
}

/* Closed records do not move; attention is open, and what a person must see first. */
static bool is_open(const json_t *m)
{
    const char *outcome = lmo_api_text(m, "outcome");
    return *outcome == '\0' || strcmp(outcome, "attention") == 0;
}

static bool needs_person(const json_t *m)
{
    return strcmp(lmo_api_text(m, "outcome"), "attention") == 0;
}

/* qsort has no argument of its own; the order is the process's for the moment of one sort. */
static enum lmo_top_sort sort_order;

static int by_number(double a, double b)
{
    return a < b ? -1 : a > b;
}

static int compare_migrations(const void *left, const void *right)
{
    const json_t *a = *(json_t *const *)left, *b = *(json_t *const *)right;
    const json_t *pa = json_object_get(a, "progress"), *pb = json_object_get(b, "progress");
    int c = (int)needs_person(b) - (int)needs_person(a);
    double ea = lmo_api_has(pa, "eta_max_ms") ? lmo_api_number(pa, "eta_max_ms") : 1e18;
    double eb = lmo_api_has(pb, "eta_max_ms") ? lmo_api_number(pb, "eta_max_ms") : 1e18;
    if (c == 0) {
        switch (sort_order) {
        case LMO_TOP_BY_PROGRESS: c = by_number(lmo_api_number(pb, "percent"), lmo_api_number(pa, "percent")); break;
        case LMO_TOP_BY_ETA: c = by_number(ea, eb); break;
        case LMO_TOP_BY_RATE:
            c = by_number(lmo_api_number(pb, "rate_bytes_per_s"), lmo_api_number(pa, "rate_bytes_per_s"));
            break;
        case LMO_TOP_BY_NAME:
            c = strcmp(lmo_api_text(json_object_get(a, "vm"), "name"), lmo_api_text(json_object_get(b, "vm"), "name"));
            break;
        case LMO_TOP_BY_AGE:
        case LMO_TOP_SORT_COUNT: break;
        }
    }
    return c != 0 ? c : strcmp(lmo_api_text(a, "id"), lmo_api_text(b, "id")); /* ids begin with the time */
}

static int compare_hosts(const void *left, const void *right)
{
    const json_t *a = *(json_t *const *)left, *b = *(json_t *const *)right;
    int c = (strcmp(lmo_api_text(a, "state"), "up") == 0) - (strcmp(lmo_api_text(b, "state"), "up") == 0);
    return c != 0 ? c : strcmp(lmo_api_text(a, "name"), lmo_api_text(b, "name"));
}

static int compare_drains(const void *left, const void *right)
{
    const json_t *a = *(json_t *const *)left, *b = *(json_t *const *)right;
    return strcmp(lmo_api_text(a, "id"), lmo_api_text(b, "id"));
}

static bool drain_is_open(const json_t *d)
{
    static const char *const ends[] = {"drained", "incomplete", "failed", "cancelled"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (strcmp(lmo_api_text(d, "state"), ends[i]) == 0)
            return false;
    }
    return true;
}

/* Borrowed objects of `answer`'s array that are wanted, sorted; owned array, NULL if there are none. */
static json_t **choose(const json_t *answer, const char *array, const struct lmo_top_view *v,
                       const char *const *members, bool (*wanted)(const json_t *),
                       int (*compare)(const void *, const void *), size_t *ret_count)
{
    const json_t *list = json_object_get(answer, array);
    json_t **chosen = calloc(json_array_size(list) + 1, sizeof *chosen);
    *ret_count = 0;
    for (size_t i = 0; chosen && i < json_array_size(list); i++) {
        json_t *object = json_array_get(list, i);
        if ((!wanted || wanted(object)) && matches(v, object, members))
            chosen[(*ret_count)++] = object;
    }
    sort_order = v->sort;
    if (chosen && *ret_count > 1)
        qsort(chosen, *ret_count, sizeof *chosen, compare);
    return chosen;
}

/* ------------------------------------------------------------------ tables */

/* `above`: rows that were scrolled away, where scrolling is possible, else NULL; `hidden`: rows for which there is no room. */
static void print_grid(struct canvas *c, struct lmo_grid *t, const enum lmo_color *colors, const size_t *above,
                       size_t hidden)
{
    char line[LINE_MAX_BYTES];
    size_t width[LMO_GRID_COLUMNS_MAX];
    lmo_grid_layout(t, c->width, width);
    for (size_t r = 0; r < t->rows && !t->failed; r++)
        put(c, r == 0 ? LMO_BOLD : colors ? colors[r - 1] : LMO_PLAIN, lmo_grid_line(t, width, r, line, sizeof line));
    if (above && *above + hidden > 0)
        snprintf(line, sizeof line, "%zu above, %zu below", *above, hidden);
    else
        snprintf(line, sizeof line, "and %zu more", hidden);
    if ((above ? *above : 0) + hidden > 0)
        put(c, LMO_DIM, line);
    lmo_grid_release(t);
}

static void heading(struct lmo_grid *t, const char *const *names)
{
    for (unsigned i = 0; i < t->columns; i++)
        lmo_grid_cell(t, names[i]);
}

static void used_of(struct lmo_grid *t, const json_t *host, const char *used, const char *most)
{
    char buf[LMO_FORMAT_MAX];
    const json_t *in_use = json_object_get(host, "in_use"), *limits = json_object_get(host, "limits");
    snprintf(buf, sizeof buf, "%" PRIu64 "/%" PRIu64, lmo_api_u64(in_use, used), lmo_api_u64(limits, most));
    lmo_grid_cell(t, lmo_api_has(in_use, used) && lmo_api_has(limits, most) ? buf : "-");
}

/* How many rows of `count` are shown where `room` lines are free, heading excluded; with a line that tells of the others. */
static size_t shown_of(size_t count, size_t room)
{
    return count <= room ? count : room > 1 ? room - 1 : 0;
}

static void hosts_table(struct canvas *c, json_t *const *hosts, size_t count, size_t room)
{
    static const char *const names[] = {"HOST", "STATE", "IN", "OUT", "USED BY MIGRATIONS", "FREE", "REMARK"};
    struct lmo_grid t = {.columns = 7, .right = 0x3c};
    size_t shown = shown_of(count, room);
    char buf[LMO_FORMAT_MAX], state[64];
    if (count == 0)
        return;
    enum lmo_color *colors = calloc(shown + 1, sizeof *colors);
    heading(&t, names);
    for (size_t i = 0; i < shown; i++) {
        const json_t *h = hosts[i], *in_use = json_object_get(h, "in_use"), *can = json_object_get(h, "capabilities");
        bool up = strcmp(lmo_api_text(h, "state"), "up") == 0, cordoned = json_is_true(json_object_get(h, "cordoned"));
        const char *drain = lmo_api_text(h, "drain_state");
        snprintf(state, sizeof state, "%.24s%s%.24s", lmo_api_text(h, "state"),
                 *drain     ? ", "
                 : cordoned ? ", cordoned"
                            : "",
                 drain);
        lmo_grid_cell(&t, lmo_api_text(h, "name"));
        lmo_grid_cell(&t, state);
        used_of(&t, h, "incoming", "max_incoming");
        used_of(&t, h, "outgoing", "max_outgoing");
        lmo_grid_cell(&t, lmo_api_has(in_use, "bandwidth_bytes_per_s")
                              ? lmo_format_rate(lmo_api_u64(in_use, "bandwidth_bytes_per_s"), buf)
                              : "-");
        lmo_grid_cell(&t, lmo_api_has(can, "memory_free_bytes")
                              ? lmo_format_bytes(lmo_api_u64(can, "memory_free_bytes"), buf)
                              : "-");
        lmo_grid_cell(&t, up ? "" : lmo_api_text(h, "last_error"));
        if (colors)
            colors[i] = !up ? LMO_RED : cordoned || *drain ? LMO_YELLOW : LMO_PLAIN;
    }
    print_grid(c, &t, colors, NULL, count - shown);
    free(colors);
    put(c, LMO_PLAIN, "");
}

static void drains_table(struct canvas *c, json_t *const *drains, size_t count, size_t room)
{
    static const char *const names[] = {"DRAIN", "STATE", "DONE", "WAITING FOR"};
    struct lmo_grid t = {.columns = 4, .right = 0x4};
    size_t shown = shown_of(count, room);
    char buf[LMO_FORMAT_MAX];
    if (count == 0)
        return;
    heading(&t, names);
    for (size_t i = 0; i < shown; i++) {
        const json_t *d = drains[i];
        const json_t *progress = lmo_api_has(d, "percent") ? d : json_object_get(d, "progress");
        snprintf(buf, sizeof buf, "%.0f %%", lmo_api_number(progress, "percent"));
        lmo_grid_cell(&t, lmo_api_text(d, "id"));
        lmo_grid_cell(&t, lmo_api_text(d, "state"));
        lmo_grid_cell(&t, lmo_api_has(progress, "percent") ? buf : "-");
        lmo_grid_cell(&t, lmo_api_text(d, "waiting_for"));
    }
    print_grid(c, &t, NULL, NULL, count - shown);
    put(c, LMO_PLAIN, "");
}

static void migration_row(struct lmo_grid *t, const json_t *m, uint64_t now_ms)
{
    char buf[LMO_FORMAT_MAX], eta[LMO_FORMAT_MAX];
    const json_t *vm = json_object_get(m, "vm"), *p = json_object_get(m, "progress");
    bool streams = strcmp(lmo_api_text(m, "phase"), "precopy") == 0 && lmo_api_u64(p, "total_bytes") > 0;
    uint64_t from = lmo_api_u64(m, "created_ms"), high = lmo_api_u64(p, "eta_max_ms");
    lmo_grid_cell(t, *lmo_api_text(vm, "name") ? lmo_api_text(vm, "name") : lmo_api_text(vm, "uuid"));
    lmo_grid_cell(t, *lmo_api_text(m, "source") ? lmo_api_text(m, "source") : "?");
    lmo_grid_cell(t, lmo_api_text(m, "destination"));
    lmo_grid_cell(t, lmo_render_state(m));
    snprintf(buf, sizeof buf, "%.0f %%", lmo_api_number(p, "percent"));
    lmo_grid_cell(t, lmo_api_has(p, "percent") ? buf : "-");
    lmo_grid_cell(t, streams ? lmo_format_rate(lmo_api_u64(p, "rate_bytes_per_s"), buf) : "-");
    lmo_grid_cell(t, streams ? lmo_format_bytes(lmo_api_u64(p, "remaining_bytes"), buf) : "-");
    bool never = strcmp(lmo_api_text(p, "eta_kind"), "not_converging") == 0;
    lmo_grid_cell(t, !streams                       ? "-"
                     : never                        ? "not converging"
                     : lmo_api_has(p, "eta_max_ms") ? lmo_format_ms(high, eta)
                                                    : "-");
    uint64_t age_s = now_ms > from && from > 0 ? (now_ms - from) / 1000 : 0;
    snprintf(eta, sizeof eta, "%" PRIu64 " s", age_s);
    lmo_grid_cell(t, age_s < 60 ? eta : lmo_format_ms(age_s * 1000, buf));
    lmo_grid_cell(t, lmo_api_text(m, needs_person(m) ? "reason" : "waiting_for"));
}

static void migrations_table(struct canvas *c, json_t *const *list, size_t count, struct lmo_top_view *v)
{
    static const char *const names[] = {"GUEST", "FROM", "TO",  "PHASE", "DONE",
                                        "RATE",  "LEFT", "ETA", "AGE",   "WAITING FOR"};
    struct lmo_grid t = {.columns = 10, .right = 0x1f0};
    size_t room = c->left == UNLIMITED ? UNLIMITED : c->left > 1 ? c->left - 1 : 0, shown = count <= room ? count : 0;
    if (count > room)
        shown = room > 1 ? room - 1 : room;
    if (v->offset > count - shown)
        v->offset = count - shown;
    enum lmo_color *colors = calloc(shown + 1, sizeof *colors);
    heading(&t, names);
    for (size_t i = 0; i < shown; i++) {
        const json_t *m = list[v->offset + i];
        migration_row(&t, m, v->now_ms);
        if (colors)
            colors[i] = lmo_render_phase_color(lmo_render_state(m));
    }
    print_grid(c, &t, colors, &v->offset, count - shown - v->offset);
    free(colors);
}

/* ------------------------------------------------------------------ the picture */

static size_t count_where(const json_t *answer, const char *array, const char *member, const char *value)
{
    size_t n = 0, i = 0;
    const json_t *object;
    json_array_foreach(json_object_get(answer, array), i, object)
    {
        n += strcmp(lmo_api_text(object, member), value) == 0;
    }
    return n;
}

static void head(struct canvas *c, const struct lmo_top_model *m, const struct lmo_top_view *v)
{
    char line[LMO_RENDER_LINE_MAX], clock[16] = "--:--:--", rate[LMO_FORMAT_MAX], age[LMO_FORMAT_MAX];
    struct lmo_text t = {.buf = line};
    time_t s = (time_t)(v->now_ms / 1000);
    struct tm tm;
    uint64_t bytes_per_s = 0;
    size_t i = 0, open = 0, moving = 0, people = 0;
    const json_t *object;
    json_array_foreach(json_object_get(m->migrations, "migrations"), i, object)
    {
        bool streams = strcmp(lmo_api_text(object, "phase"), "precopy") == 0;
        open += is_open(object);
        people += needs_person(object);
        moving += streams;
        bytes_per_s += streams ? lmo_api_u64(json_object_get(object, "progress"), "rate_bytes_per_s") : 0;
    }
    if (localtime_r(&s, &tm))
        strftime(clock, sizeof clock, "%H:%M:%S", &tm);
    lmo_text_add(&t, "lmo top  %s  %s%s", v->where, clock, v->paused ? "  paused" : "");
    put(c, LMO_BOLD, line);
    t.used = 0;
    lmo_text_add(&t, "%zu hosts, %zu up; %zu open migrations, %zu queued, %zu sending %s",
                 json_array_size(json_object_get(m->hosts, "hosts")), count_where(m->hosts, "hosts", "state", "up"),
                 open, count_where(m->migrations, "migrations", "phase", "queued"), moving,
                 lmo_format_rate(bytes_per_s, rate));
    if (people > 0)
        lmo_text_add(&t, "; %zu need a person", people);
    put(c, people > 0 ? LMO_RED : LMO_PLAIN, m->at_ms > 0 ? line : "nothing heard yet");
    if (m->problem[0]) {
        t.used = 0;
        uint64_t old = m->at_ms > 0 && v->now_ms > m->at_ms ? v->now_ms - m->at_ms : 0;
        if (m->at_ms > 0)
            lmo_text_add(&t, "what is shown is %s old: ", lmo_format_ms(old < 1000 ? 1000 : old / 1000 * 1000, age));
        lmo_text_add(&t, "%s", m->problem);
        put(c, LMO_RED, line);
    }
    put(c, LMO_PLAIN, "");
}

static void foot(struct canvas *c, const struct lmo_top_view *v)
{
    char line[LMO_RENDER_LINE_MAX], filter[80];
    struct lmo_text t = {.buf = line};
    lmo_format_safe(v->filter, filter, sizeof filter);
    if (v->editing)
        lmo_text_add(&t, "filter: %s_  Enter keeps it, Esc drops it", filter);
    else
        lmo_text_add(&t, "q quit  p %s  s sort: %s  f filter%s%s  arrows scroll", v->paused ? "go on" : "pause",
                     lmo_top_sort_name(v->sort), *filter ? ": " : "", filter);
    put(c, LMO_DIM, line);
}

void lmo_top_draw(const struct lmo_top_model *m, struct lmo_top_view *v, lmo_top_line_fn *fn, void *arg)
{
    static const char *const host_members[] = {"name", "state", NULL}, *const drain_members[] = {"id", "state", NULL};
    static const char *const migration_members[] = {"vm", "id", "source", "destination", "phase", "outcome", NULL};
    bool footed = v->interactive && v->height > 1;
    struct canvas c = {.fn = fn, .arg = arg, .left = v->height > 0 ? v->height - footed : UNLIMITED, .width = v->width};
    size_t hosts = 0, drains = 0, migrations = 0;
    json_t **host = choose(m->hosts, "hosts", v, host_members, NULL, compare_hosts, &hosts);
    json_t **drain = choose(m->drains, "drains", v, drain_members, drain_is_open, compare_drains, &drains);
    json_t **migration =
        choose(m->migrations, "migrations", v, migration_members, is_open, compare_migrations, &migrations);
    head(&c, m, v);
    /* On a low screen the hosts take a quarter, drains a fifth of it, and migrations the rest. */
    hosts_table(&c, host, hosts, c.left == UNLIMITED ? UNLIMITED : c.left / 4);
    drains_table(&c, drain, drains, c.left == UNLIMITED ? UNLIMITED : c.left / 5);
    if (migrations > 0)
        migrations_table(&c, migration, migrations, v);
    else if (m->at_ms > 0)
        put(&c, LMO_DIM, v->filter[0] ? "no open migration that the filter lets through" : "no open migrations");
    if (footed) {
        while (c.left > 0 && c.left != UNLIMITED)
            put(&c, LMO_PLAIN, "");
        c.left = 1;
        foot(&c, v);
    }
    free(host);
    free(drain);
    free(migration);
}
