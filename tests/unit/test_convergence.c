/* test_convergence.c - convergence control: recorded traces replayed through it, forecasts, budgets, and what must
 * hold for any trace at all. The traces are in tests/traces, each with the command that recorded it. */
#include "core/convergence.h"

#include "core/migration.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Suite *convergence_suite(void);

#define MIB      (UINT64_C(1) << 20)
#define ROWS_MAX 256

/* ------------------------------------------------------------------ traces */

struct trace {
    unsigned count;
    struct lmo_progress row[ROWS_MAX];
};

static void load(const char *name, struct trace *ret)
{
    char path[512], line[512];
    snprintf(path, sizeof path, LMO_SOURCE_DIR "/tests/traces/%s.csv", name);
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "%s is missing", path);
    *ret = (struct trace){0};
    while (fgets(line, sizeof line, f)) {
        struct lmo_progress p = {0};
        unsigned long long v[8];
        if (sscanf(line, "%llu,%llu,%llu,%llu,%llu,%llu,%llu,%llu", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6],
                   &v[7]) != 8)
            continue;
        p.elapsed_ms = v[0];
        p.iteration = (uint32_t)v[1];
        p.total_bytes = v[2];
        p.transferred_bytes = v[3];
        p.remaining_bytes = v[4];
        p.rate_bytes_per_s = v[5];
        p.dirty_bytes_per_s = v[6];
        p.throttle_percent = (uint32_t)v[7];
        ck_assert_uint_lt(ret->count, ROWS_MAX);
        ret->row[ret->count++] = p;
    }
    fclose(f);
    ck_assert_msg(ret->count > 4, "%s holds no trace", path);
}

/* What came of a replay. Orders are confirmed at once; a trace does not answer to them, it was recorded at 1 ms. */
struct replay {
    struct lmo_convergence c;
    struct lmo_policy policy;
    uint32_t downtime_ms, ordered_in_pass, raises, stalls;
    uint32_t first_raise_pass, first_stall_pass;
    int64_t now_ms, aborted_ms, forced_ms;
    uint32_t fits_at_ms; /* limit in force when the guest would have been switched over; 0: never */
    int64_t fits_ms;
    char reason[LMO_TEXT_MAX];
};

static void begin(struct replay *r, uint64_t memory, uint64_t bandwidth)
{
    r->downtime_ms =
        r->policy.max_downtime_ms < LMO_DOWNTIME_FIRST_MS ? r->policy.max_downtime_ms : LMO_DOWNTIME_FIRST_MS;
    r->now_ms = 1000000;
    lmo_convergence_begin(&r->c, &r->policy, memory, bandwidth, r->now_ms);
}

static struct lmo_conv_facts facts(struct replay *r, const struct lmo_progress *before, const struct lmo_progress *now)
{
    return (struct lmo_conv_facts){.policy = &r->policy,
                                   .downtime_ms = r->downtime_ms,
                                   .ordered_in_pass = r->ordered_in_pass,
                                   .open = true,
                                   .bandwidth_bytes_per_s = r->policy.bandwidth_bytes_per_s,
                                   .memory_bytes = r->c.memory.bytes,
                                   .before = before,
                                   .now = now,
                                   .now_ms = r->now_ms};
}

static void obey(struct replay *r, const struct lmo_conv_order *o, const struct lmo_progress *now)
{
    switch (o->act) {
    case LMO_CONV_NOTHING: break;
    case LMO_CONV_RAISE:
        r->first_raise_pass = r->raises++ == 0 ? now->iteration : r->first_raise_pass;
        /* fall through */
    case LMO_CONV_FORCE:
        ck_assert_uint_gt(o->downtime_ms, r->downtime_ms);
        r->downtime_ms = o->downtime_ms;
        r->ordered_in_pass = now->iteration;
        r->forced_ms = o->act == LMO_CONV_FORCE ? r->now_ms : r->forced_ms;
        break;
    case LMO_CONV_ABORT:
        r->aborted_ms = r->now_ms;
        memcpy(r->reason, o->text, sizeof r->reason);
        break;
    }
    if (o->stalled_now && r->stalls++ == 0)
        r->first_stall_pass = now->iteration;
}

