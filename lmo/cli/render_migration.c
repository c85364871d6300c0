/* render_migration.c - one migration as text: list row, progress line, how it ended. See render.h; all of it is in
 * render_show.c. */
#include "cli/api.h"
#include "cli/render.h"
#include "cli/render_text.h"

#include <inttypes.h>
#include <string.h>

static const struct {
    const char *phase;
    enum lmo_color color;
} colors[] = {
    {"completed", LMO_GREEN},
    {"aborted", LMO_YELLOW},
    {"rollback", LMO_YELLOW},
    {"attention", LMO_RED},
    {"abandoned", LMO_RED},
};

enum lmo_color lmo_render_phase_color(const char *phase)
{
    for (size_t i = 0; i < sizeof colors / sizeof colors[0]; i++) {
        if (strcmp(colors[i].phase, phase) == 0)
            return colors[i].color;
    }
    return LMO_PLAIN;
}

const char *lmo_render_ms(const json_t *obj, const char *field, char buf[LMO_FORMAT_MAX])
{
    double ms = lmo_api_number(obj, field);
    if (!lmo_api_has(obj, field) || !(ms >= 0 && ms < 1e15))
        return strcpy(buf, "-");
    return json_is_integer(json_object_get(obj, field)) ? lmo_format_ms((uint64_t)ms, buf)
                                                        : lmo_format_us((uint64_t)(ms * 1000 + 0.5), buf);
}

/* A guest as people name it. */
static const char *guest(const json_t *m, char buf[96])
{
    const json_t *vm = json_object_get(m, "vm");
    const char *name = *lmo_api_text(vm, "name") ? lmo_api_text(vm, "name") : lmo_api_text(vm, "uuid");
    return lmo_format_safe(*name ? name : "the guest", buf, 96);
}

const char *lmo_render_state(const json_t *m)
{
    return *lmo_api_text(m, "outcome") ? lmo_api_text(m, "outcome") : lmo_api_text(m, "phase");
}

uint64_t lmo_render_took_ms(const json_t *m)
{
    uint64_t from = lmo_api_u64(m, "created_ms"), to = lmo_api_u64(m, "updated_ms");
    return to > from ? to - from : 0;
}

/* ------------------------------------------------------------------ one line */

static void add_eta(struct lmo_text *t, const json_t *p)
{
    uint64_t low = lmo_api_u64(p, "eta_min_ms"), high = lmo_api_u64(p, "eta_max_ms");
    char a[LMO_FORMAT_MAX], b[LMO_FORMAT_MAX];
    const char *kind = lmo_api_text(p, "eta_kind");
    if (low == 0 && high == 0)
        return;
    if (strcmp(kind, "not_converging") == 0)
        lmo_text_add(t, ", not converging, ends within %s", lmo_format_ms(high, b));
    else if (strcmp(kind, "forced") == 0)
        lmo_text_add(t, ", forced, ends within %s", lmo_format_ms(high, b));
    else if (!lmo_api_has(p, "eta_max_ms"))
        lmo_text_add(t, ", at least %s more", lmo_format_ms(low, a)); /* it cannot be said when it converges */
    else if (high <= low)
        lmo_text_add(t, ", ETA %s", lmo_format_ms(low, a));
    else if (high < 60000)
        lmo_text_add(t, ", ETA %.1f-%.1f s", (double)low / 1e3, (double)high / 1e3);
    else
        lmo_text_add(t, ", ETA %s to %s", lmo_format_ms(low, a), lmo_format_ms(high, b));
}

const char *lmo_render_progress(const json_t *m, char buf[LMO_RENDER_LINE_MAX])
{
    char a[LMO_FORMAT_MAX], phase[64], why[160];
    struct lmo_text t = {.buf = buf};
    buf[0] = '\0';
    lmo_text_add(&t, "%-18s", lmo_format_safe(lmo_api_text(m, "phase"), phase, sizeof phase));
    const json_t *p = json_object_get(m, "progress");
    if (*lmo_api_text(m, "waiting_for"))
        lmo_text_add(&t, "  waiting: %s", lmo_format_safe(lmo_api_text(m, "waiting_for"), why, sizeof why));
    /* Figures of the memory stream mean something only while it runs. */
    if (strcmp(lmo_api_text(m, "phase"), "precopy") != 0 || lmo_api_u64(p, "total_bytes") == 0)
        return buf;
    if (lmo_api_has(p, "percent"))
        lmo_text_add(&t, " %3.0f %%", lmo_api_number(p, "percent"));
    lmo_text_add(&t, "  %s sent", lmo_format_bytes(lmo_api_u64(p, "transferred_bytes"), a));
    lmo_text_add(&t, ", %s left", lmo_format_bytes(lmo_api_u64(p, "remaining_bytes"), a));
    lmo_text_add(&t, ", %s", lmo_format_rate(lmo_api_u64(p, "rate_bytes_per_s"), a));
    if (lmo_api_u64(p, "dirty_bytes_per_s") > 0) {
        lmo_text_add(&t, ", dirtying %s", lmo_format_rate(lmo_api_u64(p, "dirty_bytes_per_s"), a));
    }
    if (lmo_api_u64(p, "iteration") > 1)
        lmo_text_add(&t, ", pass %" PRIu64, lmo_api_u64(p, "iteration"));
    if (lmo_api_u64(p, "throttle_percent") > 0)
        lmo_text_add(&t, ", throttled %" PRIu64 " %%", lmo_api_u64(p, "throttle_percent"));
    add_eta(&t, p);
    return buf;
}

