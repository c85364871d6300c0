/* format.c - see format.h. */
#include "cli/format.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const color_codes[] = {
    [LMO_PLAIN] = "",       [LMO_BOLD] = "\033[1m",   [LMO_DIM] = "\033[2m",
    [LMO_RED] = "\033[31m", [LMO_GREEN] = "\033[32m", [LMO_YELLOW] = "\033[33m",
};

const char *lmo_color_on(const struct lmo_style *s, enum lmo_color c)
{
    return s->color ? color_codes[c] : "";
}

const char *lmo_color_off(const struct lmo_style *s, enum lmo_color c)
{
    return s->color && c != LMO_PLAIN ? "\033[0m" : "";
}

static const char *scaled(uint64_t n, const char *suffix, char buf[LMO_FORMAT_MAX])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t u = 0;
    double v = (double)n;
    while (v >= 1023.5 && u < 6) {
        v /= 1024;
        u++;
    }
    snprintf(buf, LMO_FORMAT_MAX, u > 0 && v < 99.95 ? "%.1f %s%s" : "%.0f %s%s", v, units[u], suffix);
    return buf;
}

const char *lmo_format_bytes(uint64_t bytes, char buf[LMO_FORMAT_MAX])
{
    return scaled(bytes, "", buf);
}

const char *lmo_format_rate(uint64_t bytes_per_s, char buf[LMO_FORMAT_MAX])
{
    return scaled(bytes_per_s, "/s", buf);
}

