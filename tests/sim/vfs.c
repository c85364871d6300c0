/* vfs.c - SQLite's files in memory, each with a durable image and the writes that no sync has reached yet.
 *
 * A file's present contents are what every process sees (the page cache). A sync copies what was written since the last
 * one into the durable image. When a process ends on a forgetful disk, each unsynced write is kept, lost or torn at a
 * sector by the seed, and the durable image becomes the contents. A sync that fails loses its claim on what it was to
 * make durable: later syncs do not write it again. */
#include "disk.h"
#include "image.h"
#include "sim_private.h"

#include "base/assert.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SECTOR      512
#define SHM_SLOTS   8
#define SHM_REGIONS 16

struct dirty {
    size_t offset, length;
};

struct shm {
    void *regions[SHM_REGIONS];
    unsigned users;
    int shared[SHM_SLOTS];
    const void *exclusive[SHM_SLOTS];
};

struct file {
    struct file *next;
    struct sim_disk *disk;
    char name[64];
    struct image now, durable, installed;
    struct dirty *dirty;
    size_t dirty_count, dirty_capacity;
    struct shm shm;
    int shared; /* locks of the database file */
    const void *writer;
    bool created, torn; /* torn: what a failed sync has forgotten is not among the dirty */
};

struct sim_disk {
    struct sim_disk *next;
    char name[64];
    struct file *files;
    struct sim_rng rng;
    bool full, broken, forgetful;
    uint64_t slow_ns;
};

/* SQLite's file object; lives in the process's memory, so it vanishes with it: `open_files` is looked through first. */
struct handle {
    sqlite3_file base;
    struct file *file;
    struct sim_process *process;
    struct handle *prev, *next;
    int lock;
    unsigned shm_shared, shm_exclusive; /* bit per slot */
    bool has_shm;
};

static struct sim_disk *disks;
static struct handle *open_files;
static struct sim_disk_counts counts;
static struct sim_rng randomness;

/* ------------------------------------------------------------------ disks */

static void *grown(void *block, size_t size)
{
    struct sim_process *before = sim_own(NULL);
    void *p = realloc(block, size);
    lmo_assert(p);
    (void)sim_own(before);
    return p;
}

struct sim_disk *sim_disk_named(const char *name)
{
    for (struct sim_disk *d = disks; d; d = d->next) {
        if (strcmp(d->name, name) == 0) {
            return d;
        }
    }
    struct sim_disk *d = grown(NULL, sizeof *d);
    memset(d, 0, sizeof *d);
    lmo_assert(strlen(name) < sizeof d->name);
    memcpy(d->name, name, strlen(name) + 1);
    d->rng = sim_rng_new(sim_seed(), name);
    d->forgetful = true;
    d->next = disks;
    disks = d;
    return d;
}

void sim_disk_set_full(struct sim_disk *d, bool full)
{
    d->full = full;
}

void sim_disk_set_broken(struct sim_disk *d, bool broken)
{
    d->broken = broken;
}

void sim_disk_set_slow(struct sim_disk *d, uint64_t extra_ns)
{
    d->slow_ns = extra_ns;
}

void sim_disk_set_forgetful(struct sim_disk *d, bool forgetful)
{
    d->forgetful = forgetful;
}

struct sim_disk_counts sim_disk_counts(void)
{
    return counts;
}

static void copy_durable(struct file *f, size_t offset, size_t length)
{
    if (offset >= f->now.size) {
        return; /* truncated since */
    }
    if (offset + length > f->now.size) {
        length = f->now.size - offset;
    }
    image_copy(&f->durable, &f->now, length, offset);
}

/* What the machine has of a file is what is durable. The two differ in what was not synced; only that is touched, so that
 * a forked run copies few pages. */
