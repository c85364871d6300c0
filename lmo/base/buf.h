/* buf.h - a growable byte buffer with a hard cap.
 *
 * `data` is always NUL-terminated after the first append (the NUL is not counted in `len`). An append that would pass
 * `max` fails with LMO_E_TOO_LARGE and changes nothing. */
#ifndef LMO_BASE_BUF_H
#define LMO_BASE_BUF_H

#include "base/cleanup.h"
#include "base/err.h"

#include <stddef.h>

struct lmo_buf {
    char *data;      /* owned; NULL until the first append */
    size_t len;      /* bytes used */
    size_t capacity; /* bytes allocated */
    size_t max;      /* largest `len` allowed */
};

#define LMO_BUF_INIT(max_bytes) ((struct lmo_buf){.max = (max_bytes)})

int lmo_buf_append(struct lmo_buf *buf, const void *data, size_t len) LMO_MUST_CHECK;
int lmo_buf_append_str(struct lmo_buf *buf, const char *text) LMO_MUST_CHECK;
int lmo_buf_appendf(struct lmo_buf *buf, const char *fmt, ...) LMO_PRINTF(2, 3) LMO_MUST_CHECK;
/* Grows the allocation so that `len` more bytes can be appended without failing. */
int lmo_buf_reserve(struct lmo_buf *buf, size_t len) LMO_MUST_CHECK;
/* Forgets the contents, keeps the allocation. */
void lmo_buf_reset(struct lmo_buf *buf);
/* Returns the contents owned (NULL-terminated, never NULL unless out of memory) and empties the buffer. */
char *lmo_buf_take(struct lmo_buf *buf, size_t *ret_len);
/* The contents as text; "" when empty. Borrowed until the next change. */
const char *lmo_buf_text(const struct lmo_buf *buf);
/* Frees the contents. */
void lmo_buf_done(struct lmo_buf *buf);

#define LMO_AUTO_BUF LMO_CLEANUP(lmo_buf_done)

#endif
