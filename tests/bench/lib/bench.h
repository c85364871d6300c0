/* bench.h - what the measuring programs share: samples, JSON on standard output, a directory of their own, and a
 * coordinator's inside with workers that answer from memory. */
#ifndef LMO_TESTS_BENCH_H
#define LMO_TESTS_BENCH_H

#include "engine/engine.h"
#include "engine/ports.h"

#include <jansson.h>
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

/* Ends the program with a message. */
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void check(int r, const struct lmo_err *err, const char *what);
/* Makes DIR/name, which must not exist; removed with everything in it at exit. */
void make_dir(const char *dir, const char *name, char ret[LMO_PATH_MAX]);
/* Median and p99 of writing `bytes` at the end of a file in `dir` and waiting until they are on disk. */
void measure_fdatasync(const char *dir, size_t bytes, unsigned rounds, uint64_t *ret_p50_ns, uint64_t *ret_p99_ns);
/* Bytes that the C library has given out. */
size_t heap_in_use(void);
double rounded(double x, int digits);

/* ------------------------------------------------------------------ workers without a network (fleet.c)
 *
 * Hosts h1... of which the last serves all volumes and the fabric; guests with uuid 00000000-0000-4000-8000-<number> at
 * h(1 + number % (hosts - 1)). Every call is answered well, `answer_us` later (0: in the next turn). */
struct memory_workers {
    struct lmo_workers base;
    struct lmo_loop *loop;
    struct lmo_workers_callbacks cb;
    unsigned hosts;
    unsigned answer_us;     /* mean; each answer takes between half and one and a half of it */
    bool hold_precopy;      /* jobs never converge */
    unsigned xml_bytes;
    struct samples *steps;  /* NULL: not taken. From an answer to the next call of the same migration */
    uint64_t ops;
    uint64_t seqs[64];
    void *guests;           /* uthash by migration */
};
void memory_workers_init(struct memory_workers *w, struct lmo_loop *loop, unsigned hosts);
void memory_workers_done(struct memory_workers *w);
void memory_workers_up(struct memory_workers *w, const struct lmo_workers_callbacks *cb); /* after the engine's start */
void memory_guest_uuid(unsigned n, char uuid[LMO_UUID_MAX]);
/* A record as the engine makes it, for filling a store: guest n, in pre-copy behind its open gate. */
void memory_record(const struct memory_workers *w, unsigned n, struct lmo_migration *ret);
void memory_hosts(const struct memory_workers *w, struct lmo_store *store);

#endif
