/* fleet.c - a coordinator and a fleet of real workers over mutual TLS: memory, fairness, latency, and what events are worth.
 *
 *   fleet --dir DIR --state DIR [--workers N] [--migrations N] [--processes N] [--rounds N] [--polls N]
 *
 * --dir: for the workers' journals and the world (a memory disk: a thousand workers share what are a thousand disks in
 * life); --state: for the coordinator's store. Drivers answer at once. Prints one JSON object. In this order:
 *   idle       every worker connected, nothing to do: bytes per worker
 *   unloaded   one migration after the other, over REST: request to the start of its job, request to its end
 *   crowd      all guests at once, each to another host of its rack: time to completion, the slowest against the median
 *   held       all guests at once, all kept in pre-copy behind their open gates: bytes per migration; then let go
 *   polling    a few more of the unloaded ones with a coordinator that looks only every 500 ms */
#include "bench/lib/bench.h"

#include "api/api.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "fakes/world.h"
#include "http/client.h"
#include "simworkers/fleet.h"

#include <argp.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES_MAX 32
#define WINDOW        64 /* requests of clients under way at once */
#define SLOWEST_MS    600000
#define POLL_MS       500
#define WARM_UP       5
#define BASE_PORT     20001
#define RETRY_MS      200
#define RETRIES_MAX   100000
#define RACK          50
#define HELD_MS       3600000 /* those that are held may have to wait for the last of the crowd */

extern char **environ;

static struct {
    const char *dir, *state, *program;
    unsigned workers, migrations, processes, rounds, polls;
} args = {.workers = 1000, .migrations = 5000, .processes = 4, .rounds = 100, .polls = 4};

static struct {
    struct fake_world *world;
    pid_t pids[PROCESSES_MAX];
    FILE *outputs[PROCESSES_MAX];
    struct coordinator *c;
    /* the client */
    struct lmo_loop *loop;
    struct lmo_http_client *client;
    uint64_t *asked_ns; /* by guest */
    unsigned next, last, under_way, retried;
    bool two_hosts; /* guests go to and fro between two hosts: every connection is there already */
} b;

/* ------------------------------------------------------------------ the fleet's processes */

static void stop_fleet(void)
{
    for (unsigned i = args.processes; i-- > 0;) { /* the keeper last */
        if (b.pids[i] > 0) {
            (void)kill(b.pids[i], SIGTERM);
        }
    }
    for (unsigned i = args.processes; i-- > 0;) {
        int status = 0;
        char line[512];
        if (b.pids[i] <= 0) {
            continue;
        }
        while (fgets(line, sizeof line, b.outputs[i])) {
            if (i == 0) {
                (void)fprintf(stderr, "%s", line);
            }
        }
        (void)waitpid(b.pids[i], &status, 0);
        b.pids[i] = 0;
        (void)fclose(b.outputs[i]);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            (void)fprintf(stderr, "fleet: process %u ended with %x\n", i, (unsigned)status);
        }
    }
}

static void spawn_one(unsigned i)
{
    char text[8][32];
    int fds[2];
    unsigned first = args.workers * i / args.processes, count = args.workers * (i + 1) / args.processes - first;
    const unsigned numbers[] = {first, count, args.workers, args.migrations, RACK};
    for (unsigned k = 0; k < 5; k++) {
        snprintf(text[k], sizeof text[k], "%u", numbers[k]);
    }
    const char *argv[] = {args.program, "--dir", args.dir, "--first", text[0], "--workers", text[1], "--hosts", text[2],
                          "--guests", text[3], "--rack", text[4], "--noop", i == 0 ? "--make" : NULL, NULL};
    posix_spawn_file_actions_t actions;
    if (pipe(fds) < 0 || posix_spawn_file_actions_init(&actions) != 0 ||
        posix_spawn_file_actions_adddup2(&actions, fds[1], 1) != 0 ||
        posix_spawn_file_actions_addclose(&actions, fds[0]) != 0 ||
        posix_spawn(&b.pids[i], args.program, &actions, NULL, (char *const *)(uintptr_t)argv, environ) != 0) {
        die("%s: %s", args.program, strerror(errno));
    }
    posix_spawn_file_actions_destroy(&actions);
    close(fds[1]);
    b.outputs[i] = fdopen(fds[0], "r");
    lmo_assert(b.outputs[i]);
}

