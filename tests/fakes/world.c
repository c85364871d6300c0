/* world.c - memory, lookup, rules and the checker. See world.h. */
#include "fakes/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x4c4d4f57U

/* ------------------------------------------------------------------ the lock */

void fake_lock(struct fake_world *w)
{
    int e = pthread_mutex_lock(&w->lock);
    if (e == EOWNERDEAD) { /* killed within a change: the few assignments of one call may be half done */
        w->torn++;
        e = pthread_mutex_consistent(&w->lock);
    }
    lmo_assert(e == 0);
}

void fake_unlock(struct fake_world *w)
{
    lmo_assert(pthread_mutex_unlock(&w->lock) == 0);
}

/* Not a pthread_cond_t: one of those does not survive a process that is killed while it waits in it, everybody else would
 * hang in the next broadcast. A number and the kernel's own wait have nothing that a dead process could hold. */
void fake_wait_locked(struct fake_world *w, struct fake_signal *s, uint64_t wait_ns)
{
    uint32_t turn = atomic_load(&s->turn);
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / LMO_NS_PER_S), .tv_nsec = (long)(wait_ns % LMO_NS_PER_S)};
    fake_unlock(w);
    (void)syscall(SYS_futex, &s->turn, FUTEX_WAIT, turn, &wait, NULL, 0);
    fake_lock(w);
}

