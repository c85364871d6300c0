/* ovsdb.h - a client of an OVSDB server (RFC 7047) that many threads may use at once.
 *
 * One reader thread per connection: it connects, checks the schema, answers echoes, probes a silent server, hands
 * replies to whoever waits for them, keeps the watches' rows current, and reconnects with back-off. Callers never
 * touch the socket except to send.
 *
 * Rules:
 *  - Every call ends at its deadline (lmo_now_ns).
 *  - A transaction whose reply is lost is LMO_E_UNKNOWN, one whose reply is late LMO_E_TIMEOUT: either way it may have
 *    happened, and the caller's next act is to look. Every other error means that it did not happen.
 *  - A watch is answered only from rows received over the present connection: after a reconnect it waits for the
 *    server to send the contents again. So nothing is ever concluded from what was true before a gap. */
#ifndef LMO_WORKERS_OVSDB_H
#define LMO_WORKERS_OVSDB_H

#include "base/err.h"
#include "workers/drivers/ovsdb_json.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lmo_ovsdb;
struct lmo_ovsdb_watch;

/* A column that the driver cannot do without, and the table's only way to be watched. */
struct lmo_ovsdb_need {
    const char *table, *column;
};

struct lmo_ovsdb_config {
    const char *name;                   /* for logs and errors: "northbound database" */
    const char *remotes;                /* one or several, separated by commas: tried in turn */
    const char *database;               /* "OVN_Northbound" */
    const struct lmo_ovsdb_need *needs; /* static: must outlive the connection */
    size_t need_count;
    const char *needs_what; /* for a person when one is missing: "OVN 22.06 or newer" */
    uint64_t probe_ms; /* silence after which the server is probed, and again after which it is given up; 0: 5000 */
    size_t max_message_bytes; /* 0: 16 MiB */
};

/* Returns an owned client and connects in the background. INVALID or UNSUPPORTED for remotes of no known form. */
int lmo_ovsdb_open(const struct lmo_ovsdb_config *cfg, struct lmo_ovsdb **ret, struct lmo_err *err) LMO_MUST_CHECK;
/* Takes db. No other thread may be in a call on it; its watches must be closed before. */
void lmo_ovsdb_close(struct lmo_ovsdb *db);

/* Waits until the connection is usable. UNAVAILABLE (with what is wrong) at the deadline, UNSUPPORTED for a server
 * whose schema lacks a needed column. */
int lmo_ovsdb_await_ready(struct lmo_ovsdb *db, uint64_t deadline_ns, struct lmo_err *err) LMO_MUST_CHECK;

/* Runs the operations (an array, as in RFC 7047 4.1.3 without the database's name; takes `ops`, NULL is NO_MEMORY) as
 * one transaction. *ret_results (may be NULL) gets the results, one per operation, owned by the caller.
 * CONFLICT: a "wait" operation found another value. */
int lmo_ovsdb_transact(struct lmo_ovsdb *db, json_t *ops, uint64_t deadline_ns, json_t **ret_results,
                       struct lmo_err *err) LMO_MUST_CHECK;
/* A transaction of one select: *ret_rows is the array of rows, owned by the caller. Takes `where`. */
int lmo_ovsdb_select(struct lmo_ovsdb *db, const char *table, json_t *where, const char *const *columns,
                     uint64_t deadline_ns, json_t **ret_rows, struct lmo_err *err) LMO_MUST_CHECK;
/* Returns owned: the select operation itself, for a transaction of several. NULL when out of memory. Takes `where`. */
json_t *lmo_ovsdb_select_op(const char *table, json_t *where, const char *const *columns);

/* Watches the rows of `table` that satisfy `where` (conditions as in RFC 7047 5.1; takes it). `columns` ends with NULL.
 * Returns once the first contents are there. */
int lmo_ovsdb_watch_open(struct lmo_ovsdb *db, const char *table, json_t *where, const char *const *columns,
                         uint64_t deadline_ns, struct lmo_ovsdb_watch **ret, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_ovsdb_watch_close(struct lmo_ovsdb_watch *w); /* takes w; NULL is fine */

/* `rows`: object of row UUID -> row. Returns 1: satisfied, 0: not yet, negative: give up with that error. Called with
 * the client's lock held: must not block or call the client. */
typedef int lmo_ovsdb_until_fn(void *arg, const json_t *rows, struct lmo_err *err);
/* Waits until `until` is satisfied by current rows. TIMEOUT: it never was (UNAVAILABLE if the connection is down). */
int lmo_ovsdb_watch_wait(struct lmo_ovsdb_watch *w, lmo_ovsdb_until_fn *until, void *arg, uint64_t deadline_ns,
                         struct lmo_err *err) LMO_MUST_CHECK;

#endif
