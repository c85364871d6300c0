/* test_store.c - the record codec and the store on SQLite. */
#include "base/cleanup.h"
#include "base/id.h"
#include "base/json.h"
#include "engine/ports.h"
#include "engine/record_codec.h"
#include "members.h"
#include "sql/sql.h"

#include <check.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char dir[] = "/tmp/lmo-store-XXXXXX";
static struct lmo_store *store;

static void set_up(void)
{
    struct lmo_err err = {0};
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_msg(lmo_store_sqlite_open(dir, &store, &err) == 0, "%s", err.text);
}

static void tear_down(void)
{
    if (store) {
        store->ops->close(store);
        store = NULL;
    }
    static const char *const files[] = {"lmod.db", "lmod.db-wal", "lmod.db-shm", "lmod.lock"};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[64];
        snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
    strcpy(dir, "/tmp/lmo-store-XXXXXX");
}

static void reopen(void)
{
    struct lmo_err err = {0};
    store->ops->close(store);
    store = NULL;
    ck_assert_msg(lmo_store_sqlite_open(dir, &store, &err) == 0, "%s", err.text);
}

/* Number n of this test's migrations, of guest g. */
static struct lmo_migration sample(unsigned n, unsigned g)
{
    struct lmo_migration m;
    memset(&m, 0, sizeof(m));
    uint8_t random[10] = {(uint8_t)n};
    lmo_ulid_format(UINT64_C(1763643055000) + n, random, m.id);
    snprintf(m.vm.uuid, sizeof(m.vm.uuid), "00000000-0000-4000-8000-%012u", g);
    snprintf(m.vm.name, sizeof(m.vm.name), "guest-%u", g);
    strcpy(m.source, "hv1");
    strcpy(m.destination, "hv2");
    m.version = 1;
    m.epoch = 3;
    m.phase = LMO_PHASE_QUEUED;
    m.created_ms = m.updated_ms = INT64_C(1763643055000) + n;
    return m;
}

