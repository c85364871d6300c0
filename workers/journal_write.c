/* journal_write.c - batches: what is to be written, and the statements that write it. */
#include "workers/journal_private.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "proto/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *lmo_journal_role_text(enum lmo_op_role role)
{
    switch (role) {
    case LMO_OP_ROLE_SOURCE: return "source";
    case LMO_OP_ROLE_DESTINATION: return "destination";
    case LMO_OP_ROLE_VOLUME: return "volume";
    case LMO_OP_ROLE_FABRIC: return "fabric";
    case LMO_OP_ROLE_NONE: break;
    }
    return "none";
}

static const char *state_text(enum lmo_op_state state)
{
    switch (state) {
    case LMO_OP_RUNNING: return "running";
    case LMO_OP_DONE: return "done";
    case LMO_OP_FAILED: return "failed";
    }
    return "failed";
}

struct lmo_batch *lmo_batch_new(void)
{
    struct lmo_batch *b = calloc(1, sizeof *b);
    lmo_assert(b);
    b->last = &b->first;
    return b;
}

void lmo_batch_free(struct lmo_batch *b)
{
    while (b->first) {
        struct lmo_write *w = b->first;
        b->first = w->next;
        free(w->text);
        free(w->text2);
        free(w);
    }
    free(b);
}

static struct lmo_write *add(struct lmo_batch *b,
                             int (*apply)(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err))
{
    struct lmo_write *w = calloc(1, sizeof *w);
    lmo_assert(w);
    w->apply = apply;
    *b->last = w;
    b->last = &w->next;
    return w;
}

static char *copy(const char *text)
{
    char *c = text ? strdup(text) : NULL;
    lmo_assert(!text || c);
    return c;
}

/* ---- epochs ---- */

int lmo_journal_apply_vm(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(db,
                            "INSERT INTO vm_epoch VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (vm) DO UPDATE SET "
                            "seen = max(seen, ?2), closed_source = max(closed_source, ?3), "
                            "closed_destination = max(closed_destination, ?4), "
                            "closed_volume = max(closed_volume, ?5), closed_fabric = max(closed_fabric, ?6)",
                            &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, w->u.vm.vm);
    lmo_sql_bind_u64(s, 2, w->u.vm.seen);
    lmo_sql_bind_u64(s, 3, w->u.vm.closed[LMO_OP_ROLE_SOURCE]);
    lmo_sql_bind_u64(s, 4, w->u.vm.closed[LMO_OP_ROLE_DESTINATION]);
    lmo_sql_bind_u64(s, 5, w->u.vm.closed[LMO_OP_ROLE_VOLUME]);
    lmo_sql_bind_u64(s, 6, w->u.vm.closed[LMO_OP_ROLE_FABRIC]);
    return lmo_sql_run(s, NULL, err);
}

void lmo_batch_vm(struct lmo_batch *b, const struct lmo_journal_vm *vm)
{
    add(b, lmo_journal_apply_vm)->u.vm = *vm;
}

/* ---- the coordinator's term ---- */

int lmo_journal_apply_term(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    char text[24];
    int r = lmo_sql_prepare(db,
                            "INSERT INTO meta (key, value) VALUES ('term', ?1) ON CONFLICT (key) DO UPDATE SET value = ?1 "
                            "WHERE CAST(value AS INTEGER) < CAST(?1 AS INTEGER)",
                            &s, err);
    if (r < 0) {
        return r;
    }
    snprintf(text, sizeof text, "%llu", (unsigned long long)w->u.term);
    lmo_sql_bind_text(s, 1, text);
    return lmo_sql_run(s, NULL, err);
}

void lmo_batch_term(struct lmo_batch *b, uint64_t term)
{
    add(b, lmo_journal_apply_term)->u.term = term;
}

/* ---- ops ---- */

static int apply_op(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(db,
                            "INSERT INTO op (id, migration, vm, epoch, role, kind, state, request) "
                            "VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'running', ?7) "
                            "ON CONFLICT (id) DO UPDATE SET state = 'running', request = ?7, reply = NULL",
                            &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, w->u.op.id);
    lmo_sql_bind_text(s, 2, w->u.op.migration);
    lmo_sql_bind_text(s, 3, w->u.op.vm);
    lmo_sql_bind_u64(s, 4, w->u.op.epoch);
    lmo_sql_bind_text(s, 5, lmo_journal_role_text(w->u.op.role));
    lmo_sql_bind_text(s, 6, lmo_op_info(w->u.op.kind)->text);
    lmo_sql_bind_text(s, 7, w->text);
    return lmo_sql_run(s, NULL, err);
}

