/* test_proto.c - the messages: what goes in comes out, and nothing else gets in. */
#include "base/json.h"
#include "members.h"
#include "proto/codec.h"
#include "proto/observe.h"
#include "proto/op.h"
#include "proto/peer.h"
#include "proto/stream.h"
#include "proto/vm.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#define ULID "01JD2Z3W5X6Y7Z8A9B0C1D2E3F"
#define UUID "0f0e0d0c-0b0a-4908-8706-050403020100"

static struct lmo_volume sample_volume(unsigned i)
{
    struct lmo_volume v = {.size_bytes = UINT64_C(5000000000) + i, .read_only = i % 2 == 1};
    snprintf(v.volume, sizeof(v.volume), "vol-%u", i);
    snprintf(v.target, sizeof(v.target), "vd%c", 'a' + (int)i);
    strcpy(v.driver, "nbd");
    strcpy(v.service, "10.0.0.9:10809");
    snprintf(v.export_name, sizeof(v.export_name), "vol-%u.hv1.e3", i);
    snprintf(v.export_destination, sizeof(v.export_destination), "vol-%u.hv2.e4", i);
    strcpy(v.worker, "storage");
    strcpy(v.worker_url, "https://10.0.0.9:7443");
    return v;
}

static struct lmo_port sample_port(unsigned i)
{
    struct lmo_port p = {0};
    snprintf(p.id, sizeof(p.id), "port-%u", i);
    strcpy(p.mac, "52:54:00:00:00:01");
    strcpy(p.bridge, "br-int");
    strcpy(p.device, "vnet3");
    strcpy(p.fabric, "ovn");
    strcpy(p.worker, "control");
    return p;
}

static struct lmo_vm_facts sample_facts(void)
{
    struct lmo_vm_facts f = {.state = LMO_RUN_PAUSED_BY_USER,
                             .persistent = true,
                             .autostart = true,
                             .memory_bytes = UINT64_C(268435456),
                             .vcpus = 2,
                             .dirty_bytes_per_s = 41,
                             .dirty_age_ms = 42,
                             .volume_count = LMO_VOLUMES_MAX,
                             .port_count = LMO_PORTS_MAX};
    strcpy(f.uuid, UUID);
    strcpy(f.name, "guest \"one\"\n");
    strcpy(f.machine, "pc-q35-7.2");
    strcpy(f.blocker, "host device");
    strcpy(f.blocker_kinds, "device");
    strcpy(f.cpu, "0123456789abcdef");
    for (unsigned i = 0; i < LMO_VOLUMES_MAX; i++) {
        f.volumes[i] = sample_volume(i);
    }
    for (unsigned i = 0; i < LMO_PORTS_MAX; i++) {
        f.ports[i] = sample_port(i);
    }
    return f;
}

static struct lmo_progress sample_progress(void)
{
    return (struct lmo_progress){1, 2, 3, UINT64_C(4000000000000), 5, 6, 100, 8, 9, 10, 11, 12, 13, 14};
}

/* ------------------------------------------------------------------ round trips */

START_TEST(facts_of_a_full_guest__survive_the_round_trip)
{
    static struct lmo_vm_facts in, out; /* static: padding is zero */
    in = sample_facts();
    struct lmo_err err = {0};
    LMO_AUTO_JSON json_t *j = lmo_vm_facts_to_json(&in);
    ck_assert_ptr_nonnull(j);
    ck_assert_msg(lmo_vm_facts_from_json(j, &out, &err) == 0, "%s", err.text);
    ck_assert_mem_eq(&in, &out, sizeof(in));
}
END_TEST

START_TEST(every_run_state__is_sent_as_its_word)
{
    for (int s = LMO_RUN_UNKNOWN; s <= LMO_RUN_PAUSED_OTHER; s++) {
        struct lmo_vm_facts in = {.uuid = UUID, .state = (enum lmo_run_state)s}, out = {0};
        LMO_AUTO_JSON json_t *j = lmo_vm_facts_to_json(&in);
        ck_assert_str_eq(json_string_value(json_object_get(j, "state")), lmo_run_state_name(in.state));
        ck_assert_int_eq(lmo_vm_facts_from_json(j, &out, NULL), 0);
        ck_assert_int_eq(out.state, s);
    }
}
END_TEST

