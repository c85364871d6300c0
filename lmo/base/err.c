/* err.c - the error table's look-ups and the two ways to fill a struct lmo_err. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct row {
    int code;
    const char *name;
    int http;
    enum lmo_err_class cls;
};

static const struct row rows[] = {
#define X(name, value, text, http, cls) {(value), (text), (http), LMO_CLASS_##cls},
    LMO_ERRORS(X)
#undef X
};

static const struct row *row_of(int code)
{
    /* The table is dense from 0 downwards; err.c's test proves it. */
    size_t index = code <= 0 ? (size_t)(-(long)code) : sizeof rows;
    if (index >= sizeof rows / sizeof rows[0])
        index = (size_t)(-(long)LMO_E_INTERNAL);
    return &rows[index];
}

const char *lmo_err_name(int code)
{
    return row_of(code)->name;
}

int lmo_err_http(int code)
{
    return row_of(code)->http;
}

enum lmo_err_class lmo_err_class_of(int code)
{
    return row_of(code)->cls;
}

int lmo_err_from_name(const char *name)
{
    for (size_t i = 0; name && i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].name, name) == 0)
            return rows[i].code;
    }
    return LMO_E_INTERNAL;
}

/* Cuts a truncated text at a UTF-8 boundary, so that it can go into JSON. */
static void trim_utf8(char *text, size_t len)
{
    size_t end = len;
    while (end > 0 && ((unsigned char)text[end - 1] & 0xC0) == 0x80)
        end--;
    if (end == 0)
        return;
    unsigned char lead = (unsigned char)text[end - 1];
    size_t need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (len - (end - 1) < need)
        text[end - 1] = '\0';
}

int lmo_fail(struct lmo_err *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    /* Formatted aside first: the arguments may point into *err itself. */
    char text[LMO_ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0)
        text[0] = '\0';
    else if ((size_t)n >= sizeof text)
        trim_utf8(text, sizeof text - 1);
    err->code = code;
    memcpy(err->text, text, strlen(text) + 1);
    return code;
}

int lmo_err_prefix(struct lmo_err *err, const char *fmt, ...)
{
    if (!err)
        return LMO_E_INTERNAL;
    char text[LMO_ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t used = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    text[used] = '\0';
    int more = snprintf(text + used, sizeof text - used, ": %s", err->text);
    if (more < 0 || used + (size_t)more >= sizeof text)
        trim_utf8(text, strlen(text));
    memcpy(err->text, text, strlen(text) + 1);
    return err->code;
}