void lmo_batch_op(struct lmo_batch *b, const struct lmo_op_request *req, const char *request_text)
{
    struct lmo_write *w = add(b, apply_op);
    snprintf(w->u.op.id, sizeof w->u.op.id, "%s", req->id);
    snprintf(w->u.op.migration, sizeof w->u.op.migration, "%s", req->migration);
    snprintf(w->u.op.vm, sizeof w->u.op.vm, "%s", req->vm);
    w->u.op.epoch = req->epoch;
    w->u.op.kind = req->kind;
    w->u.op.role = lmo_op_info(req->kind)->role;
    w->text = copy(request_text);
}

static int apply_superseded(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(db, "DELETE FROM op WHERE migration = ?1 AND kind = ?2 AND state <> 'running'", &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, w->u.op.migration);
    lmo_sql_bind_text(s, 2, lmo_op_info(LMO_OP_RELAY_FREEZE)->text);
    return lmo_sql_run(s, NULL, err);
}

void lmo_batch_superseded(struct lmo_batch *b, const char *migration)
{
    struct lmo_write *w = add(b, apply_superseded);
    snprintf(w->u.op.migration, sizeof w->u.op.migration, "%s", migration);
}

static int apply_reply(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(db, "UPDATE op SET state = ?2, reply = ?3, request = NULL WHERE id = ?1", &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, w->u.op.id);
    lmo_sql_bind_text(s, 2, state_text(w->u.op.state));
    lmo_sql_bind_text(s, 3, w->text);
    return lmo_sql_run(s, NULL, err); /* no row: the migration was closed meanwhile */
}

void lmo_batch_reply(struct lmo_batch *b, const char *id, enum lmo_op_state state, const char *reply_text)
{
    struct lmo_write *w = add(b, apply_reply);
    snprintf(w->u.op.id, sizeof w->u.op.id, "%s", id);
    w->u.op.state = state;
    w->text = copy(reply_text);
}

/* ---- records ---- */

/* A step that was taken between the submission of a close and its commit must not bring the record's row back: nobody
 * would ever close it again. */
#define NOT_CLOSED(role) "NOT EXISTS (SELECT 1 FROM closed WHERE closed.migration = ?1 AND closed.role = " role ")"

static int apply_dst(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err)
{
    const struct lmo_dst *d = &w->u.dst;
    struct lmo_sql_stmt *s;
    int r =
        lmo_sql_prepare(db,
                        "INSERT OR REPLACE INTO dst (migration, vm, epoch, stage, has_permit, loaded, final_paused, "
                        "volume_count, fence_sent, loaded_us, answer, evidence) "
                        "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 "
                        "WHERE " NOT_CLOSED("'destination'"),
                        &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, d->migration);
    lmo_sql_bind_text(s, 2, d->vm);
    lmo_sql_bind_u64(s, 3, d->epoch);
    lmo_sql_bind_text(s, 4, lmo_dst_stage_text(d->stage));
    lmo_sql_bind_i64(s, 5, d->has_permit);
    lmo_sql_bind_i64(s, 6, d->loaded);
    lmo_sql_bind_i64(s, 7, d->final_paused);
    lmo_sql_bind_u64(s, 8, d->volume_count);
    lmo_sql_bind_i64(s, 9, d->fence_sent);
    lmo_sql_bind_i64(s, 10, d->loaded_us);
    lmo_sql_bind_text(s, 11, lmo_freeze_answer_name(d->answer));
    lmo_sql_bind_text(s, 12, d->evidence);
    return lmo_sql_run(s, NULL, err);
}

void lmo_batch_dst(struct lmo_batch *b, const struct lmo_dst *d)
{
    add(b, apply_dst)->u.dst = *d;
}

