/* transitions.c - durable state transitions through the real engine and store, against bare SQLite with the same rows.
 *
 *   transitions DIR [steps]      DIR: on the disk that is to be measured; steps: only the time that a step takes
 *   transitions DIR engine N MS  only the engine, with N in flight for MS: for a profiler
 *
 * The workers answer from memory, so what is measured is the coordinator: decision, record, journal, commit. For each number
 * of migrations in flight a first run takes down every row that the store is given; bare SQLite (prepared statements, the
 * same schema, WAL, FULL) then writes exactly those in transactions of 64. The rounds alternate, so that both see the same
 * disk. Prints one JSON object. */
#include "bench/lib/bench.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/record_codec.h"
#include "pki/ca.h"
#include "sql/sql.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uthash.h>

#define HOSTS     40
#define GROUP     64
#define ROUNDS    3
#define ROWS_MAX  40000
#define RUN_MS    3000
#define XML_BYTES 6000

/* Steps: workers that take their time, and slices of the run with the disk's own time between them. */
#define WORK_US   20000 /* mean of an operation's time; a seeded exponential distribution */
#define SEED      UINT64_C(20260131)
#define SLICES    20
#define SETTLE_MS 100 /* not counted: what fell due while the disk was measured */
#define SLICE_MS  300
#define SYNCS      60 /* between two slices... */
#define WARM_SYNCS 5 /* ...after these, which wait for what the slice before left to the disk and are not counted */

/* ------------------------------------------------------------------ rows that the store was given */

struct line {
    int64_t n, at_ms;
    char *phase, *what, *why;
};
struct row {
    char *id, *vm, *name, *source, *destination, *phase, *text, *xml;
    bool insert, in_place, terminal, ends_well; /* in_place: what is searched for stands as it stood */
    int64_t version, created_ms, updated_ms;
    unsigned line_count;
    struct line *lines;
};
struct last { /* row of that migration */
    char id[LMO_ID_MAX];
    const struct row *row;
    UT_hash_handle hh;
};
static struct taken {
    struct row rows[ROWS_MAX];
    unsigned count;
    struct last *last;
} taken; /* of one number in flight at a time */

static void forget_rows(void)
{
    struct last *l, *next;
    for (unsigned i = 0; i < taken.count; i++) {
        struct row *r = &taken.rows[i];
        char *const texts[] = {r->id, r->vm, r->name, r->source, r->destination, r->phase, r->text, r->xml};
        for (unsigned k = 0; k < sizeof texts / sizeof texts[0]; k++) {
            free(texts[k]);
        }
        for (unsigned k = 0; k < r->line_count; k++) {
            free(r->lines[k].phase);
            free(r->lines[k].what);
            free(r->lines[k].why);
        }
        free(r->lines);
    }
    HASH_ITER(hh, taken.last, l, next) {
        HASH_DEL(taken.last, l);
        free(l);
    }
    taken.count = 0;
}

static char *copy(const char *s)
{
    char *c = strdup(s);
    lmo_assert(c);
    return c;
}

/* Is what the indices are made of as it was in the row before? */
static bool is_in_place(const struct row *r)
{
    struct last *l;
    HASH_FIND_STR(taken.last, r->id, l);
    if (!l) {
        l = calloc(1, sizeof *l);
        lmo_assert(l);
        LMO_COPY(l->id, r->id);
        HASH_ADD_STR(taken.last, id, l);
    }
    const struct row *before = l->row;
    l->row = r;
    return before && strcmp(before->phase, r->phase) == 0 && strcmp(before->name, r->name) == 0 &&
           strcmp(before->source, r->source) == 0 && strcmp(before->destination, r->destination) == 0;
}

static void take(const struct lmo_commit_item *item)
{
    if (taken.count == ROWS_MAX) {
        return;
    }
    const struct lmo_migration *m = item->record;
    struct row *r = &taken.rows[taken.count++];
    struct lmo_err err = {0};
    *r = (struct row){.id = copy(m->id),
                      .vm = copy(m->vm.uuid),
                      .name = copy(m->vm.name),
                      .source = copy(m->source),
                      .destination = copy(m->destination),
                      .phase = copy(lmo_phase_text(m->phase)),
                      .xml = item->xml ? copy(item->xml) : NULL,
                      .insert = item->expected_version == 0,
                      .terminal = lmo_phase_is(m->phase, LMO_PHASE_TERMINAL),
                      .ends_well = m->phase == LMO_PHASE_COMPLETED,
                      .version = (int64_t)m->version,
                      .created_ms = m->created_ms,
                      .updated_ms = m->updated_ms,
                      .line_count = item->journal_count,
                      .lines = calloc(item->journal_count + 1, sizeof *r->lines)};
    check(lmo_record_encode(m, &r->text, &err), &err, "record");
    for (unsigned i = 0; i < item->journal_count; i++) {
        const struct lmo_journal_line *l = &item->journal[i];
        r->lines[i] = (struct line){(int64_t)LMO_JOURNAL_NUMBER(item->expected_version, i), l->at_ms, copy(l->phase),
                                    copy(l->what), copy(l->why)};
    }
    r->in_place = is_in_place(r);
}

