/* placement.c - verdicts for people and for whoever chooses one host for one guest. See placement.h; the rules themselves
 * are filter.c (hosts) and spare.c (N+1). */
#include "core/placement.h"

#include "base/assert.h"
#include "base/str.h"
#include "core/place_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define REASONS_SHOWN 3

/* ------------------------------------------------------------------ words */

static const char *const not_words[] = {
    [LMO_NOT_REJECTED] = "none",
    [LMO_NOT_MIGRATING] = "migrating",
    [LMO_NOT_LEASED] = "leased",
    [LMO_NOT_BLOCKED] = "blocked",
    [LMO_NOT_STATE] = "state",
    [LMO_NOT_HERE] = "here",
    [LMO_NOT_DOWN] = "down",
    [LMO_NOT_CORDONED] = "cordoned",
    [LMO_NOT_DRAINING] = "draining",
    [LMO_NOT_AVOIDED] = "avoided",
    [LMO_NOT_LINK] = "link",
    [LMO_NOT_SLOTS] = "slots",
    [LMO_NOT_CPU] = "cpu",
    [LMO_NOT_CPU_UNKNOWN] = "cpu_unknown",
    [LMO_NOT_MACHINE] = "machine",
    [LMO_NOT_SERVICE] = "service",
    [LMO_NOT_FABRIC] = "fabric",
    [LMO_NOT_LABEL] = "label",
    [LMO_NOT_ANTI_AFFINITY] = "anti_affinity",
    [LMO_NOT_AFFINITY] = "affinity",
    [LMO_NOT_MEMORY_UNKNOWN] = "memory_unknown",
    [LMO_NOT_MEMORY] = "memory",
    [LMO_NOT_HUGE_PAGES] = "huge_pages",
    [LMO_NOT_SPARE] = "spare",
    [LMO_NOT_NOWHERE] = "nowhere",
    [LMO_NOT_OVER] = "over",
};
_Static_assert(sizeof not_words / sizeof not_words[0] == LMO_NOT_COUNT, "a reason without a word");

const char *lmo_not_text(int v)
{
    return v < 0 || v >= LMO_NOT_COUNT ? NULL : not_words[v];
}

int lmo_not_from_text(const char *text)
{
    for (int i = 0; i < LMO_NOT_COUNT; i++) {
        if (strcmp(not_words[i], text) == 0) {
            return i;
        }
    }
    return -1;
}

/* Of several hosts: "3 hosts ...". */
static const char *summary_of(enum lmo_not why)
{
    static const char *const words[LMO_NOT_COUNT] = {
        [LMO_NOT_HERE] = "run it already",
        [LMO_NOT_DOWN] = "down",
        [LMO_NOT_CORDONED] = "cordoned",
        [LMO_NOT_DRAINING] = "draining",
        [LMO_NOT_AVOIDED] = "refused it before",
        [LMO_NOT_LINK] = "without the migration link",
        [LMO_NOT_SLOTS] = "take no migrations",
        [LMO_NOT_CPU] = "have a CPU that it does not run on",
        [LMO_NOT_CPU_UNKNOWN] = "have a CPU that was not compared yet",
        [LMO_NOT_MACHINE] = "lack its machine type",
        [LMO_NOT_SERVICE] = "do not reach its volumes",
        [LMO_NOT_FABRIC] = "do not reach its network",
        [LMO_NOT_LABEL] = "lack a label that it requires",
        [LMO_NOT_ANTI_AFFINITY] = "run a guest that it has to be apart from",
        [LMO_NOT_AFFINITY] = "would part it from its affinity group",
        [LMO_NOT_MEMORY_UNKNOWN] = "do not tell their memory",
        [LMO_NOT_MEMORY] = "lack memory",
        [LMO_NOT_HUGE_PAGES] = "lack huge pages",
        [LMO_NOT_SPARE] = "would leave no room for the guests of a host that fails",
    };
    return words[why] ? words[why] : "not possible";
}

const char *lmo_way_text(int v)
{
    static const char *const words[] = {"none", "live", "offline", "block"};
    return v < 0 || v > LMO_WAY_BLOCK ? NULL : words[v];
}

const char *lmo_score_part_text(int v)
{
    static const char *const words[LMO_SCORE_PARTS] = {"anti_affinity", "affinity", "bytes", "balance", "spread"};
    return v < 0 || v >= LMO_SCORE_PARTS ? NULL : words[v];
}

