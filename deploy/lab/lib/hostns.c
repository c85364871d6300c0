/*
 * hostns: starts one host of the lab.
 *
 *   hostns NAME PIDFILE SETUP [ARG]...
 *
 * Makes private mount, UTS, IPC, network and PID namespaces around a process
 * that stays as the host's process 1, runs SETUP (with its arguments) inside,
 * and returns when that has succeeded. PIDFILE then holds the process id as
 * seen from outside and its start time (field 22 of /proc/PID/stat), so that
 * nobody ever signals a stranger that was given the same id later.
 *
 * Process 1 reaps what daemons leave behind. Killing it is the host's power
 * switch: the kernel takes every process of the host with it, and its network
 * devices and mounts with the last of them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "hostns: %s: %s\n", what, strerror(errno));
    _exit(1);
}

/* Start time of a process in clock ticks since boot; exits when unreadable. */
static unsigned long long start_time_ticks(pid_t pid)
{
    char path[64];
    char text[1024];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(path);
    ssize_t len = read(fd, text, sizeof(text) - 1);
    if (len <= 0)
        die(path);
    close(fd);
    text[len] = '\0';

    /* The name may hold spaces; the third field follows the last ')'. */
    char *p = strrchr(text, ')');
    for (int field = 2; p != NULL && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (p == NULL) {
        errno = EINVAL;
        die(path);
    }
    return strtoull(p + 1, NULL, 10);
}

/* Writes "PID START" under a temporary name and moves it into place. */
static void write_pidfile(const char *path, pid_t pid)
{
    char tmp[PATH_MAX];

    snprintf(tmp, sizeof(tmp), "%s.new", path);
    FILE *f = fopen(tmp, "w");
    if (f == NULL)
        die(tmp);
    fprintf(f, "%d %llu\n", (int)pid, start_time_ticks(pid));
    if (fclose(f) != 0 || rename(tmp, path) != 0)
        die(path);
}

/* Runs the setup program and returns its exit status. */
static int run_setup(char *argv[])
{
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        execv(argv[0], argv);
        die(argv[0]);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            die("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Process 1 of the host: set up, report through ready_fd, then reap for ever. */
static void host_main(const char *name, char *setup_argv[], int ready_fd)
{
    setsid();
    if (unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET) != 0)
        die("unshare");
    if (sethostname(name, strlen(name)) != 0)
        die("sethostname");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        die("mount --make-rprivate /");
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
        die("mount /proc");
    if (run_setup(setup_argv) != 0)
        _exit(1);
    if (chdir("/") != 0)
        die("chdir /");
    if (write(ready_fd, "1", 1) != 1)
        die("report readiness");
    close(ready_fd);

    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd <= 2; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);

    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (;;) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        sigwaitinfo(&set, NULL);
    }
}

int main(int argc, char *argv[])
{
    if (argc < 4) {
        fprintf(stderr, "usage: hostns NAME PIDFILE SETUP [ARG]...\n");
        return 2;
    }

    int ready[2];
    if (pipe2(ready, O_CLOEXEC) != 0)
        die("pipe");
    /* The rest of the namespaces is the child's: this side still needs /proc as it is. */
    if (unshare(CLONE_NEWPID) != 0)
        die("unshare (root is needed)");

    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        close(ready[0]);
        host_main(argv[1], argv + 3, ready[1]);
    }
    close(ready[1]);
    write_pidfile(argv[2], pid);

    char ok = 0;
    ssize_t len;
    do
        len = read(ready[0], &ok, 1);
    while (len < 0 && errno == EINTR);
    if (len != 1) {
        int status;
        waitpid(pid, &status, 0);
        unlink(argv[2]);
        fprintf(stderr, "hostns: setting up %s failed\n", argv[1]);
        return 1;
    }
    return 0;
}