static void read_back(struct file *f)
{
    if (f->torn || f->now.size < f->durable.size) {
        image_truncate(&f->now, 0);
        image_copy(&f->now, &f->durable, f->durable.size, 0);
        f->torn = false;
        return;
    }
    for (size_t i = 0; i < f->dirty_count; i++) {
        size_t at = f->dirty[i].offset, end = at + f->dirty[i].length;
        end = end < f->durable.size ? end : f->durable.size;
        if (at < end) {
            image_copy(&f->now, &f->durable, end - at, at);
        }
    }
    image_truncate(&f->now, f->durable.size);
}

/* What is left of the unsynced writes after a loss of power. */
static void lose(struct file *f)
{
    struct sim_rng *r = &f->disk->rng;
    unsigned mode = (unsigned)sim_below(r, 4); /* all lost, all kept, each by itself, torn */
    for (size_t i = 0; i < f->dirty_count; i++) {
        size_t offset = f->dirty[i].offset, end = offset + f->dirty[i].length;
        if (mode == 0 || (mode == 2 && sim_chance(r, 500))) {
            counts.lost++;
            continue;
        }
        while (offset < end) {
            size_t next = (offset / SECTOR + 1) * SECTOR;
            next = next < end ? next : end;
            if (mode != 3 || sim_chance(r, 700)) {
                copy_durable(f, offset, next - offset);
            } else {
                counts.lost++;
            }
            offset = next;
        }
    }
    read_back(f);
    f->dirty_count = 0;
}

static struct file *file_of(const char *path, bool make)
{
    static const char prefix[] = "/sim/";
    if (strncmp(path, prefix, sizeof prefix - 1) != 0) {
        return NULL;
    }
    const char *disk = path + sizeof prefix - 1, *slash = strchr(disk, '/');
    char name[64];
    lmo_assert(slash && (size_t)(slash - disk) < sizeof name && strlen(slash + 1) < sizeof name);
    memcpy(name, disk, (size_t)(slash - disk));
    name[slash - disk] = '\0';
    struct sim_disk *d = sim_disk_named(name);
    for (struct file *f = d->files; f; f = f->next) {
        if (strcmp(f->name, slash + 1) == 0) {
            return f->created || make ? f : NULL;
        }
    }
    if (!make) {
        return NULL;
    }
    struct file *f = grown(NULL, sizeof *f);
    memset(f, 0, sizeof *f);
    f->disk = d;
    memcpy(f->name, slash + 1, strlen(slash + 1) + 1);
    f->next = d->files;
    d->files = f;
    return f;
}

/* ------------------------------------------------------------------ life */

static void shm_release(struct file *f)
{
    if (f->shm.users > 0) {
        return;
    }
    for (unsigned i = 0; i < SHM_REGIONS; i++) {
        free(f->shm.regions[i]);
    }
    f->shm = (struct shm){0};
}

static void shm_unlock_all(struct handle *h)
{
    for (unsigned i = 0; i < SHM_SLOTS; i++) {
        if (h->shm_shared & (1U << i)) {
            h->file->shm.shared[i]--;
        }
        if (h->shm_exclusive & (1U << i)) {
            h->file->shm.exclusive[i] = NULL;
        }
    }
    h->shm_shared = h->shm_exclusive = 0;
}

static void set_lock(struct handle *h, int lock)
{
    struct file *f = h->file;
    if (h->lock >= SQLITE_LOCK_SHARED && lock < SQLITE_LOCK_SHARED) {
        f->shared--;
    } else if (h->lock < SQLITE_LOCK_SHARED && lock >= SQLITE_LOCK_SHARED) {
        f->shared++;
    }
    if (lock >= SQLITE_LOCK_RESERVED) {
        f->writer = h;
    } else if (f->writer == h) {
        f->writer = NULL;
    }
    h->lock = lock;
}

static void handle_end(struct handle *h)
{
    if (h->has_shm) {
        shm_unlock_all(h);
        h->file->shm.users--;
        h->has_shm = false;
        shm_release(h->file);
    }
    set_lock(h, SQLITE_LOCK_NONE);
    if (h->prev) {
        h->prev->next = h->next;
    } else {
        open_files = h->next;
    }
    if (h->next) {
        h->next->prev = h->prev;
    }
}

