/* test_doctor.c - what the doctor finds, what it does not guess, and what it dares to mend. */
#include "base/str.h"
#include "core/doctor.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Suite *doctor_suite(void);

#define GUEST     "11111111-2222-3333-4444-555555555555"
#define MIGRATION "01J00000000000000000000000"

static struct {
    struct lmo_doctor_host hosts[3];
    struct lmo_doctor_guest guests[4];
    struct lmo_doctor_use uses[2];
    struct lmo_doctor_export exports[3];
    struct lmo_doctor_port ports[1];
    struct lmo_doctor_record records[4];
    struct lmo_doctor_ended ended[1];
    struct lmo_doctor_aside aside[1];
    struct lmo_migration m;
    struct lmo_doctor_open open[1];
    struct lmo_doctor_moved moved[1];
} x;
static struct lmo_doctor_world w;
static struct lmo_finding found[16];
static bool more;

/* Three hosts, all seen; one guest, on hv1. */
static void fresh(void)
{
    memset(&x, 0, sizeof x);
    static const char *const names[] = {"hv1", "hv2", "store"};
    for (int i = 0; i < 3; i++) {
        LMO_COPY(x.hosts[i].name, names[i]);
        x.hosts[i].seen = true;
        x.hosts[i].hypervisor = i < 2;
    }
    x.m = (struct lmo_migration){.version = 1, .epoch = 32, .phase = LMO_PHASE_PRECOPY};
    LMO_COPY(x.m.id, MIGRATION);
    LMO_COPY(x.m.source, "hv1");
    LMO_COPY(x.m.destination, "hv2");
    LMO_COPY(x.m.vm.uuid, GUEST);
    LMO_COPY(x.m.vm.name, "g");
    x.m.vm.volume_count = 1;
    LMO_COPY(x.m.vm.volumes[0].volume, "vol");
    w = (struct lmo_doctor_world){.hosts = x.hosts,
                                  .host_count = 3,
                                  .guests = x.guests,
                                  .uses = x.uses,
                                  .exports = x.exports,
                                  .ports = x.ports,
                                  .records = x.records,
                                  .ended = x.ended,
                                  .aside = x.aside,
                                  .open = x.open,
                                  .moved = x.moved};
}

static void guest(const char *host, enum lmo_run_state state)
{
    struct lmo_doctor_guest *g = &x.guests[w.guest_count++];
    LMO_COPY(g->host, host);
    LMO_COPY(g->uuid, GUEST);
    LMO_COPY(g->name, "g");
    g->state = state;
}

static void record(const char *worker, enum lmo_op_role role, const char *stage)
{
    struct lmo_doctor_record *r = &x.records[w.record_count++];
    LMO_COPY(r->worker, worker);
    LMO_COPY(r->migration, MIGRATION);
    LMO_COPY(r->vm, GUEST);
    LMO_COPY(r->stage, stage);
    r->role = role;
    r->epoch = 32;
}

static void export(const char *name, const char *host, uint64_t epoch)
{
    struct lmo_doctor_export *e = &x.exports[w.export_count++];
    LMO_COPY(e->worker, "store");
    LMO_COPY(e->volume, "vol");
    LMO_COPY(e->name, name);
    LMO_COPY(e->host, host);
    e->epoch = epoch;
    e->offered = true;
}

static void use(const char *export_name)
{
    struct lmo_doctor_use *u = &x.uses[w.use_count++];
    LMO_COPY(u->uuid, GUEST);
    LMO_COPY(u->volume, "vol");
    LMO_COPY(u->export_name, export_name);
}

static void ended_as(enum lmo_phase phase)
{
    w.ended_count = 1;
    x.ended[0] = (struct lmo_doctor_ended){.phase = phase, .epoch = 33};
    LMO_COPY(x.ended[0].migration, MIGRATION);
    LMO_COPY(x.ended[0].source, "hv1");
    LMO_COPY(x.ended[0].destination, "hv2");
}

/* As the engine fills it in. */
static void arrange(void)
{
    w.moved_count = w.open_count ? x.m.vm.volume_count : 0;
    lmo_doctor_fill_open(&x.open[0], &x.m);
    LMO_COPY(x.moved[0].volume, x.m.vm.volumes[0].volume);
    lmo_doctor_arrange(&w);
}

static unsigned examine(void)
{
    arrange();
    return lmo_doctor_examine(&w, found, 16, &more);
}

