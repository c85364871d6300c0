/* render.h - the coordinator's JSON as text for people. Pure: JSON and a style in, characters out.
 *
 * Everything is optional in what is read: an older or newer coordinator must not make the CLI fail, only say less. */
#ifndef LMO_CLI_RENDER_H
#define LMO_CLI_RENDER_H

#include "cli/format.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

void lmo_render_hosts(const json_t *answer, const struct lmo_style *style, FILE *out);
void lmo_render_host(const json_t *host, const struct lmo_style *style, FILE *out);
void lmo_render_vms(const json_t *answer, const struct lmo_style *style, FILE *out);
void lmo_render_vm(const json_t *vm, const struct lmo_style *style, FILE *out);
void lmo_render_migrations(const json_t *answer, const struct lmo_style *style, FILE *out);
/* `journal`: the answer of .../journal, or NULL. */
void lmo_render_migration(const json_t *migration, const json_t *journal, const struct lmo_style *style, FILE *out);
/* The same of one document: the journal is the record's member "journal". */
void lmo_render_migration_whole(const json_t *migration, const struct lmo_style *style, FILE *out);
/* lmo_render_outcome as a line. */
void lmo_render_ended(const json_t *migration, const struct lmo_style *style, FILE *out);

/* render_drain.c */
void lmo_render_drains(const json_t *answer, const struct lmo_style *style, FILE *out);
void lmo_render_drain(const json_t *drain, const struct lmo_style *style, FILE *out);
/* The plan of a drain or of a rebalancing. */
void lmo_render_plan(const json_t *plan, const struct lmo_style *style, FILE *out);
void lmo_render_explain(const json_t *answer, const struct lmo_style *style, FILE *out);
void lmo_render_policy(const json_t *policy, const struct lmo_style *style, FILE *out);
void lmo_render_lease(const json_t *lease, const struct lmo_style *style, FILE *out);

#define LMO_RENDER_LINE_MAX 512
/* "running  42 %  12 of 20 guests moved, 3 moving, 118 MiB/s, 3-6 min left": one line of progress. */
const char *lmo_render_drain_progress(const json_t *drain, char buf[LMO_RENDER_LINE_MAX]);
/* "precopy  42 %  1.2 GiB sent, 812 MiB left, 118 MiB/s, dirtying 12.0 MiB/s, ETA 3-5 s": the phase under way. */
const char *lmo_render_progress(const json_t *migration, char buf[LMO_RENDER_LINE_MAX]);
/* "g1 moved from hv1 to hv2 in 4.31 s; paused for 96 ms": how it ended. */
const char *lmo_render_outcome(const json_t *migration, char buf[LMO_RENDER_LINE_MAX]);

/* A member that counts milliseconds, with decimals or without: "3.1 ms"; "-" if it is absent or null. */
const char *lmo_render_ms(const json_t *obj, const char *field, char buf[LMO_FORMAT_MAX]);

enum lmo_color lmo_render_phase_color(const char *phase);

#endif
