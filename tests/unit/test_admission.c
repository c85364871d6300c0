/* test_admission.c - the queue's rules by example, then by chance: fleets, guests and limits drawn at random, evaluated while
 * migrations start, confirm orders and end; after each evaluation every limit is added up again from outside. */
#include "core/admission.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB       (UINT64_C(1) << 20)
#define HOSTS_MAX 40
#define ITEMS_MAX 400

Suite *admission_suite(void);

static struct lmo_limits limits;
static struct lmo_adm_host hosts[HOSTS_MAX];
static struct lmo_adm_item items[ITEMS_MAX];
static struct lmo_adm_fleet fleet;

static void begin(uint32_t host_count)
{
    lmo_limits_default(&limits);
    limits.min_share_bytes_per_s = 100;
    memset(hosts, 0, sizeof hosts);
    memset(items, 0, sizeof items);
    fleet = (struct lmo_adm_fleet){
        .limits = &limits, .hosts = hosts, .host_count = host_count, .items = items, .queue = LMO_NONE};
    for (uint32_t h = 0; h < host_count; h++) {
        hosts[h] =
            (struct lmo_adm_host){.usable = true, .max_incoming = 2, .max_outgoing = 2, .rate_bytes_per_s = 1000};
    }
}

/* The queue holds the QUEUED items in the order of the array. */
static void link_queue(void)
{
    uint32_t last = LMO_NONE;
    fleet.queue = LMO_NONE;
    for (uint32_t n = 0; n < fleet.item_count; n++) {
        if (items[n].state == LMO_ADM_QUEUED) {
            items[n].next = LMO_NONE;
            *(last == LMO_NONE ? &fleet.queue : &items[last].next) = n;
            last = n;
        }
    }
}

static struct lmo_adm_item *queued(uint32_t source, uint32_t destination)
{
    ck_assert_uint_lt(fleet.item_count, ITEMS_MAX);
    struct lmo_adm_item *i = &items[fleet.item_count++];
    *i = (struct lmo_adm_item){.state = LMO_ADM_QUEUED, .source = source, .destination = destination};
    return i;
}

static struct lmo_adm_item *running(uint32_t source, uint32_t destination, uint64_t share)
{
    struct lmo_adm_item *i = queued(source, destination);
    i->state = LMO_ADM_RUNNING;
    i->stream = i->adjustable = i->ordered = true;
    i->share_bytes_per_s = i->held_bytes_per_s = share;
    return i;
}

static void decide(void)
{
    link_queue();
    lmo_admission_decide(&fleet);
    const char *broken = lmo_admission_broken(&fleet);
    ck_assert_msg(broken == NULL, "%s", broken);
}

static void start(struct lmo_adm_item *i)
{
    ck_assert(i->admitted);
    i->state = LMO_ADM_RUNNING;
    i->stream = i->adjustable = true;
    i->share_bytes_per_s = i->held_bytes_per_s = i->new_share_bytes_per_s;
}

static void assert_held(const struct lmo_adm_item *i, enum lmo_limit limit, uint32_t host, uint32_t position)
{
    ck_assert(!i->admitted);
    ck_assert_str_eq(lmo_limit_text(i->hold.limit), lmo_limit_text(limit));
    ck_assert_uint_eq(i->hold.host, host);
    ck_assert_uint_eq(i->hold.position, position);
}

/* ------------------------------------------------------------------ by example */

START_TEST(slots_are_given_in_order_and_those_behind_know_their_place)
{
    begin(8);
    struct lmo_adm_item *i[5];
    for (uint32_t n = 0; n < 5; n++) {
        i[n] = queued(1 + n, 0);
    }
    decide();
    ck_assert(i[0]->admitted && i[1]->admitted);
    for (uint32_t n = 2; n < 5; n++) {
        assert_held(i[n], LMO_LIMIT_INCOMING, 0, n - 1);
        ck_assert_uint_eq(i[n]->hold.in_use, 2);
        ck_assert_uint_eq(i[n]->hold.max, 2);
    }
}
END_TEST

