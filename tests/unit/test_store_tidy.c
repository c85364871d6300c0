/* test_store_tidy.c - the thread that moves the store's log: it does, the log stays bounded, and nothing depends on it. */
#include "base/clock.h"
#include "base/id.h"
#include "base/str.h"
#include "engine/ports.h"
#include "sql/sql.h"
#include "suites.h"
#include "tmpdir.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE      4096U
#define XML_PAGES 32U    /* what a commit of ours stores, at least */
#define FAR_PAGES 20000U /* as in sqlite_tidy.c: beyond it commits do the work themselves */
#define LIMIT_MS  20000U

static char dir[TMPDIR_MAX], db_path[TMPDIR_MAX + 16], log_path[TMPDIR_MAX + 16];
static struct lmo_store *store;
static struct lmo_migration m;
static char xml[XML_PAGES * PAGE];

static void open_tidied(void)
{
    struct lmo_err err = {0};
    ck_assert_msg(lmo_store_sqlite_open(dir, &store, &err) == 0, "%s", err.text);
    ck_assert_msg(lmo_store_sqlite_tidy_apart(store, &err) == 0, "%s", err.text);
}

static void set_up(void)
{
    tmpdir_make(dir, "tidy");
    snprintf(db_path, sizeof db_path, "%s/lmod.db", dir);
    snprintf(log_path, sizeof log_path, "%s/lmod.db-wal", dir);
    memset(&m, 0, sizeof m);
    lmo_ulid_generate(m.id);
    LMO_COPY(m.vm.uuid, "00000000-0000-4000-8000-000000000001");
    LMO_COPY(m.source, "hv1");
    LMO_COPY(m.destination, "hv2");
    m.phase = LMO_PHASE_QUEUED;
    m.epoch = 3;
}

static void tear_down(void)
{
    if (store) {
        store->ops->close(store);
        store = NULL;
    }
    tmpdir_remove(dir);
}

static void commit(void)
{
    struct lmo_err err = {0};
    struct lmo_commit_item item = {.record = &m, .expected_version = m.version++, .xml = xml};
    memset(xml, (int)('a' + m.version % 26), sizeof xml - 1); /* SQLite writes no page that stays the same */
    ck_assert_msg(store->ops->commit(store, &item, 1, NULL, 0, &err) == 0, "%s", err.text);
}

static uint64_t pages_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size / PAGE : 0;
}

static void short_wait(void)
{
    struct timespec moment = {.tv_nsec = 2000000};
    nanosleep(&moment, NULL);
}

/* Nobody commits: what the database's file grows by was moved by the thread. */
static void wait_for_database(uint64_t pages)
{
    uint64_t until = lmo_now_ms() + LIMIT_MS;
    while (pages_of(db_path) < pages && lmo_now_ms() < until) {
        short_wait();
    }
    ck_assert_uint_ge(pages_of(db_path), pages);
}

START_TEST(log__is_moved_while_nobody_commits)
{
    open_tidied();
    for (unsigned i = 0; i < 1200 / XML_PAGES; i++) {
        commit();
    }
    wait_for_database(XML_PAGES);
}
END_TEST

