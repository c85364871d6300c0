/* actors.c - the processes of a fleet. Coordinators and workers are put together as lmo/main.c and workers/main.c do;
 * the client is an operator that repeats a request under its key until it has a definite answer. */
#include "actors.h"

#include "api/api.h"
#include "base/assert.h"
#include "base/json.h"
#include "base/loop.h"
#include "base/str.h"
#include "engine/engine.h"
#include "http/client.h"
#include "proto/op.h"
#include "rpc/workers.h"
#include "workers/runtime.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct client client;
struct auditor auditor;

void actors_begin(const struct plan *p)
{
    client = (struct client){.plan = p};
    auditor = (struct auditor){0};
    for (unsigned i = 0; i < p->request_count; i++) {
        client.asked[i].request = &p->requests[i];
        snprintf(client.asked[i].key, sizeof client.asked[i].key, "request-%u", i);
    }
}

void actor_url(const struct sim_process *p, const char *path, char ret[LMO_URL_MAX])
{
    snprintf(ret, LMO_URL_MAX, "https://10.0.0.%u:8443%s", p->index, path);
}

/* ------------------------------------------------------------------ coordinator */

void coordinator_main(void *arg)
{
    (void)arg;
    struct lmo_loop *loop = NULL;
    struct lmo_store *store = NULL;
    struct lmo_permit_key *key = NULL;
    struct lmo_engine *engine = NULL;
    struct lmo_workers *workers = NULL;
    struct lmo_api *api = NULL;
    struct lmo_tls_files tls = {0};
    struct lmo_err err = {0};
    int r;
    bool take_over = sim_current()->take_over;
    if ((r = lmo_loop_new(8192, &loop, &err)) < 0 ||
        (r = take_over ? lmo_store_sqlite_take_over("/sim/store", &store, &err)
                       : lmo_store_sqlite_open("/sim/store", &store, &err)) < 0 ||
        (r = lmo_permit_key_load("permit.key", &key, &err)) < 0) {
        sim_trace("coordinator cannot start: %s", err.text);
        sim_current()->restart_ns =
            10 * SIM_S; /* the service manager does not hurry for one that another one is up for */
        return;
    }
    sim_current()->restart_ns = SIM_RESTART_NS;
    struct lmo_limits limits;
    lmo_limits_default(&limits);
    limits.max_migrations = client.plan->max_migrations ? client.plan->max_migrations : limits.max_migrations;
    limits.max_incoming = client.plan->max_incoming ? client.plan->max_incoming : limits.max_incoming;
    limits.max_outgoing = client.plan->max_outgoing ? client.plan->max_outgoing : limits.max_outgoing;
    check_events(store);
    struct lmo_engine_config cfg = {.loop = loop, .store = store, .permit_key = key, .limits = &limits};
    if ((r = lmo_engine_new(&cfg, &engine, &err)) < 0 ||
        (r = lmo_workers_http_open(loop, &tls, lmo_engine_callbacks(engine), &workers, &err)) < 0) {
        sim_trace("coordinator cannot start: %s", err.text);
        return;
    }
    sim_current()->take_over = false; /* an order that has been carried out */
    lmo_workers_http_set_term(workers, store->ops->term(store));
    if ((r = lmo_engine_start(engine, workers, &err)) < 0) {
        sim_trace("coordinator cannot start: %s", err.text);
        return;
    }
    struct lmo_api_config api_cfg = {.tls = tls, .engine = engine};
    snprintf(api_cfg.address, sizeof api_cfg.address, "10.0.0.%u:8443", sim_current()->index);
    if (lmo_api_start(&api_cfg, &api, &err) < 0) {
        sim_trace("coordinator cannot start: %s", err.text);
        return;
    }
    (void)!lmo_loop_run(loop);
}

/* ------------------------------------------------------------------ worker */

