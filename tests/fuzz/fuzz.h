/* fuzz.h - what the fuzzers share. Each file here is one: LLVMFuzzerTestOneInput gives bytes to decoders, which have to take
 * or refuse them; what was taken and written again has to be taken again. See tests/fuzz/run. */
#ifndef LMO_TESTS_FUZZ_H
#define LMO_TESTS_FUZZ_H

#include "base/assert.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input as text, in memory of just that size: who reads behind it is found out. Freed by the caller. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    lmo_assert(text);
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    return text;
}

#endif
