/* job.c - what hypervisors do by themselves: passes over the memory, the pause, loaded, giving up; and the keeper, the thread
 * that lets time pass.
 *
 * With a rate a job is modelled: a pass sends what remains at the rate or the limit in force; what the guest dirtied
 * meanwhile is the next pass; the guest is paused when the rest fits into the downtime limit. Without a rate a job stands
 * still until its gate opens, and then converges at once. */
#include "fakes/internal.h"

#include <time.h>

static pthread_t keeper;
static struct fake_world *kept; /* one world per process is enough for tests */

static struct fake_copy *source_of(struct fake_guest *g)
{
    return &g->copies[g->job.from];
}

static struct fake_copy *destination_of(struct fake_guest *g)
{
    return &g->copies[g->job.to];
}

static void due(struct fake_world *w, struct fake_guest *g, uint64_t at_ns)
{
    g->job.due_ns = at_ns;
    if (at_ns && (w->next_due_ns == 0 || at_ns < w->next_due_ns)) {
        w->next_due_ns = at_ns;
        fake_wake(&w->changed);
    }
}

/* ------------------------------------------------------------------ processes */

static void end_job(struct fake_world *w, struct fake_guest *g, bool ok, const char *text)
{
    if (!g->job.running) {
        return;
    }
    g->job.running = false;
    g->job.due_ns = 0;
    g->moves += ok;
    fake_emit_end_locked(w, g, source_of(g)->host, ok, text);
}

void fake_process_ends_locked(struct fake_world *w, struct fake_guest *g, struct fake_copy *c, const char *reason)
{
    if (!c->process) {
        return;
    }
    c->process = c->incoming = c->loaded = c->vcpus = c->stopped = c->resume_queued = c->migration_pause = false;
    fake_emit_locked(w, g, c->host, LMO_HV_EV_STOPPED, reason, 0);
}

/* The source's guest goes on here (or will, once it is continued). */
void fake_source_resumes_locked(struct fake_world *w, struct fake_guest *g, struct fake_copy *c)
{
    if (!c->process || c->paused_by_user) {
        return;
    }
    c->migration_pause = false;
    if (c->stopped) {
        c->resume_queued = true;
        return;
    }
    c->vcpus = true;
    c->ran_after_pause = true;
    fake_emit_locked(w, g, c->host, LMO_HV_EV_RESUMED, "migration canceled", 0);
    fake_check_locked(w, g);
}

/* A frozen or killed source lets the call end, as it was measured to. */
void fake_job_may_end_locked(struct fake_world *w, struct fake_guest *g)
{
    if (g->job.running && g->job.loaded && !source_of(g)->process) {
        end_job(w, g, true, "");
    }
}

/* ------------------------------------------------------------------ the way of a job */

static void suspend(struct fake_world *w, struct fake_guest *g)
{
    struct fake_copy *c = source_of(g);
    if (!g->job.running || g->job.suspended || !c->process) {
        return;
    }
    g->job.suspended = true;
    c->vcpus = false;
    c->migration_pause = true;
    fake_emit_locked(w, g, c->host, LMO_HV_EV_SUSPENDED, "migrated", 0);
}

static void load(struct fake_world *w, struct fake_guest *g)
{
    struct fake_copy *c = destination_of(g);
    if (!g->job.running || !g->job.suspended || g->job.loaded || !c->incoming) {
        return;
    }
    g->job.loaded = true;
    g->job.remaining = 0;
    c->incoming = false;
    c->loaded = true;
    c->defined = true;
    fake_emit_locked(w, g, c->host, LMO_HV_EV_LOADED, "migrated", 0);
    fake_job_may_end_locked(w, g);
}

static uint64_t rate_of(const struct fake_world *w, const struct fake_job *j)
{
    uint64_t limit = j->bandwidth_bytes_per_s;
    return limit && limit < w->cfg.rate_bytes_per_s ? limit : w->cfg.rate_bytes_per_s;
}

static uint64_t time_ns(uint64_t bytes, uint64_t rate)
{
    return (uint64_t)((double)bytes / (double)rate * 1e9);
}

static void settle(const struct fake_world *w, struct fake_job *j)
{
    uint64_t now = lmo_now_ns(), rate = rate_of(w, j);
    if (rate > 0 && j->running && !j->suspended) {
        uint64_t sent = (uint64_t)((double)(now - j->iteration_ns) / 1e9 * (double)rate);
        j->remaining -= sent < j->remaining ? sent : j->remaining;
        j->iteration_ns = now;
    }
}

