/* journal.h - the worker's durable memory: ops, epochs, events, and the records of cutovers (schema/worker/).
 *
 * Writing is by batches. A batch holds what belongs together (a step's state, its reports, the result of the op that it
 * ends) and a function that carries out the step's effects. Batches that are submitted in one turn of the loop share
 * one transaction (group commit); each one's function runs after that transaction is on disk, in the order of
 * submission.
 *
 * Invariants:
 *  J1  No effect of a batch happens before the batch, and all that was submitted before it, is on disk.
 *  J2  A batch is written whole or not at all; batches submitted within one callback are written together.
 *  J3  When the disk refuses (full, I/O error) nothing is given up and nothing goes on: the batches stay queued and are
 *      tried again, loudly. Only a `droppable` batch (a new order, before anything was done about it) is returned to
 *      its owner with the error.
 *  J4  What is read here is on disk, with one exception: epochs are those submitted, so that two orders in one turn
 *      cannot both pass a check that only one of them may pass.
 *
 * Memory: a worker that cannot get the few kilobytes of a batch aborts (lmo_assert) and starts again from this
 * journal. */
#ifndef LMO_WORKERS_JOURNAL_H
#define LMO_WORKERS_JOURNAL_H

#include "base/err.h"
#include "base/loop.h"
#include "base/ops.h"
#include "base/types.h"
#include "proto/op.h"
#include "workers/logic/destination.h"
#include "workers/logic/source.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LMO_JOURNAL_ROLES (LMO_OP_ROLE_FABRIC + 1) /* indexed by enum lmo_op_role */
const char *lmo_journal_role_text(enum lmo_op_role role);

struct lmo_journal;
struct lmo_batch;

struct lmo_journal_config {
    const char *path;             /* the database file */
    const char *host;             /* whose journal; CONFLICT if the file is another host's */
    struct lmo_loop *loop;        /* borrowed */
    void (*on_events)(void *arg); /* durable events were added; on the loop */
    bool (*busy)(void *arg);      /* a guest waits for this worker: not the moment to tidy up the file. NULL: never */
    void *arg;
    /* Tests only: the journal dies around its n-th commit (0: never), as a process that is killed there: nothing is
     * written any more, no function of a batch is called. Before: that commit is lost, too. */
    unsigned die_at_commit;
    bool die_before;
};

int lmo_journal_open(const struct lmo_journal_config *cfg, struct lmo_journal **ret,
                     struct lmo_err *err) LMO_MUST_CHECK;
/* Takes j (NULL is fine), returns NULL. Batches that are still queued are written first if the disk lets them (their
 * functions are called with LMO_E_CANCELLED, so that they free what they hold). */
struct lmo_journal *lmo_journal_close(struct lmo_journal *j);

/* False while the disk refuses; *ret_why (may be NULL) then says so. */
bool lmo_journal_healthy(const struct lmo_journal *j, const char **ret_why);
/* True after die_at_commit; also before the first one with 0. */
bool lmo_journal_dead(const struct lmo_journal *j);
unsigned lmo_journal_commits(const struct lmo_journal *j);

/* ---- reading ---- */

struct lmo_journal_vm {
    char vm[LMO_UUID_MAX];
    uint64_t seen;
    uint64_t closed[LMO_JOURNAL_ROLES];
};
/* A guest that was never heard of: all zero, and 0 is returned. */
int lmo_journal_vm(struct lmo_journal *j, const char *vm, struct lmo_journal_vm *ret,
                   struct lmo_err *err) LMO_MUST_CHECK;

/* The highest epoch of any guest that was submitted. */
uint64_t lmo_journal_epoch(const struct lmo_journal *j);
/* The highest term of a coordinator that was submitted. */
uint64_t lmo_journal_term(const struct lmo_journal *j);

struct lmo_journal_op {
    char migration[LMO_ID_MAX];
    char vm[LMO_UUID_MAX];
    uint64_t epoch;
    enum lmo_op_kind kind;
    enum lmo_op_state state;
    char *text; /* owned: the request while running, else the reply */
};
void lmo_journal_op_done(struct lmo_journal_op *op);
/* NOT_FOUND: never accepted, or forgotten. */
int lmo_journal_op(struct lmo_journal *j, const char *id, struct lmo_journal_op *ret,
                   struct lmo_err *err) LMO_MUST_CHECK;
