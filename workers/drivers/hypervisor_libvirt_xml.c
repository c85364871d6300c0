/* hypervisor_libvirt_xml.c - reading and rewriting domain XML with libxml2; see the header.
 *
 * Somewhat long: all of it stands on the few readers at its top. */
#include "workers/drivers/hypervisor_libvirt_xml.h"

#include "base/cleanup.h"
#include "base/id.h"

#include <ctype.h>
#include <inttypes.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>

static void cleanup_doc(xmlDoc **doc)
{
    if (*doc)
        xmlFreeDoc(*doc);
}
static void cleanup_xml_text(xmlChar **text)
{
    if (*text)
        xmlFree(*text);
}
#define AUTO_DOC  LMO_CLEANUP(cleanup_doc)
#define AUTO_TEXT LMO_CLEANUP(cleanup_xml_text)

static void parser_init(void)
{
    xmlInitParser();
}

static int parse(const char *xml, const char *root_name, xmlDoc **ret_doc, struct lmo_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, parser_init);

    size_t len = strnlen(xml, LMO_DOMXML_MAX + 1);
    if (len > LMO_DOMXML_MAX)
        return lmo_fail(err, LMO_E_TOO_LARGE, "domain XML: more than %zu bytes", LMO_DOMXML_MAX);
    xmlDoc *doc = xmlReadMemory(xml, (int)len, "domain.xml", NULL,
                                XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NOBLANKS);
    if (!doc)
        return lmo_fail(err, LMO_E_INVALID, "domain XML: not well-formed");
    xmlNode *root = xmlDocGetRootElement(doc);
    /* A document type could define entities that blow up; libvirt never writes one. */
    if (!root || doc->intSubset || strcmp((const char *)root->name, root_name) != 0) {
        xmlFreeDoc(doc);
        return lmo_fail(err, LMO_E_INVALID, "domain XML: the root must be <%s>, without a document type", root_name);
    }
    *ret_doc = doc;
    return 0;
}

static bool is(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, name) == 0;
}

/* First child element of that name; NULL-safe, so that paths can be chained. */
static xmlNode *child(const xmlNode *node, const char *name)
{
    for (xmlNode *c = node ? node->children : NULL; c; c = c->next)
        if (is(c, name))
            return c;
    return NULL;
}

/* Copies an attribute; false (and "") when it is absent or does not fit. */
static bool attr(const xmlNode *node, const char *name, char *ret, size_t size)
{
    AUTO_TEXT xmlChar *value = node ? xmlGetNoNsProp(node, (const xmlChar *)name) : NULL;
    ret[0] = '\0';
    if (!value || strlen((const char *)value) >= size)
        return false;
    memcpy(ret, value, strlen((const char *)value) + 1);
    return true;
}

static bool attr_is(const xmlNode *node, const char *name, const char *value)
{
    char text[32];
    return attr(node, name, text, sizeof text) && strcmp(text, value) == 0;
}

static bool content(const xmlNode *node, char *ret, size_t size)
{
    AUTO_TEXT xmlChar *value = node ? xmlNodeGetContent(node) : NULL;
    ret[0] = '\0';
    if (!value || strlen((const char *)value) >= size)
        return false;
    memcpy(ret, value, strlen((const char *)value) + 1);
    return true;
}

static bool number(const char *text, uint64_t max, uint64_t *ret)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    char *end = NULL;
    unsigned long long value = strtoull(text, &end, 10);
    while (isspace((unsigned char)*end))
        end++;
    if (*end || value > max)
        return false;
    *ret = value;
    return true;
}

/* The first reason stays: one sentence is for a person, and fixing it shows the next. The kinds are of all of them. */
static void LMO_PRINTF(3, 4) block(struct lmo_vm_facts *vm, uint32_t kind, const char *fmt, ...)
{
    lmo_blockers_text(lmo_blockers_from_text(vm->blocker_kinds) | kind, vm->blocker_kinds);
    if (vm->blocker[0])
        return;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(vm->blocker, sizeof vm->blocker, fmt, ap);
    va_end(ap);
}

/* A number in the unit that the node names. */
static uint64_t in_unit(const xmlNode *node, const char *text)
{
    char unit[16];
    uint64_t value = 0;
    if (!number(text, UINT64_MAX >> 30, &value))
        return 0;
    if (!attr(node, "unit", unit, sizeof unit) || strcmp(unit, "KiB") == 0 || strcmp(unit, "k") == 0)
        return value << 10;
    if (strcmp(unit, "MiB") == 0 || strcmp(unit, "M") == 0)
        return value << 20;
    if (strcmp(unit, "GiB") == 0 || strcmp(unit, "G") == 0)
        return value << 30;
    return strcmp(unit, "b") == 0 || strcmp(unit, "bytes") == 0 ? value : 0; /* libvirt itself writes KiB always */
}

