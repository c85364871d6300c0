/* test_freeze_evidence.c - the kernel behaviour that the freeze evidence rests on, on a process that looks like QEMU:
 * threads named as QEMU names its vCPUs, waiting on a condition variable; a "-uuid" in its command line; a monitor. */
#include "workers/drivers/hypervisor_libvirt_process.h"

#include "base/clock.h"
#include "suites.h"

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define UUID    "60566b40-90e5-55d3-a984-29b14134ce80"
#define VCPUS   2
#define WAIT_MS 5000

/* ------------------------------------------------------------------ the other process */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t halt = PTHREAD_COND_INITIALIZER;
static unsigned rounds;

static void *vcpu_main(void *arg)
{
    char name[16];
    (void)snprintf(name, sizeof name, "CPU %d/TCG", *(int *)arg);
    (void)prctl(PR_SET_NAME, name);
    pthread_mutex_lock(&lock);
    for (;;) {
        pthread_cond_wait(&halt, &lock);
        rounds++;
    }
    return NULL;
}

/* Orders on `in`: 'w' wakes all vCPUs, 'c' closes the monitor, 's' writes "RESUME" to it. Each is answered by a byte. */
static _Noreturn void guest_main(int in, int out, const char *monitor_path)
{
    static int ids[VCPUS];
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), monitor;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    (void)snprintf(name.sun_path, sizeof name.sun_path, "%s", monitor_path);
    if (bind(listener, (struct sockaddr *)&name, sizeof name) < 0 || listen(listener, 1) < 0)
        _exit(2);
    if (write(out, "l", 1) != 1)
        _exit(3);
    monitor = accept(listener, NULL, NULL);
    for (int i = 0; i < VCPUS; i++) {
        pthread_t thread;
        ids[i] = i;
        if (pthread_create(&thread, NULL, vcpu_main, &ids[i]) != 0)
            _exit(4);
    }
    for (char order = 'r'; write(out, &order, 1) == 1 && read(in, &order, 1) == 1;) {
        if (order == 'w') {
            pthread_mutex_lock(&lock);
            pthread_cond_broadcast(&halt);
            pthread_mutex_unlock(&lock);
        } else if (order == 's' && write(monitor, "{\"event\":\"RESUME\"}\n", 19) != 19) {
            _exit(5);
        } else if (order == 'c') {
            (void)close(monitor);
        }
    }
    _exit(0);
}

struct guest {
    pid_t pid;
    int in, out, reader; /* our ends: orders, answers, libvirtd's end of the monitor */
    char monitor[64];
    struct lmo_qemu qemu;
};

static char answer_of(struct guest *g)
{
    char c = 0;
    struct pollfd p = {.fd = g->out, .events = POLLIN};
    ck_assert_int_eq(poll(&p, 1, WAIT_MS), 1);
    ck_assert_int_eq(read(g->out, &c, 1), 1);
    return c;
}

static void order(struct guest *g, char what)
{
    ck_assert_int_eq(write(g->in, &what, 1), 1);
    ck_assert_int_eq(answer_of(g), what);
}

static uint64_t soon(void)
{
    return lmo_now_ns() + WAIT_MS * LMO_NS_PER_MS;
}

/* The child runs this test program again, so that its command line has the words. */
static struct guest guest_start(void)
{
    struct guest g = {.qemu = LMO_QEMU_NONE};
    int in[2], out[2];
    char fds[2][16];
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    (void)snprintf(g.monitor, sizeof g.monitor, "/tmp/lmo-monitor-%d.sock", (int)getpid());
    (void)unlink(g.monitor);
    ck_assert(pipe(in) == 0 && pipe(out) == 0);
    g.pid = fork();
    if (g.pid == 0) {
        (void)snprintf(fds[0], sizeof fds[0], "%d", in[0]);
        (void)snprintf(fds[1], sizeof fds[1], "%d", out[1]);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)execl("/proc/self/exe", "lmo-test-guest", fds[0], fds[1], g.monitor, "-uuid", UUID, (char *)NULL);
        _exit(1);
    }
    (void)close(in[0]);
    (void)close(out[1]);
    g.in = in[1];
    g.out = out[0];
    ck_assert_int_eq(answer_of(&g), 'l');
    g.reader = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(name.sun_path, sizeof name.sun_path, "%s", g.monitor);
    ck_assert_int_eq(connect(g.reader, (struct sockaddr *)&name, sizeof name), 0);
    ck_assert_int_eq(answer_of(&g), 'r');
    ck_assert_int_eq(lmo_qemu_pin(g.pid, UUID, VCPUS, g.monitor, &g.qemu, NULL), 0);
    return g;
}

static void guest_stop(struct guest *g)
{
    (void)kill(g->pid, SIGKILL);
    (void)waitpid(g->pid, NULL, 0);
    lmo_qemu_unpin(&g->qemu);
    (void)close(g->in);
    (void)close(g->out);
    (void)close(g->reader);
    (void)unlink(g->monitor);
}

