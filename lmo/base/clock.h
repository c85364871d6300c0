/* clock.h - the two clocks.
 *
 * Ages, deadlines and expiries are measured on CLOCK_BOOTTIME, which counts through suspend and is never set.
 * CLOCK_REALTIME is for people, records and certificates only; nothing safe may rest on it. */
#ifndef LMO_BASE_CLOCK_H
#define LMO_BASE_CLOCK_H

#include <stdint.h>

#define LMO_NS_PER_MS UINT64_C(1000000)
#define LMO_NS_PER_S  UINT64_C(1000000000)

/* Nanoseconds since boot, suspend included. Never fails, never goes back. */
uint64_t lmo_now_ns(void);
/* The same in whole milliseconds. */
uint64_t lmo_now_ms(void);
/* Microseconds since 1970, for stamps that people read. May jump. */
uint64_t lmo_realtime_us(void);

/* Milliseconds until `deadline_ns` (on lmo_now_ns), rounded up; 0 when it has passed. */
uint64_t lmo_ms_until(uint64_t deadline_ns);

#define LMO_TIMESTAMP_MAX 32
/* Writes "2026-01-31T12:34:56.123456Z". */
void lmo_realtime_format(uint64_t realtime_us, char ret_text[LMO_TIMESTAMP_MAX]);

#endif
