/* marks.c - what people said about hosts and guests: cordon and labels, policies and leases. Each is one JSON text in the
 * store, written with the next commit; whoever asked is answered after that. */
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

void engine_mark_cordon(struct host *h, bool cordon, const char *drain, const char *by, const char *reason)
{
    struct host_mark *m = &h->mark;
    m->cordoned = cordon;
    m->since_ms = cordon ? engine_now_ms(h->engine) : 0;
    LMO_COPY(m->drain, cordon ? drain : "");
    m->drain_state[0] = '\0';
    LMO_COPY(m->by, cordon ? by : "");
    LMO_COPY(m->reason, cordon ? reason : "");
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

static struct vm_setting *setting(struct lmo_engine *e, const char *uuid)
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
    struct vm_setting *s = setting(arg, o->key), read = {0};
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

/* ------------------------------------------------------------------ requests */

struct mark_request {
    struct lmo_engine *engine;
    void (*run)(struct mark_request *r);
    lmo_engine_reply_fn *fn;
    void *arg;
    char name[LMO_NAME_MAX], principal[LMO_NAME_MAX + 32], reason[LMO_TEXT_MAX];
    char labels[LMO_LABELS_TEXT_MAX];
    bool on, dry_run;
    int64_t ms;
    struct vm_policy policy;
};

static void run(void *arg)
{
    struct mark_request *r = arg;
    if (r->engine->stalled) {
        engine_reply_fail(r->fn, r->arg, LMO_E_UNAVAILABLE, "", "the coordinator's store cannot be written now");
    } else {
        r->run(r);
    }
    free(r);
}

static int post(struct lmo_engine *e, const struct mark_request *template)
{
    struct mark_request *r = malloc(sizeof *r);
    if (!r) {
        return LMO_E_NO_MEMORY;
    }
    *r = *template;
    r->engine = e;
    int rc = lmo_loop_post(e->loop, run, r);
    if (rc < 0) {
        free(r);
    }
    return rc;
}

static struct host *host_of(struct mark_request *r)
{
    struct host *h = engine_host(r->engine, r->name);
    if (!h) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "name", "host %s is not registered", r->name);
    }
    return h;
}

static void reply_host(struct mark_request *r, struct host *h)
{
    if (r->dry_run) {
        engine_reply_ok(r->fn, r->arg, 200, engine_host_json(r->engine, h), "");
    } else {
        engine_reply_committed(r->engine, r->fn, r->arg, 200, engine_host_json(r->engine, h), "");
    }
}

static void cordon(struct mark_request *r)
{
    struct host *h = host_of(r);
    if (!h) {
        return;
    }
    if (!r->on && h->mark.drain[0] && engine_drain_holds(r->engine, h)) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "name",
                          "drain %s keeps host %s cordoned; cancel it first: lmo drain cancel %s", h->mark.drain,
                          h->row.name, h->mark.drain);
        return;
    }
    if (!r->dry_run &&
        (h->mark.cordoned != r->on || (r->on && strcmp(h->mark.reason, r->reason) != 0 && !h->mark.drain[0]))) {
        engine_mark_cordon(h, r->on, "", r->principal, r->reason);
        engine_admission_host_changed(r->engine, h);
    }
    reply_host(r, h);
}

int lmo_engine_host_cordon(struct lmo_engine *e, const char *name, bool on, const char *reason, bool dry_run,
                           const char *principal, lmo_engine_reply_fn *fn, void *arg)
{
    struct mark_request r = {.run = cordon, .fn = fn, .arg = arg, .on = on, .dry_run = dry_run};
    LMO_COPY(r.name, name);
    LMO_COPY(r.reason, reason);
    LMO_COPY(r.principal, principal);
    return post(e, &r);
}

static void labels(struct mark_request *r)
{
    struct host *h = host_of(r);
    if (!h) {
        return;
    }
    if (!r->dry_run && strcmp(h->mark.labels, r->labels) != 0) {
        LMO_COPY(h->mark.labels, r->labels);
        (void)engine_mark_store(h);
    }
    reply_host(r, h);
}

int lmo_engine_host_labels(struct lmo_engine *e, const char *name, const char *text, bool dry_run,
                           lmo_engine_reply_fn *fn, void *arg, struct lmo_err *err)
{
    struct mark_request r = {.run = labels, .fn = fn, .arg = arg, .dry_run = dry_run};
    LMO_COPY(r.name, name);
    int rc = engine_labels_parse(text, r.labels, "labels", err);
    return rc < 0 ? rc : post(e, &r);
}

