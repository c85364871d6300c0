/* hypervisor_libvirt_freeze.c - the heart of the cutover at the source: stop the guest's process, THEN look.
 *
 * The evidence and why it is enough: docs/adr/0007-freeze-evidence.md. What this file keeps to:
 *  1. Nothing is concluded from a look that was taken before every thread of the process was stopped.
 *  2. "frozen" and "gone" mean: the guest has not run since QEMU completed the migration out. Two independent proofs:
 *     (a) a baseline exists, and each vCPU still is in the very wait it was in then; (b) all that QEMU ever told its
 *     monitor has been seen here, on a watch that was whole since before the completion, and no resume was in it.
 *  3. A resume that was seen wins over everything.
 *  4. Every other answer than "frozen" leaves the process as it was found: continued.
 *  5. "running" is only said when libvirt or QEMU said so; whatever is left is "unknown". */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#define STOP_MS        500    /* for every thread to stop; one in uninterruptible I/O may take its time */
#define STOP_FIRST_MS  2      /* usual; after that it is worth asking whether libvirt is ending the process */
#define EVENTS_MS      20     /* for libvirtd and us to catch up with QEMU's events, while it stands stopped */
#define STATE_MS       50     /* libvirt's opinion, when nothing better is left */
#define WAKES_BY_STOP  1      /* being stopped puts a sleeping thread on a processor once */
#define RUN_NS_BY_STOP 250000 /* ... for some microseconds; generous, and still far from running a guest */

/* A copy of what the driver knows, so that nothing is read while events change it. */
struct view {
    bool known, whole; /* a record exists; the anchor's generation is the watch's present one */
    bool raw_events;
    char name[LMO_NAME_MAX];
    struct lmo_lv_anchor anchor;
    bool paused, stopped, frozen;
    int stopped_detail;
    uint64_t stopped_generation, frozen_switches, generation;
};

struct freeze {
    struct lmo_lv *lv;
    const char *uuid;
    uint64_t began_ns, deadline_ns;
    struct lmo_qemu qemu;                         /* own copy */
    struct lmo_vcpu_waits *base, *before, *after; /* base NULL: no baseline */
    bool asleep_before; /* right before the stop every vCPU was as in the baseline, never woken */
    struct lmo_freeze_result *ret;
    bool events_seen;
    char note[160];
};

static void LMO_PRINTF(3, 4) answer(struct freeze *f, enum lmo_freeze_answer a, const char *fmt, ...)
{
    va_list ap;
    f->ret->answer = a;
    va_start(ap, fmt);
    int n = vsnprintf(f->ret->evidence, sizeof f->ret->evidence, fmt, ap);
    va_end(ap);
    if (n > 0 && (size_t)n < sizeof f->ret->evidence)
        (void)snprintf(f->ret->evidence + n, sizeof f->ret->evidence - (size_t)n, "; pid=%d us=%" PRIu64,
                       (int)f->qemu.pid, (lmo_now_ns() - f->began_ns) / 1000);
}

static struct view look(struct lmo_lv *lv, const char *uuid)
{
    struct view v = {0};
    pthread_mutex_lock(&lv->lock);
    const struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    v.generation = lv->generation;
    v.raw_events = lv->raw_events;
    if (g) {
        v.known = true;
        memcpy(v.name, g->name, sizeof v.name);
        v.anchor = g->anchor;
        v.whole = g->anchor.valid && g->anchor.generation == lv->generation;
        v.paused = g->paused && g->seen_generation == lv->generation;
        v.stopped = g->stopped;
        v.stopped_detail = g->stopped_detail;
        v.stopped_generation = g->stopped_generation;
        v.frozen = g->frozen;
        v.frozen_switches = g->frozen_switches;
    }
    pthread_mutex_unlock(&lv->lock);
    return v;
}

/* Own copies of the pinned process and the baseline. */
static bool take_copies(struct freeze *f)
{
    struct lmo_lv *lv = f->lv;
    pthread_mutex_lock(&lv->lock);
    const struct lmo_lv_guest *g = lmo_lv_guest_find(lv, f->uuid);
    if (g)
        f->qemu = lmo_qemu_dup(&g->qemu);
    if (g && g->base && f->base) {
        f->base->count = g->base->count;
        memcpy(f->base->vcpu, g->base->vcpu, g->base->count * sizeof g->base->vcpu[0]);
    }
    pthread_mutex_unlock(&lv->lock);
    return f->qemu.pidfd >= 0;
}

/* ------------------------------------------------------------------ the record of a proven freeze, on disk */

