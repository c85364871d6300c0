/* test_events.c - the event log from both ends: what the store keeps, what filters and the wait for a guest's owner do. */
#include "base/clock.h"
#include "base/id.h"
#include "base/str.h"
#include "engine/events_port.h"
#include "engine/feed.h"
#include "engine/ports.h"
#include "sql/sql.h"
#include "tmpdir.h"

#include <check.h>
#include <string.h>

static char dir[TMPDIR_MAX];
static bool leaps; /* the test restores: between two numbers there may be many that were never given */
static struct lmo_store *store;

static void open_store(void)
{
    struct lmo_err err = {0};
    ck_assert_msg(lmo_store_sqlite_open(dir, &store, &err) == 0, "%s", err.text);
}

static void set_up(void)
{
    tmpdir_make(dir, "events");
    open_store();
}

static void tear_down(void)
{
    store->ops->close(store);
    tmpdir_remove(dir);
}

static void reopen(void)
{
    store->ops->close(store);
    open_store();
}

/* ------------------------------------------------------------------ a log with records */

static struct lmo_migration record(unsigned n)
{
    struct lmo_migration m;
    uint8_t random[10] = {(uint8_t)n, (uint8_t)(n >> 8)};
    memset(&m, 0, sizeof m);
    lmo_ulid_format(UINT64_C(1763643055000), random, m.id);
    snprintf(m.vm.uuid, sizeof m.vm.uuid, "00000000-0000-4000-8000-%012u", n);
    LMO_COPY(m.source, "hv1");
    LMO_COPY(m.destination, "hv2");
    m.version = 1;
    m.epoch = 16;
    m.created_ms = 1;
    return m;
}

static struct lmo_event_row row(const char *type, const char *migration)
{
    struct lmo_event_row r = {.at_ms = (int64_t)(lmo_realtime_us() / 1000)};
    LMO_COPY(r.type, type);
    LMO_COPY(r.migration, migration);
    LMO_COPY(r.data, "{\"x\":1}");
    return r;
}

static int commit(const struct lmo_migration *m, uint64_t expected, const struct lmo_event_row *events, unsigned count)
{
    struct lmo_commit_item item = {.record = m, .expected_version = expected, .events = events, .event_count = count};
    struct lmo_err err = {0};
    return store->ops->commit(store, &item, 1, NULL, 0, &err);
}

struct seen {
    unsigned count;
    uint64_t first, last;
    char types[64][LMO_EVENT_TYPE_MAX];
};

static int see(void *arg, const struct lmo_event_row *r)
{
    struct seen *s = arg;
    ck_assert(s->count == 0 || r->seq == s->last + 1 || (leaps && r->seq >= s->last + LMO_EVENT_LEAP / 2)); /* no holes */
    s->first = s->count ? s->first : r->seq;
    s->last = r->seq;
    if (s->count < 64) {
        LMO_COPY(s->types[s->count], r->type);
    }
    s->count++;
    return 0;
}

static struct seen all_after(uint64_t after)
{
    struct seen s = {0};
    struct lmo_err err = {0};
    ck_assert_msg(store->events->list(store, after, 1000000, see, &s, &err) == 0, "%s", err.text);
    return s;
}

static struct lmo_event_range range(void)
{
    struct lmo_event_range r;
    struct lmo_err err = {0};
    ck_assert_msg(store->events->range(store, &r, &err) == 0, "%s", err.text);
    return r;
}

START_TEST(an_event__is_stored_with_its_record_or_not_at_all)
{
    struct lmo_migration m = record(1);
    struct lmo_event_row e[2] = {row("migration.accepted", m.id), row("migration.phase", m.id)};
    ck_assert_int_eq(commit(&m, 0, e, 2), 0);
    ck_assert_uint_eq(all_after(0).count, 2);
    m.version = 5;
    ck_assert_int_eq(commit(&m, 3, e, 2), LMO_E_CONFLICT); /* a version that is not stored */
    ck_assert_uint_eq(all_after(0).count, 2);
    ck_assert_int_eq(commit(&m, 1, e, 1), 0);
    reopen();
    struct seen s = all_after(0);
    ck_assert_uint_eq(s.count, 3);
    ck_assert_str_eq(s.types[0], "migration.accepted");
    ck_assert_uint_eq(s.last, 3); /* the number of what was rolled back was given to nobody, and is not lost */
}
END_TEST

