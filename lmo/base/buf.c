/* buf.c - see buf.h. */
#include "base/buf.h"
#include "base/assert.h"

#include <stdarg.h>
#include <stdint.h>
#include <string.h>

int lmo_buf_reserve(struct lmo_buf *buf, size_t len)
{
    lmo_assert(buf->len <= buf->max && buf->max < SIZE_MAX / 2);
    if (len > buf->max - buf->len)
        return LMO_E_TOO_LARGE;
    size_t need = buf->len + len + 1;
    if (need <= buf->capacity)
        return 0;
    size_t capacity = buf->capacity ? buf->capacity : 256;
    while (capacity < need)
        capacity *= 2;
    if (capacity > buf->max + 1)
        capacity = buf->max + 1;
    char *data = realloc(buf->data, capacity);
    if (!data)
        return LMO_E_NO_MEMORY;
    buf->data = data;
    buf->capacity = capacity;
    return 0;
}

int lmo_buf_append(struct lmo_buf *buf, const void *data, size_t len)
{
    int r = lmo_buf_reserve(buf, len);
    if (r < 0)
        return r;
    if (len > 0)
        memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
    return 0;
}

int lmo_buf_append_str(struct lmo_buf *buf, const char *text)
{
    return lmo_buf_append(buf, text, strlen(text));
}

int lmo_buf_appendf(struct lmo_buf *buf, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return LMO_E_INTERNAL;
    int r = lmo_buf_reserve(buf, (size_t)n);
    if (r < 0)
        return r;
    va_start(ap, fmt);
    int written = vsnprintf(buf->data + buf->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    lmo_assert(written == n);
    buf->len += (size_t)n;
    return 0;
}

void lmo_buf_reset(struct lmo_buf *buf)
{
    buf->len = 0;
    if (buf->data)
        buf->data[0] = '\0';
}

char *lmo_buf_take(struct lmo_buf *buf, size_t *ret_len)
{
    char *data = buf->data ? buf->data : calloc(1, 1);
    if (ret_len)
        *ret_len = buf->len;
    *buf = LMO_BUF_INIT(buf->max);
    return data;
}

const char *lmo_buf_text(const struct lmo_buf *buf)
{
    return buf->data ? buf->data : "";
}

void lmo_buf_done(struct lmo_buf *buf)
{
    free(buf->data);
    *buf = LMO_BUF_INIT(buf->max);
}
