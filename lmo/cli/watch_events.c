/* watch_events.c - `lmo watch` by the coordinator's own events (GET /v1/events).
 *
 * Nothing may fall between how things stand and what changes from then on: first the stream says at which number it is, then
 * everything is looked at, then the stream is followed from that number. What the look has told already is known by the
 * record's version. A stream that breaks is resumed with the number of the last event; one that says `gap` (it has dropped
 * what came after that number) is made good by another look. */
#include "base/clock.h"
#include "base/json.h"
#include "base/loop.h"
#include "cli/api.h"
#include "cli/commands.h"
#include "cli/render.h"
#include "cli/sse.h"
#include "cli/watch_run.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#define IDLE_MS   45000 /* three of the coordinator's heartbeats */
#define EVENT_MAX ((size_t)256 * 1024)

struct stream {
    struct watcher *w;
    struct lmo_sse sse;
    bool placing; /* only the number is wanted */
    bool gap;     /* something is missing: look anew */
    bool over;    /* enough, or all of the named have ended */
    bool heard;   /* since the connection began */
};

/* "2026-01-31T12:34:56.123456Z" in ms since 1970; 0: not one. */
static uint64_t time_of(const char *text)
{
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    time_t s = rest ? timegm(&tm) : 0;
    if (s <= 0)
        return 0;
    uint64_t ms = (uint64_t)s * 1000, unit = 100;
    for (const char *d = *rest == '.' ? rest + 1 : ""; *d >= '0' && *d <= '9' && unit > 0; d++, unit /= 10)
        ms += (uint64_t)(*d - '0') * unit;
    return ms;
}

static unsigned index_of(const struct watcher *w, const char *id)
{
    const struct lmo_cli_args *a = &w->cli->args;
    unsigned i = 0;
    while (i < a->count && strcmp(a->positional[i], id) != 0)
        i++;
    return i;
}

static void on_migration(struct stream *s, const json_t *data, uint64_t at_ms)
{
    static const char *const ends[] = {"completed", "aborted", "attention", "abandoned"};
    struct watcher *w = s->w;
    const char *id = lmo_api_text(data, "migration"), *phase = lmo_api_text(data, "phase");
    unsigned n = w->named ? index_of(w, id) : 0;
    if (*id == '\0' || *phase == '\0' || (w->named && n == w->cli->args.count))
        return;
    bool ended = false;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        ended |= strcmp(phase, ends[i]) == 0;
    /* The same object as a record has, as far as a line needs it. */
    LMO_AUTO_JSON json_t *m =
        json_pack("{s:s, s:s, s:O*, s:s, s:s, s:I, s:I, s:s}", "id", id, "phase", phase, "vm",
                  json_object_get(data, "vm"), "source", lmo_api_text(data, "source"), "destination",
                  lmo_api_text(data, "destination"), "updated_ms", (json_int_t)at_ms, "version",
                  (json_int_t)lmo_api_u64(data, "version"), "reason", lmo_api_text(data, "reason"));
    if (m && ended)
        (void)lmo_json_put_str(m, "outcome", phase);
    struct lmo_change c;
    if (m && lmo_watch_migration(&w->seen, m, false, &c))
        watcher_tell(w, &c);
    if (!w->named || !ended)
        return;
    w->versions[n] = UINT64_MAX;
    s->over = true;
    for (unsigned i = 0; i < w->cli->args.count; i++)
        s->over &= w->versions[i] == UINT64_MAX;
}

static void on_host(struct stream *s, const char *what, const json_t *data, uint64_t at_ms)
{
    struct lmo_change c = {.at_ms = at_ms,
                           .object = "host",
                           .id = lmo_api_text(data, "host"),
                           .vm = "",
                           .source = "",
                           .destination = "",
                           .state = what,
                           .detail = lmo_api_text(data, "why")};
    if (*c.id && lmo_watch_note(&s->w->seen, &c))
        watcher_tell(s->w, &c);
}

