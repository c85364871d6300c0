/* openflow.h - a small client of one bridge's OpenFlow management socket, kept open.
 *
 * It speaks OpenFlow 1.4 (Open vSwitch 2.8 and newer do by default) and only what the drivers need: look at flows, be
 * told that flows changed, and send a prepared burst of messages without waiting. Several threads may use it at once;
 * every wait has a deadline (lmo_now_ns).
 *
 * A management connection is neither master nor slave: it does not disturb the bridge's controller, and what it
 * installs or removes is invisible to that controller. So drivers remove only what the controller is being told to
 * remove at the same moment. */
#ifndef LMO_WORKERS_OPENFLOW_H
#define LMO_WORKERS_OPENFLOW_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LMO_OPENFLOW_MATCH_MAX   256 /* bytes of one flow's match; the longest of an OVN port flow is below 40 */
#define LMO_OPENFLOW_TABLE_ALL   0xff
#define LMO_OPENFLOW_WATCHES_MAX 512

struct lmo_openflow;

/* `bridge` is its name in logs and errors; `remote`: "unix:/run/openvswitch/br-int.mgmt". Connects in the background.
 * INVALID for a remote of no known form. */
int lmo_openflow_open(const char *bridge, const char *remote, struct lmo_openflow **ret,
                      struct lmo_err *err) LMO_MUST_CHECK;
/* Takes of; NULL is fine. No other thread may be in a call on it. */
void lmo_openflow_close(struct lmo_openflow *of);
/* Waits until the connection is usable. UNAVAILABLE at the deadline, UNSUPPORTED for a switch without OpenFlow 1.4. */
int lmo_openflow_await_ready(struct lmo_openflow *of, uint64_t deadline_ns, struct lmo_err *err) LMO_MUST_CHECK;

/* One flow as the switch has it. `match` is its match as it was on the wire, so that it can be named again exactly. */
struct lmo_openflow_flow {
    uint8_t table_id;
    uint16_t priority;
    uint64_t cookie;
    uint64_t packets;
    bool drops;         /* no instructions at all */
    uint16_t match_len; /* without padding */
    uint8_t match[LMO_OPENFLOW_MATCH_MAX];
};

/* Which flows to look at: the zero value of a member does not restrict, except table_id (LMO_OPENFLOW_TABLE_ALL). */
struct lmo_openflow_query {
    uint8_t table_id;
    uint32_t in_port;
    uint64_t cookie, cookie_mask;
};
/* Calls `each` for every flow; it runs with the connection's lock held and must not block or use the connection. */
int lmo_openflow_flows(struct lmo_openflow *of, const struct lmo_openflow_query *query,
                       void (*each)(void *arg, const struct lmo_openflow_flow *flow), void *arg, uint64_t deadline_ns,
                       struct lmo_err *err) LMO_MUST_CHECK;

/* One port of the bridge. */
struct lmo_openflow_port {
    uint32_t number;
    uint8_t hw_addr[6];
    bool no_forward; /* what would go out through it is dropped, whatever the flows say */
};
/* NOT_FOUND: the bridge has no such port. */
int lmo_openflow_find_port(struct lmo_openflow *of, uint32_t number, uint64_t deadline_ns,
                           struct lmo_openflow_port *ret, struct lmo_err *err) LMO_MUST_CHECK;

/* Asks the switch to report changes of the flows of a table (in_port 0: all of the table), also after a reconnect,
 * until lmo_openflow_unwatch. `id` is the caller's, not 0. LIMIT when there are LMO_OPENFLOW_WATCHES_MAX already. */
int lmo_openflow_watch(struct lmo_openflow *of, uint32_t id, uint8_t table_id, uint32_t in_port,
                       struct lmo_err *err) LMO_MUST_CHECK;
void lmo_openflow_unwatch(struct lmo_openflow *of, uint32_t id);
/* A number that grows with every reported change and every loss of the connection. */
uint64_t lmo_openflow_changes(struct lmo_openflow *of);
/* Waits until it is no longer `seen`. TIMEOUT at the deadline. */
int lmo_openflow_await_change(struct lmo_openflow *of, uint64_t seen, uint64_t deadline_ns,
                              struct lmo_err *err) LMO_MUST_CHECK;

/* Prepared messages, appended to a buffer. */
/* A frame as if it had come in through `in_port`, put through the flow tables. */
int lmo_openflow_put_packet_out(struct lmo_buf *burst, uint32_t in_port, const void *frame, size_t len) LMO_MUST_CHECK;
/* Removes exactly this flow (table, priority, match, cookie), if it is there. */
int lmo_openflow_put_delete(struct lmo_buf *burst, const struct lmo_openflow_flow *flow) LMO_MUST_CHECK;
/* Lets the port forward, or not. The setting is the port's and ends with it; controllers do not touch it. */
int lmo_openflow_put_forwarding(struct lmo_buf *burst, const struct lmo_openflow_port *port,
                                bool forward) LMO_MUST_CHECK;
/* Hands a burst to the switch, which handles it in order. Does not wait. UNAVAILABLE: nothing was sent. */
int lmo_openflow_send(struct lmo_openflow *of, const struct lmo_buf *burst, struct lmo_err *err) LMO_MUST_CHECK;
/* Waits until the switch has handled everything sent before. */
int lmo_openflow_barrier(struct lmo_openflow *of, uint64_t deadline_ns, struct lmo_err *err) LMO_MUST_CHECK;

#endif
