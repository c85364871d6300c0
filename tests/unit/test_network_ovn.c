/* test_network_ovn.c - the host side of OVN against a real Open vSwitch database and a scripted switch. */
#include "ovsdb_server.h"
#include "scripted_switch.h"
#include "suites.h"

#include "base/clock.h"
#include "workers/drivers/driver.h"
#include "workers/drivers/ovsdb.h"

#define VSWITCH_SCHEMA "/usr/share/openvswitch/vswitch.ovsschema"
#define OFPORT         3
#define COOKIE         0x592cbd33

static struct ovsdb_server server;
static struct scripted_switch sw;
static struct lmo_ovsdb *db; /* the test's own hand in the database */
static struct lmo_network *net;
static const struct lmo_port port = {.id = "b3c18728-864d-508f-a51b-bfddb312d95b", .mac = "52:54:00:a9:57:a7"};

static const struct scripted_flow
    wired_in = {.table = 0, .priority = 100, .cookie = COOKIE, .in_port = OFPORT, .forwards = true},
    wired_out = {.table = 65, .priority = 100, .cookie = COOKIE, .forwards = true},
    hold_in = {.table = 0, .priority = 1000, .cookie = COOKIE, .in_port = OFPORT},
    hold_out = {.table = 65, .priority = 1000, .cookie = COOKIE},
    trigger = {.table = 0, .priority = 1010, .cookie = COOKIE, .in_port = OFPORT, .forwards = true},
    stranger = {.table = 65, .priority = 1000, .cookie = COOKIE + 1};

static const struct lmo_ovsdb_need needs[] = {{"Interface", "name"}};

static void set_up(void)
{
    ovsdb_server_create(&server, VSWITCH_SCHEMA);
    scripted_switch_start(&sw);
    struct lmo_ovsdb_config cfg = {
        .name = "test", .remotes = server.remote, .database = "Open_vSwitch", .needs = needs, .need_count = 1};
    ck_assert_int_eq(lmo_ovsdb_open(&cfg, &db, NULL), 0);
    ck_assert_int_eq(lmo_network_ovn_open(server.remote + 5, sw.path, "br-int", &net, NULL), 0);
    ck_assert_int_eq(lmo_ovsdb_await_ready(db, lmo_now_ns() + 10000 * LMO_NS_PER_MS, NULL), 0);
}

static void tear_down(void)
{
    net->ops->close(net);
    lmo_ovsdb_close(db);
    scripted_switch_stop(&sw);
    ovsdb_server_destroy(&server);
}

/* An interface must hang on a port, that on a bridge, and that on the root: nothing else is kept. */
static void add_interface(bool installed)
{
    struct lmo_err err = {0};
    json_t *ids = installed ? json_pack("[s[[ss][ss]]]", "map", "iface-id", port.id, "ovn-installed", "true")
                            : json_pack("[s[[ss]]]", "map", "iface-id", port.id);
    json_t *ops =
        json_pack("[{ss,ss,ss,s{ss,si,so}}, {ss,ss,ss,s{ss,s[ss]}}, {ss,ss,ss,s{ss,s[ss]}}, {ss,ss,s{s[ss]}}]", "op",
                  "insert", "table", "Interface", "uuid-name", "i", "row", "name", "lmotest0", "ofport", OFPORT,
                  "external_ids", ids, "op", "insert", "table", "Port", "uuid-name", "p", "row", "name", "lmotest0",
                  "interfaces", "named-uuid", "i", "op", "insert", "table", "Bridge", "uuid-name", "b", "row", "name",
                  "br-int", "ports", "named-uuid", "p", "op", "insert", "table", "Open_vSwitch", "row", "bridges",
                  "named-uuid", "b");
    int r = lmo_ovsdb_transact(db, ops, lmo_now_ns() + 5000 * LMO_NS_PER_MS, NULL, &err);
    ck_assert_msg(r == 0, "%s", err.text);
}

static void set_flows(const struct scripted_flow *const *flows, size_t count)
{
    struct scripted_flow list[SCRIPTED_FLOWS_MAX];
    for (size_t i = 0; i < count; i++)
        list[i] = *flows[i];
    scripted_switch_flows(&sw, list, count);
}

static void hold(void)
{
    const struct scripted_flow *const all[] = {&stranger, &wired_in, &wired_out, &hold_in, &hold_out, &trigger};
    set_flows(all, 6);
}

