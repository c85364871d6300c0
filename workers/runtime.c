/* runtime.c - a worker's life, its inbox, its epochs (runtime.h, worker.h). */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/id.h"
#include "base/log.h"
#include "base/service.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define POSTS_MAX      4096
#define FAST_THREADS   32
#define SLOW_THREADS   32
#define POOL_QUEUE_MAX 4096
#define POOL_END_MS    2000

/* ------------------------------------------------------------------ permits and epochs */

int lmo_worker_verify_permit(struct lmo_worker *w, const char *text, struct lmo_permit *ret, struct lmo_err *err)
{
    pthread_rwlock_rdlock(&w->permit_lock);
    int r = lmo_permit_verify(w->permit_public, text, ret, err);
    pthread_rwlock_unlock(&w->permit_lock);
    return r;
}

int lmo_worker_check_epoch(struct lmo_worker *w, const char *vm, uint64_t epoch, enum lmo_op_role role, bool *ret_raise,
                           struct lmo_err *err)
{
    struct lmo_journal_vm row;
    if (vm[0] == '\0') { /* an order about no guest: a volume's first attachment */
        *ret_raise = false;
        return 0;
    }
    int r = lmo_journal_vm(w->journal, vm, &row, err);
    if (r < 0) {
        return r;
    }
    if (row.closed[role] > 0 && epoch <= row.closed[role]) {
        return lmo_fail(err, LMO_E_GONE, "epoch %llu of guest '%s' is closed here (closed up to %llu)",
                        (unsigned long long)epoch, vm, (unsigned long long)row.closed[role]);
    }
    if (epoch < row.seen) {
        return lmo_fail(err, LMO_E_STALE_EPOCH, "epoch %llu of guest '%s' is below %llu, which was seen here",
                        (unsigned long long)epoch, vm, (unsigned long long)row.seen);
    }
    *ret_raise = epoch > row.seen;
    return 0;
}

void lmo_worker_adopt_epoch(struct lmo_worker *w, struct lmo_batch *b, const char *vm, uint64_t epoch)
{
    struct lmo_journal_vm row;
    struct lmo_err err = {0};
    if (lmo_journal_vm(w->journal, vm, &row, &err) < 0) {
        row = (struct lmo_journal_vm){0}; /* written with max(): nothing can be lowered by this */
        snprintf(row.vm, sizeof row.vm, "%s", vm);
    }
    row.seen = epoch > row.seen ? epoch : row.seen;
    lmo_batch_vm(b, &row);
}

/* ------------------------------------------------------------------ the inbox */

/* Takes item. Drivers' threads. The end of a job is never dropped: there is one per job. */
static void put_in_inbox(struct lmo_worker *w, struct lmo_inbox_item *item)
{
    bool wake;
    pthread_mutex_lock(&w->inbox_lock);
    wake = w->inbox == NULL;
    if (w->inbox_count >= LMO_INBOX_MAX && !item->job_end) {
        w->inbox_overflow = true;
        free(item);
    } else {
        *w->inbox_last = item;
        w->inbox_last = &item->next;
        w->inbox_count++;
    }
    pthread_mutex_unlock(&w->inbox_lock);
    if (wake) {
        (void)eventfd_write(w->inbox_fd, 1);
    }
}

void lmo_worker_on_hv_event(void *arg, const struct lmo_hv_event *ev)
{
    struct lmo_inbox_item *item = calloc(1, sizeof *item);
    lmo_assert(item);
    item->ev = *ev;
    put_in_inbox(arg, item);
}

void lmo_worker_on_job_end(void *arg, const char *uuid, const struct lmo_hv_job_end *end)
{
    struct lmo_inbox_item *item = calloc(1, sizeof *item);
    lmo_assert(item);
    item->job_end = true;
    snprintf(item->uuid, sizeof item->uuid, "%s", uuid);
    item->end = *end;
    put_in_inbox(arg, item);
}

static void observe_all(struct lmo_worker *w)
{
    for (struct lmo_incoming *in = w->incoming; in; in = in->next) {
        lmo_incoming_observe(in);
    }
    for (struct lmo_outgoing *out = w->outgoing; out; out = out->next) {
        lmo_outgoing_observe(out);
    }
}

