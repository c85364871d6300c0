/* kernel.c - the scheduler, fibers, simulated processes, observation points (sim.h has the invariants). */
#include "sim_private.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES ((size_t)4 * 1024 * 1024) /* its frames are larger */
#else
#define SIM_ASAN    0
#define STACK_BYTES ((size_t)1024 * 1024) /* touched as far as it is needed */
#endif
#define GUARD_BYTES      ((size_t)4096)
#define SAME_INSTANT_MAX 200000 /* events without time going on: somebody spins */

struct event {
    uint64_t when, sequence;
    struct sim_process *process;
    uint64_t incarnation;
    sim_fn *fn;
    void *arg;
};

struct sim_fiber {
    ucontext_t context;
    void *stack;
    struct sim_process *process;
    uint64_t local; /* its own time: it may be busy for longer than the scheduler has come */
    uint64_t block; /* number of the present block: an event for an earlier one is stale */
    sim_fn *fn;
    void *arg;
    bool started, finished, blocked, timed_out;
    struct sim_fiber *prev, *next; /* process->fibers while blocked; the free list */
    struct sim_signal *signal;
    struct sim_fiber *next_waiting;
    void *fake_stack;
};

static struct {
    uint64_t now, seed, sequence, hash, events, same_instant, changes;
    struct event *heap;
    size_t heap_count, heap_capacity;
    struct sim_process processes[SIM_PROCESSES_MAX];
    unsigned process_count;
    ucontext_t scheduler;
    void *scheduler_fake_stack;
    const void *scheduler_stack;
    size_t scheduler_stack_size;
    struct sim_fiber *current, *free_fibers;
    struct sim_process *doomed; /* left by its own fiber: to be dropped by the scheduler */
    bool stopping;
    char violation[512];
    uint64_t violated_ns;
    sim_fate_fn *fates;
    void *fates_arg;
    void (*on_drop)(struct sim_process *p);
    void (*on_crash)(void *arg, struct sim_process *p);
    void *on_crash_arg;
} k;

bool sim_tracing;

/* ------------------------------------------------------------------ random numbers */

static uint64_t mix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

struct sim_rng sim_rng_new(uint64_t seed, const char *stream)
{
    uint64_t h = mix64(seed + UINT64_C(0x9E3779B97F4A7C15));
    for (; *stream; stream++) {
        h = mix64(h ^ (uint64_t)(unsigned char)*stream);
    }
    return (struct sim_rng){h};
}

uint64_t sim_random(struct sim_rng *r)
{
    r->state += UINT64_C(0x9E3779B97F4A7C15);
    return mix64(r->state);
}

uint64_t sim_below(struct sim_rng *r, uint64_t bound)
{
    return sim_random(r) % bound;
}

uint64_t sim_between(struct sim_rng *r, uint64_t low, uint64_t high)
{
    return low + sim_below(r, high - low + 1);
}

bool sim_chance(struct sim_rng *r, unsigned per_mille)
{
    return sim_below(r, 1000) < per_mille;
}

uint64_t sim_latency(struct sim_rng *r, uint64_t typical_ns, unsigned tail)
{
    uint64_t t = typical_ns / 2 + sim_below(r, typical_ns + 1);
    if (tail > 1 && sim_chance(r, 20)) {
        t += sim_below(r, typical_ns * tail);
    }
    return t;
}

/* ------------------------------------------------------------------ names */

const char *sim_point_name(enum sim_point p)
{
    static const char *const names[] = {
#define X(name, text) text,
        SIM_POINTS(X)
#undef X
    };
    return p < SIM_POINT_COUNT ? names[p] : "?";
}

enum sim_point sim_point_from_name(const char *name)
{
    unsigned p = 0;
    while (p < SIM_POINT_COUNT && strcmp(sim_point_name((enum sim_point)p), name) != 0) {
        p++;
    }
    return (enum sim_point)p;
}

const char *sim_fate_name(enum sim_fate f)
{
    static const char *const names[] = {"none",       "crash_before", "crash_after", "lost",
                                        "reply_lost", "twice",        "late",        "fail"};
    return f < SIM_FATE_COUNT ? names[f] : "?";
}

