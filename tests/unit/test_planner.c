/* test_planner.c - plans by example, then for thousands of random fleets, each looked at from outside by lmo_plan_broken; and
 * compared with exhaustive search where a fleet is small enough. */
#include "fleets.h"

Suite *planner_suite(void);

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

/* ------------------------------------------------------------------ by example */

static struct made drain(const uint32_t *targets, uint32_t count, uint32_t max_hosts, uint32_t spare, bool back)
{
    struct lmo_plan_options o = {
        .hosts = targets, .host_count = count, .max_hosts = max_hosts, .spare_hosts = spare, .give_back = back};
    struct made made = make_plan(&o);
    assert_good(&made, &o, "example", 0);
    return made;
}

static const uint32_t FIRST[] = {0}, BOTH[] = {0, 1}, ALL[] = {0, 1, 2};

START_TEST(one_host_is_emptied_longest_first_and_evenly)
{
    fleet_begin(3, 64 * GIB);
    uint32_t small = guest_on(0, 2 * GIB), large = guest_on(0, 16 * GIB), middle = guest_on(0, 8 * GIB);
    struct made made = drain(FIRST, 1, 0, 0, false);
    ck_assert_uint_eq(made.plan.move_count, 3);
    ck_assert_uint_eq(made.plan.moves[0].guest, large);
    ck_assert_uint_eq(made.plan.moves[1].guest, middle);
    ck_assert_uint_eq(made.plan.moves[2].guest, small);
    ck_assert_uint_ne(move_of(&made, large)->to, move_of(&made, middle)->to);
    ck_assert_uint_eq(made.plan.blocked_count, 0);
    ck_assert(made.plan.bound_ms > 0 && made.plan.bound_ms <= made.plan.expected_ms);
    ck_assert(made.plan.low_ms <= made.plan.expected_ms && made.plan.expected_ms <= made.plan.high_ms);
    plan_done(&made);
}
END_TEST

START_TEST(every_guest_that_stays_has_its_reason)
{
    fleet_begin(2, 16 * GIB);
    uint32_t leased = guest_on(0, GIB), device = guest_on(0, GIB), huge = guest_on(0, 13 * GIB);
    (void)guest_on(1, 4 * GIB);
    guests[leased].leased = true;
    guests[device].blockers = LMO_BLOCKER_DEVICE;
    guests[device].unmovable = LMO_UNMOVABLE_SKIP;
    struct made made = drain(FIRST, 1, 0, 0, false);
    ck_assert_uint_eq(made.plan.move_count, 0);
    ck_assert_uint_eq(made.plan.blocked_count, 3);
    ck_assert_int_eq((int)made.plan.blocked[0].why, LMO_NOT_LEASED);
    ck_assert_int_eq((int)made.plan.blocked[1].why, LMO_NOT_BLOCKED);
    ck_assert_int_eq((int)made.plan.blocked[1].unmovable, LMO_UNMOVABLE_SKIP);
    ck_assert_uint_eq(made.plan.blocked[2].guest, huge);
    ck_assert_str_eq(made.plan.blocked[2].text, "no host can take it: 1 lack memory");
    plan_done(&made);
    hosts[0].up = false;
    made = drain(FIRST, 1, 0, 0, false);
    ck_assert_int_eq((int)made.plan.blocked[0].why, LMO_NOT_DOWN);
    ck_assert_str_eq(made.plan.blocked[0].text, "hv0000, where it is, is down");
    plan_done(&made);
}
END_TEST

/* hv0's guest runs on hv1 only, which is full; hv1's can go to hv2. */
START_TEST(full_hosts_are_swapped_through_a_third_one)
{
    fleet_begin(3, 17 * GIB);
    uint32_t a = guest_on(0, 12 * GIB), b = guest_on(1, 6 * GIB);
    (void)guest_on(1, 6 * GIB);
    (void)guest_on(2, 4 * GIB);
    ck_assert(lmo_set_add(&guests[a].labels, 0) && lmo_set_add(&hosts[0].labels, 0) &&
              lmo_set_add(&hosts[1].labels, 0));
    hosts[2].pools[0] = (struct lmo_fleet_pool){30 * GIB, 26 * GIB, GIB};
    struct made made = drain(FIRST, 1, 0, 0, false);
    ck_assert_uint_eq(made.plan.blocked_count, 0);
    ck_assert_uint_eq(made.plan.move_count, 3); /* both of hv1's make room */
    const struct lmo_plan_move *last = &made.plan.moves[2];
    ck_assert_uint_eq(last->guest, a);
    ck_assert_uint_eq(last->to, 1);
    ck_assert_uint_eq(last->after_count, 2);
    ck_assert_int_eq((int)move_of(&made, b)->why, LMO_MOVE_MAKE_ROOM);
    plan_done(&made);
    made = drain(BOTH, 2, 1, 0, false); /* and hv1 after it: by way of hv0, which is ready again */
    ck_assert_uint_eq(made.plan.blocked_count, 0);
    ck_assert_uint_eq(made.plan.stage_count, 2);
    plan_done(&made);
}
END_TEST

