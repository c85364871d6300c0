/* test_sim.c - a bounded set of simulated fleets for the inner loop, and proof that the simulator can fail.
 *
 * Everything here is decided by fixed seeds. Longer runs: lmo-sim --seeds A..B (README.md). */
#include "run.h"
#include "shrink.h"
#include "sweep.h"
#include "world.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUIET_SEEDS   12
#define FAULTED_SEEDS 60
#define HARD_SEEDS    15
#define TWO_SEEDS     10

static struct plan plan;
static struct run_result result;

static void must_hold(void)
{
    ck_assert_msg(!result.failed, "seed %llu: %s\n%s(again: lmo-sim --seed %llu --trace)",
                  (unsigned long long)plan.seed, result.violation, result.story, (unsigned long long)plan.seed);
}

START_TEST(without_faults__every_migration_ends_and_nothing_is_left)
{
    plan_random((uint64_t)_i + 1, PLAN_QUIET, &plan);
    run_plan(&plan, &result);
    must_hold();
    ck_assert_uint_eq(result.crashes, 0);
    ck_assert_uint_eq(result.attention, 0);
}
END_TEST

START_TEST(with_faults__no_invariant_breaks_and_everything_comes_to_rest)
{
    plan_random((uint64_t)_i + 1, PLAN_FAULTS, &plan);
    run_plan(&plan, &result);
    must_hold();
}
END_TEST

START_TEST(copies_that_die__need_a_person_at_worst_and_leave_nothing_unexplained)
{
    plan_random((uint64_t)_i + 1, PLAN_HARD, &plan);
    run_plan(&plan, &result);
    must_hold();
}
END_TEST

START_TEST(coordinator_that_was_taken_over_from_in_its_sleep__does_nothing_when_it_wakes)
{
    plan_random((uint64_t)_i + 1, PLAN_TWO, &plan);
    run_plan(&plan, &result);
    must_hold();
}
END_TEST

/* A sweep's own promise: it lists points, and one that it cannot hit is a failure. */
START_TEST(strikes_of_a_sweep__are_read_from_their_names)
{
    ck_assert_int_eq(sweep_plan("live", &plan), 0);
    ck_assert_int_eq(sweep_add_strikes(&plan, "hv2/sync/3/crash_after+lmod/call/12/reply_lost"), 0);
    ck_assert_uint_eq(plan.fault_count, 2);
    run_plan(&plan, &result);
    must_hold();
    ck_assert_uint_eq(result.struck[FAULT_POINT], 2);
    ck_assert_uint_eq(result.fates[SIM_FATE_CRASH_AFTER], 1);
    ck_assert_uint_eq(result.fates[SIM_FATE_REPLY_LOST], 1);
    ck_assert_int_lt(sweep_plan("no such scenario", &plan), 0);
    ck_assert_int_eq(sweep_plan("live", &plan), 0);
    ck_assert_int_lt(sweep_add_strikes(&plan, "hv2/earthquake/3/crash_after"), 0);
}
END_TEST

START_TEST(scenarios_of_the_sweep__go_the_way_that_they_are_named_for)
{
    static const struct {
        const char *name;
        unsigned completed, aborted;
    } ends[] = {{"live", 1, 0},         {"cancel", 0, 1},       {"no_convergence", 0, 1},
                {"owner_paused", 1, 0}, {"shut_off", 1, 0},     {"there_and_back", 2, 0},
                {"refused", 0, 1},      {"queue_of_two", 2, 0}, {"finish_lost", 1, 0}};
    for (unsigned i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        ck_assert_str_eq(sweep_scenario_name(i), ends[i].name);
        ck_assert_int_eq(sweep_plan(ends[i].name, &plan), 0);
        run_plan(&plan, &result);
        must_hold();
        ck_assert_uint_eq(result.completed, ends[i].completed);
        ck_assert_uint_eq(result.aborted, ends[i].aborted);
    }
    ck_assert_ptr_null(sweep_scenario_name(sizeof ends / sizeof ends[0]));
}
END_TEST

START_TEST(same_seed__is_the_same_run)
{
    static struct run_result again;
    for (uint64_t seed = 501; seed <= 506; seed++) {
        plan_random(seed, PLAN_FAULTS, &plan);
        run_plan(&plan, &result);
        static struct plan other;
        plan_random(seed + 100, PLAN_FAULTS, &other); /* whatever a run in between leaves behind has no effect */
        run_plan(&other, &again);
        run_plan(&plan, &again);
        ck_assert_uint_eq(result.hash, again.hash);
        ck_assert_uint_eq(result.events, again.events);
        ck_assert_mem_eq(result.points, again.points, sizeof result.points);
    }
}
END_TEST

START_TEST(another_seed__is_another_run)
{
    static struct run_result other;
    plan_random(7, PLAN_FAULTS, &plan);
    run_plan(&plan, &result);
    plan.seed = 8; /* the same plan, other noise */
    run_plan(&plan, &other);
    ck_assert_uint_ne(result.hash, other.hash);
}
END_TEST

