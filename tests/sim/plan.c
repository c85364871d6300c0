/* plan.c - plans: made at random, read and written as JSON, told in words. */
#include "plan.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *fault_name(enum fault_kind k)
{
    static const char *const names[] = {
#define X(name, text) text,
        SIM_FAULTS(X)
#undef X
    };
    return k < FAULT_COUNT ? names[k] : "?";
}

enum fault_kind fault_from_name(const char *name)
{
    unsigned k = 0;
    while (k < FAULT_COUNT && strcmp(fault_name((enum fault_kind)k), name) != 0) {
        k++;
    }
    return (enum fault_kind)k;
}

/* ------------------------------------------------------------------ at random */

static void name_of(char ret[PLAN_NAME_MAX], const char *prefix, uint64_t n)
{
    snprintf(ret, PLAN_NAME_MAX, "%s%u", prefix, (unsigned)n);
}

static void random_guests(struct plan *p, struct sim_rng *r)
{
    p->guest_count = (unsigned)sim_between(r, 1, 4);
    for (unsigned i = 0; i < p->guest_count; i++) {
        struct plan_guest *g = &p->guests[i];
        name_of(g->name, "vm", i + 1);
        name_of(g->host, "hv", sim_between(r, 1, p->hypervisors));
        g->volumes = (unsigned)sim_between(r, 1, 2);
        g->ports = (unsigned)sim_between(r, 0, 2);
        g->memory_mib = UINT64_C(128) << sim_below(r, 5);
        g->dirty_mib_per_s = sim_chance(r, 300) ? 0 : sim_between(r, 1, 120);
        g->persistent = sim_chance(r, 700);
        g->owner_paused = sim_chance(r, 100);
        g->shut_off = !g->owner_paused && g->persistent && sim_chance(r, 150);
    }
}

/* There and back; now and then to where the guest most likely is already, or while it is being moved. */
static void random_requests(struct plan *p, struct sim_rng *r)
{
    unsigned at_host[PLAN_GUESTS_MAX];
    for (unsigned i = 0; i < p->guest_count; i++) {
        at_host[i] = (unsigned)(p->guests[i].host[2] - '0');
    }
    p->request_count = (unsigned)sim_between(r, 6, 14);
    uint64_t at = 2000;
    for (unsigned i = 0; i < p->request_count; i++) {
        struct plan_request *q = &p->requests[i];
        unsigned g = (unsigned)sim_below(r, p->guest_count), to = (unsigned)sim_between(r, 1, p->hypervisors);
        if (to == at_host[g] && sim_chance(r, 900)) {
            to = to % p->hypervisors + 1;
        }
        at_host[g] = to;
        q->at_ms = at;
        memcpy(q->guest, p->guests[g].name, sizeof q->guest);
        name_of(q->destination, "hv", to);
        q->cancel_after_ms = sim_chance(r, 150) ? sim_between(r, 1, 1500) : 0;
        q->convergence_ms = sim_chance(r, 200) ? sim_between(r, 3000, 30000) : 0;
        at += sim_chance(r, 250) ? sim_between(r, 0, 300) : sim_between(r, 500, 9000);
    }
}

static void random_process(const struct plan *p, struct sim_rng *r, char ret[PLAN_NAME_MAX])
{
    uint64_t n = sim_below(r, 10);
    if (n < 3) {
        snprintf(ret, PLAN_NAME_MAX, "lmod");
    } else if (n < 8) {
        name_of(ret, "hv", sim_between(r, 1, p->hypervisors));
    } else {
        name_of(ret, "st", sim_between(r, 1, p->storages));
    }
}

static void random_host(const struct plan *p, struct sim_rng *r, char ret[PLAN_NAME_MAX])
{
    if (sim_chance(r, 250)) {
        name_of(ret, "st", sim_between(r, 1, p->storages));
    } else {
        name_of(ret, "hv", sim_between(r, 1, p->hypervisors));
    }
}

static void random_point(struct plan_fault *f, struct sim_rng *r)
{
    static const enum sim_fate fates[SIM_POINT_COUNT][6] = {
        [SIM_POINT_SYNC] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER, SIM_FATE_FAIL},
        [SIM_POINT_CALL] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER, SIM_FATE_LOST, SIM_FATE_REPLY_LOST,
                            SIM_FATE_TWICE, SIM_FATE_LATE},
        [SIM_POINT_REPLY] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER},
        [SIM_POINT_SERVE] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER},
        [SIM_POINT_ANSWER] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER, SIM_FATE_LOST},
        [SIM_POINT_DRIVER] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER, SIM_FATE_LOST, SIM_FATE_REPLY_LOST,
                              SIM_FATE_LATE, SIM_FATE_FAIL},
        [SIM_POINT_EVENT] = {SIM_FATE_CRASH_BEFORE, SIM_FATE_CRASH_AFTER},
        [SIM_POINT_TURN] = {SIM_FATE_CRASH_BEFORE},
    };
    f->point = (enum sim_point)sim_below(r, SIM_POINT_TURN);
    do {
        f->fate = fates[f->point][sim_below(r, 6)];
    } while (f->fate == SIM_FATE_NONE);
    f->k = sim_between(r, 1, f->point == SIM_POINT_EVENT ? 30 : 250);
}

