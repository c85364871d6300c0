/* mark_requests.c - what clients say about hosts and guests: cordon and labels, policies and leases. Each is stored with the
 * next commit; whoever asked is answered after that. */
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/drains_internal.h"
#include "proto/codec.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What such a request has beside what all have. */
struct mark {
    char principal[LMO_NAME_MAX + 32], labels[LMO_LABELS_TEXT_MAX];
    bool on;
    int64_t ms;
    struct vm_policy policy;
};

static int post(struct lmo_engine *e, struct request r, const struct mark *m)
{
    if (m) {
        r.more = malloc(sizeof *m);
        if (!r.more) {
            return LMO_E_NO_MEMORY;
        }
        memcpy(r.more, m, sizeof *m);
    } else {
        r.harmless = true;
    }
    return engine_post(e, &r);
}

static bool writable(struct request *r)
{
    if (r->engine->stalled && !r->ask.dry_run) {
        engine_reply_fail(r->fn, r->arg, LMO_E_UNAVAILABLE, "", "the coordinator's store cannot be written now");
        return false;
    }
    return true;
}

/* ------------------------------------------------------------------ hosts */

/* NULL: refused. */
static struct host *host_of(struct request *r)
{
    char etag[LMO_ETAG_MAX];
    struct host *h = engine_host(r->engine, r->name);
    if (!h) {
        engine_reply_fail(r->fn, r->arg, LMO_E_NOT_FOUND, "name", "host %s is not registered", r->name);
        return NULL;
    }
    engine_host_etag(h, etag);
    return writable(r) && engine_matches(r, etag) ? h : NULL;
}

static void reply_host(struct request *r, struct host *h)
{
    char etag[LMO_ETAG_MAX];
    engine_host_etag(h, etag);
    engine_reply_committed(r, 200, engine_host_json(r->engine, h), etag);
}

static void cordon(struct request *r)
{
    const struct mark *m = r->more;
    struct host *h = host_of(r);
    if (!h) {
        return;
    }
    if (!m->on && h->mark.drain[0] && engine_drain_holds(r->engine, h)) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "name",
                          "drain %s keeps host %s cordoned; cancel it first: lmo drain cancel %s", h->mark.drain,
                          h->row.name, h->mark.drain);
        return;
    }
    bool changes = h->mark.cordoned != m->on || (m->on && strcmp(h->mark.reason, r->reason) != 0 && !h->mark.drain[0]);
    if (r->ask.dry_run) {
        struct host_mark before = h->mark;
        if (changes) {
            engine_mark_set(h, m->on, "", m->principal, r->reason);
        }
        json_t *shown = engine_host_json(r->engine, h);
        h->mark = before;
        (void)engine_would(r, 200, shown, m->on ? "host %s would take no guests" : "host %s would take guests",
                           r->name);
        return;
    }
    if (changes) {
        engine_mark_cordon(h, m->on, "", m->principal, r->reason);
        engine_admission_host_changed(r->engine, h);
    }
    reply_host(r, h);
}

int lmo_engine_host_cordon(struct lmo_engine *e, const char *name, bool on, const char *reason, const char *principal,
                           lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(cordon, fn, arg, name);
    struct mark m = {.on = on};
    LMO_COPY(r.reason, reason);
    LMO_COPY(m.principal, principal);
    return post(e, r, &m);
}

static void tell_labels(struct host *h)
{
    struct lmo_event_row about = {0};
    json_t *data = json_object();
    LMO_COPY(about.host, h->row.name);
    if (lmo_json_put_str(data, "host", h->row.name) < 0 ||
        lmo_json_put(data, "labels", engine_labels_json(h->mark.labels)) < 0) {
        json_decref(data);
        data = NULL;
    }
    engine_tell_with_commit(h->engine, &about, "host.labels", data);
}

