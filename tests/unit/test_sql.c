/* test_sql.c - durability settings, migrations, statements, and how SQLite's failures come out. */
#include "suites.h"
#include "tmpdir.h"
#include "sql/backup.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[TMPDIR_MAX], path[128];
static struct lmo_sql *db;
static struct lmo_err err;

static void setup(void)
{
    tmpdir_make(dir, "sql");
    snprintf(path, sizeof path, "%s/db", dir);
    memset(&err, 0, sizeof err);
    ck_assert_msg(lmo_sql_open(path, 50, &db, &err) == 0, "%s", err.text);
}

static void teardown(void)
{
    db = lmo_sql_close(db);
    tmpdir_remove(dir);
}

static void exec(const char *sql)
{
    ck_assert_msg(lmo_sql_exec(db, sql, &err) == 0, "%s", err.text);
}

START_TEST(open__sets_durability_and_a_private_mode)
{
    struct lmo_sql_stmt *stmt = NULL;
    ck_assert_int_eq(lmo_sql_prepare(db, "PRAGMA synchronous", &stmt, &err), 0);
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1);
    ck_assert_int_eq((int)lmo_sql_i64(stmt, 0), 2);
    lmo_sql_reset(stmt);
    ck_assert_int_eq(lmo_sql_prepare(db, "PRAGMA journal_mode", &stmt, &err), 0);
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1);
    ck_assert_str_eq(lmo_sql_text(stmt, 0), "wal");
    lmo_sql_reset(stmt);
    exec("CREATE TABLE t (a)");
    struct stat st;
    char wal[140];
    snprintf(wal, sizeof wal, "%s-wal", path);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    ck_assert_int_eq(stat(wal, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
}
END_TEST

START_TEST(file_that_is_no_database__is_corrupt)
{
    char other[140];
    struct lmo_sql *bad = NULL;
    snprintf(other, sizeof other, "%s.bad", path);
    int fd = open(other, O_WRONLY | O_CREAT, 0600);
    char junk[4096];
    memset(junk, 'j', sizeof junk);
    ck_assert_int_eq((int)write(fd, junk, sizeof junk), (int)sizeof junk);
    close(fd);
    ck_assert_int_eq(lmo_sql_open(other, 0, &bad, &err), LMO_E_CORRUPT);
    ck_assert_ptr_null(bad);
    ck_assert_ptr_nonnull(strstr(err.text, other));
}
END_TEST

START_TEST(statements__bind_step_and_are_reused)
{
    static const char insert[] = "INSERT INTO t (a, b, c, d) VALUES (?, ?, ?, ?)";
    static const char select[] = "SELECT a, b, c, d FROM t ORDER BY a";
    exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c INTEGER, d BLOB)");
    struct lmo_sql_stmt *stmt = NULL, *first = NULL;
    for (int i = 1; i <= 3; i++) {
        ck_assert_int_eq(lmo_sql_prepare(db, insert, &stmt, &err), 0);
        ck_assert(first == NULL || first == stmt);
        first = stmt;
        lmo_sql_bind_i64(stmt, 1, i);
        lmo_sql_bind_text(stmt, 2, i == 2 ? NULL : "text");
        lmo_sql_bind_u64(stmt, 3, (uint64_t)i << 40);
        if (i != 3)
            lmo_sql_bind_blob(stmt, 4, "\0\1", 2);
        uint64_t changes = 0;
        ck_assert_int_eq(lmo_sql_run(stmt, &changes, &err), 0);
        ck_assert_uint_eq(changes, 1);
    }
    ck_assert_int_eq((int)lmo_sql_last_rowid(db), 3);
    ck_assert_int_eq(lmo_sql_prepare(db, select, &stmt, &err), 0);
    char small[3] = "zz", big[16];
    size_t len;
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1);
    ck_assert_str_eq(lmo_sql_text(stmt, 1), "text");
    ck_assert_int_eq(lmo_sql_copy(stmt, 1, small, sizeof small), LMO_E_TOO_LARGE);
    ck_assert_str_eq(small, "");
    ck_assert_int_eq(lmo_sql_copy(stmt, 1, big, sizeof big), 0);
    ck_assert_uint_eq(lmo_sql_u64(stmt, 2), UINT64_C(1) << 40);
    ck_assert_int_eq(memcmp(lmo_sql_blob(stmt, 3, &len), "\0\1", 2), 0);
    ck_assert_uint_eq(len, 2);
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1);
    ck_assert(lmo_sql_is_null(stmt, 1));
    ck_assert_str_eq(lmo_sql_text(stmt, 1), "");
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1);
    ck_assert(lmo_sql_is_null(stmt, 3)); /* bindings of the use before are gone */
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 0);
}
END_TEST