START_TEST(outgoing_slots_and_fleet_limit_hold_likewise)
{
    begin(8);
    limits.max_migrations = 3;
    struct lmo_adm_item *a = queued(0, 1), *b = queued(0, 2), *c = queued(0, 3), *d = queued(4, 5), *e = queued(6, 7);
    decide();
    ck_assert(a->admitted && b->admitted && d->admitted);
    assert_held(c, LMO_LIMIT_OUTGOING, 0, 1);
    assert_held(e, LMO_LIMIT_FLEET, LMO_NONE, 1);
    ck_assert_uint_eq(e->hold.in_use, 3);
}
END_TEST

START_TEST(unrelated_host_does_not_hold_up_what_is_behind)
{
    begin(6);
    hosts[1].max_incoming = 0;
    struct lmo_adm_item *stuck = queued(0, 1), *other = queued(2, 3);
    decide();
    assert_held(stuck, LMO_LIMIT_INCOMING, 1, 1);
    ck_assert(other->admitted);
}
END_TEST

START_TEST(host_that_cannot_be_reached_holds_only_its_own)
{
    begin(4);
    hosts[1].usable = false;
    struct lmo_adm_item *a = queued(0, 1), *b = queued(1, 2), *c = queued(0, 2);
    decide();
    assert_held(a, LMO_LIMIT_HOST, 1, 1);
    assert_held(b, LMO_LIMIT_HOST, 1, 2);
    ck_assert(c->admitted);
}
END_TEST

START_TEST(guest_that_does_not_fit_into_memory_waits_and_keeps_its_place_before_smaller_ones)
{
    begin(4);
    hosts[3].pool_known[0] = true;
    hosts[3].pool_bytes[0] = 1000;
    struct lmo_adm_item *r = running(0, 3, 100), *big = queued(1, 3), *small = queued(2, 3);
    r->memory_bytes = 500;
    big->memory_bytes = 600;
    small->memory_bytes = 100;
    decide();
    assert_held(big, LMO_LIMIT_MEMORY, 3, 1);
    ck_assert_uint_eq(big->hold.in_use, 500);
    ck_assert_uint_eq(big->hold.needed, 600);
    assert_held(small, LMO_LIMIT_MEMORY, 3, 2);
    ck_assert(fleet.waits_for_memory);
    r->state = LMO_ADM_FREE;
    decide();
    ck_assert(big->admitted && small->admitted);
}
END_TEST

START_TEST(huge_pages_are_a_pool_of_their_own)
{
    begin(3);
    hosts[2].pool_known[0] = hosts[2].pool_known[1] = true;
    hosts[2].pool_bytes[0] = 1000;
    hosts[2].pool_bytes[1] = 64 * MIB;
    struct lmo_adm_item *a = queued(0, 2), *b = queued(1, 2);
    a->memory_bytes = b->memory_bytes = 10;
    a->huge_pool = b->huge_pool = 1;
    a->huge_bytes = b->huge_bytes = 48 * MIB;
    decide();
    ck_assert(a->admitted);
    assert_held(b, LMO_LIMIT_HUGE_PAGES, 2, 1);
}
END_TEST

START_TEST(stale_memory_is_asked_for_before_it_admits_anybody)
{
    begin(3);
    hosts[1].pool_known[0] = hosts[1].memory_stale = true;
    hosts[1].pool_bytes[0] = 1000;
    struct lmo_adm_item *a = queued(0, 1);
    a->memory_bytes = 10;
    decide();
    assert_held(a, LMO_LIMIT_ASKING, 1, 1);
    ck_assert(hosts[1].ask_memory);
    hosts[1].memory_stale = false;
    decide();
    ck_assert(a->admitted && !hosts[1].ask_memory);
}
END_TEST