START_TEST(progress_and_host_facts__survive_the_round_trip)
{
    struct lmo_progress in = sample_progress(), out = {0};
    LMO_AUTO_JSON json_t *j = lmo_progress_to_json(&in);
    ck_assert_int_eq(lmo_progress_from_json(j, &out, NULL), 0);
    ck_assert_mem_eq(&in, &out, sizeof(in));

    struct lmo_host_facts h = {.host = "hv1",
                               .version = "0.1.0",
                               .boot = ULID,
                               .hypervisor = "libvirt",
                               .peer_uri = "qemu+tcp://10.0.0.1/system",
                               .network = "ovn",
                               .network_fabric = "f1",
                               .fabric = "ovn",
                               .fabric_name = "f1",
                               .volume = "nbd",
                               .volume_service = "s1",
                               .volume_address = "10.0.0.9:10809",
                               .realtime_us = INT64_C(1763643055000000),
                               .link_count = 2,
                               .links = {{"migration", "10.1.0.1", 1U << 30}, {"storage", "fd00::1", 1}},
                               .memory_total_bytes = UINT64_C(64) << 30,
                               .memory_free_bytes = UINT64_C(20) << 30,
                               .huge_page_count = 1,
                               .huge_pages = {{2U << 20, 8U << 20, 4U << 20}}},
                          g = {0};
    LMO_AUTO_JSON json_t *k = lmo_host_facts_to_json(&h);
    members_all_in("proto/observe.h", "lmo_host_facts", k, " link_count huge_page_count ");
    ck_assert_int_eq(lmo_host_facts_from_json(k, &g, NULL), 0);
    ck_assert_mem_eq(&h, &g, sizeof(h));
}
END_TEST

START_TEST(every_kind_of_op_request__survives_the_round_trip)
{
    for (int kind = LMO_OP_NONE + 1; kind < LMO_OP_COUNT; kind++) {
        static struct lmo_op_request in = {.id = ULID ".3.17-attach",
                                           .migration = ULID,
                                           .vm = UUID,
                                           .vm_name = "g1",
                                           .epoch = 3,
                                           .source = "hv1",
                                           .destination = "hv2",
                                           .source_url = "https://10.0.0.1:8443",
                                           .destination_url = "https://10.0.0.2:8443",
                                           .peer_uri = "qemu+tcp://10.0.0.2/system",
                                           .migration_uri = "tcp://10.0.0.2",
                                           .link = "migration",
                                           .host = "hv2",
                                           .path = "/var/x.qcow2",
                                           .format = "qcow2",
                                           .answer = "frozen",
                                           .evidence = "stopped; no resume",
                                           .volume_count = LMO_VOLUMES_MAX,
                                           .port_count = 1,
                                           .persistent = true,
                                           .autostart = true,
                                           .shut_off = true,
                                           .accept_stateful_loss = true,
                                           .final_state = LMO_RUN_RUNNING,
                                           .memory_bytes = 1,
                                           .vcpus = 2,
                                           .bandwidth_bytes_per_s = 2,
                                           .downtime_ms = 3,
                                           .dirty_fresh_ms = 5,
                                           .throttle_initial_percent = 6,
                                           .throttle_increment_percent = 7,
                                           .deadman_ms = 4};
        in.kind = (enum lmo_op_kind)kind;
        in.xml = strdup("<domain type='kvm'/>");
        in.permit = strdup("{\"a\":1}");
        for (unsigned i = 0; i < LMO_VOLUMES_MAX; i++) {
            in.volumes[i] = sample_volume(i);
        }
        in.ports[0] = sample_port(0);
        char *text = NULL;
        struct lmo_err err = {0};
        ck_assert_msg(lmo_op_request_encode(&in, &text, &err) == 0, "%s", err.text);
        struct lmo_op_request out;
        ck_assert_msg(lmo_op_request_decode(text, strlen(text), &out, &err) == 0, "%s", err.text);
        ck_assert_str_eq(in.xml, out.xml);
        ck_assert_str_eq(in.permit, out.permit);
        LMO_AUTO_JSON json_t *j = json_loads(text, 0, NULL);
        /* traceparent: a header, not a member */
        members_all_in("proto/op.h", "lmo_op_request", j, " volume_count port_count traceparent ");
        lmo_op_request_done(&in);
        lmo_op_request_done(&out);
        ck_assert_mem_eq(&in, &out, sizeof(in));
        free(text);
    }
}
END_TEST