static void feed(struct replay *r, const struct lmo_progress *before, const struct lmo_progress *now)
{
    struct lmo_conv_order o;
    r->ordered_in_pass = r->ordered_in_pass ? r->ordered_in_pass : now->iteration;
    struct lmo_conv_facts f = facts(r, before, now);
    lmo_convergence_sample(&r->c, &f, &o);
    obey(r, &o, now);
    if (r->now_ms >= lmo_convergence_deadline(&r->c) && !r->aborted_ms) {
        f = facts(r, now, now);
        lmo_convergence_time_out(&r->c, &f, &o);
        obey(r, &o, now);
    }
    /* QEMU switches over when what a pass has left is sent within the limit. */
    uint64_t rest = r->c.pass_count ? r->c.passes[r->c.pass_count - 1].rest_bytes : UINT64_MAX;
    if (!r->fits_at_ms && rest <= (uint64_t)((double)now->rate_bytes_per_s * r->downtime_ms / 1000)) {
        r->fits_at_ms = r->downtime_ms;
        r->fits_ms = r->now_ms;
    }
}

static void play(struct replay *r, const struct trace *t)
{
    struct lmo_progress none = {0};
    begin(r, t->row[0].total_bytes, r->policy.bandwidth_bytes_per_s);
    for (unsigned i = 0; i < t->count && !r->aborted_ms; i++) {
        r->now_ms = 1000000 + (int64_t)t->row[i].elapsed_ms;
        feed(r, i ? &t->row[i - 1] : &none, &t->row[i]);
    }
}

static const struct {
    const char *trace;
    uint64_t bandwidth_mib;
    uint32_t max_downtime_ms, timeout_ms;
    enum lmo_on_timeout on_timeout;
    uint32_t force_ms;
    /* expected */
    uint32_t fits_at_ms; /* 0: never */
    bool stalls, aborts, forces;
    enum lmo_eta_kind last_kind;
} table[] = {
    {"slow", 24, 300, 60000, LMO_ON_TIMEOUT_ABORT, 0, 120, false, false, false, LMO_ETA_CONVERGING},
    {"moderate", 48, 300, 60000, LMO_ON_TIMEOUT_ABORT, 0, 300, false, false, false, LMO_ETA_CONVERGING},
    {"creeping", 48, 300, 60000, LMO_ON_TIMEOUT_ABORT, 0, 300, false, false, false, LMO_ETA_CONVERGING},
    {"creeping", 48, 2000, 60000, LMO_ON_TIMEOUT_ABORT, 0, 960, false, false, false, LMO_ETA_CONVERGING},
    {"fast", 24, 300, 35000, LMO_ON_TIMEOUT_ABORT, 0, 0, true, true, false, LMO_ETA_NOT_CONVERGING},
    /* A pass leaves 125 MiB, which takes 5.2 s: 2 s of pause are not enough, 6 are. */
    {"fast", 24, 300, 30000, LMO_ON_TIMEOUT_FORCE, 2000, 0, true, false, true, LMO_ETA_FORCED},
    {"fast", 24, 300, 30000, LMO_ON_TIMEOUT_FORCE, 6000, 6000, true, false, true, LMO_ETA_FORCED},
    {"throttled", 48, 300, 60000, LMO_ON_TIMEOUT_ABORT, 0, 300, true, false, false, LMO_ETA_CONVERGING},
};

