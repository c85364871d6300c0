/* doctor.c - gathers what core/doctor.h compares, shows what does not fit, and mends what is provably safe to mend.
 *
 * Looking is doctor_look.c, mending doctor_mend.c. No migration is started while something is mended. All of it happens on
 * the loop's thread, beside ten thousand open migrations: what is kept of each is small, and nothing is looked up in a line. */
#include "engine/doctor.h"

#include "base/json.h"
#include "base/str.h"
#include "proto/codec.h"

#include <stdlib.h>
#include <string.h>

void *engine_list_add(struct list *l, size_t size)
{
    if (l->count == l->room) {
        unsigned room = l->room ? 2 * l->room : 64;
        void *grown = realloc(l->items, room * size);
        if (!grown) {
            return NULL;
        }
        l->items = grown;
        l->room = room;
    }
    void *item = (char *)l->items + (size_t)l->count++ * size;
    memset(item, 0, size);
    return item;
}

void engine_doctor_forget(struct doctor *d)
{
    struct list *lists[] = {&d->hosts,   &d->guests, &d->uses,  &d->exports, &d->ports,
                            &d->records, &d->ended,  &d->aside, &d->open,    &d->moved};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        free(lists[i]->items);
        *lists[i] = (struct list){0};
    }
    d->next_port = 0;
    d->finding_count = 0;
    d->more = false;
}

/* ------------------------------------------------------------------ comparing */

/* How the migrations ended that workers still remember; records stand in the order of their migrations. */
static void look_up_ended(struct doctor *d, struct lmo_doctor_world *w)
{
    static struct lmo_migration m; /* the loop thread's scratch */
    for (unsigned i = 0; i < w->record_count; i++) {
        const char *id = w->records[i].migration;
        struct lmo_err err = {0};
        if ((i > 0 && strcmp(w->records[i - 1].migration, id) == 0) || engine_entry(d->engine, id)) {
            continue;
        }
        struct lmo_doctor_ended *e = ADD(&d->ended, lmo_doctor_ended);
        d->no_memory |= !e;
        if (!e) {
            return;
        }
        LMO_COPY(e->migration, id);
        e->phase = LMO_PHASE_COUNT;
        if (d->engine->store->ops->get(d->engine->store, id, &m, &err) == 0) {
            e->phase = m.phase;
            e->epoch = m.epoch;
            LMO_COPY(e->source, m.source);
            LMO_COPY(e->destination, m.destination);
        }
    }
    w->ended = d->ended.items;
    w->ended_count = d->ended.count;
}

static void take_open(struct doctor *d)
{
    for (const struct entry *entry = d->engine->entries; entry; entry = entry->hh.next) {
        const struct lmo_migration *m = engine_record(entry);
        struct lmo_doctor_open *o = ADD(&d->open, lmo_doctor_open);
        d->no_memory |= !o;
        if (o) {
            lmo_doctor_fill_open(o, m);
        }
        for (unsigned i = 0; i < m->vm.volume_count; i++) {
            struct lmo_doctor_moved *v = ADD(&d->moved, lmo_doctor_moved);
            d->no_memory |= !v;
            if (v) {
                LMO_COPY(v->volume, m->vm.volumes[i].volume);
            }
        }
    }
}

static void take_aside(struct doctor *d)
{
    for (const struct quarantined *q = d->engine->quarantine; q; q = q->next) {
        struct lmo_doctor_aside *a = ADD(&d->aside, lmo_doctor_aside);
        d->no_memory |= !a;
        if (a) {
            LMO_COPY(a->migration, q->row.migration);
            LMO_COPY(a->vm, q->row.vm_uuid);
            LMO_COPY(a->why, q->row.why);
        }
    }
}

static void compare(struct doctor *d)
{
    take_open(d);
    take_aside(d);
    struct lmo_doctor_world w = {
        .hosts = d->hosts.items,
        .host_count = d->hosts.count,
        .guests = d->guests.items,
        .guest_count = d->guests.count,
        .uses = d->uses.items,
        .use_count = d->uses.count,
        .exports = d->exports.items,
        .export_count = d->exports.count,
        .ports = d->ports.items,
        .port_count = d->ports.count,
        .records = d->records.items,
        .record_count = d->records.count,
        .aside = d->aside.items,
        .aside_count = d->aside.count,
        .open = d->open.items,
        .open_count = d->open.count,
        .moved = d->moved.items,
        .moved_count = d->moved.count,
    };
    lmo_doctor_arrange(&w);
    look_up_ended(d, &w);
    if (!d->no_memory) { /* nothing is found, and nothing mended, by half of what was seen */
        d->finding_count = lmo_doctor_examine(&w, d->findings, LMO_FINDINGS_MAX, &d->more);
    }
}

/* ------------------------------------------------------------------ the answer */

#define TEXT(field) ((field)[0] ? lmo_codec_string((field), sizeof(field) - 1) : json_null())

