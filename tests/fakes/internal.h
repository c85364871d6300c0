/* internal.h - shared by the files of this directory only. Functions that end in _locked are called with the lock. */
#ifndef LMO_TESTS_FAKES_INTERNAL_H
#define LMO_TESTS_FAKES_INTERNAL_H

#include "fakes/world.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* world.c */
/* Waits for the signal, or as long as `wait_ns`; may also come back for nothing. */
void fake_wait_locked(struct fake_world *w, struct fake_signal *s, uint64_t wait_ns);
void fake_wake(struct fake_signal *s);
/* NULL: there is none. A number in the name says where to look first. */
struct fake_guest *fake_guest_named(struct fake_world *w, const char *uuid_or_name);
struct fake_guest *fake_guest_of_port(struct fake_world *w, const char *port);
struct fake_guest *fake_guest_of_volume(struct fake_world *w, const char *volume, struct fake_volume **ret);
int fake_host_named(const struct fake_world *w, const char *name);
struct fake_copy *fake_copy_at(struct fake_guest *g, unsigned host);
void fake_violate(struct fake_world *w, const struct fake_guest *g, const char *what);
bool fake_copy_runs(const struct fake_copy *c);
void fake_check_locked(struct fake_world *w, const struct fake_guest *g);
void fake_check_resume_locked(struct fake_world *w, struct fake_guest *g, const struct fake_copy *c);
enum lmo_run_state fake_state_of(const struct fake_copy *c);

/* Called first by every driver function, without the lock. True: fail now with *ret. Its twin `leave` is called at the end
 * and may turn a success into a lost answer. */
bool fake_enter(struct fake_world *w, enum fake_call call, int *ret, struct lmo_err *err);
int fake_leave(struct fake_world *w, enum fake_call call, int r, struct lmo_err *err);

/* events.c */
void fake_emit_locked(struct fake_world *w, const struct fake_guest *g, unsigned host, enum lmo_hv_event_kind kind,
                      const char *reason, uint64_t value);
void fake_emit_end_locked(struct fake_world *w, const struct fake_guest *g, unsigned host, bool ok, const char *text);
void fake_seat_open(struct fake_seat *seat);
void fake_seat_close(struct fake_seat *seat);
void fake_events_stop(struct fake_world *w);

/* job.c */
void fake_job_begin_locked(struct fake_world *w, struct fake_guest *g, struct fake_copy *from, struct fake_copy *to);
void fake_job_limits_locked(struct fake_world *w, struct fake_guest *g, uint64_t bandwidth, uint64_t downtime_ms);
void fake_job_sample_locked(struct fake_world *w, struct fake_guest *g, struct lmo_progress *ret);
int fake_job_abort_locked(struct fake_world *w, struct fake_guest *g, struct lmo_err *err);
void fake_job_may_end_locked(struct fake_world *w, struct fake_guest *g);
void fake_process_ends_locked(struct fake_world *w, struct fake_guest *g, struct fake_copy *c, const char *reason);
void fake_source_resumes_locked(struct fake_world *w, struct fake_guest *g, struct fake_copy *c);
void fake_keeper_start(struct fake_world *w);
void fake_keeper_stop(struct fake_world *w);

/* hypervisor.c, volume.c, network.c; owned by the caller */
struct lmo_hypervisor *fake_hypervisor_new(struct fake_seat *seat);
struct lmo_volume_driver *fake_volume_new(struct fake_world *w);
struct lmo_fabric *fake_fabric_new(struct fake_world *w);
struct lmo_network *fake_network_new(struct fake_world *w);
int fake_offer_locked(struct fake_world *w, const char *volume, const char *host, uint64_t epoch,
                      char ret_export[LMO_EXPORT_MAX], struct lmo_err *err) LMO_MUST_CHECK;

#endif