START_TEST(an_event_of_a_host__goes_with_its_change_and_not_without_it)
{
    struct lmo_host_row host = {.name = "hv1", .url = "https://10.0.0.1:1"};
    struct lmo_event_row e = row("host.added", "");
    struct lmo_err err = {0};
    ck_assert_int_eq(store->events->add(store, &e), 0);
    ck_assert_uint_eq(all_after(0).count, 0); /* waits */
    ck_assert_int_eq(store->ops->host_put(store, &host, &err), 0);
    ck_assert_uint_eq(all_after(0).count, 1);
    ck_assert_int_eq(store->events->add(store, &e), 0);
    ck_assert_int_eq(store->ops->host_put(store, &host, &err), LMO_E_CONFLICT); /* it is there already */
    store->events->withdraw(store);
    ck_assert_int_eq(store->ops->commit(store, NULL, 0, NULL, 0, &err), 0);
    ck_assert_uint_eq(all_after(0).count, 1);
    e = row("host.up", "");
    ck_assert_int_eq(store->events->add(store, &e), 0);
    ck_assert_int_eq(store->ops->commit(store, NULL, 0, NULL, 0, &err), 0); /* of nothing else: with any commit */
    ck_assert_uint_eq(all_after(1).count, 1);
    ck_assert_int_eq(store->ops->host_delete(store, "hv9", &err), LMO_E_NOT_FOUND);
}
END_TEST

START_TEST(numbers__are_never_given_twice_not_even_when_everything_was_dropped)
{
    struct lmo_migration m = record(1);
    struct lmo_event_row old = row("migration.accepted", m.id), young = row("migration.phase", m.id);
    old.at_ms = 1000; /* 1970 */
    for (unsigned i = 0; i < 10; i++) {
        m.version = i + 1;
        ck_assert_int_eq(commit(&m, i, &old, 1), 0);
    }
    store->events->keep(store, 0, 1000);
    ck_assert_int_eq(store->ops->commit(store, NULL, 0, NULL, 0, NULL), 0);
    ck_assert_uint_eq(all_after(0).count, 0);
    struct lmo_event_range r = range();
    ck_assert_uint_eq(r.newest, 10);
    ck_assert_uint_eq(r.oldest, 11);
    reopen();
    r = range();
    ck_assert_uint_eq(r.newest, 10);
    m.version = 11;
    ck_assert_int_eq(commit(&m, 10, &young, 1), 0);
    ck_assert_uint_eq(all_after(0).first, 11);
}
END_TEST

START_TEST(the_log__is_kept_within_its_count_by_those_who_write_to_it)
{
    struct lmo_migration m = record(1);
    struct lmo_event_row e = row("migration.phase", m.id), many[50];
    for (unsigned i = 0; i < 50; i++) {
        many[i] = e;
    }
    store->events->keep(store, 200, 0);
    for (unsigned i = 0; i < 40; i++) {
        m.version = i + 1;
        ck_assert_int_eq(commit(&m, i, many, 50), 0);
        ck_assert_uint_le(all_after(0).count, 200 + 256 + 50);
    }
    struct lmo_event_range r = range();
    ck_assert_uint_eq(r.newest, 2000);
    ck_assert_uint_ge(r.oldest, 2000 - 200 - 256 - 50);
    ck_assert_uint_eq(all_after(r.newest - 3).count, 3);
}
END_TEST

static void tell_one(void)
{
    struct lmo_event_row e = row("host.up", "");
    struct lmo_err err = {0};
    ck_assert_int_eq(store->events->add(store, &e), 0);
    ck_assert_msg(store->ops->commit(store, NULL, 0, NULL, 0, &err) == 0, "%s", err.text);
}

static uint64_t newest(void)
{
    struct lmo_event_range range;
    struct lmo_err err = {0};
    ck_assert_int_eq(store->events->range(store, &range, &err), 0);
    return range.newest;
}