void fake_job_begin_locked(struct fake_world *w, struct fake_guest *g, struct fake_copy *from, struct fake_copy *to)
{
    struct fake_job *j = &g->job;
    j->from = (unsigned)(from - g->copies);
    j->to = (unsigned)(to - g->copies);
    j->running = true;
    j->gate_open = j->suspended = j->loaded = false;
    j->iteration = 1;
    j->started_ns = j->iteration_ns = lmo_now_ns();
    from->ran_after_pause = false;
    to->process = to->incoming = true;
    to->loaded = to->vcpus = to->stopped = to->ran_after_pause = false;
    to->paused_by_user = from->paused_by_user;
    if (j->remaining == 0 || w->cfg.rate_bytes_per_s) {
        j->total = j->remaining = g->memory_bytes; /* all of it, until the gate opens */
    }
    if (w->cfg.rate_bytes_per_s) {
        due(w, g, j->iteration_ns + time_ns(j->remaining, rate_of(w, j)));
    }
    fake_emit_locked(w, g, to->host, LMO_HV_EV_INCOMING, "migrated", 0);
}

void fake_job_limits_locked(struct fake_world *w, struct fake_guest *g, uint64_t bandwidth, uint64_t downtime_ms)
{
    struct fake_job *j = &g->job;
    settle(w, j);
    j->gate_open = true;
    j->bandwidth_bytes_per_s = bandwidth;
    j->downtime_ms = downtime_ms;
    if (j->suspended || !w->cfg.automatic) {
        return;
    }
    due(w, g, w->cfg.rate_bytes_per_s ? j->iteration_ns + time_ns(j->remaining, rate_of(w, j)) : lmo_now_ns());
}

void fake_job_sample_locked(struct fake_world *w, struct fake_guest *g, struct lmo_progress *ret)
{
    struct fake_job *j = &g->job;
    settle(w, j);
    *ret = (struct lmo_progress){.total_bytes = j->total,
                                 .remaining_bytes = j->remaining,
                                 .iteration = j->iteration,
                                 .disk_total_bytes = j->disk_total,
                                 .disk_remaining_bytes = j->disk_remaining,
                                 .transferred_bytes = j->total > j->remaining ? j->total - j->remaining : 0,
                                 .rate_bytes_per_s = rate_of(w, j),
                                 .dirty_bytes_per_s = j->iteration > 1 ? g->dirty_bytes_per_s : 0,
                                 .downtime_limit_ms = j->downtime_ms,
                                 .bandwidth_bytes_per_s = j->bandwidth_bytes_per_s,
                                 .elapsed_ms = (lmo_now_ns() - j->started_ns) / LMO_NS_PER_MS};
}

int fake_job_abort_locked(struct fake_world *w, struct fake_guest *g, struct lmo_err *err)
{
    if (!g->job.running || g->job.loaded) {
        return lmo_fail(err, LMO_E_REFUSED, "no job can be aborted");
    }
    fake_process_ends_locked(w, g, destination_of(g), "failed");
    if (g->job.suspended) {
        fake_source_resumes_locked(w, g, source_of(g));
    }
    end_job(w, g, false, "operation aborted");
    return 0;
}

/* One pass is over: pause, or another one. */
static void pass_over(struct fake_world *w, struct fake_guest *g, uint64_t now)
{
    struct fake_job *j = &g->job;
    uint64_t rate = rate_of(w, j), pass_ns = time_ns(j->remaining, rate) + (now - j->iteration_ns);
    uint64_t dirtied = (uint64_t)((double)pass_ns / 1e9 * (double)g->dirty_bytes_per_s);
    dirtied = dirtied < j->total ? dirtied : j->total;
    j->remaining = dirtied;
    j->iteration_ns = now;
    if (j->gate_open && time_ns(dirtied, rate) <= j->downtime_ms * LMO_NS_PER_MS) {
        suspend(w, g);
        due(w, g, now + time_ns(dirtied, rate) + w->cfg.load_ms * LMO_NS_PER_MS);
        return;
    }
    j->iteration++;
    fake_emit_locked(w, g, source_of(g)->host, LMO_HV_EV_ITERATION, "", j->iteration);
    uint64_t next = time_ns(dirtied, rate);
    due(w, g, now + (next > LMO_NS_PER_MS ? next : LMO_NS_PER_MS));
}

static void happen(struct fake_world *w, struct fake_guest *g, uint64_t now)
{
    g->job.due_ns = 0;
    if (g->job.suspended) {
        load(w, g);
    } else if (w->cfg.rate_bytes_per_s) {
        pass_over(w, g, now);
    } else {
        suspend(w, g);
        due(w, g, now + w->cfg.load_ms * LMO_NS_PER_MS);
    }
}

void fake_hold(struct fake_world *w, bool hold)
{
    fake_lock(w);
    w->cfg.automatic = !hold;
    fake_unlock(w);
    if (!hold) {
        fake_let_go(w, 0, w->guest_count);
    }
}

