/* world.h - what is really there: hypervisors with guests' copies and jobs, volumes with their writes, the fabric.
 *
 * The world is the truth that checkers look at. Drivers (drivers_*.c) act on it and observe it; hypervisors also act by
 * themselves. Nothing here knows of phases, records, journals or epochs beyond what export names say.
 *
 * Guests write all the time. Each write of a volume has a number, one above the last that the writer's memory knows to
 * be acknowledged; it travels, and the volume takes it if the export that it comes through is offered then. So a copy
 * that runs with an older memory, a second writer, a write that was lost or came after a fence all show at once. */
#ifndef LMO_TESTS_SIM_WORLD_H
#define LMO_TESTS_SIM_WORLD_H

#include "sim.h"
#include "workers/drivers/driver.h"

#define W_HOSTS             6 /* hypervisors first, then storage */
#define W_GUESTS            6
#define W_VOLUMES           12
#define W_PORTS             12
#define W_EXPORTS           12 /* per volume */
#define W_VOLUMES_PER_GUEST 2
#define W_PORTS_PER_GUEST   2
#define W_LINK_BYTES_PER_S  (UINT64_C(1100) * 1024 * 1024) /* of the migration network, per host */

enum w_end { W_END_NONE = 0, W_END_MIGRATED, W_END_DIED };

/* One guest at one host. */
struct w_copy {
    bool process, incoming, loaded, vcpus, stopped, migration_pause, paused_by_user, resume_queued, ran_after_pause;
    bool completed;   /* it was the source of a job whose memory is complete; since then: */
    bool watched;     /* ... the driver that is open has seen everything */
    bool declared;    /* ... libvirt has decided that it is gone */
    bool frozen;      /* stopped with proof */
    enum w_end ended; /* how its last process ended; paused_at_end: before it could run on */
    bool paused_at_end;
    bool defined, autostart, prepared;
    uint16_t generation; /* of the process */
    char exports[W_VOLUMES_PER_GUEST][LMO_EXPORT_MAX];
    uint32_t memory[W_VOLUMES_PER_GUEST];    /* number of the last write that it knows to be acknowledged */
    uint32_t in_flight[W_VOLUMES_PER_GUEST]; /* 0: none */
};

struct w_job {
    bool active, suspended, completed, loaded, finish_lost, persist;
    unsigned from, to;
    uint64_t number;   /* of the job; events of earlier ones are stale */
    uint64_t schedule; /* of the next step; likewise */
    uint64_t total, remaining, bandwidth, downtime_ms, pass_started_ns, pass_changed_ns, started_ns, sent;
    uint32_t iteration;
    uint32_t snapshot[W_VOLUMES_PER_GUEST];
    lmo_hv_job_end_fn *end;
    void *end_arg;
    uint64_t end_incarnation; /* of the worker that waits */
};

struct w_guest {
    char uuid[LMO_UUID_MAX], name[LMO_NAME_MAX];
    uint64_t memory_bytes, dirty_bytes_per_s;
    unsigned volume_count, volumes[W_VOLUMES_PER_GUEST];
    unsigned port_count, ports[W_PORTS_PER_GUEST];
    bool persistent, autostart, owner_paused, shut_off;
    bool died; /* its last process ended in a way that no orchestrator could prevent */
    struct w_copy copies[W_HOSTS];
    struct w_job job;
    bool dies_next; /* the next copy that is loaded dies so much later, if it does not run by then */
    uint64_t dies_after_ns;
    bool finish_lost_next;                   /* the next job's finish never reaches its source */
    uint64_t gap_started_ns, longest_gap_ns; /* runs nowhere */
};

struct w_host {
    char name[LMO_NAME_MAX];
    bool hypervisor, storage;
    struct sim_process *process;
    uint64_t hang_until; /* libvirtd (or the volume service's monitor) does not answer */
    uint64_t down_until; /* the volume service is down; libvirtd: restarting */
    bool refuses;        /* the destination accepts no domain */
    lmo_hv_event_fn *on_event;
    void *event_arg;
    uint64_t event_incarnation, last_event_ns;
    uint64_t stream_cut_until; /* hypervisor to hypervisor */
};

struct w_export {
    char name[LMO_EXPORT_MAX], host[LMO_NAME_MAX];
    uint64_t epoch;
    bool offered, fenced;
};

struct w_volume {
    char name[LMO_NAME_MAX];
    unsigned storage; /* host */
    struct w_export exports[W_EXPORTS];
    uint32_t last; /* number of the last write */
    uint64_t writes, refused;
    char fenced_names[W_EXPORTS][LMO_EXPORT_MAX]; /* ring: must never be offered again */
    unsigned fenced_count;
};

