/* test_cli_top.c - the picture that `lmo top` draws, and the keys that it understands. */
#include "cli/term.h"
#include "cli/top_view.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

Suite *cli_top_suite(void);

struct picture {
    char text[32768];
    size_t used, lines, widest;
};

static void take(void *arg, enum lmo_color color, const char *text)
{
    struct picture *p = arg;
    size_t width = lmo_format_width(text);
    (void)color;
    p->used += (size_t)snprintf(p->text + p->used, sizeof p->text - p->used, "%s\n", text);
    p->lines++;
    p->widest = width > p->widest ? width : p->widest;
}

static struct lmo_top_model model(unsigned migrations)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < migrations; i++) {
        char id[32], name[32];
        snprintf(id, sizeof id, "01J%04u", i);
        snprintf(name, sizeof name, "guest-%u", migrations - i);
        json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s, s:s, s:s, s:n, s:I, s:{s:f, s:I, s:I, s:I, s:I}}",
                                              "id", id, "vm", "name", name, "source", "hv1", "destination", "hv2",
                                              "phase", i % 2 ? "precopy" : "queued", "outcome", "created_ms",
                                              (json_int_t)1000, "progress", "percent", (double)i, "total_bytes",
                                              (json_int_t)(64 << 20), "rate_bytes_per_s", (json_int_t)(i << 20),
                                              "remaining_bytes", (json_int_t)(1 << 20), "eta_max_ms",
                                              (json_int_t)(100000 - 1000 * (json_int_t)i)));
    }
    return (struct lmo_top_model){
        .hosts = json_loads(
            "{\"hosts\":[{\"name\":\"hv1\",\"state\":\"up\",\"in_use\":{\"incoming\":1,\"outgoing\":0},\"limits\":"
            "{\"max_incoming\":2,\"max_outgoing\":2}},{\"name\":\"hv2\",\"state\":\"down\",\"last_error\":\"gone\"}]}",
            0, NULL),
        .migrations = json_pack("{s:o}", "migrations", list),
        .drains = json_loads("{\"drains\":[{\"id\":\"01D\",\"state\":\"running\",\"percent\":40},{\"id\":\"01E\","
                             "\"state\":\"drained\"}]}",
                             0, NULL),
        .at_ms = 61000};
}

static struct picture drawn(const struct lmo_top_model *m, struct lmo_top_view *v)
{
    struct picture p = {0};
    v->where = v->where ? v->where : "prod";
    v->now_ms = 61000;
    lmo_top_draw(m, v, take, &p);
    return p;
}

static size_t at(const char *text, const char *part)
{
    const char *found = strstr(text, part);
    ck_assert_msg(found != NULL, "%s is not in:\n%s", part, text);
    return (size_t)(found - text);
}

START_TEST(picture__shows_hosts_drains_and_open_migrations)
{
    struct lmo_top_model m = model(4);
    struct lmo_top_view v = {0};
    struct picture p = drawn(&m, &v);
    at(p.text, "2 hosts, 1 up; 4 open migrations, 2 queued, 2 sending 4.0 MiB/s");
    ck_assert_uint_lt(at(p.text, "hv2   down"), at(p.text, "hv1   up")); /* what needs looking at comes first */
    at(p.text, "gone");
    at(p.text, "1/2");
    at(p.text, "40 %");
    ck_assert_ptr_null(strstr(p.text, "01E")); /* it has ended */
    ck_assert_ptr_null(strstr(p.text, "q quit"));
    lmo_top_model_release(&m);
}
END_TEST

START_TEST(picture__is_never_larger_than_the_screen)
{
    struct lmo_top_model m = model(100);
    static const unsigned widths[] = {1, 10, 24, 40, 80, 200}, heights[] = {1, 2, 3, 5, 8, 13, 24, 60, 200};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        for (size_t j = 0; j < sizeof heights / sizeof heights[0]; j++) {
            struct lmo_top_view v = {.width = widths[i], .height = heights[j], .interactive = true};
            struct picture p = drawn(&m, &v);
            ck_assert_uint_le(p.lines, heights[j]);
            ck_assert_uint_le(p.widest, widths[i]);
            if (heights[j] > 1 && widths[i] >= 24)
                at(p.text, "q quit");
        }
    }
    lmo_top_model_release(&m);
}
END_TEST

START_TEST(scrolling__stops_at_the_last_one_and_shows_each_once)
{
    struct lmo_top_model m = model(50);
    struct lmo_top_view v = {.width = 120, .height = 24, .interactive = true, .offset = SIZE_MAX / 2};
    struct picture p = drawn(&m, &v);
    at(p.text, "guest-1 ");
    at(p.text, " 0 below");
    ck_assert_uint_lt(v.offset, 50);
    bool seen[51] = {false};
    for (v.offset = 0; v.offset < 50; v.offset++) {
        size_t wanted = v.offset;
        p = drawn(&m, &v);
        for (unsigned g = 1; g <= 50; g++) {
            char name[32];
            snprintf(name, sizeof name, "\nguest-%u ", g);
            seen[g] |= strstr(p.text, name) != NULL;
        }
        if (v.offset < wanted)
            break; /* at the end */
    }
    for (unsigned g = 1; g <= 50; g++)
        ck_assert_msg(seen[g], "guest-%u", g);
    lmo_top_model_release(&m);
}
END_TEST

