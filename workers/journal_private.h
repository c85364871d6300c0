/* journal_private.h - shared by journal.c (queue and commit), journal_write.c (batches) and journal_read.c. */
#ifndef LMO_WORKERS_JOURNAL_PRIVATE_H
#define LMO_WORKERS_JOURNAL_PRIVATE_H

#include "sql/sql.h"
#include "workers/journal.h"

#include <stdatomic.h>

/* One row to be written; `apply` knows which member of the union is meant. */
struct lmo_write {
    struct lmo_write *next;
    int (*apply)(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err);
    union {
        struct lmo_journal_vm vm;
        uint64_t term;
        struct lmo_dst dst;
        struct lmo_src src;
        struct {
            char id[LMO_OP_ID_MAX], migration[LMO_ID_MAX], vm[LMO_UUID_MAX];
            uint64_t epoch;
            enum lmo_op_kind kind;
            enum lmo_op_role role;
            enum lmo_op_state state;
        } op; /* op, setup, close */
    } u;
    char *text, *text2; /* owned */
};

struct lmo_batch {
    struct lmo_batch *next;
    struct lmo_write *first, **last;
    unsigned event_count;
    bool droppable;
    lmo_batch_fn *fn;
    void *arg;
};

/* The newest epochs submitted, per guest; a cache over vm_epoch that is dropped when it grows and nothing is queued. */
#define LMO_VM_BUCKETS   512
#define LMO_VM_CACHE_MAX 4096
struct lmo_vm_entry {
    struct lmo_vm_entry *next;
    struct lmo_journal_vm vm;
};

struct lmo_journal {
    struct lmo_sql *db;
    struct lmo_loop *loop;
    void (*on_events)(void *arg);
    bool (*busy)(void *arg);
    void *arg;
    uint64_t tidy_timer;
    unsigned untidy; /* commits since the last checkpoint */
    unsigned die_at_commit;
    bool die_before;

    struct lmo_batch *first, **last; /* submitted, not written */
    bool flush_posted, flushing;
    uint64_t retry_timer, ack_timer;
    unsigned failures;          /* in a row */
    char why[LMO_ERR_TEXT_MAX]; /* of the last failure */
    atomic_uint commits;        /* tests look at these two from outside */
    atomic_bool dead;

    uint64_t last_seq, event_count; /* of the committed events */
    uint64_t acked, ack_wanted;     /* deleted up to; may be deleted up to */
    uint64_t term;                  /* the highest submitted */
    uint64_t epoch;                 /* of any guest, likewise */

    struct lmo_vm_entry *vms[LMO_VM_BUCKETS];
    unsigned vm_count;
};

/* Puts the epochs of a submitted batch into the cache. */
void lmo_journal_vm_remember(struct lmo_journal *j, const struct lmo_journal_vm *vm);
void lmo_journal_vm_forget_all(struct lmo_journal *j);
int lmo_journal_apply_term(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err) LMO_MUST_CHECK;
int lmo_journal_apply_vm(struct lmo_sql *db, const struct lmo_write *w, struct lmo_err *err) LMO_MUST_CHECK;

#endif