/* "4.0 GiB", "512 MiB". */
static const char *amount(int64_t bytes, char *ret, size_t size)
{
    int64_t mib = bytes / (1 << 20);
    if (mib >= 1024 || mib <= -1024) {
        (void)snprintf(ret, size, "%" PRId64 ".%" PRId64 " GiB", mib / 1024, (mib < 0 ? -mib : mib) % 1024 * 10 / 1024);
    } else {
        (void)snprintf(ret, size, "%" PRId64 " MiB", mib);
    }
    return ret;
}

/* ------------------------------------------------------------------ how a guest moves */

static enum lmo_way not_at_all(enum lmo_not why, enum lmo_not *ret_why, char *text, size_t size, const char *first,
                               const char *second)
{
    if (ret_why) {
        *ret_why = why;
    }
    if (text && size) {
        (void)snprintf(text, size, "%s%s", first, second ? second : "");
    }
    return LMO_WAY_NONE;
}

static const char *blocker_of(const struct lmo_fleet_guest *g)
{
    return g->blocker_text && g->blocker_text[0]  ? g->blocker_text
           : g->blockers & LMO_BLOCKER_DEVICE     ? "a device of its host was passed through to it"
           : g->blockers & LMO_BLOCKER_LOCAL_DISK ? "it has a disk that only its host has"
           : g->blockers & LMO_BLOCKER_HOST_BOUND ? "a part of it exists on its host only"
                                                  : "the hypervisor refuses to move it";
}

enum lmo_way lmo_place_way_of(const struct lmo_fleet_guest *g, bool migrating, enum lmo_not *ret_why, char *text,
                              size_t size)
{
    bool shut_off = g->state == LMO_RUN_SHUT_OFF;
    if (ret_why) {
        *ret_why = LMO_NOT_REJECTED;
    }
    if (text && size) {
        text[0] = '\0';
    }
    if (migrating) {
        return not_at_all(LMO_NOT_MIGRATING, ret_why, text, size, "a migration of it is under way", NULL);
    }
    if (g->leased) {
        return not_at_all(LMO_NOT_LEASED, ret_why, text, size,
                          "leased, it is not to be moved: ", g->lease_text ? g->lease_text : "no reason given");
    }
    if (!shut_off && g->state != LMO_RUN_RUNNING && g->state != LMO_RUN_PAUSED_BY_USER) {
        return not_at_all(LMO_NOT_STATE, ret_why, text, size,
                          "neither running, nor paused by its owner, nor shut off, but ", lmo_run_state_name(g->state));
    }
    if (g->blockers == 0) {
        return shut_off ? LMO_WAY_OFFLINE : LMO_WAY_LIVE;
    }
    bool disks = (g->blockers & LMO_BLOCKER_LOCAL_DISK) != 0, only_disks = g->blockers == LMO_BLOCKER_LOCAL_DISK;
    if (shut_off && !disks && g->unmovable == LMO_UNMOVABLE_OFFLINE) {
        return LMO_WAY_OFFLINE;
    }
    if (!shut_off && only_disks && g->unmovable == LMO_UNMOVABLE_BLOCK) {
        return LMO_WAY_BLOCK;
    }
    return not_at_all(LMO_NOT_BLOCKED, ret_why, text, size, blocker_of(g),
                      !shut_off && g->unmovable == LMO_UNMOVABLE_OFFLINE ? "; it can be moved when it is shut off"
                                                                         : NULL);
}

enum lmo_way lmo_place_way(const struct lmo_fleet *f, uint32_t guest, enum lmo_not *ret_why, char *text, size_t size)
{
    bool migrating = false;
    for (uint32_t m = 0; m < f->move_count && !migrating; m++) {
        migrating = f->moves[m].guest == guest;
    }
    return lmo_place_way_of(&f->guests[guest], migrating, ret_why, text, size);
}

/* ------------------------------------------------------------------ one host */

size_t lmo_place_scratch(const struct lmo_fleet *f)
{
    struct place_arena counting = {0};
    (void)place_lay_out(f, 0, &counting);
    return counting.used;
}

