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

size_t lmo_format_width(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
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

bool lmo_grid_print(const struct lmo_grid *t, const struct lmo_style *style, FILE *out)
{
    size_t width[LMO_GRID_COLUMNS_MAX] = {0};
    for (size_t i = 0; i < t->rows * t->columns; i++) {
        size_t w = lmo_format_width(t->cells[i]);
        if (w > width[i % t->columns])
            width[i % t->columns] = w;
    }
    for (size_t r = 0; r < t->rows && !t->failed; r++) {
        enum lmo_color c = r == 0 ? LMO_BOLD : LMO_PLAIN;
        fputs(lmo_color_on(style, c), out);
        for (unsigned i = 0; i < t->columns; i++) {
            const char *cell = t->cells[r * t->columns + i];
            int pad = (int)(width[i] - lmo_format_width(cell));
            bool right = (t->right >> i & 1) != 0, last = i + 1 == t->columns;
            fprintf(out, "%*s%s%*s", right ? pad : 0, "", cell, right || last ? 0 : pad, "");
            fputs(last ? "" : "  ", out);
        }
        fprintf(out, "%s\n", lmo_color_off(style, c));
    }
    return !t->failed;
}

void lmo_grid_release(struct lmo_grid *t)
{
    free(t->cells);
    *t = (struct lmo_grid){0};
}