void sim_disks_forget_nothing(void)
{
    for (struct sim_disk *d = disks; d; d = d->next) {
        d->forgetful = false;
    }
}

void sim_disks_drop(struct sim_process *p)
{
    for (struct handle *h = open_files, *next; h; h = next) {
        next = h->next;
        if (h->process != p) {
            continue;
        }
        struct file *f = h->file;
        handle_end(h);
        bool others = false;
        for (struct handle *o = open_files; o; o = o->next) {
            others |= o->file == f;
        }
        /* With another process on the file the machine is up: nothing is lost from its page cache. */
        if (f->disk->forgetful && !others) {
            lose(f);
        }
    }
}

/* Buffers stay from run to run; what they hold does not, except for the installed images. */
void sim_disks_begin(bool installed)
{
    lmo_assert(!open_files);
    counts = (struct sim_disk_counts){0};
    randomness = sim_rng_new(sim_seed(), "sqlite");
    sqlite3_randomness(0, NULL); /* its generator is seeded anew, from ours */
    for (struct sim_disk *d = disks; d; d = d->next) {
        d->rng = sim_rng_new(sim_seed(), d->name);
        d->full = d->broken = false;
        d->forgetful = true;
        d->slow_ns = 0;
        for (struct file *f = d->files; f; f = f->next) {
            lmo_assert(f->shm.users == 0 && f->shared == 0 && !f->writer);
            image_truncate(&f->now, 0);
            image_truncate(&f->durable, 0);
            f->dirty_count = 0;
            f->created = installed && f->installed.size > 0;
            if (f->created) {
                image_copy(&f->now, &f->installed, f->installed.size, 0);
                image_copy(&f->durable, &f->installed, f->installed.size, 0);
            }
        }
    }
}

void sim_disks_install(void)
{
    for (struct sim_disk *d = disks; d; d = d->next) {
        for (struct file *f = d->files; f; f = f->next) {
            image_truncate(&f->installed, 0);
            if (f->created && f->durable.size > 0) {
                image_copy(&f->installed, &f->durable, f->durable.size, 0);
            }
        }
    }
}

/* ------------------------------------------------------------------ a file's methods */

static struct handle *of(sqlite3_file *base)
{
    return (struct handle *)base;
}

static int x_close(sqlite3_file *base)
{
    handle_end(of(base));
    return SQLITE_OK;
}

static int x_read(sqlite3_file *base, void *buffer, int amount, sqlite3_int64 offset)
{
    const struct image *i = &of(base)->file->now;
    size_t at = (size_t)offset, want = (size_t)amount;
    size_t have = at < i->size ? i->size - at : 0;
    if (have >= want) {
        image_read(i, buffer, want, at);
        return SQLITE_OK;
    }
    if (have > 0) {
        image_read(i, buffer, have, at);
    }
    memset((char *)buffer + have, 0, want - have);
    return SQLITE_IOERR_SHORT_READ;
}

static int x_write(sqlite3_file *base, const void *data, int amount, sqlite3_int64 offset)
{
    struct file *f = of(base)->file;
    size_t at = (size_t)offset, length = (size_t)amount;
    if (f->disk->broken || sim_observe(SIM_POINT_WRITE) == SIM_FATE_FAIL) {
        counts.failed++;
        return SQLITE_IOERR_WRITE;
    }
    if (f->disk->full) {
        counts.failed++;
        return SQLITE_FULL;
    }
    image_write(&f->now, data, length, at);
    struct dirty *last = f->dirty_count ? &f->dirty[f->dirty_count - 1] : NULL;
    if (last && last->offset + last->length == at) {
        last->length += length;
    } else {
        if (f->dirty_count == f->dirty_capacity) {
            f->dirty_capacity = f->dirty_capacity ? f->dirty_capacity * 2 : 32;
            f->dirty = grown(f->dirty, f->dirty_capacity * sizeof *f->dirty);
        }
        f->dirty[f->dirty_count++] = (struct dirty){at, length};
    }
    counts.writes++;
    counts.bytes += length;
    return SQLITE_OK;
}

