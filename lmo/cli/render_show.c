/* render_show.c - one migration with all that is known of it: figures, policy, cutover, timeline with reasons. See render.h. */
#include "cli/api.h"
#include "cli/render.h"
#include "cli/render_text.h"

#include <inttypes.h>
#include <string.h>

static void field(FILE *out, const char *name, const char *value)
{
    char safe[LMO_RENDER_LINE_MAX];
    fprintf(out, "%-12s %s\n", name, lmo_format_safe(value, safe, sizeof safe));
}

/* "loaded +84.1 ms": a step of the cutover, counted from the source's pause. */
static void add_step(struct lmo_text *t, const json_t *c, const char *label, const char *key)
{
    uint64_t from = lmo_api_u64(c, "suspended_us"), at = lmo_api_u64(c, key);
    char a[LMO_FORMAT_MAX];
    if (at != 0 && at >= from)
        lmo_text_add(t, ", %s +%s", label, lmo_format_us(at - from, a));
}

static void render_cutover(const json_t *c, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX] = "", a[LMO_FORMAT_MAX];
    struct lmo_text t = {.buf = buf};
    if (lmo_api_has(c, "blackout_ms"))
        lmo_text_add(&t, "%s", lmo_render_ms(c, "blackout_ms", a));
    if (lmo_api_has(c, "loaded_to_resumed_ms"))
        lmo_text_add(&t, ", %s of it from loaded to resumed", lmo_render_ms(c, "loaded_to_resumed_ms", a));
    if (t.used > 0)
        field(out, "pause", buf);
    t.used = 0;
    buf[0] = '\0';
    if (lmo_api_u64(c, "suspended_us") != 0) {
        lmo_text_add(&t, "suspended");
        add_step(&t, c, "loaded", "loaded_us");
        add_step(&t, c, "frozen", "frozen_us");
        add_step(&t, c, "fenced", "fenced_us");
        add_step(&t, c, "resumed", "resumed_us");
        field(out, "cutover", buf);
    }
    t.used = 0;
    buf[0] = '\0';
    if (*lmo_api_text(c, "freeze_answer")) {
        lmo_text_add(&t, "the source answered \"%s\"", lmo_api_text(c, "freeze_answer"));
        if (lmo_api_has(c, "fence_ms"))
            lmo_text_add(&t, "; fence %s", lmo_render_ms(c, "fence_ms", a));
        if (lmo_api_has(c, "verify_ms"))
            lmo_text_add(&t, ", verified in %s", lmo_render_ms(c, "verify_ms", a));
        field(out, "freeze", buf);
    }
    if (*lmo_api_text(c, "evidence"))
        field(out, "evidence", lmo_api_text(c, "evidence"));
}

static void render_memory(const json_t *p, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX] = "", a[LMO_FORMAT_MAX];
    struct lmo_text t = {.buf = buf};
    if (lmo_api_u64(p, "total_bytes") == 0)
        return;
    lmo_text_add(&t, "%s in all", lmo_format_bytes(lmo_api_u64(p, "total_bytes"), a));
    lmo_text_add(&t, ", %s sent", lmo_format_bytes(lmo_api_u64(p, "transferred_bytes"), a));
    lmo_text_add(&t, ", %s left", lmo_format_bytes(lmo_api_u64(p, "remaining_bytes"), a));
    if (lmo_api_u64(p, "iteration") > 0)
        lmo_text_add(&t, ", pass %" PRIu64, lmo_api_u64(p, "iteration"));
    lmo_text_add(&t, ", %s", lmo_format_rate(lmo_api_u64(p, "rate_bytes_per_s"), a));
    lmo_text_add(&t, ", dirtying %s", lmo_format_rate(lmo_api_u64(p, "dirty_bytes_per_s"), a));
    field(out, "memory", buf);
}

static void render_policy(const json_t *p, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX] = "", a[LMO_FORMAT_MAX];
    struct lmo_text t = {.buf = buf};
    if (lmo_api_u64(p, "bandwidth_bytes_per_s") > 0) {
        lmo_text_add(&t, "at most %s", lmo_format_rate(lmo_api_u64(p, "bandwidth_bytes_per_s"), a));
    }
    if (lmo_api_u64(p, "max_downtime_ms") > 0) {
        lmo_text_add(&t, "%spause of at most %s", t.used ? ", " : "",
                     lmo_format_ms(lmo_api_u64(p, "max_downtime_ms"), a));
    }
    if (lmo_api_u64(p, "convergence_timeout_ms") > 0) {
        lmo_text_add(&t, "%sto converge within %s", t.used ? ", " : "",
                     lmo_format_ms(lmo_api_u64(p, "convergence_timeout_ms"), a));
    }
    if (strcmp(lmo_api_text(p, "on_timeout"), "force") == 0) {
        lmo_text_add(&t, ", else forced with a pause of at most %s",
                     lmo_format_ms(lmo_api_u64(p, "force_max_pause_ms"), a));
    }
    if (json_is_true(json_object_get(p, "allow_throttle"))) {
        lmo_text_add(&t, "%sthrottling allowed", t.used ? ", " : "");
    }
    if (json_is_true(json_object_get(p, "accept_stateful_loss"))) {
        lmo_text_add(&t, "%sloss of firewall state accepted", t.used ? ", " : "");
    }
    if (t.used > 0)
        field(out, "policy", buf);
}

