/* test_engine_many.c - more open migrations than one commit holds: records packed between turns, batches, cursors. */
#include "base/id.h"
#include "base/str.h"
#include "engine/engine.h"
#include "engine/pack.h"
#include "engine/record_codec.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT 1000
#define BATCH 256 /* LMO_BATCH_MAX */

static struct {
    struct lmo_loop *loop;
    struct lmo_engine *engine;
    int commit_code;
    unsigned commits, records, largest, ops, events_stepped;
    unsigned records_at_cursor; /* how many of the events' records were stored when the cursor was */
    uint64_t versions[COUNT];   /* as stored */
    uint64_t cursor, acknowledged;
    bool expect_events;
} w;

static void id_of(unsigned n, char id[LMO_ID_MAX])
{
    uint8_t random[10] = {(uint8_t)(n >> 8), (uint8_t)n};
    lmo_ulid_format(UINT64_C(1763643055000), random, id);
}

static unsigned number_of(const struct lmo_migration *m)
{
    return (unsigned)strtoul(m->vm.uuid + 24, NULL, 10);
}

/* In pre-copy, behind its open gate: nothing is under way but the job. */
static struct lmo_migration sample(unsigned n)
{
    struct lmo_migration m;
    memset(&m, 0, sizeof m);
    id_of(n, m.id);
    snprintf(m.vm.uuid, sizeof m.vm.uuid, "00000000-0000-4000-8000-%012u", n);
    snprintf(m.vm.name, sizeof m.vm.name, "guest-%u", n);
    LMO_COPY(m.source, "hv1");
    LMO_COPY(m.destination, "hv2");
    m.epoch = 16;
    m.version = 1;
    m.phase = LMO_PHASE_PRECOPY;
    m.next_ordinal = 9;
    m.switchover_ready = m.group_open = true;
    m.group = 2;
    m.dispatched = UINT64_C(1) << LMO_OP_PREPARE | UINT64_C(1) << LMO_OP_JOB_START | UINT64_C(1) << LMO_OP_OPEN_GATE;
    m.policy.max_downtime_ms = 300;
    m.policy.convergence_timeout_ms = 600000;
    m.vm.volume_count = 2;
    LMO_COPY(m.vm.volumes[1].volume, "vol2");
    m.task_count = 1;
    m.tasks[0] = (struct lmo_task){.kind = LMO_OP_OPEN_GATE, .state = LMO_TASK_DONE, .group = 2, .ordinal = 8};
    m.phase_time_count = 1;
    m.phase_times[0].phase = LMO_PHASE_PRECOPY;
    return m;
}

/* ------------------------------------------------------------------ the world */

static int many_commit(struct lmo_store *s, const struct lmo_commit_item *items, unsigned count,
                       const struct lmo_commit_cursor *cursors, unsigned cursor_count, struct lmo_err *err)
{
    (void)s;
    if (w.commit_code < 0) {
        return lmo_fail(err, w.commit_code, "the disk is full");
    }
    w.commits++;
    w.records += count;
    w.largest = count > w.largest ? count : w.largest;
    for (unsigned i = 0; i < count; i++) {
        unsigned n = number_of(items[i].record);
        ck_assert_uint_lt(n, COUNT);
        ck_assert_uint_eq(items[i].expected_version, w.versions[n]);
        ck_assert_uint_gt(items[i].record->version, w.versions[n]);
        w.versions[n] = items[i].record->version;
        w.events_stepped += items[i].record->cutover.suspended_us > 0;
    }
    for (unsigned i = 0; i < cursor_count; i++) {
        ck_assert_str_eq(cursors[i].host, "hv1");
        w.cursor = cursors[i].cursor;
        w.records_at_cursor = w.events_stepped;
    }
    return 0;
}

