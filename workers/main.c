/* main.c - lmo-worker, the agent of one host: command line, signals, exit. */
#include "base/fault.h"
#include "base/log.h"
#include "base/service.h"
#include "workers/config.h"
#include "workers/runtime.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define HIGH_PRIORITY (-10)

const char *argp_program_version = "lmo-worker " LMO_VERSION " (" LMO_FAULT_BUILD ")";

struct arguments {
    const char *config;
    bool check, keys;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'c': a->config = arg; return 0;
    case 'k': a->check = true; return 0;
    case 'l': a->keys = true; return 0;
    case ARGP_KEY_ARG: argp_usage(state); return 0;
    case ARGP_KEY_END:
        if (!a->config && !a->keys) {
            argp_error(state, "--config FILE is required");
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "Configuration file (INI)", 0},
    {"check-config", 'k', NULL, 0, "Check the configuration file, then exit", 0},
    {"list-keys", 'l', NULL, 0, "List every key of the configuration file, then exit", 0},
    {0},
};
static const struct argp argp = {.options = options,
                                 .parser = parse_option,
                                 .doc = "Worker of a live migration orchestrator: acts on one host, by order."};

int main(int argc, char **argv)
{
    struct arguments args = {0};
    struct lmo_err err = {0};
    struct lmo_conf *conf = NULL;
    struct lmo_worker_config *cfg = calloc(1, sizeof *cfg);
    struct lmo_worker *worker = NULL;
    enum lmo_log_level level;
    argp_parse(&argp, argc, argv, 0, NULL, &args);
    if (args.keys) {
        lmo_worker_config_print_keys(stdout);
        free(cfg);
        return 0;
    }
    if (!cfg || lmo_worker_config_load(args.config, &conf, cfg, &level, &err) < 0) {
        fprintf(stderr, "lmo-worker: %s\n", cfg ? err.text : "out of memory");
        free(cfg);
        return 2;
    }
    if (args.check) {
        free(cfg);
        (void)lmo_conf_free(conf);
        return 0;
    }
    lmo_log_set_level(level);
    lmo_worker_block_signals();
    /* Threads inherit it; so before there are any. Without the right to it the worker works all the same. */
    if (lmo_conf_bool(conf, "worker", "high_priority") && setpriority(PRIO_PROCESS, 0, HIGH_PRIORITY) < 0) {
        lmo_log(LMO_LOG_INFO, "no right to a higher priority", "nice=%d", HIGH_PRIORITY);
    }
    int r = cfg->log_file[0] ? lmo_log_open_file(cfg->log_file, &err) : 0;
    r = r < 0 ? r : lmo_worker_new(cfg, &worker, &err);
    if (r == 0) {
        r = lmo_worker_signals(worker, &err);
    }
    if (r == 0) {
        r = lmo_worker_watch(worker, &err);
    }
    if (r < 0) {
        lmo_log(LMO_LOG_ERROR, "worker cannot start", "code=%s reason=%s", lmo_err_name(r), err.text);
        lmo_service_status("cannot start: %s", err.text);
    } else {
        lmo_service_ready();
        r = lmo_worker_run(worker);
        lmo_service_stopping(); /* also if it was no signal that ended it */
    }
    (void)lmo_worker_free(worker);
    /* Not exit(): a driver's call may have been left behind, and would run on beside the libraries' own ends. */
    _exit(r < 0 ? 1 : 0);
}