/* Three full hosts and an empty one: each goes where the one before it was. */
START_TEST(rolling_drain_moves_each_guest_once_where_there_is_a_free_host)
{
    fleet_begin(4, 34 * GIB);
    for (uint32_t h = 0; h < 3; h++) {
        for (uint32_t n = 0; n < 4; n++) {
            (void)guest_on(h, 8 * GIB);
        }
    }
    struct made made = drain(ALL, 3, 1, 0, false);
    ck_assert_uint_eq(made.plan.blocked_count, 0);
    ck_assert_uint_eq(made.plan.move_count, 12);
    ck_assert_uint_eq(made.plan.stages[1].after_count, 1);
    plan_done(&made);
    made = drain(ALL, 3, 0, 0, false); /* all at once is not possible: they wait for each other then */
    ck_assert_uint_eq(made.plan.blocked_count, 0);
    ck_assert_uint_eq(made.plan.move_count, 12);
    plan_done(&made);
    made = drain(ALL, 3, 1, 0, true);
    ck_assert_uint_eq(made.plan.move_count, 24);
    for (uint32_t g = 0; g < fleet.guest_count; g++) {
        uint32_t at = guests[g].host;
        for (uint32_t m = 0; m < made.plan.move_count; m++) {
            at = made.plan.moves[m].guest == g ? made.plan.moves[m].to : at;
        }
        ck_assert_uint_eq(at, guests[g].host);
    }
    plan_done(&made);
}
END_TEST

START_TEST(room_for_a_failing_host_is_kept_or_nothing_moves)
{
    fleet_begin(3, 17 * GIB);
    (void)guest_on(0, 8 * GIB);
    (void)guest_on(1, 8 * GIB);
    (void)guest_on(2, 4 * GIB);
    struct made made = drain(FIRST, 1, 0, 1, false); /* without hv0, 20 have to fit on one of 16 */
    ck_assert(made.plan.spare_kept);
    ck_assert_uint_eq(made.plan.move_count, 0);
    ck_assert_int_eq((int)made.plan.blocked[0].why, LMO_NOT_SPARE);
    plan_done(&made);
    made = drain(FIRST, 1, 0, 0, false);
    ck_assert_uint_eq(made.plan.move_count, 1);
    plan_done(&made);
}
END_TEST

START_TEST(guests_that_dirty_fast_go_one_at_a_time_and_idle_ones_together)
{
    fleet_begin(3, 128 * GIB);
    limits.min_share_bytes_per_s = UINT64_C(100) << 20;
    for (uint32_t n = 0; n < 6; n++) {
        guests[guest_on(0, 8 * GIB)].dirty_bytes_per_s = UINT64_C(500) << 20;
    }
    struct made made = drain(FIRST, 1, 0, 0, false);
    ck_assert_uint_eq(made.plan.stages[0].parallel, 1);
    plan_done(&made);
    for (uint32_t g = 0; g < fleet.guest_count; g++) {
        guests[g].dirty_bytes_per_s = 0;
    }
    made = drain(FIRST, 1, 0, 0, false);
    ck_assert_uint_eq(made.plan.stages[0].parallel, 2);
    plan_done(&made);
}
END_TEST