/* ------------------------------------------------------------------ bare SQLite */

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL) != SQLITE_OK) {
        die("%s: %s", sql, sqlite3_errmsg(db));
    }
    return s;
}

static void done(sqlite3 *db, sqlite3_stmt *s)
{
    if (sqlite3_step(s) != SQLITE_DONE) {
        die("bare SQLite: %s", sqlite3_errmsg(db));
    }
    sqlite3_reset(s);
}

static void text(sqlite3_stmt *s, int i, const char *t)
{
    sqlite3_bind_text(s, i, t, -1, SQLITE_STATIC);
}

enum { INSERT, UPDATE, LINE, XML, DROP_XML, IN_PLACE, STATEMENTS };

static void write_row(sqlite3 *db, sqlite3_stmt *const s[STATEMENTS], const struct row *r)
{
    if (r->insert) {
        const char *const texts[] = {r->id, r->vm, r->name, r->source, r->destination, r->phase};
        for (int i = 0; i < 6; i++) {
            text(s[INSERT], i + 1, texts[i]);
        }
        sqlite3_bind_int64(s[INSERT], 7, r->terminal);
        sqlite3_bind_int64(s[INSERT], 8, r->version);
        sqlite3_bind_int64(s[INSERT], 9, r->created_ms);
        sqlite3_bind_int64(s[INSERT], 10, r->updated_ms);
        text(s[INSERT], 11, r->text);
        done(db, s[INSERT]);
    } else if (r->in_place) {
        sqlite3_bind_int64(s[IN_PLACE], 1, r->version);
        sqlite3_bind_int64(s[IN_PLACE], 2, r->updated_ms);
        text(s[IN_PLACE], 3, r->text);
        text(s[IN_PLACE], 4, r->id);
        done(db, s[IN_PLACE]);
    } else {
        const char *const texts[] = {r->name, r->source, r->destination, r->phase};
        for (int i = 0; i < 4; i++) {
            text(s[UPDATE], i + 1, texts[i]);
        }
        sqlite3_bind_int64(s[UPDATE], 5, r->terminal);
        sqlite3_bind_int64(s[UPDATE], 6, r->version);
        sqlite3_bind_int64(s[UPDATE], 7, r->updated_ms);
        text(s[UPDATE], 8, r->text);
        text(s[UPDATE], 9, r->id);
        done(db, s[UPDATE]);
    }
    for (unsigned i = 0; i < r->line_count; i++) {
        const struct line *l = &r->lines[i];
        text(s[LINE], 1, r->id);
        sqlite3_bind_int64(s[LINE], 2, l->n);
        sqlite3_bind_int64(s[LINE], 3, l->at_ms);
        text(s[LINE], 4, l->phase);
        text(s[LINE], 5, l->what);
        text(s[LINE], 6, l->why);
        done(db, s[LINE]);
    }
    if (r->ends_well) {
        text(s[DROP_XML], 1, r->id);
        done(db, s[DROP_XML]);
    } else if (r->xml) {
        text(s[XML], 1, r->id);
        text(s[XML], 2, r->xml);
        done(db, s[XML]);
    }
}

