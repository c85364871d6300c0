/* bench.h - what the measuring programs share: samples, JSON on standard output, a directory of their own, and a
 * coordinator's inside with workers that answer from memory. */
#ifndef LMO_TESTS_BENCH_H
#define LMO_TESTS_BENCH_H

#include "engine/engine.h"
#include "engine/ports.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ------------------------------------------------------------------ samples (bench.c) */

struct samples {
    uint64_t *ns;
    size_t count, room;
};
void samples_add(struct samples *s, uint64_t ns);
/* 0 to 100; sorts. 0 without samples. */
uint64_t samples_percentile(struct samples *s, double percent);
void samples_done(struct samples *s);

/* Called at the end of the program, the last one first; also by die(). */
void at_the_end(void (*fn)(void));
/* Ends the program with a message. */
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void check(int r, const struct lmo_err *err, const char *what);
/* Makes DIR/name (name "": DIR), which must not exist; removed with everything in it at exit. */
void make_dir(const char *dir, const char *name, char ret[LMO_PATH_MAX]);
/* A file in `dir` for the next. */
int fdatasync_file(const char *dir);
/* Adds how long it takes to write 4 KiB at the end of the file and to wait until they are on disk, `rounds` times. */
void measure_fdatasync(int fd, unsigned rounds, struct samples *to);
/* Bytes that the C library has given out. */
size_t heap_in_use(void);
double rounded(double x, int digits);

/* ------------------------------------------------------------------ workers without a network (memory.c)
 *
 * Hosts h1... of which the last serves all volumes and the fabric; guests with uuid 00000000-0000-4000-8000-<number> at
 * h(1 + number % (hosts - 1)). Every call is answered well, `answer_us` later (0: in the next turn).
 *
 * A step's time is taken from the moment at which an answer or an event was due, however late the loop came to it, to the
 * moment at which what follows from it is durable, and further to the last call that goes out then. */
#define MEMORY_PENDING_MAX 4096
struct memory_pending {
    char migration[LMO_ID_MAX];
    bool event;    /* its cursor is committed in any case */
    uint64_t due_ns;
    size_t sample; /* its index, once it is settled */
};
struct memory_workers {
    struct lmo_workers base;
    struct lmo_loop *loop;
    struct lmo_workers_callbacks cb;
    unsigned hosts;
    unsigned answer_us;     /* mean; each answer takes between half and one and a half of it... */
    uint64_t random;        /* ...unless this is a seed: then exponentially distributed */
    bool hold_precopy;      /* jobs never converge */
    unsigned xml_bytes;
    struct samples *steps;  /* NULL: not taken */
    struct memory_pending pending[MEMORY_PENDING_MAX], settled[MEMORY_PENDING_MAX]; /* given since the last commit; settled by it */
    unsigned pending_count, settled_count;
    uint64_t unsettled;     /* answers after which nothing was stored */
    uint64_t ops;
    uint64_t seqs[64];
    void *guests;           /* uthash by migration */
};
void memory_workers_init(struct memory_workers *w, struct lmo_loop *loop, unsigned hosts);
void memory_workers_done(struct memory_workers *w);
void memory_workers_up(struct memory_workers *w, const struct lmo_workers_callbacks *cb); /* after the engine's start */
/* To be told of every commit of the store, for the steps' times. */
void memory_workers_committed(struct memory_workers *w, const struct lmo_commit_item *items, unsigned count);
void memory_guest_uuid(unsigned n, char uuid[LMO_UUID_MAX]);
/* Everything may start at once: admission is not what is measured. */
extern const struct lmo_limits bench_limits;
/* A record as the engine makes it, for filling a store: guest n, in pre-copy behind its open gate. */
void memory_record(const struct memory_workers *w, unsigned n, struct lmo_migration *ret);
void memory_hosts(const struct memory_workers *w, struct lmo_store *store);

/* ------------------------------------------------------------------ a whole coordinator (coordinator.c)
 *
 * Store, engine, workers over mutual TLS and the REST API, on a thread of its own, as in lmod; with ears: how many workers
 * are up, and when each guest's migration ended. `poll_ms` > 0 makes it a coordinator that looks for answers and events only
 * so often: the same binary, the comparator for what events are worth. */
#define BENCH_HOSTS_MAX 8192
struct coordinator {
    bool host_up[BENCH_HOSTS_MAX]; /* by the number in the name */
    struct lmo_loop *loop;
    struct lmo_store *store;
    struct lmo_permit_key *key;
    struct lmo_engine *engine;
    struct lmo_workers *workers; /* the engine's: the real ones, or those behind the poll */
    struct lmo_api *api;
    pthread_t thread;
    unsigned poll_ms;
    struct poller *poller;
    struct lmo_workers_callbacks callbacks, inner_callbacks;
    struct lmo_store_ops store_ops;
    const struct lmo_store_ops *inner_store;
    _Atomic unsigned up, ended, ended_well;
    _Atomic uint64_t transitions;
    unsigned guests;
    _Atomic uint64_t *ended_ns; /* by guest; 0: not since it was cleared */
};
/* `dir`: the fleet's, with its certificates; `state`: where the store is. Dies on failure. */
struct coordinator *coordinator_start(const char *dir, const char *state, unsigned guests, unsigned poll_ms);
void coordinator_stop(struct coordinator *c);

#endif