static void one(enum lmo_finding_kind kind, enum lmo_repair repair)
{
    unsigned n = examine();
    ck_assert_msg(n == 1, "%u findings, the first %s", n, n ? found[0].text : "");
    ck_assert_str_eq(lmo_finding_text(found[0].kind), lmo_finding_text(kind));
    ck_assert_str_eq(lmo_repair_text(found[0].repair), lmo_repair_text(repair));
    ck_assert(found[0].text[0] && found[0].command_count > 0);
}

/* ------------------------------------------------------------------ guests */

START_TEST(a_world_in_order_has_no_findings)
{
    fresh();
    guest("hv1", LMO_RUN_RUNNING);
    export("vol.hv1.e1", "hv1", 1);
    use("vol.hv1.e1");
    ck_assert_uint_eq(examine(), 0);
}
END_TEST

START_TEST(a_move_under_way_is_in_order)
{
    fresh();
    w.open_count = 1;
    guest("hv1", LMO_RUN_RUNNING);
    guest("hv2", LMO_RUN_INCOMING);
    export("vol.hv1.e1", "hv1", 1);
    export("vol.hv2.e32", "hv2", 32);
    use("vol.hv1.e1");
    record("hv1", LMO_OP_ROLE_SOURCE, "job");
    record("store", LMO_OP_ROLE_VOLUME, "");
    ck_assert_uint_eq(examine(), 0);
}
END_TEST

START_TEST(a_guest_that_runs_twice_is_critical_even_in_a_move_and_never_mended)
{
    for (int open = 0; open < 2; open++) {
        fresh();
        w.open_count = (unsigned)open;
        guest("hv1", LMO_RUN_RUNNING);
        guest("hv2", LMO_RUN_RUNNING);
        one(LMO_FINDING_GUEST_TWICE, LMO_REPAIR_NONE);
        ck_assert_int_eq(lmo_finding_severity(found[0].kind), LMO_SEVERITY_CRITICAL);
    }
}
END_TEST

START_TEST(a_second_definition_is_told_and_left_alone)
{
    fresh();
    guest("hv1", LMO_RUN_SHUT_OFF);
    guest("hv2", LMO_RUN_RUNNING);
    one(LMO_FINDING_DEFINED_TWICE, LMO_REPAIR_NONE);
    ck_assert_ptr_nonnull(strstr(found[0].commands[1], "hv1"));
}
END_TEST

/* ------------------------------------------------------------------ what belongs to nobody */

START_TEST(an_export_beside_the_one_in_use_is_withdrawn)
{
    fresh();
    guest("hv1", LMO_RUN_RUNNING);
    export("vol.hv1.e1", "hv1", 1);
    export("vol.hv2.e32", "hv2", 32);
    use("vol.hv1.e1");
    one(LMO_FINDING_EXPORT_ORPHAN, LMO_REPAIR_DETACH);
    ck_assert_str_eq(found[0].object, "vol.hv2.e32");
    ck_assert_str_eq(found[0].host, "store");
}
END_TEST

START_TEST(an_export_is_left_alone_when_it_may_be_somebodys)
{
    fresh(); /* a guest that is off, or not started yet: the cloud's */
    export("vol.hv1.e1", "hv1", 1);
    ck_assert_uint_eq(examine(), 0);
    export("vol.hv2.e32", "hv2", 32); /* two, and nobody uses either: which one would it be? */
    ck_assert_uint_eq(examine(), 0);
    use("vol.hv1.e1");
    use("vol.hv2.e32"); /* both used: whoever they are */
    ck_assert_uint_eq(examine(), 0);
    w.use_count = 1;
    x.exports[1].fenced = true; /* fenced: excluded for good, that is its purpose */
    ck_assert_uint_eq(examine(), 0);
    x.exports[1].fenced = false;
    x.exports[1].offered = false;
    ck_assert_uint_eq(examine(), 0);
    x.exports[1].offered = true;
    w.open_count = 1; /* a migration is about the volume */
    ck_assert_uint_eq(examine(), 0);
    x.m.vm.volume_count = 0; /* or may be: it has not been described yet */
    x.m.phase = LMO_PHASE_PRECHECK;
    ck_assert_uint_eq(examine(), 0);
    w.open_count = 0;
    w.aside_count = 1; /* or one that was set aside */
    LMO_COPY(x.aside[0].vm, GUEST);
    ck_assert_uint_eq(examine(), 1);
    ck_assert_int_eq(found[0].kind, LMO_FINDING_QUARANTINED);
}
END_TEST

