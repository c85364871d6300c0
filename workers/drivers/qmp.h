/* qmp.h - a client of QEMU's machine protocol (QMP) over a UNIX socket that stays connected by itself.
 *
 * Role: sends commands from any thread, matches replies by id, delivers events, reconnects with back-off. It knows
 * nothing of volumes. Neighbours: volume_nbd_service.c is the one user.
 *
 * What a caller may conclude from lmo_qmp_call():
 *  - 0: the service executed the command. REFUSED/UNSUPPORTED: the service answered with an error, nothing was done.
 *  - UNAVAILABLE/BUSY: the command was not sent.
 *  - UNKNOWN (connection lost) and TIMEOUT (no answer in time): it may have been executed, or may still be. Look
 *    before doing anything else. A reply that comes after its deadline is dropped.
 *
 * Commands of several threads are pipelined on the one connection; the service executes them in order. */
#ifndef LMO_WORKERS_QMP_H
#define LMO_WORKERS_QMP_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct lmo_qmp;

struct lmo_qmp_config {
    const char *path; /* the service's socket; copied */
    /* All callbacks run on the client's own thread, one at a time, with no lock held; they must not block and must
     * not call lmo_qmp_call(). `generation` counts connections from 1. Any of them may be NULL. */
    void (*on_up)(void *arg, uint64_t generation);   /* connected and negotiated: commands may be sent */
    void (*on_down)(void *arg, uint64_t generation); /* that connection is lost: events may have been missed */
    void (*on_event)(void *arg, const char *name, const json_t *data); /* `data` borrowed, may be NULL */
    void *arg;
};

/* Starts the client's thread; a service that is not there is not an error. *ret is owned by the caller. */
int lmo_qmp_open(const struct lmo_qmp_config *cfg, struct lmo_qmp **ret, struct lmo_err *err) LMO_MUST_CHECK;

/* Ends the thread and fails calls under way (UNKNOWN) and later ones (UNAVAILABLE); `q` stays valid. */
void lmo_qmp_shutdown(struct lmo_qmp *q);

/* Shuts down and frees; nobody may be inside a call any more. NULL is fine. */
void lmo_qmp_close(struct lmo_qmp *q);

/* Sends `command` with `arguments` (borrowed, may be NULL) and waits at most `timeout_ms`. *ret_value (may be NULL)
 * gets the reply's "return", owned by the caller. */
int lmo_qmp_call(struct lmo_qmp *q, const char *command, const json_t *arguments, uint64_t timeout_ms,
                 json_t **ret_value, struct lmo_err *err) LMO_MUST_CHECK;

/* Waits until connected; a connection attempt is made at once, whatever the back-off. UNAVAILABLE at the deadline. */
int lmo_qmp_await(struct lmo_qmp *q, uint64_t timeout_ms, struct lmo_err *err) LMO_MUST_CHECK;

/* The number of the connection that is up now; 0 when there is none. */
uint64_t lmo_qmp_generation(struct lmo_qmp *q);

#endif