START_TEST(affinity_group_moves_as_one_and_apart_stays_apart)
{
    fleet_begin(3, 32 * GIB);
    uint32_t a = guest_on(0, 10 * GIB), b = guest_on(0, 10 * GIB), c = guest_on(0, 2 * GIB), d = guest_on(1, 2 * GIB);
    uint32_t both = group_of(LMO_GROUP_TOGETHER, true), apart = group_of(LMO_GROUP_APART, true);
    join(a, both);
    join(b, both);
    join(c, apart);
    join(d, apart);
    struct made made = drain(FIRST, 1, 0, 0, false);
    ck_assert_uint_eq(made.plan.blocked_count, 0);
    ck_assert_uint_eq(move_of(&made, a)->to, move_of(&made, b)->to);
    ck_assert_uint_eq(move_of(&made, c)->to, 2);
    plan_done(&made);
    guests[b].leased = true; /* then neither goes */
    made = drain(FIRST, 1, 0, 0, false);
    ck_assert_uint_eq(made.plan.blocked_count, 2);
    plan_done(&made);
}
END_TEST

START_TEST(spread_fills_a_new_host_and_pack_empties_one)
{
    fleet_begin(3, 41 * GIB);
    for (uint32_t n = 0; n < 4; n++) {
        (void)guest_on(0, 5 * GIB);
        (void)guest_on(1, 5 * GIB);
    }
    struct lmo_plan_options spread = {.kind = LMO_PLAN_SPREAD}, pack = {.kind = LMO_PLAN_PACK};
    struct made made = make_plan(&spread);
    assert_good(&made, &spread, "spread", 0);
    ck_assert_uint_eq(made.plan.move_count, 2); /* 20, 20, 0: one from each */
    plan_done(&made);
    made = make_plan(&pack);
    assert_good(&made, &pack, "pack", 0);
    ck_assert_uint_eq(made.plan.move_count, 4);
    ck_assert_uint_eq(made.plan.moves[0].from, made.plan.moves[3].from);
    plan_done(&made);
    for (uint32_t h = 0; h < 3; h++) { /* even already: nothing to do */
        fleet.guest_count = 0;
    }
    for (uint32_t h = 0; h < 3; h++) {
        hosts[h].pools[0].free_bytes = 41 * GIB;
        (void)guest_on(h, 5 * GIB);
    }
    made = make_plan(&spread);
    ck_assert_uint_eq(made.plan.move_count, 0);
    ck_assert_str_eq(made.plan.text, "no move of a guest would improve anything");
    plan_done(&made);
}
END_TEST

START_TEST(wrong_snapshots_and_options_are_named)
{
    fleet_begin(2, 64 * GIB);
    uint32_t g = guest_on(0, GIB);
    struct lmo_plan_options o = {.hosts = (const uint32_t[]){0, 0}, .host_count = 2};
    ck_assert_str_eq(lmo_plan_options_wrong(&fleet, &o), "a host is to be emptied twice");
    o.hosts = (const uint32_t[]){0, 2};
    ck_assert_str_eq(lmo_plan_options_wrong(&fleet, &o), "a host to be emptied is not below host_count");
    o = (struct lmo_plan_options){.kind = LMO_PLAN_PACK, .hosts = FIRST, .host_count = 1};
    ck_assert_str_eq(lmo_plan_options_wrong(&fleet, &o), "a rebalance empties no hosts");
    guests[g].host = 2;
    ck_assert_str_eq(lmo_fleet_wrong(&fleet), "a guest's host is not below host_count");
    guests[g].host = 0;
    guests[g].huge_bytes = 1;
    ck_assert_str_eq(lmo_fleet_wrong(&fleet), "a guest's huge_pool is 0 or not below pool_count");
}
END_TEST

/* ------------------------------------------------------------------ against other ways of finding out */

/* All ways to put the first host's guests on the others, nobody else moving. */
static bool all_ways(uint32_t g, uint64_t *room)
{
    while (g < fleet.guest_count && guests[g].host != 0) {
        g++;
    }
    if (g == fleet.guest_count) {
        return true;
    }
    for (uint32_t h = 1; h < fleet.host_count; h++) {
        bool labelled = lmo_set_lacks(&guests[g].labels, &hosts[h].labels) == LMO_NONE;
        if (labelled && room[h] >= guests[g].memory_bytes) {
            room[h] -= guests[g].memory_bytes;
            bool found = all_ways(g + 1, room);
            room[h] += guests[g].memory_bytes;
            if (found) {
                return true;
            }
        }
    }
    return false;
}