static int drivers_open(void *arg, lmo_hv_event_fn *on_event, void *event_arg, struct lmo_worker_drivers *ret,
                        struct lmo_err *err)
{
    (void)err;
    struct w_host *h = arg;
    *ret = (struct lmo_worker_drivers){0};
    if (h->hypervisor) {
        ret->hypervisor = sim_hypervisor_open(h);
        ret->network = sim_network_open(h);
        h->on_event = on_event;
        h->event_arg = event_arg;
        h->event_incarnation = h->process->incarnation;
    }
    if (h->storage) {
        ret->volume = sim_volume_open(h);
        ret->fabric = sim_fabric_open(h);
    }
    return 0;
}

static void drivers_close(void *arg, struct lmo_worker_drivers *d)
{
    (void)arg;
    if (d->hypervisor) {
        d->hypervisor->ops->close(d->hypervisor);
    }
    if (d->network) {
        d->network->ops->close(d->network);
    }
    if (d->volume) {
        d->volume->ops->close(d->volume);
    }
    if (d->fabric) {
        d->fabric->ops->close(d->fabric);
    }
}

void worker_main(void *arg)
{
    struct w_host *h = arg;
    unsigned index = (unsigned)(h - world.hosts);
    struct lmo_worker_config *cfg = calloc(1, sizeof *cfg);
    struct lmo_worker *w = NULL;
    struct lmo_err err = {0};
    lmo_assert(cfg);
    snprintf(cfg->listen, sizeof cfg->listen, "10.0.0.%u:8443", sim_current()->index);
    snprintf(cfg->state_dir, sizeof cfg->state_dir, "/sim/%s", h->name);
    LMO_COPY(cfg->facts.host, h->name);
    if (h->hypervisor) {
        snprintf(cfg->facts.hypervisor, sizeof cfg->facts.hypervisor, "sim");
        snprintf(cfg->facts.network, sizeof cfg->facts.network, "sim");
        snprintf(cfg->facts.network_fabric, sizeof cfg->facts.network_fabric, "fab1");
        snprintf(cfg->facts.peer_uri, sizeof cfg->facts.peer_uri, "%s", h->name);
        cfg->facts.link_count = 1;
        snprintf(cfg->facts.links[0].name, sizeof cfg->facts.links[0].name, "migration");
        snprintf(cfg->facts.links[0].address, sizeof cfg->facts.links[0].address, "10.2.0.%u", index);
        cfg->facts.links[0].rate_bytes_per_s = W_LINK_BYTES_PER_S;
    }
    if (h->storage) {
        snprintf(cfg->facts.volume, sizeof cfg->facts.volume, "sim");
        snprintf(cfg->facts.volume_service, sizeof cfg->facts.volume_service, "%s", h->name);
        snprintf(cfg->facts.volume_address, sizeof cfg->facts.volume_address, "10.1.0.%u:10809", index);
        if (index == world.hypervisor_count) { /* the first storage host serves the fabric */
            snprintf(cfg->facts.fabric, sizeof cfg->facts.fabric, "sim");
            snprintf(cfg->facts.fabric_name, sizeof cfg->facts.fabric_name, "fab1");
        }
    }
    cfg->drivers_open = drivers_open;
    cfg->drivers_close = drivers_close;
    cfg->drivers_arg = h;
    if (lmo_worker_new(cfg, &w, &err) < 0) {
        sim_trace("worker cannot start: %s", err.text);
        return;
    }
    (void)!lmo_worker_run(w);
}

/* ------------------------------------------------------------------ client */

static struct {
    struct lmo_loop *loop;
    struct lmo_http_client *http;
    unsigned coordinator; /* which of the two it talks to */
    unsigned host;        /* being registered */
} me;

struct call {
    struct asked *asked;
    bool cancel;
};

