/* driver.h - the contract between a worker and the things it touches: hypervisor, volume service, network.
 *
 * Rules for every driver:
 *  - Functions may block and are called on the worker's pool threads, several at once for different guests;
 *    at most one mutating call per guest and driver at a time (the worker sees to that).
 *  - Every call has a deadline (`timeout_ms`, from now) and returns 0 or a negative LMO_E_*: TIMEOUT/UNKNOWN when
 *    the effect may or may not have happened, other codes only when it certainly did not.
 *  - Every mutating call is idempotent: asked for a state that already holds, it returns 0 and changes nothing.
 *  - Everything a driver reports is what it observed, never what it asked for.
 *  - `ret_` outputs are not touched on failure. Arguments are borrowed for the length of the call.
 *  - A driver decides nothing about the workflow, logs with lmo_log(), holds no process globals, and keeps its
 *    connections open: reconnecting is its own business, off any path that a guest waits for.
 *  - Drivers know no other driver. Only hypervisor_libvirt.c includes libvirt's headers. */
#ifndef LMO_WORKERS_DRIVER_H
#define LMO_WORKERS_DRIVER_H

#include "base/err.h"
#include "base/ops.h"
#include "base/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ------------------------------------------------------------------ hypervisor */

enum lmo_hv_event_kind {
    LMO_HV_EV_NONE = 0,
    LMO_HV_EV_INCOMING,       /* destination: QEMU started and waits for a migration stream */
    LMO_HV_EV_SUSPENDED,      /* source: vCPUs paused by the migration's switch-over: the blackout begins */
    LMO_HV_EV_LOADED,         /* destination: incoming state complete, guest paused: cutover may start */
    LMO_HV_EV_RESUMED,        /* vCPUs may run (either side) */
    LMO_HV_EV_STOPPED,        /* the domain's process has ended (any reason, `reason` says which) */
    LMO_HV_EV_PAUSED_OTHER,   /* I/O error, watchdog, a person: not the migration */
    LMO_HV_EV_ITERATION,      /* source: pre-copy began iteration `value` */
    LMO_HV_EV_WATCH_BROKEN,   /* events may have been missed (connection to libvirtd lost); uuid empty: all guests */
    LMO_HV_EV_WATCH_RESTORED, /* connected again; the state of everything must be observed anew */
};

struct lmo_hv_event {
    enum lmo_hv_event_kind kind;
    char uuid[LMO_UUID_MAX];
    char reason[64];          /* the hypervisor's own word: "migrated", "failed", "destroyed", ... */
    uint64_t value;
    uint64_t realtime_us;     /* CLOCK_REALTIME; the hypervisor's own stamp where it has one, else on arrival */
    uint64_t monotonic_ns;    /* CLOCK_BOOTTIME on arrival at the driver */
    bool own_stamp;           /* realtime_us is the hypervisor's own */
};

/* Called from a driver thread in the order of arrival; must not block (it posts to the worker's loop). */
typedef void lmo_hv_event_fn(void *arg, const struct lmo_hv_event *ev);

/* What a destination must have for a guest; checked by `precheck_incoming`. */
struct lmo_hv_incoming {
    const char *domain_xml;   /* the source's migratable XML, already rewritten for the destination */
    char uuid[LMO_UUID_MAX];
    uint64_t memory_bytes;
    bool shut_off;            /* it only gets defined there: needs no memory now */
};

/* Rewrites of the domain XML on the way: by guest target device. */
struct lmo_hv_disk_map {
    unsigned count;
    struct { char target[16]; char export_name[LMO_EXPORT_MAX]; } disk[LMO_VOLUMES_MAX];
};

struct lmo_hv_job {
    char uuid[LMO_UUID_MAX];
    char migration[LMO_ID_MAX];
    char peer_uri[LMO_URL_MAX];       /* destination's hypervisor, as the source reaches it */
    char migration_uri[LMO_URL_MAX];  /* where the memory stream goes: "tcp://address" */
    const char *destination_xml;
    bool persist_destination;         /* define there, undefine here, as the guest was */
    uint64_t gate_bandwidth_bytes_per_s; /* in force until open_gate */
    uint64_t gate_downtime_ms;
    uint32_t throttle_initial_percent; /* the hypervisor may slow the vCPUs down, by this at first; 0: it may not */
    uint32_t throttle_increment_percent;
};