START_TEST(a_host_that_can_be_emptied_is_emptied)
{
    uint32_t yes = 0, no = 0, more = 0;
    for (uint32_t round = 0; round < 5000; round++) {
        random_state = 2750159U * round + 3;
        fleet_begin(2 + draw(4), 24 * GIB);
        for (uint32_t h = 0; h < fleet.host_count; h++) {
            (void)(draw(2) ? lmo_set_add(&hosts[h].labels, draw(2)) : false);
            for (uint32_t n = draw(h == 0 ? 9 : 5); n > 0; n--) {
                uint64_t bytes = GIB * (1 + draw(8));
                if (hosts[h].pools[0].free_bytes > bytes + GIB) {
                    uint32_t g = guest_on(h, bytes);
                    (void)(draw(6) ? false : lmo_set_add(&guests[g].labels, draw(2)));
                }
            }
        }
        uint64_t room[8];
        for (uint32_t h = 0; h < fleet.host_count; h++) {
            room[h] = hosts[h].pools[0].free_bytes - GIB;
        }
        bool exact = all_ways(0, room);
        struct made made = drain(FIRST, 1, 0, 0, false);
        bool planned = made.plan.blocked_count == 0;
        ck_assert_msg(planned || !exact, "round %u: there is a way, and it was not found", round);
        yes += exact;
        no += !planned;
        more += planned && !exact; /* by others making room */
        plan_done(&made);
    }
    printf("    %u could be emptied, all were; %u more by making room; %u could not\n", yes, more, no);
    ck_assert(yes > 500 && no > 500 && more > 30);
}
END_TEST

static bool same_plan(const struct made *a, const struct made *b)
{
    const struct lmo_plan *pa = &a->plan, *pb = &b->plan;
    bool same = pa->move_count == pb->move_count && pa->stage_count == pb->stage_count &&
                pa->blocked_count == pb->blocked_count && pa->after_count == pb->after_count &&
                memcmp(pa->after, pb->after, pa->after_count * sizeof *pa->after) == 0;
    for (uint32_t m = 0; same && m < pa->move_count; m++) {
        const struct lmo_plan_move *ma = &pa->moves[m], *mb = &pb->moves[m];
        same = ma->guest == mb->guest && ma->from == mb->from && ma->to == mb->to && ma->why == mb->why &&
               ma->way == mb->way && ma->stage == mb->stage && ma->after_stage == mb->after_stage &&
               ma->start_ms == mb->start_ms && ma->low_ms == mb->low_ms && ma->high_ms == mb->high_ms &&
               ma->bandwidth_bytes_per_s == mb->bandwidth_bytes_per_s;
    }
    return same;
}

START_TEST(same_snapshot_same_plan)
{
    uint32_t targets[FLEET_HOSTS];
    for (uint32_t round = 0; round < 300; round++) {
        random_state = 32452843U * round + 9;
        random_fleet(2 + draw(10), 20 + draw(60), draw(30));
        struct lmo_plan_options o = random_options(targets);
        struct made first = make_plan(&o), second = make_plan(&o);
        ck_assert_msg(same_plan(&first, &second), "round %u", round);
        ck_assert_uint_eq(first.plan.bound_ms, lmo_plan_bound(&fleet, &o));
        plan_done(&first);
        plan_done(&second);
    }
}
END_TEST

struct told {
    const char *guest, *from, *to;
};

/* Hosts and guests the other way round, whatever refers to them likewise. */
static void turn_round(uint32_t *targets, struct lmo_plan_options *o)
{
    static struct lmo_plan_avoid avoid[4];
    uint32_t last_host = fleet.host_count - 1, last_guest = fleet.guest_count - 1;
    for (uint32_t h = 0; h <= last_host / 2; h++) {
        struct lmo_fleet_host t = hosts[h];
        hosts[h] = hosts[last_host - h];
        hosts[last_host - h] = t;
    }
    for (uint32_t g = 0; fleet.guest_count && g <= last_guest / 2; g++) {
        struct lmo_fleet_guest t = guests[g];
        guests[g] = guests[last_guest - g];
        guests[last_guest - g] = t;
    }
    for (uint32_t g = 0; g < fleet.guest_count; g++) {
        guests[g].host = last_host - guests[g].host;
    }
    for (uint32_t m = 0; m < fleet.move_count; m++) {
        moves[m] = (struct lmo_fleet_move){last_guest - moves[m].guest, last_host - moves[m].to};
    }
    for (uint32_t n = 0; n < o->host_count; n++) {
        targets[n] = last_host - targets[n];
    }
    for (uint32_t n = 0; n < o->avoid_count; n++) {
        avoid[n] = (struct lmo_plan_avoid){last_guest - o->avoid[n].guest, last_host - o->avoid[n].host};
    }
    o->avoid = avoid;
}

