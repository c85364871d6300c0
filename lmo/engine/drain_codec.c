/* drain_codec.c - drains as they are stored: one text for the whole, one per host, one per guest. Members that are empty are left
 * out; unknown ones (a newer program's) are an error, as with migrations. */
#include "base/json.h"
#include "engine/drains_internal.h"
#include "proto/codec.h"

#include <string.h>

#define TEXT_MAX 16384

#define WORDS(name, text_fn, from_fn)               \
    static const char *name##_text(int v)           \
    {                                               \
        return text_fn((__typeof__(from_fn("")))v); \
    }                                               \
    static int name##_from_text(const char *word)   \
    {                                               \
        return (int)from_fn(word);                  \
    }                                               \
    static const struct lmo_words name##_words = {name##_text, name##_from_text}

WORDS(drain_state, lmo_drain_state_text, lmo_drain_state_from_text);
WORDS(guest_state, lmo_drain_guest_state_text, lmo_drain_guest_state_from_text);
WORDS(host_state, lmo_drain_host_state_text, lmo_drain_host_state_from_text);
WORDS(phase, lmo_phase_text, lmo_phase_from_text);

static int why_from_text(const char *word)
{
    int i = LMO_MOVE_EMPTY;
    while (i <= LMO_MOVE_BALANCE && strcmp(lmo_move_why_text(i), word) != 0) {
        i++;
    }
    return i;
}
static const struct lmo_words why_words = {lmo_move_why_text, why_from_text};

static const struct lmo_field ref_fields[] = {LMO_F_UINT(lmo_drain_ref, n, 0)};
static const struct lmo_table ref_table = LMO_TABLE(ref_fields);

static const struct lmo_field drain_fields[] = {
    LMO_F_TEXT(lmo_drain, id, LMO_FIELD_REQUIRED | LMO_FIELD_ULID),
    LMO_F_UINT(lmo_drain, version, 0),
    LMO_F_ENUM(lmo_drain, state, drain_state_words, LMO_FIELD_REQUIRED),
    LMO_F_UINT(lmo_drain, max_hosts, 0),
    LMO_F_UINT(lmo_drain, keep_free, 0),
    LMO_F_BOOL(lmo_drain, give_back),
    LMO_F_BOOL(lmo_drain, rolling),
    LMO_F_BOOL(lmo_drain, balance),
    LMO_F_ENUM(lmo_drain, unmovable, engine_unmovable_words, 0),
    LMO_F_TEXT(lmo_drain, hook_url, 0),
    LMO_F_TEXT(lmo_drain, hook_command, 0),
    LMO_F_INT(lmo_drain, wait_timeout_ms),
    LMO_F_TEXT(lmo_drain, principal, 0),
    LMO_F_TEXT(lmo_drain, plan, 0),
    LMO_F_UINT(lmo_drain, low_ms, 0),
    LMO_F_UINT(lmo_drain, high_ms, 0),
    LMO_F_INT(lmo_drain, created_ms),
    LMO_F_INT(lmo_drain, updated_ms),
    LMO_F_INT(lmo_drain, ended_ms),
    LMO_F_INT(lmo_drain, state_ms),
    LMO_F_TEXT(lmo_drain, waiting_for, 0),
    LMO_F_INT(lmo_drain, waiting_since_ms),
    LMO_F_ENUM(lmo_drain, code, lmo_error_words, 0),
    LMO_F_TEXT(lmo_drain, reason, 0),
    LMO_F_BOOL(lmo_drain, stop),
    LMO_F_UINT(lmo_drain, percent, 100),
    LMO_F_UINT(lmo_drain, host_count, LMO_DRAIN_HOSTS_MAX),
    LMO_F_UINT(lmo_drain, guest_count, LMO_DRAIN_GUESTS_MAX),
};
static const struct lmo_table drain_table = LMO_TABLE(drain_fields);

static const struct lmo_field host_fields[] = {
    LMO_F_TEXT(lmo_drain_host, name, LMO_FIELD_REQUIRED),
    LMO_F_ENUM(lmo_drain_host, state, host_state_words, LMO_FIELD_REQUIRED),
    LMO_F_BOOL(lmo_drain_host, cordon),
    LMO_F_BOOL(lmo_drain_host, was_cordoned),
    LMO_F_UINT(lmo_drain_host, rounds, 0),
    LMO_F_UINT(lmo_drain_host, hook_tries, 0),
    LMO_F_ARRAY(lmo_drain_host, after, after_count, ref_table),
    LMO_F_INT(lmo_drain_host, since_ms),
    LMO_F_INT(lmo_drain_host, wait_ms),
    LMO_F_INT(lmo_drain_host, look_ms),
    LMO_F_TEXT(lmo_drain_host, boot, 0),
    LMO_F_TEXT(lmo_drain_host, links, 0),
    LMO_F_TEXT(lmo_drain_host, services, 0),
    LMO_F_TEXT(lmo_drain_host, reason, 0),
    LMO_F_UINT(lmo_drain_host, moved, 0),
    LMO_F_UINT(lmo_drain_host, failed, 0),
    LMO_F_UINT(lmo_drain_host, skipped, 0),
};
static const struct lmo_table host_table = LMO_TABLE(host_fields);