enum sim_fate sim_fate_from_name(const char *name)
{
    unsigned f = 0;
    while (f < SIM_FATE_COUNT && strcmp(sim_fate_name((enum sim_fate)f), name) != 0) {
        f++;
    }
    return (enum sim_fate)f;
}

/* ------------------------------------------------------------------ the heap of events */

static bool earlier(const struct event *a, const struct event *b)
{
    return a->when != b->when ? a->when < b->when : a->sequence < b->sequence;
}

static void push(struct event e)
{
    if (k.heap_count == k.heap_capacity) {
        struct sim_process *before = sim_own(NULL);
        k.heap_capacity = k.heap_capacity ? k.heap_capacity * 2 : 1024;
        k.heap = realloc(k.heap, k.heap_capacity * sizeof *k.heap);
        lmo_assert(k.heap);
        (void)sim_own(before);
    }
    size_t at = k.heap_count++;
    while (at > 0 && earlier(&e, &k.heap[(at - 1) / 2])) {
        k.heap[at] = k.heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    k.heap[at] = e;
}

static struct event pop(void)
{
    struct event top = k.heap[0], last = k.heap[--k.heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= k.heap_count) {
            break;
        }
        if (child + 1 < k.heap_count && earlier(&k.heap[child + 1], &k.heap[child])) {
            child++;
        }
        if (!earlier(&k.heap[child], &last)) {
            break;
        }
        k.heap[at] = k.heap[child];
        at = child;
    }
    k.heap[at] = last;
    return top;
}

void sim_changes(void)
{
    k.changes++;
}

void sim_at(struct sim_process *p, uint64_t when, sim_fn *fn, void *arg)
{
    if (!p || p != sim_current()) { /* one of its own dies with it */
        sim_changes();
    }
    push((struct event){.when = when < k.now ? k.now : when,
                        .sequence = k.sequence++,
                        .process = p,
                        .incarnation = p ? p->incarnation : 0,
                        .fn = fn,
                        .arg = arg});
}

/* ------------------------------------------------------------------ fibers */

static void unpoison(struct sim_fiber *f)
{
#if SIM_ASAN
    __asan_unpoison_memory_region((char *)f->stack + GUARD_BYTES, STACK_BYTES - GUARD_BYTES);
#else
    (void)f;
#endif
}

static struct sim_fiber *fiber_new(struct sim_process *p, sim_fn *fn, void *arg)
{
    struct sim_fiber *f = k.free_fibers;
    if (f) {
        k.free_fibers = f->next;
    } else {
        struct sim_process *before = sim_own(NULL);
        f = calloc(1, sizeof *f);
        lmo_assert(f);
        (void)sim_own(before);
        f->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        lmo_assert(f->stack != MAP_FAILED && mprotect(f->stack, GUARD_BYTES, PROT_NONE) == 0);
    }
    void *stack = f->stack;
    uint64_t block = f->block;
    *f = (struct sim_fiber){.stack = stack, .block = block + 1, .process = p, .fn = fn, .arg = arg, .local = sim_now()};
    return f;
}

static void fiber_recycle(struct sim_fiber *f)
{
    unpoison(f);
    f->block++;
    f->next = k.free_fibers;
    k.free_fibers = f;
}

static void switch_to_scheduler(struct sim_fiber *f, bool for_good)
{
#if SIM_ASAN
    __sanitizer_start_switch_fiber(for_good ? NULL : &f->fake_stack, k.scheduler_stack, k.scheduler_stack_size);
#else
    (void)for_good;
#endif
    lmo_assert(swapcontext(&f->context, &k.scheduler) == 0);
#if SIM_ASAN
    __sanitizer_finish_switch_fiber(f->fake_stack, NULL, NULL);
#endif
}

static void fiber_main(void)
{
    struct sim_fiber *f = k.current;
#if SIM_ASAN
    __sanitizer_finish_switch_fiber(NULL, &k.scheduler_stack, &k.scheduler_stack_size);
#endif
    f->fn(f->arg);
    f->finished = true;
    switch_to_scheduler(f, true);
    lmo_unreachable("a fiber that has ended was entered again");
}

