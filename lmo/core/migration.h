/* migration.h - the record of one migration, the events that move it, and the effects that follow.
 *
 * The record is the whole truth that the coordinator holds of a migration: it is stored after every step, before
 * any of the step's effects is carried out. It contains no pointer: a copy is a snapshot.
 *
 * The record's task list IS the outbox. A task is written down as SENT in the same transaction as the decision to
 * send it, so a coordinator that starts again finds in the record exactly the calls that may be under way, and
 * asks again with the same operation id; workers answer a repeated id from their journal. */
#ifndef LMO_CORE_MIGRATION_H
#define LMO_CORE_MIGRATION_H

#include "base/err.h"
#include "base/ops.h"
#include "base/types.h"
#include "core/convergence.h"
#include "core/notice.h"
#include "core/phase.h"
#include "core/resolve.h"
#include "core/resource.h"

#include <stddef.h>

#define LMO_TASKS_MAX 64
#define LMO_EPOCH_STRIDE 16 /* epochs that one migration may use; the store hands out multiples */

/* How far the clocks of source and destination may be apart. A permit is armed only if it was issued at most
 * LMO_PERMIT_SKEW_MS (a minute, pki/permit.h) in the destination's future: half of that leaves the other half for the
 * coordinator's own clock and for what the clocks drift until then. Stamps of both hosts are also shown side by side. */
#define LMO_CLOCK_SKEW_MAX_MS 30000

enum lmo_task_state {
    LMO_TASK_WAITING = 0, /* an earlier group of the phase is not done, or a retry is not due yet */
    LMO_TASK_SENT,        /* may have reached the worker */
    LMO_TASK_DONE,
};
const char *lmo_task_state_text(enum lmo_task_state s);
enum lmo_task_state lmo_task_state_from_text(const char *text);

/* One call to one worker, as part of the present phase. */
struct lmo_task {
    enum lmo_op_kind kind;
    enum lmo_task_state state;
    uint8_t group;        /* a group starts when all lower ones are done */
    uint8_t index;        /* which volume or port; 0 otherwise */
    bool draining;        /* of the phase that failed: its answer is awaited before anything is undone */
    uint16_t attempts;    /* how often it was sent, unknown outcomes included */
    uint32_t ordinal;     /* unique within the migration; part of the operation id */
    uint64_t epoch;       /* under which it is ordered; fixed when it is first sent */
    int64_t first_ms;     /* when first sent; 0: not yet */
    int64_t not_before_ms;/* a retry waits until then; 0: at once */
    char last_error[LMO_TEXT_MAX];
};

/* What the requester wants; 0 = the coordinator's default, filled in before the record is made. */
struct lmo_policy {
    uint64_t bandwidth_bytes_per_s;  /* cap of the memory stream; 0: unlimited */
    uint32_t max_downtime_ms;        /* switch-over is allowed when the rest fits in this */
    uint32_t convergence_timeout_ms; /* memory; 0: computed from what is to be moved */
    uint32_t disk_timeout_ms;        /* local disks, where a driver copies them; 0: computed likewise */
    bool accept_stateful_loss;       /* move although a stateful firewall's flow state is lost */
    bool allow_throttle;             /* slow its vCPUs down if it dirties memory too fast */
    uint32_t throttle_initial_percent, throttle_increment_percent;
    enum lmo_on_timeout on_timeout;
    uint32_t force_max_pause_ms;     /* with on_timeout force: the pause that is allowed then */
    enum lmo_prediction prediction;
    bool force;                      /* although the destination is cordoned */
    bool accept_host_devices;        /* a guest that is shut off moves although its definition names devices of its host */
};

struct lmo_phase_time {
    enum lmo_phase phase;
    int64_t started_ms, ended_ms; /* 0: not yet */
    uint64_t us;                  /* how long it took, by a clock that does not jump; 0: not ended */
};
#define LMO_PHASE_TIMES_MAX 16

/* Stamps are CLOCK_REALTIME of the host that saw it, microseconds; durations come from one host's monotonic clock. */
struct lmo_cutover {
    int64_t suspended_us, loaded_us, frozen_us, fenced_us, resumed_us;
    uint64_t loaded_to_resumed_us, freeze_us, fence_us, verify_us;
    char freeze_answer[16];
    char evidence[512];
    bool committed, resumed;
    bool defined;                  /* a guest that is shut off: the destination has its definition */
};

/* What a host's clock showed while it carried out a call: at some moment from the sending of the call to its answer. */
struct lmo_clock_sample {
    int64_t stamp_us;        /* CLOCK_REALTIME there; 0: not known */
    int64_t from_ms, to_ms;  /* by the coordinator's clock that does not jump */
};

/* Where a migration stands in a distributed trace (W3C trace context): lower-case hexadecimal, as in `traceparent`. */
#define LMO_TRACE_ID_MAX 33
#define LMO_SPAN_ID_MAX  17
struct lmo_trace {
    char id[LMO_TRACE_ID_MAX];     /* empty: a record from before there were traces */
    char parent[LMO_SPAN_ID_MAX];  /* the requester's span; empty: the trace begins here */
    char span[LMO_SPAN_ID_MAX];    /* the migration's own; those of its phases follow from it */
    bool sampled;                  /* its spans are exported */
};