START_TEST(links_take_no_more_than_can_have_their_minimum_share_each)
{
    begin(8);
    hosts[0].max_incoming = 10;
    hosts[0].rate_bytes_per_s = 250; /* two of 100 */
    struct lmo_adm_item *i[4];
    for (uint32_t n = 0; n < 4; n++) {
        i[n] = queued(1 + n, 0);
    }
    decide();
    ck_assert(i[0]->admitted && i[1]->admitted);
    ck_assert_uint_eq(i[0]->new_share_bytes_per_s, 125);
    ck_assert_uint_eq(i[1]->new_share_bytes_per_s, 125);
    assert_held(i[2], LMO_LIMIT_BANDWIDTH, 0, 1);
    assert_held(i[3], LMO_LIMIT_BANDWIDTH, 0, 2);
}
END_TEST

START_TEST(slow_link_gives_everything_to_one_after_the_other)
{
    begin(4);
    hosts[0].rate_bytes_per_s = 30; /* below the minimum share */
    struct lmo_adm_item *a = queued(1, 0), *b = queued(2, 0);
    decide();
    ck_assert(a->admitted);
    ck_assert_uint_eq(a->new_share_bytes_per_s, 30);
    assert_held(b, LMO_LIMIT_BANDWIDTH, 0, 1);
}
END_TEST

START_TEST(newcomer_waits_until_the_others_have_confirmed_that_they_give_up_its_share)
{
    begin(4);
    struct lmo_adm_item *r = running(0, 1, 1000), *q = queued(0, 2);
    decide();
    assert_held(q, LMO_LIMIT_FREEING, 0, 1);
    ck_assert(r->changed);
    ck_assert_uint_eq(r->new_share_bytes_per_s, 500);
    r->share_bytes_per_s = 500; /* ordered ... */
    r->adjustable = false;
    decide();
    assert_held(q, LMO_LIMIT_FREEING, 0, 1);
    ck_assert(!r->changed);
    r->held_bytes_per_s = 500; /* ... and confirmed */
    r->adjustable = true;
    decide();
    ck_assert(q->admitted);
    ck_assert_uint_eq(q->new_share_bytes_per_s, 500);
    ck_assert(!r->changed);
}
END_TEST

START_TEST(who_stays_gets_what_the_others_leave)
{
    begin(4);
    struct lmo_adm_item *a = running(0, 1, 500), *b = running(0, 2, 500);
    decide();
    ck_assert(!a->changed && !b->changed);
    b->state = LMO_ADM_FREE;
    decide();
    ck_assert(a->changed);
    ck_assert_uint_eq(a->new_share_bytes_per_s, 1000);
}
END_TEST

START_TEST(small_differences_are_not_worth_an_order)
{
    begin(4);
    struct lmo_adm_item *a = running(0, 1, 940);
    decide();
    ck_assert(!a->changed);
    a->share_bytes_per_s = a->held_bytes_per_s = 900;
    decide();
    ck_assert(a->changed);
}
END_TEST

START_TEST(what_one_cannot_use_goes_to_the_others)
{
    begin(4);
    struct lmo_adm_item *slow = running(0, 1, 500), *fast = running(0, 2, 500);
    slow->demand_bytes_per_s = 150;
    decide();
    ck_assert(slow->changed);
    ck_assert_uint_eq(slow->new_share_bytes_per_s, 150);
    ck_assert(!fast->changed); /* nothing is free before that is confirmed */
    slow->share_bytes_per_s = slow->held_bytes_per_s = 150;
    decide();
    ck_assert(fast->changed);
    ck_assert_uint_eq(fast->new_share_bytes_per_s, 850);
}
END_TEST

START_TEST(cap_of_the_policy_is_never_exceeded_and_lowers_the_minimum)
{
    begin(4);
    hosts[0].rate_bytes_per_s = 120;
    struct lmo_adm_item *a = queued(0, 1), *b = queued(0, 2);
    a->cap_bytes_per_s = 20; /* less than the minimum: so much it needs, and no more */
    decide();
    ck_assert(a->admitted && b->admitted);
    ck_assert_uint_eq(a->new_share_bytes_per_s, 20);
    ck_assert_uint_eq(b->new_share_bytes_per_s, 100);
}
END_TEST

