/* render_migration.c - one migration as text: list row, progress line, timeline with reasons. See render.h. */
#include "cli/api.h"
#include "cli/render.h"

#include <inttypes.h>
#include <stdarg.h>
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

static const char *state(const json_t *m)
{
    return *lmo_api_text(m, "outcome") ? lmo_api_text(m, "outcome") : lmo_api_text(m, "phase");
}

static uint64_t took_ms(const json_t *m)
{
    uint64_t from = lmo_api_u64(m, "created_ms"), to = lmo_api_u64(m, "updated_ms");
    return to > from ? to - from : 0;
}

/* ------------------------------------------------------------------ one line */

struct text {
    char *buf;
    size_t used;
};

static void add(struct text *t, const char *fmt, ...) LMO_PRINTF(2, 3);
static void add(struct text *t, const char *fmt, ...)
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

static void add_eta(struct text *t, const json_t *p)
{
    uint64_t low = lmo_api_u64(p, "eta_min_ms"), high = lmo_api_u64(p, "eta_max_ms");
    char a[LMO_FORMAT_MAX], b[LMO_FORMAT_MAX];
    const char *kind = lmo_api_text(p, "eta_kind");
    if (low == 0 && high == 0)
        return;
    if (strcmp(kind, "not_converging") == 0)
        add(t, ", not converging, ends within %s", lmo_format_ms(high, b));
    else if (strcmp(kind, "forced") == 0)
        add(t, ", forced, ends within %s", lmo_format_ms(high, b));
    else if (!lmo_api_has(p, "eta_max_ms"))
        add(t, ", at least %s more", lmo_format_ms(low, a)); /* it cannot be said when it converges */
    else if (high <= low)
        add(t, ", ETA %s", lmo_format_ms(low, a));
    else if (high < 60000)
        add(t, ", ETA %.1f-%.1f s", (double)low / 1e3, (double)high / 1e3);
    else
        add(t, ", ETA %s to %s", lmo_format_ms(low, a), lmo_format_ms(high, b));
}

const char *lmo_render_progress(const json_t *m, char buf[LMO_RENDER_LINE_MAX])
{
    char a[LMO_FORMAT_MAX], phase[64], why[160];
    struct text t = {.buf = buf};
    buf[0] = '\0';
    add(&t, "%-18s", lmo_format_safe(lmo_api_text(m, "phase"), phase, sizeof phase));
    const json_t *p = json_object_get(m, "progress");
    if (*lmo_api_text(m, "waiting_for"))
        add(&t, "  waiting: %s", lmo_format_safe(lmo_api_text(m, "waiting_for"), why, sizeof why));
    /* Figures of the memory stream mean something only while it runs. */
    if (strcmp(lmo_api_text(m, "phase"), "precopy") != 0 || lmo_api_u64(p, "total_bytes") == 0)
        return buf;
    if (lmo_api_has(p, "percent"))
        add(&t, " %3.0f %%", lmo_api_number(p, "percent"));
    add(&t, "  %s sent", lmo_format_bytes(lmo_api_u64(p, "transferred_bytes"), a));
    add(&t, ", %s left", lmo_format_bytes(lmo_api_u64(p, "remaining_bytes"), a));
    add(&t, ", %s", lmo_format_rate(lmo_api_u64(p, "rate_bytes_per_s"), a));
    if (lmo_api_u64(p, "dirty_bytes_per_s") > 0) {
        add(&t, ", dirtying %s", lmo_format_rate(lmo_api_u64(p, "dirty_bytes_per_s"), a));
    }
    if (lmo_api_u64(p, "iteration") > 1)
        add(&t, ", pass %" PRIu64, lmo_api_u64(p, "iteration"));
    if (lmo_api_u64(p, "throttle_percent") > 0)
        add(&t, ", throttled %" PRIu64 " %%", lmo_api_u64(p, "throttle_percent"));
    add_eta(&t, p);
    return buf;
}

