/* test_volume_nbd.c - the nbd volume driver against a real qemu-storage-daemon on temporary sockets.
 *
 * What a fence means is judged from outside: through NBD sessions of this test's own and by reading the volume's
 * file, never by asking the driver. Lost replies and slow drains that a real service does not produce on demand come
 * from fake_qmp.h. */
#include "workers/drivers/volume_nbd.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "tests/tools/nbdwire.h"
#include "tests/unit/fake_qmp.h"

#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

Suite *volume_nbd_suite(void);

#define VOLUME_BYTES (1 << 20)
#define T            10000u /* ms: generous, nothing here waits for it */

static char dir[64];
static char qmp_path[108], nbd_path[108], image[128], state_dir[128];
static pid_t service;
static struct lmo_volume_driver *drv;

/* ---------------------------------------------------------------- the service */

static void service_start(void)
{
    unlink(qmp_path);
    unlink(nbd_path);
    char chardev[200], server[200];
    snprintf(chardev, sizeof(chardev), "socket,path=%s,server=on,wait=off,id=m", qmp_path);
    snprintf(server, sizeof(server), "addr.type=unix,addr.path=%s,max-connections=0", nbd_path);
    service = fork();
    ck_assert_int_ge(service, 0);
    if (service == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        char log[128]; /* it reports every refused client: noise here, evidence when a test fails */
        snprintf(log, sizeof(log), "%s/service.log", dir);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        dup2(fd, 2);
        execlp("qemu-storage-daemon", "qemu-storage-daemon", "--chardev", chardev, "--monitor", "chardev=m",
               "--nbd-server", server, (char *)NULL);
        _exit(127);
    }
}

static void service_kill(void)
{
    if (service > 0) {
        kill(service, SIGKILL);
        waitpid(service, NULL, 0);
    }
    service = 0;
}

static void driver_open(void)
{
    struct lmo_err err = {0};
    ck_assert_msg(lmo_volume_nbd_open(qmp_path, state_dir, &drv, &err) == 0, "%s", err.text);
}

static void driver_close(void)
{
    if (drv)
        drv->ops->close(drv);
    drv = NULL;
}