START_TEST(plan__survives_its_way_through_json)
{
    static struct plan back;
    struct lmo_err err = {0};
    for (uint64_t seed = 1; seed <= 50; seed++) {
        plan_random(seed, PLAN_FAULTS, &plan);
        json_t *j = plan_to_json(&plan);
        ck_assert_ptr_nonnull(j);
        ck_assert_int_eq(plan_from_json(j, &back, &err), 0);
        json_t *k = plan_to_json(&back);
        ck_assert_int_eq(json_equal(j, k), 1);
        json_decref(j);
        json_decref(k);
    }
}
END_TEST

START_TEST(plan__that_makes_no_sense_is_refused)
{
    static const char *const bad[] = {
        "{\"hypervisors\":9}",
        "{\"guests\":[{\"name\":\"a\"}]}",
        "{\"faults\":[{\"kind\":\"earthquake\",\"target\":\"hv1\"}]}",
        "{\"faults\":[{\"kind\":\"point\",\"target\":\"hv1\",\"point\":\"sync\",\"fate\":\"luck\"}]}",
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct lmo_err err = {0};
        json_t *j = json_loads(bad[i], 0, NULL);
        ck_assert_ptr_nonnull(j);
        ck_assert_int_eq(plan_from_json(j, &plan, &err), LMO_E_INVALID);
        json_decref(j);
    }
}
END_TEST

/* Each of them is a defect of a driver or hypervisor that only the outside can see. */
static const struct {
    unsigned lie;
    const char *says;
} lies[] = {
    {W_LIE_FENCE, "is still offered"},
    {W_LIE_FREEZE, ""}, /* whatever follows: two copies, an older memory, a killed guest */
    {W_LIE_LOADED, "with memory of write"},
    {W_LIE_REMOVE, "at rest"},
};

START_TEST(a_lie_of_the_world__is_found_by_the_checkers)
{
    bool found = false;
    for (uint64_t seed = 1; seed <= 30 && !found; seed++) {
        plan_random(seed, PLAN_FAULTS, &plan);
        plan.lies = lies[_i].lie;
        for (unsigned i = 0; i < plan.request_count && lies[_i].lie == W_LIE_FREEZE; i++) {
            plan.faults[plan.fault_count % PLAN_FAULTS_MAX] =
                (struct plan_fault){.kind = FAULT_FINISH_LOST, .at_ms = plan.requests[i].at_ms};
            memcpy(plan.faults[plan.fault_count % PLAN_FAULTS_MAX].target, plan.requests[i].guest, PLAN_NAME_MAX);
            plan.fault_count++;
        }
        run_plan(&plan, &result);
        found = result.failed && strstr(result.violation, lies[_i].says);
        ck_assert_msg(!result.failed || found, "another complaint: %s", result.violation);
    }
    ck_assert_msg(found, "lie %u was not seen", lies[_i].lie);
}
END_TEST

START_TEST(failing_plan__is_shrunk_to_what_matters)
{
    plan_random(3, PLAN_FAULTS, &plan);
    plan.lies = W_LIE_LOADED;
    run_plan(&plan, &result);
    ck_assert(result.failed);
    unsigned requests = plan.request_count;
    (void)shrink_plan(&plan, &result, 200);
    ck_assert(result.failed);
    ck_assert_uint_lt(plan.request_count, requests);
    ck_assert_uint_eq(plan.fault_count, 0); /* this one needs none */
    ck_assert_uint_le(plan.request_count, 2);
}
END_TEST

/* What a sweep of pairs leaves out it says to be the same as something that it ran, and looks at samples of that. */
START_TEST(pairs_that_are_left_out__are_the_same_and_it_would_be_noticed_if_not)
{
    struct sweep_options o = {.mode = SWEEP_PAIRS, .scenario = "shut_off", .jobs = 1, .stride = 75, .quiet = true};
    ck_assert_int_eq(sweep_run(&o), 0);
    o.blurred = true;
    ck_assert_int_eq(sweep_run(&o), 1);
}
END_TEST

/* A crash at every k-th observation of one kind, through the hook that sweeps use. */
static struct {
    const char *process;
    enum sim_point kind;
    uint64_t k;
    enum sim_fate fate;
    bool struck;
} aim;

static enum sim_fate aimed(void *arg, struct sim_process *p, enum sim_point kind, uint64_t k)
{
    (void)arg;
    if (kind != aim.kind || k != aim.k || strcmp(p->name, aim.process) != 0) {
        return SIM_FATE_NONE;
    }
    aim.struck = true;
    return aim.fate;
}

