/* test_placement.c - each reason and each part of the score by example; then N+1 and the filter against other ways of finding
 * out, on random fleets. */
#include "fleets.h"

Suite *placement_suite(void);

static struct lmo_place *begin(uint32_t spare_hosts, const uint32_t *avoid, uint32_t avoid_count)
{
    static void *scratch;
    struct lmo_place_options o = {.spare_hosts = spare_hosts, .avoid = avoid, .avoid_count = avoid_count};
    free(scratch);
    size_t size = lmo_place_scratch(&fleet);
    scratch = malloc(size);
    memset(scratch, 0xA5, size);
    return lmo_place_begin(&fleet, &o, scratch);
}

static void assert_why(uint32_t guest, uint32_t host, enum lmo_not why, const char *text)
{
    struct lmo_verdict v;
    lmo_place_judge(begin(0, NULL, 0), guest, host, &v);
    ck_assert_str_eq(lmo_not_text((int)v.why), lmo_not_text((int)why));
    if (text) {
        ck_assert_str_eq(v.text, text);
    }
}

/* ------------------------------------------------------------------ reasons */

START_TEST(words_are_stable_both_ways_and_sets_say_what_they_lack)
{
    for (int n = 0; n < LMO_NOT_COUNT; n++) {
        ck_assert_int_eq(lmo_not_from_text(lmo_not_text(n)), n);
    }
    for (int n = 0; lmo_unmovable_text(n); n++) {
        ck_assert_int_eq(lmo_unmovable_from_text(lmo_unmovable_text(n)), n);
    }
    ck_assert(!lmo_not_text(LMO_NOT_COUNT) && !lmo_not_text(-1) && lmo_not_from_text("no such") == -1);
    struct lmo_set a = {{0}}, b = {{0}};
    ck_assert(lmo_set_add(&a, 200) && lmo_set_has(&a, 200) && !lmo_set_has(&a, 199) && !lmo_set_add(&a, LMO_SET_MAX));
    ck_assert_uint_eq(lmo_set_lacks(&a, &b), 200);
    ck_assert_uint_eq(lmo_set_lacks(&b, &a), LMO_NONE);
}
END_TEST

START_TEST(every_state_of_a_host_is_a_reason_of_its_own)
{
    fleet_begin(8, 64 * GIB);
    uint32_t g = guest_on(0, 4 * GIB);
    hosts[1].up = false;
    hosts[2].cordoned = true;
    hosts[3].draining = true;
    hosts[4].linked = false;
    hosts[5].max_incoming = 0;
    hosts[6].memory_known = false;
    assert_why(g, 0, LMO_NOT_HERE, "hv0000: the guest is there already");
    assert_why(g, 1, LMO_NOT_DOWN, NULL);
    assert_why(g, 2, LMO_NOT_CORDONED, "hv0002: cordoned");
    assert_why(g, 3, LMO_NOT_DRAINING, "hv0003: draining");
    assert_why(g, 4, LMO_NOT_LINK, "hv0004: has no link 'migration'");
    assert_why(g, 5, LMO_NOT_SLOTS, NULL);
    assert_why(g, 6, LMO_NOT_MEMORY_UNKNOWN, NULL);
    assert_why(g, 7, LMO_NOT_REJECTED, "hv0007: can take it, 59.0 GiB of memory free then");
    const uint32_t avoid[] = {7};
    struct lmo_verdict v;
    lmo_place_judge(begin(0, avoid, 1), g, 7, &v);
    ck_assert_int_eq((int)v.why, LMO_NOT_AVOIDED);
    ck_assert_uint_eq(lmo_place_best(begin(0, avoid, 1), g, &v), LMO_NONE);
    ck_assert_int_eq((int)v.why, LMO_NOT_NOWHERE);
    ck_assert_ptr_nonnull(strstr(v.text, "no host can take it: 1 down"));
}
END_TEST

