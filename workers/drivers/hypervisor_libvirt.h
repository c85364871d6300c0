/* hypervisor_libvirt.h - inside of the libvirt hypervisor driver: what its files share. Nobody else includes this.
 *
 *   hypervisor_libvirt.c             open, close, table of functions; resume, settle, remove and other short orders
 *   hypervisor_libvirt_call.c        calls with deadlines, and the connections ("lanes") that they use
 *   hypervisor_libvirt_connection.c  the watch: event loop, its connection, reconnecting
 *   hypervisor_libvirt_event.c       what events mean: the record of each guest, and what the worker is told
 *   hypervisor_libvirt_inventory.c   list, describe, state, XML
 *   hypervisor_libvirt_job.c         the migration job at the source
 *   hypervisor_libvirt_dirty.c       dirty rates before a migration
 *   hypervisor_libvirt_evidence.c    the baseline after a migration's last byte, and "was every event seen?"
 *   hypervisor_libvirt_freeze.c      freeze
 *   hypervisor_libvirt_thaw.c        thaw, kill
 *   hypervisor_libvirt_incoming.c    the destination before the migration: precheck, prepare, discard
 *   hypervisor_libvirt_offline.c     a shut-off guest's definition: taken away here, made there
 *   hypervisor_libvirt_reach.c       the source before the migration: does it reach the destination?
 *   hypervisor_libvirt_process.[ch], _log.[ch], _xml.[ch], _address.[ch], _memory.[ch]   pure helpers without libvirt
 *
 * Threads: the loop (delivers events, never blocks on libvirt), the keeper (connects the watch), the chore thread
 * (baselines, markers on disk), the gauge (dirty rates), one thread per job inside libvirt's migrate call, and a bounded pool for calls with a
 * deadline. A call that outlives its deadline keeps its pool thread and a reference to the driver until it returns.
 *
 * Locks, in the order of taking: `emit` (held while one event is recorded and told, so that the order told is the
 * order seen) > `lock` (the guests' records) > `pool.lock`. A lane's lock is taken alone. No lock is held across a
 * call into libvirt, except `emit` by the keeper while it registers the events, and a lane's while it connects. */
#ifndef LMO_WORKERS_HYPERVISOR_LIBVIRT_H
#define LMO_WORKERS_HYPERVISOR_LIBVIRT_H

#include "workers/drivers/driver.h"
#include "workers/drivers/hypervisor_libvirt_log.h"
#include "workers/drivers/hypervisor_libvirt_process.h"
#include "workers/drivers/hypervisor_libvirt_xml.h"

#include "base/cleanup.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>

#define LMO_LV_GUESTS_MAX   1024 /* records kept; the oldest uninteresting one makes room */
#define LMO_LV_CALLS_MAX    24   /* pool threads, stuck ones included */
#define LMO_LV_CHORES_MAX   256
#define LMO_LV_EVENTS_MAX   4
#define LMO_LV_LOOP_BEAT_MS 1000

/* libvirt answers at most 5 requests of one client at a time (max_client_requests): calls that may hang in one guest's
 * lock must not stand in front of a resume. So: separate connections. */
enum lmo_lv_lane { LMO_LV_LANE_STATE, LMO_LV_LANE_RESUME, LMO_LV_LANE_ORDERS, LMO_LV_LANE_GAUGE, LMO_LV_LANE_COUNT };

/* What was seen of a guest on the watch. "Since the last migration out was complete" is the only span that the freeze
 * cares about; `anchor` is its beginning. */
struct lmo_lv_anchor {
    bool valid;           /* QEMU said that the outgoing migration is complete (so: its vCPUs stand) */
    bool resumed;         /* a resume was seen after that */
    uint64_t generation;  /* of the watch that saw it; a record of an older generation has gaps */
    uint64_t realtime_us; /* QEMU's stamp */
};

struct lmo_lv_guest {
    struct lmo_lv_guest *next;
    uint64_t used_ns; /* for making room */
    char uuid[LMO_UUID_MAX];
    char name[LMO_NAME_MAX];
    uint64_t seen_generation;    /* watch generation of the last event */
    uint64_t stop_us, resume_us; /* QEMU's stamps of its latest STOP and RESUME; 0: none seen */
    bool paused;                 /* last seen, this generation */
    bool stop_told;              /* ... and SUSPENDED was told already, on QEMU's word */
    bool incoming;               /* came in by migration and was never seen to run here since */
    bool loaded;                 /* ... and is complete */
    bool stopped;                /* its process ended, seen at `stopped_generation` */
    uint64_t stopped_generation;
    int stopped_detail; /* virDomainEventStoppedDetailType */
    struct lmo_lv_anchor anchor;
    struct lmo_qemu qemu;
    struct lmo_domlog_mark log;  /* the domain's log when our job began */
    struct lmo_vcpu_waits *base; /* baseline: waits of the vCPUs, taken after the anchor and proven to be of a guest
                                    that had not been resumed; NULL: none */
    bool frozen;                 /* by freeze(), proven; stays until thaw or kill */
    uint64_t frozen_switches;    /* see lmo_qemu_all_stopped */
    virDomainPtr resume_domain;  /* looked up when the guest was loaded, on the resume lane */
    struct lmo_lv_job *job;      /* the running migration out, started by us */
    bool dirty_wanted;           /* its dirty rate is to be measured ... */
    bool dirty_under_way;        /* ... is being measured */
    uint64_t dirty_ns;           /* when it was measured last; 0: never */
    uint64_t dirty_bytes_per_s;
};