/* Everything set: the fullest record there can be. */
static void fill(struct lmo_migration *m)
{
    m->phase = LMO_PHASE_ATTENTION;
    m->failed_in = LMO_PHASE_CUTOVER;
    m->reason_code = LMO_E_UNKNOWN;
    strcpy(m->reason, "nobody could be asked");
    strcpy(m->waiting_for, "a person");
    m->waiting_since_ms = 5;
    m->downtime_ms = 120;
    m->downtime_iteration = 4;
    m->cancel_requested = m->switchover_ready = m->job_ended = m->job_call_ok = m->destination_discarded = true;
    m->phase_started_ms = 6;
    m->phase_started_boot_us = 7;
    m->deadline_ms = 8;
    m->policy = (struct lmo_policy){9, 10, 11, 12, true, true, 13, 14, LMO_ON_TIMEOUT_FORCE, 150, LMO_PREDICTION_REFUSE};
    m->held_since_ms = 16;
    m->held_until_ms = 17;
    struct lmo_convergence *c = &m->convergence;
    *c = (struct lmo_convergence){.forecast = {LMO_OUTLOOK_NEVER, 1, 2, 3, 4, "will not converge"},
                                  .stage = LMO_CONV_FORCED,
                                  .began_ms = 18,
                                  .stage_ms = 19,
                                  .disk = {1, true, 2, 3, true},
                                  .memory = {4, true, 5, 6, true},
                                  .grace = {7, true, 8, 9, true},
                                  .samples = 20,
                                  .pass_bytes = 21,
                                  .pass_count = LMO_CONV_WINDOW + 1,
                                  .unimproved = 22,
                                  .stalled = true,
                                  .reorder = true,
                                  .eta = {LMO_ETA_FORCED, 23, 24, 25, 26}};
    for (unsigned i = 0; i < c->pass_count; i++) {
        c->passes[i] = (struct lmo_pass){i + 1, 1 + (UINT64_C(1) << i)};
    }
    m->vm.dirty_bytes_per_s = 27;
    m->vm.dirty_age_ms = 28;
    m->vm.state = LMO_RUN_RUNNING;
    m->vm.persistent = m->vm.autostart = true;
    strcpy(m->vm.machine, "pc-q35-7.2");
    strcpy(m->vm.blocker, "none that is known");
    m->vm.memory_bytes = 1U << 30;
    m->vm.vcpus = 4;
    m->vm.volume_count = LMO_VOLUMES_MAX;
    m->vm.port_count = LMO_PORTS_MAX;
    for (unsigned i = 0; i < LMO_VOLUMES_MAX; i++) {
        memset(m->vm.volumes[i].volume, 'v', LMO_NAME_MAX - 1);
        snprintf(m->vm.volumes[i].target, sizeof(m->vm.volumes[i].target), "vd%c", 'a' + (int)i);
        memset(m->vm.volumes[i].export_name, 'e', LMO_EXPORT_MAX - 1);
        memset(m->vm.volumes[i].export_destination, 'f', LMO_EXPORT_MAX - 1);
        strcpy(m->vm.volumes[i].driver, "nbd");
        strcpy(m->vm.volumes[i].service, "10.0.0.9:10809");
        strcpy(m->vm.volumes[i].worker, "storage");
        strcpy(m->vm.volumes[i].worker_url, "https://10.0.0.9:7443");
        m->vm.volumes[i].size_bytes = 1;
        m->vm.volumes[i].read_only = true;
    }
    for (unsigned i = 0; i < LMO_PORTS_MAX; i++) {
        memset(m->vm.ports[i].id, 'p', LMO_NAME_MAX - 1);
        strcpy(m->vm.ports[i].mac, "52:54:00:00:00:01");
        strcpy(m->vm.ports[i].bridge, "br-int");
        strcpy(m->vm.ports[i].device, "vnet3");
        strcpy(m->vm.ports[i].fabric, "ovn");
        strcpy(m->vm.ports[i].worker, "control");
    }
    strcpy(m->peer_uri, "qemu+tls://10.0.0.2/system");
    strcpy(m->migration_uri, "tcp://10.0.0.2");
    m->share_bytes_per_s = m->share_held_bytes_per_s = 1U << 20;
    m->gate_open = true;
    m->vm.huge_page_bytes = 2U << 20;
    strcpy(m->source_url, "https://10.0.0.1:8443");
    m->source_clock = (struct lmo_clock_sample){.stamp_us = 1790000000123456, .from_ms = 1790000000100, .to_ms = 1790000000200};
    strcpy(m->destination_url, "https://10.0.0.2:8443");
    m->next_ordinal = 65;
    m->group = 3;
    m->group_open = true;
    for (int kind = LMO_OP_NONE + 1; kind < LMO_OP_COUNT; kind += 2) {
        m->dispatched |= UINT64_C(1) << kind;
    }
    m->dispatched |= UINT64_C(1) << (LMO_OP_COUNT - 1);
    m->resource_count = LMO_RESOURCES_MAX;
    for (unsigned i = 0; i < LMO_RESOURCES_MAX; i++) {
        m->resources[i] = (struct lmo_resource){.kind = (enum lmo_resource_kind)(1 + i), .intended = 1, .made = 1, .undone = 1};
    }
    m->task_count = LMO_TASKS_MAX;
    for (unsigned i = 0; i < LMO_TASKS_MAX; i++) {
        struct lmo_task *t = &m->tasks[i];
        t->kind = (enum lmo_op_kind)(1 + i % (LMO_OP_COUNT - 1));
        t->state = (enum lmo_task_state)(i % 3);
        t->group = 255;
        t->index = 15;
        t->draining = true;
        t->attempts = 65535;
        t->ordinal = i + 1;
        t->epoch = 3;
        t->first_ms = 12;
        t->not_before_ms = 13;
        memset(t->last_error, 'x', sizeof(t->last_error) - 1);
    }
    m->job_call_ms = 14;
    m->progress = (struct lmo_progress){1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    m->percent = 100;
    m->cutover = (struct lmo_cutover){.suspended_us = 15,
                                      .loaded_us = 16,
                                      .frozen_us = 17,
                                      .fenced_us = 18,
                                      .resumed_us = 19,
                                      .loaded_to_resumed_us = 20,
                                      .freeze_us = 21,
                                      .fence_us = 22,
                                      .verify_us = 23,
                                      .freeze_answer = "frozen",
                                      .evidence = "e",
                                      .committed = true,
                                      .resumed = true,
                                      .defined = true};
    m->phase_time_count = LMO_PHASE_TIMES_MAX;
    for (unsigned i = 0; i < LMO_PHASE_TIMES_MAX; i++) {
        m->phase_times[i] = (struct lmo_phase_time){(enum lmo_phase)(i % LMO_PHASE_COUNT), 1, 2, 3};
    }
}

static int put(const struct lmo_migration *m, uint64_t expected, struct lmo_err *err)
{
    struct lmo_commit_item item = {.record = m, .expected_version = expected};
    return store->ops->commit(store, &item, 1, NULL, 0, err);
}

static void must_put(const struct lmo_migration *m, uint64_t expected)
{
    struct lmo_err err = {0};
    ck_assert_msg(put(m, expected, &err) == 0, "%s", err.text);
}

/* ------------------------------------------------------------------ codec */

START_TEST(the_fullest_record__comes_back_byte_for_byte)
{
    static struct lmo_migration in, out;
    struct lmo_err err = {0};
    LMO_AUTO_FREE char *text = NULL;
    in = sample(1, 1);
    fill(&in);
    ck_assert_msg(lmo_record_encode(&in, &text, &err) == 0, "%s", err.text);
    ck_assert_msg(lmo_record_decode(text, strlen(text), &out, &err) == 0, "%s", err.text);
    /* The padding inside tasks and phase times is not compared. */
    LMO_AUTO_FREE char *again = NULL;
    ck_assert_int_eq(lmo_record_encode(&out, &again, NULL), 0);
    ck_assert_str_eq(text, again);
    ck_assert_mem_eq(&in.vm, &out.vm, sizeof(in.vm));
    ck_assert_mem_eq(&in.tasks, &out.tasks, sizeof(in.tasks));
    ck_assert_mem_eq(&in.progress, &out.progress, sizeof(in.progress));
    ck_assert(in.dispatched == out.dispatched);
    ck_assert_uint_lt(strlen(text), LMO_RECORD_TEXT_MAX);
    ck_assert_ptr_null(strstr(text, "\"kind\":1")); /* words, not numbers */
}
END_TEST

START_TEST(every_member_of_the_record__is_in_the_stored_form)
{
    static struct lmo_migration in, out;
    LMO_AUTO_FREE char *text = NULL, *again = NULL;
    in = sample(1, 1);
    fill(&in);
    ck_assert_int_eq(lmo_record_encode(&in, &text, NULL), 0);
    ck_assert_int_eq(lmo_record_decode(text, strlen(text), &out, NULL), 0);
    ck_assert_int_eq(lmo_record_encode(&out, &again, NULL), 0);
    ck_assert_str_eq(text, again);
    LMO_AUTO_JSON json_t *root = json_loads(text, 0, NULL);
    const json_t *vm = json_object_get(root, "vm");
    members_all_in("lmo/core/migration.h", "lmo_migration", root, " task_count phase_time_count resource_count ");
    members_all_in("lmo/core/migration.h", "lmo_policy", json_object_get(root, "policy"), "");
    members_all_in("lmo/core/migration.h", "lmo_clock_sample", json_object_get(root, "source_clock"), "");
    const json_t *c = json_object_get(root, "convergence");
    members_all_in("lmo/core/convergence.h", "lmo_convergence", c, " pass_count ");
    members_all_in("lmo/core/convergence.h", "lmo_forecast", json_object_get(c, "forecast"), "");
    members_all_in("lmo/core/convergence.h", "lmo_budget", json_object_get(c, "memory"), "");
    ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(json_object_get(c, "passes"), 1), "rest_bytes")), 3);
    members_all_in("lmo/core/convergence.h", "lmo_eta", json_object_get(c, "eta"), "");
    members_all_in("lmo/core/migration.h", "lmo_cutover", json_object_get(root, "cutover"), "");
    members_all_in("lmo/core/migration.h", "lmo_task", json_array_get(json_object_get(root, "tasks"), 1), "");
    members_all_in("lmo/core/resource.h", "lmo_resource", json_array_get(json_object_get(root, "resources"), 0), "");
    members_all_in("lmo/core/migration.h", "lmo_phase_time", json_array_get(json_object_get(root, "phase_times"), 1),
                   "");
    members_all_in("lmo/base/types.h", "lmo_progress", json_object_get(root, "progress"), "");
    members_all_in("lmo/base/types.h", "lmo_vm_facts", vm, " volume_count port_count ");
    members_all_in("lmo/base/types.h", "lmo_volume", json_array_get(json_object_get(vm, "volumes"), 0), "");
    members_all_in("lmo/base/types.h", "lmo_port", json_array_get(json_object_get(vm, "ports"), 0), "");
}
END_TEST

START_TEST(structs_with_nothing_in_them__are_left_out_and_come_back_empty)
{
    static struct lmo_migration in, out;
    LMO_AUTO_FREE char *text = NULL;
    in = sample(1, 1);
    ck_assert_int_eq(lmo_record_encode(&in, &text, NULL), 0);
    ck_assert_ptr_null(strstr(text, "{}"));
    ck_assert_ptr_null(strstr(text, "convergence"));
    memset(&out, 'x', sizeof(out));
    ck_assert_int_eq(lmo_record_decode(text, strlen(text), &out, NULL), 0);
    ck_assert_mem_eq(&in.convergence, &out.convergence, sizeof(in.convergence));
    ck_assert_mem_eq(&in.policy, &out.policy, sizeof(in.policy));
    in.convergence.memory.bytes = 1; /* deep inside */
    free(LMO_TAKE(text));
    ck_assert_int_eq(lmo_record_encode(&in, &text, NULL), 0);
    ck_assert_ptr_nonnull(strstr(text, "\"convergence\":{\"memory\":{\"bytes\":1}}"));
}
END_TEST

/* A space is not the usual: such a text is read by way of a tree. */
static int decode_by_tree(const char *text, struct lmo_migration *ret, struct lmo_err *err)
{
    LMO_AUTO_FREE char *spaced = NULL;
    ck_assert_int_gt(asprintf(&spaced, " %s", text), 0);
    return lmo_record_decode(spaced, strlen(spaced), ret, err);
}

