/* hypervisor_libvirt_evidence.c - chores off every guest's path: pinning QEMU processes, markers, and the baseline.
 *
 * The argument for the baseline, step by step, is docs/adr/0007-freeze-evidence.md. In short: after QEMU said that an
 * outgoing migration is complete, the vCPU threads' waits are written down, and then it is made sure that up to that
 * moment QEMU had announced no resume. From then on "each vCPU is still in that same wait and was never woken" means
 * that the guest has not run since, whatever became of libvirtd or of our connection to it. */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"

#include <dirent.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STATUS_DIR  "/run/libvirt/qemu"     /* of the system's libvirtd or virtqemud; a fixed path of libvirt */
#define LOG_DIR     "/var/log/libvirt/qemu" /* likewise */
#define STATUS_MAX  ((size_t)1 << 20)
#define LOOK_NS     100000 /* between two looks at something that tells nobody when it changes */
#define BASELINE_MS 500

static void nap(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
}

/* ------------------------------------------------------------------ status files */

int lmo_lv_read_status(const char *name, struct lmo_domxml_status *ret_status, struct lmo_err *err)
{
    char path[sizeof STATUS_DIR + LMO_NAME_MAX + 8];
    LMO_AUTO_FREE char *xml = NULL;
    (void)snprintf(path, sizeof path, STATUS_DIR "/%s.xml", name);
    int r = lmo_fs_read_file(path, STATUS_MAX, &xml, NULL, err);
    return r < 0 ? r : lmo_domxml_status(xml, ret_status, err);
}

/* By UUID, when no name is known (a worker that has just restarted). */
static int find_status(const char *uuid, char ret_name[LMO_NAME_MAX], struct lmo_domxml_status *ret_status,
                       struct lmo_err *err)
{
    DIR *dir = opendir(STATUS_DIR);
    int r = lmo_fail(err, LMO_E_NOT_FOUND, "no active domain of UUID %s", uuid);
    if (!dir)
        return r;
    unsigned left = 10000;
    for (const struct dirent *e; r < 0 && left-- > 0 && (e = readdir(dir));) {
        size_t len = strlen(e->d_name);
        char name[LMO_NAME_MAX];
        struct lmo_domxml_status st;
        if (len < 5 || len - 4 >= sizeof name || strcmp(e->d_name + len - 4, ".xml") != 0)
            continue;
        memcpy(name, e->d_name, len - 4);
        name[len - 4] = '\0';
        if (lmo_lv_read_status(name, &st, NULL) == 0 && strcmp(st.uuid, uuid) == 0) {
            memcpy(ret_name, name, sizeof name);
            *ret_status = st;
            r = 0;
        }
    }
    (void)closedir(dir);
    return r;
}

bool lmo_lv_pin(struct lmo_lv *lv, const char *uuid, const char *name)
{
    struct lmo_domxml_status st;
    struct lmo_qemu q;
    char found[LMO_NAME_MAX] = "";
    if (name && name[0])
        (void)snprintf(found, sizeof found, "%s", name);
    if ((!found[0] || lmo_lv_read_status(found, &st, NULL) < 0 || strcmp(st.uuid, uuid) != 0) &&
        find_status(uuid, found, &st, NULL) < 0)
        return false;
    if (lmo_qemu_pin(st.pid, uuid, st.vcpus, st.monitor, &q, NULL) < 0)
        return false;
    (void)lmo_qemu_find_monitor(&q);
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_get(lv, uuid, found);
    if (g) {
        lmo_qemu_unpin(&g->qemu);
        g->qemu = q;
    } else {
        lmo_qemu_unpin(&q);
    }
    pthread_mutex_unlock(&lv->lock);
    return g != NULL;
}

bool lmo_lv_copy_ended(struct lmo_hypervisor *hv, const char *uuid)
{
    struct lmo_lv *lv = (struct lmo_lv *)hv;
    pthread_mutex_lock(&lv->lock);
    const struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    bool ended = g && g->loaded && g->qemu.pidfd >= 0 && lmo_qemu_ended(&g->qemu);
    pthread_mutex_unlock(&lv->lock);
    return ended;
}