const char *lmo_render_outcome(const json_t *m, char buf[LMO_RENDER_LINE_MAX])
{
    char name[96], from[96], to[96], a[LMO_FORMAT_MAX], why[256];
    struct text t = {.buf = buf};
    buf[0] = '\0';
    lmo_format_safe(lmo_api_text(m, "source"), from, sizeof from);
    lmo_format_safe(lmo_api_text(m, "destination"), to, sizeof to);
    lmo_format_safe(lmo_api_text(m, "reason"), why, sizeof why);
    guest(m, name);
    const char *s = state(m);
    if (strcmp(s, "completed") == 0) {
        add(&t, "%s moved from %s to %s in %s", name, from, to, lmo_format_ms(took_ms(m), a));
        const json_t *c = json_object_get(m, "cutover");
        if (lmo_api_has(c, "blackout_ms")) {
            add(&t, "; paused for %s", lmo_render_ms(c, "blackout_ms", a));
        }
    } else if (strcmp(s, "aborted") == 0) {
        add(&t, "%s stays on %s, unharmed: %s", name, from, *why ? why : "no reason given");
    } else if (strcmp(s, "attention") == 0) {
        add(&t, "%s needs a person: %s", name, *why ? why : "no reason given");
    } else if (strcmp(s, "abandoned") == 0) {
        add(&t, "%s was taken into a person's hands: %s", name, *why ? why : "no reason given");
    } else {
        add(&t, "%s is on its way from %s to %s: %s", name, from, to, lmo_format_safe(s, why, sizeof why));
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
            snprintf(buf, sizeof buf, "%.20s, %" PRIu64 " in line", state(m), lmo_api_u64(m, "queue_position"));
            lmo_grid_cell(&t, buf);
        } else {
            lmo_grid_cell(&t, state(m));
        }
        const json_t *p = json_object_get(m, "progress");
        snprintf(buf, sizeof buf, "%.0f %%", lmo_api_number(p, "percent"));
        lmo_grid_cell(&t, lmo_api_has(p, "percent") ? buf : "-");
        lmo_grid_cell(&t, lmo_format_time(lmo_api_u64(m, "created_ms"), buf));
        lmo_grid_cell(&t, lmo_format_ms(took_ms(m), buf));
    }
    if (t.rows > 1)
        lmo_grid_print(&t, style, out);
    else
        fputs("no migrations\n", out);
    lmo_grid_release(&t);
}

/* ------------------------------------------------------------------ show */

static void field(FILE *out, const char *name, const char *value)
{
    char safe[LMO_RENDER_LINE_MAX];
    fprintf(out, "%-12s %s\n", name, lmo_format_safe(value, safe, sizeof safe));
}

/* "loaded +84.1 ms": a step of the cutover, counted from the source's pause. */
static void add_step(struct text *t, const json_t *c, const char *label, const char *key)
{
    uint64_t from = lmo_api_u64(c, "suspended_us"), at = lmo_api_u64(c, key);
    char a[LMO_FORMAT_MAX];
    if (at != 0 && at >= from)
        add(t, ", %s +%s", label, lmo_format_us(at - from, a));
}

static void render_cutover(const json_t *c, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX] = "", a[LMO_FORMAT_MAX];
    struct text t = {.buf = buf};
    if (lmo_api_has(c, "blackout_ms"))
        add(&t, "%s", lmo_render_ms(c, "blackout_ms", a));
    if (lmo_api_has(c, "loaded_to_resumed_ms"))
        add(&t, ", %s of it from loaded to resumed", lmo_render_ms(c, "loaded_to_resumed_ms", a));
    if (t.used > 0)
        field(out, "pause", buf);
    t.used = 0;
    buf[0] = '\0';
    if (lmo_api_u64(c, "suspended_us") != 0) {
        add(&t, "suspended");
        add_step(&t, c, "loaded", "loaded_us");
        add_step(&t, c, "frozen", "frozen_us");
        add_step(&t, c, "fenced", "fenced_us");
        add_step(&t, c, "resumed", "resumed_us");
        field(out, "cutover", buf);
    }
    t.used = 0;
    buf[0] = '\0';
    if (*lmo_api_text(c, "freeze_answer")) {
        add(&t, "the source answered \"%s\"", lmo_api_text(c, "freeze_answer"));
        if (lmo_api_has(c, "fence_ms"))
            add(&t, "; fence %s", lmo_render_ms(c, "fence_ms", a));
        if (lmo_api_has(c, "verify_ms"))
            add(&t, ", verified in %s", lmo_render_ms(c, "verify_ms", a));
        field(out, "freeze", buf);
    }
    if (*lmo_api_text(c, "evidence"))
        field(out, "evidence", lmo_api_text(c, "evidence"));
}

