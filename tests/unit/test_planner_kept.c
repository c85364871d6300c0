/* test_planner_kept.c - what a plan has to show and to keep: refuges for N+1 at every prefix, order when there is no room to say it, a
 * reason for everybody that does not return, swaps. */
#include "fleets.h"

Suite *planner_kept_suite(void);

static const uint32_t FIRST[] = {0}, BOTH[] = {0, 1};

static const char *broken(const struct made *made, const struct lmo_plan_options *o)
{
    return lmo_plan_broken(&fleet, o, &made->plan, made->scratch);
}

static struct made good_plan(const struct lmo_plan_options *o, uint32_t round)
{
    struct made made = make_plan(o);
    const char *why = broken(&made, o);
    ck_assert_msg(!why, "round %u: %s", round, why);
    return made;
}

/* ------------------------------------------------------------------ N+1, from outside */

struct world {
    uint32_t where[64];
    bool open[8];
    uint32_t lost_count, lost[64], refuge[64], lost_host;
};

static uint64_t need(uint32_t g, uint32_t pool)
{
    return pool ? guests[g].huge_bytes : guests[g].memory_bytes;
}

static bool apart_there(const struct world *w, uint32_t at, uint32_t host)
{
    uint32_t g = w->lost[at];
    for (uint32_t other = 0; other < fleet.guest_count; other++) {
        bool there = w->where[other] == host;
        for (uint32_t n = 0; n < at; n++) {
            there = there || (w->lost[n] == other && w->refuge[n] == host);
        }
        for (uint32_t m = 0; m < fleet.move_count; m++) {
            there = there || (moves[m].guest == other && moves[m].to == host);
        }
        for (uint32_t n = 0; n < guests[g].group_count && there && other != g; n++) {
            for (uint32_t k = 0; k < guests[other].group_count; k++) {
                if (guests[other].groups[k] == guests[g].groups[n] && groups[guests[g].groups[n]].hard &&
                    groups[guests[g].groups[n]].kind == LMO_GROUP_APART) {
                    return true;
                }
            }
        }
    }
    return false;
}

static bool labelled(uint32_t g, uint32_t h)
{
    return lmo_set_lacks(&guests[g].labels, &hosts[h].labels) == LMO_NONE;
}

/* Every way there is to put the lost host's guests elsewhere. */
static bool all_ways(struct world *w, int64_t room[][2], uint32_t at)
{
    if (at == w->lost_count) {
        return true;
    }
    uint32_t g = w->lost[at];
    for (uint32_t h = 0; h < fleet.host_count; h++) {
        bool fits = true;
        for (uint32_t pool = 0; pool < 2; pool++) {
            fits = fits && (need(g, pool) == 0 || room[h][pool] >= (int64_t)need(g, pool));
        }
        if (!fits || h == w->lost_host || w->open[h] || hosts[h].cordoned || !hosts[h].memory_known ||
            !labelled(g, h) || apart_there(w, at, h)) {
            continue;
        }
        for (uint32_t pool = 0; pool < 2; pool++) {
            room[h][pool] -= (int64_t)need(g, pool);
        }
        w->refuge[at] = h;
        bool found = all_ways(w, room, at + 1);
        for (uint32_t pool = 0; pool < 2; pool++) {
            room[h][pool] += (int64_t)need(g, pool);
        }
        if (found) {
            return true;
        }
    }
    return false;
}

