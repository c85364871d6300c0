/* test_ovsdb.c - the OVSDB client: framing and values alone, then against a scripted peer that misbehaves, then
 * against a real ovsdb-server. */
#include "ovsdb_server.h"
#include "suites.h"

#include "base/clock.h"
#include "base/json.h"
#include "workers/drivers/ovsdb.h"
#include "workers/drivers/ovsdb_json.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SB_SCHEMA "/usr/share/ovn/ovn-sb.ovsschema"

static uint64_t in_ms(uint64_t ms)
{
    return lmo_now_ns() + ms * LMO_NS_PER_MS;
}

/* ------------------------------------------------------------------ framing */

START_TEST(messages_are_found_whatever_the_reads_cut)
{
    static const char stream[] = "{\"a\":[1,{\"b\":\"}]{\\\"\"}]} \n{} {\"c\":\"\\\\\"}";
    static const char *const expected[] = {"{\"a\":[1,{\"b\":\"}]{\\\"\"}]}", "{}", "{\"c\":\"\\\\\"}"};
    for (size_t step = 1; step < sizeof stream; step++) {
        struct lmo_ovsdb_framer f = {.max_bytes = 100};
        size_t found = 0;
        for (size_t at = 0; at < sizeof stream - 1; at += step) {
            size_t n = sizeof stream - 1 - at < step ? sizeof stream - 1 - at : step, len;
            const char *text;
            ck_assert_int_eq(lmo_ovsdb_framer_add(&f, stream + at, n), 0);
            while (lmo_ovsdb_framer_next(&f, &text, &len) == 1) {
                ck_assert_uint_lt(found, 3);
                ck_assert_uint_eq(len, strlen(expected[found]));
                ck_assert_mem_eq(text, expected[found], len);
                found++;
            }
        }
        ck_assert_uint_eq(found, 3);
        lmo_ovsdb_framer_reset(&f);
    }
}
END_TEST

static int frame(const char *stream, size_t max_bytes)
{
    struct lmo_ovsdb_framer f = {.max_bytes = max_bytes};
    const char *text;
    size_t len;
    int r = lmo_ovsdb_framer_add(&f, stream, strlen(stream));
    if (r == 0)
        r = lmo_ovsdb_framer_next(&f, &text, &len);
    lmo_ovsdb_framer_reset(&f);
    return r;
}

START_TEST(a_stream_that_is_not_objects_or_too_large_is_refused)
{
    ck_assert_int_eq(frame("[1]", 100), LMO_E_INVALID);
    ck_assert_int_eq(frame("HTTP/1.1 400", 100), LMO_E_INVALID);
    ck_assert_int_eq(frame("{\"a\":\"0123456789012345678901234567890123456789", 20), LMO_E_TOO_LARGE);
    char deep[200] = "{\"a\":";
    memset(deep + 5, '[', 100);
    ck_assert_int_eq(frame(deep, 1000), LMO_E_TOO_LARGE);
    ck_assert_int_eq(frame("{\"a\":", 100), 0);
}
END_TEST

/* ------------------------------------------------------------------ values */

static json_t *parse(const char *text)
{
    json_t *v = json_loads(text, JSON_DECODE_ANY, NULL);
    ck_assert_ptr_nonnull(v);
    return v;
}

static void check_diff(const char *old, const char *diff, const char *expected)
{
    LMO_AUTO_JSON json_t *o = old ? parse(old) : NULL, *d = parse(diff), *e = parse(expected);
    LMO_AUTO_JSON json_t *got = lmo_ovsdb_apply_diff(o, d);
    ck_assert_msg(json_equal(got, e), "%s + %s", old ? old : "nothing", diff);
}

START_TEST(differences_of_sets_and_maps_are_applied)
{
    check_diff(NULL, "[\"uuid\",\"a\"]", "[\"set\",[[\"uuid\",\"a\"]]]");
    check_diff("[\"uuid\",\"a\"]", "[\"uuid\",\"a\"]", "[\"set\",[]]");
    check_diff("[\"set\",[1,2,3]]", "[\"set\",[2,4]]", "[\"set\",[1,3,4]]");
    check_diff("[\"map\",[[\"k\",\"1\"],[\"l\",\"2\"]]]", "[\"map\",[[\"k\",\"9\"],[\"l\",\"2\"],[\"m\",\"3\"]]]",
               "[\"map\",[[\"k\",\"9\"],[\"m\",\"3\"]]]");
    check_diff(NULL, "[\"map\",[[\"k\",\"1\"]]]", "[\"map\",[[\"k\",\"1\"]]]");
}
END_TEST

