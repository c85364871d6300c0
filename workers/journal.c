/* journal.c - the queue of batches and the one place that commits (journal.h has the invariants).
 *
 * submit() queues and posts one flush to the loop; everything that is submitted before that post runs goes into the
 * same transaction. The functions of the batches run from the flush, after the commit; what they submit is the next
 * one's. */
#include "workers/journal_private.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "sql/backup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MIN_MS  100
#define RETRY_MAX_MS  2000
#define ACK_DELAY_MS  1000
#define TIDY_AFTER    100 /* commits; some 1 to 2 MB of log */
#define TIDY_DELAY_MS 2000
#define TIDY_ANYWAY   10000   /* commits: then even while a guest waits */
#define CLOSED_KEPT   "20000" /* forgotten migrations that are still answered 410 */

static void flush(struct lmo_journal *j);

static void flush_posted(void *arg)
{
    struct lmo_journal *j = arg;
    j->flush_posted = false;
    flush(j);
}

static void retry_due(void *arg)
{
    struct lmo_journal *j = arg;
    j->retry_timer = 0;
    flush(j);
}

static void retry_in(struct lmo_journal *j, uint64_t delay_ms)
{
    if (j->retry_timer == 0) {
        lmo_assert(lmo_loop_timer(j->loop, delay_ms, retry_due, j, &j->retry_timer) == 0);
    }
}

static void schedule(struct lmo_journal *j)
{
    if (j->flush_posted || j->flushing || j->retry_timer) {
        return;
    }
    if (lmo_loop_post(j->loop, flush_posted, j) == 0) {
        j->flush_posted = true;
    } else {
        retry_in(j, 0); /* the loop's queue is full of other people's posts */
    }
}

/* ---- one transaction ---- */

static int apply_batches(struct lmo_journal *j, unsigned *ret_events, struct lmo_err *err)
{
    unsigned events = 0;
    for (struct lmo_batch *b = j->first; b; b = b->next) {
        for (struct lmo_write *w = b->first; w; w = w->next) {
            int r = w->apply(j->db, w, err);
            if (r < 0) {
                return r;
            }
        }
        events += b->event_count;
    }
    *ret_events = events;
    return 0;
}