START_TEST(gate_that_is_not_open_yet_holds_its_new_share_at_once)
{
    begin(4);
    struct lmo_adm_item *r = running(0, 1, 1000), *q = queued(0, 2);
    r->ordered = false;
    decide(); /* what r gives up is free in the next evaluation: its record says so first */
    ck_assert(r->changed);
    r->share_bytes_per_s = r->held_bytes_per_s = r->new_share_bytes_per_s;
    decide();
    ck_assert(q->admitted);
}
END_TEST

START_TEST(limit_lowered_below_what_runs_admits_nobody_and_harms_nobody)
{
    begin(6);
    running(1, 0, 300);
    running(2, 0, 300);
    hosts[0].max_incoming = 1;
    hosts[0].rate_bytes_per_s = 150;
    struct lmo_adm_item *q = queued(3, 0);
    decide();
    assert_held(q, LMO_LIMIT_INCOMING, 0, 1);
    ck_assert_uint_eq(items[0].new_share_bytes_per_s, 75);
    ck_assert_uint_eq(items[1].new_share_bytes_per_s, 75);
}
END_TEST

START_TEST(one_that_was_overtaken_often_has_everything_kept_for_it)
{
    begin(8);
    hosts[0].max_outgoing = 1;
    hosts[1].max_incoming = 1;
    struct lmo_adm_item *r = running(2, 1, 100), *old = queued(0, 1), *young = queued(0, 3);
    decide(); /* it waits for host 1 alone: host 0 may serve others meanwhile */
    assert_held(old, LMO_LIMIT_INCOMING, 1, 1);
    ck_assert(young->admitted);
    ck_assert_uint_eq(old->overtaken, 1);
    old->overtaken = LMO_OVERTAKEN_MAX;
    decide();
    ck_assert(!young->admitted);
    assert_held(young, LMO_LIMIT_OUTGOING, 0, 1);
    r->state = LMO_ADM_FREE;
    decide();
    ck_assert(old->admitted);
}
END_TEST

START_TEST(overhead_is_stated_and_never_wraps)
{
    begin(1);
    limits.memory_overhead_bytes = 10 * MIB;
    limits.memory_overhead_percent = 2;
    ck_assert_uint_eq(lmo_memory_needed(&limits, 1000 * MIB, false), 1030 * MIB);
    ck_assert_uint_eq(lmo_memory_needed(&limits, 1000 * MIB, true), 30 * MIB);
    ck_assert_uint_eq(lmo_memory_needed(&limits, UINT64_MAX, false), UINT64_MAX);
}
END_TEST

START_TEST(demand_is_found_from_samples_and_grows_again)
{
    struct lmo_demand d = {0};
    for (unsigned n = 1; n < LMO_DEMAND_SAMPLES; n++) {
        ck_assert(!lmo_demand_sample(&d, 380 + n, 1000, 100));
    }
    ck_assert(!lmo_demand_sample(&d, 900, 1000, 100)); /* one good one: it did not fall short after all */
    for (unsigned n = 1; n < LMO_DEMAND_SAMPLES; n++) {
        ck_assert(!lmo_demand_sample(&d, 400, 1000, 100));
    }
    ck_assert(lmo_demand_sample(&d, 300, 1000, 100));
    ck_assert_uint_eq(d.bytes_per_s, 500);            /* the best it did, and a quarter */
    ck_assert(!lmo_demand_sample(&d, 420, 500, 100)); /* 84 %: neither short nor full */
    ck_assert(lmo_demand_sample(&d, 490, 500, 100));
    ck_assert_uint_eq(d.bytes_per_s, 1000);
    struct lmo_demand still = {0};
    for (unsigned n = 0; n < 3 * LMO_DEMAND_SAMPLES; n++) {
        (void)lmo_demand_sample(&still, 0, 1000, 100);
    }
    ck_assert_uint_eq(still.bytes_per_s, 100); /* never below the minimum */
    ck_assert(!lmo_demand_sample(&still, 0, 0, 100));
}
END_TEST