START_TEST(values_of_another_shape_read_as_nothing)
{
    LMO_AUTO_JSON json_t *map = parse("[\"map\",[[\"k\",\"v\"]]]"),
                         *set = parse("[\"set\",[[\"uuid\",\"u\"],[\"uuid\",\"w\"]]]"),
                         *one = parse("[\"uuid\",\"u\"]"), *none = parse("[\"set\",[]]"), *odd = parse("[\"set\",3]");
    int64_t n = 7;
    ck_assert_str_eq(lmo_ovsdb_map_get(map, "k"), "v");
    ck_assert_ptr_null(lmo_ovsdb_map_get(map, "x"));
    ck_assert_ptr_null(lmo_ovsdb_map_get(set, "k"));
    ck_assert_ptr_null(lmo_ovsdb_map_get(NULL, "k"));
    ck_assert_uint_eq(lmo_ovsdb_set_size(set), 2);
    ck_assert_uint_eq(lmo_ovsdb_set_size(one), 1);
    ck_assert_uint_eq(lmo_ovsdb_set_size(none), 0);
    ck_assert_uint_eq(lmo_ovsdb_set_size(map), 0);
    ck_assert_str_eq(lmo_ovsdb_uuid(one), "u");
    ck_assert_ptr_null(lmo_ovsdb_uuid(set));
    ck_assert(lmo_ovsdb_set_has_uuid(set, "w"));
    ck_assert(!lmo_ovsdb_set_has_uuid(odd, "w"));
    ck_assert(!lmo_ovsdb_integer(one, &n));
    ck_assert_int_eq(n, 7);
    ck_assert(!lmo_ovsdb_true(NULL));
}
END_TEST

/* ------------------------------------------------------------------ a peer that misbehaves */

#define SCHEMA_REPLY                                                                                                   \
    "{\"id\":\"schema\",\"error\":null,\"result\":{\"version\":\"1\",\"tables\":{\"T\":{\"columns\":{\"c\":{\"type\":" \
    "\"string\"},\"s\":{\"type\":{\"key\":\"string\",\"min\":0,\"max\":\"unlimited\"}}}}}}}"

/* Accepts connections one after another and calls `serve` for each until told to end. */
struct peer {
    char path[64], remote[80];
    int listener;
    pthread_t thread;
    void (*serve)(int fd, unsigned number);
};

/* Reads one message as text; false at the end of the connection. */
static bool peer_read(int fd, char *text, size_t size)
{
    size_t len = 0;
    int depth = 0;
    do {
        if (len + 1 == size || recv(fd, text + len, 1, 0) != 1)
            return false;
        depth += (text[len] == '{') - (text[len] == '}');
        len++;
    } while (depth > 0);
    text[len] = '\0';
    return true;
}