static int x_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    sim_changes();
    struct file *f = of(base)->file;
    image_truncate(&f->now, (size_t)size);
    if (f->durable.size > (size_t)size) {
        image_truncate(&f->durable, (size_t)size);
    }
    return SQLITE_OK;
}

static int x_sync(sqlite3_file *base, int flags)
{
    (void)flags;
    struct file *f = of(base)->file;
    struct sim_process *p = sim_current();
    enum sim_fate fate = sim_observe(SIM_POINT_SYNC);
    if (f->disk->broken || fate == SIM_FATE_FAIL) {
        f->dirty_count = 0; /* the kernel has forgotten that they were dirty */
        f->torn = true;
        counts.failed++;
        return SQLITE_IOERR_FSYNC;
    }
    for (size_t i = 0; i < f->dirty_count; i++) {
        copy_durable(f, f->dirty[i].offset, f->dirty[i].length);
    }
    if (f->durable.size < f->now.size) {
        image_truncate(&f->durable, f->now.size);
    }
    f->dirty_count = 0;
    counts.syncs++;
    sim_busy(sim_latency(&p->rng, 150 * SIM_US, 40) + f->disk->slow_ns);
    sim_after(fate);
    return SQLITE_OK;
}

static int x_size(sqlite3_file *base, sqlite3_int64 *ret)
{
    *ret = (sqlite3_int64)of(base)->file->now.size;
    return SQLITE_OK;
}

static int x_lock(sqlite3_file *base, int lock)
{
    struct handle *h = of(base);
    struct file *f = h->file;
    if (h->lock >= lock) {
        return SQLITE_OK;
    }
    if (f->writer && f->writer != h) {
        return SQLITE_BUSY;
    }
    if (lock == SQLITE_LOCK_EXCLUSIVE && f->shared > (h->lock >= SQLITE_LOCK_SHARED ? 1 : 0)) {
        return SQLITE_BUSY;
    }
    set_lock(h, lock);
    return SQLITE_OK;
}

static int x_unlock(sqlite3_file *base, int lock)
{
    if (of(base)->lock > lock) {
        set_lock(of(base), lock);
    }
    return SQLITE_OK;
}

static int x_check_reserved(sqlite3_file *base, int *ret)
{
    *ret = of(base)->file->writer != NULL;
    return SQLITE_OK;
}