static void set_up(void)
{
    lmo_log_set_level(LMO_LOG_ERROR);
    snprintf(dir, sizeof(dir), "/tmp/lmo-nbd-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(qmp_path, sizeof(qmp_path), "%s/qmp", dir);
    snprintf(nbd_path, sizeof(nbd_path), "%s/nbd", dir);
    snprintf(image, sizeof(image), "%s/vol1.img", dir);
    snprintf(state_dir, sizeof(state_dir), "%s/state", dir);
    int fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert(fd >= 0 && ftruncate(fd, VOLUME_BYTES) == 0);
    close(fd);
    service_start();
    driver_open();
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void tear_down(void)
{
    driver_close();
    service_kill();
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---------------------------------------------------------------- a host's session */

/* A session that a guest's QEMU would have. -1 if the server refuses the export. */
static int session(const char *export_name)
{
    int fd = nbdw_connect(nbd_path);
    ck_assert_msg(fd >= 0, "connect: %s", strerror(errno));
    if (nbdw_go(fd, export_name, NULL) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool write_byte(int fd, uint64_t offset, uint8_t value)
{
    uint8_t block[512];
    memset(block, value, sizeof(block));
    return nbdw_io(fd, NBDW_CMD_WRITE, offset, block, sizeof(block)) == 0;
}

/* What the volume's file holds at `offset`, read behind the service's back. */
static uint8_t on_disk(uint64_t offset)
{
    uint8_t value = 0;
    int fd = open(image, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq((int)pread(fd, &value, 1, (off_t)offset), 1);
    close(fd);
    return value;
}

#define ok(call)                                                                    \
    do {                                                                            \
        struct lmo_err err_ = {0};                                                  \
        struct lmo_err *err = &err_;                                                \
        int rc_ = (call);                                                           \
        ck_assert_msg(rc_ == 0, "%s: %s: %s", #call, lmo_err_name(rc_), err_.text); \
        (void)err;                                                                  \
    } while (0)

#define fails(call, code)                                                                                \
    do {                                                                                                 \
        struct lmo_err err_ = {0};                                                                       \
        struct lmo_err *err = &err_;                                                                     \
        int rc_ = (call);                                                                                \
        ck_assert_msg(rc_ == (code), "%s: %s (%s), not %s", #call, lmo_err_name(rc_), err_.text, #code); \
        (void)err;                                                                                       \
    } while (0)

/* A volume held by hv1 under epoch 1 and offered to hv2 under epoch 2, as right before a cutover. */
static void two_hosts(void)
{
    char name[LMO_EXPORT_MAX];
    ok(drv->ops->provision(drv, "vol1", image, "raw", "hv1", 1, name, T, err));
    ck_assert_str_eq(name, "vol1.hv1.e1");
    ok(drv->ops->attach(drv, "vol1", "hv2", 2, name, T, err));
    ck_assert_str_eq(name, "vol1.hv2.e2");
}

/* ---------------------------------------------------------------- names and records */

START_TEST(export_name__survives_the_way_there_and_back)
{
    char name[LMO_EXPORT_MAX], volume[LMO_NBD_VOLUME_MAX], host[LMO_NAME_MAX];
    uint64_t epoch = 0;
    lmo_nbd_export_name(name, "7f-vol_1", "hv1.example.org", 42);
    ck_assert_str_eq(name, "7f-vol_1.hv1.example.org.e42");
    ck_assert(lmo_nbd_export_parse(name, volume, host, &epoch));
    ck_assert_str_eq(volume, "7f-vol_1");
    ck_assert_str_eq(host, "hv1.example.org");
    ck_assert_uint_eq(epoch, 42);
}
END_TEST

START_TEST(export_name_in_any_other_spelling__is_refused)
{
    static const char *const bad[] = {"",
                                      "vol1",
                                      "vol1.hv1",
                                      "vol1.hv1.1",
                                      "vol1.hv1.e",
                                      "vol1.hv1.e01",
                                      "vol1.hv1.e+1",
                                      "vol1.hv1.e1 ",
                                      "vol1..e1",
                                      ".hv1.e1",
                                      "vol1.hv1.e99999999999999999999",
                                      "vo l1.hv1.e1",
                                      "vol1.h/v1.e1",
                                      "vol1.hv1.e-1",
                                      "vol1..hv1.e1"};
    char volume[LMO_NBD_VOLUME_MAX], host[LMO_NAME_MAX];
    uint64_t epoch;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!lmo_nbd_export_parse(bad[i], volume, host, &epoch), "'%s' was accepted", bad[i]);
}
END_TEST

START_TEST(id_of_an_export__is_well_formed_whatever_the_volumes_name)
{
    char id[LMO_NBD_ID_MAX];
    lmo_nbd_export_id(id, "vol1.hv1.e1");
    ck_assert_str_eq(id, "vol1.hv1.e1");
    ck_assert_str_eq(lmo_nbd_export_of_id(id), "vol1.hv1.e1");
    lmo_nbd_export_id(id, "1vol.hv1.e1");
    ck_assert_str_eq(id, "x..1vol.hv1.e1");
    ck_assert_str_eq(lmo_nbd_export_of_id(id), "1vol.hv1.e1");
}
END_TEST

START_TEST(node_name_of_a_long_volume__fits_and_differs)
{
    char a[LMO_NBD_NODE_MAX], b[LMO_NBD_NODE_MAX];
    lmo_nbd_node_name(a, "volume-0f8fad5b-d9cb-469f-a165-70867728950e");
    lmo_nbd_node_name(b, "volume-0f8fad5b-d9cb-469f-a165-70867728950f");
    ck_assert_uint_eq(strlen(a), 31);
    ck_assert_str_ne(a, b);
    lmo_nbd_node_name(a, "vol1");
    ck_assert_str_eq(a, "v-vol1");
}
END_TEST

START_TEST(full_record__folds_the_oldest_fence_and_still_refuses_it)
{
    struct lmo_nbd_volume v = {.name = "vol1"};
    for (uint64_t e = 1; e <= LMO_NBD_EXPORTS_MAX + 5; e++) {
        ok(lmo_nbd_put(&v, "hv1", e, LMO_NBD_ATTACHED, err));
        if (e > 1)
            ok(lmo_nbd_put(&v, "hv1", e - 1, LMO_NBD_FENCED, err));
    }
    ck_assert_uint_eq(v.floor_epoch, 5);
    ck_assert(!lmo_nbd_may_offer(&v, "hv1", 3));
    ck_assert(lmo_nbd_may_offer(&v, "hv1", LMO_NBD_EXPORTS_MAX + 5));
    struct lmo_nbd_volume full = {.name = "vol1"};
    for (uint64_t e = 1; e <= LMO_NBD_EXPORTS_MAX; e++)
        ok(lmo_nbd_put(&full, "hv1", e, LMO_NBD_ATTACHED, err));
    fails(lmo_nbd_put(&full, "hv1", 99, LMO_NBD_ATTACHED, err), LMO_E_LIMIT);
}
END_TEST

START_TEST(record_that_cannot_be_understood__stops_the_driver_from_opening)
{
    char path[200];
    driver_close();
    snprintf(path, sizeof(path), "%s/nbd-vol9.json", state_dir);
    ok(lmo_fs_write_atomic(path, "{\"version\":1,", 13, 0600, err));
    fails(lmo_volume_nbd_open(qmp_path, state_dir, &drv, err), LMO_E_CORRUPT);
    ck_assert_ptr_null(drv);
}
END_TEST

START_TEST(second_driver_on_the_same_records__is_refused)
{
    struct lmo_volume_driver *second = NULL;
    fails(lmo_volume_nbd_open(qmp_path, state_dir, &second, err), LMO_E_BUSY);
}
END_TEST

/* ---------------------------------------------------------------- attach, detach, retire */

START_TEST(attached_hosts__both_reach_the_volume)
{
    two_hosts();
    int hv1 = session("vol1.hv1.e1");
    int hv2 = session("vol1.hv2.e2");
    ck_assert(hv1 >= 0 && hv2 >= 0);
    ck_assert(write_byte(hv1, 0, 0x11) && write_byte(hv2, 512, 0x22));
    ck_assert_uint_eq(on_disk(0), 0x11);
    ck_assert_uint_eq(on_disk(512), 0x22);
    ok(drv->ops->check(drv, "vol1", "vol1.hv1.e1", T, err));
    close(hv1);
    close(hv2);
}
END_TEST

START_TEST(asked_twice__nothing_changes)
{
    char name[LMO_EXPORT_MAX];
    two_hosts();
    int hv2 = session("vol1.hv2.e2");
    two_hosts();
    ck_assert(write_byte(hv2, 0, 0x22)); /* the session was not disturbed */
    ok(drv->ops->fence(drv, "vol1", "vol1.hv1.e1", T, err));
    ok(drv->ops->fence(drv, "vol1", "vol1.hv1.e1", T, err));
    ok(drv->ops->attach(drv, "vol1", "hv2", 2, name, T, err));
    ok(drv->ops->detach(drv, "vol1", "vol1.hv2.e2", T, err));
    ok(drv->ops->detach(drv, "vol1", "vol1.hv2.e2", T, err));
    ok(drv->ops->retire(drv, "vol1", T, err));
    ok(drv->ops->retire(drv, "vol1", T, err));
    close(hv2);
}
END_TEST

START_TEST(bad_requests__are_refused_and_change_nothing)
{
    char name[LMO_EXPORT_MAX] = "untouched";
    two_hosts();
    fails(drv->ops->provision(drv, "no/slash", image, "raw", "hv1", 1, name, T, err), LMO_E_INVALID);
    fails(drv->ops->provision(drv, "vol2", "relative", "raw", "hv1", 1, name, T, err), LMO_E_INVALID);
    fails(drv->ops->provision(drv, "vol2", image, "vmdk", "hv1", 1, name, T, err), LMO_E_INVALID);
    fails(drv->ops->provision(drv, "vol2", "/nonexistent/x", "raw", "hv1", 1, name, T, err), LMO_E_REFUSED);
    fails(drv->ops->provision(drv, "vol1", "/another/path", "raw", "hv1", 3, name, T, err), LMO_E_CONFLICT);
    fails(drv->ops->attach(drv, "vol3", "hv1", 3, name, T, err), LMO_E_NOT_FOUND);
    fails(drv->ops->attach(drv, "vol1", "h v1", 3, name, T, err), LMO_E_INVALID);
    fails(drv->ops->attach(drv, "vol1", "hv3", 1, name, T, err), LMO_E_STALE_EPOCH);
    fails(drv->ops->fence(drv, "vol1", "vol2.hv1.e1", T, err), LMO_E_INVALID);
    fails(drv->ops->check(drv, "vol1", "vol1.hv3.e3", T, err), LMO_E_REFUSED);
    ck_assert_str_eq(name, "untouched");
    struct lmo_volume_state st;
    ok(drv->ops->observe(drv, "vol1", &st, T, err));
    ck_assert_uint_eq(st.export_count, 2);
    fails(drv->ops->observe(drv, "vol2", &st, T, err), LMO_E_NOT_FOUND); /* nothing left of the failed one */
    driver_close();
    driver_open();
    fails(drv->ops->observe(drv, "vol2", &st, T, err), LMO_E_NOT_FOUND);
}
END_TEST

START_TEST(detach__withdraws_and_the_same_host_may_come_again_later)
{
    char name[LMO_EXPORT_MAX];
    two_hosts();
    int hv2 = session("vol1.hv2.e2");
    ok(drv->ops->detach(drv, "vol1", "vol1.hv2.e2", T, err));
    ck_assert(!write_byte(hv2, 0, 0x22));
    ck_assert_int_eq(session("vol1.hv2.e2"), -1);
    close(hv2);
    ok(drv->ops->attach(drv, "vol1", "hv2", 3, name, T, err));
    hv2 = session("vol1.hv2.e3");
    ck_assert(write_byte(hv2, 0, 0x22));
    close(hv2);
}
END_TEST

START_TEST(retired_volume__is_closed_by_the_service_and_forgotten)
{
    two_hosts();
    int hv1 = session("vol1.hv1.e1");
    ok(drv->ops->retire(drv, "vol1", T, err));
    ck_assert(!write_byte(hv1, 0, 0x11));
    close(hv1);
    struct lmo_volume_state st;
    fails(drv->ops->observe(drv, "vol1", &st, T, err), LMO_E_NOT_FOUND);
    two_hosts(); /* as new: no epoch is remembered, the file is free to be opened again */
}
END_TEST

START_TEST(observe__reports_what_the_service_has_also_what_nobody_recorded)
{
    two_hosts();
    ok(drv->ops->fence(drv, "vol1", "vol1.hv1.e1", T, err));
    driver_close(); /* a monitor serves one client at a time */
    struct lmo_nbd_service s;
    ok(lmo_nbd_service_open(&s, qmp_path, err));
    ok(lmo_qmp_await(s.qmp, T, err));
    ok(lmo_nbd_offer(&s, "vol1", "vol1.stranger.e9", lmo_nbd_now_ms() + T, err));
    lmo_nbd_service_close(&s);
    driver_open();
    struct lmo_volume_state st;
    ok(drv->ops->observe(drv, "vol1", &st, T, err));
    ck_assert_uint_eq(st.size_bytes, VOLUME_BYTES);
    ck_assert_str_eq(st.path, image);
    ck_assert_uint_eq(st.export_count, 3);
    ck_assert_str_eq(st.exports[0].name, "vol1.hv2.e2");
    ck_assert(st.exports[0].offered && !st.exports[0].fenced);
    ck_assert_str_eq(st.exports[1].name, "vol1.stranger.e9");
    ck_assert_str_eq(st.exports[1].host, "stranger");
    ck_assert(st.exports[1].offered && !st.exports[1].fenced);
    ck_assert_str_eq(st.exports[2].name, "vol1.hv1.e1");
    ck_assert(!st.exports[2].offered && st.exports[2].fenced);
}
END_TEST

/* ---------------------------------------------------------------- the fence */

START_TEST(fenced_host__can_write_neither_on_its_session_nor_on_a_new_one)
{
    two_hosts();
    int hv1 = session("vol1.hv1.e1");
    int hv2 = session("vol1.hv2.e2");
    ck_assert(write_byte(hv1, 0, 0x11));
    ok(drv->ops->fence(drv, "vol1", "vol1.hv1.e1", T, err));
    ck_assert(write_byte(hv2, 0, 0x22));
    ck_assert(!write_byte(hv1, 0, 0x11)); /* the delayed write, on the established session */
    ck_assert_int_eq(session("vol1.hv1.e1"), -1);
    ck_assert_uint_eq(on_disk(0), 0x22);
    ok(drv->ops->verify(drv, "vol1", "vol1.hv1.e1", "vol1.hv2.e2", T, err));
    close(hv1);
    close(hv2);
}
END_TEST

START_TEST(fenced_export__is_never_attached_again_by_anybody)
{
    char name[LMO_EXPORT_MAX];
    two_hosts();
    ok(drv->ops->fence(drv, "vol1", "vol1.hv1.e1", T, err));
    fails(drv->ops->attach(drv, "vol1", "hv1", 1, name, T, err), LMO_E_REFUSED);
    fails(drv->ops->provision(drv, "vol1", image, "raw", "hv1", 1, name, T, err), LMO_E_REFUSED);
    ok(drv->ops->detach(drv, "vol1", "vol1.hv1.e1", T, err)); /* clean-up does not lift it */
    fails(drv->ops->attach(drv, "vol1", "hv1", 1, name, T, err), LMO_E_REFUSED);
    ok(drv->ops->attach(drv, "vol1", "hv1", 3, name, T, err)); /* the way back is a new epoch */
}
END_TEST

START_TEST(verify__demands_the_fence_and_the_holder)
{
    two_hosts();
    fails(drv->ops->verify(drv, "vol1", "vol1.hv1.e1", "vol1.hv2.e2", T, err), LMO_E_CONFLICT);
    ok(drv->ops->fence(drv, "vol1", "vol1.hv1.e1", T, err));
    ok(drv->ops->verify(drv, "vol1", "vol1.hv1.e1", "vol1.hv2.e2", T, err));
    fails(drv->ops->verify(drv, "vol1", "vol1.hv1.e1", "vol1.hv3.e3", T, err), LMO_E_CONFLICT);
    ok(drv->ops->fence(drv, "vol1", "vol1.hv2.e2", T, err));
    fails(drv->ops->verify(drv, "vol1", "vol1.hv1.e1", "vol1.hv2.e2", T, err), LMO_E_CONFLICT);
}
END_TEST

START_TEST(service_restarted_right_after_the_fence__offers_the_holder_and_not_the_source)
{
    two_hosts();
    int hv1 = session("vol1.hv1.e1");
    ok(drv->ops->fence(drv, "vol1", "vol1.hv1.e1", T, err));
    service_kill();
    service_start();
    ok(drv->ops->verify(drv, "vol1", "vol1.hv1.e1", "vol1.hv2.e2", T, err));
    ck_assert_int_eq(session("vol1.hv1.e1"), -1);
    int hv2 = session("vol1.hv2.e2");
    ck_assert(hv2 >= 0 && write_byte(hv2, 0, 0x22));
    ck_assert(!write_byte(hv1, 0, 0x11));
    ck_assert_uint_eq(on_disk(0), 0x22);
    close(hv1);
    close(hv2);
}
END_TEST

START_TEST(service_that_comes_back__is_given_its_exports_without_being_asked)
{
    two_hosts();
    service_kill();
    service_start();
    int fd = -1;
    for (int i = 0; i < 500 && fd < 0; i++) { /* nobody calls the driver: its own thread does it */
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        int s = nbdw_connect(nbd_path);
        if (s >= 0 && nbdw_go(s, "vol1.hv1.e1", NULL) == 0)
            fd = s;
        else if (s >= 0)
            close(s);
    }
    ck_assert(fd >= 0 && write_byte(fd, 0, 0x11));
    close(fd);
}
END_TEST

START_TEST(fence_while_the_service_is_down__is_kept_and_said_to_be_unverified)
{
    two_hosts();
    service_kill();
    struct lmo_err e = {0};
    int r = LMO_E_BUSY; /* a short time; on a busy machine it may pass before the service was tried */
    for (uint64_t ms = 50; r == LMO_E_BUSY && ms < 10000; ms *= 2)
        r = drv->ops->fence(drv, "vol1", "vol1.hv1.e1", ms, &e);
    ck_assert_int_eq(r, LMO_E_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(e.text, "not verified"));
    driver_close(); /* and the worker restarts as well */
    service_start();
    driver_open();
    ok(drv->ops->check(drv, "vol1", "vol1.hv2.e2", T, err));
    ck_assert_int_eq(session("vol1.hv1.e1"), -1);
    ok(drv->ops->fence(drv, "vol1", "vol1.hv1.e1", T, err));
    ok(drv->ops->verify(drv, "vol1", "vol1.hv1.e1", "vol1.hv2.e2", T, err));
}
END_TEST

START_TEST(crash_between_the_record_and_the_deletion__the_export_is_deleted_on_restart)
{
    two_hosts();
    int hv1 = session("vol1.hv1.e1");
    driver_close(); /* the worker dies right after the record ... */
    struct lmo_nbd_volume v = {.name = "vol1", .format = "raw", .high_epoch = 2};
    snprintf(v.path, sizeof(v.path), "%s", image);
    ok(lmo_nbd_put(&v, "hv1", 1, LMO_NBD_FENCED, err));
    ok(lmo_nbd_put(&v, "hv2", 2, LMO_NBD_ATTACHED, err));
    ok(lmo_nbd_save(state_dir, &v, err));
    ck_assert(write_byte(hv1, 0, 0x11)); /* ... and the service was never asked */
    driver_open();
    ok(drv->ops->verify(drv, "vol1", "vol1.hv1.e1", "vol1.hv2.e2", T, err));
    ck_assert(!write_byte(hv1, 0, 0x12));
    ck_assert_uint_eq(on_disk(0), 0x11);
    close(hv1);
}
END_TEST

/* ---------------------------------------------------------------- what is in flight */

/* Adds a node for `volume` whose second write of 4 KiB in a second waits for about a second. */
static void add_slow_node(struct lmo_nbd_service *s, const char *volume)
{
    char node[LMO_NBD_NODE_MAX];
    lmo_nbd_node_name(node, volume);
    LMO_AUTO_JSON json_t *group =
        json_pack("{s:s, s:s, s:{s:i}}", "qom-type", "throttle-group", "id", "slow", "limits", "bps-write", 4096);
    ok(lmo_qmp_call(s->qmp, "object-add", group, T, NULL, err));
    LMO_AUTO_JSON json_t *add =
        json_pack("{s:s, s:s, s:s, s:{s:s, s:{s:s, s:s}}}", "driver", "throttle", "node-name", node, "throttle-group",
                  "slow", "file", "driver", "raw", "file", "driver", "file", "filename", image);
    ok(lmo_qmp_call(s->qmp, "blockdev-add", add, T, NULL, err));
}

START_TEST(write_in_flight__has_landed_before_the_fence_is_complete)
{
    driver_close();
    struct lmo_nbd_service s;
    ok(lmo_nbd_service_open(&s, qmp_path, err));
    ok(lmo_qmp_await(s.qmp, T, err));
    add_slow_node(&s, "slow");
    ok(lmo_nbd_offer(&s, "slow", "slow.hv1.e1", lmo_nbd_now_ms() + T, err));
    int hv1 = session("slow.hv1.e1");
    uint8_t request[NBDW_REQUEST_SIZE], block[4096];
    for (int i = 0; i < 3; i++) { /* one passes, the others are held by the node for a second each */
        memset(block, 0x31 + i, sizeof(block));
        nbdw_request(request, NBDW_CMD_WRITE, (uint64_t)i, (uint64_t)i * 4096, sizeof(block));
        ck_assert(nbdw_send(hv1, request, sizeof(request)) && nbdw_send(hv1, block, sizeof(block)));
    }
    ck_assert(nbdw_recv(hv1, request, NBDW_SIMPLE_REPLY_SIZE));
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* the service has read them all by now */
    ck_assert_uint_eq(on_disk(8192), 0);

    /* Not complete while they are held: the deletion is asked for, and nothing more can be said. */
    fails(lmo_nbd_withdraw(&s, "slow.hv1.e1", lmo_nbd_now_ms() + 100, err), LMO_E_TIMEOUT);
    enum lmo_nbd_seen seen;
    ok(lmo_nbd_look_one(&s, "slow.hv1.e1", &seen, lmo_nbd_now_ms() + T, err));
    ck_assert_int_eq((int)seen, LMO_NBD_DRAINING);
    ck_assert_int_eq(session("slow.hv1.e1"), -1); /* nothing new gets in meanwhile */
    ck_assert_uint_eq(on_disk(8192), 0);

    ok(lmo_nbd_withdraw(&s, "slow.hv1.e1", lmo_nbd_now_ms() + T, err));
    ck_assert_uint_eq(on_disk(4096), 0x32);
    ck_assert_uint_eq(on_disk(8192), 0x33);
    close(hv1);
    lmo_nbd_service_close(&s);
}
END_TEST

/* A service that loses the connection on block-export-del, with or without having done it. */
struct forgetful {
    bool did_it;
    unsigned looks, deletions;
};

static bool forget(struct fake_qmp *f, unsigned connection, const char *command, const json_t *message)
{
    struct forgetful *g = f->arg;
    if (strcmp(command, "block-export-del") == 0) {
        g->deletions++;
        if (connection == 1)
            return false;
        if (g->did_it)
            fake_qmp_error(f, message, "GenericError", "Export 'vol1.hv1.e1' is not found");
        else {
            fake_qmp_return(f, message, "{}");
            fake_qmp_event(f, "BLOCK_EXPORT_DELETED", "{\"id\": \"vol1.hv1.e1\"}");
        }
    } else if (strcmp(command, "query-block-exports") == 0) {
        g->looks++;
        fake_qmp_return(f, message, "[]");
    }
    return true;
}

static void lose_a_reply(struct forgetful *g)
{
    struct fake_qmp f = {.handle = forget, .arg = g};
    struct lmo_nbd_service s;
    snprintf(f.path, sizeof(f.path), "%s/fake", dir);
    fake_qmp_start(&f);
    ok(lmo_nbd_service_open(&s, f.path, err));
    ok(lmo_nbd_withdraw(&s, "vol1.hv1.e1", lmo_nbd_now_ms() + T, err));
    lmo_nbd_service_close(&s);
    fake_qmp_stop(&f);
}

START_TEST(lost_reply_to_a_deletion_that_was_done__is_settled_by_looking)
{
    struct forgetful g = {.did_it = true};
    lose_a_reply(&g);
    ck_assert_uint_eq(g.deletions, 2);
    ck_assert_uint_ge(g.looks, 1);
}
END_TEST

START_TEST(lost_reply_to_a_deletion_that_was_not_done__is_asked_again)
{
    struct forgetful g = {.did_it = false};
    lose_a_reply(&g);
    ck_assert_uint_eq(g.deletions, 2);
}
END_TEST

static bool refuse_deletion(struct fake_qmp *f, unsigned connection, const char *command, const json_t *message)
{
    (void)connection;
    if (strcmp(command, "query-block-exports") == 0)
        fake_qmp_return(f, message,
                        "[{\"node-name\": \"v-vol1\", \"shutting-down\": false, \"type\": \"nbd\", "
                        "\"id\": \"vol1.hv1.e1\"}]");
    else
        fake_qmp_error(f, message, "GenericError", "not today");
    return true;
}

START_TEST(service_that_refuses_the_deletion__is_no_fence)
{
    struct fake_qmp f = {.handle = refuse_deletion};
    struct lmo_nbd_service s;
    struct lmo_err e = {0};
    snprintf(f.path, sizeof(f.path), "%s/fake", dir);
    fake_qmp_start(&f);
    ok(lmo_nbd_service_open(&s, f.path, err));
    ck_assert_int_eq(lmo_nbd_withdraw(&s, "vol1.hv1.e1", lmo_nbd_now_ms() + T, &e), LMO_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(e.text, "not today"));
    lmo_nbd_service_close(&s);
    fake_qmp_stop(&f);
}
END_TEST

/* Answers everything with success, and looks into the volume's record when it is asked to delete. */
static bool look_at_the_record(struct fake_qmp *f, unsigned connection, const char *command, const json_t *message)
{
    (void)connection;
    char path[200];
    LMO_AUTO_FREE char *record = NULL;
    snprintf(path, sizeof(path), "%s/nbd-vol1.json", state_dir);
    if (strcmp(command, "query-block-exports") == 0) {
        fake_qmp_return(f, message, "[]");
        return true;
    }
    fake_qmp_return(f, message, "{}");
    if (strcmp(command, "block-export-del") == 0) {
        bool found = lmo_fs_read_file(path, 65536, &record, NULL, NULL) == 0 && strstr(record, "\"fenced\"");
        atomic_store((_Atomic int *)f->arg, found ? 1 : -1);
        fake_qmp_event(f, "BLOCK_EXPORT_DELETED", "{\"id\": \"vol1.hv1.e1\"}");
    }
    return true;
}

START_TEST(fence__is_on_disk_before_the_service_is_asked)
{
    driver_close();
    _Atomic int recorded = 0;
    struct fake_qmp f = {.handle = look_at_the_record, .arg = &recorded};
    snprintf(f.path, sizeof(f.path), "%s/fake", dir);
    fake_qmp_start(&f);
    char name[LMO_EXPORT_MAX];
    ok(lmo_volume_nbd_open(f.path, state_dir, &drv, err));
    ok(drv->ops->provision(drv, "vol1", image, "raw", "hv1", 1, name, T, err));
    ok(drv->ops->fence(drv, "vol1", "vol1.hv1.e1", T, err));
    ck_assert_int_eq(atomic_load(&recorded), 1);
    driver_close();
    fake_qmp_stop(&f);
}
END_TEST

/* ---------------------------------------------------------------- several at once */

struct job {
    pthread_t thread;
    char volume[32], export_name[LMO_EXPORT_MAX];
    uint64_t epoch;
    int rc;
};

static void *run_fence(void *arg)
{
    struct job *j = arg;
    j->rc = drv->ops->fence(drv, j->volume, j->export_name, T, NULL);
    return NULL;
}

static void *run_attach(void *arg)
{
    struct job *j = arg;
    char name[LMO_EXPORT_MAX];
    j->rc = drv->ops->attach(drv, j->volume, "hv1", j->epoch, name, T, NULL);
    return NULL;
}

START_TEST(sixteen_volumes__are_fenced_in_parallel)
{
    struct job jobs[LMO_VOLUMES_MAX];
    for (int i = 0; i < LMO_VOLUMES_MAX; i++) {
        char path[160];
        jobs[i] = (struct job){.rc = 1};
        snprintf(jobs[i].volume, sizeof(jobs[i].volume), "%d-many", i);
        snprintf(path, sizeof(path), "%s/%s.img", dir, jobs[i].volume);
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        ck_assert(fd >= 0 && ftruncate(fd, VOLUME_BYTES) == 0);
        close(fd);
        ok(drv->ops->provision(drv, jobs[i].volume, path, "raw", "hv1", 1, jobs[i].export_name, T, err));
    }
    for (int i = 0; i < LMO_VOLUMES_MAX; i++)
        ck_assert_int_eq(pthread_create(&jobs[i].thread, NULL, run_fence, &jobs[i]), 0);
    for (int i = 0; i < LMO_VOLUMES_MAX; i++) {
        pthread_join(jobs[i].thread, NULL);
        ck_assert_int_eq(jobs[i].rc, 0);
        ck_assert_int_eq(session(jobs[i].export_name), -1);
    }
}
END_TEST

START_TEST(attach_that_races_with_its_fence__never_leaves_the_export_offered)
{
    char name[LMO_EXPORT_MAX];
    two_hosts();
    for (uint64_t epoch = 3; epoch < 13; epoch++) {
        struct job attach = {.volume = "vol1", .epoch = epoch}, fence = {.volume = "vol1"};
        lmo_nbd_export_name(fence.export_name, "vol1", "hv1", epoch);
        ck_assert_int_eq(pthread_create(&attach.thread, NULL, run_attach, &attach), 0);
        ck_assert_int_eq(pthread_create(&fence.thread, NULL, run_fence, &fence), 0);
        pthread_join(attach.thread, NULL);
        pthread_join(fence.thread, NULL);
        ck_assert_int_eq(fence.rc, 0);
        ck_assert(attach.rc == 0 || attach.rc == LMO_E_REFUSED);
        ck_assert_int_eq(session(fence.export_name), -1);
    }
    ok(drv->ops->attach(drv, "vol1", "hv1", 20, name, T, err));
}
END_TEST

static _Atomic bool hammering;

static void *hammer(void *arg)
{
    (void)arg;
    while (atomic_load(&hammering)) {
        struct lmo_volume_state st;
        int rc = drv->ops->check(drv, "vol1", "vol1.hv2.e2", 200, NULL);
        if (rc == 0)
            rc = drv->ops->observe(drv, "vol1", &st, 200, NULL);
        (void)rc; /* any answer will do while the service comes and goes */
    }
    return NULL;
}

START_TEST(fence_amid_restarts_of_the_service__holds_at_the_end)
{
    pthread_t thread;
    two_hosts();
    atomic_store(&hammering, true);
    ck_assert_int_eq(pthread_create(&thread, NULL, hammer, NULL), 0);
    service_kill();
    service_start();
    ok(drv->ops->fence(drv, "vol1", "vol1.hv1.e1", T, err));
    for (int i = 0; i < 3; i++) {
        service_kill();
        service_start();
        ok(drv->ops->verify(drv, "vol1", "vol1.hv1.e1", "vol1.hv2.e2", T, err));
        ck_assert_int_eq(session("vol1.hv1.e1"), -1);
    }
    atomic_store(&hammering, false);
    pthread_join(thread, NULL);
}
END_TEST

Suite *volume_nbd_suite(void)
{
    Suite *s = suite_create("volume_nbd");
    TCase *names = tcase_create("names");
    tcase_add_test(names, export_name__survives_the_way_there_and_back);
    tcase_add_test(names, export_name_in_any_other_spelling__is_refused);
    tcase_add_test(names, id_of_an_export__is_well_formed_whatever_the_volumes_name);
    tcase_add_test(names, node_name_of_a_long_volume__fits_and_differs);
    tcase_add_test(names, full_record__folds_the_oldest_fence_and_still_refuses_it);
    suite_add_tcase(s, names);
    TCase *tc = tcase_create("service");
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, record_that_cannot_be_understood__stops_the_driver_from_opening);
    tcase_add_test(tc, second_driver_on_the_same_records__is_refused);
    tcase_add_test(tc, attached_hosts__both_reach_the_volume);
    tcase_add_test(tc, asked_twice__nothing_changes);
    tcase_add_test(tc, bad_requests__are_refused_and_change_nothing);
    tcase_add_test(tc, detach__withdraws_and_the_same_host_may_come_again_later);
    tcase_add_test(tc, retired_volume__is_closed_by_the_service_and_forgotten);
    tcase_add_test(tc, observe__reports_what_the_service_has_also_what_nobody_recorded);
    tcase_add_test(tc, fenced_host__can_write_neither_on_its_session_nor_on_a_new_one);
    tcase_add_test(tc, fenced_export__is_never_attached_again_by_anybody);
    tcase_add_test(tc, verify__demands_the_fence_and_the_holder);
    tcase_add_test(tc, service_restarted_right_after_the_fence__offers_the_holder_and_not_the_source);
    tcase_add_test(tc, service_that_comes_back__is_given_its_exports_without_being_asked);
    tcase_add_test(tc, fence_while_the_service_is_down__is_kept_and_said_to_be_unverified);
    tcase_add_test(tc, crash_between_the_record_and_the_deletion__the_export_is_deleted_on_restart);
    tcase_add_test(tc, write_in_flight__has_landed_before_the_fence_is_complete);
    tcase_add_test(tc, lost_reply_to_a_deletion_that_was_done__is_settled_by_looking);
    tcase_add_test(tc, lost_reply_to_a_deletion_that_was_not_done__is_asked_again);
    tcase_add_test(tc, service_that_refuses_the_deletion__is_no_fence);
    tcase_add_test(tc, fence__is_on_disk_before_the_service_is_asked);
    tcase_add_test(tc, sixteen_volumes__are_fenced_in_parallel);
    tcase_add_test(tc, attach_that_races_with_its_fence__never_leaves_the_export_offered);
    tcase_add_test(tc, fence_amid_restarts_of_the_service__holds_at_the_end);
    suite_add_tcase(s, tc);
    return s;
}
