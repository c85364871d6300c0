/* doctor_world.c - the doctor's view of the world put in order, and looking things up in it by halves. */
#include "core/doctor_world.h"

#include "base/str.h"

#include <stddef.h>
#include <string.h>

/* ------------------------------------------------------------------ order */

typedef int order_fn(const void *a, const void *b);

static void swap(unsigned char *a, unsigned char *b, size_t size)
{
    while (size > 0) {
        unsigned char part[64];
        size_t n = size < sizeof part ? size : sizeof part;
        memcpy(part, a, n);
        memcpy(a, b, n);
        memcpy(b, part, n);
        a += n;
        b += n;
        size -= n;
    }
}

/* Lets the element at `at` sink to where no child is larger, among the first `count`. */
static void sink(unsigned char *items, size_t size, size_t at, size_t count, order_fn *order)
{
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && order(items + child * size, items + (child + 1) * size) < 0) {
            child++;
        }
        if (order(items + at * size, items + child * size) >= 0) {
            return;
        }
        swap(items + at * size, items + child * size, size);
    }
}

/* By a heap: in place, without memory of its own, and never slower than n log n. */
static void sort(void *array, size_t count, size_t size, order_fn *order)
{
    unsigned char *items = array;
    for (size_t i = count / 2; i-- > 0;) {
        sink(items, size, i, count, order);
    }
    for (size_t n = count; n-- > 1;) {
        swap(items, items + n * size, size);
        sink(items, size, 0, n, order);
    }
}

#define FIRST_OF(a, b) ((a) != 0 ? (a) : (b))
#define BY(type, text) strcmp(((const struct type *)a)->text, ((const struct type *)b)->text)

static int hosts_order(const void *a, const void *b)
{
    return BY(lmo_doctor_host, name);
}

static int guests_order(const void *a, const void *b)
{
    int by_uuid = BY(lmo_doctor_guest, uuid);
    return FIRST_OF(by_uuid, BY(lmo_doctor_guest, host));
}

static int uses_order(const void *a, const void *b)
{
    int by_export = BY(lmo_doctor_use, export_name);
    return FIRST_OF(by_export, BY(lmo_doctor_use, uuid));
}

static int exports_order(const void *a, const void *b)
{
    int by_worker = BY(lmo_doctor_export, worker), by_volume = BY(lmo_doctor_export, volume);
    return FIRST_OF(FIRST_OF(by_worker, by_volume), BY(lmo_doctor_export, name));
}

static int ports_order(const void *a, const void *b)
{
    int by_uuid = BY(lmo_doctor_port, uuid);
    return FIRST_OF(by_uuid, BY(lmo_doctor_port, id));
}

static int records_order(const void *a, const void *b)
{
    const struct lmo_doctor_record *x = a, *y = b;
    int by_migration = BY(lmo_doctor_record, migration), by_worker = BY(lmo_doctor_record, worker);
    return FIRST_OF(FIRST_OF(by_migration, by_worker), (int)x->role - (int)y->role);
}

static int ended_order(const void *a, const void *b)
{
    return BY(lmo_doctor_ended, migration);
}

static int aside_order(const void *a, const void *b)
{
    return BY(lmo_doctor_aside, migration);
}

static int open_order(const void *a, const void *b)
{
    return BY(lmo_doctor_open, vm);
}

static int moved_order(const void *a, const void *b)
{
    return BY(lmo_doctor_moved, volume);
}

void lmo_doctor_arrange(struct lmo_doctor_world *w)
{
    sort(w->hosts, w->host_count, sizeof *w->hosts, hosts_order);
    sort(w->guests, w->guest_count, sizeof *w->guests, guests_order);
    sort(w->uses, w->use_count, sizeof *w->uses, uses_order);
    sort(w->exports, w->export_count, sizeof *w->exports, exports_order);
    sort(w->ports, w->port_count, sizeof *w->ports, ports_order);
    sort(w->records, w->record_count, sizeof *w->records, records_order);
    sort(w->ended, w->ended_count, sizeof *w->ended, ended_order);
    sort(w->aside, w->aside_count, sizeof *w->aside, aside_order);
    sort(w->open, w->open_count, sizeof *w->open, open_order);
    sort(w->moved, w->moved_count, sizeof *w->moved, moved_order);
}

