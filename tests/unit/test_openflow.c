/* test_openflow.c - the OpenFlow client: messages as bytes, then against a scripted switch. */
#include "scripted_switch.h"
#include "suites.h"

#include "base/clock.h"
#include "workers/drivers/openflow.h"
#include "workers/drivers/openflow_wire.h"

static uint64_t in_ms(uint64_t ms)
{
    return lmo_now_ns() + ms * LMO_NS_PER_MS;
}

/* ------------------------------------------------------------------ bytes */

START_TEST(a_message_is_taken_only_when_it_is_whole)
{
    static const uint8_t echo[] = {5, 2, 0, 12, 0, 0, 0, 9, 'a', 'b', 'c', 'd', 5};
    struct of_message m;
    size_t used = 0;
    for (size_t n = 0; n < 12; n++)
        ck_assert_int_eq(of_parse(echo, n, &m, &used), 0);
    ck_assert_int_eq(of_parse(echo, sizeof echo, &m, &used), 1);
    ck_assert_uint_eq(used, 12);
    ck_assert_uint_eq(m.xid, 9);
    ck_assert_uint_eq(m.len, 4);
    ck_assert_mem_eq(m.body, "abcd", 4);
}
END_TEST

START_TEST(a_length_that_cannot_be__is_refused)
{
    static const uint8_t wrong[] = {5, 2, 0, 7, 0, 0, 0, 9};
    struct of_message m;
    size_t used;
    ck_assert_int_eq(of_parse(wrong, sizeof wrong, &m, &used), LMO_E_INVALID);
}
END_TEST

static void count_flow(void *arg, const struct lmo_openflow_flow *flow)
{
    (void)flow;
    (*(unsigned *)arg)++;
}

/* Whatever is cut off a flow reply, or whatever byte of it is wrong, nothing is read outside it. */
START_TEST(a_damaged_flow_reply__never_reads_past_its_end)
{
    struct lmo_buf reply = LMO_BUF_INIT(4096);
    struct scripted_flow flow = {.table = 65, .priority = 1000, .cookie = 7, .in_port = 3};
    scripted_put_flows(&reply, &flow, 1, 1, false);
    size_t len = reply.len;
    for (size_t cut = OF_HEADER_LEN; cut <= len; cut++) {
        for (size_t at = OF_HEADER_LEN; at < cut; at++) {
            uint8_t *copy = malloc(cut); /* of exactly this size: the sanitizer watches its end */
            struct of_message m;
            size_t used;
            unsigned seen = 0;
            memcpy(copy, reply.data, cut);
            copy[2] = (uint8_t)(cut >> 8);
            copy[3] = (uint8_t)cut;
            copy[at] = (uint8_t)(copy[at] + (cut == len ? 0x5a : 0));
            ck_assert_int_eq(of_parse(copy, cut, &m, &used), 1);
            int r = m.len >= 8 ? of_each_flow(&m, count_flow, &seen) : LMO_E_INVALID;
            ck_assert(r == 0 || r == LMO_E_INVALID);
            free(copy);
        }
    }
    lmo_buf_done(&reply);
}
END_TEST

START_TEST(packet_out__goes_through_the_tables_with_the_guests_port)
{
    struct lmo_buf b = LMO_BUF_INIT(4096);
    uint8_t frame[60] = {0xff, 0xee};
    ck_assert_int_eq(lmo_openflow_put_packet_out(&b, 0x0102, frame, sizeof frame), 0);
    const uint8_t expected[] = {5,    13,   0,    100,  0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0,    0,
                                1,    2,    0,    16,   0, 0, 0, 0, 0,    0,    0,    0,    0,    16,
                                0xff, 0xff, 0xff, 0xf9, 0, 0, 0, 0, 0,    0,    0,    0,    0xff, 0xee};
    ck_assert_uint_eq(b.len, 8 + 16 + 16 + 60);
    ck_assert_mem_eq(b.data, expected, sizeof expected);
    lmo_buf_done(&b);
}
END_TEST

