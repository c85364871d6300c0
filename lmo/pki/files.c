/* files.c - see files.h. */
#include "pki/files.h"
#include "base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static int from_errno(int e)
{
    if (e == ENOSPC || e == EDQUOT)
        return LMO_E_NO_SPACE;
    if (e == ENOENT)
        return LMO_E_NOT_FOUND;
    if (e == EEXIST)
        return LMO_E_CONFLICT;
    if (e == EACCES || e == EPERM || e == EROFS)
        return LMO_E_FORBIDDEN;
    return LMO_E_IO;
}

static bool directory_is_empty(int fd)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (copy < 0)
        return false;
    DIR *d = fdopendir(copy);
    if (!d) {
        close(copy);
        return false;
    }
    bool empty = true;
    for (struct dirent *e; empty && (e = readdir(d));) {
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    }
    closedir(d);
    return empty;
}

int lmo_pki_make_directory(const char *path, struct lmo_err *err)
{
    if (mkdir(path, LMO_PKI_MODE_DIRECTORY) < 0 && errno != EEXIST) {
        return lmo_fail(err, from_errno(errno), "%s: cannot make the directory: %m", path);
    }
    LMO_AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return lmo_fail(err, from_errno(errno), "%s: %m", path);
    if (st.st_uid != geteuid() || !directory_is_empty(fd)) {
        return lmo_fail(err, LMO_E_REFUSED, "%s: exists and is not an empty directory of ours; name a new one", path);
    }
    if (fchmod(fd, LMO_PKI_MODE_DIRECTORY) < 0)
        return lmo_fail(err, from_errno(errno), "%s: chmod: %m", path);
    return 0;
}

/* Waits for the other holder by watching it close the lock file, not by asking again and again. A holder that died
 * may lose its lock a moment after that event, hence the last try at the deadline. 0 = locked, else an errno. */
static int flock_until(const char *path, int fd, unsigned timeout_ms)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno != EWOULDBLOCK)
        return errno;
    LMO_AUTO_CLOSE int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch < 0 || inotify_add_watch(watch, path, IN_CLOSE) < 0)
        return errno;
    for (uint64_t deadline_ns = lmo_now_ns() + timeout_ms * LMO_NS_PER_MS;;) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK)
            return errno;
        uint64_t left_ms = lmo_ms_until(deadline_ns);
        if (left_ms == 0)
            return ETIMEDOUT;
        struct pollfd p = {.fd = watch, .events = POLLIN};
        char events[4096];
        if (poll(&p, 1, (int)left_ms) > 0 && read(watch, events, sizeof events) < 0 && errno != EAGAIN)
            return errno;
    }
}

int lmo_pki_lock(const char *dir, unsigned timeout_ms, int *ret_fd, struct lmo_err *err)
{
    char path[LMO_PATH_MAX];
    int rc = lmo_pki_path(dir, "lock", path, err);
    if (rc < 0)
        return rc;
    LMO_AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return lmo_fail(err, from_errno(errno), "%s: %m", path);
    int e = flock_until(path, fd, timeout_ms);
    if (e == ETIMEDOUT) {
        return lmo_fail(err, LMO_E_BUSY, "%s: another `lmo pki` has been at work here for %u ms; try again", dir,
                        timeout_ms);
    }
    if (e != 0)
        return lmo_fail(err, from_errno(e), "%s: %s", path, strerror(e));
    *ret_fd = fd;
    fd = -1;
    return 0;
}

void lmo_pki_unlock(int fd)
{
    if (fd < 0)
        return;
    /* Unlock before close: whoever waits is woken by the close and must find the lock free. */
    flock(fd, LOCK_UN);
    close(fd);
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

static int flush_parent(const char *path)
{
    char parent[LMO_PATH_MAX];
    const char *slash = strrchr(path, '/');
    int len = slash == path ? 1 : slash ? (int)(slash - path) : 1;
    snprintf(parent, sizeof parent, "%.*s", len, slash ? path : ".");
    LMO_AUTO_CLOSE int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -1 : fsync(fd);
}

int lmo_pki_write_new(const char *path, mode_t mode, const void *data, size_t len, struct lmo_err *err)
{
    LMO_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return lmo_fail(err, LMO_E_CONFLICT, "%s exists and is not overwritten", path);
    if (fd < 0)
        return lmo_fail(err, from_errno(errno), "%s: %m", path);
    if (fchmod(fd, mode) < 0 || write_all(fd, data, len) < 0 || fsync(fd) < 0 || flush_parent(path) < 0) {
        int e = errno;
        unlink(path);
        return lmo_fail(err, from_errno(e), "%s: %s", path, strerror(e));
    }
    return 0;
}

int lmo_pki_path(const char *dir, const char *name, char ret_path[LMO_PATH_MAX], struct lmo_err *err)
{
    char path[LMO_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return lmo_fail(err, LMO_E_TOO_LARGE, "%s: the path is too long", dir);
    memcpy(ret_path, path, (size_t)n + 1);
    return 0;
}