struct lmo_place *lmo_place_begin(const struct lmo_fleet *f, const struct lmo_place_options *o, void *scratch)
{
    struct place_arena arena = {.at = scratch};
    lmo_assert(scratch && !lmo_fleet_wrong(f));
    struct lmo_place *p = place_lay_out(f, 0, &arena);
    place_fill(p, o->spare_hosts, NULL, 0);
    for (uint32_t n = 0; n < o->avoid_count; n++) {
        lmo_assert(o->avoid[n] < f->host_count);
        p->avoided[o->avoid[n]] = true;
    }
    return p;
}

static void name_of(const struct lmo_fleet_names *n, uint32_t which, char *ret, size_t size)
{
    if (which < n->count && n->names[which]) {
        (void)snprintf(ret, size, "%s", n->names[which]);
    } else {
        (void)snprintf(ret, size, "number %u", which);
    }
}

static void lacking_text(const char *host, const char *what, const struct lmo_set *needs, const struct lmo_set *offers,
                         const struct lmo_fleet_names *names, char *ret)
{
    char name[128];
    name_of(names, lmo_set_lacks(needs, offers), name, sizeof name);
    (void)snprintf(ret, LMO_TEXT_MAX, "%s: %s %s", host, what, name);
}

/* A fellow of the kind that is in the way there, and its group. */
static void group_text(const struct lmo_place *p, uint32_t guest, uint32_t host, enum lmo_not why, char *ret)
{
    const struct lmo_fleet *f = p->f;
    const struct lmo_fleet_guest *g = &f->guests[guest];
    enum lmo_group_kind kind = why == LMO_NOT_ANTI_AFFINITY ? LMO_GROUP_APART : LMO_GROUP_TOGETHER;
    for (uint32_t n = 0; n < g->group_count; n++) {
        const struct lmo_fleet_group *group = &f->groups[g->groups[n]];
        for (uint32_t m = p->group_first[g->groups[n]];
             group->hard && group->kind == kind && m < p->group_first[g->groups[n] + 1]; m++) {
            uint32_t fellow = p->members[m];
            bool there = p->where[fellow] == host || p->going[fellow] == host;
            if (fellow == guest || (kind == LMO_GROUP_APART && !there)) {
                continue;
            }
            const char *here = f->hosts[host].name, *who = f->guests[fellow].name;
            if (kind == LMO_GROUP_APART) {
                (void)snprintf(ret, LMO_TEXT_MAX, "%s: %s is there, and guests of group %s are to be apart", here, who,
                               group->name);
            } else if (p->must_total) {
                (void)snprintf(ret, LMO_TEXT_MAX, "%s: guests of group %s stay together, and %s is on %s", here,
                               group->name, who, f->hosts[p->where[fellow]].name);
            } else {
                (void)snprintf(ret, LMO_TEXT_MAX, "%s: has no room for %s too, and guests of group %s stay together",
                               here, who, group->name);
            }
            return;
        }
    }
}

static void memory_text(const struct lmo_place *p, uint32_t guest, uint32_t host, uint32_t pool, char *ret)
{
    char needs[32], is_free[32], keep[32], page[32] = "";
    const struct lmo_fleet_host *h = &p->f->hosts[host];
    int64_t room = place_room(p, host)[pool];
    if (pool) {
        (void)snprintf(page, sizeof page, " of %" PRIu64 " KiB pages", p->f->page_bytes[pool] >> 10);
    }
    (void)snprintf(ret, LMO_TEXT_MAX, "%s: needs %s%s, %s free after %s is kept", h->name,
                   amount(place_need(&p->f->guests[guest], pool), needs, sizeof needs), page,
                   amount(room > 0 ? room : 0, is_free, sizeof is_free),
                   amount((int64_t)h->pools[pool].keep_bytes, keep, sizeof keep));
}

static void spare_text(const struct lmo_place *p, const char *host, char *ret, size_t size)
{
    char needs[32];
    if (p->stuck_guest == LMO_NONE) {
        (void)snprintf(ret, size, "%s: the guests of a host that fails would find no place", host);
        return;
    }
    const struct lmo_fleet_guest *g = &p->f->guests[p->stuck_guest];
    (void)snprintf(ret, size, "%s: if %s failed then, its guest %s (%s) would find no place", host,
                   p->f->hosts[p->stuck_host].name, g->name,
                   amount((int64_t)(g->memory_bytes + g->huge_bytes), needs, sizeof needs));
}

