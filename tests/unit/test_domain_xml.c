/* test_domain_xml.c - what the libvirt driver reads from and writes into domain XML, and from libvirt's domain log. */
#include "workers/drivers/hypervisor_libvirt_log.h"
#include "workers/drivers/hypervisor_libvirt_memory.h"
#include "workers/drivers/hypervisor_libvirt_xml.h"

#include "suites.h"
#include "tmpdir.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UUID "b50c0942-baa0-58fa-a1c7-2ec258d8c339"
#define HEAD                                                                             \
    "<domain type='qemu' id='1'><name>g1</name><uuid>" UUID "</uuid>"                    \
    "<memory unit='KiB'>262144</memory><currentMemory unit='KiB'>131072</currentMemory>" \
    "<vcpu placement='static' current='2'>4</vcpu>"                                      \
    "<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>"                       \
    "<cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu>"     \
    "<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>"
#define TAIL "</devices></domain>"
#define NBD(export, target, extra)                                                                       \
    "<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none'/>"                   \
    "<source protocol='nbd' name='" export "' index='1'><host name='10.77.0.10' port='10810'/></source>" \
                                           "<target dev='" target "' bus='virtio'/>" extra "</disk>"
#define PORT                                                                                                         \
    "<interface type='bridge'><mac address='52:54:00:AB:4c:59'/><source bridge='br-int'/>"                           \
    "<virtualport type='openvswitch'><parameters interfaceid='5b000a63-d6dc-571e-adf9-c90cb5c6f671'/></virtualport>" \
    "<target dev='vnet0'/></interface>"

static struct lmo_vm_facts facts(const char *xml)
{
    struct lmo_vm_facts vm = {0};
    struct lmo_err err = {0};
    ck_assert_msg(lmo_domxml_facts(xml, &vm, &err) == 0, "%s", err.text);
    return vm;
}

static void assert_blocked(const char *device, const char *word)
{
    char xml[4096];
    (void)snprintf(xml, sizeof xml, "%s%s%s", HEAD, device, TAIL);
    struct lmo_vm_facts vm = facts(xml);
    ck_assert_msg(strstr(vm.blocker, word) != NULL, "blocker '%s' does not say '%s'", vm.blocker, word);
}

START_TEST(pages_that_back_the_memory__are_found)
{
    static const struct {
        const char *backing;
        uint64_t bytes;
    } cases[] = {
        {"", 0},
        {"<memoryBacking><locked/></memoryBacking>", 0},
        {"<memoryBacking><hugepages/></memoryBacking>", LMO_DOMXML_DEFAULT_HUGE_PAGE},
        {"<memoryBacking><hugepages><page size='2048' unit='KiB'/></hugepages></memoryBacking>", UINT64_C(2) << 20},
        {"<memoryBacking><hugepages><page size='1' unit='G' nodeset='0'/></hugepages></memoryBacking>", UINT64_C(1) << 30},
        {"<memoryBacking><hugepages><page size='2' unit='MiB'/></hugepages></memoryBacking>", UINT64_C(2) << 20},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char xml[4096];
        (void)snprintf(xml, sizeof xml, "%s%s%s%s", HEAD, TAIL, "", "");
        char *end = strstr(xml, "<devices>");
        (void)snprintf(end, sizeof xml - (size_t)(end - xml), "%s<devices>%s", cases[i].backing, TAIL);
        ck_assert_uint_eq(facts(xml).huge_page_bytes, cases[i].bytes);
    }
}
END_TEST