void lmo_doctor_fill_open(struct lmo_doctor_open *to, const struct lmo_migration *m)
{
    *to = (struct lmo_doctor_open){.phase = m->phase, .resumed = m->cutover.resumed, .described = m->vm.volume_count > 0};
    LMO_COPY(to->id, m->id);
    LMO_COPY(to->vm, m->vm.uuid);
    LMO_COPY(to->vm_name, m->vm.name);
    LMO_COPY(to->source, m->source);
    LMO_COPY(to->destination, m->destination);
    LMO_COPY(to->reason, m->reason);
}

/* ------------------------------------------------------------------ looking things up */

/* The first of the elements whose text at `at` is `text`, or NULL; `array` is in that text's order. */
static const void *first(const void *array, unsigned count, size_t size, size_t at, const char *text)
{
    const unsigned char *items = array;
    unsigned low = 0, high = count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (strcmp((const char *)items + middle * size + at, text) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < count && strcmp((const char *)items + low * size + at, text) == 0;
    return found ? items + low * size : NULL;
}
#define FIRST(w, array, count, type, member, text) \
    first((w)->array, (w)->count, sizeof(struct type), offsetof(struct type, member), (text))

const struct lmo_doctor_open *lmo_doctor_open_of_vm(const struct lmo_doctor_world *w, const char *uuid)
{
    return FIRST(w, open, open_count, lmo_doctor_open, vm, uuid);
}

const struct lmo_doctor_guest *lmo_doctor_first_guest(const struct lmo_doctor_world *w, const char *uuid)
{
    return FIRST(w, guests, guest_count, lmo_doctor_guest, uuid, uuid);
}

const struct lmo_doctor_ended *lmo_doctor_ended_of(const struct lmo_doctor_world *w, const char *migration)
{
    return FIRST(w, ended, ended_count, lmo_doctor_ended, migration, migration);
}

const struct lmo_doctor_use *lmo_doctor_use_of(const struct lmo_doctor_world *w, const char *export_name)
{
    return FIRST(w, uses, use_count, lmo_doctor_use, export_name, export_name);
}

bool lmo_doctor_is_moved(const struct lmo_doctor_world *w, const char *volume)
{
    return FIRST(w, moved, moved_count, lmo_doctor_moved, volume, volume) != NULL;
}

bool lmo_doctor_is_aside(const struct lmo_doctor_world *w, const char *migration)
{
    return FIRST(w, aside, aside_count, lmo_doctor_aside, migration, migration) != NULL;
}

enum lmo_run_state lmo_doctor_state_at(const struct lmo_doctor_world *w, const char *uuid, const char *host)
{
    const struct lmo_doctor_guest *end = w->guests + w->guest_count;
    for (const struct lmo_doctor_guest *g = lmo_doctor_first_guest(w, uuid);
         g && g < end && strcmp(g->uuid, uuid) == 0; g++) {
        if (strcmp(g->host, host) == 0) {
            return g->state;
        }
    }
    const struct lmo_doctor_host *h = FIRST(w, hosts, host_count, lmo_doctor_host, name, host);
    return h && h->seen ? LMO_RUN_ABSENT : LMO_RUN_UNKNOWN;
}

const char *lmo_doctor_stage_of(const struct lmo_doctor_world *w, const char *migration, const char *host,
                                enum lmo_op_role role)
{
    const struct lmo_doctor_record *end = w->records + w->record_count;
    for (const struct lmo_doctor_record *r = FIRST(w, records, record_count, lmo_doctor_record, migration, migration);
         r && r < end && strcmp(r->migration, migration) == 0; r++) {
        if (r->role == role && strcmp(r->worker, host) == 0) {
            return r->stage;
        }
    }
    return "";
}
