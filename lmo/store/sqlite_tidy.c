/* sqlite_tidy.c - the log is moved into the database by a thread of its own, with a connection of its own.
 *
 * Left to itself SQLite does that within a commit: every hundredth or so takes ten times as long as the others, and with it
 * every step of every migration. The thread moves the log in passes that nobody waits for. As long as commits keep coming a
 * pass never gets the last of it, so the log would never begin at its front again; therefore, when it is long (FOLD_PAGES),
 * passes follow each other until little is left (FOLD_REST), and then the commit at hand moves those few pages: about one
 * more wait for the disk, once in several hundred commits.
 *
 * Invariants:
 *  1. Nothing here decides what is durable: a commit is on disk when it returns, moved or not. A process that ends amid a
 *     pass leaves a log that the next one reads from its front.
 *  2. The connection of the store is touched by the committing thread only, the tidier's by its thread only; what they tell
 *     each other is under the lock, which nobody holds while waiting for the disk.
 *  3. The log is bounded by FOLD_PAGES and what is committed during FOLD_PASSES passes; if the thread cannot keep up, by
 *     FAR_PAGES, from where on commits do the whole work as they would without it. Beyond that it grows only if it cannot be moved at all (a
 *     disk that fails or is full, a reader that never ends), which is said. */
#include "store/sqlite_internal.h"

#include "base/assert.h"
#include "base/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#define PASS_PAGES  1000 /* unmoved, of 4 KiB each: then a pass */
#define FOLD_PAGES  4000 /* in the log: then it shall begin at its front again; just below sql.c's journal_size_limit */
#define FOLD_REST   64   /* unmoved: so little a commit may move... */
#define FOLD_PASSES 4    /* ...or what is left after so many passes in a row: each is shorter than the one before */
#define FAR_PAGES   20000 /* in the log: then commits move it, however much it is */
#define RETRY_S     1

struct tidier {
    struct lmo_sql *db; /* the thread's */
    pthread_t thread;
    bool running; /* there is such a thread */
    bool failing; /* its last pass failed; the thread's own */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping;
    uint64_t pages, moved; /* of the log, as far as is known; `moved` is a hint, SQLite knows better */
    uint64_t generation;   /* how often the log began at its front */
    unsigned passes;       /* since it has FOLD_PAGES */
    uint64_t fold_pages;   /* where a commit tries (again) to fold it */
};

static uint64_t unmoved(const struct tidier *t)
{
    return t->pages > t->moved ? t->pages - t->moved : 0;
}

static bool pass_due(const struct tidier *t)
{
    return unmoved(t) >= PASS_PAGES || (t->pages >= FOLD_PAGES && unmoved(t) > FOLD_REST && t->passes < FOLD_PASSES);
}

static bool fold_due(const struct tidier *t)
{
    return t->pages >= t->fold_pages && (unmoved(t) <= FOLD_REST || t->passes >= FOLD_PASSES || t->pages >= FAR_PAGES);
}

/* ------------------------------------------------------------------ the thread */

/* Whatever is committed meanwhile; with the lock held. */
static void wait_to_retry(struct tidier *t)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += RETRY_S;
    while (!t->stopping && pthread_cond_timedwait(&t->wake, &t->lock, &until) == 0) {
    }
}

static void tell(struct tidier *t, int r, const struct lmo_err *err)
{
    bool failing = r < 0 && r != LMO_E_BUSY; /* busy: a commit is folding, or another process (a backup) tidies up */
    if (failing && !t->failing) {
        lmo_log(LMO_LOG_ERROR, "the store's log cannot be moved into its database; it grows until it can",
                "code=%s why=%s", lmo_err_name(r), err->text);
    } else if (r == 0 && t->failing) {
        lmo_log(LMO_LOG_WARN, "the store's log can be moved again", "");
    }
    t->failing = failing || (t->failing && r < 0);
}

