/* admission.c - one evaluation of the queue. Invariants and rules: admission.h; division of bandwidth: shares.c.
 *
 * The queue is walked once, oldest first. What runs, and what is admitted on the way, counts as used; what an older
 * migration waits for is claimed for it, and counts as used for those behind it, and for them alone. */
#include "core/admission.h"

#include "base/assert.h"

#include <stdio.h>
#include <string.h>

/* What one migration takes. */
enum {
    TAKES_FLEET = 1,
    TAKES_OUTGOING = 2,
    TAKES_INCOMING = 4,
    TAKES_SOURCE_LINK = 8,
    TAKES_DESTINATION_LINK = 16,
    TAKES_MEMORY = 32,
    TAKES_HUGE_PAGES = 64,
    TAKES_ALL = 127,
};

/* A share is changed if the change is at least a tenth of it: every change is a record stored and an order sent. */
#define NOTICEABLE_DIVISOR 10

void lmo_limits_default(struct lmo_limits *ret)
{
    *ret = (struct lmo_limits){.max_migrations = 256,
                               .max_incoming = 2,
                               .max_outgoing = 2,
                               .min_share_bytes_per_s = UINT64_C(128) << 20,
                               .memory_keep_free_bytes = UINT64_C(512) << 20,
                               .memory_overhead_bytes = UINT64_C(192) << 20,
                               .memory_overhead_percent = 2,
                               .queue_timeout_ms = UINT64_C(24) * 3600 * 1000,
                               .link = "migration"};
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t lmo_memory_needed(const struct lmo_limits *l, uint64_t memory_bytes, bool huge_pages)
{
    uint64_t overhead = plus(l->memory_overhead_bytes, memory_bytes / 100 * l->memory_overhead_percent);
    return huge_pages ? overhead : plus(memory_bytes, overhead);
}

static const char *const limit_texts[] = {
    [LMO_LIMIT_NONE] = "none",         [LMO_LIMIT_HOST] = "host",
    [LMO_LIMIT_FLEET] = "fleet",       [LMO_LIMIT_OUTGOING] = "outgoing",
    [LMO_LIMIT_INCOMING] = "incoming", [LMO_LIMIT_BANDWIDTH] = "bandwidth",
    [LMO_LIMIT_MEMORY] = "memory",     [LMO_LIMIT_HUGE_PAGES] = "huge_pages",
    [LMO_LIMIT_PREDICTION] = "prediction", [LMO_LIMIT_NOTICE] = "notice", [LMO_LIMIT_ASKING] = "asking",     [LMO_LIMIT_FREEING] = "freeing",
};
_Static_assert(sizeof limit_texts / sizeof limit_texts[0] == LMO_LIMIT_COUNT, "a limit without a word");

const char *lmo_limit_text(enum lmo_limit l)
{
    return limit_texts[l];
}

static uint64_t path_rate(const struct lmo_adm_fleet *f, const struct lmo_adm_item *i)
{
    uint64_t a = f->hosts[i->source].rate_bytes_per_s, b = f->hosts[i->destination].rate_bytes_per_s;
    return a == 0 ? b : b == 0 ? a : a < b ? a : b;
}

uint64_t lmo_admission_min_share(const struct lmo_adm_fleet *f, const struct lmo_adm_item *i)
{
    uint64_t rate = path_rate(f, i), least = f->limits->min_share_bytes_per_s;
    least = rate < least ? rate : least; /* a link that is slower gives all that it has to one after the other */
    return i->cap_bytes_per_s && i->cap_bytes_per_s < least ? i->cap_bytes_per_s : least;
}

/* What may flow now. A job whose gate is open and that was never given a share takes all that there is. */
static uint64_t held(const struct lmo_adm_fleet *f, const struct lmo_adm_item *i)
{
    return i->ordered && i->share_bytes_per_s == 0 ? path_rate(f, i) : i->held_bytes_per_s;
}

/* ------------------------------------------------------------------ what is used */

static void use(struct lmo_adm_fleet *f, const struct lmo_adm_item *i, bool stream, uint64_t held_bytes_per_s)
{
    struct lmo_adm_host *source = &f->hosts[i->source], *destination = &f->hosts[i->destination];
    f->running++;
    source->outgoing++;
    destination->incoming++;
    destination->pool_used[0] = plus(destination->pool_used[0], i->memory_bytes);
    if (i->huge_bytes) {
        destination->pool_used[i->huge_pool] = plus(destination->pool_used[i->huge_pool], i->huge_bytes);
    }
    if (stream) {
        uint64_t least = lmo_admission_min_share(f, i);
        source->needed_bytes_per_s = plus(source->needed_bytes_per_s, least);
        destination->needed_bytes_per_s = plus(destination->needed_bytes_per_s, least);
        source->held_bytes_per_s = plus(source->held_bytes_per_s, held_bytes_per_s);
        destination->held_bytes_per_s = plus(destination->held_bytes_per_s, held_bytes_per_s);
    }
}

static void begin(struct lmo_adm_fleet *f)
{
    f->running = f->admitted = f->changed = f->claims = f->line = 0;
    f->waits_for_memory = false;
    for (uint32_t n = 0; n < f->host_count; n++) {
        struct lmo_adm_host *h = &f->hosts[n];
        h->ask_memory = h->pressed = false;
        h->incoming = h->outgoing = h->claim_incoming = h->claim_outgoing = h->admits = 0;
        h->needed_bytes_per_s = h->held_bytes_per_s = h->claim_bytes_per_s = 0;
        memset(h->pool_used, 0, sizeof h->pool_used);
        memset(h->claim_pool, 0, sizeof h->claim_pool);
        memset(h->line, 0, sizeof h->line);
    }
    for (uint32_t n = 0; n < f->item_count; n++) {
        struct lmo_adm_item *i = &f->items[n];
        if (i->state == LMO_ADM_FREE) {
            continue;
        }
        lmo_assert(i->source < f->host_count && i->destination < f->host_count && i->huge_pool < LMO_POOLS_MAX);
        i->admitted = i->changed = i->takes_part = false;
        i->new_share_bytes_per_s = i->share_bytes_per_s;
        i->hold = (struct lmo_hold){.host = LMO_NONE};
        if (i->state == LMO_ADM_RUNNING) {
            i->takes_part = i->stream;
            use(f, i, i->stream, held(f, i));
        }
    }
}

/* ------------------------------------------------------------------ the queue */

static bool over(const struct lmo_adm_host *h, unsigned pool, uint64_t bytes)
{
    return h->pool_known[pool] && bytes > 0 &&
           plus(plus(h->pool_used[pool], h->claim_pool[pool]), bytes) > h->pool_bytes[pool];
}

static bool link_full(const struct lmo_adm_host *h, uint64_t least)
{
    return h->rate_bytes_per_s && plus(plus(h->needed_bytes_per_s, h->claim_bytes_per_s), least) > h->rate_bytes_per_s;
}

/* What of all that it takes is not to be had. */
static unsigned lacking(const struct lmo_adm_fleet *f, const struct lmo_adm_item *i)
{
    const struct lmo_adm_host *source = &f->hosts[i->source], *destination = &f->hosts[i->destination];
    uint64_t least = lmo_admission_min_share(f, i);
    unsigned set = 0;
    set |= f->running + f->claims >= f->limits->max_migrations ? TAKES_FLEET : 0;
    set |= source->outgoing + source->claim_outgoing >= source->max_outgoing ? TAKES_OUTGOING : 0;
    set |= destination->incoming + destination->claim_incoming >= destination->max_incoming ? TAKES_INCOMING : 0;
    set |= link_full(source, least) ? TAKES_SOURCE_LINK : 0;
    set |= link_full(destination, least) ? TAKES_DESTINATION_LINK : 0;
    set |= over(destination, 0, i->memory_bytes) ? TAKES_MEMORY : 0;
    set |= i->huge_bytes && over(destination, i->huge_pool, i->huge_bytes) ? TAKES_HUGE_PAGES : 0;
    return set;
}

static void claim(struct lmo_adm_fleet *f, const struct lmo_adm_item *i, unsigned set)
{
    struct lmo_adm_host *source = &f->hosts[i->source], *destination = &f->hosts[i->destination];
    uint64_t least = lmo_admission_min_share(f, i);
    f->claims += (set & TAKES_FLEET) != 0;
    source->claim_outgoing += (set & TAKES_OUTGOING) != 0;
    destination->claim_incoming += (set & TAKES_INCOMING) != 0;
    source->claim_bytes_per_s = plus(source->claim_bytes_per_s, set & TAKES_SOURCE_LINK ? least : 0);
    destination->claim_bytes_per_s = plus(destination->claim_bytes_per_s, set & TAKES_DESTINATION_LINK ? least : 0);
    destination->claim_pool[0] = plus(destination->claim_pool[0], set & TAKES_MEMORY ? i->memory_bytes : 0);
    if (i->huge_bytes && (set & TAKES_HUGE_PAGES)) {
        destination->claim_pool[i->huge_pool] = plus(destination->claim_pool[i->huge_pool], i->huge_bytes);
    }
}

static void hold(struct lmo_adm_fleet *f, struct lmo_adm_item *i, enum lmo_limit limit, uint32_t host, uint64_t in_use,
                 uint64_t max, uint64_t needed)
{
    uint32_t *line = host == LMO_NONE ? &f->line : &f->hosts[host].line[limit];
    i->hold = (struct lmo_hold){
        .limit = limit, .host = host, .position = ++*line, .in_use = in_use, .max = max, .needed = needed};
}

/* Names the first of what is lacking. */
static void hold_for(struct lmo_adm_fleet *f, struct lmo_adm_item *i, unsigned set)
{
    const struct lmo_adm_host *s = &f->hosts[i->source], *d = &f->hosts[i->destination];
    uint64_t least = lmo_admission_min_share(f, i);
    if (set & TAKES_FLEET) {
        hold(f, i, LMO_LIMIT_FLEET, LMO_NONE, f->running, f->limits->max_migrations, 1);
    } else if (set & TAKES_OUTGOING) {
        hold(f, i, LMO_LIMIT_OUTGOING, i->source, s->outgoing, s->max_outgoing, 1);
    } else if (set & TAKES_INCOMING) {
        hold(f, i, LMO_LIMIT_INCOMING, i->destination, d->incoming, d->max_incoming, 1);
    } else if (set & TAKES_MEMORY) {
        hold(f, i, LMO_LIMIT_MEMORY, i->destination, d->pool_used[0], d->pool_bytes[0], i->memory_bytes);
    } else if (set & TAKES_HUGE_PAGES) {
        hold(f, i, LMO_LIMIT_HUGE_PAGES, i->destination, d->pool_used[i->huge_pool], d->pool_bytes[i->huge_pool],
             i->huge_bytes);
    } else if (set & TAKES_SOURCE_LINK) {
        hold(f, i, LMO_LIMIT_BANDWIDTH, i->source, s->needed_bytes_per_s, s->rate_bytes_per_s, least);
    } else {
        hold(f, i, LMO_LIMIT_BANDWIDTH, i->destination, d->needed_bytes_per_s, d->rate_bytes_per_s, least);
    }
}

static bool not_free_yet(const struct lmo_adm_host *h, uint64_t least)
{
    return h->rate_bytes_per_s && plus(h->held_bytes_per_s, least) > h->rate_bytes_per_s;
}

/* Nothing but the others' consent is lacking: they are given smaller shares, and it starts when those are in force. */
static bool hold_until_freed(struct lmo_adm_fleet *f, struct lmo_adm_item *i, uint64_t least)
{
    struct lmo_adm_host *s = &f->hosts[i->source], *d = &f->hosts[i->destination];
    bool at_source = not_free_yet(s, least), at_destination = not_free_yet(d, least);
    if (!at_source && !at_destination) {
        return false;
    }
    s->pressed = s->pressed || at_source;
    d->pressed = d->pressed || at_destination;
    const struct lmo_adm_host *h = at_source ? s : d;
    hold(f, i, LMO_LIMIT_FREEING, at_source ? i->source : i->destination, h->held_bytes_per_s, h->rate_bytes_per_s,
         least);
    i->takes_part = true; /* in the division: what is its own is what the others give up */
    claim(f, i, TAKES_ALL);
    return true;
}

static void admit(struct lmo_adm_fleet *f, struct lmo_adm_item *i, uint64_t least)
{
    use(f, i, true, least);
    i->admitted = i->takes_part = true;
    i->new_share_bytes_per_s = least;
    f->hosts[i->source].admits++;
    f->hosts[i->destination].admits++;
    f->admitted++;
}

static void judge(struct lmo_adm_fleet *f, struct lmo_adm_item *i)
{
    struct lmo_adm_host *source = &f->hosts[i->source], *destination = &f->hosts[i->destination];
    uint64_t least = lmo_admission_min_share(f, i);
    i->mark = source->admits + destination->admits;
    if (i->notice) {
        hold(f, i, LMO_LIMIT_NOTICE, LMO_NONE, 0, 0, 0);
        return;
    }
    if (!source->usable || !destination->usable) { /* claims nothing: who knows when that ends */
        hold(f, i, LMO_LIMIT_HOST, source->usable ? i->destination : i->source, 0, 0, 0);
        return;
    }
    if (i->held) {
        hold(f, i, LMO_LIMIT_PREDICTION, LMO_NONE, 0, 0, 0);
        return;
    }
    unsigned set = lacking(f, i);
    bool by_memory = (set & (TAKES_MEMORY | TAKES_HUGE_PAGES)) != 0;
    bool only_memory = by_memory && (set & ~(unsigned)(TAKES_MEMORY | TAKES_HUGE_PAGES)) == 0;
    f->waits_for_memory = f->waits_for_memory || only_memory;
    if (destination->memory_stale && (set == 0 || only_memory)) {
        destination->ask_memory = true;
    }
    if (set) {
        hold_for(f, i, set);
        claim(f, i, i->overtaken >= LMO_OVERTAKEN_MAX ? TAKES_ALL : set);
    } else if (destination->memory_stale) {
        hold(f, i, LMO_LIMIT_ASKING, i->destination, 0, 0, i->memory_bytes);
        claim(f, i, TAKES_ALL);
    } else if (!hold_until_freed(f, i, least)) {
        admit(f, i, least);
    }
}

static void count_overtakers(struct lmo_adm_fleet *f)
{
    for (uint32_t n = f->queue; n != LMO_NONE; n = f->items[n].next) {
        struct lmo_adm_item *i = &f->items[n];
        if (!i->admitted && i->hold.limit != LMO_LIMIT_HOST && i->hold.limit != LMO_LIMIT_PREDICTION &&
            i->hold.limit != LMO_LIMIT_NOTICE) {
            uint32_t since = f->hosts[i->source].admits + f->hosts[i->destination].admits - i->mark;
            i->overtaken = i->overtaken > UINT32_MAX - since ? UINT32_MAX : i->overtaken + since;
        }
    }
}

/* ------------------------------------------------------------------ shares */

static bool noticeable(uint64_t from, uint64_t to)
{
    uint64_t difference = from > to ? from - to : to - from;
    return difference > 0 && difference >= from / NOTICEABLE_DIVISOR;
}

static void change(struct lmo_adm_fleet *f, struct lmo_adm_item *i, uint64_t share)
{
    i->changed = true;
    i->new_share_bytes_per_s = share;
    f->changed++;
}

/* Who has more than its part gives it up; before the worker has confirmed that, it still counts as in force. */
static void shrink(struct lmo_adm_fleet *f, struct lmo_adm_item *i)
{
    struct lmo_adm_host *s = &f->hosts[i->source], *d = &f->hosts[i->destination];
    uint64_t now = held(f, i);
    if (i->target >= now || i->target == 0 || !(noticeable(now, i->target) || s->pressed || d->pressed)) {
        return;
    }
    change(f, i, i->target);
    if (!i->ordered) {
        s->held_bytes_per_s -= now - i->target;
        d->held_bytes_per_s -= now - i->target;
    }
}

static uint64_t free_of(const struct lmo_adm_host *h)
{
    return h->rate_bytes_per_s == 0                    ? UINT64_MAX
           : h->held_bytes_per_s < h->rate_bytes_per_s ? h->rate_bytes_per_s - h->held_bytes_per_s
                                                       : 0;
}

static void grow(struct lmo_adm_fleet *f, struct lmo_adm_item *i)
{
    struct lmo_adm_host *s = &f->hosts[i->source], *d = &f->hosts[i->destination];
    uint64_t now = i->admitted ? i->new_share_bytes_per_s : held(f, i);
    uint64_t room = free_of(s) < free_of(d) ? free_of(s) : free_of(d);
    uint64_t to = i->target < plus(now, room) ? i->target : plus(now, room);
    if (path_rate(f, i) == 0 || to <= now || !(i->admitted || noticeable(now, to))) {
        return;
    }
    s->held_bytes_per_s += to - now;
    d->held_bytes_per_s += to - now;
    if (i->admitted) {
        i->new_share_bytes_per_s = to;
    } else {
        change(f, i, to);
    }
}

static void divide(struct lmo_adm_fleet *f)
{
    lmo_shares_divide(f);
    for (uint32_t n = 0; n < f->item_count; n++) {
        struct lmo_adm_item *i = &f->items[n];
        if (i->state == LMO_ADM_RUNNING && i->takes_part && i->adjustable) {
            shrink(f, i);
        }
    }
    for (uint32_t n = f->admitted ? f->queue : LMO_NONE; n != LMO_NONE; n = f->items[n].next) {
        if (f->items[n].admitted) {
            grow(f, &f->items[n]);
        }
    }
    for (uint32_t n = 0; n < f->item_count; n++) {
        struct lmo_adm_item *i = &f->items[n];
        if (i->state == LMO_ADM_RUNNING && i->takes_part && i->adjustable && !i->changed) {
            grow(f, i);
        }
    }
}

void lmo_admission_decide(struct lmo_adm_fleet *f)
{
    begin(f);
    for (uint32_t n = f->queue; n != LMO_NONE; n = f->items[n].next) {
        lmo_assert(n < f->item_count && f->items[n].state == LMO_ADM_QUEUED);
        judge(f, &f->items[n]);
    }
    count_overtakers(f);
    divide(f);
}

/* ------------------------------------------------------------------ the proof of the pudding */

static const char *admission_broken(const struct lmo_adm_fleet *f, const struct lmo_adm_item *i)
{
    const struct lmo_adm_host *s = &f->hosts[i->source], *d = &f->hosts[i->destination];
    if (f->running > f->limits->max_migrations || s->outgoing > s->max_outgoing || d->incoming > d->max_incoming) {
        return "A1: admitted beyond a number of migrations";
    }
    for (unsigned p = 0; p < LMO_POOLS_MAX; p++) {
        bool takes = p == 0 ? i->memory_bytes > 0 : i->huge_bytes > 0 && i->huge_pool == p;
        if (takes && d->pool_known[p] && d->pool_used[p] > d->pool_bytes[p]) {
            return "A1: admitted beyond the destination's memory";
        }
    }
    uint64_t least = lmo_admission_min_share(f, i);
    const struct lmo_adm_host *both[] = {s, d};
    for (unsigned n = 0; n < 2; n++) {
        const struct lmo_adm_host *h = both[n];
        if (h->rate_bytes_per_s &&
            (h->needed_bytes_per_s > h->rate_bytes_per_s || h->held_bytes_per_s > h->rate_bytes_per_s)) {
            return "A2: admitted beyond a link's rate";
        }
    }
    return i->new_share_bytes_per_s < least ? "A3: admitted with less than the minimum share" : NULL;
}

const char *lmo_admission_broken(const struct lmo_adm_fleet *f)
{
    for (uint32_t n = 0; n < f->item_count; n++) {
        const struct lmo_adm_item *i = &f->items[n];
        if (i->state == LMO_ADM_FREE) {
            continue;
        }
        const char *broken = i->admitted ? admission_broken(f, i) : NULL;
        const struct lmo_adm_host *s = &f->hosts[i->source], *d = &f->hosts[i->destination];
        bool grows = i->changed && i->new_share_bytes_per_s > held(f, i);
        if (grows && ((s->rate_bytes_per_s && s->held_bytes_per_s > s->rate_bytes_per_s) ||
                      (d->rate_bytes_per_s && d->held_bytes_per_s > d->rate_bytes_per_s))) {
            broken = "A2: a share was raised beyond a link's rate";
        }
        if (broken) {
            return broken;
        }
    }
    return NULL;
}