static void peer_write(int fd, const char *text)
{
    (void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* Answers the first message, which must ask for the schema. */
static bool peer_greet(int fd)
{
    char text[4096];
    if (!peer_read(fd, text, sizeof text))
        return false;
    ck_assert_ptr_nonnull(strstr(text, "get_schema"));
    peer_write(fd, SCHEMA_REPLY);
    return true;
}

static void *peer_main(void *arg)
{
    struct peer *p = arg;
    for (unsigned n = 0;; n++) {
        int fd = accept(p->listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        p->serve(fd, n);
        close(fd);
    }
}

static void peer_start(struct peer *p, void (*serve)(int fd, unsigned number))
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    (void)snprintf(p->path, sizeof p->path, "/tmp/lmo-peer-%d", (int)getpid());
    (void)snprintf(p->remote, sizeof p->remote, "unix:%s", p->path);
    (void)snprintf(un.sun_path, sizeof un.sun_path, "%s", p->path);
    (void)unlink(p->path);
    p->serve = serve;
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(p->listener, (struct sockaddr *)&un, sizeof un), 0);
    ck_assert_int_eq(listen(p->listener, 4), 0);
    ck_assert_int_eq(pthread_create(&p->thread, NULL, peer_main, p), 0);
}

static void peer_stop(struct peer *p)
{
    (void)shutdown(p->listener, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->listener);
    (void)unlink(p->path);
}

static const struct lmo_ovsdb_need peer_needs[] = {{"T", "c"}, {"T", "s"}};

static struct lmo_ovsdb *open_peer(const struct peer *p, uint64_t probe_ms, size_t max_bytes)
{
    struct lmo_ovsdb_config cfg = {.name = "peer",
                                   .remotes = p->remote,
                                   .database = "D",
                                   .needs = peer_needs,
                                   .need_count = 2,
                                   .probe_ms = probe_ms,
                                   .max_message_bytes = max_bytes};
    struct lmo_ovsdb *db = NULL;
    ck_assert_int_eq(lmo_ovsdb_open(&cfg, &db, NULL), 0);
    return db;
}

static json_t *some_ops(void)
{
    return json_pack("[{ss}]", "op", "anything");
}

static void serve_and_hang_up(int fd, unsigned number)
{
    char text[4096];
    (void)number;
    if (peer_greet(fd))
        (void)peer_read(fd, text, sizeof text); /* the transaction: taken in, never answered */
}

START_TEST(lost_reply__is_unknown_not_failed)
{
    struct peer p;
    struct lmo_err err = {0};
    peer_start(&p, serve_and_hang_up);
    struct lmo_ovsdb *db = open_peer(&p, 0, 0);
    ck_assert_int_eq(lmo_ovsdb_transact(db, some_ops(), in_ms(5000), NULL, &err), LMO_E_UNKNOWN);
    lmo_ovsdb_close(db);
    peer_stop(&p);
}
END_TEST

static void serve_silently(int fd, unsigned number)
{
    char text[4096];
    (void)number;
    if (peer_greet(fd)) {
        while (peer_read(fd, text, sizeof text))
            continue;
    }
}

START_TEST(late_reply__is_a_timeout_of_unknown_outcome)
{
    struct peer p;
    peer_start(&p, serve_silently);
    struct lmo_ovsdb *db = open_peer(&p, 0, 0);
    ck_assert_int_eq(lmo_ovsdb_transact(db, some_ops(), in_ms(100), NULL, NULL), LMO_E_TIMEOUT);
    ck_assert_int_eq(lmo_err_class_of(LMO_E_TIMEOUT), LMO_CLASS_UNKNOWN);
    lmo_ovsdb_close(db);
    peer_stop(&p);
}
END_TEST

START_TEST(silent_peer__is_probed_and_given_up)
{
    struct peer p;
    peer_start(&p, serve_silently);
    struct lmo_ovsdb *db = open_peer(&p, 40, 0);
    uint64_t start = lmo_now_ns();
    ck_assert_int_eq(lmo_ovsdb_transact(db, some_ops(), in_ms(5000), NULL, NULL), LMO_E_UNKNOWN);
    ck_assert_uint_ge(lmo_now_ns() - start, 40 * LMO_NS_PER_MS);
    ck_assert_uint_lt(lmo_now_ns() - start, 4000 * LMO_NS_PER_MS);
    lmo_ovsdb_close(db);
    peer_stop(&p);
}
END_TEST

static void serve_echo(int fd, unsigned number)
{
    char text[4096];
    (void)number;
    if (!peer_greet(fd))
        return;
    peer_write(fd, "{\"method\":\"echo\",\"params\":[\"x\"],\"id\":\"mine\"}");
    if (!peer_read(fd, text, sizeof text))
        return;
    if (strstr(text, "\"mine\"") && strstr(text, "[\"x\"]") && peer_read(fd, text, sizeof text))
        peer_write(fd, "{\"id\":1,\"error\":null,\"result\":[{\"count\":1}]}");
    (void)peer_read(fd, text, sizeof text);
}

START_TEST(echo_is_answered_with_its_own_parameters)
{
    struct peer p;
    LMO_AUTO_JSON json_t *results = NULL;
    peer_start(&p, serve_echo);
    struct lmo_ovsdb *db = open_peer(&p, 0, 0);
    ck_assert_int_eq(lmo_ovsdb_await_ready(db, in_ms(5000), NULL), 0);
    usleep(20000); /* the echo comes first, so that the peer reads its answer before the transaction */
    ck_assert_int_eq(lmo_ovsdb_transact(db, some_ops(), in_ms(5000), &results, NULL), 0);
    ck_assert_uint_eq(json_array_size(results), 1);
    lmo_ovsdb_close(db);
    peer_stop(&p);
}
END_TEST

static void serve_too_much(int fd, unsigned number)
{
    char text[4096];
    if (!peer_greet(fd) || !peer_read(fd, text, sizeof text))
        return;
    if (number == 0) {
        peer_write(fd, "{\"id\":1,\"result\":[\"");
        for (int i = 0; i < 2000; i++)
            peer_write(fd, "0123456789");
        return;
    }
    peer_write(fd, "{\"id\":2,\"error\":null,\"result\":[{}]}");
    (void)peer_read(fd, text, sizeof text);
}

START_TEST(oversized_message__ends_the_connection_and_a_new_one_works)
{
    struct peer p;
    peer_start(&p, serve_too_much);
    struct lmo_ovsdb *db = open_peer(&p, 0, 1024);
    ck_assert_int_eq(lmo_ovsdb_transact(db, some_ops(), in_ms(5000), NULL, NULL), LMO_E_UNKNOWN);
    ck_assert_int_eq(lmo_ovsdb_transact(db, some_ops(), in_ms(5000), NULL, NULL), 0);
    lmo_ovsdb_close(db);
    peer_stop(&p);
}
END_TEST

static void serve_errors(int fd, unsigned number)
{
    char text[4096];
    (void)number;
    if (!peer_greet(fd) || !peer_read(fd, text, sizeof text))
        return;
    peer_write(fd, "{\"id\":1,\"error\":null,\"result\":[{},{\"error\":\"timed out\",\"details\":\"d\"},null]}");
    if (peer_read(fd, text, sizeof text))
        peer_write(fd, "{\"id\":2,\"error\":{\"error\":\"unknown database\"},\"result\":null}");
    if (peer_read(fd, text, sizeof text))
        peer_write(fd, "{\"id\":3,\"error\":null,\"result\":[]}");
    (void)peer_read(fd, text, sizeof text);
}

START_TEST(errors_within_a_reply_are_told_apart)
{
    struct peer p;
    peer_start(&p, serve_errors);
    struct lmo_ovsdb *db = open_peer(&p, 0, 0);
    ck_assert_int_eq(lmo_ovsdb_transact(db, some_ops(), in_ms(5000), NULL, NULL), LMO_E_CONFLICT);
    ck_assert_int_eq(lmo_ovsdb_transact(db, some_ops(), in_ms(5000), NULL, NULL), LMO_E_UNSUPPORTED);
    ck_assert_int_eq(lmo_ovsdb_transact(db, some_ops(), in_ms(5000), NULL, NULL), LMO_E_UNKNOWN);
    lmo_ovsdb_close(db);
    peer_stop(&p);
}
END_TEST

static int has_row(void *arg, const json_t *rows, struct lmo_err *err)
{
    (void)err;
    return json_object_get(rows, arg) != NULL;
}

/* First connection: row "old". Later ones: only row "new", which comes late. */
static void serve_two_worlds(int fd, unsigned number)
{
    char text[4096], reply[256];
    if (!peer_greet(fd) || !peer_read(fd, text, sizeof text))
        return;
    const char *id = strstr(text, "\"id\":\"");
    ck_assert_ptr_nonnull(id);
    (void)snprintf(reply, sizeof reply,
                   "{\"error\":null,\"result\":{\"T\":{\"%s\":{\"initial\":{\"c\":\"x\"}}}},\"id\":\"%.*s\"}",
                   number ? "new" : "old", (int)strcspn(id + 6, "\""), id + 6);
    if (number)
        usleep(100000);
    peer_write(fd, reply);
    if (number)
        (void)peer_read(fd, text, sizeof text);
}

START_TEST(watch_forgets_what_it_saw_before_a_gap)
{
    static const char *const columns[] = {"c", NULL};
    struct peer p;
    struct lmo_ovsdb_watch *w = NULL;
    peer_start(&p, serve_two_worlds);
    struct lmo_ovsdb *db = open_peer(&p, 0, 0);
    ck_assert_int_eq(lmo_ovsdb_watch_open(db, "T", NULL, columns, in_ms(5000), &w, NULL), 0);
    ck_assert_int_eq(lmo_ovsdb_watch_wait(w, has_row, (char *)"new", in_ms(5000), NULL), 0);
    ck_assert_int_eq(lmo_ovsdb_watch_wait(w, has_row, (char *)"old", in_ms(50), NULL), LMO_E_TIMEOUT);
    lmo_ovsdb_watch_close(w);
    lmo_ovsdb_close(db);
    peer_stop(&p);
}
END_TEST

static void serve_nonsense_change(int fd, unsigned number)
{
    char text[4096], reply[256];
    if (!peer_greet(fd) || !peer_read(fd, text, sizeof text))
        return;
    const char *id = strstr(text, "\"id\":\"") + 6;
    (void)snprintf(reply, sizeof reply, "{\"error\":null,\"result\":{\"T\":{\"%s\":{\"initial\":{}}}},\"id\":\"%.*s\"}",
                   number ? "second" : "first", (int)strcspn(id, "\""), id);
    peer_write(fd, reply);
    if (number == 0) {
        (void)snprintf(
            reply, sizeof reply,
            "{\"method\":\"update2\",\"id\":null,\"params\":[\"%.*s\",{\"T\":{\"ghost\":{\"modify\":{\"c\":\"y\"}}}}]}",
            (int)strcspn(id, "\""), id);
        peer_write(fd, reply);
    }
    (void)peer_read(fd, text, sizeof text);
}

START_TEST(a_change_of_an_unknown_row__starts_the_connection_over)
{
    static const char *const columns[] = {"c", NULL};
    struct peer p;
    struct lmo_ovsdb_watch *w = NULL;
    peer_start(&p, serve_nonsense_change);
    struct lmo_ovsdb *db = open_peer(&p, 0, 0);
    ck_assert_int_eq(lmo_ovsdb_watch_open(db, "T", NULL, columns, in_ms(5000), &w, NULL), 0);
    ck_assert_int_eq(lmo_ovsdb_watch_wait(w, has_row, (char *)"second", in_ms(5000), NULL), 0);
    lmo_ovsdb_watch_close(w);
    lmo_ovsdb_close(db);
    peer_stop(&p);
}
END_TEST

static void serve_without_schema(int fd, unsigned number)
{
    char text[4096];
    (void)number;
    if (peer_read(fd, text, sizeof text))
        peer_write(fd, "{\"id\":\"schema\",\"error\":null,\"result\":{\"tables\":{\"T\":{\"columns\":{\"c\":{\"type\":"
                       "\"string\"}}}}}}");
    (void)peer_read(fd, text, sizeof text);
}

START_TEST(missing_column__is_unsupported_and_named)
{
    struct peer p;
    struct lmo_err err = {0};
    peer_start(&p, serve_without_schema);
    struct lmo_ovsdb *db = open_peer(&p, 0, 0);
    ck_assert_int_eq(lmo_ovsdb_await_ready(db, in_ms(5000), &err), LMO_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.text, "'s'"));
    ck_assert_int_eq(lmo_ovsdb_transact(db, some_ops(), in_ms(5000), NULL, NULL), LMO_E_UNSUPPORTED);
    lmo_ovsdb_close(db);
    peer_stop(&p);
}
END_TEST

