/* test_worker_host.c - what the kernel says of a host: memory from files of a made-up /proc and /sys, routes from the real one. */
#include "tmpdir.h"
#include "workers/host.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

Suite *worker_host_suite(void);

static char root[TMPDIR_MAX];

static void put(const char *path, const char *text)
{
    char full[512];
    (void)snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(full, 0700);
        *slash = '/';
    }
    FILE *f = fopen(full, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_ge(fputs(text, f), 0);
    ck_assert_int_eq(fclose(f), 0);
}

static void set_up(void)
{
    tmpdir_make(root, "host");
}

static void tear_down(void)
{
    tmpdir_remove(root);
}

START_TEST(memory_is_read_and_huge_pages_are_no_part_of_it)
{
    struct lmo_host_facts f = {0};
    put("proc/meminfo",
        "MemTotal:        1048576 kB\nMemFree:  1 kB\nMemAvailable:     300000 kB\nHugePages_Total:  64\n"
        "Hugepagesize:       2048 kB\n");
    put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64\n");
    put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "20\n");
    put("sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "5\n");
    lmo_host_memory_read(root, &f);
    ck_assert_uint_eq(f.memory_total_bytes, (UINT64_C(1048576) - 64 * 2048) * 1024);
    ck_assert_uint_eq(f.memory_free_bytes, UINT64_C(300000) * 1024);
    ck_assert_uint_eq(f.huge_page_count, 1);
    ck_assert_uint_eq(f.huge_pages[0].size_bytes, 2048 * 1024);
    ck_assert_uint_eq(f.huge_pages[0].total_bytes, UINT64_C(64) * 2048 * 1024);
    ck_assert_uint_eq(f.huge_pages[0].free_bytes, UINT64_C(15) * 2048 * 1024); /* 5 of the 20 are promised */
    ck_assert_uint_eq(lmo_host_default_huge_page(root), 2048 * 1024);
}
END_TEST

START_TEST(what_cannot_be_read_is_not_known)
{
    struct lmo_host_facts f = {0};
    lmo_host_memory_read(root, &f);
    ck_assert_uint_eq(f.memory_total_bytes, 0);
    ck_assert_uint_eq(f.huge_page_count, 0);
    ck_assert_uint_eq(lmo_host_default_huge_page(root), 0);
}
END_TEST

START_TEST(this_machine_has_memory)
{
    struct lmo_host_facts f = {0};
    lmo_host_memory_read("", &f);
    ck_assert_uint_gt(f.memory_total_bytes, f.memory_free_bytes);
    ck_assert_uint_gt(f.memory_free_bytes, 0);
}
END_TEST

START_TEST(memory_leaves_by_the_link_or_not_at_all)
{
    struct lmo_host_facts f = {.host = "hv1",
                               .link_count = 2,
                               .links = {{"migration", "127.0.0.1", 1}, {"storage", "192.0.2.77", 1}}};
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_host_route_check(&f, "", "tcp://192.0.2.1", &err), 0); /* none was asked for */
    ck_assert_msg(lmo_host_route_check(&f, "migration", "tcp://127.0.0.1", &err) == 0, "%s", err.text);
    ck_assert_msg(lmo_host_route_check(&f, "migration", "tcp://127.0.0.1:49152", &err) == 0, "%s", err.text);
    ck_assert_int_eq(lmo_host_route_check(&f, "storage", "tcp://127.0.0.1", &err), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "from 127.0.0.1, not by its link 'storage' (192.0.2.77)"));
    ck_assert_int_eq(lmo_host_route_check(&f, "other", "tcp://127.0.0.1", &err), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "host hv1 has no link 'other'"));
    ck_assert_int_eq(lmo_host_route_check(&f, "migration", "tcp://hv2.example", &err), LMO_E_INVALID);
    ck_assert_int_eq(lmo_host_route_check(&f, "migration", "", &err), LMO_E_INVALID);
}
END_TEST

Suite *worker_host_suite(void)
{
    Suite *s = suite_create("worker_host");
    TCase *t = tcase_create("host");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, memory_is_read_and_huge_pages_are_no_part_of_it);
    tcase_add_test(t, what_cannot_be_read_is_not_known);
    tcase_add_test(t, this_machine_has_memory);
    tcase_add_test(t, memory_leaves_by_the_link_or_not_at_all);
    suite_add_tcase(s, t);
    return s;
}