/* ------------------------------------------------------------------ shares by chance */

static uint32_t seed;

static uint32_t draw(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed % below;
}

/* Max-min fairness from outside: within its links, and nobody could have more without taking from one who has no more. */
static void random_division(uint32_t round)
{
    seed = round + 1;
    begin(2 + draw(HOSTS_MAX - 2));
    for (uint32_t h = 0; h < fleet.host_count; h++) {
        hosts[h].rate_bytes_per_s = draw(8) == 0 ? 0 : 1000 + draw(100000);
    }
    uint32_t count = 1 + draw(120);
    for (uint32_t n = 0; n < count; n++) {
        uint32_t source = draw(fleet.host_count),
                 destination = (source + 1 + draw(fleet.host_count - 1)) % fleet.host_count;
        struct lmo_adm_item *i = running(source, destination, 1);
        i->takes_part = true;
        i->cap_bytes_per_s = draw(3) == 0 ? 1 + draw(20000) : 0;
    }
    lmo_shares_divide(&fleet);
    for (uint32_t h = 0; h < fleet.host_count; h++) {
        uint64_t sum = 0;
        for (uint32_t n = 0; n < fleet.item_count; n++) {
            bool here = items[n].source == h || items[n].destination == h;
            sum += hosts[h].rate_bytes_per_s && here ? items[n].target : 0;
        }
        ck_assert(hosts[h].rate_bytes_per_s == 0 || sum <= hosts[h].rate_bytes_per_s);
    }
    for (uint32_t n = 0; n < fleet.item_count; n++) {
        const struct lmo_adm_item *i = &items[n];
        bool bound = i->cap_bytes_per_s && i->target == i->cap_bytes_per_s;
        bool limited = false;
        for (unsigned side = 0; side < 2; side++) {
            uint32_t h = side ? i->destination : i->source;
            uint64_t sum = 0, greatest = 0, users = 0;
            limited = limited || hosts[h].rate_bytes_per_s;
            for (uint32_t k = 0; hosts[h].rate_bytes_per_s && k < fleet.item_count; k++) {
                if (items[k].source == h || items[k].destination == h) {
                    sum += items[k].target;
                    users++;
                    greatest = items[k].target > greatest ? items[k].target : greatest;
                }
            }
            /* full but for what division leaves over, and nobody there has noticeably more */
            bound = bound || (users && sum + 64 * users >= hosts[h].rate_bytes_per_s && greatest <= i->target + 64);
        }
        ck_assert_msg(bound || !limited, "round %u: item %u could have more than %llu", round, n,
                      (unsigned long long)i->target);
        ck_assert(i->cap_bytes_per_s == 0 || i->target <= i->cap_bytes_per_s);
    }
}

START_TEST(shares_are_within_every_link_and_max_min_fair)
{
    for (uint32_t round = 0; round < 500; round++) {
        random_division(round);
    }
}
END_TEST

/* ------------------------------------------------------------------ whole lives by chance */

struct life {
    uint32_t left; /* evaluations until it ends */
    uint32_t waited;
};
static struct life lives[ITEMS_MAX];
static uint32_t longest_wait;

static void random_fleet(void)
{
    begin(2 + draw(HOSTS_MAX - 2));
    limits.max_migrations = 1 + draw(60);
    limits.min_share_bytes_per_s = 1 + draw(400);
    for (uint32_t h = 0; h < fleet.host_count; h++) {
        hosts[h].max_incoming = 1 + draw(4);
        hosts[h].max_outgoing = 1 + draw(4);
        hosts[h].rate_bytes_per_s = draw(10) == 0 ? 0 : 50 + draw(5000);
        for (unsigned p = 0; p < LMO_POOLS_MAX; p++) {
            hosts[h].pool_known[p] = draw(4) != 0;
            hosts[h].pool_bytes[p] = 1000 + draw(5000); /* the largest guest fits */
        }
    }
}

