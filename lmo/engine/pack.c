/* pack.c - see pack.h.
 *
 * Form: runs, each a header (words that are left alone, zero words, words that are given) and the given words. Words
 * are 64 bits; what is left alone are members of arrays beyond their count. */
#include "engine/pack.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

#define WORDS (sizeof(struct lmo_migration) / sizeof(uint64_t))

_Static_assert(sizeof(struct lmo_migration) % sizeof(uint64_t) == 0, "a record is whole words");
_Static_assert(WORDS <= UINT16_MAX, "a run's lengths fit their headers");

struct run {
    uint16_t skipped, zeros, given, unused;
};

struct lmo_packed {
    uint32_t size, room; /* bytes of data: used, there */
    unsigned char data[];
};

size_t lmo_packed_size(const struct lmo_packed *p)
{
    return sizeof *p + p->room;
}

static size_t count_zeros(const uint64_t *words, size_t at, size_t end)
{
    size_t i = at;
    while (i + 8 <= end && (words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] | words[i + 5] |
                            words[i + 6] | words[i + 7]) == 0) {
        i += 8;
    }
    while (i < end && words[i] == 0) {
        i++;
    }
    return i - at;
}

static size_t count_given(const uint64_t *words, size_t at, size_t end)
{
    size_t i = at;
    while (i < end && words[i] != 0) {
        i++;
    }
    return i - at;
}

/* Appends the words from `at` to `end`, `skipped` behind the ones before; returns the new length. */
static size_t pack_extent(const uint64_t *words, size_t skipped, size_t at, size_t end, unsigned char *out, size_t used)
{
    while (at < end) {
        size_t zeros = count_zeros(words, at, end), given = count_given(words, at + zeros, end);
        struct run run = {(uint16_t)skipped, (uint16_t)zeros, (uint16_t)given, 0};
        memcpy(out + used, &run, sizeof run);
        memcpy(out + used + sizeof run, words + at + zeros, given * sizeof *words);
        used += sizeof run + given * sizeof *words;
        at += zeros + given;
        skipped = 0;
    }
    return used;
}

struct lmo_packed *lmo_record_pack(const struct lmo_migration *m, struct lmo_packed *old)
{
    /* A run per word is the most: every run but an extent's last gives at least one. */
    static _Thread_local unsigned char scratch[sizeof(struct lmo_migration) + (WORDS + LMO_EXTENTS) * sizeof(struct run)];
    struct lmo_extent extents[LMO_EXTENTS];
    lmo_assert(m->task_count <= LMO_TASKS_MAX && m->vm.volume_count <= LMO_VOLUMES_MAX &&
               m->vm.port_count <= LMO_PORTS_MAX);
    lmo_migration_extents(m, extents);
    size_t used = 0, at = 0;
    for (unsigned i = 0; i < LMO_EXTENTS; i++) {
        size_t from = extents[i].at / sizeof(uint64_t);
        size_t to = (extents[i].at + extents[i].size + sizeof(uint64_t) - 1) / sizeof(uint64_t);
        from = from > at ? from : at; /* two extents may share a word */
        if (from < to) {
            used = pack_extent((const uint64_t *)(const void *)m, from - at, from, to, scratch, used);
            at = to;
        }
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
        at += run.skipped * sizeof(uint64_t);
        lmo_assert(used + given <= p->size && at + zeros + given <= sizeof *ret);
        memset(out + at, 0, zeros);
        memcpy(out + at + zeros, p->data + used, given);
        used += given;
        at += zeros + given;
    }
}