START_TEST(hello_without_our_version__is_told_apart)
{
    const uint8_t with_bitmap[] = {0, 1, 0, 8, 0, 0, 0, 0x30}, other[] = {0, 1, 0, 8, 0, 0, 0, 0x12};
    struct of_message m = {.version = 6, .body = with_bitmap, .len = 8};
    ck_assert(of_hello_allows(&m));
    m.body = other;
    ck_assert(!of_hello_allows(&m));
    m.len = 0;
    ck_assert(of_hello_allows(&m));
    m.version = 4;
    ck_assert(!of_hello_allows(&m));
}
END_TEST

/* ------------------------------------------------------------------ a switch */

static struct scripted_switch sw;
static struct lmo_openflow *of;

static void set_up(void)
{
    scripted_switch_start(&sw);
    ck_assert_int_eq(lmo_openflow_open("br-test", sw.remote, &of, NULL), 0);
}

static void tear_down(void)
{
    lmo_openflow_close(of);
    scripted_switch_stop(&sw);
}

START_TEST(flows_come_in_several_parts)
{
    unsigned seen = 0;
    struct scripted_flow flows[] = {{.table = 0, .priority = 100, .cookie = 1, .in_port = 3, .forwards = true},
                                    {.table = 0, .priority = 1000, .cookie = 1, .in_port = 3},
                                    {.table = 65, .priority = 1000, .cookie = 1}};
    scripted_switch_flows(&sw, flows, 3);
    struct lmo_openflow_query q = {.table_id = LMO_OPENFLOW_TABLE_ALL};
    ck_assert_int_eq(lmo_openflow_flows(of, &q, count_flow, &seen, in_ms(5000), NULL), 0);
    ck_assert_uint_eq(seen, 3);
    seen = 0;
    q.table_id = 65;
    ck_assert_int_eq(lmo_openflow_flows(of, &q, count_flow, &seen, in_ms(5000), NULL), 0);
    ck_assert_uint_eq(seen, 1);
}
END_TEST

START_TEST(echo_of_the_switch_is_answered)
{
    ck_assert_int_eq(lmo_openflow_await_ready(of, in_ms(5000), NULL), 0);
    scripted_switch_echo(&sw);
    ck_assert_int_eq(lmo_openflow_barrier(of, in_ms(5000), NULL), 0);
    ck_assert(scripted_switch_saw_echo_reply(&sw, 5000));
}
END_TEST

START_TEST(an_error_ends_the_call_it_belongs_to)
{
    struct lmo_err err = {0};
    unsigned seen = 0;
    scripted_switch_refuse(&sw, true);
    struct lmo_openflow_query q = {.table_id = LMO_OPENFLOW_TABLE_ALL};
    ck_assert_int_eq(lmo_openflow_flows(of, &q, count_flow, &seen, in_ms(5000), &err), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "type 1, code 2"));
    scripted_switch_refuse(&sw, false);
    ck_assert_int_eq(lmo_openflow_flows(of, &q, count_flow, &seen, in_ms(5000), &err), 0);
}
END_TEST

START_TEST(changes_are_counted_and_waited_for)
{
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_openflow_await_ready(of, in_ms(5000), NULL), 0);
    ck_assert_int_eq(lmo_openflow_watch(of, 1, 0, 3, NULL), 0);
    ck_assert_int_eq(lmo_openflow_barrier(of, in_ms(5000), NULL), 0); /* the answer to the subscription itself is in */
    uint64_t seen = lmo_openflow_changes(of);
    ck_assert_int_eq(lmo_openflow_await_change(of, seen, in_ms(30), &err), LMO_E_TIMEOUT);
    scripted_switch_flows(&sw, NULL, 0); /* reports a change */
    ck_assert_int_eq(lmo_openflow_await_change(of, seen, in_ms(5000), &err), 0);
    lmo_openflow_unwatch(of, 1);
}
END_TEST