START_TEST(what_a_guest_needs_is_named_when_a_host_lacks_it)
{
    static const char *const services[] = {"10.0.0.3:10809"}, *const labels[] = {"gpu=no", "zone=b"};
    fleet_begin(2, 64 * GIB);
    fleet.services = (struct lmo_fleet_names){services, 1};
    fleet.labels = (struct lmo_fleet_names){labels, 2};
    uint32_t g = guest_on(0, 4 * GIB);
    guests[g].cpu = 1;
    cpu_runs[1 * FLEET_CPUS] = LMO_CPU_DIFFERS;
    assert_why(g, 1, LMO_NOT_CPU, NULL);
    cpu_runs[1 * FLEET_CPUS] = LMO_CPU_UNKNOWN;
    assert_why(g, 1, LMO_NOT_CPU_UNKNOWN, NULL);
    guests[g].cpu = LMO_NONE;
    guests[g].machine = 5;
    assert_why(g, 1, LMO_NOT_MACHINE, "hv0001: its hypervisor does not know machine type number 5");
    ck_assert(lmo_set_add(&hosts[1].machines, 5) && lmo_set_add(&guests[g].services, 0));
    assert_why(g, 1, LMO_NOT_SERVICE, "hv0001: does not reach volume service 10.0.0.3:10809");
    ck_assert(lmo_set_add(&hosts[1].services, 0) && lmo_set_add(&guests[g].fabrics, 9));
    assert_why(g, 1, LMO_NOT_FABRIC, "hv0001: is not part of fabric number 9");
    ck_assert(lmo_set_add(&hosts[1].fabrics, 9) && lmo_set_add(&guests[g].labels, 1));
    assert_why(g, 1, LMO_NOT_LABEL, "hv0001: lacks label zone=b");
    ck_assert(lmo_set_add(&hosts[1].labels, 1));
    assert_why(g, 1, LMO_NOT_REJECTED, NULL);
}
END_TEST

START_TEST(memory_counts_what_is_measured_what_guests_may_grow_to_and_what_is_kept)
{
    fleet_begin(3, 16 * GIB);
    uint32_t g = guest_on(0, 4 * GIB);
    (void)guest_on(1, 12 * GIB);
    assert_why(g, 1, LMO_NOT_MEMORY, "hv0001: needs 4.0 GiB, 3.0 GiB free after 1.0 GiB is kept");
    hosts[1].pools[0].free_bytes = 16 * GIB; /* its guest has not touched its memory yet: that is no room */
    assert_why(g, 1, LMO_NOT_MEMORY, NULL);
    hosts[2].pools[0].free_bytes = 2 * GIB; /* somebody else uses it */
    assert_why(g, 2, LMO_NOT_MEMORY, "hv0002: needs 4.0 GiB, 1.0 GiB free after 1.0 GiB is kept");
    hosts[2].pools[0].free_bytes = 16 * GIB;
    assert_why(g, 2, LMO_NOT_REJECTED, NULL);
    uint32_t other = guest_on(0, 12 * GIB); /* on its way there */
    moves[fleet.move_count++] = (struct lmo_fleet_move){other, 2};
    assert_why(g, 2, LMO_NOT_MEMORY, NULL);
    fleet.move_count = 0;
    guests[g].huge_bytes = 4 * GIB;
    guests[g].huge_pool = 1;
    guests[g].memory_bytes = GIB / 4;
    assert_why(g, 2, LMO_NOT_HUGE_PAGES, "hv0002: needs 4.0 GiB of 2048 KiB pages, 0 MiB free after 0 MiB is kept");
}
END_TEST

START_TEST(what_keeps_a_guest_itself_comes_with_its_reason)
{
    char text[LMO_TEXT_MAX];
    enum lmo_not why;
    fleet_begin(2, 64 * GIB);
    uint32_t g = guest_on(0, 4 * GIB);
    struct lmo_fleet_guest *guest = &guests[g];
    ck_assert_int_eq((int)lmo_place_way(&fleet, g, &why, text, sizeof text), LMO_WAY_LIVE);
    guest->leased = true;
    guest->lease_text = "billing: being resized";
    ck_assert_int_eq((int)lmo_place_way(&fleet, g, &why, text, sizeof text), LMO_WAY_NONE);
    ck_assert_int_eq((int)why, LMO_NOT_LEASED);
    ck_assert_str_eq(text, "leased, it is not to be moved: billing: being resized");
    guest->leased = false;
    guest->blockers = LMO_BLOCKER_LOCAL_DISK;
    ck_assert_int_eq((int)lmo_place_way(&fleet, g, &why, text, sizeof text), LMO_WAY_NONE);
    ck_assert_int_eq((int)why, LMO_NOT_BLOCKED);
    guest->unmovable = LMO_UNMOVABLE_BLOCK;
    ck_assert_int_eq((int)lmo_place_way(&fleet, g, &why, text, sizeof text), LMO_WAY_BLOCK);
    guest->blockers |= LMO_BLOCKER_DEVICE;
    ck_assert_int_eq((int)lmo_place_way(&fleet, g, &why, text, sizeof text), LMO_WAY_NONE);
    guest->blockers = LMO_BLOCKER_DEVICE;
    guest->unmovable = LMO_UNMOVABLE_OFFLINE;
    ck_assert_int_eq((int)lmo_place_way(&fleet, g, &why, text, sizeof text), LMO_WAY_NONE);
    guest->state = LMO_RUN_SHUT_OFF;
    ck_assert_int_eq((int)lmo_place_way(&fleet, g, &why, text, sizeof text), LMO_WAY_OFFLINE);
    guest->state = LMO_RUN_UNKNOWN;
    ck_assert_int_eq((int)lmo_place_way(&fleet, g, &why, text, sizeof text), LMO_WAY_NONE);
    ck_assert_int_eq((int)why, LMO_NOT_STATE);
    moves[fleet.move_count++] = (struct lmo_fleet_move){g, 1};
    ck_assert_int_eq((int)lmo_place_way(&fleet, g, &why, text, sizeof text), LMO_WAY_NONE);
    ck_assert_int_eq((int)why, LMO_NOT_MIGRATING);
}
END_TEST