static void on_event(void *arg, const char *type, const char *data)
{
    struct stream *s = arg;
    LMO_AUTO_JSON json_t *body = NULL;
    if (s->placing || s->over || *type == '\0')
        return;
    s->gap |= strcmp(type, "gap") == 0;
    if (lmo_json_parse_object(data, strlen(data), EVENT_MAX, &body, NULL) < 0)
        return; /* of a coordinator whose events are others than we know */
    const json_t *what = json_object_get(body, "data");
    uint64_t at_ms = time_of(lmo_api_text(body, "timestamp"));
    if (!s->w->hosts && strncmp(type, "migration.", 10) == 0)
        on_migration(s, what, at_ms);
    else if (s->w->hosts && strncmp(type, "host.", 5) == 0)
        on_host(s, type + 5, what, at_ms);
    s->over |= watcher_enough(s->w);
}

static int on_data(void *arg, const char *data, size_t len)
{
    struct stream *s = arg;
    s->heard = true;
    lmo_patience_answered(s->w->cli, &s->w->patience);
    lmo_sse_feed(&s->sse, data, len);
    return s->over || s->gap || (s->placing && s->sse.last_id[0]);
}

static void on_deadline(void *arg)
{
    lmo_loop_stop(arg);
}

static bool late(const struct watcher *w)
{
    return w->deadline_ns && lmo_ms_until(w->deadline_ns) == 0;
}

/* As lmo_api_follow, with the deadline of --timeout. */
static int follow(struct stream *s, struct lmo_cli_reply *ret_reply, struct lmo_err *err)
{
    struct watcher *w = s->w;
    char path[LMO_API_PATH_MAX] = "/v1/events";
    uint64_t timer = 0;
    struct lmo_loop *loop = NULL;
    bool fits = lmo_api_query(path, "types", w->hosts ? "host.*" : "migration.*");
    if (w->named && w->cli->args.count == 1)
        fits = fits && lmo_api_query(path, "migration", w->cli->args.positional[0]);
    int rc = fits ? lmo_cli_loop(w->cli, &loop, err) : LMO_E_INVALID;
    if (rc == 0 && w->deadline_ns)
        rc = lmo_loop_timer_at(loop, w->deadline_ns, on_deadline, loop, &timer);
    lmo_sse_restart(&s->sse);
    s->heard = false;
    if (rc == 0)
        rc = lmo_api_follow(w->cli, path, s->sse.last_id, IDLE_MS, on_data, s, ret_reply, err);
    lmo_loop_cancel(loop, &timer);
    return rc;
}

/* Follows until it is over; *ret_none: there is no such stream, and nothing was told. */
static int run(struct stream *s, bool *ret_none)
{
    struct watcher *w = s->w;
    for (s->placing = true;;) {
        struct lmo_cli_reply reply = {0};
        struct lmo_err err = {0};
        int rc = follow(s, &reply, &err);
        unsigned open = 1;
        bool refused = rc == 0 && reply.status != 200;
        free(reply.body);
        if (s->placing && (s->sse.last_id[0] == '\0' || refused)) {
            *ret_none = true;
            return 0;
        }
        if (s->placing || s->gap) {
            s->placing = s->gap = false;
            rc = watcher_look(w, &open);
            if (rc != 0 || open == 0 || watcher_enough(w))
                return rc;
            w->first = false;
            continue;
        }
        if (s->over)
            return LMO_EXIT_OK;
        if (late(w))
            return LMO_EXIT_WAIT_OVER;
        if (rc < 0 && !lmo_wait_comes_back(&reply, rc))
            return lmo_api_unreached(w->cli, &err);
        /* It broke, or was cut: resumed where it was, after a moment. */
        if (s->heard)
            lmo_wait_pause(LMO_WAIT_RETRY_MS);
        else if ((rc = lmo_patience_bear(w->cli, &w->patience, &err, "", WATCHER_LATER)) != 0)
            return rc;
    }
}

bool watcher_stream(struct watcher *w, int *ret_rc)
{
    struct stream s = {.w = w};
    s.sse = (struct lmo_sse){.fn = on_event, .arg = &s};
    bool none = false;
    w->streams = w->seen.by_version = true;
    *ret_rc = run(&s, &none);
    w->streams = w->seen.by_version = !none;
    lmo_sse_release(&s.sse);
    return !none;
}