static json_t *groups_json(const struct vm_policy *p)
{
    json_t *array = json_array();
    for (unsigned i = 0; array && i < p->group_count; i++) {
        json_t *o = json_object();
        int r = lmo_json_put_str(o, "name", p->groups[i].name);
        r |= lmo_json_put_str(o, "kind", p->groups[i].together ? "together" : "apart");
        r |= lmo_json_put_bool(o, "hard", p->groups[i].hard);
        if (r < 0) {
            json_decref(o);
            o = NULL;
        }
        if (lmo_json_add(array, o) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *policy_json(const char *uuid, const struct vm_setting *s)
{
    static const struct vm_policy none;
    const struct vm_policy *p = s && s->has_policy ? &s->policy : &none;
    json_t *o = json_object();
    int r = lmo_json_put_str(o, "vm", uuid);
    r |= lmo_json_put(o, "unmovable",
                      p->unmovable_given ? json_string(lmo_unmovable_text((int)p->unmovable)) : json_null());
    r |= lmo_json_put(o, "labels", engine_labels_json(p->labels));
    r |= lmo_json_put(o, "groups", groups_json(p));
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *lease_json(const struct lmo_engine *e, const char *uuid, const struct vm_setting *s)
{
    bool held = engine_leased(e, s);
    json_t *o = json_object();
    int r = lmo_json_put_str(o, "vm", uuid);
    r |= lmo_json_put(o, "holder", held ? lmo_codec_string(s->lease.holder, sizeof s->lease.holder - 1) : json_null());
    r |= lmo_json_put(o, "reason", held ? lmo_codec_string(s->lease.reason, sizeof s->lease.reason - 1) : json_null());
    r |= lmo_json_put(o, "since_ms", held ? json_integer(s->lease.since_ms) : json_null());
    r |= lmo_json_put(o, "until_ms", held ? json_integer(s->lease.until_ms) : json_null());
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void policy_set(struct mark_request *r)
{
    struct vm_setting *s = setting(r->engine, r->name);
    struct lmo_err err = {0};
    if (!s || put(r->engine, LMO_OBJECT_VM_POLICY, r->name, &policy_table, &r->policy, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, s ? err.code : LMO_E_NO_MEMORY, "", "%s",
                          s ? err.text : "no memory for a policy");
        return;
    }
    s->policy = r->policy;
    s->has_policy = true;
    engine_reply_committed(r->engine, r->fn, r->arg, 200, policy_json(r->name, s), "");
}

int lmo_engine_vm_policy_set(struct lmo_engine *e, const char *uuid, const struct lmo_vm_policy *p,
                             lmo_engine_reply_fn *fn, void *arg, struct lmo_err *err)
{
    struct mark_request r = {.run = policy_set, .fn = fn, .arg = arg};
    LMO_COPY(r.name, uuid);
    r.policy.unmovable_given = p->unmovable_given;
    r.policy.unmovable = p->unmovable;
    int rc = engine_labels_parse(p->labels, r.policy.labels, "labels", err);
    for (unsigned i = 0; rc == 0 && i < p->group_count && i < LMO_GUEST_GROUPS_MAX; i++) {
        LMO_COPY(r.policy.groups[i].name, p->groups[i].name);
        r.policy.groups[i].together = p->groups[i].together;
        r.policy.groups[i].hard = p->groups[i].hard;
        r.policy.group_count++;
    }
    return rc < 0 ? rc : post(e, &r);
}

static void policy_get(struct mark_request *r)
{
    engine_reply_ok(r->fn, r->arg, 200, policy_json(r->name, engine_setting(r->engine, r->name)), "");
}

int lmo_engine_vm_policy_get(struct lmo_engine *e, const char *uuid, lmo_engine_reply_fn *fn, void *arg)
{
    struct mark_request r = {.run = policy_get, .fn = fn, .arg = arg};
    LMO_COPY(r.name, uuid);
    return post(e, &r);
}

static void lease_set(struct mark_request *r)
{
    struct lmo_engine *e = r->engine;
    struct vm_setting *s = setting(e, r->name);
    struct lmo_err err = {0};
    if (!s) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NO_MEMORY, "", "no memory for a lease");
        return;
    }
    if (engine_leased(e, s) && strcmp(s->lease.holder, r->principal) != 0) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "vm", "%.100s holds a lease on this guest: %.150s",
                          s->lease.holder, s->lease.reason);
        return;
    }
    const struct entry *open = engine_entry_of_vm(e, r->name);
    if (r->on && open && lmo_phase_is(open->phase, LMO_PHASE_CANCELLABLE) == false) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "vm",
                          "the guest is being moved by migration %s, past the point of no return", open->id);
        return;
    }
    if (r->on && open && open->phase != LMO_PHASE_QUEUED) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "vm",
                          "the guest is being moved by migration %s; cancel it, or wait for its end", open->id);
        return;
    }
    struct vm_lease lease = {.since_ms = engine_now_ms(e), .until_ms = r->on ? engine_now_ms(e) + r->ms : 0};
    LMO_COPY(lease.holder, r->principal);
    LMO_COPY(lease.reason, r->reason);
    if (put(e, LMO_OBJECT_VM_LEASE, r->name, &lease_table, r->on ? &lease : NULL, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, err.code, "", "%s", err.text);
        return;
    }
    s->lease = r->on ? lease : (struct vm_lease){0};
    engine_reply_committed(e, r->fn, r->arg, 200, lease_json(e, r->name, s), "");
}

int lmo_engine_vm_lease_set(struct lmo_engine *e, const char *uuid, const char *reason, uint64_t seconds,
                            const char *principal, lmo_engine_reply_fn *fn, void *arg)
{
    struct mark_request r = {.run = lease_set, .fn = fn, .arg = arg, .on = seconds > 0, .ms = (int64_t)seconds * 1000};
    LMO_COPY(r.name, uuid);
    LMO_COPY(r.reason, reason);
    LMO_COPY(r.principal, principal);
    return post(e, &r);
}

static void lease_get(struct mark_request *r)
{
    engine_reply_ok(r->fn, r->arg, 200, lease_json(r->engine, r->name, engine_setting(r->engine, r->name)), "");
}

int lmo_engine_vm_lease_get(struct lmo_engine *e, const char *uuid, lmo_engine_reply_fn *fn, void *arg)
{
    struct mark_request r = {.run = lease_get, .fn = fn, .arg = arg};
    LMO_COPY(r.name, uuid);
    return post(e, &r);
}
