/* hypervisor_libvirt_inventory.c - observing: guests, their state, their XML.
 *
 * "Loaded" is the driver's own knowledge. libvirt calls a guest that is complete at the destination "paused (user)",
 * like one that its owner paused; what tells them apart is that this very QEMU process came in by migration and was
 * never seen to run. The driver remembers that in memory and, across its own restart, in a marker in state_dir (process
 * id and start time). If the marker is missing the guest is reported as paused by its owner; if it was resumed and
 * paused again while no watch was there to see it, it is reported as loaded. */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/clock.h"
#include "base/id.h"
#include "workers/host.h"

#include <string.h>

/* ------------------------------------------------------------------ run state */

/* Facts about an active, paused domain that libvirt's state does not tell. */
static void incoming_facts(struct lmo_lv *lv, const char *uuid, const char *name, bool *ret_incoming, bool *ret_job_in)
{
    struct lmo_domxml_status st = {0};
    struct lmo_qemu q = LMO_QEMU_NONE;
    bool known = false;
    *ret_job_in = name && lmo_lv_read_status(name, &st, NULL) == 0 && strcmp(st.async_job, "migration in") == 0;
    pthread_mutex_lock(&lv->lock);
    struct lmo_lv_guest *g = *ret_job_in ? lmo_lv_guest_get(lv, uuid, name) : lmo_lv_guest_find(lv, uuid);
    if (g && *ret_job_in && !g->incoming) {
        /* It began while this driver was not there to see it (a worker that was restarted during pre-copy). From here
         * on its events mean what they would have meant: the next pause is the end of the load. */
        g->incoming = true;
        lmo_lv_chore_add(lv, LMO_LV_CHORE_MARK, uuid);
    }
    known = g && g->incoming;
    pthread_mutex_unlock(&lv->lock);
    *ret_incoming = known;
    if (!known && st.pid && lmo_qemu_pin(st.pid, uuid, st.vcpus, "", &q, NULL) == 0) {
        *ret_incoming = lmo_lv_marker_matches(lv, uuid, q.pid, q.start_ticks);
        lmo_qemu_unpin(&q);
    }
}

int lmo_lv_observe_state(struct lmo_lv *lv, virDomainPtr dom, const char *uuid, enum lmo_run_state *ret_state,
                         struct lmo_err *err)
{
    int state = 0, reason = 0;
    bool incoming = false, job_in = false;
    if (virDomainGetState(dom, &state, &reason, 0) < 0)
        return lmo_lv_fail(err, false, "asking for the domain's state");
    switch ((virDomainState)state) {
    case VIR_DOMAIN_RUNNING:
    case VIR_DOMAIN_BLOCKED:
    case VIR_DOMAIN_SHUTDOWN: /* being shut down: its vCPUs may still execute */ *ret_state = LMO_RUN_RUNNING; return 0;
    case VIR_DOMAIN_SHUTOFF: *ret_state = LMO_RUN_SHUT_OFF; return 0;
    case VIR_DOMAIN_PAUSED: break;
    case VIR_DOMAIN_NOSTATE:
    case VIR_DOMAIN_CRASHED:
    case VIR_DOMAIN_PMSUSPENDED:
    default: *ret_state = LMO_RUN_PAUSED_OTHER; return 0;
    }
    incoming_facts(lv, uuid, virDomainGetName(dom), &incoming, &job_in);
    /* While it comes in, the reason is another one: "user" is libvirt's word for the end of the load, which it says a
     * little before its own job ends. Whoever looks in between must not be told "incoming": no event follows. */
    if (reason == VIR_DOMAIN_PAUSED_USER)
        *ret_state = incoming || job_in ? LMO_RUN_LOADED : LMO_RUN_PAUSED_BY_USER;
    else if (job_in)
        *ret_state = LMO_RUN_INCOMING;
    else if (reason == VIR_DOMAIN_PAUSED_MIGRATION || reason == VIR_DOMAIN_PAUSED_STARTING_UP)
        *ret_state = incoming ? LMO_RUN_INCOMING : LMO_RUN_PAUSED_MIGRATION;
    else
        *ret_state = LMO_RUN_PAUSED_OTHER;
    return 0;
}