/* The connection that events come by is closed by the kernel the moment the daemon ends. */
bool lmo_lv_reachable(struct lmo_hypervisor *hv)
{
    struct lmo_lv *lv = (struct lmo_lv *)hv;
    pthread_mutex_lock(&lv->lock);
    bool whole = lv->generation % 2 == 1;
    pthread_mutex_unlock(&lv->lock);
    return whole;
}

/* ------------------------------------------------------------------ was every event seen? */

bool lmo_lv_all_events_seen(struct lmo_lv *lv, const struct lmo_qemu *qemu, const char *name, uint64_t generation,
                            uint64_t deadline_ns)
{
    struct lmo_monitor_look look;
    /* 1. libvirtd has taken everything that QEMU sent so far out of the socket. */
    for (;; nap()) {
        if (!lmo_qemu_monitor_look(qemu, &look) || !look.open)
            return false; /* libvirtd closed it (it is ending the domain) or was restarted: what it knew is lost */
        if (look.unread_by_reader == 0)
            break;
        if (lmo_now_ns() >= deadline_ns)
            return false;
    }
    /* 2. Its thread for this guest is idle again, so it has dealt with what it took. */
    for (; !lmo_qemu_reader_idle(look.reader, name); nap())
        if (lmo_now_ns() >= deadline_ns)
            return false;
    /* 3. What it queued for us has arrived and been recorded. */
    return lmo_lv_watch_flush(lv, generation, deadline_ns);
}

/* ------------------------------------------------------------------ the baseline */

struct subject {
    char name[LMO_NAME_MAX];
    struct lmo_qemu qemu; /* owned copy */
    struct lmo_lv_anchor anchor;
};

static bool subject_get(struct lmo_lv *lv, const char *uuid, struct subject *ret)
{
    bool ok = false;
    pthread_mutex_lock(&lv->lock);
    const struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    if (g && g->anchor.valid && !g->anchor.resumed && g->anchor.generation == lv->generation) {
        memcpy(ret->name, g->name, sizeof ret->name);
        ret->anchor = g->anchor;
        ret->qemu = lmo_qemu_dup(&g->qemu);
        ok = true;
    }
    pthread_mutex_unlock(&lv->lock);
    return ok;
}

/* Under KVM, QEMU may still be fetching registers on the vCPU threads when it reports the end of the migration. */
static bool await_waits(const struct lmo_qemu *qemu, struct lmo_vcpu_waits *waits, uint64_t deadline_ns)
{
    while (!lmo_qemu_vcpu_waits(qemu, waits) || !lmo_vcpu_all_wait(waits, "S")) {
        if (lmo_now_ns() >= deadline_ns)
            return false;
        nap();
    }
    return true;
}

static void take_baseline(struct lmo_lv *lv, const char *uuid)
{
    uint64_t began_ns = lmo_now_ns(), deadline_ns = began_ns + BASELINE_MS * LMO_NS_PER_MS;
    struct subject s;
    if (!subject_get(lv, uuid, &s))
        return;
    if (s.qemu.pidfd < 0 && lmo_lv_pin(lv, uuid, s.name) && !subject_get(lv, uuid, &s))
        return;
    struct lmo_vcpu_waits *waits = calloc(1, sizeof *waits);
    const char *missing = NULL;
    if (!waits || s.qemu.pidfd < 0)
        missing = "process";
    else if (!await_waits(&s.qemu, waits, deadline_ns))
        missing = "vcpu_waits";
    else if (!lmo_lv_all_events_seen(lv, &s.qemu, s.name, s.anchor.generation, deadline_ns))
        missing = "events";
    lmo_qemu_unpin(&s.qemu);
    if (!missing) {
        pthread_mutex_lock(&lv->lock);
        struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
        if (g && g->anchor.valid && !g->anchor.resumed && g->anchor.generation == s.anchor.generation &&
            g->anchor.realtime_us == s.anchor.realtime_us) {
            lmo_lv_guest_drop_baseline(g);
            g->base = waits;
            waits = NULL;
        }
        pthread_mutex_unlock(&lv->lock);
    }
    lmo_log(missing ? LMO_LOG_WARN : LMO_LOG_DEBUG, "freeze baseline", "uuid=%s missing=%s us=%" PRIu64, uuid,
            missing ? missing : "", (lmo_now_ns() - began_ns) / 1000);
    free(waits);
}

