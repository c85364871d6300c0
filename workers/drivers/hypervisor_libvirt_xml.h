/* hypervisor_libvirt_xml.h - what a domain's XML says, and the rewrites it gets on its way to another host.
 *
 * Pure: text in, text or plain data out; no libvirt, no files. Every text that comes in is capped and parsed without
 * network access, external entities or DTDs. Only the libvirt hypervisor driver and its test use this. */
#ifndef LMO_WORKERS_HYPERVISOR_LIBVIRT_XML_H
#define LMO_WORKERS_HYPERVISOR_LIBVIRT_XML_H

#include "workers/drivers/driver.h"

#include <sys/types.h>

#define LMO_DOMXML_MAX       ((size_t)1 << 20) /* libvirt's own cap is 4 MiB, guests need some 10 KiB */
#define LMO_DOMXML_PATHS_MAX 16
#define LMO_DOMXML_PAGES_MAX 8

/* What a destination must judge before it accepts a domain. Texts are owned: lmo_domxml_incoming_done. */
struct lmo_domxml_incoming {
    char uuid[LMO_UUID_MAX];
    char name[LMO_NAME_MAX];
    char emulator[LMO_PATH_MAX];
    char arch[32];
    char machine[64];
    char virttype[16]; /* "kvm", "qemu" */
    char *cpu_xml;     /* the <cpu> element; NULL: none */
    uint64_t memory_bytes; /* all of it, huge pages included */
    unsigned page_count;   /* huge pages that it wants, by their size; none: ordinary memory */
    struct {
        uint64_t page_bytes; /* 0: the host's usual size */
        uint64_t bytes;      /* of the guest's memory in pages of that size */
    } pages[LMO_DOMXML_PAGES_MAX];
    unsigned path_count; /* files that the guest's serial devices and logs write on the host */
    char paths[LMO_DOMXML_PATHS_MAX][LMO_PATH_MAX];
};

/* libvirt's own status file of an active domain (RUNSTATEDIR/libvirt/qemu/NAME.xml). */
struct lmo_domxml_status {
    char uuid[LMO_UUID_MAX];
    char state[32], reason[48]; /* libvirt's words: "paused", "migration" */
    char async_job[32];         /* "migration out", "migration in", "none" */
    char phase[32];             /* "perform3" ...; empty: none */
    char monitor[108];          /* path of QEMU's monitor socket, as in sun_path; empty: none */
    pid_t pid;
    unsigned vcpus; /* online ones */
};

#define LMO_DOMXML_DEFAULT_HUGE_PAGE 1 /* huge_page_bytes: huge pages of the size that the host's kernel prefers */
/* Fills name, uuid, memory, vcpus, machine, volumes, ports and blocker; leaves state, persistent and autostart.
 * INVALID for what is no domain XML. A guest that cannot be described within our limits gets a blocker. */
int lmo_domxml_facts(const char *xml, struct lmo_vm_facts *ret_vm, struct lmo_err *err) LMO_MUST_CHECK;

/* *ret_xml (owned by the caller) = xml with the export name of each disk in `map` replaced, by target device.
 * With `strict`, INVALID if a target of the map is not an NBD disk of this domain; else such targets are skipped. */
int lmo_domxml_rewrite(const char *xml, const struct lmo_hv_disk_map *map, bool strict, char **ret_xml,
                       struct lmo_err *err) LMO_MUST_CHECK;

/* The export name of each NBD disk, by target. */
int lmo_domxml_exports(const char *xml, struct lmo_hv_disk_map *ret_map, struct lmo_err *err) LMO_MUST_CHECK;

int lmo_domxml_incoming(const char *xml, struct lmo_domxml_incoming *ret_in, struct lmo_err *err) LMO_MUST_CHECK;
void lmo_domxml_incoming_done(struct lmo_domxml_incoming *in);

int lmo_domxml_status(const char *xml, struct lmo_domxml_status *ret_status, struct lmo_err *err) LMO_MUST_CHECK;

/* What a shut-off guest of this definition keeps in files of its host: "NVRAM", "TPM state"; NULL: nothing. */
const char *lmo_domxml_local_state(const char *xml);

/* The volume's name inside an export's name "<volume>.<host>.e<epoch>", parsed from the right; any other name is
 * the volume's name as it is (cut to fit). */
void lmo_domxml_volume_of_export(const char *export_name, char ret_volume[LMO_NAME_MAX]);

#endif