static void render_memory(const json_t *p, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX] = "", a[LMO_FORMAT_MAX];
    struct text t = {.buf = buf};
    if (lmo_api_u64(p, "total_bytes") == 0)
        return;
    add(&t, "%s in all", lmo_format_bytes(lmo_api_u64(p, "total_bytes"), a));
    add(&t, ", %s sent", lmo_format_bytes(lmo_api_u64(p, "transferred_bytes"), a));
    add(&t, ", %s left", lmo_format_bytes(lmo_api_u64(p, "remaining_bytes"), a));
    if (lmo_api_u64(p, "iteration") > 0)
        add(&t, ", pass %" PRIu64, lmo_api_u64(p, "iteration"));
    add(&t, ", %s", lmo_format_rate(lmo_api_u64(p, "rate_bytes_per_s"), a));
    add(&t, ", dirtying %s", lmo_format_rate(lmo_api_u64(p, "dirty_bytes_per_s"), a));
    field(out, "memory", buf);
}

static void render_policy(const json_t *p, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX] = "", a[LMO_FORMAT_MAX];
    struct text t = {.buf = buf};
    if (lmo_api_u64(p, "bandwidth_bytes_per_s") > 0) {
        add(&t, "at most %s", lmo_format_rate(lmo_api_u64(p, "bandwidth_bytes_per_s"), a));
    }
    if (lmo_api_u64(p, "max_downtime_ms") > 0) {
        add(&t, "%spause of at most %s", t.used ? ", " : "", lmo_format_ms(lmo_api_u64(p, "max_downtime_ms"), a));
    }
    if (lmo_api_u64(p, "convergence_timeout_ms") > 0) {
        add(&t, "%sto converge within %s", t.used ? ", " : "",
            lmo_format_ms(lmo_api_u64(p, "convergence_timeout_ms"), a));
    }
    if (strcmp(lmo_api_text(p, "on_timeout"), "force") == 0) {
        add(&t, ", else forced with a pause of at most %s", lmo_format_ms(lmo_api_u64(p, "force_max_pause_ms"), a));
    }
    if (json_is_true(json_object_get(p, "allow_throttle"))) {
        add(&t, "%sthrottling allowed", t.used ? ", " : "");
    }
    if (json_is_true(json_object_get(p, "accept_stateful_loss"))) {
        add(&t, "%sloss of firewall state accepted", t.used ? ", " : "");
    }
    if (t.used > 0)
        field(out, "policy", buf);
}

/* What was predicted, how long it may take and where that comes from, and what became of it. */
static void render_convergence(const json_t *c, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX] = "", a[LMO_FORMAT_MAX];
    struct text t = {.buf = buf};
    const json_t *forecast = json_object_get(c, "prediction"), *memory = json_object_get(c, "memory_timeout");
    if (*lmo_api_text(forecast, "text"))
        field(out, "prediction", lmo_api_text(forecast, "text"));
    if (lmo_api_u64(memory, "ms") == 0)
        return;
    add(&t, "%s (%s)", lmo_format_ms(lmo_api_u64(memory, "ms"), a), lmo_api_text(memory, "how"));
    if (lmo_api_u64(c, "downtime_limit_ms") > 0)
        add(&t, "; pause of up to %s allowed so far", lmo_format_ms(lmo_api_u64(c, "downtime_limit_ms"), a));
    if (json_is_true(json_object_get(c, "stalled")))
        add(&t, "; stalled");
    field(out, "time-out", buf);
}

