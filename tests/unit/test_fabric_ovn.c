/* test_fabric_ovn.c - OVN's fabric driver against real databases with OVN's schemas. The test itself plays ovn-northd
 * and the controllers: it writes what they would have written. */
#include "ovsdb_server.h"
#include "suites.h"

#include "base/clock.h"
#include "base/json.h"
#include "workers/drivers/driver.h"
#include "workers/drivers/ovsdb.h"

#include <pthread.h>

#define NB_SCHEMA "/usr/share/ovn/ovn-nb.ovsschema"
#define SB_SCHEMA "/usr/share/ovn/ovn-sb.ovsschema"
#define PORT      "b3c18728-864d-508f-a51b-bfddb312d95b"

static struct ovsdb_server nb_server, sb_server;
static struct lmo_ovsdb *nb, *sb;
static struct lmo_fabric *fabric;
static const struct lmo_port port = {.id = PORT, .mac = "52:54:00:a9:57:a7"};
static const struct lmo_ovsdb_need nb_needs[] = {{"Logical_Switch_Port", "name"}};
static const struct lmo_ovsdb_need sb_needs[] = {{"Port_Binding", "logical_port"}};
static struct lmo_err err;

static uint64_t soon(void)
{
    return lmo_now_ns() + 10000 * LMO_NS_PER_MS;
}

static void run(struct lmo_ovsdb *db, json_t *ops)
{
    struct lmo_err e = {0};
    int r = lmo_ovsdb_transact(db, ops, soon(), NULL, &e);
    ck_assert_msg(r == 0, "%s", e.text);
}

static json_t *named(const char *column, const char *value)
{
    return json_pack("[[sss]]", column, "==", value);
}

/* {"row-name": uuid-name, ...} of an insertion with an encapsulation, as a chassis must have one. */
static void add_chassis(const char *name, const char *hostname)
{
    run(sb, json_pack("[{ss,ss,ss,s{ss,ss,ss}}, {ss,ss,ss,s{ss,ss,s[ss]}}, {ss,ss,s{ss,s[ss]}}]", "op", "insert",
                      "table", "Encap", "uuid-name", "e", "row", "type", "geneve", "ip", name, "chassis_name", name,
                      "op", "insert", "table", "Chassis", "uuid-name", "c", "row", "name", name, "hostname", hostname,
                      "encaps", "named-uuid", "e", "op", "insert", "table", "Chassis_Private", "row", "name", name,
                      "chassis", "named-uuid", "c"));
}

static void chassis_uuid(const char *name, char ret[LMO_UUID_MAX])
{
    static const char *const columns[] = {"_uuid", NULL};
    LMO_AUTO_JSON json_t *rows = NULL;
    ck_assert_int_eq(lmo_ovsdb_select(sb, "Chassis", named("name", name), columns, soon(), &rows, NULL), 0);
    (void)snprintf(ret, LMO_UUID_MAX, "%s", lmo_ovsdb_uuid(json_object_get(json_array_get(rows, 0), "_uuid")));
}

/* A set of chassis for the notation of a column; "" is the empty set. */
static json_t *chassis_set(const char *name)
{
    char uuid[LMO_UUID_MAX];
    if (!name[0])
        return json_pack("[s[]]", "set");
    chassis_uuid(name, uuid);
    return json_pack("[s[[ss]]]", "set", "uuid", uuid);
}

/* Writes the port's binding as ovn-northd and the controllers would have. `options`: one key or "" for none. */
static void set_binding(const char *chassis, const char *additional, const char *requested,
                        const char *requested_additional, const char *key, const char *value)
{
    json_t *options = key[0] ? json_pack("[s[[ss]]]", "map", key, value) : json_pack("[s[]]", "map");
    run(sb, json_pack("[{ss,ss,so,s{so,so,so,so,so,sb}}]", "op", "update", "table", "Port_Binding", "where",
                      named("logical_port", PORT), "row", "chassis", chassis_set(chassis), "additional_chassis",
                      chassis_set(additional), "requested_chassis", chassis_set(requested),
                      "requested_additional_chassis", chassis_set(requested_additional), "options", options, "up", 1));
}