static json_t *finding_json(const struct lmo_finding *f)
{
    json_t *o = json_object(), *commands = json_array();
    int r = lmo_json_put_str(o, "kind", lmo_finding_text(f->kind));
    r |= lmo_json_put_str(o, "severity", lmo_severity_text(lmo_finding_severity(f->kind)));
    r |= lmo_json_put(o, "text", TEXT(f->text));
    r |= lmo_json_put(o, "evidence", TEXT(f->evidence));
    r |= lmo_json_put(o, "migration", TEXT(f->migration));
    r |= lmo_json_put(o, "vm", TEXT(f->vm));
    r |= lmo_json_put(o, "host", TEXT(f->host));
    r |= lmo_json_put(o, "object", TEXT(f->object));
    r |= lmo_json_put(o, "repair", f->repair ? json_string(lmo_repair_text(f->repair)) : json_null());
    for (unsigned i = 0; i < f->command_count; i++) {
        r |= lmo_json_add(commands, TEXT(f->commands[i]));
    }
    r |= lmo_json_put(o, "commands", commands);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *answer_json(const struct doctor *d)
{
    json_t *o = json_object(), *findings = json_array(), *repairs = json_array();
    int r = 0;
    for (unsigned i = 0; i < d->finding_count; i++) {
        r |= lmo_json_add(findings, finding_json(&d->findings[i]));
    }
    for (unsigned i = 0; i < d->repairs; i++) {
        json_t *one = finding_json(&d->done[i].finding);
        r |= lmo_json_put_str(one, "outcome", lmo_err_name(d->done[i].code));
        r |= lmo_json_put(one, "outcome_text", TEXT(d->done[i].text));
        r |= lmo_json_add(repairs, one);
    }
    r |= lmo_json_put(o, "findings", findings);
    r |= lmo_json_put(o, "repairs", repairs);
    r |= lmo_json_put_bool(o, "more", d->more);
    r |= lmo_json_put_u64(o, "hosts", d->hosts.count);
    r |= lmo_json_put_u64(o, "guests", d->guests.count);
    r |= lmo_json_put_u64(o, "open_migrations", d->open.count);
    if (r < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void end(struct doctor *d)
{
    struct request *q = d->request;
    json_t *body = d->no_memory ? NULL : answer_json(d);
    d->engine->doctor = d->engine->mending = false;
    if (d->engine->stopping) {
        json_decref(body);
        engine_reply_fail(q->fn, q->arg, LMO_E_UNAVAILABLE, "", "the coordinator is stopping");
    } else if (!body) {
        engine_reply_fail(q->fn, q->arg, LMO_E_NO_MEMORY, "", "no memory for the comparison");
    } else if (!engine_would(q, 200, json_incref(body), "nothing would be changed before it was looked at anew; this is what was seen")) {
        engine_reply_ok(q->fn, q->arg, 200, body, "");
    } else {
        json_decref(body);
    }
    engine_doctor_forget(d);
    free(d->findings);
    free(q);
    free(d);
}

void engine_doctor_seen(struct doctor *d)
{
    if (d->engine->stopping) {
        end(d);
        return;
    }
    compare(d);
    if (!d->engine->mending || d->no_memory || !engine_doctor_mend(d)) {
        end(d);
    }
}

static void doctor(struct request *q)
{
    struct lmo_engine *e = q->engine;
    if (e->doctor) {
        engine_reply_fail(q->fn, q->arg, LMO_E_BUSY, "", "another doctor is looking already");
        return;
    }
    if (q->repair && (e->stalled || e->creating > 0)) {
        engine_reply_fail(q->fn, q->arg, LMO_E_BUSY, "",
                          e->stalled ? "the coordinator's store cannot be written now"
                                     : "a migration is being started; try again");
        return;
    }
    struct doctor *d = calloc(1, sizeof *d);
    struct request *kept = malloc(sizeof *kept);
    struct lmo_finding *findings = calloc(LMO_FINDINGS_MAX, sizeof *findings);
    if (!d || !kept || !findings) {
        free(d);
        free(kept);
        free(findings);
        engine_reply_fail(q->fn, q->arg, LMO_E_NO_MEMORY, "", "no memory to look at all hosts");
        return;
    }
    *kept = *q; /* the caller frees the original */
    kept->repair = q->repair && !q->ask.dry_run;
    d->engine = e;
    d->request = kept;
    d->findings = findings;
    e->doctor = true;
    e->mending = kept->repair;
    engine_doctor_look(d);
}

int lmo_engine_doctor(struct lmo_engine *e, bool repair, const char *principal, lmo_engine_reply_fn *fn, void *arg)
{
    struct request q = engine_request(doctor, fn, arg, "");
    LMO_COPY(q.url, principal);
    q.repair = repair;
    return engine_post(e, &q);
}