START_TEST(nothing_is_withdrawn_while_a_host_is_unseen_that_might_use_it)
{
    fresh();
    guest("hv1", LMO_RUN_RUNNING);
    export("vol.hv1.e1", "hv1", 1);
    export("vol.hv2.e32", "hv2", 32);
    use("vol.hv1.e1");
    x.hosts[1].seen = false;
    ck_assert_uint_eq(examine(), 2);
    ck_assert_int_eq(found[0].kind, LMO_FINDING_EXPORT_ORPHAN);
    ck_assert_int_eq(found[0].repair, LMO_REPAIR_NONE);
    ck_assert_int_eq(found[1].kind, LMO_FINDING_HOST_UNSEEN);
}
END_TEST

START_TEST(a_port_of_two_hosts_is_made_single_where_its_one_guest_is)
{
    fresh();
    guest("hv1", LMO_RUN_RUNNING);
    w.port_count = 1;
    LMO_COPY(x.ports[0].worker, "store");
    LMO_COPY(x.ports[0].id, "p");
    LMO_COPY(x.ports[0].uuid, GUEST);
    LMO_COPY(x.ports[0].guest_host, "hv1");
    LMO_COPY(x.ports[0].requested, "hv1");
    LMO_COPY(x.ports[0].additional, "none");
    ck_assert_uint_eq(examine(), 0);
    LMO_COPY(x.ports[0].requested, "hv1,hv2");
    one(LMO_FINDING_BINDING_ORPHAN, LMO_REPAIR_SINGLE);
    ck_assert_str_eq(found[0].other, "hv1");
    x.guests[0].state = LMO_RUN_PAUSED_OTHER; /* is that the guest? */
    one(LMO_FINDING_BINDING_ORPHAN, LMO_REPAIR_NONE);
    x.guests[0].state = LMO_RUN_RUNNING;
    w.open_count = 1;
    ck_assert_uint_eq(examine(), 0);
}
END_TEST

START_TEST(a_workers_record_is_closed_only_when_its_migration_is_known_to_be_over)
{
    fresh();
    record("hv1", LMO_OP_ROLE_SOURCE, "killed");
    ended_as(LMO_PHASE_COMPLETED);
    one(LMO_FINDING_RECORD_ORPHAN, LMO_REPAIR_CLOSE);
    ck_assert_uint_eq(found[0].epoch, 33); /* the migration's own last one */
    ended_as(LMO_PHASE_ABANDONED);         /* a person has it in hand */
    one(LMO_FINDING_RECORD_ORPHAN, LMO_REPAIR_NONE);
    w.ended_count = 0; /* another coordinator's, or of a store that was lost */
    ck_assert_uint_eq(examine(), 1);
    ck_assert_int_eq(found[0].repair, LMO_REPAIR_NONE);
    w.aside_count = 1;
    LMO_COPY(x.aside[0].migration, MIGRATION);
    one(LMO_FINDING_QUARANTINED, LMO_REPAIR_NONE);
}
END_TEST

/* ------------------------------------------------------------------ records that wait */

static void resting(enum lmo_phase phase)
{
    fresh();
    w.open_count = 1;
    x.m.phase = phase;
    x.m.reason_code = LMO_E_TIMEOUT;
    LMO_COPY(x.m.reason, "why");
}

START_TEST(a_record_that_waits_for_a_resume_that_happened_is_told)
{
    static const enum lmo_phase phases[] = {LMO_PHASE_CUTOVER, LMO_PHASE_ATTENTION};
    for (int i = 0; i < 2; i++) {
        resting(phases[i]);
        guest("hv2", LMO_RUN_RUNNING);
        record("hv2", LMO_OP_ROLE_DESTINATION, "resumed");
        one(LMO_FINDING_HAPPENED, LMO_REPAIR_RESUMED);
    }
}
END_TEST