START_TEST(live_domain__volumes_ports_and_sizes_are_found)
{
    struct lmo_vm_facts vm = facts(HEAD NBD("g1-d0.hv1.e7", "vda", "") PORT TAIL);
    ck_assert_str_eq(vm.uuid, UUID);
    ck_assert_str_eq(vm.name, "g1");
    ck_assert_uint_eq(vm.memory_bytes, 262144u * 1024u);
    ck_assert_uint_eq(vm.vcpus, 2);
    ck_assert_str_eq(vm.machine, "pc-q35-7.2");
    ck_assert_uint_eq(vm.volume_count, 1);
    ck_assert_str_eq(vm.volumes[0].volume, "g1-d0");
    ck_assert_str_eq(vm.volumes[0].target, "vda");
    ck_assert_str_eq(vm.volumes[0].driver, "nbd");
    ck_assert_str_eq(vm.volumes[0].service, "10.77.0.10:10810");
    ck_assert_str_eq(vm.volumes[0].export_name, "g1-d0.hv1.e7");
    ck_assert(!vm.volumes[0].read_only);
    ck_assert_uint_eq(vm.port_count, 1);
    ck_assert_str_eq(vm.ports[0].id, "5b000a63-d6dc-571e-adf9-c90cb5c6f671");
    ck_assert_str_eq(vm.ports[0].mac, "52:54:00:ab:4c:59");
    ck_assert_str_eq(vm.ports[0].bridge, "br-int");
    ck_assert_str_eq(vm.ports[0].device, "vnet0");
    ck_assert_str_eq(vm.blocker, "");
}
END_TEST

START_TEST(port_without_fabric__is_named_by_its_mac)
{
    struct lmo_vm_facts vm = facts(HEAD "<interface type='bridge'><mac address='52:54:00:00:00:01'/></interface>" TAIL);
    ck_assert_str_eq(vm.ports[0].id, "52:54:00:00:00:01");
}
END_TEST

START_TEST(nbd_disk_without_port__gets_the_registered_one)
{
    struct lmo_vm_facts vm = facts(HEAD "<disk type='network' device='disk'><source protocol='nbd' name='v'>"
                                        "<host name='fd00::1'/></source><target dev='vdb'/><readonly/></disk>" TAIL);
    ck_assert_str_eq(vm.volumes[0].service, "[fd00::1]:10809");
    ck_assert(vm.volumes[0].read_only);
}
END_TEST

