/* resource.c - the resource journal's few rules; see resource.h. */
#include "core/resource.h"

#include "base/assert.h"
#include "core/migration.h"

#include <string.h>

static const struct row {
    const char *text;
    enum lmo_resource_scope scope;
    enum lmo_op_kind made_by, undone_by;
    enum lmo_resource_state afterwards;
} rows[LMO_RES_COUNT] = {[LMO_RES_NONE] = {"none", LMO_SCOPE_ONE, LMO_OP_NONE, LMO_OP_NONE, LMO_RES_ABSENT},
#define X(name, text, scope, made_by, undone_by, afterwards) \
    [LMO_RES_##name] = {text, LMO_SCOPE_##scope, LMO_OP_##made_by, LMO_OP_##undone_by, LMO_RES_##afterwards},
                         LMO_RESOURCES(X)
#undef X
};

_Static_assert(LMO_VOLUMES_MAX <= 16 && LMO_PORTS_MAX <= 16, "a bit of 16 per volume or port");

const char *lmo_resource_state_text(enum lmo_resource_state s)
{
    static const char *const texts[] = {"absent", "intended", "made", "undone", "kept", "spent"};
    return texts[s];
}

const char *lmo_resource_text(enum lmo_resource_kind k)
{
    return rows[k].text;
}

enum lmo_resource_kind lmo_resource_from_text(const char *text)
{
    for (int k = LMO_RES_NONE + 1; k < LMO_RES_COUNT; k++) {
        if (strcmp(rows[k].text, text) == 0) {
            return (enum lmo_resource_kind)k;
        }
    }
    return LMO_RES_NONE;
}

enum lmo_resource_scope lmo_resource_scope(enum lmo_resource_kind k)
{
    return rows[k].scope;
}

/* A worker's record is one, however many volumes or ports that worker serves: it goes by the first of them. */
static unsigned first_of_worker(const struct lmo_migration *m, enum lmo_resource_kind k, unsigned index)
{
    bool volumes = rows[k].scope == LMO_SCOPE_VOLUME_WORKER;
    if (!volumes && rows[k].scope != LMO_SCOPE_FABRIC) {
        return index;
    }
    const char *worker = volumes ? m->vm.volumes[index].worker : m->vm.ports[index].worker;
    for (unsigned i = 0; i < index; i++) {
        if (strcmp(volumes ? m->vm.volumes[i].worker : m->vm.ports[i].worker, worker) == 0) {
            return i;
        }
    }
    return index;
}

static const struct lmo_resource *find(const struct lmo_migration *m, enum lmo_resource_kind k)
{
    for (unsigned i = 0; i < m->resource_count; i++) {
        if (m->resources[i].kind == k) {
            return &m->resources[i];
        }
    }
    return NULL;
}

static struct lmo_resource *find_or_add(struct lmo_migration *m, enum lmo_resource_kind k)
{
    for (unsigned i = 0; i < m->resource_count; i++) {
        if (m->resources[i].kind == k) {
            return &m->resources[i];
        }
    }
    lmo_assert(m->resource_count < LMO_RESOURCES_MAX);
    struct lmo_resource *r = &m->resources[m->resource_count++];
    *r = (struct lmo_resource){.kind = k};
    return r;
}

static uint16_t bit_of(const struct lmo_migration *m, enum lmo_resource_kind k, unsigned index)
{
    return (uint16_t)(1U << first_of_worker(m, k, index));
}

void lmo_resource_intend(struct lmo_migration *m, enum lmo_op_kind op, unsigned index)
{
    for (int k = LMO_RES_NONE + 1; k < LMO_RES_COUNT; k++) {
        if (rows[k].made_by == op) {
            struct lmo_resource *r = find_or_add(m, (enum lmo_resource_kind)k);
            r->intended = (uint16_t)(r->intended | bit_of(m, r->kind, index));
        }
    }
}

void lmo_resource_settle(struct lmo_migration *m, enum lmo_op_kind op, unsigned index)
{
    for (unsigned i = 0; i < m->resource_count; i++) {
        struct lmo_resource *r = &m->resources[i];
        if (rows[r->kind].made_by == op) { /* only then `index` is one of this kind's */
            r->made = (uint16_t)(r->made | (bit_of(m, r->kind, index) & r->intended));
        }
        if (rows[r->kind].undone_by == op) {
            r->undone = (uint16_t)(r->undone | (bit_of(m, r->kind, index) & r->intended));
        }
    }
}

bool lmo_resource_owed(const struct lmo_migration *m, enum lmo_resource_kind k, unsigned index)
{
    const struct lmo_resource *r = find(m, k);
    return r && (r->intended & ~r->undone & bit_of(m, k, index)) != 0;
}

enum lmo_resource_state lmo_resource_state(const struct lmo_migration *m, enum lmo_resource_kind k, unsigned index)
{
    const struct lmo_resource *r = find(m, k);
    uint16_t bit = bit_of(m, k, index);
    if (!r || !(r->intended & bit)) {
        return LMO_RES_ABSENT;
    }
    if (r->undone & bit) {
        return LMO_RES_UNDONE;
    }
    if (m->cutover.resumed || m->cutover.defined) {
        return rows[k].afterwards;
    }
    return r->made & bit ? LMO_RES_MADE : LMO_RES_INTENDED;
}

const char *lmo_resource_host(const struct lmo_migration *m, enum lmo_resource_kind k, unsigned index)
{
    switch (lmo_op_info(rows[k].made_by)->role) {
    case LMO_OP_ROLE_SOURCE: return m->source;
    case LMO_OP_ROLE_DESTINATION: return m->destination;
    case LMO_OP_ROLE_VOLUME: return m->vm.volumes[index].worker;
    case LMO_OP_ROLE_FABRIC: return m->vm.ports[index].worker;
    case LMO_OP_ROLE_NONE: break;
    }
    lmo_unreachable("a resource of no role");
}

const char *lmo_resource_object(const struct lmo_migration *m, enum lmo_resource_kind k, unsigned index)
{
    switch (rows[k].scope) {
    case LMO_SCOPE_VOLUME: return m->vm.volumes[index].volume;
    case LMO_SCOPE_PORT: return m->vm.ports[index].id;
    case LMO_SCOPE_ONE:
    case LMO_SCOPE_VOLUME_WORKER:
    case LMO_SCOPE_FABRIC: break;
    }
    return "";
}

static unsigned count_of(const struct lmo_migration *m, enum lmo_resource_kind k)
{
    switch (rows[k].scope) {
    case LMO_SCOPE_VOLUME:
    case LMO_SCOPE_VOLUME_WORKER: return m->vm.volume_count;
    case LMO_SCOPE_PORT:
    case LMO_SCOPE_FABRIC: return m->vm.port_count;
    case LMO_SCOPE_ONE: break;
    }
    return 1;
}

void lmo_resources_derive(struct lmo_migration *m)
{
    for (int k = LMO_RES_NONE + 1; k < LMO_RES_COUNT; k++) {
        bool sent = lmo_migration_sent(m, rows[k].made_by);
        for (unsigned i = 0; sent && i < count_of(m, (enum lmo_resource_kind)k); i++) {
            lmo_resource_intend(m, rows[k].made_by, i);
        }
    }
}

const char *lmo_resources_broken(const struct lmo_migration *m)
{
    if (m->resource_count > LMO_RESOURCES_MAX) {
        return "more kinds of resources than there are";
    }
    for (unsigned i = 0; i < m->resource_count; i++) {
        const struct lmo_resource *r = &m->resources[i];
        if (r->kind <= LMO_RES_NONE || r->kind >= LMO_RES_COUNT || find(m, r->kind) != r) {
            return "a resource of no kind, or one kind twice";
        }
        if (r->intended >> count_of(m, r->kind)) {
            return "a resource of a volume or port that the guest does not have";
        }
        if ((r->made | r->undone) & ~r->intended) {
            return "R2: something was made or undone that was never intended";
        }
        if (m->phase == LMO_PHASE_ABORTED && (r->intended & ~r->undone)) {
            return "R3: aborted although something that it made was not undone";
        }
    }
    return NULL;
}