static void drop(struct sim_process *p);

/* Enters a fiber from the scheduler's stack, until it blocks, ends or dies. */
static void enter(struct sim_fiber *f)
{
    lmo_assert(!k.current);
    k.current = f;
    struct sim_process *before = sim_own(f->process);
    if (!f->started) {
        f->started = true;
        lmo_assert(getcontext(&f->context) == 0);
        f->context.uc_stack.ss_sp = (char *)f->stack + GUARD_BYTES;
        f->context.uc_stack.ss_size = STACK_BYTES - GUARD_BYTES;
        f->context.uc_link = NULL;
        makecontext(&f->context, fiber_main, 0);
    }
#if SIM_ASAN
    __sanitizer_start_switch_fiber(&k.scheduler_fake_stack, (char *)f->stack + GUARD_BYTES, STACK_BYTES - GUARD_BYTES);
#endif
    lmo_assert(swapcontext(&k.scheduler, &f->context) == 0);
#if SIM_ASAN
    __sanitizer_finish_switch_fiber(k.scheduler_fake_stack, NULL, NULL);
#endif
    k.current = NULL;
    (void)sim_own(before);
    if (f->finished || k.doomed) {
        fiber_recycle(f);
    }
    if (k.doomed) {
        struct sim_process *p = k.doomed;
        k.doomed = NULL;
        drop(p);
    }
}

struct sim_fiber *sim_fiber_current(void)
{
    return k.current;
}

uint64_t sim_fiber_local(const struct sim_fiber *f)
{
    return f->local > k.now ? f->local : k.now;
}

static void unlink_fiber(struct sim_fiber *f)
{
    if (f->prev) {
        f->prev->next = f->next;
    } else {
        f->process->fibers = f->next;
    }
    if (f->next) {
        f->next->prev = f->prev;
    }
    f->prev = f->next = NULL;
    f->blocked = false;
}

static void wake_up(void *arg)
{
    struct sim_fiber *f = arg;
    lmo_assert(f->blocked);
    unlink_fiber(f);
    enter(f);
}

void sim_fiber_block(void)
{
    struct sim_fiber *f = k.current;
    lmo_assert(f && !f->blocked);
    f->blocked = true;
    f->prev = NULL;
    f->next = f->process->fibers;
    if (f->next) {
        f->next->prev = f;
    }
    f->process->fibers = f;
    switch_to_scheduler(f, false);
}

void sim_fiber_ready(struct sim_fiber *f, uint64_t when)
{
    sim_at(f->process, when > f->local ? when : f->local, wake_up, f);
}

static void leave_signal(struct sim_fiber *f)
{
    if (!f->signal) {
        return;
    }
    for (struct sim_fiber **at = &f->signal->waiting; *at; at = &(*at)->next_waiting) {
        if (*at == f) {
            *at = f->next_waiting;
            break;
        }
    }
    f->signal = NULL;
}

struct deadline {
    struct sim_fiber *fiber;
    uint64_t block;
};

static void deadline_due(void *arg)
{
    struct deadline *d = arg;
    struct sim_fiber *f = d->fiber;
    if (f->block == d->block && f->signal) {
        leave_signal(f);
        f->timed_out = true;
        sim_fiber_ready(f, k.now);
    }
    free(d);
}

bool sim_wait(struct sim_signal *s, uint64_t deadline_ns)
{
    struct sim_fiber *f = k.current;
    if (sim_now() >= deadline_ns) {
        return false;
    }
    struct sim_process *before = sim_own(NULL);
    struct deadline *d = calloc(1, sizeof *d);
    lmo_assert(d);
    (void)sim_own(before);
    f->block++;
    *d = (struct deadline){f, f->block};
    f->timed_out = false;
    f->signal = s;
    f->next_waiting = s->waiting;
    s->waiting = f;
    sim_at(NULL, deadline_ns, deadline_due, d);
    sim_fiber_block();
    f->block++;
    return !f->timed_out;
}