/* For each kind of memory: the host that gives most of it is lost. */
static bool exhaustive(struct world *w)
{
    for (uint32_t pool = 0; pool < 2; pool++) {
        int64_t room[8][2], used[8][2] = {{0}}, first[8][2] = {{0}};
        for (uint32_t g = 0; g < fleet.guest_count; g++) {
            for (uint32_t n = 0; n < 2; n++) {
                used[w->where[g]][n] += (int64_t)need(g, n);
                first[guests[g].host][n] += (int64_t)need(g, n);
            }
        }
        for (uint32_t m = 0; m < fleet.move_count; m++) {
            for (uint32_t n = 0; n < 2; n++) {
                used[moves[m].to][n] += (int64_t)need(moves[m].guest, n);
            }
        }
        w->lost_host = LMO_NONE;
        for (uint32_t h = 0; h < fleet.host_count; h++) {
            for (uint32_t n = 0; n < 2; n++) {
                const struct lmo_fleet_pool *is = &hosts[h].pools[n];
                int64_t by_total = (int64_t)is->total_bytes - first[h][n], by_free = (int64_t)is->free_bytes;
                room[h][n] =
                    (by_total < by_free ? by_total : by_free) - (int64_t)is->keep_bytes + first[h][n] - used[h][n];
            }
            bool more = used[h][pool] > 0 && !w->open[h] &&
                        (w->lost_host == LMO_NONE || used[h][pool] > used[w->lost_host][pool]);
            w->lost_host = more ? h : w->lost_host;
        }
        w->lost_count = 0;
        for (uint32_t g = 0; g < fleet.guest_count; g++) {
            bool anywhere = false;
            for (uint32_t h = 0; h < fleet.host_count; h++) {
                anywhere = anywhere || (h != w->lost_host && labelled(g, h));
            }
            if (w->where[g] == w->lost_host && need(g, 0) + need(g, 1) > 0 && anywhere) {
                w->lost[w->lost_count++] = g;
            }
        }
        if (!all_ways(w, room, 0)) {
            return false;
        }
    }
    return true;
}

/* Small enough to look at everything; with labels, anti-affinity, huge pages and migrations under way. */
static void tiny_fleet(uint32_t host_count, uint32_t guest_count)
{
    fleet_begin(host_count, 20 * GIB);
    (void)group_of(LMO_GROUP_APART, true);
    (void)group_of(LMO_GROUP_APART, true);
    for (uint32_t h = 0; h < host_count; h++) {
        hosts[h].pools[1] = (struct lmo_fleet_pool){8 * GIB, 8 * GIB, 0};
        hosts[h].cordoned = draw(12) == 0;
        hosts[h].memory_known = draw(12) > 0;
        for (uint32_t n = 0; n < 2; n++) {
            (void)(draw(3) ? lmo_set_add(&hosts[h].labels, n) : false);
        }
    }
    for (uint32_t n = guest_count; n > 0; n--) {
        uint32_t h = draw(host_count);
        uint64_t bytes = GIB * (1 + draw(6));
        if (hosts[h].pools[0].free_bytes <= bytes + GIB) {
            continue;
        }
        uint32_t g = guest_on(h, bytes);
        (void)(draw(4) ? false : lmo_set_add(&guests[g].labels, draw(2)));
        if (draw(3) == 0) {
            join(g, draw(2));
        }
        uint64_t huge = GIB * (1 + draw(4));
        if (draw(4) == 0 && hosts[h].pools[1].free_bytes >= huge) {
            guests[g].huge_bytes = huge;
            guests[g].huge_pool = 1;
            hosts[h].pools[1].free_bytes -= huge;
        }
        if (draw(10) == 0 && fleet.move_count < 2) {
            uint32_t to = (h + 1) % host_count;
            moves[fleet.move_count++] = (struct lmo_fleet_move){g, to};
        }
    }
}

START_TEST(spare_room_is_never_seen_where_exhaustive_search_sees_none)
{
    uint32_t both = 0, neither = 0, missed = 0;
    for (uint32_t round = 0; round < 3000; round++) {
        random_state = 49979687U * round + 1;
        tiny_fleet(2 + draw(4), 3 + draw(8));
        struct world w = {.lost_count = 0};
        for (uint32_t g = 0; g < fleet.guest_count; g++) {
            w.where[g] = guests[g].host;
        }
        void *scratch = malloc(lmo_place_scratch(&fleet));
        struct lmo_place_options o = {.spare_hosts = 1};
        bool said = lmo_place_spare(lmo_place_begin(&fleet, &o, scratch), NULL, 0), exact = exhaustive(&w);
        free(scratch);
        ck_assert_msg(exact || !said, "round %u: N+1 is said to hold, and there is no way", round);
        both += exact && said;
        neither += !exact && !said;
        missed += exact && !said;
    }
    printf("    N+1 holds in %u, does not in %u, was missed in %u\n", both, neither, missed);
    ck_assert(both > 300 && neither > 300 && missed * 50 < both);
}
END_TEST