/* A running migration out. */
struct lmo_lv_job {
    struct lmo_lv *lv;
    struct lmo_hv_job spec;     /* texts owned */
    char *xml, *persistent_xml; /* persistent_xml NULL: not asked for */
    lmo_hv_job_end_fn *end;
    void *arg;
    /* under lv->lock */
    bool active;   /* QEMU has begun to send */
    bool returned; /* libvirt's call has returned */
    bool decided;  /* job_start has decided who tells the outcome: itself, or `end` */
    bool end_due;
    int rc;
    struct lmo_err err;
    uint64_t call_ms;
    uint64_t bandwidth, downtime_ms; /* in force */
    uint64_t old_downtime_ms;        /* 0: not known */
};

/* One libvirt call with a deadline. Lives until both the caller and the pool's thread are done with it. */
struct lmo_lv;
struct lmo_lv_op;
typedef int lmo_lv_op_fn(struct lmo_lv_op *op, struct lmo_err *err);
struct lmo_lv_op {
    struct lmo_lv_op *next;
    struct lmo_lv *lv;
    lmo_lv_op_fn *run;
    unsigned refs;
    bool done;
    int rc;
    struct lmo_err err;
    pthread_cond_t finished;
    uint64_t deadline_ns;
    /* arguments and results, as `run` needs them; owned texts are freed with the op */
    char uuid[LMO_UUID_MAX];
    char vm[LMO_NAME_MAX];
    bool flag, flag2;
    uint64_t number, number2;
    enum lmo_run_state state;
    char *text;
    char *result_text;
    struct lmo_hv_disk_map *map;
    struct lmo_vm_facts *facts; /* owned, `count` of them */
    unsigned count;
    struct lmo_progress progress;
};

enum lmo_lv_chore_kind { LMO_LV_CHORE_PIN, LMO_LV_CHORE_BASELINE, LMO_LV_CHORE_MARK, LMO_LV_CHORE_UNMARK };
struct lmo_lv_chore {
    enum lmo_lv_chore_kind kind;
    char uuid[LMO_UUID_MAX];
};

struct lmo_lv {
    struct lmo_hypervisor hv; /* first: the driver's handle */
    char uri[LMO_URL_MAX];
    char state_dir[LMO_PATH_MAX];
    bool tls; /* VIR_MIGRATE_TLS with every migration */
    lmo_hv_event_fn *on_event;
    void *arg;

    pthread_mutex_t emit;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* under `lock`: a record, a job, the watch or `stopping` changed */
    bool stopping;
    unsigned refs; /* under `lock`: the handle, each thread, each call under way */

    /* the watch, under `lock` */
    uint64_t generation; /* counts the unbroken spans; even: broken, odd: whole */
    virConnectPtr watch;
    bool raw_events;                                              /* QEMU's own events are seen too */
    int event_ids[LMO_LV_EVENTS_MAX], raw_ids[LMO_LV_EVENTS_MAX]; /* the keeper's: registrations on `watch`; -1: none */

    struct lmo_lv_guest *guests;
    unsigned guest_count;

    struct {
        pthread_mutex_t lock;
        virConnectPtr conn;
    } lane[LMO_LV_LANE_COUNT];

    struct {
        pthread_mutex_t lock;
        pthread_cond_t wanted;
        struct lmo_lv_op *head, **tail;
        unsigned threads, idle, queued;
        bool stopping;
    } pool;

    struct lmo_lv_chore chores[LMO_LV_CHORES_MAX]; /* under `lock` */
    unsigned chore_head, chore_count;

    pthread_t loop, keeper, chore, gauge;
};

