/* main.c - lmo-simworkers: many real workers on a simulated world, in one process. See README.md. */
#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "fakes/world.h"
#include "simworkers/fleet.h"

#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#define JOIN_WAIT_MS 60000 /* for the process that makes the world */

enum {
    OPT_DIR = 1000, OPT_MAKE, OPT_HOSTS, OPT_FIRST, OPT_WORKERS, OPT_GUESTS, OPT_VOLUMES, OPT_RACK, OPT_ADDRESS,
    OPT_BASE_PORT, OPT_NOOP, OPT_MEMORY, OPT_RATE, OPT_DIRTY, OPT_LOAD, OPT_XML, OPT_DELAY, OPT_VERBOSE
};

static const struct argp_option options[] = {
    {"dir", OPT_DIR, "DIR", 0, "Where the world, the certificates and the journals are (a tmpfs for speed)", 0},
    {"make", OPT_MAKE, NULL, 0, "Make the world and the certificates, and keep the time", 0},
    {"hosts", OPT_HOSTS, "N", 0, "Hosts of the world (with --make; 2)", 0},
    {"guests", OPT_GUESTS, "N", 0, "Guests of the world (with --make; 1)", 0},
    {"guests-per-host", 'g', "N", 0, "The same, times the hosts", 0},
    {"volumes", OPT_VOLUMES, "N", 0, "Volumes per guest, 0 to 2 (1)", 0},
    {"rack", OPT_RACK, "N", 0, "Hosts that share a volume service and a fabric (all)", 0},
    {"first", OPT_FIRST, "N", 0, "First host that this process has the worker of, from 0 (0)", 0},
    {"workers", OPT_WORKERS, "N", 0, "How many workers it runs; 0: none, it only keeps the time (all)", 0},
    {"address", OPT_ADDRESS, "IP", 0, "Where workers listen (127.0.0.1)", 0},
    {"base-port", OPT_BASE_PORT, "PORT", 0, "Port of the first host (20001)", 0},
    {"noop", OPT_NOOP, NULL, 0, "Drivers answer at once, a job converges as soon as its gate is open", 1},
    {"memory", OPT_MEMORY, "MIB", 0, "Of a guest (256)", 1},
    {"rate", OPT_RATE, "MIB", 0, "What a job transfers per second without a limit (1000)", 1},
    {"dirty", OPT_DIRTY, "MIB", 0, "What a guest changes per second (10)", 1},
    {"load-ms", OPT_LOAD, "MS", 0, "From the pause to loaded, besides what is still to be sent (5)", 1},
    {"xml", OPT_XML, "BYTES", 0, "Size of a domain's XML (6000)", 1},
    {"delay", OPT_DELAY, "CALL=MS", 0, "That driver call takes so long, e.g. attach=20 (repeat)", 1},
    {"verbose", OPT_VERBOSE, NULL, 0, "Log more than warnings", 2},
    {0},
};

struct arguments {
    char dir[LMO_PATH_MAX / 2], address[LMO_NAME_MAX];
    bool make, noop, verbose;
    unsigned first, workers, base_port;
    struct fake_world_config world;
    unsigned delay_count;
    struct {
        enum fake_call call;
        unsigned ms;
    } delays[FAKE_CALL_COUNT];
};

static unsigned number(const char *arg, unsigned max, struct argp_state *state)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(arg, &end, 10);
    if (errno || *end || end == arg || n > max) {
        argp_error(state, "'%s': must be a number up to %u", arg, max);
    }
    return (unsigned)n;
}

