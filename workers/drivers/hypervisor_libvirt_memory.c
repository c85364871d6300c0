/* hypervisor_libvirt_memory.c - see the header.
 *
 * Not judged: on which of the host's NUMA nodes the pages are. A guest that is bound to one node and finds its pages on
 * another is refused by QEMU when it starts there, with its own reason. */
#include "workers/drivers/hypervisor_libvirt_memory.h"

#include "base/cleanup.h"
#include "base/fs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIGURES_MAX 65536

/* A figure of /proc/meminfo, in bytes; false: the kernel does not give it. */
static bool figure(const char *meminfo, const char *name, uint64_t *ret)
{
    const char *line = strstr(meminfo, name);
    *ret = line ? strtoull(line + strlen(name), NULL, 10) << 10 : 0;
    return line != NULL;
}

static int page_figure(const char *root, uint64_t page_bytes, const char *name, uint64_t *ret, struct lmo_err *err)
{
    char path[LMO_PATH_MAX];
    LMO_AUTO_FREE char *text = NULL;
    (void)snprintf(path, sizeof path, "%.900s/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB/%s", root,
                   page_bytes >> 10, name);
    int r = lmo_fs_read_file(path, FIGURES_MAX, &text, NULL, err);
    if (r == 0)
        *ret = strtoull(text, NULL, 10);
    return r;
}

static int check_pages(const char *root, uint64_t page_bytes, uint64_t needed, struct lmo_err *err)
{
    uint64_t free_pages = 0, reserved = 0;
    int r = page_figure(root, page_bytes, "free_hugepages", &free_pages, err);
    if (r == 0)
        r = page_figure(root, page_bytes, "resv_hugepages", &reserved, err);
    if (r == LMO_E_NOT_FOUND)
        return lmo_fail(err, LMO_E_REFUSED,
                        "hugepages: the guest needs %" PRIu64 " of %" PRIu64 " KiB; this host has none of that size",
                        needed, page_bytes >> 10);
    if (r < 0)
        return r;
    uint64_t available = free_pages > reserved ? free_pages - reserved : 0;
    if (available >= needed)
        return 0;
    return lmo_fail(err, LMO_E_REFUSED,
                    "hugepages: the guest needs %" PRIu64 " of %" PRIu64 " KiB; this host has %" PRIu64
                    " available (%" PRIu64 " free, %" PRIu64 " of them reserved)",
                    needed, page_bytes >> 10, available, free_pages, reserved);
}

int lmo_memory_check(const char *root, const struct lmo_domxml_incoming *in, struct lmo_err *err)
{
    char path[LMO_PATH_MAX];
    LMO_AUTO_FREE char *meminfo = NULL;
    uint64_t available = 0, usual = 0, huge = 0;
    (void)snprintf(path, sizeof path, "%.900s/proc/meminfo", root);
    int r = lmo_fs_read_file(path, FIGURES_MAX, &meminfo, NULL, err);
    if (r < 0)
        return r;
    (void)figure(meminfo, "MemAvailable:", &available);
    if (!figure(meminfo, "Hugepagesize:", &usual) && in->page_count > 0)
        return lmo_fail(err, LMO_E_REFUSED, "hugepages: the guest needs them; this host's kernel has none");
    for (unsigned i = 0; i < in->page_count; i++) {
        uint64_t size = in->pages[i].page_bytes ? in->pages[i].page_bytes : usual, needed = 0;
        bool judged = false;
        for (unsigned k = 0; k < in->page_count; k++) {
            uint64_t other = in->pages[k].page_bytes ? in->pages[k].page_bytes : usual;
            judged = judged || (k < i && other == size);
            if (other == size)
                needed += in->pages[k].bytes / size + (in->pages[k].bytes % size != 0);
        }
        huge += in->pages[i].bytes;
        r = judged ? 0 : check_pages(root, size, needed, err);
        if (r < 0)
            return r;
    }
    uint64_t ordinary = in->memory_bytes > huge ? in->memory_bytes - huge : 0;
    if (available >= ordinary + LMO_MEMORY_OVERHEAD_BYTES)
        return 0;
    return lmo_fail(err, LMO_E_REFUSED,
                    "memory: the guest needs %" PRIu64 " MiB and QEMU some %" PRIu64 " MiB more; this host has %" PRIu64
                    " MiB available",
                    ordinary >> 20, LMO_MEMORY_OVERHEAD_BYTES >> 20, available >> 20);
}
