/* str.h - copying text into fixed buffers: always terminated, cut at the buffer's end, never an error. For texts whose
 * limit was checked where they came in, or that are meant for people. */
#ifndef LMO_BASE_STR_H
#define LMO_BASE_STR_H

#include <stddef.h>
#include <string.h>

/* NULL counts as empty. */
static inline void lmo_str_copy(char *dst, size_t size, const char *src)
{
    size_t len = src ? strnlen(src, size - 1) : 0;
    if (len > 0) {
        memmove(dst, src, len);
    }
    dst[len] = '\0';
}

/* `dst` must be an array, not a pointer. */
#define LMO_COPY(dst, src) lmo_str_copy((dst), sizeof(dst), (src))

#endif
