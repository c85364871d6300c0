/* notice.c - tells a guest's owner that the guest is about to be moved; the wait itself is core/notice.h.
 *
 * The call is made after the record that waits is stored, again and again until it is answered with 2xx, the wait ends, or
 * the hook is taken away; always under the same webhook-id, so that the owner can tell a repetition. A coordinator that
 * starts again calls again. 200 with {"ack": true} is the acknowledgement; any other 2xx says that it will come. */
#include "base/clock.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"
#include "engine/webhooks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MIN_MS 500
#define RETRY_MAX_MS 30000

struct notice_call {
    struct lmo_engine *engine;
    char id[LMO_ID_MAX];
    unsigned failures;
    uint64_t handle, timer;
    bool delivered;
};

static void call_owner(void *arg);

void engine_notice_drop(struct entry *entry)
{
    struct notice_call *c = entry->notice;
    entry->notice = NULL;
    if (c) {
        if (c->handle) {
            entry->engine->outbound->ops->cancel(entry->engine->outbound, &c->handle);
        }
        lmo_loop_cancel(entry->engine->loop, &c->timer);
        free(c);
    }
}

static void acknowledged(struct entry *entry, const char *by)
{
    struct lmo_event ev = {.kind = LMO_EV_ACKNOWLEDGED, .text = by};
    struct lmo_err err = {0};
    if (engine_apply(entry, &ev, &err) < 0) {
        lmo_log(LMO_LOG_WARN, "acknowledgement refused", "migration=%s why=%s", entry->id, err.text);
    }
}

static void again(struct notice_call *c, const char *why)
{
    uint64_t ms = c->failures > 6 ? RETRY_MAX_MS : (uint64_t)RETRY_MIN_MS << c->failures;
    uint32_t random;
    lmo_random(&random, sizeof random);
    c->failures++;
    lmo_log(LMO_LOG_WARN, "guest's owner not told yet", "migration=%s tries=%u why=%s", c->id, c->failures, why);
    if (lmo_loop_timer(c->engine->loop, ms / 2 + random % (ms / 2 + 1), call_owner, c, &c->timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer for a guest's owner", "migration=%s", c->id);
    }
}

static bool says_ack(const char *body)
{
    LMO_AUTO_JSON json_t *root = NULL;
    return lmo_json_parse_object(body, strlen(body), 16384, &root, NULL) == 0 &&
           json_is_true(json_object_get(root, "ack"));
}

static void on_answer(void *arg, int code, unsigned status, const char *body, const char *text)
{
    struct notice_call *c = arg;
    char why[LMO_TEXT_MAX];
    c->handle = 0;
    struct entry *entry = engine_entry(c->engine, c->id);
    if (!entry || c->engine->stopping) {
        return; /* the call is its entry's, which is gone or about to be */
    }
    if (code == 0 && status >= 200 && status < 300) {
        c->delivered = true;
        lmo_log(LMO_LOG_INFO, "guest's owner told", "migration=%s status=%u", c->id, status);
        if (status == 200 && says_ack(body)) {
            acknowledged(entry, "hook");
        }
        return;
    }
    if (code == 0) {
        (void)snprintf(why, sizeof why, "it answered %u", status);
    } else {
        LMO_COPY(why, text);
    }
    again(c, why);
}

static json_t *data_of(const struct lmo_migration *m)
{
    char path[64];
    json_t *o = json_object(), *vm = json_object();
    (void)snprintf(path, sizeof path, "/v1/migrations/%s/acknowledge", m->id);
    int r = lmo_json_put_str(vm, "uuid", m->vm.uuid);
    r |= lmo_json_put_str(vm, "name", m->vm.name);
    r |= lmo_json_put_str(o, "migration", m->id);
    r |= lmo_json_put(o, "vm", vm);
    r |= lmo_json_put_str(o, "source", m->source);
    r |= lmo_json_put_str(o, "destination", m->destination);
    r |= lmo_json_put_i64(o, "until_ms", m->notice.until_ms);
    r |= lmo_json_put_str(o, "on_no_answer", lmo_no_answer_text((int)m->notice.on_no_answer));
    r |= lmo_json_put_str(o, "acknowledge", path);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void call_owner(void *arg)
{
    struct notice_call *c = arg;
    struct lmo_engine *e = c->engine;
    struct lmo_vm_hook_row hook;
    struct lmo_err err = {0};
    char id[48], body[LMO_EVENT_BODY_MAX], trace[72];
    struct lmo_event_row row = {.at_ms = engine_now_ms(e), .type = "migration.notice"};
    c->timer = 0;
    struct entry *entry = engine_entry(e, c->id);
    if (!entry || e->stopping || engine_observing(e)) {
        return;
    }
    const struct lmo_migration *m = engine_record(entry);
    int r = e->store->events->vm_hook_get(e->store, m->vm.uuid, &hook, &err);
    if (r == LMO_E_NOT_FOUND) {
        acknowledged(entry, "nobody: the hook was removed");
        return;
    }
    LMO_AUTO_JSON json_t *data = data_of(m);
    char *text = NULL;
    size_t len = 0;
    r = r < 0 ? r : lmo_json_dump(data, &text, &len, &err);
    if (r == 0) {
        LMO_COPY(row.data, text);
        (void)lmo_event_body(&row, body);
        (void)snprintf(id, sizeof id, "notice_%s", c->id);
        engine_traceparent(m, LMO_PHASE_TIMES_MAX, "traceparent: ", trace, sizeof trace);
        const struct signed_call call = {.url = m->notice.url,
                                         .secret = hook.secret,
                                         .old_secret = hook.old_secret,
                                         .old_until_ms = hook.old_until_ms,
                                         .id = id,
                                         .body = body,
                                         .traceparent = trace};
        r = engine_post_signed(e, &call, on_answer, c, &c->handle, &err);
    }
    free(text);
    if (r < 0) {
        again(c, err.text);
    }
}

void engine_notice_committed(struct entry *entry)
{
    struct lmo_engine *e = entry->engine;
    if (!lmo_migration_awaits_notice(engine_record(entry))) {
        engine_notice_drop(entry);
        return;
    }
    if (entry->notice || !e->outbound || !e->store->events || engine_observing(e)) {
        return; /* told already, or on the way; without the means to tell only the deadline ends it */
    }
    struct notice_call *c = calloc(1, sizeof *c);
    if (!c) {
        lmo_log(LMO_LOG_ERROR, "no memory to tell a guest's owner", "migration=%s", entry->id);
        return; /* tried again with the next commit of this record; at the latest the deadline ends it */
    }
    c->engine = e;
    LMO_COPY(c->id, entry->id);
    entry->notice = c;
    if (lmo_loop_timer(e->loop, 0, call_owner, c, &c->timer) < 0) {
        lmo_log(LMO_LOG_ERROR, "no timer for a guest's owner", "migration=%s", entry->id);
    }
}
