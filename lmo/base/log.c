/* log.c - builds one line in a stack buffer, pair by pair, and writes it with one write(2).
 *
 * The format string is walked here instead of handed to vsnprintf whole: each value is formatted into a scratch buffer,
 * then quoted. A value that does not fit is cut, never spilled into the next pair. */
#include "base/log.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static atomic_int minimum_level = LMO_LOG_INFO;
static atomic_bool as_json = false;
static atomic_int output_fd = STDERR_FILENO;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* Room kept at the end of each line for the truncation mark, a closing brace and the newline. */
#define TAIL_ROOM 24
#define VALUE_MAX 2048

struct line {
    char text[LMO_LOG_LINE_MAX];
    size_t len;
    bool json, truncated;
};

struct arguments {
    va_list ap;
};

void lmo_log_set_level(enum lmo_log_level level)
{
    atomic_store_explicit(&minimum_level, (int)level, memory_order_relaxed);
}

void lmo_log_set_json(bool json)
{
    atomic_store_explicit(&as_json, json, memory_order_relaxed);
}

void lmo_log_set_fd(int fd)
{
    atomic_store_explicit(&output_fd, fd, memory_order_relaxed);
}

/* The new file takes the descriptor's place in one step: a thread that is about to write needs no lock. */
int lmo_log_open_file(const char *path, struct lmo_err *err)
{
    static int file_fd = -1;
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0640);
    if (fd < 0)
        return lmo_fail(err, errno == ENOSPC ? LMO_E_NO_SPACE : LMO_E_IO, "log file %s: %s", path, strerror(errno));
    if (file_fd < 0) {
        file_fd = fd;
        lmo_log_set_fd(fd);
        return 0;
    }
    int r = dup3(fd, file_fd, O_CLOEXEC) < 0 ? lmo_fail(err, LMO_E_IO, "log file %s: %s", path, strerror(errno)) : 0;
    (void)close(fd);
    return r;
}

int lmo_log_level_from_name(const char *name, enum lmo_log_level *ret_level)
{
    for (size_t i = 0; name && i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(level_names[i], name) == 0) {
            *ret_level = (enum lmo_log_level)i;
            return 0;
        }
    }
    return LMO_E_INVALID;
}

bool lmo_log_enabled(enum lmo_log_level level)
{
    return (int)level >= atomic_load_explicit(&minimum_level, memory_order_relaxed);
}

/* Appends all of `text` or nothing. */
static bool put(struct line *line, const char *text, size_t len)
{
    if (line->truncated || line->len + len > sizeof line->text - TAIL_ROOM) {
        line->truncated = true;
        return false;
    }
    memcpy(line->text + line->len, text, len);
    line->len += len;
    return true;
}

static void put_str(struct line *line, const char *text)
{
    (void)put(line, text, strlen(text));
}

/* Length of the valid UTF-8 sequence at p (1 to 4), or 0. */
static size_t utf8_len(const unsigned char *p, size_t left)
{
    size_t need = p[0] < 0x80                   ? 1
                  : p[0] >= 0xC2 && p[0] < 0xE0 ? 2
                  : p[0] >= 0xE0 && p[0] < 0xF0 ? 3
                  : p[0] >= 0xF0 && p[0] < 0xF5 ? 4
                                                : 0;
    if (need == 0 || need > left)
        return 0;
    for (size_t i = 1; i < need; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    }
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] >= 0xA0) || (p[0] == 0xF0 && p[1] < 0x90) ||
        (p[0] == 0xF4 && p[1] >= 0x90))
        return 0;
    return need;
}

static bool is_plain(const char *value, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)value[i];
        if (c <= 0x20 || c >= 0x7F || c == '"' || c == '\\' || c == '=')
            return false;
    }
    return len > 0;
}

