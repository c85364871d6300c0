/* worker.h - the worker's inside: its state, and what its files offer each other. Private to workers/.
 *
 * Everything here is touched on the loop's thread only, unless a comment says otherwise. Records (incoming, outgoing)
 * are removed by CLOSE_* alone; whatever comes back later (a driver call, a peer's answer) therefore finds its record
 * again by migration, never by a pointer that it kept. */
#ifndef LMO_WORKERS_WORKER_H
#define LMO_WORKERS_WORKER_H

#include "base/loop.h"
#include "base/pool.h"
#include "http/client.h"
#include "http/server.h"
#include "pki/permit.h"
#include "proto/op.h"
#include "proto/peer.h"
#include "workers/drivers/driver.h"
#include "workers/journal.h"
#include "workers/logic/destination.h"
#include "workers/logic/source.h"
#include "workers/runtime.h"

#include <pthread.h>

/* Bounds. */
#define LMO_MIGRATIONS_MAX     256   /* records in each role */
#define LMO_OPS_PER_MIGRATION  512   /* journaled and not yet forgotten */
#define LMO_OPS_RUNNING_MAX    1024  /* at once, all migrations */
#define LMO_OP_WAITERS_MAX     8     /* requests that wait for one op */
#define LMO_STREAM_WAITERS_MAX 8     /* long polls */
#define LMO_ASKERS_MAX         16    /* peers' requests that wait for one source record */
#define LMO_EVENTS_MAX         10000 /* durable, not acknowledged; above it no new migration is accepted */
#define LMO_DEFERRED_MAX       64    /* hypervisor events held back for one record */
#define LMO_INBOX_MAX          8192

/* Time limits, ms. */
#define LMO_PORT_TIMEOUT_MS       30000 /* a port's interface and flows, after a restart */
#define LMO_STATE_TIMEOUT_MS      3000  /* asking the hypervisor for a run state */
#define LMO_FREEZE_TIMEOUT_MS     3000  /* the driver's freeze */
#define LMO_KILL_TIMEOUT_MS       10000
#define LMO_RESUME_TIMEOUT_MS     10000
#define LMO_REMOVE_TIMEOUT_MS     15000
#define LMO_REVIVE_TIMEOUT_MS     15000
#define LMO_FENCE_TIMEOUT_MS      5000 /* the driver's fence and verify */
#define LMO_ASK_TIMEOUT_MS        1500 /* a peer's answer to freeze: asked again, idempotent */
#define LMO_PEER_FENCE_TIMEOUT_MS 6000
#define LMO_PEER_KILL_TIMEOUT_MS  12000
#define LMO_PING_TIMEOUT_MS       3000
#define LMO_SUSPENDED_TIMEOUT_MS  1000
#define LMO_WARM_EVERY_MS         20000 /* below the idle time-outs of client and server */
#define LMO_SAMPLE_EVERY_MS       200   /* with the gate shut */
#define LMO_SAMPLE_OPEN_MS        500

/* While the gate is shut: the least that the hypervisor accepts. */
#define LMO_GATE_BANDWIDTH   (UINT64_C(1024) * 1024)
#define LMO_GATE_DOWNTIME_MS 1

/* ------------------------------------------------------------------ driver calls (calls.c) */

/* One call to a driver: `work` on a pool thread, `done` on the loop. Embedded as the first member of something bigger.
 * Calls with the same lane run one after the other, in order: at most one mutating call per guest and driver. */
struct lmo_call {
    struct lmo_worker *w;
    void (*work)(struct lmo_call *c);
    void (*done)(struct lmo_call *c, bool ran); /* ran false: the worker is ending; only free */
    bool fast;                                  /* a guest waits for it: its own pool */
    char lane[LMO_NAME_MAX + LMO_UUID_MAX + 8]; /* "": none */
    struct lmo_call *next;
};
void lmo_call_submit(struct lmo_worker *w, struct lmo_call *c);
void lmo_call_lane(struct lmo_call *c, const char *driver, const char *what);

void lmo_calls_free(struct lmo_worker *w);

struct lmo_lane;

/* ------------------------------------------------------------------ ops (ops*.c) */