START_TEST(a_small_op_request__sends_only_what_it_uses)
{
    struct lmo_op_request in = {.id = "x.1.1-describe", .kind = LMO_OP_DESCRIBE, .vm = UUID};
    LMO_AUTO_FREE char *text = NULL;
    ck_assert_int_eq(lmo_op_request_encode(&in, &text, NULL), 0);
    ck_assert_str_eq(text, "{\"id\":\"x.1.1-describe\",\"kind\":\"describe\",\"vm\":\"" UUID "\"}");
}
END_TEST

START_TEST(op_replies__survive_the_round_trip)
{
    struct lmo_op_reply in[] = {
        {.id = "x.1.1-describe", .state = LMO_OP_RUNNING},
        {.id = "x.1.1-describe",
         .state = LMO_OP_DONE,
         .has_facts = true,
         .facts = sample_facts(),
         .realtime_us = INT64_C(1790000000123456),
         .xml = strdup("<domain/>")},
        {.id = "x.1.2-attach", .state = LMO_OP_DONE, .export_name = "v.hv2.e3", .text = "was there"},
        {.id = "x.1.3-relay_freeze", .state = LMO_OP_DONE, .answer = "gone", .evidence = "pidfd"},
        {.id = "x.1.4-preload", .state = LMO_OP_FAILED, .code = LMO_E_TIMEOUT, .text = "no flows"},
    };
    LMO_AUTO_JSON json_t *all = json_object();
    for (size_t i = 0; i < sizeof(in) / sizeof(in[0]); i++) {
        LMO_AUTO_FREE char *text = NULL;
        struct lmo_err err = {0};
        struct lmo_op_reply out;
        ck_assert_int_eq(lmo_op_reply_encode(&in[i], &text, NULL), 0);
        LMO_AUTO_JSON json_t *j = json_loads(text, 0, NULL);
        json_object_update_missing(all, j);
        ck_assert_msg(lmo_op_reply_decode(text, strlen(text), &out, &err) == 0, "%s", err.text);
        ck_assert_int_eq(in[i].xml == NULL, out.xml == NULL);
        lmo_op_reply_done(&in[i]);
        lmo_op_reply_done(&out);
        ck_assert_mem_eq(&in[i], &out, sizeof(out));
    }
        members_all_in("proto/op.h", "lmo_op_reply", all, " has_facts ");
}
END_TEST

START_TEST(every_kind_of_worker_event__survives_the_round_trip)
{
    for (int kind = LMO_WEV_NONE + 1; kind < LMO_WEV_COUNT; kind++) {
        static struct lmo_worker_event in = {.migration = ULID,
                                             .vm = UUID,
                                             .epoch = 4,
                                             .seq = 12,
                                             .ok = true,
                                             .at_us = INT64_C(1763643055000001),
                                             .text = "t",
                                             .evidence = "e",
                                             .state = LMO_RUN_LOADED,
                                             .duration_us = 1,
                                             .fence_us = 2,
                                             .verify_us = 3,
                                             .answer = "frozen"}; /* static: padding is zero */
        struct lmo_worker_event out;
        memset(&out, 0, sizeof(out));
        in.kind = (enum lmo_worker_event_kind)kind;
        in.progress = kind == LMO_WEV_PROGRESS ? sample_progress() : (struct lmo_progress){0};
        LMO_AUTO_JSON json_t *j = lmo_worker_event_to_json(&in);
        members_all_in("lmo/base/ops.h", "lmo_worker_event", j, kind == LMO_WEV_PROGRESS ? "" : " progress ");
        struct lmo_err err = {0};
        ck_assert_msg(lmo_worker_event_from_json(j, &out, &err) == 0, "%s", err.text);
        ck_assert_mem_eq(&in, &out, sizeof(in));
    }
}
END_TEST

