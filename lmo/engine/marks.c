/* marks.c - what people said about hosts and guests: cordon and labels, policies and leases. Each is one JSON text in the
 * store, written with the next commit. Requests about them are in mark_requests.c. */
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/drains.h"
#include "engine/drains_internal.h"
#include "engine/internal.h"
#include "proto/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 8192

/* ------------------------------------------------------------------ codecs */

static const char *unmovable_text(int v)
{
    return lmo_unmovable_text(v);
}
static int unmovable_from_text(const char *word)
{
    return lmo_unmovable_from_text(word);
}
const struct lmo_words engine_unmovable_words = {unmovable_text, unmovable_from_text};

static const struct lmo_field mark_fields[] = {
    LMO_F_BOOL(host_mark, cordoned),       LMO_F_TEXT(host_mark, drain, LMO_FIELD_ULID),
    LMO_F_TEXT(host_mark, by, 0),          LMO_F_TEXT(host_mark, reason, 0),
    LMO_F_INT(host_mark, since_ms),        LMO_F_TEXT(host_mark, labels, 0),
    LMO_F_TEXT(host_mark, drain_state, 0),
};
static const struct lmo_table mark_table = LMO_TABLE(mark_fields);

static const struct lmo_field group_fields[] = {
    LMO_F_TEXT(vm_group, name, LMO_FIELD_REQUIRED | LMO_FIELD_HOST),
    LMO_F_BOOL(vm_group, together),
    LMO_F_BOOL(vm_group, hard),
};
static const struct lmo_table group_table = LMO_TABLE(group_fields);

static const struct lmo_field policy_fields[] = {
    LMO_F_BOOL(vm_policy, unmovable_given),
    LMO_F_ENUM(vm_policy, unmovable, engine_unmovable_words, 0),
    LMO_F_TEXT(vm_policy, labels, 0),
    LMO_F_ARRAY(vm_policy, groups, group_count, group_table),
};
static const struct lmo_table policy_table = LMO_TABLE(policy_fields);

static const struct lmo_field lease_fields[] = {
    LMO_F_TEXT(vm_lease, holder, 0),
    LMO_F_TEXT(vm_lease, reason, 0),
    LMO_F_INT(vm_lease, since_ms),
    LMO_F_INT(vm_lease, until_ms),
};
static const struct lmo_table lease_table = LMO_TABLE(lease_fields);

static int put(struct lmo_engine *e, enum lmo_object_kind kind, const char *key, const struct lmo_table *table,
               const void *from, struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf buf = LMO_BUF_INIT(TEXT_MAX);
    struct lmo_object o = {.kind = kind, .key = key};
    int r = from ? lmo_codec_write(table, from, true, &buf) : 0;
    if (r < 0) {
        return lmo_fail(err, r, "no memory to store it");
    }
    o.text = from ? buf.data : NULL;
    return engine_put(e, &o, err);
}

static int decode(const struct lmo_object *o, const struct lmo_table *table, void *to)
{
    LMO_AUTO_JSON json_t *root = NULL;
    struct lmo_err err = {0};
    int r = lmo_json_parse_object(o->text, strlen(o->text), TEXT_MAX, &root, &err);
    r = r < 0 ? r : lmo_codec_decode(table, root, to, &err);
    if (r < 0) { /* what a newer program wrote, or a person: everything else goes on */
        lmo_log(LMO_LOG_ERROR, "stored mark, policy or lease cannot be read: passed over", "key=%s why=%s", o->key,
                err.text);
    }
    return r;
}

/* ------------------------------------------------------------------ hosts: cordon and labels */

int engine_mark_store(const struct host *h)
{
    struct lmo_err err = {0};
    int r = put(h->engine, LMO_OBJECT_HOST_MARK, h->row.name, &mark_table, &h->mark, &err);
    if (r < 0) {
        lmo_log(LMO_LOG_ERROR, "a host's mark cannot be stored", "host=%s why=%s", h->row.name, err.text);
    }
    return r;
}

void engine_mark_set(struct host *h, bool cordon, const char *drain, const char *by, const char *reason)
{
    struct host_mark *m = &h->mark;
    m->cordoned = cordon;
    m->since_ms = cordon ? engine_now_ms(h->engine) : 0;
    LMO_COPY(m->drain, cordon ? drain : "");
    m->drain_state[0] = '\0';
    LMO_COPY(m->by, cordon ? by : "");
    LMO_COPY(m->reason, cordon ? reason : "");
}