static void labels(struct request *r)
{
    const struct mark *m = r->more;
    struct host *h = host_of(r);
    if (!h) {
        return;
    }
    struct host_mark before = h->mark;
    LMO_COPY(h->mark.labels, m->labels);
    if (r->ask.dry_run) {
        json_t *shown = engine_host_json(r->engine, h);
        h->mark = before;
        (void)engine_would(r, 200, shown, "host %s would have the labels '%.150s'", r->name, m->labels);
        return;
    }
    if (strcmp(before.labels, m->labels) != 0) {
        (void)engine_mark_store(h);
        tell_labels(h);
    }
    reply_host(r, h);
}

int lmo_engine_host_labels(struct lmo_engine *e, const char *name, const char *text, lmo_engine_reply_fn *fn, void *arg,
                           struct lmo_err *err)
{
    struct mark m = {0};
    int rc = engine_labels_parse(text, m.labels, "labels", err);
    return rc < 0 ? rc : post(e, engine_request(labels, fn, arg, name), &m);
}

/* ------------------------------------------------------------------ guests */

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

/* Of what was said; not of the guest, nor of the time that passes. */
static void policy_etag(const struct vm_setting *s, char ret[LMO_ETAG_MAX])
{
    uint64_t seal = LMO_SEAL_NONE;
    if (s && s->has_policy) {
        seal = lmo_seal(seal, s->policy.unmovable_given ? lmo_unmovable_text((int)s->policy.unmovable) : "");
        seal = lmo_seal(seal, s->policy.labels);
        for (unsigned i = 0; i < s->policy.group_count; i++) {
            seal = lmo_seal(seal, s->policy.groups[i].name);
            seal = lmo_seal(seal, s->policy.groups[i].together ? "together" : "apart");
            seal = lmo_seal(seal, s->policy.groups[i].hard ? "hard" : "soft");
        }
    }
    (void)snprintf(ret, LMO_ETAG_MAX, "\"%016" PRIx64 "\"", seal);
}

static void lease_etag(const struct lmo_engine *e, const struct vm_setting *s, char ret[LMO_ETAG_MAX])
{
    char until[32];
    uint64_t seal = LMO_SEAL_NONE;
    if (engine_leased(e, s)) {
        (void)snprintf(until, sizeof until, "%" PRId64, s->lease.until_ms);
        seal = lmo_seal(lmo_seal(lmo_seal(seal, s->lease.holder), s->lease.reason), until);
    }
    (void)snprintf(ret, LMO_ETAG_MAX, "\"%016" PRIx64 "\"", seal);
}

static void policy_set(struct request *r)
{
    const struct mark *m = r->more;
    struct lmo_engine *e = r->engine;
    char etag[LMO_ETAG_MAX];
    struct lmo_err err = {0};
    policy_etag(engine_setting(e, r->name), etag);
    if (!writable(r) || !engine_matches(r, etag)) {
        return;
    }
    struct vm_setting next = {.has_policy = true, .policy = m->policy};
    if (engine_would(r, 200, r->ask.dry_run ? policy_json(r->name, &next) : NULL,
                     "the policy of guest %s would be replaced", r->name)) {
        return;
    }
    struct vm_setting *s = engine_setting_make(e, r->name);
    if (!s || engine_policy_store(e, r->name, &m->policy, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, s ? err.code : LMO_E_NO_MEMORY, "", "%s",
                          s ? err.text : "no memory for a policy");
        return;
    }
    s->policy = m->policy;
    s->has_policy = true;
    policy_etag(s, etag);
    engine_reply_committed(r, 200, policy_json(r->name, s), etag);
}

int lmo_engine_vm_policy_set(struct lmo_engine *e, const char *uuid, const struct lmo_vm_policy *p,
                             lmo_engine_reply_fn *fn, void *arg, struct lmo_err *err)
{
    struct mark m = {.policy = {.unmovable_given = p->unmovable_given, .unmovable = p->unmovable}};
    int rc = engine_labels_parse(p->labels, m.policy.labels, "labels", err);
    for (unsigned i = 0; rc == 0 && i < p->group_count && i < LMO_GUEST_GROUPS_MAX; i++) {
        LMO_COPY(m.policy.groups[i].name, p->groups[i].name);
        m.policy.groups[i].together = p->groups[i].together;
        m.policy.groups[i].hard = p->groups[i].hard;
        m.policy.group_count++;
    }
    return rc < 0 ? rc : post(e, engine_request(policy_set, fn, arg, uuid), &m);
}

