/* test_hypervisor_event.c - what the driver makes of libvirt's and QEMU's events: their sequences as docs/libvirt.md has them,
 * fed to the driver's own callbacks. The domain is one of libvirt's test driver: only its name and UUID are looked at. */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/clock.h"
#include "suites.h"

#include <check.h>
#include <string.h>

#define TOLD_MAX 16

static struct lmo_lv lv;
static struct lmo_lv_job job;
static virConnectPtr conn;
static virDomainPtr dom;
static struct lmo_hv_event told[TOLD_MAX];
static unsigned told_count;
static uint64_t now_us;

static void on_event(void *arg, const struct lmo_hv_event *ev)
{
    (void)arg;
    ck_assert_uint_lt(told_count, TOLD_MAX);
    told[told_count++] = *ev;
}

static void setup(void)
{
    conn = virConnectOpen("test:///default");
    ck_assert_ptr_nonnull(conn);
    dom = virDomainLookupByName(conn, "test");
    ck_assert_ptr_nonnull(dom);
    memset(&lv, 0, sizeof lv);
    pthread_mutex_init(&lv.emit, NULL);
    pthread_mutex_init(&lv.lock, NULL);
    lmo_lv_cond_init(&lv.changed);
    lv.watch = conn;
    lv.generation = 1;
    lv.raw_events = true;
    lv.on_event = on_event;
    told_count = 0;
    now_us = lmo_realtime_us();
}

static void teardown(void)
{
    while (lv.guests) {
        struct lmo_lv_guest *g = lv.guests;
        lv.guests = g->next;
        g->job = NULL;
        lmo_lv_guest_free(g);
    }
    virDomainFree(dom);
    virConnectClose(conn);
    pthread_cond_destroy(&lv.changed);
    pthread_mutex_destroy(&lv.lock);
    pthread_mutex_destroy(&lv.emit);
}

static void raw(const char *event)
{
    lmo_lv_on_raw(conn, dom, event, (long long)(now_us / 1000000), (unsigned)(now_us % 1000000), "{}", &lv);
}

static void migration(const char *status)
{
    char details[64];
    (void)snprintf(details, sizeof details, "{\"status\":\"%s\"}", status);
    lmo_lv_on_raw(conn, dom, "MIGRATION", (long long)(now_us / 1000000), (unsigned)(now_us % 1000000), details, &lv);
}

static void lifecycle(virDomainEventType event, int detail)
{
    ck_assert_int_eq(lmo_lv_on_lifecycle(conn, dom, (int)event, detail, &lv), 0);
}

/* Our job runs: its call is under way and QEMU has begun to send. */
static void begin_job(void)
{
    char uuid[VIR_UUID_STRING_BUFLEN];
    ck_assert_int_eq(virDomainGetUUIDString(dom, uuid), 0);
    struct lmo_lv_guest *g = lmo_lv_guest_get(&lv, uuid, "test");
    ck_assert_ptr_nonnull(g);
    memset(&job, 0, sizeof job);
    g->job = &job;
    migration("setup");
    ck_assert(job.active);
}

static void check_told(unsigned count, enum lmo_hv_event_kind last)
{
    ck_assert_uint_eq(told_count, count);
    if (count > 0)
        ck_assert_int_eq((int)told[count - 1].kind, (int)last);
}

START_TEST(stop_during_our_job__is_told_as_the_pause_at_once_with_qemus_stamp)
{
    begin_job();
    raw("STOP");
    check_told(1, LMO_HV_EV_SUSPENDED);
    ck_assert(told[0].own_stamp);
    ck_assert_uint_eq(told[0].realtime_us, now_us);
    ck_assert_str_eq(told[0].reason, "migrated");
}
END_TEST

START_TEST(libvirts_word_after_qemus__is_not_a_second_pause)
{
    begin_job();
    raw("STOP");
    lifecycle(VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED);
    check_told(1, LMO_HV_EV_SUSPENDED);
}
END_TEST

