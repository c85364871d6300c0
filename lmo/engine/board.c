/* board.c - migrations as they were shown last, for whoever asks next, on any thread.
 *
 * A client that follows a migration asks for it again and again, and mostly it is what it was. Such a question is answered
 * from here, without a turn of the engine's loop.
 *
 * Invariants:
 *  1. Only the loop puts something up and takes it down. What is up is what a turn of the loop would show now: every step of a
 *     record takes it down before anything can follow from the step, and what changes with time alone has an end.
 *  2. What depends on other records (a place in a line) is never put up.
 *  3. Bounded: BOARD_MAX texts, BOARD_BYTES_MAX together; the oldest make room. */
#include "base/clock.h"
#include "base/hash.h"
#include "base/str.h"
#include "engine/internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BOARD_MAX       8192U
#define BOARD_BYTES_MAX ((size_t)48 << 20)

struct notice {
    char id[LMO_ID_MAX], etag[LMO_ETAG_MAX];
    uint64_t until_ns; /* 0: no end */
    size_t len;
    UT_hash_handle hh;
    char text[];
};

struct board {
    pthread_mutex_t lock;
    struct notice *by_id; /* in the order of putting up */
    size_t bytes;
};

int engine_board_init(struct lmo_engine *e, struct lmo_err *err)
{
    e->board = calloc(1, sizeof *e->board);
    if (!e->board) {
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for the engine");
    }
    lmo_assert(pthread_mutex_init(&e->board->lock, NULL) == 0);
    return 0;
}

static void take_down(struct board *b, struct notice *n)
{
    HASH_DEL(b->by_id, n);
    b->bytes -= n->len;
    free(n);
}

void engine_board_done(struct lmo_engine *e)
{
    if (!e->board) {
        return;
    }
    while (e->board->by_id) {
        take_down(e->board, e->board->by_id);
    }
    pthread_mutex_destroy(&e->board->lock);
    free(e->board);
    e->board = NULL;
}

void engine_board_forget(struct lmo_engine *e, const char *id)
{
    struct notice *n;
    pthread_mutex_lock(&e->board->lock);
    HASH_FIND_STR(e->board->by_id, id, n);
    if (n) {
        take_down(e->board, n);
    }
    pthread_mutex_unlock(&e->board->lock);
}

void engine_board_put(struct lmo_engine *e, const char *id, const char *etag, const char *text, size_t len, uint64_t until_ns)
{
    struct board *b = e->board;
    struct notice *n = malloc(sizeof *n + len + 1), *old;
    if (!n) {
        return; /* then everybody asks the loop */
    }
    *n = (struct notice){.until_ns = until_ns, .len = len};
    LMO_COPY(n->id, id);
    LMO_COPY(n->etag, etag);
    memcpy(n->text, text, len + 1);
    pthread_mutex_lock(&b->lock);
    HASH_FIND_STR(b->by_id, id, old);
    if (old) {
        take_down(b, old);
    }
    while (b->by_id && (HASH_COUNT(b->by_id) >= BOARD_MAX || b->bytes + len > BOARD_BYTES_MAX)) {
        take_down(b, b->by_id);
    }
    HASH_ADD_STR(b->by_id, id, n);
    b->bytes += len;
    pthread_mutex_unlock(&b->lock);
}

bool lmo_engine_migration_peek(struct lmo_engine *e, const char *id, char **ret_text, size_t *ret_len, char ret_etag[LMO_ETAG_MAX])
{
    struct notice *n;
    char *text = NULL;
    pthread_mutex_lock(&e->board->lock);
    HASH_FIND_STR(e->board->by_id, id, n);
    if (n && (n->until_ns == 0 || lmo_now_ns() < n->until_ns) && (text = malloc(n->len + 1))) {
        memcpy(text, n->text, n->len + 1);
        memcpy(ret_etag, n->etag, sizeof n->etag);
        *ret_len = n->len;
        *ret_text = text;
    }
    pthread_mutex_unlock(&e->board->lock);
    return text != NULL;
}
