/* hvctl.c - calls the libvirt hypervisor driver from the command line, for experiments in the lab.
 *
 * Two of them, one on each host, do a whole cutover by hand: `serve` on the source starts the job and answers freeze,
 * thaw and kill over TCP; `cutover` on the destination waits for the loaded guest, asks for the freeze and resumes.
 * There is no permit, no journal and NO FENCE: never point it at a guest that somebody needs. One JSON object per line
 * on standard output; times in milliseconds on the realtime clock, which the lab's hosts share. */
#include "base/clock.h"
#include "base/log.h"
#include "workers/drivers/driver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TIMEOUT_MS 10000

struct ctl {
    struct lmo_hypervisor *hv;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct lmo_hv_event last[LMO_HV_EV_WATCH_RESTORED + 1]; /* by kind */
    bool seen[LMO_HV_EV_WATCH_RESTORED + 1];
    bool ended;
    struct lmo_hv_job_end end;
    const char *at_suspended; /* shell command to run at the source's pause */
    bool quiet;
    pid_t frozen_pid;
};

static const char *const kinds[] = {
    "none",    "incoming",     "suspended", "loaded",       "resumed",
    "stopped", "paused_other", "iteration", "watch_broken", "watch_restored",
};

static void LMO_PRINTF(1, 2) out(const char *fmt, ...)
{
    char line[4096];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line - 1, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof line - 1)
        return;
    line[n] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)n + 1) < 0)
        exit(1);
}

static uint64_t env(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : fallback;
}

static double now_ms(void)
{
    return (double)lmo_realtime_us() / 1000.0;
}