struct lmo_waiter {
    struct lmo_waiter *next;
    struct lmo_worker *w;
    struct lmo_http_request *http;
    char id[LMO_OP_ID_MAX];
    uint64_t timer;
};

struct lmo_op {
    struct lmo_op *next;
    struct lmo_worker *w;
    struct lmo_op_request *req; /* owned */
    const struct lmo_op_info *info;
    struct lmo_op_reply reply; /* filled while it runs */
    struct lmo_waiter *waiters;
    unsigned waiter_count;
    bool accepted;     /* durable; it may act */
    bool finished;     /* its result is on its way to the disk */
    bool recovered;    /* found running at start */
    bool made_record;  /* its acceptance made the migration's record */
    bool told_running; /* somebody got 202: a read-only result is then kept for a while */
    char *result;      /* read-only and finished: the encoded reply; owned */
    int result_state;
    unsigned step;    /* of its kind's own sequence */
    unsigned pending; /* answers that it still waits for */
    uint64_t timer;
    uint64_t started_ns, deadline_ns;
    struct lmo_permit *permit; /* PERMIT, RELAY_FREEZE, JOB_START: verified; owned */
    struct lmo_err err;        /* first failure of several answers */
};

/* ------------------------------------------------------------------ records */

/* Something that came for a record before the record could take it. */
struct lmo_deferred {
    struct lmo_deferred *next;
    bool job_end;
    struct lmo_hv_event ev;
    struct lmo_hv_job_end end;
};

struct lmo_peer {
    char name[LMO_NAME_MAX];
    char url[LMO_URL_MAX];
    unsigned connections; /* to be open at once */
};
#define LMO_PEERS_MAX (LMO_VOLUMES_MAX + 1)

struct lmo_record {
    char *permit_text;           /* owned; NULL: none */
    struct lmo_permit permit;    /* valid if permit_text is there */
    struct lmo_op_request setup; /* the order that set it up: ports, addresses; kind NONE: none */
};

/* A cutover in which this host is the destination. */
struct lmo_incoming {
    struct lmo_incoming *next;
    struct lmo_worker *w;
    struct lmo_dst dst;
    struct lmo_record *more; /* owned; NULL before the permit */
    bool observed;           /* since this process started */
    bool observing;
    uint32_t observe_tries;
    struct lmo_deferred *deferred;
    unsigned deferred_count;
    uint64_t wake_timer, observe_timer, warm_timer;
    unsigned watched_count; /* ports that AWAIT_INSTALLED looked at: to be released */
    struct lmo_port watched[LMO_PORTS_MAX];
    /* for the log line at the end; lmo_now_ns */
    uint64_t loaded_ns, asked_ns, answered_ns, fenced_ns, resumed_ns;
};

struct lmo_asker {
    struct lmo_asker *next;
    struct lmo_http_request *http;
    bool kill; /* else: freeze */
};

/* A migration in which this host is the source. */
struct lmo_outgoing {
    struct lmo_outgoing *next;
    struct lmo_worker *w;
    struct lmo_src src;
    struct lmo_record *more; /* owned; NULL before JOB_START */
    bool starting;           /* JOB_START is inside the driver */
    bool observed, observing;
    bool unadopted;     /* a job that an earlier process started is not watched yet */
    bool revive_paused; /* REVIVE said that its owner had paused the guest */
    uint32_t observe_tries;
    struct lmo_deferred *deferred;
    unsigned deferred_count;
    struct lmo_asker *askers;
    unsigned asker_count;
    uint64_t wake_timer, observe_timer, warm_timer, watch_timer;
    /* the running job */
    bool sampling;
    bool has_sample, sample_news; /* progress: known; not yet sent to the coordinator */
    struct lmo_progress sample;
    int64_t sample_us;
    uint64_t sampled_ns, sample_after_ns;
    uint64_t progress_drop_per_s; /* how fast `remaining` fell between the last two samples */
    bool aborting;                /* asked by the guard, the dead-man or an order */
    bool abort_asking;            /* inside the driver: one at a time, however long it takes */
    uint64_t abort_retry_ns;
};

/* ------------------------------------------------------------------ the worker */

struct lmo_peer_call;