static void take_event(struct lmo_worker *w, const struct lmo_hv_event *ev)
{
    if (ev->kind == LMO_HV_EV_WATCH_BROKEN || ev->kind == LMO_HV_EV_WATCH_RESTORED) {
        bool broken = ev->kind == LMO_HV_EV_WATCH_BROKEN;
        lmo_log(broken ? LMO_LOG_WARN : LMO_LOG_INFO,
                broken ? "hypervisor's events are interrupted" : "hypervisor's events are back", "reason=%s",
                ev->reason);
        if (!broken) {
            observe_all(w);
        }
        return;
    }
    struct lmo_incoming *in = lmo_incoming_of_vm(w, ev->uuid);
    struct lmo_outgoing *out = lmo_outgoing_of_vm(w, ev->uuid);
    lmo_log(in || out ? LMO_LOG_INFO : LMO_LOG_DEBUG, "hypervisor event",
            "vm=%s kind=%d reason=%s value=%llu late_us=%llu", ev->uuid, (int)ev->kind, ev->reason,
            (unsigned long long)ev->value, (unsigned long long)(lmo_now_ns() - ev->monotonic_ns) / 1000);
    if (in) {
        lmo_incoming_hv_event(in, ev);
    }
    if (out) {
        lmo_outgoing_hv_event(out, ev);
    }
}

static void take_job_end(struct lmo_worker *w, const struct lmo_inbox_item *item)
{
    struct lmo_outgoing *out = w->outgoing;
    while (out && (strcmp(out->src.vm, item->uuid) != 0 || (!out->src.job_running && !out->starting))) {
        out = out->next;
    }
    if (out) {
        lmo_outgoing_job_end(out, &item->end);
    }
}

static void inbox_ready(void *arg, int fd, uint32_t events)
{
    (void)events;
    struct lmo_worker *w = arg;
    eventfd_t count;
    (void)eventfd_read(fd, &count);
    pthread_mutex_lock(&w->inbox_lock);
    struct lmo_inbox_item *item = w->inbox;
    bool overflow = w->inbox_overflow;
    w->inbox = NULL;
    w->inbox_last = &w->inbox;
    w->inbox_count = 0;
    w->inbox_overflow = false;
    pthread_mutex_unlock(&w->inbox_lock);
    while (item) {
        struct lmo_inbox_item *next = item->next;
        if (!w->stopping && !lmo_journal_dead(w->journal)) {
            if (item->job_end) {
                take_job_end(w, item);
            } else {
                take_event(w, &item->ev);
            }
        }
        free(item);
        item = next;
    }
    if (overflow) {
        lmo_log(LMO_LOG_ERROR, "more hypervisor events than can be kept; every guest is observed anew", "max=%u",
                LMO_INBOX_MAX);
        observe_all(w);
    }
}

/* ------------------------------------------------------------------ life */

/* Does a guest stand still now, waiting for this worker or for one that this one serves? */
static bool guest_waits(void *arg)
{
    struct lmo_worker *w = arg;
    for (const struct lmo_incoming *in = w->incoming; in; in = in->next) {
        if (in->dst.stage == LMO_DST_ASKING || in->dst.stage == LMO_DST_COMMITTED || in->dst.stage == LMO_DST_FENCED) {
            return true;
        }
    }
    for (const struct lmo_outgoing *out = w->outgoing; out; out = out->next) {
        bool pause = out->src.stage == LMO_SRC_SUSPENDED || out->src.stage == LMO_SRC_FREEZING || out->src.gate_open;
        if (pause && !lmo_outgoing_over(out)) {
            return true;
        }
    }
    return false;
}

/* Others know this host by the name in its certificate, orders and permits by the name in its configuration. A worker
 * under two names is refused by its peers, and only when a guest's cutover needs them: so it does not start. */
static int check_name(const struct lmo_worker_config *cfg, struct lmo_err *err)
{
    struct lmo_identity own;
    int r = lmo_tls_own_identity(&cfg->tls, &own, err);
    if (r < 0 || (own.role == LMO_ROLE_WORKER && strcmp(own.name, cfg->facts.host) == 0)) {
        return r;
    }
    return lmo_fail(err, LMO_E_INVALID,
                    "[worker] host is '%s', but the certificate %.120s is of %s '%s'; right would be a certificate of "
                    "urn:lmo:worker:%s%s%s",
                    cfg->facts.host, cfg->tls.cert, lmo_role_name(own.role), own.name, cfg->facts.host,
                    own.role == LMO_ROLE_WORKER ? ", or host = " : "", own.role == LMO_ROLE_WORKER ? own.name : "");
}

