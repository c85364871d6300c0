/* doctor_mend.c - mends what is provably safe to mend: one thing at a time, each after everything has been looked at anew, by
 * an ordinary order that its worker journals and may refuse, or by telling the record a fact. Each repair is a line in the
 * audit trail. */
#include "engine/doctor.h"

#include "base/assert.h"
#include "base/id.h"
#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

static bool tried(const struct doctor *d, const struct lmo_finding *f)
{
    for (unsigned i = 0; i < d->repairs; i++) {
        const struct lmo_finding *g = &d->done[i].finding;
        if (g->kind == f->kind && g->role == f->role && strcmp(g->migration, f->migration) == 0 &&
            strcmp(g->host, f->host) == 0 && strcmp(g->object, f->object) == 0) {
            return true;
        }
    }
    return false;
}

static void repaired(struct doctor *d, int code, const char *text)
{
    const struct lmo_finding *f = &d->done[d->repairs].finding;
    struct lmo_audit_line l = {0};
    d->done[d->repairs].code = code;
    LMO_COPY(d->done[d->repairs].text, text);
    LMO_COPY(l.request, "doctor");
    LMO_COPY(l.principal, d->request->url);
    (void)snprintf(l.action, sizeof l.action, "repair %s: %s", lmo_repair_text(f->repair), lmo_finding_text(f->kind));
    LMO_COPY(l.migration, f->migration);
    LMO_COPY(l.host, f->host);
    LMO_COPY(l.outcome, lmo_err_name(code));
    (void)snprintf(l.detail, sizeof l.detail, "%.150s %.100s", f->text, text);
    engine_audit(d->engine, &l);
    lmo_log(code ? LMO_LOG_WARN : LMO_LOG_INFO, "doctor's repair",
            "repair=%s host=%s migration=%s object=%s code=%s why=%s", lmo_repair_text(f->repair), f->host,
            f->migration, f->object, lmo_err_name(code), text);
    d->repairs++;
    engine_doctor_look(d); /* everything anew: for the next repair, and for the answer */
}

static void on_repaired(void *arg, int code, const char *text, const struct lmo_op_reply *reply)
{
    struct doctor *d = arg;
    bool failed = code == 0 && reply->state != LMO_OP_DONE;
    char why[LMO_TEXT_MAX];
    LMO_COPY(why, failed ? reply->text : text ? text : "");
    repaired(d, failed ? reply->code : code, why);
}

static void tell(struct doctor *d, const struct lmo_finding *f)
{
    struct entry *entry = engine_entry(d->engine, f->migration);
    struct lmo_err err = {0};
    struct lmo_worker_event w = {.kind = f->repair == LMO_REPAIR_RESUMED ? LMO_WEV_RESUMED : LMO_WEV_BACK,
                                 .at_us = engine_now_ms(d->engine) * 1000,
                                 .state = LMO_RUN_RUNNING};
    LMO_COPY(w.evidence, f->evidence);
    struct lmo_event ev = {.kind = LMO_EV_WORKER, .worker = &w};
    int r = entry ? engine_apply(entry, &ev, &err) : LMO_E_NOT_FOUND;
    repaired(d, r, err.text);
}

static enum lmo_op_kind close_of(enum lmo_op_role role)
{
    switch (role) {
    case LMO_OP_ROLE_SOURCE: return LMO_OP_CLOSE_SOURCE;
    case LMO_OP_ROLE_DESTINATION: return LMO_OP_CLOSE_DESTINATION;
    case LMO_OP_ROLE_VOLUME: return LMO_OP_CLOSE_VOLUME;
    case LMO_OP_ROLE_FABRIC: return LMO_OP_CLOSE_FABRIC;
    case LMO_OP_ROLE_NONE: break;
    }
    lmo_unreachable("a record of no role");
}

/* Orders about no migration have an id without a dot and name no guest: no epoch of a guest's is touched by them. */
static void fill_order(const struct lmo_finding *f, struct lmo_op_request *req)
{
    char id[LMO_ID_MAX];
    lmo_ulid_generate(id);
    req->epoch = f->epoch ? f->epoch : 1;
    if (f->repair == LMO_REPAIR_CLOSE) {
        req->kind = close_of(f->role);
        LMO_COPY(req->migration, f->migration);
        LMO_COPY(req->vm, f->vm);
        (void)snprintf(req->id, sizeof req->id, "%s.%llu.0-%s", f->migration, (unsigned long long)req->epoch,
                       lmo_op_info(req->kind)->text);
        return;
    }
    req->kind = f->repair == LMO_REPAIR_DETACH ? LMO_OP_DETACH_SOURCE : LMO_OP_SINGLE_DESTINATION;
    (void)snprintf(req->id, sizeof req->id, "doctor-%s-%s", id, lmo_op_info(req->kind)->text);
    if (f->repair == LMO_REPAIR_DETACH) {
        req->volume_count = 1;
        LMO_COPY(req->volumes[0].volume, f->volume);
        LMO_COPY(req->volumes[0].target, "none"); /* no guest's device: the message wants one */
        LMO_COPY(req->volumes[0].export_name, f->object);
    } else {
        req->port_count = 1;
        LMO_COPY(req->ports[0].id, f->object);
        LMO_COPY(req->destination, f->other);
        LMO_COPY(req->source, f->other);
    }
}

static void mend(struct doctor *d, const struct lmo_finding *f)
{
    static struct lmo_op_request req; /* the loop thread's scratch */
    struct lmo_err err = {0};
    d->done[d->repairs].finding = *f;
    if (f->repair == LMO_REPAIR_RESUMED || f->repair == LMO_REPAIR_BACK) {
        tell(d, f);
        return;
    }
    memset(&req, 0, sizeof req);
    fill_order(f, &req);
    struct lmo_workers *w = d->engine->workers;
    if (w->ops->op(w, f->host, &req, lmo_op_info(req.kind)->timeout_ms, on_repaired, d, &err) < 0) {
        repaired(d, err.code, err.text);
    }
}

bool engine_doctor_mend(struct doctor *d)
{
    for (unsigned i = 0; d->repairs < DOCTOR_REPAIRS_MAX && i < d->finding_count; i++) {
        if (d->findings[i].repair != LMO_REPAIR_NONE && !tried(d, &d->findings[i])) {
            mend(d, &d->findings[i]);
            return true;
        }
    }
    return false;
}