static void cpu_text(const struct lmo_fleet_host *h, const char *verdict, char *ret)
{
    (void)snprintf(ret, LMO_TEXT_MAX, "%s: %s", h->name, verdict);
}

static void reject_text(const struct lmo_place *p, uint32_t guest, uint32_t host, enum lmo_not why, char *ret)
{
    const struct lmo_fleet *f = p->f;
    const struct lmo_fleet_guest *g = &f->guests[guest];
    const struct lmo_fleet_host *h = &f->hosts[host];
    char name[128];
    switch ((int)why) {
    case LMO_NOT_CPU: cpu_text(h, "its CPU lacks what the guest's CPU needs", ret); break;
    case LMO_NOT_CPU_UNKNOWN: cpu_text(h, "its CPU has not been compared with the guest's yet", ret); break;
    case LMO_NOT_MACHINE:
        name_of(&f->machines, g->machine, name, sizeof name);
        (void)snprintf(ret, LMO_TEXT_MAX, "%s: its hypervisor does not know machine type %s", h->name, name);
        break;
    case LMO_NOT_SERVICE:
        lacking_text(h->name, "does not reach volume service", &g->services, &h->services, &f->services, ret);
        break;
    case LMO_NOT_FABRIC:
        lacking_text(h->name, "is not part of fabric", &g->fabrics, &h->fabrics, &f->fabrics, ret);
        break;
    case LMO_NOT_LABEL: lacking_text(h->name, "lacks label", &g->labels, &h->labels, &f->labels, ret); break;
    case LMO_NOT_ANTI_AFFINITY:
    case LMO_NOT_AFFINITY: group_text(p, guest, host, why, ret); break;
    case LMO_NOT_MEMORY: memory_text(p, guest, host, 0, ret); break;
    case LMO_NOT_HUGE_PAGES: memory_text(p, guest, host, g->huge_pool, ret); break;
    case LMO_NOT_SPARE: spare_text(p, h->name, ret, LMO_TEXT_MAX); break;
    case LMO_NOT_HERE: (void)snprintf(ret, LMO_TEXT_MAX, "%s: the guest is there already", h->name); break;
    case LMO_NOT_DOWN: (void)snprintf(ret, LMO_TEXT_MAX, "%s: down, its worker does not answer", h->name); break;
    case LMO_NOT_AVOIDED: (void)snprintf(ret, LMO_TEXT_MAX, "%s: it refused this guest before", h->name); break;
    case LMO_NOT_LINK: (void)snprintf(ret, LMO_TEXT_MAX, "%s: has no link '%s'", h->name, f->limits->link); break;
    case LMO_NOT_SLOTS: (void)snprintf(ret, LMO_TEXT_MAX, "%s: its max_incoming is 0", h->name); break;
    case LMO_NOT_MEMORY_UNKNOWN:
        (void)snprintf(ret, LMO_TEXT_MAX, "%s: its worker does not tell its memory", h->name);
        break;
    default: (void)snprintf(ret, LMO_TEXT_MAX, "%s: %s", h->name, lmo_not_text((int)why)); break;
    }
}

/* Can it go there, N+1 included? The guest is prepared, and is again when this returns. */
static enum lmo_not judge(struct lmo_place *p, uint32_t host)
{
    uint32_t guest = p->prepared, from = p->where[guest];
    enum lmo_not why = place_filter(p, host);
    if (why != LMO_NOT_REJECTED || p->spare == 0) {
        return why;
    }
    place_forget(p);
    bool good = place_try(p, guest, host);
    if (good) {
        place_back(p, guest, from);
    }
    place_prepare(p, guest);
    return good ? LMO_NOT_REJECTED : LMO_NOT_SPARE;
}

static void describe(struct lmo_place *p, uint32_t host, enum lmo_not why, struct lmo_verdict *ret)
{
    *ret = (struct lmo_verdict){.host = host, .why = why};
    if (why != LMO_NOT_REJECTED) {
        reject_text(p, p->prepared, host, why, ret->text);
        return;
    }
    char left[32];
    ret->score = place_score(p, host, 0, ret->parts);
    (void)snprintf(ret->text, sizeof ret->text, "%s: can take it, %s of memory free then", p->f->hosts[host].name,
                   amount(place_room(p, host)[0] - (int64_t)p->f->guests[p->prepared].memory_bytes, left, sizeof left));
}

