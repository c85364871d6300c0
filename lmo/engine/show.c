/* show.c - looking at migrations: one, a page of them, a journal.
 *
 * A page is put together from texts that exist already: of what has ended the store keeps one (written when it ended), of
 * what is open the entry keeps the one that was shown last, for as long as the record is the same. Only the store's index
 * decides what belongs to a page; what is shown of an open migration is the newest. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"
#include "engine/record_codec.h"
#include "proto/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES_MAX ((size_t)64 << 20)

void engine_shown_free(struct shown *s)
{
    free(s->text);
    *s = (struct shown){0};
}

/* ------------------------------------------------------------------ one */

static void migration_get(struct request *r)
{
    static struct lmo_migration m;
    struct lmo_err err = {0};
    struct entry *entry = engine_entry(r->engine, r->name);
    if (!entry || entry->stored_version == 0) {
        if (r->engine->store->ops->get(r->engine->store, r->name, &m, &err) < 0) {
            engine_reply_fail(r->fn, r->arg, err.code, "id", "%s",
                              err.code == LMO_E_NOT_FOUND ? "no migration has this id" : err.text);
        } else {
            engine_reply_migration(r->fn, r->arg, 200, &m, NULL);
        }
        return;
    }
    engine_admission_tell(entry);
    if (r->wait_ms == 0 || entry->version > r->version || entry->waiter_count >= LMO_WAITERS_MAX) {
        engine_reply_migration(r->fn, r->arg, 200, engine_record(entry), entry);
        return;
    }
    engine_wait_for(r, entry, r->version, r->wait_ms, 200);
}

/* ------------------------------------------------------------------ a page */

struct listing {
    struct request *r;
    struct lmo_buf buf;
    unsigned count;
    bool more;
    int failed;
    char last[LMO_ID_MAX];
};

static int append_json(struct listing *l, json_t *taken)
{
    LMO_AUTO_JSON json_t *j = taken;
    LMO_AUTO_FREE char *text = NULL;
    size_t len = 0;
    int r = lmo_json_dump(j, &text, &len, NULL);
    return r < 0 ? r : lmo_buf_append(&l->buf, text, len);
}

/* Its place in a line changes without the record: that is never kept. */
static int append_held(struct listing *l, const struct entry *entry, const struct lmo_hold *h)
{
    const struct lmo_migration *m = engine_record(entry);
    char text[LMO_TEXT_MAX];
    json_t *j = lmo_migration_summary(m);
    int r = lmo_json_put(j, "queue_position", json_integer(h->position));
    if (h->limit != LMO_LIMIT_PREDICTION) {
        engine_admission_hold_text(entry, text, sizeof text);
        r |= lmo_json_put_str(j, "waiting_for", text);
        r |= lmo_json_put_i64(j, "waiting_since_ms", m->created_ms);
    }
    return r | append_json(l, j);
}

static int append_open(struct listing *l, struct entry *entry)
{
    struct shown *s = &entry->row;
    const struct lmo_hold *h = engine_admission_hold(entry);
    if (h) {
        return append_held(l, entry, h);
    }
    if (!s->text || s->version != entry->version || (s->until_ns && lmo_now_ns() >= s->until_ns)) {
        const struct lmo_migration *m = engine_record(entry);
        LMO_AUTO_JSON json_t *j = lmo_migration_summary(m);
        int64_t until_ms = lmo_migration_shown_until_ms(m), now_ms = (int64_t)(lmo_realtime_us() / 1000);
        engine_shown_free(s);
        if (lmo_json_dump(j, &s->text, &s->len, NULL) < 0) {
            return LMO_E_NO_MEMORY;
        }
        s->version = entry->version;
        s->until_ns = until_ms ? lmo_now_ns() + (uint64_t)(until_ms - now_ms + 1) * LMO_NS_PER_MS : 0;
    }
    return lmo_buf_append(&l->buf, s->text, s->len);
}