START_TEST(peer_messages__survive_the_round_trip)
{
    struct lmo_peer_request in = {.permit = "signed \"text\"", .index = 15, .pause = 2}, out;
    LMO_AUTO_FREE char *text = NULL, *text2 = NULL;
    ck_assert_int_eq(lmo_peer_request_encode(&in, &text, NULL), 0);
    ck_assert_int_eq(lmo_peer_request_decode(text, strlen(text), &out, NULL), 0);
    ck_assert_str_eq(out.permit, in.permit);
    ck_assert_uint_eq(out.index, 15);
    ck_assert_uint_eq(out.pause, 2);
    lmo_peer_request_done(&out);
    struct lmo_peer_reply r = {.answer = "running", .evidence = "it ran", .frozen_us = 5, .duration_us = 6}, q = {0};
    ck_assert_int_eq(lmo_peer_reply_encode(&r, &text2, NULL), 0);
    ck_assert_int_eq(lmo_peer_reply_decode(text2, strlen(text2), &q, NULL), 0);
    ck_assert_mem_eq(&r, &q, sizeof(r));
    LMO_AUTO_JSON json_t *j = json_loads(text2, 0, NULL), *k = json_loads(text, 0, NULL);
    members_all_in("proto/peer.h", "lmo_peer_reply", j, "");
    members_all_in("proto/peer.h", "lmo_peer_request", k, " permit_owned ");
    struct lmo_peer_request ping;
    ck_assert_int_eq(lmo_peer_request_decode("{}", 2, &ping, NULL), 0);
    ck_assert_ptr_null(ping.permit);
}
END_TEST

/* ------------------------------------------------------------------ what is refused, and how it is named */

static const struct {
    const char *json, *text;
} bad_requests[] = {
    {"[]", "must be a JSON object"},
    {"{}", "id: is missing"},
    {"{\"id\":\"\",\"kind\":\"describe\"}", "id: must not be empty"},
    {"{\"id\":\"../x\",\"kind\":\"describe\"}", "id: not a name"},
    {"{\"id\":\"a\",\"kind\":\"fly\"}", "kind: 'fly' is not one of the words known here"},
    {"{\"id\":\"a\",\"kind\":7}", "kind: must be a string"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"epoch\":-1}", "epoch: must be an integer from 0 to 9223372036854775807"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"epoch\":1.5}", "epoch: must be an integer"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"epoch\":\"1\"}", "epoch: must be an integer"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"epoch\":99999999999999999999}", "not JSON"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"deadman_ms\":4294967296}",
     "deadman_ms: must be an integer from 0 to 4294967295"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"migration\":\"nope\"}", "migration: not a ULID"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"vm\":\"NOPE\"}", "vm: not a UUID in lower case"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"source\":\"a/b\"}", "source: not a name"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"persistent\":1}", "persistent: must be true or false"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"volumes\":{}}", "volumes: must be an array"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"volumes\":[1]}", "volumes[0]: must be an object"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"volumes\":[{\"target\":\"0123456789012345\"}]}",
     "volumes[0].target: longer than 15 characters"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"volumes\":[{\"target\":\"vda\"},{\"target\":\"vdb\",\"size_bytes\":true}]}",
     "volumes[1].size_bytes: must be an integer"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"volumes\":[{}]}", "volumes[0].target: is missing"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"ports\":[{},{},{},{},{},{},{},{},{}]}", "ports: more than 8 elements"},
    {"{\"id\":\"a\",\"kind\":\"revive\",\"final_state\":\"flying\"}", "final_state: 'flying'"},
    {"{\"id\":\"a\",\"kind\":\"attach\",\"xml\":5}", "xml: must be a string"},
    {"{\"id\":\"a\",\"id\":\"b\",\"kind\":\"attach\"}", "not JSON"},
    {"{\"id\":\"a\\u0000b\",\"kind\":\"attach\"}", "not JSON"},
};