static void request(const char *method, const char *path, json_t *body, const char *key, lmo_http_response_fn *fn,
                    void *arg)
{
    char url[LMO_URL_MAX], header[64];
    const char *headers[] = {header, NULL};
    LMO_AUTO_FREE char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    actor_url(sim_process_at(me.coordinator), path, url);
    snprintf(header, sizeof header, "Idempotency-Key: %s", key ? key : "");
    struct lmo_http_request_spec spec = {.method = method,
                                         .url = url,
                                         .headers = key ? headers : NULL,
                                         .body = text,
                                         .body_len = text ? strlen(text) : 0,
                                         .timeout_ms = 30000,
                                         .peer_role = LMO_ROLE_COORDINATOR};
    struct lmo_err err = {0};
    lmo_assert(lmo_http_request_async(me.http, &spec, fn, arg, NULL, &err) == 0);
}

static void later(uint64_t ms, lmo_loop_fn *fn, void *arg)
{
    uint64_t timer;
    lmo_assert(lmo_loop_timer(me.loop, ms, fn, arg, &timer) == 0);
}

static void problem(const char *fmt, ...) LMO_PRINTF(1, 2);
static void problem(const char *fmt, ...)
{
    if (!client.problem[0]) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(client.problem, sizeof client.problem, fmt, ap);
        va_end(ap);
    }
}

/* It did not get through: perhaps the other coordinator is the one now. */
static void no_answer(void)
{
    me.coordinator = 1 - me.coordinator;
}

static void ask(void *arg);
static void cancel(void *arg);
static void resolve(void *arg);

static void asked_done(void *arg, const struct lmo_http_response *r)
{
    struct asked *a = arg;
    LMO_AUTO_JSON json_t *body = NULL;
    if (r->result == 0) {
        (void)!lmo_json_parse_object(r->body, r->body_len, 1 << 20, &body, NULL);
    }
    const char *id = json_string_value(json_object_get(body, "id"));
    if (r->result == 0 && r->status == 202 && id) {
        if (a->accepted && strcmp(a->id, id) != 0) {
            problem("%s: accepted as %s, and again as %s", a->key, a->id, id);
        }
        a->accepted = true;
        snprintf(a->id, sizeof a->id, "%s", id);
        sim_trace("accepted key=%s id=%s", a->key, id);
        if (a->request->cancel_after_ms && !a->cancel_sent) {
            later(a->request->cancel_after_ms, cancel, a);
        }
        return;
    }
    if (r->result == 0 && r->status >= 400 && r->status < 500 && r->status != 429) {
        const char *detail = json_string_value(json_object_get(body, "detail"));
        sim_trace("refused key=%s status=%u detail=%s", a->key, r->status, detail ? detail : "");
        if (detail && strstr(detail, "is being carried out")) {
            later(500, ask, a);
            return;
        }
        snprintf(a->reason, sizeof a->reason, "%.200s", detail ? detail : "");
        a->refused = true;
        return;
    }
    sim_trace("no answer key=%s result=%s status=%u", a->key, lmo_err_name(r->result), r->status);
    no_answer();
    later(1000, ask, a);
}

static void ask(void *arg)
{
    struct asked *a = arg;
    const struct plan_request *q = a->request;
    json_t *policy = json_object();
    if (q->convergence_ms) {
        json_object_set_new(policy, "convergence_timeout_ms", json_integer((json_int_t)q->convergence_ms));
    }
    if (q->bandwidth_mib) {
        json_object_set_new(policy, "bandwidth_bytes_per_s", json_integer((json_int_t)(q->bandwidth_mib << 20)));
    }
    a->tries++;
    request("POST", "/v1/migrations",
            json_pack("{s:s,s:s,s:o}", "vm", q->guest, "destination", q->destination, "policy", policy), a->key,
            asked_done, a);
}

static void cancel_done(void *arg, const struct lmo_http_response *r)
{
    struct asked *a = arg;
    if (r->result == 0 && (r->status == 202 || r->status == 200)) {
        a->cancel_accepted = true;
    } else if (r->result != 0 || r->status >= 500 || r->status == 429) {
        no_answer();
        later(1000, cancel, a);
    }
}