static uint64_t memory_bytes(const xmlNode *domain)
{
    char text[32];
    const xmlNode *memory = child(domain, "memory");
    return content(memory, text, sizeof text) ? in_unit(memory, text) : 0;
}

static unsigned vcpu_count(const xmlNode *domain)
{
    char text[16];
    uint64_t value = 0;
    const xmlNode *vcpu = child(domain, "vcpu");
    if ((attr(vcpu, "current", text, sizeof text) || content(vcpu, text, sizeof text)) &&
        number(text, LMO_VCPUS_MAX, &value))
        return (unsigned)value;
    return 0;
}

void lmo_domxml_volume_of_export(const char *export_name, char ret_volume[LMO_NAME_MAX])
{
    size_t len = strlen(export_name), cut = len;
    const char *epoch = strrchr(export_name, '.');
    if (epoch && epoch > export_name && epoch[1] == 'e' && epoch[2] &&
        strspn(epoch + 2, "0123456789") == strlen(epoch + 2)) {
        const char *host = epoch - 1;
        while (host > export_name && *host != '.')
            host--;
        if (host > export_name && host + 1 < epoch)
            cut = (size_t)(host - export_name);
    }
    if (cut >= LMO_NAME_MAX)
        cut = LMO_NAME_MAX - 1;
    memcpy(ret_volume, export_name, cut);
    ret_volume[cut] = '\0';
}