static void random_fault(const struct plan *p, enum plan_mode mode, struct plan_fault *f, struct sim_rng *r)
{
    const struct plan_request *near = &p->requests[sim_below(r, p->request_count)];
    unsigned n = (unsigned)sim_below(r, mode == PLAN_TWO ? 125 : mode == PLAN_HARD ? 110 : 100);
    f->kind = n < 24    ? FAULT_POINT
              : n < 42  ? FAULT_CRASH
              : n < 54  ? FAULT_CUT
              : n < 60  ? FAULT_LOSS
              : n < 64  ? FAULT_DELAY
              : n < 70  ? FAULT_SLEEP
              : n < 74  ? FAULT_DISK_FULL
              : n < 76  ? FAULT_DISK_BROKEN
              : n < 78  ? FAULT_DISK_SLOW
              : n < 83  ? FAULT_HANG
              : n < 87  ? FAULT_DOWN
              : n < 89  ? FAULT_CLOCK
              : n < 94  ? FAULT_FINISH_LOST
              : n < 95  ? FAULT_START
              : n < 97  ? FAULT_STREAM_CUT
              : n < 100 ? FAULT_REFUSE
              : n < 110 ? FAULT_COPY_DIES
                        : FAULT_TAKEOVER;
    f->at_ms = near->at_ms + sim_below(r, 3000);
    f->for_ms = sim_chance(r, 200) ? sim_between(r, 3000, 40000) : sim_between(r, 50, 3000);
    random_process(p, r, f->target);
    switch (f->kind) {
    case FAULT_CUT:
    case FAULT_LOSS:
    case FAULT_DELAY: do { random_process(p, r, f->other);
        } while (strcmp(f->other, f->target) == 0);
        f->value = f->kind == FAULT_LOSS ? (int64_t)sim_between(r, 20, 500) : (int64_t)sim_between(r, 5, 800);
        break;
    case FAULT_DISK_SLOW: f->value = (int64_t)sim_between(r, 5, 1500); break;
    case FAULT_CLOCK: f->value = (int64_t)sim_between(r, 0, 240000) - 120000; break;
    case FAULT_HANG:
    case FAULT_DOWN: random_host(p, r, f->target); break;
    case FAULT_STREAM_CUT:
    case FAULT_REFUSE: name_of(f->target, "hv", sim_between(r, 1, p->hypervisors)); break;
    case FAULT_FINISH_LOST:
        f->at_ms = near->at_ms > 0 ? near->at_ms - 1 : 0;
        memcpy(f->target, near->guest, sizeof f->target);
        break;
    case FAULT_START:
        f->at_ms = near->at_ms + sim_below(r, 400);
        memcpy(f->target, near->guest, sizeof f->target);
        break;
    case FAULT_TAKEOVER: snprintf(f->target, sizeof f->target, "lmod"); break;
    case FAULT_POINT: random_point(f, r); break;
    case FAULT_CRASH:
    case FAULT_SLEEP:
    case FAULT_DISK_FULL:
    case FAULT_DISK_BROKEN:
    case FAULT_COUNT: break;
    case FAULT_COPY_DIES:
        f->at_ms = near->at_ms > 0 ? near->at_ms - 1 : 0;
        f->value = (int64_t)sim_below(r, 8000);
        memcpy(f->target, near->guest, sizeof f->target);
        break;
    }
}

void plan_random(uint64_t seed, enum plan_mode mode, struct plan *ret)
{
    struct sim_rng r = sim_rng_new(seed, "plan");
    *ret = (struct plan){.seed = seed};
    ret->hypervisors = (unsigned)sim_between(&r, 2, 4);
    ret->storages = (unsigned)sim_between(&r, 1, 2);
    ret->fresh = sim_chance(&r, 125);
    if (sim_chance(&r, 300)) { /* so small that they queue */
        ret->max_migrations = (unsigned)sim_between(&r, 1, 2);
        ret->max_incoming = ret->max_outgoing = 1;
    }
    random_guests(ret, &r);
    random_requests(ret, &r);
    ret->fault_count = mode == PLAN_QUIET ? 0 : (unsigned)sim_between(&r, 1, 14);
    for (unsigned i = 0; i < ret->fault_count; i++) {
        random_fault(ret, mode, &ret->faults[i], &r);
    }
}

/* ------------------------------------------------------------------ JSON */

