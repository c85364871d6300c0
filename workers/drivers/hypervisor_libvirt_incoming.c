/* hypervisor_libvirt_incoming.c - the destination before the migration: would this guest be accepted, what does it
 * need, and how is that undone. */
#include "workers/drivers/hypervisor_libvirt.h"
#include "workers/drivers/hypervisor_libvirt_memory.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MADE_MAX 65536

/* ------------------------------------------------------------------ precheck */

static int check_absent(virConnectPtr conn, const struct lmo_domxml_incoming *in, struct lmo_err *err)
{
    LMO_LV_AUTO_DOMAIN virDomainPtr same = virDomainLookupByUUIDString(conn, in->uuid);
    if (!same && virGetLastErrorCode() != VIR_ERR_NO_DOMAIN)
        return lmo_lv_fail(err, false, "looking for a domain of that UUID");
    if (same) {
        bool active = virDomainIsActive(same) == 1;
        return lmo_fail(err, LMO_E_REFUSED, "uuid: this host %s",
                        active ? "already has an active domain of that UUID"
                               : "has a shut-off definition of that UUID, left over from earlier; undefine it first");
    }
    LMO_LV_AUTO_DOMAIN virDomainPtr named = virDomainLookupByName(conn, in->name);
    if (named)
        return lmo_fail(err, LMO_E_REFUSED, "name: another domain here has the name '%s'", in->name);
    if (virGetLastErrorCode() != VIR_ERR_NO_DOMAIN)
        return lmo_lv_fail(err, false, "looking for a domain of that name");
    return 0;
}

static int check_cpu(virConnectPtr conn, const struct lmo_domxml_incoming *in, struct lmo_err *err)
{
    if (!in->cpu_xml)
        return 0;
    int result = virConnectCompareHypervisorCPU(conn, in->emulator[0] ? in->emulator : NULL, in->arch, in->machine,
                                                in->virttype, in->cpu_xml, VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE);
    if (result == VIR_CPU_COMPARE_IDENTICAL || result == VIR_CPU_COMPARE_SUPERSET)
        return 0;
    const virError *e = virGetLastError();
    if (e && (e->code == VIR_ERR_NO_SUPPORT || e->code == VIR_ERR_OPERATION_UNSUPPORTED ||
              e->code == VIR_ERR_CONFIG_UNSUPPORTED)) {
        lmo_log(LMO_LOG_INFO, "this hypervisor cannot compare CPUs", "guest=%s reason=%s", in->name, e->message);
        return 0; /* libvirt checks again when it starts the incoming QEMU, and refuses there */
    }
    return lmo_fail(err, LMO_E_REFUSED, "cpu: this host cannot give the guest's CPU: %s",
                    e && e->message ? e->message : "incompatible");
}

static int check_machine(virConnectPtr conn, const struct lmo_domxml_incoming *in, struct lmo_err *err)
{
    LMO_AUTO_FREE char *caps = virConnectGetDomainCapabilities(conn, in->emulator[0] ? in->emulator : NULL, in->arch,
                                                               in->machine, in->virttype, 0);
    if (caps)
        return 0;
    const virError *e = virGetLastError();
    int r = lmo_lv_fail(err, false, "machine");
    return r == LMO_E_UNAVAILABLE ? r
                                  : lmo_fail(err, LMO_E_REFUSED, "machine: this host has no %s machine '%s': %s",
                                             in->virttype, in->machine, e && e->message ? e->message : "refused");
}

/* libvirt goes through all that it does before it starts QEMU: parsing, defaults, capabilities of the emulator. */
static int check_translates(virConnectPtr conn, const char *xml, struct lmo_err *err)
{
    LMO_AUTO_FREE char *line = virConnectDomainXMLToNative(conn, "qemu-argv", xml, 0);
    if (line)
        return 0;
    const virError *e = virGetLastError();
    int r = lmo_lv_fail(err, false, "domain");
    return r == LMO_E_UNAVAILABLE ? r
                                  : lmo_fail(err, LMO_E_REFUSED, "domain: this host's libvirt does not accept it: %s",
                                             e && e->message ? e->message : "refused");
}

static int run_precheck(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_CONN virConnectPtr conn = NULL;
    struct lmo_domxml_incoming in = {0};
    int r = lmo_domxml_incoming(op->text, &in, err);
    if (r == 0 && op->uuid[0] && strcmp(op->uuid, in.uuid) != 0)
        r = lmo_fail(err, LMO_E_INVALID, "uuid: the domain XML is of another guest (%s)", in.uuid);
    if (r == 0)
        r = lmo_lv_lane_get(op->lv, LMO_LV_LANE_ORDERS, &conn, err);
    if (r == 0)
        r = check_absent(conn, &in, err);
    if (r == 0)
        r = check_machine(conn, &in, err);
    if (r == 0)
        r = check_cpu(conn, &in, err);
    if (op->number > in.memory_bytes)
        in.memory_bytes = op->number;
    if (r == 0 && !op->flag)
        r = lmo_memory_check("", &in, err);
    if (r == 0)
        r = check_translates(conn, op->text, err);
    lmo_domxml_incoming_done(&in);
    return r;
}

