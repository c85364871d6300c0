/* main.c - lmod, the coordinator: configuration, the parts put together, signals. */
#include "api/api.h"
#include "base/conf.h"
#include "base/fault.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/service.h"
#include "base/str.h"
#include "daemon/offline.h"
#include "daemon/watch.h"
#include "engine/engine.h"
#include "rpc/outbound.h"
#include "rpc/hooks.h"
#include "rpc/workers.h"

#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define POSTS_MAX 8192 /* requests that may wait for the engine; beyond it clients get 429 */

static const struct lmo_conf_key keys[] = {
    {"coordinator", "listen", LMO_CONF_ADDRESS, true, NULL, 0, 0, "address:port of the REST API"},
    {"coordinator", "state_dir", LMO_CONF_PATH, true, NULL, 0, 0, "directory of the store; made if it is missing"},
    {"coordinator", "log_level", LMO_CONF_STRING, false, "info", 0, 0, "debug, info, warn or error"},
    {"coordinator", "log_json", LMO_CONF_BOOL, false, "no", 0, 0, "log lines as JSON instead of key=value"},
    {"coordinator", "log_file", LMO_CONF_PATH, false, NULL, 0, 0,
     "file that log lines are appended to instead of standard error; opened anew on SIGHUP, after a rotation"},
    {"coordinator", "pre_production", LMO_CONF_BOOL, false, "no", 0, 0,
     "this fleet is for tests: faults may be made in it on purpose (tests/faults); /healthz says so"},
    {"events", "keep_count", LMO_CONF_UINT, false, "1000000", 1000, INT64_MAX, "events that are kept, unless they are too old"},
    {"events", "keep_days", LMO_CONF_UINT, false, "7", 1, 3650, "days that events are kept, unless there are too many"},
    {"events", "followers", LMO_CONF_UINT, false, "64", 1, 200, "clients that may follow the events at once"},
    {"webhooks", "ca", LMO_CONF_PATH, false, NULL, 0, 0,
     "PEM file of the CAs that receivers of webhooks and hooks are verified by; the system's without it"},
    {"webhooks", "allow_http", LMO_CONF_BOOL, false, "no", 0, 0, "webhooks and hooks may have http:// URLs"},
    {"webhooks", "allow_private", LMO_CONF_BOOL, false, "no", 0, 0,
     "webhooks and hooks may be called at loopback, private and link-local addresses"},
    {"metrics", "listen", LMO_CONF_ADDRESS, false, NULL, 0, 0,
     "loopback address:port where /metrics, /healthz and /readyz are shown without TLS"},
    {"otlp", "endpoint", LMO_CONF_STRING, false, NULL, 0, 255,
     "URL that traces are sent to as OTLP/HTTP JSON, e.g. http://127.0.0.1:4318/v1/traces"},
    {"otlp", "ca", LMO_CONF_PATH, false, NULL, 0, 0, "PEM file of the CAs that it is verified by; the system's without it"},
    {"otlp", "service", LMO_CONF_NAME, false, "lmod", 0, 0, "service.name in the traces"},
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
    {"api", "tokens", LMO_CONF_BOOL, false, "no", 0, 0,
     "clients without a certificate may come with a bearer token (lmo token create)"},
    {"api", "rate", LMO_CONF_UINT, false, "2000", 1, 1000000, "requests per second of one principal"},
    {"api", "burst", LMO_CONF_UINT, false, "4000", 1, 1000000, "requests that one principal may make at once"},
    {"api", "connections", LMO_CONF_UINT, false, "1024", 1, 65536, "connections in all"},
    {"api", "connections_per_address", LMO_CONF_UINT, false, "256", 1, 65536, "connections from one address"},
    {"api", "connections_per_principal", LMO_CONF_UINT, false, "128", 1, 65536, "connections of one principal"},
    LMO_HOOK_KEYS,
    {"tls", "ca", LMO_CONF_PATH, true, NULL, 0, 0, "PEM file of the CA that issued every certificate"},
    {"tls", "crl", LMO_CONF_PATH, true, NULL, 0, 0, "PEM file of the CA's revocation list"},
    {"tls", "cert", LMO_CONF_PATH, true, NULL, 0, 0, "the coordinator's certificate"},
    {"tls", "key", LMO_CONF_PATH, true, NULL, 0, 0, "its private key, readable by the coordinator only"},
    {"tls", "permit_key", LMO_CONF_PATH, true, NULL, 0, 0, "Ed25519 private key that signs permits"},
};