START_TEST(a_record_with_a_byte_changed__is_read_or_refused_as_by_way_of_a_tree)
{
    static struct lmo_migration in, fast, slow;
    LMO_AUTO_FREE char *text = NULL;
    in = sample(1, 1);
    in.vm.volume_count = in.task_count = in.resource_count = 1;
    strcpy(in.vm.volumes[0].target, "vda");
    in.tasks[0] = (struct lmo_task){.kind = LMO_OP_PREPARE, .state = LMO_TASK_SENT, .ordinal = 1, .epoch = 16};
    in.resources[0] = (struct lmo_resource){LMO_RES_EXPORT, 3, 1, 0};
    in.dispatched = UINT64_C(1) << LMO_OP_DESCRIBE | UINT64_C(1) << LMO_OP_PREPARE;
    in.phase_started_boot_us = INT64_MAX;
    ck_assert_int_eq(lmo_record_encode(&in, &text, NULL), 0);
    ck_assert_int_eq(lmo_record_decode(text, strlen(text), &fast, NULL), 0);
    ck_assert_int_eq(decode_by_tree(text, &slow, NULL), 0);
    ck_assert_mem_eq(&in, &fast, sizeof(in));
    ck_assert_mem_eq(&in, &slow, sizeof(in));
    static const char bytes[] = "\",:{}[]01-x \\\x1f\xc3";
    for (size_t at = 0; text[at]; at++) {
        for (size_t k = 0; bytes[k]; k++) {
            struct lmo_err fast_err = {0}, slow_err = {0};
            char kept = text[at];
            text[at] = bytes[k];
            int r = lmo_record_decode(text, strlen(text), &fast, &fast_err);
            ck_assert_msg(decode_by_tree(text, &slow, &slow_err) == r, "%s", text);
            if (r == 0) {
                ck_assert_mem_eq(&fast, &slow, sizeof(fast));
            }
            text[at] = kept;
        }
    }
}
END_TEST

static const struct {
    const char *from, *to, *text;
} corruptions[] = {
    {"\"phase\":\"attention\"", "\"phase\":\"flying\"", "stored record: phase: 'flying'"},
    {"\"percent\":100", "\"percent\":101", "stored record: percent: must be an integer from 0 to 100"},
    {"\"describe\"", "\"prescribe\"", "stored record: "},
    {"\"percent\":100", "\"per_cent\":100", "stored record: per_cent: is not known"},
    {"\"suspended_us\"", "\"suspended_uz\"", "stored record: cutover.suspended_uz: is not known"},
    {"{", "", "stored record: not JSON"},
};

START_TEST(a_stored_record_that_is_not_understood__is_corrupt_and_named)
{
    static struct lmo_migration in, out;
    LMO_AUTO_FREE char *text = NULL;
    struct lmo_err err = {0};
    in = sample(1, 1);
    fill(&in);
    ck_assert_int_eq(lmo_record_encode(&in, &text, NULL), 0);
    char *at = strstr(text, corruptions[_i].from);
    ck_assert_ptr_nonnull(at);
    LMO_AUTO_FREE char *changed = NULL;
    ck_assert_int_gt(asprintf(&changed, "%.*s%s%s", (int)(at - text), text, corruptions[_i].to,
                              at + strlen(corruptions[_i].from)),
                     0);
    ck_assert_int_eq(lmo_record_decode(changed, strlen(changed), &out, &err), LMO_E_CORRUPT);
    ck_assert_msg(strncmp(err.text, corruptions[_i].text, strlen(corruptions[_i].text)) == 0, "%s", err.text);
}
END_TEST

START_TEST(rest_form__shows_what_is_known_and_null_for_the_rest)
{
    static struct lmo_migration m;
    m = sample(1, 1);
    LMO_AUTO_JSON json_t *fresh = lmo_migration_to_rest(&m);
    ck_assert_ptr_nonnull(fresh);
    static const char *const nulls[] = {"outcome",     "reason",           "reason_code",
                                        "waiting_for", "waiting_since_ms", "migrate_call_ms"};
    for (size_t i = 0; i < sizeof(nulls) / sizeof(nulls[0]); i++) {
        ck_assert_msg(json_is_null(json_object_get(fresh, nulls[i])), "%s", nulls[i]);
    }
    ck_assert(json_is_null(json_object_get(json_object_get(fresh, "cutover"), "blackout_ms")));
    fill(&m);
    m.cutover.suspended_us = INT64_C(1763643055000000);
    m.cutover.resumed_us = INT64_C(1763643055103456);
    LMO_AUTO_JSON json_t *full = lmo_migration_to_rest(&m);
    ck_assert_str_eq(json_string_value(json_object_get(full, "outcome")), "attention");
    ck_assert_str_eq(json_string_value(json_object_get(full, "reason_code")), "unknown_outcome");
    const json_t *cutover = json_object_get(full, "cutover");
    ck_assert_double_eq_tol(json_real_value(json_object_get(cutover, "blackout_ms")), 103.456, 1e-6);
    ck_assert_double_eq_tol(json_real_value(json_object_get(cutover, "fence_ms")), 0.022, 1e-9);
    ck_assert_uint_eq(json_array_size(json_object_get(full, "phases")), LMO_PHASE_TIMES_MAX);
    ck_assert_double_eq_tol(json_real_value(json_object_get(json_array_get(json_object_get(full, "phases"), 0), "ms")),
                            0.003, 1e-9);
    ck_assert_uint_eq(json_array_size(json_object_get(full, "volumes")), LMO_VOLUMES_MAX);
}
END_TEST

START_TEST(eta__is_shown_as_a_range_from_the_sample_on_and_null_while_nothing_can_be_said)
{
    static struct lmo_migration m;
    m = sample(1, 1);
    m.phase = LMO_PHASE_PRECOPY;
    m.updated_ms = 10000;
    m.convergence.eta = (struct lmo_eta){.kind = LMO_ETA_CONVERGING, .revision = 2, .low_ms = 9000, .high_ms = 14000};
    LMO_AUTO_JSON json_t *known = lmo_migration_to_rest(&m);
    const json_t *p = json_object_get(known, "progress");
    ck_assert_int_eq(json_integer_value(json_object_get(p, "eta_min_ms")), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(p, "eta_max_ms")), 4000);
    ck_assert_int_eq(json_integer_value(json_object_get(p, "eta_latest_ms")), 14000);
    ck_assert_str_eq(json_string_value(json_object_get(p, "eta_kind")), "converging");
    m.convergence.eta.kind = LMO_ETA_NONE;
    LMO_AUTO_JSON json_t *unknown = lmo_migration_to_rest(&m);
    p = json_object_get(unknown, "progress");
    ck_assert(json_is_null(json_object_get(p, "eta_min_ms")) && json_is_null(json_object_get(p, "eta_max_ms")));
    m.convergence.eta.kind = LMO_ETA_CONVERGING;
    m.phase = LMO_PHASE_CUTOVER;
    LMO_AUTO_JSON json_t *over = lmo_migration_to_rest(&m);
    ck_assert(json_is_null(json_object_get(json_object_get(over, "progress"), "eta_max_ms")));
}
END_TEST

/* ------------------------------------------------------------------ store */

static int count_open(void *arg, const struct lmo_migration *m, const char *xml)
{
    unsigned *n = arg;
    ck_assert_ptr_nonnull(m);
    *n += xml ? 100 : 1;
    return 0;
}

