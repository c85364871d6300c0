/* openflow_wire.c - OpenFlow 1.4 messages as bytes; see openflow_wire.h. Section numbers are those of ONF TS-020. */
#include "workers/drivers/openflow_wire.h"

#include <endian.h>
#include <string.h>

#define NO_BUFFER            UINT32_C(0xffffffff)
#define PORT_ANY             UINT32_C(0xffffffff)
#define PORT_TABLE           UINT32_C(0xfffffff9) /* "through the flow tables"; only in packet-out */
#define GROUP_ANY            UINT32_C(0xffffffff)
#define OXM_IN_PORT          UINT32_C(0x80000004)
#define MATCH_OXM            1
#define FLOW_DELETE_STRICT   4
#define MONITOR_ADD          0
#define MONITOR_DELETE       2
#define MONITOR_CHANGES      (2 | 4 | 8) /* added, removed, modified */
#define FLOW_STATS_LEN       48          /* 7.3.5.2, up to the match */
#define PORT_LEN             40          /* 7.2.1, up to the properties */
#define PORT_NO_FWD          (UINT32_C(1) << 5)
#define HELLO_VERSION_BITMAP 1

static uint16_t get16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return be16toh(v);
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return be32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return be64toh(v);
}

static uint8_t *put16(uint8_t *p, uint16_t v)
{
    v = htobe16(v);
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

static uint8_t *put64(uint8_t *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

static size_t pad8(size_t n)
{
    return (n + 7) / 8 * 8;
}

/* ------------------------------------------------------------------ reading */

int of_parse(const uint8_t *bytes, size_t n, struct of_message *ret, size_t *ret_used)
{
    if (n < OF_HEADER_LEN)
        return 0;
    size_t len = get16(bytes + 2);
    if (len < OF_HEADER_LEN)
        return LMO_E_INVALID;
    if (n < len)
        return 0;
    *ret = (struct of_message){.version = bytes[0],
                               .type = bytes[1],
                               .xid = get32(bytes + 4),
                               .body = bytes + OF_HEADER_LEN,
                               .len = len - OF_HEADER_LEN};
    *ret_used = len;
    return 1;
}

bool of_hello_allows(const struct of_message *hello)
{
    for (size_t at = 0; at + 8 <= hello->len;) {
        size_t len = get16(hello->body + at + 2);
        if (len < 4)
            break;
        if (get16(hello->body + at) == HELLO_VERSION_BITMAP && len >= 8)
            return get32(hello->body + at + 4) & (UINT32_C(1) << OF_VERSION);
        at += pad8(len);
    }
    return hello->version >= OF_VERSION;
}

bool of_multipart_head(const struct of_message *m, uint16_t *ret_type, bool *ret_more)
{
    if (m->len < 8)
        return false;
    *ret_type = get16(m->body);
    *ret_more = get16(m->body + 2) & 1;
    return true;
}

/* One entry of a flow reply (7.3.5.2): fixed part, match padded to 8, instructions. */
static bool read_flow(const uint8_t *p, size_t len, struct lmo_openflow_flow *ret)
{
    size_t match_len = get16(p + FLOW_STATS_LEN + 2);
    if (match_len < 4 || FLOW_STATS_LEN + pad8(match_len) > len)
        return false;
    if (match_len > sizeof ret->match)
        return false;
    ret->table_id = p[2];
    ret->priority = get16(p + 12);
    ret->cookie = get64(p + 24);
    ret->packets = get64(p + 32);
    ret->match_len = (uint16_t)match_len;
    memcpy(ret->match, p + FLOW_STATS_LEN, match_len);
    ret->drops = FLOW_STATS_LEN + pad8(match_len) == len;
    return true;
}

int of_each_flow(const struct of_message *m, void (*each)(void *arg, const struct lmo_openflow_flow *flow), void *arg)
{
    for (size_t at = 8; at < m->len;) {
        if (m->len - at < FLOW_STATS_LEN + 8)
            return LMO_E_INVALID;
        size_t len = get16(m->body + at);
        if (len < FLOW_STATS_LEN + 8 || len > m->len - at)
            return LMO_E_INVALID;
        struct lmo_openflow_flow flow;
        if (!read_flow(m->body + at, len, &flow))
            return LMO_E_INVALID;
        each(arg, &flow);
        at += len;
    }
    return 0;
}

int of_each_port(const struct of_message *m, void (*each)(void *arg, const struct lmo_openflow_port *port), void *arg)
{
    for (size_t at = 8; at < m->len;) {
        const uint8_t *p = m->body + at;
        if (m->len - at < PORT_LEN)
            return LMO_E_INVALID;
        size_t len = get16(p + 4);
        if (len < PORT_LEN || len > m->len - at)
            return LMO_E_INVALID;
        struct lmo_openflow_port port = {.number = get32(p), .no_forward = get32(p + 32) & PORT_NO_FWD};
        memcpy(port.hw_addr, p + 8, sizeof port.hw_addr);
        each(arg, &port);
        at += len;
    }
    return 0;
}

bool of_error(const struct of_message *m, uint16_t *ret_type, uint16_t *ret_code)
{
    if (m->len < 4)
        return false;
    *ret_type = get16(m->body);
    *ret_code = get16(m->body + 2);
    return true;
}

/* ------------------------------------------------------------------ writing */

int of_put_simple(struct lmo_buf *out, enum of_type type, const void *body, size_t len)
{
    uint8_t head[OF_HEADER_LEN] = {OF_VERSION, (uint8_t)type};
    if (len > OF_MESSAGE_MAX - OF_HEADER_LEN)
        return LMO_E_TOO_LARGE;
    put16(head + 2, (uint16_t)(OF_HEADER_LEN + len));
    int r = lmo_buf_reserve(out, sizeof head + len);
    if (r == 0)
        r = lmo_buf_append(out, head, sizeof head);
    if (r == 0 && len > 0)
        r = lmo_buf_append(out, body, len);
    return r;
}

int of_put_hello(struct lmo_buf *out)
{
    uint8_t body[8];
    uint8_t *p = put16(body, HELLO_VERSION_BITMAP);
    p = put16(p, sizeof body);
    put32(p, UINT32_C(1) << OF_VERSION);
    return of_put_simple(out, OF_HELLO, body, sizeof body);
}

size_t of_stamp(uint8_t *bytes, uint32_t xid)
{
    put32(bytes + 4, xid);
    return get16(bytes + 2);
}

/* A match on in_port alone, or on nothing; returns the end of what was written, padding included. */
static uint8_t *put_match(uint8_t *p, uint32_t in_port)
{
    uint8_t *start = p;
    p = put16(p, MATCH_OXM);
    p = put16(p, in_port ? 12 : 4);
    if (in_port) {
        p = put32(p, OXM_IN_PORT);
        p = put32(p, in_port);
    }
    return start + pad8((size_t)(p - start)); /* the caller's buffer is zeroed */
}

static uint8_t *put_multipart(uint8_t *p, enum of_multipart type)
{
    p = put16(p, (uint16_t)type);
    p = put16(p, 0);
    return put32(p, 0);
}

int of_put_flow_request(struct lmo_buf *out, const struct lmo_openflow_query *query)
{
    uint8_t body[64] = {0};
    uint8_t *p = put_multipart(body, OF_MP_FLOW);
    *p = query->table_id;
    p += 4;
    p = put32(p, PORT_ANY);
    p = put32(p, GROUP_ANY);
    p = put32(p, 0);
    p = put64(p, query->cookie);
    p = put64(p, query->cookie_mask);
    p = put_match(p, query->in_port);
    return of_put_simple(out, OF_MULTIPART_REQUEST, body, (size_t)(p - body));
}

int of_put_port_request(struct lmo_buf *out)
{
    uint8_t body[8] = {0};
    put_multipart(body, OF_MP_PORT_DESC);
    return of_put_simple(out, OF_MULTIPART_REQUEST, body, sizeof body);
}

static int put_monitor(struct lmo_buf *out, uint32_t id, uint8_t table_id, uint32_t in_port, uint8_t command)
{
    uint8_t body[64] = {0};
    uint8_t *p = put_multipart(body, OF_MP_FLOW_MONITOR);
    p = put32(p, id);
    p = put32(p, PORT_ANY);
    p = put32(p, GROUP_ANY);
    p = put16(p, MONITOR_CHANGES);
    *p++ = table_id;
    *p++ = command;
    p = put_match(p, in_port);
    return of_put_simple(out, OF_MULTIPART_REQUEST, body, (size_t)(p - body));
}

int of_put_monitor(struct lmo_buf *out, uint32_t id, uint8_t table_id, uint32_t in_port)
{
    return put_monitor(out, id, table_id, in_port, MONITOR_ADD);
}

int of_put_monitor_cancel(struct lmo_buf *out, uint32_t id)
{
    return put_monitor(out, id, 0, 0, MONITOR_DELETE);
}

int lmo_openflow_put_packet_out(struct lmo_buf *burst, uint32_t in_port, const void *frame, size_t len)
{
    uint8_t body[32 + 1536] = {0};
    if (len > sizeof body - 32)
        return LMO_E_TOO_LARGE;
    uint8_t *p = put32(body, NO_BUFFER);
    p = put32(p, in_port);
    p = put16(p, 16);
    p += 6;
    p = put16(p, 0); /* action: output */
    p = put16(p, 16);
    p = put32(p, PORT_TABLE);
    p += 8;
    memcpy(p, frame, len);
    return of_put_simple(burst, OF_PACKET_OUT, body, (size_t)(p - body) + len);
}

int lmo_openflow_put_delete(struct lmo_buf *burst, const struct lmo_openflow_flow *flow)
{
    uint8_t body[40 + LMO_OPENFLOW_MATCH_MAX + 8] = {0};
    uint8_t *p = put64(body, flow->cookie);
    p = put64(p, UINT64_MAX);
    *p++ = flow->table_id;
    *p++ = FLOW_DELETE_STRICT;
    p = put32(p, 0); /* no timeouts */
    p = put16(p, flow->priority);
    p = put32(p, NO_BUFFER);
    p = put32(p, PORT_ANY);
    p = put32(p, GROUP_ANY);
    p = put32(p, 0); /* flags, importance */
    memcpy(p, flow->match, flow->match_len);
    p += pad8(flow->match_len);
    return of_put_simple(burst, OF_FLOW_MOD, body, (size_t)(p - body));
}

int lmo_openflow_put_forwarding(struct lmo_buf *burst, const struct lmo_openflow_port *port, bool forward)
{
    uint8_t body[24] = {0};
    uint8_t *p = put32(body, port->number);
    p += 4;
    memcpy(p, port->hw_addr, sizeof port->hw_addr);
    p += 8;
    p = put32(p, forward ? 0 : PORT_NO_FWD);
    put32(p, PORT_NO_FWD);
    return of_put_simple(burst, OF_PORT_MOD, body, sizeof body);
}