struct w_port {
    char id[LMO_NAME_MAX];
    int bound, additional; /* hosts; -1: none */
    int requested;         /* host that its owner wants it at; -1: wherever its guest is */
    bool activated;
};

/* What drivers and hypervisors can be made to do wrong, so that it is seen that the checkers see it. */
enum w_lie {
    W_LIE_FENCE = 1,  /* a fence is confirmed and does not hold */
    W_LIE_FREEZE = 2, /* a source is called frozen and is not stopped */
    W_LIE_LOADED = 4, /* a copy is called loaded with half of its memory */
    W_LIE_REMOVE = 8, /* what is removed is still there */
};

struct world {
    unsigned lies; /* enum w_lie */
    unsigned host_count, hypervisor_count, guest_count, volume_count, port_count;
    struct w_host hosts[W_HOSTS];
    struct w_guest guests[W_GUESTS];
    struct w_volume volumes[W_VOLUMES];
    struct w_port ports[W_PORTS];
    struct sim_signal changed; /* drivers that wait for something */
    struct sim_rng rng;
    uint64_t handovers; /* switch-overs begun, definitions taken away */
    uint64_t jobs, writes, freezes, thaws, early_ingress, calls;
};
extern struct world world;

void world_begin(void);
unsigned world_add_host(const char *name, bool hypervisor, bool storage, struct sim_process *p);
/* Is at `host`, with so many volumes (spread over the storage hosts) and ports. */
enum w_how { W_RUNS, W_PAUSED_BY_OWNER, W_SHUT_OFF };
unsigned world_add_guest(const char *name, unsigned host, unsigned volumes, unsigned ports, uint64_t memory_bytes,
                         uint64_t dirty_bytes_per_s, bool persistent, enum w_how how);
void world_start(void); /* the guests begin to write */
void world_process_gone(struct sim_process *p);

/* ---- what happens by itself, or by a fault ---- */
void world_watch_broken(unsigned host, uint64_t ns); /* libvirtd restarts: its calls fail, events are missed */
void world_stream_cut(unsigned host, uint64_t ns);
void world_owner_starts(struct w_guest *g); /* one that is shut off, where it is defined */

/* ---- for drivers ---- */
struct w_host *world_host_of(const struct sim_process *p);
unsigned world_host_index(const char *name); /* W_HOSTS: none */
struct w_guest *world_guest(const char *uuid_or_name);
struct w_volume *world_volume(const char *name);
struct w_port *world_port(const char *id);
struct w_export *world_export(struct w_volume *v, const char *name);
bool world_runs(const struct w_copy *c);
enum lmo_run_state world_state(const struct w_guest *g, unsigned host);
void world_emit(unsigned host, const struct w_guest *g, enum lmo_hv_event_kind kind, const char *reason,
                uint64_t value);
void world_job_start(struct w_guest *g, unsigned from, unsigned to, const struct lmo_hv_job *job,
                     lmo_hv_job_end_fn *end, void *arg);
void world_job_limits(struct w_guest *g, uint64_t bandwidth, uint64_t downtime_ms);
void world_job_progress(const struct w_guest *g, struct lmo_progress *ret);
int world_job_abort(struct w_guest *g, struct lmo_err *err);
void world_resume_source(struct w_guest *g, unsigned host); /* libvirt or a revive: it runs on there */
void world_run_loaded(struct w_guest *g, unsigned host);
void world_process_ends(struct w_guest *g, unsigned host, const char *reason, enum w_end how);
void world_changed(void);

/* check.c: called at every change. */
void check_world(void);
struct lmo_store;
/* check_events.c: does the event log say what the journals say? In the coordinator's process, at its start. */
void check_events(struct lmo_store *store);
void check_begins_to_run(struct w_guest *g, unsigned host);
/* `alive`: the process that issued it still is there. */
void check_write(struct w_guest *g, unsigned host, unsigned v, uint32_t number, bool accepted, bool alive);
void check_offered(const struct w_volume *v, const char *export_name);
/* A guest that is shut off gets a definition there. */
void check_defined(const struct w_guest *g, unsigned host);

/* drivers_*.c */
struct lmo_hypervisor *sim_hypervisor_open(struct w_host *h);
struct lmo_network *sim_network_open(struct w_host *h);
struct lmo_volume_driver *sim_volume_open(struct w_host *h);
struct lmo_fabric *sim_fabric_open(struct w_host *h);

/* One driver call: begin() waits, hangs, fails or dies as the plan and the world say. 0: carry it out, then end(). */
struct sim_call {
    enum sim_fate fate;
    uint64_t deadline_ns;
};
int sim_call_begin(struct sim_call *c, struct w_host *h, const char *what, uint64_t timeout_ms, struct lmo_err *err);
int sim_call_end(struct sim_call *c, int r, struct lmo_err *err);

#endif