START_TEST(failed_bind__comes_out_at_the_step)
{
    exec("CREATE TABLE t (a INTEGER)");
    struct lmo_sql_stmt *stmt = NULL;
    ck_assert_int_eq(lmo_sql_prepare(db, "INSERT INTO t VALUES (?)", &stmt, &err), 0);
    lmo_sql_bind_u64(stmt, 1, UINT64_MAX);
    ck_assert_int_eq(lmo_sql_run(stmt, NULL, &err), LMO_E_TOO_LARGE);
    ck_assert_int_eq(lmo_sql_prepare(db, "INSERT INTO t VALUES (?)", &stmt, &err), 0);
    lmo_sql_bind_i64(stmt, 2, 1);
    ck_assert_int_eq(lmo_sql_run(stmt, NULL, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_sql_prepare(db, "SELECT nonsense FROM t", &stmt, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_sql_prepare(db, "SELECT 1; SELECT 2", &stmt, &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_sql_prepare(db, "SELECT 1", &stmt, &err), 0);
    ck_assert_int_eq(lmo_sql_run(stmt, NULL, &err), LMO_E_INVALID);
}
END_TEST

START_TEST(rollback__undoes_and_is_always_allowed)
{
    exec("CREATE TABLE t (a INTEGER UNIQUE)");
    lmo_sql_rollback(db);
    ck_assert_int_eq(lmo_sql_begin(db, &err), 0);
    exec("INSERT INTO t VALUES (1)");
    struct lmo_sql_stmt *stmt = NULL;
    ck_assert_int_eq(lmo_sql_prepare(db, "SELECT a FROM t", &stmt, &err), 0);
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1);
    lmo_sql_rollback(db); /* with a statement still being read */
    ck_assert(!lmo_sql_in_transaction(db));
    ck_assert_int_eq(lmo_sql_begin(db, &err), 0);
    exec("INSERT INTO t VALUES (2)");
    ck_assert_int_eq(lmo_sql_exec(db, "INSERT INTO t VALUES (2)", &err), LMO_E_CONFLICT);
    ck_assert_int_eq(lmo_sql_commit(db, &err), 0);
    ck_assert_int_eq(lmo_sql_prepare(db, "SELECT count(*) FROM t", &stmt, &err), 0);
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1);
    ck_assert_int_eq((int)lmo_sql_i64(stmt, 0), 1);
    lmo_sql_reset(stmt);
}
END_TEST

START_TEST(second_writer__is_busy_after_the_timeout)
{
    LMO_AUTO_SQL struct lmo_sql *other = NULL;
    ck_assert_int_eq(lmo_sql_open(path, 20, &other, &err), 0);
    exec("CREATE TABLE t (a)");
    ck_assert_int_eq(lmo_sql_begin(db, &err), 0);
    ck_assert_int_eq(lmo_sql_begin(other, &err), LMO_E_BUSY);
    ck_assert_int_eq(lmo_sql_commit(db, &err), 0);
    ck_assert_int_eq(lmo_sql_begin(other, &err), 0);
}
END_TEST

START_TEST(full_disk__is_no_space_and_leaves_the_old_state)
{
    exec("CREATE TABLE t (a BLOB)");
    exec("PRAGMA max_page_count=20");
    ck_assert_int_eq(lmo_sql_begin(db, &err), 0);
    ck_assert_int_eq(lmo_sql_exec(db, "INSERT INTO t VALUES (zeroblob(200000))", &err), LMO_E_NO_SPACE);
    lmo_sql_rollback(db);
    struct lmo_sql_stmt *stmt = NULL;
    ck_assert_int_eq(lmo_sql_prepare(db, "SELECT count(*) FROM t", &stmt, &err), 0);
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1);
    ck_assert_int_eq((int)lmo_sql_i64(stmt, 0), 0);
    lmo_sql_reset(stmt);
}
END_TEST