/* What was predicted, how long it may take and where that comes from, and what became of it. */
static void render_convergence(const json_t *c, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX] = "", a[LMO_FORMAT_MAX];
    struct lmo_text t = {.buf = buf};
    const json_t *forecast = json_object_get(c, "prediction"), *memory = json_object_get(c, "memory_timeout");
    if (*lmo_api_text(forecast, "text"))
        field(out, "prediction", lmo_api_text(forecast, "text"));
    if (lmo_api_u64(memory, "ms") == 0)
        return;
    lmo_text_add(&t, "%s (%s)", lmo_format_ms(lmo_api_u64(memory, "ms"), a), lmo_api_text(memory, "how"));
    if (lmo_api_u64(c, "downtime_limit_ms") > 0)
        lmo_text_add(&t, "; pause of up to %s allowed so far", lmo_format_ms(lmo_api_u64(c, "downtime_limit_ms"), a));
    if (json_is_true(json_object_get(c, "stalled")))
        lmo_text_add(&t, "; stalled");
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
    struct lmo_text t = {.buf = buf};
    if (*lmo_api_text(m, "reason")) {
        lmo_text_add(&t, "%s", lmo_api_text(m, "reason"));
        if (*lmo_api_text(m, "failed_in"))
            lmo_text_add(&t, " (in %s)", lmo_api_text(m, "failed_in"));
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
        struct lmo_text t = {.buf = buf};
        lmo_text_add(&t, "%-18s %-8s at %s", lmo_api_text(r, "what"), lmo_api_text(r, "state"),
                     lmo_api_text(r, "host"));
        if (*lmo_api_text(r, "object"))
            lmo_text_add(&t, ": %s", lmo_api_text(r, "object"));
        field(out, shown++ == 0 ? "made" : "", buf);
    }
}

void lmo_render_migration(const json_t *m, const json_t *journal, const struct lmo_style *style, FILE *out)
{
    char buf[LMO_RENDER_LINE_MAX], a[LMO_FORMAT_MAX], safe[LMO_RENDER_LINE_MAX];
    enum lmo_color c = lmo_render_phase_color(lmo_render_state(m));
    field(out, "migration", lmo_api_text(m, "id"));
    fprintf(out, "%-12s %s%s%s\n", "state", lmo_color_on(style, c),
            lmo_format_safe(lmo_render_state(m), safe, sizeof safe), lmo_color_off(style, c));
    render_reason(m, out);
    render_attention(json_object_get(m, "attention"), out);
    const json_t *vm = json_object_get(m, "vm");
    snprintf(buf, sizeof buf, "%s  %s", lmo_api_text(vm, "name"), lmo_api_text(vm, "uuid"));
    field(out, "guest", buf);
    snprintf(buf, sizeof buf, "%s -> %s, epoch %" PRIu64, lmo_api_text(m, "source"), lmo_api_text(m, "destination"),
             lmo_api_u64(m, "epoch"));
    field(out, "route", buf);
    field(out, "accepted", lmo_format_time(lmo_api_u64(m, "created_ms"), a));
    struct lmo_text t = {.buf = buf};
    lmo_text_add(&t, "%s", lmo_format_ms(lmo_render_took_ms(m), a));
    if (lmo_api_u64(m, "migrate_call_ms") > 0) {
        lmo_text_add(&t, ", %s of it inside the hypervisor's migrate call",
                     lmo_format_ms(lmo_api_u64(m, "migrate_call_ms"), a));
    }
    field(out, *lmo_api_text(m, "outcome") ? "took" : "so far", buf);
    render_memory(json_object_get(m, "progress"), out);
    render_convergence(json_object_get(m, "convergence"), out);
    render_cutover(json_object_get(m, "cutover"), out);
    render_policy(json_object_get(m, "policy"), out);
    render_resources(json_object_get(m, "resources"), out);
    render_timeline(m, json_object_get(journal, "journal"), style, out);
}

void lmo_render_migration_whole(const json_t *m, const struct lmo_style *style, FILE *out)
{
    lmo_render_migration(m, m, style, out);
}