/* ---- call.c */
struct lmo_lv_op *lmo_lv_op_new(struct lmo_lv *lv, lmo_lv_op_fn *run, const char *uuid);
void lmo_lv_op_unref(struct lmo_lv_op *op);
/* Runs op->run on a pool thread and waits for it. TIMEOUT: it may still take effect. BUSY: no thread, not run. */
int lmo_lv_op_call(struct lmo_lv_op *op, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
/* For an op of several calls, before each one that changes a guest's life: TIMEOUT once its caller has left. A call
 * that comes back after minutes must not be followed by a resume or a destroy that nobody expects any more. */
int lmo_lv_op_in_time(const struct lmo_lv_op *op, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_lv_pool_init(struct lmo_lv *lv);
void lmo_lv_pool_stop(struct lmo_lv *lv);
/* A reference to the lane's connection, made anew if it has died. Blocks: pool, job and chore threads only. */
int lmo_lv_lane_get(struct lmo_lv *lv, enum lmo_lv_lane lane, virConnectPtr *ret_conn,
                    struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_connect(struct lmo_lv *lv, virConnectPtr *ret_conn, struct lmo_err *err) LMO_MUST_CHECK;
/* Looks a domain up by UUID. NOT_FOUND when libvirt answered that there is none. */
int lmo_lv_domain(struct lmo_lv *lv, enum lmo_lv_lane lane, const char *uuid, virDomainPtr *ret_dom,
                  struct lmo_err *err) LMO_MUST_CHECK;
/* Turns libvirt's last error into ours. `mutating`: a connection lost on the way leaves the outcome unknown. */
int lmo_lv_fail(struct lmo_err *err, bool mutating, const char *what);
void lmo_lv_unref(struct lmo_lv *lv);
int lmo_lv_thread(struct lmo_lv *lv, void *(*fn)(void *), void *arg, pthread_t *ret) LMO_MUST_CHECK;
void lmo_lv_cond_init(pthread_cond_t *cond);
/* Waits on `changed` with `lock` held. False at the deadline. */
bool lmo_lv_wait_changed(struct lmo_lv *lv, uint64_t deadline_ns);
void lmo_lv_cleanup_domain(virDomainPtr *dom);
void lmo_lv_cleanup_conn(virConnectPtr *conn);
void lmo_lv_cleanup_op(struct lmo_lv_op **op);
#define LMO_LV_AUTO_DOMAIN LMO_CLEANUP(lmo_lv_cleanup_domain)
#define LMO_LV_AUTO_CONN   LMO_CLEANUP(lmo_lv_cleanup_conn)
#define LMO_LV_AUTO_OP     LMO_CLEANUP(lmo_lv_cleanup_op)

/* ---- connection.c */
int lmo_lv_watch_start(struct lmo_lv *lv, struct lmo_err *err) LMO_MUST_CHECK;
/* True once every event that libvirtd had queued before the call has been recorded; false at the deadline or if the
 * watch broke. Not on the loop thread. */
bool lmo_lv_watch_flush(struct lmo_lv *lv, uint64_t generation, uint64_t deadline_ns);

/* ---- event.c: all but the callbacks want `lock` held */
int lmo_lv_on_lifecycle(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *arg);
void lmo_lv_on_raw(virConnectPtr conn, virDomainPtr dom, const char *event, long long seconds, unsigned int micros,
                   const char *details, void *arg);
struct lmo_lv_guest *lmo_lv_guest_find(struct lmo_lv *lv, const char *uuid);
struct lmo_lv_guest *lmo_lv_guest_get(struct lmo_lv *lv, const char *uuid, const char *name); /* NULL: no room */
void lmo_lv_guest_free(struct lmo_lv_guest *g);
void lmo_lv_guest_drop_baseline(struct lmo_lv_guest *g);
int lmo_lv_events_register(struct lmo_lv *lv, virConnectPtr conn, bool *ret_raw, struct lmo_err *err) LMO_MUST_CHECK;
/* A connection with registrations is never freed: they must go before it is closed. */
void lmo_lv_events_unregister(struct lmo_lv *lv, virConnectPtr conn);
void lmo_lv_emit(struct lmo_lv *lv, enum lmo_hv_event_kind kind, const char *uuid,
                 const char *reason); /* `emit` held */

/* ---- inventory.c */
int lmo_lv_list(struct lmo_hypervisor *hv, int (*cb)(void *arg, const struct lmo_vm_facts *vm), void *arg,
                uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
/* `describe` without the dirty rate: nothing is measured because of it. */
int lmo_lv_facts(struct lmo_hypervisor *hv, const char *vm, struct lmo_vm_facts *ret_vm, uint64_t timeout_ms,
                 struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_describe(struct lmo_hypervisor *hv, const char *vm, struct lmo_vm_facts *ret_vm, uint64_t timeout_ms,
                    struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_state(struct lmo_hypervisor *hv, const char *uuid, enum lmo_run_state *ret_state, uint64_t timeout_ms,
                 struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_outgoing_xml(struct lmo_hypervisor *hv, const char *uuid, const struct lmo_hv_disk_map *map, char **ret_xml,
                        uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_precheck_incoming(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                             struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_prepare_incoming(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                            struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_discard_prepared(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms,
                            struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_check_reach(struct lmo_hypervisor *hv, const char *peer_uri, const char *migration_uri, uint64_t timeout_ms,
                       struct lmo_err *err) LMO_MUST_CHECK;
/* On a pool thread: the run state, with the driver's own knowledge of what came in by migration. */
int lmo_lv_observe_state(struct lmo_lv *lv, virDomainPtr dom, const char *uuid, enum lmo_run_state *ret_state,
                         struct lmo_err *err) LMO_MUST_CHECK;
/* libvirt's status file of an active domain. NOT_FOUND: not active. */
int lmo_lv_read_status(const char *name, struct lmo_domxml_status *ret_status, struct lmo_err *err) LMO_MUST_CHECK;

/* ---- job.c */
int lmo_lv_job_adopt(struct lmo_hypervisor *hv, const struct lmo_hv_job *job, lmo_hv_job_end_fn *end, void *arg,
                     struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_job_start(struct lmo_hypervisor *hv, const struct lmo_hv_job *job, lmo_hv_job_end_fn *end, void *arg,
                     struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_job_limits(struct lmo_hypervisor *hv, const char *uuid, uint64_t bandwidth_bytes_per_s, uint64_t downtime_ms,
                      struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_job_progress(struct lmo_hypervisor *hv, const char *uuid, struct lmo_progress *ret_progress,
                        struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_job_abort(struct lmo_hypervisor *hv, const char *uuid, struct lmo_err *err) LMO_MUST_CHECK;
/* `lock` held: the job's QEMU has begun to send; has it? */
void lmo_lv_job_active(struct lmo_lv_guest *g);
bool lmo_lv_job_is_active(const struct lmo_lv_guest *g);

/* ---- dirty.c */
void *lmo_lv_gauge_main(void *arg);
/* What is known; asks for a new measurement if that is old. Never waits for one. */
void lmo_lv_dirty_facts(struct lmo_lv *lv, struct lmo_vm_facts *vm);
int lmo_lv_measure_dirty(struct lmo_hypervisor *hv, const char *uuid, uint64_t fresh_ms, uint64_t timeout_ms,
                         struct lmo_err *err) LMO_MUST_CHECK;

/* ---- evidence.c */
void lmo_lv_chore_add(struct lmo_lv *lv, enum lmo_lv_chore_kind kind, const char *uuid); /* `lock` held */
void *lmo_lv_chore_main(void *arg);
/* Finds and pins the guest's QEMU. Blocks for some file reads; `lock` not held. */
bool lmo_lv_pin(struct lmo_lv *lv, const char *uuid, const char *name);
/* True if all that QEMU had told its monitor before the call has been recorded here. Works on a stopped QEMU too. */
bool lmo_lv_all_events_seen(struct lmo_lv *lv, const struct lmo_qemu *qemu, const char *name, uint64_t generation,
                            uint64_t deadline_ns);
/* Durable note of an outgoing job: process, name, and where the domain's log ended. Written before the job begins, so
 * that a worker that restarts can still tell what libvirt did with the source. */
void lmo_lv_note_outgoing(struct lmo_lv *lv, const char *uuid, const char *name);
void lmo_lv_forget_outgoing(struct lmo_lv *lv, const char *uuid);
/* True if libvirt has declared, since our job began, that it ends this guest because it was migrated. */
bool lmo_lv_ended_as_migrated(struct lmo_lv *lv, const char *uuid);
/* Removes the marker "this process came in by migration". `lock` not held. */
void lmo_lv_unmark_incoming(struct lmo_lv *lv, const char *uuid);
bool lmo_lv_marker_matches(const struct lmo_lv *lv, const char *uuid, pid_t pid, uint64_t start_ticks);

/* ---- offline.c */
int lmo_lv_release(struct lmo_hypervisor *hv, const char *uuid, const char *xml, bool autostart, uint64_t timeout_ms,
                   struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_define(struct lmo_hypervisor *hv, const char *uuid, const char *xml, const struct lmo_hv_disk_map *map,
                  bool autostart, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;

/* ---- freeze.c, thaw.c */
bool lmo_lv_copy_ended(struct lmo_hypervisor *hv, const char *uuid);
bool lmo_lv_reachable(struct lmo_hypervisor *hv);
void lmo_lv_freeze(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_freeze_result *ret);
/* Path of the note "this process was proven frozen". */
void lmo_lv_freeze_record(const struct lmo_lv *lv, const char *uuid, char *ret, size_t size);
int lmo_lv_thaw(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_lv_kill(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;

#endif
