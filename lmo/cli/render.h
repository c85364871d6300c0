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

#define LMO_RENDER_LINE_MAX 512
/* "precopy  42 %  1.2 GiB sent, 812 MiB left, 118 MiB/s, dirtying 12.0 MiB/s, ETA 3-5 s": the phase under way. */
const char *lmo_render_progress(const json_t *migration, char buf[LMO_RENDER_LINE_MAX]);
/* "g1 moved from hv1 to hv2 in 4.31 s; paused for 96 ms": how it ended. */
const char *lmo_render_outcome(const json_t *migration, char buf[LMO_RENDER_LINE_MAX]);

/* A member that counts milliseconds, with decimals or without: "3.1 ms"; "-" if it is absent or null. */
const char *lmo_render_ms(const json_t *obj, const char *field, char buf[LMO_FORMAT_MAX]);

enum lmo_color lmo_render_phase_color(const char *phase);

#endif