static const struct lmo_field try_fields[] = {
    LMO_F_TEXT(lmo_drain_try, destination, 0),
    LMO_F_ENUM(lmo_drain_try, code, lmo_error_words, 0),
    LMO_F_ENUM(lmo_drain_try, failed_in, phase_words, 0),
};
static const struct lmo_table try_table = LMO_TABLE(try_fields);

static const struct lmo_field guest_fields[] = {
    LMO_F_TEXT(lmo_drain_guest, uuid, LMO_FIELD_REQUIRED | LMO_FIELD_UUID),
    LMO_F_TEXT(lmo_drain_guest, name, 0),
    LMO_F_UINT(lmo_drain_guest, host, 0),
    LMO_F_ENUM(lmo_drain_guest, why, why_words, 0),
    LMO_F_ENUM(lmo_drain_guest, state, guest_state_words, LMO_FIELD_REQUIRED),
    LMO_F_ENUM(lmo_drain_guest, policy, engine_unmovable_words, 0),
    LMO_F_BOOL(lmo_drain_guest, shut_off),
    LMO_F_BOOL(lmo_drain_guest, back),
    LMO_F_TEXT(lmo_drain_guest, at, 0),
    LMO_F_TEXT(lmo_drain_guest, destination, 0),
    LMO_F_UINT(lmo_drain_guest, order, 0),
    LMO_F_ARRAY(lmo_drain_guest, after, after_count, ref_table),
    LMO_F_UINT(lmo_drain_guest, after_host, 0),
    LMO_F_TEXT(lmo_drain_guest, migration, LMO_FIELD_ULID),
    LMO_F_ARRAY(lmo_drain_guest, tries, try_count, try_table),
    LMO_F_ENUM(lmo_drain_guest, code, lmo_error_words, 0),
    LMO_F_TEXT(lmo_drain_guest, reason, 0),
    LMO_F_INT(lmo_drain_guest, since_ms),
    LMO_F_INT(lmo_drain_guest, wait_ms),
    LMO_F_INT(lmo_drain_guest, look_ms),
    LMO_F_UINT(lmo_drain_guest, memory_bytes, 0),
    LMO_F_UINT(lmo_drain_guest, low_ms, 0),
    LMO_F_UINT(lmo_drain_guest, high_ms, 0),
};
static const struct lmo_table guest_table = LMO_TABLE(guest_fields);

static int put(struct lmo_engine *e, struct lmo_object *o, const struct lmo_table *table, const void *from,
               struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf buf = LMO_BUF_INIT(TEXT_MAX);
    int r = lmo_codec_write(table, from, true, &buf);
    if (r < 0) {
        return lmo_fail(err, r, "drain %s: its record cannot be written", o->key);
    }
    o->text = buf.data;
    return engine_put(e, o, err);
}

int engine_drain_put(struct lmo_engine *e, const struct lmo_drain *d, struct lmo_err *err)
{
    struct lmo_object o = {.kind = LMO_OBJECT_DRAIN,
                           .key = d->id,
                           .state = lmo_drain_state_text(d->state),
                           .terminal = lmo_drain_is(d->state, LMO_DRAIN_TERMINAL),
                           .updated_ms = d->updated_ms};
    return put(e, &o, &drain_table, d, err);
}

int engine_drain_put_host(struct lmo_engine *e, const struct lmo_drain *d, uint32_t host, struct lmo_err *err)
{
    struct lmo_object o = {.kind = LMO_OBJECT_DRAIN_HOST, .key = d->id, .n = host, .about = d->hosts[host].name};
    return put(e, &o, &host_table, &d->hosts[host], err);
}

int engine_drain_put_guest(struct lmo_engine *e, const struct lmo_drain *d, uint32_t guest, struct lmo_err *err)
{
    struct lmo_object o = {.kind = LMO_OBJECT_DRAIN_GUEST, .key = d->id, .n = guest, .about = d->guests[guest].uuid};
    return put(e, &o, &guest_table, &d->guests[guest], err);
}

static int decode(const char *text, const struct lmo_table *table, void *to, struct lmo_err *err)
{
    LMO_AUTO_JSON json_t *root = NULL;
    struct lmo_err why = {0};
    int r = lmo_json_parse_object(text, strlen(text), TEXT_MAX, &root, &why);
    r = r < 0 ? r : lmo_codec_decode(table, root, to, &why);
    r = r < 0 ? r : lmo_codec_check_known(table, root, NULL, &why);
    return r < 0 ? lmo_fail(err, r == LMO_E_NO_MEMORY ? r : LMO_E_CORRUPT, "stored drain: %s", why.text) : 0;
}

int engine_drain_decode(const char *text, struct lmo_drain *ret, struct lmo_err *err)
{
    return decode(text, &drain_table, ret, err);
}

int engine_drain_decode_host(const char *text, struct lmo_drain_host *ret, struct lmo_err *err)
{
    return decode(text, &host_table, ret, err);
}

int engine_drain_decode_guest(const char *text, struct lmo_drain_guest *ret, struct lmo_err *err)
{
    return decode(text, &guest_table, ret, err);
}