/* In the child, before check's runner starts. */
__attribute__((constructor)) static void become_guest(int argc, char **argv, char **environment)
{
    (void)environment;
    if (argc == 6 && strcmp(argv[0], "lmo-test-guest") == 0)
        guest_main(atoi(argv[1]), atoi(argv[2]), argv[3]);
}

static struct lmo_vcpu_waits *waits_new(void)
{
    struct lmo_vcpu_waits *w = calloc(1, sizeof *w);
    ck_assert_ptr_nonnull(w);
    return w;
}

static void baseline(struct guest *g, struct lmo_vcpu_waits *w)
{
    uint64_t deadline = soon();
    while (!lmo_qemu_vcpu_waits(&g->qemu, w) || !lmo_vcpu_all_wait(w, "S")) {
        ck_assert(lmo_now_ns() < deadline);
        (void)poll(NULL, 0, 1);
    }
    ck_assert_uint_eq(w->count, VCPUS);
}

static void stop(struct guest *g)
{
    ck_assert_int_eq(lmo_qemu_signal(&g->qemu, SIGSTOP), 0);
    ck_assert(lmo_qemu_await_stopped(&g->qemu, soon()));
}

/* ------------------------------------------------------------------ tests */

START_TEST(pin__takes_only_the_process_of_that_guest)
{
    struct guest g = guest_start();
    struct lmo_qemu q = LMO_QEMU_NONE;
    ck_assert_int_eq(lmo_qemu_pin(g.pid, "00000000-0000-0000-0000-000000000000", 1, "", &q, NULL), LMO_E_NOT_FOUND);
    ck_assert_int_eq(lmo_qemu_pin(getpid(), UUID, 1, "", &q, NULL), LMO_E_NOT_FOUND);
    ck_assert_int_eq(q.pidfd, -1);
    guest_stop(&g);
}
END_TEST

START_TEST(ended_process__is_seen_as_ended_and_takes_no_signal)
{
    struct guest g = guest_start();
    ck_assert(!lmo_qemu_ended(&g.qemu));
    ck_assert_int_eq(lmo_qemu_signal(&g.qemu, SIGKILL), 0);
    ck_assert(lmo_qemu_await_end(&g.qemu, soon()));
    (void)waitpid(g.pid, NULL, 0);
    ck_assert_int_eq(lmo_qemu_signal(&g.qemu, SIGSTOP), LMO_E_NOT_FOUND);
    guest_stop(&g);
}
END_TEST

START_TEST(stopping_a_waiting_vcpu__leaves_it_in_the_same_wait_woken_once)
{
    struct guest g = guest_start();
    struct lmo_vcpu_waits *before = waits_new(), *after = waits_new();
    baseline(&g, before);
    stop(&g);
    ck_assert(lmo_qemu_vcpu_waits_again(&g.qemu, before, after));
    ck_assert(lmo_vcpu_all_wait(after, "T"));
    ck_assert(lmo_vcpu_same_waits(before, after, 1, 100 * LMO_NS_PER_MS));
    for (unsigned i = 0; i < VCPUS; i++)
        ck_assert_uint_eq(after->vcpu[i].switches, before->vcpu[i].switches + 1);
    free(before);
    free(after);
    guest_stop(&g);
}
END_TEST

START_TEST(vcpu_that_was_woken_and_waits_again__is_not_in_the_same_wait)
{
    struct guest g = guest_start();
    struct lmo_vcpu_waits *before = waits_new(), *after = waits_new();
    baseline(&g, before);
    order(&g, 'w');
    baseline(&g, after); /* asleep again, in a wait that looks the same */
    ck_assert(!lmo_vcpu_same_waits(before, after, 0, UINT64_MAX));
    stop(&g);
    ck_assert(lmo_qemu_vcpu_waits_again(&g.qemu, before, after));
    ck_assert(!lmo_vcpu_same_waits(before, after, 1, UINT64_MAX));
    free(before);
    free(after);
    guest_stop(&g);
}
END_TEST

START_TEST(vcpu_woken_while_stopped__shows_it_only_once_continued)
{
    struct guest g = guest_start();
    uint64_t frozen = 0, now = 0;
    stop(&g);
    ck_assert(lmo_qemu_all_stopped(g.pid, &frozen));
    ck_assert(lmo_qemu_all_stopped(g.pid, &now));
    ck_assert_uint_eq(frozen, now);
    ck_assert_int_eq(lmo_qemu_signal(&g.qemu, SIGCONT), 0);
    order(&g, 'w');
    stop(&g);
    ck_assert(lmo_qemu_all_stopped(g.pid, &now));
    ck_assert_uint_gt(now, frozen);
    guest_stop(&g);
}
END_TEST

START_TEST(running_process__does_not_count_as_stopped)
{
    struct guest g = guest_start();
    uint64_t switches = 0;
    ck_assert(!lmo_qemu_all_stopped(g.pid, &switches));
    ck_assert(!lmo_qemu_await_stopped(&g.qemu, lmo_now_ns() + 5 * LMO_NS_PER_MS));
    guest_stop(&g);
}
END_TEST

