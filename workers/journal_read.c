/* journal_read.c - what the journal holds. */
#include "workers/journal_private.h"

#include "base/assert.h"
#include "base/json.h"
#include "proto/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- epochs ---- */

static unsigned bucket_of(const char *vm)
{
    uint64_t h = UINT64_C(14695981039346656037);
    for (; *vm; vm++) {
        h = (h ^ (unsigned char)*vm) * UINT64_C(1099511628211);
    }
    return (unsigned)(h >> 32) % LMO_VM_BUCKETS;
}

static struct lmo_vm_entry *find_vm(struct lmo_journal *j, const char *vm)
{
    struct lmo_vm_entry *e = j->vms[bucket_of(vm)];
    while (e && strcmp(e->vm.vm, vm) != 0) {
        e = e->next;
    }
    return e;
}

static struct lmo_vm_entry *remember(struct lmo_journal *j, const struct lmo_journal_vm *vm)
{
    struct lmo_vm_entry *e = calloc(1, sizeof *e), **bucket = &j->vms[bucket_of(vm->vm)];
    lmo_assert(e);
    e->vm = *vm;
    e->next = *bucket;
    *bucket = e;
    j->vm_count++;
    return e;
}

void lmo_journal_vm_remember(struct lmo_journal *j, const struct lmo_journal_vm *vm)
{
    struct lmo_vm_entry *e = find_vm(j, vm->vm);
    if (!e) {
        (void)remember(j, vm);
        return;
    }
    if (vm->seen > e->vm.seen) {
        e->vm.seen = vm->seen;
    }
    for (int i = 0; i < LMO_JOURNAL_ROLES; i++) {
        if (vm->closed[i] > e->vm.closed[i]) {
            e->vm.closed[i] = vm->closed[i];
        }
    }
}

void lmo_journal_vm_forget_all(struct lmo_journal *j)
{
    for (unsigned i = 0; i < LMO_VM_BUCKETS; i++) {
        while (j->vms[i]) {
            struct lmo_vm_entry *e = j->vms[i];
            j->vms[i] = e->next;
            free(e);
        }
    }
    j->vm_count = 0;
}

int lmo_journal_vm(struct lmo_journal *j, const char *vm, struct lmo_journal_vm *ret, struct lmo_err *err)
{
    struct lmo_vm_entry *e = find_vm(j, vm);
    if (e) {
        *ret = e->vm;
        return 0;
    }
    struct lmo_journal_vm found = {0};
    snprintf(found.vm, sizeof found.vm, "%s", vm);
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(j->db,
                            "SELECT seen, closed_source, closed_destination, closed_volume, closed_fabric "
                            "FROM vm_epoch WHERE vm = ?1",
                            &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, vm);
    r = lmo_sql_step(s, err);
    if (r > 0) {
        found.seen = lmo_sql_u64(s, 0);
        found.closed[LMO_OP_ROLE_SOURCE] = lmo_sql_u64(s, 1);
        found.closed[LMO_OP_ROLE_DESTINATION] = lmo_sql_u64(s, 2);
        found.closed[LMO_OP_ROLE_VOLUME] = lmo_sql_u64(s, 3);
        found.closed[LMO_OP_ROLE_FABRIC] = lmo_sql_u64(s, 4);
        lmo_sql_reset(s);
        (void)remember(j, &found);
    }
    if (r < 0) {
        return r;
    }
    *ret = found;
    return 0;
}

/* ---- ops ---- */

void lmo_journal_op_done(struct lmo_journal_op *op)
{
    free(op->text);
    op->text = NULL;
}

static enum lmo_op_state state_from(const char *text)
{
    return strcmp(text, "running") == 0 ? LMO_OP_RUNNING : strcmp(text, "done") == 0 ? LMO_OP_DONE : LMO_OP_FAILED;
}

