/* doctor.c - see doctor.h. One function per kind of finding, each with the reason why its repair is safe. */
#include "core/doctor_world.h"

#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *text;
    enum lmo_severity severity;
} kinds[LMO_FINDING_COUNT] = {[LMO_FINDING_NONE] = {"none", LMO_SEVERITY_UNKNOWN},
#define X(name, text, severity) [LMO_FINDING_##name] = {text, LMO_SEVERITY_##severity},
                              LMO_FINDINGS(X)
#undef X
};

const char *lmo_finding_text(enum lmo_finding_kind k)
{
    return kinds[k].text;
}

enum lmo_severity lmo_finding_severity(enum lmo_finding_kind k)
{
    return kinds[k].severity;
}

const char *lmo_severity_text(enum lmo_severity s)
{
    static const char *const texts[] = {"unknown", "warning", "critical"};
    return texts[s];
}

const char *lmo_repair_text(enum lmo_repair r)
{
    static const char *const texts[] = {"none", "detach", "single", "close", "tell_resumed", "tell_back"};
    return texts[r];
}

struct exam {
    const struct lmo_doctor_world *w;
    struct lmo_finding *out;
    unsigned count, max;
    bool more;
    enum lmo_severity pass;   /* the worst first: one pass for each */
    bool all_seen;            /* every host that may run a guest */
    bool undescribed;         /* an open migration's volumes are not known yet: it may be about any */
    struct lmo_finding spare; /* what is not of this pass, or does not fit, is written here and lost */
};

static struct lmo_finding *add(struct exam *x, enum lmo_finding_kind kind)
{
    static const struct lmo_finding empty;
    struct lmo_finding *f = &x->spare;
    if (kinds[kind].severity == x->pass) {
        x->more |= x->count == x->max;
        f = x->count < x->max ? &x->out[x->count++] : f;
    }
    *f = empty;
    f->kind = kind;
    return f;
}