static const struct lmo_sql_migration steps[] = {
    {1, "first", "CREATE TABLE a (x); CREATE TABLE b (y);"},
    {2, "second", "ALTER TABLE a ADD COLUMN z"},
    {3, "third", "CREATE TABLE c (x); CREATE TABLE c (x)"}, /* fails half-way */
};

static void count_pages(void *arg, struct lmo_sql *handle, uint64_t pages)
{
    ck_assert_ptr_eq(handle, db);
    *(uint64_t *)arg = pages;
}

static uint64_t commit_pages(unsigned commits)
{
    struct stat st;
    for (unsigned i = 0; i < commits; i++) {
        exec("INSERT INTO t VALUES (zeroblob(200000))");
    }
    ck_assert_int_eq(stat(path, &st), 0);
    return (uint64_t)st.st_size / 4096;
}

START_TEST(log_that_is_tidied_elsewhere__is_not_moved_by_commits_and_begins_at_its_front_once_it_was)
{
    uint64_t pages = 0;
    struct lmo_sql_log log;
    exec("CREATE TABLE t (a BLOB)");
    ck_assert_uint_gt(commit_pages(30), 900); /* left to itself SQLite moves it within some commit */
    lmo_sql_tidy_elsewhere(db, count_pages, &pages);
    ck_assert_int_eq(lmo_sql_tidy(db, &log, &err), 0);
    ck_assert_uint_eq(log.pages, log.moved);
    uint64_t before = commit_pages(0);
    ck_assert_uint_eq(commit_pages(30), before);
    ck_assert_uint_gt(pages, 30 * 48);
    struct lmo_sql *other = NULL;
    ck_assert_int_eq(lmo_sql_open(path, 50, &other, &err), 0);
    ck_assert_int_eq(lmo_sql_tidy(other, &log, &err), 0);
    lmo_sql_close(other);
    ck_assert_uint_eq(log.pages, pages);
    ck_assert_uint_eq(log.moved, pages);
    ck_assert_uint_gt(commit_pages(1), before + 30 * 48);
    ck_assert_uint_lt(pages, 100);
}
END_TEST

START_TEST(migrations__go_forward_once_and_keep_their_place_on_failure)
{
    unsigned version = 99;
    ck_assert_int_eq(lmo_sql_version(db, &version, &err), 0);
    ck_assert_uint_eq(version, 0);
    ck_assert_int_eq(lmo_sql_migrate(db, steps, 1, &err), 0);
    ck_assert_int_eq(lmo_sql_migrate(db, steps, 2, &err), 0);
    ck_assert_int_eq(lmo_sql_migrate(db, steps, 2, &err), 0);
    ck_assert_int_lt(lmo_sql_migrate(db, steps, 3, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "schema step 3 (third)"));
    ck_assert_int_eq(lmo_sql_version(db, &version, &err), 0);
    ck_assert_uint_eq(version, 2);
    exec("CREATE TABLE c (x)"); /* the failed step left nothing */
}
END_TEST