START_TEST(crash_at_an_observation_point__strikes_there_and_is_survived)
{
    static const char *const processes[] = {"lmod", "hv1", "hv2", "st1"};
    static const enum sim_point kinds[] = {SIM_POINT_SYNC, SIM_POINT_CALL, SIM_POINT_REPLY, SIM_POINT_DRIVER};
    static const enum sim_fate fates[] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER};
    static struct run_result clean;
    unsigned struck = 0;
    plan = (struct plan){.seed = 11, .hypervisors = 2, .storages = 1, .guest_count = 1, .request_count = 1};
    plan.guests[0] = (struct plan_guest){.name = "vm1",
                                         .host = "hv1",
                                         .volumes = 2,
                                         .ports = 1,
                                         .memory_mib = 256,
                                         .dirty_mib_per_s = 10,
                                         .persistent = true};
    plan.requests[0] = (struct plan_request){.at_ms = 500, .guest = "vm1", .destination = "hv2"};
    run_plan(&plan, &clean);
    ck_assert_uint_eq(clean.completed, 1);
    run_set_hook(aimed, NULL);
    for (unsigned p = 0; p < 4; p++) {
        for (unsigned kind = 0; kind < 4; kind++) {
            unsigned index = 0;
            while (strcmp(clean.processes[index], processes[p]) != 0) {
                index++;
            }
            uint64_t count = clean.settled[index][kinds[kind]]; /* what comes later is nobody's to strike */
            for (uint64_t k = 1; k <= count; k += 1 + count / 6) {
                aim.process = processes[p];
                aim.kind = kinds[kind];
                aim.k = k;
                aim.fate = fates[k % 2];
                aim.struck = false;
                run_plan(&plan, &result);
                ck_assert_msg(!result.failed, "%s %s %llu: %s", aim.process, sim_point_name(aim.kind),
                              (unsigned long long)k, result.violation);
                ck_assert_msg(aim.struck && result.crashes >= 1, "%s %s %llu of %llu: struck %d, crashes %u", aim.process,
                              sim_point_name(aim.kind), (unsigned long long)k, (unsigned long long)count, aim.struck,
                              result.crashes);
                struck++;
            }
        }
    }
    run_set_hook(NULL, NULL);
    ck_assert_uint_gt(struck, 40);
}
END_TEST

/* Plans that once failed: each is a defect that was mended. */
static const char *const scenarios[] = {"close_while_disk_full.json", "takeover_creates.json",
                                        "unknown_after_libvirtd.json", "unknown_owner_paused.json"};

START_TEST(mended_defect__stays_mended)
{
    char path[512];
    struct lmo_err err = {0};
    snprintf(path, sizeof path, "%s/tests/sim/scenarios/%s", LMO_SOURCE_DIR, scenarios[_i]);
    ck_assert_msg(plan_load(path, &plan, &err) == 0, "%s", err.text);
    run_plan(&plan, &result);
    must_hold();
}
END_TEST

static Suite *sim_suite(void)
{
    Suite *s = suite_create("sim");
    TCase *tc = tcase_create("fleets");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, without_faults__every_migration_ends_and_nothing_is_left, 0, QUIET_SEEDS);
    tcase_add_loop_test(tc, with_faults__no_invariant_breaks_and_everything_comes_to_rest, 0, FAULTED_SEEDS);
    tcase_add_loop_test(tc, copies_that_die__need_a_person_at_worst_and_leave_nothing_unexplained, 0, HARD_SEEDS);
    tcase_add_loop_test(tc, coordinator_that_was_taken_over_from_in_its_sleep__does_nothing_when_it_wakes, 0,
                        TWO_SEEDS);
    tcase_add_test(tc, scenarios_of_the_sweep__go_the_way_that_they_are_named_for);
    tcase_add_test(tc, crash_at_an_observation_point__strikes_there_and_is_survived);
    tcase_add_loop_test(tc, mended_defect__stays_mended, 0, (int)(sizeof scenarios / sizeof scenarios[0]));
    suite_add_tcase(s, tc);
    tc = tcase_create("the simulator itself");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, same_seed__is_the_same_run);
    tcase_add_test(tc, another_seed__is_another_run);
    tcase_add_test(tc, plan__survives_its_way_through_json);
    tcase_add_test(tc, plan__that_makes_no_sense_is_refused);
    tcase_add_test(tc, strikes_of_a_sweep__are_read_from_their_names);
    tcase_add_test(tc, pairs_that_are_left_out__are_the_same_and_it_would_be_noticed_if_not);
    tcase_add_loop_test(tc, a_lie_of_the_world__is_found_by_the_checkers, 0, (int)(sizeof lies / sizeof lies[0]));
    tcase_add_test(tc, failing_plan__is_shrunk_to_what_matters);
    suite_add_tcase(s, tc);
    return s;
}

int main(void)
{
    run_init();
    SRunner *r = srunner_create(sim_suite());
    srunner_set_fork_status(r, CK_NOFORK); /* one process: what a run leaves behind would be seen by the next */
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
