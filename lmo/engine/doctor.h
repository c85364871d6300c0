/* doctor.h - shared by the doctor's files only: doctor.c (its life, the comparison, the answer), doctor_look.c (what is
 * seen) and doctor_mend.c (what is mended). */
#ifndef LMO_ENGINE_DOCTOR_H
#define LMO_ENGINE_DOCTOR_H

#include "core/doctor.h"
#include "engine/internal.h"

#define DOCTOR_REPAIRS_MAX 64 /* of one request */

/* A growing array. */
struct list {
    void *items;
    unsigned count, room;
};
/* Room for one more of `size` bytes, zeroed; NULL without memory. */
void *engine_list_add(struct list *l, size_t size);
#define ADD(list, type) ((struct type *)engine_list_add((list), sizeof(struct type)))

struct doctor {
    struct lmo_engine *engine;
    struct request *request; /* owned */
    unsigned pending, next_port;
    bool no_memory;
    struct list hosts, guests, uses, exports, ports, records, ended, aside, open, moved;
    struct lmo_finding *findings; /* LMO_FINDINGS_MAX */
    unsigned finding_count;
    bool more;
    /* mending */
    unsigned repairs;
    struct {
        struct lmo_finding finding;
        int code;
        char text[LMO_TEXT_MAX];
    } done[DOCTOR_REPAIRS_MAX];
};

/* doctor.c */
/* Everything was looked at: compares, mends the next thing, or ends. */
void engine_doctor_seen(struct doctor *d);
/* What was seen and found so far is of no interest any more. */
void engine_doctor_forget(struct doctor *d);

/* doctor_look.c: forgets, looks at everything, and calls engine_doctor_seen. */
void engine_doctor_look(struct doctor *d);

/* doctor_mend.c */
/* Mends the first finding that can be and was not tried before; then everything is looked at anew. False: there is none. */
bool engine_doctor_mend(struct doctor *d);

#endif