START_TEST(what_was_committed__is_there_after_a_restart)
{
    static struct lmo_migration m, got;
    m = sample(1, 1);
    struct lmo_journal_line lines[2] = {{.at_ms = 1, .phase = "queued", .what = "accepted", .why = "asked"},
                                        {.at_ms = 2, .phase = "queued", .what = "b", .why = ""}};
    struct lmo_commit_item item = {.record = &m, .journal = lines, .journal_count = 2, .xml = "<domain/>"};
    struct lmo_err err = {0};
    ck_assert_msg(store->ops->commit(store, &item, 1, NULL, 0, &err) == 0, "%s", err.text);
    reopen();
    ck_assert_msg(store->ops->get(store, m.id, &got, &err) == 0, "%s", err.text);
    ck_assert_mem_eq(&m, &got, sizeof(m));
    unsigned n = 0;
    ck_assert_int_eq(store->ops->load_open(store, count_open, &n, &err), 0);
    ck_assert_uint_eq(n, 100);
    ck_assert_int_eq(store->ops->get(store, "01JD2Z3W5X6Y7Z8A9B0C1D2E3F", &got, &err), LMO_E_NOT_FOUND);
}
END_TEST

static int count_listed(void *arg, const char *id, const char *summary)
{
    (void)summary;
    ck_assert_ptr_nonnull(id);
    ++*(unsigned *)arg;
    return 0;
}

static unsigned listed(const char *phase, const char *vm)
{
    struct lmo_migration_filter f = {0};
    struct lmo_err err = {0};
    unsigned n = 0;
    strcpy(f.phase, phase);
    strcpy(f.vm, vm);
    ck_assert_int_eq(store->ops->list(store, &f, 10, count_listed, &n, &err), 0);
    return n;
}

/* Only what is searched for, changed without a line that says so: found by the new, not by the old. */
START_TEST(what_is_searched_for__follows_the_record_whether_or_not_a_phase_was_entered)
{
    static struct lmo_migration m, other;
    struct lmo_err err = {0};
    m = sample(1, 1);
    must_put(&m, 0);
    m.version = 2;
    must_put(&m, 1); /* nothing that is searched for changed */
    strcpy(m.vm.name, "renamed");
    m.version = 3;
    must_put(&m, 2);
    ck_assert_uint_eq(listed("queued", "renamed"), 1);
    m.phase = LMO_PHASE_PRECHECK;
    m.version = 4;
    must_put(&m, 3);
    ck_assert_uint_eq(listed("precheck", ""), 1);
    ck_assert_uint_eq(listed("queued", ""), 0);
    m.version = 5; /* and the version that it was made from still has to be the one that is stored */
    ck_assert_int_eq(put(&m, 3, &err), LMO_E_CONFLICT);
    other = m;
    strcpy(other.vm.uuid, "00000000-0000-4000-8000-000000000009");
    ck_assert_int_eq(put(&other, 4, &err), LMO_E_CONFLICT);
    must_put(&m, 4);
}
END_TEST

static int collect_journal(void *arg, uint64_t n, const struct lmo_journal_line *l)
{
    char *text = arg;
    ck_assert_uint_gt(n, 0);
    strcat(strcat(strcat(text, l->what), "/"), l->why);
    strcat(text, ";");
    return 0;
}

START_TEST(journal__keeps_its_order_per_migration)
{
    static struct lmo_migration a, b;
    a = sample(1, 1);
    b = sample(2, 2);
    struct lmo_journal_line la[2] = {{.at_ms = 9, .what = "1", .why = "x"}, {.at_ms = 1, .what = "2"}};
    struct lmo_journal_line lb = {.what = "other"}, lc = {.what = "3"};
    struct lmo_commit_item items[2] = {{.record = &a, .journal = la, .journal_count = 2},
                                       {.record = &b, .journal = &lb, .journal_count = 1}};
    struct lmo_err err = {0};
    ck_assert_msg(store->ops->commit(store, items, 2, NULL, 0, &err) == 0, "%s", err.text);
    a.version = 5;
    struct lmo_commit_item more = {.record = &a, .expected_version = 1, .journal = &lc, .journal_count = 1};
    ck_assert_msg(store->ops->commit(store, &more, 1, NULL, 0, &err) == 0, "%s", err.text);
    char text[256] = "";
    ck_assert_int_eq(store->ops->journal(store, a.id, 0, 0, collect_journal, text, &err), 0);
    ck_assert_str_eq(text, "1/x;2/;3/;");
    text[0] = '\0';
    ck_assert_int_eq(store->ops->journal(store, a.id, 1, 1, collect_journal, text, &err), 0); /* a page */
    ck_assert_str_eq(text, "2/;");
}
END_TEST

/* Such a one numbered its lines 1, 2, 3 ... */
START_TEST(journal_of_an_older_program__goes_on_behind_its_lines)
{
    static struct lmo_migration m;
    struct lmo_journal_line line = {.what = "new"};
    struct lmo_err err = {0};
    char path[64], text[256] = "";
    struct lmo_sql *db;
    m = sample(1, 1);
    m.version = 2;
    must_put(&m, 0);
    snprintf(path, sizeof(path), "%s/lmod.db", dir);
    ck_assert_int_eq(lmo_sql_open(path, 0, &db, &err), 0);
    ck_assert_int_eq(lmo_sql_exec(db,
                                  "WITH RECURSIVE k(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM k WHERE n < 32)"
                                  " INSERT INTO journal SELECT id, n, 0, 'queued', 'old', '' FROM migration, k",
                                  &err),
                     0);
    lmo_sql_close(db);
    m.version = 3;
    struct lmo_commit_item item = {.record = &m, .expected_version = 2, .journal = &line, .journal_count = 1};
    ck_assert_msg(store->ops->commit(store, &item, 1, NULL, 0, &err) == 0, "%s", err.text);
    ck_assert_int_eq(store->ops->journal(store, m.id, 0, 0, collect_journal, text, &err), 0);
    ck_assert_str_eq(text + 32 * strlen("old/;"), "new/;");
}
END_TEST

START_TEST(second_open_migration_of_a_guest__is_a_conflict_naming_the_first)
{
    static struct lmo_migration a, b;
    struct lmo_err err = {0};
    a = sample(1, 7);
    b = sample(2, 7);
    must_put(&a, 0);
    ck_assert_int_eq(put(&b, 0, &err), LMO_E_CONFLICT);
    ck_assert_msg(strstr(err.text, a.id) && strstr(err.text, "guest-7"), "%s", err.text);
    ck_assert_int_eq(put(&a, 0, &err), LMO_E_CONFLICT);
    ck_assert_msg(strstr(err.text, "stored already"), "%s", err.text);
    a.version = 2;
    a.phase = LMO_PHASE_ABORTED;
    a.reason_code = LMO_E_CANCELLED;
    must_put(&a, 1);
    must_put(&b, 0);
}
END_TEST

START_TEST(a_stale_version__changes_nothing_of_the_batch)
{
    static struct lmo_migration a, b, got;
    struct lmo_err err = {0};
    a = sample(1, 1);
    must_put(&a, 0);
    struct lmo_host_row h = {.name = "hv1", .url = "https://x"};
    ck_assert_int_eq(store->ops->host_put(store, &h, NULL), 0);
    a.version = 4;
    must_put(&a, 1);
    a.version = 6;
    b = sample(2, 2);
    struct lmo_commit_item items[2] = {{.record = &b}, {.record = &a, .expected_version = 3}};
    struct lmo_commit_cursor cursor = {"hv1", 17};
    ck_assert_int_eq(store->ops->commit(store, items, 2, &cursor, 1, &err), LMO_E_CONFLICT);
    ck_assert_msg(strstr(err.text, "version 3 expected, 4"), "%s", err.text);
    ck_assert_int_eq(store->ops->get(store, b.id, &got, &err), LMO_E_NOT_FOUND);
    items[1].expected_version = 4;
    ck_assert_int_eq(store->ops->commit(store, items, 2, &cursor, 1, &err), 0);
    b = sample(9, 9);
    b.version = 2;
    ck_assert_int_eq(put(&b, 1, &err), LMO_E_CONFLICT);
    ck_assert_msg(strstr(err.text, "none is stored"), "%s", err.text);
}
END_TEST

