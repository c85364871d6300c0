/* watch.c - see watch.h. */
#include "cli/watch.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/render.h"
#include "cli/render_text.h"
#include "cli/wait.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct lmo_watch_seen {
    char object[12], id[64], state[48], detail[200];
    uint64_t round, version; /* version 0: it has none */
};

/* ------------------------------------------------------------------ lines */

void lmo_watch_heading(enum lmo_watch_form form, FILE *out)
{
    if (form == LMO_WATCH_PLAIN)
        fputs("at_ms\tobject\tid\tvm\tsource\tdestination\tstate\tdetail\n", out);
}

static void print_json(const struct lmo_change *c, FILE *out)
{
    json_t *j =
        json_pack("{s:I, s:s, s:s, s:s*, s:s*, s:s*, s:s, s:s*}", "at_ms", (json_int_t)c->at_ms, "object", c->object,
                  "id", c->id, "vm", *c->vm ? c->vm : NULL, "source", *c->source ? c->source : NULL, "destination",
                  *c->destination ? c->destination : NULL, "state", c->state, "detail", *c->detail ? c->detail : NULL);
    if (j && json_dumpf(j, out, JSON_COMPACT) == 0)
        fputc('\n', out);
    json_decref(j);
}

static void print_plain(const struct lmo_change *c, FILE *out)
{
    const char *const cells[] = {c->object, c->id, c->vm, c->source, c->destination, c->state, c->detail};
    fprintf(out, "%" PRIu64, c->at_ms);
    for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++) {
        char safe[512];
        fprintf(out, "\t%s", *cells[i] ? lmo_format_safe(cells[i], safe, sizeof safe) : "-");
    }
    fputc('\n', out);
}

static void print_text(const struct lmo_change *c, const struct lmo_style *style, FILE *out)
{
    char line[LMO_RENDER_LINE_MAX], safe[LMO_RENDER_LINE_MAX], fitted[LMO_RENDER_LINE_MAX], clock[16] = "--:--:--";
    struct lmo_text t = {.buf = line};
    time_t s = (time_t)(c->at_ms / 1000);
    struct tm tm;
    if (c->at_ms > 0 && localtime_r(&s, &tm))
        strftime(clock, sizeof clock, "%H:%M:%S", &tm);
    lmo_text_add(&t, "%s  %s %s", clock, c->object, c->id);
    if (*c->vm)
        lmo_text_add(&t, "  %s", c->vm);
    if (*c->source || *c->destination)
        lmo_text_add(&t, "  %s -> %s", *c->source ? c->source : "?", *c->destination ? c->destination : "?");
    lmo_format_safe(line, safe, sizeof safe);
    size_t used = lmo_format_width(safe);
    enum lmo_color color = lmo_render_phase_color(c->state);
    fputs(safe, out);
    t.used = 0;
    lmo_text_add(&t, "%s%s%s", c->state, *c->detail ? ": " : "", c->detail);
    lmo_format_safe(line, safe, sizeof safe);
    size_t room = style->width > used + 12 ? style->width - used - 2 : style->width > 0 ? 10 : sizeof fitted;
    fprintf(out, "  %s%s%s\n", lmo_color_on(style, color), lmo_format_fit(safe, room, fitted, sizeof fitted),
            lmo_color_off(style, color));
}

void lmo_watch_print(const struct lmo_change *c, enum lmo_watch_form form, const struct lmo_style *style, FILE *out)
{
    switch (form) {
    case LMO_WATCH_JSON: print_json(c, out); break;
    case LMO_WATCH_PLAIN: print_plain(c, out); break;
    case LMO_WATCH_TEXT: print_text(c, style, out); break;
    }
    fflush(out);
}

/* ------------------------------------------------------------------ what is new */

void lmo_watch_release(struct lmo_watch *w)
{
    free(w->seen);
    *w = (struct lmo_watch){0};
}