/* Replaces the northbound port's options: requested-chassis, and a strategy if not "". */
static void set_options(const char *requested, const char *strategy)
{
    json_t *pairs = json_pack("[[ss]]", "other", "kept");
    if (requested[0])
        json_array_append_new(pairs, json_pack("[ss]", "requested-chassis", requested));
    if (strategy[0])
        json_array_append_new(pairs, json_pack("[ss]", "activation-strategy", strategy));
    run(nb, json_pack("[{ss,ss,so,s{s[so]}}]", "op", "update", "table", "Logical_Switch_Port", "where",
                      named("name", PORT), "row", "options", "map", pairs));
}

static void check_options(const char *requested, const char *strategy)
{
    static const char *const columns[] = {"options", NULL};
    LMO_AUTO_JSON json_t *rows = NULL;
    ck_assert_int_eq(lmo_ovsdb_select(nb, "Logical_Switch_Port", named("name", PORT), columns, soon(), &rows, NULL), 0);
    const json_t *options = json_object_get(json_array_get(rows, 0), "options");
    ck_assert_pstr_eq(lmo_ovsdb_map_get(options, "requested-chassis"), requested);
    ck_assert_pstr_eq(lmo_ovsdb_map_get(options, "activation-strategy"), strategy);
    ck_assert_pstr_eq(lmo_ovsdb_map_get(options, "other"), "kept");
}

static void set_up(void)
{
    err = (struct lmo_err){0};
    ovsdb_server_create(&nb_server, NB_SCHEMA);
    ovsdb_server_create(&sb_server, SB_SCHEMA);
    struct lmo_ovsdb_config cfg = {
        .name = "nb", .remotes = nb_server.remote, .database = "OVN_Northbound", .needs = nb_needs, .need_count = 1};
    ck_assert_int_eq(lmo_ovsdb_open(&cfg, &nb, NULL), 0);
    cfg = (struct lmo_ovsdb_config){
        .name = "sb", .remotes = sb_server.remote, .database = "OVN_Southbound", .needs = sb_needs, .need_count = 1};
    ck_assert_int_eq(lmo_ovsdb_open(&cfg, &sb, NULL), 0);
    run(nb, json_pack("[{ss,ss,s{}}, {ss,ss,ss,s{ss,sb}}, {ss,ss,ss,s{ss,sb}}, {ss,ss,s{ss,s[s[[ss][ss]]]}}]", "op",
                      "insert", "table", "NB_Global", "row", "op", "insert", "table", "Logical_Switch_Port",
                      "uuid-name", "p", "row", "name", PORT, "up", 1, "op", "insert", "table", "Logical_Switch_Port",
                      "uuid-name", "q", "row", "name", "neighbour", "up", 1, "op", "insert", "table", "Logical_Switch",
                      "row", "name", "ls0", "ports", "set", "named-uuid", "p", "named-uuid", "q"));
    add_chassis("id-1", "hv1");
    add_chassis("id-2", "hv2");
    run(sb, json_pack("[{ss,ss,ss,s{si}}, {ss,ss,s{ss,si,s[ss]}}]", "op", "insert", "table", "Datapath_Binding",
                      "uuid-name", "d", "row", "tunnel_key", 1, "op", "insert", "table", "Port_Binding", "row",
                      "logical_port", PORT, "tunnel_key", 2, "datapath", "named-uuid", "d"));
    set_options("hv1", "");
    set_binding("id-1", "", "id-1", "", "requested-chassis", "hv1");
    ck_assert_int_eq(lmo_fabric_ovn_open(nb_server.remote, sb_server.remote, &fabric, NULL), 0);
}

static void tear_down(void)
{
    fabric->ops->close(fabric);
    lmo_ovsdb_close(nb);
    lmo_ovsdb_close(sb);
    ovsdb_server_destroy(&nb_server);
    ovsdb_server_destroy(&sb_server);
}

static int check(bool accept)
{
    return fabric->ops->check(fabric, &port, "hv1", "hv2", accept, 10000, &err);
}

/* ------------------------------------------------------------------ check */