static void start_fleet(void)
{
    char path[LMO_PATH_MAX], line[128];
    struct lmo_err err = {0};
    at_the_end(stop_fleet);
    for (unsigned i = 0; i < args.processes; i++) {
        spawn_one(i);
    }
    for (unsigned i = 0; i < args.processes; i++) {
        if (!fgets(line, sizeof line, b.outputs[i]) || strncmp(line, "ready", 5) != 0) {
            die("process %u of the fleet did not start", i);
        }
    }
    snprintf(path, sizeof path, "%s/world", args.dir);
    check(fake_world_join(path, &b.world, &err), &err, "world");
}

/* ------------------------------------------------------------------ waiting */

static void nap_ms(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}

static void wait_for(const _Atomic unsigned *counter, unsigned wanted, unsigned limit_ms, const char *what)
{
    uint64_t end = lmo_now_ms() + limit_ms;
    while (*counter < wanted && lmo_now_ms() < end) {
        nap_ms(2);
    }
    if (*counter < wanted) {
        die("%s: %u of %u after %u ms", what, *counter, wanted, limit_ms);
    }
}

static size_t resident(void)
{
    unsigned long size = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%lu %lu", &size, &pages) != 2) {
        pages = 0;
    }
    if (f) {
        (void)fclose(f);
    }
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* What is in use once everything has come to rest. */
static void at_rest(size_t *ret_heap, size_t *ret_resident)
{
    nap_ms(3000);
    (void)malloc_trim(0);
    *ret_heap = heap_in_use();
    *ret_resident = resident();
}

/* ------------------------------------------------------------------ the client */

static void ask_next(void);
static void ask_again(void *arg);

static void on_answer(void *arg, const struct lmo_http_response *r)
{
    uint64_t timer;
    b.under_way--;
    if (r->result == 0 && r->status == 202) {
        ask_next();
        return;
    }
    if (b.retried++ < 3) {
        (void)fprintf(stderr, "asked again: %d %u %.300s\n", r->result, r->status,
                      r->result < 0 && r->err ? r->err->text : r->body);
    }
    if (b.retried > RETRIES_MAX || (r->result == 0 && r->status != 503 && r->status != 429)) {
        die("a request was refused");
    }
    b.under_way++; /* as a client does: later again */
    check(lmo_loop_timer(b.loop, RETRY_MS, ask_again, arg, &timer), NULL, "timer");
}

static void ask(unsigned guest, bool again)
{
    char url[64], body[256];
    fake_lock(b.world);
    const struct fake_guest *g = fake_guest(b.world, guest);
    unsigned at = 0;
    for (unsigned i = 0; i < FAKE_COPIES; i++) {
        if (g->copies[i].used && g->copies[i].process) {
            at = g->copies[i].host;
        }
    }
    unsigned rack = at / RACK * RACK, size = args.workers - rack < RACK ? args.workers - rack : RACK;
    unsigned to = rack + (at - rack + 1) % (b.two_hosts ? 2 : size);
    snprintf(body, sizeof body,
             "{\"vm\":\"%s\",\"source\":\"%s\",\"destination\":\"%s\",\"policy\":{\"convergence_timeout_ms\":%u}}", g->uuid,
             b.world->hosts[at].name, b.world->hosts[to].name, HELD_MS);
    fake_unlock(b.world);
    snprintf(url, sizeof url, "https://127.0.0.1:%u/v1/migrations", lmo_api_port(b.c->api));
    const struct lmo_http_request_spec spec = {.method = "POST",
                                               .url = url,
                                               .body = body,
                                               .body_len = strlen(body),
                                               .timeout_ms = 30000,
                                               .peer_role = LMO_ROLE_COORDINATOR};
    struct lmo_err err = {0};
    b.c->ended_ns[guest] = 0;
    b.asked_ns[guest] = again ? b.asked_ns[guest] : lmo_now_ns();
    b.under_way++;
    check(lmo_http_request_async(b.client, &spec, on_answer, (void *)(uintptr_t)guest, NULL, &err), &err, "request");
}