/* Which row of `phases` does a journal line belong to? The last of its name that had begun by then. */
static size_t row_of(const json_t *phases, const json_t *entry)
{
    size_t found = SIZE_MAX, i = 0;
    const json_t *p;
    json_array_foreach(phases, i, p)
    {
        if (strcmp(lmo_api_text(p, "name"), lmo_api_text(entry, "phase")) != 0)
            continue;
        if (found == SIZE_MAX || lmo_api_u64(p, "started_ms") <= lmo_api_u64(entry, "at_ms"))
            found = i;
    }
    return found;
}

static void render_entry(const json_t *e, uint64_t from_ms, const struct lmo_style *style, FILE *out)
{
    char what[LMO_RENDER_LINE_MAX], why[LMO_RENDER_LINE_MAX];
    uint64_t at = lmo_api_u64(e, "at_ms");
    fprintf(out, "  %s+%8.3f s%s    %s", lmo_color_on(style, LMO_DIM),
            at > from_ms ? (double)(at - from_ms) / 1e3 : 0.0, lmo_color_off(style, LMO_DIM),
            lmo_format_safe(lmo_api_text(e, "what"), what, sizeof what));
    if (*lmo_api_text(e, "why")) {
        fprintf(out, "%s: %s%s", lmo_color_on(style, LMO_DIM), lmo_format_safe(lmo_api_text(e, "why"), why, sizeof why),
                lmo_color_off(style, LMO_DIM));
    }
    fputc('\n', out);
}

static void render_timeline(const json_t *m, const json_t *entries, const struct lmo_style *style, FILE *out)
{
    const json_t *phases = json_object_get(m, "phases"), *p, *e;
    uint64_t from_ms = lmo_api_u64(m, "created_ms");
    size_t i = 0, j = 0;
    if (json_array_size(phases) == 0 && json_array_size(entries) == 0)
        return;
    fprintf(out, "\n%stimeline%s\n", lmo_color_on(style, LMO_BOLD), lmo_color_off(style, LMO_BOLD));
    json_array_foreach(phases, i, p)
    {
        char name[64], took[LMO_FORMAT_MAX];
        uint64_t at = lmo_api_u64(p, "started_ms");
        enum lmo_color c = lmo_render_phase_color(lmo_api_text(p, "name"));
        c = c == LMO_PLAIN ? LMO_BOLD : c;
        bool ended = lmo_api_u64(p, "ended_ms") != 0, last = i + 1 == json_array_size(phases);
        fprintf(out, "  +%8.3f s  %s%-18s%s  %s\n", at > from_ms ? (double)(at - from_ms) / 1e3 : 0.0,
                lmo_color_on(style, c), lmo_format_safe(lmo_api_text(p, "name"), name, sizeof name),
                lmo_color_off(style, c),
                ended                                         ? lmo_render_ms(p, "ms", took)
                : last && *lmo_api_text(m, "outcome") == '\0' ? "under way"
                                                              : "");
        json_array_foreach(entries, j, e)
        {
            if (row_of(phases, e) == i)
                render_entry(e, from_ms, style, out);
        }
    }
    json_array_foreach(entries, j, e)
    {
        if (row_of(phases, e) == SIZE_MAX)
            render_entry(e, from_ms, style, out);
    }
}

/* Why it ended so, where it failed, what it waits for. */
static void render_reason(const json_t *m, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX] = "";
    struct text t = {.buf = buf};
    if (*lmo_api_text(m, "reason")) {
        add(&t, "%s", lmo_api_text(m, "reason"));
        if (*lmo_api_text(m, "failed_in"))
            add(&t, " (in %s)", lmo_api_text(m, "failed_in"));
        field(out, "reason", buf);
    }
    if (*lmo_api_text(m, "waiting_for"))
        field(out, "waiting", lmo_api_text(m, "waiting_for"));
    if (lmo_api_has(m, "share_bytes_per_s") && *lmo_api_text(m, "outcome") == '\0') {
        char rate[LMO_FORMAT_MAX];
        field(out, "share", lmo_format_rate(lmo_api_u64(m, "share_bytes_per_s"), rate));
    }
    if (json_is_true(json_object_get(m, "cancel_requested")) && *lmo_api_text(m, "outcome") == '\0')
        field(out, "cancelling", "as asked; it ends as soon as the hypervisor has confirmed it");
}

