/* main.c - lmod, the coordinator: configuration, the parts put together, signals. */
#include "api/api.h"
#include "base/conf.h"
#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/str.h"
#include "engine/engine.h"
#include "rpc/hooks.h"
#include "rpc/workers.h"

#include <argp.h>
#include <signal.h>
#include <stdio.h>

#define POSTS_MAX 8192 /* requests that may wait for the engine; beyond it clients get 429 */

static const struct lmo_conf_key keys[] = {
    {"coordinator", "listen", LMO_CONF_ADDRESS, true, NULL, 0, 0, "address:port of the REST API"},
    {"coordinator", "state_dir", LMO_CONF_PATH, true, NULL, 0, 0, "directory of the store; made if it is missing"},
    {"coordinator", "log_level", LMO_CONF_STRING, false, "info", 0, 0, "debug, info, warn or error"},
    {"coordinator", "log_json", LMO_CONF_BOOL, false, "no", 0, 0, "log lines as JSON instead of key=value"},
    {"coordinator", "pre_production", LMO_CONF_BOOL, false, "no", 0, 0,
     "this fleet is for tests: faults may be made in it on purpose (tests/faults); /healthz says so"},
    {"limits", "max_migrations", LMO_CONF_UINT, false, NULL, 1, 20000, "migrations at once in the whole fleet"},
    {"limits", "max_incoming", LMO_CONF_UINT, false, NULL, 0, 256, "migrations to one host at once"},
    {"limits", "max_outgoing", LMO_CONF_UINT, false, NULL, 0, 256, "migrations from one host at once"},
    {"limits", "link", LMO_CONF_NAME, false, NULL, 0, 0,
     "name of the link that guests' memory takes, as in [link NAME] of the workers"},
    {"limits", "min_share", LMO_CONF_UINT, false, NULL, 1, INT64_MAX,
     "bytes per second below which a migration does not start: it waits until its links can give it as much"},
    {"limits", "memory_keep_free", LMO_CONF_UINT, false, NULL, 0, INT64_MAX,
     "bytes of a destination's memory that stay free"},
    {"limits", "memory_overhead", LMO_CONF_UINT, false, NULL, 0, INT64_MAX,
     "bytes that a guest's process takes beside the guest's memory"},
    {"limits", "memory_overhead_percent", LMO_CONF_UINT, false, NULL, 0, 100, "and in proportion to that memory"},
    {"limits", "queue_timeout", LMO_CONF_UINT, false, NULL, 1, 31536000,
     "seconds after which a migration that still waits is given up"},
    LMO_HOOK_KEYS,
    {"tls", "ca", LMO_CONF_PATH, true, NULL, 0, 0, "PEM file of the CA that issued every certificate"},
    {"tls", "crl", LMO_CONF_PATH, true, NULL, 0, 0, "PEM file of the CA's revocation list"},
    {"tls", "cert", LMO_CONF_PATH, true, NULL, 0, 0, "the coordinator's certificate"},
    {"tls", "key", LMO_CONF_PATH, true, NULL, 0, 0, "its private key, readable by the coordinator only"},
    {"tls", "permit_key", LMO_CONF_PATH, true, NULL, 0, 0, "Ed25519 private key that signs permits"},
};

struct arguments {
    const char *config;
    bool check, take_over;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'c': a->config = arg; return 0;
    case 'k': a->check = true; return 0;
    case 't': a->take_over = true; return 0;
    case ARGP_KEY_ARG: argp_usage(state); return 0;
    case ARGP_KEY_END:
        if (!a->config) {
            argp_error(state, "--config FILE is required");
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

const char *argp_program_version = "lmod " LMO_VERSION " (" LMO_FAULT_BUILD ")";

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "Configuration file (INI)", 0},
    {"check-config", 'k', NULL, 0, "Check the configuration, then exit", 0},
    {"take-over", 't', NULL, 0, "Take the store from a coordinator that is asleep, hung or cut off; that one ends itself", 0},
    {0},
};
static const struct argp argp = {
    .options = options, .parser = parse_option, .doc = "Coordinator of live migrations: REST API and state machine."};