START_TEST(groups_keep_apart_and_together_and_wishes_only_score)
{
    fleet_begin(4, 64 * GIB);
    uint32_t a = guest_on(0, 4 * GIB), b = guest_on(1, 4 * GIB), c = guest_on(2, 4 * GIB);
    uint32_t hard = group_of(LMO_GROUP_APART, true);
    join(a, hard);
    join(b, hard);
    assert_why(a, 1, LMO_NOT_ANTI_AFFINITY, "hv0001: vm1 is there, and guests of group group0 are to be apart");
    groups[hard].hard = false;
    assert_why(a, 1, LMO_NOT_REJECTED, NULL);
    ck_assert_uint_ne(lmo_place_best(begin(0, NULL, 0), a, NULL), 1);
    uint32_t wish = group_of(LMO_GROUP_TOGETHER, false);
    join(a, wish);
    join(c, wish);
    ck_assert_uint_eq(lmo_place_best(begin(0, NULL, 0), a, NULL), 2);
    groups[wish].hard = true;
    assert_why(a, 3, LMO_NOT_AFFINITY, "hv0003: guests of group group1 stay together, and vm2 is on hv0002");
    assert_why(a, 2, LMO_NOT_REJECTED, NULL);
}
END_TEST

START_TEST(spare_room_for_the_fullest_host_is_kept)
{
    struct lmo_verdict v;
    char text[LMO_TEXT_MAX];
    fleet_begin(3, 17 * GIB);
    uint32_t g = guest_on(0, 4 * GIB);
    (void)guest_on(1, 8 * GIB);
    (void)guest_on(2, 4 * GIB);
    ck_assert(lmo_place_spare(begin(1, NULL, 0), text, sizeof text));
    lmo_place_judge(begin(1, NULL, 0), g, 1, &v); /* 12 there then: 8 and 4 fit on the two others */
    ck_assert_int_eq((int)v.why, LMO_NOT_REJECTED);
    (void)guest_on(0, 9 * GIB);
    (void)guest_on(2, 6 * GIB);
    ck_assert(!lmo_place_spare(begin(1, NULL, 0), text, sizeof text));
    ck_assert_ptr_nonnull(strstr(text, "would find no place"));
    lmo_place_judge(begin(1, NULL, 0), g, 1, &v);
    ck_assert_int_eq((int)v.why, LMO_NOT_SPARE);
    ck_assert_ptr_nonnull(strstr(v.text, "failed then, its guest"));
}
END_TEST

/* ------------------------------------------------------------------ by chance */

/* Explain gives every host once, the best first, best() its first; and the order of the arrays makes no difference. */
START_TEST(explain_gives_every_host_in_order_and_the_order_of_arrays_does_not_matter)
{
    static struct lmo_verdict verdicts[FLEET_HOSTS];
    for (uint32_t round = 0; round < 800; round++) {
        random_state = 7919U * round + 5;
        random_fleet(2 + draw(12), 20 + draw(70), draw(40));
        if (fleet.guest_count == 0) {
            continue;
        }
        uint32_t g = draw(fleet.guest_count), count = fleet.host_count, spare = draw(2);
        lmo_place_explain(begin(spare, NULL, 0), g, verdicts);
        bool seen[FLEET_HOSTS] = {false};
        for (uint32_t n = 0; n < count; n++) {
            const struct lmo_verdict *v = &verdicts[n];
            ck_assert(!seen[v->host] && v->text[0]);
            seen[v->host] = true;
            ck_assert(n == 0 || verdicts[n - 1].score >= v->score);
            ck_assert((v->score == 0) == (v->why != LMO_NOT_REJECTED));
            const struct lmo_fleet_host *h = &hosts[v->host];
            bool usable = h->up && !h->cordoned && !h->draining && guests[g].host != v->host;
            ck_assert(usable || v->why != LMO_NOT_REJECTED); /* P1 */
            uint32_t sum = 0;
            for (int p = 0; p < LMO_SCORE_PARTS; p++) {
                ck_assert_uint_le(v->parts[p], 1000);
                sum += v->parts[p] * lmo_score_weight((enum lmo_score_part)p);
            }
            ck_assert_uint_eq(sum, v->score);
        }
        uint32_t best = lmo_place_best(begin(spare, NULL, 0), g, NULL);
        ck_assert_uint_eq(best, verdicts[0].why == LMO_NOT_REJECTED ? verdicts[0].host : LMO_NONE);
        const char *name = best == LMO_NONE ? "" : hosts[best].name;
        struct lmo_fleet_host swapped =
            hosts[0]; /* the same fleet, the first and the last host in each other's place */
        hosts[0] = hosts[count - 1];
        hosts[count - 1] = swapped;
        for (uint32_t n = 0; n < fleet.guest_count; n++) {
            guests[n].host = guests[n].host == 0 ? count - 1 : guests[n].host == count - 1 ? 0 : guests[n].host;
        }
        for (uint32_t n = 0; n < fleet.move_count; n++) {
            moves[n].to = moves[n].to == 0 ? count - 1 : moves[n].to == count - 1 ? 0 : moves[n].to;
        }
        best = lmo_place_best(begin(spare, NULL, 0), g, NULL);
        ck_assert_str_eq(best == LMO_NONE ? "" : hosts[best].name, name);
    }
}
END_TEST