/* ovn-controller's word, on an interface that is there. */
static void mark_installed(void)
{
    json_t *ops =
        json_pack("[{ss, ss, s[[sss]], s[[ss[s[[ss]]]]]}]", "op", "mutate", "table", "Interface", "where", "name",
                  "==", "lmotest0", "mutations", "external_ids", "insert", "map", "ovn-installed", "true");
    int r = lmo_ovsdb_transact(db, ops, lmo_now_ns() + 5000 * LMO_NS_PER_MS, NULL, NULL);
    ck_assert_int_eq(r, 0);
}

static uint32_t await_shut(void)
{
    unsigned count = 0;
    uint32_t shut = 0;
    for (int i = 0; i < 5000 && count == 0; i++) {
        shut = scripted_switch_shut_port(&sw, &count);
        usleep(1000);
    }
    return shut;
}

/* As a destination does: an interface, its wiring, OVN's word, and only then the hold. */
static void *wire_slowly(void *arg)
{
    const struct scripted_flow *const wired[] = {&wired_in, &wired_out, &stranger};
    unsigned count;
    (void)arg;
    usleep(50000);
    add_interface(false);
    ck_assert_uint_eq(await_shut(), OFPORT);
    set_flows(wired, 3);
    mark_installed();
    usleep(50000);
    ck_assert_uint_eq(scripted_switch_shut_port(&sw, &count), OFPORT); /* as long as nothing holds it */
    hold();
    return NULL;
}

START_TEST(interface_and_flows_that_come_late_are_waited_for__and_nothing_gets_in_before_the_hold)
{
    pthread_t later;
    struct lmo_err err = {0};
    unsigned count;
    ck_assert_int_eq(pthread_create(&later, NULL, wire_slowly, NULL), 0);
    int r = net->ops->await_installed(net, &port, 10000, &err);
    pthread_join(later, NULL);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_uint_eq(scripted_switch_shut_port(&sw, &count), 0);
    ck_assert_uint_eq(count, 1);
}
END_TEST

START_TEST(failed_wait__leaves_no_port_shut)
{
    unsigned count;
    add_interface(false);
    ck_assert_int_eq(net->ops->await_installed(net, &port, 1000, NULL), LMO_E_UNAVAILABLE);
    ck_assert_uint_eq(scripted_switch_shut_port(&sw, &count), 0);
    ck_assert_uint_eq(count, 1);
}
END_TEST

START_TEST(port_left_shut_by_a_worker_that_died__is_opened_by_the_next_attempt)
{
    unsigned count;
    bool open = true;
    add_interface(true);
    hold();
    scripted_switch_shut(&sw, OFPORT);
    ck_assert_int_eq(net->ops->activated(net, &port, &open, 10000, NULL), 0);
    ck_assert(!open);
    ck_assert_int_eq(net->ops->await_installed(net, &port, 10000, NULL), 0);
    ck_assert_uint_eq(scripted_switch_shut_port(&sw, &count), 0);
}
END_TEST

START_TEST(port_that_is_open_already__is_never_shut)
{
    unsigned count;
    const struct scripted_flow *const open[] = {&wired_in, &wired_out, &stranger};
    add_interface(true);
    set_flows(open, 3);
    ck_assert_int_eq(net->ops->await_installed(net, &port, 300, NULL), LMO_E_UNAVAILABLE);
    ck_assert_uint_eq(scripted_switch_shut_port(&sw, &count), 0);
    ck_assert_uint_eq(count, 0);
}
END_TEST

START_TEST(activate__sends_the_rarp_first_and_then_removes_only_the_holds)
{
    struct scripted_sent sent[SCRIPTED_SENT_MAX];
    const uint8_t rarp[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0x00, 0xa9, 0x57, 0xa7, 0x80, 0x35,
                            0,    1,    8,    0,    6,    4,    0,    3,    0x52, 0x54, 0x00, 0xa9, 0x57, 0xa7,
                            0,    0,    0,    0,    0x52, 0x54, 0x00, 0xa9, 0x57, 0xa7, 0,    0,    0,    0};
    bool open = true;
    add_interface(true);
    hold();
    ck_assert_int_eq(net->ops->await_installed(net, &port, 10000, NULL), 0);
    ck_assert_int_eq(net->ops->activated(net, &port, &open, 5000, NULL), 0);
    ck_assert(!open);
    ck_assert_int_eq(net->ops->activate(net, &port, NULL), 0);
    ck_assert_uint_eq(scripted_switch_sent(&sw, 3, 5000, sent), 3);
    ck_assert_uint_eq(sent[0].type, 13);
    ck_assert_uint_eq(sent[0].in_port, OFPORT);
    ck_assert_mem_eq(sent[0].frame, rarp, sizeof rarp);
    for (int i = 1; i < 3; i++) {
        ck_assert_uint_eq(sent[i].type, 14);
        ck_assert_uint_eq(sent[i].priority, 1000);
        ck_assert_uint_eq(sent[i].cookie, COOKIE);
    }
    ck_assert_uint_ne(sent[1].table, sent[2].table);
    ck_assert_int_eq(net->ops->activated(net, &port, &open, 5000, NULL), 0);
    ck_assert(open);
    ck_assert_int_eq(net->ops->activate(net, &port, NULL), 0); /* once more does no harm */
}
END_TEST

