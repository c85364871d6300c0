/* fs.c - see fs.h. */
#include "base/fs.h"
#include "base/cleanup.h"
#include "base/types.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

static int fail_errno(struct lmo_err *err, const char *what, const char *path)
{
    int e = errno;
    int code = e == ENOENT                  ? LMO_E_NOT_FOUND
               : e == EACCES || e == EPERM  ? LMO_E_FORBIDDEN
               : e == ENOSPC || e == EDQUOT ? LMO_E_NO_SPACE
               : e == ENOMEM                ? LMO_E_NO_MEMORY
                                            : LMO_E_IO;
    return lmo_fail(err, code, "cannot %s %s: %s", what, path, strerror(e));
}

int lmo_fs_read_file(const char *path, size_t max, char **ret_data, size_t *ret_len, struct lmo_err *err)
{
    LMO_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0)
        return fail_errno(err, "open", path);
    if (fstat(fd, &st) < 0)
        return fail_errno(err, "look at", path);
    if (!S_ISREG(st.st_mode))
        return lmo_fail(err, LMO_E_INVALID, "%s is not a regular file", path);
    if ((uint64_t)st.st_size > max)
        return lmo_fail(err, LMO_E_TOO_LARGE, "%s has %lld bytes; at most %zu are read", path, (long long)st.st_size,
                        max);
    /* Files of /proc and /sys hold no blocks, and their size says nothing about what can be read from them. */
    size_t size = st.st_blocks > 0 ? (size_t)st.st_size : max, len = 0;
    LMO_AUTO_FREE char *data = malloc(size + 1);
    if (!data)
        return lmo_fail(err, LMO_E_NO_MEMORY, "no memory for %s", path);
    while (len < size) {
        ssize_t n = read(fd, data + len, size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(err, "read", path);
        if (n == 0)
            break;
        len += (size_t)n;
    }
    data[len] = '\0';
    *ret_data = LMO_TAKE(data);
    if (ret_len)
        *ret_len = len;
    return 0;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* The directory part of `path` ("." if none). */
static int parent_of(const char *path, char ret_dir[LMO_PATH_MAX], struct lmo_err *err)
{
    char copy[LMO_PATH_MAX];
    if (strlen(path) >= sizeof copy)
        return lmo_fail(err, LMO_E_TOO_LARGE, "path of %zu bytes; at most %zu are allowed", strlen(path),
                        sizeof copy - 1);
    strcpy(copy, path);
    const char *dir = dirname(copy);
    memmove(ret_dir, dir, strlen(dir) + 1);
    return 0;
}

int lmo_fs_write_atomic(const char *path, const void *data, size_t len, mode_t mode, struct lmo_err *err)
{
    char dir[LMO_PATH_MAX], temporary[LMO_PATH_MAX + 16];
    int r = parent_of(path, dir, err);
    if (r < 0)
        return r;
    snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    LMO_AUTO_CLOSE int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return fail_errno(err, "open directory", dir);
    LMO_AUTO_CLOSE int fd = mkostemp(temporary, O_CLOEXEC); /* created with 0600 */
    if (fd < 0)
        return fail_errno(err, "create", temporary);
    if (write_all(fd, data, len) < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0) {
        r = fail_errno(err, "write", path);
        unlink(temporary);
        return r;
    }
    if (fsync(dir_fd) < 0)
        return fail_errno(err, "sync directory", dir);
    return 0;
}

int lmo_fs_mkdir_p(const char *path, mode_t mode, struct lmo_err *err)
{
    char part[LMO_PATH_MAX];
    if (strlen(path) >= sizeof part || path[0] == '\0')
        return lmo_fail(err, LMO_E_INVALID, "a path must have 1 to %zu bytes", sizeof part - 1);
    strcpy(part, path);
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        bool last = *p == '\0';
        *p = '\0';
        if (mkdir(part, mode) < 0 && errno != EEXIST)
            return fail_errno(err, "make directory", part);
        if (last)
            break;
        *p = '/';
    }
    struct stat st;
    if (stat(path, &st) < 0)
        return fail_errno(err, "look at", path);
    if (!S_ISDIR(st.st_mode))
        return lmo_fail(err, LMO_E_CONFLICT, "%s exists and is not a directory", path);
    return 0;
}

int lmo_fs_lock(const char *path, mode_t mode, int *ret_fd, struct lmo_err *err)
{
    LMO_AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return fail_errno(err, "open lock file", path);
    char text[32] = "";
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return fail_errno(err, "lock", path);
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        text[strspn(text, "0123456789")] = '\0';
        return lmo_fail(err, LMO_E_BUSY, "%s is locked by another process%s%s", path, text[0] ? ", pid " : "", text);
    }
    int len = snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)len, 0) != len)
        return fail_errno(err, "write", path);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int lmo_fs_check_private(const char *path, struct lmo_err *err)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return fail_errno(err, "look at", path);
    if (!S_ISREG(st.st_mode))
        return lmo_fail(err, LMO_E_INVALID, "%s is not a regular file", path);
    if (st.st_mode & (S_IRWXO | S_IWGRP))
        return lmo_fail(err, LMO_E_FORBIDDEN, "%s has mode %04o: others could read or change it; 0600 or 0640 is right",
                        path, (unsigned)st.st_mode & 07777);
    return 0;
}
