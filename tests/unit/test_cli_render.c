/* test_cli_render.c - given JSON, the text that people see. */
#include "cli/format.h"
#include "cli/render.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

Suite *cli_render_suite(void);

static const struct lmo_style plain = {0};

typedef void one_fn(const json_t *, const struct lmo_style *, FILE *);

static char *rendered(one_fn *fn, const char *text, const struct lmo_style *style)
{
    json_error_t e;
    json_t *j = json_loads(text, 0, &e);
    ck_assert_msg(j != NULL, "%s", e.text);
    char *out = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&out, &len);
    fn(j, style, f);
    fclose(f);
    json_decref(j);
    return out;
}

static void expect(one_fn *fn, const char *json, const char *want)
{
    char *got = rendered(fn, json, &plain);
    ck_assert_str_eq(got, want);
    free(got);
}

START_TEST(sizes_and_durations__have_as_many_digits_as_they_deserve)
{
    char b[LMO_FORMAT_MAX];
    ck_assert_str_eq(lmo_format_bytes(0, b), "0 B");
    ck_assert_str_eq(lmo_format_bytes(1023, b), "1023 B");
    ck_assert_str_eq(lmo_format_bytes(1024, b), "1.0 KiB");
    ck_assert_str_eq(lmo_format_bytes(104857600, b), "100 MiB");
    ck_assert_str_eq(lmo_format_bytes(1048575, b), "1.0 MiB"); /* never "1024 KiB" */
    ck_assert_str_eq(lmo_format_bytes(UINT64_MAX, b), "16.0 EiB");
    ck_assert_str_eq(lmo_format_rate(123731968, b), "118 MiB/s");
    ck_assert_str_eq(lmo_format_us(850, b), "850 us");
    ck_assert_str_eq(lmo_format_us(12345, b), "12.3 ms");
    ck_assert_str_eq(lmo_format_us(123456, b), "123 ms");
    ck_assert_str_eq(lmo_format_us(999999, b), "1.00 s");
    ck_assert_str_eq(lmo_format_us(4310000, b), "4.31 s");
    ck_assert_str_eq(lmo_format_us(59999999, b), "0 min 59 s");
    ck_assert_str_eq(lmo_format_us(125000000, b), "2 min 5 s");
    ck_assert_str_eq(lmo_format_ms(12000000, b), "3 h 20 min");
    ck_assert_str_eq(lmo_format_ms(3, b), "3 ms");
    ck_assert_str_eq(lmo_format_ms(0, b), "0 us");
    ck_assert_str_eq(lmo_format_ms(UINT64_MAX, b), lmo_format_us(UINT64_MAX, (char[LMO_FORMAT_MAX]){0}));
}
END_TEST

START_TEST(times__are_local_and_name_their_offset)
{
    char b[LMO_FORMAT_MAX];
    setenv("TZ", "UTC", 1);
    ck_assert_str_eq(lmo_format_time(1795181002123, b), "2026-11-20 13:23:22.123 +0000");
    ck_assert_str_eq(lmo_format_time(0, b), "-");
    ck_assert_str_eq(lmo_format_time(UINT64_MAX, b), "-");
}
END_TEST

START_TEST(foreign_text__cannot_steer_the_terminal)
{
    char b[64];
    ck_assert_str_eq(lmo_format_safe("\033[2Jhi\r\n\a\x7f", b, sizeof b), "?[2Jhi????");
    ck_assert_str_eq(lmo_format_safe("\xc2\x9b"
                                     "31m",
                                     b, sizeof b),
                     "?31m"); /* C1: the 8-bit CSI */
    ck_assert_str_eq(lmo_format_safe("a\xe2\x80\xae"
                                     "b",
                                     b, sizeof b),
                     "a?b"); /* right-to-left override */
    ck_assert_str_eq(lmo_format_safe("\xff\xfe", b, sizeof b), "??");
    ck_assert_str_eq(lmo_format_safe("\xc0\xaf", b, sizeof b), "??"); /* overlong */
    ck_assert_str_eq(lmo_format_safe("M\xc3\xbcller \xe2\x82\xac", b, sizeof b), "M\xc3\xbcller \xe2\x82\xac");
    ck_assert_str_eq(lmo_format_safe("ab\xc3\xbc", b, 4), "ab"); /* not half a character */
    ck_assert_str_eq(lmo_format_safe(NULL, b, sizeof b), "-");
    ck_assert_uint_eq(lmo_format_width("M\xc3\xbcller"), 6);
}
END_TEST