struct arguments {
    const char *config, *backup, *restore;
    bool check, keys, take_over;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'c': a->config = arg; return 0;
    case 'k': a->check = true; return 0;
    case 'l': a->keys = true; return 0;
    case 'b': a->backup = arg; return 0;
    case 'r': a->restore = arg; return 0;
    case 't': a->take_over = true; return 0;
    case ARGP_KEY_ARG: argp_usage(state); return 0;
    case ARGP_KEY_END:
        if (!a->config && !a->keys) {
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
    {"list-keys", 'l', NULL, 0, "List every key of the configuration file, then exit", 0},
    {"backup", 'b', "FILE", 0, "Copy the store to FILE, also while a coordinator uses it, then exit", 0},
    {"restore", 'r', "FILE", 0, "Put the copy FILE in the place of the store, then exit; the next start only observes", 0},
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
    struct lmo_outbound *outbound;
    struct lmo_workers *workers;
    struct lmo_hook_caller *hooks;
    struct lmo_api *api;
    struct lmo_tls_files tls;
    const char *config;        /* borrowed: its path */
    const struct lmo_conf *conf; /* borrowed: as it was at the start */
    struct lmo_watch watch;
};

/* The whole file, checked; nothing is in force yet. */
static int load_config(const char *path, struct lmo_conf **ret_conf, struct lmo_err *err)
{
    enum lmo_log_level level;
    LMO_AUTO_CONF struct lmo_conf *conf = NULL;
    int r = lmo_conf_load(path, keys, sizeof keys / sizeof keys[0], &conf, err);
    if (r < 0) {
        return r;
    }
    r = lmo_log_level_from_name(lmo_conf_str(conf, "coordinator", "log_level"), &level);
    if (r < 0) {
        return lmo_fail(err, r, "%s: [coordinator] log_level: must be debug, info, warn or error", path);
    }
    *ret_conf = LMO_TAKE(conf);
    return 0;
}

static void apply_log(const struct lmo_conf *conf)
{
    enum lmo_log_level level;
    if (lmo_log_level_from_name(lmo_conf_str(conf, "coordinator", "log_level"), &level) == 0) {
        lmo_log_set_level(level);
    }
    lmo_log_set_json(lmo_conf_bool(conf, "coordinator", "log_json"));
}

static void read_tls(const struct lmo_conf *conf, struct lmo_tls_files *tls)
{
    LMO_COPY(tls->ca, lmo_conf_str(conf, "tls", "ca"));
    LMO_COPY(tls->crl, lmo_conf_str(conf, "tls", "crl"));
    LMO_COPY(tls->cert, lmo_conf_str(conf, "tls", "cert"));
    LMO_COPY(tls->key, lmo_conf_str(conf, "tls", "key"));
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

static void read_outbound(const struct lmo_conf *conf, struct lmo_outbound_config *ret)
{
    *ret = (struct lmo_outbound_config){.allow_http = lmo_conf_bool(conf, "webhooks", "allow_http"),
                                        .allow_private = lmo_conf_bool(conf, "webhooks", "allow_private")};
    LMO_COPY(ret->ca, lmo_conf_str(conf, "webhooks", "ca"));
    LMO_COPY(ret->otlp_ca, lmo_conf_str(conf, "otlp", "ca"));
}

/* What cannot change while it runs. True: nothing of that kind differs. */
static bool say_what_waits(const struct lmo_conf *before, const struct lmo_conf *now)
{
    bool same = true;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct lmo_conf_key *k = &keys[i];
        bool live = (strcmp(k->section, "limits") == 0 && strcmp(k->key, "link") != 0) || strcmp(k->key, "log_level") == 0 ||
                    strcmp(k->key, "log_json") == 0;
        if (!live && strcmp(lmo_conf_str(before, k->section, k->key), lmo_conf_str(now, k->section, k->key)) != 0) {
            lmo_log(LMO_LOG_WARN, "a changed setting takes effect at the next start only", "section=%s key=%s", k->section, k->key);
            same = false;
        }
    }
    return same;
}

/* SIGHUP: everything is read and checked before anything is put in force, so that a mistake changes nothing. */
static int reload(struct lmod *d, struct lmo_err *err)
{
    LMO_AUTO_CONF struct lmo_conf *conf = NULL;
    struct lmo_identity own;
    struct lmo_limits limits;
    int r = load_config(d->config, &conf, err);
    if (r == 0 && lmo_conf_str(d->conf, "coordinator", "log_file")[0]) {
        r = lmo_log_open_file(lmo_conf_str(d->conf, "coordinator", "log_file"), err);
    }
    r = r < 0 ? r : lmo_tls_own_identity(&d->tls, &own, err);
    r = r < 0 ? r : lmo_api_reload(d->api, err);
    r = r < 0 ? r : lmo_workers_http_reload(d->workers, err); /* the same files, which the line above could load */
    r = r < 0 ? r : lmo_outbound_reload(d->outbound, err);
    if (r < 0) {
        return r;
    }
    read_limits(conf, &limits);
    lmo_engine_set_limits(d->engine, &limits);
    apply_log(conf);
    (void)say_what_waits(d->conf, conf);
    return 0;
}

static void on_signal(void *arg, int signal)
{
    struct lmod *d = arg;
    struct lmo_err err = {0};
    if (signal == SIGHUP) {
        lmo_service_reloading();
        int r = d->api ? reload(d, &err) : 0; /* while starting: everything is about to be read */
        lmo_log(r < 0 ? LMO_LOG_ERROR : LMO_LOG_INFO, r < 0 ? "reload failed, nothing has changed" : "certificates and limits reloaded",
                "why=%s", err.text);
        lmo_service_ready();
        return;
    }
    lmo_log(LMO_LOG_INFO, "stopping; open migrations go on at the workers", "signal=%d", signal);
    lmo_service_stopping();
    lmo_loop_stop(d->loop);
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

static int make_backup(void *arg, const char *to, const atomic_bool *stop, struct lmo_err *err)
{
    return lmo_store_sqlite_backup(arg, to, stop, err);
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
    struct lmo_outbound_config outbound;
    read_outbound(conf, &outbound);
    d->store->events->keep(d->store, lmo_conf_uint(conf, "events", "keep_count"),
                           lmo_conf_uint(conf, "events", "keep_days") * 24 * 3600 * 1000);
    if ((r = lmo_outbound_open(d->loop, &outbound, &d->outbound, err)) < 0) {
        return r;
    }
    struct lmo_engine_config cfg = {.loop = d->loop, .store = d->store, .permit_key = d->permit_key, .limits = &limits,
                                    .outbound = d->outbound, .hooks = lmo_hooks_port(d->hooks)};
    LMO_COPY(cfg.otlp.endpoint, lmo_conf_str(conf, "otlp", "endpoint"));
    LMO_COPY(cfg.otlp.service, lmo_conf_str(conf, "otlp", "service"));
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
                                 .backup = make_backup,
                                 .backup_arg = (void *)(uintptr_t)state_dir,
                                 .pre_production = lmo_conf_bool(conf, "coordinator", "pre_production"),
                                 .tokens = lmo_conf_bool(conf, "api", "tokens"),
                                 .rate_per_s = (uint32_t)lmo_conf_uint(conf, "api", "rate"),
                                 .burst = (uint32_t)lmo_conf_uint(conf, "api", "burst"),
                                 .connections_max = (uint32_t)lmo_conf_uint(conf, "api", "connections"),
                                 .connections_per_ip = (uint32_t)lmo_conf_uint(conf, "api", "connections_per_address"),
                                 .connections_per_principal =
                                     (uint32_t)lmo_conf_uint(conf, "api", "connections_per_principal")};
    api.followers_max = (unsigned)lmo_conf_uint(conf, "events", "followers");
    LMO_COPY(api.address, lmo_conf_str(conf, "coordinator", "listen"));
    LMO_COPY(api.metrics_address, lmo_conf_str(conf, "metrics", "listen"));
    (void)snprintf(api.backup_path, sizeof api.backup_path, "%.900s/lmod.download", state_dir);
    r = lmo_api_start(&api, &d->api, err);
    return r < 0 ? r : lmo_watch_start(&d->watch, d->loop, d->engine, err);
}

static void stop(struct lmod *d)
{
    lmo_watch_stop(&d->watch);
    d->api = lmo_api_stop(d->api);
    lmo_engine_stop(d->engine);
    if (d->workers) {
        d->workers->ops->close(d->workers);
    }
    d->hooks = lmo_hooks_close(d->hooks); /* what it answers finds an engine that has stopped */
    d->engine = lmo_engine_free(d->engine);
    d->outbound = lmo_outbound_close(d->outbound);
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
    if (args.keys) {
        lmo_conf_print_keys(keys, sizeof keys / sizeof keys[0], stdout);
        return 0;
    }
    if (load_config(args.config, &conf, &err) < 0) {
        (void)fprintf(stderr, "lmod: %s\n", err.text);
        return 2;
    }
    read_tls(conf, &d.tls);
    apply_log(conf);
    d.config = args.config;
    d.conf = conf;
    int r = 0;
    if (args.backup || args.restore) {
        const char *state_dir = lmo_conf_str(conf, "coordinator", "state_dir");
        r = args.backup ? lmo_offline_backup(state_dir, args.backup, &err) : lmo_offline_restore(state_dir, args.restore, &err);
        if (r < 0) {
            (void)fprintf(stderr, "lmod: %s\n", err.text);
        }
    } else if (!args.check) {
        const char *log_file = lmo_conf_str(conf, "coordinator", "log_file");
        r = log_file[0] ? lmo_log_open_file(log_file, &err) : 0;
        r = r < 0 ? r : start(&d, conf, args.take_over, &err);
        if (r == 0) {
            lmo_log(LMO_LOG_INFO, "lmod ready", "version=%s listen=%s term=%llu", LMO_VERSION,
                    lmo_conf_str(conf, "coordinator", "listen"), (unsigned long long)d.store->ops->term(d.store));
            lmo_service_ready();
            r = lmo_loop_run(d.loop);
        } else {
            lmo_log(LMO_LOG_ERROR, "cannot start", "code=%s why=%s", lmo_err_name(r), err.text);
            lmo_service_status("cannot start: %s", err.text);
        }
        stop(&d);
    }
    (void)lmo_conf_free(conf);
    return r < 0 ? 1 : 0;
}