START_TEST(a_terminal_record__never_opens_again)
{
    static struct lmo_migration a;
    struct lmo_err err = {0};
    a = sample(1, 1);
    must_put(&a, 0);
    a.version = 2;
    a.phase = LMO_PHASE_ABORTED;
    a.reason_code = LMO_E_CANCELLED;
    must_put(&a, 1);
    a.version = 3;
    a.phase = LMO_PHASE_QUEUED;
    ck_assert_int_eq(put(&a, 2, &err), LMO_E_CONFLICT);
}
END_TEST

START_TEST(a_broken_record__is_not_stored)
{
    static struct lmo_migration a, got;
    struct lmo_err err = {0};
    a = sample(1, 1);
    a.epoch = 0;
    ck_assert_int_eq(put(&a, 0, &err), LMO_E_INTERNAL);
    ck_assert_msg(strstr(err.text, "epoch"), "%s", err.text);
    ck_assert_int_eq(store->ops->get(store, a.id, &got, &err), LMO_E_NOT_FOUND);
    a = sample(1, 1);
    must_put(&a, 0);
    ck_assert_int_eq(put(&a, 1, &err), LMO_E_INTERNAL); /* version 1 after version 1 */
}
END_TEST

START_TEST(epochs__only_ever_rise_also_over_a_restart)
{
    uint64_t e = 0;
    const char *vm = "00000000-0000-4000-8000-000000000001";
    ck_assert_int_eq(store->ops->next_epoch(store, vm, 0, &e, NULL), 0);
    ck_assert_uint_eq(e, 1);
    ck_assert_int_eq(store->ops->next_epoch(store, vm, 0, &e, NULL), 0);
    ck_assert_uint_eq(e, 2);
    ck_assert_int_eq(store->ops->next_epoch(store, vm, 10, &e, NULL), 0);
    ck_assert_uint_eq(e, 10);
    static struct lmo_migration other;
    other = sample(1, 7);
    must_put(&other, 0); /* any commit writes down what was handed out before it */
    reopen();
    ck_assert_int_eq(store->ops->next_epoch(store, vm, 3, &e, NULL), 0);
    ck_assert_uint_eq(e, 11);
    ck_assert_int_eq(store->ops->next_epoch(store, "00000000-0000-4000-8000-000000000002", 5, &e, NULL), 0);
    ck_assert_uint_eq(e, 5);
}
END_TEST

START_TEST(epoch_of_a_commit_that_failed__is_written_down_by_the_next_one)
{
    uint64_t e = 0;
    static struct lmo_migration m;
    struct lmo_err err = {0};
    const char *vm = "00000000-0000-4000-8000-000000000001";
    ck_assert_int_eq(store->ops->next_epoch(store, vm, 6, &e, NULL), 0);
    m = sample(1, 1);
    ck_assert_int_lt(put(&m, 4, &err), 0); /* version 1 after version 4 */
    must_put(&m, 0);
    reopen();
    ck_assert_int_eq(store->ops->next_epoch(store, vm, 0, &e, NULL), 0);
    ck_assert_uint_eq(e, 7);
}
END_TEST

static int look_up(const char *principal, const char *key, struct lmo_kept_answer *ret, char body[64])
{
    struct lmo_err err = {0};
    char *text = NULL;
    int r = store->ops->answer(store, principal, key, ret, &text, &err);
    snprintf(body, 64, "%s", r == 0 ? text : "");
    free(text);
    return r;
}

START_TEST(idempotency_keys__belong_to_their_principal)
{
    static struct lmo_migration a, b;
    struct lmo_err err = {0};
    struct lmo_kept_answer found, with = {.principal = "operator:x", .key = "k", .status = 202, .etag = "\"1\"",
                                          .location = "/v1/migrations/1", .body = "{\"id\":1}"};
    char body[64];
    memset(with.hash, 'a', 64);
    a = sample(1, 1);
    b = sample(2, 2);
    with.created_ms = a.created_ms;
    struct lmo_commit_item item = {.record = &a, .answers = &with};
    ck_assert_int_eq(look_up("operator:x", "k", &found, body), LMO_E_NOT_FOUND);
    ck_assert_msg(store->ops->commit(store, &item, 1, NULL, 0, &err) == 0, "%s", err.text);
    reopen();
    ck_assert_int_eq(look_up("operator:x", "k", &found, body), 0);
    ck_assert_str_eq(found.hash, with.hash);
    ck_assert_str_eq(found.location, with.location);
    ck_assert_str_eq(found.etag, with.etag);
    ck_assert_uint_eq(found.status, 202);
    ck_assert_str_eq(body, "{\"id\":1}");
    ck_assert_int_eq(look_up("operator:y", "k", &found, body), LMO_E_NOT_FOUND);
    item.record = &b;
    ck_assert_int_eq(store->ops->commit(store, &item, 1, NULL, 0, &err), LMO_E_CONFLICT);
    /* A week later the old key is forgotten. */
    with.created_ms += INT64_C(8) * 24 * 3600 * 1000;
    strcpy(with.key, "k2");
    ck_assert_int_eq(store->ops->commit(store, &item, 1, NULL, 0, &err), 0);
    ck_assert_int_eq(look_up("operator:x", "k", &found, body), LMO_E_NOT_FOUND);
}
END_TEST

START_TEST(an_answer__is_stored_with_the_change_that_it_tells_of_or_not_at_all)
{
    struct lmo_err err = {0};
    struct lmo_kept_answer found, with = {.principal = "operator:x", .key = "k", .status = 201, .body = "{}"};
    struct lmo_host_row host = {.name = "hv1", .url = "https://a"};
    char body[64];
    memset(with.hash, 'a', 64);
    ck_assert_int_eq(store->ops->answer_with(store, &with), 0);
    ck_assert_int_eq(look_up("operator:x", "k", &found, body), LMO_E_NOT_FOUND); /* nothing was changed yet */
    ck_assert_int_eq(store->ops->host_put(store, &host, &err), 0);
    ck_assert_int_eq(look_up("operator:x", "k", &found, body), 0);
    strcpy(with.key, "again");
    ck_assert_int_eq(store->ops->answer_with(store, &with), 0);
    ck_assert_int_eq(store->ops->host_put(store, &host, &err), LMO_E_CONFLICT);
    ck_assert_int_eq(look_up("operator:x", "again", &found, body), LMO_E_NOT_FOUND);
    ck_assert_int_eq(store->ops->commit(store, NULL, 0, NULL, 0, &err), 0); /* it goes with no later write either */
    ck_assert_int_eq(look_up("operator:x", "again", &found, body), LMO_E_NOT_FOUND);
    ck_assert_int_eq(store->ops->answer_with(store, &with), 0);
    ck_assert_int_eq(store->ops->commit(store, NULL, 0, NULL, 0, &err), 0);
    ck_assert_int_eq(look_up("operator:x", "again", &found, body), 0);
}
END_TEST