START_TEST(recorded_guests_are_judged_as_they_behaved)
{
    static struct trace t;
    load(table[_i].trace, &t);
    struct replay r = {.policy = {.bandwidth_bytes_per_s = table[_i].bandwidth_mib * MIB,
                                  .max_downtime_ms = table[_i].max_downtime_ms,
                                  .convergence_timeout_ms = table[_i].timeout_ms,
                                  .on_timeout = table[_i].on_timeout,
                                  .force_max_pause_ms = table[_i].force_ms}};
    play(&r, &t);
    printf("  %s: fits at %u ms, %u raises (first in pass %u), %u stalls (first in pass %u), eta %s rev %u, %s\n",
           table[_i].trace, r.fits_at_ms, r.raises, r.first_raise_pass, r.stalls, r.first_stall_pass,
           lmo_eta_kind_text((int)r.c.eta.kind), r.c.eta.revision, r.reason);
    ck_assert_uint_eq(r.fits_at_ms, table[_i].fits_at_ms);
    ck_assert_int_eq(r.stalls > 0, table[_i].stalls);
    ck_assert_int_eq(r.aborted_ms > 0, table[_i].aborts);
    ck_assert_int_eq(r.forced_ms > 0, table[_i].forces);
    ck_assert_int_eq(r.c.eta.kind, table[_i].last_kind);
    if (table[_i].aborts) {
        ck_assert_ptr_nonnull(strstr(r.reason, "by policy"));
        ck_assert_ptr_nonnull(strstr(r.reason, "MiB remaining"));
    }
}
END_TEST

/* ------------------------------------------------------------------ budgets and forecasts */

START_TEST(time_out_is_scaled_by_what_is_to_be_moved_and_a_policy_value_wins)
{
    struct lmo_convergence c = {0};
    struct lmo_policy p = {0};
    char how[96];
    lmo_convergence_begin(&c, &p, 1024 * MIB, 128 * MIB, 5);
    ck_assert_uint_eq(c.memory.ms, 60000 + 4 * 8000);
    ck_assert_int_eq(lmo_convergence_deadline(&c), 5 + 92000);
    lmo_budget_text(&c.memory, LMO_CONV_BASE_MS, LMO_CONV_FACTOR, how, sizeof how);
    ck_assert_str_eq(how, "60 s + 4 x 1024 MiB / 128.0 MiB/s");
    lmo_convergence_begin(&c, &p, 1024 * MIB, 0, 5);
    ck_assert_uint_eq(c.memory.ms, 60000 + 4 * 16000);
    lmo_budget_text(&c.memory, LMO_CONV_BASE_MS, LMO_CONV_FACTOR, how, sizeof how);
    ck_assert_str_eq(how, "60 s + 4 x 1024 MiB / 64.0 MiB/s, nominal");
    lmo_convergence_begin(&c, &p, UINT64_MAX / 2, 1, 5);
    ck_assert_uint_eq(c.memory.ms, LMO_CONV_TIMEOUT_MAX_MS);
    p.convergence_timeout_ms = 7000;
    lmo_convergence_begin(&c, &p, 1024 * MIB, 128 * MIB, 5);
    ck_assert_uint_eq(c.memory.ms, 7000);
    ck_assert(c.memory.by_policy);
    lmo_budget_text(&c.memory, LMO_CONV_BASE_MS, LMO_CONV_FACTOR, how, sizeof how);
    ck_assert_str_eq(how, "by policy");
}
END_TEST

START_TEST(less_bandwidth_lengthens_a_computed_time_out_and_more_does_not_shorten_it)
{
    struct lmo_convergence c = {0};
    struct lmo_policy p = {0};
    lmo_convergence_begin(&c, &p, 1024 * MIB, 128 * MIB, 0);
    lmo_convergence_bandwidth(&c, &p, 1024 * MIB, 64 * MIB);
    ck_assert_uint_eq(c.memory.ms, 60000 + 4 * 16000);
    lmo_convergence_bandwidth(&c, &p, 1024 * MIB, 1024 * MIB);
    ck_assert_uint_eq(c.memory.ms, 60000 + 4 * 16000);
}
END_TEST