START_TEST(fewer_vcpu_threads_than_libvirt_counts__is_no_baseline)
{
    struct guest g = guest_start();
    struct lmo_vcpu_waits *w = waits_new();
    g.qemu.vcpus = VCPUS + 1;
    ck_assert(!lmo_qemu_vcpu_waits(&g.qemu, w));
    free(w);
    guest_stop(&g);
}
END_TEST

START_TEST(monitor__unread_bytes_are_seen_from_both_sides_of_a_stopped_process)
{
    struct guest g = guest_start();
    struct lmo_monitor_look look;
    const char cont[] = "{\"execute\":\"cont\",\"id\":\"libvirt-7\"}\n";
    char buf[64];
    ck_assert(lmo_qemu_find_monitor(&g.qemu));
    ck_assert(lmo_qemu_monitor_look(&g.qemu, &look));
    ck_assert(look.open);
    ck_assert_int_eq(look.unread_by_reader, 0);
    ck_assert_int_eq(look.reader, getpid());
    order(&g, 's');
    stop(&g);
    ck_assert(write(g.reader, cont, sizeof cont - 1) == (ssize_t)sizeof cont - 1);
    ck_assert(lmo_qemu_monitor_look(&g.qemu, &look));
    ck_assert_int_gt(look.unread_by_reader, 0);
    ck_assert_int_eq(look.unread_by_qemu, (int)sizeof cont - 1);
    ck_assert(look.resume_queued);
    ck_assert_int_eq(read(g.reader, buf, sizeof buf), 19);
    ck_assert(lmo_qemu_monitor_look(&g.qemu, &look));
    ck_assert_int_eq(look.unread_by_reader, 0);
    guest_stop(&g);
}
END_TEST

START_TEST(monitor__closed_by_its_reader_is_not_open)
{
    struct guest g = guest_start();
    struct lmo_monitor_look look;
    ck_assert(lmo_qemu_find_monitor(&g.qemu));
    (void)shutdown(g.reader, SHUT_RDWR);
    (void)close(g.reader);
    g.reader = -1;
    ck_assert(lmo_qemu_monitor_look(&g.qemu, &look));
    ck_assert(!look.open);
    guest_stop(&g);
}
END_TEST

START_TEST(monitor__that_is_another_socket_now_is_not_looked_at)
{
    struct guest g = guest_start();
    struct lmo_monitor_look look;
    ck_assert(lmo_qemu_find_monitor(&g.qemu));
    order(&g, 'c');
    ck_assert(!lmo_qemu_monitor_look(&g.qemu, &look));
    guest_stop(&g);
}
END_TEST

static void *reader_main(void *arg)
{
    struct pollfd p = {.fd = *(int *)arg, .events = POLLIN};
    (void)prctl(PR_SET_NAME, "vm-guest-with-a");
    (void)poll(&p, 1, WAIT_MS);
    return NULL;
}

START_TEST(reader__is_idle_only_while_its_thread_polls)
{
    int fds[2];
    pthread_t thread;
    ck_assert_int_eq(pipe(fds), 0);
    ck_assert(!lmo_qemu_reader_idle(getpid(), "guest-with-a-long-name"));
    ck_assert_int_eq(pthread_create(&thread, NULL, reader_main, &fds[0]), 0);
    uint64_t deadline = soon();
    while (!lmo_qemu_reader_idle(getpid(), "guest-with-a-long-name")) {
        ck_assert(lmo_now_ns() < deadline);
        (void)poll(NULL, 0, 1);
    }
    ck_assert(!lmo_qemu_reader_idle(getpid(), "other"));
    ck_assert_int_eq(write(fds[1], "x", 1), 1);
    (void)pthread_join(thread, NULL);
    ck_assert(!lmo_qemu_reader_idle(getpid(), "guest-with-a-long-name"));
    (void)close(fds[0]);
    (void)close(fds[1]);
}
END_TEST

Suite *freeze_evidence_suite(void)
{
    Suite *s = suite_create("freeze_evidence");
    TCase *t = tcase_create("kernel");
    tcase_set_timeout(t, 30);
    tcase_add_test(t, pin__takes_only_the_process_of_that_guest);
    tcase_add_test(t, ended_process__is_seen_as_ended_and_takes_no_signal);
    tcase_add_test(t, stopping_a_waiting_vcpu__leaves_it_in_the_same_wait_woken_once);
    tcase_add_test(t, vcpu_that_was_woken_and_waits_again__is_not_in_the_same_wait);
    tcase_add_test(t, vcpu_woken_while_stopped__shows_it_only_once_continued);
    tcase_add_test(t, running_process__does_not_count_as_stopped);
    tcase_add_test(t, fewer_vcpu_threads_than_libvirt_counts__is_no_baseline);
    tcase_add_test(t, monitor__unread_bytes_are_seen_from_both_sides_of_a_stopped_process);
    tcase_add_test(t, monitor__closed_by_its_reader_is_not_open);
    tcase_add_test(t, monitor__that_is_another_socket_now_is_not_looked_at);
    tcase_add_test(t, reader__is_idle_only_while_its_thread_polls);
    suite_add_tcase(s, t);
    return s;
}