static int collect_tokens(void *arg, const struct lmo_token_row *t)
{
    strcat(strcat(arg, t->name), " ");
    return 0;
}

START_TEST(tokens__are_kept_until_they_are_revoked_or_expire)
{
    struct lmo_err err = {0};
    char text[128] = "";
    struct lmo_token_row t = {.id = "01JD2Z3W5X6Y7Z8A9B0C1D2E3F", .name = "ci", .role = "viewer", .created_ms = 1,
                              .expires_ms = 100, .created_by = "operator:x"};
    memset(t.hash, 'b', 64);
    ck_assert_msg(store->ops->token_put(store, &t, &err) == 0, "%s", err.text);
    strcpy(t.id, "01JD2Z3W5X6Y7Z8A9B0C1D2E3G");
    ck_assert_int_eq(store->ops->token_put(store, &t, &err), LMO_E_CONFLICT);
    strcpy(t.name, "ui");
    ck_assert_int_eq(store->ops->token_put(store, &t, &err), 0);
    reopen();
    ck_assert_int_eq(store->ops->token_list(store, 50, collect_tokens, text, &err), 0);
    ck_assert_str_eq(text, "ci ui ");
    ck_assert_int_eq(store->ops->token_revoke(store, t.id, 50, &err), 0);
    ck_assert_int_eq(store->ops->token_revoke(store, t.id, 50, &err), LMO_E_NOT_FOUND);
    text[0] = '\0';
    ck_assert_int_eq(store->ops->token_list(store, 50, collect_tokens, text, &err), 0);
    ck_assert_str_eq(text, "ci ");
    text[0] = '\0';
    ck_assert_int_eq(store->ops->token_list(store, 100, collect_tokens, text, &err), 0);
    ck_assert_str_eq(text, "");
    strcpy(t.id, "01JD2Z3W5X6Y7Z8A9B0C1D2E3H"); /* one that has expired does not keep its name */
    strcpy(t.name, "ci");
    t.created_ms = 100;
    t.expires_ms = 200;
    ck_assert_int_eq(store->ops->token_put(store, &t, &err), 0);
}
END_TEST

static int collect_ids(void *arg, const char *id, const char *summary)
{
    static struct lmo_migration m;
    char *text = arg;
    size_t len = strlen(text);
    ck_assert_int_eq(store->ops->get(store, id, &m, NULL), 0);
    ck_assert_int_eq(summary != NULL, lmo_phase_is(m.phase, LMO_PHASE_TERMINAL));
    ck_assert(!summary || strstr(summary, id));
    snprintf(text + len, 256 - len, "%lld ", (long long)(m.created_ms - INT64_C(1763643055000)));
    return 0;
}

START_TEST(list__is_newest_first_filtered_and_paged)
{
    static struct lmo_migration m;
    for (unsigned i = 1; i <= 6; i++) {
        m = sample(i, i % 3);
        m.phase = i > 3 ? LMO_PHASE_QUEUED : LMO_PHASE_ABORTED;
        m.reason_code = i > 3 ? 0 : LMO_E_CANCELLED;
        must_put(&m, 0);
    }
    static const struct {
        const char *phase, *vm;
        unsigned before, limit;
        const char *ids;
    } cases[] = {{"", "", 0, 10, "6 5 4 3 2 1 "},
                 {"", "", 0, 2, "6 5 "},
                 {"", "", 4, 2, "3 2 "},
                 {"aborted", "", 0, 10, "3 2 1 "},
                 {"", "guest-1", 0, 10, "4 1 "},
                 {"queued", "guest-1", 0, 10, "4 "},
                 {"", "00000000-0000-4000-8000-000000000002", 5, 10, "2 "},
                 {"", "x", 0, 10, ""}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256] = "", before[LMO_ID_MAX] = "";
        struct lmo_err err = {0};
        if (cases[i].before) {
            m = sample(cases[i].before, 1);
            strcpy(before, m.id);
        }
        struct lmo_migration_filter f = {0};
        strcpy(f.phase, cases[i].phase);
        strcpy(f.vm, cases[i].vm);
        strcpy(f.before, before);
        ck_assert_msg(store->ops->list(store, &f, cases[i].limit, collect_ids, text, &err) == 0, "%s", err.text);
        ck_assert_str_eq(text, cases[i].ids);
    }
}
END_TEST

/* Every combination of the filters against what they mean, looked up one by one. */
START_TEST(filters_of_a_list__mean_together_what_they_mean_alone)
{
    static struct lmo_migration all[12];
    static const char *const phases[] = {"", "queued", "aborted"}, *const vms[] = {"", "guest-1"};
    static const char *const hosts[] = {"", "hv1", "hv3", "hv9"};
    struct lmo_err err = {0};
    for (unsigned i = 0; i < 12; i++) {
        all[i] = sample(i + 1, i % 4);
        strcpy(all[i].destination, i % 3 == 0 ? "hv2" : "hv3");
        all[i].phase = i > 7 ? LMO_PHASE_QUEUED : LMO_PHASE_ABORTED;
        all[i].reason_code = i > 7 ? 0 : LMO_E_CANCELLED;
        must_put(&all[i], 0);
    }
    for (unsigned n = 0; n < 3 * 2 * 4 * 3 * 3; n++) {
        struct lmo_migration_filter f = {.state = n / 24 % 3};
        char text[256] = "", expected[256] = "";
        strcpy(f.phase, phases[n % 3]);
        strcpy(f.vm, vms[n / 3 % 2]);
        strcpy(f.host, hosts[n / 6 % 4]);
        f.since_ms = n / 72 > 0 ? (int64_t)lmo_ulid_time_ms(all[2].id) : 0;
        f.until_ms = n / 72 > 1 ? (int64_t)lmo_ulid_time_ms(all[9].id) : 0;
        for (unsigned i = 12; i-- > 0;) {
            const struct lmo_migration *m = &all[i];
            int64_t at = (int64_t)lmo_ulid_time_ms(m->id);
            bool open = !lmo_phase_is(m->phase, LMO_PHASE_TERMINAL);
            bool fits = (!f.phase[0] || strcmp(f.phase, lmo_phase_text(m->phase)) == 0) &&
                        (!f.vm[0] || strcmp(f.vm, m->vm.name) == 0) &&
                        (!f.host[0] || strcmp(f.host, m->source) == 0 || strcmp(f.host, m->destination) == 0) &&
                        (f.state == LMO_ANY_STATE || open == (f.state == LMO_OPEN_ONLY)) &&
                        (!f.since_ms || at >= f.since_ms) && (!f.until_ms || at < f.until_ms);
            size_t len = strlen(expected);
            snprintf(expected + len, fits ? sizeof(expected) - len : 1, "%lld ", (long long)(m->created_ms - INT64_C(1763643055000)));
        }
        ck_assert_msg(store->ops->list(store, &f, 20, collect_ids, text, &err) == 0, "%s", err.text);
        ck_assert_msg(strcmp(text, expected) == 0, "phase=%s vm=%s host=%s state=%d since=%lld: %s, not %s", f.phase, f.vm, f.host,
                      (int)f.state, (long long)f.since_ms, text, expected);
    }
}
END_TEST

static int collect_hosts(void *arg, const struct lmo_host_row *h)
{
    char *text = arg;
    size_t len = strlen(text);
    snprintf(text + len, 256 - len, "%s=%s@%llu ", h->name, h->url, (unsigned long long)h->cursor);
    return 0;
}