/* Quotes for both formats: the escapes are JSON's. Bytes that are not UTF-8 become U+FFFD. */
static void put_quoted(struct line *line, const char *value, size_t len)
{
    size_t start = line->len;
    bool ok = put(line, "\"", 1);
    for (size_t i = 0; ok && i < len;) {
        unsigned char c = (unsigned char)value[i];
        size_t n = utf8_len((const unsigned char *)value + i, len - i);
        char escape[8];
        if (c == '"' || c == '\\') {
            escape[0] = '\\', escape[1] = (char)c;
            ok = put(line, escape, 2);
        } else if (c == '\n') {
            ok = put(line, "\\n", 2);
        } else if (c == '\t') {
            ok = put(line, "\\t", 2);
        } else if (c < 0x20 || c == 0x7F) {
            snprintf(escape, sizeof escape, "\\u%04x", c);
            ok = put(line, escape, 6);
        } else if (n == 0) {
            ok = put(line, "\xEF\xBF\xBD", 3);
        } else {
            ok = put(line, value + i, n);
        }
        i += n ? n : 1;
    }
    if (!ok || !put(line, "\"", 1))
        line->len = start; /* a half value would break the line: the caller drops the pair */
}

static void put_pair(struct line *line, const char *key, size_t key_len, const char *value, size_t value_len,
                     bool number)
{
    size_t start = line->len;
    put_str(line, line->json ? ",\"" : " ");
    (void)put(line, key, key_len);
    put_str(line, line->json ? "\":" : "=");
    if (number || (!line->json && is_plain(value, value_len)))
        (void)put(line, value, value_len);
    else
        put_quoted(line, value, value_len);
    if (line->truncated)
        line->len = start;
}

/* What one conversion asks for. */
struct conversion {
    char spec[32];  /* the whole of it, "%-5.*s" */
    char kind;      /* d, u, f, s, c, p, % or 0 if not understood */
    char length[3]; /* "", "h", "hh", "l", "ll", "z", "j", "t" */
    unsigned stars; /* '*' in width or precision */
};

