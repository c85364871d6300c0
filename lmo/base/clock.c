/* clock.c - see clock.h. */
#include "base/clock.h"
#include "base/assert.h"

#include <stdio.h>
#include <time.h>

uint64_t lmo_now_ns(void)
{
    struct timespec ts;
    lmo_assert(clock_gettime(CLOCK_BOOTTIME, &ts) == 0);
    return (uint64_t)ts.tv_sec * LMO_NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t lmo_now_ms(void)
{
    return lmo_now_ns() / LMO_NS_PER_MS;
}

uint64_t lmo_realtime_us(void)
{
    struct timespec ts;
    lmo_assert(clock_gettime(CLOCK_REALTIME, &ts) == 0);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t lmo_ms_until(uint64_t deadline_ns)
{
    uint64_t now = lmo_now_ns();
    if (deadline_ns <= now)
        return 0;
    return (deadline_ns - now + LMO_NS_PER_MS - 1) / LMO_NS_PER_MS;
}

void lmo_realtime_format(uint64_t realtime_us, char ret_text[LMO_TIMESTAMP_MAX])
{
    /* Years past 9999 do not fit the format; a clock that far off is shown as the last moment that does. */
    const uint64_t last_us = UINT64_C(253402300799999999);
    if (realtime_us > last_us)
        realtime_us = last_us;
    time_t seconds = (time_t)(realtime_us / 1000000);
    unsigned micros = (unsigned)(realtime_us % 1000000);
    struct tm tm;
    lmo_assert(gmtime_r(&seconds, &tm) != NULL);
    char date[24];
    lmo_assert(strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm) > 0);
    snprintf(ret_text, LMO_TIMESTAMP_MAX, "%s.%06uZ", date, micros);
}
