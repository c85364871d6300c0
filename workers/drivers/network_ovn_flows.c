/* network_ovn_flows.c - one port's flows: what they say, and what changes them; see network_ovn.h.
 *
 * Table numbers, priorities and the shared cookie are OVN's, unchanged from 22.09 to 26.03 (controller/physical.c,
 * lflow.h). A version that changes them is noticed: its ports never count as held, and await_installed says so. */
#include "workers/drivers/network_ovn.h"

#include "base/clock.h"

#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define TABLE_IN           0    /* physical to logical: from the guest */
#define TABLE_OUT          65   /* logical to physical: to the guest */
#define HOLD_PRIORITY      1000 /* of the flows that hold; the port's ordinary flows have 100 or 150 */
#define USUAL_QUEUE_LENGTH 1000 /* the kernel's for a tap */

static void see_ordinary(void *arg, const struct lmo_openflow_flow *flow)
{
    struct ovn_port_flows *f = arg;
    if (flow->drops || flow->priority >= HOLD_PRIORITY || flow->priority < 100)
        return;
    f->wired_in = true;
    f->cookie = flow->cookie;
}

static void see_flow(void *arg, const struct lmo_openflow_flow *flow)
{
    struct ovn_port_flows *f = arg;
    if (flow->table_id == TABLE_OUT && !flow->drops && flow->priority < HOLD_PRIORITY) {
        f->wired_out = true;
        f->delivered += flow->packets;
    }
    if (!flow->drops || flow->priority != HOLD_PRIORITY || f->hold_count == OVN_HOLDS_MAX)
        return;
    if (flow->table_id != TABLE_IN && flow->table_id != TABLE_OUT)
        return;
    f->holds_in |= flow->table_id == TABLE_IN;
    f->holds_out |= flow->table_id == TABLE_OUT;
    f->holds[f->hold_count++] = *flow;
}

int ovn_read_flows(struct lmo_openflow *of, uint32_t ofport, uint64_t deadline_ns, struct ovn_port_flows *ret,
                   struct lmo_err *err)
{
    struct ovn_port_flows f = {0};
    struct lmo_openflow_query in = {.table_id = TABLE_IN, .in_port = ofport};
    int r = lmo_openflow_flows(of, &in, see_ordinary, &f, deadline_ns, err);
    if (r == 0 && f.wired_in) {
        struct lmo_openflow_query all = {.table_id = LMO_OPENFLOW_TABLE_ALL,
                                         .cookie = f.cookie,
                                         .cookie_mask = UINT64_MAX};
        r = lmo_openflow_flows(of, &all, see_flow, &f, deadline_ns, err);
    }
    if (r < 0)
        return r;
    f.wired = f.wired_in && f.wired_out;
    *ret = f;
    return 0;
}

static int wait_for_hold(struct lmo_openflow *of, const char *port_id, uint32_t ofport, uint64_t deadline_ns,
                         struct ovn_port_flows *ret, struct lmo_err *err)
{
    for (;;) {
        uint64_t seen = lmo_openflow_changes(of); /* before the look: no change is missed in between */
        int r = ovn_read_flows(of, ofport, deadline_ns, ret, err);
        if (r < 0 || (ret->wired && ret->holds_in && ret->holds_out))
            return r;
        r = lmo_openflow_await_change(of, seen, deadline_ns, err);
        if (r < 0)
            return lmo_fail(err, LMO_E_UNAVAILABLE, "port %s (number %u): %s", port_id, (unsigned)ofport,
                            !ret->wired
                                ? "its flows are not installed"
                                : "wired, but not held: it is not an additional chassis, or was opened already");
    }
}

int ovn_await_held(struct lmo_openflow *of, const char *port_id, uint32_t ofport, uint32_t watch_id,
                   uint64_t deadline_ns, struct ovn_port_flows *ret, struct lmo_err *err)
{
    int r = lmo_openflow_watch(of, watch_id, TABLE_IN, ofport, err);
    if (r < 0)
        return r;
    r = lmo_openflow_watch(of, watch_id + 1, TABLE_OUT, 0, err);
    if (r == 0) {
        r = wait_for_hold(of, port_id, ofport, deadline_ns, ret, err);
        lmo_openflow_unwatch(of, watch_id + 1);
    }
    lmo_openflow_unwatch(of, watch_id);
    return r;
}