START_TEST(each_pause__is_told_and_taken_back)
{
    begin_job();
    for (unsigned round = 0; round < 3; round++) {
        raw("STOP");
        check_told(2 * round + 1, LMO_HV_EV_SUSPENDED);
        lifecycle(VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED);
        raw("RESUME");
        lifecycle(VIR_DOMAIN_EVENT_RESUMED, VIR_DOMAIN_EVENT_RESUMED_UNPAUSED);
        check_told(2 * round + 2, LMO_HV_EV_RESUMED);
    }
}
END_TEST

START_TEST(stop_without_a_job__is_the_owners)
{
    raw("STOP");
    check_told(0, LMO_HV_EV_NONE);
    lifecycle(VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_PAUSED);
    check_told(1, LMO_HV_EV_PAUSED_OTHER);
}
END_TEST

START_TEST(stop_before_qemu_sends__is_left_to_libvirts_word)
{
    begin_job();
    job.active = false;
    raw("STOP");
    check_told(0, LMO_HV_EV_NONE);
    lifecycle(VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED);
    check_told(1, LMO_HV_EV_SUSPENDED);
    ck_assert(told[0].own_stamp);
}
END_TEST

START_TEST(stop_of_an_io_error__is_not_the_pause)
{
    begin_job();
    lifecycle(VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_IOERROR);
    check_told(1, LMO_HV_EV_PAUSED_OTHER);
    raw("STOP");
    check_told(1, LMO_HV_EV_PAUSED_OTHER);
}
END_TEST

START_TEST(stop_of_an_incoming_guest__is_not_the_pause)
{
    lifecycle(VIR_DOMAIN_EVENT_STARTED, VIR_DOMAIN_EVENT_STARTED_MIGRATED);
    check_told(1, LMO_HV_EV_INCOMING);
    lv.guests->job = &job; /* cannot be; were it so, the incoming guest is still none of ours */
    job.active = true;
    raw("STOP");
    check_told(1, LMO_HV_EV_INCOMING);
}
END_TEST

START_TEST(pause_after_a_broken_watch__is_told_again)
{
    begin_job();
    raw("STOP");
    check_told(1, LMO_HV_EV_SUSPENDED);
    lv.generation += 2; /* whatever happened in between was not seen */
    lifecycle(VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED);
    check_told(2, LMO_HV_EV_SUSPENDED);
}
END_TEST

START_TEST(without_qemus_events__libvirts_word_is_the_pause)
{
    lv.raw_events = false;
    begin_job();
    lifecycle(VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED);
    check_told(1, LMO_HV_EV_SUSPENDED);
    ck_assert(!told[0].own_stamp);
    ck_assert(lv.guests->anchor.valid);
}
END_TEST

START_TEST(stale_stamp__is_not_passed_on)
{
    begin_job();
    now_us -= 3000000;
    raw("STOP");
    check_told(1, LMO_HV_EV_SUSPENDED);
    ck_assert(!told[0].own_stamp);
    ck_assert_uint_gt(told[0].realtime_us, now_us + 2000000);
}
END_TEST

Suite *hypervisor_event_suite(void)
{
    Suite *s = suite_create("hypervisor_event");
    TCase *t = tcase_create("pause");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, stop_during_our_job__is_told_as_the_pause_at_once_with_qemus_stamp);
    tcase_add_test(t, libvirts_word_after_qemus__is_not_a_second_pause);
    tcase_add_test(t, each_pause__is_told_and_taken_back);
    tcase_add_test(t, stop_without_a_job__is_the_owners);
    tcase_add_test(t, stop_before_qemu_sends__is_left_to_libvirts_word);
    tcase_add_test(t, stop_of_an_io_error__is_not_the_pause);
    tcase_add_test(t, stop_of_an_incoming_guest__is_not_the_pause);
    tcase_add_test(t, pause_after_a_broken_watch__is_told_again);
    tcase_add_test(t, without_qemus_events__libvirts_word_is_the_pause);
    tcase_add_test(t, stale_stamp__is_not_passed_on);
    suite_add_tcase(s, t);
    return s;
}
