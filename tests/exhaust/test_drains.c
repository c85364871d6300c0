/* test_drains.c - drains: the tables against themselves, and every event in every state that small drains can get into,
 * with the invariants looked at after each step. */
#include "base/str.h"
#include "core/drain.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Suite *drains_suite(void);

#define HOSTS  2
#define GUESTS 3

START_TEST(names_are_unique_and_found_again)
{
    for (int a = 0; a < LMO_DRAIN_STATE_COUNT; a++) {
        ck_assert_int_eq(lmo_drain_state_from_text(lmo_drain_state_text((enum lmo_drain_state)a)), a);
    }
    for (int a = 0; a < LMO_DG_COUNT; a++) {
        ck_assert_int_eq(lmo_drain_guest_state_from_text(lmo_drain_guest_state_text((enum lmo_drain_guest_state)a)), a);
    }
    for (int a = 0; a < LMO_DH_COUNT; a++) {
        ck_assert_int_eq(lmo_drain_host_state_from_text(lmo_drain_host_state_text((enum lmo_drain_host_state)a)), a);
    }
    ck_assert_int_eq(lmo_drain_state_from_text("x"), LMO_DRAIN_STATE_COUNT);
    ck_assert_ptr_null(lmo_drain_state_text(LMO_DRAIN_STATE_COUNT));
}
END_TEST

START_TEST(terminal_states_have_no_successor)
{
    for (int a = 0; a < LMO_DRAIN_STATE_COUNT; a++) {
        bool follows = false;
        for (int b = 0; b < LMO_DRAIN_STATE_COUNT; b++) {
            follows |= lmo_drain_may_follow((enum lmo_drain_state)a, (enum lmo_drain_state)b);
        }
        ck_assert_int_eq(follows, !lmo_drain_is((enum lmo_drain_state)a, LMO_DRAIN_TERMINAL));
    }
}
END_TEST

/* ------------------------------------------------------------------ exploration */

struct world {
    struct lmo_drain d;
    struct lmo_drain_host hosts[HOSTS];
    struct lmo_drain_guest guests[GUESTS];
};

/* What of it decides what can follow: no texts, no absolute times. */
struct shape {
    uint8_t drain, stop, hosts[HOSTS][5], guests[GUESTS][10];
};

#define SEEN_MAX (1U << 22)
static uint64_t *seen;
static unsigned seen_count, steps;
static bool drain_pairs[LMO_DRAIN_STATE_COUNT][LMO_DRAIN_EV_COUNT];
static bool guest_pairs[LMO_DG_COUNT][LMO_DRAIN_EV_COUNT];
static bool host_pairs[LMO_DH_COUNT][LMO_DRAIN_EV_COUNT];

static bool first_time(const struct world *w)
{
    struct shape s;
    memset(&s, 0, sizeof s);
    s.drain = (uint8_t)w->d.state;
    s.stop = w->d.stop;
    for (unsigned i = 0; i < w->d.host_count; i++) {
        const struct lmo_drain_host *h = &w->hosts[i];
        uint8_t to[5] = {(uint8_t)h->state, h->cordon, (uint8_t)(h->rounds > 2 ? 2 : h->rounds), (uint8_t)h->hook_tries,
                         (uint8_t)((h->wait_ms != 0) + 2 * (h->look_ms != 0))};
        memcpy(s.hosts[i], to, sizeof to);
    }
    for (unsigned i = 0; i < w->d.guest_count; i++) {
        const struct lmo_drain_guest *g = &w->guests[i];
        uint8_t to[10] = {(uint8_t)g->state,
                          g->back,
                          (uint8_t)g->try_count,
                          (uint8_t)-g->tries[0].code,
                          (uint8_t)-g->tries[1].code,
                          (uint8_t)-g->tries[2].code,
                          (uint8_t)-g->tries[3].code,
                          g->destination[0] != 0,
                          (uint8_t)((g->wait_ms != 0) + 2 * (g->after_count > 0)),
                          (uint8_t)g->host};
        memcpy(s.guests[i], to, sizeof to);
    }
    uint64_t hash = UINT64_C(1469598103934665603);
    const unsigned char *bytes = (const unsigned char *)&s;
    for (size_t i = 0; i < sizeof s; i++) {
        hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
    }
    hash = hash ? hash : 1;
    for (unsigned at = (unsigned)(hash % SEEN_MAX);; at = (at + 1) % SEEN_MAX) {
        if (seen[at] == hash) {
            return false;
        }
        if (seen[at] == 0) {
            seen[at] = hash;
            seen_count++;
            return true;
        }
    }
}