START_TEST(disks_have_a_budget_of_their_own_and_the_memorys_begins_after_them)
{
    struct replay r = {.policy = {.max_downtime_ms = 300,
                                  .bandwidth_bytes_per_s = 64 * MIB,
                                  .on_timeout = LMO_ON_TIMEOUT_FORCE,
                                  .force_max_pause_ms = 1000}};
    struct lmo_progress none = {0};
    struct lmo_progress disk = {.disk_total_bytes = 6400 * MIB,
                                .disk_remaining_bytes = 6000 * MIB,
                                .disk_rate_bytes_per_s = 64 * MIB};
    begin(&r, 640 * MIB, 64 * MIB);
    int64_t began = r.now_ms;
    r.now_ms += 500;
    feed(&r, &none, &disk);
    ck_assert_int_eq(r.c.stage, LMO_CONV_DISKS);
    ck_assert_int_eq(r.c.eta.kind, LMO_ETA_DISKS);
    ck_assert_int_eq(lmo_convergence_deadline(&r.c), began + 60000 + 4 * 100000);
    struct lmo_progress memory = {.disk_total_bytes = 6400 * MIB,
                                  .total_bytes = 640 * MIB,
                                  .remaining_bytes = 640 * MIB,
                                  .iteration = 1};
    struct replay late = r;
    r.now_ms += 90000;
    feed(&r, &disk, &memory);
    ck_assert_int_eq(r.c.stage, LMO_CONV_MEMORY);
    ck_assert_int_eq(lmo_convergence_deadline(&r.c), r.now_ms + 60000 + 4 * 10000);
    r.now_ms += 500;
    feed(&r, &memory, &disk); /* a sample from before does not turn the stages back */
    ck_assert_int_eq(r.c.stage, LMO_CONV_MEMORY);
    /* Disks that are not done in time end it, whatever a longer pause would do for memory. */
    late.now_ms = lmo_convergence_deadline(&late.c);
    feed(&late, &disk, &disk);
    ck_assert_int_gt(late.aborted_ms, 0);
    ck_assert_msg(strstr(late.reason, "disks were not copied within 460000 ms"), "%s", late.reason);
}
END_TEST

START_TEST(a_driver_that_copies_no_disk_never_has_a_budget_for_them)
{
    static struct trace t;
    load("slow", &t);
    struct replay r = {.policy = {.max_downtime_ms = 300}};
    play(&r, &t);
    ck_assert_uint_eq(r.c.disk.ms, 0);
}
END_TEST

static const struct {
    uint64_t dirty_mib, age_ms, bandwidth_mib;
    struct lmo_policy policy;
    enum lmo_outlook outlook;
    bool fails;
    const char *text;
} forecasts[] = {
    {410,
     2000,
     250,
     {.max_downtime_ms = 300},
     LMO_OUTLOOK_NEVER,
     true,
     "will not converge: dirties 410 MiB/s, gets 250 MiB/s (measured 2.0 s ago)"},
    {250,
     1,
     250,
     {.max_downtime_ms = 300},
     LMO_OUTLOOK_NEVER,
     true,
     "will not converge: dirties 250 MiB/s, gets 250 MiB/s"},
    {410,
     0,
     250,
     {.max_downtime_ms = 300},
     LMO_OUTLOOK_UNKNOWN,
     false,
     "not predicted: its dirty rate has not been measured"},
    {410, 9, 0, {.max_downtime_ms = 300}, LMO_OUTLOOK_UNKNOWN, false, "no bandwidth is stated"},
    {410,
     9,
     250,
     {.max_downtime_ms = 300, .allow_throttle = true},
     LMO_OUTLOOK_THROTTLED,
     false,
     "only if its vCPUs are throttled"},
    {410,
     9,
     250,
     {.max_downtime_ms = 300, .on_timeout = LMO_ON_TIMEOUT_FORCE, .force_max_pause_ms = 2000},
     LMO_OUTLOOK_FORCED,
     false,
     "only by force: dirties 410 MiB/s, gets 250 MiB/s (measured 0.0 s ago); its pause would have to be 1640 ms or "
     "more"},
    {410,
     9,
     250,
     {.max_downtime_ms = 300, .on_timeout = LMO_ON_TIMEOUT_FORCE, .force_max_pause_ms = 1600},
     LMO_OUTLOOK_NEVER,
     true,
     "will not converge"},
    {410, 9, 250, {.max_downtime_ms = 5000}, LMO_OUTLOOK_CONVERGES, false, "converges to a long pause"},
    {50,
     9,
     250,
     {.max_downtime_ms = 300},
     LMO_OUTLOOK_CONVERGES,
     false,
     "will converge: dirties 50 MiB/s, gets 250 MiB/s"},
    {0, 1, 250, {.max_downtime_ms = 300}, LMO_OUTLOOK_CONVERGES, false, "will converge"},
    /* 4096 MiB / (250 - 240) MiB/s = 402 s; it has 60 + 4 x 16.4 = 125 s */
    {240, 9, 250, {.max_downtime_ms = 300}, LMO_OUTLOOK_TOO_SLOW, true, "needs about 402 s, has 125 s"},
    {240,
     9,
     250,
     {.max_downtime_ms = 300, .convergence_timeout_ms = 500000},
     LMO_OUTLOOK_CONVERGES,
     false,
     "needs about 402 s, has 500 s"},
    {240, 9, 250, {.max_downtime_ms = 300, .allow_throttle = true}, LMO_OUTLOOK_THROTTLED, false, "in time only if"},
};