int lmo_journal_op(struct lmo_journal *j, const char *id, struct lmo_journal_op *ret, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(j->db,
                            "SELECT migration, vm, epoch, kind, state, coalesce(reply, request) FROM op WHERE id = ?1",
                            &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, id);
    r = lmo_sql_step(s, err);
    if (r <= 0) {
        return r < 0 ? r : lmo_fail(err, LMO_E_NOT_FOUND, "op '%s' was never accepted here", id);
    }
    struct lmo_journal_op op = {.epoch = lmo_sql_u64(s, 2),
                                .kind = lmo_op_from_text(lmo_sql_text(s, 3)),
                                .state = state_from(lmo_sql_text(s, 4)),
                                .text = strdup(lmo_sql_text(s, 5))};
    r = lmo_sql_copy(s, 0, op.migration, sizeof op.migration);
    if (r == 0) {
        r = lmo_sql_copy(s, 1, op.vm, sizeof op.vm);
    }
    lmo_sql_reset(s);
    if (r < 0 || !op.text) {
        lmo_journal_op_done(&op);
        return lmo_fail(err, r < 0 ? LMO_E_CORRUPT : LMO_E_NO_MEMORY, "op '%s' cannot be read", id);
    }
    *ret = op;
    return 0;
}

int lmo_journal_op_count(struct lmo_journal *j, const char *migration, unsigned *ret, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(j->db, "SELECT count(*) FROM op WHERE migration = ?1", &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, migration);
    r = lmo_sql_step(s, err);
    if (r > 0) {
        *ret = (unsigned)lmo_sql_u64(s, 0);
        lmo_sql_reset(s);
    }
    return r < 0 ? r : 0;
}