static void on_event(void *arg, const struct lmo_hv_event *ev)
{
    struct ctl *c = arg;
    if (!c->quiet)
        out("{\"event\":\"%s\",\"uuid\":\"%s\",\"reason\":\"%s\",\"value\":%" PRIu64 ",\"at\":%.3f,\"arrived\":%.3f,"
            "\"own_stamp\":%s}",
            kinds[ev->kind], ev->uuid, ev->reason, ev->value, (double)ev->realtime_us / 1000.0, now_ms(),
            ev->own_stamp ? "true" : "false");
    if (ev->kind == LMO_HV_EV_SUSPENDED && c->at_suspended) {
        int r = system(c->at_suspended);
        out("{\"ran\":%d,\"at\":%.3f}", r, now_ms());
    }
    pthread_mutex_lock(&c->lock);
    c->last[ev->kind] = *ev;
    c->seen[ev->kind] = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void on_end(void *arg, const char *uuid, const struct lmo_hv_job_end *end)
{
    struct ctl *c = arg;
    out("{\"job_end\":\"%s\",\"ok\":%s,\"call_ms\":%" PRIu64 ",\"text\":\"%s\",\"at\":%.3f}", uuid,
        end->call_succeeded ? "true" : "false", end->call_ms, end->text, now_ms());
    pthread_mutex_lock(&c->lock);
    c->ended = true;
    c->end = *end;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static bool await(struct ctl *c, const bool *flag, uint64_t ms)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += (time_t)(ms / 1000);
    at.tv_nsec += (long)(ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&c->lock);
    while (!*flag && pthread_cond_timedwait(&c->changed, &c->lock, &at) == 0)
        ;
    bool set = *flag;
    pthread_mutex_unlock(&c->lock);
    return set;
}

static int fail(const char *what, int code, const struct lmo_err *err)
{
    out("{\"failed\":\"%s\",\"code\":\"%s\",\"text\":\"%s\"}", what, lmo_err_name(code), err->text);
    return 1;
}

/* ------------------------------------------------------------------ observing */

static int print_vm(void *arg, const struct lmo_vm_facts *vm)
{
    (void)arg;
    out("{\"name\":\"%s\",\"uuid\":\"%s\",\"state\":\"%s\",\"persistent\":%d,\"autostart\":%d,\"memory\":%" PRIu64
        ",\"vcpus\":%u,\"machine\":\"%s\",\"volumes\":%u,\"ports\":%u,\"blocker\":\"%s\"}",
        vm->name, vm->uuid, lmo_run_state_name(vm->state), vm->persistent, vm->autostart, vm->memory_bytes, vm->vcpus,
        vm->machine, vm->volume_count, vm->port_count, vm->blocker);
    for (unsigned i = 0; i < vm->volume_count; i++)
        out("{\"volume\":\"%s\",\"target\":\"%s\",\"driver\":\"%s\",\"service\":\"%s\",\"export\":\"%s\"}",
            vm->volumes[i].volume, vm->volumes[i].target, vm->volumes[i].driver, vm->volumes[i].service,
            vm->volumes[i].export_name);
    for (unsigned i = 0; i < vm->port_count; i++)
        out("{\"port\":\"%s\",\"mac\":\"%s\",\"bridge\":\"%s\",\"device\":\"%s\"}", vm->ports[i].id, vm->ports[i].mac,
            vm->ports[i].bridge, vm->ports[i].device);
    return 0;
}

static int show_state(struct ctl *c, const char *uuid)
{
    struct lmo_err err = {0};
    enum lmo_run_state state;
    double began = now_ms();
    int r = c->hv->ops->state(c->hv, uuid, &state, TIMEOUT_MS, &err);
    if (r < 0)
        return fail("state", r, &err);
    out("{\"state\":\"%s\",\"took_ms\":%.3f}", lmo_run_state_name(state), now_ms() - began);
    return 0;
}

static int freeze(struct ctl *c, const char *uuid, uint64_t timeout_ms, char *ret_line, size_t size)
{
    struct lmo_freeze_result res;
    double began = now_ms();
    c->hv->ops->freeze(c->hv, uuid, timeout_ms, &res);
    out("{\"freeze\":\"%s\",\"evidence\":\"%s\",\"asked\":%.3f,\"took_ms\":%.3f}", lmo_freeze_answer_name(res.answer),
        res.evidence, began, now_ms() - began);
    const char *pid = strstr(res.evidence, "pid=");
    c->frozen_pid = pid && res.answer == LMO_FREEZE_FROZEN ? atoi(pid + 4) : 0;
    if (ret_line)
        (void)snprintf(ret_line, size, "%s\n", lmo_freeze_answer_name(res.answer));
    return 0;
}

static int order(const char *what, int r, const struct lmo_err *err, double began)
{
    if (r < 0)
        return fail(what, r, err);
    out("{\"%s\":\"ok\",\"took_ms\":%.3f,\"at\":%.3f}", what, now_ms() - began, now_ms());
    return 0;
}

/* ------------------------------------------------------------------ the source's side of a cutover */

static int simple(struct ctl *c, const char *cmd, const char *uuid)
{
    struct lmo_err err = {0};
    const struct lmo_hypervisor_ops *o = c->hv->ops;
    double began = now_ms();
    if (strcmp(cmd, "thaw") == 0)
        return order(cmd, o->thaw(c->hv, uuid, TIMEOUT_MS, &err), &err, began);
    if (strcmp(cmd, "kill") == 0)
        return order(cmd, o->kill(c->hv, uuid, 30000, &err), &err, began);
    if (strcmp(cmd, "remove") == 0)
        return order(cmd, o->remove(c->hv, uuid, false, TIMEOUT_MS, &err), &err, began);
    if (strcmp(cmd, "remove-dead") == 0)
        return order(cmd, o->remove(c->hv, uuid, true, TIMEOUT_MS, &err), &err, began);
    if (strcmp(cmd, "resume") == 0)
        return order(cmd, o->resume(c->hv, uuid, TIMEOUT_MS, &err), &err, began);
    if (strcmp(cmd, "discard") == 0)
        return order(cmd, o->discard_prepared(c->hv, uuid, TIMEOUT_MS, &err), &err, began);
    if (strcmp(cmd, "abort") == 0)
        return order(cmd, o->job_abort(c->hv, uuid, &err), &err, began);
    if (strcmp(cmd, "limits") == 0)
        return order(cmd, o->job_limits(c->hv, uuid, env("BW", 0), env("DOWNTIME_MS", 300), &err), &err, began);
    if (strcmp(cmd, "settle") == 0)
        return order(cmd, o->settle(c->hv, uuid, true, false, TIMEOUT_MS, &err), &err, began);
    if (strcmp(cmd, "state") == 0)
        return show_state(c, uuid);
    if (strcmp(cmd, "freeze") == 0)
        return freeze(c, uuid, 2000, NULL, 0);
    out("{\"failed\":\"%s\",\"text\":\"no such command\"}", cmd);
    return 2;
}

/* Lines "freeze UUID", "kill UUID" ... on one connection. */
static void serve_connection(struct ctl *c, int fd)
{
    char line[128], answer[64];
    size_t len = 0;
    for (ssize_t n; len < sizeof line - 1 && (n = read(fd, line + len, sizeof line - 1 - len)) > 0;) {
        len += (size_t)n;
        line[len] = '\0';
        for (char *nl; (nl = strchr(line, '\n'));) {
            char cmd[32], uuid[64];
            *nl = '\0';
            (void)snprintf(answer, sizeof answer, "done\n");
            if (sscanf(line, "%31s %63s", cmd, uuid) == 2) {
                if (strcmp(cmd, "freeze") == 0)
                    (void)freeze(c, uuid, 2000, answer, sizeof answer);
                else
                    (void)simple(c, cmd, uuid);
            }
            if (write(fd, answer, strlen(answer)) < 0)
                return;
            len -= (size_t)(nl + 1 - line);
            memmove(line, nl + 1, len + 1);
        }
    }
}

struct server {
    struct ctl *c;
    int fd;
};

static void *server_main(void *arg)
{
    struct server *s = arg;
    for (;;) {
        int one = 1, fd = accept(s->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        serve_connection(s->c, fd);
        (void)close(fd);
    }
}

static int listen_on(struct server *s, const char *port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    pthread_t thread;
    int one = 1;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s->fd, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(s->fd, 4) < 0 ||
        pthread_create(&thread, NULL, server_main, s) != 0) {
        out("{\"failed\":\"listen\",\"text\":\"%s\"}", strerror(errno));
        return -1;
    }
    return 0;
}

static int parse_map(int count, char **texts, struct lmo_hv_disk_map *map)
{
    *map = (struct lmo_hv_disk_map){0};
    for (int i = 0; i < count && map->count < LMO_VOLUMES_MAX; i++) {
        const char *eq = strchr(texts[i], '=');
        if (!eq || eq - texts[i] > 15)
            return -1;
        (void)snprintf(map->disk[map->count].target, 16, "%.*s", (int)(eq - texts[i]), texts[i]);
        (void)snprintf(map->disk[map->count++].export_name, LMO_EXPORT_MAX, "%s", eq + 1);
    }
    return 0;
}

static void print_progress(struct ctl *c, const char *uuid)
{
    struct lmo_progress p;
    struct lmo_err err = {0};
    if (c->hv->ops->job_progress(c->hv, uuid, &p, &err) < 0)
        return;
    out("{\"progress\":%" PRIu32 ",\"total\":%" PRIu64 ",\"remaining\":%" PRIu64 ",\"transferred\":%" PRIu64
        ",\"rate\":%" PRIu64 ",\"dirty\":%" PRIu64 ",\"elapsed_ms\":%" PRIu64 ",\"at\":%.3f}",
        p.iteration, p.total_bytes, p.remaining_bytes, p.transferred_bytes, p.rate_bytes_per_s, p.dirty_bytes_per_s,
        p.elapsed_ms, now_ms());
}

/* Where the first vCPU of a stopped QEMU is: the independent witness against a wrong "frozen". */
static void print_vcpu(pid_t pid)
{
    char path[96], call[192] = "", sched[96] = "", comm[32];
    for (int tid = pid; tid < pid + 64; tid++) {
        (void)snprintf(path, sizeof path, "/proc/%d/task/%d/comm", (int)pid, tid);
        FILE *f = fopen(path, "re");
        if (!f)
            continue;
        bool vcpu = fgets(comm, sizeof comm, f) && strncmp(comm, "CPU ", 4) == 0;
        (void)fclose(f);
        if (!vcpu)
            continue;
        (void)snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", (int)pid, tid);
        if ((f = fopen(path, "re"))) {
            (void)!fgets(call, sizeof call, f);
            (void)fclose(f);
        }
        (void)snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", (int)pid, tid);
        if ((f = fopen(path, "re"))) {
            (void)!fgets(sched, sizeof sched, f);
            (void)fclose(f);
        }
        call[strcspn(call, "\n")] = sched[strcspn(sched, "\n")] = '\0';
        out("{\"vcpu\":%d,\"call\":\"%s\",\"sched\":\"%s\",\"at\":%.3f}", tid, call, sched, now_ms());
        return;
    }
}

/* Freezes and continues in a tight loop until the answer is no longer "frozen": every freeze is a race with libvirt's
 * resume of the source, and whoever reads the output can compare each answer with the stamp of QEMU's own RESUME. */
static void *storm_main(void *arg)
{
    struct ctl *c = arg;
    char answer[64];
    if (!await(c, &c->seen[LMO_HV_EV_SUSPENDED], 60000))
        return NULL;
    (void)poll(NULL, 0, (int)env("STORM_MS", 0));
    do {
        (void)freeze(c, c->last[LMO_HV_EV_SUSPENDED].uuid, 2000, answer, sizeof answer);
        if (c->frozen_pid > 1) {
            print_vcpu(c->frozen_pid);
            (void)kill(c->frozen_pid, SIGCONT);
        }
        (void)poll(NULL, 0, (int)env("STORM_PAUSE_MS", 1));
    } while (strcmp(answer, "frozen\n") == 0 || strcmp(answer, "unknown\n") == 0);
    return NULL;
}

/* serve PORT VM PEER_URI MIGRATION_URI TARGET=EXPORT...
 * Environment: GATE_MS (open the gate after so long; 0: never), SAMPLE_MS, ABORT_MS, WAIT_MS, PERSIST. */
static int serve(struct ctl *c, int argc, char **argv)
{
    struct lmo_err err = {0};
    struct lmo_vm_facts vm;
    struct lmo_hv_disk_map map;
    char *xml = NULL;
    struct server server = {.c = c};
    struct lmo_hv_job job = {.gate_bandwidth_bytes_per_s = env("GATE_BW", 1 << 20),
                             .gate_downtime_ms = 1,
                             .persist_destination = env("PERSIST", 1) != 0};
    if (argc < 4 || parse_map(argc - 4, argv + 4, &map) < 0 || listen_on(&server, argv[0]) < 0)
        return 2;
    int r = c->hv->ops->describe(c->hv, argv[1], &vm, TIMEOUT_MS, &err);
    if (r == 0)
        r = c->hv->ops->outgoing_xml(c->hv, vm.uuid, &map, &xml, TIMEOUT_MS, &err);
    if (r < 0)
        return fail("describe", r, &err);
    pthread_t storm;
    if (getenv("STORM_MS") && pthread_create(&storm, NULL, storm_main, c) != 0)
        return 1;
    (void)snprintf(job.uuid, sizeof job.uuid, "%s", vm.uuid);
    (void)snprintf(job.migration, sizeof job.migration, "experiment");
    (void)snprintf(job.peer_uri, sizeof job.peer_uri, "%s", argv[2]);
    (void)snprintf(job.migration_uri, sizeof job.migration_uri, "%s", argv[3]);
    job.destination_xml = xml;
    double began = now_ms();
    r = c->hv->ops->job_start(c->hv, &job, on_end, c, &err);
    free(xml);
    if (r < 0)
        return fail("job_start", r, &err);
    out("{\"job_start\":\"ok\",\"took_ms\":%.3f,\"at\":%.3f}", now_ms() - began, began);
    uint64_t gate = env("GATE_MS", 300), sample = env("SAMPLE_MS", 200), abort_ms = env("ABORT_MS", 0);
    bool opened = false, aborted = false;
    uint64_t start = lmo_now_ms();
    while (!await(c, &c->ended, sample)) {
        uint64_t age = lmo_now_ms() - start;
        if (gate && age >= gate && !opened) {
            opened = true;
            double t = now_ms();
            (void)order("open_gate", c->hv->ops->job_limits(c->hv, vm.uuid, 0, env("DOWNTIME_MS", 300), &err), &err, t);
        }
        if (abort_ms && age >= abort_ms && !aborted) {
            aborted = true;
            (void)simple(c, "abort", vm.uuid);
        }
        if (!c->seen[LMO_HV_EV_SUSPENDED])
            print_progress(c, vm.uuid);
        if (age > env("WAIT_MS", 120000))
            return 1;
    }
    bool never = false;
    (void)await(c, &never, env("AFTER_MS", 1000)); /* the destination's last orders */
    return 0;
}

/* ------------------------------------------------------------------ the destination's side */

static int connect_to(const char *address, const char *port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)inet_pton(AF_INET, address, &addr.sin_addr);
    for (int i = 0; i < 100 && connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0; i++)
        (void)poll(NULL, 0, 100); /* the other tool may not have started yet */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static bool ask(int fd, const char *cmd, const char *uuid, char *ret, size_t size)
{
    char line[128];
    int n = snprintf(line, sizeof line, "%s %s\n", cmd, uuid);
    ssize_t got = write(fd, line, (size_t)n) == n ? read(fd, ret, size - 1) : -1;
    ret[got > 0 ? got : 0] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    return got > 0;
}

/* cutover ADDRESS PORT. Environment: DELAY_MS before the freeze is asked, AGAIN (times to ask while unknown, 100 ms
 * apart), RESUME=0, KILL=0, WAIT_MS. */
static int cutover(struct ctl *c, int argc, char **argv)
{
    struct lmo_err err = {0};
    char answer[64] = "";
    if (argc < 2)
        return 2;
    int fd = connect_to(argv[0], argv[1]);
    if (!await(c, &c->seen[LMO_HV_EV_LOADED], env("WAIT_MS", 120000))) {
        out("{\"failed\":\"cutover\",\"text\":\"no guest was loaded\"}");
        return 1;
    }
    struct lmo_hv_event loaded = c->last[LMO_HV_EV_LOADED];
    (void)poll(NULL, 0, (int)env("DELAY_MS", 0));
    for (uint64_t i = 0; i <= env("AGAIN", 0); i++) {
        if (i)
            (void)poll(NULL, 0, 100);
        if (!ask(fd, "freeze", loaded.uuid, answer, sizeof answer) || strcmp(answer, "unknown") != 0)
            break;
    }
    double answered = now_ms(), resumed = 0;
    bool go = strcmp(answer, "frozen") == 0 || strcmp(answer, "gone") == 0;
    if (go && env("RESUME", 1)) {
        int r = c->hv->ops->resume(c->hv, loaded.uuid, TIMEOUT_MS, &err);
        resumed = now_ms();
        if (r < 0)
            (void)fail("resume", r, &err);
        (void)await(c, &c->seen[LMO_HV_EV_RESUMED], 1000);
    }
    double ran = (double)c->last[LMO_HV_EV_RESUMED].realtime_us / 1000.0;
    out("{\"cutover\":\"%s\",\"loaded\":%.3f,\"loaded_to_answer_ms\":%.3f,\"resume_ms\":%.3f,\"loaded_to_resumed_ms\":"
        "%.3f,\"loaded_to_running_ms\":%.3f,\"running\":%.3f}",
        answer, (double)loaded.realtime_us / 1000.0, answered - (double)loaded.realtime_us / 1000.0,
        resumed > 0 ? resumed - answered : 0, resumed > 0 ? resumed - (double)loaded.realtime_us / 1000.0 : 0,
        ran > 0 ? ran - (double)loaded.realtime_us / 1000.0 : 0, ran);
    if (go && env("KILL", 1))
        (void)ask(fd, "kill", loaded.uuid, answer, sizeof answer);
    if (strcmp(answer, "running") == 0 && env("KILL", 1))
        (void)simple(c, "remove-dead", loaded.uuid);
    (void)close(fd);
    return 0;
}

/* ------------------------------------------------------------------ main */

static int precheck(struct ctl *c, const char *path, bool prepare)
{
    struct lmo_err err = {0};
    struct lmo_hv_incoming in = {0};
    char *xml = NULL;
    size_t size = 0;
    FILE *f = fopen(path, "re");
    if (!f || getdelim(&xml, &size, '\0', f) < 0)
        return 2;
    in.domain_xml = xml;
    if (prepare)
        (void)snprintf(in.uuid, sizeof in.uuid, "%s", getenv("UUID") ? getenv("UUID") : "experiment");
    double began = now_ms();
    int r = prepare ? c->hv->ops->prepare_incoming(c->hv, &in, TIMEOUT_MS, &err)
                    : c->hv->ops->precheck_incoming(c->hv, &in, TIMEOUT_MS, &err);
    free(xml);
    (void)fclose(f);
    return order(prepare ? "prepare" : "precheck", r, &err, began);
}

static int print_xml(struct ctl *c, int argc, char **argv)
{
    struct lmo_err err = {0};
    struct lmo_vm_facts vm;
    struct lmo_hv_disk_map map;
    char *xml = NULL;
    int r = c->hv->ops->describe(c->hv, argv[0], &vm, TIMEOUT_MS, &err);
    if (r == 0 && parse_map(argc - 1, argv + 1, &map) == 0)
        r = c->hv->ops->outgoing_xml(c->hv, vm.uuid, &map, &xml, TIMEOUT_MS, &err);
    if (r < 0)
        return fail("xml", r, &err);
    (void)fputs(xml, stdout);
    (void)fflush(stdout);
    free(xml);
    return 0;
}

static int command(struct ctl *c, int argc, char **argv)
{
    struct lmo_err err = {0};
    struct lmo_vm_facts vm;
    int r;
    if (strcmp(argv[0], "list") == 0) {
        r = c->hv->ops->list(c->hv, print_vm, NULL, TIMEOUT_MS, &err);
        return r < 0 ? fail("list", r, &err) : 0;
    }
    if (argc < 2)
        return 2;
    if (strcmp(argv[0], "describe") == 0) {
        r = c->hv->ops->describe(c->hv, argv[1], &vm, TIMEOUT_MS, &err);
        return r < 0 ? fail("describe", r, &err) : print_vm(NULL, &vm);
    }
    if (strcmp(argv[0], "watch") == 0) {
        bool never = false;
        (void)await(c, &never, strtoull(argv[1], NULL, 10) * 1000);
        return 0;
    }
    if (strcmp(argv[0], "xml") == 0)
        return print_xml(c, argc - 1, argv + 1);
    if (strcmp(argv[0], "precheck") == 0 || strcmp(argv[0], "prepare") == 0)
        return precheck(c, argv[1], argv[0][2] == 'e' && argv[0][3] == 'p');
    if (strcmp(argv[0], "serve") == 0)
        return serve(c, argc - 1, argv + 1);
    if (strcmp(argv[0], "guard") == 0) { /* guard PORT SECONDS: answers, without a job of its own */
        struct server server = {.c = c};
        bool never = false;
        if (argc < 3 || listen_on(&server, argv[1]) < 0)
            return 2;
        (void)await(c, &never, strtoull(argv[2], NULL, 10) * 1000);
        return 0;
    }
    if (strcmp(argv[0], "cutover") == 0)
        return cutover(c, argc - 1, argv + 1);
    return simple(c, argv[0], argv[1]);
}

int main(int argc, char **argv)
{
    struct ctl c = {.at_suspended = getenv("AT_SUSPENDED"), .quiet = getenv("QUIET") != NULL};
    struct lmo_hypervisor_config cfg = {.on_event = on_event, .arg = &c};
    struct lmo_err err = {0};
    if (argc < 2) {
        (void)fprintf(stderr,
                      "hvctl list | describe VM | xml VM T=EXPORT... | precheck FILE | prepare FILE | watch SECONDS |\n"
                      "      state|freeze|thaw|kill|remove|remove-dead|resume|discard|abort|limits|settle UUID |\n"
                      "      serve PORT VM PEER_URI MIGRATION_URI T=EXPORT... | guard PORT SECONDS |\n"
                      "      cutover ADDRESS PORT\n");
        return 2;
    }
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.changed, NULL);
    if (getenv("DEBUG"))
        lmo_log_set_level(LMO_LOG_DEBUG);
    (void)snprintf(cfg.uri, sizeof cfg.uri, "%s", getenv("HVCTL_URI") ? getenv("HVCTL_URI") : "qemu:///system");
    (void)snprintf(cfg.state_dir, sizeof cfg.state_dir, "%s",
                   getenv("HVCTL_STATE") ? getenv("HVCTL_STATE") : "/run/hvctl");
    int r = lmo_hypervisor_libvirt_open(&cfg, &c.hv, &err);
    if (r < 0)
        return fail("open", r, &err);
    int rc = await(&c, &c.seen[LMO_HV_EV_WATCH_RESTORED], 5000) ? command(&c, argc - 1, argv + 1) : 1;
    c.hv->ops->close(c.hv);
    return rc;
}
