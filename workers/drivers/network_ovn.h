/* network_ovn.h - what the files of OVN's host-side driver share: one port's flows, as the bridge has them. */
#ifndef LMO_WORKERS_NETWORK_OVN_H
#define LMO_WORKERS_NETWORK_OVN_H

#include "base/buf.h"
#include "workers/drivers/driver.h"
#include "workers/drivers/openflow.h"

#define OVN_HOLDS_MAX 4 /* dropping flows of one held port; OVN makes two */
#define OVN_BURST_MAX 4096

/* What the bridge has for one port. */
struct ovn_port_flows {
    uint64_t cookie; /* of the port's ordinary flow in TABLE_IN; OVN gives all flows of a port binding the same */
    bool wired;      /* ordinary flows in both directions */
    bool wired_in, wired_out;
    unsigned hold_count;
    bool holds_in, holds_out;
    uint64_t delivered; /* frames let through to the guest's interface so far (the count lags by up to a second) */
    struct lmo_openflow_flow holds[OVN_HOLDS_MAX];
};
int ovn_read_flows(struct lmo_openflow *of, uint32_t ofport, uint64_t deadline_ns, struct ovn_port_flows *ret,
                   struct lmo_err *err) LMO_MUST_CHECK;
/* Waits until the port is wired and held in both directions. Two subscriptions are made, under `watch_id` and the
 * number after it. UNAVAILABLE, saying what is missing, at the deadline. */
int ovn_await_held(struct lmo_openflow *of, const char *port_id, uint32_t ofport, uint32_t watch_id,
                   uint64_t deadline_ns, struct ovn_port_flows *ret, struct lmo_err *err) LMO_MUST_CHECK;
/* Appends to an empty `burst` the messages that open a held port. INVALID for a MAC address that is none. */
int ovn_put_opening(struct lmo_buf *burst, const struct lmo_port *port, uint32_t ofport,
                    const struct ovn_port_flows *flows, struct lmo_err *err) LMO_MUST_CHECK;
/* Tells the port to forward or not, and waits until it does. */
int ovn_set_forwarding(struct lmo_openflow *of, const struct lmo_openflow_port *port, bool forward,
                       uint64_t deadline_ns, struct lmo_err *err) LMO_MUST_CHECK;
/* Throws away the frames that wait for a guest in its interface. False when that is no interface of the kernel's. */
bool ovn_empty_queue(const char *interface);

#endif