static void copy(struct world *to, const struct world *from)
{
    *to = *from;
    to->d.hosts = to->hosts;
    to->d.guests = to->guests;
}

static void explore(const struct world *w);

/* libcheck notes every assertion that it is given, which costs more than the step itself. */
#define must(condition, ...)           \
    do {                               \
        if (!(condition)) {            \
            ck_abort_msg(__VA_ARGS__); \
        }                              \
    } while (0)

static const char *picture(const struct world *w)
{
    static char text[1024];
    int n = snprintf(text, sizeof text, "%s (waits for: %s):", lmo_drain_state_text(w->d.state), w->d.waiting_for);
    for (unsigned i = 0; i < w->d.host_count; i++) {
        n += snprintf(text + n, sizeof text - (size_t)n, " %s %s", w->hosts[i].name,
                      lmo_drain_host_state_text(w->hosts[i].state));
    }
    for (unsigned i = 0; i < w->d.guest_count; i++) {
        n += snprintf(text + n, sizeof text - (size_t)n, " %s %s%s", w->guests[i].name,
                      lmo_drain_guest_state_text(w->guests[i].state), w->guests[i].back ? " (back)" : "");
    }
    return text;
}

/* What has to hold for any step, whatever it was. */
static void judge(const struct world *before, const struct world *after, const struct lmo_drain_event *ev)
{
    const char *broken = lmo_drain_broken(&after->d);
    must(broken == NULL, "event %d in %s: %s", (int)ev->kind, lmo_drain_state_text(before->d.state), broken);
    must(before->d.state == after->d.state || lmo_drain_may_follow(before->d.state, after->d.state) ||
             /* through running */
             lmo_drain_may_follow(LMO_DRAIN_RUNNING, after->d.state),
         "event %d: %s", (int)ev->kind, picture(after));
    bool could = lmo_drain_is(before->d.state, LMO_DRAIN_BEGINS) || ev->kind == LMO_DRAIN_EV_RESUME ||
                 ev->kind == LMO_DRAIN_EV_PLANNED;
    for (unsigned i = 0; i < after->d.guest_count; i++) {
        bool started =
            after->guests[i].state == LMO_DG_STARTING &&
            (before->guests[i].state != LMO_DG_STARTING || after->guests[i].try_count > before->guests[i].try_count);
        must(!started || could, "event %d: %s", (int)ev->kind, picture(after)); /* D3 */
        must(after->guests[i].back >= before->guests[i].back, "event %d: %s", (int)ev->kind, picture(after));
    }
    if (after->d.state == LMO_DRAIN_DRAINED && before->d.state != LMO_DRAIN_DRAINED) {
        for (unsigned i = 0; i < after->d.host_count;
             i++) { /* the last that happened to each was an empty list, or what follows it */
            must(after->hosts[i].state == LMO_DH_DONE, "D1");
        }
    }
    for (unsigned i = 0; i < after->d.host_count; i++) { /* D1: from the look at its list alone */
        bool emptied = after->hosts[i].state != before->hosts[i].state && before->hosts[i].state == LMO_DH_CHECKING &&
                       (after->hosts[i].state == LMO_DH_DONE || after->hosts[i].state == LMO_DH_HOOK ||
                        after->hosts[i].state == LMO_DH_AWAY);
        must(!emptied || (ev->kind == LMO_DRAIN_EV_LISTED && ev->host == i && ev->code == 0 && ev->total == 0),
             "event %d: %s", (int)ev->kind, picture(after));
        must(before->hosts[i].state == LMO_DH_CHECKING || before->hosts[i].state == after->hosts[i].state ||
                 (after->hosts[i].state != LMO_DH_HOOK || before->hosts[i].state == LMO_DH_HOOK),
             "event %d: %s", (int)ev->kind, picture(after));
    }
    must(strcmp(after->d.waiting_for, LMO_DRAIN_UNTOLD) != 0, "event %d: nobody knows what for: %s", (int)ev->kind,
         picture(after));
    int64_t wake = lmo_drain_wake_ms(&after->d); /* D6: what waits will be looked at */
    must(after->d.state != LMO_DRAIN_WAITING || wake > 0, "event %d: it waits and is never looked at again: %s",
         (int)ev->kind, picture(after));
}