/* True if it is new or is not what it was. An object that finds no room is a change each time: too much said, nothing lost. */
static bool note(struct lmo_watch *w, const struct lmo_change *c, uint64_t version, bool *ret_known)
{
    struct lmo_watch_seen now = {.round = w->round, .version = version};
    LMO_COPY(now.object, c->object);
    LMO_COPY(now.id, c->id);
    LMO_COPY(now.state, c->state);
    LMO_COPY(now.detail, c->detail);
    *ret_known = false;
    for (size_t i = 0; i < w->count; i++) {
        struct lmo_watch_seen *s = &w->seen[i];
        if (strcmp(s->id, now.id) != 0 || strcmp(s->object, now.object) != 0)
            continue;
        *ret_known = true;
        if (version < s->version || (w->by_version && version > 0 && version == s->version)) {
            s->round = w->round;
            return false; /* older news than what was told */
        }
        bool changed = strcmp(s->state, now.state) != 0 || strcmp(s->detail, now.detail) != 0;
        *s = now;
        return changed;
    }
    if (w->count == w->capacity) {
        size_t room = w->capacity ? w->capacity * 2 : 64;
        struct lmo_watch_seen *more = reallocarray(w->seen, room, sizeof *more);
        if (!more)
            return true;
        w->seen = more;
        w->capacity = room;
    }
    w->seen[w->count++] = now;
    return true;
}

bool lmo_watch_migration(struct lmo_watch *w, const json_t *m, bool quiet_ended, struct lmo_change *ret)
{
    const json_t *vm = json_object_get(m, "vm");
    bool ended = *lmo_api_text(m, "outcome") != '\0', known;
    *ret = (struct lmo_change){.at_ms = lmo_api_u64(m, "updated_ms"),
                               .object = "migration",
                               .id = lmo_api_text(m, "id"),
                               .vm = *lmo_api_text(vm, "name") ? lmo_api_text(vm, "name") : lmo_api_text(vm, "uuid"),
                               .source = lmo_api_text(m, "source"),
                               .destination = lmo_api_text(m, "destination"),
                               .state = lmo_render_state(m),
                               .detail = lmo_api_text(m, ended ? "reason" : "waiting_for")};
    bool changed = note(w, ret, lmo_api_u64(m, "version"), &known);
    return changed && (known || !ended || !quiet_ended);
}

bool lmo_watch_note(struct lmo_watch *w, const struct lmo_change *c)
{
    bool known;
    return note(w, c, 0, &known);
}

bool lmo_watch_host(struct lmo_watch *w, const json_t *h, struct lmo_change *ret)
{
    bool cordoned = json_is_true(json_object_get(h, "cordoned")), known;
    const char *state = lmo_api_text(h, "state"), *drain = lmo_api_text(h, "drain_state");
    *ret = (struct lmo_change){.at_ms = lmo_api_u64(h, "since_ms"),
                               .object = "host",
                               .id = lmo_api_text(h, "name"),
                               .vm = "",
                               .source = "",
                               .destination = "",
                               .state = strcmp(state, "up") == 0 && *drain     ? drain
                                        : strcmp(state, "up") == 0 && cordoned ? "cordoned"
                                                                               : state,
                               .detail = strcmp(state, "up") == 0 ? "" : lmo_api_text(h, "last_error")};
    return note(w, ret, 0, &known);
}

bool lmo_watch_drain(struct lmo_watch *w, const json_t *d, bool quiet_ended, struct lmo_change *ret)
{
    static const char *const ends[] = {"drained", "incomplete", "failed", "cancelled"};
    const char *state = lmo_api_text(d, "state");
    bool ended = false, known;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        ended |= strcmp(state, ends[i]) == 0;
    *ret = (struct lmo_change){.at_ms = lmo_api_u64(d, "updated_ms"),
                               .object = "drain",
                               .id = lmo_api_text(d, "id"),
                               .vm = "",
                               .source = "",
                               .destination = "",
                               .state = state,
                               .detail = lmo_api_text(d, ended ? "reason" : "waiting_for")};
    bool changed = note(w, ret, lmo_api_u64(d, "version"), &known);
    return changed && (known || !ended || !quiet_ended);
}

void lmo_watch_sweep(struct lmo_watch *w, const char *object, void (*gone)(void *arg, const char *id), void *arg)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->count; i++) {
        struct lmo_watch_seen *s = &w->seen[i];
        bool stale = strcmp(s->object, object) == 0 && s->round != w->round;
        if (stale && gone)
            gone(arg, s->id);
        if (!stale)
            w->seen[kept++] = *s;
    }
    w->count = kept;
    w->round++;
}
