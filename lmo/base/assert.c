/* assert.c - the end of a program that found its own guarantees broken. */
#include "base/assert.h"
#include "base/log.h"

#include <stdlib.h>

void lmo_assert_failed(const char *condition, const char *file, int line, const char *function)
{
    lmo_log_write(LMO_LOG_ERROR, "assertion failed", "condition=%s file=%s line=%d function=%s", condition, file, line,
                  function);
    abort();
}
