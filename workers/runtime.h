/* runtime.h - one worker: its loop, its journal, its drivers, its listener and its client.
 *
 * One thread, the one in lmo_worker_run, owns all state. Listener threads parse, check who asks, and post to it; driver
 * calls run on pools of threads and come back to it; drivers' events reach it through an inbox of their own, which
 * is served before everything else.
 *
 * Several workers may live in one process (tests do that). */
#ifndef LMO_WORKERS_RUNTIME_H
#define LMO_WORKERS_RUNTIME_H

#include "base/err.h"
#include "base/types.h"
#include "http/tls.h"
#include "proto/observe.h"
#include "workers/drivers/driver.h"

#include <stdbool.h>
#include <stdint.h>

/* NULL: this worker does not have that capability. */
struct lmo_worker_drivers {
    struct lmo_hypervisor *hypervisor;
    struct lmo_volume_driver *volume;
    struct lmo_fabric *fabric;
    struct lmo_network *network;
};

struct lmo_worker_config {
    char listen[LMO_ADDRESS_MAX]; /* port 0: any free one */
    char state_dir[LMO_PATH_MAX]; /* made if missing; locked against a second worker */
    struct lmo_tls_files tls;
    char permit_key[LMO_PATH_MAX]; /* the coordinator's public key, PEM */
    char log_file[LMO_PATH_MAX];   /* opened anew on SIGHUP; "": none */
    struct lmo_host_facts facts;   /* what is advertised; boot, version and realtime_us are filled in */
    /* Opens the drivers; the hypervisor's events go to on_event(event_arg, ...). Closing is close's business. */
    int (*drivers_open)(void *arg, lmo_hv_event_fn *on_event, void *event_arg, struct lmo_worker_drivers *ret,
                        struct lmo_err *err);
    void (*drivers_close)(void *arg, struct lmo_worker_drivers *drivers);
    void *drivers_arg;
    /* Tests only, see journal.h. */
    unsigned die_at_commit;
    bool die_before;
};

struct lmo_worker;

/* Everything is up when this returns 0: listening, journal loaded; recovery goes on inside lmo_worker_run. */
int lmo_worker_new(const struct lmo_worker_config *cfg, struct lmo_worker **ret, struct lmo_err *err) LMO_MUST_CHECK;
/* Until lmo_worker_stop, or a signal if lmo_worker_signals was called. */
int lmo_worker_run(struct lmo_worker *w) LMO_MUST_CHECK;
/* SIGTERM and SIGINT stop, SIGHUP reads certificates, revocation list and permit key again. Before other threads start,
 * so before lmo_worker_new: blocks them; afterwards with the worker: delivers them. */
void lmo_worker_block_signals(void);
int lmo_worker_signals(struct lmo_worker *w, struct lmo_err *err) LMO_MUST_CHECK;
/* Keeps the service manager informed from now on (base/service.h). For the one worker of a process. */
int lmo_worker_watch(struct lmo_worker *w, struct lmo_err *err) LMO_MUST_CHECK;
/* What SIGHUP does; thread-safe: it is done on the loop, soon. */
void lmo_worker_reload(struct lmo_worker *w);
/* Thread-safe. */
void lmo_worker_stop(struct lmo_worker *w);
/* Takes w, which does not run any more (NULL is fine), returns NULL. Answers whoever still waits with 503. Driver
 * calls that still run after 2 s are left behind, and the drivers then with them: the process should end. Jobs that
 * run at the hypervisor go on by themselves. */
struct lmo_worker *lmo_worker_free(struct lmo_worker *w);

uint16_t lmo_worker_port(const struct lmo_worker *w);
/* Tests: commits so far, and whether die_at_commit has struck. Any thread; a snapshot. */
unsigned lmo_worker_commits(struct lmo_worker *w);
bool lmo_worker_dead(struct lmo_worker *w);

#endif
