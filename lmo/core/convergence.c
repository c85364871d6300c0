/* convergence.c - see convergence.h. */
#include "core/convergence.h"

#include "core/migration.h"

#include <stdio.h>
#include <string.h>

#define MIB(b)             ((unsigned long long)((b) >> 20))
#define U(n)               ((unsigned long long)(n))
#define ETA_MARGIN_PERCENT 25   /* on top of what a steady guest would need */
#define ETA_MARGIN_MS      1000 /* samples are up to half a second old, orders take their way */
#define YEAR_MS            (UINT64_C(365) * 24 * 3600 * 1000)

/* ------------------------------------------------------------------ words */

static int find(const char *const *words, int count, const char *text)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], text) == 0) {
            return i;
        }
    }
    return -1;
}

#define WORDS(name, ...)                                                                      \
    static const char *const name##_words[] = {__VA_ARGS__};                                  \
    const char *lmo_##name##_text(int v)                                                      \
    {                                                                                         \
        int count = (int)(sizeof name##_words / sizeof name##_words[0]);                      \
        return v < 0 || v >= count ? NULL : name##_words[v];                                  \
    }                                                                                         \
    int lmo_##name##_from_text(const char *text)                                              \
    {                                                                                         \
        return find(name##_words, (int)(sizeof name##_words / sizeof name##_words[0]), text); \
    }

WORDS(on_timeout, "abort", "force")
WORDS(prediction, "warn", "off", "queue", "refuse")
WORDS(outlook, "unknown", "converges", "throttled", "forced", "too_slow", "never")
WORDS(conv_stage, "none", "disks", "memory", "forced")
WORDS(eta_kind, "none", "disks", "first_pass", "converging", "not_converging", "forced")

/* ------------------------------------------------------------------ arithmetic that cannot overflow */

/* Bytes at a rate, in ms; a year for what takes longer, and for a rate of 0. */
static uint64_t ms_of(uint64_t bytes, uint64_t bytes_per_s)
{
    if (bytes_per_s == 0) {
        return bytes ? YEAR_MS : 0;
    }
    uint64_t seconds = bytes / bytes_per_s, rest = bytes % bytes_per_s;
    if (seconds >= YEAR_MS / 1000) {
        return YEAR_MS;
    }
    return seconds * 1000 + (uint64_t)((double)rest * 1000.0 / (double)bytes_per_s);
}

/* What a rate sends in so many ms. */
static uint64_t bytes_of(uint64_t bytes_per_s, uint64_t ms)
{
    double bytes = (double)bytes_per_s * (double)ms / 1000.0;
    return bytes >= 9e18 ? UINT64_C(9000000000000000000) : (uint64_t)bytes;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ------------------------------------------------------------------ budgets */

static struct lmo_budget budget(uint64_t by_policy_ms, uint64_t base_ms, unsigned factor, uint64_t bytes,
                                uint64_t bandwidth)
{
    struct lmo_budget b = {.bytes = bytes, .bandwidth_bytes_per_s = bandwidth, .nominal = bandwidth == 0};
    if (b.nominal) {
        b.bandwidth_bytes_per_s = LMO_CONV_NOMINAL_BPS;
    }
    b.by_policy = by_policy_ms > 0;
    b.ms = b.by_policy ? by_policy_ms : base_ms + factor * ms_of(bytes, b.bandwidth_bytes_per_s);
    b.ms = least(b.ms, LMO_CONV_TIMEOUT_MAX_MS);
    return b;
}

void lmo_budget_text(const struct lmo_budget *b, uint64_t base_ms, unsigned factor, char *ret, unsigned size)
{
    if (b->by_policy) {
        (void)snprintf(ret, size, "by policy");
    } else {
        (void)snprintf(ret, size, "%llu s + %u x %llu MiB / %.1f MiB/s%s", U(base_ms / 1000), factor, MIB(b->bytes),
                       (double)b->bandwidth_bytes_per_s / 1048576.0, b->nominal ? ", nominal" : "");
    }
}

static void compute_budgets(struct lmo_convergence *c, const struct lmo_policy *p, uint64_t memory, uint64_t bandwidth)
{
    c->memory = budget(p->convergence_timeout_ms, LMO_CONV_BASE_MS, LMO_CONV_FACTOR, memory, bandwidth);
    c->grace = budget(0, LMO_CONV_GRACE_BASE_MS, 1, memory, bandwidth);
    if (c->disk.ms > 0) {
        c->disk = budget(p->disk_timeout_ms, LMO_CONV_BASE_MS, LMO_CONV_FACTOR, c->disk.bytes, bandwidth);
    }
}

void lmo_convergence_begin(struct lmo_convergence *c, const struct lmo_policy *policy, uint64_t memory_bytes,
                           uint64_t bandwidth_bytes_per_s, int64_t now_ms)
{
    struct lmo_forecast forecast = c->forecast;
    *c = (struct lmo_convergence){.forecast = forecast,
                                  .stage = LMO_CONV_MEMORY,
                                  .began_ms = now_ms,
                                  .stage_ms = now_ms};
    compute_budgets(c, policy, memory_bytes, bandwidth_bytes_per_s);
}

void lmo_convergence_bandwidth(struct lmo_convergence *c, const struct lmo_policy *policy, uint64_t memory_bytes,
                               uint64_t bandwidth_bytes_per_s)
{
    struct lmo_budget disk = c->disk, memory = c->memory, grace = c->grace;
    compute_budgets(c, policy, memory_bytes, bandwidth_bytes_per_s);
    c->disk = disk.ms > c->disk.ms ? disk : c->disk;
    c->memory = memory.ms > c->memory.ms ? memory : c->memory;
    c->grace = grace.ms > c->grace.ms ? grace : c->grace;
}

int64_t lmo_convergence_deadline(const struct lmo_convergence *c)
{
    const struct lmo_budget *b = c->stage == LMO_CONV_DISKS    ? &c->disk
                                 : c->stage == LMO_CONV_FORCED ? &c->grace
                                                               : &c->memory;
    return c->stage_ms + (int64_t)b->ms;
}

uint64_t lmo_convergence_longest_ms(const struct lmo_convergence *c)
{
    return c->disk.ms + c->memory.ms + c->grace.ms;
}

/* ------------------------------------------------------------------ before the start */

static void forecast_text(struct lmo_forecast *f, const char *verdict, const char *more)
{
    (void)snprintf(f->text, sizeof f->text, "%s: dirties %llu MiB/s, gets %llu MiB/s (measured %.1f s ago)%s", verdict,
                   MIB(f->dirty_bytes_per_s), MIB(f->bandwidth_bytes_per_s), (double)f->age_ms / 1000.0, more);
}

/* Dirties at least as fast as it is sent: no pass is smaller than the one before, and each is as large as what gets
 * dirty while it lasts. It ends only if that fits into the pause. */
static void outrun(const struct lmo_policy *p, struct lmo_forecast *f)
{
    char more[96];
    uint64_t again = bytes_of(f->dirty_bytes_per_s, LMO_CONV_PERIOD_MS);
    uint64_t pause_ms = ms_of(again, f->bandwidth_bytes_per_s);
    (void)snprintf(more, sizeof more, "; its pause would have to be %llu ms or more", U(pause_ms));
    if (pause_ms <= p->max_downtime_ms) {
        f->outlook = LMO_OUTLOOK_CONVERGES; /* a pause of a second and more is allowed: that much is sent in it */
        forecast_text(f, "converges to a long pause", "");
    } else if (p->allow_throttle) {
        f->outlook = LMO_OUTLOOK_THROTTLED;
        forecast_text(f, "will converge only if its vCPUs are throttled", "");
    } else if (p->on_timeout == LMO_ON_TIMEOUT_FORCE && pause_ms <= p->force_max_pause_ms) {
        f->outlook = LMO_OUTLOOK_FORCED;
        forecast_text(f, "will converge only by force", more);
    } else {
        f->outlook = LMO_OUTLOOK_NEVER;
        forecast_text(f, "will not converge", more);
    }
}

/* Pass sizes form a geometric series with the ratio d / b: their sum down to what the pause takes. d < b. */
static uint64_t series_ms(const struct lmo_policy *policy, uint64_t bytes, uint64_t d, uint64_t b)
{
    uint64_t rest = bytes_of(b, policy->max_downtime_ms);
    return ms_of(bytes > rest ? bytes - rest : 0, b - d);
}

uint64_t lmo_convergence_needed_ms(const struct lmo_policy *policy, uint64_t bytes, uint64_t dirty_bytes_per_s,
                                   uint64_t bandwidth_bytes_per_s)
{
    uint64_t b = bandwidth_bytes_per_s ? bandwidth_bytes_per_s : LMO_CONV_NOMINAL_BPS;
    return dirty_bytes_per_s < b ? most(series_ms(policy, bytes, dirty_bytes_per_s, b), 1) : 0;
}

void lmo_convergence_forecast(const struct lmo_policy *policy, const struct lmo_forecast_facts *facts,
                              struct lmo_forecast *ret)
{
    *ret = (struct lmo_forecast){.dirty_bytes_per_s = facts->dirty_bytes_per_s,
                                 .bandwidth_bytes_per_s = facts->bandwidth_bytes_per_s,
                                 .age_ms = facts->age_ms};
    uint64_t b = facts->bandwidth_bytes_per_s, d = facts->dirty_bytes_per_s;
    if (facts->age_ms == 0) {
        (void)snprintf(ret->text, sizeof ret->text, "not predicted: its dirty rate has not been measured");
        return;
    }
    if (b == 0) {
        (void)snprintf(ret->text, sizeof ret->text,
                       "not predicted: dirties %llu MiB/s, and no bandwidth is stated for it", MIB(d));
        return;
    }
    if (d >= b) {
        outrun(policy, ret);
        return;
    }
    ret->needed_ms = series_ms(policy, facts->memory_bytes, d, b);
    struct lmo_budget own =
        budget(policy->convergence_timeout_ms, LMO_CONV_BASE_MS, LMO_CONV_FACTOR, facts->memory_bytes, b);
    char more[96];
    (void)snprintf(more, sizeof more, "; needs about %llu s, has %llu s", U(ret->needed_ms / 1000), U(own.ms / 1000));
    if (ret->needed_ms <= own.ms) {
        ret->outlook = LMO_OUTLOOK_CONVERGES;
        forecast_text(ret, "will converge", more);
    } else {
        ret->outlook = policy->allow_throttle ? LMO_OUTLOOK_THROTTLED : LMO_OUTLOOK_TOO_SLOW;
        forecast_text(ret,
                      policy->allow_throttle ? "will converge in time only if its vCPUs are throttled"
                                             : "will not converge in time",
                      more);
    }
}

bool lmo_forecast_fails(const struct lmo_forecast *f)
{
    return f->outlook == LMO_OUTLOOK_NEVER || f->outlook == LMO_OUTLOOK_TOO_SLOW;
}

/* ------------------------------------------------------------------ passes and stalls */

/* A pass ended between two samples. What it left is the size of the next one: what remains of that now, and what of
 * it was sent already: all that was sent since, less what the pass before still had to send. Over several short
 * passes: the mean of them. */
static uint64_t rest_of_pass(const struct lmo_progress *before, const struct lmo_progress *now)
{
    uint64_t sent =
        now->transferred_bytes > before->transferred_bytes ? now->transferred_bytes - before->transferred_bytes : 0;
    uint64_t of_next = sent > before->remaining_bytes ? sent - before->remaining_bytes : 0;
    uint64_t passes = now->iteration - before->iteration;
    uint64_t sum = now->remaining_bytes + of_next;
    return passes > 1 ? most(sum / passes, now->remaining_bytes) : sum;
}

static void remember_pass(struct lmo_convergence *c, uint32_t number, uint64_t rest)
{
    unsigned room = sizeof c->passes / sizeof c->passes[0];
    if (c->pass_count == room) {
        memmove(&c->passes[0], &c->passes[1], (room - 1) * sizeof c->passes[0]);
        c->pass_count--;
    }
    c->passes[c->pass_count++] = (struct lmo_pass){.number = number, .rest_bytes = rest};
}

uint64_t lmo_convergence_least_rest(const struct lmo_convergence *c)
{
    uint64_t best = c->pass_count ? UINT64_MAX : 0;
    for (unsigned i = c->pass_count > LMO_CONV_WINDOW ? c->pass_count - LMO_CONV_WINDOW : 0; i < c->pass_count; i++) {
        best = least(best, c->passes[i].rest_bytes);
    }
    return best;
}

/* Is none of the newest WINDOW rests smaller, by as much as asked for, than the one before them? */
static bool window_unimproved(const struct lmo_convergence *c)
{
    uint64_t wanted = c->passes[0].rest_bytes / 100 * (100 - LMO_CONV_IMPROVEMENT_PERCENT);
    return c->pass_count > LMO_CONV_WINDOW && lmo_convergence_least_rest(c) > wanted;
}

/* True if a pass has ended. */
static bool take_pass(struct lmo_convergence *c, const struct lmo_conv_facts *f, struct lmo_conv_order *ret)
{
    const struct lmo_progress *before = f->before, *now = f->now;
    if (now->iteration <= before->iteration || before->iteration == 0) {
        c->pass_bytes = most(c->pass_bytes, now->remaining_bytes);
        return false;
    }
    uint64_t rest = rest_of_pass(before, now);
    remember_pass(c, now->iteration - 1, rest);
    c->pass_bytes = rest;
    c->unimproved = window_unimproved(c) ? c->unimproved + 1 : 0;
    bool stalled = c->unimproved >= LMO_CONV_STALLS;
    ret->stalled_now = stalled && !c->stalled;
    c->stalled = stalled;
    return true;
}

/* ------------------------------------------------------------------ ETA */

/* A steady guest: the rest of this pass, then passes that shrink by d / b each, until what is left fits into the
 * pause. */
static uint64_t steady_ms(const struct lmo_convergence *c, const struct lmo_conv_facts *f, uint64_t b, uint64_t d)
{
    uint64_t fits = bytes_of(b, f->downtime_ms);
    uint64_t next = bytes_of(d, ms_of(c->pass_bytes, b));
    uint64_t more = next > fits ? ms_of(next - fits, b - d) : 0;
    uint64_t ms = ms_of(f->now->remaining_bytes, b) + more + ms_of(least(next, fits), b);
    return ms + ms / 100 * ETA_MARGIN_PERCENT + ETA_MARGIN_MS;
}

static enum lmo_eta_kind eta_kind(const struct lmo_convergence *c, const struct lmo_conv_facts *f, bool pass_ended)
{
    const struct lmo_progress *p = f->now;
    if (c->stage == LMO_CONV_DISKS) {
        return LMO_ETA_DISKS;
    }
    if (c->stage == LMO_CONV_FORCED) {
        return LMO_ETA_FORCED;
    }
    if (c->samples < 2 || p->rate_bytes_per_s == 0) {
        return LMO_ETA_NONE; /* what is measured is the shut gate's */
    }
    if (p->iteration <= 1) {
        return LMO_ETA_FIRST_PASS;
    }
    /* Looked at where a pass ends: rates swing within one. */
    bool known = c->eta.kind == LMO_ETA_CONVERGING || c->eta.kind == LMO_ETA_NOT_CONVERGING;
    if (known && !pass_ended) {
        return c->eta.kind;
    }
    return c->stalled || p->dirty_bytes_per_s >= p->rate_bytes_per_s ? LMO_ETA_NOT_CONVERGING : LMO_ETA_CONVERGING;
}

/* How late it may get at the very end. */
static int64_t latest_ms(const struct lmo_convergence *c, const struct lmo_conv_facts *f)
{
    int64_t at = lmo_convergence_deadline(c);
    if (c->stage == LMO_CONV_DISKS) {
        at += (int64_t)c->memory.ms;
    }
    if (c->stage != LMO_CONV_FORCED && f->policy->on_timeout == LMO_ON_TIMEOUT_FORCE) {
        at += (int64_t)c->grace.ms;
    }
    return at > f->now_ms ? at : f->now_ms;
}

static void estimate(const struct lmo_convergence *c, const struct lmo_conv_facts *f, enum lmo_eta_kind kind,
                     int64_t *ret_low, int64_t *ret_high)
{
    const struct lmo_progress *p = f->now;
    uint64_t b = p->rate_bytes_per_s, best = most(b, p->bandwidth_bytes_per_s);
    uint64_t low = 0, high = YEAR_MS, d = p->dirty_bytes_per_s;
    bool steady = kind == LMO_ETA_CONVERGING;
    if (kind == LMO_ETA_DISKS) {
        low = ms_of(p->disk_remaining_bytes, most(p->disk_rate_bytes_per_s, f->bandwidth_bytes_per_s));
    } else {
        uint64_t fits = bytes_of(best, most(f->downtime_ms, f->policy->max_downtime_ms));
        low = ms_of(p->remaining_bytes > fits ? p->remaining_bytes - fits : 0, best);
    }
    if (kind == LMO_ETA_FIRST_PASS &&
        c->forecast.age_ms > 0) { /* before QEMU has measured: what was known of the guest */
        d = c->forecast.dirty_bytes_per_s;
        steady = true;
    }
    if (steady && d < b) {
        high = steady_ms(c, f, b, d);
    }
    *ret_high = (int64_t)least((uint64_t)latest_ms(c, f), (uint64_t)f->now_ms + high);
    *ret_low = (int64_t)least((uint64_t)f->now_ms + least(low, YEAR_MS), (uint64_t)*ret_high);
}

static void take_eta(struct lmo_convergence *c, const struct lmo_conv_facts *f, bool pass_ended)
{
    struct lmo_eta *e = &c->eta;
    enum lmo_eta_kind kind = eta_kind(c, f, pass_ended);
    uint64_t limit = f->now->bandwidth_bytes_per_s;
    if (kind == LMO_ETA_NONE) {
        return; /* not known yet; what was said once is not taken back by a sample without a rate */
    }
    int64_t low, high;
    estimate(c, f, kind, &low, &high);
    if (kind != e->kind || limit != e->bandwidth_bytes_per_s || f->now_ms > e->high_ms) {
        *e = (struct lmo_eta){
            .kind = kind, .revision = e->revision + 1, .low_ms = low, .high_ms = high, .bandwidth_bytes_per_s = limit};
        return;
    }
    /* V3: narrower, or as it was. An estimate that lies outside of what was promised is the nearest end of that. */
    int64_t new_high = high < e->low_ms ? e->low_ms : high < e->high_ms ? high : e->high_ms;
    int64_t new_low = low > new_high ? new_high : low > e->low_ms ? low : e->low_ms;
    e->low_ms = new_low;
    e->high_ms = new_high;
}

/* ------------------------------------------------------------------ decisions */

static void take_stage(struct lmo_convergence *c, const struct lmo_conv_facts *f)
{
    const struct lmo_progress *p = f->now;
    bool memory_waits = p->total_bytes == 0 && p->disk_total_bytes > 0;
    if (c->stage == LMO_CONV_MEMORY && memory_waits && c->disk.ms == 0) {
        c->stage = LMO_CONV_DISKS;
        c->disk = budget(f->policy->disk_timeout_ms, LMO_CONV_BASE_MS, LMO_CONV_FACTOR, p->disk_total_bytes,
                         f->bandwidth_bytes_per_s);
    } else if (c->stage == LMO_CONV_DISKS && p->total_bytes > 0) {
        c->stage = LMO_CONV_MEMORY;
        c->stage_ms = f->now_ms;
    }
}

/* Has the limit that is in force had its chance? A stall takes it away. */
static void raise_downtime(const struct lmo_convergence *c, const struct lmo_conv_facts *f, struct lmo_conv_order *ret)
{
    uint32_t cap = f->policy->max_downtime_ms;
    uint32_t passes = c->stalled ? 1 : LMO_DOWNTIME_PASSES;
    bool had = f->ordered_in_pass > 0 && f->now->iteration >= f->ordered_in_pass + passes;
    if (!f->open || !had || f->downtime_ms >= cap || c->stage != LMO_CONV_MEMORY) {
        return;
    }
    ret->act = LMO_CONV_RAISE;
    ret->downtime_ms = f->downtime_ms > cap / 2 ? cap : 2 * f->downtime_ms;
    (void)snprintf(ret->text, sizeof ret->text,
                   c->stalled ? "stalled at the limit before it" : "not converged to the limit before it");
}

void lmo_convergence_sample(struct lmo_convergence *c, const struct lmo_conv_facts *f, struct lmo_conv_order *ret)
{
    *ret = (struct lmo_conv_order){.downtime_ms = f->downtime_ms};
    take_stage(c, f);
    bool ended = take_pass(c, f, ret);
    if (f->open && c->samples < UINT32_MAX) {
        c->samples++;
    }
    raise_downtime(c, f, ret);
    take_eta(c, f, ended);
}

static void give_up_text(const struct lmo_convergence *c, const struct lmo_conv_facts *f, char *ret, unsigned size)
{
    const struct lmo_progress *p = f->now;
    char rates[160], how[80];
    uint64_t size_bytes = most(c->pass_bytes, p->remaining_bytes);
    (void)snprintf(rates, sizeof rates,
                   "%llu MiB remaining after %u iteration(s), transfers %llu MiB/s, dirties %llu MiB/s",
                   MIB(p->remaining_bytes), p->iteration, MIB(p->rate_bytes_per_s), MIB(p->dirty_bytes_per_s));
    if (c->stage == LMO_CONV_FORCED) {
        (void)snprintf(ret, size,
                       "did not converge to a pause of %u ms within %llu ms of grace either: %s; a pass takes %llu ms",
                       f->downtime_ms, U(c->grace.ms), rates, U(ms_of(size_bytes, p->rate_bytes_per_s)));
    } else if (c->stage == LMO_CONV_DISKS) {
        lmo_budget_text(&c->disk, LMO_CONV_BASE_MS, LMO_CONV_FACTOR, how, sizeof how);
        (void)snprintf(ret, size,
                       "disks were not copied within %llu ms (%s): %llu of %llu MiB remaining, transfers %llu MiB/s",
                       U(c->disk.ms), how, MIB(p->disk_remaining_bytes), MIB(p->disk_total_bytes),
                       MIB(p->disk_rate_bytes_per_s));
    } else {
        lmo_budget_text(&c->memory, LMO_CONV_BASE_MS, LMO_CONV_FACTOR, how, sizeof how);
        (void)snprintf(ret, size, "did not converge within %llu ms (%s): %s", U(c->memory.ms), how, rates);
    }
}

void lmo_convergence_time_out(struct lmo_convergence *c, const struct lmo_conv_facts *f, struct lmo_conv_order *ret)
{
    *ret = (struct lmo_conv_order){.downtime_ms = f->downtime_ms};
    if (f->now_ms < lmo_convergence_deadline(c)) {
        return;
    }
    const struct lmo_policy *p = f->policy;
    bool force =
        p->on_timeout == LMO_ON_TIMEOUT_FORCE && c->stage == LMO_CONV_MEMORY && p->force_max_pause_ms > f->downtime_ms;
    give_up_text(c, f, ret->text, sizeof ret->text);
    if (!force) {
        ret->act = LMO_CONV_ABORT;
        return;
    }
    c->stage = LMO_CONV_FORCED;
    c->stage_ms = f->now_ms;
    ret->act = LMO_CONV_FORCE;
    ret->downtime_ms = p->force_max_pause_ms;
}