static void step(const struct world *w, const struct lmo_drain_event *ev)
{
    static unsigned depth;
    struct world *next = malloc(sizeof *next);
    struct lmo_err err = {0};
    copy(next, w);
    drain_pairs[w->d.state][ev->kind] = true;
    if (ev->guest < w->d.guest_count && ev->kind >= LMO_DRAIN_EV_STARTED && ev->kind <= LMO_DRAIN_EV_GUEST_GONE) {
        guest_pairs[w->guests[ev->guest].state][ev->kind] = true;
    }
    if (ev->kind >= LMO_DRAIN_EV_LISTED && ev->kind <= LMO_DRAIN_EV_PROBED) {
        host_pairs[w->hosts[ev->host].state][ev->kind] = true;
    }
    int r = lmo_drain_step(&next->d, ev, &err);
    steps++;
    if (r < 0) {
        must(err.text[0] != 0, "a refusal without a word");
        next->d.hosts = w->d.hosts;
        next->d.guests = w->d.guests;
        must(memcmp(next, w, sizeof *w) == 0, "a refusal that changed something"); /* a refusal changes nothing */
    } else {
        for (unsigned i = 0; i < next->d.guest_count; i++) { /* the caller's part: D2 */
            if (next->guests[i].state == LMO_DG_STARTING && !next->guests[i].migration[0]) {
                LMO_COPY(next->guests[i].migration, "01J00000000000000000000000");
            }
        }
        lmo_drain_settled(&next->d);
        judge(w, next, ev);
        if (first_time(next)) {
            must(++depth < 20000, "too deep");
            explore(next);
            depth--;
        }
    }
    free(next);
}

static bool few; /* kinds of failures: where there are more guests or hosts than one, what is between them matters */

static void about_guest(const struct world *w, uint32_t g, int64_t now)
{
    static const struct {
        int code;
        enum lmo_phase phase;
    } ends[] = {{0, LMO_PHASE_COMPLETED},
                {LMO_E_REFUSED, LMO_PHASE_PRECHECK},
                {LMO_E_UNAVAILABLE, LMO_PHASE_PRECOPY},
                {LMO_E_CANCELLED, LMO_PHASE_PRECOPY}};
    for (enum lmo_drain_event_kind kind = LMO_DRAIN_EV_STARTED; kind <= LMO_DRAIN_EV_GUEST_GONE; kind++) {
        struct lmo_drain_event ev = {.kind = kind, .now_ms = now, .guest = g, .code = LMO_E_REFUSED, .text = "hv9"};
        if (kind == LMO_DRAIN_EV_CHILD_ENDED) {
            for (unsigned i = 0; i < (few ? 2 : sizeof ends / sizeof ends[0]); i++) {
                ev.code = ends[i].code;
                ev.failed_in = ends[i].phase;
                step(w, &ev);
            }
            continue;
        }
        step(w, &ev);
        if (few) {
            continue;
        }
        if (kind == LMO_DRAIN_EV_START_REFUSED || kind == LMO_DRAIN_EV_NO_PLACE) {
            ev.destination_fault = ev.may_change = true;
            step(w, &ev);
        } else if (kind == LMO_DRAIN_EV_BLOCKED) {
            ev.code = LMO_E_BUSY;
            step(w, &ev);
        }
    }
}