/* With the lock held, but for the pass itself. */
static void pass(struct tidier *t)
{
    struct lmo_sql_log log;
    struct lmo_err err = {0};
    uint64_t generation = t->generation, before = t->moved;
    pthread_mutex_unlock(&t->lock);
    int r = lmo_sql_tidy(t->db, &log, &err);
    tell(t, r, &err);
    pthread_mutex_lock(&t->lock);
    bool got_on = r == 0 && (t->generation != generation || log.moved > before);
    if (r == 0 && t->generation == generation) {
        t->moved = log.moved;
        t->passes += t->pages >= FOLD_PAGES;
    }
    if (!got_on) {
        wait_to_retry(t); /* a reader or the disk is in the way: at once it would be again */
    }
}

static void *thread_main(void *arg)
{
    struct tidier *t = arg;
    pthread_mutex_lock(&t->lock);
    while (!t->stopping) {
        if (pass_due(t)) {
            pass(t);
        } else {
            pthread_cond_wait(&t->wake, &t->lock);
        }
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* ------------------------------------------------------------------ the committing thread */

/* All of it is moved then: the next commit begins at the front. */
static void fold(struct tidier *t, struct lmo_sql *db, uint64_t pages)
{
    struct lmo_sql_log log = {0};
    struct lmo_err err = {0};
    int r = lmo_sql_tidy(db, &log, &err);
    if (r == LMO_E_BUSY) {
        return; /* a pass is under way: the next commit */
    }
    bool whole = r == 0 && log.moved == log.pages;
    if (!whole && pages >= FAR_PAGES) {
        lmo_log(LMO_LOG_ERROR, "the store's log is long and cannot be moved into its database",
                "pages=%" PRIu64 " moved=%" PRIu64 " code=%s why=%s", pages, log.moved, lmo_err_name(r),
                r == 0 ? "something reads an old state of the database" : err.text);
    }
    pthread_mutex_lock(&t->lock);
    t->fold_pages = whole ? FOLD_PAGES : pages + PASS_PAGES;
    if (r == 0) {
        t->moved = log.moved;
    }
    pthread_mutex_unlock(&t->lock);
}

static void on_commit(void *arg, struct lmo_sql *db, uint64_t pages)
{
    struct tidier *t = arg;
    pthread_mutex_lock(&t->lock);
    if (pages < t->pages) {
        t->generation++;
        t->moved = 0;
        t->passes = 0;
        t->fold_pages = FOLD_PAGES;
    }
    t->pages = pages;
    if (pass_due(t)) {
        pthread_cond_signal(&t->wake);
    }
    bool now = fold_due(t);
    pthread_mutex_unlock(&t->lock);
    if (now) {
        fold(t, db, pages);
    }
}

/* ------------------------------------------------------------------ life */

static int start_thread(struct tidier *t)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
    int e = pthread_create(&t->thread, NULL, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    t->running = e == 0;
    return e == 0 ? 0 : LMO_E_LIMIT;
}

int lmo_store_sqlite_tidy_apart(struct lmo_store *s, struct lmo_err *err)
{
    struct sqlite_store *st = sqlite_of(s);
    pthread_condattr_t attr;
    lmo_assert(!st->tidier);
    struct tidier *t = calloc(1, sizeof *t);
    if (!t) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    }
    t->fold_pages = FOLD_PAGES;
    int r = lmo_sql_open(st->db_path, 0, &t->db, err);
    if (r < 0) {
        free(t);
        return r;
    }
    lmo_assert(pthread_mutex_init(&t->lock, NULL) == 0 && pthread_condattr_init(&attr) == 0 &&
               pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 && pthread_cond_init(&t->wake, &attr) == 0);
    pthread_condattr_destroy(&attr);
    r = start_thread(t);
    if (r < 0) {
        lmo_sqlite_tidy_stop(t);
        return lmo_fail(err, r, "no thread for the store's log");
    }
    st->tidier = t;
    lmo_sql_tidy_elsewhere(st->db, on_commit, t);
    return 0;
}

void lmo_sqlite_tidy_stop(struct tidier *t)
{
    if (!t) {
        return;
    }
    if (t->running) {
        pthread_mutex_lock(&t->lock);
        t->stopping = true;
        pthread_cond_signal(&t->wake);
        pthread_mutex_unlock(&t->lock);
        lmo_assert(pthread_join(t->thread, NULL) == 0);
    }
    lmo_sql_close(t->db);
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