void sim_wake(struct sim_signal *s)
{
    while (s->waiting) {
        struct sim_fiber *f = s->waiting;
        s->waiting = f->next_waiting;
        f->signal = NULL;
        sim_fiber_ready(f, sim_now());
    }
}

void sim_busy(uint64_t ns)
{
    if (k.current) {
        k.current->local = sim_now() + ns;
    }
}

void sim_sleep(uint64_t ns)
{
    lmo_assert(k.current);
    sim_fiber_ready(k.current, sim_now() + ns);
    sim_fiber_block();
}

static void begin_fiber(void *arg)
{
    struct sim_fiber *f = arg;
    unlink_fiber(f);
    enter(f);
}

/* Not started yet counts as blocked: a crash recycles it. */
static void park(struct sim_fiber *f)
{
    f->blocked = true;
    f->next = f->process->fibers;
    if (f->next) {
        f->next->prev = f;
    }
    f->process->fibers = f;
}

void sim_spawn(uint64_t when, sim_fn *fn, void *arg)
{
    struct sim_process *p = sim_current();
    struct sim_fiber *f = fiber_new(p, fn, arg);
    f->local = when;
    park(f);
    sim_at(p, when, begin_fiber, f);
}

void sim_run_in(struct sim_process *p, sim_fn *fn, void *arg)
{
    lmo_assert(!k.current && p->alive);
    struct sim_fiber *f = fiber_new(p, fn, arg);
    enter(f);
}

/* ------------------------------------------------------------------ processes */

struct sim_process *sim_current(void)
{
    return k.current ? k.current->process : NULL;
}

uint64_t sim_now(void)
{
    return k.current ? sim_fiber_local(k.current) : k.now;
}

int64_t sim_now_since_start_us(void)
{
    return (int64_t)((sim_now() - SIM_START_NS) / 1000);
}

struct sim_process *sim_process_add(const char *name, unsigned role, sim_fn *main, void *arg)
{
    lmo_assert(k.process_count < SIM_PROCESSES_MAX);
    struct sim_process *p = &k.processes[k.process_count];
    *p = (struct sim_process){.index = k.process_count, .role = role, .main = main, .arg = arg};
    snprintf(p->name, sizeof p->name, "%s", name);
    k.process_count++;
    return p;
}

struct sim_process *sim_process_named(const char *name)
{
    for (unsigned i = 0; i < k.process_count; i++) {
        if (strcmp(k.processes[i].name, name) == 0) {
            return &k.processes[i];
        }
    }
    return NULL;
}

struct sim_process *sim_process_at(unsigned index)
{
    return index < k.process_count ? &k.processes[index] : NULL;
}

void sim_set_on_drop(void (*fn)(struct sim_process *p))
{
    k.on_drop = fn;
}

static void restart(void *arg)
{
    struct sim_process *p = arg;
    if (!p->alive) {
        sim_process_start(p);
    }
}

/* A stream for each start and each end: what a process drew before it died decides nothing that comes after. */
static struct sim_rng numbers_of(const struct sim_process *p, const char *what, unsigned count)
{
    char stream[LMO_NAME_MAX + 32];
    snprintf(stream, sizeof stream, "%s %s %u", p->name, what, count);
    return sim_rng_new(k.seed, stream);
}

/* What the kernel does for a process that has ended: everything it held is gone. */
static void drop(struct sim_process *p)
{
    while (p->fibers) {
        struct sim_fiber *f = p->fibers;
        leave_signal(f);
        unlink_fiber(f);
        fiber_recycle(f);
    }
    sim_net_drop(p);
    sim_disks_drop(p);
    sim_fds_drop(p);
    if (k.on_drop) {
        k.on_drop(p);
    }
    sim_memory_drop(p);
    p->asleep_until = 0;
    p->last_error[0] = '\0';
    if (p->restart_ns) {
        struct sim_rng r = numbers_of(p, "end", p->crashes);
        sim_at(p, k.now + p->restart_ns / 2 + sim_below(&r, p->restart_ns + 1), restart, p);
    }
}

