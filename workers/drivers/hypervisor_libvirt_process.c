/* hypervisor_libvirt_process.c - /proc, pidfds and the monitor's socket; see the header. */
#include "workers/drivers/hypervisor_libvirt_process.h"

#include "base/clock.h"
#include "base/cleanup.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#define THREADS_MAX  4096
#define FDS_MAX      4096
#define STOP_LOOK_NS 50000 /* between two looks at the threads of a process that is being stopped */

static void cleanup_closedir(DIR **dir)
{
    if (*dir)
        (void)closedir(*dir);
}
#define AUTO_DIR LMO_CLEANUP(cleanup_closedir)

/* Reads a small file of /proc into `buf`, NUL-terminated, without its last newline. False if there is none. */
static bool read_proc(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool read_proc(char *buf, size_t size, const char *fmt, ...)
{
    char path[96];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    LMO_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, buf, size - 1) : -1;
    if (n < 0)
        return false;
    if (n > 0 && buf[n - 1] == '\n')
        n--;
    buf[n] = '\0';
    return true;
}

bool lmo_scan_u64(const char **text, uint64_t *ret)
{
    const char *at = *text + strspn(*text, " \t");
    char *end = NULL;
    if (!isdigit((unsigned char)*at))
        return false;
    errno = 0;
    unsigned long long value = strtoull(at, &end, 10);
    if (errno != 0)
        return false;
    *text = end;
    *ret = value;
    return true;
}

/* Calls `fn` with each numeric entry of a directory of /proc until it returns false; false if that happened or the
 * directory is gone or has more than `max` entries. */
static bool each_entry(const char *path, unsigned max, bool (*fn)(int id, void *arg), void *arg)
{
    AUTO_DIR DIR *dir = opendir(path);
    if (!dir)
        return false;
    for (const struct dirent *e; (e = readdir(dir));) {
        const char *name = e->d_name;
        uint64_t id = 0;
        if (!lmo_scan_u64(&name, &id) || id > INT32_MAX)
            continue;
        if (max-- == 0 || !fn((int)id, arg))
            return false;
    }
    return true;
}

static uint64_t start_ticks(pid_t pid)
{
    char stat[1024];
    if (!read_proc(stat, sizeof stat, "/proc/%d/stat", (int)pid))
        return 0;
    const char *p = strrchr(stat, ')'); /* the name before it may contain anything */
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p ? strtoull(p + 1, NULL, 10) : 0;
}

/* True if the command line has the two words "-uuid", `uuid`. */
static bool is_guest(pid_t pid, const char *uuid)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    LMO_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char words[16384];
    size_t len = 0;
    for (ssize_t n; fd >= 0 && len < sizeof words - 1 && (n = read(fd, words + len, sizeof words - 1 - len)) > 0;)
        len += (size_t)n;
    words[len] = '\0';
    for (const char *w = words; w < words + len; w += strlen(w) + 1)
        if (strcmp(w, "-uuid") == 0 && strcasecmp(w + 6, uuid) == 0)
            return true;
    return false;
}

int lmo_qemu_pin(pid_t pid, const char *uuid, unsigned vcpus, const char *monitor_path, struct lmo_qemu *ret_qemu,
                 struct lmo_err *err)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return lmo_fail(err, errno == ESRCH ? LMO_E_NOT_FOUND : LMO_E_UNAVAILABLE, "process %d: %s", (int)pid,
                        strerror(errno));
    /* Verified AFTER the pin: the process behind the pidfd cannot change any more, so if the guest's command line is
     * seen under this number and the pinned process still lives, the two are the same. */
    struct lmo_qemu q = {.pid = pid, .pidfd = pidfd, .vcpus = vcpus, .monitor_fd = -1};
    q.start_ticks = start_ticks(pid);
    if (!is_guest(pid, uuid) || q.start_ticks == 0 || lmo_qemu_ended(&q)) {
        (void)close(pidfd);
        return lmo_fail(err, LMO_E_NOT_FOUND, "process %d is not the QEMU of guest %s", (int)pid, uuid);
    }
    (void)snprintf(q.monitor_path, sizeof q.monitor_path, "%s", monitor_path);
    *ret_qemu = q;
    return 0;
}