START_TEST(forecast_says_what_will_come_of_it_and_on_what_figures)
{
    struct lmo_forecast f;
    struct lmo_forecast_facts facts = {4096 * MIB, forecasts[_i].dirty_mib * MIB, forecasts[_i].age_ms,
                                       forecasts[_i].bandwidth_mib * MIB};
    lmo_convergence_forecast(&forecasts[_i].policy, &facts, &f);
    ck_assert_msg(f.outlook == forecasts[_i].outlook, "%s: %s", lmo_outlook_text((int)f.outlook), f.text);
    ck_assert_msg(strstr(f.text, forecasts[_i].text) != NULL, "%s", f.text);
    ck_assert_int_eq(lmo_forecast_fails(&f), forecasts[_i].fails);
}
END_TEST

/* ------------------------------------------------------------------ single decisions */

static struct lmo_progress sample(uint32_t pass, uint64_t transferred_mib, uint64_t remaining_mib, uint64_t rate_mib,
                                  uint64_t dirty_mib)
{
    return (struct lmo_progress){.total_bytes = 1024 * MIB,
                                 .iteration = pass,
                                 .transferred_bytes = transferred_mib * MIB,
                                 .remaining_bytes = remaining_mib * MIB,
                                 .rate_bytes_per_s = rate_mib * MIB,
                                 .dirty_bytes_per_s = dirty_mib * MIB};
}

START_TEST(size_of_a_pass_does_not_depend_on_where_in_it_the_sample_falls)
{
    for (uint64_t into = 0; into < 100;
         into += 7) { /* MiB of the pass of 100 that were sent when the sample was taken */
        struct replay r = {.policy = {.max_downtime_ms = 300}};
        struct lmo_progress none = {0}, a = sample(2, 1000, 30, 100, 50),
                            b = sample(3, 1030 + into, 100 - into, 100, 50);
        begin(&r, 1024 * MIB, 0);
        feed(&r, &none, &a);
        feed(&r, &a, &b);
        ck_assert_uint_eq(r.c.passes[0].rest_bytes, 100 * MIB);
        ck_assert_uint_eq(r.c.pass_bytes, 100 * MIB);
    }
}
END_TEST

