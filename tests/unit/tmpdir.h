/* tmpdir.h - a directory of a test's own, and its end. */
#ifndef LMO_TESTS_UNIT_TMPDIR_H
#define LMO_TESTS_UNIT_TMPDIR_H

#include "base/assert.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#define TMPDIR_MAX 64

static inline void tmpdir_make(char ret_path[TMPDIR_MAX], const char *area)
{
    snprintf(ret_path, TMPDIR_MAX, "/tmp/lmo-%s-XXXXXX", area);
    lmo_assert(mkdtemp(ret_path) != NULL);
}

static inline int tmpdir_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* Removes what tmpdir_make made, and everything in it. A failed test leaves it behind, to be looked at. */
static inline void tmpdir_remove(const char *path)
{
    (void)nftw(path, tmpdir_remove_one, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

#endif