struct lmo_migration {
    char id[LMO_ID_MAX];
    uint64_t version;              /* +1 at every step */
    char source[LMO_NAME_MAX], destination[LMO_NAME_MAX];
    char drain[LMO_ID_MAX];        /* that it is part of; empty: none */
    uint64_t epoch;                /* of the guest's ownership: a multiple of LMO_EPOCH_STRIDE at first, raised by 1
                                    * where safety.md asks for a higher one (never by as much as the stride) */
    enum lmo_phase phase;
    enum lmo_phase failed_in;      /* valid once reason_code is set */
    int reason_code;               /* LMO_E_*; 0: nothing went wrong */
    char reason[LMO_TEXT_MAX];
    char waiting_for[LMO_TEXT_MAX];/* what the record waits for, in words; empty: nothing unusual */
    int64_t waiting_since_ms;
    bool cancel_requested;
    int64_t created_ms, updated_ms, phase_started_ms;
    uint64_t phase_started_boot_us; /* for durations; INT64_MAX once the machine was restarted in this phase */
    int64_t deadline_ms;           /* of the present phase; 0: none */
    struct lmo_policy policy;
    struct lmo_notice notice;      /* to the guest's owner, before anything is done */
    struct lmo_trace trace;

    struct lmo_vm_facts vm;        /* uuid and name from the start, the rest from `describe` */
    char peer_uri[LMO_URL_MAX];    /* destination's hypervisor, from its worker's capabilities */
    char migration_uri[LMO_URL_MAX];
    char source_url[LMO_URL_MAX];  /* workers' own URLs: the two talk to each other at the cutover */
    char destination_url[LMO_URL_MAX];

    struct lmo_clock_sample source_clock; /* as of `describe`; compared with the destination's in precheck */

    uint32_t next_ordinal;
    uint64_t dispatched;           /* bit per lmo_op_kind: was ever sent */
    unsigned resource_count;       /* what it made, and what of it is undone: the resource journal */
    struct lmo_resource resources[LMO_RESOURCES_MAX];
    uint8_t group;                 /* of the present phase's plan that is being worked on */
    bool group_open;               /* its tasks have been put into the list */
    unsigned task_count;
    struct lmo_task tasks[LMO_TASKS_MAX];

    bool switchover_ready;         /* persisted before the gate is ordered open */
    int64_t held_since_ms, held_until_ms; /* queued because it would not converge; 0: not */
    struct lmo_convergence convergence;
    uint64_t share_bytes_per_s;    /* bandwidth that admission gives it, ordered last; 0: none given, only the policy limits */
    uint64_t share_held_bytes_per_s; /* may be in force until the worker has confirmed a smaller one; >= the share */
    bool gate_open;                /* limits were confirmed to be in force at least once */
    uint32_t downtime_ms;          /* limit ordered last: begins low, is raised in steps to policy.max_downtime_ms */
    uint32_t downtime_iteration;   /* pass over the memory that was under way when it was ordered */
    bool job_ended, job_call_ok;
    uint64_t job_call_ms;
    bool destination_discarded;    /* its worker said so: nothing can run there any more */
    struct lmo_progress progress;
    uint8_t percent;               /* never falls */
    struct lmo_cutover cutover;
    unsigned phase_time_count;
    struct lmo_phase_time phase_times[LMO_PHASE_TIMES_MAX];
};

/* What of a record means something: all but the members of its arrays beyond their counts, which are never read and may
 * hold anything. In order, not overlapping. */
#define LMO_EXTENTS 4
struct lmo_extent {
    size_t at, size; /* bytes from the record's beginning */
};
void lmo_migration_extents(const struct lmo_migration *m, struct lmo_extent ret[LMO_EXTENTS]);
/* Copies just that; `to` may not be `from`. */
void lmo_migration_copy(struct lmo_migration *to, const struct lmo_migration *from);

/* ------------------------------------------------------------------ events */

enum lmo_event_kind {
    LMO_EV_ADMITTED = 1, /* the limits allow it to start; with a code: it can never start, and the text says why */
    LMO_EV_TASK_DONE,
    LMO_EV_TASK_FAILED,
    LMO_EV_WORKER,       /* a worker's event (its kind in `worker.kind`) */
    LMO_EV_CANCEL,
    LMO_EV_TIMER,        /* some deadline may have passed; harmless at any time */
    LMO_EV_RECOVERED,    /* a coordinator has just loaded the record */
    LMO_EV_RESOLVE,      /* a person has decided (core/resolve.h) */
    LMO_EV_HELD,         /* a call is not sent yet: its host does not answer (core/breaker.h); `text` */
    LMO_EV_SHARE,        /* admission gives it another share of its links */
    LMO_EV_ACKNOWLEDGED, /* the guest's owner says that it may move now; `text` says who said so */
    LMO_EV_COUNT
};