START_TEST(nobody_there__is_unavailable_at_the_deadline)
{
    struct peer p = {.remote = "unix:/tmp/lmo-nobody-here"};
    struct lmo_err err = {0};
    struct lmo_ovsdb *db = open_peer(&p, 0, 0);
    ck_assert_int_eq(lmo_ovsdb_transact(db, some_ops(), in_ms(50), NULL, &err), LMO_E_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(err.text, "lmo-nobody-here"));
    lmo_ovsdb_close(db);
}
END_TEST

static int open_remotes(const char *remotes)
{
    struct lmo_ovsdb_config cfg = {.name = "x", .remotes = remotes, .database = "D"};
    struct lmo_ovsdb *db = NULL;
    int r = lmo_ovsdb_open(&cfg, &db, NULL);
    lmo_ovsdb_close(db);
    return r;
}

START_TEST(remotes_of_no_known_form_are_refused_at_open)
{
    ck_assert_int_eq(open_remotes(""), LMO_E_INVALID);
    ck_assert_int_eq(open_remotes("/run/sock"), LMO_E_INVALID);
    ck_assert_int_eq(open_remotes("tcp:127.0.0.1"), LMO_E_INVALID);
    ck_assert_int_eq(open_remotes("tcp:127.0.0.1:x"), LMO_E_INVALID);
    ck_assert_int_eq(open_remotes("unix:"), LMO_E_INVALID);
    ck_assert_int_eq(open_remotes("tcp:127.0.0.1:1,,"), LMO_E_INVALID);
    ck_assert_int_eq(open_remotes("ssl:127.0.0.1:6641"), LMO_E_UNSUPPORTED);
    ck_assert_int_eq(open_remotes("tcp:[::1]:1,tcp:127.0.0.1:1"), 0);
}
END_TEST

