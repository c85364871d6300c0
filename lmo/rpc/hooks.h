/* hooks.h - what is called when a drain has emptied a host: `struct lmo_hooks` of engine/ports.h.
 *
 * Commands are those of the coordinator's configuration, [hook NAME], by their name only; one runs in a process group of its own with
 * LMO_HOST and LMO_DRAIN in its environment, and is killed at its deadline. Exit code 0: the host may be used again; 75: called, and
 * somebody will acknowledge; anything else: failed.
 * URLs are https, by POST, over the coordinator's own TLS files: the receiver shows a certificate of the same CA for its host's name.
 * An answer of 2xx: called; with {"ack":true}: and the host may be used again. */
#ifndef LMO_RPC_HOOKS_H
#define LMO_RPC_HOOKS_H

#include "base/conf.h"
#include "base/loop.h"
#include "engine/ports.h"
#include "http/tls.h"

/* Rows for the coordinator's table of configuration keys. */
#define LMO_HOOK_KEYS                                                                                                 \
    {"hook *", "command", LMO_CONF_PATH, true, NULL, 0, 0, "program that is called when a drain has emptied a host"}, \
    {                                                                                                                 \
        "hook *", "deadline", LMO_CONF_UINT, false, "600", 1, 86400, "seconds after which it is killed"               \
    }

struct lmo_hook_caller;
/* `conf` and `loop` are borrowed and must outlive *ret. */
int lmo_hooks_open(struct lmo_loop *loop, const struct lmo_conf *conf, const struct lmo_tls_files *tls,
                   struct lmo_hook_caller **ret, struct lmo_err *err) LMO_MUST_CHECK;
const struct lmo_hooks *lmo_hooks_port(const struct lmo_hook_caller *h);
/* Takes h (NULL is fine). Nobody is called back any more; commands that run are left to their end: they are called again by the next
 * coordinator. */
struct lmo_hook_caller *lmo_hooks_close(struct lmo_hook_caller *h);

#endif
