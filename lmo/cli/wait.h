/* wait.h - following one migration to its end, by the record's version (long poll), with progress on stderr. */
#ifndef LMO_CLI_WAIT_H
#define LMO_CLI_WAIT_H

#include "cli/cli.h"

/* `first`: the record as known already, or NULL; borrowed. `timeout_ms` 0: for as long as it takes. *ret_record (owned)
 * is set whenever a record was seen. Returns the exit code that says how it ended. */
int lmo_wait_run(struct lmo_cli *cli, const char *id, const json_t *first, uint64_t timeout_ms, json_t **ret_record);

/* How a record ended: OK, ABORTED or ATTENTION; -1: it has not. */
int lmo_wait_outcome(const json_t *migration);

#endif