void lmo_qemu_unpin(struct lmo_qemu *qemu)
{
    if (qemu->pidfd >= 0)
        (void)close(qemu->pidfd);
    *qemu = (struct lmo_qemu)LMO_QEMU_NONE;
}

struct lmo_qemu lmo_qemu_dup(const struct lmo_qemu *qemu)
{
    struct lmo_qemu copy = *qemu;
    if (copy.pidfd >= 0)
        copy.pidfd = fcntl(qemu->pidfd, F_DUPFD_CLOEXEC, 3);
    return copy;
}

bool lmo_qemu_await_end(const struct lmo_qemu *qemu, uint64_t deadline_ns)
{
    for (;;) {
        struct pollfd p = {.fd = qemu->pidfd, .events = POLLIN};
        uint64_t ms = lmo_ms_until(deadline_ns);
        int n = poll(&p, 1, ms > INT32_MAX ? INT32_MAX : (int)ms);
        if (n > 0)
            return (p.revents & POLLIN) != 0;
        if (n == 0 || errno != EINTR)
            return false;
    }
}

bool lmo_qemu_ended(const struct lmo_qemu *qemu)
{
    return lmo_qemu_await_end(qemu, 0);
}

int lmo_qemu_signal(const struct lmo_qemu *qemu, int sig)
{
    if (syscall(SYS_pidfd_send_signal, qemu->pidfd, sig, NULL, 0) == 0)
        return 0;
    return errno == ESRCH ? LMO_E_NOT_FOUND : LMO_E_FORBIDDEN;
}

struct stop_scan {
    pid_t pid;
    unsigned running;
    uint64_t switches;
};

static uint64_t thread_switches(pid_t pid, int tid, uint64_t *ret_ran_ns)
{
    char text[4096];
    const char *at = text;
    uint64_t ran = 0, waited = 0, count = 0;
    if (read_proc(text, sizeof text, "/proc/%d/task/%d/schedstat", (int)pid, tid) && lmo_scan_u64(&at, &ran) &&
        lmo_scan_u64(&at, &waited) && lmo_scan_u64(&at, &count) && count > 0) {
        if (ret_ran_ns)
            *ret_ran_ns = ran;
        return count;
    }
    /* A kernel without scheduler accounting still counts switches, in a file that is slower to make. */
    if (!read_proc(text, sizeof text, "/proc/%d/task/%d/status", (int)pid, tid))
        return 0;
    const char *v = strstr(text, "\nvoluntary_ctxt_switches:"), *n = strstr(text, "\nnonvoluntary_ctxt_switches:");
    if (!v || !n)
        return 0;
    return strtoull(v + 25, NULL, 10) + strtoull(n + 28, NULL, 10);
}

static char thread_state(pid_t pid, int tid)
{
    char stat[512];
    const char *p = read_proc(stat, sizeof stat, "/proc/%d/task/%d/stat", (int)pid, tid) ? strrchr(stat, ')') : NULL;
    return p && p[1] == ' ' ? p[2] : '\0';
}

static bool count_running(int tid, void *arg)
{
    struct stop_scan *s = arg;
    char state = thread_state(s->pid, tid);
    /* 't' (a debugger's stop) does not count: the debugger may let it go on. */
    s->running += state != 'T' && state != 'Z' && state != 'X' && state != '\0';
    return s->running == 0;
}

static bool add_switches(int tid, void *arg)
{
    struct stop_scan *s = arg;
    s->switches += thread_switches(s->pid, tid, NULL);
    return count_running(tid, arg);
}

bool lmo_qemu_await_stopped(const struct lmo_qemu *qemu, uint64_t deadline_ns)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)qemu->pid);
    for (;;) {
        struct stop_scan s = {.pid = qemu->pid};
        if (each_entry(path, THREADS_MAX, count_running, &s))
            return !lmo_qemu_ended(qemu);
        if (lmo_qemu_ended(qemu) || lmo_now_ns() >= deadline_ns)
            return false;
        /* The kernel tells only a parent or a debugger when a process has stopped; we are neither, so we look. */
        (void)nanosleep(&(struct timespec){.tv_nsec = STOP_LOOK_NS}, NULL);
    }
}

