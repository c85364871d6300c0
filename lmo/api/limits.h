/* limits.h - how many requests a client may make: a token bucket for each principal.
 *
 * A bucket holds `burst` requests and gains `rate` a second. One that is empty refuses, and says when there is one again.
 * Full buckets are forgotten, so the table holds only those who asked within the last burst / rate seconds; beyond
 * LIMITS_PRINCIPALS_MAX of those, newcomers share one bucket. One thread. */
#ifndef LMO_API_LIMITS_H
#define LMO_API_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#define LIMITS_PRINCIPALS_MAX 1024

struct limits;
/* rate_per_s 0: nobody is limited. NULL without memory. */
struct limits *limits_new(uint32_t rate_per_s, uint32_t burst);
struct limits *limits_free(struct limits *l);
/* Takes one request of the principal's bucket. False: there is none; *ret_after_s (1 at least) is when there is. */
bool limits_take(struct limits *l, const char *principal, uint64_t now_ns, uint32_t *ret_after_s);

#endif