START_TEST(it_is_not_told_on_half_of_the_evidence)
{
    resting(LMO_PHASE_ATTENTION); /* the worker says so, the guest is not there */
    record("hv2", LMO_OP_ROLE_DESTINATION, "resumed");
    one(LMO_FINDING_NEEDS_PERSON, LMO_REPAIR_NONE);
    resting(LMO_PHASE_ATTENTION); /* the guest is there, the worker says otherwise */
    guest("hv2", LMO_RUN_RUNNING);
    record("hv2", LMO_OP_ROLE_DESTINATION, "asking");
    one(LMO_FINDING_NEEDS_PERSON, LMO_REPAIR_NONE);
    resting(LMO_PHASE_ATTENTION); /* both, but the source was not seen */
    guest("hv2", LMO_RUN_RUNNING);
    record("hv2", LMO_OP_ROLE_DESTINATION, "resumed");
    x.hosts[0].seen = false;
    ck_assert_uint_eq(examine(), 2);
    ck_assert_int_eq(found[0].kind, LMO_FINDING_NEEDS_PERSON);
    resting(LMO_PHASE_ATTENTION); /* both, and it runs at the source, too */
    guest("hv1", LMO_RUN_RUNNING);
    guest("hv2", LMO_RUN_RUNNING);
    record("hv2", LMO_OP_ROLE_DESTINATION, "resumed");
    ck_assert_uint_eq(examine(), 2);
    ck_assert_int_eq(found[0].kind, LMO_FINDING_GUEST_TWICE);
    ck_assert_int_eq(found[1].repair, LMO_REPAIR_NONE);
}
END_TEST

START_TEST(a_record_that_waits_although_the_source_ran_on_is_told)
{
    resting(LMO_PHASE_CUTOVER);
    guest("hv1", LMO_RUN_RUNNING);
    record("hv2", LMO_OP_ROLE_DESTINATION, "discarded");
    one(LMO_FINDING_HAPPENED, LMO_REPAIR_BACK);
    guest("hv2", LMO_RUN_LOADED);
    ck_assert_uint_eq(examine(), 0); /* a copy is there after all: its worker has the word */
}
END_TEST

START_TEST(the_worst_comes_first_and_what_does_not_fit_is_said)
{
    resting(LMO_PHASE_ATTENTION);
    guest("hv1", LMO_RUN_RUNNING);
    guest("hv2", LMO_RUN_RUNNING);
    x.hosts[2].seen = false;
    ck_assert_uint_eq(examine(), 3);
    ck_assert(!more);
    for (unsigned i = 1; i < 3; i++) {
        ck_assert_int_le(lmo_finding_severity(found[i].kind), lmo_finding_severity(found[i - 1].kind));
    }
    ck_assert_uint_eq(lmo_doctor_examine(&w, found, 1, &more), 1);
    ck_assert(more);
    ck_assert_int_eq(found[0].kind, LMO_FINDING_GUEST_TWICE);
}
END_TEST

/* ------------------------------------------------------------------ ten thousand of everything */

#define MANY 10000

static void name_of(char *to, size_t size, const char *what, unsigned n)
{
    (void)snprintf(to, size, "%s%05u", what, n);
}

/* Fault n % 1000: 1 runs at both of its hosts; 2 waits for its resume; 3 has a record that belongs to nobody. All others are
 * moves in order, each with its export at its destination. Everything stands in an order that follows no name. */
