/* render_drain.c - drains, plans, explanations, policies and leases as text; see render.h. */
#include "cli/api.h"
#include "cli/render.h"

#include <inttypes.h>
#include <string.h>

static void row(struct lmo_grid *t, const char *const *cells, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        lmo_grid_cell(t, cells[i] && *cells[i] ? cells[i] : "-");
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

/* "3.2 s", "1-4 min": from low to high. */
static const char *range(uint64_t low, uint64_t high, char *buf, size_t size)
{
    char a[LMO_FORMAT_MAX], b[LMO_FORMAT_MAX];
    if (high == 0)
        snprintf(buf, size, "-");
    else
        snprintf(buf, size, "%s to %s", lmo_format_ms(low, a), lmo_format_ms(high, b));
    return buf;
}

/* ------------------------------------------------------------------ drains */

const char *lmo_render_drain_progress(const json_t *drain, char buf[LMO_RENDER_LINE_MAX])
{
    const json_t *n = json_object_get(drain, "guests_by_state"), *eta = json_object_get(drain, "eta");
    char rate[LMO_FORMAT_MAX], left[128] = "", text[200] = "", safe[240];
    uint64_t open = lmo_api_u64(n, "queued") + lmo_api_u64(n, "waiting") + lmo_api_u64(n, "placing");
    if (json_is_object(eta)) {
        char r[100];
        snprintf(left, sizeof left, ", %s left",
                 range(lmo_api_u64(eta, "low_ms"), lmo_api_u64(eta, "high_ms"), r, sizeof r));
    }
    if (*lmo_api_text(drain, "waiting_for"))
        snprintf(text, sizeof text, "; waiting for %.180s", lmo_api_text(drain, "waiting_for"));
    snprintf(buf, LMO_RENDER_LINE_MAX,
             "%-10s %3" PRIu64 " %%  %" PRIu64 " moved, %" PRIu64 " moving, %" PRIu64 " to go, %" PRIu64
             " failed, %s%s%s",
             lmo_api_text(drain, "state"), lmo_api_u64(drain, "percent"), lmo_api_u64(n, "moved"),
             lmo_api_u64(n, "moving") + lmo_api_u64(n, "starting"), open, lmo_api_u64(n, "failed"),
             lmo_format_rate(lmo_api_u64(drain, "rate_bytes_per_s"), rate), left,
             lmo_format_safe(text, safe, sizeof safe));
    return buf;
}

void lmo_render_drains(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"ID", "KIND", "STATE", "%", "HOSTS", "GUESTS", "BEGUN", "WAITING FOR"};
    struct lmo_grid t = {.columns = 8, .right = 0x38};
    size_t i = 0;
    const json_t *d;
    row(&t, names, 8);
    json_array_foreach(json_object_get(answer, "drains"), i, d)
    {
        char percent[16], hosts[24], guests[24], begun[LMO_FORMAT_MAX];
        const char *why = *lmo_api_text(d, "waiting_for") ? lmo_api_text(d, "waiting_for") : lmo_api_text(d, "reason");
        snprintf(percent, sizeof percent, "%" PRIu64, lmo_api_u64(d, "percent"));
        snprintf(hosts, sizeof hosts, "%" PRIu64, lmo_api_u64(d, "host_count"));
        snprintf(guests, sizeof guests, "%" PRIu64, lmo_api_u64(d, "guest_count"));
        const char *cells[] = {lmo_api_text(d, "id"),
                               lmo_api_text(d, "kind"),
                               lmo_api_text(d, "state"),
                               percent,
                               hosts,
                               guests,
                               lmo_format_time(lmo_api_u64(d, "created_ms"), begun),
                               why};
        row(&t, cells, 8);
    }
    finish(&t, style, out, "no drains");
}

static void drain_hosts(const json_t *drain, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"HOST", "STATE", "GUESTS", "MOVED", "FAILED", "SKIPPED", "WHY"};
    struct lmo_grid t = {.columns = 7, .right = 0x3c};
    size_t i = 0;
    const json_t *h;
    row(&t, names, 7);
    json_array_foreach(json_object_get(drain, "hosts"), i, h)
    {
        char n[4][24];
        static const char *const members[] = {"guests", "moved", "failed", "skipped"};
        for (unsigned m = 0; m < 4; m++)
            snprintf(n[m], sizeof n[m], "%" PRIu64, lmo_api_u64(h, members[m]));
        const char *cells[] = {lmo_api_text(h, "name"),  lmo_api_text(h, "state"), n[0], n[1], n[2], n[3],
                               lmo_api_text(h, "reason")};
        row(&t, cells, 7);
    }
    finish(&t, style, out, "no hosts");
}