struct lmod {
    struct lmo_loop *loop;
    struct lmo_store *store;
    struct lmo_permit_key *permit_key;
    struct lmo_engine *engine;
    struct lmo_workers *workers;
    struct lmo_hook_caller *hooks;
    struct lmo_api *api;
    struct lmo_tls_files tls;
};

static void on_signal(void *arg, int signal)
{
    struct lmod *d = arg;
    struct lmo_err err = {0};
    if (signal == SIGHUP) {
        int r = lmo_api_reload(d->api, &err);
        r = r < 0 ? r : lmo_workers_http_reload(d->workers, &err);
        lmo_log(r < 0 ? LMO_LOG_ERROR : LMO_LOG_INFO, r < 0 ? "reload failed, old files stay in force" : "certificates reloaded",
                "why=%s", err.text);
        return;
    }
    lmo_log(LMO_LOG_INFO, "stopping; open migrations go on at the workers", "signal=%d", signal);
    lmo_loop_stop(d->loop);
}

static int load_config(const char *path, struct lmo_conf **ret_conf, struct lmo_tls_files *tls, struct lmo_err *err)
{
    enum lmo_log_level level;
    struct lmo_conf *conf = NULL;
    int r = lmo_conf_load(path, keys, sizeof keys / sizeof keys[0], &conf, err);
    if (r < 0) {
        return r;
    }
    r = lmo_log_level_from_name(lmo_conf_str(conf, "coordinator", "log_level"), &level);
    if (r < 0) {
        (void)lmo_conf_free(conf);
        return lmo_fail(err, r, "%s: [coordinator] log_level: must be debug, info, warn or error", path);
    }
    lmo_log_set_level(level);
    lmo_log_set_json(lmo_conf_bool(conf, "coordinator", "log_json"));
    LMO_COPY(tls->ca, lmo_conf_str(conf, "tls", "ca"));
    LMO_COPY(tls->crl, lmo_conf_str(conf, "tls", "crl"));
    LMO_COPY(tls->cert, lmo_conf_str(conf, "tls", "cert"));
    LMO_COPY(tls->key, lmo_conf_str(conf, "tls", "key"));
    *ret_conf = conf;
    return 0;
}

/* What the file sets, and the defaults of core/admission.c for the rest. */
static void read_limits(const struct lmo_conf *conf, struct lmo_limits *ret)
{
    lmo_limits_default(ret);
#define NUMBER(key, member, scale)                                                              \
    if (lmo_conf_is_set(conf, "limits", key)) {                                                 \
        ret->member = (__typeof__(ret->member))(lmo_conf_uint(conf, "limits", key) * (scale)); \
    }
    NUMBER("max_migrations", max_migrations, 1)
    NUMBER("max_incoming", max_incoming, 1)
    NUMBER("max_outgoing", max_outgoing, 1)
    NUMBER("min_share", min_share_bytes_per_s, 1)
    NUMBER("memory_keep_free", memory_keep_free_bytes, 1)
    NUMBER("memory_overhead", memory_overhead_bytes, 1)
    NUMBER("memory_overhead_percent", memory_overhead_percent, 1)
    NUMBER("queue_timeout", queue_timeout_ms, 1000)
#undef NUMBER
    if (lmo_conf_is_set(conf, "limits", "link")) {
        LMO_COPY(ret->link, lmo_conf_str(conf, "limits", "link"));
    }
}

/* Whoever can write the file with fault orders can end such a program at any point: that is no program for a real fleet. */
static int may_run_here(const struct lmo_conf *conf, struct lmo_err *err)
{
#ifdef LMO_FAULT_POINTS
    if (!lmo_conf_bool(conf, "coordinator", "pre_production")) {
        return lmo_fail(err, LMO_E_REFUSED, "this build has fault points: it runs only with [coordinator] pre_production = yes");
    }
#else
    (void)conf;
    (void)err;
#endif
    return 0;
}