/* ------------------------------------------------------------------ a real server */

static struct ovsdb_server server;
static struct lmo_ovsdb *real;

static const struct lmo_ovsdb_need real_needs[] = {{"Chassis_Private", "name"},
                                                   {"Chassis_Private", "external_ids"},
                                                   {"SB_Global", "nb_cfg"}};

static void set_up_real(void)
{
    ovsdb_server_create(&server, SB_SCHEMA);
    struct lmo_ovsdb_config cfg = {.name = "southbound",
                                   .remotes = server.remote,
                                   .database = "OVN_Southbound",
                                   .needs = real_needs,
                                   .need_count = 3};
    ck_assert_int_eq(lmo_ovsdb_open(&cfg, &real, NULL), 0);
    ck_assert_int_eq(lmo_ovsdb_await_ready(real, in_ms(10000), NULL), 0);
}

static void tear_down_real(void)
{
    lmo_ovsdb_close(real);
    ovsdb_server_destroy(&server);
}

static void run_ops(json_t *ops)
{
    struct lmo_err err = {0};
    int r = lmo_ovsdb_transact(real, ops, in_ms(5000), NULL, &err);
    ck_assert_msg(r == 0, "%s", err.text);
}

static json_t *insert_chassis(const char *name)
{
    return json_pack("[{ss, ss, s{ss, s[s[[ss]]]}}]", "op", "insert", "table", "Chassis_Private", "row", "name", name,
                     "external_ids", "map", "a", "1");
}