START_TEST(a_wrong_op_request__is_refused_naming_the_field)
{
    struct lmo_op_request r;
    memset(&r, 0x5a, sizeof(r));
    struct lmo_op_request before = r;
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_op_request_decode(bad_requests[_i].json, strlen(bad_requests[_i].json), &r, &err),
                     LMO_E_INVALID);
    ck_assert_msg(strstr(err.text, bad_requests[_i].text) == err.text, "'%s' instead of '%s'", err.text,
                  bad_requests[_i].text);
    ck_assert_mem_eq(&r, &before, sizeof(r)); /* untouched */
}
END_TEST

START_TEST(unknown_fields_and_nulls__are_tolerated)
{
    const char *text = "{\"id\":\"a\",\"kind\":\"attach\",\"tomorrow\":{\"x\":[1,2]},\"epoch\":null,"
                       "\"volumes\":[{\"target\":\"vda\",\"colour\":\"red\"}]}";
    struct lmo_op_request r;
    ck_assert_int_eq(lmo_op_request_decode(text, strlen(text), &r, NULL), 0);
    ck_assert_uint_eq(r.epoch, 0);
    ck_assert_uint_eq(r.volume_count, 1);
    lmo_op_request_done(&r);
}
END_TEST

START_TEST(messages_that_are_too_long_or_too_deep__are_refused_before_parsing)
{
    struct lmo_op_request r;
    struct lmo_err err = {0};
    LMO_AUTO_FREE char *big = malloc(LMO_OP_BODY_MAX + 2);
    memset(big, ' ', LMO_OP_BODY_MAX + 1);
    big[LMO_OP_BODY_MAX + 1] = '\0';
    ck_assert_int_eq(lmo_op_request_decode(big, LMO_OP_BODY_MAX + 1, &r, &err), LMO_E_TOO_LARGE);
    memset(big, '[', 100000);
    ck_assert_int_lt(lmo_op_request_decode(big, 100000, &r, &err), 0);
    struct lmo_op_request in = {.id = "a", .kind = LMO_OP_PREPARE, .xml = malloc(LMO_XML_MAX + 2)};
    memset(in.xml, 'x', LMO_XML_MAX + 1);
    in.xml[LMO_XML_MAX + 1] = '\0';
    char *text = NULL;
    ck_assert_int_eq(lmo_op_request_encode(&in, &text, &err), LMO_E_TOO_LARGE);
    ck_assert_ptr_null(text);
    in.xml[LMO_XML_MAX] = '\0';
    ck_assert_int_eq(lmo_op_request_encode(&in, &text, &err), 0);
    ck_assert_int_eq(lmo_op_request_decode(text, strlen(text), &r, &err), 0);
    lmo_op_request_done(&r);
    lmo_op_request_done(&in);
    free(text);
}
END_TEST