START_TEST(hosts__are_listed_with_cursors_that_never_fall)
{
    struct lmo_err err = {0};
    char text[256] = "";
    struct lmo_host_row a = {.name = "hv2", .url = "https://b"}, b = {.name = "hv1", .url = "https://a", .cursor = 3};
    ck_assert_int_eq(store->ops->host_put(store, &a, &err), 0);
    ck_assert_int_eq(store->ops->host_put(store, &b, &err), 0);
    ck_assert_int_eq(store->ops->host_put(store, &b, &err), LMO_E_CONFLICT);
    struct lmo_commit_cursor cursors[3] = {{"hv1", 2}, {"hv2", 9}, {"gone", 5}};
    ck_assert_msg(store->ops->commit(store, NULL, 0, cursors, 3, &err) == 0, "%s", err.text);
    ck_assert_int_eq(store->ops->host_list(store, collect_hosts, text, &err), 0);
    ck_assert_str_eq(text, "hv1=https://a@3 hv2=https://b@9 ");
    ck_assert_int_eq(store->ops->host_delete(store, "hv1", &err), 0);
    ck_assert_int_eq(store->ops->host_delete(store, "hv1", &err), LMO_E_NOT_FOUND);
}
END_TEST

static int find_limits(void *arg, const struct lmo_host_row *h)
{
    *(struct lmo_host_limits *)arg = h->limits;
    return 0;
}

START_TEST(limits_of_a_host__are_kept_until_they_are_taken_back)
{
    struct lmo_err err = {0};
    struct lmo_host_row h = {.name = "hv1", .url = "https://a"};
    struct lmo_host_limits out = {.given = 99},
                           in = {.given = LMO_HOST_LIMIT_INCOMING | LMO_HOST_LIMIT_BANDWIDTH, .max_bandwidth_bytes_per_s = 7};
    ck_assert_int_eq(store->ops->host_limits(store, "hv1", &in, &err), LMO_E_NOT_FOUND);
    ck_assert_int_eq(store->ops->host_put(store, &h, &err), 0);
    ck_assert_int_eq(store->ops->host_list(store, find_limits, &out, &err), 0);
    ck_assert_uint_eq(out.given, 0);
    ck_assert_msg(store->ops->host_limits(store, "hv1", &in, &err) == 0, "%s", err.text);
    ck_assert_int_eq(store->ops->host_list(store, find_limits, &out, &err), 0);
    ck_assert_mem_eq(&in, &out, sizeof(in)); /* 0 incoming is a limit, too */
    in = (struct lmo_host_limits){.given = LMO_HOST_LIMIT_KEEP_FREE | LMO_HOST_LIMIT_OUTGOING,
                                  .memory_keep_free_bytes = UINT64_C(5) << 40, .max_outgoing = 3};
    ck_assert_int_eq(store->ops->host_limits(store, "hv1", &in, &err), 0);
    ck_assert_int_eq(store->ops->host_list(store, find_limits, &out, &err), 0);
    ck_assert_mem_eq(&in, &out, sizeof(in));
}
END_TEST

START_TEST(second_coordinator_on_the_same_directory__is_refused_naming_the_first)
{
    struct lmo_store *other = NULL;
    struct lmo_err err = {0};
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", getpid());
    ck_assert_int_eq(lmo_store_sqlite_open(dir, &other, &err), LMO_E_BUSY);
    ck_assert_ptr_null(other);
    ck_assert_msg(strstr(err.text, "another coordinator") && strstr(err.text, dir) && strstr(err.text, pid), "%s",
                  err.text);
}
END_TEST

START_TEST(database_file__is_private)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof(path), "%s/lmod.db", dir);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
}
END_TEST

static int count_all(void *arg, const char *id, const char *summary)
{
    (void)id;
    (void)summary;
    (*(unsigned *)arg)++;
    return 0;
}

static int collect_quarantine(void *arg, const struct lmo_quarantine_row *row)
{
    *(struct lmo_quarantine_row *)arg = *row;
    return 0;
}

START_TEST(a_corrupt_stored_record__is_set_aside_by_name_and_the_others_are_loaded)
{
    static struct lmo_migration m;
    static struct lmo_migration good;
    m = sample(1, 1);
    must_put(&m, 0);
    good = sample(2, 2);
    must_put(&good, 0);
    store->ops->close(store);
    store = NULL;
    char path[64];
    snprintf(path, sizeof(path), "%s/lmod.db", dir);
    struct lmo_sql *db = NULL;
    ck_assert_int_eq(lmo_sql_open(path, 0, &db, NULL), 0);
    ck_assert_int_eq(lmo_sql_exec(db, "UPDATE migration SET record = replace(record, '\"epoch\":3', '\"epoch\":0')"
                                      " WHERE vm_name = 'guest-1'",
                                  NULL),
                     0);
    lmo_sql_close(db);
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_store_sqlite_open(dir, &store, &err), 0);
    unsigned n = 0;
    for (int round = 0; round < 2; round++) { /* at every start again */
        n = 0;
        ck_assert_msg(store->ops->load_open(store, count_open, &n, &err) == 0, "%s", err.text);
        ck_assert_uint_eq(n, 1);
    }
    struct lmo_quarantine_row row = {0};
    ck_assert_int_eq(store->ops->quarantine_list(store, collect_quarantine, &row, &err), 0);
    ck_assert_str_eq(row.migration, m.id);
    ck_assert_str_eq(row.vm_uuid, m.vm.uuid);
    ck_assert_msg(strstr(row.why, "epoch"), "%s", row.why);
    static struct lmo_migration next;
    next = sample(3, 1); /* its guest takes no other one, whatever anybody believes */
    ck_assert_int_eq(put(&next, 0, &err), LMO_E_CONFLICT);
    static struct lmo_migration got;
    ck_assert_int_eq(store->ops->get(store, m.id, &got, &err), LMO_E_CORRUPT);
    n = 0;
    const struct lmo_migration_filter any = {0};
    ck_assert_int_eq(store->ops->list(store, &any, 10, count_all, &n, &err), 0);
    ck_assert_uint_eq(n, 2); /* one that cannot be read does not hide all others: whoever shows them leaves it out */
}
END_TEST

static int collect_audit(void *arg, const struct lmo_audit_line *l)
{
    char *text = arg;
    char line[64];
    snprintf(line, sizeof(line), "%s:%s;", l->request, l->outcome);
    strcat(text, line);
    return 0;
}

