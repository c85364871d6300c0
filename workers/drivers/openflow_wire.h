/* openflow_wire.h - OpenFlow 1.4 messages as bytes (Open Networking Foundation TS-020). Pure: no sockets, no clock.
 *
 * Everything read is checked against the message's length before it is used: a switch is a peer like any other. */
#ifndef LMO_WORKERS_OPENFLOW_WIRE_H
#define LMO_WORKERS_OPENFLOW_WIRE_H

#include "workers/drivers/openflow.h"

#define OF_VERSION     5 /* 1.4 */
#define OF_HEADER_LEN  8
#define OF_MESSAGE_MAX 65535
#define OF_BURST_MAX   16384

enum of_type {
    OF_HELLO = 0,
    OF_ERROR = 1,
    OF_ECHO_REQUEST = 2,
    OF_ECHO_REPLY = 3,
    OF_PACKET_OUT = 13,
    OF_FLOW_MOD = 14,
    OF_PORT_MOD = 16,
    OF_MULTIPART_REQUEST = 18,
    OF_MULTIPART_REPLY = 19,
    OF_BARRIER_REQUEST = 20,
    OF_BARRIER_REPLY = 21,
};

enum of_multipart {
    OF_MP_FLOW = 1,
    OF_MP_PORT_DESC = 13,
    OF_MP_FLOW_MONITOR = 16,
};

struct of_message {
    uint8_t version, type;
    uint32_t xid;
    const uint8_t *body; /* after the header */
    size_t len;          /* of the body */
};

/* 1 with the first message of `bytes` (borrowed) and its whole length in *ret_used, 0 when it is not complete yet,
 * INVALID for a length that cannot be. */
int of_parse(const uint8_t *bytes, size_t n, struct of_message *ret, size_t *ret_used) LMO_MUST_CHECK;
/* Does a HELLO allow version 1.4? (TS-020 7.5.1: bitmap if there is one, else the header's version or lower.) */
bool of_hello_allows(const struct of_message *hello);
/* Type of a multipart reply, and whether more parts follow; false when it is too short. */
bool of_multipart_head(const struct of_message *m, uint16_t *ret_type, bool *ret_more);
/* Calls `each` for every flow of a flow multipart reply; INVALID when it does not add up. */
int of_each_flow(const struct of_message *m, void (*each)(void *arg, const struct lmo_openflow_flow *flow),
                 void *arg) LMO_MUST_CHECK;
/* The same for a port description reply. */
int of_each_port(const struct of_message *m, void (*each)(void *arg, const struct lmo_openflow_port *port),
                 void *arg) LMO_MUST_CHECK;
/* Type and code of an ERROR message; false when it is too short. */
bool of_error(const struct of_message *m, uint16_t *ret_type, uint16_t *ret_code);

/* Each appends one whole message with xid 0. */
int of_put_hello(struct lmo_buf *out) LMO_MUST_CHECK;
int of_put_simple(struct lmo_buf *out, enum of_type type, const void *body, size_t len) LMO_MUST_CHECK;
int of_put_flow_request(struct lmo_buf *out, const struct lmo_openflow_query *query) LMO_MUST_CHECK;
int of_put_port_request(struct lmo_buf *out) LMO_MUST_CHECK;
int of_put_monitor(struct lmo_buf *out, uint32_t id, uint8_t table_id, uint32_t in_port) LMO_MUST_CHECK;
int of_put_monitor_cancel(struct lmo_buf *out, uint32_t id) LMO_MUST_CHECK;
/* Writes an xid into the message that starts at `bytes`; returns that message's length. */
size_t of_stamp(uint8_t *bytes, uint32_t xid);

#endif