static void policy_get(struct request *r)
{
    char etag[LMO_ETAG_MAX];
    const struct vm_setting *s = engine_setting(r->engine, r->name);
    policy_etag(s, etag);
    engine_reply_object(r->fn, r->arg, 200, policy_json(r->name, s), "", etag);
}

int lmo_engine_vm_policy_get(struct lmo_engine *e, const char *uuid, lmo_engine_reply_fn *fn, void *arg)
{
    return post(e, engine_request(policy_get, fn, arg, uuid), NULL);
}

/* False: refused. */
static bool lease_possible(struct request *r, const struct mark *m, const struct vm_setting *s)
{
    const struct entry *open = engine_entry_of_vm(r->engine, r->name);
    if (engine_leased(r->engine, s) && strcmp(s->lease.holder, m->principal) != 0) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "vm", "%.100s holds a lease on this guest: %.150s",
                          s->lease.holder, s->lease.reason);
    } else if (m->on && open && !lmo_phase_is(open->phase, LMO_PHASE_CANCELLABLE)) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "vm",
                          "the guest is being moved by migration %s, past the point of no return", open->id);
    } else if (m->on && open && open->phase != LMO_PHASE_QUEUED) {
        engine_reply_fail(r->fn, r->arg, LMO_E_CONFLICT, "vm",
                          "the guest is being moved by migration %s; cancel it, or wait for its end", open->id);
    } else {
        return true;
    }
    return false;
}

static void lease_set(struct request *r)
{
    const struct mark *m = r->more;
    struct lmo_engine *e = r->engine;
    char etag[LMO_ETAG_MAX];
    struct lmo_err err = {0};
    lease_etag(e, engine_setting(e, r->name), etag);
    if (!writable(r) || !engine_matches(r, etag) || !lease_possible(r, m, engine_setting(e, r->name))) {
        return;
    }
    struct vm_setting next = {0};
    if (m->on) {
        next.lease = (struct vm_lease){.since_ms = engine_now_ms(e), .until_ms = engine_now_ms(e) + m->ms};
        LMO_COPY(next.lease.holder, m->principal);
        LMO_COPY(next.lease.reason, r->reason);
    }
    if (engine_would(r, 200, r->ask.dry_run ? lease_json(e, r->name, &next) : NULL,
                     m->on ? "guest %s would not be moved while the lease lasts" : "guest %s could be moved again",
                     r->name)) {
        return;
    }
    struct vm_setting *s = engine_setting_make(e, r->name);
    if (!s || engine_lease_store(e, r->name, m->on ? &next.lease : NULL, &err) < 0) {
        engine_reply_fail(r->fn, r->arg, s ? err.code : LMO_E_NO_MEMORY, "", "%s",
                          s ? err.text : "no memory for a lease");
        return;
    }
    s->lease = next.lease;
    lease_etag(e, s, etag);
    engine_reply_committed(r, 200, lease_json(e, r->name, s), etag);
}

int lmo_engine_vm_lease_set(struct lmo_engine *e, const char *uuid, const char *reason, uint64_t seconds,
                            const char *principal, lmo_engine_reply_fn *fn, void *arg)
{
    struct request r = engine_request(lease_set, fn, arg, uuid);
    struct mark m = {.on = seconds > 0, .ms = (int64_t)seconds * 1000};
    LMO_COPY(r.reason, reason);
    LMO_COPY(m.principal, principal);
    return post(e, r, &m);
}

static void lease_get(struct request *r)
{
    char etag[LMO_ETAG_MAX];
    const struct vm_setting *s = engine_setting(r->engine, r->name);
    lease_etag(r->engine, s, etag);
    engine_reply_object(r->fn, r->arg, 200, lease_json(r->engine, r->name, s), "", etag);
}

int lmo_engine_vm_lease_get(struct lmo_engine *e, const char *uuid, lmo_engine_reply_fn *fn, void *arg)
{
    return post(e, engine_request(lease_get, fn, arg, uuid), NULL);
}