static int append_stored(struct listing *l, const char *id)
{
    static struct lmo_migration m; /* the loop thread's scratch */
    struct lmo_err err = {0};
    int r = l->r->engine->store->ops->get(l->r->engine->store, id, &m, &err);
    if (r < 0) {
        lmo_log(LMO_LOG_ERROR, "stored migration cannot be read: left out of a list", "migration=%s why=%s", id, err.text);
        return r;
    }
    return append_json(l, l->r->full ? engine_migration_json(&m, NULL) : lmo_migration_summary(&m));
}

static int append_one(struct listing *l, const char *id, struct entry *open, const char *summary)
{
    if (open && l->r->full) {
        return append_json(l, engine_migration_json(engine_record(open), open));
    }
    return open ? append_open(l, open) : summary && !l->r->full ? lmo_buf_append_str(&l->buf, summary) : append_stored(l, id);
}

/* One that cannot be read is left out, and told to the log: the others are shown. */
static int list_one(void *arg, const char *id, const char *summary)
{
    struct listing *l = arg;
    if (l->count == l->r->page.limit) {
        l->more = true;
        return 1;
    }
    size_t before = l->buf.len;
    struct entry *open = engine_entry(l->r->engine, id);
    int r = l->count > 0 ? lmo_buf_append_str(&l->buf, ",") : 0;
    r = r < 0 ? r : append_one(l, id, open, summary);
    LMO_COPY(l->last, id);
    if (r == LMO_E_NO_MEMORY || r == LMO_E_TOO_LARGE) {
        l->failed = r;
        return 1;
    }
    if (r < 0) {
        l->buf.len = before;
        return 0;
    }
    l->count++;
    return 0;
}

static int newest_first(const void *a, const void *b)
{
    const struct entry *const *x = a, *const *y = b;
    return strcmp((*y)->id, (*x)->id);
}

static bool wanted(const struct entry *en, const struct lmo_migration_filter *f)
{
    const int64_t at_ms = (int64_t)lmo_ulid_time_ms(en->id);
    return en->stored_version > 0 && (!f->before[0] || strcmp(en->id, f->before) < 0) &&
           (!f->since_ms || at_ms >= f->since_ms) && (!f->until_ms || at_ms < f->until_ms) &&
           (!f->phase[0] || strcmp(f->phase, lmo_phase_text(en->phase)) == 0) &&
           (!f->host[0] || strcmp(f->host, en->source) == 0 || strcmp(f->host, en->destination) == 0) &&
           (!f->vm[0] || strcmp(f->vm, en->vm) == 0 || strcmp(f->vm, engine_record(en)->vm.name) == 0);
}

/* All of those are in memory. */
static void list_open(struct listing *l, const struct lmo_migration_filter *f)
{
    struct lmo_engine *e = l->r->engine;
    LMO_AUTO_FREE struct entry **list = calloc(HASH_COUNT(e->entries) + 1, sizeof *list);
    unsigned n = 0;
    if (!list) {
        l->failed = LMO_E_NO_MEMORY;
        return;
    }
    for (struct entry *en = e->entries; en; en = en->hh.next) {
        if (wanted(en, f)) {
            list[n++] = en;
        }
    }
    qsort(list, n, sizeof(struct entry *), newest_first);
    for (unsigned i = 0; i < n && list_one(l, list[i]->id, NULL) == 0; i++) {
    }
}

static int finish(struct listing *l)
{
    char cursor[LMO_CURSOR_MAX];
    if (!l->more) {
        return lmo_buf_append_str(&l->buf, "],\"next_cursor\":null}");
    }
    lmo_cursor_make(l->r->page.seal, l->last, cursor);
    return lmo_buf_appendf(&l->buf, "],\"next_cursor\":\"%s\"}", cursor);
}

