/* doctor.h - compares what the records say with what was observed on all hosts, and says what does not fit.
 *
 * Pure: the engine gathers, this compares. Two rules:
 *  T1  What could not be observed is unknown and never guessed: a finding that an unseen host could explain is not
 *      made, or is made without a repair.
 *  T2  A repair is offered only where it is provably safe: it takes away what nobody can be using, by an ordinary order
 *      that its worker still may refuse, or it tells a record of a fact that was seen. Everything else is for a
 *      person. */
#ifndef LMO_CORE_DOCTOR_H
#define LMO_CORE_DOCTOR_H

#include "core/migration.h"

/* ------------------------------------------------------------------ what was seen */

struct lmo_doctor_host {
    char name[LMO_NAME_MAX];
    bool hypervisor;          /* it runs guests, or may: it was never heard of */
    bool seen;                /* everything that was asked of it was answered */
    char why[LMO_TEXT_MAX];   /* if not */
};
struct lmo_doctor_guest {
    char host[LMO_NAME_MAX], uuid[LMO_UUID_MAX], name[LMO_NAME_MAX];
    enum lmo_run_state state;
};
/* A guest's disk: what it is attached through. */
struct lmo_doctor_use {
    char uuid[LMO_UUID_MAX], volume[LMO_NAME_MAX], export_name[LMO_EXPORT_MAX];
};
struct lmo_doctor_export {
    char worker[LMO_NAME_MAX], volume[LMO_NAME_MAX], name[LMO_EXPORT_MAX], host[LMO_NAME_MAX];
    uint64_t epoch;
    bool offered, fenced;
};
struct lmo_doctor_port {
    char worker[LMO_NAME_MAX], id[LMO_NAME_MAX], uuid[LMO_UUID_MAX];
    char guest_host[LMO_NAME_MAX];
    char bound[LMO_NAME_MAX], additional[LMO_TEXT_MAX], requested[LMO_TEXT_MAX]; /* hosts; "" or "none": none */
};
/* What a worker still remembers of a migration. */
struct lmo_doctor_record {
    char worker[LMO_NAME_MAX], migration[LMO_ID_MAX], vm[LMO_UUID_MAX];
    uint64_t epoch;
    enum lmo_op_role role;
    char stage[24]; /* "" for a volume's or fabric's worker */
};
/* Of a migration that is not open: how it ended. COUNT: the store knows none of that id. */
struct lmo_doctor_ended {
    char migration[LMO_ID_MAX];
    enum lmo_phase phase;
    uint64_t epoch;
    char source[LMO_NAME_MAX], destination[LMO_NAME_MAX];
};
struct lmo_doctor_aside {
    char migration[LMO_ID_MAX], vm[LMO_UUID_MAX], why[LMO_TEXT_MAX];
};
/* What counts of an open migration: there may be ten thousand of them. */
struct lmo_doctor_open {
    char id[LMO_ID_MAX], vm[LMO_UUID_MAX], vm_name[LMO_NAME_MAX], source[LMO_NAME_MAX], destination[LMO_NAME_MAX];
    enum lmo_phase phase;
    bool resumed, described; /* its destination has said so; its volumes are known */
    char reason[LMO_TEXT_MAX];
};
/* A volume that an open migration is about. */
struct lmo_doctor_moved {
    char volume[LMO_NAME_MAX];
};

/* All borrowed, and put in order by lmo_doctor_arrange: everything is looked up by halves. */
struct lmo_doctor_world {
    struct lmo_doctor_host *hosts;
    struct lmo_doctor_guest *guests;
    struct lmo_doctor_use *uses;
    struct lmo_doctor_export *exports;
    struct lmo_doctor_port *ports;
    struct lmo_doctor_record *records;
    struct lmo_doctor_ended *ended;
    struct lmo_doctor_aside *aside;
    struct lmo_doctor_open *open;
    struct lmo_doctor_moved *moved;
    unsigned host_count, guest_count, use_count, export_count, port_count, record_count, ended_count, aside_count, open_count,
        moved_count;
};
void lmo_doctor_fill_open(struct lmo_doctor_open *to, const struct lmo_migration *m);
/* Whatever order its arrays are in: afterwards hosts are by name, guests, open migrations by guest (of which there is one
 * each), uses by export, exports by volume, records and what ended by migration. In place, n log n. */
void lmo_doctor_arrange(struct lmo_doctor_world *w);

/* ------------------------------------------------------------------ what does not fit */

/*  name            text                    severity */
#define LMO_FINDINGS(X)                                                                                              \
    X(GUEST_TWICE,    "guest_runs_twice",     CRITICAL) \
    X(QUARANTINED,    "record_set_aside",     CRITICAL) \
    X(NEEDS_PERSON,   "needs_a_person",       WARNING)  \
    X(HAPPENED,       "waits_for_the_past",   WARNING)  \
    X(DEFINED_TWICE,  "guest_defined_twice",  WARNING)  \
    X(EXPORT_ORPHAN,  "export_of_nobody",     WARNING)  \
    X(BINDING_ORPHAN, "binding_of_nobody",    WARNING)  \
    X(RECORD_ORPHAN,  "record_of_nobody",     WARNING)  \
    X(HOST_UNSEEN,    "host_not_seen",        UNKNOWN)
enum lmo_finding_kind {
    LMO_FINDING_NONE = 0,
#define X(name, text, severity) LMO_FINDING_##name,
    LMO_FINDINGS(X)
#undef X
    LMO_FINDING_COUNT
};
enum lmo_severity { LMO_SEVERITY_UNKNOWN = 0, LMO_SEVERITY_WARNING, LMO_SEVERITY_CRITICAL };

enum lmo_repair {
    LMO_REPAIR_NONE = 0,
    LMO_REPAIR_DETACH,  /* DETACH_SOURCE of `object` (an export) of volume `volume` at `host` */
    LMO_REPAIR_SINGLE,  /* SINGLE_DESTINATION of port `object` at `host`: delivery to `other` alone */
    LMO_REPAIR_CLOSE,   /* CLOSE_* of `migration` in `role` at `host` */
    LMO_REPAIR_RESUMED, /* tell the record: the guest is at the destination */
    LMO_REPAIR_BACK,    /* tell the record: the guest ran on at the source */
};

#define LMO_FINDING_COMMANDS 3
struct lmo_finding {
    enum lmo_finding_kind kind;
    enum lmo_repair repair; /* NONE: not provably safe */
    char migration[LMO_ID_MAX], vm[LMO_UUID_MAX], host[LMO_NAME_MAX], other[LMO_NAME_MAX];
    char volume[LMO_NAME_MAX], object[LMO_EXPORT_MAX];
    enum lmo_op_role role;
    uint64_t epoch;
    char text[LMO_TEXT_MAX], evidence[LMO_TEXT_MAX];
    unsigned command_count;
    char commands[LMO_FINDING_COMMANDS][LMO_TEXT_MAX]; /* safe ones, as typed */
};
const char *lmo_finding_text(enum lmo_finding_kind k);
enum lmo_severity lmo_finding_severity(enum lmo_finding_kind k);
const char *lmo_severity_text(enum lmo_severity s);
const char *lmo_repair_text(enum lmo_repair r);

#define LMO_FINDINGS_MAX 256
/* Of a world that was arranged: how many were written, worst first; at most `max`. *ret_more: there were more. */
unsigned lmo_doctor_examine(const struct lmo_doctor_world *w, struct lmo_finding *out, unsigned max, bool *ret_more);

#endif