static void add_delay(struct arguments *a, const char *arg, struct argp_state *state)
{
    char name[32];
    const char *eq = strchr(arg, '=');
    snprintf(name, sizeof name, "%.*s", eq ? (int)(eq - arg) : 0, arg);
    int call = eq ? fake_call_from_name(name) : -1;
    if (call < 0 || a->delay_count == FAKE_CALL_COUNT) {
        argp_error(state, "--delay=%s: must be CALL=MS with a call of tests/fakes/world.h", arg);
        return;
    }
    a->delays[a->delay_count].call = (enum fake_call)call;
    a->delays[a->delay_count++].ms = number(eq + 1, 600000, state);
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case OPT_DIR: LMO_COPY(a->dir, arg); return 0;
    case OPT_MAKE: a->make = true; return 0;
    case OPT_HOSTS: a->world.hosts = number(arg, 4096, state); return 0;
    case OPT_GUESTS: a->world.guests = number(arg, 100000, state); return 0;
    case 'g': a->world.guests = number(arg, 100, state) * a->world.hosts; return 0;
    case OPT_VOLUMES: a->world.volumes = number(arg, FAKE_VOLUMES, state); return 0;
    case OPT_RACK: a->world.rack = number(arg, 4096, state); return 0;
    case OPT_FIRST: a->first = number(arg, 4095, state); return 0;
    case OPT_WORKERS: a->workers = number(arg, 4096, state); return 0;
    case OPT_ADDRESS: LMO_COPY(a->address, arg); return 0;
    case OPT_BASE_PORT: a->base_port = number(arg, 65535, state); return 0;
    case OPT_NOOP: a->noop = true; return 0;
    case OPT_MEMORY: a->world.memory_bytes = (uint64_t)number(arg, 1U << 24, state) << 20; return 0;
    case OPT_RATE: a->world.rate_bytes_per_s = (uint64_t)number(arg, 1U << 24, state) << 20; return 0;
    case OPT_DIRTY: a->world.dirty_bytes_per_s = (uint64_t)number(arg, 1U << 24, state) << 20; return 0;
    case OPT_LOAD: a->world.load_ms = number(arg, 600000, state); return 0;
    case OPT_XML: a->world.xml_bytes = number(arg, 200000, state); return 0;
    case OPT_DELAY: add_delay(a, arg, state); return 0;
    case OPT_VERBOSE: a->verbose = true; return 0;
    case ARGP_KEY_ARG: argp_usage(state); return 0;
    case ARGP_KEY_END:
        if (!a->dir[0]) {
            argp_error(state, "--dir DIR is required");
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options, .parser = parse_option, .doc = "Real workers of live migrations on simulated hosts."};

/* ------------------------------------------------------------------ the world */

static int make_world(const struct arguments *a, const char *path, struct fake_world **ret, struct lmo_err *err)
{
    struct fake_world_config cfg = a->world;
    if (a->noop) {
        cfg.rate_bytes_per_s = cfg.dirty_bytes_per_s = cfg.load_ms = 0;
    }
    int r = lmo_fs_mkdir_p(a->dir, 0700, err);
    if (r == 0) {
        r = fleet_make_pki(a->dir, cfg.hosts, a->address, err);
    }
    if (r == 0) {
        r = fake_world_make(&cfg, path, ret, err);
    }
    for (unsigned i = 0; r == 0 && i < a->delay_count; i++) {
        fake_delay(*ret, a->delays[i].call, a->delays[i].ms);
    }
    return r;
}

/* The process that makes it may have been started just now. */
static int join_world(const char *path, struct fake_world **ret, struct lmo_err *err)
{
    uint64_t end = lmo_now_ms() + JOIN_WAIT_MS;
    int r;
    while ((r = fake_world_join(path, ret, err)) < 0 && lmo_now_ms() < end) {
        struct timespec ts = {.tv_nsec = 20000000};
        nanosleep(&ts, NULL);
    }
    return r;
}

/* ------------------------------------------------------------------ workers */

struct seat {
    struct fake_seat seat;
    struct lmo_worker_config cfg;
    struct lmo_worker *worker;
    pthread_t thread;
    bool runs;
};

static void *run(void *arg)
{
    struct seat *s = arg;
    int r = lmo_worker_run(s->worker);
    s->worker = lmo_worker_free(s->worker);
    return (void *)(intptr_t)r;
}

static int start_worker(const struct arguments *a, struct fake_world *w, unsigned host, struct seat *s,
                        struct lmo_err *err)
{
    bool services = w->cfg.rack ? host % w->cfg.rack == 0 : host == 0;
    snprintf(s->cfg.listen, sizeof s->cfg.listen, "%.40s:%u", a->address, a->base_port + host);
    snprintf(s->cfg.state_dir, sizeof s->cfg.state_dir, "%s/state/%s", a->dir, w->hosts[host].name);
    snprintf(s->cfg.permit_key, sizeof s->cfg.permit_key, "%s/pki/permit.pub", a->dir);
    s->cfg.tls = fleet_tls(a->dir, "worker", w->hosts[host].name);
    fake_facts(w, host, services, &s->cfg.facts);
    fake_seat(&s->seat, w, (int)host, services, &s->cfg);
    int r = lmo_worker_new(&s->cfg, &s->worker, err);
    if (r < 0) {
        return r;
    }
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, (size_t)1 << 20);
    s->runs = pthread_create(&s->thread, &attr, run, s) == 0;
    pthread_attr_destroy(&attr);
    return s->runs ? 0 : lmo_fail(err, LMO_E_LIMIT, "no thread for worker %u", host);
}