START_TEST(hosts__are_a_table)
{
    setenv("TZ", "UTC", 1);
    expect(
        lmo_render_hosts,
        "{\"hosts\":[{\"name\":\"hv1\",\"url\":\"https://10.0.0.1:8443\",\"state\":\"up\",\"since_ms\":1795181002123},"
        "{\"name\":\"hypervisor-2\",\"url\":\"https://"
        "10.0.0.2:8443\",\"state\":\"down\",\"last_error\":\"refused\\n\"}]}",
        "NAME          STATE  SINCE                          URL                    LAST ERROR\n"
        "hv1           up     2026-11-20 13:23:22.123 +0000  https://10.0.0.1:8443  -\n"
        "hypervisor-2  down   -                              https://10.0.0.2:8443  refused?\n");
    expect(lmo_render_hosts, "{\"hosts\":[]}", "no hosts; `lmo host add NAME --url URL` adds one\n");
    expect(lmo_render_hosts, "{}", "no hosts; `lmo host add NAME --url URL` adds one\n");
}
END_TEST

START_TEST(guests__are_a_table_with_numbers_on_the_right)
{
    expect(lmo_render_vms,
           "{\"vms\":[{\"uuid\":\"6f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\",\"name\":\"g1\",\"host\":\"hv1\",\"state\":"
           "\"running\",\"memory_bytes\":268435456,\"vcpus\":16,\"volumes\":1,\"ports\":1,\"migration\":null}]}",
           "NAME  HOST  STATE     MEMORY  VCPUS  VOLUMES  PORTS  MIGRATION  UUID\n"
           "g1    hv1   running  256 MiB     16        1      1  -          6f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\n");
}
END_TEST

START_TEST(progress__shows_figures_only_while_memory_moves)
{
    char b[LMO_RENDER_LINE_MAX];
    json_t *j =
        json_loads("{\"phase\":\"precopy\",\"progress\":{\"percent\":42.4,\"total_bytes\":2147483648,"
                   "\"transferred_bytes\":1288490189,\"remaining_bytes\":851443712,\"rate_bytes_per_s\":123731968,"
                   "\"iteration\":1,\"eta_min_ms\":61000,\"eta_max_ms\":125000}}",
                   0, NULL);
    ck_assert_str_eq(lmo_render_progress(j, b), "precopy             42 %  1.2 GiB sent, 812 MiB left, 118 MiB/s, "
                                                "ETA 1 min 1 s to 2 min 5 s");
    json_t *p = json_object_get(j, "progress");
    json_object_set_new(p, "iteration", json_integer(9));
    json_object_set_new(p, "throttle_percent", json_integer(40));
    json_object_set_new(p, "eta_kind", json_string("not_converging"));
    ck_assert_str_eq(lmo_render_progress(j, b), "precopy             42 %  1.2 GiB sent, 812 MiB left, 118 MiB/s, pass 9, "
                                                "throttled 40 %, not converging, ends within 2 min 5 s");
    json_object_set_new(j, "phase", json_string("cutover"));
    ck_assert_str_eq(lmo_render_progress(j, b), "cutover           ");
    json_decref(j);
    ck_assert_str_eq(lmo_render_progress(NULL, b), "                  ");
}
END_TEST