bool lmo_qemu_all_stopped(pid_t pid, uint64_t *ret_switches)
{
    char path[64];
    struct stop_scan s = {.pid = pid};
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    if (!each_entry(path, THREADS_MAX, add_switches, &s) || s.switches == 0)
        return false;
    *ret_switches = s.switches;
    return true;
}

/* The call is read first: the kernel gives it only once the thread has left its processor. A thread says "asleep" a
 * little before that, and its last switch is not counted yet then. */
static bool read_wait(pid_t pid, pid_t tid, struct lmo_vcpu_wait *ret)
{
    ret->tid = tid;
    ret->ran_ns = 0;
    if (!read_proc(ret->call, sizeof ret->call, "/proc/%d/task/%d/syscall", (int)pid, (int)tid))
        return false;
    ret->switches = thread_switches(pid, tid, &ret->ran_ns);
    ret->state = thread_state(pid, tid);
    return ret->state && ret->switches;
}

struct vcpu_scan {
    pid_t pid;
    struct lmo_vcpu_waits *waits;
    bool single; /* one thread runs all vCPUs */
};

static bool add_vcpu(int tid, void *arg)
{
    struct vcpu_scan *s = arg;
    char comm[32];
    const char *index = comm + 4;
    uint64_t number = 0;
    if (!read_proc(comm, sizeof comm, "/proc/%d/task/%d/comm", (int)s->pid, tid))
        return true; /* a helper thread that ended meanwhile */
    if (strncmp(comm, "ALL CPUs/", 9) == 0)
        s->single = true;
    else if (strncmp(comm, "CPU ", 4) != 0 || !lmo_scan_u64(&index, &number) || *index != '/')
        return true;
    if (s->waits->count == LMO_QEMU_VCPUS_MAX)
        return false;
    return read_wait(s->pid, tid, &s->waits->vcpu[s->waits->count++]);
}

bool lmo_qemu_vcpu_waits(const struct lmo_qemu *qemu, struct lmo_vcpu_waits *ret_waits)
{
    char path[64];
    struct vcpu_scan s = {.pid = qemu->pid, .waits = ret_waits};
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)qemu->pid);
    ret_waits->count = 0;
    return each_entry(path, THREADS_MAX, add_vcpu, &s) && ret_waits->count > 0 &&
           (s.single ? ret_waits->count == 1 : ret_waits->count == qemu->vcpus);
}

bool lmo_qemu_vcpu_waits_again(const struct lmo_qemu *qemu, const struct lmo_vcpu_waits *like,
                               struct lmo_vcpu_waits *ret_waits)
{
    ret_waits->count = like->count;
    for (unsigned i = 0; i < like->count; i++)
        if (!read_wait(qemu->pid, like->vcpu[i].tid, &ret_waits->vcpu[i]))
            return false;
    return like->count > 0;
}

bool lmo_vcpu_all_wait(const struct lmo_vcpu_waits *waits, const char *states)
{
    char futex[16];
    int len = snprintf(futex, sizeof futex, "%ld ", (long)SYS_futex);
    for (unsigned i = 0; i < waits->count; i++)
        if (!strchr(states, waits->vcpu[i].state) || strncmp(waits->vcpu[i].call, futex, (size_t)len) != 0)
            return false;
    return waits->count > 0;
}

bool lmo_vcpu_same_waits(const struct lmo_vcpu_waits *base, const struct lmo_vcpu_waits *now, unsigned wakes,
                         uint64_t run_ns)
{
    if (base->count == 0 || base->count != now->count)
        return false;
    for (unsigned i = 0; i < base->count; i++) {
        const struct lmo_vcpu_wait *a = &base->vcpu[i], *b = &now->vcpu[i];
        if (a->tid != b->tid || b->switches < a->switches || b->switches - a->switches > wakes ||
            b->ran_ns < a->ran_ns || b->ran_ns - a->ran_ns > run_ns || strcmp(a->call, b->call) != 0)
            return false;
    }
    return true;
}