static void about_host(const struct world *w, uint32_t h, int64_t now)
{
    uint32_t there[GUESTS], count = 0;
    for (uint32_t g = 0; g < w->d.guest_count; g++) {
        bool here = strcmp(w->guests[g].at, w->hosts[h].name) == 0 || w->guests[g].state == LMO_DG_GONE;
        if (w->guests[g].host == h && here) {
            there[count++] = g;
        }
    }
    const struct lmo_drain_event events[] = {
        {.kind = LMO_DRAIN_EV_LISTED, .host = h, .listed = there, .listed_count = count, .total = count},
        {.kind = LMO_DRAIN_EV_LISTED, .host = h},
        {.kind = LMO_DRAIN_EV_LISTED, .host = h, .total = 1}, /* somebody that is not ours */
        {.kind = LMO_DRAIN_EV_LISTED, .host = h, .code = LMO_E_UNAVAILABLE, .text = "no answer"},
        {.kind = LMO_DRAIN_EV_HOOKED, .host = h},
        {.kind = LMO_DRAIN_EV_HOOKED, .host = h, .acknowledged = true},
        {.kind = LMO_DRAIN_EV_HOOKED, .host = h, .code = LMO_E_UNAVAILABLE, .text = "no answer"},
        {.kind = LMO_DRAIN_EV_ACKNOWLEDGED, .host = h},
        {.kind = LMO_DRAIN_EV_HOST_UP, .host = h},
        {.kind = LMO_DRAIN_EV_PROBED, .host = h},
        {.kind = LMO_DRAIN_EV_PROBED, .host = h, .code = LMO_E_UNAVAILABLE, .text = "not back"},
    };
    for (unsigned i = 0; i < sizeof events / sizeof events[0]; i++) {
        struct lmo_drain_event ev = events[i];
        ev.now_ms = now;
        step(w, &ev);
    }
}

static void explore(const struct world *w)
{
    int64_t now = w->d.updated_ms + 1;
    for (uint32_t g = 0; g < w->d.guest_count; g++) {
        about_guest(w, g, now);
    }
    for (uint32_t h = 0; h < w->d.host_count; h++) {
        about_host(w, h, now);
    }
    static const enum lmo_drain_event_kind plain[] = {LMO_DRAIN_EV_PLANNED,  LMO_DRAIN_EV_UNPLANNED, LMO_DRAIN_EV_PAUSE,
                                                      LMO_DRAIN_EV_RESUME,   LMO_DRAIN_EV_CANCEL,    LMO_DRAIN_EV_TIMER,
                                                      LMO_DRAIN_EV_RECOVERED};
    for (unsigned i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        struct lmo_drain_event ev = {.kind = plain[i], .now_ms = now, .text = "test"};
        step(w, &ev);
    }
    struct lmo_drain_event look = {.kind = LMO_DRAIN_EV_TIMER, .now_ms = now + LMO_DRAIN_LOOK_MS};
    step(w, &look);
    struct lmo_drain_event late = {.kind = LMO_DRAIN_EV_TIMER, .now_ms = now + 2 * w->d.wait_timeout_ms};
    step(w, &late);
}

static void begin(struct world *w, unsigned hosts, unsigned guests, bool rolling)
{
    memset(w, 0, sizeof *w);
    seen = calloc(SEEN_MAX, sizeof *seen);
    seen_count = steps = 0;
    w->d = (struct lmo_drain){.state = LMO_DRAIN_PLANNING,
                              .host_count = hosts,
                              .guest_count = guests,
                              .hosts = w->hosts,
                              .guests = w->guests,
                              .max_hosts = 1,
                              .rolling = rolling,
                              .give_back = rolling,
                              .wait_timeout_ms = 1000000,
                              .updated_ms = 1000};
    for (unsigned i = 0; i < hosts; i++) {
        snprintf(w->hosts[i].name, sizeof w->hosts[i].name, "hv%u", i + 1);
    }
    for (unsigned i = 0; i < guests; i++) {
        struct lmo_drain_guest *g = &w->guests[i];
        snprintf(g->uuid, sizeof g->uuid, "%08u-0000-4000-8000-000000000000", i);
        snprintf(g->name, sizeof g->name, "g%u", i);
        g->host = i % hosts;
        LMO_COPY(g->at, w->hosts[g->host].name);
        LMO_COPY(g->destination, "hv8");
        g->after_host = LMO_DRAIN_NONE;
    }
    lmo_drain_index(&w->d);
}

