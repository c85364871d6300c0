/* pack.c - see pack.h.
 *
 * Form: for each extent of the record that means something, a bit per block that says whether the block is given (it is not
 * if it is all zeros), the blocks that are, and the words behind the last block. There is no branch for a block in either
 * direction: which of them are zeros follows no pattern that a processor could learn. */
#include "engine/pack.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

#define WORD   sizeof(uint64_t)
#define BLOCK  (4 * WORD)
#define BLOCKS (sizeof(struct lmo_migration) / BLOCK)

_Static_assert(sizeof(struct lmo_migration) % WORD == 0, "a record is whole words");
_Static_assert(sizeof(struct lmo_migration) / WORD <= UINT16_MAX, "places in a record fit their type");

struct part {
    uint16_t at, words; /* of the record: from there, so many */
};

struct lmo_packed {
    uint32_t size, room; /* bytes of data: used, there */
    struct part parts[LMO_EXTENTS];
    unsigned char data[];
};

size_t lmo_packed_size(const struct lmo_packed *p)
{
    return sizeof *p + p->room;
}

/* Whole words, and none of them twice: two extents may share one. */
static void find_parts(const struct lmo_migration *m, struct part ret[LMO_EXTENTS])
{
    struct lmo_extent extents[LMO_EXTENTS];
    size_t at = 0;
    lmo_migration_extents(m, extents);
    for (unsigned i = 0; i < LMO_EXTENTS; i++) {
        size_t from = extents[i].at / WORD, to = (extents[i].at + extents[i].size + WORD - 1) / WORD;
        from = from > at ? from : at;
        to = to > from ? to : from;
        ret[i] = (struct part){(uint16_t)from, (uint16_t)(to - from)};
        at = to;
    }
}

/* Bytes of the bits of so many blocks. */
static size_t bits_size(size_t blocks)
{
    return (blocks + 7) / 8;
}

/* Returns the end of what it wrote to `out`, where BLOCK bytes more may have been changed. */
static unsigned char *pack_part(const unsigned char *from, size_t words, unsigned char *out)
{
    size_t blocks = words * WORD / BLOCK, tail = words * WORD - blocks * BLOCK;
    unsigned char *bits = out;
    out += bits_size(blocks);
    memset(bits, 0, bits_size(blocks));
    for (size_t i = 0; i < blocks; i++, from += BLOCK) {
        uint64_t w[BLOCK / WORD];
        memcpy(w, from, BLOCK);
        memcpy(out, w, BLOCK);
        size_t given = (w[0] | w[1] | w[2] | w[3]) != 0;
        bits[i / 8] |= (unsigned char)(given << i % 8);
        out += given * BLOCK;
    }
    memcpy(out, from, tail);
    return out + tail;
}

struct lmo_packed *lmo_record_pack(const struct lmo_migration *m, struct lmo_packed *old)
{
    static _Thread_local unsigned char scratch[sizeof(struct lmo_migration) + BLOCKS / 8 + LMO_EXTENTS + BLOCK];
    struct part parts[LMO_EXTENTS];
    lmo_assert(m->task_count <= LMO_TASKS_MAX && m->vm.volume_count <= LMO_VOLUMES_MAX &&
               m->vm.port_count <= LMO_PORTS_MAX);
    find_parts(m, parts);
    unsigned char *end = scratch;
    for (unsigned i = 0; i < LMO_EXTENTS; i++) {
        end = pack_part((const unsigned char *)m + parts[i].at * WORD, parts[i].words, end);
    }
    size_t used = (size_t)(end - scratch);
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
    memcpy(old->parts, parts, sizeof parts);
    memcpy(old->data, scratch, used);
    old->size = (uint32_t)used;
    return old;
}

static const unsigned char *unpack_part(const unsigned char *in, const unsigned char *end, size_t words,
                                        unsigned char *to)
{
    static const unsigned char zeros[BLOCK];
    size_t blocks = words * WORD / BLOCK, tail = words * WORD - blocks * BLOCK;
    const unsigned char *bits = in;
    lmo_assert((size_t)(end - in) >= bits_size(blocks));
    in += bits_size(blocks);
    for (size_t i = 0; i < blocks; i++, to += BLOCK) {
        size_t given = bits[i / 8] >> i % 8 & 1U;
        const unsigned char *const from[] = {zeros, in};
        memcpy(to, from[given], BLOCK);
        in += given * BLOCK;
    }
    lmo_assert(in <= end && (size_t)(end - in) >= tail);
    memcpy(to, in, tail);
    return in + tail;
}

void lmo_record_unpack(const struct lmo_packed *p, struct lmo_migration *ret)
{
    const unsigned char *in = p->data, *end = p->data + p->size;
    for (unsigned i = 0; i < LMO_EXTENTS; i++) {
        const struct part *part = &p->parts[i];
        lmo_assert((size_t)part->at + part->words <= sizeof *ret / WORD);
        in = unpack_part(in, end, part->words, (unsigned char *)ret + part->at * WORD);
    }
    lmo_assert(in == end);
}