struct lmo_permit_cache_entry {
    char migration[LMO_ID_MAX];
    char *text;
};
#define LMO_PERMIT_CACHE_MAX 32

struct lmo_inbox_item {
    struct lmo_inbox_item *next;
    bool job_end;
    char uuid[LMO_UUID_MAX];
    struct lmo_hv_event ev;
    struct lmo_hv_job_end end;
};

struct lmo_worker {
    struct lmo_worker_config cfg;
    struct lmo_worker_drivers drv;
    bool drivers_open;
    struct lmo_loop *loop;
    struct lmo_pool *fast, *slow;
    struct lmo_http_server *server;
    struct lmo_http_client *client;
    struct lmo_journal *journal;
    int lock_fd;
    bool stopping;
    uint64_t watch_timer;

    pthread_rwlock_t permit_lock; /* guards permit_public: read by listener threads, replaced by a reload */
    struct lmo_permit_public *permit_public;

    /* inbox: drivers' threads to the loop */
    pthread_mutex_t inbox_lock;
    struct lmo_inbox_item *inbox, **inbox_last;
    unsigned inbox_count;
    bool inbox_overflow;
    int inbox_fd;

    struct lmo_lane *lanes;
    struct lmo_call *stalled; /* a pool would not take them; tried again */
    uint64_t stalled_timer;

    struct lmo_op *ops;
    unsigned op_count;
    struct lmo_incoming *incoming;
    struct lmo_outgoing *outgoing;
    unsigned incoming_count, outgoing_count;
    struct lmo_permit_cache_entry permits[LMO_PERMIT_CACHE_MAX]; /* came with a ping, before the job; newest last */

    struct lmo_waiter *stream_waiters; /* oldest first */
    unsigned stream_waiter_count;
    uint64_t progress_due_ns, progress_timer; /* progress alone ends no poll before that */
    uint64_t coordinator_ns;          /* last sign of life */
    struct lmo_peer_call *peer_calls; /* outstanding */
};

/* runtime.c */
int lmo_worker_verify_permit(struct lmo_worker *w, const char *text, struct lmo_permit *ret,
                             struct lmo_err *err) LMO_MUST_CHECK; /* any thread */
/* Is `epoch` of guest `vm` still to be served in that role? 0, STALE_EPOCH or GONE. */
int lmo_worker_check_epoch(struct lmo_worker *w, const char *vm, uint64_t epoch, enum lmo_op_role role, bool *ret_raise,
                           struct lmo_err *err) LMO_MUST_CHECK;
/* Adds the adoption of `epoch` to a batch. */
void lmo_worker_adopt_epoch(struct lmo_worker *w, struct lmo_batch *b, const char *vm, uint64_t epoch);
/* Drivers' callbacks; any thread. */
void lmo_worker_on_hv_event(void *arg, const struct lmo_hv_event *ev);
void lmo_worker_on_job_end(void *arg, const char *uuid, const struct lmo_hv_job_end *end);

/* records.c */
struct lmo_incoming *lmo_incoming_find(struct lmo_worker *w, const char *migration);
struct lmo_outgoing *lmo_outgoing_find(struct lmo_worker *w, const char *migration);
/* The newest one of that guest that is not over; NULL: none. */
struct lmo_incoming *lmo_incoming_of_vm(struct lmo_worker *w, const char *vm);
struct lmo_outgoing *lmo_outgoing_of_vm(struct lmo_worker *w, const char *vm);
/* LIMIT when there are too many. */
int lmo_incoming_make(struct lmo_worker *w, const char *migration, const char *vm, struct lmo_incoming **ret,
                      struct lmo_err *err) LMO_MUST_CHECK;
int lmo_outgoing_make(struct lmo_worker *w, const char *migration, const char *vm, struct lmo_outgoing **ret,
                      struct lmo_err *err) LMO_MUST_CHECK;
void lmo_incoming_remove(struct lmo_incoming *in);
void lmo_outgoing_remove(struct lmo_outgoing *out);
bool lmo_incoming_over(const struct lmo_incoming *in);
bool lmo_outgoing_over(const struct lmo_outgoing *out);
struct lmo_record *lmo_record_new(const struct lmo_op_request *setup, const char *permit_text,
                                  const struct lmo_permit *permit);