void engine_mark_cordon(struct host *h, bool cordon, const char *drain, const char *by, const char *reason)
{
    struct lmo_event_row about = {0};
    json_t *data = json_object();
    LMO_COPY(about.host, h->row.name);
    LMO_COPY(about.drain, drain[0] ? drain : h->mark.drain);
    int r = lmo_json_put_str(data, "host", h->row.name);
    r |= lmo_json_put(data, "by", lmo_codec_string(by, LMO_NAME_MAX + 32));
    r |= lmo_json_put(data, "drain", about.drain[0] ? json_string(about.drain) : json_null());
    r |= lmo_json_put(data, "reason", reason[0] ? lmo_codec_string(reason, LMO_TEXT_MAX - 1) : json_null());
    if (r < 0) {
        json_decref(data);
        data = NULL;
    }
    engine_mark_set(h, cordon, drain, by, reason);
    engine_tell_with_commit(h->engine, &about, cordon ? "host.cordoned" : "host.uncordoned", data);
    lmo_log(LMO_LOG_INFO, cordon ? "host cordoned" : "cordon lifted", "host=%s by=%s drain=%s reason=%s", h->row.name,
            by, drain, reason);
    (void)engine_mark_store(h);
}

static bool valid_part(const char *text, size_t len)
{
    char part[LMO_NAME_MAX];
    if (len == 0 || len >= sizeof part) {
        return false;
    }
    memcpy(part, text, len);
    part[len] = '\0';
    return lmo_name_valid(part);
}

static int compare_labels(const void *a, const void *b)
{
    return strcmp(a, b);
}

int engine_labels_parse(const char *text, char ret[LMO_LABELS_TEXT_MAX], const char *field, struct lmo_err *err)
{
    char list[32][LMO_LABEL_MAX];
    unsigned count = 0;
    while (*text) {
        size_t len = strcspn(text, " ,"), key = strcspn(text, "= ,");
        if (len > 0) {
            if (key >= len || !valid_part(text, key) || !valid_part(text + key + 1, len - key - 1)) {
                return lmo_fail(
                    err, LMO_E_INVALID,
                    "%s: '%.*s' is not key=value, both of letters, digits, '.', '_' and '-', at most %d each", field,
                    (int)(len < 80 ? len : 80), text, LMO_NAME_MAX - 1);
            }
            if (count == 32) {
                return lmo_fail(err, LMO_E_INVALID, "%s: more than 32 labels", field);
            }
            memcpy(list[count], text, len);
            list[count++][len] = '\0';
        }
        text += len;
        text += strspn(text, " ,");
    }
    qsort(list, count, sizeof list[0], compare_labels);
    size_t used = 0;
    ret[0] = '\0';
    for (unsigned i = 0; i < count; i++) {
        size_t key = strcspn(list[i], "=") + 1;
        if (i > 0 && strncmp(list[i], list[i - 1], key) == 0) {
            return lmo_fail(err, LMO_E_INVALID, "%s: '%.*s' is given twice", field, (int)key - 1, list[i]);
        }
        int n = snprintf(ret + used, LMO_LABELS_TEXT_MAX - used, "%s%s", used ? " " : "", list[i]);
        if (n < 0 || used + (size_t)n >= LMO_LABELS_TEXT_MAX) {
            return lmo_fail(err, LMO_E_INVALID, "%s: more than %d bytes of labels", field, LMO_LABELS_TEXT_MAX - 1);
        }
        used += (size_t)n;
    }
    return 0;
}

bool engine_label_in(const char *labels, const char *label)
{
    size_t len = strlen(label);
    for (const char *p = labels; *p;) {
        size_t n = strcspn(p, " ");
        if (n == len && memcmp(p, label, n) == 0) {
            return true;
        }
        p += n + (p[n] == ' ');
    }
    return false;
}