START_TEST(every_prefix_of_a_plan_has_a_way_by_exhaustive_search)
{
    uint32_t prefixes = 0, refused = 0;
    for (uint32_t round = 0; round < 1500; round++) {
        uint32_t targets[8] = {0};
        random_state = 67867967U * round + 5;
        tiny_fleet(3 + draw(3), 3 + draw(9));
        struct lmo_plan_options o = {.hosts = targets, .host_count = 1, .spare_hosts = 1, .give_back = draw(2)};
        if (draw(4) == 0) {
            o = (struct lmo_plan_options){.kind = draw(2) ? LMO_PLAN_PACK : LMO_PLAN_SPREAD, .spare_hosts = 1};
        }
        struct made made = good_plan(&o, round);
        struct world w = {.open = {o.kind == LMO_PLAN_EMPTY}};
        for (uint32_t g = 0; g < fleet.guest_count; g++) {
            w.where[g] = guests[g].host;
        }
        for (uint32_t m = 0; m < made.plan.move_count; m++) {
            const struct lmo_plan_move *move = &made.plan.moves[m];
            w.open[0] = w.open[0] && move->why != LMO_MOVE_GIVE_BACK;
            ck_assert_msg(exhaustive(&w), "round %u: no way before move %u", round, m);
            w.where[move->guest] = move->to;
            ck_assert_msg(exhaustive(&w), "round %u: no way after move %u", round, m);
            prefixes++;
        }
        for (uint32_t b = 0; b < made.plan.blocked_count; b++) {
            refused += made.plan.blocked[b].why == LMO_NOT_SPARE;
        }
        plan_done(&made);
    }
    printf("    %u prefixes, %u guests refused for N+1\n", prefixes, refused);
    ck_assert(prefixes > 500 && refused > 100);
}
END_TEST

/* Each refuge of a good plan put wrong in turn. Nothing of the planner's own counting may hide it. */
START_TEST(refuge_that_is_none_is_found_out)
{
    fleet_begin(4, 33 * GIB);
    for (uint32_t h = 0; h < 4; h++) {
        for (uint32_t n = 0; n < 3; n++) {
            (void)guest_on(h, (4 + n) * GIB);
        }
    }
    hosts[3].cordoned = true;
    struct lmo_plan_options o = {.hosts = FIRST, .host_count = 1, .spare_hosts = 1};
    struct made made = make_plan(&o);
    ck_assert_uint_eq(made.plan.move_count, 0); /* without hv0 and hv1, hv2 alone cannot take everything */
    plan_done(&made);
    hosts[3].cordoned = false;
    made = good_plan(&o, 0);
    ck_assert_uint_eq(made.plan.move_count, 3);
    ck_assert(made.plan.spare_count > 0 && made.plan.refuge_count > 0);
    struct lmo_plan_spare *spares = (struct lmo_plan_spare *)made.plan.spares;
    struct lmo_plan_refuge *refuges = (struct lmo_plan_refuge *)made.plan.refuges;
    for (uint32_t s = 0; s < made.plan.spare_count; s++) {
        struct lmo_plan_spare was = spares[s];
        for (uint32_t n = 0; n < was.refuge_count; n++) {
            struct lmo_plan_refuge *r = &refuges[was.refuge_first + n], right = *r;
            const uint32_t wrong[] = {0, was.lost[0], fleet.host_count};
            for (uint32_t k = 0; k < 3; k++) {
                r->host = wrong[k];
                ck_assert_ptr_nonnull(broken(&made, &o));
            }
            *r = right;
        }
        spares[s].refuge_count--;
        ck_assert_str_eq(broken(&made, &o), "N2: a guest of a host that may be lost has no refuge");
        spares[s] = was;
        spares[s].lost[0] = was.lost[0] == 1 ? 2 : 1;
        ck_assert_ptr_nonnull(broken(&made, &o));
        spares[s] = was;
    }
    ck_assert_ptr_null(broken(&made, &o));
    made.plan.spare_count = 0;
    ck_assert_str_eq(broken(&made, &o), "N2: nothing shows that N+1 holds");
    plan_done(&made);
}
END_TEST

