/* restart.c - a coordinator that starts with many open migrations: how long until it serves and drives again.
 *
 *   restart DIR [OPEN]        DIR: on the disk that is to be measured; OPEN: 10000
 *
 * The store is filled with records in pre-copy, each with two calls under way, as a crash leaves them. A new process then
 * starts on it as lmod does: store, engine, REST API over mutual TLS. Two moments are taken, from the start of that
 * process: serving (a client's GET of a migration is answered), and driving (every record was stepped, the steps are
 * durable, and all of the 2 * OPEN calls were asked for again). Workers answer from memory: their handshakes are not
 * the coordinator's work. */
#include "bench/lib/bench.h"

#include "api/api.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "http/client.h"
#include "simworkers/fleet.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HOSTS     40
#define BATCH     500
#define XML_BYTES 6000
#define ROUNDS    3
#define LIMIT_MS  60000

extern char **environ;

/* ------------------------------------------------------------------ filling the store */

static void fill(const char *state, unsigned open, char ret_id[LMO_ID_MAX])
{
    struct memory_workers w;
    struct lmo_store *store;
    struct lmo_err err = {0};
    static char xml[XML_BYTES + 1];
    memory_workers_init(&w, NULL, HOSTS);
    check(lmo_store_sqlite_open(state, &store, &err), &err, "store");
    memory_hosts(&w, store);
    memset(xml, 'x', XML_BYTES);
    struct lmo_migration *records = calloc(BATCH, sizeof *records);
    struct lmo_commit_item items[BATCH];
    lmo_assert(records);
    for (unsigned n = 0; n < open; n += BATCH) {
        unsigned count = open - n < BATCH ? open - n : BATCH;
        for (unsigned i = 0; i < count; i++) {
            memory_record(&w, n + i, &records[i]);
            items[i] = (struct lmo_commit_item){.record = &records[i], .xml = xml};
        }
        check(store->ops->commit(store, items, count, NULL, 0, &err), &err, "filling");
    }
    memcpy(ret_id, records[0].id, LMO_ID_MAX);
    free(records);
    store->ops->close(store);
}

/* ------------------------------------------------------------------ the process that starts */

static struct {
    struct lmo_loop *loop;
    struct memory_workers workers;
    uint64_t wanted, began_ns;
    bool said;
} child;

static void tell_driving(void *arg)
{
    (void)arg;
    uint64_t timer;
    if (child.workers.ops >= child.wanted && !child.said) {
        child.said = true;
        struct timespec cpu;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
        printf("driving %llu %llu\n", (unsigned long long)(lmo_now_ns() - child.began_ns),
               (unsigned long long)cpu.tv_sec * LMO_NS_PER_S + (unsigned long long)cpu.tv_nsec);
        (void)fflush(stdout);
    }
    char byte;
    if (child.said && read(0, &byte, 1) <= 0) { /* the parent is done */
        lmo_loop_stop(child.loop);
        return;
    }
    check(lmo_loop_timer(child.loop, 1, tell_driving, NULL, &timer), NULL, "timer");
}

static int run_child(const char *dir, const char *state, unsigned open)
{
    struct lmo_err err = {0};
    struct lmo_store *store;
    struct lmo_permit_key *key;
    struct lmo_engine *engine;
    struct lmo_api *api;
    char path[LMO_PATH_MAX];
    child.began_ns = lmo_now_ns();
    child.wanted = 2 * (uint64_t)open;
    lmo_log_set_level(LMO_LOG_ERROR);
    snprintf(path, sizeof path, "%.900s/pki/permit.key", dir);
    check(lmo_loop_new(8192, &child.loop, &err), &err, "loop");
    check(lmo_store_sqlite_open(state, &store, &err), &err, "store");
    check(lmo_permit_key_load(path, &key, &err), &err, "permit key");
    memory_workers_init(&child.workers, child.loop, HOSTS);
    child.workers.hold_precopy = true;
    child.workers.answer_us = LIMIT_MS * 1000U; /* asked for, not answered: what follows is not the restart */
    struct lmo_engine_config cfg = {.loop = child.loop, .store = store, .permit_key = key, .limits = &bench_limits};
    check(lmo_engine_new(&cfg, &engine, &err), &err, "engine");
    check(lmo_engine_start(engine, &child.workers.base, &err), &err, "engine");
    memory_workers_up(&child.workers, lmo_engine_callbacks(engine));
    struct lmo_api_config config = {.tls = fleet_tls(dir, "coordinator", "fleet"), .engine = engine};
    LMO_COPY(config.address, "127.0.0.1:0");
    check(lmo_api_start(&config, &api, &err), &err, "api");
    printf("port %u %llu\n", lmo_api_port(api), (unsigned long long)child.began_ns);
    (void)fflush(stdout);
    tell_driving(NULL);
    check(lmo_loop_run(child.loop), NULL, "loop");
    _exit(0); /* as a crash would: the next round finds the store as it is */
}

/* ------------------------------------------------------------------ the client */

struct started {
    double serving_ms, driving_ms, cpu_ms; /* cpu: of the process that starts, until it drives */
};

