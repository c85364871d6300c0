/* hooks.c - see hooks.h. */
#include "rpc/hooks.h"

#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "http/client.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utlist.h>

#define URL_TIMEOUT_MS 30000
#define EXIT_LATER     75 /* EX_TEMPFAIL */

struct running {
    struct lmo_hook_caller *owner;
    lmo_hook_done_fn *done;
    void *arg;
    int pidfd; /* -1: a URL */
    pid_t pid;
    bool late;
    uint64_t timer, request;
    struct running *prev, *next;
};

struct lmo_hook_caller {
    struct lmo_hooks port; /* first */
    struct lmo_loop *loop;
    const struct lmo_conf *conf;
    struct lmo_http_client *client;
    struct running *running;
};

static void finish(struct running *r, int code, bool acknowledged, const char *text)
{
    lmo_hook_done_fn *done = r->done;
    void *arg = r->arg;
    lmo_loop_cancel(r->owner->loop, &r->timer);
    DL_DELETE(r->owner->running, r);
    if (r->pidfd >= 0) {
        lmo_loop_del_fd(r->owner->loop, r->pidfd);
        close(r->pidfd);
    }
    free(r);
    done(arg, code, acknowledged, text);
}

/* ------------------------------------------------------------------ commands */

static void on_exit_of(void *arg, int fd, uint32_t events)
{
    struct running *r = arg;
    siginfo_t info = {0};
    char text[LMO_TEXT_MAX];
    (void)fd, (void)events;
    if (waitid(P_PID, (id_t)r->pid, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0) {
        return;
    }
    bool exited = info.si_code == CLD_EXITED;
    if (exited && (info.si_status == 0 || info.si_status == EXIT_LATER) && !r->late) {
        finish(r, 0, info.si_status == 0, "");
        return;
    }
    (void)snprintf(text, sizeof text,
                   r->late  ? "the command did not end within its deadline"
                   : exited ? "the command ended with exit code %d"
                            : "the command was killed by signal %d",
                   info.si_status);
    finish(r, r->late ? LMO_E_TIMEOUT : LMO_E_REFUSED, false, text);
}

static void on_deadline(void *arg)
{
    struct running *r = arg;
    r->timer = 0;
    r->late = true;
    (void)kill(-r->pid, SIGKILL); /* its group; the end is told by the pidfd */
}

static const char *section_of(const struct lmo_hook_caller *h, const char *command)
{
    const char *section, *name;
    for (size_t i = 0; (section = lmo_conf_section_at(h->conf, i)); i++) {
        if ((name = lmo_conf_section_name(section, "hook")) && strcmp(name, command) == 0) {
            return section;
        }
    }
    return NULL;
}

static int spawn(const char *program, const struct lmo_hook *hook, pid_t *ret)
{
    char host[LMO_NAME_MAX + 16], drain[LMO_ID_MAX + 16];
    (void)snprintf(host, sizeof host, "LMO_HOST=%s", hook->host);
    (void)snprintf(drain, sizeof drain, "LMO_DRAIN=%s", hook->drain);
    char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    char *argv[] = {(char *)(uintptr_t)program, NULL}, *env[] = {path, host, drain, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    int r = posix_spawn_file_actions_init(&files);
    r = r ? r : posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    r = r ? r : posix_spawnattr_init(&attributes);
    r = r ? r : posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    r = r ? r : posix_spawnattr_setsigmask(&attributes, &none);
    r = r ? r : posix_spawn(ret, program, &files, &attributes, argv, env);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&files);
    return r;
}

static int call_command(struct lmo_hook_caller *h, const struct lmo_hook *hook, struct running *r, struct lmo_err *err)
{
    const char *section = section_of(h, hook->command);
    if (!section) {
        return lmo_fail(err, LMO_E_NOT_FOUND, "no [hook %s] is configured", hook->command);
    }
    const char *program = lmo_conf_str(h->conf, section, "command");
    int code = spawn(program, hook, &r->pid);
    if (code != 0) {
        return lmo_fail(err, LMO_E_IO, "%s cannot be started: %s", program, strerror(code));
    }
    r->pidfd = (int)syscall(SYS_pidfd_open, r->pid, 0);
    if (r->pidfd < 0 || lmo_loop_add_fd(h->loop, r->pidfd, EPOLLIN, on_exit_of, r, err) < 0 ||
        lmo_loop_timer(h->loop, lmo_conf_uint(h->conf, section, "deadline") * 1000, on_deadline, r, &r->timer) < 0) {
        (void)kill(-r->pid, SIGKILL);
        (void)waitpid(r->pid, NULL, 0);
        if (r->pidfd >= 0) {
            lmo_loop_del_fd(h->loop, r->pidfd);
            close(r->pidfd);
        }
        return lmo_fail(err, LMO_E_LIMIT, "%s cannot be watched", program);
    }
    lmo_log(LMO_LOG_INFO, "hook called", "command=%s host=%s drain=%s", hook->command, hook->host, hook->drain);
    return 0;
}

/* ------------------------------------------------------------------ URLs */

static void on_answer(void *arg, const struct lmo_http_response *a)
{
    struct running *r = arg;
    LMO_AUTO_JSON json_t *root = NULL;
    struct lmo_err ignored = {0};
    char text[LMO_TEXT_MAX];
    bool ack = false;
    r->request = 0;
    if (a->result < 0) {
        finish(r, a->result, false, a->err ? a->err->text : lmo_err_name(a->result));
        return;
    }
    if (a->status / 100 != 2) {
        (void)snprintf(text, sizeof text, "the hook's receiver answered %u", a->status);
        finish(r, LMO_E_REFUSED, false, text);
        return;
    }
    if (a->body_len > 0 && lmo_json_parse_object(a->body, a->body_len, 65536, &root, &ignored) == 0) {
        ack = json_is_true(json_object_get(root, "ack"));
    }
    finish(r, 0, ack, "");
}

static int call_url(struct lmo_hook_caller *h, const struct lmo_hook *hook, struct running *r, struct lmo_err *err)
{
    char body[256], key[96];
    (void)snprintf(body, sizeof body, "{\"event\":\"host-drained\",\"drain\":\"%s\",\"host\":\"%s\"}", hook->drain,
                   hook->host);
    (void)snprintf(key, sizeof key, "Idempotency-Key: %s.%s", hook->drain, hook->host); /* the same for every try */
    const char *const headers[] = {key, NULL};
    const struct lmo_http_request_spec spec = {.method = "POST",
                                               .url = hook->url,
                                               .headers = headers,
                                               .body = body,
                                               .body_len = strlen(body),
                                               .timeout_ms = URL_TIMEOUT_MS,
                                               .response_max = 65536};
    r->pidfd = -1;
    return lmo_http_request_async(h->client, &spec, on_answer, r, &r->request, err);
}

/* ------------------------------------------------------------------ the port */

static int check(void *arg, const struct lmo_hook *hook, struct lmo_err *err)
{
    const struct lmo_hook_caller *h = arg;
    if (hook->command[0] && !section_of(h, hook->command)) {
        return lmo_fail(err, LMO_E_INVALID, "the coordinator's configuration has no [hook %s]", hook->command);
    }
    size_t len = strspn(hook->url, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.:[]/_~%?=&-");
    if (hook->url[0] && (strncmp(hook->url, "https://", 8) != 0 || hook->url[8] == '\0' || hook->url[len] != '\0')) {
        return lmo_fail(err, LMO_E_INVALID, "must be an https URL");
    }
    return 0;
}

static int call(void *arg, const struct lmo_hook *hook, lmo_hook_done_fn *done, void *done_arg, struct lmo_err *err)
{
    struct lmo_hook_caller *h = arg;
    struct running *r = calloc(1, sizeof *r);
    if (!r) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a hook");
    }
    *r = (struct running){.owner = h, .done = done, .arg = done_arg, .pidfd = -1};
    int rc = hook->command[0] ? call_command(h, hook, r, err) : call_url(h, hook, r, err);
    if (rc < 0) {
        free(r);
        return rc;
    }
    DL_APPEND(h->running, r);
    return 0;
}

int lmo_hooks_open(struct lmo_loop *loop, const struct lmo_conf *conf, const struct lmo_tls_files *tls,
                   struct lmo_hook_caller **ret, struct lmo_err *err)
{
    struct lmo_hook_caller *h = calloc(1, sizeof *h);
    if (!h) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for hooks");
    }
    h->port = (struct lmo_hooks){.arg = h, .check = check, .call = call};
    h->loop = loop;
    h->conf = conf;
    const struct lmo_http_client_config config = {.tls = *tls,
                                                  .connections_per_host = 1,
                                                  .connections_max = 16,
                                                  .requests_max = 64};
    int r = lmo_http_client_new(loop, &config, &h->client, err);
    if (r < 0) {
        free(h);
        return r;
    }
    *ret = h;
    return 0;
}

const struct lmo_hooks *lmo_hooks_port(const struct lmo_hook_caller *h)
{
    return &h->port;
}

struct lmo_hook_caller *lmo_hooks_close(struct lmo_hook_caller *h)
{
    while (h && h->running) {
        struct running *r = h->running;
        lmo_http_cancel(h->client, &r->request);
        finish(r, LMO_E_UNAVAILABLE, false, "the coordinator is stopping");
    }
    if (h) {
        (void)lmo_http_client_free(h->client);
        free(h);
    }
    return NULL;
}