static void drain_guests(const json_t *drain, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"GUEST", "FROM", "TO", "STATE", "%", "RATE", "LEFT", "TRIES", "WHY"};
    struct lmo_grid t = {.columns = 9, .right = 0xb0};
    size_t i = 0;
    const json_t *g;
    row(&t, names, 9);
    json_array_foreach(json_object_get(drain, "guests"), i, g)
    {
        char percent[16], rate[LMO_FORMAT_MAX] = "", left[100] = "", tries[16], why[400];
        const json_t *eta = json_object_get(g, "eta");
        uint64_t speed = lmo_api_u64(g, "rate_bytes_per_s");
        snprintf(percent, sizeof percent, "%" PRIu64, lmo_api_u64(g, "percent"));
        snprintf(tries, sizeof tries, "%zu", json_array_size(json_object_get(g, "tries")));
        if (speed > 0)
            lmo_format_rate(speed, rate);
        if (json_is_object(eta))
            range(lmo_api_u64(eta, "low_ms"), lmo_api_u64(eta, "high_ms"), left, sizeof left);
        const char *reason = lmo_api_text(g, "reason"), *waits = lmo_api_text(g, "waiting_for"),
                   *phase = lmo_api_text(g, "phase");
        snprintf(why, sizeof why, "%s%s%s", *waits ? "waiting for " : "",
                 *waits    ? waits
                 : *reason ? reason
                           : phase,
                 "");
        const char *cells[] = {lmo_api_text(g, "name"),
                               lmo_api_text(g, "host"),
                               lmo_api_text(g, "destination"),
                               lmo_api_text(g, "state"),
                               percent,
                               rate,
                               left,
                               tries,
                               why};
        row(&t, cells, 9);
    }
    finish(&t, style, out, "no guests");
}

void lmo_render_drain(const json_t *drain, const struct lmo_style *style, FILE *out)
{
    char buf[LMO_FORMAT_MAX], progress[LMO_RENDER_LINE_MAX];
    line(out, "id", lmo_api_text(drain, "id"));
    line(out, "state", lmo_render_drain_progress(drain, progress));
    if (*lmo_api_text(drain, "reason"))
        line(out, "reason", lmo_api_text(drain, "reason"));
    if (lmo_api_u64(drain, "waiting_since_ms"))
        line(out, "waits since", lmo_format_time(lmo_api_u64(drain, "waiting_since_ms"), buf));
    line(out, "asked by", lmo_api_text(drain, "requested_by"));
    line(out, "begun", lmo_format_time(lmo_api_u64(drain, "created_ms"), buf));
    if (lmo_api_u64(drain, "ended_ms"))
        line(out, "ended", lmo_format_time(lmo_api_u64(drain, "ended_ms"), buf));
    fputc('\n', out);
    drain_hosts(drain, style, out);
    fputc('\n', out);
    drain_guests(drain, style, out);
    size_t shown = json_array_size(json_object_get(drain, "guests"));
    uint64_t all = lmo_api_u64(drain, "guest_count");
    if (shown < all)
        fprintf(out, "%zu of %" PRIu64 " guests are shown\n", shown, all);
}

/* ------------------------------------------------------------------ plans */