struct lmo_event {
    enum lmo_event_kind kind;
    int64_t now_ms;                /* since 1970, when the event was taken from the queue; never jumps within a run */
    uint64_t now_boot_us;          /* CLOCK_BOOTTIME likewise */
    uint32_t random;               /* for jitter */
    /* TASK_* */
    uint32_t ordinal;
    int code;                      /* TASK_FAILED, ADMITTED: LMO_E_* */
    const char *text;              /* TASK_FAILED, ADMITTED with a code: reason. TIMER in the queue: what holds it. Borrowed */
    /* ADMITTED, SHARE */
    uint64_t share_bytes_per_s;
    const char *peer_uri, *migration_uri; /* ADMITTED: of the destination as it is now; NULL: unchanged; borrowed */
    const struct lmo_vm_facts *facts; /* DESCRIBE done; borrowed; volumes' and ports' workers filled in */
    const char *export_name;       /* ATTACH done; borrowed */
    const char *answer, *evidence; /* RELAY_FREEZE done; borrowed */
    int64_t worker_us;             /* DESCRIBE, PRECHECK_INCOMING done: the worker's CLOCK_REALTIME; 0: not said */
    /* WORKER */
    const struct lmo_worker_event *worker; /* borrowed */
    /* RESOLVE; `text` says who and why */
    enum lmo_resolution resolution;
    const struct lmo_resolve_view *view; /* borrowed */
};

/* ------------------------------------------------------------------ effects */

struct lmo_effect_journal {
    char what[LMO_TEXT_MAX];       /* what was decided or observed */
    char why[LMO_TEXT_MAX];
};

#define LMO_EFFECT_JOURNAL_MAX 16
#define LMO_EFFECT_ENTERED_MAX 8

/* Carried out only after `next` is durable. */
struct lmo_effects {
    bool durable;                  /* false: nothing but a progress sample changed; need not be stored */
    uint64_t send;                 /* bit per index of next->tasks: to be sent now */
    int64_t wake_ms;               /* CLOCK_REALTIME at which an LMO_EV_TIMER is due; 0: none */
    bool ended;                    /* the record has just become terminal */
    bool notice_settled;           /* the wait for the guest's owner has just ended */
    unsigned entered_count;        /* phases that this step entered, in order; beyond the limit the last takes the place */
    enum lmo_phase entered[LMO_EFFECT_ENTERED_MAX];
    unsigned journal_count;
    struct lmo_effect_journal journal[LMO_EFFECT_JOURNAL_MAX];
};

/* The one function that decides. `next` may not alias `current`. Returns 0, or a negative LMO_E_* when the event is
 * not acceptable now (a cancel past the point of no return: CONFLICT); then nothing has changed and `next` and
 * `effects` must not be used. Events that are merely stale (an answer to a task of an earlier phase, a second
 * delivery) are accepted and change nothing but the version. */
int lmo_core_step(const struct lmo_migration *current, const struct lmo_event *event, struct lmo_migration *next,
                  struct lmo_effects *effects, struct lmo_err *err) LMO_MUST_CHECK;

/* A record that was just made shall wait for the guest's owner first. */
void lmo_notice_begin(struct lmo_migration *m, const char *url, uint32_t deadline_ms, enum lmo_no_answer on_no_answer);
bool lmo_migration_awaits_notice(const struct lmo_migration *m);
/* The span of its n-th phase (index in phase_times), or of the root for LMO_PHASE_TIMES_MAX: always the same for the same
 * record, so that a coordinator that starts again, a worker and the exporter speak of the same one. */
void lmo_trace_phase_span(const struct lmo_migration *m, unsigned n, char ret[LMO_SPAN_ID_MAX]);

/* Limit of the memory stream once the gate is open: the policy's, and within it the share. 0: none. */
uint64_t lmo_migration_bandwidth(const struct lmo_migration *m);
/* What a migration takes of the fleet, by its record alone: a slot at both hosts; and bandwidth between them. */
bool lmo_migration_is_running(const struct lmo_migration *m);
bool lmo_migration_streams(const struct lmo_migration *m);
/* May its share be changed now? Not while an order with the last one is under way. */
bool lmo_migration_adjustable(const struct lmo_migration *m);

/* "<migration>.<epoch>.<ordinal>-<kind>" */
void lmo_task_op_id(const struct lmo_migration *m, const struct lmo_task *t, char out[LMO_OP_ID_MAX]);
/* Is this the move of a guest that is shut off? Known once it is described. */
bool lmo_migration_shut_off(const struct lmo_migration *m);
/* Was a call of that kind ever sent? Then it may have been carried out, whatever came back. */
bool lmo_migration_sent(const struct lmo_migration *m, enum lmo_op_kind kind);
/* Host whose worker the task goes to. */
const char *lmo_task_host(const struct lmo_migration *m, const struct lmo_task *t);

/* Properties that hold for every record that the core ever produced; checked before a store and after a load.
 * Returns NULL, or a sentence that names the broken one. */
const char *lmo_migration_broken(const struct lmo_migration *m);

#endif