static void nbd_source(const xmlNode *source, struct lmo_volume *v, struct lmo_vm_facts *vm)
{
    char host[LMO_ADDRESS_MAX], port[8], transport[16];
    const xmlNode *server = child(source, "host");
    (void)snprintf(v->driver, sizeof v->driver, "nbd");
    if (!attr(source, "name", v->export_name, sizeof v->export_name))
        block(vm, LMO_BLOCKER_OTHER, "disk %s has no export name, or one longer than %d characters", v->target, LMO_EXPORT_MAX - 1);
    lmo_domxml_volume_of_export(v->export_name, v->volume);
    if (attr(server, "transport", transport, sizeof transport) && strcmp(transport, "tcp") != 0) {
        block(vm, LMO_BLOCKER_HOST_BOUND, "disk %s is reached through a %s socket of this host", v->target, transport);
        return;
    }
    if (!attr(server, "port", port, sizeof port))
        (void)snprintf(port, sizeof port, "10809"); /* NBD's registered port, libvirt's default too */
    if (!attr(server, "name", host, sizeof host) || strlen(host) + strlen(port) + 4 > sizeof v->service) {
        block(vm, LMO_BLOCKER_OTHER, "disk %s names no volume service", v->target);
        return;
    }
    /* An IPv6 address needs brackets in front of a port. */
    int n = snprintf(v->service, sizeof v->service, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    if (n < 0 || (size_t)n >= sizeof v->service)
        v->service[0] = '\0';
}

static void read_disk(const xmlNode *disk, struct lmo_vm_facts *vm)
{
    char device[16] = "", type[16] = "", protocol[16] = "", path[LMO_PATH_MAX] = "";
    const xmlNode *source = child(disk, "source");
    bool removable, nbd;

    (void)attr(disk, "device", device, sizeof device);
    (void)attr(disk, "type", type, sizeof type);
    (void)attr(source, "protocol", protocol, sizeof protocol);
    removable = strcmp(device, "cdrom") == 0 || strcmp(device, "floppy") == 0;
    nbd = strcmp(type, "network") == 0 && strcmp(protocol, "nbd") == 0;
    if (removable && !nbd)
        return; /* read-only media are no volumes; libvirt looks for the file at the destination */
    if (vm->volume_count == LMO_VOLUMES_MAX) {
        block(vm, LMO_BLOCKER_OTHER, "more than %d disks", LMO_VOLUMES_MAX);
        return;
    }
    struct lmo_volume *v = &vm->volumes[vm->volume_count++];
    (void)attr(child(disk, "target"), "dev", v->target, sizeof v->target);
    v->read_only = child(disk, "readonly") != NULL || removable;
    if (child(disk, "transient"))
        block(vm, LMO_BLOCKER_LOCAL_DISK, "disk %s is transient: its changes live on this host alone", v->target);
    if (nbd) {
        nbd_source(source, v, vm);
        return;
    }
    bool network = strcmp(type, "network") == 0;
    (void)snprintf(v->driver, sizeof v->driver, "%s", network ? protocol : type[0] ? type : "file");
    if (!attr(source, "file", path, sizeof path) && !attr(source, "dev", path, sizeof path))
        (void)attr(source, "name", path, sizeof path);
    if (network)
        block(vm, LMO_BLOCKER_OTHER, "disk %s is attached by %s, which no volume driver here can fence", v->target, protocol);
    else if (!v->read_only)
        block(vm, LMO_BLOCKER_LOCAL_DISK, "disk %s is local to this host (%.120s)", v->target, path[0] ? path : type);
}

static void read_interface(const xmlNode *iface, struct lmo_vm_facts *vm)
{
    char type[16] = "";
    (void)attr(iface, "type", type, sizeof type);
    if (strcmp(type, "hostdev") == 0 || strcmp(type, "vdpa") == 0) {
        block(vm, LMO_BLOCKER_DEVICE, "a network interface is a device of this host (%s)", type);
        return;
    }
    if (vm->port_count == LMO_PORTS_MAX) {
        block(vm, LMO_BLOCKER_OTHER, "more than %d network interfaces", LMO_PORTS_MAX);
        return;
    }
    struct lmo_port *p = &vm->ports[vm->port_count++];
    (void)attr(child(iface, "mac"), "address", p->mac, sizeof p->mac);
    for (char *c = p->mac; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    (void)attr(child(iface, "source"), "bridge", p->bridge, sizeof p->bridge);
    (void)attr(child(iface, "target"), "dev", p->device, sizeof p->device);
    if (!attr(child(child(iface, "virtualport"), "parameters"), "interfaceid", p->id, sizeof p->id))
        memcpy(p->id, p->mac, sizeof p->mac); /* without a fabric the MAC is what tells ports apart */
}

static void read_other_device(const xmlNode *dev, struct lmo_vm_facts *vm)
{
    if (is(dev, "hostdev"))
        block(vm, LMO_BLOCKER_DEVICE, "a device of this host is passed through (hostdev)");
    else if (is(dev, "filesystem"))
        block(vm, LMO_BLOCKER_HOST_BOUND, "a directory of this host is shared with the guest (filesystem)");
    else if (is(dev, "shmem"))
        block(vm, LMO_BLOCKER_HOST_BOUND, "memory is shared with other guests of this host (shmem)");
    else if (is(dev, "memory") && (attr_is(dev, "model", "nvdimm") || attr_is(dev, "model", "virtio-pmem")))
        block(vm, LMO_BLOCKER_LOCAL_DISK, "a memory device is backed by a file of this host (nvdimm, pmem)");
    else if (is(dev, "tpm") && attr_is(child(dev, "backend"), "type", "passthrough"))
        block(vm, LMO_BLOCKER_DEVICE, "the TPM of this host is passed through");
}

/* Of the first size named; without one it is the host's default (see the header). 0: ordinary pages. */
static uint64_t huge_page_bytes(const xmlNode *domain)
{
    const xmlNode *huge = child(child(domain, "memoryBacking"), "hugepages"), *page = child(huge, "page");
    char size[32], unit[8] = "";
    uint64_t n = 0, scale = 1024;
    if (!huge)
        return 0;
    if (!page || !attr(page, "size", size, sizeof size) || !number(size, UINT64_C(1) << 30, &n) || n == 0)
        return LMO_DOMXML_DEFAULT_HUGE_PAGE;
    (void)attr(page, "unit", unit, sizeof unit);
    scale = unit[0] == 'M' ? 1024 * 1024 : unit[0] == 'G' ? 1024 * 1024 * 1024 : scale;
    return n * scale;
}

int lmo_domxml_facts(const char *xml, struct lmo_vm_facts *ret_vm, struct lmo_err *err)
{
    AUTO_DOC xmlDoc *doc = NULL;
    int r = parse(xml, "domain", &doc, err);
    if (r < 0)
        return r;
    const xmlNode *domain = xmlDocGetRootElement(doc);
    struct lmo_vm_facts vm = {.state = ret_vm->state, .persistent = ret_vm->persistent, .autostart = ret_vm->autostart};
    char uuid[64];

    if (!content(child(domain, "uuid"), uuid, sizeof uuid) || lmo_uuid_normalise(uuid, vm.uuid) < 0)
        return lmo_fail(err, LMO_E_INVALID, "domain XML: <uuid> is missing or no UUID");
    if (!content(child(domain, "name"), vm.name, sizeof vm.name))
        return lmo_fail(err, LMO_E_INVALID, "domain XML: <name> is missing or longer than %d", LMO_NAME_MAX - 1);
    if (!lmo_name_valid(vm.name))
        block(&vm, LMO_BLOCKER_OTHER, "the guest's name has characters other than letters, digits, '.', '_' and '-'");
    vm.memory_bytes = memory_bytes(domain);
    vm.huge_page_bytes = huge_page_bytes(domain);
    vm.vcpus = vcpu_count(domain);
    if (vm.vcpus == 0)
        block(&vm, LMO_BLOCKER_OTHER, "more than %d vCPUs", LMO_VCPUS_MAX);
    (void)attr(child(child(domain, "os"), "type"), "machine", vm.machine, sizeof vm.machine);
    if (child(domain, "launchSecurity"))
        block(&vm, LMO_BLOCKER_HOST_BOUND, "its memory is encrypted by this host's processor (launchSecurity)");

    const xmlNode *devices = child(domain, "devices");
    for (const xmlNode *dev = devices ? devices->children : NULL; dev; dev = dev->next) {
        if (is(dev, "disk"))
            read_disk(dev, &vm);
        else if (is(dev, "interface"))
            read_interface(dev, &vm);
        else
            read_other_device(dev, &vm);
    }
    *ret_vm = vm;
    return 0;
}

const char *lmo_domxml_local_state(const char *xml)
{
    AUTO_DOC xmlDoc *doc = NULL;
    struct lmo_err ignored;
    if (parse(xml, "domain", &doc, &ignored) < 0)
        return NULL;
    const xmlNode *domain = xmlDocGetRootElement(doc);
    if (child(child(domain, "os"), "nvram"))
        return "NVRAM";
    const xmlNode *devices = child(domain, "devices");
    for (const xmlNode *dev = devices ? devices->children : NULL; dev; dev = dev->next)
        if (is(dev, "tpm") && attr_is(child(dev, "backend"), "type", "emulator"))
            return "TPM state";
    return NULL;
}

/* The <source> of an NBD disk and its target; NULL for any other node. */
static xmlNode *nbd_disk(const xmlNode *dev, char *ret_target, size_t size)
{
    xmlNode *source = is(dev, "disk") ? child(dev, "source") : NULL;
    if (!source || !attr_is(dev, "type", "network") || !attr_is(source, "protocol", "nbd") ||
        !attr(child(dev, "target"), "dev", ret_target, size))
        return NULL;
    return source;
}

static int rewrite_one(xmlNode *devices, const char *target, const char *export_name, bool strict, struct lmo_err *err)
{
    for (xmlNode *dev = devices ? devices->children : NULL; dev; dev = dev->next) {
        char found[16];
        xmlNode *source = nbd_disk(dev, found, sizeof found);
        if (!source || strcmp(found, target) != 0)
            continue;
        if (!xmlSetProp(source, (const xmlChar *)"name", (const xmlChar *)export_name))
            return lmo_fail(err, LMO_E_NO_MEMORY, "domain XML: out of memory");
        return 0;
    }
    if (strict)
        return lmo_fail(err, LMO_E_INVALID, "disk '%s': the guest has no NBD disk of that target", target);
    return 0;
}

int lmo_domxml_rewrite(const char *xml, const struct lmo_hv_disk_map *map, bool strict, char **ret_xml,
                       struct lmo_err *err)
{
    AUTO_DOC xmlDoc *doc = NULL;
    int r = parse(xml, "domain", &doc, err);
    if (r < 0)
        return r;
    xmlNode *devices = child(xmlDocGetRootElement(doc), "devices");
    for (unsigned i = 0; i < map->count && i < LMO_VOLUMES_MAX; i++) {
        r = rewrite_one(devices, map->disk[i].target, map->disk[i].export_name, strict, err);
        if (r < 0)
            return r;
    }
    AUTO_TEXT xmlChar *text = NULL;
    int len = 0;
    xmlDocDumpMemory(doc, &text, &len);
    char *copy = text ? strdup((const char *)text) : NULL; /* the caller frees with free(), not xmlFree() */
    if (!copy)
        return lmo_fail(err, LMO_E_NO_MEMORY, "domain XML: out of memory");
    *ret_xml = copy;
    return 0;
}

int lmo_domxml_exports(const char *xml, struct lmo_hv_disk_map *ret_map, struct lmo_err *err)
{
    AUTO_DOC xmlDoc *doc = NULL;
    int r = parse(xml, "domain", &doc, err);
    if (r < 0)
        return r;
    struct lmo_hv_disk_map map = {0};
    xmlNode *devices = child(xmlDocGetRootElement(doc), "devices");
    for (xmlNode *dev = devices ? devices->children : NULL; dev; dev = dev->next) {
        char target[16];
        const xmlNode *source = nbd_disk(dev, target, sizeof target);
        if (!source)
            continue;
        if (map.count == LMO_VOLUMES_MAX)
            return lmo_fail(err, LMO_E_TOO_LARGE, "domain XML: more than %d disks", LMO_VOLUMES_MAX);
        if (!attr(source, "name", map.disk[map.count].export_name, sizeof map.disk[0].export_name))
            return lmo_fail(err, LMO_E_INVALID, "disk '%s': no export name, or one that is too long", target);
        memcpy(map.disk[map.count++].target, target, sizeof target);
    }
    *ret_map = map;
    return 0;
}

/* Files that QEMU or libvirt's log daemon will create on the host for this device. */
static void read_paths(const xmlNode *dev, struct lmo_domxml_incoming *in)
{
    const char *const kinds[] = {"serial", "console", "parallel", "channel"};
    const xmlNode *files[2] = {NULL, child(dev, "log")};
    bool wanted = false;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        wanted = wanted || is(dev, kinds[i]);
    if (!wanted)
        return;
    if (attr_is(dev, "type", "file"))
        files[0] = child(dev, "source");
    for (size_t i = 0; i < 2; i++) {
        const char *name = i == 0 ? "path" : "file";
        if (files[i] && in->path_count < LMO_DOMXML_PATHS_MAX &&
            attr(files[i], name, in->paths[in->path_count], LMO_PATH_MAX) && in->paths[in->path_count][0] == '/')
            in->path_count++;
    }
}

/* Is `id` in libvirt's set, "0-2,^1,5"? What comes later counts more. */
static bool in_set(const char *set, uint64_t id)
{
    bool in = false;
    while (*set) {
        bool exclude = *set == '^';
        char *end = NULL;
        unsigned long long from = strtoull(set + exclude, &end, 10), to = from;
        if (*end == '-')
            to = strtoull(end + 1, &end, 10);
        if (end > set + exclude && id >= from && id <= to)
            in = !exclude;
        set = end + strcspn(end, ",");
        set += *set == ',';
    }
    return in;
}

/* Which pages a NUMA cell of the guest lies in: those that name it, else those that name none. COUNT: ordinary ones. */
static unsigned pages_of_cell(const xmlNode *hugepages, const char *cell)
{
    unsigned index = 0, found = LMO_DOMXML_PAGES_MAX;
    uint64_t id = 0;
    bool numbered = number(cell, UINT32_MAX, &id);
    for (const xmlNode *page = hugepages->children; page; page = page->next) {
        char set[256];
        if (!is(page, "page"))
            continue;
        bool named = attr(page, "nodeset", set, sizeof set);
        if (named && numbered && in_set(set, id))
            return index;
        if (!named && found == LMO_DOMXML_PAGES_MAX)
            found = index;
        index++;
    }
    return index == 0 ? 0 : found; /* no <page> at all: the host's usual ones, for everything */
}

/* How much of the guest's memory lies in huge pages of which size (libvirt: formatdomain, memory backing). */
static int read_pages(const xmlNode *domain, struct lmo_domxml_incoming *in, struct lmo_err *err)
{
    const xmlNode *hugepages = child(child(domain, "memoryBacking"), "hugepages");
    const xmlNode *numa = child(child(domain, "cpu"), "numa");
    uint64_t left = in->memory_bytes;
    char text[32], id[16];
    if (!hugepages)
        return 0;
    for (const xmlNode *page = hugepages->children; page; page = page->next) {
        if (!is(page, "page"))
            continue;
        if (in->page_count == LMO_DOMXML_PAGES_MAX || !attr(page, "size", text, sizeof text) ||
            (in->pages[in->page_count].page_bytes = in_unit(page, text)) < 1024)
            return lmo_fail(err, LMO_E_INVALID, "domain XML: huge pages of no size, or of more than %d sizes",
                            LMO_DOMXML_PAGES_MAX);
        in->page_count++;
    }
    in->page_count += in->page_count == 0;
    for (const xmlNode *cell = numa ? numa->children : NULL; cell; cell = cell->next) {
        if (!is(cell, "cell") || !attr(cell, "memory", text, sizeof text))
            continue;
        uint64_t bytes = in_unit(cell, text);
        unsigned index = pages_of_cell(hugepages, attr(cell, "id", id, sizeof id) ? id : "");
        bytes = bytes < left ? bytes : left;
        left -= bytes;
        if (index < in->page_count)
            in->pages[index].bytes += bytes;
    }
    /* Without cells all of the memory is cell 0's; with cells what is left was plugged in later. */
    unsigned rest = pages_of_cell(hugepages, numa ? "" : "0");
    if (rest < in->page_count)
        in->pages[rest].bytes += left;
    return 0;
}

int lmo_domxml_incoming(const char *xml, struct lmo_domxml_incoming *ret_in, struct lmo_err *err)
{
    AUTO_DOC xmlDoc *doc = NULL;
    int r = parse(xml, "domain", &doc, err);
    if (r < 0)
        return r;
    xmlNode *domain = xmlDocGetRootElement(doc), *devices = child(domain, "devices"), *cpu = child(domain, "cpu");
    struct lmo_domxml_incoming in = {0};
    char uuid[64];
    if (!content(child(domain, "uuid"), uuid, sizeof uuid) || lmo_uuid_normalise(uuid, in.uuid) < 0 ||
        !content(child(domain, "name"), in.name, sizeof in.name))
        return lmo_fail(err, LMO_E_INVALID, "domain XML: <uuid> or <name> is missing or malformed");
    const xmlNode *type = child(child(domain, "os"), "type");
    (void)attr(domain, "type", in.virttype, sizeof in.virttype);
    (void)attr(type, "arch", in.arch, sizeof in.arch);
    (void)attr(type, "machine", in.machine, sizeof in.machine);
    (void)content(child(devices, "emulator"), in.emulator, sizeof in.emulator);
    in.memory_bytes = memory_bytes(domain);
    r = read_pages(domain, &in, err);
    if (r < 0)
        return r;
    for (const xmlNode *dev = devices ? devices->children : NULL; dev; dev = dev->next)
        read_paths(dev, &in);
    if (cpu) {
        xmlBuffer *buffer = xmlBufferCreate();
        if (buffer && xmlNodeDump(buffer, doc, cpu, 0, 0) > 0)
            in.cpu_xml = strdup((const char *)xmlBufferContent(buffer));
        if (buffer)
            xmlBufferFree(buffer);
        if (!in.cpu_xml)
            return lmo_fail(err, LMO_E_NO_MEMORY, "domain XML: out of memory");
    }
    *ret_in = in;
    return 0;
}

void lmo_domxml_incoming_done(struct lmo_domxml_incoming *in)
{
    free(in->cpu_xml);
    in->cpu_xml = NULL;
}

int lmo_domxml_status(const char *xml, struct lmo_domxml_status *ret_status, struct lmo_err *err)
{
    AUTO_DOC xmlDoc *doc = NULL;
    int r = parse(xml, "domstatus", &doc, err);
    if (r < 0)
        return r;
    const xmlNode *root = xmlDocGetRootElement(doc), *job = child(root, "job"), *domain = child(root, "domain");
    struct lmo_domxml_status st = {0};
    char uuid[64], pid[16];
    uint64_t value = 0;
    if (!content(child(domain, "uuid"), uuid, sizeof uuid) || lmo_uuid_normalise(uuid, st.uuid) < 0)
        return lmo_fail(err, LMO_E_INVALID, "domain status: no UUID");
    if (!attr(root, "pid", pid, sizeof pid) || !number(pid, INT32_MAX, &value) || value < 2)
        return lmo_fail(err, LMO_E_INVALID, "domain status: no process id");
    st.pid = (pid_t)value;
    st.vcpus = vcpu_count(domain);
    (void)attr(child(root, "monitor"), "path", st.monitor, sizeof st.monitor);
    (void)attr(root, "state", st.state, sizeof st.state);
    (void)attr(root, "reason", st.reason, sizeof st.reason);
    if (!attr(job, "async", st.async_job, sizeof st.async_job))
        memcpy(st.async_job, "none", 5);
    (void)attr(job, "phase", st.phase, sizeof st.phase);
    *ret_status = st;
    return 0;
}