static const char record[] =
    "{\"id\":\"01JABCDEFGHJKMNPQRSTVWXYZ0\",\"version\":12,\"vm\":{\"uuid\":\"6f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\","
    "\"name\":\"g1\"},\"source\":\"hv1\",\"destination\":\"hv2\",\"epoch\":3,\"phase\":\"completed\",\"outcome\":"
    "\"completed\",\"reason\":\"\",\"created_ms\":1795181002000,\"updated_ms\":1795181006310,\"phases\":["
    "{\"name\":\"queued\",\"started_ms\":1795181002000,\"ended_ms\":1795181002003,\"ms\":3.012},"
    "{\"name\":\"precopy\",\"started_ms\":1795181002003,\"ended_ms\":1795181006000,\"ms\":3997},"
    "{\"name\":\"completed\",\"started_ms\":1795181006310,\"ended_ms\":null}],"
    "\"progress\":{\"total_bytes\":268435456,\"transferred_bytes\":209715200,\"remaining_bytes\":0,\"rate_bytes_per_"
    "s\":"
    "104857600,\"dirty_bytes_per_s\":10485760,\"iteration\":3},\"cutover\":{\"suspended_us\":1795181005900000,"
    "\"loaded_us\":1795181005984100,\"frozen_us\":1795181005986000,\"fenced_us\":1795181005986450,\"resumed_us\":"
    "1795181005996400,\"blackout_ms\":96.4,\"loaded_to_resumed_ms\":12.3,\"freeze_answer\":\"frozen\",\"fence_ms\":0."
    "45,"
    "\"verify_ms\":0.3},\"migrate_call_ms\":3900,\"policy\":{\"bandwidth_bytes_per_s\":104857600,\"max_downtime_ms\":"
    "300,"
    "\"convergence_timeout_ms\":60000,\"accept_stateful_loss\":false}}";
static const char journal[] =
    "{\"journal\":[{\"at_ms\":1795181002001,\"phase\":\"queued\",\"what\":\"admitted\",\"why\":\"1 of 4 on hv2\"},"
    "{\"at_ms\":1795181005800,\"phase\":\"precopy\",\"what\":\"gate opened\",\"why\":\"\"},"
    "{\"at_ms\":1795181006310,\"phase\":\"unheard-of\",\"what\":\"noted\"}]}";

START_TEST(show__tells_each_phase_how_long_it_took_and_why)
{
    setenv("TZ", "UTC", 1);
    json_t *m = json_loads(record, 0, NULL), *j = json_loads(journal, 0, NULL);
    ck_assert(m && j);
    char *out = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&out, &len);
    lmo_render_migration(m, j, &plain, f);
    fclose(f);
    ck_assert_str_eq(out,
                     "migration    01JABCDEFGHJKMNPQRSTVWXYZ0\n"
                     "state        completed\n"
                     "guest        g1  6f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\n"
                     "route        hv1 -> hv2, epoch 3\n"
                     "accepted     2026-11-20 13:23:22.000 +0000\n"
                     "took         4.31 s, 3.90 s of it inside the hypervisor's migrate call\n"
                     "memory       256 MiB in all, 200 MiB sent, 0 B left, pass 3, 100 MiB/s, dirtying 10.0 MiB/s\n"
                     "pause        96.4 ms, 12.3 ms of it from loaded to resumed\n"
                     "cutover      suspended, loaded +84.1 ms, frozen +86.0 ms, fenced +86.5 ms, resumed +96.4 ms\n"
                     "freeze       the source answered \"frozen\"; fence 450 us, verified in 300 us\n"
                     "policy       at most 100 MiB/s, pause of at most 300 ms, to converge within 1 min 0 s\n"
                     "\n"
                     "timeline\n"
                     "  +   0.000 s  queued              3.0 ms\n"
                     "  +   0.001 s    admitted: 1 of 4 on hv2\n"
                     "  +   0.003 s  precopy             4.00 s\n"
                     "  +   3.800 s    gate opened\n"
                     "  +   4.310 s  completed           \n"
                     "  +   4.310 s    noted\n");
    free(out);
    json_decref(m);
    json_decref(j);
}
END_TEST

START_TEST(record_of_a_stranger__is_rendered_as_far_as_it_goes)
{
    static const char *const odd[] = {"{}", "{\"id\":7,\"phases\":{},\"vm\":[],\"cutover\":3,\"progress\":\"x\"}",
                                      "{\"phases\":[1,null,{\"name\":null}],\"created_ms\":-5,\"updated_ms\":1e300}",
                                      "{\"progress\":{\"total_bytes\":-1}}"};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        json_t *m = json_loads(odd[i], 0, NULL), *j = json_loads("{\"journal\":[{},7]}", 0, NULL);
        ck_assert(m && j);
        char *out = NULL, b[LMO_RENDER_LINE_MAX];
        size_t len = 0;
        FILE *f = open_memstream(&out, &len);
        lmo_render_migration(m, j, &plain, f);
        lmo_render_vm(m, &plain, f);
        lmo_render_host(m, &plain, f);
        lmo_render_progress(m, b);
        lmo_render_outcome(m, b);
        fclose(f);
        ck_assert_ptr_nonnull(strstr(out, "migration"));
        free(out);
        json_decref(m);
        json_decref(j);
    }
}
END_TEST

