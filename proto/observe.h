/* observe.h - ground truth that a worker shows: GET /v1/observe/...
 *
 *   GET /v1/observe/host              struct lmo_host_facts as JSON
 *   GET /v1/observe/vms               {"vms":[facts...]}
 *   GET /v1/observe/vm/{uuid or name} facts; 404 is an answer: the hypervisor was asked and has none
 *   GET /v1/observe/migrations        {"migrations":[{"migration","vm","epoch","role","stage"}...]}: the journal's; with an
 *                                     empty stage: only answers of ops are kept (a volume's or fabric's worker)
 *   GET /v1/observe/volumes           {"volumes":[...]}: every volume that the service's worker knows, each as below;
 *                                     all of them, or an error
 *   GET /v1/observe/volume/{name}     {"volume","path","size_bytes","exports":[{"name","host","epoch","offered","fenced"}]}
 *   GET /v1/observe/port/{id}         {"id","fabric":"key=value ...","activated"}: what this worker can see of it */
#ifndef LMO_PROTO_OBSERVE_H
#define LMO_PROTO_OBSERVE_H

#include "base/err.h"
#include "base/types.h"

#include <jansson.h>

#define LMO_OBSERVE_BODY_MAX (4U << 20)
#define LMO_MACHINES_TEXT_MAX 2048

/* A network of the host's that was given a name, with what of it migrations may use. */
struct lmo_link {
    char name[LMO_NAME_MAX];
    char address[LMO_ADDRESS_MAX];   /* of this host in it; numeric, without a port */
    uint64_t rate_bytes_per_s;       /* for both directions together */
};
struct lmo_huge_pages {
    uint64_t size_bytes;             /* of one page */
    uint64_t total_bytes, free_bytes;
};

/* Capabilities; an empty string: the worker does not have that one. */
struct lmo_host_facts {
    char host[LMO_NAME_MAX];
    char version[32];                /* of the worker */
    char boot[LMO_ID_MAX];           /* new at every start of the worker */
    char hypervisor[16];             /* driver */
    char peer_uri[LMO_URL_MAX];
    char network[16], network_fabric[LMO_NAME_MAX]; /* host side, and the fabric that it is part of */
    char fabric[16], fabric_name[LMO_NAME_MAX];     /* serves this fabric's databases */
    char volume[16], volume_service[LMO_NAME_MAX];
    char volume_address[LMO_URL_MAX]; /* address:port as guests' disks name it; several, separated by commas */
    int64_t realtime_us;             /* its clock, for the skew check */
    uint64_t term;                   /* of the coordinator that it obeys; lower ones are refused */
    uint64_t epoch;                  /* the highest that it ever saw, of any guest; 0: it does not say */
    uint32_t protocol_min, protocol_max; /* of the op protocol that it speaks (proto/op.h); 0: it does not say, and speaks 1 */
    unsigned link_count;
    struct lmo_link links[LMO_LINKS_MAX];
    uint64_t memory_total_bytes, memory_free_bytes; /* ordinary pages; total 0: this worker does not say */
    uint32_t cpus;                   /* hardware threads; 0: this worker does not say */
    char cpu[LMO_DIGEST_MAX];        /* of the CPU that guests can have here, as the hypervisor tells it; empty: not said */
    char machines[LMO_MACHINES_TEXT_MAX]; /* machine types, separated by blanks; empty: not said, then any */
    char services[LMO_URL_MAX];      /* addresses of volume services that guests reach from here, by commas; empty: all */
    unsigned huge_page_count;
    struct lmo_huge_pages huge_pages[LMO_PAGE_SIZES_MAX];
};
json_t *lmo_host_facts_to_json(const struct lmo_host_facts *f);
int lmo_host_facts_from_json(const json_t *j, struct lmo_host_facts *ret, struct lmo_err *err) LMO_MUST_CHECK;
/* The link of that name, or NULL. */
const struct lmo_link *lmo_host_link(const struct lmo_host_facts *f, const char *name);

#endif
