/* limits.c - see limits.h. */
#include "api/limits.h"

#include "base/hash.h"
#include "base/str.h"
#include "base/types.h"

#include <stdlib.h>
#include <string.h>

#define NS_PER_S UINT64_C(1000000000)

struct bucket {
    char principal[LMO_NAME_MAX + 32];
    uint64_t full_ns; /* when it would be full if nothing more were taken: one number is the whole state */
    UT_hash_handle hh;
};

struct limits {
    uint64_t cost_ns; /* time that one request's place takes to come back */
    uint64_t depth_ns;
    struct bucket *buckets;
    struct bucket shared;
};

struct limits *limits_new(uint32_t rate_per_s, uint32_t burst)
{
    struct limits *l = calloc(1, sizeof(*l));
    if (l && rate_per_s > 0) {
        l->cost_ns = NS_PER_S / rate_per_s;
        l->depth_ns = l->cost_ns * (burst > 0 ? burst : 1);
    }
    return l;
}

struct limits *limits_free(struct limits *l)
{
    struct bucket *b, *tmp;
    if (l) {
        HASH_ITER(hh, l->buckets, b, tmp)
        {
            HASH_DEL(l->buckets, b);
            free(b);
        }
    }
    free(l);
    return NULL;
}

static void forget_full(struct limits *l, uint64_t now_ns)
{
    struct bucket *b, *tmp;
    HASH_ITER(hh, l->buckets, b, tmp)
    {
        if (b->full_ns <= now_ns) {
            HASH_DEL(l->buckets, b);
            free(b);
        }
    }
}

static struct bucket *bucket_of(struct limits *l, const char *principal, uint64_t now_ns)
{
    struct bucket *b;
    HASH_FIND_STR(l->buckets, principal, b);
    if (b) {
        return b;
    }
    if (HASH_COUNT(l->buckets) >= LIMITS_PRINCIPALS_MAX) {
        forget_full(l, now_ns);
    }
    b = HASH_COUNT(l->buckets) < LIMITS_PRINCIPALS_MAX ? calloc(1, sizeof(*b)) : NULL;
    if (!b) {
        return &l->shared;
    }
    LMO_COPY(b->principal, principal);
    HASH_ADD_STR(l->buckets, principal, b);
    return b;
}

bool limits_take(struct limits *l, const char *principal, uint64_t now_ns, uint32_t *ret_after_s)
{
    if (l->cost_ns == 0) {
        return true;
    }
    struct bucket *b = bucket_of(l, principal, now_ns);
    uint64_t full_ns = (b->full_ns > now_ns ? b->full_ns : now_ns) + l->cost_ns;
    if (full_ns - now_ns > l->depth_ns) {
        *ret_after_s = (uint32_t)((full_ns - now_ns - l->depth_ns + NS_PER_S - 1) / NS_PER_S);
        return false;
    }
    b->full_ns = full_ns;
    return true;
}