static void all_pairs_were_seen(void)
{
    for (int s = 0; s < LMO_DRAIN_STATE_COUNT; s++) {
        for (int e = LMO_DRAIN_EV_PLANNED; e < LMO_DRAIN_EV_COUNT; e++) {
            bool stuck = lmo_drain_is((enum lmo_drain_state)s, LMO_DRAIN_TERMINAL); /* explored too */
            ck_assert_msg(drain_pairs[s][e] || stuck, "%s x event %d was not seen",
                          lmo_drain_state_text((enum lmo_drain_state)s), e);
        }
    }
    for (int s = 0; s < LMO_DG_COUNT; s++) {
        for (int e = LMO_DRAIN_EV_STARTED; e <= LMO_DRAIN_EV_GUEST_GONE; e++) {
            ck_assert_msg(guest_pairs[s][e], "guest %s x event %d was not seen",
                          lmo_drain_guest_state_text((enum lmo_drain_guest_state)s), e);
        }
    }
    for (int s = 0; s < LMO_DH_COUNT; s++) {
        for (int e = LMO_DRAIN_EV_LISTED; e <= LMO_DRAIN_EV_PROBED; e++) {
            ck_assert_msg(host_pairs[s][e], "host %s x event %d was not seen",
                          lmo_drain_host_state_text((enum lmo_drain_host_state)s), e);
        }
    }
}

/* policy of the guests, host count, guest count, rolling, hook, one after the other */
static const struct {
    enum lmo_unmovable policy;
    unsigned hosts, guests;
    bool rolling, hook, after;
} worlds[] = {
    {LMO_UNMOVABLE_FAIL, 1, 1, false, false, false}, {LMO_UNMOVABLE_SKIP, 1, 1, false, false, false},
    {LMO_UNMOVABLE_WAIT, 1, 1, false, false, false}, {LMO_UNMOVABLE_OFFLINE, 1, 1, false, false, false},
    {LMO_UNMOVABLE_BLOCK, 1, 1, true, true, false},  {LMO_UNMOVABLE_SKIP, 1, 1, true, false, false},
    {LMO_UNMOVABLE_SKIP, 2, 1, true, true, false},   {LMO_UNMOVABLE_SKIP, 1, 2, false, false, true},
};

START_TEST(every_event_in_every_state_keeps_the_invariants)
{
    static struct world w;
    unsigned states = 0, taken = 0;
    memset(drain_pairs, 0, sizeof drain_pairs);
    for (unsigned i = 0; i < sizeof worlds / sizeof worlds[0]; i++) {
        begin(&w, worlds[i].hosts, worlds[i].guests, worlds[i].rolling);
        if (worlds[i].hook) {
            LMO_COPY(w.d.hook_command, "reboot");
        }
        for (unsigned g = 0; g < worlds[i].guests; g++) {
            w.guests[g].policy = worlds[i].policy;
        }
        if (worlds[i].after) {
            w.guests[1].after_count = 1;
            w.guests[1].after[0].n = 0;
            lmo_drain_index(&w.d);
        }
        few = worlds[i].hosts + worlds[i].guests > 2;
        explore(&w);
        states += seen_count;
        taken += steps;
        free(seen);
    }
    printf("    drains: %u states, %u steps\n", states, taken);
    ck_assert_uint_gt(states, 2000);
    all_pairs_were_seen();
}
END_TEST

Suite *drains_suite(void)
{
    Suite *s = suite_create("drains");
    TCase *t = tcase_create("drains");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, names_are_unique_and_found_again);
    tcase_add_test(t, terminal_states_have_no_successor);
    tcase_add_test(t, every_event_in_every_state_keeps_the_invariants);
    suite_add_tcase(s, t);
    return s;
}