static void arrive(void)
{
    uint32_t n = fleet.item_count; /* the array's order is the queue's: new ones at its end */
    if (n == ITEMS_MAX) {
        return;
    }
    uint32_t source = draw(fleet.host_count);
    struct lmo_adm_item *i = queued(source, (source + 1 + draw(fleet.host_count - 1)) % fleet.host_count);
    i->memory_bytes = 1 + draw(1000);
    i->huge_pool = (uint8_t)draw(LMO_POOLS_MAX);
    i->huge_bytes = i->huge_pool ? 1 + draw(1000) : 0;
    i->cap_bytes_per_s = draw(4) == 0 ? 1 + draw(600) : 0;
    lives[n] = (struct life){.left = 1 + draw(12)};
}

/* Every limit, added up from the items alone. `before`: what ran before the evaluation; only what it added must fit. */
static void check_limits(void)
{
    uint32_t total = 0;
    for (uint32_t n = 0; n < fleet.item_count; n++) {
        total += items[n].state == LMO_ADM_RUNNING;
    }
    ck_assert_uint_le(total, limits.max_migrations);
    for (uint32_t h = 0; h < fleet.host_count; h++) {
        uint64_t incoming = 0, outgoing = 0, held = 0, pool[LMO_POOLS_MAX] = {0};
        for (uint32_t n = 0; n < fleet.item_count; n++) {
            const struct lmo_adm_item *i = &items[n];
            if (i->state != LMO_ADM_RUNNING || (i->source != h && i->destination != h)) {
                continue;
            }
            outgoing += i->source == h;
            incoming += i->destination == h;
            held += i->stream ? i->held_bytes_per_s : 0;
            pool[0] += i->destination == h ? i->memory_bytes : 0;
            pool[i->huge_pool] += i->destination == h ? i->huge_bytes : 0;
        }
        ck_assert_msg(incoming <= hosts[h].max_incoming && outgoing <= hosts[h].max_outgoing,
                      "seed %u: slots of host %u", seed, h);
        ck_assert_msg(hosts[h].rate_bytes_per_s == 0 || held <= hosts[h].rate_bytes_per_s, "host %u: %llu of %llu", h,
                      (unsigned long long)held, (unsigned long long)hosts[h].rate_bytes_per_s);
        for (unsigned p = 0; p < LMO_POOLS_MAX; p++) {
            ck_assert(!hosts[h].pool_known[p] || pool[p] <= hosts[h].pool_bytes[p]);
        }
    }
}

/* What was decided happens; orders are confirmed late, gates open late, lives end. */
static void live(void)
{
    for (uint32_t n = 0; n < fleet.item_count; n++) {
        struct lmo_adm_item *i = &items[n];
        if (i->state == LMO_ADM_QUEUED) {
            lives[n].waited++;
            if (i->admitted) {
                uint64_t least = lmo_admission_min_share(&fleet, i);
                ck_assert_uint_ge(i->new_share_bytes_per_s, least);
                ck_assert(i->cap_bytes_per_s == 0 || i->new_share_bytes_per_s <= i->cap_bytes_per_s);
                start(i);
            } else {
                ck_assert(i->hold.limit != LMO_LIMIT_NONE);
                ck_assert_uint_gt(i->hold.position, 0);
            }
        } else if (i->state == LMO_ADM_RUNNING) {
            if (i->changed) {
                ck_assert(i->adjustable);
                i->share_bytes_per_s = i->new_share_bytes_per_s;
                if (!i->ordered) {
                    i->held_bytes_per_s = i->share_bytes_per_s;
                } else {
                    i->held_bytes_per_s =
                        i->share_bytes_per_s > i->held_bytes_per_s ? i->share_bytes_per_s : i->held_bytes_per_s;
                    i->adjustable = false;
                }
            } else if (!i->adjustable && draw(2)) {
                i->adjustable = true;
                i->held_bytes_per_s = i->share_bytes_per_s;
            }
            i->ordered = i->ordered || draw(3) == 0;
            i->demand_bytes_per_s = draw(6) == 0 ? draw(500) : i->demand_bytes_per_s;
        }
    }
    check_limits(); /* while everything runs that may run at once */
    for (uint32_t n = 0; n < fleet.item_count; n++) {
        if (items[n].state == LMO_ADM_RUNNING && lives[n].left-- == 0) {
            items[n].state = LMO_ADM_FREE;
            items[n].stream = false;
        }
    }
}