void fake_let_go(struct fake_world *w, unsigned first, unsigned count)
{
    fake_lock(w);
    for (unsigned n = first; n < w->guest_count && n - first < count; n++) {
        struct fake_guest *g = fake_guest(w, n);
        if (g->job.running && g->job.gate_open && !g->job.suspended) {
            due(w, g, lmo_now_ns());
        }
    }
    fake_unlock(w);
}

/* ------------------------------------------------------------------ on demand */

void fake_suspend(struct fake_world *w)
{
    fake_lock(w);
    suspend(w, fake_guest(w, 0));
    fake_unlock(w);
}

void fake_load(struct fake_world *w)
{
    fake_lock(w);
    load(w, fake_guest(w, 0));
    fake_unlock(w);
}

void fake_give_up_of(struct fake_world *w, struct fake_guest *g)
{
    fake_lock(w);
    fake_source_resumes_locked(w, g, source_of(g));
    end_job(w, g, false, "client socket is closed");
    fake_unlock(w);
}

void fake_give_up(struct fake_world *w)
{
    fake_give_up_of(w, fake_guest(w, 0));
}

void fake_finish(struct fake_world *w)
{
    fake_lock(w);
    struct fake_guest *g = fake_guest(w, 0);
    fake_process_ends_locked(w, g, source_of(g), "migrated");
    fake_job_may_end_locked(w, g);
    fake_unlock(w);
}

/* One that runs already is the guest, and no copy any more: it is left alone. */
bool fake_copy_dies_of(struct fake_world *w, struct fake_guest *g)
{
    fake_lock(w);
    struct fake_copy *c = destination_of(g);
    bool dies = c->process && !c->vcpus;
    if (dies) {
        fake_process_ends_locked(w, g, c, "failed");
    }
    fake_unlock(w);
    return dies;
}

void fake_copy_dies(struct fake_world *w)
{
    (void)fake_copy_dies_of(w, fake_guest(w, 0));
}

bool fake_set_power(struct fake_world *w, struct fake_guest *g, bool on)
{
    bool done = false;
    fake_lock(w);
    for (unsigned i = 0; i < FAKE_COPIES && !g->job.running; i++) {
        struct fake_copy *c = &g->copies[i];
        if (!c->used || !c->defined || c->prepared || c->process == on) {
            continue;
        }
        if (on) {
            c->process = c->vcpus = true;
            c->loaded = c->incoming = c->migration_pause = c->ran_after_pause = false;
            fake_emit_locked(w, g, c->host, LMO_HV_EV_RESUMED, "booted", 0);
            fake_check_locked(w, g);
        } else {
            fake_process_ends_locked(w, g, c, "shutdown");
        }
        done = true;
        break;
    }
    fake_unlock(w);
    return done;
}

void fake_break_watch(struct fake_world *w, unsigned host, bool restored)
{
    fake_lock(w);
    fake_emit_locked(w, fake_guest(w, 0), host, restored ? LMO_HV_EV_WATCH_RESTORED : LMO_HV_EV_WATCH_BROKEN, "test",
                     0);
    fake_unlock(w);
}

/* ------------------------------------------------------------------ time */

static void let_happen(struct fake_world *w)
{
    uint64_t now = lmo_now_ns();
    if (w->next_due_ns == 0 || w->next_due_ns > now) {
        return;
    }
    w->next_due_ns = 0;
    for (unsigned n = 0; n < w->guest_count; n++) {
        struct fake_guest *g = fake_guest(w, n);
        if (g->job.due_ns && g->job.due_ns <= now) {
            happen(w, g, now);
        }
        if (g->job.due_ns && (w->next_due_ns == 0 || g->job.due_ns < w->next_due_ns)) {
            w->next_due_ns = g->job.due_ns;
        }
    }
}

static void *keep(void *arg)
{
    struct fake_world *w = arg;
    fake_lock(w);
    while (!w->ending) {
        let_happen(w);
        uint64_t now = lmo_now_ns();
        uint64_t wait_ns = w->next_due_ns == 0 ? LMO_NS_PER_S : w->next_due_ns > now ? w->next_due_ns - now : 0;
        wait_ns = wait_ns < LMO_NS_PER_S ? wait_ns : LMO_NS_PER_S; /* a signal may be lost with a killed process */
        if (wait_ns > 0) {
            fake_wait_locked(w, &w->changed, wait_ns);
        }
    }
    fake_unlock(w);
    return NULL;
}

void fake_keeper_start(struct fake_world *w)
{
    lmo_assert(!kept);
    kept = w;
    lmo_assert(pthread_create(&keeper, NULL, keep, w) == 0);
}

void fake_keeper_stop(struct fake_world *w)
{
    lmo_assert(kept == w);
    fake_lock(w);
    w->ending = true;
    fake_wake(&w->changed);
    fake_unlock(w);
    pthread_join(keeper, NULL);
    kept = NULL;
}