/* Every migration that ops are kept of, once per role, with the highest epoch; at most 100,000. */
int lmo_journal_holders(struct lmo_journal *j,
                        int (*cb)(void *arg, const char *migration, const char *vm, uint64_t epoch, const char *role), void *arg,
                        struct lmo_err *err) LMO_MUST_CHECK;
/* How many ops of a migration are kept; for the bound. */
int lmo_journal_op_count(struct lmo_journal *j, const char *migration, unsigned *ret,
                         struct lmo_err *err) LMO_MUST_CHECK;
/* Was the migration closed here in that role? */
int lmo_journal_closed(struct lmo_journal *j, const char *migration, enum lmo_op_role role, bool *ret_closed,
                       struct lmo_err *err) LMO_MUST_CHECK;

/* At start. Texts are borrowed for the call and may be NULL. The callbacks return 0 or a negative code to stop. */
int lmo_journal_load_ops(struct lmo_journal *j, int (*cb)(void *arg, const char *id, const char *request), void *arg,
                         struct lmo_err *err) LMO_MUST_CHECK;
int lmo_journal_load_dst(struct lmo_journal *j,
                         int (*cb)(void *arg, const struct lmo_dst *d, const char *request, const char *permit),
                         void *arg, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_journal_load_src(struct lmo_journal *j,
                         int (*cb)(void *arg, const struct lmo_src *s, const char *request, const char *permit),
                         void *arg, struct lmo_err *err) LMO_MUST_CHECK;

/* Durable events above `after`, at most `max`, appended to `array` with their numbers; *ret_next is the last one's
 * number, or `after`. */
int lmo_journal_events(struct lmo_journal *j, uint64_t after, unsigned max, json_t *array, uint64_t *ret_next,
                       struct lmo_err *err) LMO_MUST_CHECK;
uint64_t lmo_journal_last_seq(const struct lmo_journal *j);
uint64_t lmo_journal_event_count(const struct lmo_journal *j);

/* ---- writing ---- */

/* Everything is copied. */
struct lmo_batch *lmo_batch_new(void);
void lmo_batch_free(struct lmo_batch *b); /* one that is not submitted after all */
void lmo_batch_vm(struct lmo_batch *b, const struct lmo_journal_vm *vm);
/* A coordinator's term, never lowered. */
void lmo_batch_term(struct lmo_batch *b, uint64_t term);
void lmo_batch_op(struct lmo_batch *b, const struct lmo_op_request *req, const char *request_text);
/* Forgets the migration's relayed questions that have been answered: the batch brings a newer one. */
void lmo_batch_superseded(struct lmo_batch *b, const char *migration);
void lmo_batch_reply(struct lmo_batch *b, const char *id, enum lmo_op_state state, const char *reply_text);
void lmo_batch_dst(struct lmo_batch *b, const struct lmo_dst *d);
void lmo_batch_src(struct lmo_batch *b, const struct lmo_src *s);
/* NULL leaves what is there. */
void lmo_batch_setup(struct lmo_batch *b, const char *migration, enum lmo_op_role role, const char *request,
                     const char *permit);
void lmo_batch_event(struct lmo_batch *b, const struct lmo_worker_event *e);
/* Forgets the migration's ops, record and set-up in that role, and remembers that they were forgotten. */
void lmo_batch_close(struct lmo_batch *b, const char *migration, enum lmo_op_role role, uint64_t epoch);

/* On the loop. `result` is 0, or why a droppable batch was not written; CANCELLED when the journal closes. */
typedef void lmo_batch_fn(void *arg, int result);

/* Takes b. fn (may be NULL) is called exactly once, later, on the loop. */
void lmo_journal_submit(struct lmo_journal *j, struct lmo_batch *b, bool droppable, lmo_batch_fn *fn, void *arg);

/* Events up to `after` are committed elsewhere: they are deleted with the next commit, or within a second. If `after`
 * lies beyond what this journal ever handed out, the journal was lost: numbering continues above it. */
void lmo_journal_acknowledge(struct lmo_journal *j, uint64_t after);

#endif