START_TEST(a_single_bad_pass_is_no_stall_and_a_plateau_is_one)
{
    static const struct {
        uint64_t mib[10];
        bool stall;
    } cases[] = {
        {{100, 80, 64, 51, 41, 33, 26, 21, 17, 14}, false},
        {{100, 80, 120, 51, 41, 33, 60, 21, 17, 14}, false}, /* outliers */
        {{100, 95, 90, 86, 81, 77, 73, 70, 66, 63}, false},  /* slowly, but 10 % in three passes */
        {{100, 99, 98, 97, 96, 95, 94, 93, 92, 91}, true},
        {{60, 100, 90, 95, 100, 97, 99, 98, 96, 100}, true},
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        struct replay r = {.policy = {.max_downtime_ms = 30}};
        struct lmo_progress before = {0};
        uint64_t sent = 1000;
        begin(&r, 1024 * MIB, 0);
        for (uint32_t i = 0; i < 10; i++) {
            struct lmo_progress now = sample(i + 2, sent, cases[k].mib[i], 100, 90);
            feed(&r, &before, &now);
            before = now;
            sent += cases[k].mib[i];
        }
        ck_assert_msg((r.stalls > 0) == cases[k].stall, "case %zu", k);
    }
}
END_TEST

START_TEST(stall_brings_the_next_step_of_the_downtime_without_waiting_three_passes)
{
    struct replay r = {.policy = {.max_downtime_ms = 10000}};
    struct lmo_progress before = {0};
    uint32_t in_pass[12] = {0};
    begin(&r, 1024 * MIB, 0);
    for (uint32_t pass = 2; pass < 14; pass++) {
        struct lmo_progress now = sample(pass, 100 * pass, 100, 100, 100);
        uint32_t limit = r.downtime_ms;
        feed(&r, &before, &now);
        in_pass[pass - 2] = r.downtime_ms > limit;
        before = now;
    }
    ck_assert_uint_gt(r.stalls, 0);
    /* Three passes for each at first, then one. */
    ck_assert(in_pass[3] && !in_pass[4]);
    ck_assert(in_pass[9] && in_pass[10]);
}
END_TEST

START_TEST(force_is_ordered_once_and_ends_in_an_abort_after_its_grace)
{
    struct replay r = {.policy = {.max_downtime_ms = 300,
                                  .convergence_timeout_ms = 9000,
                                  .on_timeout = LMO_ON_TIMEOUT_FORCE,
                                  .force_max_pause_ms = 1500}};
    struct lmo_progress before = {0}, now = sample(2, 1000, 400, 100, 200);
    begin(&r, 1024 * MIB, 128 * MIB);
    int64_t began = r.now_ms;
    r.now_ms = began + 8999;
    feed(&r, &before, &now);
    ck_assert_int_eq(r.forced_ms, 0);
    r.now_ms = began + 9000;
    feed(&r, &now, &now);
    ck_assert_int_eq(r.forced_ms, began + 9000);
    ck_assert_uint_eq(r.downtime_ms, 1500);
    ck_assert_int_eq(lmo_convergence_deadline(&r.c), r.now_ms + 30000 + 8000);
    r.now_ms = lmo_convergence_deadline(&r.c) - 1;
    feed(&r, &now, &now);
    ck_assert_int_eq(r.aborted_ms, 0);
    r.now_ms++;
    feed(&r, &now, &now);
    ck_assert_int_gt(r.aborted_ms, 0);
    ck_assert_msg(strstr(r.reason, "did not converge to a pause of 1500 ms within 38000 ms of grace either") &&
                      strstr(r.reason, "a pass takes 4000 ms"),
                  "%s", r.reason);
}
END_TEST