/* Not synced: it serves a worker that restarts; a host that restarts has no frozen process any more. */
static void write_record(const struct freeze *f, uint64_t switches)
{
    char path[LMO_PATH_MAX], text[96];
    lmo_lv_freeze_record(f->lv, f->uuid, path, sizeof path);
    int n =
        snprintf(text, sizeof text, "%d %" PRIu64 " %" PRIu64 "\n", (int)f->qemu.pid, f->qemu.start_ticks, switches);
    LMO_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, (size_t)n) != n)
        lmo_log(LMO_LOG_WARN, "freeze record not written", "uuid=%s", f->uuid);
}

static bool read_record(const struct freeze *f, uint64_t *ret_switches)
{
    char path[LMO_PATH_MAX];
    LMO_AUTO_FREE char *text = NULL;
    uint64_t pid = 0, start = 0;
    lmo_lv_freeze_record(f->lv, f->uuid, path, sizeof path);
    if (lmo_fs_read_file(path, 128, &text, NULL, NULL) < 0 || !strchr(text, '\n'))
        return false;
    const char *at = text;
    return lmo_scan_u64(&at, &pid) && lmo_scan_u64(&at, &start) && lmo_scan_u64(&at, ret_switches) &&
           pid == (uint64_t)f->qemu.pid && start == f->qemu.start_ticks;
}