START_TEST(database_newer_than_the_program__is_refused_with_both_numbers)
{
    ck_assert_int_eq(lmo_sql_migrate(db, steps, 2, &err), 0);
    ck_assert_int_eq(lmo_sql_migrate(db, steps, 1, &err), LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "schema 2"));
    ck_assert_ptr_nonnull(strstr(err.text, "up to 1"));
    static const struct lmo_sql_migration other[] = {{1, "first", ""}, {2, "different", ""}};
    ck_assert_int_eq(lmo_sql_migrate(db, other, 2, &err), LMO_E_CORRUPT);
}
END_TEST

START_TEST(embedded_schemas__apply_to_an_empty_database)
{
    ck_assert_msg(lmo_sql_migrate(db, lmo_schema_coordinator, lmo_schema_coordinator_count, &err) == 0, "%s", err.text);
    LMO_AUTO_SQL struct lmo_sql *worker = NULL;
    char other[140];
    snprintf(other, sizeof other, "%s.worker", path);
    ck_assert_int_eq(lmo_sql_open(other, 0, &worker, &err), 0);
    ck_assert_msg(lmo_sql_migrate(worker, lmo_schema_worker, lmo_schema_worker_count, &err) == 0, "%s", err.text);
}
END_TEST

/* How many files of `dir` begin with `prefix`; the name of one of them. */
static unsigned files_of(const char *in, const char *prefix, char *ret_one, size_t size)
{
    unsigned count = 0;
    DIR *d = opendir(in);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0) {
            snprintf(ret_one, size, "%s/%s", in, e->d_name);
            count++;
        }
    }
    if (d) {
        closedir(d);
    }
    return count;
}

