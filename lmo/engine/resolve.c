/* resolve.c - a person's decision: look at both hosts first, then let the core judge it by what was seen. */
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"
#include "proto/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum look { SOURCE_VM, DESTINATION_VM, SOURCE_RECORD, DESTINATION_RECORD, LOOKS };

struct resolving {
    struct request *request; /* owned: who waits for the answer */
    struct lmo_resolve_view view;
    char id[LMO_ID_MAX];
    unsigned pending;
    struct look_call {
        struct resolving *of;
        enum look look;
    } calls[LOOKS];
};

static bool still_matches(struct request *q, const struct entry *entry)
{
    char etag[LMO_ETAG_MAX];
    engine_migration_etag(engine_record(entry), etag);
    return engine_matches(q, etag);
}

static void decide(struct resolving *r)
{
    struct request *q = r->request;
    struct entry *entry = engine_entry(q->engine, r->id);
    struct lmo_err err = {0};
    if (!entry) {
        engine_reply_fail(q->fn, q->arg, LMO_E_CONFLICT, "id", "migration %s has ended meanwhile", r->id);
        return;
    }
    char text[LMO_TEXT_MAX];
    (void)snprintf(text, sizeof text, "by %.90s: %.150s", q->url, q->reason);
    struct lmo_event ev = {.kind = LMO_EV_RESOLVE, .resolution = q->resolution, .view = &r->view, .text = text};
    if (!still_matches(q, entry)) { /* asked for again: both hosts were looked at meanwhile */
        return;
    }
    if (q->ask.dry_run && engine_try(entry, &ev, &err) == 0) {
        (void)engine_would(q, 202, NULL, "the decision would be taken: nothing that was seen on both hosts speaks against it");
        return;
    }
    if (err.code < 0 || engine_apply(entry, &ev, &err) < 0) {
        engine_reply_fail(q->fn, q->arg, err.code, "decision", "%s", err.text);
        return;
    }
    engine_wait_committed(q, entry); /* E3 */
}

static void look_done(struct resolving *r)
{
    if (--r->pending > 0) {
        return;
    }
    if (r->request->engine->stopping) {
        engine_reply_fail(r->request->fn, r->request->arg, LMO_E_UNAVAILABLE, "", "the coordinator is stopping");
    } else {
        decide(r);
    }
    free(r->request);
    free(r);
}

/* The stage of this migration's record in that role; "" if the worker has none. */
static void find_stage(const json_t *body, const char *id, const char *role, char stage[24])
{
    size_t i;
    const json_t *m;
    stage[0] = '\0';
    json_array_foreach(json_object_get(body, "migrations"), i, m)
    {
        const char *which = json_string_value(json_object_get(m, "migration"));
        const char *side = json_string_value(json_object_get(m, "role"));
        const char *at = json_string_value(json_object_get(m, "stage"));
        if (which && side && at && strcmp(which, id) == 0 && strcmp(side, role) == 0) {
            (void)snprintf(stage, 24, "%s", at);
        }
    }
}

static enum lmo_run_state state_of(int code, const json_t *body)
{
    static struct lmo_vm_facts facts; /* the loop thread's scratch */
    struct lmo_err err = {0};
    if (code == LMO_E_NOT_FOUND) {
        return LMO_RUN_ABSENT;
    }
    memset(&facts, 0, sizeof facts);
    return code == 0 && lmo_vm_facts_from_json(body, &facts, &err) == 0 ? facts.state : LMO_RUN_UNKNOWN;
}

static void on_look(void *arg, int code, const char *text, const json_t *body)
{
    struct look_call *c = arg;
    struct resolving *r = c->of;
    (void)text;
    bool listed = code == 0 && json_is_array(json_object_get(body, "migrations"));
    switch (c->look) {
    case SOURCE_VM: r->view.source = state_of(code, body); break;
    case DESTINATION_VM: r->view.destination = state_of(code, body); break;
    case SOURCE_RECORD:
        if (listed) {
            find_stage(body, r->id, "source", r->view.source_stage);
        }
        break;
    case DESTINATION_RECORD:
        if (listed) {
            find_stage(body, r->id, "destination", r->view.destination_stage);
        }
        break;
    case LOOKS: break;
    }
    look_done(r);
}

static void look(struct resolving *r, enum look what, const char *host, const char *path)
{
    struct lmo_engine *e = r->request->engine;
    struct lmo_err ignored = {0};
    r->calls[what] = (struct look_call){.of = r, .look = what};
    r->pending++;
    if (e->workers->ops->observe(e->workers, host, path, LMO_OBSERVE_TIMEOUT_MS, on_look, &r->calls[what], &ignored) <
        0) {
        r->pending--; /* unseen: the view says so already */
    }
}

static void migration_resolve(struct request *q)
{
    struct lmo_engine *e = q->engine;
    struct entry *entry = engine_entry(e, q->name);
    static struct lmo_migration m; /* the loop thread's scratch */
    struct lmo_err err = {0};
    if (!entry || entry->stored_version == 0) {
        int rc = e->store->ops->get(e->store, q->name, &m, &err);
        engine_reply_fail(q->fn, q->arg, rc < 0 ? rc : LMO_E_CONFLICT, "id", "%s%s",
                          rc < 0 ? err.text : "it has ended: ", rc < 0 ? "" : lmo_phase_text(m.phase));
        return;
    }
    if (entry->phase != LMO_PHASE_ATTENTION) {
        engine_reply_fail(q->fn, q->arg, LMO_E_CONFLICT, "id",
                          "migration %s is in %s: only one in attention needs a decision", q->name,
                          lmo_phase_text(entry->phase));
        return;
    }
    if (e->stalled) {
        engine_reply_fail(q->fn, q->arg, LMO_E_UNAVAILABLE, "", "the coordinator's store cannot be written now");
        return;
    }
    if (!still_matches(q, entry)) {
        return;
    }
    struct resolving *r = calloc(1, sizeof *r);
    struct request *kept = malloc(sizeof *kept);
    if (!r || !kept) {
        free(r);
        free(kept);
        engine_reply_fail(q->fn, q->arg, LMO_E_NO_MEMORY, "", "no memory for a decision");
        return;
    }
    *kept = *q; /* the caller frees the original */
    r->request = kept;
    LMO_COPY(r->id, q->name);
    LMO_COPY(r->view.source_stage, LMO_STAGE_UNSEEN);
    LMO_COPY(r->view.destination_stage, LMO_STAGE_UNSEEN);
    char path[64 + LMO_UUID_MAX];
    (void)snprintf(path, sizeof path, "/v1/observe/vm/%s", entry->vm);
    r->pending = 1; /* ours, until all are asked */
    look(r, SOURCE_VM, entry->source, path);
    look(r, DESTINATION_VM, entry->destination, path);
    look(r, SOURCE_RECORD, entry->source, "/v1/observe/migrations");
    look(r, DESTINATION_RECORD, entry->destination, "/v1/observe/migrations");
    look_done(r);
}

int lmo_engine_migration_resolve(struct lmo_engine *e, const char *id, enum lmo_resolution decision, const char *reason,
                                 const char *principal, lmo_engine_reply_fn *fn, void *arg)
{
    struct request q = engine_request(migration_resolve, fn, arg, id);
    LMO_COPY(q.url, principal);
    LMO_COPY(q.reason, reason);
    q.resolution = decision;
    return engine_post(e, &q);
}