static void ask_again(void *arg)
{
    b.under_way--;
    ask((unsigned)(uintptr_t)arg, true);
}

static void ask_next(void)
{
    while (b.next < b.last && b.under_way < WINDOW) {
        ask(b.next++, false);
    }
    if (b.under_way == 0) {
        lmo_loop_stop(b.loop);
    }
}

/* All of them are accepted when this returns. */
static void ask_for(unsigned first, unsigned count)
{
    b.next = first;
    b.last = first + count;
    ask_next();
    check(lmo_loop_run(b.loop), NULL, "client's loop");
}

static void open_client(void)
{
    struct lmo_err err = {0};
    const struct lmo_http_client_config cfg = {.tls = fleet_tls(args.dir, "operator", "fleet"),
                                               .connections_per_host = WINDOW};
    check(lmo_loop_new(64, &b.loop, &err), &err, "loop");
    check(lmo_http_client_new(b.loop, &cfg, &b.client, &err), &err, "client");
}

/* ------------------------------------------------------------------ the parts */

static void put(json_t *o, const char *key, double value, int digits)
{
    json_object_set_new(o, key, digits ? json_real(rounded(value, digits)) : json_integer((json_int_t)(value + 0.5)));
}

static void on_added(void *arg, const struct lmo_engine_reply *reply)
{
    _Atomic unsigned *added = arg;
    if (reply->code < 0) {
        die("host: %s", reply->text);
    }
    json_decref(reply->body);
    (*added)++;
}

static void measure_idle(json_t *concurrent, json_t *raw)
{
    static _Atomic unsigned added;
    size_t heap[2], rss[2];
    at_rest(&heap[0], &rss[0]);
    uint64_t began = lmo_now_ns();
    for (unsigned i = 0; i < args.workers; i++) {
        char name[32], url[64];
        snprintf(name, sizeof name, "hv%u", i + 1);
        snprintf(url, sizeof url, "https://127.0.0.1:%u", BASE_PORT + i);
        check(lmo_engine_host_add(b.c->engine, name, url, on_added, &added), NULL, "host");
    }
    wait_for(&added, args.workers, 120000, "hosts added");
    wait_for(&b.c->up, args.workers, 120000, "workers up");
    put(raw, "workers_up_ms", (double)(lmo_now_ns() - began) / 1e6, 0);
    at_rest(&heap[1], &rss[1]);
    put(concurrent, "bytes_per_idle_worker", (double)(heap[1] - heap[0]) / args.workers, 0);
    put(raw, "resident_per_idle_worker", (double)(rss[1] - rss[0]) / args.workers, 0);
}

/* Warm: one guest to and fro, after a few times that do not count. Cold: every guest from and to hosts that no call went to
 * before, so that every connection has to be made. */
static void measure_unloaded(unsigned rounds, bool warm, struct samples *to_start, struct samples *whole)
{
    b.two_hosts = warm;
    for (unsigned i = 0; i < rounds + (warm ? WARM_UP : 0); i++) {
        unsigned guest = warm ? 0 : i % args.migrations, ended = b.c->ended;
        ask_for(guest, 1);
        wait_for(&b.c->ended, ended + 1, 120000, "one migration");
        fake_lock(b.world);
        uint64_t started = fake_guest(b.world, guest)->job.started_ns;
        fake_unlock(b.world);
        lmo_assert(started > b.asked_ns[guest]);
        if (warm && i < WARM_UP) {
            continue;
        }
        samples_add(to_start, started - b.asked_ns[guest]);
        samples_add(whole, b.c->ended_ns[guest] - b.asked_ns[guest]);
    }
    b.two_hosts = false;
}