static void random_life(uint32_t round)
{
    seed = 7919U * round + 1;
    memset(lives, 0, sizeof lives);
    random_fleet();
    uint32_t step = 0, open = 1, most = 0;
    for (; step < 4000 && (open > 0 || step < 60); step++) {
        for (uint32_t n = draw(12); step < 60 && n > 0; n--) {
            arrive();
        }
        decide();
        live();
        open = 0;
        for (uint32_t n = 0; n < fleet.item_count; n++) {
            open += items[n].state != LMO_ADM_FREE;
            most = lives[n].waited > most ? lives[n].waited : most;
        }
        while (fleet.item_count > 0 && items[fleet.item_count - 1].state == LMO_ADM_FREE) {
            fleet.item_count--;
        }
    }
    ck_assert_msg(open == 0, "round %u: %u still there after %u steps", round, open, step);
    /* Each has at most ITEMS_MAX before it, and each of those is done within some 20 steps of its start. */
    ck_assert_uint_lt(most, 20 * ITEMS_MAX);
    longest_wait = most > longest_wait ? most : longest_wait;
}

START_TEST(no_limit_is_ever_exceeded_and_everybody_starts_in_bounded_time)
{
    for (uint32_t round = 0; round < 25; round++) {
        random_life(round);
    }
    ck_assert_uint_gt(longest_wait, 100); /* or the queues were too short to show anything */
}
END_TEST

/* A steady stream of small ones must not starve one that needs two hosts at the same time. */
START_TEST(steady_stream_of_others_does_not_starve_anybody)
{
    begin(4);
    hosts[0].max_outgoing = 1;
    hosts[1].max_incoming = 1;
    for (uint32_t h = 0; h < 4; h++) {
        hosts[h].rate_bytes_per_s = 0;
    }
    struct lmo_adm_item *a = running(0, 2, 0), *b = running(3, 1, 0), *victim = queued(0, 1);
    unsigned rounds = 0;
    for (; rounds < 100 && !victim->admitted; rounds++) {
        /* the two resources are never free at the same time, and there is always somebody who wants one of them */
        fleet.item_count = 5;
        items[3] = (struct lmo_adm_item){.state = LMO_ADM_QUEUED, .source = 0, .destination = 2};
        items[4] = (struct lmo_adm_item){.state = LMO_ADM_QUEUED, .source = 3, .destination = 1};
        (rounds % 2 ? b : a)->state = LMO_ADM_FREE;
        decide();
        for (uint32_t n = 3; n < 5; n++) {
            if (items[n].admitted) {
                (n == 3 ? a : b)->state = LMO_ADM_RUNNING;
            }
        }
    }
    ck_assert_uint_lt(rounds, 2 * LMO_OVERTAKEN_MAX + 6);
}
END_TEST

/* ------------------------------------------------------------------ size */

#define MANY_HOSTS 1000U
#define MANY_ITEMS 10000U

