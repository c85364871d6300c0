/* fs.h - files that must be whole, durable and private. Blocking; not for the loop's hot paths. */
#ifndef LMO_BASE_FS_H
#define LMO_BASE_FS_H

#include "base/err.h"

#include <stddef.h>
#include <sys/types.h>

/* Reads a whole regular file of at most `max` bytes (TOO_LARGE above). *ret_data is owned by the caller and
 * NUL-terminated; the NUL is not counted. ret_len may be NULL. NOT_FOUND when the file does not exist. */
int lmo_fs_read_file(const char *path, size_t max, char **ret_data, size_t *ret_len,
                     struct lmo_err *err) LMO_MUST_CHECK;

/* Replaces `path` with the given contents: temporary file in the same directory, fsync, rename, fsync of the directory.
 * Either the old or the new contents are there after a crash, never a part. */
int lmo_fs_write_atomic(const char *path, const void *data, size_t len, mode_t mode,
                        struct lmo_err *err) LMO_MUST_CHECK;

/* Makes `path` and what is missing above it, all with `mode`; an existing directory is left as it is. */
int lmo_fs_mkdir_p(const char *path, mode_t mode, struct lmo_err *err) LMO_MUST_CHECK;

/* Creates `path` if needed and takes an exclusive lock without waiting; BUSY (naming the holder's pid when known) if
 * somebody has it. The lock is held until *ret_fd is closed or the process ends. Writes our pid into the file. */
int lmo_fs_lock(const char *path, mode_t mode, int *ret_fd, struct lmo_err *err) LMO_MUST_CHECK;

/* FORBIDDEN unless `path` is a regular file that "other" cannot read or write: for keys. */
int lmo_fs_check_private(const char *path, struct lmo_err *err) LMO_MUST_CHECK;

#endif