START_TEST(high_end_rises_only_with_a_new_revision_and_each_cause_makes_one)
{
    struct replay r = {.policy = {.max_downtime_ms = 300, .convergence_timeout_ms = 600000}};
    struct lmo_progress before = {0}, now = sample(1, 100, 900, 100, 0);
    begin(&r, 1024 * MIB, 0);
    feed(&r, &before, &now);
    ck_assert_int_eq(r.c.eta.kind, LMO_ETA_NONE); /* the first sample may be the shut gate's */
    feed(&r, &now, &now);
    ck_assert_int_eq(r.c.eta.kind, LMO_ETA_FIRST_PASS);
    ck_assert_uint_eq(r.c.eta.revision, 1);
    before = now;
    now = sample(2, 1000, 200, 100, 20);
    r.now_ms += 9000;
    feed(&r, &before, &now);
    ck_assert_int_eq(r.c.eta.kind, LMO_ETA_CONVERGING);
    ck_assert_uint_eq(r.c.eta.revision, 2);
    int64_t high = r.c.eta.high_ms, low = r.c.eta.low_ms;
    /* Worse figures within the pass: the promise stays. */
    now = sample(2, 1000, 200, 50, 20);
    feed(&r, &now, &now);
    ck_assert_int_eq(r.c.eta.high_ms, high);
    ck_assert_int_ge(r.c.eta.low_ms, low);
    ck_assert_uint_eq(r.c.eta.revision, 2);
    /* A limit changed: another promise. */
    now.bandwidth_bytes_per_s = 25 * MIB;
    feed(&r, &now, &now);
    ck_assert_uint_eq(r.c.eta.revision, 3);
    /* Broken: it was to have ended by now. */
    r.now_ms = r.c.eta.high_ms + 1;
    feed(&r, &now, &now);
    ck_assert_uint_eq(r.c.eta.revision, 4);
    ck_assert_int_gt(r.c.eta.high_ms, r.now_ms);
}
END_TEST

/* ------------------------------------------------------------------ any trace */

static uint64_t rnd(uint64_t *s, uint64_t below)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return below ? *s % below : 0;
}

/* Sometimes like a guest, sometimes nonsense: numbers of any size, passes that jump or go back, stale samples. */
static void random_sample(uint64_t *s, struct lmo_progress *p)
{
    uint64_t scale = UINT64_C(1) << rnd(s, 62);
    switch (rnd(s, 8)) {
    case 0: p->iteration += (uint32_t)rnd(s, 20); break;
    case 1: p->iteration = (uint32_t)rnd(s, 100); break;
    case 2: *p = (struct lmo_progress){0}; break;
    case 3: p->disk_total_bytes = rnd(s, scale), p->disk_remaining_bytes = rnd(s, scale); break;
    case 4: p->bandwidth_bytes_per_s = rnd(s, 3) * 50 * MIB; break;
    default: p->iteration++; break;
    }
    p->total_bytes = rnd(s, 10) ? 1024 * MIB : rnd(s, scale);
    p->transferred_bytes = rnd(s, 10) ? p->transferred_bytes + rnd(s, 64 * MIB) : rnd(s, scale);
    p->remaining_bytes = rnd(s, 10) ? rnd(s, 1024 * MIB) : rnd(s, scale);
    p->rate_bytes_per_s = rnd(s, 10) ? rnd(s, 128 * MIB) : rnd(s, scale);
    p->dirty_bytes_per_s = rnd(s, 10) ? rnd(s, 128 * MIB) : rnd(s, scale);
}

