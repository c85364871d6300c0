/* follow.c - one client follows many migrations on one connection: real store, engine and REST API over mutual TLS. Prints how
 * many events came, how many were lost or doubled, and how long after their commit they were there.
 *
 *     follow DIR [MIGRATIONS]
 *
 * The migrations are of MIGRATIONS guests (10,000), committed in transactions of 64 as the engine's are, five events each, as
 * fast as the store takes them: the client has no pause in which to catch up. */
#include "bench/lib/bench.h"

#include "api/api.h"
#include "base/assert.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/json.h"
#include "base/str.h"
#include "http/client.h"
#include "pki/ca.h"
#include "pki/permit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH  64
#define EVENTS 5

static struct {
    struct lmo_loop *loop, *client_loop;
    struct lmo_store *store;
    struct lmo_engine *engine;
    struct lmo_api *api;
    unsigned migrations, next, stage;
    struct lmo_migration *records; /* of one batch */
    uint64_t began_ns, written_ns, first_seq;
    uint64_t *committed_ns; /* of each event, by its place */
    /* the client's */
    struct lmo_buf text;
    size_t parsed;
    atomic_bool there;
    uint64_t last_seq;
    unsigned got, holes;
    struct samples lag;
} b;

static const enum lmo_phase phases[EVENTS] = {LMO_PHASE_QUEUED, LMO_PHASE_PRECHECK, LMO_PHASE_DESTINATION_CREATE,
                                              LMO_PHASE_VOLUME_ATTACH, LMO_PHASE_NETWORK_PRELOAD};

static void write_batch(void *arg);

static void again(void)
{
    uint64_t timer;
    lmo_assert(lmo_loop_timer(b.loop, 0, write_batch, NULL, &timer) == 0);
}

static void fill(unsigned i, struct lmo_commit_item *item, struct lmo_event_row *row)
{
    struct lmo_migration *m = &b.records[i];
    if (b.stage == 0) {
        memset(m, 0, sizeof *m);
        lmo_ulid_generate(m->id);
        snprintf(m->vm.uuid, sizeof m->vm.uuid, "00000000-0000-4000-8000-%012u", b.next + i);
        snprintf(m->vm.name, sizeof m->vm.name, "guest-%u", b.next + i);
        LMO_COPY(m->source, "h1");
        LMO_COPY(m->destination, "h2");
        m->epoch = 16;
        m->created_ms = (int64_t)(lmo_realtime_us() / 1000);
    }
    m->version = b.stage + 1;
    m->phase = phases[b.stage];
    *row = (struct lmo_event_row){.at_ms = (int64_t)(lmo_realtime_us() / 1000)};
    LMO_COPY(row->type, b.stage == 0 ? "migration.accepted" : "migration.phase");
    LMO_COPY(row->migration, m->id);
    LMO_COPY(row->vm, m->vm.uuid);
    LMO_COPY(row->vm_name, m->vm.name);
    LMO_COPY(row->host, m->source);
    LMO_COPY(row->to_host, m->destination);
    snprintf(row->data, sizeof row->data,
             "{\"migration\":\"%s\",\"vm\":{\"uuid\":\"%s\",\"name\":\"%s\"},\"source\":\"h1\",\"destination\":\"h2\","
             "\"phase\":\"%s\","
             "\"version\":%u}",
             m->id, m->vm.uuid, m->vm.name, lmo_phase_text(m->phase), b.stage + 1);
    *item = (struct lmo_commit_item){.record = m, .expected_version = b.stage, .events = row, .event_count = 1};
}

