/* render_text.h - a line of text that grows; for render_*.c alone. */
#ifndef LMO_CLI_RENDER_TEXT_H
#define LMO_CLI_RENDER_TEXT_H

#include "base/err.h"
#include "cli/render.h"

/* `buf` has LMO_RENDER_LINE_MAX bytes; what does not fit is cut. Zero-initialise but for `buf`. */
struct lmo_text {
    char *buf;
    size_t used;
};
void lmo_text_add(struct lmo_text *t, const char *fmt, ...) LMO_PRINTF(2, 3);

/* How a migration stands: its outcome, while it has none its phase. Borrowed. */
const char *lmo_render_state(const json_t *migration);
/* From its acceptance to its last change, ms. */
uint64_t lmo_render_took_ms(const json_t *migration);

#endif
