/* config.h - the worker's configuration file and the table of drivers that it chooses from. */
#ifndef LMO_WORKERS_CONFIG_H
#define LMO_WORKERS_CONFIG_H

#include "base/conf.h"
#include "base/log.h"
#include "workers/runtime.h"

#include <stdio.h>

/* Reads and checks the file whole. A section that is absent is a capability that this worker does not have. On success
 * *ret_conf (owned by the caller) stays alive as long as the worker: drivers are opened from it. */
int lmo_worker_config_load(const char *path, struct lmo_conf **ret_conf, struct lmo_worker_config *ret_cfg,
                           enum lmo_log_level *ret_level, struct lmo_err *err) LMO_MUST_CHECK;

/* Every key that there is, in the format of lmo_conf_print_keys. */
void lmo_worker_config_print_keys(FILE *out);

#endif