static int many_load_open(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_migration *m, const char *xml),
                          void *arg, struct lmo_err *err)
{
    (void)s, (void)err;
    for (unsigned n = 0; n < COUNT; n++) {
        struct lmo_migration m = sample(n);
        w.versions[n] = m.version;
        int r = cb(arg, &m, "<domain/>");
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int many_host_list(struct lmo_store *s, int (*cb)(void *arg, const struct lmo_host_row *h), void *arg,
                          struct lmo_err *err)
{
    (void)s, (void)err;
    static const char *const names[] = {"hv1", "hv2"};
    int r = 0;
    for (unsigned i = 0; i < 2 && r == 0; i++) {
        struct lmo_host_row row = {0};
        LMO_COPY(row.name, names[i]);
        LMO_COPY(row.url, "https://127.0.0.1:1");
        r = cb(arg, &row);
    }
    return r;
}

static int many_host_add(struct lmo_workers *x, const char *name, const char *url, uint64_t cursor, struct lmo_err *err)
{
    (void)x, (void)name, (void)url, (void)cursor, (void)err;
    return 0;
}

static void many_acknowledge(struct lmo_workers *x, const char *host, uint64_t cursor)
{
    (void)x, (void)host;
    ck_assert_uint_le(cursor, w.cursor); /* E2 */
    w.acknowledged = cursor;
}

static int many_op(struct lmo_workers *x, const char *host, const struct lmo_op_request *req, uint32_t timeout_ms,
                   lmo_op_done_fn *done, void *arg, struct lmo_err *err)
{
    (void)x, (void)host, (void)req, (void)timeout_ms, (void)done;
    w.ops++;
    free(arg); /* the engine's; it is not answered any more */
    (void)err;
    return 0;
}

static const struct lmo_store_ops store_ops = {
    .commit = many_commit, .load_open = many_load_open, .host_list = many_host_list};
static const struct lmo_workers_ops workers_ops = {
    .host_add = many_host_add, .acknowledge = many_acknowledge, .op = many_op};
static struct lmo_store store = {.ops = &store_ops};
static struct lmo_workers workers = {.ops = &workers_ops};

static void set_up(void)
{
    struct lmo_err err = {0};
    memset(&w, 0, sizeof w);
    ck_assert(lmo_loop_new(64, &w.loop, &err) == 0);
    struct lmo_engine_config cfg = {.loop = w.loop, .store = &store};
    ck_assert_msg(lmo_engine_new(&cfg, &w.engine, &err) == 0, "%s", err.text);
}

static void tear_down(void)
{
    w.engine = lmo_engine_free(w.engine);
    w.loop = lmo_loop_free(w.loop);
}

static void stop(void *arg)
{
    lmo_loop_stop(arg);
}

static void turns(uint64_t ms)
{
    uint64_t timer;
    ck_assert(lmo_loop_timer(w.loop, ms, stop, w.loop, &timer) == 0);
    ck_assert(lmo_loop_run(w.loop) == 0);
}

static void start(void)
{
    struct lmo_err err = {0};
    ck_assert_msg(lmo_engine_start(w.engine, &workers, &err) == 0, "%s", err.text);
}

static void suspend_all(void)
{
    static struct lmo_worker_event events[COUNT];
    const struct lmo_workers_callbacks *cb = lmo_engine_callbacks(w.engine);
    for (unsigned n = 0; n < COUNT; n++) {
        events[n] = (struct lmo_worker_event){.seq = n + 1, .kind = LMO_WEV_SUSPENDED, .at_us = 5};
        id_of(n, events[n].migration);
    }
    cb->events(cb->arg, "hv1", events, COUNT, COUNT);
}

/* What means something of a record, with zeros elsewhere. */
static bool same(const struct lmo_migration *a, const struct lmo_migration *b)
{
    static struct lmo_migration x, y;
    memset(&x, 0, sizeof x);
    memset(&y, 0, sizeof y);
    lmo_migration_copy(&x, a);
    lmo_migration_copy(&y, b);
    return memcmp(&x, &y, sizeof x) == 0;
}

/* ------------------------------------------------------------------ tests */

START_TEST(packed_record__is_the_same_record_in_a_tenth_of_the_room)
{
    static struct lmo_migration m, back;
    m = sample(1);
    struct lmo_packed *p = lmo_record_pack(&m, NULL);
    ck_assert_ptr_nonnull(p);
    memset(&back, 0xa5, sizeof back);
    lmo_record_unpack(p, &back);
    ck_assert(same(&m, &back));
    ck_assert_uint_lt(lmo_packed_size(p), sizeof m / 10);
    free(p);
}
END_TEST

START_TEST(full_record__survives_packing_into_the_memory_of_a_small_one_and_back)
{
    static struct lmo_migration small, full, back;
    small = sample(1);
    memset(&full, 0x5a, sizeof full);
    full.task_count = LMO_TASKS_MAX;
    full.vm.volume_count = LMO_VOLUMES_MAX;
    full.vm.port_count = LMO_PORTS_MAX;
    struct lmo_packed *p = lmo_record_pack(&small, NULL);
    p = lmo_record_pack(&full, p);
    ck_assert_ptr_nonnull(p);
    lmo_record_unpack(p, &back);
    ck_assert(memcmp(&full, &back, sizeof full) == 0);
    p = lmo_record_pack(&small, p);
    ck_assert_uint_lt(lmo_packed_size(p), sizeof small / 10); /* a record that shrank gives its memory back */
    lmo_record_unpack(p, &back);
    ck_assert(same(&small, &back));
    free(p);
}
END_TEST

START_TEST(members_beyond_an_arrays_count__take_no_room)
{
    static struct lmo_migration m, back;
    m = sample(1);
    struct lmo_packed *clean = lmo_record_pack(&m, NULL);
    memset(&m.tasks[1], 0x77, sizeof m.tasks - sizeof m.tasks[0]);
    memset(&m.vm.volumes[2], 0x77, sizeof m.vm.volumes - 2 * sizeof m.vm.volumes[0]);
    memset(&m.vm.ports[0], 0x77, sizeof m.vm.ports);
    struct lmo_packed *p = lmo_record_pack(&m, NULL);
    lmo_record_unpack(p, &back);
    ck_assert(same(&m, &back));
    ck_assert_uint_eq(lmo_packed_size(p), lmo_packed_size(clean));
    free(p);
    free(clean);
}
END_TEST

START_TEST(every_count_of_every_array__comes_back_as_it_was)
{
    static struct lmo_migration m, back;
    for (unsigned volumes = 0; volumes <= LMO_VOLUMES_MAX; volumes++) {
        for (unsigned ports = 0; ports <= LMO_PORTS_MAX; ports++) {
            memset(&m, 0x33, sizeof m);
            m.vm.volume_count = volumes;
            m.vm.port_count = ports;
            m.task_count = (volumes * 9 + ports) % (LMO_TASKS_MAX + 1);
            memset(&back, 0xcc, sizeof back);
            struct lmo_packed *p = lmo_record_pack(&m, NULL);
            lmo_record_unpack(p, &back);
            ck_assert(same(&m, &back));
            free(p);
        }
    }
}
END_TEST

START_TEST(recovery_of_many__commits_all_of_them_in_bounded_batches)
{
    start();
    turns(300);
    ck_assert_uint_eq(w.records, COUNT);
    ck_assert_uint_le(w.largest, BATCH);
    for (unsigned n = 0; n < COUNT; n++) {
        ck_assert_uint_eq(w.versions[n], 2);
    }
}
END_TEST

START_TEST(events_of_many__move_the_cursor_only_with_the_last_of_their_records)
{
    start();
    turns(300);
    suspend_all();
    ck_assert_uint_eq(w.cursor, 0);
    turns(300);
    ck_assert_uint_eq(w.cursor, COUNT);
    ck_assert_uint_eq(w.acknowledged, COUNT);
    ck_assert_uint_eq(w.records_at_cursor, COUNT);
    ck_assert_uint_le(w.largest, BATCH);
}
END_TEST

START_TEST(store_that_cannot_commit__loses_nothing_of_many_and_goes_on_where_it_stood)
{
    start();
    w.commit_code = LMO_E_NO_SPACE;
    turns(100);
    suspend_all(); /* on top of the recovery that is not stored yet */
    turns(100);
    ck_assert_uint_eq(w.records, 0);
    ck_assert_uint_eq(w.acknowledged, 0);
    w.commit_code = 0;
    turns(1500);
    ck_assert_uint_eq(w.records, COUNT); /* both steps of each in one */
    ck_assert_uint_eq(w.records_at_cursor, COUNT);
    ck_assert_uint_eq(w.acknowledged, COUNT);
    for (unsigned n = 0; n < COUNT; n++) {
        ck_assert_uint_eq(w.versions[n], 3);
    }
}
END_TEST

Suite *engine_many_suite(void);
Suite *engine_many_suite(void)
{
    Suite *s = suite_create("engine_many");
    TCase *pack = tcase_create("pack");
    tcase_add_test(pack, packed_record__is_the_same_record_in_a_tenth_of_the_room);
    tcase_add_test(pack, full_record__survives_packing_into_the_memory_of_a_small_one_and_back);
    tcase_add_test(pack, members_beyond_an_arrays_count__take_no_room);
    tcase_add_test(pack, every_count_of_every_array__comes_back_as_it_was);
    suite_add_tcase(s, pack);
    TCase *many = tcase_create("many");
    tcase_add_checked_fixture(many, set_up, tear_down);
    tcase_add_test(many, recovery_of_many__commits_all_of_them_in_bounded_batches);
    tcase_add_test(many, events_of_many__move_the_cursor_only_with_the_last_of_their_records);
    tcase_add_test(many, store_that_cannot_commit__loses_nothing_of_many_and_goes_on_where_it_stood);
    suite_add_tcase(s, many);
    return s;
}