static json_t *where_name(const char *name)
{
    return json_pack("[[sss]]", "name", "==", name);
}

START_TEST(transactions_happen_and_are_read_back)
{
    static const char *const columns[] = {"name", "nb_cfg", NULL};
    LMO_AUTO_JSON json_t *rows = NULL;
    run_ops(insert_chassis("hv1"));
    ck_assert_int_eq(lmo_ovsdb_select(real, "Chassis_Private", where_name("hv1"), columns, in_ms(5000), &rows, NULL),
                     0);
    ck_assert_uint_eq(json_array_size(rows), 1);
    ck_assert_str_eq(lmo_ovsdb_string(json_object_get(json_array_get(rows, 0), "name")), "hv1");
}
END_TEST

START_TEST(compare_and_set_on_another_value__is_a_conflict_and_changes_nothing)
{
    LMO_AUTO_JSON json_t *rows = NULL;
    static const char *const columns[] = {"nb_cfg", NULL};
    int64_t cfg = -1;
    run_ops(insert_chassis("hv1"));
    json_t *ops =
        json_pack("[{ss, si, ss, so, s[s], ss, s[{si}]}, {ss, ss, so, s{si}}]", "op", "wait", "timeout", 0, "table",
                  "Chassis_Private", "where", where_name("hv1"), "columns", "nb_cfg", "until", "==", "rows", "nb_cfg",
                  41, "op", "update", "table", "Chassis_Private", "where", where_name("hv1"), "row", "nb_cfg", 42);
    ck_assert_int_eq(lmo_ovsdb_transact(real, ops, in_ms(5000), NULL, NULL), LMO_E_CONFLICT);
    ck_assert_int_eq(lmo_ovsdb_select(real, "Chassis_Private", where_name("hv1"), columns, in_ms(5000), &rows, NULL),
                     0);
    ck_assert(lmo_ovsdb_integer(json_object_get(json_array_get(rows, 0), "nb_cfg"), &cfg));
    ck_assert_int_eq(cfg, 0);
}
END_TEST

