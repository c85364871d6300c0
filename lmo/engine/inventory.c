/* inventory.c - hosts, and guests as the hosts show them: always asked, never remembered. */
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/internal.h"
#include "proto/codec.h"
#include "proto/vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>


json_t *engine_host_json(const struct lmo_engine *e, const struct host *h)
{
    json_t *j = json_object();
    int r = lmo_json_put_str(j, "name", h->row.name);
    r |= lmo_json_put_str(j, "url", h->row.url);
    r |= lmo_json_put_str(j, "state", !h->known ? "unknown" : h->up ? "up" : "down");
    r |= lmo_json_put_i64(j, "since_ms", h->since_ms);
    r |= lmo_json_put(j, "capabilities", h->facts.host[0] ? lmo_host_facts_to_json(&h->facts) : json_null());
    json_t *breaker = json_object();
    r |= lmo_json_put_str(breaker, "state", lmo_breaker_state_text(h->breaker.state));
    r |= lmo_json_put_u64(breaker, "failures", h->breaker.failures);
    r |= lmo_json_put_u64(breaker, "held_calls", h->held_count);
    r |= lmo_json_put(breaker, "until_ms", h->breaker.state == LMO_BREAKER_OPEN ? json_integer(h->breaker.until_ms) : json_null());
    r |= lmo_json_put(j, "breaker", breaker);
    json_t *error = h->last_error[0] ? lmo_codec_string(h->last_error, sizeof h->last_error - 1) : json_null();
    r |= lmo_json_put(j, "last_error", error);
    r |= engine_admission_host_json(e, h, j);
    if (r) {
        json_decref(j);
        return NULL;
    }
    return j;
}

/* ------------------------------------------------------------------ one guest, asked of every host */

struct find {
    engine_found_fn *fn;
    void *arg;
    unsigned pending;
    struct found_vm found;
};

struct find_call {
    struct find *find;
    struct lmo_engine *engine;
    char host[LMO_NAME_MAX];
};

static void find_done(struct find *f)
{
    if (--f->pending == 0) {
        f->fn(f->arg, &f->found);
        free(f);
    }
}

static void on_found(void *arg, int code, const char *text, const json_t *body)
{
    struct find_call *c = arg;
    struct find *f = c->find;
    struct lmo_err err = {0};
    static struct lmo_vm_facts facts; /* the loop thread's scratch */
    if (code == 0 && lmo_vm_facts_from_json(body, &facts, &err) == 0) {
        f->found.count++;
        if (f->found.count == 1) {
            f->found.facts = facts;
            LMO_COPY(f->found.host, c->host);
        } else if (f->found.count == 2) {
            LMO_COPY(f->found.other, c->host);
        }
    } else if (code != LMO_E_NOT_FOUND) {
        lmo_log(LMO_LOG_WARN, "host did not say whether it has the guest", "host=%s why=%s", c->host,
                code ? text : err.text);
        f->found.unreachable++;
        LMO_COPY(f->found.unreachable_host, c->host);
    }
    free(c);
    find_done(f);
}

/* `only`: this host; NULL: all that may run guests. */
static int find_vm(struct lmo_engine *e, const char *vm, const struct host *only, engine_found_fn *fn, void *arg,
                   struct lmo_err *err)
{
    struct find *f = calloc(1, sizeof *f);
    if (!f) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory to look for guest %s", vm);
    }
    f->fn = fn;
    f->arg = arg;
    f->pending = 1; /* ours, until all are asked */
    char path[64 + LMO_NAME_MAX];
    (void)snprintf(path, sizeof path, "/v1/observe/vm/%s", vm);
    for (struct host *h = e->hosts; h; h = h->hh.next) {
        bool hypervisor = !h->facts.host[0] || h->facts.hypervisor[0]; /* never heard of: it may have one */
        if (!hypervisor || (only && h != only)) {
            continue;
        }
        struct find_call *c = h->up ? calloc(1, sizeof *c) : NULL;
        struct lmo_err ignored = {0};
        if (c) {
            c->find = f;
            c->engine = e;
            LMO_COPY(c->host, h->row.name);
        }
        f->pending++;
        if (!c || e->workers->ops->observe(e->workers, h->row.name, path, LMO_OBSERVE_TIMEOUT_MS, on_found, c, &ignored) < 0) {
            free(c);
            f->pending--;
            f->found.unreachable++;
            LMO_COPY(f->found.unreachable_host, h->row.name);
        }
    }
    find_done(f);
    return 0;
}

int engine_find_vm(struct lmo_engine *e, const char *vm, engine_found_fn *fn, void *arg, struct lmo_err *err)
{
    return find_vm(e, vm, NULL, fn, arg, err);
}