/* ------------------------------------------------------------------ not enough room in the plan */

/* From as little room as there may be to plenty: nothing is left out silently. */
START_TEST(order_is_kept_however_little_room_there_is_to_say_it)
{
    uint32_t over = 0, whole = 0, serial = 0;
    for (uint32_t round = 0; round < 150; round++) {
        uint32_t targets[8];
        random_state = 86028157U * round + 3;
        random_fleet(4 + draw(5), 20 + draw(60), draw(2) ? 20 : 0);
        struct lmo_plan_options o = {.hosts = targets, .host_count = fleet.host_count < 8 ? fleet.host_count : 8};
        o.max_hosts = 1 + draw(4);
        o.give_back = draw(3) == 0;
        o.spare_hosts = draw(2);
        for (uint32_t n = 0; n < o.host_count; n++) {
            targets[n] = n;
        }
        struct made made = make_plan(&o);
        uint32_t needed = made.plan.after_count, moved = made.plan.move_count, least = 2 * o.host_count;
        for (uint32_t n = 0; n < 4; n++) {
            made.plan.after_max = least + (needed > least ? draw(needed - least + 1) : 0);
            made.plan.move_max = draw(3) ? moved : draw(moved + 1);
            lmo_plan_make(&fleet, &o, made.scratch, &made.plan);
            const char *why = broken(&made, &o);
            ck_assert_msg(!why, "round %u, %u of %u, %u of %u: %s", round, made.plan.after_max, needed,
                          made.plan.move_max, moved, why);
            ck_assert(made.plan.after_count <= made.plan.after_max && made.plan.move_count <= made.plan.move_max);
            uint32_t full = 0;
            for (uint32_t b = 0; b < made.plan.blocked_count; b++) {
                full += made.plan.blocked[b].why == LMO_NOT_OVER;
            }
            over += full;
            whole += full == 0;
            serial += full == 0 && made.plan.after_count < needed;
        }
        plan_done(&made);
    }
    printf("    %u guests had no room in their plan, %u plans were whole, %u of them in a stricter order\n", over,
           whole, serial);
    ck_assert(over > 500 && whole > 100 && serial > 5);
}
END_TEST

/* ------------------------------------------------------------------ who does not return */

START_TEST(guest_that_cannot_return_has_its_reason)
{
    fleet_begin(2, 17 * GIB);
    uint32_t a = guest_on(0, 4 * GIB), b = guest_on(0, 4 * GIB), c = guest_on(1, 4 * GIB);
    uint32_t apart = group_of(LMO_GROUP_APART, true);
    join(a, apart);
    hosts[0].pools[0].total_bytes = 6 * GIB; /* over-committed: both are there, but could not come */
    hosts[0].pools[0].free_bytes = 0;
    struct lmo_plan_options o = {.hosts = FIRST, .host_count = 1, .give_back = true};
    struct made made = good_plan(&o, 0);
    ck_assert_uint_eq(made.plan.away_count + made.plan.move_count, 4);
    ck_assert_uint_ge(made.plan.away_count, 1);
    ck_assert_int_eq((int)made.plan.away[0].why, LMO_NOT_MEMORY);
    ck_assert_uint_eq(made.plan.blocked_count, 0);
    ck_assert(made.plan.away[0].guest == a || made.plan.away[0].guest == b);
    made.plan.away_count--;
    ck_assert_str_eq(broken(&made, &o), "N5: a guest that was moved is neither back, nor is it said once why not");
    plan_done(&made);
    guests[b].leased = true; /* the host is not emptied then: a leaves all the same, and nobody returns */
    made = good_plan(&o, 0);
    ck_assert_uint_eq(made.plan.blocked_count, 1);
    ck_assert_uint_eq(made.plan.move_count, 1);
    ck_assert_uint_eq(made.plan.away_count, 1);
    ck_assert_str_eq(made.plan.away[0].text,
                     "hv0000: 1 of its guests cannot leave, and nobody returns to a host that was not emptied");
    plan_done(&made);
    (void)c;
}
END_TEST