static int open_files(struct lmo_worker *w, struct lmo_err *err)
{
    char path[LMO_PATH_MAX + 32];
    int r = lmo_fs_mkdir_p(w->cfg.state_dir, 0700, err);
    if (r == 0) {
        snprintf(path, sizeof path, "%s/worker.lock", w->cfg.state_dir);
        r = lmo_fs_lock(path, 0600, &w->lock_fd, err);
    }
    if (r == 0) {
        r = lmo_permit_public_load(w->cfg.permit_key, &w->permit_public, err);
    }
    if (r < 0) {
        return r;
    }
    snprintf(path, sizeof path, "%s/worker.db", w->cfg.state_dir);
    struct lmo_journal_config cfg = {
        .path = path,
        .host = w->cfg.facts.host,
        .loop = w->loop,
        .on_events = lmo_stream_news,
        .busy = guest_waits,
        .arg = w,
        .die_at_commit = w->cfg.die_at_commit,
        .die_before = w->cfg.die_before,
    };
    return lmo_journal_open(&cfg, &w->journal, err);
}

static int open_loop(struct lmo_worker *w, struct lmo_err *err)
{
    int r = lmo_loop_new(POSTS_MAX, &w->loop, err);
    if (r == 0) {
        w->inbox_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = w->inbox_fd < 0 ? lmo_fail(err, LMO_E_LIMIT, "cannot make an inbox: %s", strerror(errno))
                            : lmo_loop_add_fd(w->loop, w->inbox_fd, EPOLLIN, inbox_ready, w, err);
    }
    if (r == 0) {
        r = lmo_pool_new(FAST_THREADS, POOL_QUEUE_MAX, w->loop, &w->fast, err);
    }
    if (r == 0) {
        r = lmo_pool_new(SLOW_THREADS, POOL_QUEUE_MAX, w->loop, &w->slow, err);
    }
    return r;
}

/* The first thing that the loop does. */
static void begin(void *arg)
{
    struct lmo_worker *w = arg;
    lmo_records_start(w);
    lmo_ops_restart(w);
}

static int open_network(struct lmo_worker *w, struct lmo_err *err)
{
    struct lmo_http_client_config cfg = {.tls = w->cfg.tls, .connections_per_host = 24, .connect_timeout_ms = 1500};
    int r = lmo_http_client_new(w->loop, &cfg, &w->client, err);
    return r < 0 ? r : lmo_server_start(w, err);
}

int lmo_worker_new(const struct lmo_worker_config *cfg, struct lmo_worker **ret, struct lmo_err *err)
{
    struct lmo_worker *w = calloc(1, sizeof *w);
    if (!w) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for a worker");
    }
    w->cfg = *cfg;
    w->lock_fd = w->inbox_fd = -1;
    w->inbox_last = &w->inbox;
    w->coordinator_ns = lmo_now_ns();
    lmo_assert(pthread_rwlock_init(&w->permit_lock, NULL) == 0 && pthread_mutex_init(&w->inbox_lock, NULL) == 0);
    snprintf(w->cfg.facts.version, sizeof w->cfg.facts.version, "%s", LMO_VERSION);
    lmo_ulid_generate(w->cfg.facts.boot);

    int r = check_name(cfg, err);
    if (r == 0) {
        r = open_loop(w, err);
    }
    if (r == 0) {
        r = open_files(w, err);
    }
    if (r == 0) {
        r = lmo_records_load(w, err);
    }
    if (r == 0) {
        r = lmo_ops_recover(w, err);
    }
    if (r == 0) {
        r = cfg->drivers_open(cfg->drivers_arg, lmo_worker_on_hv_event, w, &w->drv, err);
        w->drivers_open = r == 0;
    }
    if (r == 0) {
        r = open_network(w, err);
    }
    if (r == 0) {
        r = lmo_loop_post(w->loop, begin, w);
    }
    if (r < 0) {
        lmo_worker_free(w);
        return r;
    }
    lmo_log(LMO_LOG_INFO, "worker is up", "host=%s port=%u boot=%s hypervisor=%s network=%s fabric=%s volume=%s",
            w->cfg.facts.host, lmo_http_server_port(w->server), w->cfg.facts.boot, w->cfg.facts.hypervisor,
            w->cfg.facts.network, w->cfg.facts.fabric, w->cfg.facts.volume);
    *ret = w;
    return 0;
}

int lmo_worker_run(struct lmo_worker *w)
{
    return lmo_loop_run(w->loop);
}

void lmo_worker_stop(struct lmo_worker *w)
{
    lmo_loop_stop(w->loop);
}