/* ------------------------------------------------------------------ markers: "this process came in by migration" */

static void marker_path(const struct lmo_lv *lv, const char *uuid, char *ret, size_t size)
{
    (void)snprintf(ret, size, "%.900s/incoming-%s", lv->state_dir, uuid);
}

bool lmo_lv_marker_matches(const struct lmo_lv *lv, const char *uuid, pid_t pid, uint64_t start_ticks)
{
    char path[LMO_PATH_MAX];
    LMO_AUTO_FREE char *text = NULL;
    uint64_t found_pid = 0, found_start = 0;
    marker_path(lv, uuid, path, sizeof path);
    if (lmo_fs_read_file(path, 128, &text, NULL, NULL) < 0)
        return false;
    const char *at = text;
    return lmo_scan_u64(&at, &found_pid) && lmo_scan_u64(&at, &found_start) && found_pid == (uint64_t)pid &&
           found_start == start_ticks;
}

/* Also looks the domain up on the lane that will resume it: one round trip less when the guest waits for it. */
static void mark_incoming(struct lmo_lv *lv, const char *uuid)
{
    char path[LMO_PATH_MAX], text[64];
    struct lmo_err err = {0};
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    int n = 0;
    if (!lmo_lv_pin(lv, uuid, NULL))
        return;
    int r = lmo_lv_domain(lv, LMO_LV_LANE_RESUME, uuid, &dom, NULL);
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    if (g && g->incoming) {
        n = snprintf(text, sizeof text, "%d %" PRIu64 "\n", (int)g->qemu.pid, g->qemu.start_ticks);
        virDomainPtr before = g->resume_domain;
        g->resume_domain = r == 0 ? LMO_TAKE(dom) : NULL;
        dom = before;
    }
    pthread_mutex_unlock(&lv->lock);
    marker_path(lv, uuid, path, sizeof path);
    if (n > 0 && lmo_fs_write_atomic(path, text, (size_t)n, 0600, &err) < 0)
        lmo_log(LMO_LOG_WARN, "incoming marker not written", "uuid=%s reason=%s", uuid, err.text);
}

void lmo_lv_unmark_incoming(struct lmo_lv *lv, const char *uuid)
{
    char path[LMO_PATH_MAX];
    marker_path(lv, uuid, path, sizeof path);
    (void)unlink(path);
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    if (g && !g->incoming)
        dom = LMO_TAKE(g->resume_domain);
    pthread_mutex_unlock(&lv->lock);
}

/* ------------------------------------------------------------------ notes: "our job began here" */

static void note_path(const struct lmo_lv *lv, const char *uuid, char *ret, size_t size)
{
    (void)snprintf(ret, size, "%.900s/outgoing-%s", lv->state_dir, uuid);
}

static void log_path(const char *name, char *ret, size_t size)
{
    (void)snprintf(ret, size, LOG_DIR "/%s.log", name);
}

void lmo_lv_note_outgoing(struct lmo_lv *lv, const char *uuid, const char *name)
{
    char path[LMO_PATH_MAX], log[LMO_PATH_MAX], text[192];
    struct lmo_err err = {0};
    log_path(name, log, sizeof log);
    struct lmo_domlog_mark mark = lmo_domlog_mark(log);
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    if (g)
        g->log = mark;
    pthread_mutex_unlock(&lv->lock);
    note_path(lv, uuid, path, sizeof path);
    int n = snprintf(text, sizeof text, "%s %" PRIu64 " %" PRIu64 "\n", name, mark.inode, mark.offset);
    if (mark.valid && lmo_fs_write_atomic(path, text, (size_t)n, 0600, &err) < 0)
        lmo_log(LMO_LOG_WARN, "outgoing note not written", "uuid=%s reason=%s", uuid, err.text);
}