struct lmo_record *lmo_record_free(struct lmo_record *r);
void lmo_permit_cache_put(struct lmo_worker *w, const char *migration, const char *text);
const char *lmo_permit_cache_get(struct lmo_worker *w, const char *migration);
int lmo_records_load(struct lmo_worker *w, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_records_start(struct lmo_worker *w);
void lmo_records_free(struct lmo_worker *w);

/* cutover_destination.c */
/* Carries out one step. ret_actions (may be NULL) gets what the machine said. Fills the times that are 0. */
/* The source's word (ev->kind ANSWER). Behind `frozen` there is no way back, so the copy is looked at first: if it has ended
 * and the hypervisor has not said so yet, that is what the machine is told, and the source is still the guest. */
void lmo_incoming_answer(struct lmo_incoming *in, struct lmo_dst_event *ev);
void lmo_incoming_feed(struct lmo_incoming *in, struct lmo_dst_event *ev, struct lmo_dst_actions *ret_actions);
void lmo_incoming_hv_event(struct lmo_incoming *in, const struct lmo_hv_event *ev);
/* Asks the hypervisor how the guest stands and feeds RESTARTED; again until it answers. */
void lmo_incoming_observe(struct lmo_incoming *in);

/* cutover_peers.c: the answers come back as events of the record's machine */
void lmo_incoming_ask_freeze(struct lmo_incoming *in);
void lmo_incoming_ask_kill(struct lmo_incoming *in);
void lmo_incoming_ask_fence(struct lmo_incoming *in, unsigned index);
void lmo_incoming_ask_verify(struct lmo_incoming *in, unsigned index);
/* Opens and keeps open the connections that the cutover will need. */
void lmo_incoming_warm(struct lmo_incoming *in);
unsigned lmo_incoming_peers(const struct lmo_permit *permit, const struct lmo_op_request *setup,
                            struct lmo_peer peers[LMO_PEERS_MAX]);

/* cutover_source.c */
void lmo_outgoing_feed(struct lmo_outgoing *out, struct lmo_src_event *ev, struct lmo_src_actions *ret_actions);
void lmo_outgoing_hv_event(struct lmo_outgoing *out, const struct lmo_hv_event *ev);
void lmo_outgoing_job_end(struct lmo_outgoing *out, const struct lmo_hv_job_end *end);
void lmo_outgoing_observe(struct lmo_outgoing *out);
void lmo_outgoing_replay(struct lmo_outgoing *out); /* what was deferred while it could not take it */
/* Does it take what it is asked or told? Not before the guest was seen, but for a freeze whose answer stands. */
bool lmo_outgoing_ready(const struct lmo_outgoing *out, bool freeze);
/* Takes http: answers it now, or when the machine has its answer. */
void lmo_outgoing_ask(struct lmo_outgoing *out, struct lmo_http_request *http, bool kill, uint64_t epoch);

/* job.c */
void lmo_job_watch(struct lmo_outgoing *out); /* starts the sampling, the gate guard and the dead-man timer */
void lmo_job_unwatch(struct lmo_outgoing *out);
void lmo_job_iteration(struct lmo_outgoing *out, uint64_t iteration);
void lmo_job_abort(struct lmo_outgoing *out, const char *why); /* asks; again until the job has ended */
void lmo_job_describe(const struct lmo_outgoing *out, struct lmo_hv_job *ret);

/* peers.c: what this worker asks of others */
typedef void lmo_peer_fn(void *arg, int code, const char *text, const struct lmo_peer_reply *reply);
/* `what` is the last word of the path. Exactly one call of fn, never at once. code 0: reply is set. code CANCELLED: the
 * worker is ending; fn only frees. */
void lmo_peer_call(struct lmo_worker *w, const char *url, const char *name, const char *what, const char *permit,
                   unsigned index, uint64_t pause, uint64_t timeout_ms, lmo_peer_fn *fn, void *arg);
/* Opens or keeps open a connection; fn may be NULL. The permit (may be NULL) travels along. */
void lmo_peer_ping(struct lmo_worker *w, const struct lmo_peer *peer, const char *permit, lmo_peer_fn *fn, void *arg);
void lmo_peers_free(struct lmo_worker *w); /* every outstanding fn is called with LMO_E_CANCELLED */

/* ops.c */
/* Take the request; called on the loop. */
void lmo_ops_put(struct lmo_worker *w, struct lmo_op_request *req, struct lmo_http_request *http, uint64_t wait_ms);
void lmo_ops_get(struct lmo_worker *w, const char *id, struct lmo_http_request *http, uint64_t wait_ms);
struct lmo_op *lmo_ops_find(struct lmo_worker *w, const char *id);
/* Ends the op: journals the result, then answers. code 0: done. The text may be NULL. */
void lmo_op_finish(struct lmo_op *op, int code, const char *text);
void lmo_op_fail(struct lmo_op *op, int code, const char *fmt, ...) LMO_PRINTF(3, 4);
uint64_t lmo_op_left_ms(const struct lmo_op *op); /* until its deadline; at least 1 */
int lmo_ops_recover(struct lmo_worker *w, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_ops_restart(struct lmo_worker *w);
void lmo_ops_free(struct lmo_worker *w);

/* ops_driver.c: kinds that are one driver call. Returns false if the kind is not one of them. */
bool lmo_op_is_driver_call(enum lmo_op_kind kind);
void lmo_op_start_driver(struct lmo_op *op);
/* UNSUPPORTED when this worker lacks the capability, INVALID when a field is missing. Before anything is journaled. */
int lmo_op_check(struct lmo_worker *w, const struct lmo_op_request *req, struct lmo_err *err) LMO_MUST_CHECK;

/* ops_machine.c: kinds that go through a record */
void lmo_op_start_machine(struct lmo_op *op);
/* The record moved (or the order is new): whoever waits for it looks again. */
void lmo_ops_incoming_moved(struct lmo_incoming *in, const struct lmo_dst_actions *a);
void lmo_ops_outgoing_moved(struct lmo_outgoing *out, const struct lmo_src_actions *a);
/* Makes the record that the order needs, as part of its acceptance (text: the encoded request); and its undo, when the
 * acceptance could not be journaled. */
int lmo_op_admit(struct lmo_op *op, const char *text, struct lmo_batch *b, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_op_unadmit(struct lmo_op *op);
/* Starts the op again a little later, or fails it with TIMEOUT and `why` if its time is up. */
void lmo_op_again(struct lmo_op *op, const char *why);

/* op_permit.c, op_job.c (JOB_START, OPEN_GATE), op_close.c */
void lmo_op_start_permit(struct lmo_op *op);
void lmo_op_start_job(struct lmo_op *op);
void lmo_op_start_close(struct lmo_op *op);

/* server.c */
int lmo_server_start(struct lmo_worker *w, struct lmo_err *err) LMO_MUST_CHECK;
/* Posts fn(arg) to the loop; false: the queue is full (nothing was posted). Any thread. */
bool lmo_worker_post(struct lmo_worker *w, lmo_loop_fn *fn, void *arg);

/* server_peer.c: what peers ask of this worker */
void lmo_server_peer(struct lmo_worker *w, struct lmo_http_request *http, const char *what);

/* stream.c */
void lmo_stream_get(struct lmo_worker *w, struct lmo_http_request *http, uint64_t after, uint64_t wait_ms);
void lmo_stream_news(void *arg); /* arg: the worker; durable events or progress are there */
/* A new sample: told now, or with the others that come meanwhile. */
void lmo_stream_progress(struct lmo_worker *w);
void lmo_stream_free(struct lmo_worker *w);

/* observe.c: take http; on the loop */
void lmo_observe_host(struct lmo_worker *w, struct lmo_http_request *http);
void lmo_observe_vms(struct lmo_worker *w, struct lmo_http_request *http, const char *vm); /* NULL: all */
void lmo_observe_migrations(struct lmo_worker *w, struct lmo_http_request *http);
void lmo_observe_volumes(struct lmo_worker *w, struct lmo_http_request *http);
void lmo_observe_volume(struct lmo_worker *w, struct lmo_http_request *http, const char *volume);
void lmo_observe_port(struct lmo_worker *w, struct lmo_http_request *http, const char *port);

#endif
