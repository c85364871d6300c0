/* test_parallel.c - the search for how many at once, on simulated curves of throughput: what limits, and how noisy it is. */
#include "core/parallel.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define MIB (UINT64_C(1) << 20)

Suite *parallel_suite(void);

static uint64_t state;
static uint32_t draw(uint32_t below)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33) % below;
}

/* What so many reach together: each alone at most `one`, all of them at most `all`, and from `from` on each further one costs
 * `cost` percent of that (context switches, caches). */
struct curve {
    uint64_t one, all;
    uint32_t from, cost, noise_percent;
};

static uint64_t exact(const struct curve *c, uint32_t count)
{
    uint64_t rate = c->one * count < c->all ? c->one * count : c->all;
    uint32_t beyond = count > c->from ? count - c->from : 0, lost = beyond * c->cost;
    return rate / 100 * (lost > 90 ? 10 : 100 - lost);
}

static uint64_t sample(const struct curve *c, uint32_t count)
{
    uint64_t rate = exact(c, count);
    uint32_t off = c->noise_percent ? draw(2 * c->noise_percent + 1) : 0;
    return c->noise_percent ? rate / 100 * (100 - c->noise_percent + off) : rate;
}

/* Runs it until it has settled; how many samples that took. */
static uint32_t settle(struct lmo_parallel *p, const struct curve *c)
{
    uint32_t samples = 0;
    for (; !p->settled && samples < 1000; samples++) {
        lmo_parallel_sample(p, p->wanted, sample(c, p->wanted));
        ck_assert(p->wanted >= 1 && p->wanted <= p->max);
    }
    return samples;
}

static uint64_t highest(const struct curve *c, uint32_t max)
{
    uint64_t best = 0;
    for (uint32_t n = 1; n <= max; n++) {
        best = exact(c, n) > best ? exact(c, n) : best;
    }
    return best;
}

START_TEST(where_one_fills_the_link_one_is_kept)
{
    struct curve c = {1000 * MIB, 1000 * MIB, 16, 0, 0};
    for (uint32_t first = 1; first <= 8; first++) {
        struct lmo_parallel p;
        lmo_parallel_begin(&p, first, 8);
        ck_assert_uint_le(settle(&p, &c), 14);
        ck_assert_uint_eq(p.wanted, 1);
    }
}
END_TEST

START_TEST(where_each_is_bound_by_a_processor_of_its_own_as_many_as_fill_the_link_are_found)
{
    struct curve c = {300 * MIB, 1200 * MIB, 16, 0, 0};
    for (uint32_t first = 1; first <= 8; first++) {
        struct lmo_parallel p;
        lmo_parallel_begin(&p, first, 8);
        ck_assert_uint_le(settle(&p, &c), 14);
        ck_assert_uint_eq(p.wanted, 4);
    }
}
END_TEST

START_TEST(where_all_share_one_processor_more_at_once_is_found_out_to_be_worse)
{
    struct curve c = {500 * MIB, 500 * MIB, 1, 10, 0};
    struct lmo_parallel p;
    lmo_parallel_begin(&p, 4, 16);
    ck_assert_uint_le(settle(&p, &c), 14);
    ck_assert_uint_eq(p.wanted, 1);
}
END_TEST

START_TEST(samples_with_another_count_teach_nothing)
{
    struct lmo_parallel p;
    lmo_parallel_begin(&p, 2, 8);
    for (unsigned n = 0; n < 100; n++) {
        ck_assert(!lmo_parallel_sample(&p, 1, 100 * MIB) && !lmo_parallel_sample(&p, 2, 0));
    }
    ck_assert_uint_eq(p.wanted, 2);
    ck_assert_uint_eq(p.samples, 0);
}
END_TEST

START_TEST(limit_that_falls_is_kept_at_once_and_one_that_rises_is_made_use_of)
{
    struct curve c = {100 * MIB, 800 * MIB, 64, 0, 0};
    struct lmo_parallel p;
    lmo_parallel_begin(&p, 2, 8);
    (void)settle(&p, &c);
    ck_assert_uint_eq(p.wanted, 8);
    lmo_parallel_limit(&p, 3);
    ck_assert_uint_eq(p.wanted, 3);
    (void)settle(&p, &c);
    ck_assert_uint_eq(p.wanted, 3);
    lmo_parallel_limit(&p, 16);
    (void)settle(&p, &c);
    ck_assert_uint_eq(p.wanted, 8);
}
END_TEST

START_TEST(when_the_world_has_changed_it_searches_again_and_only_then)
{
    struct curve before = {300 * MIB, 1200 * MIB, 64, 0, 3}, after = {1000 * MIB, 1000 * MIB, 1, 15, 3};
    struct lmo_parallel p;
    lmo_parallel_begin(&p, 1, 8);
    (void)settle(&p, &before);
    uint32_t found = p.wanted;
    for (unsigned n = 0; n < 1000; n++) {
        ck_assert(!lmo_parallel_sample(&p, p.wanted, sample(&before, p.wanted)));
    }
    /* one odd sample is not the world */
    ck_assert(!lmo_parallel_sample(&p, found, 10 * MIB) && p.settled);
    for (unsigned n = 0; n < 100 && p.wanted != 1; n++) {
        (void)lmo_parallel_sample(&p, p.wanted, sample(&after, p.wanted));
    }
    ck_assert_uint_eq(p.wanted, 1);
}
END_TEST