static void measure_crowd(json_t *concurrent, json_t *raw)
{
    struct samples s = {0};
    unsigned ended = b.c->ended, well = b.c->ended_well;
    uint64_t transitions = b.c->transitions, began = lmo_now_ns();
    ask_for(0, args.migrations);
    put(raw, "crowd_accepted_ms", (double)(lmo_now_ns() - began) / 1e6, 0);
    wait_for(&b.c->ended, ended + args.migrations, SLOWEST_MS, "crowd");
    double seconds = (double)(lmo_now_ns() - began) / 1e9;
    for (unsigned i = 0; i < args.migrations; i++) {
        samples_add(&s, b.c->ended_ns[i] - b.asked_ns[i]);
    }
    double median = (double)samples_percentile(&s, 50) / 1e6, max = (double)samples_percentile(&s, 100) / 1e6;
    put(concurrent, "migrations", args.migrations, 0);
    put(concurrent, "completed", b.c->ended_well - well, 0);
    put(concurrent, "slowest_over_median", max / median, 2);
    put(raw, "crowd_asked_again", b.retried, 0);
    put(raw, "crowd_median_ms", median, 0);
    put(raw, "crowd_p99_ms", (double)samples_percentile(&s, 99) / 1e6, 0);
    put(raw, "crowd_max_ms", max, 0);
    put(raw, "crowd_migrations_per_s", args.migrations / seconds, 1);
    put(raw, "crowd_transitions_per_s", (double)(b.c->transitions - transitions) / seconds, 0);
    samples_done(&s);
}

static unsigned held_count(void)
{
    unsigned n = 0;
    fake_lock(b.world);
    for (unsigned i = 0; i < args.migrations; i++) {
        const struct fake_job *j = &fake_guest(b.world, i)->job;
        n += j->running && j->gate_open && !j->suspended;
    }
    fake_unlock(b.world);
    return n;
}

static void measure_held(json_t *concurrent, json_t *raw)
{
    size_t heap[2], rss[2];
    unsigned ended = b.c->ended, n = 0;
    at_rest(&heap[0], &rss[0]);
    fake_hold(b.world, true);
    ask_for(0, args.migrations);
    uint64_t end = lmo_now_ms() + SLOWEST_MS;
    while ((n = held_count()) < args.migrations && lmo_now_ms() < end) {
        nap_ms(50);
    }
    if (n < args.migrations) {
        die("held: only %u of %u came to their open gate", n, args.migrations);
    }
    at_rest(&heap[1], &rss[1]);
    put(concurrent, "bytes_per_migration", ((double)heap[1] - (double)heap[0]) / args.migrations, 0);
    put(raw, "resident_per_migration", ((double)rss[1] - (double)rss[0]) / args.migrations, 0);
    put(raw, "heap_held", (double)heap[1], 0);
    put(raw, "resident_held", (double)rss[1], 0);
    /* Some at a time: in life they converge when they converge. All at the same moment would be 5,000 guests that stand
     * still while two cores make the handshakes of 1,000 hosts. */
    for (unsigned first = 0; first < args.migrations; first += WINDOW) {
        unsigned count = args.migrations - first < WINDOW ? args.migrations - first : WINDOW;
        fake_let_go(b.world, first, count);
        wait_for(&b.c->ended, ended += count, SLOWEST_MS, "held, let go");
    }
    fake_hold(b.world, false);
}

/* ------------------------------------------------------------------ */