int lmo_lv_precheck_incoming(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                             struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_precheck, in->uuid);
    if (!op || !(op->text = strdup(in->domain_xml)))
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    op->number = in->memory_bytes;
    op->flag = in->shut_off;
    return lmo_lv_op_call(op, timeout_ms, err);
}

/* ------------------------------------------------------------------ prepare, and its undo */

static void made_path(const struct lmo_lv *lv, const char *uuid, char *ret, size_t size)
{
    (void)snprintf(ret, size, "%.900s/prepared-%s", lv->state_dir, uuid);
}

/* Adds to the list of what we made, durably, BEFORE it is made: a crash in between lists too much, and removing an
 * empty directory that was there before costs nothing (a non-empty one is never removed). */
static int note_made(const char *list_path, const char *dir, struct lmo_err *err)
{
    LMO_AUTO_FREE char *old = NULL;
    char *text = NULL;
    size_t len = 0;
    int r = lmo_fs_read_file(list_path, MADE_MAX, &old, &len, NULL);
    if (r < 0 && r != LMO_E_NOT_FOUND)
        return lmo_fail(err, r, "%s cannot be read", list_path);
    int n = asprintf(&text, "%s%s\n", old ? old : "", dir);
    if (n < 0)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    r = lmo_fs_write_atomic(list_path, text, (size_t)n, 0600, err);
    free(text);
    return r;
}

/* Makes the missing directories above `path`, noting each; nearest to the root first. */
static int make_parents(const char *list_path, const char *path, struct lmo_err *err)
{
    char dir[LMO_PATH_MAX];
    struct stat st;
    (void)snprintf(dir, sizeof dir, "%s", path);
    for (char *slash = strchr(dir + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (stat(dir, &st) < 0) {
            int r = note_made(list_path, dir, err);
            if (r < 0)
                return r;
            if (mkdir(dir, 0755) < 0 && errno != EEXIST)
                return lmo_fail(err, LMO_E_IO, "directory %s: %s", dir, strerror(errno));
        } else if (!S_ISDIR(st.st_mode)) {
            return lmo_fail(err, LMO_E_REFUSED, "%s is in the way of %s: not a directory", dir, path);
        }
        *slash = '/';
    }
    return 0;
}

static int run_prepare(struct lmo_lv_op *op, struct lmo_err *err)
{
    struct lmo_domxml_incoming in = {0};
    char list[LMO_PATH_MAX];
    int r = lmo_domxml_incoming(op->text, &in, err);
    made_path(op->lv, op->uuid, list, sizeof list);
    for (unsigned i = 0; r == 0 && i < in.path_count; i++)
        r = make_parents(list, in.paths[i], err);
    lmo_domxml_incoming_done(&in);
    return r;
}

int lmo_lv_prepare_incoming(struct lmo_hypervisor *hv, const struct lmo_hv_incoming *in, uint64_t timeout_ms,
                            struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_prepare, in->uuid);
    if (!op || !(op->text = strdup(in->domain_xml)))
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    return lmo_lv_op_call(op, timeout_ms, err);
}

/* Deepest first; whatever is not empty any more belongs to somebody else by now. */
static void remove_made(const char *list_path)
{
    LMO_AUTO_FREE char *text = NULL;
    size_t len = 0;
    if (lmo_fs_read_file(list_path, MADE_MAX, &text, &len, NULL) < 0)
        return;
    while (len > 0) {
        if (text[len - 1] == '\n')
            text[--len] = '\0';
        char *line = strrchr(text, '\n');
        line = line ? line + 1 : text;
        if (*line && rmdir(line) < 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST)
            lmo_log(LMO_LOG_WARN, "prepared directory not removed", "path=%s reason=%s", line, strerror(errno));
        len = (size_t)(line - text);
        text[len] = '\0';
    }
    (void)unlink(list_path);
}

static int run_discard(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    enum lmo_run_state state = LMO_RUN_UNKNOWN;
    char list[LMO_PATH_MAX];
    int r = lmo_lv_domain(op->lv, LMO_LV_LANE_ORDERS, op->uuid, &dom, err);
    if (r < 0 && r != LMO_E_NOT_FOUND)
        return r;
    if (r == 0) {
        r = lmo_lv_observe_state(op->lv, dom, op->uuid, &state, err);
        if (r < 0)
            return r;
        if (state != LMO_RUN_INCOMING && state != LMO_RUN_SHUT_OFF)
            return lmo_fail(err, LMO_E_REFUSED, "the guest is %s here, not merely incoming", lmo_run_state_name(state));
        r = lmo_lv_op_in_time(op, err);
        if (r < 0)
            return r;
        /* Ends the stream, so the source's job fails and its guest goes on: what a discard is for. */
        if (state == LMO_RUN_INCOMING && virDomainDestroy(dom) < 0 && virGetLastErrorCode() != VIR_ERR_NO_DOMAIN &&
            virGetLastErrorCode() != VIR_ERR_OPERATION_INVALID) /* it has ended meanwhile */
            return lmo_lv_fail(err, true, "destroying the incoming domain");
    }
    made_path(op->lv, op->uuid, list, sizeof list);
    remove_made(list);
    return 0;
}

int lmo_lv_discard_prepared(struct lmo_hypervisor *hv, const char *uuid, uint64_t timeout_ms, struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_discard, uuid);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    return lmo_lv_op_call(op, timeout_ms, err);
}