static void migration_list(struct request *r)
{
    struct lmo_err err = {0};
    struct lmo_migration_filter f = r->filter;
    struct listing l = {.r = r, .buf = LMO_BUF_INIT(PAGE_BYTES_MAX)};
    if (r->page.after[0]) {
        LMO_COPY(f.before, r->page.after);
    }
    int rc = lmo_buf_reserve(&l.buf, r->page.limit * 512);
    rc = rc < 0 ? rc : lmo_buf_append_str(&l.buf, "{\"migrations\":[");
    if (rc == 0 && f.state == LMO_OPEN_ONLY) {
        list_open(&l, &f);
    } else if (rc == 0) {
        rc = r->engine->store->ops->list(r->engine->store, &f, r->page.limit + 1, list_one, &l, &err);
    }
    rc = rc < 0 ? rc : l.failed;
    rc = rc < 0 ? rc : finish(&l);
    if (rc < 0) {
        engine_reply_fail(r->fn, r->arg, rc, "", "%s", err.text[0] ? err.text : "no memory for the list");
    } else {
        struct lmo_engine_reply reply = {
            .http_status = 200, .json = l.buf.data, .json_len = l.buf.len, .text = "", .field = "", .location = ""};
        r->fn(r->arg, &reply);
    }
    lmo_buf_done(&l.buf);
}

/* ------------------------------------------------------------------ a journal */

struct lines {
    json_t *array;
    unsigned limit;
    uint64_t last;
    bool more;
    int failed;
};

static int journal_one(void *arg, uint64_t n, const struct lmo_journal_line *line)
{
    struct lines *l = arg;
    if (json_array_size(l->array) == l->limit) {
        l->more = true;
        return 1;
    }
    json_t *j = json_object();
    int r = lmo_json_put_i64(j, "at_ms", line->at_ms);
    r |= lmo_json_put_str(j, "phase", line->phase);
    /* Texts may have been cut within a character. */
    r |= lmo_json_put(j, "what", lmo_codec_string(line->what, sizeof line->what - 1));
    r |= lmo_json_put(j, "why", lmo_codec_string(line->why, sizeof line->why - 1));
    l->failed |= r;
    l->failed |= lmo_json_add(l->array, j);
    l->last = n;
    return 0;
}

static void migration_journal(struct request *r)
{
    static struct lmo_migration m;
    struct lmo_err err = {0};
    char position[24];
    if (r->engine->store->ops->get(r->engine->store, r->name, &m, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "id", "%s",
                          err.code == LMO_E_NOT_FOUND ? "no migration has this id" : err.text);
        return;
    }
    struct lines l = {.array = json_array(), .limit = r->page.limit};
    int rc = r->engine->store->ops->journal(r->engine->store, r->name, strtoull(r->page.after, NULL, 10), l.limit + 1,
                                            journal_one, &l, &err);
    json_t *body = json_object();
    l.failed |= lmo_json_put(body, "journal", l.array);
    (void)snprintf(position, sizeof position, "%llu", (unsigned long long)l.last);
    l.failed |= lmo_page_put_next(body, &r->page, l.more ? position : NULL);
    if (rc < 0 || l.failed) {
        json_decref(body);
        engine_reply_fail(r->fn, r->arg, rc < 0 ? rc : LMO_E_NO_MEMORY, "", "%s", rc < 0 ? err.text : "no memory for the journal");
        return;
    }
    engine_reply_ok(r->fn, r->arg, 200, body, "");
}

/* ------------------------------------------------------------------ the public calls */

int lmo_engine_migration_get(struct lmo_engine *e, const char *id, uint64_t wait_version, uint32_t wait_ms,
                             lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(migration_get, fn, arg, id);
    r.version = wait_version;
    r.wait_ms = wait_ms;
    return engine_post(e, &r);
}

int lmo_engine_migration_list(struct lmo_engine *e, const struct lmo_migration_filter *filter, bool full,
                              const struct lmo_page *page, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(migration_list, fn, arg, "");
    r.filter = *filter;
    r.full = full;
    r.page = *page;
    return engine_post(e, &r);
}

int lmo_engine_migration_journal(struct lmo_engine *e, const char *id, const struct lmo_page *page,
                                 lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(migration_journal, fn, arg, id);
    r.page = *page;
    return engine_post(e, &r);
}
