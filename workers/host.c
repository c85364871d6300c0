/* host.c - see host.h. */
#include "workers/host.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANY_PORT 49152 /* connecting a UDP socket sends nothing, but wants a port */

/* ------------------------------------------------------------------ memory */

/* "MemTotal:       24684264 kB" -> bytes; false if the line is of something else. */
static bool meminfo_line(const char *line, const char *name, uint64_t *ret_bytes)
{
    size_t len = strlen(name);
    unsigned long long kib;
    if (strncmp(line, name, len) != 0 || line[len] != ':' || sscanf(line + len + 1, "%llu kB", &kib) != 1) {
        return false;
    }
    *ret_bytes = (uint64_t)kib * 1024;
    return true;
}

static void read_meminfo(const char *root, uint64_t *total, uint64_t *available, uint64_t *huge_page)
{
    char path[LMO_PATH_MAX], line[256];
    (void)snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *file = fopen(path, "re");
    *total = *available = *huge_page = 0;
    while (file && fgets(line, sizeof line, file)) {
        (void)(meminfo_line(line, "MemTotal", total) || meminfo_line(line, "MemAvailable", available) ||
               meminfo_line(line, "Hugepagesize", huge_page));
    }
    if (file) {
        (void)fclose(file);
    }
}

static uint64_t read_number(const char *directory, const char *file)
{
    char path[LMO_PATH_MAX];
    unsigned long long n = 0;
    (void)snprintf(path, sizeof path, "%s/%s", directory, file);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%llu", &n) != 1) {
        n = 0;
    }
    if (f) {
        (void)fclose(f);
    }
    return n;
}

static void read_huge_pages(const char *root, struct lmo_host_facts *f, uint64_t *ret_reserved)
{
    char directory[LMO_PATH_MAX], pool[LMO_PATH_MAX + 300];
    (void)snprintf(directory, sizeof directory, "%s/sys/kernel/mm/hugepages", root);
    DIR *d = opendir(directory);
    const struct dirent *entry;
    *ret_reserved = 0;
    while (d && (entry = readdir(d))) {
        unsigned long long kib;
        if (sscanf(entry->d_name, "hugepages-%llukB", &kib) != 1 || f->huge_page_count == LMO_PAGE_SIZES_MAX) {
            continue;
        }
        (void)snprintf(pool, sizeof pool, "%s/%s", directory, entry->d_name);
        /* Reserved ones are promised to somebody who has not touched them yet. */
        uint64_t size = kib * 1024, total = read_number(pool, "nr_hugepages"),
                 free = read_number(pool, "free_hugepages");
        uint64_t promised = read_number(pool, "resv_hugepages");
        f->huge_pages[f->huge_page_count++] =
            (struct lmo_huge_pages){.size_bytes = size,
                                    .total_bytes = total * size,
                                    .free_bytes = free > promised ? (free - promised) * size : 0};
        *ret_reserved += total * size;
    }
    if (d) {
        (void)closedir(d);
    }
}

void lmo_host_memory_read(const char *root, struct lmo_host_facts *f)
{
    uint64_t total, available, huge_page, reserved;
    read_meminfo(root, &total, &available, &huge_page);
    f->huge_page_count = 0;
    read_huge_pages(root, f, &reserved);
    f->memory_total_bytes = total > reserved ? total - reserved : total; /* of ordinary pages */
    f->memory_free_bytes = available;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    f->cpus = cpus > 0 ? (uint32_t)cpus : 0;
}

uint64_t lmo_host_default_huge_page(const char *root)
{
    uint64_t total, available, huge_page;
    read_meminfo(root, &total, &available, &huge_page);
    return huge_page;
}

/* ------------------------------------------------------------------ routes */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* A numeric address; 0: it is none. */
static socklen_t parse(const char *text, union address *ret)
{
    *ret = (union address){0};
    if (inet_pton(AF_INET, text, &ret->v4.sin_addr) == 1) {
        ret->v4.sin_family = AF_INET;
        ret->v4.sin_port = htons(ANY_PORT);
        return sizeof ret->v4;
    }
    if (inet_pton(AF_INET6, text, &ret->v6.sin6_addr) == 1) {
        ret->v6.sin6_family = AF_INET6;
        ret->v6.sin6_port = htons(ANY_PORT);
        return sizeof ret->v6;
    }
    return 0;
}

/* The address within "tcp://ADDRESS", "tcp://ADDRESS:PORT", "tcp://[ADDRESS]:PORT". */
static void uri_address(const char *uri, char ret[LMO_ADDRESS_MAX])
{
    const char *p = strncmp(uri, "tcp://", 6) == 0 ? uri + 6 : uri;
    bool bracket = *p == '[';
    p += bracket;
    size_t len = strcspn(p, bracket ? "]" : ":/");
    (void)snprintf(ret, LMO_ADDRESS_MAX, "%.*s", (int)(len < LMO_ADDRESS_MAX ? len : 0), p);
}

static bool same_address(const union address *a, const union address *b)
{
    if (a->any.sa_family != b->any.sa_family) {
        return false;
    }
    return a->any.sa_family == AF_INET ? a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr
                                       : memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr) == 0;
}

int lmo_host_route_check(const struct lmo_host_facts *f, const char *link, const char *migration_uri,
                         struct lmo_err *err)
{
    if (link[0] == '\0') {
        return 0;
    }
    const struct lmo_link *own = lmo_host_link(f, link);
    char to_text[LMO_ADDRESS_MAX];
    union address to, from = {0}, wanted;
    uri_address(migration_uri, to_text);
    if (!own) {
        return lmo_fail(err, LMO_E_REFUSED, "host %s has no link '%s' ([link %s] in its worker's configuration)",
                        f->host, link, link);
    }
    socklen_t len = parse(to_text, &to), from_len = sizeof from;
    if (len == 0 || parse(own->address, &wanted) == 0) {
        return lmo_fail(err, LMO_E_INVALID, "link '%s': %.80s is no IP address", link,
                        len ? own->address : migration_uri);
    }
    LMO_AUTO_CLOSE int fd = socket(to.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return lmo_fail(err, LMO_E_UNAVAILABLE, "link '%s': no socket: %s", link, strerror(errno));
    }
    if (connect(fd, &to.any, len) < 0 || getsockname(fd, &from.any, &from_len) < 0) {
        return lmo_fail(err, LMO_E_REFUSED, "link '%s' of host %s: %s cannot be reached: %s", link, f->host, to_text,
                        strerror(errno));
    }
    if (!same_address(&from, &wanted)) {
        char text[INET6_ADDRSTRLEN] = "?";
        const void *bytes =
            from.any.sa_family == AF_INET ? (const void *)&from.v4.sin_addr : (const void *)&from.v6.sin6_addr;
        (void)inet_ntop(from.any.sa_family, bytes, text, sizeof text);
        return lmo_fail(err, LMO_E_REFUSED,
                        "host %s would send guests' memory to %s from %s, not by its link '%s' (%s)", f->host, to_text,
                        text, link, own->address);
    }
    return 0;
}