START_TEST(ten_thousand_moves__are_looked_through_whatever_their_order)
{
    static struct lmo_doctor_open open[MANY];
    static struct lmo_doctor_moved moved[MANY];
    static struct lmo_doctor_guest guests[2 * MANY];
    static struct lmo_doctor_use uses[MANY];
    static struct lmo_doctor_export exports[2 * MANY];
    static struct lmo_doctor_record records[MANY];
    static struct lmo_finding all[64];
    fresh();
    w = (struct lmo_doctor_world){.hosts = x.hosts,
                                  .host_count = 3,
                                  .open = open,
                                  .moved = moved,
                                  .guests = guests,
                                  .uses = uses,
                                  .exports = exports,
                                  .records = records,
                                  .open_count = MANY,
                                  .moved_count = MANY,
                                  .guest_count = 2 * MANY,
                                  .use_count = MANY,
                                  .export_count = 2 * MANY,
                                  .record_count = MANY};
    for (unsigned i = 0; i < MANY; i++) {
        unsigned n = i * 7919U % MANY, fault = n % 1000;
        struct lmo_doctor_open *o = &open[i];
        *o = (struct lmo_doctor_open){.phase = fault == 2 ? LMO_PHASE_CUTOVER : LMO_PHASE_PRECOPY, .described = true};
        name_of(o->id, sizeof o->id, "M", n);
        name_of(o->vm, sizeof o->vm, "vm", n);
        LMO_COPY(o->source, "hv1");
        LMO_COPY(o->destination, "hv2");
        name_of(moved[i].volume, sizeof moved[i].volume, "vol", n);
        name_of(uses[i].export_name, sizeof uses[i].export_name, "vol.hv1.", n);
        name_of(uses[i].uuid, sizeof uses[i].uuid, "vm", n);
        for (unsigned k = 0; k < 2; k++) {
            struct lmo_doctor_guest *g = &guests[2 * i + k];
            struct lmo_doctor_export *e = &exports[i + k * MANY];
            name_of(g->uuid, sizeof g->uuid, "vm", n);
            LMO_COPY(g->host, k ? "hv1" : "hv2");
            g->state = k ? fault == 2 ? LMO_RUN_PAUSED_MIGRATION : LMO_RUN_RUNNING
                         : fault == 1 || fault == 2 ? LMO_RUN_RUNNING : LMO_RUN_INCOMING;
            LMO_COPY(e->worker, "store");
            name_of(e->volume, sizeof e->volume, "vol", n);
            name_of(e->name, sizeof e->name, k ? "vol.hv1." : "vol.hv2.", n);
            LMO_COPY(e->host, k ? "hv1" : "hv2");
            e->offered = true;
        }
        records[i] = (struct lmo_doctor_record){.role = LMO_OP_ROLE_DESTINATION, .epoch = 1};
        name_of(records[i].migration, sizeof records[i].migration, fault == 3 ? "X" : "M", n);
        name_of(records[i].vm, sizeof records[i].vm, "vm", n);
        LMO_COPY(records[i].worker, "hv2");
        LMO_COPY(records[i].stage, fault == 2 ? "resumed" : "waiting");
    }
    lmo_doctor_arrange(&w);
    unsigned kinds[LMO_FINDING_COUNT] = {0}, count = lmo_doctor_examine(&w, all, 64, &more);
    for (unsigned i = 0; i < count; i++) {
        const char *name = all[i].kind == LMO_FINDING_RECORD_ORPHAN ? all[i].migration : all[i].vm;
        unsigned fault = all[i].kind == LMO_FINDING_GUEST_TWICE ? 1 : all[i].kind == LMO_FINDING_HAPPENED ? 2 : 3;
        ck_assert_uint_eq((unsigned)strtoul(name + strcspn(name, "0123456789"), NULL, 10) % 1000, fault);
        kinds[all[i].kind]++;
    }
    ck_assert(!more);
    ck_assert_uint_eq(kinds[LMO_FINDING_GUEST_TWICE], MANY / 1000);
    ck_assert_uint_eq(kinds[LMO_FINDING_HAPPENED], MANY / 1000);
    ck_assert_uint_eq(kinds[LMO_FINDING_RECORD_ORPHAN], MANY / 1000);
    ck_assert_uint_eq(count, 3 * MANY / 1000);
}
END_TEST

Suite *doctor_suite(void)
{
    Suite *s = suite_create("doctor");
    TCase *t = tcase_create("findings");
    tcase_add_test(t, a_world_in_order_has_no_findings);
    tcase_add_test(t, a_move_under_way_is_in_order);
    tcase_add_test(t, a_guest_that_runs_twice_is_critical_even_in_a_move_and_never_mended);
    tcase_add_test(t, a_second_definition_is_told_and_left_alone);
    tcase_add_test(t, an_export_beside_the_one_in_use_is_withdrawn);
    tcase_add_test(t, an_export_is_left_alone_when_it_may_be_somebodys);
    tcase_add_test(t, nothing_is_withdrawn_while_a_host_is_unseen_that_might_use_it);
    tcase_add_test(t, a_port_of_two_hosts_is_made_single_where_its_one_guest_is);
    tcase_add_test(t, a_workers_record_is_closed_only_when_its_migration_is_known_to_be_over);
    tcase_add_test(t, a_record_that_waits_for_a_resume_that_happened_is_told);
    tcase_add_test(t, it_is_not_told_on_half_of_the_evidence);
    tcase_add_test(t, a_record_that_waits_although_the_source_ran_on_is_told);
    tcase_add_test(t, the_worst_comes_first_and_what_does_not_fit_is_said);
    tcase_add_test(t, ten_thousand_moves__are_looked_through_whatever_their_order);
    tcase_set_timeout(t, 60);
    suite_add_tcase(s, t);
    return s;
}