START_TEST(wired_but_not_held__is_not_installed)
{
    struct lmo_err err = {0};
    const struct scripted_flow *const open[] = {&wired_in, &wired_out, &stranger};
    add_interface(true);
    set_flows(open, 3);
    ck_assert_int_eq(net->ops->await_installed(net, &port, 150, &err), LMO_E_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(err.text, "not held"));
    ck_assert_int_eq(net->ops->activate(net, &port, &err), LMO_E_UNAVAILABLE);
}
END_TEST

START_TEST(missing_pieces_are_named)
{
    struct lmo_err err = {0};
    bool open;
    ck_assert_int_eq(net->ops->activated(net, &port, &open, 10000, &err), LMO_E_NOT_FOUND);
    ck_assert_int_eq(net->ops->await_installed(net, &port, 200, &err), LMO_E_UNAVAILABLE);
    ck_assert_msg(strstr(err.text, "0 interfaces") != NULL, "%s", err.text);
    add_interface(false);
    ck_assert_int_eq(net->ops->await_installed(net, &port, 200, &err), LMO_E_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(err.text, "not wired interface lmotest0"));
}
END_TEST

START_TEST(port_without_an_id__is_invalid_and_named_by_its_mac)
{
    struct lmo_err err = {0};
    struct lmo_port none = {.mac = "52:54:00:00:00:01", .device = "vnet7"};
    bool open;
    ck_assert_int_eq(net->ops->await_installed(net, &none, 100, &err), LMO_E_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "52:54:00:00:00:01"));
    ck_assert_ptr_nonnull(strstr(err.text, "vnet7"));
    ck_assert_int_eq(net->ops->activate(net, &none, NULL), LMO_E_INVALID);
    ck_assert_int_eq(net->ops->activated(net, &none, &open, 100, NULL), LMO_E_INVALID);
    net->ops->release(net, &none);
}
END_TEST

START_TEST(mac_that_is_none__is_invalid)
{
    struct lmo_port odd = port;
    (void)snprintf(odd.mac, sizeof odd.mac, "52:54:00:a9:57");
    add_interface(true);
    hold();
    ck_assert_int_eq(net->ops->await_installed(net, &odd, 5000, NULL), LMO_E_INVALID);
}
END_TEST

START_TEST(released_port__has_nothing_prepared)
{
    add_interface(true);
    hold();
    ck_assert_int_eq(net->ops->await_installed(net, &port, 10000, NULL), 0);
    net->ops->release(net, &port);
    net->ops->release(net, &port);
    ck_assert_int_eq(net->ops->activate(net, &port, NULL), LMO_E_UNAVAILABLE);
    ck_assert_int_eq(net->ops->await_installed(net, &port, 10000, NULL), 0);
    ck_assert_int_eq(net->ops->activate(net, &port, NULL), 0);
}
END_TEST

Suite *network_ovn_suite(void)
{
    Suite *s = suite_create("network_ovn");
    TCase *t = tcase_create("host");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, interface_and_flows_that_come_late_are_waited_for__and_nothing_gets_in_before_the_hold);
    tcase_add_test(t, failed_wait__leaves_no_port_shut);
    tcase_add_test(t, port_left_shut_by_a_worker_that_died__is_opened_by_the_next_attempt);
    tcase_add_test(t, port_that_is_open_already__is_never_shut);
    tcase_add_test(t, activate__sends_the_rarp_first_and_then_removes_only_the_holds);
    tcase_add_test(t, wired_but_not_held__is_not_installed);
    tcase_add_test(t, missing_pieces_are_named);
    tcase_add_test(t, port_without_an_id__is_invalid_and_named_by_its_mac);
    tcase_add_test(t, mac_that_is_none__is_invalid);
    tcase_add_test(t, released_port__has_nothing_prepared);
    suite_add_tcase(s, t);
    return s;
}