static void reload(void *arg)
{
    struct lmo_worker *w = arg;
    struct lmo_err err = {0};
    struct lmo_permit_public *fresh = NULL;
    int r = w->cfg.log_file[0] ? lmo_log_open_file(w->cfg.log_file, &err) : 0;
    if (r == 0) {
        r = check_name(&w->cfg, &err);
    }
    if (r == 0) {
        r = lmo_permit_public_load(w->cfg.permit_key, &fresh, &err);
    }
    if (r == 0) {
        r = lmo_http_server_reload(w->server, &err);
    }
    if (r == 0) {
        r = lmo_http_client_reload(w->client, &err); /* the same files, which the line above could load */
    }
    if (r < 0) {
        lmo_permit_public_free(fresh);
    } else {
        pthread_rwlock_wrlock(&w->permit_lock);
        struct lmo_permit_public *old = w->permit_public;
        w->permit_public = fresh;
        pthread_rwlock_unlock(&w->permit_lock);
        lmo_permit_public_free(old);
    }
    lmo_log(r ? LMO_LOG_ERROR : LMO_LOG_INFO,
            r ? "certificates cannot be read again; the old ones stay in force" : "certificates read again",
            "reason=%s", err.text);
}

void lmo_worker_reload(struct lmo_worker *w)
{
    if (lmo_loop_post(w->loop, reload, w) < 0) {
        lmo_log(LMO_LOG_ERROR, "certificates are not read again: too much waits already", "host=%s", w->cfg.facts.host);
    }
}

static void on_signal(void *arg, int signal)
{
    struct lmo_worker *w = arg;
    if (signal == SIGHUP) {
        lmo_service_reloading();
        reload(w);
        lmo_service_ready();
        return;
    }
    lmo_log(LMO_LOG_INFO, "stopping; jobs that run at the hypervisor go on", "signal=%d", signal);
    lmo_service_stopping();
    lmo_loop_stop(w->loop);
}

void lmo_worker_block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    lmo_assert(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    (void)signal(SIGPIPE, SIG_IGN);
}

int lmo_worker_signals(struct lmo_worker *w, struct lmo_err *err)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, 0};
    return lmo_loop_signals(w->loop, signals, on_signal, w, err);
}

/* Runs what was posted meanwhile; everything that runs now sees `stopping`. */
static void drain(struct lmo_worker *w)
{
    lmo_loop_stop(w->loop);
    (void)!lmo_loop_run(w->loop);
}

static void free_inbox(struct lmo_worker *w)
{
    while (w->inbox) {
        struct lmo_inbox_item *item = w->inbox;
        w->inbox = item->next;
        free(item);
    }
}

/* False: driver calls still run, and may touch what they were given. Nothing is freed then. */
static bool end_threads(struct lmo_worker *w)
{
    w->server = lmo_http_server_free(w->server);
    if (w->loop) {
        drain(w); /* requests that the listener had posted are answered 503 */
    }
    lmo_calls_free(w);
    int fast = w->fast ? lmo_pool_free(w->fast, POOL_END_MS) : 0;
    int slow = w->slow ? lmo_pool_free(w->slow, fast == 0 ? POOL_END_MS : 0) : 0;
    lmo_calls_free(w);
    return fast == 0 && slow == 0;
}

struct lmo_worker *lmo_worker_free(struct lmo_worker *w)
{
    if (!w) {
        return NULL;
    }
    w->stopping = true;
    if (w->loop && !end_threads(w)) {
        lmo_log(LMO_LOG_WARN, "driver calls still run; they are left behind", "host=%s", w->cfg.facts.host);
        w->journal = lmo_journal_close(w->journal); /* what was decided is on disk */
        return NULL;
    }
    if (w->loop) {
        lmo_peers_free(w);
        w->client = lmo_http_client_free(w->client);
        lmo_stream_free(w);
        if (w->drivers_open) {
            w->cfg.drivers_close(w->cfg.drivers_arg, &w->drv);
        }
        w->journal = lmo_journal_close(w->journal);
        lmo_ops_free(w);
        lmo_records_free(w);
    }
    free_inbox(w);
    lmo_permit_public_free(w->permit_public);
    w->loop = lmo_loop_free(w->loop);
    lmo_cleanup_close(&w->inbox_fd);
    lmo_cleanup_close(&w->lock_fd);
    pthread_rwlock_destroy(&w->permit_lock);
    pthread_mutex_destroy(&w->inbox_lock);
    free(w);
    return NULL;
}

uint16_t lmo_worker_port(const struct lmo_worker *w)
{
    return lmo_http_server_port(w->server);
}

unsigned lmo_worker_commits(struct lmo_worker *w)
{
    return lmo_journal_commits(w->journal);
}

bool lmo_worker_dead(struct lmo_worker *w)
{
    return lmo_journal_dead(w->journal);
}