void sim_process_kill(struct sim_process *p)
{
    if (!p->alive) {
        return;
    }
    p->alive = false;
    p->incarnation++;
    p->crashes++;
    sim_trace("process ends process=%s", p->name);
    sim_mix(0xDEAD, p->index);
    if (k.current && k.current->process == p) {
        k.doomed = p;
        switch_to_scheduler(k.current, true);
        lmo_unreachable("a dead process ran on");
    }
    lmo_assert(!k.current);
    drop(p);
}

static void run_main(void *arg)
{
    struct sim_process *p = arg;
    p->main(p->arg);
    sim_trace("process has returned process=%s", p->name);
    sim_process_kill(p); /* its main function came back: it could not start, or has stopped */
}

static void begin_process(void *arg)
{
    sim_run_in(arg, run_main, arg);
}

void sim_process_start(struct sim_process *p)
{
    lmo_assert(!p->alive);
    p->alive = true;
    p->starved = false;
    p->incarnation++;
    p->starts++;
    p->rng = numbers_of(p, "start", p->starts);
    sim_trace("process starts process=%s", p->name);
    sim_at(p, k.now, begin_process, p);
}

void sim_process_sleep(struct sim_process *p, uint64_t ns)
{
    p->asleep_until = k.now + ns;
    sim_trace("process sleeps process=%s ms=%llu", p->name, (unsigned long long)(ns / SIM_MS));
}

/* ------------------------------------------------------------------ observation points */

bool sim_alloc_points;

static void crash(struct sim_process *p)
{
    if (k.on_crash) {
        k.on_crash(k.on_crash_arg, p);
    }
    sim_process_kill(p);
}

enum sim_fate sim_observe(enum sim_point kind)
{
    struct sim_process *p = sim_current();
    if (!p) {
        return SIM_FATE_NONE;
    }
    uint64_t n = ++p->points[kind];
    enum sim_fate fate = k.fates ? k.fates(k.fates_arg, p, kind, n) : SIM_FATE_NONE;
    if (fate != SIM_FATE_NONE) {
        sim_trace("fate process=%s point=%s k=%llu fate=%s", p->name, sim_point_name(kind), (unsigned long long)n,
                  sim_fate_name(fate));
        sim_mix((uint64_t)kind << 8 | fate, n);
    }
    if (fate == SIM_FATE_CRASH_BEFORE) {
        crash(p);
    }
    /* To answer a request or to take a reply is the process's own affair until it acts on it; all else acts at once. */
    if (kind != SIM_POINT_SERVE && kind != SIM_POINT_REPLY && kind != SIM_POINT_TURN && kind != SIM_POINT_ALLOC) {
        sim_changes();
    }
    return fate;
}

void sim_after(enum sim_fate fate)
{
    if (fate == SIM_FATE_CRASH_AFTER) {
        crash(sim_current());
    }
}

struct sim_moment sim_moment(const struct sim_process *p)
{
    return (struct sim_moment){.event = k.events, .changes = k.changes, .process = p->index};
}

void sim_set_on_crash(void (*fn)(void *arg, struct sim_process *p), void *arg)
{
    k.on_crash = fn;
    k.on_crash_arg = arg;
}

void sim_set_fates(sim_fate_fn *fn, void *arg)
{
    k.fates = fn;
    k.fates_arg = arg;
}

/* ------------------------------------------------------------------ one run */

void sim_begin(uint64_t seed, bool installed)
{
    lmo_assert(!k.current && k.heap_count == 0);
    k.now = SIM_START_NS;
    k.seed = seed;
    k.sequence = k.events = k.same_instant = k.changes = 0;
    k.hash = mix64(seed);
    k.process_count = 0;
    k.stopping = false;
    k.violation[0] = '\0';
    k.fates = NULL;
    k.on_drop = NULL;
    sim_fds_reset();
    sim_net_begin();
    sim_disks_begin(installed);
}

