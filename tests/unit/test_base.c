/* test_base.c - errors, ids, clock, buffers, files, configuration, JSON, log. */
#include "suites.h"
#include "tmpdir.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/conf.h"
#include "base/fs.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/types.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- errors and names ---- */

START_TEST(error_table__is_dense_and_maps_both_ways)
{
    for (int code = 0; code >= LMO_E_INTERNAL; code--) {
        ck_assert_int_eq(lmo_err_from_name(lmo_err_name(code)), code);
        ck_assert_int_ge(lmo_err_http(code), 200);
    }
    ck_assert_int_eq(lmo_err_from_name("nonsense"), LMO_E_INTERNAL);
    ck_assert_int_eq(lmo_err_from_name(NULL), LMO_E_INTERNAL);
    ck_assert_str_eq(lmo_err_name(-1000), "internal");
    ck_assert_str_eq(lmo_err_name(7), "internal");
    ck_assert_int_eq(lmo_err_class_of(LMO_E_UNKNOWN), LMO_CLASS_UNKNOWN);
    ck_assert_int_eq(lmo_err_class_of(LMO_E_TIMEOUT), LMO_CLASS_UNKNOWN);
}
END_TEST

START_TEST(error_text__is_prefixed_and_cut_at_a_whole_character)
{
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_fail(&err, LMO_E_CONFLICT, "in use by %s", "vm1"), LMO_E_CONFLICT);
    ck_assert_int_eq(lmo_err_prefix(&err, "volume '%s'", "v"), LMO_E_CONFLICT);
    ck_assert_str_eq(err.text, "volume 'v': in use by vm1");
    ck_assert_int_eq(lmo_fail(&err, LMO_E_IO, "again: %s", err.text), LMO_E_IO);
    ck_assert_str_eq(err.text, "again: volume 'v': in use by vm1");
    char longest[2 * LMO_ERR_TEXT_MAX];
    for (size_t i = 0; i + 2 < sizeof longest; i += 2)
        memcpy(longest + i, "\xC3\xA9", 3);
    (void)lmo_fail(&err, LMO_E_IO, "%s", longest);
    json_t *text = json_string(err.text); /* NULL if it were cut inside a character */
    ck_assert_ptr_nonnull(text);
    json_decref(text);
    (void)lmo_fail(&err, LMO_E_IO, "x%s", longest);
    text = json_string(err.text);
    ck_assert_ptr_nonnull(text);
    json_decref(text);
    ck_assert_int_eq(lmo_fail(NULL, LMO_E_IO, "nobody listens"), LMO_E_IO);
}
END_TEST

START_TEST(run_state_names__map_both_ways)
{
    for (int s = 0; s <= LMO_RUN_PAUSED_OTHER; s++)
        ck_assert_int_eq(lmo_run_state_from_name(lmo_run_state_name((enum lmo_run_state)s)), s);
    ck_assert_int_eq(lmo_run_state_from_name("asleep"), LMO_RUN_UNKNOWN);
    ck_assert_str_eq(lmo_run_state_name((enum lmo_run_state)99), "unknown");
}
END_TEST

/* ---- ids ---- */