static void command(struct lmo_finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void command(struct lmo_finding *f, const char *fmt, ...)
{
    if (f->command_count < LMO_FINDING_COMMANDS) {
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(f->commands[f->command_count++], LMO_TEXT_MAX, fmt, ap);
        va_end(ap);
    }
}

/* ------------------------------------------------------------------ what states mean */

static bool is_live(enum lmo_run_state s)
{
    return s != LMO_RUN_UNKNOWN && s != LMO_RUN_ABSENT && s != LMO_RUN_SHUT_OFF;
}

/* Its vCPUs run, or would if its owner said so. */
static bool is_the_guest(enum lmo_run_state s)
{
    return s == LMO_RUN_RUNNING || s == LMO_RUN_PAUSED_BY_USER;
}

/* Was something of that guest set aside? There are few of them, as a rule none. */
static bool is_aside(const struct lmo_doctor_world *w, const char *uuid)
{
    for (unsigned i = 0; i < w->aside_count; i++) {
        if (strcmp(w->aside[i].vm, uuid) == 0 || w->aside[i].vm[0] == '\0') {
            return true; /* one that names no guest may be of any */
        }
    }
    return false;
}

/* ------------------------------------------------------------------ guests */

static void examine_guest(struct exam *x, const struct lmo_doctor_guest *g)
{
    const struct lmo_doctor_guest *end = x->w->guests + x->w->guest_count;
    for (const struct lmo_doctor_guest *o = g + 1; o < end && strcmp(g->uuid, o->uuid) == 0; o++) {
        const struct lmo_doctor_open *m = lmo_doctor_open_of_vm(x->w, g->uuid);
        bool both = is_the_guest(g->state) && is_the_guest(o->state);
        bool two_copies = is_live(g->state) && is_live(o->state);
        if (!both && m) {
            continue; /* a move has two of them for a while */
        }
        struct lmo_finding *f = add(x, two_copies ? LMO_FINDING_GUEST_TWICE : LMO_FINDING_DEFINED_TWICE);
        LMO_COPY(f->vm, g->uuid);
        LMO_COPY(f->host, g->host);
        LMO_COPY(f->other, o->host);
        (void)snprintf(f->text, sizeof f->text,
                       two_copies ? "guest %s is on two hosts, %s and %s"
                                  : "guest %s is defined on two hosts, %s and %s",
                       g->name, g->host, o->host);
        (void)snprintf(f->evidence, sizeof f->evidence, "%s at %s, %s at %s%s%s", lmo_run_state_name(g->state), g->host,
                       lmo_run_state_name(o->state), o->host, m ? "; open migration " : "", m ? m->id : "");
        command(f, "lmo vm show %s", g->uuid);
        if (two_copies) {
            command(f,
                    "virsh -c qemu:///system suspend %s    # on the host whose copy is NOT the guest; find out first",
                    g->name);
        } else {
            command(f, "virsh -c qemu:///system undefine %s    # on %s, where it does not run", g->name,
                    is_live(g->state) ? o->host : g->host);
        }
    }
}

/* ------------------------------------------------------------------ migrations */

/* What its workers and hosts show has happened, and the record does not know. The events that would have said so are
 * durable; they are lost only with a worker's journal or a store put back from a backup. */
static enum lmo_repair what_happened(const struct lmo_doctor_world *w, const struct lmo_doctor_open *m)
{
    bool undecided = m->phase == LMO_PHASE_CUTOVER || m->phase == LMO_PHASE_ATTENTION;
    if (!undecided || m->resumed) {
        return LMO_REPAIR_NONE;
    }
    enum lmo_run_state source = lmo_doctor_state_at(w, m->vm, m->source),
                       destination = lmo_doctor_state_at(w, m->vm, m->destination);
    const char *stage = lmo_doctor_stage_of(w, m->id, m->destination, LMO_OP_ROLE_DESTINATION);
    bool resumed = strcmp(stage, "resumed") == 0 || strcmp(stage, "done") == 0;
    bool discarded = strcmp(stage, "discarded") == 0;
    /* Safe: the destination's worker resumed it on the source's word, and it is seen there and not at the source. */
    if (resumed && is_the_guest(destination) && source != LMO_RUN_UNKNOWN && !is_the_guest(source)) {
        return LMO_REPAIR_RESUMED;
    }
    /* Safe: the destination's worker can never run it, and the roll-back that follows asks it once more. */
    if (discarded && destination == LMO_RUN_ABSENT && is_the_guest(source)) {
        return LMO_REPAIR_BACK;
    }
    return LMO_REPAIR_NONE;
}

static void examine_migration(struct exam *x, const struct lmo_doctor_open *m)
{
    enum lmo_repair happened = what_happened(x->w, m);
    if (happened != LMO_REPAIR_NONE) {
        struct lmo_finding *f = add(x, LMO_FINDING_HAPPENED);
        f->repair = happened;
        LMO_COPY(f->migration, m->id);
        LMO_COPY(f->vm, m->vm);
        LMO_COPY(f->host, m->destination);
        LMO_COPY(f->other, m->source);
        (void)snprintf(f->text, sizeof f->text, "migration of %s waits in %s for what has happened: %s", m->vm_name,
                       lmo_phase_text(m->phase),
                       happened == LMO_REPAIR_RESUMED ? "the guest is at the destination"
                                                      : "the guest ran on at the source");
        (void)snprintf(f->evidence, sizeof f->evidence,
                       "%s's record stands at '%s'; the guest is %s there and %s at %s", m->destination,
                       lmo_doctor_stage_of(x->w, m->id, m->destination, LMO_OP_ROLE_DESTINATION),
                       lmo_run_state_name(lmo_doctor_state_at(x->w, m->vm, m->destination)),
                       lmo_run_state_name(lmo_doctor_state_at(x->w, m->vm, m->source)), m->source);
        command(f, "lmo doctor --repair");
        return;
    }
    if (m->phase != LMO_PHASE_ATTENTION) {
        return;
    }
    struct lmo_finding *f = add(x, LMO_FINDING_NEEDS_PERSON);
    LMO_COPY(f->migration, m->id);
    LMO_COPY(f->vm, m->vm);
    LMO_COPY(f->host, m->source);
    LMO_COPY(f->other, m->destination);
    (void)snprintf(f->text, sizeof f->text, "migration of %s needs a decision: %.180s", m->vm_name, m->reason);
    (void)snprintf(f->evidence, sizeof f->evidence, "%s at %s (record '%s'), %s at %s (record '%s')",
                   lmo_run_state_name(lmo_doctor_state_at(x->w, m->vm, m->source)), m->source,
                   lmo_doctor_stage_of(x->w, m->id, m->source, LMO_OP_ROLE_SOURCE),
                   lmo_run_state_name(lmo_doctor_state_at(x->w, m->vm, m->destination)), m->destination,
                   lmo_doctor_stage_of(x->w, m->id, m->destination, LMO_OP_ROLE_DESTINATION));
    command(f, "lmo migration show %s", m->id);
}

/* ------------------------------------------------------------------ exports */

static bool same_volume(const struct lmo_doctor_export *a, const struct lmo_doctor_export *b)
{
    return strcmp(a->worker, b->worker) == 0 && strcmp(a->volume, b->volume) == 0;
}

/* Whoever uses the volume through another export, or NULL. Most volumes have one export, and are done with here at
 * once. */
static const struct lmo_doctor_use *other_use(const struct lmo_doctor_world *w, const struct lmo_doctor_export *e)
{
    const struct lmo_doctor_export *first = e, *end = w->exports + w->export_count;
    while (first > w->exports && same_volume(first - 1, e)) {
        first--;
    }
    for (const struct lmo_doctor_export *o = first; o < end && same_volume(o, e); o++) {
        const struct lmo_doctor_use *use = o->offered && strcmp(o->name, e->name) != 0 ? lmo_doctor_use_of(w, o->name) : NULL;
        if (use) {
            return use;
        }
    }
    return NULL;
}

/* One export alone that no guest uses may be the cloud's, for a guest that is off or not started yet. A second one
 * beside the one in use is what a migration left behind. Safe to withdraw: no guest on any host that could run one
 * is attached through it, no open migration is about the volume, and the guest goes on through the other one. */
static void examine_export(struct exam *x, const struct lmo_doctor_export *e)
{
    const struct lmo_doctor_use *used = other_use(x->w, e);
    if (!e->offered || e->fenced || !used || lmo_doctor_use_of(x->w, e->name) || x->undescribed ||
        lmo_doctor_is_moved(x->w, e->volume) ||
        is_aside(x->w, used->uuid)) {
        return;
    }
    struct lmo_finding *f = add(x, LMO_FINDING_EXPORT_ORPHAN);
    f->repair = x->all_seen ? LMO_REPAIR_DETACH : LMO_REPAIR_NONE;
    f->epoch = e->epoch;
    LMO_COPY(f->vm, used->uuid);
    LMO_COPY(f->host, e->worker);
    LMO_COPY(f->other, e->host);
    LMO_COPY(f->volume, e->volume);
    LMO_COPY(f->object, e->name);
    (void)snprintf(f->text, sizeof f->text, "volume %s is offered to %s through %.120s, which nobody uses", e->volume,
                   e->host, e->name);
    (void)snprintf(f->evidence, sizeof f->evidence, "its guest is attached through %.120s; no open migration%s",
                   used->export_name, x->all_seen ? "" : "; not every host was seen");
    command(f, "lmo doctor --repair");
}

/* ------------------------------------------------------------------ ports */

static bool is_none(const char *hosts)
{
    return hosts[0] == '\0' || strcmp(hosts, "none") == 0;
}

/* Safe to make single again at the guest's host: it is seen there and nowhere else, and no migration is about it. */
static void examine_port(struct exam *x, const struct lmo_doctor_port *p)
{
    bool two = !is_none(p->additional) || strchr(p->requested, ',') != NULL;
    if (!two || lmo_doctor_open_of_vm(x->w, p->uuid) || is_aside(x->w, p->uuid)) {
        return;
    }
    unsigned live = 0;
    const struct lmo_doctor_guest *end = x->w->guests + x->w->guest_count;
    for (const struct lmo_doctor_guest *g = lmo_doctor_first_guest(x->w, p->uuid);
         g && g < end && strcmp(g->uuid, p->uuid) == 0; g++) {
        live += is_live(g->state);
    }
    struct lmo_finding *f = add(x, LMO_FINDING_BINDING_ORPHAN);
    f->repair = x->all_seen && live == 1 && is_the_guest(lmo_doctor_state_at(x->w, p->uuid, p->guest_host)) ? LMO_REPAIR_SINGLE
                                                                                                 : LMO_REPAIR_NONE;
    LMO_COPY(f->vm, p->uuid);
    LMO_COPY(f->host, p->worker);
    LMO_COPY(f->other, p->guest_host);
    LMO_COPY(f->object, p->id);
    (void)snprintf(f->text, sizeof f->text, "port %s is delivered to more hosts than its guest's, %s", p->id,
                   p->guest_host);
    (void)snprintf(f->evidence, sizeof f->evidence, "requested %.60s, bound %.60s, additional %.60s; no open migration",
                   p->requested, p->bound, p->additional);
    command(f, "lmo doctor --repair");
}

/* ------------------------------------------------------------------ workers' records */

/* Closing acknowledges: safe once the coordinator has committed that the migration completed or was aborted, and then
 * the worker itself still refuses as long as its record owes something (a stopped process, a waiting guest). */
static void examine_record(struct exam *x, const struct lmo_doctor_record *r)
{
    const struct lmo_doctor_open *open = lmo_doctor_open_of_vm(x->w, r->vm);
    if (open && strcmp(open->id, r->migration) == 0) {
        return;
    }
    if (lmo_doctor_is_aside(x->w, r->migration)) {
        return; /* it belongs to the one that was set aside */
    }
    const struct lmo_doctor_ended *e = lmo_doctor_ended_of(x->w, r->migration);
    static const char *const roles[] = {"", "source", "destination", "volume", "fabric"};
    bool known = e && e->phase != LMO_PHASE_COUNT;
    bool over = known && (e->phase == LMO_PHASE_COMPLETED || e->phase == LMO_PHASE_ABORTED);
    struct lmo_finding *f = add(x, LMO_FINDING_RECORD_ORPHAN);
    f->repair = over ? LMO_REPAIR_CLOSE : LMO_REPAIR_NONE;
    f->epoch = known && e->epoch > r->epoch ? e->epoch : r->epoch;
    f->role = r->role;
    LMO_COPY(f->migration, r->migration);
    LMO_COPY(f->vm, r->vm);
    LMO_COPY(f->host, r->worker);
    if (known) {
        LMO_COPY(f->other, r->role == LMO_OP_ROLE_SOURCE ? e->destination : e->source);
    }
    (void)snprintf(f->text, sizeof f->text, "%s remembers migration %s as its %s, which is %s", r->worker, r->migration,
                   roles[r->role], known ? lmo_phase_text(e->phase) : "not known here");
    (void)snprintf(f->evidence, sizeof f->evidence, "its record stands at '%s', epoch %llu",
                   r->stage[0] ? r->stage : "ops", (unsigned long long)r->epoch);
    if (over) {
        command(f, "lmo doctor --repair");
    } else if (known) {
        command(f, "lmo migration show %s", r->migration);
    }
}

/* ------------------------------------------------------------------ all */

static void examine_hosts(struct exam *x)
{
    for (unsigned i = 0; i < x->w->host_count; i++) {
        const struct lmo_doctor_host *h = &x->w->hosts[i];
        if (!h->seen) {
            struct lmo_finding *f = add(x, LMO_FINDING_HOST_UNSEEN);
            LMO_COPY(f->host, h->name);
            (void)snprintf(f->text, sizeof f->text, "%s could not be looked at: what is there is not known", h->name);
            LMO_COPY(f->evidence, h->why);
            command(f, "lmo host show %s", h->name);
        }
    }
    for (unsigned i = 0; i < x->w->aside_count; i++) {
        const struct lmo_doctor_aside *a = &x->w->aside[i];
        struct lmo_finding *f = add(x, LMO_FINDING_QUARANTINED);
        LMO_COPY(f->migration, a->migration);
        LMO_COPY(f->vm, a->vm);
        (void)snprintf(f->text, sizeof f->text,
                       "migration %s was set aside: nothing is done about it, and its guest takes no "
                       "other migration",
                       a->migration);
        LMO_COPY(f->evidence, a->why);
        command(f, "lmo vm show %s", a->vm);
        command(f, "systemctl restart lmod    # with a program that can read it, or after it was repaired");
    }
}

unsigned lmo_doctor_examine(const struct lmo_doctor_world *w, struct lmo_finding *out, unsigned max, bool *ret_more)
{
    struct exam x = {.w = w, .out = out, .max = max, .all_seen = true};
    for (unsigned i = 0; i < w->host_count; i++) {
        x.all_seen = x.all_seen && (w->hosts[i].seen || !w->hosts[i].hypervisor);
    }
    for (unsigned i = 0; i < w->open_count; i++) {
        x.undescribed = x.undescribed || (!w->open[i].described && w->open[i].phase == LMO_PHASE_PRECHECK);
    }
    for (int severity = LMO_SEVERITY_CRITICAL; severity >= LMO_SEVERITY_UNKNOWN; severity--) {
        x.pass = (enum lmo_severity)severity;
        examine_hosts(&x);
        for (unsigned i = 0; i < w->guest_count; i++) {
            examine_guest(&x, &w->guests[i]);
        }
        for (unsigned i = 0; i < w->open_count; i++) {
            examine_migration(&x, &w->open[i]);
        }
        for (unsigned i = 0; i < w->export_count; i++) {
            examine_export(&x, &w->exports[i]);
        }
        for (unsigned i = 0; i < w->port_count; i++) {
            examine_port(&x, &w->ports[i]);
        }
        for (unsigned i = 0; i < w->record_count; i++) {
            examine_record(&x, &w->records[i]);
        }
    }
    *ret_more = x.more;
    return x.count;
}