json_t *engine_labels_json(const char *labels)
{
    json_t *o = json_object();
    int r = o ? 0 : -1;
    for (const char *p = labels; *p;) {
        size_t n = strcspn(p, " "), key = strcspn(p, "=");
        char name[LMO_LABEL_MAX] = "";
        memcpy(name, p, key < sizeof name ? key : 0);
        r |= lmo_json_put(o, name, json_stringn(p + key + 1, n - key - 1));
        p += n + (p[n] == ' ');
    }
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

int engine_mark_json(const struct host *h, json_t *to)
{
    const struct host_mark *m = &h->mark;
    int r = lmo_json_put(to, "labels", engine_labels_json(m->labels));
    r |= lmo_json_put_bool(to, "cordoned", m->cordoned);
    r |= lmo_json_put(to, "drain_state", m->drain_state[0] ? json_string(m->drain_state) : json_null());
    json_t *c = m->cordoned ? json_object() : json_null();
    if (m->cordoned) {
        r |= lmo_json_put_i64(c, "since_ms", m->since_ms);
        r |= lmo_json_put(c, "by", lmo_codec_string(m->by, sizeof m->by - 1));
        r |= lmo_json_put(c, "reason", lmo_codec_string(m->reason, sizeof m->reason - 1));
        r |= lmo_json_put(c, "drain", m->drain[0] ? json_string(m->drain) : json_null());
    }
    return r | lmo_json_put(to, "cordon", c);
}

int engine_permits(struct lmo_engine *e, const struct host *to, const char *uuid, const char *name, bool force,
                   struct lmo_err *err)
{
    const struct vm_setting *s = engine_setting(e, uuid);
    if (engine_leased(e, s)) {
        char text[LMO_TEXT_MAX];
        engine_lease_text(s, text, sizeof text);
        return lmo_fail(err, LMO_E_CONFLICT, "guest %s must not be moved now: %s", name, text);
    }
    if (to->mark.cordoned && !force) {
        return lmo_fail(err, LMO_E_REFUSED, "host %s is cordoned%s%s (%.120s): it takes no guests", to->row.name,
                        to->mark.drain[0] ? " by drain " : "", to->mark.drain, to->mark.reason);
    }
    return 0;
}

/* ------------------------------------------------------------------ guests: policies and leases */

const struct vm_setting *engine_setting(struct lmo_engine *e, const char *uuid)
{
    struct vm_setting *s = NULL;
    HASH_FIND_STR(e->fleet.settings, uuid, s);
    return s;
}

struct vm_setting *engine_setting_make(struct lmo_engine *e, const char *uuid)
{
    struct vm_setting *s = NULL;
    HASH_FIND_STR(e->fleet.settings, uuid, s);
    if (!s && (s = calloc(1, sizeof *s)) != NULL) {
        LMO_COPY(s->uuid, uuid);
        HASH_ADD_STR(e->fleet.settings, uuid, s);
    }
    return s;
}

bool engine_leased(const struct lmo_engine *e, const struct vm_setting *s)
{
    return s && s->lease.until_ms > engine_now_ms(e);
}

void engine_lease_text(const struct vm_setting *s, char *ret, size_t size)
{
    (void)snprintf(ret, size, "%.80s holds a lease on it: %.140s", s->lease.holder, s->lease.reason);
}

int engine_policy_store(struct lmo_engine *e, const char *uuid, const struct vm_policy *p, struct lmo_err *err)
{
    return put(e, LMO_OBJECT_VM_POLICY, uuid, &policy_table, p, err);
}

int engine_lease_store(struct lmo_engine *e, const char *uuid, const struct vm_lease *l, struct lmo_err *err)
{
    return put(e, LMO_OBJECT_VM_LEASE, uuid, &lease_table, l, err);
}

void engine_settings_free(struct lmo_engine *e)
{
    struct vm_setting *s, *next;
    HASH_ITER(hh, e->fleet.settings, s, next)
    {
        HASH_DEL(e->fleet.settings, s);
        free(s);
    }
}

static int load_mark(void *arg, const struct lmo_object *o)
{
    struct host *h = engine_host(arg, o->key);
    struct host_mark mark = {0};
    if (h && decode(o, &mark_table, &mark) == 0) {
        h->mark = mark;
    }
    return 0;
}

static int load_setting(void *arg, const struct lmo_object *o)
{
    struct vm_setting *s = engine_setting_make(arg, o->key), read = {0};
    bool policy = o->kind == LMO_OBJECT_VM_POLICY;
    if (!s) {
        return LMO_E_NO_MEMORY;
    }
    if (policy && decode(o, &policy_table, &read.policy) == 0) {
        s->policy = read.policy;
        s->has_policy = true;
    } else if (!policy && decode(o, &lease_table, &read.lease) == 0) {
        s->lease = read.lease;
    }
    return 0;
}

int engine_marks_load(struct lmo_engine *e, struct lmo_err *err)
{
    const struct lmo_store_ops *ops = e->store->ops;
    if (!ops->objects) {
        return 0;
    }
    const struct lmo_object_query marks = {.kind = LMO_OBJECT_HOST_MARK}, policies = {.kind = LMO_OBJECT_VM_POLICY},
                                  leases = {.kind = LMO_OBJECT_VM_LEASE};
    int r = ops->objects(e->store, &marks, load_mark, e, err);
    r = r < 0 ? r : ops->objects(e->store, &policies, load_setting, e, err);
    return r < 0 ? r : ops->objects(e->store, &leases, load_setting, e, err);
}