static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * LMO_NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Rows per second, and the thread's processor time of each. */
static double run_bare(const char *parent, const char *name, double *ret_cpu_us)
{
    char dir[LMO_PATH_MAX], path[LMO_PATH_MAX + 16];
    struct lmo_err err = {0};
    struct lmo_store *store;
    sqlite3 *db;
    make_dir(parent, name, dir);
    check(lmo_store_sqlite_open(dir, &store, &err), &err, "store"); /* makes the schema */
    store->ops->close(store);
    snprintf(path, sizeof path, "%s/lmod.db", dir);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
        sqlite3_exec(db, "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA cache_size=-" LMO_SQL_CACHE_KIB, NULL, NULL, NULL) != SQLITE_OK) {
        die("bare SQLite: %s", sqlite3_errmsg(db));
    }
    sqlite3_stmt *s[STATEMENTS] = {
        prepare(db, "INSERT INTO migration (id, vm_uuid, vm_name, source, destination, phase, terminal, version,"
                    " created_ms, updated_ms, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
        prepare(db, "UPDATE migration SET vm_name = ?, source = ?, destination = ?, phase = ?, terminal = ?, version = ?,"
                    " updated_ms = ?, record = ? WHERE id = ?"),
        prepare(db, "INSERT INTO journal (migration, n, at_ms, phase, what, why) VALUES (?, ?, ?, ?, ?, ?)"),
        prepare(db, "INSERT INTO migration_xml (migration, xml) VALUES (?, ?)"
                    " ON CONFLICT (migration) DO UPDATE SET xml = excluded.xml"),
        prepare(db, "DELETE FROM migration_xml WHERE migration = ?"),
        prepare(db, "UPDATE migration SET version = ?, updated_ms = ?, record = ? WHERE id = ?"),
    };
    sqlite3_stmt *begin = prepare(db, "BEGIN IMMEDIATE"), *commit = prepare(db, "COMMIT");
    uint64_t began = lmo_now_ns(), cpu = cpu_ns();
    for (unsigned i = 0; i < taken.count; i += GROUP) {
        done(db, begin);
        for (unsigned k = i; k < taken.count && k < i + GROUP; k++) {
            write_row(db, s, &taken.rows[k]);
        }
        done(db, commit);
    }
    double rate = (double)taken.count / ((double)(lmo_now_ns() - began) / 1e9);
    *ret_cpu_us = (double)(cpu_ns() - cpu) / 1e3 / taken.count;
    for (unsigned i = 0; i < STATEMENTS; i++) {
        sqlite3_finalize(s[i]);
    }
    sqlite3_finalize(begin);
    sqlite3_finalize(commit);
    sqlite3_close(db);
    return rate;
}

/* ------------------------------------------------------------------ the engine */

static struct {
    struct lmo_loop *loop;
    struct lmo_engine *engine;
    struct lmo_store *store;
    struct lmo_permit_key *key;
    struct memory_workers workers;
    struct lmo_store_ops counting; /* the store's, with a commit that counts */
    int (*commit)(struct lmo_store *s, const struct lmo_commit_item *items, unsigned count,
                  const struct lmo_commit_cursor *cursors, unsigned cursor_count, struct lmo_err *err);
    bool taking, ending;
    unsigned next_guest;
    uint64_t transitions, commits, ended;
} run;

static void on_reply(void *arg, const struct lmo_engine_reply *reply)
{
    (void)arg;
    if (reply->code < 0 && !run.ending) {
        die("a request was refused: %s", reply->text);
    }
    json_decref(reply->body);
}

static void start_one(void)
{
    struct lmo_migrate_request req = {0};
    unsigned n = run.next_guest++;
    memory_guest_uuid(n, req.vm);
    snprintf(req.destination, sizeof req.destination, "h%u", (n + 1) % (HOSTS - 1) + 1);
    LMO_COPY(req.principal, "operator:bench");
    check(lmo_engine_migrate(run.engine, &req, on_reply, NULL), NULL, "request");
}

static int counting_commit(struct lmo_store *s, const struct lmo_commit_item *items, unsigned count,
                           const struct lmo_commit_cursor *cursors, unsigned cursor_count, struct lmo_err *err)
{
    int r = run.commit(s, items, count, cursors, cursor_count, err);
    for (unsigned i = 0; r == 0 && i < count; i++) {
        if (run.taking) {
            take(&items[i]);
        }
        if (lmo_phase_is(items[i].record->phase, LMO_PHASE_TERMINAL)) {
            run.ended++;
            start_one();
        }
    }
    if (r == 0) {
        memory_workers_committed(&run.workers, items, count);
    }
    run.transitions += r == 0 ? count : 0;
    run.commits += r == 0;
    return r;
}

static void stop(void *arg)
{
    lmo_loop_stop(arg);
}

static void run_for(uint64_t ms)
{
    uint64_t timer;
    check(lmo_loop_timer(run.loop, ms, stop, run.loop, &timer), NULL, "timer");
    check(lmo_loop_run(run.loop), NULL, "loop");
}