const char *lmo_format_us(uint64_t us, char buf[LMO_FORMAT_MAX])
{
    uint64_t s = us / 1000000;
    if (us < 1000)
        snprintf(buf, LMO_FORMAT_MAX, "%" PRIu64 " us", us);
    else if (us < 99950)
        snprintf(buf, LMO_FORMAT_MAX, "%.1f ms", (double)us / 1e3);
    else if (us < 999500)
        snprintf(buf, LMO_FORMAT_MAX, "%.0f ms", (double)us / 1e3);
    else if (us < 59995000)
        snprintf(buf, LMO_FORMAT_MAX, "%.2f s", (double)us / 1e6);
    else if (s < 3600)
        snprintf(buf, LMO_FORMAT_MAX, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else
        snprintf(buf, LMO_FORMAT_MAX, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
    return buf;
}

const char *lmo_format_ms(uint64_t ms, char buf[LMO_FORMAT_MAX])
{
    if (ms >= 1000 || ms == 0)
        return lmo_format_us(ms < UINT64_MAX / 1000 ? ms * 1000 : UINT64_MAX, buf);
    snprintf(buf, LMO_FORMAT_MAX, "%" PRIu64 " ms", ms); /* no more digits than were measured */
    return buf;
}

const char *lmo_format_time(uint64_t realtime_ms, char buf[LMO_FORMAT_MAX])
{
    time_t s = (time_t)(realtime_ms / 1000);
    struct tm tm;
    char day[32], zone[8];
    if (realtime_ms == 0 || realtime_ms > UINT64_C(253402300799000) || !localtime_r(&s, &tm))
        return strcpy(buf, "-");
    strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", &tm);
    strftime(zone, sizeof zone, "%z", &tm);
    snprintf(buf, LMO_FORMAT_MAX, "%s.%03u %s", day, (unsigned)(realtime_ms % 1000), zone);
    return buf;
}

/* Bytes of the UTF-8 character at `s`, and the character; 0: not one. */
static size_t decode(const unsigned char *s, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] < 0x80 ? 1 : (s[0] & 0xe0) == 0xc0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : (s[0] & 0xf8) == 0xf0 ? 4 : 0;
    if (n == 0)
        return 0;
    uint32_t c = n == 1 ? s[0] : s[0] & (0x7fU >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3fU);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *ret = c;
    return n;
}

static bool harmless(uint32_t c)
{
    if (c < 0x20 || (c >= 0x7f && c < 0xa0))
        return false;
    if (c == 0x200e || c == 0x200f || c == 0x061c || c == 0x2028 || c == 0x2029)
        return false;
    return !(c >= 0x202a && c <= 0x202e) && !(c >= 0x2066 && c <= 0x2069);
}

const char *lmo_format_safe(const char *text, char *buf, size_t size)
{
    const unsigned char *s = (const unsigned char *)(text ? text : "-");
    size_t used = 0;
    while (*s && size > 0) {
        uint32_t c = 0;
        size_t n = decode(s, &c);
        bool good = n > 0 && harmless(c);
        size_t out = good ? n : 1;
        if (used + out >= size)
            break;
        if (good)
            memcpy(buf + used, s, n);
        else
            buf[used] = '?';
        used += out;
        s += n > 0 ? n : 1;
    }
    if (size > 0)
        buf[used] = '\0';
    return buf;
}

/* Ranges that take no column (combining marks, joiners, variation selectors) and two (East Asian wide and full width, emoji),
 * as Unicode's EastAsianWidth.txt and the terminals that follow it have them. wcwidth() would depend on the locale. */
struct range {
    uint32_t first, last;
};
static const struct range no_width[] = {
    {0x0300, 0x036f}, {0x0483, 0x0489}, {0x0591, 0x05bd}, {0x0610, 0x061a}, {0x064b, 0x065f}, {0x06d6, 0x06dc},
    {0x0e31, 0x0e31}, {0x0e34, 0x0e3a}, {0x0e47, 0x0e4e}, {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x200b, 0x200d},
    {0x2060, 0x2064}, {0x20d0, 0x20f0}, {0x302a, 0x302d}, {0x3099, 0x309a}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f},
    {0xfeff, 0xfeff}, {0xe0100, 0xe01ef},
};
static const struct range double_width[] = {
    {0x1100, 0x115f},   {0x231a, 0x231b},   {0x2329, 0x232a},   {0x23e9, 0x23ec},   {0x2614, 0x2615},   {0x2648, 0x2653},
    {0x26a1, 0x26a1},   {0x2705, 0x2705},   {0x274c, 0x274c},   {0x2753, 0x2755},   {0x2795, 0x2797},   {0x2b1b, 0x2b1c},
    {0x2e80, 0x303e},   {0x3041, 0x33ff},   {0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xa000, 0xa4cf},   {0xa960, 0xa97f},
    {0xac00, 0xd7a3},   {0xf900, 0xfaff},   {0xfe10, 0xfe19},   {0xfe30, 0xfe6f},   {0xff00, 0xff60},   {0xffe0, 0xffe6},
    {0x16fe0, 0x18aff}, {0x1b000, 0x1b2ff}, {0x1f004, 0x1f004}, {0x1f0cf, 0x1f0cf}, {0x1f18e, 0x1f18e}, {0x1f191, 0x1f19a},
    {0x1f200, 0x1f320}, {0x1f32d, 0x1f335}, {0x1f337, 0x1f37c}, {0x1f37e, 0x1f393}, {0x1f3a0, 0x1f3ca}, {0x1f3cf, 0x1f3d3},
    {0x1f3e0, 0x1f3f0}, {0x1f3f4, 0x1f3f4}, {0x1f3f8, 0x1f43e}, {0x1f440, 0x1f440}, {0x1f442, 0x1f4fc}, {0x1f4ff, 0x1f53d},
    {0x1f54b, 0x1f54e}, {0x1f550, 0x1f567}, {0x1f57a, 0x1f57a}, {0x1f595, 0x1f596}, {0x1f5a4, 0x1f5a4}, {0x1f5fb, 0x1f64f},
    {0x1f680, 0x1f6c5}, {0x1f6cc, 0x1f6cc}, {0x1f6d0, 0x1f6d2}, {0x1f6d5, 0x1f6d7}, {0x1f6eb, 0x1f6ec}, {0x1f6f4, 0x1f6fc},
    {0x1f7e0, 0x1f7eb}, {0x1f90c, 0x1f9ff}, {0x1fa70, 0x1faff}, {0x20000, 0x3fffd},
};

static bool in_ranges(uint32_t c, const struct range *ranges, size_t count)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > ranges[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && c >= ranges[low].first;
}

static unsigned columns_of(uint32_t c)
{
    if (c < 0x300)
        return 1;
    if (in_ranges(c, no_width, sizeof no_width / sizeof no_width[0]))
        return 0;
    return in_ranges(c, double_width, sizeof double_width / sizeof double_width[0]) ? 2 : 1;
}

/* One character and the columns it takes; a byte that begins none counts as one character of one column. */
static size_t step(const char *s, unsigned *ret_columns)
{
    uint32_t c = 0;
    size_t n = decode((const unsigned char *)s, &c);
    *ret_columns = n > 0 ? columns_of(c) : 1;
    return n > 0 ? n : 1;
}

size_t lmo_format_width(const char *text)
{
    size_t width = 0;
    unsigned columns;
    for (; *text; width += columns)
        text += step(text, &columns);
    return width;
}