void lmo_lv_forget_outgoing(struct lmo_lv *lv, const char *uuid)
{
    char path[LMO_PATH_MAX];
    note_path(lv, uuid, path, sizeof path);
    (void)unlink(path);
}

bool lmo_lv_ended_as_migrated(struct lmo_lv *lv, const char *uuid)
{
    char path[LMO_PATH_MAX], name[LMO_NAME_MAX] = "";
    struct lmo_domlog_mark mark = {0};
    LMO_AUTO_FREE char *text = NULL;
    pthread_mutex_lock(&lv->lock);
    const struct lmo_lv_guest *g = lmo_lv_guest_find(lv, uuid);
    if (g && g->log.valid) {
        mark = g->log;
        memcpy(name, g->name, sizeof name);
    }
    pthread_mutex_unlock(&lv->lock);
    note_path(lv, uuid, path, sizeof path);
    if (!mark.valid && lmo_fs_read_file(path, 192, &text, NULL, NULL) == 0) {
        const char *at = text + strcspn(text, " ");
        (void)snprintf(name, sizeof name, "%.*s", (int)(at - text), text);
        mark.valid = lmo_scan_u64(&at, &mark.inode) && lmo_scan_u64(&at, &mark.offset);
    }
    log_path(name, path, sizeof path);
    return mark.valid && lmo_domlog_migrated(path, &mark);
}

/* ------------------------------------------------------------------ the thread */

void lmo_lv_chore_add(struct lmo_lv *lv, enum lmo_lv_chore_kind kind, const char *uuid)
{
    if (lv->chore_count == LMO_LV_CHORES_MAX) {
        /* A missing baseline costs time at the freeze, a missing marker an honest "paused"; neither costs safety. */
        lmo_log(LMO_LOG_WARN, "too many chores", "uuid=%s max=%d", uuid, LMO_LV_CHORES_MAX);
        return;
    }
    struct lmo_lv_chore *c = &lv->chores[(lv->chore_head + lv->chore_count++) % LMO_LV_CHORES_MAX];
    c->kind = kind;
    (void)snprintf(c->uuid, sizeof c->uuid, "%s", uuid);
    pthread_cond_broadcast(&lv->changed);
}

static void do_chore(struct lmo_lv *lv, const struct lmo_lv_chore *c)
{
    switch (c->kind) {
    case LMO_LV_CHORE_PIN: (void)lmo_lv_pin(lv, c->uuid, NULL); break;
    case LMO_LV_CHORE_BASELINE: take_baseline(lv, c->uuid); break;
    case LMO_LV_CHORE_MARK: mark_incoming(lv, c->uuid); break;
    case LMO_LV_CHORE_UNMARK: lmo_lv_unmark_incoming(lv, c->uuid); break;
    }
}

void *lmo_lv_chore_main(void *arg)
{
    struct lmo_lv *lv = arg;
    pthread_mutex_lock(&lv->lock);
    while (!lv->stopping) {
        if (lv->chore_count == 0) {
            (void)lmo_lv_wait_changed(lv, lmo_now_ns() + 60 * LMO_NS_PER_S);
            continue;
        }
        struct lmo_lv_chore c = lv->chores[lv->chore_head];
        lv->chore_head = (lv->chore_head + 1) % LMO_LV_CHORES_MAX;
        lv->chore_count--;
        pthread_mutex_unlock(&lv->lock);
        do_chore(lv, &c);
        pthread_mutex_lock(&lv->lock);
    }
    pthread_mutex_unlock(&lv->lock);
    lmo_lv_unref(lv);
    return NULL;
}