static int x_control(sqlite3_file *base, int op, void *arg)
{
    (void)base;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int x_sector(sqlite3_file *base)
{
    (void)base;
    return SECTOR;
}

/* As SQLite takes every file on Linux to be: a write tears nothing but itself. (Without it SQLite pads its log to whole
 * sectors, syncs before the end of the padding, and a later sync that fails can then lose committed transactions.) */
static int x_device(sqlite3_file *base)
{
    (void)base;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static int x_shm_map(sqlite3_file *base, int region, int size, int extend, void volatile **ret)
{
    struct handle *h = of(base);
    struct shm *s = &h->file->shm;
    lmo_assert(region >= 0 && region < SHM_REGIONS);
    if (!h->has_shm) {
        h->has_shm = true;
        s->users++;
    }
    if (!s->regions[region] && extend) {
        s->regions[region] = grown(NULL, (size_t)size);
        memset(s->regions[region], 0, (size_t)size);
    }
    *ret = s->regions[region];
    return SQLITE_OK;
}

static int x_shm_lock(sqlite3_file *base, int offset, int n, int flags)
{
    struct handle *h = of(base);
    struct shm *s = &h->file->shm;
    for (int i = offset; i < offset + n; i++) {
        unsigned bit = 1U << i;
        if (flags & SQLITE_SHM_UNLOCK) {
            if (h->shm_shared & bit) {
                s->shared[i]--;
            }
            if (h->shm_exclusive & bit) {
                s->exclusive[i] = NULL;
            }
            h->shm_shared &= ~bit;
            h->shm_exclusive &= ~bit;
        } else if (flags & SQLITE_SHM_EXCLUSIVE) {
            int own = (h->shm_shared & bit) != 0;
            if ((s->exclusive[i] && s->exclusive[i] != h) || s->shared[i] > own) {
                return SQLITE_BUSY; /* n > 1: SQLite takes several only when it holds none of them */
            }
        } else if (s->exclusive[i] && s->exclusive[i] != h) {
            return SQLITE_BUSY;
        }
    }
    for (int i = offset; i < offset + n && !(flags & SQLITE_SHM_UNLOCK); i++) {
        unsigned bit = 1U << i;
        if (flags & SQLITE_SHM_EXCLUSIVE) {
            s->exclusive[i] = h;
            h->shm_exclusive |= bit;
        } else if (!(h->shm_shared & bit)) {
            s->shared[i]++;
            h->shm_shared |= bit;
        }
    }
    return SQLITE_OK;
}

static void x_shm_barrier(sqlite3_file *base)
{
    (void)base;
}

static int x_shm_unmap(sqlite3_file *base, int delete_it)
{
    (void)delete_it;
    struct handle *h = of(base);
    if (h->has_shm) {
        shm_unlock_all(h);
        h->file->shm.users--;
        h->has_shm = false;
        shm_release(h->file);
    }
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = x_close,
    .xRead = x_read,
    .xWrite = x_write,
    .xTruncate = x_truncate,
    .xSync = x_sync,
    .xFileSize = x_size,
    .xLock = x_lock,
    .xUnlock = x_unlock,
    .xCheckReservedLock = x_check_reserved,
    .xFileControl = x_control,
    .xSectorSize = x_sector,
    .xDeviceCharacteristics = x_device,
    .xShmMap = x_shm_map,
    .xShmLock = x_shm_lock,
    .xShmBarrier = x_shm_barrier,
    .xShmUnmap = x_shm_unmap,
};

/* ------------------------------------------------------------------ the file system's methods */

static int x_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *base, int flags, int *ret_flags)
{
    sim_changes();
    (void)vfs;
    struct handle *h = of(base);
    memset(h, 0, sizeof *h);
    struct file *f = path ? file_of(path, (flags & SQLITE_OPEN_CREATE) != 0) : NULL;
    if (!f) {
        return SQLITE_CANTOPEN; /* also: temporary files, which nothing of ours may need */
    }
    f->created = true;
    h->base.pMethods = &methods;
    h->file = f;
    h->process = sim_current();
    h->next = open_files;
    if (h->next) {
        h->next->prev = h;
    }
    open_files = h;
    if (ret_flags) {
        *ret_flags = flags;
    }
    return SQLITE_OK;
}

static int x_delete(sqlite3_vfs *vfs, const char *path, int sync)
{
    sim_changes();
    (void)vfs;
    (void)sync;
    struct file *f = file_of(path, false);
    if (!f) {
        return SQLITE_IOERR_DELETE_NOENT;
    }
    f->created = false;
    f->dirty_count = 0;
    image_truncate(&f->now, 0);
    image_truncate(&f->durable, 0);
    return SQLITE_OK;
}

static int x_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret)
{
    (void)vfs;
    (void)flags;
    *ret = file_of(path, false) != NULL;
    return SQLITE_OK;
}

static int x_full_path(sqlite3_vfs *vfs, const char *path, int size, char *ret)
{
    (void)vfs;
    lmo_assert(strlen(path) < (size_t)size);
    memcpy(ret, path, strlen(path) + 1);
    return SQLITE_OK;
}

static int x_randomness(sqlite3_vfs *vfs, int size, char *ret)
{
    (void)vfs;
    for (int i = 0; i < size; i++) {
        ret[i] = (char)sim_random(&randomness);
    }
    return size;
}