START_TEST(migrations__are_a_table_newest_as_the_coordinator_orders_them)
{
    setenv("TZ", "UTC", 1);
    expect(lmo_render_migrations,
           "{\"migrations\":[{\"id\":\"01JABCDEFGHJKMNPQRSTVWXYZ0\",\"vm\":{\"name\":\"g1\"},\"source\":\"hv1\","
           "\"destination\":\"hv2\",\"phase\":\"precopy\",\"outcome\":null,\"progress\":{\"percent\":42},"
           "\"created_ms\":1795181002000,\"updated_ms\":1795181004000}]}",
           "ID                          GUEST  FROM  TO   PHASE    DONE  ACCEPTED                         TOOK\n"
           "01JABCDEFGHJKMNPQRSTVWXYZ0  g1     hv1   hv2  precopy  42 %  2026-11-20 13:23:22.000 +0000  2.00 s\n");
}
END_TEST

START_TEST(queued_migration__says_its_place_and_what_holds_it)
{
    static const char queued[] =
        "{\"id\":\"01JABCDEFGHJKMNPQRSTVWXYZ0\",\"vm\":{\"name\":\"g1\"},\"source\":\"hv1\",\"destination\":\"hv2\","
        "\"phase\":\"queued\",\"outcome\":null,\"queue_position\":3,\"held_by\":{\"limit\":\"incoming\"},"
        "\"waiting_for\":\"an incoming slot of host hv2 (2 of 2 in use); 3rd in line\",\"created_ms\":1795181002000,"
        "\"updated_ms\":1795181002000}";
    char list[1024], b[LMO_RENDER_LINE_MAX];
    setenv("TZ", "UTC", 1);
    snprintf(list, sizeof list, "{\"migrations\":[%s]}", queued);
    expect(lmo_render_migrations, list,
           "ID                          GUEST  FROM  TO   PHASE              DONE  ACCEPTED                       TOOK\n"
           "01JABCDEFGHJKMNPQRSTVWXYZ0  g1     hv1   hv2  queued, 3 in line     -  2026-11-20 13:23:22.000 +0000  0 us\n");
    json_t *j = json_loads(queued, 0, NULL);
    ck_assert_str_eq(lmo_render_progress(j, b), "queued              waiting: an incoming slot of host hv2 (2 of 2 in use); "
                                                "3rd in line");
    json_decref(j);
}
END_TEST

START_TEST(colours__appear_only_where_they_were_allowed)
{
    static const struct lmo_style colourful = {.tty = true, .color = true};
    char *with = rendered(lmo_render_vms, "{\"vms\":[{\"name\":\"g1\"}]}", &colourful);
    char *without = rendered(lmo_render_vms, "{\"vms\":[{\"name\":\"g1\"}]}", &plain);
    ck_assert_ptr_nonnull(strchr(with, '\033'));
    ck_assert_ptr_null(strchr(without, '\033'));
    free(with);
    free(without);
}
END_TEST

Suite *cli_render_suite(void)
{
    Suite *s = suite_create("cli_render");
    TCase *tc = tcase_create("render");
    tcase_add_test(tc, sizes_and_durations__have_as_many_digits_as_they_deserve);
    tcase_add_test(tc, times__are_local_and_name_their_offset);
    tcase_add_test(tc, foreign_text__cannot_steer_the_terminal);
    tcase_add_test(tc, hosts__are_a_table);
    tcase_add_test(tc, guests__are_a_table_with_numbers_on_the_right);
    tcase_add_test(tc, progress__shows_figures_only_while_memory_moves);
    tcase_add_test(tc, show__tells_each_phase_how_long_it_took_and_why);
    tcase_add_test(tc, record_of_a_stranger__is_rendered_as_far_as_it_goes);
    tcase_add_test(tc, migrations__are_a_table_newest_as_the_coordinator_orders_them);
    tcase_add_test(tc, queued_migration__says_its_place_and_what_holds_it);
    tcase_add_test(tc, colours__appear_only_where_they_were_allowed);
    suite_add_tcase(s, tc);
    return s;
}
