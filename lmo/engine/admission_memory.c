/* admission_memory.c - what is known of hosts' free memory, and asking for it.
 *
 * Free memory of a destination is what its worker said last, and is asked for again when that is older than
 * LMO_MEMORY_FRESH_MS and somebody could start by it. Guests that have come since the question was sent are taken off by
 * hand (`landed`), until an answer to a later question has them in it. */
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"

#include <stdlib.h>
#include <string.h>

#define ASK_AGAIN_MS   1000
#define ASK_TIMEOUT_MS 5000

uint64_t engine_admission_keep_free(const struct lmo_engine *e, const struct host *h)
{
    return h->row.limits.given & LMO_HOST_LIMIT_KEEP_FREE ? h->row.limits.memory_keep_free_bytes
                                                          : e->admission.limits.memory_keep_free_bytes;
}

void engine_admission_fill_memory(const struct lmo_engine *e, const struct host *h, struct lmo_adm_host *to)
{
    bool known = h->facts.memory_total_bytes > 0;
    uint64_t off = engine_admission_keep_free(e, h) + h->landed_bytes[0], free_bytes = h->facts.memory_free_bytes;
    to->pool_known[0] = known;
    to->pool_bytes[0] = free_bytes > off ? free_bytes - off : 0;
    for (unsigned p = 1; p < LMO_POOLS_MAX; p++) {
        free_bytes = p <= h->facts.huge_page_count ? h->facts.huge_pages[p - 1].free_bytes : 0;
        to->pool_known[p] = known;
        to->pool_bytes[p] = free_bytes > h->landed_bytes[p] ? free_bytes - h->landed_bytes[p] : 0;
    }
}

/* Index of the pool with pages of that size; 0: it has none. */
uint8_t engine_admission_pool(const struct host *h, uint64_t page_bytes)
{
    for (unsigned p = 0; h && p < h->facts.huge_page_count; p++) {
        if (h->facts.huge_pages[p].size_bytes == page_bytes) {
            return (uint8_t)(p + 1);
        }
    }
    return 0;
}

/* The guest is there to stay, and what is known of the host's memory may be from before. */
void engine_admission_landed(struct entry *entry)
{
    struct lmo_engine *e = entry->engine;
    const struct lmo_adm_item *i = &e->admission.fleet.items[entry->item];
    struct host *h = engine_host(e, entry->destination);
    if (!h || entry->phase == LMO_PHASE_ABORTED) {
        return;
    }
    h->landed_bytes[0] += i->memory_bytes;
    if (i->huge_bytes) {
        h->landed_bytes[i->huge_pool] += i->huge_bytes;
    }
    engine_admission_fill_memory(e, h, &e->admission.fleet.hosts[h->slot]);
}

/* ------------------------------------------------------------------ asking for memory */

struct question {
    struct lmo_engine *engine;
    char host[LMO_NAME_MAX];
    uint64_t sent_ns;
};

static void on_answer(void *arg, int code, const char *text, const json_t *body)
{
    struct question q = *(struct question *)arg;
    struct lmo_engine *e = q.engine;
    struct host *h = e->stopping ? NULL : engine_host(e, q.host);
    struct lmo_host_facts facts;
    struct lmo_err err = {0};
    free(arg);
    if (!h) {
        return;
    }
    h->asking = false;
    if (code == 0 && lmo_host_facts_from_json(body, &facts, &err) == 0 && strcmp(facts.host, h->row.name) == 0) {
        h->facts = facts;
        h->facts_ns = q.sent_ns;
        for (unsigned p = 0; p < LMO_POOLS_MAX; p++) {
            h->landed_bytes[p] -= h->asked_landed[p];
        }
        engine_admission_host_changed(e, h);
        return;
    }
    lmo_log(LMO_LOG_WARN, "host did not tell its free memory", "host=%s why=%s", q.host, code ? text : err.text);
    h->ask_again_ns = lmo_now_ns() + ASK_AGAIN_MS * LMO_NS_PER_MS;
    engine_admission_look_again(e, ASK_AGAIN_MS);
}