int engine_find_vm_at(struct lmo_engine *e, const char *vm, const char *host, engine_found_fn *fn, void *arg,
                      struct lmo_err *err)
{
    const struct host *only = engine_host(e, host);
    return only ? find_vm(e, vm, only, fn, arg, err)
                : lmo_fail(err, LMO_E_NOT_FOUND, "host %s is not registered", host);
}

/* ------------------------------------------------------------------ all guests */

struct vm_list {
    struct lmo_engine *engine;
    lmo_engine_reply_fn *fn;
    void *arg;
    struct lmo_page page;
    char state[32]; /* empty: any */
    unsigned pending;
    json_t *vms, *unreachable;
};

struct vm_list_call {
    struct vm_list *list;
    char host[LMO_NAME_MAX];
};

#define VM_POSITION_MAX (LMO_UUID_MAX + LMO_NAME_MAX)

/* A guest's place in the list: its UUID, and the host, as it may be on two. */
static void vm_position(const json_t *vm, char ret[VM_POSITION_MAX])
{
    (void)snprintf(ret, VM_POSITION_MAX, "%s %s", json_string_value(json_object_get(vm, "uuid")),
                   json_string_value(json_object_get(vm, "host")));
}

static int by_position(const void *a, const void *b)
{
    const json_t *const *x = a, *const *y = b;
    char first[VM_POSITION_MAX], second[VM_POSITION_MAX];
    vm_position(*x, first);
    vm_position(*y, second);
    return strcmp(first, second);
}

/* Those of the page, in order; *ret_next (empty: the last page) is where it ends. NULL without memory. */
static json_t *cut_page(const struct vm_list *l, char ret_next[VM_POSITION_MAX])
{
    size_t i, n = json_array_size(l->vms);
    json_t *vm, *page = json_array();
    LMO_AUTO_FREE json_t **sorted = calloc(n + 1, sizeof *sorted);
    int r = page && sorted ? 0 : LMO_E_NO_MEMORY;
    ret_next[0] = '\0';
    json_array_foreach(l->vms, i, vm)
    {
        if (sorted) {
            sorted[i] = vm;
        }
    }
    if (r == 0) {
        qsort(sorted, n, sizeof(json_t *), by_position);
    }
    for (i = 0; r == 0 && i < n; i++) {
        char at[VM_POSITION_MAX];
        vm_position(sorted[i], at);
        if (strcmp(at, l->page.after) <= 0) {
            continue;
        }
        if (json_array_size(page) == l->page.limit) {
            vm_position(sorted[i - 1], ret_next);
            break;
        }
        r = lmo_json_add(page, json_incref(sorted[i]));
    }
    if (r < 0) {
        json_decref(page);
        return NULL;
    }
    return page;
}

static void vm_list_done(struct vm_list *l)
{
    char next[VM_POSITION_MAX];
    if (--l->pending > 0) {
        return;
    }
    json_t *body = json_object();
    int r = lmo_json_put(body, "vms", cut_page(l, next));
    r |= lmo_json_put(body, "hosts_unreachable", l->unreachable);
    r |= lmo_page_put_next(body, &l->page, next[0] ? next : NULL);
    json_decref(l->vms);
    if (r) {
        json_decref(body);
        engine_reply_fail(l->fn, l->arg, LMO_E_NO_MEMORY, "", "no memory for the list of guests");
    } else {
        engine_reply_ok(l->fn, l->arg, 200, body, "");
    }
    free(l);
}

static void add_vm(struct vm_list *l, const char *host, const json_t *item)
{
    static struct lmo_vm_facts vm;
    struct lmo_err err = {0};
    memset(&vm, 0, sizeof vm);
    if (lmo_vm_facts_from_json(item, &vm, &err) < 0) {
        lmo_log(LMO_LOG_WARN, "host shows a guest that cannot be read", "host=%s why=%s", host, err.text);
        return;
    }
    if (l->state[0] && strcmp(l->state, lmo_run_state_name(vm.state)) != 0) {
        return;
    }
    const struct entry *open = engine_entry_of_vm(l->engine, vm.uuid);
    json_t *j = json_object();
    int r = lmo_json_put_str(j, "uuid", vm.uuid);
    r |= lmo_json_put_str(j, "name", vm.name);
    r |= lmo_json_put_str(j, "host", host);
    r |= lmo_json_put_str(j, "state", lmo_run_state_name(vm.state));
    r |= lmo_json_put_u64(j, "memory_bytes", vm.memory_bytes);
    r |= lmo_json_put_u64(j, "vcpus", vm.vcpus);
    r |= lmo_json_put_u64(j, "volumes", vm.volume_count);
    r |= lmo_json_put_u64(j, "ports", vm.port_count);
    r |= lmo_json_put(j, "blocker", vm.blocker[0] ? json_string(vm.blocker) : json_null());
    r |= lmo_json_put(j, "migration", open ? json_string(open->id) : json_null());
    if (r) {
        json_decref(j);
    } else {
        (void)lmo_json_add(l->vms, j);
    }
}