/* All ways to put the guests of `lost` on the others. */
static bool all_ways(const uint32_t *lost, uint32_t count, uint32_t at, uint32_t host, uint64_t *room)
{
    if (at == count) {
        return true;
    }
    for (uint32_t h = 0; h < fleet.host_count; h++) {
        uint64_t need = guests[lost[at]].memory_bytes;
        if (h != host && room[h] >= need) {
            room[h] -= need;
            bool found = all_ways(lost, count, at + 1, host, room);
            room[h] += need;
            if (found) {
                return true;
            }
        }
    }
    return false;
}

START_TEST(spare_room_is_what_exhaustive_search_says_it_is)
{
    uint32_t yes = 0, no = 0;
    for (uint32_t round = 0; round < 4000; round++) {
        random_state = 6151U * round + 1;
        fleet_begin(2 + draw(3), 20 * GIB);
        for (uint32_t n = 3 + draw(8); n > 0; n--) {
            uint32_t h = draw(fleet.host_count);
            uint64_t bytes = GIB * (1 + draw(7));
            if (hosts[h].pools[0].free_bytes > bytes + GIB) {
                (void)guest_on(h, bytes);
            }
        }
        uint64_t room[8], used[8] = {0};
        uint32_t fullest = 0, lost[16], count = 0;
        for (uint32_t h = 0; h < fleet.host_count; h++) {
            room[h] = hosts[h].pools[0].free_bytes - GIB;
            used[h] = 20 * GIB - hosts[h].pools[0].free_bytes;
            fullest = used[h] > used[fullest] ? h : fullest;
        }
        for (uint32_t g = 0; g < fleet.guest_count; g++) {
            if (guests[g].host == fullest) {
                lost[count++] = g;
            }
        }
        bool exact = all_ways(lost, count, 0, fullest, room), said = lmo_place_spare(begin(1, NULL, 0), NULL, 0);
        ck_assert_msg(exact == said, "round %u: there %s a way, said %d", round, exact ? "is" : "is no", said);
        yes += said;
        no += !said;
    }
    ck_assert(yes > 500 && no > 500);
}
END_TEST

Suite *placement_suite(void)
{
    Suite *s = suite_create("placement");
    TCase *t = tcase_create("by example");
    tcase_add_test(t, words_are_stable_both_ways_and_sets_say_what_they_lack);
    tcase_add_test(t, every_state_of_a_host_is_a_reason_of_its_own);
    tcase_add_test(t, what_a_guest_needs_is_named_when_a_host_lacks_it);
    tcase_add_test(t, memory_counts_what_is_measured_what_guests_may_grow_to_and_what_is_kept);
    tcase_add_test(t, what_keeps_a_guest_itself_comes_with_its_reason);
    tcase_add_test(t, groups_keep_apart_and_together_and_wishes_only_score);
    tcase_add_test(t, spare_room_for_the_fullest_host_is_kept);
    suite_add_tcase(s, t);
    TCase *p = tcase_create("by chance");
    tcase_set_timeout(p, 300);
    tcase_add_test(p, explain_gives_every_host_in_order_and_the_order_of_arrays_does_not_matter);
    tcase_add_test(p, spare_room_is_what_exhaustive_search_says_it_is);
    suite_add_tcase(s, p);
    return s;
}