/* A copy of QEMU's file descriptor `fd` in this process; the caller closes it. */
static int borrow_fd(const struct lmo_qemu *qemu, int fd)
{
    return (int)syscall(SYS_pidfd_getfd, qemu->pidfd, fd, 0);
}

static bool is_monitor(int fd, const char *path)
{
    struct sockaddr_un name;
    socklen_t len = sizeof name;
    int listening = 0;
    socklen_t size = sizeof listening;
    memset(&name, 0, sizeof name);
    if (getsockname(fd, (struct sockaddr *)&name, &len) < 0 || name.sun_family != AF_UNIX)
        return false;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 || listening)
        return false;
    return strncmp(name.sun_path, path, sizeof name.sun_path) == 0;
}

static bool try_monitor(int fd, void *arg)
{
    struct lmo_qemu *q = arg;
    char path[64], link[64];
    (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)q->pid, fd);
    ssize_t n = readlink(path, link, sizeof link);
    if (n < 7 || strncmp(link, "socket:", 7) != 0)
        return true;
    LMO_AUTO_CLOSE int copy = borrow_fd(q, fd);
    struct stat st;
    if (copy < 0 || !is_monitor(copy, q->monitor_path) || fstat(copy, &st) < 0)
        return true;
    q->monitor_fd = fd;
    q->monitor_inode = st.st_ino;
    return false; /* found: stop looking */
}

bool lmo_qemu_find_monitor(struct lmo_qemu *qemu)
{
    char path[64];
    qemu->monitor_fd = -1;
    if (!qemu->monitor_path[0])
        return false;
    (void)snprintf(path, sizeof path, "/proc/%d/fd", (int)qemu->pid);
    (void)each_entry(path, FDS_MAX, try_monitor, qemu);
    return qemu->monitor_fd >= 0;
}

bool lmo_qemu_monitor_look(const struct lmo_qemu *qemu, struct lmo_monitor_look *ret_look)
{
    struct lmo_monitor_look look = {0};
    struct stat st;
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (qemu->monitor_fd < 0)
        return false;
    LMO_AUTO_CLOSE int fd = borrow_fd(qemu, qemu->monitor_fd);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_ino != qemu->monitor_inode ||
        ioctl(fd, SIOCOUTQ, &look.unread_by_reader) < 0 || ioctl(fd, SIOCINQ, &look.unread_by_qemu) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return false;
    look.reader = peer.pid;
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
    look.open = poll(&p, 1, 0) >= 0 && !(p.revents & (POLLHUP | POLLRDHUP | POLLERR));
    if (look.unread_by_qemu > 0) {
        char text[4096];
        ssize_t n = recv(fd, text, sizeof text - 1, MSG_PEEK | MSG_DONTWAIT);
        if (n > 0) {
            text[n] = '\0';
            look.resume_queued = strstr(text, "\"cont\"") != NULL;
        }
    }
    *ret_look = look;
    return true;
}

struct reader_scan {
    pid_t pid;
    char name[16]; /* a thread's name has at most 15 characters */
    unsigned found;
};

static bool check_reader(int tid, void *arg)
{
    struct reader_scan *s = arg;
    char text[160];
    if (!read_proc(text, sizeof text, "/proc/%d/task/%d/comm", (int)s->pid, tid) || strcmp(text, s->name) != 0)
        return true;
    s->found++;
    if (!read_proc(text, sizeof text, "/proc/%d/task/%d/syscall", (int)s->pid, tid))
        return false;
    char *end = NULL;
    long nr = strtol(text, &end, 10);
    if (end == text)
        return false; /* "running" */
#ifdef SYS_poll
    if (nr == SYS_poll)
        return true;
#endif
    return nr == SYS_ppoll;
}

bool lmo_qemu_reader_idle(pid_t reader, const char *guest_name)
{
    char path[64];
    struct reader_scan s = {.pid = reader};
    (void)snprintf(s.name, sizeof s.name, "vm-%.12s", guest_name);
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)reader);
    return each_entry(path, THREADS_MAX, check_reader, &s) && s.found > 0;
}