START_TEST(numbers__are_never_given_twice_not_even_after_restores_of_the_same_backup)
{
    char copy[TMPDIR_MAX + 16];
    struct lmo_err err = {0};
    uint64_t highest = 0;
    leaps = true;
    snprintf(copy, sizeof copy, "%s/copy", dir);
    tell_one();
    tell_one();
    ck_assert_msg(lmo_store_sqlite_backup(dir, copy, NULL, &err) == 0, "%s", err.text);
    for (unsigned i = 0; i < 5; i++) {
        tell_one(); /* what followers have seen, and the backup does not know */
    }
    highest = newest();
    for (unsigned round = 0; round < 3; round++) {
        store->ops->close(store);
        ck_assert_msg(lmo_store_sqlite_restore(dir, copy, &err) == 0, "%s", err.text);
        open_store();
        ck_assert_uint_ge(newest(), highest);
        tell_one(); /* while it observes */
        ck_assert_int_eq(store->ops->activate(store, &err), 0);
        tell_one();
        ck_assert_uint_eq(all_after(0).count, 4); /* two of the backup, and these */
        ck_assert_uint_eq(all_after(highest).count, 2);
        highest = newest();
        reopen();
        ck_assert_uint_eq(newest(), highest); /* it leaps no more */
        ck_assert_uint_lt(highest, UINT64_C(1) << 53); /* exact in every reader of JSON */
    }
    store->events->keep(store, 3, 0); /* counts events, not the numbers between them */
    tell_one();
    ck_assert_uint_eq(all_after(0).count, 3);
    leaps = false;
}
END_TEST

/* ------------------------------------------------------------------ webhooks in the store */

static int see_webhook(void *arg, const struct lmo_webhook_row *w)
{
    *(struct lmo_webhook_row *)arg = *w;
    return 0;
}

static int see_letter(void *arg, const struct lmo_dead_letter *l)
{
    struct lmo_dead_letter *to = arg;
    ck_assert_uint_lt(to->seq, l->seq);
    *to = *l;
    return 0;
}

START_TEST(a_webhook__keeps_its_place_its_secrets_and_its_dead_letters)
{
    struct lmo_err err = {0};
    unsigned dropped = 9;
    uint64_t count = 0;
    struct lmo_webhook_row w = {.id = "01J00000000000000000000001",
                                .url = "https://example.org/x",
                                .secret = "whsec_a",
                                .old_secret = "whsec_b",
                                .enabled = true,
                                .cursor = 3,
                                .created_by = "operator:o"},
                           got;
    ck_assert_msg(store->events->webhook_put(store, &w, &err) == 0, "%s", err.text);
    w.cursor = 7;
    w.failures = 2;
    ck_assert_int_eq(store->events->webhook_progress(store, &w, &err), 0);
    struct lmo_dead_letter l = {
        .webhook = "01J00000000000000000000001", .seq = 5, .type = "host.up", .body = "{}", .attempts = 4};
    w.cursor = 8;
    ck_assert_int_eq(store->events->dead_put(store, &l, &w, &dropped, &err), 0);
    ck_assert_uint_eq(dropped, 0);
    reopen();
    ck_assert_int_eq(store->events->webhook_list(store, see_webhook, &got, &err), 0);
    ck_assert_uint_eq(got.cursor, 8);
    ck_assert_str_eq(got.secret, "whsec_a");
    ck_assert_str_eq(got.old_secret, "whsec_b");
    struct lmo_dead_letter seen = {0};
    ck_assert_int_eq(store->events->dead_list(store, w.id, true, 0, 10, see_letter, &seen, &err), 0);
    ck_assert_uint_eq(seen.seq, 0);
    ck_assert_int_eq(store->events->dead_want(store, w.id, 0, true, &count, &err), 0);
    ck_assert_uint_eq(count, 1);
    ck_assert_int_eq(store->events->dead_list(store, w.id, true, 0, 10, see_letter, &seen, &err), 0);
    ck_assert_uint_eq(seen.seq, 5);
    for (unsigned i = 0; i < LMO_DEAD_LETTERS_MAX; i++) {
        l.seq = 6 + i;
        ck_assert_int_eq(store->events->dead_put(store, &l, &w, &dropped, &err), 0);
    }
    ck_assert_uint_eq(dropped, 1); /* the oldest made room */
    ck_assert_int_eq(store->events->webhook_delete(store, w.id, &err), 0);
    seen = (struct lmo_dead_letter){0};
    ck_assert_int_eq(store->events->dead_list(store, w.id, false, 0, 10, see_letter, &seen, &err), 0);
    ck_assert_uint_eq(seen.seq, 0);
    ck_assert_int_eq(store->events->webhook_delete(store, w.id, &err), LMO_E_NOT_FOUND);
    ck_assert_int_eq(store->events->dead_put(store, &l, &w, &dropped, &err),
                     0); /* of one that is gone: nothing stays */
    ck_assert_int_eq(store->events->dead_list(store, w.id, false, 0, 10, see_letter, &seen, &err), 0);
    ck_assert_uint_eq(seen.seq, 0);
}
END_TEST