void sim_run_until(uint64_t until)
{
    while (!k.stopping && k.heap_count > 0 && k.heap[0].when <= until) {
        struct event e = pop();
        if (e.process && e.process->incarnation != e.incarnation) {
            continue;
        }
        if (e.process && e.process->asleep_until > e.when) {
            e.when = e.process->asleep_until; /* in their order: sequence numbers stay */
            push(e);
            continue;
        }
        k.same_instant = e.when == k.now ? k.same_instant + 1 : 0;
        if (k.same_instant > SAME_INSTANT_MAX) {
            sim_violation("nothing but events at one instant: somebody spins");
            return;
        }
        k.now = e.when;
        k.events++;
        sim_mix(e.when, e.process ? e.process->index : 99);
        e.fn(e.arg);
    }
    if (!k.stopping && k.now < until && until != UINT64_MAX) {
        k.now = until;
    }
}

void sim_stop(void)
{
    k.stopping = true;
}

/* Events that are left are dropped; those that own something do so through lists of their own. */
void sim_end(void)
{
    sim_disks_forget_nothing();
    for (unsigned i = 0; i < k.process_count; i++) {
        k.processes[i].restart_ns = 0;
        sim_process_kill(&k.processes[i]);
    }
    for (size_t i = 0; i < k.heap_count; i++) {
        if (k.heap[i].fn == deadline_due) {
            free(k.heap[i].arg);
        }
    }
    k.heap_count = 0;
    sim_net_end();
}

uint64_t sim_seed(void)
{
    return k.seed;
}

uint64_t sim_hash(void)
{
    return k.hash;
}

void sim_hash_anew(void)
{
    k.hash = mix64(k.seed);
}

uint64_t sim_event_count(void)
{
    return k.events;
}

void sim_mix(uint64_t a, uint64_t b)
{
    k.hash = mix64(k.hash ^ a * UINT64_C(0x9E3779B97F4A7C15)) + b;
}

void sim_violation(const char *fmt, ...)
{
    char text[sizeof k.violation];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sim_trace("VIOLATION what=%s", text);
    if (!k.violation[0]) {
        memcpy(k.violation, text, sizeof text);
        k.violated_ns = sim_now();
    }
    k.stopping = true;
}

const char *sim_violated(void)
{
    return k.violation[0] ? k.violation : NULL;
}

uint64_t sim_violated_ns(void)
{
    return k.violated_ns;
}

/* ------------------------------------------------------------------ trace */

void sim_trace_line(const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct sim_process *p = sim_current();
    printf("%12.6f %-8s %s\n", (double)(sim_now() - SIM_START_NS) / 1e9, p ? p->name : "-", text);
}

/* ------------------------------------------------------------------ the end of a process by its own hand */

/* The same function as in base/assert.c, with another end: one simulated process, and the seed with it. */
void lmo_assert_failed(const char *condition, const char *file, int line, const char *function)
{
    struct sim_process *p = sim_current();
    if (!p) {
        fprintf(stderr, "simulator: assertion failed: %s (%s:%d, %s) seed %llu\n", condition, file, line, function,
                (unsigned long long)k.seed);
        abort();
    }
    if (p->starved) {
        sim_trace("starved: assertion failed: %s (%s:%d, %s)", condition, file, line, function);
    } else {
        sim_violation("%s: assertion failed: %s (%s:%d, %s)", p->name, condition, file, line, function);
    }
    sim_process_kill(p);
    __builtin_unreachable();
}

_Noreturn void __real_abort(void);
_Noreturn void __wrap_abort(void);

void __wrap_abort(void)
{
    struct sim_process *p = sim_current();
    if (!p) {
        __real_abort();
    }
    if (strstr(p->last_error, "written by another coordinator") || strstr(p->last_error, "has taken over: stopping")) {
        sim_trace("E5: stops, as it must process=%s", p->name);
    } else if (p->starved) {
        sim_trace("starved: aborts process=%s", p->name);
    } else {
        sim_violation("%s: aborted; its last error: %s", p->name, p->last_error);
    }
    sim_process_kill(p);
    __builtin_unreachable();
}