START_TEST(order_of_the_arrays_makes_no_difference)
{
    static struct told told[4096];
    uint32_t targets[FLEET_HOSTS];
    for (uint32_t round = 0; round < 300; round++) {
        random_state = 86028121U * round + 13;
        random_fleet(2 + draw(10), 20 + draw(70), draw(40));
        struct lmo_plan_options o = random_options(targets);
        if (round % 5 == 0) {
            o = (struct lmo_plan_options){.kind = round % 2 ? LMO_PLAN_SPREAD : LMO_PLAN_PACK, .spare_hosts = 1};
        }
        struct made made = make_plan(&o);
        uint32_t count = made.plan.move_count;
        ck_assert_uint_lt(count, sizeof told / sizeof told[0]);
        for (uint32_t m = 0; m < count; m++) {
            const struct lmo_plan_move *move = &made.plan.moves[m];
            told[m] = (struct told){guests[move->guest].uuid, hosts[move->from].name, hosts[move->to].name};
        }
        plan_done(&made);
        turn_round(targets, &o);
        made = make_plan(&o);
        ck_assert_msg(made.plan.move_count == count, "round %u: %u moves, %u before", round, made.plan.move_count,
                      count);
        for (uint32_t m = 0; m < count; m++) {
            const struct lmo_plan_move *move = &made.plan.moves[m];
            ck_assert_str_eq(told[m].guest, guests[move->guest].uuid);
            ck_assert_str_eq(told[m].from, hosts[move->from].name);
            ck_assert_str_eq(told[m].to, hosts[move->to].name);
        }
        plan_done(&made);
    }
}
END_TEST

/* The size that was promised: a campaign over a thousand hosts with twenty guests each. Every guest moves, at most one in
 * fifty twice. */
START_TEST(a_thousand_hosts_are_planned_and_guests_move_once)
{
    uint32_t targets[FLEET_HOSTS];
    fleet_begin(1000, 256 * GIB);
    random_state = 1;
    for (uint32_t h = 0; h < 1000; h++) {
        targets[h] = h;
        for (uint32_t n = 0; n < 20; n++) {
            (void)guest_on(h, GIB * (4 + draw(5)));
        }
    }
    struct lmo_plan_options o = {.hosts = targets, .host_count = 1000, .max_hosts = 10, .spare_hosts = 1};
    struct made made = make_plan(&o);
    ck_assert_uint_eq(made.plan.blocked_count, 0);
    ck_assert_uint_eq(made.plan.stage_count, 1000);
    ck_assert(made.plan.move_count >= 20000 && made.plan.move_count <= 20400);
    plan_done(&made);
}
END_TEST

/* ------------------------------------------------------------------ by chance */

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
    TCase *t = tcase_create("by example");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, one_host_is_emptied_longest_first_and_evenly);
    tcase_add_test(t, every_guest_that_stays_has_its_reason);
    tcase_add_test(t, full_hosts_are_swapped_through_a_third_one);
    tcase_add_test(t, rolling_drain_moves_each_guest_once_where_there_is_a_free_host);
    tcase_add_test(t, room_for_a_failing_host_is_kept_or_nothing_moves);
    tcase_add_test(t, guests_that_dirty_fast_go_one_at_a_time_and_idle_ones_together);
    tcase_add_test(t, affinity_group_moves_as_one_and_apart_stays_apart);
    tcase_add_test(t, spread_fills_a_new_host_and_pack_empties_one);
    tcase_add_test(t, wrong_snapshots_and_options_are_named);
    suite_add_tcase(s, t);
    TCase *o = tcase_create("against others");
    tcase_set_timeout(o, 300);
    tcase_add_test(o, a_host_that_can_be_emptied_is_emptied);
    tcase_add_test(o, same_snapshot_same_plan);
    tcase_add_test(o, order_of_the_arrays_makes_no_difference);
    tcase_add_test(o, a_thousand_hosts_are_planned_and_guests_move_once);
    suite_add_tcase(s, o);
    TCase *p = tcase_create("by chance");
    tcase_set_timeout(p, 300);
    tcase_add_test(p, no_invariant_is_ever_broken);
    tcase_add_test(p, a_rebalance_breaks_no_invariant_and_does_improve);
    suite_add_tcase(s, p);
    return s;
}
