/* hypervisor_libvirt_log.h - one sentence of libvirt's log of a domain: "shutting down, reason=migrated".
 *
 * libvirt writes it when it begins to end the source of a successful migration: in the thread that otherwise would have
 * resumed the guest, before it closes QEMU's monitor and before it sends the first signal. So it is the same word as
 * the lifecycle event STOPPED/MIGRATED, some 0.2 to 1.5 s earlier, and it outlives libvirtd and us. */
#ifndef LMO_WORKERS_HYPERVISOR_LIBVIRT_LOG_H
#define LMO_WORKERS_HYPERVISOR_LIBVIRT_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where the log ended when a migration began: only what was written after that counts. */
struct lmo_domlog_mark {
    bool valid;
    uint64_t inode, offset;
};

struct lmo_domlog_mark lmo_domlog_mark(const char *path);
/* True if libvirt's last word on the domain after `mark` is that it ends it as migrated. False also when that cannot
 * be told: log rotated, unreadable, or grown by more than a few hundred KiB since. */
bool lmo_domlog_migrated(const char *path, const struct lmo_domlog_mark *mark);
/* The same for a text that begins at the mark; a last line without its end does not count. */
bool lmo_domlog_text_migrated(const char *text, size_t len);

#endif
