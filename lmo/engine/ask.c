/* ask.c - how something is asked for: the envelope of a request, dry runs, preconditions. */
#include "base/json.h"
#include "base/str.h"
#include "engine/internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local const struct lmo_ask *asking; /* of the handler that runs on this thread now */

void lmo_engine_ask(const struct lmo_ask *ask)
{
    asking = ask;
}

struct lmo_ask engine_asked(void)
{
    static const struct lmo_ask nothing;
    return asking ? *asking : nothing;
}

/* ------------------------------------------------------------------ dry runs */

bool engine_would(struct request *r, unsigned status, json_t *result, const char *fmt, ...)
{
    char text[LMO_ERR_TEXT_MAX];
    va_list ap;
    if (!r->ask.dry_run) {
        json_decref(result);
        return false;
    }
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    json_t *body = json_object();
    int bad = lmo_json_put_bool(body, "dry_run", true);
    bad |= lmo_json_put_u64(body, "status", status);
    bad |= lmo_json_put_str(body, "would", text);
    bad |= lmo_json_put(body, "result", result ? result : json_null());
    if (bad) {
        json_decref(body);
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory for the answer");
    } else {
        engine_reply_ok(r->fn, r->arg, 200, body, "");
    }
    return true;
}

/* ------------------------------------------------------------------ preconditions */

/* RFC 9110: "*", or a list of entity tags; a weak one never matches. */
static bool matches(const char *list, const char *etag)
{
    size_t len = strlen(etag);
    while (*list) {
        list += strspn(list, " \t,");
        size_t n = strcspn(list, " \t,");
        if ((n == 1 && *list == '*') || (n == len && memcmp(list, etag, len) == 0)) {
            return true;
        }
        list += n;
    }
    return false;
}

bool engine_matches(struct request *r, const char *etag)
{
    if (!r->ask.if_match[0] || matches(r->ask.if_match, etag)) {
        return true;
    }
    engine_reply_fail(r->fn, r->arg, LMO_E_PRECONDITION, "If-Match",
                      "it is not what it was when you looked: its ETag is %s now; look again", etag);
    return false;
}

void engine_host_etag(const struct host *h, char ret[LMO_ETAG_MAX])
{
    const struct lmo_host_limits *l = &h->row.limits;
    char text[256];
    (void)snprintf(text, sizeof text, "%u %u %u %" PRIu64 " %" PRIu64, l->given,
                   l->given & LMO_HOST_LIMIT_INCOMING ? l->max_incoming : 0,
                   l->given & LMO_HOST_LIMIT_OUTGOING ? l->max_outgoing : 0,
                   l->given & LMO_HOST_LIMIT_BANDWIDTH ? l->max_bandwidth_bytes_per_s : 0,
                   l->given & LMO_HOST_LIMIT_KEEP_FREE ? l->memory_keep_free_bytes : 0);
    uint64_t seal = lmo_seal(lmo_seal(LMO_SEAL_NONE, h->row.url), text);
    seal = lmo_seal(lmo_seal(seal, h->mark.labels), h->mark.cordoned ? "cordoned" : "");
    seal = lmo_seal(lmo_seal(seal, h->mark.drain), h->mark.reason);
    (void)snprintf(ret, LMO_ETAG_MAX, "\"%016" PRIx64 "\"", seal);
}

/* Not its version: that rises with every sample of its progress, which no decision is about. */
void engine_migration_etag(const struct lmo_migration *m, char ret[LMO_ETAG_MAX])
{
    (void)snprintf(ret, LMO_ETAG_MAX, "\"%s-%" PRIx64 "%s\"", lmo_phase_text(m->phase), (uint64_t)m->phase_started_ms,
                   m->cancel_requested ? "-cancel" : "");
}