START_TEST(lost_connection__fails_the_call_and_comes_back)
{
    ck_assert_int_eq(lmo_openflow_await_ready(of, in_ms(5000), NULL), 0);
    uint64_t seen = lmo_openflow_changes(of);
    scripted_switch_hang_up_on_barrier(&sw);
    ck_assert_int_eq(lmo_openflow_barrier(of, in_ms(5000), NULL), LMO_E_UNAVAILABLE);
    ck_assert_uint_gt(lmo_openflow_changes(of), seen);
    ck_assert_int_eq(lmo_openflow_barrier(of, in_ms(5000), NULL), 0);
}
END_TEST

START_TEST(subscriptions_survive_a_reconnect)
{
    ck_assert_int_eq(lmo_openflow_watch(of, 7, 0, 3, NULL), 0); /* also before the first connection is up */
    ck_assert_int_eq(lmo_openflow_barrier(of, in_ms(5000), NULL), 0);
    ck_assert_uint_eq(scripted_switch_subscriptions(&sw), 1);
    scripted_switch_hang_up_on_barrier(&sw);
    ck_assert_int_eq(lmo_openflow_barrier(of, in_ms(5000), NULL), LMO_E_UNAVAILABLE);
    ck_assert_int_eq(lmo_openflow_barrier(of, in_ms(5000), NULL), 0);
    ck_assert_uint_eq(scripted_switch_subscriptions(&sw), 2);
    lmo_openflow_unwatch(of, 7);
    ck_assert_int_eq(lmo_openflow_barrier(of, in_ms(5000), NULL), 0);
    ck_assert_uint_eq(scripted_switch_subscriptions(&sw), 2);
}
END_TEST

START_TEST(switch_without_our_version__is_unsupported)
{
    struct lmo_err err = {0};
    lmo_openflow_close(of);
    scripted_switch_stop(&sw);
    scripted_switch_start(&sw);
    scripted_switch_version(&sw, 4);
    ck_assert_int_eq(lmo_openflow_open("br-test", sw.remote, &of, NULL), 0);
    ck_assert_int_eq(lmo_openflow_await_ready(of, in_ms(5000), &err), LMO_E_UNSUPPORTED);
}
END_TEST

START_TEST(nothing_is_sent_over_a_connection_that_is_down)
{
    struct lmo_openflow *nobody = NULL;
    struct lmo_buf b = LMO_BUF_INIT(4096);
    uint8_t frame[60] = {0};
    ck_assert_int_eq(lmo_openflow_put_packet_out(&b, 1, frame, sizeof frame), 0);
    ck_assert_int_eq(lmo_openflow_open("br-none", "unix:/tmp/lmo-no-switch", &nobody, NULL), 0);
    ck_assert_int_eq(lmo_openflow_send(nobody, &b, NULL), LMO_E_UNAVAILABLE);
    lmo_openflow_close(nobody);
    lmo_buf_done(&b);
}
END_TEST

Suite *openflow_suite(void)
{
    Suite *s = suite_create("openflow");
    TCase *pure = tcase_create("bytes");
    tcase_add_test(pure, a_message_is_taken_only_when_it_is_whole);
    tcase_add_test(pure, a_length_that_cannot_be__is_refused);
    tcase_add_test(pure, a_damaged_flow_reply__never_reads_past_its_end);
    tcase_add_test(pure, packet_out__goes_through_the_tables_with_the_guests_port);
    tcase_add_test(pure, hello_without_our_version__is_told_apart);
    tcase_add_test(pure, nothing_is_sent_over_a_connection_that_is_down);
    suite_add_tcase(s, pure);
    TCase *with_switch = tcase_create("switch");
    tcase_set_timeout(with_switch, 30);
    tcase_add_checked_fixture(with_switch, set_up, tear_down);
    tcase_add_test(with_switch, flows_come_in_several_parts);
    tcase_add_test(with_switch, echo_of_the_switch_is_answered);
    tcase_add_test(with_switch, an_error_ends_the_call_it_belongs_to);
    tcase_add_test(with_switch, changes_are_counted_and_waited_for);
    tcase_add_test(with_switch, lost_connection__fails_the_call_and_comes_back);
    tcase_add_test(with_switch, subscriptions_survive_a_reconnect);
    tcase_add_test(with_switch, switch_without_our_version__is_unsupported);
    suite_add_tcase(s, with_switch);
    return s;
}