static size_t parse_conversion(const char *fmt, struct conversion *ret)
{
    size_t n = 1;
    memset(ret, 0, sizeof *ret);
    while (fmt[n] && strchr("-+ #0123456789.*", fmt[n])) {
        ret->stars += fmt[n] == '*';
        n++;
    }
    size_t l = 0;
    while (fmt[n] && strchr("hlzjt", fmt[n])) {
        if (l < 2)
            ret->length[l++] = fmt[n];
        n++;
    }
    char c = fmt[n];
    if (c == '\0')
        return n;
    n++;
    ret->kind = strchr("di", c)         ? 'd'
                : strchr("uxXo", c)     ? 'u'
                : strchr("fFeEgGaA", c) ? 'f'
                : strchr("scp%", c)     ? c
                                        : 0;
    if (n >= sizeof ret->spec || ret->stars > 2)
        ret->kind = 0;
    else
        memcpy(ret->spec, fmt, n);
    return n;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* pieces of a format that the compiler checked at the caller */

#define FORMAT(type)                                                                       \
    (conv->stars == 0   ? snprintf(out, size, conv->spec, va_arg(args->ap, type))          \
     : conv->stars == 1 ? snprintf(out, size, conv->spec, star[0], va_arg(args->ap, type)) \
                        : snprintf(out, size, conv->spec, star[0], star[1], va_arg(args->ap, type)))

/* Formats one conversion; returns the bytes written (cut to size-1), or -1 if it is not understood. */
static int format_one(const struct conversion *conv, struct arguments *args, char *out, size_t size)
{
    int star[2] = {0, 0};
    for (unsigned i = 0; i < conv->stars; i++)
        star[i] = va_arg(args->ap, int);
    const char *len = conv->length;
    int n = -1;
    switch (conv->kind) {
    case 'd':
        n = strcmp(len, "l") == 0            ? FORMAT(long)
            : strcmp(len, "ll") == 0         ? FORMAT(long long)
            : len[0] == 'z' || len[0] == 't' ? FORMAT(ptrdiff_t)
            : len[0] == 'j'                  ? FORMAT(intmax_t)
                                             : FORMAT(int);
        break;
    case 'u':
        n = strcmp(len, "l") == 0            ? FORMAT(unsigned long)
            : strcmp(len, "ll") == 0         ? FORMAT(unsigned long long)
            : len[0] == 'z' || len[0] == 't' ? FORMAT(size_t)
            : len[0] == 'j'                  ? FORMAT(uintmax_t)
                                             : FORMAT(unsigned);
        break;
    case 'f': n = FORMAT(double); break;
    case 'c': n = FORMAT(int); break;
    case 'p': n = FORMAT(void *); break;
    case 's': {
        const char *text = va_arg(args->ap, const char *);
        if (!text)
            text = "(null)";
        n = conv->stars == 0   ? snprintf(out, size, conv->spec, text)
            : conv->stars == 1 ? snprintf(out, size, conv->spec, star[0], text)
                               : snprintf(out, size, conv->spec, star[0], star[1], text);
        break;
    }
    case '%': n = snprintf(out, size, "%%"); break;
    default: break;
    }
    if (n < 0)
        return -1;
    return (size_t)n < size ? n : (int)size - 1;
}
#pragma GCC diagnostic pop

/* Walks "key=value key=value"; a conversion that is not understood ends the line, since its argument's size is unknown.
 * */
static void put_pairs(struct line *line, const char *fmt, struct arguments *args)
{
    while (*fmt) {
        while (*fmt == ' ')
            fmt++;
        size_t key_len = strcspn(fmt, "= ");
        const char *key = fmt;
        bool keyless = fmt[key_len] != '=';
        if (keyless) { /* a bare "%s" or word: tolerated, under the key "text" */
            key = "text";
            key_len = 4;
        } else {
            fmt += key_len + 1;
        }
        char value[VALUE_MAX];
        size_t len = 0;
        unsigned conversions = 0, literals = 0;
        bool number = false;
        while (*fmt && *fmt != ' ') {
            if (*fmt != '%') {
                if (len + 1 < sizeof value)
                    value[len++] = *fmt;
                fmt++;
                literals++;
                continue;
            }
            struct conversion conv;
            fmt += parse_conversion(fmt, &conv);
            int n = format_one(&conv, args, value + len, sizeof value - len);
            if (n < 0) {
                line->truncated = true;
                return;
            }
            len += (size_t)n;
            conversions++;
            number = (conv.kind == 'd' || conv.kind == 'u' || conv.kind == 'f') && !strpbrk(conv.spec, "xXo#+ ");
        }
        /* JSON knows no leading zeros, blanks, inf or nan. */
        if (!line->json || conversions != 1 || literals != 0 || len == 0 || strspn(value, "-0123456789.e+") < len ||
            (value[0] == '0' && len > 1 && value[1] != '.'))
            number = false;
        if (len > 0 || !keyless)
            put_pair(line, key, key_len, value, len, number);
    }
}

void lmo_log_write(enum lmo_log_level level, const char *event, const char *fmt, ...)
{
    struct line line;
    line.len = 0;
    line.truncated = false;
    line.json = atomic_load_explicit(&as_json, memory_order_relaxed);

    char stamp[LMO_TIMESTAMP_MAX];
    lmo_realtime_format(lmo_realtime_us(), stamp);
    const char *name = (size_t)level < sizeof level_names / sizeof level_names[0] ? level_names[level] : "error";
    put_str(&line, line.json ? "{\"ts\":\"" : "ts=");
    put_str(&line, stamp);
    put_str(&line, line.json ? "\",\"level\":\"" : " level=");
    put_str(&line, name);
    if (line.json)
        put_str(&line, "\"");
    put_pair(&line, "event", 5, event, strlen(event), false);

    struct arguments args;
    va_start(args.ap, fmt);
    put_pairs(&line, fmt, &args);
    va_end(args.ap);

    /* TAIL_ROOM was kept for this. */
    const char *tail = line.truncated ? (line.json ? ",\"truncated\":true}\n" : " truncated=true\n")
                       : line.json    ? "}\n"
                                      : "\n";
    memcpy(line.text + line.len, tail, strlen(tail));
    line.len += strlen(tail);
    /* A line that cannot be written has nowhere to be reported. */
    ssize_t written = write(atomic_load_explicit(&output_fd, memory_order_relaxed), line.text, line.len);
    (void)written;
}