static int start(struct lmod *d, const struct lmo_conf *conf, bool take_over, struct lmo_err *err)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, 0};
    const char *state_dir = lmo_conf_str(conf, "coordinator", "state_dir");
    int r;
    if ((r = may_run_here(conf, err)) < 0 || (r = lmo_loop_new(POSTS_MAX, &d->loop, err)) < 0 ||
        (r = lmo_loop_signals(d->loop, signals, on_signal, d, err)) < 0 ||
        (r = lmo_fs_mkdir_p(state_dir, 0700, err)) < 0 ||
        (r = take_over ? lmo_store_sqlite_take_over(state_dir, &d->store, err)
                       : lmo_store_sqlite_open(state_dir, &d->store, err)) < 0 ||
        (r = lmo_store_sqlite_tidy_apart(d->store, err)) < 0 ||
        (r = lmo_permit_key_load(lmo_conf_str(conf, "tls", "permit_key"), &d->permit_key, err)) < 0) {
        return r;
    }
    if ((r = lmo_hooks_open(d->loop, conf, &d->tls, &d->hooks, err)) < 0) {
        return r;
    }
    struct lmo_limits limits;
    read_limits(conf, &limits);
    struct lmo_engine_config cfg = {.loop = d->loop, .store = d->store, .permit_key = d->permit_key, .limits = &limits,
                                    .hooks = lmo_hooks_port(d->hooks)};
    if ((r = lmo_engine_new(&cfg, &d->engine, err)) < 0 ||
        (r = lmo_workers_http_open(d->loop, &d->tls, lmo_engine_callbacks(d->engine), &d->workers, err)) < 0) {
        return r;
    }
    lmo_workers_http_set_term(d->workers, d->store->ops->term(d->store));
    if ((r = lmo_engine_start(d->engine, d->workers, err)) < 0) {
        return r;
    }
    struct lmo_api_config api = {.tls = d->tls,
                                 .engine = d->engine,
                                 .pre_production = lmo_conf_bool(conf, "coordinator", "pre_production")};
    LMO_COPY(api.address, lmo_conf_str(conf, "coordinator", "listen"));
    return lmo_api_start(&api, &d->api, err);
}

static void stop(struct lmod *d)
{
    d->api = lmo_api_stop(d->api);
    lmo_engine_stop(d->engine);
    if (d->workers) {
        d->workers->ops->close(d->workers);
    }
    d->hooks = lmo_hooks_close(d->hooks); /* what it answers finds an engine that has stopped */
    d->engine = lmo_engine_free(d->engine);
    if (d->store) {
        d->store->ops->close(d->store);
    }
    d->permit_key = lmo_permit_key_free(d->permit_key);
    d->loop = lmo_loop_free(d->loop);
}

int main(int argc, char **argv)
{
    struct arguments args = {0};
    struct lmod d = {0};
    struct lmo_err err = {0};
    struct lmo_conf *conf = NULL;
    argp_parse(&argp, argc, argv, 0, NULL, &args);
    if (load_config(args.config, &conf, &d.tls, &err) < 0) {
        (void)fprintf(stderr, "lmod: %s\n", err.text);
        return 2;
    }
    int r = 0;
    if (!args.check) {
        r = start(&d, conf, args.take_over, &err);
        if (r == 0) {
            lmo_log(LMO_LOG_INFO, "lmod ready", "version=%s listen=%s term=%llu", LMO_VERSION,
                    lmo_conf_str(conf, "coordinator", "listen"), (unsigned long long)d.store->ops->term(d.store));
            r = lmo_loop_run(d.loop);
        } else {
            lmo_log(LMO_LOG_ERROR, "cannot start", "code=%s why=%s", lmo_err_name(r), err.text);
        }
        stop(&d);
    }
    (void)lmo_conf_free(conf);
    return r < 0 ? 1 : 0;
}