json_t *plan_to_json(const struct plan *p)
{
    json_t *guests = json_array(), *requests = json_array(), *faults = json_array();
    for (unsigned i = 0; i < p->guest_count; i++) {
        const struct plan_guest *g = &p->guests[i];
        json_array_append_new(guests,
                              json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:b,s:b,s:b}", "name", g->name, "host", g->host,
                                        "volumes", (json_int_t)g->volumes, "ports", (json_int_t)g->ports, "memory_mib",
                                        (json_int_t)g->memory_mib, "dirty_mib_per_s", (json_int_t)g->dirty_mib_per_s,
                                        "persistent", g->persistent, "owner_paused", g->owner_paused, "shut_off",
                                        g->shut_off));
    }
    for (unsigned i = 0; i < p->request_count; i++) {
        const struct plan_request *q = &p->requests[i];
        json_array_append_new(requests,
                              json_pack("{s:I,s:s,s:s,s:I,s:I,s:I}", "at_ms", (json_int_t)q->at_ms, "guest", q->guest,
                                        "destination", q->destination, "cancel_after_ms",
                                        (json_int_t)q->cancel_after_ms, "convergence_ms", (json_int_t)q->convergence_ms,
                                        "bandwidth_mib", (json_int_t)q->bandwidth_mib));
    }
    for (unsigned i = 0; i < p->fault_count; i++) {
        const struct plan_fault *f = &p->faults[i];
        json_t *j = json_pack("{s:s,s:I,s:I,s:s}", "kind", fault_name(f->kind), "at_ms", (json_int_t)f->at_ms, "for_ms",
                              (json_int_t)f->for_ms, "target", f->target);
        if (f->other[0]) {
            json_object_set_new(j, "other", json_string(f->other));
        }
        if (f->value) {
            json_object_set_new(j, "value", json_integer(f->value));
        }
        if (f->kind == FAULT_POINT) {
            json_object_set_new(j, "point", json_string(sim_point_name(f->point)));
            json_object_set_new(j, "k", json_integer((json_int_t)f->k));
            json_object_set_new(j, "fate", json_string(sim_fate_name(f->fate)));
        }
        json_array_append_new(faults, j);
    }
    return json_pack("{s:I,s:I,s:I,s:b,s:o,s:o,s:o}", "seed", (json_int_t)p->seed, "hypervisors",
                     (json_int_t)p->hypervisors, "storages", (json_int_t)p->storages, "fresh", p->fresh, "guests",
                     guests, "requests", requests, "faults", faults);
}

static int text_of(const json_t *j, const char *key, bool required, char ret[PLAN_NAME_MAX], struct lmo_err *err)
{
    return lmo_json_str(j, key, ret, PLAN_NAME_MAX, required, err);
}

static uint64_t number_of(const json_t *j, const char *key, uint64_t otherwise)
{
    const json_t *n = json_object_get(j, key);
    return json_is_integer(n) ? (uint64_t)json_integer_value(n) : otherwise;
}

static int read_guests(const json_t *array, struct plan *p, struct lmo_err *err)
{
    for (size_t i = 0; i < json_array_size(array) && i < PLAN_GUESTS_MAX; i++) {
        const json_t *j = json_array_get(array, i);
        struct plan_guest *g = &p->guests[p->guest_count++];
        g->volumes = (unsigned)number_of(j, "volumes", 1);
        g->ports = (unsigned)number_of(j, "ports", 1);
        g->memory_mib = number_of(j, "memory_mib", 256);
        g->dirty_mib_per_s = number_of(j, "dirty_mib_per_s", 10);
        g->persistent = !json_is_false(json_object_get(j, "persistent"));
        g->owner_paused = json_is_true(json_object_get(j, "owner_paused"));
        g->shut_off = json_is_true(json_object_get(j, "shut_off"));
        if (text_of(j, "name", true, g->name, err) < 0 || text_of(j, "host", true, g->host, err) < 0) {
            return lmo_err_prefix(err, "guests[%zu]", i);
        }
        if (g->volumes > 2 || g->ports > 2 || g->memory_mib < 1) {
            return lmo_fail(err, LMO_E_INVALID, "guests[%zu]: at most 2 volumes, 2 ports, at least 1 MiB", i);
        }
    }
    return 0;
}

static int read_requests(const json_t *array, struct plan *p, struct lmo_err *err)
{
    for (size_t i = 0; i < json_array_size(array) && i < PLAN_REQUESTS_MAX; i++) {
        const json_t *j = json_array_get(array, i);
        struct plan_request *q = &p->requests[p->request_count++];
        q->at_ms = number_of(j, "at_ms", 0);
        q->cancel_after_ms = number_of(j, "cancel_after_ms", 0);
        q->convergence_ms = number_of(j, "convergence_ms", 0);
        q->bandwidth_mib = number_of(j, "bandwidth_mib", 0);
        if (text_of(j, "guest", true, q->guest, err) < 0 || text_of(j, "destination", true, q->destination, err) < 0) {
            return lmo_err_prefix(err, "requests[%zu]", i);
        }
    }
    return 0;
}