static int run_state(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    int r = lmo_lv_domain(op->lv, LMO_LV_LANE_STATE, op->uuid, &dom, err);
    if (r == LMO_E_NOT_FOUND) {
        op->state = LMO_RUN_ABSENT;
        return 0;
    }
    return r < 0 ? r : lmo_lv_observe_state(op->lv, dom, op->uuid, &op->state, err);
}

int lmo_lv_state(struct lmo_hypervisor *hv, const char *uuid, enum lmo_run_state *ret_state, uint64_t timeout_ms,
                 struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_state, uuid);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    int r = lmo_lv_op_call(op, timeout_ms, err);
    if (r == 0)
        *ret_state = op->state;
    return r;
}

/* ------------------------------------------------------------------ facts */

static void add_blocker(struct lmo_vm_facts *vm, uint32_t kind, const char *text)
{
    lmo_blockers_text(lmo_blockers_from_text(vm->blocker_kinds) | kind, vm->blocker_kinds);
    if (!vm->blocker[0])
        (void)snprintf(vm->blocker, sizeof vm->blocker, "%s", text);
}

/* A live migration carries these with it; the definition of a guest that is shut off does not. */
static void block_what_stays(virDomainPtr dom, const char *xml, struct lmo_vm_facts *vm)
{
    const char *file = lmo_domxml_local_state(xml);
    if (file) {
        char text[LMO_TEXT_MAX];
        (void)snprintf(text, sizeof text, "it is shut off and its %s lies on this host; start it, then it can move live",
                       file);
        add_blocker(vm, LMO_BLOCKER_LOCAL_DISK, text);
    }
    if (virDomainHasManagedSaveImage(dom, 0) != 0)
        add_blocker(vm, LMO_BLOCKER_LOCAL_DISK, "it has a saved state on this host; start it, then it can move live");
}

static int facts_of(struct lmo_lv *lv, virDomainPtr dom, struct lmo_vm_facts *ret, struct lmo_err *err)
{
    char uuid[VIR_UUID_STRING_BUFLEN];
    struct lmo_vm_facts vm = {0};
    int autostart = 0, r;
    if (virDomainGetUUIDString(dom, uuid) < 0)
        return lmo_lv_fail(err, false, "reading the domain's UUID");
    LMO_AUTO_FREE char *xml = virDomainGetXMLDesc(dom, 0);
    if (!xml)
        return lmo_lv_fail(err, false, "reading the domain's XML");
    r = lmo_domxml_facts(xml, &vm, err);
    if (r == 0)
        r = lmo_lv_observe_state(lv, dom, uuid, &vm.state, err);
    if (r < 0)
        return r;
    int persistent = virDomainIsPersistent(dom);
    if (persistent < 0 || (persistent == 1 && virDomainGetAutostart(dom, &autostart) < 0))
        return lmo_lv_fail(err, false, "asking whether the domain is persistent");
    vm.persistent = persistent == 1;
    vm.autostart = autostart == 1;
    if (vm.huge_page_bytes == LMO_DOMXML_DEFAULT_HUGE_PAGE)
        vm.huge_page_bytes = lmo_host_default_huge_page("");
    int snapshots = virDomainSnapshotNum(dom, 0);
    if (snapshots > 0)
        add_blocker(&vm, LMO_BLOCKER_OTHER, "it has libvirt snapshots, which cannot move with it");
    if (vm.state == LMO_RUN_SHUT_OFF)
        block_what_stays(dom, xml, &vm);
    if (vm.state == LMO_RUN_PAUSED_OTHER)
        add_blocker(&vm, LMO_BLOCKER_OTHER, "it is neither running nor paused by its owner (I/O error, crashed, suspended by itself ...)");
    *ret = vm;
    return 0;
}

static int run_describe(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_CONN virConnectPtr conn = NULL;
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    char uuid[LMO_UUID_MAX];
    int r = lmo_lv_lane_get(op->lv, LMO_LV_LANE_ORDERS, &conn, err);
    if (r < 0)
        return r;
    if (lmo_uuid_normalise(op->vm, uuid) == 0)
        dom = virDomainLookupByUUIDString(conn, uuid);
    else
        dom = virDomainLookupByName(conn, op->vm);
    if (!dom)
        return lmo_lv_fail(err, false, "looking the domain up");
    op->facts = calloc(1, sizeof *op->facts);
    if (!op->facts)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    return facts_of(op->lv, dom, op->facts, err);
}

