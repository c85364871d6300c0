/* hypervisor_libvirt_offline.c - a shut-off guest's definition: taken away here, made there.
 *
 * Nothing runs, so there is nothing to freeze; what must hold is that the guest is defined on one host at most, and
 * that nobody starts it while it is on its way. libvirt has no lock for that, but its undefine is one: what is not
 * defined cannot be started. A guest that was started in the moment before loses its definition only, and gets it
 * back. */
#include "workers/drivers/hypervisor_libvirt.h"

#include "base/log.h"

#include <string.h>

/* ------------------------------------------------------------------ release */

/* It was started before its definition went: it runs on, and is what it was again. */
static int give_back(struct lmo_lv_op *op, virDomainPtr dom, struct lmo_err *err)
{
    int persistent = virDomainIsPersistent(dom);
    if (persistent < 0)
        return lmo_lv_fail(err, true, "asking whether the domain is persistent");
    if (persistent == 0) {
        virDomainPtr defined = virDomainDefineXMLFlags(virDomainGetConnect(dom), op->text, 0);
        if (!defined)
            return lmo_lv_fail(err, true, "defining the running domain again");
        if (op->flag && virDomainSetAutostart(defined, 1) < 0)
            lmo_log(LMO_LOG_WARN, "autostart could not be set again", "guest=%s", op->uuid);
        (void)virDomainFree(defined);
    }
    return lmo_fail(err, LMO_E_CONFLICT, "the guest was started here meanwhile, and runs on");
}

static int run_release(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL, after = NULL;
    int r = lmo_lv_domain(op->lv, LMO_LV_LANE_ORDERS, op->uuid, &dom, err);
    if (r == LMO_E_NOT_FOUND)
        return 0;
    if (r < 0)
        return r;
    int active = virDomainIsActive(dom);
    if (active < 0)
        return lmo_lv_fail(err, false, "asking whether the domain is active");
    if (active == 1)
        return give_back(op, dom, err);
    r = lmo_lv_op_in_time(op, err);
    if (r < 0)
        return r;
    /* Without the flags that would also delete a saved state, snapshots or NVRAM: libvirt refuses then, and so do we. */
    if (virDomainUndefineFlags(dom, VIR_DOMAIN_UNDEFINE_KEEP_NVRAM) < 0 && virGetLastErrorCode() != VIR_ERR_NO_DOMAIN)
        return lmo_lv_fail(err, true, "undefining the domain");
    r = lmo_lv_domain(op->lv, LMO_LV_LANE_ORDERS, op->uuid, &after, err);
    if (r == LMO_E_NOT_FOUND)
        return 0;
    return r < 0 ? r : give_back(op, after, err);
}

int lmo_lv_release(struct lmo_hypervisor *hv, const char *uuid, const char *xml, bool autostart, uint64_t timeout_ms,
                   struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_release, uuid);
    if (!op || !(op->text = strdup(xml)))
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    op->flag = autostart;
    return lmo_lv_op_call(op, timeout_ms, err);
}

/* ------------------------------------------------------------------ define */

static int run_define(struct lmo_lv_op *op, struct lmo_err *err)
{
    LMO_LV_AUTO_CONN virConnectPtr conn = NULL;
    LMO_LV_AUTO_DOMAIN virDomainPtr dom = NULL;
    LMO_AUTO_FREE char *xml = NULL;
    struct lmo_vm_facts facts = {0};
    int r = lmo_domxml_facts(op->text, &facts, err);
    if (r == 0 && strcmp(facts.uuid, op->uuid) != 0)
        r = lmo_fail(err, LMO_E_INVALID, "uuid: the domain XML is of another guest (%s)", facts.uuid);
    if (r == 0)
        r = lmo_domxml_rewrite(op->text, op->map, true, &xml, err);
    if (r == 0)
        r = lmo_lv_lane_get(op->lv, LMO_LV_LANE_ORDERS, &conn, err);
    if (r == 0)
        r = lmo_lv_op_in_time(op, err);
    if (r < 0)
        return r;
    dom = virDomainDefineXMLFlags(conn, xml, VIR_DOMAIN_DEFINE_VALIDATE);
    if (!dom)
        return lmo_lv_fail(err, true, "defining the domain");
    if (virDomainSetAutostart(dom, op->flag) < 0)
        return lmo_lv_fail(err, true, "setting autostart");
    return 0;
}

int lmo_lv_define(struct lmo_hypervisor *hv, const char *uuid, const char *xml, const struct lmo_hv_disk_map *map,
                  bool autostart, uint64_t timeout_ms, struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_define, uuid);
    if (!op || !(op->text = strdup(xml)) || !(op->map = malloc(sizeof *op->map)))
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    *op->map = *map;
    op->flag = autostart;
    return lmo_lv_op_call(op, timeout_ms, err);
}