const char *lmo_format_fit(const char *text, size_t width, char *buf, size_t size)
{
    bool fits = lmo_format_width(text) <= width;
    size_t room = fits || width == 0 ? width : width - 1, used = 0, taken = 0;
    while (*text) {
        unsigned columns;
        size_t n = step(text, &columns);
        if (taken + columns > room || used + n + 2 > size)
            break;
        memcpy(buf + used, text, n);
        used += n;
        taken += columns;
        text += n;
    }
    if (!fits && width > 0 && used + 1 < size)
        buf[used++] = '~';
    buf[used] = '\0';
    return buf;
}

void lmo_grid_cell(struct lmo_grid *t, const char *text)
{
    if (t->column == 0 && !t->failed && t->rows == t->capacity) {
        size_t room = t->capacity ? t->capacity * 2 : 16;
        void *more = reallocarray(t->cells, room * t->columns, LMO_CELL_MAX);
        t->failed = !more;
        if (more) {
            t->cells = more;
            t->capacity = room;
        }
    }
    if (t->failed)
        return;
    lmo_format_safe(text, t->cells[t->rows * t->columns + t->column], LMO_CELL_MAX);
    if (++t->column == t->columns) {
        t->column = 0;
        t->rows++;
    }
}

/* Takes columns from the widest cells until a row fits; never from the first column, which names what the row is about, and
 * never so much that nothing could be recognised. Where that is not enough, the last columns are left out (width 0). */
static void shrink(const struct lmo_grid *t, size_t width[LMO_GRID_COLUMNS_MAX], size_t room)
{
    size_t sum = 2 * (t->columns - 1U);
    unsigned shown = t->columns;
    for (unsigned i = 0; i < t->columns; i++)
        sum += width[i];
    while (sum > room) {
        unsigned widest = 0;
        for (unsigned i = 1; i < shown; i++) {
            if (width[i] > LMO_GRID_LEAST && (widest == 0 || width[i] > width[widest]))
                widest = i;
        }
        if (widest > 0) {
            width[widest]--;
            sum--;
        } else if (shown > 2) {
            sum -= width[--shown] + 2;
            width[shown] = 0;
        } else {
            return;
        }
    }
}

void lmo_grid_layout(const struct lmo_grid *t, size_t room, size_t ret_width[LMO_GRID_COLUMNS_MAX])
{
    memset(ret_width, 0, LMO_GRID_COLUMNS_MAX * sizeof *ret_width);
    for (size_t i = 0; i < t->rows * t->columns; i++) {
        size_t w = lmo_format_width(t->cells[i]);
        if (w > ret_width[i % t->columns])
            ret_width[i % t->columns] = w;
    }
    if (room > 0)
        shrink(t, ret_width, room);
}

const char *lmo_grid_line(const struct lmo_grid *t, const size_t width[LMO_GRID_COLUMNS_MAX], size_t row, char *buf, size_t size)
{
    size_t used = 0;
    buf[0] = '\0';
    for (unsigned i = 0; i < t->columns && used < size; i++) {
        char cell[LMO_CELL_MAX + 1];
        if (width[i] == 0 && i > 0)
            continue; /* nothing in it, or no room for it */
        lmo_format_fit(t->cells[row * t->columns + i], width[i], cell, sizeof cell);
        int pad = (int)(width[i] - lmo_format_width(cell));
        bool right = (t->right >> i & 1) != 0, last = i + 1 == t->columns;
        used += (size_t)snprintf(buf + used, size - used, "%*s%s%*s%s", right ? pad : 0, "", cell, right || last ? 0 : pad, "",
                                 last ? "" : "  ");
    }
    used = strlen(buf);
    while (used > 0 && buf[used - 1] == ' ')
        buf[--used] = '\0'; /* a last cell that is empty leaves blanks that nobody sees, but scripts and diffs do */
    return buf;
}

bool lmo_grid_print(const struct lmo_grid *t, const struct lmo_style *style, FILE *out)
{
    size_t width[LMO_GRID_COLUMNS_MAX];
    char line[LMO_GRID_COLUMNS_MAX * (LMO_CELL_MAX * 2 + 2)];
    if (t->failed)
        return false;
    lmo_grid_layout(t, style->width, width);
    for (size_t r = 0; r < t->rows; r++) {
        enum lmo_color c = r == 0 ? LMO_BOLD : LMO_PLAIN;
        fprintf(out, "%s%s%s\n", lmo_color_on(style, c), lmo_grid_line(t, width, r, line, sizeof line), lmo_color_off(style, c));
    }
    return true;
}

void lmo_grid_release(struct lmo_grid *t)
{
    free(t->cells);
    *t = (struct lmo_grid){0};
}