static int apply_ack(struct lmo_journal *j, uint64_t *ret_deleted, struct lmo_err *err)
{
    if (j->ack_wanted <= j->acked) {
        return 0;
    }
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(j->db, "DELETE FROM event WHERE seq <= ?1", &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_u64(s, 1, j->ack_wanted);
    return lmo_sql_run(s, ret_deleted, err);
}

static int write_all(struct lmo_journal *j, struct lmo_err *err)
{
    unsigned events = 0;
    uint64_t deleted = 0, ack = j->ack_wanted;
    int r = lmo_sql_begin(j->db, err);
    if (r == 0) {
        r = apply_ack(j, &deleted, err);
    }
    if (r == 0) {
        r = apply_batches(j, &events, err);
    }
    if (r == 0) {
        r = lmo_sql_commit(j->db, err);
    }
    if (r < 0) {
        lmo_sql_rollback(j->db);
        return r;
    }
    if (ack > j->acked) {
        j->acked = ack;
    }
    j->event_count += events;
    j->event_count -= deleted < j->event_count ? deleted : j->event_count;
    j->last_seq += events; /* AUTOINCREMENT, one writer, no failed transaction kept: numbers have no gaps */
    return 0;
}

/* SQLite would move its log into the database within some commit, many milliseconds long: it is done here instead, when
 * no guest waits. */
static void tidy(void *arg)
{
    struct lmo_journal *j = arg;
    struct lmo_err err = {0};
    j->tidy_timer = 0;
    bool later = j->busy && j->busy(j->arg) && j->untidy < TIDY_ANYWAY;
    if (!later && !j->dead) {
        struct lmo_sql_log log;
        if (lmo_sql_tidy(j->db, &log, &err) < 0) {
            lmo_log(LMO_LOG_WARN, "journal cannot be tidied up; later again", "reason=%s", err.text);
        }
        j->untidy = 0;
        return;
    }
    lmo_assert(lmo_loop_timer(j->loop, TIDY_DELAY_MS, tidy, j, &j->tidy_timer) == 0);
}

static void tidy_later(struct lmo_journal *j)
{
    if (++j->untidy >= TIDY_AFTER && !j->tidy_timer) {
        lmo_assert(lmo_loop_timer(j->loop, TIDY_DELAY_MS, tidy, j, &j->tidy_timer) == 0);
    }
}

/* ---- after it ---- */

static void call(struct lmo_batch *b, int result)
{
    if (b->fn) {
        b->fn(b->arg, result);
    }
    lmo_batch_free(b);
}

static void remember_epochs(struct lmo_journal *j, const struct lmo_batch *b)
{
    for (const struct lmo_write *w = b->first; w; w = w->next) {
        if (w->apply == lmo_journal_apply_vm) {
            lmo_journal_vm_remember(j, &w->u.vm);
            j->epoch = w->u.vm.seen > j->epoch ? w->u.vm.seen : j->epoch;
        }
        if (w->apply == lmo_journal_apply_term && w->u.term > j->term) {
            j->term = w->u.term;
        }
    }
}

static void refuse_droppable(struct lmo_journal *j, int code)
{
    struct lmo_batch *refused = NULL, **refused_last = &refused;
    for (struct lmo_batch **at = &j->first; *at;) {
        struct lmo_batch *b = *at;
        if (!b->droppable) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        b->next = NULL;
        *refused_last = b;
        refused_last = &b->next;
    }
    j->last = &j->first;
    while (*j->last) {
        j->last = &(*j->last)->next;
    }
    /* What the refused ones said of epochs is neither on disk nor on its way there: J4 is about the others alone. */
    lmo_journal_vm_forget_all(j);
    for (struct lmo_batch *b = j->first; b; b = b->next) {
        remember_epochs(j, b);
    }
    while (refused) {
        struct lmo_batch *b = refused;
        refused = b->next;
        call(b, code);
    }
}

static void failed(struct lmo_journal *j, int code, const struct lmo_err *err)
{
    j->failures++;
    snprintf(j->why, sizeof j->why, "%s", err->text);
    lmo_log(LMO_LOG_ERROR, "journal cannot be written; nothing goes on until it can", "code=%s reason=%s failures=%u",
            lmo_err_name(code), err->text, j->failures);
    uint64_t delay = j->failures > 5 ? RETRY_MAX_MS : (uint64_t)RETRY_MIN_MS << (j->failures - 1);
    refuse_droppable(j, code);
    if (j->first) {
        retry_in(j, delay < RETRY_MAX_MS ? delay : RETRY_MAX_MS);
    } else {
        j->failures = 0; /* nothing is owed to the disk; the next order finds out for itself */
    }
}

/* Tests: the process "ends" here. True: it is over. */
static bool dies(struct lmo_journal *j, bool before)
{
    if (j->die_at_commit && j->die_before == before && j->commits + (before ? 1 : 0) >= j->die_at_commit) {
        j->dead = true;
    }
    return j->dead;
}

static void flush(struct lmo_journal *j)
{
    if (j->dead || (!j->first && j->ack_wanted <= j->acked)) {
        return;
    }
    bool writes = j->ack_wanted > j->acked, events = false;
    for (struct lmo_batch *b = j->first; b; b = b->next) {
        writes |= b->first != NULL;
        events |= b->event_count > 0;
    }
    if (writes) {
        if (dies(j, true)) {
            return;
        }
        struct lmo_err err = {0};
        uint64_t started = lmo_now_ns();
        int r = write_all(j, &err);
        lmo_log(LMO_LOG_DEBUG, "journal committed", "code=%s us=%llu", lmo_err_name(r),
                (unsigned long long)(lmo_now_ns() - started) / 1000);
        if (r < 0) {
            lmo_assert(r != LMO_E_INVALID && r != LMO_E_CONFLICT); /* our own SQL */
            failed(j, r, &err);
            return;
        }
        j->commits++;
        tidy_later(j);
        if (j->failures) {
            lmo_log(LMO_LOG_WARN, "journal can be written again", "failures=%u", j->failures);
            j->failures = 0;
        }
        if (dies(j, false)) {
            return;
        }
    }
    struct lmo_batch *batch = j->first;
    j->first = NULL;
    j->last = &j->first;
    if (j->vm_count > LMO_VM_CACHE_MAX) {
        lmo_journal_vm_forget_all(j); /* all of it is on disk now */
    }
    j->flushing = true;
    while (batch) {
        struct lmo_batch *b = batch;
        batch = b->next;
        call(b, 0);
    }
    j->flushing = false;
    if (events && j->on_events) {
        j->on_events(j->arg);
    }
    if (j->first) {
        schedule(j);
    }
}

void lmo_journal_submit(struct lmo_journal *j, struct lmo_batch *b, bool droppable, lmo_batch_fn *fn, void *arg)
{
    b->droppable = droppable;
    b->fn = fn;
    b->arg = arg;
    remember_epochs(j, b);
    *j->last = b;
    j->last = &b->next;
    schedule(j);
}

/* ---- acknowledgement of events ---- */

static void ack_due(void *arg)
{
    struct lmo_journal *j = arg;
    j->ack_timer = 0;
    if (!j->retry_timer) {
        flush(j);
    }
}

/* The coordinator has seen numbers that this journal never gave: it is a new one. Its own events move above them. */
static int renumber(struct lmo_journal *j, uint64_t after)
{
    struct lmo_err err = {0};
    struct lmo_sql_stmt *s;
    int r = lmo_sql_begin(j->db, &err);
    for (int i = 0; r == 0 && i < 3; i++) {
        static const char *const sql[3] = {
            /* through the negative numbers, so that no two rows ever share one */
            "UPDATE event SET seq = -seq - ?1 WHERE seq > 0 AND ?1 > 0",
            "UPDATE event SET seq = -seq WHERE seq < 0 AND ?1 > 0",
            ("INSERT OR REPLACE INTO sqlite_sequence (rowid, name, seq) VALUES "
             "((SELECT rowid FROM sqlite_sequence WHERE name = 'event'), 'event', ?1)"),
        };
        r = lmo_sql_prepare(j->db, sql[i], &s, &err);
        if (r == 0) {
            lmo_sql_bind_u64(s, 1, i < 2 ? after : after + j->last_seq);
            r = lmo_sql_run(s, NULL, &err);
        }
    }
    if (r == 0) {
        r = lmo_sql_commit(j->db, &err);
    }
    if (r < 0) {
        lmo_sql_rollback(j->db);
        lmo_log(LMO_LOG_ERROR, "events cannot be renumbered", "after=%llu reason=%s", (unsigned long long)after,
                err.text);
        return r;
    }
    lmo_log(LMO_LOG_ERROR, "coordinator has seen more events than this journal ever gave: it was lost",
            "after=%llu last=%llu", (unsigned long long)after, (unsigned long long)j->last_seq);
    j->last_seq += after;
    j->acked = after;
    j->ack_wanted = after;
    return 0;
}

void lmo_journal_acknowledge(struct lmo_journal *j, uint64_t after)
{
    if (after > j->last_seq) {
        if (after > (UINT64_C(1) << 53) || j->dead || renumber(j, after) < 0) {
            return;
        }
    }
    if (after <= j->ack_wanted) {
        return;
    }
    j->ack_wanted = after;
    if (j->ack_timer == 0) {
        lmo_assert(lmo_loop_timer(j->loop, ACK_DELAY_MS, ack_due, j, &j->ack_timer) == 0);
    }
}

uint64_t lmo_journal_epoch(const struct lmo_journal *j)
{
    return j->epoch;
}

uint64_t lmo_journal_term(const struct lmo_journal *j)
{
    return j->term;
}

uint64_t lmo_journal_last_seq(const struct lmo_journal *j)
{
    return j->last_seq;
}

uint64_t lmo_journal_event_count(const struct lmo_journal *j)
{
    return j->event_count;
}

bool lmo_journal_healthy(const struct lmo_journal *j, const char **ret_why)
{
    if (ret_why) {
        *ret_why = j->failures ? j->why : "";
    }
    return j->failures == 0;
}

bool lmo_journal_dead(const struct lmo_journal *j)
{
    return j->dead;
}

unsigned lmo_journal_commits(const struct lmo_journal *j)
{
    return j->commits;
}

/* ---- life ---- */

static int check_host(struct lmo_journal *j, const struct lmo_journal_config *cfg, struct lmo_err *err)
{
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(j->db, "INSERT OR IGNORE INTO meta (key, value) VALUES ('host', ?1)", &s, err);
    if (r < 0) {
        return r;
    }
    lmo_sql_bind_text(s, 1, cfg->host);
    r = lmo_sql_run(s, NULL, err);
    if (r == 0) {
        r = lmo_sql_prepare(j->db, "SELECT value FROM meta WHERE key = 'host'", &s, err);
    }
    if (r < 0) {
        return r;
    }
    r = lmo_sql_step(s, err);
    if (r > 0 && strcmp(lmo_sql_text(s, 0), cfg->host) != 0) {
        r = lmo_fail(err, LMO_E_CONFLICT, "%s is the journal of host '%s', not of '%s'", cfg->path, lmo_sql_text(s, 0),
                     cfg->host);
    }
    lmo_sql_reset(s);
    return r < 0 ? r : 0;
}

static int read_counters(struct lmo_journal *j, struct lmo_err *err)
{
    static const char *const sql = "SELECT (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'), "
                                   "(SELECT count(*) FROM event), "
                                   "(SELECT coalesce(max(CAST(value AS INTEGER)), 0) FROM meta WHERE key = 'term'), "
                                   "(SELECT coalesce(max(seen), 0) FROM vm_epoch)";
    struct lmo_sql_stmt *s;
    int r = lmo_sql_prepare(j->db, sql, &s, err);
    if (r == 0) {
        r = lmo_sql_step(s, err);
    }
    if (r > 0) {
        j->last_seq = lmo_sql_u64(s, 0);
        j->event_count = lmo_sql_u64(s, 1);
        j->term = lmo_sql_u64(s, 2);
        j->epoch = lmo_sql_u64(s, 3);
        lmo_sql_reset(s);
    }
    return r < 0 ? r : 0;
}

/* Off the guests' path: what only grows is trimmed at start. */
static int trim(struct lmo_journal *j, struct lmo_err *err)
{
    int r = lmo_sql_exec(j->db, "DELETE FROM closed WHERE n <= (SELECT max(n) FROM closed) - " CLOSED_KEPT, err);
    /* Orders of no migration (a volume's first attachment) are closed by nobody. */
    return r < 0 ? r
                 : lmo_sql_exec(j->db,
                                "DELETE FROM op WHERE migration = '' AND state <> 'running' AND "
                                "rowid <= (SELECT max(rowid) FROM op) - " CLOSED_KEPT,
                                err);
}

int lmo_journal_open(const struct lmo_journal_config *cfg, struct lmo_journal **ret, struct lmo_err *err)
{
    struct lmo_journal *j = calloc(1, sizeof *j);
    if (!j) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the journal");
    }
    j->loop = cfg->loop;
    j->on_events = cfg->on_events;
    j->busy = cfg->busy;
    j->arg = cfg->arg;
    j->die_at_commit = cfg->die_at_commit;
    j->die_before = cfg->die_before;
    j->last = &j->first;
    int r = lmo_sql_open(cfg->path, 2000, &j->db, err);
    if (r == 0) {
        lmo_sql_tidy_elsewhere(j->db, NULL, NULL); /* see tidy() */
        r = lmo_sql_upgrade(j->db, cfg->path, lmo_schema_worker, lmo_schema_worker_count, err);
    }
    int64_t made_ms;
    if (r == 0 && (r = lmo_sql_marked(j->db, &made_ms, err)) == 1) {
        r = lmo_fail(err, LMO_E_CONFLICT,
                     "%s is a copy that was put back: what this host promised since is not in it. A worker's journal cannot be "
                     "restored; move it away and start with none, see docs/guide/backup.md",
                     cfg->path);
    }
    if (r == 0) {
        r = check_host(j, cfg, err);
    }
    if (r == 0) {
        r = read_counters(j, err);
    }
    if (r == 0) {
        r = trim(j, err);
    }
    if (r < 0) {
        lmo_journal_close(j);
        return r;
    }
    *ret = j;
    return 0;
}

struct lmo_journal *lmo_journal_close(struct lmo_journal *j)
{
    if (!j) {
        return NULL;
    }
    struct lmo_err err = {0};
    if (j->first && !j->dead && write_all(j, &err) < 0) {
        lmo_log(LMO_LOG_ERROR, "journal closes with unwritten steps; they start again from what is on disk",
                "reason=%s", err.text);
    }
    j->dead = true;
    while (j->first) {
        struct lmo_batch *b = j->first;
        j->first = b->next;
        call(b, LMO_E_CANCELLED);
    }
    if (j->loop) {
        lmo_loop_cancel(j->loop, &j->retry_timer);
        lmo_loop_cancel(j->loop, &j->ack_timer);
        lmo_loop_cancel(j->loop, &j->tidy_timer);
    }
    lmo_journal_vm_forget_all(j);
    j->db = lmo_sql_close(j->db);
    free(j);
    return NULL;
}