static void render_list(const char *name, const json_t *lines, FILE *out)
{
    size_t i = 0;
    const json_t *l;
    json_array_foreach(lines, i, l)
    {
        field(out, i == 0 ? name : "", json_is_string(l) ? json_string_value(l) : "");
    }
}

/* For the person who must look: what is known, what is not, what may be done. */
static void render_attention(const json_t *a, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX], safe[LMO_RENDER_LINE_MAX];
    size_t i = 0;
    const json_t *c;
    render_list("known", json_object_get(a, "known"), out);
    render_list("not known", json_object_get(a, "unknown"), out);
    json_array_foreach(json_object_get(a, "safe"), i, c)
    {
        field(out, i == 0 ? "safe" : "", lmo_api_text(c, "command"));
        snprintf(buf, sizeof buf, "%s", lmo_api_text(c, "effect"));
        fprintf(out, "%-12s   %s\n", "", lmo_format_safe(buf, safe, sizeof safe));
    }
}

/* One line per kind and state: "export: made at store: vol1, vol2". */
static void render_resources(const json_t *resources, FILE *out)
{
    size_t i = 0, shown = 0;
    const json_t *r;
    json_array_foreach(resources, i, r)
    {
        char buf[LMO_RENDER_LINE_MAX] = "";
        struct text t = {.buf = buf};
        add(&t, "%-18s %-8s at %s", lmo_api_text(r, "what"), lmo_api_text(r, "state"), lmo_api_text(r, "host"));
        if (*lmo_api_text(r, "object"))
            add(&t, ": %s", lmo_api_text(r, "object"));
        field(out, shown++ == 0 ? "made" : "", buf);
    }
}

void lmo_render_migration(const json_t *m, const json_t *journal, const struct lmo_style *style, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX], a[LMO_FORMAT_MAX], safe[LMO_RENDER_LINE_MAX];
    enum lmo_color c = lmo_render_phase_color(state(m));
    field(out, "migration", lmo_api_text(m, "id"));
    fprintf(out, "%-12s %s%s%s\n", "state", lmo_color_on(style, c), lmo_format_safe(state(m), safe, sizeof safe),
            lmo_color_off(style, c));
    render_reason(m, out);
    render_attention(json_object_get(m, "attention"), out);
    const json_t *vm = json_object_get(m, "vm");
    snprintf(buf, sizeof buf, "%s  %s", lmo_api_text(vm, "name"), lmo_api_text(vm, "uuid"));
    field(out, "guest", buf);
    snprintf(buf, sizeof buf, "%s -> %s, epoch %" PRIu64, lmo_api_text(m, "source"), lmo_api_text(m, "destination"),
             lmo_api_u64(m, "epoch"));
    field(out, "route", buf);
    field(out, "accepted", lmo_format_time(lmo_api_u64(m, "created_ms"), a));
    struct text t = {.buf = buf};
    add(&t, "%s", lmo_format_ms(took_ms(m), a));
    if (lmo_api_u64(m, "migrate_call_ms") > 0) {
        add(&t, ", %s of it inside the hypervisor's migrate call", lmo_format_ms(lmo_api_u64(m, "migrate_call_ms"), a));
    }
    field(out, *lmo_api_text(m, "outcome") ? "took" : "so far", buf);
    render_memory(json_object_get(m, "progress"), out);
    render_convergence(json_object_get(m, "convergence"), out);
    render_cutover(json_object_get(m, "cutover"), out);
    render_policy(json_object_get(m, "policy"), out);
    render_resources(json_object_get(m, "resources"), out);
    render_timeline(m, json_object_get(journal, "journal"), style, out);
}