void lmo_render_plan(const json_t *plan, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"#", "GUEST", "FROM", "TO", "WHY", "HOW", "AFTER", "STARTS", "TAKES"};
    static const char *const none[] = {"GUEST", "HOST", "POLICY", "WHY NOT"};
    struct lmo_grid t = {.columns = 9, .right = 0x81}, b = {.columns = 4};
    char buf[100];
    size_t i = 0, n = 0;
    const json_t *m, *a;
    row(&t, names, 9);
    json_array_foreach(json_object_get(plan, "moves"), i, m)
    {
        char order[16], after[80] = "", starts[LMO_FORMAT_MAX], takes[100];
        size_t used = 0;
        json_array_foreach(json_object_get(m, "after"), n, a)
        {
            if (used < sizeof after)
                used += (size_t)snprintf(after + used, sizeof after - used, "%s%" JSON_INTEGER_FORMAT, used ? "," : "",
                                         json_integer_value(a));
        }
        snprintf(order, sizeof order, "%" PRIu64, lmo_api_u64(m, "order"));
        const char *cells[] = {order,
                               lmo_api_text(m, "name"),
                               lmo_api_text(m, "from"),
                               lmo_api_text(m, "to"),
                               lmo_api_text(m, "why"),
                               lmo_api_text(m, "way"),
                               after,
                               lmo_format_ms(lmo_api_u64(m, "start_ms"), starts),
                               range(lmo_api_u64(m, "low_ms"), lmo_api_u64(m, "high_ms"), takes, sizeof takes)};
        row(&t, cells, 9);
    }
    finish(&t, style, out, "nothing would be moved");
    row(&b, none, 4);
    json_array_foreach(json_object_get(plan, "blocked"), i, m)
    {
        const char *cells[] = {lmo_api_text(m, "name"), lmo_api_text(m, "host"), lmo_api_text(m, "unmovable"),
                               lmo_api_text(m, "text")};
        row(&b, cells, 4);
    }
    if (b.rows > 1) {
        fputc('\n', out);
        lmo_grid_print(&b, style, out);
    }
    lmo_grid_release(&b);
    fputc('\n', out);
    line(out, "plan", lmo_api_text(plan, "plan"));
    line(out, "takes", range(lmo_api_u64(plan, "low_ms"), lmo_api_u64(plan, "high_ms"), buf, sizeof buf));
    if (*lmo_api_text(plan, "text"))
        line(out, "in short", lmo_api_text(plan, "text"));
}

void lmo_render_explain(const json_t *answer, const struct lmo_style *style, FILE *out)
{
    static const char *const names[] = {"HOST", "TAKES IT", "SCORE", "WHY"};
    struct lmo_grid t = {.columns = 4, .right = 0x4};
    size_t i = 0;
    const json_t *h;
    line(out, "guest", lmo_api_text(answer, "name"));
    line(out, "is on", lmo_api_text(answer, "host"));
    line(out, "moves", *lmo_api_text(answer, "text") ? lmo_api_text(answer, "text") : lmo_api_text(answer, "way"));
    fputc('\n', out);
    row(&t, names, 4);
    json_array_foreach(json_object_get(answer, "hosts"), i, h)
    {
        bool possible = json_is_true(json_object_get(h, "possible"));
        char score[24] = "", why[400];
        const char *key;
        json_t *part;
        size_t used = 0;
        if (possible)
            snprintf(score, sizeof score, "%" PRIu64, lmo_api_u64(h, "score"));
        snprintf(why, sizeof why, "%s", lmo_api_text(h, "text"));
        if (possible) {
            json_object_foreach(json_object_get(h, "parts"), key, part)
            {
                if (used < sizeof why)
                    used += (size_t)snprintf(why + used, sizeof why - used, "%s%s %" JSON_INTEGER_FORMAT,
                                             used ? ", " : "", key, json_integer_value(part));
            }
        }
        const char *cells[] = {lmo_api_text(h, "host"), possible ? "yes" : "no", score, why};
        row(&t, cells, 4);
    }
    finish(&t, style, out, "no hosts");
}

/* ------------------------------------------------------------------ policies and leases */

void lmo_render_policy(const json_t *policy, const struct lmo_style *style, FILE *out)
{
    const char *key;
    json_t *value;
    size_t i = 0;
    const json_t *g;
    (void)style;
    line(out, "guest", lmo_api_text(policy, "vm"));
    line(out, "unmovable",
         *lmo_api_text(policy, "unmovable") ? lmo_api_text(policy, "unmovable") : "as the drain says");
    json_object_foreach(json_object_get(policy, "labels"), key, value)
    {
        char text[300];
        snprintf(text, sizeof text, "%s=%s", key, json_is_string(value) ? json_string_value(value) : "?");
        line(out, "label", text);
    }
    json_array_foreach(json_object_get(policy, "groups"), i, g)
    {
        char text[300];
        snprintf(text, sizeof text, "%s: %s%s", lmo_api_text(g, "name"), lmo_api_text(g, "kind"),
                 json_is_true(json_object_get(g, "hard")) ? ", a rule" : ", if it can be");
        line(out, "group", text);
    }
}

void lmo_render_lease(const json_t *lease, const struct lmo_style *style, FILE *out)
{
    char buf[LMO_FORMAT_MAX];
    (void)style;
    line(out, "guest", lmo_api_text(lease, "vm"));
    if (!*lmo_api_text(lease, "holder")) {
        line(out, "lease", "nobody holds one");
        return;
    }
    line(out, "held by", lmo_api_text(lease, "holder"));
    line(out, "reason", lmo_api_text(lease, "reason"));
    line(out, "until", lmo_format_time(lmo_api_u64(lease, "until_ms"), buf));
}