START_TEST(sound_port__passes_by_chassis_name_and_by_host_name)
{
    ck_assert_msg(check(false) == 0, "%s", err.text);
    ck_assert_int_eq(fabric->ops->check(fabric, &port, "id-1", "hv2", false, 5000, &err), 0);
    set_options("id-1", "");
    ck_assert_int_eq(check(false), 0);
    set_options("", "");
    ck_assert_int_eq(check(false), 0);
}
END_TEST

START_TEST(unknown_port_host_or_same_host_are_refused)
{
    struct lmo_port other = {.id = "nobody"}, none = {.mac = "52:54:00:00:00:09"};
    ck_assert_int_eq(fabric->ops->check(fabric, &other, "hv1", "hv2", false, 5000, &err), LMO_E_NOT_FOUND);
    ck_assert_int_eq(fabric->ops->check(fabric, &none, "hv1", "hv2", false, 5000, &err), LMO_E_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "52:54:00:00:00:09"));
    ck_assert_int_eq(fabric->ops->check(fabric, &port, "hv1", "hv9", false, 5000, &err), LMO_E_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.text, "hv9"));
    ck_assert_int_eq(fabric->ops->check(fabric, &port, "hv1", "id-1", false, 5000, &err), LMO_E_INVALID);
}
END_TEST

START_TEST(port_in_another_migration_or_elsewhere__is_a_conflict)
{
    set_options("hv1,hv2", "rarp");
    ck_assert_int_eq(check(false), LMO_E_CONFLICT);
    set_options("hv2", "");
    ck_assert_int_eq(check(false), LMO_E_CONFLICT);
    set_options("hv1", "");
    set_binding("id-2", "", "id-1", "", "", "");
    ck_assert_int_eq(check(false), LMO_E_CONFLICT);
    set_binding("id-1", "", "id-1", "", "additional-chassis-activated", "id-2");
    ck_assert_int_eq(check(false), LMO_E_CONFLICT);
}
END_TEST

/* An ACL on the switch, or on a port group that has `member` (a port's name). */
static void add_acl(const char *action, const char *member)
{
    json_t *acl = json_pack("{ss,ss,ss,s{si,ss,ss,ss,sb}}", "op", "insert", "table", "ACL", "uuid-name", "a", "row",
                            "priority", 1000, "direction", "to-lport", "match", "ip4", "action", action, "log", 0);
    if (!member) {
        run(nb, json_pack("[o, {ss,ss,so,s[[ss[ss]]]}]", acl, "op", "mutate", "table", "Logical_Switch", "where",
                          named("name", "ls0"), "mutations", "acls", "insert", "named-uuid", "a"));
        return;
    }
    static const char *const columns[] = {"_uuid", NULL};
    LMO_AUTO_JSON json_t *rows = NULL;
    ck_assert_int_eq(lmo_ovsdb_select(nb, "Logical_Switch_Port", named("name", member), columns, soon(), &rows, NULL),
                     0);
    run(nb, json_pack("[o, {ss,ss,s{ss,sO,s[ss]}}]", acl, "op", "insert", "table", "Port_Group", "row", "name", "pg0",
                      "ports", json_object_get(json_array_get(rows, 0), "_uuid"), "acls", "named-uuid", "a"));
}

START_TEST(stateful_firewall_of_the_switch__is_refused_unless_accepted)
{
    add_acl("allow-related", NULL);
    ck_assert_int_eq(check(false), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "stateful firewall"));
    ck_assert_ptr_nonnull(strstr(err.text, "ls0"));
    ck_assert_int_eq(check(true), 0);
}
END_TEST

START_TEST(stateful_firewall_of_its_port_group__is_refused)
{
    add_acl("allow-related", PORT);
    ck_assert_int_eq(check(false), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "pg0"));
}
END_TEST

START_TEST(stateless_rules_and_rules_of_others__pass)
{
    add_acl("allow-stateless", NULL);
    add_acl("drop", PORT);
    ck_assert_msg(check(false) == 0, "%s", err.text);
}
END_TEST

START_TEST(stateful_rules_of_a_neighbour_alone__pass)
{
    add_acl("allow-related", "neighbour");
    ck_assert_msg(check(false) == 0, "%s", err.text);
}
END_TEST