static void stop_workers(struct seat *seats, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (seats[i].runs) {
            lmo_worker_stop(seats[i].worker);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        if (seats[i].runs) {
            pthread_join(seats[i].thread, NULL);
        } else {
            lmo_worker_free(seats[i].worker);
        }
    }
}

static void raise_limits(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max > 262144 ? r.rlim_max : 262144;
        r.rlim_max = r.rlim_cur;
        if (setrlimit(RLIMIT_NOFILE, &r) < 0 && getrlimit(RLIMIT_NOFILE, &r) == 0) { /* not root: what there is */
            r.rlim_cur = r.rlim_max;
            (void)setrlimit(RLIMIT_NOFILE, &r);
        }
    }
}

/* One line of JSON; true if nothing forbidden was seen. */
static bool report(struct fake_world *w)
{
    unsigned lost = 0, running = 0, jobs = 0;
    uint64_t moves = 0;
    fake_lock(w);
    for (unsigned i = 0; i < w->host_count; i++) {
        lost += w->hosts[i].ring_lost;
    }
    for (unsigned n = 0; n < w->guest_count; n++) {
        const struct fake_guest *g = fake_guest(w, n);
        moves += g->moves;
        jobs += g->job.running;
        for (unsigned c = 0; c < FAKE_COPIES; c++) {
            running += g->copies[c].used && g->copies[c].process && g->copies[c].vcpus && !g->copies[c].stopped;
        }
    }
    bool good = w->violation[0] == '\0';
    printf("{\"hosts\":%u,\"guests\":%u,\"running\":%u,\"moves\":%llu,\"jobs\":%u,\"events_lost\":%u,\"torn\":%u,"
           "\"violation\":\"%s\"}\n",
           w->host_count, w->guest_count, running, (unsigned long long)moves, jobs, lost, w->torn, w->violation);
    fake_unlock(w);
    (void)fflush(stdout);
    return good;
}

int main(int argc, char **argv)
{
    static struct arguments a = {.address = "127.0.0.1", .base_port = 20001, .workers = UINT32_MAX};
    a.world = (struct fake_world_config){.hosts = 2, .guests = 1, .volumes = 1, .xml_bytes = 6000, .automatic = true,
                                         .memory_bytes = UINT64_C(256) << 20, .rate_bytes_per_s = UINT64_C(1000) << 20,
                                         .dirty_bytes_per_s = UINT64_C(10) << 20, .load_ms = 5};
    struct lmo_err err = {0};
    struct fake_world *w = NULL;
    char path[LMO_PATH_MAX];
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    lmo_log_set_level(a.verbose ? LMO_LOG_INFO : LMO_LOG_ERROR);
    lmo_worker_block_signals();
    raise_limits();
    snprintf(path, sizeof path, "%s/world", a.dir);
    int r = a.make ? make_world(&a, path, &w, &err) : join_world(path, &w, &err);
    if (r < 0) {
        (void)fprintf(stderr, "lmo-simworkers: %s\n", err.text);
        return 2;
    }
    a.first = a.first < w->host_count ? a.first : w->host_count;
    unsigned count = a.workers < w->host_count - a.first ? a.workers : w->host_count - a.first;
    struct seat *seats = calloc(count + 1, sizeof *seats);
    for (unsigned i = 0; seats && r == 0 && i < count; i++) {
        r = start_worker(&a, w, a.first + i, &seats[i], &err);
    }
    if (r == 0) {
        printf("ready %u %u\n", a.first, count);
        (void)fflush(stdout);
        sigset_t set;
        int signal;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        while (sigwait(&set, &signal) == 0 && signal == SIGHUP) {
            for (unsigned i = 0; seats && i < count; i++) {
                lmo_worker_reload(seats[i].worker);
            }
        }
    } else {
        (void)fprintf(stderr, "lmo-simworkers: %s\n", err.text);
    }
    if (seats) {
        stop_workers(seats, count);
    }
    free(seats);
    bool good = report(w);
    if (a.make) {
        fake_world_free(w);
    } else {
        fake_world_leave(w);
    }
    return r < 0 ? 2 : good ? 0 : 1;
}
