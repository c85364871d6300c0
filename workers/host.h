/* host.h - what the kernel of this host says: memory, and which way packets leave. Reads only; any thread. */
#ifndef LMO_WORKERS_HOST_H
#define LMO_WORKERS_HOST_H

#include "proto/observe.h"

/* Fills in memory_* and huge_pages from <root>/proc/meminfo and <root>/sys/kernel/mm/hugepages; `root` is "" but in
 * tests. What cannot be read stays 0: not known. */
void lmo_host_memory_read(const char *root, struct lmo_host_facts *f);
/* Size of the huge pages that one gets without asking for a size; 0: there are none. */
uint64_t lmo_host_default_huge_page(const char *root);

/* Does what is sent to migration_uri ("tcp://ADDRESS[:PORT]") leave this host by its own link of that name? Asked of the kernel's
 * routes; nothing is sent. REFUSED if the link is not configured here or the route takes another way: guests' memory
 * never takes a network that it was not given. An empty `link` is always fine. */
int lmo_host_route_check(const struct lmo_host_facts *f, const char *link, const char *migration_uri,
                         struct lmo_err *err) LMO_MUST_CHECK;

#endif