void lmo_place_judge(struct lmo_place *p, uint32_t guest, uint32_t host, struct lmo_verdict *ret)
{
    lmo_assert(guest < p->f->guest_count && host < p->f->host_count);
    place_prepare(p, guest);
    describe(p, host, judge(p, host), ret);
    place_forget(p);
}

/* ------------------------------------------------------------------ all hosts */

struct in_order {
    const struct lmo_place *p;
    const struct lmo_verdict *verdicts;
};

static bool better(const struct lmo_place *p, const struct lmo_verdict *a, const struct lmo_verdict *b)
{
    bool a_good = a->why == LMO_NOT_REJECTED, b_good = b->why == LMO_NOT_REJECTED;
    if (a_good != b_good) {
        return a_good;
    }
    return a->score != b->score ? a->score > b->score : p->rank[a->host] < p->rank[b->host];
}

/* Heap sort of the verdicts themselves: they are the caller's, and there is no room for a second copy. */
static void sift_verdicts(const struct lmo_place *p, struct lmo_verdict *v, uint32_t at, uint32_t count)
{
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && better(p, &v[child], &v[child + 1])) {
            child++;
        }
        if (!better(p, &v[at], &v[child])) {
            return;
        }
        struct lmo_verdict t = v[at];
        v[at] = v[child];
        v[child] = t;
    }
}

void lmo_place_explain(struct lmo_place *p, uint32_t guest, struct lmo_verdict *ret)
{
    uint32_t count = p->f->host_count;
    for (uint32_t h = 0; h < count; h++) {
        lmo_place_judge(p, guest, h, &ret[h]);
    }
    for (uint32_t n = count / 2; n > 0; n--) {
        sift_verdicts(p, ret, n - 1, count);
    }
    for (uint32_t n = count; n > 1; n--) {
        struct lmo_verdict t = ret[n - 1];
        ret[n - 1] = ret[0];
        ret[0] = t;
        sift_verdicts(p, ret, 0, n - 1);
    }
}

void place_nowhere(const uint32_t counts[LMO_NOT_COUNT], char *text, size_t size)
{
    uint32_t shown[REASONS_SHOWN] = {0};
    size_t used = (size_t)snprintf(text, size, "no host can take it");
    for (unsigned n = 0; n < REASONS_SHOWN; n++) {
        uint32_t most = 0;
        for (uint32_t why = 1; why < LMO_NOT_COUNT; why++) {
            bool told = why == LMO_NOT_HERE;
            for (unsigned m = 0; m < n; m++) {
                told = told || shown[m] == why;
            }
            most = !told && counts[why] > counts[most] ? why : most;
        }
        if (most == 0 || used >= size) {
            break;
        }
        shown[n] = most;
        used += (size_t)snprintf(text + used, size - used, "%s %u %s", n ? "," : ":", counts[most],
                                 summary_of((enum lmo_not)most));
    }
}

uint32_t lmo_place_best(struct lmo_place *p, uint32_t guest, struct lmo_verdict *ret)
{
    struct lmo_verdict best = {.host = LMO_NONE, .why = LMO_NOT_NOWHERE};
    uint32_t counts[LMO_NOT_COUNT] = {0};
    lmo_assert(guest < p->f->guest_count);
    place_prepare(p, guest);
    for (uint32_t h = 0; h < p->f->host_count; h++) {
        struct lmo_verdict v = {.host = h, .why = judge(p, h)};
        counts[v.why]++;
        v.score = v.why == LMO_NOT_REJECTED ? place_score(p, h, 0, NULL) : 0;
        if (v.why == LMO_NOT_REJECTED && (best.host == LMO_NONE || better(p, &v, &best))) {
            best = v;
        }
    }
    if (ret && best.host != LMO_NONE) {
        describe(p, best.host, LMO_NOT_REJECTED, ret);
    } else if (ret) {
        *ret = best;
        place_nowhere(counts, ret->text, sizeof ret->text);
    }
    place_forget(p);
    return best.host;
}

bool lmo_place_spare(struct lmo_place *p, char *text, size_t size)
{
    bool holds = place_spare_holds(p);
    if (text && size) {
        text[0] = '\0';
        if (!holds) {
            spare_text(p, "as things stand", text, size);
        }
    }
    return holds;
}