/* One transaction per turn, told of like the engine tells: the followers are given what is new after each. */
static void write_batch(void *arg)
{
    static struct lmo_event_row rows[BATCH];
    static struct lmo_commit_item items[BATCH];
    struct lmo_err err = {0};
    unsigned n = b.migrations - b.next < BATCH ? b.migrations - b.next : BATCH;
    (void)arg;
    for (unsigned i = 0; i < n; i++) {
        fill(i, &items[i], &rows[i]);
    }
    check(b.store->ops->commit(b.store, items, n, NULL, 0, &err), &err, "commit");
    uint64_t now = lmo_now_ns(), at = (uint64_t)b.next * EVENTS + (uint64_t)b.stage * n;
    for (unsigned i = 0; i < n; i++) {
        b.committed_ns[at + i] = now;
    }
    lmo_engine_tell_followers(b.engine);
    if (++b.stage == EVENTS) {
        b.stage = 0;
        b.next += n;
    }
    if (b.next < b.migrations) {
        again();
    } else {
        b.written_ns = lmo_now_ns();
    }
}

static void start_writing(void *arg)
{
    (void)arg;
    b.began_ns = lmo_now_ns();
    again();
}

/* ------------------------------------------------------------------ the client */

static int on_data(void *arg, const char *data, size_t len)
{
    uint64_t now = lmo_now_ns();
    (void)arg;
    lmo_assert(lmo_buf_append(&b.text, data, len) == 0);
    char *at = b.text.data, *end;
    while ((end = strstr(at, "\n\n")) != NULL) {
        *end = '\0';
        char *id = strncmp(at, "id: ", 4) == 0 ? at : strstr(at, "\nid: ");
        uint64_t seq = id ? strtoull(id + (id == at ? 4 : 5), NULL, 10) : 0;
        if (strstr(at, "event: gap") || strstr(at, "event: cut")) {
            die("%s", at);
        }
        if (strstr(at, "event: migration.")) {
            b.holes += seq != b.last_seq + 1;
            b.first_seq = b.got ? b.first_seq : seq;
            samples_add(&b.lag, now - b.committed_ns[seq - b.first_seq]);
            b.got++;
        }
        b.last_seq = seq ? seq : b.last_seq;
        at = end + 2;
    }
    size_t left = b.text.len - (size_t)(at - b.text.data);
    memmove(b.text.data, at, left + 1);
    b.text.len = left;
    atomic_store(&b.there, true);
    return b.got == b.migrations * EVENTS;
}

static void on_end(void *arg, const struct lmo_http_response *r)
{
    (void)arg;
    if (b.got < b.migrations * EVENTS) {
        die("the stream ended after %u events: %d %u %s", b.got, r->result, r->status, r->err ? r->err->text : "");
    }
    lmo_loop_stop(b.client_loop);
}

/* ------------------------------------------------------------------ life */

static void *run(void *arg)
{
    check(lmo_loop_run(arg), NULL, "loop");
    return NULL;
}

static int no_host(struct lmo_workers *w, const char *name, const char *url, uint64_t cursor, struct lmo_err *err)
{
    (void)w, (void)name, (void)url, (void)cursor, (void)err;
    return 0;
}

static struct lmo_tls_files issue(const char *pki, enum lmo_role role)
{
    struct lmo_pki_request request = {.role = role, .address_count = 1, .addresses = {"127.0.0.1"}};
    struct lmo_pki_issued issued;
    struct lmo_tls_files files = {0};
    struct lmo_err err = {0};
    LMO_COPY(request.name, "bench");
    check(lmo_pki_issue(pki, &request, &issued, &err), &err, "certificate");
    snprintf(files.ca, sizeof files.ca, "%.900s/ca.pem", pki);
    LMO_COPY(files.cert, issued.certificate);
    LMO_COPY(files.key, issued.key);
    return files;
}

