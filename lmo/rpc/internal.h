/* internal.h - shared by the files of this directory only.
 *
 * workers.c  hosts come and go; everything ends at close
 * stream.c   per host: observe, then one long poll after the other
 * observe.c  one-off GETs of ground truth
 * ops.c      per op: PUT, and asking again until the outcome is certain or its time is up
 * answer.c   what an HTTP answer that is not a success means */
#ifndef LMO_RPC_INTERNAL_H
#define LMO_RPC_INTERNAL_H

#include "base/hash.h"
#include "engine/ports.h"
#include "http/client.h"
#include "rpc/workers.h"

#include <stdio.h>

#define HOSTS_MAX 4096
/* Ops of one host under way at once; more wait in a queue. Those of the cutover do not queue behind others. */
#define OPS_IN_FLIGHT_MAX 16
#define OPS_URGENT_MAX    16
#define OPS_QUEUED_MAX    1024
#define CALLS_MAX         16384 /* of all hosts; each has a timer */
#define OBSERVES_MAX      64
/* Every one of them may hold a connection at the same time, and the stream and its observation one each. */
#define CONNECTIONS_PER_HOST (OPS_IN_FLIGHT_MAX + OPS_URGENT_MAX + OBSERVES_MAX + 2)

/* Handshakes under way at once, of all hosts: all that one core does well within a connection's time limit, also when a
 * thousand hosts are new at the same moment. */
#define CONNECTING_MAX 48

struct workers;

enum stream_state {
    STREAM_WAITING = 0, /* until the back-off timer */
    STREAM_OBSERVING,
    STREAM_POLLING,
    STREAM_HELD, /* a batch was delivered and is not acknowledged yet */
};

struct worker_host {
    struct workers *workers;
    char name[LMO_NAME_MAX], url[LMO_URL_MAX];
    uint64_t serial; /* tells a host from one of the same name that was added later */
    /* stream.c */
    enum stream_state state;
    bool up, told;         /* told: the engine has heard one or the other */
    char boot[LMO_ID_MAX]; /* of the worker, as last observed */
    uint64_t acknowledged; /* committed by the engine: what the next poll says */
    uint64_t delivered;    /* given to the engine */
    uint64_t request, timer;
    unsigned failures; /* in a row */
    char not_started[LMO_TEXT_MAX];
    /* ops.c */
    unsigned in_flight, urgent_in_flight, queued;
    struct op_call *calls; /* all of this host, newest first */
    struct op_call *queue_head, *queue_tail;
    unsigned observe_count; /* observe.c */
    struct observe_call *observes;
    UT_hash_handle hh;
};

struct workers {
    struct lmo_workers base; /* first */
    struct lmo_loop *loop;
    struct lmo_http_client *client;
    struct lmo_workers_callbacks cb;
    struct worker_host *hosts;
    /* of hosts that were removed: their `done` is due in the next turn */
    struct op_call *orphans;
    struct observe_call *orphan_observes;
    char term_header[48];
    const char *headers[2]; /* of every request; ends with NULL */
    bool silent;         /* no streams: hosts are asked only what the engine asks */
    unsigned call_count; /* ops of all hosts, orphans too */
    uint64_t next_serial;
};

static inline struct workers *workers_of(struct lmo_workers *w)
{
    return (struct workers *)(void *)w;
}

/* Cuts what does not fit: texts are for people. */
static inline void copy_text(char *buf, size_t size, const char *text)
{
    snprintf(buf, size, "%.*s", (int)size - 1, text);
}

/* workers.c */
struct worker_host *workers_find(struct workers *w, const char *name);
/* The same object as when `serial` was noted, or NULL: callbacks may remove hosts. */
struct worker_host *workers_find_serial(struct workers *w, const char *name, uint64_t serial);

/* A worker obeys a coordinator of a higher term: the engine is told, and finds out whether it is so. */
void workers_superseded(struct workers *w, const char *host, const char *why);

/* stream.c */
void stream_start(struct worker_host *h);
void stream_stop(struct worker_host *h);
void stream_acknowledge(struct worker_host *h, uint64_t cursor);

/* ops.c */
int workers_op(struct lmo_workers *w, const char *host, const struct lmo_op_request *req, uint32_t timeout_ms,
               lmo_op_done_fn *done, void *arg, struct lmo_err *err) LMO_MUST_CHECK;
void ops_drop_host(struct worker_host *h); /* every op of it gets its answer, in the next turn */
void ops_drop_orphans(struct workers *w);  /* ... and now, at close */

/* observe.c */
int workers_observe(struct lmo_workers *w, const char *host, const char *path, uint32_t timeout_ms,
                    lmo_observe_done_fn *done, void *arg, struct lmo_err *err) LMO_MUST_CHECK;
void observe_drop_host(struct worker_host *h);
void observe_drop_orphans(struct workers *w);

/* answer.c */
/* LMO_E_* and a sentence for an answer whose status is not 2xx: what the problem+json says, else by the status. */
int answer_error(const struct lmo_http_response *r, char text[LMO_TEXT_MAX]);

#endif