struct seen {
    const char *name, *key, *value;
    int64_t cfg;
};

static int chassis_is(void *arg, const json_t *rows, struct lmo_err *err)
{
    const struct seen *s = arg;
    const json_t *row = json_object_iter_value(json_object_iter((json_t *)rows));
    int64_t cfg = 0;
    (void)err;
    if (!s->name)
        return json_object_size(rows) == 0;
    (void)lmo_ovsdb_integer(json_object_get(row, "nb_cfg"), &cfg);
    const char *name = lmo_ovsdb_string(json_object_get(row, "name"));
    const char *value = lmo_ovsdb_map_get(json_object_get(row, "external_ids"), s->key);
    return json_object_size(rows) == 1 && name && strcmp(name, s->name) == 0 && cfg == s->cfg &&
           (s->value ? value && strcmp(value, s->value) == 0 : !value);
}

static void await_chassis(struct lmo_ovsdb_watch *w, struct seen s)
{
    ck_assert_int_eq(lmo_ovsdb_watch_wait(w, chassis_is, &s, in_ms(5000), NULL), 0);
}

START_TEST(watch_follows_insertion_changes_of_maps_and_deletion)
{
    static const char *const columns[] = {"name", "nb_cfg", "external_ids", NULL};
    struct lmo_ovsdb_watch *w = NULL;
    run_ops(insert_chassis("other")); /* outside the condition: never seen */
    ck_assert_int_eq(lmo_ovsdb_watch_open(real, "Chassis_Private", where_name("hv1"), columns, in_ms(5000), &w, NULL),
                     0);
    await_chassis(w, (struct seen){0});
    run_ops(insert_chassis("hv1"));
    await_chassis(w, (struct seen){.name = "hv1", .key = "a", .value = "1"});
    run_ops(json_pack("[{ss, ss, so, s{si, s[s[[ss][ss]]]}}]", "op", "update", "table", "Chassis_Private", "where",
                      where_name("hv1"), "row", "nb_cfg", 7, "external_ids", "map", "a", "2", "b", "3"));
    await_chassis(w, (struct seen){.name = "hv1", .key = "a", .value = "2", .cfg = 7});
    await_chassis(w, (struct seen){.name = "hv1", .key = "b", .value = "3", .cfg = 7});
    run_ops(json_pack("[{ss, ss, so, s[[sss]]}]", "op", "mutate", "table", "Chassis_Private", "where",
                      where_name("hv1"), "mutations", "external_ids", "delete", "a"));
    await_chassis(w, (struct seen){.name = "hv1", .key = "a", .cfg = 7});
    run_ops(json_pack("[{ss, ss, so}]", "op", "delete", "table", "Chassis_Private", "where", where_name("hv1")));
    await_chassis(w, (struct seen){0});
    lmo_ovsdb_watch_close(w);
}
END_TEST

START_TEST(server_restarted__watch_and_transactions_go_on)
{
    static const char *const columns[] = {"name", "nb_cfg", "external_ids", NULL};
    struct lmo_ovsdb_watch *w = NULL;
    ck_assert_int_eq(lmo_ovsdb_watch_open(real, "Chassis_Private", where_name("hv1"), columns, in_ms(5000), &w, NULL),
                     0);
    ovsdb_server_kill(&server);
    ck_assert_int_eq(lmo_ovsdb_watch_wait(w, has_row, (char *)"none", in_ms(100), NULL), LMO_E_UNAVAILABLE);
    ovsdb_server_start(&server);
    ck_assert_int_eq(lmo_ovsdb_await_ready(real, in_ms(10000), NULL), 0);
    run_ops(insert_chassis("hv1"));
    await_chassis(w, (struct seen){.name = "hv1", .key = "a", .value = "1"});
    lmo_ovsdb_watch_close(w);
}
END_TEST