START_TEST(a_failed_reply_without_a_code__and_a_code_without_failure__are_refused)
{
    struct lmo_op_reply r;
    const char *a = "{\"id\":\"a\",\"state\":\"failed\"}",
               *b = "{\"id\":\"a\",\"state\":\"done\",\"code\":\"timeout\"}";
    const char *c = "{\"id\":\"a\",\"state\":\"failed\",\"code\":\"no such code\"}";
    const char *d = "{\"id\":\"a\",\"state\":\"done\",\"facts\":{\"uuid\":\"x\"}}";
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_op_reply_decode(a, strlen(a), &r, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_op_reply_decode(b, strlen(b), &r, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_op_reply_decode(c, strlen(c), &r, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_op_reply_decode(d, strlen(d), &r, &err), LMO_E_INVALID);
    ck_assert_str_eq(err.text, "facts.uuid: not a UUID in lower case");
}
END_TEST

START_TEST(text_that_is_not_utf8__is_sent_with_question_marks)
{
    struct lmo_op_reply in = {.id = "a", .state = LMO_OP_FAILED, .code = LMO_E_IO}, out;
    LMO_AUTO_FREE char *text = NULL;
    strcpy(in.text, "caf\xc3\xa9 \xff \xed\xa0\x80 \xf0\x9f\x98\x80 cut \xe2\x82");
    ck_assert_int_eq(lmo_op_reply_encode(&in, &text, NULL), 0);
    ck_assert_int_eq(lmo_op_reply_decode(text, strlen(text), &out, NULL), 0);
    ck_assert_str_eq(out.text, "caf\xc3\xa9 ? ??? \xf0\x9f\x98\x80 cut ??");
}
END_TEST

START_TEST(a_number_above_what_json_carries__is_sent_as_the_largest)
{
    struct lmo_progress in = {.remaining_bytes = UINT64_MAX}, out = {0};
    LMO_AUTO_JSON json_t *j = lmo_progress_to_json(&in);
    ck_assert_int_eq(lmo_progress_from_json(j, &out, NULL), 0);
    ck_assert(out.remaining_bytes == INT64_MAX);
}
END_TEST

/* Garbage: every truncation of a real message, and random bytes changed in it. Nothing may crash or read outside (the
 * sanitizers watch); what is accepted must encode again. */
START_TEST(garbage__never_gets_past_the_decoders)
{
    struct lmo_op_reply in = {.id = "x.1.1-describe", .state = LMO_OP_DONE, .has_facts = true, .facts = sample_facts()};
    LMO_AUTO_FREE char *text = NULL;
    ck_assert_int_eq(lmo_op_reply_encode(&in, &text, NULL), 0);
    size_t len = strlen(text);
    for (size_t cut = 0; cut < len; cut += 7) {
        struct lmo_op_reply r;
        ck_assert_int_lt(lmo_op_reply_decode(text, cut, &r, NULL), 0);
    }
    uint64_t seed = 42;
    LMO_AUTO_FREE char *copy = malloc(len + 1);
    for (int round = 0; round < 2000; round++) {
        memcpy(copy, text, len + 1);
        for (int k = 0; k < 3; k++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            copy[(seed >> 33) % len] = "{}[]\",:0123456789eE-tfn \\\xff\x01"[(seed >> 20) % 27];
        }
        struct lmo_op_reply r;
        struct lmo_op_request q;
        struct lmo_peer_reply p;
        if (lmo_op_reply_decode(copy, len, &r, NULL) == 0) {
            LMO_AUTO_FREE char *again = NULL;
            ck_assert_int_eq(lmo_op_reply_encode(&r, &again, NULL), 0);
            lmo_op_reply_done(&r);
        }
        if (lmo_op_request_decode(copy, len, &q, NULL) == 0) {
            lmo_op_request_done(&q);
        }
        (void)!lmo_peer_reply_decode(copy, len, &p, NULL);
    }
}
END_TEST

START_TEST(events_without_a_kind_or_with_a_wrong_one__are_refused)
{
    static const char *const bad[] = {"{}",
                                      "{\"kind\":\"\"}",
                                      "{\"kind\":\"x\"}",
                                      "{\"kind\":\"progress\",\"progress\":5}",
                                      "{\"kind\":\"loaded\",\"at_us\":-5}",
                                      "{\"kind\":\"loaded\",\"state\":\"x\"}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct lmo_worker_event e;
        LMO_AUTO_JSON json_t *j = NULL;
        ck_assert_int_eq(lmo_json_parse(bad[i], strlen(bad[i]), 1000, &j, NULL), 0);
        ck_assert_msg(lmo_worker_event_from_json(j, &e, NULL) == LMO_E_INVALID, "%s", bad[i]);
    }
}
END_TEST

static void assert_same_text(const struct lmo_vm_facts *f, bool sparse)
{
    LMO_AUTO_BUF struct lmo_buf buf = LMO_BUF_INIT(1U << 20);
    json_t *tree = lmo_codec_encode(&lmo_vm_facts_table, f, sparse);
    char *text = json_dumps(tree, JSON_COMPACT);
    ck_assert_int_eq(lmo_codec_write(&lmo_vm_facts_table, f, sparse, &buf), 0);
    ck_assert_str_eq(lmo_buf_text(&buf), text);
    free(text);
    json_decref(tree);
}

/* Written straight or by way of a tree: the same bytes, whatever is in the texts. */
START_TEST(text_written_without_a_tree__is_that_of_the_tree)
{
    static struct lmo_vm_facts f;
    memset(&f, 0, sizeof f);
    snprintf(f.uuid, sizeof f.uuid, "3f2c1a5e-9f0b-4c5d-8e6f-0123456789ab");
    for (int sparse = 0; sparse < 2; sparse++) {
        assert_same_text(&f, sparse);
        f.persistent = true;
        f.memory_bytes = UINT64_MAX; /* as INT64_MAX */
        f.vcpus = 4;
        f.state = LMO_RUN_PAUSED_BY_USER;
        f.volume_count = 2;
        f.port_count = 1;
        snprintf(f.volumes[1].volume, sizeof f.volumes[1].volume, "a/\"b\"\\c");
        unsigned seed = 12345;
        for (unsigned round = 0; round < 2000; round++) { /* all bytes, cut characters among them */
            for (size_t i = 0; i < sizeof f.blocker - 1; i++) {
                seed = seed * 1103515245U + 12345U;
                f.blocker[i] = (char)(1 + (seed >> 16) % 255);
            }
            snprintf(f.name, sizeof f.name, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80%c", (char)(1 + round % 255));
            assert_same_text(&f, sparse);
        }
    }
}
END_TEST

START_TEST(text_beyond_the_buffers_cap__is_too_large)
{
    static struct lmo_vm_facts f;
    memset(&f, 0, sizeof f);
    for (size_t cap = 1; cap < 60; cap++) {
        LMO_AUTO_BUF struct lmo_buf buf = LMO_BUF_INIT(cap);
        ck_assert_int_eq(lmo_codec_write(&lmo_vm_facts_table, &f, false, &buf), LMO_E_TOO_LARGE);
    }
}
END_TEST

/* ------------------------------------------------------------------ read without a tree */

static void usual_facts(struct lmo_vm_facts *f)
{
    memset(f, 0, sizeof *f);
    snprintf(f->uuid, sizeof f->uuid, "3f2c1a5e-9f0b-4c5d-8e6f-0123456789ab");
    snprintf(f->name, sizeof f->name, "guest 1");
    f->state = LMO_RUN_RUNNING;
    f->persistent = true;
    f->memory_bytes = INT64_MAX;
    f->vcpus = LMO_VCPUS_MAX;
    f->volume_count = 2;
    f->port_count = 1;
    for (unsigned i = 0; i < 2; i++) {
        snprintf(f->volumes[i].target, sizeof f->volumes[i].target, "vd%u", i);
        snprintf(f->volumes[i].worker, sizeof f->volumes[i].worker, "storage");
        f->volumes[i].size_bytes = i;
    }
    snprintf(f->ports[0].mac, sizeof f->ports[0].mac, "52:54:00:00:00:01");
}

START_TEST(text_read_without_a_tree__is_what_was_written)
{
    static struct lmo_vm_facts f, got;
    LMO_AUTO_BUF struct lmo_buf buf = LMO_BUF_INIT(1U << 20);
    usual_facts(&f);
    ck_assert_int_eq(lmo_codec_write(&lmo_vm_facts_table, &f, true, &buf), 0);
    ck_assert_int_eq(lmo_codec_read(&lmo_vm_facts_table, buf.data, buf.len, NULL, &got, NULL), 0);
    ck_assert_mem_eq(&f, &got, sizeof f);
    for (size_t len = 0; len < buf.len; len++) { /* never beyond its end */
        char *part = malloc(len + 1);
        memcpy(part, buf.data, len);
        ck_assert_int_eq(lmo_codec_read(&lmo_vm_facts_table, part, len, NULL, &got, NULL), LMO_E_UNSUPPORTED);
        free(part);
    }
}
END_TEST

#define FACTS "\"uuid\":\"3f2c1a5e-9f0b-4c5d-8e6f-0123456789ab\",\"state\":\"running\""
static const struct {
    const char *text;
    bool tree; /* is it right all the same? */
} unusual[] = {
    {"{ " FACTS "}", true},
    {"{" FACTS "} ", true},
    {"{" FACTS ",\"name\":null}", true},
    {"{" FACTS ",\"name\":\"a\\\"b\"}", true},
    {"{" FACTS ",\"name\":\"\xc3\xa4\"}", true},
    {"{" FACTS ",\"no_such\":1}", true}, /* who asks whether all is known is told otherwise */
    {"{" FACTS ",\"vcpus\":-1}", false},
    {"{" FACTS ",\"vcpus\":01}", false},
    {"{" FACTS ",\"vcpus\":1.0}", false},
    {"{" FACTS ",\"vcpus\":513}", false},
    {"{" FACTS ",\"memory_bytes\":9223372036854775808}", false},
    {"{" FACTS ",\"memory_bytes\":99999999999999999999}", false},
    {"{" FACTS ",\"memory_bytes\":\"1\"}", false},
    {"{" FACTS ",\"persistent\":1}", false},
    {"{" FACTS ",\"machine\":\"0123456789012345678901234567890123456789012345678901234567890123\"}", false},
    {"{" FACTS ",\"volumes\":[{}]}", false},
    {"{" FACTS ",\"volumes\":[{\"target\":\"\"}]}", false},
    {"{" FACTS ",\"volumes\":[{\"target\":\"a\",\"worker\":\"-x\"}]}", false},
    {"{" FACTS ",\"volumes\":{}}", false},
    {"{" FACTS "," FACTS "}", false},
    {"{" FACTS ",}", false},
    {"{\"state\":\"running\"}", false},
    {"{\"uuid\":\"3F2c1a5e-9f0b-4c5d-8e6f-0123456789ab\",\"state\":\"running\"}", false},
    {"{\"uuid\":\"3f2c1a5e-9f0b-4c5d-8e6f-0123456789ab\",\"state\":\"flying\"}", false},
    {"", false},
};

START_TEST(text_that_is_not_the_usual__is_left_to_the_tree)
{
    static struct lmo_vm_facts f;
    const char *text = unusual[_i].text;
    memset(&f, 0, sizeof f);
    ck_assert_int_eq(lmo_codec_read(&lmo_vm_facts_table, text, strlen(text), NULL, &f, NULL), LMO_E_UNSUPPORTED);
    LMO_AUTO_JSON json_t *j = NULL;
    memset(&f, 0, sizeof f);
    int r = lmo_json_parse_object(text, strlen(text), 4096, &j, NULL);
    r = r < 0 ? r : lmo_codec_decode(&lmo_vm_facts_table, j, &f, NULL);
    ck_assert_int_eq(r == 0, unusual[_i].tree);
}
END_TEST

Suite *proto_suite(void);
Suite *proto_suite(void)
{
    Suite *s = suite_create("proto");
    TCase *t = tcase_create("messages");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, text_written_without_a_tree__is_that_of_the_tree);
    tcase_add_test(t, text_read_without_a_tree__is_what_was_written);
    tcase_add_loop_test(t, text_that_is_not_the_usual__is_left_to_the_tree, 0,
                        (int)(sizeof unusual / sizeof unusual[0]));
    tcase_add_test(t, text_beyond_the_buffers_cap__is_too_large);
    tcase_add_test(t, facts_of_a_full_guest__survive_the_round_trip);
    tcase_add_test(t, every_run_state__is_sent_as_its_word);
    tcase_add_test(t, progress_and_host_facts__survive_the_round_trip);
    tcase_add_test(t, every_kind_of_op_request__survives_the_round_trip);
    tcase_add_test(t, a_small_op_request__sends_only_what_it_uses);
    tcase_add_test(t, op_replies__survive_the_round_trip);
    tcase_add_test(t, every_kind_of_worker_event__survives_the_round_trip);
    tcase_add_test(t, peer_messages__survive_the_round_trip);
    tcase_add_loop_test(t, a_wrong_op_request__is_refused_naming_the_field, 0,
                        sizeof(bad_requests) / sizeof(bad_requests[0]));
    tcase_add_test(t, unknown_fields_and_nulls__are_tolerated);
    tcase_add_test(t, messages_that_are_too_long_or_too_deep__are_refused_before_parsing);
    tcase_add_test(t, a_failed_reply_without_a_code__and_a_code_without_failure__are_refused);
    tcase_add_test(t, text_that_is_not_utf8__is_sent_with_question_marks);
    tcase_add_test(t, a_number_above_what_json_carries__is_sent_as_the_largest);
    tcase_add_test(t, garbage__never_gets_past_the_decoders);
    tcase_add_test(t, events_without_a_kind_or_with_a_wrong_one__are_refused);
    suite_add_tcase(s, t);
    return s;
}