START_TEST(a_hook_of_a_guest__is_replaced_found_and_removed)
{
    struct lmo_err err = {0};
    struct lmo_vm_hook_row h = {.vm = "0f0e0d0c-0b0a-4908-8706-050403020100",
                                .url = "https://t/",
                                .deadline_ms = 5000,
                                .on_no_answer = "abort",
                                .secret = "whsec_x"},
                           got;
    ck_assert_int_eq(store->events->vm_hook_get(store, h.vm, &got, &err), LMO_E_NOT_FOUND);
    ck_assert_int_eq(store->events->vm_hook_put(store, &h, &err), 0);
    h.deadline_ms = 6000;
    ck_assert_int_eq(store->events->vm_hook_put(store, &h, &err), 0);
    reopen();
    ck_assert_int_eq(store->events->vm_hook_get(store, h.vm, &got, &err), 0);
    ck_assert_uint_eq(got.deadline_ms, 6000);
    ck_assert_str_eq(got.on_no_answer, "abort");
    ck_assert_int_eq(store->events->vm_hook_delete(store, h.vm, &err), 0);
    ck_assert_int_eq(store->events->vm_hook_delete(store, h.vm, &err), LMO_E_NOT_FOUND);
}
END_TEST

/* ------------------------------------------------------------------ filters */