static int read_fault(const json_t *j, struct plan_fault *f, struct lmo_err *err)
{
    char kind[PLAN_NAME_MAX] = "", point[PLAN_NAME_MAX] = "", fate[PLAN_NAME_MAX] = "";
    if (text_of(j, "kind", true, kind, err) < 0 || text_of(j, "target", true, f->target, err) < 0 ||
        text_of(j, "other", false, f->other, err) < 0 || text_of(j, "point", false, point, err) < 0 ||
        text_of(j, "fate", false, fate, err) < 0) {
        return err->code;
    }
    f->kind = fault_from_name(kind);
    if (f->kind == FAULT_COUNT) {
        return lmo_fail(err, LMO_E_INVALID, "kind: '%s' is no fault", kind);
    }
    f->at_ms = number_of(j, "at_ms", 0);
    f->for_ms = number_of(j, "for_ms", 1000);
    f->value = (int64_t)number_of(j, "value", 0);
    f->k = number_of(j, "k", 1);
    if (f->kind == FAULT_POINT) {
        f->point = sim_point_from_name(point);
        f->fate = sim_fate_from_name(fate);
        if (f->point == SIM_POINT_COUNT || f->fate == SIM_FATE_COUNT) {
            return lmo_fail(err, LMO_E_INVALID, "point '%s' or fate '%s' is not known", point, fate);
        }
    }
    return 0;
}

int plan_from_json(const json_t *json, struct plan *ret, struct lmo_err *err)
{
    static struct plan p;
    p = (struct plan){.seed = number_of(json, "seed", 1),
                      .hypervisors = (unsigned)number_of(json, "hypervisors", 2),
                      .storages = (unsigned)number_of(json, "storages", 1),
                      .fresh = json_is_true(json_object_get(json, "fresh")),
                      .max_migrations = (unsigned)number_of(json, "max_migrations", 0),
                      .max_incoming = (unsigned)number_of(json, "max_incoming", 0),
                      .max_outgoing = (unsigned)number_of(json, "max_outgoing", 0)};
    if (p.hypervisors < 1 || p.hypervisors > 4 || p.storages < 1 || p.storages > 2) {
        return lmo_fail(err, LMO_E_INVALID, "hypervisors: 1 to 4; storages: 1 or 2");
    }
    int r = read_guests(json_object_get(json, "guests"), &p, err);
    if (r == 0) {
        r = read_requests(json_object_get(json, "requests"), &p, err);
    }
    const json_t *faults = json_object_get(json, "faults");
    for (size_t i = 0; r == 0 && i < json_array_size(faults) && i < PLAN_FAULTS_MAX; i++) {
        r = read_fault(json_array_get(faults, i), &p.faults[p.fault_count++], err);
        if (r < 0) {
            return lmo_err_prefix(err, "faults[%zu]", i);
        }
    }
    if (r == 0) {
        *ret = p;
    }
    return r;
}

int plan_load(const char *path, struct plan *ret, struct lmo_err *err)
{
    json_error_t why;
    LMO_AUTO_JSON json_t *json = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    if (!json) {
        return lmo_fail(err, LMO_E_INVALID, "%s: line %d: %s", path, why.line, why.text);
    }
    int r = plan_from_json(json, ret, err);
    return r < 0 ? lmo_err_prefix(err, "%s", path) : 0;
}

/* ------------------------------------------------------------------ in words */

void plan_describe_fault(const struct plan_fault *f, char *ret, size_t size)
{
    if (f->kind == FAULT_POINT) {
        snprintf(ret, size, "%s: %s at %s %" PRIu64 " (down for about %" PRIu64 " ms if it dies)", f->target,
                 sim_fate_name(f->fate), sim_point_name(f->point), f->k, f->for_ms);
    } else {
        snprintf(ret, size, "%8.3f s  %s %s%s%s for %" PRIu64 " ms, value %" PRId64, (double)f->at_ms / 1000.0,
                 fault_name(f->kind), f->target, f->other[0] ? " -> " : "", f->other, f->for_ms, f->value);
    }
}

void plan_describe_request(const struct plan_request *r, char *ret, size_t size)
{
    int n = snprintf(ret, size, "%8.3f s  migrate %s to %s", (double)r->at_ms / 1000.0, r->guest, r->destination);
    if (r->cancel_after_ms && n > 0 && (size_t)n < size) {
        snprintf(ret + n, size - (size_t)n, ", cancelled %" PRIu64 " ms after it was accepted", r->cancel_after_ms);
    }
}