int lmo_journal_closed(struct lmo_journal *j, const char *migration, enum lmo_op_role role, bool *ret_closed,
                       struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(j->db, "SELECT 1 FROM closed WHERE migration = ?1 AND role = ?2", &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, migration);
    lmo_sql_bind_text(s, 2, lmo_journal_role_text(role));
    r = lmo_sql_step(s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_reset(s);
    *ret_closed = r > 0;
    return 0;
}

int lmo_journal_load_ops(struct lmo_journal *j, int (*cb)(void *arg, const char *id, const char *request), void *arg,
                         struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(j->db, "SELECT id, request FROM op WHERE state = 'running' ORDER BY rowid", &s, err);
    if (r < 0) {
        return r;
    }
    while ((r = lmo_sql_step(s, err)) > 0) {
        r = cb(arg, lmo_sql_text(s, 0), lmo_sql_text(s, 1));
        if (r < 0) {
            lmo_sql_reset(s);
            return r;
        }
    }
    return r;
}

/* ---- records ---- */

static const char *text_or_null(struct lmo_sql_stmt *s, int column)
{
    return lmo_sql_is_null(s, column) ? NULL : lmo_sql_text(s, column);
}

static int read_dst(struct lmo_sql_stmt *s, struct lmo_dst *d, struct lmo_err *err)
{
    *d = (struct lmo_dst){
        .epoch = lmo_sql_u64(s, 2),
        .stage = lmo_dst_stage_from_text(lmo_sql_text(s, 3)),
        .has_permit = lmo_sql_i64(s, 4) != 0,
        .loaded = lmo_sql_i64(s, 5) != 0,
        .final_paused = lmo_sql_i64(s, 6) != 0,
        .volume_count = (unsigned)lmo_sql_u64(s, 7),
        .fence_sent = lmo_sql_i64(s, 8) != 0,
        .loaded_us = lmo_sql_i64(s, 9),
        .answer = lmo_freeze_answer_from_name(lmo_sql_text(s, 10)),
    };
    if (lmo_sql_copy(s, 0, d->migration, sizeof d->migration) < 0 || lmo_sql_copy(s, 1, d->vm, sizeof d->vm) < 0 ||
        lmo_sql_copy(s, 11, d->evidence, sizeof d->evidence) < 0 || d->stage == LMO_DST_STAGE_COUNT ||
        d->volume_count > LMO_VOLUMES_MAX) {
        return lmo_fail(err, LMO_E_CORRUPT, "journal: destination record of migration '%s' cannot be read",
                        d->migration);
    }
    return 0;
}

int lmo_journal_load_dst(struct lmo_journal *j,
                         int (*cb)(void *arg, const struct lmo_dst *d, const char *request, const char *permit),
                         void *arg, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r =
        lmo_sql_prepare(j->db,
                        "SELECT dst.migration, dst.vm, dst.epoch, stage, has_permit, loaded, final_paused, "
                        "volume_count, fence_sent, loaded_us, answer, evidence, setup.request, setup.permit FROM dst "
                        "LEFT JOIN setup ON setup.migration = dst.migration AND setup.role = 'destination'",
                        &s, err);
    if (r < 0) {
        return r;
    }
    while ((r = lmo_sql_step(s, err)) > 0) {
        struct lmo_dst d;
        r = read_dst(s, &d, err);
        if (r == 0) {
            r = cb(arg, &d, text_or_null(s, 12), text_or_null(s, 13));
        }
        if (r < 0) {
            lmo_sql_reset(s);
            return r;
        }
    }
    return r;
}

static int read_src(struct lmo_sql_stmt *s, struct lmo_src *src, struct lmo_err *err)
{
    *src = (struct lmo_src){
        .epoch = lmo_sql_u64(s, 2),
        .freeze_epoch = lmo_sql_u64(s, 3),
        .stage = lmo_src_stage_from_text(lmo_sql_text(s, 4)),
        .job_running = lmo_sql_i64(s, 5) != 0,
        .gate_open = lmo_sql_i64(s, 6) != 0,
        .final_paused = lmo_sql_i64(s, 7) != 0,
        .frozen_us = lmo_sql_i64(s, 9),
        .freeze_us = lmo_sql_u64(s, 10),
    };
    if (lmo_sql_copy(s, 0, src->migration, sizeof src->migration) < 0 ||
        lmo_sql_copy(s, 1, src->vm, sizeof src->vm) < 0 ||
        lmo_sql_copy(s, 8, src->evidence, sizeof src->evidence) < 0 || src->stage == LMO_SRC_STAGE_COUNT) {
        return lmo_fail(err, LMO_E_CORRUPT, "journal: source record of migration '%s' cannot be read", src->migration);
    }
    return 0;
}

int lmo_journal_load_src(struct lmo_journal *j,
                         int (*cb)(void *arg, const struct lmo_src *s, const char *request, const char *permit),
                         void *arg, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(j->db,
                            "SELECT src.migration, src.vm, src.epoch, freeze_epoch, stage, job_running, gate_open, "
                            "final_paused, evidence, frozen_us, freeze_us, setup.request, setup.permit FROM src "
                            "LEFT JOIN setup ON setup.migration = src.migration AND setup.role = 'source'",
                            &s, err);
    if (r < 0) {
        return r;
    }
    while ((r = lmo_sql_step(s, err)) > 0) {
        struct lmo_src src;
        r = read_src(s, &src, err);
        if (r == 0) {
            r = cb(arg, &src, text_or_null(s, 11), text_or_null(s, 12));
        }
        if (r < 0) {
            lmo_sql_reset(s);
            return r;
        }
    }
    return r;
}

/* ---- events ---- */

int lmo_journal_events(struct lmo_journal *j, uint64_t after, unsigned max, json_t *array, uint64_t *ret_next,
                       struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    uint64_t next = after;
    int r = lmo_sql_prepare(j->db, "SELECT seq, json FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2", &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_u64(s, 1, after);
    lmo_sql_bind_u64(s, 2, max);
    while ((r = lmo_sql_step(s, err)) > 0) {
        json_t *event = NULL;
        const char *text = lmo_sql_text(s, 1);
        next = lmo_sql_u64(s, 0);
        r = lmo_json_parse_object(text, strlen(text), LMO_STREAM_BODY_MAX, &event, NULL);
        if (r == 0) {
            r = lmo_json_put_u64(event, "seq", next);
        }
        if (r < 0) {
            json_decref(event);
            lmo_sql_reset(s);
            return lmo_fail(err, r == LMO_E_NO_MEMORY ? r : LMO_E_CORRUPT, "journal: event %llu cannot be read",
                            (unsigned long long)next);
        }
        if (lmo_json_add(array, event) < 0) {
            lmo_sql_reset(s);
            return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for events");
        }
    }
    if (r == 0) {
        *ret_next = next;
    }
    return r;
}

int lmo_journal_holders(struct lmo_journal *j,
                        int (*cb)(void *arg, const char *migration, const char *vm, uint64_t epoch, const char *role), void *arg,
                        struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(j->db,
                            "SELECT migration, vm, max(epoch), role FROM op WHERE migration <> '' GROUP BY migration, role "
                            "LIMIT 100000",
                            &s, err);
    while (r == 0 && (r = lmo_sql_step(s, err)) == 1) {
        r = cb(arg, lmo_sql_text(s, 0), lmo_sql_text(s, 1), lmo_sql_u64(s, 2), lmo_sql_text(s, 3));
        if (r != 0) {
            lmo_sql_reset(s);
        }
    }
    return r < 0 ? r : 0;
}
