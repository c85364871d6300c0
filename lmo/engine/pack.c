/* pack.c - see pack.h.
 *
 * Form: runs, each a header (zero words, then words that are given) and those words. Words are 64 bits. */
#include "engine/pack.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

#define WORDS (sizeof(struct lmo_migration) / sizeof(uint64_t))

_Static_assert(sizeof(struct lmo_migration) % sizeof(uint64_t) == 0, "a record is whole words");
_Static_assert(WORDS <= UINT16_MAX, "a run's lengths fit their headers");

struct run {
    uint16_t zeros, given;
};

struct lmo_packed {
    uint32_t size, room; /* bytes of data: used, there */
    unsigned char data[];
};

size_t lmo_packed_size(const struct lmo_packed *p)
{
    return sizeof *p + p->room;
}

/* What an array held before is not part of the record. */
static void wipe_unused(struct lmo_migration *m)
{
    memset(&m->tasks[m->task_count], 0, (LMO_TASKS_MAX - m->task_count) * sizeof m->tasks[0]);
    memset(&m->vm.volumes[m->vm.volume_count], 0, (LMO_VOLUMES_MAX - m->vm.volume_count) * sizeof m->vm.volumes[0]);
    memset(&m->vm.ports[m->vm.port_count], 0, (LMO_PORTS_MAX - m->vm.port_count) * sizeof m->vm.ports[0]);
}

static size_t count_zeros(const uint64_t *words, size_t at)
{
    size_t i = at;
    while (i + 8 <= WORDS && (words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] | words[i + 5] |
                              words[i + 6] | words[i + 7]) == 0) {
        i += 8;
    }
    while (i < WORDS && words[i] == 0) {
        i++;
    }
    return i - at;
}

static size_t count_given(const uint64_t *words, size_t at)
{
    size_t i = at;
    while (i < WORDS && words[i] != 0) {
        i++;
    }
    return i - at;
}

struct lmo_packed *lmo_record_pack(struct lmo_migration *m, struct lmo_packed *old)
{
    /* A run per word is the most: every run but the last gives at least one. */
    static _Thread_local unsigned char scratch[sizeof(struct lmo_migration) + (WORDS + 1) * sizeof(struct run)];
    lmo_assert(m->task_count <= LMO_TASKS_MAX && m->vm.volume_count <= LMO_VOLUMES_MAX &&
               m->vm.port_count <= LMO_PORTS_MAX);
    wipe_unused(m);
    const uint64_t *words = (const uint64_t *)(const void *)m;
    size_t used = 0;
    for (size_t at = 0; at < WORDS;) {
        size_t zeros = count_zeros(words, at), given = count_given(words, at + zeros);
        struct run run = {.zeros = (uint16_t)zeros, .given = (uint16_t)given};
        memcpy(scratch + used, &run, sizeof run);
        memcpy(scratch + used + sizeof run, words + at + zeros, given * sizeof *words);
        used += sizeof run + given * sizeof *words;
        at += zeros + given;
    }
    if (!old || old->room < used || old->room / 2 > used) {
        size_t room = (used + 255) & ~(size_t)255; /* the next step's record is a little larger or smaller */
        struct lmo_packed *p = malloc(sizeof *p + room);
        if (!p) {
            return NULL;
        }
        p->room = (uint32_t)room;
        free(old);
        old = p;
    }
    memcpy(old->data, scratch, used);
    old->size = (uint32_t)used;
    return old;
}

void lmo_record_unpack(const struct lmo_packed *p, struct lmo_migration *ret)
{
    unsigned char *out = (unsigned char *)ret;
    size_t at = 0;
    for (size_t used = 0; used < p->size;) {
        struct run run;
        memcpy(&run, p->data + used, sizeof run);
        used += sizeof run;
        size_t zeros = run.zeros * sizeof(uint64_t), given = run.given * sizeof(uint64_t);
        lmo_assert(used + given <= p->size && at + zeros + given <= sizeof *ret);
        memset(out + at, 0, zeros);
        memcpy(out + at + zeros, p->data + used, given);
        used += given;
        at += zeros + given;
    }
    lmo_assert(at == sizeof *ret);
}