START_TEST(upgrade__copies_the_database_before_it_is_changed_and_keeps_a_bounded_number_of_copies)
{
    char copies[160], one[512] = "", name[64], extra[256];
    const char *base = strrchr(path, '/') + 1;
    snprintf(copies, sizeof copies, "%.*s/backup", (int)(strrchr(path, '/') - path), path);
    snprintf(name, sizeof name, "%.40s-schema", base);
    ck_assert_int_eq(lmo_sql_upgrade(db, path, steps, 1, &err), 0);
    ck_assert_uint_eq(files_of(copies, name, one, sizeof one), 0); /* there was nothing to lose */
    ck_assert_int_eq(mkdir(copies, 0700), 0);
    for (unsigned i = 0; i < 7; i++) {
        snprintf(extra, sizeof extra, "%s/%s1-2020010%uT000000Z", copies, name, i + 1);
        fclose(fopen(extra, "w"));
    }
    snprintf(extra, sizeof extra, "%s/somebody-elses", copies);
    fclose(fopen(extra, "w"));
    ck_assert_msg(lmo_sql_upgrade(db, path, steps, 2, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(files_of(copies, name, one, sizeof one), LMO_SQL_COPIES_KEPT);
    ck_assert_uint_eq(files_of(copies, "somebody", one, sizeof one), 1);
    for (unsigned i = 0; i < 7; i++) { /* the newest one is this program's */
        char old[256];
        snprintf(old, sizeof old, "%s/%s1-2020010%uT000000Z", copies, name, i + 1);
        unlink(old);
    }
    ck_assert_uint_eq(files_of(copies, name, one, sizeof one), 1);
    LMO_AUTO_SQL struct lmo_sql *copy = NULL;
    struct stat st;
    unsigned version = 0;
    int64_t made_ms = 0;
    ck_assert_int_eq(stat(one, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    ck_assert_int_eq(lmo_sql_open(one, 0, &copy, &err), 0);
    ck_assert_int_eq(lmo_sql_version(copy, &version, &err), 0);
    ck_assert_uint_eq(version, 1);
    ck_assert_int_eq(lmo_sql_marked(copy, &made_ms, &err), 1); /* whoever puts it back is told what it is */
    ck_assert_int_gt(made_ms, 0);
    ck_assert_int_eq(lmo_sql_marked(db, &made_ms, &err), 0);
}
END_TEST

START_TEST(upgrade__to_an_older_program_is_refused_with_what_can_be_done)
{
    ck_assert_int_eq(lmo_sql_upgrade(db, path, steps, 2, &err), 0);
    ck_assert_int_eq(lmo_sql_upgrade(db, path, steps, 1, &err), LMO_E_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "newer program: it has schema 2, this program knows up to 1"));
    ck_assert_ptr_nonnull(strstr(err.text, "backup"));
}
END_TEST

START_TEST(upgrade__does_not_change_a_database_that_it_cannot_copy_first)
{
    char copies[160];
    unsigned version = 0;
    ck_assert_int_eq(lmo_sql_upgrade(db, path, steps, 1, &err), 0);
    snprintf(copies, sizeof copies, "%.*s/backup", (int)(strrchr(path, '/') - path), path);
    fclose(fopen(copies, "w")); /* no directory can be there */
    ck_assert_int_lt(lmo_sql_upgrade(db, path, steps, 2, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "not changed without a copy"));
    ck_assert_int_eq(lmo_sql_version(db, &version, &err), 0);
    ck_assert_uint_eq(version, 1);
    unlink(copies);
}
END_TEST

START_TEST(backup__is_of_one_moment_while_somebody_writes)
{
    char to[160];
    LMO_AUTO_SQL struct lmo_sql *copy = NULL;
    struct lmo_sql_stmt *stmt;
    snprintf(to, sizeof to, "%s.copy", path);
    exec("CREATE TABLE t (a)");
    exec("INSERT INTO t VALUES (1)");
    exec("BEGIN IMMEDIATE");
    exec("INSERT INTO t VALUES (2)"); /* not committed */
    ck_assert_msg(lmo_sql_backup(path, to, NULL, &err) == 0, "%s", err.text);
    exec("COMMIT");
    ck_assert_int_eq(lmo_sql_backup(path, to, NULL, &err), LMO_E_CONFLICT);
    ck_assert_int_eq(lmo_sql_open(to, 0, &copy, &err), 0);
    ck_assert_int_eq(lmo_sql_prepare(copy, "SELECT count(*) FROM t", &stmt, &err), 0);
    ck_assert_int_eq(lmo_sql_step(stmt, &err), 1);
    ck_assert_int_eq(lmo_sql_i64(stmt, 0), 1);
    lmo_sql_reset(stmt);
}
END_TEST

Suite *sql_suite(void)
{
    Suite *suite = suite_create("sql");
    TCase *tc = tcase_create("sql");
    tcase_set_timeout(tc, 30);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, open__sets_durability_and_a_private_mode);
    tcase_add_test(tc, file_that_is_no_database__is_corrupt);
    tcase_add_test(tc, statements__bind_step_and_are_reused);
    tcase_add_test(tc, failed_bind__comes_out_at_the_step);
    tcase_add_test(tc, rollback__undoes_and_is_always_allowed);
    tcase_add_test(tc, second_writer__is_busy_after_the_timeout);
    tcase_add_test(tc, full_disk__is_no_space_and_leaves_the_old_state);
    tcase_add_test(tc, log_that_is_tidied_elsewhere__is_not_moved_by_commits_and_begins_at_its_front_once_it_was);
    tcase_add_test(tc, migrations__go_forward_once_and_keep_their_place_on_failure);
    tcase_add_test(tc, database_newer_than_the_program__is_refused_with_both_numbers);
    tcase_add_test(tc, embedded_schemas__apply_to_an_empty_database);
    tcase_add_test(tc, upgrade__copies_the_database_before_it_is_changed_and_keeps_a_bounded_number_of_copies);
    tcase_add_test(tc, upgrade__to_an_older_program_is_refused_with_what_can_be_done);
    tcase_add_test(tc, upgrade__does_not_change_a_database_that_it_cannot_copy_first);
    tcase_add_test(tc, backup__is_of_one_moment_while_somebody_writes);
    suite_add_tcase(suite, tc);
    return suite;
}