START_TEST(types__are_words_and_kinds_and_nothing_else)
{
    static const struct {
        const char *types;
        bool good;
    } cases[] = {{"", true},
                 {"*", true},
                 {"migration.phase", true},
                 {"migration.*", true},
                 {"host.up,migration.*", true},
                 {"migration.", false},
                 {".phase", false},
                 {"a..b", false},
                 {"migration.phase,", false},
                 {"Migration.Phase", false},
                 {"migration*", false},
                 {"a b", false},
                 {",", false},
                 {"mi\ngr", false},
                 {".*", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_err err = {0};
        ck_assert_msg((lmo_event_types_check(cases[i].types, &err) == 0) == cases[i].good, "'%s'", cases[i].types);
        ck_assert(cases[i].good || strncmp(err.text, "types: ", 7) == 0);
    }
}
END_TEST

START_TEST(filters__match_by_type_migration_guest_and_either_host)
{
    struct lmo_event_row e = row("migration.phase", "01J00000000000000000000001");
    LMO_COPY(e.vm, "0f0e0d0c-0b0a-4908-8706-050403020100");
    LMO_COPY(e.vm_name, "web1");
    LMO_COPY(e.host, "hv1");
    LMO_COPY(e.to_host, "hv2");
    const struct {
        struct lmo_event_filter f;
        bool matches;
    } cases[] = {
        {{.types = ""}, true},
        {{.types = "migration.phase"}, true},
        {{.types = "migration.*"}, true},
        {{.types = "*"}, true},
        {{.types = "host.up,migration.phase"}, true},
        {{.types = "migration.phases"}, false},
        {{.types = "migration.phas"}, false},
        {{.types = "migration.phase.*"}, false},
        {{.types = "host.*"}, false},
        {{.migration = "01J00000000000000000000001"}, true},
        {{.migration = "01J00000000000000000000002"}, false},
        {{.vm = "web1"}, true},
        {{.vm = "0f0e0d0c-0b0a-4908-8706-050403020100"}, true},
        {{.vm = "web2"}, false},
        {{.host = "hv1"}, true},
        {{.host = "hv2"}, true},
        {{.host = "hv3"}, false},
        {{.drain = "01J00000000000000000000003"}, false},
        {{.types = "migration.*", .host = "hv2", .vm = "web1"}, true},
        {{.types = "migration.*", .host = "hv3", .vm = "web1"}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(lmo_event_matches(&cases[i].f, &e) == cases[i].matches, "case %zu", i);
    }
}
END_TEST

/* ------------------------------------------------------------------ the wait for a guest's owner */

static struct lmo_migration asked(enum lmo_no_answer on_no_answer)
{
    struct lmo_migration m = record(1);
    m.created_ms = 1000;
    m.deadline_ms = 1000000;
    m.next_ordinal = 1;
    m.policy.max_downtime_ms = 300;
    m.phase_times[0] = (struct lmo_phase_time){.phase = LMO_PHASE_QUEUED, .started_ms = 1000};
    m.phase_time_count = 1;
    lmo_notice_begin(&m, "https://t/", 5000, on_no_answer);
    return m;
}

static struct lmo_effects fx;

static int step(struct lmo_migration *m, enum lmo_event_kind kind, int64_t now_ms, const char *text)
{
    static struct lmo_migration next;
    struct lmo_err err = {0};
    struct lmo_event ev = {.kind = kind, .now_ms = now_ms, .now_boot_us = (uint64_t)now_ms * 1000, .text = text};
    int r = lmo_core_step(m, &ev, &next, &fx, &err);
    if (r == 0) {
        *m = next;
        ck_assert_ptr_null(lmo_migration_broken(m));
    }
    return r;
}

START_TEST(notice__holds_the_migration_in_the_queue_until_it_is_acknowledged_or_overdue)
{
    static const struct {
        enum lmo_no_answer on_no_answer;
        int64_t ack_ms, timer_ms; /* 0: does not come */
        enum lmo_notice_state state;
        enum lmo_phase phase; /* after an admission that comes last */
    } cases[] = {
        {LMO_NO_ANSWER_PROCEED, 0, 0, LMO_NOTICE_WAITING, LMO_PHASE_QUEUED},
        {LMO_NO_ANSWER_PROCEED, 2000, 0, LMO_NOTICE_ACKNOWLEDGED, LMO_PHASE_PRECHECK},
        {LMO_NO_ANSWER_ABORT, 2000, 0, LMO_NOTICE_ACKNOWLEDGED, LMO_PHASE_PRECHECK},
        {LMO_NO_ANSWER_PROCEED, 0, 5999, LMO_NOTICE_WAITING, LMO_PHASE_QUEUED}, /* too early */
        {LMO_NO_ANSWER_PROCEED, 0, 6000, LMO_NOTICE_UNANSWERED, LMO_PHASE_PRECHECK},
        {LMO_NO_ANSWER_ABORT, 0, 6000, LMO_NOTICE_UNANSWERED, LMO_PHASE_ABORTED},
        {LMO_NO_ANSWER_ABORT, 5999, 6001, LMO_NOTICE_ACKNOWLEDGED, LMO_PHASE_PRECHECK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_migration m = asked(cases[i].on_no_answer);
        ck_assert(m.waiting_for[0] && lmo_migration_awaits_notice(&m));
        ck_assert_int_eq(step(&m, LMO_EV_RECOVERED, 1500, NULL), 0); /* a restart ends nothing */
        ck_assert_int_eq(fx.wake_ms, 6000);
        ck_assert_int_eq(step(&m, LMO_EV_ADMITTED, 1600, NULL), 0); /* and nothing else begins it */
        ck_assert_int_eq(m.phase, LMO_PHASE_QUEUED);
        if (cases[i].ack_ms) {
            ck_assert_int_eq(step(&m, LMO_EV_ACKNOWLEDGED, cases[i].ack_ms, "control-plane:cp"), 0);
            ck_assert(fx.notice_settled && fx.durable);
            ck_assert_str_eq(m.notice.by, "control-plane:cp");
            ck_assert_int_eq(step(&m, LMO_EV_ACKNOWLEDGED, cases[i].ack_ms, "somebody:else"), 0); /* said again */
            ck_assert(!fx.notice_settled);
            ck_assert_str_eq(m.notice.by, "control-plane:cp");
        }
        if (cases[i].timer_ms) {
            ck_assert_int_eq(step(&m, LMO_EV_TIMER, cases[i].timer_ms, NULL), 0);
        }
        ck_assert_int_eq(m.notice.state, cases[i].state);
        ck_assert_int_eq(m.waiting_for[0] != '\0', cases[i].state == LMO_NOTICE_WAITING);
        if (m.phase == LMO_PHASE_QUEUED) {
            ck_assert_int_eq(step(&m, LMO_EV_ADMITTED, 7000, NULL), 0);
        }
        ck_assert_int_eq(m.phase, cases[i].phase);
        if (cases[i].phase == LMO_PHASE_ABORTED) {
            ck_assert_int_eq(m.reason_code, LMO_E_TIMEOUT);
            ck_assert_int_eq(step(&m, LMO_EV_ACKNOWLEDGED, 7000, "x"), LMO_E_CONFLICT);
        }
    }
}
END_TEST

START_TEST(acknowledgement__of_what_waits_for_none_is_a_conflict_and_a_cancel_ends_the_wait)
{
    struct lmo_migration m = record(1), late;
    m.deadline_ms = 1000000;
    ck_assert_int_eq(step(&m, LMO_EV_ACKNOWLEDGED, 2000, "x"), LMO_E_CONFLICT);
    late = asked(LMO_NO_ANSWER_PROCEED);
    ck_assert_int_eq(step(&late, LMO_EV_TIMER, 6000, NULL), 0);
    ck_assert_int_eq(step(&late, LMO_EV_ACKNOWLEDGED, 6001, "x"), LMO_E_CONFLICT);
    m = asked(LMO_NO_ANSWER_ABORT);
    ck_assert_int_eq(step(&m, LMO_EV_CANCEL, 2000, "cancelled"), 0);
    ck_assert_int_eq(m.phase, LMO_PHASE_ABORTED);
    ck_assert_int_eq(m.reason_code, LMO_E_CANCELLED);
}
END_TEST

START_TEST(a_step__says_which_phases_it_entered)
{
    struct lmo_migration m = asked(LMO_NO_ANSWER_ABORT);
    ck_assert_int_eq(step(&m, LMO_EV_TIMER, 2000, NULL), 0);
    ck_assert_uint_eq(fx.entered_count, 0);
    ck_assert_int_eq(step(&m, LMO_EV_TIMER, 6000, NULL), 0);
    ck_assert_uint_eq(fx.entered_count, 1);
    ck_assert_int_eq(fx.entered[0], LMO_PHASE_ABORTED);
}
END_TEST

START_TEST(spans_of_phases__differ_are_well_formed_and_stay_the_same)
{
    struct lmo_migration m = record(1);
    char spans[LMO_PHASE_TIMES_MAX + 1][LMO_SPAN_ID_MAX], again[LMO_SPAN_ID_MAX];
    LMO_COPY(m.trace.span, "00f067aa0ba902b7");
    for (unsigned i = 0; i <= LMO_PHASE_TIMES_MAX; i++) {
        lmo_trace_phase_span(&m, i, spans[i]);
        ck_assert_uint_eq(strspn(spans[i], "0123456789abcdef"), 16);
        for (unsigned k = 0; k < i; k++) {
            ck_assert_str_ne(spans[k], spans[i]);
        }
        lmo_trace_phase_span(&m, i, again);
        ck_assert_str_eq(again, spans[i]);
    }
    ck_assert_str_eq(spans[LMO_PHASE_TIMES_MAX], m.trace.span);
}
END_TEST

Suite *events_suite(void);
Suite *events_suite(void)
{
    Suite *s = suite_create("events");
    TCase *t = tcase_create("store");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, an_event__is_stored_with_its_record_or_not_at_all);
    tcase_add_test(t, an_event_of_a_host__goes_with_its_change_and_not_without_it);
    tcase_add_test(t, numbers__are_never_given_twice_not_even_when_everything_was_dropped);
    tcase_add_test(t, the_log__is_kept_within_its_count_by_those_who_write_to_it);
    tcase_add_test(t, numbers__are_never_given_twice_not_even_after_restores_of_the_same_backup);
    tcase_add_test(t, a_webhook__keeps_its_place_its_secrets_and_its_dead_letters);
    tcase_add_test(t, a_hook_of_a_guest__is_replaced_found_and_removed);
    suite_add_tcase(s, t);
    TCase *p = tcase_create("pure");
    tcase_add_test(p, types__are_words_and_kinds_and_nothing_else);
    tcase_add_test(p, filters__match_by_type_migration_guest_and_either_host);
    tcase_add_test(p, notice__holds_the_migration_in_the_queue_until_it_is_acknowledged_or_overdue);
    tcase_add_test(p, acknowledgement__of_what_waits_for_none_is_a_conflict_and_a_cancel_ends_the_wait);
    tcase_add_test(p, a_step__says_which_phases_it_entered);
    tcase_add_test(p, spans_of_phases__differ_are_well_formed_and_stay_the_same);
    suite_add_tcase(s, p);
    return s;
}