void engine_admission_ask(struct lmo_engine *e, struct host *h)
{
    struct lmo_err err = {0};
    uint64_t now = lmo_now_ns();
    if (h->asking || now < h->ask_again_ns) {
        return;
    }
    struct question *q = calloc(1, sizeof *q);
    lmo_assert(q);
    *q = (struct question){.engine = e, .sent_ns = now};
    LMO_COPY(q->host, h->row.name);
    if (e->workers->ops->observe(e->workers, h->row.name, "/v1/observe/host", ASK_TIMEOUT_MS, on_answer, q, &err) < 0) {
        free(q);
        h->ask_again_ns = now + ASK_AGAIN_MS * LMO_NS_PER_MS;
        engine_admission_look_again(e, ASK_AGAIN_MS);
        return;
    }
    h->asking = true;
    memcpy(h->asked_landed, h->landed_bytes, sizeof h->asked_landed);
}

bool engine_admission_stale(const struct host *h, uint64_t now_ns)
{
    return h && h->facts.memory_total_bytes > 0 && now_ns - h->facts_ns > LMO_MEMORY_FRESH_MS * LMO_NS_PER_MS;
}

void engine_admission_prefetch(struct lmo_engine *e, struct host *h)
{
    if (h && h->up && engine_admission_stale(h, lmo_now_ns() + LMO_MEMORY_FRESH_MS / 2 * LMO_NS_PER_MS)) {
        engine_admission_ask(e, h);
    }
}

int engine_admission_possible(const struct lmo_engine *e, const struct host *source, const struct host *destination,
                              const struct lmo_vm_facts *vm, struct lmo_err *err)
{
    const struct lmo_limits *l = &e->admission.limits;
    const struct host *const both[] = {source, destination};
    for (unsigned i = 0; i < 2; i++) {
        if (!lmo_host_link(&both[i]->facts, l->link)) {
            return lmo_fail(
                err, LMO_E_REFUSED,
                "host %s has no link '%s', which guests' memory has to take: [link %s] in its worker's configuration",
                both[i]->row.name, l->link, l->link);
        }
    }
    const struct lmo_host_facts *f = &destination->facts;
    if (f->memory_total_bytes == 0) {
        return 0; /* it does not say */
    }
    uint8_t pool = vm->huge_page_bytes ? engine_admission_pool(destination, vm->huge_page_bytes) : 0;
    if (vm->huge_page_bytes && pool == 0) {
        return lmo_fail(err, LMO_E_REFUSED, "guest %s needs huge pages of %llu KiB, and host %s has none", vm->name,
                        (unsigned long long)(vm->huge_page_bytes >> 10), destination->row.name);
    }
    if (pool && vm->memory_bytes > f->huge_pages[pool - 1].total_bytes) {
        return lmo_fail(err, LMO_E_REFUSED, "guest %s needs %llu MiB of huge pages, and host %s has %llu MiB in all",
                        vm->name, (unsigned long long)(vm->memory_bytes >> 20), destination->row.name,
                        (unsigned long long)(f->huge_pages[pool - 1].total_bytes >> 20));
    }
    uint64_t needed = lmo_memory_needed(l, vm->memory_bytes, pool != 0),
             keep = engine_admission_keep_free(e, destination);
    if (f->memory_total_bytes < keep || needed > f->memory_total_bytes - keep) {
        return lmo_fail(err, LMO_E_REFUSED,
                        "guest %s needs %llu MiB, and host %s has %llu MiB in all, of which %llu are to be kept free",
                        vm->name, (unsigned long long)(needed >> 20), destination->row.name,
                        (unsigned long long)(f->memory_total_bytes >> 20), (unsigned long long)(keep >> 20));
    }
    return 0;
}