static int x_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    sim_busy((uint64_t)us * SIM_US);
    return us;
}

static int x_time64(sqlite3_vfs *vfs, sqlite3_int64 *ret)
{
    (void)vfs;
    struct sim_process *p = sim_current();
    *ret = (sqlite3_int64)INT64_C(210866760000000) +
           ((int64_t)(SIM_EPOCH_US + sim_now() / 1000) + (p ? p->skew_us : 0)) / 1000;
    return SQLITE_OK;
}

static int x_time(sqlite3_vfs *vfs, double *ret)
{
    sqlite3_int64 ms = 0;
    int rc = x_time64(vfs, &ms);
    *ret = (double)ms / 86400000.0;
    return rc;
}

static int x_last_error(sqlite3_vfs *vfs, int size, char *ret)
{
    (void)vfs;
    (void)size;
    (void)ret;
    return 0;
}

/* ------------------------------------------------------------------ SQLite's memory */

static void *m_malloc(int size)
{
    return malloc((size_t)size);
}

static void m_free(void *block)
{
    free(block);
}

static void *m_realloc(void *block, int size)
{
    return realloc(block, (size_t)size);
}

static int m_size(void *block)
{
    return (int)sim_memory_size(block);
}

static int m_roundup(int size)
{
    return (size + 15) & ~15;
}

static int m_init(void *arg)
{
    (void)arg;
    return SQLITE_OK;
}

static void m_shutdown(void *arg)
{
    (void)arg;
}

void sim_vfs_register(void)
{
    static const sqlite3_mem_methods memory = {.xMalloc = m_malloc,
                                               .xFree = m_free,
                                               .xRealloc = m_realloc,
                                               .xSize = m_size,
                                               .xRoundup = m_roundup,
                                               .xInit = m_init,
                                               .xShutdown = m_shutdown};
    static sqlite3_vfs vfs = {.iVersion = 2,
                              .szOsFile = sizeof(struct handle),
                              .mxPathname = 256,
                              .zName = "sim",
                              .xOpen = x_open,
                              .xDelete = x_delete,
                              .xAccess = x_access,
                              .xFullPathname = x_full_path,
                              .xRandomness = x_randomness,
                              .xSleep = x_sleep,
                              .xCurrentTime = x_time,
                              .xGetLastError = x_last_error,
                              .xCurrentTimeInt64 = x_time64};
    static bool done;
    if (done) {
        return;
    }
    done = true;
    lmo_assert(sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) == SQLITE_OK);
    lmo_assert(sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) == SQLITE_OK);
    lmo_assert(sqlite3_config(SQLITE_CONFIG_MALLOC, &memory) == SQLITE_OK);
    lmo_assert(sqlite3_initialize() == SQLITE_OK);
    lmo_assert(sqlite3_vfs_register(&vfs, 1) == SQLITE_OK);
}

/* ------------------------------------------------------------------ lmo/sql makes the file first, with its mode */

int __wrap_open64(const char *path, int flags, ...);
int __real_open64(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_fstat64(int fd, struct stat *ret);
int __real_fstat64(int fd, struct stat *ret);
int __wrap_fstat(int fd, struct stat *ret);

#define MADE_FD 2000 /* nobody's: only looked at and closed */

int __wrap_open64(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    if (strncmp(path, "/sim/", 5) != 0) {
        return __real_open64(path, flags, mode);
    }
    struct file *f = file_of(path, true);
    if (!f->created && f->disk->full) {
        errno = ENOSPC;
        return -1;
    }
    f->created = true;
    return MADE_FD;
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return __wrap_open64(path, flags, mode);
}

int __wrap_fstat64(int fd, struct stat *ret)
{
    if (fd != MADE_FD) {
        return __real_fstat64(fd, ret);
    }
    memset(ret, 0, sizeof *ret);
    ret->st_mode = S_IFREG | 0600;
    return 0;
}

int __wrap_fstat(int fd, struct stat *ret)
{
    return __wrap_fstat64(fd, ret);
}
