/* server.c - the listener: who may ask what, and the way from its threads to the loop.
 *
 * A coordinator of a lower term than one that was heard of is refused before anything else, and is no sign of life
 * either: see proto/op.h. A higher term is on disk before anything that came with it is carried out, because the journal
 * writes in order (J1); what is not journaled changes nothing.
 *
 * Default deny. The role comes from the client's certificate: the coordinator orders, reads events and observes;
 * other workers speak at the cutover, and only with a permit (server_peer.c). Nobody else may do anything but ask for
 * /healthz.
 *
 * Handlers run on the listener's thread: they check the role, parse, and post to the loop, which answers. */
#include "workers/worker.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PUT_WAIT_DEFAULT_MS 5000
#define WAIT_MAX_MS         60000
#define REPLY_MARGIN_MS     5000 /* the loop answers long before the listener does it for it */

/* ------------------------------------------------------------------ from the listener to the loop */

enum job_kind {
    JOB_PUT,
    JOB_GET,
    JOB_EVENTS,
    JOB_HOST,
    JOB_VMS,
    JOB_VM,
    JOB_MIGRATIONS,
    JOB_VOLUMES,
    JOB_VOLUME,
    JOB_PORT,
    JOB_HEALTH
};

struct job {
    struct lmo_worker *w;
    enum job_kind kind;
    struct lmo_http_request *http;
    struct lmo_op_request *op; /* owned; JOB_PUT */
    char name[LMO_HTTP_PARAM_MAX];
    uint64_t after, wait_ms, term;
    bool no_migration; /* an order about no guest's move: whoever keeps the volumes gives it, and has no term */
};

bool lmo_worker_post(struct lmo_worker *w, lmo_loop_fn *fn, void *arg)
{
    return lmo_loop_post(w->loop, fn, arg) == 0;
}

static void health(struct lmo_worker *w, struct lmo_http_request *http)
{
    const char *why;
    json_t *root = json_object();
    bool ok = lmo_journal_healthy(w->journal, &why);
    int r = lmo_json_put_str(root, "status", ok ? "ok" : "journal cannot be written");
    if (!ok) {
        r |= lmo_json_put_str(root, "reason", why);
    }
    r |= lmo_json_put_u64(root, "term", lmo_journal_term(w->journal));
    if (r != 0) {
        json_decref(root);
        root = NULL;
    }
    lmo_http_reply_json(http, ok ? 200 : 503, root);
}

static void job_free(struct job *j)
{
    if (j->op) {
        lmo_op_request_done(j->op);
        free(j->op);
    }
    free(j);
}

/* False: it has been refused. */
static bool adopt_term(struct lmo_worker *w, const struct job *j)
{
    uint64_t seen = lmo_journal_term(w->journal);
    if (j->no_migration) {
        return true;
    }
    if (j->term < seen) {
        lmo_log(LMO_LOG_WARN, "coordinator of an earlier term refused", "term=%llu seen=%llu path=%s",
                (unsigned long long)j->term, (unsigned long long)seen, lmo_http_path(j->http));
        lmo_http_reply_fail(j->http, LMO_E_STALE_TERM, "the coordinator's term is %llu; this worker obeys one of term %llu",
                            (unsigned long long)j->term, (unsigned long long)seen);
        return false;
    }
    if (j->term > seen) {
        lmo_log(LMO_LOG_INFO, "coordinator of a new term", "term=%llu before=%llu", (unsigned long long)j->term,
                (unsigned long long)seen);
        struct lmo_batch *b = lmo_batch_new();
        lmo_batch_term(b, j->term);
        lmo_journal_submit(w->journal, b, false, NULL, NULL);
    }
    return true;
}

static void run_job(void *arg)
{
    struct job *j = arg;
    struct lmo_worker *w = j->w;
    if (w->stopping || lmo_journal_dead(w->journal)) {
        lmo_http_reply_fail(j->http, LMO_E_UNAVAILABLE, "this worker is stopping");
        job_free(j);
        return;
    }
    if (j->kind != JOB_HEALTH && !adopt_term(w, j)) {
        job_free(j);
        return;
    }
    if (j->kind != JOB_HEALTH) {
        w->coordinator_ns = lmo_now_ns();
    }
    switch (j->kind) {
    case JOB_PUT:
        lmo_ops_put(w, j->op, j->http, j->wait_ms);
        j->op = NULL;
        break;
    case JOB_GET: lmo_ops_get(w, j->name, j->http, j->wait_ms); break;
    case JOB_EVENTS: lmo_stream_get(w, j->http, j->after, j->wait_ms); break;
    case JOB_HOST: lmo_observe_host(w, j->http); break;
    case JOB_VMS: lmo_observe_vms(w, j->http, NULL); break;
    case JOB_VM: lmo_observe_vms(w, j->http, j->name); break;
    case JOB_MIGRATIONS: lmo_observe_migrations(w, j->http); break;
    case JOB_VOLUMES: lmo_observe_volumes(w, j->http); break;
    case JOB_VOLUME: lmo_observe_volume(w, j->http, j->name); break;
    case JOB_PORT: lmo_observe_port(w, j->http, j->name); break;
    case JOB_HEALTH: health(w, j->http); break;
    }
    job_free(j);
}

