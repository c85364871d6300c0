/* hypervisor_libvirt_memory.h - the memory that an incoming guest needs, and whether this host has it.
 *
 * Without libvirt: it reads the kernel's own figures. Only the libvirt driver and its test use this. */
#ifndef LMO_WORKERS_HYPERVISOR_LIBVIRT_MEMORY_H
#define LMO_WORKERS_HYPERVISOR_LIBVIRT_MEMORY_H

#include "workers/drivers/hypervisor_libvirt_xml.h"

/* What QEMU needs beside the guest's memory, roughly: its own code and heap, video memory, page tables. */
#define LMO_MEMORY_OVERHEAD_BYTES ((uint64_t)128 << 20)

/* `root`: "" for this host, or a directory that stands in for it. REFUSED says what is needed and what there is: huge
 * pages of each size, and ordinary memory for the rest. Huge pages that a guest started here has reserved and not
 * touched yet count as taken. */
int lmo_memory_check(const char *root, const struct lmo_domxml_incoming *in, struct lmo_err *err) LMO_MUST_CHECK;

#endif