static struct started start_once(const char *dir, const char *state, unsigned open, const char *id)
{
    char self[LMO_PATH_MAX], number[16], line[128], url[128];
    int in[2], out[2], status;
    pid_t pid;
    struct lmo_err err = {0};
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    lmo_assert(len > 0 && pipe(in) == 0 && pipe(out) == 0);
    self[len] = '\0';
    snprintf(number, sizeof number, "%u", open);
    const char *argv[] = {self, "--child", dir, state, number, NULL};
    posix_spawn_file_actions_t a;
    if (posix_spawn_file_actions_init(&a) != 0 || posix_spawn_file_actions_adddup2(&a, in[0], 0) != 0 ||
        posix_spawn_file_actions_adddup2(&a, out[1], 1) != 0 || posix_spawn_file_actions_addclose(&a, in[1]) != 0 ||
        posix_spawn_file_actions_addclose(&a, out[0]) != 0) {
        die("spawn: %s", strerror(errno));
    }
    uint64_t began = lmo_now_ns();
    if (posix_spawn(&pid, self, &a, NULL, (char *const *)(uintptr_t)argv, environ) != 0) {
        die("%s: %s", self, strerror(errno));
    }
    posix_spawn_file_actions_destroy(&a);
    close(in[0]);
    close(out[1]);
    FILE *said = fdopen(out[0], "r");
    unsigned port = 0;
    unsigned long long child_began = 0, driving = 0, cpu = 0;
    lmo_assert(said);
    if (!fgets(line, sizeof line, said) || sscanf(line, "port %u %llu", &port, &child_began) != 2) {
        die("the coordinator did not start: %s", line);
    }
    struct lmo_loop *loop;
    struct lmo_http_client *client;
    struct lmo_http_client_config cfg = {.tls = fleet_tls(dir, "operator", "fleet"), .connect_timeout_ms = LIMIT_MS};
    check(lmo_loop_new(16, &loop, &err), &err, "loop");
    check(lmo_http_client_new(loop, &cfg, &client, &err), &err, "client");
    snprintf(url, sizeof url, "https://127.0.0.1:%u/v1/migrations/%s", port, id);
    struct lmo_http_request_spec spec = {
        .method = "GET", .url = url, .timeout_ms = LIMIT_MS, .peer_role = LMO_ROLE_COORDINATOR};
    struct lmo_http_answer answer = {0};
    check(lmo_http_request_sync(client, &spec, &answer, &err), &err, "first request");
    if (answer.status != 200) {
        die("first request: %u %s", answer.status, answer.body);
    }
    struct started s = {.serving_ms = (double)(lmo_now_ns() - began) / 1e6};
    lmo_http_answer_done(&answer);
    if (!fgets(line, sizeof line, said) || sscanf(line, "driving %llu %llu", &driving, &cpu) != 2) {
        die("the coordinator does not drive: %s", line);
    }
    s.driving_ms = (double)(child_began + driving - began) / 1e6;
    s.cpu_ms = (double)cpu / 1e6;
    close(in[1]);
    (void)waitpid(pid, &status, 0);
    (void)fclose(said);
    lmo_http_client_free(client);
    lmo_loop_free(loop);
    return s;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    char dir[LMO_PATH_MAX], state[LMO_PATH_MAX], id[LMO_ID_MAX];
    struct lmo_err err = {0};
    if (argc == 5 && strcmp(argv[1], "--child") == 0) {
        return run_child(argv[2], argv[3], (unsigned)strtoul(argv[4], NULL, 10));
    }
    if (argc < 2 || argc > 3) {
        die("usage: restart DIR [OPEN]");
    }
    unsigned open = argc == 3 ? (unsigned)strtoul(argv[2], NULL, 10) : 10000;
    double serving[ROUNDS], driving[ROUNDS], cpu[ROUNDS];
    lmo_log_set_level(LMO_LOG_ERROR);
    make_dir(argv[1], "restart", dir);
    check(fleet_make_pki(dir, 0, "127.0.0.1", &err), &err, "certificates");
    snprintf(state, sizeof state, "%.900s/state", dir);
    fill(state, open, id);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct started s = start_once(dir, state, open, id);
        serving[i] = s.serving_ms;
        driving[i] = s.driving_ms;
        cpu[i] = s.cpu_ms;
    }
    qsort(serving, ROUNDS, sizeof serving[0], by_value);
    qsort(driving, ROUNDS, sizeof driving[0], by_value);
    qsort(cpu, ROUNDS, sizeof cpu[0], by_value);
    double both = driving[ROUNDS / 2] > serving[ROUNDS / 2] ? driving[ROUNDS / 2] : serving[ROUNDS / 2];
    json_t *all = json_object(), *raw = json_object();
    json_object_set_new(raw, "restart_open", json_integer(open));
    json_object_set_new(raw, "restart_serving_ms", json_real(rounded(serving[ROUNDS / 2], 1)));
    json_object_set_new(raw, "restart_driving_ms", json_real(rounded(driving[ROUNDS / 2], 1)));
    json_object_set_new(raw, "restart_cpu_ms", json_real(rounded(cpu[ROUNDS / 2], 1)));
    json_object_set_new(all, "restart_10k_ms", json_real(rounded(both, 1)));
    json_object_set_new(all, "raw", raw);
    json_dumpf(all, stdout, JSON_INDENT(2));
    (void)putchar('\n');
    json_decref(all);
    return 0;
}