START_TEST(plain_allow__is_stateful_on_a_switch_that_tracks_connections)
{
    add_acl("allow", NULL);
    ck_assert_msg(check(false) == 0, "%s", err.text);
    add_acl("allow-related", "neighbour");
    ck_assert_int_eq(check(false), LMO_E_REFUSED);
}
END_TEST

START_TEST(load_balancer_and_distributed_nat__are_refused)
{
    run(nb, json_pack("[{ss,ss,ss,s{ss}}, {ss,ss,so,s[[ss[ss]]]}]", "op", "insert", "table", "Load_Balancer",
                      "uuid-name", "l", "row", "name", "lb0", "op", "mutate", "table", "Logical_Switch", "where",
                      named("name", "ls0"), "mutations", "load_balancer", "insert", "named-uuid", "l"));
    ck_assert_int_eq(check(false), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "load balancer"));
    run(nb, json_pack("[{ss,ss,so,s{s[s[]]}}]", "op", "update", "table", "Logical_Switch", "where",
                      named("name", "ls0"), "row", "load_balancer", "set"));
    ck_assert_int_eq(check(false), 0);
    run(nb, json_pack("[{ss,ss,ss,s{ss,ss,ss,ss,ss}}, {ss,ss,s{ss,s[ss]}}]", "op", "insert", "table", "NAT",
                      "uuid-name", "n", "row", "type", "dnat_and_snat", "external_ip", "1.2.3.4", "logical_ip",
                      "10.0.0.1", "logical_port", PORT, "external_mac", "0a:00:00:00:00:01", "op", "insert", "table",
                      "Logical_Router", "row", "name", "lr0", "nat", "named-uuid", "n"));
    ck_assert_int_eq(check(false), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "1.2.3.4"));
    ck_assert_int_eq(check(true), 0);
}
END_TEST

/* ------------------------------------------------------------------ preload, dual, bound, single */

static void *confirm_later(void *arg)
{
    (void)arg;
    usleep(50000);
    run(sb, json_pack("[{ss,ss,so,s{si}}]", "op", "update", "table", "Chassis_Private", "where", named("name", "id-2"),
                      "row", "nb_cfg", 1));
    return NULL;
}

START_TEST(preload__waits_for_the_destinations_controller_and_is_shared)
{
    pthread_t later;
    ck_assert_int_eq(fabric->ops->preload(fabric, "hv9", 1000, &err), LMO_E_NOT_FOUND);
    ck_assert_int_eq(pthread_create(&later, NULL, confirm_later, NULL), 0);
    int r = fabric->ops->preload(fabric, "hv2", 10000, &err);
    pthread_join(later, NULL);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_int_eq(fabric->ops->preload(fabric, "hv2", 1000, &err), 0); /* within the time that one serves for all */
    usleep(300000);
    ck_assert_int_eq(fabric->ops->preload(fabric, "hv2", 200, &err), LMO_E_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(err.text, "it is at 1, wanted 2"));
}
END_TEST

static int dual(uint64_t timeout_ms)
{
    return fabric->ops->dual(fabric, &port, "hv1", "hv2", timeout_ms, &err);
}

/* With so little time that the answer cannot be awaited, but enough to ask: on a busy machine that takes some tries. */
static int dual_unanswered(void)
{
    int r = LMO_E_UNAVAILABLE;
    for (uint64_t ms = 200; r == LMO_E_UNAVAILABLE && ms < 10000; ms *= 2)
        r = dual(ms);
    return r;
}

START_TEST(dual__is_requested_once_and_believed_when_the_southbound_shows_it)
{
    ck_assert_int_eq(dual_unanswered(), LMO_E_TIMEOUT); /* asked for, not shown: nobody plays northd yet */
    check_options("hv1,hv2", "rarp");
    set_binding("id-1", "", "id-1", "id-2", "activation-strategy", "rarp");
    ck_assert_msg(dual(10000) == 0, "%s", err.text);
    check_options("hv1,hv2", "rarp");
    ck_assert_int_eq(fabric->ops->dual(fabric, &port, "hv2", "hv1", 1000, &err), LMO_E_CONFLICT);
    check_options("hv1,hv2", "rarp");
}
END_TEST