int lmo_lv_facts(struct lmo_hypervisor *hv, const char *vm, struct lmo_vm_facts *ret_vm, uint64_t timeout_ms,
                 struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_describe, NULL);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    if (strlen(vm) >= sizeof op->vm)
        return lmo_fail(err, LMO_E_INVALID, "guest '%.80s': longer than %d characters", vm, LMO_NAME_MAX - 1);
    memcpy(op->vm, vm, strlen(vm) + 1);
    int r = lmo_lv_op_call(op, timeout_ms, err);
    if (r == 0)
        *ret_vm = *op->facts;
    return r;
}

int lmo_lv_describe(struct lmo_hypervisor *hv, const char *vm, struct lmo_vm_facts *ret_vm, uint64_t timeout_ms,
                    struct lmo_err *err)
{
    int r = lmo_lv_facts(hv, vm, ret_vm, timeout_ms, err);
    if (r == 0)
        lmo_lv_dirty_facts((struct lmo_lv *)hv, ret_vm);
    return r;
}

static void free_domains(virDomainPtr *doms, int count)
{
    for (int i = 0; i < count; i++)
        (void)virDomainFree(doms[i]);
    free(doms);
}

static int run_list(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_CONN virConnectPtr conn = NULL;
    virDomainPtr *doms = NULL;
    int r = lmo_lv_lane_get(op->lv, LMO_LV_LANE_ORDERS, &conn, err);
    if (r < 0)
        return r;
    int count = virConnectListAllDomains(conn, &doms, 0);
    if (count < 0)
        return lmo_lv_fail(err, false, "listing domains");
    op->facts = calloc(count > 0 ? (size_t)count : 1, sizeof *op->facts);
    if (!op->facts)
        r = lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    for (int i = 0; r == 0 && i < count; i++) {
        int one = facts_of(op->lv, doms[i], &op->facts[op->count], err);
        if (one == 0)
            op->count++;
        else if (one != LMO_E_NOT_FOUND && one != LMO_E_INVALID) /* gone meanwhile; or none that we could name */
            r = one;
    }
    free_domains(doms, count);
    return r;
}

int lmo_lv_list(struct lmo_hypervisor *hv, int (*cb)(void *arg, const struct lmo_vm_facts *vm), void *arg,
                uint64_t timeout_ms, struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_list, NULL);
    if (!op)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    int r = lmo_lv_op_call(op, timeout_ms, err);
    for (unsigned i = 0; r == 0 && i < op->count; i++) {
        lmo_lv_dirty_facts((struct lmo_lv *)hv, &op->facts[i]);
        if (cb(arg, &op->facts[i]) != 0)
            break;
    }
    return r;
}

static int run_outgoing_xml(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    int r = lmo_lv_domain(op->lv, LMO_LV_LANE_ORDERS, op->uuid, &dom, err);
    if (r < 0)
        return r;
    int active = virDomainIsActive(dom);
    if (active < 0)
        return lmo_lv_fail(err, false, "asking whether the domain is active");
    LMO_AUTO_FREE char *xml = virDomainGetXMLDesc(
        dom, VIR_DOMAIN_XML_SECURE | (active ? VIR_DOMAIN_XML_MIGRATABLE : VIR_DOMAIN_XML_INACTIVE));
    if (!xml)
        return lmo_lv_fail(err, false, "reading the domain's XML");
    return lmo_domxml_rewrite(xml, op->map, true, &op->result_text, err);
}

int lmo_lv_outgoing_xml(struct lmo_hypervisor *hv, const char *uuid, const struct lmo_hv_disk_map *map, char **ret_xml,
                        uint64_t timeout_ms, struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_outgoing_xml, uuid);
    if (!op || !(op->map = malloc(sizeof *op->map)))
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    *op->map = *map;
    int r = lmo_lv_op_call(op, timeout_ms, err);
    if (r == 0)
        *ret_xml = LMO_TAKE(op->result_text);
    return r;
}