enum { OPT_DIR = 1000, OPT_STATE, OPT_WORKERS, OPT_MIGRATIONS, OPT_PROCESSES, OPT_ROUNDS, OPT_POLLS };
static const struct argp_option options[] = {
    {"dir", OPT_DIR, "DIR", 0, "For the fleet; must not exist", 0},
    {"state", OPT_STATE, "DIR", 0, "For the coordinator's store; must not exist", 0},
    {"workers", OPT_WORKERS, "N", 0, "(1000)", 0},
    {"migrations", OPT_MIGRATIONS, "N", 0, "(5000)", 0},
    {"processes", OPT_PROCESSES, "N", 0, "That share the workers (4)", 0},
    {"rounds", OPT_ROUNDS, "N", 0, "Migrations one after the other (100)", 0},
    {"polls", OPT_POLLS, "N", 0, "Migrations with the coordinator that polls (4)", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    unsigned n = arg ? (unsigned)strtoul(arg, NULL, 10) : 0;
    switch (key) {
    case OPT_DIR: args.dir = arg; return 0;
    case OPT_STATE: args.state = arg; return 0;
    case OPT_WORKERS: args.workers = n; return 0;
    case OPT_MIGRATIONS: args.migrations = n; return 0;
    case OPT_PROCESSES: args.processes = n < PROCESSES_MAX ? n : PROCESSES_MAX; return 0;
    case OPT_ROUNDS: args.rounds = n; return 0;
    case OPT_POLLS: args.polls = n; return 0;
    case ARGP_KEY_END:
        if (!args.dir || !args.state || args.workers < 2 || args.migrations == 0 || args.processes == 0) {
            argp_usage(state);
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void raise_limits(void)
{
    struct rlimit r = {262144, 262144};
    if (setrlimit(RLIMIT_NOFILE, &r) < 0 && getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &r);
    }
}

static void report(const char *part, uint64_t *began)
{
    (void)fprintf(stderr, "fleet: %s took %.1f s\n", part, (double)(lmo_now_ns() - *began) / 1e9);
    *began = lmo_now_ns();
}

int main(int argc, char **argv)
{
    static const struct argp argp = {.options = options, .parser = parse_option};
    char program[LMO_PATH_MAX], dir[LMO_PATH_MAX], state[LMO_PATH_MAX];
    struct samples to_start = {0}, whole = {0}, cold_start = {0}, cold = {0}, polled_start = {0}, polled = {0};
    json_t *all = json_object(), *raw = json_object(), *concurrent = json_object(), *latency = json_object();
    argp_parse(&argp, argc, argv, 0, NULL, &args);
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 32);
    lmo_assert(len > 0);
    program[len] = '\0';
    snprintf(strrchr(program, '/') + 1, 32, "lmo-simworkers");
    args.program = program;
    lmo_log_set_level(LMO_LOG_ERROR);
    raise_limits();
    make_dir(args.dir, "", dir);
    make_dir(args.state, "", state);
    b.asked_ns = calloc(args.migrations, sizeof *b.asked_ns);
    lmo_assert(b.asked_ns);

    uint64_t began = lmo_now_ns();
    start_fleet();
    open_client();
    b.c = coordinator_start(args.dir, args.state, args.migrations, 0);
    report("starting", &began);
    measure_idle(concurrent, raw);
    report("idle", &began);
    measure_unloaded(args.rounds / 4 + 1, false, &cold_start, &cold);
    measure_unloaded(args.rounds, true, &to_start, &whole);
    report("unloaded", &began);
    measure_crowd(concurrent, raw);
    report("crowd", &began);
    measure_held(concurrent, raw);
    report("held", &began);
    coordinator_stop(b.c);
    if (args.polls > 0) {
        b.c = coordinator_start(args.dir, args.state, args.migrations, POLL_MS);
        wait_for(&b.c->up, args.workers, 120000, "workers up again");
        measure_unloaded(args.polls, true, &polled_start, &polled);
        coordinator_stop(b.c);
        report("polling", &began);
    }
    put(latency, "p50", (double)samples_percentile(&to_start, 50) / 1e6, 2);
    put(latency, "p99", (double)samples_percentile(&to_start, 99) / 1e6, 2);
    put(raw, "whole_migration_p50_ms", (double)samples_percentile(&whole, 50) / 1e6, 2);
    put(raw, "whole_migration_p99_ms", (double)samples_percentile(&whole, 99) / 1e6, 2);
    put(raw, "request_to_precopy_cold_p50_ms", (double)samples_percentile(&cold_start, 50) / 1e6, 2);
    put(raw, "whole_migration_cold_p50_ms", (double)samples_percentile(&cold, 50) / 1e6, 2);
    put(raw, "workers", args.workers, 0);
    json_object_set_new(all, "concurrent", concurrent);
    json_object_set_new(all, "request_to_precopy_ms", latency);
    if (args.polls > 0) {
        put(raw, "whole_migration_polling_p50_ms", (double)samples_percentile(&polled, 50) / 1e6, 0);
        put(all, "dead_time_poll_over_event",
            (double)samples_percentile(&polled, 50) / (double)samples_percentile(&whole, 50), 1);
    }
    json_object_set_new(all, "raw", raw);
    json_dumpf(all, stdout, JSON_INDENT(2));
    (void)putchar('\n');
    b.client = lmo_http_client_free(b.client);
    b.loop = lmo_loop_free(b.loop);
    json_decref(all);
    return 0;
}