/* How often the log has begun at its front: a number in its header (SQLite's file format, "checkpoint sequence number"). */
static uint32_t fronts(void)
{
    uint8_t header[32] = {0};
    FILE *f = fopen(log_path, "rb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fread(header, 1, sizeof header, f), sizeof header);
    (void)fclose(f);
    return (uint32_t)header[12] << 24 | (uint32_t)header[13] << 16 | (uint32_t)header[14] << 8 | header[15];
}

START_TEST(log__stays_bounded_however_much_is_committed)
{
    uint64_t longest = 0;
    open_tidied();
    commit();
    uint32_t before = fronts();
    for (unsigned i = 0; i < (FAR_PAGES + 5000) / XML_PAGES; i++) {
        commit();
        uint64_t pages = pages_of(log_path);
        longest = pages > longest ? pages : longest;
    }
    ck_assert_uint_gt(longest, 1000);
    ck_assert_uint_lt(longest, FAR_PAGES + FAR_PAGES / 20); /* a log's page has a header: 24 bytes */
    ck_assert_uint_gt(fronts(), before);
}
END_TEST

START_TEST(reader_that_keeps_an_old_state__only_delays_it)
{
    struct lmo_sql *reader = NULL;
    struct lmo_sql_stmt *stmt = NULL;
    struct lmo_err err = {0};
    open_tidied();
    commit();
    ck_assert_int_eq(lmo_sql_open(db_path, 50, &reader, &err), 0);
    ck_assert_int_eq(lmo_sql_prepare(reader, "SELECT phase FROM migration UNION ALL SELECT 'more'", &stmt, &err), 0);
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1); /* and stays there */
    uint32_t before = fronts();
    for (unsigned i = 0; i < 6000 / XML_PAGES; i++) {
        commit();
    }
    ck_assert_uint_eq(fronts(), before);
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1);
    ck_assert_str_eq(lmo_sql_text(stmt, 0), "more");
    lmo_sql_close(reader);
    for (uint64_t until = lmo_now_ms() + LIMIT_MS; fronts() == before && lmo_now_ms() < until;) {
        commit();
        short_wait();
    }
    ck_assert_uint_gt(fronts(), before);
}
END_TEST

/* Commits, and says so after each, until it is killed. */
static void commit_until_killed(int fd)
{
    open_tidied();
    for (;;) {
        commit();
        if (write(fd, &m.version, sizeof m.version) != (ssize_t)sizeof m.version) {
            _exit(1);
        }
    }
}

static void check_integrity(void)
{
    struct lmo_sql *db = NULL;
    struct lmo_sql_stmt *stmt = NULL;
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_sql_open(db_path, 50, &db, &err), 0);
    ck_assert_int_eq(lmo_sql_prepare(db, "PRAGMA integrity_check", &stmt, &err), 0);
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1);
    ck_assert_str_eq(lmo_sql_text(stmt, 0), "ok");
    lmo_sql_close(db);
}

/* After so many commits: before the first pass, at its beginning (twice), amid folding. */
static const unsigned kills[] = {20, 1000 / XML_PAGES + 1, 1000 / XML_PAGES + 2, 4000 / XML_PAGES,
                                 4000 / XML_PAGES + 3};

START_TEST(process_killed_amid_a_pass__loses_nothing_that_was_committed)
{
    static struct lmo_migration got;
    struct lmo_err err = {0};
    int fds[2], status;
    uint64_t said = 0;
    ck_assert_int_eq(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(fds[0]);
        commit_until_killed(fds[1]);
    }
    close(fds[1]);
    while (said < kills[_i] && read(fds[0], &said, sizeof said) == (ssize_t)sizeof said) {
    }
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (read(fds[0], &said, sizeof said) == (ssize_t)sizeof said) {
    }
    close(fds[0]);
    ck_assert_uint_ge(said, kills[_i]);
    open_tidied();
    ck_assert_msg(store->ops->get(store, m.id, &got, &err) == 0, "%s", err.text);
    ck_assert_uint_ge(got.version, said);
    ck_assert_uint_le(got.version, said + 1); /* one was on disk, and not said yet */
    check_integrity();
    m.version = got.version;
    commit();
}
END_TEST

Suite *store_tidy_suite(void)
{
    Suite *s = suite_create("store_tidy");
    TCase *t = tcase_create("tidy");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, log__is_moved_while_nobody_commits);
    tcase_add_test(t, log__stays_bounded_however_much_is_committed);
    tcase_add_test(t, reader_that_keeps_an_old_state__only_delays_it);
    tcase_add_loop_test(t, process_killed_amid_a_pass__loses_nothing_that_was_committed, 0,
                        sizeof kills / sizeof kills[0]);
    suite_add_tcase(s, t);
    return s;
}