static int apply_src(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err)
{
    const struct lmo_src *src = &w->u.src;
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(db,
                            "INSERT OR REPLACE INTO src (migration, vm, epoch, freeze_epoch, stage, job_running, "
                            "gate_open, final_paused, evidence, frozen_us, freeze_us) "
                            "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11 WHERE " NOT_CLOSED("'source'"),
                            &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, src->migration);
    lmo_sql_bind_text(s, 2, src->vm);
    lmo_sql_bind_u64(s, 3, src->epoch);
    lmo_sql_bind_u64(s, 4, src->freeze_epoch);
    lmo_sql_bind_text(s, 5, lmo_src_stage_text(src->stage));
    lmo_sql_bind_i64(s, 6, src->job_running);
    lmo_sql_bind_i64(s, 7, src->gate_open);
    lmo_sql_bind_i64(s, 8, src->final_paused);
    lmo_sql_bind_text(s, 9, src->evidence);
    lmo_sql_bind_i64(s, 10, src->frozen_us);
    lmo_sql_bind_u64(s, 11, src->freeze_us);
    return lmo_sql_run(s, NULL, err);
}

void lmo_batch_src(struct lmo_batch *b, const struct lmo_src *s)
{
    add(b, apply_src)->u.src = *s;
}

static int apply_setup(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(db,
                            "INSERT INTO setup (migration, role, request, permit) "
                            "SELECT ?1, ?2, ?3, ?4 WHERE " NOT_CLOSED(
                                "?2") " ON CONFLICT (migration, role) DO UPDATE SET request = coalesce(?3, request), "
                                      "permit = coalesce(?4, permit)",
                            &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, w->u.op.migration);
    lmo_sql_bind_text(s, 2, lmo_journal_role_text(w->u.op.role));
    lmo_sql_bind_text(s, 3, w->text);
    lmo_sql_bind_text(s, 4, w->text2);
    return lmo_sql_run(s, NULL, err);
}

void lmo_batch_setup(struct lmo_batch *b, const char *migration, enum lmo_op_role role, const char *request,
                     const char *permit)
{
    struct lmo_write *w = add(b, apply_setup);
    snprintf(w->u.op.migration, sizeof w->u.op.migration, "%s", migration);
    w->u.op.role = role;
    w->text = copy(request);
    w->text2 = copy(permit);
}

/* ---- events ---- */

static int apply_event(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(db, "INSERT INTO event (json) VALUES (?1)", &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, w->text);
    return lmo_sql_run(s, NULL, err);
}

void lmo_batch_event(struct lmo_batch *b, const struct lmo_worker_event *e)
{
    LMO_AUTO_JSON json_t *json = lmo_worker_event_to_json(e);
    char *text = NULL;
    lmo_assert(json && lmo_json_dump(json, &text, NULL, NULL) == 0);
    add(b, apply_event)->text = text;
    b->event_count++;
}

/* ---- the end of a migration ---- */

static int run_close(struct lmo_sql *db, const struct lmo_write *w, const char *sql, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(db, sql, &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, w->u.op.migration);
    lmo_sql_bind_text(s, 2, lmo_journal_role_text(w->u.op.role));
    lmo_sql_bind_u64(s, 3, w->u.op.epoch);
    return lmo_sql_run(s, NULL, err);
}

static int apply_close(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err)
{
    int r = run_close(db, w, "DELETE FROM op WHERE migration = ?1 AND role = ?2 AND ?3 >= 0", err);
    if (r == 0) {
        r = run_close(db, w, "DELETE FROM setup WHERE migration = ?1 AND role = ?2 AND ?3 >= 0", err);
    }
    if (r == 0 && w->u.op.role == LMO_OP_ROLE_SOURCE) {
        r = run_close(db, w, "DELETE FROM src WHERE migration = ?1 AND ?2 <> '' AND ?3 >= 0", err);
    }
    if (r == 0 && w->u.op.role == LMO_OP_ROLE_DESTINATION) {
        r = run_close(db, w, "DELETE FROM dst WHERE migration = ?1 AND ?2 <> '' AND ?3 >= 0", err);
    }
    if (r == 0) {
        r = run_close(db, w,
                      "INSERT INTO closed (migration, role, epoch) VALUES (?1, ?2, ?3) "
                      "ON CONFLICT (migration, role) DO UPDATE SET epoch = max(epoch, ?3)",
                      err);
    }
    return r;
}

void lmo_batch_close(struct lmo_batch *b, const char *migration, enum lmo_op_role role, uint64_t epoch)
{
    struct lmo_write *w = add(b, apply_close);
    snprintf(w->u.op.migration, sizeof w->u.op.migration, "%s", migration);
    w->u.op.role = role;
    w->u.op.epoch = epoch;
}