/* Curves drawn at random: few changes, then none; and what it settles on is nearly as good as the best there is. */
START_TEST(it_settles_soon_near_the_best_and_does_not_thrash)
{
    uint32_t worst_samples = 0, worst_percent = 100;
    for (uint32_t round = 0; round < 5000; round++) {
        state = 31U * round + 3;
        uint64_t one = (50 + draw(1000)) * MIB;
        struct curve c = {one, one * (10 + draw(110)) / 10, 1 + draw(16), draw(4) ? 0 : draw(12),
                          draw(2) ? draw(4) : 0};
        struct lmo_parallel p;
        uint32_t max = 1 + draw(16), changes = 0;
        lmo_parallel_begin(&p, 1 + draw(16), max);
        uint32_t samples = settle(&p, &c);
        uint64_t got = exact(&c, p.wanted), best = highest(&c, max);
        uint32_t percent = (uint32_t)(got * 100 / best);
        worst_samples = samples > worst_samples ? samples : worst_samples;
        worst_percent = percent < worst_percent ? percent : worst_percent;
        ck_assert_msg(percent >= 75, "round %u: %u at once give %u %% of the best", round, p.wanted, percent);
        ck_assert_uint_le(p.steps, LMO_PARALLEL_STEPS_MAX);
        for (unsigned n = 0; n < 200; n++) {
            changes += lmo_parallel_sample(&p, p.wanted, sample(&c, p.wanted));
        }
        ck_assert_uint_eq(changes, 0);
    }
    printf("    settled after %u samples at most, at %u %% of the best or more\n", worst_samples, worst_percent);
    ck_assert_uint_le(worst_samples, LMO_PARALLEL_SAMPLES * 11);
}
END_TEST

/* Without noise: so few samples, and from then on what is known to be best is within a tenth of what there is. Eight at most but
 * for one curve in two thousand (a narrow peak beside a number that was tried), and then within 12 %. */
START_TEST(without_noise_eight_samples_bring_it_within_a_tenth)
{
    uint32_t worst = 0, sum = 0, all = 0, late = 0, curves = 0;
    for (uint32_t round = 0; round < 20000; round++) {
        state = 67U * round + 5;
        uint64_t one = (50 + draw(1000)) * MIB;
        struct curve c = {one, one * (10 + draw(150)) / 10, 1 + draw(16), draw(3) ? 0 : draw(12), 0};
        struct lmo_parallel p;
        uint32_t max = 1 + draw(16), near = 0, samples = 0;
        if (max > c.from && (max - c.from) * c.cost > 90) {
            continue; /* there the curve's floor begins, and rises again: not one peak, and no climber's business */
        }
        curves++;
        lmo_parallel_begin(&p, 1 + draw(16), max);
        for (; !p.settled && samples < 100; samples++) {
            (void)lmo_parallel_sample(&p, p.wanted, exact(&c, p.wanted));
            if (p.best == 0 || exact(&c, p.best) * 10 < highest(&c, max) * 9) {
                near = samples + 2;
            } else {
                near = near ? near : 1;
            }
        }
        ck_assert(p.settled);
        late += near > 8;
        ck_assert_msg(exact(&c, p.wanted) * 100 >= highest(&c, max) * 88, "round %u: settled on %u of %u", round,
                      p.wanted, max);
        worst = near > worst ? near : worst;
        sum += near;
        all = samples > all ? samples : all;
    }
    printf(
        "    within a tenth after %u samples at most (%u of %u after more than 8 or never), %.1f on average; settled "
        "after %u\n",
        worst, late, curves, sum / (double)curves, all);
    ck_assert(curves > 15000 && late * 2000 <= curves);
}
END_TEST

Suite *parallel_suite(void)
{
    Suite *s = suite_create("parallel");
    TCase *t = tcase_create("search");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, where_one_fills_the_link_one_is_kept);
    tcase_add_test(t, where_each_is_bound_by_a_processor_of_its_own_as_many_as_fill_the_link_are_found);
    tcase_add_test(t, where_all_share_one_processor_more_at_once_is_found_out_to_be_worse);
    tcase_add_test(t, samples_with_another_count_teach_nothing);
    tcase_add_test(t, limit_that_falls_is_kept_at_once_and_one_that_rises_is_made_use_of);
    tcase_add_test(t, when_the_world_has_changed_it_searches_again_and_only_then);
    tcase_add_test(t, without_noise_eight_samples_bring_it_within_a_tenth);
    tcase_add_test(t, it_settles_soon_near_the_best_and_does_not_thrash);
    suite_add_tcase(s, t);
    return s;
}
