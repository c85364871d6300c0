/* ovsdb_link.h - a connection that is kept: the part that OVSDB's and OpenFlow's clients have in common.
 *
 * One reader thread per link connects (remotes in turn, with back-off), reads, probes a silent peer and reconnects.
 * One lock guards the link and its user's state; the user's functions are called with it held and must not block.
 * Sending never blocks either: bytes go to the socket at once if it takes them, and otherwise wait, bounded, for the
 * reader thread; so they leave in the order in which they were handed over. */
#ifndef LMO_WORKERS_OVSDB_LINK_H
#define LMO_WORKERS_OVSDB_LINK_H

#include "base/buf.h"
#include "base/err.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LMO_OVSDB_REMOTES_MAX 5

struct lmo_ovsdb_link;

/* Called by the reader thread, locked. A negative code ends the connection. */
struct lmo_ovsdb_link_user {
    int (*connected)(void *arg, struct lmo_err *err); /* say hello */
    int (*received)(void *arg, const uint8_t *bytes, size_t n, struct lmo_err *err);
    int (*probe)(void *arg, struct lmo_err *err); /* ask for a sign of life */
    void (*lost)(void *arg);                      /* link->problem says why */
};

struct lmo_ovsdb_link {
    char name[64];
    char remotes[LMO_OVSDB_REMOTES_MAX][256];
    size_t remote_count;
    uint64_t probe_ns;
    const struct lmo_ovsdb_link_user *user;
    void *arg;
    pthread_t reader;
    int wake_fd; /* eventfd: `closing` was set, or `out` has something to send */

    pthread_mutex_t lock;   /* guards everything below, and the user's own state */
    pthread_cond_t changed; /* broadcast after every call of the user's functions */
    bool closing;
    bool useful;            /* set by the user once the peer has proven to be what is wanted: ends the back-off */
    int fd;                 /* -1 when down; only the reader opens and closes it */
    struct lmo_err problem; /* why it is down */
    struct lmo_buf out;
};

/* Initialises *link and starts its thread. `remotes` are separated by commas. On failure nothing is left. */
int lmo_ovsdb_link_start(struct lmo_ovsdb_link *link, const char *name, const char *remotes, uint64_t probe_ms,
                         const struct lmo_ovsdb_link_user *user, void *arg, struct lmo_err *err) LMO_MUST_CHECK;
/* Ends the thread and the connection; nobody else may be using the link. */
void lmo_ovsdb_link_stop(struct lmo_ovsdb_link *link);

/* Locked. All or nothing is accepted; UNAVAILABLE otherwise. What was accepted may still be lost with the connection.
 * */
int lmo_ovsdb_link_send(struct lmo_ovsdb_link *link, const void *bytes, size_t n, struct lmo_err *err) LMO_MUST_CHECK;
/* Locked. Waits for a broadcast; false when the deadline has passed. */
bool lmo_ovsdb_link_wait(struct lmo_ovsdb_link *link, uint64_t deadline_ns);

#endif
