/* page.h - pages of a list: a cursor says where the next one begins.
 *
 * A cursor is opaque to clients: the position of the last item (its id, its name), sealed with a digest of the list and the
 * filters that it belongs to, so that it cannot be used with others by mistake. It is no secret and grants nothing. Pages are
 * stable: they follow an order in which an item never moves, so what is added or removed meanwhile shifts nothing. */
#ifndef LMO_ENGINE_PAGE_H
#define LMO_ENGINE_PAGE_H

#include "base/err.h"

#include <jansson.h>
#include <stdint.h>

#define LMO_PAGE_POSITION_MAX 160 /* printable ASCII */
#define LMO_CURSOR_MAX        256

struct lmo_page {
    unsigned limit;                    /* at most so many items, 1 at least */
    uint64_t seal;                     /* of list and filters */
    char after[LMO_PAGE_POSITION_MAX]; /* the item before the page's first; empty: from the beginning */
};

/* Digest of a list's name and its filters; begin with LMO_SEAL_NONE. NULL counts as empty. */
#define LMO_SEAL_NONE UINT64_C(0xcbf29ce484222325)
uint64_t lmo_seal(uint64_t seal, const char *text);

void lmo_cursor_make(uint64_t seal, const char *position, char ret_cursor[LMO_CURSOR_MAX]);
/* INVALID unless lmo_cursor_make made it for the same seal. */
int lmo_cursor_read(const char *cursor, uint64_t seal, char ret_position[LMO_PAGE_POSITION_MAX],
                    struct lmo_err *err) LMO_MUST_CHECK;
/* The member "next_cursor": for the page after the item at `position`, or null (NULL: this was the last one). */
int lmo_page_put_next(json_t *body, const struct lmo_page *page, const char *position);

#endif