static void on_vms(void *arg, int code, const char *text, const json_t *body)
{
    struct vm_list_call *c = arg;
    struct vm_list *l = c->list;
    const json_t *vms = NULL;
    struct lmo_err err = {0};
    if (code == 0 && lmo_json_array(body, "vms", 10000, &vms, true, &err) == 0) {
        for (size_t i = 0; i < json_array_size(vms); i++) {
            add_vm(l, c->host, json_array_get(vms, i));
        }
    } else {
        lmo_log(LMO_LOG_WARN, "host did not show its guests", "host=%s why=%s", c->host, code ? text : err.text);
        (void)lmo_json_add(l->unreachable, json_string(c->host));
    }
    free(c);
    vm_list_done(l);
}

void engine_vm_list(struct request *q)
{
    struct lmo_engine *e = q->engine;
    struct vm_list *l = calloc(1, sizeof *l);
    if (!l) {
        engine_reply_fail(q->fn, q->arg, LMO_E_NO_MEMORY, "", "no memory for the list of guests");
        return;
    }
    if (q->name[0] && !engine_host(e, q->name)) {
        engine_reply_fail(q->fn, q->arg, LMO_E_NOT_FOUND, "host", "host %s is not registered", q->name);
        free(l);
        return;
    }
    *l = (struct vm_list){.engine = e, .fn = q->fn, .arg = q->arg, .page = q->page, .pending = 1, .vms = json_array(),
                          .unreachable = json_array()};
    LMO_COPY(l->state, q->phase);
    for (struct host *h = e->hosts; h; h = h->hh.next) {
        if ((h->facts.host[0] && !h->facts.hypervisor[0]) || (q->name[0] && strcmp(q->name, h->row.name) != 0)) {
            continue;
        }
        struct vm_list_call *c = h->up ? calloc(1, sizeof *c) : NULL;
        struct lmo_err ignored = {0};
        if (c) {
            c->list = l;
            LMO_COPY(c->host, h->row.name);
        }
        l->pending++;
        if (!c || e->workers->ops->observe(e->workers, h->row.name, "/v1/observe/vms", LMO_OBSERVE_TIMEOUT_MS, on_vms, c,
                                           &ignored) < 0) {
            free(c);
            l->pending--;
            (void)lmo_json_add(l->unreachable, json_string(h->row.name));
        }
    }
    vm_list_done(l);
}

/* ------------------------------------------------------------------ GET /v1/vms/{vm} */

struct vm_get {
    struct lmo_engine *engine;
    char vm[LMO_NAME_MAX];
    lmo_engine_reply_fn *fn;
    void *arg;
};

static void on_vm_get(void *arg, const struct found_vm *found)
{
    struct vm_get *g = arg;
    if (found->count == 0 && found->unreachable > 0) {
        engine_reply_fail(g->fn, g->arg, LMO_E_UNAVAILABLE, "vm",
                          "guest %s: on none of the hosts that answered; %u did not, %s among them", g->vm,
                          found->unreachable, found->unreachable_host);
    } else if (found->count == 0) {
        engine_reply_fail(g->fn, g->arg, LMO_E_NOT_FOUND, "vm", "guest %s: no host has it", g->vm);
    } else {
        json_t *j = lmo_vm_facts_to_json(&found->facts);
        int r = lmo_json_put_str(j, "host", found->host);
        const struct entry *open = engine_entry_of_vm(g->engine, found->facts.uuid);
        r |= lmo_json_put(j, "migration", open ? json_string(open->id) : json_null());
        r |= lmo_json_put(j, "also_on", found->count > 1 ? json_string(found->other) : json_null());
        if (r) {
            json_decref(j);
            engine_reply_fail(g->fn, g->arg, LMO_E_NO_MEMORY, "", "no memory for the answer");
        } else {
            engine_reply_ok(g->fn, g->arg, 200, j, "");
        }
    }
    free(g);
}

void engine_vm_get(struct lmo_engine *e, const char *vm, lmo_engine_reply_fn *fn, void *arg)
{
    struct vm_get *g = calloc(1, sizeof *g);
    struct lmo_err err = {0};
    if (!g) {
        engine_reply_fail(fn, arg, LMO_E_NO_MEMORY, "", "no memory to look for guest %s", vm);
        return;
    }
    *g = (struct vm_get){.engine = e, .fn = fn, .arg = arg};
    LMO_COPY(g->vm, vm);
    if (engine_find_vm(e, vm, on_vm_get, g, &err) < 0) {
        engine_reply_fail(fn, arg, err.code, "vm", "%s", err.text);
        free(g);
    }
}
