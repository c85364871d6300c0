/*
 * The record that diskwriter keeps writing: little endian, at the start of a
 * slot of RECORD_SLOT bytes; the rest of the slot is zero. The lab's checker
 * reads the same layout from the volume.
 *
 * Sequence number N lives in slot N % slots, so a volume whose newest record
 * is M holds exactly M-slots+1 .. M: anything else is a write that was lost,
 * reordered or replayed.
 */
#ifndef LAB_GUEST_RECORD_H
#define LAB_GUEST_RECORD_H

#include <stddef.h>
#include <stdint.h>

#define RECORD_MAGIC 0x314f4d4c63657264u /* "drecLMO1" in memory */
#define RECORD_SLOT  4096u

struct record {
    uint64_t magic;
    uint64_t seq;     /* 1, 2, 3, ... */
    uint64_t slots;   /* slots in use on this volume */
    uint64_t wall_ns; /* guest's CLOCK_REALTIME when written */
    uint8_t boot[16]; /* the boot that wrote it */
    uint32_t reserved;
    uint32_t crc; /* CRC-32 (IEEE) of the bytes before it */
};

static inline uint32_t record_crc(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint32_t crc = 0xffffffffu;
    while (len-- > 0) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
    }
    return ~crc;
}

#endif