/* False: it has been refused. */
static bool term_of(struct lmo_http_request *http, uint64_t *ret)
{
    const char *text = lmo_http_header(http, LMO_TERM_HEADER);
    char *end = NULL;
    if (!text) {
        return true;
    }
    unsigned long long term = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
    if (!end || *end != '\0' || term > INT64_MAX) {
        lmo_http_reply_fail(http, LMO_E_INVALID, LMO_TERM_HEADER ": '%.40s' is not a term", text);
        return false;
    }
    *ret = term;
    return true;
}

static struct job *job_new(struct lmo_worker *w, struct lmo_http_request *http, enum job_kind kind, const char *name)
{
    uint64_t term = 0;
    if (!term_of(http, &term)) {
        return NULL;
    }
    struct job *j = calloc(1, sizeof *j);
    if (!j) {
        lmo_http_reply_fail(http, LMO_E_NO_MEMORY, "no memory for the request");
        return NULL;
    }
    *j = (struct job){.w = w, .kind = kind, .http = http, .term = term};
    snprintf(j->name, sizeof j->name, "%s", name ? name : "");
    return j;
}

static void post_job(struct job *j)
{
    if (!lmo_worker_post(j->w, run_job, j)) {
        lmo_http_reply_fail(j->http, LMO_E_BUSY, "too many requests wait already; try again");
        job_free(j);
    }
}

/* ------------------------------------------------------------------ roles */

/* True, or the request has been answered. */
static bool allowed(struct lmo_http_request *http, enum lmo_role role)
{
    const struct lmo_identity *peer = lmo_http_peer(http);
    if (peer->role == role) {
        return true;
    }
    lmo_log(LMO_LOG_WARN, "request refused", "peer=%s role=%s method=%s path=%s needs=%s", peer->name,
            lmo_role_name(peer->role), lmo_http_method(http), lmo_http_path(http), lmo_role_name(role));
    lmo_http_reply_fail(http, LMO_E_FORBIDDEN, "%s '%s' may not do this; it takes the role %s",
                        lmo_role_name(peer->role), peer->name, lmo_role_name(role));
    return false;
}

/* ------------------------------------------------------------------ routes */

static bool wait_of(struct lmo_http_request *http, uint64_t *wait_ms)
{
    struct lmo_err err = {0};
    if (lmo_http_query_u64(http, "wait_ms", 0, WAIT_MAX_MS, wait_ms, &err) < 0) {
        lmo_http_reply_error(http, &err);
        return false;
    }
    lmo_http_set_timeout(http, *wait_ms + REPLY_MARGIN_MS);
    return true;
}

static void put_op(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    struct lmo_worker *w = arg;
    uint64_t wait_ms = PUT_WAIT_DEFAULT_MS;
    if (!allowed(http, LMO_ROLE_COORDINATOR) || !wait_of(http, &wait_ms)) {
        return;
    }
    size_t len;
    const char *body = lmo_http_body(http, &len);
    struct lmo_err err = {0};
    struct lmo_op_request *op = calloc(1, sizeof *op);
    int r =
        op ? lmo_op_request_decode(body, len, op, &err) : lmo_fail(&err, LMO_E_NO_MEMORY, "no memory for the request");
    if (r == 0 && strcmp(op->id, params->value[0]) != 0) {
        r = lmo_fail(&err, LMO_E_INVALID, "id: '%s' in the body, '%s' in the path", op->id, params->value[0]);
    }
    struct job *j = r == 0 ? job_new(w, http, JOB_PUT, NULL) : NULL;
    if (r < 0) {
        lmo_http_reply_error(http, &err);
    }
    if (!j) {
        if (op) {
            lmo_op_request_done(op);
            free(op);
        }
        return;
    }
    const char *trace = lmo_http_header(http, "traceparent");
    if (trace) {
        lmo_log(LMO_LOG_INFO, "operation ordered", "migration=%s op=%s trace=%.32s", op->migration, op->id,
                strlen(trace) > 3 ? trace + 3 : "");
    }
    j->op = op;
    j->wait_ms = wait_ms;
    j->no_migration = op->migration[0] == '\0' && op->vm[0] == '\0' && !lmo_http_header(http, LMO_TERM_HEADER);
    post_job(j);
}

