/* ovsdb_server.h - a real ovsdb-server for unit tests, on a socket in a directory of its own. */
#ifndef LMO_TESTS_UNIT_OVSDB_SERVER_H
#define LMO_TESTS_UNIT_OVSDB_SERVER_H

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct ovsdb_server {
    char dir[64];
    char db[96], remote[112];
    pid_t pid;
};

static inline void ovsdb_server_run(char *const argv[])
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        execvp(argv[0], argv);
        _exit(127);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(status == 0, "%s failed: status %d", argv[0], status);
}

static inline void ovsdb_server_start(struct ovsdb_server *s)
{
    char socket[128], control[128], lock[128];
    (void)snprintf(socket, sizeof socket, "--remote=p%s", s->remote);
    (void)snprintf(control, sizeof control, "--unixctl=%s/ctl", s->dir);
    (void)snprintf(lock, sizeof lock, "%s/.db.~lock~", s->dir);
    s->pid = fork();
    ck_assert_int_ge(s->pid, 0);
    if (s->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails never gets to its tear-down */
        execlp("ovsdb-server", "ovsdb-server", socket, control, "--no-chdir", "-vconsole:off", s->db, (char *)NULL);
        _exit(127);
    }
}

/* Makes a database of an installed schema and serves it. */
static inline void ovsdb_server_create(struct ovsdb_server *s, const char *schema)
{
    *s = (struct ovsdb_server){.dir = "/tmp/lmo-ovsdb-XXXXXX"};
    ck_assert_ptr_nonnull(mkdtemp(s->dir));
    (void)snprintf(s->db, sizeof s->db, "%s/db", s->dir);
    (void)snprintf(s->remote, sizeof s->remote, "unix:%s/sock", s->dir);
    char path[256];
    (void)snprintf(path, sizeof path, "%s", schema);
    ovsdb_server_run((char *[]){(char *)"ovsdb-tool", (char *)"create", s->db, path, NULL});
    ovsdb_server_start(s);
}

static inline void ovsdb_server_kill(struct ovsdb_server *s)
{
    if (s->pid <= 0)
        return;
    (void)kill(s->pid, SIGKILL);
    (void)waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

static inline void ovsdb_server_destroy(struct ovsdb_server *s)
{
    static const char *const files[] = {"db", ".db.~lock~", "sock", "ctl"};
    ovsdb_server_kill(s);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[128];
        (void)snprintf(path, sizeof path, "%s/%s", s->dir, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(s->dir);
}

#endif
