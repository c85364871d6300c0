/* files.h - what base/fs.h has no need of: a private directory, files that must not exist yet, one writer at a time.
 *
 * Modes are set with fchmod, so no umask can widen or narrow them. Everything is flushed (file, then directory)
 * before a function returns 0. Private to lmo/pki. */
#ifndef LMO_PKI_FILES_H
#define LMO_PKI_FILES_H

#include "base/cleanup.h"
#include "base/err.h"
#include "base/types.h"

#include <stddef.h>
#include <sys/types.h>

#define LMO_PKI_MODE_PRIVATE   0600
#define LMO_PKI_MODE_PUBLIC    0644
#define LMO_PKI_MODE_DIRECTORY 0700

/* DIR/NAME. TOO_LARGE if it does not fit. */
int lmo_pki_path(const char *dir, const char *name, char ret_path[LMO_PATH_MAX], struct lmo_err *err) LMO_MUST_CHECK;

/* Makes `path` (its parent must exist), or takes an EMPTY directory of ours and sets its mode. REFUSED for any other
 * directory: the mode of somebody's /tmp must not be changed by a slip of the hand. */
int lmo_pki_make_directory(const char *path, struct lmo_err *err) LMO_MUST_CHECK;

/* One `lmo pki` at a time works in DIR (flock on DIR/lock). Waits up to `timeout_ms` for another one: BUSY.
 * lmo_pki_unlock takes -1. */
int lmo_pki_lock(const char *dir, unsigned timeout_ms, int *ret_fd, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_pki_unlock(int fd);
static inline void lmo_cleanup_pki_lock(const int *fd)
{
    lmo_pki_unlock(*fd);
}
#define LMO_AUTO_PKI_LOCK LMO_CLEANUP(lmo_cleanup_pki_lock)

/* CONFLICT if `path` exists, whatever it is. What it could not finish it removes. */
int lmo_pki_write_new(const char *path, mode_t mode, const void *data, size_t len, struct lmo_err *err) LMO_MUST_CHECK;

#endif
