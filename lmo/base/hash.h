/* hash.h - uthash with our end: out of memory inside a table is an assertion that fails (one log line, abort, recovery), not
 * a silent exit(-1). */
#ifndef LMO_BASE_HASH_H
#define LMO_BASE_HASH_H

#include "base/assert.h"

#define uthash_fatal(msg) lmo_assert_failed("hash table: " msg, __FILE__, __LINE__, __func__)
#include <uthash.h>

#endif