/* ------------------------------------------------------------------ the burst */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "52:54:00:a9:57:a7"; lower case, as struct lmo_port has it. */
static bool parse_mac(const char *text, uint8_t ret[6])
{
    if (strlen(text) != 17)
        return false;
    for (size_t i = 0, at = 0; i < 6; i++, at += 3) {
        int high = hex_digit(text[at]), low = hex_digit(text[at + 1]);
        if (high < 0 || low < 0 || text[at + 2] != (i < 5 ? ':' : '\0'))
            return false;
        ret[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* The frame QEMU would send: RFC 903, a station asking for its own address, padded to Ethernet's minimum. */
static bool make_rarp(const char *mac, uint8_t ret_frame[60])
{
    static const uint8_t fixed[] = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};
    uint8_t m[6];
    if (!parse_mac(mac, m))
        return false;
    memset(ret_frame, 0, 60);
    memset(ret_frame, 0xff, 6);
    memcpy(ret_frame + 6, m, sizeof m);
    memcpy(ret_frame + 12, fixed, sizeof fixed);
    memcpy(ret_frame + 22, m, sizeof m);
    memcpy(ret_frame + 32, m, sizeof m);
    return true;
}

/* Order matters: once the hold were gone, the RARP would pass as an ordinary frame and OVN would never learn. */
int ovn_put_opening(struct lmo_buf *burst, const struct lmo_port *port, uint32_t ofport,
                    const struct ovn_port_flows *flows, struct lmo_err *err)
{
    uint8_t rarp[60];
    if (!make_rarp(port->mac, rarp))
        return lmo_fail(err, LMO_E_INVALID, "port %s: '%s' is no MAC address", port->id, port->mac);
    int r = lmo_openflow_put_packet_out(burst, ofport, rarp, sizeof rarp);
    for (unsigned i = 0; r == 0 && i < flows->hold_count; i++)
        r = lmo_openflow_put_delete(burst, &flows->holds[i]);
    return r < 0 ? lmo_fail(err, r, "port %s: burst not prepared", port->id) : 0;
}

/* ------------------------------------------------------------------ before the hold */

int ovn_set_forwarding(struct lmo_openflow *of, const struct lmo_openflow_port *port, bool forward,
                       uint64_t deadline_ns, struct lmo_err *err)
{
    LMO_AUTO_BUF struct lmo_buf burst = LMO_BUF_INIT(OVN_BURST_MAX);
    int r = lmo_openflow_put_forwarding(&burst, port, forward);
    if (r < 0)
        return lmo_fail(err, r, "out of memory");
    r = lmo_openflow_send(of, &burst, err);
    return r < 0 ? r : lmo_openflow_barrier(of, deadline_ns, err);
}

/* A tap's queue has the length of its transmit queue and is emptied when that becomes zero. A length of zero is what a
 * worker that died in between has left (nothing at all would get through): then the usual one is given back. */
bool ovn_empty_queue(const char *interface)
{
    struct ifreq length = {0}, none = {0};
    if (strlen(interface) >= sizeof length.ifr_name)
        return false;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    memcpy(length.ifr_name, interface, strlen(interface) + 1);
    memcpy(none.ifr_name, interface, strlen(interface) + 1);
    bool emptied = ioctl(fd, SIOCGIFTXQLEN, &length) == 0;
    if (emptied) {
        length.ifr_qlen = length.ifr_qlen > 0 ? length.ifr_qlen : USUAL_QUEUE_LENGTH;
        emptied = ioctl(fd, SIOCSIFTXQLEN, &none) == 0;
        emptied = ioctl(fd, SIOCSIFTXQLEN, &length) == 0 && emptied;
    }
    close(fd);
    return emptied;
}