struct adder {
    pthread_t thread;
    int64_t got;
};

/* Adds one and reads in the same transaction, as confirmations of a controller are asked for. */
static void *add_one(void *arg)
{
    static const char *const columns[] = {"nb_cfg", NULL};
    struct adder *a = arg;
    LMO_AUTO_JSON json_t *results = NULL;
    json_t *ops = json_pack("[{ss, ss, s[], s[[ssi]]}, o]", "op", "mutate", "table", "SB_Global", "where", "mutations",
                            "nb_cfg", "+=", 1, lmo_ovsdb_select_op("SB_Global", json_array(), columns));
    if (lmo_ovsdb_transact(real, ops, in_ms(5000), &results, NULL) == 0) {
        const json_t *rows = json_object_get(json_array_get(results, 1), "rows");
        (void)lmo_ovsdb_integer(json_object_get(json_array_get(rows, 0), "nb_cfg"), &a->got);
    }
    return NULL;
}

START_TEST(concurrent_increments_each_get_a_number_of_their_own)
{
    struct adder a[16] = {0};
    run_ops(json_pack("[{ss, ss, s{}}]", "op", "insert", "table", "SB_Global", "row"));
    for (size_t i = 0; i < 16; i++)
        ck_assert_int_eq(pthread_create(&a[i].thread, NULL, add_one, &a[i]), 0);
    unsigned seen = 0;
    for (size_t i = 0; i < 16; i++) {
        pthread_join(a[i].thread, NULL);
        ck_assert_int_ge(a[i].got, 1);
        ck_assert_int_le(a[i].got, 16);
        seen |= 1u << (a[i].got - 1);
    }
    ck_assert_uint_eq(seen, 0xffff);
}
END_TEST

Suite *ovsdb_suite(void)
{
    Suite *s = suite_create("ovsdb");
    TCase *pure = tcase_create("pure");
    tcase_add_test(pure, messages_are_found_whatever_the_reads_cut);
    tcase_add_test(pure, a_stream_that_is_not_objects_or_too_large_is_refused);
    tcase_add_test(pure, differences_of_sets_and_maps_are_applied);
    tcase_add_test(pure, values_of_another_shape_read_as_nothing);
    tcase_add_test(pure, remotes_of_no_known_form_are_refused_at_open);
    suite_add_tcase(s, pure);
    TCase *peer = tcase_create("peer");
    tcase_set_timeout(peer, 30);
    tcase_add_test(peer, lost_reply__is_unknown_not_failed);
    tcase_add_test(peer, late_reply__is_a_timeout_of_unknown_outcome);
    tcase_add_test(peer, silent_peer__is_probed_and_given_up);
    tcase_add_test(peer, echo_is_answered_with_its_own_parameters);
    tcase_add_test(peer, oversized_message__ends_the_connection_and_a_new_one_works);
    tcase_add_test(peer, errors_within_a_reply_are_told_apart);
    tcase_add_test(peer, watch_forgets_what_it_saw_before_a_gap);
    tcase_add_test(peer, a_change_of_an_unknown_row__starts_the_connection_over);
    tcase_add_test(peer, missing_column__is_unsupported_and_named);
    tcase_add_test(peer, nobody_there__is_unavailable_at_the_deadline);
    suite_add_tcase(s, peer);
    TCase *with_server = tcase_create("server");
    tcase_set_timeout(with_server, 60);
    tcase_add_checked_fixture(with_server, set_up_real, tear_down_real);
    tcase_add_test(with_server, transactions_happen_and_are_read_back);
    tcase_add_test(with_server, compare_and_set_on_another_value__is_a_conflict_and_changes_nothing);
    tcase_add_test(with_server, watch_follows_insertion_changes_of_maps_and_deletion);
    tcase_add_test(with_server, server_restarted__watch_and_transactions_go_on);
    tcase_add_test(with_server, concurrent_increments_each_get_a_number_of_their_own);
    suite_add_tcase(s, with_server);
    return s;
}