START_TEST(ulid__holds_its_time_and_rejects_what_is_none)
{
    char id[LMO_ID_MAX], other[LMO_ID_MAX];
    const uint8_t zero[10] = {0};
    uint8_t ones[10];
    memset(ones, 0xFF, sizeof ones);
    lmo_ulid_format(1469918176385, zero, id); /* the time of the specification's example */
    ck_assert_str_eq(id, "01ARYZ6S410000000000000000");
    lmo_ulid_format((UINT64_C(1) << 48) - 1, ones, id);
    ck_assert_str_eq(id, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    uint64_t before = lmo_realtime_us() / 1000;
    lmo_ulid_generate(id);
    lmo_ulid_generate(other);
    ck_assert(lmo_ulid_valid(id));
    ck_assert_str_ne(id, other);
    ck_assert_uint_ge(lmo_ulid_time_ms(id), before);
    ck_assert_uint_le(lmo_ulid_time_ms(id), before + 10000);
    ck_assert(!lmo_ulid_valid("8ZZZZZZZZZZZZZZZZZZZZZZZZZ"));
    ck_assert(!lmo_ulid_valid("01aryz6s410000000000000000"));
    ck_assert(!lmo_ulid_valid("01ARYZ6S41000000000000000"));
    ck_assert(!lmo_ulid_valid("01ARYZ6S41000000000000000U"));
    ck_assert(!lmo_ulid_valid(""));
    ck_assert(!lmo_ulid_valid(NULL));
}
END_TEST

START_TEST(uuid__is_normalised_to_lower_case)
{
    char uuid[LMO_UUID_MAX];
    lmo_uuid_generate(uuid);
    ck_assert(lmo_uuid_valid(uuid));
    ck_assert_int_eq(uuid[14], '4');
    ck_assert_int_eq(lmo_uuid_normalise("6BA7B810-9DAD-11D1-80B4-00C04FD430C8", uuid), 0);
    ck_assert_str_eq(uuid, "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
    ck_assert(!lmo_uuid_valid("6BA7B810-9DAD-11D1-80B4-00C04FD430C8"));
    ck_assert_int_eq(lmo_uuid_normalise("6ba7b810x9dad-11d1-80b4-00c04fd430c8", uuid), LMO_E_INVALID);
    ck_assert_int_eq(lmo_uuid_normalise("6ba7b810-9dad-11d1-80b4-00c04fd430cg", uuid), LMO_E_INVALID);
    ck_assert_int_eq(lmo_uuid_normalise("", uuid), LMO_E_INVALID);
}
END_TEST

START_TEST(names__are_safe_everywhere)
{
    char longest[LMO_NAME_MAX + 1];
    memset(longest, 'a', sizeof longest);
    longest[LMO_NAME_MAX] = '\0';
    ck_assert(!lmo_name_valid(longest));
    longest[LMO_NAME_MAX - 1] = '\0';
    ck_assert(lmo_name_valid(longest));
    ck_assert(lmo_name_valid("hv-1.rack_2"));
    ck_assert(!lmo_name_valid("") && !lmo_name_valid(NULL) && !lmo_name_valid(".hidden") && !lmo_name_valid("-x"));
    ck_assert(!lmo_name_valid("a/b") && !lmo_name_valid("a b") && !lmo_name_valid("a'b") &&
              !lmo_name_valid("\xC3\xA9"));
}
END_TEST

START_TEST(clock__counts_up_and_formats)
{
    char text[LMO_TIMESTAMP_MAX];
    uint64_t a = lmo_now_ns(), b = lmo_now_ns();
    ck_assert_uint_le(a, b);
    ck_assert_uint_eq(lmo_ms_until(a), 0);
    uint64_t left = lmo_ms_until(lmo_now_ns() + 5 * LMO_NS_PER_S);
    ck_assert(left > 4000 && left <= 5000);
    lmo_realtime_format(1769862896123456, text);
    ck_assert_str_eq(text, "2026-01-31T12:34:56.123456Z");
    lmo_realtime_format(UINT64_MAX, text);
    ck_assert_str_eq(text, "9999-12-31T23:59:59.999999Z");
}
END_TEST

/* ---- buffers and files ---- */

START_TEST(buffer__never_passes_its_cap)
{
    LMO_AUTO_BUF struct lmo_buf buf = LMO_BUF_INIT(10);
    ck_assert_str_eq(lmo_buf_text(&buf), "");
    ck_assert_int_eq(lmo_buf_append(&buf, "12345", 5), 0);
    ck_assert_int_eq(lmo_buf_append(&buf, "678901", 6), LMO_E_TOO_LARGE);
    ck_assert_str_eq(lmo_buf_text(&buf), "12345");
    ck_assert_int_eq(lmo_buf_appendf(&buf, "%s-%d", "ab", 42), 0);
    ck_assert_str_eq(lmo_buf_text(&buf), "12345ab-42");
    ck_assert_int_eq(lmo_buf_appendf(&buf, "x"), LMO_E_TOO_LARGE);
    size_t len;
    char *taken = lmo_buf_take(&buf, &len);
    ck_assert_uint_eq(len, 10);
    ck_assert_str_eq(taken, "12345ab-42");
    free(taken);
    ck_assert_int_eq(lmo_buf_append(&buf, "x", SIZE_MAX - 1), LMO_E_TOO_LARGE);
}
END_TEST

START_TEST(files__are_whole_private_and_capped)
{
    char dir[TMPDIR_MAX], path[128];
    struct lmo_err err = {0};
    struct stat st;
    tmpdir_make(dir, "base");
    snprintf(path, sizeof path, "%s/a/b", dir);
    ck_assert_int_eq(lmo_fs_mkdir_p(path, 0700, &err), 0);
    ck_assert_int_eq(lmo_fs_mkdir_p(path, 0700, &err), 0);
    snprintf(path, sizeof path, "%s/a/b/key", dir);
    char *data = NULL;
    size_t len = 0;
    ck_assert_int_eq(lmo_fs_read_file(path, 100, &data, &len, &err), LMO_E_NOT_FOUND);
    ck_assert_int_eq(lmo_fs_write_atomic(path, "secret", 6, 0600, &err), 0);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    ck_assert_int_eq(lmo_fs_check_private(path, &err), 0);
    ck_assert_int_eq(lmo_fs_read_file(path, 6, &data, &len, &err), 0);
    ck_assert_str_eq(data, "secret");
    free(data);
    data = NULL;
    ck_assert_int_eq(lmo_fs_read_file(path, 5, &data, &len, &err), LMO_E_TOO_LARGE);
    ck_assert_ptr_null(data);
    ck_assert_int_eq(lmo_fs_write_atomic(path, "", 0, 0644, &err), 0);
    ck_assert_int_eq(lmo_fs_check_private(path, &err), LMO_E_FORBIDDEN);
    ck_assert_int_eq(lmo_fs_read_file(dir, 100, &data, &len, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_fs_mkdir_p(path, 0700, &err), LMO_E_CONFLICT);
    tmpdir_remove(dir);
}
END_TEST

START_TEST(lock__is_refused_to_a_second_process_with_the_first_ones_pid)
{
    char dir[TMPDIR_MAX], path[128], expected[64];
    struct lmo_err err = {0};
    int fd = -1, again = -1;
    tmpdir_make(dir, "base");
    snprintf(path, sizeof path, "%s/lock", dir);
    ck_assert_int_eq(lmo_fs_lock(path, 0600, &fd, &err), 0);
    ck_assert_int_eq(lmo_fs_lock(path, 0600, &again, &err), LMO_E_BUSY);
    snprintf(expected, sizeof expected, "pid %d", (int)getpid());
    ck_assert_ptr_nonnull(strstr(err.text, expected));
    ck_assert_int_eq(again, -1);
    close(fd);
    ck_assert_int_eq(lmo_fs_lock(path, 0600, &again, &err), 0);
    close(again);
    tmpdir_remove(dir);
}
END_TEST

/* ---- configuration ---- */

static const struct lmo_conf_key keys[] = {
    {.section = "http", .key = "listen", .type = LMO_CONF_ADDRESS, .required = true, .help = "where to listen"},
    {.section = "http", .key = "connections", .type = LMO_CONF_UINT, .default_value = "256", .min = 1, .max = 1000},
    {.section = "http", .key = "json_log", .type = LMO_CONF_BOOL},
    {.section = "volume *", .key = "path", .type = LMO_CONF_PATH, .required = true},
    {.section = "volume *", .key = "note", .type = LMO_CONF_STRING, .max = 10, .default_value = "none"},
};
#define KEY_COUNT (sizeof keys / sizeof keys[0])

START_TEST(configuration__gives_values_and_defaults)
{
    struct lmo_err err = {0};
    LMO_AUTO_CONF struct lmo_conf *conf = NULL;
    const char *text = "# comment\n[http]\r\nlisten = [::1]:8443 \n json_log=yes\n\n[volume fast]\npath=/srv/fast\n"
                       "note = a=b\n[volume slow]\n; another\npath = /srv/slow";
    ck_assert_msg(lmo_conf_parse(text, "test", keys, KEY_COUNT, &conf, &err) == 0, "%s", err.text);
    ck_assert_str_eq(lmo_conf_str(conf, "http", "listen"), "[::1]:8443");
    ck_assert_uint_eq(lmo_conf_uint(conf, "http", "connections"), 256);
    ck_assert(!lmo_conf_is_set(conf, "http", "connections"));
    ck_assert(lmo_conf_bool(conf, "http", "json_log"));
    ck_assert_str_eq(lmo_conf_str(conf, "volume fast", "note"), "a=b");
    ck_assert_str_eq(lmo_conf_str(conf, "volume slow", "note"), "none");
    ck_assert_str_eq(lmo_conf_section_at(conf, 2), "volume slow");
    ck_assert_ptr_null(lmo_conf_section_at(conf, 3));
    ck_assert_str_eq(lmo_conf_section_name("volume slow", "volume"), "slow");
    ck_assert_ptr_null(lmo_conf_section_name("http", "volume"));
}
END_TEST

START_TEST(configuration_error__names_the_place_and_what_is_right)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"[http]\nconnections=5\n", "test: [http] listen is missing: where to listen"},
        {"[http]\nlisten=1.2.3.4:8443\nconnections=0\n",
         "test:3: [http] connections: '0' is not a whole number from 1 to 1000"},
        {"[http]\nlisten=1.2.3.4:8443\nconnections=1001\n", "from 1 to 1000"},
        {"[http]\nlisten=1.2.3.4:8443\nconnections=-1\n", "'-1' is not a whole number"},
        {"[http]\nlisten=1.2.3.4\n", "is not an address"},
        {"[http]\nlisten=::1:80\n", "is not an address"},
        {"[http]\nlisten=a:65536\n", "is not an address"},
        {"[http]\nlisten=a:1\nlisten=a:2\n", "test:3: key 'listen' is there twice in [http]"},
        {"[http]\nlisten=a:1\n[http]\n", "section [http] is there twice"},
        {"[http]\nlisten=a:1\nlissten=a:1\n", "test:3: unknown key 'lissten' in [http]"},
        {"[htp]\n", "test:1: unknown section [htp]"},
        {"[http\n", "ends with ']'"},
        {"listen=a:1\n", "before the first [section]"},
        {"[http]\nlisten\n", "neither a section"},
        {"[http]\nlisten=a:1\njson_log=maybe\n", "'maybe' is not yes or no"},
        {"[http]\nlisten=a:1 # here\n", "a comment must stand on a line of its own"},
        {"[http]\nlisten=a:1\n[volume a]\nnote=x\n", "test: [volume a] path is missing"},
        {"[http]\nlisten=a:1\n[volume a]\npath=x\n", "'x' is not an absolute path"},
        {"[http]\nlisten=a:1\n[volume a]\npath=/x\nnote=12345678901\n", "must have 0 to 10 bytes"},
        {"[http]\nlisten=a:1\n[volume a/b]\npath=/x\n", "'a/b' is not a valid name"},
        {"[http]\nlisten=a:1\n[volume]\npath=/x\n", "unknown section [volume]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_err err = {0};
        struct lmo_conf *conf = NULL;
        ck_assert_int_eq(lmo_conf_parse(cases[i].text, "test", keys, KEY_COUNT, &conf, &err), LMO_E_INVALID);
        ck_assert_msg(strstr(err.text, cases[i].expected), "case %zu: '%s' lacks '%s'", i, err.text, cases[i].expected);
        ck_assert_ptr_null(conf);
    }
}
END_TEST

/* ---- JSON ---- */

START_TEST(json__reads_fields_and_names_the_wrong_one)
{
    LMO_AUTO_JSON json_t *root = NULL;
    struct lmo_err err = {0};
    const char *text =
        "{\"name\":\"vm1\",\"memory\":4096,\"live\":true,\"none\":null,\"list\":[1,2,3],\"sub\":{\"x\":-5}}";
    ck_assert_int_eq(lmo_json_parse_object(text, strlen(text), 1000, &root, &err), 0);
    char name[8] = "before";
    uint64_t memory = 1;
    uint32_t small = 7;
    bool live = false;
    const json_t *list = NULL, *sub = NULL;
    int64_t x = 0;
    ck_assert_int_eq(lmo_json_str(root, "name", name, sizeof name, true, &err), 0);
    ck_assert_str_eq(name, "vm1");
    ck_assert_int_eq(lmo_json_u64(root, "memory", 1, UINT64_MAX, &memory, true, &err), 0);
    ck_assert_uint_eq(memory, 4096);
    ck_assert_int_eq(lmo_json_bool(root, "live", &live, true, &err), 0);
    ck_assert(live);
    ck_assert_int_eq(lmo_json_array(root, "list", 3, &list, true, &err), 0);
    ck_assert_int_eq(lmo_json_object(root, "sub", &sub, true, &err), 0);
    ck_assert_int_eq(lmo_json_i64(sub, "x", -10, 10, &x, true, &err), 0);
    ck_assert_int_eq((int)x, -5);

    ck_assert_int_eq(lmo_json_u32(root, "absent", 0, 10, &small, false, &err), 0);
    ck_assert_int_eq(lmo_json_u32(root, "none", 0, 10, &small, false, &err), 0);
    ck_assert_uint_eq(small, 7);
    ck_assert_int_eq(lmo_json_u32(root, "memory", 0, 10, &small, false, &err), LMO_E_INVALID);
    ck_assert_str_eq(err.text, "field 'memory': must be an integer from 0 to 10");
    ck_assert_int_eq(lmo_json_u64(root, "absent", 0, 10, &memory, true, &err), LMO_E_INVALID);
    ck_assert_str_eq(err.text, "field 'absent' is missing");
    ck_assert_int_eq(lmo_json_u64(sub, "x", 0, 10, &memory, true, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_json_str(root, "name", name, 3, true, &err), LMO_E_INVALID);
    ck_assert_str_eq(err.text, "field 'name': must be a text of at most 2 bytes");
    ck_assert_int_eq(lmo_json_str(root, "live", name, sizeof name, true, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_json_array(root, "list", 2, &list, true, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_json_str(list, "x", name, sizeof name, true, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_json_known(root, (const char *[]){"name", "memory", "live", "none", "list", NULL}, &err),
                     LMO_E_INVALID);
    ck_assert_str_eq(err.text, "unknown field 'sub'");
}
END_TEST

START_TEST(json__is_capped_before_it_is_parsed)
{
    struct lmo_err err = {0};
    json_t *root = NULL;
    ck_assert_int_eq(lmo_json_parse("[1]", 3, 2, &root, &err), LMO_E_TOO_LARGE);
    char deep[2 * LMO_JSON_DEPTH_MAX + 4] = "";
    memset(deep, '[', LMO_JSON_DEPTH_MAX);
    memset(deep + LMO_JSON_DEPTH_MAX, ']', LMO_JSON_DEPTH_MAX);
    ck_assert_int_eq(lmo_json_parse(deep, strlen(deep), 1000, &root, &err), 0);
    json_decref(root);
    memset(deep, '[', LMO_JSON_DEPTH_MAX + 1);
    memset(deep + LMO_JSON_DEPTH_MAX + 1, ']', LMO_JSON_DEPTH_MAX + 1);
    ck_assert_int_eq(lmo_json_parse(deep, strlen(deep), 1000, &root, &err), LMO_E_TOO_LARGE);
    const char *quoted = "[\"[[[[[[[[[[[[[[[[[[\\\"[[[[\"]";
    ck_assert_int_eq(lmo_json_parse(quoted, strlen(quoted), 1000, &root, &err), 0);
    json_decref(root);
    static const char *const bad[] = {"",     "{",  "{\"a\":1,\"a\":2}", "{} x", "5", "{\"a\":1e999}", "[\"\xff\"]",
                                      "[1,]", "nul"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_int_eq(lmo_json_parse(bad[i], strlen(bad[i]), 1000, &root, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_json_parse_object("[]", 2, 1000, &root, &err), LMO_E_INVALID);
}
END_TEST

START_TEST(json__is_built_and_dumped)
{
    LMO_AUTO_JSON json_t *root = json_object();
    json_t *list = json_array();
    int r = lmo_json_put_str(root, "name", "v\"1");
    r |= lmo_json_put_u64(root, "n", 42);
    r |= lmo_json_put_bool(root, "b", false);
    r |= lmo_json_add(list, json_integer(1));
    r |= lmo_json_put(root, "list", list);
    ck_assert_int_eq(r, 0);
    ck_assert_int_lt(lmo_json_put_str(root, "bad", "\xff"), 0);
    ck_assert_int_lt(lmo_json_put_u64(root, "big", UINT64_MAX), 0);
    ck_assert_int_lt(lmo_json_put_str(NULL, "x", "y"), 0);
    char *text = NULL;
    size_t len = 0;
    ck_assert_int_eq(lmo_json_dump(root, &text, &len, NULL), 0);
    ck_assert_str_eq(text, "{\"name\":\"v\\\"1\",\"n\":42,\"b\":false,\"list\":[1]}");
    ck_assert_uint_eq(len, strlen(text));
    free(text);
    ck_assert_int_lt(lmo_json_dump(NULL, &text, &len, NULL), 0);
}
END_TEST

/* ---- log ---- */

/* Sends one log line into a pipe and returns it. */
#define LOGGED(...)                                                                   \
    __extension__({                                                                   \
        int ends_[2];                                                                 \
        ck_assert_int_eq(pipe(ends_), 0);                                             \
        lmo_log_set_fd(ends_[1]);                                                     \
        lmo_log_set_level(LMO_LOG_INFO);                                              \
        lmo_log(__VA_ARGS__);                                                         \
        lmo_log_set_fd(2);                                                            \
        close(ends_[1]);                                                              \
        ssize_t n_ = read(ends_[0], line, sizeof line - 1);                           \
        close(ends_[0]);                                                              \
        line[n_ > 0 ? n_ : 0] = '\0';                                                 \
        n_ > 0 ? strstr(line, " event=") ? strstr(line, " event=") + 1 : line : line; \
    })

START_TEST(log_line__quotes_what_needs_it)
{
    const char *volatile nothing = NULL; /* out of the compiler's sight */
    static char line[2 * LMO_LOG_LINE_MAX];
    ck_assert_str_eq(LOGGED(LMO_LOG_INFO, "started", "a=%d b=%s c=%s d=%llu%% e=%.2f f=%zu g=%x", -5, "plain",
                            "two words", (unsigned long long)99, 1.5, (size_t)7, 255U),
                     "event=started a=-5 b=plain c=\"two words\" d=99% e=1.50 f=7 g=ff\n");
    ck_assert_str_eq(LOGGED(LMO_LOG_WARN, "odd values", "a=%s b=%s c=%s d=%.*s peer=%s:%u", "x\ny level=error", "",
                            nothing, 2, "abcd", "1.2.3.4", 80U),
                     "event=\"odd values\" a=\"x\\ny level=error\" b=\"\" c=(null) d=ab peer=1.2.3.4:80\n");
    ck_assert_str_eq(LOGGED(LMO_LOG_INFO, "bytes", "a=%s b=%s", "\xff\x01", "caf\xC3\xA9"),
                     "event=bytes a=\"\xEF\xBF\xBD\\u0001\" b=\"caf\xC3\xA9\"\n");
    ck_assert_str_eq(LOGGED(LMO_LOG_INFO, "alone", "%s", ""), "event=alone\n");
    ck_assert_str_eq(LOGGED(LMO_LOG_DEBUG, "hidden", "a=%d", 1), "");
}
END_TEST

START_TEST(log_line__is_json_by_a_switch)
{
    static char line[2 * LMO_LOG_LINE_MAX];
    lmo_log_set_json(true);
    const char *text = LOGGED(LMO_LOG_ERROR, "the \"event\"", "n=%d t=%s z=%05d m=%d/%d f=%.1f big=%s", -7, "a\"b", 3,
                              1, 2, 0.5, "\xC3");
    lmo_log_set_json(false);
    LMO_AUTO_JSON json_t *root = json_loads(text, 0, NULL);
    ck_assert_msg(root != NULL, "%s", text);
    ck_assert_str_eq(json_string_value(json_object_get(root, "level")), "error");
    ck_assert_str_eq(json_string_value(json_object_get(root, "event")), "the \"event\"");
    ck_assert_int_eq((int)json_integer_value(json_object_get(root, "n")), -7);
    ck_assert_str_eq(json_string_value(json_object_get(root, "t")), "a\"b");
    ck_assert_str_eq(json_string_value(json_object_get(root, "z")), "00003");
    ck_assert_str_eq(json_string_value(json_object_get(root, "m")), "1/2");
    ck_assert(json_real_value(json_object_get(root, "f")) == 0.5);
    ck_assert_int_eq(text[strlen(text) - 1], '\n');
}
END_TEST

START_TEST(log_line__is_cut_between_pairs)
{
    static char line[2 * LMO_LOG_LINE_MAX], value[LMO_LOG_LINE_MAX];
    memset(value, 'x', sizeof value - 1);
    const char *text = LOGGED(LMO_LOG_INFO, "long", "a=1 b=%s c=%s d=%s", value, value, "last");
    ck_assert_uint_le(strlen(line), LMO_LOG_LINE_MAX);
    ck_assert_ptr_nonnull(strstr(text, " truncated=true\n"));
    ck_assert_ptr_null(strstr(text, "last"));
    lmo_log_set_json(true);
    text = LOGGED(LMO_LOG_INFO, "long", "a=1 b=%s c=%s d=%s", value, value, "last");
    lmo_log_set_json(false);
    LMO_AUTO_JSON json_t *root = json_loads(text, 0, NULL);
    ck_assert_msg(root != NULL, "%s", text);
    ck_assert(json_is_true(json_object_get(root, "truncated")));
}
END_TEST

Suite *base_suite(void)
{
    Suite *suite = suite_create("base");
    TCase *tc = tcase_create("base");
    tcase_add_test(tc, error_table__is_dense_and_maps_both_ways);
    tcase_add_test(tc, error_text__is_prefixed_and_cut_at_a_whole_character);
    tcase_add_test(tc, run_state_names__map_both_ways);
    tcase_add_test(tc, ulid__holds_its_time_and_rejects_what_is_none);
    tcase_add_test(tc, uuid__is_normalised_to_lower_case);
    tcase_add_test(tc, names__are_safe_everywhere);
    tcase_add_test(tc, clock__counts_up_and_formats);
    tcase_add_test(tc, buffer__never_passes_its_cap);
    tcase_add_test(tc, files__are_whole_private_and_capped);
    tcase_add_test(tc, lock__is_refused_to_a_second_process_with_the_first_ones_pid);
    tcase_add_test(tc, configuration__gives_values_and_defaults);
    tcase_add_test(tc, configuration_error__names_the_place_and_what_is_right);
    tcase_add_test(tc, json__reads_fields_and_names_the_wrong_one);
    tcase_add_test(tc, json__is_capped_before_it_is_parsed);
    tcase_add_test(tc, json__is_built_and_dumped);
    tcase_add_test(tc, log_line__quotes_what_needs_it);
    tcase_add_test(tc, log_line__is_json_by_a_switch);
    tcase_add_test(tc, log_line__is_cut_between_pairs);
    suite_add_tcase(suite, tc);
    return suite;
}