const char *lmo_render_outcome(const json_t *m, char buf[LMO_RENDER_LINE_MAX])
{
    char name[96], from[96], to[96], a[LMO_FORMAT_MAX], why[256];
    struct lmo_text t = {.buf = buf};
    buf[0] = '\0';
    lmo_format_safe(lmo_api_text(m, "source"), from, sizeof from);
    lmo_format_safe(lmo_api_text(m, "destination"), to, sizeof to);
    lmo_format_safe(lmo_api_text(m, "reason"), why, sizeof why);
    guest(m, name);
    const char *s = lmo_render_state(m);
    if (strcmp(s, "completed") == 0) {
        lmo_text_add(&t, "%s moved from %s to %s in %s", name, from, to, lmo_format_ms(lmo_render_took_ms(m), a));
        const json_t *c = json_object_get(m, "cutover");
        if (lmo_api_has(c, "blackout_ms")) {
            lmo_text_add(&t, "; paused for %s", lmo_render_ms(c, "blackout_ms", a));
        }
    } else if (strcmp(s, "aborted") == 0) {
        lmo_text_add(&t, "%s stays on %s, unharmed: %s", name, from, *why ? why : "no reason given");
    } else if (strcmp(s, "attention") == 0) {
        lmo_text_add(&t, "%s needs a person: %s", name, *why ? why : "no reason given");
    } else if (strcmp(s, "abandoned") == 0) {
        lmo_text_add(&t, "%s was taken into a person's hands: %s", name, *why ? why : "no reason given");
    } else {
        lmo_text_add(&t, "%s is on its way from %s to %s: %s", name, from, to, lmo_format_safe(s, why, sizeof why));
    }
    return buf;
}

/* ------------------------------------------------------------------ list */

void lmo_render_migrations(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"ID", "GUEST", "FROM", "TO", "PHASE", "DONE", "ACCEPTED", "TOOK"};
    struct lmo_grid t = {.columns = 8, .right = 0xa0};
    char buf[LMO_FORMAT_MAX], name[96];
    for (size_t i = 0; i < 8; i++)
        lmo_grid_cell(&t, names[i]);
    size_t i = 0;
    const json_t *m;
    json_array_foreach(json_object_get(answer, "migrations"), i, m)
    {
        lmo_grid_cell(&t, lmo_api_text(m, "id"));
        lmo_grid_cell(&t, guest(m, name));
        lmo_grid_cell(&t, lmo_api_text(m, "source"));
        lmo_grid_cell(&t, lmo_api_text(m, "destination"));
        if (lmo_api_has(m, "queue_position")) {
            snprintf(buf, sizeof buf, "%.20s, %" PRIu64 " in line", lmo_render_state(m), lmo_api_u64(m, "queue_position"));
            lmo_grid_cell(&t, buf);
        } else {
            lmo_grid_cell(&t, lmo_render_state(m));
        }
        const json_t *p = json_object_get(m, "progress");
        snprintf(buf, sizeof buf, "%.0f %%", lmo_api_number(p, "percent"));
        lmo_grid_cell(&t, lmo_api_has(p, "percent") ? buf : "-");
        lmo_grid_cell(&t, lmo_format_time(lmo_api_u64(m, "created_ms"), buf));
        lmo_grid_cell(&t, lmo_format_ms(lmo_render_took_ms(m), buf));
    }
    if (t.rows > 1)
        lmo_grid_print(&t, style, out);
    else
        fputs("no migrations\n", out);
    lmo_grid_release(&t);
}

void lmo_render_ended(const json_t *m, const struct lmo_style *style, FILE *out)
{
    char line[LMO_RENDER_LINE_MAX];
    (void)style;
    fprintf(out, "%s\n", lmo_render_outcome(m, line));
}
