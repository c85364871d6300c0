/* types.h - the nouns every layer shares, as plain data: names, limits, guests, volumes, ports.
 *
 * Nothing here allocates: every string is a fixed buffer whose size is the limit that the decoders in proto/
 * enforce, so a record can be copied with `=` and compared in a test. */
#ifndef LMO_BASE_TYPES_H
#define LMO_BASE_TYPES_H

#include <stdbool.h>
#include <stdint.h>

#define LMO_NAME_MAX 64          /* host, guest, volume, service, fabric names; including the terminator */
#define LMO_UUID_MAX 37          /* 36 characters and the terminator, lower case */
#define LMO_ID_MAX 27            /* ULID: 26 characters of Crockford base 32 and the terminator */
#define LMO_OP_ID_MAX 80         /* "<migration>.<epoch>.<ordinal>-<kind>" */
#define LMO_ADDRESS_MAX 64       /* "address:port" */
#define LMO_URL_MAX 256
#define LMO_PATH_MAX 1024
#define LMO_MAC_MAX 18
#define LMO_EXPORT_MAX 200       /* "<volume>.<host>.e<epoch>" */
#define LMO_TEXT_MAX 256         /* one sentence for a person */
#define LMO_VOLUMES_MAX 16       /* per guest */
#define LMO_PORTS_MAX 8          /* per guest */
#define LMO_LINKS_MAX 8          /* named links per host */
#define LMO_PAGE_SIZES_MAX 3     /* sizes of huge pages per host */
#define LMO_DIGEST_MAX 17        /* 16 hexadecimal digits and the terminator: same digest, same thing */
#define LMO_VCPUS_MAX 512        /* per guest; libvirt's practical ceiling on x86 */

/* How a guest stood when it was last observed. UNKNOWN is a real answer: nobody could be asked. */
enum lmo_run_state {
    LMO_RUN_UNKNOWN = 0,
    LMO_RUN_ABSENT,          /* the hypervisor answered, and has no such domain */
    LMO_RUN_SHUT_OFF,        /* defined, not running */
    LMO_RUN_RUNNING,         /* its vCPUs may execute */
    LMO_RUN_PAUSED_BY_USER,  /* suspended by its owner before the migration; stays so after it */
    LMO_RUN_PAUSED_MIGRATION,/* suspended at the source by the migration's switch-over */
    LMO_RUN_LOADED,          /* incoming migration complete at the destination, not running */
    LMO_RUN_INCOMING,        /* incoming migration under way */
    LMO_RUN_PAUSED_OTHER,    /* I/O error, watchdog, crashed ...: not to be resumed by us */
};
const char *lmo_run_state_name(enum lmo_run_state s);
enum lmo_run_state lmo_run_state_from_name(const char *s);

/* What keeps a guest from moving live, as its description says. */
enum {
    LMO_BLOCKER_DEVICE = 1,     /* a device of the host was passed through */
    LMO_BLOCKER_LOCAL_DISK = 2, /* a disk that only this host has */
    LMO_BLOCKER_HOST_BOUND = 4, /* another part that exists on this host only */
    LMO_BLOCKER_OTHER = 8,      /* the hypervisor says no for a reason of its own */
};
#define LMO_BLOCKERS_TEXT_MAX 64
/* "device local_disk": the stored and sent form of a set of LMO_BLOCKER_*. A word that is not known counts as OTHER. */
void lmo_blockers_text(uint32_t blockers, char ret[LMO_BLOCKERS_TEXT_MAX]);
uint32_t lmo_blockers_from_text(const char *text);

/* One virtual disk of a guest. */
struct lmo_volume {
    char volume[LMO_NAME_MAX];      /* its name at the volume service */
    char target[16];                /* the guest's device, "vda" */
    char driver[16];                /* "nbd"; "file" for a local disk */
    char service[LMO_ADDRESS_MAX];  /* address:port of the volume service */
    char export_name[LMO_EXPORT_MAX]; /* what the guest is attached through now (source) */
    char export_destination[LMO_EXPORT_MAX]; /* under this migration's epoch; empty before volume_attach */
    char worker[LMO_NAME_MAX];      /* host whose worker serves `service`; filled by the coordinator */
    char worker_url[LMO_URL_MAX];   /* and how it is reached; filled by the coordinator */
    uint64_t size_bytes;
    bool read_only;
};

/* One network port of a guest. */
struct lmo_port {
    char id[LMO_NAME_MAX];          /* the fabric's name of it; for OVN the logical port's name (a UUID) */
    char mac[LMO_MAC_MAX];          /* lower case, colons */
    char bridge[32];
    char device[32];                /* the host's interface, "vnet3"; observation only */
    char fabric[LMO_NAME_MAX];      /* as configured for the host's worker; empty: none */
    char worker[LMO_NAME_MAX];      /* host whose worker serves `fabric`; filled by the coordinator */
};

/* What is known of a guest from its live domain: filled by a hypervisor driver's `describe`. */
struct lmo_vm_facts {
    char uuid[LMO_UUID_MAX];
    char name[LMO_NAME_MAX];
    enum lmo_run_state state;
    bool persistent;                /* also defined, not only running */
    bool autostart;
    uint64_t memory_bytes;
    uint64_t huge_page_bytes;       /* size of the pages that back its memory; 0: ordinary ones */
    uint32_t vcpus;
    char machine[64];               /* "pc-q35-7.2" */
    char cpu[LMO_DIGEST_MAX];       /* of the CPU that it has, features included; empty: not said */
    uint64_t dirty_bytes_per_s;     /* memory that it wrote to, as measured last; means something with an age only */
    uint64_t dirty_age_ms;          /* of that measurement; 0: never measured */
    unsigned volume_count, port_count;
    struct lmo_volume volumes[LMO_VOLUMES_MAX];
    struct lmo_port ports[LMO_PORTS_MAX];
    char blocker[LMO_TEXT_MAX];     /* why it cannot move live at all; empty: nothing known */
    char blocker_kinds[LMO_BLOCKERS_TEXT_MAX]; /* of all that keeps it; empty where a worker does not say */
};

/* Progress of the running pre-copy, as sampled. All counters are of the whole job so far. */
struct lmo_progress {
    uint64_t total_bytes, transferred_bytes, remaining_bytes;
    uint64_t rate_bytes_per_s;      /* measured transfer rate */
    uint64_t dirty_bytes_per_s;     /* measured dirty rate; 0 until an iteration is complete */
    uint32_t iteration;             /* 1 is the first, longest pass */
    uint32_t throttle_percent;
    uint64_t downtime_limit_ms;     /* in force at the hypervisor now */
    uint64_t bandwidth_bytes_per_s; /* limit in force; 0: none */
    uint64_t elapsed_ms;
    /* Local disks that are copied; 0 where none are. */
    uint64_t disk_total_bytes, disk_transferred_bytes, disk_remaining_bytes, disk_rate_bytes_per_s;
};

#endif