START_TEST(ten_thousand_migrations_on_a_thousand_hosts_are_evaluated_in_milliseconds)
{
    static struct lmo_adm_host many_hosts[MANY_HOSTS];
    static struct lmo_adm_item many[MANY_ITEMS];
    begin(0);
    limits.max_migrations = 1000;
    seed = 4711;
    fleet = (struct lmo_adm_fleet){.limits = &limits,
                                   .hosts = many_hosts,
                                   .host_count = MANY_HOSTS,
                                   .items = many,
                                   .item_count = MANY_ITEMS,
                                   .queue = LMO_NONE};
    for (uint32_t h = 0; h < MANY_HOSTS; h++) {
        many_hosts[h] =
            (struct lmo_adm_host){.usable = true, .max_incoming = 2, .max_outgoing = 2, .rate_bytes_per_s = 1000};
    }
    uint32_t last = LMO_NONE;
    for (uint32_t n = 0; n < MANY_ITEMS; n++) {
        uint32_t source = draw(MANY_HOSTS);
        many[n] = (struct lmo_adm_item){.state = n % 10 ? LMO_ADM_QUEUED : LMO_ADM_RUNNING,
                                        .source = source,
                                        .destination = (source + 1 + draw(MANY_HOSTS - 1)) % MANY_HOSTS,
                                        .next = LMO_NONE,
                                        .stream = n % 10 == 0,
                                        .adjustable = n % 10 == 0};
        if (n % 10) {
            *(last == LMO_NONE ? &fleet.queue : &many[last].next) = n;
            last = n;
        }
    }
    enum { TIMES = 20 };
    clock_t began = clock();
    for (unsigned i = 0; i < TIMES; i++) {
        lmo_admission_decide(&fleet);
    }
    double ms = (double)(clock() - began) * 1000 / CLOCKS_PER_SEC / TIMES;
    printf("    one evaluation of %u on %u hosts: %.2f ms\n", MANY_ITEMS, MANY_HOSTS, ms);
    ck_assert(ms < 100); /* sanitizers included */
}
END_TEST

Suite *admission_suite(void)
{
    Suite *s = suite_create("admission");
    TCase *t = tcase_create("rules");
    tcase_set_timeout(t, 30);
    tcase_add_test(t, slots_are_given_in_order_and_those_behind_know_their_place);
    tcase_add_test(t, outgoing_slots_and_fleet_limit_hold_likewise);
    tcase_add_test(t, unrelated_host_does_not_hold_up_what_is_behind);
    tcase_add_test(t, host_that_cannot_be_reached_holds_only_its_own);
    tcase_add_test(t, guest_that_does_not_fit_into_memory_waits_and_keeps_its_place_before_smaller_ones);
    tcase_add_test(t, huge_pages_are_a_pool_of_their_own);
    tcase_add_test(t, stale_memory_is_asked_for_before_it_admits_anybody);
    tcase_add_test(t, links_take_no_more_than_can_have_their_minimum_share_each);
    tcase_add_test(t, slow_link_gives_everything_to_one_after_the_other);
    tcase_add_test(t, newcomer_waits_until_the_others_have_confirmed_that_they_give_up_its_share);
    tcase_add_test(t, who_stays_gets_what_the_others_leave);
    tcase_add_test(t, small_differences_are_not_worth_an_order);
    tcase_add_test(t, what_one_cannot_use_goes_to_the_others);
    tcase_add_test(t, cap_of_the_policy_is_never_exceeded_and_lowers_the_minimum);
    tcase_add_test(t, gate_that_is_not_open_yet_holds_its_new_share_at_once);
    tcase_add_test(t, limit_lowered_below_what_runs_admits_nobody_and_harms_nobody);
    tcase_add_test(t, one_that_was_overtaken_often_has_everything_kept_for_it);
    tcase_add_test(t, overhead_is_stated_and_never_wraps);
    tcase_add_test(t, demand_is_found_from_samples_and_grows_again);
    suite_add_tcase(s, t);
    TCase *p = tcase_create("by chance");
    tcase_set_timeout(p, 60);
    tcase_add_test(p, shares_are_within_every_link_and_max_min_fair);
    tcase_add_test(p, no_limit_is_ever_exceeded_and_everybody_starts_in_bounded_time);
    tcase_add_test(p, steady_stream_of_others_does_not_starve_anybody);
    suite_add_tcase(s, p);
    TCase *z = tcase_create("size");
    tcase_set_timeout(z, 30);
    tcase_add_test(z, ten_thousand_migrations_on_a_thousand_hosts_are_evaluated_in_milliseconds);
    suite_add_tcase(s, z);
    return s;
}