int main(int argc, char **argv)
{
    char dir[LMO_PATH_MAX], pki[LMO_PATH_MAX], state[LMO_PATH_MAX], path[LMO_PATH_MAX], url[128];
    struct lmo_err err = {0};
    struct lmo_permit_key *key = NULL;
    static const struct lmo_workers_ops nobody = {.host_add = no_host};
    struct lmo_workers workers = {.ops = &nobody};
    pthread_t thread;
    b.migrations = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 10000;
    if (argc < 2 || b.migrations == 0) {
        die("usage: follow DIR [MIGRATIONS]");
    }
    make_dir(argv[1], "follow", dir);
    snprintf(pki, sizeof pki, "%.900s/pki", dir);
    snprintf(state, sizeof state, "%.900s/state", dir);
    check(lmo_pki_init(pki, &err), &err, "pki");
    struct lmo_tls_files server = issue(pki, LMO_ROLE_COORDINATOR), viewer = issue(pki, LMO_ROLE_VIEWER);
    snprintf(path, sizeof path, "%.900s/permit.key", pki);
    check(lmo_permit_key_load(path, &key, &err), &err, "permit key");
    b.committed_ns = calloc((size_t)b.migrations * EVENTS, sizeof *b.committed_ns);
    b.records = calloc(BATCH, sizeof *b.records);
    b.text = LMO_BUF_INIT(64U << 20);
    lmo_assert(b.committed_ns && b.records);
    check(lmo_loop_new(1024, &b.loop, &err), &err, "loop");
    check(lmo_loop_new(16, &b.client_loop, &err), &err, "loop");
    check(lmo_store_sqlite_open(state, &b.store, &err), &err, "store");
    const struct lmo_engine_config cfg = {.loop = b.loop, .store = b.store, .permit_key = key};
    check(lmo_engine_new(&cfg, &b.engine, &err), &err, "engine");
    check(lmo_engine_start(b.engine, &workers, &err), &err, "engine");
    lmo_assert(pthread_create(&thread, NULL, run, b.loop) == 0);
    struct lmo_api_config api = {.address = "127.0.0.1:0", .tls = server, .engine = b.engine};
    check(lmo_api_start(&api, &b.api, &err), &err, "api");
    struct lmo_http_client *client;
    const struct lmo_http_client_config config = {.tls = viewer};
    check(lmo_http_client_new(b.client_loop, &config, &client, &err), &err, "client");
    snprintf(url, sizeof url, "https://127.0.0.1:%u/v1/events", lmo_api_port(b.api));
    const struct lmo_http_request_spec spec = {
        .method = "GET", .url = url, .timeout_ms = 60000, .peer_role = LMO_ROLE_COORDINATOR, .on_data = on_data};
    check(lmo_http_request_async(client, &spec, on_end, NULL, NULL, &err), &err, "request");
    pthread_t reader;
    lmo_assert(pthread_create(&reader, NULL, run, b.client_loop) == 0);
    while (!atomic_load(&b.there)) {
        struct timespec pause = {0, 1000000};
        nanosleep(&pause, NULL);
    }
    lmo_assert(lmo_loop_post(b.loop, start_writing, NULL) == 0);
    pthread_join(reader, NULL);
    double took = (double)(lmo_now_ns() - b.began_ns) / 1e9;
    json_t *out =
        json_pack("{s:{s:i, s:i, s:i, s:f, s:f, s:f, s:f}}", "follow", "migrations", (int)b.migrations, "events",
                  (int)b.got, "lost_or_doubled", (int)b.holes, "events_per_s", rounded(b.got / took, 0), "lag_p50_ms",
                  rounded((double)samples_percentile(&b.lag, 50) / 1e6, 2), "lag_p99_ms",
                  rounded((double)samples_percentile(&b.lag, 99) / 1e6, 2), "lag_max_ms",
                  rounded((double)samples_percentile(&b.lag, 100) / 1e6, 2));
    char *text = NULL;
    check(lmo_json_dump(out, &text, NULL, &err), &err, "report");
    puts(text);
    free(text);
    json_decref(out);
    lmo_http_client_free(client);
    lmo_api_stop(b.api);
    lmo_loop_stop(b.loop);
    pthread_join(thread, NULL);
    lmo_engine_stop(b.engine);
    lmo_engine_free(b.engine);
    b.store->ops->close(b.store);
    lmo_loop_free(b.loop);
    lmo_loop_free(b.client_loop);
    lmo_permit_key_free(key);
    lmo_buf_done(&b.text);
    samples_done(&b.lag);
    free(b.committed_ns);
    free(b.records);
    return b.holes ? 1 : 0;
}