START_TEST(everybody_moved_is_back_or_named_by_chance)
{
    uint32_t away = 0, back = 0;
    for (uint32_t round = 0; round < 300; round++) {
        uint32_t targets[4];
        random_state = 122949823U * round + 3;
        random_fleet(3 + draw(6), 40 + draw(50), 30);
        for (uint32_t h = 0; h < fleet.host_count; h++) {
            hosts[h].pools[0].total_bytes -= draw(3) ? 0 : hosts[h].pools[0].total_bytes / 3;
        }
        struct lmo_plan_options o = {.hosts = targets, .host_count = 1 + draw(3), .give_back = true};
        o.spare_hosts = draw(2);
        for (uint32_t n = 0; n < o.host_count; n++) {
            targets[n] = n;
        }
        struct made made = good_plan(&o, round);
        away += made.plan.away_count;
        for (uint32_t n = 0; n < made.plan.away_count; n++) {
            ck_assert(made.plan.away[n].text[0] && made.plan.away[n].why != LMO_NOT_REJECTED);
        }
        for (uint32_t m = 0; m < made.plan.move_count; m++) {
            back += made.plan.moves[m].why == LMO_MOVE_GIVE_BACK;
        }
        plan_done(&made);
    }
    ck_assert(away > 100 && back > 100);
}
END_TEST

/* ------------------------------------------------------------------ swaps */

static uint32_t count_of(const struct made *made, enum lmo_move_why why)
{
    uint32_t count = 0;
    for (uint32_t m = 0; m < made->plan.move_count; m++) {
        count += made->plan.moves[m].why == why;
    }
    return count;
}

/* hv0 and hv1 carry four of 4 GiB each. hv0's run on hv0 and hv1 only, hv1's anywhere; hv2 is the way round. */
static void two_to_swap(uint64_t hv1_bytes, uint64_t hv2_bytes)
{
    fleet_begin(3, 17 * GIB);
    ck_assert(lmo_set_add(&hosts[0].labels, 0) && lmo_set_add(&hosts[1].labels, 0));
    hosts[1].pools[0] = (struct lmo_fleet_pool){hv1_bytes, hv1_bytes, GIB};
    hosts[2].pools[0] = (struct lmo_fleet_pool){hv2_bytes, hv2_bytes, GIB};
    for (uint32_t n = 0; n < 8; n++) {
        uint32_t g = guest_on(n / 4, 4 * GIB);
        ck_assert(n >= 4 || lmo_set_add(&guests[g].labels, 0));
    }
}

START_TEST(full_hosts_swap_by_way_of_a_third_and_each_is_parked_as_its_own_step)
{
    two_to_swap(17 * GIB, 17 * GIB);
    struct lmo_plan_options o = {.hosts = FIRST, .host_count = 1, .give_back = true};
    struct made made = good_plan(&o, 0);
    ck_assert_uint_eq(made.plan.blocked_count, 0);
    ck_assert_uint_eq(count_of(&made, LMO_MOVE_PARK), 4);
    ck_assert_uint_eq(count_of(&made, LMO_MOVE_EMPTY), 4);
    ck_assert_uint_eq(count_of(&made, LMO_MOVE_GIVE_BACK), 8);
    ck_assert_uint_eq(made.plan.away_count, 0);
    plan_done(&made);
    o.give_back = false; /* those that make room stay where they went: nobody is parked */
    made = good_plan(&o, 0);
    ck_assert_uint_eq(count_of(&made, LMO_MOVE_PARK), 0);
    ck_assert_uint_eq(count_of(&made, LMO_MOVE_MAKE_ROOM), 4);
    plan_done(&made);
    o = (struct lmo_plan_options){.hosts = BOTH, .host_count = 2, .max_hosts = 1, .as_given = true};
    made = good_plan(&o, 0); /* hv1 after it: what has come there goes to hv0, which is ready again */
    ck_assert_uint_eq(made.plan.blocked_count, 0);
    ck_assert_uint_eq(made.plan.stage_count, 2);
    for (uint32_t g = 0; g < 4; g++) {
        uint32_t at = 0;
        for (uint32_t m = 0; m < made.plan.move_count; m++) {
            at = made.plan.moves[m].guest == g ? made.plan.moves[m].to : at;
        }
        ck_assert_uint_eq(at, 0);
    }
    plan_done(&made);
}
END_TEST

