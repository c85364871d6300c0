/* term.h - the terminal for a full-screen program: its own screen, keys one by one, and everything as it was on every way out.
 *
 * No curses: what is used (another screen, cursor home, erase to the end, hidden cursor) is the same on every terminal that
 * is not dumb, and a picture is one write. A process has one terminal at a time; what must be put back is known to
 * handlers of the signals that end a process without a chance to tidy up, and to atexit. */
#ifndef LMO_CLI_TERM_H
#define LMO_CLI_TERM_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* Switches to the other screen and to keys without echo. `in` and `out` must be the terminal; borrowed. UNSUPPORTED if not. */
int lmo_term_enter(int in, int out, struct lmo_err *err) LMO_MUST_CHECK;
/* Everything as it was; nothing if nothing was changed. Async-signal-safe. */
void lmo_term_leave(void);
/* Columns and rows; 80 and 24 if the terminal does not say. */
void lmo_term_size(int out, unsigned *ret_columns, unsigned *ret_rows);
/* Leaves the screen, stops this process as Ctrl-Z wants it, and enters it again once it is continued. */
int lmo_term_suspend(int in, int out, struct lmo_err *err) LMO_MUST_CHECK;
/* Writes all of it, however often the terminal takes only a part. */
int lmo_term_write(int out, const char *data, size_t len) LMO_MUST_CHECK;

enum lmo_key {
    LMO_KEY_NONE = 0, /* of what was read, nothing more is left */
    LMO_KEY_TEXT,     /* `text` has one character */
    LMO_KEY_ENTER,
    LMO_KEY_ESCAPE,
    LMO_KEY_BACKSPACE,
    LMO_KEY_UP,
    LMO_KEY_DOWN,
    LMO_KEY_PAGE_UP,
    LMO_KEY_PAGE_DOWN,
    LMO_KEY_HOME,
    LMO_KEY_END,
    LMO_KEY_OTHER /* something that has no meaning here */
};
/* Takes the next key from what was read; *used is how far it has come (0 at first). Pure. */
enum lmo_key lmo_term_key(const char *data, size_t len, size_t *used, char ret_text[8]);

#endif