/* End of the migrate call at the source. Only this (and what is observed) says that a job is over. */
struct lmo_hv_job_end {
    bool call_succeeded;       /* never proof of anything about the destination */
    char text[LMO_TEXT_MAX];   /* libvirt's error, if it failed */
    uint64_t call_ms;          /* time inside libvirt's migrate call */
};
typedef void lmo_hv_job_end_fn(void *arg, const char *uuid, const struct lmo_hv_job_end *end);

struct lmo_freeze_result {
    enum lmo_freeze_answer answer;
    char evidence[512];        /* what was seen, for the record */
};

struct lmo_hypervisor;
struct lmo_hypervisor_ops {
    const char *name;
    void (*close)(struct lmo_hypervisor *hv); /* takes hv; NULL is fine */

    /* Lists guests (running and shut off). `cb` returns non-zero to stop. */
    int (*list)(struct lmo_hypervisor *hv, int (*cb)(void *arg, const struct lmo_vm_facts *vm), void *arg,
                uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* One guest by UUID or by name, from the live domain. NOT_FOUND is an observation: the hypervisor answered. */
    int (*describe)(struct lmo_hypervisor *hv, const char *vm, struct lmo_vm_facts *ret_vm, uint64_t timeout_ms,
                    struct lmo_err *err) LMO_MUST_CHECK;
    /* Only the run state, as cheaply as possible. Absent is 0 with LMO_RUN_ABSENT. */
    int (*state)(struct lmo_hypervisor *hv, const char *uuid, enum lmo_run_state *ret_state, uint64_t timeout_ms,
                 struct lmo_err *err) LMO_MUST_CHECK;

    /* Source: *ret_xml (owned by the caller) = the migratable XML with the disks of `map` rewritten; of a guest that is
     * shut off its definition. */
    int (*outgoing_xml)(struct lmo_hypervisor *hv, const char *uuid, const struct lmo_hv_disk_map *map,
                        char **ret_xml, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* Source: can the hypervisor at `peer_uri` be opened from here, and is what `migration_uri` names reached? Changes
     * nothing. REFUSED names the address that is not. */
    int (*check_reach)(struct lmo_hypervisor *hv, const char *peer_uri, const char *migration_uri, uint64_t timeout_ms,
                       struct lmo_err *err) LMO_MUST_CHECK;
    /* Destination: is this domain acceptable here? CPU, machine type, QEMU, memory, huge pages, no domain of that UUID or
     * name. Changes nothing. REFUSED names the field and what this host has. */
    int (*precheck_incoming)(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                             struct lmo_err *err) LMO_MUST_CHECK;
    /* Destination: directories, TLS material, anything else the incoming guest needs; and its undo. */
    int (*prepare_incoming)(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                            struct lmo_err *err) LMO_MUST_CHECK;
    /* Removes only what prepare_incoming made, and an incoming (never a running or loaded) domain of that UUID. */
    int (*discard_prepared)(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms,
                            struct lmo_err *err) LMO_MUST_CHECK;

    /* Source: starts the pre-copy job on its own thread (live, peer to peer, paused at the destination, gate
     * shut) and returns once the job is under way; `end` is called exactly once from a driver thread. BUSY if a job
     * runs for this guest already. */
    /* `adopt`: instead of starting, take over watching a job that a previous process of this worker started (its
     * call has gone with that process, libvirt goes on by itself); NOT_FOUND if no job runs. The end is then what
     * libvirt's JOB_COMPLETED event or the job's disappearance says. */
    int (*job_adopt)(struct lmo_hypervisor *hv, const struct lmo_hv_job *job, lmo_hv_job_end_fn *end, void *arg,
                     struct lmo_err *err) LMO_MUST_CHECK;
    int (*job_start)(struct lmo_hypervisor *hv, const struct lmo_hv_job *job, lmo_hv_job_end_fn *end, void *arg,
                     struct lmo_err *err) LMO_MUST_CHECK;
    /* Source: sets limits in force for the running job; 0 bandwidth = unlimited. Used to open the gate and by
     * convergence control. */
    int (*job_limits)(struct lmo_hypervisor *hv, const char *uuid, uint64_t bandwidth_bytes_per_s,
                      uint64_t downtime_ms, struct lmo_err *err) LMO_MUST_CHECK;
    int (*job_progress)(struct lmo_hypervisor *hv, const char *uuid, struct lmo_progress *ret_progress,
                        struct lmo_err *err) LMO_MUST_CHECK;
    /* Source, before a job: waits until a dirty rate is known that is no older than `fresh_ms`; `describe` then has it. May
     * be NULL where nothing can be measured. TIMEOUT: none was to be had. Changes nothing. */
    int (*measure_dirty)(struct lmo_hypervisor *hv, const char *uuid, uint64_t fresh_ms, uint64_t timeout_ms,
                         struct lmo_err *err) LMO_MUST_CHECK;
    /* Source: asks the hypervisor to abort. 0 means asked; only the end of the job says what came of it. */
    int (*job_abort)(struct lmo_hypervisor *hv, const char *uuid, struct lmo_err *err) LMO_MUST_CHECK;

    /* Source: stop the guest's process, THEN look (safety.md, step 2). Always answers; never an error: whatever
     * could not be found out is `unknown` with the reason in the evidence. The process is left stopped ONLY on
     * `frozen`: on `running` and on `unknown` it is continued before the answer is given (a stop that proves nothing
     * is a debt without a use), without asking libvirt to resume anything. */
    void (*freeze)(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_freeze_result *ret);
    /* Source: continue a frozen process. A thaw IS a resume: the worker only calls it when the source is the guest. */
    int (*thaw)(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* Source: kill the (frozen) guest process by pidfd; then, if it still exists, destroy the domain. */
    int (*kill)(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* Source, after the move: the domain neither runs nor is defined here. Refuses a running one that is not
     * `expected_dead`. Destination, when its copy is discarded: the same. */
    int (*remove)(struct lmo_hypervisor *hv, const char *uuid, bool expected_dead, uint64_t timeout_ms,
                  struct lmo_err *err) LMO_MUST_CHECK;

    /* Destination: is it certain that the process of the loaded copy has ended? From what is at hand, without waiting for
     * anybody (it is asked on the worker's loop, with a guest standing still); false also where it is not known. */
    bool (*copy_ended)(struct lmo_hypervisor *hv, const char *uuid);
    /* Destination: does the hypervisor's daemon answer, as far as is known? Likewise at once. One that was killed with a loaded
     * copy in its hands ends that copy when it is started again (docs/libvirt.md). */
    bool (*reachable)(struct lmo_hypervisor *hv);
    /* Destination: run the loaded guest (or, for a guest its owner had paused, make that state final: no-op).
     * INVALID if the domain is not in LMO_RUN_LOADED and not already running. */
    int (*resume)(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* Destination, off the guest's path: autostart and persistence as the guest had them at the source. */
    int (*settle)(struct lmo_hypervisor *hv, const char *uuid, bool persistent, bool autostart, uint64_t timeout_ms,
                  struct lmo_err *err) LMO_MUST_CHECK;

    /* ---- a guest that is shut off: only its definition moves ---- */
    /* Source: takes the definition away, so that nobody can start the guest here. Absent already: 0. CONFLICT if it
     * was started meanwhile: it runs on, defined as before (`xml`, `autostart`: what it was, in case the definition
     * is gone already). Saved state, snapshots and NVRAM are never deleted: REFUSED. */
    int (*release)(struct lmo_hypervisor *hv, const char *uuid, const char *xml, bool autostart, uint64_t timeout_ms,
                   struct lmo_err *err) LMO_MUST_CHECK;
    /* Destination, or the source in an undo: the guest is defined here, shut off, its disks rewritten by `map`.
     * Idempotent. */
    int (*define)(struct lmo_hypervisor *hv, const char *uuid, const char *xml, const struct lmo_hv_disk_map *map,
                  bool autostart, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
};
struct lmo_hypervisor {
    const struct lmo_hypervisor_ops *ops;
};

struct lmo_hypervisor_config {
    char uri[LMO_URL_MAX];
    char state_dir[LMO_PATH_MAX];
    bool tls; /* guests' memory is sent encrypted, or not at all */
    lmo_hv_event_fn *on_event;
    void *arg;
};
/* Returns an owned driver. Fails with UNAVAILABLE only for a broken configuration: a libvirtd that is down is
 * reported as WATCH_BROKEN and reconnected in the background, with back-off. */
int lmo_hypervisor_libvirt_open(const struct lmo_hypervisor_config *cfg, struct lmo_hypervisor **ret,
                                struct lmo_err *err) LMO_MUST_CHECK;

/* ------------------------------------------------------------------ volume service */

struct lmo_volume_state {
    char volume[LMO_NAME_MAX];
    unsigned export_count;
    struct { char name[LMO_EXPORT_MAX]; char host[LMO_NAME_MAX]; uint64_t epoch; bool offered; bool fenced; } exports[8];
    char path[LMO_PATH_MAX];
    uint64_t size_bytes;
};

struct lmo_volume_driver;
struct lmo_volume_ops {
    const char *name;
    void (*close)(struct lmo_volume_driver *d);
    /* Makes a volume known and offers it to `host` under `epoch`; ret_export gets the export's name. */
    int (*provision)(struct lmo_volume_driver *d, const char *volume, const char *path, const char *format,
                     const char *host, uint64_t epoch, char ret_export[LMO_EXPORT_MAX], uint64_t timeout_ms,
                     struct lmo_err *err) LMO_MUST_CHECK;
    /* Forgets a volume and withdraws all its exports; the data stays. */
    int (*retire)(struct lmo_volume_driver *d, const char *volume, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* Is the service reachable, the volume known, and `export_name` what it is attached through? */
    int (*check)(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                 struct lmo_err *err) LMO_MUST_CHECK;
    /* Offers the volume to `host` under `epoch` beside the present holder. Durable before it returns. */
    int (*attach)(struct lmo_volume_driver *d, const char *volume, const char *host, uint64_t epoch,
                  char ret_export[LMO_EXPORT_MAX], uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* The fence: from its return on, no write through `export_name` is ever accepted again, delayed ones in flight
     * included, and no restart of the service brings the export back. Order: recorded as fenced durably BEFORE the
     * service is asked, so that a crash in between fences too much rather than too little. */
    int (*fence)(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                 struct lmo_err *err) LMO_MUST_CHECK;
    /* Asks the service itself whether the fence holds: export absent, destination's export present. */
    int (*verify)(struct lmo_volume_driver *d, const char *volume, const char *fenced_export,
                  const char *holder_export, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* Withdraws an export that is not fenced (roll-back of attach; clean-up of the source's remains). */
    int (*detach)(struct lmo_volume_driver *d, const char *volume, const char *export_name, uint64_t timeout_ms,
                  struct lmo_err *err) LMO_MUST_CHECK;
    int (*observe)(struct lmo_volume_driver *d, const char *volume, struct lmo_volume_state *ret, uint64_t timeout_ms,
                   struct lmo_err *err) LMO_MUST_CHECK;
    /* Names of the volumes that are known; the callback returns 0 to go on. May be NULL: it cannot say. */
    int (*list)(struct lmo_volume_driver *d, int (*cb)(void *arg, const char *volume), void *arg,
                struct lmo_err *err) LMO_MUST_CHECK;
};
struct lmo_volume_driver {
    const struct lmo_volume_ops *ops;
};
/* `state_dir`: the driver's durable table of volumes and exports lives there. `qmp`: path of the service's socket. */
int lmo_volume_nbd_open(const char *qmp, const char *state_dir, struct lmo_volume_driver **ret,
                        struct lmo_err *err) LMO_MUST_CHECK;

/* ------------------------------------------------------------------ network */

/* Fabric side: what any worker configured for the fabric may serve (OVN's databases). */
struct lmo_fabric;
struct lmo_fabric_ops {
    const char *name;
    void (*close)(struct lmo_fabric *f);
    /* Reachable, port known, bound at `source`; a stateful firewall on the port is REFUSED unless
     * `accept_stateful_loss` (its flow state cannot be moved yet). */
    int (*check)(struct lmo_fabric *f, const struct lmo_port *port, const char *source, const char *destination,
                 bool accept_stateful_loss, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* Port-independent policy is installed on the destination, confirmed by the destination's controller. */
    int (*preload)(struct lmo_fabric *f, const char *destination, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* Delivery to both hosts is requested, the destination's copy held until activation. */
    int (*dual)(struct lmo_fabric *f, const struct lmo_port *port, const char *source, const char *destination,
                uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* Waits (events, no polling) until the fabric says the destination is bound as an additional host. */
    int (*await_bound)(struct lmo_fabric *f, const struct lmo_port *port, const char *destination,
                       uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* One host alone: `host` (the destination after the move, the source after an abort). Confirmed. */
    int (*single)(struct lmo_fabric *f, const struct lmo_port *port, const char *host, uint64_t timeout_ms,
                  struct lmo_err *err) LMO_MUST_CHECK;
    /* The port of a guest that is shut off: known, bound nowhere, not requested for a host other than `source`. */
    int (*check_unbound)(struct lmo_fabric *f, const struct lmo_port *port, const char *source, const char *destination,
                         uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
    /* If the port is requested for a certain host at all, it is requested for `host` from now on. Does not wait for a
     * binding: the guest is shut off. */
    int (*assign)(struct lmo_fabric *f, const struct lmo_port *port, const char *host, uint64_t timeout_ms,
                  struct lmo_err *err) LMO_MUST_CHECK;
    /* One line saying what the fabric holds for the port: bindings, options. For observation. */
    int (*observe)(struct lmo_fabric *f, const struct lmo_port *port, char *ret_text, size_t text_size,
                   uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;
};
struct lmo_fabric {
    const struct lmo_fabric_ops *ops;
};
int lmo_fabric_ovn_open(const char *northbound, const char *southbound, struct lmo_fabric **ret,
                        struct lmo_err *err) LMO_MUST_CHECK;

/* Host side: what only the worker on that host can see and do. */
struct lmo_network;
struct lmo_network_ops {
    const char *name;
    void (*close)(struct lmo_network *n);
    /* Destination: waits (events) until the port's interface exists here and its flows are installed; opens
     * everything that `activate` will need, so that activate itself opens nothing. */
    int (*await_installed)(struct lmo_network *n, const struct lmo_port *port, uint64_t timeout_ms,
                           struct lmo_err *err) LMO_MUST_CHECK;
    /* Destination: opens the held ingress, at the source's pause. The one function that is called on the worker's own
     * loop: it never waits for anybody (a message that the socket does not take at once is sent later), opens no
     * connection and starts no process. Idempotent. */
    int (*activate)(struct lmo_network *n, const struct lmo_port *port, struct lmo_err *err) LMO_MUST_CHECK;
    /* Is the destination's ingress open now? */
    int (*activated)(struct lmo_network *n, const struct lmo_port *port, bool *ret_open, uint64_t timeout_ms,
                     struct lmo_err *err) LMO_MUST_CHECK;
    /* Drops what was opened for the port: watches, cached numbers. Never fails. */
    void (*release)(struct lmo_network *n, const struct lmo_port *port);
};
struct lmo_network {
    const struct lmo_network_ops *ops;
};
int lmo_network_ovn_open(const char *ovsdb, const char *openflow, const char *bridge, struct lmo_network **ret,
                         struct lmo_err *err) LMO_MUST_CHECK;

#endif