static void get_op(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    uint64_t wait_ms = 0;
    if (!allowed(http, LMO_ROLE_COORDINATOR) || !wait_of(http, &wait_ms)) {
        return;
    }
    struct job *j = job_new(arg, http, JOB_GET, params->value[0]);
    if (j) {
        j->wait_ms = wait_ms;
        j->no_migration = !strchr(params->value[0], '.') && !lmo_http_header(http, LMO_TERM_HEADER); /* an op of a migration is "<migration>.<epoch>..." */
        post_job(j);
    }
}

static void get_events(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    (void)params;
    uint64_t wait_ms = 0, after = 0;
    struct lmo_err err = {0};
    if (!allowed(http, LMO_ROLE_COORDINATOR) || !wait_of(http, &wait_ms)) {
        return;
    }
    if (lmo_http_query_u64(http, "after", 0, INT64_MAX, &after, &err) < 0) {
        lmo_http_reply_error(http, &err);
        return;
    }
    struct job *j = job_new(arg, http, JOB_EVENTS, NULL);
    if (j) {
        j->wait_ms = wait_ms;
        j->after = after;
        post_job(j);
    }
}

static void observe(void *arg, struct lmo_http_request *http, enum job_kind kind, const char *name)
{
    if (!allowed(http, LMO_ROLE_COORDINATOR)) {
        return;
    }
    if (name && !lmo_name_valid(name)) {
        lmo_http_reply_fail(http, LMO_E_INVALID, "'%.80s' is not a name", name);
        return;
    }
    struct job *j = job_new(arg, http, kind, name);
    if (j) {
        post_job(j);
    }
}

static void observe_host(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    (void)params;
    observe(arg, http, JOB_HOST, NULL);
}

static void observe_vms(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    (void)params;
    observe(arg, http, JOB_VMS, NULL);
}

static void observe_migrations(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    (void)params;
    observe(arg, http, JOB_MIGRATIONS, NULL);
}

static void observe_volumes(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    (void)params;
    observe(arg, http, JOB_VOLUMES, NULL);
}

static void observe_vm(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    observe(arg, http, JOB_VM, params->value[0]);
}

static void observe_volume(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    observe(arg, http, JOB_VOLUME, params->value[0]);
}

static void observe_port(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    observe(arg, http, JOB_PORT, params->value[0]);
}

static void post_peer(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    if (allowed(http, LMO_ROLE_WORKER)) {
        lmo_server_peer(arg, http, params->value[0]);
    }
}

static void get_health(void *arg, struct lmo_http_request *http, const struct lmo_http_params *params)
{
    (void)params;
    struct job *j = job_new(arg, http, JOB_HEALTH, NULL);
    if (j) {
        post_job(j);
    }
}

static const struct lmo_http_route routes[] = {
    {"PUT", "/v1/ops/{id}", put_op},
    {"GET", "/v1/ops/{id}", get_op},
    {"GET", "/v1/events", get_events},
    {"GET", "/v1/observe/host", observe_host},
    {"GET", "/v1/observe/vms", observe_vms},
    {"GET", "/v1/observe/vm/{id}", observe_vm},
    {"GET", "/v1/observe/migrations", observe_migrations},
    {"GET", "/v1/observe/volumes", observe_volumes},
    {"GET", "/v1/observe/volume/{name}", observe_volume},
    {"GET", "/v1/observe/port/{id}", observe_port},
    {"POST", "/v1/peer/{what}", post_peer},
    {"GET", "/healthz", get_health},
};

static void handle(void *arg, struct lmo_http_request *http)
{
    lmo_http_dispatch(routes, sizeof routes / sizeof routes[0], arg, http);
}

int lmo_server_start(struct lmo_worker *w, struct lmo_err *err)
{
    struct lmo_http_server_config cfg = {
        .tls = w->cfg.tls,
        .handler = handle,
        .handler_arg = w,
        .log_name = "worker",
        .body_max = LMO_OP_BODY_MAX,
        .reply_timeout_ms = 30000,
        .connections_max = 256,
    };
    memcpy(cfg.address, w->cfg.listen, sizeof cfg.address);
    return lmo_http_server_new(&cfg, &w->server, err);
}