START_TEST(audit_lines__are_stored_with_the_next_commit_or_not_at_all_and_never_changed)
{
    struct lmo_err err = {0};
    struct lmo_audit_line line = {.at_ms = 5, .request = "r1", .principal = "operator:a", .remote = "1.2.3.4:5",
                                  .action = "POST /v1/migrations", .host = "hv1", .outcome = "asked"};
    char text[256] = "";
    static struct lmo_migration m;
    ck_assert_int_eq(store->ops->audit(store, &line), 0);
    m = sample(1, 1);
    must_put(&m, 0);
    m.version = 1; /* a commit that is refused takes its lines along, until the next that works */
    strcpy(line.request, "r2");
    strcpy(line.migration, m.id);
    ck_assert_int_eq(store->ops->audit(store, &line), 0);
    ck_assert_int_lt(put(&m, 7, &err), 0);
    ck_assert_int_eq(store->ops->audit_list(store, &(struct lmo_audit_filter){0}, 0, 10, collect_audit, text, &err), 0);
    ck_assert_str_eq(text, "r1:asked;");
    ck_assert_int_eq(store->ops->commit(store, NULL, 0, NULL, 0, &err), 0);
    reopen();
    text[0] = '\0';
    ck_assert_int_eq(store->ops->audit_list(store, &(struct lmo_audit_filter){0}, 0, 10, collect_audit, text, &err), 0);
    ck_assert_str_eq(text, "r2:asked;r1:asked;");
    text[0] = '\0';
    ck_assert_int_eq(store->ops->audit_list(store, &(struct lmo_audit_filter){.migration = m.id, .host = "hv1"}, 0, 10, collect_audit, text, &err), 0);
    ck_assert_str_eq(text, "r2:asked;");
    char path[64];
    snprintf(path, sizeof(path), "%s/lmod.db", dir);
    struct lmo_sql *db = NULL;
    ck_assert_int_eq(lmo_sql_open(path, 0, &db, NULL), 0);
    ck_assert_int_lt(lmo_sql_exec(db, "UPDATE audit SET principal = 'nobody'", NULL), 0);
    ck_assert_int_lt(lmo_sql_exec(db, "DELETE FROM audit", NULL), 0);
    lmo_sql_close(db);
}
END_TEST

static int commit_more(void *arg, const struct lmo_migration *m, const char *xml)
{
    static struct lmo_migration next;
    unsigned *n = arg;
    (void)xml;
    next = *m;
    next.version++;
    must_put(&next, m->version);
    ++*n;
    return 0;
}

START_TEST(callback_that_commits_while_records_stream__is_fine)
{
    static struct lmo_migration m, got;
    for (unsigned i = 1; i <= 3; i++) {
        m = sample(i, i);
        must_put(&m, 0);
    }
    unsigned n = 0;
    ck_assert_int_eq(store->ops->load_open(store, commit_more, &n, NULL), 0);
    ck_assert_uint_eq(n, 3);
    ck_assert_int_eq(store->ops->get(store, m.id, &got, NULL), 0);
    ck_assert_uint_eq(got.version, 2);
}
END_TEST

/* In a child of its own with a small file system on the state directory: NO_SPACE, nothing half stored, and it goes
 * on as soon as there is room again. */
static int fill_disk_child(const char *mount_point, bool tidy)
{
    static struct lmo_migration m, got;
    struct lmo_store *s = NULL;
    struct lmo_err err = {0};
    char filler[64];
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("lmo-test", mount_point, "tmpfs", 0, "size=4m") < 0) {
        return 77;
    }
    snprintf(filler, sizeof(filler), "%s/filler", mount_point);
    if (lmo_store_sqlite_open(mount_point, &s, &err) < 0 || (tidy && lmo_store_sqlite_tidy_apart(s, &err) < 0)) {
        fprintf(stderr, "open: %s\n", err.text);
        return 1;
    }
    int fd = open(filler, O_CREAT | O_WRONLY, 0600);
    static const char zeros[4096];
    while (write(fd, zeros, sizeof(zeros)) > 0) {
    }
    close(fd);
    int r = 0;
    unsigned stored = 0;
    for (unsigned i = 1; i < 200 && r == 0; i++) {
        m = sample(i, i);
        fill(&m);
        struct lmo_commit_item item = {.record = &m};
        r = s->ops->commit(s, &item, 1, NULL, 0, &err);
        stored += r == 0;
    }
    if (r != LMO_E_NO_SPACE || s->ops->get(s, m.id, &got, &err) != LMO_E_NOT_FOUND) {
        fprintf(stderr, "result %d after %u: %s\n", r, stored, err.text);
        return 2;
    }
    unlink(filler);
    struct lmo_commit_item item = {.record = &m};
    r = s->ops->commit(s, &item, 1, NULL, 0, &err);
    if (r < 0 || s->ops->get(s, m.id, &got, &err) < 0) {
        fprintf(stderr, "after room was made: %s\n", err.text);
        return 3;
    }
    s->ops->close(s);
    umount(mount_point);
    return 0;
}

START_TEST(full_disk__is_no_space_and_heals)
{
    char mount_point[] = "/tmp/lmo-full-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(mount_point));
    pid_t pid = fork();
    if (pid == 0) {
        _exit(fill_disk_child(mount_point, _i == 1));
    }
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    rmdir(mount_point);
    ck_assert(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        fprintf(stderr, "full_disk: skipped: may not mount here\n");
        return;
    }
    ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

Suite *store_suite(void);
Suite *store_suite(void)
{
    Suite *s = suite_create("store");
    TCase *c = tcase_create("codec");
    tcase_add_test(c, the_fullest_record__comes_back_byte_for_byte);
    tcase_add_test(c, every_member_of_the_record__is_in_the_stored_form);
    tcase_add_test(c, structs_with_nothing_in_them__are_left_out_and_come_back_empty);
    tcase_add_test(c, a_record_with_a_byte_changed__is_read_or_refused_as_by_way_of_a_tree);
    tcase_add_loop_test(c, a_stored_record_that_is_not_understood__is_corrupt_and_named, 0,
                        sizeof(corruptions) / sizeof(corruptions[0]));
    tcase_add_test(c, rest_form__shows_what_is_known_and_null_for_the_rest);
    tcase_add_test(c, eta__is_shown_as_a_range_from_the_sample_on_and_null_while_nothing_can_be_said);
    suite_add_tcase(s, c);
    TCase *t = tcase_create("sqlite");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, what_was_committed__is_there_after_a_restart);
    tcase_add_test(t, journal__keeps_its_order_per_migration);
    tcase_add_test(t, what_is_searched_for__follows_the_record_whether_or_not_a_phase_was_entered);
    tcase_add_test(t, journal_of_an_older_program__goes_on_behind_its_lines);
    tcase_add_test(t, second_open_migration_of_a_guest__is_a_conflict_naming_the_first);
    tcase_add_test(t, a_stale_version__changes_nothing_of_the_batch);
    tcase_add_test(t, a_terminal_record__never_opens_again);
    tcase_add_test(t, a_broken_record__is_not_stored);
    tcase_add_test(t, epochs__only_ever_rise_also_over_a_restart);
    tcase_add_test(t, epoch_of_a_commit_that_failed__is_written_down_by_the_next_one);
    tcase_add_test(t, idempotency_keys__belong_to_their_principal);
    tcase_add_test(t, an_answer__is_stored_with_the_change_that_it_tells_of_or_not_at_all);
    tcase_add_test(t, tokens__are_kept_until_they_are_revoked_or_expire);
    tcase_add_test(t, filters_of_a_list__mean_together_what_they_mean_alone);
    tcase_add_test(t, list__is_newest_first_filtered_and_paged);
    tcase_add_test(t, hosts__are_listed_with_cursors_that_never_fall);
    tcase_add_test(t, limits_of_a_host__are_kept_until_they_are_taken_back);
    tcase_add_test(t, second_coordinator_on_the_same_directory__is_refused_naming_the_first);
    tcase_add_test(t, database_file__is_private);
    tcase_add_test(t, a_corrupt_stored_record__is_set_aside_by_name_and_the_others_are_loaded);
    tcase_add_test(t, audit_lines__are_stored_with_the_next_commit_or_not_at_all_and_never_changed);
    tcase_add_test(t, callback_that_commits_while_records_stream__is_fine);
    tcase_add_loop_test(t, full_disk__is_no_space_and_heals, 0, 2); /* the second time with a thread for the log */
    suite_add_tcase(s, t);
    return s;
}