static void remember_freeze(struct freeze *f)
{
    uint64_t switches = 0;
    bool counted = lmo_qemu_all_stopped(f->qemu.pid, &switches);
    pthread_mutex_lock(&f->lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_find(f->lv, f->uuid);
    if (g && counted) {
        g->frozen = true;
        g->frozen_switches = switches;
    }
    pthread_mutex_unlock(&f->lv->lock);
    if (counted)
        write_record(f, switches);
}

/* Asked again: still stopped, and not one thread was on a processor since we said "frozen"? */
static bool still_frozen(struct freeze *f, const struct view *v)
{
    uint64_t then = v->frozen_switches, now = 0;
    if (!v->frozen && !read_record(f, &then))
        return false;
    if (!lmo_qemu_all_stopped(f->qemu.pid, &now) || now != then || lmo_qemu_ended(&f->qemu))
        return false;
    pthread_mutex_lock(&f->lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_get(f->lv, f->uuid, NULL);
    if (g) {
        g->frozen = true;
        g->frozen_switches = now;
    }
    pthread_mutex_unlock(&f->lv->lock);
    return true;
}

/* ------------------------------------------------------------------ a process that has ended, or is about to */

/* MIGRATED: libvirt ends the source like this only after the destination's finish succeeded, from the same thread that
 * would have resumed it otherwise. FAILED, CRASHED, SHUTDOWN: libvirt reacts to the end of the monitor's stream, which
 * it has read to its end. DESTROYED: libvirt closes the monitor first, so a last resume could have gone unread. */
static bool end_is_complete(int detail)
{
    return detail == VIR_DOMAIN_EVENT_STOPPED_MIGRATED || detail == VIR_DOMAIN_EVENT_STOPPED_FAILED ||
           detail == VIR_DOMAIN_EVENT_STOPPED_CRASHED || detail == VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN;
}

/* Waits while events may still decide: until the guest was seen to run or to end, or the watch breaks. */
static void await_events(struct freeze *f)
{
    pthread_mutex_lock(&f->lv->lock);
    for (;;) {
        const struct lmo_lv_guest *g = lmo_lv_guest_find(f->lv, f->uuid);
        bool open =
            g && g->anchor.valid && !g->anchor.resumed && g->anchor.generation == f->lv->generation && !g->stopped;
        if (!open || !lmo_lv_wait_changed(f->lv, f->deadline_ns))
            break;
    }
    pthread_mutex_unlock(&f->lv->lock);
}

static void judge_ended(struct freeze *f)
{
    struct view v = look(f->lv, f->uuid);
    if (!v.anchor.resumed && lmo_lv_ended_as_migrated(f->lv, f->uuid)) {
        answer(f, LMO_FREEZE_GONE, "ended; libvirt's log of the domain: ended as migrated%s",
               v.whole ? "; watch whole, no resume in it" : "");
        return;
    }
    await_events(f);
    v = look(f->lv, f->uuid);
    if (v.anchor.resumed)
        answer(f, LMO_FREEZE_RUNNING,
               "a resume was seen after the migration was complete; the process has ended since");
    else if (!v.whole)
        answer(f, LMO_FREEZE_UNKNOWN, "the process has ended, and the watch was %s",
               v.anchor.valid ? "broken since the migration was complete"
                              : "not whole when the migration was complete");
    else if (!v.stopped || v.stopped_generation != v.anchor.generation)
        answer(f, LMO_FREEZE_UNKNOWN, "the process has ended, libvirt has not said so yet");
    else if (!end_is_complete(v.stopped_detail))
        answer(f, LMO_FREEZE_UNKNOWN, "the process was destroyed by order, its last events may be lost");
    else
        answer(f, LMO_FREEZE_GONE,
               "ended; watch whole since completion (generation %" PRIu64 ", stamp %" PRIu64
               "), no resume in it; libvirt's reason %d",
               v.generation, v.anchor.realtime_us, v.stopped_detail);
}

/* ------------------------------------------------------------------ a process that is stopped */

static const char *queue_text(const struct freeze *f)
{
    struct lmo_monitor_look m;
    if (!lmo_qemu_monitor_look(&f->qemu, &m))
        return "monitor not seen";
    if (!m.open)
        return "monitor closed by libvirt";
    if (m.resume_queued)
        return "a resume is queued in its monitor";
    return m.unread_by_qemu > 0 ? "commands are queued in its monitor" : "nothing queued in its monitor";
}

static bool vcpus_untouched(struct freeze *f)
{
    return f->base->count > 0 && f->asleep_before && lmo_qemu_vcpu_waits_again(&f->qemu, f->base, f->after) &&
           lmo_vcpu_all_wait(f->after, "T") && lmo_vcpu_same_waits(f->before, f->after, WAKES_BY_STOP, RUN_NS_BY_STOP);
}

/* Why the baseline did not serve, for the record. */
static const char *baseline_text(struct freeze *f)
{
    if (f->base->count == 0)
        return "missing";
    struct lmo_vcpu_waits *now = f->asleep_before ? f->after : f->before;
    for (unsigned i = 0; i < f->base->count; i++) {
        const struct lmo_vcpu_wait *b = &f->base->vcpu[i], *n = &now->vcpu[i];
        if (n->state && n->switches - b->switches <= WAKES_BY_STOP && strcmp(n->call, b->call) == 0)
            continue;
        (void)snprintf(f->note, sizeof f->note, "vCPU %u %s: state %c, +%" PRIu64 " wakes, +%" PRIu64 " ns, call %.8s",
                       i, f->asleep_before ? "after the stop" : "before the stop", n->state ? n->state : '?',
                       n->switches - b->switches, n->ran_ns - b->ran_ns, n->call);
        return f->note;
    }
    return "does not hold";
}

/* Sets the answer; true if the process is to stay stopped. */
static bool judge_stopped(struct freeze *f)
{
    struct view v = look(f->lv, f->uuid);
    if (v.anchor.valid && v.anchor.resumed) {
        answer(f, LMO_FREEZE_RUNNING, "a resume was seen after the migration was complete");
        return false;
    }
    if (v.anchor.valid && vcpus_untouched(f)) {
        answer(f, LMO_FREEZE_FROZEN, "stopped; %u vCPU thread%s in the wait of the baseline, never woken since%s; %s",
               f->base->count, f->base->count == 1 ? "" : "s", v.whole ? "; watch whole, no resume in it" : "",
               queue_text(f));
        return true;
    }
    if (lmo_lv_ended_as_migrated(f->lv, f->uuid)) {
        answer(f, LMO_FREEZE_FROZEN,
               "stopped while libvirt was ending it; libvirt's log of the domain: ended as migrated%s",
               v.whole ? "; watch whole, no resume in it" : "");
        return true;
    }
    uint64_t limit_ns = lmo_now_ns() + EVENTS_MS * LMO_NS_PER_MS;
    f->events_seen = lmo_lv_all_events_seen(f->lv, &f->qemu, v.name, v.generation,
                                            limit_ns < f->deadline_ns ? limit_ns : f->deadline_ns);
    v = look(f->lv, f->uuid);
    if (v.anchor.valid && v.anchor.resumed) {
        answer(f, LMO_FREEZE_RUNNING, "a resume was seen after the migration was complete (events awaited)");
        return false;
    }
    if (f->events_seen && v.whole) {
        answer(f, LMO_FREEZE_FROZEN,
               "stopped; every event of QEMU was read, generation %" PRIu64 " whole since "
               "completion (stamp %" PRIu64 "), no resume in it; %s",
               v.generation, v.anchor.realtime_us, queue_text(f));
        return true;
    }
    return false; /* no answer yet */
}

/* The process runs again as it was found. What libvirt says now, or says soon, may still decide. */
static void judge_continued(struct freeze *f)
{
    enum lmo_run_state state = LMO_RUN_UNKNOWN;
    if (lmo_lv_state(&f->lv->hv, f->uuid, &state, STATE_MS, NULL) == 0 && state == LMO_RUN_RUNNING) {
        answer(f, LMO_FREEZE_RUNNING, "libvirt says that it runs");
        return;
    }
    await_events(f);
    struct view v = look(f->lv, f->uuid);
    if (v.anchor.valid && v.anchor.resumed)
        answer(f, LMO_FREEZE_RUNNING, "a resume was seen after the migration was complete (after the stop)");
    else if (lmo_qemu_ended(&f->qemu))
        judge_ended(f);
    else
        answer(f, LMO_FREEZE_UNKNOWN, "%s; %s; baseline %s; continued",
               !v.anchor.valid ? "no completed migration was seen"
               : !v.whole      ? "the watch was broken since the migration was complete"
                               : "watch whole",
               f->events_seen ? "every event was read" : "QEMU's last events could not be accounted for",
               baseline_text(f));
}

static void stop_and_judge(struct freeze *f)
{
    uint64_t stop_deadline = f->began_ns + STOP_MS * LMO_NS_PER_MS;
    f->asleep_before = f->base->count > 0 && lmo_qemu_vcpu_waits_again(&f->qemu, f->base, f->before) &&
                       lmo_vcpu_all_wait(f->before, "S") && lmo_vcpu_same_waits(f->base, f->before, 0, 0);
    int r = lmo_qemu_signal(&f->qemu, SIGSTOP);
    if (r == LMO_E_NOT_FOUND) {
        judge_ended(f);
        return;
    }
    if (r < 0) {
        answer(f, LMO_FREEZE_UNKNOWN, "the process may not be signalled (CAP_KILL)");
        return;
    }
    uint64_t first_ns = lmo_now_ns() + STOP_FIRST_MS * LMO_NS_PER_MS;
    bool stopped = lmo_qemu_await_stopped(&f->qemu, first_ns < f->deadline_ns ? first_ns : f->deadline_ns);
    if (!stopped && !look(f->lv, f->uuid).anchor.resumed && lmo_lv_ended_as_migrated(f->lv, f->uuid)) {
        /* It is on its way out and gives its memory back, which no signal interrupts. Its guest is over in any case;
         * what it may still have in flight is the fence's business, as with every frozen source. */
        answer(f, LMO_FREEZE_FROZEN,
               "libvirt is ending it; libvirt's log of the domain: ended as migrated; stop pending");
        return;
    }
    stopped =
        stopped || lmo_qemu_await_stopped(&f->qemu, stop_deadline < f->deadline_ns ? stop_deadline : f->deadline_ns);
    if (stopped && judge_stopped(f)) {
        remember_freeze(f);
        return;
    }
    (void)lmo_qemu_signal(&f->qemu, SIGCONT);
    if (lmo_qemu_ended(&f->qemu))
        judge_ended(f);
    else if (!stopped)
        answer(f, LMO_FREEZE_UNKNOWN, "not every thread stopped in time; continued");
    else if (!f->ret->evidence[0])
        judge_continued(f);
}

static void freeze_run(struct freeze *f)
{
    struct view v = look(f->lv, f->uuid);
    if (v.anchor.valid && v.anchor.resumed) {
        answer(f, LMO_FREEZE_RUNNING, "a resume was seen after the migration was complete; not stopped");
        return;
    }
    if (!take_copies(f) && !(lmo_lv_pin(f->lv, f->uuid, v.name) && take_copies(f))) {
        judge_ended(f); /* never pinned and not to be found: at most libvirt's events know what became of it */
        return;
    }
    if (lmo_qemu_ended(&f->qemu)) {
        judge_ended(f);
        return;
    }
    if (still_frozen(f, &v)) {
        answer(f, LMO_FREEZE_FROZEN, "still stopped since it was proven frozen; no thread was scheduled since");
        return;
    }
    stop_and_judge(f);
}

void lmo_lv_freeze(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_freeze_result *ret)
{
    struct lmo_lv *lv = (struct lmo_lv *)hv;
    struct freeze f = {.lv = lv, .uuid = uuid, .began_ns = lmo_now_ns(), .qemu = LMO_QEMU_NONE, .ret = ret};
    f.deadline_ns = f.began_ns + timeout_ms * LMO_NS_PER_MS;
    *ret = (struct lmo_freeze_result){.answer = LMO_FREEZE_UNKNOWN};
    f.base = calloc(3, sizeof *f.base);
    if (f.base) {
        f.before = &f.base[1];
        f.after = &f.base[2];
        freeze_run(&f);
    } else {
        answer(&f, LMO_FREEZE_UNKNOWN, "out of memory");
    }
    free(f.base);
    lmo_qemu_unpin(&f.qemu);
}