START_TEST(whatever_is_sampled_the_invariants_hold)
{
    unsigned forced = 0, aborted = 0, raised = 0, revisions = 0;
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        uint64_t s = seed * UINT64_C(0x9E3779B97F4A7C15);
        struct replay r = {.policy = {.max_downtime_ms = 1 + (uint32_t)rnd(&s, 2000),
                                      .convergence_timeout_ms = (uint32_t)rnd(&s, 2) * 20000,
                                      .bandwidth_bytes_per_s = rnd(&s, 2) * (1 + rnd(&s, 200)) * MIB,
                                      .on_timeout = rnd(&s, 2) ? LMO_ON_TIMEOUT_FORCE : LMO_ON_TIMEOUT_ABORT}};
        r.policy.force_max_pause_ms = r.policy.on_timeout ? r.policy.max_downtime_ms + (uint32_t)rnd(&s, 3000) : 0;
        struct lmo_progress before = {0}, now = {0};
        begin(&r, 1024 * MIB, r.policy.bandwidth_bytes_per_s);
        int64_t began = r.now_ms;
        for (unsigned i = 0; i < 100000 && !r.aborted_ms; i++) {
            uint32_t limit = r.downtime_ms;
            struct lmo_eta eta = r.c.eta;
            random_sample(&s, &now);
            r.now_ms += 1 + (int64_t)rnd(&s, 1000);
            feed(&r, &before, &now);
            before = now;
            ck_assert_uint_ge(r.downtime_ms, limit); /* V1 */
            ck_assert_uint_le(r.downtime_ms, r.forced_ms ? r.policy.force_max_pause_ms : r.policy.max_downtime_ms);
            ck_assert_int_le(r.c.eta.low_ms, r.c.eta.high_ms); /* V3 */
            ck_assert_uint_ge(r.c.eta.revision, eta.revision);
            if (r.c.eta.revision == eta.revision) {
                ck_assert_int_le(r.c.eta.high_ms, eta.high_ms);
                ck_assert_int_ge(r.c.eta.low_ms, eta.low_ms);
            } else {
                revisions++;
            }
            ck_assert_int_le(r.now_ms, began + (int64_t)lmo_convergence_longest_ms(&r.c) + 3000); /* V2 */
        }
        ck_assert_msg(r.aborted_ms > 0, "seed %llu does not end", (unsigned long long)seed);
        forced += r.forced_ms > 0;
        aborted += r.aborted_ms > 0;
        raised += r.raises;
    }
    printf("  1000 random traces: %u raises, %u forced, %u aborted, %u revisions of the ETA\n", raised, forced, aborted,
           revisions);
    ck_assert(forced > 100 && raised > 100 && revisions > 100);
}
END_TEST

START_TEST(words_are_found_again)
{
    for (int i = 0; lmo_outlook_text(i); i++)
        ck_assert_int_eq(lmo_outlook_from_text(lmo_outlook_text(i)), i);
    for (int i = 0; lmo_eta_kind_text(i); i++)
        ck_assert_int_eq(lmo_eta_kind_from_text(lmo_eta_kind_text(i)), i);
    ck_assert_str_eq(lmo_conv_stage_text(LMO_CONV_FORCED), "forced");
    ck_assert_str_eq(lmo_on_timeout_text(LMO_ON_TIMEOUT_FORCE), "force");
    ck_assert_str_eq(lmo_prediction_text(LMO_PREDICTION_REFUSE), "refuse");
    ck_assert_int_eq(lmo_prediction_from_text("maybe"), -1);
    ck_assert_ptr_null(lmo_on_timeout_text(2));
}
END_TEST

Suite *convergence_suite(void)
{
    Suite *s = suite_create("convergence");
    TCase *t = tcase_create("convergence");
    tcase_set_timeout(t, 30);
    tcase_add_loop_test(t, recorded_guests_are_judged_as_they_behaved, 0, (int)(sizeof table / sizeof table[0]));
    tcase_add_test(t, time_out_is_scaled_by_what_is_to_be_moved_and_a_policy_value_wins);
    tcase_add_test(t, less_bandwidth_lengthens_a_computed_time_out_and_more_does_not_shorten_it);
    tcase_add_test(t, disks_have_a_budget_of_their_own_and_the_memorys_begins_after_them);
    tcase_add_test(t, a_driver_that_copies_no_disk_never_has_a_budget_for_them);
    tcase_add_loop_test(t, forecast_says_what_will_come_of_it_and_on_what_figures, 0,
                        (int)(sizeof forecasts / sizeof forecasts[0]));
    tcase_add_test(t, size_of_a_pass_does_not_depend_on_where_in_it_the_sample_falls);
    tcase_add_test(t, a_single_bad_pass_is_no_stall_and_a_plateau_is_one);
    tcase_add_test(t, stall_brings_the_next_step_of_the_downtime_without_waiting_three_passes);
    tcase_add_test(t, force_is_ordered_once_and_ends_in_an_abort_after_its_grace);
    tcase_add_test(t, high_end_rises_only_with_a_new_revision_and_each_cause_makes_one);
    tcase_add_test(t, whatever_is_sampled_the_invariants_hold);
    tcase_add_test(t, words_are_found_again);
    suite_add_tcase(s, t);
    return s;
}