void fake_wake(struct fake_signal *s)
{
    (void)atomic_fetch_add(&s->turn, 1);
    (void)syscall(SYS_futex, &s->turn, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void init_lock(struct fake_world *w)
{
    pthread_mutexattr_t ma;
    lmo_assert(pthread_mutexattr_init(&ma) == 0);
    if (w->shared) {
        lmo_assert(pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED) == 0);
        lmo_assert(pthread_mutexattr_setrobust(&ma, PTHREAD_MUTEX_ROBUST) == 0);
    }
    lmo_assert(pthread_mutex_init(&w->lock, &ma) == 0);
    pthread_mutexattr_destroy(&ma);
}

/* ------------------------------------------------------------------ lookup */

/* The last number in a name; UINT_MAX without one. */
static unsigned last_number(const char *name, int base)
{
    size_t end = strlen(name), begin = end;
    while (begin > 0 && strchr(base == 16 ? "0123456789abcdef" : "0123456789", name[begin - 1]) && end - begin < 7) {
        begin--;
    }
    return begin == end ? (unsigned)-1 : (unsigned)strtoul(name + begin, NULL, base);
}

static struct fake_guest *guest_hint(struct fake_world *w, unsigned n)
{
    return n < w->guest_count ? fake_guest(w, n) : NULL;
}

struct fake_guest *fake_guest_named(struct fake_world *w, const char *name)
{
    struct fake_guest *hint[2] = {guest_hint(w, last_number(name, 16)), guest_hint(w, last_number(name, 10))};
    for (unsigned i = 0; i < 2; i++) {
        if (hint[i] && (strcmp(hint[i]->uuid, name) == 0 || strcmp(hint[i]->name, name) == 0)) {
            return hint[i];
        }
    }
    for (unsigned i = 0; i < w->guest_count && !w->shared; i++) {
        struct fake_guest *g = fake_guest(w, i);
        if (strcmp(g->uuid, name) == 0 || strcmp(g->name, name) == 0) {
            return g;
        }
    }
    return NULL;
}

struct fake_guest *fake_guest_of_port(struct fake_world *w, const char *port)
{
    struct fake_guest *g = guest_hint(w, last_number(port, 16));
    g = g ? g : fake_guest(w, 0);
    return strcmp(g->port, port) == 0 ? g : NULL;
}

/* "vol<n>" of the first guest, or "vol<n>.<guest>". */
struct fake_guest *fake_guest_of_volume(struct fake_world *w, const char *volume, struct fake_volume **ret)
{
    const char *dot = strchr(volume, '.');
    struct fake_guest *g = guest_hint(w, dot ? (unsigned)strtoul(dot + 1, NULL, 10) : 0);
    for (unsigned i = 0; g && i < w->volume_count; i++) {
        if (strcmp(g->volumes[i].name, volume) == 0) {
            *ret = &g->volumes[i];
            return g;
        }
    }
    return NULL;
}

int fake_host_named(const struct fake_world *w, const char *name)
{
    unsigned n = last_number(name, 10);
    return n >= 1 && n <= w->host_count && strcmp(w->hosts[n - 1].name, name) == 0 ? (int)n - 1 : -1;
}

struct fake_copy *fake_copy_at(struct fake_guest *g, unsigned host)
{
    for (unsigned i = 0; i < FAKE_COPIES; i++) {
        if (g->copies[i].used && g->copies[i].host == host) {
            return &g->copies[i];
        }
    }
    return NULL;
}

enum lmo_run_state fake_state_of(const struct fake_copy *c)
{
    return !c || !c->used       ? LMO_RUN_ABSENT
           : !c->process        ? (c->defined ? LMO_RUN_SHUT_OFF : LMO_RUN_ABSENT)
           : c->incoming        ? LMO_RUN_INCOMING
           : c->loaded          ? LMO_RUN_LOADED
           : c->migration_pause ? LMO_RUN_PAUSED_MIGRATION
           : c->paused_by_user  ? LMO_RUN_PAUSED_BY_USER
           : c->vcpus           ? LMO_RUN_RUNNING
                                : LMO_RUN_PAUSED_OTHER;
}

/* ------------------------------------------------------------------ the checker: from outside of all workers */

bool fake_copy_runs(const struct fake_copy *c)
{
    return c->used && c->process && c->vcpus && !c->stopped;
}

void fake_violate(struct fake_world *w, const struct fake_guest *g, const char *what)
{
    if (!w->violation[0]) {
        snprintf(w->violation, sizeof w->violation, "%s: %s", g->name, what);
    }
}

void fake_check_locked(struct fake_world *w, const struct fake_guest *g)
{
    unsigned running = 0;
    for (unsigned i = 0; i < FAKE_COPIES; i++) {
        running += fake_copy_runs(&g->copies[i]);
    }
    if (running > 1) {
        fake_violate(w, g, "two copies of the guest may run");
    }
}

/* The copy, which was loaded, begins to run. */
void fake_check_resume_locked(struct fake_world *w, struct fake_guest *g, const struct fake_copy *c)
{
    const struct fake_copy *source = &g->copies[g->job.from];
    if (c == source) {
        return;
    }
    if (source->ran_after_pause) {
        fake_violate(w, g, "the destination runs although the source ran on after its pause");
    }
    for (unsigned v = 0; v < w->volume_count; v++) {
        for (unsigned e = 0; e < FAKE_EXPORTS; e++) {
            const struct fake_export *x = &g->volumes[v].exports[e];
            if (x->offered && strcmp(x->host, w->hosts[source->host].name) == 0) {
                fake_violate(w, g, "the destination runs while an export of the source is still offered");
            }
        }
    }
}

int fake_runs_at(struct fake_world *w)
{
    fake_lock(w);
    const struct fake_copy *c = fake_guest(w, 0)->copies;
    int at = fake_copy_runs(&c[0]) ? (fake_copy_runs(&c[1]) ? -2 : 0) : fake_copy_runs(&c[1]) ? 1 : -1;
    fake_unlock(w);
    return at;
}

bool fake_wait_runs_at(struct fake_world *w, int host, unsigned timeout_ms)
{
    uint64_t end = lmo_now_ms() + timeout_ms;
    while (fake_runs_at(w) != host && lmo_now_ms() < end) {
        struct timespec ts = {.tv_nsec = 2000000};
        nanosleep(&ts, NULL);
    }
    return fake_runs_at(w) == host;
}

/* ------------------------------------------------------------------ rules and counters */

bool fake_enter(struct fake_world *w, enum fake_call call, int *ret, struct lmo_err *err)
{
    fake_lock(w);
    w->count[call]++;
    struct fake_rule *rule = &w->rules[call];
    uint64_t delay = rule->delay_ms;
    bool fails = rule->times > 0 && !rule->after;
    if (fails) {
        rule->times--;
        *ret = lmo_fail(err, rule->code, "made to fail");
    }
    fake_unlock(w);
    if (delay) {
        struct timespec ts = {.tv_sec = (time_t)(delay / 1000), .tv_nsec = (long)(delay % 1000) * 1000000};
        nanosleep(&ts, NULL);
    }
    return fails;
}

int fake_leave(struct fake_world *w, enum fake_call call, int r, struct lmo_err *err)
{
    fake_lock(w);
    struct fake_rule *rule = &w->rules[call];
    if (r == 0 && rule->times > 0 && rule->after) {
        rule->times--;
        r = lmo_fail(err, rule->code, "made to lose its answer");
    }
    fake_unlock(w);
    return r;
}

unsigned fake_count(struct fake_world *w, enum fake_call call)
{
    fake_lock(w);
    unsigned n = w->count[call];
    fake_unlock(w);
    return n;
}

void fake_fail(struct fake_world *w, enum fake_call call, int code, unsigned times, bool after)
{
    fake_lock(w);
    w->rules[call].code = code;
    w->rules[call].times = times;
    w->rules[call].after = after;
    fake_unlock(w);
}

void fake_delay(struct fake_world *w, enum fake_call call, uint64_t ms)
{
    fake_lock(w);
    w->rules[call].delay_ms = ms;
    fake_unlock(w);
}

int fake_call_from_name(const char *name)
{
    static const char *const names[] = {
#define X(name) #name,
        FAKE_CALLS(X)
#undef X
    };
    for (int i = 0; i < FAKE_CALL_COUNT; i++) {
        if (strcasecmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

/* ------------------------------------------------------------------ life */

static void place_guest(struct fake_world *w, unsigned n, unsigned host)
{
    struct fake_guest *g = fake_guest(w, n);
    g->memory_bytes = w->cfg.memory_bytes;
    g->dirty_bytes_per_s = w->cfg.dirty_bytes_per_s;
    g->copies[0] = (struct fake_copy){.used = true, .host = host, .process = true, .vcpus = true, .defined = true};
    g->job.total = g->memory_bytes;
    for (unsigned v = 0; v < w->volume_count; v++) {
        char export[LMO_EXPORT_MAX];
        if (w->guest_count == 1) {
            snprintf(g->volumes[v].name, sizeof g->volumes[v].name, "vol%u", v + 1);
        } else {
            snprintf(g->volumes[v].name, sizeof g->volumes[v].name, "vol%u.%u", v + 1, n);
        }
        lmo_assert(fake_offer_locked(w, g->volumes[v].name, w->hosts[host].name, 1, export, NULL) == 0);
    }
    snprintf(g->single, sizeof g->single, "%s", w->hosts[host].name);
}

static void fill(struct fake_world *w)
{
    for (unsigned i = 0; i < w->host_count; i++) {
        snprintf(w->hosts[i].name, sizeof w->hosts[i].name, "hv%u", i + 1);
    }
    for (unsigned n = 0; n < w->guest_count; n++) {
        struct fake_guest *g = fake_guest(w, n);
        unsigned host = n % w->host_count, rack = w->cfg.rack ? host / w->cfg.rack : 0;
        snprintf(g->uuid, sizeof g->uuid, "3f2c1a5e-9f0b-4c5d-8e6f-%012x", n);
        snprintf(g->port, sizeof g->port, "7d9f1a5e-9f0b-4c5d-8e6f-%012x", n);
        snprintf(g->name, sizeof g->name, "guest-%u", n);
        snprintf(g->service, sizeof g->service, "10.0.%u.9:10809", rack);
        place_guest(w, n, host);
    }
}

int fake_world_make(const struct fake_world_config *cfg, const char *path, struct fake_world **ret,
                    struct lmo_err *err)
{
    size_t guests_at = (sizeof(struct fake_world) + cfg->hosts * sizeof(struct fake_host) + 63) & ~(size_t)63;
    size_t size = guests_at + cfg->guests * sizeof(struct fake_guest);
    int flags = path ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    LMO_AUTO_CLOSE int fd = path ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    if (path && (fd < 0 || ftruncate(fd, (off_t)size) < 0)) {
        return lmo_fail(err, LMO_E_IO, "%s: %s", path, strerror(errno));
    }
    struct fake_world *w = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (w == MAP_FAILED) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "a world of %zu bytes: %s", size, strerror(errno));
    }
    w->size = size;
    w->shared = path != NULL;
    w->cfg = *cfg;
    w->host_count = cfg->hosts;
    w->guest_count = cfg->guests;
    w->volume_count = cfg->volumes < FAKE_VOLUMES ? cfg->volumes : FAKE_VOLUMES;
    w->guests_at = guests_at;
    init_lock(w);
    fill(w);
    fake_keeper_start(w);
    __atomic_store_n(&w->magic, MAGIC, __ATOMIC_RELEASE); /* whoever joins finds it whole */
    *ret = w;
    return 0;
}

int fake_world_join(const char *path, struct fake_world **ret, struct lmo_err *err)
{
    LMO_AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(struct fake_world)) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "%s: there is no world", path);
    }
    struct fake_world *w = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (w == MAP_FAILED) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "%s: %s", path, strerror(errno));
    }
    if (__atomic_load_n(&w->magic, __ATOMIC_ACQUIRE) != MAGIC || w->size != (size_t)st.st_size) {
        munmap(w, (size_t)st.st_size);
        return lmo_fail(err, LMO_E_UNAVAILABLE, "%s: the world is not whole yet", path);
    }
    *ret = w;
    return 0;
}