static void cancel(void *arg)
{
    struct asked *a = arg;
    char path[96];
    a->cancel_sent = true;
    snprintf(path, sizeof path, "/v1/migrations/%s/cancel", a->id);
    request("POST", path, json_object(), NULL, cancel_done, a);
}

/* ---- what needs a person: every decision that may help, in the order of docs/doctor.md ---- */

static const char *const decisions[] = {"retry", "guest-at-source", "guest-at-destination", "retry", "abandon"};
#define DECISIONS (sizeof decisions / sizeof decisions[0])

static void resolved(void *arg, const struct lmo_http_response *r)
{
    struct asked *a = arg;
    a->resolving = false;
    if (r->result != 0 || r->status >= 500 || r->status == 429) {
        no_answer(); /* the next look finds it in attention again, or not */
        return;
    }
    sim_trace("decision id=%s decision=%s status=%u", a->id, decisions[a->decided], r->status);
    a->decided++;
    client.resolutions += r->status < 300;
}

static void resolve(void *arg)
{
    struct asked *a = arg;
    char path[96];
    snprintf(path, sizeof path, "/v1/migrations/%s/resolve", a->id);
    a->attention = true;
    if (a->resolving || a->decided == DECISIONS) {
        return;
    }
    a->resolving = true;
    request("POST", path, json_pack("{s:s,s:s}", "decision", decisions[a->decided], "reason", "simulated operator"),
            NULL, resolved, a);
}

/* ---- registering hosts ---- */

static void register_host(void *arg);

static void registered(void *arg, const struct lmo_http_response *r)
{
    (void)arg;
    if (r->result == 0 && (r->status == 201 || r->status == 409)) {
        me.host++;
    } else {
        no_answer();
    }
    if (me.host == world.host_count) {
        client.registered = true;
    } else {
        later(r->result == 0 ? 1 : 300, register_host, NULL);
    }
}

static void register_host(void *arg)
{
    (void)arg;
    char url[LMO_URL_MAX];
    actor_url(world.hosts[me.host].process, "", url);
    request("POST", "/v1/hosts", json_pack("{s:s,s:s}", "name", world.hosts[me.host].name, "url", url), NULL,
            registered, NULL);
}

/* ---- how it ended ---- */

static void copy_member(const json_t *o, const char *key, char *ret, size_t size)
{
    const char *text = json_string_value(json_object_get(o, key));
    snprintf(ret, size, "%s", text ? text : "");
}

static void read_migration(const json_t *o)
{
    const char *id = json_string_value(json_object_get(o, "id"));
    for (unsigned i = 0; id && i < client.plan->request_count; i++) {
        struct asked *a = &client.asked[i];
        if (!a->accepted || strcmp(a->id, id) != 0) {
            continue;
        }
        if (a->seen) {
            problem("migration %s is listed twice", id);
        }
        a->seen = true;
        copy_member(o, "outcome", a->outcome, sizeof a->outcome);
        copy_member(o, "phase", a->phase, sizeof a->phase);
        if (strcmp(a->phase, "attention") == 0) {
            resolve(a);
        }
        copy_member(o, "failed_in", a->failed_in, sizeof a->failed_in);
        copy_member(o, "source", a->source, sizeof a->source);
        copy_member(o, "destination", a->destination, sizeof a->destination);
        copy_member(o, "waiting_for", a->waiting_for, sizeof a->waiting_for);
        const json_t *reason = json_object_get(o, "reason");
        if (json_is_object(reason)) {
            copy_member(reason, "detail", a->reason, sizeof a->reason);
        } else {
            copy_member(o, "reason", a->reason, sizeof a->reason);
        }
        return;
    }
}

static void look(void *arg);

