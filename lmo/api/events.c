/* events.c - GET /v1/events: the event log as server-sent events, from any number on. What is written when is engine/feed.h. */
#include "api/internal.h"

#include "base/id.h"
#include "base/str.h"
#include "engine/feed.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLLOWERS_DEFAULT 64
#define BUFFER_DEFAULT    (1U << 20)

/* One follower: between the engine's subscriber and the stream. Freed when both have let go. */
struct follower {
    struct lmo_api *api;
    struct lmo_http_stream *stream; /* the loop's, from the subscription on */
    atomic_int owners;              /* the engine's side; the stream's side */
};

static void drop(struct follower *f)
{
    if (atomic_fetch_sub(&f->owners, 1) == 1) {
        free(f);
    }
}

static int sink_write(void *arg, const char *text, size_t len, bool spare)
{
    struct follower *f = arg;
    return lmo_http_stream_write(f->stream, text, len, spare);
}

static void sink_finish(void *arg, const char *text, size_t len)
{
    struct follower *f = arg;
    lmo_http_stream_end(f->stream, text, len);
}

static void sink_release(void *arg)
{
    struct follower *f = arg;
    f->stream = lmo_http_stream_free(f->stream);
    drop(f);
}

static void on_room(void *arg)
{
    struct follower *f = arg;
    lmo_engine_feed_kick(f->api->engine);
}

static void on_ended(void *arg)
{
    struct follower *f = arg;
    atomic_fetch_sub(&f->api->followers, 1);
    lmo_engine_feed_kick(f->api->engine);
    drop(f);
}

/* False: refused. */
static bool text_filter(struct lmo_http_request *req, const char *name, char *ret, size_t size)
{
    const char *text = lmo_http_query(req, name);
    if (text && (!lmo_name_valid(text) || strlen(text) >= size)) {
        refuse(req, LMO_E_INVALID, name, "%s: '%.60s' cannot be one", name, text);
        return false;
    }
    lmo_str_copy(ret, size, text);
    return true;
}

static bool id_filter(struct lmo_http_request *req, const char *name, char ret[LMO_ID_MAX])
{
    const char *text = lmo_http_query(req, name);
    if (text && !lmo_ulid_valid(text)) {
        refuse(req, LMO_E_INVALID, name, "%s: must be an id", name);
        return false;
    }
    lmo_str_copy(ret, LMO_ID_MAX, text);
    return true;
}

static bool read_filter(struct lmo_http_request *req, struct lmo_event_filter *f)
{
    const char *types = lmo_http_query(req, "types");
    struct lmo_err err = {0};
    if (types && lmo_event_types_check(types, &err) < 0) {
        refuse(req, LMO_E_INVALID, "types", "%s", err.text);
        return false;
    }
    LMO_COPY(f->types, types);
    return id_filter(req, "migration", f->migration) && id_filter(req, "drain", f->drain) &&
           text_filter(req, "vm", f->vm, sizeof f->vm) && text_filter(req, "host", f->host, sizeof f->host);
}

/* Last-Event-ID, which a browser's or a library's own reconnecting sends, before `since`, which is in the URL for good. */
static bool read_place(struct lmo_http_request *req, struct lmo_subscription *s)
{
    const char *last = lmo_http_header(req, "Last-Event-ID"), *since = lmo_http_query(req, "since");
    const char *field = last && last[0] ? "Last-Event-ID" : "since", *text = last && last[0] ? last : since;
    s->from_now = !text;
    if (!text) {
        return true;
    }
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 18 || text[digits]) {
        refuse(req, LMO_E_INVALID, field, "%s: must be the number of an event, or 0 for all that are kept", field);
        return false;
    }
    s->after = strtoull(text, NULL, 10);
    return true;
}

/* `ret`: as it is if nothing is said. */
static bool read_flag(struct lmo_http_request *req, const char *name, bool *ret)
{
    const char *text = lmo_http_query(req, name);
    bool yes = text && strcmp(text, "true") == 0;
    *ret = text ? yes : *ret;
    if (text && !yes && strcmp(text, "false") != 0) {
        refuse(req, LMO_E_INVALID, name, "%s: must be true or false", name);
        return false;
    }
    return true;
}

void events_follow(void *arg, struct lmo_http_request *req, const struct lmo_http_params *params)
{
    struct lmo_api *api = arg;
    struct lmo_subscription s = {0};
    bool follow = true;
    (void)params;
    if (!read_filter(req, &s.filter) || !read_place(req, &s) || !read_flag(req, "progress", &s.progress) ||
        !read_flag(req, "follow", &follow)) {
        return;
    }
    s.until_end = !follow;
    unsigned most = api->followers_max ? api->followers_max : FOLLOWERS_DEFAULT;
    if (atomic_fetch_add(&api->followers, 1) >= most) {
        atomic_fetch_sub(&api->followers, 1);
        refuse(req, LMO_E_LIMIT, "", "%u clients follow the events already; that is the limit", most);
        return;
    }
    struct follower *f = calloc(1, sizeof *f);
    if (!f) {
        atomic_fetch_sub(&api->followers, 1);
        refuse(req, LMO_E_NO_MEMORY, "", "no memory for another follower");
        return;
    }
    f->api = api;
    atomic_init(&f->owners, 2);
    const struct lmo_http_stream_config config = {.buffer_max =
                                                      api->stream_buffer ? api->stream_buffer : BUFFER_DEFAULT,
                                                  .stall_ms = api->stream_stall_ms,
                                                  .room = on_room,
                                                  .ended = on_ended,
                                                  .arg = f};
    (void)lmo_http_set_header(req, "X-Accel-Buffering", "no"); /* for proxies in between */
    if (lmo_http_reply_stream(req, 200, "text/event-stream", &config, &f->stream) < 0) {
        atomic_fetch_sub(&api->followers, 1);
        free(f);
        return;
    }
    s.sink = (struct lmo_event_sink){.arg = f, .write = sink_write, .finish = sink_finish, .release = sink_release};
    if (lmo_engine_subscribe(api->engine, &s) < 0) {
        static const char busy[] =
            "event: cut\ndata: {\"type\":\"cut\",\"data\":{\"reason\":\"the coordinator has too many requests"
            " waiting\"}}\n\n";
        lmo_http_stream_end(f->stream, busy, sizeof busy - 1);
        sink_release(f);
    }
}