START_TEST(orders_and_filter__do_what_they_are_called)
{
    struct lmo_top_model m = model(4);
    static const struct {
        enum lmo_top_sort sort;
        const char *first, *second;
    } cases[] = {
        {LMO_TOP_BY_AGE, "\nguest-4 ", "\nguest-1 "},      {LMO_TOP_BY_NAME, "\nguest-1 ", "\nguest-4 "},
        {LMO_TOP_BY_PROGRESS, "\nguest-1 ", "\nguest-4 "}, {LMO_TOP_BY_ETA, "\nguest-1 ", "\nguest-4 "},
        {LMO_TOP_BY_RATE, "\nguest-1 ", "\nguest-4 "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_top_view v = {.sort = cases[i].sort};
        struct picture p = drawn(&m, &v);
        ck_assert_uint_lt(at(p.text, cases[i].first), at(p.text, cases[i].second));
    }
    struct lmo_top_view v = {.filter = "GUEST-2"};
    struct picture p = drawn(&m, &v);
    at(p.text, "guest-2");
    ck_assert_ptr_null(strstr(p.text, "guest-3"));
    ck_assert_ptr_null(strstr(p.text, "hv1   up"));
    lmo_top_model_release(&m);
}
END_TEST

START_TEST(attention__comes_first_and_what_was_heard_before_is_called_old)
{
    struct lmo_top_model m = model(3);
    json_t *one = json_array_get(json_object_get(m.migrations, "migrations"), 2);
    json_object_set_new(one, "outcome", json_string("attention"));
    json_object_set_new(one, "reason", json_string("nobody knows"));
    m.at_ms = 31000;
    snprintf(m.problem, sizeof m.problem, "no answer");
    struct lmo_top_view v = {0};
    struct picture p = drawn(&m, &v);
    at(p.text, "1 need a person");
    at(p.text, "30.00 s old: no answer");
    ck_assert_uint_lt(at(p.text, "attention"), at(p.text, "queued "));
    at(p.text, "nobody knows");
    lmo_top_model_release(&m);
    struct lmo_top_model none = {0};
    struct picture empty = drawn(&none, &v);
    at(empty.text, "nothing heard yet");
}
END_TEST

START_TEST(names_from_the_coordinator__cannot_steer_the_terminal)
{
    struct lmo_top_model m = {
        .hosts =
            json_loads("{\"hosts\":[{\"name\":\"hv1\\u001b[2J\",\"state\":\"down\",\"last_error\":\"\\u009b31m\\n\"}]}",
                       0, NULL),
        .migrations = json_loads(
            "{\"migrations\":[{\"id\":\"1\",\"vm\":{\"name\":\"\\u001b]0;x\\u0007\"},\"phase\":\"precopy\"}]}", 0,
            NULL),
        .at_ms = 1};
    struct lmo_top_view v = {.where = "x"};
    struct picture p = drawn(&m, &v);
    ck_assert_ptr_null(strchr(p.text, 0x1b));
    ck_assert_ptr_null(strchr(p.text, 0x07));
    ck_assert_ptr_null(strstr(p.text, "\xc2\x9b"));
    lmo_top_model_release(&m);
}
END_TEST

START_TEST(keys__are_read_one_by_one)
{
    static const char typed[] = "a\x1b[A\x1bOB\x1b[5~\x1b[1;5C\xc3\xa9\r\x7f\x1b";
    static const enum lmo_key want[] = {LMO_KEY_TEXT, LMO_KEY_UP,    LMO_KEY_DOWN,      LMO_KEY_PAGE_UP, LMO_KEY_OTHER,
                                        LMO_KEY_TEXT, LMO_KEY_ENTER, LMO_KEY_BACKSPACE, LMO_KEY_ESCAPE,  LMO_KEY_NONE};
    char text[8];
    size_t used = 0;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        ck_assert_int_eq(lmo_term_key(typed, sizeof typed - 1, &used, text), want[i]);
        if (i == 5)
            ck_assert_str_eq(text, "\xc3\xa9");
    }
    ck_assert_uint_eq(used, sizeof typed - 1);
}
END_TEST

Suite *cli_top_suite(void)
{
    Suite *s = suite_create("cli_top");
    TCase *tc = tcase_create("top");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, picture__shows_hosts_drains_and_open_migrations);
    tcase_add_test(tc, picture__is_never_larger_than_the_screen);
    tcase_add_test(tc, scrolling__stops_at_the_last_one_and_shows_each_once);
    tcase_add_test(tc, orders_and_filter__do_what_they_are_called);
    tcase_add_test(tc, attention__comes_first_and_what_was_heard_before_is_called_old);
    tcase_add_test(tc, names_from_the_coordinator__cannot_steer_the_terminal);
    tcase_add_test(tc, keys__are_read_one_by_one);
    suite_add_tcase(s, tc);
    return s;
}