static void listed(void *arg, const struct lmo_http_response *r)
{
    (void)arg;
    LMO_AUTO_JSON json_t *body = NULL;
    if (r->result < 0 || r->status != 200 || lmo_json_parse_object(r->body, r->body_len, 8 << 20, &body, NULL) < 0) {
        no_answer();
        later(1000, look, NULL);
        return;
    }
    const json_t *list = json_object_get(body, "migrations");
    client.listed = (unsigned)json_array_size(list);
    bool done = true;
    for (unsigned i = 0; i < client.plan->request_count; i++) {
        client.asked[i].seen = false;
        client.asked[i].outcome[0] = '\0';
        done &= client.asked[i].accepted || client.asked[i].refused;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        read_migration(json_array_get(list, i));
        const char *outcome = json_string_value(json_object_get(json_array_get(list, i), "outcome"));
        done &= outcome && strcmp(outcome, "attention") != 0;
    }
    if (done) {
        client.settled = true;
    } else {
        later(3000, look, NULL);
    }
}

static void look(void *arg)
{
    (void)arg;
    if (!client.quiet) {
        later(1000, look, NULL);
        return;
    }
    request("GET", "/v1/migrations?limit=200", NULL, NULL, listed, NULL);
}

void client_main(void *arg)
{
    (void)arg;
    struct lmo_http_client_config config = {.connect_timeout_ms = 2000};
    struct lmo_err err = {0};
    me.coordinator = 0;
    me.host = 0;
    lmo_assert(lmo_loop_new(256, &me.loop, &err) == 0);
    lmo_assert(lmo_http_client_new(me.loop, &config, &me.http, &err) == 0);
    later(50, register_host, NULL);
    for (unsigned i = 0; i < client.plan->request_count; i++) {
        later(client.plan->requests[i].at_ms, ask, &client.asked[i]);
    }
    later(1000, look, NULL);
    (void)!lmo_loop_run(me.loop);
}

/* ------------------------------------------------------------------ auditor: are the workers' journals closed? */

static struct {
    struct lmo_loop *loop;
    struct lmo_http_client *http;
} eye;

static void audit(void *arg);

static void audited(void *arg, const struct lmo_http_response *r)
{
    const struct w_host *h = arg;
    LMO_AUTO_JSON json_t *body = NULL;
    if (r->result < 0 || r->status != 200 || lmo_json_parse_object(r->body, r->body_len, 1 << 20, &body, NULL) < 0) {
        uint64_t timer; /* it may have died of the question: a point of the plan that was left */
        lmo_assert(lmo_loop_timer(eye.loop, 1000, audit, arg, &timer) == 0);
        return;
    }
    auditor.answered++;
    const json_t *list = json_object_get(body, "migrations");
    for (size_t i = 0; i < json_array_size(list); i++) {
        auditor.open++;
        if (!auditor.first[0]) {
            LMO_AUTO_FREE char *text = json_dumps(json_array_get(list, i), JSON_COMPACT);
            snprintf(auditor.first, sizeof auditor.first, "%s: %.220s", h->name, text);
        }
    }
}

static void audit(void *arg)
{
    const struct w_host *h = arg;
    char url[LMO_URL_MAX];
    struct lmo_err err = {0};
    actor_url(h->process, "/v1/observe/migrations", url);
    static const char *const headers[] = {LMO_TERM_HEADER ": 1000000000", NULL}; /* nobody acts after it has looked */
    struct lmo_http_request_spec spec = {
        .method = "GET", .url = url, .headers = headers, .timeout_ms = 5000, .peer_role = LMO_ROLE_WORKER};
    lmo_assert(lmo_http_request_async(eye.http, &spec, audited, arg, NULL, &err) == 0);
}

void auditor_main(void *arg)
{
    (void)arg;
    struct lmo_http_client_config config = {.connect_timeout_ms = 2000};
    struct lmo_err err = {0};
    lmo_assert(lmo_loop_new(64, &eye.loop, &err) == 0 && lmo_http_client_new(eye.loop, &config, &eye.http, &err) == 0);
    for (unsigned i = 0; i < world.host_count; i++) {
        auditor.asked++;
        audit(&world.hosts[i]);
    }
    (void)!lmo_loop_run(eye.loop);
}
