/* hold.c - what stands between a decision to call a host and the call: the host's circuit breaker (core/breaker.h).
 *
 * A held call is SENT in its record, as if it were under way: its phase's deadline runs, a coordinator that starts
 * again asks again. It is kept as migration and ordinal, and looked up when the breaker lets it pass: a record that
 * has moved on meanwhile has dropped it. */
#include "base/assert.h"
#include "base/id.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct held {
    struct held *next;
    char id[LMO_ID_MAX];
    uint32_t ordinal;
    bool told; /* the record says what it waits for */
};

/* A guest stands still until these are answered: they are tried whatever became of others. */
static bool is_urgent(enum lmo_op_kind kind)
{
    return kind == LMO_OP_RELAY_FREEZE || kind == LMO_OP_RELAY_ANSWER;
}

/* It makes something, and nobody is hurt if it is made later, or never. */
static bool is_patient(const struct lmo_migration *m, const struct lmo_task *t)
{
    return lmo_phase_is(m->phase, LMO_PHASE_CANCELLABLE) && !t->draining;
}

static void on_timer(void *arg);

static void arm(struct host *h, int64_t again_ms)
{
    struct lmo_engine *e = h->engine;
    int64_t delay = again_ms - engine_now_ms(e);
    lmo_loop_cancel(e->loop, &h->hold_timer);
    if (lmo_loop_timer(e->loop, delay < 0 ? 0 : (uint64_t)delay, on_timer, h, &h->hold_timer) < 0) {
        lmo_unreachable("no timer for what a breaker holds back");
    }
}

static void tell(struct host *h, struct entry *entry, struct held *x)
{
    char text[LMO_TEXT_MAX];
    struct lmo_err err = {0};
    (void)snprintf(text, sizeof text, "%.60s does not answer (%u calls in a row): what is not urgent is held back",
                   h->row.name, h->breaker.failures);
    struct lmo_event ev = {.kind = LMO_EV_HELD, .ordinal = x->ordinal, .text = text};
    x->told = true;
    if (engine_apply(entry, &ev, &err) < 0) {
        lmo_log(LMO_LOG_ERROR, "held call refused by the core", "migration=%s why=%s", x->id, err.text);
    }
}

/* Sends what may go by now, tells of what may not, and comes back when more may. Never inside a step's effects. */
static void release(struct host *h)
{
    struct lmo_engine *e = h->engine;
    int64_t next = INT64_MAX, now = engine_now_ms(e);
    struct held **at = &h->held;
    while (*at) {
        struct held *x = *at;
        struct entry *entry = engine_entry(e, x->id);
        const struct lmo_task *t = entry ? engine_sent_task(engine_record(entry), x->ordinal) : NULL;
        int64_t again = 0;
        bool pass = t && lmo_breaker_admit(&h->breaker, is_patient(engine_record(entry), t), now, &again);
        if (t && !pass) {
            next = again < next ? again : next;
            if (!x->told) {
                tell(h, entry, x);
            }
            at = &x->next;
            continue;
        }
        *at = x->next;
        h->held_count--;
        free(x);
        if (pass) {
            engine_send(entry, t);
        }
    }
    if (h->held) {
        arm(h, next);
    }
}

static void on_timer(void *arg)
{
    struct host *h = arg;
    h->hold_timer = 0;
    if (!h->engine->stopping) {
        release(h);
    }
}

void engine_send_or_hold(struct entry *entry, const struct lmo_task *t)
{
    struct lmo_engine *e = entry->engine;
    const struct lmo_migration *m = engine_record(entry);
    struct host *h = engine_host(e, lmo_task_host(m, t));
    int64_t again = 0;
    if (!h || is_urgent(t->kind) || lmo_breaker_admit(&h->breaker, is_patient(m, t), engine_now_ms(e), &again)) {
        engine_send(entry, t);
        return;
    }
    struct held *x = calloc(1, sizeof *x), **last = &h->held;
    lmo_assert(x); /* a few bytes; a task that is SENT and in no list would never be sent */
    LMO_COPY(x->id, entry->id);
    x->ordinal = t->ordinal;
    while (*last) { /* bounded by the calls of the open migrations; first come, first served */
        if ((*last)->ordinal == x->ordinal && strcmp((*last)->id, x->id) == 0) {
            free(x);
            return;
        }
        last = &(*last)->next;
    }
    *last = x;
    h->held_count++;
    arm(h, 0); /* in the next turn: told, and the timer set to when it may go */
}

void engine_answered(struct lmo_engine *e, const char *host, bool good)
{
    struct host *h = engine_host(e, host);
    uint32_t random = 0;
    if (!h) {
        return;
    }
    if (!good) {
        lmo_random(&random, sizeof random);
    }
    if (lmo_breaker_answered(&h->breaker, good, engine_now_ms(e), random)) {
        lmo_log(good ? LMO_LOG_INFO : LMO_LOG_WARN, "circuit breaker", "host=%s state=%s failures=%u held=%u", host,
                lmo_breaker_state_text(h->breaker.state), h->breaker.failures, h->held_count);
        if (h->held) {
            arm(h, 0);
        }
    }
}

void engine_heard(struct host *h)
{
    if (lmo_breaker_heard(&h->breaker) && h->held) {
        arm(h, 0);
    }
}

void engine_host_free(struct host *h)
{
    lmo_loop_cancel(h->engine->loop, &h->hold_timer);
    while (h->held) {
        struct held *x = h->held;
        h->held = x->next;
        free(x);
    }
    free(h);
}