START_TEST(dual__speaks_of_hosts_in_the_words_of_the_ports_owner)
{
    set_options("id-1", "");
    ck_assert_int_eq(dual_unanswered(), LMO_E_TIMEOUT);
    check_options("id-1,id-2", "rarp");
}
END_TEST

START_TEST(dual_of_a_destination_opened_before__is_a_conflict)
{
    set_binding("id-1", "", "id-1", "id-2", "additional-chassis-activated", "id-2");
    ck_assert_int_eq(dual(5000), LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "earlier attempt"));
}
END_TEST

START_TEST(bound__needs_the_destination_as_an_additional_chassis)
{
    ck_assert_int_eq(fabric->ops->await_bound(fabric, &port, "hv2", 200, &err), LMO_E_UNAVAILABLE);
    set_binding("id-1", "id-2", "id-1", "id-2", "activation-strategy", "rarp");
    ck_assert_int_eq(fabric->ops->await_bound(fabric, &port, "hv2", 10000, &err), 0);
}
END_TEST

static void *release_then_claim(void *arg)
{
    (void)arg;
    usleep(150000);
    check_options("hv1,hv2", "rarp"); /* not asked for before the source has let go */
    set_binding("", "id-2", "id-1", "id-2", "activation-strategy", "rarp");
    for (int i = 0; i < 500; i++) {
        static const char *const columns[] = {"options", NULL};
        LMO_AUTO_JSON json_t *rows = NULL;
        ck_assert_int_eq(lmo_ovsdb_select(nb, "Logical_Switch_Port", named("name", PORT), columns, soon(), &rows, NULL),
                         0);
        const char *now = lmo_ovsdb_map_get(json_object_get(json_array_get(rows, 0), "options"), "requested-chassis");
        if (now && strcmp(now, "hv2") == 0)
            break;
        usleep(10000);
    }
    set_binding("id-2", "", "id-2", "", "requested-chassis", "hv2");
    return NULL;
}

START_TEST(single__lets_the_source_go_first_and_is_confirmed)
{
    pthread_t later;
    set_options("hv1,hv2", "rarp");
    set_binding("id-1", "id-2", "id-1", "id-2", "activation-strategy", "rarp");
    ck_assert_int_eq(pthread_create(&later, NULL, release_then_claim, NULL), 0);
    int r = fabric->ops->single(fabric, &port, "hv2", 20000, &err);
    pthread_join(later, NULL);
    ck_assert_msg(r == 0, "%s", err.text);
    check_options("hv2", NULL);
    ck_assert_int_eq(fabric->ops->single(fabric, &port, "hv2", 5000, &err), 0);
}
END_TEST

/* A loaded machine may need longer than that to ask at all; then nothing was ordered yet. */
static void single_runs_out_of_time(const char *host)
{
    int r = LMO_E_UNAVAILABLE;
    for (unsigned ms = 300; r == LMO_E_UNAVAILABLE && ms < 20000; ms *= 2) {
        r = fabric->ops->single(fabric, &port, host, ms, &err);
    }
    ck_assert_msg(r == LMO_E_TIMEOUT, "%d: %s", r, err.text);
}

START_TEST(single__takes_over_from_a_host_that_never_lets_go)
{
    set_options("hv1,hv2", "rarp");
    set_binding("id-1", "id-2", "id-1", "id-2", "activation-strategy", "rarp");
    single_runs_out_of_time("hv2");
    check_options("hv2", NULL); /* asked for all the same */
}
END_TEST

START_TEST(single_back_to_the_source__waits_until_nothing_of_the_attempt_is_left)
{
    set_options("hv1,hv2", "rarp");
    set_binding("id-1", "", "id-1", "", "additional-chassis-activated", "id-2");
    single_runs_out_of_time("hv1");
    check_options("hv1", NULL);
    set_binding("id-1", "", "id-1", "", "requested-chassis", "hv1");
    ck_assert_int_eq(fabric->ops->single(fabric, &port, "hv1", 5000, &err), 0);
}
END_TEST

