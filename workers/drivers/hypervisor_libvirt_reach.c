/* hypervisor_libvirt_reach.c - the source before the migration: would its libvirt reach the destination's?
 *
 * libvirt connects only once the migrate call is under way, when the destination has been prepared, exports and ports
 * have been made; and an address where nothing answers then costs minutes. So it is rehearsed from here, which is the
 * same host, user and network. */
#include "workers/drivers/hypervisor_libvirt.h"
#include "workers/drivers/hypervisor_libvirt_address.h"

#include "base/clock.h"

#include <string.h>

/* QEMU listens for guests' memory at the lowest free port from 49152 on, if the URI names none. Its listener takes the
 * first connection for the migration's: a look at a port that another incoming guest waits at would end that guest's
 * migration. The last port of libvirt's range is in use only when 64 come in at once, and a firewall that lets the range
 * through lets it through. */
#define MEMORY_PORT_LAST 49215

static int reach_memory(const char *uri, struct lmo_err *err)
{
    struct lmo_address a;
    int r = lmo_address_parse(uri, &a, err);
    if (r < 0)
        return r;
    if (!a.host[0] && strncmp(a.scheme, "unix", 4) == 0)
        return 0; /* a socket of this host's, that somebody forwards */
    if (!a.host[0])
        return lmo_fail(err, LMO_E_REFUSED, "'%.150s' names no host", uri);
    /* A port in the URI is the very one at which another guest may be awaited. */
    return a.port || strcmp(a.scheme, "tcp") != 0
               ? lmo_reach_route(a.host, err)
               : lmo_reach_tcp(a.host, MEMORY_PORT_LAST, false, LMO_REACH_CONNECT_MS, err);
}

static int reach_libvirt(const char *uri, struct lmo_err *err)
{
    struct lmo_address a;
    int r = lmo_address_parse(uri, &a, err);
    uint16_t port = r == 0 ? lmo_address_hypervisor_port(&a) : 0;
    if (r == 0 && port) /* first, because libvirt would wait for minutes where nothing answers */
        r = lmo_reach_tcp(a.host, port, true, LMO_REACH_CONNECT_MS, err);
    if (r < 0)
        return r;
    /* As libvirt's own connection for the migration: nobody is there to be asked for a password. */
    static virConnectAuth nobody;
    LMO_LV_AUTO_CONN virConnectPtr conn = virConnectOpenAuth(uri, &nobody, 0);
    if (conn)
        return 0;
    const virError *e = virGetLastError();
    if (e && e->code == VIR_ERR_NO_MEMORY)
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    return lmo_fail(err, LMO_E_REFUSED, "%.100s cannot be opened: %s", uri,
                    e && e->message ? e->message : "no message");
}

static int run_reach(struct lmo_lv_op *op, struct lmo_err *err)
{
    int r = reach_libvirt(op->text, err);
    if (r < 0)
        return lmo_err_prefix(err, "peer_uri");
    r = reach_memory(op->result_text, err);
    return r < 0 ? lmo_err_prefix(err, "migration_uri") : 0;
}

int lmo_lv_check_reach(struct lmo_hypervisor *hv, const char *peer_uri, const char *migration_uri, uint64_t timeout_ms,
                       struct lmo_err *err)
{
    LMO_LV_AUTO_OP struct lmo_lv_op *op = lmo_lv_op_new((struct lmo_lv *)hv, run_reach, NULL);
    if (!op || !(op->text = strdup(peer_uri)) || !(op->result_text = strdup(migration_uri)))
        return lmo_fail(err, LMO_E_NO_MEMORY, "out of memory");
    int r = lmo_lv_op_call(op, timeout_ms, err);
    /* Nothing was changed by it, so this is an answer: whoever listens there says nothing. */
    return r == LMO_E_TIMEOUT ? lmo_fail(err, LMO_E_REFUSED,
                                         "peer_uri: %.150s is not open within %llu ms: what listens "
                                         "there does not answer",
                                         peer_uri, (unsigned long long)timeout_ms)
                              : r;
}