void fake_world_leave(struct fake_world *w)
{
    fake_events_stop(w);
    munmap(w, w->size);
}

struct fake_world *fake_world_new(void)
{
    struct fake_world *w;
    struct lmo_err err = {0};
    const struct fake_world_config cfg = {.hosts = 2,
                                          .guests = 1,
                                          .volumes = FAKE_VOLUMES,
                                          .automatic = true,
                                          .memory_bytes = UINT64_C(256) << 20};
    lmo_assert(fake_world_make(&cfg, NULL, &w, &err) == 0);
    fake_lock(w);
    struct fake_guest *g = fake_guest(w, 0);
    snprintf(g->uuid, sizeof g->uuid, "%s", FAKE_VM);
    snprintf(g->name, sizeof g->name, "guest");
    snprintf(g->port, sizeof g->port, "%s", FAKE_PORT);
    snprintf(g->service, sizeof g->service, "10.0.0.9:10809");
    g->copies[1] = (struct fake_copy){.used = true, .host = 1};
    g->job.remaining = UINT64_C(200) << 20;
    fake_unlock(w);
    return w;
}

void fake_world_free(struct fake_world *w)
{
    fake_keeper_stop(w);
    fake_events_stop(w);
    if (!w->shared) { /* others may still hold a shared one */
        pthread_mutex_destroy(&w->lock);
    }
    munmap(w, w->size);
}
