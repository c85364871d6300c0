/* test_tools.c - the test tools themselves: a proxy or a checker that sees nothing would make every other test pass.
 *
 * The programs are run as they are built, from the directory of this test's own binary. */
#include "deploy/lab/guest/record.h"
#include "tests/tools/nbdwire.h"

#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <libgen.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

Suite *tools_suite(void);

#define VOLUME_BYTES (64 * 4096)

static char dir[64], bin[512];
static pid_t service, proxy, echo;
static int upstream_port, proxy_port;

/* ---------------------------------------------------------------- processes */

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert(fd >= 0 && bind(fd, (struct sockaddr *)&a, len) == 0 &&
              getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    close(fd);
    return ntohs(a.sin_port);
}

static pid_t spawn(const char *const argv[])
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        char log[128];
        snprintf(log, sizeof(log), "%s/log", dir);
        dup2(open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), 2);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    return pid;
}

static void end(pid_t *pid)
{
    if (*pid > 0) {
        kill(*pid, SIGKILL);
        waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

static const char *in_dir(const char *name)
{
    static char path[8][160];
    static unsigned next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    return p;
}

static void tool_path(char *ret, size_t size, const char *name)
{
    snprintf(ret, size, "%s/%s", bin, name);
    ck_assert_msg(access(ret, X_OK) == 0, "%s is not built; build all targets", ret);
}

/* Runs a tool to its end and parses what it prints. */
static json_t *run(int *ret_code, const char *tool, ...)
{
    char path[600], text[1 << 16];
    const char *argv[16] = {path};
    int fds[2];
    va_list ap;
    va_start(ap, tool);
    for (int i = 1; i < 15 && (argv[i] = va_arg(ap, const char *)) != NULL; i++)
        continue;
    va_end(ap);
    tool_path(path, sizeof(path), tool);
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        dup2(fds[1], 1);
        execv(path, (char *const *)argv);
        _exit(127);
    }
    close(fds[1]);
    size_t len = 0;
    for (ssize_t n; len < sizeof(text) && (n = read(fds[0], text + len, sizeof(text) - len)) > 0;)
        len += (size_t)n;
    close(fds[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    if (ret_code)
        *ret_code = WEXITSTATUS(status);
    json_error_t error;
    json_t *json = json_loadb(text, len, 0, &error);
    ck_assert_msg(json != NULL, "%s printed no JSON (%s): %.*s", tool, error.text, (int)len, text);
    return json;
}

static json_int_t integer(const json_t *json, const char *key)
{
    const json_t *value = json_object_get(json, key);
    ck_assert_msg(json_is_integer(value), "no number '%s'", key);
    return json_integer_value(value);
}

static const char *string(const json_t *json, const char *key)
{
    const char *value = json_string_value(json_object_get(json, key));
    ck_assert_msg(value != NULL, "no text '%s'", key);
    return value;
}

/* ---------------------------------------------------------------- a service behind a proxy */

/* QMP by hand, one command, one line back that is no event. */
static void qmp(const char *command)
{
    char buf[4096];
    int fd = nbdw_connect(in_dir("qmp"));
    ck_assert_int_ge(fd, 0);
    ck_assert(recv(fd, buf, sizeof(buf), 0) > 0);
    ck_assert(nbdw_send(fd, "{\"execute\":\"qmp_capabilities\"}\n", 31) && recv(fd, buf, sizeof(buf), 0) > 0);
    ck_assert(nbdw_send(fd, command, strlen(command)) && nbdw_send(fd, "\n", 1));
    size_t len = 0;
    do {
        ssize_t n = recv(fd, buf + len, sizeof(buf) - 1 - len, 0);
        ck_assert(n > 0);
        len += (size_t)n;
        buf[len] = '\0';
    } while (!strstr(buf, "\"return\"") && !strstr(buf, "\"error\""));
    ck_assert_msg(strstr(buf, "\"error\"") == NULL, "%s: %s", command, buf);
    close(fd);
}

static void await_socket(const char *address)
{
    for (int i = 0; i < 500; i++) {
        int fd = nbdw_connect(address);
        if (fd >= 0) {
            close(fd);
            return;
        }
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    ck_abort_msg("nothing listens on %s", address);
}

static void address_of(char ret[32], int port)
{
    snprintf(ret, 32, "127.0.0.1:%d", port);
}

static void start_service(void)
{
    char chardev[200], server[100], blockdev[200], listen[32], upstream[32], path[600];
    int fd = open(in_dir("vol.raw"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert(fd >= 0 && ftruncate(fd, VOLUME_BYTES) == 0);
    close(fd);
    upstream_port = free_port();
    proxy_port = free_port();
    address_of(listen, proxy_port);
    address_of(upstream, upstream_port);
    snprintf(chardev, sizeof(chardev), "socket,path=%s,server=on,wait=off,id=m", in_dir("qmp"));
    snprintf(server, sizeof(server), "addr.type=inet,addr.host=127.0.0.1,addr.port=%d,max-connections=0",
             upstream_port);
    snprintf(blockdev, sizeof(blockdev), "driver=raw,node-name=n,file.driver=file,file.filename=%s", in_dir("vol.raw"));
    service = spawn((const char *const[]){"qemu-storage-daemon", "--chardev", chardev, "--monitor", "chardev=m",
                                          "--nbd-server", server, "--blockdev", blockdev, "--export",
                                          "type=nbd,id=vol.hv1.e1,node-name=n,name=vol.hv1.e1,writable=on", "--export",
                                          "type=nbd,id=vol.hv2.e2,node-name=n,name=vol.hv2.e2,writable=on", NULL});
    await_socket(upstream);
    tool_path(path, sizeof(path), "nbdproxy");
    char control[160], history[160];
    snprintf(control, sizeof(control), "%s", in_dir("control"));
    snprintf(history, sizeof(history), "%s", in_dir("history"));
    proxy = spawn((const char *const[]){path, "--listen", listen, "--upstream", upstream, "--control", control,
                                        "--history", history, NULL});
    await_socket(control);
}

static json_t *control(const char *command, const char *argument)
{
    char path[160];
    snprintf(path, sizeof(path), "%s", in_dir("control"));
    return run(NULL, "nbdproxy", "--ctl", path, command, argument, NULL);
}

static void order(const char *command, const char *argument)
{
    json_decref(control(command, argument));
}

static int session(const char *export_name)
{
    char address[32];
    address_of(address, proxy_port);
    int fd = nbdw_connect(address);
    ck_assert(fd >= 0);
    ck_assert_int_eq(nbdw_go(fd, export_name, NULL), 0);
    return fd;
}

static void make_record(uint8_t block[RECORD_SLOT], uint64_t seq)
{
    struct record r = {.magic = RECORD_MAGIC, .seq = seq, .slots = VOLUME_BYTES / RECORD_SLOT};
    r.crc = record_crc(&r, offsetof(struct record, crc));
    memset(block, 0, RECORD_SLOT);
    memcpy(block, &r, sizeof(r));
}

static uint64_t slot_of(uint64_t seq)
{
    return seq % (VOLUME_BYTES / RECORD_SLOT) * RECORD_SLOT;
}

static int write_record(int fd, uint64_t seq)
{
    uint8_t block[RECORD_SLOT];
    make_record(block, seq);
    return nbdw_io(fd, NBDW_CMD_WRITE, slot_of(seq), block, sizeof(block));
}

/* Sends the request and does not wait for the reply. */
static void post_record(int fd, uint64_t seq)
{
    uint8_t block[RECORD_SLOT], head[NBDW_REQUEST_SIZE];
    make_record(block, seq);
    nbdw_request(head, NBDW_CMD_WRITE, seq, slot_of(seq), sizeof(block));
    ck_assert(nbdw_send(fd, head, sizeof(head)) && nbdw_send(fd, block, sizeof(block)));
}

static uint64_t on_disk(uint64_t seq)
{
    struct record r = {0};
    int fd = open(in_dir("vol.raw"), O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq((int)pread(fd, &r, sizeof(r), (off_t)slot_of(seq)), (int)sizeof(r));
    close(fd);
    return r.seq;
}

static void fence_hv1(void)
{
    qmp("{\"execute\":\"block-export-del\",\"arguments\":{\"id\":\"vol.hv1.e1\",\"mode\":\"hard\"}}");
}

static json_t *judge_history(int *ret_code)
{
    order("quit", NULL); /* the history is complete then */
    waitpid(proxy, NULL, 0);
    proxy = 0;
    char history[160];
    snprintf(history, sizeof(history), "%s", in_dir("history"));
    return run(ret_code, "volcheck", "--history", history, NULL);
}

static void set_up(void)
{
    char self[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    ck_assert(n > 0);
    self[n] = '\0';
    snprintf(bin, sizeof(bin), "%s", dirname(self));
    snprintf(dir, sizeof(dir), "/tmp/lmo-tools-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
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
    end(&proxy);
    end(&service);
    end(&echo);
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---------------------------------------------------------------- nbdproxy */

START_TEST(proxy__passes_data_unchanged_and_records_every_write)
{
    start_service();
    int hv1 = session("vol.hv1.e1");
    uint8_t out[VOLUME_BYTES], in[VOLUME_BYTES];
    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 31 >> 3);
    ck_assert_int_eq(nbdw_io(hv1, NBDW_CMD_WRITE, 0, out, sizeof(out)), 0);
    ck_assert_int_eq(nbdw_io(hv1, NBDW_CMD_READ, 0, in, sizeof(in)), 0);
    ck_assert_mem_eq(in, out, sizeof(in));
    for (uint64_t seq = 1; seq <= 100; seq++)
        ck_assert_int_eq(write_record(hv1, seq), 0);
    close(hv1);
    int code = -1;
    json_t *verdict = judge_history(&code);
    const json_t *history = json_object_get(verdict, "history");
    ck_assert_int_eq(integer(history, "writes"), 101);
    ck_assert_int_eq(integer(history, "conflicts") + integer(history, "lost"), 0);
    ck_assert_int_eq(code, 0);
    json_decref(verdict);
}
END_TEST

START_TEST(held_write__is_refused_after_the_fence_and_never_lands)
{
    start_service();
    int hv1 = session("vol.hv1.e1");
    int hv2 = session("vol.hv2.e2");
    ck_assert_int_eq(write_record(hv1, 1), 0);
    order("hold", "vol.hv1.e1");
    post_record(hv1, 2);                       /* issued before the fence, on the established session */
    ck_assert_int_eq(write_record(hv2, 3), 0); /* the other host is not held */
    fence_hv1();
    json_t *released = control("release", NULL);
    const json_t *item = json_array_get(json_object_get(released, "items"), 0);
    ck_assert_int_eq(integer(released, "accepted"), 0);
    ck_assert_int_eq(integer(item, "seq"), 2);
    ck_assert_str_eq(string(item, "session"), "closed_by_service");
    ck_assert_str_eq(string(item, "reply"), "none");
    ck_assert(strncmp(string(item, "reconnect"), "refused", 7) == 0);
    json_decref(released);
    ck_assert_uint_eq(on_disk(2), 0);
    close(hv1);
    close(hv2);
}
END_TEST

START_TEST(held_write__lands_when_nobody_fenced)
{
    start_service();
    int hv1 = session("vol.hv1.e1");
    order("hold", NULL);
    post_record(hv1, 2);
    uint8_t reply[NBDW_SIMPLE_REPLY_SIZE];
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    ck_assert(recv(hv1, reply, sizeof(reply), MSG_DONTWAIT) < 0);
    ck_assert_uint_eq(on_disk(2), 0);
    json_t *released = control("release", NULL);
    ck_assert_int_eq(integer(released, "accepted"), 1);
    json_decref(released);
    ck_assert(nbdw_recv(hv1, reply, sizeof(reply)));
    ck_assert_uint_eq(on_disk(2), 2);
    close(hv1);
}
END_TEST

START_TEST(captured_copy__is_written_a_second_time_unless_fenced)
{
    start_service();
    int hv1 = session("vol.hv1.e1");
    int hv2 = session("vol.hv2.e2");
    order("capture", "vol.hv1.e1");
    ck_assert_int_eq(write_record(hv1, 5), 0);  /* passes, a copy stays */
    ck_assert_int_eq(write_record(hv1, 69), 0); /* the same slot */
    json_t *released = control("release", NULL);
    ck_assert_int_eq(integer(released, "accepted"), 1);
    json_decref(released);
    ck_assert_uint_eq(on_disk(5), 5);           /* the old one came back: what a late write does */
    ck_assert_int_eq(write_record(hv1, 69), 0); /* the guest's session is as it was */

    order("capture", "vol.hv1.e1");
    ck_assert_int_eq(write_record(hv1, 133), 0);
    fence_hv1();
    ck_assert_int_eq(write_record(hv2, 197), 0);
    released = control("release", NULL);
    ck_assert_int_eq(integer(released, "accepted"), 0);
    json_decref(released);
    ck_assert_uint_eq(on_disk(5), 197);
    close(hv1);
    close(hv2);
}
END_TEST

/* ---------------------------------------------------------------- volcheck */

START_TEST(two_writers__are_found_in_the_history)
{
    start_service();
    int hv1 = session("vol.hv1.e1");
    int hv2 = session("vol.hv2.e2");
    for (uint64_t seq = 1; seq <= 10; seq++)
        ck_assert_int_eq(write_record(hv1, seq), 0);
    for (uint64_t seq = 11; seq <= 15; seq++) {
        ck_assert_int_eq(write_record(hv2, seq), 0);
        ck_assert_int_eq(write_record(hv1, seq), 0);
    }
    close(hv1);
    close(hv2);
    int code = -1;
    json_t *verdict = judge_history(&code);
    const json_t *history = json_object_get(verdict, "history");
    ck_assert_int_eq(integer(history, "conflicts"), 5);
    ck_assert(json_real_value(json_object_get(history, "overlap_s")) > 0);
    ck_assert_int_eq(code, 1);
    json_decref(verdict);
}
END_TEST

START_TEST(handover_between_hosts__is_no_conflict)
{
    start_service();
    int hv1 = session("vol.hv1.e1");
    int hv2 = session("vol.hv2.e2");
    for (uint64_t seq = 1; seq <= 20; seq++)
        ck_assert_int_eq(write_record(seq <= 10 ? hv1 : hv2, seq), 0);
    close(hv1);
    close(hv2);
    int code = -1;
    json_t *verdict = judge_history(&code);
    const json_t *history = json_object_get(verdict, "history");
    ck_assert_int_eq(integer(history, "conflicts"), 0);
    ck_assert(json_real_value(json_object_get(history, "overlap_s")) <= 0);
    ck_assert_int_eq(code, 0);
    json_decref(verdict);
}
END_TEST

/* Writes records straight into the file, without any service. */
static void fill_volume(uint64_t from, uint64_t to, uint64_t skip)
{
    uint8_t block[RECORD_SLOT];
    int fd = open(in_dir("vol.raw"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert(fd >= 0 && ftruncate(fd, VOLUME_BYTES) == 0);
    for (uint64_t seq = from; seq <= to; seq++) {
        make_record(block, seq);
        if (seq != skip)
            ck_assert_int_eq((int)pwrite(fd, block, sizeof(block), (off_t)slot_of(seq)), (int)sizeof(block));
    }
    close(fd);
}

static json_t *judge_volume(int *ret_code)
{
    char path[160];
    snprintf(path, sizeof(path), "%s", in_dir("vol.raw"));
    json_t *verdict = run(ret_code, "volcheck", "--volume", path, NULL);
    json_t *volume = json_incref(json_object_get(verdict, "volume"));
    json_decref(verdict);
    return volume;
}

START_TEST(volume_as_the_guest_wrote_it__is_in_order)
{
    int code = -1;
    fill_volume(1, 1000, 0);
    json_t *volume = judge_volume(&code);
    ck_assert_int_eq(integer(volume, "writes"), 1000);
    ck_assert_int_eq(integer(volume, "gaps") + integer(volume, "reordered") + integer(volume, "torn"), 0);
    ck_assert_int_eq(code, 0);
    json_decref(volume);
}
END_TEST

START_TEST(lost_write__is_a_gap)
{
    int code = -1;
    fill_volume(1, 1000, 990);
    json_t *volume = judge_volume(&code);
    ck_assert_int_eq(integer(volume, "gaps"), 1);
    ck_assert_int_eq(code, 1);
    json_decref(volume);
}
END_TEST

START_TEST(stale_write_that_landed__is_found)
{
    int code = -1;
    fill_volume(1, 1000, 0);
    fill_volume(930, 930, 0); /* over 994, as a delayed write would */
    json_t *volume = judge_volume(&code);
    ck_assert_int_eq(integer(volume, "gaps"), 1);
    ck_assert_int_eq(code, 1);
    json_decref(volume);
}
END_TEST

/* ---------------------------------------------------------------- probe and streamcheck */

/* Echoes UDP datagrams, but drops every tenth and sends every fifteenth twice. */
static int start_echo(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert(fd >= 0 && bind(fd, (struct sockaddr *)&a, len) == 0 &&
              getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    echo = fork();
    if (echo == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (unsigned n = 1;; n++) {
            char data[2048];
            struct sockaddr_in from;
            socklen_t from_len = sizeof(from);
            ssize_t got = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &from_len);
            for (int i = 0; got > 0 && n % 10 != 0 && i < (n % 15 == 0 ? 2 : 1); i++)
                sendto(fd, data, (size_t)got, 0, (struct sockaddr *)&from, from_len);
        }
    }
    close(fd);
    return ntohs(a.sin_port);
}

START_TEST(probe__counts_what_was_lost_and_doubled)
{
    char port[16];
    snprintf(port, sizeof(port), "%d", start_echo());
    json_t *r = run(NULL, "probe", "127.0.0.1", "-p", port, "-i", "2", "-d", "0.2", "-g", "0.3", NULL);
    ck_assert_int_eq(integer(r, "sent"), 100);
    ck_assert_int_eq(integer(r, "lost"), 10);
    ck_assert_int_eq(integer(r, "dup"), 3); /* 15, 45, 75; 30, 60 and 90 are dropped */
    ck_assert_uint_eq(json_array_size(json_object_get(r, "lost_sent_us")), 10);
    json_decref(r);
}
END_TEST

START_TEST(probe__that_nobody_answers_loses_all_and_says_how_long)
{
    json_t *r = run(NULL, "probe", "127.0.0.1", "-p", "9", "-i", "2", "-d", "0.1", "-g", "0", NULL);
    ck_assert_int_eq(integer(r, "sent"), 50);
    ck_assert_int_eq(integer(r, "lost"), 50);
    ck_assert_uint_eq(json_array_size(json_object_get(r, "lost_sent_us")), 50);
    ck_assert(json_real_value(json_object_get(r, "longest_gap_ms")) > 0); /* 100 ms, less on a busy machine that begins late */
    json_decref(r);
}
END_TEST

/* A stream server of two connections: the first ends with a reset after a line is left out, the second goes on. */
static int start_stream(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert(fd >= 0 && bind(fd, (struct sockaddr *)&a, len) == 0 && listen(fd, 4) == 0 &&
              getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    echo = fork();
    if (echo == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int round = 0; round < 2; round++) {
            int c = accept(fd, NULL, NULL);
            char text[256] = "LMO-GUEST 1 boot=11111111-2222\n";
            nbdw_send(c, text, strlen(text));
            for (int n = 0; n < 10; n++) {
                if (round == 0 && n == 5)
                    continue;
                snprintf(text, sizeof(text), "%d %d %d 0 0 0 7 123\n", n, round * 10 + n, 100 + round * 10 + n);
                nbdw_send(c, text, strlen(text));
            }
            if (round == 0) {
                nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
                setsockopt(c, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
                close(c);
            }
        }
        for (;;)
            pause();
    }
    close(fd);
    return ntohs(a.sin_port);
}

START_TEST(streamcheck__counts_missing_lines_and_resets)
{
    char port[16];
    snprintf(port, sizeof(port), "%d", start_stream());
    json_t *r = run(NULL, "streamcheck", "127.0.0.1", "-p", port, "-d", "0.6", NULL);
    ck_assert_int_eq(integer(r, "records"), 19);
    ck_assert_int_eq(integer(r, "missing"), 1);
    ck_assert_int_eq(integer(r, "resets"), 1);
    ck_assert_int_eq(integer(r, "reconnects"), 1);
    ck_assert_int_eq(integer(r, "malformed"), 0);
    ck_assert_int_eq(integer(json_object_get(r, "disk"), "seq_last"), 119);
    json_decref(r);
}
END_TEST

Suite *tools_suite(void)
{
    Suite *s = suite_create("tools");
    TCase *tc = tcase_create("tools");
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, proxy__passes_data_unchanged_and_records_every_write);
    tcase_add_test(tc, held_write__is_refused_after_the_fence_and_never_lands);
    tcase_add_test(tc, held_write__lands_when_nobody_fenced);
    tcase_add_test(tc, captured_copy__is_written_a_second_time_unless_fenced);
    tcase_add_test(tc, two_writers__are_found_in_the_history);
    tcase_add_test(tc, handover_between_hosts__is_no_conflict);
    tcase_add_test(tc, volume_as_the_guest_wrote_it__is_in_order);
    tcase_add_test(tc, lost_write__is_a_gap);
    tcase_add_test(tc, stale_write_that_landed__is_found);
    tcase_add_test(tc, probe__counts_what_was_lost_and_doubled);
    tcase_add_test(tc, probe__that_nobody_answers_loses_all_and_says_how_long);
    tcase_add_test(tc, streamcheck__counts_missing_lines_and_resets);
    suite_add_tcase(s, tc);
    return s;
}