static void open_engine(const char *parent, const char *name, unsigned answer_us, uint64_t seed)
{
    char dir[LMO_PATH_MAX];
    struct lmo_err err = {0};
    make_dir(parent, name, dir);
    check(lmo_loop_new(65536, &run.loop, &err), &err, "loop");
    check(lmo_store_sqlite_open(dir, &run.store, &err), &err, "store");
    check(lmo_store_sqlite_tidy_apart(run.store, &err), &err, "store"); /* as lmod does */
    memory_workers_init(&run.workers, run.loop, HOSTS);
    run.workers.answer_us = answer_us;
    run.workers.random = seed;
    run.workers.xml_bytes = XML_BYTES;
    memory_hosts(&run.workers, run.store);
    run.counting = *run.store->ops;
    run.commit = run.counting.commit;
    run.counting.commit = counting_commit;
    run.store->ops = &run.counting;
    struct lmo_engine_config cfg = {.loop = run.loop,
                                    .store = run.store,
                                    .permit_key = run.key,
                                    .limits = &bench_limits};
    check(lmo_engine_new(&cfg, &run.engine, &err), &err, "engine");
    check(lmo_engine_start(run.engine, &run.workers.base, &err), &err, "engine");
    memory_workers_up(&run.workers, lmo_engine_callbacks(run.engine));
    run.next_guest = 0;
    run.ending = false;
    run.transitions = run.commits = run.ended = 0;
}

static void close_engine(void)
{
    run.ending = true;
    lmo_engine_stop(run.engine);
    run.engine = lmo_engine_free(run.engine);
    run.store->ops->close(run.store);
    run.loop = lmo_loop_free(run.loop); /* calls that were to be answered end with it */
    memory_workers_done(&run.workers);
}

static void fill(unsigned in_flight)
{
    for (unsigned i = 0; i < in_flight; i++) {
        start_one();
        if (i % 512 == 511) {
            run_for(1);
        }
    }
}

struct result {
    double rate, group, cpu_us;
};

/* Workers answer in the next turn. */
static struct result run_engine(const char *parent, const char *name, unsigned in_flight, uint64_t ms)
{
    open_engine(parent, name, 0, 0);
    fill(in_flight);
    run_for(ms / 4); /* phases drift apart */
    uint64_t transitions = run.transitions, commits = run.commits, began = lmo_now_ns(), cpu = cpu_ns();
    run_for(ms);
    double s = (double)(lmo_now_ns() - began) / 1e9, n = (double)(run.transitions - transitions);
    struct result r = {.rate = n / s,
                       .group = n / (double)(run.commits - commits),
                       .cpu_us = (double)(cpu_ns() - cpu) / 1e3 / n};
    close_engine();
    return r;
}

/* ------------------------------------------------------------------ the figures */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, unsigned n)
{
    qsort(v, n, sizeof *v, by_value);
    return v[n / 2];
}

/* One store, SLICES times in turns: steps, then the disk alone. */
static void run_steps(const char *parent, unsigned round, struct samples *steps, struct samples *syncs)
{
    char name[32];
    struct samples warm = {0};
    snprintf(name, sizeof name, "steps-%u", round);
    open_engine(parent, name, WORK_US, SEED + round);
    int fd = fdatasync_file(parent);
    fill(GROUP);
    run_for(RUN_MS / 4);
    for (unsigned i = 0; i < SLICES; i++) {
        measure_fdatasync(fd, WARM_SYNCS, &warm);
        measure_fdatasync(fd, SYNCS, syncs);
        run_for(SETTLE_MS);
        run.workers.steps = steps;
        run_for(SLICE_MS);
        run.workers.steps = NULL;
    }
    if (run.workers.unsettled > 0) {
        die("%llu answers changed nothing: what a step's time is, is not known",
            (unsigned long long)run.workers.unsettled);
    }
    samples_done(&warm);
    close(fd);
    close_engine();
}

static void measure_steps(const char *dir, json_t *out, json_t *raw)
{
    static const struct {
        const char *step, *sync;
        double percent;
    } figures[] = {{"step_p50_ms", "fdatasync_p50_ms", 50}, {"step_p99_ms", "fdatasync_p99_ms", 99}};
    struct samples steps[ROUNDS] = {0}, syncs[ROUNDS] = {0};
    double ratios[ROUNDS], step_ms[ROUNDS], sync_ms[ROUNDS], per_s[ROUNDS];
    for (unsigned i = 0; i < ROUNDS; i++) {
        run_steps(dir, i, &steps[i], &syncs[i]);
        per_s[i] = (double)steps[i].count * 1000.0 / (SLICES * SLICE_MS);
    }
    for (unsigned k = 0; k < 2; k++) {
        for (unsigned i = 0; i < ROUNDS; i++) {
            step_ms[i] = (double)samples_percentile(&steps[i], figures[k].percent) / 1e6;
            sync_ms[i] = (double)samples_percentile(&syncs[i], figures[k].percent) / 1e6;
            ratios[i] = step_ms[i] / sync_ms[i];
        }
        json_object_set_new(raw, figures[k].step, json_real(rounded(median(step_ms, ROUNDS), 3)));
        json_object_set_new(raw, figures[k].sync, json_real(rounded(median(sync_ms, ROUNDS), 3)));
    }
    json_object_set_new(out, "step_p99_over_fdatasync_p99", json_real(rounded(median(ratios, ROUNDS), 2)));
    json_object_set_new(raw, "steps_per_s", json_real(rounded(median(per_s, ROUNDS), 0)));
    for (unsigned i = 0; i < ROUNDS; i++) {
        samples_done(&steps[i]);
        samples_done(&syncs[i]);
    }
}