/* hv2 has room for half of hv1's only, and hv1 for half of hv0's: half goes at once, half when half has made room. */
START_TEST(swap_in_halves_where_the_third_host_has_room_for_a_part)
{
    two_to_swap(25 * GIB, 9 * GIB);
    struct lmo_plan_options o = {.hosts = FIRST, .host_count = 1};
    struct made made = good_plan(&o, 0);
    ck_assert_uint_eq(made.plan.blocked_count, 0);
    ck_assert_uint_eq(made.plan.move_count, 6);
    ck_assert_uint_eq(count_of(&made, LMO_MOVE_MAKE_ROOM), 2);
    uint32_t at_once = 0, waiting = 0;
    for (uint32_t m = 0; m < made.plan.move_count; m++) {
        const struct lmo_plan_move *move = &made.plan.moves[m];
        at_once += move->why == LMO_MOVE_EMPTY && move->after_count == 0;
        waiting += move->why == LMO_MOVE_EMPTY && move->after_count > 0;
    }
    ck_assert(at_once == 2 && waiting == 2);
    plan_done(&made);
    two_to_swap(25 * GIB, 5 * GIB); /* and where a part cannot go, only that part stays */
    made = good_plan(&o, 0);
    ck_assert_uint_eq(made.plan.blocked_count, 1);
    ck_assert_uint_eq(made.plan.blocked[0].guest < 4, true);
    plan_done(&made);
}
END_TEST

/* Several at once: nobody is put where the turn comes next, and so hardly anybody moves twice. */
START_TEST(first_stages_do_not_hand_their_guests_to_the_next_ones)
{
    uint32_t targets[60];
    fleet_begin(60, 256 * GIB);
    random_state = 11;
    for (uint32_t h = 0; h < 60; h++) {
        targets[h] = h;
        for (uint32_t n = 0; n < 20; n++) {
            (void)guest_on(h, GIB * (4 + draw(5)));
        }
    }
    struct lmo_plan_options o = {.hosts = targets, .host_count = 60, .max_hosts = 3, .spare_hosts = 1};
    struct made made = good_plan(&o, 0);
    ck_assert_uint_eq(made.plan.move_count, 1200 + 3 * 20); /* the first of each lane, and nobody else */
    /* times that are worked out, not measured: half a second for each migration and those that move twice are in it */
    ck_assert_uint_le(made.plan.expected_ms, made.plan.bound_ms * 125 / 100);
    for (uint32_t s = 0; s < 3; s++) {
        ck_assert_uint_eq(made.plan.stages[s].after_count, 0);
        ck_assert_uint_eq(made.plan.stages[s].start_ms, 0);
    }
    plan_done(&made);
}
END_TEST

Suite *planner_kept_suite(void)
{
    Suite *s = suite_create("planner_kept");
    TCase *t = tcase_create("by example");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, refuge_that_is_none_is_found_out);
    tcase_add_test(t, guest_that_cannot_return_has_its_reason);
    tcase_add_test(t, full_hosts_swap_by_way_of_a_third_and_each_is_parked_as_its_own_step);
    tcase_add_test(t, swap_in_halves_where_the_third_host_has_room_for_a_part);
    tcase_add_test(t, first_stages_do_not_hand_their_guests_to_the_next_ones);
    suite_add_tcase(s, t);
    TCase *c = tcase_create("by chance");
    tcase_set_timeout(c, 300);
    tcase_add_test(c, spare_room_is_never_seen_where_exhaustive_search_sees_none);
    tcase_add_test(c, every_prefix_of_a_plan_has_a_way_by_exhaustive_search);
    tcase_add_test(c, order_is_kept_however_little_room_there_is_to_say_it);
    tcase_add_test(c, everybody_moved_is_back_or_named_by_chance);
    suite_add_tcase(s, c);
    return s;
}
