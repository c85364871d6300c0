/* doctor_world.h - looking things up in a world that was arranged; for doctor.c. Nothing found: NULL or false. */
#ifndef LMO_CORE_DOCTOR_WORLD_H
#define LMO_CORE_DOCTOR_WORLD_H

#include "core/doctor.h"

const struct lmo_doctor_open *lmo_doctor_open_of_vm(const struct lmo_doctor_world *w, const char *uuid);
/* The others of that guest stand behind it. */
const struct lmo_doctor_guest *lmo_doctor_first_guest(const struct lmo_doctor_world *w, const char *uuid);
const struct lmo_doctor_ended *lmo_doctor_ended_of(const struct lmo_doctor_world *w, const char *migration);
/* A guest that is attached through that export. */
const struct lmo_doctor_use *lmo_doctor_use_of(const struct lmo_doctor_world *w, const char *export_name);
/* Is an open migration about that volume, as far as their volumes are known? */
bool lmo_doctor_is_moved(const struct lmo_doctor_world *w, const char *volume);
/* Was that migration set aside? */
bool lmo_doctor_is_aside(const struct lmo_doctor_world *w, const char *migration);
/* ABSENT: the host was seen, and has it not. UNKNOWN: it was not seen. */
enum lmo_run_state lmo_doctor_state_at(const struct lmo_doctor_world *w, const char *uuid, const char *host);
/* Where that worker's record of the migration stands; "": it has none. */
const char *lmo_doctor_stage_of(const struct lmo_doctor_world *w, const char *migration, const char *host,
                                enum lmo_op_role role);

#endif