START_TEST(volume_name__is_cut_from_the_right)
{
    const struct {
        const char *export_name, *volume;
    } rows[] = {
        {"v1.hv1.e1", "v1"},        {"a.b.c.hv1.e12", "a.b.c"},
        {"plain", "plain"},         {"v1.hv1", "v1.hv1"},
        {"v1.hv1.ex", "v1.hv1.ex"}, {"v1.hv1.e", "v1.hv1.e"},
        {".hv1.e1", ".hv1.e1"},     {"v1..e1", "v1..e1"},
        {"v1.e1", "v1.e1"},         {"", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char volume[LMO_NAME_MAX];
        lmo_domxml_volume_of_export(rows[i].export_name, volume);
        ck_assert_str_eq(volume, rows[i].volume);
    }
}
END_TEST

START_TEST(volume_name__that_is_too_long_is_cut_to_fit)
{
    char longest[LMO_EXPORT_MAX], volume[LMO_NAME_MAX];
    memset(longest, 'v', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    lmo_domxml_volume_of_export(longest, volume);
    ck_assert_uint_eq(strlen(volume), LMO_NAME_MAX - 1);
}
END_TEST

START_TEST(what_belongs_to_this_host__blocks_the_move)
{
    assert_blocked("<hostdev mode='subsystem' type='pci'/>", "hostdev");
    assert_blocked("<disk type='file' device='disk'><source file='/var/d.img'/><target dev='vda'/></disk>",
                   "/var/d.img");
    assert_blocked("<disk type='block' device='lun'><source dev='/dev/sdb'/><target dev='sda'/></disk>", "/dev/sdb");
    assert_blocked("<disk type='network' device='disk'><source protocol='iscsi' name='iqn'/><target dev='vda'/></disk>",
                   "iscsi");
    assert_blocked("<filesystem type='mount'><driver type='virtiofs'/></filesystem>", "filesystem");
    assert_blocked("<shmem name='s'/>", "shmem");
    assert_blocked("<memory model='nvdimm'/>", "nvdimm");
    assert_blocked("<tpm model='tpm-crb'><backend type='passthrough'/></tpm>", "TPM");
    assert_blocked("<interface type='hostdev'/>", "network interface");
    assert_blocked("<disk type='network' device='disk'><source protocol='nbd' name='v.h.e1'>"
                   "<host transport='unix' socket='/run/s'/></source><target dev='vda'/></disk>",
                   "socket of this host");
    assert_blocked(NBD("v.h.e1", "vda", "<transient/>"), "transient");
}
END_TEST

START_TEST(kinds_of_all_that_blocks__are_told_although_one_sentence_is)
{
    struct lmo_vm_facts vm = facts(HEAD "<hostdev mode='subsystem' type='pci'/><disk type='file' device='disk'><source file='/d'/>"
                                        "<target dev='vda'/></disk><filesystem type='mount'/>" TAIL);
    ck_assert_ptr_nonnull(strstr(vm.blocker, "passed through"));
    ck_assert_str_eq(vm.blocker_kinds, "device local_disk host_bound");
    ck_assert_uint_eq(lmo_blockers_from_text(vm.blocker_kinds), LMO_BLOCKER_DEVICE | LMO_BLOCKER_LOCAL_DISK | LMO_BLOCKER_HOST_BOUND);
    vm = facts(HEAD PORT TAIL);
    ck_assert_str_eq(vm.blocker_kinds, "");
    ck_assert_uint_eq(lmo_blockers_from_text("device something_new"), LMO_BLOCKER_DEVICE | LMO_BLOCKER_OTHER);
}
END_TEST

START_TEST(removable_or_read_only_local_media__do_not_block)
{
    struct lmo_vm_facts vm = facts(
        HEAD "<disk type='file' device='cdrom'><source file='/i.iso'/><target dev='sda'/><readonly/></disk>"
             "<disk type='file' device='disk'><source file='/ro.img'/><target dev='vdb'/><readonly/></disk>" TAIL);
    ck_assert_str_eq(vm.blocker, "");
    ck_assert_uint_eq(vm.volume_count, 1);
    ck_assert_str_eq(vm.volumes[0].driver, "file");
    ck_assert(vm.volumes[0].read_only);
}
END_TEST

START_TEST(more_disks_than_we_can_name__block_and_do_not_overflow)
{
    char xml[65536] = HEAD;
    for (int i = 0; i < LMO_VOLUMES_MAX + 4; i++)
        (void)strcat(xml, NBD("v.h.e1", "vda", ""));
    for (int i = 0; i < LMO_PORTS_MAX + 4; i++)
        (void)strcat(xml, PORT);
    (void)strcat(xml, TAIL);
    struct lmo_vm_facts vm = facts(xml);
    ck_assert_uint_eq(vm.volume_count, LMO_VOLUMES_MAX);
    ck_assert_uint_eq(vm.port_count, LMO_PORTS_MAX);
    ck_assert_str_ne(vm.blocker, "");
}
END_TEST

START_TEST(malformed_xml__is_invalid_and_touches_nothing)
{
    const char *const bad[] = {
        "",
        "<",
        "<domain>",
        "<network/>",
        "<domain/>",
        "<domain><uuid>x</uuid></domain>",
        "<domain><uuid>" UUID "</uuid></domain>",
        "<!DOCTYPE domain [<!ENTITY a 'b'>]>" HEAD TAIL,
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct lmo_vm_facts vm = {.vcpus = 77};
        struct lmo_err err = {0};
        ck_assert_int_eq(lmo_domxml_facts(bad[i], &vm, &err), LMO_E_INVALID);
        ck_assert_uint_eq(vm.vcpus, 77);
        ck_assert_str_ne(err.text, "");
    }
}
END_TEST

START_TEST(oversized_xml__is_refused_before_it_is_parsed)
{
    char *xml = malloc(LMO_DOMXML_MAX + 2);
    struct lmo_vm_facts vm = {0};
    ck_assert_ptr_nonnull(xml);
    memset(xml, ' ', LMO_DOMXML_MAX + 1);
    xml[LMO_DOMXML_MAX + 1] = '\0';
    ck_assert_int_eq(lmo_domxml_facts(xml, &vm, NULL), LMO_E_TOO_LARGE);
    free(xml);
}
END_TEST

START_TEST(rewrite__changes_the_named_exports_and_nothing_else)
{
    const char *xml = HEAD NBD("a.hv1.e1", "vda", "") NBD("b.hv1.e1", "vdb", "") PORT TAIL;
    struct lmo_hv_disk_map map = {.count = 1, .disk = {{"vdb", "b.hv2.e2"}}}, now;
    char *out = NULL;
    struct lmo_err err = {0};
    ck_assert_msg(lmo_domxml_rewrite(xml, &map, true, &out, &err) == 0, "%s", err.text);
    ck_assert_int_eq(lmo_domxml_exports(out, &now, &err), 0);
    ck_assert_uint_eq(now.count, 2);
    ck_assert_str_eq(now.disk[0].export_name, "a.hv1.e1");
    ck_assert_str_eq(now.disk[1].export_name, "b.hv2.e2");
    struct lmo_vm_facts before = facts(xml), after = facts(out);
    (void)snprintf(before.volumes[1].export_name, LMO_EXPORT_MAX, "b.hv2.e2");
    ck_assert_mem_eq(&before.ports, &after.ports, sizeof before.ports);
    ck_assert_str_eq(after.volumes[1].export_name, before.volumes[1].export_name);
    ck_assert_uint_eq(before.memory_bytes, after.memory_bytes);
    free(out);
}
END_TEST

START_TEST(rewrite__of_a_disk_that_is_not_there_is_an_error_only_when_strict)
{
    struct lmo_hv_disk_map map = {.count = 1, .disk = {{"vdz", "z.hv2.e2"}}};
    char *out = NULL;
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_domxml_rewrite(HEAD NBD("a.hv1.e1", "vda", "") TAIL, &map, true, &out, &err), LMO_E_INVALID);
    ck_assert_ptr_null(out);
    ck_assert_ptr_nonnull(strstr(err.text, "vdz"));
    ck_assert_int_eq(lmo_domxml_rewrite(HEAD NBD("a.hv1.e1", "vda", "") TAIL, &map, false, &out, &err), 0);
    free(out);
}
END_TEST

START_TEST(rewrite__escapes_what_it_inserts)
{
    struct lmo_hv_disk_map map = {.count = 1, .disk = {{"vda", "a'/><evil x='\"&<"}}}, now;
    char *out = NULL;
    ck_assert_int_eq(lmo_domxml_rewrite(HEAD NBD("a.hv1.e1", "vda", "") TAIL, &map, true, &out, NULL), 0);
    ck_assert_int_eq(lmo_domxml_exports(out, &now, NULL), 0);
    ck_assert_str_eq(now.disk[0].export_name, "a'/><evil x='\"&<");
    ck_assert_ptr_null(strstr(out, "<evil"));
    free(out);
}
END_TEST

START_TEST(incoming__has_what_a_destination_must_judge)
{
    struct lmo_domxml_incoming in = {0};
    ck_assert_int_eq(
        lmo_domxml_incoming(HEAD "<serial type='file'><source path='/var/log/x/g1.log'/></serial>"
                                 "<console type='pty'><source path='/dev/pts/3'/><log file='/srv/l'/></console>" TAIL,
                            &in, NULL),
        0);
    ck_assert_str_eq(in.uuid, UUID);
    ck_assert_str_eq(in.virttype, "qemu");
    ck_assert_str_eq(in.arch, "x86_64");
    ck_assert_str_eq(in.emulator, "/usr/bin/qemu-system-x86_64");
    ck_assert_ptr_nonnull(strstr(in.cpu_xml, "qemu64"));
    ck_assert_uint_eq(in.path_count, 2);
    ck_assert_str_eq(in.paths[0], "/var/log/x/g1.log");
    ck_assert_str_eq(in.paths[1], "/srv/l");
    lmo_domxml_incoming_done(&in);
}
END_TEST

#define MIB ((uint64_t)1 << 20)
#define HUGE(pages) "<memoryBacking><hugepages>" pages "</hugepages></memoryBacking>"
#define CELLS                                                         \
    "<numa><cell id='0' cpus='0' memory='65536' unit='KiB'/>"         \
    "<cell id='1' cpus='1' memory='128' unit='MiB'/></numa>"

static struct lmo_domxml_incoming with_pages(const char *backing, const char *numa)
{
    struct lmo_domxml_incoming in = {0};
    struct lmo_err err = {0};
    char xml[2048];
    (void)snprintf(xml, sizeof xml,
                   "<domain type='kvm'><name>g1</name><uuid>" UUID "</uuid><memory unit='KiB'>262144</memory>%s"
                   "<os><type arch='x86_64' machine='q35'>hvm</type></os><cpu>%s</cpu><devices/></domain>",
                   backing, numa);
    ck_assert_msg(lmo_domxml_incoming(xml, &in, &err) == 0, "%s", err.text);
    lmo_domxml_incoming_done(&in);
    return in;
}

/* 256 MiB; where there are cells, they are of 64 and 128 MiB and 64 were plugged in. */
START_TEST(huge_pages__are_counted_by_size_and_cell)
{
    static const struct {
        const char *backing, *numa;
        unsigned count;
        struct {
            uint64_t kib, mib;
        } expected[2];
    } cases[] = {
        {"", "", 0, {{0, 0}}},
        {"<memoryBacking><nosharepages/></memoryBacking>", CELLS, 0, {{0, 0}}},
        {"<memoryBacking><hugepages/></memoryBacking>", "", 1, {{0, 256}}},
        {"<memoryBacking><hugepages/></memoryBacking>", CELLS, 1, {{0, 256}}},
        {HUGE("<page size='2048' unit='KiB'/>"), "", 1, {{2048, 256}}},
        {HUGE("<page size='1' unit='G'/>"), CELLS, 1, {{1048576, 256}}},
        {HUGE("<page size='2048' nodeset='0'/>"), "", 1, {{2048, 256}}},
        {HUGE("<page size='2048' nodeset='1'/>"), CELLS, 1, {{2048, 128}}},
        {HUGE("<page size='1' unit='GiB' nodeset='0-3,^1'/><page size='2' unit='MiB'/>"), CELLS, 2,
         {{1048576, 64}, {2048, 192}}},
        {HUGE("<page size='2' unit='MiB' nodeset='0'/><page size='2' unit='MiB' nodeset='1'/>"), CELLS, 2,
         {{2048, 64}, {2048, 128}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_domxml_incoming in = with_pages(cases[i].backing, cases[i].numa);
        ck_assert_msg(in.page_count == cases[i].count, "%zu: %u sizes", i, in.page_count);
        for (unsigned k = 0; k < in.page_count; k++) {
            ck_assert_msg(in.pages[k].page_bytes == cases[i].expected[k].kib << 10, "%zu.%u: size", i, k);
            ck_assert_msg(in.pages[k].bytes == cases[i].expected[k].mib * MIB, "%zu.%u: %llu bytes", i, k,
                          (unsigned long long)in.pages[k].bytes);
        }
    }
    struct lmo_domxml_incoming in = {0};
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_domxml_incoming("<domain><name>g1</name><uuid>" UUID "</uuid>" HUGE("<page/>") "</domain>", &in,
                                         &err),
                     LMO_E_INVALID);
}
END_TEST

static void put(const char *dir, const char *name, const char *text)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "we");
    ck_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

START_TEST(memory_of_this_host__is_compared_by_kind_and_named_with_numbers)
{
    static const struct {
        const char *backing, *numa, *expected; /* NULL: it fits */
    } cases[] = {
        {"", "", "memory: the guest needs 256 MiB and QEMU some 128 MiB more; this host has 200 MiB available"},
        {HUGE("<page size='2' unit='MiB'/>"), "", NULL}, /* 128 pages, and only 128 MiB of ordinary memory */
        {"<memoryBacking><hugepages/></memoryBacking>", "", NULL},
        {HUGE("<page size='1' unit='GiB'/>"), "",
         "hugepages: the guest needs 1 of 1048576 KiB; this host has 0 available (3 free, 3 of them reserved)"},
        {HUGE("<page size='64' unit='KiB'/>"), "",
         "hugepages: the guest needs 4096 of 64 KiB; this host has none of that size"},
        {HUGE("<page size='2' unit='MiB' nodeset='1'/>"), CELLS,
         "memory: the guest needs 128 MiB and QEMU some 128 MiB more; this host has 200 MiB available"},
        {HUGE("<page size='2' unit='MiB' nodeset='0'/><page size='3' unit='MiB'/>"), CELLS,
         "hugepages: the guest needs 64 of 3072 KiB; this host has none of that size"},
    };
    char dir[TMPDIR_MAX], command[512];
    tmpdir_make(dir, "memory");
    (void)snprintf(command, sizeof command,
                   "cd '%s' && mkdir -p proc sys/kernel/mm/hugepages/hugepages-2048kB "
                   "sys/kernel/mm/hugepages/hugepages-1048576kB",
                   dir);
    ck_assert_int_eq(system(command), 0);
    put(dir, "proc/meminfo", "MemTotal:  999999 kB\nMemAvailable:   204800 kB\nHugepagesize:       2048 kB\n");
    put(dir, "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "130\n");
    put(dir, "sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "2\n");
    put(dir, "sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "3\n");
    put(dir, "sys/kernel/mm/hugepages/hugepages-1048576kB/resv_hugepages", "3\n");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lmo_domxml_incoming in = with_pages(cases[i].backing, cases[i].numa);
        struct lmo_err err = {0};
        int r = lmo_memory_check(dir, &in, &err);
        ck_assert_msg(r == (cases[i].expected ? LMO_E_REFUSED : 0), "%zu: %d %s", i, r, err.text);
        if (cases[i].expected)
            ck_assert_str_eq(err.text, cases[i].expected);
    }
    put(dir, "sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "3\n");
    struct lmo_domxml_incoming in = with_pages(cases[1].backing, "");
    struct lmo_err err = {0};
    ck_assert_int_eq(lmo_memory_check(dir, &in, &err), LMO_E_REFUSED);
    ck_assert_str_eq(err.text, "hugepages: the guest needs 128 of 2048 KiB; this host has 127 available "
                               "(130 free, 3 of them reserved)");
    tmpdir_remove(dir);
}
END_TEST

START_TEST(status_file__tells_process_monitor_and_job)
{
    struct lmo_domxml_status st = {0};
    const char *xml = "<!-- generated --><domstatus state='paused' reason='migration' pid='90'>"
                      "<monitor path='/var/lib/libvirt/qemu/domain-1-g1/monitor.sock' type='unix'/>"
                      "<job type='none' async='migration out' phase='perform3'/>" HEAD TAIL "</domstatus>";
    ck_assert_int_eq(lmo_domxml_status(xml, &st, NULL), 0);
    ck_assert_int_eq(st.pid, 90);
    ck_assert_uint_eq(st.vcpus, 2);
    ck_assert_str_eq(st.state, "paused");
    ck_assert_str_eq(st.reason, "migration");
    ck_assert_str_eq(st.async_job, "migration out");
    ck_assert_str_eq(st.monitor, "/var/lib/libvirt/qemu/domain-1-g1/monitor.sock");
    ck_assert_str_eq(st.uuid, UUID);
}
END_TEST

START_TEST(status_file__without_a_process_is_refused)
{
    struct lmo_domxml_status st = {.pid = 5};
    const char *const pids[] = {"", "pid='0'", "pid='1'", "pid='-4'", "pid='99999999999'", "pid='x'"};
    for (size_t i = 0; i < sizeof pids / sizeof pids[0]; i++) {
        char xml[2048];
        (void)snprintf(xml, sizeof xml, "<domstatus state='running' %s>%s%s</domstatus>", pids[i], HEAD, TAIL);
        ck_assert_int_eq(lmo_domxml_status(xml, &st, NULL), LMO_E_INVALID);
        ck_assert_int_eq(st.pid, 5);
    }
}
END_TEST

/* ------------------------------------------------------------------ libvirt's log of a domain */

#define AT "2026-11-20 13:41:58.540+0000: "

static bool migrated(const char *text)
{
    return lmo_domlog_text_migrated(text, strlen(text));
}

START_TEST(domain_log__says_migrated_only_in_libvirts_own_line)
{
    ck_assert(migrated(AT "shutting down, reason=migrated\n"));
    ck_assert(migrated("noise\n" AT "shutting down, reason=migrated\n2026-11-20T13:42:05.1Z qemu: terminating\n"));
    ck_assert(!migrated(""));
    ck_assert(!migrated(AT "shutting down, reason=destroyed\n"));
    ck_assert(!migrated(AT "shutting down, reason=migrated")); /* torn */
    ck_assert(!migrated(AT "shutting down, reason=migrated twice\n"));
    ck_assert(!migrated("shutting down, reason=migrated\n"));
    ck_assert(!migrated("2026-11-20T13:41:58.540+0000: shutting down, reason=migrated\n")); /* QEMU's stamp */
    ck_assert(!migrated("x" AT "shutting down, reason=migrated\n"));
}
END_TEST

START_TEST(domain_log__last_word_counts)
{
    ck_assert(!migrated(AT "shutting down, reason=migrated\n" AT "starting up libvirt version: 9.0.0\n"));
    ck_assert(!migrated(AT "shutting down, reason=migrated\n" AT "shutting down, reason=crashed\n"));
    ck_assert(migrated(AT "starting up libvirt version: 9.0.0\n" AT "shutting down, reason=migrated\n"));
}
END_TEST

START_TEST(domain_log__counts_only_what_came_after_the_mark)
{
    char path[] = "/tmp/lmo-domlog-XXXXXX";
    const char line[] = AT "shutting down, reason=migrated\n";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert(write(fd, line, sizeof line - 1) == (ssize_t)sizeof line - 1);
    struct lmo_domlog_mark mark = lmo_domlog_mark(path), none = {0};
    ck_assert(mark.valid);
    ck_assert(!lmo_domlog_migrated(path, &mark));
    ck_assert(!lmo_domlog_migrated(path, &none));
    ck_assert(write(fd, line, sizeof line - 1) == (ssize_t)sizeof line - 1);
    ck_assert(lmo_domlog_migrated(path, &mark));
    mark.inode++; /* rotated */
    ck_assert(!lmo_domlog_migrated(path, &mark));
    (void)close(fd);
    (void)unlink(path);
    ck_assert(!lmo_domlog_mark(path).valid);
}
END_TEST

START_TEST(files_of_a_shut_off_guest_that_would_stay_behind__are_named)
{
    ck_assert_ptr_null(lmo_domxml_local_state("<domain><os/><devices/></domain>"));
    ck_assert_str_eq(lmo_domxml_local_state("<domain><os><nvram>/var/x</nvram></os></domain>"), "NVRAM");
    ck_assert_str_eq(
        lmo_domxml_local_state("<domain><devices><tpm><backend type='emulator'/></tpm></devices></domain>"),
        "TPM state");
    ck_assert_ptr_null(
        lmo_domxml_local_state("<domain><devices><tpm><backend type='passthrough'/></tpm></devices></domain>"));
}
END_TEST

Suite *domain_xml_suite(void)
{
    Suite *s = suite_create("domain_xml");
    TCase *t = tcase_create("xml");
    tcase_add_test(t, live_domain__volumes_ports_and_sizes_are_found);
    tcase_add_test(t, pages_that_back_the_memory__are_found);
    tcase_add_test(t, port_without_fabric__is_named_by_its_mac);
    tcase_add_test(t, nbd_disk_without_port__gets_the_registered_one);
    tcase_add_test(t, volume_name__is_cut_from_the_right);
    tcase_add_test(t, volume_name__that_is_too_long_is_cut_to_fit);
    tcase_add_test(t, what_belongs_to_this_host__blocks_the_move);
    tcase_add_test(t, kinds_of_all_that_blocks__are_told_although_one_sentence_is);
    tcase_add_test(t, removable_or_read_only_local_media__do_not_block);
    tcase_add_test(t, more_disks_than_we_can_name__block_and_do_not_overflow);
    tcase_add_test(t, malformed_xml__is_invalid_and_touches_nothing);
    tcase_add_test(t, oversized_xml__is_refused_before_it_is_parsed);
    tcase_add_test(t, rewrite__changes_the_named_exports_and_nothing_else);
    tcase_add_test(t, rewrite__of_a_disk_that_is_not_there_is_an_error_only_when_strict);
    tcase_add_test(t, rewrite__escapes_what_it_inserts);
    tcase_add_test(t, incoming__has_what_a_destination_must_judge);
    tcase_add_test(t, huge_pages__are_counted_by_size_and_cell);
    tcase_add_test(t, memory_of_this_host__is_compared_by_kind_and_named_with_numbers);
    tcase_add_test(t, status_file__tells_process_monitor_and_job);
    tcase_add_test(t, status_file__without_a_process_is_refused);
    tcase_add_test(t, domain_log__says_migrated_only_in_libvirts_own_line);
    tcase_add_test(t, domain_log__last_word_counts);
    tcase_add_test(t, domain_log__counts_only_what_came_after_the_mark);
    tcase_add_test(t, files_of_a_shut_off_guest_that_would_stay_behind__are_named);
    suite_add_tcase(s, t);
    return s;
}