START_TEST(port_of_a_guest_that_is_shut_off__is_bound_nowhere_and_follows_it_without_waiting)
{
    ck_assert_int_eq(fabric->ops->check_unbound(fabric, &port, "hv1", "hv2", 10000, &err), LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "shut off"));
    set_binding("", "", "id-1", "", "x", "y");
    ck_assert_msg(fabric->ops->check_unbound(fabric, &port, "hv1", "hv2", 10000, &err) == 0, "%s", err.text);
    ck_assert_int_eq(fabric->ops->check_unbound(fabric, &port, "hv2", "hv1", 10000, &err), LMO_E_CONFLICT);
    ck_assert_int_eq(fabric->ops->assign(fabric, &port, "hv2", 10000, &err), 0);
    check_options("hv2", NULL);
    ck_assert_int_eq(fabric->ops->assign(fabric, &port, "hv2", 10000, &err), 0);
    check_options("hv2", NULL);
    set_options("", "");
    ck_assert_int_eq(fabric->ops->assign(fabric, &port, "hv1", 10000, &err), 0);
    check_options(NULL, NULL); /* its owner had not asked for a certain host */
}
END_TEST

START_TEST(observe__says_what_is_there)
{
    char text[512];
    set_options("hv1,hv2", "rarp");
    set_binding("id-1", "id-2", "id-1", "id-2", "activation-strategy", "rarp");
    ck_assert_int_eq(fabric->ops->observe(fabric, &port, text, sizeof text, 5000, &err), 0);
    ck_assert_str_eq(text, "requested-chassis=hv1,hv2 activation-strategy=rarp chassis=id-1 additional=id-2 "
                           "requested-additional=id-2 activated=none up=true");
}
END_TEST

START_TEST(databases_down__is_unavailable_not_unknown)
{
    ck_assert_int_eq(check(false), 0);
    ovsdb_server_kill(&nb_server);
    ck_assert_int_eq(fabric->ops->check(fabric, &port, "hv1", "hv2", false, 300, &err), LMO_E_UNAVAILABLE);
    ck_assert_int_eq(dual(300), LMO_E_UNAVAILABLE);
}
END_TEST

Suite *fabric_ovn_suite(void)
{
    Suite *s = suite_create("fabric_ovn");
    TCase *t = tcase_create("databases");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, sound_port__passes_by_chassis_name_and_by_host_name);
    tcase_add_test(t, unknown_port_host_or_same_host_are_refused);
    tcase_add_test(t, port_in_another_migration_or_elsewhere__is_a_conflict);
    tcase_add_test(t, stateful_firewall_of_the_switch__is_refused_unless_accepted);
    tcase_add_test(t, stateful_firewall_of_its_port_group__is_refused);
    tcase_add_test(t, stateless_rules_and_rules_of_others__pass);
    tcase_add_test(t, stateful_rules_of_a_neighbour_alone__pass);
    tcase_add_test(t, plain_allow__is_stateful_on_a_switch_that_tracks_connections);
    tcase_add_test(t, load_balancer_and_distributed_nat__are_refused);
    tcase_add_test(t, preload__waits_for_the_destinations_controller_and_is_shared);
    tcase_add_test(t, dual__is_requested_once_and_believed_when_the_southbound_shows_it);
    tcase_add_test(t, dual__speaks_of_hosts_in_the_words_of_the_ports_owner);
    tcase_add_test(t, dual_of_a_destination_opened_before__is_a_conflict);
    tcase_add_test(t, bound__needs_the_destination_as_an_additional_chassis);
    tcase_add_test(t, single__lets_the_source_go_first_and_is_confirmed);
    tcase_add_test(t, single__takes_over_from_a_host_that_never_lets_go);
    tcase_add_test(t, single_back_to_the_source__waits_until_nothing_of_the_attempt_is_left);
    tcase_add_test(t, port_of_a_guest_that_is_shut_off__is_bound_nowhere_and_follows_it_without_waiting);
    tcase_add_test(t, observe__says_what_is_there);
    tcase_add_test(t, databases_down__is_unavailable_not_unknown);
    suite_add_tcase(s, t);
    return s;
}