/* Of a stored record. */
static double mean_bytes(void)
{
    double sum = 0;
    for (unsigned i = 0; i < taken.count; i++) {
        sum += (double)strlen(taken.rows[i].text);
    }
    return sum / taken.count;
}

static void put(json_t *to, const char *name, unsigned in_flight, double *values, int digits)
{
    char key[64];
    snprintf(key, sizeof key, "%s_%u", name, in_flight);
    json_object_set_new(to, key, json_real(rounded(median(values, ROUNDS), digits)));
}

static void measure_rate(const char *dir, unsigned in_flight, json_t *out, json_t *raw)
{
    double bare[ROUNDS], bare_cpu[ROUNDS], rate[ROUNDS], ratio[ROUNDS], group[ROUNDS], cpu[ROUNDS];
    char name[64];
    snprintf(name, sizeof name, "take-%u", in_flight);
    run.taking = true;
    (void)run_engine(dir, name, in_flight, RUN_MS);
    run.taking = false;
    if (taken.count < 4 * in_flight || taken.count < 4000) {
        die("only %u rows were taken", taken.count);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        snprintf(name, sizeof name, "bare-%u-%u", in_flight, i);
        bare[i] = run_bare(dir, name, &bare_cpu[i]);
        snprintf(name, sizeof name, "engine-%u-%u", in_flight, i);
        struct result r = run_engine(dir, name, in_flight, RUN_MS);
        rate[i] = r.rate;
        group[i] = r.group;
        cpu[i] = r.cpu_us;
        ratio[i] = r.rate / bare[i];
    }
    double bytes[ROUNDS] = {mean_bytes(), mean_bytes(), mean_bytes()};
    put(out, "ratio", in_flight, ratio, 3);
    put(raw, "bare_rows_per_s", in_flight, bare, 0);
    put(raw, "bare_cpu_us", in_flight, bare_cpu, 1);
    put(raw, "per_s", in_flight, rate, 0);
    put(raw, "cpu_us", in_flight, cpu, 1);
    put(raw, "records_per_commit", in_flight, group, 1);
    put(raw, "record_bytes", in_flight, bytes, 0);
    forget_rows();
}

int main(int argc, char **argv)
{
    char dir[LMO_PATH_MAX], pki[LMO_PATH_MAX], key[LMO_PATH_MAX + 16];
    struct lmo_err err = {0};
    bool all_figures = argc == 2, only_engine = argc == 5 && strcmp(argv[2], "engine") == 0;
    if (!all_figures && !only_engine && (argc != 3 || strcmp(argv[2], "steps") != 0)) {
        die("usage: transitions DIR [steps | engine N MS]");
    }
    lmo_log_set_level(LMO_LOG_ERROR);
    make_dir(argv[1], "transitions", dir);
    snprintf(pki, sizeof pki, "%.900s/pki", dir);
    check(lmo_pki_init(pki, &err), &err, "certificates");
    snprintf(key, sizeof key, "%s/permit.key", pki);
    check(lmo_permit_key_load(key, &run.key, &err), &err, "permit key");
    if (only_engine) {
        struct result r = run_engine(dir, "engine", (unsigned)strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
        printf("%.0f per s, %.1f us each, %.1f per commit\n", r.rate, r.cpu_us, r.group);
        lmo_permit_key_free(run.key);
        return 0;
    }
    json_t *out = json_object(), *raw = json_object(), *all = json_object();
    if (all_figures) {
        measure_rate(dir, GROUP, out, raw);
        measure_rate(dir, 1000, out, raw);
    }
    measure_steps(dir, out, raw);
    json_object_set_new(all, "transitions", out);
    json_object_set_new(all, "raw", raw);
    json_dumpf(all, stdout, JSON_INDENT(2));
    (void)putchar('\n');
    json_decref(all);
    lmo_permit_key_free(run.key);
    return 0;
}
