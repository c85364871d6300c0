/* format.h - text for people: sizes, durations, times, filtered strings, aligned tables. No I/O but FILE*. */
#ifndef LMO_CLI_FORMAT_H
#define LMO_CLI_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What a stream can show. */
struct lmo_style {
    bool tty;       /* lines may be redrawn */
    bool color;     /* on a tty only, and never with NO_COLOR */
    unsigned width; /* columns of the tty; 0: unlimited */
};

enum lmo_color { LMO_PLAIN = 0, LMO_BOLD, LMO_DIM, LMO_RED, LMO_GREEN, LMO_YELLOW };
const char *lmo_color_on(const struct lmo_style *s, enum lmo_color c);
const char *lmo_color_off(const struct lmo_style *s, enum lmo_color c);

#define LMO_FORMAT_MAX 48
/* "0 B", "3.2 GiB". Returns buf, as all of these do. */
const char *lmo_format_bytes(uint64_t bytes, char buf[LMO_FORMAT_MAX]);
/* "118 MiB/s" */
const char *lmo_format_rate(uint64_t bytes_per_s, char buf[LMO_FORMAT_MAX]);
/* "850 us", "12.3 ms", "4.31 s", "2 min 5 s", "3 h 20 min" */
const char *lmo_format_us(uint64_t us, char buf[LMO_FORMAT_MAX]);
const char *lmo_format_ms(uint64_t ms, char buf[LMO_FORMAT_MAX]);
/* Local time with its offset, "2026-11-20 12:34:56.123 +0000"; "-" for 0. */
const char *lmo_format_time(uint64_t realtime_ms, char buf[LMO_FORMAT_MAX]);

/* Copies `text` (UTF-8; NULL is "-"), replacing what could steer a terminal or forge a line (control characters, C1,
 * bidirectional overrides, broken UTF-8) by '?'. Cuts at a character's end if buf is too small. */
const char *lmo_format_safe(const char *text, char *buf, size_t size);
/* Columns that UTF-8 text takes on a terminal: wide characters take two, combining ones none. */
size_t lmo_format_width(const char *text);
/* Copies as much of `text` as takes at most `width` columns; "~" stands for what was cut off. Returns buf. */
const char *lmo_format_fit(const char *text, size_t width, char *buf, size_t size);

/* Rows of cells, printed with each column as wide as its widest cell; on a terminal that is too narrow for that, the widest
 * columns but the first are cut, and then the last ones left out. The first row is the heading. */
#define LMO_GRID_LEAST       8 /* columns that a cut cell keeps */
#define LMO_GRID_COLUMNS_MAX 12
#define LMO_CELL_MAX         160
struct lmo_grid {
    unsigned columns;
    uint64_t right; /* mask of columns aligned to the right */
    size_t rows, capacity;
    char (*cells)[LMO_CELL_MAX]; /* owned; rows * columns */
    unsigned column;             /* next cell of the row under way */
    bool failed;                 /* out of memory; print then returns false */
};
void lmo_grid_cell(struct lmo_grid *t, const char *text);
/* How wide each column is where a row may take `room` columns (0: any); 0: left out. */
void lmo_grid_layout(const struct lmo_grid *t, size_t room, size_t ret_width[LMO_GRID_COLUMNS_MAX]);
/* One row as text without colours. Returns buf. */
const char *lmo_grid_line(const struct lmo_grid *t, const size_t width[LMO_GRID_COLUMNS_MAX], size_t row, char *buf, size_t size);
bool lmo_grid_print(const struct lmo_grid *t, const struct lmo_style *style, FILE *out);
void lmo_grid_release(struct lmo_grid *t);

#endif
